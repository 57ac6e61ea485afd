"""Exact size and computation of a network, without training it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from nas_gym import networks
from nas_gym.evaluators.core import Evaluation, Evaluations, Evaluator, Metric, Queries, Status
from nas_gym.networks.operations import complexity
from nas_gym.search_spaces.core import Encoding, SearchSpace


class CostEvaluator(Evaluator):
    """Counts parameters and multiply-adds by building every network on torch's meta device.

    Metrics: ``parameters``, ``multiply_adds`` and ``flops`` = 2 x ``multiply_adds``.
    """

    metrics: Mapping[str, Metric] = {
        "parameters": Metric("minimize", "count"),
        "multiply_adds": Metric("minimize", "count"),
        "flops": Metric("minimize", "count"),
    }

    def __init__(
        self,
        space: SearchSpace,
        input_shape: tuple[int, int, int] = (3, 32, 32),
        classes: int = 10,
        **sizes: Any,  # noqa: ANN401 - each network builder documents its own sizes
    ) -> None:
        """Configure the network.

        Args:
            space: a search space that has a network builder.
            input_shape: (channels, height, width) of an image.
            classes: number of classes.
            **sizes: of the network around the architecture, see the builder.
        """
        self.space = space
        self.input_shape = input_shape
        self.classes = classes
        self.sizes = sizes

    def identity(self, encoding: Encoding) -> Encoding:
        """Return the encoding itself: isomorphic cells differ in size."""
        return encoding

    def evaluate(self, queries: Queries) -> Evaluations:
        """Count a batch."""
        if queries.fidelities is not None and len(queries):
            self.check_fidelity(int(queries.fidelities[0]))
        return Evaluations.of([self.evaluate_one(row) for row in queries.rows], self.search_metrics)

    def evaluate_one(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> Evaluation:
        """Count one network; one that cannot be built has the status `build_error`."""
        if fidelity is not None:
            self.check_fidelity(fidelity)
        try:
            with torch.device("meta"):
                model = networks.build(self.space, encoding, self.input_shape, self.classes, **self.sizes)
            cost = complexity(model, self.input_shape)
        except (RuntimeError, ValueError) as error:
            return Evaluation(Status.BUILD_ERROR, dict.fromkeys(self.metrics, float("nan")), 0.0, str(error))
        counts = {
            "parameters": float(cost.parameters),
            "multiply_adds": float(cost.multiply_adds),
            "flops": 2.0 * cost.multiply_adds,
        }
        return Evaluation(Status.OK, counts, 0.0)

    def report(self, encoding: Encoding) -> dict[str, float]:
        """Return the counts."""
        return dict(self.evaluate_one(encoding).metrics)
