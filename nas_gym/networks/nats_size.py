"""The network of NATS-Bench's size space: three fixed cells with two reductions between, each layer of its own width.

Source: NATS-Bench (Dong et al., TPAMI 2021), section 3, and the code released with it. Golden numbers are in the tests.
Dimension letters: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from torch import Tensor, nn

from nas_gym.errors import InvalidArgument
from nas_gym.networks.nas_bench_201 import stem
from nas_gym.networks.operations import REDUCTIONS, Dropout, ReLUConvBN
from nas_gym.search_spaces.nats_size import ChannelPlan

_HALVINGS = 2


class FixedCell(nn.Module):
    """The cell of every network of the size space: [N, C_in, H, W] -> [N, C_out, H, W].

    In the notation of NAS-Bench-201: ``|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|
    nor_conv_3x3~1|nor_conv_3x3~2|``. Where the widths differ, the skip is a 1x1 convolution with batch normalisation.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        """Create the modules of the six edges."""
        super().__init__()
        self.skip: nn.Module = nn.Identity()
        if channels_in != channels_out:
            self.skip = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out))
        self.from_input = nn.ModuleList(ReLUConvBN(channels_in, channels_out, 3) for _ in range(2))
        self.first_to_second = ReLUConvBN(channels_out, channels_out, 3)
        self.first_to_output = ReLUConvBN(channels_out, channels_out, 3)
        self.second_to_output = ReLUConvBN(channels_out, channels_out, 3)

    def forward(self, images: Tensor) -> Tensor:
        """Return the value of the last node."""
        first, second = (edge(images) for edge in self.from_input)
        second = second + self.first_to_second(first)
        return self.skip(images) + self.first_to_output(first) + self.second_to_output(second)


def _check_reductions(size: tuple[int, int], reduction: str) -> None:
    """Check that an image of (H, W) behind the stem can be halved by every reduction.

    Raises:
        InvalidArgument: an unknown reduction, or an image that is too small or not evenly divisible.
    """
    if reduction not in REDUCTIONS:
        raise InvalidArgument(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}.")
    multiple = 2**_HALVINGS
    shape = f"images of {size[0]}x{size[1]} (behind the stem)"
    if min(size) < multiple:
        raise InvalidArgument(
            f"{shape} are too small for {_HALVINGS} reductions: at least {multiple}x{multiple} is needed. "
            f"Resize with image_size."
        )
    if reduction == "residual" and any(side % multiple for side in size):
        raise InvalidArgument(
            f"{shape} cannot be halved {_HALVINGS} times by the residual reduction: sizes must be multiples of "
            f"{multiple}. Use reduction='pooling', or resize with image_size."
        )


def build(
    plan: ChannelPlan,
    input_shape: tuple[int, int, int],
    classes: int,
    reduction: str = "residual",
    dropout: float = 0.0,
) -> nn.Module:
    """Return the classifier of given widths: images [N, *input_shape] -> logits [N, K].

    The stem has the width of the first cell. Above 64 pixels it halves the image first, see `nas_bench_201.stem`.

    Args:
        plan: the widths.
        input_shape: (C, H, W) of an image.
        classes: number of classes K.
        reduction: "residual" (official) or "pooling".
        dropout: probability of dropping a feature before the classifier; the official network has none.

    Raises:
        InvalidArgument: an unknown reduction, or an image that is too small or cannot be halved evenly.
    """
    channels = plan.channels[0]
    first, size = stem(input_shape[0], channels, (input_shape[1], input_shape[2]))
    _check_reductions(size, reduction)
    layers: list[nn.Module] = [first]
    halve = REDUCTIONS[reduction]
    for make, width in zip((FixedCell, halve, FixedCell, halve, FixedCell), plan.channels, strict=True):
        layers.append(make(channels, width))
        channels = width
    layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if dropout:
        layers.append(Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(channels, classes))
