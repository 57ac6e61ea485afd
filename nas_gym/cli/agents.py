"""``nas-gym agents``: the registered agents and their settings."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Annotated, Any

import typer
from rich.table import Table

import nas_agents
from nas_gym.cli.console import output


def agents(
    name: Annotated[str | None, typer.Argument(help="An agent, to see its settings and presets.")] = None,
) -> None:
    """List the agents, or show the settings and presets of one.

    Example: nas-gym agents evolution
    """
    if name is None:
        listing = Table("Agent", "What it is", "Needs", box=None, pad_edge=False, header_style="bold")
        for key, entry in nas_agents.AGENTS.entries.items():
            listing.add_row(key, entry.summary, f"nas-gym[{entry.extra}]" if entry.extra else "")
        output.print(listing, markup=False)
        return
    agent = nas_agents.AGENTS[name]
    output.print(inspect.getdoc(agent), markup=False, highlight=False)
    presets: dict[str, Any] = {"default": agent.Config(), **agent.presets}
    listing = Table("--agent-arg", *presets, box=None, pad_edge=False, header_style="bold")
    for field in dataclasses.fields(agent.Config):
        listing.add_row(field.name, *(str(getattr(config, field.name)) for config in presets.values()))
    output.print()
    output.print(listing)
