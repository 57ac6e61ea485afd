"""How many epochs a network needs that inherits weights, beside the same network trained from scratch.

``python -m nas_benchmarks.inheritance --dataset digits --record inheritance.jsonl``. Random children of a trained start
network are trained from scratch with a schedule of so many epochs, and with inherited weights with shorter schedules.
The training of the start network is given beside, since the children share it. One training is one line of the record,
so an interrupted command continues where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas_gym.envs.eas import PUBLISHED, RECIPE, STARTS
from nas_gym.errors import InvalidArgument, UnknownName
from nas_gym.evaluators import Evaluator, Status, make_evaluator
from nas_gym.search_spaces import Encoding, SearchSpace

from .records import append_row, read_rows
from .statistics import mean_interval

SCRATCH = "from scratch"
INHERITED = "inherited"
EPOCHS = 20
FRACTIONS = (0.05, 0.1, 0.25, 0.5)
"""Shares of the epochs that children with inherited weights get."""

SCRATCH_LEARNING_RATE = 0.1
INHERITED_LEARNING_RATE = 0.02
"""The released code's for final trainings, and for children; both fall along half a cosine."""

_JOB = ("dataset", "start", "architecture", "seed", "how", "start_epochs", "learning_rate", "epochs")
"""Fields that say what a row is of."""

_TOLERANCE = 0.01


def architectures(space: SearchSpace, count: int) -> list[Encoding]:
    """Return so many different canonical architectures, drawn by uniform decisions; the first ones stay as they are.

    Raises:
        InvalidArgument: there are not so many, or hardly.
    """
    rng = np.random.default_rng(0)
    found: dict[Encoding, None] = {}
    for _ in range(100 * count):
        found[space.canonical(space.sample(rng))] = None
        if len(found) == count:
            return list(found)
    raise InvalidArgument(f"{count} different architectures of {space.signature} were not found; ask for fewer.")


def epochs_of(epochs: int) -> list[tuple[str, int]]:
    """Return how every child is trained, and how long."""
    shorter = sorted({max(round(share * epochs), 1) for share in FRACTIONS})
    return [(SCRATCH, epochs), *((INHERITED, fewer) for fewer in shorter)]


def record(
    path: Path,
    dataset: str,
    start: str,
    count: int,
    seeds: int,
    epochs: int = EPOCHS,
    start_epochs: int = EPOCHS,
    learning_rate: float = INHERITED_LEARNING_RATE,
    **settings: Any,  # noqa: ANN401 - of the evaluators, such as workers
) -> Iterator[dict[str, Any]]:
    """Train what the record lacks, and iterate over the new rows.

    Args:
        path: the record; the evaluation store lies beside it.
        dataset: name of a data set, or its path.
        start: name in `nas_gym.envs.eas.STARTS`.
        count: architectures.
        seeds: trainings of each, with a start network of each seed.
        epochs: of trainings from scratch.
        start_epochs: of the start network.
        learning_rate: of trainings with inherited weights.
        **settings: of both evaluators.

    Raises:
        UnknownName: no such start network.
    """
    if start not in STARTS:
        raise UnknownName("start network", start, STARTS)
    space = STARTS[start]()
    known = {tuple(row[name] for name in _JOB) for row in read_rows(path)}
    chosen = architectures(space, count)
    common = {"dataset": dataset, "store": str(path.with_suffix(".sqlite")), **settings}
    for seed in range(seeds):
        for how, length in epochs_of(epochs):
            rate = SCRATCH_LEARNING_RATE if how == SCRATCH else learning_rate
            way = (how, 0 if how == SCRATCH else start_epochs, rate, length)
            jobs = [(dataset, start, space.to_string(one), seed, *way) for one in chosen]
            if known.issuperset(jobs):
                continue
            recipe = {**RECIPE, "learning_rate": rate, "epochs": length}
            evaluator = _evaluator(space, how, recipe, start_epochs, {**common, "evaluation_seed": seed})
            try:
                for encoding, job in zip(chosen, jobs, strict=True):
                    if job not in known:
                        row = dict(zip(_JOB, job, strict=True)) | _measured(evaluator, encoding)
                        append_row(path, row)
                        yield row
            finally:
                evaluator.close()


def _evaluator(
    space: SearchSpace, how: str, recipe: Mapping[str, Any], start_epochs: int, settings: Mapping[str, Any]
) -> Evaluator:
    """Return what trains children one way."""
    if how == SCRATCH:
        return make_evaluator("training", space, recipe=recipe, **settings)
    more = {"start_epochs": start_epochs, "start_learning_rate": SCRATCH_LEARNING_RATE, "cache_mb": 0}
    return make_evaluator("inheriting", space, recipe=recipe, **settings, **more)


def _measured(evaluator: Evaluator, encoding: Encoding) -> dict[str, Any]:
    answer = evaluator.evaluate_one(encoding)
    ok = answer.status is Status.OK
    names = ("valid_accuracy", "train_seconds", "parameters")
    values = {name: float(answer.metrics[name]) if ok else None for name in names}
    return {"status": answer.status.label, **values, "message": answer.message}


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of both ways, for every data set, start network and number of epochs.

    The interval is that of the mean over architectures, each averaged over its seeds; differences are paired.
    """
    lines = [
        "| Data | Weights | Rate | Epochs | Accuracy | Less than from scratch [95 %] | Within 0.01 of it | CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for dataset, start in sorted({(row["dataset"], row["start"]) for row in rows}):
        own = [row for row in rows if (row["dataset"], row["start"]) == (dataset, start) and row["status"] == "ok"]
        scratch = {(row["architecture"], row["seed"]): row["valid_accuracy"] for row in own if row["how"] == SCRATCH}
        ways = _JOB[-4:]
        for way in sorted({tuple(row[name] for name in ways) for row in own}):
            group = [row for row in own if tuple(row[name] for name in ways) == way]
            how, start_epochs, rate, epochs = way
            accuracy = np.mean([row["valid_accuracy"] for row in group])
            seconds = np.mean([row["train_seconds"] for row in group])
            gap, share = _comparison(group, scratch) if how == INHERITED else ("", "")
            weights = f"{how}, {start}" if how == SCRATCH else f"{how} after {start_epochs} epochs, {start}"
            cells = (f"{rate:g}", str(epochs), f"{accuracy:.4f}", gap, share, f"{seconds:.2f}")
            lines.append(f"| `{dataset}` | {weights} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _comparison(group: Sequence[Mapping[str, Any]], scratch: Mapping[tuple[str, int], float]) -> tuple[str, str]:
    """Return how much less accurate trainings are than those from scratch, and how many are about as accurate."""
    losses: dict[str, list[float]] = {}
    for row in group:
        reference = scratch.get((row["architecture"], row["seed"]))
        if reference is not None:
            losses.setdefault(row["architecture"], []).append(reference - row["valid_accuracy"])
    if not losses:
        return "", ""
    means = np.array([np.mean(one) for one in losses.values()], np.float64)
    interval = mean_interval(means, np.random.default_rng(0))
    every = [loss for one in losses.values() for loss in one]
    reached = sum(loss <= _TOLERANCE for loss in every)
    return f"{interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}]", f"{reached} of {len(every)}"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m nas_benchmarks.inheritance", description=__doc__)
    parser.add_argument("--dataset", default="digits", help="name or path of the data (default: digits)")
    parser.add_argument("--start", default="small", choices=list(STARTS), help="start network (default: small)")
    parser.add_argument("--architectures", type=int, default=20, help="children (default: 20)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each (default: 3)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"from scratch (default: {EPOCHS})")
    parser.add_argument("--start-epochs", type=int, default=EPOCHS, help=f"of the start network (default: {EPOCHS})")
    parser.add_argument(
        "--learning-rate",
        type=float,
        default=INHERITED_LEARNING_RATE,
        help=f"with inherited weights (default: {INHERITED_LEARNING_RATE}, as in the released code)",
    )
    parser.add_argument("--subset", type=int, help="train on so many images only (default: all)")
    parser.add_argument("--published", action="store_true", help="batches and augmentation of the released code")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: auto)")
    parser.add_argument("--record", type=Path, required=True, help="file that finished trainings are appended to")
    arguments = parser.parse_args()
    recipe = {name: PUBLISHED[name] for name in ("batch_size", "augmentation")} if arguments.published else {}
    rows = record(
        arguments.record,
        arguments.dataset,
        arguments.start,
        arguments.architectures,
        arguments.seeds,
        arguments.epochs,
        arguments.start_epochs,
        arguments.learning_rate,
        subset=arguments.subset,
        device=arguments.device,
        **recipe,
    )
    for row in rows:
        sys.stderr.write(f"{row['how']} {row['epochs']} seed {row['seed']}: {row['valid_accuracy']} {row['message']}\n")
    sys.stdout.write(markdown(read_rows(arguments.record)) + "\n")


if __name__ == "__main__":
    main()
