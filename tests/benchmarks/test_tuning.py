"""Tuning: the same effort for every agent, on what no suite scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import nas_agents
from nas_benchmarks import tuning
from nas_benchmarks.records import RecordError
from nas_benchmarks.suites import ALL_TASKS, task_definition
from nas_benchmarks.tasks import Task
from nas_benchmarks.tuning import SPACES, LogUniform, OneOf, Study, as_argument, perform, space_of
from nas_gym.errors import InvalidArgument, UnknownName


@pytest.mark.parametrize("agent", SPACES)
def test_every_declared_space_gives_settings_that_its_agent_accepts(agent: str) -> None:
    """Thirty draws of each."""
    pytest.importorskip("stable_baselines3")
    study = Study.of(agent, 30, 0)
    for trial in range(30):
        nas_agents.make_config(nas_agents.AGENTS[agent], None, **study.settings(trial))


def test_the_first_trial_is_the_default() -> None:
    """So that tuning never ends below it unnoticed; the others differ."""
    study = Study.of("uct", 9, 0)
    assert study.settings(0) == {}
    assert len({json.dumps(study.settings(trial)) for trial in range(9)}) == 9


def test_a_trial_does_not_depend_on_the_others() -> None:
    """That is why a log can be continued, and grow."""
    assert Study.of("uct", 3, 0).settings(2) == Study.of("uct", 50, 0).settings(2)
    assert Study.of("uct", 3, 0).settings(2) != Study.of("uct", 3, 1).settings(2)


def test_no_landscape_is_scored_by_a_suite() -> None:
    """Neither by its definition nor by its table."""
    scored = [task_definition(task) for task in ALL_TASKS.values()]
    assert not [task for task in tuning.LANDSCAPES if task_definition(task) in scored or "table" in task.arguments]


def test_numbers_are_drawn_within_their_bounds() -> None:
    """Half of the logarithms on either side of the middle."""
    rng = np.random.default_rng(0)
    drawn = [LogUniform(1e-4, 1e-2).draw(rng) for _ in range(2000)]
    assert 1e-4 <= min(drawn) < 1.1e-4
    assert 0.9e-2 < max(drawn) <= 1e-2
    assert np.mean(np.array(drawn) < 1e-3) == pytest.approx(0.5, abs=0.05)
    assert {OneOf((1, 2)).draw(rng) for _ in range(50)} == {1, 2}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, small_table: Path) -> None:
    """Make trials short: one landscape, ten queries, a small table beside it."""
    monkeypatch.setattr(tuning, "BUDGET", 10)
    monkeypatch.setattr(tuning, "LANDSCAPES", tuning.LANDSCAPES[3:4])
    monkeypatch.setattr(tuning, "SHOWN", Task("shown", "NAS-Cell-v0", {"table": str(small_table)}))


@pytest.mark.usefixtures("short")
def test_a_trial_is_scored_by_the_landscapes_alone() -> None:
    """What is shown beside them has no part in it."""
    row = perform(tuning.Trial("s", "evolution", 1, 0, {"population_size": 5, "sample_size": 2}))
    assert row["score"] == pytest.approx(np.mean(list(row["log_regret_area"].values())))
    assert (row["queries"], list(row["shown"]), len(row["normalised"])) == (10, ["shown"], 1)
    assert row["config"]["population_size"] == 5


def log_of(study: Study, path: Path, scores: list[float]) -> Path:
    """Write a log of trials with these scores."""
    lines = [
        {"study": study.hash, "agent": study.agent, "seed": study.seed, "trial": trial, "score": score, "settings": {}}
        for trial, score in enumerate(scores)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_lowest_score_is_the_best(tmp_path: Path) -> None:
    """It is a logarithm of regrets; the first of equal ones."""
    study = Study.of("uct", 3, 0)
    assert study.best(log_of(study, tmp_path / "log", [-1.0, -2.0, -2.0]))["trial"] == 1


def test_a_complete_log_is_not_run_again(tmp_path: Path) -> None:
    """Nothing is due."""
    study = Study.of("uct", 3, 0)
    assert list(study.run(log_of(study, tmp_path / "log", [0.0] * 3), workers=1)) == []


def test_the_log_of_another_study_is_refused(tmp_path: Path) -> None:
    """By agent, seed, landscapes or declared settings."""
    log = log_of(Study.of("uct", 3, 1), tmp_path / "log", [0.0])
    with pytest.raises(InvalidArgument, match="another study"):
        Study.of("uct", 3, 0).recorded(log)


def test_something_else_is_no_log(tmp_path: Path) -> None:
    """Instead of a KeyError."""
    (tmp_path / "log").write_text('{"method": "x"}\n')
    with pytest.raises(RecordError, match="not the log of a tuning"):
        Study.of("uct", 3, 0).recorded(tmp_path / "log")


def test_an_agent_that_declares_nothing_is_told_how() -> None:
    """Its own class may declare it."""
    with pytest.raises(InvalidArgument, match="tuning_space"):
        space_of("suites_kit:Undeclared")
    with pytest.raises(UnknownName, match="Did you mean 'evolution'"):
        Study.of("evolutionn", 3, 0)


@pytest.mark.parametrize(("trials", "seed"), [(0, 0), (1, -1)])
def test_numbers_are_checked(trials: int, seed: int) -> None:
    """Before anything is run."""
    with pytest.raises(InvalidArgument, match="--trials must be at least 1"):
        Study.of("uct", trials, seed)


@pytest.mark.parametrize(
    ("value", "text"), [("mast", "mast"), (0.5, "0.5"), (None, "null"), (True, "true"), ([[1.0, 2]], "'[[1.0,2]]'")]
)
def test_settings_are_shown_as_a_shell_reads_them(value: object, text: str) -> None:
    """Quoted where it would not."""
    assert as_argument(value) == text
