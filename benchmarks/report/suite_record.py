"""From the record of a suite to what a report shows.

Dimension letters: R runs, K points of a curve, B repetitions of the bootstrap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..metrics import Yardstick, simple_regret
from ..recorded import SuiteRecord, rows_at
from ..records import RecordError, Row, read_rows
from ..statistics import REPETITIONS, performance_profile
from ..suites import digest
from ..summary import final_scores, matrix, shared_seeds, summary
from .content import ALL_TASKS, Architecture, Axis, Content, Curve, Facts, Floats, Point
from .known import Known

_POINTS = 80
_THRESHOLDS = 101
_RUN_COSTS = ("simulated_seconds", "simulated_seconds_parallel", "wall_seconds", "unique_architectures")

REGRET = Axis(
    "Regret",
    "mean held-out regret",
    log=True,
    note="Simple regret of the incumbent: how far the architecture with the best search-time signal is from the best "
    "of the space by the held-out metric. On the logarithmic axis a regret below half that of the second best value, 0 "
    "included, is drawn as that half. Bands are 95 % bootstrap intervals of the mean over runs.",
)


def read_suite(path: Path) -> Content:
    """Return what a report of a suite's record shows.

    Args:
        path: directory of `nas-gym bench run`, or file of `nas-gym bench pack`.

    Warns:
        TornRow: the record ends in part of a row.

    Raises:
        InvalidArgument: it holds no finished run, or runs that may not stand in one table.
        RecordError: it is damaged.
    """
    rows = rows_at(path)
    try:
        return _content(path, sorted(rows, key=lambda row: (row["task"], row["method"], row["seed"])))
    except (KeyError, TypeError) as error:
        raise RecordError(
            f"{path} lacks what a suite of this version records ({type(error).__name__}: {error}); report it with the "
            "version of nas-gym that wrote it."
        ) from error


def _content(path: Path, rows: Sequence[Row]) -> Content:
    tables = summary(rows)
    definition = SuiteRecord(path).definition() if path.is_dir() else None
    order = [line[0] for line in tables[0].rows]
    facts = _facts(rows, order, path.stem if rows[0]["suite"] is None else str(rows[0]["suite"]))
    known, notes = _known(rows, definition)
    failures = read_rows(path / "failures.jsonl") if path.is_dir() else []
    if failures:
        notes.append(f"{len(failures)} runs raised an error and are not shown; see failures.jsonl.")
    if facts.seeds[1] == 1:
        notes.append("There is a single seed: no band can be drawn, and nothing follows about the methods.")
    elif facts.seeds[0] == 1:
        notes.append("Some methods have a single run on a task: their curves have no band.")
    return Content(
        title=f"Suite {facts.name}",
        first_line=first_line(rows, definition),
        notes=tuple(notes),
        facts=facts,
        tables=tuple(tables),
        runs=_runs(rows),
        axis=REGRET,
        curves=tuple(_curves(rows, facts)),
        profiles=tuple(_profiles(rows, facts)),
        value_label=_value_label(known),
        points=tuple(_points(rows, facts, known)),
        architectures=tuple(_architectures(rows, facts, known)),
    )


def first_line(rows: Sequence[Row], definition: Mapping[str, Any] | None) -> str:
    """Return what must not be overlooked: tasks of the suite that the record lacks."""
    if definition is None:
        return ""
    lacking = [name for name in definition["tasks"] if name not in {row["task"] for row in rows}]
    if not lacking:
        return ""
    allowed = any("--allow-missing" in row["command"] for row in rows)
    reason = "left out (--allow-missing)" if allowed else "not run yet, or not asked for"
    return f"Incomplete: the suite also has the tasks {', '.join(lacking)}; {reason}."


def _facts(rows: Sequence[Row], order: Sequence[str], name: str) -> Facts:
    counts = Counter((row["method"], row["task"]) for row in rows)
    agents = {row["method"]: row["agent"] for row in rows}
    tasks = {
        row["task"]: {"env": row["env"], "table": row["table"], "table_sha256": row["table_sha256"]} for row in rows
    }
    days = sorted(row["finished"][:10] for row in rows)
    libraries = dict.fromkeys(library for row in rows for library in row["versions"])
    trainings = [row["training"]["queries"] for row in rows if row["training"]]
    return Facts(
        kind="suite",
        name=name,
        methods={method: agents[method] for method in order},
        tasks=tasks,
        runs=len(rows),
        seeds=(min(counts.values()), max(counts.values())),
        budget=rows[0]["budget"],
        repeat_query=rows[0]["repeat_query"],
        checkpoints=tuple(int(queries) for queries in rows[0]["regret"] if int(queries) != rows[0]["budget"]),
        versions={
            library: tuple(sorted({row["versions"][library] for row in rows if library in row["versions"]}))
            for library in libraries
        },
        finished=(days[0], days[-1]),
        ended=Counter(row["ended"] for row in rows),
        failed_queries=sum(row["failed"] for row in rows),
        training=max(trainings, default=0),
        tuning={row["method"]: row["tuning"] for row in rows if row.get("tuning")},
    )


def _known(rows: Sequence[Row], definition: Mapping[str, Any] | None) -> tuple[dict[str, Known | None], list[str]]:
    """Return the environments of every task, and what is to be said of them."""
    found: dict[str, Known | None] = {}
    notes = []
    for row in {row["task"]: row for row in rows}.values():
        defined = (definition or {}).get("tasks", {}).get(row["task"])
        arguments = {} if row["table"] is None else {"table": row["table"]}
        if defined is not None and digest(defined) == row["task_hash"]:
            arguments = dict(defined["arguments"])
        found[row["task"]], said = Known.of(row["env"], arguments, row["table_sha256"])
        notes += [f"{row['task']}: {said}"] if said else []
    return found, notes


def _runs(rows: Sequence[Row]) -> tuple[tuple[str, ...], tuple[tuple[Any, ...], ...]]:
    plain = (
        "task", "method", "seed", "env", "table", "budget", "queries", "unique_architectures", "failed", "entropy",
        "environment_steps", "simulated_seconds", "simulated_seconds_parallel", "wall_seconds", "log_regret_area",
        "ended", "config_hash", "table_sha256", "finished",
    )  # fmt: skip
    judged = list(rows[0]["regret"])
    headings = (
        *plain[:6],
        *(f"regret_at_{queries}" for queries in judged),
        *(f"normalised_at_{queries}" for queries in judged),
        *plain[6:],
        "architecture",
    )
    lines = tuple(
        (
            *(row[name] for name in plain[:6]),
            *(row["regret"][queries] for queries in judged),
            *(row["normalised"][queries] for queries in judged),
            *(row[name] for name in plain[6:]),
            (row["best"] or {}).get("architecture", ""),
        )
        for row in rows
    )
    return headings, lines


# --- curves ----------------------------------------------------------------------------------------


def regret_curve(row: Row, queries: Floats) -> Floats:
    """Return the simple regret of a recorded run after numbers of queries, shape [K]."""
    yardstick = Yardstick(**row["yardstick"], targets={})
    at = np.array([query for query, _, _ in row["incumbents"]], np.float64)
    values = np.array([yardstick.worst, *(held_out for _, _, held_out in row["incumbents"])])
    return simple_regret(values[np.searchsorted(at, queries, side="right")], yardstick.best)


def banded(values: Floats, rng: np.random.Generator, repetitions: int = REPETITIONS) -> tuple[Floats, Any, Any]:
    """Return the mean of runs [R, K] with its 95 % bootstrap band, None for a single run; runs are drawn whole."""
    mean = values.mean(axis=0)
    runs = len(values)
    if runs == 1:
        return mean, None, None
    drawn = rng.multinomial(runs, np.full(runs, 1 / runs), size=repetitions) @ values / runs
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    return mean, low, high


def _curves(rows: Sequence[Row], facts: Facts) -> list[Curve]:
    queries = np.unique(np.geomspace(1, facts.budget, _POINTS).round())
    rng = np.random.default_rng(0)
    found = []
    for task in facts.tasks:
        for method in facts.methods:
            mine = [row for row in rows if row["task"] == task and row["method"] == method]
            if mine:
                floor = mine[0]["yardstick"]["floor"]
                bounds = banded(np.stack([regret_curve(row, queries) for row in mine]), rng)
                mean, low, high = (None if line is None else np.maximum(line, floor) for line in bounds)
                found.append(Curve(method, task, queries, mean, low, high, len(mine)))  # pyright: ignore[reportArgumentType]
    return found


def _profiles(rows: Sequence[Row], facts: Facts) -> list[Curve]:
    """Return the performance profiles over all tasks and on each, where there are several runs."""
    if facts.runs == 1:
        return []
    scores = final_scores(rows)
    lowest = min(row["normalised"][str(facts.budget)] for row in rows)
    thresholds = np.linspace(min(lowest, 1.0) - 1e-9, 1.0, _THRESHOLDS)
    rng = np.random.default_rng(0)
    found = []
    scopes = [(ALL_TASKS, list(facts.tasks))] if len(facts.tasks) > 1 else []
    for scope, tasks in (*scopes, *((task, [task]) for task in facts.tasks)):
        for method in facts.methods:
            seeds = shared_seeds(tasks, scores[method])
            if seeds:
                profile = performance_profile(matrix(scores[method], tasks, seeds), thresholds, rng)
                known = len(seeds) > 1
                band = (profile.low, profile.high) if known else (None, None)
                found.append(Curve(method, scope, thresholds, profile.fraction, *band, len(seeds)))
    return found


# --- architectures ---------------------------------------------------------------------------------


def _value_label(known: Mapping[str, Known | None]) -> str:
    metrics = {one.evaluator.reported_metric for one in known.values() if one is not None}
    return f"held-out {metrics.pop().replace('_', ' ')}" if len(metrics) == 1 else "held-out value"


def _points(rows: Sequence[Row], facts: Facts, known: Mapping[str, Known | None]) -> list[Point]:
    found = []
    for row in rows:
        if not row["incumbents"]:
            continue
        costs = {name: float(row[name]) for name in _RUN_COSTS if row[name]}
        task = known[row["task"]]
        if task is not None and row["best"]:
            costs = {**task.costs(row["best"]["encoding"]), **costs}
        label = f"seed {row['seed']}: {row['best']['architecture']}"
        found.append(Point(row["method"], row["task"], float(row["incumbents"][-1][2]), costs, label))
    order = list(facts.methods)
    return sorted(found, key=lambda point: order.index(point.method))


def _architectures(rows: Sequence[Row], facts: Facts, known: Mapping[str, Known | None]) -> list[Architecture]:
    """Return what each method chose on each task: of all its runs, the one with the best search-time signal."""
    found = []
    for task in facts.tasks:
        chosen: dict[tuple[int, ...], list[Row]] = {}
        for method in facts.methods:
            mine = [row for row in rows if row["task"] == task and row["method"] == method and row["best"]]
            if mine:
                best = max(mine, key=lambda row: row["incumbents"][-1][1])
                chosen.setdefault(tuple(best["best"]["encoding"]), []).append(best)
        ordered = sorted(chosen.items(), key=lambda item: -item[1][0]["incumbents"][-1][1])
        found += [_drawn(task, encoding, mine, known[task]) for encoding, mine in ordered]
    return found


def _drawn(task: str, encoding: tuple[int, ...], rows: Sequence[Row], known: Known | None) -> Architecture:
    query, signal, held_out = rows[0]["incumbents"][-1]
    regret = rows[0]["yardstick"]["best"] - held_out
    facts = f"signal {signal:.4f}, held-out {held_out:.4f}, regret {max(regret, 0.0):.4f}"
    facts += f"; seed {rows[0]['seed']}, query {query}"
    picture = None if known is None else known.picture(encoding)
    text = "" if known is None or picture is not None else known.text(encoding)
    methods = tuple(row["method"] for row in rows)
    return Architecture(task, methods, rows[0]["best"]["architecture"], facts, picture, text)
