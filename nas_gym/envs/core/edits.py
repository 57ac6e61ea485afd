"""Changing one decision of a complete architecture: how edits are numbered, masked and observed.

Dimension letters: N rows, L = `space.max_length` slots, E edits = sum of the slots' choices, K features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from nas_gym.registry import Entry, Registry
from nas_gym.search_spaces.core import Encoding, FixedSlotSpace, Prefixes

STOP = 0
"""The action that ends a search; edits are the actions from 1."""


@dataclass(frozen=True)
class Edits:
    """The edits of a space whose slots can be changed one by one: a stop, then slot by slot, choice by choice.

    Attributes:
        space: what is edited.
    """

    space: FixedSlotSpace

    @cached_property
    def count(self) -> int:
        """Number of edits E, the stop not counted."""
        return sum(self.space.arities)

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(slot, choice) of every edit, E of them; that of action ``a`` is ``pairs[a - 1]``."""
        return tuple((slot, choice) for slot, arity in enumerate(self.space.arities) for choice in range(arity))

    @cached_property
    def _pairs(self) -> npt.NDArray[np.int64]:
        return np.array(self.pairs, np.int64)

    @cached_property
    def _first_actions(self) -> npt.NDArray[np.int64]:
        """Action that puts the first choice into a slot, shape [L]."""
        return np.cumsum([1, *self.space.arities[:-1]])

    def slots(self, actions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the slot of every edit, shape [N]."""
        return self._pairs[actions - 1, 0]

    def apply(self, architectures: Prefixes, actions: npt.NDArray[np.int64]) -> Prefixes:
        """Return architectures after an edit each, shape [N, L].

        Args:
            architectures: complete, shape [N, L].
            actions: edits, none of them a stop, shape [N].
        """
        edited = architectures.copy()
        slots, choices = self._pairs[actions - 1].T
        edited[np.arange(len(edited)), slots] = choices
        return edited

    @property
    def labels(self) -> tuple[str, ...]:
        """What every action does, in words, E + 1 of them."""
        named = (f"slot {slot}: {self.space.slots[slot].labels[choice]}" for slot, choice in self.pairs)
        return ("stop", *named)

    def masks(self, architectures: Prefixes) -> npt.NDArray[np.bool_]:
        """Return the legal actions, shape [N, E + 1]: the stop, and every edit that changes something.

        Args:
            architectures: complete, shape [N, L].
        """
        masks = np.ones((len(architectures), self.count + 1), np.bool_)
        np.put_along_axis(masks, architectures + self._first_actions, False, axis=1)
        return masks

    def mask(self, architecture: Encoding) -> npt.NDArray[np.bool_]:
        """Return the legal actions for one architecture, shape [E + 1]."""
        mask = np.ones(self.count + 1, np.bool_)
        mask[self._first_actions + architecture] = False
        return mask


@dataclass(frozen=True, eq=False)
class Progress:
    """What can be seen of N searches.

    Attributes:
        current: architectures that are edited, int64 [N, L].
        incumbents: best architectures so far, int64 [N, L].
        edits_left: until truncation, int64 [N].
        behind: reward of the current architecture minus that of the incumbent, at most 0, float64 [N].
        gained: reward of the incumbent minus that of the start, at least 0, float64 [N].
    """

    current: Prefixes
    incumbents: Prefixes
    edits_left: npt.NDArray[np.int64]
    behind: npt.NDArray[np.float64]
    gained: npt.NDArray[np.float64]


_SMALLEST_DIFFERENCE = 0.001
_LARGEST_DIFFERENCE = 1_000.0


def compressed(differences: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return differences of rewards on a logarithmic scale from -1 to 1, where 0.001, 0.01, 0.1 and 1 all differ.

    >>> compressed(np.array([0.0, 0.001, -0.01, 0.1, 1.0, 1e9])).round(2).tolist()
    [0.0, 0.05, -0.17, 0.33, 0.5, 1.0]
    """
    sizes = np.minimum(np.abs(differences), _LARGEST_DIFFERENCE)
    scale = np.log1p(_LARGEST_DIFFERENCE / _SMALLEST_DIFFERENCE)
    return np.sign(differences) * np.log1p(sizes / _SMALLEST_DIFFERENCE) / scale


@dataclass(frozen=True)
class EditObservation(ABC):
    """A view of a search that edits.

    Attributes:
        space: what is edited.
        horizon: edits of an episode.
    """

    space: FixedSlotSpace
    horizon: int

    @abstractmethod
    def observation_space(self) -> spaces.Space[Any]:
        """Return the space of a single observation."""

    @abstractmethod
    def batch(self, progress: Progress) -> npt.NDArray[Any]:
        """Return a fresh array of observations, shape [N, K]."""

    @property
    def _sizes(self) -> npt.NDArray[np.int64]:
        """Number of values of every discrete feature: current architecture, incumbent, edits left."""
        return np.array([*self.space.arities, *self.space.arities, self.horizon + 1], np.int64)

    def _features(self, progress: Progress) -> npt.NDArray[np.int64]:
        return np.concatenate([progress.current, progress.incumbents, progress.edits_left[:, None]], axis=1)


@dataclass(frozen=True)
class ArchitecturesObservation(EditObservation):
    """Choices of the current architecture and of the incumbent, edits left; no rewards."""

    def observation_space(self) -> spaces.MultiDiscrete:
        """Return ``MultiDiscrete`` of the arities, twice, and the horizon plus one."""
        return spaces.MultiDiscrete(self._sizes)

    def batch(self, progress: Progress) -> npt.NDArray[np.int64]:
        """Return int64 [N, 2 L + 1]."""
        return self._features(progress)


@dataclass(frozen=True)
class CurrentObservation(EditObservation):
    """Choices of the current architecture alone."""

    def observation_space(self) -> spaces.MultiDiscrete:
        """Return ``MultiDiscrete`` of the arities."""
        return spaces.MultiDiscrete(np.array(self.space.arities, np.int64))

    def batch(self, progress: Progress) -> npt.NDArray[np.int64]:
        """Return int64 [N, L]."""
        return progress.current.copy()


@dataclass(frozen=True)
class FlatArchitecturesObservation(EditObservation):
    """The content of `ArchitecturesObservation` as one flat vector of zeros and ones."""

    def observation_space(self) -> spaces.Box:
        """Return a float32 box of the summed feature sizes."""
        return spaces.Box(0.0, 1.0, (int(self._sizes.sum()),), np.float32)

    def batch(self, progress: Progress) -> npt.NDArray[np.float32]:
        """Return float32 [N, sum of the feature sizes]."""
        result = np.zeros((len(progress.current), int(self._sizes.sum())), np.float32)
        np.put_along_axis(result, self._features(progress) + (np.cumsum(self._sizes) - self._sizes), 1.0, axis=1)
        return result


@dataclass(frozen=True)
class FeedbackObservation(EditObservation):
    """One-hot current architecture and incumbent, share of edits left, and two differences of rewards.

    The differences, current minus incumbent and incumbent minus start, mean the same in every task, which rewards
    themselves do not; they are `compressed`, since what matters ranges from the noise of a table to whole accuracies.
    """

    def observation_space(self) -> spaces.Box:
        """Return a float32 box: zeros and ones, the share, the two differences."""
        choices = 2 * sum(self.space.arities)
        low = np.array([*[0.0] * (choices + 1), -1.0, 0.0], np.float32)
        high = np.array([*[1.0] * (choices + 1), 0.0, 1.0], np.float32)
        return spaces.Box(low, high, dtype=np.float32)

    def batch(self, progress: Progress) -> npt.NDArray[np.float32]:
        """Return float32 [N, 2 E + 3]."""
        choices = 2 * sum(self.space.arities)
        result = np.zeros((len(progress.current), choices + 3), np.float32)
        sizes = self._sizes[:-1]
        chosen = np.concatenate([progress.current, progress.incumbents], axis=1)
        np.put_along_axis(result, chosen + (np.cumsum(sizes) - sizes), 1.0, axis=1)
        result[:, choices] = progress.edits_left / self.horizon
        result[:, choices + 1] = compressed(progress.behind)
        result[:, choices + 2] = compressed(progress.gained)
        return result


_HERE = "nas_gym.envs.core.edits"

EDIT_OBSERVATIONS = Registry(
    "observation",
    {
        "feedback": Entry(f"{_HERE}:FeedbackObservation", "architectures and what edits brought, flat float32 Box"),
        "prefix": Entry(f"{_HERE}:ArchitecturesObservation", "current architecture, incumbent, edits left"),
        "states": Entry(f"{_HERE}:CurrentObservation", "current architecture alone, MultiDiscrete"),
        "one_hot": Entry(f"{_HERE}:FlatArchitecturesObservation", "as prefix, flat float32 Box"),
    },
)
"""Observations of searches that edit, by the name that the argument `observation` takes."""
