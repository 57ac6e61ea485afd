"""Workers run jobs elsewhere, whatever happens to them there.

One interface, `Workers`: every job ends as one `Completion`, with the right `Failure` if it has no answer. Here is
`InProcess`, for debugging and for jobs too short to send away; `local_processes` survives what jobs do.
"""

from __future__ import annotations

import math
import time
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from nas_gym.errors import InvalidArgument, NASGymError, WorkerError
from nas_gym.evaluators.core import Status

J = TypeVar("J")
A = TypeVar("A")
Work = Callable[[J], A]


@dataclass(frozen=True)
class Slot:
    """Where one worker runs.

    Attributes:
        index: number of the slot, from 0.
        device: what its work should use, as torch writes it.
        threads: threads that its numerical libraries may use.
    """

    index: int
    device: str = "cpu"
    threads: int = 1


@dataclass(frozen=True)
class Failure:
    """Why a worker could not answer.

    Attributes:
        status: `CRASHED` (an exception that the work let out, an exit, a fatal signal), `KILLED` (SIGKILL or SIGTERM
            from outside), `TIMEOUT` (over its seconds) or `OUT_OF_MEMORY` (`MemoryError`).
        message: one line.
        traceback: that of Python, or the dump of `faulthandler` after a fatal signal or a timeout; else empty.
    """

    status: Status
    message: str
    traceback: str = ""


@dataclass(frozen=True)
class Completion(Generic[A]):
    """How one job ended.

    Attributes:
        ticket: what `submit` returned.
        answer: what the work returned; None after a failure.
        failure: why there is no answer, or None.
        seconds: wall seconds the worker was busy with it; the limit, after a timeout.
        slot: index of the worker's slot.
    """

    ticket: int
    answer: A | None
    failure: Failure | None
    seconds: float
    slot: int


class Workers(ABC, Generic[J, A]):
    """Takes jobs and gives completions; used from one thread, best as a context manager.

    Jobs start in the order of their submission and complete in any. Jobs are handed out inside `submit` and `collect`
    only: a worker that finishes while the caller does something else waits for the next call.

    Attributes:
        count: number of slots, which is how many jobs run at the same time.
        busy_seconds: sum of the seconds of all completions.
    """

    def __init__(self, count: int) -> None:
        """Begin without jobs."""
        self.count = count
        self.busy_seconds = 0.0
        self._tickets = 0

    @property
    @abstractmethod
    def in_flight(self) -> int:
        """Number of jobs submitted and not collected yet."""

    @abstractmethod
    def submit(self, job: J, *, seconds: float | None = None, exclusive: bool = False) -> int:
        """Take a job, without waiting for anything.

        Args:
            job: what the work is called with.
            seconds: hard limit of its wall time, counted from its start at the worker; None = no limit.
            exclusive: run it while no other job runs. No job submitted later starts before it.

        Returns:
            The ticket of its completion, larger than all before.

        Raises:
            InvalidArgument: `seconds` is not positive and finite, or the job cannot be sent.
            WorkerError: the workers are closed.
        """

    @abstractmethod
    def collect(self, timeout: float | None = None) -> list[Completion[A]]:
        """Wait until a job is complete.

        Args:
            timeout: longest wait in seconds; None = as long as it takes.

        Returns:
            All completions there are, in the order in which they happened; none if no job is in flight or the time
            is over.

        Raises:
            NASGymError: `make_work` raised it.
            WorkerError: workers cannot be started, or are closed.
        """

    @abstractmethod
    def warm_up(self) -> None:
        """Start all workers and wait until they are ready.

        Raises:
            NASGymError: `make_work` raised it.
            WorkerError: workers cannot be started, or are closed.
        """

    @abstractmethod
    def close(self) -> None:
        """Kill what runs, forget what waits and release everything; harmless when done before."""

    def __enter__(self) -> Self:
        """Return the workers, closed at the end of the block."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the workers."""
        self.close()


def deal_slots(count: int, device: str = "cpu", accelerators: int = 0, per_accelerator: int = 1) -> tuple[Slot, ...]:
    """Return the slots of `count` workers.

    Args:
        count: how many, at least 1.
        device: `"cuda"` deals them round robin to `cuda:0`, `cuda:1`, ...; any other device is that of all.
        accelerators: how many the machine has, for `"cuda"`.
        per_accelerator: how many workers may share one, for `"cuda"`.

    Raises:
        InvalidArgument: `count` is not positive, or more than the accelerators take.
    """
    if count < 1:
        raise InvalidArgument(f"the number of workers must be at least 1, got {count}.")
    if device != "cuda":
        return tuple(Slot(index, device) for index in range(count))
    if count > accelerators * per_accelerator:
        raise InvalidArgument(
            f"{count} workers do not fit on {accelerators} accelerators with {per_accelerator} on each: at most "
            f"{accelerators * per_accelerator}. Use fewer, let more share one, or choose the device cpu."
        )
    return tuple(Slot(index, f"cuda:{index % accelerators}") for index in range(count))


class InProcess(Workers[J, A]):
    """The caller's own process as the one worker: each `collect` runs one job, in the caller's thread.

    Neither the limit of a job nor the timeout of `collect` is enforced, and a job that kills its process kills this
    one. A job interrupted by Ctrl-C stays in flight: the next `collect` runs it again.
    """

    def __init__(self, make_work: Callable[[Slot], Work[J, A]], slot: Slot = Slot(0)) -> None:
        """Remember what to run.

        Args:
            make_work: called once, at the first job or by `warm_up`.
            slot: what it is called with.
        """
        super().__init__(1)
        self._make_work = make_work
        self._slot = slot
        self._work: Work[J, A] | None = None
        self._queue: deque[tuple[int, J]] = deque()
        self._closed = False

    @property
    def in_flight(self) -> int:
        """Number of jobs submitted and not collected yet."""
        return len(self._queue)

    def submit(self, job: J, *, seconds: float | None = None, exclusive: bool = False) -> int:
        """Take a job; see `Workers.submit`."""
        self._check_usable()
        check_limit(seconds)
        self._tickets += 1
        self._queue.append((self._tickets, job))
        return self._tickets

    def collect(self, timeout: float | None = None) -> list[Completion[A]]:
        """Run the next job, however long it takes; see `Workers.collect`."""
        self._check_usable()
        if not self._queue:
            return []
        work = self._make()
        ticket, job = self._queue[0]
        started = time.monotonic()
        answer, failure = attempt(lambda: work(job))
        seconds = time.monotonic() - started
        self._queue.popleft()
        self.busy_seconds += seconds
        return [Completion(ticket, answer, failure, seconds, self._slot.index)]

    def warm_up(self) -> None:
        """Make the work; see `Workers.warm_up`."""
        self._check_usable()
        self._make()

    def close(self) -> None:
        """Forget the work and the jobs."""
        self._closed, self._work = True, None
        self._queue.clear()

    def _make(self) -> Work[J, A]:
        if self._work is None:
            try:
                self._work = self._make_work(self._slot)
            except NASGymError:
                raise
            except Exception as error:
                failure = failure_of(error)
                raise WorkerError(f"the worker could not be made: {failure.message}\n{failure.traceback}") from error
        return self._work

    def _check_usable(self) -> None:
        if self._closed:
            raise WorkerError("the workers are closed; make new ones.")


def attempt(run: Callable[[], A], prefix: str = "") -> tuple[A | None, Failure | None]:
    """Return what `run` returns, or why it returned nothing."""
    try:
        return run(), None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return None, failure_of(error, prefix)


def failure_of(error: BaseException, prefix: str = "") -> Failure:
    """Return an exception as a failure."""
    details = traceback.TracebackException.from_exception(error)
    status = Status.OUT_OF_MEMORY if isinstance(error, MemoryError) else Status.CRASHED
    return Failure(status, " ".join(f"{prefix}{type(error).__name__}: {details}".split()), "".join(details.format()))


def check_limit(seconds: float | None) -> None:
    """Check the limit of a job.

    Raises:
        InvalidArgument: it is neither None nor a positive number.
    """
    if seconds is not None and not 0 < seconds < math.inf:
        raise InvalidArgument(f"seconds must be positive and finite, or None for no limit; got {seconds}.")
