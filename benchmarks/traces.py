"""What a run queried, collected while it runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nas_agents import Evaluated, Sink
from nas_gym.search_spaces.core import Encoding

from .metrics import Trace, incumbents


class Returns(Sink):
    """Keeps the return of every episode.

    Attributes:
        values: in order.
    """

    def __init__(self) -> None:
        """Start with none."""
        self.values: list[float] = []

    def on_episodes(self, evaluated: Evaluated) -> None:
        """Append those of a batch."""
        self.values += evaluated.batch.returns.tolist()


class TraceRecorder(Sink):
    """Keeps what the score of a run needs of every query; the held-out values are looked up at its end only."""

    def __init__(self) -> None:
        """Start with no query."""
        self._returns: list[float] = []
        self._encodings: list[Encoding] = []
        self._status: list[str] = []
        self._fidelities: list[int] = []

    def on_episodes(self, evaluated: Evaluated) -> None:
        """Append the queries of a batch."""
        batch = evaluated.batch
        self._returns += batch.returns.tolist()
        self._encodings += batch.encodings
        self._status += batch.status
        if batch.fidelities is not None:
            self._fidelities += batch.fidelities.tolist()

    def trace(self, envs: Any, exhausted: bool = False) -> Trace:  # noqa: ANN401 - a vector environment of nas-gym
        """Return what was queried; the signal is the reward, NaN where the query failed.

        Args:
            envs: the environments of the run, whose evaluator reports the incumbents.
            exhausted: whether the agent had nothing left to try (`RunResult.reason`).

        Raises:
            InvalidArgument: nothing was queried.
        """
        signal = np.where([status == "ok" for status in self._status], self._returns, np.nan)
        fidelities = np.array(self._fidelities, np.int64) if self._fidelities else None
        return Trace(signal, self._held_out(envs, signal, fidelities), self._codes(envs), fidelities, exhausted)

    def _held_out(
        self,
        envs: Any,  # noqa: ANN401
        signal: npt.NDArray[np.float64],
        fidelities: npt.NDArray[np.int64] | None,
    ) -> npt.NDArray[np.float64]:
        """Return the reported value of every incumbent, higher = better; NaN for all other queries."""
        metric = envs.evaluator.reported_metric
        sign = 1.0 if envs.evaluator.metrics[metric].direction == "maximize" else -1.0
        values = np.full(len(signal), np.nan)
        standing = np.unique(incumbents(signal, fidelities))
        for query in standing[standing >= 0].tolist():
            values[query] = sign * envs.evaluator.report(self._encodings[query])[metric]
        return values

    def _codes(self, envs: Any) -> npt.NDArray[Any]:  # noqa: ANN401
        """Return the code of every canonical architecture, -1 where an illegal action left none."""
        space = envs.space
        codes = [
            -1 if status == "invalid_action" else space.code(space.canonical(encoding))
            for encoding, status in zip(self._encodings, self._status, strict=True)
        ]
        fits = max(codes, default=0) < 1 << 63
        return np.array(codes, np.int64 if fits else object)
