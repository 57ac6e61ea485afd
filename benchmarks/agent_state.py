"""What an agent has learnt, as a file: JSON for its structure, arrays beside it, nothing pickled."""

from __future__ import annotations

import io
import json
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidArgument, ResumeError
from nas_gym.files import write_whole

from .records import WriteFailed

FILE = "agent.npz"
"""Its name in a run directory."""

_STRUCTURE = "structure"
_DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    NotImplementedError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy and the standard library raise for a damaged archive, depending on where the damage is."""


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a value of `Agent.state_dict` atomically: numbers, text, None, lists, tuples, mappings, arrays, tensors.

    Raises:
        WriteFailed: the file cannot be written.
        InvalidArgument: the state holds something else.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    structure = json.dumps(_outlined(state, arrays))
    buffer = io.BytesIO()
    named: Any = {_STRUCTURE: np.frombuffer(structure.encode(), np.uint8), **arrays}
    np.savez_compressed(buffer, **named)
    try:
        write_whole(path, buffer.getvalue())
    except OSError as error:
        raise WriteFailed(f"{path}: cannot be written: {error.strerror or error}.") from error


def read_state(path: Path) -> dict[str, Any]:
    """Return what `write_state` wrote; tensors come back as tensors.

    Raises:
        ResumeError: there is no such file, or it is damaged.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = dict(file)
        outline = json.loads(arrays.pop(_STRUCTURE).tobytes())
        return _filled(outline, arrays)
    except FileNotFoundError:
        raise ResumeError(f"{path}: there is no such file; the search was not finished or did not learn.") from None
    except _DAMAGED as error:
        raise ResumeError(f"{path}: damaged ({type(error).__name__}: {error}).") from error


def _outlined(value: Any, arrays: dict[str, npt.NDArray[Any]]) -> Any:  # noqa: ANN401 - any nested value
    """Return a value as JSON in which arrays are names, and put the arrays into `arrays`."""
    if isinstance(value, Mapping):
        # Keys may be numbers, which JSON would turn into text.
        return {"mapping": [[_outlined(key, arrays), _outlined(item, arrays)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_outlined(item, arrays) for item in value]}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    name = f"a{len(arrays)}"
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            raise InvalidArgument("the state of an agent may hold arrays of numbers, got one of objects.")
        arrays[name] = value
        return {"array": name}
    if not hasattr(value, "detach"):
        raise InvalidArgument(
            "the state of an agent may hold numbers, text, None, lists, tuples, mappings, arrays of numbers and "
            f"tensors, got {type(value).__name__}."
        )
    arrays[name] = value.detach().cpu().numpy()
    return {"tensor": name}


def _filled(outline: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:  # noqa: ANN401 - any nested value
    """Return the value of an outline."""
    if not isinstance(outline, dict):
        return outline
    ((kind, content),) = outline.items()
    if kind == "mapping":
        return {_filled(key, arrays): _filled(item, arrays) for key, item in content}
    if kind in ("list", "tuple"):
        return (tuple if kind == "tuple" else list)(_filled(item, arrays) for item in content)
    if kind == "tensor":
        import torch

        return torch.from_numpy(arrays[content].copy())
    return arrays[content]
