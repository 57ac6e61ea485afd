"""``nas-gym report``: a page, and the parts of a paper, of a run or a suite."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from nas_benchmarks.records import TornRow
from nas_benchmarks.report import read, write_page, write_paper
from nas_benchmarks.report.page import check_replaceable, plotly_script
from nas_benchmarks.report.paper import check_folder
from nas_gym.cli.console import errors, output


def report(
    record: Annotated[
        Path,
        typer.Argument(help="Directory of `search` or `bench run`, or file of `bench pack`.", metavar="RUN_OR_SUITE"),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="HTML file to write, an earlier report is replaced; by default RUN_OR_SUITE/report.html."),
    ] = None,
    paper: Annotated[
        Path | None,
        typer.Option(help="Also write LaTeX tables, PDF figures, the protocol and BibTeX into this directory."),
    ] = None,
) -> None:
    """Make a self-contained page of a search or a suite: charts, tables, the best architectures, the protocol.

    The page is one file that loads nothing; most of its 5 MB is the script that draws the charts.

    Example: nas-gym report runs/bench-smoke --paper paper
    """
    plotly_script()  # Says what is missing before anything is computed.
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", TornRow)
        content = read(record)
    for one in told:
        errors.print(f"Note: {one.message}", markup=False, highlight=False)
    target = out or (record / "report.html" if record.is_dir() else record.with_suffix(".html"))
    check_replaceable(target)
    if paper is not None:
        check_folder(paper)
    if content.first_line:
        errors.print(content.first_line, markup=False, highlight=False)
    for note in content.notes:
        errors.print(f"Note: {note}", markup=False, highlight=False)
    size = write_page(content, target)
    output.print(f"{target}: {size / 1e6:.1f} MB", markup=False, highlight=False)
    if paper is not None:
        for path in write_paper(content, paper):
            output.print(str(path), markup=False, highlight=False)
