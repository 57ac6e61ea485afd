"""What is searched: environments by name, and what is exactly known of their whole spaces.

Dimension letters: A architectures of a space.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

import nas_gym  # noqa: F401 - registers the environments
from nas_gym.errors import InvalidArgument, UnknownName
from nas_gym.evaluators.core import Queries
from nas_gym.search_spaces import Batch, Encoding

from .metrics import Yardstick

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Task:
    """One environment to be searched.

    Attributes:
        name: by which records and suites refer to it.
        env: environment id.
        arguments: of the environment, JSON scalars by name.
    """

    name: str
    env: str
    arguments: Mapping[str, Scalar] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Check the values and keep a copy of the arguments that nobody can change.

        Raises:
            InvalidArgument: no name, or an argument that is no JSON scalar.
        """
        if not self.name:
            raise InvalidArgument(f"the task on {self.env} needs a name.")
        for argument, value in self.arguments.items():
            if not isinstance(value, (str, int, float, bool, type(None))):
                raise InvalidArgument(
                    f"argument {argument} of task {self.name!r} must be text, a number, true, false or null, "
                    f"got {value!r}."
                )
        object.__setattr__(self, "arguments", MappingProxyType(dict(self.arguments)))

    def __reduce__(self) -> tuple[object, ...]:
        """Cross process boundaries, which a read-only view of a dictionary cannot."""
        return type(self), (self.name, self.env, dict(self.arguments))

    def with_arguments(self, **arguments: Scalar) -> Task:
        """Return the same task with some arguments added or changed, `evaluation_seed` for example."""
        return replace(self, arguments={**self.arguments, **arguments})

    def make_envs(self, num_envs: int) -> Any:  # noqa: ANN401 - a vector environment of nas-gym with all its parts
        """Return the environments, to be run by `nas_agents.run`."""
        arguments: dict[str, Any] = dict(self.arguments)
        return gymnasium.make_vec(self.env, num_envs=num_envs, autoreset_mode="Disabled", **arguments).unwrapped


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        task.name: task
        for task in (
            Task("cell-digits", "NAS-Cell-v0", {"table": "digits"}),
            Task("metaqnn-digits", "NAS-MetaQNN-Table-v0", {"table": "metaqnn-digits"}),
        )
    }
)
"""Tasks by name."""


def named(name: str) -> Task:
    """Return a task by its name.

    Raises:
        UnknownName: there is none.
    """
    if name not in TASKS:
        raise UnknownName("task", name, TASKS)
    return TASKS[name]


class WholeSpace:
    """All architectures of a small space, in the order of `enumerate`, whose evaluations are known.

    Where noise is drawn once an architecture (``repeat_query="cache+charge"``), it is that of the evaluation seed.
    Everything is looked up when it is first asked for.
    """

    def __init__(self, envs: Any) -> None:  # noqa: ANN401 - a vector environment of nas-gym
        """Look into the space of some environments; `of` checks whether it is known."""
        self._envs = envs
        self._encodings: list[Encoding] = list(envs.space.enumerate())
        self._batch = Batch.of(envs.space, self._encodings)

    @classmethod
    def of(cls, envs: Any) -> WholeSpace | None:  # noqa: ANN401 - a vector environment of nas-gym
        """Return the space; None where it is not wholly known, too large, or evaluated anew every time."""
        evaluator = envs.evaluator
        known = evaluator.reference(evaluator.reported_metric) is not None and evaluator.deterministic
        return cls(envs) if known and envs.space.dense else None

    @cached_property
    def rewards(self) -> npt.NDArray[np.float64]:
        """What a search sees, shape [A]."""
        return self._envs.objective(self._envs.evaluator.evaluate(Queries(self._batch, None)))

    @cached_property
    def held_out(self) -> npt.NDArray[np.float64]:
        """What is reported, higher = better, shape [A]."""
        evaluator = self._envs.evaluator
        metric = evaluator.reported_metric
        sign = 1.0 if evaluator.metrics[metric].direction == "maximize" else -1.0
        return sign * np.array([evaluator.report(encoding)[metric] for encoding in self._encodings])

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """How probable a uniform choice at every decision is to draw each, shape [A]."""
        return self._envs.space.draw_probabilities(self._batch)

    @cached_property
    def codes(self) -> npt.NDArray[np.int64]:
        """Codes of their canonical architectures, shape [A]."""
        return self._envs.space.canonical_codes(self._batch)

    @property
    def uniform_reward(self) -> float:
        """Exact mean reward of uniform decisions."""
        return float(self.rewards @ self.probabilities)

    @cached_property
    def yardstick(self) -> Yardstick:
        """What held-out values are measured with."""
        return Yardstick.of(self.held_out, self.codes)


def uniform_reward(task: Task) -> float:
    """Return the exact mean reward of uniform decisions.

    Raises:
        InvalidArgument: the space is not wholly known.
    """
    space = WholeSpace.of(task.make_envs(1))
    if space is None:
        raise InvalidArgument(f"the space of {task.name!r} is not wholly known, so its mean reward is not, either.")
    return space.uniform_reward
