"""Regressions between two records of the same tasks and protocol: paired differences per method and task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas_gym.errors import InvalidArgument

from .records import Row
from .statistics import Interval, PairedTest, holm, mean_interval, paired_test
from .summary import Table, check_one_protocol, final_scores


@dataclass(frozen=True)
class Difference:
    """One method on one task, after minus before; scores are normalised, higher = better.

    Attributes:
        method: the method.
        task: the task.
        seeds: that both records have.
        identical: how many of them have the same score.
        interval: of the mean difference.
        test: paired over seeds.
        adjusted: p-value after Holm's correction for all differences.
        settings_changed: whether the method was run with other settings.
    """

    method: str
    task: str
    seeds: int
    identical: int
    interval: Interval
    test: PairedTest
    adjusted: float
    settings_changed: bool

    def is_regression(self, alpha: float) -> bool:
        """Tell whether the second record is significantly worse."""
        return self.adjusted <= alpha and self.test.difference < 0


@dataclass(frozen=True)
class RecordDifference:
    """Everything that can be said of two records.

    Attributes:
        differences: of the methods and tasks that share seeds.
        left_out: what cannot be compared, in words.
    """

    differences: tuple[Difference, ...]
    left_out: tuple[str, ...]


def compare_records(before: Sequence[Row], after: Sequence[Row]) -> RecordDifference:
    """Compare two records by the normalised score after the whole budget.

    Raises:
        InvalidArgument: they have another protocol, other tasks or tables of the same names, or nothing in common.
    """
    _check_comparable(before, after)
    before, after = (sorted(rows, key=lambda row: (row["method"], row["task"])) for rows in (before, after))
    first, second = final_scores(before), final_scores(after)
    configs = [{row["method"]: row["config_hash"] for row in rows} for rows in (before, after)]
    rng = np.random.default_rng(0)
    found, left_out = [], []
    for method in dict.fromkeys((*first, *second)):
        if method not in first or method not in second:
            left_out.append(f"{method} is in the {'first' if method in first else 'second'} record only.")
            continue
        for task in dict.fromkeys((*first[method], *second[method])):
            mine, other = first[method].get(task, {}), second[method].get(task, {})
            seeds = sorted(mine.keys() & other.keys())
            if not seeds:
                left_out.append(f"{method} on {task}: no seed in common.")
                continue
            old, new = (np.array([scores[seed] for seed in seeds]) for scores in (mine, other))
            interval, test = mean_interval(new - old, rng), paired_test(new[:, None], old[:, None], rng)
            changed = configs[0][method] != configs[1][method]
            found.append((method, task, len(seeds), int((new == old).sum()), interval, test, changed))
    if not found:
        raise InvalidArgument(f"the records have no run in common. {' '.join(left_out)}")
    adjusted = holm([one[5].p_value for one in found])
    differences = tuple(
        Difference(*one[:6], adjusted=float(p), settings_changed=one[6]) for one, p in zip(found, adjusted, strict=True)
    )
    return RecordDifference(differences, tuple(left_out))


def _check_comparable(before: Sequence[Row], after: Sequence[Row]) -> None:
    for rows in (before, after):
        check_one_protocol(rows)
    reasons = []
    if before[0]["protocol_hash"] != after[0]["protocol_hash"]:
        reasons.append(
            f"their protocols differ (budget {before[0]['budget']} and {after[0]['budget']}, hashes "
            f"{before[0]['protocol_hash']} and {after[0]['protocol_hash']})"
        )
    tasks = [{row["task"]: row for row in rows} for rows in (before, after)]
    for task in sorted(tasks[0].keys() & tasks[1].keys()):
        reasons += [
            f"the task {task!r} differs in {name} ({tasks[0][task][name]} and {tasks[1][task][name]})"
            for name in ("task_hash", "table_sha256")
            if tasks[0][task][name] != tasks[1][task][name]
        ]
    if reasons:
        raise InvalidArgument(f"the records cannot be compared: {'; '.join(reasons)}.")


def table(found: RecordDifference, alpha: float = 0.05) -> Table:
    """Return the differences as a table of text."""
    lines = tuple(
        (
            one.method + (" (other settings)" if one.settings_changed else ""),
            one.task,
            f"{one.interval.value:+.4f} [{one.interval.low:+.4f}, {one.interval.high:+.4f}]",
            f"{one.identical} of {one.seeds}",
            f"{one.adjusted:.2g}",
            "REGRESSION" if one.is_regression(alpha) else "better" if one.adjusted <= alpha else "",
        )
        for one in found.differences
    )
    columns = ("method", "task", "difference", "identical", "p (Holm)", "")
    note = (
        "normalised score of the second record minus that of the first, on shared seeds; 95 % intervals, paired "
        "permutation tests."
    )
    return Table("Second record against the first", columns, lines, (note, *found.left_out))
