"""Scores of a classifier from its confusion matrix.

Dimension letters: K classes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Confusion = npt.NDArray[np.int64]
"""int64 [K, K]: images of class i (row) that were taken for class j (column)."""


def accuracy(confusion: Confusion) -> float:
    """Return the share of images that are classified correctly."""
    return int(np.trace(confusion)) / int(confusion.sum())


def balanced_accuracy(confusion: Confusion) -> float:
    """Return the mean over the classes that occur of the share of their images classified correctly."""
    images = confusion.sum(axis=1)
    occurs = images > 0
    return float((np.diag(confusion)[occurs] / images[occurs]).mean())


def macro_f1(confusion: Confusion) -> float:
    """Return the mean F1 of the classes that occur as label or as answer."""
    total = confusion.sum(axis=0) + confusion.sum(axis=1)
    occurs = total > 0
    return float((2 * np.diag(confusion)[occurs] / total[occurs]).mean())


SCORES: dict[str, Callable[[Confusion], float]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
}
"""Scores by name; metrics are called ``valid_<name>`` and ``test_<name>``."""


def scores(confusion: Confusion, part: str) -> dict[str, float]:
    """Return all scores of a part ("valid" or "test") by the name of their metric."""
    return {f"{part}_{name}": score(confusion) for name, score in SCORES.items()}
