"""From a Google-style docstring, whose text is Markdown, to Markdown."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas_docs.markdown import code, fence, join, table

_LISTS = ("Args", "Attributes", "Raises")
_PROSE = ("Returns", "Yields")
_SECTION = re.compile(rf"^({'|'.join((*_LISTS, *_PROSE))}):[ ]*$", re.MULTILINE)
_ITEM = re.compile(r"^(\*{0,2}[\w.]+):\s+(.*)$", re.DOTALL)


@dataclass(frozen=True)
class Docstring:
    """A docstring in its parts.

    Attributes:
        text: everything before the first section, Markdown.
        sections: by title, in order; "Args", "Attributes" and "Raises" are lists of (name, meaning).
        prose: by title, the sections that are text.
    """

    text: str
    sections: Mapping[str, tuple[tuple[str, str], ...]]
    prose: Mapping[str, str]

    @property
    def summary(self) -> str:
        """The first paragraph in one line."""
        return " ".join(self.text.partition("\n\n")[0].split())

    @property
    def body(self) -> str:
        """What follows the first paragraph."""
        return self.text.partition("\n\n")[2]


def parse(source: str | None) -> Docstring:
    r"""Return the parts of a docstring, whose indentation may be raw.

    >>> parse("Add.\n\nArgs:\n    left: one\n        number.\n").sections
    {'Args': (('left', 'one number.'),)}
    """
    source = inspect.cleandoc(source or "")
    titles = list(_SECTION.finditer(source))
    ends = [match.start() for match in titles[1:]] + [len(source)]
    parts = {match[1]: (match.end(), end) for match, end in zip(titles, ends, strict=False)}
    text = source[: titles[0].start()] if titles else source
    # Text may go on behind a section, without indentation.
    rests = []
    blocks = {}
    for title, (begin, end) in parts.items():
        blocks[title], rest = _indented(source[begin:end])
        rests.append(rest)
    return Docstring(
        join(_with_examples(text), *map(_with_examples, rests)).strip(),
        {title: _items(block) for title, block in blocks.items() if title in _LISTS},
        {title: " ".join(block.split()) for title, block in blocks.items() if title in _PROSE},
    )


def _indented(block: str) -> tuple[str, str]:
    """Return the leading indented lines of a section, dedented, and what follows them."""
    lines = block.strip("\n").splitlines()
    end = next((index for index, line in enumerate(lines) if line and not line.startswith(" ")), len(lines))
    return inspect.cleandoc("\n" + "\n".join(lines[:end])), "\n".join(lines[end:])


def _items(block: str) -> tuple[tuple[str, str], ...]:
    entries = re.split(r"\n(?=\S)", block)
    found = [_ITEM.match(entry) for entry in entries]
    return tuple((match[1], " ".join(match[2].split())) for match in found if match)


def _with_examples(text: str) -> str:
    """Put doctests that stand bare into blocks of code."""
    blocks = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(
        block
        if block.startswith("```")
        else re.sub(
            r"^>>>.*?(?=\n\s*\n|\Z)", lambda match: fence("python", match[0]), block, flags=re.MULTILINE | re.DOTALL
        )
        for block in blocks
    )


def to_markdown(found: Docstring) -> str:
    """Return the whole docstring: text, then its sections as lists."""
    parts = [found.text]
    for title, items in found.sections.items():
        lines = [f"- {code(name)}: {meaning}" for name, meaning in items]
        parts.append(f"**{_TITLES[title]}**\n\n" + "\n".join(lines))
    parts += [f"**{title}**: {text}" for title, text in found.prose.items()]
    return join(*parts)


_TITLES = {"Args": "Arguments", "Attributes": "Attributes", "Raises": "Raises"}


@dataclass(frozen=True)
class Argument:
    """A keyword argument of a factory, or a field of a configuration.

    Attributes:
        name: its name.
        annotation: its type as written.
        default: the default as Python shows it, empty where there is none.
        meaning: from the docstring, empty where it is not described.
    """

    name: str
    annotation: str
    default: str
    meaning: str


def described(owner: type[Any]) -> dict[str, str]:
    """Return the attributes that a class and its bases document; a class wins over its bases."""
    found: dict[str, str] = {}
    for one in reversed(owner.__mro__):
        found |= parse(one.__doc__).sections.get("Attributes", ()) if one is not object else {}
    return found


def arguments(factory: Any) -> list[Argument]:  # noqa: ANN401 - a class or a function
    """Return what can be passed to a class or function, with the meaning from its docstrings."""
    meanings: dict[str, str] = {}
    if inspect.isclass(factory):
        meanings |= described(factory) if dataclasses.is_dataclass(factory) else {}
        meanings |= parse(factory.__init__.__doc__).sections.get("Args", ())
    meanings |= parse(factory.__doc__).sections.get("Args", ())
    meanings = {name.lstrip("*"): text for name, text in meanings.items()}
    made = _made_defaults(factory) if dataclasses.is_dataclass(factory) else {}
    return [
        Argument(
            f"{_STARS.get(parameter.kind, '')}{parameter.name}",
            written(parameter.annotation),
            "" if parameter.default is parameter.empty else shown(made.get(parameter.name, parameter.default)),
            meanings.get(parameter.name, ""),
        )
        for parameter in inspect.signature(factory).parameters.values()
    ]


def _made_defaults(config: type[Any]) -> dict[str, Any]:
    """Return the defaults that a dataclass makes anew for every instance."""
    factories = ((field.name, field.default_factory) for field in dataclasses.fields(config))
    return {name: factory() for name, factory in factories if factory is not dataclasses.MISSING}


_STARS = {inspect.Parameter.VAR_KEYWORD: "**", inspect.Parameter.VAR_POSITIONAL: "*"}


def written(annotation: Any) -> str:  # noqa: ANN401 - any annotation
    """Return an annotation as the source has it, empty where there is none."""
    if annotation is inspect.Parameter.empty:
        return ""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def shown(value: object) -> str:
    """Return a default as a reader would write it; long ones are cut and functions are named.

    >>> shown("prefix"), shown(0.1), shown(tuple(range(100)))
    ('"prefix"', '0.1', '(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, ...')
    """
    if isinstance(value, str):
        return f'"{value}"'
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__name__}(...)"
    if type(value) is not float and hasattr(value, "name") and hasattr(value, "value"):
        return f'"{value.value}"'  # type: ignore[union-attr]
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST].rpartition(',')[0]}, ..."


_LONGEST = 79


def argument_table(rows: list[Argument]) -> str:
    """Return arguments as a table, without columns that are empty."""
    columns = {
        "Argument": [code(row.name) for row in rows],
        "Type": [code(row.annotation) if row.annotation else "" for row in rows],
        "Default": [code(row.default) if row.default else "" for row in rows],
        "Meaning": [row.meaning for row in rows],
    }
    kept = {title: cells for title, cells in columns.items() if any(cells)}
    return table(list(kept), zip(*kept.values(), strict=True)) if rows else ""
