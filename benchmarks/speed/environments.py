"""Steps per second of NAS-Cell-v0 beside Gymnasium's CartPole-v1, both through `make` and `make_vec`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

import nas_gym  # noqa: F401 - registers the environments

from .timing import Row, best_seconds, faster

_STEPS = 20_000
_NUM_ENVS = 4_096
_VECTOR_STEPS = 140


def single(table: str) -> Row:
    """Compare single environments under random actions, resets included."""
    rng = np.random.default_rng(0)
    envs = gymnasium.make("NAS-Cell-v0", table=table), gymnasium.make("CartPole-v1")
    actions = [rng.integers(0, int(env.action_space.n), _STEPS) for env in envs]  # type: ignore[attr-defined]
    ours, other = best_seconds(lambda: _walk(envs[0], actions[0]), lambda: _walk(envs[1], actions[1]))
    return faster("steps, single environment", _STEPS / ours, _STEPS / other, "steps", "CartPole-v1", 3)


def _walk(env: gymnasium.Env[Any, Any], actions: np.ndarray[Any, Any]) -> None:
    env.reset(seed=0)
    for action in actions:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()


def vector(table: str) -> Row:
    """Compare vector environments of 4,096 under random actions."""
    rng = np.random.default_rng(0)
    kwargs: dict[str, Any] = {"num_envs": _NUM_ENVS, "vectorization_mode": "vector_entry_point"}
    envs = gymnasium.make_vec("NAS-Cell-v0", table=table, **kwargs), gymnasium.make_vec("CartPole-v1", **kwargs)
    actions = [rng.integers(0, choices, (_VECTOR_STEPS, _NUM_ENVS)) for choices in (5, 2)]
    ours, other = best_seconds(lambda: _walk_many(envs[0], actions[0]), lambda: _walk_many(envs[1], actions[1]))
    total = _VECTOR_STEPS * _NUM_ENVS
    return faster("steps, 4,096 environments", total / ours, total / other, "steps", "CartPole-v1", 2.5)


def _walk_many(envs: gymnasium.vector.VectorEnv[Any, Any, Any], actions: np.ndarray[Any, Any]) -> None:
    envs.reset(seed=0)
    for row in actions:
        envs.step(row)
