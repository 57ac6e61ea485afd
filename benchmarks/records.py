"""Records, one flushed line a row: the run directory with its resumption, and the finished searches of a benchmark."""

from __future__ import annotations

import contextlib
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_agents import Evaluated, Sink
from nas_gym.errors import NASGymError, ResumeError, RunExists
from nas_gym.evaluators.core import Evaluation, Status
from nas_gym.evaluators.decorators import Recorded
from nas_gym.files import write_whole
from nas_gym.search_spaces.core import Encoding, SearchSpace

Row = dict[str, Any]
"""One line of ``evaluations.jsonl``."""


class WriteFailed(NASGymError, OSError):
    """A record could not be written (full disk, lost directory)."""


class RecordError(NASGymError, ValueError):
    """A record holds a line that is no row."""


class TornRow(UserWarning):
    """The last row of a record was written in part only; it is dropped."""


class RunDirectory:
    """The directory of one search: ``config.json``, ``evaluations.jsonl``, ``summary.json`` and figures."""

    def __init__(self, path: Path) -> None:
        """Name a directory that exists; `create` and `existing` check that."""
        self.path = path

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any]) -> RunDirectory:
        """Create the directory and write its configuration.

        Raises:
            RunExists: the directory exists already.
            WriteFailed: it cannot be created or written.
        """
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            raise RunExists(
                f"{path} exists already and results are never overwritten; choose another --out or remove it."
            ) from None
        except OSError as error:
            raise WriteFailed(f"{path}: cannot be created: {error.strerror or error}.") from error
        directory = cls(path)
        directory.write_json("config.json", config)
        return directory

    @classmethod
    def existing(cls, path: Path) -> RunDirectory:
        """Return the directory of an earlier search.

        Raises:
            ResumeError: there is none.
        """
        directory = cls(path)
        if not (path / "config.json").exists():
            raise ResumeError(f"{path} is no run directory: it has no config.json. Name a directory made by `search`.")
        return directory

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Return the content of a JSON file, or None where there is no such file.

        Raises:
            ResumeError: it is damaged.
        """
        path = self.path / name
        if not path.exists():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ResumeError(f"{path} cannot be read: {error}.") from error

    def rows(self) -> list[Row]:
        """Return the recorded queries; a torn last line, left by a kill, is no query.

        Raises:
            ResumeError: another line is damaged.
        """
        path = self.path / "evaluations.jsonl"
        if not path.exists():
            return []
        found = []
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
            try:
                found.append(json.loads(line))
            except ValueError as error:
                raise ResumeError(f"{path}, line {number}: damaged ({error}); the run cannot be continued.") from error
        return found

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file atomically.

        Raises:
            WriteFailed: the file cannot be written.
        """
        target = self.path / name
        try:
            write_whole(target, (json.dumps(finite(content), indent=2) + "\n").encode())
        except OSError as error:
            raise WriteFailed(f"{target}: cannot be written: {error.strerror or error}.") from error


def finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a JSON value with NaN and infinities, which JSON lacks, as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def recorded(rows: Sequence[Row]) -> list[Recorded]:
    """Return what the evaluator answered in recorded queries; illegal actions never reached it."""
    found = []
    for row in rows:
        if row["status"] == Status.INVALID_ACTION.label:
            continue
        metrics = {name: math.nan if value is None else float(value) for name, value in row["metrics"].items()}
        status = Status[row["status"].upper()]
        evaluation = Evaluation(status, metrics, float(row["cost_seconds"]), row.get("message", ""))
        found.append(Recorded(tuple(row["encoding"]), evaluation))
    return found


class EvaluationWriter(Sink):
    """Appends one line a query to ``evaluations.jsonl``.

    A search that is resumed begins with what was recorded; those rows are compared and not written again.

    Attributes:
        rows: lines written so far.
        best_reward: highest reward so far, None before the first; where the agent chooses fidelities, of the queries
            at the highest fidelity so far, since rewards of different ones cannot be compared.
        best_encoding: the first architecture that reached it.
        best_fidelity: its fidelity; None where the agent chose none.
    """

    def __init__(self, path: Path, space: SearchSpace, repeat_query: str, before: Sequence[Row] = ()) -> None:
        """Open the file for appending, without the torn line that a kill may have left.

        Args:
            path: the file.
            space: for the notation of the architectures.
            repeat_query: recorded in every row.
            before: the rows that the file holds.

        Raises:
            WriteFailed: the file cannot be opened.
        """
        self.path = path
        self.space = space
        self.repeat_query = repeat_query
        self.rows = 0
        self.best_reward: float | None = None
        self.best_encoding: Encoding | None = None
        self.best_fidelity: int | None = None
        self.rewards: list[float] = []
        self._fidelities: list[int | None] = []
        self._before = before
        try:
            if path.is_file():
                _drop_torn_line(path)
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise WriteFailed(f"{path}: cannot be opened: {error.strerror or error}.") from error

    def on_episodes(self, evaluated: Evaluated) -> None:
        """Write and flush the rows of a batch.

        Raises:
            WriteFailed: the disk refuses; everything flushed before is safe.
            ResumeError: a resumed search takes another course than the record.
        """
        rows = [self._row(evaluated, index) for index in range(len(evaluated.batch))]
        rows = [row for row in rows if not self._is_recorded(row)]
        if not rows:
            return
        lines = "".join(json.dumps(finite(row), separators=(",", ":")) + "\n" for row in rows)
        try:
            self._file.write(lines)
            self._file.flush()
        except OSError as error:
            raise WriteFailed(
                f"{self.path}: cannot be written: {error.strerror or error}. The rows before are safe."
            ) from error

    @property
    def comparable_rewards(self) -> npt.NDArray[np.float64]:
        """Rewards of the queries in order, NaN for those at another fidelity than the best one's, shape [N]."""
        if self.best_reward is None:
            return np.array(self.rewards)
        comparable = [fidelity == self.best_fidelity for fidelity in self._fidelities]
        return np.where(comparable, self.rewards, np.nan)

    def _is_recorded(self, row: Row) -> bool:
        """Tell whether a row was written by an earlier process, and check that it is the same."""
        if row["row"] > len(self._before):
            return False
        before = self._before[row["row"] - 1]
        for name in ("encoding", "status", "fidelity"):
            if row.get(name) != before.get(name):
                raise ResumeError(
                    f"{self.path}, row {row['row']}: the resumed search has {name} {row.get(name)}, the record "
                    f"{before.get(name)}; its agent, seed or library versions differ. Nothing was changed."
                )
        return True

    def _row(self, evaluated: Evaluated, index: int) -> dict[str, Any]:
        batch, usage = evaluated.batch, evaluated.usage
        encoding, status = batch.encodings[index], batch.status[index]
        reward = float(batch.returns[index])
        fidelity = None if batch.fidelities is None else int(batch.fidelities[index])
        self.rows += 1
        self.rewards.append(reward)
        self._fidelities.append(fidelity)
        if status == "ok" and self._is_better(reward, fidelity):
            self.best_reward, self.best_encoding, self.best_fidelity = reward, encoding, fidelity
        return {
            "row": self.rows,
            "encoding": list(encoding),
            "architecture": self.space.to_string(encoding) if status != "invalid_action" else None,
            "status": status,
            **({} if fidelity is None else {"fidelity": fidelity}),
            "reward": reward,
            "best_reward": self.best_reward,
            "metrics": {name: float(column[index]) for name, column in evaluated.metrics.items()},
            "cost_seconds": float(evaluated.cost_seconds[index]),
            **({"message": evaluated.messages[index]} if evaluated.messages and evaluated.messages[index] else {}),
            "first_seen": bool(batch.first_seen[index]),
            "repeat_query": self.repeat_query,
            "batch": {
                "queries": usage.queries,
                "environment_steps": usage.environment_steps,
                "simulated_seconds": round(usage.simulated_seconds, 3),
                "wall_seconds": round(usage.real_seconds, 4),
            },
        }

    def _is_better(self, reward: float, fidelity: int | None) -> bool:
        """Tell whether a query surpasses the best so far: by a higher fidelity, or at the same one by its reward."""
        if self.best_reward is None:
            return True
        if fidelity is None or self.best_fidelity is None or fidelity == self.best_fidelity:
            return reward > self.best_reward
        return fidelity > self.best_fidelity

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            self._file.close()


def _drop_torn_line(path: Path) -> None:
    """Cut a file after its last complete line."""
    with path.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)


# --- records of finished searches ------------------------------------------------------------------


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a record, none where there is no such file; part of a row at its end is left out.

    Warns:
        TornRow: naming the file and what is left out. The file stays as it is.

    Raises:
        RecordError: another line is no row.
    """
    if not path.exists():
        return []
    lines, torn = _split_rows(path.read_bytes())
    if torn:
        _warn_of(path, torn, "left out, and removed when a row is appended")
    return [_parsed(path, number, line) for number, line in enumerate(lines, start=1)]


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append one flushed line to a record, after removing part of a row from its end.

    Not for several processes at once: one could remove what another is writing.

    Warns:
        TornRow: naming the file and what was removed.

    Raises:
        WriteFailed: the file cannot be written.
    """
    try:
        separator = _mend(path) if path.is_file() else b""
        with path.open("ab") as file:
            file.write(separator + json.dumps(finite(row)).encode() + b"\n")
    except OSError as error:
        raise WriteFailed(f"{path}: cannot be written: {error.strerror or error}. The rows before are safe.") from error


def _mend(path: Path) -> bytes:
    """Remove part of a row from the end of a file; return what must precede the next row."""
    with path.open("r+b") as file:
        if file.seek(0, 2) == 0:
            return b""
        file.seek(-1, 2)
        if file.read() == b"\n":
            return b""
        file.seek(0)
        content = file.read()
        _, torn = _split_rows(content)
        if not torn:
            return b"\n"
        file.truncate(len(content) - len(torn))
    _warn_of(path, torn, "removed")
    return b""


def _split_rows(content: bytes) -> tuple[list[bytes], bytes]:
    """Return the lines of a record, and the part of a row behind them.

    A last row that lacks nothing but the end of its line is whole: no part of a JSON object is one.
    """
    *lines, tail = content.split(b"\n")
    if tail and _is_row(tail):
        return [*lines, tail], b""
    return lines, tail


def _is_row(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _parsed(path: Path, number: int, line: bytes) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise RecordError(
            f"{path}, line {number}: no row ({error}), got {line[:80]!r}. Mend or remove that line."
        ) from error
    if not isinstance(row, dict):
        raise RecordError(f"{path}, line {number}: a row is a JSON object, got {line[:80]!r}. Mend or remove it.")
    return row


def _warn_of(path: Path, torn: bytes, what: str) -> None:
    warnings.warn(
        f"{path}: the last {len(torn)} bytes are part of a row, as a kill leaves one behind; {what}: {torn!r}",
        TornRow,
        stacklevel=3,
    )
