"""The published search of EAS: its values with their certainty, that they are accepted, and how they are printed.

Expected values are those of Cai et al. (AAAI 2018, arXiv 1707.04873) and of the code released with it, where it could
be read; of the paper itself no text could be opened.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import typer

from nas_agents.eas import EAS
from nas_benchmarks.published import MEMORY, OURS, VERIFIED, published_search
from nas_gym.cli.estimate import innermost
from nas_gym.cli.search import Settings, search
from nas_gym.datasets.catalogue import FACTS
from nas_gym.datasets.splits import share_sizes
from nas_gym.errors import InvalidArgument
from nas_gym.networks.recipe import Recipe

EAS_ID = "NAS-EAS-v0"
DATASETS = ("cifar10", "svhn")
ENV: dict[str, Any] = {
    "start": "paper",
    "wider": 4,
    "deeper": 5,
    "max_layers": 10,
    "objective": "tangent_accuracy",
    "repeat_query": "cache+charge",
    "epochs": 20,
    "batch_size": 64,
    "optimiser": "sgd",
    "momentum": 0.9,
    "learning_rate": 0.02,
    "schedule": "cosine",
    "weight_decay": 1e-4,
    "dropout": 0.0,
    "start_learning_rate": 0.1,
    "wider_noise": 0.01,
    "deeper_noise": 0.001,
    "optimiser_state": "reset",
}
BY_DATASET = {
    "cifar10": {"augmentation": "crop,flip", "start_epochs": 300},
    "svhn": {"augmentation": "none", "start_epochs": 40},
}
UNSURE = {"start": MEMORY, "dropout": OURS, "optimiser_state": OURS}


def values(part: Any) -> dict[str, Any]:
    """Return the bare values of a part of a search."""
    return {name: one.value for name, one in part.items()}


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_children_are_those_of_the_sources(dataset: str) -> None:
    """All arguments, no more and no fewer, but the share of the validation images."""
    found = values(published_search(EAS_ID, "published", dataset).env_args)
    share = found.pop("valid_share")
    assert found == ENV | BY_DATASET[dataset] | {"dataset": dataset}
    assert share_sizes(FACTS[dataset].training_images, (share,))[1] == 5000


def test_the_certainty_of_every_value_is_told() -> None:
    """What the released code says is verified."""
    published = published_search(EAS_ID, "published")
    assert {name: one.source for name, one in published.env_args.items() if one.source != VERIFIED} == UNSURE
    assert (published.budget.value, published.budget.source) == (300, MEMORY)


@pytest.mark.parametrize(("dataset", "epochs"), [("cifar10", 300), ("svhn", 40)])
def test_the_best_network_is_trained_as_the_released_code_does(dataset: str, epochs: int) -> None:
    """From a learning rate of 0.1 along half a cosine."""
    final = values(published_search(EAS_ID, "published", dataset).final)
    assert final.pop("top") == 1
    recipe = Recipe(**final)
    assert (recipe.epochs, recipe.learning_rate, recipe.schedule, recipe.batch_size) == (epochs, 0.1, "cosine", 64)
    assert (recipe.momentum, recipe.weight_decay) == (0.9, 1e-4)


@pytest.mark.parametrize("dataset", DATASETS)
def test_environment_and_agent_take_the_values(dataset: str, tmp_path: Path) -> None:
    """Every field of the recipe and the preset of the agent arrive; nothing is loaded or trained."""
    published = published_search(EAS_ID, "published", dataset)
    env_args, agent_args = values(published.env_args), values(published.agent_args)
    envs, agent = Settings(EAS_ID, published.agent, 300, 0, None, env_args, agent_args).make(tmp_path)
    evaluator: Any = innermost(envs.evaluator)
    space: Any = envs.space
    recipe = evaluator.recipe.to_json()
    assert {name: recipe[name] for name in recipe if name in env_args} == {
        name: value for name, value in env_args.items() if name in recipe
    }
    assert evaluator.task.start_recipe.epochs == env_args["start_epochs"]
    assert agent.config == EAS.presets["eas2018"]
    assert (envs.num_envs, str(space.start.grown())) == (10, "C16x3 P C32x3 P C64x3 P C128x3 A F256")
    envs.close()


def test_data_it_was_not_published_for_are_refused() -> None:
    """Naming those it was."""
    with pytest.raises(InvalidArgument, match="EAS was published for cifar10, svhn, not for 'digits'"):
        published_search(EAS_ID, "published", "digits")


def test_values_and_computation_are_printed(run_app: Any) -> None:
    """On a network small enough to be counted at once."""
    app = typer.Typer()
    app.command()(search)
    options = ("--env", EAS_ID, "--preset", "published", "--estimate", "--env-arg", "start=small")
    shown = run_app(app)(*options, "--env-arg", "max_layers=4", "--env-arg", "deeper=1")
    assert re.search(r"budget\s+300\s+from memory", shown)
    assert re.search(r"start_learning_rate\s+0\.1\s+verified", shown)
    assert re.search(r"start\s+paper\s+from memory\s+you chose small", shown)
    assert re.search(r"300 children take .* GPU-days at an assumed 10 TFLOP/s\. Published: 5 GPUs", shown)
