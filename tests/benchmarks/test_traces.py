"""What a run queried, and what its agent proposes afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nas_agents
from nas_benchmarks.metrics import Trace, score
from nas_benchmarks.policy import sample_policy
from nas_benchmarks.tasks import Task, WholeSpace, named
from nas_benchmarks.traces import Returns, TraceRecorder
from nas_gym.errors import InvalidArgument

CELL = named("cell-digits")
METAQNN = named("metaqnn-digits")


def run(task: Task, agent: str, budget: int, **settings: Any) -> tuple[Any, Any, TraceRecorder, nas_agents.RunResult]:
    """Search and return environments, agent, recorder and how it ended."""
    config = nas_agents.make_config(nas_agents.AGENTS[agent], **settings)
    envs = task.make_envs(nas_agents.episodes_at_once(config))
    searcher = nas_agents.make(agent, envs, 0, **settings)
    recorder = TraceRecorder()
    result = nas_agents.run(searcher, envs, budget, 0, [recorder])
    return envs, searcher, recorder, result


class Queries(nas_agents.Sink):
    """Keeps encodings and returns by itself."""

    def __init__(self) -> None:
        self.encodings: list[tuple[int, ...]] = []
        self.returns: list[float] = []

    def on_episodes(self, evaluated: nas_agents.Evaluated) -> None:
        self.encodings += evaluated.batch.encodings
        self.returns += evaluated.batch.returns.tolist()


@pytest.mark.parametrize("budget", [1, 100, 130])
def test_every_query_is_in_the_trace(budget: int) -> None:
    """Whole batches or not."""
    envs, _, recorder, _ = run(CELL, "random_search", budget)
    assert len(recorder.trace(envs).signal) == budget


def test_the_incumbent_has_the_standing_of_the_evaluator() -> None:
    """Its simple regret, whose incumbent is the first architecture of the highest reward."""
    envs: Any = CELL.make_envs(50)
    recorder, queries = TraceRecorder(), Queries()
    nas_agents.run(nas_agents.make("random_search", envs, 3), envs, 200, 3, [recorder, queries])
    space = WholeSpace.of(envs)
    assert space is not None
    judged = score(recorder.trace(envs), space.yardstick, 200, checkpoints=(10, 50))
    best = [queries.encodings[int(np.argmax(queries.returns[:count]))] for count in (10, 50, 200)]
    expected = [envs.evaluator.standing(encoding).regret for encoding in best]
    assert list(judged.regret.values()) == pytest.approx(expected, abs=1e-15)


def test_canonical_architectures_are_counted_as_the_counter_does() -> None:
    """Isomorphic cells are one."""
    envs, _, recorder, result = run(CELL, "evolution", 300)
    assert len(np.unique(recorder.trace(envs).codes)) == result.usage.unique_architectures


def test_an_illegal_action_is_a_failure_without_an_architecture() -> None:
    """Its signal is missing, and it is no part of the variety."""
    envs: Any = CELL.make_envs(2)
    recorder = TraceRecorder()
    recorder.on_episodes(_evaluated(envs, [-1.0, 0.9, 0.8], status=("invalid_action", "ok", "ok")))
    trace = recorder.trace(envs)
    assert (np.isnan(trace.signal).tolist(), (trace.codes < 0).tolist()) == ([True, False, False],) * 2


def test_an_architecture_that_failed_is_one_nevertheless() -> None:
    """Only its signal is missing."""
    envs: Any = CELL.make_envs(2)
    recorder = TraceRecorder()
    recorder.on_episodes(_evaluated(envs, [-1.0, 0.9], status=("diverged", "ok")))
    trace = recorder.trace(envs)
    assert (np.isnan(trace.signal).tolist(), (trace.codes >= 0).tolist()) == ([True, False], [True, True])


def test_a_search_that_has_tried_everything_is_exhausted() -> None:
    """Its incumbent stands for the rest of the budget."""
    envs, _, recorder, result = run(METAQNN, "random_search", 7_000, replacement=False)
    trace = recorder.trace(envs, exhausted=result.reason == "exhausted")
    space = WholeSpace.of(envs)
    assert space is not None
    best = space.held_out[int(np.argmax(space.rewards))]
    assert (len(trace.signal), trace.curve(0.0, 7_000)[-1]) == (6_734, pytest.approx(best))


def test_without_a_query_there_is_no_trace() -> None:
    """Nothing can be judged."""
    with pytest.raises(InvalidArgument, match="a query at least"):
        TraceRecorder().trace(CELL.make_envs(1))


def test_fidelities_are_kept_where_the_agent_chose_them() -> None:
    """A sink is told of them batch by batch."""
    envs: Any = CELL.make_envs(2)
    recorder = TraceRecorder()
    for fidelity, returns in ((1, [0.9, 0.8]), (3, [0.5, 0.6])):
        recorder.on_episodes(_evaluated(envs, returns, fidelity=fidelity))
    trace: Trace = recorder.trace(envs)
    assert (trace.fidelities is not None, trace.incumbents().tolist()) == (True, [0, 0, 2, 3])


def _evaluated(
    envs: Any, returns: list[float], status: tuple[str, ...] | None = None, fidelity: int | None = None
) -> Any:
    """Return episodes of the first architectures of the space."""
    encodings = list(envs.space.enumerate())[: len(returns)]
    count, steps = len(returns), envs.space.max_length
    batch = nas_agents.EpisodeBatch(
        observations=np.zeros((count, steps, 1)),
        actions=np.zeros((count, steps), np.int64),
        masks=np.ones((count, steps, 5), np.bool_),
        rewards=np.array([[0.0] * (steps - 1) + [value] for value in returns]),
        lengths=np.full(count, steps),
        encodings=tuple(encodings),
        status=status or ("ok",) * count,
        first_seen=np.ones(count, np.bool_),
        fidelities=None if fidelity is None else np.full(count, fidelity),
    )
    return nas_agents.Evaluated(batch, {}, np.zeros(count), None)


# --- the final policy ------------------------------------------------------------------------------


def test_a_policy_that_proposes_uniformly_is_worth_uniform_decisions() -> None:
    """Random search has learnt nothing: within four standard errors of 2,000 samples."""
    envs, agent, _, _ = run(CELL, "random_search", 100)
    space = WholeSpace.of(envs)
    assert space is not None
    error = float(np.std(space.rewards)) / np.sqrt(2_000)
    assert sample_policy(agent, CELL.make_envs(50), 2_000) == pytest.approx(space.uniform_reward, abs=4 * error)


def test_sampling_teaches_a_policy_nothing() -> None:
    """What an agent has learnt is the same before and after."""
    _, agent, _, _ = run(CELL, "q_learning", 300)
    before = agent.state_dict()["values"].copy()
    sample_policy(agent, CELL.make_envs(agent.config.batch_size), 100)
    assert np.array_equal(before, agent.state_dict()["values"])


def test_returns_are_kept_in_order() -> None:
    """As the signal of a trace without failures."""
    envs: Any = CELL.make_envs(50)
    recorder, returns = TraceRecorder(), Returns()
    nas_agents.run(nas_agents.make("random_search", envs, 0), envs, 75, 0, [recorder, returns])
    assert returns.values == recorder.trace(envs).signal.tolist()
