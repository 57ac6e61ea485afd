"""The command line as a user meets it: output, exit codes, bad input, interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_gym import cli

Run = tuple[int, str, str]


@pytest.fixture
def nas_gym_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Return a function that runs the command line in this process and returns exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Run:
        monkeypatch.setattr(sys, "argv", ["nas-gym", *arguments])
        code: int = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.parametrize("command", ["", "search", "envs", "agents", "tables", "tables build", "tables verify"])
def test_help_shows_usage(nas_gym_command: Any, command: str) -> None:
    """Every command explains itself."""
    code, out, _ = nas_gym_command(*command.split(), "--help")
    assert (code, "Usage" in out) == (0, True)


@pytest.mark.parametrize("command", ["search", "envs", "agents", "tables list", "tables info", "tables build"])
def test_help_has_an_example(nas_gym_command: Any, command: str) -> None:
    """The help of every command shows one that works."""
    assert "Example: nas-gym" in nas_gym_command(*command.split(), "--help")[1]


def test_search_writes_a_run_directory(nas_gym_command: Any, small_table: Path, tmp_path: Path) -> None:
    """A search leaves configuration, one row a query, a summary and a figure."""
    pytest.importorskip("matplotlib")
    code, _, _ = nas_gym_command("search", "--budget", "30", "--env-arg", f"table={small_table}", "--out", "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert (code, names) == (0, {"config.json", "evaluations.jsonl", "summary.json", "best_so_far.png", "agent.npz"})


def test_summary_is_right(nas_gym_command: Any, small_table: Path, tmp_path: Path) -> None:
    """Rank, regret and test accuracy of the summary are recomputed from the table."""
    from nas_gym.search_spaces.nas_bench_201 import NASBench201Space
    from nas_gym.tables.format import read_table

    nas_gym_command("search", "--budget", "60", "--env-arg", f"table={small_table}", "--out", "run")
    best = json.loads((tmp_path / "run" / "summary.json").read_text())["best"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()]
    table = read_table(small_table)
    test = table.mean("test_accuracy")
    index = NASBench201Space().from_string(best["architecture"])
    value = test[NASBench201Space().code(index)]
    assert best["reward"] == max(row["reward"] for row in rows)
    assert best["standing"]["value"] == pytest.approx(value)
    assert best["standing"]["rank"] == 1 + (test > value).sum()
    assert best["standing"]["regret"] == pytest.approx(test.max() - value)


def test_search_prints_the_summary(nas_gym_command: Any, small_table: Path) -> None:
    """The terminal shows what the issue of a search is."""
    _, out, _ = nas_gym_command("search", "--budget", "20", "--env-arg", f"table={small_table}", "--out", "run")
    for label in ("Best architecture", "Rank", "Simple regret", "Tied", "Queries", "Unique", "Simulated", "Wall"):
        assert label in out


def test_same_command_gives_the_same_search(nas_gym_command: Any, small_table: Path, tmp_path: Path) -> None:
    """Two runs from one seed evaluate the same architectures."""
    traces = []
    for out in ("one", "two"):
        nas_gym_command("search", "--budget", "70", "--env-arg", f"table={small_table}", "--seed", "3", "--out", out)
        lines = (tmp_path / out / "evaluations.jsonl").read_text().splitlines()
        traces.append([json.loads(line)["encoding"] for line in lines])
    assert traces[0] == traces[1]


def test_search_without_replacement_says_when_the_space_is_exhausted(nas_gym_command: Any, small_table: Path) -> None:
    """A budget above the space is allowed; the search stops at the last architecture and says so."""
    arguments = ("--agent", "random_search", "--agent-arg", "replacement=false", "--agent-arg", "batch_size=5000")
    code, out, _ = nas_gym_command(
        "search", *arguments, "--budget", "20000", "--env-arg", f"table={small_table}", "--out", "run"
    )
    assert (code, "15,625 of 20,000 (the agent had nothing left to try)" in out) == (0, True)


BAD = {
    "agent": (["--agent", "evolutoin"], "Did you mean 'evolution'"),
    "environment": (["--env", "NAS-Cel-v0"], "Did you mean 'NAS-Cell-v0'"),
    "metric": (["--env-arg", "metric=valid_acuracy"], "Did you mean 'valid_accuracy'"),
    "held-out-metric": (["--env-arg", "metric=test_accuracy"], "held out"),
    "objective": (["--env-arg", "objective=acuracy"], "Did you mean 'accuracy'"),
    "observation": (["--env-arg", "observation=prefx"], "Did you mean 'prefix'"),
    "agent-setting": (["--agent-arg", "population=3"], "Did you mean 'population_size'"),
    "agent-value": (["--agent-arg", "population_size=-3"], "at least 2"),
    "fidelity": (["--env-arg", "fidelity=7"], "from 1 to 4"),
    "fidelity-type": (["--env-arg", "fidelity=high"], "integer from 1 to 4"),
    "environment-argument": (["--env-arg", "colour=red"], "colour"),
    "budget": (["--budget", "0"], "at least 1"),
    "seed": (["--seed", "-1"], "not be negative"),
    "seconds": (["--max-seconds", "0"], "positive"),
    "no-equals-sign": (["--env-arg", "fidelity"], "key=value"),
    "twice": (["--agent-arg", "batch_size=1", "--agent-arg", "batch_size=2"], "twice"),
    "reserved": (["--env-arg", "num_envs=3"], "leave it out"),
    "option": (["--bugdet", "3"], "No such option"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_bad_argument_exits_2_and_leaves_nothing(
    nas_gym_command: Any, small_table: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    """A wrong argument is explained, exits with 2 and creates no run directory."""
    code, _, err = nas_gym_command("search", "--env-arg", f"table={small_table}", "--out", "run", *arguments)
    assert (code, message in " ".join(err.split()), (tmp_path / "run").exists()) == (2, True, False)


def test_unknown_table_exits_2(nas_gym_command: Any) -> None:
    """A misspelt table is a bad argument."""
    code, _, err = nas_gym_command("search", "--env-arg", "table=digts", "--out", "run")
    assert (code, "unknown table 'digts'" in err) == (2, True)


def test_damaged_table_exits_1(nas_gym_command: Any, tmp_path: Path) -> None:
    """A damaged file is no bad argument but an error that names the file."""
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and then nothing")
    code, _, err = nas_gym_command("search", "--env-arg", "table=broken.parquet", "--out", "run")
    assert (code, "broken.parquet: not a complete Parquet file" in err) == (1, True)


def test_existing_out_is_refused(nas_gym_command: Any, small_table: Path, tmp_path: Path) -> None:
    """A second run into the same directory is refused and the first stays as it was."""
    (tmp_path / "run").mkdir()
    code, _, err = nas_gym_command("search", "--budget", "5", "--env-arg", f"table={small_table}", "--out", "run")
    assert (code, "exists already" in err, list((tmp_path / "run").iterdir())) == (2, True, [])


def test_missing_torch_names_the_extra(
    nas_gym_command: Any, small_table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A torch agent in an installation without torch names the pip command."""
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "nas_agents.reinforce", raising=False)
    monkeypatch.delitem(sys.modules, "nas_agents.core.controller", raising=False)
    code, _, err = nas_gym_command("search", "--agent", "reinforce", "--env-arg", f"table={small_table}")
    assert (code, 'pip install "nas-gym[agents]"' in err) == (1, True)


@pytest.mark.parametrize("command", ["envs", "agents", "agents evolution", "tables list", "--version", "--help"])
def test_listing_commands_work_without_torch(command: str) -> None:
    """In an interpreter where torch cannot be imported, the listings still work."""
    code = "import sys; sys.modules['torch'] = None; from nas_gym.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code, *command.split()], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_interrupted_search_keeps_what_it_has(small_table: Path, tmp_path: Path) -> None:
    """Ctrl-C exits with 130, prints the summary, and every evaluated query is on disk."""
    command = [sys.executable, "-c", "from nas_gym.cli import main; main()", "search", "--agent", "random_search"]
    options = ["--budget", "100000000", "--env-arg", f"table={small_table}", "--out", "run"]
    process = subprocess.Popen(
        [*command, *options], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    rows = tmp_path / "run" / "evaluations.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (rows.exists() and rows.stat().st_size):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (process.returncode, summary["ended"]) == (130, "interrupted")
    assert "interrupted" in out
    assert len(rows.read_text().splitlines()) == summary["queries"] > 0


def test_envs_shows_the_documentation(nas_gym_command: Any) -> None:
    """`nas-gym envs ID` prints the page of the environment."""
    code, out, _ = nas_gym_command("envs", "NAS-Cell-v0")
    assert (code, "Action Space" in out) == (0, True)


def test_unknown_env_in_listing_exits_2(nas_gym_command: Any) -> None:
    """A misspelt id names the nearest."""
    code, _, err = nas_gym_command("envs", "NAS-Cell-v1")
    assert (code, "Did you mean 'NAS-Cell-v0'" in err) == (2, True)


def test_tables_info_describes_a_file(nas_gym_command: Any, small_table: Path) -> None:
    """`nas-gym tables info` shows metrics, reliability and noise."""
    code, out, _ = nas_gym_command("tables", "info", str(small_table))
    assert code == 0
    for label in ("held out", "half of the seeds", "isomorphism classes", "standard error", "top 100"):
        assert label in out


def test_tables_verify_without_a_recipe_says_so(nas_gym_command: Any, small_table: Path) -> None:
    """A table that records no recipe cannot be trained again."""
    pytest.importorskip("torch")
    code, _, err = nas_gym_command("tables", "verify", str(small_table), "--retrain", "1")
    assert (code, "no recipe" in err) == (1, True)


def test_tables_build_refuses_an_existing_file(nas_gym_command: Any, small_table: Path) -> None:
    """A finished table is never overwritten."""
    pytest.importorskip("torch")
    code, _, err = nas_gym_command("tables", "build", "--out", str(small_table))
    assert (code, "exists already" in err) == (2, True)


def test_tables_build_names_the_nearest_field(nas_gym_command: Any) -> None:
    """A misspelt field of the recipe is a bad argument."""
    pytest.importorskip("torch")
    code, _, err = nas_gym_command("tables", "build", "--out", "x.parquet", "--recipe", "epoch=3")
    assert (code, "Did you mean 'epochs'" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(("--dataset-arg", "image_sise=8"), "Did you mean 'image_size'", id="misspelt setting"),
        pytest.param(("--dataset-arg", "image_size=0"), "image_size must be an integer of at least 1", id="value"),
        pytest.param(("--data", "nowhere.npz"), "there is no file or folder", id="no such file"),
        pytest.param(("--provenance", "mine"), "--provenance describes the images of --data", id="of nothing"),
    ],
)
def test_tables_build_checks_what_it_is_told_of_the_data(
    nas_gym_command: Any, arguments: tuple[str, ...], message: str
) -> None:
    """Before anything is trained."""
    pytest.importorskip("torch")
    code, _, err = nas_gym_command("tables", "build", "--out", "x.parquet", *arguments)
    assert (code, message in " ".join(err.split())) == (2, True)


def test_a_table_is_built_and_verified_with_images_of_another_place(nas_gym_command: Any, tmp_path: Path) -> None:
    """Built from one file, recognised in it, and told from another one."""
    pytest.importorskip("torch")
    for name in ("one", "other"):
        arrays = {"y_train": np.arange(60) % 10, "y_test": np.arange(20) % 10}
        rng = np.random.default_rng(len(name))
        arrays |= {
            f"x_{part}": rng.integers(0, 256, (n, 8, 8, 3), np.uint8) for part, n in (("train", 60), ("test", 20))
        }
        np.savez(tmp_path / f"{name}.npz", **arrays)  # pyright: ignore[reportArgumentType]
    out, one, other = (str(tmp_path / name) for name in ("table.parquet", "one.npz", "other.npz"))
    build = (
        "--space toys:FewCells --dataset cifar10 --dataset-arg train_images=40 --recipe epochs=1 --seeds 1 --workers 1"
    )
    skeleton = "--skeleton channels=2 --skeleton cells_per_stage=1 --skeleton reduction=pooling"
    arguments = ("--out", out, *build.split(), *skeleton.split(), "--data", one, "--provenance", "noise")
    assert nas_gym_command("tables", "build", *arguments)[0] == 0
    code, text, _ = nas_gym_command("tables", "verify", out, "--retrain", "1", "--data", one)
    assert (code, "1 of 1 retrained rows equal" in text, "other ones" in text) == (0, True, False)
    _, text, _ = nas_gym_command("tables", "verify", out, "--retrain", "1", "--data", other)
    assert "other ones than those of the table (noise)" in " ".join(text.split())
