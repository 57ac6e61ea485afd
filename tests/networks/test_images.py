"""Images on the device or streamed from the disk: the same batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nas_gym.datasets import Dataset, Split, digits
from nas_gym.networks.augmentation import AUGMENTATIONS, crop, cutout, flip
from nas_gym.networks.images import DeviceData, ResidentSplit, StreamedSplit


def dataset(folder: Path) -> Dataset:
    """Return memory-mapped colour images of 6x8 pixels."""
    rng = np.random.default_rng(0)
    parts = []
    for name in ("train", "valid", "test"):
        np.save(folder / f"{name}.npy", rng.integers(0, 256, (20, 6, 8, 3)).astype(np.uint8))
        parts.append(Split(np.load(folder / f"{name}.npy", mmap_mode="c"), rng.integers(0, 2, 20)))
    return Dataset("random", ("a", "b"), *parts, (10.0, 20.0, 30.0), (2.0, 4.0, 5.0), "0" * 32)


def test_batches_are_standardised(tmp_path: Path) -> None:
    """By channel, in the order asked for, as [B, C, H, W] with channels last in memory."""
    data = dataset(tmp_path)
    images = DeviceData.of(data).train.images(torch.tensor([7, 2]))
    expected = (data.train.images[[7, 2]].astype(np.float32) - data.mean) / data.deviation
    np.testing.assert_allclose(images.permute(0, 2, 3, 1), expected, rtol=1e-6)
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_streamed_batches_equal_resident_ones(tmp_path: Path) -> None:
    """Bit by bit, also with repeated and unordered indices."""
    data = dataset(tmp_path)
    resident, streamed = DeviceData.of(data, resident_bytes=1e9).train, DeviceData.of(data, resident_bytes=0).train
    indices = torch.tensor([19, 0, 3, 3, 7])
    assert torch.equal(resident.images(indices), streamed.images(indices))


@pytest.mark.parametrize(("limit", "kind"), [(1e9, ResidentSplit), (100, StreamedSplit), (None, ResidentSplit)])
def test_what_does_not_fit_is_streamed(tmp_path: Path, limit: float | None, kind: type) -> None:
    """By the limit that was given, else by the free memory."""
    assert isinstance(DeviceData.of(dataset(tmp_path), resident_bytes=limit).train, kind)


def test_digits_are_standardised_as_the_table_was() -> None:
    """In single precision."""
    data = digits()
    images = DeviceData.of(data).train.images(torch.arange(500))[:, 0]
    expected = (data.train.images[..., 0].astype(np.float32) - np.float32(data.mean)) / np.float32(data.deviation)
    np.testing.assert_array_equal(images.numpy(), expected)


# --- augmentation ----------------------------------------------------------------------------------

IMAGES = torch.arange(1, 1 + 200 * 8 * 8, dtype=torch.float32).reshape(200, 1, 8, 8)


def draw(seed: int = 0) -> torch.Generator:
    """Return a seeded generator."""
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_an_augmentation_depends_on_its_generator_alone(name: str) -> None:
    """The same seed gives the same images, another one others, and the images themselves stay."""
    before = IMAGES.clone()
    one, again, other = (AUGMENTATIONS[name](IMAGES, draw(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other) and torch.equal(IMAGES, before)


def test_crops_are_shifts_of_the_padded_image() -> None:
    """By up to an eighth, and all nine of them occur."""
    padded = nn.functional.pad(IMAGES, (1, 1, 1, 1))
    shifts = set()
    for image, original in zip(crop(IMAGES, draw()), padded, strict=True):
        fits = [
            (top, left)
            for top in range(3)
            for left in range(3)
            if torch.equal(image, original[:, top : top + 8, left : left + 8])
        ]
        assert len(fits) == 1
        shifts.add(fits[0])
    assert len(shifts) == 9


def test_about_half_of_the_images_are_mirrored() -> None:
    """The others stay as they are."""
    mirrored = 0
    for image, original in zip(flip(IMAGES, draw()), IMAGES, strict=True):
        assert torch.equal(image, original) or torch.equal(image, original.flip(2))
        mirrored += torch.equal(image, original.flip(2))
    assert 70 <= mirrored <= 130


def test_cutout_blanks_a_square() -> None:
    """At most 4x4 pixels of 8x8, fewer at the border, and nothing else."""
    changed = cutout(IMAGES, draw())
    blank = changed == 0
    assert torch.equal(changed[~blank], IMAGES[~blank])
    areas = blank.sum((1, 2, 3))
    assert (int(areas.max()), int(areas.min())) == (16, 4)


def test_images_of_several_channels_are_cropped_together() -> None:
    """All channels by the same shift."""
    colour = IMAGES.repeat(1, 3, 1, 1)
    cropped = crop(colour, draw())
    assert torch.equal(cropped[:, 0], cropped[:, 2])
