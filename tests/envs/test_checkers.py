"""The environment checkers of Gymnasium and Stable-Baselines3, without a single warning; copies and pickles."""

from __future__ import annotations

import copy
import pickle  # noqa: TID251 - what users' tools do to an environment
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, check_reset_seed_determinism, check_step_determinism

from nas_gym import ENVIRONMENTS
from nas_gym.envs.core.observations import OBSERVATIONS
from nas_gym.testing import difference
from nas_gym.wrappers import ResampleMasked

every_id = pytest.mark.parametrize("name", list(ENVIRONMENTS))
every_observation = pytest.mark.parametrize("observation", list(OBSERVATIONS))
every_copy = pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"]
)


def make(name: str, observation: str) -> gymnasium.Env[Any, Any]:
    """Return an environment without data."""
    return gymnasium.make(name, evaluator="synthetic", observation=observation)


@every_id
@every_observation
def test_gymnasium_finds_nothing(name: str, observation: str) -> None:
    """Gymnasium's checker raises no error and no warning; it renders in every mode as well."""
    check_env(make(name, observation).unwrapped, skip_render_check=find_spec("pygame") is None)


@every_id
@every_observation
def test_stable_baselines_finds_nothing(name: str, observation: str) -> None:
    """The checker of Stable-Baselines3 raises no error and no warning."""
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    checker.check_env(make(name, observation), warn=True)


@every_id
def test_seeds_determine_resets_and_steps(name: str) -> None:
    """Gymnasium's determinism checks hold for many seeds; masked actions, whose metrics are NaN, are resampled."""
    env = ResampleMasked(make(name, "prefix").unwrapped)
    check_reset_seed_determinism(env)
    for seed in range(50):
        check_step_determinism(env, seed=seed)


@every_copy
@pytest.mark.parametrize("wrapped", [True, False], ids=["wrapped", "unwrapped"])
@every_id
def test_a_duplicate_continues_alike(name: str, wrapped: bool, duplicate: Callable[[Any], Any]) -> None:
    """In the middle of an episode, a copy gives the same steps as the original."""
    env = make(name, "prefix")
    _, info = env.reset(seed=0)
    env.step(np.flatnonzero(info["action_mask"])[1])
    twin = duplicate(env if wrapped else env.unwrapped)
    over = False
    while not over:
        action = np.flatnonzero(env.unwrapped.action_masks())[-1]
        mine, theirs = env.step(action), twin.step(action)
        assert difference(mine, theirs) is None
        over = mine[2] or mine[3]


@every_copy
@every_id
def test_a_duplicate_of_a_vector_continues_alike(name: str, duplicate: Callable[[Any], Any]) -> None:
    """The same for the vector form."""
    envs = gymnasium.make_vec(name, 3, evaluator="synthetic").unwrapped
    envs.reset(seed=0)
    envs.step(envs.action_masks().argmax(axis=1))
    twin = duplicate(envs)
    for _ in range(2 * envs.space.max_length):
        actions = envs.action_masks().argmax(axis=1)
        assert difference(envs.step(actions), twin.step(actions)) is None


@every_copy
def test_a_duplicate_keeps_its_table(duplicate: Callable[[Any], Any], small_table: Path) -> None:
    """A copy answers from the same numbers."""
    env = gymnasium.make("NAS-Cell-v0", table=str(small_table)).unwrapped
    twin = duplicate(env)
    rewards = []
    for player in (env, twin):
        player.reset()
        rewards.append([player.step(2)[1] for _ in range(6)][-1])
    assert rewards[0] == rewards[1]
