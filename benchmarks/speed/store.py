"""Commits per second of the evaluation store beside bare SQLite."""

from __future__ import annotations

import math
import sqlite3
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from nas_gym.evaluators.core import Status
from nas_gym.evaluators.store import EvaluationStore
from nas_gym.evaluators.stored import EvaluationKey, StoredEvaluation

from .timing import Row

_ROWS = 1_000
_EPOCHS = 6
_CURVES = ("train_loss", "valid_accuracy", "epoch_seconds")
_WANTED = 2_000


def commits() -> Row:
    """Compare evaluations of 6 epochs and 3 curves, one transaction each, with a bare loop over the same columns."""
    number = count()
    value = _evaluation()
    with tempfile.TemporaryDirectory() as folder, EvaluationStore(Path(folder) / "store.sqlite") as store:
        store.put(_key(next(number)), value)
        bare = sqlite3.connect(Path(folder) / "bare.sqlite", isolation_level=None)
        insert, row = _copy_layout(store.path, bare)

        def ours() -> None:
            for _ in range(_ROWS):
                store.put(_key(next(number)), value)

        def other() -> None:
            for _ in range(_ROWS):
                bare.execute("BEGIN IMMEDIATE")
                bare.execute(insert, (f"{next(number):032x}", *row))
                bare.execute("COMMIT")

        try:
            mine, theirs = _best_seconds(ours, other)
        finally:
            bare.close()
    rate = _ROWS / mine
    return Row(
        "evaluations committed to a store, one transaction each",
        f"{rate:,.0f} evaluations/s",
        f"bare sqlite3: {_ROWS / theirs:,.0f} evaluations/s",
        f"{theirs / mine:,.1f}x",
        f"{_WANTED:,} evaluations/s",
        rate >= _WANTED,
    )


def _best_seconds(*functions: Callable[[], None], repeats: int = 9) -> list[float]:
    """Run functions in turn and return the shortest time of each by the clock, which runs on during writes."""
    best = [math.inf] * len(functions)
    for _ in range(repeats):
        for index, function in enumerate(functions):
            started = time.perf_counter()
            function()
            best[index] = min(best[index], time.perf_counter() - started)
    return best


def _key(seed: int) -> EvaluationKey:
    return EvaluationKey("nas_bench_201", (0, 1, 2, 3, 4, 0), "training", 1, "d" * 32, "r" * 32, seed, _EPOCHS)


def _evaluation() -> StoredEvaluation:
    return StoredEvaluation(
        Status.OK,
        {"valid_accuracy": 0.9123456789, "parameters": 5_242.0, "train_seconds": 1.2345678901},
        {"test_accuracy": 0.9087654321},
        {name: tuple(1 / (epoch + 1.7) for epoch in range(_EPOCHS)) for name in _CURVES},
        1.2345678901,
        artifact="a" * 32,
        host="a-machine",
        versions={"python": "3.11.7", "torch": "2.8.0", "nas-gym": "0.1.0"},
        created="2026-01-01T00:00:00.000000+00:00",
    )


def _copy_layout(store: Path, bare: sqlite3.Connection) -> tuple[str, tuple[object, ...]]:
    """Give an empty database a store's tables and settings; return the INSERT and a row's values after the digest."""
    bare.execute("PRAGMA journal_mode = WAL").fetchone()
    bare.execute("PRAGMA synchronous = NORMAL")
    source = sqlite3.connect(store)
    try:
        for (statement,) in source.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall():
            bare.execute(statement)
        _, _, *values = source.execute("SELECT * FROM evaluations").fetchone()
    finally:
        source.close()
    marks = ", ".join("?" * (1 + len(values)))
    return f"INSERT INTO evaluations VALUES (NULL, {marks})", tuple(values)
