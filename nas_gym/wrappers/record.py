"""What is written down about finished episodes: in the info, or line by line in a file.

Dimension letters: N sub-environments, E episodes that ended in a step.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper

from nas_gym.errors import BudgetExhausted, InvalidArgument, InvalidEncoding, NASGymError, RunExists
from nas_gym.evaluators.core import Status
from nas_gym.search_spaces.core import SearchSpace
from nas_gym.wrappers.core import (
    Info,
    Seeds,
    VectorEpisodes,
    add_outcomes,
    flag,
    label,
    last_infos,
    objects,
    reset_rows,
)


class RecordFailed(NASGymError, OSError):
    """A line could not be written (full disk, lost directory); the lines before are intact."""


def _notation(space: Any, info: Info) -> str:  # noqa: ANN401 - None in environments of other projects
    """Return the published notation of the architecture that an episode ended with, empty where it is incomplete."""
    encoding = info.get("encoding")
    if encoding is None or not isinstance(space, SearchSpace):
        return ""
    try:
        return space.to_string(encoding)
    except InvalidEncoding:
        return ""


# --- in the info ---------------------------------------------------------------------------------------


class _Queues:
    """Returns, lengths and durations of the last episodes."""

    def __init__(self, buffer_length: int) -> None:
        if isinstance(buffer_length, bool) or not isinstance(buffer_length, int) or buffer_length < 1:
            raise InvalidArgument(f"buffer_length must be a positive integer, got {buffer_length!r}.")
        self.returns: deque[float] = deque(maxlen=buffer_length)
        self.lengths: deque[int] = deque(maxlen=buffer_length)
        self.times: deque[float] = deque(maxlen=buffer_length)


class EpisodeRecorder(RecordConstructorArgs, gymnasium.Wrapper):
    """Adds ``info["episode"]`` to the last step of an episode, as Gymnasium's `RecordEpisodeStatistics` does.

    It holds the return "r", the length "l", the seconds "t" and the "notation" of the architecture, which is empty
    where an illegal action left it incomplete.

    Attributes:
        episode_count: number of finished episodes.
        return_queue: returns of the last ones.
        length_queue: their lengths.
        time_queue: their seconds.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], buffer_length: int = 100, stats_key: str = "episode") -> None:
        """Wrap an environment.

        Args:
            env: the environment.
            buffer_length: how many episodes the queues hold.
            stats_key: key of the info.

        Raises:
            InvalidArgument: an argument outside its range.
        """
        RecordConstructorArgs.__init__(self, buffer_length=buffer_length, stats_key=stats_key)
        gymnasium.Wrapper.__init__(self, env)
        self._key = label("stats_key", stats_key)
        queues = _Queues(buffer_length)
        self.return_queue, self.length_queue, self.time_queue = queues.returns, queues.lengths, queues.times
        self.episode_count = 0
        self._return, self._length, self._started = 0.0, 0, time.perf_counter()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Info]:
        """Begin an episode."""
        result = self.env.reset(seed=seed, options=options)
        self._return, self._length, self._started = 0.0, 0, time.perf_counter()
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Info]:  # noqa: ANN401 - of the environment
        """Take a step.

        Raises:
            InvalidArgument: the last info has the key already.
        """
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._return += float(reward)
        self._length += 1
        if terminated or truncated:
            _check_free(self._key, info)
            seconds = round(time.perf_counter() - self._started, 6)
            notation = _notation(getattr(self.unwrapped, "space", None), info)
            statistics = {"r": self._return, "l": self._length, "t": seconds, "notation": notation}
            info = {**info, self._key: statistics}
            self.episode_count += 1
            self.return_queue.append(self._return)
            self.length_queue.append(self._length)
            self.time_queue.append(seconds)
        return observation, reward, terminated, truncated, info


class VectorEpisodeRecorder(RecordConstructorArgs, VectorWrapper):
    """`EpisodeRecorder` for vector environments; in the mode "SameStep" the entry is in ``info["final_info"]``."""

    def __init__(self, env: VectorEnv[Any, Any, Any], buffer_length: int = 100, stats_key: str = "episode") -> None:
        """Wrap a vector environment; arguments, attributes and errors as those of `EpisodeRecorder`."""
        RecordConstructorArgs.__init__(self, buffer_length=buffer_length, stats_key=stats_key)
        VectorWrapper.__init__(self, env)
        self._key = label("stats_key", stats_key)
        queues = _Queues(buffer_length)
        self.return_queue, self.length_queue, self.time_queue = queues.returns, queues.lengths, queues.times
        self.episode_count = 0
        self._episodes = VectorEpisodes(env)
        self._started = np.full(env.num_envs, time.perf_counter())

    def reset(self, *, seed: Seeds = None, options: dict[str, Any] | None = None) -> tuple[Any, Info]:
        """Begin new episodes."""
        rows = reset_rows(options, self.num_envs)
        result = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        self._episodes.begin(rows)
        self._started[rows] = time.perf_counter()
        return result

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Info]:  # noqa: ANN401 - whatever the caller passes
        """Take a step in every row.

        Raises:
            InvalidArgument: the info has the key already.
        """
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        found = self._episodes.step(rewards, terminated, truncated)
        now = time.perf_counter()
        if len(found.rows):
            _check_free(self._key, info.get("final_info", {}) if self._episodes.same_step else info)
            seconds = np.round(now - self._started[found.rows], 6)
            space = getattr(self.unwrapped, "space", None)
            notations = [_notation(space, last) for last in last_infos(info, found.rows, self._episodes)]
            statistics = {"r": found.returns, "l": found.lengths, "t": seconds, "notation": objects(notations)}
            add_outcomes(info, {self._key: statistics}, found.rows, found.rows, self._episodes)
            self.episode_count += len(found.rows)
            self.return_queue.extend(found.returns.tolist())
            self.length_queue.extend(found.lengths.tolist())
            self.time_queue.extend(seconds.tolist())
        begun = terminated | truncated if self._episodes.same_step else ~found.active
        self._started[begun] = now
        return observations, rewards, terminated, truncated, info


def _check_free(key: str, info: Info) -> None:
    if key in info:
        raise InvalidArgument(f"stats_key {key!r} is in the info already, which has {sorted(info)}; choose another.")


# --- in a file -----------------------------------------------------------------------------------------


class _Lines:
    """A file that JSON lines are appended to; it is open only while that happens, so that wrappers can be copied."""

    def __init__(self, path: str | os.PathLike[str], append: bool) -> None:
        try:
            self.path = Path(path)
        except TypeError:
            raise InvalidArgument(f"path must name a file, got {path!r}.") from None
        try:
            if flag("append", append) and self.path.exists():
                if not self.path.is_file():
                    raise InvalidArgument(
                        f"{self.path} is no file that lines could be appended to; choose another path."
                    )
                _drop_torn_line(self.path)
            else:
                self.path.open("xb").close()
        except FileExistsError:
            raise RunExists(
                f"{self.path} exists already and is not overwritten; choose another path, or append=True to add to it."
            ) from None
        except OSError as error:
            raise self._failed("cannot be opened for writing", error) from error

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append one line a row; they are in the file when this returns.

        Raises:
            RecordFailed: the disk refuses; the lines before are intact.
        """
        content = "".join(
            json.dumps(_finite(row), separators=(",", ":"), allow_nan=False) + "\n" for row in rows
        ).encode()
        try:
            size = self.path.stat().st_size
            with self.path.open("ab", buffering=0) as file:
                try:
                    written = 0
                    while written < len(content):
                        written += file.write(content[written:]) or 0
                except OSError:
                    file.truncate(size)
                    raise
        except OSError as error:
            raise self._failed("cannot be written", error) from error

    def _failed(self, what: str, error: OSError) -> RecordFailed:
        return RecordFailed(
            f"{self.path}: {what}: {error.strerror or error}. Make room, or check the directory and its permissions; "
            "the lines before are intact."
        )


def _drop_torn_line(path: Path) -> None:
    """Cut a file after its last complete line, as a kill may have left half a line."""
    with path.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)


def _finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value, also with NumPy scalars
    """Return a JSON value with NaN and infinities, which JSON lacks, as None."""
    if isinstance(value, np.generic):
        return _finite(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def _row(space: Any, info: Info, value: float, length: int, steps: int, truncated: bool) -> dict[str, Any]:  # noqa: ANN401
    """Return the line of an episode, from its last info and what was counted."""
    encoding = info.get("encoding")
    return {
        "encoding": None if encoding is None else list(encoding),
        "notation": _notation(space, info) or None,
        "status": info.get("status", "truncated" if truncated else None),
        "reward": value,
        "metrics": info.get("metrics", {}),
        "cost_seconds": info.get("cost_seconds"),
        "length": length,
        "environment_steps": steps,
        **({"message": info["message"]} if info.get("message") else {}),
    }


class RunRecorder(RecordConstructorArgs, gymnasium.Wrapper):
    """Appends one JSON line to a file for every finished episode, at once.

    | Key | Value |
    |---|---|
    | `encoding` | the decisions; null in an episode that ended without any query |
    | `notation` | the published notation, null where an illegal action left the architecture incomplete |
    | `status` | as in the info; `"truncated"` in an episode that ended without any query |
    | `reward` | return of the episode, as it is below this wrapper |
    | `metrics` | search-time metrics by name; null for NaN |
    | `cost_seconds` | cost of the query |
    | `length` | steps of the episode |
    | `environment_steps` | steps of the whole environment so far, as its counter has them |
    | `message` | why an evaluation failed; absent where it did not |

    Everything comes from the info, so held-out metrics are never written.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], path: str | os.PathLike[str], append: bool = False) -> None:
        """Wrap an environment and create the file.

        Args:
            env: the environment.
            path: the file; its directory exists.
            append: whether an existing file is added to. A torn last line, left by a kill, is cut off.

        Raises:
            InvalidArgument: an argument of another type.
            RunExists: the file exists and `append` is false.
            RecordFailed: the file cannot be created or written.
        """
        RecordConstructorArgs.__init__(
            self, path=os.fspath(path) if isinstance(path, os.PathLike) else path, append=append
        )
        gymnasium.Wrapper.__init__(self, env)
        self._lines = _Lines(path, append)
        self.path = self._lines.path
        self._return, self._length, self._steps = 0.0, 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Info]:
        """Begin an episode; one that is abandoned is not recorded."""
        result = self.env.reset(seed=seed, options=options)
        self._return, self._length = 0.0, 0
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Info]:  # noqa: ANN401 - of the environment
        """Take a step.

        Raises:
            RecordFailed: a line cannot be written.
        """
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._return += float(reward)
        self._length += 1
        self._steps += 1
        if terminated or truncated:
            unwrapped: Any = self.unwrapped
            counter = getattr(unwrapped, "counter", None)
            steps = self._steps if counter is None else counter.environment_steps
            space = getattr(unwrapped, "space", None)
            self._lines.write([_row(space, info, self._return, self._length, steps, not terminated)])
        return observation, reward, terminated, truncated, info


class VectorRunRecorder(RecordConstructorArgs, VectorWrapper):
    """`RunRecorder` for vector environments; lines of the same step come in the order of the rows.

    Of a batch that crosses the budget, what was still evaluated is recorded too, with the reward that the environment
    gave and the number of decisions as the length.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], path: str | os.PathLike[str], append: bool = False) -> None:
        """Wrap a vector environment and create the file; arguments and errors as those of `RunRecorder`."""
        RecordConstructorArgs.__init__(
            self, path=os.fspath(path) if isinstance(path, os.PathLike) else path, append=append
        )
        VectorWrapper.__init__(self, env)
        self._lines = _Lines(path, append)
        self.path = self._lines.path
        self._episodes = VectorEpisodes(env)
        self._steps = 0

    def reset(self, *, seed: Seeds = None, options: dict[str, Any] | None = None) -> tuple[Any, Info]:
        """Begin new episodes; those that are abandoned are not recorded."""
        rows = reset_rows(options, self.num_envs)
        result = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        self._episodes.begin(rows)
        return result

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Info]:  # noqa: ANN401 - whatever the caller passes
        """Take a step in every row.

        Raises:
            RecordFailed: a line cannot be written.
            BudgetExhausted: of the environment; what was paid for is recorded.
        """
        try:
            observations, rewards, terminated, truncated, info = self.env.step(actions)
        except BudgetExhausted as exhausted:
            self._write_paid(exhausted)
            raise
        found = self._episodes.step(rewards, terminated, truncated)
        self._steps += int(np.count_nonzero(found.active))
        if len(found.rows):
            space, steps = self._space_and_steps()
            infos = last_infos(info, found.rows, self._episodes)
            ended = zip(infos, found.rows.tolist(), found.returns.tolist(), found.lengths.tolist(), strict=True)
            self._lines.write(
                [_row(space, last, value, length, steps, not terminated[row]) for last, row, value, length in ended]
            )
        return observations, rewards, terminated, truncated, info

    def _space_and_steps(self) -> tuple[Any, int]:
        unwrapped: Any = self.unwrapped
        counter = getattr(unwrapped, "counter", None)
        return getattr(unwrapped, "space", None), self._steps if counter is None else counter.environment_steps

    def _write_paid(self, exhausted: BudgetExhausted) -> None:
        """Write the episodes that were evaluated before the budget was used up."""
        space, steps = self._space_and_steps()
        rows = []
        for row, value in enumerate(exhausted.rewards):
            last = {name: column[row] for name, column in exhausted.columns.items() if not isinstance(column, Mapping)}
            last["metrics"] = {name: column[row] for name, column in exhausted.columns["metrics"].items()}
            last["message"] = exhausted.columns.get("message", {}).get(row)
            length = len(last["encoding"]) + (last["status"] == Status.INVALID_ACTION.label)
            rows.append(_row(space, last, float(value), length, steps, truncated=False))
        self._lines.write(rows)
