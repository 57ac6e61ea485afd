"""Small suites, and rows of runs that were never made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas_agents.random_search import RandomSearch
from nas_benchmarks.records import Row
from nas_benchmarks.suites import FORMAT, Method, Protocol, Suite
from nas_benchmarks.tasks import Task


def small_suite(table: object, budget: int = 12, methods: Sequence[str] = ("random_search", "evolution")) -> Suite:
    """Return a suite with one task on a table."""
    task = Task("small", "NAS-Cell-v0", {"table": str(table)})
    return Suite("small", "a test", (task,), tuple(map(Method, methods)), Protocol(budget, policy_samples=40), seeds=2)


def row(method: str, seed: int, score: float, task: str = "cell", **changed: Any) -> Row:
    """Return what comparisons read of a row."""
    return {
        "format": FORMAT,
        "protocol_hash": "p",
        "method": method,
        "config_hash": method,
        "task": task,
        "task_hash": f"hash of {task}",
        "table_sha256": "t",
        "seed": seed,
        "budget": 200,
        "repeat_query": "cache+charge",
        "normalised": {"200": score},
        "regret": {"200": 1 - score},
        "unique_architectures": 100,
        "wall_seconds": 1.0,
        "final_policy": None,
        **changed,
    }


def rows(scores: Mapping[str, Sequence[float]], task: str = "cell", **changed: Any) -> list[Row]:
    """Return rows of several methods, whose seeds count from 0."""
    return [row(method, seed, one, task, **changed) for method, mine in scores.items() for seed, one in enumerate(mine)]


class Broken(RandomSearch):
    """An agent that raises."""

    def propose(self, count: int) -> list[tuple[int, ...]]:
        raise ValueError("this agent is broken")


class Undeclared(RandomSearch):
    """An agent that declares nothing to be tuned."""
