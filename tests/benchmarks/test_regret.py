"""Q-learning against random search on tables and on a synthetic landscape: what a search is for."""

from __future__ import annotations

import functools
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest

import nas_agents
import nas_gym  # noqa: F401 - registers the ids
from nas_agents import Evaluated, Sink

SEEDS = 20
BUDGET = 1000
LATEST = BUDGET // 5

TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "digits": ("NAS-Cell-v0", {}),
    "metaqnn-digits": ("NAS-MetaQNN-Table-v0", {}),
    "synthetic": ("NAS-Cell-v0", {"evaluator": "synthetic"}),
}


SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "random search": ("random_search", {}),
    "q-learning": ("q_learning", {}),
    "q-learning with repeats": (
        "q_learning",
        {"redraws": 0, "epsilon_schedule": tuple((tenths / 10, 80) for tenths in range(10, 0, -1))},
    ),
}
"""The second spends no query on what it knows; the third plays every episode, as published, epsilon falling to 0.1."""


class Returns(Sink):
    """Keeps the return of every episode."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_episodes(self, evaluated: Evaluated) -> None:
        self.values += evaluated.batch.returns.tolist()


@functools.cache
def regrets(task: str, method: str) -> npt.NDArray[np.float64]:
    """Return best reward minus reward of every query of every search, shape [SEEDS, BUDGET]."""
    env, arguments = TASKS[task]
    agent, settings = SETTINGS[method]
    config = nas_agents.make_config(nas_agents.AGENTS[agent], **settings)
    found = []
    for seed in range(SEEDS):
        envs: Any = gymnasium.make_vec(env, config.batch_size, autoreset_mode="Disabled", **arguments).unwrapped
        returns = Returns()
        nas_agents.run(nas_agents.AGENTS[agent](envs, seed, config), envs, BUDGET, seed, [returns])
        reference = envs.evaluator.reference("valid_accuracy")
        optimum = 0.9 + 0.1 / envs.space.max_length if reference is None else reference.best
        found.append(optimum - np.array(returns.values))
    return np.array(found)


def interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean, shape [SEEDS]."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(5_000, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


@pytest.mark.parametrize("task", TASKS)
def test_the_best_sample_has_half_the_regret_of_that_of_random_search(task: str) -> None:
    """The mean simple regret after 1,000 queries is at most half of random search's; the intervals say so."""
    learnt = interval(regrets(task, "q-learning").min(axis=1))
    random = interval(regrets(task, "random search").min(axis=1))
    assert learnt[1] <= random[0] / 2


@pytest.mark.parametrize("task", TASKS)
def test_late_samples_have_half_the_regret_of_random_ones(task: str) -> None:
    """The mean regret of the last 200 of 1,000 samples is at most half of random search's; the intervals say so.

    Repeats are played for it: without them the last samples are those that are left.
    """
    learnt = interval(regrets(task, "q-learning with repeats")[:, -LATEST:].mean(axis=1))
    random = interval(regrets(task, "random search")[:, -LATEST:].mean(axis=1))
    assert learnt[1] <= random[0] / 2


@pytest.mark.parametrize("method", ["q-learning", "q-learning with repeats"])
@pytest.mark.parametrize("task", TASKS)
def test_the_whole_search_has_less_regret_than_random_search(task: str, method: str) -> None:
    """Exploration included, the mean regret of 1,000 samples is below that of random search."""
    learnt = interval(regrets(task, method).mean(axis=1))
    random = interval(regrets(task, "random search").mean(axis=1))
    assert learnt[1] < random[0]


def test_the_optimum_is_known() -> None:
    """No regret is negative: the optimum that they refer to is the optimum."""
    assert all(regrets(task, "random search").min() >= -1e-12 for task in TASKS)
