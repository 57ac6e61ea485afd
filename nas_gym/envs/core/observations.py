"""What of an unfinished architecture an agent sees: the prefix, the published state, or one-hot.

Dimension letters: N rows, K features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from nas_gym.registry import Entry, Registry
from nas_gym.search_spaces.core import Encoding, Lengths, Prefixes, SearchSpace


@dataclass(frozen=True)
class Observation(ABC):
    """A view of the prefixes.

    Attributes:
        space: the search space that is observed.
    """

    space: SearchSpace

    @abstractmethod
    def observation_space(self) -> spaces.Space[Any]:
        """Return the space of a single observation."""

    @abstractmethod
    def batch(self, prefixes: Prefixes, lengths: Lengths) -> npt.NDArray[Any]:
        """Return a fresh array of observations, shape [N, K]."""

    def track_batch(self, count: int) -> BatchTracker:
        """Return an object that observes `count` episodes step by step."""
        return BatchTracker(self)

    def track(self) -> Tracker:
        """Return an object that observes one episode step by step."""
        return Tracker(self)


class Tracker:
    """Observes one episode step by step: any view, by a batch of one."""

    def __init__(self, observation: Observation) -> None:
        """Remember the view; `resume` must follow."""
        self.observation = observation
        self.prefix: Encoding = ()

    def resume(self, prefix: Encoding) -> npt.NDArray[Any]:
        """Go to a prefix and return a fresh observation of it."""
        self.prefix = prefix
        return self.observation.batch(*self.observation.space.pack([prefix]))[0]

    def push(self, choice: int) -> npt.NDArray[Any]:
        """Append a decision and return a fresh observation."""
        return self.resume((*self.prefix, choice))


class PrefixTracker(Tracker):
    """Observes the padded prefix by keeping it up, several times as fast as a batch of one."""

    def __init__(self, length: int) -> None:
        """Start with an empty prefix of at most `length` decisions."""
        self.buffer = np.zeros(length, np.int64)
        self.decided = 0

    def resume(self, prefix: Encoding) -> npt.NDArray[np.int64]:
        """Go to a prefix and return a fresh observation of it, shape [L]."""
        self.decided = len(prefix)
        self.buffer.fill(0)
        if prefix:
            self.buffer[: self.decided] = [choice + 1 for choice in prefix]
        return self.buffer.copy()

    def push(self, choice: int) -> npt.NDArray[np.int64]:
        """Append a decision and return a fresh observation, shape [L]."""
        self.buffer[self.decided] = choice + 1
        self.decided += 1
        return self.buffer.copy()


class BatchTracker:
    """Observes many episodes step by step: any view, computed anew."""

    def __init__(self, observation: Observation) -> None:
        """Remember the view."""
        self.observation = observation

    def begin(self, rows: slice | npt.NDArray[np.bool_]) -> None:
        """Note that `rows` begin anew."""

    def append(self, positions: npt.NDArray[np.int64], choices: npt.NDArray[np.int64]) -> None:
        """Note that `choices` were written to the flat `positions` of the prefixes."""

    def append_column(self, position: int, choices: npt.NDArray[np.int64]) -> None:
        """Note that every row decided `position`."""

    def resume(self, prefixes: Prefixes, lengths: Lengths) -> None:
        """Go to other prefixes."""

    def observe(self, prefixes: Prefixes, lengths: Lengths) -> npt.NDArray[Any]:
        """Return fresh observations of the prefixes, shape [N, K]."""
        return self.observation.batch(prefixes, lengths)


class PrefixBatchTracker(BatchTracker):
    """Observes padded prefixes by keeping them up."""

    def __init__(self, observation: Observation, count: int) -> None:
        """Start with empty prefixes."""
        super().__init__(observation)
        self.buffer = np.zeros((count, observation.space.max_length), np.int64)

    def begin(self, rows: slice | npt.NDArray[np.bool_]) -> None:
        """Empty `rows`."""
        self.buffer[rows] = 0

    def append(self, positions: npt.NDArray[np.int64], choices: npt.NDArray[np.int64]) -> None:
        """Write the choices plus one."""
        self.buffer.reshape(-1)[positions] = choices + 1

    def append_column(self, position: int, choices: npt.NDArray[np.int64]) -> None:
        """Write a column of choices plus one."""
        np.add(choices, 1, out=self.buffer[:, position])

    def resume(self, prefixes: Prefixes, lengths: Lengths) -> None:
        """Go to other prefixes."""
        self.buffer = self.observation.batch(prefixes, lengths)

    def observe(self, prefixes: Prefixes, lengths: Lengths) -> npt.NDArray[np.int64]:
        """Return a copy of the buffer, shape [N, L]."""
        return self.buffer.copy()


@dataclass(frozen=True)
class PrefixObservation(Observation):
    """`SearchSpace.observe`: by default the decisions so far plus one, 0 = not decided yet."""

    def observation_space(self) -> spaces.MultiDiscrete:
        """Return ``MultiDiscrete(space.observation_nvec)``."""
        return spaces.MultiDiscrete(self.space.observation_nvec)

    def batch(self, prefixes: Prefixes, lengths: Lengths) -> npt.NDArray[np.int64]:
        """Return int64 [N, K]."""
        return self.space.observe(prefixes, lengths)

    def track(self) -> Tracker:
        """Return a buffer that follows the prefix, where the space observes nothing else."""
        return PrefixTracker(self.space.max_length) if self.space.observes_prefix else super().track()

    def track_batch(self, count: int) -> BatchTracker:
        """Return a buffer that follows the prefixes, where the space observes nothing else."""
        return PrefixBatchTracker(self, count) if self.space.observes_prefix else super().track_batch(count)


@dataclass(frozen=True)
class StatesObservation(Observation):
    """`SearchSpace.states`: the state of the published agent."""

    def observation_space(self) -> spaces.MultiDiscrete:
        """Return ``MultiDiscrete(space.states_nvec)``."""
        return spaces.MultiDiscrete(self.space.states_nvec)

    def batch(self, prefixes: Prefixes, lengths: Lengths) -> npt.NDArray[np.int64]:
        """Return int64 [N, K]."""
        return self.space.states(prefixes, lengths)


@dataclass(frozen=True)
class OneHotObservation(Observation):
    """The content of `PrefixObservation` as one flat vector of zeros and ones."""

    def observation_space(self) -> spaces.Box:
        """Return a float32 box of the summed feature sizes."""
        return spaces.Box(0.0, 1.0, (int(self.space.observation_nvec.sum()),), np.float32)

    def batch(self, prefixes: Prefixes, lengths: Lengths) -> npt.NDArray[np.float32]:
        """Return float32 [N, sum of the feature sizes]."""
        features = self.space.observe(prefixes, lengths)
        sizes = self.space.observation_nvec
        result = np.zeros((len(features), int(sizes.sum())), np.float32)
        columns = features + (np.cumsum(sizes) - sizes)
        np.put_along_axis(result, columns, 1.0, axis=1)
        return result


_HERE = "nas_gym.envs.core.observations"

OBSERVATIONS = Registry(
    "observation",
    {
        "prefix": Entry(f"{_HERE}:PrefixObservation", "decisions so far, MultiDiscrete"),
        "states": Entry(f"{_HERE}:StatesObservation", "the published agent's state, MultiDiscrete"),
        "one_hot": Entry(f"{_HERE}:OneHotObservation", "decisions so far, flat float32 Box"),
    },
)
"""Observations by the name that the argument `observation` takes."""
