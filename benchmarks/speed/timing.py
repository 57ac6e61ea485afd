"""Timing that holds on shared, noisy machines: interleaved, the best of many repeats, compared as a ratio."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the report.

    Attributes:
        what: what was measured.
        ours: our figure, with its unit.
        other: the figure it is compared with, or the limit.
        ratio: how many times as fast, or the share of the limit that is used.
        wanted: what the project demands.
        met: whether it is met.
    """

    what: str
    ours: str
    other: str
    ratio: str
    wanted: str
    met: bool


def best_seconds(ours: Callable[[], None], other: Callable[[], None], repeats: int = 15) -> tuple[float, float]:
    """Run both alternately and return the shortest processor seconds of each.

    Processor time and the minimum leave out what other processes take away; alternating gives both the same chance.
    """
    found: tuple[list[float], list[float]] = ([], [])
    for function in (ours, other):
        function()
    for _ in range(repeats):
        for times, function in zip(found, (ours, other), strict=True):
            started = time.process_time()
            function()
            times.append(time.process_time() - started)
    return min(found[0]), min(found[1])


def faster(what: str, ours: float, other: float, unit: str, name: str, wanted: float) -> Row:
    """Return a row that compares two rates per second."""
    ratio = ours / other
    return Row(
        what,
        f"{ours:,.0f} {unit}/s",
        f"{name}: {other:,.0f} {unit}/s",
        f"{ratio:,.1f}x",
        f"{wanted:g}x",
        ratio >= wanted,
    )


def below(what: str, value: float, limit: float, unit: str) -> Row:
    """Return a row that compares a figure with its limit."""
    return Row(what, f"{value:.3g} {unit}", "-", "-", f"under {limit:g} {unit}", value < limit)
