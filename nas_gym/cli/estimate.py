"""``nas-gym search --estimate``: what a search will cost, before it begins."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table
from rich.text import Text

from nas_gym.cli.console import output
from nas_gym.datasets.catalogue import FACTS
from nas_gym.errors import InvalidArgument, MissingExtra
from nas_gym.evaluators.core import Evaluator

if TYPE_CHECKING:
    from nas_benchmarks.published import PublishedSearch
    from nas_gym.cli.search import Settings
    from nas_gym.evaluators.estimate import Estimate

_GPU_FLOPS = 10e12


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


def print_published(settings: Settings, published: PublishedSearch) -> None:
    """Print every value of a published search, where it comes from, and what the search computes.

    Raises:
        MissingExtra: the extra for training is not installed.
    """
    try:
        from nas_gym.evaluators.estimate import computation
        from nas_gym.evaluators.training import TrainingEvaluator
    except ImportError as error:
        raise MissingExtra("--preset", "train", error) from error
    table = Table("", "Value of the paper", "", "Source", "", box=None, pad_edge=False, header_style="bold")
    given = {"--env-arg": settings.env_args, "--agent-arg": settings.agent_args, "search": {"budget": settings.budget}}
    for where, name, one in published.rows():
        used = given.get(where, {}).get(name, one.value)
        note = one.note if used == one.value else f"you chose {used}"
        if where == "--agent-arg" and settings.agent != published.agent:
            note = f"not used: you chose the agent {settings.agent}"
        table.add_row(where, name, str(one.value), one.source, Text(note))
    output.print(table)
    for deviation in published.deviations:
        output.print(f"Not as published: {deviation}.", markup=False, highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="nas-gym-estimate-") as folder:
        envs, _ = settings.make(Path(folder))
        evaluator = innermost(envs.evaluator)
        facts = FACTS.get(str(settings.env_args.get("dataset")))
        found = None
        if isinstance(evaluator, TrainingEvaluator) and facts is not None:
            found = computation(evaluator, facts, np.random.default_rng(settings.seed))
        envs.close()
    if found is None:
        return
    output.print(
        f"A child computes {found.child_flops:.2g} operations on average (the largest of 100 samples "
        f"{found.largest_share:.0f} times as many). {settings.budget:,} children take "
        f"{found.days(settings.budget):,.3g} days on this machine's {found.device} "
        f"({found.flops_per_second / 1e9:,.3g} GFLOP/s measured), {found.days(settings.budget, _GPU_FLOPS):,.3g} "
        f"GPU-days at an assumed {_GPU_FLOPS / 1e12:.0f} TFLOP/s. Published: {published.published_cost}.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


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
