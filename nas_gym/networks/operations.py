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


class Dropout(nn.Module):
    """Drops features at random in training mode, from an explicit generator: [N, ...] -> [N, ...].

    Attributes:
        probability: of dropping a feature; the others are scaled up.
        generator: set by whoever trains the network; without one, PyTorch's global generator is used.
    """

    def __init__(self, probability: float) -> None:
        """Create the layer."""
        super().__init__()
        self.probability = probability
        self.generator: torch.Generator | None = None

    def forward(self, features: Tensor) -> Tensor:
        """Drop features when training."""
        if not self.training or self.probability == 0:
            return features
        kept = 1 - self.probability
        mask = torch.empty_like(features).bernoulli_(kept, generator=self.generator)
        return features * mask / kept


REDUCTIONS: dict[str, Callable[[int, int], nn.Module]] = {"residual": ResidualReduction, "pooling": PoolingReduction}
"""Blocks between stages, by the name that a recipe records."""


@dataclass(frozen=True)
class Complexity:
    """Exact cost of one forward pass of one image.

    Attributes:
        parameters: number of trainable parameters.
        multiply_adds: multiply-adds of the convolutions and of the linear layers, biases included; nothing else.
            NATS-Bench prints this number, in millions, as FLOPs.
        activations: numbers that all layers put out for one image, which training keeps for the backward pass.
    """

    parameters: int
    multiply_adds: int
    activations: int = 0

    def training_bytes(self, batch_size: int, optimiser_slots: int) -> int:
        """Estimate the memory of training in float32: weights, gradients, optimiser and activations.

        Args:
            batch_size: images per update.
            optimiser_slots: numbers that the optimiser keeps per parameter.
        """
        return 4 * (self.parameters * (2 + optimiser_slots) + self.activations * batch_size)


def complexity(module: nn.Module, input_shape: tuple[int, int, int]) -> Complexity:
    """Measure a module by one forward pass of a zero image of shape `input_shape` = (C, H, W).

    The module may live on the ``meta`` device, where nothing is computed.
    """
    total = 0
    activations = 0

    def count(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total, activations
        activations += output[0].numel() if isinstance(output, Tensor) else 0
        if isinstance(layer, nn.Conv2d):
            height, width = layer.kernel_size
            inputs_per_output = layer.in_channels // layer.groups * height * width
            total += output[0].numel() * inputs_per_output + (output[0].numel() if layer.bias is not None else 0)
        elif isinstance(layer, nn.Linear):
            total += layer.in_features * layer.out_features + (layer.out_features if layer.bias is not None else 0)

    leaves = [layer for layer in module.modules() if next(layer.children(), None) is None]
    hooks = [layer.register_forward_hook(count) for layer in leaves]
    was_training = module.training
    try:
        device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
        with torch.no_grad():
            module.eval()(torch.zeros((1, *input_shape), device=device))
    finally:
        module.train(was_training)
        for hook in hooks:
            hook.remove()
    return Complexity(sum(parameter.numel() for parameter in module.parameters()), total, activations)
