"""Decoded images on the disk, memory-mapped: decoded once, shared by all processes, never larger than the disk.

Dimension letters: N images, H height, W width, C channels.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_gym.datasets.core import Split
from nas_gym.errors import DatasetError

_DESCRIPTION = "description.json"


def data_root() -> Path:
    """Return where data sets and decoded images lie: ``NAS_GYM_DATA``, else ``~/.cache/nas-gym``."""
    named = os.environ.get("NAS_GYM_DATA")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "nas-gym"


@dataclass(frozen=True, eq=False)
class CachedParts:
    """What a cache entry holds.

    Attributes:
        parts: memory-mapped images and labels by part.
        description: JSON values that the writer added.
    """

    parts: Mapping[str, Split]
    description: Mapping[str, Any]


def read_cached(key: str) -> CachedParts | None:
    """Return an entry of the cache, or None where there is none or it is damaged."""
    folder = data_root() / "cache" / key
    try:
        description = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
        # Copy-on-write, since torch warns about arrays that cannot be written.
        parts = {
            name: Split(
                np.load(folder / f"{name}_images.npy", mmap_mode="c", allow_pickle=False),
                np.load(folder / f"{name}_labels.npy", allow_pickle=False),
            )
            for name in description["parts"]
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None
    sizes = {name: list(part.images.shape) for name, part in parts.items()}
    return CachedParts(parts, description["described"]) if sizes == description["parts"] else None


class CacheWriter:
    """Fills a new entry of the cache; see `write_cached`."""

    def __init__(self, folder: Path) -> None:
        """Write into a folder that exists."""
        self._folder = folder
        self._shapes: dict[str, list[int]] = {}

    def allocate(self, part: str, labels: npt.NDArray[np.int64], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """Return room for the images of a part, uint8 [N, H, W, C] on the disk, to be filled by the caller.

        Args:
            part: name of the part.
            labels: int64 [N].
            shape: (H, W, C).
        """
        np.save(self._folder / f"{part}_labels.npy", labels)
        path = self._folder / f"{part}_images.npy"
        images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(len(labels), *shape))
        # Without its blocks reserved, a full disk would kill the process at the first write instead of being an error.
        with path.open("r+b") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        self._shapes[part] = list(images.shape)
        return images

    def describe(self, described: Mapping[str, Any]) -> None:
        """Write the description, which makes the entry valid."""
        content = {"parts": self._shapes, "described": described}
        (self._folder / _DESCRIPTION).write_text(json.dumps(content), encoding="utf-8")


def write_cached(key: str, needed_bytes: int, fill: Callable[[CacheWriter], Mapping[str, Any]]) -> CachedParts:
    """Write an entry of the cache and return it; another process that did so first is no problem.

    Args:
        key: name of the entry.
        needed_bytes: its size, for the error message.
        fill: writes the parts and returns the description.

    Raises:
        DatasetError: the disk is full or cannot be written; nothing half-written remains.
    """
    root = data_root() / "cache"
    with _disk_errors(root, needed_bytes):
        root.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=root))
        try:
            writer = CacheWriter(temporary)
            writer.describe(fill(writer))
            _put_in_place(temporary, root / key)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    found = read_cached(key)
    if found is None:
        raise DatasetError(f"{root / key}: the decoded images cannot be read back; remove the folder and try again.")
    return found


def _put_in_place(temporary: Path, target: Path) -> None:
    """Rename a finished entry, replacing a damaged one."""
    if target.exists() and read_cached(target.name) is None:
        shutil.rmtree(target, ignore_errors=True)
    try:
        temporary.rename(target)
    except OSError:
        if read_cached(target.name) is None:
            raise


@contextlib.contextmanager
def _disk_errors(root: Path, needed_bytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DatasetError(
            f"{root}: the decoded images ({needed_bytes / 1e6:,.0f} MB) cannot be written: {error.strerror or error}. "
            "Make room, or set the environment variable NAS_GYM_DATA to a folder on another disk."
        ) from error
