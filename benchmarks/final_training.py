"""From a search to a model: train the best architectures again, rank them, score the winner on the test set once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from torch import nn

from nas_gym.errors import InvalidArgument, NASGymError, ResumeError, RunExists
from nas_gym.evaluators.child import ChildWorker
from nas_gym.evaluators.core import Status
from nas_gym.evaluators.stored import StoredEvaluation
from nas_gym.evaluators.training import TrainingEvaluator
from nas_gym.networks.ensemble import Ensemble
from nas_gym.networks.export import FailedFormat, ModelCard, export_model
from nas_gym.networks.fit import confusion
from nas_gym.networks.scores import scores
from nas_gym.registry import resolve
from nas_gym.search_spaces.core import Encoding, SearchSpace

from .records import Row

MODELS = ("1-best", "reference")
"""Folders of the exported models."""

STORE = "store.sqlite"
"""Where the trainings are, beside the models."""

_FILES = ("weights.safetensors", "program.pt2", "model.onnx", "classes.json", "README.md")


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

    Where the agent chose fidelities, those seen at a higher one come first, since their rewards cannot be compared.

    Raises:
        InvalidArgument: the search has no successful query.
        ResumeError: a row is no query.
    """
    rewards: dict[Encoding, tuple[float, float]] = {}
    for number, row in enumerate(rows, start=1):
        try:
            status, encoding, reward = row["status"], tuple(row["encoding"]), row["reward"]
        except (KeyError, TypeError) as error:
            raise ResumeError(f"evaluations.jsonl, line {number} is no query of a search: {error}.") from error
        # JSON has no NaN and no infinity, which an objective may give; nothing can be ranked by them.
        if status == "ok" and reward is not None:
            canonical = space.canonical(encoding)
            found = (float(row.get("fidelity", math.inf)), float(reward))
            rewards[canonical] = max(found, rewards.get(canonical, found))
    if not rewards:
        raise InvalidArgument("the run has no successful query, so there is nothing to train.")
    ranked = sorted(rewards.items(), key=lambda pair: pair[1], reverse=True)[:count]
    return [(encoding, reward) for encoding, (_, reward) in ranked]


def train_candidates(
    evaluator: TrainingEvaluator, chosen: Sequence[tuple[Encoding, float]], seeds: int, metric: str
) -> list[Candidate]:
    """Train architectures from scratch and return them ranked by the mean of a validation metric.

    Raises:
        FinalTrainingFailed: every single training failed.
    """
    candidates = _train(evaluator, chosen, seeds, metric)
    if not any(candidate.values for candidate in candidates):
        first = candidates[0].trainings[0]
        raise FinalTrainingFailed(
            f"none of the {len(candidates) * seeds} trainings succeeded; the first ended as {first.status.label}: "
            f"{first.message}"
        )
    return sorted(candidates, key=lambda one: -one.mean if one.values else math.inf)


def train_reference(evaluator: TrainingEvaluator, seeds: int, metric: str) -> Candidate:
    """Train the user's own network as the candidates are trained; if that fails, its answers say why."""
    # The network is the same whatever the encoding.
    encoding = evaluator.space.canonical(evaluator.space.sample(np.random.default_rng(0)))
    return _train(evaluator, [(encoding, math.nan)], seeds, metric)[0]


def _train(
    evaluator: TrainingEvaluator, chosen: Sequence[tuple[Encoding, float]], seeds: int, metric: str
) -> list[Candidate]:
    answers = evaluator.train_again([encoding for encoding, _ in chosen], seeds)
    return [
        Candidate(_name(evaluator, encoding), encoding, reward, tuple(trainings), metric)
        for (encoding, reward), trainings in zip(chosen, answers, strict=True)
    ]


def _name(evaluator: TrainingEvaluator, encoding: Encoding) -> str:
    return evaluator.task.reference or evaluator.space.to_string(encoding)


def check_target(target: Path) -> None:
    """Check that models can be written here, where an interrupted command may have left some.

    Raises:
        RunExists: finished models are here, or something that no command left.
    """
    if target.exists() and not target.is_dir():
        raise RunExists(f"{target} is no directory; choose another --out.")
    if (target / "ranking.json").exists():
        raise RunExists(f"{target} holds finished models; choose another --out or remove it.")
    left = {f"{file}{ending}" for file in _FILES for ending in ("", ".tmp")} if (target / STORE).exists() else set()
    for folder in (target / name for name in MODELS):
        found = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
        if folder.exists() and not found <= left:
            raise RunExists(f"{folder} exists already and is not of an interrupted command; choose another --out.")


def _remove_unfinished(folder: Path) -> None:
    """Remove the files of an interrupted command, and no others."""
    for file in _FILES:
        (folder / file).unlink(missing_ok=True)
        (folder / f"{file}.tmp").unlink(missing_ok=True)


def deploy(
    evaluator: TrainingEvaluator, candidate: Candidate, directory: Path, on_score: Callable[[], None] = lambda: None
) -> tuple[dict[str, float], list[FailedFormat]]:
    """Score a candidate's best training on the test set, once, and write its model files.

    Args:
        evaluator: what trained it.
        candidate: what to deploy.
        directory: where to write; what an interrupted command left there is replaced.
        on_score: called before the test set is touched.

    Returns:
        The scores, and the formats that could not be written.

    Raises:
        FinalTrainingFailed: the weights are gone from the store.
    """
    seed, training = candidate.best
    worker = ChildWorker(evaluator.task, "cpu")
    model = _trained(evaluator, candidate, worker, seed, training)
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
    # Files without a ranking are what an interrupted command left.
    _remove_unfinished(directory)
    return found, export_model(model, directory, card)


def score_ensemble(evaluator: TrainingEvaluator, members: Sequence[Candidate]) -> dict[str, float]:
    """Average the class probabilities of the best training of each candidate and score them, the test set once.

    Returns:
        Validation and test scores by metric.

    Raises:
        FinalTrainingFailed: the weights of a member are gone from the store.
    """
    worker = ChildWorker(evaluator.task, "cpu")
    ensemble = Ensemble([_trained(evaluator, one, worker, *one.best) for one in members]).eval()
    classes = worker.dataset.classes
    valid = scores(confusion(ensemble, worker.data.valid, classes), "valid")
    return valid | scores(confusion(ensemble, worker.data.test, classes), "test")


def _trained(
    evaluator: TrainingEvaluator, candidate: Candidate, worker: ChildWorker, seed: int, training: StoredEvaluation
) -> nn.Module:
    """Return the network with its trained weights, on the CPU, wherever it was trained."""
    path = None if training.artifact is None else evaluator.store.artifact_path(training.artifact)
    if path is None:
        raise FinalTrainingFailed(f"the weights of {candidate.name}, seed {seed}, are gone from the store.")
    # The checkpoint is not resumed: its generators may be of another device, and only the weights are wanted.
    try:
        tensors = safetensors.torch.load_file(path)
        model = worker.task.build(candidate.encoding, worker.dataset)
        own = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
        model.load_state_dict(own)
    except (OSError, safetensors.SafetensorError, RuntimeError) as error:
        raise FinalTrainingFailed(
            f"the weights of {candidate.name}, seed {seed}, do not fit ({error}); choose another --out to train anew."
        ) from error
    return model.eval()


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


def import_reference(reference: str) -> None:
    """Import the function of the user's own network.

    Raises:
        InvalidArgument: it cannot be imported.
    """
    try:
        resolve(reference)
    except InvalidArgument:
        raise
    except Exception as error:
        raise InvalidArgument(
            f"the reference {reference!r} cannot be imported: {type(error).__name__}: {error}."
        ) from error


def check_reference(reference: str, evaluator: TrainingEvaluator) -> None:
    """Build the user's own network once, so that a mistake does not wait for the first training.

    Args:
        reference: ``module:function``.
        evaluator: what is going to train it.

    Raises:
        InvalidArgument: it cannot be built, or does not fit the data.
    """
    dataset = evaluator.dataset
    try:
        evaluator.task.build(evaluator.space.sample(np.random.default_rng(0)), dataset)
    except InvalidArgument:
        raise
    except Exception as error:
        raise InvalidArgument(
            f"the reference {reference!r} cannot be built: {type(error).__name__}: {error}."
        ) from error
