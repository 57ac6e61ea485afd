"""From finished shards to one table file.

Dimension letters: R rows, S seeds, E epochs.
"""

from __future__ import annotations

import csv
import gzip
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidArgument, TableError
from nas_gym.tables.build import BuildSpec, complexities, read_rows
from nas_gym.tables.format import Measurement, write_table
from nas_gym.tables.quality import spearman_by_share


def assemble(
    spec: BuildSpec,
    work: Path,
    out: Path,
    seeds: int,
    against: Mapping[str, Path] | None = None,
    provenance: str = "",
) -> str:
    """Write the table of the shards 0 to `seeds` - 1 and return its hash.

    Args:
        spec: what was trained.
        work: working directory of the build.
        out: file to write.
        seeds: number of complete shards S.
        against: other benchmarks to compare with, ``"column"`` -> CSV file with a column ``architecture``; the
            correlations are recorded in the metadata.
        provenance: what distinguishes the images from those that the name of the data set stands for, recorded in the
            metadata.

    Raises:
        TableError: a shard is incomplete or holds a failed training.
        InvalidArgument: a comparison file lacks a column or architectures.
    """
    space = spec.search_space
    encodings = list(space.enumerate())
    representative = [space.canonical(encoding) for encoding in encodings]
    shards = [
        _complete_shard(spec, work, seed, {space.code(encoding) for encoding in representative})
        for seed in range(seeds)
    ]
    codes = [space.code(encoding) for encoding in representative]
    parameters, multiply_adds = complexities(spec, encodings)
    dataset = spec.source.load()
    measurements = {
        "valid_accuracy": Measurement("maximize", "fraction", False, len(dataset.valid), seeds, spec.recipe.epochs),
        "test_accuracy": Measurement("maximize", "fraction", True, len(dataset.test), seeds),
        "train_seconds": Measurement("minimize", "seconds", seeds=seeds),
        "parameters": Measurement("minimize", "count"),
        "multiply_adds": Measurement("minimize", "count"),
    }
    columns: dict[str, npt.NDArray[Any]] = {
        "valid_accuracy": np.array([[shard[code].valid_correct for shard in shards] for code in codes], np.uint16),
        "test_accuracy": np.array([[[shard[code].test_correct] for shard in shards] for code in codes], np.uint16),
        "train_seconds": np.array([[[shard[code].cpu_seconds] for shard in shards] for code in codes], np.float32),
        "parameters": np.array(parameters, np.int32)[:, None, None],
        "multiply_adds": np.array(multiply_adds, np.int32)[:, None, None],
    }
    texts = {
        "architecture": [space.to_string(encoding) for encoding in encodings],
        "trained_architecture": [space.to_string(encoding) for encoding in representative],
    }
    trained = set(codes)
    accuracy = {
        space.to_string(encoding): columns["valid_accuracy"][code, :, -1].mean()
        for code, encoding in enumerate(encodings)
        if code in trained
    }
    metadata = {
        **spec.to_json(),
        "seeds": list(range(seeds)),
        "splits": {"train": len(dataset.train), "valid": len(dataset.valid), "test": len(dataset.test)},
        "data": {"fingerprint": dataset.fingerprint, "provenance": provenance, "notes": list(dataset.notes)},
        "classes_trained": len(trained),
        "train_seconds_are": "processor seconds of one thread: training and validation, without the test set",
        "versions": {name: version(name) for name in ("numpy", "torch", "scikit-learn")},
        "python": platform.python_version(),
        "rank_correlation": {column: _correlation(accuracy, path, column) for column, path in (against or {}).items()},
    }
    return write_table(out, np.arange(len(encodings)), measurements, columns, metadata, texts)


def _complete_shard(spec: BuildSpec, work: Path, seed: int, codes: set[int]) -> dict[int, Any]:
    rows = read_rows(spec, work, seed)
    if missing := codes - rows.keys():
        raise TableError(
            f"{work}, seed {seed}: {len(missing)} of {len(codes)} networks are missing; finish the build first."
        )
    failed = [code for code in sorted(codes) if rows[code].status != "ok"]
    if failed:
        raise TableError(
            f"{work}, seed {seed}: the training of {len(failed)} networks failed, the first is code {failed[0]}."
        )
    return rows


def _correlation(accuracy: Mapping[str, float], path: Path, column: str) -> dict[str, float]:
    """Return Spearman correlations with another benchmark by share, over the trained architectures."""
    other = _read_column(path, column)
    if missing := [name for name in accuracy if name not in other]:
        raise InvalidArgument(f"{path} lacks {len(missing)} architectures, the first is {missing[0]}.")
    names: Sequence[str] = list(accuracy)
    found = spearman_by_share(np.array([accuracy[name] for name in names]), np.array([other[name] for name in names]))
    return {f"best {share:.0%}" if share < 1 else "all": round(value, 4) for share, value in found.items()}


def _read_column(path: Path, column: str) -> dict[str, float]:
    """Return architecture -> value of a CSV file, gzipped or not."""
    opened = gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="")
    with opened as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames or []
        if "architecture" not in names or column not in names:
            raise InvalidArgument(f"{path} needs the columns 'architecture' and {column!r}; it has {', '.join(names)}.")
        return {row["architecture"]: float(row[column]) for row in reader}
