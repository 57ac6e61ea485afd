"""The command line, a file each.

``nas-gym search | train | explain | doctor | envs | agents | bench | report | datasets | store | tables``
"""

from __future__ import annotations

import sys

import typer

from nas_gym import __version__
from nas_gym.cli import agents, bench, datasets, doctor, envs, explain, report, search, store, tables, train
from nas_gym.cli.console import errors
from nas_gym.errors import (
    FidelityError,
    InvalidArgument,
    InvalidEncoding,
    NASGymError,
    RunExists,
    UnknownName,
)

BAD_ARGUMENTS = (FidelityError, InvalidArgument, InvalidEncoding, RunExists, UnknownName)

app = typer.Typer(
    name="nas-gym",
    help="Neural architecture search as a Gymnasium environment suite.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("search")(search.search)
app.command("train")(train.train)
app.command("explain")(explain.explain)
app.command("doctor")(doctor.doctor)
app.command("envs")(envs.envs)
app.command("agents")(agents.agents)
app.command("report")(report.report)
app.add_typer(bench.app, name="bench")
app.add_typer(datasets.app, name="datasets")
app.add_typer(store.app, name="store")
app.add_typer(tables.app, name="tables")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nas-gym {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", help="Print the version.", callback=_print_version, is_eager=True),
) -> None:
    """Neural architecture search as a Gymnasium environment suite."""


def main() -> None:
    """Run the command line: 0 done, 2 bad arguments, 130 interrupted, 1 anything else."""
    try:
        app()
    except BAD_ARGUMENTS as error:
        errors.print(f"Error: {error}", style="red", markup=False, highlight=False)
        sys.exit(2)
    except NASGymError as error:
        errors.print(f"Error: {error}", style="red", markup=False, highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        errors.print("Interrupted.", style="yellow")
        sys.exit(130)
