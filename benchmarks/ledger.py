"""What a run queried and what each query cost, told by the runner or, below any other loop, by the environment."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_agents import Evaluated
from nas_gym.envs.core.base import Answered

from .metrics import Trace
from .traces import TraceRecorder


class Ledger(TraceRecorder):
    """Keeps every query of a run in order; a sink of `nas_agents.run`, or a listener of an environment's problem."""

    def __init__(self) -> None:
        """Start with no query."""
        super().__init__()
        self._costs: list[float] = []

    def __len__(self) -> int:
        """Return the number of queries."""
        return len(self._costs)

    def on_episodes(self, evaluated: Evaluated) -> None:
        """Append the queries of a batch of one of our agents."""
        super().on_episodes(evaluated)
        self._costs += evaluated.cost_seconds.tolist()

    def on_answered(self, answered: Answered) -> None:
        """Append queries that some other loop made."""
        self._encodings += [tuple(encoding) for encoding in answered.encodings]
        self._status += [str(label) for label in answered.status]
        self._returns += np.asarray(answered.rewards, np.float64).tolist()
        self._costs += np.asarray(answered.cost_seconds, np.float64).tolist()

    def encoding(self, query: int) -> tuple[int, ...]:
        """Return what a query built; queries are counted from 0."""
        return tuple(int(choice) for choice in self._encodings[query])

    def costs(self, trace: Trace) -> npt.NDArray[np.float64]:
        """Return the simulated seconds of the queries of a trace, shape [N]."""
        return np.array(self._costs)[: len(trace.signal)]


def changes_of_incumbent(trace: Trace) -> list[list[Any]]:
    """Return [query from 1, signal, held-out value] of every query that became the incumbent, in order."""
    standing = trace.incumbents()
    became = np.unique(standing[standing >= 0]).tolist()
    return [[query + 1, float(trace.signal[query]), float(trace.held_out[query])] for query in became]


def makespan(costs: Iterable[float], workers: int) -> float:
    """Return how long queries take on several workers: each goes, in order, to the one that is free first.

    List scheduling (Graham 1969). A method that waits for one answer before it asks again would not be as fast; this
    is what it could gain at most.

    >>> makespan([3.0, 1.0, 1.0, 2.0], 2)
    4.0
    """
    busy_until = [0.0] * workers
    for cost in costs:
        heapq.heapreplace(busy_until, busy_until[0] + cost)
    return max(busy_until)
