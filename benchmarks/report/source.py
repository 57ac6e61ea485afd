"""Which kind of record a path names, and reading it."""

from __future__ import annotations

from pathlib import Path

from nas_gym.errors import InvalidArgument

from .content import Content
from .search_run import read_run
from .suite_record import read_suite

RUN_FILES = ("config.json", "evaluations.jsonl")
SUITE_FILE = "runs.jsonl"


def read(path: Path) -> Content:
    """Return what a report of a record shows.

    Args:
        path: run directory of `nas-gym search`, directory of `nas-gym bench run`, or file of `nas-gym bench pack`.

    Warns:
        TornRow: the record ends in part of a row, which is left out.

    Raises:
        InvalidArgument: it is nothing of these, or nothing finished in it.
        RecordError: it is damaged.
    """
    if path.is_file() or (path / SUITE_FILE).exists():
        return read_suite(path)
    if all((path / name).is_file() for name in RUN_FILES):
        return read_run(path)
    if not path.exists():
        raise InvalidArgument(f"{path} does not exist; name a directory of `nas-gym search` or `nas-gym bench run`.")
    lacking = " and ".join(name for name in RUN_FILES if not (path / name).is_file())
    raise InvalidArgument(
        f"{path} is neither a run of `nas-gym search` (it has no {lacking}) nor a suite of `nas-gym bench run` (it has "
        f"no {SUITE_FILE}); name such a directory."
    )
