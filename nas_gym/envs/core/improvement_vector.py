"""Improving many complete architectures at once: `ImprovementEnv` in arrays.

Dimension letters: N sub-environments, L = `space.max_length` slots, E edits; the actions are 0, a stop, and 1 to E.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode

from nas_gym.envs.core.base import Info, NASVectorEnv
from nas_gym.envs.core.edits import STOP, Progress
from nas_gym.envs.core.improvement import ImprovementProblem
from nas_gym.envs.core.mechanics import info_columns
from nas_gym.errors import BudgetExhausted, EpisodeOver, InvalidArgument
from nas_gym.evaluators.core import Evaluations, Evaluator, Queries
from nas_gym.objectives import Objective
from nas_gym.search_spaces.core import Batch


@dataclass(frozen=True, eq=False)
class ImprovementVectorState:
    """All episodes of a vector environment, as columns; see `ImprovementState` for their meaning.

    Attributes:
        current: int64 [N, L].
        incumbents: int64 [N, L].
        rewards: float64 [N].
        best: float64 [N].
        start: float64 [N].
        edits: int64 [N].
        tasks: int64 [N].
        terminated: bool [N].
        truncated: bool [N].
        fidelities: int64 [N], -1 = the evaluator's default.
        status: labels, object [N].
        metrics: float64 [N, number of search-time metrics].
        edited: int64 [N], -1 before the first edit.
        invalid: bool [N].
    """

    current: npt.NDArray[np.int64]
    incumbents: npt.NDArray[np.int64]
    rewards: npt.NDArray[np.float64]
    best: npt.NDArray[np.float64]
    start: npt.NDArray[np.float64]
    edits: npt.NDArray[np.int64]
    tasks: npt.NDArray[np.int64]
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    fidelities: npt.NDArray[np.int64]
    status: npt.NDArray[np.object_]
    metrics: npt.NDArray[np.float64]
    edited: npt.NDArray[np.int64]
    invalid: npt.NDArray[np.bool_]

    @classmethod
    def unbegun(cls, count: int, length: int, metrics: int) -> ImprovementVectorState:
        """Return `count` episodes that must be begun."""
        return cls(
            np.zeros((count, length), np.int64),
            np.zeros((count, length), np.int64),
            np.zeros(count),
            np.zeros(count),
            np.zeros(count),
            np.zeros(count, np.int64),
            np.zeros(count, np.int64),
            np.ones(count, np.bool_),
            np.zeros(count, np.bool_),
            np.full(count, -1, np.int64),
            np.full(count, "ok", dtype=object),
            np.zeros((count, metrics)),
            np.full(count, -1, np.int64),
            np.zeros(count, np.bool_),
        )

    def copy(self) -> ImprovementVectorState:
        """Return the same values in arrays of their own."""
        return ImprovementVectorState(*(getattr(self, field.name).copy() for field in fields(self)))

    @property
    def prefixes(self) -> npt.NDArray[np.int64]:
        """The architectures that wrappers draw and value: the current ones, int64 [N, L]."""
        return self.current

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Their numbers of decisions, L each, int64 [N]."""
        return np.full(len(self.current), self.current.shape[1], np.int64)

    @property
    def over(self) -> npt.NDArray[np.bool_]:
        """Whose episode has ended, bool [N]."""
        return self.terminated | self.truncated


class ImprovementVectorEnv(NASVectorEnv):
    """`ImprovementEnv` for many episodes at once, in arrays, with one batch of queries a step.

    It equals ``SyncVectorEnv`` of single environments in every value, infos included. In the mode "Disabled",
    sub-environments whose episode is over ignore their actions until they are reset.
    """

    actions_are_decisions: bool = False

    def __init__(
        self,
        tasks: Mapping[str, Evaluator],
        objective: Objective,
        *,
        num_envs: int = 1,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        horizon: int = 20,
        observation: str = "feedback",
        fidelity: int | None = None,
        repeat_query: str = "cache+charge",
        render_mode: str | None = None,
    ) -> None:
        """Create the environments; see `ImprovementProblem` and `NASVectorEnv` for the arguments and the errors."""
        problem = ImprovementProblem(tasks, objective, horizon, observation, fidelity, repeat_query, render_mode)
        super().__init__(problem, num_envs, autoreset_mode)
        self.problem: ImprovementProblem = problem
        self.horizon = horizon
        self._evaluators = list(problem.tasks.values())
        self._names = self.evaluator.search_metrics
        self._all = ImprovementVectorState.unbegun(num_envs, self.space.max_length, len(self._names))
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._begun = False

    # --- reset -------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[Any], Info]:
        """Draw tasks and starts and evaluate them.

        Args:
            seed: of the draws, that of the first sub-environment and the following ones or one each; also starts the
                evaluators' repeat counters anew.
            options: ``{"fidelity": int}`` sets the fidelity of the new episodes; ``{"reset_mask": bool[N]}`` begins
                only these sub-environments.

        Raises:
            InvalidArgument: an unknown option, a malformed mask, or a list of seeds of another length.
            FidelityError: an evaluator cannot answer the fidelity.
            BudgetExhausted: not all starts fit into the budget.
        """
        options = dict(options or {})
        mask = self._checked_reset_mask(options.pop("reset_mask", None))
        fidelity = self.problem.episode_fidelity(options)
        rows = np.flatnonzero(mask)
        self._seed(seed, rows)
        self._begun = True
        columns = self._begin(rows, fidelity)
        return self._observe(), info_columns({**columns, **self._standing_of(rows)}, rows, self.num_envs)

    def _checked_reset_mask(self, mask: Any) -> npt.NDArray[np.bool_]:  # noqa: ANN401 - whatever the caller passes
        if mask is None:
            return np.ones(self.num_envs, np.bool_)
        if not isinstance(mask, np.ndarray) or mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise InvalidArgument(f"reset_mask must be a boolean array of shape ({self.num_envs},), got {mask!r}.")
        if not mask.any():
            raise InvalidArgument("reset_mask selects no sub-environment; at least one must be True.")
        return mask

    def _seed(self, seed: int | Sequence[int | None] | None, rows: npt.NDArray[np.int64]) -> None:
        if seed is None:
            return
        seeds = [seed + row for row in range(self.num_envs)] if isinstance(seed, int) else list(seed)
        if len(seeds) != self.num_envs:
            raise InvalidArgument(f"a list of seeds needs one per sub-environment: {self.num_envs}, got {len(seeds)}.")
        chosen = [row for row in rows.tolist() if seeds[row] is not None]
        for row in chosen:
            self._generators[row] = seeding.np_random(seeds[row])[0]
        if chosen:
            for evaluator in self._evaluators:
                evaluator.reset_repeats()

    def _generator(self, row: int) -> np.random.Generator:
        found = self._generators[row]
        if found is None:
            found = self._generators[row] = seeding.np_random(None)[0]
        return found

    def _draw_starts(self, rows: npt.NDArray[np.int64], fidelity: int | None) -> None:
        """Draw tasks and starts for `rows`, which are not evaluated yet."""
        episodes = self._all
        for row in rows.tolist():
            episodes.tasks[row], episodes.current[row] = self.problem.draw(self._generator(row))
        episodes.incumbents[rows] = episodes.current[rows]
        episodes.edits[rows] = 0
        episodes.edited[rows] = -1
        episodes.invalid[rows] = False
        episodes.fidelities[rows] = -1 if fidelity is None else fidelity

    def _begin(self, rows: npt.NDArray[np.int64], fidelity: int | None) -> Info:
        """Begin new episodes in `rows`; return the columns of their infos."""
        self._all.terminated[rows] = True
        self._draw_starts(rows, fidelity)
        return self._query(rows, np.zeros(len(rows), np.bool_), np.ones(len(rows), np.bool_))[1]

    # --- step --------------------------------------------------------------------------------------

    def step(
        self, actions: npt.ArrayLike
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], Info]:
        """Make one edit, or stop, in every sub-environment.

        Raises:
            InvalidAction: `actions` are not N integers inside the action space.
            EpisodeOver: nothing was reset yet, or in the mode "SameStep" an error kept episodes that ended from
                being reset.
            BudgetExhausted: more queries were due than the counter's budget admits; the first ones, in row order,
                were evaluated and counted.
        """
        choices = self._checked_actions(actions)
        if not self._begun:
            raise EpisodeOver("the episodes were not begun; call reset() first.")
        resting = self._all.over
        if resting.any() and self.autoreset_mode is AutoresetMode.SAME_STEP:
            raise EpisodeOver("an episode ended without being reset; call reset() first.")
        begins = resting & (self.autoreset_mode is AutoresetMode.NEXT_STEP)
        stops = ~resting & (choices == STOP)
        edits = ~resting & ~stops
        legal = self.problem.edits.masks(self._all.current)[np.arange(self.num_envs), choices]
        invalid = edits & ~legal
        self._draw_starts(np.flatnonzero(begins), self.problem.fidelity)
        moving = np.flatnonzero(edits & legal)
        before = self._all.current[moving]
        self._all.current[moving] = self.problem.edits.apply(before, choices[moving])
        rows = np.flatnonzero(begins | edits)
        try:
            rewards, columns = self._query(rows, invalid[rows], begins[rows]) if len(rows) else (np.zeros(0), {})
        except BudgetExhausted:
            self._all.current[moving] = before
            raise
        self.counter.environment_steps += int((~resting).sum())
        self._all.terminated[stops | invalid] = True
        self._all.invalid[invalid] = True
        self._all.edited[moving] = self.problem.edits.slots(choices[moving])
        spread = np.zeros(self.num_envs)
        spread[rows] = rewards
        return self._outcome(spread, np.flatnonzero(~resting | begins), rows, columns)

    def _query(
        self, rows: npt.NDArray[np.int64], invalid: npt.NDArray[np.bool_], begins: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.float64], Info]:
        """Evaluate the current architectures of `rows` in one batch and update their episodes.

        Returns:
            Rewards of the step, shape [rows]: 0 for starts, the failure reward for masked actions, else by how much
            the best improved; and the columns of the infos.
        """
        episodes = self._all
        current = episodes.current[rows]
        batch = Batch(self.space, current, np.full(len(rows), self.space.max_length, np.int64))
        fidelities = episodes.fidelities[rows]
        values, columns = self._finish(
            batch,
            invalid,
            None if (fidelities < 0).all() else self._without_defaults(fidelities, episodes.tasks[rows]),
            episodes.tasks[rows],
        )
        starts, kept = rows[begins], ~invalid
        episodes.start[starts] = episodes.best[starts] = values[begins]
        episodes.terminated[starts] = episodes.truncated[starts] = False
        gains = np.maximum(values - episodes.best[rows], 0.0)
        better = kept & (gains > 0)
        episodes.incumbents[rows[better]] = current[better]
        episodes.best[rows[better]] = values[better]
        episodes.rewards[rows[kept]] = values[kept]
        episodes.status[rows[kept]] = columns["status"][kept]
        episodes.metrics[rows[kept]] = np.stack([columns["metrics"][name] for name in self._names], axis=1)[kept]
        edited = rows[kept & ~begins]
        episodes.edits[edited] += 1
        episodes.truncated[edited] = episodes.edits[edited] == self.horizon
        return np.where(invalid, values, gains), {**columns, "value": values.copy()}

    def _without_defaults(
        self, fidelities: npt.NDArray[np.int64], tasks: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        highest = np.array([evaluator.fidelities[1] if evaluator.fidelities else -1 for evaluator in self._evaluators])
        return np.where(fidelities < 0, highest[tasks], fidelities)

    def _outcome(
        self, rewards: npt.NDArray[np.float64], seen: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], columns: Info
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], Info]:
        """Lay out what a step returns, resetting at once in the mode "SameStep".

        Args:
            rewards: of the step, shape [N].
            seen: rows that have an info.
            rows: those of them that queried.
            columns: infos of the queries.
        """
        info = self._infos(seen, rows, columns)
        terminated, truncated = self._all.terminated.copy(), self._all.truncated.copy()
        ended = np.flatnonzero(terminated | truncated)
        if self.autoreset_mode is AutoresetMode.SAME_STEP and len(ended):
            last = self._observe()
            final = self._infos(ended, *_restricted(rows, columns, ended))
            begun = self._begin(ended, self.problem.fidelity)
            others = np.setdiff1d(seen, ended)
            info = _merged(
                self._infos(others, *_restricted(rows, columns, others)) if len(others) else {},
                self._infos(ended, ended, begun),
            )
            info |= _final(last, final, ended, self.num_envs)
        return self._observe(), rewards, terminated, truncated, info

    def _infos(self, seen: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], columns: Info) -> Info:
        """Lay out the infos of the rows `seen`, of which `rows` queried and the others stopped."""
        stopped = np.setdiff1d(seen, rows)
        queried = info_columns({**columns, **self._standing_of(rows)}, rows, self.num_envs) if len(rows) else {}
        if not len(stopped):
            return queried
        encodings = self.space.encodings(
            Batch(self.space, self._all.current[stopped], np.full(len(stopped), self.space.max_length, np.int64))
        )
        known: Info = {
            "encoding": encodings,
            "status": self._all.status[stopped],
            "metrics": {name: self._all.metrics[stopped, column] for column, name in enumerate(self._names)},
            "cost_seconds": np.zeros(len(stopped)),
        }
        return _merged(queried, info_columns({**known, **self._standing_of(stopped)}, stopped, self.num_envs))

    def _standing_of(self, rows: npt.NDArray[np.int64]) -> Info:
        """Return the columns that every info has."""
        names = np.array(self.problem.names, dtype=object)
        length = np.full(len(rows), self.space.max_length, np.int64)
        return {
            "action_mask": self.action_masks()[rows].astype(np.int8),
            "incumbent": self.space.encodings(Batch(self.space, self._all.incumbents[rows], length)),
            "task": names.take(self._all.tasks[rows]),
        }

    def _observe(self) -> npt.NDArray[Any]:
        episodes = self._all
        return self.problem.observation.batch(
            Progress(
                episodes.current,
                episodes.incumbents,
                self.horizon - episodes.edits,
                episodes.rewards - episodes.best,
                episodes.best - episodes.start,
            )
        )

    # --- tasks -------------------------------------------------------------------------------------

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks that episodes are drawn from."""
        return self.problem.names

    def _evaluate(self, queries: Queries, tasks: npt.NDArray[np.int64] | None) -> Evaluations:
        if tasks is None or len(self._evaluators) == 1:
            return self.evaluator.evaluate(queries)
        status = np.zeros(len(queries), np.int8)
        metrics = {name: np.zeros(len(queries)) for name in self._names}
        cost = np.zeros(len(queries))
        messages: dict[int, str] = {}
        for task in np.unique(tasks).tolist():
            chosen = np.flatnonzero(tasks == task)
            found = self._evaluators[task].evaluate(queries.select(chosen))
            status[chosen], cost[chosen] = found.status, found.cost_seconds
            for name in self._names:
                metrics[name][chosen] = found.metrics[name]
            messages |= {int(chosen[row]): text for row, text in found.messages.items()}
        return Evaluations(status, metrics, cost, messages)

    def _mean_costs(self, queries: Queries, tasks: npt.NDArray[np.int64] | None) -> npt.NDArray[np.float64]:
        if tasks is None or len(self._evaluators) == 1:
            return super()._mean_costs(queries, tasks)
        fidelities = [None] * len(queries) if queries.fidelities is None else queries.fidelities.tolist()
        costs = [self._evaluators[t].mean_cost(f) for t, f in zip(tasks.tolist(), fidelities, strict=True)]
        return np.array(costs)

    def expected_steps(self, queries: int, rng: np.random.Generator) -> float:
        """Return how many steps so many queries take in episodes of full length, whose starts cost a query each."""
        return queries * self.horizon / (self.horizon + 1)

    def wrap_evaluator(self, wrap: Callable[[Evaluator], Evaluator]) -> None:
        """Put a decorator around the evaluator of every task, for all queries from now on."""
        self._evaluators = [wrap(one) for one in self._evaluators]
        self.problem.tasks = dict(zip(self.problem.names, self._evaluators, strict=True))
        self.evaluator = self.problem.evaluator = self._evaluators[0]

    def close_extras(self, **_: Any) -> None:  # noqa: ANN401 - Gymnasium's signature
        """Release what the evaluators hold."""
        for evaluator in self._evaluators:
            evaluator.close()

    # --- views -------------------------------------------------------------------------------------

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Return which actions are legal now, shape [N, E + 1]; all of them where the episode is over."""
        masks = self.problem.edits.masks(self._all.current)
        masks[self._all.over] = True
        return masks

    def get_state(self) -> ImprovementVectorState:
        """Return all episodes as one value."""
        return self._all.copy()

    def set_state(self, state: ImprovementVectorState) -> None:
        """Continue from a value of `get_state`.

        Raises:
            InvalidArgument: it has another number of sub-environments.
        """
        if len(state.edits) != self.num_envs:
            raise InvalidArgument(f"the state has {len(state.edits)} sub-environments, this one {self.num_envs}.")
        self._all = state.copy()
        self._begun = True

    def render(self) -> Any:  # noqa: ANN401 - depends on the render mode
        """Return a tuple with the text or picture of every sub-environment, of Nones without a render mode."""
        columns = (self._all.current, self._all.edited, self._all.edits, self._all.invalid)
        return tuple(
            self.problem.render_edit(tuple(current), None if edited < 0 else edited, edits, invalid)
            for current, edited, edits, invalid in zip(*(column.tolist() for column in columns), strict=True)
        )


def _restricted(
    rows: npt.NDArray[np.int64], columns: Info, wanted: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], Info]:
    """Return which of `rows` are `wanted`, and their part of the columns."""
    chosen = np.flatnonzero(np.isin(rows, wanted))
    position = {int(old): new for new, old in enumerate(chosen)}

    def part(values: Any) -> Any:  # noqa: ANN401 - a column or a dictionary of columns
        if not isinstance(values, dict):
            return values[chosen]
        if values and all(isinstance(key, int) for key in values):
            return {position[key]: value for key, value in values.items() if key in position}
        return {name: part(column) for name, column in values.items()}

    found = {name: part(values) for name, values in columns.items()}
    return rows[chosen], {name: values for name, values in found.items() if not (name == "message" and not values)}


def _merged(one: Info, other: Info) -> Info:
    """Lay infos of disjoint rows over each other; a column that one lacks is the other's."""

    def merge(name: str) -> Any:  # noqa: ANN401 - a column or a dictionary of columns
        if name not in one or name not in other:
            return one.get(name, other.get(name))
        if isinstance(one[name], dict):
            return _merged(one[name], other[name])
        if name.startswith("_"):
            return one[name] | other[name]
        chosen = one[name].copy()
        present = other[f"_{name}"]
        chosen[present] = other[name][present]
        return chosen

    return {name: merge(name) for name in dict.fromkeys((*one, *other))}


def _final(last: npt.NDArray[Any], final: Info, rows: npt.NDArray[np.int64], count: int) -> Info:
    """Return last observations and infos of ended episodes as `SyncVectorEnv` lays them out."""
    observations = np.full(count, None, dtype=object)
    for row in rows.tolist():
        observations[row] = last[row]
    present = np.zeros(count, np.bool_)
    present[rows] = True
    return {"final_obs": observations, "_final_obs": present, "final_info": final, "_final_info": present.copy()}
