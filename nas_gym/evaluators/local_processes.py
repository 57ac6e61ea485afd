"""Workers in processes of this machine: a job may raise, crash, hang or be killed there, and no other job notices.

What travels to and from a process is pickled. It should be plain values and arrays: the tensors that torch shares
between processes are lost with the process that made them.
"""

from __future__ import annotations

import contextlib
import faulthandler
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from operator import itemgetter
from typing import Any, NamedTuple

from nas_gym.errors import InvalidArgument, NASGymError, WorkerError
from nas_gym.evaluators.core import Status
from nas_gym.evaluators.workers import A, Completion, Failure, J, Slot, Work, Workers, attempt, check_limit, failure_of

_ATTEMPTS = 3  # starts of a worker in a row, or sendings of a job, before giving up
_PULSE = 1.0  # seconds after which a waiting process looks at the others even where no pipe has moved
_GRACE = 2.0  # seconds that a worker may be over the limit that it enforces itself, or a dying process take to die
_DUMP_BYTES = 1 << 16
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_dumps = ForkingPickler.dumps
_loads: Callable[[bytes], Any] = ForkingPickler.loads  # type: ignore[attr-defined]  # declared as if it were a method


class LocalProcesses(Workers[J, A]):
    """One process per slot, started when there is work for it and replaced when it dies.

    The processes are spawned: a script that makes them must do so under ``if __name__ == "__main__"``. They ignore
    Ctrl-C, which is their parent's business, and die with it; their own children die with them. Each has a pipe of
    its own and no lock is shared, so that none can block another by its death.
    """

    def __init__(self, make_work: Callable[[Slot], Work[J, A]], slots: Sequence[Slot]) -> None:
        """Prepare the slots; processes are started by the first jobs or by `warm_up`.

        Args:
            make_work: called once in every process, with its slot; must be picklable.
            slots: one for each process.

        Raises:
            InvalidArgument: there is no slot, or `make_work` cannot be pickled.
            WorkerError: this process is itself a worker, which can have no processes of its own.
        """
        if not slots:
            raise InvalidArgument("there must be at least one slot, got none.")
        if multiprocessing.current_process().daemon:
            raise WorkerError("a worker process can have no workers of its own; use InProcess there.")
        super().__init__(len(slots))
        self._make_work = _pickled(make_work, "make_work")
        self._slots = tuple(slots)
        self._crew: dict[int, _Worker] = {}
        self._failed_starts = [0] * len(slots)
        self._start_error: NASGymError | None = None
        self._queue: deque[_Task] = deque()
        self._done: list[tuple[float, Completion[A]]] = []
        self._owner = os.getpid()
        # Runs when the pool is forgotten, and at the end of the interpreter; it must not know the pool itself.
        self._stop = weakref.finalize(self, _stop_all, self._crew, self._owner)

    @property
    def in_flight(self) -> int:
        """Number of jobs submitted and not collected yet."""
        return len(self._queue) + len(self._done) + sum(worker.task is not None for worker in self._crew.values())

    def submit(self, job: J, *, seconds: float | None = None, exclusive: bool = False) -> int:
        """Take a job, pickling it at once; see `Workers.submit`."""
        self._check_usable()
        check_limit(seconds)
        payload = _pickled(job, "the job")
        with _uninterrupted():
            self._tickets += 1
            self._queue.append(_Task(self._tickets, payload, seconds, exclusive))
            self._advance()
            return self._tickets

    def collect(self, timeout: float | None = None) -> list[Completion[A]]:
        """Wait until a job is complete; see `Workers.collect`. Ctrl-C ends the wait and loses nothing."""
        self._check_usable()
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            with _uninterrupted():
                self._advance()
            self._raise_start_error()
            if self._done or not self.in_flight:
                completions = [completion for _, completion in sorted(self._done, key=itemgetter(0))]
                self._done = []
                return completions
            left = deadline - time.monotonic()
            if left <= 0:
                return []
            self._wait(min(left, _PULSE))

    def warm_up(self) -> None:
        """Start all workers and wait until they are ready; see `Workers.warm_up`."""
        self._check_usable()
        while True:
            with _uninterrupted():
                self._advance()
                for position in range(self.count):
                    if position not in self._crew and self._start_error is None:
                        self._start(position)
            self._raise_start_error()
            if len(self._crew) == self.count and all(worker.ready for worker in self._crew.values()):
                return
            self._wait(_PULSE)

    def close(self) -> None:
        """Kill the workers and release everything; harmless when done before, and in a fork of their parent."""
        with _uninterrupted():
            self._stop()
            self._queue.clear()
            self._done.clear()

    def _check_usable(self) -> None:
        if not self._stop.alive:
            raise WorkerError("the workers are closed; make new ones.")
        if os.getpid() != self._owner:
            raise WorkerError(f"the workers belong to process {self._owner}, of which this is a fork; make new ones.")

    def _raise_start_error(self) -> None:
        error, self._start_error = self._start_error, None
        if error is not None:
            raise error

    def _wait(self, seconds: float) -> None:
        wait([sign for worker in self._crew.values() for sign in (worker.pipe, worker.process.sentinel)], seconds)

    def _advance(self) -> None:
        """Take what the workers sent, bury those that died or are over their time, and hand out jobs."""
        for position, worker in list(self._crew.items()):
            # In this order, so that what a worker sent before it died is read.
            alive = worker.process.is_alive()
            for message in worker.messages():
                self._receive(position, worker, message)
            if not alive or worker.hung_up or worker.overdue or worker.refusal is not None:
                self._bury(position, worker, worker.stop())
        self._dispatch()

    def _receive(self, position: int, worker: _Worker, message: bytes) -> None:
        if not message:
            worker.begun = True
            return
        content, unreadable = attempt(lambda: _loads(message), "the answer cannot be received: ")
        if not worker.ready:
            worker.refusal = unreadable or content
            worker.ready = worker.refusal is None
            self._failed_starts[position] *= not worker.ready
        else:
            now = time.monotonic()
            self._complete(worker, content or _Reply(None, unreadable, now - worker.sent_at, now))

    def _complete(self, worker: _Worker, reply: _Reply) -> None:
        task, worker.task = worker.task, None
        if task is not None:
            completion = Completion(task.ticket, reply.answer, reply.failure, reply.seconds, worker.slot.index)
            self._done.append((reply.finished, completion))
            self.busy_seconds += reply.seconds

    def _bury(self, position: int, worker: _Worker, failure: Failure) -> None:
        """Settle what a stopped worker leaves: its start, or its job."""
        del self._crew[position]
        task, now = worker.task, time.monotonic()
        if not worker.ready:
            self._start_failed(position, worker.refusal or failure)
        elif task is not None and not worker.begun and task.losses + 1 < _ATTEMPTS:
            # The worker died before it had the job, which is therefore not to blame.
            task.losses += 1
            self._queue.appendleft(task)
        elif task is not None:
            limit = task.seconds if failure.status is Status.TIMEOUT and task.seconds else math.inf
            self._complete(worker, _Reply(None, failure, min(now - worker.sent_at, limit), now))

    def _dispatch(self) -> None:
        """Send waiting jobs to idle workers, strictly in order; start workers where there are too few."""
        while self._queue and self._start_error is None:
            crew = self._crew.values()
            running = [worker.task for worker in crew if worker.task is not None]
            starting = sum(not worker.ready for worker in crew)
            idle = [worker for worker in crew if worker.ready and worker.task is None]
            # A start disturbs an exclusive job as another job does.
            if any(task.exclusive for task in running) or (self._queue[0].exclusive and (running or starting)):
                return
            if idle:
                idle[0].send(self._queue.popleft())
            elif len(crew) < self.count and starting < len(self._queue):
                self._start(next(position for position in range(self.count) if position not in self._crew))
            else:
                return

    def _start(self, position: int) -> None:
        try:
            self._crew[position] = _Worker(self._slots[position], self._make_work)
        except OSError as error:
            self._start_failed(position, failure_of(error))

    def _start_failed(self, position: int, refusal: NASGymError | Failure) -> None:
        self._failed_starts[position] += 1
        if isinstance(refusal, Failure):
            if self._failed_starts[position] < _ATTEMPTS:
                return
            refusal = WorkerError(
                f"the worker of slot {self._slots[position].index} could not be started, {_ATTEMPTS} times in a row: "
                f"{refusal.message}. A script must make workers under `if __name__ == '__main__'`.\n"
                f"{refusal.traceback}".rstrip()
            )
        self._failed_starts[position] = 0
        self._start_error = self._start_error or refusal


@dataclass
class _Task:
    """A job on its way; `losses` counts the workers that died before they had it."""

    ticket: int
    payload: bytes
    seconds: float | None
    exclusive: bool
    losses: int = 0


class _Reply(NamedTuple):
    """What a worker sends after a job; `finished` is on the monotonic clock, which processes share."""

    answer: Any
    failure: Failure | None
    seconds: float
    finished: float


class _Worker:
    """A process as its parent sees it.

    It is sent `make_work`, then for every job the limit and the job. It sends None when it is ready, or why it is not;
    then for every job an empty message when it has received it, and a `_Reply`.
    """

    def __init__(self, slot: Slot, make_work: bytes) -> None:
        self.slot = slot
        self.ready = self.begun = self.hung_up = False
        self.refusal: NASGymError | Failure | None = None
        self.task: _Task | None = None
        self.sent_at = 0.0
        context = multiprocessing.get_context("spawn")
        self.pipe, far_pipe = context.Pipe()
        self.dump, far_dump = context.Pipe(duplex=False)
        os.set_blocking(self.dump.fileno(), False)
        self.process = context.Process(
            target=_serve, args=(far_pipe, far_dump, slot), name=f"worker {slot.index}", daemon=True
        )
        try:
            with _start_environment(slot.threads):
                self.process.start()
        except OSError:
            self.stop()
            raise
        finally:
            far_pipe.close()
            far_dump.close()
        self._post(lambda: self.pipe.send_bytes(make_work))

    @property
    def overdue(self) -> bool:
        """Whether the worker let the limit of its job pass, which it notices itself if it can."""
        limit = self.task.seconds if self.task is not None else None
        return limit is not None and time.monotonic() > self.sent_at + limit + _GRACE

    def send(self, task: _Task) -> None:
        """Give the worker a job; if it is dead, this shows later."""
        self.task, self.begun, self.sent_at = task, False, time.monotonic()
        self._post(lambda: (self.pipe.send(task.seconds), self.pipe.send_bytes(task.payload)))

    def _post(self, send: Callable[[], object]) -> None:
        try:
            send()
        except OSError:
            self.hung_up = True

    def messages(self) -> Iterator[bytes]:
        """Iterate over what the worker has sent, without waiting for more."""
        try:
            while self.pipe.poll():
                yield self.pipe.recv_bytes()
        except (EOFError, OSError):
            self.hung_up = True

    def stop(self) -> Failure:
        """End the process and its children, release what belongs to it, and return how it ended."""
        overdue, code, dump = self.overdue, None, ""
        if self.process.pid is not None:
            if self.hung_up:  # It is dying; its own exit code is the one to report.
                self.process.join(_GRACE)
            code = self.process.exitcode
            self.process.kill()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.join(_GRACE)
        with contextlib.suppress(BlockingIOError):
            dump = os.read(self.dump.fileno(), _DUMP_BYTES).decode(errors="replace")
        self.pipe.close()
        self.dump.close()
        if self.process.exitcode is not None:  # What waits for a device inside the kernel survives even SIGKILL.
            self.process.close()
        if self.task is not None and (overdue or dump.startswith("Timeout (")):
            return Failure(Status.TIMEOUT, f"the job took longer than its limit of {self.task.seconds:g} s", dump)
        if code is None:
            return Failure(Status.CRASHED, "the worker closed its connection", dump)
        if code >= 0:
            return Failure(Status.CRASHED, f"the worker exited with code {code}", dump)
        status = Status.KILLED if -code in (signal.SIGKILL, signal.SIGTERM) else Status.CRASHED
        return Failure(status, f"the worker was ended by signal {-code} ({signal.strsignal(-code)})", dump)


def _stop_all(crew: dict[int, _Worker], owner: int) -> None:
    """Stop all workers; a fork of their owner leaves them alone."""
    workers = list(crew.values())
    crew.clear()
    if os.getpid() == owner:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.stop()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block, so that it leaves a consistent state."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    arrived: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: arrived.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if arrived:
            signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def _start_environment(threads: int) -> Iterator[None]:
    """Set what a process inherits at its start: numbers of threads, and deafness to Ctrl-C from its first moment."""
    # This helper of multiprocessing would otherwise be started inside the block and unblock the signal.
    resource_tracker.ensure_running()
    before = {name: os.environ[name] for name in _THREADS if name in os.environ}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    try:
        yield
    finally:
        for name in _THREADS:
            del os.environ[name]
        os.environ.update(before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _serve(pipe: Connection, dump: Connection, slot: Slot) -> None:
    """Be a worker: make the work, then answer jobs until the parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    # A group of its own, so that the children of the work can be killed with it.
    os.setpgid(0, 0)
    # A full pipe then cuts a dump short; it must not block a process that is dying.
    os.set_blocking(dump.fileno(), False)
    faulthandler.enable(dump.fileno())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        work = _loads(pipe.recv_bytes())(slot)
    except BaseException as error:
        pipe.send(error if isinstance(error, NASGymError) else failure_of(error))
        return
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(slot.threads)
    pipe.send(None)
    with contextlib.suppress(EOFError):
        while True:
            limit, payload = pipe.recv(), pipe.recv_bytes()
            pipe.send_bytes(b"")
            pipe.send_bytes(_answer(work, payload, limit, dump))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    # Its sentinel alone is not enough: a fork of the parent keeps it open.
    while parent is not None and parent.is_alive() and os.getppid() == parent.pid:
        parent.join(_PULSE)
    os.killpg(0, signal.SIGKILL)


def _answer(work: Work[Any, Any], payload: bytes, limit: float | None, dump: Connection) -> memoryview:
    """Run one job and return the pickled reply; at its limit the process ends, whatever it is doing then."""
    started = time.monotonic()
    if limit is not None:
        seconds = min(max(limit, 1e-3), threading.TIMEOUT_MAX)
        faulthandler.dump_traceback_later(seconds, exit=True, file=dump.fileno())
    answer, failure = attempt(lambda: work(_loads(payload)))
    finished = time.monotonic()
    reply = _Reply(answer, failure, finished - started, finished)
    message, failure = attempt(lambda: _dumps(reply), "the answer cannot be sent: ")
    faulthandler.cancel_dump_traceback_later()
    return message or _dumps(reply._replace(answer=None, failure=failure))


def _pickled(value: object, name: str) -> bytes:
    try:
        return bytes(_dumps(value))
    except Exception as error:
        raise InvalidArgument(
            f"{name} cannot be sent to a worker process, got a {type(value).__name__}: {error}. It must be made of "
            "plain values, arrays, and functions and classes at the top of an importable module."
        ) from error
