"""How an architecture grows decision by decision: one state, one tree of visited prefixes, info in columns.

Dimension letters: N sub-environments, K features, C = `space.max_choices`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_gym.envs.core.observations import Observation
from nas_gym.search_spaces.core import Encoding, SearchSpace


@dataclass(frozen=True)
class EpisodeState:
    """An episode as one immutable value, without random generator or evaluator state.

    Attributes:
        prefix: decisions taken so far.
        over: whether the episode has ended.
        fidelity: fidelity of its query, None = the evaluator's default.
    """

    prefix: Encoding
    over: bool
    fidelity: int | None


class Node:
    """A visited prefix with everything a step needs, so that a step follows a pointer and copies two arrays.

    Attributes:
        prefix: decisions taken.
        observation: what is seen, shape [K]; copied before it is handed out.
        mask: int8 [C], legal choices; copied before it is handed out.
        legal: the same as Python booleans.
        complete: whether the architecture is complete.
        children: visited nodes behind each choice.
    """

    __slots__ = ("children", "complete", "legal", "mask", "observation", "prefix")

    def __init__(self, prefix: Encoding, observation: npt.NDArray[Any], mask: npt.NDArray[np.bool_], complete: bool):
        """Create a node without children."""
        self.prefix = prefix
        self.observation = observation
        self.mask = mask.astype(np.int8)
        self.legal: list[bool] = mask.tolist()
        self.complete = complete
        self.children: list[Node | None] = [None] * len(self.legal)


class PrefixTree:
    """The tree of visited prefixes; emptied when it becomes too large."""

    def __init__(self, space: SearchSpace, observation: Observation, capacity: int = 100_000) -> None:
        """Start with the empty prefix."""
        self.space = space
        self.observation = observation
        self.capacity = capacity
        self.root = self._node(())
        self.size = 1

    def _node(self, prefix: Encoding) -> Node:
        prefixes, lengths = self.space.pack([prefix])
        return Node(
            prefix,
            self.observation.batch(prefixes, lengths)[0],
            self.space.masks(prefixes, lengths)[0],
            bool(self.space.complete(prefixes, lengths)[0]),
        )

    def child(self, node: Node, choice: int) -> Node:
        """Return the node behind a legal choice, creating it on the first visit."""
        found = node.children[choice]
        if found is None:
            if self.size >= self.capacity:
                self.root.children = [None] * len(self.root.legal)
                self.size = 1
            found = node.children[choice] = self._node((*node.prefix, choice))
            self.size += 1
        return found

    def find(self, prefix: Encoding) -> Node:
        """Return the node of a legal prefix."""
        node = self.root
        for choice in prefix:
            node = self.child(node, choice)
        return node


def scatter(values: npt.NDArray[Any], rows: npt.NDArray[np.int64], count: int) -> npt.NDArray[Any]:
    """Spread `values` over `count` rows: 0 elsewhere, None in object columns."""
    if len(rows) == count:
        return values
    empty = None if values.dtype == object else 0
    result = np.full((count, *values.shape[1:]), empty, dtype=values.dtype)
    result[rows] = values
    return result


def info_columns(columns: dict[str, Any], rows: npt.NDArray[np.int64], count: int) -> dict[str, Any]:
    """Lay out the info of some sub-environments as Gymnasium's `SyncVectorEnv` does.

    Every key gets an array over all `count` sub-environments and, under ``_key``, which of them have it; nested
    dictionaries are laid out inside. A dictionary keyed by integers holds values of single rows.
    """
    result: dict[str, Any] = {}
    for name, values in columns.items():
        present_rows = rows
        if isinstance(values, dict) and values and all(isinstance(key, int) for key in values):
            present_rows = rows[list(values)]
            laid_out: Any = np.full(count, None, dtype=object)
            laid_out[present_rows] = list(values.values())
        elif isinstance(values, dict):
            laid_out = info_columns(values, rows, count)
        else:
            laid_out = scatter(values, rows, count)
        present = np.zeros(count, np.bool_)
        present[present_rows] = True
        result[name], result[f"_{name}"] = laid_out, present
    return result
