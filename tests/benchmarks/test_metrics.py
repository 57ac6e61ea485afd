"""Metrics of a search against brute force and published anchors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_benchmarks.metrics import best_so_far, random_search_expectation


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(1, 4))
def test_random_search_expectation_equals_enumeration(values: list[int], queries: int) -> None:
    """The closed form is the mean of the best over all sequences of draws, ties included."""
    brute = np.mean([max(draws) for draws in itertools.product(values, repeat=queries)])
    found = random_search_expectation(np.array(values, float), np.array([queries]))
    assert found[0] == pytest.approx(brute)


def test_random_search_expectation_of_one_draw_is_the_mean() -> None:
    """With one query there is nothing to choose."""
    values = np.random.default_rng(0).random(1000)
    assert random_search_expectation(values, np.array([1]))[0] == pytest.approx(values.mean())


def test_best_so_far_never_falls() -> None:
    """The curve is the running maximum."""
    assert best_so_far(np.array([0.3, 0.1, 0.5, 0.4])).tolist() == [0.3, 0.3, 0.5, 0.5]
