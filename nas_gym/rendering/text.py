"""An architecture as plain text, legible without colours: ``[last decision]``, ``<next decision>``."""

from __future__ import annotations

import textwrap
from collections.abc import Collection

from nas_gym.rendering.scene import Scene, count_choices, profile
from nas_gym.search_spaces.core import Decision, Encoding, SearchSpace

_WIDTH = 100


def render_text(
    space: SearchSpace,
    prefix: Encoding,
    *,
    highlight: Collection[int] | None = None,
    invalid: bool = False,
    caption: str = "",
) -> str:
    """Return the graph of an architecture, the decision just taken and the choices that are due.

    A chain is one path of arrows. Where operations are on edges, a node is the sum of what its edges compute; where
    they are on nodes, the nodes that it reads stand behind its name.

    Args:
        space: the search space.
        prefix: a legal beginning of an encoding, or a complete one.
        highlight: indices of the decisions to highlight; None = the last one taken.
        invalid: whether an invalid action ended the episode.
        caption: further words of the status line.

    Raises:
        InvalidArgument: `highlight` has what is no index into `prefix`.
    """
    scene = Scene.of(space, prefix, highlight=highlight, invalid=invalid, caption=caption)
    shape = profile(space)
    if shape.is_chain:
        graph = _path(scene)
    elif shape.has_edge_labels:
        graph = _sums(scene)
    else:
        graph = _readers(scene)
    return "\n".join([f"{scene.title}: {scene.progress}", *graph, *_footer(scene)])


def _node(scene: Scene, node: int) -> str:
    return _marked(scene.sketch.nodes[node], node in scene.last.nodes, node in scene.next.nodes)


def _marked(label: str, is_last: bool, is_next: bool) -> str:
    return f"[{label}]" if is_last else f"<{label}>" if is_next else label


def _path(scene: Scene) -> list[str]:
    """Return the nodes of a chain in a row, with arrows in between that carry the labels of the edges."""
    parts = [_node(scene, 0)]
    for edge, (_, target, label) in enumerate(scene.sketch.edges):
        name = _marked(label, edge in scene.last.edges, edge in scene.next.edges)
        parts += [f"-{name}->" if label else "->", _node(scene, target)]
    # A non-breaking space keeps names of several words together while the path is broken into lines.
    path = " ".join(part.replace(" ", "\N{NO-BREAK SPACE}") for part in parts)
    lines = textwrap.wrap(path, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def _sums(scene: Scene) -> list[str]:
    """Return one line a node: what the operations on its incoming edges make of their sources."""
    nodes, edges = scene.sketch.nodes, scene.sketch.edges
    width = max(len(label) for label in nodes)
    lines = []
    for node, label in enumerate(nodes):
        terms = [
            _marked(f"{name}({nodes[source]})", edge in scene.last.edges, edge in scene.next.edges)
            if name
            else nodes[source]
            for edge, (source, target, name) in enumerate(edges)
            if target == node
        ]
        if terms:
            lines.append(f"{label:>{width}} = {' + '.join(terms)}")
    return lines


def _readers(scene: Scene) -> list[str]:
    """Return one line a node: its operation and what it reads."""
    nodes, edges = scene.sketch.nodes, scene.sketch.edges
    width = max(len(label) for label in nodes) + 2
    lines = []
    for node, label in enumerate(nodes):
        sources = [nodes[source] for source, target, _ in edges if target == node]
        if sources:
            marked = _node(scene, node)
            margin = "" if marked != label else " "
            lines.append(f"{margin + marked:<{width}} <- {', '.join(sources)}")
    return lines


def _footer(scene: Scene) -> list[str]:
    lines = []
    if scene.positions:
        chosen = (f"[decision {position + 1}] {scene.chosen(position)}" for position in scene.positions)
        lines.append(f"last: {', '.join(chosen)}")
    if scene.due is not None:
        lines.append(f"next: <{scene.due_name}> {_choices(scene.due)}")
    return [*lines, scene.status] if scene.status else lines


def _choices(decision: Decision) -> str:
    """Return the legal choices of a decision, or their number where they do not fit into a line."""
    legal = ", ".join(label for label, allowed in zip(decision.labels, decision.mask, strict=False) if allowed)
    return legal if len(legal) <= _WIDTH - 20 else count_choices(decision)
