"""Anybody's CSV or Parquet file with a column of architectures.

Which column means what is taken from its name, or said by the caller; both are recorded in the table.

=============================== =====================================================================================
column                          meaning
=============================== =====================================================================================
``architecture``                published notation, one row an architecture
``D_valid_Nep``                 validation accuracy on the data set D after a training of N epochs
``D_test_Nep``                  test accuracy, likewise
``..._seedK``                   the same of one seed, one column each; empty where that training was never done
``train_seconds``               simulated seconds of the training behind the search signal; also ``D_train_seconds``
``latency_seconds``             likewise, of an inference; ``parameters``, ``multiply_adds``, ``flops`` (2 x
                                ``multiply_adds``); each also with ``D_`` before it
=============================== =====================================================================================

The search signal, ``valid_accuracy`` of the table, is the validation accuracy with the fewest epochs; what results are
judged by, its ``test_accuracy``, is the test accuracy with the most. All others are kept, held out, under names like
``test_accuracy_12ep``. The roles ``architecture``, ``signal``, ``report`` and the names of the last rows can be
given to other columns.

Dimension letters: R rows, S seeds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidArgument, TableError, UnknownName
from nas_gym.tables.format import Measurement
from nas_gym.tables.importers.core import (
    ImportedTable,
    Importer,
    Options,
    Source,
    described_source,
    encode,
    find_space,
)
from nas_gym.tables.importers.frames import PARQUET, Frame, looks_like_csv, read_frame

ARCHITECTURE, SIGNAL, REPORT = "architecture", "signal", "report"

_NUMBERS = {
    "train_seconds": ("minimize", "seconds"),
    "latency_seconds": ("minimize", "seconds"),
    "parameters": ("minimize", "count"),
    "multiply_adds": ("minimize", "count"),
    "flops": ("minimize", "count"),
}
"""Columns beside accuracies: direction and unit."""

ROLES = (ARCHITECTURE, SIGNAL, REPORT, *_NUMBERS)
"""What a caller can say a column is."""

_ACCURACY = re.compile(r"(?P<dataset>.+)_(?P<split>valid|test)_(?P<epochs>\d+)ep(?:_seed(?P<seed>\d+))?")


@dataclass(frozen=True)
class _Accuracy:
    """An accuracy of the table and the columns, one a seed, that it is read from.

    Attributes:
        split: "valid" or "test".
        epochs: length of the training, 0 = unknown.
        columns: names.
        seeds: numbers of the seeds, empty for one column that is no seed's.
        said: whether the caller named the column.
    """

    split: str
    epochs: int
    columns: tuple[str, ...]
    seeds: tuple[int, ...] = ()
    said: bool = False


@dataclass
class _Plan:
    """What becomes of the columns for one data set: accuracies by the name of their measurement, then numbers."""

    accuracies: dict[str, _Accuracy] = field(default_factory=dict)
    numbers: dict[str, str] = field(default_factory=dict)

    def used(self) -> Iterator[str]:
        """Iterate over the names of the columns."""
        for accuracy in self.accuracies.values():
            yield from accuracy.columns
        yield from self.numbers.values()


class ColumnsImporter(Importer):
    """CSV, gzipped or not, or Parquet; see the top of this file."""

    name: ClassVar[str] = "columns"

    def recognises(self, source: Source) -> bool:
        """Tell whether it is Parquet, or text whose first line has several cells."""
        return source.path.is_file() and (source.head.startswith(PARQUET) or looks_like_csv(source.head))

    def read(self, source: Source, options: Options) -> list[ImportedTable]:
        """Return one table a data set; see `Importer.read`."""
        for role, column in options.columns.items():
            if role not in ROLES:
                raise UnknownName("role of a column", role, ROLES)
            if list(options.columns.values()).count(column) > 1:
                raise InvalidArgument(f"the column {column!r} is given two roles; every column has one.")
        frame = read_frame(source)
        _check_columns(frame, options.columns.values())
        architecture = options.columns.get(ARCHITECTURE, ARCHITECTURE)
        _check_columns(frame, [architecture])
        texts = frame.texts(architecture)
        space = find_space(texts, options.space)
        encodings = encode(space, texts, frame.where)
        plans = _plans(frame, options)
        described = described_source(source, self.name, source.sha256())
        used = {architecture, *(column for plan in plans.values() for column in plan.used())}
        tables = []
        for dataset, plan in plans.items():
            measurements, columns = _values(frame, plan, options.unit)
            metadata = {
                "signal": "valid_accuracy",
                "report": "test_accuracy" if "test_accuracy" in measurements else "valid_accuracy",
                "source": described,
                "columns_ignored": [name for name in frame.cells if name not in used],
                "seeds": {name: list(one.seeds) for name, one in plan.accuracies.items() if one.seeds},
            }
            tables.append(ImportedTable(dataset, space, encodings, measurements, columns, metadata))
        return tables


def _check_columns(frame: Frame, names: Any) -> None:  # noqa: ANN401 - any iterable of names
    for name in names:
        if name not in frame.cells:
            raise InvalidArgument(
                f"{frame.path} has no column {name!r}; it has: {', '.join(frame.cells)}. Say which is meant with "
                f"--column ROLE=NAME, where the roles are {', '.join(ROLES)}."
            )


# --- which column means what ---------------------------------------------------------------------------


def _plans(frame: Frame, options: Options) -> dict[str, _Plan]:
    """Return what is read for every data set.

    Raises:
        InvalidArgument: the columns name no data set, or lack the one that is asked for.
    """
    found = _named_accuracies([name for name in frame.cells if name not in options.columns.values()])
    said = SIGNAL in options.columns or REPORT in options.columns
    if said and options.dataset is None:
        raise InvalidArgument("columns for the signal or the report need the name of their data set: --dataset NAME.")
    wanted = list(found) if options.dataset is None else [options.dataset.lower()]
    if not wanted or not (said or wanted[0] in found):
        raise InvalidArgument(
            f"{frame.path}: no column is called like D_valid_12ep or D_test_200ep"
            + (f" for the data set D = {wanted[0]!r}" if wanted else "")
            + f". Its columns are {', '.join(frame.cells)}. Name them: --dataset NAME --column signal=NAME "
            "--column report=NAME."
        )
    return {dataset: _plan(dataset, found.get(dataset, []), frame, options.columns) for dataset in wanted}


def _named_accuracies(names: list[str]) -> dict[str, list[_Accuracy]]:
    """Return the accuracies that columns are named after, by data set in lower case."""
    grouped: dict[tuple[str, str, int], dict[int | None, str]] = {}
    for name in names:
        if match := _ACCURACY.fullmatch(name):
            key = (match["dataset"].lower(), match["split"], int(match["epochs"]))
            seed = None if match["seed"] is None else int(match["seed"])
            if seed in grouped.setdefault(key, {}):
                raise InvalidArgument(f"the columns {grouped[key][seed]!r} and {name!r} mean the same.")
            grouped[key][seed] = name
    found: dict[str, list[_Accuracy]] = {}
    for (dataset, split, epochs), columns in grouped.items():
        if None in columns and len(columns) > 1:
            raise InvalidArgument(f"{columns[None]!r} is there both for single seeds and without; keep one of them.")
        seeds = tuple(sorted(seed for seed in columns if seed is not None))
        ordered = tuple(columns[seed] for seed in seeds) or tuple(columns.values())
        found.setdefault(dataset, []).append(_Accuracy(split, epochs, ordered, seeds))
    return found


def _plan(dataset: str, found: list[_Accuracy], frame: Frame, columns: Mapping[str, str]) -> _Plan:
    """Return what is read for one data set."""
    left = list(found)
    plan = _Plan()
    for measurement, role, split, best in (
        ("valid_accuracy", SIGNAL, "valid", min),
        ("test_accuracy", REPORT, "test", max),
    ):
        candidates = [one for one in left if one.split == split]
        if role in columns:
            match = _ACCURACY.fullmatch(columns[role])
            epochs = int(match["epochs"]) if match else 0
            plan.accuracies[measurement] = _Accuracy(split, epochs, (columns[role],), said=True)
        elif candidates:
            plan.accuracies[measurement] = best(candidates, key=lambda one: one.epochs)
            left.remove(plan.accuracies[measurement])
        elif role == SIGNAL:
            raise InvalidArgument(
                f"{frame.path}: {dataset} has no validation accuracy that a search could read. Where one of its test "
                "accuracies shall serve, say so: --column signal=NAME."
            )
    for one in left:
        plan.accuracies[f"{one.split}_accuracy_{one.epochs}ep"] = one
    for name in _NUMBERS:
        own = next((column for column in frame.cells if column.lower() == f"{dataset}_{name}"), None)
        column = columns.get(name, own or (name if name in frame.cells else None))
        if column is not None:
            plan.numbers[name] = column
    return plan


# --- values ----------------------------------------------------------------------------------------------


def _values(frame: Frame, plan: _Plan, unit: str | None) -> tuple[dict[str, Measurement], dict[str, npt.NDArray[Any]]]:
    """Return measurements and stored values of one data set.

    Raises:
        TableError: a cell is not what it must be, or accuracies are neither percent nor fractions.
    """
    measurements: dict[str, Measurement] = {}
    columns: dict[str, npt.NDArray[Any]] = {}
    values = {
        name: np.stack([frame.numbers(column, gaps=bool(one.seeds)) for column in one.columns], axis=1)
        for name, one in plan.accuracies.items()
    }
    percent = _are_percent(frame, plan, values, unit)
    for name, one in plan.accuracies.items():
        _check_seeds(frame, one, values[name])
        described = _describe(one, percent, unit, float(np.nanmax(values[name])))
        held_out = name != "valid_accuracy"
        measurements[name] = Measurement(
            "maximize", "fraction", held_out, 100 if percent else 1, len(one.seeds), 0, one.epochs, described
        )
        columns[name] = values[name][:, :, None]
    for name, column in plan.numbers.items():
        direction, kind = _NUMBERS[name]
        read = frame.counts(column) if kind == "count" else frame.numbers(column)
        if (read < 0).any():
            raise TableError(f"{frame.where(int(np.argmax(read < 0)))}: {column} must not be negative.")
        measurements[name] = Measurement(direction, kind, description=f"column {column}")
        columns[name] = read[:, None, None]
    return measurements, columns


def _check_seeds(frame: Frame, one: _Accuracy, values: npt.NDArray[np.float64]) -> None:
    empty = np.flatnonzero(np.isnan(values).all(axis=1))
    if len(empty):
        raise TableError(f"{frame.where(int(empty[0]))}: {' and '.join(one.columns)} are empty; one seed is needed.")


def _are_percent(frame: Frame, plan: _Plan, values: Mapping[str, npt.NDArray[np.float64]], unit: str | None) -> bool:
    """Tell whether accuracies are in percent, as given or by their range.

    Raises:
        TableError: they do not fit the unit, or some look like percent and some like fractions.
    """
    highest = {name: float(np.nanmax(array, initial=0.0)) for name, array in values.items()}
    percent = unit == "percent" if unit else max(highest.values()) > 1
    limit = 100.0 if percent else 1.0
    for name, array in values.items():
        outside = np.flatnonzero(((array < 0) | (array > limit)).any(axis=1))
        if len(outside):
            row = int(outside[0])
            raise TableError(
                f"{frame.where(row)}: {', '.join(plan.accuracies[name].columns)} is {array[row].tolist()}, but "
                f"accuracies in {'percent' if percent else 'fractions'} lie between 0 and {limit:g}."
            )
    if unit is None and percent and (small := [name for name, value in highest.items() if value <= 1]):
        columns = ", ".join(plan.accuracies[small[0]].columns)
        raise TableError(
            f"{frame.path}: no value of {columns} is above 1, but other accuracies are; say with --unit percent or "
            "--unit fraction what they are in."
        )
    return percent


def _describe(one: _Accuracy, percent: bool, unit: str | None, highest: float) -> str:
    how = "as given" if unit else f"recognised, its highest value is {highest:g}"
    chosen = "chosen by the caller" if one.said else "by its name"
    kind = "percent" if percent else "fractions"
    return f"{'columns' if len(one.columns) > 1 else 'column'} {', '.join(one.columns)} ({chosen}), in {kind} ({how})"
