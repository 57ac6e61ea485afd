"""How weights begin, and learning rates given phase by phase."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from nas_gym.errors import InvalidArgument
from nas_gym.networks.fit import Fitting, initialise
from nas_gym.networks.images import DeviceSplit
from nas_gym.networks.recipe import INITIALISATIONS, Recipe

pytestmark = pytest.mark.usefixtures("one_thread")
"""Compute with one thread, as workers do."""

every_initialisation = pytest.mark.parametrize("initialisation", INITIALISATIONS)

LAYERS: dict[str, Callable[[], nn.Conv2d | nn.Linear]] = {
    "convolution": lambda: nn.Conv2d(8, 24, 3),
    "linear": lambda: nn.Linear(120, 40),
}
FANS = {"convolution": (8 * 9, 24 * 9), "linear": (120, 40)}
"""Fan-in and fan-out by hand: channels times kernel area."""

every_layer = pytest.mark.parametrize("kind", LAYERS)


def generator(seed: int = 0) -> torch.Generator:
    """Return a seeded generator."""
    return torch.Generator().manual_seed(seed)


def initialised(kind: str, initialisation: str, seed: int = 0) -> nn.Conv2d | nn.Linear:
    """Return a fresh layer."""
    layer = LAYERS[kind]()
    initialise(layer, generator(seed), initialisation)
    return layer


def bias_of(layer: nn.Conv2d | nn.Linear) -> torch.Tensor:
    """Return the bias, which there must be."""
    assert layer.bias is not None
    return layer.bias.detach()


# --- initial weights -------------------------------------------------------------------------------


@every_layer
def test_xavier_weights_fill_the_published_range(kind: str) -> None:
    """Within sqrt(6 / (fan-in + fan-out)), and close to both ends."""
    bound = math.sqrt(6 / sum(FANS[kind]))
    weight = initialised(kind, "xavier").weight.detach()
    assert -bound <= float(weight.min()) < -0.99 * bound
    assert 0.99 * bound < float(weight.max()) <= bound


@every_layer
def test_xavier_weights_are_uniform(kind: str) -> None:
    """Every tenth of the range holds a tenth of the weights, within five standard errors."""
    bound = math.sqrt(6 / sum(FANS[kind]))
    weight = initialised(kind, "xavier").weight.detach()
    shares = torch.histc(weight, 10, -bound, bound) / weight.numel()
    assert float((shares - 0.1).abs().max()) < 5 * math.sqrt(0.1 * 0.9 / weight.numel())


@every_layer
def test_xavier_is_torch_s_own(kind: str) -> None:
    """The same numbers from the same generator."""
    layer = initialised(kind, "xavier", seed=3)
    expected = nn.init.xavier_uniform_(torch.empty_like(layer.weight), generator=generator(3))
    torch.testing.assert_close(layer.weight, expected)


@every_layer
def test_he_weights_have_the_published_variance(kind: str) -> None:
    """2 / fan-in, within five standard errors of a normal sample's variance."""
    weight = initialised(kind, "he").weight.detach()
    variance = 2 / FANS[kind][0]
    assert float(weight.square().mean()) == pytest.approx(variance, rel=5 * math.sqrt(2 / weight.numel()))


@every_layer
def test_he_weights_are_centred(kind: str) -> None:
    """Mean 0, within five standard errors."""
    weight = initialised(kind, "he").weight.detach()
    assert abs(float(weight.mean())) < 5 * math.sqrt(2 / FANS[kind][0] / weight.numel())


@every_layer
def test_he_weights_are_normal(kind: str) -> None:
    """68.3 % lie within one standard deviation, within five standard errors; of uniform ones 57.7 % would."""
    weight = initialised(kind, "he").weight.detach()
    share = float((weight.abs() < math.sqrt(2 / FANS[kind][0])).float().mean())
    assert share == pytest.approx(0.6827, abs=5 * math.sqrt(0.6827 * 0.3173 / weight.numel()))


@every_layer
@pytest.mark.parametrize("initialisation", ["xavier", "he"])
def test_biases_begin_at_zero(initialisation: str, kind: str) -> None:
    """Whatever they were before."""
    layer = LAYERS[kind]()
    nn.init.ones_(bias_of(layer))
    initialise(layer, generator(), initialisation)
    assert not bias_of(layer).any()


@every_layer
def test_the_default_is_torch_s_own(kind: str) -> None:
    """Weights and biases are uniform within 1 / sqrt(fan-in), in this order from the same generator."""
    layer = initialised(kind, "default", seed=3)
    source = generator(3)
    weight = nn.init.kaiming_uniform_(torch.empty_like(layer.weight), a=math.sqrt(5), generator=source)
    bound = 1 / math.sqrt(FANS[kind][0])
    bias = torch.empty_like(bias_of(layer)).uniform_(-bound, bound, generator=source)
    torch.testing.assert_close((layer.weight.detach(), bias_of(layer)), (weight, bias))


@every_layer
def test_nothing_said_means_the_default(kind: str) -> None:
    """Networks of earlier recipes begin as they did."""
    layer = LAYERS[kind]()
    initialise(layer, generator(3))
    assert torch.equal(layer.weight, initialised(kind, "default", seed=3).weight)


def test_recipes_begin_with_torch_s_weights_unless_they_say_otherwise() -> None:
    """The default of the recipe is the default of the function."""
    assert Recipe().initialisation == "default"


@every_initialisation
def test_the_same_seed_gives_the_same_weights(initialisation: str) -> None:
    """The generator decides alone, whatever the weights were before."""
    one, other = (initialised("convolution", initialisation, seed=5) for _ in range(2))
    assert torch.equal(one.weight, other.weight)


@every_initialisation
def test_another_seed_gives_other_weights(initialisation: str) -> None:
    """No weight is a constant."""
    one, other = (initialised("convolution", initialisation, seed=seed).weight for seed in (5, 6))
    assert not torch.isclose(one, other, rtol=0, atol=1e-9).all()


def test_every_way_to_begin_is_another() -> None:
    """From one seed the three give different weights."""
    first = [float(initialised("linear", name).weight.detach()[0, 0]) for name in INITIALISATIONS]
    assert len(set(first)) == len(INITIALISATIONS)


@every_initialisation
def test_layers_of_a_network_are_drawn_one_after_the_other(initialisation: str) -> None:
    """Two equal layers begin differently."""
    model = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5))
    initialise(model, generator(), initialisation)
    assert not torch.equal(model[0].weight, model[2].weight)


@every_initialisation
def test_layers_without_bias_are_drawn_too(initialisation: str) -> None:
    """As many numbers are drawn as there are weights."""
    layer = nn.Linear(120, 40, bias=False)
    initialise(layer, generator(3), initialisation)
    assert torch.equal(layer.weight, initialised("linear", initialisation, seed=3).weight)


@every_initialisation
def test_normalisations_keep_their_scale_and_shift(initialisation: str) -> None:
    """Only convolutions and linear layers are drawn."""
    layer = nn.BatchNorm2d(4)
    initialise(nn.Sequential(layer), generator(), initialisation)
    assert (layer.weight.tolist(), layer.bias.tolist()) == ([1.0] * 4, [0.0] * 4)


def test_an_unknown_initialisation_is_refused() -> None:
    """The known ones are listed."""
    with pytest.raises(InvalidArgument, match="initialisation must be one of default, xavier, he, got 'zeros'"):
        Recipe(initialisation="zeros")


# --- learning rates phase by phase -----------------------------------------------------------------


def rates(recipe: Recipe, updates_per_epoch: int = 2) -> list[float]:
    """Return the learning rate of every update."""
    updates = range(recipe.epochs * updates_per_epoch)
    return [recipe.learning_rate_at(update, updates_per_epoch) for update in updates]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"epochs": 3, "phases": "0.1x3"}, [0.1] * 6, id="one phase"),
        pytest.param({"epochs": 3, "phases": "0.1x1,0.01x2"}, [0.1] * 2 + [0.01] * 4, id="two phases"),
        pytest.param({"epochs": 4, "phases": "0.1x1,0.2x1"}, [0.1] * 2 + [0.2] * 6, id="the last one stays"),
        pytest.param({"epochs": 2, "phases": "0.1x5,0.01x5"}, [0.1] * 4, id="shorter than the phases"),
        pytest.param(
            {"epochs": 4, "phases": "1.0x1,0.5x1", "warm_up_epochs": 2},
            [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 0.5, 0.5],
            id="the warm-up leads to the first phase and comes before it",
        ),
        pytest.param(
            {"epochs": 3, "phases": "0.1x1,0.01x1", "learning_rate": 7.0},
            [0.1, 0.1, 0.01, 0.01, 0.01, 0.01],
            id="in place of the learning rate",
        ),
    ],
)
def test_the_learning_rates_of_phases_are_those_worked_out_by_hand(
    fields: dict[str, float], expected: list[float]
) -> None:
    """With two updates an epoch."""
    recipe = Recipe(schedule="phases", **fields)  # pyright: ignore[reportArgumentType]
    assert rates(recipe) == pytest.approx(expected)


def test_the_published_final_training_has_its_four_phases() -> None:
    """MetaQNN on CIFAR-10: 40, 40, 160 and 60 epochs."""
    recipe = Recipe(epochs=300, schedule="phases", phases="0.025x40,0.0125x40,1e-4x160,1e-5x60")
    assert rates(recipe, updates_per_epoch=1) == [0.025] * 40 + [0.0125] * 40 + [1e-4] * 160 + [1e-5] * 60


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("0.1x3", ((0.1, 3),), id="one"),
        pytest.param("0.1x3,1e-4x2", ((0.1, 3), (1e-4, 2)), id="two"),
        pytest.param(" 0.1x3 ,  1x2 ", ((0.1, 3), (1.0, 2)), id="blanks are no matter"),
    ],
)
def test_phases_are_read_in_their_order(text: str, expected: tuple[tuple[float, int], ...]) -> None:
    """They are separated by commas."""
    assert Recipe(schedule="phases", phases=text).learning_rate_phases == expected


@pytest.mark.parametrize(
    "text",
    [
        *("0.1", "0.1x", "x3", "x", "0.1x0", "0.1x-1", "0.1x1.5", "0x3", "-0.1x3", "nanx3", "infx3"),
        *("fastx3", "0.1x3x2", "0.1x3,", ",0.1x3", "0.1x3,,0.1x3", "0.1x3;0.1x3", "0.1*3", " "),
    ],
)
def test_unreadable_phases_are_refused(text: str) -> None:
    """The message shows how to write them and what came."""
    with pytest.raises(InvalidArgument) as caught:
        Recipe(schedule="phases", phases=text)
    expected = "phases must be pairs of a learning rate and epochs, e.g. '0.1x150,0.01x75'"
    assert str(caught.value) == f"{expected}, got {text!r}."


@pytest.mark.parametrize("value", [None, 0.1, [(0.1, 3)], ("0.1x3",)], ids=repr)
def test_phases_are_text(value: object) -> None:
    """A recipe file holds them in one string."""
    with pytest.raises(InvalidArgument, match="phases must be text, got "):
        Recipe(schedule="phases", phases=value)  # pyright: ignore[reportArgumentType]


def test_the_schedule_of_phases_needs_phases() -> None:
    """Without them there is no learning rate."""
    with pytest.raises(InvalidArgument, match="schedule = 'phases' and phases belong together, got 'phases' and ''"):
        Recipe(schedule="phases")


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_phases_need_their_schedule(schedule: str) -> None:
    """They would be ignored without a word."""
    with pytest.raises(InvalidArgument, match=f"belong together, got '{schedule}' and '0.1x3'"):
        Recipe(schedule=schedule, phases="0.1x3")


def test_a_recipe_with_phases_survives_the_way_through_json() -> None:
    """Its fields are its constructor's arguments."""
    recipe = Recipe(schedule="phases", phases="0.1x3, 0.01x2", initialisation="he")
    assert Recipe(**json.loads(json.dumps(recipe.to_json()))) == recipe


class Ones(DeviceSplit):
    """Images [N, 1] of a single 1, all of class 0."""

    def __init__(self, count: int) -> None:
        """Make `count` images."""
        super().__init__(torch.zeros(count, dtype=torch.int64), torch.zeros(1), torch.ones(1))

    def pixels(self, indices: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(indices), 1)

    def images(self, indices: torch.Tensor) -> torch.Tensor:
        return self.pixels(indices)


@pytest.mark.parametrize("factor", [1.0, 0.4])
def test_the_optimiser_gets_the_learning_rate_of_its_phase(factor: float) -> None:
    """Plain gradient descent moves a bias by rate times gradient, epoch by epoch, times the factor of a restart."""
    phases = "0.5x1,0.25x1,0.125x1"
    recipe = Recipe(epochs=3, batch_size=4, schedule="phases", phases=phases, momentum=0.0, weight_decay=0.0)
    model = nn.Linear(1, 2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    fitting = Fitting(model, Ones(4), recipe, generator(), factor)
    found = []
    for _ in range(3):
        before = model.bias.detach().clone()
        gradient = 1 - torch.softmax(model(torch.ones(1, 1)), 1)[0, 0].detach()
        fitting.run_epoch()
        found.append(float((model.bias.detach() - before)[0] / gradient))
    assert found == pytest.approx([0.5 * factor, 0.25 * factor, 0.125 * factor], rel=1e-5)
