"""Every exception this project raises on purpose.

A message says what is wrong, the value received, what is allowed and what to do. Classes also
inherit the built-in that a caller would expect, so ``except ValueError`` keeps working.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class NASGymError(Exception):
    """Base of all errors of nas-gym; catching it catches every expected failure."""

    def __str__(self) -> str:
        """Return the message, plain also where a built-in base would quote it."""
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[object, ...]:
        """Cross process boundaries by class and message, whatever the constructor takes."""
        return _restore, (type(self), str(self))


def _restore(kind: type[NASGymError], message: str) -> NASGymError:
    error = kind.__new__(kind, message)
    error.args = (message,)
    return error


class InvalidArgument(NASGymError, ValueError):
    """An argument has a value outside what is allowed."""


class UnknownName(NASGymError, KeyError):
    """A registry has no entry of this name."""

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        """Build the message with the nearest match and the full list.

        Args:
            kind: what was looked up, in the singular ("agent", "table").
            name: the name received.
            known: the names that exist.
        """
        known = sorted(known)
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        listing = ", ".join(known) if known else "none"
        super().__init__(f"unknown {kind} {name!r}.{hint} Known: {listing}.")


class InvalidEncoding(NASGymError, ValueError):
    """A sequence of decisions, or its notation, is not an architecture of the search space."""


class InvalidAction(NASGymError, ValueError):
    """An action lies outside the action space (a masked action inside it never raises)."""


class EpisodeOver(NASGymError, RuntimeError):
    """``step`` was called before the first reset or after the end of an episode."""


class FidelityError(NASGymError, ValueError):
    """A fidelity (epochs) lies outside what the evaluator can answer."""


class TableError(NASGymError):
    """A table file is missing, truncated, altered, foreign, or lacks what was asked of it."""


class DatasetError(NASGymError):
    """A data set is missing, unreadable, or not a classification problem; nothing was downloaded or changed."""


class StoreError(NASGymError):
    """An evaluation store cannot be opened, read or written; what it held before is intact."""


class WorkerError(NASGymError):
    """Worker processes cannot be started, so that no evaluation is possible."""


class ResumeError(NASGymError):
    """A run cannot be continued: its directory is no run, was altered, or the search took another course."""


class BuildInterrupted(NASGymError):
    """A table build stopped early; the finished part is on disk and the same command resumes it."""


class BudgetExhausted(NASGymError):
    """A query would exceed the budget of the counter; nothing beyond the budget was evaluated.

    Attributes:
        rewards: of the first queries of the batch, which still fitted, were evaluated and counted; float64 [M].
        columns: what the final infos of those would have held, by name, M entries each.
    """

    def __init__(self, message: str, rewards: Sequence[float] = (), columns: Mapping[str, Any] | None = None) -> None:
        """Keep what was paid for."""
        super().__init__(message)
        self.rewards = rewards
        self.columns: Mapping[str, Any] = {} if columns is None else columns


class RunExists(NASGymError, FileExistsError):
    """The run directory exists already; results are never overwritten."""


class MissingExtra(NASGymError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, feature: str, extra: str, cause: ImportError | None = None) -> None:
        """Build the message with the pip command.

        Args:
            feature: what needs the dependency ("the agent 'reinforce'").
            extra: the extra of this distribution that brings it ("agents").
            cause: the import error, whose module is named.
        """
        module = f" (no module named {cause.name!r})" if cause is not None and cause.name else ""
        super().__init__(
            f"{feature} needs an optional dependency that is not installed{module}. "
            f'Install it with: pip install "nas-gym[{extra}]"'
        )
