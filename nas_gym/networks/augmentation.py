"""Random changes of training images, one batch operation each.

All take standardised images, where 0 is the mean colour, and draw from an explicit generator on the images' device.
Dimension letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Augmentation = Callable[[Tensor, torch.Generator], Tensor]


def crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pad every side by an eighth of the image (4 of 32 pixels) with the mean colour, and crop at random.

    Args:
        images: float [N, C, H, W].
        generator: on the device of the images.
    """
    count, _, height, width = images.shape
    pad_height, pad_width = max(height // 8, 1), max(width // 8, 1)
    padded = nn.functional.pad(images, (pad_width, pad_width, pad_height, pad_height))
    tops = _integers(2 * pad_height + 1, count, generator)
    lefts = _integers(2 * pad_width + 1, count, generator)
    rows = tops[:, None, None] + torch.arange(height, device=images.device)[:, None]
    columns = lefts[:, None, None] + torch.arange(width, device=images.device)
    numbers = torch.arange(count, device=images.device)[:, None, None]
    # Indices around a slice come out as [N, H, W, C]: channels last already.
    return padded[numbers, :, rows, columns].permute(0, 3, 1, 2)


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror every image left to right with probability one half; float [N, C, H, W]."""
    mirrored = _integers(2, len(images), generator).bool()
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def cutout(images: Tensor, generator: torch.Generator) -> Tensor:
    """Replace a square with half the side of the image (16 of 32 pixels) by the mean colour; float [N, C, H, W].

    The centre is drawn from the whole image, so the square may lie partly outside (DeVries & Taylor 2017,
    arXiv 1708.04552, section 3.1).
    """
    count, _, height, width = images.shape
    row_inside = _near(_integers(height, count, generator), height)
    column_inside = _near(_integers(width, count, generator), width)
    inside = row_inside[:, None, :, None] & column_inside[:, None, None, :]
    return images.masked_fill(inside, 0.0)


def _near(centres: Tensor, size: int) -> Tensor:
    """Return which of `size` positions lie within a quarter of the size around each centre, bool [N, size]."""
    positions = torch.arange(size, device=centres.device)
    starts = centres[:, None] - size // 4
    return (positions >= starts) & (positions < starts + size // 2)


def _integers(below: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(below, (count,), generator=generator, device=generator.device)


AUGMENTATIONS: dict[str, Augmentation] = {"crop": crop, "flip": flip, "cutout": cutout}
"""Augmentations by the name that a recipe gives."""
