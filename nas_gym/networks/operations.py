"""Operations that cells are made of, and the exact cost of a module.

Dimension letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class ReLUConvBN(nn.Sequential):
    """ReLU, convolution without bias, batch normalisation: [N, C_in, H, W] -> [N, C_out, H', W']."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> None:
        """Create the block; padding keeps the image size at stride 1."""
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(channels_out),
        )


class ResidualReduction(nn.Module):
    """The residual block between the stages of NATS-Bench: halves the image, changes the channels.

    Two 3x3 ReLU-conv-BN, the first with stride 2, plus a shortcut of 2x2 average pooling and a 1x1 convolution.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        """Create the block."""
        super().__init__()
        self.body = nn.Sequential(
            ReLUConvBN(channels_in, channels_out, 3, stride=2), ReLUConvBN(channels_out, channels_out, 3)
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(channels_in, channels_out, 1, bias=False))

    def forward(self, images: Tensor) -> Tensor:
        """Map [N, C_in, H, W] to [N, C_out, H // 2, W // 2]."""
        return self.body(images) + self.shortcut(images)


class PoolingReduction(nn.Sequential):
    """A light reduction: ReLU, 2x2 average pooling, 1x1 convolution, batch normalisation."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        """Create the block."""
        super().__init__(
            nn.ReLU(),
            nn.AvgPool2d(2, 2),
            nn.Conv2d(channels_in, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out),
        )


REDUCTIONS: dict[str, Callable[[int, int], nn.Module]] = {"residual": ResidualReduction, "pooling": PoolingReduction}
"""Blocks between stages, by the name that a recipe records."""


@dataclass(frozen=True)
class Complexity:
    """Exact cost of one forward pass of one image.

    Attributes:
        parameters: number of trainable parameters.
        multiply_adds: multiply-adds of the convolutions and of the linear layers, plus the linear bias; nothing
            else. NATS-Bench prints this number, in millions, as FLOPs.
    """

    parameters: int
    multiply_adds: int


def complexity(module: nn.Module, input_shape: tuple[int, int, int]) -> Complexity:
    """Measure a module by one forward pass of a zero image of shape `input_shape` = (C, H, W).

    The module may live on the ``meta`` device, where nothing is computed.
    """
    total = 0

    def count(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            height, width = layer.kernel_size
            inputs_per_output = layer.in_channels // layer.groups * height * width
            total += output[0].numel() * inputs_per_output + (output[0].numel() if layer.bias is not None else 0)
        elif isinstance(layer, nn.Linear):
            total += layer.in_features * layer.out_features + (layer.out_features if layer.bias is not None else 0)

    counted = (nn.Conv2d, nn.Linear)
    hooks = [layer.register_forward_hook(count) for layer in module.modules() if isinstance(layer, counted)]
    was_training = module.training
    try:
        device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
        with torch.no_grad():
            module.eval()(torch.zeros((1, *input_shape), device=device))
    finally:
        module.train(was_training)
        for hook in hooks:
            hook.remove()
    return Complexity(sum(parameter.numel() for parameter in module.parameters()), total)
