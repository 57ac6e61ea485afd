"""`NAS-EAS-v0`: its documented spaces, and children that are trained with inherited weights."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from nas_gym.envs.eas import STARTS, EASEnv, EASVectorEnv
from nas_gym.errors import InvalidArgument, UnknownName
from nas_gym.evaluators.store import EvaluationStore

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="trains networks")
QUICK: dict[str, Any] = {"wider": 1, "deeper": 1, "workers": 0, "epochs": 1, "start_epochs": 3, "device": "cpu"}
WIDE = (1, 0, 1, 0, 0, 2)


def start_of(env: EASEnv) -> str:
    """Return the layers at which episodes begin."""
    space: Any = env.space
    return str(space.start)


def play(env: EASEnv, actions: tuple[int, ...]) -> tuple[float, dict[str, Any]]:
    """Play an episode and return the last reward and info."""
    env.reset()
    steps = [env.step(action) for action in actions]
    assert [terminated for _, _, terminated, _, _ in steps] == [False] * (len(actions) - 1) + [True]
    return float(steps[-1][1]), steps[-1][-1]


@pytest.mark.parametrize(("start", "choices", "features"), [("small", 4, 12), ("demo", 10, 18), ("densenet", 20, 16)])
def test_spaces_are_as_documented(start: str, choices: int, features: int) -> None:
    """C actions, four features of the question and one per layer."""
    env = EASEnv(evaluator="synthetic", start=start)
    assert env.action_space == spaces.Discrete(choices)
    assert env.observation_space.shape == (features,)


@pytest.mark.parametrize("start", list(STARTS))
def test_every_start_can_be_played(start: str) -> None:
    """Uniform legal actions reach the end, in the documented number of steps."""
    env = EASEnv(evaluator="synthetic", start=start)
    rng = np.random.default_rng(0)
    _, info = env.reset(seed=0)
    steps, terminated = 0, False
    while not terminated:
        _, _, terminated, _, info = env.step(rng.choice(np.flatnonzero(info["action_mask"])))
        steps += 1
    assert info["status"] == "ok"
    space = STARTS[start]()
    assert space.max_length - space.deeper <= steps <= space.max_length


def test_what_is_seen_changes_with_every_decision() -> None:
    """The network is observed as it is now."""
    env = EASEnv(evaluator="synthetic", **{name: QUICK[name] for name in ("wider", "deeper")})
    seen = [env.reset()[0].tolist(), *(env.step(action)[0].tolist() for action in WIDE)]
    assert len({tuple(one) for one in seen}) == len(seen)


def test_a_layer_at_the_top_cannot_grow() -> None:
    """Masked, and choosing it all the same ends the episode."""
    env = EASEnv(evaluator="synthetic", wider=5, deeper=0)
    env.reset()
    steps = [env.step(action) for action in (1, 0, 0) * 4]
    assert steps[-1][-1]["action_mask"].tolist() == [1, 0]
    _, _, terminated, _, info = env.step(1)
    assert (terminated, info["status"]) == (True, "invalid_action")


def test_an_episode_may_begin_at_other_layers() -> None:
    """In their notation, or as a search from the same start prints them."""
    for network in ("C16x3 C16x5 P C16x3 A F32", "wider keep wider conv1 after1 5x5"):
        env = EASEnv(evaluator="synthetic", wider=1, deeper=1, network=network)
        assert start_of(env) == "C16x3 C16x5 P C16x3 A F32"


def test_layers_that_are_none_are_refused() -> None:
    """Naming the first token that is wrong."""
    with pytest.raises(InvalidArgument, match="token 1 is 'X'"):
        EASEnv(evaluator="synthetic", network="C16x3 X")


def test_an_unknown_start_names_the_nearest() -> None:
    """A misspelt one is an error."""
    with pytest.raises(UnknownName, match="Did you mean 'small'"):
        EASEnv(evaluator="synthetic", start="smal")


def test_steps_that_do_not_fit_are_refused() -> None:
    """Three blocks of at most four layers take nine more."""
    with pytest.raises(InvalidArgument, match="there is room for 9 more"):
        EASEnv(evaluator="synthetic", deeper=10)


@needs_torch
@pytest.mark.usefixtures("one_thread")
def test_the_reward_is_the_tangent_of_the_accuracy(tmp_path: Path) -> None:
    """After training the child that inherits; the start network is trained before and not charged."""
    env = EASEnv(store=str(tmp_path / "store.sqlite"), **QUICK)
    reward, info = play(env, WIDE)
    env.close()
    assert info["status"] == "ok"
    assert reward == pytest.approx(math.tan(info["metrics"]["valid_accuracy"] * math.pi / 2))
    assert info["cost_seconds"] == pytest.approx(info["metrics"]["train_seconds"], rel=0.1)


@needs_torch
@pytest.mark.usefixtures("one_thread")
def test_an_episode_may_begin_at_a_child(tmp_path: Path) -> None:
    """By the content hash of its weights: at its layers, with its accuracy."""
    settings = {"store": str(tmp_path / "store.sqlite"), **QUICK, "start_epochs": 8}
    env = EASEnv(**settings)
    _, info = play(env, WIDE)
    artifact = env.evaluator.artifact(info["encoding"])
    env.close()
    grown = EASEnv(**{**settings, "start_epochs": None}, parent=artifact)
    assert start_of(grown) == str(env.space.decode(info["encoding"]))
    _, after = play(grown, (0,) * 4 + (0, 0, 0))
    grown.close()
    assert after["status"] == "ok", after
    assert after["metrics"]["valid_accuracy"] > info["metrics"]["valid_accuracy"] - 0.1


@needs_torch
@pytest.mark.usefixtures("one_thread")
def test_layers_beside_a_parent_must_be_its_own(tmp_path: Path) -> None:
    """Else the weights could not be inherited."""
    settings = {"store": str(tmp_path / "store.sqlite"), **QUICK}
    env = EASEnv(**settings)
    _, info = play(env, WIDE)
    artifact = env.evaluator.artifact(info["encoding"])
    env.close()
    layers = str(env.space.decode(info["encoding"]))
    assert start_of(EASEnv(**settings, parent=artifact, network=layers)) == layers
    with pytest.raises(InvalidArgument, match=r"network = 'C8x3 A', but the parent .* leave network out"):
        EASEnv(**settings, parent=artifact, network="C8x3 A")


@needs_torch
@pytest.mark.usefixtures("one_thread")
def test_many_environments_share_the_start_network(tmp_path: Path) -> None:
    """A vector step answers all children, which the single environment finds in the store."""
    path = str(tmp_path / "store.sqlite")
    envs = EASVectorEnv(2, store=path, **QUICK)
    envs.reset(seed=0)
    rewards = [envs.step(np.full(2, action))[1] for action in WIDE][-1]
    envs.close()
    with EvaluationStore.existing(path) as store:
        rows = len(store)
    env = EASEnv(store=path, **QUICK)
    assert play(env, WIDE)[0] == rewards[0]
    env.close()
    with EvaluationStore.existing(path) as store:
        assert len(store) == rows == 2


@needs_torch
@pytest.mark.usefixtures("one_thread")
def test_children_can_be_trained_from_scratch_instead() -> None:
    """By the evaluator `training`."""
    settings = {name: value for name, value in QUICK.items() if name != "start_epochs"}
    env = EASEnv(evaluator="training", **settings)
    assert play(env, WIDE)[1]["status"] == "ok"
    env.close()
