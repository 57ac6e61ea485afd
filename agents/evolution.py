"""Regularised evolution: tournament selection, mutation, and death of the oldest.

Source: Real, Aggarwal, Huang, Le: Regularized Evolution for Image Classifier Architecture Search, AAAI 2019,
arXiv 1802.01548, algorithm 1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nas_gym.search_spaces.core import Encoding

from .core.base import Agent, Envs, Proposer, require, require_count


@dataclass(frozen=True)
class EvolutionConfig:
    """Settings of `Evolution`.

    Attributes:
        population_size: members P; the first P architectures are random.
        sample_size: members S drawn for a tournament, with replacement.
        batch_size: children made from one population; 1 is the published, sequential algorithm.
    """

    population_size: int = 50
    sample_size: int = 10
    batch_size: int = 1

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidArgument: a value outside its range.
        """
        require_count("population_size", self.population_size, 2)
        require_count("sample_size", self.sample_size)
        require_count("batch_size", self.batch_size)
        fits = self.sample_size <= self.population_size
        require(fits, "sample_size", self.sample_size, f"at most population_size = {self.population_size}")


class Evolution(Proposer):
    """Keeps a population; a child is the mutated best of a random sample, and the oldest member dies.

    Presets: ``nats_bench`` (population 10, sample 3), ``real2019`` (100, 25).
    """

    Config: ClassVar[type[EvolutionConfig]] = EvolutionConfig
    presets: ClassVar[Mapping[str, EvolutionConfig]] = MappingProxyType(
        {"nats_bench": EvolutionConfig(10, 3), "real2019": EvolutionConfig(100, 25)}
    )

    def __init__(self, envs: Envs, seed: int, config: EvolutionConfig) -> None:
        """Start with an empty population."""
        super().__init__(envs, seed, config)
        self.population: deque[tuple[Encoding, float]] = deque(maxlen=config.population_size)

    def propose(self, count: int) -> list[Encoding]:
        """Return random architectures until the population is full, then children."""
        missing = self.config.population_size - len(self.population)
        if missing > 0:
            return [self.space.sample(self.rng) for _ in range(min(count, missing))]
        return [self._child() for _ in range(count)]

    def _child(self) -> Encoding:
        drawn = self.rng.integers(len(self.population), size=self.config.sample_size)
        parent, _ = max((self.population[index] for index in drawn.tolist()), key=lambda member: member[1])
        return self.space.mutate(parent, self.rng)

    def policy(self) -> Agent:
        """Return the agent: what it proposes are children of its population."""
        return self

    def tell(self, encodings: Sequence[Encoding], returns: npt.NDArray[np.float64]) -> dict[str, float]:
        """Add the newcomers; the bounded queue drops the oldest."""
        self.population.extend(zip(encodings, returns.tolist(), strict=True))
        fitness = [value for _, value in self.population]
        return {"population_best": max(fitness), "population_mean": float(np.mean(fitness))}

    def state_dict(self) -> dict[str, Any]:
        """Return the generator and the population."""
        return {**super().state_dict(), "population": list(self.population)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a value of `state_dict`."""
        super().load_state_dict(state)
        members = ((tuple(encoding), float(value)) for encoding, value in state["population"])
        self.population = deque(members, maxlen=self.config.population_size)
