"""`nas-gym train --ensemble`, on a run whose data, recipe and network sizes are not the default ones."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import gymnasium
import numpy as np
import safetensors.torch
import torch

from nas_gym import networks
from nas_gym.cli import main
from nas_gym.cli.estimate import innermost
from nas_gym.datasets import Split
from nas_gym.evaluators.store import EvaluationStore
from nas_gym.evaluators.stored import StoredEvaluation
from nas_gym.evaluators.training import TrainingEvaluator

pytestmark = pytest.mark.usefixtures("one_thread")
"""Compute with one thread, as workers do."""

ENVIRONMENT: dict[str, Any] = {
    "max_depth": 2,
    "widths": "tiny",
    "batch_norm": True,
    "subset": 400,
    "split_seed": 3,
    "batch_size": 25,
    "epochs": 2,
}
MEMBERS, SEEDS, EPOCHS = 2, 2, 1


def command(*arguments: object) -> tuple[int, str, str]:
    """Run the command line in this process and return exit code, output and errors."""
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
        warnings.catch_warnings(),
    ):
        # The exporters of torch warn of themselves.
        warnings.simplefilter("ignore")
        patch.setenv("COLUMNS", "300")
        patch.setattr(sys, "argv", ["nas-gym", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """Return the directory of a search that trained four chains in this process."""
    out = tmp_path_factory.mktemp("search") / "run"
    given = (f"{name}={json.dumps(value)}" for name, value in {**ENVIRONMENT, "workers": 0}.items())
    options = (option for argument in given for option in ("--env-arg", argument))
    code, _, err = command("search", "--env", "NAS-MetaQNN-v0", "--budget", 4, "--seed", 1, "--out", out, *options)
    assert code == 0, err
    return out


@pytest.fixture(scope="module")
def printed(run: Path) -> str:
    """Return what a final training of this run printed."""
    code, out, err = command(
        *("train", run, "--top", MEMBERS, "--ensemble", MEMBERS, "--seeds", SEEDS, "--epochs", EPOCHS, "--workers", 0)
    )
    assert code == 0, err
    return out


@pytest.fixture(scope="module")
def record(run: Path, printed: str) -> dict[str, Any]:
    """Return the record of that training."""
    return json.loads((run / "models" / "ranking.json").read_text())


def evaluator_of(store: Path | None = None, **changes: Any) -> TrainingEvaluator:
    """Return the evaluator of the environment of the run, with changes of its arguments."""
    arguments = {**ENVIRONMENT, "workers": 0, "store": None if store is None else str(store), **changes}
    envs: Any = gymnasium.make_vec(
        "NAS-MetaQNN-v0", vectorization_mode="vector_entry_point", autoreset_mode="Disabled", **arguments
    )
    evaluator = innermost(envs.unwrapped.evaluator)
    assert isinstance(evaluator, TrainingEvaluator)
    return evaluator


@pytest.fixture(scope="module")
def evaluator(run: Path, record: dict[str, Any]) -> Iterator[TrainingEvaluator]:
    """Return an evaluator of the run's own settings but for the epochs, on the store of the final training."""
    one = evaluator_of(run / "models" / "store.sqlite", epochs=EPOCHS)
    yield one
    one.close()


Trainings = list[tuple[tuple[int, ...], list[StoredEvaluation]]]


@pytest.fixture(scope="module")
def trainings(evaluator: TrainingEvaluator, record: dict[str, Any]) -> Trainings:
    """Return the ranked architectures with their trainings from the store."""
    encodings = [tuple(one["encoding"]) for one in record["ranking"]]
    return list(zip(encodings, evaluator.train_again(encodings, SEEDS), strict=True))


# --- data, recipe and sizes ------------------------------------------------------------------------


def test_training_takes_all_settings_from_the_environment(evaluator: TrainingEvaluator, trainings: Trainings) -> None:
    """What an evaluator of the same settings asks for is in the store already."""
    assert (len(trainings), evaluator.trained_epochs) == (MEMBERS, 0)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        pytest.param("space", {"max_depth": 3}, id="depth"),
        pytest.param("space", {"widths": "small"}, id="widths"),
        pytest.param("dataset", {"split_seed": 0}, id="split"),
        pytest.param("dataset", {"subset": None}, id="subset"),
        pytest.param("recipe", {"batch_size": 50}, id="batch size"),
        pytest.param("recipe", {"batch_norm": False}, id="batch normalisation"),
        pytest.param("recipe", {"epochs": ENVIRONMENT["epochs"]}, id="epochs"),
    ],
)
def test_another_setting_would_be_another_training(
    run: Path, printed: str, field: str, changes: dict[str, Any]
) -> None:
    """Its name in the store would differ, so that nothing else was taken instead of what the search had."""
    other = evaluator_of(**{"epochs": EPOCHS, **changes})
    wrong = getattr(other.key((0, 1), EPOCHS, 0), field)
    other.close()
    with EvaluationStore.existing(run / "models" / "store.sqlite") as store:
        assert wrong not in {getattr(key, field) for key, _ in store.rows()}


def test_the_members_do_not_look_at_the_test_set(trainings: Trainings) -> None:
    """It is scored for what is deployed alone."""
    assert [one.held_out for _, answers in trainings for one in answers] == [{}] * (MEMBERS * SEEDS)


# --- the ensemble ----------------------------------------------------------------------------------


def best(answers: list[StoredEvaluation]) -> StoredEvaluation:
    """Return the training of the highest validation accuracy."""
    return max(answers, key=lambda one: one.metrics["valid_accuracy"])


def probabilities(evaluator: TrainingEvaluator, trainings: Trainings, split: Split) -> list[np.ndarray]:
    """Return the class probabilities of each member's best training, [N, K], from the weights and the raw pixels."""
    dataset = evaluator.dataset
    pixels = (split.images - np.array(dataset.mean)) / np.array(dataset.deviation)
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32))
    found = []
    for encoding, answers in trainings:
        path = evaluator.store.artifact_path(best(answers).artifact or "")
        assert path is not None
        tensors = safetensors.torch.load_file(path)
        model = networks.build(evaluator.space, encoding, dataset.input_shape, dataset.classes, batch_norm=True).eval()
        model.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
        with torch.no_grad():
            exponentials = np.exp(np.asarray(model(images), np.float64))
        found.append(exponentials / exponentials.sum(1, keepdims=True))
    return found


@pytest.mark.parametrize("part", ["valid", "test"])
def test_the_score_is_that_of_the_mean_probabilities(
    evaluator: TrainingEvaluator, trainings: Trainings, record: dict[str, Any], part: str
) -> None:
    """Of the best training of each member, worked out from its weights."""
    split = getattr(evaluator.dataset, part)
    answers = np.mean(probabilities(evaluator, trainings, split), axis=0).argmax(1)
    assert record["ensemble"][f"{part}_accuracy"] == pytest.approx((answers == split.labels).mean())


def test_the_balanced_score_is_that_of_the_mean_probabilities(
    evaluator: TrainingEvaluator, trainings: Trainings, record: dict[str, Any]
) -> None:
    """The mean over the classes of the share of their images that is right."""
    test = evaluator.dataset.test
    right = np.mean(probabilities(evaluator, trainings, test), axis=0).argmax(1) == test.labels
    shares = [right[test.labels == label].mean() for label in np.unique(test.labels)]
    assert record["ensemble"]["test_balanced_accuracy"] == pytest.approx(np.mean(shares))


def test_no_member_answers_as_the_ensemble_does(evaluator: TrainingEvaluator, trainings: Trainings) -> None:
    """Otherwise the scores above would say little."""
    members = probabilities(evaluator, trainings, evaluator.dataset.test)
    joined = np.mean(members, axis=0).argmax(1)
    assert [(one.argmax(1) != joined).any() for one in members] == [True] * MEMBERS


def test_the_number_of_members_is_recorded(record: dict[str, Any]) -> None:
    """As many as were asked for."""
    assert record["ensemble"]["members"] == MEMBERS


def test_the_scores_are_printed(printed: str, record: dict[str, Any]) -> None:
    """Validation and test accuracy."""
    scores = (record["ensemble"][f"{part}_accuracy"] for part in ("valid", "test"))
    expected = "Ensemble of the best 2: validation {:.4f}, test {:.4f}".format(*scores)
    assert expected in printed.splitlines()


def test_the_winner_is_scored_beside_it(record: dict[str, Any], printed: str) -> None:
    """With its own test accuracy, in the row of the first rank."""
    expected = f"{record['models']['1-best']['test']['test_accuracy']:.4f}"
    (row,) = (line for line in printed.splitlines() if re.match(r"1 ", line))
    assert row.split()[-1] == expected


@pytest.mark.parametrize("count", [-1, 4])
def test_an_ensemble_has_at_most_as_many_members_as_are_trained(run: Path, tmp_path: Path, count: int) -> None:
    """Three by default; anything else is refused before anything is trained."""
    code, _, err = command("train", run, "--ensemble", count, "--out", tmp_path / "models")
    message = f"--ensemble must be between 0 and --top = 3, got {count}."
    assert (code, message in " ".join(err.split()), (tmp_path / "models").exists()) == (2, True, False), err


def test_without_members_there_is_no_ensemble(
    run: Path, printed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is recorded where none was asked for."""
    monkeypatch.setattr("nas_benchmarks.final_training.deploy", lambda *_: ({"test_accuracy": 0.5}, []))
    code, _, err = command("train", run, "--top", 1, "--epochs", 1, "--workers", 0, "--out", tmp_path / "models")
    assert code == 0, err
    assert "ensemble" not in json.loads((tmp_path / "models" / "ranking.json").read_text())
