"""Random search: the baseline that a search algorithm has to beat.

Sources: Bergstra & Bengio, JMLR 2012; Li & Talwalkar, UAI 2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nas_gym.search_spaces.core import Encoding

from .core.base import Agent, Envs, Proposer, require, require_count

_LARGEST_SHUFFLE = 1_000_000
_REJECTIONS = 10_000


@dataclass(frozen=True)
class RandomSearchConfig:
    """Settings of `RandomSearch`.

    Attributes:
        replacement: whether an encoding may be drawn again.
        batch_size: episodes at once; of no influence on the result.
    """

    replacement: bool = True
    batch_size: int = 50

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidArgument: a value outside its range.
        """
        require(isinstance(self.replacement, bool), "replacement", self.replacement, "true or false")
        require_count("batch_size", self.batch_size)


class RandomSearch(Proposer):
    """Draws architectures by a uniform choice at every decision, with or without replacement.

    Without replacement, small spaces are shuffled, so every encoding comes exactly once; in large ones repeats are
    rejected, and the search ends when none of 10,000 draws is new.
    """

    Config: ClassVar[type[RandomSearchConfig]] = RandomSearchConfig

    def __init__(self, envs: Envs, seed: int, config: RandomSearchConfig) -> None:
        """Start with nothing drawn."""
        super().__init__(envs, seed, config)
        self._drawn: set[Encoding] = set()
        self._left: list[Encoding] | None = None

    def propose(self, count: int) -> list[Encoding]:
        """Draw encodings."""
        if self.config.replacement:
            return [self.space.sample(self.rng) for _ in range(count)]
        size = self.space.size()
        if size is not None and size <= _LARGEST_SHUFFLE:
            return self._shuffled(count)
        fresh = (self._fresh() for _ in range(count))
        return [encoding for encoding in fresh if encoding is not None]

    def _shuffled(self, count: int) -> list[Encoding]:
        if self._left is None:
            encodings = [encoding for encoding in self.space.enumerate() if encoding not in self._drawn]
            self._left = [encodings[index] for index in self.rng.permutation(len(encodings))]
        taken = [self._left.pop() for _ in range(min(count, len(self._left)))]
        self._drawn.update(taken)
        return taken

    def _fresh(self) -> Encoding | None:
        for _ in range(_REJECTIONS):
            encoding = self.space.sample(self.rng)
            if encoding not in self._drawn:
                self._drawn.add(encoding)
                return encoding
        return None

    def policy(self) -> Agent:
        """Return the agent, whose draws follow from no result."""
        return self

    def tell(self, encodings: Sequence[Encoding], returns: npt.NDArray[np.float64]) -> dict[str, float]:
        """Learn nothing but, without replacement, what need not be drawn again."""
        if not self.config.replacement:
            # A resumed search is told of encodings that this process has not drawn.
            strangers = set(encodings) - self._drawn
            self._drawn |= strangers
            if strangers and self._left is not None:
                self._left = [encoding for encoding in self._left if encoding not in strangers]
        return {"return_mean": float(returns.mean())}

    def state_dict(self) -> dict[str, Any]:
        """Return the generator and what was drawn, in the order in which the rest is to come."""
        return {**super().state_dict(), "drawn": sorted(self._drawn), "left": self._left}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a value of `state_dict`."""
        super().load_state_dict(state)
        self._drawn = {tuple(encoding) for encoding in state["drawn"]}
        left = state["left"]
        self._left = None if left is None else [tuple(encoding) for encoding in left]
