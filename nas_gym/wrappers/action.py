"""What happens with an action that is masked, where the environments themselves would end the episode.

Actions outside the action space are passed on, for the environment to refuse. Dimension letters: N sub-environments,
C actions.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper

from nas_gym.envs.core.construction import ConstructionVectorEnv, VectorState
from nas_gym.errors import EpisodeOver, InvalidAction, InvalidArgument
from nas_gym.wrappers.core import (
    Info,
    Masks,
    Rows,
    Seeds,
    VectorEpisodes,
    VectorMasks,
    add_columns,
    add_outcomes,
    finite_number,
    objects,
    reset_rows,
    seeded_rows,
)

_STREAM = 0x5E5A3713
"""Keeps the draws apart from those that an environment makes with the same seed."""


class _OnMasked(RecordConstructorArgs, gymnasium.Wrapper):
    """Knows which actions are masked."""

    def __init__(self, env: gymnasium.Env[Any, Any], **arguments: Any) -> None:  # noqa: ANN401 - of the subclass
        RecordConstructorArgs.__init__(self, **arguments)
        gymnasium.Wrapper.__init__(self, env)
        self._masks = Masks(env)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Info]:
        """Begin an episode.

        Raises:
            InvalidArgument: the environment offers no masks.
        """
        observation, info = self.env.reset(seed=seed, options=options)
        self._masks.see(info)
        return observation, info

    def _pass_on(self, action: Any) -> tuple[Any, float, bool, bool, Info]:  # noqa: ANN401 - whatever the caller passes
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._masks.see(info)
        return observation, float(reward), terminated, truncated, info


class _VectorOnMasked(RecordConstructorArgs, VectorWrapper):
    """Knows which actions are masked in every row."""

    def __init__(self, env: VectorEnv[Any, Any, Any], **arguments: Any) -> None:  # noqa: ANN401 - of the subclass
        RecordConstructorArgs.__init__(self, **arguments)
        VectorWrapper.__init__(self, env)
        self._masks = VectorMasks(env)

    def reset(self, *, seed: Seeds = None, options: dict[str, Any] | None = None) -> tuple[Any, Info]:
        """Begin new episodes.

        Raises:
            InvalidArgument: the environment offers no masks.
        """
        observations, info = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        self._masks.see(info)
        return observations, info

    def _pass_on(self, actions: Any) -> tuple[Any, Any, Any, Any, Info]:  # noqa: ANN401 - whatever the caller passes
        result = self.env.step(actions)
        self._masks.see(result[-1])
        return result


# --- raise ---------------------------------------------------------------------------------------------


class RaiseOnMasked(_OnMasked):
    """Raises on a masked action, so that an agent that ignores masks is found out at its first mistake."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        """Wrap an environment.

        Raises:
            InvalidArgument: its actions are not the integers from 0.
        """
        super().__init__(env)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:  # noqa: ANN401 - whatever the caller passes
        """Take a step.

        Raises:
            InvalidAction: the action is masked; the episode goes on.
        """
        if self._masks.refuses(action):
            raise InvalidAction(f"action {int(action)} is masked; legal are {_legal(self._masks.current())}.")
        return self._pass_on(action)


class VectorRaiseOnMasked(_VectorOnMasked):
    """`RaiseOnMasked` for vector environments."""

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        """Wrap a vector environment.

        Raises:
            InvalidArgument: its actions are not the integers from 0.
        """
        super().__init__(env)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Info]:  # noqa: ANN401 - whatever the caller passes
        """Take a step in every row.

        Raises:
            InvalidAction: an action is masked; no row has taken a step.
        """
        rows = self._masks.refused(actions)
        if len(rows):
            row = int(rows[0])
            legal = _legal(self._masks.current()[row])
            raise InvalidAction(
                f"action {int(np.asarray(actions)[row])} of sub-environment {row} is masked; legal there are {legal}."
            )
        return self._pass_on(actions)


def _legal(mask: npt.NDArray[np.bool_]) -> list[int]:
    return np.flatnonzero(mask).tolist()


# --- resample ------------------------------------------------------------------------------------------


def _generator(seed: int) -> np.random.Generator:
    return np.random.default_rng((_STREAM, seed))


class ResampleMasked(_OnMasked):
    """Takes a legal action, drawn uniformly, in the place of a masked one.

    ``info["resampled_action"]`` is the action that was taken; only the steps that replaced one have it. A reset with a
    seed starts the draws anew.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        """Wrap an environment.

        Raises:
            InvalidArgument: its actions are not the integers from 0.
        """
        super().__init__(env)
        self._draws = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Info]:
        """Begin an episode; a seed starts the draws anew."""
        result = super().reset(seed=seed, options=options)
        if seed is not None:
            self._draws = _generator(seed)
        return result

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:  # noqa: ANN401 - whatever the caller passes
        """Take a step, with another action where this one is masked."""
        if not self._masks.refuses(action):
            return self._pass_on(action)
        chosen = int(self._draws.choice(np.flatnonzero(self._masks.current())))
        observation, reward, terminated, truncated, info = self._pass_on(chosen)
        return observation, reward, terminated, truncated, {**info, "resampled_action": chosen}


class VectorResampleMasked(_VectorOnMasked):
    """`ResampleMasked` for vector environments; every row has draws of its own."""

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        """Wrap a vector environment.

        Raises:
            InvalidArgument: its actions are not the integers from 0, or it does not tell its auto-reset mode.
        """
        super().__init__(env)
        self._episodes = VectorEpisodes(env)
        self._draws = np.random.default_rng().spawn(env.num_envs)

    def reset(self, *, seed: Seeds = None, options: dict[str, Any] | None = None) -> tuple[Any, Info]:
        """Begin new episodes; seeds start the draws of their rows anew, as those of single environments."""
        rows = reset_rows(options, self.num_envs)
        result = super().reset(seed=seed, options=options)
        for row, one in enumerate(seeded_rows(seed, self.num_envs)):
            if rows[row] and one is not None:
                self._draws[row] = _generator(one)
        return result

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Info]:  # noqa: ANN401 - whatever the caller passes
        """Take a step in every row, with another action where one is masked."""
        rows = self._masks.refused(actions)
        if not len(rows):
            return self._pass_on(actions)
        taken = np.array(actions, np.int64)
        masks = self._masks.current()
        for row in rows.tolist():
            taken[row] = self._draws[row].choice(np.flatnonzero(masks[row]))
        observations, rewards, terminated, truncated, info = self._pass_on(taken)
        ended = np.flatnonzero(terminated | truncated)
        add_outcomes(info, {"resampled_action": taken[rows]}, rows, ended, self._episodes)
        return observations, rewards, terminated, truncated, info


# --- penalise ------------------------------------------------------------------------------------------


def _checked_penalty(penalty: object) -> float:
    value = finite_number("penalty", penalty)
    if value > 0:
        raise InvalidArgument(f"penalty is the reward of a masked action and must be at most 0, got {penalty!r}.")
    return value


def _checked_limit(limit: object) -> int | None:
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise InvalidArgument(f"limit must be a positive integer, or None for no limit, got {limit!r}.")
    return limit


class PenaliseMasked(_OnMasked):
    """Ignores a masked action: the state stays, the reward is a penalty, and the agent may try again.

    The environment does not see such a step: it counts neither as a step nor as a query. ``info["masked_action"]`` is
    True in these steps and absent in others. An episode with `limit` of them in a row is truncated; nothing is
    evaluated, its last info has neither an encoding nor metrics, and its mask is all ones as that of every finished
    episode.

    The observation that is repeated is the last one returned, so nothing but this wrapper may move the environment.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], penalty: float = -0.1, limit: int | None = 100) -> None:
        """Wrap an environment.

        Args:
            env: the environment.
            penalty: reward of a masked action, at most 0.
            limit: number of consecutive masked actions that truncates the episode, None = never.

        Raises:
            InvalidArgument: an argument outside its range, or actions that are not the integers from 0.
        """
        super().__init__(env, penalty=penalty, limit=limit)
        self.penalty = _checked_penalty(penalty)
        self.limit = _checked_limit(limit)
        self._consecutive = 0
        self._truncated = False
        self._observation: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Info]:
        """Begin an episode."""
        observation, info = super().reset(seed=seed, options=options)
        self._consecutive, self._truncated = 0, False
        self._observation = copy.deepcopy(observation)
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:  # noqa: ANN401 - whatever the caller passes
        """Take a step, or none where the action is masked.

        Raises:
            EpisodeOver: too many masked actions have ended the episode.
        """
        if self._truncated:
            raise EpisodeOver(f"{self.limit} masked actions in a row have ended the episode; call reset() first.")
        if self._masks.refuses(action):
            return self._refuse()
        result = self._pass_on(action)
        self._consecutive = 0
        self._observation = copy.deepcopy(result[0])
        return result

    def _refuse(self) -> tuple[Any, float, bool, bool, Info]:
        self._consecutive += 1
        self._truncated = self.limit is not None and self._consecutive >= self.limit
        info: Info = {"action_mask": self.action_masks().astype(np.int8), "masked_action": True}
        return copy.deepcopy(self._observation), self.penalty, False, self._truncated, info

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Return which actions are legal now, shape [C]; all of them once the episode is over."""
        return np.ones(self._masks.choices, np.bool_) if self._truncated else self._masks.current()


class VectorPenaliseMasked(_VectorOnMasked):
    """`PenaliseMasked` for the vector environments of this project, `ConstructionVectorEnv`, in every auto-reset mode.

    A vector environment moves all rows in every step. Those whose action is masked take theirs from the empty
    architecture, where it evaluates nothing, and are put back afterwards: their state, and the counter, are as if they
    had not moved. Other wrappers would see these moves, so this one goes directly around the environment.
    """

    def __init__(self, env: ConstructionVectorEnv, penalty: float = -0.1, limit: int | None = 100) -> None:
        """Wrap a vector environment.

        Args:
            env: the vector environment.
            penalty: reward of a masked action, at most 0.
            limit: number of consecutive masked actions that truncates the episode, None = never.

        Raises:
            InvalidArgument: an argument outside its range, another kind of environment, or a search space whose
                architectures are all complete after one decision, where no row can move without being evaluated.
        """
        if not isinstance(env, ConstructionVectorEnv):
            raise InvalidArgument(
                f"VectorPenaliseMasked goes directly around a ConstructionVectorEnv, got {env}; put other wrappers "
                "around it, or vectorise single environments that are wrapped in PenaliseMasked."
            )
        super().__init__(env, penalty=penalty, limit=limit)
        self._envs = env
        self.penalty = _checked_penalty(penalty)
        self.limit = _checked_limit(limit)
        legal = [choice for choice, allowed in enumerate(env.space.junction(()).legal) if allowed]
        self._harmless = next((choice for choice in legal if not env.space.is_complete((choice,))), -1)
        if self._harmless < 0:
            raise InvalidArgument(
                f"every architecture of {env.space.name!r} is complete after one decision, so no row can wait for "
                "another action; vectorise single environments that are wrapped in PenaliseMasked."
            )
        self._episodes = VectorEpisodes(env)
        self._consecutive = np.zeros(env.num_envs, np.int64)
        self._truncated = np.zeros(env.num_envs, np.bool_)
        self._begun = False

    def reset(self, *, seed: Seeds = None, options: dict[str, Any] | None = None) -> tuple[Any, Info]:
        """Begin new episodes."""
        rows = reset_rows(options, self.num_envs)
        result = super().reset(seed=seed, options=options)
        self._begun = True
        self._consecutive[rows] = 0
        self._truncated[rows] = False
        return result

    def step(
        self,
        actions: Any,  # noqa: ANN401 - whatever the caller passes
    ) -> tuple[Any, npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], Info]:
        """Take a step in every row whose action is not masked."""
        rows = self._masks.refused(actions) if self._begun else np.zeros(0, np.int64)
        if len(rows):
            return self._step_others(np.array(actions, np.int64), rows)
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        self._consecutive[:] = 0
        self._truncated &= terminated  # In the mode "Disabled" those that rest stay as they ended.
        return observations, rewards, terminated & ~self._truncated, truncated | self._truncated, info

    def _step_others(
        self, actions: npt.NDArray[np.int64], rows: Rows
    ) -> tuple[Any, npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], Info]:
        """Take a step in the rows that are not in `rows`."""
        before = self._envs.get_state()
        steps = self._envs.counter.environment_steps
        self._envs.set_state(_emptied(before, rows))
        actions[rows] = self._harmless
        try:
            observations, rewards, terminated, truncated, info = self.env.step(actions)
        finally:
            if self._envs.counter.environment_steps > steps:
                self._envs.counter.environment_steps -= len(rows)
            self._envs.set_state(_put_back(self._envs.get_state(), before, rows))
        counted = self._consecutive[rows] + 1
        self._consecutive[:] = 0
        self._consecutive[rows] = counted
        spent = rows[counted >= self.limit] if self.limit is not None else rows[:0]
        seen = self._envs.problem.observation.batch(before.prefixes[rows], before.lengths[rows])
        observations[rows] = seen
        rewards[rows] = self.penalty
        self._truncated &= terminated
        terminated, truncated = terminated & ~self._truncated, truncated | self._truncated
        if len(spent):
            truncated[spent] = True
            self._end(spent)
            if self._episodes.same_step:
                self._consecutive[spent] = 0
                self._add_last_observations(info, spent, seen[np.isin(rows, spent)])
                after = self._envs.get_state()
                observations[spent] = self._envs.problem.observation.batch(after.prefixes[spent], after.lengths[spent])
        add_outcomes(info, {"masked_action": np.ones(len(rows), np.bool_)}, rows, spent, self._episodes)
        info["action_mask"] = self._envs.action_masks().astype(np.int8)
        return observations, rewards, terminated, truncated, info

    def _end(self, rows: Rows) -> None:
        """End the episodes of some rows without an evaluation; "SameStep" begins the next ones."""
        state = self._envs.get_state()
        if self._episodes.same_step:
            default = self._envs.problem.fidelity
            fidelities = state.fidelities.copy()
            fidelities[rows] = -1 if default is None else default
            self._envs.set_state(replace(_emptied(state, rows), fidelities=fidelities))
            return
        over = state.over.copy()
        over[rows] = True
        self._envs.set_state(replace(state, over=over))
        # In the mode "NextStep" the next step begins them.
        self._truncated[rows] = True

    def _add_last_observations(self, info: Info, rows: Rows, seen: npt.NDArray[Any]) -> None:
        columns = {
            "final_obs": objects(list(seen)),
            "final_info": {"action_mask": np.ones((len(rows), self._masks.choices), np.int8)},
        }
        add_columns(info, columns, rows, self.num_envs)


def _emptied(state: VectorState, rows: Rows) -> VectorState:
    """Return a state with the beginning of an episode in some rows."""
    prefixes, lengths, over = state.prefixes.copy(), state.lengths.copy(), state.over.copy()
    prefixes[rows], lengths[rows], over[rows] = 0, 0, False
    return replace(state, prefixes=prefixes, lengths=lengths, over=over)


def _put_back(state: VectorState, before: VectorState, rows: Rows) -> VectorState:
    """Return a state with an earlier one in some rows."""
    arrays = {}
    for name in ("prefixes", "lengths", "over", "fidelities"):
        arrays[name] = getattr(state, name).copy()
        arrays[name][rows] = getattr(before, name)[rows]
    return VectorState(**arrays)
