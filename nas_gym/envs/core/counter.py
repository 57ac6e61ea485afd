"""Counting what a search costs, below any training loop."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_gym.errors import BudgetExhausted, InvalidArgument
from nas_gym.search_spaces.core import Batch, Encoding, SearchSpace

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


Fidelities = npt.NDArray[np.int64] | None
"""Fidelity of every row of a batch, -1 = the default; None = the default of all."""

_DEFAULT = -1


def _column(fidelity: int | None) -> Fidelities:
    return None if fidelity is None else np.array([fidelity], np.int64)


class _SparseSet:
    """Canonical architectures seen, in a set of codes."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.codes: set[int] = set()

    def __len__(self) -> int:
        return len(self.codes)

    def add(self, batch: Batch) -> None:
        self.codes.update(self.space.canonical_codes(batch).tolist())

    def unseen(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """Return which rows are the first of their class, shape [N]."""
        codes = self.space.canonical_codes(batch)
        first = np.zeros(len(codes), np.bool_)
        first[np.unique(codes, return_index=True)[1]] = True
        return first & ~self._contains(codes)

    def _contains(self, codes: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        return np.array([code in self.codes for code in codes.tolist()], np.bool_)


class _DenseSet(_SparseSet):
    """Canonical architectures seen, as a bit an architecture of a dense space."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.bits = np.zeros(space.size() or 0, np.bool_)

    def __len__(self) -> int:
        return int(self.bits.sum())

    def add(self, batch: Batch) -> None:
        self.bits[self.space.canonical_codes(batch)] = True

    def _contains(self, codes: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        return self.bits[codes]


class Counter:
    """Counts steps, queries, unique canonical architectures and seconds, and guards a budget of queries.

    Every finished episode is one query, failed and invalid ones included. The budget is exact: of a batch that
    crosses it only the first rows are admitted.
    """

    def __init__(
        self,
        space: SearchSpace,
        budget: int | None = None,
        repeat_query: str = "cache+charge",
        highest_fidelity: int | None = None,
    ) -> None:
        """Start at zero.

        Args:
            space: the search space, which knows what is isomorphic.
            budget: largest number of charged queries; None = unlimited.
            repeat_query: one of `REPEAT_QUERIES`.
            highest_fidelity: of the evaluator, which is the fidelity of queries that name none.

        Raises:
            InvalidArgument: unknown `repeat_query`, or a budget below 1.
        """
        if repeat_query not in REPEAT_QUERIES:
            raise InvalidArgument(f"repeat_query must be one of {', '.join(REPEAT_QUERIES)}, got {repeat_query!r}.")
        self.space = space
        self.repeat_query = repeat_query
        self.highest_fidelity = highest_fidelity
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
        self._seen = self._nothing()
        self._paid: dict[int, _SparseSet] = {}
        self._pending: list[Encoding] = []
        self._started = time.perf_counter()

    def _by_fidelity(
        self, rows: npt.NDArray[np.bool_], fidelities: Fidelities
    ) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """Iterate over the fidelities of some rows, with the rows of each."""
        if fidelities is None:
            yield _DEFAULT, np.flatnonzero(rows)
            return
        named = np.where(fidelities == self.highest_fidelity, _DEFAULT, fidelities)
        for fidelity in np.unique(named[rows]).tolist():
            yield fidelity, np.flatnonzero(rows & (named == fidelity))

    def _nothing(self) -> _SparseSet:
        return _DenseSet(self.space) if self.space.dense else _SparseSet(self.space)

    @property
    def remaining(self) -> int | None:
        """Queries left, None = unlimited."""
        return None if self._budget is None else max(self._budget - self.queries, 0)

    def admit(self, batch: Batch, invalid: npt.NDArray[np.bool_], fidelities: Fidelities = None) -> int:
        """Return how many of the first rows fit into the budget.

        Args:
            batch: finished episodes, N rows.
            invalid: which of them ended with an illegal action, shape [N].
            fidelities: of the queries, shape [N]; None = the default of all.

        Raises:
            BudgetExhausted: none fits.
        """
        remaining = self.remaining
        if remaining is None:
            return len(batch)
        if not self.repeats_are_free:
            admitted = min(remaining, len(batch))
        else:
            charged = self._charged(batch, invalid, fidelities)
            admitted = int(np.searchsorted(np.cumsum(charged), remaining, side="right"))
        if admitted == 0 and len(batch):
            raise BudgetExhausted(f"the budget of {self._budget} queries is used up.")
        return admitted

    def admit_one(self, encoding: Encoding, invalid: bool = False, fidelity: int | None = None) -> None:
        """Check that one more query fits into the budget.

        Raises:
            BudgetExhausted: it does not.
        """
        if self._budget is not None and (self.repeats_are_free or self.queries >= self._budget):
            self.admit(Batch.of(self.space, [encoding]), np.array([invalid]), _column(fidelity))

    def _charged(self, batch: Batch, invalid: npt.NDArray[np.bool_], fidelities: Fidelities) -> npt.NDArray[np.bool_]:
        """Return which rows cost a query where repeats are free, shape [N].

        Invalid ones do, and architectures that are new at their fidelity: a longer training is another query.
        """
        charged = invalid.copy()
        for fidelity, rows in self._by_fidelity(~invalid, fidelities):
            charged[rows] = self._paid.setdefault(fidelity, self._nothing()).unseen(batch.select(rows))
        return charged

    def record(
        self,
        batch: Batch,
        invalid: npt.NDArray[np.bool_],
        cost_seconds: npt.NDArray[np.float64],
        fidelities: Fidelities = None,
    ) -> None:
        """Count admitted queries; arguments as those of `admit`."""
        if self.repeats_are_free:
            charged = self._charged(batch, invalid, fidelities)
            for fidelity, rows in self._by_fidelity(~invalid, fidelities):
                self._paid[fidelity].add(batch.select(rows))
            self.queries += int(charged.sum())
            self.simulated_seconds += float(cost_seconds[charged].sum())
        else:
            self.queries += len(batch)
            self.simulated_seconds += float(cost_seconds.sum())
        self._seen.add(batch.select(~invalid) if invalid.any() else batch)

    def record_one(
        self, encoding: Encoding, cost_seconds: float, invalid: bool = False, fidelity: int | None = None
    ) -> None:
        """Count one admitted query."""
        if self.repeats_are_free:
            batch = Batch.of(self.space, [encoding])
            self.record(batch, np.array([invalid]), np.array([cost_seconds]), _column(fidelity))
            return
        self.queries += 1
        self.simulated_seconds += cost_seconds
        if not invalid:
            self._pending.append(encoding)
            if len(self._pending) >= 1000:
                self._merge()

    def _merge(self) -> None:
        """Note the single queries as seen; in bulk, because finding representatives one by one is slow."""
        if self._pending:
            self._seen.add(Batch.of(self.space, self._pending))
            self._pending = []

    @property
    def unique_architectures(self) -> int:
        """Distinct canonical architectures among the queries."""
        self._merge()
        return len(self._seen)

    def first_seen(self, encodings: Sequence[Encoding]) -> npt.NDArray[np.bool_]:
        """Return which of `encodings` (not recorded yet) would be new canonical architectures, shape [N]."""
        self._merge()
        return self._seen.unseen(Batch.of(self.space, encodings))

    def usage(self) -> Usage:
        """Return a snapshot."""
        return Usage(
            self.environment_steps,
            self.queries,
            self.unique_architectures,
            self.simulated_seconds,
            time.perf_counter() - self._started,
        )
