"""Tables are installed complete or not at all, and used like any other."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from nas_gym.errors import FidelityError, InvalidArgument, TableError
from nas_gym.evaluators.core import Queries
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.search_spaces import Encoding
from nas_gym.search_spaces.nas_bench_macro import NASBenchMacroSpace
from nas_gym.tables.format import TABLES, Measurement, read_table, write_table
from nas_gym.tables.importers import ImportedTable, install, installation
from nas_gym.tables.quality import quality, standard_error

SPACE = NASBenchMacroSpace()
ALL = list(SPACE.enumerate())
SEEDS, EPOCHS = 3, 12


def imported(dataset: str = "d", encodings: Sequence[Encoding] = ALL, gaps: bool = False) -> ImportedTable:
    """Return an imported table with random values; with gaps, one seed in three is missing of every odd row."""
    rng = np.random.default_rng(len(encodings))
    count = len(encodings)
    test = rng.integers(1000, 9500, (count, SEEDS, 1)).astype(np.float32)
    if gaps:
        test[np.arange(1, count, 2), rng.integers(SEEDS, size=count // 2)] = np.nan
    seconds = np.cumsum(rng.uniform(5, 6, (count, 1, EPOCHS)), axis=2)
    measurements = {
        "valid_accuracy": Measurement("maximize", "fraction", False, 25_000, 1, EPOCHS, 12, "the signal"),
        "other_accuracy": Measurement("maximize", "fraction", True, 10_000),
        "test_accuracy": Measurement("maximize", "fraction", True, 10_000, SEEDS, 0, 200, "the report"),
        "train_seconds": Measurement("minimize", "seconds", seeds=1, epochs=EPOCHS),
    }
    columns = {
        "valid_accuracy": rng.integers(2500, 24_000, (count, 1, EPOCHS)).astype(np.uint16),
        "other_accuracy": rng.integers(1000, 9500, (count, 1, 1)).astype(np.uint16),
        "test_accuracy": test,
        "train_seconds": seconds.astype(np.float32),
    }
    metadata = {"signal": "valid_accuracy", "report": "test_accuracy", "source": {"name": "x"}}
    return ImportedTable(dataset, SPACE, list(encodings), measurements, columns, metadata)


def files(root: Path) -> list[str]:
    """Return everything below a folder."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


# --- installing ------------------------------------------------------------------------------------------


def test_a_table_is_found_by_its_name(data_root: Path) -> None:
    """NAME-DATASET, with nothing else left behind."""
    (done,) = install("mine", [imported()])
    assert (done.name, done.rows, done.missing) == ("mine-d", 6_561, 0)
    assert TABLES["mine-d"] == done.path
    assert files(data_root) == ["tables", "tables/mine-d.parquet"]


def test_rows_in_any_order_are_sorted(data_root: Path) -> None:
    """Values stay with their architectures."""
    shuffled = [ALL[index] for index in np.random.default_rng(3).permutation(len(ALL)).tolist()]
    table = imported(encodings=shuffled)
    (done,) = install("n", [table])
    read = read_table(done.path)
    row = shuffled.index((2, 2, 2, 1, 2, 0, 1, 2))
    recorded = table.columns["other_accuracy"][row, 0, 0] / 10_000
    assert read.mean("other_accuracy")[SPACE.code((2, 2, 2, 1, 2, 0, 1, 2))] == recorded


def test_importing_again_gives_the_same_hash(data_root: Path) -> None:
    """Nothing in a table depends on when it was made."""
    hashes = [read_table(install("n", [imported()], force=True)[0].path).sha256 for _ in range(2)]
    assert hashes[0] == hashes[1]


def test_missing_architectures_are_counted_and_refused(data_root: Path) -> None:
    """Nothing is written."""
    with pytest.raises(
        TableError, match=r"25 of the 6,561 architectures of nas_bench_macro are missing.*--allow-missing"
    ):
        install("n", [imported(encodings=ALL[25:])])
    assert files(data_root) == []


def test_missing_architectures_can_be_allowed(data_root: Path) -> None:
    """The optimum is then unknown, and what is missing fails."""
    install("n", [imported(encodings=ALL[25:])], allow_missing=True)
    evaluator = TabularEvaluator(SPACE, "n-d")
    assert evaluator.reference("test_accuracy") is None
    assert evaluator.evaluate_one(ALL[0]).status.label == "build_error"
    assert evaluator.evaluate_one(ALL[25]).status.label == "ok"


def test_an_architecture_twice_is_refused(data_root: Path) -> None:
    """The message names it."""
    with pytest.raises(TableError, match=r"1 architectures come twice, the first is 11111111"):
        install("n", [imported(encodings=[*ALL[:-1], (1,) * 8])])
    assert files(data_root) == []


def test_no_architecture_at_all_is_refused(data_root: Path) -> None:
    """Also where missing ones are allowed."""
    with pytest.raises(TableError, match="nothing to import"):
        install("n", [imported(encodings=[])], allow_missing=True)


def test_an_installed_table_is_not_replaced(data_root: Path) -> None:
    """Unless that is asked for; the others of the import are not installed either."""
    (old,) = install("n", [imported()])
    before = old.path.read_bytes()
    with pytest.raises(InvalidArgument, match="installed already"):
        install("n", [imported("new"), imported(encodings=ALL)])
    assert (old.path.read_bytes(), files(data_root)) == (before, ["tables", "tables/n-d.parquet"])
    install("n", [imported(gaps=True)], force=True)
    assert old.path.read_bytes() != before


def test_a_packaged_table_cannot_be_replaced(data_root: Path) -> None:
    """It would be found first and hide the imported one."""
    with pytest.raises(InvalidArgument, match="packaged with nas-gym"):
        install("metaqnn", [imported("digits")], force=True)


@pytest.mark.parametrize("name", ["", "../n", "a/b", ".hidden", "n\n", "a b"])
def test_names_that_are_no_file_names_are_refused(data_root: Path, name: str) -> None:
    """A table stays in its folder."""
    with pytest.raises(InvalidArgument, match="is made of letters"):
        install(name, [imported()])


def test_the_folder_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are only found where NAS_GYM_DATA points."""
    monkeypatch.delenv("NAS_GYM_DATA", raising=False)
    with pytest.raises(InvalidArgument, match="NAS_GYM_DATA is not set"):
        install("n", [imported()])


FULL_DISK = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("reason", "raised"), [(FULL_DISK, TableError), (KeyboardInterrupt(), KeyboardInterrupt)], ids=["disk", "interrupt"]
)
def test_nothing_stays_of_an_import_that_fails(
    data_root: Path, monkeypatch: pytest.MonkeyPatch, reason: BaseException, raised: type[BaseException]
) -> None:
    """The disk fills up, or Ctrl-C comes, while the second table is written."""
    calls = itertools.count()

    def failing(path: Path, *arguments: Any) -> str:
        if next(calls):
            path.write_bytes(b"half of a table")
            raise reason
        return write_table(path, *arguments)

    monkeypatch.setattr(installation, "write_table", failing)
    with pytest.raises(raised):
        install("n", [imported("a"), imported("b")])
    assert files(data_root) == ["tables"]


def test_nothing_stays_of_an_interrupt_between_two_renames(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first table is already at its place when Ctrl-C comes."""
    calls = itertools.count()
    replace = os.replace

    def failing(source: Path, target: Path) -> None:
        if Path(target).parent == data_root / "tables" and next(calls):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(KeyboardInterrupt):
        install("n", [imported("a"), imported("b")])
    assert files(data_root) == ["tables"]


# --- using what was installed ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_gaps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a complete table of which every second architecture lacks a seed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAS_GYM_DATA", str(tmp_path_factory.mktemp("gaps")))
        return install("n", [imported(gaps=True)])[0].path


def test_an_environment_rewards_the_signal_and_hides_the_report(data_root: Path) -> None:
    """The reward is the accuracy after the short training; `info` has nothing that is held out."""
    table = imported()
    install("mine", [table])
    env = gymnasium.make("NAS-Macro-v0", table="mine-d")
    env.reset(seed=0)
    cell = (2, 0, 2, 1, 0, 0, 1, 2)
    for action in cell:
        _, reward, _, _, info = env.step(action)
    row = ALL.index(cell)
    assert reward == table.columns["valid_accuracy"][row, 0, -1] / 25_000
    assert set(info["metrics"]) == {"valid_accuracy", "train_seconds"}


def test_results_are_judged_by_the_declared_report(with_gaps: Path) -> None:
    """Not by whichever held-out metric comes first."""
    evaluator = TabularEvaluator(SPACE, str(with_gaps))
    assert evaluator.reported_metric == "test_accuracy"


def test_means_are_over_the_seeds_there_are_and_exact(with_gaps: Path) -> None:
    """Counts are summed as integers and divided once."""
    stored = imported(gaps=True).columns["test_accuracy"][:, :, 0]
    means = read_table(with_gaps).mean("test_accuracy")
    for row in (0, 1, 7, 6_559):
        there = [int(value) for value in stored[row] if not np.isnan(value)]
        assert means[row] == sum(there) / (len(there) * 10_000)


def test_the_best_of_a_table_with_gaps_is_known(with_gaps: Path) -> None:
    """A missing seed is no missing architecture."""
    reference = TabularEvaluator(SPACE, str(with_gaps)).reference("test_accuracy")
    assert reference is not None
    stored = imported(gaps=True).columns["test_accuracy"][:, :, 0]
    assert reference.best == pytest.approx(np.nanmean(stored, axis=1).max() / 10_000, abs=1e-12)


def test_only_seeds_that_are_there_are_drawn(tmp_path: Path) -> None:
    """Each about equally often, and the missing one never."""
    measurements = {"valid_accuracy": Measurement("maximize", "fraction", False, 100, 3)}
    values = np.full((len(ALL), 3, 1), [[10.0], [np.nan], [30.0]])
    write_table(
        tmp_path / "t.parquet", np.arange(len(ALL)), measurements, {"valid_accuracy": values}, {"space": SPACE.name}
    )
    evaluator = TabularEvaluator(SPACE, str(tmp_path / "t.parquet"), noise="sample")
    answers = evaluator.evaluate(Queries.of(SPACE, ALL[:2000])).metrics["valid_accuracy"]
    assert set(np.unique(answers)) == {0.1, 0.3}
    assert np.mean(answers == 0.1) == pytest.approx(0.5, abs=0.05)


def test_the_cost_of_a_shorter_training_is_recorded(with_gaps: Path) -> None:
    """Where seconds are recorded by epoch they are looked up, and not a share of the whole."""
    evaluator = TabularEvaluator(SPACE, str(with_gaps))
    seconds = imported(gaps=True).columns["train_seconds"][9, 0]
    for fidelity in (1, 5, 12):
        assert evaluator.evaluate_one(ALL[9], fidelity).cost_seconds == float(seconds[fidelity - 1])
        batch = evaluator.evaluate(Queries.of(SPACE, [ALL[9]], fidelity))
        assert batch.cost_seconds.tolist() == [float(seconds[fidelity - 1])]
    assert evaluator.evaluate_one(ALL[9]).cost_seconds == float(seconds[-1])


def test_without_curves_the_only_fidelity_is_that_of_the_signal(data_root: Path) -> None:
    """A table that knows 12 epochs only refuses to answer for fewer or more."""
    table = imported()
    measured = {"valid_accuracy": Measurement("maximize", "fraction", False, 25_000, 0, 0, 12)}
    columns = {"valid_accuracy": table.columns["valid_accuracy"][:, :, -1:]}
    install("n", [dataclasses.replace(table, measurements=measured, columns=columns)])
    evaluator = TabularEvaluator(SPACE, "n-d")
    assert evaluator.fidelities == (12, 12)
    assert evaluator.evaluate_one(ALL[5], 12) == evaluator.evaluate_one(ALL[5])
    with pytest.raises(FidelityError, match="from 12 to 12"):
        evaluator.evaluate_one(ALL[5], 6)


def test_noise_near_the_best_is_that_of_the_seeds_there_are(with_gaps: Path) -> None:
    """A value of its own for rows with two and with three seeds."""
    table = read_table(with_gaps)
    values = table.per_seed("test_accuracy")
    near = np.argsort(-table.mean("test_accuracy"), kind="stable")[: round(0.05 * len(values))]
    squared = [np.var(row[~np.isnan(row)], ddof=1) / (~np.isnan(row)).sum() for row in values[near]]
    assert standard_error(table, "test_accuracy") == pytest.approx(np.sqrt(np.mean(squared)))
    assert np.isfinite(quality(table).standard_error)


# --- the file --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values", [[[[np.nan], [np.nan]]], [[[1.0, np.nan], [1.0, 2.0]]]], ids=["no seed", "half of a curve"]
)
def test_a_row_without_a_value_is_not_written(tmp_path: Path, values: Any) -> None:
    """A seed is whole or absent, and every architecture has one."""
    epochs = len(values[0][0]) if len(values[0][0]) > 1 else 0
    measurement = {"m": Measurement("maximize", "fraction", seeds=2, epochs=epochs)}
    with pytest.raises(InvalidArgument, match="m: row 0 has no value"):
        write_table(tmp_path / "t.parquet", np.arange(1), measurement, {"m": np.array(values)}, {})


def test_what_older_tables_do_not_say_is_not_written() -> None:
    """A table that says no more than the first ones has the hash that they have."""
    plain = Measurement("maximize", "fraction").to_json()
    assert set(plain) == {"direction", "unit", "held_out", "denominator", "seeds", "epochs"}
    said = Measurement("maximize", "fraction", trained_epochs=12, description="x").to_json()
    assert Measurement(**said) == Measurement("maximize", "fraction", trained_epochs=12, description="x")
