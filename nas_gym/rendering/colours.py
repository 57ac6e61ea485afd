"""One colour an operation, the same in every picture of every space."""

from __future__ import annotations

import colorsys
import math
import re
import zlib
from typing import TypeAlias

Colour: TypeAlias = tuple[int, int, int]
"""Red, green and blue from 0 to 255."""

BACKGROUND: Colour = (255, 255, 255)
INK: Colour = (38, 44, 54)
MUTED: Colour = (128, 136, 148)
LINE: Colour = (158, 166, 178)
FAINT: Colour = (222, 226, 232)
PAPER: Colour = (246, 247, 249)
HALO: Colour = (255, 193, 7)
ALARM: Colour = (200, 40, 40)
DONE: Colour = (28, 130, 76)

_FAMILIES: tuple[tuple[str, Colour], ...] = (
    (r"none|zero", (176, 183, 193)),
    (r"skip|identity", (106, 118, 134)),
    (r"sep|depthwise|^mb\d", (88, 86, 196)),
    (r"dil", (16, 126, 160)),
    (r"conv|^c\(", (42, 111, 190)),
    (r"global|^gap", (196, 62, 122)),
    (r"avg|average", (150, 102, 58)),
    (r"max|pool|^p\(", (222, 98, 36)),
    (r"add|sum|plus", (132, 72, 170)),
    (r"concat", (14, 140, 130)),
    (r"^fc|linear|dense", (52, 140, 70)),
    (r"^sm$|softmax|^end$|^stop$", (64, 70, 82)),
)
"""Words in the labels of operations and their colours; the first match counts."""

_NUMBER: Colour = (84, 116, 150)
"""Colour of labels without letters, e.g. widths."""


def colour_of(label: str) -> Colour:
    """Return the colour of an operation: its hue by its name, the darker the larger its numbers.

    A name without an entry gets a hue of its own from its letters, the same in every process.
    """
    name = re.sub(r"^\d+:", "", label).lower()
    base = next((colour for pattern, colour in _FAMILIES if re.search(pattern, name)), None)
    if base is None:
        letters = re.sub(r"[\d\W_]+", "", name)
        base = _from_hls(zlib.crc32(letters.encode()) / 2**32, 0.42, 0.5) if letters else _NUMBER
    return _shaded(base, math.prod(int(number) for number in re.findall(r"\d+", name) if number != "0"))


def _shaded(base: Colour, size: int) -> Colour:
    """Return a lighter colour for small sizes and a darker one for large ones; 1 leaves it lightest."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*(part / 255 for part in base))
    step = min(math.log2(max(size, 1)), 12) / 12
    return _from_hls(hue, lightness * (1.16 - 0.48 * step), saturation)


def _from_hls(hue: float, lightness: float, saturation: float) -> Colour:
    red, green, blue = colorsys.hls_to_rgb(hue, min(lightness, 1.0), saturation)
    return round(255 * red), round(255 * green), round(255 * blue)


def ink_on(colour: Colour) -> Colour:
    """Return white or dark ink, whichever is easier to read on a colour."""
    red, green, blue = colour
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 160 else BACKGROUND


def mixed(colour: Colour, other: Colour, share: float) -> Colour:
    """Return a colour with a share of another in it."""
    red, green, blue = (round(one + (two - one) * share) for one, two in zip(colour, other, strict=True))
    return red, green, blue
