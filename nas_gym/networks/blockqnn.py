"""The network of a BlockQNN block: stem, stages of equal blocks with pooling between, classifier.

Source: Zhong et al., CVPR 2018, arXiv 1708.05552, whose full text could not be read. The rule by which channels are
made to fit is that of a port; the paper's own is unknown.
Dimension letters: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas_gym.errors import InvalidArgument
from nas_gym.networks.nas_bench_201 import stem
from nas_gym.networks.operations import Dropout, ReLUConvBN
from nas_gym.search_spaces.blockqnn import Block, LayerCode, LayerType


def _fitted(channels_in: int, channels: int) -> nn.Module:
    """Return a 1x1 convolution where the channels differ, else nothing."""
    return nn.Identity() if channels_in == channels else ReLUConvBN(channels_in, channels, 1)


class Addition(nn.Module):
    """The sum of its inputs, made to fit: [N, C_i, H, W] each -> [N, C, H, W]."""

    def __init__(self, channels_in: Sequence[int], channels: int) -> None:
        """Create the convolutions of the inputs whose channels are not C."""
        super().__init__()
        self.fits = nn.ModuleList(_fitted(one, channels) for one in channels_in)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the sum."""
        return functools.reduce(torch.add, [fit(one) for fit, one in zip(self.fits, inputs, strict=True)])


class Concatenation(nn.Module):
    """Its inputs behind each other, then a module: [N, C_i, H, W] each -> [N, C, H, W]."""

    def __init__(self, fit: nn.Module) -> None:
        """Keep the module that brings the channels to C."""
        super().__init__()
        self.fit = fit

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the channels of all inputs, mixed."""
        return self.fit(inputs[0] if len(inputs) == 1 else torch.cat(inputs, dim=1))


def _layer_module(layer: LayerCode, channels_in: Sequence[int], channels: int) -> tuple[nn.Module, int]:
    """Return the module of a layer and the channels it puts out.

    Args:
        layer: its code.
        channels_in: channels of its inputs.
        channels: channels of the stage.
    """
    if layer.type is LayerType.CONVOLUTION:
        return ReLUConvBN(channels_in[0], channels, layer.kernel), channels
    if layer.type is LayerType.ADD:
        return Addition(channels_in, channels), channels
    if layer.type is LayerType.CONCAT:
        return Concatenation(ReLUConvBN(sum(channels_in), channels, 1)), channels
    if layer.kernel > 1 and layer.type is LayerType.MAX_POOLING:
        return nn.MaxPool2d(layer.kernel, stride=1, padding=layer.kernel // 2), channels_in[0]
    if layer.kernel > 1 and layer.type is LayerType.AVERAGE_POOLING:
        pooling = nn.AvgPool2d(layer.kernel, stride=1, padding=layer.kernel // 2, count_include_pad=False)
        return pooling, channels_in[0]
    return nn.Identity(), channels_in[0]  # A window of one pixel changes nothing.


class BlockModule(nn.Module):
    """A block as a module: [N, C_in, H, W] -> [N, C, H, W].

    A convolution has the C channels of the stage, pooling and identity keep what they get. Inputs of an addition that
    have others than C pass a 1x1 convolution, every concatenation does, and so do the concatenated leaves, which are
    the block's output, unless they have C channels.
    """

    def __init__(self, block: Block, channels_in: int, channels: int) -> None:
        """Create the modules of the layers."""
        super().__init__()
        self.sources = [block.inputs(layer) for layer in block.layers]
        self.leaves = block.leaves
        self.layers = nn.ModuleList()
        widths = [channels_in]
        for layer, sources in zip(block.layers, self.sources, strict=True):
            module, width = _layer_module(layer, [widths[source] for source in sources], channels)
            self.layers.append(module)
            widths.append(width)
        self.output = Concatenation(_fitted(sum(widths[leaf] for leaf in self.leaves), channels))

    def forward(self, images: Tensor) -> Tensor:
        """Return the concatenated leaves."""
        values = [images]
        for layer, sources in zip(self.layers, self.sources, strict=True):
            values.append(layer(*(values[source] for source in sources)))
        return self.output(*(values[leaf] for leaf in self.leaves))


def build(
    block: Block,
    input_shape: tuple[int, int, int],
    classes: int,
    channels: int = 32,
    blocks_per_stage: int = 4,
    stages: int = 3,
    dropout: float = 0.0,
) -> nn.Module:
    """Return the classifier made of a block: images [N, *input_shape] -> logits [N, K].

    The first block of a stage doubles the channels; 2x2 max pooling comes before it. The stem halves images above 64
    pixels, see `nas_bench_201.stem`; that, and the ReLU before the classifier, are ours.

    Args:
        block: the block.
        input_shape: (C, H, W) of an image.
        classes: number of classes K.
        channels: channels of the stem and the first stage.
        blocks_per_stage: equal blocks in one stage, each with weights of its own.
        stages: stages, with pooling between neighbouring ones.
        dropout: probability of dropping a feature before the classifier.

    Raises:
        InvalidArgument: a size that is no integer of at least 1, or an image too small for the stages.
    """
    for name, value in (("channels", channels), ("blocks_per_stage", blocks_per_stage), ("stages", stages)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidArgument(f"{name} must be an integer of at least 1, got {value!r}.")
    first, size = stem(input_shape[0], channels, (input_shape[1], input_shape[2]))
    smallest = 2 ** (stages - 1)
    if min(size) < smallest:
        raise InvalidArgument(
            f"images of {size[0]}x{size[1]} (behind the stem) are too small for {stages} stages: "
            f"at least {smallest}x{smallest} is needed, or fewer stages."
        )
    layers: list[nn.Module] = [first]
    width = channels
    for stage in range(stages):
        if stage:
            layers.append(nn.MaxPool2d(2))
        for _ in range(blocks_per_stage):
            layers.append(BlockModule(block, width, channels * 2**stage))
            width = channels * 2**stage
    layers += [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if dropout:
        layers.append(Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(width, classes))
