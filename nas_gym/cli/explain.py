"""``nas-gym explain``: what the agent of a search has learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

import nas_agents
from nas_benchmarks.agent_state import FILE, read_state
from nas_benchmarks.records import RunDirectory
from nas_gym.cli.console import output
from nas_gym.cli.search import Settings
from nas_gym.errors import InvalidArgument, ResumeError

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
        _load(agent, run / FILE)
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
    reward = "none" if row["reward"] is None else f"{row['reward']:.4f}"
    return f"In the search: row {row['row']}, status {row['status']}, reward {reward}."


def _load(agent: nas_agents.Agent, path: Path) -> None:
    """Give an agent what it had learnt.

    Raises:
        ResumeError: the file is missing, damaged, or of another agent.
    """
    state = read_state(path)
    try:
        agent.load_state_dict(state)
    except (KeyError, TypeError, ValueError) as error:
        raise ResumeError(f"{path} is not of this agent: {type(error).__name__}: {error}.") from error
