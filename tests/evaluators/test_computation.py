"""What the trainings of a search compute: counted by hand, without data and without training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from nas_gym.datasets import Source
from nas_gym.datasets.catalogue import Facts
from nas_gym.evaluators import estimate
from nas_gym.evaluators.estimate import Computation, computation
from nas_gym.evaluators.training import TrainingEvaluator, training_evaluator
from nas_gym.search_spaces.metaqnn import MetaQNNSpace
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

pytestmark = pytest.mark.usefixtures("one_thread")
"""Compute with one thread, as workers do."""

FACTS = Facts(channels=1, side=8, classes=10, training_images=1000)
SPACE = MetaQNNSpace(max_depth=1, image_size=8, filters=(4,), kernels=(1,), pools=(), neurons=())
MULTIPLY_ADDS = {
    "SM": 64 * 10 + 10,
    "C(4,1,1) SM": 64 * 4 * (1 + 1) + 256 * 10 + 10,
    "GAP SM": 64 * 10 * (1 + 1),
}
"""Of every chain of that space for a grey image of 8x8 pixels and 10 classes: weights and biases."""


class OneCell(NASBench201Space):
    """A space whose every sample is the same cell."""

    def sample(self, rng: np.random.Generator) -> tuple[int, ...]:
        """Return the cell of six convolutions."""
        return (3,) * 6


def evaluator(space: Any = SPACE, sizes: dict[str, Any] | None = None, **settings: Any) -> TrainingEvaluator:
    """Return an evaluator; nothing is loaded."""
    return training_evaluator(space, sizes, device="cpu", **settings)


def counted(seed: int) -> list[int]:
    """Return the multiply-adds of the hundred chains that a seed draws."""
    rng = np.random.default_rng(seed)
    return [MULTIPLY_ADDS[SPACE.to_string(SPACE.sample(rng))] for _ in range(100)]


@pytest.mark.parametrize(("epochs", "share"), [(1, 0.1), (7, 0.25)])
def test_a_training_computes_three_passes_over_its_images(epochs: int, share: float) -> None:
    """Two operations a multiply-add, in every epoch, for what is not left for validation."""
    found = computation(evaluator(epochs=epochs, valid_share=share), FACTS, np.random.default_rng(5))
    expected = 3 * 2 * np.mean(counted(5)) * 1000 * (1 - share) * epochs
    assert found.child_flops == pytest.approx(expected)


def test_equal_samples_compute_what_one_does() -> None:
    """A stem, a cell of six 3x3 convolutions of 4 to 4 channels on 8x8 pixels, and a classifier, counted by hand."""
    sizes = {"skeleton": {"channels": 4, "cells_per_stage": 1, "stages": 1, "reduction": "pooling"}}
    found = computation(evaluator(OneCell(), sizes, epochs=2), FACTS, np.random.default_rng(0))
    stem, cell, classifier = 64 * 4 * 9, 6 * 64 * 4 * 4 * 9, 4 * 10 + 10
    expected = 3 * 2 * (stem + cell + classifier) * 900 * 2
    assert (found.largest_share, found.child_flops) == (1.0, pytest.approx(expected))


def test_the_largest_sample_is_told_by_the_mean_one() -> None:
    """Here the chain with the convolution."""
    found = computation(evaluator(), FACTS, np.random.default_rng(5))
    assert found.largest_share == pytest.approx(max(counted(5)) / np.mean(counted(5)))


def test_the_speed_is_that_of_a_network_of_median_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its three passes, by the time that an image takes."""
    monkeypatch.setattr(estimate, "_seconds_per_image", lambda *_: 2.0)
    found = computation(evaluator(), FACTS, np.random.default_rng(5))
    assert found.flops_per_second == pytest.approx(3 * 2 * sorted(counted(5))[50] / 2.0)


def test_the_speed_is_measured_here() -> None:
    """On the device of the evaluator."""
    found = computation(evaluator(), FACTS, np.random.default_rng(5))
    assert (found.flops_per_second > 0, found.device) == (True, "cpu")


def test_no_data_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of the data set is enough."""

    def refuse(_: Source) -> None:
        raise AssertionError("the data were loaded")

    monkeypatch.setattr(Source, "load", refuse)
    assert computation(evaluator(dataset="mnist"), FACTS, np.random.default_rng(0)).child_flops > 0


def test_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker and no store."""
    one = evaluator()
    computation(one, FACTS, np.random.default_rng(0))
    assert {"workers", "store", "dataset"}.isdisjoint(vars(one))


FOUND = Computation(child_flops=864e9, largest_share=2.0, flops_per_second=1e6, device="cpu")


def test_days_are_operations_by_speed() -> None:
    """A day has 86,400 seconds: ten of these children take 8.64e12 operations, at 1e6 a second 100 days."""
    assert FOUND.days(10) == pytest.approx(100.0)


def test_another_device_has_its_own_speed() -> None:
    """A hundred times as fast, a hundredth of the days."""
    assert FOUND.days(10, 1e8) == pytest.approx(1.0)


@pytest.mark.parametrize("factor", [2, 7, 1000])
def test_days_are_proportional_to_the_queries(factor: int) -> None:
    """Every query is another training."""
    assert FOUND.days(3 * factor) == pytest.approx(factor * FOUND.days(3))
