"""The space of NAS-Bench-Macro: which block each of the eight layers of a mobile network is.

Source: Su et al., "Prioritized Architecture Sampling with Monto-Carlo Tree Search", CVPR 2021, arXiv 2103.11922, and
the code released with the benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidEncoding
from nas_gym.search_spaces.core import Batch, Decision, Encoding, FixedSlotSpace, Sketch

BLOCKS = ("Identity", "MB3_K3", "MB6_K5")
"""Blocks by the digit that stands for them: none, or an inverted bottleneck with expansion 3 or 6 and kernel 3 or 5."""

STAGES = (2, 3, 3)
"""Layers of each stage; the first layer of a stage halves the image and doubles the channels, whatever its block."""

IDENTITY = 0
LAYERS = sum(STAGES)

_DIGITS = tuple(str(choice) for choice in range(len(BLOCKS)))
_POSITIONS = tuple(f"{stage}.{layer}" for stage, layers in enumerate(STAGES, start=1) for layer in range(1, layers + 1))
_NODES = ("input", *_POSITIONS, "output")


def _edges(labels: Sequence[str]) -> tuple[tuple[int, int, str], ...]:
    """Return the chain of layers; what leads into a layer's output is labelled with its block."""
    return tuple((node, node + 1, label) for node, label in enumerate((*labels, "")))


@dataclass(frozen=True)
class BlockSequence:
    """A network: one block a layer.

    Attributes:
        blocks: names of the blocks, one a layer, from the first stage to the last.
    """

    blocks: tuple[str, ...]

    def stages(self) -> tuple[tuple[str, ...], ...]:
        """Return the blocks of each stage."""
        ends = np.cumsum(STAGES).tolist()
        return tuple(self.blocks[end - layers : end] for end, layers in zip(ends, STAGES, strict=True))

    def graph(self) -> tuple[tuple[str, ...], tuple[tuple[int, int, str], ...]]:
        """Return the outputs of the layers, named ``stage.layer``, and the edges (source, target, block), a chain."""
        return _NODES, _edges(self.blocks)


@dataclass(frozen=True)
class NASBenchMacroSpace(FixedSlotSpace):
    """6,561 encodings of 3,969 networks.

    An identity changes nothing except in the first layer of a stage, where it is a strided 1x1 convolution. So within
    a stage the other identities may stand anywhere. `canonical` puts them at the end of the stage, as the benchmark
    does before it trains a network.
    """

    name: ClassVar[str] = "nas_bench_macro"

    @property
    def slots(self) -> tuple[Decision, ...]:
        """Eight decisions of one kind, one a layer."""
        return _SLOTS

    def decode(self, encoding: Encoding) -> BlockSequence:
        """Return the blocks.

        Raises:
            InvalidEncoding: `encoding` is not eight integers from 0 to 2.
        """
        return BlockSequence(tuple(BLOCKS[choice] for choice in self.validate(encoding)))

    def sketch(self, prefix: Encoding) -> Sketch:
        """Return the chain of layers with the blocks decided so far; undecided ones are "?"."""
        return Sketch(_NODES, _edges([BLOCKS[choice] for choice in prefix] + ["?"] * (LAYERS - len(prefix))))

    def to_string(self, encoding: Encoding) -> str:
        """Return the official string of eight digits, e.g. ``22212202``."""
        return "".join(map(str, self.validate(encoding)))

    def from_string(self, text: str) -> Encoding:
        """Return the encoding of an official string.

        Raises:
            InvalidEncoding: naming what differs from the official form.
        """
        digits = text.strip()
        meaning = ", ".join(f"{digit} ({block})" for digit, block in zip(_DIGITS, BLOCKS, strict=True))
        if len(digits) != LAYERS:
            raise InvalidEncoding(
                f"{text!r}: expected {LAYERS} digits, one a layer, out of {meaning}, got {len(digits)} characters."
            )
        for digit, position in zip(digits, _POSITIONS, strict=True):
            if digit not in _DIGITS:
                stage, layer = position.split(".")
                raise InvalidEncoding(f"{text!r}: layer {layer} of stage {stage} is {digit!r}, allowed are {meaning}.")
        return tuple(map(_DIGITS.index, digits))

    def canonical(self, encoding: Encoding) -> Encoding:
        """Return the same network with identities moved to the end of each stage, its first layer excepted."""
        return _canonical(self.validate(encoding))

    @cached_property
    def _canonical_codes(self) -> npt.NDArray[np.int64]:
        return _canonical_codes()

    def canonical_codes(self, batch: Batch) -> npt.NDArray[np.int64]:
        """Return the code of every row's representative, shape [N]."""
        return self._canonical_codes.take(batch.codes)


_SLOTS = tuple(Decision(kind=0, labels=BLOCKS, ordered=False, mask=(True,) * len(BLOCKS)) for _ in range(LAYERS))


def _canonical(encoding: Encoding) -> Encoding:
    result: list[int] = []
    for layers in STAGES:
        first, *others = encoding[len(result) : len(result) + layers]
        kept = [choice for choice in others if choice != IDENTITY]
        result += [first, *kept, *[IDENTITY] * (len(others) - len(kept))]
    return tuple(result)


@lru_cache(maxsize=1)
def _canonical_codes() -> npt.NDArray[np.int64]:
    """Return the code of every encoding's representative, shape [6561], read-only."""
    space = NASBenchMacroSpace()
    result = np.array([space.code(_canonical(encoding)) for encoding in space.enumerate()], np.int64)
    result.flags.writeable = False
    return result
