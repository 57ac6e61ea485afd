"""Baselines that a policy gradient subtracts from its returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt


class MovingAverage:
    """Exponential moving average of past returns, and of their squared distance from it.

    Both are bias-corrected, so that the first batch counts fully. Before any return the mean is that of the batch
    it is asked about.
    """

    def __init__(self, decay: float) -> None:
        """Start without memory.

        Args:
            decay: weight of the past at every update, in [0, 1).
        """
        self.decay = decay
        self._weight = 0.0
        self._mean = 0.0
        self._variance = 0.0

    def mean(self, returns: npt.NDArray[np.float64]) -> float:
        """Return the average of past returns, or the mean of `returns` where there is no past."""
        return self._mean / self._weight if self._weight else float(returns.mean())

    def deviation(self, returns: npt.NDArray[np.float64]) -> float:
        """Return the standard deviation of past returns around their average, or that of `returns`."""
        return float(np.sqrt(self._variance / self._weight)) if self._weight else float(returns.std())

    def update(self, returns: npt.NDArray[np.float64]) -> None:
        """Take a batch of returns into the past."""
        centre = self.mean(returns)
        self._weight = self.decay * self._weight + (1 - self.decay)
        self._mean = self.decay * self._mean + (1 - self.decay) * float(returns.mean())
        spread = float(((returns - centre) ** 2).mean())
        self._variance = self.decay * self._variance + (1 - self.decay) * spread

    def state_dict(self) -> dict[str, float]:
        """Return the memory."""
        return {"weight": self._weight, "mean": self._mean, "variance": self._variance}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a value of `state_dict`."""
        self._weight, self._mean, self._variance = state["weight"], state["mean"], state["variance"]
