"""The cell of NAS-Bench-201, which is the topology space of NATS-Bench: 4 nodes, 6 edges, 5 operations.

Sources: Dong & Yang, "NAS-Bench-201", ICLR 2020; Dong et al., "NATS-Bench", TPAMI 2021, sections 2 and 3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidEncoding
from nas_gym.search_spaces.core import Batch, Decision, Encoding, FixedSlotSpace, Sketch

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""The operations in the official order; a decision is an index into this tuple."""

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""(source, target) of each decision, in the order of the official string."""

NODES = 4

_ZERO = "#"


@dataclass(frozen=True)
class Cell:
    """A cell: one operation on each of the six edges between four nodes; node values are sums.

    Attributes:
        operations: names of the operations, aligned with `EDGES`.
    """

    operations: tuple[str, ...]

    def incoming(self, node: int) -> tuple[tuple[int, str], ...]:
        """Return (source, operation) of the edges into `node`, sources ascending."""
        return tuple(
            (source, name) for (source, target), name in zip(EDGES, self.operations, strict=True) if target == node
        )

    def graph(self) -> tuple[tuple[str, ...], tuple[tuple[int, int, str], ...]]:
        """Return node labels and the labelled edges (source, target, operation) that carry data."""
        labels = ("input", *(str(node) for node in range(1, NODES - 1)), "output")
        edges = tuple(
            (source, target, name)
            for (source, target), name in zip(EDGES, self.operations, strict=True)
            if name != "none"
        )
        return labels, edges

    def unique_string(self) -> str:
        """Return the official isomorphism string.

        It simplifies what is exact on paper: a skip passes its source's string on, `none` and everything
        computed from a zero is a zero, and the summands of a node are sorted. Nodes that sum several zeros
        are *not* simplified further, which is part of the official definition and of its 6,466 classes.
        """
        values = ["0"]
        for node in range(1, NODES):
            summands = []
            for source, name in self.incoming(node):
                if name == "none" or values[source] == _ZERO:
                    summands.append(_ZERO)
                elif name == "skip_connect":
                    summands.append(values[source])
                else:
                    summands.append(f"({values[source]})@{name}")
            values.append("+".join(sorted(summands)))
        return values[-1]


@dataclass(frozen=True)
class NASBench201Space(FixedSlotSpace):
    """15,625 cells in 6,466 isomorphism classes.

    `canonical` returns, of all cells with the same official isomorphism string, the one with the fewest
    parameters, then the smallest encoding. Networks of one class are not always equivalent once trained:
    the official string calls the batch normalisation of a zero a zero, although its learned shift is not,
    and 578 classes mix cells with different numbers of convolutions.
    """

    name: ClassVar[str] = "nas_bench_201"

    @property
    def slots(self) -> tuple[Decision, ...]:
        """Six decisions of one kind, one an edge."""
        return _SLOTS

    def decode(self, encoding: Encoding) -> Cell:
        """Return the cell.

        Raises:
            InvalidEncoding: `encoding` is not six integers from 0 to 4.
        """
        return Cell(tuple(OPERATIONS[choice] for choice in self.validate(encoding)))

    def sketch(self, prefix: Encoding) -> Sketch:
        """Return the cell's four nodes and the edges decided so far; undecided edges are labelled "?"."""
        names = [OPERATIONS[choice] for choice in prefix] + ["?"] * (len(EDGES) - len(prefix))
        edges = tuple((source, target, name) for (source, target), name in zip(EDGES, names, strict=True))
        return Sketch(("input", "1", "2", "output"), edges)

    def to_string(self, encoding: Encoding) -> str:
        """Return the official string, e.g. ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|``."""
        cell = self.decode(encoding)
        groups = (
            "|" + "|".join(f"{name}~{source}" for source, name in cell.incoming(node)) + "|" for node in range(1, NODES)
        )
        return "+".join(groups)

    def from_string(self, text: str) -> Encoding:
        """Return the encoding of an official string.

        Raises:
            InvalidEncoding: naming what differs from the official form.
        """
        groups = text.strip().split("+")
        if len(groups) != NODES - 1:
            raise InvalidEncoding(f"{text!r}: expected {NODES - 1} groups joined by '+', got {len(groups)}.")
        encoding: list[int] = []
        for node, group in enumerate(groups, start=1):
            tokens = re.fullmatch(r"\|(.+)\|", group)
            parts = tokens.group(1).split("|") if tokens else []
            if len(parts) != node:
                raise InvalidEncoding(
                    f"{text!r}: group {node} is {group!r}, expected {node} 'operation~source' in bars."
                )
            for source, part in enumerate(parts):
                name, _, index = part.partition("~")
                if name not in OPERATIONS or index != str(source):
                    raise InvalidEncoding(
                        f"{text!r}: {part!r} in group {node} should be an operation out of "
                        f"{', '.join(OPERATIONS)}, followed by '~{source}'."
                    )
                encoding.append(OPERATIONS.index(name))
        return tuple(encoding)

    @cached_property
    def _canonical_codes(self) -> npt.NDArray[np.int64]:
        return _canonical_codes()

    def canonical(self, encoding: Encoding) -> Encoding:
        """Return the representative of the class: fewest parameters, then smallest encoding."""
        code = int(self._canonical_codes[self.code(self.validate(encoding))])
        return self.all_encodings[code]

    def canonical_codes(self, batch: Batch) -> npt.NDArray[np.int64]:
        """Return the code of every row's representative, shape [N]."""
        return self._canonical_codes.take(batch.codes)


_SLOTS = tuple(Decision(kind=0, labels=OPERATIONS, ordered=False, mask=(True,) * len(OPERATIONS)) for _ in EDGES)


@lru_cache(maxsize=1)
def _canonical_codes() -> npt.NDArray[np.int64]:
    """Return the code of every cell's representative, shape [15625], read-only."""
    space = NASBench201Space()
    three, one = OPERATIONS.index("nor_conv_3x3"), OPERATIONS.index("nor_conv_1x1")
    best: dict[str, tuple[tuple[int, int], int]] = {}
    strings = []
    for code, encoding in enumerate(space.enumerate()):
        strings.append(space.decode(encoding).unique_string())
        # From four channels on, one 3x3 convolution has more parameters than six 1x1 convolutions.
        rank = ((encoding.count(three), encoding.count(one)), code)
        if strings[-1] not in best or rank < best[strings[-1]]:
            best[strings[-1]] = rank
    result = np.array([best[text][1] for text in strings], np.int64)
    result.flags.writeable = False
    return result
