"""Real trainings on the digits, small enough for a test."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from nas_gym.datasets import digits
from nas_gym.errors import FidelityError, UnknownName
from nas_gym.evaluators import Evaluation, Queries, Status
from nas_gym.evaluators import training as training_module
from nas_gym.evaluators.core import stream_key
from nas_gym.evaluators.cost import CostEvaluator
from nas_gym.evaluators.training import DeviceData, Diverged, Training, TrainingEvaluator, train_network
from nas_gym.networks.fit import Recipe
from nas_gym.networks.nas_bench_201 import Skeleton
from nas_gym.search_spaces import Batch, Encoding
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

space = NASBench201Space()
CELL: Encoding = (3, 1, 2, 1, 4, 1)
OTHER: Encoding = (2, 1, 1, 4, 1, 3)
EMPTY: Encoding = (0,) * 6
CHANCE = 0.1
TINY = Skeleton(channels=4, cells_per_stage=1, stages=2, reduction="pooling")
DIVERGING = Recipe(epochs=1, learning_rate=1e12)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with one thread, as workers do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def evaluator(recipe: Recipe | None = None, skeleton: Skeleton = TINY, evaluation_seed: int = 0) -> TrainingEvaluator:
    """Return a new evaluator of small networks."""
    return TrainingEvaluator(
        space, recipe=recipe or Recipe(epochs=2), evaluation_seed=evaluation_seed, skeleton=skeleton
    )


def untimed(answer: Evaluation) -> dict[str, float]:
    """Return the metrics that do not depend on the speed of the machine."""
    return {name: value for name, value in answer.metrics.items() if name != "train_seconds"}


# --- learning --------------------------------------------------------------------------------------


def test_training_learns_better_than_chance() -> None:
    """A network of eight channels is right more than thrice as often as chance after three epochs."""
    answer = evaluator(Recipe(epochs=3), Skeleton(8, 1, 2, "pooling")).evaluate_one(CELL)
    assert answer.status is Status.OK
    assert answer.metrics["valid_accuracy"] > 3 * CHANCE


def test_a_network_that_ignores_the_image_stays_at_chance() -> None:
    """Without any operation nothing can be learned but the frequencies."""
    assert evaluator().evaluate_one(EMPTY).metrics["valid_accuracy"] == pytest.approx(CHANCE, abs=0.02)


def test_accuracy_is_a_number_of_validation_images() -> None:
    """A fraction of 650."""
    correct = evaluator().evaluate_one(CELL).metrics["valid_accuracy"] * 650
    assert correct == pytest.approx(round(correct), abs=1e-9)


def test_size_and_computation_are_those_of_the_network() -> None:
    """They equal what the cost evaluator counts."""
    expected = CostEvaluator(space, (1, 8, 8), 10, skeleton=TINY).evaluate_one(space.canonical(CELL)).metrics
    metrics = evaluator().evaluate_one(CELL).metrics
    assert [metrics[name] for name in ("parameters", "multiply_adds")] == [
        expected[name] for name in ("parameters", "multiply_adds")
    ]


def test_the_cost_is_the_processor_time_of_the_training() -> None:
    """And it is a metric, too."""
    answer = evaluator().evaluate_one(CELL)
    assert 0 < answer.cost_seconds == answer.metrics["train_seconds"]


def test_the_default_recipe_is_that_of_the_packaged_table() -> None:
    """Six epochs."""
    assert TrainingEvaluator(space).fidelities == (1, 6)


def test_nothing_is_loaded_by_the_constructor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Creating an evaluator is cheap, so an environment can be made without the data."""

    def unavailable() -> None:
        raise AssertionError("the data set was loaded")

    monkeypatch.setattr("nas_gym.datasets.digits", unavailable)
    evaluator()


def test_an_unknown_data_set_is_refused_by_the_constructor() -> None:
    """A typo does not wait for the first training."""
    with pytest.raises(UnknownName, match=r"unknown data set 'digit'\. Did you mean 'digits'"):
        TrainingEvaluator(space, dataset="digit")


# --- fidelity --------------------------------------------------------------------------------------


def test_a_low_fidelity_is_a_prefix_of_the_full_training() -> None:
    """One epoch of a schedule of two is what the full training had after one epoch."""
    one = evaluator()
    low, full = one.evaluate_one(CELL, 1), one.evaluate_one(CELL, 2)
    canonical = space.canonical(CELL)
    data = DeviceData.of(digits())
    seed = stream_key(0, canonical, 0)
    curve = train_network(space, canonical, digits(), data, one.recipe, {"skeleton": TINY}, seed).valid_correct
    assert [round(answer.metrics["valid_accuracy"] * 650) for answer in (low, full)] == list(curve)


def test_a_low_fidelity_is_cheaper() -> None:
    """One epoch takes less time than six."""
    one = evaluator(Recipe(epochs=6))
    one.evaluate_one(CELL, 1)
    assert one.evaluate_one(CELL, 1).cost_seconds < one.evaluate_one(CELL, 6).cost_seconds


@pytest.mark.parametrize("fidelity", [0, 3])
def test_a_fidelity_beyond_the_recipe_is_refused(fidelity: int) -> None:
    """The message has the range."""
    with pytest.raises(FidelityError, match=f"from 1 to 2 epochs, got {fidelity}"):
        evaluator().evaluate_one(CELL, fidelity)


def test_a_batch_may_mix_fidelities() -> None:
    """Every row is trained for its own number of epochs."""
    batch = Batch.of(space, [CELL, OTHER, CELL])
    answer = evaluator().evaluate(Queries(batch, np.array([2, 1, 1])))
    single = evaluator()
    expected = [single.evaluate_one(*query) for query in [(CELL, 2), (OTHER, 1), (CELL, 1)]]
    assert [untimed(answer.row(index)) for index in range(3)] == [untimed(row) for row in expected]


# --- seeds -----------------------------------------------------------------------------------------


def test_the_same_seed_reproduces_itself() -> None:
    """Two evaluators agree in every repeat."""
    one, other = evaluator(), evaluator()
    assert [untimed(one.evaluate_one(CELL)) for _ in range(2)] == [untimed(other.evaluate_one(CELL)) for _ in range(2)]


def test_repeats_differ() -> None:
    """Repeating a query trains with another seed."""
    one = evaluator()
    assert len({one.evaluate_one(CELL).metrics["valid_accuracy"] for _ in range(4)}) > 1


def test_another_evaluation_seed_differs() -> None:
    """In at least one of four cells."""
    encodings = [CELL, OTHER, (3,) * 6, (2,) * 6]
    one, other = (
        [evaluator(evaluation_seed=seed).evaluate_one(cell).metrics["valid_accuracy"] for cell in encodings]
        for seed in (0, 1)
    )
    assert one != other


def test_forgetting_the_repeats_replays_the_seeds() -> None:
    """After `reset_repeats` the first training comes again."""
    one = evaluator()
    before = untimed(one.evaluate_one(CELL))
    one.reset_repeats()
    assert untimed(one.evaluate_one(CELL)) == before


def test_an_answer_does_not_depend_on_the_order() -> None:
    """The seeds are keyed by the cell, not by its place."""
    forwards = evaluator().evaluate(Queries.of(space, [CELL, OTHER]))
    backwards = evaluator().evaluate(Queries.of(space, [OTHER, CELL]))
    assert untimed(forwards.row(0)) == untimed(backwards.row(1))


def test_isomorphic_cells_are_one_network() -> None:
    """The canonical representative is trained, whichever cell was asked for."""
    isomorphic = (3, 4, 0, 0, 1, 0)
    assert space.canonical(isomorphic) != isomorphic
    answers = [evaluator().evaluate_one(cell) for cell in (isomorphic, space.canonical(isomorphic))]
    assert untimed(answers[0]) == untimed(answers[1])


# --- reports ---------------------------------------------------------------------------------------


def test_a_report_has_the_test_accuracy() -> None:
    """Of a training with a seed of its own."""
    report = evaluator().report(CELL)
    assert set(report) == set(TrainingEvaluator.metrics)
    assert 0 < report["test_accuracy"] <= 1


def test_a_search_never_sees_the_test_accuracy() -> None:
    """Only the other metrics come back."""
    assert "test_accuracy" not in evaluator().evaluate_one(CELL).metrics


# --- failures --------------------------------------------------------------------------------------


def assert_failed(answer: Evaluation, status: Status, message: str) -> None:
    """Assert that a failure came back as data: a status, a reason and no numbers."""
    assert answer.status is status
    assert message in answer.message
    assert answer.cost_seconds >= 0
    assert set(answer.metrics) == set(evaluator().search_metrics)
    assert all(math.isnan(value) for value in answer.metrics.values())


def test_a_diverging_training_is_data() -> None:
    """A learning rate of 1e12 ends in a loss that is no number."""
    assert_failed(evaluator(DIVERGING).evaluate_one(CELL), Status.DIVERGED, "the training loss is nan in epoch 1")


def test_a_diverging_report_has_no_numbers() -> None:
    """Held-out accuracy included."""
    report = evaluator(DIVERGING).report(CELL)
    assert all(math.isnan(value) for value in report.values())


def test_a_network_that_cannot_be_built_is_data() -> None:
    """Images of 8x8 cannot be halved four times."""
    answer = evaluator(skeleton=Skeleton(4, 1, 5, "pooling")).evaluate_one(CELL)
    assert_failed(answer, Status.BUILD_ERROR, "too small for 5 stages")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (lambda: RuntimeError("an operation failed"), Status.CRASHED),
        (lambda: ValueError("expected more than 1 value per channel"), Status.CRASHED),
        (lambda: MemoryError("no memory left"), Status.OUT_OF_MEMORY),
    ],
    ids=["RuntimeError", "ValueError", "MemoryError"],
)
def test_a_training_that_breaks_is_data(
    monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception], status: Status
) -> None:
    """Whatever torch raises becomes a status with its message."""

    def broken(*arguments: object) -> None:
        raise error()

    monkeypatch.setattr(training_module, "train_network", broken)
    assert_failed(evaluator().evaluate_one(CELL), status, str(error()))


def test_a_failure_in_a_batch_stays_in_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other rows are trained."""

    def broken_for_one(of: NASBench201Space, encoding: Encoding, *rest: object) -> Training:
        if encoding == space.canonical(OTHER):
            raise Diverged("the training loss is inf in epoch 1")
        return train_network(of, encoding, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(training_module, "train_network", broken_for_one)
    answer = evaluator().evaluate(Queries.of(space, [CELL, OTHER, EMPTY]))
    assert answer.status.tolist() == [Status.OK, Status.DIVERGED, Status.OK]
    assert set(answer.messages) == {1}
