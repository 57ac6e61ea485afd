"""From metrics to reward: published values, and failures below everything attainable."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import ToySpace

from nas_gym.errors import InvalidArgument, UnknownName
from nas_gym.evaluators import Evaluation, Evaluations, Evaluator, Metric, Queries, Status
from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.objectives import (
    MONAS,
    OBJECTIVES,
    RENA,
    Accuracy,
    AccuracyCubed,
    BlockQNN,
    MnasNet,
    Objective,
    Perplexity,
    TangentAccuracy,
)

every_objective = pytest.mark.parametrize("name", OBJECTIVES)

RANGES: dict[str, tuple[float, float]] = {
    "valid_accuracy": (0.0, 1.0),
    "valid_perplexity": (1.0, 1e6),
    "parameters": (1.0, 1e12),
    "multiply_adds": (0.0, 1e15),
    "latency_seconds": (1e-6, 1e4),
    "nodes": (1.0, 1e4),
    "edges": (1.0, 1e8),
}
"""What a metric can be, in its unit."""


def ok(**metrics: float) -> Evaluation:
    """Return a successful evaluation."""
    return Evaluation(Status.OK, metrics, 1.0)


@st.composite
def attainable(draw: st.DrawFn, objective: Objective) -> Evaluation:
    """Draw a successful evaluation with all metrics that an objective reads."""
    smallest_cost = 1.0 if isinstance(objective, MnasNet) else 0.0
    metrics = {
        name: draw(st.floats(max(RANGES[name][0], smallest_cost if name == "multiply_adds" else 0.0), RANGES[name][1]))
        for name in objective.requires
    }
    return ok(**metrics)


def failure(status: Status, objective: Objective) -> Evaluation:
    """Return a failed evaluation."""
    return Evaluation(status, dict.fromkeys(objective.requires, math.nan), 1.0, "it failed")


# --- every objective -------------------------------------------------------------------------------


@every_objective
@given(data=st.data())
def test_a_failure_is_worse_than_everything_attainable(name: str, data: st.DataObject) -> None:
    """No architecture is rewarded less than an episode that failed."""
    objective = OBJECTIVES[name]()
    reward = objective.one(data.draw(attainable(objective)))
    assert objective.failure_reward < reward < math.inf


@pytest.mark.parametrize("kind", [MONAS, RENA])
@given(data=st.data(), weight=st.floats(0, 1), target=st.floats(1e-3, 1e12))
def test_a_failure_is_worst_for_all_constants(
    kind: type[Any], data: st.DataObject, weight: float, target: float
) -> None:
    """Whatever the weights, a failure stays below."""
    objective = kind(**{"alpha" if kind is MONAS else "penalty": weight}, target=target)
    assert objective.failure_reward < objective.one(data.draw(attainable(objective)))


@every_objective
@given(data=st.data())
def test_one_evaluation_is_rewarded_like_a_batch_of_one(name: str, data: st.DataObject) -> None:
    """`one` equals the call on columns, successes and failures alike."""
    objective = OBJECTIVES[name]()
    statuses = data.draw(st.lists(st.sampled_from(Status), max_size=6))
    answers = [
        data.draw(attainable(objective)) if status is Status.OK else failure(status, objective) for status in statuses
    ]
    rewards = objective(Evaluations.of(answers, objective.requires))
    np.testing.assert_allclose(rewards, [objective.one(answer) for answer in answers], rtol=1e-15)


@every_objective
@pytest.mark.parametrize("status", [status for status in Status if status is not Status.OK], ids=lambda s: s.label)
def test_every_failure_gets_the_failure_reward(name: str, status: Status) -> None:
    """Whatever went wrong."""
    objective = OBJECTIVES[name]()
    answers = [failure(status, objective)]
    assert objective.one(answers[0]) == objective.failure_reward
    assert objective(Evaluations.of(answers, objective.requires)).tolist() == [objective.failure_reward]


@every_objective
def test_rewards_are_a_column_of_64_bit_numbers(name: str) -> None:
    """An empty batch has an empty column."""
    objective = OBJECTIVES[name]()
    rewards = objective(Evaluations.of([], objective.requires))
    assert (rewards.dtype, rewards.shape) == (np.float64, (0,))


@every_objective
def test_every_objective_runs_on_the_synthetic_evaluator_if_it_measures_enough(name: str) -> None:
    """It is accepted with finite rewards, or refused for the metric that is missing."""
    objective = OBJECTIVES[name]()
    evaluator = SyntheticEvaluator(ToySpace())
    missing = set(objective.requires) - set(evaluator.search_metrics)
    if missing:
        with pytest.raises(UnknownName, match=f"unknown metric '{missing.pop()}'"):
            objective.check(evaluator)
        return
    objective.check(evaluator)
    rewards = objective(evaluator.evaluate(Queries.of(evaluator.space, list(evaluator.space.enumerate()))))
    assert np.isfinite(rewards).all()
    assert (rewards > objective.failure_reward).all()


@every_objective
def test_objectives_are_frozen_values(name: str) -> None:
    """Equal constants make equal objectives, and nobody changes them."""
    objective = OBJECTIVES[name]()
    assert objective == OBJECTIVES[name]()
    with pytest.raises(FrozenInstanceError):
        objective.metric = "other"


def test_only_perplexity_cannot_run_on_the_synthetic_evaluator() -> None:
    """All the others can be tried without data."""
    measured = set(SyntheticEvaluator(ToySpace()).search_metrics)
    assert [name for name in OBJECTIVES if not set(OBJECTIVES[name]().requires) <= measured] == ["perplexity"]


def test_an_unknown_objective_is_answered_with_the_nearest_match() -> None:
    """A typo is recognised."""
    with pytest.raises(UnknownName, match=r"unknown objective 'acuracy'\. Did you mean 'accuracy'"):
        OBJECTIVES["acuracy"]


# --- published values ------------------------------------------------------------------------------

SOFT = {"alpha": -0.07, "beta": -0.07}
HARD = {"alpha": 0.0, "beta": -1.0}


@pytest.mark.parametrize(
    ("constants", "latency", "expected"),
    [
        pytest.param(SOFT, 0.075, 0.75, id="soft, at the target"),
        pytest.param(SOFT, 0.150, 0.7145, id="soft, twice the target"),
        pytest.param(SOFT, 0.0375, 0.7873, id="soft, half of the target"),
        pytest.param(HARD, 0.075, 0.75, id="hard, at the target"),
        pytest.param(HARD, 0.150, 0.375, id="hard, twice the target"),
        pytest.param(HARD, 0.0375, 0.75, id="hard, half of the target"),
    ],
)
def test_mnasnet_has_the_published_values(constants: dict[str, float], latency: float, expected: float) -> None:
    """Accuracy 0.75 and a target of 75 ms."""
    objective = MnasNet(cost="latency_seconds", target=0.075, **constants)
    reward = objective.one(ok(valid_accuracy=0.75, latency_seconds=latency))
    assert reward == pytest.approx(expected, abs=5e-5)


def test_mnasnet_is_soft_by_default() -> None:
    """The constraint that the paper used."""
    assert (MnasNet().alpha, MnasNet().beta) == (-0.07, -0.07)


def test_mnasnet_trades_five_percent_of_accuracy_for_twice_the_latency() -> None:
    """Where the exponent comes from: (1.05 a, 2 l) is worth (a, l)."""
    objective = MnasNet(cost="latency_seconds", target=0.075, beta=-math.log2(1.05))
    one = objective.one(ok(valid_accuracy=0.5, latency_seconds=0.08))
    other = objective.one(ok(valid_accuracy=0.525, latency_seconds=0.16))
    assert one == pytest.approx(other, rel=1e-12)


@pytest.mark.parametrize(
    ("objective", "metrics", "expected"),
    [
        pytest.param(Accuracy(), {"valid_accuracy": 0.75}, 0.75, id="accuracy"),
        pytest.param(Accuracy("parameters"), {"parameters": 3.0}, 3.0, id="another metric"),
        pytest.param(AccuracyCubed(), {"valid_accuracy": 0.5}, 0.125, id="cubed"),
        pytest.param(TangentAccuracy(), {"valid_accuracy": 0.5}, 1.0, id="tangent of a half"),
        pytest.param(TangentAccuracy(), {"valid_accuracy": 0.0}, 0.0, id="tangent of nothing"),
        pytest.param(TangentAccuracy(ceiling=0.9), {"valid_accuracy": 1.0}, 6.3138, id="tangent at its ceiling"),
        pytest.param(Perplexity(), {"valid_perplexity": 80.0}, 1 / 80, id="perplexity"),
        pytest.param(Perplexity(scale=60.0), {"valid_perplexity": 2.0}, 15.0, id="perplexity with another constant"),
        pytest.param(MONAS(target=2e6), {"valid_accuracy": 0.8, "multiply_adds": 5e5}, 0.4 - 0.125, id="mixed reward"),
        pytest.param(MONAS(alpha=1), {"valid_accuracy": 0.8, "multiply_adds": 9e9}, 0.8, id="accuracy alone"),
        pytest.param(MONAS(alpha=0), {"valid_accuracy": 0.8, "multiply_adds": 9e9}, -1.0, id="cost alone, cut"),
        pytest.param(RENA(), {"valid_accuracy": 0.8, "multiply_adds": 1e6}, 0.8, id="constraint met"),
        pytest.param(RENA(), {"valid_accuracy": 0.8, "multiply_adds": 2e6}, 0.4, id="constraint violated by its half"),
        pytest.param(RENA(penalty=0), {"valid_accuracy": 0.8, "multiply_adds": 1e6 + 1}, 0.0, id="hard constraint"),
        pytest.param(
            BlockQNN(),
            {"valid_accuracy": 0.9, "multiply_adds": math.e / 2, "nodes": 4.0, "edges": 4.0},
            90 - 1,
            id="percent minus the logarithm of the computation",
        ),
        pytest.param(
            BlockQNN(mu=0.0, rho=2.0),
            {"valid_accuracy": 0.9, "multiply_adds": 1e6, "nodes": 2.0, "edges": 2 * math.e},
            90 - 2,
            id="percent minus the logarithm of the density",
        ),
    ],
)
def test_rewards_worked_out_by_hand(objective: Objective, metrics: dict[str, float], expected: float) -> None:
    """The formula of every objective."""
    assert objective.one(ok(**metrics)) == pytest.approx(expected, abs=1e-4)


def test_a_perfect_accuracy_has_a_finite_tangent() -> None:
    """The ceiling keeps it so."""
    assert TangentAccuracy().one(ok(valid_accuracy=1.0)) == pytest.approx(math.tan((1 - 1e-4) * math.pi / 2))


def test_failed_rows_do_not_disturb_the_others() -> None:
    """NaN metrics of a failure are not computed with."""
    answers = [ok(valid_accuracy=0.5), Evaluation(Status.TIMEOUT, {"valid_accuracy": math.nan}, 9.0)]
    assert AccuracyCubed()(Evaluations.of(answers, ["valid_accuracy"])).tolist() == [0.125, -1.0]


# --- constants and metrics -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MnasNet, MONAS, RENA])
@pytest.mark.parametrize("target", [0.0, -1.0, math.nan])
def test_a_target_must_be_positive(kind: type[Any], target: float) -> None:
    """Costs are divided by it."""
    with pytest.raises(InvalidArgument, match="target must be positive, got"):
        kind(target=target)


@pytest.mark.parametrize(("kind", "constant"), [(MONAS, "alpha"), (RENA, "penalty")])
@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_weights_lie_between_0_and_1(kind: type[Any], constant: str, value: float) -> None:
    """Otherwise a failure could be worth more than a success."""
    with pytest.raises(InvalidArgument, match=f"{constant} must be between 0 and 1, got"):
        kind(**{constant: value})


class Measuring(SyntheticEvaluator):
    """A synthetic evaluator that claims to measure a percentage and a loss, too."""

    metrics: Mapping[str, Metric] = {
        **SyntheticEvaluator.metrics,
        "valid_percent": Metric("maximize", "percent"),
        "valid_error": Metric("minimize", "fraction"),
    }


@pytest.fixture
def evaluator() -> Evaluator:
    """Return an evaluator with metrics of every sort."""
    return Measuring(ToySpace())


@pytest.mark.parametrize("kind", [Accuracy, AccuracyCubed, TangentAccuracy, MnasNet, MONAS, RENA, BlockQNN])
def test_a_held_out_metric_is_refused(kind: type[Any], evaluator: Evaluator) -> None:
    """No agent is rewarded for what is for reports only."""
    with pytest.raises(InvalidArgument, match="'test_accuracy' is held out"):
        kind(metric="test_accuracy").check(evaluator)


def test_a_held_out_cost_is_refused(evaluator: Evaluator) -> None:
    """The same for the second metric."""
    with pytest.raises(InvalidArgument, match="'test_accuracy' is held out"):
        MnasNet(cost="test_accuracy").check(evaluator)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("valid_percent", "'valid_percent' is a percent to maximize"),
        ("valid_error", "'valid_error' is a fraction to minimize"),
        ("parameters", "'parameters' is a count to minimize"),
    ],
)
def test_a_metric_that_is_no_fraction_to_maximize_is_refused(evaluator: Evaluator, metric: str, message: str) -> None:
    """The message has what the metric is, and those that fit."""
    with pytest.raises(
        InvalidArgument, match=f"{message}; this objective needs a fraction to maximize: valid_accuracy"
    ):
        Accuracy(metric).check(evaluator)


def test_an_unknown_metric_is_answered_with_the_nearest_match(evaluator: Evaluator) -> None:
    """A typo is recognised."""
    with pytest.raises(UnknownName, match=r"unknown metric 'valid_acuracy'\. Did you mean 'valid_accuracy'"):
        Accuracy("valid_acuracy").check(evaluator)


def test_an_unknown_cost_is_answered_with_the_nearest_match(evaluator: Evaluator) -> None:
    """A typo is recognised there, too."""
    with pytest.raises(UnknownName, match=r"unknown metric 'latency_second'\. Did you mean 'latency_seconds'"):
        MnasNet(cost="latency_second").check(evaluator)
