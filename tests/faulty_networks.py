"""Networks that go wrong in every way; importable from every test and from spawned workers.

An architecture of `FaultSpace` is the name of one fault. A network fails in its forward pass on real images, not when
its size is counted.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nas_gym.search_spaces import Decision, Encoding
from nas_gym.search_spaces.core import FixedSlotSpace

FLAG = "NAS_GYM_TEST_FLAG"
"""Environment variable with the path of a file that is there once the network has died."""


def sound(logits: Tensor) -> Tensor:
    """Do nothing wrong."""
    return logits


def broken(logits: Tensor) -> Tensor:
    """Raise."""
    raise ValueError("the layers do not fit")


def greedy(logits: Tensor) -> Tensor:
    """Ask the allocator for 2**62 bytes."""
    return logits + torch.empty(2**60).sum()


def diverging(logits: Tensor) -> Tensor:
    """Answer with NaN."""
    return logits * float("nan")


def slow(logits: Tensor) -> Tensor:
    """Take half a second a batch."""
    time.sleep(0.5)
    return logits


def hanging(logits: Tensor) -> Tensor:
    """Never come back."""
    time.sleep(600)
    return logits


def killed(logits: Tensor) -> Tensor:
    """Die as the kernel kills a process when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
    return logits


def killed_once(logits: Tensor) -> Tensor:
    """Die at the first call of all."""
    flag = Path(os.environ[FLAG])
    if not flag.exists():
        flag.touch()
        killed(logits)
    return logits


def segfault(logits: Tensor) -> Tensor:
    """Read from address zero."""
    ctypes.string_at(0)
    return logits


FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    fault.__name__: fault for fault in (sound, broken, greedy, diverging, slow, hanging, killed, killed_once, segfault)
}
NAMES = (*FAULTS, "unbuildable")


def encoding(name: str) -> Encoding:
    """Return the architecture of a fault."""
    return (NAMES.index(name),)


@dataclass(frozen=True)
class FaultSpace(FixedSlotSpace):
    """One decision: which fault."""

    name: ClassVar[str] = "faults"
    kinds: ClassVar[int] = 1

    @property
    def slots(self) -> tuple[Decision, ...]:
        """Return the one decision."""
        return (Decision(0, NAMES, ordered=False, mask=(True,) * len(NAMES)),)

    def decode(self, encoding: Encoding) -> str:
        """Return the name of the fault."""
        return NAMES[self.validate(encoding)[0]]

    def graph_size(self, encoding: Encoding) -> tuple[int, int]:
        """Return one node and no edge."""
        return 1, 0


class Faulty(nn.Module):
    """A linear classifier with a fault."""

    def __init__(self, features: int, classes: int, fault: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(features, classes)
        self.fault = fault

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, if it comes to that."""
        logits = self.linear(images.flatten(1))
        return logits if logits.is_meta else self.fault(logits)


def build(name: str, input_shape: tuple[int, int, int], classes: int, **sizes: Any) -> nn.Module:
    """Return the network of a fault."""
    if name == "unbuildable":
        raise ValueError("no such layer")
    channels, height, width = input_shape
    return Faulty(channels * height * width, classes, FAULTS[name])
