"""What all layouts draw alike: nodes and the labels on edges."""

from __future__ import annotations

import re

from nas_gym.rendering.canvas import Canvas, Fonts, Point
from nas_gym.rendering.colours import BACKGROUND, FAINT, HALO, INK, LINE, MUTED, PAPER, colour_of, ink_on, mixed
from nas_gym.rendering.scene import UNDECIDED, Scene

NODE_FONT = 20
LABEL_FONT = 19
_NUMBER_FONT = 17
_NUMBER_WIDTH = 20
_HALO_WIDTH = 5
_EDGE_HALO_WIDTH = 3.5
_PILL_HEIGHT = 24


def split_number(label: str) -> tuple[str, str]:
    """Return the number and the rest of a label.

    >>> split_number("7:conv3"), split_number("input")
    (('7', 'conv3'), ('', 'input'))
    """
    number, rest = re.fullmatch(r"(?:(\d+):)?(.*)", label, re.DOTALL).groups()  # type: ignore[union-attr] - always matches
    return number or "", rest


def node_width(fonts: Fonts, labels: tuple[str, ...]) -> int:
    """Return how wide boxes must be for the labels of nodes, in pixels."""
    parts = map(split_number, labels)
    return max(56, *(fonts.width(rest, NODE_FONT) + 22 + (_NUMBER_WIDTH if number else 0) for number, rest in parts))


def pill_width(fonts: Fonts, label: str) -> int:
    """Return how wide the pill around a label is, in pixels."""
    return max(_PILL_HEIGHT, fonts.width(label, LABEL_FONT) + 18)


def draw_node(canvas: Canvas, scene: Scene, node: int, centre: Point, size: tuple[float, float]) -> None:
    """Draw a node with its label.

    Args:
        canvas: the picture.
        scene: what is shown.
        node: index of the node.
        centre: where.
        size: width and height of the box.
    """
    number, label = split_number(scene.sketch.nodes[node])
    if node in scene.last.nodes:
        canvas.box(centre, (size[0] + 2 * _HALO_WIDTH, size[1] + 2 * _HALO_WIDTH), HALO, radius=8 + _HALO_WIDTH)
    if label == UNDECIDED:
        canvas.box(centre, size, BACKGROUND)
        canvas.dashed_box(centre, size, INK if node in scene.next.nodes else LINE)
        canvas.text(label, centre, NODE_FONT, INK if node in scene.next.nodes else MUTED)
        return
    coloured = is_coloured(scene, node)
    fill = colour_of(label) if coloured else PAPER
    canvas.box(centre, size, fill, outline=None if coloured else MUTED)
    if number:
        left = (centre[0] - size[0] / 2 + 7, centre[1])
        canvas.text(number, left, _NUMBER_FONT, mixed(ink_on(fill), fill, 0.35), anchor="midleft")
        centre = (centre[0] + _NUMBER_WIDTH / 2, centre[1])
    canvas.text(label, centre, NODE_FONT, ink_on(fill), fit=size[0] - 10 - (_NUMBER_WIDTH if number else 0))


def is_coloured(scene: Scene, node: int) -> bool:
    """Tell whether a node is an operation: not where those are on edges, neither the input nor the final output."""
    edges = scene.sketch.edges
    has_edge_labels = any(label for *_, label in edges)
    is_source = all(target != node for _, target, _ in edges)
    is_sink = all(source != node for source, _, _ in edges)
    return not has_edge_labels and not is_source and not (is_sink and scene.sketch.nodes[node] != UNDECIDED)


def draw_pill(
    canvas: Canvas,
    label: str,
    centre: Point,
    *,
    is_last: bool = False,
    is_next: bool = False,
    is_masked: bool = False,
    fit: float | None = None,
) -> None:
    """Draw a label in the colour of its operation.

    Args:
        canvas: the picture.
        label: name of the operation.
        centre: where.
        is_last: whether the highlighted decision chose it.
        is_next: whether the next decision will.
        is_masked: whether it is a choice that may not be taken.
        fit: widest that it may be.
    """
    width = pill_width(canvas.fonts, label)
    size = (width if fit is None else min(width, fit), _PILL_HEIGHT)
    radius = _PILL_HEIGHT / 2
    if is_last:
        canvas.box(centre, (size[0] + 2 * _HALO_WIDTH, size[1] + 2 * _HALO_WIDTH), HALO, radius=radius + _HALO_WIDTH)
    if label == UNDECIDED:
        canvas.box(centre, size, BACKGROUND, outline=INK if is_next else LINE, radius=radius)
        canvas.text(label, centre, LABEL_FONT, INK if is_next else MUTED)
    elif is_masked:
        canvas.box(centre, size, BACKGROUND, outline=FAINT, radius=radius)
        canvas.text(label, centre, LABEL_FONT, LINE, fit=size[0] - 10)
    else:
        fill = colour_of(label)
        canvas.box(centre, size, fill, radius=radius)
        canvas.text(label, centre, LABEL_FONT, ink_on(fill), fit=size[0] - 10)


def draw_curve(
    canvas: Canvas,
    scene: Scene,
    edge: int,
    points: list[Point],
    towards: Point,
    width: float = 2.5,
) -> None:
    """Draw an edge along a curve, with its head in a direction; what is undecided is dashed.

    Its colour is that of its operation, or else that of the operation whose output it carries.
    """
    source, target, label = scene.sketch.edges[edge]
    is_open = UNDECIDED in (label, scene.sketch.nodes[target])
    if edge in scene.last.edges:
        canvas.line(points, HALO, width + 2 * _EDGE_HALO_WIDTH)
    if is_open:
        colour = INK if edge in scene.next.edges else LINE
    elif label:
        colour = colour_of(label)
    else:
        operation = split_number(scene.sketch.nodes[source])[1]
        colour = colour_of(operation) if is_coloured(scene, source) else MUTED
    norm = (towards[0] ** 2 + towards[1] ** 2) ** 0.5
    end = points[-1]
    shaft = (end[0] - 6 * towards[0] / norm, end[1] - 6 * towards[1] / norm)
    canvas.line([*points[:-1], shaft], colour, 1.5 if is_open else width, dashed=is_open)
    canvas.arrow_head(end, towards, colour)
