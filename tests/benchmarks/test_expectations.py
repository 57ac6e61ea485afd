"""What random search is expected to find: against enumeration, published anchors, simulation and the agent itself."""

from __future__ import annotations

import csv
import functools
import gzip
import itertools
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nas_agents
from nas_benchmarks.expectations import expected_best_of, expected_incumbent
from nas_benchmarks.metrics import Yardstick, incumbents
from nas_benchmarks.tasks import TASKS, WholeSpace
from nas_benchmarks.traces import TraceRecorder
from nas_gym.errors import InvalidArgument

Floats = npt.NDArray[np.float64]

# --- enumeration -----------------------------------------------------------------------------------

table = st.lists(st.tuples(st.integers(0, 3), st.integers(-3, 3)), min_size=1, max_size=5)
"""Signal, with many ties, and held-out value of a few architectures."""


def by_enumeration(rows: list[tuple[int, int]], sequences: Iterable[tuple[int, ...]]) -> float:
    """Return the mean held-out value of the first best by signal over sequences of draws."""
    return float(np.mean([rows[max(drawn, key=lambda index: rows[index][0])][1] for drawn in sequences]))


def columns(rows: list[tuple[int, int]]) -> tuple[Floats, Floats]:
    """Return signal and held-out values as arrays."""
    signal, held_out = np.array(rows, float).T
    return signal, held_out


@given(table, st.integers(1, 4))
def test_with_replacement_every_sequence_is_equally_probable(rows: list[tuple[int, int]], draws: int) -> None:
    """The closed form is the mean over all of them."""
    brute = by_enumeration(rows, itertools.product(range(len(rows)), repeat=draws))
    assert expected_incumbent(*columns(rows), np.array([draws]))[0] == pytest.approx(brute, abs=1e-12)


@given(table, st.integers(1, 5))
def test_without_replacement_every_arrangement_is(rows: list[tuple[int, int]], draws: int) -> None:
    """The same of different architectures; a search that has drawn all of them stops there."""
    brute = by_enumeration(rows, itertools.permutations(range(len(rows)), min(draws, len(rows))))
    found = expected_incumbent(*columns(rows), np.array([draws]), replacement=False)
    assert found[0] == pytest.approx(brute, abs=1e-12)


@pytest.mark.parametrize("replacement", [True, False])
@given(values=st.lists(st.integers(0, 3), min_size=1, max_size=5), draws=st.integers(1, 4))
def test_the_best_is_an_incumbent_judged_by_its_own_signal(replacement: bool, values: list[int], draws: int) -> None:
    """Its expectation is that of the maximum."""
    sequences = (
        itertools.product(values, repeat=draws)
        if replacement
        else itertools.permutations(values, min(draws, len(values)))
    )
    brute = np.mean([max(drawn) for drawn in sequences])
    found = expected_best_of(np.array(values, float), np.array([draws]), replacement=replacement)
    assert found[0] == pytest.approx(brute, abs=1e-12)


@pytest.mark.parametrize("replacement", [True, False])
def test_one_draw_is_worth_the_mean(replacement: bool) -> None:
    """There is nothing to choose from."""
    signal, held_out = np.random.default_rng(0).random((2, 1_000))
    found = expected_incumbent(signal, held_out, np.array([1]), replacement=replacement)
    assert found[0] == pytest.approx(held_out.mean())


def test_all_architectures_without_replacement_contain_the_best() -> None:
    """For certain, however many there are."""
    values = np.random.default_rng(0).random(30_000)
    assert expected_best_of(values, np.array([30_000]), replacement=False)[0] == pytest.approx(values.max(), rel=1e-15)


def test_without_replacement_agrees_with_exact_integers() -> None:
    """Binomials of a hundred digits: the sum over all m of value m times C(m, n - 1) / C(R, n)."""
    from fractions import Fraction
    from math import comb

    size, draws = 1_000, 137
    exact = sum(Fraction(comb(position, draws - 1), comb(size, draws)) * position for position in range(size))
    found = expected_best_of(np.arange(float(size)), np.array([draws]), replacement=False)
    assert found[0] == pytest.approx(float(exact), rel=1e-12)


# --- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: expected_best_of(np.array([]), np.array([1])), "one number each", id="no architecture"),
        pytest.param(lambda: expected_best_of(np.array([0.5, np.nan]), np.array([1])), "missing", id="missing value"),
        pytest.param(lambda: expected_best_of(np.ones(3), np.array([0])), r"at least 1, got \[0\]", id="no draw"),
        pytest.param(
            lambda: expected_incumbent(np.ones(3), np.ones(2), np.array([1])), r"\(3,\) and \(2,\)", id="unequal"
        ),
        pytest.param(
            lambda: expected_best_of(np.ones(2), np.array([1]), np.array([0.5, 0.5]), replacement=False),
            "leave probabilities out",
            id="unequal draws without replacement",
        ),
        pytest.param(
            lambda: expected_best_of(np.ones(2), np.array([1]), np.array([1.5, -0.5])), "at least 0", id="negative"
        ),
        pytest.param(lambda: expected_best_of(np.ones(2), np.array([1]), np.zeros(2)), "not all 0", id="impossible"),
        pytest.param(lambda: expected_best_of(np.ones(2), np.array([1]), np.ones(3)), "must be 2 numbers", id="three"),
    ],
)
def test_what_has_no_expectation_is_refused(call: Callable[[], Floats], message: str) -> None:
    """The message says why."""
    with pytest.raises(InvalidArgument, match=message):
        call()


# --- simulation on packaged tables -----------------------------------------------------------------

QUERIES = np.array([1, 10, 50, 200])
RUNS = 4_000


@functools.cache
def whole_space(task: str) -> WholeSpace:
    """Return all architectures of a task."""
    found = WholeSpace.of(TASKS[task].make_envs(1))
    assert found is not None
    return found


def deviations(found: Floats, expected: Floats) -> Floats:
    """Return how many standard errors the means of runs [R, K] are from their expectation, shape [K]."""
    return np.abs(found.mean(axis=0) - expected) / (found.std(axis=0, ddof=1) / np.sqrt(len(found)))


@pytest.mark.parametrize("task", TASKS)
def test_simulated_search_finds_what_is_expected(task: str) -> None:
    """4,000 runs with replacement; where a decision has more choices than another, draws are not uniform."""
    space = whole_space(task)
    rng = np.random.default_rng(0)
    drawn = rng.choice(len(space.rewards), size=(RUNS, QUERIES[-1]), p=space.probabilities)
    best = np.maximum.accumulate(space.rewards[drawn], axis=1)[:, QUERIES - 1]
    assert deviations(best, expected_best_of(space.rewards, QUERIES, space.probabilities)).max() < 4


@pytest.mark.parametrize("task", TASKS)
def test_simulated_search_reports_what_is_expected(task: str) -> None:
    """The test accuracy of the architecture that is best by validation accuracy."""
    space = whole_space(task)
    rng = np.random.default_rng(1)
    drawn = rng.choice(len(space.rewards), size=(RUNS, QUERIES[-1]), p=space.probabilities)
    standing = incumbents(space.rewards[drawn])[:, QUERIES - 1]
    found = space.held_out[np.take_along_axis(drawn, standing, axis=1)]
    expected = expected_incumbent(space.rewards, space.held_out, QUERIES, space.probabilities)
    assert deviations(found, expected).max() < 4


def test_simulated_search_without_replacement_reports_what_is_expected() -> None:
    """1,000 runs over different encodings of the cell space."""
    space = whole_space("cell-digits")
    rng = np.random.default_rng(2)
    size = len(space.rewards)
    drawn = np.array([rng.choice(size, QUERIES[-1], replace=False) for _ in range(1_000)])
    standing = incumbents(space.rewards[drawn])[:, QUERIES - 1]
    found = space.held_out[np.take_along_axis(drawn, standing, axis=1)]
    expected = expected_incumbent(space.rewards, space.held_out, QUERIES, replacement=False)
    assert deviations(found, expected).max() < 4


def test_drawing_different_ones_only_is_better_the_more_there_are() -> None:
    """And of 15,625, 1,000 different ones are worth a little more than 1,000."""
    values = whole_space("cell-digits").rewards
    gain = expected_best_of(values, np.array([1, 10, 1_000]), replacement=False) - expected_best_of(
        values, np.array([1, 10, 1_000])
    )
    assert (abs(gain[0]) < 1e-12, 0 < gain[1] < gain[2] < 1e-3) == (True, True)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("replacement", [True, False])
def test_the_agent_finds_what_is_expected(task: str, replacement: bool) -> None:
    """Random search through environments, counter and trace: the held-out value of its incumbent over 60 seeds."""
    space, queries = whole_space(task), np.array([1, 20, 100])
    envs: Any = TASKS[task].make_envs(50)
    curves = []
    for seed in range(60):
        recorder = TraceRecorder()
        agent = nas_agents.make("random_search", envs, seed, replacement=replacement)
        nas_agents.run(agent, envs, 100, seed, [recorder])
        curves.append(recorder.trace(envs).curve(space.yardstick.worst)[queries - 1])
    chances = space.probabilities if replacement else None
    expected = expected_incumbent(space.rewards, space.held_out, queries, chances, replacement)
    assert deviations(np.array(curves), expected).max() < 4


# --- anchors on the whole of NATS-Bench ------------------------------------------------------------

ANCHORS = {
    "cifar10_test_200ep": (87.063, 93.095, 93.482, 93.687, 93.847, 93.974, 94.115, 94.207),
    "cifar100_test_200ep": (61.406, 69.823, 70.619, 71.102, 71.551, 71.988, 72.518, 72.840),
}
"""Expected best of N random architectures in percent (N of `ANCHOR_QUERIES`), by column."""

ANCHOR_QUERIES = np.array([1, 10, 25, 50, 100, 200, 500, 1_000])

REPLAYS = {
    ("cifar10", 175): (93.854, 0.262),
    ("cifar10", 185): (93.870, 0.260),
    ("cifar100", 175): (71.516, 0.921),
    ("cifar100", 185): (71.571, 0.925),
}
"""Mean and deviation of 5,000 simulated runs: best by validation after 12 epochs, test accuracy after 200."""


@pytest.fixture(scope="module")
def nats_bench() -> dict[str, Floats]:
    """Return the columns of NATS-Bench's topology table, accuracies in percent, if there is one."""
    folder = os.environ.get("NAS_GYM_TEST_DATA")
    if not folder:
        pytest.skip("NAS_GYM_TEST_DATA names no folder of data sets")
    path = Path(folder) / "nats_bench_tss.csv.gz"
    if not path.exists():
        pytest.skip(f"no nats_bench_tss.csv.gz in {folder}")
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "architecture"}


@pytest.mark.parametrize("column", ANCHORS)
def test_the_anchors_are_met_to_the_last_digit(nats_bench: dict[str, Floats], column: str) -> None:
    """Three decimals of a percentage."""
    found = expected_best_of(nats_bench[column], ANCHOR_QUERIES)
    assert tuple(found.round(3).tolist()) == ANCHORS[column]


@pytest.mark.parametrize(("column", "best"), [("cifar10_test_200ep", 94.373), ("cifar100_test_200ep", 73.513)])
def test_the_optimum_is_the_published_one(nats_bench: dict[str, Floats], column: str, best: float) -> None:
    """Of 15,625 architectures."""
    yardstick = Yardstick.of(nats_bench[column])
    assert (len(nats_bench[column]), round(yardstick.best, 3)) == (15_625, best)


@pytest.mark.parametrize(("column", "count"), [("cifar10_test_200ep", 8), ("cifar100_test_200ep", 2)])
def test_few_architectures_are_near_the_optimum(nats_bench: dict[str, Floats], column: str, count: int) -> None:
    """Within a tenth of a percent."""
    assert int((nats_bench[column] >= nats_bench[column].max() - 0.1).sum()) == count


@pytest.mark.parametrize(("data", "queries"), REPLAYS)
def test_the_published_protocol_is_met(nats_bench: dict[str, Floats], data: str, queries: int) -> None:
    """Within four standard errors of 5,000 runs, and the rounding of what was printed."""
    mean, deviation = REPLAYS[data, queries]
    signal, held_out = nats_bench[f"{data}_valid_12ep"], nats_bench[f"{data}_test_200ep"]
    found = expected_incumbent(signal, held_out, np.array([queries]))[0]
    assert found == pytest.approx(mean, abs=4 * deviation / np.sqrt(5_000) + 5e-4)
