"""Statistics of what layers put out, from which inserted normalisations are set.

Dimension letters: N images, U units (channels or features), H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from nas_gym.networks.morph.errors import MorphError
from nas_gym.networks.morph.graph import INPUT
from nas_gym.networks.morph.network import GraphNetwork


@dataclass(frozen=True)
class Statistics:
    """Of every unit, over images and pixels.

    Attributes:
        mean: float64 [U].
        variance: divided by the number of values, float64 [U].
        minimum: float64 [U].
    """

    mean: Tensor
    variance: Tensor
    minimum: Tensor


def measure(network: GraphNetwork, images: Tensor, names: Iterable[str], batch_size: int = 64) -> dict[str, Statistics]:
    """Return the statistics of what some layers put out, in evaluation mode; the mode is restored.

    EAS measures on one batch of 64 training images, TreeCell on 10 batches of 200 validation images.

    Args:
        network: on the device of the images.
        images: [N, C, H, W], N at least 1.
        names: layers, or `INPUT`.
        batch_size: images computed at a time; it does not change the result beyond rounding.

    Raises:
        MorphError: no images, images of another shape, or a layer that is not there.
    """
    names = list(names)
    for name in names:
        if name != INPUT:
            network.graph.node(name)
    if len(images) == 0:
        raise MorphError("statistics need at least one image, got none.")
    if tuple(images.shape[1:]) != tuple(network.graph.input_shape):
        raise MorphError(
            f"{network.graph.nodes[0]}: the network takes images {network.graph.input_shape}, got "
            f"{tuple(images.shape[1:])}."
        )
    was_training = network.training
    parts: dict[str, list[tuple[int, Tensor, Tensor, Tensor]]] = {name: [] for name in names}
    try:
        with torch.no_grad():
            network.eval()
            for batch in images.split(batch_size):
                for name, value in network.values(batch, names).items():
                    parts[name].append(_summary(value))
    finally:
        network.train(was_training)
    return {name: _combined(found) for name, found in parts.items()}


def _summary(value: Tensor) -> tuple[int, Tensor, Tensor, Tensor]:
    """Return count, mean, squared deviations from it, and minimum of [N, U, ...] per unit."""
    units = value.double().transpose(0, 1).flatten(1)
    mean = units.mean(1)
    return units.shape[1], mean, (units - mean[:, None]).square().sum(1), units.amin(1)


def _combined(parts: list[tuple[int, Tensor, Tensor, Tensor]]) -> Statistics:
    """Return the statistics of all batches: deviations within them plus those of their means."""
    total = sum(count for count, *_ in parts)
    mean = torch.stack([count * part for count, part, _, _ in parts]).sum(0) / total
    deviations = torch.stack([within + count * (part - mean).square() for count, part, within, _ in parts]).sum(0)
    return Statistics(mean, deviations / total, torch.stack([minimum for *_, minimum in parts]).amin(0))
