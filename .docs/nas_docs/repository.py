"""The repository's own pages: README as the home page, CONTRIBUTING, CHANGELOG."""

from __future__ import annotations

import re
from pathlib import Path

from nas_docs.markdown import Page

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""

HOME = "index"
DOCUMENTS = {"README.md": HOME, "CONTRIBUTING.md": "contributing", "CHANGELOG.md": "changelog"}
"""Pages of the site by their file."""

_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)(?=[)#])")
_CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def pages() -> list[Page]:
    """Return README, CONTRIBUTING and CHANGELOG with the files that they link to."""
    return [repository_page(path) for path in DOCUMENTS]


def repository_page(path: str) -> Page:
    """Return a Markdown file of the repository; links to its pages and to its other files resolve in the site.

    Raises:
        FileNotFoundError: it links to a file that does not exist.
    """
    text, files = linked((ROOT / path).read_text(encoding="utf-8"))
    return Page(DOCUMENTS[path], text, {name: (ROOT / name).read_bytes() for name in files})


def linked(text: str) -> tuple[str, list[str]]:
    """Return a text with its links to other pages rewritten, and the other files that it links to.

    Blocks and spans of code stay as they are.

    >>> linked("[a](README.md#x), ![b](x.png), `[c](d)`, [e](https://f)")
    ('[a](index.md#x), ![b](x.png), `[c](d)`, [e](https://f)', ['x.png'])
    """
    files = []

    def rewrite(match: re.Match[str]) -> str:
        if match[1] in DOCUMENTS:
            return f"{DOCUMENTS[match[1]]}.md"
        files.append(match[1])
        return match[1]

    parts, end = [], 0
    for block in _CODE.finditer(text):
        parts += [_LINK.sub(rewrite, text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, _LINK.sub(rewrite, text[end:])]), files
