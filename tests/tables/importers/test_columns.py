"""CSV and Parquet: columns mean what their names or the caller say, and nothing is guessed in silence."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nas_gym.errors import InvalidArgument, TableError, UnknownName
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space
from nas_gym.tables.importers import ImportedTable, Options, Source, recognise

SPACE = NASBench201Space()
CELLS = [SPACE.to_string(encoding) for encoding in ((0,) * 6, (3,) * 6, (1, 2, 3, 4, 0, 1))]

USUAL: dict[str, Sequence[Any]] = {
    "architecture": CELLS,
    "cifar10_valid_12ep": [10.5, 84.892, 40],
    "cifar10_test_12ep": [10, 80.25, 41],
    "cifar10_test_200ep": [10, 94.3733, 70.1],
    "train_seconds": [80.5, 200, 100],
    "parameters": [1000, 3000, 2000],
    "comment": ["a", "b", "c"],
}


def csv_of(columns: Mapping[str, Sequence[Any]], delimiter: str = ",") -> str:
    """Return a CSV file's text."""
    rows = [columns, *zip(*columns.values(), strict=True)]
    return "".join(delimiter.join(map(str, row)) + "\n" for row in rows)


def read(path: Path, content: str | bytes | Mapping[str, Sequence[Any]], **options: Any) -> list[ImportedTable]:
    """Write a file and return what is read from it, its format recognised."""
    if isinstance(content, Mapping):
        content = csv_of(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    source = Source(path)
    return recognise(source).read(source, Options(**options))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a test writes its file; the name says nothing about the format."""
    return tmp_path / "data"


def without(*names: str, **more: Sequence[Any]) -> dict[str, Sequence[Any]]:
    """Return the usual columns without some and with others."""
    return {name: cells for name, cells in USUAL.items() if name not in names} | more


def test_names_say_what_columns_mean(path: Path) -> None:
    """The validation accuracy with the fewest epochs is the signal, the test accuracy with the most the report."""
    (table,) = read(path, USUAL)
    described = {name: (one.held_out, one.trained_epochs) for name, one in table.measurements.items()}
    assert described == {
        "valid_accuracy": (False, 12),
        "test_accuracy": (True, 200),
        "test_accuracy_12ep": (True, 12),
        "train_seconds": (False, 0),
        "parameters": (False, 0),
    }
    assert (table.metadata["signal"], table.metadata["report"]) == ("valid_accuracy", "test_accuracy")


def test_values_are_those_of_the_file(path: Path) -> None:
    """A percentage is stored as it is written, with its denominator."""
    (table,) = read(path, USUAL)
    assert table.columns["test_accuracy"][:, 0, 0].tolist() == [10, 94.3733, 70.1]
    assert table.measurements["test_accuracy"].denominator == 100
    assert table.columns["parameters"][:, 0, 0].tolist() == [1000, 3000, 2000]
    assert [SPACE.to_string(encoding) for encoding in table.encodings] == CELLS


def test_what_was_chosen_is_recorded(path: Path) -> None:
    """Column, how it was chosen, unit and how that was found out; what was not used, too."""
    (table,) = read(path, USUAL)
    said = table.measurements["valid_accuracy"].description
    assert said == "column cifar10_valid_12ep (by its name), in percent (recognised, its highest value is 84.892)"
    assert table.metadata["columns_ignored"] == ["comment"]


def test_every_data_set_gets_a_table(path: Path) -> None:
    """Shared columns go into all of them; a column of one data set's own wins."""
    more = {"svhn_valid_5ep": [1, 2, 3], "svhn_train_seconds": [7, 8, 9]}
    first, second = read(path, USUAL | more)
    assert (first.dataset, second.dataset) == ("cifar10", "svhn")
    assert first.columns["train_seconds"][:, 0, 0].tolist() == [80.5, 200, 100]
    assert second.columns["train_seconds"][:, 0, 0].tolist() == [7, 8, 9]
    assert second.metadata["report"] == "valid_accuracy"


def test_one_data_set_can_be_asked_for(path: Path) -> None:
    """The others are left out, and their columns named as ignored."""
    (table,) = read(path, USUAL | {"svhn_valid_5ep": [1, 2, 3]}, dataset="svhn")
    assert table.dataset == "svhn"
    assert "cifar10_valid_12ep" in table.metadata["columns_ignored"]


def test_columns_of_seeds_become_seeds(path: Path) -> None:
    """In the order of their numbers; an empty cell is a training that was never done."""
    seeds = {"cifar10_valid_12ep_seed888": ["50", "", "30"], "cifar10_valid_12ep_seed777": ["40", "60", "20"]}
    (table,) = read(path, without("cifar10_valid_12ep", **seeds))
    expected = [[40, 50], [60, np.nan], [20, 30]]
    np.testing.assert_array_equal(table.columns["valid_accuracy"][:, :, 0], expected)
    assert table.metadata["seeds"] == {"valid_accuracy": [777, 888]}


def test_the_caller_says_what_columns_mean(path: Path) -> None:
    """Roles win over names; the data set must be named."""
    columns = {"cell": CELLS, "acc": [0.5, 0.7, 0.6], "final": [0.8, 0.9, 0.7], "time": [1, 2, 3]}
    roles = {"architecture": "cell", "signal": "acc", "report": "final", "train_seconds": "time"}
    (table,) = read(path, columns, dataset="Mine", columns=roles)
    assert table.dataset == "mine"
    assert table.columns["valid_accuracy"][:, 0, 0].tolist() == [0.5, 0.7, 0.6]
    assert table.measurements["test_accuracy"].denominator == 1
    assert "chosen by the caller" in table.measurements["test_accuracy"].description
    with pytest.raises(InvalidArgument, match="--dataset"):
        read(path, columns, columns=roles)


def test_a_role_takes_a_column_from_its_name(path: Path) -> None:
    """A test accuracy that the caller declares the signal is not the report, too."""
    (table,) = read(path, USUAL, dataset="cifar10", columns={"signal": "cifar10_test_12ep"})
    assert table.columns["valid_accuracy"][:, 0, 0].tolist() == [10, 80.25, 41]
    assert table.measurements["valid_accuracy"].trained_epochs == 12
    assert "test_accuracy_12ep" not in table.measurements


def test_parquet_is_read_like_csv(path: Path, tmp_path: Path) -> None:
    """The same columns give the same table."""
    pq.write_table(pa.table({name: list(cells) for name, cells in without("train_seconds").items()}), path)
    source = Source(path)
    (table,) = recognise(source).read(source, Options())
    (other,) = read(tmp_path / "other", without("train_seconds"))
    assert table.encodings == other.encodings
    for name, values in other.columns.items():
        np.testing.assert_array_equal(table.columns[name], values)


def test_a_gzipped_file_is_recognised_by_its_content(path: Path) -> None:
    """Whatever its name ends in."""
    (table,) = read(path, gzip.compress(csv_of(USUAL).encode()))
    assert len(table.encodings) == 3


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_are_recognised(path: Path, delimiter: str) -> None:
    """By the header."""
    assert len(read(path, csv_of(USUAL, delimiter))[0].encodings) == 3


@pytest.mark.parametrize("text", ["64:64:64:64:64", "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", "22212202"])
def test_the_space_is_recognised_by_the_notation(path: Path, text: str) -> None:
    """Each of the published notations belongs to one space."""
    (table,) = read(path, {"architecture": [text], "d_valid_1ep": [50]})
    assert table.space.to_string(table.encodings[0]) == text


# --- what is refused -------------------------------------------------------------------------------------


def changed(column: str, row: int, cell: object) -> dict[str, Sequence[Any]]:
    """Return the usual columns with another cell."""
    cells = list(USUAL[column])
    cells[row] = cell
    return USUAL | {column: cells}


@pytest.mark.parametrize("cell", ["high", "1_0", "٣", "inf", "1,5e", "0x10", "--"])
def test_a_cell_that_is_no_number_is_named(path: Path, cell: str) -> None:
    """With the file, the row as an editor counts it, the column and the cell."""
    content = csv_of(changed("cifar10_valid_12ep", 1, f'"{cell}"'))
    with pytest.raises(TableError, match=r"data, row 3: cifar10_valid_12ep must be a finite number, got"):
        read(path, content)


@pytest.mark.parametrize("cell", ["", "nan", " "])
def test_an_empty_cell_is_named(path: Path, cell: str) -> None:
    """A gap is only allowed among seeds."""
    with pytest.raises(TableError, match="row 4: train_seconds is empty"):
        read(path, changed("train_seconds", 2, cell))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed("parameters", 0, 10.5), "parameters must be an integer"),
        (changed("parameters", 0, -1), "parameters must be an integer"),
        (changed("train_seconds", 1, -1), "train_seconds must not be negative"),
        (changed("cifar10_test_200ep", 1, 100.5), "in percent lie between 0 and 100"),
        (changed("cifar10_test_200ep", 1, -1), "in percent lie between 0 and 100"),
        (without("cifar10_test_12ep", cifar10_test_12ep=[0.1, 0.9, 0.5]), "--unit percent or --unit fraction"),
        (changed("architecture", 1, "64:64:64:64:64"), "row 3: not an architecture of nas_bench_201"),
        (changed("architecture", 0, "resnet"), "no search space"),
        (changed("architecture", 1, ""), "row 3: architecture must be a text"),
        (
            {"architecture": CELLS, "d_valid_1ep_seed1": ["", 1, 2], "d_valid_1ep_seed2": ["", 1, 2]},
            "row 2: .* one seed is needed",
        ),
        (csv_of(USUAL)[:-40], "cells, the header has 7"),
        (csv_of(USUAL) + "x\n", "row 5: 1 cells, the header has 7"),
        (csv_of(USUAL).replace("comment", "parameters"), "several columns are called 'parameters'"),
        (csv_of(USUAL).split("\n")[0] + "\n", "has no rows"),
        (csv_of(USUAL).replace("84.892", '"84.892'), "malformed CSV"),
        (csv_of(USUAL).encode() + b"\xff\xfe,,,,,,\n", "not text in UTF-8"),
        (gzip.compress(csv_of(USUAL).encode())[:-20], "torn or damaged gzip"),
        (b"PAR1" + b"\0" * 100, "not a complete Parquet file"),
    ],
)
def test_bad_files_are_refused(path: Path, content: Any, message: str) -> None:
    """The message says what is wrong and where."""
    with pytest.raises(TableError, match=message):
        read(path, content)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (without("architecture"), {}, "has no column 'architecture'; it has: cifar10_valid_12ep"),
        (without("cifar10_valid_12ep"), {}, "has no validation accuracy that a search could read"),
        ({"architecture": CELLS, "accuracy": [1, 2, 3]}, {}, "Its columns are architecture, accuracy"),
        (USUAL, {"dataset": "cifar100"}, "for the data set D = 'cifar100'"),
        (USUAL, {"columns": {"signal": "accuracy"}, "dataset": "x"}, "has no column 'accuracy'"),
        (USUAL, {"columns": {"signal": "comment", "report": "comment"}, "dataset": "x"}, "given two roles"),
        (USUAL | {"cifar10_valid_012ep": [1, 2, 3]}, {}, "mean the same"),
        (USUAL | {"cifar10_valid_12ep_seed1": [1, 2, 3]}, {}, "both for single seeds and without"),
    ],
)
def test_what_columns_do_not_say_must_be_said(path: Path, content: Any, options: dict[str, Any], message: str) -> None:
    """Nothing is guessed; the message names the columns there are."""
    with pytest.raises(InvalidArgument, match=message):
        read(path, content, **options)


def test_unknown_roles_are_refused(path: Path) -> None:
    """With the nearest one."""
    with pytest.raises(UnknownName, match="Did you mean 'signal'"):
        read(path, USUAL, columns={"signals": "comment"}, dataset="x")


def test_a_given_unit_is_checked(path: Path) -> None:
    """Percentages are no fractions, and small percentages are believed where they are said to be some."""
    with pytest.raises(TableError, match="in fractions lie between 0 and 1"):
        read(path, USUAL, unit="fraction")
    (table,) = read(path, {"architecture": CELLS, "d_valid_1ep": [0.5, 0.7, 1]}, unit="percent")
    assert table.measurements["valid_accuracy"].denominator == 100


def test_numbers_instead_of_notations_are_refused(path: Path) -> None:
    """Leading zeros of a digit string are lost in a column of numbers."""
    pq.write_table(pa.table({"architecture": [22212202], "d_valid_1ep": [0.5]}), path)
    source = Source(path)
    with pytest.raises(TableError, match="architecture must be a text, got 22212202"):
        recognise(source).read(source, Options())


def test_a_table_of_our_own_is_not_imported(small_table: Path) -> None:
    """It can be used as it is."""
    source = Source(small_table)
    with pytest.raises(TableError, match="a nas-gym table already"):
        recognise(source).read(source, Options())


@pytest.mark.parametrize("content", [b"", b"\0" * 600, b"just words\n", b"BZh91AY&SY", b"[1, 2]", b'{"a": 1, "b": 2}'])
def test_other_content_is_not_recognised(path: Path, content: bytes) -> None:
    """The message lists the formats."""
    path.write_bytes(content)
    with pytest.raises(TableError, match=r"looks like no known format.*nas_bench_macro"):
        recognise(Source(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Before anything is read."""
    with pytest.raises(TableError, match="no such file or folder"):
        Source(tmp_path / "absent")
