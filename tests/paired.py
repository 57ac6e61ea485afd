"""Comparing two searchers on the same seeds: what each found, and whether the difference can be chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import nas_agents
from nas_agents import Evaluated, Sink
from nas_gym.envs.core.construction import ConstructionVectorEnv


class Best(Sink):
    """Keeps the best reward of a search, at the highest fidelity where the agent chooses it."""

    def __init__(self) -> None:
        self.found = (-math.inf, -math.inf)

    @property
    def reward(self) -> float:
        return self.found[1]

    def on_episodes(self, evaluated: Evaluated) -> None:
        batch = evaluated.batch
        fidelities = [math.inf] * len(batch) if batch.fidelities is None else batch.fidelities.tolist()
        self.found = max([self.found, *zip(fidelities, batch.returns.tolist(), strict=True)])


def best_reward(
    make_envs: Callable[[int, int], ConstructionVectorEnv], name: str, budget: int, seed: int, **config: Any
) -> float:
    """Return the best reward that a search finds.

    Args:
        make_envs: of a number of sub-environments and a seed.
        name: the agent.
        budget: queries.
        seed: of environment and agent.
        **config: the agent's settings.
    """
    size = nas_agents.make_config(nas_agents.AGENTS[name], **config).batch_size
    envs, best = make_envs(size, seed), Best()
    nas_agents.run(nas_agents.make(name, envs, seed, **config), envs, budget, seed, [best])
    return best.reward


def sign_test(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return how probable at least so many wins are if either side wins with probability 1/2; ties count for none.

    >>> sign_test([1, 1, 1, 1], [0, 0, 0, 1])
    0.125
    """
    wins = sum(a > b for a, b in zip(ours, theirs, strict=True))
    decided = sum(a != b for a, b in zip(ours, theirs, strict=True))
    return sum(math.comb(decided, count) for count in range(wins, decided + 1)) / 2**decided
