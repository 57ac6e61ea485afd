"""`nas-gym search --resume`: the same trace as without an interruption, whenever it came."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

COMMAND = [sys.executable, "-c", "from nas_gym.cli import main; main()", "search"]
LANDSCAPE = ["--env", "NAS-Cell-v0", "--env-arg", "evaluator=synthetic", "--seed", "5"]
TRAINING = ["--env", "NAS-Cell-Train-v0", "--env-arg", "epochs=1", "--env-arg", "channels=2", "--seed", "5"]
EVOLUTION = ["--agent", "evolution", "--agent-arg", "population_size=6", "--agent-arg", "sample_size=3"]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a search to its end."""
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def rows(directory: Path) -> list[dict[str, Any]]:
    """Return the recorded queries."""
    return [json.loads(line) for line in (directory / "evaluations.jsonl").read_text().splitlines()]


def trace(directory: Path) -> list[tuple[Any, ...]]:
    """Return what must not depend on an interruption: all but times and memory."""
    measured = ("train_seconds", "peak_memory_bytes")
    return [
        (
            row["encoding"],
            row["status"],
            row["reward"],
            row["first_seen"],
            {name: value for name, value in row["metrics"].items() if name not in measured},
        )
        for row in rows(directory)
    ]


def cut(directory: Path, copy: Path, byte: int) -> None:
    """Copy a run as a kill would have left it: the record ends after `byte` bytes, no summary was written."""
    shutil.copytree(directory, copy)
    (copy / "summary.json").unlink()
    record = copy / "evaluations.jsonl"
    record.write_bytes(record.read_bytes()[:byte])


@pytest.fixture(scope="module", params=["random_search", "evolution", "resample", "reinforce", "small_batches"])
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, small_table: Path) -> Path:
    """A finished search of 60 queries."""
    noisy = ["--env", "NAS-Cell-v0", "--env-arg", f"table={small_table}", "--env-arg", "noise=sample"]
    options = {
        "random_search": ["--agent", "random_search"],
        "evolution": EVOLUTION,
        "resample": [*noisy, *EVOLUTION, "--env-arg", "repeat_query=resample+charge"],
        "reinforce": ["--agent", "reinforce"],
        "small_batches": [*EVOLUTION, "--agent-arg", "batch_size=7"],
    }[request.param]
    if request.param == "reinforce":
        pytest.importorskip("torch")
    out = tmp_path_factory.mktemp("finished") / "run"
    problem = [] if request.param == "resample" else LANDSCAPE
    done = run(*problem, *options, "--budget", 60, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("share", [0.0, 0.31, 0.67, 0.999], ids=lambda share: f"{share:.0%}")
def test_a_cut_record_is_completed_to_the_same_trace(finished: Path, tmp_path: Path, share: float) -> None:
    """Wherever the record ends, in the middle of a line or of a batch."""
    size = (finished / "evaluations.jsonl").stat().st_size
    cut(finished, tmp_path / "run", int(share * size))
    done = run("--resume", tmp_path / "run")
    assert (done.returncode, trace(tmp_path / "run")) == (0, trace(finished)), done.stderr


def test_a_finished_run_prints_its_summary(finished: Path) -> None:
    """And evaluates nothing."""
    before = (finished / "evaluations.jsonl").read_bytes()
    done = run("--resume", finished)
    assert (done.returncode, "60 of 60" in done.stdout, "finished before" in done.stdout) == (0, True, True)
    assert (finished / "evaluations.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda run: shutil.rmtree(run), "is no run directory", id="no directory"),
        pytest.param(lambda run: (run / "config.json").write_text("{"), "cannot be read", id="damaged configuration"),
        pytest.param(lambda run: (run / "config.json").write_text("{}"), "does not describe a search", id="foreign"),
        pytest.param(
            lambda run: (run / "evaluations.jsonl").write_text('{"row"\n{}\n'), "line 1: damaged", id="damaged record"
        ),
    ],
)
def test_what_cannot_be_continued_is_an_error(finished: Path, tmp_path: Path, damage: Any, message: str) -> None:
    """The message names the file, and the exit code is 1."""
    cut(finished, tmp_path / "run", 500)
    damage(tmp_path / "run")
    done = run("--resume", tmp_path / "run")
    assert (done.returncode, message in " ".join(done.stderr.split())) == (1, True), done.stderr


def test_another_course_is_refused(finished: Path, tmp_path: Path) -> None:
    """A record that the agent would not have made is left as it is."""
    cut(finished, tmp_path / "run", 3000)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps({**config, "seed": 6}))
    before = (tmp_path / "run" / "evaluations.jsonl").read_bytes()
    done = run("--resume", tmp_path / "run")
    assert (done.returncode, "resumed search" in done.stderr) == (1, True)
    assert (tmp_path / "run" / "evaluations.jsonl").read_bytes().startswith(before[: before.rfind(b"\n") + 1])


@pytest.mark.timeout(280)
def test_a_killed_training_search_ends_with_the_same_trace(tmp_path: Path) -> None:
    """Killed twice at random moments with SIGKILL, real trainings included."""
    pytest.importorskip("torch")
    arguments = [*TRAINING, *EVOLUTION, "--budget", 40]
    assert run(*arguments, "--out", tmp_path / "whole").returncode == 0
    moments = np.random.default_rng()
    command = [*arguments, "--out", tmp_path / "killed"]
    for _ in range(2):
        process = subprocess.Popen([*COMMAND, *map(str, command)], stdout=subprocess.DEVNULL)
        record = tmp_path / "killed" / "evaluations.jsonl"
        started = time.monotonic()
        while not (record.exists() and record.stat().st_size) and time.monotonic() - started < 60:
            time.sleep(0.05)
        time.sleep(moments.uniform(0.0, 2.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        command = ["--resume", tmp_path / "killed"]
    done = run(*command)
    assert (done.returncode, trace(tmp_path / "killed")) == (0, trace(tmp_path / "whole")), done.stderr


@pytest.mark.timeout(200)
def test_without_a_barrier_nothing_recorded_is_lost(tmp_path: Path) -> None:
    """The order of completion cannot be repeated, but the record stays and the budget is exact."""
    pytest.importorskip("torch")
    out = tmp_path / "run"
    arguments = [*TRAINING, *EVOLUTION, "--budget", 30, "--workers", 2, "--out", out]
    process = subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=subprocess.DEVNULL)
    started = time.monotonic()
    while len(rows(out) if (out / "evaluations.jsonl").exists() else []) < 5 and time.monotonic() - started < 60:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = (out / "evaluations.jsonl").read_bytes()
    done = run("--resume", out)
    after = (out / "evaluations.jsonl").read_bytes()
    assert (done.returncode, len(rows(out))) == (0, 30), done.stderr
    assert after.startswith(before[: before.rfind(b"\n") + 1])


def test_ctrl_c_can_be_continued(tmp_path: Path) -> None:
    """The interrupted run exits with 130, names the command, and goes on to the same trace."""
    arguments = [*LANDSCAPE, *EVOLUTION, "--budget", 20000]
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments), "--out", str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    while not (tmp_path / "run" / "evaluations.jsonl").exists() and process.poll() is None:
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=60)[0]
    assert (process.returncode, "--resume" in printed) == (130, True)
    assert run("--resume", tmp_path / "run").returncode == 0
    assert run(*arguments, "--out", tmp_path / "whole").returncode == 0
    assert trace(tmp_path / "run") == trace(tmp_path / "whole")
