"""The images of a data set where a training reads them: whole on the device, or streamed from the disk.

Dimension letters: N images, B images of a batch, C channels, H height, W width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nas_gym.datasets import Dataset, Split

_SHARE_OF_FREE_MEMORY = 0.5


class DeviceSplit(ABC):
    """A part of a data set, read in batches of standardised images.

    Attributes:
        labels: int64 [N], on the device.
        device: where batches appear.
    """

    def __init__(self, labels: Tensor, mean: Tensor, deviation: Tensor) -> None:
        """Keep what all forms need.

        Args:
            labels: int64 [N], on the device.
            mean: float32 [C, 1, 1], in the unit of the pixels.
            deviation: float32 [C, 1, 1].
        """
        self.labels = labels
        self.device = labels.device
        self._mean = mean
        self._deviation = deviation

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels)

    @abstractmethod
    def pixels(self, indices: Tensor) -> Tensor:
        """Return uint8 [B, H, W, C] on the device.

        Args:
            indices: int64 [B], on the CPU.
        """

    def images(self, indices: Tensor) -> Tensor:
        """Return standardised images, float32 [B, C, H, W] in the layout channels-last; `indices` as in `pixels`."""
        return (self.pixels(indices).permute(0, 3, 1, 2).float() - self._mean) / self._deviation


class ResidentSplit(DeviceSplit):
    """All images on the device as uint8."""

    def __init__(self, pixels: Tensor, labels: Tensor, mean: Tensor, deviation: Tensor) -> None:
        """Adopt uint8 [N, H, W, C] on the device."""
        super().__init__(labels, mean, deviation)
        self._pixels = pixels

    def pixels(self, indices: Tensor) -> Tensor:
        """Gather on the device."""
        return self._pixels[indices.to(self.device, non_blocking=True)]


class StreamedSplit(DeviceSplit):
    """Images stay in a memory-mapped file; every batch is read from it and copied to the device."""

    def __init__(self, stored: np.ndarray, labels: Tensor, mean: Tensor, deviation: Tensor) -> None:
        """Adopt uint8 [N, H, W, C] on the disk."""
        super().__init__(labels, mean, deviation)
        self._stored = stored

    def pixels(self, indices: Tensor) -> Tensor:
        """Read in the order of the file, which disks like, and put back into the order of the batch."""
        ordered, order = torch.sort(indices)
        read = torch.from_numpy(self._stored[ordered.numpy()])
        batch = torch.empty_like(read)
        batch[order] = read
        return batch.to(self.device, non_blocking=True)


@dataclass(frozen=True)
class DeviceData:
    """The three parts of a data set, ready for training on one device."""

    train: DeviceSplit
    valid: DeviceSplit
    test: DeviceSplit

    @classmethod
    def of(cls, dataset: Dataset, device: str = "cpu", resident_bytes: float | None = None) -> DeviceData:
        """Place a data set.

        Args:
            dataset: the data set.
            device: such as "cpu" or "cuda:0".
            resident_bytes: largest part that is held on the device; larger ones are streamed. By default half of
                the memory that is free there. Memory-mapped parts need none of it on the CPU.
        """
        limit = _SHARE_OF_FREE_MEMORY * free_bytes(device) if resident_bytes is None else resident_bytes
        mean, deviation = (
            torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]
            for values in (dataset.mean, dataset.deviation)
        )

        def place(split: Split) -> DeviceSplit:
            labels = torch.as_tensor(np.asarray(split.labels), device=device)
            if split.nbytes > limit:
                return StreamedSplit(split.images, labels, mean, deviation)
            return ResidentSplit(torch.as_tensor(split.images, device=device), labels, mean, deviation)

        return cls(place(dataset.train), place(dataset.valid), place(dataset.test))


def free_bytes(device: str) -> float:
    """Return the free memory of a device in bytes; infinite where it is not known."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(torch.device(device))[0]
    memory = Path("/proc/meminfo")
    if memory.exists():
        for line in memory.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return float("inf")
