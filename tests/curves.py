"""A synthetic landscape with learning curves: what an architecture is worth after few epochs is only a hint."""

from __future__ import annotations

import numpy as np

from nas_gym.evaluators.core import Evaluation, Evaluations, Queries
from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.search_spaces import Encoding


class Curves(SyntheticEvaluator):
    """`SyntheticEvaluator` at its highest fidelity, 9; below it a lower accuracy with noise, at a share of the cost."""

    fidelities = (1, 9)

    def evaluate(self, queries: Queries) -> Evaluations:
        """Evaluate a batch."""
        rows = queries.rows
        fidelities = np.full(len(rows), 9) if queries.fidelities is None else queries.fidelities
        answers = [self.evaluate_one(row, fidelity) for row, fidelity in zip(rows, fidelities.tolist(), strict=True)]
        return Evaluations.of(answers, self.search_metrics)

    def evaluate_one(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> Evaluation:
        """Evaluate one architecture."""
        answer = super().evaluate_one(encoding)
        if fidelity is None:
            return answer
        missing = 1 - self.check_fidelity(fidelity) / 9
        noise = self._unit(f"epoch {fidelity}", self.space.canonical(encoding)) - 0.5
        accuracy = answer.metrics["valid_accuracy"] * (1 - 0.5 * missing) + 0.2 * missing * noise
        metrics = {**answer.metrics, "valid_accuracy": accuracy}
        return answer._replace(metrics=metrics, cost_seconds=answer.cost_seconds * (1 - missing))

    def mean_cost(self, fidelity: int | None = None) -> float:
        """Return the cost of a failed query."""
        return super().mean_cost() * (1.0 if fidelity is None else fidelity / 9)
