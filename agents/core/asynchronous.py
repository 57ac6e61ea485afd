"""The interaction loop without a barrier: an episode begins as soon as a worker is free.

Dimension letters: N sub-environments, B episodes of a batch, T longest of them, C choices.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidArgument
from nas_gym.search_spaces.core import Encoding

from .base import Agent, Envs, EpisodeBatch
from .runner import Evaluated, FirstSeen, RunResult, Sink, check_autoreset, chosen_fidelities

_FREE_EPISODES = 10_000


class AsynchronousEnvs(Envs, Protocol):
    """What this loop asks of a vector environment beyond `Envs`."""

    @property
    def waiting(self) -> list[int]:
        """Sub-environments whose outcome was not collected yet."""
        ...

    def advance(self, actions: Any, rows: Any = None) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
        """Take one decision in some sub-environments without waiting for evaluations."""
        ...

    def collect(self, timeout: float | None = None) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Return the outcomes that are ready."""
        ...


class Taught(NamedTuple):
    """An episode of an earlier process.

    Attributes:
        encoding: the decisions.
        invalid: whether an illegal action followed them.
        fidelity: what the agent had asked for, None = nothing.
    """

    encoding: Encoding
    invalid: bool = False
    fidelity: int | None = None


@dataclass
class _Episode:
    """The decisions of an episode whose outcome is awaited; one entry a step."""

    fidelity: int | None = None
    observations: list[npt.NDArray[Any]] = field(default_factory=list)
    masks: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)


def run_without_barrier(
    agent: Agent,
    envs: AsynchronousEnvs,
    budget: int,
    seed: int,
    sinks: Sequence[Sink] = (),
    max_seconds: float | None = None,
    taught: Sequence[tuple[Encoding, bool] | Taught] = (),
) -> RunResult:
    """Let `agent` search with N episodes in flight until exactly `budget` queries are used.

    The agent builds one architecture after the other; its outcomes come in the order of their completion, gathered
    into batches of the size that it likes. A result may therefore come from a policy that has moved on since, as in
    the published distributed searches. The order, and with it the result, depends on the speed of the workers.

    Args:
        agent: who decides.
        envs: a construction environment with ``autoreset_mode="Disabled"``; its counter is reset.
        budget: charged queries.
        seed: of the environments.
        sinks: told about every finished episode.
        max_seconds: no new episode begins after so many seconds; those in flight are awaited.
        taught: episodes of an earlier process, the fields of `Taught`; they are replayed, and the agent learns from
            them, before it decides itself.

    Raises:
        InvalidArgument: a budget below 1, or another autoreset mode.
    """
    check_autoreset(envs)
    if not hasattr(envs, "advance"):
        raise InvalidArgument(f"{type(envs).__name__} cannot search without a barrier: it has no advance().")
    counter = envs.counter
    counter.budget = budget
    counter.reset()
    envs.reset(seed=seed)
    loop = _Loop(agent, envs, sinks)
    for encoding, invalid, *fidelity in taught:
        if counter.queries < budget:  # Where repeats are free, more episodes than queries may have been played.
            loop.replay(Taught(encoding, invalid, *fidelity))
    loop.learn(everything=True)
    started = time.perf_counter()
    reason = "budget"
    while reason == "budget":
        reason = loop.fill(budget, started, max_seconds)
        if not loop.running:
            break
        loop.collect()
        loop.learn()
    while loop.running:
        loop.collect()
    loop.learn(everything=True)
    return RunResult(reason, counter.usage())


class _Loop:
    """The state between the episodes."""

    def __init__(self, agent: Agent, envs: AsynchronousEnvs, sinks: Sequence[Sink]) -> None:
        self.agent = agent
        self.envs = envs
        self.sinks = sinks
        self.running: dict[int, _Episode] = {}
        self.unlearnt: list[tuple[_Episode, Evaluated]] = []
        self.first_seen = FirstSeen(envs.space)
        self.free_episodes = 0

    def fill(self, budget: int, started: float, max_seconds: float | None) -> str:
        """Begin episodes until all sub-environments wait; return "budget" or why no more may begin."""
        counter = self.envs.counter
        while len(self.running) < self.envs.num_envs and counter.queries + len(self.running) < budget:
            if any(sink.wants_stop for sink in self.sinks):
                return "interrupted"
            if max_seconds is not None and time.perf_counter() - started >= max_seconds:
                return "time"
            if self.free_episodes >= _FREE_EPISODES:
                return "stalled"
            if self.agent.begin(1) == 0:
                return "exhausted"
            chosen = chosen_fidelities(self.agent, 1)
            fidelity = None if chosen is None else int(chosen[0])
            self.play(next(row for row in range(self.envs.num_envs) if row not in self.running), fidelity)
        return "budget"

    def play(self, row: int, fidelity: int | None, forced: Sequence[int] | None = None) -> None:
        """Build one architecture in a sub-environment and submit it, by the agent or by given decisions."""
        episode = _Episode(fidelity)
        selected = np.arange(self.envs.num_envs) == row
        asked = {} if fidelity is None else {"fidelity": fidelity}
        observations, info = self.envs.reset(options={"reset_mask": selected, **asked})
        alive = np.ones(1, np.bool_)
        while row not in self.envs.waiting:
            mask = info["action_mask"][[row]].astype(np.bool_)
            seen = observations[[row]].copy()
            if forced is None:
                action = int(self.agent.act(seen, mask, alive)[0])
            else:
                action = _decision(forced, len(episode.actions), mask[0])
            episode.observations.append(seen[0])
            episode.masks.append(mask[0])
            episode.actions.append(action)
            actions = np.zeros(self.envs.num_envs, np.int64)
            actions[row] = action
            observations, info = self.envs.advance(actions, selected)
        self.running[row] = episode

    def replay(self, taught: Taught) -> None:
        """Build a recorded architecture and wait for its outcome."""
        self.play(0, taught.fidelity, [*taught.encoding, -1] if taught.invalid else taught.encoding)
        while self.running:
            self.collect()

    def collect(self) -> None:
        """Wait for outcomes and tell the sinks about each."""
        before = self.envs.counter.queries
        _, rewards, _, _, info = self.envs.collect()
        for row in info.get("completion_order", ()):
            episode = self.running.pop(row)
            evaluated = self._evaluated(episode, row, float(rewards[row]), info)
            for sink in self.sinks:
                sink.on_episodes(evaluated)
            self.unlearnt.append((episode, evaluated))
        self.free_episodes = 0 if self.envs.counter.queries > before else self.free_episodes + 1

    def learn(self, everything: bool = False) -> None:
        """Let the agent learn from whole batches, and from the rest if `everything`."""
        size = self.agent.config.batch_size
        while len(self.unlearnt) >= size or (everything and self.unlearnt):
            batch = _stack([evaluated.batch for _, evaluated in self.unlearnt[:size]])
            del self.unlearnt[:size]
            diagnostics = self.agent.learn(batch)
            for sink in self.sinks:
                sink.on_learned(diagnostics)

    def _evaluated(self, episode: _Episode, row: int, reward: float, info: dict[str, Any]) -> Evaluated:
        """Return a batch of one."""
        encoding, status = info["encoding"][row], info["status"][row]
        steps = len(episode.actions)
        batch = EpisodeBatch(
            observations=np.stack(episode.observations)[None],
            actions=np.array([episode.actions], np.int64),
            masks=np.stack(episode.masks)[None],
            rewards=np.array([[0.0] * (steps - 1) + [reward]]),
            lengths=np.array([steps], np.int64),
            encodings=(encoding,),
            status=(status,),
            first_seen=np.array([self.first_seen(encoding, status)]),
            fidelities=None if episode.fidelity is None else np.array([episode.fidelity], np.int64),
        )
        metrics = {
            name: np.array([column[row]]) for name, column in info["metrics"].items() if not name.startswith("_")
        }
        message = info["message"][row] if "message" in info else None
        cost = np.array([info["cost_seconds"][row]])
        return Evaluated(batch, metrics, cost, self.envs.counter.usage(), (message or "",))


def _decision(forced: Sequence[int], position: int, mask: npt.NDArray[np.bool_]) -> int:
    """Return a given decision; -1 stands for any illegal one."""
    choice = forced[position]
    return int(np.flatnonzero(~mask)[0]) if choice < 0 else int(choice)


def _stack(batches: Sequence[EpisodeBatch]) -> EpisodeBatch:
    """Join batches, padding to the longest episode with zeros (masks: with True)."""
    longest = max(batch.actions.shape[1] for batch in batches)
    fidelities = [batch.fidelities for batch in batches if batch.fidelities is not None]
    if fidelities and len(fidelities) < len(batches):
        raise InvalidArgument("an agent names a fidelity for all of its episodes or for none; this one did for some.")

    def pad(values: npt.NDArray[Any], fill: float) -> npt.NDArray[Any]:
        missing = [(0, 0)] * values.ndim
        missing[1] = (0, longest - values.shape[1])
        return np.pad(values, missing, constant_values=fill)

    return EpisodeBatch(
        observations=np.concatenate([pad(batch.observations, 0) for batch in batches]),
        actions=np.concatenate([pad(batch.actions, 0) for batch in batches]),
        masks=np.concatenate([pad(batch.masks, True) for batch in batches]),
        rewards=np.concatenate([pad(batch.rewards, 0.0) for batch in batches]),
        lengths=np.concatenate([batch.lengths for batch in batches]),
        encodings=tuple(encoding for batch in batches for encoding in batch.encodings),
        status=tuple(status for batch in batches for status in batch.status),
        first_seen=np.concatenate([batch.first_seen for batch in batches]),
        fidelities=np.concatenate(fidelities) if fidelities else None,
    )
