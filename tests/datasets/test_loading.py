"""From sources to data sets: parts, subsets, sizes, fingerprints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from nas_gym.datasets import Dataset, Images, Source, Split
from nas_gym.datasets.loading import load
from nas_gym.datasets.pixels import mean_and_deviation
from nas_gym.errors import DatasetError, MissingExtra

PARTS = ("train", "valid", "test")


@pytest.fixture(autouse=True)
def data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep cached images inside the test's own folder."""
    monkeypatch.setenv("NAS_GYM_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def part(count: int, shape: tuple[int, ...] = (4, 4, 1), classes: int = 2, first: int = 0) -> Split:
    """Return images of one shade each, which tell them apart, with labels in turn."""
    shades = (first + np.arange(count)) % 256
    images = np.broadcast_to(shades[:, None, None, None], (count, *shape)).astype(np.uint8)
    return Split(images, np.arange(count) % classes)


def make(**changes: Any) -> Images:
    """Return 100 training images, and whatever else is asked for."""
    return Images(changes.pop("class_names", ("cat", "dog")), changes.pop("train", part(100)), **changes)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Dataset]:
    """Return a function that loads what a user's function returns."""
    module = ModuleType("my_package")
    monkeypatch.setitem(sys.modules, "my_package", module)

    def load_found(found: object, **fields: Any) -> Dataset:
        monkeypatch.setattr(module, "pets", lambda: found, raising=False)
        return load(Source("my_package:pets", **fields))

    return load_found


def write(path: Path, count: int = 60, classes: int = 3) -> Path:
    """Write an .npz file of random images."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 6, 4, 3), dtype=np.uint8)
    labels = np.arange(count) % classes
    np.savez(path, x_train=pixels, y_train=labels, x_test=pixels[:9], y_test=labels[:9])
    return path


def sizes(data: Dataset) -> tuple[int, ...]:
    """Return the number of images of the parts."""
    return tuple(len(getattr(data, name)) for name in PARTS)


# --- sources ---------------------------------------------------------------------------------------


def test_an_npz_file_is_read(tmp_path: Path) -> None:
    """By its path."""
    data = Source(str(write(tmp_path / "pets.npz"))).load()
    assert (sizes(data), data.input_shape, data.class_names) == ((54, 6, 9), (3, 6, 4), ("0", "1", "2"))


def test_a_folder_is_read(tmp_path: Path) -> None:
    """In the size asked for."""
    image = pytest.importorskip("PIL.Image")
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(10):
            image.new("RGB", (number + 2, 5), "red").save(tmp_path / "pets" / name / f"{number}.png")
    data = load(Source(str(tmp_path / "pets"), image_size=4))
    assert (sizes(data), data.input_shape) == ((14, 3, 3), (3, 4, 4))


def test_a_function_is_called(loaded: Callable[..., Dataset]) -> None:
    """One that returns images has the missing parts drawn."""
    assert sizes(loaded(make())) == (70, 15, 15)


def test_a_function_may_return_a_data_set(loaded: Callable[..., Dataset]) -> None:
    """Its parts are kept, its name and fingerprint are those of the source."""
    first = loaded(make(valid=part(20), test=part(10)))
    again = loaded(first)
    assert (sizes(again), again.fingerprint) == ((100, 20, 10), first.fingerprint)


def test_other_results_of_a_function_are_refused(loaded: Callable[..., Dataset]) -> None:
    """The message says what it must return and what it did."""
    with pytest.raises(DatasetError, match=r"'my_package:pets' must return nas_gym\.datasets\.Images .* got list"):
        loaded([])


def test_what_a_function_cannot_import_is_no_extra(loaded: Callable[..., Dataset], monkeypatch: Any) -> None:
    """Installing an extra of this distribution would not help."""
    loaded(make())

    def pets() -> Images:
        raise ModuleNotFoundError("No module named 'pandas'", name="pandas")

    monkeypatch.setattr(sys.modules["my_package"], "pets", pets)
    with pytest.raises(ModuleNotFoundError, match="pandas") as caught:
        load(Source("my_package:pets"))
    assert not isinstance(caught.value, MissingExtra)


def test_the_extra_is_named_when_pillow_is_missing(
    loaded: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resizing needs it."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtra, match=r"pip install \"nas-gym\[train\]\""):
        loaded(make(), image_size=2)


def test_a_source_is_loaded_once(tmp_path: Path) -> None:
    """All callers in a process share one copy."""
    path = str(write(tmp_path / "pets.npz"))
    assert Source(path).load() is Source(path).load()


# --- parts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "fields", "expected"),
    [
        pytest.param({"valid": part(20), "test": part(10)}, {}, (100, 20, 10), id="nothing"),
        pytest.param({"test": part(10)}, {}, (90, 10, 10), id="validation"),
        pytest.param({"test": part(10)}, {"valid_share": 0.25}, (75, 25, 10), id="validation by its share"),
        pytest.param({"valid": part(20)}, {}, (90, 20, 10), id="test"),
        pytest.param({}, {}, (70, 15, 15), id="both"),
    ],
)
def test_missing_parts_are_drawn_from_the_training_images(
    loaded: Callable[..., Dataset], own: dict[str, Split], fields: dict[str, Any], expected: tuple[int, ...]
) -> None:
    """Parts that the source has are kept whole."""
    assert sizes(loaded(make(**own), **fields)) == expected


@pytest.mark.parametrize(
    ("own", "fields", "notes"),
    [
        pytest.param({"valid": part(20), "test": part(10)}, {}, (), id="nothing"),
        pytest.param(
            {"test": part(10)},
            {"split_seed": 7, "valid_share": 0.125},
            ("The validation part is 12.5% of the training images, drawn by split_seed 7.",),
            id="validation",
        ),
        pytest.param(
            {"notes": ("Three cats.",)},
            {},
            (
                "Three cats.",
                "The validation part is 15% of the training images, drawn by split_seed 0.",
                "The test part is 15% of the training images, drawn by split_seed 0.",
            ),
            id="both, after the source's own",
        ),
        pytest.param(
            {"valid": part(20), "test": part(10)},
            {"train_images": 50, "test_images": 5},
            ("Only these images are used: 50 of train, 5 of test; drawn by split_seed 0.",),
            id="sizes",
        ),
    ],
)
def test_drawn_parts_are_noted(
    loaded: Callable[..., Dataset], own: dict[str, Any], fields: dict[str, Any], notes: tuple[str, ...]
) -> None:
    """A user must know what no one but this project made up."""
    assert loaded(make(**own), **fields).notes == notes


def test_drawn_parts_are_disjoint_and_complete(loaded: Callable[..., Dataset]) -> None:
    """Every image is in exactly one of them."""
    data = loaded(make())
    shades = np.concatenate([getattr(data, name).images[:, 0, 0, 0] for name in PARTS])
    assert sorted(shades.tolist()) == list(range(100))


def test_labels_follow_their_images(loaded: Callable[..., Dataset]) -> None:
    """Even shades are cats in every part, also of a subset."""
    data = loaded(make(), subset=40)
    for name in PARTS:
        split = getattr(data, name)
        assert split.labels.tolist() == (split.images[:, 0, 0, 0] % 2).tolist()


def test_drawn_parts_are_stratified(loaded: Callable[..., Dataset]) -> None:
    """Classes keep their share."""
    assert np.bincount(loaded(make(), valid_share=0.1).train.labels).tolist() == [35, 35]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        pytest.param(
            make(valid=part(0), test=part(4)), "'my_package:pets' has no images in the part valid", id="valid"
        ),
        pytest.param(make(train=part(0)), "has no images in the part train", id="train"),
        pytest.param(make(train=part(2)), "has 2 training images, too few to take a part for valid and test", id="few"),
        pytest.param(
            make(class_names=("cat", "dog", "elk"), valid=part(4), test=part(4)),
            "'my_package:pets' has no training image of 'elk'",
            id="class",
        ),
    ],
)
@pytest.mark.parametrize("subset", [None, 4], ids=["whole", "subset"])
def test_data_sets_that_cannot_be_trained_on_are_refused(
    loaded: Callable[..., Dataset], images: Images, message: str, subset: int | None
) -> None:
    """The message names the part or the class."""
    with pytest.raises(DatasetError, match=re.escape(message)):
        loaded(images, subset=subset)


@pytest.mark.parametrize(
    ("mean", "deviation", "message"),
    [
        pytest.param(
            (1.0,), (0.0,), "the deviation of .* must be 1 finite positive numbers, one per channel", id="zero"
        ),
        pytest.param((1.0, 2.0), (1.0,), r"the mean of .* got \(1\.0, 2\.0\)", id="two for one channel"),
        pytest.param((float("nan"),), (1.0,), r"the mean of .* got \(nan,\)", id="nan"),
    ],
)
def test_statistics_that_nothing_can_be_standardised_with_are_refused(
    loaded: Callable[..., Dataset], mean: tuple[float, ...], deviation: tuple[float, ...], message: str
) -> None:
    """The message has the numbers received."""
    with pytest.raises(DatasetError, match=message):
        loaded(make(mean=mean, deviation=deviation))


def test_statistics_may_be_numbers_of_numpy(loaded: Callable[..., Dataset]) -> None:
    """As a function is likely to return them."""
    assert loaded(make(mean=(np.float32(2),), deviation=np.ones(1, np.float32))).mean == (2.0,)


# --- subsets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subset", "expected"),
    [
        pytest.param(60, (50, 10, 30), id="in proportion"),
        pytest.param(12, (10, 2, 12), id="as many test images"),
        pytest.param(4, (3, 1, 4), id="smallest"),
        pytest.param(120, (100, 20, 30), id="all"),
    ],
)
def test_a_subset_has_the_size_asked_for(
    loaded: Callable[..., Dataset], subset: int, expected: tuple[int, ...]
) -> None:
    """Training and validation images in the proportion of the parts, and at most as many test images."""
    assert sizes(loaded(make(valid=part(20), test=part(30)), subset=subset)) == expected


def test_a_subset_of_more_than_there_is_is_refused(loaded: Callable[..., Dataset]) -> None:
    """The message has both numbers."""
    with pytest.raises(DatasetError, match="has 120 training and validation images, subset asks for 121"):
        loaded(make(valid=part(20), test=part(30)), subset=121)


def test_a_subset_is_stratified(loaded: Callable[..., Dataset]) -> None:
    """Classes keep their share."""
    data = loaded(make(valid=part(20), test=part(30)), subset=60)
    assert [np.bincount(getattr(data, name).labels).tolist() for name in PARTS] == [[25, 25], [5, 5], [15, 15]]


def test_a_subset_too_small_for_its_classes_is_refused(loaded: Callable[..., Dataset]) -> None:
    """A class without training images cannot be learned."""
    names = tuple("abcdefgh")
    with pytest.raises(DatasetError, match=r"has no training image of .*; add some, or use a larger subset"):
        loaded(make(class_names=names, train=part(80, classes=8)), subset=4)


def test_a_subset_has_statistics_of_its_own(loaded: Callable[..., Dataset]) -> None:
    """Of the images that networks are fitted to."""
    data = loaded(make(mean=(1.0,), deviation=(1.0,)), subset=20)
    assert data.mean == (pytest.approx(data.train.images.mean()),)


# --- sizes of parts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "fields", "expected"),
    [
        pytest.param({"valid": part(20)}, {"train_images": 10}, (10, 20, 30), id="training images alone"),
        pytest.param({"valid": part(20)}, {"valid_images": 4, "test_images": 6}, (100, 4, 6), id="the other parts"),
        pytest.param({}, {"train_images": 40, "valid_images": 8, "test_images": 30}, (40, 8, 30), id="of a drawn part"),
        pytest.param({}, {"train_images": 50, "valid_images": 50, "valid_share": 0.5}, (50, 50, 30), id="all there is"),
    ],
)
def test_parts_have_the_sizes_asked_for(
    loaded: Callable[..., Dataset], own: dict[str, Split], fields: dict[str, Any], expected: tuple[int, ...]
) -> None:
    """Parts that nothing is said of stay whole."""
    assert sizes(loaded(make(**own, test=part(30)), **fields)) == expected


def test_parts_of_a_size_are_stratified(loaded: Callable[..., Dataset]) -> None:
    """Classes keep their share."""
    data = loaded(make(test=part(30)), train_images=20, valid_images=8, test_images=6)
    assert [np.bincount(getattr(data, name).labels).tolist() for name in PARTS] == [[10, 10], [4, 4], [3, 3]]


def test_parts_of_a_size_are_disjoint(loaded: Callable[..., Dataset]) -> None:
    """No validation image is trained on."""
    data = loaded(make(test=part(30)), train_images=60, valid_images=10)
    train, valid = (set(getattr(data, name).images[:, 0, 0, 0].tolist()) for name in ("train", "valid"))
    assert (len(train), len(valid), train & valid) == (60, 10, set())


def by_class(split: Split) -> Split:
    """Return a part whose classes follow each other, as in a folder."""
    order = np.argsort(split.labels, kind="stable")
    return Split(split.images[order], split.labels[order])


@pytest.mark.parametrize("valid_share", [0.1, 0.37])
def test_all_forms_of_a_data_set_give_the_same_parts(loaded: Callable[..., Dataset], valid_share: float) -> None:
    """Mixed, as torchvision has the classes, or one after the other, as folders have them."""
    train, test = part(100, classes=3), part(30, classes=3)
    fields = {"train_images": 40, "valid_images": 9, "test_images": 12, "valid_share": valid_share, "split_seed": 5}
    names = ("cat", "dog", "elk")
    mixed = loaded(make(class_names=names, train=train, test=test), **fields)
    folder = loaded(make(class_names=names, train=by_class(train), test=by_class(test)), **fields)
    for name in PARTS:
        one, other = getattr(mixed, name), getattr(folder, name)
        np.testing.assert_array_equal(one.images, other.images, err_msg=name)
        np.testing.assert_array_equal(one.labels, other.labels, err_msg=name)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param({"train_images": 91}, "has 90 images in the part train, train_images asks for 91.", id="train"),
        pytest.param(
            {"valid_images": 11}, "valid_images asks for 11; a larger valid_share (now 0.1) gives more.", id="valid"
        ),
        pytest.param({"test_images": 31}, "has 30 images in the part test, test_images asks for 31.", id="test"),
    ],
)
def test_more_images_than_there_are_are_refused(
    loaded: Callable[..., Dataset], fields: dict[str, int], message: str
) -> None:
    """The message has both numbers, and says where more would come from."""
    with pytest.raises(DatasetError, match=re.escape(message)):
        loaded(make(test=part(30)), **fields)


def test_fewer_training_images_have_statistics_of_their_own(loaded: Callable[..., Dataset]) -> None:
    """Of the images that networks are fitted to."""
    data = loaded(make(mean=(1.0,), deviation=(1.0,), test=part(9)), train_images=20)
    assert data.mean == (pytest.approx(data.train.images.mean()),)


# --- pixels ----------------------------------------------------------------------------------------


def test_statistics_are_those_of_the_training_images(loaded: Callable[..., Dataset]) -> None:
    """Per channel; nothing of the held-out images leaks in."""
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 5, 3), dtype=np.uint8)
    data = loaded(make(train=Split(images, np.arange(50) % 2), valid=part(9, (4, 5, 3)), test=part(9, (4, 5, 3))))
    np.testing.assert_allclose([data.mean, data.deviation], [images.mean((0, 1, 2)), images.std((0, 1, 2))])


def test_the_deviation_of_a_constant_channel_is_one() -> None:
    """Nothing is divided by zero."""
    assert mean_and_deviation(np.full((3, 2, 2, 1), 7, np.uint8)) == ((7.0,), (1.0,))


@pytest.mark.parametrize("channels", [1, 2, 3], ids="{} channels".format)
def test_images_are_resized(loaded: Callable[..., Dataset], channels: int) -> None:
    """Every channel alike."""
    pytest.importorskip("PIL")
    data = loaded(make(train=part(100, (6, 4, channels))), image_size=8)
    assert data.input_shape == (channels, 8, 8)
    assert data.train.images[:, 0, 0, :].tolist() == data.train.images[:, 7, 7, :].tolist()


def test_resizing_crops_from_the_centre(loaded: Callable[..., Dataset]) -> None:
    """Proportions are kept: of 4 columns, the outer ones go."""
    pytest.importorskip("PIL")
    images = np.zeros((20, 2, 4, 1), np.uint8)
    images[:, :, [0, 3]] = 200
    assert loaded(make(train=Split(images, np.arange(20) % 2)), image_size=2).train.images.max() == 0


@pytest.mark.parametrize("channels", [1, 3], ids="{} channels".format)
def test_images_are_averaged_by_area(loaded: Callable[..., Dataset], channels: int) -> None:
    """A pixel is the mean of the block that it replaces; rounding, once per direction, is all that differs."""
    pytest.importorskip("PIL")
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, channels), dtype=np.uint8)
    given = make(
        train=Split(images, np.arange(20) % 2), valid=part(2, (8, 8, channels)), test=part(2, (8, 8, channels))
    )
    found = loaded(given, image_size=4, resampling="area").train.images
    blocks = images.reshape(20, 4, 2, 4, 2, channels).mean((2, 4))
    assert np.abs(found - blocks).max() <= 1


def test_resampling_changes_the_fingerprint(loaded: Callable[..., Dataset]) -> None:
    """Other pixels are another data set."""
    pytest.importorskip("PIL")
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    given = make(train=Split(images, np.arange(20) % 2))
    area, bilinear = (loaded(given, image_size=4, resampling=name).fingerprint for name in ("area", "bilinear"))
    assert area != bilinear


def test_images_that_have_the_size_are_left_alone(loaded: Callable[..., Dataset]) -> None:
    """And need no pillow."""
    assert loaded(make(), image_size=4).fingerprint == loaded(make()).fingerprint


# --- memory ----------------------------------------------------------------------------------------


def mapped(path: Path, split: Split) -> Split:
    """Return the part with its images on the disk."""
    np.save(path, split.images)
    return Split(np.load(path, mmap_mode="r"), split.labels)


def test_whole_parts_stay_on_the_disk(tmp_path: Path, loaded: Callable[..., Dataset]) -> None:
    """They may be larger than the memory."""
    train = mapped(tmp_path / "train.npy", part(100))
    assert loaded(make(train=train, valid=part(9), test=part(9))).train.images is train.images


def test_large_selections_stay_on_the_disk(
    tmp_path: Path, loaded: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a copy of their own, with the same images."""
    expected = loaded(make()).train
    monkeypatch.setattr("nas_gym.datasets.loading._IN_MEMORY_BYTES", 0)
    found = loaded(make(train=mapped(tmp_path / "train.npy", part(100)))).train
    assert isinstance(found.images, np.memmap)
    np.testing.assert_array_equal(found.images, expected.images)


def test_selections_of_other_images_are_other_copies(
    tmp_path: Path, loaded: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the source knows no hash of its images."""
    monkeypatch.setattr("nas_gym.datasets.loading._IN_MEMORY_BYTES", 0)
    one = loaded(make(train=mapped(tmp_path / "one.npy", part(100))))
    other = loaded(make(train=mapped(tmp_path / "other.npy", part(100, first=100))))
    assert (other.train.images - one.train.images == 100).all()


# --- fingerprints ----------------------------------------------------------------------------------


def test_fingerprints_are_equal_in_all_processes(tmp_path: Path) -> None:
    """Whatever the seed of Python's hashes."""
    path = write(tmp_path / "pets.npz")
    code = f"from nas_gym.datasets import Source; print(Source({str(path)!r}).load().fingerprint)"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == load(Source(str(path))).fingerprint


def test_fingerprints_do_not_depend_on_the_place(tmp_path: Path) -> None:
    """A copy of the file is the same data set."""
    one, other = (load(Source(str(write(tmp_path / name)))) for name in ("one.npz", "other.npz"))
    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        pytest.param({}, {"split_seed": 1}, id="split"),
        pytest.param({}, {"subset": 50}, id="subset"),
        pytest.param({}, {"train_images": 50}, id="training images"),
        pytest.param({"class_names": ("cat", "elk")}, {}, id="class names"),
        pytest.param({"train": part(100, first=1)}, {}, id="images"),
        pytest.param({"train": Split(part(100).images, np.arange(100) // 50)}, {}, id="labels"),
        pytest.param({"test": part(9)}, {}, id="test part"),
        pytest.param({"mean": (1.0,), "deviation": (1.0,)}, {}, id="statistics"),
    ],
)
def test_fingerprints_differ(loaded: Callable[..., Dataset], changes: dict[str, Any], fields: dict[str, Any]) -> None:
    """By everything that can change a result."""
    assert loaded(make(**changes), **fields).fingerprint != loaded(make()).fingerprint


def test_the_seed_does_not_matter_where_nothing_is_drawn(loaded: Callable[..., Dataset]) -> None:
    """Equal data sets have equal fingerprints."""
    whole = make(valid=part(9), test=part(9))
    assert loaded(whole, split_seed=1).fingerprint == loaded(whole).fingerprint
