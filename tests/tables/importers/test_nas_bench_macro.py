"""NAS-Bench-Macro's JSON: which of its test accuracies is the signal, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_gym.errors import InvalidArgument, TableError, UnknownName
from nas_gym.search_spaces import make_space
from nas_gym.tables.importers import ImportedTable, Options, Source, install, recognise


def content(keys: list[str]) -> dict[str, Any]:
    """Return the object of the file for some architectures, with random accuracies."""
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for key in keys:
        accuracies = (rng.integers(4500, 9400, 3) / 100).tolist()
        found[key] = {
            "test_acc": accuracies,
            "mean_acc": float(np.mean(accuracies)),
            "std": float(np.std(accuracies)),
            "params": int(rng.integers(387_882, 2_932_586)),
            "flops": int(rng.integers(7_710_000, 105_660_000)),
        }
    return found


KEYS = ["22212202", "00000000", "01201201"]


def read(path: Path, value: object, **options: Any) -> ImportedTable:
    """Write a file and return the table that is read from it."""
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    source = Source(path)
    (table,) = recognise(source).read(source, Options(**options))
    return table


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a test writes its file."""
    return tmp_path / "macro"


def test_the_first_training_is_the_signal_and_the_mean_is_reported(path: Path) -> None:
    """The benchmark has test accuracies only, so the table declares which is which."""
    written = content(KEYS)
    table = read(path, written)
    first = [round(written[key]["test_acc"][0] * 100) for key in KEYS]
    assert table.columns["valid_accuracy"][:, 0, 0].tolist() == first
    every = [[round(accuracy * 100) for accuracy in written[key]["test_acc"]] for key in KEYS]
    assert table.columns["test_accuracy"][:, :, 0].tolist() == every
    assert [name for name, one in table.measurements.items() if one.held_out] == ["test_accuracy"]
    assert "no validation accuracies" in table.measurements["valid_accuracy"].description


def test_sizes_are_recorded(path: Path) -> None:
    """What the benchmark calls FLOPs counts multiply-adds, as its extreme networks show."""
    written = content(KEYS)
    table = read(path, written)
    assert table.columns["parameters"][:, 0, 0].tolist() == [written[key]["params"] for key in KEYS]
    assert table.columns["multiply_adds"][:, 0, 0].tolist() == [written[key]["flops"] for key in KEYS]


def test_the_whole_benchmark_becomes_a_complete_table(path: Path, data_root: Path) -> None:
    """All 6,561 architectures, in any order, under the name that the environment looks for."""
    space = make_space("nas_bench_macro")
    keys = [space.to_string(encoding) for encoding in space.enumerate()][::-1]
    (installed,) = install("macro", [read(path, content(keys))])
    assert (installed.name, installed.rows, installed.missing) == ("macro-cifar10", 6561, 0)


def without_field(value: dict[str, Any]) -> None:
    """Take a field away."""
    del value[KEYS[1]]["std"]


def setting(field: str, cell: object) -> Callable[[dict[str, Any]], None]:
    """Return what gives a field of an architecture another value."""

    def change(value: dict[str, Any]) -> None:
        value[KEYS[1]][field] = cell

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_field, "std is missing"),
        (setting("test_acc", 90.0), "a list as test_acc is missing"),
        (setting("test_acc", [90.0, 91.0]), "test_acc has 2 values"),
        (setting("test_acc", []), "test_acc has 0 values"),
        (setting("test_acc", [90.0, "91", 92.0]), "test_acc must be a number, got '91'"),
        (setting("test_acc", [True, 91, 92]), "test_acc must be a number"),
        (setting("test_acc", [190.0, 0.0, 0.0]), "must be percentages"),
        (setting("mean_acc", 12.0), "whose mean is mean_acc"),
        (setting("params", 1.5), "params must be an integer"),
        (setting("flops", -3), "flops must be an integer"),
        (setting("flops", float("nan")), "NaN is no number"),
        (lambda value: value.update({"22212203": value[KEYS[0]]}), "not an architecture of nas_bench_macro"),
        (lambda value: value.update({"2221220": value[KEYS[0]]}), "not an architecture of nas_bench_macro"),
        (lambda value: value.update({"x": 3}), "one JSON object with an object an architecture"),
    ],
)
def test_bad_files_are_refused(path: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    """The message names the key and what is wrong with it."""
    value = content(KEYS)
    change(value)
    with pytest.raises(TableError, match=message):
        read(path, value)


def test_a_torn_file_is_refused(path: Path) -> None:
    """It still begins like one of the benchmark."""
    with pytest.raises(TableError, match="Fetch it again"):
        read(path, json.dumps(content(KEYS))[:-30])


def test_a_key_twice_is_refused(path: Path) -> None:
    """Python's own reader would keep the last in silence."""
    text = json.dumps(content(KEYS))
    with pytest.raises(TableError, match="'22212202' comes twice"):
        read(path, text[:-1] + "," + text[1:])


def test_options_for_anybodys_columns_are_refused(path: Path) -> None:
    """The format fixes what every value means."""
    with pytest.raises(InvalidArgument, match="takes no columns"):
        read(path, content(KEYS), columns={"signal": "mean_acc"})
    with pytest.raises(UnknownName, match="cifar10"):
        read(path, content(KEYS), dataset="cifar100")
