"""What a run reports when the simulated clock has passed."""

from __future__ import annotations

import numpy as np
import pytest

from nas_benchmarks.simulated_clock import at_clock
from nas_gym.errors import InvalidArgument


@pytest.mark.parametrize(
    ("costs", "values", "seconds", "expected"),
    [
        pytest.param([10, 10, 10], [1, 2, 4], 25, (3, 3.0), id="halfway between two queries"),
        pytest.param([10, 10, 10], [1, 2, 4], 22.5, (3, 2.5), id="a quarter of the way"),
        pytest.param([10, 10, 10], [1, 2, 4], 20, (2, 2.0), id="exactly at the end of one"),
        pytest.param([10, 10, 100], [1, 2, 9], 25, (3, 2.5), id="the nearest two both before"),
        pytest.param([10, 10, 10, 10], [1, 2, 4, 99], 25, (3, 3.0), id="what comes after the end does not count"),
        pytest.param([30], [1], 25, (1, 1.0), id="the first query passes it"),
        pytest.param([25, 0], [1, 2], 25, (1, 1.0), id="the first to reach it ends the run"),
    ],
)
def test_what_is_reported_at_the_clock(
    costs: list[float], values: list[float], seconds: float, expected: tuple[int, float]
) -> None:
    """On the line through the two records nearest to the time, as the official table was drawn."""
    queries, value = at_clock(np.array(costs, float), np.array(values, float), seconds)
    assert (queries, value) == (expected[0], pytest.approx(expected[1]))


@pytest.mark.parametrize("costs", [[], [10.0, 14.9]])
def test_a_clock_that_is_not_reached_is_refused(costs: list[float]) -> None:
    """The run was too short."""
    with pytest.raises(InvalidArgument, match="does not reach the clock's 25"):
        at_clock(np.array(costs), np.ones(len(costs)), 25.0)
