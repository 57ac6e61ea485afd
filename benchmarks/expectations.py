"""What random search is expected to find, exactly: the anchor that every harness can be held against.

Dimension letters: R architectures of a space, K numbers of queries.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidArgument

Floats = npt.NDArray[np.float64]


def expected_best_of(
    values: Floats,
    queries: npt.NDArray[np.int64],
    probabilities: Floats | None = None,
    replacement: bool = True,
) -> Floats:
    """Return the exact expectation of the best of n random architectures, for every n.

    The best of n independent draws is at most a value with probability p ** n, p being the probability of a value at
    most it; without replacement with the probability that none of n different ones is above it.

    Args:
        values: of all architectures of a space, shape [R].
        queries: numbers of draws n, at least 1, shape [K].
        probabilities: of drawing each architecture, uniform by default, shape [R].
        replacement: whether an architecture may be drawn again; without, all R are drawn after R queries.

    Raises:
        InvalidArgument: as `expected_incumbent`.

    >>> expected_best_of(np.array([0.0, 1.0]), np.array([1, 2])).tolist()
    [0.5, 0.75]
    >>> expected_best_of(np.array([0.0, 1.0]), np.array([1, 2]), replacement=False).tolist()
    [0.5, 1.0]
    """
    return expected_incumbent(values, values, queries, probabilities, replacement)


def expected_incumbent(
    signal: Floats,
    held_out: Floats,
    queries: npt.NDArray[np.int64],
    probabilities: Floats | None = None,
    replacement: bool = True,
) -> Floats:
    """Return the exact expectation of what is reported of the best of n random architectures, for every n.

    The incumbent is the first drawn among those with the highest signal. The highest signal being given, any
    architecture with that signal is the first drawn in proportion to its probability.

    Args:
        signal: by which the incumbent is chosen, of all architectures of a space, shape [R].
        held_out: what is reported of it, shape [R].
        queries: numbers of draws n, at least 1, shape [K].
        probabilities: of drawing each architecture, uniform by default, shape [R].
        replacement: whether an architecture may be drawn again; without, all R are drawn after R queries.

    Raises:
        InvalidArgument: values that are missing, infinite or of unequal number; a number of draws below 1;
            probabilities that are negative, all zero, or given without replacement.

    >>> expected_incumbent(np.array([1.0, 2.0]), np.array([0.5, 0.0]), np.array([1, 2])).tolist()
    [0.25, 0.125]
    """
    signal, held_out = np.asarray(signal, np.float64), np.asarray(held_out, np.float64)
    queries = np.asarray(queries, np.int64)
    _check(signal, held_out, queries)
    weights = np.ones(len(signal)) if probabilities is None else np.asarray(probabilities, np.float64)
    _check_probabilities(weights, len(signal), probabilities is not None and not replacement)
    _, group = np.unique(signal, return_inverse=True)
    weight: Floats = np.bincount(group, weights=weights).astype(np.float64)
    # What cannot be drawn is no incumbent; any number would do for its group.
    reported = np.bincount(group, weights=weights * held_out) / np.where(weight > 0, weight, 1.0)
    at_most = np.cumsum(weight)
    chance = _with_replacement if replacement else _without_replacement
    return np.array([np.diff(chance(at_most, count), prepend=0.0) @ reported for count in queries.tolist()])


def _with_replacement(at_most: Floats, count: int) -> Floats:
    """Return how probable it is that all draws lie in the first groups, for every number of those, shape [groups].

    Args:
        at_most: weight of the first groups, ascending, shape [groups].
        count: number of draws n.
    """
    return (at_most / at_most[-1]) ** count


def _without_replacement(at_most: Floats, count: int) -> Floats:
    """Return the same for n different architectures: C(m, n) / C(R, n), m being the size of the first groups.

    Worked out from m = R downwards, C(m - 1, n) / C(m, n) = (m - n) / m; binomials themselves would overflow.
    """
    sizes = np.rint(at_most).astype(np.int64)
    size = int(sizes[-1])
    descending = np.arange(size, 0, -1)
    factors = np.maximum(descending - min(count, size), 0) / descending
    # Position i holds the chance for m = R - i.
    return np.concatenate([[1.0], np.cumprod(factors)])[size - sizes]


def _check(signal: Floats, held_out: Floats, queries: npt.NDArray[np.int64]) -> None:
    if signal.ndim != 1 or signal.shape != held_out.shape or not len(signal):
        raise InvalidArgument(
            f"signal and held-out value are those of the same architectures, one number each, got the shapes "
            f"{signal.shape} and {held_out.shape}."
        )
    if not (np.isfinite(signal).all() and np.isfinite(held_out).all()):
        raise InvalidArgument("the value of an architecture is missing or infinite; an expectation needs all of them.")
    if queries.ndim != 1 or (queries < 1).any():
        raise InvalidArgument(f"numbers of queries must be a list of integers of at least 1, got {queries.tolist()}.")


def _check_probabilities(weights: Floats, count: int, unequal_without_replacement: bool) -> None:
    if unequal_without_replacement:
        raise InvalidArgument("without replacement only uniform draws have a closed form; leave probabilities out.")
    if weights.shape != (count,) or not (weights >= 0).all() or not weights.sum() > 0:
        raise InvalidArgument(
            f"probabilities must be {count} numbers of at least 0, one an architecture and not all 0, got "
            f"{weights.shape} from {weights.min(initial=np.inf)} on."
        )
