"""What the wrappers share: who is masked, which episodes ended, and infos in the layout of `SyncVectorEnv`.

Dimension letters: N sub-environments, C actions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from nas_gym.errors import InvalidArgument

Info = dict[str, Any]
Rows = npt.NDArray[np.int64]
"""Numbers of sub-environments, ascending."""

Seeds = int | Sequence[int | None] | None
"""What the reset of a vector environment takes."""


# --- arguments -----------------------------------------------------------------------------------------


def finite_number(name: str, value: object) -> float:
    """Return an argument as a float.

    Raises:
        InvalidArgument: it is no finite number.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not math.isfinite(value):
        raise InvalidArgument(f"{name} must be a finite number, got {value!r}.")
    return float(value)


def flag(name: str, value: object) -> bool:
    """Return an argument as a bool.

    Raises:
        InvalidArgument: it is something else.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise InvalidArgument(f"{name} must be true or false, got {value!r}.")
    return bool(value)


def label(name: str, value: object) -> str:
    """Return an argument that is a key of a dictionary.

    Raises:
        InvalidArgument: it is no string, or empty.
    """
    if not isinstance(value, str) or not value:
        raise InvalidArgument(f"{name} must be a string that is not empty, got {value!r}.")
    return value


def count_of_actions(space: gymnasium.Space[Any]) -> int:
    """Return C.

    Raises:
        InvalidArgument: the actions are not the integers from 0 to C - 1, as those of an action mask are.
    """
    if not isinstance(space, spaces.Discrete) or space.start != 0:
        raise InvalidArgument(f"the action space must be Discrete and start at 0, as action masks do, got {space}.")
    return int(space.n)


def autoreset_mode(env: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """Return when a vector environment begins new episodes.

    Raises:
        InvalidArgument: its metadata do not tell.
    """
    mode = env.metadata.get("autoreset_mode")
    if not isinstance(mode, AutoresetMode):
        raise InvalidArgument(f"metadata['autoreset_mode'] must be an AutoresetMode, got {mode!r} from {env}.")
    return mode


def attribute_below(env: VectorEnv[Any, Any, Any], name: str) -> Any:  # noqa: ANN401 - any attribute
    """Return an attribute of a vector environment or of what it wraps, None where there is none."""
    current: Any = env
    while not hasattr(current, name):
        if not hasattr(current, "env"):
            return None
        current = current.env
    return getattr(current, name)


# --- masks ---------------------------------------------------------------------------------------------

_NO_MASK = "the environment offers neither action_masks() nor info['action_mask']; one of them is needed."


class Masks:
    """The legal actions of a single environment: its `action_masks()`, else the last ``info["action_mask"]``."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        """Find out what the environment offers.

        Raises:
            InvalidArgument: its actions are not the integers from 0.
        """
        self.choices = count_of_actions(env.action_space)
        self._method = env.get_wrapper_attr("action_masks") if env.has_wrapper_attr("action_masks") else None
        self._last = np.ones(self.choices, np.bool_)

    def see(self, info: Info) -> None:
        """Take note of an info.

        Raises:
            InvalidArgument: neither it nor the environment has a mask.
        """
        if self._method is None:
            if "action_mask" not in info:
                raise InvalidArgument(_NO_MASK)
            self._last = np.array(info["action_mask"], np.bool_)

    def current(self) -> npt.NDArray[np.bool_]:
        """Return which actions are legal now, a fresh array of shape [C]."""
        return self._last.copy() if self._method is None else np.array(self._method(), np.bool_)

    def refuses(self, action: Any) -> bool:  # noqa: ANN401 - whatever the caller passes
        """Tell whether an action is masked; one outside the action space is not: that is for the environment."""
        try:
            choice = index(action)
        except TypeError:
            return False
        return 0 <= choice < self.choices and not self.current()[choice]


class VectorMasks:
    """The legal actions of a vector environment, from its `action_masks()` or from its infos."""

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        """Find out what the environment offers.

        Raises:
            InvalidArgument: its actions are not the integers from 0.
        """
        self.choices = count_of_actions(env.single_action_space)
        self._method = attribute_below(env, "action_masks")
        self._last = np.ones((env.num_envs, self.choices), np.bool_)

    def see(self, info: Info) -> None:
        """Take note of an info.

        Raises:
            InvalidArgument: neither it nor the environment has masks.
        """
        if self._method is None:
            if "action_mask" not in info:
                raise InvalidArgument(_NO_MASK)
            told = info.get("_action_mask", np.ones(len(self._last), np.bool_))
            self._last[told] = np.asarray(info["action_mask"])[told].astype(np.bool_)

    def current(self) -> npt.NDArray[np.bool_]:
        """Return which actions are legal now, a fresh array of shape [N, C]."""
        return self._last.copy() if self._method is None else np.array(self._method(), np.bool_)

    def refused(self, actions: npt.ArrayLike) -> Rows:
        """Return the rows whose action is masked; malformed actions are none: they are for the environment."""
        choices = np.asarray(actions)
        if choices.shape != (len(self._last),) or choices.dtype.kind not in "iu":
            return np.zeros(0, np.int64)
        inside = (choices >= 0) & (choices < self.choices)
        if not inside.all():
            return np.zeros(0, np.int64)
        return np.flatnonzero(~self.current()[np.arange(len(choices)), choices])


# --- episodes of a vector environment ------------------------------------------------------------------


def seeded_rows(seed: Seeds, count: int) -> list[int | None]:
    """Return the seed of every row, as `SyncVectorEnv` spreads them."""
    if seed is None:
        return [None] * count
    return [seed + row for row in range(count)] if isinstance(seed, int) else list(seed)


def reset_rows(options: dict[str, Any] | None, count: int) -> npt.NDArray[np.bool_]:
    """Return which rows a reset with these options begins, bool [N]."""
    mask = (options or {}).get("reset_mask")
    return np.ones(count, np.bool_) if mask is None else np.array(mask, np.bool_)


@dataclass(frozen=True)
class Step:
    """What a step meant for the episodes.

    Attributes:
        active: whose action was carried out, bool [N]; the others were begun anew or rest.
        rows: rows whose episode ended, E of them.
        returns: their returns, float64 [E].
        lengths: their lengths, int64 [E].
    """

    active: npt.NDArray[np.bool_]
    rows: Rows
    returns: npt.NDArray[np.float64]
    lengths: npt.NDArray[np.int64]


class VectorEpisodes:
    """Follows the episodes of a vector environment in any auto-reset mode: who is in one, its return and length.

    Attributes:
        same_step: whether the step that ends an episode begins the next one.
        over: rows whose episode has ended, or was never begun, bool [N].
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        """Start without any episode.

        Raises:
            InvalidArgument: the environment does not tell its auto-reset mode.
        """
        self.same_step = autoreset_mode(env) is AutoresetMode.SAME_STEP
        self.over = np.ones(env.num_envs, np.bool_)
        self._returns = np.zeros(env.num_envs)
        self._lengths = np.zeros(env.num_envs, np.int64)

    def begin(self, rows: npt.NDArray[np.bool_]) -> None:
        """Note that a reset began `rows`, bool [N]."""
        self.over[rows] = False
        self._returns[rows] = 0.0
        self._lengths[rows] = 0

    def step(
        self,
        rewards: npt.NDArray[np.float64],
        terminated: npt.NDArray[np.bool_],
        truncated: npt.NDArray[np.bool_],
    ) -> Step:
        """Take note of a step, all arguments of shape [N]."""
        active = ~self.over
        self._returns[active] += rewards[active]
        self._lengths[active] += 1
        done = terminated | truncated
        rows = np.flatnonzero(done & active)
        found = Step(active, rows, self._returns[rows], self._lengths[rows])
        self.over = np.zeros(len(done), np.bool_) if self.same_step else done
        self._returns[done] = 0.0
        self._lengths[done] = 0
        return found


# --- infos ---------------------------------------------------------------------------------------------


def add_columns(info: Info, columns: Mapping[str, Any], rows: Rows, count: int) -> None:
    """Write values of some rows into an info, as `SyncVectorEnv` would have laid them out.

    Args:
        info: changed in place.
        columns: arrays over `rows` by name; dictionaries of them are laid out inside.
        rows: the rows that have the values.
        count: N.
    """
    for name, values in columns.items():
        present = info.setdefault(f"_{name}", np.zeros(count, np.bool_))
        present[rows] = True
        if isinstance(values, Mapping):
            add_columns(info.setdefault(name, {}), values, rows, count)
            continue
        if name not in info:
            info[name] = np.full((count, *values.shape[1:]), None if values.dtype == object else 0, values.dtype)
        info[name][rows] = values


def add_outcomes(info: Info, columns: Mapping[str, Any], rows: Rows, ended: Rows, episodes: VectorEpisodes) -> None:
    """Write values of some rows into the info of a step, those of episodes that ended where their last info is.

    Args:
        info: of the step, changed in place.
        columns: arrays over `rows` by name, or dictionaries of them.
        rows: the rows that have the values.
        ended: rows whose episode ended in this step.
        episodes: of the environment.
    """
    count = len(episodes.over)
    last = np.isin(rows, ended) if episodes.same_step else np.zeros(len(rows), np.bool_)
    if last.any():
        info.setdefault("_final_info", np.zeros(count, np.bool_))[rows[last]] = True
        add_columns(info.setdefault("final_info", {}), _chosen(columns, last), rows[last], count)
    if not last.all():
        add_columns(info, _chosen(columns, ~last), rows[~last], count)


def _chosen(columns: Mapping[str, Any], which: npt.NDArray[np.bool_]) -> dict[str, Any]:
    return {
        name: _chosen(values, which) if isinstance(values, Mapping) else values[which]
        for name, values in columns.items()
    }


def last_infos(info: Info, rows: Rows, episodes: VectorEpisodes) -> list[Info]:
    """Return the last info of every row in `rows`, whose episodes ended in this step, as a single form has it."""
    source = info.get("final_info", {}) if episodes.same_step else info
    return [info_of_row(source, row) for row in rows.tolist()]


def info_of_row(info: Mapping[str, Any], row: int) -> Info:
    """Return what the info of a vector environment says about one row."""
    found: Info = {}
    for name, values in info.items():
        present = info.get(f"_{name}")
        if present is None or not present[row]:
            continue
        found[name] = info_of_row(values, row) if isinstance(values, Mapping) else values[row]
    return found


def objects(values: Sequence[Any]) -> npt.NDArray[np.object_]:
    """Return any values as an object array of shape [len(values)]."""
    result = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):
        result[position] = value
    return result
