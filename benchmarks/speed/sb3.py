"""Steps per second of `SB3VecEnv` beside SB3's `DummyVecEnv` of single environments, alone and below MaskablePPO."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor

import nas_gym  # noqa: F401 - registers the environments
from nas_gym.wrappers.sb3 import SB3VecEnv

from .timing import Row, best_seconds, faster

_NUM_ENVS = 256
_STEPS = 30
_ROLLOUT = 6
_UPDATES = 2


def compare(table: str) -> list[Row]:
    """Compare both on a table of cells, and on one of chains, whose masks depend on what was built."""
    rows = []
    for id_, kwargs in (("NAS-Cell-v0", {"table": table}), ("NAS-MetaQNN-Table-v0", {})):
        rows += [_stepping(id_, kwargs), _training(id_, kwargs)]
    return rows


def _both(id_: str, kwargs: dict[str, Any]) -> tuple[SB3VecEnv, DummyVecEnv]:
    how = {"vectorization_mode": "vector_entry_point", "autoreset_mode": "SameStep"}
    envs = gymnasium.make_vec(id_, num_envs=_NUM_ENVS, **how, **kwargs)
    return SB3VecEnv(envs), DummyVecEnv([partial(gymnasium.make, id_, **kwargs)] * _NUM_ENVS)


def _stepping(id_: str, kwargs: dict[str, Any]) -> Row:
    """Compare steps and masks, as MaskablePPO asks for them, under the same random legal actions."""
    envs = _both(id_, kwargs)
    actions = _legal_actions(envs[0])
    ours, other = best_seconds(lambda: _walk(envs[0], actions), lambda: _walk(envs[1], actions))
    total = _STEPS * _NUM_ENVS
    return faster(f"SB3: steps and masks, 256 of {id_}", total / ours, total / other, "steps", "DummyVecEnv", 5)


def _legal_actions(env: VecEnv) -> list[npt.NDArray[np.int64]]:
    """Play once at random; the dynamics draw nothing, so the actions are legal whenever they are repeated."""
    rng = np.random.default_rng(0)
    actions = []
    env.reset()
    for _ in range(_STEPS):
        masks = get_action_masks(env)
        actions.append(np.where(masks, rng.random(masks.shape), -1.0).argmax(axis=1))
        env.step(actions[-1])
    return actions


def _walk(env: VecEnv, actions: list[npt.NDArray[np.int64]]) -> None:
    env.reset()
    for row in actions:
        get_action_masks(env)
        env.step(row)


def _training(id_: str, kwargs: dict[str, Any]) -> Row:
    """Compare MaskablePPO end to end, policy and gradient steps included, with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ours, dummy = _both(id_, kwargs)
        learn = [partial(_learn, _agent(env)) for env in (ours, VecMonitor(dummy))]
        seconds = best_seconds(*learn, repeats=5)
    finally:
        torch.set_num_threads(threads)
    total = _UPDATES * _ROLLOUT * _NUM_ENVS
    own, other = (total / one for one in seconds)
    return faster(f"SB3: MaskablePPO, 256 of {id_}", own, other, "steps", "DummyVecEnv", 1.2)


def _agent(env: VecEnv) -> MaskablePPO:
    return MaskablePPO("MlpPolicy", env, n_steps=_ROLLOUT, batch_size=512, n_epochs=4, seed=0, device="cpu")


def _learn(agent: MaskablePPO) -> None:
    agent.learn(_UPDATES * _ROLLOUT * _NUM_ENVS)
