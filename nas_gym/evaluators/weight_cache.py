"""Weights of finished children in a store, up to a limit; what is or may become a parent stays."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from nas_gym.evaluators.store import EvaluationStore
from nas_gym.evaluators.stored import EvaluationKey


class WeightCache:
    """Removes the oldest weights of one evaluator's children when they are too many bytes.

    What was ever a parent stays, in this process or another, and so do the weights of the most accurate child of every
    space and data set, at which another search may begin; the latter only where anything is kept at all.
    """

    def __init__(self, store: EvaluationStore, evaluator: str, limit: float) -> None:
        """Watch a store.

        Args:
            store: where the weights are.
            evaluator: what keys of the children have in the field `evaluator`.
            limit: bytes.
        """
        self.store = store
        self.evaluator = evaluator
        self.limit = limit

    @cached_property
    def _kept(self) -> dict[str, int]:
        """Bytes of every kept file of a finished child, the oldest first."""
        found: dict[str, int] = {}
        for key, stored in self.store.rows():
            if key.evaluator == self.evaluator and stored.artifact is not None:
                path = self.store.artifact_path(stored.artifact)
                if path is not None:
                    found[stored.artifact] = path.stat().st_size
        return found

    def add(self, key: EvaluationKey, parents: Iterable[str]) -> None:
        """Count the weights of a finished child, and remove the oldest ones that are too much.

        Args:
            key: of the child.
            parents: weights that are inherited by children in training now.
        """
        stored = self.store.get(key)
        path = None if stored is None or stored.artifact is None else self.store.artifact_path(stored.artifact)
        if path is not None and stored is not None and stored.artifact is not None:
            self._kept[stored.artifact] = path.stat().st_size
        if sum(self._kept.values()) <= self.limit:
            return
        needed = self._needed(parents)
        for artifact in [one for one in self._kept if one not in needed]:
            if sum(self._kept.values()) <= self.limit:
                return
            self.store.remove_artifact(artifact)
            del self._kept[artifact]

    def _needed(self, parents: Iterable[str]) -> set[str]:
        needed = set(parents)
        best: dict[tuple[str, str], tuple[float, str]] = {}
        for key, stored in self.store.rows():
            needed.add(key.parent)
            if key.evaluator == self.evaluator and stored.artifact in self._kept:
                found = (stored.metrics.get("valid_accuracy", 0.0), stored.artifact)
                problem = key.space, key.dataset
                best[problem] = max(best.get(problem, found), found)
        return needed | ({artifact for _, artifact in best.values()} if self.limit else set())
