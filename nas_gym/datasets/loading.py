"""From a source to a data set: read, split, take a subset, resize, describe.

Dimension letters: N images, H height, W width, C channels.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nas_gym.datasets.arrays import read_npz
from nas_gym.datasets.cache import CacheWriter, read_cached, write_cached
from nas_gym.datasets.catalogue import DATASETS
from nas_gym.datasets.core import Dataset, Images, Source, Split
from nas_gym.datasets.pixels import mean_and_deviation, resized
from nas_gym.datasets.splits import share_sizes, stratified_split
from nas_gym.errors import DatasetError, MissingExtra

_IN_MEMORY_BYTES = 2**28
_CARVED = 0.15
"""Share of validation and of test images where a data set has neither."""
_SPOKEN = {"valid": "validation", "test": "test"}


@dataclass(frozen=True, eq=False)
class Selection:
    """Some images of a raw part: which part, and their indices in it, int64 [N], ascending or class by class."""

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
    if images.digest is None:
        images = replace(images, digest=content_digest(images))
    if source.subset is not None:
        selections = subset(images, selections, source)
    elif source.part_sizes:
        selections = sized(images, selections, source)
        used = ", ".join(f"{size} of {name}" for name, size in source.part_sizes.items())
        notes = (*notes, f"Only these images are used: {used}; drawn by split_seed {source.split_seed}.")
    splits = {name: select(images, selection) for name, selection in selections.items()}
    check_classes(source, images, splits)
    mean, deviation = images.mean, images.deviation
    if mean is None or deviation is None or source.subset is not None or source.part_sizes:
        mean, deviation = mean_and_deviation(splits["train"].images)
    mean, deviation = _per_channel(source, "mean", mean, images), _per_channel(source, "deviation", deviation, images)
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
    """Read what the source has, in the size that is wanted.

    Raises:
        DatasetError: the files are missing or unreadable, or a function returned something else than documented.
    """
    path = source.path
    try:
        if path is None:
            found = _named(source.name)
        elif path.is_dir():
            from nas_gym.datasets.folders import read_folder  # needs pillow

            return read_folder(path, source.image_size, source.resampling)
        else:
            found = read_npz(path)
        return found if source.image_size is None else resized(found, source.image_size, source.resampling)
    except ImportError as error:
        # What a user's own function lacks is no extra of this distribution.
        if isinstance(error, MissingExtra) or (error.name or "").partition(".")[0] != "PIL":
            raise
        raise MissingExtra(f"the data set {source.name!r}", "train", error) from error


def _named(name: str) -> Images:
    """Return what an entry of `DATASETS` or a user's function delivers.

    Raises:
        DatasetError: it is something else than documented.
    """
    found = DATASETS[name]()
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
            f"the function {name!r} must return nas_gym.datasets.Images or a Dataset, got {type(found).__name__}."
        )
    return found


def _per_channel(source: Source, what: str, values: tuple[float, ...], images: Images) -> tuple[float, ...]:
    """Return a statistic as plain numbers.

    Raises:
        DatasetError: a function returned another number of them, or one that nothing can be standardised with.
    """
    channels = images.train.images.shape[-1]
    numbers = tuple(float(value) for value in values)
    if len(numbers) != channels or not np.isfinite(numbers).all() or (what == "deviation" and min(numbers) <= 0):
        allowed = "positive numbers" if what == "deviation" else "numbers"
        raise DatasetError(
            f"the {what} of the data set {source.name!r} must be {channels} finite {allowed}, one per channel, "
            f"got {numbers}."
        )
    return numbers


def complete(images: Images, source: Source) -> tuple[dict[str, Selection], tuple[str, ...]]:
    """Return what train, valid and test are made of, and a note where the source did not say.

    Raises:
        DatasetError: a part has no images, or too few to carve another part out of it.
    """
    for name, part in images.parts.items():
        if not len(part):
            raise DatasetError(f"the data set {source.name!r} has no images in the part {name}.")
    own = {name: Selection(name, np.arange(len(part))) for name, part in images.parts.items()}
    lacking = [name for name in ("valid", "test") if name not in own]
    if not lacking:
        return own, ()
    shares = (source.valid_share,) if len(lacking) == 1 else (_CARVED, _CARVED)
    sizes = share_sizes(len(images.train), shares)
    if not sizes[0] or sum(sizes) != len(images.train):
        raise DatasetError(
            f"the data set {source.name!r} has {len(images.train)} training images, too few to take a part for "
            f"{' and '.join(lacking)} out of them; add images, or these parts."
        )
    chosen = _drawn(images.train.labels, sizes, source)
    carved = {name: Selection("train", part) for name, part in zip(("train", *lacking), chosen, strict=True)}
    notes = tuple(
        f"The {_SPOKEN[name]} part is {100 * share:.3g}% of the training images, "
        f"drawn by split_seed {source.split_seed}."
        for name, share in zip(lacking, shares, strict=True)
    )
    return {**own, **carved}, notes


def subset(images: Images, selections: dict[str, Selection], source: Source) -> dict[str, Selection]:
    """Return stratified selections of `source.subset` training and validation images and at most as many test images.

    Raises:
        DatasetError: there are not so many images.
    """
    wanted = source.subset or 0
    train, valid, test = (len(selections[name].indices) for name in ("train", "valid", "test"))
    if wanted > train + valid:
        raise DatasetError(
            f"the data set {source.name!r} has {train + valid} training and validation images, "
            f"subset asks for {wanted}."
        )
    valid_wanted = min(max(round(wanted * valid / (train + valid)), 1), wanted - 1)
    sizes = {"train": wanted - valid_wanted, "valid": valid_wanted, "test": min(test, wanted)}
    return {name: _thinned(images, selections[name], size, source) for name, size in sizes.items()}


def sized(images: Images, selections: dict[str, Selection], source: Source) -> dict[str, Selection]:
    """Return stratified selections of the sizes that the source asks for; other parts stay whole.

    Raises:
        DatasetError: a part has not so many images.
    """
    for name, size in source.part_sizes.items():
        if size > (found := len(selections[name].indices)):
            lacking = name not in images.parts
            hint = f"; a larger valid_share (now {source.valid_share}) gives more" if lacking else ""
            raise DatasetError(
                f"the data set {source.name!r} has {found} images in the part {name}, "
                f"{name}_images asks for {size}{hint}."
            )
    thinned = {name: _thinned(images, selections[name], size, source) for name, size in source.part_sizes.items()}
    return {**selections, **thinned}


def _thinned(images: Images, selection: Selection, size: int, source: Source) -> Selection:
    """Return `size` of the selected images, stratified."""
    labels = images.parts[selection.part].labels[selection.indices]
    kept, _ = _drawn(labels, (size, len(labels) - size), source)
    return Selection(selection.part, selection.indices[kept])


def _drawn(labels: npt.NDArray[np.int64], sizes: tuple[int, ...], source: Source) -> tuple[npt.NDArray[np.int64], ...]:
    """Return stratified parts of the indices of `labels`, [N], by the seed of the source.

    Where sizes of parts are asked for, images count in the order of their classes, so that it is of no influence how
    the classes follow each other in the files.
    """
    if not source.part_sizes:
        return stratified_split(labels, sizes, source.split_seed)
    by_class = np.argsort(labels, kind="stable")
    return tuple(by_class[part] for part in stratified_split(labels[by_class], sizes, source.split_seed))


def select(images: Images, selection: Selection) -> Split:
    """Return the selected images and labels; what is memory-mapped and large stays so, in a copy of its own."""
    part = images.parts[selection.part]
    if len(selection.indices) == len(part):
        return part
    labels = part.labels[selection.indices]
    needed = len(selection.indices) * (part.images.nbytes // len(part))
    if not isinstance(part.images, np.memmap) or needed <= _IN_MEMORY_BYTES:
        return Split(part.images[selection.indices], labels)
    chosen = hashlib.blake2b(f"{images.digest} {selection.part}".encode(), digest_size=16)
    chosen.update(selection.indices.astype("<i8").tobytes())
    key = chosen.hexdigest()

    def fill(writer: CacheWriter) -> dict[str, str]:
        copied = writer.allocate("selected", labels, part.images.shape[1:])
        for start in range(0, len(labels), 1024):
            copied[start : start + 1024] = part.images[selection.indices[start : start + 1024]]
        return {}

    return (read_cached(key) or write_cached(key, needed, fill)).parts["selected"]


def check_classes(source: Source, images: Images, splits: dict[str, Split]) -> None:
    """Check that every class has training images.

    Raises:
        DatasetError: one has none.
    """
    counts = np.bincount(splits["train"].labels, minlength=len(images.class_names))
    if missing := [images.class_names[label] for label in np.flatnonzero(counts == 0)]:
        raise DatasetError(
            f"the data set {source.name!r} has no training image of {', '.join(map(repr, missing))}; "
            "add some, or use a larger subset."
        )


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
