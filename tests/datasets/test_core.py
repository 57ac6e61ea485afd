"""Types of data sets and the value that names one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_gym.datasets import DATASETS, Images, Source, Split
from nas_gym.errors import InvalidArgument, UnknownName


def split(count: int = 4, labels: object = None, shape: tuple[int, ...] = (3, 3, 1)) -> Split:
    """Return black images whose labels alternate."""
    chosen = np.arange(count) % 2 if labels is None else np.asarray(labels)
    return Split(np.zeros((count, *shape), np.uint8), chosen.astype(np.int64))


# --- parts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        pytest.param(np.zeros((2, 3, 3, 1)), np.zeros(2, np.int64), "uint8 [N, H, W, C], got float64", id="floats"),
        pytest.param(np.zeros((2, 3, 3), np.uint8), np.zeros(2, np.int64), "got uint8 [2, 3, 3]", id="three axes"),
        pytest.param(np.zeros((2, 3, 3, 1), np.uint8), np.zeros(2, np.int32), "got int32 [2]", id="int32 labels"),
        pytest.param(np.zeros((2, 3, 3, 1), np.uint8), np.zeros(3, np.int64), "each of 2 images", id="lengths"),
    ],
)
def test_a_part_is_bytes_and_labels(images: Any, labels: Any, message: str) -> None:
    """Anything else is refused where it is made."""
    with pytest.raises(InvalidArgument, match=re.escape(message)):
        Split(images, labels)


def test_a_part_knows_its_bytes() -> None:
    """Of images and labels."""
    assert split(4).nbytes == 4 * 9 + 4 * 8


@pytest.mark.parametrize(
    ("names", "parts", "message"),
    [
        pytest.param(("a",), {"train": split(labels=[0] * 4)}, "at least 2 classes, got 1", id="one class"),
        pytest.param(
            ("a", "b"), {"train": split(labels=[0, 1, 2, 0])}, "labels of train must lie", id="label too large"
        ),
        pytest.param(("a", "b"), {"train": split(labels=[0, 1, -1, 0])}, "got -1 to 1", id="negative label"),
        pytest.param(
            ("a", "b"), {"train": split(), "test": split(shape=(3, 4, 1))}, "those of test have [3, 4, 1]", id="shape"
        ),
    ],
)
def test_the_parts_of_a_data_set_fit_together(names: tuple[str, ...], parts: dict[str, Any], message: str) -> None:
    """Two classes or more, one shape, and labels that name classes."""
    with pytest.raises(InvalidArgument, match=re.escape(message)):
        Images(names, **parts)


def test_only_parts_that_exist_are_listed() -> None:
    """In the order train, valid, test."""
    assert list(Images(("a", "b"), split(), test=split()).parts) == ["train", "test"]


# --- sources ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", 3),
        ("image_size", 0),
        ("image_size", 8.0),
        ("subset", 3),
        ("subset", True),
        ("split_seed", -1),
        ("split_seed", None),
        ("valid_share", 0.0),
        ("valid_share", 1.0),
        ("valid_share", 1),
        ("valid_share", float("nan")),
        ("resampling", "nearest"),
        ("train_images", 0),
        ("valid_images", 2.0),
        ("test_images", True),
    ],
)
def test_other_values_are_refused(field: str, value: object) -> None:
    """The message has the value received."""
    with pytest.raises(InvalidArgument, match=rf"{field} .*, got {re.escape(repr(value))}\.$"):
        Source(**{field: value})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "fields", [{"subset": 40}, {"resampling": "area", "train_images": 9, "valid_images": 8, "test_images": 7}]
)
def test_a_source_is_restored_from_json(fields: dict[str, Any]) -> None:
    """Records name data sets by these fields."""
    source = Source("cats.npz", image_size=8, split_seed=3, valid_share=0.2, **fields)
    assert Source(**source.to_json()) == source


def test_a_subset_and_sizes_of_parts_exclude_each_other() -> None:
    """Both say how many images there are; the message names what was given."""
    with pytest.raises(InvalidArgument, match="subset and train_images, test_images exclude each other, got subset=40"):
        Source(subset=40, train_images=9, test_images=9)


@pytest.mark.parametrize(
    ("name", "is_path"),
    [
        pytest.param("digits", False, id="registered"),
        pytest.param("my_package:pets", False, id="function"),
        pytest.param("unknown", False, id="no such folder"),
        pytest.param("pets", True, id="folder"),
        pytest.param("cats.npz", True, id="npz"),
        pytest.param("some/where", True, id="slash"),
    ],
)
def test_paths_are_told_from_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_path: bool) -> None:
    """A registered name comes first; a folder that exists needs no slash."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets").mkdir()
    (tmp_path / "digits").mkdir()
    assert (Source(name).path is not None) == is_path


def test_the_home_folder_is_resolved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a shell."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Source("~/cats.npz").path == tmp_path / "cats.npz"


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        pytest.param("digit", UnknownName, "unknown data set 'digit'. Did you mean 'digits'", id="typo"),
        pytest.param("cats.npz", InvalidArgument, "there is no file or folder", id="no file"),
        pytest.param(
            "./README", InvalidArgument, "must be an .npz file or a folder, got another file", id="other file"
        ),
        pytest.param("no_such_module:f", InvalidArgument, "there is no module 'no_such_module'", id="no module"),
        pytest.param("json:f", InvalidArgument, "module 'json' has no attribute 'f'", id="no function"),
    ],
)
def test_names_are_checked_without_reading_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: type[Exception], message: str
) -> None:
    """So that a mistake is found before a search begins."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README").write_text("cats")
    with pytest.raises(kind, match=re.escape(message)):
        Source(name).check()


def test_public_data_sets_need_not_be_there_to_be_checked() -> None:
    """Nothing is read."""
    for name in DATASETS:
        Source(name).check()
