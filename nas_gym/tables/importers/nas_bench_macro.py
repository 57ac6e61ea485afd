"""NAS-Bench-Macro's JSON file: one object an architecture, keyed by eight digits.

The benchmark records test accuracies only, of three trainings of 50 epochs each. A search must not read what it is
judged by, so the table declares the first training to be the search signal and the published mean over all of them to
be what results are judged by.

Source: Su et al., "Prioritized Architecture Sampling with Monto-Carlo Tree Search", CVPR 2021, and the script of the
benchmark that writes the file.

Dimension letters: R rows, S trainings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nas_gym.errors import TableError, UnknownName
from nas_gym.search_spaces import make_space
from nas_gym.tables.format import Measurement
from nas_gym.tables.importers.core import (
    ImportedTable,
    Importer,
    Options,
    Source,
    constant,
    described_source,
    encode,
)
from nas_gym.tables.importers.nats_bench import as_counts

DATASET = "cifar10"
EPOCHS = 50
_TEST_IMAGES = 10_000
_FIELDS = ("test_acc", "mean_acc", "std", "params", "flops")
_BEGINNING = re.compile(rb'\s*\{\s*"[012]{8}"\s*:\s*\{')
_MEAN_TOLERANCE = 0.01


class NASBenchMacroImporter(Importer):
    """The official JSON file; see the top of this file."""

    name: ClassVar[str] = "nas_bench_macro"

    def recognises(self, source: Source) -> bool:
        """Tell whether it begins like an object whose first key is eight digits out of 0, 1, 2."""
        return source.path.is_file() and _BEGINNING.match(source.head) is not None

    def read(self, source: Source, options: Options) -> list[ImportedTable]:
        """Return the one table; see `Importer.read`."""
        options.refuse(self.name, "columns", "unit", "space")
        if options.dataset not in (None, DATASET):
            raise UnknownName("data set of NAS-Bench-Macro", options.dataset, [DATASET])
        content = _parse(source)
        names = list(content)
        space = make_space("nas_bench_macro")
        encodings = encode(space, names, lambda index: f"{source.path}, key {names[index]!r}")
        accuracies = _accuracies(source, content)
        counts, denominator = as_counts(accuracies, _TEST_IMAGES)
        trainings = accuracies.shape[1]
        measurements = {
            "valid_accuracy": Measurement(
                "maximize",
                "fraction",
                False,
                denominator,
                0,
                0,
                EPOCHS,
                f"test accuracy of the first of {trainings} trainings: the benchmark has no validation accuracies",
            ),
            "test_accuracy": Measurement(
                "maximize",
                "fraction",
                True,
                denominator,
                trainings,
                0,
                EPOCHS,
                f"test accuracy of all {trainings} trainings, whose mean the benchmark publishes",
            ),
            "parameters": Measurement("minimize", "count", description="params"),
            "multiply_adds": Measurement("minimize", "count", description="flops, which count multiply-adds"),
        }
        columns = {
            "valid_accuracy": counts[:, :1, None],
            "test_accuracy": counts[:, :, None],
            "parameters": constant(_integers(source, content, "params"), np.int64),
            "multiply_adds": constant(_integers(source, content, "flops"), np.int64),
        }
        metadata = {
            "signal": "valid_accuracy",
            "report": "test_accuracy",
            "source": described_source(source, self.name, source.sha256()),
            "benchmark": "NAS-Bench-Macro (Su et al., CVPR 2021)",
        }
        return [ImportedTable(DATASET, space, encodings, measurements, columns, metadata)]


def _parse(source: Source) -> dict[str, Any]:
    """Return the object of the file.

    Raises:
        TableError: it is no JSON, or a key comes twice.
    """
    try:
        content = json.loads(source.read(), object_pairs_hook=_without_repeats, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise TableError(
            f"{source.path}: not the JSON of the benchmark ({str(error)[:200]}). Fetch it again."
        ) from None
    if type(content) is not dict or not content or not all(type(value) is dict for value in content.values()):
        raise TableError(f"{source.path}: must be one JSON object with an object an architecture.")
    return content


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f"the key {twice[:80]!r} comes twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _accuracies(source: Source, content: Mapping[str, Mapping[str, Any]]) -> npt.NDArray[np.float64]:
    """Return the test accuracies in percent, [R, S].

    Raises:
        TableError: a list is missing, has another length, is no percentage, or does not have the mean beside it.
    """
    rows = []
    for name, fields in content.items():
        _check_fields(source, name, fields)
        values = [_number(source, name, "test_acc", value) for value in fields["test_acc"]]
        mean = _number(source, name, "mean_acc", fields["mean_acc"])
        if not values or len(values) != len(rows[0] if rows else values):
            raise TableError(
                f"{source.path}, key {name!r}: test_acc has {len(values)} values, others have another number."
            )
        if not all(0 <= value <= 100 for value in values) or abs(sum(values) / len(values) - mean) > _MEAN_TOLERANCE:
            raise TableError(
                f"{source.path}, key {name!r}: test_acc must be percentages whose mean is mean_acc, got {values} and "
                f"{mean}."
            )
        rows.append(values)
    return np.array(rows)


def _check_fields(source: Source, name: str, fields: Mapping[str, Any]) -> None:
    missing = [field for field in _FIELDS if field not in fields]
    if missing or type(fields["test_acc"]) is not list:
        raise TableError(
            f"{source.path}, key {name!r}: {', '.join(missing) or 'a list as test_acc'} is missing; an architecture "
            f"has {', '.join(_FIELDS)}."
        )


def _number(source: Source, name: str, field: str, value: object) -> float:
    if type(value) not in (int, float):
        raise TableError(f"{source.path}, key {name!r}: {field} must be a number, got {str(value)[:80]!r}.")
    return float(value)  # pyright: ignore[reportArgumentType] - checked above


def _integers(source: Source, content: Mapping[str, Mapping[str, Any]], field: str) -> list[int]:
    values = [_number(source, name, field, fields[field]) for name, fields in content.items()]
    for name, value in zip(content, values, strict=True):
        if value < 0 or value != int(value):
            raise TableError(f"{source.path}, key {name!r}: {field} must be an integer of at least 0, got {value}.")
    return [int(value) for value in values]
