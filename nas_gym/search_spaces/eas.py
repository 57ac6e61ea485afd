"""EAS: a plain CNN or a DenseNet that grows from a trained start network.

Source: Cai, Chen, Zhang, Yu & Wang, Efficient Architecture Search by Network Transformation, AAAI 2018, arXiv
1707.04873, and the code released with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from nas_gym.errors import InvalidArgument
from nas_gym.search_spaces.growing import Block, TransformSpace
from nas_gym.search_spaces.starts import DenseStart, GrownDense, GrownPlain, PlainStart

FILTER_LEVELS = (16, 32, 64, 96, 128, 192, 256, 320, 384, 448, 512)
"""Widths of convolutions in the paper's first experiment."""

UNIT_LEVELS = (64, 128, 256, 384, 512, 640, 768, 896, 1024)
"""Widths of fully connected layers there."""

GROWTH_LEVELS = tuple(range(4, 49, 2))
"""Growth rates of dense layers."""

DEMO_FILTER_LEVELS = tuple(range(4, 41, 4))
"""Widths of convolutions in the small space of the released code."""

DEMO_UNIT_LEVELS = tuple(range(8, 81, 8))
"""Widths of fully connected layers there."""

DEMO_BLOCKS = ((4,), (4,), (4,), (4,))
"""Widths of the convolutions in the released start network; its fully connected layer has 8 units."""

KERNELS = (1, 3, 5)
"""Kernels of inserted convolutions."""


@dataclass(frozen=True)
class EASSpace(TransformSpace):
    """A plain CNN that grows: wider steps on all layers, deeper steps in a block of convolutions or the last one.

    The defaults are the small space of the released code; `PAPER` are those of the paper's first experiment.

    Attributes:
        blocks: widths of the convolutions of every block of the start network.
        units: widths of its hidden fully connected layers, which are the last block; may be none.
        kernel: of its convolutions.
        wider: steps that ask every layer of the start network.
        deeper: layers that are put in.
        filter_levels: widths of convolutions, ascending.
        unit_levels: widths of fully connected layers, ascending.
        kernels: of inserted convolutions, odd.
        max_layers: largest number of layers in a block.
        network: layers of a start network that grew before, e.g. ``C8x3 C8x5 P C16x3 A F16``; `blocks`, `units` and
            `kernel` are then not used.

    Raises:
        InvalidArgument: a value outside its range, or a width or kernel of the start network that is not a level.
    """

    name: ClassVar[str] = "eas"

    blocks: tuple[tuple[int, ...], ...] = DEMO_BLOCKS
    units: tuple[int, ...] = (8,)
    kernel: int = 3
    wider: int = 4
    deeper: int = 5
    filter_levels: tuple[int, ...] = DEMO_FILTER_LEVELS
    unit_levels: tuple[int, ...] = DEMO_UNIT_LEVELS
    kernels: tuple[int, ...] = KERNELS
    max_layers: int = 10
    network: str | None = None

    def __post_init__(self) -> None:
        """Make tuples of sequences and check the values."""
        if self.network is not None:
            self._begin_at(str(GrownPlain.parse(self.network)), "blocks", "units", "kernel")
        if not isinstance(self.blocks, Sequence) or not self.blocks:
            raise InvalidArgument(f"blocks must be a non-empty sequence of sequences of widths, got {self.blocks!r}.")
        object.__setattr__(self, "blocks", tuple(_numbers("a block of blocks", block) for block in self.blocks))
        for name, least in (("units", 0), ("filter_levels", 1), ("unit_levels", 1), ("kernels", 1)):
            object.__setattr__(self, name, _numbers(name, getattr(self, name), least))
        for name in ("filter_levels", "unit_levels", "kernels"):
            _check_ascending(name, getattr(self, name))
        if not all(kernel % 2 for kernel in self.kernels):
            raise InvalidArgument(f"kernels must be odd, so that an inserted one has a centre, got {self.kernels}.")
        self._check()

    @cached_property
    def start(self) -> PlainStart | GrownPlain:  # type: ignore[override]
        """The network at the beginning of every episode."""
        return PlainStart(self.blocks, self.units, self.kernel) if self.network is None else self._layers

    @cached_property
    def _layers(self) -> GrownPlain:
        """The start network layer by layer."""
        if self.network is not None:
            return GrownPlain.parse(self.network)
        return PlainStart(self.blocks, self.units, self.kernel).grown()

    @cached_property
    def start_blocks(self) -> tuple[Block, ...]:  # type: ignore[override]
        """Blocks between poolings, the fully connected layers last."""
        found = [
            Block(f"conv{number}", "C", layers, self.filter_levels, self.kernels, 2)
            for number, layers in enumerate(self._layers.convolutions, start=1)
        ]
        if self._layers.units:
            code = 2 + len(self.filter_levels) * len(self.kernels)
            found.append(Block("fc", "F", self._layers.units, self.unit_levels, (), code))
        return tuple(found)

    @cached_property
    def separators(self) -> tuple[tuple[str, ...], ...]:  # type: ignore[override]
        """Poolings between the blocks of convolutions, and the average behind the last."""
        poolings = (("P",),) * (len(self._layers.convolutions) - 1)
        return ((), *poolings, ("A",), ()) if self._layers.units else ((), *poolings, ("A",))


@dataclass(frozen=True)
class EASDenseSpace(TransformSpace):
    """A DenseNet-BC that grows: wider steps on the growth rates of all layers, deeper steps in a dense block.

    At the end of an episode stem and transitions catch up with the growth, see
    `nas_gym.networks.eas.widen_transitions`. The defaults are those of the released code.

    Attributes:
        layers: dense layers in each block of the start network.
        blocks: number of blocks.
        growth: growth rate of the start network.
        wider: steps that ask every layer of the start network.
        deeper: layers that are put in.
        growth_levels: growth rates, ascending.
        max_layers: largest number of layers in a block.
        network: layers of a start network that grew before, e.g. ``S8 D4 D4 T8 D4 A``; `layers`, `blocks` and `growth`
            are then not used.

    Raises:
        InvalidArgument: a value outside its range, or a growth rate of the start network that is not a level.
    """

    name: ClassVar[str] = "eas_dense"

    layers: int = 1
    blocks: int = 3
    growth: int = 4
    wider: int = 10
    deeper: int = 5
    growth_levels: tuple[int, ...] = GROWTH_LEVELS
    max_layers: int = 20
    network: str | None = None

    def __post_init__(self) -> None:
        """Make a tuple of the levels and check the values."""
        if self.network is not None:
            self._begin_at(str(GrownDense.parse(self.network)), "layers", "blocks", "growth")
        for name in ("layers", "blocks"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidArgument(f"{name} must be an integer of at least 1, got {value!r}.")
        object.__setattr__(self, "growth_levels", _numbers("growth_levels", self.growth_levels))
        _check_ascending("growth_levels", self.growth_levels)
        self._check()

    @cached_property
    def start(self) -> DenseStart | GrownDense:  # type: ignore[override]
        """The network at the beginning of every episode."""
        if self.network is not None:
            return GrownDense.parse(self.network)
        return DenseStart(self.layers, self.blocks, self.growth)

    @cached_property
    def start_blocks(self) -> tuple[Block, ...]:  # type: ignore[override]
        """The dense blocks."""
        return tuple(
            Block(f"dense{number}", "D", layers, self.growth_levels, (), 2)
            for number, layers in enumerate(self.start.grown().blocks, start=1)
        )

    @cached_property
    def separators(self) -> tuple[tuple[str, ...], ...]:  # type: ignore[override]
        """Stem, transitions, and the last one before the classifier."""
        return (("S",), *((("T",),) * (len(self.start_blocks) - 1)), ("A",))


PAPER = {
    "blocks": ((16,), (32,), (64,), (128,)),
    "units": (256,),
    "filter_levels": FILTER_LEVELS,
    "unit_levels": UNIT_LEVELS,
}
"""Settings of `EASSpace` for the paper's first experiment."""

SMALL = {
    "blocks": ((8,), (16,)),
    "units": (16,),
    "wider": 2,
    "deeper": 3,
    "filter_levels": (8, 16, 24, 32, 48),
    "unit_levels": (16, 32, 48, 64),
    "max_layers": 4,
}
"""Settings of `EASSpace` for images of 8x8 pixels and minutes on two cores; ours."""


def _numbers(name: str, value: object, least: int = 1) -> tuple[int, ...]:
    """Return a sequence of positive integers as a tuple.

    Raises:
        InvalidArgument: it is none.
    """
    fits = isinstance(value, Sequence) and not isinstance(value, str) and len(value) >= least
    numbers = tuple(value) if fits else ()  # type: ignore[arg-type]
    if not fits or not all(isinstance(one, int) and not isinstance(one, bool) and one > 0 for one in numbers):
        raise InvalidArgument(f"{name} must be a sequence of at least {least} positive integers, got {value!r}.")
    return numbers


def _check_ascending(name: str, values: Sequence[int]) -> None:
    if any(second <= first for first, second in itertools.pairwise(values)):
        raise InvalidArgument(f"{name} must ascend, got {values}.")
