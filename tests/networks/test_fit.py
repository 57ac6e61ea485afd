"""The training loop: its schedule, its order of images, and that it reproduces itself."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from nas_gym.networks import fit as module
from nas_gym.networks.fit import (
    Fitting,
    OutOfTime,
    class_weights,
    confusion,
    initialise,
    make_optimiser,
    resolve_precision,
)
from nas_gym.networks.images import DeviceSplit
from nas_gym.networks.operations import Dropout
from nas_gym.networks.recipe import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")
"""Compute with one thread, as workers do."""


def generator(seed: int = 0) -> torch.Generator:
    """Return a seeded generator."""
    return torch.Generator().manual_seed(seed)


class Given(DeviceSplit):
    """Images that are what they are, of any shape, without standardisation."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Keep float images [N, ...]; no batch has been asked for."""
        super().__init__(labels, torch.zeros(1), torch.ones(1))
        self.given = images
        self.asked: list[list[int]] = []

    def pixels(self, indices: torch.Tensor) -> torch.Tensor:
        """Return some of the images."""
        return self.given[indices]

    def images(self, indices: torch.Tensor) -> torch.Tensor:
        """Return some of the images, and remember which."""
        self.asked.append(indices.tolist())
        return self.given[indices]


def blobs(count: int = 60) -> Given:
    """Return images of 4x4 in three classes that differ in their mean."""
    labels = torch.arange(count) % 3
    noise = torch.randn((count, 1, 4, 4), generator=generator())
    return Given(noise + 2 * labels.float().view(-1, 1, 1, 1), labels)


def fit(
    model: nn.Module, data: DeviceSplit, recipe: Recipe, order: torch.Generator, epochs: int | None = None
) -> Iterator[float]:
    """Train epoch by epoch, yielding the losses."""
    fitting = Fitting(model, data, recipe, order)
    for _ in range(recipe.epochs if epochs is None else epochs):
        yield fitting.run_epoch()


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


def droppy(seed: int = 0) -> nn.Module:
    """Return a network with our dropout layer."""
    model = nn.Sequential(network(seed)[:5], Dropout(0.3), nn.Linear(4, 3))
    initialise(model, generator(seed))
    return model


RECIPE = Recipe(epochs=4, batch_size=16)


def linear(outputs: int = 3) -> nn.Module:
    """Return a linear classifier of images [N, 1] whose weights are zero."""
    model = nn.Linear(1, outputs)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def recorded_batches(count: int, recipe: Recipe) -> list[list[int]]:
    """Return which images every update saw."""
    data = Given(torch.ones(count, 1), torch.arange(count) % 3)
    list(fit(linear(), data, recipe, generator()))
    return data.asked


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
    data = Given(torch.ones(5, 1), torch.arange(5) % 3)
    loss = next(fit(linear(), data, Recipe(epochs=1, batch_size=2, learning_rate=1e-12), generator()))
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


def test_the_order_of_images_does_not_depend_on_noise() -> None:
    """With augmentation and dropout the same images are seen as without, in the same order."""
    orders = []
    for model, augmentation in ((network(), "none"), (droppy(), "crop,flip")):
        data = blobs()
        list(fit(model, data, Recipe(epochs=2, batch_size=16, augmentation=augmentation), generator()))
        orders.append(data.asked)
    assert orders[0] == orders[1]


class Slope(nn.Module):
    """A classifier whose loss has nearly the same gradient, one half, everywhere; it remembers its weight."""

    def __init__(self) -> None:
        """Start at zero."""
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.history: list[float] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits [N, 2]."""
        self.history.append(float(self.weight.detach()))
        return torch.cat([self.weight.expand(len(images), 1), torch.zeros(len(images), 1)], dim=1)


def steps(recipe: Recipe, learning_rate_factor: float = 1.0) -> np.ndarray:
    """Return by how much every update of a `Slope` moves its weight, with one update an epoch."""
    model = Slope()
    data = Given(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64))
    fitting = Fitting(model, data, recipe, generator(), learning_rate_factor)
    for _ in range(recipe.epochs):
        fitting.run_epoch()
    return np.diff([*model.history, float(model.weight.detach())])


HARDLY_ANY_MOMENTUM = Recipe(epochs=4, batch_size=2, learning_rate=1e-3, momentum=1e-9, weight_decay=0.0)
COSINE_STEPS = 0.5 * 1e-3 * 0.5 * (1 + np.cos(np.pi * np.arange(4) / 4))


def test_the_learning_rate_falls_along_half_a_cosine() -> None:
    """With a constant gradient and hardly any momentum the steps are those of the schedule, worked out by hand."""
    np.testing.assert_allclose(steps(HARDLY_ANY_MOMENTUM), COSINE_STEPS, rtol=2e-3)


def test_a_restart_multiplies_every_learning_rate() -> None:
    """With the factor of MetaQNN all steps are shorter by it."""
    np.testing.assert_allclose(steps(HARDLY_ANY_MOMENTUM, 0.4), 0.4 * COSINE_STEPS, rtol=2e-3)


def test_momentum_is_nesterovs() -> None:
    """With a constant gradient g the steps are g times 1 + m, 1 + m + m^2 and so on."""
    recipe = Recipe(epochs=3, batch_size=2, learning_rate=1e-3, momentum=0.5, weight_decay=0.0, schedule="constant")
    np.testing.assert_allclose(steps(recipe), 0.5e-3 * np.array([1.5, 1.75, 1.875]), rtol=2e-3)


@pytest.mark.parametrize(
    ("optimiser", "kind", "settings"),
    [
        pytest.param("sgd", torch.optim.SGD, {"momentum": 0.8, "nesterov": True}, id="sgd"),
        pytest.param("adam", torch.optim.Adam, {"betas": (0.8, 0.999)}, id="adam"),
        pytest.param("rmsprop", torch.optim.RMSprop, {"momentum": 0.8}, id="rmsprop"),
    ],
)
def test_an_optimiser_has_the_settings_of_its_recipe(optimiser: str, kind: type, settings: dict[str, object]) -> None:
    """Learning rate, momentum and weight decay arrive where PyTorch expects them."""
    recipe = Recipe(optimiser=optimiser, learning_rate=0.02, momentum=0.8, weight_decay=0.003)
    found = make_optimiser(list(linear().parameters()), recipe)
    expected = {"lr": 0.02, "weight_decay": 0.003, **settings}
    assert type(found) is kind
    assert {name: found.defaults[name] for name in expected} == expected


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
def test_the_confusion_is_counted_whatever_the_batch_size(batch_size: int) -> None:
    """Of ten images with the identity as the network, the first three are labelled 9."""
    labels = torch.arange(10)
    labels[:3] = 9
    expected = np.eye(10, dtype=np.int64)
    expected[range(3), range(3)] = 0
    expected[9, :3] = 1
    np.testing.assert_array_equal(confusion(nn.Identity(), Given(torch.eye(10), labels), 10, batch_size), expected)


@pytest.mark.parametrize(
    ("side", "batches"),
    [
        pytest.param(4, [1024, 76], id="small images"),
        pytest.param(8, [1024, 76], id="as many as in a batch of 1024"),
        pytest.param(16, [256, 256, 256, 256, 76], id="larger ones"),
        pytest.param(300, [1, 1], id="one image at least"),
    ],
)
def test_large_images_are_scored_in_small_batches(side: int, batches: list[int]) -> None:
    """What the processor's cache holds is faster than what it does not."""
    count = sum(batches)
    data = Given(torch.zeros(count, 1, side, side), torch.zeros(count, dtype=torch.int64))
    asked: list[int] = []

    class Network(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            asked.append(len(images))
            return torch.zeros(len(images), 2)

    confusion(Network(), data, 2)
    assert asked == batches


def test_counting_uses_the_evaluation_mode() -> None:
    """Dropout does not disturb the count."""
    data = Given(torch.eye(10), torch.arange(10))
    assert np.trace(confusion(nn.Dropout(0.99).train(), data, 10)) == 10


def test_counting_may_be_stopped_between_batches() -> None:
    """What the check raises comes out."""

    def stop() -> None:
        raise OutOfTime("now")

    with pytest.raises(OutOfTime):
        confusion(nn.Identity(), Given(torch.eye(10), torch.arange(10)), 10, check=stop)


# --- recipes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(Recipe(epochs=8, batch_size=16, optimiser="adam"), id="adam"),
        pytest.param(Recipe(epochs=8, batch_size=16, optimiser="rmsprop", learning_rate=0.003), id="rmsprop"),
        pytest.param(Recipe(epochs=8, batch_size=16, momentum=0.0, learning_rate=0.5), id="no momentum"),
        pytest.param(Recipe(epochs=8, batch_size=16, precision="bfloat16"), id="bfloat16"),
        pytest.param(Recipe(epochs=8, batch_size=16, precision="float16"), id="float16 with loss scaling"),
        pytest.param(Recipe(epochs=8, batch_size=16, precision="float16", optimiser="adam"), id="float16 adam"),
        pytest.param(Recipe(epochs=8, batch_size=16, schedule="constant"), id="constant learning rate"),
        pytest.param(Recipe(epochs=8, batch_size=16, schedule="step"), id="steps"),
        pytest.param(Recipe(epochs=8, batch_size=16, augmentation="flip"), id="augmentation"),
        pytest.param(Recipe(epochs=8, batch_size=16, class_weights="balanced"), id="balanced"),
        pytest.param(Recipe(epochs=8, batch_size=16, warm_up_epochs=2), id="warm-up"),
    ],
)
def test_every_kind_of_training_learns(recipe: Recipe) -> None:
    """The loss falls below half of the first."""
    losses, _ = train(recipe)
    assert losses[-1] < 0.5 * losses[0]


def first_loss(recipe: Recipe, labels: torch.Tensor, bias: list[float]) -> float:
    """Return the loss of the first batch of a classifier that always puts out `bias`."""
    model = linear(len(bias))
    model.load_state_dict({"weight": torch.zeros(len(bias), 1), "bias": torch.tensor(bias)})
    return next(fit(model, Given(torch.zeros(len(labels), 1), labels), recipe, generator()))


def test_label_smoothing_is_that_of_the_definition() -> None:
    """The target is mixed with the uniform distribution."""
    logits = torch.tensor([2.0, 0.0])
    log_probabilities = logits.log_softmax(0)
    expected = -(0.9 * log_probabilities[0] + 0.1 * log_probabilities.mean())
    recipe = Recipe(epochs=1, batch_size=2, label_smoothing=0.1)
    assert first_loss(recipe, torch.zeros(2, dtype=torch.int64), [2.0, 0.0]) == pytest.approx(float(expected))


def test_balanced_weights_are_inverse_to_the_frequency() -> None:
    """One on average over the images."""
    labels = torch.tensor([0, 0, 0, 1])
    weights = class_weights(labels, 2)
    assert (weights[1] / weights[0], weights[labels].mean()) == (pytest.approx(3.0), pytest.approx(1.0))


def test_classes_without_images_weigh_nothing() -> None:
    """The others are balanced among themselves, and one on average over the images."""
    weights = class_weights(torch.tensor([0, 0, 0, 2]), 4)
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 0.0, 2.0, 0.0]))


def test_a_class_without_training_images_may_be_the_last() -> None:
    """The balanced loss of three equal logits is that of three classes, though labels name only two."""
    recipe = Recipe(epochs=1, batch_size=4, class_weights="balanced")
    assert first_loss(recipe, torch.tensor([0, 0, 0, 1]), [0.0, 0.0, 0.0]) == pytest.approx(math.log(3))


def test_balanced_weights_change_the_loss() -> None:
    """The weighted mean, worked out by hand for three images of one class and one of the other."""
    labels = torch.tensor([0, 0, 0, 1])
    losses = -torch.tensor([2.0, 0.0]).log_softmax(0)
    expected = float((losses[0] + losses[1]) / 2)
    recipe = Recipe(epochs=1, batch_size=4, class_weights="balanced")
    assert first_loss(recipe, labels, [2.0, 0.0]) == pytest.approx(expected)


def test_a_diverged_training_says_so_by_its_loss() -> None:
    """NaN or infinite, not an exception."""
    assert not math.isfinite(train(Recipe(epochs=3, batch_size=16, learning_rate=1e30))[0][-1])


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_loss_that_is_no_number_is_returned_as_such(precision: str) -> None:
    """One image of NaN makes the mean of its epoch NaN, with loss scaling too."""
    data = blobs()
    data.given[7] = math.nan
    assert math.isnan(next(fit(network(), data, Recipe(epochs=1, batch_size=16, precision=precision), generator())))


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        pytest.param("auto", torch.float32, id="auto"),
        pytest.param("float32", torch.float32, id="float32"),
        pytest.param("bfloat16", torch.bfloat16, id="bfloat16"),
        pytest.param("float16", torch.float16, id="float16"),
    ],
)
def test_the_precision_on_the_processor(precision: str, expected: torch.dtype) -> None:
    """Single unless another one is asked for."""
    assert resolve_precision(precision, torch.device("cpu")) == expected


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_weights_stay_in_single_precision(precision: str) -> None:
    """Only layers compute in the lower one."""
    _, weights = train(Recipe(epochs=1, batch_size=16, precision=precision))
    assert {weight.dtype for weight in weights} == {torch.float32}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_layers_compute_in_the_precision_asked_for(precision: str) -> None:
    """The last layer of the network puts out numbers of that type."""
    model = network()
    types = set()
    model[5].register_forward_hook(lambda layer, inputs, output: types.add(output.dtype))
    list(fit(model, blobs(), Recipe(epochs=1, batch_size=16, precision=precision), generator()))
    assert types == {getattr(torch, precision)}


def test_the_deadline_is_looked_at_before_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that ticks once a look, a deadline at the third tick lets two batches through."""
    clock = iter(range(10))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    data = blobs()
    with pytest.raises(OutOfTime):
        Fitting(network(), data, RECIPE, generator()).run_epoch(deadline=2)
    assert len(data.asked) == 2


def test_an_epoch_that_ran_out_of_time_is_not_counted() -> None:
    """The number of finished epochs stays, and the message names the one that was not."""
    fitting = Fitting(network(), blobs(), RECIPE, generator())
    fitting.run_epoch()
    with pytest.raises(OutOfTime, match="the time was up in epoch 2"):
        fitting.run_epoch(deadline=0)
    assert fitting.epoch == 1


def test_nothing_begins_after_the_deadline() -> None:
    """Not even the first batch."""
    data = blobs()
    with pytest.raises(OutOfTime, match="the time was up in epoch 1"):
        Fitting(network(), data, RECIPE, generator()).run_epoch(deadline=time.monotonic())
    assert data.asked == []


# --- pausing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(Recipe(epochs=4, batch_size=16), id="sgd"),
        pytest.param(Recipe(epochs=4, batch_size=16, optimiser="adam"), id="adam"),
        pytest.param(Recipe(epochs=4, batch_size=16, optimiser="rmsprop", learning_rate=0.01), id="rmsprop"),
        pytest.param(Recipe(epochs=4, batch_size=16, augmentation="crop,flip,cutout"), id="augmentation"),
        pytest.param(Recipe(epochs=4, batch_size=16, precision="float16"), id="loss scaling"),
        pytest.param(Recipe(epochs=4, batch_size=16, warm_up_epochs=3), id="in the middle of the warm-up"),
        pytest.param(Recipe(epochs=4, batch_size=16, class_weights="balanced"), id="balanced"),
    ],
)
def test_a_paused_training_continues_bit_by_bit(recipe: Recipe, tmp_path: Path) -> None:
    """Weights and losses are those of a training that was not paused, dropout and augmentation included."""
    whole = Fitting(droppy(), blobs(), recipe, generator())
    losses = [whole.run_epoch() for _ in range(4)]
    first = Fitting(droppy(), blobs(), recipe, generator())
    before = [first.run_epoch() for _ in range(2)]
    first.pause(tmp_path / "checkpoint", {})
    second = Fitting(droppy(seed=1), blobs(), recipe, generator(7))
    second.resume(tmp_path / "checkpoint")
    after = [second.run_epoch() for _ in range(2)]
    assert before + after == losses
    pairs = zip(whole.model.parameters(), second.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_noise_leaves_the_global_generator_alone() -> None:
    """Dropout draws from a generator of its own."""
    model = droppy()
    before = torch.get_rng_state()
    list(fit(model, blobs(), RECIPE, generator()))
    assert torch.equal(before, torch.get_rng_state())


def test_resuming_returns_what_the_caller_left(tmp_path: Path) -> None:
    """The epochs are counted on, and the progress comes back."""
    paused = Fitting(network(), blobs(), RECIPE, generator())
    paused.run_epoch()
    paused.pause(tmp_path / "checkpoint", {"curve": [1.5]})
    resumed = Fitting(network(), blobs(), RECIPE, generator())
    progress = resumed.resume(tmp_path / "checkpoint")
    assert (resumed.epoch, progress) == (1, {"curve": [1.5]})


def test_pausing_does_not_disturb_the_training(tmp_path: Path) -> None:
    """Whoever goes on after writing a checkpoint gets the same losses."""
    fitting = Fitting(droppy(), blobs(), RECIPE, generator())
    losses = []
    for _ in range(RECIPE.epochs):
        losses.append(fitting.run_epoch())
        fitting.pause(tmp_path / "checkpoint", {})
    assert losses == list(fit(droppy(), blobs(), RECIPE, generator()))


def test_another_seed_is_other_noise() -> None:
    """With all images in one batch, whose order is of no matter, dropout still depends on the seed."""
    recipe = Recipe(epochs=1, batch_size=60)
    losses = {round(next(fit(droppy(), blobs(), recipe, generator(seed))), 4) for seed in range(3)}
    assert len(losses) == 3
