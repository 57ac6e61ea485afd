"""The reward of a finished architecture by really training it, in worker processes, with a store of all answers."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import math
import platform
import tempfile
import time
import weakref
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from nas_gym.datasets import Dataset, Source
from nas_gym.errors import InvalidArgument, UnknownName
from nas_gym.evaluators.child import (
    ChildResult,
    ChildTask,
    Inspection,
    TrainingJob,
    make_child_worker,
)
from nas_gym.evaluators.core import (
    Evaluation,
    Evaluations,
    Evaluator,
    Metric,
    Queries,
    Status,
    checked_seed,
    stream_key,
)
from nas_gym.evaluators.latency import Latency, parse_latency
from nas_gym.evaluators.limits import Limits
from nas_gym.evaluators.local_processes import LocalProcesses
from nas_gym.evaluators.store import EvaluationStore
from nas_gym.evaluators.stored import EvaluationKey, StoredEvaluation
from nas_gym.evaluators.workers import Completion, InProcess, Workers, deal_slots
from nas_gym.networks.recipe import Recipe, content_hash
from nas_gym.networks.scores import SCORES
from nas_gym.registry import resolve
from nas_gym.search_spaces.core import Encoding, SearchSpace

VERSION = 1
"""Part of every key in a store; a change of what a training computes bumps it."""

_HARD_TIMEOUT = (1.5, 30.0)
"""A worker that does not stop by itself is killed after so many times the limit plus so many seconds."""

_Job = Inspection | TrainingJob


@dataclass
class _Child:
    """A child that is worked on: who waits for it and how far it is.

    Attributes:
        key: what it is in the store.
        score_test: whether the test set is scored at the end.
        keep_weights: whether a checkpoint is left after the last epoch, too.
        tickets: everybody who asked for exactly this.
        attempts: failed attempts so far.
        known: metrics measured before the training.
        pause_to: where it leaves a checkpoint.
        job: what a worker is doing for it.
    """

    key: EvaluationKey
    score_test: bool
    keep_weights: bool = False
    tickets: list[int] = field(default_factory=list)
    attempts: int = 0
    known: dict[str, float] = field(default_factory=dict)
    pause_to: Path | None = None
    job: _Job | None = None


class TrainingEvaluator(Evaluator):
    """Trains the canonical representative of every architecture from scratch.

    The fidelity is the number of epochs of the recipe's schedule; an answer at a low fidelity is a prefix of the
    same training, and asking for more epochs continues it from its checkpoint. Repeating a query repeats the training
    with another seed. Every answer is committed to the store before it is given; what the store holds is not trained
    again. Failures of any kind are statuses; killed children and those out of memory are tried again first.

    Metrics: ``valid_accuracy``, ``valid_balanced_accuracy``, ``valid_macro_f1`` (fractions) after the last epoch,
    ``best_valid_accuracy`` over all epochs, ``parameters``, ``multiply_adds``, ``nodes`` and ``edges`` of its graph,
    ``training_memory_bytes`` (estimated before), ``peak_memory_bytes`` (measured), ``train_seconds`` (processor
    seconds on the CPU, wall seconds on CUDA) and, if it is to be measured, ``latency_seconds``; held out: the scores of
    the test set.
    """

    deterministic = False

    def __init__(
        self,
        space: SearchSpace,
        dataset: str | Source = "digits",
        recipe: Recipe | None = None,
        *,
        sizes: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        latency: Latency | None = None,
        evaluation_seed: int = 0,
        workers: int = 1,
        device: str = "auto",
        children_per_gpu: int = 1,
        store: str | Path | EvaluationStore | None = None,
        retries: int = 2,
        builder: str | None = None,
        reference: str | None = None,
        resident_bytes: float | None = None,
    ) -> None:
        """Configure the evaluator; nothing is loaded, started or trained before the first query.

        Args:
            space: a search space that has a network builder.
            dataset: name in `DATASETS`, path of a ``.npz`` file or an image folder, or a `Source`.
            recipe: how to train; the recipe of the packaged table `digits` by default.
            sizes: keyword arguments of the network builder.
            limits: what a child may cost.
            latency: how to measure the latency of a child before it is trained, None = not at all.
            evaluation_seed: of all trainings.
            workers: worker processes, one child each at a time; 0 = in this process, where a crash is fatal.
            device: "cpu", "cuda", "cuda:1", ... or "auto", CUDA where there is one.
            children_per_gpu: children that share one GPU.
            store: an `EvaluationStore` or the path of one; by default a temporary one.
            retries: further attempts after a child was killed or out of memory.
            builder: ``module:function`` that builds the networks instead of the space's own builder.
            reference: ``module:function`` of one network of the user's own, see `ChildTask`.
            resident_bytes: largest part of the data that is held on the device, see `DeviceData.of`.

        Raises:
            UnknownName: no such data set.
            InvalidArgument: a value outside its range, a function that cannot be imported, or more workers than the
                GPUs take.
        """
        self.space = space
        self.recipe = recipe or Recipe()
        self.fidelities = (1, self.recipe.epochs)
        self.evaluation_seed = checked_seed(evaluation_seed)
        source = Source(dataset) if isinstance(dataset, str) else dataset
        source.check()
        self.limits = limits or Limits()
        if self.limits.max_latency_ms is not None and latency is None:
            raise InvalidArgument("max_latency_ms needs latency, which says how to measure it, e.g. latency='local'.")
        self.latency = latency
        _check_function("builder", builder)
        _check_function("reference", reference)
        self.task = ChildTask(
            space, source, self.recipe, dict(sizes or {}), self.limits, builder, reference, resident_bytes
        )
        self.retries = _count("retries", retries)
        self.device = _checked_device(device)
        gpus = torch.cuda.device_count() if self.device.startswith("cuda") else 0
        self._in_process = _count("workers", workers) == 0
        self._slots = deal_slots(max(workers, 1), self.device, gpus, _count("children_per_gpu", children_per_gpu, 1))
        self._store = store
        self._repeats: dict[tuple[Encoding, int], int] = {}
        self._children: dict[str, _Child] = {}
        self._jobs: dict[int, _Child] = {}
        self._completions: deque[Completion[ChildResult]] = deque()
        self._answers: dict[int, Evaluation] = {}
        self.trained_epochs = 0

    @cached_property
    def metrics(self) -> Mapping[str, Metric]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What it measures; the latency only where it is asked for."""
        latency = {} if self.latency is None else {"latency_seconds": Metric("minimize", "seconds")}
        return {
            **{f"valid_{name}": Metric("maximize", "fraction") for name in SCORES},
            "best_valid_accuracy": Metric("maximize", "fraction"),
            "parameters": Metric("minimize", "count"),
            "multiply_adds": Metric("minimize", "count"),
            "nodes": Metric("minimize", "count"),
            "edges": Metric("minimize", "count"),
            "train_seconds": Metric("minimize", "seconds"),
            "training_memory_bytes": Metric("minimize", "bytes"),
            "peak_memory_bytes": Metric("minimize", "bytes"),
            **latency,
            **{f"test_{name}": Metric("maximize", "fraction", held_out=True) for name in SCORES},
        }

    @cached_property
    def dataset(self) -> Dataset:
        """The data; loaded when first needed.

        Raises:
            DatasetError: it is missing or unreadable.
        """
        return self.task.source.load()

    @cached_property
    def store(self) -> EvaluationStore:
        """The store of all answers, opened when first needed.

        Raises:
            StoreError: it cannot be opened.
        """
        if isinstance(self._store, EvaluationStore):
            return self._store
        if self._store is not None:
            store = EvaluationStore(self._store)
            self._finalize_store = weakref.finalize(self, store.close)
            return store
        folder = tempfile.TemporaryDirectory(prefix="nas-gym-store-")
        store = EvaluationStore(Path(folder.name) / "evaluations.sqlite")
        self._finalize_store = weakref.finalize(self, _remove_temporary, store, folder)
        return store

    @cached_property
    def workers(self) -> Workers[_Job, ChildResult]:
        """The workers, started when first needed."""
        make_work = functools.partial(make_child_worker, self.task)
        if self._in_process:
            return InProcess(make_work, self._slots[0])
        return LocalProcesses(make_work, self._slots)

    @property
    def slots(self) -> int:
        """Number of workers."""
        return len(self._slots)

    # --- asking ------------------------------------------------------------------------------------

    def evaluate(self, queries: Queries) -> Evaluations:
        """Train every architecture of the batch on all workers, and wait for the last one."""
        fidelities: Iterable[int | None] = [None] * len(queries)
        if queries.fidelities is not None:
            fidelities = queries.fidelities.tolist()
        pairs = [(row, self._epochs(fidelity)) for row, fidelity in zip(queries.rows, fidelities, strict=True)]
        tickets = [self._ask(row, epochs) for row, epochs in pairs]
        return Evaluations.of([self._wait(ticket) for ticket in tickets], self.search_metrics)

    def evaluate_one(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> Evaluation:
        """Train one architecture.

        Raises:
            FidelityError: `fidelity` is not between 1 and the recipe's epochs.
        """
        return self._wait(self._ask(encoding, self._epochs(fidelity)))

    def submit(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> int:
        """Ask for one training without waiting; an identical one in flight is shared."""
        return self._ask(encoding, self._epochs(fidelity))

    def collect(self, timeout: float | None = None) -> list[tuple[int, Evaluation]]:
        """Return the trainings that have ended, in that order."""
        started = time.monotonic()
        left = timeout
        while not self._answers and self._jobs:
            self._advance(left)
            # What came may have been a measurement or a failed attempt, after which the child goes on.
            if timeout is not None and (left := timeout - (time.monotonic() - started)) <= 0:
                break
        ready = list(self._answers.items())
        self._answers.clear()
        return ready

    def report(self, encoding: Encoding) -> dict[str, float]:
        """Train once more at full length, with a seed of its own, and return all metrics, those of the test included.

        The validation accuracy of this training is no maximum over a search, so it is not optimistic.
        """
        canonical = self.space.canonical(encoding)
        key = self.key(canonical, self.recipe.epochs, stream_key(self.evaluation_seed, canonical, "report"))
        evaluation = self._wait(self._enqueue(key, score_test=True))
        stored = self.store.get(key)
        held_out = {} if stored is None else stored.held_out
        tests = {name: held_out.get(name, math.nan) for name, metric in self.metrics.items() if metric.held_out}
        return {**evaluation.metrics, **tests}

    def train_again(self, encodings: Sequence[Encoding], seeds: int) -> list[list[StoredEvaluation]]:
        """Train architectures at full length with seeds of their own, and keep the weights in the store.

        The test set is not touched. What an interrupted call has finished is not trained again.

        Args:
            encodings: what to train, each as it is.
            seeds: trainings of each.

        Returns:
            One list per architecture, with one answer per seed.
        """
        keys = [
            [
                self.key(e, self.recipe.epochs, stream_key(self.evaluation_seed, e, "final", seed))
                for seed in range(seeds)
            ]
            for e in encodings
        ]
        tickets = [self._enqueue(key, keep_weights=True) for row in keys for key in row]
        answers = {key.digest: self._wait(ticket) for key, ticket in zip(itertools.chain(*keys), tickets, strict=True)}
        return [[self._final(key, answers[key.digest]) for key in row] for row in keys]

    def _final(self, key: EvaluationKey, answer: Evaluation) -> StoredEvaluation:
        """Return what the store holds, or a failure that it does not keep as an answer."""
        stored = self.store.get(key)
        return stored or StoredEvaluation(answer.status, {}, {}, {}, answer.cost_seconds, answer.message)

    def key(self, canonical: Encoding, epochs: int, seed: int) -> EvaluationKey:
        """Return what a training is called in the store."""
        return EvaluationKey(
            self.space.signature,
            canonical,
            "training",
            VERSION,
            self.dataset.fingerprint,
            self._recipe_hash,
            seed,
            epochs,
        )

    @cached_property
    def _recipe_hash(self) -> str:
        sizes = {
            name: dataclasses.asdict(value)
            if dataclasses.is_dataclass(value) and not isinstance(value, type)
            else value
            for name, value in self.task.sizes.items()
        }
        # The latency is part of the answer; the device is not, although its rounding differs.
        latency = None if self.latency is None else self.latency.fingerprint
        return content_hash([self.recipe.to_json(), sizes, self.task.builder, self.task.reference, latency])

    def _epochs(self, fidelity: int | None) -> int:
        return self.recipe.epochs if fidelity is None else self.check_fidelity(fidelity)

    def _ask(self, encoding: Encoding, epochs: int) -> int:
        canonical = self.space.canonical(encoding)
        repeat = self._repeats.get((canonical, epochs), 0)
        self._repeats[canonical, epochs] = repeat + 1
        # The seed leaves the fidelity out: a longer training must continue the shorter one.
        return self._enqueue(self.key(canonical, epochs, stream_key(self.evaluation_seed, canonical, repeat)))

    def _enqueue(self, key: EvaluationKey, score_test: bool = False, keep_weights: bool = False) -> int:
        """Return a ticket for a training: answered from the store, shared with one in flight, or begun."""
        ticket = next(self._tickets)
        stored = self._stored(key, score_test)
        if stored is not None:
            self._answers[ticket] = self._evaluation(key.encoding, stored)
        elif key.digest in self._children:
            self._children[key.digest].tickets.append(ticket)
        else:
            child = _Child(key, score_test, keep_weights, [ticket])
            self._begin(child)
            self._children[key.digest] = child
        return ticket

    # --- the store ---------------------------------------------------------------------------------

    def _stored(self, key: EvaluationKey, score_test: bool) -> StoredEvaluation | None:
        """Return the answer to a training that needs none, under the limits of this evaluator."""
        found = self.store.fidelities(key)
        answer = found.get(key.fidelity)
        if answer is None and not score_test:
            longer = (stored for epochs, stored in sorted(found.items()) if epochs > key.fidelity)
            answer = next((_prefix(s, key.fidelity) for s in longer if _epochs_of(s) >= key.fidelity), None)
        if answer is None:
            return self.store.get(self._over_limit_key(key))
        if answer.status is Status.OK and (message := self.limits.exceeded(answer.metrics)):
            return dataclasses.replace(answer, status=Status.OVER_LIMIT, message=message, metrics={}, cost_seconds=0.0)
        return answer

    def _over_limit_key(self, key: EvaluationKey) -> EvaluationKey:
        """Return the key of a refusal, which holds for these limits only."""
        return dataclasses.replace(key, recipe=content_hash([key.recipe, self.limits.to_json()]))

    def _evaluation(self, canonical: Encoding, stored: StoredEvaluation) -> Evaluation:
        if stored.status is not Status.OK:
            failed = dict.fromkeys(self.search_metrics, math.nan)
            return Evaluation(stored.status, failed, stored.cost_seconds, stored.message)
        metrics = {name: stored.metrics.get(name, math.nan) for name in self.search_metrics}
        metrics["best_valid_accuracy"] = max(stored.curve.get("valid_accuracy", (math.nan,)))
        metrics["nodes"], metrics["edges"] = map(float, self.space.graph_size(canonical))
        return Evaluation(Status.OK, metrics, stored.cost_seconds, "", stored.artifact)

    # --- children ----------------------------------------------------------------------------------

    def _begin(self, child: _Child) -> None:
        """Give the next job of a child to the workers."""
        if self.latency is not None and "latency_seconds" not in child.known:
            child.job = Inspection(child.key.encoding, self.latency)
        else:
            child.job = self._training_job(child)
        seconds = None
        if self.limits.max_train_seconds is not None:
            factor, grace = _HARD_TIMEOUT
            seconds = factor * self.limits.max_train_seconds + grace
        ticket = self.workers.submit(child.job, seconds=seconds, exclusive=isinstance(child.job, Inspection))
        self._jobs[ticket] = child

    def _training_job(self, child: _Child) -> TrainingJob:
        checkpoint = self._checkpoint(child.key)
        kept = child.keep_weights or child.key.fidelity < self.recipe.epochs
        child.pause_to = self.store.temporary_file() if kept else None
        key = child.key
        return TrainingJob(
            key.encoding, key.fidelity, key.seed, checkpoint, child.pause_to, child.score_test, child.known
        )

    def _checkpoint(self, key: EvaluationKey) -> Path | None:
        """Return the file of the longest paused training that `key` continues, None if there is none."""
        for epochs, stored in sorted(self.store.fidelities(key).items(), reverse=True):
            if epochs < key.fidelity and stored.artifact is not None:
                path = self.store.artifact_path(stored.artifact)
                if path is not None:
                    return path
        return None

    def _wait(self, ticket: int) -> Evaluation:
        while ticket not in self._answers:
            self._advance(None)
        return self._answers.pop(ticket)

    def _advance(self, timeout: float | None) -> None:
        """Wait for workers and go on with their children.

        Raises:
            WorkerError: no worker can be started.
            DatasetError: the workers cannot load the data.
            StoreError: an answer cannot be stored; it is not given either.
        """
        if not self._completions and self._jobs:
            self._completions.extend(self.workers.collect(timeout))
        while self._completions:
            completion = self._completions.popleft()
            child = self._jobs.pop(completion.ticket)
            try:
                self._go_on(child, result_of(completion))
            except BaseException:
                # Nobody works on it any more, so whoever asks again must not wait for it.
                self._children.pop(child.key.digest, None)
                raise

    def _go_on(self, child: _Child, result: ChildResult) -> None:
        """Finish a child, try it again, or go from its measurement to its training."""
        if result.status is Status.OK and isinstance(child.job, Inspection):
            child.known = {"latency_seconds": result.metrics["latency_seconds"]}
            self._begin(child)
            return
        if result.status.retryable and child.attempts < self.retries:
            child.attempts += 1
            self.store.put(child.key, self._to_store(child, result))
            self._begin(child)
            return
        self._finish(child, result)

    def _finish(self, child: _Child, result: ChildResult) -> None:
        """Commit an answer, then give it."""
        stored = self._to_store(child, result)
        if result.paused and child.pause_to is not None:
            stored = dataclasses.replace(stored, artifact=self.store.put_artifact(child.pause_to))
        key = self._over_limit_key(child.key) if result.status is Status.OVER_LIMIT else child.key
        self.store.put(key, stored)
        self.trained_epochs += max(_epochs_of(stored) - result.resumed_epochs, 0)
        del self._children[child.key.digest]
        evaluation = self._evaluation(child.key.encoding, stored)
        self._answers.update(dict.fromkeys(child.tickets, evaluation))

    def _to_store(self, child: _Child, result: ChildResult) -> StoredEvaluation:
        if not result.paused and child.pause_to is not None:
            child.pause_to.unlink(missing_ok=True)
        last = {name: values[-1] for name, values in result.curve.items() if values and name != "train_loss"}
        return to_stored(dataclasses.replace(result, metrics={**child.known, **result.metrics, **last}))

    # --- lifecycle ---------------------------------------------------------------------------------

    def reset_repeats(self) -> None:
        """Start the seeds of repeated trainings anew."""
        self._repeats.clear()

    def recall(self, encoding: Encoding, fidelity: int | None, evaluation: Evaluation) -> None:
        """Count a training of an earlier process among the repeats."""
        repeated = self.space.canonical(encoding), self._epochs(fidelity)
        self._repeats[repeated] = self._repeats.get(repeated, 0) + 1

    def close(self) -> None:
        """Stop the workers, killing children in flight, and close the store."""
        if "workers" in self.__dict__:
            self.workers.close()
            del self.workers
        self._jobs.clear()
        self._children.clear()
        self._completions.clear()
        if "store" in self.__dict__ and not isinstance(self._store, EvaluationStore):
            self._finalize_store()
            del self.store

    def __getstate__(self) -> dict[str, Any]:
        """Leave processes, open files and loaded data behind when copied to another process."""
        live = ("workers", "store", "dataset", "_finalize_store", "_tickets")
        state = {name: value for name, value in self.__dict__.items() if name not in live}
        return {**state, "_children": {}, "_jobs": {}, "_completions": deque(), "_answers": {}}


def _remove_temporary(store: EvaluationStore, folder: tempfile.TemporaryDirectory[str]) -> None:
    store.close()
    folder.cleanup()


def to_stored(result: ChildResult) -> StoredEvaluation:
    """Return what is committed for a result."""
    return StoredEvaluation(
        status=result.status,
        metrics=result.metrics,
        held_out=result.held_out,
        curve=result.curve,
        cost_seconds=result.seconds,
        message=result.message,
        traceback=result.traceback,
        host=platform.node(),
        versions=_versions(),
    )


def result_of(completion: Completion[ChildResult]) -> ChildResult:
    """Return what a worker answered, or why it could not."""
    if completion.answer is not None:
        return completion.answer
    failure = completion.failure
    if failure is None:
        return ChildResult(Status.CRASHED, message="the worker gave no answer")
    return ChildResult(failure.status, seconds=completion.seconds, message=failure.message, traceback=failure.traceback)


def _epochs_of(stored: StoredEvaluation) -> int:
    """Return how many epochs were completed."""
    return len(stored.curve.get("train_seconds", ()))


def _prefix(stored: StoredEvaluation, epochs: int) -> StoredEvaluation:
    """Return what the same training would have answered after fewer epochs."""
    curve = {name: values[:epochs] for name, values in stored.curve.items()}
    last = {name: values[-1] for name, values in curve.items() if name != "train_loss"}
    return dataclasses.replace(
        stored,
        status=Status.OK,
        metrics={**stored.metrics, **last},
        held_out={},
        curve=curve,
        cost_seconds=last["train_seconds"],
        message="",
        artifact=None,
    )


@functools.lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("nas-gym", "torch", "numpy")}


def _count(name: str, value: object, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidArgument(f"{name} must be an integer of at least {least}, got {value!r}.")
    return value


def _size(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise InvalidArgument(f"{name} must be a number of at least 0, got {value!r}.")
    return value


def _check_function(name: str, target: str | None) -> None:
    """Check that a function of the user exists: a typo would be stored as a failure of every architecture.

    Raises:
        InvalidArgument: it does not.
    """
    try:
        if target is not None:
            resolve(target)
    except ImportError as error:
        raise InvalidArgument(f"the {name} {target!r} cannot be imported: {error}.") from error


def _checked_device(device: str) -> str:
    """Return a device that exists.

    Raises:
        InvalidArgument: it does not.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = "unknown"
    if kind not in ("cpu", "cuda"):
        raise InvalidArgument(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:<number>', got {device!r}.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InvalidArgument(f"device is {device!r}, but this machine has no CUDA device; use 'cpu' or 'auto'.")
    return device


_SOURCE_FIELDS = {"dataset" if name == "name" else name: name for name in inspect.signature(Source).parameters}
_OWN_FIELDS = (
    "evaluation_seed",
    "workers",
    "device",
    "children_per_gpu",
    "store",
    "retries",
    "builder",
    "reference",
)


def training_evaluator(
    space: SearchSpace,
    sizes: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    **settings: Any,  # noqa: ANN401 - checked against the fields below
) -> TrainingEvaluator:
    """Create a `TrainingEvaluator` from JSON scalars, as environments take them.

    Args:
        space: a search space that has a network builder.
        sizes: keyword arguments of the network builder.
        recipe: fields of the recipe that hold where `settings` do not say otherwise.
        **settings: ``dataset`` and the other fields of `Source`, such as ``image_size``; the fields of `Recipe` and
            `Limits`; ``latency`` (see `parse_latency`) and ``latency_batch``; ``resident_mb``; and ``evaluation_seed``,
            ``workers``, ``device``, ``children_per_gpu``, ``store``, ``retries``, ``builder``, ``reference`` (see
            `TrainingEvaluator`). What is None is left at its default.

    Raises:
        UnknownName: a setting that does not exist.
        InvalidArgument: a value outside its range.
    """
    return TrainingEvaluator(space, **training_arguments(sizes, recipe, settings))


def training_arguments(
    sizes: Mapping[str, Any] | None, recipe: Mapping[str, Any] | None, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of `TrainingEvaluator` besides the space; see `training_evaluator`.

    Raises:
        UnknownName: a setting that does not exist.
        InvalidArgument: a value outside its range.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    for name in given:
        if name not in SETTINGS:
            raise UnknownName("setting of the training", name, SETTINGS)
    fields = {**(recipe or {}), **{name: given[name] for name in _field_names(Recipe) if name in given}}
    limits = Limits(**{name: given[name] for name in _field_names(Limits) if name in given})
    source = Source(**{field: given[name] for name, field in _SOURCE_FIELDS.items() if name in given})
    latency = None
    if "latency" in given:
        latency = parse_latency(given["latency"], _count("latency_batch", given.get("latency_batch", 1), 1))
    own = {name: given[name] for name in _OWN_FIELDS if name in given}
    resident = None if "resident_mb" not in given else 1e6 * _size("resident_mb", given["resident_mb"])
    return {
        "dataset": source,
        "recipe": Recipe(**fields),
        "sizes": sizes,
        "limits": limits,
        "latency": latency,
        "resident_bytes": resident,
        **own,
    }


def _field_names(kind: type[Recipe] | type[Limits]) -> tuple[str, ...]:
    return tuple(inspect.signature(kind).parameters)


SETTINGS: tuple[str, ...] = (
    *_SOURCE_FIELDS,
    *_field_names(Recipe),
    *_field_names(Limits),
    "latency",
    "latency_batch",
    "resident_mb",
    *_OWN_FIELDS,
)
"""What `training_evaluator` takes besides space and sizes."""
