"""Data sets in one ``.npz`` file: x_train, y_train, x_test, y_test and, if there are, x_valid, y_valid.

Dimension letters: N images, H height, W width, C channels.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_gym.datasets.core import Images, Split
from nas_gym.errors import DatasetError

_CHANNELS = (1, 3)
_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    TypeError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What numpy raises for damaged files, depending on where they are damaged."""
_ALLOWED = "allowed are uint8, or floats from 0 to 1, of shape [N, H, W], [N, H, W, C] or [N, C, H, W] with C = 1 or 3"


def read_npz(path: Path) -> Images:
    """Read a data set from an ``.npz`` file.

    Args:
        path: the file, with images ``x_<part>`` (uint8, or floats from 0 to 1, which are rounded to 255 levels) and
            labels ``y_<part>`` (integers or strings, [N] or [N, 1]) for train, test and, optionally, valid. Classes are
            the sorted distinct training labels.

    Raises:
        DatasetError: the file is damaged, holds pickled objects, lacks an array, or an array does not fit.
    """
    arrays = _read(path)
    names = ("train", "test", *(["valid"] if "x_valid" in arrays or "y_valid" in arrays else []))
    notes: list[str] = []
    labels = {name: _labels(path, name, arrays[f"y_{name}"]) for name in names}
    classes = np.unique(labels["train"])
    if len(classes) < 2:
        raise DatasetError(f"{path}: y_train has {len(classes)} distinct labels; a data set needs at least 2 classes.")
    parts = {}
    for name in names:
        images = _images(path, name, arrays[f"x_{name}"], notes)
        if len(images) != len(labels[name]) or not len(images):
            raise DatasetError(
                f"{path}: x_{name} has {len(images)} images and y_{name} {len(labels[name])} labels; "
                "they must be as many, and at least one."
            )
        if (labels[name].dtype.kind == "U") != (classes.dtype.kind == "U"):
            raise DatasetError(
                f"{path}: y_{name} has the type {labels[name].dtype} and y_train {classes.dtype}; "
                "labels must be integers in all parts, or strings in all parts."
            )
        unknown = np.setdiff1d(labels[name], classes).tolist()
        if unknown:
            raise DatasetError(
                f"{path}: y_{name} has the label {unknown[0]!r}, which y_train lacks; "
                "every class needs training images, so add some or remove the label."
            )
        parts[name] = Split(images, np.searchsorted(classes, labels[name]).astype(np.int64))
    shapes = {part.images.shape[1:] for part in parts.values()}
    if len(shapes) > 1:
        raise DatasetError(f"{path}: the parts have images of different shapes [H, W, C]: {sorted(shapes)}.")
    return Images(tuple(str(name) for name in classes.tolist()), notes=tuple(notes), **parts)


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of the file by name, without unpickling anything."""
    needed = ("x_train", "y_train", "x_test", "y_test")
    try:
        # numpy leaves a damaged file open if it opened it itself.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            known = [name for name in file.files if name in (*needed, "x_valid", "y_valid")]
            arrays = {name: file[name] for name in known}
            # numpy returns what is no array as it is.
            if broken := [name for name in known if not isinstance(arrays[name], np.ndarray)]:
                raise ValueError(f"{', '.join(broken)} is no array")
            found = ", ".join(file.files) or "none"
    except _UNREADABLE as error:
        raise DatasetError(
            f"{path}: cannot be read as an .npz file of plain arrays: {str(error).rstrip('.')}. "
            "Write it with numpy.savez; arrays of objects are refused, since reading them would run code."
        ) from error
    needed += ("x_valid", "y_valid") if {"x_valid", "y_valid"} & arrays.keys() else ()
    if missing := [name for name in needed if name not in arrays]:
        raise DatasetError(
            f"{path}: the arrays {', '.join(missing)} are missing; found: {found}. Add them with numpy.savez."
        )
    return arrays


def _images(path: Path, name: str, images: npt.NDArray[Any], notes: list[str]) -> npt.NDArray[np.uint8]:
    """Return images as uint8 [N, H, W, C]."""
    described = f"{path}: x_{name} has the type {images.dtype} and the shape {list(images.shape)}"
    if images.ndim not in (3, 4) or 0 in images.shape[1:]:
        raise DatasetError(f"{described}; {_ALLOWED}.")
    if images.ndim == 3:
        images = images[..., None]
    else:
        last, first = images.shape[3] in _CHANNELS, images.shape[1] in _CHANNELS
        if last == first:
            problem = "the second and the last axis could both be the channels" if last else "no axis is the channels"
            raise DatasetError(f"{described}; {problem}; {_ALLOWED}.")
        if first:
            images = images.transpose(0, 2, 3, 1)
    if images.dtype == np.uint8 or not len(images):
        return np.ascontiguousarray(images, np.uint8)
    if images.dtype.kind in "iuf":
        # Not a number is neither below 0 nor above 1, but it makes both bounds nan.
        low, high = float(images.min()), float(images.max())
        if images.dtype.kind == "f" and low >= 0 and high <= 1:
            notes.append(f"The floats of x_{name} were rounded to 255 levels.")
            return np.ascontiguousarray(np.rint(images * 255), np.uint8)
        described += f", with values from {low:g} to {high:g}"
    raise DatasetError(f"{described}; {_ALLOWED}.")


def _labels(path: Path, name: str, labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return labels of shape [N]."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iuUS":
        raise DatasetError(
            f"{path}: y_{name} has the type {labels.dtype} and the shape {list(labels.shape)}; "
            "allowed are integers or strings of shape [N] or [N, 1]."
        )
    if labels.dtype.kind != "S":
        return labels
    try:
        return np.char.decode(labels, "utf-8")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: y_{name} has a label that is no UTF-8 text: {error}; store text.") from error
