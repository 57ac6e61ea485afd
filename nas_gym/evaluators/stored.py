"""What an evaluation store holds, as values: the name of a training and its answer, and their forms in a row.

Metrics are JSON as everybody reads it: NaN is ``null``, infinities are the strings ``Infinity`` and ``-Infinity``.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, SupportsIndex

from nas_gym.errors import InvalidArgument
from nas_gym.evaluators.core import Status
from nas_gym.search_spaces.core import Encoding

SCRATCH = "scratch"
"""The parent of a training that inherits no weights."""

KEY_FIELDS = ("space", "encoding", "evaluator", "version", "dataset", "recipe", "seed", "fidelity", "parent")
"""Fields of a key, in the order of a row."""


@dataclass(frozen=True)
class EvaluationKey:
    """Everything that an evaluation depends on.

    Attributes:
        space: name of the search space.
        encoding: the canonical encoding.
        evaluator: name of the evaluator.
        version: its version; raised when it begins to answer otherwise.
        dataset: fingerprint of the data.
        recipe: hash of the training recipe.
        seed: 63 bits.
        fidelity: epochs.
        parent: content hash of the inherited weights, or `SCRATCH`.

    Raises:
        InvalidArgument: a number is no integer of 64 bits, or a text is not valid Unicode.
    """

    space: str
    encoding: Encoding
    evaluator: str
    version: int
    dataset: str
    recipe: str
    seed: int
    fidelity: int
    parent: str = SCRATCH

    def __post_init__(self) -> None:
        """Make plain integers of all numbers, so that equal keys have equal digests."""
        object.__setattr__(self, "encoding", tuple(_integer("encoding", choice) for choice in self.encoding))
        for name in ("version", "seed", "fidelity"):
            object.__setattr__(self, name, _integer(name, getattr(self, name)))
        for name in ("space", "evaluator", "dataset", "recipe", "parent"):
            _check_text(name, getattr(self, name))

    @cached_property
    def digest(self) -> str:
        """32 hexadecimal digits that identify the key."""
        fields = {name: getattr(self, name) for name in KEY_FIELDS}
        return hashlib.blake2b(json.dumps(fields, separators=(",", ":")).encode(), digest_size=16).hexdigest()

    def at(self, fidelity: int) -> EvaluationKey:
        """Return the key of the same training at another fidelity."""
        return replace(self, fidelity=fidelity)


@dataclass(frozen=True)
class StoredEvaluation:
    """What became of an evaluation.

    Attributes:
        status: how it ended.
        metrics: search-time metrics.
        held_out: metrics on test data, for reports; never given to agents.
        curve: values after every epoch, by metric.
        cost_seconds: what it cost.
        message: why it failed, else empty.
        traceback: where it failed, else empty.
        artifact: content hash of the weights left behind, or None.
        host: the machine.
        versions: of the packages involved.
        created: when, in ISO format and UTC; the store fills it in where empty.
    """

    status: Status
    metrics: Mapping[str, float]
    held_out: Mapping[str, float]
    curve: Mapping[str, tuple[float, ...]]
    cost_seconds: float
    message: str = ""
    traceback: str = ""
    artifact: str | None = None
    host: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""

    def agrees(self, other: StoredEvaluation) -> bool:
        """Tell whether both say the same about the architecture, whatever it cost and wherever it ran."""
        return _measured(self) == _measured(other)


_STATUSES = {status.label: status for status in Status}
_FINITE = json.JSONEncoder(allow_nan=False, separators=(",", ":"), check_circular=False)


def key_row(key: EvaluationKey) -> tuple[Any, ...]:
    """Return digest and `KEY_FIELDS` as a row has them."""
    return (
        key.digest,
        key.space,
        _FINITE.encode(key.encoding),
        key.evaluator,
        key.version,
        key.dataset,
        key.recipe,
        key.seed,
        key.fidelity,
        key.parent,
    )


def value_row(value: StoredEvaluation) -> tuple[Any, ...]:
    """Return an answer as a row has it, dated now unless it has a date."""
    return (
        value.status.label,
        strict_json(value.metrics),
        strict_json(value.held_out),
        strict_json(value.curve),
        float(value.cost_seconds),
        _text(value.message),
        _text(value.traceback),
        value.artifact,
        _text(value.host),
        _FINITE.encode(dict(value.versions)),
        value.created or now(),
    )


def strict_json(numbers: Mapping[str, float] | Mapping[str, tuple[float, ...]]) -> str:
    """Return numbers, or tuples of them, by name as JSON without NaN and Infinity; see the top of this module."""
    try:
        return _FINITE.encode(dict(numbers))
    except (ValueError, TypeError):  # not finite, or of a library's own type
        return _FINITE.encode({name: _plain(value) for name, value in numbers.items()})


def _plain(value: Any) -> Any:  # noqa: ANN401 - a number or a nested sequence of them
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    number = float(value)
    if math.isfinite(number):
        return number
    return None if math.isnan(number) else ("Infinity" if number > 0 else "-Infinity")


def _number(value: float | str | None) -> float:
    return math.nan if value is None else float(value)


def _measured(value: StoredEvaluation) -> tuple[object, ...]:
    """Return what was measured in a form in which NaN equals NaN."""
    numbers = (value.metrics, value.held_out, value.curve)
    return value.status, *(json.dumps({name: _plain(part[name]) for name in sorted(part)}) for part in numbers)


def _text(text: str) -> str:
    """Return text that can be stored: half a surrogate pair, as in odd file names, is spelt out."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _integer(name: str, value: SupportsIndex) -> int:
    try:
        number = int(operator.index(value))
    except TypeError:
        number = None
    if number is None or not -(2**63) <= number < 2**63:
        raise InvalidArgument(f"{name} of an evaluation key takes integers of 64 bits, got {value!r}.")
    return number


def _check_text(name: str, value: object) -> None:
    try:
        str.encode(value)  # type: ignore[arg-type]
    except (TypeError, UnicodeEncodeError) as error:
        raise InvalidArgument(f"{name} of an evaluation key takes valid text, got {value!r}.") from error


def now() -> str:
    """Return the time in UTC, as ISO text."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def key_of_row(row: tuple[Any, ...]) -> EvaluationKey:
    """Return the key of a row of digest and `KEY_FIELDS`.

    Raises:
        ValueError, TypeError: the row is damaged.
    """
    _, space, encoding, *fields = row
    return EvaluationKey(space, tuple(json.loads(encoding)), *fields)


def value_of_row(row: tuple[Any, ...]) -> StoredEvaluation:
    """Return the answer of a row of `value_row`.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: the row is damaged.
    """
    status, metrics, held_out, curve, cost, message, traceback, artifact, host, versions, created = row
    return StoredEvaluation(
        _STATUSES[status],
        {name: _number(value) for name, value in json.loads(metrics).items()},
        {name: _number(value) for name, value in json.loads(held_out).items()},
        {name: tuple(map(_number, values)) for name, values in json.loads(curve).items()},
        math.nan if cost is None else float(cost),
        message,
        traceback,
        artifact,
        host,
        json.loads(versions),
        created,
    )
