"""How good an architecture is: encodings in, metrics out."""

from __future__ import annotations

import inspect
from typing import Any

from nas_gym.errors import InvalidArgument
from nas_gym.evaluators.core import Evaluation, Evaluations, Evaluator, Metric, Queries, Reference, Status
from nas_gym.registry import Entry, Registry
from nas_gym.search_spaces.core import SearchSpace

EVALUATORS = Registry(
    "evaluator",
    {
        "tabular": Entry("nas_gym.evaluators.tabular:TabularEvaluator", "look-up in a table of trained networks"),
        "synthetic": Entry(
            "nas_gym.evaluators.synthetic:SyntheticEvaluator", "analytic landscape with a known optimum, for any space"
        ),
        "training": Entry(
            "nas_gym.evaluators.training:training_evaluator",
            "trains every architecture from scratch, in worker processes",
            "train",
        ),
        "cost": Entry(
            "nas_gym.evaluators.cost:CostEvaluator", "exact parameters and multiply-adds, untrained", "train"
        ),
    },
)
"""Evaluators by name; an entry is called with the search space and its own keyword arguments."""


def make_evaluator(
    name: str,
    space: SearchSpace,
    **settings: Any,  # noqa: ANN401 - each evaluator documents its own settings
) -> Evaluator:
    """Create an evaluator; settings that are None are left to its defaults.

    The setting ``sizes``, of the network around an architecture, is ignored by evaluators that build none.

    Raises:
        UnknownName: no such evaluator.
        InvalidArgument: it does not take one of the settings.
        MissingExtra: it needs an extra that is not installed.
    """
    factory = EVALUATORS[name]
    given = {key: value for key, value in settings.items() if value is not None}
    if "sizes" not in inspect.signature(factory).parameters:
        given.pop("sizes", None)
    accepted = [key for key in inspect.signature(factory).parameters if key not in ("space", "sizes", "settings")]
    # A factory of many settings lists them itself and checks their names.
    checks_itself = "settings" in inspect.signature(factory).parameters
    for key, value in given.items():
        if key not in accepted and not checks_itself and key != "sizes":
            raise InvalidArgument(
                f"the evaluator {name!r} takes no argument {key!r} (got {value!r}); it takes: {', '.join(accepted)}."
            )
    evaluator: Evaluator = factory(space, **given)
    return evaluator


__all__ = [
    "EVALUATORS",
    "Evaluation",
    "Evaluations",
    "Evaluator",
    "Metric",
    "Queries",
    "Reference",
    "Status",
    "make_evaluator",
]
