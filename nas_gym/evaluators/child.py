"""One child network in a worker: build it, measure it, train it; whatever happens becomes an answer.

Nothing here knows of stores, tickets or processes, so that the same code runs inside the caller, in a local process
or on another machine.
"""

from __future__ import annotations

import contextlib
import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from nas_gym import networks
from nas_gym.datasets import Source
from nas_gym.errors import InvalidArgument
from nas_gym.evaluators.core import Status
from nas_gym.evaluators.latency import Latency, LatencyError
from nas_gym.evaluators.limits import Limits
from nas_gym.evaluators.workers import Slot
from nas_gym.networks.checkpoint import CheckpointError
from nas_gym.networks.fit import Fitting, OutOfTime, confusion, initialise
from nas_gym.networks.images import DeviceData
from nas_gym.networks.operations import complexity
from nas_gym.networks.recipe import Recipe
from nas_gym.networks.scores import scores
from nas_gym.registry import resolve
from nas_gym.search_spaces.core import Encoding, SearchSpace

Curve = dict[str, list[float]]
"""Values after every epoch by metric."""

_OPTIMISER_SLOTS = {"sgd": 1, "adam": 2, "rmsprop": 2}
_MEMORY_ERRORS = ("can't allocate memory", "not enough memory", "out of memory", "CUDA out of memory")


class Shaped(Protocol):
    """What a network builder needs to know of a data set."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        ...

    @property
    def classes(self) -> int:
        """Number of classes."""
        ...


@dataclass(frozen=True)
class ChildTask:
    """What all children of one evaluator share.

    Attributes:
        space: the search space.
        source: the data set.
        recipe: how to train.
        sizes: keyword arguments of the network builder.
        limits: what a child may cost.
        builder: ``module:function`` that builds the networks instead of the registered builder of the space.
        reference: ``module:function`` of one network of the user's own, called with (C, H, W) and the number of
            classes; it is trained whatever the encoding.
        resident_bytes: largest part of the data that is held on the device; None = half of its free memory.
    """

    space: SearchSpace
    source: Source
    recipe: Recipe = field(default_factory=Recipe)
    sizes: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    builder: str | None = None
    reference: str | None = None
    resident_bytes: float | None = None

    def build(self, encoding: Encoding, dataset: Shaped) -> nn.Module:
        """Return the untrained network of an encoding.

        Raises:
            InvalidArgument: the reference is no module that puts out one logit per class.
        """
        if self.reference is not None:
            return self._build_reference(dataset)
        sizes = {**self.sizes, **({"dropout": self.recipe.dropout} if self.recipe.dropout else {})}
        if self.builder is None:
            return networks.build(self.space, encoding, dataset.input_shape, dataset.classes, **sizes)
        build = resolve(self.builder)
        return build(self.space.decode(encoding), dataset.input_shape, dataset.classes, **sizes)

    def _build_reference(self, dataset: Shaped) -> nn.Module:
        # Never on "meta": a network of the user's own may compute with numbers while it is built.
        with torch.device("cpu"):
            model = resolve(str(self.reference))(dataset.input_shape, dataset.classes)
            if not isinstance(model, nn.Module):
                raise InvalidArgument(f"{self.reference} must return a torch.nn.Module, got {type(model).__name__}.")
            model.register_forward_pre_hook(_contiguous)
            device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
            training = model.training
            with torch.no_grad():
                shape = tuple(model.eval()(torch.zeros((1, *dataset.input_shape), device=device)).shape)
            model.train(training)
        if shape != (1, dataset.classes):
            raise InvalidArgument(
                f"{self.reference} must map [N, {', '.join(map(str, dataset.input_shape))}] to [N, {dataset.classes}], "
                f"got {list(shape)} for one image."
            )
        return model


def _contiguous(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Give a network its images in the usual layout: `Tensor.view` refuses channels-last."""
    # A copy: images of one channel count as contiguous whatever their strides, which convolutions pass on.
    return tuple(images.clone(memory_format=torch.contiguous_format) for images in inputs)


@dataclass(frozen=True)
class Inspection:
    """Ask for the size of a network and, if given a way to measure it, for its latency."""

    encoding: Encoding
    latency: Latency | None = None


@dataclass(frozen=True)
class TrainingJob:
    """Ask for a training.

    Attributes:
        encoding: what to build, literally (not its canonical representative).
        epochs: stop after so many epochs of the recipe's schedule.
        seed: of weights and order of the images, below 2**63.
        resume_from: checkpoint of the same training after fewer epochs.
        pause_to: where to leave a checkpoint.
        score_test: whether to score the test set at the end.
        known: metrics measured before, such as the latency, which the limits need.
    """

    encoding: Encoding
    epochs: int
    seed: int
    resume_from: Path | None = None
    pause_to: Path | None = None
    score_test: bool = False
    known: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ChildResult:
    """What became of a job.

    Attributes:
        status: how it ended.
        metrics: sizes, latency, peak memory; without those of the curve.
        curve: values after every epoch, those before a pause included.
        held_out: metrics of the test set, if asked for.
        seconds: what this job cost: processor seconds on the CPU, which do not depend on how busy the machine is,
            wall seconds on another device.
        paused: whether `pause_to` was written.
        message: why it failed, one line.
        traceback: where, if known.
        resumed_epochs: those of the curve that come from `resume_from`.
    """

    status: Status
    metrics: Mapping[str, float] = field(default_factory=dict)
    curve: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    held_out: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    paused: bool = False
    message: str = ""
    traceback: str = ""
    resumed_epochs: int = 0


class Diverged(ArithmeticError):
    """The training loss is no longer a finite number."""


class OverLimit(Exception):
    """A network exceeds a limit; the message names it."""


def make_child_worker(task: ChildTask, slot: Slot) -> Callable[[Inspection | TrainingJob], ChildResult]:
    """Load the data and return what answers jobs; for `Workers`.

    Raises:
        NASGymError: the data set cannot be loaded.
    """
    worker = ChildWorker(task, slot.device)
    worker.warm_up()
    return worker


class ChildWorker:
    """Answers jobs of one task on one device."""

    def __init__(self, task: ChildTask, device: str) -> None:
        """Load the data."""
        self.task = task
        self.device = device
        self.dataset = task.source.load()
        self.data = DeviceData.of(self.dataset, device, task.resident_bytes)
        self._resumed_epochs = 0

    def warm_up(self) -> None:
        """Pay for the start of torch, which no child should be charged for."""
        channels = self.dataset.input_shape[0]
        layers = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        model = layers.to(self.device)
        Fitting(model, self.data.train, Recipe(epochs=1, batch_size=2), torch.Generator())
        model(torch.zeros(2, channels, 8, 8, device=self.device)).sum().backward()

    def __call__(self, job: Inspection | TrainingJob) -> ChildResult:
        """Answer a job; every exception becomes a status."""
        watch = Stopwatch(self.device)
        measured: dict[str, float] = {}
        curve: Curve = {}
        self._resumed_epochs = 0
        try:
            with peak_memory(self.device, measured):
                return self._answer(job, watch, measured, curve)
        except Exception as error:
            status = classify(error)
            text = traceback.format_exc() if status in (Status.CRASHED, Status.BUILD_ERROR) else ""
            message = str(error) or type(error).__name__
            if status is Status.CRASHED:
                message = f"{type(error).__name__}: {message}"
            kept = {name: tuple(values) for name, values in curve.items()}
            return ChildResult(
                status,
                measured,
                kept,
                seconds=watch.seconds,
                message=message.splitlines()[0],
                traceback=text,
                resumed_epochs=self._resumed_epochs,
            )
        finally:
            if self.device.startswith("cuda"):
                torch.cuda.empty_cache()

    def _answer(
        self, job: Inspection | TrainingJob, watch: Stopwatch, measured: dict[str, float], curve: Curve
    ) -> ChildResult:
        measured.update(self._inspect(job.encoding))
        if isinstance(job, Inspection):
            # A network that is too large is not measured either.
            self._check_limits(measured)
            if job.latency is not None:
                model = self._build(job.encoding)
                measured["latency_seconds"] = job.latency(model, self.dataset.input_shape, self.device)
            self._check_limits(measured)
            return ChildResult(Status.OK, measured, seconds=watch.seconds)
        measured.update(job.known)
        self._check_limits(measured)
        return self._train(job, watch, measured, curve)

    def _inspect(self, encoding: Encoding) -> dict[str, float]:
        """Return the sizes of a network, without computing anything."""
        try:
            with torch.device("meta"):
                model = self.task.build(encoding, self.dataset)
            cost = complexity(model, self.dataset.input_shape)
        except MemoryError:
            raise
        except Exception as error:
            raise BuildFailed(f"{type(error).__name__}: {error}") from error
        recipe = self.task.recipe
        training_bytes = cost.training_bytes(recipe.batch_size, _OPTIMISER_SLOTS[recipe.optimiser])
        return {
            "parameters": float(cost.parameters),
            "multiply_adds": float(cost.multiply_adds),
            "training_memory_bytes": float(training_bytes),
        }

    def _check_limits(self, measured: Mapping[str, float]) -> None:
        if message := self.task.limits.exceeded(measured):
            raise OverLimit(message)

    def _build(self, encoding: Encoding) -> nn.Module:
        model = self.task.build(encoding, self.dataset).to(self.device)
        return model if self.task.reference is not None else model.to(memory_format=torch.channels_last)

    def _training(self, job: TrainingJob, deadline: float, curve: Curve) -> ChildTraining:
        """Return the training that a job asks for, before its first epoch."""
        return ChildTraining(self, job.encoding, job.seed, deadline, curve)

    def _train(self, job: TrainingJob, watch: Stopwatch, measured: dict[str, float], curve: Curve) -> ChildResult:
        deadline = time.monotonic() + self.task.limits.deadline_seconds
        child = self._training(job, deadline, curve)
        started_at = 0.0
        if job.resume_from is not None:
            # A checkpoint that was damaged or removed meanwhile costs the time that it would have saved, no more.
            with contextlib.suppress(CheckpointError):
                started_at = child.resume(job.resume_from)
                self._resumed_epochs = child.fitting.epoch
        measured["build_seconds"] = watch.seconds
        child.run(job.epochs, watch, started_at)
        seconds = watch.seconds
        if job.pause_to is not None:
            child.pause(job.pause_to)
        held_out = {}
        if job.score_test:
            held_out = scores(confusion(child.fitting.model, self.data.test, self.dataset.classes), "test")
        kept = {name: tuple(values) for name, values in curve.items()}
        paused = job.pause_to is not None
        return ChildResult(Status.OK, measured, kept, held_out, seconds, paused, resumed_epochs=self._resumed_epochs)


class BuildFailed(RuntimeError):
    """A network cannot be built."""


class ChildTraining:
    """The training of one network with the restart rule; the same arguments give the same numbers on one machine.

    Attributes:
        fitting: the network and its training.
        curve: values after every epoch so far.
    """

    def __init__(self, worker: ChildWorker, encoding: Encoding, seed: int, deadline: float, curve: Curve) -> None:
        """Build and initialise the network."""
        self.worker = worker
        self.encoding = encoding
        self.seed = seed
        self.deadline = deadline
        self.curve = curve
        self.restarts = 0
        self.fitting = self._begin()

    def _begin(self) -> Fitting:
        """Return a training of a newly drawn network; every restart draws other weights."""
        recipe = self.worker.task.recipe
        seed = (self.seed + self.restarts) % 2**63
        if self.worker.task.reference is not None:
            # The user's own layers draw from the global generators, their parameters as well as their dropout.
            torch.default_generator.manual_seed(seed)
        model = self.worker._build(self.encoding)
        generator = torch.Generator().manual_seed(seed)
        initialise(model, generator, recipe.initialisation)
        factor = recipe.restart_factor**self.restarts
        return Fitting(model, self.worker.data.train, recipe, generator, factor)

    def run(self, epochs: int, watch: Stopwatch, seconds_before: float) -> None:
        """Train until `epochs` epochs are done, appending to the curve.

        Raises:
            Diverged: the loss became infinite or NaN.
            OutOfTime: the deadline came first.
        """
        classes = self.worker.dataset.classes
        while self.fitting.epoch < epochs:
            loss = self.fitting.run_epoch(self.deadline)
            if not math.isfinite(loss):
                if self._restart():
                    continue
                raise Diverged(f"the training loss is {loss} in epoch {self.fitting.epoch}")
            found = confusion(self.fitting.model, self.worker.data.valid, classes, check=self._check_time)
            values = scores(found, "valid")
            # Balanced, since always answering with the most frequent class is no better than chance.
            if values["valid_balanced_accuracy"] <= 1 / classes and self._restart():
                continue
            for name, value in {
                **values,
                "train_loss": loss,
                "train_seconds": seconds_before + watch.seconds,
            }.items():
                self.curve.setdefault(name, []).append(value)

    def _restart(self) -> bool:
        """Begin anew with a smaller learning rate, if this was the first epoch and the recipe allows it."""
        if self.fitting.epoch > 1 or self.restarts >= self.worker.task.recipe.restarts:
            return False
        self.restarts += 1
        self.fitting = self._begin()
        return True

    def _check_time(self) -> None:
        if time.monotonic() >= self.deadline:
            raise OutOfTime(f"the time was up when epoch {self.fitting.epoch} was validated")

    def pause(self, path: Path) -> None:
        """Leave a checkpoint."""
        self.fitting.pause(path, {"curve": self.curve, "restarts": self.restarts})

    def resume(self, path: Path) -> float:
        """Continue from a checkpoint and return the seconds that it had cost.

        Raises:
            CheckpointError: it is damaged or belongs to another network.
        """
        progress = self.fitting.resume(path)
        if progress["restarts"]:
            # The learning rate belongs to the restart, so the training is set up again as it was then.
            self.restarts = progress["restarts"]
            self.fitting = self._begin()
            self.fitting.resume(path)
        self.curve.update({name: list(values) for name, values in progress["curve"].items()})
        return self.curve["train_seconds"][-1] if self.curve.get("train_seconds") else 0.0


def classify(error: BaseException) -> Status:
    """Return the status of an exception in a child."""
    kinds = (
        (OverLimit, Status.OVER_LIMIT),
        (BuildFailed, Status.BUILD_ERROR),
        (Diverged, Status.DIVERGED),
        (OutOfTime, Status.TIMEOUT),
        ((MemoryError, torch.OutOfMemoryError), Status.OUT_OF_MEMORY),
        ((LatencyError, CheckpointError), Status.CRASHED),
    )
    for kind, status in kinds:
        if isinstance(error, kind):
            return status
    # The CPU allocator raises a plain RuntimeError.
    if isinstance(error, RuntimeError) and any(text in str(error) for text in _MEMORY_ERRORS):
        return Status.OUT_OF_MEMORY
    return Status.CRASHED


class Stopwatch:
    """Seconds since it was made: of the processor for the CPU, of the clock for other devices."""

    def __init__(self, device: str) -> None:
        """Start."""
        self._clock = time.process_time if device == "cpu" else time.perf_counter
        self._started = self._clock()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self._clock() - self._started


@contextlib.contextmanager
def peak_memory(device: str, measured: dict[str, float]) -> Iterator[None]:
    """Put ``peak_memory_bytes`` into `measured`: the most that was held beyond what was held before.

    On CUDA it is the memory of tensors. On the CPU it is that of the process, known on Linux only; else it is NaN.
    """
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        try:
            yield
        finally:
            measured["peak_memory_bytes"] = float(torch.cuda.max_memory_allocated(device) - before)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before_kb = _status_kb("VmRSS")
    try:
        yield
    finally:
        measured["peak_memory_bytes"] = max(1024.0 * (_status_kb("VmHWM") - before_kb), 0.0)


def _status_kb(field_name: str) -> float:
    """Return a field of /proc/self/status in KiB, NaN where there is none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field_name + ":"):
                return float(line.split()[1])
    return math.nan
