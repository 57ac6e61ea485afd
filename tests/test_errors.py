"""One tree of errors, with messages that help."""

from __future__ import annotations

import inspect
import multiprocessing

import pytest

from nas_gym import errors
from nas_gym.errors import MissingExtra, NASGymError, TableError, UnknownName

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, Exception) and value.__module__ == errors.__name__
]
INSTANCES = [
    UnknownName("table", "digts", ["digits"]),
    MissingExtra("the data set 'digits'", "train", ModuleNotFoundError("no", name="sklearn")),
    *(kind("what is wrong") for kind in CLASSES if kind not in (UnknownName, MissingExtra)),
]

every_error = pytest.mark.parametrize("error", INSTANCES, ids=lambda error: type(error).__name__)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_is_in_the_tree(kind: type[Exception]) -> None:
    """Catching the base catches everything."""
    assert issubclass(kind, NASGymError)


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("InvalidArgument", ValueError),
        ("UnknownName", KeyError),
        ("InvalidEncoding", ValueError),
        ("InvalidAction", ValueError),
        ("EpisodeOver", RuntimeError),
        ("FidelityError", ValueError),
        ("RunExists", FileExistsError),
        ("MissingExtra", ImportError),
    ],
)
def test_errors_are_also_what_a_caller_would_expect(name: str, builtin: type[Exception]) -> None:
    """An `except` with the built-in class keeps working."""
    assert issubclass(getattr(errors, name), builtin)


@every_error
def test_every_error_crosses_process_boundaries(error: NASGymError) -> None:
    """Class and message survive the way back from a worker."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    sender.send(error)
    received = receiver.recv()
    assert (type(received), str(received)) == (type(error), str(error))


@pytest.mark.parametrize("kind", [TableError, errors.RunExists, errors.EpisodeOver], ids=lambda kind: kind.__name__)
def test_the_message_is_printed_as_it_is(kind: type[NASGymError]) -> None:
    """No quotes, no tuple."""
    assert str(kind("table.parquet: 'altered'")) == "table.parquet: 'altered'"


def test_an_unknown_name_suggests_the_nearest_one() -> None:
    """And lists the known ones in alphabetical order."""
    message = str(UnknownName("agent", "reinforcement", ["uct", "reinforce", "evolution"]))
    assert message == "unknown agent 'reinforcement'. Did you mean 'reinforce'? Known: evolution, reinforce, uct."


def test_an_unknown_name_among_none_says_so() -> None:
    """An empty registry is not an empty list."""
    assert str(UnknownName("table", "digits", [])) == "unknown table 'digits'. Known: none."


def test_an_unknown_name_may_be_of_any_type() -> None:
    """A number is shown as a number."""
    assert str(UnknownName("table", 7, ["digits"])) == "unknown table 7. Known: digits."


def test_a_missing_extra_names_module_and_command() -> None:
    """What is needed, what is missing and what to type."""
    cause = ModuleNotFoundError("No module named 'torch'", name="torch")
    assert str(MissingExtra("the agent 'reinforce'", "agents", cause)) == (
        "the agent 'reinforce' needs an optional dependency that is not installed (no module named 'torch'). "
        'Install it with: pip install "nas-gym[agents]"'
    )


def test_a_missing_extra_without_a_cause_names_the_command() -> None:
    """The module is left out where it is not known."""
    assert str(MissingExtra("rendering", "render")) == (
        'rendering needs an optional dependency that is not installed. Install it with: pip install "nas-gym[render]"'
    )
