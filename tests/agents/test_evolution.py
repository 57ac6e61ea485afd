"""Regularised evolution, checked against the published algorithm."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

import nas_agents
import nas_gym  # noqa: F401 - registers the environments
from nas_gym.errors import InvalidArgument
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space


def make_agent(**config: Any) -> Any:
    """Return an evolution agent over NAS-Cell-v0."""
    envs = gymnasium.make_vec("NAS-Cell-v0", num_envs=1, evaluator="synthetic", autoreset_mode="Disabled").unwrapped
    return nas_agents.make("evolution", envs, 0, **config)


def filled(**config: Any) -> Any:
    """Return an agent whose population of five has returns 0, 1, 2, 3, 4 from the oldest to the youngest."""
    agent = make_agent(population_size=5, **config)
    encodings = [(0, 0, 0, 0, 0, number) for number in range(5)]
    agent.tell(encodings, np.arange(5.0))
    return agent


def test_oldest_member_dies() -> None:
    """A newcomer displaces the oldest, whatever their returns."""
    agent = filled(sample_size=2)
    agent.tell([(1, 1, 1, 1, 1, 1)], np.array([-1.0]))
    assert [value for _, value in agent.population] == [1.0, 2.0, 3.0, 4.0, -1.0]


def test_whole_population_as_sample_breeds_from_the_best_mostly() -> None:
    """A child is one mutation away from its parent, and large samples seldom miss the best member."""
    agent = filled(sample_size=5)
    space = NASBench201Space()
    best = (0, 0, 0, 0, 0, 4)
    children = [agent.propose(1)[0] for _ in range(300)]
    # Five draws with replacement out of five miss the best with probability 0.8 ** 5 = 0.33.
    assert 0.55 < np.mean([child in space.neighbours(best) for child in children]) < 0.95


def test_sample_of_one_breeds_from_everybody() -> None:
    """Without selection pressure every member is a parent."""
    agent = filled(sample_size=1)
    space = NASBench201Space()
    children = [agent.propose(1)[0] for _ in range(200)]
    for parent, _ in agent.population:
        assert any(child in space.neighbours(parent) for child in children)


def test_population_starts_random_and_full() -> None:
    """The first proposals fill the population exactly, whatever the batch."""
    agent = make_agent(population_size=5, sample_size=2, batch_size=4)
    first = agent.propose(4)
    agent.tell(first, np.zeros(4))
    assert len(agent.propose(4)) == 1


def test_presets_are_the_published_ones() -> None:
    """NATS-Bench's scripts use 10 and 3; the paper's main experiment 100 and 25."""
    agent = nas_agents.AGENTS["evolution"]
    sizes = {name: (config.population_size, config.sample_size) for name, config in agent.presets.items()}
    assert sizes == {"nats_bench": (10, 3), "real2019": (100, 25)}


@pytest.mark.parametrize(
    "settings", [{"population_size": 1}, {"sample_size": 0}, {"population_size": 4, "sample_size": 5}]
)
def test_bad_settings_are_refused(settings: dict[str, int]) -> None:
    """Sizes outside their range are errors."""
    with pytest.raises(InvalidArgument, match="must be"):
        make_agent(**settings)
