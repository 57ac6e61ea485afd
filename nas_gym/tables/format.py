"""The table file: Parquet in, arrays out; nothing pickled, nothing trusted.

A file holds one row an architecture and, in the schema metadata under the key ``nas_gym``, one JSON object:

=============== ==================================================================================
key             value
=============== ==================================================================================
format          version of this layout, 1
space           name of the search space
dataset         what the networks were trained on
measurements    name -> direction, unit, held_out, denominator, seeds, epochs, ... (see `Measurement`)
signal, report  names of the measurement that searches read and of the one that results are judged by; where they
                are absent, the measurements that are not held out, and the first that is
sha256          hash of all columns (names, types, values) and of the metadata without this key
...             anything else: recipe, provenance, measured quality
=============== ==================================================================================

Columns: ``code`` (integer code of the encoding, ascending), then for every measurement ``NAME``, ``NAME_s0`` (one
column a seed) or ``NAME_s0_e1`` (one column a seed and epoch, epochs from 1), then any others, such as
``architecture`` (the published notation). A stored value divided by the measurement's denominator is in its unit;
accuracies are stored as numbers of correct images, so that means are exact. In a floating-point column with seeds, NaN
stands for a training that was never done; every architecture has at least one.

Dimension letters: R rows, S seeds, E epochs.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nas_gym.errors import FidelityError, InvalidArgument, TableError, UnknownName

if TYPE_CHECKING:
    import pyarrow

FORMAT = 1
METADATA_KEY = b"nas_gym"

_LATER_FIELDS = ("trained_epochs", "description")
"""Fields of `Measurement` that the first tables lack; they are not written when empty, so that hashes stay."""


@dataclass(frozen=True)
class Measurement:
    """What is recorded about every architecture.

    Attributes:
        direction: "maximize" or "minimize".
        unit: "fraction", "count", "seconds", ...
        held_out: whether it is for reports only.
        denominator: stored values are divided by it.
        seeds: number of repeated trainings S, 0 where the value does not depend on one.
        epochs: number of epochs recorded E, 0 where only the end of the training is.
        trained_epochs: length of the training whose end is recorded, 0 where the recipe says it.
        description: what was measured, for readers.
    """

    direction: str
    unit: str
    held_out: bool = False
    denominator: int = 1
    seeds: int = 0
    epochs: int = 0
    trained_epochs: int = 0
    description: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, without `trained_epochs` and `description` where they say nothing."""
        return {name: value for name, value in asdict(self).items() if name not in _LATER_FIELDS or value}

    def columns(self, name: str) -> list[str]:
        """Return the names of the columns, seeds outermost."""
        seeds = [f"{name}_s{seed}" for seed in range(self.seeds)] or [name]
        return [f"{column}_e{epoch}" for column in seeds for epoch in range(1, self.epochs + 1)] or seeds


@dataclass(frozen=True)
class Table:
    """A table in memory.

    Attributes:
        path: the file.
        sha256: verified hash of its content.
        metadata: the JSON object of the file.
        codes: int64 [R], ascending.
        measurements: what is recorded, by name.
        columns: stored values by measurement, shape [R, max(S, 1), max(E, 1)].
    """

    path: Path
    sha256: str
    metadata: Mapping[str, Any]
    codes: npt.NDArray[np.int64]
    measurements: Mapping[str, Measurement]
    columns: Mapping[str, npt.NDArray[Any]]

    @property
    def name(self) -> str:
        """File name without the ending."""
        return self.path.stem

    @property
    def epochs(self) -> int:
        """Highest fidelity: epochs of the longest curve; without curves, of the training behind the search signal."""
        longest = max((measurement.epochs for measurement in self.measurements.values()), default=0)
        searched = (one.trained_epochs for one in self.measurements.values() if not one.held_out)
        return longest or max(searched, default=0) or 1

    def __len__(self) -> int:
        """Return the number of architectures."""
        return len(self.codes)

    def measurement(self, name: str) -> Measurement:
        """Return what is known about a measurement.

        Raises:
            UnknownName: the table does not record it.
        """
        if name not in self.measurements:
            raise UnknownName("metric", name, self.measurements)
        return self.measurements[name]

    def mean(self, name: str, epoch: int | None = None) -> npt.NDArray[np.float64]:
        """Return the mean over the seeds there are after `epoch` (default: the last), shape [R]; exact for counts.

        Raises:
            UnknownName: the table does not record `name`.
            FidelityError: no such epoch.
        """
        values = self._at_epoch(name, epoch)
        there = _recorded(values)
        if there is None:
            total, seeds = values.sum(axis=1, dtype=_accumulator(values)), values.shape[1]
        else:
            total, seeds = values.sum(axis=1, dtype=np.float64, where=there), there.sum(axis=1)
        return total / (seeds * self.measurement(name).denominator)

    def per_seed(self, name: str, epoch: int | None = None) -> npt.NDArray[np.float64]:
        """Return the values of every seed after `epoch` (default: the last), shape [R, max(S, 1)]; NaN where none.

        Raises:
            UnknownName: the table does not record `name`.
            FidelityError: no such epoch.
        """
        return self._at_epoch(name, epoch).astype(np.float64) / self.measurement(name).denominator

    def _at_epoch(self, name: str, epoch: int | None) -> npt.NDArray[Any]:
        measurement = self.measurement(name)
        if epoch is not None and measurement.epochs and not 1 <= epoch <= measurement.epochs:
            raise FidelityError(f"{name} is recorded for epochs 1 to {measurement.epochs}, got {epoch}.")
        index = -1 if epoch is None or not measurement.epochs else epoch - 1
        return self.columns[name][:, :, index]


def _accumulator(values: npt.NDArray[Any]) -> type[np.generic]:
    return np.int64 if values.dtype.kind in "iu" else np.float64


def _recorded(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
    """Return which values are there, shape as `values`; None where all are."""
    if values.dtype.kind != "f":
        return None
    missing = np.isnan(values)
    return ~missing if missing.any() else None


def content_hash(columns: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, Any]) -> str:
    """Return the SHA-256 over names, types and values of the columns and over the metadata without its hash."""
    digest = hashlib.sha256()
    plain = {key: value for key, value in metadata.items() if key != "sha256"}
    digest.update(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode())
    for name, values in columns.items():
        if values.dtype == object:
            data, kind = json.dumps(values.tolist()).encode(), "string"
        else:
            data = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
            kind = values.dtype.name
        digest.update(f"\n{name}:{kind}:{len(values)}:{len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()


def write_table(
    path: Path,
    codes: npt.NDArray[np.int64],
    measurements: Mapping[str, Measurement],
    columns: Mapping[str, npt.NDArray[Any]],
    metadata: Mapping[str, Any],
    texts: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Write a table atomically and return its hash.

    Args:
        path: file to write; replaced only when the new one is complete.
        codes: ascending codes, shape [R].
        measurements: what is recorded.
        columns: stored values, shape [R, max(S, 1), max(E, 1)] each.
        metadata: JSON values; ``format``, ``measurements`` and ``sha256`` are added.
        texts: further columns of strings, for readers.

    Raises:
        InvalidArgument: a shape does not fit, the codes are not ascending, or an architecture has no value.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if len(codes) == 0 or np.any(np.diff(codes) <= 0):
        raise InvalidArgument("codes must be strictly ascending and at least one.")
    flat: dict[str, npt.NDArray[Any]] = {"code": np.asarray(codes, np.int64)}
    for name, measurement in measurements.items():
        values = columns[name]
        expected = (len(codes), max(measurement.seeds, 1), max(measurement.epochs, 1))
        if values.shape != expected:
            raise InvalidArgument(f"the values of {name} have shape {values.shape}, expected {expected}.")
        _check_recorded(name, values)
        rows = values.reshape(len(codes), -1)
        flat.update({column: rows[:, index] for index, column in enumerate(measurement.columns(name))})
    flat.update({name: np.array(list(values), dtype=object) for name, values in (texts or {}).items()})
    described = {name: measurement.to_json() for name, measurement in measurements.items()}
    document = {**metadata, "format": FORMAT, "measurements": described}
    document["sha256"] = content_hash(flat, document)
    arrow = pa.table({name: pa.array(values) for name, values in flat.items()})
    arrow = arrow.replace_schema_metadata({METADATA_KEY: json.dumps(document).encode()})
    temporary = path.with_name(path.name + ".tmp")
    try:
        pq.write_table(arrow, temporary, compression="zstd", compression_level=19)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return str(document["sha256"])


def _check_recorded(name: str, values: npt.NDArray[Any]) -> None:
    """Check that every architecture has a seed, and every seed all of its epochs or none, values [R, S, E].

    Raises:
        InvalidArgument: naming the first row where it is not so.
    """
    there = _recorded(values)
    if there is None:
        return
    whole, some = there.all(axis=2), there.any(axis=2)
    wrong = np.flatnonzero(~np.all(whole == some, axis=1) | ~np.any(whole, axis=1))
    if len(wrong):
        raise InvalidArgument(
            f"{name}: row {wrong[0]} has no value, or a seed with only some of the epochs; a seed is whole or absent, "
            "and every architecture needs one."
        )


def read_table(path: Path) -> Table:
    """Load and verify a table.

    Raises:
        TableError: naming the file and what is wrong with it; a wrong number is never returned.
    """
    path = Path(path)
    try:
        stamp = path.stat()
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror or error}.") from None
    if not stat.S_ISREG(stamp.st_mode):
        raise TableError(f"{path}: cannot be read: not a file.")
    return _read_table(path.resolve(), stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=8)
def _read_table(path: Path, _modified: int, _size: int) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        arrow = pq.read_table(path, use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TableError(f"{path}: not a complete Parquet file ({reason}). Restore or rebuild it.") from None
    raw = (arrow.schema.metadata or {}).get(METADATA_KEY)
    if raw is None:
        raise TableError(
            f"{path}: a Parquet file, but not a nas-gym table: its metadata has no key {METADATA_KEY.decode()!r}."
        )
    try:
        metadata = json.loads(raw)
        version = metadata["format"]
        if version != FORMAT:
            raise TableError(f"{path}: table format {version}, this version reads format {FORMAT}.")
        measurements = {name: Measurement(**fields) for name, fields in metadata["measurements"].items()}
        flat = {name: _to_numpy(arrow.column(name)) for name in arrow.column_names}
        if content_hash(flat, metadata) != metadata["sha256"]:
            raise TableError(
                f"{path}: the content does not match its SHA-256; the file was altered. Restore or rebuild it."
            )
        codes = flat["code"]
        columns = {name: _stack(flat, name, measurement, len(codes)) for name, measurement in measurements.items()}
    except (KeyError, TypeError, ValueError, AttributeError, pa.ArrowException) as error:
        raise TableError(f"{path}: the metadata or a column is malformed ({type(error).__name__}: {error}).") from None
    return Table(path, str(metadata["sha256"]), metadata, codes, measurements, columns)


def _to_numpy(column: pyarrow.ChunkedArray) -> npt.NDArray[Any]:
    if column.null_count:
        raise ValueError("a column has missing values")
    return column.to_numpy()


def _stack(flat: Mapping[str, npt.NDArray[Any]], name: str, measurement: Measurement, rows: int) -> npt.NDArray[Any]:
    stacked = np.stack([flat[column] for column in measurement.columns(name)], axis=1)
    stacked = stacked.reshape(rows, max(measurement.seeds, 1), max(measurement.epochs, 1))
    stacked.flags.writeable = False
    return stacked


class TableRegistry(Mapping[str, Path]):
    """Tables by name: the packaged ones, then those installed under ``$NAS_GYM_DATA/tables``."""

    def __init__(self, packaged: Path) -> None:
        """Remember where the packaged tables lie; nothing is read before a look-up."""
        self.packaged = packaged

    def _paths(self) -> dict[str, Path]:
        folders = [self.packaged]
        if root := os.environ.get("NAS_GYM_DATA"):
            folders.append(Path(root) / "tables")
        found: dict[str, Path] = {}
        for folder in folders:
            for path in sorted(folder.glob("*.parquet")) if folder.is_dir() else ():
                found.setdefault(path.stem, path)
        return found

    def __getitem__(self, name: str) -> Path:
        """Return the file of a table, by name or by a path that ends in ``.parquet``.

        Raises:
            UnknownName: no such table.
        """
        paths = self._paths()
        if name in paths:
            return paths[name]
        if str(name).endswith(".parquet"):
            return Path(name)
        raise UnknownName("table", name, paths)

    def __contains__(self, name: object) -> bool:
        """Tell whether a table of this name is installed."""
        return name in self._paths()

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._paths())

    def __len__(self) -> int:
        """Return the number of tables."""
        return len(self._paths())


TABLES = TableRegistry(Path(__file__).parent / "data")
"""Tables by name."""

PACKAGED_TABLES: Mapping[str, str] = MappingProxyType({"nas_bench_201": "digits", "metaqnn": "metaqnn-digits"})
"""Name of the packaged table of a search space."""
