"""How good an architecture is: encodings in, metrics out."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from nas_gym.errors import InvalidArgument, UnknownName
from nas_gym.evaluators.core import Evaluation, Evaluations, Evaluator, Metric, Queries, Reference, Status
from nas_gym.registry import Entry, Registry
from nas_gym.search_spaces.core import SearchSpace


@dataclass(frozen=True)
class EvaluatorEntry(Entry):
    """One row of `EVALUATORS`.

    Attributes:
        trains: whether it really trains networks, in worker processes, and keeps what it measured in a store.
        example_space: name of a search space that it can answer for.
    """

    trains: bool = False
    example_space: str = "nas_bench_201"


_ENTRIES = {
    "tabular": EvaluatorEntry("nas_gym.evaluators.tabular:TabularEvaluator", "look-up in a table of trained networks"),
    "synthetic": EvaluatorEntry(
        "nas_gym.evaluators.synthetic:SyntheticEvaluator", "analytic landscape with a known optimum, for any space"
    ),
    "training": EvaluatorEntry(
        "nas_gym.evaluators.training:training_evaluator",
        "trains every architecture from scratch, in worker processes",
        "train",
        trains=True,
    ),
    "inheriting": EvaluatorEntry(
        "nas_gym.evaluators.inheriting:inheriting_evaluator",
        "trains networks that inherit a trained parent's weights for a few epochs",
        "train",
        trains=True,
        example_space="eas",
    ),
    "cost": EvaluatorEntry(
        "nas_gym.evaluators.cost:CostEvaluator", "exact parameters and multiply-adds, untrained", "train"
    ),
}

EVALUATORS = Registry("evaluator", _ENTRIES)
"""Evaluators by name; an entry is called with the search space and its own keyword arguments."""


def trains_networks(name: object) -> bool:
    """Tell whether a registered evaluator really trains networks and keeps what it measured in a store.

    >>> trains_networks("training"), trains_networks("tabular"), trains_networks("my_module:MyClass")
    (True, False, False)
    """
    return name in EVALUATORS and _ENTRIES[str(name)].trains


def example_space(name: str) -> str:
    """Return the name of a search space that a registered evaluator can answer for.

    Raises:
        UnknownName: no such evaluator.
    """
    if name not in _ENTRIES:
        raise UnknownName("evaluator", name, _ENTRIES)
    return _ENTRIES[name].example_space


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
    "Evaluation",
    "Evaluations",
    "Evaluator",
    "EvaluatorEntry",
    "Metric",
    "Queries",
    "Reference",
    "Status",
    "example_space",
    "make_evaluator",
    "trains_networks",
]
