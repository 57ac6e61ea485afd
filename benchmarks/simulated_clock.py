"""Ending a run by simulated seconds, and what is reported then, as NATS-Bench's official scripts do.

Source: D-X-Y/AutoDL-Projects, ``exps/NATS-algos/*.py`` and ``exps/NATS-Bench/draw-table.py``.

Dimension letters: N queries of a run.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import nas_agents
from nas_gym.errors import InvalidArgument


class Clock(nas_agents.Sink):
    """Ends a run when the simulated clock has passed, but not before a number of queries."""

    def __init__(self, seconds: float, queries: int) -> None:
        """Start at zero.

        Args:
            seconds: that must have passed.
            queries: that must have been made.
        """
        self._seconds, self._queries = seconds, queries
        self._passed, self._made = 0.0, 0

    @property
    def wants_stop(self) -> bool:
        """Whether both have."""
        return self._passed >= self._seconds and self._made >= self._queries

    def on_episodes(self, evaluated: nas_agents.Evaluated) -> None:
        """Let the time of a batch pass."""
        self._passed += float(evaluated.cost_seconds.sum())
        self._made += len(evaluated.batch)


def at_clock(costs: npt.NDArray[np.float64], values: npt.NDArray[np.float64], seconds: float) -> tuple[int, float]:
    """Return after how many queries the clock has passed, and what is reported then, by the official rule.

    A run ends with the first query that reaches the time. The value is taken from the straight line through the two
    queries whose ends are nearest to that time, which may both lie before it.

    Args:
        costs: simulated seconds of every query, shape [N].
        values: what is reported after each, shape [N].
        seconds: of the clock.

    Raises:
        InvalidArgument: the clock is not reached.

    >>> at_clock(np.array([10.0, 10.0, 10.0]), np.array([1.0, 2.0, 4.0]), 25.0)
    (3, 3.0)
    """
    times = np.cumsum(costs)
    if not len(times) or times[-1] < seconds:
        passed = times[-1] if len(times) else 0.0
        raise InvalidArgument(
            f"{len(times)} queries take {passed:g} simulated seconds, which does not reach the clock's {seconds:g}."
        )
    ended = int(np.argmax(times >= seconds)) + 1
    times, values = times[:ended], values[:ended]
    nearest = np.argsort(np.abs(times - seconds), kind="stable")[:2]
    if len(nearest) == 1 or times[nearest[0]] == times[nearest[1]]:
        return ended, float(values[nearest[0]])
    (first, second), (value, other) = times[nearest], values[nearest]
    return ended, float(value + (seconds - first) / (second - first) * (other - value))
