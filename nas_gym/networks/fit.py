"""One short training loop: the data on the device once, control back after every epoch.

Dimension letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nas_gym.datasets import Split
from nas_gym.errors import InvalidArgument


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: SGD with Nesterov momentum, learning rate falling to 0 along half a cosine.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per update; the last, smaller batch of an epoch is used too.
        learning_rate: initial learning rate.
        momentum: Nesterov momentum.
        weight_decay: L2 penalty on all parameters.
    """

    epochs: int = 6
    batch_size: int = 50
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidArgument: a value outside its range.
        """
        for name, least in (("epochs", 1), ("batch_size", 2)):
            if getattr(self, name) < least:
                raise InvalidArgument(f"{name} must be at least {least}, got {getattr(self, name)}.")
        if not self.learning_rate > 0 or not 0 < self.momentum < 1 or not self.weight_decay >= 0:
            raise InvalidArgument(
                "learning_rate must be positive, momentum between 0 and 1 and weight_decay not negative; "
                f"got {self.learning_rate}, {self.momentum}, {self.weight_decay}."
            )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class DeviceSplit:
    """A split as tensors on one device: images float32 [N, C, H, W], labels int64 [N]."""

    images: Tensor
    labels: Tensor

    @classmethod
    def of(cls, split: Split, device: str = "cpu") -> DeviceSplit:
        """Copy a split to `device`."""
        return cls(torch.as_tensor(split.images, device=device), torch.as_tensor(split.labels, device=device))


def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights anew from PyTorch's default distributions, with an explicit generator.

    Convolutions and linear layers, biases included: uniform within 1 / sqrt(fan-in).
    """
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                bound = 1 / math.sqrt(layer.weight[0].numel())
                for parameter in layer.parameters(recurse=False):
                    parameter.uniform_(-bound, bound, generator=generator)


def fit(
    model: nn.Module, data: DeviceSplit, recipe: Recipe, generator: torch.Generator, epochs: int | None = None
) -> Iterator[float]:
    """Train `model` in place, yielding the mean training loss after every epoch.

    Args:
        model: network from images to logits.
        data: training images.
        recipe: the schedule, always that of all `recipe.epochs`.
        generator: of the order of the images, on the CPU.
        epochs: stop after so many epochs of the schedule; all of them by default.
    """
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
        fused=True,
    )
    count = len(data.labels)
    updates = recipe.epochs * math.ceil(count / recipe.batch_size)
    update = 0
    for _ in range(recipe.epochs if epochs is None else epochs):
        model.train()
        order = torch.randperm(count, generator=generator).to(data.labels.device)
        total = torch.zeros((), device=data.labels.device)
        for batch in order.split(recipe.batch_size):
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * update / updates))
            loss = nn.functional.cross_entropy(model(data.images[batch]), data.labels[batch])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            total += loss.detach() * len(batch)
            update += 1
        yield float(total) / count


@torch.inference_mode()
def count_correct(model: nn.Module, data: DeviceSplit, batch_size: int = 1024) -> int:
    """Return how many images `model` classifies correctly, in evaluation mode."""
    model.eval()
    correct = sum(
        (model(images).argmax(1) == labels).sum()
        for images, labels in zip(data.images.split(batch_size), data.labels.split(batch_size), strict=True)
    )
    return int(correct)
