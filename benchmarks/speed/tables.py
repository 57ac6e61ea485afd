"""Queries per second of a table beside the `nats-bench` package, and the time of the first load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from nas_gym.evaluators.core import Queries
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.search_spaces.core import Batch
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

from .timing import Row, below, best_seconds, faster

_BATCH = 4_096
_CALLS = 30


def queries(table: str, nats_bench: Path) -> Row:
    """Compare batches of 4,096 queries with warm calls of `simulate_train_eval`.

    Args:
        table: name or path.
        nats_bench: the official topology directory, of which architecture 0 is enough.
    """
    from nats_bench import create

    space = NASBench201Space()
    evaluator = TabularEvaluator(space, table)
    prefixes = np.random.default_rng(0).integers(0, 5, (_BATCH, 6))
    lengths = np.full(_BATCH, 6)
    api = create(str(nats_bench), "tss", fast_mode=True, verbose=False)

    def ours() -> None:
        for _ in range(_CALLS):
            evaluator.evaluate(Queries(Batch(space, prefixes, lengths)))

    def other() -> None:
        for _ in range(_CALLS):
            api.simulate_train_eval(0, "cifar10", iepoch=11, hp="12")

    mine, theirs = best_seconds(ours, other)
    rates = _CALLS * _BATCH / mine, _CALLS / theirs
    return faster("table queries, batches of 4,096", *rates, "queries", "nats-bench", 300)


def first_load(table: str) -> Row:
    """Measure the first load in fresh processes, without the import of pyarrow."""
    code = (
        "import time, pyarrow.parquet; from nas_gym.tables.format import TABLES, read_table; "
        f"path = TABLES[{table!r}]; started = time.perf_counter(); read_table(path); "
        "print(time.perf_counter() - started)"
    )
    seconds = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(7)]
    return below("first load of the table", min(seconds), 0.1, "s")


def memory(table: str) -> Row:
    """Measure by how much a fresh process grows when it loads a table and answers a query, after all imports."""
    code = (
        "import gc, gymnasium, nas_gym, numpy, pyarrow.parquet\n"
        "from nas_gym.tables.format import TABLES, read_table\n"
        "def resident():\n"
        "    gc.collect()\n"
        "    pyarrow.default_memory_pool().release_unused()\n"
        "    return next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmRSS'))\n"
        "gym = gymnasium.make('NAS-Cell-v0', evaluator='synthetic').unwrapped\n"
        "gym.reset(seed=0)\n"
        "before = resident()\n"
        f"env = gymnasium.make('NAS-Cell-v0', table={table!r}).unwrapped\n"
        "env.evaluator.evaluate_one(env.space.sample(numpy.random.default_rng(0)))\n"
        "print((resident() - before) / 1024)"
    )
    megabytes = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(5)]
    return below("memory of a full topology table", max(megabytes), 50, "MB")
