"""EAS beside random morphisms of the same start network: what a search with inherited weights finds.

``python -m nas_benchmarks.morphing`` runs what the record lacks, ``--show`` prints what it holds. Both search
`NAS-EAS-v0` with the same budget; a seed is that of the search and of all trainings, so both grow the same trained
start network, and equal children have equal accuracies. One search is one line of the record, so an interrupted command
continues where it stopped.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

import nas_agents
import nas_gym
from nas_agents import Evaluated, Sink
from nas_gym.errors import InvalidArgument

from .markdown import replace_between
from .records import append_row, read_rows
from .statistics import Interval, mean_interval, paired_test

RECORD = Path(__file__).parent / "baselines" / "morphing.jsonl"
ENV = "NAS-EAS-v0"
LEARNT, RANDOM = "eas", "random_search"
NAMES: Mapping[str, str] = {LEARNT: "EAS", RANDOM: "random morphisms"}
BUDGET = 100
SEEDS = 8
TRAINING: Mapping[str, Any] = {"epochs": 3, "learning_rate": 0.05, "label_smoothing": 0.1, "start_epochs": 100}
"""How networks are trained, those of `nas_benchmarks.inheritance` with fewer epochs."""

LATEST = 5
"""The last fifth of a search tells whether it learns."""

MEASURES: Mapping[str, str] = {
    "best_valid_accuracy": "best validation accuracy",
    "test_accuracy": "test accuracy of that network, trained again",
    "last_accuracy": "mean validation accuracy of the last fifth",
}
"""What is compared, by field of the record."""


class Accuracies(Sink):
    """Keeps the encoding and the validation accuracy of every child; NaN where it failed."""

    def __init__(self) -> None:
        """Start with none."""
        self.encodings: list[Any] = []
        self.values: list[float] = []
        self.failures: list[str] = []

    def on_episodes(self, evaluated: Evaluated) -> None:
        """Append those of a batch."""
        batch = evaluated.batch
        # The reward is tan(accuracy pi / 2), which turns round to the accuracy.
        found = 2 / np.pi * np.arctan(batch.returns)
        self.encodings += batch.encodings
        self.values += np.where([status == "ok" for status in batch.status], found, np.nan).tolist()
        self.failures += [status for status in batch.status if status != "ok"]


def search(agent: str, seed: int, budget: int, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - of the environment
    """Run one search and return its line of the record.

    Args:
        agent: a name in `nas_agents.AGENTS`.
        seed: of search and trainings.
        budget: children.
        **arguments: of the environment.

    Raises:
        InvalidArgument: no child could be trained.
    """
    config = nas_agents.make_config(nas_agents.AGENTS[agent])
    count = min(nas_agents.episodes_at_once(config), budget)
    envs: Any = gymnasium.make_vec(ENV, count, autoreset_mode="Disabled", evaluation_seed=seed, **arguments).unwrapped
    children = Accuracies()
    try:
        result = nas_agents.run(nas_agents.make(agent, envs, seed), envs, budget, seed, [children])
        values = np.array(children.values)
        if len(children.failures) == len(values):
            raise InvalidArgument(
                f"none of the {len(values)} children of {agent} with seed {seed} was trained: "
                f"{', '.join(sorted(set(children.failures)))}; change the arguments of the environment."
            )
        best = int(np.nanargmax(values))
        tested = envs.evaluator.report(children.encodings[best])["test_accuracy"]
        return {
            "agent": agent,
            "seed": seed,
            "budget": budget,
            **described(arguments),
            "version": nas_gym.__version__,
            "best": envs.space.to_string(children.encodings[best]),
            "best_valid_accuracy": float(values[best]),
            "test_accuracy": float(tested),
            "last_accuracy": float(np.nanmean(values[-max(budget // LATEST, 1) :])),
            "unique_architectures": result.usage.unique_architectures,
            "failed": len(children.failures),
            "simulated_seconds": round(result.usage.simulated_seconds, 2),
        }
    finally:
        envs.close()


def described(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return data and training of some arguments of the environment, as the record has them."""
    training = " ".join(f"{name}={arguments[name]}" for name in sorted(arguments.keys() & TRAINING.keys()))
    return {"dataset": arguments.get("dataset", "digits"), "training": training}


def record(path: Path, seeds: int, budget: int, **arguments: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    """Run what the record lacks, one line at a time."""
    task = (*described(arguments).values(), budget)
    done = {(row["agent"], row["seed"]) for row in read_rows(path) if _task(row) == task}
    for seed in range(seeds):
        with tempfile.TemporaryDirectory(prefix="nas-gym-morphing-") as folder:
            # One store for both: the start network is trained once, and what both try is not trained twice.
            store = str(Path(folder) / "evaluations.sqlite")
            for agent in NAMES:
                if (agent, seed) not in done:
                    row = search(agent, seed, budget, store=store, **arguments)
                    append_row(path, row)
                    yield row


def _task(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return row["dataset"], row["training"], row["budget"]


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table: both searches and their paired difference, with 95 % intervals over seeds."""
    heads = " | ".join(NAMES.values())
    lines = [f"| Data | Children | What | {heads} | Difference [95 %] | p |", "|---" * (5 + len(NAMES)) + "|"]
    notes = []
    for task in dict.fromkeys(map(_task, rows)):
        own = [row for row in rows if _task(row) == task]
        for measure, label in MEASURES.items():
            first, second = paired(own, measure)
            if not len(first):
                continue
            rng = np.random.default_rng(0)
            cells = [_shown(mean_interval(values, rng)) for values in (first, second)]
            test = paired_test(first[:, None], second[:, None], rng)
            cells += [_shown(mean_interval(first - second, rng), "+"), f"{test.p_value:.2f}"]
            lines.append(f"| `{task[0]}` | {task[2]} | {label} | {' | '.join(cells)} |")
        notes.append(_description(own, *task))
    return "\n".join([*lines, "", *notes])


def _description(rows: Sequence[Mapping[str, Any]], dataset: str, training: str, budget: int) -> str:
    different = {
        agent: np.mean([row["unique_architectures"] for row in rows if row["agent"] == agent])
        for agent in dict.fromkeys(row["agent"] for row in rows)
    }
    counts = ", ".join(f"{NAMES[agent]} {count:.0f}" for agent, count in different.items())
    seeds = len(paired(rows, "last_accuracy")[0])
    failed = sum(row["failed"] for row in rows)
    return (
        f"`{dataset}`: {seeds} seeds, paired; bootstrap intervals and permutation tests over seeds. Different networks "
        f"among {budget} children: {counts}. {failed} children failed. Training: {training}."
    )


def paired(rows: Sequence[Mapping[str, Any]], measure: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return a measure of both searches, by the seeds that both have."""
    found = {(row["agent"], row["seed"]): row[measure] for row in rows}
    seeds = sorted(seed for agent, seed in found if agent == LEARNT and (RANDOM, seed) in found)
    first, second = (np.array([found[agent, seed] for seed in seeds], np.float64) for agent in (LEARNT, RANDOM))
    return first, second


def _shown(interval: Interval, sign: str = "") -> str:
    form = f"{sign}.4f"
    return f"{interval.value:{form}} [{interval.low:{form}}, {interval.high:{form}}]"


def main(command: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m nas_benchmarks.morphing", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"searches of either (default: {SEEDS})")
    parser.add_argument("--budget", type=int, default=BUDGET, help=f"children of a search (default: {BUDGET})")
    parser.add_argument("--dataset", default="digits", help="name or path of the data (default: digits)")
    parser.add_argument("--workers", type=int, default=1, help="trainings at once; 0 = in this process (default: 1)")
    parser.add_argument("--record", type=Path, default=RECORD, help="file that finished searches are appended to")
    parser.add_argument("--show", action="store_true", help="run nothing, print what the record holds")
    parser.add_argument("--update", type=Path, metavar="FILE", help="run nothing, replace the table in a file")
    arguments = parser.parse_args(command)
    if not (arguments.show or arguments.update):
        settings = {**TRAINING, "dataset": arguments.dataset, "workers": arguments.workers}
        for row in record(arguments.record, arguments.seeds, arguments.budget, **settings):
            sys.stderr.write(f"{row['agent']} seed {row['seed']}: best {row['best_valid_accuracy']:.4f}\n")
    text = markdown(read_rows(arguments.record))
    sys.stdout.write(text + "\n")
    if arguments.update is not None:
        replace_between(arguments.update, "morphing", text)


if __name__ == "__main__":
    main()
