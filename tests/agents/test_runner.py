"""The interaction loop: exact budgets, interruptions, stops."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from toys import ToySpace

import nas_agents
from nas_agents import Agent, EpisodeBatch, Evaluated, Sink
from nas_gym.envs.core.construction import ConstructionVectorEnv
from nas_gym.errors import InvalidArgument
from nas_gym.evaluators.core import Evaluation, Evaluations, Queries, Status
from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.objectives import Accuracy
from nas_gym.search_spaces import Encoding
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space


def make_envs(num_envs: int = 4, **kwargs: Any) -> ConstructionVectorEnv:
    """Return environments over the toy space."""
    space = ToySpace()
    mode = kwargs.pop("autoreset_mode", "Disabled")
    return ConstructionVectorEnv(
        space, SyntheticEvaluator(space), Accuracy(), num_envs=num_envs, autoreset_mode=mode, **kwargs
    )


class Count(Sink):
    """Counts published episodes."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.last: Evaluated | None = None

    def on_episodes(self, evaluated: Evaluated) -> None:
        self.batches.append(len(evaluated.batch))
        self.last = evaluated


def test_last_batch_is_cut_to_the_budget() -> None:
    """Ten queries in batches of four end with a batch of two."""
    envs, count = make_envs(), Count()
    nas_agents.run(nas_agents.make("random_search", envs, 0), envs, 10, 0, [count])
    assert count.batches == [4, 4, 2]


def test_episode_batch_is_padded_with_zeros() -> None:
    """Beyond the length of an episode, actions and rewards are 0 and the whole return lies at its last step."""
    envs, count = make_envs(16), Count()
    nas_agents.run(nas_agents.make("random_search", envs, 0), envs, 16, 0, [count])
    assert count.last is not None
    batch = count.last.batch
    steps = np.arange(batch.actions.shape[1])
    assert not batch.actions[steps >= batch.lengths[:, None]].any()
    assert not batch.rewards[steps != batch.lengths[:, None] - 1].any()


def test_episode_batch_holds_what_was_played() -> None:
    """The actions of every row are its encoding, and the masks allowed them."""
    envs, count = make_envs(16), Count()
    nas_agents.run(nas_agents.make("random_search", envs, 0), envs, 16, 0, [count])
    assert count.last is not None
    batch = count.last.batch
    for row, encoding in enumerate(batch.encodings):
        assert tuple(batch.actions[row, : batch.lengths[row]]) == encoding
        assert all(batch.masks[row, step, choice] for step, choice in enumerate(encoding))


def test_first_seen_counts_what_the_counter_counts() -> None:
    """The flags of a run sum to the counter's unique canonical architectures."""
    space = NASBench201Space()
    envs = ConstructionVectorEnv(space, SyntheticEvaluator(space), Accuracy(), num_envs=50, autoreset_mode="Disabled")
    flags: list[bool] = []

    class Flags(Sink):
        def on_episodes(self, evaluated: Evaluated) -> None:
            flags.extend(evaluated.batch.first_seen.tolist())

    result = nas_agents.run(nas_agents.make("random_search", envs, 0), envs, 500, 0, [Flags()])
    assert sum(flags) == result.usage.unique_architectures


def test_autoreset_mode_must_be_disabled() -> None:
    """Environments that reset themselves are refused, since their episodes would be lost."""
    envs = make_envs(autoreset_mode="NextStep")
    with pytest.raises(InvalidArgument, match="Disabled"):
        nas_agents.run(nas_agents.make("random_search", envs, 0), envs, 10, 0)


def test_budget_must_be_positive() -> None:
    """A budget of zero is refused."""
    envs = make_envs()
    with pytest.raises(InvalidArgument, match="budget"):
        nas_agents.run(nas_agents.make("random_search", envs, 0), envs, 0, 0)


def test_no_batch_begins_after_the_time_limit() -> None:
    """A time limit that is over at once ends the run before the first query."""
    envs = make_envs()
    result = nas_agents.run(nas_agents.make("random_search", envs, 0), envs, 10, 0, max_seconds=1e-9)
    assert (result.reason, result.usage.queries) == ("time", 0)


def test_exhausted_agent_ends_the_run() -> None:
    """Without replacement the toy space ends before a larger budget does."""
    envs = make_envs()
    agent = nas_agents.make("random_search", envs, 0, replacement=False)
    result = nas_agents.run(agent, envs, 10_000, 0)
    assert (result.reason, result.usage.queries) == ("exhausted", ToySpace().size())


class Same(Agent):
    """Always builds the same chain: one convolution, then stop."""

    Config = nas_agents.AGENTS["random_search"].Config

    def begin(self, num_envs: int) -> int:
        self.step = 0
        return num_envs

    def act(
        self, observations: npt.NDArray[Any], masks: npt.NDArray[np.bool_], alive: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int64]:
        self.step += 1
        return np.full(len(alive), (1, 0, 0)[self.step - 1], np.int64)

    def learn(self, batch: EpisodeBatch) -> dict[str, float]:
        return {}


def test_endless_free_repeats_are_a_stall() -> None:
    """Where repeats are free, an agent that only repeats itself is stopped."""
    envs = make_envs(repeat_query="cache+free")
    result = nas_agents.run(Same(envs, 0, None), envs, 10, 0)
    assert (result.reason, result.usage.queries) == ("stalled", 1)


class InterruptedAt(Same):
    """Builds random chains of different lengths and is interrupted at the third step of its second batch."""

    batch = 0

    def begin(self, num_envs: int) -> int:
        self.batch += 1
        return super().begin(num_envs)

    def act(
        self, observations: npt.NDArray[Any], masks: npt.NDArray[np.bool_], alive: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int64]:
        self.step += 1
        if self.batch == 2 and self.step == 4:
            raise KeyboardInterrupt
        chosen = [2, 0, 0, 0] if self.step % 2 == 0 else [2, 1, 1, 1]
        return np.array([1, 1, 1, 1] if self.step == 1 else ([0, 1, 1, 1] if self.step == 2 else chosen), np.int64)


def test_interruption_publishes_what_was_evaluated() -> None:
    """Episodes that ended before Ctrl-C reach the sinks although their batch did not end."""
    envs, count = make_envs(), Count()
    with pytest.raises(KeyboardInterrupt):
        nas_agents.run(InterruptedAt(envs, 0, None), envs, 100, 0, [count])
    assert sum(count.batches) == envs.counter.queries


class StopAfter(Count):
    """Wants to stop once so many episodes were published."""

    def __init__(self, episodes: int) -> None:
        super().__init__()
        self.episodes = episodes

    @property
    def wants_stop(self) -> bool:
        return sum(self.batches) >= self.episodes


def test_sinks_stop_the_run_between_batches() -> None:
    """A wish to stop lets the batch at hand be received whole, and no other begin."""
    envs, stop = make_envs(), StopAfter(5)
    result = nas_agents.run(nas_agents.make("random_search", envs, 0), envs, 100, 0, [stop])
    assert (result.reason, stop.batches) == ("interrupted", [4, 4])


def test_a_stop_after_the_last_query_interrupts_nothing() -> None:
    """A run whose budget is used up has finished, whatever its sinks want."""
    envs = make_envs()
    result = nas_agents.run(nas_agents.make("random_search", envs, 0), envs, 8, 0, [StopAfter(8)])
    assert result.reason == "budget"


class HalfDiverging(SyntheticEvaluator):
    """Fails for every architecture whose decisions add up to an odd number, and names them."""

    def evaluate(self, queries: Queries) -> Evaluations:
        return Evaluations.of([self._one(row) for row in queries.rows], self.search_metrics)

    def _one(self, encoding: Encoding) -> Evaluation:
        if sum(encoding) % 2 == 0:
            return self.evaluate_one(encoding)
        return Evaluation(Status.DIVERGED, {}, 1.0, f"{encoding} is odd")


def test_messages_come_with_their_episodes() -> None:
    """Every episode brings the message of its failure, or an empty one."""
    space, count = ToySpace(), Count()
    envs = ConstructionVectorEnv(space, HalfDiverging(space), Accuracy(), num_envs=16, autoreset_mode="Disabled")
    nas_agents.run(nas_agents.make("random_search", envs, 0), envs, 16, 0, [count])
    assert count.last is not None
    assert count.last.messages == tuple(f"{e} is odd" if sum(e) % 2 else "" for e in count.last.batch.encodings)


def test_an_episode_without_failures_has_empty_messages() -> None:
    """Where nothing failed, the messages are empty texts, one an episode."""
    envs, count = make_envs(), Count()
    nas_agents.run(nas_agents.make("random_search", envs, 0), envs, 4, 0, [count])
    assert count.last is not None
    assert count.last.messages == ("",) * 4
