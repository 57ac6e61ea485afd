"""Data sets in .npz files, well-formed and not."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_gym.datasets.arrays import read_npz
from nas_gym.datasets.core import Images
from nas_gym.errors import DatasetError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 5, 4), dtype=np.uint8)
COLOURS = RNG.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])
DEFAULT = {"x_train": PIXELS, "y_train": LABELS, "x_test": PIXELS[:2], "y_test": LABELS[:2]}


def write(folder: Path, **changes: Any) -> Path:
    """Write a small data set; a change replaces an array, None leaves it out."""
    arrays = {name: array for name, array in {**DEFAULT, **changes}.items() if array is not None}
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def read(folder: Path, **changes: Any) -> Images:
    """Write a small data set and read it."""
    return read_npz(write(folder, **changes))


# --- images ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        pytest.param(PIXELS, PIXELS[..., None], id="N H W"),
        pytest.param(PIXELS[:, :3], PIXELS[:, :3, :, None], id="N 3 W is no colour"),
        pytest.param(PIXELS[..., None], PIXELS[..., None], id="N H W 1"),
        pytest.param(COLOURS, COLOURS, id="N H W 3"),
        pytest.param(PIXELS[:, None], PIXELS[..., None], id="N 1 H W"),
        pytest.param(COLOURS.transpose(0, 3, 1, 2), COLOURS, id="N 3 H W"),
        pytest.param((PIXELS / 255).astype(np.float32), PIXELS[..., None], id="float32"),
        pytest.param(COLOURS.transpose(0, 3, 1, 2) / 255, COLOURS, id="float64 N 3 H W"),
    ],
)
def test_images_become_bytes_with_the_channels_last(tmp_path: Path, images: Any, expected: Any) -> None:
    """Whatever the layout in the file."""
    found = read(tmp_path, x_train=images, x_test=images[:2]).train.images
    assert (found.dtype, found.flags.c_contiguous) == (np.uint8, True)
    np.testing.assert_array_equal(found, expected)


def test_rounding_is_noted(tmp_path: Path) -> None:
    """One sentence for each array that is not as it was."""
    assert read(tmp_path, x_test=PIXELS[:2] / 255).notes == ("The floats of x_test were rounded to 255 levels.",)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        pytest.param(PIXELS.astype(np.float32), "float32 and the shape [6, 5, 4], with values from 0 to 248", id="255"),
        pytest.param(PIXELS / 255 - 0.5, "x_train has the type float64", id="negative"),
        pytest.param(np.where(PIXELS > 9, PIXELS / 255, np.nan), "with values from nan to nan", id="nan"),
        pytest.param(np.full((6, 5, 4), np.inf), "with values from inf to inf", id="infinite"),
        pytest.param(PIXELS.astype(np.int64), "x_train has the type int64", id="int64"),
        pytest.param(PIXELS > 9, "x_train has the type bool", id="bool"),
        pytest.param(PIXELS[:, 0], "the shape [6, 4]; allowed are", id="two axes"),
        pytest.param(PIXELS[:, :0], "the shape [6, 0, 4]; allowed are", id="no pixels"),
        pytest.param(COLOURS[:, :3], "the second and the last axis could both be the channels", id="ambiguous"),
        pytest.param(np.zeros((6, 5, 4, 4), np.uint8), "no axis is the channels", id="four channels"),
    ],
)
def test_other_images_are_refused(tmp_path: Path, images: Any, message: str) -> None:
    """The message has the array, its type, shape and range, and what is allowed."""
    with pytest.raises(DatasetError, match=re.escape(message)):
        read(tmp_path, x_train=images)


def test_the_message_names_file_and_remedy(tmp_path: Path) -> None:
    """So that the user knows where to look and what to write instead."""
    with pytest.raises(DatasetError, match=r"data\.npz: x_test .*allowed are uint8, or floats from 0 to 1"):
        read(tmp_path, x_test=PIXELS[:2] * 2.0)


def test_parts_of_different_shapes_are_refused(tmp_path: Path) -> None:
    """A network has one input shape."""
    with pytest.raises(DatasetError, match=r"different shapes \[H, W, C\]: \[\(5, 3, 1\), \(5, 4, 1\)\]"):
        read(tmp_path, x_test=PIXELS[:2, :, :3])


# --- labels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        pytest.param(LABELS, ("0", "1", "2"), id="from 0"),
        pytest.param(LABELS.astype(np.uint8)[:, None], ("0", "1", "2"), id="N 1"),
        pytest.param(LABELS * 5 - 5, ("-5", "0", "5"), id="with gaps"),
        pytest.param(np.array(["a", "b", "ö"])[LABELS], ("a", "b", "ö"), id="strings"),
        pytest.param(np.array([b"a", b"b", b"c"])[LABELS], ("a", "b", "c"), id="bytes"),
    ],
)
def test_labels_are_numbered_in_order(tmp_path: Path, labels: Any, names: tuple[str, ...]) -> None:
    """Classes are the sorted training labels, whatever they are called."""
    images = read(tmp_path, y_train=labels, y_test=labels[:2])
    assert images.class_names == names
    assert images.train.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"y_test": np.array([0, 7])}, "y_test has the label 7, which y_train lacks", id="unknown"),
        pytest.param({"y_test": np.array(["0", "1"])}, "y_test has the type <U1 and y_train int64", id="mixed types"),
        pytest.param({"y_train": np.zeros(6, int)}, "y_train has 1 distinct labels; a data set needs at", id="1 class"),
        pytest.param({"y_train": LABELS / 2}, "y_train has the type float64", id="floats"),
        pytest.param({"y_train": np.eye(6, dtype=int)}, "and the shape [6, 6]; allowed are integers", id="one-hot"),
        pytest.param({"y_train": np.array([b"\xff", b"a"])[LABELS % 2]}, "label that is no UTF-8 text", id="bytes"),
        pytest.param({"y_train": LABELS[:5]}, "x_train has 6 images and y_train 5 labels", id="lengths"),
        pytest.param(
            {"x_test": PIXELS[:0], "y_test": LABELS[:0]}, "x_test has 0 images and y_test 0 labels", id="empty test"
        ),
        pytest.param(
            {"x_test": PIXELS[:0] / 1.0, "y_test": LABELS[:0]}, "x_test has 0 images", id="empty test of floats"
        ),
        pytest.param({"x_train": PIXELS[:0], "y_train": LABELS[:0]}, "y_train has 0 distinct", id="empty train"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """The message has the array and what is wrong with it."""
    with pytest.raises(DatasetError, match=re.escape(message)):
        read(tmp_path, **changes)


# --- files -----------------------------------------------------------------------------------------


def test_a_validation_part_is_read_where_there_is_one(tmp_path: Path) -> None:
    """And is None otherwise."""
    assert read(tmp_path).valid is None
    assert len(read(tmp_path, x_valid=PIXELS, y_valid=LABELS).parts["valid"]) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"y_test": None}, "the arrays y_test are missing; found: x_train, y_train, x_test.", id="y_test"),
        pytest.param({"x_train": None, "x_test": None}, "the arrays x_train, x_test are missing", id="two"),
        pytest.param({"x_valid": PIXELS}, "the arrays y_valid are missing", id="half a validation part"),
    ],
)
def test_missing_arrays_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """Together with those that were found."""
    with pytest.raises(DatasetError, match=re.escape(message)):
        read(tmp_path, **changes)


def test_other_arrays_are_ignored(tmp_path: Path) -> None:
    """Even those that could not be read."""
    assert len(read(tmp_path, extra=np.array([{}], object)).train) == 6


class Trap:
    """Code that would run if it were unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Raise when unpickled."""
        return exec, ("raise SystemExit('unpickled')",)


def test_pickled_arrays_are_refused_unread(tmp_path: Path) -> None:
    """Reading a data set runs no code of its author."""
    with pytest.raises(DatasetError, match="arrays of objects are refused, since reading them would run code"):
        read(tmp_path, y_train=np.array([Trap()] * 6, object))


def damaged(path: Path, damage: str) -> None:
    """Damage a file in some way."""
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_bytes(b"not an archive")
    elif damage == "one array":
        with path.open("wb") as stream:
            np.save(stream, PIXELS)
    elif damage == "not numpy inside":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x_train.npy", b"not an array")
    elif damage == "huge":
        header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000000000,), }"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x_train.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    else:
        np.savez_compressed(path, **DEFAULT)
        content = bytearray(path.read_bytes())
        content[100:400] = bytes(255 - byte for byte in content[100:400])
        path.write_bytes(content)


@pytest.mark.parametrize(
    "damage", ["truncated", "empty", "text", "one array", "not numpy inside", "huge", "flipped bits"]
)
def test_damaged_files_are_refused(tmp_path: Path, damage: str) -> None:
    """The message has the file and how to write it; no file stays open."""
    path = write(tmp_path)
    damaged(path, damage)
    with pytest.raises(DatasetError, match=r"data\.npz: cannot be read as an \.npz file.*Write it with numpy\.savez"):
        read_npz(path)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """Also where it vanished after it was looked for."""
    with pytest.raises(DatasetError, match=r"none\.npz: cannot be read"):
        read_npz(tmp_path / "none.npz")
