"""Inherited weights beside trainings from scratch: what is trained, recorded and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from nas_benchmarks import inheritance
from nas_benchmarks.inheritance import INHERITED, SCRATCH, architectures, epochs_of, markdown, record
from nas_benchmarks.records import read_rows
from nas_gym.errors import InvalidArgument, UnknownName
from nas_gym.search_spaces.eas import SMALL, EASSpace

space = EASSpace(**SMALL)


def row(how: str, epochs: int, accuracy: float, architecture: str = "a") -> dict[str, Any]:
    """Return a row of a record."""
    job = {"dataset": "digits", "start": "small", "architecture": architecture, "seed": 0, "how": how}
    way = {"start_epochs": 20, "learning_rate": 0.02, "epochs": epochs}
    return {**job, **way, "status": "ok", "valid_accuracy": accuracy, "train_seconds": 1.0, "parameters": 5.0}


def test_children_get_shares_of_the_epochs() -> None:
    """A twentieth, a tenth, a quarter and a half, at least one epoch."""
    assert epochs_of(20) == [(SCRATCH, 20), (INHERITED, 1), (INHERITED, 2), (INHERITED, 5), (INHERITED, 10)]
    assert epochs_of(2) == [(SCRATCH, 2), (INHERITED, 1)]


def test_architectures_are_different_and_stay_when_more_are_wanted() -> None:
    """So that a record can grow."""
    few, many = architectures(space, 3), architectures(space, 6)
    assert len({space.decode(one).blocks for one in many}) == 6
    assert many[:3] == few


def test_more_architectures_than_there_are_is_an_error() -> None:
    """Two networks, three wanted."""
    tiny = EASSpace(blocks=((8,),), units=(), wider=1, deeper=0, filter_levels=(8, 16))
    with pytest.raises(InvalidArgument, match="ask for fewer"):
        architectures(tiny, 3)


@pytest.mark.usefixtures("one_thread")
def test_a_second_call_trains_what_is_missing_only(tmp_path: Path) -> None:
    """And nothing where all is there."""
    path = tmp_path / "record.jsonl"
    settings: dict[str, Any] = {"epochs": 2, "start_epochs": 1, "workers": 0, "device": "cpu", "subset": 200}
    calls = [len(list(record(path, "digits", "small", count, 1, **settings))) for count in (1, 2, 2)]
    assert calls == [2, 2, 0]
    assert [one["how"] for one in read_rows(path)] == [SCRATCH, INHERITED] * 2
    assert {one["status"] for one in read_rows(path)} == {"ok"}


def test_an_unknown_start_names_the_nearest(tmp_path: Path) -> None:
    """Before anything is trained."""
    with pytest.raises(UnknownName, match="Did you mean 'paper'"):
        list(record(tmp_path / "record.jsonl", "digits", "papr", 1, 1))


def test_differences_are_paired_by_architecture() -> None:
    """0.90 against 0.92 and 0.95 against 0.95: 0.01 less on average, one of two within 0.01."""
    rows = [row(SCRATCH, 20, 0.92), row(SCRATCH, 20, 0.95, "b"), row(INHERITED, 5, 0.90), row(INHERITED, 5, 0.95, "b")]
    line = markdown(rows).splitlines()[-2:]
    found = next(one for one in line if INHERITED in one)
    assert "0.0100 [0.0000, 0.0200]" in found
    assert "1 of 2" in found


def test_failed_trainings_are_left_out() -> None:
    """They have no accuracy."""
    failed = {**row(INHERITED, 5, 0.0, "b"), "status": "diverged", "valid_accuracy": None}
    assert markdown([row(SCRATCH, 20, 0.9), failed]).count("\n") == 2


def test_the_command_shows_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Of the record, once everything is trained."""
    path = tmp_path / "record.jsonl"
    path.write_text("")
    monkeypatch.setattr(inheritance, "record", lambda *_, **__: iter(()))
    monkeypatch.setattr(inheritance, "read_rows", lambda _: [row(SCRATCH, 20, 0.9)])
    monkeypatch.setattr("sys.argv", ["inheritance", "--record", str(path)])
    inheritance.main()
    assert "| `digits` | from scratch, small | 0.02 | 20 | 0.9000 |" in capsys.readouterr().out
