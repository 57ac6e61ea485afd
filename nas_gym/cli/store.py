"""``nas-gym store``: look into evaluation stores, export, merge and verify them."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table as Listing

from nas_gym.cli.console import output
from nas_gym.errors import InvalidArgument, StoreError, UnknownName
from nas_gym.evaluators.core import LABELS, Status
from nas_gym.evaluators.store import EvaluationStore
from nas_gym.evaluators.stored import EvaluationKey, StoredEvaluation, strict_json

if TYPE_CHECKING:
    import pyarrow

app = typer.Typer(help="Evaluation stores: show, export, merge, verify.", no_args_is_help=True)

SHOWN_METRICS = 3
SUFFIXES = (".parquet", ".csv")

StorePath = Annotated[Path, typer.Argument(help="The store, a .sqlite file.")]


@app.command()
def show(
    path: StorePath,
    limit: Annotated[int, typer.Option(help="How many of the newest rows to list.")] = 10,
    status: Annotated[str | None, typer.Option(help=f"Only rows of this status: {', '.join(LABELS)}.")] = None,
) -> None:
    """Summarise a store and list its newest rows.

    Example: nas-gym store show evaluations.sqlite --limit 20 --status ok
    """
    if limit < 0:
        raise InvalidArgument(f"--limit must not be negative, got {limit}.")
    if status is not None and status not in LABELS:
        raise UnknownName("status", status, LABELS)
    wanted = None if status is None else Status(LABELS.index(status))
    with EvaluationStore.existing(path) as store:
        _print_summary(store)
        rows = store.newest(limit, wanted)
    if rows:
        output.print()
        output.print(_rows_listing(rows))


def _print_summary(store: EvaluationStore) -> None:
    counts = store.counts()
    transient = {status.label for status in Status if status.transient}
    failures = sum(count.rows for count in counts if count.status in transient)
    _say(
        f"{store.path}: {len(store):,} evaluations, {failures:,} transient failures, "
        f"artifacts {store.artifact_bytes() / 1e6:,.1f} MB"
    )
    if not counts:
        return
    listing = Listing("Space", "Evaluator", "Data set", "Status", "Rows", box=None, pad_edge=False, header_style="bold")
    for count in counts:
        listing.add_row(*map(escape, count[:-1]), f"{count.rows:,}")
    output.print()
    output.print(listing)


def _rows_listing(rows: list[tuple[EvaluationKey, StoredEvaluation]]) -> Listing:
    """Return rows with the metrics of the first of them that has any."""
    names = next((list(value.metrics)[:SHOWN_METRICS] for _, value in rows if value.metrics), [])
    listing = Listing(
        "Encoding",
        "Epochs",
        "Status",
        *map(escape, names),
        "Cost",
        "Host",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    for key, value in rows:
        metrics = (f"{value.metrics[name]:,.6g}" if name in value.metrics else "" for name in names)
        encoding = " ".join(map(str, key.encoding))
        listing.add_row(
            encoding,
            str(key.fidelity),
            value.status.label,
            *metrics,
            f"{value.cost_seconds:,.1f} s",
            escape(value.host),
        )
    return listing


@app.command()
def export(
    path: StorePath,
    out: Annotated[Path, typer.Argument(help="The .parquet or .csv file to write; an existing one is refused.")],
) -> None:
    """Write all permanent answers into one table, a column for every metric; curves are JSON.

    Example: nas-gym store export evaluations.sqlite evaluations.parquet
    """
    if out.suffix not in SUFFIXES:
        raise InvalidArgument(f"{out} must end in {' or '.join(SUFFIXES)}.")
    if out.exists():
        raise InvalidArgument(f"{out} exists already; choose another file or remove it.")
    with EvaluationStore.existing(path) as store:
        table = _table(store.rows())
    _write(table, out)
    _say(f"Wrote {table.num_rows:,} rows to {out}.")


def _table(rows: Iterable[tuple[EvaluationKey, StoredEvaluation]]) -> pyarrow.Table:
    """Return one row an answer: the key, the metrics (null where a row has none), how it came about."""
    import pyarrow as pa

    pairs = list(rows)
    before = {
        "space": pa.array([key.space for key, _ in pairs], pa.string()),
        "encoding": pa.array([json.dumps(key.encoding) for key, _ in pairs], pa.string()),
        "evaluator": pa.array([key.evaluator for key, _ in pairs], pa.string()),
        "version": pa.array([key.version for key, _ in pairs], pa.int64()),
        "dataset": pa.array([key.dataset for key, _ in pairs], pa.string()),
        "recipe": pa.array([key.recipe for key, _ in pairs], pa.string()),
        "seed": pa.array([key.seed for key, _ in pairs], pa.int64()),
        "fidelity": pa.array([key.fidelity for key, _ in pairs], pa.int64()),
        "parent": pa.array([key.parent for key, _ in pairs], pa.string()),
        "status": pa.array([value.status.label for _, value in pairs], pa.string()),
    }
    after = {
        "cost_seconds": pa.array([value.cost_seconds for _, value in pairs], pa.float64()),
        "curve": pa.array([strict_json(value.curve) for _, value in pairs], pa.string()),
        "message": pa.array([value.message for _, value in pairs], pa.string()),
        "artifact": pa.array([value.artifact for _, value in pairs], pa.string()),
        "host": pa.array([value.host for _, value in pairs], pa.string()),
        "versions": pa.array([json.dumps(value.versions) for _, value in pairs], pa.string()),
        "created": pa.array([value.created for _, value in pairs], pa.string()),
    }
    columns = dict(before)
    parts = {"metric": [value.metrics for _, value in pairs], "held_out": [value.held_out for _, value in pairs]}
    for part, values in parts.items():
        for name in dict.fromkeys(name for metrics in values for name in metrics):
            column = f"{part}.{name}" if name in columns or name in after else name
            columns[column] = pa.array([metrics.get(name) for metrics in values], pa.float64())
    return pa.table({**columns, **after})


def _write(table: pyarrow.Table, out: Path) -> None:
    """Write a file that appears when it is complete.

    Raises:
        InvalidArgument: its directory does not exist or cannot be written.
    """
    from pyarrow import csv, parquet

    temporary = out.with_name(f"{out.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as stream:
            if out.suffix == ".csv":
                csv.write_csv(table, stream)
            else:
                parquet.write_table(table, stream)
        os.replace(temporary, out)
    except OSError as error:
        raise InvalidArgument(f"{out} cannot be written: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


@app.command()
def merge(
    target: Annotated[Path, typer.Argument(help="The store that grows; created where there is none.")],
    sources: Annotated[list[Path], typer.Argument(help="Stores to take rows and artifacts from.")],
) -> None:
    """Copy what other stores have into one; where both have an answer, the target's stays.

    Example: nas-gym store merge all.sqlite machine1.sqlite machine2.sqlite
    """
    for source in sources:
        EvaluationStore.existing(source).close()
    with EvaluationStore(target) as store:
        for source in sources:
            with EvaluationStore.existing(source) as other:
                added = store.merge(other)
                differing = store.conflicts(other)
            _say(f"{source}: {added:,} rows added; {len(differing):,} have another answer in {target}, which was kept.")


@app.command()
def verify(path: StorePath) -> None:
    """Read everything in a store and compare it with its hashes.

    Example: nas-gym store verify evaluations.sqlite
    """
    with EvaluationStore.existing(path) as store:
        problems = store.verify()
        rows = len(store) if not problems else 0
    if problems:
        noun = "problem" if len(problems) == 1 else "problems"
        raise StoreError(f"{path}: {len(problems)} {noun}:\n" + "\n".join(problems))
    _say(f"{path}: {rows:,} evaluations, everything matches.")


def _say(text: str) -> None:
    output.print(text, markup=False, highlight=False, soft_wrap=True)
