"""Colours and dashes of the methods, the same on the page and on paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_COLOURS = (
    "#1f5fa8", "#d1622b", "#2b8a3e", "#a8327d", "#7a5c00", "#0f8b8d", "#6741d9", "#c92a2a", "#5c677d", "#000000",
)  # fmt: skip
_DASHES = (("solid", "-"), ("dash", "--"), ("dot", ":"), ("dashdot", "-."))
_MARKERS = (("circle", "o"), ("diamond", "D"), ("square", "s"), ("triangle-up", "^"))


@dataclass(frozen=True)
class Look:
    """How a method is drawn.

    Attributes:
        colour: ``#rrggbb``.
        dash: names of the line's pattern, of Plotly and of matplotlib.
        marker: names of the point's shape, likewise.
    """

    colour: str
    dash: tuple[str, str]
    marker: tuple[str, str]

    def faint(self, opacity: float) -> str:
        """Return the colour with an opacity from 0 to 1, as CSS."""
        red, green, blue = (int(self.colour[at : at + 2], 16) for at in (1, 3, 5))
        return f"rgba({red},{green},{blue},{opacity})"


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """Return a look for each method; dash and marker differ as well, for readers and printers without colours."""
    return {
        method: Look(
            _COLOURS[index % len(_COLOURS)],
            _DASHES[(index + index // len(_COLOURS)) % len(_DASHES)],
            _MARKERS[(index + index // len(_COLOURS)) % len(_MARKERS)],
        )
        for index, method in enumerate(methods)
    }
