"""What an agent is rewarded with: shaping by a potential, improvements, normalised returns.

Dimension letters: N sub-environments, E episodes that ended in a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper

from nas_gym.errors import InvalidArgument
from nas_gym.registry import resolve
from nas_gym.search_spaces.core import Encoding, SearchSpace
from nas_gym.wrappers.core import (
    Info,
    Seeds,
    VectorEpisodes,
    finite_number,
    flag,
    reset_rows,
    seeded_rows,
)

Potential: TypeAlias = Callable[[SearchSpace, Encoding], float]
"""How promising an unfinished architecture is: a function of the search space and the decisions so far."""


# --- shaping -------------------------------------------------------------------------------------------


class _Shaping:
    """A potential of one search space, checked."""

    def __init__(self, space: Any, potential: str | Potential, discount: float) -> None:  # noqa: ANN401 - checked here
        self.discount = finite_number("discount", discount)
        if not 0 < self.discount <= 1:
            raise InvalidArgument(f"discount must lie in (0, 1], got {discount!r}.")
        self._potential = resolve(potential) if isinstance(potential, str) else potential
        if not callable(self._potential):
            raise InvalidArgument(f"potential must be a function or its name 'module:function', got {potential!r}.")
        if not isinstance(space, SearchSpace):
            raise InvalidArgument("PotentialShaping needs an environment of nas-gym: its `unwrapped.space` is missing.")
        self._space = space
        self(())

    def __call__(self, prefix: Encoding) -> float:
        """Return the potential of a prefix.

        Raises:
            InvalidArgument: it is no finite number.
        """
        return finite_number(f"the potential of {prefix}", self._potential(self._space, prefix))


class PotentialShaping(RecordConstructorArgs, gymnasium.Wrapper):
    """Adds ``discount * potential(s') - potential(s)`` to every reward, which leaves optimal policies optimal.

    The potential of a terminal state is 0. A truncated episode ends in the state where it is. (Ng, Harada, Russell:
    Policy invariance under reward transformations, ICML 1999.)
    """

    def __init__(self, env: gymnasium.Env[Any, Any], potential: str | Potential, discount: float = 1.0) -> None:
        """Wrap an environment of nas-gym.

        Args:
            env: the environment.
            potential: function of (space, prefix), or its name ``"module:function"``; only a name is JSON.
            discount: that of the agent, in (0, 1].

        Raises:
            InvalidArgument: no such function, a potential that is not finite, a discount outside its range, or an
                environment of another project.
        """
        RecordConstructorArgs.__init__(self, potential=potential, discount=discount)
        gymnasium.Wrapper.__init__(self, env)
        self._shaping = _Shaping(getattr(env.unwrapped, "space", None), potential, discount)
        self._here = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Info]:
        """Begin an episode."""
        result = self.env.reset(seed=seed, options=options)
        self._here = self._potential()
        return result

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:  # noqa: ANN401 - of the environment
        """Take a step.

        Raises:
            InvalidArgument: the potential is not finite.
        """
        observation, reward, terminated, truncated, info = self.env.step(action)
        there = 0.0 if terminated else self._potential()
        shaped = float(reward) + (self._shaping.discount * there - self._here)
        self._here = there
        return observation, shaped, terminated, truncated, info

    def _potential(self) -> float:
        unwrapped: Any = self.unwrapped
        return self._shaping(unwrapped.get_state().prefix)


class VectorPotentialShaping(RecordConstructorArgs, VectorWrapper):
    """`PotentialShaping` for vector environments."""

    def __init__(self, env: VectorEnv[Any, Any, Any], potential: str | Potential, discount: float = 1.0) -> None:
        """Wrap a vector environment of nas-gym; arguments and errors as those of `PotentialShaping`."""
        RecordConstructorArgs.__init__(self, potential=potential, discount=discount)
        VectorWrapper.__init__(self, env)
        unwrapped: Any = env.unwrapped
        self._shaping = _Shaping(getattr(unwrapped, "space", None), potential, discount)
        self._unwrapped = unwrapped
        self._episodes = VectorEpisodes(env)
        self._here = np.zeros(env.num_envs)

    def reset(self, *, seed: Seeds = None, options: dict[str, Any] | None = None) -> tuple[Any, Info]:
        """Begin new episodes."""
        rows = reset_rows(options, self.num_envs)
        result = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        self._episodes.begin(rows)
        self._here[rows] = self._potentials(rows)[rows]
        return result

    def step(self, actions: Any) -> tuple[Any, npt.NDArray[np.float64], Any, Any, Info]:  # noqa: ANN401
        """Take a step in every row.

        Raises:
            InvalidArgument: the potential is not finite.
        """
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        active = self._episodes.step(rewards, terminated, truncated).active
        same_step = self._episodes.same_step
        now = self._potentials(~terminated | same_step)
        # In the mode "SameStep" a truncated row is in its next episode already; what truncated it had not moved it.
        there = np.where(terminated, 0.0, np.where(truncated & same_step, self._here, now))
        shaped = np.where(active, rewards + (self._shaping.discount * there - self._here), rewards)
        self._here = now
        return observations, shaped, terminated, truncated, info

    def _potentials(self, rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Return the potentials of where some rows are, float64 [N], 0 in the others."""
        found = np.zeros(self.num_envs)
        if rows.any():
            state = self._unwrapped.get_state()
            prefixes = self._unwrapped.space.rows(state.prefixes[rows], state.lengths[rows])
            found[rows] = [self._shaping(prefix) for prefix in prefixes]
        return found


# --- improvements --------------------------------------------------------------------------------------

REFERENCES = ("best", "previous")
"""What the return of an episode is compared with: the best one before, or the one before."""


def _checked_reference(reference: object) -> str:
    if reference not in REFERENCES:
        raise InvalidArgument(f"reference must be one of {', '.join(map(repr, REFERENCES))}, got {reference!r}.")
    return str(reference)


class DeltaReward(RecordConstructorArgs, gymnasium.Wrapper):
    """Rewards an episode with its return minus an earlier one, by changing its last reward.

    A reset with a seed begins anew and forgets earlier episodes.

    Attributes:
        compared_with: the earlier return that the next episode is compared with.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], reference: str = "best", initial: float = 0.0) -> None:
        """Wrap an environment.

        Args:
            env: the environment.
            reference: "best", the best return so far, so that the reward is an improvement; or "previous", the return
                of the episode before.
            initial: what the first episode is compared with.

        Raises:
            InvalidArgument: an unknown reference, or an `initial` that is not finite.
        """
        RecordConstructorArgs.__init__(self, reference=reference, initial=initial)
        gymnasium.Wrapper.__init__(self, env)
        self.reference = _checked_reference(reference)
        self.initial = finite_number("initial", initial)
        self.compared_with = self.initial
        self._return = 0.0
        self._first = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Info]:
        """Begin an episode; a seed makes it forget."""
        result = self.env.reset(seed=seed, options=options)
        self._return = 0.0
        if seed is not None:
            self.compared_with, self._first = self.initial, True
        return result

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:  # noqa: ANN401 - of the environment
        """Take a step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        changed = float(reward)
        self._return += changed
        if terminated or truncated:
            changed -= self.compared_with
            keep = self.reference == "best" and not self._first
            self.compared_with = max(self.compared_with, self._return) if keep else self._return
            self._first = False
        return observation, changed, terminated, truncated, info


class VectorDeltaReward(RecordConstructorArgs, VectorWrapper):
    """`DeltaReward` for vector environments.

    Attributes:
        compared_with: the earlier return that the next episode of every row is compared with, float64 [N], or of any
            row, [1], if it is shared.
    """

    def __init__(
        self, env: VectorEnv[Any, Any, Any], reference: str = "best", initial: float = 0.0, shared: bool = False
    ) -> None:
        """Wrap a vector environment.

        Args:
            env: the vector environment.
            reference: as in `DeltaReward`.
            initial: what the first episode is compared with.
            shared: whether episodes of all rows are compared with each other, those that end in the same step in the
                order of their rows; else, as in single environments, those of a row.

        Raises:
            InvalidArgument: an unknown reference, or an `initial` that is not finite.
        """
        RecordConstructorArgs.__init__(self, reference=reference, initial=initial, shared=shared)
        VectorWrapper.__init__(self, env)
        self.reference = _checked_reference(reference)
        self.initial = finite_number("initial", initial)
        self.shared = flag("shared", shared)
        self._episodes = VectorEpisodes(env)
        self.compared_with = np.full(1 if shared else env.num_envs, self.initial)
        self._first = np.ones(len(self.compared_with), np.bool_)

    def reset(self, *, seed: Seeds = None, options: dict[str, Any] | None = None) -> tuple[Any, Info]:
        """Begin new episodes; a row that is seeded forgets, or all do if they share."""
        rows = reset_rows(options, self.num_envs)
        result = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        self._episodes.begin(rows)
        seeded = rows & np.array([one is not None for one in seeded_rows(seed, self.num_envs)], np.bool_)
        forgetful = seeded if not self.shared else np.array([seeded.any()])
        self.compared_with[forgetful] = self.initial
        self._first[forgetful] = True
        return result

    def step(self, actions: Any) -> tuple[Any, npt.NDArray[np.float64], Any, Any, Info]:  # noqa: ANN401
        """Take a step in every row."""
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        found = self._episodes.step(rewards, terminated, truncated)
        changed = np.array(rewards, np.float64)
        for row, value in zip(found.rows.tolist(), found.returns.tolist(), strict=True):
            place = 0 if self.shared else row
            changed[row] -= self.compared_with[place]
            keep = self.reference == "best" and not self._first[place]
            self.compared_with[place] = max(float(self.compared_with[place]), value) if keep else value
            self._first[place] = False
        return observations, changed, terminated, truncated, info


# --- normalised returns --------------------------------------------------------------------------------


class ReturnStatistics:
    """Mean and standard deviation of returns, one after the other, by Welford's recurrence.

    Attributes:
        count: number of returns.
        mean: their mean, 0 before the first.
        squares: sum of their squared deviations from the mean.
    """

    def __init__(self) -> None:
        """Start without returns."""
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0

    @property
    def std(self) -> float:
        """Their standard deviation, 1 while they do not differ."""
        return math.sqrt(self.squares / self.count) if self.squares > 0 else 1.0

    def add(self, value: float) -> None:
        """Take one return into account."""
        self.count += 1
        before = value - self.mean
        self.mean += before / self.count
        self.squares += before * (value - self.mean)


class _Normaliser:
    """Statistics of one or of several sequences of returns."""

    def __init__(self, sequences: int, frozen: bool, epsilon: float) -> None:
        self.frozen = flag("frozen", frozen)
        self.epsilon = finite_number("epsilon", epsilon)
        if self.epsilon <= 0:
            raise InvalidArgument(f"epsilon must be positive, got {epsilon!r}.")
        self.statistics = [ReturnStatistics() for _ in range(sequences)]

    def change(self, sequence: int, value: float) -> float:
        """Return what to add to the last reward, so that the return `value` becomes the normalised one."""
        found = self.statistics[sequence]
        if not self.frozen:
            found.add(value)
        return (value - found.mean) / max(found.std, self.epsilon) - value

    def state_dict(self) -> dict[str, list[Any]]:
        return {name: [getattr(one, name) for one in self.statistics] for name in ("count", "mean", "squares")}

    def load_state_dict(self, state: Mapping[str, Sequence[Any]]) -> None:
        names = ("count", "mean", "squares")
        if set(state) != set(names) or any(len(state[name]) != len(self.statistics) for name in names):
            raise InvalidArgument(
                f"the state must have {', '.join(names)}, each a list of {len(self.statistics)}, got {dict(state)!r}."
            )
        rows = [[finite_number(name, value) for value in state[name]] for name in names]
        if any(count < 0 or count % 1 for count in rows[0]) or any(value < 0 for value in rows[2]):
            raise InvalidArgument(f"counts are whole numbers from 0, squares are from 0, got {dict(state)!r}.")
        for one, count, mean, squares in zip(self.statistics, *rows, strict=True):
            one.count, one.mean, one.squares = int(count), mean, squares


class NormaliseReward(RecordConstructorArgs, gymnasium.Wrapper):
    """Turns the return R of an episode into ``(R - mean) / std`` of all returns so far, its own included.

    The last reward is changed so that the rewards of the episode add up to that. The statistics survive every reset;
    while `frozen` is true they stay as they are.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], frozen: bool = False, epsilon: float = 1e-8) -> None:
        """Wrap an environment.

        Args:
            env: the environment.
            frozen: whether returns are normalised without being taken into account.
            epsilon: smallest standard deviation that is divided by.

        Raises:
            InvalidArgument: an argument outside its range.
        """
        RecordConstructorArgs.__init__(self, frozen=frozen, epsilon=epsilon)
        gymnasium.Wrapper.__init__(self, env)
        self._normaliser = _Normaliser(1, frozen, epsilon)
        self._return = 0.0

    @property
    def frozen(self) -> bool:
        """Whether the statistics stay as they are."""
        return self._normaliser.frozen

    @frozen.setter
    def frozen(self, frozen: bool) -> None:
        self._normaliser.frozen = flag("frozen", frozen)

    @property
    def count(self) -> int:
        """Number of returns in the statistics."""
        return self._normaliser.statistics[0].count

    @property
    def mean(self) -> float:
        """Mean of the returns, 0 before the first."""
        return self._normaliser.statistics[0].mean

    @property
    def std(self) -> float:
        """Standard deviation of the returns, 1 while they do not differ."""
        return self._normaliser.statistics[0].std

    def state_dict(self) -> dict[str, list[Any]]:
        """Return the statistics as JSON values."""
        return self._normaliser.state_dict()

    def load_state_dict(self, state: Mapping[str, Sequence[Any]]) -> None:
        """Continue with the statistics of `state_dict`.

        Raises:
            InvalidArgument: they have another form.
        """
        self._normaliser.load_state_dict(state)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Info]:
        """Begin an episode."""
        result = self.env.reset(seed=seed, options=options)
        self._return = 0.0
        return result

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:  # noqa: ANN401 - of the environment
        """Take a step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        changed = float(reward)
        self._return += changed
        if terminated or truncated:
            changed += self._normaliser.change(0, self._return)
        return observation, changed, terminated, truncated, info


class VectorNormaliseReward(RecordConstructorArgs, VectorWrapper):
    """`NormaliseReward` for vector environments; returns of the same step count in the order of their rows."""

    def __init__(
        self, env: VectorEnv[Any, Any, Any], frozen: bool = False, epsilon: float = 1e-8, shared: bool = False
    ) -> None:
        """Wrap a vector environment.

        Args:
            env: the vector environment.
            frozen: whether returns are normalised without being taken into account.
            epsilon: smallest standard deviation that is divided by.
            shared: whether all rows have one statistic; else, as single environments, one each.

        Raises:
            InvalidArgument: an argument outside its range.
        """
        RecordConstructorArgs.__init__(self, frozen=frozen, epsilon=epsilon, shared=shared)
        VectorWrapper.__init__(self, env)
        self.shared = flag("shared", shared)
        self._normaliser = _Normaliser(1 if shared else env.num_envs, frozen, epsilon)
        self._episodes = VectorEpisodes(env)

    @property
    def frozen(self) -> bool:
        """Whether the statistics stay as they are."""
        return self._normaliser.frozen

    @frozen.setter
    def frozen(self, frozen: bool) -> None:
        self._normaliser.frozen = flag("frozen", frozen)

    @property
    def count(self) -> npt.NDArray[np.int64]:
        """Number of returns in every row's statistics, int64 [N], or [1] if they are shared."""
        return np.array([one.count for one in self._normaliser.statistics], np.int64)

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """Means of the returns, float64 [N] or [1]; 0 before the first."""
        return np.array([one.mean for one in self._normaliser.statistics])

    @property
    def std(self) -> npt.NDArray[np.float64]:
        """Standard deviations of the returns, float64 [N] or [1]; 1 while they do not differ."""
        return np.array([one.std for one in self._normaliser.statistics])

    def state_dict(self) -> dict[str, list[Any]]:
        """Return the statistics as JSON values."""
        return self._normaliser.state_dict()

    def load_state_dict(self, state: Mapping[str, Sequence[Any]]) -> None:
        """Continue with the statistics of `state_dict`.

        Raises:
            InvalidArgument: they have another form, or belong to another number of rows.
        """
        self._normaliser.load_state_dict(state)

    def reset(self, *, seed: Seeds = None, options: dict[str, Any] | None = None) -> tuple[Any, Info]:
        """Begin new episodes."""
        rows = reset_rows(options, self.num_envs)
        result = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        self._episodes.begin(rows)
        return result

    def step(self, actions: Any) -> tuple[Any, npt.NDArray[np.float64], Any, Any, Info]:  # noqa: ANN401
        """Take a step in every row."""
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        found = self._episodes.step(rewards, terminated, truncated)
        changed = np.array(rewards, np.float64)
        for row, value in zip(found.rows.tolist(), found.returns.tolist(), strict=True):
            changed[row] += self._normaliser.change(0 if self.shared else row, value)
        return observations, changed, terminated, truncated, info
