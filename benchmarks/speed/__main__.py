"""Measure everything and print a Markdown table; ``--update README.md`` puts it between the markers there."""

from __future__ import annotations

import argparse
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from ..markdown import replace_between
from . import asynchrony, environments, faults, imports, sb3, searches, store, tables, training
from .timing import Row


def measure(table: str, nats_bench: Path | None) -> list[Row]:
    """Return all rows; the comparison with nats-bench needs its data."""
    rows = [environments.single(table), environments.vector(table)]
    if nats_bench is not None:
        rows.append(tables.queries(table, nats_bench))
    rows += [
        tables.first_load(table),
        tables.memory(table),
        *imports.cost(),
        searches.reinforce(table),
        *sb3.compare(table),
    ]
    rows += [training.overhead(), training.two_workers(), *asynchrony.utilisation(), store.commits()]
    return [*rows, faults.injected_faults()]


def markdown(rows: list[Row]) -> str:
    """Return the rows as a Markdown table with the versions that were measured."""
    lines = ["| What | nas-gym | Compared with | Ratio | Wanted | Met |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row.what} | {row.ours} | {row.other} | {row.ratio} | {row.wanted} | {'yes' if row.met else 'no'} |"
        for row in rows
    ]
    versions = ", ".join(f"{name} {version(name)}" for name in ("gymnasium", "numpy", "pyarrow", "torch"))
    lines += ["", f"Python {platform.python_version()}, {versions}."]
    return "\n".join(lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m nas_benchmarks.speed", description=__doc__)
    parser.add_argument("--table", default="digits", help="name or path of a table (default: digits)")
    parser.add_argument("--nats-bench", type=Path, help="official NATS-tss directory, to compare with its package")
    parser.add_argument("--update", type=Path, help="file whose speed table is replaced")
    arguments = parser.parse_args()
    text = markdown(measure(arguments.table, arguments.nats_bench))
    sys.stdout.write(text + "\n")
    if arguments.update is not None:
        replace_between(arguments.update, "speed", text)


if __name__ == "__main__":
    main()
