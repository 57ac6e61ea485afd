"""The one interaction loop of our own agents: batches of episodes until the budget of queries is used up.

Dimension letters: N sub-environments, B episodes of a batch, T longest of them, C choices.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidArgument
from nas_gym.search_spaces.core import Encoding, SearchSpace

from .base import Agent, Envs, EpisodeBatch

_FREE_BATCHES = 1000


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Episodes as they ended, before the agent learns from them.

    Attributes:
        batch: the episodes.
        metrics: search-time metrics by name, shape [B].
        cost_seconds: cost of each query, shape [B].
        usage: the counter after them.
        messages: why queries failed, empty where they did not; B of them.
    """

    batch: EpisodeBatch
    metrics: Mapping[str, npt.NDArray[np.float64]]
    cost_seconds: npt.NDArray[np.float64]
    usage: Any
    messages: tuple[str, ...] = ()


class Sink:
    """Receives what happens in a run; override what you need."""

    @property
    def wants_stop(self) -> bool:
        """Whether the run is to end as soon as everything evaluated has been received."""
        return False

    def on_episodes(self, evaluated: Evaluated) -> None:
        """Receive finished episodes, at once and before anything else can fail."""

    def on_learned(self, diagnostics: Mapping[str, float]) -> None:
        """Receive what the agent reports after learning."""


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        reason: "budget"; "exhausted", the agent had nothing left to try; "time", the seconds were up; "stalled",
            the agent repeats itself where repeats are free; or "interrupted", a sink wanted to stop.
        usage: the counter at the end.
        updates: updates of the policy, where the algorithm counts them.
    """

    reason: str
    usage: Any
    updates: int | None = None


def run(
    agent: Agent,
    envs: Envs,
    budget: int,
    seed: int,
    sinks: Sequence[Sink] = (),
    max_seconds: float | None = None,
) -> RunResult:
    """Let `agent` search until exactly `budget` queries are used.

    Args:
        agent: who decides.
        envs: a vector environment of nas-gym with ``autoreset_mode="Disabled"``; its counter is reset.
        budget: charged queries.
        seed: of the environments.
        sinks: told about every finished batch.
        max_seconds: no new batch begins after so many seconds.

    Raises:
        InvalidArgument: a budget below 1, or another autoreset mode.
    """
    check_autoreset(envs)
    if agent.drives_itself:
        return agent.drive(envs, budget, seed, sinks, max_seconds)
    if not envs.actions_are_decisions:
        raise InvalidArgument(
            f"{type(agent).__name__} proposes whole architectures, but an episode of this environment edits one; "
            "search it with an agent that drives it itself, such as sb3:maskable_ppo."
        )
    counter = envs.counter
    counter.budget = budget
    counter.reset()
    player = _Player(agent, envs, sinks, seed)
    started = time.perf_counter()
    free_batches = 0
    while counter.queries < budget:
        if any(sink.wants_stop for sink in sinks):
            return RunResult("interrupted", counter.usage())
        if max_seconds is not None and time.perf_counter() - started >= max_seconds:
            return RunResult("time", counter.usage())
        queries_before = counter.queries
        count = agent.begin(min(envs.num_envs, budget - counter.queries))
        if count == 0:
            return RunResult("exhausted", counter.usage())
        batch = player.play(count)
        diagnostics = agent.learn(batch)
        for sink in sinks:
            sink.on_learned(diagnostics)
        free_batches = free_batches + 1 if counter.queries == queries_before else 0
        if free_batches >= _FREE_BATCHES:
            return RunResult("stalled", counter.usage())
    return RunResult("budget", counter.usage())


def check_autoreset(envs: Envs) -> None:
    """Check that episodes begin only when they are told to.

    Raises:
        InvalidArgument: another autoreset mode than "Disabled".
    """
    if getattr(envs.metadata.get("autoreset_mode"), "value", None) != "Disabled":
        raise InvalidArgument("this needs a vector environment made with autoreset_mode='Disabled'.")


def chosen_fidelities(agent: Agent, count: int) -> npt.NDArray[np.int64] | None:
    """Return the fidelities that an agent asks for in the episodes it has begun, int64 [B]; None = it asks for none.

    Raises:
        InvalidArgument: it does not name one per episode.
    """
    chosen = agent.fidelities()
    if chosen is None:
        return None
    if len(chosen) != count:
        raise InvalidArgument(f"{type(agent).__name__} began {count} episodes, but names {len(chosen)} fidelities.")
    return np.array(chosen, np.int64)


class FirstSeen:
    """Tells which canonical architectures are new to a run."""

    def __init__(self, space: SearchSpace) -> None:
        """Start with nothing seen."""
        self._space = space
        self._seen: set[Encoding] = set()

    def __call__(self, encoding: Encoding, status: str) -> bool:
        """Return whether an evaluated architecture is new, and note it."""
        if status == "invalid_action":
            return False
        canonical = self._space.canonical(encoding)
        new = canonical not in self._seen
        self._seen.add(canonical)
        return new


class _Player:
    """Plays batches of episodes and tells the sinks about every one that ended, whatever happens."""

    def __init__(self, agent: Agent, envs: Envs, sinks: Sequence[Sink], seed: int) -> None:
        self.seed: int | None = seed
        self.agent = agent
        self.envs = envs
        self.sinks = sinks
        self.first_seen = FirstSeen(envs.space)

    def play(self, count: int) -> EpisodeBatch:
        """Play the first `count` sub-environments to their ends."""
        fidelities = chosen_fidelities(self.agent, count)
        observations, info = self._reset(count, fidelities)
        trace = _Trace(count, fidelities)
        alive = np.ones(count, np.bool_)
        try:
            while alive.any():
                masks = info["action_mask"][:count].astype(np.bool_)
                seen = observations[:count].copy()
                chosen = self.agent.act(seen, masks, alive)
                actions = np.zeros(self.envs.num_envs, np.int64)
                actions[:count] = chosen
                observations, rewards, terminated, truncated, info = self.envs.step(actions)
                trace.add(seen, chosen, masks, rewards[:count], alive, info)
                alive &= ~(terminated | truncated)[:count]
        except BaseException:
            # An interruption or a full budget must not lose the episodes that were paid for.
            if trace.ended.any():
                self._publish(trace)
            raise
        return self._publish(trace)

    def _reset(self, count: int, fidelities: npt.NDArray[np.int64] | None) -> tuple[Any, dict[str, Any]]:
        """Begin the first `count` sub-environments, each at its fidelity; return observations and masks of all."""
        # The first batch may be smaller than the others; what it leaves out must not begin, or it would be charged.
        selected = np.arange(self.envs.num_envs) < count
        seed, self.seed = self.seed, None
        if fidelities is None:
            return self.envs.reset(seed=seed, options={"reset_mask": selected})
        observations = None
        masks = np.zeros((self.envs.num_envs, self.envs.space.max_choices), np.int8)
        for fidelity in np.unique(fidelities).tolist():
            begun = selected.copy()
            begun[:count] = fidelities == fidelity
            observations, info = self.envs.reset(seed=seed, options={"reset_mask": begun, "fidelity": fidelity})
            masks[begun] = info["action_mask"][begun]
            seed = None  # Another seed would forget the repeats of the episodes that just began.
        return observations, {"action_mask": masks}

    def _publish(self, trace: _Trace) -> EpisodeBatch:
        """Tell the sinks about the episodes that ended and return them."""
        finished = np.flatnonzero(trace.ended)
        first = [self.first_seen(trace.encodings[row], trace.status[row]) for row in finished.tolist()]
        evaluated = trace.evaluated(finished, np.array(first, np.bool_), self.envs.counter.usage())
        for sink in self.sinks:
            sink.on_episodes(evaluated)
        return evaluated.batch


class _Trace:
    """The steps of one batch and the final info of every episode that ended."""

    def __init__(self, count: int, fidelities: npt.NDArray[np.int64] | None = None) -> None:
        self.count = count
        self.fidelities = fidelities
        self.ended = np.zeros(count, np.bool_)
        self.lengths = np.zeros(count, np.int64)
        self.steps: list[tuple[npt.NDArray[Any], ...]] = []
        self.encodings: list[Encoding] = [()] * count
        self.status: list[str] = [""] * count
        self.metrics: dict[str, npt.NDArray[np.float64]] = {}
        self.cost_seconds = np.zeros(count)
        self.messages = [""] * count

    def add(
        self,
        observations: npt.NDArray[Any],
        actions: npt.NDArray[np.int64],
        masks: npt.NDArray[np.bool_],
        rewards: npt.NDArray[np.float64],
        alive: npt.NDArray[np.bool_],
        info: Mapping[str, Any],
    ) -> None:
        """Add one step of the episodes that are alive."""
        self.steps.append((observations, np.where(alive, actions, 0), masks, np.where(alive, rewards, 0.0)))
        self.lengths += alive
        if "_encoding" not in info:
            return
        for row in np.flatnonzero(info["_encoding"][: self.count]).tolist():
            self.ended[row] = True
            self.encodings[row] = info["encoding"][row]
            self.status[row] = info["status"][row]
            self.cost_seconds[row] = info["cost_seconds"][row]
            if "message" in info:
                self.messages[row] = info["message"][row] or ""
            for name, column in info["metrics"].items():
                if not name.startswith("_"):
                    self.metrics.setdefault(name, np.full(self.count, np.nan))[row] = column[row]

    def evaluated(
        self,
        rows: npt.NDArray[np.int64],
        first_seen: npt.NDArray[np.bool_],
        usage: Any,  # noqa: ANN401
    ) -> Evaluated:
        """Return the episodes of `rows`."""
        observations, actions, masks, rewards = (
            np.stack(column, axis=1)[rows] for column in zip(*self.steps, strict=True)
        )
        batch = EpisodeBatch(
            observations=observations,
            actions=actions,
            masks=masks,
            rewards=rewards,
            lengths=self.lengths[rows],
            encodings=tuple(self.encodings[row] for row in rows.tolist()),
            status=tuple(self.status[row] for row in rows.tolist()),
            first_seen=first_seen,
            fidelities=None if self.fidelities is None else self.fidelities[rows],
        )
        metrics = {name: column[rows] for name, column in self.metrics.items()}
        messages = tuple(self.messages[row] for row in rows.tolist())
        return Evaluated(batch, metrics, self.cost_seconds[rows], usage, messages)
