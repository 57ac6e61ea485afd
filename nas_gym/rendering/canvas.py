"""Shapes and words on a picture, smooth at the edges, drawn with pygame."""

from __future__ import annotations

import itertools
import math
import os
import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from nas_gym.errors import MissingExtra
from nas_gym.rendering.colours import BACKGROUND, INK, Colour

Point: TypeAlias = tuple[float, float]
"""x and y in pixels, from the top left."""

_SCALE = 2
"""All is drawn so many times larger and then shrunk: pygame smooths no thick lines and spaces small letters badly."""


def import_pygame(feature: str) -> Any:  # noqa: ANN401 - a module
    """Return pygame without its greeting and without the warnings of what it imports.

    Raises:
        MissingExtra: it is not installed.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pygame
            import pygame.font
    except ImportError as error:
        raise MissingExtra(feature, "render", error) from error
    return pygame


class Fonts:
    """pygame's own font in the sizes that one picture needs.

    They belong to one picture, because fonts are void once other code in the process shuts pygame down.
    """

    def __init__(self) -> None:
        """Make none yet.

        Raises:
            MissingExtra: pygame is not installed.
        """
        self._pygame = import_pygame("rendering as an image")
        self._pygame.font.init()
        self._sizes: dict[int, Any] = {}

    def of(self, size: int) -> Any:  # noqa: ANN401 - pygame.font.Font
        """Return the font for a height in pixels of the finished picture."""
        if size not in self._sizes:
            self._sizes[size] = self._pygame.font.Font(None, size * _SCALE)
        return self._sizes[size]

    def width(self, words: str, size: int) -> int:
        """Return how wide words are, in pixels."""
        return self.of(size).size(words)[0] // _SCALE


class Canvas:
    """A picture in the making; what is drawn later covers what was drawn before."""

    def __init__(self, width: int, height: int, fonts: Fonts) -> None:
        """Begin with an empty picture of a size in pixels.

        Raises:
            MissingExtra: pygame is not installed.
        """
        self.size = (width, height)
        self.fonts = fonts
        self._pygame = import_pygame("rendering as an image")
        self._surface = self._pygame.Surface((width * _SCALE, height * _SCALE), depth=32)
        self._surface.fill(BACKGROUND)

    def box(
        self,
        centre: Point,
        size: tuple[float, float],
        fill: Colour | None,
        outline: Colour | None = None,
        width: float = 1.5,
        radius: float = 8,
    ) -> None:
        """Draw a rectangle with round corners."""
        rect = self._pygame.Rect(0, 0, round(size[0] * _SCALE), round(size[1] * _SCALE))
        rect.center = (round(centre[0] * _SCALE), round(centre[1] * _SCALE))
        radius = round(radius * _SCALE)
        if fill is not None:
            self._pygame.draw.rect(self._surface, fill, rect, border_radius=radius)
        if outline is not None:
            self._pygame.draw.rect(self._surface, outline, rect, width=round(width * _SCALE), border_radius=radius)

    def dashed_box(self, centre: Point, size: tuple[float, float], colour: Colour, width: float = 1.5) -> None:
        """Draw the outline of a rectangle in dashes."""
        x, y, half, tall = *centre, size[0] / 2, size[1] / 2
        corners = [(x - half, y - tall), (x + half, y - tall), (x + half, y + tall), (x - half, y + tall)]
        for start, end in zip(corners, [*corners[1:], corners[0]], strict=True):
            self.line([start, end], colour, width, dashed=True)

    def line(self, points: Sequence[Point], colour: Colour, width: float, dashed: bool = False) -> None:
        """Draw a curve through points."""
        path = _dashes(points) if dashed else [list(points)]
        for part in path:
            for start, end in itertools.pairwise(part):
                self._segment(start, end, colour, width)

    def _segment(self, start: Point, end: Point, colour: Colour, width: float) -> None:
        (x, y), (u, v) = start, end
        length = math.hypot(u - x, v - y)
        radius = width / 2
        if length > 0:
            dx, dy = radius * (u - x) / length, radius * (v - y) / length
            corners = [(x - dy, y + dx), (u - dy, v + dx), (u + dy, v - dx), (x + dy, y - dx)]
            self._pygame.draw.polygon(self._surface, colour, [(a * _SCALE, b * _SCALE) for a, b in corners])
        for a, b in (start, end):
            self._pygame.draw.circle(self._surface, colour, (a * _SCALE, b * _SCALE), radius * _SCALE)

    def arrow_head(self, tip: Point, towards: Point, colour: Colour, size: float = 9) -> None:
        """Draw a triangle that points in a direction."""
        angle = math.atan2(towards[1], towards[0])
        wings = [
            (tip[0] - size * math.cos(angle + turn), tip[1] - size * math.sin(angle + turn)) for turn in (-0.42, 0.42)
        ]
        self._pygame.draw.polygon(self._surface, colour, [(x * _SCALE, y * _SCALE) for x, y in (tip, *wings)])

    def text(
        self,
        words: str,
        position: Point,
        size: int,
        colour: Colour = INK,
        anchor: str = "center",
        fit: float | None = None,
    ) -> None:
        """Write words.

        Args:
            words: one line.
            position: where the anchor is.
            size: height of the font in pixels.
            colour: of the letters.
            anchor: which point of the words, as pygame names it: "center", "midleft", "midright", ...
            fit: widest that they may be; wider ones are written smaller.
        """
        while fit is not None and size > 8 and self.fonts.width(words, size) > fit:
            size -= 1
        drawn = self.fonts.of(size).render(words, True, colour)
        place = drawn.get_rect()
        setattr(place, anchor, (round(position[0] * _SCALE), round(position[1] * _SCALE)))
        self._surface.blit(drawn, place)

    def pixels(self) -> npt.NDArray[np.uint8]:
        """Return the picture, uint8 [height, width, 3]."""
        picture = self._pygame.transform.smoothscale(self._surface, self.size)
        return np.ascontiguousarray(self._pygame.surfarray.array3d(picture).transpose(1, 0, 2))


def _dashes(points: Sequence[Point], length: float = 5.0) -> list[list[Point]]:
    """Return every second piece of a curve, pieces of equal length."""
    pieces: list[list[Point]] = []
    drawing, left = True, length
    piece: list[Point] = [points[0]]
    for start, end in itertools.pairwise(points):
        x, y = start
        distance = math.hypot(end[0] - x, end[1] - y)
        while distance > left:
            x, y = x + (end[0] - x) * left / distance, y + (end[1] - y) * left / distance
            piece.append((x, y))
            if drawing:
                pieces.append(piece)
            piece, drawing, distance, left = [(x, y)], not drawing, distance - left, length
        left -= distance
        piece.append(end)
    if drawing and len(piece) > 1:
        pieces.append(piece)
    return pieces
