"""An architecture as a picture: a head line, the graph, the last decision and the choices that are due."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import numpy as np
import numpy.typing as npt

from nas_gym.rendering.arcs import Arcs
from nas_gym.rendering.canvas import Canvas, Fonts
from nas_gym.rendering.colours import ALARM, DONE, FAINT, HALO, INK, MUTED
from nas_gym.rendering.parts import LABEL_FONT, draw_pill, pill_width
from nas_gym.rendering.rows import Rows
from nas_gym.rendering.scene import Profile, Scene, count_choices, profile
from nas_gym.search_spaces.core import Decision, Encoding, SearchSpace

_WIDTH = 920
_MARGIN = 40
_HEAD = 84
_FOOT = 72
_LINE_HEIGHT = 30
_MOST_LINES = 3
"""Lines of choices below a picture; decisions with more are counted instead."""

_GAP = 8
_INDENT = 96


class Layout(Protocol):
    """Where the parts of a graph are."""

    width: int
    height: int

    def draw(self, canvas: Canvas, scene: Scene, top: float) -> None:
        """Draw the graph of a scene below a height."""
        ...


def render_rgb(
    space: SearchSpace,
    prefix: Encoding,
    *,
    highlight: Collection[int] | None = None,
    invalid: bool = False,
    caption: str = "",
) -> npt.NDArray[np.uint8]:
    """Return a picture of an architecture, uint8 [height, width, 3]; its size depends on the space alone.

    Args:
        space: the search space.
        prefix: a legal beginning of an encoding, or a complete one.
        highlight: indices of the decisions to highlight; None = the last one taken.
        invalid: whether an invalid action ended the episode.
        caption: further words of the status line.

    Raises:
        MissingExtra: pygame is not installed.
        InvalidArgument: `highlight` has what is no index into `prefix`.
    """
    fonts = Fonts()
    scene = Scene.of(space, prefix, highlight=highlight, invalid=invalid, caption=caption)
    shape = profile(space)
    layout: Layout = Rows(shape, fonts, _WIDTH) if shape.is_chain else Arcs(shape, fonts, _WIDTH)
    lines = _lines(shape, fonts)
    height = _HEAD + layout.height + _FOOT + lines * _LINE_HEIGHT
    canvas = Canvas(layout.width, height + height % 2, fonts)  # Video formats want even numbers.
    _draw_head(canvas, scene)
    layout.draw(canvas, scene, _HEAD)
    _draw_foot(canvas, scene, _HEAD + layout.height, lines)
    return canvas.pixels()


# --- above the graph -------------------------------------------------------------------------------


def _draw_head(canvas: Canvas, scene: Scene) -> None:
    """Draw the name of the space and how far the architecture is, one tick a decision."""
    right = canvas.size[0] - _MARGIN
    canvas.text(scene.title, (_MARGIN, 34), 32, INK, anchor="midleft")
    canvas.text(scene.progress, (right, 35), 22, MUTED, anchor="midright")
    count = scene.space.max_length
    pitch = (right - _MARGIN) / count
    gap = min(4.0, pitch / 4)
    for place in range(count):
        middle = (_MARGIN + (place + 0.5) * pitch, 62)
        colour = HALO if place in scene.positions else INK if place < len(scene.prefix) else FAINT
        canvas.box(middle, (pitch - gap, 6), colour, radius=3)


# --- below the graph -------------------------------------------------------------------------------


def _draw_foot(canvas: Canvas, scene: Scene, top: float, lines: int) -> None:
    """Draw what was decided last, and what can be decided next or how the episode ended."""
    canvas.box((canvas.size[0] / 2, top + 6), (canvas.size[0] - 2 * _MARGIN, 1.5), FAINT, radius=0)
    first, second = top + 30, top + 30 + _LINE_HEIGHT + 6
    if scene.positions:
        canvas.text("last", (_MARGIN, first), LABEL_FONT + 1, MUTED, anchor="midleft")
    x = float(_INDENT)
    for position in scene.positions:
        label, words = scene.chosen(position), f"decision {position + 1}"
        width = pill_width(canvas.fonts, label)
        draw_pill(canvas, label, (x + width / 2, first), is_last=True)
        canvas.text(words, (x + width + 16, first), LABEL_FONT + 1, MUTED, anchor="midleft")
        x += width + canvas.fonts.width(words, LABEL_FONT + 1) + 44
    if scene.status:
        colour = ALARM if scene.invalid else DONE if scene.due is None else INK
        place = (canvas.size[0] - _MARGIN, first)
        canvas.text(scene.status, place, 22, colour, anchor="midright")
    if scene.due is not None:
        canvas.text("next", (_MARGIN, second), LABEL_FONT + 1, MUTED, anchor="midleft")
        if scene.space.kinds > 1:
            canvas.text(f"kind {scene.due.kind}", (_MARGIN, second + 15), LABEL_FONT - 3, MUTED, anchor="midleft")
        _draw_choices(canvas, scene.due, second, lines)


def _draw_choices(canvas: Canvas, due: Decision, top: float, lines: int) -> None:
    """Draw every choice of the next decision, faint where it is masked, or how many there are."""
    rows = _wrapped(due, canvas.fonts)
    if len(rows) > lines:
        canvas.text(count_choices(due), (_INDENT, top), LABEL_FONT + 1, INK, anchor="midleft")
        return
    for line, row in enumerate(rows):
        x = float(_INDENT)
        for choice in row:
            width = pill_width(canvas.fonts, due.labels[choice])
            place = (x + width / 2, top + line * _LINE_HEIGHT)
            draw_pill(canvas, due.labels[choice], place, is_masked=not due.mask[choice])
            x += width + _GAP


def _wrapped(decision: Decision, fonts: Fonts) -> list[list[int]]:
    """Return the choices of a decision, broken into lines."""
    rows: list[list[int]] = [[]]
    x = _INDENT
    for choice, label in enumerate(decision.labels):
        width = pill_width(fonts, label)
        if rows[-1] and x + width > _WIDTH - _MARGIN:
            if len(rows) > _MOST_LINES:
                break
            rows.append([])
            x = _INDENT
        rows[-1].append(choice)
        x += width + _GAP
    return rows


def _lines(shape: Profile, fonts: Fonts) -> int:
    """Return how many lines of choices a space needs at most; decisions that need too many take one."""
    needed = [len(_wrapped(decision, fonts)) for decision in shape.decisions]
    return max((count if count <= _MOST_LINES else 1 for count in needed), default=1)
