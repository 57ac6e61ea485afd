"""Records of finished searches: read, appended to, mended, and shown in the README."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_benchmarks import exploration, learning
from nas_benchmarks.baselines import __main__ as baselines
from nas_benchmarks.records import RecordError, TornRow, WriteFailed, append_row, read_rows
from nas_benchmarks.tasks import TASKS, Task, uniform_reward

ROWS: list[dict[str, Any]] = [{"seed": 0, "regret": [0.5, 0.25]}, {"seed": 1, "agent": "größer"}]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a record of two rows."""
    found = tmp_path / "record.jsonl"
    for row in ROWS:
        append_row(found, row)
    return found


def tear(path: Path, part: bytes) -> None:
    """Leave part of a row at the end of a record, as a kill does."""
    with path.open("ab") as file:
        file.write(part)


# --- whole records ---------------------------------------------------------------------------------


def test_rows_are_read_as_they_were_appended(path: Path) -> None:
    """In their order."""
    assert read_rows(path) == ROWS


def test_a_row_is_a_line(path: Path) -> None:
    """That strict readers of JSON can read."""
    assert [json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]] == ROWS


def test_a_missing_record_has_no_rows(tmp_path: Path) -> None:
    """Nothing was searched yet."""
    assert read_rows(tmp_path / "none.jsonl") == []


def test_an_empty_record_can_be_appended_to(tmp_path: Path) -> None:
    """As a missing one."""
    (tmp_path / "record.jsonl").touch()
    append_row(tmp_path / "record.jsonl", ROWS[0])
    assert read_rows(tmp_path / "record.jsonl") == ROWS[:1]


def test_what_json_lacks_is_null(path: Path) -> None:
    """A regret that is not known."""
    append_row(path, {"regret": float("nan")})
    assert read_rows(path)[-1] == {"regret": None}


def test_a_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """Rather than created somewhere."""
    with pytest.raises(WriteFailed, match=r"missing/record\.jsonl: cannot be written"):
        append_row(tmp_path / "missing" / "record.jsonl", ROWS[0])


def test_a_full_disk_is_named() -> None:
    """The search that it would record is lost, not those before."""
    with pytest.raises(WriteFailed, match=r"/dev/full.*No space left"):
        append_row(Path("/dev/full"), ROWS[0])


# --- torn rows -------------------------------------------------------------------------------------

TORN = b'{"seed": 2, "regr'


def test_part_of_a_row_is_left_out_loudly(path: Path) -> None:
    """With the file and what is left out."""
    tear(path, TORN)
    with pytest.warns(TornRow, match=r"record\.jsonl: the last 17 bytes .*seed\": 2, \"regr"):
        assert read_rows(path) == ROWS


def test_reading_changes_no_file(path: Path) -> None:
    """It may be somebody else's."""
    tear(path, TORN)
    before = path.read_bytes()
    with pytest.warns(TornRow):
        read_rows(path)
    assert path.read_bytes() == before


def test_appending_removes_part_of_a_row_loudly(path: Path) -> None:
    """So that the next row is a line of its own."""
    tear(path, TORN)
    with pytest.warns(TornRow, match="removed: .*regr"):
        append_row(path, {"seed": 2})
    assert read_rows(path) == [*ROWS, {"seed": 2}]


def test_a_row_that_lacks_only_its_end_of_line_is_whole(path: Path) -> None:
    """An editor may have taken it."""
    path.write_bytes(path.read_bytes()[:-1])
    append_row(path, {"seed": 2})
    assert read_rows(path) == [*ROWS, {"seed": 2}]


@given(st.integers(min_value=1))
def test_wherever_a_row_is_cut_the_others_stay(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """Within a character of several bytes, too."""
    path = tmp_path_factory.mktemp("cut") / "record.jsonl"
    for row in ROWS:
        append_row(path, row)
    content = path.read_bytes()
    last = len(content.split(b"\n")[1])
    # At least one byte of the last row stays and at least its closing brace goes.
    path.write_bytes(content[: len(content) - 2 - cut % (last - 1)])
    with pytest.warns(TornRow):
        append_row(path, ROWS[1])
    assert read_rows(path) == ROWS


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        pytest.param(b'{"seed": 1, "ag\n', "line 3: no row", id="part of a row"),
        pytest.param(b"\n", "line 3: no row", id="nothing"),
        pytest.param(b"[1, 2]\n", "line 3: a row is a JSON object", id="another value"),
        pytest.param(b"\xff\xfe{}\n", "line 3: no row", id="no text"),
    ],
)
def test_a_broken_line_elsewhere_is_an_error(path: Path, broken: bytes, message: str) -> None:
    """It is no trace of a kill; the message names the line."""
    tear(path, broken)
    append_row(path, {"seed": 3})
    with pytest.raises(RecordError, match=message):
        read_rows(path)


def pretended_search(agent: str, settings: dict[str, Any], seed: int, task: Task) -> dict[str, Any]:
    """Return what tells a search from others."""
    return {"agent": agent, "settings": settings, "seed": seed}


def test_a_torn_search_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command continues where it was killed, and leaves a whole record."""
    monkeypatch.setattr(baselines, "search", pretended_search)
    path = tmp_path / "record.jsonl"
    whole = list(baselines.record(path, 1, TASKS["cell-digits"]))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.warns(TornRow):
        again = list(baselines.record(path, 1, TASKS["cell-digits"]))
    assert (again, read_rows(path)) == (whole[-1:], whole)


# --- the README ------------------------------------------------------------------------------------

TABLES: dict[str, Callable[[], str]] = {
    "baselines cell-digits": lambda: table_of_baselines("cell-digits"),
    "baselines metaqnn-digits": lambda: table_of_baselines("metaqnn-digits"),
    "learning": lambda: learning.markdown(read_rows(learning.RECORD)),
    "exploration": lambda: exploration.markdown(read_rows(exploration.RECORD)[1:]),
}


def table_of_baselines(task: str) -> str:
    """Return the table of a recorded task."""
    return baselines.markdown(read_rows(baselines.FOLDER / f"{task}.jsonl"), uniform_reward(TASKS[task]))


@pytest.mark.parametrize("name", TABLES)
def test_the_readme_shows_what_is_recorded(name: str) -> None:
    """Every character of its tables."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    shown = readme.split(f"<!-- {name}:begin -->\n")[1].split(f"\n<!-- {name}:end -->")[0]
    assert TABLES[name]() == shown
