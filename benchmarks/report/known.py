"""Environments of a record, made again: what they know of architectures, and how these look."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

import nas_gym  # noqa: F401 - registers the environments
from nas_gym.errors import MissingExtra, NASGymError
from nas_gym.rendering import render_rgb, render_text

from ..metrics import Yardstick
from ..tasks import WholeSpace


@dataclass(frozen=True, eq=False)
class Known:
    """The environments of a task, made again to look things up; nothing is trained or queried.

    Attributes:
        envs: one of them, vectorised.
        same_table: whether its answers come from the table of the record, or no table is concerned.
    """

    envs: Any
    same_table: bool

    @classmethod
    def of(cls, env: str, arguments: Mapping[str, Any], table_sha256: str | None) -> tuple[Known | None, str]:
        """Return the environments and what is to be said of them; None where they cannot be made.

        Args:
            env: id of the environment.
            arguments: of it.
            table_sha256: of the table by which the record was made.
        """
        try:
            envs = gymnasium.make_vec(env, num_envs=1, autoreset_mode="Disabled", **arguments).unwrapped
            table = getattr(envs.evaluator, "table", None)  # pyright: ignore[reportAttributeAccessIssue]
        except (NASGymError, gymnasium.error.Error, ImportError, TypeError, AttributeError) as error:
            return None, f"{env} cannot be made again, so its architectures are not drawn: {error}"
        now = None if table is None else table.sha256
        if now != table_sha256:
            return cls(envs, False), (
                f"The table of {env} is another one than that of the record (SHA-256 {str(now)[:12]} now, "
                f"{str(table_sha256)[:12]} recorded), so nothing is looked up in it."
            )
        return cls(envs, True), ""

    @property
    def space(self) -> Any:  # noqa: ANN401 - a search space
        """The search space."""
        return self.envs.space

    @property
    def evaluator(self) -> Any:  # noqa: ANN401 - an evaluator
        """What answers."""
        return self.envs.evaluator

    @property
    def table_name(self) -> str | None:
        """Name of the table of the record, None where there is none or it is another one now."""
        table = getattr(self.evaluator, "table", None)
        return table.path.stem if self.same_table and table is not None else None

    @cached_property
    def looks_up(self) -> bool:
        """Whether reported metrics are looked up; otherwise they would take a training."""
        return self.same_table and self.evaluator.reference(self.evaluator.reported_metric) is not None

    @cached_property
    def yardstick(self) -> Yardstick | None:
        """What held-out values are measured with, None where the space is not wholly known."""
        whole = WholeSpace.of(self.envs) if self.looks_up else None
        return None if whole is None else whole.yardstick

    def held_out(self, encoding: Sequence[int]) -> float:
        """Return the reported metric of an architecture, higher = better."""
        metric = self.evaluator.reported_metric
        sign = 1.0 if self.evaluator.metrics[metric].direction == "maximize" else -1.0
        return sign * float(self.evaluator.report(tuple(encoding))[metric])

    def costs(self, encoding: Sequence[int]) -> dict[str, float]:
        """Return what can be looked up of an architecture and should be low, by name."""
        if not self.looks_up:
            return {}
        return {
            name: float(value)
            for name, value in self.evaluator.report(tuple(encoding)).items()
            if self.evaluator.metrics[name].direction == "minimize"
        }

    def picture(self, encoding: Sequence[int]) -> bytes | None:
        """Return an architecture as PNG, None where pygame is not installed."""
        try:
            return png(render_rgb(self.space, tuple(encoding), highlight=()))
        except MissingExtra:
            return None

    def text(self, encoding: Sequence[int]) -> str:
        """Return an architecture drawn in characters."""
        return render_text(self.space, tuple(encoding), highlight=())


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return pixels [height, width, 3] as a PNG file.

    >>> png(np.zeros((1, 1, 3), np.uint8))[1:4]
    b'PNG'
    """
    height, width, _ = pixels.shape
    lines = np.zeros((height, 1 + 3 * width), np.uint8)  # A line begins with its filter, 0 = none.
    lines[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
