"""How a network is trained: allowed values and schedules."""

from __future__ import annotations

import math

import pytest

from nas_gym.errors import InvalidArgument
from nas_gym.networks.recipe import Recipe


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "epochs must be an integer of at least 1, got 0"),
        ("epochs", 1.5, "epochs must be an integer"),
        ("batch_size", 1, "batch_size must be an integer of at least 2, got 1"),
        ("learning_rate", 0.0, "learning_rate must be positive"),
        ("learning_rate", math.nan, "learning_rate must be positive"),
        ("learning_rate", "fast", "learning_rate must be positive, got 'fast'"),
        ("momentum", 1.0, "momentum must be at least 0 and below 1"),
        ("weight_decay", -1e-4, "weight_decay must be at least 0"),
        ("label_smoothing", 1.0, "label_smoothing must be"),
        ("dropout", -0.1, "dropout must be"),
        ("step_factor", 0.0, "step_factor must be positive and at most 1"),
        ("restart_factor", 1.0, "restart_factor must be positive and below 1"),
        ("optimiser", "lion", "optimiser must be one of sgd, adam, rmsprop, got 'lion'"),
        ("schedule", "linear", "schedule must be one of cosine, step, constant"),
        ("precision", "int8", "precision must be one of"),
        ("class_weights", "some", "class_weights must be one of none, balanced"),
        ("augmentation", "crop,spin", "augmentation must be 'none' or a comma-separated list"),
        ("augmentation", 3, "augmentation must be text"),
        ("warm_up_epochs", 6, "warm_up_epochs must be below epochs = 6"),
        ("restarts", -1, "restarts must be an integer of at least 0"),
    ],
)
def test_an_impossible_recipe_is_refused(field: str, value: object, message: str) -> None:
    """The message names the field, what is allowed and what came."""
    with pytest.raises(InvalidArgument, match=message):
        Recipe(**{field: value})  # pyright: ignore[reportArgumentType]


def test_a_recipe_survives_the_way_through_json() -> None:
    """Its fields are its constructor's arguments."""
    recipe = Recipe(epochs=3, batch_size=20, learning_rate=0.05, augmentation="crop, flip")
    assert Recipe(**recipe.to_json()) == recipe


def test_augmentations_keep_their_order() -> None:
    """Blanks are no matter."""
    assert Recipe(augmentation="cutout, flip").augmentations == ("cutout", "flip")


@pytest.mark.parametrize(
    ("recipe", "rates"),
    [
        pytest.param(Recipe(epochs=2, learning_rate=1.0, schedule="constant"), [1, 1, 1, 1], id="constant"),
        pytest.param(
            Recipe(epochs=4, learning_rate=1.0, schedule="step", step_epochs=1, step_factor=0.5),
            [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125],
            id="step",
        ),
        pytest.param(
            Recipe(epochs=2, learning_rate=1.0),
            [1, (1 + math.cos(math.pi / 4)) / 2, 0.5, (1 + math.cos(3 * math.pi / 4)) / 2],
            id="cosine",
        ),
        pytest.param(
            Recipe(epochs=3, learning_rate=1.0, warm_up_epochs=1),
            [0.5, 1, 1, (1 + math.cos(math.pi / 4)) / 2, 0.5, (1 + math.cos(3 * math.pi / 4)) / 2],
            id="warm-up",
        ),
        pytest.param(Recipe(epochs=10, learning_rate=1e-3, schedule="step"), [1e-3] * 10 + [2e-4] * 10, id="MetaQNN's"),
    ],
)
def test_learning_rates_are_those_worked_out_by_hand(recipe: Recipe, rates: list[float]) -> None:
    """With two updates an epoch."""
    found = [recipe.learning_rate_at(update, 2) for update in range(2 * recipe.epochs)]
    assert found == pytest.approx(rates)
