"""The public data sets that torchvision knows; nothing is downloaded unless `download` is called.

Dimension letters: N images, H height, W width, C channels.
"""

from __future__ import annotations

from http.client import HTTPException
from typing import Any

import numpy as np

from nas_gym.datasets.cache import data_root
from nas_gym.datasets.core import Images, Split
from nas_gym.errors import DatasetError, InvalidArgument, MissingExtra

_CLASSES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}
_CLASSES["svhn"] = "SVHN"
_FILES = {
    "mnist": "MNIST/raw/train-images-idx3-ubyte",
    "fashion_mnist": "FashionMNIST/raw/train-images-idx3-ubyte",
    "cifar10": "cifar-10-batches-py/data_batch_1",
    "cifar100": "cifar-100-python/train",
    "svhn": "train_32x32.mat",
}
"""A file that torchvision keeps in `data_root` for each data set."""
_DAMAGED = (RuntimeError, OSError, EOFError, ValueError, TypeError, KeyError, AssertionError)
"""What torchvision raises for missing and for damaged files, depending on the data set and the damage."""
_BY_SPLIT = ("svhn",)
"""Data sets whose parts torchvision names by ``split=`` instead of ``train=``."""


def mnist() -> Images:
    """Return MNIST: 60,000 training and 10,000 test images of handwritten digits, 28x28 grey."""
    return _load("mnist")


def fashion_mnist() -> Images:
    """Return Fashion-MNIST: 60,000 training and 10,000 test images of clothing, 28x28 grey."""
    return _load("fashion_mnist")


def cifar10() -> Images:
    """Return CIFAR-10: 50,000 training and 10,000 test photographs of 10 things, 32x32 colour."""
    return _load("cifar10")


def cifar100() -> Images:
    """Return CIFAR-100: 50,000 training and 10,000 test photographs of 100 things, 32x32 colour."""
    return _load("cifar100")


def svhn() -> Images:
    """Return SVHN: 73,257 training and 26,032 test photographs of house-number digits, 32x32 colour."""
    return _load("svhn")


def downloaded(name: str) -> bool:
    """Tell whether a data set lies in `data_root`, without reading it and without torchvision."""
    return (data_root() / _FILES[name]).exists()


def download(name: str) -> None:
    """Download a data set into `data_root`; what is there already is checked and kept.

    Raises:
        InvalidArgument: nothing is to be downloaded for this name.
        DatasetError: the download failed.
        MissingExtra: torchvision is not installed.
    """
    if name not in _CLASSES:
        raise InvalidArgument(f"there is nothing to download for {name!r}; choose one of {', '.join(_CLASSES)}.")
    for train in (True, False):
        try:
            _part(name, train, download=True)
        except (*_DAMAGED, HTTPException) as error:
            if isinstance(error, MissingExtra):
                raise
            raise DatasetError(
                f"the download of {name!r} to {data_root()} failed: {str(error).rstrip('.')}. Check the connection "
                "and try again, or put the files there by hand."
            ) from error


def _load(name: str) -> Images:
    """Read a data set from the disk.

    Raises:
        DatasetError: it was not downloaded, or its files are damaged.
        MissingExtra: torchvision is not installed.
    """
    try:
        train, test = (_part(name, train, download=False) for train in (True, False))
        parts = _split(train), _split(test)
    except _DAMAGED as error:
        if isinstance(error, MissingExtra):
            raise
        state = "damaged or incomplete" if downloaded(name) else "missing"
        raise DatasetError(
            f"the data set {name!r} is {state}: looked for {_FILES[name]} and what belongs to it in "
            f"{data_root().absolute()}. Download it with `nas-gym datasets download {name}`, or set the environment "
            "variable NAS_GYM_DATA to the folder that has it."
        ) from error
    return Images(tuple(str(one) for one in getattr(train, "classes", range(10))), parts[0], None, parts[1])


def _part(name: str, train: bool, download: bool) -> Any:  # noqa: ANN401 - a data set of torchvision
    try:
        from torchvision import datasets
    except ImportError as error:
        raise MissingExtra(f"the data set {name!r}", "train", error) from error
    which = {"split": "train" if train else "test"} if name in _BY_SPLIT else {"train": train}
    return getattr(datasets, _CLASSES[name])(data_root(), download=download, **which)


def _split(part: Any) -> Split:  # noqa: ANN401 - a data set of torchvision
    """Return images and labels as arrays, whatever form torchvision keeps them in."""
    images = np.asarray(part.data, np.uint8)
    if images.ndim == 3:
        images = images[..., None]
    elif images.shape[-1] != 3:
        images = images.transpose(0, 2, 3, 1)
    labels = part.targets if hasattr(part, "targets") else part.labels
    return Split(np.ascontiguousarray(images), np.asarray(labels, np.int64))
