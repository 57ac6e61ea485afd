"""``nas-gym search --estimate``: what a search will cost, before it begins."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from nas_gym.cli.console import output
from nas_gym.errors import InvalidArgument, MissingExtra
from nas_gym.evaluators.core import Evaluator

if TYPE_CHECKING:
    from nas_gym.cli.search import Settings
    from nas_gym.evaluators.estimate import Estimate


def print_estimate(settings: Settings) -> None:
    """Train three children for one epoch each and print what the search would cost; nothing is kept.

    Raises:
        InvalidArgument: the environment does not train networks.
    """
    try:
        from nas_gym.evaluators.estimate import estimate
        from nas_gym.evaluators.training import TrainingEvaluator
    except ImportError as error:
        raise MissingExtra("--estimate", "train", error) from error
    with tempfile.TemporaryDirectory(prefix="nas-gym-estimate-") as folder:
        envs, _ = settings.make(Path(folder))
        try:
            evaluator = innermost(envs.evaluator)
            if not isinstance(evaluator, TrainingEvaluator):
                raise InvalidArgument(
                    f"--estimate is for environments that train networks; {settings.env} asks "
                    f"{type(evaluator).__name__}, whose answers cost next to nothing."
                )
            found = estimate(evaluator, np.random.default_rng(settings.seed))
        finally:
            envs.close()
    _print(settings, found)


def innermost(evaluator: Evaluator) -> Evaluator:
    """Return the evaluator inside all decorators."""
    inner = getattr(evaluator, "inner", None)
    return evaluator if inner is None else innermost(inner)


def _print(settings: Settings, found: Estimate) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("Start of the workers", f"{found.start_seconds:.1f} s")
    table.add_row(
        "A child",
        f"{found.seconds_per_child:.2f} s for {found.epochs} epochs ({found.slowest_seconds:.2f} s the slowest of 3)",
    )
    table.add_row("Memory", f"{found.peak_memory_bytes / 1e6:,.0f} MB at most, beside data and libraries")
    for name, share in found.over_limit.items():
        table.add_row(f"Over {name}", f"{share:.0%} of the search space")
    table.add_row(
        "The search",
        f"{duration(found.total_seconds(settings.budget))} for {settings.budget:,} queries on {found.workers} "
        f"worker{'s' if found.workers > 1 else ''}, less where architectures repeat",
    )
    output.print(table)
    for failure in found.failures:
        output.print(f"A sample failed: {failure}", markup=False, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Return a time for people.

    >>> duration(75.4), duration(5400.0), duration(90.0 * 3600)
    ('75 s', '1.5 hours', '3.8 days')
    """
    if math.isnan(seconds):
        return "unknown time"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
