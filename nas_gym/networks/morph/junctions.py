"""Layers that join, cut or reshape: where the units of several producers meet.

Dimension letters: N images, C channels, H height, W width, F features.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from nas_gym.networks.morph.errors import MorphError, NotPreserving
from nas_gym.networks.morph.layers import Layer, Shape
from nas_gym.networks.morph.units import UnitMap

if TYPE_CHECKING:
    from nas_gym.networks.morph.statistics import Statistics


class _Sum(nn.Module):
    """The sum, or the mean, of its inputs."""

    def __init__(self, average: bool) -> None:
        super().__init__()
        self.average = average

    def forward(self, *inputs: Tensor) -> Tensor:
        total = functools.reduce(torch.add, inputs)
        return total / len(inputs) if self.average else total


class _Concatenation(nn.Module):
    """Its inputs behind each other."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, dim=1)


class _Segment(nn.Module):
    """Consecutive units of its input."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, units: Tensor) -> Tensor:
        return units[:, self.start : self.stop]


class _Mean(nn.Module):
    """The mean of an image: [N, C, H, W] -> [N, C]."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


@dataclass(frozen=True)
class _Junction(Layer):
    unit_wise: ClassVar[bool] = False

    def divided(self, parts: int) -> Layer:
        """A junction does not treat every unit on its own."""
        raise MorphError(f"{self} does not treat the {parts} segments of its input on their own.")

    def as_identity(self, shape: Shape, nonnegative: bool, statistics: Statistics | None) -> dict[str, Tensor]:
        """A junction is no layer of a chain."""
        raise NotPreserving(f"{self} cannot take the place of the identity.")


@dataclass(frozen=True)
class Add(_Junction):
    """The sum of its inputs; their units must agree one by one.

    Attributes:
        average: whether the sum is divided by the number of inputs.
    """

    average: bool = False
    kind: ClassVar[str] = "add"
    adds: ClassVar[bool] = True
    most_inputs: ClassVar[int | None] = None

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the shape that all inputs have."""
        if len(set(inputs)) > 1:
            raise MorphError(f"the inputs of an addition must have one shape, got {', '.join(map(str, inputs))}.")
        return inputs[0]

    def module(self, inputs: Sequence[Shape]) -> nn.Module:
        """Return the sum."""
        return _Sum(self.average)

    def output_map(self, inputs: Sequence[UnitMap], shapes: Sequence[Shape]) -> UnitMap:
        """Return the map of those inputs that change; the others have to follow."""
        changed = {one for one in inputs if not one.is_identity}
        if len(changed) > 1:
            raise MorphError("the inputs of an addition repeat different units; they must share one map.")
        return changed.pop() if changed else inputs[0]


@dataclass(frozen=True)
class Concat(_Junction):
    """Its inputs behind each other."""

    kind: ClassVar[str] = "concat"
    most_inputs: ClassVar[int | None] = None

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (sum of C, H, W) or (sum of F,)."""
        if len({shape[1:] for shape in inputs}) > 1:
            raise MorphError(
                f"the inputs of a concatenation may differ in channels only, got {', '.join(map(str, inputs))}."
            )
        return (sum(shape[0] for shape in inputs), *inputs[0][1:])

    def module(self, inputs: Sequence[Shape]) -> nn.Module:
        """Return the concatenation."""
        return _Concatenation()

    def output_map(self, inputs: Sequence[UnitMap], shapes: Sequence[Shape]) -> UnitMap:
        """Return the inputs' maps, each at its offset."""
        return UnitMap.join(inputs)

    def input_maps(self, wanted: UnitMap, shapes: Sequence[Shape]) -> tuple[UnitMap, ...]:
        """Return the segments of the wanted map."""
        return wanted.split([shape[0] for shape in shapes])


@dataclass(frozen=True)
class Segment(_Junction):
    """Units `start` to `stop`, exclusive, of its input.

    Attributes:
        start: first unit.
        stop: the unit behind the last.
    """

    start: int
    stop: int
    kind: ClassVar[str] = "segment"

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape with `stop - start` units."""
        if not 0 <= self.start < self.stop <= inputs[0][0]:
            raise MorphError(f"units {self.start} to {self.stop} are no part of {inputs[0][0]} units.")
        return (self.stop - self.start, *inputs[0][1:])

    def module(self, inputs: Sequence[Shape]) -> nn.Module:
        """Return the cut."""
        return _Segment(self.start, self.stop)

    def _widths(self, units: int) -> list[int]:
        return [self.start, self.stop - self.start, units - self.stop]

    def output_map(self, inputs: Sequence[UnitMap], shapes: Sequence[Shape]) -> UnitMap:
        """Return the part of the map, if the segment keeps its units together."""
        return inputs[0].split(self._widths(inputs[0].parents))[1]

    def input_maps(self, wanted: UnitMap, shapes: Sequence[Shape]) -> tuple[UnitMap, ...]:
        """Return the map that leaves the units outside the segment as they are."""
        before, _, behind = self._widths(shapes[0][0])
        return (UnitMap.join([UnitMap.identity(before), wanted, UnitMap.identity(behind)]),)

    def resized(self, inputs: Sequence[UnitMap], output: UnitMap) -> Layer:
        """Return where the segment lies in the child."""
        start = inputs[0].split(self._widths(inputs[0].parents))[0].width
        return replace(self, start=start, stop=start + output.width)


@dataclass(frozen=True)
class GlobalAveragePooling(_Junction):
    """The mean of every channel: (C, H, W) becomes (C,)."""

    kind: ClassVar[str] = "global_average_pooling"

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (C,)."""
        if len(inputs[0]) != 3:
            raise MorphError(f"global average pooling takes images, got the shape {inputs[0]}.")
        return inputs[0][:1]

    def module(self, inputs: Sequence[Shape]) -> nn.Module:
        """Return the pooling."""
        return _Mean()


@dataclass(frozen=True)
class Flatten(_Junction):
    """All pixels of all channels: (C, H, W) becomes (C x H x W,), channel by channel."""

    kind: ClassVar[str] = "flatten"

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (C x H x W,)."""
        if len(inputs[0]) != 3:
            raise MorphError(f"only images are flattened, got the shape {inputs[0]}.")
        return (inputs[0][0] * inputs[0][1] * inputs[0][2],)

    def module(self, inputs: Sequence[Shape]) -> nn.Module:
        """Return the flattening."""
        return nn.Flatten()

    def output_map(self, inputs: Sequence[UnitMap], shapes: Sequence[Shape]) -> UnitMap:
        """Return the map in which every channel owns H x W features."""
        return inputs[0].spread(shapes[0][1] * shapes[0][2])

    def input_maps(self, wanted: UnitMap, shapes: Sequence[Shape]) -> tuple[UnitMap, ...]:
        """Return the map of channels."""
        return (wanted.gather(shapes[0][1] * shapes[0][2]),)
