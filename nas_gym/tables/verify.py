"""Train rows of a table again, from the recipe in its metadata."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from nas_gym.errors import TableError
from nas_gym.search_spaces.core import Encoding
from nas_gym.tables.build import BuildSpec, ShardRow, Trainer
from nas_gym.tables.format import Table

_PLAUSIBLE_DEVIATIONS = 6.0


@dataclass(frozen=True)
class RetrainedRow:
    """One network trained again.

    Attributes:
        architecture: notation of what was trained.
        seed: which of the table's seeds.
        recorded: validation accuracy after every epoch in the table.
        retrained: the same now.
        deviation: standard deviation of the table's seeds at the last epoch, pooled over the table.
        same_images: whether the images are those of the table, None if the table does not say.
    """

    architecture: str
    seed: int
    recorded: tuple[float, ...]
    retrained: tuple[float, ...]
    deviation: float
    same_images: bool | None = None

    @property
    def same(self) -> bool:
        """Whether all epochs agree exactly, as they do on the machine that built the table."""
        return self.recorded == self.retrained

    @property
    def difference(self) -> float:
        """Absolute difference of the last epoch."""
        return abs(self.recorded[-1] - self.retrained[-1])

    @property
    def plausible(self) -> bool:
        """Whether the last epochs differ by no more than six deviations of another seed (or one image)."""
        return self.same or self.difference <= _PLAUSIBLE_DEVIATIONS * max(self.deviation, 1e-3)


def _on_one_thread(trainer: Trainer, encoding: Encoding, seed: int) -> ShardRow:
    """Train as a worker of the build does: with several threads sums are rounded in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return trainer.train(encoding, seed)
    finally:
        torch.set_num_threads(before)


def retrain_rows(table: Table, count: int, rng: np.random.Generator, data: str | None = None) -> Iterator[RetrainedRow]:
    """Train `count` random rows again, each with a random one of the table's seeds.

    Args:
        table: a table of `nas_gym.tables.assemble`.
        count: number of rows.
        rng: draws rows and seeds.
        data: path of an .npz file or image folder to read in place of the data set that the table names.

    Raises:
        TableError: the metadata lacks the recipe.
        DatasetError: the data set is not on this machine.
    """
    try:
        spec = dataclasses.replace(BuildSpec.from_json(table.metadata), data=data)
        trainer = Trainer(spec)
    except (KeyError, TypeError) as error:
        raise TableError(f"{table.path}: its metadata has no recipe to train from ({error}).") from None
    recorded = table.metadata.get("data", {}).get("fingerprint")
    same_images = None if recorded is None else recorded == trainer.dataset.fingerprint
    images = len(trainer.dataset.valid)
    measurement = table.measurement("valid_accuracy")
    curves = table.columns["valid_accuracy"] / measurement.denominator
    final = curves[:, :, -1]
    deviation = float(np.sqrt(final.var(axis=1, ddof=1).mean())) if measurement.seeds > 1 else 0.05
    encodings = list(trainer.space.enumerate())
    for row in rng.choice(len(table), size=min(count, len(table)), replace=False).tolist():
        trained = trainer.space.canonical(encodings[int(table.codes[row])])
        seed = int(rng.integers(max(measurement.seeds, 1)))
        again = _on_one_thread(trainer, trained, seed)
        yield RetrainedRow(
            trainer.space.to_string(trained),
            seed,
            tuple(curves[row, seed].tolist()),
            tuple(correct / images for correct in again.valid_correct),
            deviation,
            same_images,
        )
