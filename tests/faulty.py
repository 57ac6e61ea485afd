"""Work that goes wrong in every way; importable from every test and from spawned workers, torch-free to start fast.

A job is a function of this module and its arguments.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from nas_gym.errors import DatasetError
from nas_gym.evaluators.local_processes import LocalProcesses
from nas_gym.evaluators.workers import Slot

Job = tuple[Any, ...]
FOREVER = 600.0


def perform(job: Job) -> Any:
    """Call the function of a job."""
    function, *arguments = job
    return function(*arguments)


# --- what to make workers with ---------------------------------------------------------------------


def make(slot: Slot) -> Callable[[Job], Any]:
    """Make sound workers."""
    return perform


def make_slot_teller(slot: Slot) -> Callable[[Any], Slot]:
    """Make workers that answer every job with their slot."""
    return lambda job: slot


def make_refused(slot: Slot) -> Callable[[Job], Any]:
    """Fail with an error of the project."""
    raise DatasetError("no data set called digitz")


def make_broken(slot: Slot) -> Callable[[Job], Any]:
    """Fail with another error."""
    raise ZeroDivisionError("nothing to divide by")


def make_dying(slot: Slot) -> Callable[[Job], Any]:
    """Die at the start, without a word."""
    os._exit(7)


def make_dying_sometimes(diary: Path, deaths: tuple[int, ...], slot: Slot) -> Callable[[Job], Any]:
    """Die at some starts; the length of a file counts them from 1."""
    with diary.open("a") as file:
        file.write("x")
    if diary.stat().st_size in deaths:
        os._exit(7)
    return perform


def make_slowly(diary: Path, slot: Slot) -> Callable[[Job], Any]:
    """Take a while in all slots but the first; write down when that was over."""
    if slot.index:
        time.sleep(0.5)
        diary.write_text(str(time.monotonic()))
    return perform


def make_beside_torch(slot: Slot) -> Callable[[Any], list[int]]:
    """Answer every job with the numbers of threads that a module called torch was told."""
    told: list[int] = []
    sys.modules["torch"] = cast(Any, SimpleNamespace(set_num_threads=told.append))
    return lambda job: told


# --- sound jobs ------------------------------------------------------------------------------------


def echo(value: Any = None) -> Any:
    """Answer with the argument."""
    return value


def sleep(seconds: float) -> tuple[float, float]:
    """Take a while; answer with when it began and ended."""
    started = time.monotonic()
    time.sleep(seconds)
    return started, time.monotonic()


def zeros(count: int) -> bytes:
    """Answer with many bytes."""
    return bytes(count)


def process_id() -> int:
    """Answer with the number of the process."""
    return os.getpid()


def environment(name: str) -> str | None:
    """Answer with a variable of the environment."""
    return os.environ.get(name)


def run_command(command: list[str]) -> str:
    """Answer with what a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def interrupt_self() -> str:
    """Press Ctrl-C, and go on."""
    os.kill(os.getpid(), signal.SIGINT)
    return "went on"


def start_workers_inside() -> None:
    """Want workers in a worker."""
    LocalProcesses(make, [Slot(0)])


# --- faults ----------------------------------------------------------------------------------------


def raise_error(message: str) -> None:
    """Let an ordinary exception out."""
    raise ValueError(message)


def exhaust_memory() -> None:
    """Let a `MemoryError` out."""
    raise MemoryError("no room")


def exit_politely() -> None:
    """Let a `SystemExit` out."""
    sys.exit(4)


def exit_at_once(code: int) -> None:
    """End the process without a word."""
    os._exit(code)


def segfault() -> None:
    """Read from address zero."""
    ctypes.string_at(0)


def segfault_among_threads() -> None:
    """Read from address zero, with many other threads deep in their functions."""
    for _ in range(50):
        threading.Thread(target=descend, args=(120,), daemon=True).start()
    time.sleep(0.2)
    segfault()


def descend(depth: int) -> None:
    """Sleep at the bottom of many calls."""
    if depth:
        descend(depth - 1)
    time.sleep(FOREVER)


def signal_self(number: int) -> None:
    """End or stop the process by a signal."""
    os.kill(os.getpid(), number)
    time.sleep(FOREVER)


def hold_interpreter() -> None:
    """Sleep without letting any other Python thread of the process run."""
    ctypes.PyDLL(None).sleep(int(FOREVER))


def loop() -> None:
    """Compute forever."""
    while True:
        pass


def answer_unpicklable() -> Any:
    """Answer with what cannot be sent."""
    return lambda: None


def answer_forever() -> Any:
    """Answer with what takes forever to send."""
    return Reluctant(functools.partial(time.sleep, FOREVER))


def answer_poison() -> Any:
    """Answer with what cannot be received."""
    return Poison()


def leave_a_child(diary: Path) -> None:
    """Start a command, write down its process and hang."""
    child = subprocess.Popen(["sleep", str(FOREVER)])
    diary.write_text(str(child.pid))
    time.sleep(FOREVER)


def leave_a_fork() -> None:
    """Die while a fork keeps all pipes open."""
    if os.fork() == 0:
        time.sleep(FOREVER)
    os._exit(5)


class Poison:
    """Can be pickled, not unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return explode, ()


def explode() -> None:
    """Be what a `Poison` is unpickled with."""
    raise ValueError("this is poison")


class Reluctant:
    """Does something before it is pickled."""

    def __init__(self, before: Callable[[], None]) -> None:
        self.before = before

    def __reduce__(self) -> tuple[Any, ...]:
        self.before()
        return str, ()
