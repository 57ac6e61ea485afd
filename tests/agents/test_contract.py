"""What every registered agent must do, on a fixed-slot and on a variable-length space."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from curves import Curves
from toys import ToySpace

import nas_agents
from nas_agents import Evaluated, Sink
from nas_gym.envs.core.construction import ConstructionVectorEnv
from nas_gym.errors import UnknownName
from nas_gym.objectives import Accuracy
from nas_gym.search_spaces.core import SearchSpace
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

SPACES = [pytest.param(NASBench201Space(), id="nas_bench_201"), pytest.param(ToySpace(), id="toy")]
# Algorithms with a loop of their own, those of other libraries, have tests of their own.
AGENTS = [
    name
    for name, entry in nas_agents.AGENTS.entries.items()
    if (entry.extra is None or importlib.util.find_spec("torch") is not None)
    and not nas_agents.AGENTS[name].drives_itself
]

DRAWING = ("random_search", "successive_halving", "local_search")
"""Agents whose later architectures are no better on average, as they draw uniformly or start anew at every optimum."""

REPEATING: dict[str, dict[str, Any]] = {
    "uct": {"repeats": True},
    "q_learning": {"redraws": 0, "epsilon_schedule": tuple((tenths / 10, 70) for tenths in range(10, 0, -1))},
}
"""Settings that let an agent stay with the best, where by default it evaluates nothing twice."""


class Log(Sink):
    """Keeps everything that a run publishes."""

    def __init__(self) -> None:
        self.encodings: list[tuple[int, ...]] = []
        self.returns: list[float] = []
        self.status: list[str] = []
        self.first_seen: list[bool] = []

    def on_episodes(self, evaluated: Evaluated) -> None:
        self.encodings += evaluated.batch.encodings
        self.returns += evaluated.batch.returns.tolist()
        self.status += evaluated.batch.status
        self.first_seen += evaluated.batch.first_seen.tolist()


def make_envs(space: SearchSpace, num_envs: int = 8, landscape: int = 0, **kwargs: Any) -> ConstructionVectorEnv:
    """Return environments on a synthetic landscape, which has fidelities for agents that choose them."""
    evaluator = Curves(space, evaluation_seed=landscape)
    return ConstructionVectorEnv(space, evaluator, Accuracy(), num_envs=num_envs, autoreset_mode="Disabled", **kwargs)


def search(name: str, space: SearchSpace, budget: int, seed: int, landscape: int = 0, **config: Any) -> Log:
    """Run one search and return what it published."""
    batch_size = nas_agents.make_config(nas_agents.AGENTS[name], **config).batch_size
    envs = make_envs(space, batch_size, landscape)
    log = Log()
    nas_agents.run(nas_agents.make(name, envs, seed, **config), envs, budget, seed, [log])
    return log


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", AGENTS)
def test_budget_is_used_exactly(name: str, space: SearchSpace) -> None:
    """A budget that is no multiple of any batch is spent to the last query."""
    assert len(search(name, space, budget=61, seed=0).encodings) == 61


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", AGENTS)
def test_no_agent_takes_an_illegal_action(name: str, space: SearchSpace) -> None:
    """Every episode ends with an evaluated architecture of the space."""
    log = search(name, space, budget=120, seed=1)
    assert set(log.status) == {"ok"}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", AGENTS)
def test_same_seed_reproduces_the_search(name: str, space: SearchSpace) -> None:
    """Two runs from one seed propose the same architectures in the same order."""
    assert search(name, space, 90, seed=3).encodings == search(name, space, 90, seed=3).encodings


@pytest.mark.parametrize("name", AGENTS)
def test_another_seed_is_another_search(name: str) -> None:
    """Two seeds propose different architectures."""
    space = NASBench201Space()
    assert search(name, space, 90, seed=3).encodings != search(name, space, 90, seed=4).encodings


@pytest.mark.parametrize("name", [name for name in AGENTS if name not in DRAWING])
def test_learning_agents_improve_on_a_landscape(name: str) -> None:
    """The last quarter of 800 queries is better than uniform sampling by far, on three landscapes."""
    space = NASBench201Space()
    gains = []
    for landscape in range(3):
        settings = REPEATING.get(name, {})
        returns = search(name, space, budget=800, seed=landscape, landscape=landscape, **settings).returns
        uniform = search("random_search", space, budget=400, seed=9, landscape=landscape).returns
        gains.append(np.mean(returns[-200:]) - np.mean(uniform))
    assert min(gains) > 0.2


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", AGENTS)
def test_state_dict_continues_the_search(name: str, space: SearchSpace) -> None:
    """An agent restored after 80 queries goes on exactly like the one that was never interrupted."""
    batch_size = nas_agents.make_config(nas_agents.AGENTS[name]).batch_size
    envs = make_envs(space, batch_size)
    agent = nas_agents.make(name, envs, 5)
    nas_agents.run(agent, envs, 2 * batch_size + 70, 5)
    state = agent.state_dict()
    expected, found = Log(), Log()
    nas_agents.run(agent, envs, 60, 6, [expected])
    restored = nas_agents.make(name, envs, 77)
    restored.load_state_dict(state)
    nas_agents.run(restored, envs, 60, 6, [found])
    assert found.encodings == expected.encodings


@pytest.mark.parametrize("name", AGENTS)
def test_unknown_setting_names_the_nearest(name: str) -> None:
    """A misspelt setting is an error that names the right one."""
    with pytest.raises(UnknownName, match="Did you mean 'batch_size'"):
        nas_agents.make(name, make_envs(ToySpace()), 0, batch_sise=3)


def test_unknown_agent_names_the_nearest() -> None:
    """A misspelt agent is an error that names the right one."""
    with pytest.raises(UnknownName, match="Did you mean 'evolution'"):
        nas_agents.make("evolutoin", make_envs(ToySpace()), 0)


@pytest.mark.parametrize("name", AGENTS)
def test_presets_are_valid_configurations(name: str) -> None:
    """Every preset of an agent makes an agent that runs."""
    agent = nas_agents.AGENTS[name]
    for preset in agent.presets:
        envs = make_envs(ToySpace())
        result = nas_agents.run(nas_agents.make(name, envs, 0, preset=preset), envs, 20, 0)
        assert result.usage.queries == 20
