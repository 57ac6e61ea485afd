"""What a record says: per task and over all tasks, every method beside its references, as plain tables.

A table here is headings and rows of text, which a terminal and a Markdown page show alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidArgument

from .records import Row
from .statistics import (
    REPETITIONS,
    Comparison,
    holm,
    iqm,
    mean_interval,
    paired_test,
    probability_of_improvement,
    shown,
    stratified_bootstrap,
)
from .suites import REFERENCES

Scores = Mapping[int, float]
"""A score by seed."""

FEW_SEEDS = 20
"""With fewer, the page says that they are few: rankings by 20 runs are wrong as a whole in one case of five."""


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: above it.
        columns: headings.
        rows: cells.
        notes: below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def final_scores(rows: Sequence[Row], what: str = "normalised") -> dict[str, dict[str, dict[int, float]]]:
    """Return a score after the whole budget, by method, task and seed.

    Args:
        rows: of a record.
        what: "normalised" (1 = the best of the space, 0 = its mean) or "regret".
    """
    found: dict[str, dict[str, dict[int, float]]] = {}
    for row in rows:
        found.setdefault(row["method"], {}).setdefault(row["task"], {})[row["seed"]] = row[what][str(row["budget"])]
    return found


def matrix(scores: Mapping[str, Scores], tasks: Sequence[str], seeds: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return the scores of one method as an array, shape [R, T]."""
    return np.array([[scores[task][seed] for task in tasks] for seed in seeds], np.float64)


def shared_seeds(tasks: Sequence[str], *methods: Mapping[str, Scores]) -> list[int]:
    """Return the seeds that all of some methods have on all tasks, ascending."""
    sets = [set(scores.get(task, ())) for scores in methods for task in tasks]
    return sorted(set.intersection(*sets)) if sets else []


def compared(
    rows: Sequence[Row], against: Sequence[str] = REFERENCES, repetitions: int = REPETITIONS
) -> list[Comparison]:
    """Compare every method with the references there are, on their shared seeds, corrected for all tests together.

    As `statistics.compare`, but every pair is tested on the seeds that these two have, so that a method with few runs
    does not shorten the others'.
    """
    scores = final_scores(rows)
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    pairs: list[tuple[str, str]] = []
    for other in (name for name in against if name in scores):
        pairs += [(name, other) for name in scores if name != other and (other, name) not in pairs]
    rng = np.random.default_rng(0)
    found = []
    for name, other in pairs:
        seeds = shared_seeds(tasks, scores[name], scores[other])
        if seeds:
            first, second = matrix(scores[name], tasks, seeds), matrix(scores[other], tasks, seeds)
            better = probability_of_improvement(first, second, rng, repetitions)
            found.append((name, other, better, paired_test(first, second, rng)))
    adjusted = holm([test.p_value for *_, test in found])
    return [
        Comparison(name, other, better, test, float(corrected))
        for (name, other, better, test), corrected in zip(found, adjusted, strict=True)
    ]


def summary(rows: Sequence[Row], repetitions: int = REPETITIONS) -> list[Table]:
    """Return the tables of a record: over all tasks, per task, comparisons.

    Args:
        rows: finished runs by one protocol.
        repetitions: of the bootstrap.

    Raises:
        InvalidArgument: no run, or runs by several protocols or on several tables of one name.
    """
    check_one_protocol(rows)
    # Rows are in the order in which runs happened to end, which tables and draws must not depend on.
    rows = sorted(rows, key=lambda row: (row["task"], row["method"], row["seed"]))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    overall = _overall(rows, methods, repetitions)
    return [overall, _per_task(rows, methods), *_comparisons(rows, repetitions)]


def check_one_protocol(rows: Sequence[Row]) -> None:
    """Check that rows may stand in one table.

    Raises:
        InvalidArgument: they may not.
    """
    if not rows:
        raise InvalidArgument("there is no finished run to summarise.")
    if len(protocols := {row["protocol_hash"] for row in rows}) > 1:
        raise InvalidArgument(f"the runs were made by {len(protocols)} protocols ({', '.join(sorted(protocols))}).")
    for task in {row["task"] for row in rows}:
        for name in ("task_hash", "table_sha256"):
            values = {str(row[name]) for row in rows if row["task"] == task}
            if len(values) > 1:
                raise InvalidArgument(f"the runs on {task!r} differ in {name}: {', '.join(sorted(values))}.")


def _overall(rows: Sequence[Row], methods: Sequence[str], repetitions: int) -> Table:
    """Return the interquartile mean of the normalised score over all tasks, best method first."""
    scores = final_scores(rows)
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    rng = np.random.default_rng(0)
    found: list[tuple[float, tuple[str, ...]]] = []
    counts = []
    for method in methods:
        mine = [row for row in rows if row["method"] == method]
        seeds = shared_seeds(tasks, scores[method])
        unique = f"{np.mean([row['unique_architectures'] for row in mine]):.1f}"
        wall = f"{np.mean([row['wall_seconds'] for row in mine]):.2f}"
        gains = [row["final_policy"]["gain"] for row in mine if row["final_policy"]]
        gain = f"{np.mean(gains):+.4f}" if gains else ""
        if seeds:
            counts.append(len(seeds))
            interval = stratified_bootstrap(iqm, matrix(scores[method], tasks, seeds), rng, repetitions)
            cells = (method, shown(interval, 4), str(len(seeds)), unique, gain, wall)
            found.append((-interval.value, cells))
        else:
            found.append((np.inf, (method, "not on all tasks", "", unique, gain, wall)))
    budget = rows[0]["budget"]
    notes = [f"{budget} queries; normalised score: 1 = the best of the space, 0 = its mean; {_INTERVALS}"]
    if counts and min(counts) < FEW_SEEDS:
        notes.append(f"Some methods have {min(counts)} seeds only: too few to rank methods by.")
    return Table(
        f"All tasks ({', '.join(tasks)})",
        ("method", "IQM of the score", "seeds", "unique", "policy gain", "seconds"),
        tuple(cells for _, cells in sorted(found, key=lambda one: one[0])),
        tuple(notes),
    )


_INTERVALS = "95 % stratified bootstrap intervals."


def _per_task(rows: Sequence[Row], methods: Sequence[str]) -> Table:
    """Return the mean regret of every method on every task."""
    regrets = final_scores(rows, "regret")
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    rng = np.random.default_rng(0)
    lines = []
    for method in methods:
        cells: list[str] = []
        for task in tasks:
            values = 100 * np.array(list(regrets[method].get(task, {}).values()))
            cells.append(shown(mean_interval(values, rng), 2) if len(values) else "")
        lines.append((method, *cells))
    note = "mean held-out regret of the incumbent, x 100 (percentage points for accuracies); lower is better."
    return Table("Regret per task", ("method", *tasks), tuple(lines), (note,))


def _comparisons(rows: Sequence[Row], repetitions: int) -> list[Table]:
    """Return how probably every method improves on each reference, with the paired tests."""
    found = compared(rows, repetitions=repetitions)
    tables = []
    for other in dict.fromkeys(one.against for one in found):
        lines = tuple(
            (
                one.method,
                shown(one.improvement, 2),
                f"{one.test.difference:+.4f}",
                f"{one.adjusted:.2g}" + (" *" if one.adjusted <= 0.05 else ""),
            )
            for one in found
            if one.against == other
        )
        columns = ("method", "P(improvement)", "mean difference", "p (Holm)")
        tables.append(Table(f"Against {other}", columns, lines))
    if tables:
        last = tables[-1]
        note = (
            f"paired permutation tests over seeds, corrected for all {len(found)} comparisons above; * = at most 0.05. "
            "Two references are compared once, under the first of them."
        )
        tables[-1] = Table(last.title, last.columns, last.rows, (note,))
    return tables


def markdown(tables: Sequence[Table], title: str, first_line: str = "") -> str:
    """Return the tables as a Markdown page.

    Args:
        tables: to show.
        title: of the page.
        first_line: above everything, where something must not be overlooked.
    """
    lines = [first_line, ""] if first_line else []
    lines += [f"# {title}", ""]
    for table in tables:
        lines += [f"## {table.title}", "", f"| {' | '.join(table.columns)} |", "|---" * len(table.columns) + "|"]
        lines += [f"| {' | '.join((f'`{row[0]}`', *row[1:]))} |" for row in table.rows]
        lines += ["", *(f"{note[0].upper()}{note[1:]}" for note in table.notes), ""]
    return "\n".join(lines)
