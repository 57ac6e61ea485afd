"""Every registered environment, and the public construction environments, keep the contract of the kit."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv
from toys import ToySpace

from nas_gym import ENVIRONMENTS
from nas_gym.envs.core.construction import ConstructionEnv, ConstructionVectorEnv
from nas_gym.envs.core.counter import REPEAT_QUERIES
from nas_gym.envs.core.observations import OBSERVATIONS
from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.objectives import Accuracy
from nas_gym.registry import resolve
from nas_gym.tables.format import PACKAGED_TABLES
from nas_gym.testing import check_nas_env

TABULAR = [name for name, row in ENVIRONMENTS.items() if "table" in signature(resolve(row.entry_point)).parameters]
"""Ids that look their architectures up in a table."""

every_observation = pytest.mark.parametrize("observation", list(OBSERVATIONS))


@pytest.fixture
def table(request: pytest.FixtureRequest, random_table: Callable[[Any], Path]) -> str | None:
    """Return None where the table of the test's id is packaged, else one with random values."""
    space = gymnasium.make(request.getfixturevalue("name"), evaluator="synthetic").unwrapped.space
    return None if space.name in PACKAGED_TABLES else str(random_table(space))


def check_id(name: str, **kwargs: str | int | None) -> None:
    """Check the single and the vector form of a registered environment."""

    def make_vec_env(num_envs: int, mode: AutoresetMode) -> VectorEnv[Any, Any, Any]:
        return gymnasium.make_vec(
            name, num_envs=num_envs, vectorization_mode="vector_entry_point", autoreset_mode=mode, **kwargs
        )

    check_nas_env(lambda: gymnasium.make(name, **kwargs), make_vec_env, np.random.default_rng(0), episodes=2)


SHORT = {"NAS-Cell-Improve-v0": {"horizon": 3}}
"""Arguments that keep long episodes short: the kit plays them once from every step on."""


@every_observation
@pytest.mark.parametrize("name", list(ENVIRONMENTS))
def test_every_id_keeps_the_contract_without_data(name: str, observation: str) -> None:
    """Every id keeps the contract with the synthetic evaluator and every observation."""
    check_id(name, evaluator="synthetic", observation=observation)


@pytest.mark.parametrize("repeat_query", REPEAT_QUERIES)
@pytest.mark.parametrize("noise", ["mean", "sample"])
@pytest.mark.parametrize("name", TABULAR)
def test_every_tabular_id_keeps_the_contract_on_its_table(
    name: str, noise: str, repeat_query: str, table: str | None
) -> None:
    """Every id keeps the contract on its table, with and without noise, whatever a repeated query gives and costs."""
    check_id(name, noise=noise, repeat_query=repeat_query, table=table)


@pytest.mark.parametrize("fidelity", [1, 3])
@pytest.mark.parametrize("name", TABULAR)
def test_every_tabular_id_keeps_the_contract_at_a_fidelity(name: str, fidelity: int, table: str | None) -> None:
    """Every id keeps the contract when its default fidelity is below the highest."""
    check_id(name, fidelity=fidelity, table=table)


@every_observation
@pytest.mark.parametrize("repeat_query", REPEAT_QUERIES)
def test_construction_keeps_the_contract_on_a_users_own_space(observation: str, repeat_query: str) -> None:
    """The public construction environments keep the contract for a grammar of varying length with masks."""
    space = ToySpace()
    evaluator, objective = SyntheticEvaluator(space), Accuracy()
    settings: dict[str, Any] = {"observation": observation, "repeat_query": repeat_query}
    check_nas_env(
        lambda: ConstructionEnv(space, evaluator, objective, **settings),
        lambda num_envs, mode: ConstructionVectorEnv(
            space, evaluator, objective, num_envs=num_envs, autoreset_mode=mode, **settings
        ),
        np.random.default_rng(0),
        episodes=2,
    )
