"""Does it learn: the last fifth of a search against uniform decisions, for the algorithms of Stable-Baselines3.

``python -m nas_benchmarks.learning --seeds 10 --update README.md``; a finished search is one line of the record, so an
interrupted command continues where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import nas_agents
import nas_gym

from .markdown import replace_between
from .records import append_row, read_rows
from .statistics import mean_interval
from .tasks import named, uniform_reward
from .traces import Returns

RECORD = Path(__file__).parent / "baselines" / "stable-baselines.jsonl"
AGENTS = ("sb3:ppo", "sb3:a2c", "sb3:dqn", "sb3:maskable_ppo", "sb3:masked_dqn")
SEARCHED = {name: named(name) for name in ("cell-digits", "metaqnn-digits")}
BUDGET = 1_000
LATEST = BUDGET // 5


def search(task: str, agent: str, seed: int) -> dict[str, Any]:
    """Run one search with the default settings and return its line of the record."""
    config = nas_agents.make_config(nas_agents.AGENTS[agent])
    envs = SEARCHED[task].make_envs(nas_agents.episodes_at_once(config))
    returns = Returns()
    result = nas_agents.run(nas_agents.make(agent, envs, seed), envs, BUDGET, seed, [returns])
    return {
        "task": task,
        "agent": agent,
        "seed": seed,
        "table_sha256": envs.evaluator.table.sha256,
        "version": nas_gym.__version__,
        "updates": result.updates,
        "unique_architectures": result.usage.unique_architectures,
        "first_reward": float(np.mean(returns.values[:LATEST])),
        "last_reward": float(np.mean(returns.values[-LATEST:])),
        "wall_seconds": round(result.usage.real_seconds, 2),
    }


def record(path: Path, seeds: int) -> Iterator[dict[str, Any]]:
    """Run what the record lacks, one line at a time."""
    done = {(row["task"], row["agent"], row["seed"]) for row in read_rows(path)}
    for seed in range(seeds):
        for task in SEARCHED:
            for agent in AGENTS:
                if (task, agent, seed) not in done:
                    row = search(task, agent, seed)
                    append_row(path, row)
                    yield row


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table: mean reward of the last fifth with its interval, beside uniform decisions."""
    envs = {name: task.env for name, task in SEARCHED.items()}
    heads = " | ".join(f"`{env}`" for env in envs.values())
    lines = [f"| Agent | {heads} | updates |", "|---" * (len(envs) + 2) + "|"]
    uniform = {name: uniform_reward(task) for name, task in SEARCHED.items()}
    lines.append(f"| uniform decisions (exact) | {' | '.join(f'{value:.4f}' for value in uniform.values())} | |")
    rng = np.random.default_rng(0)
    for agent in AGENTS:
        cells = []
        for task in SEARCHED:
            values = np.array([row["last_reward"] for row in rows if (row["task"], row["agent"]) == (task, agent)])
            if not len(values):
                cells.append("")
                continue
            interval = mean_interval(values, rng)
            cells.append(f"{values.mean():.4f} [{interval.low:.4f}, {interval.high:.4f}]")
        updates = sorted({row["updates"] for row in rows if row["agent"] == agent})
        shown = f"{updates[0]} to {updates[-1]}" if updates else ""
        lines.append(f"| `{agent}` | {' | '.join(cells)} | {shown} |")
    seeds = len({row["seed"] for row in rows})
    lines += ["", f"{seeds} seeds, {BUDGET:,} queries, default settings; 95 % bootstrap intervals of the mean."]
    return "\n".join(lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m nas_benchmarks.learning", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="searches of every agent (default: 10)")
    parser.add_argument("--record", type=Path, default=RECORD, help="file that finished searches are appended to")
    parser.add_argument("--update", type=Path, help="file whose table is replaced")
    arguments = parser.parse_args()
    for row in record(arguments.record, arguments.seeds):
        sys.stderr.write(f"{row['task']} {row['agent']} seed {row['seed']}: {row['last_reward']:.4f}\n")
    text = markdown(read_rows(arguments.record))
    sys.stdout.write(text + "\n")
    if arguments.update is not None:
        replace_between(arguments.update, "learning", text)


if __name__ == "__main__":
    main()
