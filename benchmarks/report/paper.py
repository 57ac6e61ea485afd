"""The parts of a paper: LaTeX tables, vector figures, the paragraph about the protocol, and BibTeX."""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nas_gym.errors import InvalidArgument, MissingExtra
from nas_gym.files import write_whole

from ..records import WriteFailed
from ..summary import Table
from .bibliography import Citations, bibtex
from .charts import cost_axes
from .content import ALL_TASKS, Content, Curve, front
from .protocol import paragraph
from .style import looks

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
}  # fmt: skip

_BREAKABLE = re.compile(r"\\_|[-=:/,]")

_COLUMN, _PAGE = (3.4, 2.9), (6.8, 4.4)
"""Inches of a chart beside text and of one as wide as the text."""
_FITTING = 8
"""Most methods whose legend fits below the smaller one."""

_FONT: dict[Any, Any] = {
    "pdf.fonttype": 42,
    "font.size": 8,
    "axes.titlesize": 9,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
}


def latex(words: str) -> str:
    r"""Return words with everything escaped that LaTeX takes for a command.

    >>> latex("cell_digits: 95 %")
    'cell\\_digits: 95 \\%'
    """
    return "".join(_SPECIAL.get(letter, letter) for letter in words)


class Latex:
    """Marks words up as LaTeX."""

    def text(self, words: str) -> str:
        """Return plain words."""
        return latex(words).replace("95 \\%", "95\\,\\%")

    def code(self, name: str) -> str:
        """Return a name as it is typed; a line may end behind its signs, as typewriter letters are not hyphenated."""
        return r"\texttt{" + _BREAKABLE.sub(r"\g<0>\\allowbreak{}", latex(name)) + "}"

    def cite(self, keys: Sequence[str]) -> str:
        """Return a reference."""
        return rf"~\cite{{{','.join(keys)}}}" if keys else ""


def write_paper(content: Content, folder: Path) -> list[Path]:
    """Write the parts of a paper into a directory, replacing earlier ones, and return their paths.

    Raises:
        MissingExtra: matplotlib is not installed.
        InvalidArgument: the path is no directory.
        WriteFailed: it cannot be written.
    """
    check_folder(folder)
    parts = _figures(content)
    citations = Citations.of(content.facts)
    keys = citations.keys(statistics=content.facts.kind == "suite")
    for table in content.tables:
        parts[f"table-{slug(table.title.split(' (')[0])}.tex"] = _table(table, content).encode()
    parts["protocol.tex"] = (paragraph(content.facts, citations, Latex()) + "\n").encode()
    parts["references.bib"] = bibtex(keys, citations.unknown).encode()
    parts["example.tex"] = _example(content, sorted(parts)).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, written in parts.items():
            write_whole(folder / name, written)
    except OSError as error:
        raise WriteFailed(f"{folder}: cannot be written: {error.strerror or error}.") from error
    return [folder / name for name in sorted(parts)]


def check_folder(folder: Path) -> None:
    """Check that a directory can be made or written.

    Raises:
        InvalidArgument: the path is a file.
        WriteFailed: it cannot be written.
    """
    there = folder if folder.exists() else next(parent for parent in folder.absolute().parents if parent.exists())
    if not there.is_dir():
        raise InvalidArgument(f"{there} is a file; --paper takes a directory.")
    if not os.access(there, os.W_OK):
        raise WriteFailed(f"{there}: cannot be written; choose another --paper.")


def slug(words: str) -> str:
    """Return words as part of a file name.

    >>> slug("NAS-Cell-v0 fidelity=3")
    'nas-cell-v0-fidelity-3'
    """
    return "-".join(
        "".join(letter if letter.isascii() and letter.isalnum() else " " for letter in words.lower()).split()
    )


# --- LaTeX -----------------------------------------------------------------------------------------


def _table(table: Table, content: Content) -> str:
    """Return a table for the packages booktabs and graphicx; method names and architectures are typed as they are."""
    to = Latex()
    is_suite = content.facts.kind == "suite"
    lines = [
        " & ".join([to.code(row[0]) if is_suite else latex(row[0]), *(latex(cell) for cell in row[1:])]) + r" \\"
        for row in table.rows
    ]
    columns = "l" + "r" * (len(table.columns) - 1) if is_suite else r"lp{.7\linewidth}"
    notes = " ".join(note[0].upper() + note[1:].rstrip(".") + "." for note in table.notes)
    caption = f"{content.title}: {table.title[0].lower()}{table.title[1:]}."
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{to.text(f'{caption} {notes}'.strip())}}}",
            rf"\label{{tab:{slug(table.title.split(' (')[0])}}}",
            # No wider than the line, and no wider than it is.
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(latex(name) for name in table.columns) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )


def _example(content: Content, names: Sequence[str]) -> str:
    """Return a document that shows every part."""
    figures = [name for name in names if name.endswith(".pdf")]
    tables = [name for name in names if name.startswith("table-")]
    size = r"width=\linewidth,height=.85\textheight,keepaspectratio"
    lines = [
        r"\documentclass{article}",
        r"\usepackage[T1]{fontenc}",
        r"\usepackage{booktabs,graphicx}",
        r"\begin{document}",
        *([rf"\textbf{{{latex(content.first_line)}}}", ""] if content.first_line else []),
        r"\section*{Protocol}",
        r"\input{protocol}",
        *(rf"\input{{{name.removesuffix('.tex')}}}" for name in tables),
        *(rf"\begin{{figure}}\centering\includegraphics[{size}]{{{name}}}\end{{figure}}" for name in figures),
        r"\bibliographystyle{plain}",
        r"\bibliography{references}",
        r"\end{document}",
        "",
    ]
    return "\n".join(lines)


# --- figures ---------------------------------------------------------------------------------------


def _figures(content: Content) -> dict[str, bytes]:
    """Return every chart as PDF, by file name.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    found = {}
    size = _COLUMN if len(content.methods) <= _FITTING else _PAGE
    for task in content.tasks:
        curves = [curve for curve in content.curves if curve.task == task]
        name = slug(content.axis.title)
        found[f"{name}-{slug(task)}.pdf"] = _pdf(size, lambda figure, curves=curves, task=task: _draw_curves(
            figure, content, curves, task
        ))  # fmt: skip
        if any(point.task == task for point in content.points):
            rows = math.ceil(len(content.costs) / 2)
            large = (6.8, 0.5 + 2.1 * rows) if len(content.costs) > 1 else (3.4, 2.7)
            found[f"costs-{slug(task)}.pdf"] = _pdf(large, lambda figure, task=task: _draw_costs(figure, content, task))
    for scope in dict.fromkeys(curve.task for curve in content.profiles):
        curves = [curve for curve in content.profiles if curve.task == scope]
        name = f"profile-{slug(scope)}.pdf" if scope != ALL_TASKS else "profile.pdf"
        found[name] = _pdf(size, lambda figure, curves=curves, scope=scope: _draw_profiles(
            figure, content, curves, scope
        ))  # fmt: skip
    return found


def _pdf(size: tuple[float, float], draw: Callable[[Any], None]) -> bytes:
    """Return a figure as PDF with embedded fonts; equal figures are equal files."""
    try:
        import matplotlib
        from matplotlib.backends.backend_pdf import FigureCanvasPdf
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("nas-gym report --paper", "report", error) from error
    buffer = io.BytesIO()
    with matplotlib.rc_context(_FONT):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasPdf(figure)
        draw(figure)
        figure.savefig(buffer, format="pdf", metadata={"CreationDate": None, "Creator": "nas-gym"})
    return buffer.getvalue()


def _draw_curves(figure: Any, content: Content, curves: Sequence[Curve], task: str) -> None:  # noqa: ANN401
    axes = figure.add_subplot(title=task, xlabel="queries", ylabel=content.axis.label)
    _draw_lines(axes, content, curves)
    axes.set(xscale="log", yscale="log" if content.axis.log else "linear")
    _few_ticks(axes.xaxis)
    _few_ticks(axes.yaxis)
    _add_legend(figure, axes)


def _draw_profiles(figure: Any, content: Content, curves: Sequence[Curve], scope: str) -> None:  # noqa: ANN401
    title = "all tasks" if scope == ALL_TASKS else scope
    axes = figure.add_subplot(title=title, xlabel=r"normalised score $\tau$", ylabel=r"fraction of runs $> \tau$")
    _draw_lines(axes, content, curves)
    axes.set_ylim(-0.02, 1.02)
    _add_legend(figure, axes)


def _draw_lines(axes: Any, content: Content, curves: Sequence[Curve]) -> None:  # noqa: ANN401
    styles = looks(content.methods)
    for curve in sorted(curves, key=lambda curve: content.methods.index(curve.method)):
        look = styles[curve.method]
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.x, curve.low, curve.high, step="post", color=look.colour, alpha=0.13, linewidth=0)
        axes.step(
            curve.x, curve.y, where="post", color=look.colour, linestyle=look.dash[1], linewidth=1.2, label=curve.method
        )
    axes.grid(alpha=0.25, linewidth=0.5)


def _draw_costs(figure: Any, content: Content, task: str) -> None:  # noqa: ANN401
    styles = looks(content.methods)
    names = content.costs
    columns = min(2, len(names))
    for place, name in enumerate(names, start=1):
        axis = cost_axes(content)[name]
        axes = figure.add_subplot(math.ceil(len(names) / columns), columns, place, xlabel=axis["title"])
        mine = [point for point in content.points if point.task == task and name in point.costs]
        for method in dict.fromkeys(point.method for point in mine):
            pairs = [(point.costs[name], point.value) for point in mine if point.method == method]
            look = styles[method]
            axes.scatter(
                *zip(*pairs, strict=True),
                s=9,
                marker=look.marker[1],
                color=look.colour,
                alpha=0.7,
                linewidths=0,
                label=method,
            )
        edge = front([(point.costs[name], point.value) for point in mine])
        if edge:
            axes.step(
                *zip(*edge, strict=True), where="post", color="0.15", linewidth=0.8, linestyle=":", label="Pareto front"
            )
        axes.set_xscale(axis["type"])
        _few_ticks(axes.xaxis)
        axes.grid(alpha=0.25, linewidth=0.5)
        if place % columns == 1 or columns == 1:
            axes.set_ylabel(content.value_label)
    figure.suptitle(task, fontsize=9)
    _add_legend(figure, figure.axes[0])


def _few_ticks(axis: Any) -> None:  # noqa: ANN401
    """Give an axis few and short numbers: 1, 2, 5, 10k."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    if axis.get_scale() == "log":
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 300 * low else (1.0,)))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(5))
    large = axis.get_view_interval()[1] >= 1000
    axis.set_major_formatter(EngFormatter(sep="") if large else FuncFormatter(lambda value, _: f"{value:.4g}"))


def _add_legend(figure: Any, axes: Any) -> None:  # noqa: ANN401
    """Put the legend below everything, where it covers no curve."""
    handles, labels = axes.get_legend_handles_labels()
    # Four columns of long names would not fit the page.
    columns = 2 if figure.get_size_inches()[0] < 5 else 4 if max(map(len, labels)) < 24 else 3
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
