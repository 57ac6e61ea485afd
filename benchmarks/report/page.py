"""The page: one file of HTML that loads nothing, with Plotly's script inside it.

Plotly's Python package brings its full bundle only, about 4.8 MB, which is most of the file.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from nas_gym import __version__
from nas_gym.errors import InvalidArgument, MissingExtra
from nas_gym.files import write_whole

from ..records import WriteFailed, finite
from ..summary import Table
from .bibliography import ENTRIES, Citations, bibtex
from .charts import Chart, charts, cost_axes
from .content import ALL_TASKS, Architecture, Content
from .protocol import paragraph
from .style import looks

GENERATOR = '<meta name="generator" content="nas-gym report">'
"""By which a file is known to be a report, which may be replaced."""

_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""The browser itself refuses to load anything."""

_PARTS = Path(__file__).parent


class Html:
    """Marks words up as HTML; references are numbered."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Number the references in the order of the list below the page."""
        self.numbers = {key: number for number, key in enumerate(keys, start=1)}

    def text(self, words: str) -> str:
        """Return plain words."""
        return escape(words)

    def code(self, name: str) -> str:
        """Return a name as it is typed."""
        return f"<code>{escape(name)}</code>"

    def cite(self, keys: Sequence[str]) -> str:
        """Return links to the references."""
        links = ", ".join(f'<a href="#{escape(key)}">{self.numbers[key]}</a>' for key in keys)
        return f" [{links}]" if links else ""


def plotly_script() -> str:
    """Return the source of Plotly's script.

    Raises:
        MissingExtra: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtra("nas-gym report", "report", error) from error
    return get_plotlyjs()


def write_page(content: Content, path: Path) -> int:
    """Write the page, replacing an earlier report, and return its size in bytes.

    Raises:
        MissingExtra: plotly is not installed.
        InvalidArgument: there is something else of this name.
        WriteFailed: the file cannot be written; an earlier report is intact.
    """
    check_replaceable(path)
    written = page(content).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, written)
    except OSError as error:
        raise WriteFailed(f"{path}: cannot be written: {error.strerror or error}.") from error
    return len(written)


def check_replaceable(path: Path) -> None:
    """Check that a file is a report or not there, and that it could be written.

    Raises:
        InvalidArgument: it is something else.
        WriteFailed: its directory cannot be written.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir():
        raise InvalidArgument(f"{path} is a directory; --out takes the name of a file.")
    if path.exists() and GENERATOR.encode() not in path.read_bytes()[:2000]:
        raise InvalidArgument(
            f"{path} exists and is no report of nas-gym, so it is not replaced; choose another --out."
        )
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise WriteFailed(f"{folder}: cannot be written, so there is no place for {path.name}; choose another --out.")


def page(content: Content) -> str:
    """Return the page.

    Raises:
        MissingExtra: plotly is not installed.
    """
    script = plotly_script()
    drawn = charts(content)
    citations = Citations.of(content.facts)
    keys = citations.keys(statistics=content.facts.kind == "suite")
    body = [
        *([f'<p class="first" role="alert">{escape(content.first_line)}</p>'] if content.first_line else []),
        f"<h1>{escape(content.title)}</h1>",
        *(f'<p class="note">{escape(note)}</p>' for note in content.notes),
        f'<p class="protocol">{paragraph(content.facts, citations, Html(keys))}</p>',
        "<noscript><p><b>The charts and filters of this page need JavaScript; the tables do not.</b></p></noscript>",
        _filters(content),
        *(_table(content, index, table) for index, table in enumerate(content.tables)),
        _download(
            len(content.tables),
            "Download every run as CSV" if content.facts.kind == "suite" else "Download every query as CSV",
        ),
        *_sections(content, drawn),
        _architectures(content),
        _references(keys, citations),
    ]
    data = {
        "methods": content.methods,
        "scope": ALL_TASKS if len(content.tasks) > 1 else next(iter(content.tasks)),
        "axes": cost_axes(content),
        "charts": [chart.figure for chart in drawn],
        "tables": [*(_plain(table) for table in content.tables), _runs(content)],
    }
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            GENERATOR,
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape(content.title)}</title>",
            f"<style>{_part('page.css')}</style>",
            "</head>",
            "<body>",
            *body,
            f'<p class="note">Made by nas-gym {__version__} of the record alone; this file loads nothing.</p>',
            f'<script type="application/json" id="report-data">{_json(data)}</script>',
            f"<script>{script}</script>",
            f"<script>{_part('page.js')}</script>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _part(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")


def _json(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Return JSON that cannot end the element it stands in."""
    return json.dumps(finite(value), separators=(",", ":")).replace("<", "\\u003c")


# --- filters and tables ----------------------------------------------------------------------------


def _filters(content: Content) -> str:
    if len(content.methods) == 1 and len(content.tasks) == 1:
        return ""
    styles = looks(content.methods)
    boxes = "".join(
        f'<label><input type="checkbox" checked data-method="{escape(method)}">'
        f'<span class="swatch" style="background:{styles[method].colour}"></span>{escape(method)}</label>'
        for method in content.methods
    )
    options = "".join(f'<option value="{escape(task)}">{escape(task)}</option>' for task in content.tasks)
    task = (
        f'<label>Task <select id="task"><option value="">all</option>{options}</select></label>'
        if len(content.tasks) > 1
        else ""
    )
    every = '<button type="button" data-all="1">all</button><button type="button" data-all="0">none</button>'
    return (
        f'<details class="filters" open><summary>Filters</summary><fieldset>{task}</fieldset>'
        f"<fieldset>{boxes}{every if len(content.methods) > 1 else ''}</fieldset></details>"
    )


def _table(content: Content, index: int, table: Table) -> str:
    is_suite = content.facts.kind == "suite"
    tasks = [f' data-task="{escape(name)}"' if name in content.tasks else "" for name in table.columns]
    head = "".join(f"<th{task}>{escape(name)}</th>" for name, task in zip(table.columns, tasks, strict=True))
    lines = []
    for row in table.rows:
        method = f" data-methods='{escape(json.dumps([row[0]]))}'" if is_suite and row[0] in content.methods else ""
        cells = "".join(f"<td{task}>{escape(cell)}</td>" for cell, task in zip(row, tasks, strict=True))
        lines.append(f"<tr{method}>{cells}</tr>")
    notes = "".join(f'<p class="note">{escape(note[0].upper() + note[1:])}</p>' for note in table.notes)
    return (
        f'<section><h2>{escape(table.title)}</h2><div class="scroll"><table{"" if is_suite else " class=figures"}>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>{notes}"
        f"{_download(index, 'Download as CSV')}</section>"
    )


def _download(index: int, words: str) -> str:
    return f'<p><button type="button" data-csv="{index}">{words}</button></p>'


def _plain(table: Table) -> dict[str, Any]:
    name = "-".join(
        "".join(letter if letter.isalnum() else " " for letter in table.title.split(" (")[0].lower()).split()
    )
    return {"file": f"{name}.csv", "columns": table.columns, "rows": table.rows}


def _runs(content: Content) -> dict[str, Any]:
    columns, rows = content.runs
    return {"file": "runs.csv" if content.facts.kind == "suite" else "queries.csv", "columns": columns, "rows": rows}


# --- charts ----------------------------------------------------------------------------------------


def _sections(content: Content, drawn: Sequence[Chart]) -> list[str]:
    found = [_section(content.axis.title, content.axis.note, "curves", drawn)]
    if content.profiles:
        note = (
            "The fraction of runs whose normalised score after the whole budget is above a threshold: the higher the "
            "curve, the better. 1 is the best architecture of the space, 0 the mean one."
        )
        found.append(_section("Performance profiles", note, "profiles", drawn))
    if content.costs:
        options = "".join(
            f'<option value="{escape(name)}">{escape(axis["title"])}</option>'
            for name, axis in cost_axes(content).items()
        )
        chooser = f'<p><label>Cost <select id="cost">{options}</select></label></p>'
        what = (
            "the architecture that a run chose"
            if content.facts.kind == "suite"
            else "an architecture that was evaluated"
        )
        note = f"Every point is {what}. The Pareto front joins those shown that no other one surpasses in both."
        found.append(_section("Value and cost", note, "costs", drawn, chooser))
    return found


def _section(title: str, note: str, section: str, drawn: Sequence[Chart], chooser: str = "") -> str:
    key = "scope" if section == "profiles" else "task"
    parts = "".join(
        f'<div class="chart" data-chart="{index}" data-{key}="{escape(chart.task)}"></div>'
        for index, chart in enumerate(drawn)
        if chart.section == section
    )
    return (
        f'<section id="{section}"><h2>{escape(title)}</h2>{chooser}{parts}<p class="note">{escape(note)}</p></section>'
    )


def _architectures(content: Content) -> str:
    if not content.architectures:
        return (
            '<section id="architectures"><h2>Best architectures</h2><p>None was evaluated successfully.</p></section>'
        )
    parts = []
    for task in content.tasks:
        cards = "".join(_card(one) for one in content.architectures if one.task == task)
        heading = f"<h3>{escape(task)}</h3>" if len(content.tasks) > 1 else ""
        parts.append(f'<div data-task="{escape(task)}">{heading}<div class="cards">{cards}</div></div>')
    note = (
        "Of all runs of a method on a task, what the one with the best search-time signal chose; methods that chose "
        "the same share a drawing."
        if content.facts.kind == "suite"
        else "The highest rewards of the search."
    )
    return (
        f'<section id="architectures"><h2>Best architectures</h2><p class="note">{note}</p>{"".join(parts)}</section>'
    )


def _card(one: Architecture) -> str:
    if one.picture is not None:
        source = base64.b64encode(one.picture).decode()
        drawing = f'<img alt="Drawing of {escape(one.notation)}" src="data:image/png;base64,{source}">'
    else:
        drawing = f"<pre>{escape(one.text)}</pre>" if one.text else ""
    return (
        f"<figure class=\"card\" data-methods='{escape(json.dumps(one.methods))}'>{drawing}<figcaption>"
        f'<b>{escape(", ".join(one.methods))}</b><code class="notation">{escape(one.notation)}</code>'
        f"{escape(one.facts)}</figcaption></figure>"
    )


# --- references ------------------------------------------------------------------------------------


def _references(keys: Sequence[str], citations: Citations) -> str:
    items = "".join(f'<li id="{escape(key)}">{escape(ENTRIES[key].words())}</li>' for key in keys)
    unknown = "".join(f'<p class="note">No entry is known for the {escape(name)}.</p>' for name in citations.unknown)
    return (
        f'<section id="references"><h2>References</h2><ol>{items}</ol>{unknown}<p><button type="button" data-bibtex>'
        f'Download BibTeX</button></p><details><summary>BibTeX</summary><pre id="bibtex">'
        f"{escape(bibtex(keys, citations.unknown))}</pre></details></section>"
    )
