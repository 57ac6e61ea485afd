"""What NATS-Bench reports of searches that ours can be held against, with how sure we are of each number.

The protocol, which `nas_benchmarks.reproduction` follows, was read in the official scripts (D-X-Y/AutoDL-Projects,
``exps/NATS-algos/*.py`` and ``exps/NATS-Bench/draw-table.py``): 500 runs, searched by validation accuracy after 12
epochs until a simulated clock has passed a number of seconds, reported by test accuracy after 200 epochs, mean and
population standard deviation over runs. The results stand in the paper, of which no copy could be opened.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .suites import Method

RECALLED = "recalled"
"""Source of a number that could not be looked up."""

REPRODUCED, CONSISTENT, DIFFERS, TOO_FEW = "reproduced", "consistent with", "differs", "too few runs"

Z = 1.96
"""Half the width of a 95 % interval in standard errors."""

ROUNDING = 0.005
"""How far the published means, which have two decimals, may be from what was measured; percentage points."""


@dataclass(frozen=True)
class Reported:
    """A mean over runs as it was published.

    Attributes:
        dataset: name of the data set in the metadata of tables.
        method: name of our method that is the same algorithm with the same settings.
        label: what the paper calls it.
        mean: test accuracy in percent.
        deviation: population standard deviation over runs, percentage points.
        runs: how many.
        seconds: of the simulated clock, after which a run ends.
        place: where it was published.
        source: where it was read, or `RECALLED`.
    """

    dataset: str
    method: str
    label: str
    mean: float
    deviation: float
    runs: int
    seconds: float
    place: str
    source: str

    @property
    def sourced(self) -> bool:
        """Whether the number was read anywhere."""
        return self.source != RECALLED


@dataclass(frozen=True)
class Verdict:
    """What runs of ours say about a published mean.

    Attributes:
        label: `REPRODUCED`, `CONSISTENT`, `DIFFERS` or `TOO_FEW`.
        difference: our mean minus the published one, percentage points.
        margin: half the width of the 95 % interval of the difference, rounding included; NaN for a single run.
    """

    label: str
    difference: float
    margin: float


RANDOM_SEARCH = Method("random_search")
EVOLUTION = Method("evolution", {"preset": "nats_bench"})
REINFORCE = Method("reinforce", {"preset": "nats_bench"})

METHODS = (RANDOM_SEARCH, EVOLUTION, REINFORCE)
"""Uniform draws with replacement; population 10, tournament 3; independent logits, Adam with 0.01, average with 0.9."""

RUNS = 500
"""Runs of every published mean (``loops_if_rand`` of the official scripts)."""

SECONDS = {"cifar10": 20_000.0, "cifar100": 40_000.0, "imagenet16-120": 120_000.0}
"""Simulated seconds after which the published runs end, by data set (``draw-table.py``)."""

_TABLE_4 = "Dong, Liu, Musial, Gabrys: NATS-Bench, TPAMI 2021 (arXiv 2009.00437), table 4, topology space"


def _rows(dataset: str, random: tuple[float, float], evolution: tuple[float, float], reinforce: tuple[float, float]):  # noqa: ANN202 - a generator of `Reported`
    named = ((RANDOM_SEARCH, "RANDOM", random), (EVOLUTION, "REA", evolution), (REINFORCE, "REINFORCE", reinforce))
    for method, label, (mean, deviation) in named:
        yield Reported(dataset, method.name, label, mean, deviation, RUNS, SECONDS[dataset], _TABLE_4, RECALLED)


REPORTED: tuple[Reported, ...] = (
    *_rows("cifar10", (93.86, 0.23), (94.02, 0.31), (93.90, 0.26)),
    *_rows("cifar100", (71.55, 0.97), (72.23, 0.84), (71.86, 0.89)),
    *_rows("imagenet16-120", (45.28, 0.97), (45.77, 0.80), (45.64, 0.78)),
)
"""Everything that is compared. All of it is recalled: no row can be called reproduced before somebody looks it up."""


def reported(dataset: str | None, method: str) -> Reported | None:
    """Return what was published of a method on a data set, None where nothing was."""
    return next((one for one in REPORTED if (one.dataset, one.method) == (dataset, method)), None)


def standard_error(published: Reported, values: npt.NDArray[np.float64]) -> float:
    """Return the standard error of the difference of the two means; NaN for a single run.

    Args:
        published: the mean that is compared.
        values: of our runs, percent, shape [R].
    """
    if len(values) < 2:
        return math.nan
    return math.sqrt(values.var(ddof=1) / len(values) + published.deviation**2 / published.runs)


def judge(published: Reported, values: npt.NDArray[np.float64], published_rule: bool) -> Verdict:
    """Compare runs of ours with a published mean.

    They agree where the 95 % interval of the difference of the means, widened by the rounding of the published one,
    holds 0. Agreement is called a reproduction only where the published number was read somewhere, our runs ended by
    the published rule and are at least as many; else it is consistency.

    Args:
        published: the mean that is compared.
        values: of our runs, percent, shape [R].
        published_rule: whether our runs ended when the simulated clock passed the published number of seconds.
    """
    difference = float(values.mean()) - published.mean
    margin = Z * standard_error(published, values) + ROUNDING
    if math.isnan(margin):
        return Verdict(TOO_FEW, difference, margin)
    if abs(difference) > margin:
        return Verdict(DIFFERS, difference, margin)
    whole = published.sourced and published_rule and len(values) >= published.runs
    return Verdict(REPRODUCED if whole else CONSISTENT, difference, margin)
