"""The main result: one table over the tasks of several records, and its figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from suites_kit import rows

from nas_benchmarks import main_result
from nas_benchmarks.main_result import PAIRS, against, as_markdown, differences, drawn_methods, gathered, ranking
from nas_benchmarks.recorded import pack
from nas_benchmarks.records import Row
from nas_benchmarks.suites import SUITES
from nas_gym.errors import InvalidArgument

GOOD = tuple(0.95 + 0.001 * seed for seed in range(24))
POOR = tuple(0.85 + 0.001 * seed for seed in range(24))

RUN: dict[str, Any] = {
    "incumbents": [[1, 0.5, 0.5], [20, 0.9, 0.8]],
    "yardstick": {"best": 1.0, "mean": 0.5, "worst": 0.1, "floor": 0.001},
}


def two_tasks() -> list[Row]:
    """Return runs in which "mine" is better on one task and worse on the other."""
    return rows({"local_search": POOR, "mine": GOOD}, "a", **RUN) + rows(
        {"local_search": GOOD, "mine": POOR}, "b", **RUN
    )


def test_records_are_read_together(tmp_path: Path) -> None:
    """As one list, whatever order they are named in."""
    first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
    pack(rows({"local_search": GOOD}, "a"), first)
    pack(rows({"local_search": GOOD}, "b"), second)
    assert [row["task"] for row in gathered([second, first])] == ["a"] * 24 + ["b"] * 24


def test_records_of_two_protocols_are_refused(tmp_path: Path) -> None:
    """Their scores mean different things."""
    first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
    pack(rows({"local_search": GOOD}, "a"), first)
    pack(rows({"local_search": GOOD}, "b", protocol_hash="q"), second)
    with pytest.raises(InvalidArgument, match="2 protocols"):
        gathered([first, second])


def test_the_best_method_over_all_tasks_comes_first() -> None:
    """By the interquartile mean of both tasks together; the regret is given for each, in points."""
    found = ranking(rows({"poor": POOR, "good": GOOD}, "a") + rows({"poor": POOR, "good": GOOD}, "b"))
    assert [line[0] for line in found.rows] == ["good", "poor"]
    assert found.columns[2:4] == ("a", "b")
    assert found.rows[0][2].startswith(f"{100 * (1 - np.mean(GOOD)):.2f} [")


def test_a_method_that_lacks_a_task_is_not_ranked() -> None:
    """A score over other tasks is another score."""
    found = ranking(rows({"whole": POOR, "part": GOOD}, "a") + rows({"whole": POOR}, "b"))
    assert [line[0] for line in found.rows] == ["whole"]


def test_a_comparison_is_made_on_every_task() -> None:
    """Certain to be better on one, certain to be worse on the other."""
    (line,) = against(two_tasks()).rows
    assert line == ("mine", "1.00 [1.00, 1.00]", "0.00 [0.00, 0.00]")


def test_where_the_reference_lacks_a_task_nothing_is_said() -> None:
    """The cell stays empty."""
    (line,) = against(rows({"local_search": POOR, "mine": GOOD}, "a") + rows({"mine": GOOD}, "b")).rows
    assert line[2] == ""


def test_a_property_is_worth_the_regret_that_it_saves() -> None:
    """In points, over paired seeds: every run of the method that has it is better by ten."""
    first, second = PAIRS[0][1:]
    (line,) = differences(rows({first: GOOD, second: POOR}, "a")).rows
    assert line[2] == "10.00 [10.00, 10.00]"


def test_the_methods_of_the_differences_are_in_the_suite() -> None:
    """Otherwise a line would be missing without a word."""
    known = {method.name for method in SUITES["main"].methods}
    assert {name for pair in PAIRS for name in pair[1:]} <= known


def test_tables_become_markdown_with_methods_as_they_are_typed() -> None:
    """Names in code type, notes below."""
    text = as_markdown([against(two_tasks())])
    assert "| `mine` | 1.00 [1.00, 1.00] |" in text
    assert text.index("Probability") > text.index("`mine`")


def test_the_first_method_of_every_agent_is_drawn() -> None:
    """And random search, whatever its place."""
    scores = {"uct tuned": GOOD, "uct": POOR, "evolution": POOR, "random_search": (0.1,) * 24}
    assert drawn_methods(ranking(rows(scores)), most=3) == ["uct tuned", "evolution", "random_search"]


def test_the_command_writes_the_page_and_the_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed stands between the markers; the picture has a panel a task."""
    pytest.importorskip("matplotlib")
    record, page, figure = tmp_path / "main.parquet", tmp_path / "page.md", tmp_path / "main.png"
    pack(two_tasks(), record)
    page.write_text("before\n<!-- main:begin -->\n<!-- main:end -->\nafter\n")
    assert main_result.main([str(record), "--update", str(page), "--figure", str(figure)]) == 0
    assert capsys.readouterr().out.strip() in page.read_text()
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_a_missing_record_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2 and its path."""
    assert main_result.main([str(tmp_path / "none")]) == 2
    assert "none is no record" in capsys.readouterr().err
