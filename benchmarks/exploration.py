"""How good the architectures are that a Q-learning agent samples, as its exploration falls.

``python -m nas_benchmarks.exploration --run RUN`` records a search; without ``--run`` the record is only drawn.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import nas_agents
from nas_gym.errors import InvalidArgument, MissingExtra

from .markdown import replace_between
from .metrics import best_so_far
from .records import RunDirectory, read_rows

RECORD = Path(__file__).parent / "baselines" / "metaqnn-mnist.jsonl"
FIGURE = RECORD.with_suffix(".png")

_SAMPLES = "#1f5fa8"
_BEST = "#2b8a3e"
_EPSILON = "#c92a2a"


@dataclass(frozen=True)
class Phase:
    """Queries under one epsilon.

    Attributes:
        epsilon: probability of a random decision.
        count: queries.
        mean: mean reward.
        error: standard error of the mean; NaN for a single query.
        best: highest reward.
    """

    epsilon: float
    count: int
    mean: float
    error: float
    best: float


def epsilons(config: Any, rows: Sequence[dict[str, Any]]) -> list[float]:  # noqa: ANN401 - the agent's configuration
    """Return the epsilon of every query of a search in batches.

    Args:
        config: of the Q-learning agent.
        rows: of the run; those of one batch have the same environment steps, which were taken when it ended.
    """
    found: list[float] = []
    counted = 0
    for _, group in itertools.groupby(rows, key=lambda row: row["batch"]["environment_steps"]):
        batch = [bool(row["first_seen"]) for row in group]
        found += [config.epsilon(counted)] * len(batch)
        counted += sum(batch) if config.counted == "architectures" else len(batch)
    return found


def read_run(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a record: what was asked for, then one line a query.

    Raises:
        ResumeError: `path` is no run directory.
        InvalidArgument: its agent has no epsilon, or it searched without a barrier.
    """
    directory = RunDirectory.existing(path)
    config = directory.read_json("config.json") or {}
    agent_config = nas_agents.make_config(nas_agents.AGENTS[config["agent"]], **config["agent_args"])
    if not hasattr(agent_config, "epsilon"):
        raise InvalidArgument(f"{config['agent']} has no epsilon.")
    if config["workers"] is not None:
        raise InvalidArgument("without a barrier the epsilon of a query is not recorded; search without --workers.")
    rows = directory.rows()
    asked = {name: config[name] for name in ("env", "agent", "budget", "seed", "env_args", "agent_args", "versions")}
    # Where the answers were kept is of no influence on them.
    asked["env_args"] = {name: value for name, value in config["env_args"].items() if name != "store"}
    levels = epsilons(agent_config, rows)
    return [asked] + [
        {
            "row": row["row"],
            "architecture": row["architecture"],
            "epsilon": level,
            "status": row["status"],
            "reward": row["reward"],
            "parameters": row["metrics"]["parameters"],
            "seconds": round(row["cost_seconds"], 2),
        }
        for row, level in zip(rows, levels, strict=True)
    ]


def phases(rows: Sequence[dict[str, Any]]) -> list[Phase]:
    """Return the phases of a search, highest epsilon first, without failed queries and phases of nothing else."""
    found = []
    for epsilon in sorted({row["epsilon"] for row in rows}, reverse=True):
        rewards = np.array([row["reward"] for row in rows if row["epsilon"] == epsilon and row["status"] == "ok"])
        if not len(rewards):
            continue
        error = float(np.std(rewards, ddof=1) / np.sqrt(len(rewards))) if len(rewards) > 1 else float("nan")
        found.append(Phase(epsilon, len(rewards), float(rewards.mean()), error, float(rewards.max())))
    return found


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table of the phases."""
    lines = ["| Epsilon | samples | mean accuracy | best |", "|---|---|---|---|"]
    for phase in phases(rows):
        lines.append(f"| {phase.epsilon:g} | {phase.count} | {phase.mean:.3f} ± {phase.error:.3f} | {phase.best:.4f} |")
    return "\n".join(lines)


def draw(path: Path, rows: Sequence[dict[str, Any]], title: str) -> None:
    """Draw the sampled accuracies, their mean in every phase, the best so far and the epsilon.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("the figure of an exploration", "plots", error) from error
    good = [row for row in rows if row["status"] == "ok"]
    queries = np.array([row["row"] for row in good])
    rewards: npt.NDArray[np.float64] = np.array([row["reward"] for row in good])
    levels = np.array([row["epsilon"] for row in good])
    figure = Figure(figsize=(7.2, 4.4), dpi=120, layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (4, 1)})
    axes.scatter(queries, rewards, s=9, color=_SAMPLES, alpha=0.35, linewidths=0, label="a sampled network")
    for epsilon in np.unique(levels):
        inside = levels == epsilon
        span = (queries[inside].min() - 0.5, queries[inside].max() + 0.5)
        label = "mean of a phase" if epsilon == levels.max() else None
        axes.plot(span, [rewards[inside].mean()] * 2, color=_SAMPLES, linewidth=2.5, label=label)
    axes.step(queries, best_so_far(rewards), where="post", color=_BEST, linewidth=1.5, label="best so far")
    axes.set_ylabel("validation accuracy")
    axes.set_ylim(0, 1.02)
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="center right", fontsize=9)
    below.step(queries, levels, where="mid", color=_EPSILON, linewidth=1.5)
    below.set_ylabel("epsilon")
    below.set_ylim(0, 1.08)
    below.set_xlabel("networks sampled")
    below.grid(alpha=0.25)
    FigureCanvasAgg(figure).print_png(path)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m nas_benchmarks.exploration", description=__doc__)
    parser.add_argument("--run", type=Path, help="run directory of a search with q_learning, to be recorded")
    parser.add_argument("--record", type=Path, default=RECORD, help="file of the record")
    parser.add_argument("--figure", type=Path, default=FIGURE, help="PNG file to draw")
    parser.add_argument("--update", type=Path, help="file whose table of the exploration is replaced")
    arguments = parser.parse_args()
    if arguments.run is not None:
        lines = read_run(arguments.run)
        arguments.record.write_text("".join(json.dumps(line) + "\n" for line in lines))
    lines = read_rows(arguments.record)
    if not lines:
        raise InvalidArgument(f"{arguments.record} holds no record; make one of a search with --run.")
    asked, *rows = lines
    draw(arguments.figure, rows, f"{asked['agent']} on {asked['env']}, {asked['env_args'].get('dataset', 'digits')}")
    text = markdown(rows)
    sys.stdout.write(text + "\n")
    if arguments.update is not None:
        replace_between(arguments.update, "exploration", text)


if __name__ == "__main__":
    main()
