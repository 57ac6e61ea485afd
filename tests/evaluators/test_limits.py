"""Limits: what a child may cost, and the words for a child that costs more."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

from nas_gym.errors import InvalidArgument
from nas_gym.evaluators.limits import Limits

NAMES = [field.name for field in dataclasses.fields(Limits)]
MEASURED = {"parameters": 2e6, "multiply_adds": 3e9, "training_memory_bytes": 5e6, "latency_seconds": 0.25}
EXCEEDED = {
    "max_parameters": (1e6, "parameters is 2,000,000, over the limit max_parameters = 1,000,000"),
    "max_multiply_adds": (1e9, "multiply_adds is 3,000,000,000, over the limit max_multiply_adds = 1,000,000,000"),
    "max_memory_mb": (4.5, "training_memory_bytes in MB is 5, over the limit max_memory_mb = 4.5"),
    "max_latency_ms": (200, "latency_seconds in ms is 250, over the limit max_latency_ms = 200"),
}
EXACT = {"max_parameters": 2e6, "max_multiply_adds": 3e9, "max_memory_mb": 5, "max_latency_ms": 250}


def test_nothing_is_bounded_by_default() -> None:
    """However much a child costs."""
    assert Limits().exceeded(dict.fromkeys(MEASURED, math.inf)) == ""


@pytest.mark.parametrize(("name", "limit", "message"), [(n, *row) for n, row in EXCEEDED.items()], ids=EXCEEDED)
def test_a_message_names_metric_value_and_limit(name: str, limit: float, message: str) -> None:
    """In the unit of the limit, large numbers to the unit."""
    assert Limits(**{name: limit}).exceeded(MEASURED) == message


@pytest.mark.parametrize(("name", "limit"), EXACT.items(), ids=EXACT)
def test_a_limit_is_allowed_itself(name: str, limit: float) -> None:
    """Only what is above it is too much."""
    assert Limits(**{name: limit}).exceeded(MEASURED) == ""


def test_all_limits_that_are_exceeded_are_named() -> None:
    """Separated by semicolons."""
    message = Limits(max_parameters=1, max_multiply_adds=1e12, max_latency_ms=1).exceeded(MEASURED)
    assert [part.split()[0] for part in message.split("; ")] == ["parameters", "latency_seconds"]


@pytest.mark.parametrize("measured", [{}, {"parameters": math.nan}], ids=["missing", "NaN"])
def test_what_is_not_known_is_not_too_much(measured: dict[str, float]) -> None:
    """A limit waits for its metric."""
    assert Limits(max_parameters=1).exceeded(measured) == ""


def test_the_training_time_is_no_matter_of_metrics() -> None:
    """It is a deadline instead."""
    assert Limits(max_train_seconds=1).exceeded({"train_seconds": 100}) == ""


@pytest.mark.parametrize(("limit", "seconds"), [(None, math.inf), (2.5, 2.5)], ids=["none", "some"])
def test_the_deadline_is_the_limit_of_the_training_time(limit: float | None, seconds: float) -> None:
    """It is infinite without one."""
    assert Limits(max_train_seconds=limit).deadline_seconds == seconds


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, True, "5"], ids=repr)
@pytest.mark.parametrize("name", NAMES)
def test_a_limit_must_be_positive(name: str, value: Any) -> None:
    """The message has the name and the value."""
    with pytest.raises(InvalidArgument, match=f"^{name} must be a positive number or None, got {value!r}"):
        Limits(**{name: value})


def test_limits_survive_json() -> None:
    """As stores and records keep them."""
    limits = Limits(**{name: number + 0.5 for number, name in enumerate(NAMES)})
    assert Limits(**json.loads(json.dumps(limits.to_json()))) == limits
