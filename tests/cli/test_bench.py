"""``nas-gym bench`` as a user meets it: output, exit codes, bad input, interruption."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from suites_kit import rows, small_suite

from nas_benchmarks import suites
from nas_benchmarks.recorded import SuiteRecord
from nas_gym import cli
from nas_gym.cli.console import errors, output

Run = tuple[int, str, str]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Run]:
    """Return a function that runs `nas-gym bench` and returns exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    for console in (output, errors):
        monkeypatch.setattr(console, "_width", 200)

    def run(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["nas-gym", "bench", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, small_table: Path) -> suites.Suite:
    """Register a suite of one task on a small table, two methods, 12 queries."""
    suite = small_suite(small_table)
    monkeypatch.setattr(suites, "SUITES", {**suites.SUITES, "small": suite})
    return suite


@pytest.mark.parametrize("command", ["run", "show", "pack", "tune", "diff"])
def test_help_has_an_example(bench: Callable[..., Run], command: str) -> None:
    """The help of every command shows one."""
    code, out, _ = bench(command, "--help")
    assert (code, "Example: nas-gym bench" in out) == (0, True)


@pytest.mark.usefixtures("small")
def test_a_suite_is_run_shown_and_continued(bench: Callable[..., Run], tmp_path: Path) -> None:
    """The second time nothing is run, more seeds run the new ones, and the page is the same as the terminal's."""
    code, out, _ = bench("run", "small", "--out", "r", "--workers", "2")
    assert (code, "Regret per task" in out, "P(improvement)" in out) == (0, True, True)
    lines = (tmp_path / "r" / "runs.jsonl").read_text()
    assert lines.count("\n") == 4
    assert json.loads(lines.splitlines()[0])["command"][1:3] == ["bench", "run"]
    code, out, _ = bench("run", "small", "--out", "r")
    assert (code, "4 of 4 runs are recorded in r." in out) == (0, True)
    assert (tmp_path / "r" / "runs.jsonl").read_text() == lines
    assert bench("run", "small", "--out", "r", "--seeds", "3", "--workers", "1")[0] == 0
    assert (tmp_path / "r" / "runs.jsonl").read_text().startswith(lines)
    assert len(SuiteRecord(tmp_path / "r").rows()) == 6
    assert "# Suite small" in (tmp_path / "r" / "summary.md").read_text()
    assert bench("show", "r")[1].startswith("\nAll tasks (small)")


@pytest.mark.usefixtures("small")
def test_another_budget_is_refused_by_a_record(bench: Callable[..., Run], tmp_path: Path) -> None:
    """Naming what changed; nothing is appended."""
    bench("run", "small", "--out", "r", "--agent", "random_search", "--seeds", "1")
    code, _, err = bench("run", "small", "--out", "r", "--budget", "9")
    assert (code, "protocol.budget: 12 recorded, 9 now" in err) == (2, True)
    assert len(SuiteRecord(tmp_path / "r").rows()) == 1


@pytest.mark.usefixtures("small")
def test_a_broken_agent_is_told_and_does_not_stop_the_others(bench: Callable[..., Run], tmp_path: Path) -> None:
    """Exit code 1; the page is made of the rest."""
    code, out, err = bench("run", "small", "--agent", "suites_kit:Broken", "--agent", "random_search", "--out", "r")
    assert (code, "this agent is broken" in err, "random_search" in out) == (1, True, True)
    assert (tmp_path / "r" / "failures.jsonl").exists()


@pytest.mark.usefixtures("small")
def test_a_newcomer_joins_the_recorded_baselines(
    bench: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the newcomer is run; the packed record brings the others."""
    bench("run", "small", "--out", "base")
    assert bench("pack", "base", "--out", "small.parquet")[0] == 0
    monkeypatch.setattr("nas_benchmarks.recorded.baseline_rows.__defaults__", (tmp_path,))
    code, out, _ = bench("run", "small", "--agent", "suites_kit:Undeclared", "--out", "new")
    assert code == 0
    assert {row["method"] for row in SuiteRecord(tmp_path / "new").rows()} == {"suites_kit:Undeclared"}
    assert "Against evolution" in out
    assert "4 of the 6 runs are the recorded baselines" in out


def test_a_missing_table_ends_with_2_or_is_left_out_loudly(
    bench: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, small: suites.Suite, tmp_path: Path
) -> None:
    """The name, the file and the command; with --allow-missing the first line says it."""
    monkeypatch.delenv("NAS_GYM_DATA", raising=False)
    tasks = (*small.tasks, suites.ALL_TASKS["nats-cifar10"])
    wider = dataclasses.replace(small, tasks=tasks)
    monkeypatch.setattr(suites, "SUITES", {"small": wider})
    code, _, err = bench("run", "small", "--out", "r")
    assert code == 2
    for part in ("nats-cifar10", "NATS-tss-v1_0-3ffb9-simple", "nas-gym tables import"):
        assert part in err
    code, _, err = bench("run", "small", "--out", "r", "--allow-missing", "--seeds", "1", "--agent", "random_search")
    assert (code, err.splitlines()[0]) == (0, "Left out (--allow-missing): nats-cifar10.")
    assert (tmp_path / "r" / "summary.md").read_text().startswith("Left out (--allow-missing): nats-cifar10.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "smok"), "Did you mean 'smoke'"),
        (("run", "smoke", "--agent", "evolutionn"), "Did you mean 'evolution'"),
        (("run", "smoke", "--task", "cell-digit"), "Did you mean 'cell-digits'"),
        (("run", "smoke", "--budget", "0"), "--budget must be at least 1"),
        (("run", "smoke", "--seeds", "0"), "--seeds must be at least 1"),
        (("run", "smoke", "--workers", "0"), "--workers must be at least 1"),
        (("run", "smoke", "--agent-arg", "x=1"), "exactly one --agent"),
        (("run", "smoke", "--agent", "evolution", "--agent-arg", "sizes=1"), "unknown argument of Evolution 'sizes'"),
        (("show", "nothing"), "neither a directory"),
        (("diff", "nothing", "nothing"), "neither a directory"),
        (("tune", "evolution", "--trials", "0"), "--trials must be at least 1"),
        (("tune", "successive_halving"), "nothing is declared to be tuned"),
    ],
)
def test_bad_arguments_end_with_2(bench: Callable[..., Run], arguments: tuple[str, ...], message: str) -> None:
    """And say what is wrong; no directory is left behind."""
    code, _, err = bench(*arguments)
    assert (code, message in err) == (2, True)
    assert not Path("runs").exists()


def test_a_regression_ends_with_1_where_it_is_asked_for(bench: Callable[..., Run], tmp_path: Path) -> None:
    """Without --check the verdict is in the table alone."""
    for name, score in (("old", 0.9), ("new", 0.8)):
        record = SuiteRecord(tmp_path / name)
        for row in rows({"a": [score + 0.001 * seed for seed in range(12)]}):
            record.append(row)
    code, out, _ = bench("diff", "old", "new")
    assert (code, "REGRESSION" in out, "1 significant regressions among 1" in out) == (0, True, True)
    assert bench("diff", "old", "new", "--check")[0] == 1
    assert bench("diff", "new", "old", "--check")[0] == 0


def started(table: Path, out: Path) -> subprocess.Popen[str]:
    """Start a suite that would take long, in a process of its own, and wait for its first rows."""
    script = (
        "import sys; from suites_kit import small_suite; from nas_benchmarks import suites; from nas_gym import cli\n"
        "if __name__ == '__main__':\n"
        f"    suites.SUITES = {{'small': small_suite({str(table)!r})}}\n"
        "    sys.argv = 'nas-gym bench run small --seeds 5000 --workers 1 --out'.split()\n"
        f"    sys.argv.append({str(out)!r})\n"
        "    cli.main()\n"
    )
    path = out.parent / "main.py"
    path.write_text(script)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, str(path)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    runs = out / "runs.jsonl"
    while not (runs.exists() and runs.read_text().count("\n") >= 3):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_ctrl_c_ends_with_130_and_keeps_what_is_finished(small_table: Path, tmp_path: Path) -> None:
    """And says how to go on."""
    process = started(small_table, tmp_path / "r")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, "the same command continues" in err) == (130, True)
    assert len(SuiteRecord(tmp_path / "r").rows()) >= 3


@pytest.mark.usefixtures("small")
def test_a_kill_loses_only_what_was_in_flight(bench: Callable[..., Run], small_table: Path, tmp_path: Path) -> None:
    """The record is whole and the directory is free again."""
    process = started(small_table, tmp_path / "r")
    process.kill()
    process.communicate(timeout=60)
    before = SuiteRecord(tmp_path / "r").rows()
    assert len(before) >= 3
    code, _, _ = bench("run", "small", "--seeds", len(before) // 2 + 2, "--out", "r", "--workers", "1")
    assert code == 0
    assert SuiteRecord(tmp_path / "r").rows()[: len(before)] == before
