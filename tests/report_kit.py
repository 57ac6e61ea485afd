"""Small records of real searches, for reports."""

from __future__ import annotations

import dataclasses
import json
import sys
from functools import cache
from pathlib import Path

import pytest
from suites_kit import small_suite

from nas_benchmarks.recorded import SuiteRecord
from nas_benchmarks.records import Row
from nas_benchmarks.run import Job, perform
from nas_benchmarks.suites import Suite
from nas_gym import cli

BUDGET = 12
METHODS = ("random_search", "evolution", "local_search")


def suite_of(table: Path) -> Suite:
    """Return a suite of three methods and two tasks on one table, which differ in the signal's epochs."""
    suite = small_suite(table, BUDGET, METHODS)
    (first,) = suite.tasks
    second = dataclasses.replace(first.with_arguments(fidelity=2), name="shorter_training")
    return dataclasses.replace(suite, tasks=(first, second))


@cache
def rows_of(table: Path, seeds: int = 3) -> tuple[Row, ...]:
    """Return the rows of that suite, made by searching."""
    suite = suite_of(table)
    jobs = [
        Job(suite, method, suite.tasks, seed, ("nas-gym", "bench", "run", "small"))
        for seed in range(seeds)
        for method in suite.methods
    ]
    return tuple(json.loads(json.dumps(row)) for job in jobs for row in perform(job))


def write_suite(path: Path, table: Path, tasks: int = 2, seeds: int = 3, command: tuple[str, ...] = ()) -> Path:
    """Write a record of the first tasks and seeds, and return its directory."""
    record = SuiteRecord(path)
    record.adopt(suite_of(table))
    names = [task.name for task in suite_of(table).tasks][:tasks]
    for row in rows_of(table):
        if row["task"] in names and row["seed"] < seeds:
            record.append({**row, **({"command": list(command)} if command else {})})
    return path


def write_run(path: Path, table: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> Path:
    """Search once and return the run directory."""
    options = ("--agent", "random_search", "--budget", "15", "--seed", "3", "--env-arg", f"table={table}")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["nas-gym", "search", "--env", "NAS-Cell-v0", *options, "--out", str(path), *more])
        with pytest.raises(SystemExit, check=lambda stop: stop.code == 0):
            cli.main()
    return path
