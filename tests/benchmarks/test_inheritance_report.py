"""Inherited weights beside trainings from scratch: what is made of the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_benchmarks.inheritance_report import (
    INHERITED,
    SCRATCH,
    START,
    Curve,
    comparisons,
    draw,
    markdown,
    paid_back,
    reached,
)
from nas_gym.errors import InvalidArgument


def row(how: str, epochs: int, accuracy: float, architecture: str = "a", seed: int = 0, **more: Any) -> dict[str, Any]:
    """Return a row of a record; an epoch takes a second."""
    group = {"dataset": "digits", "start": "small", "settings": "augmentation=crop"}
    job = {**group, "architecture": architecture, "seed": seed, "how": how}
    way = {"start_epochs": 9 if how == INHERITED else 0, "learning_rate": 0.1, "epochs": epochs}
    return {**job, **way, "status": "ok", "valid_accuracy": accuracy, "train_seconds": float(epochs), **more}


def curve(how: str, epochs: list[int], accuracies: list[list[float]]) -> Curve:
    """Return a curve in which an epoch takes a second, from scratch two."""
    seconds = np.array(epochs, np.float64)[:, None] * np.ones_like(np.array(accuracies))
    factor = 2.0 if how == SCRATCH else 1.0
    return Curve(how, 9, 0.1, np.array(epochs), np.array(accuracies), factor * seconds)


def rng() -> np.random.Generator:
    """Return a generator."""
    return np.random.default_rng(0)


def test_the_shortest_schedule_that_is_as_accurate_counts() -> None:
    """5 of 20 epochs, and an eighth of the seconds; all architectures agree, so the interval has no width."""
    scratch = curve(SCRATCH, [6, 20], [[0.1, 0.2], [0.8, 0.9]])
    inherited = curve(INHERITED, [1, 5, 10], [[0.7, 0.8], [0.8, 0.9], [0.9, 0.9]])
    found = reached(scratch, inherited, rng())
    assert found.epochs == 5
    assert (found.ratio.value, found.ratio.low, found.ratio.high) == (0.25, 0.25, 0.25)
    assert found.seconds.value == pytest.approx(5 / 40)


def test_means_over_architectures_are_compared() -> None:
    """One loses 0.1, the other gains 0.1: as accurate on average after an epoch, but not for every draw of both."""
    scratch = curve(SCRATCH, [20], [[0.8, 0.8]])
    inherited = curve(INHERITED, [1, 10], [[0.7, 0.9], [0.8, 0.9]])
    found = reached(scratch, inherited, rng())
    assert (found.ratio.value, found.ratio.low, found.ratio.high) == (0.05, 0.05, 0.5)


def test_what_was_never_reached_is_infinite() -> None:
    """And so is the bound of the interval where some draws never reach it."""
    scratch = curve(SCRATCH, [20], [[0.8, 0.8]])
    assert reached(scratch, curve(INHERITED, [1], [[0.7, 0.7]]), rng()).epochs == np.inf
    found = reached(scratch, curve(INHERITED, [1], [[0.7, 0.9]]), rng())
    assert (found.ratio.value, found.ratio.high, found.seconds.high) == (0.05, np.inf, np.inf)


def test_curves_of_other_architectures_cannot_be_compared() -> None:
    """One and two of them."""
    with pytest.raises(InvalidArgument, match="got 1 and 2"):
        reached(curve(SCRATCH, [20], [[0.8]]), curve(INHERITED, [1], [[0.8, 0.9]]), rng())


def test_seeds_are_averaged_before_architectures_are_compared() -> None:
    """0.9 and 0.7 are one architecture of 0.8."""
    rows = [
        row(SCRATCH, 20, 0.9),
        row(SCRATCH, 20, 0.7, seed=1),
        row(INHERITED, 1, 0.8),
        row(INHERITED, 1, 0.8, seed=1),
    ]
    (found,) = comparisons(rows)
    assert found.scratch.accuracies.tolist() == [[pytest.approx(0.8)]]
    assert found.seeds == 2
    assert reached(found.scratch, found.inherited[0], rng()).epochs == 1


@pytest.mark.parametrize("failed", [{"status": "diverged", "valid_accuracy": None, "train_seconds": None}, None])
def test_an_architecture_without_all_trainings_is_left_out(failed: dict[str, Any] | None) -> None:
    """Of both ways, whether a training failed or is missing; the table says so."""
    rows = [row(SCRATCH, 20, 0.9), row(SCRATCH, 20, 0.1, "b"), row(INHERITED, 1, 0.9)]
    rows += [] if failed is None else [row(INHERITED, 1, 0.0, "b", **failed)]
    (found,) = comparisons(rows)
    assert found.scratch.accuracies.tolist() == [[0.9]]
    assert found.left_out == 1
    assert "1 more are left out" in markdown(rows)


def test_data_and_recipes_are_compared_apart() -> None:
    """Two recipes are two comparisons; one that was trained one way only is none."""
    other: dict[str, Any] = {"settings": "augmentation=none"}
    rows = [row(SCRATCH, 20, 0.9), row(INHERITED, 1, 0.9), row(SCRATCH, 20, 0.5, **other)]
    assert [one.settings for one in comparisons(rows)] == ["augmentation=crop"]
    assert len(comparisons([*rows, row(INHERITED, 1, 0.5, **other)])) == 2


def test_the_start_network_is_paid_back_by_the_seconds_saved() -> None:
    """57 seconds of its training, 19 saved by every child."""
    rows = [row(SCRATCH, 20, 0.9), row(INHERITED, 1, 0.9), row(START, 9, 0.5, "", train_seconds=57.0)]
    (found,) = comparisons(rows)
    assert found.starts == {9: (0.1, 0.5, 57.0)}
    assert paid_back(found, found.inherited[0], 1) == pytest.approx(3.0)
    assert paid_back(found, found.inherited[0], np.inf) is None


def test_the_table_has_the_paired_difference_and_the_ratio() -> None:
    """0.90 against 0.92 and 0.95 against 0.95 after an epoch, both better after 5."""
    rows = [row(SCRATCH, 20, 0.92), row(SCRATCH, 20, 0.95, "b"), row(START, 9, 0.5, "")]
    rows += [
        row(INHERITED, 1, 0.90),
        row(INHERITED, 1, 0.95, "b"),
        row(INHERITED, 5, 0.96),
        row(INHERITED, 5, 0.96, "b"),
    ]
    lines = markdown(rows).splitlines()
    assert (
        "| `digits` | the start network itself | 0.1 | 9 | 0.5000 | | | 9.00 |".replace(" | | |", " |  |  |") in lines
    )
    assert "| `digits` | from scratch | 0.1 | 20 | 0.9350 |  |  | 20.00 |" in lines
    after = "| `digits` | inherited after 9 epochs | 0.1 |"
    assert f"{after} 1 | 0.9250 | -0.0100 [-0.0200, +0.0000] | 1 of 2 | 1.00 |" in lines
    assert f"{after} 5 | 0.9600 | +0.0250 [+0.0100, +0.0400] | 2 of 2 | 5.00 |" in lines
    assert any(
        line.startswith("| `digits` | 20 epochs | 5 | 0.25 [0.05, 0.25] | 0.25 [0.05, 0.25] |") for line in lines
    )


def test_the_table_says_where_the_accuracy_was_not_reached() -> None:
    """With the longest schedule that was tried."""
    rows = [row(SCRATCH, 20, 0.92), row(INHERITED, 10, 0.90)]
    assert "| not within 10 | above 0.50 | not reached |" in markdown(rows)


def test_an_empty_record_is_told() -> None:
    """By the table in words, by the figure as an error."""
    assert "Nothing was trained" in markdown([])
    with pytest.raises(InvalidArgument, match="train first"):
        draw(Path("none.png"), [])
