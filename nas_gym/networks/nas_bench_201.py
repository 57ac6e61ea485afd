"""The network of a NAS-Bench-201 cell: stem, three stages of equal cells with reductions between, classifier.

Source: NATS-Bench (Dong et al., TPAMI 2021), section 3.1. Golden numbers are in the tests.
Dimension letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nas_gym.errors import InvalidArgument
from nas_gym.networks.operations import REDUCTIONS, Dropout, ReLUConvBN
from nas_gym.search_spaces.nas_bench_201 import NODES, Cell


@dataclass(frozen=True)
class Skeleton:
    """Sizes of the network around the cell; the defaults are the official ones.

    Attributes:
        channels: channels of the stem and the first stage; they double at every reduction.
        cells_per_stage: equal cells in one stage.
        stages: stages, with a reduction between neighbouring ones.
        reduction: "residual" (official) or "pooling".
    """

    channels: int = 16
    cells_per_stage: int = 5
    stages: int = 3
    reduction: str = "residual"

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            InvalidArgument: a size that is no integer of at least 1, or an unknown reduction.
        """
        for name in ("channels", "cells_per_stage", "stages"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidArgument(f"{name} must be an integer of at least 1, got {value!r}.")
        if self.reduction not in REDUCTIONS:
            raise InvalidArgument(f"reduction must be one of {', '.join(REDUCTIONS)}, got {self.reduction!r}.")

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


_EDGE_MODULES: dict[str, Callable[[int], nn.Module]] = {
    "skip_connect": lambda channels: nn.Identity(),
    "nor_conv_1x1": lambda channels: ReLUConvBN(channels, channels, 1),
    "nor_conv_3x3": lambda channels: ReLUConvBN(channels, channels, 3),
    "avg_pool_3x3": lambda channels: nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
}


class CellModule(nn.Module):
    """A cell as a module: [N, C, H, W] -> [N, C, H, W]; a node is the sum of its incoming edges.

    An edge with the operation `none` adds nothing; a node with no other edge is zero. Edges that cannot reach the
    output are computed all the same, since the benchmark counts them.
    """

    def __init__(self, cell: Cell, channels: int) -> None:
        """Create the modules of the six edges."""
        super().__init__()
        self.sources = [[source for source, name in cell.incoming(node) if name != "none"] for node in range(1, NODES)]
        self.edges = nn.ModuleDict(
            {
                f"{source}-{node}": _EDGE_MODULES[name](channels)
                for node in range(1, NODES)
                for source, name in cell.incoming(node)
                if name != "none"
            }
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the value of the last node."""
        values = [images]
        for node, sources in enumerate(self.sources, start=1):
            terms = [self.edges[f"{source}-{node}"](values[source]) for source in sources]
            values.append(functools.reduce(torch.add, terms) if terms else torch.zeros_like(images))
        return values[-1]


LARGEST_UNREDUCED = 64
"""Images above this size, in pixels, are halved by the stem until they are not."""


def stem(channels_in: int, channels: int, size: tuple[int, int]) -> tuple[nn.Module, tuple[int, int]]:
    """Return the first layers and the (H, W) of what they put out.

    Up to 64 pixels it is the official 3x3 convolution with batch normalisation. Above, convolutions with stride 2,
    batch normalisation and ReLU come before it until the larger side is at most 64, as is usual for ImageNet.
    """
    layers: list[nn.Module] = []
    height, width = size
    while max(height, width) > LARGEST_UNREDUCED:
        layers += [
            nn.Conv2d(channels_in, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        ]
        channels_in, height, width = channels, -(-height // 2), -(-width // 2)
    layers += [nn.Conv2d(channels_in, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)]
    return nn.Sequential(*layers), (height, width)


def _check_reductions(size: tuple[int, int], skeleton: Skeleton) -> None:
    """Check that an image of (H, W) behind the stem can be halved between the stages.

    Raises:
        InvalidArgument: it is too small or not evenly divisible.
    """
    smallest = 2 ** (skeleton.stages - 1)
    shape = f"images of {size[0]}x{size[1]} (behind the stem)"
    if min(size) < smallest:
        raise InvalidArgument(
            f"{shape} are too small for {skeleton.stages} stages: "
            f"at least {smallest}x{smallest} is needed, or fewer stages."
        )
    if skeleton.reduction == "residual" and any(side % smallest for side in size):
        raise InvalidArgument(
            f"{shape} cannot be halved {skeleton.stages - 1} times by the residual reduction: sizes must be multiples "
            f"of {smallest}. Use reduction='pooling', fewer stages, or resize with image_size."
        )


def build(
    cell: Cell,
    input_shape: tuple[int, int, int],
    classes: int,
    skeleton: Skeleton | Mapping[str, Any] | None = None,
    dropout: float = 0.0,
) -> nn.Module:
    """Return the classifier of a cell: images [N, *input_shape] -> logits [N, classes].

    Args:
        cell: the cell.
        input_shape: (C, H, W) of an image.
        classes: number of classes.
        skeleton: sizes around the cell or their fields, the official ones by default.
        dropout: probability of dropping a feature before the classifier; the official network has none.

    Raises:
        InvalidArgument: the image is too small for the number of reductions, or cannot be halved evenly.
    """
    if not isinstance(skeleton, Skeleton):
        skeleton = Skeleton(**(skeleton or {}))
    channels = skeleton.channels
    first, size = stem(input_shape[0], channels, (input_shape[1], input_shape[2]))
    _check_reductions(size, skeleton)
    layers: list[nn.Module] = [first]
    for stage in range(skeleton.stages):
        if stage:
            layers.append(REDUCTIONS[skeleton.reduction](channels, 2 * channels))
            channels *= 2
        layers.extend(CellModule(cell, channels) for _ in range(skeleton.cells_per_stage))
    layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if dropout:
        layers.append(Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(channels, classes))
