"""The run directory: every evaluation one flushed line, written before anything else can fail."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas_agents import Evaluated, Sink
from nas_gym.errors import NASGymError, RunExists
from nas_gym.search_spaces.core import Encoding, SearchSpace


class WriteFailed(NASGymError, OSError):
    """A record could not be written (full disk, lost directory)."""


class RunDirectory:
    """A new directory for one search: ``config.json``, ``evaluations.jsonl``, ``summary.json`` and figures."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        """Create the directory and write its configuration.

        Raises:
            RunExists: the directory exists already.
            WriteFailed: it cannot be created or written.
        """
        self.path = path
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            raise RunExists(
                f"{path} exists already and results are never overwritten; choose another --out or remove it."
            ) from None
        except OSError as error:
            raise WriteFailed(f"{path}: cannot be created: {error.strerror or error}.") from error
        self.write_json("config.json", config)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file atomically.

        Raises:
            WriteFailed: the file cannot be written.
        """
        target = self.path / name
        temporary = target.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps(finite(content), indent=2) + "\n")
            os.replace(temporary, target)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
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


class EvaluationWriter(Sink):
    """Appends one line a query to ``evaluations.jsonl``.

    Attributes:
        rows: lines written so far.
        best_reward: highest reward so far, None before the first.
        best_encoding: the first architecture that reached it.
    """

    def __init__(self, path: Path, space: SearchSpace, repeat_query: str) -> None:
        """Open the file for appending.

        Args:
            path: the file.
            space: for the notation of the architectures.
            repeat_query: recorded in every row.

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
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise WriteFailed(f"{path}: cannot be opened: {error.strerror or error}.") from error

    def on_episodes(self, evaluated: Evaluated) -> None:
        """Write and flush the rows of a batch.

        Raises:
            WriteFailed: the disk refuses; everything flushed before is safe.
        """
        rows = [self._row(evaluated, index) for index in range(len(evaluated.batch))]
        lines = "".join(json.dumps(finite(row), separators=(",", ":")) + "\n" for row in rows)
        try:
            self._file.write(lines)
            self._file.flush()
        except OSError as error:
            raise WriteFailed(
                f"{self.path}: cannot be written: {error.strerror or error}. The rows before are safe."
            ) from error

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
