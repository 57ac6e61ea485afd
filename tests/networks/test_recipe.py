"""How a network is trained: allowed values and schedules."""

from __future__ import annotations

import json
import math

import pytest

from nas_gym.errors import InvalidArgument
from nas_gym.networks.recipe import Recipe, content_hash

REFUSED = [
    ("epochs", 0, "epochs must be an integer of at least 1, got 0"),
    ("epochs", 1.5, "epochs must be an integer"),
    ("epochs", True, "epochs must be an integer of at least 1, got True"),
    ("step_epochs", 0, "step_epochs must be an integer of at least 1"),
    ("warm_up_epochs", -1, "warm_up_epochs must be an integer of at least 0"),
    ("batch_size", 1, "batch_size must be an integer of at least 2, got 1"),
    ("learning_rate", 0.0, "learning_rate must be positive"),
    ("learning_rate", math.nan, "learning_rate must be positive"),
    ("learning_rate", math.inf, "learning_rate must be positive, got inf"),
    ("learning_rate", True, "learning_rate must be positive, got True"),
    ("learning_rate", "fast", "learning_rate must be positive, got 'fast'"),
    ("momentum", 1.0, "momentum must be at least 0 and below 1"),
    ("momentum", -0.1, "momentum must be at least 0 and below 1"),
    ("weight_decay", -1e-4, "weight_decay must be at least 0"),
    ("label_smoothing", 1.0, "label_smoothing must be at least 0 and below 1, got 1.0"),
    ("dropout", -0.1, "dropout must be at least 0 and below 1, got -0.1"),
    ("dropout", 1.0, "dropout must be at least 0 and below 1, got 1.0"),
    ("step_factor", 1.1, "step_factor must be positive and at most 1, got 1.1"),
    ("step_factor", 0.0, "step_factor must be positive and at most 1"),
    ("restart_factor", 1.0, "restart_factor must be positive and below 1"),
    ("optimiser", "lion", "optimiser must be one of sgd, adam, rmsprop, got 'lion'"),
    ("schedule", "linear", "schedule must be one of cosine, step, constant"),
    ("precision", "int8", "precision must be one of auto, float32, bfloat16, float16"),
    ("class_weights", "some", "class_weights must be one of none, balanced"),
    ("augmentation", "crop,spin", "augmentation must be 'none' or a comma-separated list"),
    ("augmentation", "crop,", "augmentation must be 'none' or a comma-separated list"),
    ("augmentation", 3, "augmentation must be text"),
    ("warm_up_epochs", 6, "warm_up_epochs must be below epochs = 6"),
    ("restarts", -1, "restarts must be an integer of at least 0"),
]


@pytest.mark.parametrize(
    ("field", "value", "message"), REFUSED, ids=[f"{field}={value!r}" for field, value, _ in REFUSED]
)
def test_an_impossible_recipe_is_refused(field: str, value: object, message: str) -> None:
    """The message names the field, what is allowed and what came."""
    with pytest.raises(InvalidArgument, match=message):
        Recipe(**{field: value})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"learning_rate": 1}, id="a whole learning rate"),
        pytest.param({"step_factor": 1}, id="steps that change nothing"),
        pytest.param({"momentum": 0, "weight_decay": 0, "label_smoothing": 0, "dropout": 0}, id="everything off"),
        pytest.param({"epochs": 2, "warm_up_epochs": 1}, id="one epoch after the warm-up"),
        pytest.param({"batch_size": 2, "epochs": 1, "step_epochs": 1}, id="smallest counts"),
    ],
)
def test_the_ends_of_the_ranges_are_allowed(fields: dict[str, float]) -> None:
    """What a message calls allowed is accepted."""
    found = Recipe(**fields).to_json()  # pyright: ignore[reportArgumentType]
    assert {name: found[name] for name in fields} == fields


def test_a_recipe_survives_the_way_through_json() -> None:
    """Its fields are its constructor's arguments."""
    recipe = Recipe(epochs=3, batch_size=20, learning_rate=0.05, augmentation="crop, flip")
    assert Recipe(**json.loads(json.dumps(recipe.to_json()))) == recipe


@pytest.mark.parametrize(
    ("text", "names"),
    [
        pytest.param("none", (), id="none"),
        pytest.param("", (), id="empty"),
        pytest.param("flip", ("flip",), id="one"),
        pytest.param("cutout, flip", ("cutout", "flip"), id="blanks are no matter"),
    ],
)
def test_augmentations_are_listed_in_their_order(text: str, names: tuple[str, ...]) -> None:
    """They are separated by commas."""
    assert Recipe(augmentation=text).augmentations == names


def test_equal_content_has_equal_hashes() -> None:
    """The order of the fields is no content."""
    fields = Recipe().to_json()
    assert content_hash(dict(reversed(fields.items()))) == content_hash(fields)


@pytest.mark.parametrize("field", [name for name, value in Recipe().to_json().items() if isinstance(value, float)])
def test_every_number_of_a_recipe_is_content(field: str) -> None:
    """Another value is another hash."""
    fields = Recipe().to_json()
    assert content_hash({**fields, field: fields[field] + 1e-9}) != content_hash(fields)


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
        pytest.param(
            Recipe(epochs=4, learning_rate=1.0, schedule="step", step_epochs=2, step_factor=0.1, warm_up_epochs=1),
            [0.5, 1, 1, 1, 1, 1, 0.1, 0.1],
            id="steps count from the end of the warm-up",
        ),
        pytest.param(
            Recipe(epochs=3, learning_rate=1.0, schedule="constant", warm_up_epochs=2),
            [0.25, 0.5, 0.75, 1, 1, 1],
            id="warm-up of two epochs",
        ),
        pytest.param(Recipe(epochs=10, learning_rate=1e-3, schedule="step"), [1e-3] * 10 + [2e-4] * 10, id="MetaQNN's"),
    ],
)
def test_learning_rates_are_those_worked_out_by_hand(recipe: Recipe, rates: list[float]) -> None:
    """With two updates an epoch."""
    found = [recipe.learning_rate_at(update, 2) for update in range(2 * recipe.epochs)]
    assert found == pytest.approx(rates)
