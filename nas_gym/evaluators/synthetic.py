"""An analytic landscape with a known optimum, for any search space: no data, no table, no training."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from nas_gym.evaluators.core import (
    Evaluation,
    Evaluations,
    Evaluator,
    Metric,
    Queries,
    Status,
    checked_seed,
    stream_key,
)
from nas_gym.search_spaces.core import Encoding, SearchSpace


class SyntheticEvaluator(Evaluator):
    """The closer an architecture's decisions are to a hidden optimum, the better it is.

    With s the share of positions at which the canonical encodings of the architecture and of the optimum agree
    (positions beyond the end of the shorter one disagree), the accuracy is 0.1 + 0.8 s + 0.1 r / L, where the
    ruggedness r in [0, 1) is a hash of the canonical encoding, and 1 at the optimum. One more agreement is worth at
    least 0.8 / L, more than any ruggedness, so the optimum and its isomorphs are the only best ones. The held-out
    accuracy has the same optimum and another ruggedness.

    Metrics: ``valid_accuracy`` (fraction), ``parameters``, ``multiply_adds``, ``latency_seconds``, ``nodes``,
    ``edges``, all analytic; held out: ``test_accuracy``.
    """

    metrics: Mapping[str, Metric] = {
        "valid_accuracy": Metric("maximize", "fraction"),
        "parameters": Metric("minimize", "count"),
        "multiply_adds": Metric("minimize", "count"),
        "latency_seconds": Metric("minimize", "seconds"),
        "nodes": Metric("minimize", "count"),
        "edges": Metric("minimize", "count"),
        "test_accuracy": Metric("maximize", "fraction", held_out=True),
    }

    def __init__(self, space: SearchSpace, evaluation_seed: int = 0) -> None:
        """Create a landscape.

        Args:
            space: any search space.
            evaluation_seed: another seed is another landscape.
        """
        self.space = space
        self.evaluation_seed = checked_seed(evaluation_seed)

    @cached_property
    def optimum(self) -> Encoding:
        """The canonical encoding of the best architecture."""
        return self.space.canonical(
            self.space.sample(np.random.default_rng(stream_key(self.evaluation_seed, "optimum")))
        )

    def evaluate(self, queries: Queries) -> Evaluations:
        """Evaluate a batch."""
        rows = queries.rows
        if queries.fidelities is not None and len(rows):
            self.check_fidelity(int(queries.fidelities[0]))
        return Evaluations.of([self._evaluation(row) for row in rows], self.search_metrics)

    def evaluate_one(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> Evaluation:
        """Evaluate one architecture."""
        if fidelity is not None:
            self.check_fidelity(fidelity)
        return self._evaluation(encoding)

    def _evaluation(self, encoding: Encoding) -> Evaluation:
        canonical = self.space.canonical(encoding)
        length = len(canonical)
        size = self._unit("size", canonical)
        metrics = {
            "valid_accuracy": self._accuracy("valid", canonical),
            "parameters": float(round(1e4 * length * (1 + size))),
            "multiply_adds": float(round(1e6 * length * (1 + size))),
            "latency_seconds": 1e-3 * length * (1 + self._unit("latency", canonical)),
            "nodes": float(length + 1),
            "edges": float(length + 1 + round(length * size)),
        }
        return Evaluation(Status.OK, metrics, 10.0 * length * (1 + size))

    def _accuracy(self, which: str, canonical: Encoding) -> float:
        agreements = sum(mine == best for mine, best in zip(canonical, self.optimum, strict=False))
        agreement = agreements / max(len(canonical), len(self.optimum))
        ruggedness = 1.0 if canonical == self.optimum else self._unit(which, canonical)
        return 0.1 + 0.8 * agreement + 0.1 * ruggedness / self.space.max_length

    def _unit(self, which: str, canonical: Encoding) -> float:
        return stream_key(self.evaluation_seed, which, canonical) / 2**63

    def report(self, encoding: Encoding) -> dict[str, float]:
        """Return all metrics, the held-out accuracy included."""
        evaluation = self._evaluation(encoding)
        return {**evaluation.metrics, "test_accuracy": self._accuracy("test", self.space.canonical(encoding))}

    def mean_cost(self, fidelity: int | None = None) -> float:
        """Return the cost of a failed query: that of the optimum."""
        return self._evaluation(self.optimum).cost_seconds
