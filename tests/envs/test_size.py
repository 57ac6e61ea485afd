"""`NAS-Size-v0`: its documented spaces, notation and rewards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from nas_gym.envs.size import SizeEnv
from nas_gym.search_spaces.nats_size import NATSSizeSpace
from nas_gym.tables.format import read_table

WIDTHS = (0, 0, 4, 3, 4)


@pytest.fixture
def table(random_table: Callable[[Any], Path]) -> Path:
    """Return a complete table of the space."""
    return random_table(NATSSizeSpace())


def build(env: SizeEnv, encoding: tuple[int, ...] = WIDTHS, **reset: Any) -> tuple[list[float], dict[str, Any]]:
    """Build one network and return all rewards and the final info."""
    env.reset(**reset)
    steps = [env.step(action) for action in encoding]
    assert [terminated for _, _, terminated, _, _ in steps] == [False] * 4 + [True]
    return [reward for _, reward, _, _, _ in steps], steps[-1][-1]


def test_actions_are_the_eight_widths() -> None:
    """`Discrete(8)`."""
    assert SizeEnv(evaluator="synthetic").action_space == spaces.Discrete(8)


@pytest.mark.parametrize("observation", ["prefix", "states"])
def test_observations_are_five_layers(observation: str) -> None:
    """`MultiDiscrete([9] * 5)`."""
    env = SizeEnv(evaluator="synthetic", observation=observation)
    assert env.observation_space == spaces.MultiDiscrete([9] * 5)


def test_one_hot_is_a_flat_box() -> None:
    """`Box(0, 1, (45,), float32)`."""
    env = SizeEnv(evaluator="synthetic", observation="one_hot")
    assert env.observation_space == spaces.Box(0.0, 1.0, (45,), np.float32)


def test_an_episode_builds_the_official_string() -> None:
    """Action 0 is 8 channels, action 4 is 40."""
    env = SizeEnv(evaluator="synthetic")
    _, info = build(env)
    assert env.space.to_string(info["encoding"]) == "8:8:40:32:40"


def test_the_reward_is_the_tables_row_of_the_official_index(table: Path) -> None:
    """0 before, then the mean over the seeds; row 284 is 8:8:40:32:40."""
    rewards, _ = build(SizeEnv(table=str(table)))
    assert rewards == [0, 0, 0, 0, read_table(table).mean("valid_accuracy")[284]]


@pytest.mark.parametrize("fidelity", [1, 3])
def test_a_fidelity_is_read_at_that_epoch(fidelity: int, table: Path) -> None:
    """The argument and the option of `reset` mean the same."""
    expected = read_table(table).mean("valid_accuracy", fidelity)[284]
    argument, _ = build(SizeEnv(table=str(table), fidelity=fidelity))
    option, _ = build(SizeEnv(table=str(table)), options={"fidelity": fidelity})
    assert (argument[-1], option[-1]) == (expected, expected)


def test_held_out_metrics_stay_out_of_the_info(table: Path) -> None:
    """The final info has the search-time metrics and no test accuracy."""
    _, info = build(SizeEnv(table=str(table)))
    assert set(info["metrics"]) == {"valid_accuracy", "train_seconds", "parameters"}


def test_a_decision_is_seen_in_the_text() -> None:
    """Its width stands for the first of the question marks."""
    env = SizeEnv(evaluator="synthetic", render_mode="ansi")
    env.reset()
    before = str(env.render())
    env.step(7)
    after = str(env.render())
    assert before.count("?") - after.count("?") == 1
    assert "64" in after


def test_the_environment_trains_if_asked_for() -> None:
    """Its evaluator measures what a training does; nothing is trained before an episode ends."""
    pytest.importorskip("torch")
    env = SizeEnv(evaluator="training")
    assert {"train_seconds", "peak_memory_bytes"} <= set(env.evaluator.metrics)
    env.close()
