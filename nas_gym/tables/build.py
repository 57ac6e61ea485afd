"""Train a whole search space into a table: workers, shards, resumption.

One seed after the other, every isomorphism class is trained once; a finished network is one line of that seed's
shard, written and flushed by the parent. Killing the build at any moment therefore loses at most the networks in
flight, and the same command continues it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nas_gym import networks
from nas_gym.datasets import DATASETS
from nas_gym.errors import BuildInterrupted, InvalidArgument
from nas_gym.evaluators.core import stream_key
from nas_gym.evaluators.training import DeviceData, Diverged, train_network
from nas_gym.networks.fit import Recipe
from nas_gym.networks.nas_bench_201 import Skeleton
from nas_gym.networks.operations import complexity
from nas_gym.search_spaces import SEARCH_SPACES
from nas_gym.search_spaces.core import Encoding, SearchSpace

_LARGEST_SPACE = 1_000_000
_FRUITLESS_RESTARTS = 3


@dataclass(frozen=True)
class BuildSpec:
    """What a table is made of; written into its metadata, so that anyone can train a row again.

    Attributes:
        space: name of the search space, which must be enumerable.
        dataset: name of the data set.
        recipe: how every network is trained.
        skeleton: sizes of the network around the cell.
    """

    space: str = "nas_bench_201"
    dataset: str = "digits"
    recipe: Recipe = field(default_factory=Recipe)
    skeleton: Skeleton = field(default_factory=lambda: Skeleton(8, 1, 3, "pooling"))

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> BuildSpec:
        """Rebuild a spec from `to_json`."""
        return cls(fields["space"], fields["dataset"], Recipe(**fields["recipe"]), Skeleton(**fields["skeleton"]))


@dataclass(frozen=True)
class ShardRow:
    """One trained network of one seed; `valid_correct` is empty when the training failed.

    Attributes:
        code: integer code of the encoding.
        valid_correct: correct validation images after every epoch.
        test_correct: correct test images at the end.
        cpu_seconds: processor seconds of the training.
        status: "ok" or why it failed.
    """

    code: int
    valid_correct: tuple[int, ...]
    test_correct: int
    cpu_seconds: float
    status: str = "ok"


@dataclass(frozen=True)
class Progress:
    """Where a build stands: networks trained of all seeds, in all and by this process, and the time it took."""

    done: int
    total: int
    done_here: int
    seconds: float

    @property
    def seconds_left(self) -> float:
        """Estimate from the rate of this process; infinite before the first network."""
        return (self.total - self.done) * self.seconds / self.done_here if self.done_here else float("inf")


def training_seed(seed: int, encoding: Encoding) -> int:
    """Return the seed of the weights and the order of images of one network of a table."""
    return stream_key("table", seed, encoding)


class Trainer:
    """Trains networks of one spec; made once in every worker process."""

    def __init__(self, spec: BuildSpec) -> None:
        """Load the data."""
        self.spec = spec
        self.space: SearchSpace = SEARCH_SPACES[spec.space]()
        self.dataset = DATASETS[spec.dataset]()
        self.data = DeviceData.of(self.dataset)

    def train(self, encoding: Encoding, seed: int) -> ShardRow:
        """Train one network."""
        sizes = {"skeleton": self.spec.skeleton}
        code = self.space.code(encoding)
        key = training_seed(seed, encoding)
        try:
            result = train_network(self.space, encoding, self.dataset, self.data, self.spec.recipe, sizes, key)
        except Diverged:
            return ShardRow(code, (), 0, 0.0, "diverged")
        return ShardRow(code, result.valid_correct, result.test_correct, round(result.cpu_seconds, 4))

    def complexity(self, encoding: Encoding) -> tuple[int, int]:
        """Return parameters and multiply-adds of one network."""
        shape = self.dataset.input_shape
        with torch.device("meta"):
            model = networks.build(self.space, encoding, shape, self.dataset.classes, skeleton=self.spec.skeleton)
        cost = complexity(model, shape)
        return cost.parameters, cost.multiply_adds


_trainer: Trainer | None = None


def _start_worker(spec: BuildSpec) -> None:
    """Prepare a worker process: one thread, and no life after the parent's death."""
    global _trainer
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    _trainer = Trainer(spec)
    # The first training of a process pays for the start of torch, which no table should record.
    _trainer.train(_trainer.space.sample(np.random.default_rng(0)), seed=0)


def _worker() -> Trainer:
    if _trainer is None:
        raise RuntimeError("the worker was not initialised")
    return _trainer


def _train_in_worker(encoding: Encoding, seed: int) -> ShardRow:
    return _worker().train(encoding, seed)


def _complexities_in_worker(encodings: Sequence[Encoding]) -> list[tuple[int, int]]:
    return [_worker().complexity(encoding) for encoding in encodings]


def representatives(space: SearchSpace) -> list[Encoding]:
    """Return one architecture per isomorphism class, in a fixed shuffled order that makes time-left honest.

    Raises:
        InvalidArgument: the space cannot be enumerated in reasonable time.
    """
    size = space.size()
    if size is None or size > _LARGEST_SPACE:
        raise InvalidArgument(
            f"the space {space.name} has {size or 'uncountably many'} architectures; a table needs an enumerable one."
        )
    classes = sorted({space.canonical(encoding) for encoding in space.enumerate()})
    order = np.random.default_rng(0).permutation(len(classes))
    return [classes[index] for index in order]


def shard_path(work: Path, seed: int) -> Path:
    """Return where the shard of a seed lies in the working directory."""
    return work / f"seed-{seed}.jsonl"


def read_shard(path: Path) -> dict[int, ShardRow]:
    """Return the rows of a shard by code; a torn last line, left by a kill, is ignored."""
    rows: dict[int, ShardRow] = {}
    if not path.exists():
        return rows
    for line in path.read_bytes().split(b"\n")[:-1]:
        fields = json.loads(line)
        fields["valid_correct"] = tuple(fields["valid_correct"])
        row = ShardRow(**fields)
        rows[row.code] = row
    return rows


def train_shards(
    spec: BuildSpec,
    work: Path,
    seeds: Sequence[int],
    workers: int,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Train every class of the space once per seed, resuming what `work` already holds.

    Args:
        spec: what to train.
        work: working directory, created if missing.
        seeds: seeds, trained one after the other.
        workers: worker processes, one thread each.
        on_progress: called at the start and after every network.

    Raises:
        InvalidArgument: `work` holds another spec, or another process is building there.
        BuildInterrupted: workers die again and again.
    """
    if workers < 1:
        raise InvalidArgument(f"workers must be at least 1, got {workers}.")
    work.mkdir(parents=True, exist_ok=True)
    with _locked(work):
        _check_manifest(spec, work)
        classes = representatives(SEARCH_SPACES[spec.space]())
        space: SearchSpace = SEARCH_SPACES[spec.space]()
        pending: list[tuple[Encoding, int]] = []
        for seed in seeds:
            finished = read_shard(shard_path(work, seed))
            pending += [(encoding, seed) for encoding in classes if space.code(encoding) not in finished]
        _train_pending(spec, work, pending, len(classes) * len(seeds), workers, on_progress)


def _train_pending(
    spec: BuildSpec,
    work: Path,
    pending: list[tuple[Encoding, int]],
    total: int,
    workers: int,
    on_progress: Callable[[Progress], None],
) -> None:
    started = time.monotonic()
    done_before = total - len(pending)
    left = list(reversed(pending))
    done_here = 0
    fruitless = 0
    on_progress(Progress(done_before, total, 0, 0.0))
    while left:
        before_pool = done_here
        try:
            for task, row in _results(spec, left, workers):
                _append(shard_path(work, task[1]), row)
                done_here += 1
                on_progress(Progress(done_before + done_here, total, done_here, time.monotonic() - started))
        except BrokenProcessPool as error:
            fruitless = fruitless + 1 if done_here == before_pool else 0
            if fruitless == _FRUITLESS_RESTARTS:
                raise BuildInterrupted(
                    f"the worker processes died {fruitless} times in a row without training a network "
                    f"(out of memory?). {done_before + done_here} of {total} are safe in {work}; "
                    "the same command with fewer workers continues."
                ) from error


def _results(
    spec: BuildSpec, left: list[tuple[Encoding, int]], workers: int
) -> Iterator[tuple[tuple[Encoding, int], ShardRow]]:
    """Train the tasks from the end of `left`, removing them; unfinished ones return to it on any exception."""
    in_flight: dict[Future[ShardRow], tuple[Encoding, int]] = {}
    with _pool(spec, workers) as pool:
        try:
            while left or in_flight:
                while left and len(in_flight) < 2 * workers:
                    task = left.pop()
                    in_flight[pool.submit(_train_in_worker, *task)] = task
                finished, _ = wait(in_flight, return_when=FIRST_COMPLETED)
                for future in finished:
                    row = future.result()
                    yield in_flight.pop(future), row
        finally:
            left.extend(in_flight.values())
            for future in in_flight:
                future.cancel()


@contextlib.contextmanager
def _pool(spec: BuildSpec, workers: int) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(spec,))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def complexities(spec: BuildSpec, encodings: Sequence[Encoding], workers: int) -> tuple[list[int], list[int]]:
    """Return parameters and multiply-adds of the networks of `encodings`."""
    chunks = [encodings[start : start + 256] for start in range(0, len(encodings), 256)]
    with _pool(spec, workers) as pool:
        pairs = [pair for chunk in pool.map(_complexities_in_worker, chunks) for pair in chunk]
    return [parameters for parameters, _ in pairs], [multiply_adds for _, multiply_adds in pairs]


def _append(path: Path, row: ShardRow) -> None:
    line = json.dumps(dataclasses.asdict(row), separators=(",", ":")).encode() + b"\n"
    with path.open("ab") as file:
        if file.tell() and not _ends_with_newline(path):
            file.truncate(path.read_bytes().rfind(b"\n") + 1)
        file.write(line)


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _check_manifest(spec: BuildSpec, work: Path) -> None:
    path = work / "manifest.json"
    wanted = spec.to_json()
    if not path.exists():
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(wanted, indent=2))
        temporary.replace(path)
        return
    found = json.loads(path.read_text())
    if found != wanted:
        raise InvalidArgument(
            f"{work} holds an unfinished build of another table: {found}, asked for {wanted}. "
            "Choose another output or remove that directory."
        )


@contextlib.contextmanager
def _locked(work: Path) -> Iterator[None]:
    with (work / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InvalidArgument(
                f"another process is building in {work}; wait for it or choose another output."
            ) from None
        yield
