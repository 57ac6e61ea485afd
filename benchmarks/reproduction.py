"""The published protocol of NATS-Bench on its topology tables: 500 runs of three methods, held against the paper.

``python -m nas_benchmarks.reproduction --table nats-cifar10 --table nats-cifar100``; ``--show`` prints the table of the
recorded runs that come with the package. A search sees the validation accuracy after 12 epochs; what is reported is the
test accuracy after 200 epochs of the architecture with the highest validation accuracy so far.

Where a table has simulated seconds, a run ends by the published clock, and each query draws one of the table's seeds as
the official API does. Where it has none, a run makes a fixed number of queries, and all smaller numbers are read off
the same run. One run is one line of the record, so an interrupted command continues where it stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import nas_agents
from nas_gym.errors import InvalidArgument, NASGymError, UnknownName
from nas_gym.tables.format import TABLES, Table, read_table

from .expectations import expected_incumbent
from .ledger import Ledger, changes_of_incumbent
from .markdown import replace_between
from .published_results import METHODS, RUNS, SECONDS
from .recorded import SuiteRecord, pack, rows_at
from .records import Row
from .reproduction_page import EXACT, markdown
from .rows import config_json, versions
from .simulated_clock import Clock, at_clock
from .suites import FORMAT, Method, digest, run_seed
from .tasks import Task, WholeSpace

PACKAGED = Path(__file__).parent / "baselines" / "reproduction.parquet"
"""The recorded runs that come with the package."""

SPACE = "nas_bench_201"
EPOCHS = (12, 200)
"""Of the trainings that searches see, and of those that are reported."""

USUAL_TABLES = ("nats-cifar10", "nats-cifar100", "nats-imagenet16-120")
QUERIES = (50, 100, 150, 175, 185, 300)
"""Numbers of queries after which runs without a clock are judged, the largest of which they make."""

MOST_QUERIES = 100_000
"""Of a run that ends by the clock."""

_PROGRESS_SECONDS = 10.0


@dataclass(frozen=True)
class Replay:
    """A table on which the protocol is followed.

    Attributes:
        task: what is searched.
        dataset: its data set.
        table_sha256: hash of the table.
        seconds: of the simulated clock, after which a run ends; None where queries are counted.
    """

    task: Task
    dataset: str
    table_sha256: str
    seconds: float | None

    @classmethod
    def of(cls, name: str) -> Replay:
        """Look into a table.

        Args:
            name: of an installed table, or path of a ``.parquet`` file.

        Raises:
            InvalidArgument: it is not installed, lacks architectures, or was trained for other numbers of epochs.
            TableError: it is damaged.
            UnknownName: it has no such accuracy.
        """
        table = _table(name)
        found = tuple(_trained(table, metric) for metric in ("valid_accuracy", "test_accuracy"))
        if table.metadata.get("space") != SPACE or found != EPOCHS:
            raise InvalidArgument(
                f"the protocol is for tables of {SPACE} whose validation accuracy is from trainings of {EPOCHS[0]} "
                f"epochs and whose test accuracy from those of {EPOCHS[1]}; {name!r} is of "
                f"{table.metadata.get('space')}, with {found[0]} and {found[1]} epochs."
            )
        dataset = str(table.metadata.get("dataset", ""))
        lacking = table.metadata.get("missing")
        if lacking:
            raise InvalidArgument(
                f"the table {name!r} lacks {lacking:,} architectures, and the protocol is for whole spaces; import the "
                "whole benchmark."
            )
        timed = "train_seconds" in table.measurements and dataset in SECONDS
        arguments: dict[str, Any] = {"table": name}
        if table.measurement("valid_accuracy").seeds > 1:
            arguments |= {"noise": "sample", "repeat_query": "resample+charge"}
        return cls(
            Task(table.name, "NAS-Cell-v0", arguments), dataset, table.sha256, SECONDS[dataset] if timed else None
        )

    @property
    def noise(self) -> str:
        """What a query answers: "mean" over the table's seeds, or one of them, "sample"."""
        return str(self.task.arguments.get("noise", "mean"))


def _trained(table: Table, metric: str) -> int:
    """Return how many epochs the trainings behind an accuracy had."""
    measured = table.measurement(metric)
    return measured.trained_epochs or measured.epochs or table.epochs


def _table(name: str) -> Table:
    try:
        return read_table(TABLES[name])
    except UnknownName:
        source = name if Path(name).exists() else "NATS-tss-v1_0-3ffb9-simple"
        raise InvalidArgument(
            f"the table {name!r} is not installed; there are: {', '.join(TABLES)}. Tables are made of NATS-Bench's "
            "official folder or .tar file, or of a CSV file with columns such as cifar10_valid_12ep and "
            "cifar10_test_200ep. With NAS_GYM_DATA set to a folder of yours:\n"
            f"    nas-gym tables import {source} --name nats"
        ) from None


# --- one run ---------------------------------------------------------------------------------------


def replay(where: Replay, method: Method, seed: int, queries: int) -> Row:
    """Make one run and return its row.

    Args:
        where: what is searched.
        method: who searches.
        seed: of the run; those of two methods with one seed are paired.
        queries: that it makes at least; exactly, where there is no clock.
    """
    number = run_seed(seed, where.task.name)
    config = nas_agents.make_config(nas_agents.AGENTS[method.agent], **method.settings)
    # Another seed draws others of the table's seeds.
    task = where.task.with_arguments(evaluation_seed=number) if where.noise == "sample" else where.task
    envs = task.make_envs(min(nas_agents.episodes_at_once(config), queries))
    ledger = Ledger()
    sinks: list[nas_agents.Sink] = [ledger]
    if where.seconds is not None:
        sinks.append(Clock(where.seconds, queries))
    agent = nas_agents.make(method.agent, envs, number, **method.settings)
    nas_agents.run(agent, envs, queries if where.seconds is None else MOST_QUERIES, number, sinks)
    trace = ledger.trace(envs)
    clock = None
    if where.seconds is not None:
        ended, value = at_clock(ledger.costs(trace), trace.curve(0.0), where.seconds)
        clock = {"seconds": where.seconds, "queries": ended, "test": _percent(value)}
    incumbents = changes_of_incumbent(trace)
    return {
        **_origin(where, method.name, queries),
        "agent": method.agent,
        "settings": dict(method.settings),
        "config_hash": _config_hash(method),
        "seed": seed,
        "run_seed": number,
        "incumbent_since": [query for query, _, _ in incumbents],
        "valid": [_percent(signal) for _, signal, _ in incumbents],
        "test": [_percent(held_out) for _, _, held_out in incumbents],
        "clock": clock,
    }


def exact(where: Replay, queries: int) -> Row:
    """Return the row of what random search is expected to report after every number of queries, in closed form.

    Raises:
        InvalidArgument: the space is not wholly known.
    """
    space = WholeSpace.of(where.task.make_envs(1))
    if space is None:
        raise InvalidArgument(f"the space of the table {where.task.name!r} is not wholly known; use a complete table.")
    counts = np.arange(1, queries + 1)
    chances = space.probabilities
    mean = expected_incumbent(space.rewards, space.held_out, counts, chances)
    square = expected_incumbent(space.rewards, space.held_out**2, counts, chances)
    deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
    return {
        **_origin(where, EXACT, queries),
        "seed": 0,
        "test": [_percent(value) for value in mean],
        "deviation": [_percent(value) for value in deviation],
    }


def _origin(where: Replay, method: str, queries: int) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "task": where.task.name,
        "dataset": where.dataset,
        "table_sha256": where.table_sha256,
        "noise": where.noise,
        "method": method,
        "budget": queries,
        "versions": versions(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _percent(fraction: float) -> float:
    """Return a fraction in percent, to six decimals, where rounding errors are gone and nothing else is."""
    return round(100 * float(fraction), 6)


def _config_hash(method: Method) -> str:
    config = nas_agents.make_config(nas_agents.AGENTS[method.agent], **method.settings)
    return digest([method.agent, config_json(config)])


# --- the record ------------------------------------------------------------------------------------


def check(where: Replay, queries: int, rows: Sequence[Row], path: Path) -> None:
    """Check that runs to come can stand beside those recorded.

    Raises:
        InvalidArgument: those were made on another table, by other settings, or are shorter.
    """
    hashes = {method.name: _config_hash(method) for method in METHODS}
    for row in (row for row in rows if row["task"] == where.task.name):
        for name, now in (("table_sha256", where.table_sha256), ("noise", where.noise), ("budget", queries)):
            if row[name] != now:
                raise InvalidArgument(
                    f"{path} holds runs on {where.task.name!r} with {name} {row[name]}, now it is {now}; runs of both "
                    "are no sample of either. Choose another --out."
                )
        if row["method"] in hashes and row["config_hash"] != hashes[row["method"]]:
            raise InvalidArgument(
                f"{path} holds runs of {row['method']!r} with other settings than this version has. Choose another "
                "--out."
            )


def make_runs(tables: Sequence[Replay], runs: int, queries: int, record: SuiteRecord) -> Iterator[tuple[int, int, Row]]:
    """Make the runs that the record lacks, seed by seed, so that an interrupted one compares all methods.

    Yields:
        Number of rows there are, number there will be, and the newest.

    Raises:
        InvalidArgument: the record holds other runs, see `check`.
        WriteFailed: the disk refuses.
    """
    rows = record.rows()
    for where in tables:
        check(where, queries, rows, record.path)
    done = {(row["task"], row["method"], row["seed"]) for row in rows}
    exactly = [where for where in tables if where.noise == "mean" and where.seconds is None]
    wanted = [(where, method, seed) for seed in range(runs) for where in tables for method in METHODS]
    due = [one for one in wanted if (one[0].task.name, one[1].name, one[2]) not in done]
    lacking = [where for where in exactly if (where.task.name, EXACT, 0) not in done]
    total = len(wanted) + len(exactly)
    finished = total - len(due) - len(lacking)
    for where in lacking:
        finished += 1
        yield finished, total, _kept(record, exact(where, queries))
    for where, method, seed in due:
        finished += 1
        yield finished, total, _kept(record, replay(where, method, seed, queries))


def _kept(record: SuiteRecord, row: Row) -> Row:
    record.append(row)
    return row


# --- the command -----------------------------------------------------------------------------------


def _numbers(text: str) -> tuple[int, ...]:
    try:
        found = tuple(sorted({int(one) for one in text.split(",")}))
    except ValueError:
        found = ()
    if not found or found[0] < 1:
        raise argparse.ArgumentTypeError(f"numbers of queries are integers of at least 1, got {text!r}; e.g. 50,100")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nas_benchmarks.reproduction", description=__doc__)
    parser.add_argument(
        "--table",
        action="append",
        help="installed table or .parquet file, may be repeated (default: those installed of "
        f"{', '.join(USUAL_TABLES)})",
    )
    parser.add_argument("--runs", type=int, default=RUNS, help=f"runs of every method on every table (default: {RUNS})")
    parser.add_argument(
        "--queries",
        type=_numbers,
        default=QUERIES,
        help=f"numbers of queries, separated by commas (default: {','.join(map(str, QUERIES))})",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/reproduction"), help="directory that finished runs are recorded in"
    )
    parser.add_argument(
        "--show",
        type=Path,
        nargs="?",
        const=PACKAGED,
        help="print the table of a record (the packaged one) and run nothing",
    )
    parser.add_argument("--pack", type=Path, help="write the record into one .parquet file")
    parser.add_argument("--update", type=Path, help="Markdown file whose table is replaced")
    return parser


def _replays(names: Sequence[str] | None) -> list[Replay]:
    installed = [name for name in USUAL_TABLES if name in TABLES]
    return [Replay.of(name) for name in dict.fromkeys(names or installed or USUAL_TABLES[:1])]


def _run(arguments: argparse.Namespace) -> list[Row]:
    if arguments.runs < 1:
        raise InvalidArgument(f"--runs must be at least 1, got {arguments.runs}.")
    tables = _replays(arguments.table)
    record = SuiteRecord(arguments.out)
    with record.alone():
        _report(make_runs(tables, arguments.runs, max(arguments.queries), record))
    return rows_at(arguments.out)


def _report(made: Iterator[tuple[int, int, Row]]) -> None:
    """Say every few seconds how far the runs are."""
    started, said, first = time.monotonic(), -_PROGRESS_SECONDS, None
    for finished, total, row in made:
        first = finished - 1 if first is None else first
        now = time.monotonic()
        if now - said >= _PROGRESS_SECONDS or finished == total:
            said = now
            left = (now - started) / (finished - first) * (total - finished)
            sys.stderr.write(
                f"{finished:,} of {total:,} runs, last {row['method']} on {row['task']}, seed {row['seed']}; "
                f"about {left / 60:.0f} min left\n"
            )


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        rows = _run(arguments) if arguments.show is None else rows_at(arguments.show)
        text = markdown(rows, arguments.queries)
        sys.stdout.write(text + "\n")
        if arguments.pack is not None:
            pack(rows, arguments.pack)
        if arguments.update is not None:
            replace_between(arguments.update, "reproduction", text)
    except (InvalidArgument, UnknownName) as error:
        parser.error(str(error))
    except NASGymError as error:
        raise SystemExit(f"Error: {error}") from None
    except KeyboardInterrupt:
        sys.stderr.write(f"Interrupted. What is finished is in {arguments.out}; the same command goes on.\n")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
