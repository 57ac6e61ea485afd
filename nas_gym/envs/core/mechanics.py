"""What the environments share below their classes: an episode as a value, infos in columns.

Dimension letters: N sub-environments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_gym.search_spaces.core import Encoding


@dataclass(frozen=True)
class EpisodeState:
    """An episode as one immutable value, without random generator or evaluator state.

    Attributes:
        prefix: decisions taken so far.
        over: whether the episode has ended.
        fidelity: fidelity of its query, None = the evaluator's default.
    """

    prefix: Encoding
    over: bool
    fidelity: int | None


def scatter(values: npt.NDArray[Any], rows: npt.NDArray[np.int64], count: int) -> npt.NDArray[Any]:
    """Spread `values` over `count` rows: 0 elsewhere, None in object columns."""
    if len(rows) == count:
        return values
    empty = None if values.dtype == object else 0
    result = np.full((count, *values.shape[1:]), empty, dtype=values.dtype)
    result[rows] = values
    return result


def info_columns(columns: dict[str, Any], rows: npt.NDArray[np.int64], count: int) -> dict[str, Any]:
    """Lay out the info of some sub-environments as Gymnasium's `SyncVectorEnv` does.

    Every key gets an array over all `count` sub-environments and, under ``_key``, which of them have it; nested
    dictionaries are laid out inside. A dictionary keyed by integers holds values of single rows.
    """
    result: dict[str, Any] = {}
    present_everywhere = np.zeros(count, np.bool_)
    present_everywhere[slice(None) if len(rows) == count else rows] = True
    for name, values in columns.items():
        present = present_everywhere.copy()
        if isinstance(values, dict) and values and all(isinstance(key, int) for key in values):
            present = np.zeros(count, np.bool_)
            present[rows[list(values)]] = True
            laid_out: Any = np.full(count, None, dtype=object)
            laid_out[rows[list(values)]] = list(values.values())
        elif isinstance(values, dict):
            laid_out = info_columns(values, rows, count)
        else:
            laid_out = scatter(values, rows, count)
        result[name], result[f"_{name}"] = laid_out, present
    return result
