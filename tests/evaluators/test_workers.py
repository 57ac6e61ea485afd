"""Workers: whatever happens to a job, its ticket ends once, with the right status, and the others never notice."""

from __future__ import annotations

import functools
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import faulty
import numpy as np
import pytest

from nas_gym.errors import DatasetError, InvalidArgument, WorkerError
from nas_gym.evaluators import local_processes as module
from nas_gym.evaluators.core import Status
from nas_gym.evaluators.local_processes import LocalProcesses
from nas_gym.evaluators.workers import Completion, InProcess, Slot, Workers, deal_slots

pytestmark = pytest.mark.timeout(60)

TWO = deal_slots(2)
MEGABYTE = 1 << 20
PATIENCE = 20.0
KINDS: dict[str, Callable[..., Workers[Any, Any]]] = {
    "in process": InProcess,
    "local processes": lambda make: LocalProcesses(make, TWO),
}

Pool = Workers[faulty.Job, Any]
Kind = Callable[[Any], Pool]


def drain(pool: Pool) -> dict[int, Completion[Any]]:
    """Collect until nothing is in flight; return the completions by ticket, in their order."""
    found: dict[int, Completion[Any]] = {}
    while pool.in_flight:
        completions = pool.collect(timeout=PATIENCE)
        assert completions, f"none of {pool.in_flight} jobs ended within {PATIENCE} seconds"
        for completion in completions:
            assert completion.ticket not in found
            found[completion.ticket] = completion
    return found


def run(pool: Pool, *job: Any, seconds: float | None = None) -> Completion[Any]:
    """Run one job."""
    ticket = pool.submit(job, seconds=seconds)
    return drain(pool)[ticket]


def status(completion: Completion[Any]) -> Status:
    """Return how a job ended."""
    return Status.OK if completion.failure is None else completion.failure.status


def message(completion: Completion[Any]) -> str:
    """Return why a job failed."""
    assert completion.failure is not None
    return completion.failure.message


def trace(completion: Completion[Any]) -> str:
    """Return where a job failed."""
    assert completion.failure is not None
    return completion.failure.traceback


def gone(pid: int) -> bool:
    """Tell whether a process has ended, waiting a moment for it."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def kind(request: pytest.FixtureRequest) -> Kind:
    """Return what makes workers of one kind."""
    return request.param


@pytest.fixture(scope="module")
def all_pools() -> Iterator[dict[str, Pool]]:
    """Return sound workers of both kinds, which no fault of any test breaks."""
    pools = {name: made(faulty.make) for name, made in KINDS.items()}
    yield pools
    for pool in pools.values():
        pool.close()


@pytest.fixture(params=KINDS)
def workers(all_pools: dict[str, Pool], request: pytest.FixtureRequest) -> Iterator[Pool]:
    """Return sound workers of one kind."""
    yield all_pools[request.param]
    drain(all_pools[request.param])


@pytest.fixture
def pool(all_pools: dict[str, Pool]) -> Iterator[Pool]:
    """Return two sound processes that are ready."""
    all_pools["local processes"].warm_up()
    yield all_pools["local processes"]
    drain(all_pools["local processes"])


# --- the contract of both kinds --------------------------------------------------------------------


def test_a_job_is_answered(workers: Pool) -> None:
    """The answer comes with the ticket of its job."""
    ticket = workers.submit((faulty.echo, 7))
    assert [(done.ticket, done.answer, done.failure) for done in workers.collect()] == [(ticket, 7, None)]


def test_tickets_increase(workers: Pool) -> None:
    """A later job has a larger ticket."""
    tickets = [workers.submit((faulty.echo,)) for _ in range(5)]
    assert tickets == sorted(set(tickets))


def test_every_ticket_ends_once_with_its_own_answer(workers: Pool) -> None:
    """Many jobs, each answered by its own number."""
    tickets = {workers.submit((faulty.echo, number)): number for number in range(50)}
    assert {ticket: done.answer for ticket, done in drain(workers).items()} == tickets


def test_an_answer_may_be_none(workers: Pool) -> None:
    """It is told from a failure."""
    done = run(workers, faulty.echo, None)
    assert (done.answer, done.failure) == (None, None)


@pytest.mark.parametrize(
    ("job", "ended", "said"),
    [
        pytest.param((faulty.raise_error, "one\ntwo"), Status.CRASHED, "ValueError: one two", id="exception"),
        pytest.param((faulty.exhaust_memory,), Status.OUT_OF_MEMORY, "MemoryError: no room", id="memory"),
        pytest.param((faulty.exit_politely,), Status.CRASHED, "SystemExit: 4", id="sys.exit"),
    ],
)
def test_what_a_job_lets_out_is_a_failure_in_one_line(workers: Pool, job: faulty.Job, ended: Status, said: str) -> None:
    """Exceptions are data."""
    done = run(workers, *job)
    assert (status(done), message(done), done.answer) == (ended, said, None)


def test_an_exception_keeps_its_traceback(workers: Pool) -> None:
    """It names the function that raised."""
    assert "in raise_error\n" in trace(run(workers, faulty.raise_error, "so"))


def test_workers_go_on_after_an_exception(workers: Pool) -> None:
    """The next job is answered."""
    run(workers, faulty.raise_error, "so")
    assert run(workers, faulty.echo, 8).answer == 8


def test_jobs_in_flight_are_counted_until_they_are_collected(workers: Pool) -> None:
    """Running or not."""
    before = workers.in_flight
    for _ in range(3):
        workers.submit((faulty.echo,))
    during = workers.in_flight
    drain(workers)
    assert (before, during, workers.in_flight) == (0, 3, 0)


def test_nothing_in_flight_is_nothing_to_collect(workers: Pool) -> None:
    """Without a wait, although there is no timeout."""
    assert workers.collect() == []


def test_seconds_are_those_of_the_job(workers: Pool) -> None:
    """Wall time, without what came before and after it."""
    run(workers, faulty.echo)
    assert 0.2 <= run(workers, faulty.sleep, 0.2).seconds < 0.4


def test_busy_seconds_are_the_sum_over_completions(workers: Pool) -> None:
    """Of failures too."""
    before = workers.busy_seconds
    jobs = [(faulty.sleep, 0.05), (faulty.raise_error, "so"), (faulty.sleep, 0.1)]
    for job in jobs:
        workers.submit(job)
    assert workers.busy_seconds - before == 0 or isinstance(workers, LocalProcesses)
    done = drain(workers)
    assert workers.busy_seconds - before == pytest.approx(sum(one.seconds for one in done.values()))


@pytest.mark.parametrize("seconds", [0, -1.0, float("inf"), float("nan")])
def test_a_limit_must_be_positive_and_finite(workers: Pool, seconds: float) -> None:
    """No limit is None."""
    with pytest.raises(InvalidArgument, match=f"positive and finite, or None for no limit; got {seconds}"):
        workers.submit((faulty.echo,), seconds=seconds)


def test_work_is_made_with_the_slot(kind: Kind) -> None:
    """Index, device and threads arrive."""
    with kind(faulty.make_slot_teller) as workers:
        assert run(workers).answer == Slot(0, "cpu", 1)


@pytest.mark.parametrize("ask", [lambda pool: pool.collect(), lambda pool: pool.warm_up()], ids=["collect", "warm_up"])
def test_an_error_of_the_project_while_making_work_is_raised_as_it_is(kind: Kind, ask: Callable[[Pool], None]) -> None:
    """Same class, same message, at the first use."""
    with kind(faulty.make_refused) as workers:
        workers.submit((faulty.echo,))
        with pytest.raises(DatasetError, match=r"^no data set called digitz$"):
            ask(workers)


def test_another_error_while_making_work_comes_with_its_traceback(kind: Kind) -> None:
    """As a WorkerError."""
    with kind(faulty.make_broken) as workers:
        workers.submit((faulty.echo,))
        with pytest.raises(WorkerError, match=r"(?s)ZeroDivisionError: nothing to divide by.*in make_broken\n"):
            workers.collect()


@pytest.mark.parametrize(
    "use", [lambda pool: pool.submit(()), lambda pool: pool.collect(), lambda pool: pool.warm_up()]
)
def test_closed_workers_cannot_be_used(kind: Kind, use: Callable[[Pool], None]) -> None:
    """The message says what to do."""
    workers = kind(faulty.make)
    workers.close()
    with pytest.raises(WorkerError, match="closed; make new ones"):
        use(workers)


def test_closing_forgets_the_jobs_and_may_be_repeated(kind: Kind) -> None:
    """Nothing is in flight after it."""
    workers = kind(faulty.make)
    for _ in range(4):
        workers.submit((faulty.echo,))
    workers.close()
    workers.close()
    assert workers.in_flight == 0


def test_ctrl_c_during_a_job_of_this_process_keeps_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is still in flight, and run again by the next collect."""
    workers = InProcess(faulty.make)
    workers.submit((faulty.interrupt_self,))
    with pytest.raises(KeyboardInterrupt):
        workers.collect()
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert [done.answer for done in workers.collect()] == ["went on"]
    finally:
        signal.signal(signal.SIGINT, previous)


# --- faults that end a process ---------------------------------------------------------------------

FATAL = {
    "exit": ((faulty.exit_at_once, 3), Status.CRASHED, "exited with code 3"),
    "exit 0": ((faulty.exit_at_once, 0), Status.CRASHED, "exited with code 0"),
    "segfault": ((faulty.segfault,), Status.CRASHED, "signal 11 (Segmentation fault)"),
    "abort": ((faulty.signal_self, signal.SIGABRT), Status.CRASHED, "signal 6 (Aborted)"),
    "SIGKILL": ((faulty.signal_self, signal.SIGKILL), Status.KILLED, "signal 9 (Killed)"),
    "SIGTERM": ((faulty.signal_self, signal.SIGTERM), Status.KILLED, "signal 15 (Terminated)"),
    "a fork stays": ((faulty.leave_a_fork,), Status.CRASHED, "exited with code 5"),
    "unpicklable answer": ((faulty.answer_unpicklable,), Status.CRASHED, "the answer cannot be sent: AttributeError"),
    "poisonous answer": ((faulty.answer_poison,), Status.CRASHED, "cannot be received: ValueError: this is poison"),
    "poisonous job": ((faulty.echo, faulty.Poison()), Status.CRASHED, "ValueError: this is poison"),
}
TOO_LONG = {
    "sleep": (faulty.sleep, faulty.FOREVER),
    "loop": (faulty.loop,),
    "the interpreter is held": (faulty.hold_interpreter,),
    "the answer takes forever": (faulty.answer_forever,),
}


@pytest.mark.parametrize(("job", "ended", "said"), FATAL.values(), ids=FATAL.keys())
def test_the_end_of_a_worker_is_the_failure_of_its_job(pool: Pool, job: faulty.Job, ended: Status, said: str) -> None:
    """The status tells who did it, the message how."""
    done = run(pool, *job)
    assert status(done) == ended
    assert said in message(done)


@pytest.mark.parametrize("job", [fault[0] for fault in FATAL.values()], ids=FATAL.keys())
def test_other_jobs_do_not_notice_the_end_of_a_worker(pool: Pool, job: faulty.Job) -> None:
    """Neither that beside it nor those behind it."""
    tickets = [pool.submit(one) for one in ((faulty.sleep, 0.1), job, (faulty.echo, 1), (faulty.echo, 2))]
    done = drain(pool)
    assert [status(done[ticket]) for ticket in (tickets[0], *tickets[2:])] == [Status.OK] * 3


@pytest.mark.parametrize(
    ("job", "function"),
    [((faulty.segfault,), "segfault"), ((faulty.signal_self, signal.SIGABRT), "signal_self")],
    ids=["segfault", "abort"],
)
def test_a_fatal_signal_leaves_a_traceback(pool: Pool, job: faulty.Job, function: str) -> None:
    """That of faulthandler, which names the function."""
    assert f"in {function}\n" in trace(run(pool, *job))


def test_a_traceback_too_long_to_keep_delays_nothing(pool: Pool) -> None:
    """The dump of many threads is cut short."""
    assert "signal 11" in message(run(pool, faulty.segfault_among_threads))


@pytest.mark.parametrize("job", TOO_LONG.values(), ids=TOO_LONG.keys())
def test_a_job_over_its_limit_times_out(pool: Pool, job: faulty.Job) -> None:
    """Whatever it does, it ends soon after its limit."""
    started = time.monotonic()
    done = run(pool, *job, seconds=0.3)
    assert status(done) == Status.TIMEOUT
    assert message(done) == "the job took longer than its limit of 0.3 s"
    assert time.monotonic() - started < 5


def test_a_timeout_says_where_the_job_was(pool: Pool) -> None:
    """By the dump of faulthandler."""
    assert "in loop\n" in trace(run(pool, faulty.loop, seconds=0.2))


def test_a_timeout_counts_as_its_limit(pool: Pool) -> None:
    """Although it was collected later."""
    pool.submit((faulty.loop,), seconds=0.2)
    time.sleep(0.6)
    assert [done.seconds for done in pool.collect()] == [0.2]


def test_a_limit_holds_while_the_caller_is_away(pool: Pool) -> None:
    """A job that would have ended before the caller came back was over its limit all the same."""
    pool.submit((faulty.sleep, 0.4), seconds=0.1)
    time.sleep(0.7)
    assert [status(done) for done in pool.collect()] == [Status.TIMEOUT]


def test_a_limit_is_counted_from_the_start_of_the_job(pool: Pool) -> None:
    """Waiting for a worker costs nothing."""
    tickets = [pool.submit((faulty.sleep, 0.2), seconds=0.7) for _ in range(10)]
    assert [status(drained) for drained in drain(pool).values()] == [Status.OK] * len(tickets)


def test_a_worker_that_cannot_keep_its_limit_is_killed(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was stopped, by SIGSTOP or a debugger, does not end by itself."""
    monkeypatch.setattr(module, "_GRACE", 0.2)
    assert status(run(pool, faulty.signal_self, signal.SIGSTOP, seconds=0.2)) == Status.TIMEOUT


def test_children_of_a_killed_worker_die_with_it(pool: Pool, tmp_path: Path) -> None:
    """Compilers and the like are not left behind."""
    diary = tmp_path / "child"
    run(pool, faulty.leave_a_child, diary, seconds=0.5)
    assert gone(int(diary.read_text()))


def test_an_idle_worker_that_is_killed_costs_no_job(pool: Pool) -> None:
    """The next job runs on its successor, also when it was sent to the dying one."""
    for _ in range(5):
        pid = run(pool, faulty.process_id).answer
        os.kill(pid, signal.SIGKILL)
        assert status(run(pool, faulty.echo)) == Status.OK


def test_a_job_that_was_sent_to_a_dying_worker_keeps_its_place() -> None:
    """It starts before those that were submitted after it."""
    with LocalProcesses(faulty.make, [Slot(0)]) as pool:
        for _ in range(5):
            pid = run(pool, faulty.process_id).answer
            os.kill(pid, signal.SIGKILL)
            tickets = [pool.submit((faulty.echo,)) for _ in range(3)]
            assert list(drain(pool)) == tickets


def test_random_faults_end_as_they_should() -> None:
    """60 jobs of all kinds, in random order, on two workers: each ticket has exactly its status."""
    endings = [(job, ended, None) for job, ended, _ in FATAL.values()]
    endings += [((faulty.loop,), Status.TIMEOUT, 0.1), ((faulty.echo, 1), Status.OK, None)]
    endings += [((faulty.sleep, 0.02), Status.OK, 10.0), ((faulty.exhaust_memory,), Status.OUT_OF_MEMORY, None)]
    with LocalProcesses(faulty.make, TWO) as pool:
        wanted = {}
        for number in np.random.default_rng(0).integers(len(endings), size=60):
            job, ended, seconds = endings[number]
            wanted[pool.submit(job, seconds=seconds)] = ended
        assert {ticket: status(done) for ticket, done in drain(pool).items()} == wanted


# --- what is sent ----------------------------------------------------------------------------------


def test_a_huge_answer_arrives(pool: Pool) -> None:
    """50 MB."""
    assert run(pool, faulty.zeros, 50 * MEGABYTE).answer == bytes(50 * MEGABYTE)


def test_a_huge_job_arrives(pool: Pool) -> None:
    """50 MB."""
    assert run(pool, len, bytes(50 * MEGABYTE)).answer == 50 * MEGABYTE


def test_a_worker_killed_while_it_sends_is_a_failure(pool: Pool) -> None:
    """Half an answer is none."""
    pool.submit((faulty.zeros, 50 * MEGABYTE))
    time.sleep(0.5)
    for child in multiprocessing.active_children():
        child.kill()
    assert [status(done) for done in drain(pool).values()] == [Status.KILLED]


def test_a_job_that_cannot_be_sent_is_refused(pool: Pool) -> None:
    """At once, and nothing is in flight."""
    with pytest.raises(InvalidArgument, match="the job cannot be sent to a worker process, got a tuple"):
        pool.submit((lambda: None,))
    assert pool.in_flight == 0


def test_a_job_is_sent_as_it_was_when_it_was_submitted(pool: Pool) -> None:
    """Later changes do not reach it."""
    value = [1]
    for _ in range(2):
        pool.submit((faulty.sleep, 0.1))
    ticket = pool.submit((faulty.echo, value))
    value.append(2)
    assert drain(pool)[ticket].answer == [1]


def test_work_that_cannot_be_sent_is_refused() -> None:
    """A function inside a function, for instance."""
    with pytest.raises(InvalidArgument, match="make_work cannot be sent to a worker process, got a function"):
        LocalProcesses(lambda slot: faulty.perform, TWO)


# --- order and exclusion ---------------------------------------------------------------------------


def test_a_short_job_behind_a_long_one_is_complete_first(pool: Pool) -> None:
    """Completions come in the order in which they happen."""
    long, short = pool.submit((faulty.sleep, 0.5)), pool.submit((faulty.sleep, 0.05))
    assert list(drain(pool)) == [short, long]


def test_completions_missed_come_in_the_order_in_which_they_happened(pool: Pool) -> None:
    """Not in that of the workers."""
    long, short = pool.submit((faulty.sleep, 0.3)), pool.submit((faulty.sleep, 0.05))
    time.sleep(0.7)
    assert [done.ticket for done in pool.collect()] == [short, long]


@pytest.mark.parametrize("count", [1, 2])
def test_jobs_start_in_the_order_of_their_submission(count: int) -> None:
    """None starts before one that was submitted a round earlier."""
    with LocalProcesses(faulty.make, deal_slots(count)) as pool:
        for _ in range(12):
            pool.submit((faulty.sleep, 0.02))
        starts = [done.answer[0] for _, done in sorted(drain(pool).items())]
    assert [number for number in range(count, 12) if starts[number] < starts[number - count]] == []


def test_both_workers_work_at_the_same_time(pool: Pool) -> None:
    """Two jobs, two slots, overlapping."""
    for _ in range(2):
        pool.submit((faulty.sleep, 0.3))
    first, second = drain(pool).values()
    assert {first.slot, second.slot} == {0, 1}
    assert max(first.answer[0], second.answer[0]) < min(first.answer[1], second.answer[1])


def test_exclusive_jobs_overlap_no_other_job(pool: Pool) -> None:
    """Each of them, among common ones, begins after the one before it ends and ends before the next begins."""
    exclusive = {pool.submit((faulty.sleep, 0.03), exclusive=number % 3 == 0): number % 3 == 0 for number in range(18)}
    spans = {ticket: done.answer for ticket, done in drain(pool).items()}
    overlapping = [
        (one, other)
        for one in spans
        for other in spans
        if one != other and exclusive[one] and spans[one][0] < spans[other][1] and spans[other][0] < spans[one][1]
    ]
    assert overlapping == []


def test_exclusive_jobs_in_a_row_run_one_after_the_other(pool: Pool) -> None:
    """In the order of their submission."""
    tickets = [pool.submit((faulty.sleep, 0.05), exclusive=True) for _ in range(4)]
    assert list(drain(pool)) == tickets


def test_no_later_job_overtakes_a_waiting_exclusive_one(pool: Pool) -> None:
    """One worker stays idle rather than let it starve."""
    pool.submit((faulty.sleep, 0.3))
    exclusive = pool.submit((faulty.sleep, 0.01), exclusive=True)
    later = pool.submit((faulty.sleep, 0.01))
    done = drain(pool)
    assert done[later].answer[0] > done[exclusive].answer[1]


def test_no_process_starts_beside_an_exclusive_job(pool: Pool) -> None:
    """A start would disturb what it measures."""
    run(pool, faulty.exit_at_once, 1)
    pool.submit((faulty.sleep, 0.3), exclusive=True)
    pool.submit((faulty.echo,))
    assert len(multiprocessing.active_children()) == 1


def test_an_exclusive_job_waits_for_processes_that_start(tmp_path: Path) -> None:
    """Although the jobs that they were started for are done."""
    with LocalProcesses(functools.partial(faulty.make_slowly, tmp_path / "ready"), TWO) as pool:
        for _ in range(2):
            pool.submit((faulty.echo,))
        exclusive = pool.submit((faulty.sleep, 0), exclusive=True)
        started, _ = drain(pool)[exclusive].answer
    assert started > float((tmp_path / "ready").read_text())


# --- waiting ---------------------------------------------------------------------------------------


def test_a_wait_ends_with_its_timeout(pool: Pool) -> None:
    """Without a completion, and the job is in flight still."""
    pool.submit((faulty.sleep, 0.5))
    started = time.monotonic()
    assert pool.collect(timeout=0.1) == []
    assert 0.1 <= time.monotonic() - started < 0.4
    assert pool.in_flight == 1


def test_submitting_waits_for_nothing() -> None:
    """Neither for the start of a process nor for an idle one."""
    with LocalProcesses(faulty.make, TWO) as pool:
        started = time.monotonic()
        for _ in range(5):
            pool.submit((faulty.sleep, faulty.FOREVER))
        assert time.monotonic() - started < 1


def test_no_more_processes_start_than_there_are_jobs() -> None:
    """A single job needs one."""
    before = len(multiprocessing.active_children())
    with LocalProcesses(faulty.make, deal_slots(4)) as pool:
        run(pool, faulty.echo)
        assert len(multiprocessing.active_children()) - before == 1


def test_warming_up_starts_all() -> None:
    """Before there is a job."""
    before = len(multiprocessing.active_children())
    with LocalProcesses(faulty.make, TWO) as pool:
        pool.warm_up()
        assert len(multiprocessing.active_children()) - before == 2


def interrupt(after: float) -> threading.Timer:
    """Press Ctrl-C in this process after a while."""
    timer = threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


def test_ctrl_c_ends_a_wait(pool: Pool) -> None:
    """And a later one gets the answer."""
    ticket = pool.submit((faulty.sleep, 0.5))
    interrupt(0.1)
    with pytest.raises(KeyboardInterrupt):
        pool.collect()
    assert status(drain(pool)[ticket]) == Status.OK


def test_nothing_is_lost_by_ctrl_c_at_any_moment(pool: Pool) -> None:
    """Huge answers, on which most time is spent in receiving, and an impatient user."""
    wanted = {pool.submit((faulty.zeros, 20 * MEGABYTE)) for _ in range(12)}
    found: list[Completion[Any]] = []
    interrupts = 0
    for pause in np.random.default_rng(0).uniform(0.0, 0.05, 1000):
        if not pool.in_flight:
            break
        try:
            timer = interrupt(pause)
            while pool.in_flight:
                found.extend(pool.collect())
            timer.join()
            time.sleep(1)
        except KeyboardInterrupt:
            interrupts += 1
    assert interrupts > 2
    assert sorted(done.ticket for done in found) == sorted(wanted)


# --- the start of a worker -------------------------------------------------------------------------


def test_a_worker_that_dies_at_every_start_is_an_error() -> None:
    """After three attempts, told with the exit code."""
    with LocalProcesses(faulty.make_dying, TWO) as pool:
        pool.submit((faulty.echo,))
        with pytest.raises(WorkerError, match=r"slot 0 could not be started, 3 times in a row.*exited with code 7"):
            pool.collect()


def test_a_worker_that_dies_at_its_first_starts_is_started_again(tmp_path: Path) -> None:
    """The job does not notice."""
    make = functools.partial(faulty.make_dying_sometimes, tmp_path / "diary", (1, 2))
    with LocalProcesses(make, [Slot(0)]) as pool:
        assert run(pool, faulty.echo, 5).answer == 5


def test_failed_starts_count_in_a_row_only(tmp_path: Path) -> None:
    """Two before the worker was ready and one after do not make three."""
    make = functools.partial(faulty.make_dying_sometimes, tmp_path / "diary", (1, 2, 4))
    with LocalProcesses(make, [Slot(0)]) as pool:
        run(pool, faulty.exit_at_once, 1)
        assert run(pool, faulty.echo, 5).answer == 5


def test_jobs_survive_a_failed_start(tmp_path: Path) -> None:
    """After the error the same workers can be asked again."""
    make = functools.partial(faulty.make_dying_sometimes, tmp_path / "diary", (1, 2, 3))
    with LocalProcesses(make, [Slot(0)]) as pool:
        ticket = pool.submit((faulty.echo, 6))
        with pytest.raises(WorkerError):
            pool.collect()
        assert drain(pool)[ticket].answer == 6


def test_processes_that_cannot_be_made_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the system has no room for one more."""

    def refuse(*arguments: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(multiprocessing.util, "spawnv_passfds", refuse)
    with LocalProcesses(faulty.make, TWO) as pool:
        pool.submit((faulty.echo,))
        with pytest.raises(WorkerError, match=r"3 times in a row.*Resource temporarily unavailable"):
            pool.collect()


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"])
def test_a_worker_is_born_with_its_number_of_threads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the environment, which is that of the parent again afterwards."""
    monkeypatch.setenv("OMP_NUM_THREADS", "9")
    before = dict(os.environ)
    with LocalProcesses(faulty.make, [Slot(0, threads=3)]) as pool:
        assert run(pool, faulty.environment, name).answer == "3"
    assert dict(os.environ) == before


def test_a_worker_that_made_work_with_torch_tells_it_the_number_of_threads() -> None:
    """Once."""
    with LocalProcesses(faulty.make_beside_torch, [Slot(0, threads=3)]) as pool:
        assert run(pool).answer == [3]


def test_a_worker_may_run_commands(pool: Pool) -> None:
    """Although it is a daemon."""
    assert run(pool, faulty.run_command, ["echo", "hello"]).answer == "hello\n"


def test_a_worker_can_have_no_workers(pool: Pool) -> None:
    """The message names the other kind."""
    assert "use InProcess there" in message(run(pool, faulty.start_workers_inside))


def test_workers_need_a_slot() -> None:
    """At least one."""
    with pytest.raises(InvalidArgument, match="at least one slot"):
        LocalProcesses(faulty.make, [])


# --- what stays behind -----------------------------------------------------------------------------


def belongings(folder: Path) -> dict[str, list[str]]:
    """Return processes, open files, threads and temporary files of this process."""
    children = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
    return {
        "processes": sorted(pid for pids in children for pid in pids),
        "files": sorted(path.name for path in Path("/proc/self/fd").iterdir()),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "temporary files": sorted(path.name for path in folder.rglob("*")),
    }


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give this process and its workers a folder for temporary files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    resource_tracker.ensure_running()  # which stays, once for all of multiprocessing
    return tmp_path


@pytest.mark.parametrize("ending", ["close", "forget", "running", "failed start"])
def test_nothing_stays_behind(own_folder: Path, ending: str) -> None:
    """No process, file, thread or temporary file, however the workers end."""
    gc.collect()
    before = belongings(own_folder)
    pool = LocalProcesses(faulty.make_dying if ending == "failed start" else faulty.make, TWO)
    if ending == "failed start":
        pool.submit((faulty.echo,))
        with pytest.raises(WorkerError):
            pool.collect()
    else:
        for job in ((faulty.segfault,), (faulty.exit_at_once, 1), (faulty.echo, 1)):
            pool.submit(job)
        drain(pool)
    if ending == "running":
        for _ in range(5):
            pool.submit((faulty.loop,))
        pool.collect(timeout=0.3)
    if ending != "forget":
        pool.close()
    del pool
    gc.collect()
    assert belongings(own_folder) == before


def test_closing_does_not_wait_for_running_jobs() -> None:
    """They are killed."""
    pool = LocalProcesses(faulty.make, TWO)
    pool.warm_up()
    for _ in range(3):
        pool.submit((faulty.hold_interpreter,))
    pool.collect(timeout=0.2)
    started = time.monotonic()
    pool.close()
    assert time.monotonic() - started < 1


def test_a_fork_may_neither_use_nor_stop_the_workers_of_its_parent(pool: Pool) -> None:
    """They go on for the parent after the fork has closed them."""
    pid = run(pool, faulty.process_id).answer
    fork = os.fork()
    if fork == 0:
        code = 1
        try:
            pool.submit((faulty.echo,))
        except WorkerError:
            code = 0
        finally:
            pool.close()
            os._exit(code)
    assert os.waitpid(fork, 0)[1] == 0
    assert run(pool, faulty.process_id).answer == pid


# --- whole programs --------------------------------------------------------------------------------

PROGRAM = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import faulty
from nas_gym.evaluators.local_processes import LocalProcesses
from nas_gym.evaluators.workers import deal_slots

def main():
    pool = LocalProcesses(faulty.make, deal_slots(2))
    pool.warm_up()
{body}
"""
GUARDED = '\nif __name__ == "__main__":\n    main()\n'


def program(folder: Path, body: str, start: str = GUARDED) -> subprocess.Popen[str]:
    """Start a script of its own, whose pipes its workers inherit: they close when the last process is gone."""
    script = folder / "program.py"
    indented = "".join(f"    {line}\n" for line in body.strip().splitlines())
    script.write_text(PROGRAM.format(tests=str(Path(__file__).parents[1]), body=indented) + start)
    return subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


HANG = """
for _ in range(2):
    pool.submit((faulty.sleep, faulty.FOREVER))
print("busy", flush=True)
"""


def test_workers_die_with_a_killed_parent(tmp_path: Path) -> None:
    """After kill -9, in the middle of a job."""
    with program(tmp_path, HANG + "pool.collect()") as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "busy\n"
        parent.kill()
        parent.communicate(timeout=10)
    assert parent.returncode == -signal.SIGKILL


def test_workers_die_with_a_killed_parent_that_had_forked(tmp_path: Path) -> None:
    """The fork keeps all pipes open."""
    body = HANG.replace('"busy"', "*[child.pid for child in multiprocessing.active_children()]")
    body = (
        f"import multiprocessing, time\n{body}\nif os.fork() == 0:\n    time.sleep(15)\n    os._exit(0)\npool.collect()"
    )
    with program(tmp_path, body) as parent:
        assert parent.stdout is not None
        pids = parent.stdout.readline().split()
        time.sleep(0.2)
        parent.kill()
        vanished = [gone(int(pid)) for pid in pids]
        os.killpg(parent.pid, signal.SIGKILL)
    assert vanished == [True, True]


def test_workers_end_with_a_parent_that_forgot_to_close_them(tmp_path: Path) -> None:
    """At the end of the interpreter, quickly and silently."""
    with program(tmp_path, "global forgotten\nforgotten = pool\n" + HANG) as parent:
        out, err = parent.communicate(timeout=20)
    assert (parent.returncode, out, err) == (0, "busy\n", "")


CTRL_C = """
first = pool.submit((faulty.sleep, 1.0))
second = pool.submit((faulty.process_id,))
pid = pool.collect()[0].answer
try:
    print("busy", flush=True)
    pool.collect()
except KeyboardInterrupt:
    print("interrupted", [done.failure for done in pool.collect()], flush=True)
    pool.submit((faulty.process_id,))
    print("same worker" if pool.collect()[0].answer else "", flush=True)
pool.close()
"""


def test_ctrl_c_reaches_the_parent_alone(tmp_path: Path) -> None:
    """The workers go on, silently, and the parent decides."""
    with program(tmp_path, CTRL_C) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "busy\n"
        os.killpg(parent.pid, signal.SIGINT)
        out, err = parent.communicate(timeout=20)
    assert (parent.returncode, out, err) == (0, "interrupted [None]\nsame worker\n", "")


def test_a_worker_is_deaf_to_ctrl_c(pool: Pool) -> None:
    """Wherever it comes from."""
    assert run(pool, faulty.interrupt_self).answer == "went on"


def test_a_worker_is_deaf_to_ctrl_c_from_its_birth() -> None:
    """Before its first line of Python."""
    with LocalProcesses(faulty.make, [Slot(0)]) as pool:
        before = set(multiprocessing.active_children())
        pool.submit((faulty.process_id,))
        (born,) = set(multiprocessing.active_children()) - before
        assert born.pid is not None
        os.kill(born.pid, signal.SIGINT)
        assert [done.answer for done in drain(pool).values()] == [born.pid]


def test_a_script_without_a_guarded_start_is_told_so(tmp_path: Path) -> None:
    """Spawned processes import the script, which must not start them again."""
    with program(tmp_path, "", start="\nmain()\n") as parent:
        _, err = parent.communicate(timeout=30)
    assert parent.returncode == 1
    assert "WorkerError: the worker of slot" in err
    assert "A script must make workers under `if __name__ == '__main__'`." in err


# --- slots -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "devices"),
    [
        pytest.param((3,), ["cpu", "cpu", "cpu"], id="cpu"),
        pytest.param((2, "cuda", 4), ["cuda:0", "cuda:1"], id="more accelerators than workers"),
        pytest.param((4, "cuda", 2, 2), ["cuda:0", "cuda:1", "cuda:0", "cuda:1"], id="shared accelerators"),
        pytest.param((2, "cuda:1", 2), ["cuda:1", "cuda:1"], id="one of them"),
    ],
)
def test_slots_are_dealt(arguments: tuple[Any, ...], devices: list[str]) -> None:
    """Round robin over the accelerators, one thread each."""
    assert deal_slots(*arguments) == tuple(Slot(index, device, 1) for index, device in enumerate(devices))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param((0,), "at least 1, got 0", id="none"),
        pytest.param((1, "cuda"), "1 workers do not fit on 0 accelerators", id="no accelerator"),
        pytest.param((5, "cuda", 2, 2), "5 workers do not fit on 2 accelerators .* at most 4", id="too many"),
    ],
)
def test_slots_that_cannot_be_dealt(arguments: tuple[Any, ...], said: str) -> None:
    """The message says how many there could be."""
    with pytest.raises(InvalidArgument, match=said):
        deal_slots(*arguments)
