"""The network of a NAS-Bench-201 cell: stem, three stages of equal cells with reductions between, classifier.

Source: NATS-Bench (Dong et al., TPAMI 2021), section 3.1. Golden numbers are in the tests.
Dimension letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nas_gym.errors import InvalidArgument
from nas_gym.networks.operations import REDUCTIONS, ReLUConvBN
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
            InvalidArgument: a size below 1 or an unknown reduction.
        """
        for name in ("channels", "cells_per_stage", "stages"):
            if getattr(self, name) < 1:
                raise InvalidArgument(f"{name} must be at least 1, got {getattr(self, name)}.")
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


def build(cell: Cell, input_shape: tuple[int, int, int], classes: int, skeleton: Skeleton | None = None) -> nn.Module:
    """Return the classifier of a cell: images [N, *input_shape] -> logits [N, classes].

    Args:
        cell: the cell.
        input_shape: (C, H, W) of an image.
        classes: number of classes.
        skeleton: sizes around the cell, the official ones by default.

    Raises:
        InvalidArgument: the image is too small for the number of reductions, or cannot be halved evenly.
    """
    skeleton = skeleton or Skeleton()
    smallest = 2 ** (skeleton.stages - 1)
    if min(input_shape[1:]) < smallest:
        raise InvalidArgument(
            f"images of {input_shape[1]}x{input_shape[2]} are too small for {skeleton.stages} stages: "
            f"at least {smallest}x{smallest} is needed, or fewer stages."
        )
    if skeleton.reduction == "residual" and any(size % smallest for size in input_shape[1:]):
        raise InvalidArgument(
            f"images of {input_shape[1]}x{input_shape[2]} cannot be halved {skeleton.stages - 1} times by the residual "
            f"reduction: sizes must be multiples of {smallest}. Use reduction='pooling' or fewer stages."
        )
    channels = skeleton.channels
    layers: list[nn.Module] = [
        nn.Sequential(nn.Conv2d(input_shape[0], channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
    ]
    for stage in range(skeleton.stages):
        if stage:
            layers.append(REDUCTIONS[skeleton.reduction](channels, 2 * channels))
            channels *= 2
        layers.extend(CellModule(cell, channels) for _ in range(skeleton.cells_per_stage))
    layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
    return nn.Sequential(*layers)
