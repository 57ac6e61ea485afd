"""What a record says of its methods."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from suites_kit import row, rows

from nas_benchmarks.statistics import compare
from nas_benchmarks.summary import Table, compared, markdown, matrix, summary
from nas_gym.errors import InvalidArgument

GOOD = tuple(0.90 + 0.001 * seed for seed in range(24))
POOR = tuple(0.80 + 0.001 * seed for seed in range(24))


def tables(given_rows: list[dict[str, object]]) -> dict[str, Table]:
    """Return the tables by the first word of their titles."""
    return {table.title.split(" (")[0]: table for table in summary(given_rows, repetitions=200)}


def test_the_best_method_comes_first() -> None:
    """By the interquartile mean: half of 24 runs, in the middle, are averaged."""
    overall = tables(rows({"random_search": POOR, "mine": GOOD}))["All tasks"]
    assert [line[0] for line in overall.rows] == ["mine", "random_search"]
    assert overall.rows[0][1].startswith(f"{np.mean(GOOD[6:18]):.4f} [0.9")
    assert overall.rows[0][2] == "24"


def test_regret_is_shown_per_task() -> None:
    """In percentage points."""
    found = tables([row("a", 0, 0.75, "one"), row("a", 1, 0.85, "one"), row("a", 0, 0.5, "two")])
    assert found["Regret per task"].columns == ("method", "one", "two")
    assert found["Regret per task"].rows[0][1].startswith("20.00 [")
    assert found["Regret per task"].rows[0][2] == "50.00"


def test_every_method_is_compared_with_the_references_there_are() -> None:
    """A pair of references once."""
    found = {(one.method, one.against) for one in compared(rows({"random_search": POOR, "evolution": POOR, "x": GOOD}))}
    assert found == {("evolution", "random_search"), ("x", "random_search"), ("x", "evolution")}


def test_a_clear_difference_is_significant_and_none_is_not() -> None:
    """Probability of improvement 1, and 1/2 for equals."""
    found = {one.method: one for one in compared(rows({"random_search": POOR, "same": POOR, "x": GOOD}))}
    assert (found["x"].improvement.value, found["same"].improvement.value) == (1.0, 0.5)
    assert found["x"].adjusted < 0.001
    assert found["same"].adjusted == 1.0


def test_with_equal_seeds_it_is_the_comparison_of_the_statistics() -> None:
    """The same tests and the same correction."""
    rng = np.random.default_rng(0)
    scores = {name: rng.uniform(size=10).tolist() for name in ("random_search", "local_search", "x")}
    mine = compared(rows(scores))
    columns = {name: np.array(values)[:, None] for name, values in scores.items()}
    theirs = compare(columns, ("random_search", "local_search"), np.random.default_rng(0))
    assert [(one.method, one.against, one.adjusted) for one in mine] == [
        (one.method, one.against, one.adjusted) for one in theirs
    ]


def test_a_method_with_few_runs_does_not_shorten_the_others() -> None:
    """Every pair is tested on the seeds that it shares."""
    found = {one.method: one for one in compared(rows({"random_search": POOR, "x": GOOD, "new": GOOD[:3]}))}
    assert found["x"].test.p_value < 0.001
    assert found["new"].test.p_value == 0.25


def test_a_method_that_lacks_a_task_has_no_overall_score() -> None:
    """It is said, and its regrets are shown."""
    given_rows = [*rows({"a": GOOD, "b": GOOD}, "one"), *rows({"a": GOOD}, "two")]
    overall = tables(given_rows)["All tasks"]
    assert overall.rows[1][:2] == ("b", "not on all tasks")


def test_few_seeds_are_called_few() -> None:
    """And many are not."""
    few = tables(rows({"a": GOOD[:5]}))["All tasks"]
    many = tables(rows({"a": GOOD}))["All tasks"]
    assert any("5 seeds only" in note for note in few.notes)
    assert not any("seeds only" in note for note in many.notes)


@given(st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(random: object) -> None:
    """Runs end in any order."""
    given_rows = rows({"random_search": POOR[:6], "x": GOOD[:6]})
    shuffled = list(given_rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert summary(shuffled, repetitions=20) == summary(given_rows, repetitions=20)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"protocol_hash": "other"}, "2 protocols"),
        ({"table_sha256": "other"}, "differ in table_sha256"),
        ({"task_hash": "other"}, "differ in task_hash"),
    ],
)
def test_what_cannot_be_compared_is_refused(changed: dict[str, str], message: str) -> None:
    """And what differs is named."""
    with pytest.raises(InvalidArgument, match=message):
        summary([row("a", 0, 0.5), row("a", 1, 0.5, **changed)])


def test_nothing_has_no_summary() -> None:
    """It is said."""
    with pytest.raises(InvalidArgument, match="no finished run"):
        summary([])


def test_a_matrix_has_a_row_a_seed() -> None:
    """And a column a task."""
    scores = {"one": {0: 0.1, 1: 0.2}, "two": {0: 0.3, 1: 0.4}}
    assert matrix(scores, ["one", "two"], [1, 0]).tolist() == [[0.2, 0.4], [0.1, 0.3]]


def test_the_page_is_a_markdown_table() -> None:
    """With what must not be overlooked on its first line."""
    page = markdown([Table("T", ("method", "x"), (("a", "1"),), ("a note",))], "Suite", "Left out: b.")
    assert page.splitlines() == [
        "Left out: b.",
        "",
        "# Suite",
        "",
        "## T",
        "",
        "| method | x |",
        "|---|---|",
        "| `a` | 1 |",
        "",
        "A note",
    ]
