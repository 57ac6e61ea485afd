"""Record searches and summarise them: ``python -m nas_benchmarks.baselines --seeds 20``.

A finished search is one line of the record, so an interrupted command continues where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import nas_agents
import nas_gym
from nas_agents import Evaluated, Sink

from ..markdown import replace_between
from ..metrics import incumbents
from ..policy import sample_policy
from ..records import append_row, read_rows
from ..statistics import mean_interval
from ..tasks import TASKS, Task, uniform_reward

FOLDER = Path(__file__).parent

SEARCHES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("random_search", {}),
    ("random_search", {"replacement": False}),
    ("evolution", {"preset": "nats_bench"}),
    ("evolution", {}),
    ("reinforce", {"preset": "zoph2017"}),
    ("reinforce", {}),
    ("q_learning", {}),
    ("local_search", {}),
    ("uct", {}),
    ("successive_halving", {}),
)
"""Agents and settings, in the order of the table."""

CHECKPOINTS = (100, 300, 1_000)
"""Queries after which the regret is recorded; the last is the budget."""

POLICY_SAMPLES = 200


class _Incumbents(Sink):
    """Keeps the architectures and their rewards, which are compared at the same fidelity only."""

    def __init__(self) -> None:
        self.encodings: list[tuple[int, ...]] = []
        self.returns: list[float] = []
        self.fidelities: list[int] = []

    def on_episodes(self, evaluated: Evaluated) -> None:
        self.encodings += evaluated.batch.encodings
        self.returns += evaluated.batch.returns.tolist()
        if evaluated.batch.fidelities is not None:
            self.fidelities += evaluated.batch.fidelities.tolist()

    def at(self, queries: int) -> tuple[int, ...]:
        """Return the first best architecture among the first `queries`, or among all where there were fewer."""
        fidelities = np.array(self.fidelities, np.int64) if self.fidelities else None
        standing = incumbents(np.array(self.returns), fidelities)
        return self.encodings[standing[min(queries, len(standing)) - 1]]


def search(agent_name: str, settings: dict[str, Any], seed: int, task: Task) -> dict[str, Any]:
    """Run one search and return its line of the record."""
    agent_class = nas_agents.AGENTS[agent_name]
    config = nas_agents.make_config(agent_class, **settings)
    envs = task.make_envs(nas_agents.episodes_at_once(config))
    agent = agent_class(envs, seed, config)
    found = _Incumbents()
    result = nas_agents.run(agent, envs, CHECKPOINTS[-1], seed, [found])
    standings = [envs.evaluator.standing(found.at(queries)) for queries in CHECKPOINTS]
    policy = agent.policy() if result.reason == "budget" else None
    return {
        "agent": agent_name,
        "settings": settings,
        "seed": seed,
        "table_sha256": envs.evaluator.table.sha256,
        "version": nas_gym.__version__,
        "unique_architectures": result.usage.unique_architectures,
        "regret": [standing.regret for standing in standings],
        "tied": [standing.tied for standing in standings],
        "final_policy_reward": (
            None if policy is None else sample_policy(policy, task.make_envs(config.batch_size), POLICY_SAMPLES)
        ),
    }


def record(path: Path, seeds: int, task: Task) -> Iterator[dict[str, Any]]:
    """Run what the record lacks, one line at a time."""
    done = {(row["agent"], json.dumps(row["settings"]), row["seed"]) for row in read_rows(path)}
    for seed in range(seeds):
        for agent, settings in SEARCHES:
            if (agent, json.dumps(settings), seed) not in done:
                row = search(agent, settings, seed, task)
                append_row(path, row)
                yield row


def markdown(rows: Sequence[dict[str, Any]], uniform: float) -> str:
    """Return the table: mean regret in percentage points at the checkpoints, ties, and the final policy's reward."""
    heads = [f"regret @{queries:,}" for queries in CHECKPOINTS]
    lines = [
        f"| Agent | {' | '.join(heads)} | tied @{CHECKPOINTS[-1]:,} | unique | reward of the final policy (95 %) |",
        "|---" * (len(heads) + 4) + "|",
    ]
    rng = np.random.default_rng(0)
    for agent, settings in SEARCHES:
        mine = [row for row in rows if (row["agent"], row["settings"]) == (agent, settings)]
        if not mine:
            continue
        regret = 100 * np.array([row["regret"] for row in mine]).mean(axis=0)
        tied = np.mean([row["tied"][-1] for row in mine])
        unique = np.mean([row["unique_architectures"] for row in mine])
        drawn = [row["final_policy_reward"] for row in mine if row["final_policy_reward"] is not None]
        label = agent + "".join(f" {key}={json.dumps(value).strip(chr(34))}" for key, value in settings.items())
        cells = [*(f"{value:.2f}" for value in regret), f"{tied:.0%}", f"{unique:.0f}"]
        final = ""
        if drawn:
            interval = mean_interval(np.array(drawn), rng)
            final = f"{interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
        lines.append(f"| `{label}` | {' | '.join(cells)} | {final} |")
    seeds = len({row["seed"] for row in rows})
    lines += ["", f"{seeds} seeds; regret in percentage points of test accuracy; uniform sampling: {uniform:.4f}."]
    return "\n".join(lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m nas_benchmarks.baselines", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="searches of every agent (default: 20)")
    parser.add_argument("--task", choices=list(TASKS), default="cell-digits", help="what is searched")
    parser.add_argument("--record", type=Path, help="file that finished searches are appended to")
    parser.add_argument("--update", type=Path, help="file whose table of baselines is replaced")
    arguments = parser.parse_args()
    task = TASKS[arguments.task]
    path = arguments.record or FOLDER / f"{arguments.task}.jsonl"
    for row in record(path, arguments.seeds, task):
        sys.stderr.write(f"{row['agent']} {row['settings']} seed {row['seed']}: regret {row['regret']}\n")
    text = markdown(read_rows(path), uniform_reward(task))
    sys.stdout.write(text + "\n")
    if arguments.update is not None:
        replace_between(arguments.update, f"baselines {arguments.task}", text)


if __name__ == "__main__":
    main()
