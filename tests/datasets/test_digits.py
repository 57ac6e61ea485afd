"""The digits: the packaged table holds only while not a bit of them changes."""

from __future__ import annotations

import hashlib
import sys

import numpy as np
import numpy.typing as npt
import pytest

from nas_gym.datasets import DIGITS_SIZES, Dataset, Source, Split, digits, stratified_split
from nas_gym.datasets.digits import raw_digits
from nas_gym.errors import MissingExtra

sklearn_datasets = pytest.importorskip("sklearn.datasets")

PARTS = ("train", "valid", "test")
SIZES = {"train": 500, "valid": 650, "test": 647}
SPLIT_CHECKSUM = "ca2b99e94fdd08362a459a13a4b97b0e2f6b7e1bc402a56db2ea1c1cef1b7b41"
"""SHA-256 of the indices of train, valid and test, one after the other, as little-endian int64."""
LABEL_CHECKSUMS = {
    "train": "8f8999dab2802636e5cd9054130e7a4a2ffc4a5c3cc7c0f8c41155b0a6753439",
    "valid": "7c5d7d9c78a1f1a1ea9ddb4782af5769edf035a307573882d45847a771bd4e71",
    "test": "8f49c23dbe75839ef58d53f03dfc907aedc11c3cf60da9246ec439b1415df2bb",
}
"""SHA-256 of the labels of each part, as little-endian int64."""


def checksum(values: npt.NDArray[np.int64]) -> str:
    """Return the SHA-256 of integers."""
    return hashlib.sha256(values.astype("<i8").tobytes()).hexdigest()


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Return the digits."""
    return digits()


def part(data: Dataset, name: str) -> Split:
    """Return a part by name."""
    split = getattr(data, name)
    assert isinstance(split, Split)
    return split


def test_every_image_is_used() -> None:
    """The parts sum to 1,797."""
    assert sum(DIGITS_SIZES) == 1797


@pytest.mark.parametrize("name", PARTS)
def test_the_parts_have_the_documented_sizes(data: Dataset, name: str) -> None:
    """500 training, 650 validation and 647 test images."""
    assert part(data, name).images.shape == (SIZES[name], 8, 8, 1)


def test_networks_get_one_channel_of_8_by_8(data: Dataset) -> None:
    """The input shape puts channels first, as torch does."""
    assert data.input_shape == (1, 8, 8)


@pytest.mark.parametrize("name", PARTS)
def test_every_class_is_in_every_part_by_its_share(data: Dataset, name: str) -> None:
    """A part has as many images of a class as its size demands, within one image."""
    counts = {key: np.bincount(part(data, key).labels, minlength=data.classes) for key in PARTS}
    total = sum(counts.values())
    assert np.abs(counts[name] - total * SIZES[name] / 1797).max() < 1


@pytest.mark.parametrize("name", PARTS)
def test_the_labels_never_change(data: Dataset, name: str) -> None:
    """Recorded accuracies are comparable only while the split is the same."""
    assert checksum(part(data, name).labels) == LABEL_CHECKSUMS[name]


def test_the_split_never_changes() -> None:
    """Which image is in which part is fixed for good."""
    labels = sklearn_datasets.load_digits(return_X_y=True)[1]
    assert checksum(np.concatenate(stratified_split(labels, DIGITS_SIZES, seed=0))) == SPLIT_CHECKSUM


@pytest.mark.parametrize("name", PARTS)
def test_standardised_pixels_are_those_of_the_packaged_table_bit_by_bit(data: Dataset, name: str) -> None:
    """Standardising bytes in single precision gives what the table was trained on."""
    flat, labels = sklearn_datasets.load_digits(return_X_y=True)
    pixels = flat.astype(np.float32).reshape(-1, 8, 8, 1)
    parts: dict[str, npt.NDArray[np.int64]] = dict(
        zip(PARTS, stratified_split(labels, DIGITS_SIZES, seed=0), strict=True)
    )
    training = pixels[parts["train"]]
    old = (pixels[parts[name]] - np.float32(training.mean())) / np.float32(training.std())
    images = part(data, name).images.astype(np.float32)
    new = (images - np.float32(data.mean[0])) / np.float32(data.deviation[0])
    assert new.tobytes() == old.tobytes()


def test_no_seed_changes_the_split(data: Dataset) -> None:
    """It comes with the data set."""
    assert Source("digits", split_seed=5).load().fingerprint == data.fingerprint


def test_nothing_is_noted(data: Dataset) -> None:
    """The data set has all its parts."""
    assert data.notes == ()


def test_digits_are_loaded_once(data: Dataset) -> None:
    """Every caller shares one copy."""
    assert digits() is data


def test_the_extra_is_named_when_scikit_learn_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the pip command."""
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtra, match=r"data set 'digits'.*pip install \"nas-gym\[train\]\""):
        raw_digits()
