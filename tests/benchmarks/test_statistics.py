"""Statistics of runs against scipy, enumeration and values worked out by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_benchmarks import statistics
from nas_benchmarks.statistics import (
    compare,
    difference_interval,
    holm,
    iqm,
    mean,
    mean_interval,
    optimality_gap,
    paired_test,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap,
)
from nas_gym.errors import InvalidArgument, UnknownName

Floats = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def scipy_stats() -> Any:
    """Return scipy's statistics, the reference of these tests."""
    pytest.importorskip("scipy", minversion="1.15")
    import scipy.stats

    return scipy.stats


def generator() -> np.random.Generator:
    """Return a generator of a fixed seed."""
    return np.random.default_rng(0)


def scores(runs: int, tasks: int, seed: int = 0) -> Floats:
    """Return normal scores of runs on tasks of different difficulty, shape [runs, tasks]."""
    rng = np.random.default_rng(seed)
    return rng.normal(rng.random(tasks), 0.1, (runs, tasks))


few = st.integers(1, 6).flatmap(
    lambda tasks: st.lists(st.lists(st.integers(0, 4), min_size=tasks, max_size=tasks), min_size=1, max_size=9)
)
"""Scores with many ties, [runs][tasks]."""


# --- aggregates ------------------------------------------------------------------------------------


@given(few)
def test_iqm_is_the_trimmed_mean_of_scipy(scipy_stats: Any, rows: list[list[int]]) -> None:
    """A quarter, rounded down, is cut at either end of all scores together."""
    values = np.array(rows, float)
    assert float(iqm(values)) == pytest.approx(scipy_stats.trim_mean(values, 0.25, axis=None))


def test_iqm_of_a_stack_is_that_of_each() -> None:
    """As the bootstrap needs it."""
    stack = np.random.default_rng(1).random((3, 5, 4))
    assert iqm(stack).tolist() == pytest.approx([float(iqm(layer)) for layer in stack])


def test_iqm_ignores_a_quarter_of_outliers() -> None:
    """However far they are."""
    assert float(iqm(np.array([[0.5, 0.5, 0.5, 1e9]]))) == 0.5


def test_optimality_gap_by_hand() -> None:
    """Of 0.2, 0.6 and 1.4, which counts as 1: 1 - 1.8 / 3."""
    assert float(optimality_gap(np.array([[0.2, 0.6, 1.4]]))) == pytest.approx(0.4)


def test_optimality_gap_of_another_target() -> None:
    """Everything above it is cut."""
    assert float(optimality_gap(np.array([[0.2, 0.6, 1.4]]), target=0.5)) == pytest.approx(0.1)


# --- stratified bootstrap --------------------------------------------------------------------------


def test_the_bootstrap_of_two_runs_is_binomial() -> None:
    """Of the runs 0 and 1 the mean is 0, 1/2 or 1 with probabilities 1/4, 1/2 and 1/4."""
    seen: list[float] = []

    def watched(drawn: Floats) -> Floats:
        found = mean(drawn)
        seen.extend(np.atleast_1d(found).tolist())
        return found

    stratified_bootstrap(watched, np.array([[0.0], [1.0]]), generator(), repetitions=10_000)
    shares = [seen[1:].count(value) / 10_000 for value in (0.0, 0.5, 1.0)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=5 * 0.5 / 100)


def test_the_interval_is_that_of_scipy(scipy_stats: Any) -> None:
    """The percentile bootstrap of one task, as far as 20,000 repetitions of either can tell."""
    values = scores(30, 1)
    found = stratified_bootstrap(mean, values, generator(), repetitions=20_000)
    theirs = scipy_stats.bootstrap(
        (values[:, 0],), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.03 * (theirs.high - theirs.low))


def test_the_level_is_what_is_asked_for(scipy_stats: Any) -> None:
    """At 80 % scipy agrees, too."""
    values = scores(30, 1)
    found = stratified_bootstrap(mean, values, generator(), repetitions=20_000, level=0.8)
    theirs = scipy_stats.bootstrap(
        (values[:, 0],),
        np.mean,
        n_resamples=20_000,
        confidence_level=0.8,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.03 * (theirs.high - theirs.low))


def test_runs_are_drawn_within_their_task() -> None:
    """Tasks that differ, but whose runs do not, leave no uncertainty."""
    found = stratified_bootstrap(iqm, np.tile([0.0, 0.2, 0.9], (8, 1)), generator())
    assert found.low == found.value == found.high


def test_tasks_are_drawn_independently() -> None:
    """Runs of opposite sign on two tasks would cancel if a run were drawn on both at once."""
    values = np.stack([np.arange(10.0), -np.arange(10.0)], axis=1)
    found = stratified_bootstrap(mean, values, generator())
    assert found.low < -0.5 < 0.5 < found.high


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """In 300 experiments of 40 normal runs on three tasks, near 95 %."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        values = rng.normal([0.0, 1.0, 5.0], [0.1, 1.0, 0.5], (40, 3))
        found = stratified_bootstrap(mean, values, rng, repetitions=500)
        covered += found.low <= 2.0 <= found.high
    assert 0.90 <= covered / 300 <= 0.98


def test_an_interval_is_reproduced_from_the_seed() -> None:
    """Nothing else is random."""
    values = scores(20, 3)
    assert stratified_bootstrap(iqm, values, generator()) == stratified_bootstrap(iqm, values, generator())


def test_an_interval_does_not_depend_on_how_the_work_is_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of three repetitions draw what one part draws."""
    values = scores(7, 2)
    whole = stratified_bootstrap(iqm, values, generator(), repetitions=100)
    monkeypatch.setattr(statistics, "_CHUNK", 3 * values.size)
    assert stratified_bootstrap(iqm, values, generator(), repetitions=100) == whole


def test_a_single_run_has_no_interval() -> None:
    """Nothing is known of its spread."""
    found = stratified_bootstrap(mean, np.array([[0.25, 0.75]]), generator())
    assert (found.value, math.isnan(found.low), math.isnan(found.high)) == (0.5, True, True)


def test_the_mean_of_one_task_has_the_interval_of_the_recorded_tables() -> None:
    """Drawn as the committed tables were: 20,000 means of runs drawn by one call."""
    values = np.random.default_rng(3).random(10)
    rng = generator()
    means = values[rng.integers(10, size=(20_000, 10))].mean(axis=1)
    found = mean_interval(values, generator())
    expected = (values.mean(), *np.quantile(means, (0.025, 0.975)))
    assert (found.value, found.low, found.high) == pytest.approx(expected, rel=1e-12)


# --- probability of improvement --------------------------------------------------------------------


@given(few, st.integers(0, 100))
def test_improvement_is_the_mann_whitney_statistic_of_scipy(scipy_stats: Any, rows: list[list[int]], seed: int) -> None:
    """U / (R R'), ties counting one half, averaged over tasks."""
    first = np.array(rows, float)
    second = np.random.default_rng(seed).integers(0, 5, (4, first.shape[1])).astype(float)
    shares = [
        scipy_stats.mannwhitneyu(one, other, method="asymptotic").statistic / (len(one) * len(other))
        for one, other in zip(first.T, second.T, strict=True)
        if len(set(one) | set(other)) > 1
    ]
    same = first.shape[1] - len(shares)
    found = probability_of_improvement(first, second, generator(), repetitions=2)
    assert found.value == pytest.approx((sum(shares) + 0.5 * same) / first.shape[1])


def test_improvement_of_one_over_the_other_is_the_rest_to_one() -> None:
    """Whatever ties there are."""
    first, second = scores(20, 3).round(1), scores(15, 3, seed=1).round(1)
    forth = probability_of_improvement(first, second, generator()).value
    back = probability_of_improvement(second, first, generator()).value
    assert forth + back == pytest.approx(1.0)


def test_the_interval_of_improvement_is_that_of_drawing_runs() -> None:
    """Against a plain bootstrap that draws the runs of both methods and compares them all."""
    first, second = scores(12, 2), scores(9, 2, seed=1)
    rng, drawn = np.random.default_rng(1), []
    for _ in range(4_000):
        tasks = []
        for task in range(2):
            one = first[rng.integers(12, size=12), task]
            other = second[rng.integers(9, size=9), task]
            tasks.append(np.mean((one[:, None] > other) + 0.5 * (one[:, None] == other)))
        drawn.append(np.mean(tasks))
    low, high = np.quantile(drawn, (0.025, 0.975))
    found = probability_of_improvement(first, second, generator(), repetitions=20_000)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05 * (high - low))


def test_a_method_that_always_wins_leaves_no_doubt() -> None:
    """Its interval is a point."""
    found = probability_of_improvement(scores(9, 2) + 10, scores(9, 2), generator())
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_improvement_over_a_single_run_has_no_interval() -> None:
    """Of either method: nothing is known of its spread."""
    several, single = scores(9, 2), scores(1, 2)
    found = [probability_of_improvement(*pair, generator()) for pair in ((several, single), (single, several))]
    assert np.isnan([[interval.low, interval.high] for interval in found]).all()


def test_methods_on_other_tasks_are_not_compared() -> None:
    """Their numbers must agree."""
    with pytest.raises(InvalidArgument, match="same tasks, got 2 and 3"):
        probability_of_improvement(scores(4, 2), scores(4, 3), generator())


# --- performance profile ---------------------------------------------------------------------------


def test_a_profile_is_worked_out_by_hand() -> None:
    """A score at the threshold is not above it."""
    profile = performance_profile(np.array([[0.0, 0.5], [1.0, 0.5]]), np.array([-1.0, 0.0, 0.5, 1.0]), generator())
    assert profile.fraction.tolist() == [1.0, 0.75, 0.25, 0.0]


def test_a_profile_is_the_survival_function_of_scipy(scipy_stats: Any) -> None:
    """Of a single task."""
    values, thresholds = scores(50, 1), np.linspace(-0.5, 1.5, 41)
    survival = scipy_stats.ecdf(values[:, 0]).sf.evaluate(thresholds)
    assert performance_profile(values, thresholds, generator()).fraction == pytest.approx(survival)


def test_the_band_of_a_profile_is_that_of_its_fractions() -> None:
    """A fraction is a mean, so the general bootstrap must give the same interval."""
    values = scores(40, 3)
    profile = performance_profile(values, np.array([0.5]), generator(), repetitions=20_000)
    found = stratified_bootstrap(mean, (values > 0.5).astype(float), np.random.default_rng(1), repetitions=20_000)
    assert (profile.low[0], profile.high[0]) == pytest.approx((found.low, found.high), abs=1 / 120)


def test_a_profile_of_one_run_has_no_band() -> None:
    """Nothing is known of its spread."""
    profile = performance_profile(np.array([[0.5]]), np.array([0.0, 1.0]), generator())
    assert (profile.fraction.tolist(), np.isnan([profile.low, profile.high]).all()) == ([1.0, 0.0], True)


# --- paired test -----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=9))
def test_the_paired_test_is_the_permutation_test_of_scipy(scipy_stats: Any, pairs: list[tuple[int, int]]) -> None:
    """Of few seeds all assignments of signs are tried, ties and equal scores included."""
    first, second = np.array(pairs, float).T
    theirs = scipy_stats.permutation_test(
        (first, second),
        lambda one, other, axis: (one - other).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    ).pvalue
    found = paired_test(first[:, None], second[:, None], generator())
    assert (found.exact, found.p_value) == (True, pytest.approx(theirs))


def test_drawn_signs_agree_with_all_of_them() -> None:
    """Within five standard errors of 20,000 draws."""
    first, second = scores(16, 2), scores(16, 2, seed=1) - 0.1
    exact = paired_test(first, second, generator())
    drawn = paired_test(first, second, generator(), permutations=20_000)
    error = math.sqrt(exact.p_value * (1 - exact.p_value) / 20_000)
    assert (exact.exact, drawn.exact, drawn.p_value) == (True, False, pytest.approx(exact.p_value, abs=5 * error))


def test_a_seed_counts_once_however_many_tasks_repeat_it() -> None:
    """The same five differences on ten tasks are no more evidence than on one."""
    first, second = np.arange(1.0, 6.0)[:, None], np.zeros((5, 1))
    assert paired_test(np.tile(first, 10), np.tile(second, 10), generator()).p_value == 1 / 16


def test_pairing_sees_what_seeds_have_in_common() -> None:
    """A small gain on every seed is clear, though seeds differ far more; of drawn signs, p is never 0."""
    second = np.random.default_rng(0).normal(0, 10, (30, 1))
    assert paired_test(second + 0.01, second, generator(), permutations=999).p_value == 1 / 1_000


def test_equal_methods_are_not_told_apart() -> None:
    """No difference at all is as probable as can be."""
    assert paired_test(scores(30, 2), scores(30, 2), generator()).p_value == 1.0


def test_false_alarms_are_as_rare_as_the_p_value_says() -> None:
    """In 400 experiments without a difference, at most about 5 % come out below 0.05."""
    rng = np.random.default_rng(0)
    alarms = sum(
        paired_test(rng.normal(size=(12, 2)), rng.normal(size=(12, 2)), rng).p_value <= 0.05 for _ in range(400)
    )
    assert 0.02 <= alarms / 400 <= 0.08


def test_a_difference_of_independent_runs_has_welch_s_interval(scipy_stats: Any) -> None:
    """With many runs of either the bootstrap and the t distribution agree; their numbers differ."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(1.0, 1.0, 400), rng.normal(0.5, 2.0, 300)
    found = difference_interval(first, second, np.random.default_rng(1))
    welch = scipy_stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert found.value == pytest.approx(first.mean() - second.mean())
    assert (found.low, found.high) == pytest.approx((welch.low, welch.high), abs=0.02)


def test_a_difference_from_a_single_run_has_no_interval() -> None:
    """One run says nothing of how runs vary."""
    found = difference_interval(np.array([1.0]), np.array([0.5, 0.7]), np.random.default_rng(0))
    assert found.value == pytest.approx(0.4)
    assert np.isnan([found.low, found.high]).all()


def test_the_difference_is_that_of_the_means() -> None:
    """First minus second."""
    found = paired_test(scores(10, 2) + 0.3, scores(10, 2), generator())
    assert found.difference == pytest.approx(0.3)


def test_unpaired_scores_are_refused() -> None:
    """The message tells what to do."""
    with pytest.raises(InvalidArgument, match=r"\(4, 2\) and \(5, 2\); cut both to the seeds they share"):
        paired_test(scores(4, 2), scores(5, 2), generator())


# --- Holm ------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    """The smallest of four is multiplied by 4, the next by 3; none may be below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closure_of_bonferroni(p_values: list[float]) -> None:
    """A hypothesis is rejected iff Bonferroni rejects every set of hypotheses that contains it (Marcus et al. 1976)."""
    indices = range(len(p_values))
    sets = [chosen for size in indices for chosen in itertools.combinations(indices, size + 1)]
    expected = [
        max(min(1.0, len(chosen) * min(p_values[other] for other in chosen)) for chosen in sets if index in chosen)
        for index in indices
    ]
    assert holm(p_values).tolist() == pytest.approx(expected)


def test_holm_of_nothing_is_nothing() -> None:
    """A single method is compared with none."""
    assert holm([]).tolist() == []


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_what_is_no_probability_is_refused(value: float) -> None:
    """Rather than corrected."""
    with pytest.raises(InvalidArgument, match="from 0 to 1"):
        holm([0.5, value])


# --- comparisons -----------------------------------------------------------------------------------


def three_methods() -> dict[str, Floats]:
    """Return the scores of two alike methods and a better one."""
    return {"random": scores(12, 2), "alike": scores(12, 2, seed=1), "better": scores(12, 2) + 0.2}


def test_every_method_is_compared_with_the_others() -> None:
    """A pair once."""
    found = compare(three_methods(), ["random", "better"], generator())
    expected = [("alike", "random"), ("better", "random"), ("alike", "better")]
    assert [(row.method, row.against) for row in found] == expected


def test_comparisons_are_corrected_together() -> None:
    """By Holm's procedure over all of them."""
    found = compare(three_methods(), ["random", "better"], generator())
    assert [row.adjusted for row in found] == holm([row.test.p_value for row in found]).tolist()


def test_a_better_method_is_recognised() -> None:
    """Probably better, and not by chance."""
    better = compare(three_methods(), ["random"], generator())[1]
    assert (better.method, better.improvement.low > 0.5, better.adjusted < 0.01) == ("better", True, True)


def test_an_unknown_method_is_named() -> None:
    """With what is known."""
    with pytest.raises(UnknownName, match=r"unknown method 'randm'\. Did you mean 'random'"):
        compare(three_methods(), ["randm"], generator())


# --- what is refused -------------------------------------------------------------------------------

CALLS: dict[str, Callable[[Floats], Any]] = {
    "stratified_bootstrap": lambda bad: stratified_bootstrap(iqm, bad, generator()),
    "probability_of_improvement": lambda bad: probability_of_improvement(bad, scores(2, 2), generator()),
    "performance_profile": lambda bad: performance_profile(bad, np.array([0.5]), generator()),
    "paired_test": lambda bad: paired_test(scores(2, 2), bad, generator()),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        pytest.param(np.array([[0.5, math.nan], [0.1, 0.2]]), "run 0 on task 1 is nan", id="missing"),
        pytest.param(np.array([[0.5, 0.1], [math.inf, 0.2]]), "run 1 on task 0 is inf", id="infinite"),
        pytest.param(np.array([0.5, 0.1]), r"\[runs, tasks\].*got \(2,\)", id="one task without its axis"),
        pytest.param(np.empty((0, 2)), r"got \(0, 2\)", id="no run"),
    ],
)
def test_bad_scores_are_refused(call: Callable[[Floats], Any], bad: Floats, message: str) -> None:
    """Nothing is computed of what is missing."""
    with pytest.raises(InvalidArgument, match=message):
        call(bad)


@pytest.mark.parametrize(("name", "value"), [("repetitions", 0), ("level", 1.0), ("level", 95)])
def test_bad_settings_of_an_interval_are_refused(name: str, value: Any) -> None:
    """By name."""
    with pytest.raises(InvalidArgument, match=name):
        stratified_bootstrap(mean, scores(3, 1), generator(), **{name: value})
