"""The tutorials: Markdown files whose every block of code is run by a test, in order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nas_docs.markdown import Page, join, toctree

FOLDER = "tutorials"
SOURCES = Path(__file__).resolve().parents[1] / FOLDER

_BLOCK = re.compile(
    r"^```(?:\{code-block\} )?(?P<language>\w+)\n(?::caption: (?P<file>\S+)\n\n?)?(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        language: "python" is executed, "console" too, line by line after its ``$``; "text" is what the block before
            printed.
        text: the code.
        file: the file that it is the content of, None where it is to be run.
        line: line of the tutorial where it begins.
    """

    language: str
    text: str
    file: str | None
    line: int

    @property
    def commands(self) -> list[str]:
        """The commands of a console block; a backslash continues a line."""
        joined = self.text.replace("\\\n", " ")
        return [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]


def sources() -> list[Path]:
    """Return the files, in the order of their names, which begin with a number."""
    return sorted(SOURCES.glob("*.md"))


def blocks(text: str) -> list[Block]:
    r"""Return all blocks of code of a tutorial.

    >>> blocks("Text.\n\n```python\nx = 1\n```\n")
    [Block(language='python', text='x = 1\n', file=None, line=3)]
    """
    return [
        Block(match["language"], match["text"], match["file"], text.count("\n", 0, match.start()) + 1)
        for match in _BLOCK.finditer(text)
    ]


def pages() -> Iterator[Page]:
    """Return the overview and the tutorials."""
    names = [f"{FOLDER}/{path.stem}" for path in sources()]
    introduction = "Everything here is run as it stands by the project's tests."
    yield Page(f"{FOLDER}/index", join("# Tutorials", introduction, toctree(names)))
    for name, path in zip(names, sources(), strict=True):
        yield Page(name, path.read_text(encoding="utf-8"))
