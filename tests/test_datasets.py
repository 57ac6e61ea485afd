"""Data sets whose split never changes."""

from __future__ import annotations

import hashlib
import sys

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_gym.datasets import DATASETS, DIGITS_SIZES, Dataset, Split, digits, stratified_split
from nas_gym.errors import InvalidArgument, MissingExtra, UnknownName

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
    pytest.importorskip("sklearn")
    return digits()


def part(data: Dataset, name: str) -> Split:
    """Return a part by name."""
    split = getattr(data, name)
    assert isinstance(split, Split)
    return split


# --- digits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARTS)
def test_digits_has_the_documented_sizes(data: Dataset, name: str) -> None:
    """500 training, 650 validation and 647 test images."""
    split = part(data, name)
    assert len(split) == len(split.images) == SIZES[name]


def test_digits_uses_every_image_of_the_source() -> None:
    """The parts sum to 1,797."""
    assert sum(DIGITS_SIZES) == 1797


@pytest.mark.parametrize("name", PARTS)
def test_digits_has_the_layout_that_networks_expect(data: Dataset, name: str) -> None:
    """Images are float32 [N, 1, 8, 8], labels int64."""
    split = part(data, name)
    assert (split.images.dtype, split.labels.dtype) == (np.float32, np.int64)
    assert split.images.shape[1:] == data.input_shape == (1, 8, 8)


@pytest.mark.parametrize("name", PARTS)
def test_every_class_of_digits_is_in_every_part_by_its_share(data: Dataset, name: str) -> None:
    """A part has as many images of a class as its size demands, within one image."""
    counts = {key: np.bincount(part(data, key).labels, minlength=data.classes) for key in PARTS}
    total = sum(counts.values())
    assert np.abs(counts[name] - total * SIZES[name] / 1797).max() < 1


@pytest.mark.parametrize("name", PARTS)
def test_the_labels_of_digits_never_change(data: Dataset, name: str) -> None:
    """Recorded accuracies are comparable only while the split is the same."""
    assert checksum(part(data, name).labels) == LABEL_CHECKSUMS[name]


def test_the_split_of_digits_never_changes() -> None:
    """Which image is in which part is fixed for good."""
    labels = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)[1]
    assert checksum(np.concatenate(stratified_split(labels, DIGITS_SIZES, seed=0))) == SPLIT_CHECKSUM


def test_digits_is_standardised_by_its_training_images(data: Dataset) -> None:
    """Mean 0 and deviation 1 of the pixels, so that nothing of the held-out images leaks in."""
    pixels = data.train.images.astype(np.float64)
    assert pixels.mean() == pytest.approx(0, abs=1e-6)
    assert pixels.std() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", ["valid", "test"])
def test_the_other_parts_are_standardised_like_the_training_images(data: Dataset, name: str) -> None:
    """Black is the same number in every part."""
    assert part(data, name).images.min() == data.train.images.min()


def test_digits_is_loaded_once(data: Dataset) -> None:
    """Every caller shares one copy."""
    assert digits() is data


def test_digits_names_the_extra_when_scikit_learn_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the pip command."""
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtra, match=r"data set 'digits'.*pip install \"nas-gym\[train\]\""):
        digits.__wrapped__()


# --- the registry ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATASETS)
def test_registered_data_sets_carry_their_name(name: str) -> None:
    """The name of a data set is its row in the registry."""
    pytest.importorskip("sklearn")
    assert DATASETS[name]().name == name


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("which", PARTS)
def test_labels_of_registered_data_sets_name_their_classes(name: str, which: str) -> None:
    """Labels run from 0 to classes - 1 and use them all."""
    pytest.importorskip("sklearn")
    data = DATASETS[name]()
    assert set(part(data, which).labels.tolist()) == set(range(data.classes))


def test_an_unknown_data_set_is_answered_with_the_nearest_match() -> None:
    """A typo is recognised."""
    with pytest.raises(UnknownName, match=r"unknown data set 'digit'\. Did you mean 'digits'"):
        DATASETS["digit"]


# --- stratified splits -----------------------------------------------------------------------------


@st.composite
def labels_and_sizes(draw: st.DrawFn) -> tuple[npt.NDArray[np.int64], tuple[int, ...]]:
    """Draw labels and the sizes of the parts they are to be split into."""
    labels = np.array(draw(st.lists(st.integers(0, 4), max_size=60)), np.int64)
    cuts = sorted(draw(st.lists(st.integers(0, len(labels)), max_size=3)))
    return labels, tuple(np.diff([0, *cuts, len(labels)]).tolist())


@given(problem=labels_and_sizes(), seed=st.integers(0, 2**32))
def test_the_parts_are_disjoint_and_complete(problem: tuple[npt.NDArray[np.int64], tuple[int, ...]], seed: int) -> None:
    """Every index is in exactly one part."""
    labels, sizes = problem
    parts = stratified_split(labels, sizes, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))


@given(problem=labels_and_sizes(), seed=st.integers(0, 2**32))
def test_the_parts_have_the_sizes_asked_for_and_ascend(
    problem: tuple[npt.NDArray[np.int64], tuple[int, ...]], seed: int
) -> None:
    """One sorted array per size."""
    labels, sizes = problem
    parts = stratified_split(labels, sizes, seed)
    assert [len(indices) for indices in parts] == list(sizes)
    assert all(np.all(np.diff(indices) > 0) for indices in parts)


@given(problem=labels_and_sizes(), seed=st.integers(0, 2**32))
def test_every_part_has_nearly_the_class_frequencies_of_the_whole(
    problem: tuple[npt.NDArray[np.int64], tuple[int, ...]], seed: int
) -> None:
    """With K classes, n_c of N items in class c, counts differ from their share by less than 2 (1 + n_c K / N)."""
    labels, sizes = problem
    classes, totals = np.unique(labels, return_counts=True)
    for indices, size in zip(stratified_split(labels, sizes, seed), sizes, strict=True):
        counts = np.array([(labels[indices] == label).sum() for label in classes])
        share = totals * size / max(len(labels), 1)
        assert np.all(np.abs(counts - share) < 2 * (1 + totals * len(classes) / max(len(labels), 1)))


def test_a_split_depends_on_its_seed() -> None:
    """The same seed gives the same parts, another one others."""
    labels = np.arange(100) % 5
    one, same, other = (stratified_split(labels, (50, 50), seed)[0].tolist() for seed in (0, 0, 1))
    assert one == same
    assert one != other


@pytest.mark.parametrize("sizes", [(), (3, 3), (4, 4), (7,)], ids=str)
def test_sizes_that_do_not_sum_to_the_items_are_refused(sizes: tuple[int, ...]) -> None:
    """The message has both numbers."""
    with pytest.raises(InvalidArgument, match=rf"sum to {sum(sizes)}, but there are 5 items"):
        stratified_split(np.arange(5), sizes, seed=0)


def test_negative_sizes_are_refused() -> None:
    """No part has less than nothing, even where the sum is right."""
    with pytest.raises(InvalidArgument, match=r"must not be negative, got \(6, -1\)"):
        stratified_split(np.arange(5), (6, -1), seed=0)
