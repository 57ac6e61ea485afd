"""`make_evaluator`: who takes which setting; and which table belongs to which search space."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_gym.errors import InvalidArgument, TableError, UnknownName
from nas_gym.evaluators import make_evaluator
from nas_gym.evaluators.core import Queries
from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.search_spaces.blockqnn import BlockQNNSpace
from nas_gym.search_spaces.core import SearchSpace
from nas_gym.search_spaces.metaqnn import REDUCED, MetaQNNSpace
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space
from nas_gym.tables.format import Measurement, write_table

CELLS = NASBench201Space()


class WithRecipe(SyntheticEvaluator):
    """Keeps what a system proposes and one setting of its own."""

    def __init__(
        self,
        space: SearchSpace,
        sizes: dict[str, Any] | None = None,
        recipe: dict[str, Any] | None = None,
        dataset: str = "none",
    ) -> None:
        super().__init__(space)
        self.got = (sizes, recipe, dataset)


def with_settings(space: SearchSpace, **settings: Any) -> dict[str, Any]:
    """Return what it got, as a factory that checks the names itself."""
    return settings


HERE = {"class": f"{__name__}:WithRecipe", "factory": f"{__name__}:with_settings"}


# --- settings --------------------------------------------------------------------------------------


def test_a_setting_reaches_the_evaluator() -> None:
    """Its own landscape."""
    assert make_evaluator("synthetic", CELLS, evaluation_seed=7).evaluation_seed == 7


@pytest.mark.parametrize("name", ["sizes", "recipe"])
def test_what_a_system_proposes_is_dropped_where_nothing_is_built(name: str) -> None:
    """A landscape has neither networks nor trainings."""
    proposed = {name: {"epochs": 3}}
    assert isinstance(make_evaluator("synthetic", CELLS, **proposed), SyntheticEvaluator)


def test_what_a_system_proposes_reaches_who_takes_it() -> None:
    """Sizes and recipe alike."""
    made = make_evaluator(HERE["class"], CELLS, sizes={"channels": 4}, recipe={"epochs": 3})
    assert made.got[:2] == ({"channels": 4}, {"epochs": 3})


def test_a_shared_setting_is_dropped_where_it_is_unknown() -> None:
    """The caller uses it itself."""
    made = make_evaluator("synthetic", CELLS, ("dataset", "image_size"), dataset="digits", image_size=8)
    assert isinstance(made, SyntheticEvaluator)


def test_a_shared_setting_reaches_who_takes_it() -> None:
    """It is dropped elsewhere only."""
    assert make_evaluator(HERE["class"], CELLS, ("dataset",), dataset="digits").got[2] == "digits"


def test_a_factory_of_any_settings_gets_shared_ones() -> None:
    """It knows their names itself."""
    assert make_evaluator(HERE["factory"], CELLS, ("dataset",), dataset="digits") == {"dataset": "digits"}


def test_a_factory_of_any_settings_gets_no_proposals_that_it_does_not_name() -> None:
    """They are no settings of the user's."""
    made = make_evaluator(HERE["factory"], CELLS, sizes={"channels": 4}, recipe={"epochs": 3}, color="red")
    assert made == {"color": "red"}


def test_none_is_the_default() -> None:
    """As if the setting were not there, whoever does not know it."""
    assert isinstance(make_evaluator("synthetic", CELLS, dataset=None), SyntheticEvaluator)


@pytest.mark.parametrize("shared", [(), ("dataset",)])
def test_another_unknown_setting_is_refused(shared: tuple[str, ...]) -> None:
    """With what the evaluator takes, and without what it is offered by systems."""
    message = r"'synthetic' takes no argument 'image_size' \(got 8\); it takes: evaluation_seed\.$"
    with pytest.raises(InvalidArgument, match=message):
        make_evaluator("synthetic", CELLS, shared, image_size=8)


def test_proposals_are_no_settings_that_are_listed() -> None:
    """A user does not give them."""
    with pytest.raises(InvalidArgument, match=r"it takes: dataset\.$"):
        make_evaluator(HERE["class"], CELLS, color="red")


def test_an_unknown_setting_of_the_training_is_refused_by_itself() -> None:
    """It knows the nearest name, also where it is shared."""
    pytest.importorskip("torch")
    with pytest.raises(UnknownName, match="Did you mean 'dataset'"):
        make_evaluator("training", CELLS, ("datasets",), datasets="digits")


def test_the_training_is_by_the_proposed_recipe_where_nobody_says_otherwise() -> None:
    """A setting of the same name wins."""
    pytest.importorskip("torch")
    made = make_evaluator("training", CELLS, recipe={"epochs": 3, "batch_size": 20}, epochs=5)
    assert (made.recipe.epochs, made.recipe.batch_size) == (5, 20)


def test_the_training_builds_networks_of_the_proposed_sizes() -> None:
    """They reach its builder."""
    pytest.importorskip("torch")
    assert make_evaluator("training", CELLS, sizes={"skeleton": "mine"}).task.sizes == {"skeleton": "mine"}


# --- tables ----------------------------------------------------------------------------------------

SMALL = MetaQNNSpace(max_depth=1, image_size=8, filters=(8,), kernels=(1,), neurons=(16,))


def write(path: Path, space: SearchSpace, **metadata: Any) -> str:
    """Write a table of all architectures of a space, with random numbers, and return its path."""
    count = space.size() or 0
    codes = np.sort([space.code(encoding) for encoding in space.enumerate()])
    accuracy = np.random.default_rng(0).integers(100, 1000, (count, 1, 1)).astype(np.uint16)
    measurements = {
        "valid_accuracy": Measurement("maximize", "fraction", denominator=1000, seeds=1),
        "test_accuracy": Measurement("maximize", "fraction", held_out=True, denominator=1000, seeds=1),
    }
    columns = {"valid_accuracy": accuracy, "test_accuracy": accuracy}
    write_table(path, codes, measurements, columns, {"space": space.name, **metadata})
    return str(path)


@pytest.fixture
def small(tmp_path: Path) -> str:
    """Return a table of `SMALL`."""
    return write(tmp_path / "small.parquet", SMALL, space_settings=SMALL.settings)


def test_a_table_answers_for_its_own_space(small: str) -> None:
    """Every architecture of it."""
    evaluator = TabularEvaluator(SMALL, small)
    answers = evaluator.evaluate(Queries.of(SMALL, list(SMALL.enumerate())))
    assert (answers.status == 0).all()


def test_a_table_of_another_space_is_refused(small: str) -> None:
    """The message names both."""
    with pytest.raises(TableError, match=r"a table of the space 'metaqnn', but 'nas_bench_201' is searched"):
        TabularEvaluator(CELLS, small)


CHANGES = {
    "max_depth": ({"max_depth": 2}, "{'max_depth': 1}"),
    "filters": ({"filters": (8, 16)}, r"{'filters': \[8\]}"),
    "pools": ({"pools": ((2, 2),)}, r"{'pools': \[\[5, 3\], \[3, 2\], \[2, 2\]\]}"),
    "kernel_rule": ({"kernel_rule": "released"}, "{'kernel_rule': 'paper'}"),
    "two": ({"max_depth": 2, "pool_first": True}, "{'max_depth': 1, 'pool_first': False}"),
}


@pytest.mark.parametrize(("changes", "message"), CHANGES.values(), ids=CHANGES)
def test_a_table_of_other_settings_is_refused(small: str, changes: dict[str, Any], message: str) -> None:
    """The same numbers would mean other architectures; the message names what differs and nothing else."""
    with pytest.raises(TableError, match=f"a table of metaqnn with {message}, but"):
        TabularEvaluator(replace(SMALL, **changes), small)


def test_a_table_without_settings_fits_a_space_without_settings(small_table: Path) -> None:
    """As the first tables are."""
    assert TabularEvaluator(CELLS, str(small_table)).space == CELLS


def test_a_setting_that_the_space_does_not_have_is_refused(tmp_path: Path) -> None:
    """A table of a later version may have one."""
    table = write(tmp_path / "later.parquet", SMALL, space_settings={**SMALL.settings, "strides": [1, 2]})
    with pytest.raises(TableError, match=r"with {'strides': \[1, 2\]}"):
        TabularEvaluator(SMALL, table)


def test_the_default_table_of_cells_is_digits() -> None:
    """The one that is packaged."""
    assert make_evaluator("tabular", CELLS).table.name == "digits"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a table under the name of the packaged one of the reduced MetaQNN space, which wins if it is there."""
    reduced = MetaQNNSpace(**REDUCED)
    (tmp_path / "tables").mkdir()
    write(tmp_path / "tables" / "metaqnn-digits.parquet", reduced, space_settings=reduced.settings)
    monkeypatch.setenv("NAS_GYM_DATA", str(tmp_path))


@pytest.mark.usefixtures("installed")
def test_the_default_table_of_chains_is_metaqnn_digits() -> None:
    """It is that of the reduced space."""
    assert make_evaluator("tabular", MetaQNNSpace(**REDUCED)).table.name == "metaqnn-digits"


@pytest.mark.usefixtures("installed")
def test_the_default_table_is_refused_for_other_settings() -> None:
    """The published space is not the reduced one."""
    with pytest.raises(TableError, match="'max_depth': 5"):
        make_evaluator("tabular", MetaQNNSpace())


def test_without_a_packaged_table_one_must_be_named() -> None:
    """The message says how, and which there are."""
    message = r"no table is packaged for the space 'blockqnn'; name one with table=, of: .*digits"
    with pytest.raises(InvalidArgument, match=message):
        make_evaluator("tabular", BlockQNNSpace())
