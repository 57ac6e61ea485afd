"""What all environments share: the parts of the problem, the spaces, the end of an episode.

Dimension letters: N sub-environments, L = `space.max_length`, C = `space.max_choices`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from nas_gym.envs.core.counter import Counter
from nas_gym.envs.core.observations import OBSERVATIONS
from nas_gym.errors import BudgetExhausted, InvalidAction, InvalidArgument
from nas_gym.evaluators.core import LABELS, STATUS_LABELS, Evaluations, Evaluator, Queries, Status
from nas_gym.evaluators.decorators import Cached
from nas_gym.objectives import Objective
from nas_gym.rendering import Window, render_rgb, render_text
from nas_gym.search_spaces.core import Batch, Encoding, SearchSpace

VECTOR_RENDER_MODES = ("ansi", "rgb_array")
RENDER_MODES = (*VECTOR_RENDER_MODES, "human")

_LENGTH_SAMPLES = 200

Info = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Answered:
    """Queries that were charged and answered, in this order; N of them.

    Attributes:
        encodings: the architectures; of an episode that a masked action ended, what it had built.
        status: labels, object [N].
        rewards: values of the objective, float64 [N].
        metrics: search-time metrics by name, float64 [N].
        cost_seconds: float64 [N].
        messages: why queries failed, by row.
    """

    encodings: npt.NDArray[np.object_]
    status: npt.NDArray[np.object_]
    rewards: npt.NDArray[np.float64]
    metrics: Mapping[str, npt.NDArray[np.float64]]
    cost_seconds: npt.NDArray[np.float64]
    messages: Mapping[int, str]

    @classmethod
    def one(cls, encoding: Encoding, reward: float, info: Info) -> Answered:
        """Return a single query from its final info."""
        encodings = np.empty(1, dtype=object)
        encodings[0] = encoding
        return cls(
            encodings,
            np.array([info["status"]], dtype=object),
            np.array([reward]),
            {name: np.array([value]) for name, value in info["metrics"].items()},
            np.array([info["cost_seconds"]]),
            {0: info["message"]} if "message" in info else {},
        )


class Problem:
    """The parts of an environment, checked against each other; shared by the single and the vector form.

    Attributes:
        space: what can be built.
        evaluator: how good it is; it answers repeated queries as `repeat_query` says.
        objective: metrics to reward.
        observation: what is seen.
        counter: what it cost so far.
        fidelity: fidelity of an episode that asks for none, None = the evaluator's default.
        listeners: told of every query as soon as it was charged and answered, below any training loop.
        render_mode: None, "ansi", "rgb_array" or, in single environments, "human".
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
            raise InvalidArgument(
                f"render_mode must be None or one of {', '.join(RENDER_MODES)} (single environments only), "
                f"got {render_mode!r}."
            )
        objective.check(evaluator)
        self.space = space
        highest = None if evaluator.fidelities is None else evaluator.fidelities[1]
        self.counter = Counter(space, repeat_query=repeat_query, highest_fidelity=highest)
        self.evaluator = self.answering(evaluator, repeat_query)
        self.objective = objective
        self.observation: Any = self._view(observation)
        self.fidelity = None if fidelity is None else evaluator.check_fidelity(fidelity)
        self.listeners: list[Callable[[Answered], None]] = []
        self.render_mode = render_mode
        self.action_space = self._actions()
        self.observation_space = self.observation.observation_space()

    @staticmethod
    def answering(evaluator: Evaluator, repeat_query: str) -> Evaluator:
        """Return an evaluator that answers repeated queries as `repeat_query` says."""
        cached = repeat_query.startswith("cache") and not evaluator.deterministic
        return Cached(evaluator) if cached else evaluator

    def _view(self, observation: str) -> Any:  # noqa: ANN401 - what is seen depends on what an episode is
        """Return the view of this name.

        Raises:
            UnknownName: there is none.
        """
        return OBSERVATIONS[observation](self.space)

    def _actions(self) -> spaces.Discrete:
        """Return the action space."""
        return spaces.Discrete(self.space.max_choices)

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

    @property
    def fidelities(self) -> tuple[int, int] | None:
        """Lowest fidelity and that of an episode which asks for none; None where there is no such notion."""
        if self.evaluator.fidelities is None:
            return None
        lowest, highest = self.evaluator.fidelities
        return lowest, highest if self.fidelity is None else self.fidelity

    def checked_action(self, action: Any) -> int:  # noqa: ANN401 - whatever the caller passes
        """Return an action as a Python int.

        Raises:
            InvalidAction: it is no integer inside the action space.
        """
        try:
            choice = operator.index(action)
        except TypeError:
            choice = -1
        if not 0 <= choice < self.action_space.n:
            raise InvalidAction(f"actions are integers from 0 to {self.action_space.n - 1}, got {action!r}.")
        return choice

    def render(
        self, prefix: Encoding, *, highlight: Collection[int] | None = None, invalid: bool = False, caption: str = ""
    ) -> str | npt.NDArray[np.uint8] | None:
        """Draw an unfinished or finished architecture: as text, as the picture that "human" shows too, or not at all.

        Args:
            prefix: the decisions taken.
            highlight: indices of the decisions to highlight; None = the last one taken.
            invalid: whether an invalid action ended the episode.
            caption: further words of the status line.

        Raises:
            MissingExtra: a picture is wanted, and pygame is not installed.
        """
        if self.render_mode is None:
            return None
        draw = render_text if self.render_mode == "ansi" else render_rgb
        return draw(self.space, prefix, highlight=highlight, invalid=invalid, caption=caption)


class NASEnv(gymnasium.Env[npt.NDArray[Any], np.int64]):
    """Base of the single environments.

    Attributes:
        space: the search space.
        evaluator: answers finished architectures.
        objective: metrics to reward.
        counter: steps, queries, unique architectures, seconds.
    """

    actions_are_decisions: bool = True
    """Whether an episode answers the decisions of the search space, so that an encoding can be played as actions."""

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
        self._free_mask = np.ones(int(self.action_space.n), np.int8)
        self._window = Window(f"nas-gym: {self.space.name}") if self.render_mode == "human" else None
        if self._window is not None:
            # Put around the methods of this object alone: without a window, a step does not even ask for one.
            self.step, self.reset = self._step_shown, self._reset_shown

    def _step_shown(self, action: Any) -> tuple[npt.NDArray[Any], Any, bool, bool, Info]:  # noqa: ANN401 - as `step`
        outcome = type(self).step(self, action)
        self._show()
        return outcome

    def _reset_shown(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[Any], Info]:
        outcome = type(self).reset(self, seed=seed, options=options)
        self._show()
        return outcome

    def _show(self) -> None:
        """Show the architecture in the window, unless it was closed."""
        if self._window is not None and not self._window.is_closed:
            picture = self._draw()
            if isinstance(picture, np.ndarray):
                self._window.show(picture, self.metadata["render_fps"])

    def _draw(self) -> str | npt.NDArray[np.uint8] | None:
        """Return what there is to see now, by `Problem.render`; every mechanic says what to highlight."""
        raise NotImplementedError

    def render(self) -> Any:  # noqa: ANN401 - depends on the render mode
        """Return the architecture as text or as a picture; None without a render mode and with "human".

        "human" shows every reset and step in a window by itself. Once the user closes it, the episodes go on unseen.
        """
        return None if self.render_mode == "human" else self._draw()

    def close(self) -> None:
        """Release what the evaluator holds, worker processes and files, and close the window."""
        if self._window is not None:
            self._window.close()
        self.evaluator.close()
        super().close()

    def _finish(self, encoding: Encoding, fidelity: int | None) -> tuple[float, Info]:
        """Evaluate a complete architecture; return its reward and the final info.

        Raises:
            BudgetExhausted: the counter has a budget and it is used up.
        """
        self.counter.admit_one(encoding, fidelity=fidelity)
        evaluation = self.evaluator.evaluate_one(encoding, fidelity)
        self.counter.record_one(encoding, evaluation.cost_seconds, fidelity=fidelity)
        info: Info = {
            "action_mask": self._free_mask.copy(),
            "encoding": encoding,
            "status": LABELS[evaluation.status],
            "metrics": dict(evaluation.metrics),
            "cost_seconds": evaluation.cost_seconds,
        }
        if evaluation.message:
            info["message"] = evaluation.message
        reward = self.objective.one(evaluation)
        for listener in self.problem.listeners:
            listener(Answered.one(encoding, reward, info))
        return reward, info

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
        for listener in self.problem.listeners:
            listener(Answered.one(prefix, self.objective.failure_reward, info))
        return self.objective.failure_reward, info


class NASVectorEnv(VectorEnv[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[Any]]):
    """Base of the vector environments; attributes as `NASEnv`."""

    actions_are_decisions: bool = True
    """Whether an episode answers the decisions of the search space, so that an encoding can be played as actions."""

    def __init__(self, problem: Problem, num_envs: int, autoreset_mode: str | AutoresetMode) -> None:
        """Adopt the parts of a problem.

        Args:
            problem: the parts.
            num_envs: number of sub-environments N.
            autoreset_mode: "NextStep", "SameStep" or "Disabled", or Gymnasium's enumeration.

        Raises:
            InvalidArgument: fewer than one sub-environment, or an unknown mode, or a window is wanted.
        """
        if num_envs < 1:
            raise InvalidArgument(f"num_envs must be at least 1, got {num_envs}.")
        try:
            self.autoreset_mode = AutoresetMode(autoreset_mode)
        except ValueError:
            modes = ", ".join(repr(mode.value) for mode in AutoresetMode)
            raise InvalidArgument(f"autoreset_mode must be one of {modes}, got {autoreset_mode!r}.") from None
        if problem.render_mode is not None and problem.render_mode not in VECTOR_RENDER_MODES:
            raise InvalidArgument(
                f"render_mode={problem.render_mode!r} is for single environments; many have no window. "
                f"For a vector environment it must be None or one of {', '.join(VECTOR_RENDER_MODES)}."
            )
        self.problem = problem
        self.space = problem.space
        self.evaluator = problem.evaluator
        self.objective = problem.objective
        self.counter = problem.counter
        self.num_envs = num_envs
        self.render_mode = problem.render_mode
        self.metadata = {
            "render_modes": list(VECTOR_RENDER_MODES),
            "render_fps": 2,
            "autoreset_mode": self.autoreset_mode,
        }
        self.single_action_space = problem.action_space
        self.single_observation_space = problem.observation_space
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks that episodes are drawn from; usually there is one."""
        return (self.problem.space.name,)

    @property
    def fidelities(self) -> tuple[int, int] | None:
        """Lowest fidelity and that of an episode which asks for none; None where there is no such notion."""
        return self.problem.fidelities

    def close_extras(self, **_: Any) -> None:  # noqa: ANN401 - Gymnasium's signature
        """Release what the evaluator holds: worker processes, files."""
        self.evaluator.close()

    def expected_steps(self, queries: int, rng: np.random.Generator) -> float:
        """Return about how many steps so many queries take: those of uniform architectures of mean length."""
        lengths = [len(self.space.sample(rng)) for _ in range(_LENGTH_SAMPLES)]
        return queries * float(np.mean(lengths))

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
        count = int(self.problem.action_space.n)
        if (choices.view(np.uint64) >= count).any():
            bad = array[(array < 0) | (array >= count)][0]
            raise InvalidAction(f"actions are integers from 0 to {count - 1}, got {bad}.")
        return choices

    def _finish(
        self,
        batch: Batch,
        invalid: npt.NDArray[np.bool_],
        fidelities: npt.NDArray[np.int64] | None,
        tasks: npt.NDArray[np.int64] | None = None,
    ) -> tuple[npt.NDArray[np.float64], Info]:
        """Evaluate finished episodes in one batch; return rewards and the columns of the final info.

        Args:
            batch: what was built, N rows.
            invalid: which of them a masked action ended, bool [N].
            fidelities: int64 [N], None = the default for all.
            tasks: which evaluator each is for, where there are several, int64 [N].

        Raises:
            BudgetExhausted: not all fit into the counter's budget; those that do were evaluated and counted.
        """
        admitted = self.counter.admit(batch, invalid, fidelities)
        cut = admitted < len(batch)
        if cut:
            first = slice(admitted)
            batch, invalid = batch.select(first), invalid[first]
            fidelities = None if fidelities is None else fidelities[first]
            tasks = None if tasks is None else tasks[first]
        queries = Queries(batch, fidelities)
        if invalid.any():
            evaluations = self._evaluate_valid(queries, invalid, tasks)
        else:
            evaluations = self._evaluate(queries, tasks)
        rewards = self.objective(evaluations)
        self.counter.record(batch, invalid, evaluations.cost_seconds, fidelities)
        columns: Info = {
            "encoding": self.space.encodings(batch),
            "status": _labels(evaluations.status),
            "metrics": dict(evaluations.metrics),
            "cost_seconds": evaluations.cost_seconds,
        }
        if evaluations.messages:
            columns["message"] = dict(evaluations.messages)
        for listener in self.problem.listeners:
            listener(
                Answered(
                    columns["encoding"],
                    columns["status"],
                    rewards,
                    columns["metrics"],
                    evaluations.cost_seconds,
                    evaluations.messages,
                )
            )
        if cut:
            raise BudgetExhausted(f"the budget of {self.counter.budget} queries is used up.", rewards.tolist(), columns)
        return rewards, columns

    def _evaluate(self, queries: Queries, tasks: npt.NDArray[np.int64] | None) -> Evaluations:
        """Answer queries; an environment of several tasks asks the evaluator of each row's."""
        return self.evaluator.evaluate(queries)

    def _mean_costs(self, queries: Queries, tasks: npt.NDArray[np.int64] | None) -> npt.NDArray[np.float64]:
        """Return what failed queries are charged, in simulated seconds, float64 [N]."""
        if queries.fidelities is None:
            return np.full(len(queries), self.evaluator.mean_cost())
        return np.array([self.evaluator.mean_cost(fidelity) for fidelity in queries.fidelities.tolist()])

    def _evaluate_valid(
        self, queries: Queries, invalid: npt.NDArray[np.bool_], tasks: npt.NDArray[np.int64] | None
    ) -> Evaluations:
        """Evaluate the rows without an illegal action and put the others in between."""
        valid = np.flatnonzero(~invalid)
        status = np.full(len(queries), Status.INVALID_ACTION, np.int8)
        metrics = {name: np.full(len(queries), np.nan) for name in self.evaluator.search_metrics}
        cost = self._mean_costs(queries, tasks)
        messages = {}
        if len(valid):
            found = self._evaluate(queries.select(valid), None if tasks is None else tasks[valid])
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
