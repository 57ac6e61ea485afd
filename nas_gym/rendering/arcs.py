"""The layout of graphs: nodes on a line in their order, edges as arcs on both sides of it.

Nothing moves when a node is added, no edge runs through a node, and any number of nodes and edges can be drawn.
"""

from __future__ import annotations

from nas_gym.rendering.canvas import Canvas, Fonts, Point
from nas_gym.rendering.colours import FAINT
from nas_gym.rendering.parts import draw_curve, draw_node, draw_pill, node_width
from nas_gym.rendering.scene import Profile, Scene
from nas_gym.search_spaces.core import Sketch

_MOST_IN_A_ROW = 7
"""Nodes that fit next to each other; more stand below each other."""

_MARGIN = 40
_CURVE_STEPS = 36
_APEX = 0.75
"""Share of its control points' distance that a cubic curve reaches."""


class Arcs:
    """A line with places for as many nodes as the largest graph has; those that are free yet are dots.

    Along the line is one coordinate, across it the other; both layouts differ in which of them is x.

    Attributes:
        width: of the drawing, in pixels.
        height: of the drawing.
        box: width and height of a node.
        is_row: whether the line runs to the right; else downwards.
    """

    def __init__(self, shape: Profile, fonts: Fonts, width: int) -> None:
        """Divide a drawing of a width among the nodes."""
        self._labelled = shape.has_edge_labels
        self._capacity = shape.capacity
        self.is_row = shape.capacity <= _MOST_IN_A_ROW
        box = node_width(fonts, shape.node_labels)
        self.box = (box, 40) if self.is_row else (box, 24)
        self._half_along, self._half_across = (box / 2, 20) if self.is_row else (12, box / 2)
        self._step, self._first_bulge = (52, 58) if self._labelled else (13, 24)
        self.width = width
        if self.is_row:
            self._pitch = (width - 2 * _MARGIN - box) / max(shape.capacity - 1, 1)
            self._start = _MARGIN + box / 2
        else:
            self._pitch, self._start = 30, 24
        reach = [self._reach(sketch) for sketch in shape.examples]
        left, right = (max(found[side] for found in reach) for side in (-1, 1))
        extra = 22 if self._labelled else 10
        if self.is_row:
            self.height = round(left + right + 2 * extra)
            self._middle = left + extra
        else:
            self.height = round(self._pitch * (shape.capacity - 1) + 2 * self._start)
            most = (width - 2 * _MARGIN - box) / 2
            left, right = min(left, most), min(right, most)
            self._middle = (width + left - right) / 2
        self._reaches = {-1: left, 1: right}

    def _reach(self, sketch: Sketch) -> dict[int, float]:
        """Return how far the arcs of a graph go on both sides."""
        reach = {-1: self._half_across, 1: self._half_across}
        for (source, target, _), side in zip(sketch.edges, sides(sketch), strict=True):
            if side:
                reach[side] = max(reach[side], self._bulge(target - source) + self._half_across)
        return reach

    def _bulge(self, span: int) -> float:
        return self._first_bulge + self._step * (span - 2)

    def _point(self, along: float, across: float, top: float) -> Point:
        if self.is_row:
            return along, top + self._middle + across
        return self._middle + across, top + along

    def _pressed(self, nodes: int) -> float:
        """Return the distance between nodes; a graph larger than expected is pressed into the same length."""
        return self._pitch * min(1.0, (self._capacity - 1) / max(nodes - 1, 1))

    def places(self, nodes: int) -> list[Point]:
        """Return the centres of the boxes and of the dots behind them, for a graph of so many nodes."""
        pitch = self._pressed(nodes)
        return [self._point(self._start + node * pitch, 0, 0) for node in range(max(nodes, self._capacity))]

    def draw(self, canvas: Canvas, scene: Scene, top: float) -> None:
        """Draw a graph below a height."""
        nodes, edges = scene.sketch.nodes, scene.sketch.edges
        places = [(x, y + top) for x, y in self.places(len(nodes))]
        for place in places[len(nodes) :]:
            canvas.box(place, (8, 8), FAINT, radius=4)
        pitch = self._pressed(len(nodes))
        curves = [
            self._curve(source, target, side, pitch, top)
            for (source, target, _), side in zip(edges, sides(scene.sketch), strict=True)
        ]
        for edge in sorted(range(len(edges)), key=lambda edge: edge in scene.last.edges):
            points = curves[edge]
            towards = (points[-1][0] - points[-2][0], points[-1][1] - points[-2][1])
            draw_curve(canvas, scene, edge, points, towards, 3 if self._labelled else 2)
        for node in range(len(nodes)):
            draw_node(canvas, scene, node, places[node], self.box)
        for edge, (_, _, label) in enumerate(edges):
            if label:
                apex = curves[edge][len(curves[edge]) // 2]
                draw_pill(canvas, label, apex, is_last=edge in scene.last.edges, is_next=edge in scene.next.edges)

    def _curve(self, source: int, target: int, side: int, pitch: float, top: float) -> list[Point]:
        """Return the points of an edge: straight between neighbours, else an arc on a side."""
        start, end = self._start + source * pitch, self._start + target * pitch
        if side == 0:
            start, end = start + self._half_along, end - self._half_along
            return [self._point(start + (end - start) * step / 4, 0, top) for step in range(5)]
        # What leaves a node and what reaches it do so at different points.
        shift = self._half_along * 0.45
        start, end = start + shift, end - shift
        bulge = min(self._bulge(target - source), self._reaches[side] - self._half_across) / _APEX
        points = []
        for step in range(_CURVE_STEPS + 1):
            t = step / _CURVE_STEPS
            along = start + (end - start) * (3 * t * t - 2 * t**3)
            across = self._half_across + bulge * 3 * t * (1 - t)
            points.append(self._point(along, side * across, top))
        return points


def sides(sketch: Sketch) -> list[int]:
    """Return on which side of the line every edge runs: 0 between neighbours, else where it crosses fewer arcs.

    Edges are placed in their order, so that later ones move none of the earlier.
    """
    placed: list[tuple[int, int, int]] = []
    taken: list[int] = []
    straight: set[tuple[int, int]] = set()
    for source, target, _ in sketch.edges:
        if target == source + 1 and (source, target) not in straight:
            straight.add((source, target))
            taken.append(0)
            continue
        crossings = {side: 0 for side in (-1, 1)}
        for left, right, side in placed:
            crossings[side] += left < source < right < target or source < left < target < right
            crossings[side] += (left, right) == (source, target)
        side = -1 if crossings[-1] <= crossings[1] else 1
        placed.append((source, target, side))
        taken.append(side)
    return taken
