"""Training loops in the manner of other libraries: single-file PPO, and Q-learning on observations with masks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch")

from foreign import cleanrl_ppo, dict_observation
from gymnasium.vector import VectorWrapper

from nas_gym import ENVIRONMENTS
from nas_gym.envs.core.counter import Usage

pytestmark = pytest.mark.usefixtures("one_thread")

LOOPS = {"ppo": cleanrl_ppo, "q_network": dict_observation}
CELL, MASKED = "NAS-Cell-v0", "NAS-MetaQNN-v0"
TIMESTEPS = {"ppo": 7000, "q_network": 12_000}

every_loop = pytest.mark.parametrize("name", list(LOOPS))
both_environments = pytest.mark.parametrize("env_id", [CELL, MASKED])


class Watch(VectorWrapper):
    """Notes what a loop does, below everything that it wraps around the environments.

    Attributes:
        junk: reward of the steps that are ignored because they only begin the next episode.
        illegal: number of masked actions in the other steps.
        steps: number of the other steps.
        returns: returns of the finished episodes.
        lengths: lengths of their encodings.
        status: how they ended.
    """

    def __init__(self, envs: Any, junk: float = 0.0) -> None:
        super().__init__(envs)
        self.junk = junk
        self.illegal = self.steps = 0
        self.returns: list[float] = []
        self.lengths: list[int] = []
        self.status: list[str] = []
        self.masks: npt.NDArray[np.int8] = np.zeros((0, 0), np.int8)
        self.over = np.zeros(envs.num_envs, np.bool_)

    def reset(self, **arguments: Any) -> Any:
        """Begin all episodes."""
        observation, info = self.env.reset(**arguments)
        self.masks = info["action_mask"].copy()
        self.over[:] = False
        return observation, info

    def step(self, actions: Any) -> Any:
        """Take a step and note it."""
        legal = self.masks[np.arange(self.num_envs), actions] == 1
        self.illegal += int((~legal & ~self.over).sum())
        self.steps += int((~self.over).sum())
        observation, rewards, terminated, truncated, info = self.env.step(actions)
        assert not rewards[self.over].any()
        rewards = np.where(self.over, self.junk, rewards)
        self.over = terminated | truncated
        self.masks = info["action_mask"].copy()
        self.returns += rewards[self.over].tolist()
        if self.over.any():
            self.lengths += [len(encoding) for encoding in info["encoding"][self.over]]
            self.status += info["status"][self.over].tolist()
        return observation, rewards, terminated, truncated, info


@dataclass
class Run:
    """A finished run: what the loop returned, what was seen below it and what was counted."""

    returns: list[float]
    watch: Watch
    usage: Usage


def search(name: str, env_id: str, timesteps: int, junk: float = 0.0, **settings: Any) -> Run:
    """Run a loop on a synthetic landscape."""
    loop: Any = LOOPS[name]
    args = loop.Args(env_id=env_id, evaluator="synthetic", total_timesteps=timesteps, **settings)
    watch = Watch(loop.make_envs(args), junk)
    returns = loop.train(args, watch)
    usage = watch.unwrapped.counter.usage()  # type: ignore[attr-defined]
    watch.close()
    return Run(returns, watch, usage)


def uniform(env_id: str, steps: int = 600) -> list[float]:
    """Return the returns of episodes whose actions are drawn uniformly from the legal ones."""
    envs = Watch(cleanrl_ppo.make_envs(cleanrl_ppo.Args(env_id=env_id, evaluator="synthetic")))
    rng = np.random.default_rng(0)
    envs.reset(seed=0)
    for _ in range(steps):
        envs.step((rng.random(envs.masks.shape) * envs.masks).argmax(1))
    return envs.returns


@pytest.fixture(scope="module", params=[(name, env_id) for name in LOOPS for env_id in (CELL, MASKED)], ids="-".join)
def long_run(request: pytest.FixtureRequest, one_thread: None) -> Iterator[tuple[str, Run]]:
    """Return an id and a run on it that is long enough to learn."""
    name, env_id = request.param
    yield env_id, search(name, env_id, TIMESTEPS[name])


def test_the_loop_learns(long_run: tuple[str, Run]) -> None:
    """The last fifth of the episodes is far better than masked actions at random, and the first fifth is not."""
    env_id, run = long_run
    baseline = np.mean(uniform(env_id))
    fifth = len(run.returns) // 5
    assert np.mean(run.returns[-fifth:]) > baseline + 0.3
    assert np.mean(run.returns[: fifth // 2]) < baseline + 0.2


def test_no_illegal_action_is_taken(long_run: tuple[str, Run]) -> None:
    """Every action was legal, and every episode ended with an evaluation."""
    env_id, run = long_run
    assert run.watch.illegal == 0
    assert set(run.watch.status) == {"ok"}
    assert (len(set(run.watch.lengths)) == 1) == (env_id == CELL)


def test_the_counter_counts_the_episodes(long_run: tuple[str, Run]) -> None:
    """Queries are the episodes that the loop returned; steps that only begin an episode count nowhere."""
    _, run = long_run
    assert run.returns == run.watch.returns
    assert run.usage.queries == len(run.returns)
    assert run.usage.environment_steps == run.watch.steps


@every_loop
@both_environments
def test_the_budget_ends_the_loop(name: str, env_id: str) -> None:
    """A budget is used to its last query, and every query's return comes back, whether N divides it or not."""
    run = search(name, env_id, 6000, budget=200, num_envs=7)
    assert run.usage.queries == 200
    assert len(run.returns) == 200
    assert len(run.watch.returns) <= 200
    assert run.returns[: len(run.watch.returns)] == run.watch.returns


@every_loop
@both_environments
def test_the_same_seed_gives_the_same_returns(name: str, env_id: str) -> None:
    """Two runs from one seed agree in every return, and a run from another seed does not."""
    loop: Any = LOOPS[name]
    args = [loop.Args(env_id=env_id, evaluator="synthetic", total_timesteps=1500, seed=seed) for seed in (3, 3, 4)]
    first, second, other = map(loop.main, args)
    assert first == second
    assert first != other


@every_loop
@both_environments
def test_steps_that_only_begin_an_episode_are_not_learnt_from(name: str, env_id: str) -> None:
    """Were their reward enormous, the loop would do just the same."""
    clean, littered = (search(name, env_id, 2000, junk=junk).returns for junk in (0.0, 1000.0))
    assert clean == littered


@every_loop
@pytest.mark.parametrize("env_id", list(ENVIRONMENTS))
def test_every_id_can_be_searched(name: str, env_id: str) -> None:
    """The loops know nothing of any particular environment."""
    run = search(name, env_id, 1200)
    assert run.returns
    assert run.watch.illegal == 0
    assert set(run.watch.status) == {"ok"}


@every_loop
def test_the_file_is_a_command(name: str) -> None:
    """Started as a script, a loop takes its settings from the command line and prints nothing."""
    command = [sys.executable, str(LOOPS[name].__file__), "--env-id", CELL, "--total-timesteps", "600"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--evaluator", "synthetic"], capture_output=True, text=True, check=False, env=environment
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
