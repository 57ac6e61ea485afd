"""What a report shows, wherever it was read from and whatever it becomes.

Dimension letters: K points of a curve.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..summary import Table

Floats = npt.NDArray[np.float64]

ALL_TASKS = ""
"""In place of a task's name: all of them together."""


@dataclass(frozen=True, eq=False)
class Curve:
    """A curve of one method on one task, or on all.

    Attributes:
        method: whose it is.
        task: a task, or `ALL_TASKS`.
        x: shape [K], ascending.
        y: shape [K].
        low: lower edge of the band; None where there is a single run, which has none.
        high: upper edge, likewise.
        runs: how many it is made of.
    """

    method: str
    task: str
    x: Floats
    y: Floats
    low: Floats | None
    high: Floats | None
    runs: int


@dataclass(frozen=True)
class Axis:
    """What a chart shows over a number of queries.

    Attributes:
        title: of the section.
        label: of the vertical axis.
        log: whether that is logarithmic.
        note: below the chart.
    """

    title: str
    label: str
    log: bool
    note: str


@dataclass(frozen=True)
class Point:
    """One architecture with its value and its costs.

    Attributes:
        method: who found it.
        task: where.
        value: higher = better.
        costs: by name; lower = better.
        label: shown when pointed at.
    """

    method: str
    task: str
    value: float
    costs: Mapping[str, float]
    label: str


@dataclass(frozen=True)
class Architecture:
    """One of the best architectures, drawn.

    Attributes:
        task: where it was found.
        methods: who found it.
        notation: in the published notation.
        facts: what is known of it, in words.
        picture: PNG, None where it cannot be drawn.
        text: the drawing in characters, where there is no picture.
    """

    task: str
    methods: tuple[str, ...]
    notation: str
    facts: str
    picture: bytes | None = field(repr=False)
    text: str = field(repr=False, default="")


@dataclass(frozen=True)
class Facts:
    """What the paragraph about the protocol is made of.

    Attributes:
        kind: "suite" or "search".
        name: of the suite or run.
        methods: agent of every method; None where somebody's own loop ran it.
        tasks: ``{"env", "table", "table_sha256", "arguments"}`` of every task.
        runs: number of them.
        seeds: fewest and most runs of a method on a task.
        budget: charged queries of a run.
        repeat_query: what a repeated query gives and costs.
        checkpoints: further numbers of queries after which runs were judged.
        versions: of the libraries, several where the runs differ.
        finished: days of the first and the last run, ISO 8601.
        ended: how many runs ended how.
        failed_queries: of all runs together.
        training: queries by which policies were trained before, 0 where none were.
        tuning: by method, where its settings come from: ``{"log", "trial", "trials", "queries"}``.
    """

    kind: str
    name: str
    methods: Mapping[str, str | None]
    tasks: Mapping[str, Mapping[str, Any]]
    runs: int
    seeds: tuple[int, int]
    budget: int
    repeat_query: str
    checkpoints: tuple[int, ...]
    versions: Mapping[str, tuple[str, ...]]
    finished: tuple[str, str]
    ended: Mapping[str, int]
    failed_queries: int
    training: int = 0
    tuning: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Content:
    """Everything that a report shows.

    Attributes:
        title: of the page.
        first_line: above everything; empty where nothing must not be overlooked.
        notes: what else is to be said of the record.
        facts: for the paragraph about the protocol.
        tables: the summary first.
        runs: headings and cells of the table that can be downloaded, a line a run or a query.
        axis: of the curves.
        curves: over queries.
        profiles: fractions of runs above thresholds, none where there are too few runs.
        value_label: of the values of `points`.
        points: for the scatter of value and cost.
        architectures: the best ones.
    """

    title: str
    first_line: str
    notes: tuple[str, ...]
    facts: Facts
    tables: tuple[Table, ...]
    runs: tuple[tuple[str, ...], tuple[tuple[Any, ...], ...]]
    axis: Axis
    curves: tuple[Curve, ...]
    profiles: tuple[Curve, ...]
    value_label: str
    points: tuple[Point, ...]
    architectures: tuple[Architecture, ...]

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, in the order of the summary."""
        return tuple(self.facts.methods)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(self.facts.tasks)

    @property
    def costs(self) -> tuple[str, ...]:
        """Names of the costs that any point has."""
        return tuple(dict.fromkeys(name for point in self.points for name in point.costs))


def front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (cost, value) that no other one surpasses in both, by ascending cost.

    >>> front([(1.0, 0.5), (2.0, 0.4), (3.0, 0.9), (1.0, 0.3)])
    [(1.0, 0.5), (3.0, 0.9)]
    """
    found: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not found or value > found[-1][1]:
            found.append((cost, value))
    return found
