"""The reward of a finished architecture by really training it."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from nas_gym import networks
from nas_gym.datasets import DATASETS, Dataset
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
from nas_gym.networks.fit import DeviceSplit, Recipe, count_correct, fit, initialise
from nas_gym.networks.operations import complexity
from nas_gym.search_spaces.core import Encoding, SearchSpace


@dataclass(frozen=True)
class Training:
    """What one training of one network gave.

    Attributes:
        valid_correct: correctly classified validation images after every epoch.
        test_correct: correctly classified test images after the last epoch.
        cpu_seconds: processor seconds of training and validation, without the test set; they are comparable
            between busy and idle machines, since a network is trained by one thread.
    """

    valid_correct: tuple[int, ...]
    test_correct: int
    cpu_seconds: float


@dataclass(frozen=True)
class DeviceData:
    """The three parts of a data set, on one device in the fastest layout."""

    train: DeviceSplit
    valid: DeviceSplit
    test: DeviceSplit

    @classmethod
    def of(cls, dataset: Dataset, device: str = "cpu") -> DeviceData:
        """Copy a data set to `device`."""
        parts = (DeviceSplit.of(part, device) for part in (dataset.train, dataset.valid, dataset.test))
        return cls(*(DeviceSplit(p.images.contiguous(memory_format=torch.channels_last), p.labels) for p in parts))


class Diverged(ArithmeticError):
    """The training loss is no longer a finite number."""


def train_network(
    space: SearchSpace,
    encoding: Encoding,
    dataset: Dataset,
    data: DeviceData,
    recipe: Recipe,
    sizes: Mapping[str, Any],
    seed: int,
    epochs: int | None = None,
) -> Training:
    """Build the network of `encoding` and train it; the same arguments give the same result on the same machine.

    Args:
        space: the search space.
        encoding: what to build, literally (not its canonical representative).
        dataset: shapes and classes.
        data: the same data set on the device.
        recipe: how to train.
        sizes: keyword arguments of the network builder.
        seed: of the initial weights and of the order of the images, below 2**63.
        epochs: stop after so many epochs of the recipe's schedule.

    Raises:
        Diverged: the loss became infinite or NaN.
        RuntimeError: torch failed to build or run the network.
    """
    started = time.process_time()
    model = networks.build(space, encoding, dataset.input_shape, dataset.classes, **sizes)
    model = model.to(data.train.images.device).to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(seed)
    initialise(model, generator)
    valid_correct = []
    for loss in fit(model, data.train, recipe, generator, epochs):
        if not math.isfinite(loss):
            raise Diverged(f"the training loss is {loss} in epoch {len(valid_correct) + 1}")
        valid_correct.append(count_correct(model, data.valid))
    seconds = time.process_time() - started
    return Training(tuple(valid_correct), count_correct(model, data.test), seconds)


class TrainingEvaluator(Evaluator):
    """Trains the canonical representative of every architecture from scratch.

    The fidelity is the number of epochs of the recipe's schedule; an answer at a low fidelity is a prefix of the
    same training. Repeating a query repeats the training with another seed.

    Metrics: ``valid_accuracy`` (fraction), ``parameters``, ``multiply_adds``, ``train_seconds``; held out:
    ``test_accuracy``.
    """

    metrics: Mapping[str, Metric] = {
        "valid_accuracy": Metric("maximize", "fraction"),
        "parameters": Metric("minimize", "count"),
        "multiply_adds": Metric("minimize", "count"),
        "train_seconds": Metric("minimize", "seconds"),
        "test_accuracy": Metric("maximize", "fraction", held_out=True),
    }
    deterministic = False

    def __init__(
        self,
        space: SearchSpace,
        dataset: str = "digits",
        recipe: Recipe | None = None,
        evaluation_seed: int = 0,
        **sizes: Any,  # noqa: ANN401 - each network builder documents its own sizes
    ) -> None:
        """Configure the evaluator; nothing is loaded or trained before the first query.

        Args:
            space: a search space that has a network builder.
            dataset: name in `DATASETS`, or ``module:function``.
            recipe: how to train; the recipe of the packaged table `digits` by default.
            evaluation_seed: of all trainings.
            **sizes: of the network around the architecture, see the builder.
        """
        self.space = space
        self.recipe = recipe or Recipe()
        self.fidelities = (1, self.recipe.epochs)
        self.evaluation_seed = checked_seed(evaluation_seed)
        self.sizes = sizes
        self._load = DATASETS[dataset]
        self._repeats: dict[tuple[Encoding, int], int] = {}

    @cached_property
    def _dataset(self) -> Dataset:
        return self._load()

    @cached_property
    def _data(self) -> DeviceData:
        return DeviceData.of(self._dataset)

    def evaluate(self, queries: Queries) -> Evaluations:
        """Train every architecture of the batch, one after the other."""
        fidelities: Iterable[int | None] = [None] * len(queries)
        if queries.fidelities is not None:
            fidelities = queries.fidelities.tolist()
        rows = queries.rows
        answers = [self.evaluate_one(row, fidelity) for row, fidelity in zip(rows, fidelities, strict=True)]
        return Evaluations.of(answers, self.search_metrics)

    def evaluate_one(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> Evaluation:
        """Train one architecture.

        Raises:
            FidelityError: `fidelity` is not between 1 and the recipe's epochs.
        """
        epochs = self.recipe.epochs if fidelity is None else self.check_fidelity(fidelity)
        canonical = self.space.canonical(encoding)
        repeat = self._repeats.get((canonical, epochs), 0)
        self._repeats[canonical, epochs] = repeat + 1
        # The key leaves the fidelity out: a longer training must continue the shorter one.
        return self._train(canonical, epochs, stream_key(self.evaluation_seed, canonical, repeat))[0]

    def _train(self, encoding: Encoding, epochs: int, seed: int) -> tuple[Evaluation, float]:
        """Return the evaluation and the test accuracy, NaN after a failure."""
        started = time.process_time()
        shape = self._dataset.input_shape
        try:
            with torch.device("meta"):
                model = networks.build(self.space, encoding, shape, self._dataset.classes, **self.sizes)
            cost = complexity(model, shape)
        except (RuntimeError, ValueError) as error:
            return self._failure(Status.BUILD_ERROR, str(error), started), math.nan
        try:
            training = train_network(
                self.space, encoding, self._dataset, self._data, self.recipe, self.sizes, seed, epochs
            )
        except Diverged as error:
            return self._failure(Status.DIVERGED, str(error), started), math.nan
        except MemoryError as error:
            return self._failure(Status.OUT_OF_MEMORY, str(error), started), math.nan
        except (RuntimeError, ValueError):
            return self._failure(Status.CRASHED, traceback.format_exc(limit=-3), started), math.nan
        metrics = {
            "valid_accuracy": training.valid_correct[-1] / len(self._dataset.valid),
            "parameters": float(cost.parameters),
            "multiply_adds": float(cost.multiply_adds),
            "train_seconds": training.cpu_seconds,
        }
        return Evaluation(Status.OK, metrics, training.cpu_seconds), training.test_correct / len(self._dataset.test)

    def _failure(self, status: Status, message: str, started: float) -> Evaluation:
        metrics = dict.fromkeys(self.search_metrics, math.nan)
        return Evaluation(status, metrics, time.process_time() - started, message)

    def report(self, encoding: Encoding) -> dict[str, float]:
        """Train once more at full length, with a seed of its own, and return all metrics, test accuracy included."""
        canonical = self.space.canonical(encoding)
        seed = stream_key(self.evaluation_seed, canonical, "report")
        evaluation, test_accuracy = self._train(canonical, self.recipe.epochs, seed)
        return {**evaluation.metrics, "test_accuracy": test_accuracy}

    def reset_repeats(self) -> None:
        """Start the seeds of repeated trainings anew."""
        self._repeats.clear()
