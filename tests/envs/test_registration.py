"""The table of environment ids: JSON in and out, every way of making an environment, spawned workers included."""

from __future__ import annotations

import inspect
import json
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from nas_gym import ENVIRONMENTS, register_all
from nas_gym.envs.core.base import NASEnv, NASVectorEnv
from nas_gym.registry import resolve

every_id = pytest.mark.parametrize("name", list(ENVIRONMENTS))
SCALARS = (str, int, float, bool, type(None))


@every_id
def test_the_specification_survives_json(name: str) -> None:
    """`EnvSpec.from_json` gives back what `to_json` wrote."""
    spec = gymnasium.spec(name)
    assert EnvSpec.from_json(spec.to_json()) == spec


@every_id
def test_an_environment_is_made_again_from_json(name: str) -> None:
    """The specification of a made environment, arguments included, makes an equal one."""
    env = gymnasium.make(name, evaluator="synthetic", observation="one_hot", evaluation_seed=3)
    twin = gymnasium.make(EnvSpec.from_json(env.spec.to_json()))
    assert (twin.observation_space, twin.spec.kwargs) == (env.observation_space, env.spec.kwargs)


@every_id
def test_registered_arguments_are_json_scalars(name: str) -> None:
    """The row's keyword arguments, and the defaults of both classes, are strings, numbers, booleans or None."""
    row = ENVIRONMENTS[name]
    values = list(row.kwargs.values())
    for entry_point in (row.entry_point, row.vector_entry_point):
        parameters = inspect.signature(resolve(entry_point)).parameters.values()
        values += [
            parameter.default
            for parameter in parameters
            if parameter.name != "autoreset_mode" and parameter.kind is not parameter.VAR_KEYWORD
        ]
    assert [value for value in values if not isinstance(value, SCALARS)] == []
    assert json.loads(json.dumps(values)) == values


@every_id
def test_both_forms_take_the_same_arguments(name: str) -> None:
    """The vector form adds `num_envs` and `autoreset_mode` and nothing else, with the same defaults."""
    single, vector = (
        {key: parameter.default for key, parameter in inspect.signature(resolve(entry_point)).parameters.items()}
        for entry_point in (ENVIRONMENTS[name].entry_point, ENVIRONMENTS[name].vector_entry_point)
    )
    assert (vector.pop("num_envs"), vector.pop("autoreset_mode")) == (1, AutoresetMode.NEXT_STEP)
    assert vector == single


@every_id
def test_entry_points_are_the_two_bases(name: str) -> None:
    """`make` gives a `NASEnv`, `make_vec` with the vector entry point a `NASVectorEnv`."""
    single = gymnasium.make(name, evaluator="synthetic")
    vector = gymnasium.make_vec(name, 2, vectorization_mode="vector_entry_point", evaluator="synthetic")
    assert (isinstance(single.unwrapped, NASEnv), isinstance(vector.unwrapped, NASVectorEnv)) == (True, True)


@every_id
def test_the_vector_form_is_preferred(name: str) -> None:
    """`make_vec` without a mode picks the vector entry point."""
    assert isinstance(gymnasium.make_vec(name, 2, evaluator="synthetic").unwrapped, NASVectorEnv)


@every_id
def test_gymnasium_can_vectorise_the_single_form(name: str) -> None:
    """`make_vec(vectorization_mode="sync")` works as for any environment."""
    envs = gymnasium.make_vec(name, 2, vectorization_mode="sync", evaluator="synthetic")
    assert isinstance(envs.unwrapped, SyncVectorEnv)
    assert len(envs.reset(seed=0)[1]["action_mask"]) == 2


@every_id
def test_an_auto_reset_mode_passes_through_make_vec(name: str) -> None:
    """`autoreset_mode` is a keyword of `make_vec`."""
    envs = gymnasium.make_vec(name, 2, evaluator="synthetic", autoreset_mode="SameStep")
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP


def test_registering_again_changes_nothing() -> None:
    """`register_all` is safe to call twice, warnings included."""
    before = dict(gymnasium.registry)
    register_all()
    assert dict(gymnasium.registry) == before


def test_an_unknown_id_gets_the_nearest_match() -> None:
    """Gymnasium suggests the id that was meant."""
    with pytest.raises(gymnasium.error.NameNotFound, match="NAS-Cell"):
        gymnasium.make("NAS-Cel-v0")


def test_spawned_workers_of_gymnasium_make_the_environment() -> None:
    """The form `nas_gym:ID` needs no import in the worker."""
    make = partial(gymnasium.make, "nas_gym:NAS-Cell-v0", evaluator="synthetic")
    reference = SyncVectorEnv([make] * 2)
    envs = AsyncVectorEnv([make] * 2, context="spawn")
    try:
        results = [(envs.reset(seed=0)[0], reference.reset(seed=0)[0])]
        for action in (0, 1, 2, 3, 4, 0):
            results.append((envs.step(np.full(2, action))[1], reference.step(np.full(2, action))[1]))
    finally:
        envs.close()
    assert all(np.array_equal(mine, theirs) for mine, theirs in results)


def test_spawned_workers_of_stable_baselines_make_the_environment() -> None:
    """`SubprocVecEnv` with the start method "spawn" plays an episode."""
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
    envs = vec_env.SubprocVecEnv(
        [partial(gymnasium.make, "nas_gym:NAS-Cell-v0", evaluator="synthetic")], start_method="spawn"
    )
    try:
        envs.reset()
        outcomes = [envs.step(np.array([3])) for _ in range(6)]
    finally:
        envs.close()
    assert [bool(done[0]) for _, _, done, _ in outcomes] == [False] * 5 + [True]
