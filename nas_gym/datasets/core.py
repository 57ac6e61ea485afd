"""Image classification data: what a source delivers, what networks are trained on, and the value that names it.

Dimension letters: N images, H height, W width, C channels.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_gym.datasets.catalogue import DATASETS
from nas_gym.errors import InvalidArgument

RESAMPLINGS = ("bilinear", "area")
"""Ways to resize images."""


@dataclass(frozen=True, eq=False)
class Split:
    """Part of a data set.

    Attributes:
        images: uint8 [N, H, W, C], in memory or memory-mapped.
        labels: int64 [N], from 0 to classes - 1.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        """Check the types and shapes.

        Raises:
            InvalidArgument: other arrays than the ones documented.
        """
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise InvalidArgument(
                f"images must be uint8 [N, H, W, C], got {self.images.dtype} {list(self.images.shape)}."
            )
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            raise InvalidArgument(
                f"labels must be int64, one for each of {len(self.images)} images, "
                f"got {self.labels.dtype} {list(self.labels.shape)}."
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        """Bytes of images and labels, wherever they lie."""
        return self.images.nbytes + self.labels.nbytes


@dataclass(frozen=True, eq=False)
class Images:
    """Images as their source has them; `Source.load` completes them to a `Dataset`.

    A part that is None is carved out of the training images, stratified: the validation part, or the test part,
    takes `Source.valid_share` of them; if both are missing, each takes 15%.

    Attributes:
        class_names: name of every class, in the order of the labels.
        train: images that networks are fitted to.
        valid: images whose accuracy is the search signal.
        test: held-out images.
        mean: per channel, in pixel units; computed from the training images if None.
        deviation: per channel, in pixel units; computed from the training images if None.
        digest: hash of all images and labels where the source knows it, so that they need not be read for it.
        skipped: unreadable files left out.
        notes: what was done that a user should know, one sentence each.
    """

    class_names: tuple[str, ...]
    train: Split
    valid: Split | None = None
    test: Split | None = None
    mean: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None
    digest: str | None = None
    skipped: int = 0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that the parts fit together.

        Raises:
            InvalidArgument: fewer than two classes, images of different shapes, or a label that names no class.
        """
        if len(self.class_names) < 2:
            raise InvalidArgument(f"a data set needs at least 2 classes, got {len(self.class_names)}.")
        shape = self.train.images.shape[1:]
        for name, part in self.parts.items():
            if part.images.shape[1:] != shape:
                raise InvalidArgument(
                    f"all images must have one shape, but those of {name} have {list(part.images.shape[1:])} "
                    f"and those of train {list(shape)} (H, W, C)."
                )
            if len(part) and not 0 <= part.labels.min() <= part.labels.max() < len(self.class_names):
                raise InvalidArgument(
                    f"the labels of {name} must lie between 0 and {len(self.class_names) - 1}, "
                    f"got {part.labels.min()} to {part.labels.max()}."
                )

    @property
    def parts(self) -> dict[str, Split]:
        """The parts that exist, by name."""
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set whose split never changes.

    Attributes:
        name: the name it was loaded by.
        class_names: name of every class, in the order of the labels.
        train: images that networks are fitted to.
        valid: images whose accuracy is the search signal.
        test: held-out images, only for reports.
        mean: per channel, over the training images, in pixel units (0..255; `digits` 0..16).
        deviation: per channel, over the training images, in pixel units; 1.0 for a constant channel.
        fingerprint: 32 hexadecimal digits over class names, images, labels, split, mean and deviation; equal data sets
            have equal fingerprints in all processes, wherever their files lie.
        skipped: unreadable files left out.
        notes: what was done that a user should know, one sentence each.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    valid: Split
    test: Split
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    fingerprint: str
    skipped: int = 0
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        height, width, channels = self.train.images.shape[1:]
        return channels, height, width


@dataclass(frozen=True)
class Source:
    """Where a data set comes from and what is made of it; hashable, picklable, everything that loading needs.

    Attributes:
        name: a name in `DATASETS`, ``module:function``, or the path of an .npz file or an image folder. The function
            takes no arguments and returns `Images` or a `Dataset`.
        image_size: side of the square that every image is resized to; None leaves the images as they are.
        subset: use so many training and validation images in all, and at most as many test images, both stratified;
            None uses all.
        split_seed: of the parts that the data set lacks, and of the subset.
        valid_share: share of the training images that becomes the validation part where the data set has none.
        resampling: how images are resized: "bilinear", or "area", the mean of the pixels that become one.
        train_images: use so many of the training images, stratified; None uses all.
        valid_images: use so many of the validation images; None uses all.
        test_images: use so many of the test images; None uses all.

    With one of the last three, what is drawn depends on the order of the images inside each class alone, so that all
    forms of a data set (folder, arrays, torchvision's files) give the same ones.
    """

    name: str = "digits"
    image_size: int | None = None
    subset: int | None = None
    split_seed: int = 0
    valid_share: float = 0.1
    resampling: str = "bilinear"
    train_images: int | None = None
    valid_images: int | None = None
    test_images: int | None = None

    def __post_init__(self) -> None:
        """Check the values; `check` looks at what the name names.

        Raises:
            InvalidArgument: a value of another type or outside its range.
        """
        if not isinstance(self.name, str) or not self.name:
            raise InvalidArgument(f"the name of a data set must be a string that is not empty, got {self.name!r}.")
        counts = [(f"{part}_images", 1, True) for part in ("train", "valid", "test")]
        for field, least, optional in (("image_size", 1, True), ("subset", 4, True), ("split_seed", 0, False), *counts):
            value = getattr(self, field)
            if value is None and optional:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                allowed = f"an integer of at least {least}" + (" or null" if optional else "")
                raise InvalidArgument(f"{field} must be {allowed}, got {value!r}.")
        if self.subset is not None and self.part_sizes:
            raise InvalidArgument(
                f"subset and {', '.join(f'{part}_images' for part in self.part_sizes)} exclude each other, "
                f"got subset={self.subset}; give one of them."
            )
        if self.resampling not in RESAMPLINGS:
            raise InvalidArgument(f"resampling must be one of {', '.join(RESAMPLINGS)}, got {self.resampling!r}.")
        if not isinstance(self.valid_share, float) or not 0 < self.valid_share < 1:
            raise InvalidArgument(
                f"valid_share must be a number between 0 and 1, both excluded, got {self.valid_share!r}."
            )

    @property
    def part_sizes(self) -> dict[str, int]:
        """The sizes asked for, by part."""
        asked = {"train": self.train_images, "valid": self.valid_images, "test": self.test_images}
        return {part: size for part, size in asked.items() if size is not None}

    @property
    def path(self) -> Path | None:
        """The file or folder that the name is the path of, None if it names an entry of `DATASETS` or a function."""
        if self.name in DATASETS:
            return None
        looks_like_path = "/" in self.name or os.sep in self.name or self.name.endswith(".npz")
        path = Path(self.name).expanduser()
        return path if looks_like_path or path.is_dir() else None

    def check(self) -> None:
        """Check that the name names something, without reading any data.

        Raises:
            UnknownName: no such data set.
            InvalidArgument: no such file or folder, or no such function.
        """
        path = self.path
        if path is None:
            _check_function(self.name)
        elif not path.exists():
            raise InvalidArgument(
                f"there is no file or folder {str(path.absolute())!r} (data set {self.name!r}); "
                f"give an .npz file, an image folder, or a name: {', '.join(DATASETS)}."
            )
        elif not path.is_dir() and path.suffix.lower() != ".npz":
            raise InvalidArgument(f"the data set {self.name!r} must be an .npz file or a folder, got another file.")

    def load(self) -> Dataset:
        """Load the data set; the last ones are kept, so that all callers in a process share one copy.

        Raises:
            UnknownName: no such data set.
            InvalidArgument: no such file or folder.
            DatasetError: the files are missing, unreadable, or no classification problem.
            MissingExtra: reading it needs a package that is not installed.
        """
        return _load(self)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; `Source(**fields)` restores it."""
        return asdict(self)


def _check_function(name: str) -> None:
    """Check that a name is in the registry or names a module that exists.

    Raises:
        UnknownName: no such data set.
        InvalidArgument: no such module or function.
    """
    if name in DATASETS:
        return
    module = name.partition(":")[0]
    try:
        DATASETS[name]
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise
        raise InvalidArgument(f"there is no module {error.name!r} (from the data set {name!r}).") from error


@lru_cache(maxsize=4)
def _load(source: Source) -> Dataset:
    from nas_gym.datasets.loading import load  # it builds on the types of this module

    source.check()
    return load(source)
