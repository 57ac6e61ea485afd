"""What a search is judged by; pure functions of numbers.

Dimension letters: R architectures of a space, N queries.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def best_so_far(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the highest value up to each query, shape [N].

    >>> best_so_far(np.array([0.2, 0.5, 0.3])).tolist()
    [0.2, 0.5, 0.5]
    """
    return np.maximum.accumulate(values)


def random_search_expectation(
    values: npt.NDArray[np.float64],
    queries: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.float64]:
    """Return the exact expectation of the best of n independent draws with replacement, for every n.

    The best of n draws is at most a value with probability p ** n, p being the probability of a value at most it.

    Args:
        values: of all architectures of a space, shape [R].
        queries: numbers of draws n, at least 1.
        probabilities: of drawing each architecture, uniform by default, shape [R].

    >>> random_search_expectation(np.array([0.0, 1.0]), np.array([1, 2])).tolist()
    [0.5, 0.75]
    """
    weights = np.full(len(values), 1 / len(values)) if probabilities is None else probabilities
    ascending, inverse = np.unique(values, return_inverse=True)
    below = np.cumsum(np.bincount(inverse, weights=weights))
    below /= below[-1]
    result = np.empty(len(queries))
    for index, count in enumerate(queries.tolist()):
        cumulative = below**count
        result[index] = ascending @ np.diff(cumulative, prepend=0.0)
    return result
