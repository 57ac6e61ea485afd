"""Scores of a confusion matrix against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from nas_gym.networks.scores import SCORES, accuracy, balanced_accuracy, macro_f1, scores

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


@pytest.mark.parametrize("name", SCORES)
def test_a_perfect_classifier_scores_one(name: str) -> None:
    """Whatever the score, and however unequal the classes are."""
    assert SCORES[name](np.diag([7, 0, 1])) == 1


@pytest.mark.parametrize("name", SCORES)
def test_a_classifier_that_is_always_wrong_scores_zero(name: str) -> None:
    """Whatever the score."""
    assert SCORES[name](np.array([[0, 3], [2, 0]])) == 0


@given(answers)
@pytest.mark.parametrize("name", SCORES)
def test_scores_are_numbers_that_json_can_hold(name: str, pairs: list[tuple[int, int]]) -> None:
    """They are Python floats from 0 to 1."""
    score = SCORES[name](confused(pairs))
    assert type(score) is float
    assert 0 <= score <= 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("accuracy", 9 / 12, id="accuracy"),
        pytest.param("balanced_accuracy", (8 / 10 + 1 / 2) / 2, id="balanced accuracy"),
        pytest.param("macro_f1", (16 / 19 + 2 / 5) / 2, id="macro F1"),
    ],
)
def test_scores_are_those_worked_out_by_hand(name: str, expected: float) -> None:
    """Ten images of the first class and two of the second, three of them taken for the other class."""
    found = scores(np.array([[8, 2], [1, 1]]), "valid")
    assert found[f"valid_{name}"] == pytest.approx(expected)


def test_scores_are_named_by_their_part() -> None:
    """As the metrics of an evaluator are."""
    assert list(scores(np.eye(2, dtype=np.int64), "test")) == [
        "test_accuracy",
        "test_balanced_accuracy",
        "test_macro_f1",
    ]
