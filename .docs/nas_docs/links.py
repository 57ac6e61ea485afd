"""Follows every link inside a built site; links to other sites are not fetched."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

_TARGETS = {"a": "href", "img": "src", "script": "src", "link": "href"}


@dataclass
class Document:
    """What a page of HTML links to and what can be linked to in it.

    Attributes:
        targets: values of href and src.
        anchors: ids.
    """

    targets: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, path: Path) -> Document:
        """Read a file."""
        reader = _Reader()
        reader.feed(path.read_text(encoding="utf-8"))
        return reader.document


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.document = Document()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if anchor := given.get("id"):
            self.document.anchors.add(anchor)
        if target := given.get(_TARGETS.get(tag, "")):
            self.document.targets.append(target)


def broken(folder: Path) -> list[str]:
    """Return one line for every internal link to a file or anchor that does not exist, sorted."""
    documents = {path.resolve(): Document.read(path) for path in sorted(folder.rglob("*.html"))}
    found = {
        f"{path.relative_to(folder.resolve())}: {target}"
        for path, document in documents.items()
        for target in document.targets
        if not _resolves(target, path, documents)
    }
    return sorted(found)


def _resolves(target: str, path: Path, documents: dict[Path, Document]) -> bool:
    if urlsplit(target).scheme or target.startswith("//"):
        return True
    # Static files carry a checksum behind a question mark.
    location, anchor = urldefrag(target)
    location = unquote(location.partition("?")[0])
    file = (path.parent / location).resolve() if location else path
    if not file.is_file():
        return False
    # A search engine or a script may interpret an anchor of other files than pages.
    return not anchor or file not in documents or unquote(anchor) in documents[file].anchors
