"""Records of suites: directories that grow, refuse what is not theirs, and pack into one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from suites_kit import row, rows, small_suite

from nas_benchmarks import recorded
from nas_benchmarks.recorded import SuiteRecord, baseline_rows, pack, rows_at, unpack
from nas_benchmarks.records import RecordError, TornRow, WriteFailed
from nas_gym.errors import InvalidArgument

SUITE = small_suite("small.parquet")


@pytest.fixture
def record(tmp_path: Path) -> SuiteRecord:
    """Return the record of a suite, without runs."""
    found = SuiteRecord(tmp_path / "record")
    found.adopt(SUITE)
    return found


def mine(**changed: Any) -> dict[str, Any]:
    """Return a row by the suite's protocol."""
    return {**row("evolution", 0, 0.5, protocol_hash=SUITE.protocol.hash), **changed}


def test_rows_are_appended_and_read_back(record: SuiteRecord) -> None:
    """In order."""
    record.append(mine())
    record.append(mine(seed=1))
    assert [one["seed"] for one in record.rows()] == [0, 1]


def test_part_of_a_row_is_removed_loudly(record: SuiteRecord) -> None:
    """As a kill leaves one behind; the rows before stay."""
    record.append(mine())
    with record.runs.open("a") as file:
        file.write('{"format": 1, "su')
    with pytest.warns(TornRow, match="17 bytes"):
        record.append(mine(seed=1))
    assert [one["seed"] for one in record.rows()] == [0, 1]


def test_another_definition_is_refused_by_name(record: SuiteRecord) -> None:
    """Nothing is appended to a record of something else."""
    with pytest.raises(InvalidArgument, match=r"protocol\.budget: 12 recorded, 13 now"):
        record.adopt(small_suite("small.parquet", budget=13))
    with pytest.raises(InvalidArgument, match=r"methods\.uct: only now"):
        record.adopt(small_suite("small.parquet", methods=("random_search", "evolution", "uct")))


def test_the_same_definition_is_accepted_again(record: SuiteRecord) -> None:
    """That is how a record is continued."""
    before = (record.path / "suite.json").read_bytes()
    record.adopt(SUITE)
    assert (record.path / "suite.json").read_bytes() == before


def test_a_suite_joins_rows_of_its_protocol_only(tmp_path: Path) -> None:
    """A directory that holds somebody's own runs may become the record of a suite."""
    own = SuiteRecord(tmp_path)
    own.append(mine(protocol_hash="other"))
    with pytest.raises(InvalidArgument, match="another protocol"):
        own.adopt(SUITE)


def test_a_second_process_is_refused(record: SuiteRecord) -> None:
    """It would do the same runs."""
    with record.alone(), pytest.raises(InvalidArgument, match="another process"), SuiteRecord(record.path).alone():
        pass


def test_rows_of_another_format_are_refused(record: SuiteRecord) -> None:
    """Instead of being misread."""
    record.append(mine(format=99))
    with pytest.raises(RecordError, match="row 1: format 99"):
        record.rows()


def test_a_full_disk_is_named(record: SuiteRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the file, and what is safe."""
    record.append(mine())
    monkeypatch.setattr(SuiteRecord, "runs", property(lambda self: Path("/dev/full")))
    with pytest.raises(WriteFailed, match="No space left"):
        record.append(mine(seed=1))


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_damaged_definition_is_named(record: SuiteRecord, content: str) -> None:
    """And what to do."""
    (record.path / "suite.json").write_text(content)
    with pytest.raises(RecordError, match=r"suite\.json"):
        record.definition()


# --- packed records --------------------------------------------------------------------------------


def test_packed_rows_come_back_as_they_were(tmp_path: Path) -> None:
    """Lists, objects, nulls and numbers; in the order of task, method and seed."""
    given = rows({"b": [0.1, 0.2], "a": [0.3]}, incumbents=[[1, 0.5, 0.4]], queries_to={"optimum": None}, updates=None)
    path = tmp_path / "x.parquet"
    assert pack(given, path) == path.stat().st_size
    expected = json.loads(json.dumps(sorted(given, key=lambda one: (one["method"], one["seed"]))))
    assert unpack(path) == rows_at(path) == expected


def test_a_packed_record_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes with the package."""
    monkeypatch.setattr(recorded, "MOST_BYTES", 100)
    with pytest.raises(InvalidArgument, match="more than the 100"):
        pack(rows({"a": [0.1]}), tmp_path / "x.parquet")
    assert not (tmp_path / "x.parquet").exists()


@pytest.mark.parametrize("content", [b"", b"PAR1 not really"])
def test_a_damaged_packed_record_is_named(tmp_path: Path, content: bytes) -> None:
    """By its path."""
    path = tmp_path / "x.parquet"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"x\.parquet: no packed record"):
        rows_at(path)


def test_a_table_is_no_packed_record(small_table: Path) -> None:
    """Though it is a Parquet file."""
    with pytest.raises(RecordError, match="no packed record"):
        unpack(small_table)


def test_nothing_is_no_record(tmp_path: Path) -> None:
    """Neither a path without a file nor a directory without runs."""
    with pytest.raises(InvalidArgument, match="neither a directory"):
        rows_at(tmp_path / "nothing")
    with pytest.raises(InvalidArgument, match="no finished run"):
        rows_at(tmp_path)


# --- baselines -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with recorded baselines of the suite, on two tasks."""
    protocol = SUITE.protocol.hash
    uct = [row("uct", 0, 0.5, task, protocol_hash=protocol) for task in ("cell", "size")]
    pack([*uct, *rows({"evolution": [0.4]}, "cell", protocol_hash=protocol)], tmp_path / "small.parquet")
    return tmp_path


def test_baselines_join_on_the_tasks_that_were_run(folder: Path) -> None:
    """Methods that were run anew are not taken from the file."""
    joined, refusals = baseline_rows(SUITE, [mine()], folder)
    assert ([(one["method"], one["task"]) for one in joined], refusals) == ([("uct", "cell")], [])


@pytest.mark.parametrize("name", ["task_hash", "table_sha256"])
def test_baselines_on_another_task_or_table_do_not_join(folder: Path, name: str) -> None:
    """And it is said."""
    joined, refusals = baseline_rows(SUITE, [mine(**{name: "other"})], folder)
    assert joined == []
    assert "'cell'" in refusals[0]


def test_baselines_by_another_protocol_do_not_join(folder: Path) -> None:
    """And it is said."""
    joined, refusals = baseline_rows(SUITE.with_budget(99), [mine()], folder)
    assert joined == []
    assert "another protocol (budget 200)" in refusals[0]


def test_a_suite_may_have_no_baselines(tmp_path: Path) -> None:
    """And it is said."""
    assert "no recorded baselines" in baseline_rows(SUITE, [mine()], tmp_path)[1][0]
