"""``nas-gym envs``: the registered environments."""

from __future__ import annotations

import inspect
from typing import Annotated

import typer
from rich.markdown import Markdown
from rich.table import Table

from nas_gym.cli.console import output
from nas_gym.errors import UnknownName
from nas_gym.registration import ENVIRONMENTS
from nas_gym.registry import resolve


def envs(
    name: Annotated[str | None, typer.Argument(help="An environment id, to read its documentation.")] = None,
) -> None:
    """List the environments, or show the documentation of one.

    Example: nas-gym envs NAS-Cell-v0
    """
    if name is not None:
        if name not in ENVIRONMENTS:
            raise UnknownName("environment", name, ENVIRONMENTS)
        output.print(Markdown(inspect.getdoc(resolve(ENVIRONMENTS[name].entry_point)) or ""))
        return
    listing = Table("Id", "System", "What it is", box=None, pad_edge=False, header_style="bold")
    for key, row in ENVIRONMENTS.items():
        listing.add_row(key, row.system, row.summary)
    output.print(listing)
