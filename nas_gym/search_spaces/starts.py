"""Networks at the beginning of an episode that grows them: as published, or grown before, in the notation of layers.

=================  =========================================================================================
``C16x3``          convolution: width and kernel
``P``              pooling between blocks of convolutions
``A``              average over the image, behind the last block
``F64``            hidden fully connected layer: width
``S8``             stem of a DenseNet: width; ``S`` = twice the mean growth rate
``D4``             dense layer: growth rate
``T6``             transition between dense blocks: width; ``T`` = half of its inputs
=================  =========================================================================================

A plain CNN is written ``C8x3 C8x5 P C16x3 A F16``, a DenseNet ``S8 D4 D4 T8 D4 A``; both end in a classifier that is
not written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from nas_gym.errors import InvalidArgument


@dataclass(frozen=True)
class Layer:
    """A hidden layer.

    Attributes:
        width: filters, units or growth rate.
        kernel: of a convolution that is inserted or searched; 0 where there is no such choice.
    """

    width: int
    kernel: int = 0

    def __str__(self) -> str:
        """Return width and kernel."""
        return f"{self.width}x{self.kernel}" if self.kernel else str(self.width)


Layers: TypeAlias = tuple[Layer, ...]


@dataclass(frozen=True)
class PlainStart:
    """A plain CNN: blocks of convolutions with pooling between, average, fully connected layers.

    Attributes:
        blocks: widths of the convolutions of every block.
        units: widths of the fully connected layers.
        kernel: of all convolutions.
    """

    blocks: tuple[tuple[int, ...], ...]
    units: tuple[int, ...]
    kernel: int

    def grown(self) -> GrownPlain:
        """Return the same network layer by layer."""
        blocks = tuple(tuple(Layer(width, self.kernel) for width in widths) for widths in self.blocks)
        return GrownPlain(blocks, tuple(map(Layer, self.units)))


@dataclass(frozen=True)
class DenseStart:
    """A DenseNet-BC.

    Attributes:
        layers: dense layers in each block.
        blocks: number of blocks.
        growth: growth rate of all layers.
    """

    layers: int
    blocks: int
    growth: int

    def grown(self) -> GrownDense:
        """Return the same network layer by layer."""
        return GrownDense(((Layer(self.growth),) * self.layers,) * self.blocks, (None,) * self.blocks)


@dataclass(frozen=True)
class GrownPlain:
    """A plain CNN whose layers differ, such as the result of an earlier search.

    Attributes:
        convolutions: layers of every block of convolutions.
        units: hidden fully connected layers.
    """

    dense: ClassVar[bool] = False

    convolutions: tuple[Layers, ...]
    units: Layers

    @classmethod
    def parse(cls, network: object) -> GrownPlain:
        """Return the network of a notation such as ``C8x3 C8x5 P C16x3 A F16``.

        Raises:
            InvalidArgument: naming the first token that is wrong.
        """
        blocks: list[list[Layer]] = [[]]
        units: list[Layer] = []
        averaged = False
        tokens = _tokens(network)
        for position, token in enumerate(tokens):
            last = bool(blocks[-1])
            allowed = ("F64",) if averaged else ("C16x3", "P", "A") if last else ("C16x3",)
            kind, numbers = _split(token)
            if kind == "C" and len(numbers) == 2 and not averaged:
                blocks[-1].append(Layer(*numbers))
            elif kind == "F" and len(numbers) == 1 and averaged:
                units.append(Layer(*numbers))
            elif token == "P" and last and not averaged:
                blocks.append([])
            elif token == "A" and last and not averaged:
                averaged = True
            else:
                raise _refused(network, position, token, allowed)
        if not averaged:
            raise _refused(network, len(tokens), None, ("C16x3", "P", "A") if blocks[-1] else ("C16x3",))
        return cls(tuple(map(tuple, blocks)), tuple(units))

    @property
    def short(self) -> str:
        """The notation, which leaves nothing out."""
        return str(self)

    @property
    def blocks(self) -> tuple[Layers, ...]:
        """Layers of all blocks, the fully connected ones last."""
        return (*self.convolutions, self.units) if self.units else self.convolutions

    def grown(self) -> GrownPlain:
        """Return itself."""
        return self

    def __str__(self) -> str:
        """Return the notation."""
        blocks = [" ".join(f"C{layer}" for layer in layers) for layers in self.convolutions]
        return " ".join((" P ".join(blocks), "A", *(f"F{layer}" for layer in self.units)))


@dataclass(frozen=True)
class GrownDense:
    """A DenseNet-BC whose layers differ, such as the result of an earlier search.

    Attributes:
        blocks: layers of every dense block; their widths are growth rates.
        widths: of the stem and of the transitions behind all blocks but the last; None = by the rule of the published
            DenseNet, see the top of this module.
    """

    dense: ClassVar[bool] = True

    blocks: tuple[Layers, ...]
    widths: tuple[int | None, ...]

    @classmethod
    def parse(cls, network: object) -> GrownDense:
        """Return the network of a notation such as ``S8 D4 D4 T8 D4 A``.

        Raises:
            InvalidArgument: naming the first token that is wrong.
        """
        blocks: list[list[Layer]] = []
        widths: list[int | None] = []
        averaged = False
        tokens = _tokens(network)
        for position, token in enumerate(tokens):
            last = bool(blocks and blocks[-1])
            allowed = () if averaged else ("S8",) if not blocks else ("D4", "T6", "A") if last else ("D4",)
            kind, numbers = _split(token)
            starts = (kind == "S" and not blocks) or (kind == "T" and last)
            if starts and len(numbers) <= 1 and not averaged:
                widths.append(numbers[0] if numbers else None)
                blocks.append([])
            elif kind == "D" and len(numbers) == 1 and blocks and not averaged:
                blocks[-1].append(Layer(*numbers))
            elif token == "A" and last and not averaged:
                averaged = True
            else:
                raise _refused(network, position, token, allowed)
        if not averaged:
            raise _refused(network, len(tokens), None, ("D4", "T6", "A") if blocks and blocks[-1] else ("D4",))
        return cls(tuple(map(tuple, blocks)), tuple(widths))

    @property
    def short(self) -> str:
        """The notation without widths of stem and transitions, as that of an architecture is."""
        return str(GrownDense(self.blocks, (None,) * len(self.widths)))

    def grown(self) -> GrownDense:
        """Return itself."""
        return self

    def __str__(self) -> str:
        """Return the notation."""
        names = ("S", *("T" for _ in self.widths[1:]))
        parts = [
            " ".join((f"{name}{'' if width is None else width}", *(f"D{layer}" for layer in layers)))
            for name, width, layers in zip(names, self.widths, self.blocks, strict=True)
        ]
        return " ".join((*parts, "A"))


Start: TypeAlias = PlainStart | DenseStart | GrownPlain | GrownDense

_TOKEN = re.compile(r"([A-Z])(\d*)(?:x(\d+))?")


def _tokens(network: object) -> list[str]:
    tokens = network.split() if isinstance(network, str) else []
    if not tokens:
        raise InvalidArgument(
            f"network must be the layers of a network, such as 'C8x3 P C16x3 A F16' or 'S8 D4 T6 D4 A', got "
            f"{network!r}."
        )
    return tokens


def _split(token: str) -> tuple[str, tuple[int, ...]]:
    """Return the letter and the numbers of a token, no letter where it is none."""
    found = _TOKEN.fullmatch(token)
    if found is None:
        return "", ()
    numbers = tuple(int(one) for one in found.groups()[1:] if one)
    return (found.group(1), numbers) if all(numbers) else ("", ())


def _refused(network: object, position: int, token: str | None, allowed: Sequence[str]) -> InvalidArgument:
    what = "it ends too early" if token is None else f"token {position} is {token!r}"
    listed = f"allowed are tokens like {', '.join(allowed)}" if allowed else "nothing may follow the average"
    return InvalidArgument(f"network {network!r}: {what}; {listed}.")
