"""The searches of the papers: every value, where it comes from, that it is accepted, and how it is printed.

Expected values are those of Baker et al. (ICLR 2017, arXiv 1611.02167) with the code released with it, and of Zhong et
al. (CVPR 2018, arXiv 1708.05552), of which no source but abstracts, notes and ports could be opened.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from nas_benchmarks.published import MEMORY, OURS, PORT, VERIFIED, PublishedSearch, published_search, published_training
from nas_benchmarks.records import RunDirectory
from nas_gym.cli import main
from nas_gym.cli import search as search_command
from nas_gym.cli.estimate import innermost
from nas_gym.cli.search import Settings
from nas_gym.datasets.catalogue import FACTS
from nas_gym.datasets.splits import share_sizes
from nas_gym.errors import InvalidArgument, UnknownName
from nas_gym.networks.recipe import Recipe
from nas_gym.objectives import OBJECTIVES

METAQNN, BLOCKQNN = "NAS-MetaQNN-v0", "NAS-BlockQNN-v0"
DATASETS = ("cifar10", "svhn", "mnist")
SEARCHES = [*((METAQNN, dataset) for dataset in DATASETS), (BLOCKQNN, "cifar100")]
IDS = ["metaqnn-cifar10", "metaqnn-svhn", "metaqnn-mnist", "blockqnn"]

METAQNN_ENV: dict[str, Any] = {
    "widths": "published",
    "kernel_rule": "paper",
    "metric": "best_valid_accuracy",
    "repeat_query": "cache+free",
    "epochs": 20,
    "batch_size": 128,
    "optimiser": "adam",
    "learning_rate": 0.001,
    "schedule": "step",
    "step_epochs": 5,
    "step_factor": 0.2,
    "weight_decay": 0.0005,
    "initialisation": "xavier",
    "restarts": 5,
    "restart_factor": 0.4,
}
BY_DATASET: dict[str, dict[str, Any]] = {
    "cifar10": {"max_depth": 18, "augmentation": "flip"},
    "svhn": {"max_depth": 12, "augmentation": "none"},
    "mnist": {"max_depth": 12, "augmentation": "none"},
}
BLOCKQNN_ENV: dict[str, Any] = {
    "dataset": "cifar100",
    "valid_share": 1 / 6,
    "max_index": 23,
    "channels": 32,
    "blocks_per_stage": 4,
    "stages": 3,
    "objective": "blockqnn",
    "repeat_query": "cache+charge",
    "epochs": 12,
    "batch_size": 256,
    "optimiser": "adam",
    "learning_rate": 0.001,
    "schedule": "step",
    "step_epochs": 5,
    "step_factor": 0.2,
    "weight_decay": 0.0,
    "initialisation": "he",
    "restarts": 3,
    "restart_factor": 0.4,
    "augmentation": "none",
}
METAQNN_EPSILONS = ((1.0, 1500), *((e, 100) for e in (0.9, 0.8, 0.7)), *((e / 10, 150) for e in range(6, 0, -1)))
BLOCKQNN_ITERATIONS = {1.0: 95, 0.9: 7, 0.8: 7, 0.7: 7, 0.6: 10, 0.5: 10, 0.4: 10, 0.3: 10, 0.2: 10, 0.1: 12}
AGENTS: dict[str, dict[str, Any]] = {
    METAQNN: {
        "learning_rate": 0.01,
        "discount": 1.0,
        "initial_value": 0.5,
        "replay_draws": 100,
        "counted": "architectures",
        "intermediate_reward": "none",
        "epsilon_schedule": METAQNN_EPSILONS,
    },
    BLOCKQNN: {
        "learning_rate": 0.01,
        "discount": 1.0,
        "initial_value": 0.5,
        "batch_size": 64,
        "replay_draws": 1,
        "counted": "episodes",
        "intermediate_reward": "length",
        "epsilon_schedule": tuple((epsilon, 64 * count) for epsilon, count in BLOCKQNN_ITERATIONS.items()),
    },
}
PHASES = {
    "cifar10": ((0.025, 40), (0.0125, 40), (1e-4, 160), (1e-5, 60)),
    "svhn": ((0.025, 5), (0.0125, 5), (1e-4, 20), (1e-5, 10)),
}

TINY_METAQNN = ("dataset=mnist", "max_depth=2", "widths=tiny")
TINY_BLOCKQNN = ("max_index=3", "channels=4", "blocks_per_stage=1", "stages=1")


def command(*arguments: object) -> tuple[int, str, str]:
    """Run the command line in this process and return exit code, output and errors."""
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        patch.setenv("COLUMNS", "300")
        patch.setattr(sys, "argv", ["nas-gym", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


def estimated(env: str, env_args: tuple[str, ...], *options: object) -> str:
    """Return what ``--preset published --estimate`` prints."""
    given = (option for argument in env_args for option in ("--env-arg", argument))
    code, out, err = command("search", "--env", env, "--preset", "published", "--estimate", *given, *options)
    assert code == 0, err
    return out


def values(part: Any) -> dict[str, Any]:
    """Return the bare values of a part of a search."""
    return {name: one.value for name, one in part.items()}


def recipe_of(published: PublishedSearch) -> dict[str, Any]:
    """Return the fields of the recipe among the arguments of the environment."""
    return {name: value for name, value in values(published.env_args).items() if name in Recipe().to_json()}


def final_recipe(published: PublishedSearch) -> Recipe:
    """Return how the best architectures are trained in the end."""
    final = values(published.final)
    return Recipe(**recipe_of(published) | {name: final[name] for name in final if name not in ("top", "ensemble")})


# --- MetaQNN ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize(("name", "value"), METAQNN_ENV.items(), ids=METAQNN_ENV)
def test_metaqnn_searches_with_the_published_value(dataset: str, name: str, value: object) -> None:
    """On each of its data sets alike."""
    assert published_search(METAQNN, "published", dataset).env_args[name].value == value


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("name", ["max_depth", "augmentation"])
def test_metaqnn_differs_between_its_data_sets(dataset: str, name: str) -> None:
    """Eighteen layers and mirrored images for CIFAR-10, twelve and none for the others."""
    assert published_search(METAQNN, "published", dataset).env_args[name].value == BY_DATASET[dataset][name]


@pytest.mark.parametrize("dataset", DATASETS)
def test_metaqnn_has_no_value_beside_those(dataset: str) -> None:
    """So that the tests above look at all of them."""
    known = {*METAQNN_ENV, *BY_DATASET[dataset], "dataset", "valid_share"}
    assert set(published_search(METAQNN, "published", dataset).env_args) == known


@pytest.mark.parametrize("dataset", DATASETS)
def test_metaqnn_validates_on_5000_images(dataset: str) -> None:
    """Exactly, whatever the rounding of the share."""
    share = published_search(METAQNN, "published", dataset).env_args["valid_share"].value
    assert share_sizes(FACTS[dataset].training_images, (share,))[1] == 5000


@pytest.mark.parametrize("dataset", DATASETS)
def test_metaqnn_trains_the_best_ten_and_joins_five(dataset: str) -> None:
    """By its section 5."""
    final = values(published_search(METAQNN, "published", dataset).final)
    assert (final["top"], final["ensemble"]) == (10, 5)


@pytest.mark.parametrize("dataset", PHASES)
def test_metaqnn_trains_the_best_with_the_published_learning_rates(dataset: str) -> None:
    """Four phases, to their end."""
    recipe = final_recipe(published_search(METAQNN, "published", dataset))
    expected = (PHASES[dataset], sum(epochs for _, epochs in PHASES[dataset]))
    assert (recipe.learning_rate_phases, recipe.epochs) == expected


@pytest.mark.parametrize("dataset", PHASES)
@pytest.mark.parametrize(
    ("name", "value"), [("optimiser", "sgd"), ("momentum", 0.9), ("weight_decay", 5e-4), ("schedule", "phases")]
)
def test_metaqnn_trains_the_best_with_the_published_optimiser(dataset: str, name: str, value: object) -> None:
    """SGD with momentum."""
    assert getattr(final_recipe(published_search(METAQNN, "published", dataset)), name) == value


@pytest.mark.parametrize(("dataset", "augmentation"), [("cifar10", "crop,flip"), ("svhn", "none"), ("mnist", "none")])
def test_metaqnn_shifts_and_mirrors_photographs_only(dataset: str, augmentation: str) -> None:
    """In the final training."""
    assert final_recipe(published_search(METAQNN, "published", dataset)).augmentation == augmentation


@pytest.mark.parametrize(
    ("name", "value"), [("epochs", 40), ("optimiser", "adam"), ("step_epochs", 5), ("step_factor", 0.2)]
)
def test_metaqnn_trains_the_best_for_mnist_as_in_the_search(name: str, value: object) -> None:
    """But for 40 epochs."""
    assert getattr(final_recipe(published_search(METAQNN, "published", "mnist")), name) == value


@pytest.mark.parametrize("name", [*METAQNN_ENV, "max_depth", "augmentation", "valid_share"])
def test_metaqnn_was_verified(name: str) -> None:
    """In the paper or the code released with it."""
    assert published_search(METAQNN, "published", "cifar10").env_args[name].source == VERIFIED


def test_a_value_that_differs_from_the_paper_is_ours() -> None:
    """Images are shifted by four pixels instead of five."""
    assert published_search(METAQNN, "published", "cifar10").final["augmentation"].source == OURS


# --- BlockQNN --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value"), BLOCKQNN_ENV.items(), ids=BLOCKQNN_ENV)
def test_blockqnn_searches_with_the_published_value(name: str, value: object) -> None:
    """On CIFAR-100."""
    assert published_search(BLOCKQNN, "published").env_args[name].value == value


def test_blockqnn_has_no_value_beside_those() -> None:
    """So that the test above looks at all of them."""
    assert set(published_search(BLOCKQNN, "published").env_args) == set(BLOCKQNN_ENV)


def test_blockqnn_weighs_computation_and_density() -> None:
    """With mu = 1 and rho = 8."""
    name = published_search(BLOCKQNN, "published").env_args["objective"].value
    objective = OBJECTIVES[name]()
    assert (objective.mu, objective.rho) == (1, 8)


def test_blockqnn_trains_the_best_with_the_published_learning_rates() -> None:
    """A tenth after 150 epochs and another after 225, of 300."""
    recipe = final_recipe(published_search(BLOCKQNN, "published"))
    assert (recipe.learning_rate_phases, recipe.epochs) == (((0.1, 150), (0.01, 75), (0.001, 75)), 300)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimiser", "sgd"),
        ("batch_size", 128),
        ("momentum", 0.9),
        ("weight_decay", 5e-4),
        ("augmentation", "crop,flip"),
    ],
)
def test_blockqnn_trains_the_best_with_the_published_optimiser(name: str, value: object) -> None:
    """SGD with momentum, shifted and mirrored images."""
    assert getattr(final_recipe(published_search(BLOCKQNN, "published")), name) == value


@pytest.mark.parametrize(
    ("name", "source"),
    [
        *((name, MEMORY) for name in ("max_index", "restarts", "restart_factor", "augmentation", "valid_share")),
        *((name, PORT) for name in ("channels", "initialisation")),
        ("weight_decay", OURS),
    ],
)
def test_blockqnn_says_where_a_value_comes_from(name: str, source: str) -> None:
    """The paper itself could not be opened."""
    assert published_search(BLOCKQNN, "published").env_args[name].source == source


def test_blockqnn_may_be_searched_on_other_data() -> None:
    """Which is then ours."""
    dataset = published_search(BLOCKQNN, "published", "cifar10").env_args["dataset"]
    assert (dataset.value, dataset.source) == ("cifar10", OURS)


# --- what takes the values -------------------------------------------------------------------------


@pytest.fixture(scope="module", params=SEARCHES, ids=IDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any, Any]]:
    """Return a published search with its environments and its agent; nothing is loaded or trained."""
    env, dataset = request.param
    published = published_search(env, "published", dataset)
    budget, env_args, agent_args = published.budget.value, values(published.env_args), values(published.agent_args)
    settings = Settings(env, published.agent, budget, 0, None, env_args, agent_args)
    envs, agent = settings.make(tmp_path_factory.mktemp("published"))
    yield env, envs, agent
    envs.close()


def test_the_environment_trains_by_the_published_recipe(made: tuple[Any, Any, Any]) -> None:
    """Every field that is published reaches its evaluator."""
    env, envs, _ = made
    evaluator = innermost(envs.evaluator)
    expected = recipe_of(published_search(env, "published", evaluator.task.source.name))
    found = evaluator.recipe.to_json()
    assert {name: found[name] for name in expected} == expected


def test_the_environment_takes_the_published_data(made: tuple[Any, Any, Any]) -> None:
    """Name and share of the validation images reach its evaluator."""
    env, envs, _ = made
    source = innermost(envs.evaluator).task.source
    expected = values(published_search(env, "published", source.name).env_args)
    assert (source.name, source.valid_share) == (expected["dataset"], expected["valid_share"])


def test_the_agent_has_the_published_settings(made: tuple[Any, Any, Any]) -> None:
    """Those of its paper, schedule included."""
    env, _, agent = made
    assert {name: getattr(agent.config, name) for name in AGENTS[env]} == AGENTS[env]


def test_the_budget_is_the_whole_schedule(made: tuple[Any, Any, Any]) -> None:
    """The search ends when the last epsilon does."""
    env, envs, agent = made
    dataset = innermost(envs.evaluator).task.source.name
    assert published_search(env, "published", dataset).budget.value == sum(n for _, n in agent.config.epsilon_schedule)


@pytest.mark.parametrize(("dataset", "depth", "side"), [("cifar10", 18, 32), ("svhn", 12, 32), ("mnist", 12, 28)])
def test_metaqnn_has_the_published_space(dataset: str, depth: int, side: int, tmp_path: Path) -> None:
    """Table 1 of the paper, with the images of the data set."""
    settings = Settings(
        METAQNN, "q_learning", 1, 0, None, values(published_search(METAQNN, "published", dataset).env_args), {}
    )
    space = settings.make(tmp_path)[0].space
    assert space.settings == {
        "max_depth": depth,
        "image_size": side,
        "filters": [64, 128, 256, 512],
        "kernels": [1, 3, 5],
        "pools": [[5, 3], [3, 2], [2, 2]],
        "neurons": [512, 256, 128],
        "max_fully_connected": 2,
        "pool_first": False,
        "kernel_rule": "paper",
    }


def test_blockqnn_has_the_published_network(tmp_path: Path) -> None:
    """Blocks of up to 23 layers, four of them in each of three stages, 32 channels at first."""
    settings = Settings(
        BLOCKQNN, "q_learning", 1, 0, None, values(published_search(BLOCKQNN, "published").env_args), {}
    )
    envs, _ = settings.make(tmp_path)
    sizes = innermost(envs.evaluator).task.sizes
    assert (envs.space.max_index, dict(sizes)) == (23, {"channels": 32, "blocks_per_stage": 4, "stages": 3})


@pytest.mark.parametrize(("env", "dataset"), SEARCHES, ids=IDS)
def test_the_final_training_is_a_recipe(env: str, dataset: str) -> None:
    """Whose phases, where it has any, are as long as itself."""
    recipe = final_recipe(published_search(env, "published", dataset))
    assert sum(epochs for _, epochs in recipe.learning_rate_phases) in (0, recipe.epochs)


@pytest.mark.parametrize(("env", "dataset"), SEARCHES, ids=IDS)
def test_the_final_training_of_a_run_is_that_of_its_data(env: str, dataset: str, tmp_path: Path) -> None:
    """`nas-gym train RUN --preset published` reads both from the configuration of the run."""
    (tmp_path / "config.json").write_text(json.dumps({"env": env, "env_args": {"dataset": dataset}}))
    expected = values(published_search(env, "published", dataset).final)
    assert published_training(RunDirectory(tmp_path), "published") == expected


# --- the command -----------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Return what the command asks for, of which nothing is printed or computed."""
    found: list[Settings] = []
    monkeypatch.setattr(search_command, "print_published", lambda settings, _: found.append(settings))
    return found


def ask(env: str, *options: str) -> None:
    """Ask for an estimate of a published search."""
    code, _, err = command("search", "--env", env, "--preset", "published", "--estimate", *options)
    assert code == 0, err


@pytest.mark.parametrize(("env", "dataset"), [(METAQNN, "cifar10"), (BLOCKQNN, "cifar100")])
def test_the_preset_is_the_whole_search(asked: list[Settings], env: str, dataset: str) -> None:
    """Agent, budget and all arguments, on the data set of the paper where none is named."""
    ask(env)
    published = published_search(env, "published", dataset)
    expected = (published.agent, published.budget.value, values(published.env_args), values(published.agent_args))
    assert (asked[0].agent, asked[0].budget, asked[0].env_args, asked[0].agent_args) == expected


def test_an_argument_of_the_environment_wins(asked: list[Settings]) -> None:
    """All others stay as published."""
    ask(METAQNN, "--env-arg", "epochs=3")
    assert asked[0].env_args == values(published_search(METAQNN, "published").env_args) | {"epochs": 3}


def test_an_argument_beyond_the_preset_is_added(asked: list[Settings]) -> None:
    """A limit, for example."""
    ask(METAQNN, "--env-arg", "max_parameters=1000")
    assert asked[0].env_args == values(published_search(METAQNN, "published").env_args) | {"max_parameters": 1000}


def test_a_setting_of_the_agent_wins(asked: list[Settings]) -> None:
    """On top of the preset of the agent."""
    ask(METAQNN, "--agent-arg", "replay_draws=128")
    assert asked[0].agent_args == {"preset": "metaqnn", "replay_draws": 128}


def test_a_budget_wins(asked: list[Settings]) -> None:
    """Over that of the paper."""
    ask(METAQNN, "--budget", "7")
    assert asked[0].budget == 7


def test_another_agent_has_its_own_settings(asked: list[Settings]) -> None:
    """Those of the published one are not its."""
    ask(METAQNN, "--agent", "evolution")
    assert (asked[0].agent, asked[0].agent_args) == ("evolution", {})


def test_the_data_set_decides_the_values(asked: list[Settings]) -> None:
    """Those of MNIST are printed for MNIST."""
    ask(METAQNN, "--env-arg", "dataset=mnist")
    assert asked[0].env_args == values(published_search(METAQNN, "published", "mnist").env_args)


@pytest.fixture(scope="module")
def metaqnn() -> str:
    """Return what is printed for a small search with MetaQNN's other values."""
    return estimated(METAQNN, TINY_METAQNN, "--budget", 7, "--agent-arg", "preset=blockqnn")


@pytest.fixture(scope="module")
def blockqnn() -> str:
    """Return what is printed for a small search with BlockQNN's other values."""
    return estimated(BLOCKQNN, TINY_BLOCKQNN)


@pytest.mark.parametrize(
    ("where", "name", "published", "chosen"),
    [
        ("--env-arg", "max_depth", "12", "2"),
        ("--env-arg", "widths", "published", "tiny"),
        ("search", "budget", "2700", "7"),
        ("--agent-arg", "preset", "metaqnn", "blockqnn"),
    ],
)
def test_a_chosen_value_is_printed_beside_the_published_one(
    metaqnn: str, where: str, name: str, published: str, chosen: str
) -> None:
    """In the column of the notes."""
    assert re.search(rf"^{where} +{name} +{published} +verified +you chose {chosen} *$", metaqnn, re.MULTILINE)


def test_a_value_that_was_not_chosen_has_its_note(metaqnn: str) -> None:
    """Here that of the validation images."""
    assert re.search(
        r"^--env-arg +valid_share +0\.0833\d+ +verified +5,000 images, stratified *$", metaqnn, re.MULTILINE
    )


@pytest.mark.parametrize(
    ("where", "name", "value", "source"),
    [
        ("--env-arg", "restarts", "3", MEMORY),
        ("--env-arg", "initialisation", "he", PORT),
        ("--env-arg", "weight_decay", r"0\.0", OURS),
        ("--env-arg", "dataset", "cifar100", VERIFIED),
        ("train", "phases", "0.1x150,0.01x75,0.001x75", PORT),
    ],
)
def test_every_value_is_printed_with_its_source(blockqnn: str, where: str, name: str, value: str, source: str) -> None:
    """Those of the final training, too."""
    assert re.search(rf"^{where} +{name} +{value} +{source}", blockqnn, re.MULTILINE)


@pytest.mark.parametrize(("env", "dataset"), [(METAQNN, "mnist"), (BLOCKQNN, "cifar100")])
def test_no_value_is_left_out(env: str, dataset: str, metaqnn: str, blockqnn: str) -> None:
    """One line a value."""
    printed = {tuple(line.split()[:2]) for line in (metaqnn if env == METAQNN else blockqnn).splitlines()}
    assert {(where, name) for where, name, _ in published_search(env, "published", dataset).rows()} <= printed


def test_the_published_cost_is_printed(blockqnn: str) -> None:
    """Beside that of this machine."""
    assert re.search(r"11,392 children take .* days on this machine.* Published: 32 GPUs for 3 days\.", blockqnn)


def test_deviations_are_printed(metaqnn: str) -> None:
    """What is not done as in the paper."""
    assert "Not as published: images are standardised per channel" in metaqnn


REFUSED = {
    "preset": (
        ("--env", METAQNN, "--preset", "publishd"),
        "unknown preset of a search 'publishd'. Did you mean 'published'",
    ),
    "environment": (("--preset", "published"), f"recorded for NAS-Cell-v0; there is one for {METAQNN}, {BLOCKQNN}, "),
    "data set": (
        ("--env", METAQNN, "--preset", "published", "--env-arg", "dataset=digits"),
        "MetaQNN was published for cifar10, svhn, mnist, not for 'digits'; name one with --env-arg dataset=",
    ),
    "argument": (
        ("--env", METAQNN, "--preset", "published", "--env-arg", "epoch=3", "--estimate"),
        "Did you mean 'epochs'",
    ),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_was_not_published_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    """With exit code 2 and a message that says what there is; nothing is written."""
    monkeypatch.chdir(tmp_path)
    code, _, err = command("search", *options)
    assert (code, message in " ".join(err.split()), list(tmp_path.iterdir())) == (2, True, []), err


def test_an_estimate_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No run directory is left."""
    monkeypatch.chdir(tmp_path)
    estimated(METAQNN, TINY_METAQNN)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("config", "preset", "kind"),
    [
        ({"env": METAQNN, "env_args": {"dataset": "cifar10"}}, "publishd", UnknownName),
        ({"env": "NAS-Cell-v0", "env_args": {}}, "published", InvalidArgument),
        ({"env": METAQNN, "env_args": {"dataset": "digits"}}, "published", InvalidArgument),
    ],
    ids=["preset", "environment", "data set"],
)
def test_a_final_training_that_was_not_published_is_refused(
    tmp_path: Path, config: dict[str, Any], preset: str, kind: type[Exception]
) -> None:
    """For the same reasons as a search."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(kind):
        published_training(RunDirectory(tmp_path), preset)
