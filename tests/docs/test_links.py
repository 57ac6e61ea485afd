"""Internal links and anchors of a site, followed."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("sphinx")
from nas_docs.links import broken


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a site of two pages and a picture."""
    (tmp_path / "pages").mkdir()
    (tmp_path / "picture one.png").write_bytes(b"")
    (tmp_path / "pages" / "b.html").write_text('<h1 id="top">B</h1><a href="../a.html#end">a</a>')
    write(tmp_path, '<a href="pages/b.html#top">b</a><a href="#end">end</a>')
    return tmp_path


def write(site: Path, body: str) -> None:
    """Write the first page."""
    (site / "a.html").write_text(f'{body}<p id="end"></p>')


def test_links_that_resolve_are_no_problem(site: Path) -> None:
    """To files, anchors of files, and anchors of the page itself."""
    assert broken(site) == []


@pytest.mark.parametrize(
    "target", ["pages/c.html", "pages/b.html#bottom", "#bottom", "../a.html", "pages", "pages/b.html#b c"]
)
def test_a_link_that_leads_nowhere_is_reported(site: Path, target: str) -> None:
    """By its page and as it is written."""
    write(site, f'<a href="{target}">x</a>')
    assert broken(site) == [f"a.html: {target}"]


def test_a_missing_picture_is_reported(site: Path) -> None:
    """Sources count as links do."""
    write(site, '<img src="none.png">')
    assert broken(site) == ["a.html: none.png"]


@pytest.mark.parametrize("target", ["picture%20one.png", "picture%20one.png?v=3", "pages/b.html?v=3#top"])
def test_quoted_names_and_checksums_are_understood(site: Path, target: str) -> None:
    """As browsers do."""
    write(site, f'<a href="{target}">x</a>')
    assert broken(site) == []


@pytest.mark.parametrize("target", ["https://example.org/x#y", "//example.org/x", "mailto:nobody@example.org"])
def test_other_sites_are_not_fetched(site: Path, target: str) -> None:
    """They may be down, and CI has no network."""
    write(site, f'<a href="{target}">x</a>')
    assert broken(site) == []
