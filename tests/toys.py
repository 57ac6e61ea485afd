"""Search spaces small enough to know everything about; importable from every test and from spawned workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from nas_gym.search_spaces import Decision, Encoding, SearchSpace
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

LAYERS = ("stop", "conv", "pool")
KERNELS = ("1x1", "3x3", "5x5", "7x7")
STOP, CONV, POOL = range(3)
LAYER_KIND, KERNEL_KIND = range(2)


@dataclass(frozen=True)
class Chain:
    """A chain of layers.

    Attributes:
        layers: ``"pool"`` or ``"conv"`` with its kernel, e.g. ``"conv 3x3"``.
    """

    layers: tuple[str, ...]

    def graph(self) -> tuple[tuple[str, ...], tuple[tuple[int, int, str], ...]]:
        """Return node labels and the edges (source, target, label) between them."""
        labels = ("input", *self.layers, "output")
        return labels, tuple((node, node + 1, "") for node in range(len(labels) - 1))


@dataclass(frozen=True)
class ToySpace(SearchSpace):
    """Chains of one to three layers: a grammar of varying length with context rules.

    A layer is a pool, which may not follow a pool, or a convolution, which is followed by the choice of its kernel.
    ``stop`` ends the chain and is illegal at its start; after the third layer it ends by itself.
    """

    name: ClassVar[str] = "toy"
    max_length: ClassVar[int] = 6
    max_choices: ClassVar[int] = len(KERNELS)
    max_layers: ClassVar[int] = 3
    kinds: ClassVar[int] = 2

    def decision(self, prefix: Encoding) -> Decision | None:
        """Return the choice of a kernel after a convolution, else of a layer, or None at the end of the chain."""
        layers = _read(prefix)
        if layers and layers[-1] == "conv":
            return Decision(KERNEL_KIND, KERNELS, ordered=True, mask=(True,) * len(KERNELS))
        if len(layers) == self.max_layers or (layers and layers[-1] == "stop"):
            return None
        may_stop, may_pool = bool(layers), not layers or layers[-1] != "pool"
        return Decision(LAYER_KIND, LAYERS, ordered=False, mask=(may_stop, True, may_pool, False))

    def decode(self, encoding: Encoding) -> Chain:
        """Return the chain.

        Raises:
            InvalidEncoding: `encoding` is not a complete legal sequence of decisions.
        """
        return Chain(tuple(layer for layer in _read(self.validate(encoding)) if layer != "stop"))


def _read(prefix: Encoding) -> list[str]:
    """Return the layers of a legal prefix; a convolution without its kernel yet is a bare ``"conv"``."""
    layers: list[str] = []
    for choice in prefix:
        if layers and layers[-1] == "conv":
            layers[-1] = f"conv {KERNELS[choice]}"
        else:
            layers.append(LAYERS[choice])
    return layers


FEW_CELLS: tuple[Encoding, ...] = ((0, 0, 0, 2, 0, 0), (1, 1, 1, 1, 1, 1), (2, 0, 0, 0, 0, 2), (3, 2, 1, 4, 1, 1))


@dataclass(frozen=True)
class FewCells(NASBench201Space):
    """Four cells of NAS-Bench-201, each a class of its own: few enough to train all of them in a test."""

    def size(self) -> int:
        """Return 4."""
        return len(FEW_CELLS)

    def enumerate(self) -> Iterator[Encoding]:
        """Iterate over the four cells."""
        return iter(FEW_CELLS)

    def canonical(self, encoding: Encoding) -> Encoding:
        """Return the cell itself."""
        return self.validate(encoding)


def die(*_arguments: object) -> None:
    """End this process at once, as a kill would: for workers that must not survive their start."""
    os._exit(1)
