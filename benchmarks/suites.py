"""Suites: which methods search which tasks, and by what protocol; frozen data with hashes.

A record belongs to a suite as it was defined when the record began. `definition` is what the hash is of; its parts are
what a refusal names. Settings that a method leaves at their defaults are compared by each row's own ``config_hash``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any

from nas_gym.errors import UnknownName
from nas_gym.evaluators.core import stream_key
from nas_gym.tables.format import TABLES

from .metrics import CHECKPOINTS
from .tasks import TASKS, Task
from .transfer import HORIZON, TRAINING, TRAINING_QUERIES
from .tuned import TUNED

FORMAT = 1
"""Of the rows; another one cannot be compared."""

REFERENCES = ("random_search", "local_search", "evolution")
"""Methods that all others are compared with."""

SEEDING = "stream_key(seed, task) mod 2**31"


def run_seed(seed: int, task: str) -> int:
    """Return the seed of agent and environments in one run, below 2**31, which every library takes.

    It does not depend on the method, so that the runs of two methods with one seed are paired; it does on the task, so
    that tasks with the same space do not see the same draws.

    >>> run_seed(0, "cell-digits") == run_seed(0, "metaqnn-digits")
    False
    """
    return stream_key(seed, task) % 2**31


def digest(value: object) -> str:
    """Return 16 hexadecimal digits that depend on a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Protocol:
    """How a run is made and judged.

    Attributes:
        budget: charged queries.
        checkpoints: queries after which it is judged, beside the budget; those beyond it do not count.
        simulated_workers: W, for the simulated seconds that the queries take on as many workers.
        policy_samples: episodes by which a final policy is judged.
        repeat_query: what a repeated query gives and costs.
    """

    budget: int
    checkpoints: tuple[int, ...] = CHECKPOINTS
    simulated_workers: int = 8
    policy_samples: int = 200
    repeat_query: str = "cache+charge"

    def to_json(self) -> dict[str, Any]:
        """Return what `hash` is of."""
        judged = [queries for queries in self.checkpoints if queries < self.budget]
        return {"format": FORMAT, "seeding": SEEDING, **asdict(self), "checkpoints": judged}

    @property
    def hash(self) -> str:
        """Tells protocols apart; runs with different ones cannot be compared."""
        return digest(self.to_json())


@dataclass(frozen=True)
class Method:
    """Something that searches.

    Attributes:
        agent: name in `nas_agents.AGENTS`, or ``module:Class``; the name of the method itself where `kind` is no agent.
        settings: fields of its configuration and ``preset``, JSON values.
        kind: how it is run, a name in `nas_benchmarks.run.KINDS`.
        label: what stands for the settings in the name, where they are long.
        tuning: where the settings come from, `Tuned.to_json`; None where nobody tuned them.
    """

    agent: str
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    kind: str = "agent"
    label: str = ""
    tuning: Mapping[str, Any] | None = field(default=None, hash=False, compare=False)

    @property
    def name(self) -> str:
        """By which records and tables refer to it: the agent and its settings, or the label that stands for them."""
        if self.label:
            return f"{self.agent} {self.label}"
        return self.agent + "".join(f" {key}={_plain(value)}" for key, value in self.settings.items())

    def to_json(self) -> dict[str, Any]:
        """Return what tells methods apart."""
        return {"agent": self.agent, "settings": dict(self.settings), "kind": self.kind}


@dataclass(frozen=True)
class Suite:
    """Methods, tasks and the protocol.

    Attributes:
        name: name in `SUITES`.
        summary: one line for listings.
        tasks: what is searched.
        methods: who searches.
        protocol: how.
        seeds: runs of every method on every task by default.
        training: what policies are trained by before they are deployed, where there are any.
    """

    name: str
    summary: str
    tasks: tuple[Task, ...]
    methods: tuple[Method, ...]
    protocol: Protocol
    seeds: int
    training: Mapping[str, Any] | None = None

    def with_budget(self, budget: int) -> Suite:
        """Return the suite with another budget, whose runs cannot be compared with those of this one."""
        return replace(self, protocol=replace(self.protocol, budget=budget))

    def definition(self) -> dict[str, Any]:
        """Return what the hash is of, as JSON. The number of seeds is no part of it: a record may grow."""
        return {
            "name": self.name,
            "tasks": {task.name: task_definition(task) for task in self.tasks},
            "methods": {method.name: method.to_json() for method in self.methods},
            "protocol": self.protocol.to_json(),
            "training": None if self.training is None else dict(self.training),
        }

    @property
    def hash(self) -> str:
        """Tells definitions apart."""
        return digest(self.definition())

    def chosen_tasks(self, names: Sequence[str]) -> tuple[Task, ...]:
        """Return the tasks of these names, all of them where none is named.

        Raises:
            UnknownName: the suite has no such task.
        """
        known = {task.name: task for task in self.tasks}
        for name in names:
            if name not in known:
                raise UnknownName(f"task of the suite {self.name!r}", name, known)
        return tuple(known[name] for name in dict.fromkeys(names)) or self.tasks

    def chosen_methods(self, names: Sequence[str]) -> tuple[Method, ...]:
        """Return the methods of these names or agents, all of them where none is named; other names are newcomers."""
        found: list[Method] = []
        for name in names:
            mine = [method for method in self.methods if name == method.name]
            found += mine or [method for method in self.methods if name == method.agent] or [Method(name)]
        return tuple({method.name: method for method in found}.values()) or self.methods


def task_definition(task: Task) -> dict[str, Any]:
    """Return what tells tasks apart, as JSON."""
    return {"env": task.env, "arguments": dict(task.arguments)}


def changes(recorded: Any, now: Any, path: str = "") -> Iterable[str]:  # noqa: ANN401 - any JSON value
    """Iterate over what differs between two JSON values, one line each.

    >>> list(changes({"budget": 200}, {"budget": 100}))
    ['budget: 200 recorded, 100 now']
    """
    if isinstance(recorded, Mapping) and isinstance(now, Mapping):
        for key in (*recorded, *(key for key in now if key not in recorded)):
            below = f"{path}.{key}" if path else str(key)
            if key not in now or key not in recorded:
                yield f"{below}: {'only recorded' if key in recorded else 'only now'}"
            else:
                yield from changes(recorded[key], now[key], below)
    elif recorded != now:
        yield f"{path}: {json.dumps(recorded)} recorded, {json.dumps(now)} now"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# --- tables ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TableSource:
    """Where a table that is not packaged comes from.

    Attributes:
        file: the official file or folder.
        command: what makes the table of it.
    """

    file: str
    command: str


_NATS = TableSource(
    "the folder NATS-tss-v1_0-3ffb9-simple of NATS-Bench, or a .tar of it",
    "nas-gym tables import NATS-tss-v1_0-3ffb9-simple --name nats",
)

TABLE_SOURCES: Mapping[str, TableSource] = MappingProxyType(
    {f"nats-{dataset}": _NATS for dataset in ("cifar10", "cifar100", "imagenet16-120")}
)
"""By name of the table."""


def missing_tables(tasks: Iterable[Task]) -> dict[str, str]:
    """Return what to do about every table that is not installed, by the name of the task."""
    found = {}
    for task in tasks:
        table = task.arguments.get("table")
        if table is None or str(table).endswith(".parquet") or table in TABLES:
            continue
        source = TABLE_SOURCES.get(str(table))
        found[task.name] = f"the table {table!r} is not installed" + (
            "."
            if source is None
            else f".\n    It is made of {source.file}; with NAS_GYM_DATA set to your folder:\n    {source.command}"
        )
    return found


def listed(missing: Mapping[str, str]) -> str:
    """Return what `missing_tables` says as lines of a message."""
    return "\n".join(f"  {task}: {text}" for task, text in missing.items())


# --- the suites ------------------------------------------------------------------------------------


def _cells(name: str, table: str) -> Task:
    return Task(name, "NAS-Cell-v0", {"table": table})


ALL_TASKS: Mapping[str, Task] = MappingProxyType(
    {
        **TASKS,
        "cell-cifar10-16px": _cells("cell-cifar10-16px", "cifar10_16px"),
        "nats-cifar10": _cells("nats-cifar10", "nats-cifar10"),
        "nats-cifar100": _cells("nats-cifar100", "nats-cifar100"),
    }
)
"""Tasks by name, those included whose tables must be imported."""

_PACKAGED = tuple(
    ALL_TASKS[name]
    for name in ("metaqnn-digits", "cell-cifar10-16px")
    if (TABLES.packaged / f"{ALL_TASKS[name].arguments['table']}.parquet").is_file()
)
"""Tasks whose tables are part of this release; what a user installed besides changes no suite.

Not among them is ``cell-digits``: it is what agents were tried on while they were made.
"""


def _tuned(agent: str, label: str = "tuned", **more: Any) -> Method:  # noqa: ANN401 - any JSON value
    """Return an agent with the settings that it was tuned to; its plain name where those are the defaults."""
    tuned = TUNED[agent]
    settings = {**tuned.settings, **more}
    return Method(agent, settings, label=label if settings else "", tuning=tuned.to_json())


_SEARCHERS = (
    Method("random_search"),
    Method("random_search", {"replacement": False}),
    _tuned("local_search"),
    Method("evolution"),
    _tuned("evolution"),
    Method("evolution", {"preset": "nats_bench"}),
    _tuned("uct"),
    _tuned("q_learning"),
    Method("q_learning", {"preset": "metaqnn"}),
    _tuned("reinforce"),
    _tuned("reinforce", "tuned, independent logits", policy="logits"),
    Method("reinforce", {"preset": "zoph2017"}),
    Method("reinforce", {"preset": "nats_bench"}),
    _tuned("sb3:ppo"),
    _tuned("sb3:maskable_ppo"),
    _tuned("sb3:masked_dqn"),
)
"""Agents that choose architectures, not their training lengths: those would use a budget of queries otherwise.

As tuned, and as published where there are published settings. The one with independent logits differs from the tuned
controller in nothing but that its decisions know nothing of one another.
"""

_FIRST = tuple(ALL_TASKS[name] for name in ("cell-digits", "metaqnn-digits"))

SUITES: Mapping[str, Suite] = MappingProxyType(
    {
        suite.name: suite
        for suite in (
            Suite(
                "smoke",
                "does everything run? a minute, no torch, too few seeds for a verdict",
                _FIRST,
                tuple(Method(name) for name in (*REFERENCES, "uct", "q_learning")),
                Protocol(100),
                seeds=5,
            ),
            Suite("main", "all packaged tables", _PACKAGED, _SEARCHERS, Protocol(200), seeds=100),
            Suite(
                "nats",
                "NATS-Bench's topology space, CIFAR-10 and CIFAR-100; searched at 12 epochs, judged at 200",
                (ALL_TASKS["nats-cifar10"], ALL_TASKS["nats-cifar100"]),
                _SEARCHERS,
                Protocol(200),
                seeds=100,
            ),
            Suite(
                "transfer",
                "policies trained to edit cells on one table, deployed on others beside searches from scratch",
                (ALL_TASKS["cell-digits"], ALL_TASKS["nats-cifar10"], ALL_TASKS["nats-cifar100"]),
                (
                    Method("trained policy", kind="policy"),
                    Method("random edits", kind="edits"),
                    *(Method(name) for name in REFERENCES),
                ),
                Protocol(100, checkpoints=(10, 25, 50)),
                seeds=20,
                training={"table": "digits", "queries": TRAINING_QUERIES, "horizon": HORIZON, "settings": {**TRAINING}},
            ),
        )
    }
)
"""Suites by name."""


def suite_named(name: str) -> Suite:
    """Return a suite by its name.

    Raises:
        UnknownName: there is none.
    """
    if name not in SUITES:
        raise UnknownName("suite", name, SUITES)
    return SUITES[name]
