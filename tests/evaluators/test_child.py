"""A child in this process: the same steps in whatever pieces, and an answer whatever happens."""

from __future__ import annotations

import dataclasses
import math
import pickle  # noqa: TID251 - jobs and answers travel between processes
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faulty_networks import FaultSpace, encoding

from nas_gym.datasets import Source, digits
from nas_gym.evaluators import child as child_module
from nas_gym.evaluators.child import (
    BuildFailed,
    ChildResult,
    ChildTask,
    ChildWorker,
    Diverged,
    Inspection,
    OverLimit,
    TrainingJob,
    classify,
)
from nas_gym.evaluators.core import Status
from nas_gym.evaluators.latency import LatencyError, LocalLatency
from nas_gym.evaluators.limits import Limits
from nas_gym.networks.checkpoint import CheckpointError
from nas_gym.networks.fit import Fitting, OutOfTime
from nas_gym.networks.operations import complexity
from nas_gym.networks.recipe import Recipe
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

pytestmark = pytest.mark.usefixtures("one_thread")
"""Compute with one thread, as workers do."""

CELL = (3, 1, 2, 1, 4, 1)
EMPTY = (0,) * 6
TINY = {"skeleton": {"channels": 4, "cells_per_stage": 1, "stages": 2, "reduction": "pooling"}}
SMALL = Source("digits", subset=200)
DIVERGING = 1e12
RECIPES = {
    "plain": Recipe(epochs=4),
    "noise": Recipe(epochs=4, augmentation="crop,cutout", dropout=0.2),
    "adam": Recipe(epochs=4, optimiser="adam", learning_rate=0.01, warm_up_epochs=1),
    "restarted": Recipe(epochs=4, learning_rate=1e4, restarts=5, restart_factor=0.01),
}


def task(recipe: Recipe | None = None, **changes: Any) -> ChildTask:
    """Return a task of small networks and little data."""
    fields = {"space": NASBench201Space(), "source": SMALL, "recipe": recipe or Recipe(epochs=2), "sizes": TINY}
    return ChildTask(**{**fields, **changes})


def worker(recipe: Recipe | None = None, **changes: Any) -> ChildWorker:
    """Return a worker of such a task."""
    return ChildWorker(task(recipe, **changes), "cpu")


def faulty(limits: Limits | None = None, recipe: Recipe | None = None) -> ChildWorker:
    """Return a worker whose networks go wrong."""
    changes = {"space": FaultSpace(), "sizes": {}, "builder": "faulty_networks:build"}
    return worker(recipe or Recipe(epochs=1), limits=limits or Limits(), **changes)


def untimed(result: ChildResult) -> dict[str, tuple[float, ...]]:
    """Return the curve without the seconds, which depend on the machine."""
    return {name: values for name, values in result.curve.items() if name != "train_seconds"}


# --- one training ----------------------------------------------------------------------------------


def test_a_curve_has_a_value_for_every_epoch() -> None:
    """Of all scores, the loss and the time."""
    curve = worker()(TrainingJob(CELL, 2, seed=0)).curve
    assert {name: len(values) for name, values in curve.items()} == dict.fromkeys(
        ("valid_accuracy", "valid_balanced_accuracy", "valid_macro_f1", "train_loss", "train_seconds"), 2
    )


def test_the_seconds_of_a_curve_rise() -> None:
    """They count from the beginning of the job, and end before it does."""
    result = worker()(TrainingJob(CELL, 2, seed=0))
    assert 0 < result.curve["train_seconds"][0] < result.curve["train_seconds"][1] <= result.seconds


def test_the_seconds_are_of_the_processor() -> None:
    """Sleeping costs nothing, so that a busy machine does not change the cost of an architecture."""
    started = time.process_time()
    result = faulty()(TrainingJob(encoding("slow"), 1, seed=0))
    assert result.seconds <= time.process_time() - started


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_same_seed_gives_the_same_curve(recipe: Recipe) -> None:
    """To the last bit."""
    one, other = (worker(recipe)(TrainingJob(CELL, 4, seed=7)) for _ in range(2))
    assert untimed(one) == untimed(other)


def test_another_seed_gives_another_curve() -> None:
    """Weights and order of the images are others."""
    one = worker()
    assert untimed(one(TrainingJob(CELL, 1, seed=0))) != untimed(one(TrainingJob(CELL, 1, seed=1)))


def test_a_training_does_not_depend_on_the_one_before() -> None:
    """A worker carries nothing over."""
    used = worker()
    used(TrainingJob(EMPTY, 1, seed=3))
    assert untimed(used(TrainingJob(CELL, 1, seed=0))) == untimed(worker()(TrainingJob(CELL, 1, seed=0)))


def test_the_test_set_is_scored_on_demand_only() -> None:
    """At the end, with all scores."""
    one = worker()
    answers = [one(TrainingJob(CELL, 1, seed=0, score_test=wanted)).held_out for wanted in (False, True)]
    assert [set(answer) for answer in answers] == [set(), {"test_accuracy", "test_balanced_accuracy", "test_macro_f1"}]


def test_scoring_the_test_set_changes_nothing_else() -> None:
    """The curve is the same."""
    one = worker()
    plain, scored = (one(TrainingJob(CELL, 1, seed=0, score_test=wanted)) for wanted in (False, True))
    assert untimed(plain) == untimed(scored)


# --- pieces of a training --------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_short_training_is_a_prefix_of_a_long_one(recipe: Recipe) -> None:
    """The schedule is that of all epochs."""
    one = worker(recipe)
    short, long = (untimed(one(TrainingJob(CELL, epochs, seed=0))) for epochs in (2, 4))
    assert short == {name: values[:2] for name, values in long.items()}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_paused_training_goes_on_as_if_it_had_not_been(recipe: Recipe, tmp_path: Path) -> None:
    """In another worker, after each of two pauses."""
    whole = worker(recipe)(TrainingJob(CELL, 4, seed=0))
    first, second = tmp_path / "first", tmp_path / "second"
    worker(recipe)(TrainingJob(CELL, 1, seed=0, pause_to=first))
    worker(recipe)(TrainingJob(CELL, 3, seed=0, resume_from=first, pause_to=second))
    assert untimed(worker(recipe)(TrainingJob(CELL, 4, seed=0, resume_from=second))) == untimed(whole)


def test_a_pause_is_reported(tmp_path: Path) -> None:
    """And its file is there."""
    result = worker()(TrainingJob(CELL, 1, seed=0, pause_to=tmp_path / "file"))
    assert (result.paused, (tmp_path / "file").is_file()) == (True, True)


def test_a_resumed_training_says_how_much_it_did_not_train(tmp_path: Path) -> None:
    """Its curve holds those epochs all the same."""
    one = worker()
    one(TrainingJob(CELL, 1, seed=0, pause_to=tmp_path / "file"))
    assert one(TrainingJob(CELL, 2, seed=0, resume_from=tmp_path / "file")).resumed_epochs == 1


def test_the_seconds_of_a_resumed_training_go_on(tmp_path: Path) -> None:
    """The curve counts those before the pause, the cost does not."""
    one = worker()
    before = one(TrainingJob(CELL, 1, seed=0, pause_to=tmp_path / "file")).curve["train_seconds"][-1]
    result = one(TrainingJob(CELL, 2, seed=0, resume_from=tmp_path / "file"))
    assert before < result.curve["train_seconds"][-1] <= before + result.seconds


@pytest.mark.parametrize("content", [None, b"", b"no checkpoint"], ids=["missing", "empty", "damaged"])
def test_a_checkpoint_that_cannot_be_read_costs_time_only(content: bytes | None, tmp_path: Path) -> None:
    """The training begins at the beginning."""
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    result = worker()(TrainingJob(CELL, 2, seed=0, resume_from=path))
    assert (untimed(result), result.resumed_epochs) == (untimed(worker()(TrainingJob(CELL, 2, seed=0))), 0)


# --- restarts --------------------------------------------------------------------------------------


@pytest.fixture
def factors(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return what every training that begins multiplies its learning rates by."""
    found: list[float] = []

    class Recorder(Fitting):
        """A training that is written down."""

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            found.append(arguments[4])

    monkeypatch.setattr(child_module, "Fitting", Recorder)
    return found


def chance(epochs: int = 1, restarts: int = 3, learning_rate: float = 0.1) -> ChildResult:
    """Train a network that ignores the image, hence stays at chance."""
    recipe = Recipe(epochs=epochs, restarts=restarts, restart_factor=0.5, learning_rate=learning_rate)
    return worker(recipe)(TrainingJob(EMPTY, epochs, seed=0))


def test_a_training_at_chance_begins_anew_with_smaller_rates(factors: list[float]) -> None:
    """As often as the recipe allows."""
    chance()
    assert factors == [1, 0.5, 0.25, 0.125]


def test_a_training_that_stays_at_chance_is_an_answer() -> None:
    """After the last restart it goes on to the end."""
    result = chance(epochs=2)
    assert (result.status, len(result.curve["valid_accuracy"])) == (Status.OK, 2)


def test_a_training_above_chance_is_not_begun_anew(factors: list[float]) -> None:
    """The first attempt counts."""
    worker(Recipe(epochs=1, batch_size=10, restarts=3))(TrainingJob(CELL, 1, seed=0))
    assert factors == [1]


def test_no_training_begins_anew_unless_the_recipe_says_so(factors: list[float]) -> None:
    """The default has no restarts."""
    chance(restarts=0)
    assert factors == [1]


def test_a_training_that_diverges_at_once_begins_anew(factors: list[float]) -> None:
    """The smaller learning rate may help."""
    recipe = Recipe(epochs=1, batch_size=10, learning_rate=DIVERGING, restarts=1, restart_factor=1e-13)
    result = worker(recipe)(TrainingJob(CELL, 1, seed=0))
    assert (result.status, factors) == (Status.OK, [1, 1e-13])


def test_a_training_that_diverges_to_the_last_is_a_failure(factors: list[float]) -> None:
    """When no restart is left."""
    recipe = Recipe(epochs=1, restarts=2)
    result = faulty(recipe=recipe)(TrainingJob(encoding("diverging"), 1, seed=0))
    assert (result.status, len(factors)) == (Status.DIVERGED, 3)


def test_every_restart_draws_other_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would fail as the first one did."""
    drawn: list[float] = []

    class Recorder(Fitting):
        """A training whose first weight is written down."""

        def __init__(self, model: torch.nn.Module, *rest: Any) -> None:
            super().__init__(model, *rest)
            drawn.append(float(next(model.parameters()).detach().flatten()[0]))

    monkeypatch.setattr(child_module, "Fitting", Recorder)
    chance(restarts=2)
    assert len(set(drawn)) == 3


# --- inspection ------------------------------------------------------------------------------------


def test_an_inspection_counts_what_the_network_has() -> None:
    """Parameters and multiply-adds of the built network."""
    data = digits()
    cost = complexity(task().build(CELL, data), data.input_shape)
    metrics = worker()(Inspection(CELL)).metrics
    assert (metrics["parameters"], metrics["multiply_adds"]) == (cost.parameters, cost.multiply_adds)


def test_an_inspection_trains_nothing() -> None:
    """It has no curve."""
    assert not worker()(Inspection(CELL)).curve


def test_the_memory_of_a_training_grows_with_the_batch() -> None:
    """The activations are kept for all images of it."""
    small, large = (
        worker(Recipe(batch_size=size))(Inspection(CELL)).metrics["training_memory_bytes"] for size in (10, 100)
    )
    assert large > 5 * small


def test_an_inspection_measures_the_latency() -> None:
    """If it is told how."""
    result = worker()(Inspection(CELL, LocalLatency(warm_up=1, repeats=3)))
    assert 0 < result.metrics["latency_seconds"] < 1


@pytest.mark.parametrize("job", [Inspection(CELL), TrainingJob(CELL, 1, seed=0)], ids=["inspection", "training"])
def test_a_network_over_a_limit_is_refused(job: Inspection | TrainingJob) -> None:
    """Before anything is trained; its sizes are known."""
    result = worker(limits=Limits(max_parameters=10))(job)
    assert (result.status, result.curve, "parameters" in result.metrics) == (Status.OVER_LIMIT, {}, True)


def test_a_network_that_is_too_large_is_not_timed() -> None:
    """Its latency would be of no use."""
    latency = LocalLatency(warm_up=1, repeats=3)
    result = worker(limits=Limits(max_parameters=10))(Inspection(CELL, latency))
    assert "latency_seconds" not in result.metrics


def test_a_network_that_is_too_slow_is_refused() -> None:
    """The message has the latency."""
    limits = Limits(max_latency_ms=1e-6)
    result = worker(limits=limits)(Inspection(CELL, LocalLatency(warm_up=1, repeats=3)))
    assert (result.status, result.message[:24]) == (Status.OVER_LIMIT, "latency_seconds in ms is")


def test_a_latency_measured_before_counts_for_the_training() -> None:
    """It need not be measured again."""
    job = TrainingJob(CELL, 1, seed=0, known={"latency_seconds": 0.2})
    result = worker(limits=Limits(max_latency_ms=100))(job)
    assert result.message == "latency_seconds in ms is 200, over the limit max_latency_ms = 100"


def test_a_latency_that_cannot_be_measured_is_a_failure() -> None:
    """With the reason."""

    class Broken(LocalLatency):
        """Cannot measure."""

        def __call__(self, *arguments: Any) -> float:
            raise LatencyError("the board does not answer")

    result = worker()(Inspection(CELL, Broken()))
    assert (result.status, result.message) == (Status.CRASHED, "LatencyError: the board does not answer")


# --- failures --------------------------------------------------------------------------------------


def test_an_exception_in_the_network_is_an_answer() -> None:
    """With its type and message, and a traceback into the network."""
    result = faulty()(TrainingJob(encoding("broken"), 1, seed=0))
    assert (result.status, result.message) == (Status.CRASHED, "ValueError: the layers do not fit")
    assert "in broken" in result.traceback


def test_a_network_that_cannot_be_built_is_an_answer() -> None:
    """With its type and message, and a traceback into the builder."""
    result = faulty()(TrainingJob(encoding("unbuildable"), 1, seed=0))
    assert (result.status, result.message) == (Status.BUILD_ERROR, "ValueError: no such layer")
    assert "in build" in result.traceback


def test_a_network_without_room_is_out_of_memory() -> None:
    """The allocator of the CPU raises a plain `RuntimeError`."""
    assert faulty()(TrainingJob(encoding("greedy"), 1, seed=0)).status is Status.OUT_OF_MEMORY


def test_a_loss_that_is_no_number_is_a_divergence() -> None:
    """The message names loss and epoch."""
    result = faulty()(TrainingJob(encoding("diverging"), 1, seed=0))
    assert (result.status, result.message) == (Status.DIVERGED, "the training loss is nan in epoch 1")


def test_a_slow_training_stops_at_its_deadline() -> None:
    """Before the next batch."""
    result = faulty(Limits(max_train_seconds=0.2))(TrainingJob(encoding("slow"), 1, seed=0))
    assert (result.status, result.message) == (Status.TIMEOUT, "the time was up in epoch 1")


def test_a_slow_validation_stops_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its next batch."""
    monkeypatch.setattr(Fitting, "run_epoch", lambda self, deadline: time.sleep(0.2) or 1.0)
    result = worker(limits=Limits(max_train_seconds=0.1))(TrainingJob(CELL, 1, seed=0))
    assert (result.status, result.message) == (Status.TIMEOUT, "the time was up when epoch 0 was validated")


def test_a_failure_keeps_what_was_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """The epochs before a divergence."""
    losses = iter([1.0, math.nan])

    def run_epoch(fitting: Fitting, deadline: float) -> float:
        fitting.epoch += 1
        return next(losses)

    monkeypatch.setattr(Fitting, "run_epoch", run_epoch)
    result = worker()(TrainingJob(CELL, 2, seed=0))
    assert (result.status, len(result.curve["valid_accuracy"])) == (Status.DIVERGED, 1)


def test_a_worker_goes_on_after_every_failure() -> None:
    """The next child is trained as if nothing had been."""
    one = faulty(Limits(max_train_seconds=0.2))
    for name in ("broken", "unbuildable", "greedy", "diverging", "slow"):
        one(TrainingJob(encoding(name), 1, seed=0))
    assert one(TrainingJob(encoding("sound"), 1, seed=0)).status is Status.OK


ERRORS = {
    "over limit": (OverLimit("too large"), Status.OVER_LIMIT),
    "build": (BuildFailed("no"), Status.BUILD_ERROR),
    "diverged": (Diverged("nan"), Status.DIVERGED),
    "out of time": (OutOfTime("late"), Status.TIMEOUT),
    "MemoryError": (MemoryError(), Status.OUT_OF_MEMORY),
    "OutOfMemoryError": (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), Status.OUT_OF_MEMORY),
    "CPU allocator": (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), Status.OUT_OF_MEMORY),
    "CPU allocator of Windows": (RuntimeError("DefaultCPUAllocator: not enough memory"), Status.OUT_OF_MEMORY),
    "cuBLAS": (RuntimeError("CUDA error: out of memory"), Status.OUT_OF_MEMORY),
    "RuntimeError": (RuntimeError("an operation failed"), Status.CRASHED),
    "ValueError about memory": (ValueError("out of memory"), Status.CRASHED),
    "latency": (LatencyError("no number"), Status.CRASHED),
    "checkpoint": (CheckpointError("damaged"), Status.CRASHED),
}


@pytest.mark.parametrize(("error", "status"), ERRORS.values(), ids=ERRORS)
def test_every_exception_has_a_status(error: Exception, status: Status) -> None:
    """Whatever torch raises."""
    assert classify(error) is status


# --- memory ----------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is known on Linux only")
def test_the_peak_memory_holds_what_was_held_for_a_moment() -> None:
    """100 MB, freed at once."""
    measured: dict[str, float] = {}
    with child_module.peak_memory("cpu", measured):
        np.ones(100_000_000, np.uint8)
    assert 95e6 < measured["peak_memory_bytes"] < 200e6


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is known on Linux only")
def test_every_training_has_a_peak_memory() -> None:
    """Failed ones included."""
    one = faulty()
    found = [one(TrainingJob(encoding(name), 1, seed=0)).metrics["peak_memory_bytes"] for name in ("sound", "broken")]
    assert all(0 <= value < 1e9 for value in found)


def test_the_peak_memory_is_not_known_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without /proc it is NaN, and the training an answer all the same."""
    monkeypatch.setattr(child_module, "Path", lambda path: Path("/nonexistent") / path.lstrip("/"))
    result = worker()(TrainingJob(CELL, 1, seed=0))
    assert (result.status, math.isnan(result.metrics["peak_memory_bytes"])) == (Status.OK, True)


# --- travel ----------------------------------------------------------------------------------------


def test_tasks_and_jobs_can_be_sent() -> None:
    """To another process."""
    sent = (task(limits=Limits(max_parameters=5)), Inspection(CELL, LocalLatency()), TrainingJob(CELL, 1, 0))
    assert pickle.loads(pickle.dumps(sent)) == sent


def test_answers_can_be_sent() -> None:
    """From another process."""
    sent = worker()(TrainingJob(CELL, 1, seed=0))
    assert dataclasses.asdict(pickle.loads(pickle.dumps(sent))) == dataclasses.asdict(sent)
