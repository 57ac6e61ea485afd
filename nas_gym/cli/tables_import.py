"""``nas-gym tables import``: named tables out of the files of published benchmarks and out of one's own."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from nas_gym.cli.console import output
from nas_gym.errors import InvalidArgument
from nas_gym.tables.importers import FORMATS, ImportedTable, Options, Source, install, recognise
from nas_gym.tables.importers.installation import check_name, tables_folder

_SAY = functools.partial(output.print, markup=False, highlight=False, soft_wrap=True)


def import_table(
    source: Annotated[Path, typer.Argument(help="File or folder to import; its format is recognised by its content.")],
    name: Annotated[str, typer.Option(help="First half of the names of the tables, NAME-DATASET.")],
    format: Annotated[
        str | None, typer.Option(help=f"Format, where it is not recognised: {', '.join(FORMATS)}.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Import this data set only, or name that of --column.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="CSV and Parquet: ROLE=COLUMN; roles are architecture, signal, report, train_seconds, "
            "latency_seconds, parameters, multiply_adds, flops."
        ),
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="CSV and Parquet: percent or fraction, else recognised by the range.")
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="Search space, where the notation does not tell which it is.")
    ] = None,
    allow_missing: Annotated[bool, typer.Option(help="Import also what lacks architectures of its space.")] = False,
    force: Annotated[bool, typer.Option(help="Replace installed tables of the same names.")] = False,
    workers: Annotated[int, typer.Option(help="Processes that read a large archive.")] = 2,
) -> None:
    """Install the tables of a benchmark's files under $NAS_GYM_DATA/tables, one a data set.

    Reads the official NATS-Bench archives (topology and size; the "-simple" folder or a .tar of it), NAS-Bench-Macro's
    JSON, and any CSV or Parquet file with a column of architectures. Columns are understood by their names
    (architecture, cifar10_valid_12ep, cifar10_test_200ep, train_seconds, parameters, ...) or by --column. Nothing in an
    archive is executed, and tables are installed complete or not at all.

    Example: nas-gym tables import nats_bench_tss.csv.gz --name nats
    """
    # What can be refused at once is not refused after minutes of reading.
    check_name(name)
    tables_folder()
    read_from = Source(source)
    importer = recognise(read_from, format)
    _SAY(f"{source}: read as {importer.name}, {'as given' if format else 'recognised by its content'}.")
    bar = Progress(TextColumn("reading"), BarColumn(), MofNCompleteColumn(), console=output, transient=True)
    with bar:
        task = bar.add_task("reading", total=None, visible=False)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        options = Options(dataset, space, _roles(column or []), unit, workers, show)
        tables = importer.read(read_from, options)
    installed = install(name, tables, allow_missing=allow_missing, force=force)
    for table, done in zip(tables, installed, strict=True):
        missing = f", {done.missing:,} of the space are missing" if done.missing else ""
        _SAY(f"\n{done.name}: {done.rows:,} architectures of {table.space.name}{missing}")
        _describe(table)
        _SAY(f"  {done.path}")


def _describe(table: ImportedTable) -> None:
    """Print what every measurement was read from."""
    kinds = {table.metadata["signal"]: "signal", table.metadata["report"]: "report"}
    for name, measurement in table.measurements.items():
        kind = kinds.get(name, "held out" if measurement.held_out else "")
        epochs = measurement.trained_epochs or measurement.epochs
        after = f" after {epochs} epochs" if epochs else ""
        seeds = f", {measurement.seeds} seeds" if measurement.seeds else ""
        _SAY(f"  {kind:<8} {name}{after}{seeds}: {measurement.description}")
    if ignored := table.metadata.get("columns_ignored"):
        _SAY(f"  ignored columns: {', '.join(ignored)}")


def _roles(pairs: list[str]) -> dict[str, str]:
    """Return ROLE=COLUMN as a dictionary.

    Raises:
        InvalidArgument: a string without "=", or a role given twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        role, separator, name = pair.partition("=")
        if not separator or not role or not name:
            raise InvalidArgument(f"--column takes ROLE=COLUMN, got {pair!r}.")
        if role in found:
            raise InvalidArgument(f"--column got {role!r} twice.")
        found[role] = name
    return found
