"""How far a table can be trusted: rank correlations, reliability, noise near the best.

Dimension letters: R rows, S seeds.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas_gym.search_spaces import make_space
from nas_gym.search_spaces.core import Batch
from nas_gym.tables.format import Table

SHARES = (1.0, 0.2, 0.05)
"""Parts of the space that correlations are stated for: all of it, its best fifth, its best twentieth."""

_NEAR_THE_BEST = 0.05


@dataclass(frozen=True)
class Quality:
    """Reliability of a table, over one row per isomorphism class.

    Attributes:
        classes: number of isomorphism classes.
        valid_test: Spearman correlation of validation and test accuracy by share; the best by test accuracy.
        split_half: Spearman correlation between the validation means of two halves of the seeds but one, by which
            the best are chosen; averaged over all choices and splits. None with fewer than three seeds.
        distinct_in_top_100: distinct mean validation accuracies among the 100 best encodings.
        standard_error: of a mean test accuracy near the best (see `standard_error`).
        tied_encodings: encodings whose mean test accuracy lies within one standard error of the best.
        tied_classes: the same in classes.
    """

    classes: int
    valid_test: Mapping[float, float]
    split_half: Mapping[float, float] | None
    distinct_in_top_100: int
    standard_error: float
    tied_encodings: int
    tied_classes: int


def ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the ranks from 1, ties sharing their mean rank, shape as `values`."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def spearman(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    """Return Spearman's rank correlation; NaN where one side is constant or fewer than two values are given."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


def spearman_by_share(
    values: npt.NDArray[np.float64], reference: npt.NDArray[np.float64], order: npt.NDArray[np.float64] | None = None
) -> dict[float, float]:
    """Return the correlation of `values` with `reference` over all rows and among the best by `order`.

    Args:
        values: shape [R].
        reference: shape [R].
        order: what the best are chosen by, the reference by default, shape [R].
    """
    best_first = np.argsort(-(reference if order is None else order), kind="stable")
    chosen = {share: best_first[: max(2, round(share * len(values)))] for share in SHARES}
    return {share: spearman(values[rows], reference[rows]) for share, rows in chosen.items()}


def split_half(per_seed: npt.NDArray[np.float64]) -> dict[float, float] | None:
    """Return the mean correlation between two halves of the seeds by share; None with fewer than three seeds.

    The best are chosen by one seed and the halves are made of the others, in all ways: choosing by a mean that
    contains the halves would make them correlate negatively among the chosen, however reliable they are.

    Args:
        per_seed: values of every seed, shape [R, S]; rows that lack one are left out.
    """
    per_seed = per_seed[~np.isnan(per_seed).any(axis=1)]
    seeds = per_seed.shape[1]
    if seeds < 3 or not len(per_seed):
        return None
    found: dict[float, list[float]] = {share: [] for share in SHARES}
    for chooser in range(seeds):
        others = [seed for seed in range(seeds) if seed != chooser]
        for half in itertools.combinations(others, len(others) // 2):
            rest = [seed for seed in others if seed not in half]
            means = (per_seed[:, list(part)].mean(axis=1) for part in (half, rest))
            for share, value in spearman_by_share(*means, order=per_seed[:, chooser]).items():
                found[share].append(value)
    return {share: float(np.mean(values)) for share, values in found.items()}


def standard_error(table: Table, metric: str) -> float:
    """Return the standard error of a metric's mean over the seeds, near the best.

    It is pooled over the best 5 % of the encodings, since that of the best one alone is itself noisy; those with one
    seed say nothing about it. 0 where all have one seed.
    """
    per_seed = table.per_seed(metric)
    sign = -1 if table.measurement(metric).direction == "maximize" else 1
    near = np.argsort(sign * table.mean(metric), kind="stable")[: max(1, round(_NEAR_THE_BEST * len(per_seed)))]
    values = per_seed[near]
    seeds = (~np.isnan(values)).sum(axis=1)
    repeated = seeds > 1
    if not repeated.any():
        return 0.0
    return float(np.sqrt((np.nanvar(values[repeated], axis=1, ddof=1) / seeds[repeated]).mean()))


def representatives(table: Table) -> npt.NDArray[np.int64]:
    """Return one row per isomorphism class: that of the canonical encoding, or the first of the class present."""
    space = make_space(table.metadata["space"], table.metadata.get("space_settings"))
    present = set(table.codes.tolist())
    encodings = [encoding for encoding in space.enumerate() if space.code(encoding) in present]
    codes = space.canonical_codes(Batch.of(space, encodings))
    return np.sort(np.unique(codes, return_index=True)[1])


def quality(table: Table, valid: str = "valid_accuracy", test: str = "test_accuracy") -> Quality:
    """Measure a table.

    Raises:
        UnknownName: the table lacks one of the metrics.
    """
    rows = representatives(table)
    valid_mean, test_mean = table.mean(valid), table.mean(test)
    error = standard_error(table, test)
    tied = test_mean >= test_mean.max() - error
    top = np.sort(valid_mean)[::-1][:100]
    return Quality(
        classes=len(rows),
        valid_test=spearman_by_share(valid_mean[rows], test_mean[rows]),
        split_half=split_half(table.per_seed(valid)[rows]),
        distinct_in_top_100=len(np.unique(top)),
        standard_error=error,
        tied_encodings=int(tied.sum()),
        tied_classes=int(tied[rows].sum()),
    )
