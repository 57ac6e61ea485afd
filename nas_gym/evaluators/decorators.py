"""Evaluators around evaluators: composition by wrapping, never by flags."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from nas_gym.errors import InvalidArgument, ResumeError
from nas_gym.evaluators.core import Evaluation, Evaluations, Evaluator, Queries, Reference, Standing
from nas_gym.search_spaces.core import Encoding

_Key: TypeAlias = tuple[Encoding, int | None, str | None]


class Decorator(Evaluator):
    """Passes everything on to the evaluator inside; base of the decorators."""

    def __init__(self, inner: Evaluator) -> None:
        """Wrap `inner`."""
        self.inner = inner
        self.space = inner.space
        self.metrics = inner.metrics
        self.deterministic = inner.deterministic
        self.fidelities = inner.fidelities

    def evaluate(self, queries: Queries) -> Evaluations:
        """Ask the evaluator inside."""
        return self.inner.evaluate(queries)

    def report(self, encoding: Encoding) -> dict[str, float]:
        """Return the inner report."""
        return self.inner.report(encoding)

    def artifact(self, encoding: Encoding) -> str | None:
        """Return the inner artifact."""
        return self.inner.artifact(encoding)

    def reference(self, metric: str) -> Reference | None:
        """Return the inner reference."""
        return self.inner.reference(metric)

    def standing(self, encoding: Encoding) -> Standing | None:
        """Return the inner standing."""
        return self.inner.standing(encoding)

    def identity(self, encoding: Encoding) -> Encoding:
        """Return the inner identity."""
        return self.inner.identity(encoding)

    def mean_cost(self, fidelity: int | None = None) -> float:
        """Return the inner mean cost."""
        return self.inner.mean_cost(fidelity)

    def reset_repeats(self) -> None:
        """Reset the inner repeats."""
        self.inner.reset_repeats()

    @property
    def slots(self) -> int:
        """Return the inner number of slots."""
        return self.inner.slots

    def recall(self, encoding: Encoding, fidelity: int | None, evaluation: Evaluation) -> None:
        """Pass an earlier answer on."""
        self.inner.recall(encoding, fidelity, evaluation)

    def close(self) -> None:
        """Close the evaluator inside."""
        self.inner.close()


class Cached(Decorator):
    """Gives a repeated query its first answer.

    Two queries are the same when their fidelity and `Evaluator.identity` are. Failures that may not happen again
    (crashed, killed, out of memory, timeout) are not kept.
    """

    def __init__(self, inner: Evaluator) -> None:
        """Wrap `inner`."""
        super().__init__(inner)
        self.deterministic = True
        self._answers: dict[_Key, Evaluation] = {}
        self._waiting: dict[_Key, list[int]] = {}
        self._keys: dict[int, _Key] = {}

    def evaluate(self, queries: Queries) -> Evaluations:
        """Evaluate what was not asked before, in one batch, and answer the rest from memory."""
        rows = queries.rows
        fidelities = [None] * len(rows) if queries.fidelities is None else queries.fidelities.tolist()
        parents = [None] * len(rows) if queries.parents is None else list(queries.parents)
        keys = [self._key(*query) for query in zip(rows, fidelities, parents, strict=True)]
        new = {key: index for index, key in reversed(list(enumerate(keys))) if key not in self._answers}
        fresh: dict[_Key, Evaluation] = {}
        if new:
            indices = np.array(sorted(new.values()))
            evaluated = self.inner.evaluate(queries.select(indices))
            fresh = {keys[index]: evaluated.row(position) for position, index in enumerate(indices.tolist())}
        self._answers.update((key, answer) for key, answer in fresh.items() if not answer.status.transient)
        return Evaluations.of([fresh.get(key) or self._answers[key] for key in keys], self.search_metrics)

    def submit(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> int:
        """Ask without waiting; identical queries in flight are asked once."""
        key = self._key(encoding, fidelity, parent)
        ticket = next(self._tickets)
        if key in self._answers:
            self._collectable.append((ticket, self._answers[key]))
        elif key in self._waiting:
            self._waiting[key].append(ticket)
        else:
            self._keys[self.inner.submit(encoding, fidelity, parent)] = key
            self._waiting[key] = [ticket]
        return ticket

    def collect(self, timeout: float | None = None) -> list[tuple[int, Evaluation]]:
        """Return the answers that are ready."""
        if not self._collectable:
            for inner_ticket, answer in self.inner.collect(timeout):
                key = self._keys.pop(inner_ticket)
                if not answer.status.transient:
                    self._answers[key] = answer
                self._collectable.extend((ticket, answer) for ticket in self._waiting.pop(key))
        return super().collect(timeout)

    def recall(self, encoding: Encoding, fidelity: int | None, evaluation: Evaluation) -> None:
        """Remember an earlier answer; what the evaluator inside was not asked for, it need not recall."""
        key = self._key(encoding, fidelity, None)
        if key in self._answers:
            return
        if not evaluation.status.transient:
            self._answers[key] = evaluation
        self.inner.recall(encoding, fidelity, evaluation)

    def _key(self, encoding: Encoding, fidelity: int | None, parent: str | None) -> _Key:
        # No fidelity means the highest one, so both must find the same answer.
        default = self.fidelities[1] if self.fidelities else None
        return self.inner.identity(encoding), default if fidelity is None else fidelity, parent

    def reset_repeats(self) -> None:
        """Forget all answers, so that an episode stream can be replayed."""
        self._answers.clear()
        self.inner.reset_repeats()


@dataclass(frozen=True)
class Recorded:
    """A query of an earlier process and its answer."""

    encoding: Encoding
    evaluation: Evaluation


class Replayed(Decorator):
    """Answers the first queries from a record and later ones by the evaluator inside.

    The record is in the order of the episodes; episodes that are played together ask in the order of their ends.

    A search that is resumed asks again for what it has paid for; the evaluator inside recalls every answer, so that it
    goes on as if it had given them in this process.
    """

    def __init__(self, inner: Evaluator, record: Sequence[Recorded], together: int = 1) -> None:
        """Wrap an evaluator.

        Args:
            inner: answers what the record does not hold.
            record: the queries that reached the evaluator.
            together: episodes played at once, which may ask in another order.
        """
        super().__init__(inner)
        self._left = list(record)
        self._together = together
        self._outer: dict[int, int] = {}

    def evaluate(self, queries: Queries) -> Evaluations:
        """Answer a batch, whose first rows may be recorded and whose last ones may not."""
        rows = queries.rows
        fidelities = [None] * len(rows) if queries.fidelities is None else queries.fidelities.tolist()
        answers = [self._next(row, fidelity) for row, fidelity in zip(rows, fidelities, strict=True)]
        unknown = np.array([index for index, answer in enumerate(answers) if answer is None], np.int64)
        if len(unknown):
            found = self.inner.evaluate(queries.select(unknown))
            for position, index in enumerate(unknown.tolist()):
                answers[index] = found.row(position)
        return Evaluations.of([answer for answer in answers if answer is not None], self.search_metrics)

    def submit(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> int:
        """Answer from the record, else ask the evaluator inside without waiting."""
        ticket = next(self._tickets)
        answer = self._next(encoding, fidelity)
        if answer is not None:
            self._collectable.append((ticket, answer))
        else:
            self._outer[self.inner.submit(encoding, fidelity, parent)] = ticket
        return ticket

    def collect(self, timeout: float | None = None) -> list[tuple[int, Evaluation]]:
        """Return the answers that are ready."""
        if not self._collectable:
            self._collectable.extend((self._outer.pop(inner), answer) for inner, answer in self.inner.collect(timeout))
        return super().collect(timeout)

    def _next(self, encoding: Encoding, fidelity: int | None) -> Evaluation | None:
        """Return the recorded answer, None where the record has ended.

        Raises:
            ResumeError: the search asks for something else than the record has.
        """
        # The episodes that are being played are the next ones of the record, so the answer is among as many.
        for position, recorded in enumerate(self._left[: self._together]):
            if recorded.encoding == encoding:
                del self._left[position]
                self.inner.recall(encoding, fidelity, recorded.evaluation)
                return recorded.evaluation
        if len(self._left) >= self._together:
            raise ResumeError(
                f"the resumed search asks for {list(encoding)} where the record has {list(self._left[0].encoding)}: "
                "its agent, seed or library versions differ from those that made the record. Nothing was changed."
            )
        return None  # The record may have been cut in the middle of the episodes that were played together.


class SimulatedWorkers(Decorator):
    """Pretends that queries are worked on by several workers, by the cost that each answer states.

    Submitted queries are answered by the evaluator inside at once, but come back in the order in which simulated
    workers would finish them; nobody really waits.

    Attributes:
        clock: simulated seconds so far.
    """

    def __init__(self, inner: Evaluator, workers: int) -> None:
        """Wrap `inner`.

        Raises:
            InvalidArgument: fewer than one worker.
        """
        if workers < 1:
            raise InvalidArgument(f"workers must be at least 1, got {workers}.")
        super().__init__(inner)
        self.clock = 0.0
        self._submitted_seconds = 0.0
        self._free_at = [0.0] * workers
        self._running: list[tuple[float, int, Evaluation]] = []

    @property
    def slots(self) -> int:
        """Number of simulated workers."""
        return len(self._free_at)

    @property
    def busy_seconds(self) -> float:
        """Simulated seconds that workers worked until now, in sum."""
        ahead = sum(min(answer.cost_seconds, finished - self.clock) for finished, _, answer in self._running)
        return self._submitted_seconds - ahead

    @property
    def utilisation(self) -> float:
        """Share of the workers' time so far in which they worked."""
        return self.busy_seconds / (self.clock * self.slots) if self.clock else 0.0

    def submit(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> int:
        """Give a query to the worker that is free first."""
        ticket = next(self._tickets)
        answer = self.inner.evaluate_one(encoding, fidelity, parent)
        finished = max(heapq.heappop(self._free_at), self.clock) + answer.cost_seconds
        heapq.heappush(self._free_at, finished)
        heapq.heappush(self._running, (finished, ticket, answer))
        self._submitted_seconds += answer.cost_seconds
        return ticket

    def collect(self, timeout: float | None = None) -> list[tuple[int, Evaluation]]:
        """Let the clock run until the next worker finishes, and return its answer."""
        if not self._running:
            return []
        finished, ticket, answer = heapq.heappop(self._running)
        self.clock = max(self.clock, finished)
        return [(ticket, answer)]

    def evaluate(self, queries: Queries) -> Evaluations:
        """Evaluate a batch and wait for its slowest query, as a synchronous environment does."""
        fidelities = [None] * len(queries) if queries.fidelities is None else queries.fidelities.tolist()
        parents = [None] * len(queries) if queries.parents is None else queries.parents
        tickets = [self.submit(*query) for query in zip(queries.rows, fidelities, parents, strict=True)]
        answers = dict(self.collect()[0] for _ in tickets)
        return Evaluations.of([answers[ticket] for ticket in tickets], self.search_metrics)
