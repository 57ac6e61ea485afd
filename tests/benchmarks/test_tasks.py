"""What is searched, and what is known of it."""

from __future__ import annotations

import itertools
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pytest

from nas_benchmarks.tasks import TASKS, Task, WholeSpace, named, uniform_reward
from nas_gym.errors import InvalidArgument, UnknownName
from nas_gym.evaluators.core import Metric

SYNTHETIC = Task("synthetic", "NAS-Cell-v0", {"evaluator": "synthetic"})


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_found_by_its_name(name: str) -> None:
    """It carries it."""
    assert named(name).name == name


def test_an_unknown_task_names_the_nearest() -> None:
    """And all others."""
    with pytest.raises(
        UnknownName, match=r"unknown task 'cell-digit'\. Did you mean 'cell-digits'\? Known: cell-digits"
    ):
        named("cell-digit")


@pytest.mark.parametrize("name", TASKS)
def test_a_task_makes_its_environments(name: str) -> None:
    """With its arguments, in the mode that the runner needs."""
    envs = named(name).make_envs(3)
    assert (envs.spec.id, envs.num_envs, envs.metadata["autoreset_mode"].value, envs.evaluator.table.name) == (
        named(name).env,
        3,
        "Disabled",
        named(name).arguments["table"],
    )


def test_arguments_are_added_to_a_copy() -> None:
    """The task itself stays as it is."""
    changed = SYNTHETIC.with_arguments(evaluation_seed=3)
    assert (dict(changed.arguments), dict(SYNTHETIC.arguments)) == (
        {"evaluator": "synthetic", "evaluation_seed": 3},
        {"evaluator": "synthetic"},
    )


def test_arguments_cannot_be_changed() -> None:
    """Neither through the task nor through what it was made of."""
    given = {"evaluator": "synthetic"}
    task: Any = Task("x", "NAS-Cell-v0", given)
    given["evaluator"] = "cost"
    with pytest.raises(TypeError):
        task.arguments["evaluator"] = "cost"
    assert task.arguments["evaluator"] == "synthetic"


def test_a_task_crosses_process_boundaries() -> None:
    """Workers receive it."""
    pickler: Any = ForkingPickler
    assert pickler.loads(pickler.dumps(SYNTHETIC)) == SYNTHETIC


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [("", {}, "needs a name"), ("x", {"table": ["digits"]}, r"argument table of task 'x' must be text")],
)
def test_a_task_is_checked(name: str, arguments: Any, message: str) -> None:
    """When it is made."""
    with pytest.raises(InvalidArgument, match=message):
        Task(name, "NAS-Cell-v0", arguments)


# --- whole spaces ----------------------------------------------------------------------------------


def test_a_whole_space_is_what_single_reports_say() -> None:
    """Every 500th architecture of the cell space, looked up by itself."""
    envs = named("cell-digits").make_envs(1)
    space = WholeSpace.of(envs)
    assert space is not None
    encodings = list(itertools.islice(envs.space.enumerate(), 0, None, 500))
    reports = [envs.evaluator.report(encoding) for encoding in encodings]
    assert (space.rewards[::500].tolist(), space.held_out[::500].tolist()) == (
        [report["valid_accuracy"] for report in reports],
        [report["test_accuracy"] for report in reports],
    )


def test_the_cell_space_has_the_published_number_of_graphs() -> None:
    """15,625 encodings are 6,466 architectures."""
    space = WholeSpace.of(named("cell-digits").make_envs(1))
    assert space is not None
    assert (len(space.codes), len(np.unique(space.codes))) == (15_625, 6_466)


def test_isomorphic_architectures_are_equally_good() -> None:
    """In this table they were trained once, so the yardstick may take any of them."""
    space = WholeSpace.of(named("cell-digits").make_envs(1))
    assert space is not None
    assert len(np.unique(space.codes)) == len(np.unique(np.stack([space.codes, space.held_out]), axis=1).T)


def test_the_yardstick_is_the_reference_of_the_table() -> None:
    """Best, mean and worst of its test accuracy."""
    envs = named("metaqnn-digits").make_envs(1)
    space, reference = WholeSpace.of(envs), envs.evaluator.reference("test_accuracy")
    assert space is not None
    found = (space.yardstick.best, space.yardstick.mean, space.yardstick.worst)
    assert found == pytest.approx((reference.best, reference.mean, reference.worst), rel=1e-12)


def test_the_floor_of_digits_is_half_an_image() -> None:
    """Its two best values differ by one test image of 647, averaged over three seeds."""
    space = WholeSpace.of(named("metaqnn-digits").make_envs(1))
    assert space is not None
    assert space.yardstick.floor == pytest.approx(0.5 / (3 * 647))


def test_a_metric_that_is_minimised_is_negated() -> None:
    """The best of the space is the least of it."""
    envs = named("metaqnn-digits").make_envs(1)
    metrics = {**envs.evaluator.metrics, "test_accuracy": Metric("minimize", "fraction", held_out=True)}
    envs.evaluator.metrics = metrics
    space = WholeSpace.of(envs)
    assert space is not None
    assert space.yardstick.best == -envs.evaluator.reported("test_accuracy").min()


def test_noise_that_is_kept_is_known_under_its_seed() -> None:
    """An architecture always gets the answer it got first; another seed gives other answers."""
    noisy = named("cell-digits").with_arguments(noise="sample")
    spaces = [WholeSpace.of(noisy.with_arguments(evaluation_seed=seed).make_envs(1)) for seed in (0, 1)]
    first, other = (space.rewards.tolist() for space in spaces if space is not None)
    assert first != other


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"evaluator": "synthetic"}, id="no table"),
        pytest.param({"noise": "sample", "repeat_query": "resample+charge"}, id="noise"),
    ],
)
def test_what_is_not_known_or_noisy_is_no_whole_space(arguments: dict[str, Any]) -> None:
    """Nothing exact could be said of it."""
    assert WholeSpace.of(Task("x", "NAS-Cell-v0", arguments).make_envs(1)) is None


def test_the_mean_reward_of_an_unknown_space_is_refused() -> None:
    """By the name of the task."""
    with pytest.raises(InvalidArgument, match="the space of 'synthetic' is not wholly known"):
        uniform_reward(SYNTHETIC)
