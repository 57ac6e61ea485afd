"""The main result: all methods on the tasks of several suites, as tables and a figure.

``python -m nas_benchmarks.main_result --update README.md --figure main.png`` reads the recorded runs that come with
the package, or other records of ``nas-gym bench run`` and ``bench pack``; nothing is run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nas_gym.errors import MissingExtra, NASGymError

from .markdown import replace_between
from .recorded import BASELINES, rows_at
from .records import Row
from .report.style import looks
from .report.suite_record import banded, regret_curve
from .statistics import Interval, iqm, mean_interval, probability_of_improvement, shown, stratified_bootstrap
from .summary import Table, check_one_protocol, final_scores, matrix, shared_seeds

RECORDS = (BASELINES / "main.parquet", BASELINES / "nats.parquet")
"""The recorded runs that come with the package."""

STRUCTURELESS = "local_search"
"""What knows the neighbours of an architecture and nothing of a sequence of decisions."""

PAIRS = (
    ("decisions remembered", "reinforce tuned", "reinforce tuned, independent logits"),
    ("illegal actions masked", "sb3:maskable_ppo tuned", "sb3:ppo tuned"),
    ("values learnt from all episodes", "sb3:masked_dqn tuned", "sb3:maskable_ppo tuned"),
    ("neighbours instead of a tree", "local_search", "uct"),
    ("neighbours instead of nothing", "local_search", "random_search"),
)
"""What two methods differ in, the one that has it, and the one that has not; the first pair in nothing else at all."""

MARKERS = "main"
"""Name of the generated part of a Markdown page."""

REPETITIONS = 2_000

_FIRST_DRAWN = 5
"""Queries where the figure begins; before, it would show little but luck."""


def gathered(paths: Sequence[Path]) -> list[Row]:
    """Return the rows of several records, ordered.

    Raises:
        InvalidArgument: a path is no record, or they differ in protocol, task or table.
        RecordError: one is damaged.
    """
    rows = [row for path in paths for row in rows_at(path)]
    check_one_protocol(rows)
    return sorted(rows, key=lambda row: (row["task"], row["method"], row["seed"]))


def ranking(rows: Sequence[Row]) -> Table:
    """Return every method's score over all tasks, best first, with its mean regret on each."""
    scores, regrets = final_scores(rows), final_scores(rows, "regret")
    tasks = sorted({row["task"] for row in rows})
    rng = np.random.default_rng(0)
    lines: list[tuple[float, tuple[str, ...]]] = []
    for method, of_tasks in scores.items():
        seeds = shared_seeds(tasks, of_tasks)
        if not seeds:
            continue
        score = stratified_bootstrap(iqm, matrix(of_tasks, tasks, seeds), rng, REPETITIONS)
        cells = [
            shown(mean_interval(100 * np.array(list(regrets[method][task].values())), rng, REPETITIONS), 2)
            for task in tasks
        ]
        mine = [row for row in rows if row["method"] == method]
        unique = f"{np.mean([row['unique_architectures'] for row in mine]):.0f}"
        gains = [row["final_policy"]["gain"] for row in mine if row["final_policy"]]
        gain = f"{100 * np.mean(gains):+.1f}" if gains else ""
        lines.append((-score.value, (method, shown(score, 4), *cells, unique, gain)))
    budget, runs = rows[0]["budget"], _seeds(rows)
    notes = (
        f"{budget} queries, {runs} seeds a task. Score: interquartile mean over all runs, 1 = the best architecture of "
        "the space, 0 = the mean one. Columns of tasks: regret of the incumbent on held-out data in percentage points, "
        "mean over the seeds. 95 % stratified bootstrap intervals. Unique: different architectures among the queries. "
        "Policy gain: by how much 200 samples of the final policy surpass uniform ones, in points of reward.",
    )
    ordered = tuple(cells for _, cells in sorted(lines, key=lambda line: line[0]))
    return Table("All methods", ("method", "score", *tasks, "unique", "policy gain"), ordered, notes)


def against(rows: Sequence[Row], reference: str = STRUCTURELESS) -> Table:
    """Return with what probability a run of each method surpasses a run of the reference, on every task."""
    scores = final_scores(rows)
    tasks = sorted({row["task"] for row in rows})
    rng = np.random.default_rng(0)
    lines: list[tuple[float, tuple[str, ...]]] = []
    for method in scores:
        if method == reference:
            continue
        found = [_improvement(scores, method, reference, task, rng) for task in tasks]
        known = [interval.value for interval in found if interval is not None]
        cells = ["" if interval is None else shown(interval, 2) for interval in found]
        lines.append((-float(np.mean(known)) if known else 0.0, (method, *cells)))
    ordered = tuple(cells for _, cells in sorted(lines, key=lambda line: line[0]))
    note = (
        f"Probability that a run of the method ends better than a run of {reference}, ties counting one half; "
        "95 % bootstrap intervals. An interval that lies above 0.5 speaks for the method, one below for the reference."
    )
    return Table(f"Against {reference}", ("method", *tasks), ordered, (note,))


def _improvement(
    scores: dict[str, dict[str, dict[int, float]]], method: str, reference: str, task: str, rng: np.random.Generator
) -> Interval | None:
    first, second = scores[method].get(task), scores.get(reference, {}).get(task)
    if not first or not second:
        return None
    columns = [np.array(list(values.values()))[:, None] for values in (first, second)]
    return probability_of_improvement(columns[0], columns[1], rng, REPETITIONS)


def differences(rows: Sequence[Row]) -> Table:
    """Return by how much some property lowers the regret on every task, by methods that have it and have it not."""
    regrets = final_scores(rows, "regret")
    tasks = sorted({row["task"] for row in rows})
    rng = np.random.default_rng(0)
    lines = []
    for what, first, second in PAIRS:
        cells = []
        for task in tasks:
            one, other = regrets.get(first, {}).get(task, {}), regrets.get(second, {}).get(task, {})
            shared = sorted(set(one) & set(other))
            gain = 100 * np.array([other[seed] - one[seed] for seed in shared])
            cells.append(shown(mean_interval(gain, rng, REPETITIONS), 2) if shared else "")
        if any(cells):
            lines.append((f"{first} < {second}", what, *cells))
    note = (
        "By how many points the regret of the first method is below that of the second, mean over paired seeds with "
        "95 % bootstrap intervals; positive = the first is better."
    )
    return Table("Differences", ("methods", "what differs", *tasks), tuple(lines), (note,))


def _seeds(rows: Sequence[Row]) -> str:
    """Return how many runs a method has on a task, as words."""
    counts: dict[tuple[str, str], int] = {}
    for row in rows:
        counts[row["method"], row["task"]] = counts.get((row["method"], row["task"]), 0) + 1
    least, most = min(counts.values()), max(counts.values())
    return str(least) if least == most else f"{least} to {most}"


def as_markdown(tables: Sequence[Table]) -> str:
    """Return the tables for a page, with their notes below them."""
    parts = []
    for table in tables:
        lines = [f"| {' | '.join(table.columns)} |", "|---" * len(table.columns) + "|"]
        lines += [f"| {' | '.join((f'`{row[0]}`', *row[1:]))} |" for row in table.rows]
        parts.append("\n".join([*lines, "", *table.notes]))
    return "\n\n".join(parts)


# --- figure ----------------------------------------------------------------------------------------


def draw(rows: Sequence[Row], methods: Sequence[str], path: Path) -> None:
    """Draw mean regret against queries with its band, a panel a task.

    Args:
        rows: of all methods; those not named are drawn thin and grey.
        methods: to be named in the legend.
        path: PNG file to write.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("the figure of the main result", "plots", error) from error
    tasks = sorted({row["task"] for row in rows})
    columns = min(len(tasks), 2)
    lines = -(-len(tasks) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.1 * lines + 0.7), dpi=130, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten().tolist()
    for panel in panels[len(tasks) :]:
        panel.set_axis_off()
    budget = rows[0]["budget"]
    queries = np.unique(np.geomspace(min(_FIRST_DRAWN, budget), budget, 120).round())
    rng = np.random.default_rng(0)
    look = looks(methods)
    handles = {}
    for panel, task in zip(panels, tasks, strict=False):
        for method in sorted({row["method"] for row in rows}, key=lambda name: name in methods):
            mine = [row for row in rows if row["task"] == task and row["method"] == method]
            if not mine:
                continue
            mean, low, high = banded(100 * np.stack([regret_curve(row, queries) for row in mine]), rng, 500)
            if method not in methods:
                panel.plot(queries, mean, color="#c4c4c4", linewidth=0.8, zorder=1)
                continue
            colour, dash = look[method].colour, look[method].dash[1]
            (handles[method],) = panel.plot(queries, mean, dash, color=colour, linewidth=1.6, zorder=3)
            if low is not None:
                panel.fill_between(queries, low, high, color=colour, alpha=0.13, linewidth=0, zorder=2)
        panel.set(xscale="log", yscale="log", xlim=(queries[0], budget), title=task)
        panel.grid(alpha=0.25, which="both")
        panel.set_xlabel("queries")
    figure.supylabel("held-out regret of the incumbent, points", fontsize=10)
    figure.legend(
        [handles[name] for name in methods if name in handles],
        [name for name in methods if name in handles],
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=8,
    )
    FigureCanvasAgg(figure).print_png(path)


def drawn_methods(table: Table, most: int = 7) -> list[str]:
    """Return the methods that are drawn in colour: the first of each agent in the ranking, so many, and random search.

    >>> rows = (("uct tuned", "0.9"), ("uct", "0.8"), ("random_search", "0.7"))
    >>> drawn_methods(Table("", ("method", "score"), rows))
    ['uct tuned', 'random_search']
    """
    first: dict[str, str] = {}
    for method, *_ in table.rows:
        first.setdefault(method.split(" ")[0], method)
    chosen = list(first.values())[: most - 1]
    return [*chosen, *(name for agent, name in first.items() if agent == "random_search" and name not in chosen)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m nas_benchmarks.main_result", description=__doc__)
    parser.add_argument("records", nargs="*", type=Path, help="records; those that come with the package by default")
    parser.add_argument("--update", type=Path, help="page whose part between the markers 'main' is replaced")
    parser.add_argument("--figure", type=Path, help="PNG file to write")
    given = parser.parse_args(arguments)
    try:
        rows = gathered(given.records or [path for path in RECORDS if path.is_file()])
        tables = [ranking(rows), against(rows), differences(rows)]
        text = as_markdown(tables)
        sys.stdout.write(text + "\n")
        if given.update is not None:
            replace_between(given.update, MARKERS, text)
        if given.figure is not None:
            draw(rows, drawn_methods(tables[0]), given.figure)
    except (NASGymError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
