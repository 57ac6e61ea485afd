"""The layers that have weights.

Dimension letters: C channels, H height, W width, O outputs, I inputs of a kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from nas_gym.networks.morph.errors import MorphError
from nas_gym.networks.morph.layers import Layer, Shape, as_image, check_counts, strided
from nas_gym.networks.morph.origins import Gather, group_maps
from nas_gym.networks.morph.units import UnitMap

if TYPE_CHECKING:
    from nas_gym.networks.morph.statistics import Statistics


@dataclass(frozen=True)
class Convolution(Layer):
    """A convolution with `channels` outputs whose padding makes up for the kernel.

    Attributes:
        channels: outputs O.
        kernel: height and width of the kernel, odd.
        stride: of both directions.
        groups: equal groups of channels that do not see each other.
        bias: whether there is one; a normalisation behind makes it superfluous.
    """

    channels: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    bias: bool = False
    kind: ClassVar[str] = "convolution"
    produces: ClassVar[bool] = True
    unit_wise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_counts(self, channels=self.channels, kernel=self.kernel, stride=self.stride, groups=self.groups)
        if self.kernel % 2 == 0:
            raise MorphError(f"{self}: the kernel must be odd, since it has a centre and keeps the image size.")
        if self.channels % self.groups:
            raise MorphError(f"{self}: channels must be divisible by groups.")

    @property
    def channel_groups(self) -> int:
        """The groups."""
        return self.groups

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (O, H', W')."""
        channels, height, width = as_image(inputs[0], "a convolution")
        if channels % self.groups:
            raise MorphError(f"{channels} input channels are not divisible by the {self.groups} groups.")
        return (
            self.channels,
            strided(height, self.kernel, self.stride, self.kernel // 2),
            strided(width, self.kernel, self.stride, self.kernel // 2),
        )

    def module(self, inputs: Sequence[Shape]) -> nn.Module:
        """Return the convolution."""
        return nn.Conv2d(
            inputs[0][0],
            self.channels,
            self.kernel,
            self.stride,
            self.kernel // 2,
            groups=self.groups,
            bias=self.bias,
        )

    def tensor_shapes(self, inputs: Sequence[Shape]) -> dict[str, Shape]:
        """Return those of kernels [O, I / groups, kernel, kernel] and biases [O]."""
        weight = (self.channels, inputs[0][0] // self.groups, self.kernel, self.kernel)
        return {"weight": weight} | ({"bias": (self.channels,)} if self.bias else {})

    def nonnegative(self, inputs: Sequence[bool]) -> bool:
        """Weights have any sign."""
        return False

    def resized(self, inputs: Sequence[UnitMap], output: UnitMap) -> Layer:
        """Return the convolution with the child's outputs."""
        return replace(self, channels=output.width)

    def gathers(self, inputs: Sequence[UnitMap], output: UnitMap) -> dict[str, tuple[Gather, ...]]:
        """Repeat the kernels of repeated outputs; divide those that read repeated inputs."""
        group_maps(output, self.groups)
        outputs = () if output.is_identity else (Gather.outputs(output),)
        inputs_of = () if inputs[0].is_identity else (Gather.inputs(inputs[0], self.groups),)
        return {"weight": (*outputs, *inputs_of)} | ({"bias": outputs} if self.bias else {})

    def with_units(self, units: int) -> Layer:
        """Return the convolution with `units` outputs.

        Raises:
            MorphError: it has groups, whose outputs read different inputs.
        """
        if self.groups > 1:
            raise MorphError(
                f"the outputs of a convolution with {self.groups} groups read different inputs: "
                "it is divided by split-concat, not by replication-concat."
            )
        return replace(self, channels=units)

    def divided(self, parts: int) -> Layer:
        """Return the convolution with a share of the groups."""
        if self.groups % parts:
            raise MorphError(
                f"a convolution with {self.groups} groups mixes the channels of {parts} segments: "
                f"the groups must be divisible by {parts}; an ordinary convolution takes replication-concat."
            )
        return replace(self, channels=self.channels // parts, groups=self.groups // parts)

    def as_identity(self, shape: Shape, nonnegative: bool, statistics: Statistics | None) -> dict[str, Tensor]:
        """Return kernels that are 1 at the centre for the channel of the same number, else 0."""
        channels, _, _ = as_image(shape, "a convolution")
        if (self.channels, self.stride) != (channels, 1):
            raise MorphError(
                f"a convolution that changes nothing has as many outputs as inputs and stride 1, "
                f"got {channels} inputs, {self.channels} outputs and stride {self.stride}. "
                "To change the width, widen it afterwards."
            )
        per_group = channels // self.groups
        weight = torch.zeros(channels, per_group, self.kernel, self.kernel, dtype=torch.float64)
        units = torch.arange(channels)
        weight[units, units % per_group, self.kernel // 2, self.kernel // 2] = 1
        return {"weight": weight} | ({"bias": torch.zeros(channels, dtype=torch.float64)} if self.bias else {})


@dataclass(frozen=True)
class DepthwiseConvolution(Layer):
    """A convolution of every channel with a kernel of its own, without bias.

    Attributes:
        kernel: height and width of the kernel, odd.
        stride: of both directions.
    """

    kernel: int = 3
    stride: int = 1
    kind: ClassVar[str] = "depthwise_convolution"

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_counts(self, kernel=self.kernel, stride=self.stride)
        if self.kernel % 2 == 0:
            raise MorphError(f"{self}: the kernel must be odd, since it has a centre and keeps the image size.")

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (C, H', W')."""
        channels, height, width = as_image(inputs[0], "a depthwise convolution")
        padding = self.kernel // 2
        return (
            channels,
            strided(height, self.kernel, self.stride, padding),
            strided(width, self.kernel, self.stride, padding),
        )

    def module(self, inputs: Sequence[Shape]) -> nn.Module:
        """Return the convolution."""
        channels = inputs[0][0]
        return nn.Conv2d(channels, channels, self.kernel, self.stride, self.kernel // 2, groups=channels, bias=False)

    def tensor_shapes(self, inputs: Sequence[Shape]) -> dict[str, Shape]:
        """Return that of kernels [C, 1, kernel, kernel]."""
        return {"weight": (inputs[0][0], 1, self.kernel, self.kernel)}

    def nonnegative(self, inputs: Sequence[bool]) -> bool:
        """Weights have any sign."""
        return False

    def gathers(self, inputs: Sequence[UnitMap], output: UnitMap) -> dict[str, tuple[Gather, ...]]:
        """Repeat the kernels of repeated channels."""
        return {} if output.is_identity else {"weight": (Gather.outputs(output),)}

    def as_identity(self, shape: Shape, nonnegative: bool, statistics: Statistics | None) -> dict[str, Tensor]:
        """Return kernels that are 1 at the centre, else 0."""
        channels, _, _ = as_image(shape, "a depthwise convolution")
        if self.stride != 1:
            raise MorphError(f"a convolution that changes nothing has stride 1, got stride {self.stride}.")
        weight = torch.zeros(channels, 1, self.kernel, self.kernel, dtype=torch.float64)
        weight[:, :, self.kernel // 2, self.kernel // 2] = 1
        return {"weight": weight}


@dataclass(frozen=True)
class Linear(Layer):
    """A fully connected layer with `units` outputs.

    Attributes:
        units: outputs O.
        bias: whether there is one.
    """

    units: int
    bias: bool = True
    kind: ClassVar[str] = "linear"
    produces: ClassVar[bool] = True
    unit_wise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_counts(self, units=self.units)

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (O,)."""
        if len(inputs[0]) != 1:
            raise MorphError(f"a linear layer takes features, got the shape {inputs[0]}: flatten or pool it first.")
        return (self.units,)

    def module(self, inputs: Sequence[Shape]) -> nn.Module:
        """Return the linear layer."""
        return nn.Linear(inputs[0][0], self.units, self.bias)

    def tensor_shapes(self, inputs: Sequence[Shape]) -> dict[str, Shape]:
        """Return those of the matrix [O, I] and the biases [O]."""
        return {"weight": (self.units, inputs[0][0])} | ({"bias": (self.units,)} if self.bias else {})

    def nonnegative(self, inputs: Sequence[bool]) -> bool:
        """Weights have any sign."""
        return False

    def resized(self, inputs: Sequence[UnitMap], output: UnitMap) -> Layer:
        """Return the layer with the child's outputs."""
        return replace(self, units=output.width)

    def gathers(self, inputs: Sequence[UnitMap], output: UnitMap) -> dict[str, tuple[Gather, ...]]:
        """Repeat the rows of repeated outputs; divide the columns that read repeated inputs."""
        outputs = () if output.is_identity else (Gather.outputs(output),)
        inputs_of = () if inputs[0].is_identity else (Gather.inputs(inputs[0]),)
        return {"weight": (*outputs, *inputs_of)} | ({"bias": outputs} if self.bias else {})

    def with_units(self, units: int) -> Layer:
        """Return the layer with `units` outputs."""
        return replace(self, units=units)

    def divided(self, parts: int) -> Layer:
        """A linear layer mixes all of its inputs."""
        raise MorphError(f"a linear layer mixes the features of {parts} segments.")

    def as_identity(self, shape: Shape, nonnegative: bool, statistics: Statistics | None) -> dict[str, Tensor]:
        """Return the identity matrix."""
        self.output_shape([shape])
        if shape[0] != self.units:
            raise MorphError(
                f"a linear layer that changes nothing has as many outputs as inputs, got {shape[0]} inputs and "
                f"{self.units} outputs. To change the width, widen it afterwards."
            )
        eye = torch.eye(self.units, dtype=torch.float64)
        return {"weight": eye} | ({"bias": torch.zeros(self.units, dtype=torch.float64)} if self.bias else {})


_VECTORS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Batch normalisation of every unit, with scale and shift.

    Attributes:
        epsilon: added to the variance.
        momentum: weight of the new batch in the running statistics.
    """

    epsilon: float = 1e-5
    momentum: float = 0.1
    kind: ClassVar[str] = "batch_norm"

    def module(self, inputs: Sequence[Shape]) -> nn.Module:
        """Return the normalisation of images or of features."""
        make = nn.BatchNorm2d if len(inputs[0]) == 3 else nn.BatchNorm1d
        return make(inputs[0][0], eps=self.epsilon, momentum=self.momentum)

    def tensor_shapes(self, inputs: Sequence[Shape]) -> dict[str, Shape]:
        """Return those of four vectors, one number per unit, and of a counter."""
        return dict.fromkeys(_VECTORS, inputs[0][:1]) | {"num_batches_tracked": ()}

    def nonnegative(self, inputs: Sequence[bool]) -> bool:
        """The shift has any sign."""
        return False

    def gathers(self, inputs: Sequence[UnitMap], output: UnitMap) -> dict[str, tuple[Gather, ...]]:
        """Repeat all four vectors."""
        if output.is_identity:
            return {}
        return dict.fromkeys(_VECTORS, (Gather.outputs(output),))

    def as_identity(self, shape: Shape, nonnegative: bool, statistics: Statistics | None) -> dict[str, Tensor]:
        """Return shift and running mean = mean, running variance = variance, scale = its root: y = x when evaluated."""
        if statistics is None:
            raise MorphError(
                "a normalisation changes nothing only if it is set from the statistics of its input: measure them."
            )
        mean, variance = statistics.mean.double(), statistics.variance.double()
        if tuple(mean.shape) != shape[:1]:
            raise MorphError(f"statistics of {len(mean)} units do not fit a layer of {shape[0]} units.")
        return {
            "weight": torch.sqrt(variance + self.epsilon),
            "bias": mean,
            "running_mean": mean.clone(),
            "running_var": variance.clone(),
            "num_batches_tracked": torch.zeros((), dtype=torch.long),
        }
