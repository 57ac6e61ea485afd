"""``nas-gym report`` as a user meets it: output, exit codes, bad input."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("plotly", reason="reports need the extra `report`")
pytest.importorskip("matplotlib", reason="reports need the extra `report`")

from report_kit import write_run, write_suite

from nas_gym import cli
from nas_gym.cli.console import errors, output

Run = tuple[int, str, str]


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Return a function that runs `nas-gym report` and returns exit code, output and errors."""
    for console in (output, errors):
        monkeypatch.setattr(console, "_width", 200)

    def run(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["nas-gym", "report", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def suite(small_table: Path, tmp_path: Path) -> Path:
    """Return the directory of a small suite."""
    return write_suite(tmp_path / "suite", small_table)


def test_the_help_has_an_example(report: Callable[..., Run]) -> None:
    """One that can be copied."""
    code, out, _ = report("--help")
    assert (code, "Example: nas-gym report runs/bench-smoke --paper paper" in out) == (0, True)


def test_a_suite_is_reported(report: Callable[..., Run], suite: Path, tmp_path: Path) -> None:
    """Into its directory, the paper where it is asked for; again, the same page replaces it."""
    code, out, err = report(suite, "--paper", tmp_path / "paper")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith(f"{suite / 'report.html'}: ")
    assert str(tmp_path / "paper" / "references.bib") in out
    first = (suite / "report.html").read_bytes()
    assert report(suite)[0] == 0
    assert (suite / "report.html").read_bytes() == first
    assert sorted(path.name for path in suite.glob("*.tmp")) == []


def test_a_search_is_reported(
    report: Callable[..., Run],
    small_table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where --out says, with a note that one seed proves nothing."""
    run = write_run(tmp_path / "run", small_table, monkeypatch)
    capsys.readouterr()
    code, _, err = report(run, "--out", tmp_path / "new" / "page.html")
    assert (code, "single seed" in err) == (0, True)
    assert (tmp_path / "new" / "page.html").read_text().startswith("<!DOCTYPE html>")
    assert not (run / "report.html").exists()


def test_a_torn_row_is_told(report: Callable[..., Run], suite: Path) -> None:
    """In one line, and the rest is reported."""
    with (suite / "runs.jsonl").open("a") as file:
        file.write('{"format": 1, "sui')
    code, _, err = report(suite)
    assert (code, "Note: " in err, "are part of a row" in err) == (0, True, True)


def test_tasks_that_lack_are_told(report: Callable[..., Run], small_table: Path, tmp_path: Path) -> None:
    """Before anything else."""
    lacking = write_suite(tmp_path / "r", small_table, tasks=1, command=("bench", "--allow-missing"))
    assert report(lacking)[2].startswith("Incomplete: the suite also has the tasks shorter_training; left out")


def test_what_is_no_record_exits_with_2(report: Callable[..., Run], tmp_path: Path) -> None:
    """Naming what it could have been."""
    code, _, err = report(tmp_path)
    assert (code, "is neither a run of `nas-gym search`" in err) == (2, True)


def test_what_is_no_report_is_not_replaced(report: Callable[..., Run], suite: Path) -> None:
    """The record itself, for instance."""
    before = (suite / "runs.jsonl").read_bytes()
    code, _, err = report(suite, "--out", suite / "runs.jsonl")
    assert (code, "is no report of nas-gym" in err) == (2, True)
    assert (suite / "runs.jsonl").read_bytes() == before


def test_a_place_that_cannot_be_written_exits_with_1(report: Callable[..., Run], suite: Path) -> None:
    """Before anything is drawn where that can be known, and without a traceback."""
    (suite / "file").write_text("")
    code, _, err = report(suite, "--out", suite / "file" / "report.html")
    assert (code, "cannot be written" in err) == (1, True)


@pytest.mark.parametrize(
    ("module", "options"), [("plotly.offline", ()), ("matplotlib.backends.backend_pdf", ("--paper", "paper"))]
)
def test_a_missing_extra_is_named(
    report: Callable[..., Run],
    suite: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    options: tuple[str, ...],
) -> None:
    """With the command that installs it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    code, _, err = report(suite, *options)
    assert (code, 'pip install "nas-gym[report]"' in err) == (1, True)
