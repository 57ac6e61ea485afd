"""The run directory: every evaluation one flushed line, written before anything else can fail; and its resumption."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
        best_reward: highest reward so far, None before the first.
        best_encoding: the first architecture that reached it.
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
        self.rewards: list[float] = []
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

    def _is_recorded(self, row: Row) -> bool:
        """Tell whether a row was written by an earlier process, and check that it is the same."""
        if row["row"] > len(self._before):
            return False
        before = self._before[row["row"] - 1]
        for name in ("encoding", "status"):
            if row[name] != before[name]:
                raise ResumeError(
                    f"{self.path}, row {row['row']}: the resumed search has {name} {row[name]}, the record "
                    f"{before[name]}; its agent, seed or library versions differ. Nothing was changed."
                )
        return True

    def _row(self, evaluated: Evaluated, index: int) -> dict[str, Any]:
        batch, usage = evaluated.batch, evaluated.usage
        encoding, status = batch.encodings[index], batch.status[index]
        reward = float(batch.returns[index])
        self.rows += 1
        self.rewards.append(reward)
        if status == "ok" and (self.best_reward is None or reward > self.best_reward):
            self.best_reward, self.best_encoding = reward, encoding
        return {
            "row": self.rows,
            "encoding": list(encoding),
            "architecture": self.space.to_string(encoding) if status != "invalid_action" else None,
            "status": status,
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
