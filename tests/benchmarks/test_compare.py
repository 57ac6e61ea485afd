"""Regressions between two records."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from suites_kit import row, rows

from nas_benchmarks.compare import compare_records, table
from nas_gym.errors import InvalidArgument

BEFORE = tuple(np.random.default_rng(0).normal(0.8, 0.05, 20).tolist())
WORSE = tuple(value - 0.05 for value in BEFORE)


def test_a_clear_loss_is_a_regression() -> None:
    """With an interval around it; a clear gain is none."""
    (lost,) = compare_records(rows({"a": BEFORE}), rows({"a": WORSE})).differences
    (gained,) = compare_records(rows({"a": WORSE}), rows({"a": BEFORE})).differences
    assert lost.is_regression(0.05)
    assert not gained.is_regression(0.05)
    assert lost.interval.value == pytest.approx(-0.05)
    assert lost.interval.low <= lost.interval.value <= lost.interval.high < 0
    assert gained.adjusted == lost.adjusted < 0.001


def test_the_same_runs_are_identical() -> None:
    """Their number is told, and nothing is significant."""
    (same,) = compare_records(rows({"a": BEFORE}), rows({"a": BEFORE})).differences
    assert (same.identical, same.seeds, same.adjusted, same.is_regression(0.05)) == (20, 20, 1.0, False)


def test_a_loss_by_chance_is_no_regression() -> None:
    """Some seeds lose, as many win."""
    changed = tuple(value + (0.01 if seed % 2 else -0.011) for seed, value in enumerate(BEFORE))
    (found,) = compare_records(rows({"a": BEFORE}), rows({"a": changed})).differences
    assert found.test.difference < 0
    assert not found.is_regression(0.05)


def test_many_comparisons_are_corrected_together() -> None:
    """A p-value that would do alone does not among twenty."""
    noise = np.random.default_rng(1).normal(-0.01, 0.02, 20)
    one = tuple((np.array(BEFORE) + noise).tolist())
    (alone,) = compare_records(rows({"a": BEFORE}), rows({"a": one})).differences
    methods = {f"m{number}": BEFORE for number in range(20)}
    among = compare_records(rows({"a": BEFORE, **methods}), rows({"a": one, **methods})).differences[0]
    assert (alone.method, among.method) == ("a", "a")
    assert alone.test.p_value == among.test.p_value
    assert among.adjusted == pytest.approx(min(1.0, 21 * alone.test.p_value))


def test_only_shared_seeds_count() -> None:
    """The others are no pairs."""
    (found,) = compare_records(rows({"a": BEFORE}), rows({"a": BEFORE[:7]})).differences
    assert found.seeds == 7


def test_what_is_in_one_record_only_is_said() -> None:
    """Methods and tasks."""
    found = compare_records(rows({"a": BEFORE, "b": BEFORE}), [*rows({"a": BEFORE}), row("a", 0, 0.5, "new")])
    assert found.left_out == ("a on new: no seed in common.", "b is in the first record only.")


def test_other_settings_are_said() -> None:
    """They may be why."""
    found = compare_records(rows({"a": BEFORE}), rows({"a": WORSE}, config_hash="other"))
    assert table(found).rows[0][0] == "a (other settings)"
    assert table(found).rows[0][-1] == "REGRESSION"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"protocol_hash": "q"}, "their protocols differ"),
        ({"table_sha256": "other"}, "'cell' differs in table_sha256"),
        ({"task_hash": "other"}, "'cell' differs in task_hash"),
    ],
)
def test_incomparable_records_are_refused(changed: dict[str, Any], message: str) -> None:
    """And why is said."""
    with pytest.raises(InvalidArgument, match=message):
        compare_records(rows({"a": BEFORE}), rows({"a": BEFORE}, **changed))


def test_records_without_a_common_run_are_refused() -> None:
    """There is nothing to compare."""
    with pytest.raises(InvalidArgument, match="no run in common"):
        compare_records(rows({"a": BEFORE}), rows({"b": BEFORE}))
