"""The packaged table: complete, small, as its metadata says, and trained as its metadata says."""

from __future__ import annotations

import numpy as np
import pytest

from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.search_spaces.core import Batch
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space
from nas_gym.tables.format import TABLES, Table, read_table


@pytest.fixture(scope="module")
def digits() -> Table:
    """Return the packaged table."""
    return read_table(TABLES["digits"])


def test_every_cell_is_there(digits: Table) -> None:
    """All 15,625 codes, in order."""
    assert digits.codes.tolist() == list(range(15_625))


def test_every_class_was_trained(digits: Table) -> None:
    """6,466 networks with at least three seeds each."""
    assert digits.metadata["classes_trained"] == 6_466
    assert digits.measurement("valid_accuracy").seeds >= 3


def test_file_is_small() -> None:
    """Less than four megabytes."""
    assert TABLES["digits"].stat().st_size < 4_000_000


def test_isomorphic_cells_share_their_accuracies(digits: Table) -> None:
    """Accuracies belong to the class; parameters to the cell."""
    space = NASBench201Space()
    representative = space.canonical_codes(Batch.of(space, list(space.enumerate())))
    for name in ("valid_accuracy", "test_accuracy", "train_seconds"):
        values = digits.columns[name]
        np.testing.assert_array_equal(values, values[representative])


def test_accuracies_are_counts_of_images(digits: Table) -> None:
    """No accuracy exceeds 1, and networks learned: the mean is far above the chance of a tenth."""
    for name in ("valid_accuracy", "test_accuracy"):
        values = digits.columns[name]
        assert values.min() >= 0
        assert values.max() <= digits.measurement(name).denominator
    assert digits.mean("valid_accuracy").mean() > 0.5


def test_cells_without_a_path_are_at_chance(digits: Table) -> None:
    """A cell of zeros cannot tell digits apart."""
    zero = NASBench201Space().code((0,) * 6)
    assert digits.mean("valid_accuracy")[zero] < 0.2


def test_parameters_match_the_networks(digits: Table) -> None:
    """Parameters and multiply-adds of random cells equal those of the networks built from the recipe."""
    pytest.importorskip("torch")
    from nas_gym.tables.build import BuildSpec, complexities

    spec = BuildSpec.from_json(digits.metadata)
    space = NASBench201Space()
    rng = np.random.default_rng(0)
    for _ in range(20):
        encoding = space.sample(rng)
        code = space.code(encoding)
        recorded = (int(digits.columns["parameters"][code, 0, 0]), int(digits.columns["multiply_adds"][code, 0, 0]))
        assert ([recorded[0]], [recorded[1]]) == complexities(spec, [encoding])


def test_a_row_trained_again_agrees(digits: Table) -> None:
    """Two random rows, trained from the recipe in the metadata, come out as recorded but for rounding."""
    pytest.importorskip("torch")
    from nas_gym.tables.verify import retrain_rows

    rows = list(retrain_rows(digits, 2, np.random.default_rng(0)))
    assert all(row.plausible for row in rows)


@pytest.mark.slow
def test_many_rows_trained_again_agree_on_average(digits: Table) -> None:
    """Over 100 rows, retraining is unbiased: the mean difference is within four standard errors."""
    pytest.importorskip("torch")
    from nas_gym.tables.verify import retrain_rows

    rows = list(retrain_rows(digits, 100, np.random.default_rng(1)))
    differences = np.array([row.recorded[-1] - row.retrained[-1] for row in rows])
    assert abs(differences.mean()) <= 4 * max(float(differences.std(ddof=1)), 1e-3) / 10


def test_default_environment_uses_it() -> None:
    """`NAS-Cell-v0` without arguments answers from this table."""
    import gymnasium

    import nas_gym  # noqa: F401 - registers the environments

    env = gymnasium.make("NAS-Cell-v0").unwrapped
    assert isinstance(env.evaluator, TabularEvaluator)  # type: ignore[attr-defined]
    assert env.evaluator.table.name == "digits"  # type: ignore[attr-defined]


def test_reported_quality_is_plausible(digits: Table) -> None:
    """Seeds agree with each other, validation with test, and the best are not all tied."""
    from nas_gym.tables.quality import quality

    found = quality(digits)
    assert found.split_half is not None
    assert found.split_half[1.0] > 0.7
    assert found.valid_test[1.0] > 0.85
    assert 1 <= found.tied_classes < found.classes // 20
