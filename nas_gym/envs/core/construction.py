"""Building an architecture from nothing, one decision a step: the mechanics of most published systems.

Dimension letters: N sub-environments, L = `space.max_length`, C = `space.max_choices`, K features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index, itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

from nas_gym.envs.core.base import Info, NASEnv, NASVectorEnv, Problem
from nas_gym.envs.core.mechanics import EpisodeState, info_columns
from nas_gym.errors import BudgetExhausted, EpisodeOver, InvalidArgument
from nas_gym.evaluators.core import STATUS_LABELS, Evaluation, Evaluations, Evaluator, Status
from nas_gym.objectives import Objective
from nas_gym.search_spaces.core import Batch, Encoding, Lengths, Prefixes, SearchSpace


class ConstructionEnv(NASEnv):
    """An episode answers the decisions of a search space until the architecture is complete, then evaluates it.

    The reward is 0 before the last step. An action that is masked ends the episode with the objective's failure
    reward and the status ``invalid_action``; one outside the action space raises.
    """

    def __init__(
        self,
        space: SearchSpace,
        evaluator: Evaluator,
        objective: Objective,
        *,
        observation: str = "prefix",
        fidelity: int | None = None,
        repeat_query: str = "cache+charge",
        render_mode: str | None = None,
    ) -> None:
        """Create the environment; see `Problem` for the arguments and the errors."""
        super().__init__(Problem(space, evaluator, objective, observation, fidelity, repeat_query, render_mode))
        self._tracker = self.problem.observation.track()
        self._prefix: Encoding = ()
        self._junction = space.junction(())
        self._over = True
        self._invalid = False
        self._fidelity = self.problem.fidelity

    def step(self, action: Any) -> tuple[npt.NDArray[Any], float, bool, bool, Info]:  # noqa: ANN401 - any integer type
        """Take one decision.

        Raises:
            InvalidAction: `action` is no integer inside the action space.
            EpisodeOver: the episode has ended or was not begun.
            BudgetExhausted: the counter has a budget and it is used up.
        """
        if self._over:
            raise EpisodeOver("the episode is over or was not begun; call reset() first.")
        try:
            choice = index(action)
            legal = choice >= 0 and self._junction.legal[choice]
        except (TypeError, IndexError):
            choice, legal = -1, False
        if not legal:
            self.problem.checked_action(action)
            return self._end_invalid()
        self.counter.environment_steps += 1
        prefix = self._prefix = self._prefix + (choice,)  # noqa: RUF005 - twice as fast as unpacking
        junction = self._junction = self._junction.following or self.space.junction(prefix)
        if junction.complete:
            self._over = True
            reward, info = self._finish(prefix, self._fidelity)
            return self._tracker.push(choice), reward, True, False, info
        return self._tracker.push(choice), 0.0, False, False, {"action_mask": junction.mask_int8.copy()}

    def _end_invalid(self) -> tuple[npt.NDArray[Any], float, bool, bool, Info]:
        self.counter.environment_steps += 1
        self._over = self._invalid = True
        reward, info = self._finish_invalid(self._prefix, self._fidelity)
        return self._tracker.resume(self._prefix), reward, True, False, info

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[npt.NDArray[Any], Info]:
        """Begin an episode with an empty architecture.

        Args:
            seed: starts the evaluator's repeat counters anew; the dynamics draw nothing.
            options: ``{"fidelity": int}`` sets the fidelity of this episode's query.

        Raises:
            InvalidArgument: an unknown option.
            FidelityError: the evaluator cannot answer the fidelity.
        """
        fidelity = self.problem.episode_fidelity(options)
        if seed is not None:
            super().reset(seed=seed)
            self.evaluator.reset_repeats()
        self._fidelity = fidelity
        observation = self._resume((), over=False)
        return observation, {"action_mask": self._junction.mask_int8.copy()}

    def _resume(self, prefix: Encoding, over: bool) -> npt.NDArray[Any]:
        self._prefix = prefix
        self._junction = self.space.junction(prefix)
        self._over = over
        self._invalid = over and not self._junction.complete
        return self._tracker.resume(prefix)

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Return which actions are legal now, shape [C]; all of them once the episode is over."""
        return np.ones(self.space.max_choices, np.bool_) if self._over else self._junction.mask.copy()

    def get_state(self) -> EpisodeState:
        """Return the episode as an immutable value."""
        return EpisodeState(self._prefix, self._over, self._fidelity)

    def set_state(self, state: EpisodeState) -> None:
        """Continue from a value of `get_state`."""
        self._resume(state.prefix, state.over)
        self._fidelity = state.fidelity

    def _draw(self) -> str | npt.NDArray[np.uint8] | None:
        return self.problem.render(self._prefix, invalid=self._invalid)


@dataclass(frozen=True, eq=False)
class VectorState:
    """All episodes of a vector environment as one value; the arrays are read-only.

    Attributes:
        prefixes: int64 [N, L].
        lengths: int64 [N].
        over: bool [N].
        fidelities: int64 [N], -1 = the evaluator's default.
    """

    prefixes: Prefixes
    lengths: Lengths
    over: npt.NDArray[np.bool_]
    fidelities: npt.NDArray[np.int64]


class ConstructionVectorEnv(NASVectorEnv):
    """`ConstructionEnv` for many episodes at once, in arrays, with one batched evaluation per step.

    It equals ``SyncVectorEnv`` of single environments in every value, infos included. In the mode "Disabled",
    sub-environments whose episode is over ignore their actions (reward 0, still terminated) until
    ``reset(options={"reset_mask": mask})`` begins new episodes.
    """

    def __init__(
        self,
        space: SearchSpace,
        evaluator: Evaluator,
        objective: Objective,
        *,
        num_envs: int = 1,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        observation: str = "prefix",
        fidelity: int | None = None,
        repeat_query: str = "cache+charge",
        render_mode: str | None = None,
    ) -> None:
        """Create the environments; see `Problem` and `NASVectorEnv` for the arguments and the errors."""
        problem = Problem(space, evaluator, objective, observation, fidelity, repeat_query, render_mode)
        super().__init__(problem, num_envs, autoreset_mode)
        self._rows = np.arange(num_envs)
        self._first_decision = self._rows * space.max_length
        self._first_choice = self._rows * space.max_choices
        self._prefixes = np.zeros((num_envs, space.max_length), np.int64)
        self._lengths = np.zeros(num_envs, np.int64)
        self._over = np.ones(num_envs, np.bool_)
        self._invalid = np.zeros(num_envs, np.bool_)
        self._fidelities = np.full(num_envs, -1, np.int64)
        self._masks = space.masks(self._prefixes, self._lengths)
        self._tracker = self.problem.observation.track_batch(num_envs)
        self._common_length: int | None = None
        self._begun = False
        self._waiting: dict[int, int] = {}
        self._finished: list[tuple[int, Evaluation]] = []

    # --- reset -------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[Any], Info]:
        """Begin new episodes.

        Args:
            seed: if given, starts the evaluator's repeat counters anew; the dynamics draw nothing.
            options: ``{"fidelity": int}`` sets the fidelity of the new episodes; ``{"reset_mask": bool[N]}``
                begins only these sub-environments, the others go on, or rest until
                they are begun if none ever was.

        Raises:
            InvalidArgument: an unknown option, a malformed mask, or a list of seeds of another length.
            FidelityError: the evaluator cannot answer the fidelity.
        """
        options = dict(options or {})
        mask = self._checked_reset_mask(options.pop("reset_mask", None))
        fidelity = self.problem.episode_fidelity(options)
        if seed is not None:
            self._seed(seed)
        self._begin(mask, fidelity)
        self._begun = True
        rows = np.flatnonzero(mask)
        self._refresh_masks()
        return self._observe(), info_columns({"action_mask": self._masks[rows].astype(np.int8)}, rows, self.num_envs)

    def _seed(self, seed: int | Sequence[int | None]) -> None:
        if isinstance(seed, int):
            super().reset(seed=seed)
        elif len(seed) != self.num_envs:
            raise InvalidArgument(f"a list of seeds needs one per sub-environment: {self.num_envs}, got {len(seed)}.")
        elif all(one is None for one in seed):
            return
        self.evaluator.reset_repeats()

    def _checked_reset_mask(self, mask: Any) -> npt.NDArray[np.bool_]:  # noqa: ANN401 - whatever the caller passes
        if mask is None:
            mask = np.ones(self.num_envs, np.bool_)
        self._check_selection("reset_mask", mask)
        if waiting := [row for row in self.waiting if mask[row]]:
            raise InvalidArgument(
                f"the sub-environments {waiting} wait for an evaluation; collect() it before a reset."
            )
        if not mask.any():
            raise InvalidArgument("reset_mask selects no sub-environment; at least one must be True.")
        return mask

    def _check_selection(self, name: str, mask: object) -> None:
        if not isinstance(mask, np.ndarray) or mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise InvalidArgument(f"{name} must be a boolean array of shape ({self.num_envs},), got {mask!r}.")

    def _begin(self, rows: npt.NDArray[np.bool_], fidelity: int | None) -> None:
        chosen = slice(None) if rows.all() else rows
        self._prefixes[chosen] = 0
        self._lengths[chosen] = 0
        self._over[chosen] = False
        self._invalid[chosen] = False
        self._fidelities[chosen] = -1 if fidelity is None else fidelity
        self._tracker.begin(chosen)
        self._common_length = 0 if isinstance(chosen, slice) else None

    # --- step --------------------------------------------------------------------------------------

    def step(
        self, actions: npt.ArrayLike
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], Info]:
        """Take one decision in every sub-environment.

        Raises:
            InvalidAction: `actions` are not N integers inside the action space.
            EpisodeOver: nothing was reset yet, or in the mode "SameStep" an error kept episodes that ended from
                being reset.
            BudgetExhausted: more episodes ended than the counter's budget admits; the first ones, in row order,
                were evaluated and counted.
        """
        choices = self._checked_actions(actions)
        if not self._begun:
            raise EpisodeOver("the episodes were not begun; call reset() first.")
        if self.waiting:
            raise EpisodeOver(f"the sub-environments {self.waiting} wait for an evaluation; call collect() first.")
        was_over = self._over.copy()
        resting = int(np.count_nonzero(was_over))
        if resting and self.autoreset_mode is AutoresetMode.SAME_STEP:
            raise EpisodeOver("an episode ended without being reset; call reset() first.")
        ended, invalid = self._advance(choices, was_over if resting else None)
        self.counter.environment_steps += self.num_envs - resting
        if resting and self.autoreset_mode is AutoresetMode.NEXT_STEP:
            self._begin(was_over, self.problem.fidelity)
        rewards = np.zeros(self.num_envs)
        final: Info = {}
        rows = self._rows
        if ended.any():
            rows = self._rows if ended.all() else np.flatnonzero(ended)
            try:
                rewards, final = self._end(rows, invalid)
            except Exception:
                self._refresh_masks()  # The steps were taken; a caller who goes on needs the masks that follow.
                raise
        return self._outcome(rewards, ended, rows, final)

    def _advance(
        self, choices: npt.NDArray[np.int64], was_over: npt.NDArray[np.bool_] | None
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Append the legal choices; return which episodes ended and which of them by an illegal action.

        Args:
            choices: actions, shape [N].
            was_over: whose action is ignored, bool [N]; None = nobody's.
        """
        # Flat indices, here and below, are several times as fast as pairs of index arrays.
        all_legal = bool(self._masks.all())
        legal = None if all_legal else self._masks.reshape(-1).take(self._first_choice + choices)
        if was_over is None and (legal is None or legal.all()):
            if self._common_length is None:
                self._append(self._first_decision + self._lengths, choices)
            else:
                # Episodes of equal length, the rule in fixed-slot spaces, write one column.
                self._prefixes[:, self._common_length] = choices
                self._tracker.append_column(self._common_length, choices)
                self._common_length += 1
            self._lengths += 1
            return self.space.complete(self._prefixes, self._lengths), np.zeros(self.num_envs, np.bool_)
        if legal is None:
            legal = np.ones(self.num_envs, np.bool_)
        active = np.ones(self.num_envs, np.bool_) if was_over is None else ~was_over
        invalid = active & ~legal
        self._invalid |= invalid
        moving = np.flatnonzero(active & legal)
        self._common_length = None
        self._append(self._first_decision[moving] + self._lengths[moving], choices[moving])
        self._lengths[moving] += 1
        ended = invalid.copy()
        ended[moving] = self.space.complete(self._prefixes[moving], self._lengths[moving])
        return ended, invalid

    def _append(self, positions: npt.NDArray[np.int64], choices: npt.NDArray[np.int64]) -> None:
        self._prefixes.reshape(-1)[positions] = choices
        self._tracker.append(positions, choices)

    def _end(self, rows: npt.NDArray[np.int64], invalid: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float64], Info]:
        """Evaluate the episodes that ended; return all rewards and the columns of the final infos."""
        everywhere = len(rows) == self.num_envs
        self._over[slice(None) if everywhere else rows] = True
        if everywhere:
            ended = Batch(self.space, self._prefixes.copy(), self._lengths.copy())
        else:
            ended = Batch(self.space, self._prefixes[rows], self._lengths[rows])
        fidelities = self._fidelities if everywhere else self._fidelities[rows]
        rewards, final = self._finish(
            ended,
            invalid if everywhere else invalid[rows],
            None if (fidelities < 0).all() else self._without_defaults(fidelities),
        )
        if everywhere:
            # An objective may return a metric itself, which `final` holds too.
            return rewards.copy(), final
        spread = np.zeros(self.num_envs)
        spread[rows] = rewards
        return spread, final

    def _without_defaults(self, fidelities: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        highest = self.evaluator.fidelities[1] if self.evaluator.fidelities else -1
        return np.where(fidelities < 0, highest, fidelities)

    def _outcome(
        self,
        rewards: npt.NDArray[np.float64],
        ended: npt.NDArray[np.bool_],
        rows: npt.NDArray[np.int64],
        final: Info,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], Info]:
        """Lay out what a step returns, resetting at once in the mode "SameStep"."""
        info: Info = {}
        if final:
            if self.autoreset_mode is AutoresetMode.SAME_STEP:
                info = self._final_info(rows, final)
                self._begin(ended, self.problem.fidelity)
            else:
                info = info_columns(final, rows, self.num_envs)
        self._refresh_masks()
        info["action_mask"] = self._masks.view(np.int8).copy()
        info["_action_mask"] = np.ones(self.num_envs, np.bool_)
        terminated = self._over.copy() if self.autoreset_mode is AutoresetMode.DISABLED else ended
        return self._observe(), rewards, terminated, np.zeros(self.num_envs, np.bool_), info

    def _final_info(self, rows: npt.NDArray[np.int64], final: Info) -> Info:
        """Return the last observations and infos of the ended episodes, before they are reset."""
        final_obs = np.full(self.num_envs, None, dtype=object)
        for row, observation in zip(
            rows, self.problem.observation.batch(self._prefixes[rows], self._lengths[rows]), strict=True
        ):
            final_obs[row] = observation
        free = np.ones((len(rows), self.space.max_choices), np.int8)
        present = np.zeros(self.num_envs, np.bool_)
        present[rows] = True
        return {
            "final_obs": final_obs,
            "_final_obs": present,
            "final_info": info_columns({"action_mask": free, **final}, rows, self.num_envs),
            "_final_info": present.copy(),
        }

    def _refresh_masks(self) -> None:
        self._masks = self.space.masks(self._prefixes, self._lengths)
        if self._over.any() and not self._masks.all():
            self._masks[self._over] = True

    def _observe(self) -> npt.NDArray[Any]:
        return self._tracker.observe(self._prefixes, self._lengths)

    # --- without a barrier -------------------------------------------------------------------------

    @property
    def waiting(self) -> list[int]:
        """Sub-environments whose architecture is complete and whose outcome was not collected yet."""
        return sorted({*self._waiting.values(), *(row for row, _ in self._finished)})

    def advance(
        self, actions: npt.ArrayLike, rows: npt.NDArray[np.bool_] | None = None
    ) -> tuple[npt.NDArray[Any], Info]:
        """Take one decision in sub-environments that are neither over nor waiting; wait for no evaluation.

        Architectures that are complete are submitted to the evaluator; `collect` returns their outcomes. This is
        `step` without its barrier: episodes that go on need not wait for the slowest evaluation.

        Args:
            actions: N actions.
            rows: which sub-environments go on, bool [N]; None = all. The others ignore their actions.

        Returns:
            Observations and info with the masks.

        Raises:
            InvalidArgument: the autoreset mode is not "Disabled", or malformed `rows`.
            InvalidAction: `actions` are not N integers inside the action space.
            EpisodeOver: nothing was reset yet.
            BudgetExhausted: no query is left for an architecture that is complete.
        """
        choices = self._checked_actions(actions)
        if self.autoreset_mode is not AutoresetMode.DISABLED:
            raise InvalidArgument("advance() needs a vector environment made with autoreset_mode='Disabled'.")
        if not self._begun:
            raise EpisodeOver("the episodes were not begun; call reset() first.")
        if rows is not None:
            self._check_selection("rows", rows)
        resting = self._over.copy() if rows is None else self._over | ~rows
        ended, invalid = self._advance(choices, resting)
        self.counter.environment_steps += self.num_envs - int(np.count_nonzero(resting))
        self._over |= ended
        try:
            for row in np.flatnonzero(ended).tolist():
                self._submit(row, bool(invalid[row]))
        finally:
            self._refresh_masks()
        info = {"action_mask": self._masks.view(np.int8).copy(), "_action_mask": np.ones(self.num_envs, np.bool_)}
        return self._observe(), info

    def _submit(self, row: int, invalid: bool) -> None:
        """Ask for the evaluation of a complete architecture, or note that an illegal action ended the episode."""
        remaining = self.counter.remaining
        if remaining is not None and remaining <= len(self._waiting) + len(self._finished):
            raise BudgetExhausted(f"the budget of {self.counter.budget} queries is used up.")
        fidelity = int(self._fidelities[row]) if self._fidelities[row] >= 0 else None
        if invalid:
            metrics = dict.fromkeys(self.evaluator.search_metrics, float("nan"))
            cost = self.evaluator.mean_cost(fidelity)
            self._finished.append((row, Evaluation(Status.INVALID_ACTION, metrics, cost)))
        else:
            self._waiting[self.evaluator.submit(self._encoding(row), fidelity)] = row

    def _encoding(self, row: int) -> Encoding:
        return tuple(self._prefixes[row, : self._lengths[row]].tolist())

    def collect(
        self, timeout: float | None = None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], Info]:
        """Return the outcomes of submitted architectures, in the order of their completion.

        Args:
            timeout: seconds to wait for the first one; None = as long as it takes.

        Returns:
            What `step` returns. The final infos, rewards and ``info["_encoding"]`` belong to the sub-environments
            whose outcome came now; ``info["completion_order"]`` lists them, first completed first. Those that are
            still waiting are not terminated.
        """
        if not self._finished:
            answers = self.evaluator.collect(timeout)
            self._finished = [(self._waiting.pop(ticket), answer) for ticket, answer in answers]
        finished, self._finished = self._finished, []
        rewards = np.zeros(self.num_envs)
        info: Info = {}
        if finished:
            for row, evaluation in finished:
                invalid = evaluation.status is Status.INVALID_ACTION
                fidelity = int(self._fidelities[row]) if self._fidelities[row] >= 0 else None
                self.counter.record_one(self._encoding(row), evaluation.cost_seconds, invalid, fidelity)
                rewards[row] = self.objective.one(evaluation)
            info = self._collected_info(finished)
        info["action_mask"] = self._masks.view(np.int8).copy()
        info["_action_mask"] = np.ones(self.num_envs, np.bool_)
        terminated = self._over.copy()
        terminated[self.waiting] = False
        return self._observe(), rewards, terminated, np.zeros(self.num_envs, np.bool_), info

    def _collected_info(self, finished: Sequence[tuple[int, Evaluation]]) -> Info:
        """Lay out the final infos of some sub-environments."""
        by_row = sorted(finished, key=itemgetter(0))  # Columns over all rows are laid out in the order of the rows.
        rows = [row for row, _ in by_row]
        answers = Evaluations.of([evaluation for _, evaluation in by_row], self.evaluator.search_metrics)
        encodings = np.empty(len(rows), dtype=object)
        for position, row in enumerate(rows):
            encodings[position] = self._encoding(row)
        columns: Info = {
            "encoding": encodings,
            "status": STATUS_LABELS.take(answers.status),
            "metrics": dict(answers.metrics),
            "cost_seconds": answers.cost_seconds,
        }
        if answers.messages:
            columns["message"] = dict(answers.messages)
        order = [row for row, _ in finished]
        return info_columns(columns, np.array(rows), self.num_envs) | {"completion_order": order}

    # --- views -------------------------------------------------------------------------------------

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Return which actions are legal now, shape [N, C]; all of them where the episode is over."""
        return self._masks.copy()

    def get_state(self) -> VectorState:
        """Return all episodes as one value."""
        arrays = (self._prefixes.copy(), self._lengths.copy(), self._over.copy(), self._fidelities.copy())
        for array in arrays:
            array.flags.writeable = False
        return VectorState(*arrays)

    def set_state(self, state: VectorState) -> None:
        """Continue from a value of `get_state`.

        Raises:
            InvalidArgument: it has another number of sub-environments.
            EpisodeOver: sub-environments wait for an evaluation.
        """
        if self.waiting:
            raise EpisodeOver(f"the sub-environments {self.waiting} wait for an evaluation; call collect() first.")
        if len(state.lengths) != self.num_envs:
            raise InvalidArgument(f"the state has {len(state.lengths)} sub-environments, this one {self.num_envs}.")
        self._prefixes = state.prefixes.copy()
        self._lengths = state.lengths.copy()
        self._over = state.over.copy()
        self._invalid = self._over & ~self.space.complete(self._prefixes, self._lengths)
        self._fidelities = state.fidelities.copy()
        self._refresh_masks()
        self._tracker.resume(self._prefixes, self._lengths)
        self._common_length = None
        self._begun = True

    def render(self) -> Any:  # noqa: ANN401 - depends on the render mode
        """Return a tuple with the text or picture of every sub-environment, of Nones without a render mode."""
        return tuple(
            self.problem.render(prefix, invalid=invalid)
            for prefix, invalid in zip(
                self.space.rows(self._prefixes, self._lengths), self._invalid.tolist(), strict=True
            )
        )
