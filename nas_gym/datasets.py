"""Image classification data with a fixed train / valid / test split.

Dimension letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidArgument, MissingExtra
from nas_gym.registry import Entry, Registry


@dataclass(frozen=True)
class Split:
    """Part of a data set.

    Attributes:
        images: float32 [N, C, H, W], standardised with the mean and deviation of the training images.
        labels: int64 [N], from 0 to classes - 1.
    """

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A data set whose split never changes.

    Attributes:
        name: name in `DATASETS`.
        classes: number of classes.
        train: images that networks are fitted to.
        valid: images whose accuracy is the search signal.
        test: held-out images, only for reports.
    """

    name: str
    classes: int
    train: Split
    valid: Split
    test: Split

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


DIGITS_SIZES = (500, 650, 647)
"""Training, validation and test images of `digits`."""


@lru_cache(maxsize=1)
def digits() -> Dataset:
    """Return scikit-learn's 1,797 handwritten digits of 8x8 grey pixels: 500 train, 650 valid, 647 test, stratified.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtra("the data set 'digits'", "train", error) from error
    images, labels = load_digits(return_X_y=True)
    pixels = images.astype(np.float32).reshape(-1, 1, 8, 8)
    parts = stratified_split(labels, DIGITS_SIZES, seed=0)
    mean, deviation = float(pixels[parts[0]].mean()), float(pixels[parts[0]].std())
    standardised = (pixels - np.float32(mean)) / np.float32(deviation)
    train, valid, test = (Split(standardised[part], labels[part].astype(np.int64)) for part in parts)
    return Dataset("digits", 10, train, valid, test)


def stratified_split(
    labels: npt.NDArray[np.integer], sizes: tuple[int, ...], seed: int
) -> tuple[npt.NDArray[np.int64], ...]:
    """Split the indices of `labels` so that every part has nearly the class frequencies of the whole.

    Args:
        labels: class of every item, shape [N].
        sizes: items of each part; they must sum to N.
        seed: of the order inside the classes.

    Returns:
        One sorted array of indices per part; together they are a permutation of 0..N-1.

    Raises:
        InvalidArgument: a size is negative, or the sizes do not sum to N.
    """
    if min(sizes, default=0) < 0:
        raise InvalidArgument(f"the sizes of a split must not be negative, got {sizes}.")
    if sum(sizes) != len(labels):
        raise InvalidArgument(f"the sizes {sizes} sum to {sum(sizes)}, but there are {len(labels)} items.")
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(labels))
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        # Spreading every class evenly over [0, 1) makes any interval of it stratified.
        position[members] = (np.arange(len(members)) + rng.random()) / len(members)
    ends = np.cumsum(sizes)[:-1]
    return tuple(np.sort(part) for part in np.split(np.argsort(position, kind="stable"), ends))


DATASETS = Registry(
    "data set",
    {
        "digits": Entry(
            "nas_gym.datasets:digits", "1,797 handwritten digits, 8x8 grey, ships with scikit-learn", "train"
        )
    },
)
"""Data sets by name; an entry is a function without arguments that returns a `Dataset`."""
