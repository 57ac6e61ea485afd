"""Random streams of actions, illegal ones included, in vector wrappers beside Gymnasium's vectors of single ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from hypothesis import settings
from hypothesis import strategies as st

from nas_gym.envs.core.construction import ConstructionEnv, ConstructionVectorEnv
from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.objectives import Accuracy
from nas_gym.search_spaces import Encoding, SearchSpace
from nas_gym.search_spaces.metaqnn import WIDTHS, MetaQNNSpace
from nas_gym.testing import VECTOR_RULES, difference
from nas_gym.testing.rules import check_rules
from nas_gym.testing.vector import VectorProbe

MODES = list(AutoresetMode)
every_mode = pytest.mark.parametrize("mode", MODES, ids=[mode.value for mode in MODES])
every_id = pytest.mark.parametrize("name", ["NAS-MetaQNN-v0", "NAS-Cell-v0"])
properties = settings(max_examples=40)

WrapEnv = Callable[[Any], gymnasium.Env[Any, Any]]
WrapVectorEnv = Callable[[Any], VectorEnv[Any, Any, Any]]


def make(name: str = "NAS-MetaQNN-v0", **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """Return a registered single environment without data."""
    return gymnasium.make(name, evaluator="synthetic", **kwargs)


def make_vec(
    num_envs: int = 2, mode: str | AutoresetMode = "NextStep", name: str = "NAS-MetaQNN-v0", **kwargs: Any
) -> ConstructionVectorEnv:
    """Return a registered vector environment without data."""
    envs = gymnasium.make_vec(
        name,
        num_envs,
        vectorization_mode="vector_entry_point",
        evaluator="synthetic",
        autoreset_mode=AutoresetMode(mode).value,
        **kwargs,
    )
    assert isinstance(envs, ConstructionVectorEnv)
    return envs


@cache
def small_space() -> MetaQNNSpace:
    """Return the space of `NAS-MetaQNN-v0` with short chains; its automaton is built once."""
    return MetaQNNSpace(max_depth=3, image_size=8, **WIDTHS["small"])


def small_single(observation: str = "prefix") -> ConstructionEnv:
    """Return a single environment over the small space."""
    space = small_space()
    return ConstructionEnv(space, SyntheticEvaluator(space), Accuracy(), observation=observation)


def small_vector(
    num_envs: int = 2, mode: str | AutoresetMode = "NextStep", observation: str = "prefix"
) -> ConstructionVectorEnv:
    """Return a vector environment over the small space."""
    space = small_space()
    return ConstructionVectorEnv(
        space, SyntheticEvaluator(space), Accuracy(), num_envs=num_envs, autoreset_mode=mode, observation=observation
    )


@dataclass(frozen=True)
class Plan:
    """What to do with two vector environments in lockstep.

    Attributes:
        num_envs: number of sub-environments N.
        mode: auto-reset mode.
        seed: of the first reset.
        numbers: for every step N numbers; below 20 they select a legal action, else they are 20 + any action.
        resets: for every step the sub-environments to reset afterwards, as bits.
        seeds: for every step whether such a reset has a seed.
    """

    num_envs: int
    mode: AutoresetMode
    seed: int
    numbers: list[list[int]]
    resets: list[int]
    seeds: list[bool]


@st.composite
def plans(draw: st.DrawFn, largest: int = 3) -> Plan:
    """Draw a plan."""
    count = draw(st.integers(1, largest))
    steps = draw(st.integers(1, 25))
    number = st.integers(0, 19 + small_space().max_choices)
    numbers = draw(st.lists(st.lists(number, min_size=count, max_size=count), min_size=steps, max_size=steps))
    some = st.one_of(st.just(0), st.just(0), st.integers(0, 2**count - 1))
    resets = draw(st.lists(some, min_size=steps, max_size=steps))
    seeds = draw(st.lists(st.booleans(), min_size=steps, max_size=steps))
    return Plan(count, draw(st.sampled_from(MODES)), draw(st.integers(0, 99)), numbers, resets, seeds)


def play(plan: Plan, vector: VectorEnv[Any, Any, Any], reference: SyncVectorEnv) -> Iterator[tuple[Any, Any]]:
    """Carry out a plan in both environments; iterate over pairs of results."""
    base: Any = vector.unwrapped
    yield vector.reset(seed=plan.seed), reference.reset(seed=plan.seed)
    for numbers, bits, seeded in zip(plan.numbers, plan.resets, plan.seeds, strict=True):
        masks = base.action_masks()
        actions = np.array([choose(number, mask) for number, mask in zip(numbers, masks, strict=True)])
        result = vector.step(actions)
        yield result, reference.step(actions)
        chosen = np.array([bool(bits >> row & 1) for row in range(plan.num_envs)])
        if plan.mode is AutoresetMode.DISABLED:
            chosen |= result[2] | result[3]
        if chosen.any():
            # The reference takes the mask out of the dictionary.
            seed = plan.seed + 1 if seeded else None
            yield tuple(envs.reset(seed=seed, options={"reset_mask": chosen.copy()}) for envs in (vector, reference))


def choose(number: int, mask: npt.NDArray[np.bool_]) -> int:
    """Return the action that a number of a plan stands for."""
    legal = np.flatnonzero(mask)
    return int(legal[number % len(legal)]) if number < 20 else number - 20


def assert_equals_singles(
    plan: Plan,
    wrap_vector: WrapVectorEnv,
    wrap_single: WrapEnv,
    observation: str = "prefix",
    cleaned: Callable[[Any], Any] = lambda result: result,
) -> None:
    """Assert that a vector wrapper equals Gymnasium's vector of single ones in every value of every result."""
    vector = wrap_vector(small_vector(plan.num_envs, plan.mode, observation))
    singles = [lambda: wrap_single(small_single(observation))] * plan.num_envs
    reference = SyncVectorEnv(singles, autoreset_mode=plan.mode)
    assert vector.single_observation_space == reference.single_observation_space
    assert vector.observation_space == reference.observation_space
    for mine, theirs in play(plan, vector, reference):
        assert difference(cleaned(mine), cleaned(theirs)) is None
        assert mine[0] in vector.observation_space


def check_vector(wrap_vector: WrapVectorEnv, wrap_single: WrapEnv) -> None:
    """Check a vector wrapper against the rules for vector environments: description, data never reused, counting."""
    probe = VectorProbe(
        lambda: wrap_single(small_single()),
        lambda num_envs, mode: wrap_vector(small_vector(num_envs, mode)),
        seeds=(0,),
        steps=25,
    )
    check_rules(VECTOR_RULES, probe)


def assert_spec_rebuilds(env: gymnasium.Env[Any, Any]) -> None:
    """Assert that the specification of an environment builds the same stack, also after a detour through JSON."""
    spec = env.spec
    assert spec is not None
    for given in (spec, EnvSpec.from_json(spec.to_json())):
        again = gymnasium.make(given)
        assert str(again) == str(env)
        assert again.spec is not None and again.spec.additional_wrappers == spec.additional_wrappers
        again.close()


def check_quietly(env: gymnasium.Env[Any, Any]) -> None:
    """Let Gymnasium's checker look at a wrapped environment; what it says about wrappers as such is no finding."""
    with pytest.warns(UserWarning, match="different from the unwrapped version") as caught:
        check_env(env, skip_render_check=find_spec("pygame") is None)
    others = [str(one.message) for one in caught if "different from the unwrapped version" not in str(one.message)]
    assert others == []


def decided(space: SearchSpace, prefix: Encoding) -> float:
    """Return a potential that grows with the decisions taken."""
    return 0.25 + len(prefix) / space.max_length + 0.01 * sum(prefix)
