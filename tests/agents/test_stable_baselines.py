"""The algorithms of Stable-Baselines3 as agents: every id, exact budgets, updates that happen."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

import nas_agents
from nas_agents import Evaluated, RunResult, Sink
from nas_gym import ENVIRONMENTS
from nas_gym.errors import InvalidArgument

ALGORITHMS = ["sb3:ppo", "sb3:a2c", "sb3:dqn", "sb3:maskable_ppo", "sb3:masked_dqn"]
MASKED = "NAS-MetaQNN-v0"

every_algorithm = pytest.mark.parametrize("name", ALGORITHMS)


class Log(Sink):
    """Keeps what a run publishes and, at the first episode, the parameters of the policy."""

    def __init__(self, agent: Any = None, stop_after: int | None = None) -> None:
        self.agent = agent
        self.stop_after = stop_after
        self.encodings: list[tuple[int, ...]] = []
        self.status: list[str] = []
        self.returns: list[float] = []
        self.lengths: list[int] = []
        self.parameters: Any = None

    @property
    def wants_stop(self) -> bool:
        return self.stop_after is not None and len(self.encodings) >= self.stop_after

    def on_episodes(self, evaluated: Evaluated) -> None:
        self.encodings += evaluated.batch.encodings
        self.status += evaluated.batch.status
        self.returns += evaluated.batch.returns.tolist()
        self.lengths += evaluated.batch.lengths.tolist()
        if self.parameters is None and self.agent is not None:
            self.parameters = copy.deepcopy(self.agent.model.get_parameters())


def search(
    name: str, env: str = "NAS-Cell-v0", budget: int = 60, seed: int = 0, log: Log | None = None, **config: Any
) -> tuple[Any, Log, RunResult]:
    """Run one search on a synthetic landscape."""
    num_envs = config.pop("num_envs", 4)
    envs: Any = gymnasium.make_vec(env, num_envs, autoreset_mode="Disabled", evaluator="synthetic").unwrapped
    agent = nas_agents.make(name, envs, seed, num_envs=num_envs, **config)
    log = log or Log()
    log.agent = agent
    return agent, log, nas_agents.run(agent, envs, budget, seed, [log])


@every_algorithm
@pytest.mark.parametrize("env", list(ENVIRONMENTS))
def test_every_algorithm_learns_on_every_environment(env: str, name: str) -> None:
    """The policy is updated and its parameters change, with the default settings and a small budget."""
    agent, log, result = search(name, env)
    assert result.updates is not None
    assert result.updates >= 1
    before, after = log.parameters["policy"], agent.model.get_parameters()["policy"]
    assert any(not np.array_equal(before[key].cpu(), after[key].cpu()) for key in before)


@every_algorithm
@pytest.mark.parametrize("env", ["NAS-Cell-v0", MASKED])
def test_the_budget_is_used_exactly(env: str, name: str) -> None:
    """A budget that is no multiple of anything is spent to the last query, and every query is published."""
    _, log, result = search(name, env, budget=61)
    assert (result.usage.queries, len(log.encodings), result.reason) == (61, 61, "budget")


@every_algorithm
def test_no_illegal_action_is_taken(name: str) -> None:
    """Masks or resampling keep every episode legal where masks matter."""
    _, log, _ = search(name, MASKED, budget=80)
    assert set(log.status) == {"ok"}


def test_masked_actions_may_end_episodes() -> None:
    """Without resampling a plain algorithm meets the dynamics of the environment."""
    _, log, _ = search("sb3:ppo", MASKED, budget=80, masked_actions="terminate")
    assert "invalid_action" in log.status


@every_algorithm
def test_the_same_seed_gives_the_same_search(name: str) -> None:
    """Two searches from one seed build the same architectures in the same order."""
    first, second = (search(name, MASKED, seed=5)[1].encodings for _ in range(2))
    assert first == second


@every_algorithm
def test_another_seed_is_another_search(name: str) -> None:
    """Two seeds build different architectures."""
    first, second = (search(name, MASKED, seed=seed)[1].encodings for seed in (5, 6))
    assert first != second


def test_what_is_published_is_what_was_built() -> None:
    """Lengths and encodings of the published episodes agree, for episodes of different lengths."""
    _, log, _ = search("sb3:maskable_ppo", MASKED)
    assert log.lengths == [len(encoding) for encoding in log.encodings]


@pytest.mark.parametrize("name", ["sb3:ppo", "sb3:a2c", "sb3:maskable_ppo"])
def test_rollouts_longer_than_the_search_are_refused(name: str) -> None:
    """With the library's 2,048 steps a search of 60 queries would learn nothing; the message names the argument."""
    with pytest.raises(InvalidArgument, match=r"n_steps = 2048 .* nothing would be learnt"):
        search(name, n_steps=2048)


@pytest.mark.parametrize("name", ["sb3:dqn", "sb3:masked_dqn"])
def test_a_start_beyond_the_search_is_refused(name: str) -> None:
    """DQN that would only explore is refused before anything is paid for."""
    with pytest.raises(InvalidArgument, match=r"learning_starts = 50000, .* nothing would be learnt"):
        search(name, learning_starts=50_000)


def test_a_search_without_update_is_an_error() -> None:
    """A budget that is used before the first update, because episodes were short, ends with an error."""
    with pytest.raises(InvalidArgument, match="before MaskablePPO made its first update"):
        search("sb3:maskable_ppo", budget=4, n_steps=6)


def test_a_sink_can_stop_the_search() -> None:
    """A wish to stop is obeyed after the step in which it came."""
    _, log, result = search("sb3:ppo", budget=500, log=Log(stop_after=10))
    assert result.reason == "interrupted"
    assert 10 <= len(log.encodings) < 20


def test_the_time_is_a_budget() -> None:
    """With no time at all the search ends after its first step."""
    envs: Any = gymnasium.make_vec("NAS-Cell-v0", 4, autoreset_mode="Disabled", evaluator="synthetic").unwrapped
    agent = nas_agents.make("sb3:ppo", envs, 0, num_envs=4)
    assert nas_agents.run(agent, envs, 500, 0, max_seconds=1e-9).reason == "time"


def test_further_settings_reach_the_algorithm() -> None:
    """What the configuration does not name is passed on to the constructor."""
    agent, _, _ = search("sb3:ppo", settings={"vf_coef": 0.25})
    assert agent.model.vf_coef == 0.25


def test_a_setting_that_does_not_exist_is_named() -> None:
    """A typo among the further settings is an error of ours that quotes it."""
    with pytest.raises(InvalidArgument, match="vf_coeff"):
        search("sb3:ppo", settings={"vf_coeff": 0.25})


def test_logs_for_tensorboard_are_written(tmp_path: Path) -> None:
    """The directory that was asked for holds event files."""
    search("sb3:a2c", tensorboard=str(tmp_path))
    assert list(tmp_path.rglob("events.out.tfevents.*"))


@every_algorithm
def test_parameters_load_back(name: str) -> None:
    """A new agent that is given the parameters of a finished search starts from them."""
    agent, _, _ = search(name)
    saved = copy.deepcopy(agent.state_dict())
    envs: Any = gymnasium.make_vec("NAS-Cell-v0", 4, autoreset_mode="Disabled", evaluator="synthetic").unwrapped
    restored = nas_agents.make(name, envs, 9, num_envs=4)
    restored.load_state_dict(saved)
    # Ended after one step, before anything is learnt.
    nas_agents.run(restored, envs, 60, 9, max_seconds=1e-9)
    before, after = saved["parameters"]["policy"], restored.model.get_parameters()["policy"]
    assert all(np.array_equal(before[key].cpu(), after[key].cpu()) for key in before)


def test_learning_beats_uniform_sampling() -> None:
    """MaskablePPO's last quarter of 600 queries is better than the first, on a masked landscape."""
    _, log, _ = search("sb3:maskable_ppo", MASKED, budget=600, num_envs=8)
    assert np.mean(log.returns[-150:]) > np.mean(log.returns[:150]) + 0.2
