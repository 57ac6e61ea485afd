"""From an unfinished or finished architecture to text or a picture; pure functions of its prefix."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nas_gym.errors import MissingExtra
from nas_gym.search_spaces.core import Encoding, SearchSpace, Sketch

if TYPE_CHECKING:
    import pygame

_BACKGROUND = (255, 255, 255)
_INK = (40, 40, 40)
_FAINT = (190, 190, 190)
_PALETTE = ((31, 119, 180), (214, 96, 20), (34, 139, 69), (128, 60, 170), (180, 30, 60), (20, 130, 140), (120, 90, 60))


def render_text(space: SearchSpace, prefix: Encoding) -> str:
    """Return one line a node, as a sum of the operations on its incoming edges; undecided ones are ``?``."""
    sketch = space.sketch(prefix)
    width = max(len(label) for label in sketch.nodes)
    lines = [f"{space.name}: {len(prefix)} decisions taken"]
    for node, label in enumerate(sketch.nodes):
        terms = [
            f"{name}({sketch.nodes[source]})" if name else sketch.nodes[source]
            for source, target, name in sketch.edges
            if target == node
        ]
        if terms:
            lines.append(f"{label:>{width}} = {' + '.join(terms)}")
    return "\n".join(lines)


def render_rgb(space: SearchSpace, prefix: Encoding) -> npt.NDArray[np.uint8]:
    """Return a picture of the graph, uint8 [height, width, 3]: nodes in a row, one coloured arc an edge.

    Raises:
        MissingExtra: pygame is not installed.
    """
    try:
        import pygame
    except ImportError as error:
        raise MissingExtra("rendering as an image", "render", error) from error
    pygame.font.init()
    sketch = space.sketch(prefix)
    spacing = 200
    span = max((target - source for source, target, _ in sketch.edges), default=1)
    reach = 70 + 62 * (span - 1)
    surface = pygame.Surface((spacing * (len(sketch.nodes) - 1) + 160, 2 * reach))
    surface.fill(_BACKGROUND)
    middle = surface.get_height() // 2
    font = pygame.font.Font(None, 24)
    colours = _colours(space, sketch)
    for index, edge in enumerate(_longest_first(sketch)):
        _draw_edge(surface, font, edge, colours, spacing, middle, upwards=index % 2 == 0)
    for node, label in enumerate(sketch.nodes):
        _draw_node(surface, font, label, (80 + spacing * node, middle))
    return np.ascontiguousarray(pygame.surfarray.array3d(surface).transpose(1, 0, 2))


def _longest_first(sketch: Sketch) -> list[tuple[int, int, str]]:
    return sorted(sketch.edges, key=lambda edge: (edge[0] - edge[1], edge[0]))


def _draw_node(surface: pygame.Surface, font: pygame.font.Font, label: str, centre: tuple[int, int]) -> None:
    import pygame

    text = font.render(label, True, _INK)
    box = text.get_rect(center=centre).inflate(22, 18)
    pygame.draw.rect(surface, _BACKGROUND, box, border_radius=10)
    pygame.draw.rect(surface, _INK, box, width=2, border_radius=10)
    surface.blit(text, text.get_rect(center=centre))


def _draw_edge(
    surface: pygame.Surface,
    font: pygame.font.Font,
    edge: tuple[int, int, str],
    colours: dict[str, tuple[int, int, int]],
    spacing: int,
    middle: int,
    upwards: bool,
) -> None:
    """Draw an arc whose height grows with the distance of its nodes; neighbours get a straight line."""
    import pygame

    source, target, name = edge
    start, end = 80 + spacing * source, 80 + spacing * target
    height = (target - source - 1) * 62 * (-2 if upwards else 2)
    steps = [step / 40 for step in range(41)]
    curve = [(start + (end - start) * t, middle + height * 2 * t * (1 - t)) for t in steps]
    undecided = name in ("?", "none")
    colour = _FAINT if undecided else colours[name]
    pygame.draw.lines(surface, colour, False, curve, 1 if name == "none" else 3)
    tip, before = curve[33], curve[32]
    angle = math.atan2(tip[1] - before[1], tip[0] - before[0])
    wings = [(tip[0] - 13 * math.cos(angle + turn), tip[1] - 13 * math.sin(angle + turn)) for turn in (-0.45, 0.45)]
    pygame.draw.polygon(surface, colour, [tip, *wings])
    if name:
        text = font.render(name, True, _FAINT if undecided else colour, _BACKGROUND)
        surface.blit(text, text.get_rect(center=(round(curve[20][0]), round(curve[20][1]) - (0 if height else 18))))


def _colours(space: SearchSpace, sketch: Sketch) -> dict[str, tuple[int, int, int]]:
    """Return a colour for every edge label; labels of the first decision have the same one in all pictures."""
    first = space.decision(())
    labels = list(first.labels) if first is not None else []
    labels += sorted({name for _, _, name in sketch.edges} - set(labels))
    return {label: _PALETTE[index % len(_PALETTE)] for index, label in enumerate(labels)}
