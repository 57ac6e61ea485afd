"""Rules and their violations: what the checks of all three contracts share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import VectorEnv

from nas_gym.errors import NASGymError

Probe = TypeVar("Probe")


class ContractViolation(NASGymError):
    """An object breaks a rule of its contract.

    Attributes:
        rule: the sentence that is broken.
        expected: what the rule demands at the witness.
        received: what the object gave.
        witness: what reproduces it: encoding, prefix, actions, seed, ...
    """

    def __init__(self, rule: str, expected: str, received: object, witness: Mapping[str, object]) -> None:
        """Build the message."""
        self.rule, self.expected, self.received, self.witness = rule, expected, received, dict(witness)
        shown = ", ".join(f"{name}={value!r}" for name, value in witness.items()) or "none needed"
        super().__init__(f"{rule} Expected {expected}, received {received!r}. Witness: {shown}.")


class Broken(Exception):
    """A rule does not hold; `check_rules` adds the sentence."""

    def __init__(self, expected: str, received: object, witness: Mapping[str, object]) -> None:
        """Keep the parts of the message."""
        super().__init__(expected)
        self.expected, self.received, self.witness = expected, received, witness


def demand(holds: bool | np.bool_, expected: str, received: object, **witness: object) -> None:
    """Break the rule unless `holds`."""
    if not holds:
        raise Broken(expected, received, witness)


def demand_equal(actual: object, wanted: object, expected: str, **witness: object) -> None:
    """Break the rule where `actual` and `wanted` differ, saying where."""
    different = difference(actual, wanted)
    if different is not None:
        raise Broken(expected, Description(different), witness)


def demand_raises(error: type[Exception], call: Callable[[], object], **witness: object) -> None:
    """Break the rule unless `call` raises `error`."""
    try:
        received: object = call()
    except error:
        return
    except Exception as other:
        received = other
    raise Broken(f"{error.__name__} to be raised", received, witness)


class Description(str):
    """A description, shown without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _sentence(rule: Callable[..., object]) -> str:
    return (rule.__doc__ or rule.__name__).strip()


def check_rules(rules: Sequence[Callable[[Probe], None]], probe: Probe) -> None:
    """Check one rule after the other; what a rule did not expect to be raised breaks it too."""
    for rule in rules:
        try:
            rule(probe)
        except Broken as broken:
            raise ContractViolation(_sentence(rule), broken.expected, broken.received, broken.witness) from None
        except Exception as error:
            witness = {"traceback": Description("above")}
            raise ContractViolation(_sentence(rule), "no exception", error, witness) from error


def difference(left: object, right: object, path: str = "value") -> str | None:
    """Return where two nested values differ in type, layout, dtype, shape or content, or None.

    NaN equals NaN; floats are compared exactly.
    """
    if type(left) is not type(right):
        return f"{path}: {left!r} is a {type(left).__name__}, {right!r} a {type(right).__name__}"
    if isinstance(left, dict) and isinstance(right, dict):
        if left.keys() != right.keys():
            return f"{path}: keys {sorted(left, key=str)} and {sorted(right, key=str)}"
        return _first(difference(left[key], right[key], f"{path}[{key!r}]") for key in left)
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return _array_difference(left, right, path)
    if isinstance(left, (tuple, list)) and isinstance(right, (tuple, list)):
        if len(left) != len(right):
            return f"{path}: {len(left)} and {len(right)} elements"
        pairs = enumerate(zip(left, right, strict=True))
        return _first(difference(one, other, f"{path}[{index}]") for index, (one, other) in pairs)
    both_nan = isinstance(left, float) and isinstance(right, float) and math.isnan(left) and math.isnan(right)
    return None if both_nan or left == right else f"{path}: {left!r} and {right!r}"


def _first(found: Iterator[str | None]) -> str | None:
    return next((text for text in found if text is not None), None)


def _array_difference(left: npt.NDArray[Any], right: npt.NDArray[Any], path: str) -> str | None:
    if (left.dtype, left.shape) != (right.dtype, right.shape):
        return f"{path}: {left.dtype}{list(left.shape)} and {right.dtype}{list(right.shape)}"
    if left.dtype == object:
        return difference(left.tolist(), right.tolist(), path)
    equal = np.array_equal(left, right, equal_nan=left.dtype.kind == "f")
    return None if equal else f"{path}: {left.tolist()} and {right.tolist()}"


def arrays_in(value: object) -> Iterator[npt.NDArray[Any]]:
    """Iterate over the arrays inside nested tuples, lists and dictionaries."""
    if isinstance(value, np.ndarray):
        yield value
        if value.dtype == object:
            yield from arrays_in(value.tolist())
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from arrays_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from arrays_in(item)


def parts(env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> Any:  # noqa: ANN401 - `NASEnv` or alike
    """Return the environment below all wrappers, which offers the attributes of `NASEnv` or `NASVectorEnv`."""
    return env.unwrapped


def new_seed(rng: np.random.Generator) -> int:
    """Draw a seed below 2**31."""
    return int(rng.integers(1 << 31))
