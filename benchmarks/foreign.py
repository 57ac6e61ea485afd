"""A counted, scored task for a training loop of one's own.

::

    with nas_benchmarks.task("cell-digits", seed=3, method="my PPO", out="runs/mine", budget=200) as t:
        model = PPO("MlpPolicy", t.sb3_env(8), n_steps=24, batch_size=48, seed=t.seed)
        model.learn(1_000_000, callback=t.sb3_callback())

How a block ends:

* The query after the last one of the budget raises `BudgetExhausted` inside the loop. Where the loop lets it out, it
  ends the block and goes no further: that is the clean stop for loops that have none, and the code behind the block
  runs. `sb3_env` with `sb3_callback` ends ``learn`` of Stable-Baselines3 at the budget instead, so that the code in
  the block goes on.
* Leaving the block writes the row of the run. A loop that stops before its budget is judged by its last incumbent up
  to the end of the budget; the row says ``"ended": "stopped"``.
* Any other exception leaves no row, and goes on: only finished runs are recorded, so the seed is still `missing_seeds`.

What is held out stays out of the loop's sight: ``report``, ``reference`` and ``standing`` of the evaluator that the
environments carry refuse. The harness asks the real one after the block.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import gymnasium

from nas_gym.envs.core.counter import Counter
from nas_gym.errors import BudgetExhausted, InvalidArgument, NASGymError, RunExists, UnknownName
from nas_gym.evaluators.core import Evaluation, Evaluator
from nas_gym.evaluators.decorators import Decorator
from nas_gym.search_spaces.core import Encoding

from .ledger import Ledger
from .recorded import SuiteRecord
from .records import Row
from .rows import Ending, Origin, row_of, yardstick
from .suites import ALL_TASKS, Protocol, listed, missing_tables, run_seed
from .tasks import Task


class HeldOut(NASGymError, RuntimeError):
    """Something was asked that a search may not know before it has ended."""


class Sealed(Decorator):
    """Answers queries as the evaluator inside and keeps what is held out."""

    def evaluate_one(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> Evaluation:
        """Ask the evaluator inside."""
        return self.inner.evaluate_one(encoding, fidelity, parent)

    def report(self, encoding: Encoding) -> NoReturn:
        """Refuse."""
        raise _refusal("report")

    def reference(self, metric: str) -> NoReturn:
        """Refuse."""
        raise _refusal("reference")

    def standing(self, encoding: Encoding) -> NoReturn:
        """Refuse."""
        raise _refusal("standing")


def _refusal(what: str) -> HeldOut:
    return HeldOut(
        f"{what}() tells what is held out, which a benchmarked search may not see; the row that is written at the end "
        "of the block has it."
    )


class BenchmarkTask:
    """A task while a loop of somebody's own searches it; a context manager, see the module.

    Attributes:
        task: what is searched.
        method: by which the row refers to the loop.
        seed: for the loop and its libraries, below 2**31; that of all methods with the same number on this task.
        row: what was recorded, after the block; None before.
    """

    def __init__(
        self,
        task: Task,
        seed: int,
        method: str,
        out: Path,
        budget: int,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Prepare the task; see `nas_benchmarks.task` for arguments and errors."""
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise InvalidArgument(f"seed must be an integer of at least 0, got {seed!r}.")
        if not method:
            raise InvalidArgument("method must name your method, got an empty text.")
        if missing := missing_tables([task]):
            raise InvalidArgument(f"the task cannot be run:\n{listed(missing)}")
        self.task = task
        self.method = method
        self.number = seed
        self.seed = run_seed(seed, task.name)
        self.row: Row | None = None
        self._settings = dict(settings or {})
        self._protocol = Protocol(budget)
        self._record = SuiteRecord(out)
        rows = self._record.rows()
        self._record.check_protocol(self._protocol.hash, rows)
        if any((row["method"], row["task"], row["seed"]) == (method, task.name, seed) for row in rows):
            raise RunExists(
                f"{out} holds the run of {method!r} on {task.name!r} with seed {seed} already, and results are never "
                "overwritten; loop over nas_benchmarks.missing_seeds(...), or choose another out."
            )
        # Kept by the harness alone; what the loop holds are others.
        self._judge = task.make_envs(1)
        self._counter: Counter = self._judge.counter
        self._counter.budget = budget
        self._ledger = Ledger()
        self._env: Any = None
        self._open = False
        yardstick(task)

    def __enter__(self) -> Self:
        """Start counting."""
        self._counter.reset()
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Write the row of a run that has ended; let any other error go on without one."""
        self._open = False
        budget_ended = isinstance(error, BudgetExhausted) and self.remaining == 0
        if error is None or budget_ended:
            self._finish()
        return budget_ended

    @property
    def remaining(self) -> int:
        """Queries left."""
        return self._counter.remaining or 0

    @property
    def env(self) -> Any:  # noqa: ANN401 - a single environment of nas-gym in Gymnasium's wrappers
        """The single environment, the same one every time; see `make_env` for another observation."""
        if self._env is None:
            self._env = self.make_env()
        return self._env

    def make_env(self, observation: str = "prefix", **arguments: Any) -> Any:  # noqa: ANN401 - as `env`
        """Return a single environment; all environments of the task share one budget.

        Args:
            observation: "prefix", "states" or "one_hot".
            **arguments: of ``gymnasium.make`` and the environment, as far as they leave the task as it is:
                ``render_mode``, ``disable_env_checker``.
        """
        env: Any = gymnasium.make(self.task.env, observation=observation, **self._arguments(arguments))
        return self._counted(env)

    def vec_env(
        self,
        num_envs: int = 8,
        observation: str = "prefix",
        autoreset_mode: str = "NextStep",
        **arguments: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401 - a vector environment of nas-gym
        """Return a vector environment, whose sub-environments share the budget with all others of the task.

        Args:
            num_envs: sub-environments.
            observation: as `make_env`.
            autoreset_mode: "NextStep", "SameStep" or "Disabled".
            **arguments: as `make_env`.
        """
        env: Any = gymnasium.make_vec(
            self.task.env,
            num_envs=num_envs,
            vectorization_mode="vector_entry_point",
            observation=observation,
            autoreset_mode=autoreset_mode,
            **self._arguments(arguments),
        )
        return self._counted(env)

    def sb3_env(self, num_envs: int = 8, **arguments: Any) -> Any:  # noqa: ANN401 - a VecEnv, when it is installed
        """Return sub-environments as the `VecEnv` of Stable-Baselines3, to be learnt on with `sb3_callback`.

        Args:
            num_envs: sub-environments.
            **arguments: as `vec_env`.

        Raises:
            MissingExtra: Stable-Baselines3 is not installed.
        """
        from .foreign_sb3 import ClosingVecEnv

        return ClosingVecEnv(self.vec_env(num_envs, **arguments))

    def sb3_callback(self) -> Any:  # noqa: ANN401 - a callback, when Stable-Baselines3 is installed
        """Return a callback that ends ``learn`` of Stable-Baselines3 once the budget is used.

        On `sb3_env` and `env` ``learn`` then always returns. On an `SB3VecEnv` of one's own it ends the block instead
        where more episodes end at once than queries are left.

        Raises:
            MissingExtra: Stable-Baselines3 is not installed.
        """
        from .foreign_sb3 import StopAtBudget

        return StopAtBudget(self._counter)

    def _arguments(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        harmless = ("render_mode", "disable_env_checker")
        for name in asked:
            if name not in harmless:
                raise InvalidArgument(
                    f"the environments of a task take observation, num_envs, autoreset_mode and "
                    f"{', '.join(harmless)}, got {name}; anything else would make it another task."
                )
        return {**self.task.arguments, **asked}

    def _counted(self, env: Any) -> Any:  # noqa: ANN401 - an environment of nas-gym
        """Return an environment that is counted here and tells nothing that is held out."""
        if not self._open:
            raise InvalidArgument("the environments of a task exist inside its `with` block only.")
        inside = env.unwrapped
        sealed: Evaluator = Sealed(inside.evaluator)
        inside.evaluator = inside.problem.evaluator = sealed
        inside.counter = inside.problem.counter = self._counter
        inside.problem.listeners.append(self._ledger.on_answered)
        return env

    def _finish(self) -> None:
        if not len(self._ledger):
            raise InvalidArgument(
                f"nothing was queried on {self.task.name!r}, so there is nothing to record; use the environments of "
                "this task (env, make_env, vec_env)."
            )
        ending = Ending("budget" if self.remaining == 0 else "stopped", self._counter.usage())
        origin = Origin(None, None, self.method, None, self._settings, self._settings, self.number, sys.argv)
        self.row = row_of(origin, self.task, self._protocol, self._ledger, self._judge, ending)
        self._record.append(self.row)


def task(
    name: str | Task,
    *,
    seed: int,
    method: str,
    out: str | Path,
    budget: int = 200,
    settings: Mapping[str, Any] | None = None,
) -> BenchmarkTask:
    """Return a counted, scored task for a training loop of your own, to be used in a ``with`` block.

    Args:
        name: of a task in `nas_benchmarks.suites.ALL_TASKS`, or a task of your own.
        seed: of the run; runs of all methods with the same seed are paired.
        method: name of your method in the record.
        out: directory of the record. It may be that of a suite, whose budget must then be the same.
        budget: queries, 200 as in the suite ``main``.
        settings: of your method, JSON values, which the row records.

    Raises:
        UnknownName: no such task.
        InvalidArgument: the table is missing, the record has another protocol, or a value outside its range.
        RunExists: this run is recorded already.
    """
    if isinstance(name, str):
        if name not in ALL_TASKS:
            raise UnknownName("task", name, ALL_TASKS)
        name = ALL_TASKS[name]
    return BenchmarkTask(name, seed, method, Path(out), budget, settings)


def missing_seeds(name: str, *, method: str, out: str | Path, seeds: Iterable[int]) -> list[int]:
    """Return which runs a record lacks, so that a loop over seeds continues where it stopped.

    Args:
        name: of the task.
        method: name of the method.
        out: directory of the record.
        seeds: that are wanted.
    """
    rows = SuiteRecord(Path(out)).rows()
    done = {row["seed"] for row in rows if (row["method"], row["task"]) == (method, name)}
    return [seed for seed in seeds if seed not in done]
