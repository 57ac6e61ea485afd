"""Inherited weights beside trainings from scratch: what is trained and recorded."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from nas_benchmarks import inheritance
from nas_benchmarks.inheritance import STUDIES, Study, architectures, record
from nas_benchmarks.inheritance_report import INHERITED, SCRATCH, START
from nas_benchmarks.records import read_rows
from nas_gym.errors import InvalidArgument, UnknownName
from nas_gym.search_spaces.eas import SMALL, EASSpace

space = EASSpace(**SMALL)
few: dict[str, Any] = {"workers": 0, "device": "cpu"}


def test_schedules_are_parts_of_the_epochs() -> None:
    """Both ways have shorter ones; a schedule has an epoch at least."""
    ways = Study(epochs=20, start_epochs=7, scratch_rate=0.2, inherited_rate=0.03).ways()
    assert [way for way in ways if way[0] == SCRATCH] == [(SCRATCH, 0, 0.2, epochs) for epochs in (2, 6, 20)]
    assert [way for way in ways if way[0] == INHERITED] == [
        (INHERITED, 7, 0.03, epochs) for epochs in (1, 2, 4, 6, 10, 20)
    ]
    assert [way[-1] for way in Study(epochs=2).ways()] == [1, 2, 1, 2]


def test_architectures_are_different_and_stay_when_more_are_wanted() -> None:
    """So that a record can grow."""
    first, more = architectures(space, 3), architectures(space, 6)
    assert len({space.decode(one).blocks for one in more}) == 6
    assert more[:3] == first


def test_more_architectures_than_there_are_is_an_error() -> None:
    """Two networks, three wanted."""
    tiny = EASSpace(blocks=((8,),), units=(), wider=1, deeper=0, filter_levels=(8, 16))
    with pytest.raises(InvalidArgument, match="ask for fewer"):
        architectures(tiny, 3)


def test_both_ways_and_the_start_network_have_one_recipe() -> None:
    """Only epochs and learning rates differ; what a training from scratch has not is left out."""
    settings = {"augmentation": "crop", "weight_decay": 1e-3, "wider_noise": 0.5}
    study = Study(start_epochs=9, scratch_rate=0.3, inherited_rate=0.04, settings=settings)
    scratch: Any = study.evaluator(SCRATCH, 0.3, 20)
    inherited: Any = study.evaluator(INHERITED, 0.04, 6)
    recipes = [scratch.recipe, inherited.recipe, inherited.task.start_recipe]
    assert [(one.learning_rate, one.epochs) for one in recipes] == [(0.3, 20), (0.04, 6), (0.3, 9)]
    same = [{**one.to_json(), "learning_rate": None, "epochs": None} for one in recipes]
    assert same[0] == same[1] == same[2]
    assert (same[0]["augmentation"], same[0]["weight_decay"]) == ("crop", 1e-3)
    assert inherited.task.noise["wider"] == 0.5


def test_the_start_network_may_have_a_rate_of_its_own() -> None:
    """Where it is not the best one from scratch."""
    study = Study(scratch_rate=0.3, settings={"start_learning_rate": 0.2})
    inherited: Any = study.evaluator(INHERITED, 0.04, 6)
    assert (study.start_rate, inherited.task.start_recipe.learning_rate) == (0.2, 0.2)
    study.evaluator(SCRATCH, 0.3, 20)


@pytest.mark.parametrize("name", STUDIES)
def test_the_evaluators_of_every_study_can_be_made(name: str) -> None:
    """All their settings exist; nothing is loaded or trained."""
    study = STUDIES[name]
    # The path is not among what is tested, the files need not be there.
    here = dataclasses.replace(study, path="digits")
    for how, _, rate, epochs in study.ways():
        assert here.evaluator(how, rate, epochs).space == study.space


def test_a_second_call_trains_what_is_missing_only(tmp_path: Path, one_thread: None) -> None:
    """And nothing where all is there; the start network is recorded once a seed."""
    path = tmp_path / "record.jsonl"
    study = Study(epochs=2, start_epochs=1, settings={"subset": 200})
    settings = {**few, "store": str(tmp_path / "store.sqlite")}
    calls = [[row["how"] for row in record(path, study, count, 1, **settings)] for count in (1, 2, 2)]
    assert calls[0] == [SCRATCH, SCRATCH, START, INHERITED, INHERITED]
    assert calls[1:] == [[SCRATCH, SCRATCH, INHERITED, INHERITED], []]
    rows = read_rows(path)
    assert [row["how"] for row in rows] == calls[0] + calls[1]
    assert all(row["status"] == "ok" and 0 < row["valid_accuracy"] < 1 and row["train_seconds"] > 0 for row in rows)
    assert {row["settings"] for row in rows} == {"subset=200"}


def test_another_recipe_is_another_row(tmp_path: Path, one_thread: None) -> None:
    """A record never takes the training of one recipe for that of another."""
    path = tmp_path / "record.jsonl"
    for smoothing in (0.0, 0.1):
        study = Study(epochs=1, start_epochs=1, settings={"subset": 200, "label_smoothing": smoothing})
        assert len(list(record(path, study, 1, 1, **few))) == 3


def test_failed_trainings_are_rows_without_figures(tmp_path: Path, one_thread: None) -> None:
    """Every child is too large; the start network, to which no limit applies, is trained."""
    path = tmp_path / "record.jsonl"
    study = Study(epochs=1, start_epochs=1, settings={"subset": 200, "max_parameters": 10})
    rows = list(record(path, study, 1, 1, **few))
    assert [(row["how"], row["status"]) for row in rows] == [
        (SCRATCH, "over_limit"),
        (START, "ok"),
        (INHERITED, "over_limit"),
    ]
    assert rows[0]["valid_accuracy"] is None
    assert "max_parameters" in rows[0]["message"]


def test_an_unknown_start_names_the_nearest() -> None:
    """Before anything is trained."""
    with pytest.raises(UnknownName, match="Did you mean 'paper'"):
        Study(start="papr")


@pytest.mark.parametrize("name", ["epochs", "learning_rate"])
def test_what_differs_between_the_ways_is_no_setting(name: str) -> None:
    """It would silently hold for both."""
    with pytest.raises(InvalidArgument, match=f"{name} = 3 is no setting"):
        Study(settings={name: 3})


def test_the_command_trains_then_shows(tmp_path: Path, one_thread: None, capsys: pytest.CaptureFixture[str]) -> None:
    """What it trained it shows again without training, and draws."""
    pytest.importorskip("matplotlib")
    path, figure = tmp_path / "record.jsonl", tmp_path / "figure.png"
    quick = ["--architectures", "2", "--seeds", "1", "--epochs", "1", "--start-epochs", "1", "--workers", "0"]
    inheritance.main([*quick, "--set", "subset=200", "--set", "augmentation=none", "--record", str(path)])
    trained = capsys.readouterr()
    assert trained.err.count("seed 0") == 5
    inheritance.main(["--show", "--figure", str(figure), "--record", str(path)])
    shown = capsys.readouterr()
    assert not shown.err
    assert shown.out == trained.out
    assert "2 architectures x 1 seeds" in shown.out
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert len(read_rows(path)) == 5


def test_the_command_replaces_the_table_in_a_file(tmp_path: Path) -> None:
    """Between markers."""
    page = tmp_path / "page.md"
    page.write_text("a <!-- inheritance:begin -->old<!-- inheritance:end --> b")
    inheritance.main(["--update", str(page), "--record", str(tmp_path / "none.jsonl")])
    assert (
        page.read_text()
        == "a <!-- inheritance:begin -->\nNothing was trained both ways yet.\n<!-- inheritance:end --> b"
    )


def test_a_setting_without_a_value_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The message shows what it takes."""
    with pytest.raises(SystemExit):
        inheritance.main(["--set", "augmentation"])
    assert "'augmentation' is no NAME=VALUE" in capsys.readouterr().err
