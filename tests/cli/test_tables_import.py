"""``nas-gym tables import``, from the command line to the environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gymnasium
import nats_archives
import pytest

from nas_gym.cli import tables
from nas_gym.errors import InvalidArgument, TableError, UnknownName
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space
from nas_gym.tables.format import TABLES

Run = Callable[..., str]
SPACE = NASBench201Space()


@pytest.fixture
def run(run_app: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a command of the group, with an empty folder for tables."""
    monkeypatch.setenv("NAS_GYM_DATA", str(tmp_path / "data"))
    return run_app(tables.app)


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a CSV file with every cell; the accuracy grows with the code."""
    path = tmp_path_factory.mktemp("csv") / "all.csv"
    rows = (f"{SPACE.to_string(cell)},{code / 200},{code / 170}\n" for code, cell in enumerate(SPACE.enumerate()))
    path.write_text("architecture,cifar10_valid_12ep,cifar10_test_200ep\n" + "".join(rows))
    return path


def test_an_imported_table_serves_an_environment(run: Run, complete: Path) -> None:
    """What was chosen is printed; the table is usable by its name."""
    printed = run("import", complete, "--name", "nats")
    assert "recognised by its content" in printed
    assert "signal   valid_accuracy after 12 epochs: column cifar10_valid_12ep (by its name), in percent" in printed
    assert "report   test_accuracy after 200 epochs: column cifar10_test_200ep (by its name)" in printed
    evaluator = gymnasium.make("NAS-Cell-v0", table="nats-cifar10").unwrapped.evaluator  # pyright: ignore
    assert evaluator.reference("test_accuracy").best == 15_624 / 170 / 100


def test_info_shows_what_an_imported_table_is_made_of(run: Run, complete: Path) -> None:
    """Signal, report, epochs, where from, and that there is no noise to be known."""
    run("import", complete, "--name", "nats")
    printed = run("info", "nats-cifar10")
    for part in ("signal", "report", "200", "column cifar10_test_200ep", "unknown, one value", '"name": "all.csv"'):
        assert part in printed
    assert "nats-cifar10" in run("list")


def test_an_existing_table_needs_force(run: Run, complete: Path) -> None:
    """It says so before it reads anything."""
    run("import", complete, "--name", "nats")
    with pytest.raises(InvalidArgument, match="--force"):
        run("import", complete, "--name", "nats")
    run("import", complete, "--name", "nats", "--force")


def test_an_archive_with_missing_architectures_needs_permission(run: Run, tmp_path: Path) -> None:
    """The number is in the message, and in `info`."""
    folder = nats_archives.write(tmp_path / "archive", "nats_size", (0, 7))
    with pytest.raises(TableError, match="32,766 of the 32,768"):
        run("import", folder, "--name", "s")
    printed = run("import", folder, "--name", "s", "--allow-missing")
    assert "s-cifar10: 2 architectures of nats_size, 32,766 of the space are missing" in printed
    assert {"s-cifar10", "s-cifar100", "s-imagenet16-120"} <= set(TABLES)
    assert "Incomplete: 32,766 architectures" in run("info", "s-cifar10")


def test_columns_can_be_said(run: Run, tmp_path: Path) -> None:
    """Roles, data set and unit are printed as given."""
    path = tmp_path / "mine.csv"
    path.write_text(f"cell,acc\n{SPACE.to_string((1,) * 6)},0.5\n")
    options = ("--column", "architecture=cell", "--column", "signal=acc", "--dataset", "mine", "--unit", "fraction")
    printed = run("import", path, "--name", "n", *options, "--allow-missing")
    assert "column acc (chosen by the caller), in fractions (as given)" in printed


@pytest.mark.parametrize("pair", ["signal", "=acc", "signal="])
def test_a_role_needs_a_column(run: Run, complete: Path, pair: str) -> None:
    """ROLE=COLUMN, both."""
    with pytest.raises(InvalidArgument, match="ROLE=COLUMN"):
        run("import", complete, "--name", "n", "--column", pair)


def test_a_format_can_be_forced(run: Run, complete: Path) -> None:
    """An unknown one is refused with the ones there are; a wrong one fails in its own words."""
    with pytest.raises(UnknownName, match="nats_bench"):
        run("import", complete, "--name", "n", "--format", "csv")
    with pytest.raises(TableError, match="not the JSON of the benchmark"):
        run("import", complete, "--name", "n", "--format", "nas_bench_macro")
