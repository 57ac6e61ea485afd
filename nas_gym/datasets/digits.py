"""scikit-learn's handwritten digits, the data set of the packaged table."""

from __future__ import annotations

import numpy as np

from nas_gym.datasets.core import Dataset, Images, Source, Split
from nas_gym.datasets.splits import stratified_split
from nas_gym.errors import MissingExtra

DIGITS_SIZES = (500, 650, 647)
"""Training, validation and test images of `digits`."""


def digits() -> Dataset:
    """Return the 1,797 handwritten digits: 500 train, 650 valid, 647 test, stratified.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    return Source("digits").load()


def raw_digits() -> Images:
    """Read the digits: 8x8 grey pixels from 0 to 16, with a split that no seed changes.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtra("the data set 'digits'", "train", error) from error
    flat, targets = load_digits(return_X_y=True)
    pixels = flat.astype(np.uint8).reshape(-1, 8, 8, 1)
    labels = targets.astype(np.int64)
    parts = stratified_split(labels, DIGITS_SIZES, seed=0)
    # The packaged table was trained with these statistics, which were computed in single precision.
    training = pixels[parts[0]].astype(np.float32)
    train, valid, test = (Split(pixels[part], labels[part]) for part in parts)
    return Images(
        tuple(str(digit) for digit in range(10)),
        train,
        valid,
        test,
        mean=(float(training.mean()),),
        deviation=(float(training.std()),),
    )
