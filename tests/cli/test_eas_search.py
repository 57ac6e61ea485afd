"""`nas-gym search --env NAS-EAS-v0`: two stages, resumption after a kill, and parents that are gone."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from nas_gym.cli import main

COMMAND = [sys.executable, "-c", "from nas_gym.cli import main; main()", "search"]
QUICK = ["wider=1", "deeper=1", "epochs=1", "workers=0", "device=cpu"]
SMALL = [*QUICK, "start_epochs=5"]
"""Arguments of quick trainings, and of those that begin at a published network."""

STAGE = ["--env", "NAS-EAS-v0", "--agent", "eas", "--agent-arg", "batch_size=4", "--seed", "5"]


def arguments(*values: str) -> list[str]:
    """Return arguments of the environment as options."""
    return [option for value in values for option in ("--env-arg", value)]


def run(*given: object) -> tuple[int, str]:
    """Run a search to its end in this process, with one thread as in `killed`; return exit code and errors."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as errors:
        patch.setattr(sys, "argv", ["nas-gym", "search", *map(str, given)])
        torch.set_num_threads(1)
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            torch.set_num_threads(threads)
    return code, errors.getvalue()


def rows(directory: Path) -> list[dict[str, Any]]:
    """Return the recorded queries."""
    return [json.loads(line) for line in (directory / "evaluations.jsonl").read_text().splitlines()]


def trace(directory: Path) -> list[tuple[Any, ...]]:
    """Return what must not depend on an interruption."""
    return [(row["encoding"], row["status"], row["reward"], row["first_seen"]) for row in rows(directory)]


def summary(directory: Path) -> dict[str, Any]:
    """Return the summary of a finished search."""
    return json.loads((directory / "summary.json").read_text())


def trained(directory: Path) -> int:
    """Return how many trainings the store of a search holds."""
    store = directory / "store.sqlite"
    if store.exists():
        # The search may be about to create it.
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection,
        ):
            return connection.execute("SELECT COUNT(*) FROM evaluations").fetchone()[0]
    return 0


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search of 12 queries in batches of 4."""
    out = tmp_path_factory.mktemp("eas") / "run"
    code, errors = run(*STAGE, *arguments(*SMALL), "--budget", 12, "--out", out)
    assert code == 0, errors
    return out


# --- two stages ------------------------------------------------------------------------------------


def test_a_second_search_begins_at_the_best_network_of_the_first(first: Path, tmp_path: Path) -> None:
    """Its layers are the start, its weights the parent; and the second search is where a third one begins."""
    parent = first
    for stage in ("second", "third"):
        begun = arguments(*QUICK, f"parent={parent}", "max_layers=8")
        code, errors = run(*STAGE, *begun, "--budget", 4, "--out", tmp_path / stage)
        assert code == 0, errors
        assert {row["status"] for row in rows(tmp_path / stage)} == {"ok"}
        with contextlib.closing(sqlite3.connect(tmp_path / stage / "store.sqlite")) as connection:
            parents = {row[0] for row in connection.execute("SELECT DISTINCT parent FROM evaluations")}
        assert parents == {summary(parent)["best"]["artifact"]}
        parent = tmp_path / stage


def test_what_a_search_prints_is_where_another_begins(first: Path, tmp_path: Path) -> None:
    """Untrained, from the architecture of its summary."""
    network = f"network={summary(first)['best']['architecture']}"
    code, errors = run(*STAGE, *arguments(*SMALL, network, "max_layers=8"), "--budget", 1, "--out", tmp_path / "run")
    assert code == 0, errors


def test_a_parent_that_is_no_search_is_a_bad_argument(tmp_path: Path) -> None:
    """The message names what was looked for."""
    code, errors = run(*STAGE, *arguments(f"parent={tmp_path / 'gone'}"), "--out", tmp_path / "run")
    assert code == 2
    assert f"thereisnofile{tmp_path / 'gone'}" in "".join(errors.split())


# --- resumption ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "stored"),
    [(0, False), (4, True), (4, False), (6, True), (6, False)],
    ids=["again", "between batches", "between batches, no store", "inside a batch", "inside a batch, no store"],
)
def test_a_cut_record_is_completed_to_the_same_trace(first: Path, tmp_path: Path, line: int, stored: bool) -> None:
    """Whether the trainings behind the cut are known or have to be repeated, that of the start network included."""
    shutil.copytree(first, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    record = tmp_path / "run" / "evaluations.jsonl"
    record.write_text("".join(record.read_text().splitlines(keepends=True)[:line]))
    if not stored:
        shutil.rmtree(tmp_path / "run" / "store.artifacts")
        for file in (tmp_path / "run").glob("store.sqlite*"):
            file.unlink()
    code, errors = run("--resume", tmp_path / "run")
    assert (code, trace(tmp_path / "run")) == (0, trace(first)), errors


@pytest.mark.parametrize("trainings", [7, *(pytest.param(few, marks=pytest.mark.slow) for few in (0, 3, 5))])
def test_a_killed_search_ends_with_the_same_trace(first: Path, tmp_path: Path, trainings: int) -> None:
    """With SIGKILL inside the second batch; before the start network is trained, inside the first one, between both."""
    command = [*COMMAND, *STAGE, *arguments(*SMALL), "--budget", "12", "--out", str(tmp_path / "run")]
    # With one thread, as `run`.
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if (tmp_path / "run" / "config.json").exists() and trained(tmp_path / "run") >= trainings:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    code, errors = run("--resume", tmp_path / "run")
    assert (code, trace(tmp_path / "run")) == (0, trace(first)), errors


# --- a parent that is gone -------------------------------------------------------------------------


def test_a_search_whose_parent_is_gone_goes_on_with_a_reason(first: Path, tmp_path: Path) -> None:
    """Every child fails with a status and a message that names the file; the search ends as it should."""
    shutil.copytree(first, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    record = tmp_path / "run" / "evaluations.jsonl"
    record.write_text("".join(record.read_text().splitlines(keepends=True)[:8]))
    with contextlib.closing(sqlite3.connect(tmp_path / "run" / "store.sqlite")) as connection:
        (start,) = connection.execute("SELECT artifact FROM evaluations WHERE encoding = '[]'").fetchone()
        connection.execute("DELETE FROM evaluations WHERE id > 6")
        connection.commit()
    file = tmp_path / "run" / "store.artifacts" / start[:2] / start
    file.unlink()
    code, errors = run("--resume", tmp_path / "run")
    assert (code, len(rows(tmp_path / "run"))) == (0, 12), errors
    failed = [row for row in rows(tmp_path / "run")[8:] if row["status"] != "ok"]
    assert [row["status"] for row in failed] == ["build_error"] * len(failed) != []
    assert all(f"the parent's weights are gone: there is no file {file}" in row["message"] for row in failed)
