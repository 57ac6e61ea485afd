"""Networks of a user's own, for `nas-gym train --reference`."""

from __future__ import annotations

from torch import nn


def small(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return a network that fits."""
    channels, height, width = input_shape
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, classes))


def without_classifier(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return a network that puts out something else than one logit per class."""
    return nn.Flatten()


def no_module(input_shape: tuple[int, int, int], classes: int) -> str:
    """Return no network."""
    return "a network"


def raising(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Fail."""
    raise RuntimeError("no network today")
