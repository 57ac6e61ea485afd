"""Pictures of architectures as PNG files."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from nas_docs.markdown import figure
from nas_gym.rendering import render_rgb
from nas_gym.search_spaces.core import Encoding, SearchSpace

_DRAWS = 30
_COLUMN = 832
"""Width of the site's text, pixels."""
_SCALE = 0.6
"""Smallest scale at which the text of a picture is as large as that of the page."""


def example(space: SearchSpace) -> Encoding:
    """Return an architecture worth looking at: of a few random ones, the one with the most decisions."""
    rng = np.random.default_rng(0)
    return max((space.sample(rng) for _ in range(_DRAWS)), key=len)


@dataclass(frozen=True)
class Picture:
    """A picture of an architecture.

    Attributes:
        content: a PNG file.
        pixels: its width.
    """

    content: bytes
    pixels: int

    @classmethod
    def of(cls, space: SearchSpace, prefix: Encoding) -> Picture:
        """Draw an unfinished or finished architecture."""
        return cls.from_pixels(render_rgb(space, prefix))

    @classmethod
    def from_pixels(cls, pixels: npt.NDArray[np.uint8]) -> Picture:
        """Take what an environment renders, uint8 [height, width, 3]."""
        return cls(png(pixels), pixels.shape[1])

    def figure(self, path: str, caption: str, alternative: str) -> str:
        """Return the figure that shows it, wide enough for its text to be read."""
        readable = round(_SCALE * self.pixels)
        return figure(path, caption, alternative, readable if readable > _COLUMN else None)


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return an image, uint8 [height, width, 3], as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", optimize=True)
    return stream.getvalue()
