"""`nas-gym explain`: the architecture that a finished search thinks best, and what it learnt along it."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_benchmarks.agent_state import FILE, read_state
from nas_gym.cli import main
from nas_gym.search_spaces.core import Encoding
from nas_gym.search_spaces.metaqnn import WIDTHS, MetaQNNSpace

SPACE = MetaQNNSpace(max_depth=3, image_size=8, **WIDTHS["small"])
SEARCH = ("--env", "NAS-MetaQNN-v0", "--env-arg", "evaluator=synthetic", "--env-arg", "max_depth=3", "--seed", 4)


def command(*arguments: object) -> tuple[int, str, str]:
    """Run the command line in this process and return exit code, output and errors."""
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        patch.setenv("COLUMNS", "300")
        patch.setattr(sys, "argv", ["nas-gym", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a finished search by Q-learning."""
    out = tmp_path_factory.mktemp("explained") / "run"
    code, _, err = command("search", *SEARCH, "--agent", "q_learning", "--budget", 400, "--out", out)
    assert code == 0, err
    return out


@pytest.fixture(scope="module")
def shown(run: Path) -> str:
    """Return what is printed of it."""
    code, out, err = command("explain", run)
    assert code == 0, err
    return out


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """Return a copy of the run that a test may damage."""
    shutil.copytree(run, tmp_path / "copy")
    return tmp_path / "copy"


Decisions = list[tuple[str, float, dict[str, float]]]


@pytest.fixture(scope="module")
def learnt(run: Path) -> tuple[Encoding, Decisions]:
    """Return the way of the highest values through the table of the run, and all values along it."""
    state = read_state(run / FILE)
    table = dict(zip(map(tuple, state["states"].tolist()), state["values"], strict=True))
    prefix: Encoding = ()
    decisions: Decisions = []
    while (decision := SPACE.decision(prefix)) is not None:
        (features,) = SPACE.states(*SPACE.pack([prefix])).tolist()
        row = table.get(tuple(features), np.full(SPACE.max_choices, 0.5))
        values = {choice: float(row[choice]) for choice in np.flatnonzero(decision.mask).tolist()}
        chosen = max(values, key=lambda choice: values[choice])
        labelled = {decision.labels[choice]: value for choice, value in values.items()}
        decisions.append((decision.labels[chosen], values[chosen], labelled))
        prefix = (*prefix, chosen)
    return prefix, decisions


def table_rows(shown: str) -> list[list[str]]:
    """Return the words of every decision that was printed."""
    lines = iter(shown.splitlines())
    assert any(line.split() == ["Choice", "Q-value", "Next", "best"] for line in lines)
    return [line.split() for line in lines if line.strip()]


def records(run: Path) -> list[dict[str, Any]]:
    """Return the queries of a search."""
    return [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]


def test_the_greedy_architecture_is_printed(shown: str, learnt: tuple[Encoding, Decisions]) -> None:
    """In the published notation, below its heading."""
    lines = shown.splitlines()
    assert lines[lines.index("Greedy architecture") + 1] == SPACE.to_string(learnt[0])


def test_every_decision_is_printed_with_its_value(shown: str, learnt: tuple[Encoding, Decisions]) -> None:
    """Numbered from 1, in the order in which they are taken."""
    expected = [[str(number), label, f"{value:.4f}"] for number, (label, value, _) in enumerate(learnt[1], start=1)]
    assert [row[:3] for row in table_rows(shown)] == expected


def test_the_search_learnt_something(learnt: tuple[Encoding, Decisions]) -> None:
    """Otherwise all values printed here would be the first ones."""
    assert any(value != 0.5 for _, value, _ in learnt[1])


@pytest.mark.parametrize("count", [None, 0, 1, 5], ids=["three by default", "none", "one", "five"])
def test_the_best_other_choices_follow(run: Path, learnt: tuple[Encoding, Decisions], count: int | None) -> None:
    """As many as asked for and as there are, best first."""
    _, out, _ = command("explain", run, *(() if count is None else ("--alternatives", count)))
    wanted = 3 if count is None else count
    expected = [
        [f"{value:.4f}" for value in sorted((v for one, v in values.items() if one != label), reverse=True)[:wanted]]
        for label, _, values in learnt[1]
    ]
    assert [row[4::2] for row in table_rows(out)] == expected


def test_the_other_choices_have_their_own_values(shown: str, learnt: tuple[Encoding, Decisions]) -> None:
    """Every label that is printed stands before what the table has for it, and none is the choice itself."""
    for row, (label, _, values) in zip(table_rows(shown), learnt[1], strict=True):
        pairs = dict(zip(row[3::2], row[4::2], strict=True))
        assert pairs == {one: f"{values[one]:.4f}" for one in pairs if one != label}


def test_what_the_search_knows_of_it_is_told(run: Path, shown: str, learnt: tuple[Encoding, Decisions]) -> None:
    """Row, status and reward of a query of exactly this architecture."""
    known = [row for row in records(run) if tuple(row["encoding"]) == learnt[0]]
    told = [f"In the search: row {row['row']}, status ok, reward {row['reward']:.4f}." for row in known]
    assert any(line in told for line in shown.splitlines())


def test_an_architecture_that_was_never_built_is_told(copy: Path, learnt: tuple[Encoding, Decisions]) -> None:
    """The values may lead where no query was."""
    others = [row for row in records(copy) if tuple(row["encoding"]) != learnt[0]]
    (copy / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in others))
    assert "It was not built in the search." in command("explain", copy)[1].splitlines()


@pytest.mark.parametrize("agent", ["evolution", "random_search"])
def test_an_agent_without_values_has_nothing_to_explain(tmp_path: Path, agent: str) -> None:
    """The message names it, and the exit code is that of a bad argument."""
    command("search", *SEARCH, "--agent", agent, "--budget", 5, "--out", tmp_path / "run")
    code, _, err = command("explain", tmp_path / "run")
    assert (code, f"{agent} learns no values of single decisions" in err) == (2, True), err


def test_a_run_without_the_file_of_the_agent_is_an_error(copy: Path) -> None:
    """A search that did not finish left none; the message names the file."""
    (copy / FILE).unlink()
    code, _, err = command("explain", copy)
    assert (code, f"{FILE}: there is no such file" in " ".join(err.split())) == (1, True), err


@pytest.mark.parametrize("damage", ["text", "structure"])
def test_a_damaged_file_is_an_error(copy: Path, damage: str) -> None:
    """Something else of that name, or a structure that breaks off: the exit code is 1 and the message says so."""
    if damage == "text":
        (copy / FILE).write_text("what was learnt")
    else:
        np.savez(copy / FILE, structure=np.frombuffer(b'{"mapping": [', np.uint8))
    code, _, err = command("explain", copy)
    assert (code, f"{FILE}: damaged" in " ".join(err.split())) == (1, True), err


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    """The message says what is missing."""
    code, _, err = command("explain", tmp_path)
    assert (code, "is no run directory" in " ".join(err.split())) == (1, True), err


@pytest.mark.parametrize(
    ("value", "message"), [(-1, "--alternatives must not be negative, got -1"), ("many", "valid integer")]
)
def test_bad_numbers_of_alternatives_are_refused(run: Path, value: object, message: str) -> None:
    """The exit code is 2."""
    code, _, err = command("explain", run, "--alternatives", value)
    assert (code, message in " ".join(err.split())) == (2, True), err
