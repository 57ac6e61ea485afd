"""Train a whole search space into a table: workers, an evaluation store, resumption.

One seed after the other, every isomorphism class is trained once; a finished network is committed to the store of the
build. Killing it at any moment therefore loses at most the networks in flight, and the same command continues it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nas_gym import networks
from nas_gym.datasets import Dataset, Source
from nas_gym.errors import BuildInterrupted, InvalidArgument, WorkerError
from nas_gym.evaluators.child import ChildResult, ChildTask, ChildWorker, TrainingJob, make_child_worker
from nas_gym.evaluators.core import Status, stream_key
from nas_gym.evaluators.local_processes import LocalProcesses
from nas_gym.evaluators.store import EvaluationStore
from nas_gym.evaluators.stored import EvaluationKey, StoredEvaluation
from nas_gym.evaluators.training import result_of, to_stored
from nas_gym.evaluators.workers import deal_slots
from nas_gym.networks.nas_bench_201 import Skeleton
from nas_gym.networks.operations import complexity
from nas_gym.networks.recipe import Recipe, content_hash
from nas_gym.search_spaces import make_space
from nas_gym.search_spaces.core import Encoding, SearchSpace
from nas_gym.search_spaces.metaqnn import REDUCED, MetaQNNSpace

_LARGEST_SPACE = 1_000_000
_FRUITLESS_ATTEMPTS = 3
_VERSION = 1


@dataclass(frozen=True)
class BuildSpec:
    """What a table is made of; written into its metadata, so that anyone can train a row again.

    Attributes:
        space: name of the search space, which must be enumerable.
        dataset: name of the data set.
        recipe: how every network is trained.
        sizes: keyword arguments of the network builder, JSON values.
        space_settings: what the search space is made with, JSON values; empty = its defaults.
        dataset_settings: fields of `Source` beside the name, JSON values; empty = its defaults.
        data: path of an .npz file or image folder that is read in place of `dataset`: the same data set in another
            form. It is a place on one machine and not written into the metadata.
    """

    space: str = "nas_bench_201"
    dataset: str = "digits"
    recipe: Recipe = field(default_factory=Recipe)
    sizes: Mapping[str, Any] = field(default_factory=dict)
    space_settings: Mapping[str, Any] = field(default_factory=dict)
    dataset_settings: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, without `data`."""
        fields = dataclasses.asdict(self)
        del fields["data"]
        return fields

    @cached_property
    def source(self) -> Source:
        """The data set.

        Raises:
            InvalidArgument: a setting of the data set is outside its range.
        """
        return Source(self.dataset if self.data is None else self.data, **self.dataset_settings)

    @cached_property
    def search_space(self) -> SearchSpace:
        """The search space."""
        return make_space(self.space, self.space_settings)

    @property
    def task(self) -> ChildTask:
        """What every worker needs to know."""
        return ChildTask(self.search_space, self.source, self.recipe, self.sizes)

    @cached_property
    def recipe_hash(self) -> str:
        """What stands for recipe and sizes in the store."""
        return content_hash([self.recipe.to_json(), self.sizes])

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> BuildSpec:
        """Rebuild a spec from `to_json`, or from the metadata of a table."""
        # The first tables knew one network builder, whose only argument was its skeleton.
        sizes = fields["sizes"] if "sizes" in fields else {"skeleton": fields["skeleton"]}
        recipe = Recipe(**fields["recipe"])
        settings = {name: fields.get(name, {}) for name in ("space_settings", "dataset_settings")}
        return cls(fields["space"], fields["dataset"], recipe, sizes, **settings)


DIGITS = BuildSpec(sizes={"skeleton": Skeleton(8, 1, 3, "pooling").to_json()})
"""The packaged table `digits`."""

METAQNN_DIGITS = BuildSpec(
    space="metaqnn",
    recipe=Recipe(
        epochs=6,
        batch_size=50,
        optimiser="adam",
        learning_rate=5e-3,
        weight_decay=0.0,
        initialisation="xavier",
        restarts=5,
    ),
    space_settings=MetaQNNSpace(**REDUCED).settings,
)
"""The packaged table `metaqnn-digits`."""

CIFAR10_16PX = BuildSpec(
    dataset="cifar10",
    recipe=Recipe(epochs=4, batch_size=100, learning_rate=0.2),
    sizes=DIGITS.sizes,
    dataset_settings={
        "image_size": 16,
        "resampling": "area",
        "train_images": 2000,
        "valid_images": 2500,
        "test_images": 5000,
    },
)
"""CIFAR-10 averaged down to 16x16 pixels."""

PACKAGED = {"digits": DIGITS, "metaqnn-digits": METAQNN_DIGITS, "cifar10_16px": CIFAR10_16PX}
"""Specifications by the name of the table."""


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
    """Trains single networks of one spec in this process."""

    def __init__(self, spec: BuildSpec) -> None:
        """Load the data."""
        self.spec = spec
        self.worker = ChildWorker(spec.task, "cpu")
        self.space = self.worker.task.space
        self.dataset = self.worker.dataset

    def train(self, encoding: Encoding, seed: int) -> ShardRow:
        """Train one network."""
        result = self.worker(_job(self.spec, encoding, seed))
        return _row(self.space.code(encoding), result, self.dataset)


def _job(spec: BuildSpec, encoding: Encoding, seed: int) -> TrainingJob:
    return TrainingJob(encoding, spec.recipe.epochs, training_seed(seed, encoding), score_test=True)


def _row(code: int, result: ChildResult | StoredEvaluation, dataset: Dataset) -> ShardRow:
    """Return accuracies as the numbers of images that they are."""
    if result.status is not Status.OK:
        return ShardRow(code, (), 0, 0.0, result.status.label)
    seconds = result.seconds if isinstance(result, ChildResult) else result.cost_seconds
    correct = tuple(round(value * len(dataset.valid)) for value in result.curve["valid_accuracy"])
    return ShardRow(code, correct, round(result.held_out["test_accuracy"] * len(dataset.test)), round(seconds, 4))


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


def store_path(work: Path) -> Path:
    """Return where the store of a build lies in its working directory."""
    return work / "evaluations.sqlite"


def evaluation_key(spec: BuildSpec, fingerprint: str, encoding: Encoding, seed: int) -> EvaluationKey:
    """Return what the training of one network of a table is called in the store."""
    key = training_seed(seed, encoding)
    name = spec.search_space.signature
    return EvaluationKey(name, encoding, "table", _VERSION, fingerprint, spec.recipe_hash, key, spec.recipe.epochs)


def read_rows(spec: BuildSpec, work: Path, seed: int) -> dict[int, ShardRow]:
    """Return the finished networks of a seed by the code of their encoding."""
    if not store_path(work).exists():
        return {}
    space = spec.search_space
    dataset = spec.source.load()
    rows = {}
    with EvaluationStore.existing(store_path(work)) as store:
        for encoding in representatives(space):
            stored = store.get(evaluation_key(spec, dataset.fingerprint, encoding, seed))
            if stored is not None:
                rows[space.code(encoding)] = _row(space.code(encoding), stored, dataset)
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
        classes = representatives(spec.search_space)
        fingerprint = spec.source.load().fingerprint
        with EvaluationStore(store_path(work)) as store:
            keys = [(seed, evaluation_key(spec, fingerprint, encoding, seed)) for seed in seeds for encoding in classes]
            pending = [(seed, key) for seed, key in keys if key not in store]
            _train_pending(spec, work, store, pending, len(keys), workers, on_progress)


def _train_pending(
    spec: BuildSpec,
    work: Path,
    store: EvaluationStore,
    pending: list[tuple[int, EvaluationKey]],
    total: int,
    workers: int,
    on_progress: Callable[[Progress], None],
) -> None:
    """Train what is missing; what fails for a reason that may pass is tried again after all others."""
    started = time.monotonic()
    done_before = total - len(pending)
    done_here = 0
    on_progress(Progress(done_before, total, 0, 0.0))
    if not pending:
        return
    left = list(reversed(pending))
    failures = 0
    with LocalProcesses(functools.partial(make_child_worker, spec.task), deal_slots(workers)) as pool:
        running: dict[int, tuple[int, EvaluationKey]] = {}
        while left or running:
            while left and len(running) < 2 * workers:
                seed, key = left.pop()
                running[pool.submit(_job(spec, key.encoding, seed))] = (seed, key)
            with _interruption(work, done_before + done_here, total):
                completions = pool.collect()
            for completion in completions:
                task = running.pop(completion.ticket)
                stored = to_stored(result_of(completion))
                store.put(task[1], stored)
                if stored.status.transient:
                    left.insert(0, task)
                    failures += 1
                    if failures >= _FRUITLESS_ATTEMPTS * workers:
                        raise BuildInterrupted(
                            f"{failures} trainings in a row failed without one success, the last was "
                            f"{stored.status.label}: {stored.message}. {done_before + done_here} of {total} are safe "
                            f"in {work}; the same command, perhaps with fewer workers, continues."
                        )
                    continue
                failures = 0
                done_here += 1
                on_progress(Progress(done_before + done_here, total, done_here, time.monotonic() - started))


@contextlib.contextmanager
def _interruption(work: Path, done: int, total: int) -> Iterator[None]:
    """Say what is safe when no worker can be started."""
    try:
        yield
    except WorkerError as error:
        raise BuildInterrupted(f"{error} {done} of {total} are safe in {work}; the same command continues.") from error


def complexities(spec: BuildSpec, encodings: Sequence[Encoding]) -> tuple[list[int], list[int]]:
    """Return parameters and multiply-adds of the networks of `encodings`."""
    space = spec.search_space
    dataset = spec.source.load()
    counted = []
    for encoding in encodings:
        with torch.device("meta"):
            model = networks.build(space, encoding, dataset.input_shape, dataset.classes, **spec.sizes)
        counted.append(complexity(model, dataset.input_shape))
    return [cost.parameters for cost in counted], [cost.multiply_adds for cost in counted]


def _check_manifest(spec: BuildSpec, work: Path) -> None:
    path = work / "manifest.json"
    wanted = spec.to_json()
    found = None
    # After a power failure the file may be torn. The keys of the store tell tables apart without it.
    with contextlib.suppress(FileNotFoundError, ValueError):
        found = json.loads(path.read_bytes())
    if found is None:
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(wanted, indent=2))
        temporary.replace(path)
    elif found != wanted:
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
