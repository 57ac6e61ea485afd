"""The whole site: all pages written to a folder, rendered by Sphinx, and every link of the result followed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from sphinx.cmd.build import build_main

from nas_docs import agents, api, command_line, environments, registries, repository, tables, tutorials, wrappers
from nas_docs.links import broken
from nas_docs.markdown import Page, join, toctree

CONFIGURATION = Path(__file__).resolve().parents[1]

SPHINX = ("-b", "html", "-W", "--keep-going", "-q", "-E", "-j", "auto")
"""Arguments: warnings are errors, all of them are shown, and all processors are used."""

SIDEBAR = {
    "Learn": ("tutorials/index",),
    "Catalogue": (
        "environments/index",
        "agents/index",
        "search-spaces",
        "evaluators",
        "objectives",
        "datasets",
        "tables",
        "wrappers",
    ),
    "Reference": ("command-line", "api/index"),
    "Project": ("contributing", "changelog"),
}
"""Pages by caption, in the order of the navigation."""


def pages() -> Iterator[Page]:
    """Iterate over all pages; the home page begins the navigation."""
    home, *others = repository.pages()
    contents = (toctree(names, caption, hidden=True) for caption, names in SIDEBAR.items())
    yield Page(home.name, join(home.text, *contents), home.files)
    yield from others
    for source in (tutorials, environments, agents, registries, tables, wrappers, command_line, api):
        yield from source.pages()


def write(folder: Path) -> None:
    """Write the sources of the site into a new folder."""
    for page in pages():
        contents = {f"{page.name}.md": page.text.encode(), **page.files}
        for name, content in contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def build(out: Path) -> list[str]:
    """Build the site into `out`, whose former content is removed; warnings are errors.

    Returns:
        What is wrong: links that lead nowhere, or that Sphinx refused a page.
    """
    sources = out.with_name(f"{out.name}-sources")
    for folder in (sources, out):
        shutil.rmtree(folder, ignore_errors=True)
    with _packaged_tables_only():
        write(sources)
    cache = sources / ".doctrees"
    if build_main([*SPHINX, "-c", str(CONFIGURATION), "-d", str(cache), str(sources), str(out)]):
        return ["Sphinx gave warnings, see above"]
    return broken(out)


@contextlib.contextmanager
def _packaged_tables_only() -> Iterator[None]:
    """Hide the tables and data sets of this machine, so that every machine builds the same site."""
    hidden = os.environ.pop("NAS_GYM_DATA", None)
    try:
        yield
    finally:
        if hidden is not None:
            os.environ["NAS_GYM_DATA"] = hidden
