"""What all environments share: the parts of the problem, the spaces, the end of an episode.

Dimension letters: N sub-environments, L = `space.max_length`, C = `space.max_choices`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from nas_gym.envs.core.counter import Counter
from nas_gym.envs.core.observations import OBSERVATIONS, Observation
from nas_gym.errors import BudgetExhausted, InvalidAction, InvalidArgument
from nas_gym.evaluators.core import LABELS, STATUS_LABELS, Evaluations, Evaluator, Queries, Status
from nas_gym.evaluators.decorators import Cached
from nas_gym.objectives import Objective
from nas_gym.rendering import render_rgb, render_text
from nas_gym.search_spaces.core import Batch, Encoding, SearchSpace

RENDER_MODES = ("ansi", "rgb_array")

Info = dict[str, Any]


class Problem:
    """The parts of an environment, checked against each other; shared by the single and the vector form.

    Attributes:
        space: what can be built.
        evaluator: how good it is; it answers repeated queries as `repeat_query` says.
        objective: metrics to reward.
        observation: what is seen.
        counter: what it cost so far.
        fidelity: fidelity of an episode that asks for none, None = the evaluator's default.
        render_mode: None, "ansi" or "rgb_array".
    """

    def __init__(
        self,
        space: SearchSpace,
        evaluator: Evaluator,
        objective: Objective,
        observation: str = "prefix",
        fidelity: int | None = None,
        repeat_query: str = "cache+charge",
        render_mode: str | None = None,
    ) -> None:
        """Check and keep the parts.

        Raises:
            InvalidArgument: the evaluator has another space, the objective reads what it may not, or an unknown
                render mode or repeat mode.
            UnknownName: no such observation, or a metric that the evaluator does not measure.
            FidelityError: the evaluator cannot answer `fidelity`.
        """
        if evaluator.space != space:
            raise InvalidArgument(f"the evaluator is for the space {evaluator.space.name!r}, not for {space.name!r}.")
        if render_mode is not None and render_mode not in RENDER_MODES:
            raise InvalidArgument(f"render_mode must be None or one of {', '.join(RENDER_MODES)}, got {render_mode!r}.")
        objective.check(evaluator)
        self.space = space
        self.counter = Counter(space, repeat_query=repeat_query)
        cached = repeat_query.startswith("cache") and not evaluator.deterministic
        self.evaluator = Cached(evaluator) if cached else evaluator
        self.objective = objective
        self.observation: Observation = OBSERVATIONS[observation](space)
        self.fidelity = None if fidelity is None else evaluator.check_fidelity(fidelity)
        self.render_mode = render_mode
        self.action_space = spaces.Discrete(space.max_choices)
        self.observation_space = self.observation.observation_space()

    def episode_fidelity(self, options: dict[str, Any] | None) -> int | None:
        """Return the fidelity that the options of a reset ask for, or the default.

        Raises:
            InvalidArgument: an option that does not exist.
            FidelityError: the evaluator cannot answer it.
        """
        if not options:
            return self.fidelity
        for name in options:
            if name != "fidelity":
                raise InvalidArgument(
                    f"reset takes no option {name!r}; it takes 'fidelity' (vector: also 'reset_mask')."
                )
        return self.evaluator.check_fidelity(options["fidelity"])

    def checked_action(self, action: Any) -> int:  # noqa: ANN401 - whatever the caller passes
        """Return an action as a Python int.

        Raises:
            InvalidAction: it is no integer inside the action space.
        """
        try:
            choice = operator.index(action)
        except TypeError:
            choice = -1
        if not 0 <= choice < self.space.max_choices:
            raise InvalidAction(f"actions are integers from 0 to {self.space.max_choices - 1}, got {action!r}.")
        return choice

    def render(self, prefix: Encoding) -> str | npt.NDArray[np.uint8] | None:
        """Draw an unfinished or finished architecture in the render mode."""
        if self.render_mode == "ansi":
            return render_text(self.space, prefix)
        return render_rgb(self.space, prefix) if self.render_mode == "rgb_array" else None


class NASEnv(gymnasium.Env[npt.NDArray[Any], np.int64]):
    """Base of the single environments.

    Attributes:
        space: the search space.
        evaluator: answers finished architectures.
        objective: metrics to reward.
        counter: steps, queries, unique architectures, seconds.
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 2}  # noqa: RUF012 - Gymnasium reads it from the class

    def __init__(self, problem: Problem) -> None:
        """Adopt the parts of a problem."""
        self.problem = problem
        self.space = problem.space
        self.evaluator = problem.evaluator
        self.objective = problem.objective
        self.counter = problem.counter
        self.render_mode = problem.render_mode
        self.action_space = problem.action_space
        self.observation_space = problem.observation_space
        self._free_mask = np.ones(self.space.max_choices, np.int8)

    def close(self) -> None:
        """Release what the evaluator holds: worker processes, files."""
        self.evaluator.close()
        super().close()

    def _finish(self, encoding: Encoding, fidelity: int | None) -> tuple[float, Info]:
        """Evaluate a complete architecture; return its reward and the final info.

        Raises:
            BudgetExhausted: the counter has a budget and it is used up.
        """
        self.counter.admit_one(encoding)
        evaluation = self.evaluator.evaluate_one(encoding, fidelity)
        self.counter.record_one(encoding, evaluation.cost_seconds)
        info: Info = {
            "action_mask": self._free_mask.copy(),
            "encoding": encoding,
            "status": LABELS[evaluation.status],
            "metrics": dict(evaluation.metrics),
            "cost_seconds": evaluation.cost_seconds,
        }
        if evaluation.message:
            info["message"] = evaluation.message
        return self.objective.one(evaluation), info

    def _finish_invalid(self, prefix: Encoding, fidelity: int | None) -> tuple[float, Info]:
        """Charge an episode that ended with an illegal action; return the failure reward and the final info.

        Raises:
            BudgetExhausted: the counter has a budget and it is used up.
        """
        self.counter.admit_one(prefix, invalid=True)
        cost = self.evaluator.mean_cost(fidelity)
        self.counter.record_one(prefix, cost, invalid=True)
        info: Info = {
            "action_mask": self._free_mask.copy(),
            "encoding": prefix,
            "status": Status.INVALID_ACTION.label,
            "metrics": dict.fromkeys(self.evaluator.search_metrics, float("nan")),
            "cost_seconds": cost,
        }
        return self.objective.failure_reward, info


class NASVectorEnv(VectorEnv[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[Any]]):
    """Base of the vector environments; attributes as `NASEnv`."""

    def __init__(self, problem: Problem, num_envs: int, autoreset_mode: str | AutoresetMode) -> None:
        """Adopt the parts of a problem.

        Args:
            problem: the parts.
            num_envs: number of sub-environments N.
            autoreset_mode: "NextStep", "SameStep" or "Disabled", or Gymnasium's enumeration.

        Raises:
            InvalidArgument: fewer than one sub-environment, or an unknown mode.
        """
        if num_envs < 1:
            raise InvalidArgument(f"num_envs must be at least 1, got {num_envs}.")
        try:
            self.autoreset_mode = AutoresetMode(autoreset_mode)
        except ValueError:
            modes = ", ".join(repr(mode.value) for mode in AutoresetMode)
            raise InvalidArgument(f"autoreset_mode must be one of {modes}, got {autoreset_mode!r}.") from None
        self.problem = problem
        self.space = problem.space
        self.evaluator = problem.evaluator
        self.objective = problem.objective
        self.counter = problem.counter
        self.num_envs = num_envs
        self.render_mode = problem.render_mode
        self.metadata = {
            "render_modes": list(RENDER_MODES),
            "render_fps": 2,
            "autoreset_mode": self.autoreset_mode,
        }
        self.single_action_space = problem.action_space
        self.single_observation_space = problem.observation_space
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)

    def close_extras(self, **_: Any) -> None:  # noqa: ANN401 - Gymnasium's signature
        """Release what the evaluator holds: worker processes, files."""
        self.evaluator.close()

    def wrap_evaluator(self, wrap: Callable[[Evaluator], Evaluator]) -> None:
        """Put a decorator around the evaluator, for all episodes that end from now on."""
        self.evaluator = self.problem.evaluator = wrap(self.evaluator)

    def _checked_actions(self, actions: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the actions as int64 [N].

        Raises:
            InvalidAction: another shape, no integers, or one outside the action space.
        """
        array = np.asarray(actions)
        if array.shape != (self.num_envs,) or array.dtype.kind not in "iu":
            raise InvalidAction(
                f"actions must be {self.num_envs} integers, got shape {array.shape} and type {array.dtype}."
            )
        choices = array.astype(np.int64, copy=False)
        # Negative numbers are huge as unsigned ones: one comparison instead of two passes.
        if (choices.view(np.uint64) >= self.space.max_choices).any():
            bad = array[(array < 0) | (array >= self.space.max_choices)][0]
            raise InvalidAction(f"actions are integers from 0 to {self.space.max_choices - 1}, got {bad}.")
        return choices

    def _finish(
        self,
        batch: Batch,
        invalid: npt.NDArray[np.bool_],
        fidelities: npt.NDArray[np.int64] | None,
    ) -> tuple[npt.NDArray[np.float64], Info]:
        """Evaluate finished episodes in one batch; return rewards and the columns of the final info.

        Raises:
            BudgetExhausted: not all fit into the counter's budget; those that do were evaluated and counted.
        """
        admitted = self.counter.admit(batch, invalid)
        cut = admitted < len(batch)
        if cut:
            first = slice(admitted)
            batch, invalid = batch.select(first), invalid[first]
            fidelities = None if fidelities is None else fidelities[first]
        queries = Queries(batch, fidelities)
        evaluations = self._evaluate_valid(queries, invalid) if invalid.any() else self.evaluator.evaluate(queries)
        rewards = self.objective(evaluations)
        self.counter.record(batch, invalid, evaluations.cost_seconds)
        columns: Info = {
            "encoding": self.space.encodings(batch),
            "status": _labels(evaluations.status),
            "metrics": dict(evaluations.metrics),
            "cost_seconds": evaluations.cost_seconds,
        }
        if evaluations.messages:
            columns["message"] = dict(evaluations.messages)
        if cut:
            raise BudgetExhausted(f"the budget of {self.counter.budget} queries is used up.", rewards.tolist(), columns)
        return rewards, columns

    def _evaluate_valid(self, queries: Queries, invalid: npt.NDArray[np.bool_]) -> Evaluations:
        """Evaluate the rows without an illegal action and put the others in between."""
        valid = np.flatnonzero(~invalid)
        status = np.full(len(queries), Status.INVALID_ACTION, np.int8)
        metrics = {name: np.full(len(queries), np.nan) for name in self.evaluator.search_metrics}
        if queries.fidelities is None:
            cost = np.full(len(queries), self.evaluator.mean_cost())
        else:
            cost = np.array([self.evaluator.mean_cost(fidelity) for fidelity in queries.fidelities.tolist()])
        messages = {}
        if len(valid):
            found = self.evaluator.evaluate(queries.select(valid))
            status[valid] = found.status
            cost[valid] = found.cost_seconds
            for name, column in found.metrics.items():
                metrics[name][valid] = column
            messages = {int(valid[row]): text for row, text in found.messages.items()}
        return Evaluations(status, metrics, cost, messages)


def _labels(status: npt.NDArray[np.int8]) -> npt.NDArray[np.object_]:
    """Return the labels of a column of statuses; the usual case, all "ok", is filled in at once."""
    if status.any():
        return STATUS_LABELS.take(status)
    labels = np.empty(len(status), dtype=object)
    labels.fill(LABELS[Status.OK])
    return labels
