"""The contract of vector environments: Gymnasium's vector of single environments is the reference.

Dimension letters: N sub-environments.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from nas_gym.testing.environment import MakeEnv
from nas_gym.testing.rules import arrays_in, demand, demand_equal, parts

MakeVectorEnv = Callable[[int, AutoresetMode], VectorEnv[Any, Any, Any]]
"""Makes the vector environment of a number of sub-environments and an auto-reset mode."""


@dataclass(frozen=True)
class VectorProbe:
    """How to make the single and the vector form, and seeds of the streams to play in both."""

    make_env: MakeEnv
    make_vec_env: MakeVectorEnv
    seeds: tuple[int, ...]
    steps: int

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of sub-environments; noise that counts repeats is comparable in a single one only."""
        return (1, 3) if parts(self.make_env()).evaluator.deterministic else (1,)

    def pairs(self) -> Iterator[_Pair]:
        """Iterate over the pairs to compare: every size, mode and seed."""
        for count, mode, seed in itertools.product(self.sizes, AutoresetMode, self.seeds):
            reference = SyncVectorEnv([self.make_env] * count, autoreset_mode=mode)
            yield _Pair(self.make_vec_env(count, mode), reference, mode, seed)


@dataclass(frozen=True)
class _Pair:
    """A vector environment beside Gymnasium's vector of single environments."""

    vector: VectorEnv[Any, Any, Any]
    reference: SyncVectorEnv
    mode: AutoresetMode
    seed: int

    @property
    def witness(self) -> dict[str, object]:
        """What reproduces a difference."""
        return {"num_envs": self.reference.num_envs, "autoreset_mode": self.mode.value, "seed": self.seed}

    def play(self, steps: int) -> Iterator[tuple[list[list[int]], tuple[Any, ...], tuple[Any, ...]]]:
        """Play a random stream in both; iterate over (actions so far, vector's result, reference's result)."""
        rng = np.random.default_rng(self.seed)
        stream: list[list[int]] = []
        yield stream, self.vector.reset(seed=self.seed), self.reference.reset(seed=self.seed)
        for _ in range(steps):
            actions = self._draw(rng)
            stream.append(actions.tolist())
            result = self.vector.step(actions)
            yield stream, result, self.reference.step(actions)
            chosen = self._rows_to_reset(rng, result[2] | result[3])
            if chosen is not None:
                options = {"reset_mask": chosen, **self._fidelity(rng)}
                # The reference takes the mask out of the dictionary.
                yield stream, self.vector.reset(options=dict(options)), self.reference.reset(options=dict(options))

    def _draw(self, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Draw actions, one in ten of which may be masked."""
        masks = parts(self.vector).action_masks()
        careful = [int(rng.choice(np.flatnonzero(mask))) for mask in masks]
        careless = rng.integers(masks.shape[1], size=len(masks))
        return np.where(rng.random(len(masks)) < 0.1, careless, careful)

    def _rows_to_reset(self, rng: np.random.Generator, over: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_] | None:
        """Return all finished rows where nothing resets them, and some at random now and then."""
        chosen = over.copy() if self.mode is AutoresetMode.DISABLED else np.zeros(len(over), np.bool_)
        if rng.random() < 0.15:
            chosen |= rng.random(len(over)) < 0.5
        return chosen if chosen.any() else None

    def _fidelity(self, rng: np.random.Generator) -> dict[str, int]:
        fidelities = parts(self.vector).evaluator.fidelities
        if fidelities is None or rng.random() < 0.5:
            return {}
        return {"fidelity": int(rng.integers(fidelities[0], fidelities[1] + 1))}

    def close(self) -> None:
        """Close both."""
        self.vector.close()
        self.reference.close()


def _vector_describes_itself(probe: VectorProbe) -> None:
    """A vector environment has the spaces and metadata of a vector of single ones; it may lack render modes."""
    for pair in probe.pairs():
        for name in (
            "num_envs",
            "single_action_space",
            "action_space",
            "single_observation_space",
            "observation_space",
        ):
            mine, theirs = getattr(pair.vector, name), getattr(pair.reference, name)
            demand(mine == theirs, f"{name} = {theirs}", mine, **pair.witness)
        mine, theirs = dict(pair.vector.metadata), dict(pair.reference.metadata)
        modes, possible = mine.pop("render_modes", []), theirs.pop("render_modes", [])
        demand(set(modes) <= set(possible), f"some of the render modes {possible}", modes, **pair.witness)
        demand_equal(mine, theirs, "the metadata of the reference", **pair.witness)
        pair.close()


def _vector_equals_single(probe: VectorProbe) -> None:
    """Every value a vector environment returns, infos included, equals SyncVectorEnv's over random streams."""
    for pair in probe.pairs():
        for stream, mine, theirs in pair.play(probe.steps):
            demand_equal(mine, theirs, "equality of (vector, reference)", **pair.witness, actions=stream)
        pair.close()


def _vector_masks_equal_single(probe: VectorProbe) -> None:
    """`action_masks()` of a vector environment stacks those of the single environments."""
    for pair in probe.pairs():
        for stream, _, _ in pair.play(probe.steps):
            theirs = np.stack(pair.reference.call("action_masks"))
            demand_equal(parts(pair.vector).action_masks(), theirs, "the masks", **pair.witness, actions=stream)
        pair.close()


def _vector_data_is_fresh(probe: VectorProbe) -> None:
    """What a vector environment returned is never changed later, and no two of its arrays share memory."""
    for pair in probe.pairs():
        kept: list[tuple[Any, ...]] = []
        copies: list[tuple[Any, ...]] = []
        for stream, mine, _ in pair.play(min(probe.steps, 30)):
            kept.append(mine)
            copies.append(copy.deepcopy(mine))
            recent = list(arrays_in(kept[-2:]))
            shared = any(np.shares_memory(one, other) for one, other in itertools.combinations(recent, 2))
            demand(not shared, "arrays of their own", "shared memory", **pair.witness, actions=stream)
        demand_equal(kept, copies, "returned data to stay as it was", **pair.witness)
        pair.close()


def _vector_counts_like_single(probe: VectorProbe) -> None:
    """The counter of a vector environment holds the sums of the single environments' counters."""
    for pair in probe.pairs():
        counter = parts(pair.vector).counter
        singles = [parts(env).counter for env in pair.reference.envs]
        for stream, _, _ in pair.play(probe.steps):
            mine = counter.environment_steps, counter.queries
            theirs = sum(one.environment_steps for one in singles), sum(one.queries for one in singles)
            comparable = mine if not counter.repeats_are_free or len(singles) == 1 else (mine[0], theirs[1])
            demand(comparable == theirs, f"(steps, queries) = {theirs}", mine, **pair.witness, actions=stream)
        pair.close()


VECTOR_RULES: tuple[Callable[[VectorProbe], None], ...] = (
    _vector_describes_itself,
    _vector_equals_single,
    _vector_masks_equal_single,
    _vector_data_is_fresh,
    _vector_counts_like_single,
)
"""Rules of `check_nas_env` for the vector environment, in order."""
