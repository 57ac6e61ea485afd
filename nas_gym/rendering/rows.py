"""The layout of chains: boxes in rows that run to the right and back again, as an ox ploughs."""

from __future__ import annotations

from nas_gym.rendering.canvas import Canvas, Fonts, Point
from nas_gym.rendering.colours import FAINT
from nas_gym.rendering.parts import draw_curve, draw_node, draw_pill, node_width, pill_width
from nas_gym.rendering.scene import Profile, Scene

_MARGIN = 40
_BOX_HEIGHT = 38
_ROW_HEIGHT = 84
_PADDING = 8
_SHORTEST_ARROW = 30


class Rows:
    """Places for as many boxes as the longest chain has; those that are free yet are dots.

    Attributes:
        width: of the drawing, in pixels.
        height: of the drawing.
        box: width and height of a node.
    """

    def __init__(self, shape: Profile, fonts: Fonts, width: int) -> None:
        """Divide a drawing of a width among the nodes."""
        self.width = width
        self._labelled = shape.has_edge_labels
        self.box = (node_width(fonts, shape.node_labels), _BOX_HEIGHT)
        labels = max((pill_width(fonts, label) for label in shape.edge_labels), default=0)
        arrow = max(_SHORTEST_ARROW, labels + 36 if labels else 0)
        inside = width - 2 * _MARGIN
        most = max(1, int((inside + arrow) // (self.box[0] + arrow)))
        rows = -(-shape.capacity // most)
        self._columns = min(most, -(-shape.capacity // rows))
        self._pitch = (inside - self.box[0]) / max(self._columns - 1, 1)
        self._capacity = shape.capacity
        self.height = rows * _ROW_HEIGHT + 2 * _PADDING

    def places(self, nodes: int) -> list[Point]:
        """Return the centres of the boxes and of the dots behind them, for a chain of so many nodes.

        A chain longer than expected is pressed into the same height.
        """
        count = max(nodes, self._capacity)
        rows = -(-count // self._columns)
        centres = []
        for node in range(count):
            row, column = divmod(node, self._columns)
            if row % 2:
                column = self._columns - 1 - column
            x = _MARGIN + self.box[0] / 2 + column * self._pitch
            centres.append((x, _PADDING + (row + 0.5) * (self.height - 2 * _PADDING) / rows))
        return centres

    def draw(self, canvas: Canvas, scene: Scene, top: float) -> None:
        """Draw a chain below a height."""
        nodes, edges = scene.sketch.nodes, scene.sketch.edges
        places = [(x, y + top) for x, y in self.places(len(nodes))]
        for place in places[len(nodes) :]:
            canvas.box(place, (8, 8), FAINT, radius=4)
        for edge, (source, target, _) in enumerate(edges):
            start, end, towards = self._between(places[source], places[target])
            draw_curve(canvas, scene, edge, [start, end], towards)
        for node in range(len(nodes)):
            draw_node(canvas, scene, node, places[node], self.box)
        for edge, (source, target, label) in enumerate(edges):
            if label:
                start, end, _ = self._between(places[source], places[target])
                middle = ((start[0] + end[0]) / 2 - (3 if start[1] == end[1] else 0), (start[1] + end[1]) / 2)
                is_last, is_next = edge in scene.last.edges, edge in scene.next.edges
                draw_pill(canvas, label, middle, is_last=is_last, is_next=is_next)

    def _between(self, source: Point, target: Point) -> tuple[Point, Point, Point]:
        """Return where the arrow between two boxes begins, where it ends, and where it points."""
        if source[1] == target[1]:
            sign = 1 if target[0] > source[0] else -1
            half = sign * self.box[0] / 2
            return (source[0] + half, source[1]), (target[0] - half, target[1]), (sign, 0)
        half = self.box[1] / 2
        return (source[0], source[1] + half), (target[0], target[1] - half), (target[0] - source[0], 1)
