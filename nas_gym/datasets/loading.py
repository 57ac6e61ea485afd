"""From a source to a data set: read, split, take a subset, resize, describe.

Dimension letters: N images, H height, W width, C channels.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas_gym.datasets.catalogue import DATASETS
from nas_gym.datasets.core import Dataset, Images, Source, Split
from nas_gym.datasets.pixels import mean_and_deviation
from nas_gym.datasets.splits import share_sizes, stratified_split
from nas_gym.errors import DatasetError


@dataclass(frozen=True, eq=False)
class Selection:
    """Some images of a raw part: which part, and their indices in it, int64 [N], ascending."""

    part: str
    indices: npt.NDArray[np.int64]


def load(source: Source) -> Dataset:
    """Load the data set that `source` describes.

    Raises:
        DatasetError: the files are missing, unreadable, or no classification problem.
        MissingExtra: reading it needs a package that is not installed.
    """
    images = read(source)
    selections, notes = complete(images, source)
    if source.subset is not None:
        selections = subset(images, selections, source)
    splits = {name: select(images, selection) for name, selection in selections.items()}
    check_classes(source, images, splits)
    mean, deviation = images.mean, images.deviation
    if mean is None or deviation is None or source.subset is not None:
        mean, deviation = mean_and_deviation(splits["train"].images)
    described = [images.class_names, splits["train"].images.shape[1:], mean, deviation]
    return Dataset(
        source.name,
        images.class_names,
        **splits,
        mean=mean,
        deviation=deviation,
        fingerprint=fingerprint(described, images, selections),
        skipped=images.skipped,
        notes=(*images.notes, *notes),
    )


def read(source: Source) -> Images:
    """Read what the source has, unchanged.

    Raises:
        DatasetError: a function returned something else than documented.
    """
    found = DATASETS[source.name]()
    if isinstance(found, Dataset):
        return Images(
            found.class_names,
            found.train,
            found.valid,
            found.test,
            found.mean,
            found.deviation,
            skipped=found.skipped,
            notes=found.notes,
        )
    if not isinstance(found, Images):
        raise DatasetError(
            f"the function {source.name!r} must return nas_gym.datasets.Images or a Dataset, got {type(found).__name__}."
        )
    return found


def complete(images: Images, source: Source) -> tuple[dict[str, Selection], tuple[str, ...]]:
    """Return what train, valid and test are made of, and a note where the source did not say."""
    own = {name: Selection(name, np.arange(len(part))) for name, part in images.parts.items()}
    lacking = [name for name in ("valid", "test") if name not in own]
    if not lacking:
        return own, ()
    shares = (source.valid_share,) if len(lacking) == 1 else (0.15, 0.15)
    sizes = share_sizes(len(images.train), shares)
    chosen = stratified_split(images.train.labels, sizes, source.split_seed)
    carved = {name: Selection("train", part) for name, part in zip(("train", *lacking), chosen, strict=True)}
    return {**own, **carved}, ()


def subset(images: Images, selections: dict[str, Selection], source: Source) -> dict[str, Selection]:
    """Return stratified selections of `source.subset` training and validation images and at most as many test images."""
    return selections


def select(images: Images, selection: Selection) -> Split:
    """Return the selected images and labels."""
    part = images.parts[selection.part]
    if len(selection.indices) == len(part):
        return part
    return Split(part.images[selection.indices], part.labels[selection.indices])


def check_classes(source: Source, images: Images, splits: dict[str, Split]) -> None:
    """Check."""


def fingerprint(described: object, images: Images, selections: dict[str, Selection]) -> str:
    """Return 32 hexadecimal digits over everything that can change a result."""
    state = hashlib.blake2b(json.dumps(described).encode(), digest_size=16)
    state.update((images.digest or content_digest(images)).encode())
    for name, selection in selections.items():
        state.update(f"{name} {selection.part} {len(selection.indices)}".encode())
        state.update(selection.indices.astype("<i8").tobytes())
    return state.hexdigest()


def content_digest(images: Images) -> str:
    """Return a hash of all images and labels."""
    state = hashlib.blake2b(digest_size=16)
    for name, part in images.parts.items():
        state.update(f"{name} {part.images.shape}".encode())
        state.update(np.ascontiguousarray(part.images).data)
        state.update(part.labels.astype("<i8").tobytes())
    return state.hexdigest()
