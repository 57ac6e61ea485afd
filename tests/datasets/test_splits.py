"""Stratified splits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_gym.datasets import stratified_split
from nas_gym.datasets.splits import share_sizes
from nas_gym.errors import InvalidArgument


@st.composite
def labels_and_sizes(draw: st.DrawFn) -> tuple[npt.NDArray[np.int64], tuple[int, ...]]:
    """Draw labels and the sizes of the parts they are to be split into."""
    labels = np.array(draw(st.lists(st.integers(0, 4), max_size=60)), np.int64)
    cuts = sorted(draw(st.lists(st.integers(0, len(labels)), max_size=3)))
    return labels, tuple(np.diff([0, *cuts, len(labels)]).tolist())


@given(problem=labels_and_sizes(), seed=st.integers(0, 2**32))
def test_the_parts_are_disjoint_and_complete(problem: tuple[npt.NDArray[np.int64], tuple[int, ...]], seed: int) -> None:
    """Every index is in exactly one part."""
    labels, sizes = problem
    parts = stratified_split(labels, sizes, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))


@given(problem=labels_and_sizes(), seed=st.integers(0, 2**32))
def test_the_parts_have_the_sizes_asked_for_and_ascend(
    problem: tuple[npt.NDArray[np.int64], tuple[int, ...]], seed: int
) -> None:
    """One sorted array per size."""
    labels, sizes = problem
    parts = stratified_split(labels, sizes, seed)
    assert [len(indices) for indices in parts] == list(sizes)
    assert all(np.all(np.diff(indices) > 0) for indices in parts)


@given(problem=labels_and_sizes(), seed=st.integers(0, 2**32))
def test_every_part_has_nearly_the_class_frequencies_of_the_whole(
    problem: tuple[npt.NDArray[np.int64], tuple[int, ...]], seed: int
) -> None:
    """With K classes, n_c of N items in class c, counts differ from their share by less than 2 (1 + n_c K / N)."""
    labels, sizes = problem
    classes, totals = np.unique(labels, return_counts=True)
    for indices, size in zip(stratified_split(labels, sizes, seed), sizes, strict=True):
        counts = np.array([(labels[indices] == label).sum() for label in classes])
        share = totals * size / max(len(labels), 1)
        assert np.all(np.abs(counts - share) < 2 * (1 + totals * len(classes) / max(len(labels), 1)))


def test_a_split_depends_on_its_seed() -> None:
    """The same seed gives the same parts, another one others."""
    labels = np.arange(100) % 5
    one, same, other = (stratified_split(labels, (50, 50), seed)[0].tolist() for seed in (0, 0, 1))
    assert one == same
    assert one != other


@pytest.mark.parametrize("sizes", [(), (3, 3), (4, 4), (7,)], ids=str)
def test_sizes_that_do_not_sum_to_the_items_are_refused(sizes: tuple[int, ...]) -> None:
    """The message has both numbers."""
    with pytest.raises(InvalidArgument, match=rf"sum to {sum(sizes)}, but there are 5 items"):
        stratified_split(np.arange(5), sizes, seed=0)


def test_negative_sizes_are_refused() -> None:
    """No part has less than nothing, even where the sum is right."""
    with pytest.raises(InvalidArgument, match=r"must not be negative, got \(6, -1\)"):
        stratified_split(np.arange(5), (6, -1), seed=0)


@pytest.mark.parametrize(
    ("count", "shares", "sizes"),
    [
        pytest.param(1000, (0.1,), (900, 100), id="one part"),
        pytest.param(1000, (0.15, 0.15), (700, 150, 150), id="two parts"),
        pytest.param(7, (0.1,), (6, 1), id="at least one"),
        pytest.param(1, (0.1, 0.1), (0, 1, 1), id="more than there are"),
    ],
)
def test_shares_become_whole_numbers(count: int, shares: tuple[float, ...], sizes: tuple[int, ...]) -> None:
    """Rounded, at least 1, and the rest comes first."""
    assert share_sizes(count, shares) == sizes
