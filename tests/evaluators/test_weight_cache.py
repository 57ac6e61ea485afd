"""The cache of children's weights: what goes first, and what never goes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from nas_gym.evaluators.core import Status
from nas_gym.evaluators.store import EvaluationStore
from nas_gym.evaluators.stored import EvaluationKey, StoredEvaluation
from nas_gym.evaluators.weight_cache import WeightCache

ROOM = 10
"""Bytes of every file; those of a test are counted in files."""

CHILD = EvaluationKey("space", (0,), "children", 1, "data", "recipe", 0, 1)


def keep(cache: WeightCache, number: int, accuracy: float = 0.5, **fields: str) -> str:
    """Finish a child that leaves one file, and return its content hash."""
    file = cache.store.temporary_file()
    file.write_bytes(f"{number:010}".encode())
    artifact = cache.store.put_artifact(file)
    key = dataclasses.replace(CHILD, encoding=(number,), **fields)
    cache.store.put(key, StoredEvaluation(Status.OK, {"valid_accuracy": accuracy}, {}, {}, 1.0, artifact=artifact))
    cache.add(key, ())
    return artifact


def there(cache: WeightCache, artifacts: list[str]) -> list[bool]:
    """Tell which files are there."""
    return [cache.store.artifact_path(artifact) is not None for artifact in artifacts]


@pytest.fixture
def store(tmp_path: Path) -> EvaluationStore:
    """Return an empty store."""
    return EvaluationStore(tmp_path / "store.sqlite")


def test_the_oldest_go_first(store: EvaluationStore) -> None:
    """As many as it takes; the last child is the most accurate one."""
    cache = WeightCache(store, "children", 2 * ROOM)
    artifacts = [keep(cache, number, number / 10) for number in range(5)]
    assert there(cache, artifacts) == [False, False, False, True, True]
    assert store.verify() == []


def test_the_most_accurate_child_stays(store: EvaluationStore) -> None:
    """Another search may begin there."""
    cache = WeightCache(store, "children", 2 * ROOM)
    artifacts = [keep(cache, number, 0.9 - number / 10) for number in range(5)]
    assert there(cache, artifacts) == [True, False, False, False, True]


def test_the_most_accurate_child_of_every_problem_stays(store: EvaluationStore) -> None:
    """Accuracies on two data sets cannot be compared."""
    cache = WeightCache(store, "children", 0.5 * ROOM)
    artifacts = [keep(cache, number, number / 10, dataset=f"data{number % 2}") for number in range(6)]
    assert there(cache, artifacts) == [False, False, False, False, True, True]


def test_what_was_a_parent_stays(store: EvaluationStore) -> None:
    """Whatever its accuracy, as long as its child's row is there."""
    cache = WeightCache(store, "children", 0.5 * ROOM)
    parent = keep(cache, 0, 0.1)
    artifacts = [parent, keep(cache, 1, 0.2, parent=parent), keep(cache, 2, 0.9)]
    assert there(cache, artifacts) == [True, False, True]


def test_a_parent_of_a_child_in_training_stays(store: EvaluationStore) -> None:
    """No row says so yet."""
    cache = WeightCache(store, "children", 0.5 * ROOM)
    parent = keep(cache, 0, 0.1)
    best = keep(WeightCache(store, "children", 100 * ROOM), 1, 0.9)
    cache.add(dataclasses.replace(CHILD, encoding=(1,)), [parent])
    assert there(cache, [parent, best]) == [True, True]
    cache.add(dataclasses.replace(CHILD, encoding=(1,)), [])
    assert there(cache, [parent, best]) == [False, True]


def test_without_room_nothing_stays_but_parents(store: EvaluationStore) -> None:
    """Not even the best child."""
    cache = WeightCache(store, "children", 0)
    parent = keep(WeightCache(store, "children", 100 * ROOM), 0)
    child = keep(cache, 1, parent=parent)
    assert there(cache, [parent, child]) == [True, False]


def test_files_of_other_evaluators_are_left_alone(store: EvaluationStore) -> None:
    """Such as those of start networks."""
    start = keep(WeightCache(store, "start", 100 * ROOM), 0, evaluator="start")
    cache = WeightCache(store, "children", 0)
    child = keep(cache, 1)
    assert there(cache, [start, child]) == [True, False]
