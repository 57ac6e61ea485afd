"""Real trainings on the digits, small enough for a test: every answer is stored, whatever happens to a child."""

from __future__ import annotations

import copy
import dataclasses
import gc
import inspect
import json
import math
import multiprocessing
import pickle  # noqa: TID251 - evaluators travel to the processes of vector environments
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import faulty_networks
import numpy as np
import pytest
import torch
from faulty_networks import FLAG, FaultSpace, encoding

from nas_gym.errors import FidelityError, InvalidArgument, StoreError, UnknownName
from nas_gym.evaluators import Evaluation, Queries, Status
from nas_gym.evaluators import training as training_module
from nas_gym.evaluators.core import stream_key
from nas_gym.evaluators.cost import CostEvaluator
from nas_gym.evaluators.latency import LocalLatency
from nas_gym.evaluators.limits import Limits
from nas_gym.evaluators.store import EvaluationStore
from nas_gym.evaluators.stored import StoredEvaluation
from nas_gym.evaluators.training import SETTINGS, TrainingEvaluator, training_evaluator
from nas_gym.networks.recipe import Recipe
from nas_gym.search_spaces import Batch, Encoding
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

pytestmark = pytest.mark.usefixtures("one_thread")
"""Compute with one thread, as workers do."""

space = NASBench201Space()
CELL: Encoding = space.canonical((3, 1, 2, 1, 4, 1))
OTHER: Encoding = space.canonical((2, 1, 1, 4, 1, 3))
EMPTY: Encoding = (0,) * 6
CHANCE = 0.1
TINY = {"channels": 4, "cells_per_stage": 1, "stages": 2, "reduction": "pooling"}
SIZES = {"skeleton": TINY}


def evaluator(**settings: Any) -> TrainingEvaluator:
    """Return a new evaluator of small networks, in this process."""
    return training_evaluator(space, **{"sizes": SIZES, "workers": 0, "epochs": 2, "device": "cpu", **settings})


def untimed(answer: Evaluation) -> dict[str, float]:
    """Return the metrics that do not depend on the speed and the memory of the machine."""
    measured = ("train_seconds", "peak_memory_bytes", "latency_seconds")
    return {name: value for name, value in answer.metrics.items() if name not in measured}


def key_of(one: TrainingEvaluator, architecture: Encoding, epochs: int = 2) -> Any:
    """Return what the first training of an architecture is called in the store."""
    return one.key(architecture, epochs, stream_key(0, architecture, 0))


def is_over_limit(answer: Evaluation) -> bool:
    """Tell whether a network was refused."""
    return answer.status is Status.OVER_LIMIT


# --- learning --------------------------------------------------------------------------------------


def test_training_learns_better_than_chance() -> None:
    """A network of eight channels is right more than thrice as often as chance after three epochs."""
    answer = evaluator(epochs=3, sizes={"skeleton": {**TINY, "channels": 8}}).evaluate_one(CELL)
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
    expected = CostEvaluator(space, (1, 8, 8), 10, **SIZES).evaluate_one(CELL).metrics
    metrics = evaluator().evaluate_one(CELL).metrics
    names = ("parameters", "multiply_adds")
    assert [metrics[name] for name in names] == [expected[name] for name in names]


def test_the_cost_is_the_time_of_the_training() -> None:
    """All of it, and nothing besides."""
    answer = evaluator().evaluate_one(CELL)
    assert answer.cost_seconds == pytest.approx(answer.metrics["train_seconds"], rel=0.1)


def test_every_metric_is_measured() -> None:
    """None is NaN."""
    answer = evaluator(latency="local:warm_up=0,repeats=1").evaluate_one(CELL)
    assert [name for name, value in answer.metrics.items() if math.isnan(value)] == []


def test_the_latency_is_a_metric_where_it_is_asked_for() -> None:
    """And nowhere else."""
    found = ["latency_seconds" in one.search_metrics for one in (evaluator(), evaluator(latency="local"))]
    assert found == [False, True]


def test_the_default_recipe_is_that_of_the_packaged_table() -> None:
    """Six epochs."""
    assert TrainingEvaluator(space).fidelities == (1, 6)


def test_nothing_is_loaded_or_started_by_the_constructor(tmp_path: Path) -> None:
    """Creating an evaluator is cheap, so an environment can be made without the data."""
    one = evaluator(workers=2, store=str(tmp_path / "store.sqlite"))
    assert not {"dataset", "store", "workers"} & set(vars(one))
    assert list(tmp_path.iterdir()) == []


# --- fidelity --------------------------------------------------------------------------------------


def test_a_higher_fidelity_trains_only_the_missing_epochs() -> None:
    """It continues from the checkpoint of the lower one."""
    one = evaluator(epochs=4)
    trained = []
    for fidelity in (1, 3, 4):
        one.evaluate_one(CELL, fidelity)
        trained.append(one.trained_epochs)
    assert trained == [1, 3, 4]


def test_a_continued_training_equals_an_uninterrupted_one() -> None:
    """In everything but time."""
    one = evaluator(epochs=4)
    one.evaluate_one(CELL, 1)
    assert untimed(one.evaluate_one(CELL, 4)) == untimed(evaluator(epochs=4).evaluate_one(CELL, 4))


def test_a_lost_checkpoint_costs_time_only() -> None:
    """The training begins at the beginning, and counts as such."""
    one = evaluator()
    artifact = one.evaluate_one(CELL, 1).artifact
    assert artifact is not None
    path = one.store.artifact_path(artifact)
    assert path is not None
    path.write_bytes(b"damaged")
    assert untimed(one.evaluate_one(CELL)) == untimed(evaluator().evaluate_one(CELL))
    assert one.trained_epochs == 3


def test_a_low_fidelity_is_answered_from_the_curve_of_a_full_training() -> None:
    """Nothing is trained for it."""
    one = evaluator()
    one.evaluate_one(CELL)
    one.evaluate_one(CELL, 1)
    assert one.trained_epochs == 2


def test_an_answer_from_a_curve_equals_a_training() -> None:
    """In everything but time."""
    one = evaluator()
    one.evaluate_one(CELL)
    assert untimed(one.evaluate_one(CELL, 1)) == untimed(evaluator().evaluate_one(CELL, 1))


def test_an_answer_from_a_curve_costs_what_its_epochs_had_cost() -> None:
    """Less than the full training."""
    one = evaluator()
    full, low = one.evaluate_one(CELL), one.evaluate_one(CELL, 1)
    assert 0 < low.cost_seconds == low.metrics["train_seconds"] < full.cost_seconds


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
    """After `reset_repeats` the first training comes again, from the store."""
    one = evaluator()
    before = one.evaluate_one(CELL)
    one.reset_repeats()
    assert (one.evaluate_one(CELL), one.trained_epochs) == (before, 2)


def test_recalled_answers_count_as_repeats() -> None:
    """A resumed search goes on with the seed that is due."""
    one, resumed = evaluator(), evaluator()
    first, second = one.evaluate_one(CELL), one.evaluate_one(CELL)
    resumed.recall(CELL, None, first)
    assert untimed(resumed.evaluate_one(CELL)) == untimed(second)


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


# --- the store -------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return where a store can be."""
    return str(tmp_path / "store.sqlite")


def test_a_stored_answer_is_not_trained_again(path: str) -> None:
    """A second evaluator gives the first one's answers, times included."""
    first = evaluator(store=path)
    given = first.evaluate(Queries.of(space, [CELL, OTHER, CELL]))
    first.close()
    second = evaluator(store=path)
    again = second.evaluate(Queries.of(space, [CELL, OTHER, CELL]))
    assert [again.row(index) for index in range(3)] == [given.row(index) for index in range(3)]
    assert second.trained_epochs == 0


def test_a_permanent_failure_is_not_trained_again(path: str) -> None:
    """A network that cannot be built never can."""
    sizes = {"skeleton": {**TINY, "stages": 5}}
    first = evaluator(store=path, sizes=sizes)
    given = first.evaluate_one(CELL)
    second = evaluator(store=path, sizes=sizes)
    assert second.evaluate_one(CELL).message == given.message
    assert "workers" not in vars(second)


CHANGES: dict[str, dict[str, Any]] = {
    "recipe": {"learning_rate": 0.05},
    "sizes": {"sizes": {"skeleton": {**TINY, "channels": 5}}},
    "seed": {"evaluation_seed": 1},
    "data": {"subset": 100},
    "builder": {"builder": "nas_gym.networks.nas_bench_201:build"},
    "reference": {"reference": "reference_networks:small"},
    "latency": {"latency": "local:warm_up=0,repeats=1"},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_another_training_is_not_answered_from_the_store(changes: dict[str, Any], path: str) -> None:
    """Everything that decides an answer is part of its key."""
    evaluator(store=path).evaluate_one(CELL)
    other = evaluator(store=path, **changes)
    other.evaluate_one(CELL)
    assert other.trained_epochs == 2


def test_an_answer_is_in_the_store_before_it_is_given(path: str) -> None:
    """With its curve, its machine and its versions."""
    one = evaluator(store=path)
    one.evaluate_one(CELL)
    stored = EvaluationStore.existing(path).get(key_of(one, CELL))
    assert stored is not None
    assert (len(stored.curve["valid_accuracy"]), set(stored.versions)) == (2, {"nas-gym", "torch", "numpy"})


def test_an_answer_that_cannot_be_stored_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks again, when there is room, gets it."""
    one = evaluator()

    def full(*arguments: object) -> None:
        raise StoreError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(EvaluationStore, "put", full)
        with pytest.raises(StoreError, match="no space left"):
            one.evaluate_one(CELL)
    one.reset_repeats()
    assert one.evaluate_one(CELL).status is Status.OK


def test_a_store_of_the_caller_is_left_open(path: str) -> None:
    """The evaluator closes what it opened."""
    with EvaluationStore(path) as store:
        one = TrainingEvaluator(space, recipe=Recipe(epochs=1), sizes=SIZES, workers=0, store=store)
        one.evaluate_one(CELL)
        one.close()
        assert store._connection is not None


def test_a_temporary_store_is_removed() -> None:
    """With the evaluator."""
    one = evaluator()
    folder = one.store.path.parent
    del one
    gc.collect()
    assert not folder.exists()


PROGRAM = """
import sys
import torch
from nas_gym.evaluators.training import training_evaluator
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space
torch.set_num_threads(1)
one = training_evaluator(NASBench201Space(), sizes={sizes!r}, epochs=2, workers=0, device="cpu", store={path!r})
print([one.evaluate_one(cell).metrics["valid_accuracy"] for cell in {cells!r}])
"""


def test_two_processes_share_a_store(path: str) -> None:
    """At the same time; afterwards nothing is left to train, and all agree."""
    cells = [CELL, OTHER, EMPTY]
    program = PROGRAM.format(sizes=SIZES, path=path, cells=cells)
    started = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [json.loads(process.communicate(timeout=120)[0]) for process in started]
    one = evaluator(store=path)
    answers = [one.evaluate_one(cell).metrics["valid_accuracy"] for cell in cells]
    assert (printed, one.trained_epochs) == ([answers, answers], 0)


# --- limits ----------------------------------------------------------------------------------------


def test_a_network_over_a_limit_is_never_trained() -> None:
    """The message names metric, value and limit."""
    one = evaluator(max_parameters=100)
    answer = one.evaluate_one(CELL)
    assert (is_over_limit(answer), one.trained_epochs) == (True, 0)
    assert answer.message == "parameters is 1,046, over the limit max_parameters = 100"


def test_a_refusal_is_stored(path: str) -> None:
    """Under the same limits nothing is built again."""
    evaluator(store=path, max_parameters=100).evaluate_one(CELL)
    again = evaluator(store=path, max_parameters=100)
    assert (is_over_limit(again.evaluate_one(CELL)), "workers" in vars(again)) == (True, False)


def test_a_raised_limit_trains(path: str) -> None:
    """A refusal holds for its limits only."""
    evaluator(store=path, max_parameters=100).evaluate_one(CELL)
    raised = evaluator(store=path, max_parameters=10_000)
    assert (raised.evaluate_one(CELL).status, raised.trained_epochs) == (Status.OK, 2)


def test_a_stored_answer_may_be_over_a_lower_limit(path: str) -> None:
    """It is refused, and stays an answer for those without the limit."""
    evaluator(store=path).evaluate_one(CELL)
    lowered, unlimited = evaluator(store=path, max_parameters=100), evaluator(store=path)
    statuses = [one.evaluate_one(CELL).status for one in (lowered, unlimited)]
    assert (statuses, lowered.trained_epochs, unlimited.trained_epochs) == ([Status.OVER_LIMIT, Status.OK], 0, 0)


def test_a_network_that_is_too_slow_is_never_trained() -> None:
    """Its latency is measured first."""
    one = evaluator(latency="local:warm_up=0,repeats=1", max_latency_ms=1e-6)
    answer = one.evaluate_one(CELL)
    assert (is_over_limit(answer), one.trained_epochs) == (True, 0)
    assert answer.message.startswith("latency_seconds in ms is ")


# --- reports ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reported() -> tuple[TrainingEvaluator, dict[str, float]]:
    """Return an evaluator that has trained a cell, and the report on it."""
    torch.set_num_threads(1)
    one = evaluator()
    one.evaluate_one(CELL)
    return one, one.report(CELL)


def test_a_report_has_all_metrics(reported: tuple[TrainingEvaluator, dict[str, float]]) -> None:
    """Those of the test included."""
    one, report = reported
    assert set(report) == set(one.metrics)
    assert 0 < report["test_accuracy"] <= 1


def test_a_report_is_a_training_of_its_own(reported: tuple[TrainingEvaluator, dict[str, float]]) -> None:
    """With a seed that no search has, at full length."""
    one, report = reported
    assert one.trained_epochs == 4
    stored = one.store.get(key_of(one, CELL))
    assert stored is not None
    assert (stored.held_out, stored.metrics["train_seconds"] == report["train_seconds"]) == ({}, False)


def test_a_report_is_stored(reported: tuple[TrainingEvaluator, dict[str, float]]) -> None:
    """Asked again, it is the same, and nothing is trained."""
    one, report = reported
    assert (one.report(CELL), one.trained_epochs) == (report, 4)


def test_a_search_never_sees_the_test_scores() -> None:
    """Only the other metrics come back."""
    assert not [name for name in evaluator().evaluate_one(CELL).metrics if name.startswith("test_")]


def test_a_report_on_a_failure_has_no_numbers() -> None:
    """Held-out scores included."""
    report = evaluator(learning_rate=1e12).report(CELL)
    assert all(math.isnan(value) for value in report.values())


# --- faults ----------------------------------------------------------------------------------------

RETRIES = 1
TRAIN_SECONDS = 2.0


class Faults(NamedTuple):
    """What became of every fault."""

    one: TrainingEvaluator
    answers: dict[str, Evaluation]

    def stored(self, name: str) -> StoredEvaluation | None:
        """Return the permanent answer."""
        return self.one.store.get(key_of(self.one, encoding(name), 1))

    def failures(self, name: str) -> list[StoredEvaluation]:
        """Return the transient failures."""
        return self.one.store.failures(key_of(self.one, encoding(name), 1))


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    """Return the answers of two workers to all faults at once, and to a sound network afterwards."""
    folder = tmp_path_factory.mktemp("faults")
    one = training_evaluator(
        FaultSpace(),
        epochs=1,
        batch_size=10,
        subset=200,
        workers=2,
        device="cpu",
        retries=RETRIES,
        store=str(folder / "store.sqlite"),
        max_train_seconds=TRAIN_SECONDS,
        builder="faulty_networks:build",
    )
    names = [name for name in faulty_networks.NAMES if name != "sound"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_module, "_HARD_TIMEOUT", (1.0, 1.0))
        patch.setenv(FLAG, str(folder / "flag"))
        answers = one.evaluate(Queries.of(one.space, [encoding(name) for name in [*names, "sound"]]))
    yield Faults(one, {name: answers.row(index) for index, name in enumerate([*names, "sound"])})
    one.close()


FAILURES = {
    "unbuildable": (Status.BUILD_ERROR, "ValueError: no such layer"),
    "broken": (Status.CRASHED, "ValueError: the layers do not fit"),
    "greedy": (Status.OUT_OF_MEMORY, "can't allocate memory"),
    "diverging": (Status.DIVERGED, "the training loss is nan in epoch 1"),
    "slow": (Status.TIMEOUT, "the time was up in epoch 1"),
    "hanging": (Status.TIMEOUT, "longer than its limit of 3 s"),
    "killed": (Status.KILLED, "ended by signal 9"),
    "segfault": (Status.CRASHED, "ended by signal 11"),
}
TRANSIENT = ("broken", "greedy", "slow", "hanging", "killed", "segfault")
TRACEBACKS = {"unbuildable": "in build", "broken": "in broken", "hanging": "in hanging", "segfault": "in segfault"}


@pytest.mark.parametrize(("name", "status", "message"), [(n, *row) for n, row in FAILURES.items()], ids=FAILURES)
def test_a_failure_is_data(faults: Faults, name: str, status: Status, message: str) -> None:
    """It has a status, a reason and no numbers."""
    answer = faults.answers[name]
    assert (answer.status, message in answer.message) == (status, True)
    assert all(math.isnan(value) for value in answer.metrics.values())
    assert answer.cost_seconds >= 0


@pytest.mark.parametrize("name", TRANSIENT)
def test_a_transient_failure_is_no_answer(faults: Faults, name: str) -> None:
    """It is kept, but the next one who asks gets a training."""
    assert faults.stored(name) is None
    assert faults.failures(name)[-1].message == faults.answers[name].message


@pytest.mark.parametrize("name", ["unbuildable", "diverging"])
def test_a_permanent_failure_is_an_answer(faults: Faults, name: str) -> None:
    """Nobody needs to try again."""
    stored = faults.stored(name)
    assert stored is not None
    assert (stored.message, faults.failures(name)) == (faults.answers[name].message, [])


@pytest.mark.parametrize(("name", "text"), TRACEBACKS.items(), ids=TRACEBACKS)
def test_a_traceback_is_kept(faults: Faults, name: str, text: str) -> None:
    """It leads to the fault, even after a fatal signal."""
    stored = faults.stored(name) or faults.failures(name)[-1]
    assert text in stored.traceback


@pytest.mark.parametrize("name", TRANSIENT)
def test_what_may_lie_outside_the_network_is_tried_again(faults: Faults, name: str) -> None:
    """A child that was killed or out of memory, as often as allowed; no other."""
    attempts = 1 + RETRIES if name in ("greedy", "killed") else 1
    assert len(faults.failures(name)) == attempts


def test_a_child_killed_once_is_an_answer(faults: Faults) -> None:
    """The second attempt counts, the first is kept."""
    assert faults.answers["killed_once"].status is Status.OK
    assert [failure.status for failure in faults.failures("killed_once")] == [Status.KILLED]


def test_an_evaluator_goes_on_after_all_faults(faults: Faults) -> None:
    """The last child of the batch is trained, as in a process without faults."""
    settings = {"epochs": 1, "batch_size": 10, "subset": 200, "workers": 0, "device": "cpu"}
    alone = training_evaluator(FaultSpace(), builder="faulty_networks:build", **settings)
    assert untimed(faults.answers["sound"]) == untimed(alone.evaluate_one(encoding("sound")))


def test_a_network_too_small_for_its_data_is_data() -> None:
    """Images of 8x8 cannot be halved four times."""
    answer = evaluator(sizes={"skeleton": {**TINY, "stages": 5}}).evaluate_one(CELL)
    assert (answer.status, "too small for 5 stages" in answer.message) == (Status.BUILD_ERROR, True)


# --- workers ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parallel() -> Iterator[TrainingEvaluator]:
    """Return an evaluator with two workers that are ready."""
    one = evaluator(workers=2)
    one.workers.warm_up()
    yield one
    one.close()


def collect_all(one: TrainingEvaluator, count: int) -> list[tuple[int, Evaluation]]:
    """Collect so many answers."""
    found: list[tuple[int, Evaluation]] = []
    while len(found) < count:
        ready = one.collect()
        assert ready
        found += ready
    return found


def test_workers_give_the_same_answers(parallel: TrainingEvaluator) -> None:
    """As many as there are, as this process."""
    cells = [CELL, OTHER, EMPTY, (3,) * 6]
    parallel.reset_repeats()
    found, expected = (one.evaluate(Queries.of(space, cells)) for one in (parallel, evaluator()))
    assert [untimed(found.row(index)) for index in range(4)] == [untimed(expected.row(index)) for index in range(4)]


def test_submitted_trainings_are_collected_as_they_end(parallel: TrainingEvaluator) -> None:
    """Stored ones at once, before those that were submitted earlier."""
    parallel.evaluate_one(CELL)
    parallel.reset_repeats()
    cells = [(2,) * 6, CELL]
    tickets = [parallel.submit(cell) for cell in cells]
    assert [ticket for ticket, _ in collect_all(parallel, 2)] == tickets[::-1]


def test_tickets_belong_to_their_answers(parallel: TrainingEvaluator) -> None:
    """Whatever the order in which the trainings end."""
    cells = [(3, 3, 3, 3, 3, 2), EMPTY, (0, 0, 0, 1, 0, 0), (2, 2, 2, 2, 2, 3)]
    parallel.reset_repeats()
    tickets = [parallel.submit(cell) for cell in cells]
    found = dict(collect_all(parallel, 4))
    one = evaluator()
    assert [untimed(found[ticket]) for ticket in tickets] == [untimed(one.evaluate_one(cell)) for cell in cells]


def test_identical_queries_in_flight_are_trained_once(parallel: TrainingEvaluator) -> None:
    """Everybody who asked gets the answer."""
    before = parallel.trained_epochs
    tickets = []
    for _ in range(3):
        parallel.reset_repeats()
        tickets.append(parallel.submit((1, 2, 3, 2, 3, 1)))
    found = dict(collect_all(parallel, 3))
    assert len({found[ticket].cost_seconds for ticket in tickets}) == 1
    assert parallel.trained_epochs - before == 2


def test_waiting_for_one_answer_keeps_the_others(parallel: TrainingEvaluator) -> None:
    """They can be collected afterwards."""
    ticket = parallel.submit((3, 2, 1, 3, 2, 1))
    parallel.evaluate_one((3, 1, 1, 3, 1, 1))
    assert [found for found, _ in collect_all(parallel, 1)] == [ticket]


def test_collecting_waits_no_longer_than_it_is_told(parallel: TrainingEvaluator) -> None:
    """Nothing has ended at once."""
    parallel.submit((3, 3, 1, 3, 3, 1))
    found = parallel.collect(0)
    collect_all(parallel, 1)
    assert found == []


def test_collecting_without_a_limit_waits_for_an_answer() -> None:
    """The measurement before the training is none."""
    one = evaluator(latency="local:warm_up=0,repeats=1")
    ticket = one.submit(CELL)
    assert [found for found, _ in one.collect()] == [ticket]


def test_collecting_when_nothing_was_submitted_returns_nothing() -> None:
    """It does not wait."""
    assert evaluator().collect() == []


def test_a_closed_evaluator_leaves_no_processes(parallel: TrainingEvaluator) -> None:
    """Children in flight included."""
    parallel.reset_repeats()
    parallel.submit((2, 3, 2, 3, 2, 3))
    others = set(multiprocessing.active_children())
    started = {worker.process for worker in parallel.workers._crew.values()}
    parallel.close()
    assert set(multiprocessing.active_children()) == others - started


def test_a_closed_evaluator_begins_anew() -> None:
    """Closing twice is harmless, and so is asking afterwards."""
    one = evaluator()
    before = untimed(one.evaluate_one(CELL))
    one.close()
    one.close()
    one.reset_repeats()
    assert untimed(one.evaluate_one(CELL)) == before


@pytest.mark.parametrize(
    "duplicate", [lambda one: pickle.loads(pickle.dumps(one)), copy.deepcopy], ids=["pickled", "copied"]
)
def test_a_copy_goes_on_where_the_evaluator_was(duplicate: Any, path: str) -> None:
    """With a store, workers and data of its own, and the repeats so far."""
    one = evaluator(store=path)
    one.evaluate_one(CELL)
    twin = duplicate(one)
    assert not {"dataset", "store", "workers"} & set(vars(twin))
    assert untimed(twin.evaluate_one(CELL)) == untimed(one.evaluate_one(CELL))


# --- settings --------------------------------------------------------------------------------------

VALUES: dict[str, Any] = {
    "dataset": "digits",
    "image_size": 8,
    "subset": 100,
    "split_seed": 1,
    "valid_share": 0.2,
    "resampling": "area",
    "train_images": None,
    "valid_images": None,
    "test_images": None,
    **{field.name: field.default for field in dataclasses.fields(Recipe)},
    **{field.name: 1000.0 for field in dataclasses.fields(Limits)},
    "latency": "local",
    "latency_batch": 2,
    "resident_mb": 10,
    "evaluation_seed": 1,
    "workers": 2,
    "device": "cpu",
    "children_per_gpu": 2,
    "store": "store.sqlite",
    "retries": 0,
    "builder": "faulty_networks:build",
    "reference": "reference_networks:small",
}


def test_every_setting_is_accepted() -> None:
    """All of them at once, as JSON scalars."""
    assert set(VALUES) == set(SETTINGS)
    assert training_evaluator(space, SIZES, **json.loads(json.dumps(VALUES))).slots == 2


def test_every_argument_of_the_evaluator_is_a_setting() -> None:
    """The structured ones by their fields."""
    structured = {"self", "space", "recipe", "sizes", "limits", "resident_bytes"}
    assert set(inspect.signature(TrainingEvaluator.__init__).parameters) - structured <= set(SETTINGS)


def test_what_is_none_is_left_at_its_default() -> None:
    """As environments pass it."""
    one = training_evaluator(space, **dict.fromkeys(SETTINGS))
    assert (one.recipe, one.limits, one.latency, one.slots) == (Recipe(), Limits(), None, 1)


def test_a_setting_reaches_its_place() -> None:
    """One of each kind."""
    one = evaluator(subset=100, learning_rate=0.5, max_parameters=7, latency="local", latency_batch=3, resident_mb=2)
    latency = LocalLatency(batch=3)
    found = (one.task.source.subset, one.recipe.learning_rate, one.limits.max_parameters, one.latency)
    assert (*found, one.task.resident_bytes) == (100, 0.5, 7, latency, 2e6)


def test_an_unknown_setting_is_refused() -> None:
    """With the nearest name."""
    with pytest.raises(UnknownName, match=r"unknown setting of the training 'epoch'\. Did you mean 'epochs'"):
        evaluator(epoch=3)


def test_an_unknown_data_set_is_refused_by_the_constructor() -> None:
    """A typo does not wait for the first training."""
    with pytest.raises(UnknownName, match=r"unknown data set 'digit'\. Did you mean 'digits'"):
        evaluator(dataset="digit")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "workers below 0": ({"workers": -1}, "workers must be an integer of at least 0, got -1"),
    "workers no integer": ({"workers": 1.5}, "workers must be an integer of at least 0, got 1.5"),
    "workers a truth value": ({"workers": True}, "workers must be an integer of at least 0, got True"),
    "retries": ({"retries": -1}, "retries must be an integer of at least 0, got -1"),
    "children_per_gpu": ({"children_per_gpu": 0}, "children_per_gpu must be an integer of at least 1, got 0"),
    "evaluation_seed": ({"evaluation_seed": -1}, "evaluation_seed must be an integer of at least 0, got -1"),
    "device": ({"device": "abacus"}, "device must be 'auto', 'cpu', 'cuda' or 'cuda:<number>', got 'abacus'"),
    "device of torch": ({"device": "meta"}, "device must be 'auto', 'cpu', 'cuda' or 'cuda:<number>', got 'meta'"),
    "limit": ({"max_parameters": 0}, "max_parameters must be a positive number or None, got 0"),
    "latency limit": ({"max_latency_ms": 5.0}, "max_latency_ms needs latency"),
    "latency": ({"latency": "locally"}, "cannot read the latency 'locally'"),
    "latency_batch": ({"latency": "local", "latency_batch": 0}, "latency_batch must be an integer of at least 1"),
    "resident_mb": ({"resident_mb": -1}, "resident_mb must be a number of at least 0, got -1"),
    "recipe": ({"epochs": 0}, "epochs must be an integer of at least 1, got 0"),
    "builder": ({"builder": "no_such_module:build"}, "the builder 'no_such_module:build' cannot be imported"),
    "reference": ({"reference": "no_such_module:build"}, "the reference 'no_such_module:build' cannot be imported"),
    "builder's name": ({"builder": "faulty_networks:builds"}, "has no attribute 'builds'"),
}


@pytest.mark.parametrize(("settings", "message"), BAD.values(), ids=BAD)
def test_a_bad_value_is_refused(settings: dict[str, Any], message: str) -> None:
    """By the constructor, with what is allowed."""
    with pytest.raises(InvalidArgument) as caught:
        evaluator(**settings)
    assert message in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_missing_device_is_refused(device: str) -> None:
    """With what could be used instead."""
    with pytest.raises(InvalidArgument, match="this machine has no CUDA device; use 'cpu' or 'auto'"):
        evaluator(device=device)
