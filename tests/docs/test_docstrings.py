"""From docstrings to Markdown."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import pkgutil
from dataclasses import dataclass, field

import pytest

pytest.importorskip("sphinx")
import nas_agents
import nas_docs
from nas_docs import docstrings
from nas_gym.objectives import OBJECTIVES

EXAMPLE = """Do something.

    More about it, with `code`.

    >>> do(1)
    2

    Args:
        left: the left one,
            over two lines.
        **others: passed on.

    What follows a section belongs to the text.

    Returns:
        The sum.

    Raises:
        ValueError: no number; see `do`.
    """


@dataclass(frozen=True)
class Base:
    """A base.

    Attributes:
        size: how large.
        name: of the base.
    """

    size: int = 3
    name: str = "base"


@dataclass(frozen=True)
class Derived(Base):
    """A class that changes the meaning of a field.

    Attributes:
        name: of the derived one.
        parts: made anew for every instance.
    """

    parts: tuple[int, ...] = field(default_factory=lambda: (1, 2))


def test_the_first_paragraph_is_the_summary() -> None:
    """In one line."""
    assert docstrings.parse("One\n    line.\n\n    Two.").summary == "One line."


def test_text_around_sections_is_kept() -> None:
    """Paragraphs before and behind a section, in order."""
    text = docstrings.parse(EXAMPLE).text
    assert text.startswith("Do something.\n\nMore about it")
    assert text.endswith("What follows a section belongs to the text.")


def test_items_of_a_section_are_joined() -> None:
    """Continued lines become one; stars belong to the name."""
    expected = (("left", "the left one, over two lines."), ("**others", "passed on."))
    assert docstrings.parse(EXAMPLE).sections["Args"] == expected


def test_errors_keep_colons_in_their_text() -> None:
    """Only the first colon separates."""
    assert docstrings.parse(EXAMPLE).sections["Raises"] == (("ValueError", "no number; see `do`."),)


def test_results_are_prose() -> None:
    """Returns has no names."""
    assert docstrings.parse(EXAMPLE).prose == {"Returns": "The sum."}


def test_bare_doctests_become_code() -> None:
    """With their output, and nothing else."""
    assert "```python\n>>> do(1)\n2\n```" in docstrings.parse(EXAMPLE).text


def test_doctests_in_a_block_stay_as_they_are() -> None:
    """No block inside a block."""
    text = "Text.\n\n```python\n>>> 1 + 1\n2\n\n```"
    assert docstrings.parse(text).text == text


def test_nothing_is_lost() -> None:
    """Every word of the docstring is on the page."""
    page = docstrings.to_markdown(docstrings.parse(EXAMPLE))
    assert [word for word in EXAMPLE.replace("Args:", "").split() if word.strip(":") not in page] == []


def test_fields_are_described_by_the_nearest_class() -> None:
    """A class wins over its base; what it leaves out comes from there."""
    assert {one.name: one.meaning for one in docstrings.arguments(Derived)} == {
        "size": "how large.",
        "name": "of the derived one.",
        "parts": "made anew for every instance.",
    }


def test_defaults_that_are_made_anew_are_shown() -> None:
    """The value, not its factory."""
    assert {one.name: one.default for one in docstrings.arguments(Derived)}["parts"] == "(1, 2)"


def test_bars_do_not_end_a_cell() -> None:
    """Types such as `int | None` fit into tables."""
    rows = [docstrings.Argument("x", "int | None", "None", "a | b")]
    assert "`int \\| None`" in docstrings.argument_table(rows)


@pytest.mark.parametrize("name", list(nas_agents.AGENTS))
def test_every_field_of_an_agents_configuration_is_described(name: str) -> None:
    """Its page says what each setting means."""
    pytest.importorskip("torch")
    config = nas_agents.AGENTS[name].Config
    described = docstrings.described(config)
    assert [one.name for one in dataclasses.fields(config) if one.name not in described] == []


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_every_constant_of_an_objective_is_described(name: str) -> None:
    """The table of its section has no empty meaning."""
    assert [one.name for one in docstrings.arguments(OBJECTIVES[name]) if not one.meaning] == []


@pytest.mark.parametrize("name", [one.name for one in pkgutil.iter_modules(nas_docs.__path__)])
def test_the_examples_of_the_generator_are_right(name: str) -> None:
    """Its doctests."""
    module = importlib.import_module(f"nas_docs.{name}") if name != "__main__" else nas_docs
    assert doctest.testmod(module).failed == 0
