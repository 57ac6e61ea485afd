"""Public data sets through torchvision; nothing here downloads."""

from __future__ import annotations

import os
import re
import sys
from http.client import IncompleteRead
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest

from nas_gym.datasets import DATASETS, Source, vision
from nas_gym.datasets.core import Images
from nas_gym.errors import DatasetError, InvalidArgument, MissingExtra

NAMES = ("mnist", "fashion_mnist", "cifar10", "cifar100", "svhn")
GREY = np.arange(2 * 28 * 28).reshape(2, 28, 28).astype(np.uint8)
COLOUR = np.arange(2 * 32 * 32 * 3).reshape(2, 32, 32, 3).astype(np.uint8)
FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}


@pytest.fixture(autouse=True)
def data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Look for data sets in the test's own folder."""
    monkeypatch.setenv("NAS_GYM_DATA", str(tmp_path))
    return tmp_path


def read(name: str) -> Images:
    """Read a data set by its name."""
    found = DATASETS[name]()
    assert isinstance(found, Images)
    return found


def replaced(monkeypatch: pytest.MonkeyPatch, make: Any) -> list[dict[str, Any]]:
    """Put `make` in the place of every data set of torchvision; return the keyword arguments of its calls."""
    calls: list[dict[str, Any]] = []

    def call(root: Path, **options: Any) -> Any:
        calls.append({"root": root, **options})
        return make()

    torchvision = ModuleType("torchvision")
    names = ("MNIST", "FashionMNIST", "CIFAR10", "CIFAR100", "SVHN")
    setattr(torchvision, "datasets", SimpleNamespace(**dict.fromkeys(names, call)))  # noqa: B010
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    return calls


def raising(error: Exception) -> Any:
    """Return a function that raises."""

    def fail() -> None:
        raise error

    return fail


# --- reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        pytest.param("mnist", GREY, GREY[..., None], id="mnist, N H W"),
        pytest.param("cifar10", COLOUR, COLOUR, id="cifar10, N H W C"),
        pytest.param("svhn", COLOUR.transpose(0, 3, 1, 2), COLOUR, id="svhn, N C H W"),
    ],
)
def test_images_have_their_channels_last(monkeypatch: pytest.MonkeyPatch, name: str, data: Any, expected: Any) -> None:
    """Whatever the layout in torchvision."""
    replaced(monkeypatch, lambda: SimpleNamespace(data=data, targets=[1, 0], classes=["a", "b"]))
    np.testing.assert_array_equal(read(name).train.images, expected)


@pytest.mark.parametrize("field", ["targets", "labels"])
def test_labels_are_found(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    """Under either of their names in torchvision."""
    replaced(monkeypatch, lambda: SimpleNamespace(data=COLOUR, classes=["a", "b"], **{field: [1, 0]}))
    assert read("svhn").train.labels.tolist() == [1, 0]


def test_classes_have_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that torchvision knows."""
    replaced(monkeypatch, lambda: SimpleNamespace(data=COLOUR, targets=[1, 0], classes=["frog", "ship"]))
    assert read("cifar10").class_names == ("frog", "ship")


def test_classes_without_names_are_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """SVHN shows digits, and torchvision names none."""
    replaced(monkeypatch, lambda: SimpleNamespace(data=COLOUR, labels=[1, 0]))
    assert read("svhn").class_names == tuple("0123456789")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_downloaded_by_reading(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Neither the training nor the test part."""
    calls = replaced(monkeypatch, lambda: SimpleNamespace(data=COLOUR, labels=[1, 0]))
    read(name)
    assert [call["download"] for call in calls] == [False, False]


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_are_not_confused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Training images first."""
    calls = replaced(monkeypatch, lambda: SimpleNamespace(data=COLOUR, labels=[1, 0]))
    read(name)
    assert [call.get("train", call.get("split")) for call in calls] in ([True, False], ["train", "test"])


# --- with torchvision itself -----------------------------------------------------------------------


def idx(array: Any) -> bytes:
    """Return an array of bytes in the format of MNIST."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def write_mnist(root: Path, name: str) -> Path:
    """Write a data set of four images in torchvision's layout."""
    folder = root / FOLDERS[name] / "raw"
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(GREY))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.array([7, 2])))
    return folder


@pytest.mark.parametrize("name", FOLDERS)
def test_files_in_the_layout_of_torchvision_are_read(data_root: Path, name: str) -> None:
    """From the folder that NAS_GYM_DATA names."""
    pytest.importorskip("torchvision")
    write_mnist(data_root, name)
    images = read(name)
    np.testing.assert_array_equal(images.train.images, GREY[..., None])
    assert (images.train.labels.tolist(), len(images.class_names)) == ([7, 2], 10)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_data_set_is_an_error(data_root: Path, name: str) -> None:
    """The message says what, where it was looked for and how to get it."""
    pytest.importorskip("torchvision")
    message = rf"'{name}' is missing: .* in {re.escape(str(data_root))}\. .*`nas-gym datasets download {name}`"
    with pytest.raises(DatasetError, match=message):
        read(name)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        pytest.param("train-images-idx3-ubyte", b"", id="empty"),
        pytest.param("train-images-idx3-ubyte", b"no images at all", id="text"),
        pytest.param("t10k-images-idx3-ubyte", idx(GREY)[:500], id="truncated"),
        pytest.param("t10k-labels-idx1-ubyte", idx(np.arange(3)), id="labels of other images"),
        pytest.param("t10k-labels-idx1-ubyte", None, id="file missing"),
    ],
)
def test_a_damaged_data_set_is_an_error(data_root: Path, file: str, content: bytes | None) -> None:
    """Whatever torchvision makes of it."""
    pytest.importorskip("torchvision")
    path = write_mnist(data_root, "mnist") / file
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"'mnist' is damaged or incomplete: .*nas-gym datasets download mnist"):
        read("mnist")


@pytest.mark.parametrize("name", NAMES)
def test_the_extra_is_named_when_torchvision_is_missing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The message has the pip command."""
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingExtra, match=rf"data set '{name}'.*pip install \"nas-gym\[train\]\""):
        read(name)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_data_set_on_the_disk_is_noticed_without_torchvision(
    data_root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """So that a listing takes no time."""
    monkeypatch.setitem(sys.modules, "torchvision", None)
    before = vision.downloaded(name)
    write_mnist(data_root, name)
    assert (before, vision.downloaded(name)) == (False, True)


# --- downloading -----------------------------------------------------------------------------------


def test_a_download_fetches_both_parts(monkeypatch: pytest.MonkeyPatch, data_root: Path) -> None:
    """Into the folder where they are looked for."""
    calls = replaced(monkeypatch, SimpleNamespace)
    vision.download("svhn")
    assert calls == [{"root": data_root, "download": True, "split": split} for split in ("train", "test")]


@pytest.mark.parametrize(
    "error",
    [URLError("no route"), TimeoutError("slow"), RuntimeError("File not found or corrupted."), IncompleteRead(b"")],
    ids=["unreachable", "timeout", "corrupted", "cut off"],
)
def test_a_failed_download_is_an_error(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Not a traceback of the network."""
    replaced(monkeypatch, raising(error))
    with pytest.raises(DatasetError, match=r"download of 'mnist' to .* failed: .*Check the connection"):
        vision.download("mnist")


@pytest.mark.parametrize("name", ["digits", "photos/"])
def test_what_cannot_be_downloaded_is_refused(name: str) -> None:
    """The message has what can be."""
    with pytest.raises(InvalidArgument, match=f"nothing to download for '{name}'; choose one of {', '.join(NAMES)}"):
        vision.download(name)


def test_a_download_names_the_extra_when_torchvision_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An import error is no failed download."""
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingExtra, match="pip install"):
        vision.download("mnist")


# --- the real thing --------------------------------------------------------------------------------


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of real data sets, if there is one."""
    folder = os.environ.get("NAS_GYM_TEST_DATA")
    if not folder:
        pytest.skip("NAS_GYM_TEST_DATA names no folder of data sets")
    monkeypatch.setenv("NAS_GYM_DATA", folder)
    return Path(folder)


@pytest.mark.slow
def test_mnist_is_loaded_whole(real_data: Path) -> None:
    """Its published sizes, and the mean and deviation that everybody quotes."""
    pytest.importorskip("torchvision")
    if not vision.downloaded("mnist"):
        pytest.skip(f"no MNIST in {real_data}")
    data = Source("mnist").load()
    assert (len(data.train), len(data.valid), len(data.test)) == (54_000, 6_000, 10_000)
    assert data.class_names[3] == "3 - three"
    np.testing.assert_allclose([data.mean[0] / 255, data.deviation[0] / 255], [0.1307, 0.3081], atol=5e-4)


@pytest.mark.slow
def test_cifar10_in_one_file_is_loaded_whole(real_data: Path) -> None:
    """Its published sizes, and the means that everybody quotes."""
    path = real_data / "cifar10.npz"
    if not path.exists():
        pytest.skip(f"no cifar10.npz in {real_data}")
    data = Source(str(path)).load()
    assert (len(data.train), len(data.valid), len(data.test)) == (45_000, 5_000, 10_000)
    np.testing.assert_allclose(np.divide(data.mean, 255), [0.4914, 0.4822, 0.4465], atol=2e-3)
