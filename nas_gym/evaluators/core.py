"""What an evaluator is: encodings in, metrics out, always in columns; failures are data.

Dimension letters: N queries.
"""

from __future__ import annotations

import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nas_gym.errors import FidelityError, InvalidArgument, UnknownName
from nas_gym.search_spaces.core import Batch, Encoding, SearchSpace


class Status(IntEnum):
    """How a query ended. Everything but `OK` is a failure, reported as data and never raised."""

    OK = 0
    INVALID_ACTION = 1
    BUILD_ERROR = 2
    OVER_LIMIT = 3
    DIVERGED = 4
    OUT_OF_MEMORY = 5
    TIMEOUT = 6
    CRASHED = 7
    KILLED = 8

    @property
    def label(self) -> str:
        """The name in lower case, as records and ``info["status"]`` have it."""
        return self.name.lower()

    @property
    def transient(self) -> bool:
        """Whether the same query may succeed another time, so that the failure must not be cached."""
        return self in (Status.OUT_OF_MEMORY, Status.TIMEOUT, Status.CRASHED, Status.KILLED)

    @property
    def retryable(self) -> bool:
        """Whether the cause probably lies outside the architecture, so that trying again at once is worth it."""
        return self in (Status.OUT_OF_MEMORY, Status.KILLED)


STATUS_LABELS: npt.NDArray[np.object_] = np.array([status.label for status in Status], dtype=object)
"""Labels at the index of their status, for whole columns."""


LABELS: tuple[str, ...] = tuple(STATUS_LABELS)
"""The same, for single statuses."""


@dataclass(frozen=True)
class Metric:
    """What an evaluator measures.

    Attributes:
        direction: "maximize" or "minimize".
        unit: "fraction", "count", "seconds", ...
        held_out: whether it is for reports only, out of the agent's reach.
    """

    direction: str
    unit: str
    held_out: bool = False


@dataclass(frozen=True)
class Reference:
    """Values of a metric over a whole search space, known where a table is complete.

    Attributes:
        best: best value under the metric's direction.
        mean: mean over all encodings.
        worst: worst value.
    """

    best: float
    mean: float
    worst: float


@dataclass(frozen=True)
class Standing:
    """Where an architecture stands among all of its space, by a reported metric.

    Attributes:
        metric: the metric.
        value: its value for the architecture.
        rank: 1 + number of encodings that are strictly better.
        size: number of encodings.
        regret: distance from the best value, at least 0.
        standard_error: of a value near the best; a regret of at most this much is a tie.
    """

    metric: str
    value: float
    rank: int
    size: int
    regret: float
    standard_error: float

    @property
    def tied(self) -> bool:
        """Whether the architecture cannot be told from the best within the noise."""
        return self.regret <= self.standard_error


@dataclass(frozen=True, eq=False)
class Queries:
    """A batch of architectures to evaluate.

    Attributes:
        batch: complete encodings, N rows.
        fidelities: int64 [N], epochs; None = the evaluator's default for all.
        parents: content hash of each row's parent weights, or None.
    """

    batch: Batch
    fidelities: npt.NDArray[np.int64] | None = None
    parents: Sequence[str | None] | None = None

    def __len__(self) -> int:
        """Return N."""
        return len(self.batch)

    @property
    def rows(self) -> list[Encoding]:
        """The encodings as tuples."""
        return self.batch.space.rows(self.batch.prefixes, self.batch.lengths)

    @classmethod
    def of(cls, space: SearchSpace, encodings: Sequence[Encoding], fidelity: int | None = None) -> Queries:
        """Build a batch from tuples, all at one fidelity."""
        fidelities = None if fidelity is None else np.full(len(encodings), fidelity, np.int64)
        return cls(Batch.of(space, encodings), fidelities)

    def select(self, rows: slice | npt.NDArray[np.int64]) -> Queries:
        """Return some of the rows."""
        parents = self.parents
        if parents is not None:
            parents = [parents[index] for index in np.arange(len(self))[rows]]
        return Queries(self.batch.select(rows), None if self.fidelities is None else self.fidelities[rows], parents)


class Evaluation(NamedTuple):
    """Row view of `Evaluations`.

    Attributes:
        status: how the query ended.
        metrics: search-time metrics by name; NaN after a failure.
        cost_seconds: what the evaluation cost: simulated by a table, measured by training.
        message: why it failed, else empty.
        artifact: content hash of the weights left behind, or None.
    """

    status: Status
    metrics: Mapping[str, float]
    cost_seconds: float
    message: str = ""
    artifact: str | None = None


@dataclass(frozen=True)
class Evaluations:
    """The answers to a batch of queries, in columns of length N.

    Attributes:
        status: int8 [N], values of `Status`.
        metrics: float64 [N] by name, search-time metrics only; NaN where the query failed.
        cost_seconds: float64 [N].
        messages: why rows failed, by row; rows without a message are absent.
        artifacts: content hashes of weights, by row.
    """

    status: npt.NDArray[np.int8]
    metrics: Mapping[str, npt.NDArray[np.float64]]
    cost_seconds: npt.NDArray[np.float64]
    messages: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))
    artifacts: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))

    def __len__(self) -> int:
        """Return N."""
        return len(self.status)

    def row(self, index: int) -> Evaluation:
        """Return one answer."""
        return Evaluation(
            Status(int(self.status[index])),
            {name: float(column[index]) for name, column in self.metrics.items()},
            float(self.cost_seconds[index]),
            self.messages.get(index, ""),
            self.artifacts.get(index),
        )

    @classmethod
    def of(cls, rows: Sequence[Evaluation], metrics: Sequence[str]) -> Evaluations:
        """Gather row views into columns; metrics that a row lacks are NaN."""
        return cls(
            np.array([row.status for row in rows], np.int8),
            {name: np.array([row.metrics.get(name, np.nan) for row in rows], np.float64) for name in metrics},
            np.array([row.cost_seconds for row in rows], np.float64),
            {index: row.message for index, row in enumerate(rows) if row.message},
            {index: row.artifact for index, row in enumerate(rows) if row.artifact is not None},
        )


class Evaluator(ABC):
    """Tells how good architectures are. It never sees actions, observations or rewards.

    Attributes:
        space: the search space whose encodings it takes.
        metrics: what it measures, by name; `Metric.held_out` ones appear in `report` only.
        deterministic: whether repeating a query gives the same answer.
        fidelities: lowest and highest fidelity (epochs) it answers, or None where it has no such notion. A query
            without a fidelity is one at the highest.
    """

    space: SearchSpace
    metrics: Mapping[str, Metric]
    deterministic: bool = True
    fidelities: tuple[int, int] | None = None

    @abstractmethod
    def evaluate(self, queries: Queries) -> Evaluations:
        """Evaluate a batch.

        Raises:
            FidelityError: a fidelity outside `fidelities`; everything else that goes wrong is a status.
        """

    def evaluate_one(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> Evaluation:
        """Evaluate one architecture; the same answer as a batch of one."""
        if fidelity is not None:
            fidelity = self.check_fidelity(fidelity)
        queries = Queries.of(self.space, [encoding], fidelity)
        if parent is not None:
            queries = Queries(queries.batch, queries.fidelities, [parent])
        return self.evaluate(queries).row(0)

    @property
    def slots(self) -> int:
        """How many queries are worked on at the same time."""
        return 1

    def submit(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> int:
        """Ask for one architecture without waiting, and return a ticket for `collect`.

        An evaluator that answers at once does so here.

        Raises:
            FidelityError: as `evaluate`.
        """
        ticket = next(self._tickets)
        self._collectable.append((ticket, self.evaluate_one(encoding, fidelity, parent)))
        return ticket

    def collect(self, timeout: float | None = None) -> list[tuple[int, Evaluation]]:
        """Return the answers that are ready, in the order of their completion.

        Args:
            timeout: seconds to wait for the first one; None = as long as it takes.

        Returns:
            Pairs of ticket and answer; none if nothing was submitted or the time is up.
        """
        ready = list(self._collectable)
        self._collectable.clear()
        return ready

    def recall(self, encoding: Encoding, fidelity: int | None, evaluation: Evaluation) -> None:
        """Take note of an answer that this evaluator gave in an earlier process, when a search is resumed."""
        return

    def close(self) -> None:
        """Release worker processes and files; safe to call again."""
        return

    @cached_property
    def _tickets(self) -> Iterator[int]:
        return itertools.count()

    @cached_property
    def _collectable(self) -> list[tuple[int, Evaluation]]:
        return []

    def check_fidelity(self, fidelity: int) -> int:
        """Return `fidelity` if it can be answered.

        Raises:
            FidelityError: it lies outside `fidelities`, or this evaluator has no such notion.
        """
        if self.fidelities is None:
            raise FidelityError(f"{type(self).__name__} has no fidelities, got {fidelity}; leave the fidelity out.")
        lowest, highest = self.fidelities
        if (
            isinstance(fidelity, bool)
            or not isinstance(fidelity, (int, np.integer))
            or not lowest <= fidelity <= highest
        ):
            raise FidelityError(f"fidelity must be an integer from {lowest} to {highest} epochs, got {fidelity!r}.")
        return int(fidelity)

    def identity(self, encoding: Encoding) -> Encoding:
        """Return what two queries must share for one answer to serve both: by default the canonical encoding."""
        return self.space.canonical(encoding)

    @abstractmethod
    def report(self, encoding: Encoding) -> dict[str, float]:
        """Return metrics for the final summary, held-out ones included; never shown to an agent."""

    def artifact(self, encoding: Encoding) -> str | None:
        """Return the content hash of the weights that an architecture left in the store, None where there are none."""
        return None

    def reference(self, metric: str) -> Reference | None:
        """Return a metric's best, mean and worst value over the whole space, or None where unknown."""
        return None

    @property
    def reported_metric(self) -> str:
        """The metric by which final results are judged: the first held-out one, else the first of all."""
        return next((name for name, metric in self.metrics.items() if metric.held_out), next(iter(self.metrics)))

    def standing(self, encoding: Encoding) -> Standing | None:
        """Return where an architecture stands by `reported_metric`, or None where the whole space is not known."""
        return None

    def mean_cost(self, fidelity: int | None = None) -> float:
        """Return what a failed query is charged in simulated seconds; 0 where nothing is simulated."""
        return 0.0

    def reset_repeats(self) -> None:
        """Forget how often each query was repeated, so that noise starts anew."""
        return

    @cached_property
    def search_metrics(self) -> tuple[str, ...]:
        """Names of the metrics that `evaluate` returns."""
        return tuple(name for name, metric in self.metrics.items() if not metric.held_out)


def stream_key(*parts: int | str | Encoding | None) -> int:
    """Return 63 bits that depend on all of `parts` and on nothing else.

    Evaluators key their noise and their training seeds by it, so that a result depends neither on the order of
    the queries nor on batching or the number of workers.

    >>> stream_key(0, (1, 2), 3) == stream_key(0, (1, 2), 3)
    True
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8, person=b"nas-gym stream")
    return int.from_bytes(digest.digest(), "big") >> 1


def checked_seed(seed: int) -> int:
    """Return an evaluation seed.

    Raises:
        InvalidArgument: it is no integer, or negative.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise InvalidArgument(f"evaluation_seed must be an integer of at least 0, got {seed!r}.")
    return int(seed)


def check_metric(evaluator: Evaluator, name: str) -> Metric:
    """Return a search-time metric of an evaluator.

    Raises:
        InvalidArgument: the metric is held out.
        UnknownName: the evaluator does not measure it.
    """
    if name not in evaluator.metrics:
        raise UnknownName("metric", name, evaluator.search_metrics)
    metric = evaluator.metrics[name]
    if metric.held_out:
        raise InvalidArgument(
            f"the metric {name!r} is held out: it is reported at the end and never shown to an agent. "
            f"Allowed: {', '.join(evaluator.search_metrics)}."
        )
    return metric
