"""`NAS-Macro-v0`: its documented spaces, notation and rewards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from nas_gym.envs.macro import MacroEnv
from nas_gym.search_spaces.nas_bench_macro import NASBenchMacroSpace
from nas_gym.tables.format import read_table

BLOCKS = (2, 2, 2, 1, 2, 2, 0, 2)
ROW = int("22212202", 3)


@pytest.fixture
def table(random_table: Callable[[Any], Path]) -> Path:
    """Return a complete table of the space."""
    return random_table(NASBenchMacroSpace())


def build(env: MacroEnv, encoding: tuple[int, ...] = BLOCKS, **reset: Any) -> tuple[list[float], dict[str, Any]]:
    """Build one network and return all rewards and the final info."""
    env.reset(**reset)
    steps = [env.step(action) for action in encoding]
    assert [terminated for _, _, terminated, _, _ in steps] == [False] * 7 + [True]
    return [reward for _, reward, _, _, _ in steps], steps[-1][-1]


def test_actions_are_the_three_blocks() -> None:
    """`Discrete(3)`."""
    assert MacroEnv(evaluator="synthetic").action_space == spaces.Discrete(3)


@pytest.mark.parametrize("observation", ["prefix", "states"])
def test_observations_are_eight_layers(observation: str) -> None:
    """`MultiDiscrete([4] * 8)`."""
    env = MacroEnv(evaluator="synthetic", observation=observation)
    assert env.observation_space == spaces.MultiDiscrete([4] * 8)


def test_one_hot_is_a_flat_box() -> None:
    """`Box(0, 1, (32,), float32)`."""
    env = MacroEnv(evaluator="synthetic", observation="one_hot")
    assert env.observation_space == spaces.Box(0.0, 1.0, (32,), np.float32)


def test_an_episode_builds_the_official_string() -> None:
    """Actions are its digits."""
    env = MacroEnv(evaluator="synthetic")
    _, info = build(env)
    assert env.space.to_string(info["encoding"]) == "22212202"


def test_the_reward_is_the_tables_row_of_the_string(table: Path) -> None:
    """0 before, then the mean over the seeds; the row is the string as a number in base three."""
    rewards, _ = build(MacroEnv(table=str(table)))
    assert rewards == [0] * 7 + [read_table(table).mean("valid_accuracy")[ROW]]


@pytest.mark.parametrize("fidelity", [1, 3])
def test_a_fidelity_is_read_at_that_epoch(fidelity: int, table: Path) -> None:
    """The argument and the option of `reset` mean the same."""
    expected = read_table(table).mean("valid_accuracy", fidelity)[ROW]
    argument, _ = build(MacroEnv(table=str(table), fidelity=fidelity))
    option, _ = build(MacroEnv(table=str(table)), options={"fidelity": fidelity})
    assert (argument[-1], option[-1]) == (expected, expected)


def test_held_out_metrics_stay_out_of_the_info(table: Path) -> None:
    """The final info has the search-time metrics and no test accuracy."""
    _, info = build(MacroEnv(table=str(table)))
    assert set(info["metrics"]) == {"valid_accuracy", "train_seconds", "parameters"}


def test_the_same_network_in_another_order_is_counted_once(table: Path) -> None:
    """Two queries, one unique architecture."""
    env = MacroEnv(table=str(table))
    for encoding in ((2, 2, 2, 1, 2, 2, 0, 2), (2, 2, 2, 1, 2, 2, 2, 0)):
        build(env, encoding)
    assert (env.counter.usage().queries, env.counter.usage().unique_architectures) == (2, 1)


def test_a_decision_is_seen_in_the_text() -> None:
    """Its block stands for the first of the question marks."""
    env = MacroEnv(evaluator="synthetic", render_mode="ansi")
    env.reset()
    before = str(env.render())
    env.step(2)
    after = str(env.render())
    assert before.count("?") - after.count("?") == 1
    assert "MB6_K5" in after


def test_the_environment_trains_if_asked_for() -> None:
    """Its evaluator measures what a training does; nothing is trained before an episode ends."""
    pytest.importorskip("torch")
    env = MacroEnv(evaluator="training")
    assert {"train_seconds", "peak_memory_bytes"} <= set(env.evaluator.metrics)
    env.close()
