"""The network of NAS-Bench-Macro: stem, three stages of inverted bottlenecks or identities, head, classifier.

Source: the code released with NAS-Bench-Macro (Su et al., CVPR 2021). Golden numbers are in the tests.
Dimension letters: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from nas_gym.errors import InvalidArgument
from nas_gym.networks.nas_bench_201 import stem
from nas_gym.networks.operations import Dropout
from nas_gym.search_spaces.nas_bench_macro import BlockSequence


class ConvBN(nn.Sequential):
    """Convolution without bias, batch normalisation and, if asked for, ReLU: [N, C_in, H, W] -> [N, C_out, H', W']."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = True
    ) -> None:
        """Create the layers; padding keeps the image size at stride 1, at stride 2 it is halved and rounded up."""
        super().__init__(
            nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(channels_out),
            *([nn.ReLU()] if relu else []),
        )


class InvertedBottleneck(nn.Module):
    """The block of MobileNetV2, with ReLU: [N, C_in, H, W] -> [N, C_out, H', W'].

    A 1x1 convolution widens the input, a depthwise one filters it, a 1x1 convolution without activation narrows it. The
    input is added where it has the shape of the output.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int, kernel: int) -> None:
        """Create the three convolutions."""
        super().__init__()
        wide = channels_in * expansion
        self.body = nn.Sequential(
            ConvBN(channels_in, wide, 1),
            ConvBN(wide, wide, kernel, stride, groups=wide),
            ConvBN(wide, channels_out, 1, relu=False),
        )
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, images: Tensor) -> Tensor:
        """Return the output of the block."""
        return self.body(images) + images if self.residual else self.body(images)


def _identity(channels_in: int, channels_out: int, stride: int) -> nn.Module:
    """Return nothing, or, where the shape changes, a strided 1x1 convolution with batch normalisation."""
    if stride == 1 and channels_in == channels_out:
        return nn.Identity()
    return ConvBN(channels_in, channels_out, 1, stride, relu=False)


_BLOCK_MODULES: dict[str, Callable[[int, int, int], nn.Module]] = {
    "Identity": _identity,
    "MB3_K3": lambda channels_in, channels_out, stride: InvertedBottleneck(channels_in, channels_out, stride, 3, 3),
    "MB6_K5": lambda channels_in, channels_out, stride: InvertedBottleneck(channels_in, channels_out, stride, 6, 5),
}


def build(
    architecture: BlockSequence,
    input_shape: tuple[int, int, int],
    classes: int,
    channels: int = 32,
    head_channels: int = 1280,
    dropout: float = 0.0,
) -> nn.Module:
    """Return the classifier made of blocks: images [N, *input_shape] -> logits [N, K].

    The first layer of every stage has stride 2 and doubles the channels. Above 64 pixels the stem halves the image
    first, see `nas_bench_201.stem`; that is ours.

    Args:
        architecture: the blocks.
        input_shape: (C, H, W) of an image.
        classes: number of classes K.
        channels: channels of the stem, officially 32.
        head_channels: channels of the 1x1 convolution before the pooling, officially 1280.
        dropout: probability of dropping a feature before the classifier; the official network has none.

    Raises:
        InvalidArgument: a number of channels that is no integer of at least 1.
    """
    for name, value in (("channels", channels), ("head_channels", head_channels)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidArgument(f"{name} must be an integer of at least 1, got {value!r}.")
    first, _ = stem(input_shape[0], channels, (input_shape[1], input_shape[2]))
    layers: list[nn.Module] = [first, nn.ReLU()]
    for blocks in architecture.stages():
        for position, block in enumerate(blocks):
            stride, width = (2, 2 * channels) if position == 0 else (1, channels)
            layers.append(_BLOCK_MODULES[block](channels, width, stride))
            channels = width
    layers += [ConvBN(channels, head_channels, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if dropout:
        layers.append(Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(head_channels, classes))
