"""Counting what a search costs, below any training loop."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas_gym.errors import BudgetExhausted, InvalidArgument
from nas_gym.search_spaces.core import Encoding, Lengths, Prefixes, SearchSpace

REPEAT_QUERIES = ("cache+charge", "resample+charge", "cache+free")
"""What a repeated query gives and costs: its first answer or a new one, charged or free."""


@dataclass(frozen=True)
class Usage:
    """A snapshot of a counter.

    Attributes:
        environment_steps: actions taken, over all sub-environments.
        queries: charged queries.
        unique_architectures: distinct canonical architectures among them.
        simulated_seconds: summed cost of the charged queries.
        real_seconds: since the counter was made or reset.
    """

    environment_steps: int
    queries: int
    unique_architectures: int
    simulated_seconds: float
    real_seconds: float


class Counter:
    """Counts steps, queries, unique canonical architectures and seconds, and guards a budget of queries.

    Every finished episode is one query, failed and invalid ones included. The budget is exact: of a batch that
    crosses it only the first rows are admitted.
    """

    def __init__(self, space: SearchSpace, budget: int | None = None, repeat_query: str = "cache+charge") -> None:
        """Start at zero.

        Args:
            space: the search space, which knows what is isomorphic.
            budget: largest number of charged queries; None = unlimited.
            repeat_query: one of `REPEAT_QUERIES`.

        Raises:
            InvalidArgument: unknown `repeat_query`, or a budget below 1.
        """
        if repeat_query not in REPEAT_QUERIES:
            raise InvalidArgument(f"repeat_query must be one of {', '.join(REPEAT_QUERIES)}, got {repeat_query!r}.")
        self.space = space
        self.repeat_query = repeat_query
        self.repeats_are_free = repeat_query == "cache+free"
        self.budget = budget
        self.reset()

    @property
    def budget(self) -> int | None:
        """Largest number of charged queries, None = unlimited."""
        return self._budget

    @budget.setter
    def budget(self, budget: int | None) -> None:
        if budget is not None and budget < 1:
            raise InvalidArgument(f"budget must be at least 1 query, got {budget}.")
        self._budget = budget

    def reset(self) -> None:
        """Set all counts to zero; the budget stays."""
        self.environment_steps = 0
        self.queries = 0
        self.simulated_seconds = 0.0
        self._seen: set[Hashable] = set()
        self._pending: list[tuple[Prefixes, Lengths]] = []
        self._pending_single: list[Encoding] = []
        self._started = time.perf_counter()

    @property
    def remaining(self) -> int | None:
        """Queries left, None = unlimited."""
        return None if self._budget is None else max(self._budget - self.queries, 0)

    def admit(self, prefixes: Prefixes, lengths: Lengths, invalid: npt.NDArray[np.bool_]) -> int:
        """Return how many of the first rows fit into the budget.

        Args:
            prefixes: finished episodes, shape [N, L].
            lengths: their lengths, shape [N].
            invalid: which of them ended with an illegal action, shape [N].

        Raises:
            BudgetExhausted: none fits.
        """
        if self._budget is None:
            return len(lengths)
        remaining = self._budget - self.queries
        if not self.repeats_are_free:
            admitted = min(remaining, len(lengths))
        else:
            charged = self._charged(prefixes, lengths, invalid)
            admitted = int(np.searchsorted(np.cumsum(charged), remaining, side="right"))
        if admitted == 0 and len(lengths):
            raise BudgetExhausted(f"the budget of {self._budget} queries is used up.")
        return admitted

    def admit_one(self, encoding: Encoding, invalid: bool = False) -> None:
        """Check that one more query fits into the budget.

        Raises:
            BudgetExhausted: it does not.
        """
        if self._budget is not None and (self.repeats_are_free or self.queries >= self._budget):
            self.admit(*self.space.pack([encoding]), np.array([invalid]))

    def _charged(
        self, prefixes: Prefixes, lengths: Lengths, invalid: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        """Return which rows cost a query where repeats are free: invalid ones and new architectures, shape [N]."""
        self._merge()
        charged = invalid.copy()
        fresh = set[Hashable]()
        valid = np.flatnonzero(~invalid)
        for row, key in zip(valid, self.space.canonical_keys(prefixes[valid], lengths[valid]), strict=True):
            charged[row] = key not in self._seen and key not in fresh
            fresh.add(key)
        return charged

    def record(
        self,
        prefixes: Prefixes,
        lengths: Lengths,
        invalid: npt.NDArray[np.bool_],
        cost_seconds: npt.NDArray[np.float64],
    ) -> None:
        """Count admitted queries; the arrays must not change afterwards."""
        if self.repeats_are_free:
            charged = self._charged(prefixes, lengths, invalid)
            self.queries += int(charged.sum())
            self.simulated_seconds += float(cost_seconds[charged].sum())
        else:
            self.queries += len(lengths)
            self.simulated_seconds += float(cost_seconds.sum())
        if invalid.any():
            prefixes, lengths = prefixes[~invalid], lengths[~invalid]
        self._pending.append((prefixes, lengths))
        if len(self._pending) > 1000:
            self._merge()

    def record_one(self, encoding: Encoding, cost_seconds: float, invalid: bool = False) -> None:
        """Count one admitted query."""
        if self.repeats_are_free:
            self.record(*self.space.pack([encoding]), np.array([invalid]), np.array([cost_seconds]))
            return
        self.queries += 1
        self.simulated_seconds += cost_seconds
        if not invalid:
            self._pending_single.append(encoding)
            if len(self._pending_single) > 10_000:
                self._merge()

    def _merge(self) -> None:
        """Canonicalise what was recorded since the last time; done in bulk because it is costly one by one."""
        if self._pending_single:
            self._pending.append(self.space.pack(self._pending_single))
            self._pending_single = []
        for prefixes, lengths in self._pending:
            self._seen.update(self.space.canonical_keys(prefixes, lengths))
        self._pending = []

    @property
    def unique_architectures(self) -> int:
        """Distinct canonical architectures among the queries."""
        self._merge()
        return len(self._seen)

    def first_seen(self, encodings: Sequence[Encoding]) -> npt.NDArray[np.bool_]:
        """Return which of `encodings` (not recorded yet) would be new canonical architectures, shape [N]."""
        return self._charged(*self.space.pack(encodings), np.zeros(len(encodings), np.bool_))

    def usage(self) -> Usage:
        """Return a snapshot."""
        return Usage(
            self.environment_steps,
            self.queries,
            self.unique_architectures,
            self.simulated_seconds,
            time.perf_counter() - self._started,
        )
