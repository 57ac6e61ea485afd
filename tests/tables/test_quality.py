"""Reliability of tables, against scipy's definitions and constructed cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_gym.tables.quality import ranks, spearman, spearman_by_share, split_half


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=30))
def test_spearman_equals_scipy(pairs: list[tuple[int, int]]) -> None:
    """With ties or without, the correlation is scipy's."""
    stats = pytest.importorskip("scipy.stats")
    first, second = np.array(pairs, float).T
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        assert np.isnan(spearman(first, second))
    else:
        assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)


def test_ties_share_their_mean_rank() -> None:
    """Ranks run from 1; equal values share the mean of theirs."""
    assert ranks(np.array([5.0, 1.0, 5.0, 7.0])).tolist() == [2.5, 1.0, 2.5, 4.0]


def test_shares_take_the_best_by_the_reference() -> None:
    """Where the order agrees only among the best, the small shares correlate and the whole does not."""
    reference = np.arange(100.0)
    values = np.concatenate([np.arange(80.0)[::-1], np.arange(100.0, 120.0)])
    found = spearman_by_share(values, reference)
    assert found[0.2] == pytest.approx(1.0)
    assert found[1.0] < 0.5


def test_split_half_of_pure_noise_is_zero_at_every_share() -> None:
    """Choosing the best must not make independent seeds correlate, in either direction."""
    noise = np.random.default_rng(0).normal(size=(5000, 4))
    found = split_half(noise)
    assert found is not None
    assert all(abs(value) < 0.1 for value in found.values())


def test_split_half_of_equal_seeds_is_one() -> None:
    """Seeds that agree exactly are perfectly reliable."""
    found = split_half(np.repeat(np.random.default_rng(0).random((200, 1)), 3, axis=1))
    assert found is not None
    assert all(value == pytest.approx(1.0) for value in found.values())


def test_split_half_needs_three_seeds() -> None:
    """One seed chooses, two are compared."""
    assert split_half(np.zeros((10, 2))) is None
