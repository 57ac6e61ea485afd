"""Tuning by random search: the same number of queries for every agent, on landscapes that no suite scores.

The landscapes are analytic (`evaluator="synthetic"`), with evaluation seeds that nothing else uses. The task
``cell-digits`` is run beside them and shown, but has no part in the choice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

import nas_agents
from nas_gym.errors import InvalidArgument, NASGymError, UnknownName
from nas_gym.evaluators.core import stream_key
from nas_gym.evaluators.local_processes import LocalProcesses
from nas_gym.evaluators.workers import Slot, deal_slots

from .ledger import Ledger
from .metrics import Scores, Yardstick, score
from .records import RecordError, Row, append_row, finite, read_rows
from .rows import config_json, versions, yardstick
from .suites import digest, run_seed, task_definition
from .summary import Table
from .tasks import TASKS, Task, WholeSpace

BUDGET = 200
LANDSCAPES = tuple(
    Task(f"{env} synthetic {seed}", env, {"evaluator": "synthetic", "evaluation_seed": seed})
    for env in ("NAS-Cell-v0", "NAS-MetaQNN-Table-v0")
    for seed in (9_001, 9_002, 9_003)
)
"""What trials are scored on, `BUDGET` queries each."""

SHOWN = TASKS["cell-digits"]
"""What trials are run on beside them, without being scored."""

_REFUSED_DRAWS = 1_000


@dataclass(frozen=True)
class LogUniform:
    """A number whose logarithm is uniform.

    Attributes:
        low: least value, positive.
        high: largest value.
    """

    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> float:
        """Draw one, to three significant digits."""
        return float(f"{math.exp(rng.uniform(math.log(self.low), math.log(self.high))):.3g}")


@dataclass(frozen=True)
class OneOf:
    """One of some JSON values, equally probable."""

    values: tuple[Any, ...]

    def draw(self, rng: np.random.Generator) -> Any:  # noqa: ANN401 - any JSON value
        """Draw one."""
        return self.values[int(rng.integers(len(self.values)))]


Space = Mapping[str, LogUniform | OneOf]


def _fall(count: int) -> tuple[tuple[float, int], ...]:
    """Return epsilon from 1 to 0.1, so many episodes each."""
    return tuple((tenths / 10, count) for tenths in range(10, 0, -1))


def _drop(count: int) -> tuple[tuple[float, int], ...]:
    """Return epsilon 1 for so many episodes, then 0.2."""
    return ((1.0, count), (0.2, 1))


_SB3: Space = {"learning_rate": LogUniform(1e-4, 1e-2), "num_envs": OneOf((1, 4, 8, 16))}
_PPO: Space = {**_SB3, "ent_coef": LogUniform(1e-4, 1e-1), "n_epochs": OneOf((4, 10, 20))}
_DQN: Space = {
    **_SB3,
    "batch_size": OneOf((32, 64, 128)),
    "gradient_steps": OneOf((1, 4, 8)),
    "exploration_fraction": OneOf((0.25, 0.5, 0.75)),
}

SPACES: Mapping[str, Space] = MappingProxyType(
    {
        "random_search": {"replacement": OneOf((True, False))},
        "evolution": {"population_size": OneOf((5, 10, 20, 50, 100)), "sample_size": OneOf((2, 3, 5, 10, 25))},
        "local_search": {"improvement": OneOf(("first", "best")), "initial": OneOf((1, 3, 10, 20))},
        "uct": {
            "exploration": LogUniform(0.02, 2.0),
            "rollout": OneOf(("uniform", "mast")),
            "temperature": LogUniform(0.02, 0.5),
            "bisection": OneOf((True, False)),
        },
        "q_learning": {
            "learning_rate": LogUniform(0.01, 1.0),
            "replay_draws": OneOf((1, 10, 100)),
            "history": OneOf((1, 2, 3, None)),
            "initial_value": OneOf((0.0, 0.5, 1.0)),
            "epsilon_schedule": OneOf((*map(_fall, (2, 5, 10, 20)), *map(_drop, (10, 20, 50, 100)))),
            "redraws": OneOf((0, 100)),
        },
        "reinforce": {
            "learning_rate": LogUniform(1e-3, 1e-1),
            "entropy_weight": LogUniform(1e-3, 0.3),
            "batch_size": OneOf((1, 4, 8, 16)),
            "baseline_decay": OneOf((0.8, 0.9, 0.95)),
        },
        "sb3:ppo": _PPO,
        "sb3:a2c": {**_SB3, "ent_coef": LogUniform(1e-4, 1e-1)},
        "sb3:maskable_ppo": _PPO,
        "sb3:dqn": _DQN,
        "sb3:masked_dqn": _DQN,
    }
)
"""What may be tuned, by name of the agent. An agent of somebody's own declares it as its attribute `tuning_space`."""


def space_of(agent: str) -> Space:
    """Return what may be tuned of an agent.

    Raises:
        UnknownName: no such agent.
        InvalidArgument: it declares nothing.
    """
    agent_class = nas_agents.AGENTS[agent]
    space = SPACES.get(agent) or getattr(agent_class, "tuning_space", None)
    if not space:
        raise InvalidArgument(
            f"nothing is declared to be tuned of {agent!r}. Give its class an attribute tuning_space, a mapping from "
            f"settings to nas_benchmarks.tuning.LogUniform or OneOf; declared here: {', '.join(SPACES)}."
        )
    return space


# --- a trial ---------------------------------------------------------------------------------------


@cache
def _landscape(task: Task) -> Yardstick:
    """Return what a landscape is measured with; it answers everything, so all of its space is asked."""
    return WholeSpace(task.make_envs(1)).yardstick


def judged(agent: str, settings: Mapping[str, Any], task: Task, seed: int, measured: Yardstick) -> Scores:
    """Run an agent with some settings on a task and judge it after `BUDGET` queries."""
    agent_class = nas_agents.AGENTS[agent]
    config = nas_agents.make_config(agent_class, **settings)
    number = run_seed(seed, task.name)
    envs = task.make_envs(min(nas_agents.episodes_at_once(config), BUDGET))
    ledger = Ledger()
    result = nas_agents.run(agent_class(envs, number, config), envs, BUDGET, number, [ledger])
    return score(ledger.trace(envs, exhausted=result.reason == "exhausted"), measured, BUDGET)


@dataclass(frozen=True)
class Trial:
    """One configuration to be tried.

    Attributes:
        study: hash of the study.
        agent: its name.
        number: of the trial; 0 is the default configuration.
        seed: of the study, and of its runs.
        settings: what is not left at its default.
    """

    study: str
    agent: str
    number: int
    seed: int
    settings: Mapping[str, Any]


def perform(trial: Trial) -> Row:
    """Run a trial and return its line of the log."""
    found = {task.name: judged(trial.agent, trial.settings, task, trial.seed, _landscape(task)) for task in LANDSCAPES}
    shown = judged(trial.agent, trial.settings, SHOWN, trial.seed, yardstick(SHOWN))
    config = nas_agents.make_config(nas_agents.AGENTS[trial.agent], **trial.settings)
    row = {
        "study": trial.study,
        "agent": trial.agent,
        "trial": trial.number,
        "seed": trial.seed,
        "settings": dict(trial.settings),
        "config": config_json(config),
        "score": float(np.mean([scores.log_regret_area for scores in found.values()])),
        "log_regret_area": {name: scores.log_regret_area for name, scores in found.items()},
        "normalised": {name: scores.normalised[BUDGET] for name, scores in found.items()},
        "queries": BUDGET * len(LANDSCAPES),
        "shown": {SHOWN.name: {"normalised": shown.normalised[BUDGET], "log_regret_area": shown.log_regret_area}},
        "versions": versions(),
    }
    return finite(row)


def _worker(_slot: Slot) -> Callable[[Trial], Row]:
    """Return what every worker process does."""
    return perform


# --- a study ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Study:
    """A random search over the settings of an agent.

    Attributes:
        agent: name in `nas_agents.AGENTS`, or ``module:Class``.
        trials: configurations to try.
        seed: of the draws and the runs.
        hash: of everything that two logs must share to be one.
    """

    agent: str
    trials: int
    seed: int
    hash: str

    @classmethod
    def of(cls, agent: str, trials: int, seed: int) -> Study:
        """Return the study of an agent.

        Raises:
            InvalidArgument: no trial, a negative seed, or an agent without a declared space.
            UnknownName: no such agent.
        """
        if trials < 1 or seed < 0:
            raise InvalidArgument(f"--trials must be at least 1 and --seed at least 0, got {trials} and {seed}.")
        space = {name: repr(values) for name, values in space_of(agent).items()}
        tasks = [task_definition(task) for task in LANDSCAPES]
        return cls(agent, trials, seed, digest([agent, space, tasks, BUDGET, seed]))

    def settings(self, trial: int) -> dict[str, Any]:
        """Return the settings of a trial: the defaults first, then draws that the agent accepts.

        Raises:
            InvalidArgument: the agent accepts none.
        """
        if trial == 0:
            return {}
        agent_class, space = nas_agents.AGENTS[self.agent], space_of(self.agent)
        rng = np.random.default_rng(stream_key(self.seed, self.agent, trial))
        drawn: dict[str, Any] = {}
        for _ in range(_REFUSED_DRAWS):
            drawn = {name: values.draw(rng) for name, values in space.items()}
            try:
                nas_agents.make_config(agent_class, None, **drawn)
            except UnknownName:
                raise
            except InvalidArgument:
                continue
            return drawn
        raise InvalidArgument(f"{self.agent} refuses all settings of its declared space, the last were {drawn}.")

    def recorded(self, log: Path) -> list[Row]:
        """Return the trials of a log, in order.

        Raises:
            InvalidArgument: it is the log of another study.
            RecordError: it is damaged.
        """
        rows = read_rows(log)
        for row in rows:
            if "trial" not in row:
                raise RecordError(f"{log}: not the log of a tuning.")
            if row["study"] != self.hash:
                raise InvalidArgument(
                    f"{log} is the log of another study (agent {row['agent']}, seed {row['seed']}, hash "
                    f"{row['study']}; now {self.hash}): its agent, seed, landscapes or declared settings differ. "
                    "Choose another --out."
                )
        return sorted(rows, key=lambda row: row["trial"])

    def run(self, log: Path, workers: int) -> Iterator[Row]:
        """Do the trials that a log lacks, in worker processes, and append each as it ends.

        Raises:
            NASGymError: a trial failed; those before are safe, and the same command goes on.
        """
        done = {row["trial"] for row in self.recorded(log)}
        due = [number for number in range(self.trials) if number not in done]
        if not due:
            return
        log.parent.mkdir(parents=True, exist_ok=True)
        with LocalProcesses(_worker, deal_slots(min(workers, len(due)))) as pool:
            for number in due:
                pool.submit(Trial(self.hash, self.agent, number, self.seed, self.settings(number)))
            while pool.in_flight:
                for completion in pool.collect():
                    if completion.failure is not None:
                        raise NASGymError(f"a trial of {self.agent} failed: {completion.failure.message}")
                    row: Any = completion.answer
                    append_row(log, row)
                    yield row

    def best(self, log: Path) -> Row:
        """Return the trial with the lowest score; the first of equal ones."""
        return min(self.recorded(log), key=lambda row: row["score"])


def as_argument(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Return a setting as a shell reads it after ``--agent-arg name=``."""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return text if text.replace(".", "").replace("-", "").replace("_", "").isalnum() else f"'{text}'"


def table(rows: Sequence[Row], most: int = 10) -> Table:
    """Return the best trials as a table of text."""
    ordered = sorted(rows, key=lambda row: row["score"])[:most]
    lines = tuple(
        (
            str(row["trial"]),
            f"{row['score']:.4f}",
            f"{np.mean(list(row['normalised'].values())):.4f}",
            f"{row['shown'][SHOWN.name]['normalised']:.4f}",
            ", ".join(f"{name}={as_argument(value)}" for name, value in row["settings"].items()) or "defaults",
        )
        for row in ordered
    )
    columns = ("trial", "mean log10 regret", "normalised", f"{SHOWN.name} (shown)", "settings")
    notes = (
        f"{len(rows)} trials of {BUDGET * len(LANDSCAPES):,} queries on {len(LANDSCAPES)} synthetic landscapes; lower "
        f"log10 regret is better, averaged over all queries. {SHOWN.name} is no part of the choice.",
    )
    return Table("Best trials", columns, lines, notes)
