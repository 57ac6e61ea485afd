"""What a thousand children that go wrong in every way leave behind: the right statuses, and nothing else."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nas_gym.evaluators.core import Status
from nas_gym.evaluators.local_processes import LocalProcesses
from nas_gym.evaluators.workers import Slot, deal_slots

from .timing import Row

_HANG_SECONDS = 60.0
_LIMIT_SECONDS = 0.2
_ALLOWED_GROWTH_MB = 10.0


def _succeed() -> bytes:
    return os.urandom(1 << 16)


def _raise() -> None:
    raise ValueError("injected")


def _exhaust_memory() -> None:
    raise MemoryError("injected")


def _exit() -> None:
    os._exit(3)


def _segfault() -> None:
    ctypes.string_at(0)


def _signal(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def _sleep() -> None:
    time.sleep(600)


def _loop() -> None:
    while True:
        pass


def _answer_unpicklable() -> object:
    return lambda: None


FAULTS: dict[str, tuple[Callable[[], object], Status]] = {
    "none": (_succeed, Status.OK),
    "exception": (_raise, Status.CRASHED),
    "memory": (_exhaust_memory, Status.OUT_OF_MEMORY),
    "exit": (_exit, Status.CRASHED),
    "segfault": (_segfault, Status.CRASHED),
    "abort": (_signal(signal.SIGABRT), Status.CRASHED),
    "SIGKILL": (_signal(signal.SIGKILL), Status.KILLED),
    "SIGTERM": (_signal(signal.SIGTERM), Status.KILLED),
    "sleep": (_sleep, Status.TIMEOUT),
    "loop": (_loop, Status.TIMEOUT),
    "unpicklable answer": (_answer_unpicklable, Status.CRASHED),
}
"""What a child does, and the status that its job must have."""


def make_work(slot: Slot) -> Callable[[str], object]:
    """Return what a worker does with the name of a fault."""
    return lambda name: FAULTS[name][0]()


class Belongings(NamedTuple):
    """What this process holds."""

    processes: int
    open_files: int
    threads: int
    temporary_files: int
    megabytes: float

    @classmethod
    def now(cls, folder: Path) -> Belongings:
        """Count them; `folder` is that of temporary files."""
        children = (path.read_text().split() for path in Path("/proc/self/task").glob("*/children"))
        resident = next(
            line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")
        )
        return cls(
            sum(len(pids) for pids in children),
            len(os.listdir("/proc/self/fd")),
            threading.active_count(),
            sum(1 for _ in folder.rglob("*")),
            int(resident) / 1024,
        )


def injected_faults(children: int = 1_000, workers: int = 2) -> Row:
    """Run jobs with a random fault each and compare their statuses with those they must have.

    Args:
        children: number of jobs.
        workers: processes at the same time.
    """
    names = [list(FAULTS)[index] for index in np.random.default_rng(0).integers(len(FAULTS), size=children)]
    started = time.monotonic()
    with _temporary_folder() as folder:
        # What stays once for all: a process of multiprocessing, and memory for the first answers.
        _statuses(list(FAULTS), workers)
        before = Belongings.now(folder)
        found = _statuses(names, workers)
        after = Belongings.now(folder)
    right = sum(found.get(number) is FAULTS[name][1] for number, name in enumerate(names))
    growth = after.megabytes - before.megabytes
    left_behind = [
        f"{now - then:+d} {field.replace('_', ' ')}"
        for field, then, now in zip(Belongings._fields[:-1], before, after, strict=False)
        if now != then
    ]
    return Row(
        f"children with injected faults on {workers} workers that end with the right status",
        f"{right:,} of {children:,} in {time.monotonic() - started:.0f} s",
        f"{children - len(found)} lost; left behind: {', '.join(left_behind) or 'nothing'}, {growth:+.1f} MB",
        "-",
        f"{children:,} of {children:,}",
        right == children and not left_behind and growth < _ALLOWED_GROWTH_MB,
    )


def _statuses(names: list[str], workers: int) -> dict[int, Status]:
    """Return the status of every fault by its position; those that hang are missing."""
    found: dict[int, Status] = {}
    with LocalProcesses(make_work, deal_slots(workers)) as pool:
        tickets = {}
        for index, name in enumerate(names):
            limit = _LIMIT_SECONDS if FAULTS[name][1] is Status.TIMEOUT else None
            tickets[pool.submit(name, seconds=limit)] = index
        while pool.in_flight:
            completions = pool.collect(timeout=_HANG_SECONDS)
            if not completions:
                break
            for done in completions:
                found[tickets[done.ticket]] = Status.OK if done.failure is None else done.failure.status
    return found


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Let this process and its children have their temporary files in a folder of their own."""
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = before
            del os.environ["TMPDIR"]
            if variable is not None:
                os.environ["TMPDIR"] = variable
