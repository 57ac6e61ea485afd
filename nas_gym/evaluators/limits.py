"""What a network may cost; one over a limit is never trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nas_gym.errors import InvalidArgument

_METRICS = {
    "max_parameters": ("parameters", 1.0, ""),
    "max_multiply_adds": ("multiply_adds", 1.0, ""),
    "max_memory_mb": ("training_memory_bytes", 1e6, " in MB"),
    "max_latency_ms": ("latency_seconds", 1e-3, " in ms"),
}
"""The metric that a limit bounds, the limit's unit in that of the metric, and how messages name it."""


@dataclass(frozen=True)
class Limits:
    """Bounds on a child network; None = no bound.

    Attributes:
        max_train_seconds: wall seconds of one training, validation included; a slower one is stopped (`timeout`).
        max_parameters: trainable parameters.
        max_multiply_adds: multiply-adds of one image.
        max_memory_mb: estimated memory of the training in MB: weights, gradients, optimiser and activations.
        max_latency_ms: measured latency of one batch in milliseconds.
    """

    max_train_seconds: float | None = None
    max_parameters: float | None = None
    max_multiply_adds: float | None = None
    max_memory_mb: float | None = None
    max_latency_ms: float | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidArgument: a limit that is not positive.
        """
        for name, value in asdict(self).items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if value is not None and not (number and 0 < value < math.inf):
                raise InvalidArgument(f"{name} must be a positive number or None, got {value!r}.")

    @property
    def deadline_seconds(self) -> float:
        """`max_train_seconds`, infinite without one."""
        return math.inf if self.max_train_seconds is None else self.max_train_seconds

    def exceeded(self, measured: Mapping[str, float]) -> str:
        """Return which limit is exceeded, with metric, value and limit; empty when none is.

        Args:
            measured: values by metric; a limit whose metric is missing is not checked.

        >>> Limits(max_parameters=1e6).exceeded({"parameters": 2e6})
        'parameters is 2,000,000, over the limit max_parameters = 1,000,000'
        """
        found = []
        for name, (metric, unit, shown) in _METRICS.items():
            limit = getattr(self, name)
            if limit is not None and metric in measured and measured[metric] > limit * unit:
                value = measured[metric] / unit
                found.append(f"{metric}{shown} is {_text(value)}, over the limit {name} = {_text(limit)}")
        return "; ".join(found)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def _text(value: float) -> str:
    """Return large numbers to the unit, small ones to six digits."""
    return f"{value:,.0f}" if value >= 1e5 else f"{value:,.6g}"
