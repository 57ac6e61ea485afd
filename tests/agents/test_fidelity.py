"""The channel by which an agent chooses how long each architecture is trained: protocol, both loops."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from curves import Curves
from toys import CONV, POOL, STOP, ToySpace

import nas_agents
from nas_agents import Evaluated, Proposer, Sink, Taught
from nas_agents.random_search import RandomSearchConfig
from nas_gym.envs.cell import CellVectorEnv
from nas_gym.envs.core.construction import ConstructionVectorEnv
from nas_gym.errors import FidelityError, InvalidArgument
from nas_gym.evaluators.decorators import SimulatedWorkers
from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.objectives import Accuracy
from nas_gym.search_spaces import Encoding

SPACE = ToySpace()
A, B, C, D = (POOL, STOP), (CONV, 0, STOP), (CONV, 1, CONV, 0, STOP), (CONV, 2, STOP)
LOOPS = [pytest.param(nas_agents.run, id="barrier"), pytest.param(nas_agents.run_without_barrier, id="none")]


class Asking(Proposer):
    """Builds given architectures at given fidelities."""

    Config = RandomSearchConfig

    def __init__(
        self, envs: Any, jobs: Sequence[tuple[Encoding, int | None]], batch_size: int = 1, surplus: int = 0
    ) -> None:
        super().__init__(envs, 0, RandomSearchConfig(batch_size=batch_size))
        self.left = list(jobs)
        self.surplus = surplus
        self.asked: list[int] = []
        self.learnt: list[tuple[Encoding, int | None, float]] = []

    def propose(self, count: int) -> list[Encoding]:
        taken, self.left = self.left[:count], self.left[count:]
        self.asked = [fidelity for _, fidelity in taken if fidelity is not None]
        return [encoding for encoding, _ in taken]

    def fidelities(self) -> Sequence[int] | None:
        return self.asked + [1] * self.surplus if self.asked else None

    def tell(self, encodings: Sequence[Encoding], returns: npt.NDArray[np.float64]) -> dict[str, float]:
        return {}

    def learn(self, batch: nas_agents.EpisodeBatch) -> dict[str, float]:
        fidelities = [None] * len(batch) if batch.fidelities is None else batch.fidelities.tolist()
        self.learnt += zip(batch.encodings, fidelities, batch.returns.tolist(), strict=True)
        return {}


class Log(Sink):
    """Keeps everything that a run publishes."""

    def __init__(self) -> None:
        self.evaluated: list[Evaluated] = []

    def on_episodes(self, evaluated: Evaluated) -> None:
        self.evaluated.append(evaluated)


def make_envs(num_envs: int = 4, **kwargs: Any) -> ConstructionVectorEnv:
    """Return environments whose rewards depend on the fidelity."""
    return ConstructionVectorEnv(
        SPACE, Curves(SPACE), Accuracy(), num_envs=num_envs, autoreset_mode="Disabled", **kwargs
    )


def reward(encoding: Encoding, fidelity: int | None) -> float:
    """Return what an architecture is worth at a fidelity."""
    return Curves(SPACE).evaluate_one(encoding, fidelity).metrics["valid_accuracy"]


JOBS: list[tuple[Encoding, int | None]] = [(A, 1), (B, 9), (C, 3), (D, 1), (A, 9), (C, 9)]


class TestPublished:
    """What an environment says of its fidelities."""

    def test_lowest_and_usual_one(self) -> None:
        """An episode that asks for nothing is at the evaluator's highest."""
        assert make_envs().fidelities == (1, 9)

    def test_the_usual_one_is_an_argument(self) -> None:
        """With a fidelity of its own, that of the environment is the highest."""
        assert make_envs(fidelity=4).fidelities == (1, 4)

    def test_a_table_has_its_epochs(self, small_table: Path) -> None:
        """The curves of a table are its fidelities."""
        assert CellVectorEnv(1, table=str(small_table)).fidelities == (1, 4)

    def test_none_without_epochs(self) -> None:
        """An analytic landscape has no such notion."""
        envs = ConstructionVectorEnv(SPACE, SyntheticEvaluator(SPACE), Accuracy())
        assert envs.fidelities is None


class TestLoops:
    """What both loops make of the agent's answer."""

    @pytest.mark.parametrize("loop", LOOPS)
    def test_every_episode_is_at_its_own_fidelity(self, loop: Any) -> None:
        """Rewards are those at the fidelities that the agent asked for, within one batch, too."""
        agent = Asking(envs := make_envs(4), JOBS, batch_size=4)
        loop(agent, envs, 6, 0)
        expected = [(encoding, fidelity, reward(encoding, fidelity)) for encoding, fidelity in JOBS]
        assert sorted(agent.learnt) == sorted(expected)

    @pytest.mark.parametrize("loop", LOOPS)
    def test_sinks_are_told(self, loop: Any) -> None:
        """A batch names the fidelity of every episode."""
        agent, log = Asking(envs := make_envs(4), JOBS, batch_size=4), Log()
        loop(agent, envs, 6, 0, [log])
        told = [
            (encoding, fidelity)
            for evaluated in log.evaluated
            if evaluated.batch.fidelities is not None
            for encoding, fidelity in zip(evaluated.batch.encodings, evaluated.batch.fidelities.tolist(), strict=True)
        ]
        assert sorted(told) == sorted(JOBS)

    @pytest.mark.parametrize("loop", LOOPS)
    def test_agents_that_choose_none_get_the_usual_one(self, loop: Any) -> None:
        """Without an answer nothing is said, and the environment's own fidelity holds."""
        agent = Asking(envs := make_envs(2, fidelity=3), [(A, None), (B, None)], batch_size=2)
        loop(agent, envs, 2, 0)
        assert sorted(agent.learnt) == sorted([(A, None, reward(A, 3)), (B, None, reward(B, 3))])

    @pytest.mark.parametrize("loop", LOOPS)
    def test_a_query_is_a_query_at_any_fidelity(self, loop: Any) -> None:
        """Low fidelities are charged one query each, and their share of the simulated seconds."""
        agent, log = Asking(envs := make_envs(4), JOBS, batch_size=4), Log()
        usage = loop(agent, envs, 6, 0, [log]).usage
        seconds = sum(Curves(SPACE).evaluate_one(*job).cost_seconds for job in JOBS)
        assert (usage.queries, usage.simulated_seconds) == (6, pytest.approx(seconds))

    @pytest.mark.parametrize("loop", LOOPS)
    def test_one_that_cannot_be_answered_is_refused(self, loop: Any) -> None:
        """A fidelity beyond the evaluator's is an error that names the range."""
        with pytest.raises(FidelityError, match="from 1 to 9"):
            loop(Asking(envs := make_envs(), [(A, 10)]), envs, 1, 0)

    @pytest.mark.parametrize("loop", LOOPS)
    def test_there_must_be_one_an_episode(self, loop: Any) -> None:
        """An agent that names more fidelities than it has begun episodes is wrong."""
        with pytest.raises(InvalidArgument, match="1 episodes, but names 2"):
            loop(Asking(envs := make_envs(1), [(A, 1)], surplus=1), envs, 1, 0)

    def test_for_all_episodes_or_for_none(self) -> None:
        """Results with and without a chosen fidelity are not joined into one batch."""
        agent = Asking(envs := make_envs(1), [(A, 1), (B, None)], batch_size=2)
        with pytest.raises(InvalidArgument, match="for some"):
            nas_agents.run_without_barrier(agent, envs, 2, 0)

    def test_the_first_batch_forgets_no_repeats(self, small_table: Path) -> None:
        """The seed of a run is handed over once, however many fidelities its first batch has."""
        envs = CellVectorEnv(2, table=str(small_table), autoreset_mode="Disabled")
        seeds: list[Any] = []
        reset = envs.reset

        def spied(**kwargs: Any) -> Any:
            seeds.append(kwargs.get("seed"))
            return reset(**kwargs)

        envs.reset = spied  # type: ignore[method-assign]
        cells: list[tuple[Encoding, int | None]] = [((0, 1, 2, 3, 4, 0), 1), ((1, 1, 2, 3, 4, 0), 4)]
        nas_agents.run(Asking(envs, cells, batch_size=2), envs, 2, 5)
        assert seeds == [5, None]

    def test_simulated_workers_take_a_share_of_the_time(self) -> None:
        """Without a barrier, three short trainings fit beside a long one."""
        jobs: list[tuple[Encoding, int | None]] = [(A, 9), (B, 1), (D, 1), (B, 3)]
        envs, log = make_envs(2), Log()
        envs.wrap_evaluator(partial(SimulatedWorkers, workers=2))
        nas_agents.run_without_barrier(Asking(envs, jobs), envs, 4, 0, [log])
        assert [evaluated.batch.encodings[0] for evaluated in log.evaluated][:2] == [B, D]


class TestTaught:
    """Episodes of an earlier process, at the fidelities that they had."""

    def test_are_replayed_at_their_fidelity(self) -> None:
        """The agent learns the fidelity and the reward there."""
        agent = Asking(envs := make_envs(2), [], batch_size=2)
        nas_agents.run_without_barrier(agent, envs, 9, 0, taught=[Taught(A, False, 3), Taught(B, False, 9)])
        assert agent.learnt == [(A, 3, reward(A, 3)), (B, 9, reward(B, 9))]

    def test_without_a_fidelity_nothing_is_asked_for(self) -> None:
        """Pairs of architecture and illegality are episodes of agents that choose no fidelity."""
        agent = Asking(envs := make_envs(2), [], batch_size=2)
        nas_agents.run_without_barrier(agent, envs, 9, 0, taught=[(A, False)])
        assert agent.learnt == [(A, None, reward(A, None))]
