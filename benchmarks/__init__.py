"""Records, metrics and figures of searches; suites, and `task` for training loops of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .foreign import BenchmarkTask, missing_seeds, task

__all__ = ["BenchmarkTask", "missing_seeds", "task"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever is exported
    """Import what is exported when it is first asked for, so that importing the package costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import foreign

    return getattr(foreign, name)
