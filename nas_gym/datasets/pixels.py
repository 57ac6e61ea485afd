"""What is done to arrays of pixels: statistics and resizing.

Dimension letters: N images, H height, W width, C channels.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nas_gym.datasets.core import Images, Split

if TYPE_CHECKING:
    from PIL import Image

_FILTERS = {"bilinear": "BILINEAR", "area": "BOX"}
"""Names of Pillow's filters by ours."""
STATISTICS_BYTES = 2**30
"""Mean and deviation of more than this are those of evenly spaced images, so that they take seconds at any size."""


def mean_and_deviation(images: npt.NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation of every channel of [N, H, W, C], exact and independent of the order.

    Returns:
        Two tuples of length C; the deviation of a constant channel is 1.0.
    """
    stride = max(1, -(-images.nbytes // STATISTICS_BYTES))
    step = max(1, 2**24 // images[0].nbytes) * stride
    counts = np.zeros((images.shape[-1], 256), np.int64)
    for start in range(0, len(images), step):
        chunk = images[start : start + step : stride]
        for channel in range(images.shape[-1]):
            counts[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
    values = np.arange(256)
    total = counts.sum(1)
    mean = counts @ values / total
    deviation = np.sqrt(np.maximum(counts @ values**2 / total - mean**2, 0))
    constant = (counts > 0).sum(1) == 1
    return tuple(mean.tolist()), tuple(np.where(constant, 1.0, deviation).tolist())


def resized(images: Images, size: int, resampling: str = "bilinear") -> Images:
    """Return images fitted into squares of `size` pixels: proportions kept, cropped from the centre.

    Args:
        images: of one size.
        size: side of the square.
        resampling: one of `RESAMPLINGS`.
    """
    if images.train.images.shape[1:3] == (size, size):
        return images
    parts = {name: Split(_fitted(part.images, size, resampling), part.labels) for name, part in images.parts.items()}
    # Statistics of the old pixels hold no longer.
    return dataclasses.replace(images, **parts, mean=None, deviation=None, digest=None)


def fit(image: Image.Image, size: tuple[int, int], resampling: str) -> Image.Image:
    """Return an image fitted into (width, height): proportions kept, cropped from the centre."""
    from PIL import Image, ImageOps

    return ImageOps.fit(image, size, Image.Resampling[_FILTERS[resampling]])


def _fitted(images: npt.NDArray[np.uint8], size: int, resampling: str) -> npt.NDArray[np.uint8]:
    from PIL import Image

    channels = images.shape[-1]
    result = np.empty((len(images), size, size, channels), np.uint8)
    # Pillow knows pictures of one and of three channels; any other number is as many pictures.
    together = slice(0, 3) if channels == 3 else None
    for index, image in enumerate(images):
        for channel in [together] if together else range(channels):
            fitted = fit(Image.fromarray(image[:, :, channel]), (size, size), resampling)
            result[index, :, :, channel] = np.asarray(fitted)
    return result
