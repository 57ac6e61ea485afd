"""Tables that users import: which one an environment reads, and what it says when there is none."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from nas_gym.envs.core.imported import BenchmarkTables
from nas_gym.errors import InvalidArgument, TableError, UnknownName
from nas_gym.search_spaces import make_space

IMPORTED = {
    "NAS-Size-v0": ("nats_size", "nats-size", "NATS-sss-v1_0-50262-simple"),
    "NAS-Macro-v0": ("nas_bench_macro", "macro", "nas-bench-macro_cifar10.json"),
}
"""Search space, prefix of the tables and official files of every id that reads imported tables."""

every_imported_id = pytest.mark.parametrize("name", list(IMPORTED))
every_form = pytest.mark.parametrize("make", [gymnasium.make, gymnasium.make_vec], ids=["single", "vector"])

tables = BenchmarkTables("nats-size", "cifar10", "NATS-sss-v1_0-50262-simple")


class TabularStranger:
    """A third party's evaluator that reads a table."""

    def __init__(self, space: Any, table: str) -> None:
        """Do nothing."""


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a user who has imported nothing."""
    monkeypatch.setenv("NAS_GYM_DATA", str(tmp_path))
    (tmp_path / "tables").mkdir()
    return tmp_path / "tables"


# --- the choice ------------------------------------------------------------------------------------


def test_the_default_table_is_named_after_benchmark_and_data_set() -> None:
    """As `nas-gym tables import` names it."""
    assert tables.default == "nats-size-cifar10"


@pytest.mark.parametrize("evaluator", ["synthetic", "training"])
@pytest.mark.parametrize("table", [None, "nats-size-cifar10", "digits"])
def test_evaluators_without_tables_get_what_was_asked_for(evaluator: str, table: str | None) -> None:
    """Nothing by default; anything else is theirs to refuse."""
    if evaluator == "training":
        pytest.importorskip("torch")
    assert tables.choose(evaluator, table) == table


@pytest.mark.parametrize("table", ["digits", "no-such-table", "nats-size-mine.parquet", "/some/nats-size.parquet"])
def test_tables_of_others_and_files_are_passed_on(table: str) -> None:
    """Whether they exist and fit is for the evaluator to say."""
    assert tables.choose("tabular", table) == table


def test_an_installed_table_is_chosen_by_default(data: Path) -> None:
    """Its content is not looked at."""
    (data / "nats-size-cifar10.parquet").touch()
    assert tables.choose("tabular", None) == "nats-size-cifar10"


def test_any_evaluator_that_reads_a_table_gets_one(data: Path) -> None:
    """Those of third parties as well, for their constructor has the argument."""
    (data / "nats-size-cifar10.parquet").touch()
    assert tables.choose(f"{__name__}:TabularStranger", None) == "nats-size-cifar10"


def test_an_unknown_evaluator_gets_the_nearest_match() -> None:
    """Before tables are looked for."""
    with pytest.raises(UnknownName, match="Did you mean 'tabular'"):
        tables.choose("tabulr", None)


# --- the environments ------------------------------------------------------------------------------


@every_form
@every_imported_id
def test_a_missing_table_is_named_with_where_it_is_looked_for_and_how_to_import_it(
    name: str, make: Callable[..., Any], data: Path
) -> None:
    """Everything that is needed to go on is in the message."""
    _, prefix, files = IMPORTED[name]
    with pytest.raises(TableError) as caught:
        make(name)
    for part in (
        f"'{prefix}-cifar10' is not installed",
        f"looked for in {data}",
        f"nas-gym tables import {files} --name {prefix}.",
        "evaluator='synthetic'",
        "Installed tables: digits",
    ):
        assert part in str(caught.value)


@every_imported_id
def test_without_a_folder_for_tables_the_message_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is named."""
    monkeypatch.delenv("NAS_GYM_DATA")
    with pytest.raises(TableError, match="NAS_GYM_DATA is not set"):
        gymnasium.make(name)


@every_imported_id
def test_other_tables_of_the_benchmark_are_imported_by_the_same_command(name: str) -> None:
    """Whatever the data set."""
    _, prefix, files = IMPORTED[name]
    with pytest.raises(TableError, match=rf"'{prefix}-other' is not installed.*import {files} --name {prefix}"):
        gymnasium.make(name, table=f"{prefix}-other")


@every_imported_id
def test_an_imported_table_answers_by_default(name: str, data: Path, random_table: Callable[[Any], Path]) -> None:
    """Under its official name it needs no argument."""
    space_name, prefix, _ = IMPORTED[name]
    table = random_table(make_space(space_name))
    shutil.copy(table, data / f"{prefix}-cifar10.parquet")
    default, named = gymnasium.make(name).unwrapped, gymnasium.make(name, table=str(table)).unwrapped
    rewards = []
    for env in (default, named):
        env.reset()
        rewards.append([env.step(1)[1] for _ in range(env.space.max_length)])
    assert rewards[0] == rewards[1]
    assert rewards[0][-1] > 0


@every_imported_id
def test_an_unknown_table_gets_the_nearest_match(name: str) -> None:
    """As in every environment that reads tables."""
    with pytest.raises(UnknownName, match="Did you mean 'digits'"):
        gymnasium.make(name, table="digit")


@every_imported_id
def test_a_table_of_another_space_is_refused(name: str, small_table: Path) -> None:
    """The message names both."""
    with pytest.raises(TableError, match=f"of the space 'nas_bench_201', but '{IMPORTED[name][0]}' is searched"):
        gymnasium.make(name, table=str(small_table))


@every_imported_id
@pytest.mark.parametrize(("setting", "value"), [("table", "digits"), ("noise", "mean"), ("dataset", "digits")])
def test_settings_of_another_evaluator_are_refused(name: str, setting: str, value: str) -> None:
    """An argument without effect is an error."""
    with pytest.raises(InvalidArgument, match=rf"takes no argument '{setting}'"):
        gymnasium.make(name, evaluator="synthetic", **{setting: value})
