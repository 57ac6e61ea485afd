"""Random search."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

import nas_agents
import nas_gym  # noqa: F401 - registers the environments
from nas_gym.errors import InvalidArgument
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space


def make_envs(num_envs: int) -> nas_agents.Envs:
    """Return NAS-Cell-v0 on a synthetic landscape."""
    return gymnasium.make_vec(
        "NAS-Cell-v0", num_envs=num_envs, evaluator="synthetic", autoreset_mode="Disabled"
    ).unwrapped


def test_without_replacement_every_encoding_comes_once() -> None:
    """Proposals over the whole space are a permutation of it."""
    agent = nas_agents.make("random_search", make_envs(50), 0, replacement=False)
    proposals = [encoding for _ in range(313) for encoding in agent.propose(50)]
    assert sorted(proposals) == sorted(NASBench201Space().enumerate())


def test_with_replacement_is_uniform() -> None:
    """Of 20,000 draws every operation is taken at every edge about a fifth of the time."""
    agent = nas_agents.make("random_search", make_envs(50), 0)
    draws = np.array(agent.propose(20_000))
    shares = np.stack([(draws == choice).mean(axis=0) for choice in range(5)])
    assert np.abs(shares - 0.2).max() < 0.015


@pytest.mark.parametrize("settings", [{"replacement": "no"}, {"batch_size": 0}, {"batch_size": 1.5}])
def test_bad_settings_are_refused(settings: dict[str, object]) -> None:
    """A setting outside its range is an error that names it."""
    with pytest.raises(InvalidArgument, match=next(iter(settings))):
        nas_agents.make("random_search", make_envs(1), 0, **settings)
