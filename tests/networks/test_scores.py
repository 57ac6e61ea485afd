"""Scores of a confusion matrix against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from nas_gym.networks.scores import accuracy, balanced_accuracy, macro_f1, scores

answers = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


def confused(pairs: list[tuple[int, int]]) -> np.ndarray:
    """Return the confusion matrix of pairs of label and answer."""
    matrix = np.zeros((4, 4), np.int64)
    for label, answer in pairs:
        matrix[label, answer] += 1
    return matrix


@given(answers)
def test_accuracy_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    """The share of right answers."""
    labels, found = zip(*pairs, strict=True)
    assert accuracy(confused(pairs)) == pytest.approx(metrics.accuracy_score(labels, found))


@given(answers)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label was found")
def test_balanced_accuracy_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    """Classes without images do not count."""
    labels, found = zip(*pairs, strict=True)
    expected = metrics.balanced_accuracy_score(labels, found)
    assert balanced_accuracy(confused(pairs)) == pytest.approx(expected)


@given(answers)
def test_macro_f1_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    """Classes that occur nowhere do not count."""
    labels, found = zip(*pairs, strict=True)
    expected = metrics.f1_score(labels, found, average="macro", zero_division=0)
    assert macro_f1(confused(pairs)) == pytest.approx(expected)


def test_scores_are_named_by_their_part() -> None:
    """As the metrics of an evaluator are."""
    assert list(scores(np.eye(2, dtype=np.int64), "test")) == [
        "test_accuracy",
        "test_balanced_accuracy",
        "test_macro_f1",
    ]
