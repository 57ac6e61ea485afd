"""Evaluators around evaluators: composition by wrapping, never by flags."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from nas_gym.evaluators.core import Evaluation, Evaluations, Evaluator, Queries, Reference, Standing
from nas_gym.search_spaces.core import Encoding

_Key: TypeAlias = tuple[Encoding, int | None, str | None]


class Cached(Evaluator):
    """Gives a repeated query its first answer.

    Two queries are the same when their fidelity and `Evaluator.identity` are. Failures that may not happen again
    (crashed, killed, out of memory, timeout) are not kept.
    """

    def __init__(self, inner: Evaluator) -> None:
        """Wrap `inner`."""
        self.inner = inner
        self.space = inner.space
        self.metrics = inner.metrics
        self.deterministic = True
        self.fidelities = inner.fidelities
        self._answers: dict[_Key, Evaluation] = {}

    def evaluate(self, queries: Queries) -> Evaluations:
        """Evaluate what was not asked before, in one batch, and answer the rest from memory."""
        rows = queries.rows
        # No fidelity means the highest one, so both must find the same answer.
        default = self.fidelities[1] if self.fidelities else None
        fidelities = [default] * len(rows) if queries.fidelities is None else queries.fidelities.tolist()
        parents = [None] * len(rows) if queries.parents is None else list(queries.parents)
        identities = [self.inner.identity(row) for row in rows]
        keys = list(zip(identities, fidelities, parents, strict=True))
        new = {key: index for index, key in reversed(list(enumerate(keys))) if key not in self._answers}
        fresh: dict[_Key, Evaluation] = {}
        if new:
            indices = np.array(sorted(new.values()))
            evaluated = self.inner.evaluate(queries.select(indices))
            fresh = {keys[index]: evaluated.row(position) for position, index in enumerate(indices.tolist())}
        self._answers.update((key, answer) for key, answer in fresh.items() if not answer.status.transient)
        return Evaluations.of([fresh.get(key) or self._answers[key] for key in keys], self.search_metrics)

    def report(self, encoding: Encoding) -> dict[str, float]:
        """Return the inner report."""
        return self.inner.report(encoding)

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
        """Forget all answers, so that an episode stream can be replayed."""
        self._answers.clear()
        self.inner.reset_repeats()
