"""`nas-gym train`: the best architectures of a search become a model that loads without this project."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import numpy as np
import onnxruntime

from nas_benchmarks.final_training import best_rows
from nas_gym.cli import main
from nas_gym.datasets import Source, digits
from nas_gym.evaluators.child import ChildResult, ChildTask, ChildWorker, TrainingJob
from nas_gym.evaluators.core import Status
from nas_gym.evaluators.store import EvaluationStore
from nas_gym.networks.recipe import Recipe
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

COMMAND = [sys.executable, "-c", "from nas_gym.cli import main; main()", "train"]
ASKED = {"agent": "evolution", "agent_args": {}, "budget": 3, "seed": 0, "max_seconds": None, "workers": None}
SEARCH = {
    "env": "NAS-Cell-Train-v0",
    # No final training fits into these limits of the search.
    "env_args": {"channels": 4, "stages": 2, "epochs": 5, "max_train_seconds": 1e-6, "max_parameters": 1},
    **ASKED,
}
TABLE_SEARCH = {"env": "NAS-Cell-v0", "env_args": {"table": "digits"}, **ASKED}
CELLS = ([3, 1, 2, 1, 4, 1], [2, 0, 0, 0, 0, 2], [1, 1, 1, 1, 1, 1])
SHORT = ("--epochs", 1)
OWN_NETWORKS = """
import torch
from torch import nn

class Viewing(nn.Module):
    def __init__(self):
        super().__init__()
        self.features, self.classifier = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(256, 10)
    def forward(self, images):
        return self.classifier(self.features(images).view(len(images), -1))

class Parameters(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(64, 10))
    def forward(self, images):
        return nn.functional.dropout(images.flatten(1), 0.5, self.training) @ self.weight

class Untrainable(nn.Linear):
    def forward(self, images):
        if self.training:
            raise RuntimeError("look into [/tmp/notes]")
        return super().forward(images.flatten(1))

def viewing(shape, classes):
    return Viewing()

def parameters(shape, classes):
    return Parameters()

def computing(shape, classes):
    rates = [rate.item() for rate in torch.linspace(0, 0.1, 2)]
    return nn.Sequential(nn.Flatten(), nn.Dropout(rates[1]), nn.Linear(64, 10))

def untrainable(shape, classes):
    return Untrainable(64, 10)
"""


def write_run(path: Path, statuses: tuple[str, ...] = ("ok", "ok", "ok"), search: dict[str, Any] = SEARCH) -> Path:
    """Write what a search of three queries leaves, the first the best."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(search))
    rows = [
        {"encoding": cell, "status": status, "reward": 0.9 - 0.1 * place}
        for place, (cell, status) in enumerate(zip(CELLS, statuses, strict=True))
    ]
    (path / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train(*arguments: object, modules: Path = Path(__file__).parents[1]) -> subprocess.CompletedProcess[str]:
    """Run the command; the modules beside the tests, or in another folder, can be imported."""
    environment = {**os.environ, "PYTHONPATH": str(modules), "COLUMNS": "200"}
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=environment)


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[object, str]]:
    """Return what runs the command in this process and returns its exit code and its error in one line."""

    def run(*arguments: object) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["nas-gym", "train", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, " ".join(capsys.readouterr().err.split())

    return run


@pytest.fixture
def own_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Provide networks as users write them in the module `own_networks`."""
    (tmp_path / "own_networks.py").write_text(OWN_NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture(scope="module")
def beside_failure(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Return a search in a table whose best architecture was trained beside a reference that fails."""
    folder = tmp_path_factory.mktemp("failure")
    (folder / "own_networks.py").write_text(OWN_NETWORKS)
    run = write_run(folder / "run", search=TABLE_SEARCH)
    return run, train(run, *SHORT, "--top", 1, "--reference", "own_networks:untrainable", modules=folder)


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


def test_the_program_has_the_test_accuracy_that_is_reported_without_this_project(
    trained: tuple[Path, str], ranking: dict[str, Any], tmp_path: Path
) -> None:
    """Run on the raw test pixels with torch alone."""
    test = digits().test
    np.savez(tmp_path / "test.npz", pixels=test.images.transpose(0, 3, 1, 2).astype(np.float32), labels=test.labels)
    code = (
        "import sys; sys.modules['nas_gym'] = None\n"
        "import numpy, torch\n"
        f"test = numpy.load({str(tmp_path / 'test.npz')!r})\n"
        f"network = torch.export.load({str(trained[0] / 'models' / '1-best' / 'program.pt2')!r}).module()\n"
        "answers = network(torch.from_numpy(test['pixels'])).argmax(1).numpy()\n"
        "print((answers == test['labels']).mean())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    reported = ranking["models"]["1-best"]["test"]["test_accuracy"]
    assert float(done.stdout) == pytest.approx(reported, abs=2 / len(test))


def test_limits_of_the_search_do_not_hold(ranking: dict[str, Any]) -> None:
    """A final training may take longer, and the user's own network may be larger."""
    statuses = [training["status"] for one in ranking["ranking"] for training in one["trainings"]]
    assert statuses == ["ok"] * 4


def test_the_card_says_what_it_is(trained: tuple[Path, str]) -> None:
    """Data, spread and the unit of the pixels."""
    card = (trained[0] / "models" / "1-best" / "README.md").read_text()
    assert all(text in card for text in ("`digits`", "mean of 2 trainings", "from 0 to 16"))


def test_the_ranking_is_printed(trained: tuple[Path, str]) -> None:
    """With the reference below."""
    assert [line.split()[0] for line in trained[1].splitlines() if line[:1] in "12r"] == ["1", "2", "ref"]


def test_finished_models_are_not_overwritten(
    trained: tuple[Path, str], refusal: Callable[..., tuple[object, str]]
) -> None:
    """Another directory must be named."""
    code, message = refusal(trained[0])
    assert (code, "holds finished models" in message) == (2, True)


@pytest.mark.parametrize("with_store", [False, True], ids=["no trainings", "interrupted"])
def test_files_of_somebody_else_are_left_alone(
    tmp_path: Path, refusal: Callable[..., tuple[object, str]], with_store: bool
) -> None:
    """A folder that has the name of a model is refused before anything is trained."""
    folder = write_run(tmp_path / "run") / "models" / "1-best"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    if with_store:
        (folder.parent / "store.sqlite").touch()
    code, _ = refusal(tmp_path / "run", *SHORT)
    assert (code, (folder / "notes.txt").read_text()) == (2, "mine")


def test_a_reference_that_fails_does_not_cost_the_winner(
    beside_failure: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """Its model is written all the same."""
    run, done = beside_failure
    record = json.loads((run / "models" / "ranking.json").read_text())
    assert (done.returncode, list(record["models"])) == (0, ["1-best"]), done.stderr


def test_a_failure_is_printed_as_it_is(beside_failure: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Brackets in messages are no markup."""
    assert "crashed: RuntimeError: look into [/tmp/notes]" in beside_failure[1].stdout


def test_a_search_in_a_table_is_trained_on_its_data(
    beside_failure: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """The table's images are those of digits."""
    assert "`digits`" in (beside_failure[0] / "models" / "1-best" / "README.md").read_text()


def train_reference(name: str) -> ChildResult:
    """Train a network of the module `own_networks` for one epoch in this process."""
    task = ChildTask(NASBench201Space(), Source("digits"), Recipe(epochs=1), reference=f"own_networks:{name}")
    return ChildWorker(task, "cpu")(TrainingJob((0,) * 6, 1, seed=7))


@pytest.mark.usefixtures("own_networks")
@pytest.mark.parametrize("name", ["viewing", "computing", "parameters"])
def test_networks_are_trained_as_users_write_them(name: str) -> None:
    """Views need the usual layout of images; numbers may be computed while a network is built."""
    result = train_reference(name)
    assert result.status is Status.OK, result.message


@pytest.mark.usefixtures("own_networks")
def test_a_reference_is_trained_reproducibly() -> None:
    """Parameters and dropout that the user's own layers draw depend on the seed alone."""
    first, second = (train_reference("parameters").curve["train_loss"] for _ in range(2))
    assert first == second


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    """The exit code is 130, and the store holds the first training."""
    run = write_run(tmp_path / "run")
    arguments = [str(run), "--epochs", "8", "--top", "3", "--seeds", "20"]
    store = run / "models" / "store.sqlite"
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 100
        finished = 0
        while not finished and time.monotonic() < deadline:
            time.sleep(0.2)
            if store.exists() and store.stat().st_size:
                with EvaluationStore.existing(store) as opened:
                    finished = len(opened)
        process.send_signal(signal.SIGINT)
        process.wait(60)
    with EvaluationStore.existing(store) as opened:
        assert (process.returncode, len(opened) >= 1) == (130, True)


def test_rewards_that_are_no_numbers_are_not_ranked() -> None:
    """JSON holds them as null."""
    rows = [
        {"encoding": cell, "status": "ok", "reward": reward}
        for cell, reward in zip(CELLS, (None, 0.5, 0.7), strict=True)
    ]
    assert [reward for _, reward in best_rows(rows, NASBench201Space(), 3)] == [0.7, 0.5]


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
    tmp_path: Path, refusal: Callable[..., tuple[object, str]], arguments: tuple[object, ...], message: str
) -> None:
    """The exit code is 2."""
    code, error = refusal(write_run(tmp_path / "run"), *arguments)
    assert (code, message in error) == (2, True), error


def test_a_reference_that_is_no_python_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., tuple[object, str]]
) -> None:
    """A syntax error is reported like any other mistake."""
    (tmp_path / "no_python.py").write_text("def network(:")
    monkeypatch.syspath_prepend(tmp_path)
    code, error = refusal(write_run(tmp_path / "run"), "--reference", "no_python:network")
    assert (code, "cannot be imported: SyntaxError" in error) == (2, True), error


def test_a_run_without_success_is_refused(tmp_path: Path, refusal: Callable[..., tuple[object, str]]) -> None:
    """There is nothing to train."""
    code, error = refusal(write_run(tmp_path / "run", ("crashed", "killed", "timeout")))
    assert (code, "no successful query" in error) == (2, True)


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path, refusal: Callable[..., tuple[object, str]]) -> None:
    """The message says why."""
    code, error = refusal(tmp_path)
    assert (code, "is no run directory" in error) == (1, True)


def test_trainings_that_all_fail_are_an_error(tmp_path: Path, refusal: Callable[..., tuple[object, str]]) -> None:
    """With the reason of the first."""
    code, error = refusal(write_run(tmp_path / "run"), *SHORT, "--top", 1, "--set", "learning_rate=1e20")
    assert (code, "diverged" in error) == (1, True), error
