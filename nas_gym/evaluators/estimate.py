"""What a search by real training will cost, from three children trained for one epoch each."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch

from nas_gym.datasets.catalogue import Facts
from nas_gym.evaluators.child import Inspection
from nas_gym.evaluators.core import Queries, Status, stream_key
from nas_gym.evaluators.limits import Limits
from nas_gym.evaluators.training import TrainingEvaluator
from nas_gym.networks.operations import complexity
from nas_gym.search_spaces.core import Encoding

_CHILDREN = 3
_INSPECTED = 200
_COUNTED = 100
_MEASURED_BATCH = 16
_PASSES = 3


@dataclass(frozen=True)
class Estimate:
    """What was measured, and what follows from it.

    Attributes:
        start_seconds: wall seconds until the workers are ready: imports, data.
        seconds_per_child: mean wall seconds of a full training with all workers busy; NaN when all samples failed.
        slowest_seconds: the same for the slowest sample.
        epochs: epochs of a full training.
        peak_memory_bytes: most memory that a sample took.
        workers: children in training at once.
        over_limit: share of the search space over each limit, of a uniform sample; 0 where nothing was over.
        failures: why samples failed.
    """

    start_seconds: float
    seconds_per_child: float
    slowest_seconds: float
    epochs: int
    peak_memory_bytes: float
    workers: int
    over_limit: Mapping[str, float]
    failures: tuple[str, ...]

    def total_seconds(self, queries: int) -> float:
        """Return the wall seconds of a search whose queries are all different, the final report included.

        Refused children cost nothing; the limit that refuses most is taken for all of them.
        """
        trained = queries * (1 - max(self.over_limit.values(), default=0.0))
        return self.start_seconds + trained * self.seconds_per_child / self.workers + self.seconds_per_child


def estimate(evaluator: TrainingEvaluator, rng: np.random.Generator) -> Estimate:
    """Train three random children for one epoch each and inspect 200 more without training them.

    Args:
        evaluator: the evaluator of the search to come, with an empty store of its own.
        rng: draws the architectures.

    Raises:
        DatasetError: the data cannot be loaded.
        WorkerError: no worker can be started.
    """
    space = evaluator.space
    started = time.perf_counter()
    evaluator.workers.warm_up()
    start_seconds = time.perf_counter() - started
    shares, sampled = _inspect(evaluator, rng)
    busy_before = evaluator.workers.busy_seconds
    answers = evaluator.evaluate(Queries.of(space, sampled, fidelity=1))
    busy = evaluator.workers.busy_seconds - busy_before
    seconds, failures, processor = [], [], 0.0
    for index, encoding in enumerate(sampled):
        answer = answers.row(index)
        if answer.status is not Status.OK:
            failures.append(f"{space.to_string(encoding)}: {answer.status.label}, {answer.message}")
            continue
        key = evaluator.key(encoding, 1, stream_key(evaluator.evaluation_seed, encoding, 0))
        stored = evaluator.store.get(key)
        build = 0.0 if stored is None else stored.metrics.get("build_seconds", 0.0)
        processor += answer.cost_seconds
        seconds.append(build + evaluator.recipe.epochs * (answer.metrics["train_seconds"] - build))
    # Processor seconds become wall seconds by what the samples took of both.
    factor = busy / processor if processor and len(set(sampled)) == _CHILDREN and not failures else 1.0
    return Estimate(
        start_seconds=start_seconds,
        seconds_per_child=factor * float(np.mean(seconds)) if seconds else math.nan,
        slowest_seconds=factor * max(seconds, default=math.nan),
        epochs=evaluator.recipe.epochs,
        peak_memory_bytes=float(np.nanmax(answers.metrics["peak_memory_bytes"])) if seconds else math.nan,
        workers=evaluator.slots,
        over_limit=shares,
        failures=tuple(failures),
    )


@dataclass(frozen=True)
class Computation:
    """What the trainings of a search compute.

    Attributes:
        child_flops: mean floating-point operations of one training: three passes (forward, and two backward) over all
            training images in all epochs, two operations a multiply-add.
        largest_share: how much more the largest sample takes than the mean one.
        flops_per_second: measured here on a network of about the mean size.
        device: where that was.
    """

    child_flops: float
    largest_share: float
    flops_per_second: float
    device: str

    def days(self, queries: int, flops_per_second: float | None = None) -> float:
        """Return days of one device for so many different trainings.

        Args:
            queries: trainings.
            flops_per_second: of the device; by default what was measured here.
        """
        return queries * self.child_flops / (flops_per_second or self.flops_per_second) / 86_400


@dataclass(frozen=True)
class _Shapes:
    """What a network builder needs to know of a data set."""

    input_shape: tuple[int, int, int]
    classes: int


def computation(evaluator: TrainingEvaluator, facts: Facts, rng: np.random.Generator) -> Computation:
    """Count what random children compute, without data, and measure how fast this machine does it.

    Args:
        evaluator: of the search to come; nothing is loaded or trained by it.
        facts: of its data set.
        rng: draws the architectures.
    """
    task, side = evaluator.task, evaluator.task.source.image_size or facts.side
    problem = _Shapes((facts.channels, side, side), facts.classes)
    counted = []
    for encoding in (task.space.sample(rng) for _ in range(_COUNTED)):
        with torch.device("meta"):
            model = task.build(encoding, problem)
        counted.append((complexity(model, problem.input_shape).multiply_adds, encoding))
    mean = float(np.mean([count for count, _ in counted]))
    available = min(task.source.subset or facts.training_images, facts.training_images)
    trained = task.source.train_images or available * (1 - task.source.valid_share)
    images = trained * task.recipe.epochs
    # The speed depends on the size, so it is measured on the network that is nearest to the mean.
    count, encoding = min(counted, key=lambda pair: abs(pair[0] - mean))
    seconds = _seconds_per_image(task.build(encoding, problem), evaluator, problem.input_shape)
    return Computation(
        child_flops=_PASSES * 2 * mean * images,
        largest_share=max(count for count, _ in counted) / mean,
        flops_per_second=_PASSES * 2 * count / seconds,
        device=evaluator.device,
    )


def _seconds_per_image(model: torch.nn.Module, evaluator: TrainingEvaluator, shape: tuple[int, int, int]) -> float:
    """Return wall seconds per image of the forward and backward pass, the best of three."""
    device = torch.device(evaluator.device)
    model = model.to(device)
    images = torch.zeros((_MEASURED_BATCH, *shape), device=device)
    best = math.inf
    for _ in range(4):
        started = time.perf_counter()
        model(images).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best / _MEASURED_BATCH


def _inspect(evaluator: TrainingEvaluator, rng: np.random.Generator) -> tuple[dict[str, float], list[Encoding]]:
    """Return the share of the space over each limit on the size, and three architectures within all of them.

    Nothing is trained or timed, so the latency is left out.
    """
    bounded = ("max_parameters", "max_multiply_adds", "max_memory_mb")
    wanted = {name: value for name, value in asdict(evaluator.limits).items() if value is not None and name in bounded}
    space, workers = evaluator.space, evaluator.workers
    drawn = [space.canonical(space.sample(rng)) for _ in range(_INSPECTED if wanted else _CHILDREN)]
    if not wanted:
        return {}, drawn
    encodings = {workers.submit(Inspection(encoding)): encoding for encoding in drawn}
    over = dict.fromkeys(wanted, 0)
    within: list[Encoding] = []
    while completions := workers.collect():
        for completion in completions:
            metrics = {} if completion.answer is None else completion.answer.metrics
            exceeded = [name for name, value in wanted.items() if Limits(**{name: value}).exceeded(metrics)]
            for name in exceeded:
                over[name] += 1
            if not exceeded:
                within.append(encodings[completion.ticket])
    return {name: count / _INSPECTED for name, count in over.items()}, (within or drawn)[:_CHILDREN]
