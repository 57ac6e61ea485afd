"""The evaluation store: what was put comes back, whoever writes, forks, fills the disk or is killed."""

from __future__ import annotations

import dataclasses
import errno
import math
import os
import pickle  # noqa: TID251 - stores are handed to worker processes
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_gym.errors import InvalidArgument, StoreError
from nas_gym.evaluators import store as module
from nas_gym.evaluators.core import Status
from nas_gym.evaluators.store import EvaluationStore
from nas_gym.evaluators.stored import SCRATCH, EvaluationKey, StoredEvaluation

KEY = EvaluationKey("toy", (0, 1, 2), "training", 1, "digits", "recipe", 2**63 - 1, 6)
OK = StoredEvaluation(
    Status.OK,
    {"valid_accuracy": 0.1, "parameters": 5242.0},
    {"test_accuracy": 1 / 3},
    {"valid_accuracy": (0.05, 0.1), "loss": (2.3, 2.2)},
    1.5,
    host="here",
    versions={"torch": "2.8.0"},
    created="2026-01-01T00:00:00+00:00",
)
TRANSIENT = [status for status in Status if status.transient]
PERMANENT = [status for status in Status if not status.transient]

LABEL = {"ids": lambda value: value.label if isinstance(value, Status) else None}

OTHER_FIELDS = {
    "space": "other",
    "encoding": (0, 1),
    "evaluator": "other",
    "version": 2,
    "dataset": "other",
    "recipe": "other",
    "seed": 0,
    "fidelity": 5,
    "parent": "0" * 32,
}

PREAMBLE = f"""
import os, sys, threading, time
from dataclasses import replace
from nas_gym.evaluators.core import Status
from nas_gym.evaluators.store import EvaluationStore
from nas_gym.evaluators.stored import EvaluationKey, StoredEvaluation
KEY = EvaluationKey(*{dataclasses.astuple(KEY)!r})
VALUE = StoredEvaluation(Status.OK, {{"valid_accuracy": 0.1}}, {{}}, {{"loss": (2.3, 2.2)}}, 1.5)
PATH = sys.argv[1]
"""

FORK = """
store = EvaluationStore(PATH)
store.put(KEY, VALUE)
children = []
for child in range(3):
    process = os.fork()
    if process == 0:
        for index in range(50):
            store.put(replace(KEY, recipe=f"child {child}", seed=index), VALUE)
        os._exit(0)
    children.append(process)
store.close()  # the last connection, were the children not to hold any
for process in children:
    assert os.waitpid(process, 0)[1] == 0
"""

FORK_WHILE_WRITING = """
store = EvaluationStore(PATH)
def write():
    for index in range(300):
        store.put(replace(KEY, recipe="thread", seed=index), VALUE)
thread = threading.Thread(target=write)
thread.start()
for child in range(20):
    process = os.fork()
    if process == 0:
        store.put(replace(KEY, recipe="child", seed=child), VALUE)
        os._exit(0)
    assert os.waitpid(process, 0)[1] == 0
thread.join()
store.close()
"""

WRITER = """
sys.stdout.write("ready\\n")
sys.stdout.flush()
while not os.path.exists(PATH + ".go"):
    time.sleep(0.001)
with EvaluationStore(PATH) as store:
    for index in range(int(sys.argv[3])):
        store.put(replace(KEY, recipe=sys.argv[2], seed=index), VALUE)
"""

ENDLESS = """
store = EvaluationStore(PATH)
index = int(sys.argv[2])
while True:
    store.put(replace(KEY, seed=index), VALUE)
    sys.stdout.write(f"{index}\\n")
    sys.stdout.flush()
    index += 1
"""

FILE_SIZE_LIMIT = """
import resource
from nas_gym.errors import StoreError
store = EvaluationStore(PATH)
store.put(KEY, VALUE)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
index = 0
try:
    while True:
        store.put(replace(KEY, seed=index), VALUE)
        index += 1
except StoreError:
    pass
readable = len(store)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
store.put(replace(KEY, seed=index), VALUE)
sys.stdout.write(f"{readable - index} {len(store) - index} {store.verify()}")
store.close()
"""


def script(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start code in a fresh interpreter in which warnings are errors."""
    command = [sys.executable, "-W", "error", "-c", PREAMBLE + code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finish(*processes: subprocess.Popen[str]) -> list[str]:
    """Wait for processes that must succeed and return what they printed."""
    printed = []
    for process in processes:
        try:
            out, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
        assert (process.returncode, err) == (0, "")
        printed.append(out)
    return printed


def write_together(path: Path, *recipes: str, rows: int) -> None:
    """Let processes write at the same time, from the creation of the store on."""
    processes = [script(WRITER, path, recipe, rows) for recipe in recipes]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    Path(f"{path}.go").touch()
    finish(*processes)


def failed(status: Status, **changes: Any) -> StoredEvaluation:
    """Return an answer without metrics."""
    return dataclasses.replace(
        StoredEvaluation(status, {}, {}, {}, 0.5, created="2026-01-01T00:00:00+00:00"), **changes
    )


def seeds(store: EvaluationStore) -> list[int]:
    """Return the seeds of all rows."""
    return [key.seed for key, _ in store.rows()]


def execute(path: Path, *statements: str) -> None:
    """Change a database behind the store's back."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def artifact(store: EvaluationStore, content: bytes = b"weights") -> str:
    """Put a file into a store."""
    file = store.temporary_file()
    file.write_bytes(content)
    return store.put_artifact(file)


def artifact_file(store: EvaluationStore, name: str) -> Path:
    """Return where an artifact is, which must exist."""
    path = store.artifact_path(name)
    assert path is not None
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a store that does not exist yet."""
    return tmp_path / "evaluations.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[EvaluationStore]:
    """Return an empty store."""
    with EvaluationStore(path) as store:
        yield store


@pytest.fixture
def other(tmp_path: Path) -> Iterator[EvaluationStore]:
    """Return another empty store."""
    with EvaluationStore(tmp_path / "other.sqlite") as other:
        yield other


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EvaluationStore]:
    """Return a store to which many examples add."""
    with EvaluationStore(tmp_path_factory.mktemp("shared") / "evaluations.sqlite") as store:
        yield store


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """Return a directory of its own for a user to whom permissions apply, also where root runs the tests."""
    folder = Path(tempfile.mkdtemp())
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    try:
        yield folder
    finally:
        os.seteuid(os.getuid())
        folder.chmod(0o700)
        shutil.rmtree(folder)


# --- keys ------------------------------------------------------------------------------------------

few_texts = st.sampled_from(["a", "b", 'a","b', "a, b", "", "1", "[1]", "ä", "a\0", "scratch"])
few_numbers = st.integers(0, 2)
few_keys = st.builds(
    EvaluationKey,
    few_texts,
    st.lists(few_numbers, max_size=2).map(tuple),
    few_texts,
    few_numbers,
    few_texts,
    few_texts,
    few_numbers,
    few_numbers,
    few_texts,
)


@given(few_keys, few_keys, st.sets(st.sampled_from(list(OTHER_FIELDS))))
def test_digests_are_equal_exactly_if_keys_are(one: EvaluationKey, other: EvaluationKey, differing: set[str]) -> None:
    """Whatever is in the texts, no field runs into another."""
    mixed = dataclasses.replace(one, **{name: getattr(other, name) for name in differing})
    assert (one.digest == mixed.digest) == (one == mixed)


@pytest.mark.parametrize("name", OTHER_FIELDS)
def test_the_digest_depends_on_every_field(name: str) -> None:
    """An answer serves only where everything is the same."""
    assert dataclasses.replace(KEY, **{name: OTHER_FIELDS[name]}).digest != KEY.digest


def test_the_digest_stays_the_same_between_versions() -> None:
    """Stores on the users' disks hold it."""
    assert EvaluationKey("toy", (0, 1), "training", 1, "digits", "recipe", 0, 6).digest == (
        "98b0b6aa0b9cbd5aef4eeab32867d461"
    )


def test_numbers_of_numpy_make_the_same_key() -> None:
    """Encodings often come out of arrays."""
    choices: Any = tuple(np.array([0, 1, 2]))
    key = EvaluationKey("toy", choices, "training", 1, "digits", "recipe", int(KEY.seed), np.int64(6))  # type: ignore[arg-type]
    assert key.digest == KEY.digest


def test_a_key_starts_from_scratch_unless_told() -> None:
    """Inheriting weights is the exception."""
    assert KEY.parent == SCRATCH


def test_another_fidelity_changes_nothing_else() -> None:
    """It is the same training, shorter or longer."""
    assert KEY.at(3) == dataclasses.replace(KEY, fidelity=3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("seed", 2**63, id="64 bits"),
        pytest.param("seed", 0.5, id="fraction"),
        pytest.param("fidelity", None, id="no fidelity"),
        pytest.param("version", "1", id="text for a number"),
        pytest.param("encoding", (0, 1.0), id="fraction in the encoding"),
        pytest.param("encoding", (2**63,), id="64 bits in the encoding"),
        pytest.param("space", None, id="no space"),
        pytest.param("recipe", b"recipe", id="bytes"),
        pytest.param("dataset", "\ud800", id="invalid text"),
    ],
)
def test_a_key_that_cannot_be_stored_is_refused(name: str, value: Any) -> None:
    """The message names the field, before hours of training."""
    with pytest.raises(InvalidArgument, match=f"{name} of an evaluation key takes"):
        dataclasses.replace(KEY, **{name: value})


# --- round trip ------------------------------------------------------------------------------------

names = st.text(max_size=8)
numbers = st.floats() | st.sampled_from([math.inf, -math.inf, math.nan, 5e-324, 0.1 + 0.2])
metrics = st.dictionaries(names, numbers, max_size=4)
texts = st.text(max_size=20)
values = st.builds(
    StoredEvaluation,
    st.sampled_from(PERMANENT),
    metrics,
    metrics,
    st.dictionaries(names, st.lists(numbers, max_size=4).map(tuple), max_size=3),
    numbers.map(lambda number: number or 0.0),
    message=texts,
    traceback=texts,
    artifact=st.none() | st.just("0" * 32),
    host=texts,
    versions=st.dictionaries(names, texts, max_size=3),
    created=st.text(min_size=1, max_size=20),
)
fresh = count()


@given(values)
def test_an_answer_comes_back_exactly(shared: EvaluationStore, value: StoredEvaluation) -> None:
    """Every bit of every number, NaN and infinities included, and every character."""
    key = dataclasses.replace(KEY, recipe=f"round trip {next(fresh)}")
    shared.put(key, value)
    assert repr(shared.get(key)) == repr(value)


@given(few_keys)
def test_a_key_comes_back_exactly(shared: EvaluationStore, key: EvaluationKey) -> None:
    """The last row has the key that was put last."""
    key = dataclasses.replace(key, recipe=f"{key.recipe} {next(fresh)}")
    shared.put(key, OK)
    assert shared.newest(1) == [(key, OK)]


@given(values)
def test_metrics_are_json_that_everybody_reads(shared: EvaluationStore, value: StoredEvaluation) -> None:
    """SQLite's own functions, which know neither NaN nor Infinity, accept every column."""
    key = dataclasses.replace(KEY, recipe=f"json {next(fresh)}")
    shared.put(key, value)
    valid = "SELECT json_valid(metrics), json_valid(held_out), json_valid(curve), json_valid(versions)"
    with shared._session() as connection:
        row = connection.execute(f"{valid} FROM evaluations WHERE digest = ?", (key.digest,)).fetchone()
    assert row == (1, 1, 1, 1)


def test_numbers_of_numpy_become_floats(store: EvaluationStore) -> None:
    """Whatever library measured, plain floats come back."""
    store.put(KEY, dataclasses.replace(OK, metrics={"one": np.float32(0.5), "two": 3}))
    found = store.get(KEY)
    assert found is not None
    assert {name: (type(value), value) for name, value in found.metrics.items()} == {
        "one": (float, 0.5),
        "two": (float, 3),
    }


def test_odd_characters_of_a_message_are_spelt_out(store: EvaluationStore) -> None:
    """A file name that is no valid Unicode must not lose the evaluation."""
    store.put(KEY, failed(Status.BUILD_ERROR, message="no file \udcff"))
    found = store.get(KEY)
    assert found is not None
    assert found.message == r"no file \udcff"


def test_the_time_is_filled_in(store: EvaluationStore) -> None:
    """In UTC, where the caller gives none."""
    store.put(KEY, dataclasses.replace(OK, created=""))
    found = store.get(KEY)
    assert found is not None
    assert found.created.endswith("+00:00")


def test_an_unknown_key_has_no_answer(store: EvaluationStore) -> None:
    """None, not an exception."""
    assert store.get(KEY) is None


def test_an_answer_survives_the_store(path: Path) -> None:
    """It is in the file."""
    with EvaluationStore(path) as store:
        store.put(KEY, OK)
    with EvaluationStore(path) as store:
        assert store.get(KEY) == OK


# --- what is kept ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", PERMANENT, **LABEL)
def test_a_permanent_answer_is_kept(store: EvaluationStore, status: Status) -> None:
    """What would end the same way again is not computed again."""
    store.put(KEY, failed(status))
    assert store.get(KEY) == failed(status)


@pytest.mark.parametrize("status", TRANSIENT, **LABEL)
def test_a_transient_failure_is_no_answer(store: EvaluationStore, status: Status) -> None:
    """The next query tries again."""
    store.put(KEY, failed(status))
    assert (store.get(KEY), KEY in store, len(store)) == (None, False, 0)


def test_transient_failures_are_recorded_in_order(store: EvaluationStore) -> None:
    """Whoever asks why it took so long finds every attempt."""
    attempts = [failed(Status.TIMEOUT, message=f"attempt {number}") for number in range(3)]
    for attempt in attempts:
        store.put(KEY, attempt)
    store.put(KEY.at(1), failed(Status.CRASHED))
    assert store.failures(KEY) == attempts


def test_attempts_are_numbered_by_key(store: EvaluationStore) -> None:
    """The first attempt at a key has number 1."""
    for key in (KEY, KEY, KEY.at(1)):
        store.put(key, failed(Status.KILLED))
    with store._session() as connection:
        rows = connection.execute("SELECT fidelity, attempt FROM failures ORDER BY id").fetchall()
    assert rows == [(6, 1), (6, 2), (1, 1)]


@pytest.mark.parametrize("order", [(Status.TIMEOUT, Status.OK), (Status.OK, Status.TIMEOUT)], ids=str)
def test_a_failure_and_an_answer_stand_side_by_side(store: EvaluationStore, order: tuple[Status, ...]) -> None:
    """Neither hides the other, whichever came first."""
    for status in order:
        store.put(KEY, failed(status))
    assert (store.get(KEY), store.failures(KEY)) == (failed(Status.OK), [failed(Status.TIMEOUT)])


def test_the_first_answer_stays(store: EvaluationStore) -> None:
    """What was given to one agent is given to all."""
    store.put(KEY, OK)
    store.put(KEY, dataclasses.replace(OK, metrics={"valid_accuracy": 0.9}))
    assert (store.get(KEY), len(store)) == (OK, 1)


def test_fidelities_are_those_of_the_same_training(store: EvaluationStore) -> None:
    """In ascending order, without those of any other key or of transient failures."""
    for fidelity in (6, 1, 3):
        store.put(KEY.at(fidelity), dataclasses.replace(OK, cost_seconds=float(fidelity)))
    for name, value in OTHER_FIELDS.items():
        if name != "fidelity":
            store.put(dataclasses.replace(KEY, fidelity=9, **{name: value}), OK)
    store.put(KEY.at(12), failed(Status.TIMEOUT))
    found = store.fidelities(KEY.at(100))
    assert [(fidelity, value.cost_seconds) for fidelity, value in found.items()] == [(1, 1.0), (3, 3.0), (6, 6.0)]


def test_rows_come_in_order_of_insertion(store: EvaluationStore) -> None:
    """More of them than are read at a time."""
    order = np.random.default_rng(0).permutation(1500).tolist()
    for seed in order:
        store.put(dataclasses.replace(KEY, seed=seed), OK)
    assert seeds(store) == order


def test_rows_can_be_put_while_others_are_read(store: EvaluationStore) -> None:
    """Reading locks nothing, and ends."""
    store.put(KEY, OK)
    for key, _ in store.rows():
        store.put(dataclasses.replace(key, seed=0), OK)
    assert len(store) == 2


def test_the_newest_rows_of_a_status(store: EvaluationStore) -> None:
    """The newest is first, transient failures included."""
    for fidelity, status in enumerate([Status.OK, Status.TIMEOUT, Status.DIVERGED, Status.TIMEOUT, Status.OK]):
        store.put(KEY.at(fidelity), failed(status))
    found = [[key.fidelity for key, _ in store.newest(9, status)] for status in (None, Status.OK, Status.TIMEOUT)]
    assert found == [[4, 2, 0], [4, 0], [3, 1]]


def test_rows_are_counted_by_kind(store: EvaluationStore) -> None:
    """One count for every space, evaluator, data set and status."""
    for fidelity, status in enumerate([Status.OK, Status.OK, Status.TIMEOUT]):
        store.put(KEY.at(fidelity), failed(status))
    assert sorted(store.counts()) == [
        ("toy", "training", "digits", "ok", 2),
        ("toy", "training", "digits", "timeout", 1),
    ]


# --- processes and threads -------------------------------------------------------------------------


def test_processes_write_at_once(path: Path) -> None:
    """All rows of all of them are there, though the store did not exist when they began."""
    write_together(path, "a", "b", "c", rows=1500)
    with EvaluationStore(path) as store:
        found = sorted((key.recipe, key.seed) for key, _ in store.rows())
        assert found == [(name, seed) for name in "abc" for seed in range(1500)]


def test_processes_that_write_the_same_keys_keep_one_answer_each(path: Path) -> None:
    """The second to come is ignored, not an error."""
    write_together(path, "same", "same", rows=1500)
    with EvaluationStore(path) as store:
        assert seeds(store) == list(range(1500))


def test_threads_write_at_once(store: EvaluationStore) -> None:
    """A store can be shared between threads."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: store.put(dataclasses.replace(KEY, seed=seed), OK), range(400)))
    assert sorted(seeds(store)) == list(range(400))


def test_a_thread_may_close_what_another_opened(store: EvaluationStore) -> None:
    """Finalizers run wherever they run."""
    thread = threading.Thread(target=store.close)
    thread.start()
    thread.join()
    assert store._connection is None


def test_a_pickled_store_opens_the_same_file(store: EvaluationStore) -> None:
    """Workers that are started afresh receive it so."""
    store.put(KEY, OK)
    with pickle.loads(pickle.dumps(store)) as copy:
        assert copy.get(KEY) == OK


def test_a_closed_store_opens_again(store: EvaluationStore) -> None:
    """To close a shared store harms nobody."""
    store.close()
    store.put(KEY, OK)
    assert store.get(KEY) == OK


def test_a_relative_path_is_that_of_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later change of directory does not lead to another store."""
    monkeypatch.chdir(tmp_path)
    with EvaluationStore("evaluations.sqlite") as store:
        store.put(KEY, OK)
        store.close()
        monkeypatch.chdir("/")
        assert store.get(KEY) == OK


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize(
    ("code", "rows"), [(FORK, 151), (FORK_WHILE_WRITING, 320)], ids=["the parent closes", "a thread writes"]
)
def test_children_of_a_fork_write(path: Path, code: str, rows: int) -> None:
    """Nothing is lost and nothing damaged, whatever the parent does meanwhile."""
    finish(script(code, path))
    with EvaluationStore(path) as store:
        assert (len(store), store.verify()) == (rows, [])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_no_file_is_open_while_a_process_forks(path: Path) -> None:
    """A child that inherits SQLite's memory of its parent's locks would lock nothing itself."""
    code = """
store = EvaluationStore(PATH)
store.put(KEY, VALUE)
process = os.fork()
if process == 0:
    os._exit(sum(os.path.realpath(f"/proc/self/fd/{fd}").startswith(PATH) for fd in os.listdir("/proc/self/fd")))
sys.stdout.write(str(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])))
store.close()
"""
    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc")
    assert finish(script(code, path)) == ["0"]


# --- accidents -------------------------------------------------------------------------------------


def test_a_killed_process_loses_nothing_it_reported(path: Path) -> None:
    """Killed while writing, five times over: every row whose put returned is there, and nothing is damaged."""
    rng = np.random.default_rng()
    reported = -1
    for _ in range(5):
        process = script(ENDLESS, path, reported + 1)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        lines = process.communicate(timeout=60)[0].split("\n")
        complete = [int(line) for line in lines[:-1]]
        reported = complete[-1] if complete else reported + 1
        with EvaluationStore(path) as store:
            found = seeds(store)
            assert store.verify() == []
            assert found == list(range(len(found)))
            assert len(found) - 1 >= reported
            reported = len(found) - 1


def test_a_process_killed_while_creating_leaves_no_half_store(path: Path) -> None:
    """The file exists and is empty; the next one makes a store of it."""
    path.touch()
    with EvaluationStore(path) as store:
        store.put(KEY, OK)
        assert store.verify() == []


class FullDisk(EvaluationStore):
    """A store on a disk with no room for more than the schema and a few rows."""

    pages = 20

    def _connect(self) -> sqlite3.Connection:
        connection = super()._connect()
        connection.execute(f"PRAGMA max_page_count = {self.pages}")
        return connection


def fill(store: EvaluationStore) -> int:
    """Put rows until the disk is full and return how many went in."""
    for seed in count():
        try:
            store.put(dataclasses.replace(KEY, seed=seed), OK)
        except StoreError:
            return seed
    raise AssertionError


@pytest.fixture
def full(path: Path) -> Iterator[FullDisk]:
    """Return a store on a full disk."""
    with FullDisk(path) as store:
        fill(store)
        yield store


def test_a_full_disk_is_named(full: FullDisk) -> None:
    """The message has the path, what happened and what to do."""
    with pytest.raises(StoreError, match=r"evaluations\.sqlite: database or disk is full\. .*Make room and repeat"):
        full.put(KEY, OK)


def test_a_full_disk_keeps_what_was_stored(path: Path) -> None:
    """Every row before is still readable."""
    with FullDisk(path) as store:
        rows = fill(store)
        assert (seeds(store), store.verify()) == (list(range(rows)), [])


def test_a_put_works_when_there_is_room_again(full: FullDisk) -> None:
    """The same store goes on, without being opened anew."""
    with full._session() as connection:
        connection.execute("PRAGMA max_page_count = 1000")
    full.put(KEY, OK)
    assert full.get(KEY) == OK


def test_a_full_disk_stops_a_failure_from_being_recorded(full: FullDisk) -> None:
    """That is said as well, not swallowed."""
    with pytest.raises(StoreError, match="disk is full"):
        for _ in range(100):
            full.put(KEY, failed(Status.CRASHED, traceback="long " * 100))


def test_a_failing_write_of_the_operating_system_is_survived(path: Path) -> None:
    """A real limit on file sizes: one row fails, all before are readable, and later ones are stored."""
    pytest.importorskip("resource")
    assert finish(script(FILE_SIZE_LIMIT, path)) == ["1 2 []"]


def test_an_exception_within_a_transaction_undoes_it(store: EvaluationStore) -> None:
    """Ctrl-C between two statements leaves neither half a transaction nor a lock."""
    with pytest.raises(KeyboardInterrupt), store._session(write=True) as connection:
        connection.execute("INSERT INTO removed_artifacts VALUES ('a', 'b')")
        raise KeyboardInterrupt
    with store._session(write=True) as connection:
        assert connection.execute("SELECT * FROM removed_artifacts").fetchall() == []


def test_a_lock_that_is_never_released_is_reported(store: EvaluationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A put waits for other writers, but not forever."""
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.05)
    store.close()
    blocker = sqlite3.connect(store.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(StoreError, match=r"evaluations\.sqlite: database is locked\. Another process"):
            store.put(KEY, OK)
    finally:
        blocker.close()


def test_a_reader_does_not_wait_for_a_writer(store: EvaluationStore) -> None:
    """An open transaction of another process hides nothing that was there before."""
    store.put(KEY, OK)
    blocker = sqlite3.connect(store.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        assert store.get(KEY) == OK
    finally:
        blocker.close()


# --- opening ---------------------------------------------------------------------------------------


def test_missing_directories_are_created(tmp_path: Path) -> None:
    """A store may be put anywhere."""
    with EvaluationStore(tmp_path / "a" / "b" / "evaluations.sqlite") as store:
        assert len(store) == 0


def test_nothing_but_the_database_is_created(path: Path) -> None:
    """The directory of the artifacts comes with the first of them."""
    EvaluationStore(path).close()
    assert list(path.parent.iterdir()) == [path]


def foreign(path: Path) -> None:
    """Make a database of another application, which has not said which."""
    execute(path, "CREATE TABLE t (x)")


def foreign_with_id(path: Path) -> None:
    """Make an empty database of another application."""
    execute(path, "PRAGMA application_id = 7", "PRAGMA user_version = 1")


def newer(path: Path) -> None:
    """Make a store of a later format."""
    EvaluationStore(path).close()
    execute(path, "PRAGMA user_version = 2")


def text(path: Path) -> None:
    """Make a text file."""
    path.write_text("code,accuracy\n" * 100)


def truncated(path: Path) -> None:
    """Make a store that lacks its end."""
    with EvaluationStore(path) as store:
        for seed in range(20):
            store.put(dataclasses.replace(KEY, seed=seed), OK)
    path.write_bytes(path.read_bytes()[:6000])


UNUSABLE: list[tuple[Callable[[Path], None], str]] = [
    (foreign, "an SQLite database of another application. Use another file"),
    (foreign_with_id, "an SQLite database of another application. Use another file"),
    (newer, "an evaluation store of format 2, and this is nas-gym for format 1. Upgrade nas-gym"),
    (text, "file is not a database. It is not an SQLite file and was left alone"),
    (Path.mkdir, "a directory, not an evaluation store"),
    (truncated, "database disk image is malformed. The file is damaged"),
]


@pytest.mark.parametrize("create", [True, False], ids=["to write", "to read"])
@pytest.mark.parametrize(("make", "message"), UNUSABLE, ids=[make.__name__ for make, _ in UNUSABLE])
def test_what_is_no_store_is_refused(path: Path, make: Callable[[Path], None], message: str, create: bool) -> None:
    """The message has the path, what it is and what to do."""
    make(path)
    with pytest.raises(StoreError, match=rf"evaluations\.sqlite: {message}"):
        EvaluationStore(path, create=create)


@pytest.mark.parametrize("make", [foreign, newer, text], ids=lambda make: make.__name__)
def test_what_is_no_store_is_left_alone(path: Path, make: Callable[[Path], None]) -> None:
    """Not a byte changes, and no file appears beside it."""
    make(path)
    before = path.read_bytes()
    with pytest.raises(StoreError):
        EvaluationStore(path)
    assert (path.read_bytes(), list(path.parent.iterdir())) == (before, [path])


def test_a_name_reserved_for_artifacts_is_refused(tmp_path: Path) -> None:
    """The database would be in the way of its own directory."""
    with pytest.raises(StoreError, match="Choose another name"):
        EvaluationStore(tmp_path / "evaluations.artifacts")


def test_a_file_in_place_of_a_directory_is_named(tmp_path: Path) -> None:
    """The operating system's reason is passed on."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file/evaluations\.sqlite: opening it failed: File exists"):
        EvaluationStore(tmp_path / "file" / "evaluations.sqlite")


@pytest.mark.parametrize("below", ["evaluations.sqlite", "new/evaluations.sqlite"], ids=["file", "directory"])
def test_an_unwritable_directory_is_named(unprivileged: Path, below: str) -> None:
    """The store says where it could not be created."""
    unprivileged.chmod(0o500)
    with pytest.raises(StoreError, match=r"evaluations\.sqlite: (unable to open|opening it failed: Permission denied)"):
        EvaluationStore(unprivileged / below)


def test_a_read_only_file_is_refused_at_once(unprivileged: Path) -> None:
    """Not after an hour of training."""
    EvaluationStore(unprivileged / "evaluations.sqlite").close()
    (unprivileged / "evaluations.sqlite").chmod(0o400)
    with pytest.raises(StoreError, match=r"evaluations\.sqlite: the file is read-only\. Make it writable"):
        EvaluationStore(unprivileged / "evaluations.sqlite")


def test_a_read_only_file_can_be_read(unprivileged: Path) -> None:
    """Who only looks needs no permission to write."""
    path = unprivileged / "evaluations.sqlite"
    with EvaluationStore(path) as store:
        store.put(KEY, OK)
    path.chmod(0o400)
    with EvaluationStore.existing(path) as store:
        assert store.get(KEY) == OK


def test_a_store_in_a_read_only_directory_is_named(unprivileged: Path) -> None:
    """SQLite needs to write beside the file even to read it, and the message says so."""
    EvaluationStore(unprivileged / "evaluations.sqlite").close()
    unprivileged.chmod(0o500)
    with pytest.raises(StoreError, match=r"evaluations\.sqlite: .* directory .*writable"):
        EvaluationStore.existing(unprivileged / "evaluations.sqlite")


def test_a_read_only_file_cannot_be_written(unprivileged: Path) -> None:
    """A put says so."""
    path = unprivileged / "evaluations.sqlite"
    EvaluationStore(path).close()
    path.chmod(0o400)
    with EvaluationStore.existing(path) as store, pytest.raises(StoreError, match=r"readonly database.* Make the file"):
        store.put(KEY, OK)


def test_an_existing_store_is_opened(path: Path) -> None:
    """With all that is in it."""
    with EvaluationStore(path) as store:
        store.put(KEY, OK)
    with EvaluationStore.existing(path) as store:
        assert store.get(KEY) == OK


def test_a_store_that_does_not_exist_is_not_created(path: Path) -> None:
    """A typo in a path to read from makes no file."""
    with pytest.raises(StoreError, match=r"evaluations\.sqlite: there is no evaluation store"):
        EvaluationStore.existing(path)
    assert not path.exists()


def test_an_empty_file_is_no_existing_store(path: Path) -> None:
    """To read from it makes no store of it."""
    path.touch()
    with pytest.raises(StoreError, match="an empty file"):
        EvaluationStore.existing(path)
    assert path.read_bytes() == b""


def test_a_copy_made_by_sqlite_is_as_safe_and_fast(store: EvaluationStore, tmp_path: Path) -> None:
    """A backup by VACUUM INTO loses the write-ahead log, which is switched on again."""
    store.put(KEY, OK)
    execute(store.path, f"VACUUM INTO '{tmp_path / 'copy.sqlite'}'")
    with EvaluationStore(tmp_path / "copy.sqlite") as copy, copy._session() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# --- artifacts -------------------------------------------------------------------------------------


def test_an_artifact_keeps_its_content(store: EvaluationStore) -> None:
    """It is found by the hash that was returned."""
    assert artifact_file(store, artifact(store, b"weights")).read_bytes() == b"weights"


def test_an_artifact_lies_beside_the_database(store: EvaluationStore) -> None:
    """In a directory of the same name, by the first two digits of its hash."""
    name = artifact(store)
    assert store.artifact_path(name) == store.path.parent / "evaluations.artifacts" / name[:2] / name


def test_an_artifact_is_moved(store: EvaluationStore) -> None:
    """The source is gone."""
    file = store.temporary_file()
    file.write_bytes(b"weights")
    store.put_artifact(file)
    assert not file.exists()


def test_equal_content_is_stored_once(store: EvaluationStore) -> None:
    """The same hash, one file."""
    assert artifact(store) == artifact(store)
    assert store.artifact_bytes() == len(b"weights")


def test_an_artifact_replaces_a_damaged_one(store: EvaluationStore) -> None:
    """Who puts the right content repairs the file."""
    path = artifact_file(store, artifact(store))
    path.write_bytes(b"damaged")
    artifact(store)
    assert path.read_bytes() == b"weights"


def test_an_artifact_comes_from_another_file_system(store: EvaluationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is copied, appears at once, and nothing temporary stays."""
    source = store.path.parent / "elsewhere"
    source.write_bytes(b"weights")
    rename = os.replace

    def across(one: Path, other: Path) -> None:
        if one == source:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(one, other)

    monkeypatch.setattr(os, "replace", across)
    path = artifact_file(store, store.put_artifact(source))
    assert (path.read_bytes(), source.exists(), list((store.artifacts / "tmp").iterdir())) == (b"weights", False, [])


def test_temporary_files_differ(store: EvaluationStore) -> None:
    """No two callers write to the same one."""
    files = {store.temporary_file() for _ in range(100)}
    assert len(files) == 100
    assert not any(file.exists() for file in files)


def test_a_removed_artifact_is_gone(store: EvaluationStore) -> None:
    """The evaluation that left it stays."""
    name = artifact(store)
    store.put(KEY, dataclasses.replace(OK, artifact=name))
    store.remove_artifact(name)
    assert (store.artifact_path(name), KEY in store) == (None, True)


@pytest.mark.parametrize("name", ["0" * 32, "scratch", "", "../evaluations.sqlite", "0" * 31 + "G"], ids=repr)
def test_what_is_no_artifact_has_no_path(store: EvaluationStore, name: str) -> None:
    """Whatever the name says, it does not lead out of the directory."""
    assert store.artifact_path(name) is None


@pytest.mark.parametrize("name", ["0" * 32, "../../evaluations.sqlite", "scratch"], ids=repr)
def test_to_remove_a_missing_artifact_is_no_error(store: EvaluationStore, name: str) -> None:
    """Two processes may remove the same one, and no other file is touched."""
    store.remove_artifact(name)
    assert store.path.exists()


def test_a_missing_source_is_reported(store: EvaluationStore, tmp_path: Path) -> None:
    """The message has its path."""
    with pytest.raises(StoreError, match="absent: storing it failed: No such file"):
        store.put_artifact(tmp_path / "absent")


def test_a_full_disk_stops_an_artifact(store: EvaluationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source stays, and no half file appears."""
    source = store.temporary_file()
    source.write_bytes(b"weights")

    def no_room(one: Path, other: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", no_room)
    with pytest.raises(StoreError, match=r"No space left on device\. Make room and repeat"):
        store.put_artifact(source)
    assert [file for file in store.artifacts.rglob("*") if file.is_file()] == [source]


# --- merging ---------------------------------------------------------------------------------------


def test_a_merge_adds_what_is_missing(store: EvaluationStore, other: EvaluationStore) -> None:
    """More rows than are read at a time; the number of those added is returned."""
    for seed in range(1200):
        other.put(dataclasses.replace(KEY, seed=seed), OK)
    for seed in range(1100, 1300):
        store.put(dataclasses.replace(KEY, seed=seed), OK)
    assert (store.merge(other), len(store)) == (1100, 1300)


def test_a_merge_repeated_adds_nothing(store: EvaluationStore, other: EvaluationStore) -> None:
    """Neither rows nor failures."""
    for status in (Status.OK, Status.TIMEOUT, Status.CRASHED):
        other.put(KEY, failed(status, message=status.label, created=status.label))
    store.merge(other)
    before = store.counts()
    assert (store.merge(other), store.counts()) == (0, before)


def test_a_merge_keeps_its_own_answers(store: EvaluationStore, other: EvaluationStore) -> None:
    """The other one's are not better, only later."""
    store.put(KEY, OK)
    other.put(KEY, dataclasses.replace(OK, metrics={"valid_accuracy": 0.9}))
    assert (store.merge(other), store.get(KEY)) == (0, OK)


def test_a_merge_takes_failures(store: EvaluationStore, other: EvaluationStore) -> None:
    """Numbered after its own."""
    store.put(KEY, failed(Status.TIMEOUT, host="here"))
    other.put(KEY, failed(Status.CRASHED, host="there"))
    store.merge(other)
    assert [failure.host for failure in store.failures(KEY)] == ["here", "there"]


def test_a_merge_takes_artifacts(store: EvaluationStore, other: EvaluationStore) -> None:
    """They are copied, so that the other store stays as it was."""
    name = artifact(other)
    other.put(KEY, dataclasses.replace(OK, artifact=name))
    store.merge(other)
    assert artifact_file(store, name).read_bytes() == artifact_file(other, name).read_bytes()


def test_a_merge_knows_what_was_removed(store: EvaluationStore, other: EvaluationStore) -> None:
    """A file that the other one removed is not missed."""
    name = artifact(other)
    other.put(KEY, dataclasses.replace(OK, artifact=name))
    other.remove_artifact(name)
    store.merge(other)
    assert store.verify() == []


def test_a_merge_refuses_a_damaged_artifact(store: EvaluationStore, other: EvaluationStore) -> None:
    """The message names the file, and the row is not taken without it."""
    name = artifact(other)
    other.put(KEY, dataclasses.replace(OK, artifact=name))
    artifact_file(other, name).write_bytes(b"damaged")
    with pytest.raises(StoreError, match=f"{name}: the content does not match the name"):
        store.merge(other)
    assert len(store) == 0


def test_a_merge_refuses_a_damaged_row(store: EvaluationStore, other: EvaluationStore) -> None:
    """Damage does not spread."""
    other.put(KEY, OK)
    execute(other.path, "UPDATE evaluations SET seed = 5")
    with pytest.raises(StoreError, match=r"other\.sqlite: row 1 is damaged"):
        store.merge(other)


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        pytest.param({"metrics": {"valid_accuracy": 0.2, "parameters": 5242.0}}, True, id="metrics"),
        pytest.param({"held_out": {}}, True, id="held out"),
        pytest.param({"curve": {}}, True, id="curve"),
        pytest.param({"status": Status.DIVERGED}, True, id="status"),
        pytest.param({"metrics": {"parameters": 5242.0, "valid_accuracy": 0.1}}, False, id="order"),
        pytest.param({"cost_seconds": 9.0, "host": "there", "created": "later", "versions": {}}, False, id="origin"),
    ],
)
def test_conflicts_are_answers_that_differ(
    store: EvaluationStore, other: EvaluationStore, changes: dict[str, Any], differs: bool
) -> None:
    """What was measured counts, not where and how fast."""
    store.put(KEY, OK)
    other.put(KEY, dataclasses.replace(OK, **changes))
    other.put(KEY.at(1), OK)
    assert store.conflicts(other) == ([KEY] if differs else [])


def test_not_a_number_agrees_with_itself(store: EvaluationStore, other: EvaluationStore) -> None:
    """Two networks that diverged in the same way are no conflict."""
    for one in (store, other):
        one.put(KEY, dataclasses.replace(OK, metrics={"valid_accuracy": math.nan}))
    assert store.conflicts(other) == []


# --- verification ----------------------------------------------------------------------------------


@pytest.fixture
def filled(store: EvaluationStore) -> EvaluationStore:
    """Return a store with an answer, its artifact and a failure."""
    store.put(KEY, dataclasses.replace(OK, artifact=artifact(store)))
    store.put(KEY, failed(Status.TIMEOUT))
    return store


def test_an_intact_store_has_no_problems(filled: EvaluationStore) -> None:
    """The list is empty."""
    assert filled.verify() == []


def test_an_artifact_removed_on_purpose_is_no_problem(filled: EvaluationStore) -> None:
    """The store remembers that it did so."""
    name = filled.newest(1)[0][1].artifact
    assert name is not None
    filled.remove_artifact(name)
    assert filled.verify() == []


@pytest.mark.parametrize("table", ["evaluations", "failures"])
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("seed = 5", "the digest .* does not match the columns"),
        ("encoding = '[0, 1]'", "the digest .* does not match the columns"),
        ("encoding = '[0, 1'", "is damaged"),
        ("encoding = '[0.5]'", "is damaged"),
        ("metrics = '{'", "is damaged"),
        ("metrics = '[1]'", "is damaged"),
        ('metrics = \'{"a": "b"}\'', "is damaged"),
        ("curve = '{\"a\": 1}'", "is damaged"),
        ("versions = 'x'", "is damaged"),
        ("status = 'fine'", "is damaged .KeyError: 'fine'"),
        ("artifact = '00000000000000000000000000000000'", "the artifact 0{32} is missing"),
    ],
    ids=lambda value: None if value.startswith(("is", "the")) else value,
)
def test_a_damaged_row_is_found(filled: EvaluationStore, table: str, change: str, problem: str) -> None:
    """One problem, that names table and row."""
    execute(filled.path, f"UPDATE {table} SET {change}")
    (found,) = filled.verify()
    assert re.search(rf"evaluations\.sqlite: row 1 of {table}.* {problem}", found)


@pytest.mark.parametrize(("table", "status"), [("evaluations", "timeout"), ("failures", "ok")])
def test_a_row_in_the_wrong_table_is_found(filled: EvaluationStore, table: str, status: str) -> None:
    """A transient failure must not answer a query."""
    execute(filled.path, f"UPDATE {table} SET status = '{status}'")
    (found,) = filled.verify()
    assert f"row 1 of {table}: the status {status} does not belong into this table" in found


def test_a_lost_artifact_is_found(filled: EvaluationStore) -> None:
    """A file that something else deleted is missed."""
    shutil.rmtree(filled.artifacts)
    (found,) = filled.verify()
    assert "is missing, and was not removed by the store" in found


def test_a_damaged_artifact_is_found(filled: EvaluationStore) -> None:
    """One flipped bit is enough."""
    path = artifact_file(filled, filled.newest(1)[0][1].artifact or "")
    path.write_bytes(b"weighty")
    assert filled.verify() == [f"{path}: the content does not match the name."]


def test_a_damaged_index_is_found(filled: EvaluationStore) -> None:
    """SQLite's own check is part of it."""
    execute(
        filled.path,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = 'CREATE INDEX trainings ON evaluations (encoding, version)'"
        " WHERE name = 'trainings'",
    )
    filled.close()
    assert any("missing from index trainings" in problem for problem in filled.verify())


def test_a_missing_table_is_found(filled: EvaluationStore) -> None:
    """What cannot be read is a problem, not an exception."""
    execute(filled.path, "DROP TABLE failures")
    (found,) = filled.verify()
    assert "no such table: failures" in found


def test_a_damaged_answer_is_not_given(filled: EvaluationStore) -> None:
    """A query says that the store is damaged, and how to look closer."""
    execute(filled.path, "UPDATE evaluations SET metrics = '{'")
    with pytest.raises(StoreError, match=r"is damaged .*`nas-gym store verify .*evaluations\.sqlite` lists"):
        filled.get(KEY)
