"""Images on the device or streamed from the disk: the same batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nas_gym.datasets import Dataset, Split, digits
from nas_gym.networks import images
from nas_gym.networks.fit import Fitting, initialise
from nas_gym.networks.images import DeviceData, ResidentSplit, StreamedSplit, free_bytes
from nas_gym.networks.recipe import Recipe


def dataset(folder: Path) -> Dataset:
    """Return memory-mapped colour images of 6x8 pixels, 20 in each part."""
    rng = np.random.default_rng(0)
    parts = []
    for name in ("train", "valid", "test"):
        np.save(folder / f"{name}.npy", rng.integers(0, 256, (20, 6, 8, 3)).astype(np.uint8))
        parts.append(Split(np.load(folder / f"{name}.npy", mmap_mode="c"), rng.integers(0, 2, 20)))
    return Dataset("random", ("a", "b"), *parts, (10.0, 20.0, 30.0), (2.0, 4.0, 5.0), "0" * 32)


def test_batches_are_standardised(tmp_path: Path) -> None:
    """By channel, in the order asked for, as [B, C, H, W] with channels last in memory."""
    data = dataset(tmp_path)
    batch = DeviceData.of(data).train.images(torch.tensor([7, 2]))
    expected = (data.train.images[[7, 2]].astype(np.float32) - data.mean) / data.deviation
    np.testing.assert_allclose(batch.permute(0, 2, 3, 1), expected, rtol=1e-6)
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_streamed_batches_equal_resident_ones(tmp_path: Path) -> None:
    """Bit by bit, also with repeated and unordered indices."""
    data = dataset(tmp_path)
    resident, streamed = DeviceData.of(data, resident_bytes=1e9).train, DeviceData.of(data, resident_bytes=0).train
    indices = torch.tensor([19, 0, 3, 3, 7])
    assert torch.equal(resident.images(indices), streamed.images(indices))


PART_BYTES = 20 * (6 * 8 * 3 + 8)
"""Twenty images of 6x8 pixels and three channels, and as many labels."""


@pytest.mark.parametrize(
    ("limit", "kind"),
    [
        pytest.param(PART_BYTES, ResidentSplit, id="just fits"),
        pytest.param(PART_BYTES - 1, StreamedSplit, id="one byte too much"),
        pytest.param(0, StreamedSplit, id="nothing fits"),
    ],
)
def test_what_does_not_fit_into_the_limit_is_streamed(tmp_path: Path, limit: float, kind: type) -> None:
    """A part of the data lies on the device if it is no larger than the limit."""
    assert isinstance(DeviceData.of(dataset(tmp_path), resident_bytes=limit).train, kind)


@pytest.mark.parametrize(
    ("free", "kind"),
    [
        pytest.param(2 * PART_BYTES, ResidentSplit, id="half of it suffices"),
        pytest.param(2 * PART_BYTES - 2, StreamedSplit, id="half of it does not"),
        pytest.param(float("inf"), ResidentSplit, id="unknown"),
    ],
)
def test_the_default_limit_is_half_of_the_free_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, kind: type
) -> None:
    """Without a limit a part may take half of what the device has left."""
    monkeypatch.setattr(images, "free_bytes", lambda device: free)
    assert isinstance(DeviceData.of(dataset(tmp_path)).train, kind)


def test_every_part_is_placed_on_its_own(tmp_path: Path) -> None:
    """A training part too large for the limit does not keep the smaller ones off the device."""
    data = dataset(tmp_path)
    small = Split(data.valid.images[:5], data.valid.labels[:5])
    placed = DeviceData.of(replace(data, valid=small, test=small), resident_bytes=PART_BYTES - 1)
    kinds = [type(part) for part in (placed.train, placed.valid, placed.test)]
    assert kinds == [StreamedSplit, ResidentSplit, ResidentSplit]


def test_the_free_memory_of_the_processor_is_known() -> None:
    """It is a positive number of bytes."""
    assert free_bytes("cpu") > 0


@pytest.mark.parametrize("limit", [pytest.param(1e9, id="resident"), pytest.param(0, id="streamed")])
def test_labels_are_those_of_the_data_set(tmp_path: Path, limit: float) -> None:
    """In the order of the images, as many as the part is long."""
    data = dataset(tmp_path)
    part = DeviceData.of(data, resident_bytes=limit).test
    assert (part.labels.tolist(), len(part)) == (data.test.labels.tolist(), 20)


def trained(data: Dataset, limit: float) -> list[torch.Tensor]:
    """Return the weights of a small network after two epochs."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    initialise(model, torch.Generator().manual_seed(0))
    placed = DeviceData.of(data, resident_bytes=limit)
    recipe = Recipe(epochs=2, batch_size=8, augmentation="crop")
    fitting = Fitting(model, placed.train, recipe, torch.Generator().manual_seed(1))
    for _ in range(2):
        fitting.run_epoch()
    return list(model.parameters())


def test_training_does_not_see_where_the_images_are(tmp_path: Path) -> None:
    """Streamed and resident images give the same weights, bit by bit."""
    data = dataset(tmp_path)
    pairs = zip(trained(data, 1e9), trained(data, 0), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_digits_are_standardised_as_the_table_was() -> None:
    """In single precision."""
    data = digits()
    batch = DeviceData.of(data).train.images(torch.arange(500))[:, 0]
    expected = (data.train.images[..., 0].astype(np.float32) - np.float32(data.mean)) / np.float32(data.deviation)
    np.testing.assert_array_equal(batch.numpy(), expected)
