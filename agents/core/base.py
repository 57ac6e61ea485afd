"""What an agent is: it decides for a batch of episodes and learns from the whole batch.

Dimension letters: B episodes of a batch, T longest of them, K features, C choices.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidArgument, UnknownName
from nas_gym.search_spaces.core import Encoding, SearchSpace


class Counter(Protocol):
    """The counting object below the environments, as the runner uses it."""

    budget: int | None
    queries: int

    def reset(self) -> None:
        """Set all counts to zero."""

    def usage(self) -> Any:  # noqa: ANN401 - a snapshot that only sinks look into
        """Return a snapshot."""


class Envs(Protocol):
    """What an agent and the runner ask of a vector environment; `nas_gym`'s own provide it."""

    num_envs: int
    space: SearchSpace
    counter: Any
    metadata: dict[str, Any]

    @property
    def actions_are_decisions(self) -> bool:
        """Whether an encoding can be played as actions."""
        ...

    @property
    def fidelities(self) -> tuple[int, int] | None:
        """Lowest fidelity and that of an episode which asks for none; None where there is no such notion."""
        ...

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
        """Begin episodes."""
        ...

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:  # noqa: ANN401
        """Take one decision in every sub-environment."""
        ...


@dataclass(frozen=True, eq=False)
class EpisodeBatch:
    """Finished episodes, padded to the longest with zeros.

    There are no log-probabilities: an agent that needs those of the acting policy computes them, teacher-forced,
    before its first update.

    Attributes:
        observations: what was seen before each action, shape [B, T, K].
        actions: int64 [B, T].
        masks: bool [B, T, C], legal choices at each action; all True beyond the end.
        rewards: float64 [B, T].
        lengths: int64 [B], actions taken.
        encodings: the architectures.
        status: how each evaluation ended, "ok" or the failure.
        first_seen: bool [B], whether the canonical architecture is new to this run, at any fidelity.
        fidelities: int64 [B], epochs that the agent asked for; None = it left them to the environment. Only returns
            at the same fidelity can be compared.
    """

    observations: npt.NDArray[Any]
    actions: npt.NDArray[np.int64]
    masks: npt.NDArray[np.bool_]
    rewards: npt.NDArray[np.float64]
    lengths: npt.NDArray[np.int64]
    encodings: tuple[Encoding, ...]
    status: tuple[str, ...]
    first_seen: npt.NDArray[np.bool_]
    fidelities: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Return B."""
        return len(self.lengths)

    @property
    def returns(self) -> npt.NDArray[np.float64]:
        """Undiscounted return of each episode, shape [B]."""
        return self.rewards.sum(axis=1)


@dataclass(frozen=True)
class Decided:
    """One decision of an agent that knows what it thinks of the alternatives.

    Attributes:
        choice: label of what was chosen.
        values: by label, what the legal choices were worth.
    """

    choice: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Greedy:
    """The architecture that an agent thinks best.

    Attributes:
        encoding: the architecture.
        decisions: one entry a decision.
        meaning: what the values are, e.g. "Q-value".
    """

    encoding: Encoding
    decisions: tuple[Decided, ...]
    meaning: str


class Agent(ABC):
    """A search algorithm. It never loops over an environment, logs or opens a file.

    A subclass names its frozen `Config` dataclass, whose field `batch_size` says how many episodes it likes to
    play at once, and may offer published configurations as `presets`.
    """

    Config: ClassVar[type[Any]]
    presets: ClassVar[Mapping[str, Any]] = {}
    drives_itself: ClassVar[bool] = False
    """Whether it comes with a loop of its own, `drive`, as the algorithms of other libraries do."""

    def __init__(self, envs: Envs, seed: int, config: Any) -> None:  # noqa: ANN401 - an instance of Config
        """Remember the parts.

        Args:
            envs: the vector environment; its search space and its fidelities are all that may be read.
            seed: of the agent's own generator.
            config: an instance of `Config`.
        """
        self.space: SearchSpace = envs.space
        self.config = config
        self.rng = np.random.default_rng(seed)

    @abstractmethod
    def begin(self, num_envs: int) -> int:
        """Prepare a batch of episodes.

        Returns:
            How many episodes to play, at most `num_envs`; 0 = there is nothing left to try.
        """

    def fidelities(self) -> Sequence[int] | None:
        """Return the fidelity of every episode just begun, one each; None = what the environment was made with.

        The loops ask after `begin` and hand each to ``reset(options={"fidelity": ...})``. An agent that answers with
        numbers once does so always.
        """
        return None

    @abstractmethod
    def act(
        self, observations: npt.NDArray[Any], masks: npt.NDArray[np.bool_], alive: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int64]:
        """Return one action per row, int64 [B]; rows that are not alive are ignored.

        Args:
            observations: shape [B, K].
            masks: legal choices, bool [B, C].
            alive: whose episode goes on, bool [B].
        """

    @abstractmethod
    def learn(self, batch: EpisodeBatch) -> dict[str, float]:
        """Learn from finished episodes and return diagnostics."""

    def drive(
        self,
        envs: Any,  # noqa: ANN401 - a vector environment of nas-gym
        budget: int,
        seed: int,
        sinks: Sequence[Any],
        max_seconds: float | None,
    ) -> Any:  # noqa: ANN401 - RunResult, which the runner defines on top of this module
        """Search until exactly `budget` queries are used; for agents with a loop of their own.

        Raises:
            NotImplementedError: it has none.
        """
        raise NotImplementedError(f"{type(self).__name__} has no loop of its own; use nas_agents.run.")

    def policy(self) -> Agent | None:
        """Return what draws architectures from what was learnt, whether they were tried already or not.

        None where there is no such distribution, as in a search that walks on from what it has seen.
        """
        return self

    def greedy(self) -> Greedy | None:
        """Return the architecture that it thinks best now and why; None if it learns no values of decisions."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return everything that `load_state_dict` needs to continue exactly, as plain values and arrays."""
        return {"rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a value of `state_dict`."""
        self.rng.bit_generator.state = state["rng"]


class Proposer(Agent):
    """A black-box searcher: proposes whole encodings and replays them as actions.

    It thereby goes through the same environment and the same counter as an agent that decides step by step.
    """

    def __init__(self, envs: Envs, seed: int, config: Any) -> None:  # noqa: ANN401 - an instance of Config
        """Start without proposals."""
        super().__init__(envs, seed, config)
        self._proposals: Sequence[Encoding] = ()
        self._position = 0

    @abstractmethod
    def propose(self, count: int) -> list[Encoding]:
        """Return at most `count` encodings to evaluate; none = there is nothing left to try."""

    @abstractmethod
    def tell(self, encodings: Sequence[Encoding], returns: npt.NDArray[np.float64]) -> dict[str, float]:
        """Learn the returns of the proposals, in their order."""

    def policy(self) -> Agent | None:
        """Return None: proposals depend on what has been tried, unless a subclass says otherwise."""
        return None

    def begin(self, num_envs: int) -> int:
        """Ask for proposals."""
        self._proposals = self.propose(num_envs)
        self._position = 0
        return len(self._proposals)

    def act(
        self, observations: npt.NDArray[Any], masks: npt.NDArray[np.bool_], alive: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int64]:
        """Return the next decision of every proposal; 0 for those that are complete."""
        position = self._position
        self._position += 1
        return np.array([e[position] if position < len(e) else 0 for e in self._proposals], np.int64)

    def learn(self, batch: EpisodeBatch) -> dict[str, float]:
        """Pass the returns on to `tell`."""
        return self.tell(batch.encodings, batch.returns)


def make_config(agent: type[Agent], preset: str | None = None, **fields: Any) -> Any:  # noqa: ANN401 - any config
    """Return the configuration of an agent: a preset or the defaults, with `fields` on top.

    Raises:
        UnknownName: no such preset or field.
        InvalidArgument: a value that the configuration refuses.
    """
    if preset is not None and preset not in agent.presets:
        raise UnknownName(f"preset of {agent.__name__}", preset, agent.presets)
    base = agent.Config() if preset is None else agent.presets[preset]
    known = {field.name for field in dataclasses.fields(base)}
    for name in fields:
        if name not in known:
            raise UnknownName(f"argument of {agent.__name__}", name, known | {"preset"})
    try:
        return dataclasses.replace(base, **fields)
    except TypeError as error:
        raise InvalidArgument(f"the arguments {fields} of {agent.__name__} have a wrong type: {error}.") from error


def episodes_at_once(config: Any) -> int:  # noqa: ANN401 - any agent's configuration
    """Return how many sub-environments an agent of this configuration likes to have."""
    return config.num_envs if hasattr(config, "num_envs") else config.batch_size


def require(condition: bool, field: str, value: object, allowed: str) -> None:
    """Check one field of a configuration.

    Raises:
        InvalidArgument: the condition does not hold.
    """
    if not condition:
        raise InvalidArgument(f"{field} must be {allowed}, got {value!r}.")


def require_count(field: str, value: object, least: int = 1) -> None:
    """Check that a field is an integer of at least `least`.

    Raises:
        InvalidArgument: it is not.
    """
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= least
    require(fits, field, value, f"an integer of at least {least}")
