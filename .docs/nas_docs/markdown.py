"""Small pieces of Markdown (the MyST flavour)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Page:
    """One source file of the site.

    Attributes:
        name: path without the ending, e.g. "environments/NAS-Cell-v0".
        text: Markdown.
        files: further files that it shows, by their path in the site.
    """

    name: str
    text: str
    files: dict[str, bytes] = field(default_factory=dict)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; bars and line breaks inside cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def code(value: object) -> str:
    """Return inline code; text that holds a backtick gets a longer fence.

    >>> code("x"), code("a `b`")
    ('`x`', '`` a `b` ``')
    """
    text = str(value)
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def fence(language: str, text: str) -> str:
    """Return a block of code."""
    return f"```{language}\n{text.strip()}\n```"


def figure(path: str, caption: str, alternative: str, width: int | None = None) -> str:
    """Return a picture with a caption; `path` starts at the root of the site.

    Args:
        path: of the picture.
        caption: Markdown.
        alternative: what those read who do not see it.
        width: pixels that it needs; a picture wider than the page can be scrolled. None = the page's width at most.
    """
    options = [f":alt: {alternative}", *([] if width is None else [f":width: {width}px", ":figclass: wide"])]
    return "\n".join([f":::{{figure}} /{path}", *options, "", caption, ":::"])


def details(summary: str, text: str) -> str:
    """Return a part that is folded until somebody opens it."""
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def toctree(names: Iterable[str], caption: str | None = None, hidden: bool = False) -> str:
    """Return a table of contents of pages, by name; their order is kept."""
    options = [":maxdepth: 1", *([f":caption: {caption}"] if caption else []), *([":hidden:"] if hidden else [])]
    return "\n".join(["```{toctree}", *options, "", *(f"/{name}" for name in names), "```"])


def join(*parts: str) -> str:
    """Return the parts that are not empty, as paragraphs."""
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def sentence(text: str) -> str:
    """Return a summary with a capital letter and a full stop, unless it begins with code."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", ":")) else ".")
