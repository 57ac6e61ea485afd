"""The size space of NATS-Bench: how many channels each of the five layers of one fixed network puts out.

Source: Dong et al., "NATS-Bench", TPAMI 2021, section 3. The roles of the five numbers are those of the released
code, which parameter counts confirm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from nas_gym.errors import InvalidEncoding
from nas_gym.search_spaces.core import Decision, Encoding, FixedSlotSpace, Sketch

WIDTHS = (8, 16, 24, 32, 40, 48, 56, 64)
"""Numbers of channels to choose from; a decision is an index into this tuple."""

LAYERS = ("cell 1", "reduction 1", "cell 2", "reduction 2", "cell 3")
"""What each decision is about; the first number is also the width of the stem before it."""

_SEPARATOR = ":"
_LABELS = tuple(map(str, WIDTHS))
_NODES = ("input", *LAYERS, "output")


def _edges(labels: Sequence[str]) -> tuple[tuple[int, int, str], ...]:
    """Return the chain of layers; what leads out of a layer is labelled with the channels that it puts out."""
    return tuple((node, node + 1, label) for node, label in enumerate(("", *labels)))


@dataclass(frozen=True)
class ChannelPlan:
    """The widths of a network whose operations are fixed.

    Attributes:
        channels: channels that each of `LAYERS` puts out.
    """

    channels: tuple[int, ...]

    def graph(self) -> tuple[tuple[str, ...], tuple[tuple[int, int, str], ...]]:
        """Return node labels and the edges (source, target, channels of the source) between them, a chain."""
        return _NODES, _edges([str(width) for width in self.channels])


@dataclass(frozen=True)
class NATSSizeSpace(FixedSlotSpace):
    """32,768 networks: five numbers of channels, each a multiple of 8 up to 64.

    No two of them are the same network. `code` is the official index.
    """

    name: ClassVar[str] = "nats_size"

    @property
    def slots(self) -> tuple[Decision, ...]:
        """Five decisions of one kind, one a layer; neighbouring choices are similar."""
        return _SLOTS

    def decode(self, encoding: Encoding) -> ChannelPlan:
        """Return the widths.

        Raises:
            InvalidEncoding: `encoding` is not five integers from 0 to 7.
        """
        return ChannelPlan(tuple(WIDTHS[choice] for choice in self.validate(encoding)))

    def sketch(self, prefix: Encoding) -> Sketch:
        """Return the chain of layers with the widths decided so far; undecided ones are "?"."""
        labels = [_LABELS[choice] for choice in prefix] + ["?"] * (len(LAYERS) - len(prefix))
        return Sketch(_NODES, _edges(labels))

    def to_string(self, encoding: Encoding) -> str:
        """Return the official string, e.g. ``8:8:40:32:40``."""
        return _SEPARATOR.join(map(str, self.decode(encoding).channels))

    def from_string(self, text: str) -> Encoding:
        """Return the encoding of an official string.

        Raises:
            InvalidEncoding: naming what differs from the official form.
        """
        parts = text.strip().split(_SEPARATOR)
        if len(parts) != len(LAYERS):
            raise InvalidEncoding(
                f"{text!r}: expected {len(LAYERS)} numbers of channels joined by {_SEPARATOR!r}, "
                f"as in '64:64:64:64:64', got {len(parts)}."
            )
        for position, (part, layer) in enumerate(zip(parts, LAYERS, strict=True), start=1):
            if part not in _LABELS:
                raise InvalidEncoding(
                    f"{text!r}: number {position} ({layer}) is {part!r}, allowed are {', '.join(_LABELS)}."
                )
        return tuple(_LABELS.index(part) for part in parts)


_SLOTS = tuple(Decision(kind=0, labels=_LABELS, ordered=True, mask=(True,) * len(WIDTHS)) for _ in LAYERS)
