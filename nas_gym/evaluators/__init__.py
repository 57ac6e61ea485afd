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
        "inheriting": Entry(
            "nas_gym.evaluators.inheriting:inheriting_evaluator",
            "trains networks that inherit a trained parent's weights for a few epochs",
            "train",
        ),
        "cost": Entry(
            "nas_gym.evaluators.cost:CostEvaluator", "exact parameters and multiply-adds, untrained", "train"
        ),
    },
)
"""Evaluators by name; an entry is called with the search space and its own keyword arguments."""

TRAINING_EVALUATORS = ("training", "inheriting")
"""Those that really train networks, in worker processes, and keep what they measured in a store."""


_PROPOSED = ("sizes", "recipe")


def make_evaluator(
    name: str,
    space: SearchSpace,
    shared: tuple[str, ...] = (),
    **settings: Any,  # noqa: ANN401 - each evaluator documents its own settings
) -> Evaluator:
    """Create an evaluator; settings that are None are left to its defaults.

    Args:
        name: name in `EVALUATORS`, or ``module:Class``.
        space: what can be built.
        shared: settings that the caller uses itself, so that an evaluator that does not know them may ignore them.
        **settings: of the evaluator.

    The settings ``sizes``, arguments of the network builder, and ``recipe``, defaults of the training, are what a
    system proposes; evaluators that build or train nothing ignore them.

    Raises:
        UnknownName: no such evaluator.
        InvalidArgument: it does not take one of the settings.
        MissingExtra: it needs an extra that is not installed.
    """
    factory = EVALUATORS[name]
    given = {key: value for key, value in settings.items() if value is not None}
    parameters = inspect.signature(factory).parameters
    # A factory of many settings lists them itself and checks their names.
    checks_itself = "settings" in parameters
    takes_any = [name for name, one in parameters.items() if one.kind is one.VAR_KEYWORD and name in _PROPOSED]
    for proposed in takes_any:
        given |= given.pop(proposed, {})
    for optional in (*_PROPOSED, *(() if checks_itself else shared)):
        if optional not in parameters:
            given.pop(optional, None)
    accepted = [key for key in parameters if key not in ("space", "settings", *_PROPOSED)]
    for key, value in given.items():
        if key not in accepted and not checks_itself and not takes_any and key not in _PROPOSED:
            raise InvalidArgument(
                f"the evaluator {name!r} takes no argument {key!r} (got {value!r}); it takes: {', '.join(accepted)}."
            )
    evaluator: Evaluator = factory(space, **given)
    return evaluator


__all__ = [
    "EVALUATORS",
    "TRAINING_EVALUATORS",
    "Evaluation",
    "Evaluations",
    "Evaluator",
    "Metric",
    "Queries",
    "Reference",
    "Status",
    "make_evaluator",
]
