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
from nas_gym.search_spaces.core import Lengths, Prefixes, SearchSpace


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


@dataclass(frozen=True)
class PrefixObservation(Observation):
    """`SearchSpace.observe`: by default the decisions so far plus one, 0 = not decided yet."""

    def observation_space(self) -> spaces.MultiDiscrete:
        """Return ``MultiDiscrete(space.observation_nvec)``."""
        return spaces.MultiDiscrete(self.space.observation_nvec)

    def batch(self, prefixes: Prefixes, lengths: Lengths) -> npt.NDArray[np.int64]:
        """Return int64 [N, K]."""
        return self.space.observe(prefixes, lengths)


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
