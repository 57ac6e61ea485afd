"""Generated parts of Markdown pages, between markers."""

from __future__ import annotations

from pathlib import Path

from nas_gym.errors import InvalidArgument


def replace_between(path: Path, name: str, text: str) -> None:
    """Replace what stands between ``<!-- name:begin -->`` and ``<!-- name:end -->``.

    Raises:
        InvalidArgument: the file lacks one of the markers.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found, rest = path.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise InvalidArgument(f"{path} lacks the markers {begin} and {end}.")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}")
