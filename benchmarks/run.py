"""Running a suite: methods x tasks x seeds in worker processes, one finished run a row, resumed where it stopped."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

import nas_agents
from nas_gym.errors import InvalidArgument
from nas_gym.evaluators.local_processes import LocalProcesses
from nas_gym.evaluators.workers import Slot, deal_slots

from . import transfer
from .ledger import Ledger
from .policy import sample_policy
from .recorded import SuiteRecord
from .records import Row
from .rows import Ending, Origin, config_json, digest, row_of, table_sha256, whole_space
from .suites import Method, Suite, changes, listed, missing_tables, run_seed
from .tasks import Task


@dataclass(frozen=True)
class Job:
    """What one worker does at a time.

    Attributes:
        suite: whose protocol holds.
        suite_hash: of its definition.
        method: who searches.
        tasks: what is searched, one row each; several only where they share a training.
        seed: of the runs.
        command: recorded in the rows.
    """

    suite: Suite
    method: Method
    tasks: tuple[Task, ...]
    seed: int
    command: tuple[str, ...] = field(default=())

    def origin(self, config: Mapping[str, Any]) -> Origin:
        """Return who runs what."""
        method = self.method
        searches = method.kind == "agent"
        return Origin(
            self.suite.name,
            self.suite.hash,
            method.name,
            method.agent if searches else None,
            method.settings,
            config,
            self.seed,
            self.command,
            code_hash(method.agent) if searches else None,
            method.tuning,
        )


@dataclass(frozen=True)
class Done:
    """A job that has ended.

    Attributes:
        job: the job.
        rows: of its runs, which are recorded already; none after a failure.
        message: why it failed, empty otherwise.
        traceback: of the failure.
    """

    job: Job
    rows: tuple[Row, ...] = ()
    message: str = ""
    traceback: str = ""


# --- one job ---------------------------------------------------------------------------------------


def search(job: Job) -> list[Row]:
    """Run one of our agents, or somebody's own, on each task."""
    return [_search(job, task) for task in job.tasks]


def _search(job: Job, task: Task) -> Row:
    protocol = job.suite.protocol
    agent_class, config = _resolved(job.method)
    number = run_seed(job.seed, task.name)
    envs = task.make_envs(min(nas_agents.episodes_at_once(config), protocol.budget))
    agent = agent_class(envs, number, config)
    ledger = Ledger()
    result = nas_agents.run(agent, envs, protocol.budget, number, [ledger])
    final = final_policy(agent, task, number, protocol.policy_samples)
    ending = Ending(result.reason, result.usage, result.updates, final)
    return row_of(job.origin(config_json(config)), task, protocol, ledger, envs, ending)


def _resolved(method: Method) -> tuple[type[nas_agents.Agent], Any]:
    agent_class = nas_agents.AGENTS[method.agent]
    if not (isinstance(agent_class, type) and issubclass(agent_class, nas_agents.Agent)):
        raise InvalidArgument(f"{method.agent} is no subclass of nas_agents.Agent, got {agent_class!r}.")
    return agent_class, nas_agents.make_config(agent_class, **method.settings)


def code_hash(agent: str) -> str | None:
    """Return the hash of the file that defines an agent, None where there is none, as in a notebook."""
    try:
        return digest(Path(inspect.getfile(nas_agents.AGENTS[agent])).read_text(encoding="utf-8"))
    except (OSError, TypeError):
        return None


class _Acting(nas_agents.Agent):
    """Begins every episode and acts as an agent does that drives itself while it learns."""

    def __init__(self, agent: nas_agents.Agent, envs: Any) -> None:  # noqa: ANN401 - envs of nas-gym
        super().__init__(envs, 0, agent.config)
        self.agent = agent

    def begin(self, num_envs: int) -> int:
        """Begin as many episodes as there may be."""
        return num_envs

    def act(
        self, observations: npt.NDArray[Any], masks: npt.NDArray[np.bool_], alive: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int64]:
        """Let the agent act."""
        return self.agent.act(observations, masks, alive)

    def learn(self, batch: nas_agents.EpisodeBatch) -> dict[str, float]:
        """Learn nothing."""
        return {}


def final_policy(agent: nas_agents.Agent, task: Task, seed: int, samples: int) -> dict[str, float] | None:
    """Return what the policy at the end of a run is worth beside uniform decisions: does it learn?

    Args:
        agent: after its run.
        task: what it searched.
        seed: of the environments.
        samples: episodes.

    Returns:
        ``reward``, the mean of its samples; ``uniform``, the exact mean of uniform decisions; ``gain``, the difference.
        None where the agent has no policy (see `nas_agents.Agent.policy`).
    """
    policy = agent.policy()
    if policy is None:
        return None
    envs = task.make_envs(nas_agents.episodes_at_once(policy.config))
    reward = sample_policy(_Acting(policy, envs) if policy.drives_itself else policy, envs, samples)
    uniform = whole_space(task).uniform_reward
    return {"reward": reward, "uniform": uniform, "gain": reward - uniform}


def trained_policy(job: Job) -> list[Row]:
    """Train a policy that edits cells, then deploy it on each task; training queries are recorded apart."""
    training = job.suite.training or {}
    policy = transfer.train(training["table"], run_seed(job.seed, "training"), training["queries"])
    spent = {"table": training["table"], "queries": training["queries"]}
    return [_deployed(job, task, policy, spent) for task in job.tasks]


def random_edits(job: Job) -> list[Row]:
    """Make random edits, the policy that learns nothing, on each task."""
    return [_deployed(job, task, transfer.random_edits(run_seed(job.seed, task.name)), None) for task in job.tasks]


def _deployed(job: Job, task: Task, policy: transfer.Policy, training: Mapping[str, Any] | None) -> Row:
    protocol = job.suite.protocol
    ledger = Ledger()
    # Beyond the seeds of all training episodes.
    seed = transfer.FIRST_DEPLOYMENT_SEED + run_seed(job.seed, task.name)
    env = transfer.deployed(policy, seed, protocol.budget, ledger.on_answered, **dict(task.arguments))
    settings = {} if training is None else dict((job.suite.training or {})["settings"])
    ending = Ending("budget", env.counter.usage(), training=training)
    return row_of(job.origin(settings), task, protocol, ledger, env, ending)


KINDS: Mapping[str, Callable[[Job], list[Row]]] = MappingProxyType(
    {"agent": search, "policy": trained_policy, "edits": random_edits}
)
"""How methods are run, by `Method.kind`."""


def perform(job: Job) -> list[Row]:
    """Do a job."""
    return KINDS[job.method.kind](job)


def _worker(_slot: Slot) -> Callable[[Job], list[Row]]:
    """Return what every worker process does."""
    return perform


# --- all of them -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
        suite: whose protocol holds.
        methods: who searches.
        tasks: what is searched.
        seeds: runs of each on each.
        command: recorded in the rows.
    """

    suite: Suite
    methods: tuple[Method, ...]
    tasks: tuple[Task, ...]
    seeds: int
    command: tuple[str, ...] = ()

    def check(self, record: SuiteRecord, rows: Sequence[Row]) -> None:
        """Check everything that can be checked before hours of computing.

        Raises:
            InvalidArgument: no seed; a table is missing, or differs from that of the record; a method's settings do.
            UnknownName: no such agent or setting.
            MissingExtra: an agent needs an extra that is not installed.
        """
        if self.seeds < 1:
            raise InvalidArgument(f"--seeds must be at least 1, got {self.seeds}.")
        if missing := missing_tables(self.tasks):
            raise InvalidArgument(
                f"the suite {self.suite.name!r} lacks tables:\n{listed(missing)}\n--allow-missing leaves them out."
            )
        now = {task.name: table_sha256(task.make_envs(1)) for task in self.tasks}
        for method in self.methods:
            config = config_json(_resolved(method)[1]) if method.kind == "agent" else None
            for row in (row for row in rows if row["method"] == method.name):
                if config is not None and row["config_hash"] != digest([method.agent, config]):
                    raise InvalidArgument(
                        f"{record.path} holds runs of {method.name!r} with other settings, so nothing is appended: "
                        f"{'; '.join(changes(row['config'], config))}. Choose another --out."
                    )
                if method.agent not in nas_agents.AGENTS and row["code_hash"] != code_hash(method.agent):
                    raise InvalidArgument(
                        f"{record.path} holds runs of {method.name!r} as its file was before you changed it; runs of "
                        "both are no sample of either. Choose another --out."
                    )
                if row["task"] in now and row["table_sha256"] != now[row["task"]]:
                    raise InvalidArgument(
                        f"{record.path} holds runs on another table for {row['task']!r}: SHA-256 "
                        f"{row['table_sha256']} recorded, {now[row['task']]} now. Choose another --out."
                    )

    def jobs(self, rows: Sequence[Row]) -> list[Job]:
        """Return what is not recorded yet, seed by seed, so that an interrupted record compares all methods."""
        done = {(row["method"], row["task"], row["seed"]) for row in rows}
        found = []
        for seed in range(self.seeds):
            for method in self.methods:
                due = tuple(task for task in self.tasks if (method.name, task.name, seed) not in done)
                shared = (due,) if method.kind == "policy" and due else tuple((task,) for task in due)
                found += [Job(self.suite, method, tasks, seed, self.command) for tasks in shared]
        return found


def run_jobs(jobs: Sequence[Job], record: SuiteRecord, workers: int) -> Iterator[Done]:
    """Do jobs in worker processes and record what they return, as they end.

    After a failure the other runs of the same method on the same tasks are left out: it would fail again.

    Args:
        jobs: what to do, in order.
        record: where finished runs go.
        workers: processes, one thread each.

    Raises:
        WriteFailed: the disk refuses.
        WorkerError: processes cannot be started.
    """
    if not jobs:
        return
    waiting, running, failed = list(reversed(jobs)), dict[int, Job](), set[tuple[str, tuple[str, ...]]]()
    with LocalProcesses(_worker, deal_slots(min(workers, len(jobs)))) as pool:
        while waiting or running:
            while waiting and len(running) < pool.count:
                job = waiting.pop()
                if _kind_of_run(job) not in failed:
                    running[pool.submit(job)] = job
            for completion in pool.collect():
                job = running.pop(completion.ticket)
                if completion.failure is None:
                    for row in completion.answer or ():
                        record.append(row)
                    yield Done(job, tuple(completion.answer or ()))
                else:
                    failed.add(_kind_of_run(job))
                    failure = completion.failure
                    message = f"{failure.status.label}: {failure.message}"
                    record.append_failure(_failure_row(job, message, failure.traceback))
                    yield Done(job, message=message, traceback=failure.traceback)


def _kind_of_run(job: Job) -> tuple[str, tuple[str, ...]]:
    return job.method.name, tuple(task.name for task in job.tasks)


def _failure_row(job: Job, message: str, traceback: str) -> Row:
    return {
        "method": job.method.name,
        "tasks": [task.name for task in job.tasks],
        "seed": job.seed,
        "suite_hash": job.suite.hash,
        "message": message,
        "traceback": traceback,
    }


@cache
def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))
