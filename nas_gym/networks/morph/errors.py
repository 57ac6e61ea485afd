"""What a transform raises when it does not fit."""

from __future__ import annotations

from nas_gym.errors import NASGymError


class MorphError(NASGymError, ValueError):
    """A graph, its weights or a transform does not fit; the message names the layer, the shapes and the rule."""


class NotPreserving(MorphError):
    """The transform would change what the network computes; the message names the documented repair, if any."""
