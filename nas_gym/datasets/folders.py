"""Folders of images, one sub-folder a class, read the way people keep them.

Dimension letters: N images, H height, W width, C channels.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from nas_gym.datasets.cache import CachedParts, CacheWriter, read_cached, write_cached
from nas_gym.datasets.core import RESAMPLINGS, Images
from nas_gym.datasets.pixels import fit
from nas_gym.errors import DatasetError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
"""File names that are images, in lower case; others are ignored."""

_VERSION = 1
_PART_NAMES = {"train": "train", "val": "valid", "valid": "valid", "validation": "valid", "test": "test"}
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")
_LAYOUTS = (
    "A folder has one sub-folder of images per class, or sub-folders train, val and test with class folders in each."
)
_R = TypeVar("_R")


@dataclass(frozen=True)
class File:
    """One image file: its part, the number of its class, and its path."""

    part: str
    label: int
    path: Path


@dataclass(frozen=True)
class Header:
    """What an image is like once it is upright: (width, height), grey or not, transparent or not."""

    size: tuple[int, int]
    grey: bool
    transparent: bool


@dataclass(frozen=True)
class Fitting:
    """How images become squares: the side in pixels and the way of resampling."""

    image_size: int
    resampling: str

    def __str__(self) -> str:
        """Return what tells cache entries apart; the first ones were all bilinear."""
        return str(self.image_size) + ("" if self.resampling == RESAMPLINGS[0] else f" {self.resampling}")


def read_folder(path: Path, image_size: int | None, resampling: str = "bilinear") -> Images:
    """Read a folder of images; decoded ones are kept in a memory-mapped cache.

    Understood are class folders directly; ``train``, ``val`` (or ``valid``, ``validation``) and ``test`` with class
    folders, whose split is kept; and ``train`` with only one of the others, or alone. Unreadable files are left out and
    counted. Images are turned upright by their EXIF data; 16-bit greys are scaled to 8 bits; transparent images are
    laid over white. If all images are grey there is one channel, else all become RGB.

    Args:
        path: the folder.
        image_size: side of the square that every image is fitted into, keeping its proportions and cropping from the
            centre; None = all must have one size already.
        resampling: how they are resized, one of `RESAMPLINGS`.

    Raises:
        DatasetError: another layout, too few classes or images, too many unreadable files, mixed sizes, a full disk.
    """
    class_names, files = list_files(path)
    fitting = None if image_size is None else Fitting(image_size, resampling)
    key = _key(path, files, fitting)
    cached = read_cached(key) or _decode(path, class_names, files, fitting, key)
    described = cached.description
    return Images(
        class_names,
        cached.parts["train"],
        cached.parts.get("valid"),
        cached.parts.get("test"),
        digest=described["digest"],
        skipped=described["skipped"],
        notes=tuple(described["notes"]),
    )


def list_files(path: Path) -> tuple[tuple[str, ...], list[File]]:
    """Return class names and image files, sorted by part, class and name.

    Raises:
        DatasetError: the folder has another layout.
    """
    found = {folder.name: folder for folder in _sub_folders(path)}
    named = {_PART_NAMES[name.lower()]: folder for name, folder in found.items() if name.lower() in _PART_NAMES}
    parts = named if "train" in named and len(named) == len(found) else {"train": path}
    class_names = tuple(folder.name for folder in _sub_folders(parts["train"]))
    if len(class_names) < 2:
        raise DatasetError(
            f"{parts['train']}: a data set needs at least 2 class folders, found {len(class_names)} "
            f"({', '.join(class_names) or 'none'}). {_LAYOUTS}"
        )
    files = []
    for part, folder in parts.items():
        classes = {inside.name: inside for inside in _sub_folders(folder)}
        if unknown := sorted(set(classes) - set(class_names)):
            raise DatasetError(
                f"{folder} has the class folders {', '.join(unknown)}, which {parts['train']} lacks; known are "
                f"{', '.join(class_names)}."
            )
        for label, name in enumerate(class_names):
            images = _image_files(classes[name]) if name in classes else []
            if not images and part == "train":
                raise DatasetError(
                    f"{folder / name}: no images. Known file names end in {', '.join(SUFFIXES)}. {_LAYOUTS}"
                )
            files += [File(part, label, image) for image in images]
        if not any(file.part == part for file in files):
            raise DatasetError(f"{folder}: no images in any class folder. {_LAYOUTS}")
    return class_names, files


def _sub_folders(path: Path) -> list[Path]:
    return sorted(inside for inside in path.iterdir() if inside.is_dir() and not inside.name.startswith("."))


def _image_files(folder: Path) -> list[Path]:
    return sorted(
        file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    )


def _key(path: Path, files: Sequence[File], fitting: Fitting | None) -> str:
    """Return the name of the cache entry: another one as soon as a file changes."""
    state = hashlib.blake2b(f"{_VERSION} {path.resolve()} {fitting}".encode(), digest_size=16)
    for file in files:
        stat = file.path.stat()
        state.update(f"{file.part}/{file.path.relative_to(path)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return state.hexdigest()


def _decode(
    path: Path, class_names: Sequence[str], files: Sequence[File], fitting: Fitting | None, key: str
) -> CachedParts:
    """Decode all files into the cache.

    Raises:
        DatasetError: see `read_folder`.
    """
    headers = _in_threads(_header, files)
    readable = [(file, header) for file, header in zip(files, headers, strict=True) if header is not None]
    unreadable = [file for file, header in zip(files, headers, strict=True) if header is None]
    _check_readable(path, class_names, files, unreadable)
    size = _common_size(path, [header for _, header in readable], fitting)
    grey = all(header.grey for _, header in readable)
    channels = 1 if grey else 3
    parts: dict[str, list[File]] = {}
    for file, _ in readable:
        parts.setdefault(file.part, []).append(file)
    shape = (size[1], size[0], channels)

    def fill(writer: CacheWriter) -> dict[str, Any]:
        digest = hashlib.blake2b(digest_size=16)
        for part, chosen in parts.items():
            labels = np.array([file.label for file in chosen], np.int64)
            images = writer.allocate(part, labels, shape)

            def put(index: int, chosen: list[File] = chosen, images: npt.NDArray[np.uint8] = images) -> None:
                images[index] = _pixels(chosen[index].path, size, fitting, grey)

            _in_threads(put, range(len(chosen)))
            images.flush()  # pyright: ignore[reportAttributeAccessIssue]
            digest.update(f"{part} {images.shape}".encode() + labels.tobytes())
            for image in images:
                digest.update(image.tobytes())
        return {
            "digest": digest.hexdigest(),
            "skipped": len(unreadable),
            "notes": _notes(path, [header for _, header in readable], unreadable, grey),
        }

    return write_cached(key, len(readable) * size[0] * size[1] * channels, fill)


def _in_threads(function: Callable[[Any], _R], items: Sequence[Any]) -> list[_R]:
    """Call a function for every item; decoding releases the interpreter's lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, items, chunksize=64))


def _header(file: File) -> Header | None:
    """Return what an image is like, None if it is unreadable; it is decoded whole to find truncated files."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file.path) as image:
                image.load()
                size = ImageOps.exif_transpose(image).size
                transparent = "transparency" in image.info or image.mode in ("RGBA", "LA", "PA")
                return Header(size, image.mode in _GREY_MODES, transparent)
    except (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError):
        return None


def _pixels(path: Path, size: tuple[int, int], fitting: Fitting | None, grey: bool) -> npt.NDArray[np.uint8]:
    """Return an image as uint8 [H, W, C]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as opened:
            image = _eight_bits(ImageOps.exif_transpose(opened))
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if grey else "RGB")
    if fitting is not None:
        image = fit(image, size, fitting.resampling)
    pixels = np.asarray(image, np.uint8)
    return pixels[:, :, None] if grey else pixels


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale greys of more than 8 bits."""
    if image.mode not in ("I", "I;16", "I;16B", "I;16L", "F"):
        return image
    values = np.asarray(image, np.float64)
    largest = 65535.0 if image.mode != "F" or values.max() > 255 else (255.0 if values.max() > 1 else 1.0)
    return Image.fromarray(np.clip(np.rint(values * (255.0 / largest)), 0, 255).astype(np.uint8))


def _check_readable(path: Path, class_names: Sequence[str], files: Sequence[File], unreadable: Sequence[File]) -> None:
    """Check that enough is left.

    Raises:
        DatasetError: more than half of the files, or all of a class, cannot be read.
    """
    if 2 * len(unreadable) > len(files):
        raise DatasetError(
            f"{path}: {len(unreadable)} of {len(files)} files cannot be read as images, such as {unreadable[0].path}; "
            "is it the right folder?"
        )
    before = Counter((file.part, file.label) for file in files)
    lost = Counter((file.part, file.label) for file in unreadable)
    for (part, label), count in lost.items():
        if count == before[part, label]:
            raise DatasetError(
                f"{path}: none of the {count} images of the class {class_names[label]!r} in {part} can be read."
            )


def _common_size(path: Path, headers: Sequence[Header], fitting: Fitting | None) -> tuple[int, int]:
    """Return the (width, height) that all images get.

    Raises:
        DatasetError: they differ and nothing says what to resize them to.
    """
    if fitting is not None:
        return fitting.image_size, fitting.image_size
    sizes = Counter(header.size for header in headers)
    if len(sizes) > 1:
        common = ", ".join(f"{width}x{height} ({count})" for (width, height), count in sizes.most_common(3))
        raise DatasetError(
            f"{path}: the images have {len(sizes)} different sizes, the most frequent are {common}. "
            "Give image_size to resize them, e.g. --env-arg image_size=64."
        )
    return next(iter(sizes))


def _notes(path: Path, headers: Sequence[Header], unreadable: Sequence[File], grey: bool) -> list[str]:
    """Return what a user should know, one sentence each."""
    notes = []
    if unreadable:
        names = ", ".join(str(file.path.relative_to(path)) for file in unreadable[:3])
        more = ", ..." if len(unreadable) > 3 else ""
        notes.append(f"{len(unreadable)} unreadable files were left out: {names}{more}.")
    greys = sum(header.grey for header in headers)
    if greys and not grey:
        notes.append(f"{greys} of {len(headers)} images are grey and were turned into RGB.")
    if transparent := sum(header.transparent for header in headers):
        notes.append(f"{transparent} of {len(headers)} images are transparent and were laid over white.")
    return notes
