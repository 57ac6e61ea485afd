"""Improving a complete architecture, one edit a step: searching itself as the task, so that an agent can learn it.

After A. Cassimon, S. Mercelis, K. Mets: "Scalable reinforcement learning-based neural architecture search", Neural
Computing and Applications 2024, arXiv 2410.01431, where an episode walks between neighbours and is rewarded for
improvement.

Dimension letters: L = `space.max_length` slots, E edits; the actions are 0, a stop, and 1 to E.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from nas_gym.envs.core.base import Info, NASEnv, Problem
from nas_gym.envs.core.edits import EDIT_OBSERVATIONS, STOP, Edits, Progress
from nas_gym.errors import EpisodeOver, InvalidArgument
from nas_gym.evaluators.core import Evaluator
from nas_gym.objectives import Objective
from nas_gym.search_spaces.core import Encoding, FixedSlotSpace


class ImprovementProblem(Problem):
    """The parts of an environment that edits: a `Problem` with one or several tasks and a horizon.

    Attributes:
        tasks: evaluators by the name of their task; `evaluator` is the first.
        edits: the edits of the space.
        horizon: edits until an episode is truncated.
    """

    def __init__(
        self,
        tasks: Mapping[str, Evaluator],
        objective: Objective,
        horizon: int,
        observation: str = "feedback",
        fidelity: int | None = None,
        repeat_query: str = "cache+charge",
        render_mode: str | None = None,
    ) -> None:
        """Check and keep the parts.

        Args:
            tasks: evaluators of one space with fixed slots, by the name of their task.
            objective: metrics to reward.
            horizon: edits of an episode, at least 1.
            observation: name in `EDIT_OBSERVATIONS`.
            fidelity: as in `Problem`.
            repeat_query: as in `Problem`.
            render_mode: as in `Problem`.

        Raises:
            InvalidArgument: no task, a space without fixed slots, tasks of different spaces or metrics, a horizon
                below 1, or what `Problem` refuses.
            UnknownName: no such observation, or a metric that an evaluator does not measure.
            FidelityError: an evaluator cannot answer `fidelity`.
        """
        if not tasks:
            raise InvalidArgument("at least one task is needed, got none.")
        if isinstance(horizon, bool) or not isinstance(horizon, int) or horizon < 1:
            raise InvalidArgument(f"horizon must be an integer of at least 1 edit, got {horizon!r}.")
        first, *others = tasks.values()
        space = first.space
        if not isinstance(space, FixedSlotSpace):
            raise InvalidArgument(
                f"only architectures that answer the same decisions can be edited one by one; those of {space.name!r} "
                "do not."
            )
        self.edits = Edits(space)
        self.horizon = horizon
        super().__init__(space, first, objective, observation, fidelity, repeat_query, render_mode)
        for name, other in zip(list(tasks)[1:], others, strict=True):
            if other.space != space or other.search_metrics != first.search_metrics:
                raise InvalidArgument(
                    f"the task {name!r} has the space {other.space.signature!r} and the metrics "
                    f"{other.search_metrics}; the first has {space.signature!r} and {first.search_metrics}."
                )
            objective.check(other)
            if fidelity is not None:
                other.check_fidelity(fidelity)
        answering = (self.evaluator, *(self.answering(other, repeat_query) for other in others))
        self.tasks: dict[str, Evaluator] = dict(zip(tasks, answering, strict=True))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tasks, in order."""
        return tuple(self.tasks)

    def _view(self, observation: str) -> Any:  # noqa: ANN401 - one of several classes
        return EDIT_OBSERVATIONS[observation](self.space, self.horizon)

    def _actions(self) -> spaces.Discrete:
        return spaces.Discrete(self.edits.count + 1)

    def render_edit(self, current: Encoding, edited: int | None, edits: int, invalid: bool) -> Any:  # noqa: ANN401
        """Draw an architecture in the render mode, its last edit highlighted."""
        caption = f"edit {edits} of {self.horizon}"
        return self.render(current, highlight=() if edited is None else (edited,), invalid=invalid, caption=caption)

    def draw(self, rng: np.random.Generator) -> tuple[int, Encoding]:
        """Draw the task of an episode, where there are several, and its start, uniform over the encodings."""
        task = int(rng.integers(len(self.tasks))) if len(self.tasks) > 1 else 0
        return task, self.space.sample(rng)


@dataclass(frozen=True)
class ImprovementState:
    """A search that edits as one immutable value, without random generator or evaluator state.

    Attributes:
        current: architecture that is edited.
        incumbent: best architecture so far.
        reward: objective's value of `current`.
        best: that of `incumbent`.
        start: that of the first architecture.
        edits: edits made.
        task: which task, by its position.
        over: whether the episode has ended.
        fidelity: of its queries, None = the evaluator's default.
        status: label of the evaluation of `current`.
        metrics: its search-time metrics, (name, value) each.
        edited: slot that the last edit changed, None before the first.
        invalid: whether a masked action ended the episode.
    """

    current: Encoding
    incumbent: Encoding
    reward: float
    best: float
    start: float
    edits: int
    task: int
    over: bool
    fidelity: int | None
    status: str
    metrics: tuple[tuple[str, float], ...]
    edited: int | None = None
    invalid: bool = False

    @property
    def prefix(self) -> Encoding:
        """The architecture that wrappers draw and value: the current one."""
        return self.current


class ImprovementEnv(NASEnv):
    """An episode starts from a random complete architecture; every step evaluates a neighbour and moves there.

    The reward of a step is by how much it improves the best value so far, 0 where it does not. The start is evaluated
    at the reset, which costs a query as every edit does. Stopping terminates; `horizon` edits truncate.
    """

    actions_are_decisions: bool = False

    def __init__(
        self,
        tasks: Mapping[str, Evaluator],
        objective: Objective,
        *,
        horizon: int = 20,
        observation: str = "feedback",
        fidelity: int | None = None,
        repeat_query: str = "cache+charge",
        render_mode: str | None = None,
    ) -> None:
        """Create the environment; see `ImprovementProblem` for the arguments and the errors."""
        problem = ImprovementProblem(tasks, objective, horizon, observation, fidelity, repeat_query, render_mode)
        super().__init__(problem)
        self.problem: ImprovementProblem = problem
        self.horizon = horizon
        self._evaluators = tuple(problem.tasks.values())
        self._state: ImprovementState | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[npt.NDArray[Any], Info]:
        """Draw a task and a start, and evaluate it.

        Args:
            seed: of the draws; also starts the evaluators' repeat counters anew.
            options: ``{"fidelity": int}`` sets the fidelity of this episode's queries.

        Raises:
            InvalidArgument: an unknown option.
            FidelityError: the evaluator cannot answer the fidelity.
            BudgetExhausted: the counter has a budget and it is used up.
        """
        fidelity = self.problem.episode_fidelity(options)
        if seed is not None:
            super().reset(seed=seed)
            for evaluator in self._evaluators:
                evaluator.reset_repeats()
        self._state = None
        task, start = self.problem.draw(self.np_random)
        self.evaluator = self._evaluators[task]
        reward, info = self._finish(start, fidelity)
        metrics = tuple(info["metrics"].items())
        self._state = ImprovementState(
            start, start, reward, reward, reward, 0, task, False, fidelity, info["status"], metrics
        )
        return self._observe(), self._completed(info, reward)

    def step(self, action: Any) -> tuple[npt.NDArray[Any], float, bool, bool, Info]:  # noqa: ANN401 - any integer type
        """Make one edit and evaluate the result, or stop.

        Raises:
            InvalidAction: `action` is no integer inside the action space.
            EpisodeOver: the episode has ended or was not begun.
            BudgetExhausted: the counter has a budget and it is used up.
        """
        state = self._state
        if state is None or state.over:
            raise EpisodeOver("the episode is over or was not begun; call reset() first.")
        choice = self.problem.checked_action(action)
        if choice == STOP:
            self.counter.environment_steps += 1
            self._state = _replace(state, over=True)
            info: Info = {"encoding": state.current, "status": state.status, "metrics": dict(state.metrics)}
            return self._observe(), 0.0, True, False, self._completed({**info, "cost_seconds": 0.0}, None)
        slot, value = self.problem.edits.pairs[choice - 1]
        if state.current[slot] == value:
            reward, info = self._finish_invalid(state.current, state.fidelity)
            self.counter.environment_steps += 1
            self._state = _replace(state, over=True, invalid=True)
            return self._observe(), reward, True, False, self._completed(info, reward)
        edited = (*state.current[:slot], value, *state.current[slot + 1 :])
        reward, info = self._finish(edited, state.fidelity)
        self.counter.environment_steps += 1
        better = reward > state.best
        truncated = state.edits + 1 == self.horizon
        self._state = _replace(
            state,
            current=edited,
            incumbent=edited if better else state.incumbent,
            reward=reward,
            best=reward if better else state.best,
            edits=state.edits + 1,
            over=truncated,
            status=info["status"],
            metrics=tuple(info["metrics"].items()),
            edited=slot,
        )
        return self._observe(), max(reward - state.best, 0.0), False, truncated, self._completed(info, reward)

    def _completed(self, info: Info, reward: float | None) -> Info:
        """Return the info of a query with the masks and what is known of the episode."""
        state = self._known
        info["action_mask"] = self._mask(state).astype(np.int8)
        info["incumbent"] = state.incumbent
        info["task"] = self.problem.names[state.task]
        if reward is not None:
            info["value"] = reward
        return info

    @property
    def _known(self) -> ImprovementState:
        if self._state is None:
            raise EpisodeOver("no episode was begun; call reset() first.")
        return self._state

    def _mask(self, state: ImprovementState | None) -> npt.NDArray[np.bool_]:
        if state is None or state.over:
            return np.ones(self.problem.edits.count + 1, np.bool_)
        return self.problem.edits.mask(state.current)

    def _observe(self) -> npt.NDArray[Any]:
        state = self._known
        progress = Progress(
            np.array([state.current]),
            np.array([state.incumbent]),
            np.array([self.horizon - state.edits]),
            np.array([state.reward - state.best]),
            np.array([state.best - state.start]),
        )
        return self.problem.observation.batch(progress)[0]

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Return which actions are legal now, shape [E + 1]; all of them once the episode is over."""
        return self._mask(self._state)

    def get_state(self) -> ImprovementState:
        """Return the episode as an immutable value.

        Raises:
            EpisodeOver: none was begun.
        """
        return self._known

    def set_state(self, state: ImprovementState) -> None:
        """Continue from a value of `get_state`."""
        self._state = state
        self.evaluator = self._evaluators[state.task]

    def close(self) -> None:
        """Release what the evaluators hold."""
        for evaluator in self._evaluators:
            evaluator.close()
        super().close()

    def _draw(self) -> Any:  # noqa: ANN401 - depends on the render mode
        state = self._known
        return self.problem.render_edit(state.current, state.edited, state.edits, state.invalid)


def _replace(state: ImprovementState, **changes: Any) -> ImprovementState:  # noqa: ANN401 - values of fields
    # Several times as fast as dataclasses.replace, which calls __init__ by keyword through inspection.
    return ImprovementState(**{**state.__dict__, **changes})
