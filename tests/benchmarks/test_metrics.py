"""What one search is judged by, worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_benchmarks.metrics import (
    Diversity,
    Trace,
    Yardstick,
    best_so_far,
    diversity,
    does_it_learn,
    expected_running_time,
    fraction_reached,
    incumbents,
    log_regret_area,
    normalised_score,
    queries_to,
    score,
    simple_regret,
)
from nas_gym.errors import InvalidArgument

Floats = npt.NDArray[np.float64]
NAN = math.nan

# --- the incumbent ---------------------------------------------------------------------------------


def test_best_so_far_never_falls() -> None:
    """The curve is the running maximum."""
    assert best_so_far(np.array([0.3, 0.1, 0.5, 0.4])).tolist() == [0.3, 0.3, 0.5, 0.5]


def test_a_query_without_a_value_leaves_the_best() -> None:
    """Its NaN does not spread."""
    assert best_so_far(np.array([0.3, NAN, 0.5])).tolist() == [0.3, 0.3, 0.5]


@pytest.mark.parametrize(
    ("signal", "expected"),
    [
        pytest.param([0.2, 0.1, 0.5, 0.4], [0, 0, 2, 2], id="best"),
        pytest.param([0.5, 0.5, 0.6, 0.6], [0, 0, 2, 2], id="the first of equal ones"),
        pytest.param([NAN, NAN, 0.1, NAN], [-1, -1, 2, 2], id="failures"),
        pytest.param([NAN, NAN], [-1, -1], id="nothing but failures"),
        pytest.param([-3.0, -2.0, -5.0], [0, 1, 1], id="negative"),
    ],
)
def test_the_incumbent_is_the_first_best(signal: list[float], expected: list[int]) -> None:
    """Index of the query, -1 before the first success."""
    assert incumbents(np.array(signal)).tolist() == expected


def test_a_higher_fidelity_surpasses_any_signal_at_a_lower_one() -> None:
    """Signals at different fidelities are not compared."""
    signal, fidelities = np.array([0.9, 0.2, 0.95, 0.3, NAN]), np.array([1, 10, 1, 10, 100])
    assert incumbents(signal, fidelities).tolist() == [0, 1, 1, 3, 3]


@given(st.lists(st.one_of(st.just(NAN), st.integers(0, 3).map(float)), min_size=1, max_size=12))
def test_incumbents_are_those_of_a_loop(signal: list[float]) -> None:
    """Query by query."""
    standing, expected = -1, []
    for index, value in enumerate(signal):
        if not math.isnan(value) and (standing < 0 or value > signal[standing]):
            standing = index
        expected.append(standing)
    assert incumbents(np.array(signal)).tolist() == expected


def test_runs_are_judged_at_once() -> None:
    """Each row for itself."""
    signal = np.array([[0.1, 0.2, 0.1], [0.3, NAN, 0.4], [NAN, 0.1, 0.1]])
    assert incumbents(signal).tolist() == [incumbents(row).tolist() for row in signal]


# --- traces ----------------------------------------------------------------------------------------


def trace(signal: list[float], held_out: list[float], codes: list[int] | None = None, **settings: Any) -> Trace:
    """Return a run of different architectures by default."""
    names = np.array(range(len(signal)) if codes is None else codes)
    return Trace(np.array(signal), np.array(held_out), names, **settings)


RUN = trace([NAN, 0.5, 0.4, 0.8, 0.9], [NAN, 0.6, 0.9, 0.7, 0.65])
"""The third query is never the incumbent, and the last one is worse than the fourth by its held-out value."""


def test_the_curve_is_the_held_out_value_of_the_incumbent() -> None:
    """It may fall; the worst value counts before the first success."""
    assert RUN.curve(worst=0.1).tolist() == [0.1, 0.6, 0.6, 0.7, 0.65]


def test_a_smaller_budget_cuts_the_curve() -> None:
    """Later queries are not seen."""
    assert RUN.curve(worst=0.1, budget=3).tolist() == [0.1, 0.6, 0.6]


def test_an_unfinished_run_is_not_judged_beyond_its_end() -> None:
    """It might have found better ones."""
    with pytest.raises(InvalidArgument, match="has 5 queries, so it cannot be judged after 6"):
        RUN.curve(worst=0.1, budget=6)


def test_an_exhausted_run_keeps_its_incumbent() -> None:
    """Nothing was left to try."""
    run = trace([0.5, 0.6], [0.4, 0.3], exhausted=True)
    assert run.curve(worst=0.0, budget=4).tolist() == [0.4, 0.3, 0.3, 0.3]


def test_only_incumbents_need_a_held_out_value() -> None:
    """So that only those have to be measured."""
    assert trace([0.5, 0.4, 0.6], [0.7, NAN, 0.8]).curve(worst=0.0).tolist() == [0.7, 0.7, 0.8]


@pytest.mark.parametrize(
    ("signal", "held_out", "message"),
    [
        pytest.param([], [], "a query at least", id="no query"),
        pytest.param([0.5], [0.5, 0.6], "equal length", id="unequal"),
        pytest.param([0.5, math.inf], [0.5, 0.6], "query 2 is inf; that of a failed query must be NaN", id="infinite"),
        pytest.param([0.1, 0.5, 0.2], [0.1, NAN, NAN], "query 2 was the incumbent", id="incumbent without value"),
    ],
)
def test_a_trace_is_checked(signal: list[float], held_out: list[float], message: str) -> None:
    """The message names the query."""
    with pytest.raises(InvalidArgument, match=message):
        Trace(np.array(signal), np.array(held_out), np.arange(len(signal)))


# --- yardstick -------------------------------------------------------------------------------------

SPACE = Yardstick.of(np.array([0.2, 0.5, 0.8, 1.0, 0.96, 0.995]))


@pytest.mark.parametrize(("name", "value"), [("best", 1.0), ("worst", 0.2), ("mean", 4.455 / 6), ("floor", 0.0025)])
def test_a_space_is_measured_by_hand(name: str, value: float) -> None:
    """The floor is half the gap between the two best."""
    assert getattr(SPACE, name) == pytest.approx(value)


def test_equal_best_ones_leave_no_gap_between_them() -> None:
    """The floor is half the distance to the next value that differs by more than rounding."""
    assert Yardstick.of(np.array([0.5, 0.9, 0.9, 0.9 - 1e-15])).floor == pytest.approx(0.2)


def test_the_targets_of_a_large_space() -> None:
    """Of 1 to 100: one percent below 100, the tenth best, the best."""
    targets = Yardstick.of(np.arange(1.0, 101.0)).targets
    assert targets == {"within_1_percent": 99.0, "top_10": 91.0, "optimum": 100.0}


def test_isomorphic_architectures_are_one_of_the_ten() -> None:
    """Ten times the same one is not the top ten."""
    values = np.concatenate([np.full(10, 100.0), np.arange(1.0, 51.0)])
    codes = np.concatenate([np.full(10, 999), np.arange(50)])
    assert Yardstick.of(values, codes).targets["top_10"] == 42.0


def test_one_percent_of_a_negated_metric_is_below_it() -> None:
    """Of a best perplexity of 50, 50.5 is within one percent."""
    assert Yardstick.of(-np.array([50.0, 60.0, 70.0])).targets["within_1_percent"] == -50.5


def test_a_space_without_differences_is_no_task() -> None:
    """Nothing could be found."""
    with pytest.raises(InvalidArgument, match=r"all architectures have the value 0\.5"):
        Yardstick.of(np.full(4, 0.5))


# --- along a run -----------------------------------------------------------------------------------


def test_regret_is_the_distance_to_the_best() -> None:
    """Never below 0, rounding included."""
    assert simple_regret(np.array([0.25, 1.0, 1.0 + 1e-12]), 1.0).tolist() == [0.75, 0.0, 0.0]


def test_a_run_that_beats_the_optimum_is_an_error() -> None:
    """Then the optimum is another metric's."""
    with pytest.raises(InvalidArgument, match=r"reports 0\.95, but the best of the space is 0\.9"):
        simple_regret(np.array([0.5, 0.95]), 0.9)


def test_the_normalised_score_is_0_for_the_mean_and_1_for_the_best() -> None:
    """And negative below the mean."""
    space = Yardstick(best=0.9, mean=0.5, worst=0.1, floor=0.1, targets={})
    assert normalised_score(np.array([0.5, 0.9, 0.7, 0.1]), space).tolist() == pytest.approx([0.0, 1.0, 0.5, -1.0])


def test_the_area_under_the_log_regret_by_hand() -> None:
    """Logarithms -1, -2 and, of 0, that of the floor, -4."""
    assert log_regret_area(np.array([0.1, 0.01, 0.0]), 1e-4) == pytest.approx(-7 / 3)


def test_a_floor_of_zero_is_refused() -> None:
    """Its logarithm is infinite."""
    with pytest.raises(InvalidArgument, match="floor"):
        log_regret_area(np.array([0.1]), 0.0)


# --- targets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "expected"), [(0.1, 1), (0.6, 2), (0.65, 4), (0.7, 4), (0.75, math.inf)])
def test_queries_to_a_target_are_counted_from_one(target: float, expected: float) -> None:
    """Infinity where it was not reached."""
    assert queries_to(RUN.curve(worst=0.1), target) == expected


def test_the_share_of_runs_that_reached_a_target() -> None:
    """A run counts from the query at which it did."""
    assert fraction_reached(np.array([3.0, 10.0, math.inf, 10.0]), np.array([1, 3, 9, 10, 99])).tolist() == [
        0.0,
        0.25,
        0.25,
        0.75,
        0.75,
    ]


def test_the_expected_running_time_by_hand() -> None:
    """3 + 10 + 50 + 50 queries for two successes; a success after the budget is none."""
    assert expected_running_time(np.array([3.0, 10.0, math.inf, 70.0]), 50) == 113 / 2


def test_a_target_that_nobody_reached_takes_for_ever() -> None:
    """Rather than a division by zero."""
    assert expected_running_time(np.array([math.inf, math.inf]), 50) == math.inf


def test_the_expected_running_time_of_restarts_is_that_of_a_coin() -> None:
    """Draws that succeed with probability p take 1 / p on average, wherever the restarts are."""
    rng = np.random.default_rng(0)
    hits = rng.geometric(0.05, 20_000).astype(float)
    assert expected_running_time(hits, 10) == pytest.approx(20.0, rel=0.05)


# --- variety ---------------------------------------------------------------------------------------


def test_diversity_by_hand() -> None:
    """Frequencies 1/2, 1/4, 1/4; an illegal action built nothing."""
    found = diversity(np.array([7, 7, 3, 4, -1]))
    assert (found.queries, found.unique, found.entropy) == (4, 3, pytest.approx(1.5 * math.log(2)))


@given(st.lists(st.integers(0, 5), min_size=1))
def test_entropy_is_that_of_scipy(codes: list[int]) -> None:
    """Of the observed frequencies."""
    stats = pytest.importorskip("scipy.stats")
    expected = stats.entropy(np.unique(codes, return_counts=True)[1])
    assert diversity(np.array(codes)).entropy == pytest.approx(expected, abs=1e-12)


def test_codes_of_any_size_are_told_apart() -> None:
    """Those of large spaces have 128 bits."""
    codes = np.array([2**100, 2**100 + 1, 2**100, -1], object)
    assert (diversity(codes).queries, diversity(codes).unique) == (3, 2)


def test_a_run_of_illegal_actions_has_no_variety() -> None:
    """Nor does it fail."""
    assert diversity(np.array([-1, -1])) == Diversity(0, 0, 0.0)


# --- does it learn ---------------------------------------------------------------------------------


def learn(final: Floats, uniform: Floats | float) -> Any:
    """Judge with a fixed seed."""
    return does_it_learn(final, uniform, np.random.default_rng(0))


def test_a_policy_above_uniform_learns() -> None:
    """Its interval is above 0."""
    found = learn(np.random.default_rng(1).normal(0.8, 0.02, 20), 0.7)
    assert (found.learns, found.gain.value) == (True, pytest.approx(0.1, abs=0.02))


def test_a_uniform_policy_does_not_learn() -> None:
    """In 200 experiments, about one in forty passes by chance."""
    rng = np.random.default_rng(0)
    passed = sum(does_it_learn(rng.normal(0.7, 0.05, 20), 0.7, rng, repetitions=500).learns for _ in range(200))
    assert passed / 200 <= 0.07


def test_a_worse_policy_does_not_learn() -> None:
    """However clear the difference is."""
    assert not learn(np.random.default_rng(1).normal(0.5, 0.01, 20), 0.7).learns


def test_a_single_run_shows_no_learning() -> None:
    """Nothing is known of its spread."""
    assert not learn(np.array([0.9]), 0.1).learns


def test_uniform_samples_beside_each_run_are_paired() -> None:
    """What the seeds have in common cancels."""
    uniform = np.random.default_rng(1).normal(0.5, 0.2, 20)
    found = learn(uniform + 0.01, uniform)
    assert (found.learns, found.gain.low, found.gain.high) == (True, pytest.approx(0.01), pytest.approx(0.01))


def test_other_numbers_of_uniform_runs_are_refused() -> None:
    """They could not be paired."""
    with pytest.raises(InvalidArgument, match="one uniform mean a run"):
        learn(np.ones(3), np.ones(2))


# --- scores ----------------------------------------------------------------------------------------

JUDGED = score(RUN, Yardstick(0.9, 0.5, 0.1, 0.01, {"good": 0.65, "optimum": 0.9}), budget=4, checkpoints=(2, 3, 100))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("regret", {2: 0.3, 3: 0.3, 4: 0.2}),
        ("normalised", {2: 0.25, 3: 0.25, 4: 0.5}),
        ("queries_to", {"good": 4.0, "optimum": math.inf}),
        ("log_regret_area", math.log10(0.8 * 0.3 * 0.3 * 0.2) / 4),
    ],
)
def test_a_run_is_scored_by_hand(name: str, expected: Any) -> None:
    """By its first four queries; the budget is the last checkpoint."""
    assert getattr(JUDGED, name) == pytest.approx(expected)


def test_the_variety_is_that_of_the_queries_that_are_judged() -> None:
    """Later ones do not count."""
    assert JUDGED.diversity.queries == 4


@pytest.mark.parametrize(("budget", "checkpoints"), [(0, (25,)), (4, (0, 2))])
def test_queries_are_counted_from_one(budget: int, checkpoints: tuple[int, ...]) -> None:
    """There is nothing before the first."""
    with pytest.raises(InvalidArgument, match="at least 1"):
        score(RUN, SPACE, budget, checkpoints)
