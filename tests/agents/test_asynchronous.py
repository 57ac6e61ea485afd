"""The loop without a barrier: budgets, the order of results, batches to learn from, stops, resumption."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from curves import Curves
from toys import CONV, POOL, STOP, ToySpace

import nas_agents
from nas_agents import Agent, EpisodeBatch, Evaluated, Proposer, Sink
from nas_agents.random_search import RandomSearch, RandomSearchConfig
from nas_gym.envs.cell import CellVectorEnv
from nas_gym.envs.core.construction import ConstructionVectorEnv
from nas_gym.envs.core.counter import REPEAT_QUERIES
from nas_gym.errors import InvalidArgument
from nas_gym.evaluators.core import Evaluation, Evaluations, Evaluator, Queries, Status
from nas_gym.evaluators.decorators import Recorded, Replayed, SimulatedWorkers
from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.objectives import Accuracy
from nas_gym.search_spaces import Encoding, SearchSpace
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

SPACE = ToySpace()
SPACES = [pytest.param(NASBench201Space(), id="nas_bench_201"), pytest.param(SPACE, id="toy")]
AGENTS = [
    name
    for name, entry in nas_agents.AGENTS.entries.items()
    if (entry.extra is None or importlib.util.find_spec("torch") is not None)
    and not nas_agents.AGENTS[name].drives_itself
]
A, B, C, D = (POOL, STOP), (CONV, 0, STOP), (CONV, 1, STOP), (CONV, 2, STOP)

run = nas_agents.run_without_barrier


class Log(Sink):
    """Keeps everything that a run publishes."""

    def __init__(self, wanted: int | None = None) -> None:
        self.episodes: list[tuple[Encoding, str, float, bool, str]] = []
        self.evaluated: list[Evaluated] = []
        self.learned = 0
        self.wanted = wanted

    @property
    def encodings(self) -> list[Encoding]:
        return [episode[0] for episode in self.episodes]

    @property
    def wants_stop(self) -> bool:
        return self.wanted is not None and len(self.episodes) >= self.wanted

    def on_episodes(self, evaluated: Evaluated) -> None:
        batch = evaluated.batch
        columns = (batch.encodings, batch.status, batch.returns.tolist(), batch.first_seen.tolist(), evaluated.messages)
        self.episodes += zip(*columns, strict=True)
        self.evaluated.append(evaluated)

    def on_learned(self, diagnostics: Mapping[str, float]) -> None:
        self.learned += 1


class Costed(SyntheticEvaluator):
    """Costs what it is told, fails where it is told and writes down what it is asked."""

    def __init__(
        self, costs: Mapping[Encoding, float], failing: Sequence[Encoding] = (), raising: int | None = None
    ) -> None:
        super().__init__(SPACE)
        self.costs = costs
        self.failing = failing
        self.raising = raising
        self.asked: list[Encoding] = []

    def evaluate(self, queries: Queries) -> Evaluations:
        return Evaluations.of([self.evaluate_one(row) for row in queries.rows], self.search_metrics)

    def evaluate_one(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> Evaluation:
        self.asked.append(encoding)
        if len(self.asked) == self.raising:
            raise OSError("the disk is full")
        if encoding in self.failing:
            return Evaluation(Status.DIVERGED, {}, self.costs.get(encoding, 1.0), f"{encoding} diverged")
        return super().evaluate_one(encoding)._replace(cost_seconds=self.costs.get(encoding, 1.0))


class Scripted(Proposer):
    """Builds given architectures and writes down what it begins and learns."""

    Config = RandomSearchConfig

    def __init__(self, envs: Any, encodings: Sequence[Encoding], batch_size: int = 1) -> None:
        super().__init__(envs, 0, RandomSearchConfig(batch_size=batch_size))
        self.left = list(encodings)
        self.events: list[Any] = []

    def propose(self, count: int) -> list[Encoding]:
        taken, self.left = self.left[:count], self.left[count:]
        self.events += ["begin"] * len(taken)
        return taken

    def tell(self, encodings: Sequence[Encoding], returns: npt.NDArray[np.float64]) -> dict[str, float]:
        self.events.append(tuple(encodings))
        return {}

    @property
    def learned(self) -> list[tuple[Encoding, ...]]:
        return [event for event in self.events if event != "begin"]


def make_envs(
    num_envs: int = 4, space: SearchSpace = SPACE, evaluator: Evaluator | None = None, **kwargs: Any
) -> ConstructionVectorEnv:
    """Return environments, by default on a synthetic landscape with fidelities."""
    evaluator = Curves(space) if evaluator is None else evaluator
    mode = kwargs.pop("autoreset_mode", "Disabled")
    return ConstructionVectorEnv(space, evaluator, Accuracy(), num_envs=num_envs, autoreset_mode=mode, **kwargs)


def with_workers(count: int, evaluator: Evaluator, **kwargs: Any) -> ConstructionVectorEnv:
    """Return as many environments as simulated workers."""
    envs = make_envs(count, evaluator=evaluator, **kwargs)
    envs.wrap_evaluator(partial(SimulatedWorkers, workers=count))
    return envs


class TestBudget:
    """How much is asked."""

    @pytest.mark.parametrize("space", SPACES)
    @pytest.mark.parametrize("name", AGENTS)
    def test_is_used_exactly_by_every_agent(self, name: str, space: SearchSpace) -> None:
        """Every agent spends its budget to the last query on legal architectures."""
        envs, log = make_envs(5, space), Log()
        envs.wrap_evaluator(partial(SimulatedWorkers, workers=5))
        result = run(nas_agents.make(name, envs, 0), envs, 61, 0, [log])
        assert (result.reason, result.usage.queries, [episode[1] for episode in log.episodes]) == (
            "budget",
            61,
            ["ok"] * 61,
        )

    @pytest.mark.parametrize("repeat_query", REPEAT_QUERIES)
    def test_is_exact_however_repeats_count(self, repeat_query: str) -> None:
        """With repeats charged or free the charged queries are exactly the budget."""
        envs = with_workers(7, Costed({A: 3.0, B: 2.0}), repeat_query=repeat_query)
        assert run(nas_agents.make("random_search", envs, 0), envs, 20, 0).usage.queries == 20

    def test_is_not_asked_beyond(self) -> None:
        """No architecture is evaluated beyond the budget, also with more sub-environments than queries."""
        evaluator = Costed({})
        run(Scripted(envs := with_workers(8, evaluator), [A] * 20), envs, 3, 0)
        assert len(evaluator.asked) == 3

    def test_tables_need_no_waiting(self, small_table: Path) -> None:
        """An evaluator that answers at once is searched like any other."""
        envs = CellVectorEnv(3, table=str(small_table), autoreset_mode="Disabled")
        assert run(nas_agents.make("evolution", envs, 0), envs, 50, 0).usage.queries == 50

    def test_must_be_positive(self) -> None:
        """A budget of zero is refused."""
        with pytest.raises(InvalidArgument, match="budget"):
            run(nas_agents.make("random_search", envs := make_envs(), 0), envs, 0, 0)


class TestOrder:
    """When results arrive and what is learnt from them."""

    def test_results_arrive_as_they_complete(self) -> None:
        """With three workers, a fourth query starts when the first worker is free and overtakes the longest."""
        envs, log = with_workers(3, Costed({A: 3.0, B: 1.0, C: 1.5, D: 1.0})), Log()
        run(Scripted(envs, [A, B, C, D]), envs, 4, 0, [log])
        assert log.encodings == [B, C, D, A]

    def test_no_worker_waits_for_a_batch(self) -> None:
        """The agent decides again before the longest evaluation is complete."""
        envs = with_workers(2, Costed({A: 9.0}))
        agent = Scripted(envs, [A, B, C, D])
        run(agent, envs, 4, 0)
        assert agent.events == ["begin", "begin", (B,), "begin", (C,), "begin", (D,), (A,)]

    def test_learns_in_batches_of_its_size(self) -> None:
        """Results are gathered into batches as large as the agent likes; the last one may be smaller."""
        envs, log = make_envs(5), Log()
        agent = Scripted(envs, [A, B, C, D] * 5, batch_size=3)
        run(agent, envs, 11, 0, [log])
        assert ([len(batch) for batch in agent.learned], log.learned) == ([3, 3, 3, 2], 4)

    def test_learns_every_result_once_in_order(self) -> None:
        """What is learnt is what the sinks received."""
        envs, log = with_workers(3, Costed({A: 3.0, B: 1.0, C: 2.0})), Log()
        agent = Scripted(envs, [A, B, C, D] * 5, batch_size=4)
        run(agent, envs, 18, 0, [log])
        assert [encoding for batch in agent.learned for encoding in batch] == log.encodings

    @pytest.mark.parametrize("space", SPACES)
    @pytest.mark.parametrize(
        ("name", "config"),
        [("random_search", {}), ("random_search", {"replacement": False}), ("evolution", {"population_size": 20})],
        ids=["random", "random without replacement", "evolution"],
    )
    def test_one_slot_is_the_loop_with_a_barrier(self, name: str, config: dict[str, Any], space: SearchSpace) -> None:
        """With one sub-environment both loops publish the same episodes."""
        logs = []
        for loop in (run, nas_agents.run):
            envs, log = make_envs(1, space), Log()
            loop(nas_agents.make(name, envs, 3, **config), envs, 80, 3, [log])
            logs.append(log.episodes)
        assert logs[0] == logs[1]

    def test_batches_are_those_of_the_loop_with_a_barrier(self) -> None:
        """Steps, masks, rewards and metrics of an episode are the same in both loops."""
        logs = []
        for loop in (run, nas_agents.run):
            envs, log = make_envs(1, evaluator=Costed({}, failing=[B])), Log()
            loop(Scripted(envs, [A, B, C, D]), envs, 4, 0, [log])
            logs.append([flat(evaluated) for evaluated in log.evaluated])
        np.testing.assert_equal(logs[0], logs[1])

    @pytest.mark.skipif("reinforce" not in AGENTS, reason="needs torch")
    def test_reinforce_learns_from_what_others_played(self) -> None:
        """A batch teaches a controller that did not play it the same as the one that did."""
        envs, log = make_envs(8), Log()
        player, other = (nas_agents.make("reinforce", envs, 0) for _ in range(2))
        nas_agents.run(player, envs, 8, 0, [log])
        other.learn(log.evaluated[0].batch)
        weights = [agent.state_dict()["controller"] for agent in (player, other)]
        assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])


def flat(evaluated: Evaluated) -> list[Any]:
    """Return everything about a batch of episodes but when it was."""
    usage = replace(evaluated.usage, real_seconds=0.0)
    return [vars(evaluated.batch), evaluated.metrics, evaluated.cost_seconds, evaluated.messages, usage]


class Slow(RandomSearch):
    """Takes 10 ms for every proposal."""

    begun = 0

    def propose(self, count: int) -> list[Encoding]:
        time.sleep(0.01)
        self.begun += count
        return super().propose(count)


class Same(Agent):
    """Always builds the same chain."""

    Config = RandomSearchConfig

    def begin(self, num_envs: int) -> int:
        self.step = 0
        return num_envs

    def act(
        self, observations: npt.NDArray[Any], masks: npt.NDArray[np.bool_], alive: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int64]:
        self.step += 1
        return np.full(len(alive), A[self.step - 1], np.int64)

    def learn(self, batch: EpisodeBatch) -> dict[str, float]:
        return {}


class TestEnds:
    """Why a run ends, and what is left then."""

    def test_no_episode_begins_after_the_time_limit(self) -> None:
        """A time limit that is over at once ends the run before the first query."""
        envs = make_envs()
        result = run(nas_agents.make("random_search", envs, 0), envs, 10, 0, max_seconds=1e-9)
        assert (result.reason, result.usage.queries) == ("time", 0)

    def test_those_in_flight_are_awaited_after_the_time_limit(self) -> None:
        """What began in time is collected."""
        envs = with_workers(8, Costed({}))
        agent = Slow(envs, 0, RandomSearchConfig())
        result = run(agent, envs, 1000, 0, max_seconds=0.055)
        assert (result.reason, result.usage.queries) == ("time", agent.begun)

    def test_those_in_flight_are_awaited_after_a_wish_to_stop(self) -> None:
        """A sink that wants to stop receives what was begun, and nothing begins afterwards."""
        envs, log = with_workers(4, Costed({A: 4.0, B: 3.0, C: 2.0})), Log(wanted=1)
        agent = Scripted(envs, [A, B, C, D] * 5)
        result = run(agent, envs, 20, 0, [log])
        assert (result.reason, log.encodings) == ("interrupted", [D, C, B, A])

    def test_the_agent_learns_what_was_in_flight(self) -> None:
        """After a wish to stop, the rest is learnt although it fills no batch."""
        envs = with_workers(4, Costed({}))
        agent = Scripted(envs, [A, B, C, D] * 5, batch_size=50)
        run(agent, envs, 20, 0, [Log(wanted=1)])
        assert [len(batch) for batch in agent.learned] == [4]

    def test_an_exhausted_agent_ends_the_run(self) -> None:
        """Without replacement the toy space ends before a larger budget does, with nothing lost in flight."""
        envs = with_workers(7, Costed({}))
        result = run(nas_agents.make("random_search", envs, 0, replacement=False), envs, 10_000, 0)
        assert (result.reason, result.usage.queries) == ("exhausted", SPACE.size())

    def test_endless_free_repeats_are_a_stall(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where repeats are free, an agent that only repeats itself is stopped."""
        monkeypatch.setattr("nas_agents.core.asynchronous._FREE_EPISODES", 50)
        envs = make_envs(repeat_query="cache+free")
        result = run(Same(envs, 0, RandomSearchConfig()), envs, 10, 0)
        assert (result.reason, result.usage.queries) == ("stalled", 1)

    def test_an_exception_keeps_what_was_collected(self) -> None:
        """When the evaluator breaks down, everything counted is with the sinks."""
        envs, log = with_workers(3, Costed({A: 5.0}, raising=7)), Log()
        with pytest.raises(OSError, match="disk"):
            run(Scripted(envs, [A, B, C, D] * 5), envs, 20, 0, [log])
        assert (len(log.episodes), envs.counter.queries) == (4, 4)

    def test_failures_are_results(self) -> None:
        """A failed evaluation arrives with its status, its message and the failure reward."""
        envs, log = make_envs(evaluator=Costed({}, failing=[B])), Log()
        run(Scripted(envs, [B]), envs, 1, 0, [log])
        assert log.episodes == [(B, "diverged", -1.0, True, "(1, 0, 0) diverged")]


ILLEGAL: tuple[Encoding, bool] = ((POOL,), True)


class TestResumption:
    """Episodes of an earlier process, played again and learnt before anything else."""

    def test_taught_episodes_come_first(self) -> None:
        """Sinks receive them in their order, those that ended with an illegal action included."""
        envs, log = make_envs(2, evaluator=Costed({})), Log()
        run(Scripted(envs, [C, D]), envs, 5, 0, [log], taught=[(A, False), ILLEGAL, (B, False)])
        assert [episode[:2] for episode in log.episodes] == [
            (A, "ok"),
            ((POOL,), "invalid_action"),
            (B, "ok"),
            (C, "ok"),
            (D, "ok"),
        ]

    def test_they_are_learnt_before_the_agent_decides(self) -> None:
        """All of them are learnt, in batches, before the first proposal."""
        envs = make_envs(2)
        agent = Scripted(envs, [C], batch_size=2)
        run(agent, envs, 4, 0, taught=[(A, False), ILLEGAL, (B, False)])
        assert agent.events == [(A, (POOL,)), (B,), "begin", (C,)]

    def test_they_count(self) -> None:
        """Queries, architectures and steps are counted as in the earlier process."""
        envs = make_envs(2)
        usage = run(Scripted(envs, []), envs, 9, 0, taught=[(A, False), ILLEGAL, (A, False)]).usage
        assert (usage.queries, usage.unique_architectures, usage.environment_steps) == (3, 1, 6)

    def test_they_are_cut_to_the_budget(self) -> None:
        """No more is replayed than the budget admits."""
        envs, log = make_envs(2), Log()
        run(Scripted(envs, []), envs, 2, 0, [log], taught=[(A, False), (B, False), (C, False)])
        assert log.encodings == [A, B]

    def test_free_repeats_are_not_cut(self) -> None:
        """Where repeats are free, there may be more episodes than queries in the budget."""
        envs, log = make_envs(2, repeat_query="cache+free"), Log()
        run(Scripted(envs, [C]), envs, 3, 0, [log], taught=[(A, False), (A, False), (A, False), (B, False)])
        assert log.encodings == [A, A, A, B, C]

    @pytest.mark.parametrize("cut", [0, 1, 5, 19])
    def test_recorded_answers_are_not_asked_again(self, cut: int) -> None:
        """With the record around the evaluator, a resumed search equals one that was not interrupted."""
        encodings = [A, B, C, D] * 5
        whole, log = make_envs(1, evaluator=Costed({A: 2.0}, failing=[B])), Log()
        run(Scripted(whole, encodings), whole, 20, 0, [log])
        record = [Recorded(e, whole.evaluator.evaluate_one(e)) for e in encodings[:cut]]
        evaluator = Costed({A: 2.0}, failing=[B])
        envs, resumed = make_envs(1, evaluator=evaluator), Log()
        envs.wrap_evaluator(partial(Replayed, record=record))
        taught = [(encoding, False) for encoding in encodings[:cut]]
        run(Scripted(envs, encodings[cut:]), envs, 20, 0, [resumed], taught=taught)
        assert (resumed.episodes, evaluator.asked) == (log.episodes, encodings[cut:])

    @pytest.mark.parametrize("name", AGENTS)
    def test_every_agent_learns_from_them(self, name: str) -> None:
        """Every agent goes on after episodes that it did not decide, to the exact budget."""
        envs, log = make_envs(3), Log()
        agent = nas_agents.make(name, envs, 0)
        run(agent, envs, 40, 0, [log], taught=[(A, False), ILLEGAL, (B, False), (C, False)] * 3)
        assert (len(log.episodes), log.encodings[:4]) == (40, [A, (POOL,), B, C])


class TestRefusals:
    """What cannot be searched without a barrier."""

    @pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
    def test_autoreset_mode_must_be_disabled(self, mode: str) -> None:
        """Environments that reset themselves are refused."""
        envs = make_envs(autoreset_mode=mode)
        with pytest.raises(InvalidArgument, match="Disabled"):
            run(nas_agents.make("random_search", envs, 0), envs, 10, 0)

    def test_environments_must_advance(self) -> None:
        """An environment that can only step is refused by name."""

        class Stepping:
            metadata = make_envs().metadata

        with pytest.raises(InvalidArgument, match="Stepping cannot search without a barrier"):
            run(Same(make_envs(), 0, None), Stepping(), 10, 0)  # type: ignore[arg-type]
