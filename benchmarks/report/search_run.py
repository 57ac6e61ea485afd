"""From the directory of one search to what a report shows."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from nas_gym.errors import InvalidArgument

from ..metrics import incumbents, simple_regret
from ..records import RecordError, Row, read_rows
from ..summary import Table
from .content import Architecture, Axis, Content, Curve, Facts, Point
from .known import Known
from .suite_record import REGRET

_DRAWN = 6
"""Best architectures that are drawn."""

_SINGLE = "This is one search with a single seed: there is no band, and nothing follows about the agent."


def read_run(path: Path) -> Content:
    """Return what a report of one search shows.

    Args:
        path: its directory.

    Warns:
        TornRow: the record ends in part of a row.

    Raises:
        InvalidArgument: nothing was evaluated yet.
        RecordError: a file is damaged.
    """
    config = _json(path / "config.json")
    rows = read_rows(path / "evaluations.jsonl")
    if not rows:
        raise InvalidArgument(f"{path} holds no evaluated architecture yet; report it once the search has begun.")
    try:
        return _content(path, config, rows)
    except (KeyError, TypeError) as error:
        raise RecordError(
            f"{path} lacks what a run of this version records ({type(error).__name__}: {error}); report it with the "
            "version of nas-gym that wrote it."
        ) from error


def _content(path: Path, config: Mapping[str, Any], rows: list[Row]) -> Content:
    task, method = task_name(config), config["agent"]
    summary = _json(path / "summary.json") if (path / "summary.json").is_file() else None
    known, said = Known.of(config["env"], config["env_args"], config["table_sha256"])
    notes = [_SINGLE, *([said] if said else [])]
    if summary is None:
        notes.append("The search has not ended: there is no summary.json yet.")
    standing = _standing(rows)
    axis, curve = _curve(rows, standing, known, method, task)
    value, label = _signal(known, rows)
    return Content(
        title=f"Search of {config['env']} by {method}",
        first_line="",
        notes=tuple(notes),
        facts=_facts(path, config, rows, summary, task, known),
        tables=(_summary(config, rows, summary),),
        runs=_queries(rows),
        axis=axis,
        curves=(curve,),
        profiles=(),
        value_label=label,
        points=tuple(_points(rows, known, value, method, task)),
        architectures=tuple(_architectures(rows, known, method, task)),
    )


def task_name(config: Mapping[str, Any]) -> str:
    """Return the environment of a search with what it was given.

    >>> task_name({"env": "NAS-Cell-v0", "env_args": {"fidelity": 3}})
    'NAS-Cell-v0 fidelity=3'
    """
    shown = (
        f" {key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in config["env_args"].items()
    )
    return config["env"] + "".join(shown)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise RecordError(f"{path} is no JSON object, got {found!r}.")
    return found


def _facts(
    path: Path,
    config: Mapping[str, Any],
    rows: Sequence[Row],
    summary: Mapping[str, Any] | None,
    task: str,
    known: Known | None,
) -> Facts:
    day = config["started"][:10]
    ended = datetime.fromtimestamp((path / "evaluations.jsonl").stat().st_mtime).astimezone().date().isoformat()
    table = config["env_args"].get("table")
    if table is None and known is not None:
        table = known.table_name
    versions = {**config["versions"], "python": config["python"]}
    return Facts(
        kind="search",
        name=path.resolve().name,
        methods={config["agent"]: config["agent"]},
        tasks={
            task: {
                "env": config["env"],
                "table": table,
                "table_sha256": config["table_sha256"],
                "arguments": config["env_args"],
            }
        },
        runs=1,
        seeds=(1, 1),
        budget=config["budget"],
        repeat_query=config["repeat_query"],
        checkpoints=(),
        versions={library: (version,) for library, version in versions.items()},
        finished=(day, max(day, ended)),
        ended={"unfinished" if summary is None else summary["ended"]: 1},
        failed_queries=sum(row["status"] != "ok" for row in rows),
    )


def _summary(config: Mapping[str, Any], rows: Sequence[Row], summary: Mapping[str, Any] | None) -> Table:
    """Return what the search came to, a line a figure."""
    lines = [("agent", config["agent"]), ("environment", config["env"]), ("seed", str(config["seed"]))]
    lines += [(f"environment: {name}", json.dumps(value)) for name, value in config["env_args"].items()]
    lines += [(f"agent: {name}", json.dumps(value)) for name, value in config["agent_args"].items()]
    lines.append(("queries", f"{len(rows):,} of {config['budget']:,}"))
    counts = Counter(row["status"] for row in rows)
    if set(counts) != {"ok"}:
        lines.append(("outcomes", ", ".join(f"{count} {status}" for status, count in counts.most_common())))
    if summary is not None:
        lines += [(name.replace("_", " "), _shown(summary[name])) for name in _FIGURES if summary.get(name) is not None]
        if (best := summary["best"]) is not None:
            lines += [("best architecture", best["architecture"]), ("its reward", _shown(best["reward"]))]
            lines += [
                (
                    f"its {name.replace('_', ' ')}",
                    f"{_shown(entry['value'])} {'' if entry['unit'] in _PLAIN else entry['unit']}".strip(),
                )
                for name, entry in best["reported"].items()
            ]
            if (place := best["standing"]) is not None:
                lines.append(
                    ("its rank", f"{place['rank']:,} of {place['size']:,} by {place['metric'].replace('_', ' ')}")
                )
                lines.append(("its simple regret", _shown(place["regret"])))
    return Table("Summary", ("figure", "value"), tuple(lines))


_FIGURES = ("ended", "unique_architectures", "environment_steps", "simulated_seconds", "wall_seconds", "updates")
_PLAIN = ("count", "fraction")


def _shown(value: object) -> str:
    if isinstance(value, float):
        return (
            f"{value:,.0f}"
            if value.is_integer() and abs(value) >= 1000
            else f"{value:.4g}"
            if abs(value) >= 1
            else f"{value:.4f}"
        )
    return f"{value:,}" if isinstance(value, int) else str(value)


def _queries(rows: Sequence[Row]) -> tuple[tuple[str, ...], tuple[tuple[Any, ...], ...]]:
    metrics = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    plain = ("row", "architecture", "status", "fidelity", "reward", "best_reward", "cost_seconds", "first_seen")
    lines = tuple((*(row.get(name) for name in plain), *(row["metrics"].get(name) for name in metrics)) for row in rows)
    return (*plain, *metrics), lines


# --- curve -----------------------------------------------------------------------------------------


def _standing(rows: Sequence[Row]) -> list[int]:
    """Return the row that was the best after each query, -1 before the first success."""
    rewards = np.array(
        [row["reward"] if row["status"] == "ok" and row["reward"] is not None else np.nan for row in rows]
    )
    levels = [row.get("fidelity") for row in rows]
    chosen = None if all(level is None for level in levels) else np.array([level or 0 for level in levels], np.int64)
    return incumbents(rewards, chosen).tolist()


def _curve(rows: Sequence[Row], standing: list[int], known: Known | None, method: str, task: str) -> tuple[Axis, Curve]:
    """Return the regret where the whole space is known, else the best reward."""
    queries = np.arange(1.0, len(rows) + 1)
    yardstick = None if known is None else known.yardstick
    if known is not None and yardstick is not None:
        values = {query: known.held_out(rows[query]["encoding"]) for query in set(standing) if query >= 0}
        reached = np.array([yardstick.worst if query < 0 else values[query] for query in standing])
        regret = np.maximum(simple_regret(reached, yardstick.best), yardstick.floor)
        axis = Axis(REGRET.title, "held-out regret", True, REGRET.note.rsplit(" Bands", 1)[0])
        return axis, Curve(method, task, queries, regret, None, None, 1)
    best = np.array([math.nan if query < 0 else rows[query]["reward"] for query in standing])
    note = "The best of the space is not known, so the regret is not, either: this is the best reward so far."
    return Axis("Best reward", "best reward so far", False, note), Curve(method, task, queries, best, None, None, 1)


# --- architectures ---------------------------------------------------------------------------------


def _signal(known: Known | None, rows: Sequence[Row]) -> tuple[str | None, str]:
    """Return the metric that the reward is made of and its name for an axis; None = the reward itself."""
    metric = None if known is None else known.envs.objective.requires[0]
    if known is None or metric is None or metric not in rows[0]["metrics"]:
        return None, "reward"
    if known.evaluator.metrics[metric].direction != "maximize":
        return None, "reward"
    return metric, metric.replace("_", " ")


def _points(rows: Sequence[Row], known: Known | None, value: str | None, method: str, task: str) -> list[Point]:
    """Return every architecture that was evaluated, once."""
    found: dict[tuple[int, ...], Point] = {}
    for row in rows:
        reached = row["reward"] if value is None else row["metrics"].get(value)
        if row["status"] != "ok" or reached is None:
            continue
        costs = {
            name: cost for name, cost in row["metrics"].items() if cost is not None and _is_cost(known, name, value)
        }
        if row["cost_seconds"] not in costs.values():
            costs["cost_seconds"] = row["cost_seconds"]
        found[tuple(row["encoding"])] = Point(
            method, task, float(reached), costs, f"query {row['row']}: {row['architecture']}"
        )
    return list(found.values())


def _is_cost(known: Known | None, name: str, value: str | None) -> bool:
    """Tell whether a metric is to be low; where nothing is known of metrics, every other one is shown."""
    if known is None or name not in known.evaluator.metrics:
        return name != value
    return known.evaluator.metrics[name].direction == "minimize"


def _architectures(rows: Sequence[Row], known: Known | None, method: str, task: str) -> list[Architecture]:
    """Return the architectures with the highest rewards; of different fidelities, those at the highest one."""
    good = [row for row in rows if row["status"] == "ok" and row["reward"] is not None]
    good.sort(key=lambda row: (-(row.get("fidelity") or 0), -row["reward"]))
    first: dict[tuple[int, ...], Row] = {}
    for row in good:
        first.setdefault(tuple(row["encoding"]), row)
    found = []
    for rank, (encoding, row) in enumerate(list(first.items())[:_DRAWN], start=1):
        facts = f"{rank}. reward {row['reward']:.4f}, query {row['row']}"
        if row.get("fidelity") is not None:
            facts += f", {row['fidelity']} epochs"
        picture = None if known is None else known.picture(encoding)
        text = "" if known is None or picture is not None else known.text(encoding)
        found.append(Architecture(task, (method,), row["architecture"], facts, picture, text))
    return found
