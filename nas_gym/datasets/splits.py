"""Stratified splits: every part has nearly the class frequencies of the whole."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidArgument


def stratified_split(
    labels: npt.NDArray[np.integer], sizes: tuple[int, ...], seed: int
) -> tuple[npt.NDArray[np.int64], ...]:
    """Split the indices of `labels` so that every part has nearly the class frequencies of the whole.

    Args:
        labels: class of every item, shape [N].
        sizes: items of each part; they must sum to N.
        seed: of the order inside the classes.

    Returns:
        One sorted array of indices per part; together they are a permutation of 0..N-1.

    Raises:
        InvalidArgument: a size is negative, or the sizes do not sum to N.
    """
    if min(sizes, default=0) < 0:
        raise InvalidArgument(f"the sizes of a split must not be negative, got {sizes}.")
    if sum(sizes) != len(labels):
        raise InvalidArgument(f"the sizes {sizes} sum to {sum(sizes)}, but there are {len(labels)} items.")
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(labels))
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        # Spreading every class evenly over [0, 1) makes any interval of it stratified.
        position[members] = (np.arange(len(members)) + rng.random()) / len(members)
    ends = np.cumsum(sizes)[:-1]
    return tuple(np.sort(part) for part in np.split(np.argsort(position, kind="stable"), ends))


def share_sizes(count: int, shares: tuple[float, ...]) -> tuple[int, ...]:
    """Return the sizes of parts of `count` items: the rest, then one part per share, rounded and at least 1.

    >>> share_sizes(1000, (0.15, 0.15))
    (700, 150, 150)
    """
    carved = tuple(max(round(count * share), 1) for share in shares)
    return (max(count - sum(carved), 0), *carved)
