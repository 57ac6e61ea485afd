"""From a search to a model: train the best architectures again, rank them, score the winner on the test set once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nas_gym.errors import InvalidArgument, NASGymError
from nas_gym.evaluators.child import ChildTraining, ChildWorker
from nas_gym.evaluators.core import Status
from nas_gym.evaluators.store import StoredEvaluation
from nas_gym.evaluators.training import TrainingEvaluator
from nas_gym.networks.export import FailedFormat, ModelCard, export_model
from nas_gym.networks.fit import confusion
from nas_gym.networks.scores import scores
from nas_gym.search_spaces.core import Encoding, SearchSpace

from .records import Row


class FinalTrainingFailed(NASGymError):
    """No network could be trained to the end."""


@dataclass(frozen=True)
class Candidate:
    """An architecture after its final trainings.

    Attributes:
        name: notation, or the name of the reference.
        encoding: what was trained.
        search_reward: what the search had seen; NaN for the reference.
        trainings: one answer per seed.
        metric: validation metric that ranks.
    """

    name: str
    encoding: Encoding
    search_reward: float
    trainings: tuple[StoredEvaluation, ...]
    metric: str

    @property
    def values(self) -> list[float]:
        """The metric of every training that succeeded."""
        return [one.metrics[self.metric] for one in self.trainings if one.status is Status.OK]

    @property
    def mean(self) -> float:
        """Mean over the seeds; NaN if all failed."""
        return float(np.mean(self.values)) if self.values else math.nan

    @property
    def deviation(self) -> float:
        """Sample deviation over the seeds; NaN with fewer than two."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else math.nan

    @property
    def best(self) -> tuple[int, StoredEvaluation]:
        """Seed and answer of the training with the best validation value."""
        succeeded = [(seed, one) for seed, one in enumerate(self.trainings) if one.status is Status.OK]
        return max(succeeded, key=lambda pair: pair[1].metrics[self.metric])

    def to_json(self) -> dict[str, Any]:
        """Return what ``ranking.json`` holds."""
        return {
            "architecture": self.name,
            "encoding": list(self.encoding),
            "search_reward": self.search_reward,
            "metric": self.metric,
            "mean": self.mean,
            "deviation": self.deviation,
            "trainings": [
                {"status": one.status.label, "message": one.message, "metrics": dict(one.metrics)}
                for one in self.trainings
            ],
        }


def best_rows(rows: Sequence[Row], space: SearchSpace, count: int) -> list[tuple[Encoding, float]]:
    """Return the `count` best different architectures of a search with their rewards, best first.

    Raises:
        InvalidArgument: the search has no successful query.
    """
    rewards: dict[Encoding, float] = {}
    for row in rows:
        if row["status"] == "ok":
            canonical = space.canonical(tuple(row["encoding"]))
            rewards[canonical] = max(float(row["reward"]), rewards.get(canonical, -math.inf))
    if not rewards:
        raise InvalidArgument("the run has no successful query, so there is nothing to train.")
    return sorted(rewards.items(), key=lambda pair: -pair[1])[:count]


def train_candidates(
    evaluator: TrainingEvaluator, chosen: Sequence[tuple[Encoding, float]], seeds: int, metric: str
) -> list[Candidate]:
    """Train architectures from scratch and return them ranked by the mean of a validation metric.

    Raises:
        FinalTrainingFailed: every single training failed.
    """
    answers = evaluator.train_again([encoding for encoding, _ in chosen], seeds)
    candidates = [
        Candidate(_name(evaluator, encoding), encoding, reward, tuple(trainings), metric)
        for (encoding, reward), trainings in zip(chosen, answers, strict=True)
    ]
    if not any(candidate.values for candidate in candidates):
        first = candidates[0].trainings[0]
        raise FinalTrainingFailed(
            f"none of the {len(candidates) * seeds} trainings succeeded; the first ended as {first.status.label}: "
            f"{first.message}"
        )
    return sorted(candidates, key=lambda one: -one.mean if one.values else math.inf)


def _name(evaluator: TrainingEvaluator, encoding: Encoding) -> str:
    return evaluator.task.reference or evaluator.space.to_string(encoding)


def deploy(
    evaluator: TrainingEvaluator, candidate: Candidate, directory: Path, on_score: Callable[[], None] = lambda: None
) -> tuple[dict[str, float], list[FailedFormat]]:
    """Score a candidate's best training on the test set, once, and write its model files.

    Args:
        evaluator: what trained it.
        candidate: what to deploy.
        directory: a new directory.
        on_score: called before the test set is touched.

    Returns:
        The scores, and the formats that could not be written.

    Raises:
        FinalTrainingFailed: the weights are gone from the store.
    """
    seed, training = candidate.best
    model, worker = _trained(evaluator, candidate, seed, training)
    on_score()
    dataset = worker.dataset
    found = scores(confusion(model, worker.data.test, dataset.classes), "test")
    card = ModelCard(
        name=directory.name,
        architecture=candidate.name,
        space=evaluator.space.name,
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        class_names=dataset.class_names,
        input_shape=dataset.input_shape,
        mean=dataset.mean,
        deviation=dataset.deviation,
        metrics=_formatted(candidate, found),
        recipe=evaluator.recipe.to_json(),
        parameters=int(training.metrics["parameters"]),
        multiply_adds=int(training.metrics["multiply_adds"]),
        versions={name: version(name) for name in ("nas-gym", "torch")},
        notes=_notes(dataset.name, dataset.notes),
    )
    return found, export_model(model.cpu(), directory, card)


def _trained(
    evaluator: TrainingEvaluator, candidate: Candidate, seed: int, training: StoredEvaluation
) -> tuple[nn.Module, ChildWorker]:
    """Return the network with its trained weights, on the CPU."""
    path = None if training.artifact is None else evaluator.store.artifact_path(training.artifact)
    if path is None:
        raise FinalTrainingFailed(f"the weights of {candidate.name}, seed {seed}, are gone from the store.")
    worker = ChildWorker(evaluator.task, "cpu")
    child = ChildTraining(worker, candidate.encoding, 0, math.inf, {})
    child.resume(path)
    return child.fitting.model.eval(), worker


def _formatted(candidate: Candidate, test: Mapping[str, float]) -> dict[str, str]:
    seeds = len(candidate.values)
    spread = f" ± {candidate.deviation:.4f}" if seeds > 1 else ""
    text = f"{candidate.mean:.4f}{spread}, mean of {seeds} training{'s' if seeds > 1 else ''}"
    label = candidate.metric.replace("_", " ")
    return {label: text, **{name.replace("_", " "): f"{value:.4f}" for name, value in test.items()}}


def _notes(name: str, notes: Sequence[str]) -> tuple[str, ...]:
    own = "The validation figure chose among the candidates; the test images were scored once, with these weights."
    scale = ("The pixels of digits run from 0 to 16, not to 255.",) if name == "digits" else ()
    return (own, *scale, *notes)


def check_reference(reference: str, evaluator: TrainingEvaluator) -> None:
    """Build the user's own network once, so that a mistake does not wait for the first training.

    Raises:
        InvalidArgument: it cannot be imported or built, or does not fit the data.
    """
    try:
        with torch.device("meta"):
            evaluator.task.build(evaluator.space.sample(np.random.default_rng(0)), evaluator.dataset)
    except InvalidArgument:
        raise
    except Exception as error:
        raise InvalidArgument(
            f"the reference {reference!r} cannot be built: {type(error).__name__}: {error}."
        ) from error
