"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from nas_gym.search_spaces import FixedSlotSpace
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space
from nas_gym.tables.format import Measurement, write_table

# How fast a test is depends on the machine and what else it does, so time fails nothing; neither does chance.
settings.register_profile("nas-gym", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("nas-gym")

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame's windows are not shown.

if find_spec("torch") is None:  # the base installation
    collect_ignore = [
        "networks",
        "evaluators/test_child.py",
        "evaluators/test_estimate.py",
        "evaluators/test_latency.py",
        "evaluators/test_training.py",
        "tables/test_build.py",
    ]


def write_random_table(path: Path, space: FixedSlotSpace) -> Path:
    """Write a complete table of a search space with random values: 3 seeds, 4 epochs."""
    rng = np.random.default_rng(0)
    count = space.size()
    measurements = {
        "valid_accuracy": Measurement("maximize", "fraction", denominator=1000, seeds=3, epochs=4),
        "test_accuracy": Measurement("maximize", "fraction", held_out=True, denominator=1000, seeds=3),
        "train_seconds": Measurement("minimize", "seconds", seeds=3),
        "parameters": Measurement("minimize", "count"),
    }
    columns = {
        "valid_accuracy": rng.integers(100, 1000, (count, 3, 4)).astype(np.uint16),
        "test_accuracy": rng.integers(100, 1000, (count, 3, 1)).astype(np.uint16),
        "train_seconds": rng.uniform(0.2, 0.6, (count, 3, 1)).astype(np.float32),
        "parameters": rng.integers(1000, 9000, (count, 1, 1)).astype(np.int64),
    }
    write_table(path, np.arange(count), measurements, columns, {"space": space.name, "dataset": "random"})
    return path


@pytest.fixture(scope="session")
def small_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a complete table of the NAS-Bench-201 space with random values: 3 seeds, 4 epochs."""
    return write_random_table(tmp_path_factory.mktemp("tables") / "small.parquet", NASBench201Space())


@pytest.fixture(scope="session")
def random_table(tmp_path_factory: pytest.TempPathFactory) -> Callable[[FixedSlotSpace], Path]:
    """Return a function that gives a complete table of a search space with random values, written once."""
    folder = tmp_path_factory.mktemp("random_tables")

    def table(space: FixedSlotSpace) -> Path:
        path = folder / f"{space.name}.parquet"
        return path if path.exists() else write_random_table(path, space)

    return table


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Compute with one thread, as workers do."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
