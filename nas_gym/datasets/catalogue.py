"""The data sets that have a name."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Facts:
    """What is known of a data set without reading it.

    Attributes:
        channels: 1 grey, 3 colour.
        side: height and width of an image in pixels.
        classes: number of classes.
        training_images: images that are not for the test, those for validation included.
    """

    channels: int
    side: int
    classes: int
    training_images: int


FACTS = {
    "digits": Facts(1, 8, 10, 1150),
    "mnist": Facts(1, 28, 10, 60_000),
    "fashion_mnist": Facts(1, 28, 10, 60_000),
    "cifar10": Facts(3, 32, 10, 50_000),
    "cifar100": Facts(3, 32, 100, 50_000),
    "svhn": Facts(3, 32, 10, 73_257),
}
"""Facts of the data sets that have a name."""
