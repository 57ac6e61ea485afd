"""The record of `nas_benchmarks.reproduction` as a table in Markdown, with everything that must be said beside it.

Dimension letters: R runs, K numbers of queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidArgument

from .published_results import METHODS, RANDOM_SEARCH, RECALLED, Reported, judge, reported, standard_error

EXACT = "random_search, exact"
"""Method of the row that holds what random search is expected to report."""

Floats = npt.NDArray[np.float64]
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Group:
    """The runs of one method on one table.

    Attributes:
        task: name of the table.
        dataset: its data set.
        method: name of the method.
        values: what is reported after each number of queries, percent, shape [R, K].
        clock: what is reported when the clock has passed, percent, shape [R]; None where there is no clock.
        clock_queries: after how many queries that was, shape [R]; None likewise.
        noise: what a query answers, "mean" or "sample".
    """

    task: str
    dataset: str
    method: str
    values: Floats
    clock: Floats | None
    clock_queries: Floats | None
    noise: str

    @classmethod
    def of(cls, rows: Rows, queries: Sequence[int]) -> Group:
        """Read off the runs of one method on one table, at least one.

        Raises:
            InvalidArgument: they are shorter than that.
        """
        first = rows[0]
        if max(queries) > first["budget"]:
            raise InvalidArgument(
                f"the runs of {first['method']!r} on {first['task']!r} have {first['budget']} queries, so there is "
                f"nothing to show after {max(queries)}; ask for fewer with --queries, or run them anew."
            )
        clocks = [row["clock"] for row in rows if row["clock"] is not None]
        clocked = len(clocks) == len(rows)
        return cls(
            first["task"],
            first["dataset"],
            first["method"],
            np.array([after(row, queries) for row in rows]),
            np.array([clock["test"] for clock in clocks]) if clocked else None,
            np.array([clock["queries"] for clock in clocks], np.float64) if clocked else None,
            first["noise"],
        )

    @property
    def published(self) -> Reported | None:
        """What the paper reports of it."""
        return reported(self.dataset, self.method)


def after(row: Mapping[str, Any], queries: Sequence[int]) -> list[float]:
    """Return the test accuracy of a run's incumbent after each number of queries, percent, K of them.

    >>> after({"incumbent_since": [1, 4], "test": [50.0, 60.0]}, [1, 3, 4, 100])
    [50.0, 50.0, 60.0, 60.0]
    """
    index = np.searchsorted(row["incumbent_since"], queries, side="right") - 1
    return [float(row["test"][one]) for one in index]


def chosen(groups: Sequence[Group], queries: Sequence[int]) -> int | None:
    """Return the number of queries whose means lie nearest to the published ones, None where none can be compared.

    One number for all rows without a clock: that with the least sum of squared differences in standard errors.
    """
    distances = np.zeros(len(queries))
    compared = 0
    for group in groups:
        published = group.published
        if published is None or group.clock is not None or len(group.values) < 2:
            continue
        errors = np.array([standard_error(published, column) for column in group.values.T])
        distances += ((group.values.mean(axis=0) - published.mean) / errors) ** 2
        compared += 1
    return queries[int(distances.argmin())] if compared else None


def markdown(rows: Rows, queries: Sequence[int]) -> str:
    """Return the table and the paragraphs below it.

    Args:
        rows: of the record.
        queries: numbers of queries that are shown, ascending.

    Raises:
        InvalidArgument: the runs are shorter.
    """
    groups = _groups(rows, queries)
    exact = {row["task"]: row for row in rows if row["method"] == EXACT}
    best = chosen(groups, queries)
    clocked = any(group.clock is not None for group in groups)
    heads = [
        "Table",
        "Method",
        "Published",
        *(f"@{count}" for count in queries),
        *(["by the clock"] if clocked else []),
    ]
    lines = [_line([*heads, "Difference", "Verdict"]), "|" + "---|" * (len(heads) + 2)]
    for group in groups:
        lines.append(_line(_cells(group, queries, best, clocked)))
        if group.method == RANDOM_SEARCH.name and group.task in exact:
            lines.append(_line(_exact_cells(exact[group.task], queries, clocked)))
    return "\n".join([*lines, "", *_paragraphs(groups, exact, queries, best)])


def _groups(rows: Rows, queries: Sequence[int]) -> list[Group]:
    found = []
    for task in dict.fromkeys(row["task"] for row in rows):
        for method in METHODS:
            mine = [row for row in rows if (row["task"], row["method"]) == (task, method.name)]
            found += [Group.of(mine, queries)] if mine else []
    return found


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _spread(values: Floats) -> str:
    """Return mean and population standard deviation, as the paper gives them."""
    return f"{values.mean():.2f} ± {values.std():.2f}"


def _cells(group: Group, queries: Sequence[int], best: int | None, clocked: bool) -> list[str]:
    published = group.published
    cells = [f"`{group.task}`", f"`{group.method}`"]
    cells.append("" if published is None else f"{published.mean:.2f} ± {published.deviation:.2f}{_mark(published)}")
    cells += [_spread(column) for column in group.values.T]
    if clocked:
        cells.append("" if group.clock is None else _spread(group.clock))
    judged = group.clock
    if judged is None and best is not None:
        judged = group.values[:, queries.index(best)]
    if published is None or judged is None:
        return [*cells, "", ""]
    verdict = judge(published, judged, group.clock is not None)
    return [*cells, f"{verdict.difference:+.2f} ± {verdict.margin:.2f}", verdict.label]


def _mark(published: Reported) -> str:
    return "" if published.sourced else f" ({RECALLED})"


def _exact_cells(row: Mapping[str, Any], queries: Sequence[int], clocked: bool) -> list[str]:
    values = [f"{row['test'][count - 1]:.2f} ± {row['deviation'][count - 1]:.2f}" for count in queries]
    return [f"`{row['task']}`", "`random_search`, exactly", "", *values, *([""] if clocked else []), "", ""]


# --- what must be said -----------------------------------------------------------------------------


def deviation_from_exact(group: Group, row: Mapping[str, Any], queries: Sequence[int]) -> float:
    """Return by how many standard errors the means of random search miss their exact expectation at most.

    Args:
        group: the runs of random search.
        row: its closed form on the same table.
        queries: of the columns of the group.
    """
    expected = np.array([row["test"][count - 1] for count in queries])
    spread = np.array([row["deviation"][count - 1] for count in queries])
    return float((np.abs(group.values.mean(axis=0) - expected) / (spread / np.sqrt(len(group.values)))).max())


def _paragraphs(
    groups: Sequence[Group], exact: Mapping[str, Mapping[str, Any]], queries: Sequence[int], best: int | None
) -> list[str]:
    counts = sorted({len(group.values) for group in groups})
    runs = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    found = [
        f"{runs} runs a row. Test accuracy in percent after the long training, of the architecture that had the "
        "highest validation accuracy after the short one; mean ± population standard deviation over runs, as published."
    ]
    found += _on_sources([one for group in groups if (one := group.published) is not None])
    found += _on_stopping(groups, queries, best)
    found += _on_noise(groups)
    checked = [
        deviation_from_exact(group, exact[group.task], queries)
        for group in groups
        if group.method == RANDOM_SEARCH.name and group.task in exact
    ]
    if checked:
        found.append(
            "Self-test: the means of random search lie within "
            f"{max(checked):.1f} standard errors of their exact expectation, at every number of queries."
        )
    return "\n\n".join(found).split("\n")


def _on_sources(compared: Sequence[Reported]) -> list[str]:
    if not compared:
        return ["Nothing was published of these tables, so nothing is compared."]
    places = "; ".join(dict.fromkeys(f"{one.place} (source: {one.source})" for one in compared))
    return [
        f'Published numbers: {places}. "Recalled" means that no copy could be opened to check the number.',
        "Verdict: the difference is our mean minus the published one, ± the half width of its 95 % interval (both "
        "standard errors and the rounding of the published mean). Where the interval does not hold 0 the row differs. "
        "Where it does, the row is called reproduced only if the published number has a source, the runs ended by the "
        "published clock and are as many; else it is consistent with the paper.",
    ]


def _on_stopping(groups: Sequence[Group], queries: Sequence[int], best: int | None) -> list[str]:
    found = []
    for group in groups:
        if group.clock_queries is not None:
            found.append(
                f"`{group.method}` on `{group.task}` ended by the published clock after "
                f"{group.clock_queries.mean():.0f} queries on average ({group.clock_queries.min():.0f} to "
                f"{group.clock_queries.max():.0f})."
            )
    if any(group.clock is None for group in groups) and best is not None:
        among = ", ".join(map(str, queries))
        found.append(
            "The published runs end when a simulated clock has passed. These tables have no training times, so a fixed "
            f"number of queries stands for it: **{best}, chosen afterwards** as the one of {among} whose means lie "
            "nearest to the published ones, the same for all rows. It is a free parameter, and the agreement is worth "
            "that much less."
        )
    return found


def _on_noise(groups: Sequence[Group]) -> list[str]:
    found = []
    means = sorted({group.task for group in groups if group.noise == "mean"})
    drawn = sorted({group.task for group in groups if group.noise == "sample"})
    if means:
        found.append(
            "The official API draws one of the recorded trainings at every query and charges repeats again; "
            f"{_listed(means)} {'has' if len(means) == 1 else 'have'} one value an architecture, so a repeated query "
            "is charged and answers the same. For CIFAR-100 and ImageNet16-120 that is no difference, since the "
            "benchmark has a single training of 12 epochs; for CIFAR-10 it has two, whose mean is less noisy than "
            "a draw."
        )
    if drawn:
        found.append(f"On {_listed(drawn)} every query draws one of the recorded trainings, as the official API does.")
    found.append(
        "Evolution here changes each of the six edges equally often; the official script draws a node first, so that "
        "the edge into the first node changes in a third of the mutations, an edge into the last one in a ninth."
    )
    return found


def _listed(names: Sequence[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)
