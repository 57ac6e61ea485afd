"""``nas-gym explain``: what the agent of a search has learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from nas_benchmarks.agent_state import FILE, read_state
from nas_benchmarks.records import RunDirectory
from nas_gym.cli.console import output
from nas_gym.cli.search import Settings
from nas_gym.errors import InvalidArgument

_SHOWN = 3


def explain(
    run: Annotated[Path, typer.Argument(help="Run directory of a search.")],
    alternatives: Annotated[int, typer.Option(help="Show so many other choices of every decision.")] = _SHOWN,
) -> None:
    """Print the architecture that the agent of a search thinks best, and what it has learnt along it.

    Example: nas-gym explain runs/my-run
    """
    if alternatives < 0:
        raise InvalidArgument(f"--alternatives must not be negative, got {alternatives}.")
    directory = RunDirectory.existing(run)
    settings = Settings.of_run(directory)
    envs, agent = settings.make(run)
    try:
        agent.load_state_dict(read_state(run / FILE))
        greedy = agent.greedy()
        if greedy is None:
            raise InvalidArgument(
                f"{settings.agent} learns no values of single decisions; there is nothing to explain."
            )
        known = {tuple(row["encoding"]): row for row in directory.rows()}
        output.print("Greedy architecture", style="bold")
        output.print(envs.space.to_string(greedy.encoding), soft_wrap=True, markup=False, highlight=False)
        output.print(_played(known.get(greedy.encoding)), highlight=False)
    finally:
        envs.close()
    output.print()
    listing = Table("", "Choice", greedy.meaning, "Next best", box=None, pad_edge=False, header_style="bold")
    for number, decided in enumerate(greedy.decisions, start=1):
        others = sorted(
            ((value, label) for label, value in decided.values.items() if label != decided.choice), reverse=True
        )
        shown = "  ".join(f"{label} {value:.4f}" for value, label in others[:alternatives])
        listing.add_row(str(number), decided.choice, f"{decided.values[decided.choice]:.4f}", shown)
    output.print(listing, markup=False)


def _played(row: dict[str, Any] | None) -> str:
    """Return what the search knows of the architecture."""
    if row is None:
        return "It was not built in the search."
    return f"In the search: row {row['row']}, status {row['status']}, reward {row['reward']:.4f}."
