"""The training loop: its schedule, its order of images, and that it reproduces itself."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from nas_gym.datasets import Split
from nas_gym.errors import InvalidArgument
from nas_gym.networks.fit import DeviceSplit, Recipe, count_correct, fit, initialise


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with one thread, as workers do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def generator(seed: int = 0) -> torch.Generator:
    """Return a seeded generator."""
    return torch.Generator().manual_seed(seed)


def blobs(count: int = 60) -> DeviceSplit:
    """Return images of 4x4 in three classes that differ in their mean."""
    labels = torch.arange(count) % 3
    noise = torch.randn((count, 1, 4, 4), generator=generator())
    return DeviceSplit(noise + 2 * labels.float().view(-1, 1, 1, 1), labels)


def network(seed: int = 0) -> nn.Module:
    """Return a small network with a convolution, a normalisation and a linear layer."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    initialise(model, generator(seed))
    return model


def train(recipe: Recipe, epochs: int | None = None, seed: int = 0) -> tuple[list[float], list[torch.Tensor]]:
    """Train a fresh network and return its losses and its final weights."""
    model = network()
    losses = list(fit(model, blobs(), recipe, generator(seed), epochs))
    return losses, [parameter.detach() for parameter in model.parameters()]


RECIPE = Recipe(epochs=4, batch_size=16)


class Recorder(nn.Module):
    """A linear classifier that remembers the images of every update."""

    def __init__(self) -> None:
        """Start with zero weights and no memories."""
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(1, 3))
        self.batches: list[list[int]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits [N, 3] of images [N, 1] that hold their own index."""
        self.batches.append(images.flatten().int().tolist())
        return images @ self.weights


def recorded_batches(count: int, recipe: Recipe, seed: int = 0) -> list[list[int]]:
    """Return which images every update saw."""
    data = DeviceSplit(torch.arange(count).float().unsqueeze(1), torch.arange(count) % 3)
    recorder = Recorder()
    list(fit(recorder, data, recipe, generator(seed)))
    return recorder.batches


# --- learning --------------------------------------------------------------------------------------


def test_the_loss_falls() -> None:
    """A training on separable classes ends with less than half of the loss it began with."""
    losses, _ = train(Recipe(epochs=8, batch_size=16))
    assert losses[-1] < 0.5 * losses[0]


def test_a_loss_comes_after_every_epoch() -> None:
    """The caller gets control back as often as the recipe has epochs."""
    losses, _ = train(RECIPE)
    assert len(losses) == RECIPE.epochs


def test_training_reproduces_itself_exactly() -> None:
    """The same seeds give the same losses and the same weights, bit by bit."""
    (losses, weights), (losses_again, weights_again) = train(RECIPE), train(RECIPE)
    assert losses == losses_again
    assert all(torch.equal(one, other) for one, other in zip(weights, weights_again, strict=True))


def test_training_ignores_the_global_generator() -> None:
    """Whoever draws random numbers elsewhere does not change the result."""
    losses, _ = train(RECIPE)
    torch.rand(7)
    assert train(RECIPE)[0] == losses


def test_another_seed_is_another_order_of_images() -> None:
    """The generator matters."""
    assert train(RECIPE, seed=1)[0] != train(RECIPE, seed=0)[0]


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_shorter_training_is_a_prefix_of_the_longer(epochs: int) -> None:
    """Stopping early does not change the schedule of what was trained."""
    assert train(RECIPE, epochs=epochs)[0] == train(RECIPE)[0][:epochs]


def test_the_first_loss_is_the_mean_over_all_images() -> None:
    """With zero weights and a vanishing learning rate it is the logarithm of the number of classes."""
    data = DeviceSplit(torch.ones(5, 1), torch.arange(5) % 3)
    loss = next(fit(Recorder(), data, Recipe(epochs=1, batch_size=2, learning_rate=1e-12), generator()))
    assert loss == pytest.approx(math.log(3))


# --- order and batches -----------------------------------------------------------------------------


def test_the_last_smaller_batch_is_used() -> None:
    """Seven images in batches of three are three updates, the last one of a single image."""
    assert [len(batch) for batch in recorded_batches(7, Recipe(epochs=1, batch_size=3))] == [3, 3, 1]


def test_every_epoch_sees_every_image_once() -> None:
    """An epoch is a permutation."""
    batches = recorded_batches(7, Recipe(epochs=3, batch_size=7))
    assert [sorted(batch) for batch in batches] == [list(range(7))] * 3


def test_every_epoch_has_its_own_order() -> None:
    """Images are shuffled anew."""
    batches = recorded_batches(7, Recipe(epochs=3, batch_size=7))
    assert len({tuple(batch) for batch in batches}) == 3


def test_the_learning_rate_falls_along_half_a_cosine() -> None:
    """With a constant gradient and hardly any momentum the steps are those of the schedule, worked out by hand."""

    class Slope(nn.Module):
        """A classifier whose loss has nearly the same gradient everywhere."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))
            self.history: list[float] = []

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.history.append(float(self.weight.detach()))
            return torch.cat([self.weight.expand(len(images), 1), torch.zeros(len(images), 1)], dim=1)

    model = Slope()
    data = DeviceSplit(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64))
    recipe = Recipe(epochs=4, batch_size=2, learning_rate=1e-3, momentum=1e-9, weight_decay=0.0)
    list(fit(model, data, recipe, generator()))
    steps = np.diff([*model.history, float(model.weight.detach())])
    expected = 0.5 * 1e-3 * 0.5 * (1 + np.cos(np.pi * np.arange(4) / 4))
    np.testing.assert_allclose(steps, expected, rtol=2e-3)


# --- weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "bound"),
    [
        pytest.param(nn.Conv2d(4, 8, 3), 1 / math.sqrt(4 * 9), id="convolution"),
        pytest.param(nn.Conv2d(4, 8, 3, groups=2), 1 / math.sqrt(2 * 9), id="grouped convolution"),
        pytest.param(nn.Linear(25, 40), 1 / 5, id="linear layer"),
    ],
)
def test_initial_weights_fill_their_interval(layer: nn.Module, bound: float) -> None:
    """All lie within 1 / sqrt(fan-in), and they come near to both ends."""
    initialise(layer, generator())
    weights = torch.cat([parameter.detach().flatten() for parameter in layer.parameters()])
    assert -bound <= float(weights.min()) < -0.9 * bound
    assert 0.9 * bound < float(weights.max()) <= bound


def test_initial_weights_depend_on_the_generator_alone() -> None:
    """Whatever the weights were before, the seed decides."""
    first, second = network(seed=3), network(seed=4)
    initialise(second, generator(3))
    assert all(torch.equal(one, other) for one, other in zip(first.parameters(), second.parameters(), strict=True))


def test_initialising_covers_every_convolution_and_linear_layer() -> None:
    """No weight keeps its value."""
    model = network(seed=3)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    initialise(model, generator(4))
    unchanged = [torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert unchanged == [False, False, True, True, False, False]


def test_normalisations_start_neutral() -> None:
    """Scale 1 and shift 0 are not drawn."""
    normalisation = network()[1]
    assert torch.equal(normalisation.weight, torch.ones(4))
    assert torch.equal(normalisation.bias, torch.zeros(4))


# --- counting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 4, 7, 1000])
def test_correct_images_are_counted_whatever_the_batch_size(batch_size: int) -> None:
    """Of ten images with the identity as the network, seven have the label of their largest entry."""
    images = torch.eye(10)
    labels = torch.arange(10)
    labels[:3] = 9
    assert count_correct(nn.Identity(), DeviceSplit(images, labels), batch_size) == 7


def test_counting_uses_the_evaluation_mode() -> None:
    """Dropout does not disturb the count."""
    data = DeviceSplit(torch.eye(10), torch.arange(10))
    assert count_correct(nn.Dropout(0.99).train(), data) == 10


def test_a_split_is_copied_without_change() -> None:
    """Types and values are those of the data set."""
    images = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2)
    split = DeviceSplit.of(Split(images, np.array([1, 0])))
    assert (split.images.dtype, split.labels.dtype) == (torch.float32, torch.int64)
    np.testing.assert_array_equal(split.images.numpy(), images)


# --- the recipe ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        pytest.param("epochs", 0, "epochs must be at least 1, got 0", id="no epoch"),
        pytest.param("batch_size", 1, "batch_size must be at least 2, got 1", id="batches of one image"),
        pytest.param("learning_rate", 0.0, "learning_rate must be positive", id="no learning rate"),
        pytest.param("learning_rate", -0.1, "learning_rate must be positive", id="negative learning rate"),
        pytest.param("learning_rate", math.nan, "learning_rate must be positive", id="learning rate not a number"),
        pytest.param("momentum", 1.0, "momentum between 0 and 1", id="momentum of one"),
        pytest.param("momentum", 0.0, "momentum between 0 and 1", id="no momentum"),
        pytest.param("weight_decay", -1e-4, "weight_decay not negative", id="negative decay"),
        pytest.param("weight_decay", math.nan, "weight_decay not negative", id="decay not a number"),
    ],
)
def test_an_impossible_recipe_is_refused(field: str, value: float, message: str) -> None:
    """The message names the field."""
    with pytest.raises(InvalidArgument, match=message):
        Recipe(**{field: value})


def test_a_recipe_survives_the_way_through_json() -> None:
    """Its fields are its constructor's arguments."""
    recipe = Recipe(epochs=3, batch_size=20, learning_rate=0.05)
    assert Recipe(**recipe.to_json()) == recipe
