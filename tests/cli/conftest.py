"""Running a group of commands in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from nas_gym.cli.console import output


@pytest.fixture
def run_app(monkeypatch: pytest.MonkeyPatch) -> Callable[[typer.Typer], Any]:
    """Return what makes of an app a function that returns what a command printed, or raises what it raised."""
    monkeypatch.setattr(output, "_width", 200)  # Undoing "width" itself would fix it for good.
    runner = CliRunner()

    def bind(app: typer.Typer) -> Callable[..., str]:
        def invoke(*arguments: object) -> str:
            result = runner.invoke(app, [str(argument) for argument in arguments])
            if result.exception is not None:
                raise result.exception
            return result.output

        return invoke

    return bind
