"""The evaluation store: every training is paid for once; one SQLite file, and the weights beside it.

Two tables hold answers, one row each. ``evaluations`` has what will always be so (a measurement, a network that
diverges), at most one row a key: the first answer stays. ``failures`` has what may go better another time (out of
memory, timeout, crash), one row an attempt; it never answers a query. Weight files are named by their content.

=================================== ============================================================
path                                content
=================================== ============================================================
``NAME.sqlite``                     the database; ``-wal`` and ``-shm`` beside it while it is open
``NAME.artifacts/<2 hex>/<32 hex>`` files, by the BLAKE2b hash of their content
``NAME.artifacts/tmp/``             files not complete yet; what a killed process left can go
=================================== ============================================================

An evaluation is one transaction. A process killed at any moment loses nothing that `EvaluationStore.put` returned
from; a power cut may lose the last transactions (``synchronous=NORMAL``), but corrupts nothing. Any number of
processes and threads of one machine share a store; a network file system is no place for one (SQLite's
write-ahead log needs shared memory).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import sqlite3
import threading
import time
import uuid
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from nas_gym.errors import StoreError
from nas_gym.evaluators.core import Status
from nas_gym.evaluators.stored import (
    KEY_FIELDS,
    EvaluationKey,
    StoredEvaluation,
    key_of_row,
    key_row,
    now,
    value_of_row,
    value_row,
)

APPLICATION_ID = 0x6E617367  # "nasg"
SCHEMA_VERSION = 1
BUSY_SECONDS = 60.0
"""How long a call waits for another process that writes."""


class Count(NamedTuple):
    """How many rows of a kind a store holds.

    Attributes:
        space: name of the search space.
        evaluator: name of the evaluator.
        dataset: fingerprint of the data.
        status: label of how they ended.
        rows: how many.
    """

    space: str
    evaluator: str
    dataset: str
    status: str
    rows: int


class EvaluationStore:
    """Evaluations by key, in one file that survives its users.

    It can be pickled, forked and shared between threads: every process opens the file for itself, threads take
    turns. After `close`, the next call opens it again.

    Attributes:
        path: the file.
        artifacts: the directory of the weight files.
    """

    def __init__(self, path: str | Path, *, create: bool = True) -> None:
        """Open the store.

        Args:
            path: the file; it and the directories above are created where they do not exist.
            create: whether to do so; else only a store that exists is opened, and it may be read-only.

        Raises:
            StoreError: the file cannot be opened or written, or is something else.
        """
        self.path = Path(path).absolute()
        self.artifacts = self.path.with_suffix(".artifacts")
        self._create = create
        self._begin()
        with self._session():
            pass

    @classmethod
    def existing(cls, path: str | Path) -> Self:
        """Open a store that exists, and create nothing.

        Raises:
            StoreError: there is none.
        """
        return cls(path, create=False)

    # --- answers -----------------------------------------------------------------------------------

    def get(self, key: EvaluationKey) -> StoredEvaluation | None:
        """Return the permanent answer, or None."""
        with self._session() as connection:
            row = connection.execute(_GET, (key.digest,)).fetchone()
        return None if row is None else self._stored(row, f"evaluation {key.digest}")

    def put(self, key: EvaluationKey, value: StoredEvaluation) -> None:
        """Store an answer in one transaction.

        A key keeps its first permanent answer. A transient failure is filed under `failures`.

        Raises:
            StoreError: it could not be written; what was stored before is intact.
        """
        statement = _PUT_FAILURE if value.status.transient else _PUT
        row = (*key_row(key), *value_row(value))
        with self._session(write=True) as connection:
            connection.execute(statement, row)

    def fidelities(self, key: EvaluationKey) -> dict[int, StoredEvaluation]:
        """Return all permanent answers of the same training, by ascending fidelity."""
        _, space, encoding, evaluator, version, dataset, recipe, seed, _, parent = key_row(key)
        with self._session() as connection:
            rows = connection.execute(
                _FIDELITIES, (encoding, seed, space, evaluator, version, dataset, recipe, parent)
            ).fetchall()
        return {row[0]: self._stored(row[1:], f"evaluation {key.at(row[0]).digest}") for row in rows}

    def failures(self, key: EvaluationKey) -> list[StoredEvaluation]:
        """Return all transient failures, in the order of the attempts."""
        with self._session() as connection:
            rows = connection.execute(_FAILURES, (key.digest,)).fetchall()
        return [self._stored(row, f"failure {key.digest}") for row in rows]

    def rows(self) -> Iterator[tuple[EvaluationKey, StoredEvaluation]]:
        """Iterate over all permanent answers in the order in which they came, those that come meanwhile included."""
        for row in self._raw("evaluations"):
            yield self._pair(row, "evaluations")

    def newest(self, limit: int, status: Status | None = None) -> list[tuple[EvaluationKey, StoredEvaluation]]:
        """Return the last permanent answers, or the last rows of one status, the newest first."""
        table = "failures" if status is not None and status.transient else "evaluations"
        where = "" if status is None else f"WHERE status = '{status.label}'"
        with self._session() as connection:
            rows = connection.execute(f"{_select(table)} {where} ORDER BY id DESC LIMIT ?", (limit,)).fetchall()
        return [self._pair(row, table) for row in rows]

    def counts(self) -> list[Count]:
        """Return how many rows there are of each kind, transient failures included."""
        with self._session() as connection:
            return [Count(*row) for row in connection.execute(_COUNTS).fetchall()]

    def __len__(self) -> int:
        """Return the number of permanent answers."""
        with self._session() as connection:
            return connection.execute("SELECT COUNT(*) FROM evaluations").fetchone()[0]

    def __contains__(self, key: object) -> bool:
        """Tell whether there is a permanent answer."""
        if not isinstance(key, EvaluationKey):
            return False
        with self._session() as connection:
            found = connection.execute("SELECT 1 FROM evaluations WHERE digest = ?", (key.digest,)).fetchone()
        return found is not None

    # --- files -------------------------------------------------------------------------------------

    def put_artifact(self, file: Path) -> str:
        """Move a complete file into the store and return the hash of its content.

        The file appears under its name at once or not at all.

        Raises:
            StoreError: it cannot be read or moved.
        """
        with self._files("storing", file):
            artifact = _content_hash(file, sync=True)
            target = self._location(artifact)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.replace(file, target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                self._copy(file, target)
                file.unlink()
        return artifact

    def artifact_path(self, artifact: str) -> Path | None:
        """Return where the file with this hash is, or None if there is none."""
        if not _is_hash(artifact):
            return None
        path = self._location(artifact)
        return path if path.is_file() else None

    def remove_artifact(self, artifact: str) -> None:
        """Delete a file to save room; the evaluations that left it stay. A missing file is no error."""
        if not _is_hash(artifact):
            return
        with self._files("removing", self._location(artifact)):
            self._location(artifact).unlink(missing_ok=True)
        with self._session(write=True) as connection:
            connection.execute(_REMOVE, (artifact, now()))

    def temporary_file(self) -> Path:
        """Return a new path, not a file yet, from which `put_artifact` only has to rename."""
        folder = self.artifacts / "tmp"
        with self._files("creating", folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder / uuid.uuid4().hex

    def artifact_bytes(self) -> int:
        """Return the size of all files beside the database."""
        total = 0
        with self._files("reading", self.artifacts):
            for path in self.artifacts.rglob("*"):
                with suppress(FileNotFoundError):  # removed meanwhile
                    total += path.stat().st_size if path.is_file() else 0
        return total

    # --- the store as a whole ----------------------------------------------------------------------

    def merge(self, other: EvaluationStore) -> int:
        """Take over what another store has and this one lacks, files and failures included.

        Where both have an answer, this one's stays; `conflicts` tells how many differ.

        Returns:
            The number of permanent answers added.

        Raises:
            StoreError: a store cannot be read or written, or a file of the other one is damaged; repeated, the
                merge goes on.
        """
        added = 0
        for page in other._pages("evaluations"):
            known = self._known(row[1] for row in page)
            new = [row for row in page if row[1] not in known]
            for row in new:
                key, value = other._pair(row, "evaluations")
                if key.digest != row[1]:
                    raise StoreError(f"{other.path}: row {row[0]} is damaged. `nas-gym store verify` tells more.")
                self._adopt(other, value.artifact)
            with self._session(write=True) as connection:
                before = connection.total_changes
                connection.executemany(_PUT, [row[1:] for row in new])
                added += connection.total_changes - before
        for page in other._pages("failures"):
            with self._session(write=True) as connection:
                connection.executemany(_MERGE_FAILURE, [row[1:] for row in page])
        with other._session() as connection:
            removed = connection.execute("SELECT * FROM removed_artifacts").fetchall()
        with self._session(write=True) as connection:
            connection.executemany(_REMOVE, removed)
        return added

    def conflicts(self, other: EvaluationStore) -> list[EvaluationKey]:
        """Return the keys to which two stores give different answers."""
        found = []
        for key, theirs in other.rows():
            ours = self.get(key)
            if ours is not None and not ours.agrees(theirs):
                found.append(key)
        return found

    def verify(self) -> list[str]:
        """Read everything and return what is wrong, in words; nothing if all is well."""
        problems: list[str] = []
        try:
            with self._session() as connection:
                checked = connection.execute("PRAGMA integrity_check").fetchall()
            problems += [f"{self.path}: {row[0]}." for row in checked if row[0] != "ok"]
            for table in ("evaluations", "failures"):
                problems += self._wrong_rows(table)
            problems += self._wrong_files()
        except StoreError as error:
            problems.append(str(error))
        return problems

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._disconnect()

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the connection behind: it belongs to this process."""
        return {"path": self.path, "artifacts": self.artifacts, "_create": self._create}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin without a connection; the first call opens one."""
        self.__dict__.update(state)
        self._begin()

    # --- rows --------------------------------------------------------------------------------------

    def _stored(self, row: tuple[Any, ...], what: str) -> StoredEvaluation:
        """Return the value in the value columns of a row."""
        try:
            return value_of_row(row)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._damaged(what, error) from error

    def _pair(self, row: tuple[Any, ...], table: str) -> tuple[EvaluationKey, StoredEvaluation]:
        """Return key and value of a whole row: id, digest, key columns, value columns."""
        what = f"row {row[0]} of {table}"
        try:
            key = key_of_row(row[1 : 1 + len(_KEY_COLUMNS)])
        except (ValueError, TypeError) as error:
            raise self._damaged(what, error) from error
        return key, self._stored(row[1 + len(_KEY_COLUMNS) :], what)

    def _damaged(self, what: str, error: Exception) -> StoreError:
        return StoreError(
            f"{self.path}: {what} is damaged ({type(error).__name__}: {error}); "
            f"`nas-gym store verify {self.path}` lists all that is."
        )

    def _pages(self, table: str) -> Iterator[list[tuple[Any, ...]]]:
        """Iterate over whole rows by the thousand; between pages no statement is open and no lock held."""
        last = -1
        while True:
            with self._session() as connection:
                page = connection.execute(f"{_select(table)} WHERE id > ? ORDER BY id LIMIT 1000", (last,)).fetchall()
            if not page:
                return
            last = page[-1][0]
            yield page

    def _raw(self, table: str) -> Iterator[tuple[Any, ...]]:
        for page in self._pages(table):
            yield from page

    def _known(self, digests: Iterable[str]) -> set[str]:
        """Return those digests that have a permanent answer."""
        with self._session() as connection:
            return {
                digest
                for digest in digests
                if connection.execute("SELECT 1 FROM evaluations WHERE digest = ?", (digest,)).fetchone()
            }

    # --- files, inside -----------------------------------------------------------------------------

    def _location(self, artifact: str) -> Path:
        return self.artifacts / artifact[:2] / artifact

    def _copy(self, source: Path, target: Path) -> None:
        """Copy a file so that it appears at once."""
        temporary = self.temporary_file()
        try:
            shutil.copyfile(source, temporary)
            _content_hash(temporary, sync=True)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def _adopt(self, other: EvaluationStore, artifact: str | None) -> None:
        """Copy a file from another store, if it is still there and missing here."""
        source = None if artifact is None else other.artifact_path(artifact)
        if artifact is None or source is None or self.artifact_path(artifact) is not None:
            return
        with self._files("copying", source):
            if _content_hash(source) != artifact:
                raise StoreError(f"{source}: the content does not match the name. Remove this file and merge again.")
            self._location(artifact).parent.mkdir(parents=True, exist_ok=True)
            self._copy(source, self._location(artifact))

    def _wrong_files(self) -> Iterator[str]:
        """Compare all files with their names."""
        for path in sorted(self.artifacts.glob("[0-9a-f][0-9a-f]/*")):
            try:
                if _content_hash(path) != path.name:
                    yield f"{path}: the content does not match the name."
            except FileNotFoundError:  # removed meanwhile
                continue
            except OSError as error:
                yield f"{path}: cannot be read: {error.strerror}."

    def _wrong_rows(self, table: str) -> Iterator[str]:
        """Compare all rows with their digests, statuses and files."""
        for row in self._raw(table):
            try:
                key, value = self._pair(row, table)
            except StoreError as error:
                yield str(error)
                continue
            what = f"{self.path}: row {row[0]} of {table}"
            if key.digest != row[1]:
                yield f"{what}: the digest {row[1]} does not match the columns, whose digest is {key.digest}."
            if value.status.transient != (table == "failures"):
                yield f"{what}: the status {value.status.label} does not belong into this table."
            if value.artifact is not None and self._is_lost(value.artifact):
                yield f"{what}: the artifact {value.artifact} is missing, and was not removed by the store."

    def _is_lost(self, artifact: str) -> bool:
        """Tell whether a file is missing that nobody removed on purpose."""
        if self.artifact_path(artifact) is not None:
            return False
        with self._session() as connection:
            return connection.execute(_IS_REMOVED, (artifact,)).fetchone() is None

    @contextmanager
    def _files(self, doing: str, path: Path) -> Iterator[None]:
        """Turn errors of the file system into those of the store."""
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            advice = "Make room and repeat." if full else "Check that it exists and the permissions of its directory."
            raise StoreError(f"{path}: {doing} it failed: {error.strerror or error}. {advice}") from error

    # --- the connection ----------------------------------------------------------------------------

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        _STORES.add(self)

    @contextmanager
    def _session(self, write: bool = False) -> Iterator[sqlite3.Connection]:
        """Lend the connection to one thread, for reading or for one transaction."""
        with self._lock:
            try:
                connection = self._connection or self._connect()
                if not write:
                    yield connection
                    return
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    yield connection
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise StoreError(f"{self.path}: {_explanation(error)}") from error

    def _connect(self) -> sqlite3.Connection:
        """Open the file and make sure that it is a store.

        The file is opened through SQLite only: to open and close it otherwise would drop the locks that this
        process has on it.
        """
        with self._files("opening", self.path):
            self._check_path()
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            if not self._is_store(connection):
                if not self._create:
                    raise StoreError(f"{self.path}: an empty file, not an evaluation store. Check the path.")
                _initialise(connection)
            elif self._create:
                _write_ahead(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _check_path(self) -> None:
        """Refuse what cannot be a store before SQLite says so less clearly."""
        if self.path.suffix == ".artifacts":
            raise StoreError(f"{self.path}: the ending .artifacts is for the files of a store. Choose another name.")
        if self.path.is_dir():
            raise StoreError(f"{self.path}: a directory, not an evaluation store. Name a file in it.")
        if self.path.exists():
            if self._create and not _writable(self.path):
                raise StoreError(f"{self.path}: the file is read-only. Make it writable, or copy it elsewhere.")
        elif not self._create:
            raise StoreError(f"{self.path}: there is no evaluation store. Check the path.")
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)

    def _is_store(self, connection: sqlite3.Connection) -> bool:
        """Tell a store from an empty file.

        Raises:
            StoreError: it is a database of another application, or of a later version.
        """
        connection.execute("BEGIN")  # one look at all, in case another process makes the store just now
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
        connection.execute("COMMIT")
        if application == APPLICATION_ID and version == SCHEMA_VERSION:
            return True
        if application == APPLICATION_ID:
            raise StoreError(
                f"{self.path}: an evaluation store of format {version}, and this is nas-gym for format "
                f"{SCHEMA_VERSION}. Upgrade nas-gym, or use another file."
            )
        if application or version or tables:
            raise StoreError(f"{self.path}: an SQLite database of another application. Use another file.")
        return False

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


# --- SQL -------------------------------------------------------------------------------------------

_KEY_COLUMNS = ("digest", *KEY_FIELDS)
_VALUE_COLUMNS = (
    "status",
    "metrics",
    "held_out",
    "curve",
    "cost_seconds",
    "message",
    "traceback",
    "artifact",
    "host",
    "versions",
    "created",
)
_COLUMNS = ", ".join((*_KEY_COLUMNS, *_VALUE_COLUMNS))
_VALUES = ", ".join(_VALUE_COLUMNS)
_MARKS = ", ".join(f"?{index + 1}" for index in range(len(_KEY_COLUMNS) + len(_VALUE_COLUMNS)))

_DEFINITIONS = """
    space TEXT NOT NULL,
    encoding TEXT NOT NULL,         -- JSON
    evaluator TEXT NOT NULL,
    version INTEGER NOT NULL,
    dataset TEXT NOT NULL,
    recipe TEXT NOT NULL,
    seed INTEGER NOT NULL,
    fidelity INTEGER NOT NULL,      -- epochs
    parent TEXT NOT NULL,           -- artifact, or 'scratch'
    status TEXT NOT NULL,
    metrics TEXT NOT NULL,          -- JSON, by name
    held_out TEXT NOT NULL,         -- JSON, by name
    curve TEXT NOT NULL,            -- JSON, by name, a value an epoch
    cost_seconds REAL,              -- NULL is NaN
    message TEXT NOT NULL,
    traceback TEXT NOT NULL,
    artifact TEXT,
    host TEXT NOT NULL,
    versions TEXT NOT NULL,         -- JSON, by package
    created TEXT NOT NULL           -- ISO, UTC
"""
_SCHEMA = (
    f"CREATE TABLE evaluations (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, {_DEFINITIONS})",
    "CREATE INDEX trainings ON evaluations (encoding, seed)",
    f"CREATE TABLE failures (id INTEGER PRIMARY KEY, digest TEXT NOT NULL, {_DEFINITIONS}, attempt INTEGER NOT NULL)",
    "CREATE INDEX attempts ON failures (digest, attempt)",
    "CREATE TABLE removed_artifacts (artifact TEXT PRIMARY KEY, removed TEXT NOT NULL)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)

_PUT = f"INSERT INTO evaluations ({_COLUMNS}) VALUES ({_MARKS}) ON CONFLICT (digest) DO NOTHING"
_PUT_FAILURE = (
    f"INSERT INTO failures ({_COLUMNS}, attempt)"
    f" SELECT {_MARKS}, (SELECT COALESCE(MAX(attempt), 0) + 1 FROM failures WHERE digest = ?1)"
)
_CREATED = f"?{len(_KEY_COLUMNS) + len(_VALUE_COLUMNS)}"
_HOST = f"?{len(_KEY_COLUMNS) + _VALUE_COLUMNS.index('host') + 1}"
_MERGE_FAILURE = (
    f"{_PUT_FAILURE} WHERE NOT EXISTS"
    f" (SELECT 1 FROM failures WHERE digest = ?1 AND host = {_HOST} AND created = {_CREATED})"
)
_REMOVE = "INSERT INTO removed_artifacts VALUES (?, ?) ON CONFLICT (artifact) DO NOTHING"
_IS_REMOVED = "SELECT 1 FROM removed_artifacts WHERE artifact = ?"
_GET = f"SELECT {_VALUES} FROM evaluations WHERE digest = ?"
_FIDELITIES = (
    f"SELECT fidelity, {_VALUES} FROM evaluations WHERE encoding = ? AND seed = ? AND space = ? AND evaluator = ?"
    " AND version = ? AND dataset = ? AND recipe = ? AND parent = ? ORDER BY fidelity"
)
_FAILURES = f"SELECT {_VALUES} FROM failures WHERE digest = ? ORDER BY attempt"
_COUNTS = " UNION ALL ".join(
    f"SELECT space, evaluator, dataset, status, COUNT(*) FROM {table} GROUP BY 1, 2, 3, 4"
    for table in ("evaluations", "failures")
)


def _select(table: str) -> str:
    return f"SELECT id, {_COLUMNS} FROM {table}"


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Let readers and a writer work at the same time, and commits do without waiting for the disk."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:  # the change of the journal does not wait for others by itself
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            return
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _initialise(connection: sqlite3.Connection) -> None:
    """Make a store of an empty database, unless another process does so at the same time."""
    _write_ahead(connection)
    connection.execute("BEGIN IMMEDIATE")
    try:
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            for statement in _SCHEMA:
                connection.execute(statement)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


# --- files and errors ------------------------------------------------------------------------------


_HASH = re.compile(r"[0-9a-f]{32}")


def _is_hash(artifact: str) -> bool:
    return _HASH.fullmatch(artifact) is not None


def _content_hash(file: Path, sync: bool = False) -> str:
    """Return the hash of a file's content, having seen the file to the disk if asked."""
    with open(file, "rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16))
        if sync:
            os.fsync(stream.fileno())
    return digest.hexdigest()


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _code(error: sqlite3.Error) -> int:
    """Return the primary result code of SQLite."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


_ADVICE = {
    sqlite3.SQLITE_FULL: "Nothing was written. Make room and repeat; what was stored before is intact.",
    sqlite3.SQLITE_IOERR: "Nothing was written. Check the disk, its free space and quotas, then repeat.",
    sqlite3.SQLITE_READONLY: "Make the file and its directory writable, or copy it elsewhere.",
    sqlite3.SQLITE_CANTOPEN: "Check that its directory exists and is writable.",
    sqlite3.SQLITE_PERM: "Make the file and its directory writable, or copy it elsewhere.",
    sqlite3.SQLITE_NOTADB: "It is not an SQLite file and was left alone. Use another file.",
    sqlite3.SQLITE_CORRUPT: "The file is damaged. `nas-gym store verify` tells where; restore a copy.",
    sqlite3.SQLITE_BUSY: f"Another process has been writing for {BUSY_SECONDS:g} seconds. Wait for it, or end it.",
}


def _explanation(error: sqlite3.Error) -> str:
    return f"{error}. {_ADVICE.get(_code(error), 'Nothing was written.')}"


# --- forks -----------------------------------------------------------------------------------------

# SQLite remembers by process which locks it holds, so a child that inherited an open file would believe that it
# holds its parent's, even through a connection of its own. Hence no file is open while the process forks.
_STORES: weakref.WeakSet[EvaluationStore] = weakref.WeakSet()
_FORKING: list[EvaluationStore] = []


def _before_fork() -> None:
    for store in list(_STORES):
        store._lock.acquire()
        _FORKING.append(store)
        with suppress(sqlite3.Error):
            store._disconnect()


def _after_fork() -> None:
    while _FORKING:
        _FORKING.pop()._lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
