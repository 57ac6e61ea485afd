"""What there is to draw of an architecture: its sketch, the decision just taken, the one that is due."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from nas_gym.errors import InvalidArgument
from nas_gym.search_spaces.core import Decision, Encoding, SearchSpace, Sketch

UNDECIDED = "?"
"""How sketches label what is not decided yet."""

INVALID = "ended by an invalid action"
COMPLETE = "complete"

_WALKS = 16

_EdgeKey: TypeAlias = tuple[int, int, int]
"""Source, target, and how many edges between them come before."""


@dataclass(frozen=True)
class Marks:
    """Parts of a sketch.

    Attributes:
        nodes: indices of nodes.
        edges: indices of edges.
    """

    nodes: frozenset[int] = frozenset()
    edges: frozenset[int] = frozenset()

    def joined(self, other: Marks) -> Marks:
        """Return the parts of both."""
        return Marks(self.nodes | other.nodes, self.edges | other.edges)


@dataclass(frozen=True)
class Scene:
    """An architecture as text and pictures show it.

    Attributes:
        space: its search space.
        prefix: the decisions taken.
        sketch: its graph.
        positions: indices of the highlighted decisions, ascending.
        last: what they draw.
        due: the next decision, None after the last or once the episode is over.
        next: what it will draw.
        invalid: whether an invalid action ended the episode.
        caption: further words of the status line.
    """

    space: SearchSpace
    prefix: Encoding
    sketch: Sketch
    positions: tuple[int, ...]
    last: Marks
    due: Decision | None
    next: Marks
    invalid: bool
    caption: str

    @classmethod
    def of(
        cls,
        space: SearchSpace,
        prefix: Encoding,
        *,
        highlight: Collection[int] | None = None,
        invalid: bool = False,
        caption: str = "",
    ) -> Scene:
        """Collect what there is to draw.

        Args:
            space: the search space.
            prefix: a legal beginning of an encoding, or a complete one.
            highlight: indices of the decisions to highlight; None = the last one taken.
            invalid: whether an invalid action ended the episode.
            caption: further words of the status line, e.g. how many edits are left.

        Raises:
            InvalidArgument: `highlight` has what is no index into `prefix`.
        """
        taken = range(len(prefix))
        positions = tuple(taken[-1:] if highlight is None else sorted(set(highlight)))
        if outside := [position for position in positions if position not in taken]:
            raise InvalidArgument(
                f"highlight holds indices of the {len(prefix)} decisions that were taken, from 0 on, got {outside}."
            )
        sketch = space.sketch(prefix)
        last = Marks()
        for position in positions:
            last = last.joined(_drawn(space, prefix, position, sketch))
        due = None if invalid else space.decision(prefix)
        following = Marks()
        if due is not None:
            successor = (*prefix, due.mask.index(True))
            following = _undecided(sketch, _drawn(space, successor, len(prefix), sketch))
        return cls(space, prefix, sketch, positions, last, due, following, invalid, caption)

    @property
    def title(self) -> str:
        """Name of the space."""
        return self.space.name

    @property
    def progress(self) -> str:
        """How many decisions were taken, and of how many."""
        limit = "" if profile(self.space).one_length else "at most "
        return f"{len(self.prefix)} of {limit}{self.space.max_length} decisions"

    @property
    def status(self) -> str:
        """Whether and how it ended, and the caption; empty while decisions are due."""
        ended = INVALID if self.invalid else "" if self.due is not None else COMPLETE
        return ", ".join(words for words in (ended, self.caption) if words)

    def chosen(self, position: int) -> str:
        """Return the name of what a decision chose."""
        decision = self.space.decision(self.prefix[:position])
        return decision.labels[self.prefix[position]] if decision is not None else ""

    @property
    def due_name(self) -> str:
        """The next decision by number, and by kind where there are several."""
        kind = f", kind {self.due.kind}" if self.due is not None and self.space.kinds > 1 else ""
        return f"decision {len(self.prefix) + 1}{kind}"


def count_choices(decision: Decision) -> str:
    """Return how many choices there are, for decisions with too many to list.

    >>> count_choices(Decision(0, ("a", "b", "c"), False, (True, False, True)))
    '2 of 3 choices'
    """
    legal = sum(decision.mask)
    total = len(decision.labels)
    return f"{total:,} choices" if legal == total else f"{legal:,} of {total:,} choices"


# --- what a decision draws -------------------------------------------------------------------------


def _edge_keys(sketch: Sketch) -> list[_EdgeKey]:
    seen: dict[tuple[int, int], int] = {}
    keys: list[_EdgeKey] = []
    for source, target, _ in sketch.edges:
        number = seen[source, target] = seen.get((source, target), -1) + 1
        keys.append((source, target, number))
    return keys


def _edge_labels(sketch: Sketch) -> dict[_EdgeKey, str]:
    return dict(zip(_edge_keys(sketch), (label for *_, label in sketch.edges), strict=True))


def _drawn(space: SearchSpace, prefix: Encoding, position: int, sketch: Sketch) -> Marks:
    """Return which parts of a sketch the decision at `position` drew: what differs between before and behind it.

    What was there as undecided counts first. Only where nothing was, new parts do: a chain that becomes complete also
    gets its output, which is no decision.
    """
    before, behind = space.sketch(prefix[:position]), space.sketch(prefix[: position + 1])
    old, new = _edge_labels(before), _edge_labels(behind)
    common = range(min(len(before.nodes), len(behind.nodes)))
    nodes = {node for node in common if before.nodes[node] != behind.nodes[node]}
    changed = {key for key, label in new.items() if key in old and old[key] != label}
    if not nodes and not changed:
        nodes = {node for node in range(len(common), len(behind.nodes)) if behind.nodes[node] != UNDECIDED}
        changed = {
            key for key, label in new.items() if key not in old and UNDECIDED not in (label, behind.nodes[key[1]])
        }
    edges = (edge for edge, key in enumerate(_edge_keys(sketch)) if key in changed or key[1] in nodes)
    return Marks(frozenset(node for node in nodes if node < len(sketch.nodes)), frozenset(edges))


def _undecided(sketch: Sketch, marks: Marks) -> Marks:
    """Return those parts that are not decided yet: nodes, edges, and what leads into those nodes."""
    nodes = frozenset(node for node in marks.nodes if sketch.nodes[node] == UNDECIDED)
    edges = frozenset(
        edge for edge in marks.edges if sketch.edges[edge][2] == UNDECIDED or sketch.edges[edge][1] in nodes
    )
    return Marks(nodes, edges)


# --- what all architectures of a space have in common ----------------------------------------------


@dataclass(frozen=True)
class Profile:
    """What decides the layout: the same for every prefix, so that nothing jumps and all frames have one size.

    Attributes:
        capacity: nodes of the largest sketch.
        is_chain: whether every node follows the one before it.
        has_edge_labels: whether operations are on edges.
        one_length: whether every architecture takes `max_length` decisions.
        node_labels: labels of nodes that were met.
        edge_labels: labels of edges that were met.
        decisions: one decision of every kind and set of labels that was met.
        examples: sketches of long complete architectures.
    """

    capacity: int
    is_chain: bool
    has_edge_labels: bool
    one_length: bool
    node_labels: tuple[str, ...]
    edge_labels: tuple[str, ...]
    decisions: tuple[Decision, ...]
    examples: tuple[Sketch, ...]


@lru_cache(maxsize=64)
def profile(space: SearchSpace) -> Profile:
    """Return what the architectures of a space have in common, as far as a few long random ones show it."""
    rng = np.random.default_rng(0)
    longest = [_long_walk(space, rng) for _ in range(_WALKS)]
    empty = len(space.sketch(()).nodes)
    capacity = empty
    for encoding in longest:
        grown = len(space.sketch(encoding).nodes)
        missing = (space.max_length - len(encoding)) * (grown - empty)
        capacity = max(capacity, grown + -(-missing // max(len(encoding), 1)))
    prefixes = [encoding[:length] for encoding in longest for length in range(len(encoding) + 1)]
    sketches = [space.sketch(prefix) for prefix in prefixes]
    edges = [edge for sketch in sketches for edge in sketch.edges]
    decisions = {
        (decision.kind, decision.labels): decision for decision in map(space.decision, prefixes) if decision is not None
    }
    return Profile(
        capacity,
        all(target == source + 1 for source, target, _ in edges),
        any(label for *_, label in edges),
        all(len(space.sample(rng)) == space.max_length for _ in range(_WALKS)),
        _distinct(label for sketch in sketches for label in sketch.nodes),
        _distinct(label for *_, label in edges),
        tuple(decisions.values()),
        tuple(space.sketch(encoding) for encoding in longest),
    )


def _long_walk(space: SearchSpace, rng: np.random.Generator) -> Encoding:
    """Return an architecture that ends only where every choice ends it."""
    prefix: Encoding = ()
    while (decision := space.decision(prefix)) is not None:
        legal = np.flatnonzero(decision.mask)
        rng.shuffle(legal)
        longer = ((*prefix, choice) for choice in legal.tolist())
        prefix = next((one for one in longer if not space.is_complete(one)), (*prefix, int(legal[0])))
    return prefix


def _distinct(labels: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({label for label in labels if label}))
