"""Folders of images in every state that people keep them in."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")

from nas_gym.datasets import Images, Source  # noqa: E402
from nas_gym.datasets.folders import read_folder  # noqa: E402
from nas_gym.errors import DatasetError  # noqa: E402

WHITE, BLACK, RED = (255, 255, 255), (0, 0, 0), (255, 0, 0)


@pytest.fixture(autouse=True)
def data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep decoded images inside the test's own folder."""
    monkeypatch.setenv("NAS_GYM_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def put(path: Path, colour: object = RED, size: tuple[int, int] = (6, 4), mode: str = "RGB", **options: object) -> Path:
    """Write one image of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)
    return path


def folder(root: Path, *parts: str, count: int = 3) -> Path:
    """Write the classes cat and dog into `root`, or into each of its parts; the colours tell images apart."""
    shade = 0
    for part in parts or ("",):
        for name in ("cat", "dog"):
            for number in range(count):
                put(root / part / name / f"{number}.png", (shade, shade, 10))
                shade += 1
    return root


def unreadable(path: Path, content: bytes = b"no image") -> Path:
    """Write a file that is no image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def read(path: Path, image_size: int | None = None) -> Images:
    """Read a folder."""
    return read_folder(path, image_size)


# --- layouts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        pytest.param((), ["train"], id="classes directly"),
        pytest.param(("train", "val", "test"), ["train", "valid", "test"], id="train val test"),
        pytest.param(("train", "valid", "test"), ["train", "valid", "test"], id="valid"),
        pytest.param(("Train", "validation", "TEST"), ["train", "valid", "test"], id="other spelling"),
        pytest.param(("train", "test"), ["train", "test"], id="no validation"),
        pytest.param(("train", "val"), ["train", "valid"], id="no test"),
        pytest.param(("train",), ["train"], id="train alone"),
    ],
)
def test_a_layout_gives_its_parts(tmp_path: Path, parts: tuple[str, ...], found: list[str]) -> None:
    """The user's split is kept; what is missing is left to be drawn."""
    assert list(read(folder(tmp_path / "pets", *parts)).parts) == found


def test_images_keep_their_part_class_and_order(tmp_path: Path) -> None:
    """Parts in turn, classes in alphabetical order, files by name."""
    images = read(folder(tmp_path / "pets", "train", "val", "test", count=2))
    shades = [part.images[:, 0, 0, 0].tolist() for part in images.parts.values()]
    assert shades == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert images.train.labels.tolist() == [0, 0, 1, 1]


def test_classes_are_named_by_their_folders(tmp_path: Path) -> None:
    """In alphabetical order."""
    assert read(folder(tmp_path / "pets")).class_names == ("cat", "dog")


def test_other_files_are_ignored(tmp_path: Path) -> None:
    """Hidden ones, notes, and what has another ending; capitals are no matter."""
    root = folder(tmp_path / "pets")
    (root / "cat" / "notes.txt").write_text("a cat")
    unreadable(root / "cat" / "._0.png")
    put(root / "cat" / "upper.PNG")
    images = read(root)
    assert (len(images.train), images.skipped) == (7, 0)


@pytest.mark.parametrize(
    ("arrange", "message"),
    [
        pytest.param(
            lambda root: put(root / "cat" / "0.png"), "at least 2 class folders, found 1 (cat)", id="one class"
        ),
        pytest.param(lambda root: put(root / "0.png"), "found 0 (none)", id="no class folder"),
        pytest.param(
            lambda root: (folder(root), (root / "elk").mkdir()), "elk: no images. Known file names end in", id="empty"
        ),
        pytest.param(
            lambda root: (folder(root, "train", "test"), put(root / "test" / "elk" / "0.png")),
            "has the class folders elk",
            id="unknown class",
        ),
    ],
)
def test_another_layout_is_an_error(tmp_path: Path, arrange: object, message: str) -> None:
    """The message says what was found and what is understood."""
    root = tmp_path / "pets"
    root.mkdir()
    arrange(root)  # pyright: ignore[reportCallIssue]
    with pytest.raises(DatasetError, match=re.escape(message)):
        read(root)


# --- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40], ids=["empty", "text", "header only"]
)
def test_unreadable_files_are_left_out_and_counted(tmp_path: Path, content: bytes) -> None:
    """A note names them."""
    root = folder(tmp_path / "pets")
    unreadable(root / "dog" / "bad.png", content)
    images = read(root)
    assert (len(images.train), images.skipped) == (6, 1)
    assert images.notes == ("1 unreadable files were left out: dog/bad.png.",)


def test_a_truncated_photograph_is_left_out(tmp_path: Path) -> None:
    """Its header is fine; only decoding shows that the end is missing."""
    root = folder(tmp_path / "pets")
    noise = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    path = root / "dog" / "cut.jpg"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-60])
    assert read(root).skipped == 1


def test_mostly_unreadable_folders_are_refused(tmp_path: Path) -> None:
    """It is probably the wrong folder."""
    root = folder(tmp_path / "pets", count=1)
    for number in range(3):
        unreadable(root / "cat" / f"bad{number}.png")
    with pytest.raises(DatasetError, match="3 of 5 files cannot be read"):
        read(root)


def test_a_class_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """Its images would silently be missing."""
    root = folder(tmp_path / "pets")
    unreadable(root / "elk" / "0.png")
    with pytest.raises(DatasetError, match="none of the 1 images of the class 'elk' in train"):
        read(root)


# --- colours ---------------------------------------------------------------------------------------


def one_more(root: Path, **options: object) -> np.ndarray:
    """Return the pixels of an image with the given options among coloured ones."""
    put(folder(root) / "dog" / "z.png", **options)  # pyright: ignore[reportArgumentType]
    return read(root).train.images[-1]


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    """If all of them are grey."""
    for name in ("cat", "dog"):
        put(tmp_path / "pets" / name / "0.png", 77, mode="L")
    images = read(tmp_path / "pets").train.images
    assert (images.shape[-1], set(images.ravel().tolist())) == (1, {77})


def test_some_grey_images_become_rgb(tmp_path: Path) -> None:
    """And a note counts them."""
    root = folder(tmp_path / "pets")
    put(root / "dog" / "z.png", 77, mode="L")
    images = read(root)
    assert images.train.images[-1, 0, 0].tolist() == [77, 77, 77]
    assert "1 of 7 images are grey and were turned into RGB." in images.notes


def test_greys_of_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    """The middle of 16 bits is the middle of 8."""
    for name in ("cat", "dog"):
        path = tmp_path / "pets" / name / "0.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((4, 6), 32896, np.uint16)).save(path)
    assert set(read(tmp_path / "pets").train.images.ravel().tolist()) == {128}


def test_transparent_images_are_laid_over_white(tmp_path: Path) -> None:
    """Half transparent black is grey."""
    assert one_more(tmp_path / "pets", colour=(0, 0, 0, 0), mode="RGBA")[0, 0].tolist() == [255, 255, 255]


def test_palettes_are_resolved(tmp_path: Path) -> None:
    """The colours come out, not their numbers."""
    root = folder(tmp_path / "pets")
    Image.new("RGB", (6, 4), RED).quantize(4).save(root / "dog" / "z.png")
    assert read(root).train.images[-1, 0, 0].tolist() == [255, 0, 0]


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    """By the orientation in their EXIF data."""
    root = folder(tmp_path / "pets")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    put(root / "dog" / "z.png", BLACK, (4, 6), exif=exif)
    assert read(root).train.images.shape == (7, 4, 6, 3)


def test_nothing_is_warned_about(tmp_path: Path) -> None:
    """Pillow's warnings about strange files stay inside."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one_more(tmp_path / "pets", colour=(0, 0, 0, 10), mode="RGBA")


# --- sizes -----------------------------------------------------------------------------------------


def test_mixed_sizes_need_a_size(tmp_path: Path) -> None:
    """The message counts them and says what to give."""
    root = folder(tmp_path / "pets")
    put(root / "dog" / "z.png", size=(9, 9))
    with pytest.raises(
        DatasetError, match=r"2 different sizes, the most frequent are 6x4 \(6\), 9x9 \(1\).*image_size"
    ):
        read(root)


def test_mixed_sizes_are_resized(tmp_path: Path) -> None:
    """To squares."""
    root = folder(tmp_path / "pets")
    put(root / "dog" / "z.png", size=(9, 9))
    assert read(root, 8).train.images.shape == (7, 8, 8, 3)


def test_resizing_keeps_proportions(tmp_path: Path) -> None:
    """A wide image loses its sides, so what is left of the centre is not squeezed."""
    root = folder(tmp_path / "pets")
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = 255
    Image.fromarray(pixels).save(root / "dog" / "z.png")
    assert read(root, 8).train.images[-1].min() > 200


def test_images_are_averaged_by_area(tmp_path: Path) -> None:
    """And not taken from the cache of another resampling."""
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:, 3] = 200
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "pets" / name / "0.png")
    bilinear, area = (read_folder(tmp_path / "pets", 4, resampling).train.images for resampling in ("bilinear", "area"))
    assert area[0, 0, :, 0].tolist() == [0, 100, 0, 0]
    assert bilinear[0, 0, :, 0].tolist() != [0, 100, 0, 0]


# --- cache -----------------------------------------------------------------------------------------


def test_images_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time they are mapped from the disk."""
    root = folder(tmp_path / "pets")
    before = read(root).train.images
    monkeypatch.setattr("nas_gym.datasets.folders._pixels", None)
    after = read(root).train.images
    assert isinstance(after, np.memmap)
    np.testing.assert_array_equal(before, after)


def test_a_changed_file_is_decoded_again(tmp_path: Path) -> None:
    """Size and time of every file are part of the key."""
    root = folder(tmp_path / "pets")
    read(root)
    put(root / "dog" / "2.png", BLACK, compress_level=0)
    assert read(root).train.images[-1].max() == 0


@pytest.mark.parametrize("name", ["description.json", "train_images.npy", "train_labels.npy"])
def test_a_damaged_cache_is_built_again(tmp_path: Path, data_root: Path, name: str) -> None:
    """As if it were not there."""
    root = folder(tmp_path / "pets")
    before = np.array(read(root).train.images)
    (entry,) = (data_root / "cache").iterdir()
    (entry / name).write_bytes((entry / name).read_bytes()[:50])
    np.testing.assert_array_equal(before, read(root).train.images)


def test_the_fingerprint_does_not_depend_on_the_place(tmp_path: Path) -> None:
    """Equal folders in two places are one data set."""
    one, other = (Source(str(folder(tmp_path / name))).load() for name in ("one", "other"))
    assert one.fingerprint == other.fingerprint


def test_the_fingerprint_depends_on_the_images(tmp_path: Path) -> None:
    """One other pixel colour is another data set."""
    one, other = folder(tmp_path / "one"), folder(tmp_path / "other")
    put(other / "cat" / "0.png", (0, 0, 11))
    assert Source(str(one)).load().fingerprint != Source(str(other)).load().fingerprint


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs posix_fallocate")
def test_a_full_disk_is_an_error_that_leaves_nothing(tmp_path: Path, data_root: Path) -> None:
    """The limit on the size of files stands for the disk; the message names the way out."""
    root = tmp_path / "pets"
    for name in ("cat", "dog"):
        put(root / name / "0.png", size=(300, 300))
    code = (
        "from pathlib import Path; import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from nas_gym.datasets.folders import read_folder; from nas_gym.errors import DatasetError\n"
        f"try: read_folder(Path({str(root)!r}), None)\n"
        "except DatasetError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert re.search(r"cannot be written: .*NAS_GYM_DATA", done.stdout)
    assert list((data_root / "cache").iterdir()) == []
