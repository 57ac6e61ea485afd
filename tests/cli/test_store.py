"""``nas-gym store``: what the commands print, write and refuse."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from nas_gym.cli.store import app
from nas_gym.errors import InvalidArgument, StoreError, UnknownName
from nas_gym.evaluators.core import Status
from nas_gym.evaluators.store import EvaluationStore
from nas_gym.evaluators.stored import EvaluationKey, StoredEvaluation

KEY = EvaluationKey("toy", (0, 1, 2), "training", 1, "digits", "recipe", 7, 6)
OK = StoredEvaluation(
    Status.OK,
    {"valid_accuracy": 0.1 + 0.2, "parameters": 5242.0},
    {"test_accuracy": 1 / 3},
    {"loss": (2.3, 2.2)},
    1.5,
    host="machine [a]",
    versions={"torch": "2.8.0"},
    created="2026-01-01T00:00:00+00:00",
)
DIVERGED = StoredEvaluation(Status.DIVERGED, {"valid_accuracy": math.nan}, {}, {}, math.inf, "diverged", created="now")
TIMEOUT = StoredEvaluation(Status.TIMEOUT, {}, {}, {}, 9.0, created="now")


@pytest.fixture
def store_file(tmp_path: Path) -> Path:
    """Return a store with a measurement, a divergence, a timeout and an artifact."""
    path = tmp_path / "evaluations.sqlite"
    with EvaluationStore(path) as store:
        file = store.temporary_file()
        file.write_bytes(bytes(1_200_000))
        store.put(KEY, dataclasses.replace(OK, artifact=store.put_artifact(file)))
        store.put(KEY.at(3), DIVERGED)
        store.put(KEY.at(1), TIMEOUT)
    return path


@pytest.fixture
def run(run_app: Any) -> Any:
    """Return a function that runs a command and returns what it printed, or raises what it raised."""
    return run_app(app)


def lines(text: str) -> list[list[str]]:
    """Return the words of every line."""
    return [line.split() for line in text.splitlines()]


@pytest.mark.parametrize("command", ["show", "export", "merge", "verify"])
def test_every_command_has_an_example(command: str) -> None:
    """One that works as it stands."""
    result = CliRunner().invoke(app, [command, "--help"])
    assert f"Example: nas-gym store {command}" in result.output


# --- show ------------------------------------------------------------------------------------------


def test_show_summarises(run: Any, store_file: Path) -> None:
    """Answers, transient failures and the size of the artifacts."""
    text = run("show", store_file)
    assert text.startswith(f"{store_file}: 2 evaluations, 1 transient failures, artifacts 1.2 MB\n")


@pytest.mark.parametrize("status", ["ok", "diverged", "timeout"])
def test_show_counts_rows_by_kind(run: Any, store_file: Path, status: str) -> None:
    """One line for every space, evaluator, data set and status."""
    assert ["toy", "training", "digits", status, "1"] in lines(run("show", store_file))


def test_show_lists_rows(run: Any, store_file: Path) -> None:
    """Encoding, epochs, status, metrics, cost and host, its brackets included."""
    expected = ["0", "1", "2", "6", "ok", "0.3", "5,242", "1.5", "s", "machine", "[a]"]
    assert expected in lines(run("show", store_file, "--status", "ok"))


def test_show_lists_the_newest_first(run: Any, store_file: Path) -> None:
    """The last word on a search is at the top."""
    shown = [words[3] for words in lines(run("show", store_file)) if words[:3] == ["0", "1", "2"]]
    assert shown == ["3", "6"]


@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        pytest.param(["--limit", "1"], ["3"], id="limit"),
        pytest.param(["--limit", "0"], [], id="no row"),
        pytest.param(["--status", "ok"], ["6"], id="ok"),
        pytest.param(["--status", "timeout"], ["1"], id="transient"),
        pytest.param(["--status", "crashed"], [], id="none of this status"),
    ],
)
def test_show_selects_rows(run: Any, store_file: Path, options: list[str], epochs: list[str]) -> None:
    """By number and by status."""
    text = run("show", store_file, *options)
    assert [words[3] for words in lines(text) if words[:3] == ["0", "1", "2"]] == epochs


def test_show_of_an_empty_store(run: Any, tmp_path: Path) -> None:
    """One line, and no empty tables."""
    EvaluationStore(tmp_path / "empty.sqlite").close()
    assert len(run("show", tmp_path / "empty.sqlite").splitlines()) == 1


def test_show_of_an_unknown_status_names_the_nearest(run: Any, store_file: Path) -> None:
    """A typo is recognised."""
    with pytest.raises(UnknownName, match=r"unknown status 'diverge'\. Did you mean 'diverged'"):
        run("show", store_file, "--status", "diverge")


def test_show_of_a_negative_number_of_rows_is_refused(run: Any, store_file: Path) -> None:
    """The message has the value."""
    with pytest.raises(InvalidArgument, match="--limit must not be negative, got -1"):
        run("show", store_file, "--limit", "-1")


@pytest.mark.parametrize("command", [["show"], ["verify"], ["export", "OUT"], ["merge", "target.sqlite"]], ids=str)
def test_a_store_that_does_not_exist_is_not_created(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """Whatever was asked of it, nothing appears."""
    monkeypatch.chdir(tmp_path)
    name, *rest = [argument.replace("OUT", "out.csv") for argument in command]
    arguments = [name, *rest, "absent.sqlite"] if name == "merge" else [name, "absent.sqlite", *rest]
    with pytest.raises(StoreError, match=r"absent\.sqlite: there is no evaluation store"):
        run(*arguments)
    assert list(tmp_path.iterdir()) == []


# --- export ----------------------------------------------------------------------------------------


@pytest.fixture
def exported(run: Any, store_file: Path, tmp_path: Path) -> pa.Table:
    """Return what is in an exported Parquet file."""
    run("export", store_file, tmp_path / "out.parquet")
    return pq.read_table(tmp_path / "out.parquet")


def test_export_says_what_it_wrote(run: Any, store_file: Path, tmp_path: Path) -> None:
    """Number of rows and file."""
    assert run("export", store_file, tmp_path / "out.csv") == f"Wrote 2 rows to {tmp_path / 'out.csv'}.\n"


def test_parquet_has_exact_metrics(exported: pa.Table) -> None:
    """Not a number stays so; what a row lacks is null."""
    found = [repr(exported.column(name).to_pylist()) for name in ("valid_accuracy", "parameters", "test_accuracy")]
    assert found == ["[0.30000000000000004, nan]", "[5242.0, None]", "[0.3333333333333333, None]"]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("space", ["toy", "toy"]),
        ("encoding", ["[0, 1, 2]", "[0, 1, 2]"]),
        ("seed", [7, 7]),
        ("fidelity", [6, 3]),
        ("parent", ["scratch", "scratch"]),
        ("status", ["ok", "diverged"]),
        ("cost_seconds", [1.5, math.inf]),
        ("message", ["", "diverged"]),
        ("curve", ['{"loss":[2.3,2.2]}', "{}"]),
        ("host", ["machine [a]", ""]),
        ("created", ["2026-01-01T00:00:00+00:00", "now"]),
    ],
)
def test_parquet_has_everything_else(exported: pa.Table, column: str, expected: list[object]) -> None:
    """One row an answer, in the order in which they came."""
    assert exported.column(column).to_pylist() == expected


def test_csv_has_exact_metrics(run: Any, store_file: Path, tmp_path: Path) -> None:
    """Read as text and turned into numbers, they are the same."""
    run("export", store_file, tmp_path / "out.csv")
    with open(tmp_path / "out.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(rows[0]["valid_accuracy"]), json.loads(rows[0]["encoding"])] == [0.1 + 0.2, [0, 1, 2]]


def test_a_metric_named_like_a_column_is_told_apart(run: Any, tmp_path: Path) -> None:
    """Nothing is overwritten."""
    value = dataclasses.replace(
        OK, metrics={"status": 1.0, "host": 2.0}, held_out={"status": 3.0, "metric.status": 4.0}
    )
    with EvaluationStore(tmp_path / "s.sqlite") as store:
        store.put(KEY, value)
    run("export", tmp_path / "s.sqlite", tmp_path / "out.parquet")
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    names = ("status", "host", "metric.status", "metric.host", "held_out.status", "held_out.metric.status")
    assert [row[name] for name in names] == ["ok", "machine [a]", 1.0, 2.0, 3.0, 4.0]


def test_export_of_an_empty_store(run: Any, tmp_path: Path) -> None:
    """A table without rows."""
    EvaluationStore(tmp_path / "s.sqlite").close()
    run("export", tmp_path / "s.sqlite", tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0


def test_export_refuses_an_existing_file(run: Any, store_file: Path, tmp_path: Path) -> None:
    """It is never overwritten."""
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(InvalidArgument, match=r"out\.csv exists already"):
        run("export", store_file, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "mine"


def test_export_refuses_an_unknown_format(run: Any, store_file: Path, tmp_path: Path) -> None:
    """The message lists those there are."""
    with pytest.raises(InvalidArgument, match=r"out\.xlsx must end in \.parquet or \.csv"):
        run("export", store_file, tmp_path / "out.xlsx")


def test_export_into_a_missing_directory_is_refused(run: Any, store_file: Path, tmp_path: Path) -> None:
    """With the reason."""
    with pytest.raises(InvalidArgument, match="cannot be written: No such file or directory"):
        run("export", store_file, tmp_path / "absent" / "out.csv")


def test_a_failed_export_leaves_no_file(
    run: Any, store_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk leaves neither half a table nor a temporary file."""
    before = set(tmp_path.iterdir())

    def full_disk(table: pa.Table, stream: Any) -> None:
        stream.write(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full_disk)
    with pytest.raises(InvalidArgument, match="No space left"):
        run("export", store_file, tmp_path / "out.parquet")
    assert set(tmp_path.iterdir()) == before


# --- merge -----------------------------------------------------------------------------------------


def test_merge_creates_the_target(run: Any, store_file: Path, tmp_path: Path) -> None:
    """Rows, failures and artifacts are all there."""
    run("merge", tmp_path / "all.sqlite", store_file)
    with EvaluationStore(tmp_path / "all.sqlite") as merged, EvaluationStore(store_file) as source:
        assert repr(list(merged.rows())) == repr(list(source.rows()))
        assert (merged.counts(), merged.artifact_bytes()) == (source.counts(), source.artifact_bytes())


def test_merge_reports_every_source(run: Any, store_file: Path, tmp_path: Path) -> None:
    """How many rows were added, and how many contradict."""
    with EvaluationStore(tmp_path / "other.sqlite") as other:
        other.put(KEY, dataclasses.replace(OK, metrics={"valid_accuracy": 0.9}))
        other.put(KEY.at(2), OK)
    target = tmp_path / "all.sqlite"
    text = run("merge", target, store_file, tmp_path / "other.sqlite")
    assert text.splitlines() == [
        f"{store_file}: 2 rows added; 0 have another answer in {target}, which was kept.",
        f"{tmp_path / 'other.sqlite'}: 1 rows added; 1 have another answer in {target}, which was kept.",
    ]


def test_merge_looks_at_all_sources_first(run: Any, store_file: Path, tmp_path: Path) -> None:
    """One that does not exist stops it before anything is written."""
    with pytest.raises(StoreError, match=r"absent\.sqlite: there is no evaluation store"):
        run("merge", tmp_path / "all.sqlite", store_file, tmp_path / "absent.sqlite")
    assert not (tmp_path / "all.sqlite").exists()


# --- verify ----------------------------------------------------------------------------------------


def test_verify_of_an_intact_store(run: Any, store_file: Path) -> None:
    """One line says so."""
    assert run("verify", store_file) == f"{store_file}: 2 evaluations, everything matches.\n"


def test_verify_lists_the_problems(run: Any, store_file: Path) -> None:
    """All of them, by path."""
    with EvaluationStore(store_file) as store:
        path = store.artifact_path(store.newest(9, Status.OK)[0][1].artifact or "")
        store.put(KEY.at(9), dataclasses.replace(OK, artifact="0" * 32))
    assert path is not None
    path.write_bytes(b"damaged")
    with pytest.raises(
        StoreError, match=r"2 problems:\n.*row 3 of evaluations.* missing.*\n.*the content does not match"
    ):
        run("verify", store_file)
