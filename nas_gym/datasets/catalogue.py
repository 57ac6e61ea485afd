"""The data sets that have a name."""

from __future__ import annotations

from nas_gym.registry import Entry, Registry

DATASETS = Registry(
    "data set",
    {
        "digits": Entry(
            "nas_gym.datasets.digits:raw_digits",
            "1,797 handwritten digits, 8x8 grey, ships with scikit-learn",
            "train",
        ),
        "mnist": Entry("nas_gym.datasets.vision:mnist", "70,000 handwritten digits, 28x28 grey", "train"),
        "fashion_mnist": Entry(
            "nas_gym.datasets.vision:fashion_mnist", "70,000 articles of clothing, 28x28 grey", "train"
        ),
        "cifar10": Entry("nas_gym.datasets.vision:cifar10", "60,000 photographs of 10 things, 32x32 colour", "train"),
        "cifar100": Entry(
            "nas_gym.datasets.vision:cifar100", "60,000 photographs of 100 things, 32x32 colour", "train"
        ),
        "svhn": Entry("nas_gym.datasets.vision:svhn", "99,289 house-number digits, 32x32 colour", "train"),
    },
)
"""Data sets by name; an entry is a function without arguments that returns `Images`."""

IMAGE_SIZES = {"digits": 8, "mnist": 28, "fashion_mnist": 28, "cifar10": 32, "cifar100": 32, "svhn": 32}
"""Side of the images of the data sets that have a name, in pixels: known without reading them."""
