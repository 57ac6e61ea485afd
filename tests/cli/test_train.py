"""`nas-gym train`: the best architectures of a search become a model that loads without this project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import numpy as np
import onnxruntime

from nas_gym.datasets import digits
from nas_gym.evaluators.store import EvaluationStore
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

COMMAND = [sys.executable, "-c", "from nas_gym.cli import main; main()", "train"]
SEARCH = {"env": "NAS-Cell-Train-v0", "env_args": {"channels": 4, "stages": 2, "epochs": 5}, "agent": "evolution"}
CELLS = ([3, 1, 2, 1, 4, 1], [2, 0, 0, 0, 0, 2], [1, 1, 1, 1, 1, 1])
SHORT = ("--epochs", 1)


def write_run(path: Path, statuses: tuple[str, ...] = ("ok", "ok", "ok")) -> Path:
    """Write what a search of three queries leaves, the first the best."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(SEARCH))
    rows = [
        {"encoding": cell, "status": status, "reward": 0.9 - 0.1 * place}
        for place, (cell, status) in enumerate(zip(CELLS, statuses, strict=True))
    ]
    (path / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command; the modules beside the tests can be imported."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "COLUMNS": "200"}
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=environment)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a run whose two best architectures and a reference were trained twice each, and what was printed."""
    run = write_run(tmp_path_factory.mktemp("trained") / "run")
    done = train(run, *SHORT, "--top", 2, "--seeds", 2, "--reference", "reference_networks:small")
    assert done.returncode == 0, done.stderr
    return run, done.stdout


@pytest.fixture(scope="module")
def ranking(trained: tuple[Path, str]) -> dict[str, Any]:
    """Return the record of the trainings."""
    return json.loads((trained[0] / "models" / "ranking.json").read_text())


def test_the_best_architectures_are_trained(ranking: dict[str, Any]) -> None:
    """Two of three, by their reward in the search."""
    space = NASBench201Space()
    expected = {space.canonical(tuple(cell)) for cell in CELLS[:2]}
    assert {tuple(one["encoding"]) for one in ranking["ranking"]} == expected


def test_they_are_ranked_by_the_mean_validation_accuracy(ranking: dict[str, Any]) -> None:
    """Of their two trainings, best first."""
    means = [one["mean"] for one in ranking["ranking"]]
    recomputed = [
        np.mean([training["metrics"]["valid_accuracy"] for training in one["trainings"]]) for one in ranking["ranking"]
    ]
    assert means == sorted(means, reverse=True) == pytest.approx(recomputed)


def test_the_test_set_is_scored_for_what_is_deployed_only(trained: tuple[Path, str], ranking: dict[str, Any]) -> None:
    """No training has looked at it; two models have a score."""
    with EvaluationStore.existing(trained[0] / "models" / "store.sqlite") as store:
        assert [stored.held_out for _, stored in store.rows()] == [{}] * 6
    assert sorted(ranking["models"]) == ["1-best", "reference"]


@pytest.mark.parametrize("name", ["1-best", "reference"])
def test_the_onnx_file_has_the_test_accuracy_that_is_reported(
    trained: tuple[Path, str], ranking: dict[str, Any], name: str
) -> None:
    """Run on the raw test pixels by another engine."""
    session = onnxruntime.InferenceSession(trained[0] / "models" / name / "model.onnx")
    test = digits().test
    pixels = test.images.transpose(0, 3, 1, 2).astype(np.float32)
    (logits,) = session.run(["logits"], {"pixels": pixels})
    accuracy = (logits.argmax(1) == test.labels).mean()
    assert accuracy == pytest.approx(ranking["models"][name]["test"]["test_accuracy"], abs=2 / len(test))


def test_the_program_loads_without_this_project(trained: tuple[Path, str]) -> None:
    """With torch alone."""
    code = (
        "import sys; sys.modules['nas_gym'] = None\n"
        "import torch\n"
        f"network = torch.export.load({str(trained[0] / 'models' / '1-best' / 'program.pt2')!r}).module()\n"
        "print(tuple(network(torch.zeros(3, 1, 8, 8)).shape))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.strip() == "(3, 10)"


def test_the_card_says_what_it_is(trained: tuple[Path, str]) -> None:
    """Data, spread and the unit of the pixels."""
    card = (trained[0] / "models" / "1-best" / "README.md").read_text()
    assert all(text in card for text in ("`digits`", "mean of 2 trainings", "from 0 to 16"))


def test_the_ranking_is_printed(trained: tuple[Path, str]) -> None:
    """With the reference below."""
    assert [line.split()[0] for line in trained[1].splitlines() if line[:1] in "12r"] == ["1", "2", "ref"]


def test_finished_models_are_not_overwritten(trained: tuple[Path, str]) -> None:
    """Another directory must be named."""
    done = train(trained[0])
    assert (done.returncode, "holds finished models" in done.stderr) == (2, True)


def test_an_interrupted_command_trains_only_the_rest(trained: tuple[Path, str], tmp_path: Path) -> None:
    """What the store holds is used again, so nothing is added to it."""
    models = trained[0] / "models"
    with EvaluationStore.existing(models / "store.sqlite") as store:
        before = [key.digest for key, _ in store.rows()]
    record = (models / "ranking.json").read_text()
    (models / "ranking.json").unlink()
    done = train(trained[0], *SHORT, "--top", 2, "--seeds", 2, "--reference", "reference_networks:small")
    with EvaluationStore.existing(models / "store.sqlite") as store:
        assert [key.digest for key, _ in store.rows()] == before
    assert (done.returncode, (models / "ranking.json").read_text()) == (0, record)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(("--top", 0), "--top must be at least 1, got 0", id="none"),
        pytest.param(("--seeds", 0), "--seeds must be at least 1, got 0", id="no seed"),
        pytest.param(("--epochs", 0), "epochs must be an integer of at least 1, got 0", id="no epoch"),
        pytest.param(("--metric", "test_accuracy"), "--metric must be one of valid_accuracy", id="held out"),
        pytest.param(("--set", "epoch=3"), "Did you mean 'epochs'", id="unknown setting"),
        pytest.param(
            ("--reference", "reference_networks:nothing"), "has no attribute 'nothing'", id="missing reference"
        ),
        pytest.param(("--reference", "reference_networks:raising"), "no network today", id="raising reference"),
        pytest.param(("--reference", "reference_networks:no_module"), "must return a torch.nn.Module", id="no module"),
        pytest.param(
            ("--reference", "reference_networks:without_classifier"),
            "must map [N, 1, 8, 8] to [N, 10], got [1, 64]",
            id="wrong shape",
        ),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_trained(
    tmp_path: Path, arguments: tuple[object, ...], message: str
) -> None:
    """The exit code is 2."""
    done = train(write_run(tmp_path / "run"), *arguments)
    assert (done.returncode, message in " ".join(done.stderr.split())) == (2, True), done.stderr


def test_a_run_without_success_is_refused(tmp_path: Path) -> None:
    """There is nothing to train."""
    done = train(write_run(tmp_path / "run", ("crashed", "killed", "timeout")))
    assert (done.returncode, "no successful query" in done.stderr) == (2, True)


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    """The message says why."""
    done = train(tmp_path)
    assert (done.returncode, "is no run directory" in " ".join(done.stderr.split())) == (1, True)


def test_trainings_that_all_fail_are_an_error(tmp_path: Path) -> None:
    """With the reason of the first."""
    done = train(write_run(tmp_path / "run"), *SHORT, "--set", "learning_rate=1e20")
    assert (done.returncode, "diverged" in done.stderr) == (1, True), done.stderr
