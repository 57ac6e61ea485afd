"""The row of a finished run: what ran, how it is judged, what it cost, and where it came from."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import nas_gym
from nas_gym.envs.core.counter import Usage
from nas_gym.errors import InvalidArgument

from .ledger import Ledger, changes_of_incumbent, makespan
from .metrics import Yardstick, score
from .records import Row, finite
from .suites import FORMAT, Protocol, digest, run_seed, task_definition
from .tasks import Task, WholeSpace

_LIBRARIES = ("numpy", "gymnasium", "torch", "stable-baselines3", "sb3-contrib")


@dataclass(frozen=True)
class Origin:
    """Who ran what, for one row.

    Attributes:
        suite: name of the suite, None for a loop of somebody's own.
        suite_hash: of its definition, likewise.
        method: name of the method.
        agent: its agent, None for a loop of somebody's own.
        settings: what was asked for.
        config: all settings, resolved.
        seed: of the run, which is paired with those of other methods.
        command: of the process that asked for it.
        code_hash: of the file that defines the agent, None for a loop of somebody's own.
        tuning: where the settings come from, None where nobody tuned them.
    """

    suite: str | None
    suite_hash: str | None
    method: str
    agent: str | None
    settings: Mapping[str, Any]
    config: Mapping[str, Any]
    seed: int
    command: Sequence[str]
    code_hash: str | None = None
    tuning: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        reason: "budget", "exhausted" (nothing left to try), "stopped" (the loop gave up early), "stalled".
        usage: the counter then.
        updates: of the policy, None where the algorithm counts none.
        final_policy: what its policy is worth then, None where it has none; see `nas_benchmarks.run.final_policy`.
        training: ``{"table", "queries"}`` before the run, None where there was none.
    """

    reason: str
    usage: Usage
    updates: int | None = None
    final_policy: Mapping[str, float] | None = None
    training: Mapping[str, Any] | None = None


@cache
def yardstick(task: Task) -> Yardstick:
    """Return what held-out values of a task are measured with.

    Raises:
        InvalidArgument: the space is not wholly known.
    """
    return whole_space(task).yardstick


@cache
def whole_space(task: Task) -> WholeSpace:
    """Return everything that is known of a task.

    Raises:
        InvalidArgument: the space is not wholly known.
    """
    space = WholeSpace.of(task.make_envs(1))
    if space is None:
        raise InvalidArgument(
            f"the space of the task {task.name!r} is not wholly known, so regrets are unknown; use a complete table."
        )
    return space


def table_sha256(envs: Any) -> str | None:  # noqa: ANN401 - an environment of nas-gym
    """Return the hash of the table that answers, None where there is none."""
    table = getattr(envs.evaluator, "table", None)
    return None if table is None else table.sha256


def row_of(
    origin: Origin,
    task: Task,
    protocol: Protocol,
    ledger: Ledger,
    envs: Any,  # noqa: ANN401 - an environment of nas-gym
    ending: Ending,
    measured: Yardstick | None = None,
) -> Row:
    """Return the row of a finished run.

    Args:
        origin: who ran what.
        task: what was searched.
        protocol: by which it is judged.
        ledger: what was queried.
        envs: the environments, whose evaluator reports.
        ending: how it ended.
        measured: what held-out values are measured with; by default looked up in the table.

    Raises:
        InvalidArgument: nothing was queried, the run ended early for no reason of its own, its repeated queries count
            otherwise than the protocol says, or the space is not wholly known.
    """
    repeats = envs.counter.repeat_query
    if repeats != protocol.repeat_query:
        raise InvalidArgument(
            f"the protocol has repeat_query={protocol.repeat_query!r}, but the task {task.name!r} {repeats!r}."
        )
    # What ended early by its own decision is judged by its last incumbent to the end of the budget.
    trace = ledger.trace(envs, exhausted=ending.reason in ("exhausted", "stopped"))
    measured = yardstick(task) if measured is None else measured
    scores = score(trace, measured, protocol.budget, protocol.checkpoints)
    costs = ledger.costs(trace)
    incumbents = changes_of_incumbent(trace)
    best = ledger.encoding(incumbents[-1][0] - 1) if incumbents else None
    usage = ending.usage
    row: dict[str, Any] = {
        "format": FORMAT,
        "suite": origin.suite,
        "suite_hash": origin.suite_hash,
        "protocol_hash": protocol.hash,
        "method": origin.method,
        "agent": origin.agent,
        "settings": dict(origin.settings),
        "config": dict(origin.config),
        "config_hash": digest([origin.agent, dict(origin.config)]),
        "code_hash": origin.code_hash,
        "tuning": None if origin.tuning is None else dict(origin.tuning),
        "task": task.name,
        "task_hash": digest(task_definition(task)),
        "env": task.env,
        "table": task.arguments.get("table"),
        "table_sha256": table_sha256(envs),
        "seed": origin.seed,
        "run_seed": run_seed(origin.seed, task.name),
        "budget": protocol.budget,
        "repeat_query": repeats,
        "ended": ending.reason,
        "regret": {str(queries): value for queries, value in scores.regret.items()},
        "normalised": {str(queries): value for queries, value in scores.normalised.items()},
        "log_regret_area": scores.log_regret_area,
        "queries_to": dict(scores.queries_to),
        "incumbents": incumbents,
        "best": None if best is None else {"encoding": list(best), "architecture": envs.space.to_string(best)},
        "yardstick": {"best": measured.best, "mean": measured.mean, "worst": measured.worst, "floor": measured.floor},
        "queries": usage.queries,
        "failed": int(sum(trace.signal != trace.signal)),
        "unique_architectures": usage.unique_architectures,
        "entropy": scores.diversity.entropy,
        "environment_steps": usage.environment_steps,
        "simulated_seconds": usage.simulated_seconds,
        "simulated_workers": protocol.simulated_workers,
        "simulated_seconds_parallel": makespan(costs.tolist(), protocol.simulated_workers),
        "wall_seconds": round(usage.real_seconds, 4),
        "updates": ending.updates,
        "final_policy": None if ending.final_policy is None else dict(ending.final_policy),
        "training": None if ending.training is None else dict(ending.training),
        "versions": versions(),
        "command": list(origin.command),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return finite(row)


def config_json(config: Any) -> dict[str, Any]:  # noqa: ANN401 - any agent's configuration
    """Return all settings of an agent as JSON values."""
    return _jsonable(asdict(config))


def _jsonable(value: Any) -> Any:  # noqa: ANN401 - any JSON value, tuples included
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


@cache
def versions() -> dict[str, str]:
    """Return the versions of everything that a result may depend on."""
    found = {"nas-gym": nas_gym.__version__, "python": platform.python_version(), "platform": sys.platform}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
