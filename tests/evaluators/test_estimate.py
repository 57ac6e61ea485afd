"""What a search will cost, from three children."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from nas_gym.evaluators.estimate import Estimate, estimate
from nas_gym.evaluators.training import TrainingEvaluator, training_evaluator
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

pytestmark = pytest.mark.usefixtures("one_thread")
"""Compute with one thread, as workers do."""

SIZES = {"skeleton": {"channels": 4, "cells_per_stage": 1, "stages": 2, "reduction": "pooling"}}


def evaluator(**settings: object) -> TrainingEvaluator:
    """Return an evaluator of small networks in this process."""
    return training_evaluator(NASBench201Space(), SIZES, workers=0, epochs=4, **settings)


@pytest.fixture(scope="module")
def unlimited() -> Iterator[Estimate]:
    """Return the estimate without limits."""
    one = evaluator()
    yield estimate(one, np.random.default_rng(0))
    one.close()


def test_an_epoch_is_trained_and_the_others_are_extrapolated(unlimited: Estimate) -> None:
    """A child takes time, the slowest more than the mean."""
    assert 0 < unlimited.seconds_per_child <= unlimited.slowest_seconds
    assert (unlimited.epochs, unlimited.workers, unlimited.failures) == (4, 1, ())


def test_without_limits_nothing_is_over_them(unlimited: Estimate) -> None:
    """No share is printed."""
    assert unlimited.over_limit == {}


def test_shares_are_those_of_the_space() -> None:
    """About as many of 200 random cells as of all of them exceed the limit, and the samples do not."""
    one = evaluator(max_parameters=1500)
    found = estimate(one, np.random.default_rng(0))
    one.close()
    assert (0.1 < found.over_limit["max_parameters"] < 0.4, found.failures) == (True, ())


def test_failures_are_told() -> None:
    """A recipe that diverges has no time."""
    one = evaluator(learning_rate=1e30)
    found = estimate(one, np.random.default_rng(0))
    one.close()
    assert (len(found.failures), np.isnan(found.seconds_per_child)) == (3, True)


def test_the_total_is_worked_out_by_hand() -> None:
    """Start, 30 of 40 children of 2 s on 4 workers, and the final report."""
    found = Estimate(5.0, 2.0, 3.0, 6, 1e6, 4, {"max_parameters": 0.25, "max_memory_mb": 0.1}, ())
    assert found.total_seconds(40) == 5.0 + 30 * 2.0 / 4 + 2.0
