"""The record of a suite: a directory that only ever grows, and the packed file of baselines.

A directory holds ``suite.json`` (the definition that the record belongs to), ``runs.jsonl`` (one row a finished run,
see `nas_benchmarks.rows`), ``failures.jsonl`` (runs that raised) and ``summary.md``, which is made of the rows.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas_gym.errors import InvalidArgument
from nas_gym.files import write_whole

from .records import RecordError, Row, WriteFailed, append_row, read_rows
from .suites import FORMAT, Suite, changes, digest

BASELINES = Path(__file__).parent / "baselines"
"""Packed records that come with the package, one a suite."""

MOST_BYTES = 5_000_000
"""Largest packed record that is written."""

_METADATA = b"nas_gym_runs"


class SuiteRecord:
    """The directory of a record.

    Attributes:
        path: the directory.
    """

    def __init__(self, path: Path) -> None:
        """Name a directory, which need not exist yet."""
        self.path = path

    @property
    def runs(self) -> Path:
        """File of the finished runs."""
        return self.path / "runs.jsonl"

    @property
    def failures(self) -> Path:
        """File of the runs that raised."""
        return self.path / "failures.jsonl"

    def rows(self) -> list[Row]:
        """Return the finished runs; part of a row at the end of the file is left out.

        Warns:
            TornRow: saying so.

        Raises:
            RecordError: another line is no row, or the rows have another format.
        """
        return _checked(self.runs, read_rows(self.runs))

    def definition(self) -> dict[str, Any] | None:
        """Return the definition that the record belongs to, None where it belongs to no suite.

        Raises:
            RecordError: the file is damaged.
        """
        path = self.path / "suite.json"
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RecordError(f"{path} cannot be read ({error}); remove it or choose another --out.") from error
        if not isinstance(found, dict):
            raise RecordError(f"{path} is no definition of a suite, got {found!r}; remove it or choose another --out.")
        return found

    def adopt(self, suite: Suite) -> None:
        """Make the directory the record of a suite, or check that it is.

        Raises:
            InvalidArgument: it is the record of another suite or of another definition; the message names what changed.
            WriteFailed: the directory cannot be written.
        """
        found = self.definition()
        if found is None:
            if rows := self.rows():
                self.check_protocol(suite.protocol.hash, rows)
            self._create()
            self._write("suite.json", (json.dumps(suite.definition(), indent=2) + "\n").encode())
        elif digest(found) != suite.hash:
            differences = list(changes(found, json.loads(json.dumps(suite.definition()))))
            raise InvalidArgument(
                f"{self.path} is a record of another definition of the suite, so nothing is appended. What differs: "
                f"{'; '.join(differences[:6])}{'; ...' if len(differences) > 6 else ''}. Choose another --out."
            )

    def check_protocol(self, protocol_hash: str, rows: Sequence[Row]) -> None:
        """Check that rows to come can stand beside those there are.

        Raises:
            InvalidArgument: they have another protocol.
        """
        other = next((row for row in rows if row["protocol_hash"] != protocol_hash), None)
        if other is not None:
            raise InvalidArgument(
                f"{self.path} holds runs by another protocol (budget {other['budget']}, repeat_query "
                f"{other['repeat_query']}, hash {other['protocol_hash']}; now {protocol_hash}). Choose another --out."
            )

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the directory, so that no second `bench run` does the same runs.

        Raises:
            InvalidArgument: another process holds it.
            WriteFailed: the directory cannot be written.
        """
        self._create()
        with self._lock_file("running.lock") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InvalidArgument(
                    f"another process is running a suite in {self.path}; wait for it or choose another --out."
                ) from None
            yield

    def append(self, row: Mapping[str, Any]) -> None:
        """Append a finished run; several processes may do so.

        Warns:
            TornRow: part of a row, as a kill leaves one behind, was removed.

        Raises:
            WriteFailed: the disk refuses; the rows before are safe.
        """
        self._create()
        with self._lock_file("runs.lock") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            append_row(self.runs, row)

    def append_failure(self, row: Mapping[str, Any]) -> None:
        """Append a run that raised."""
        append_row(self.failures, row)

    def write_summary(self, markdown: str) -> None:
        """Write ``summary.md``."""
        self._write("summary.md", markdown.encode())

    def _create(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WriteFailed(f"{self.path}: cannot be created: {error.strerror or error}.") from error

    @contextlib.contextmanager
    def _lock_file(self, name: str) -> Iterator[Any]:
        try:
            file = (self.path / name).open("a")
        except OSError as error:
            raise WriteFailed(f"{self.path / name}: cannot be opened: {error.strerror or error}.") from error
        with file:
            yield file

    def _write(self, name: str, content: bytes) -> None:
        try:
            write_whole(self.path / name, content)
        except OSError as error:
            raise WriteFailed(f"{self.path / name}: cannot be written: {error.strerror or error}.") from error


def rows_at(path: Path) -> list[Row]:
    """Return the rows of a record, whether it is a directory or a packed file.

    Raises:
        InvalidArgument: it is neither, or holds no run.
        RecordError: it is damaged.
    """
    if path.is_dir():
        rows = SuiteRecord(path).rows()
    elif path.is_file():
        rows = unpack(path)
    else:
        raise InvalidArgument(f"{path} is no record: neither a directory of `bench run` nor a file of `bench pack`.")
    if not rows:
        raise InvalidArgument(f"{path} holds no finished run.")
    return rows


def baseline_rows(suite: Suite, rows: Sequence[Row], folder: Path = BASELINES) -> tuple[list[Row], list[str]]:
    """Return the recorded baselines that may stand beside some rows, and why others may not.

    Args:
        suite: whose baselines.
        rows: finished runs; their tasks are compared, and their methods are not taken from the baselines.
        folder: where ``SUITE.parquet`` lies.
    """
    path = folder / f"{suite.name}.parquet"
    if not path.is_file():
        return [], [f"no recorded baselines of the suite {suite.name!r} come with this version."]
    recorded = unpack(path)
    if recorded[0]["protocol_hash"] != suite.protocol.hash:
        return [], [
            f"the recorded baselines of {suite.name!r} were made by another protocol (budget {recorded[0]['budget']}), "
            "so they are not shown."
        ]
    mine = {row["task"]: (row["task_hash"], row["table_sha256"]) for row in rows}
    methods = {row["method"] for row in rows}
    joined = [row for row in recorded if row["method"] not in methods and row["task"] in mine]
    other = {row["task"] for row in joined if (row["task_hash"], row["table_sha256"]) != mine[row["task"]]}
    refusals = [f"the recorded baselines on {task!r} are of another task or table." for task in sorted(other)]
    return [row for row in joined if row["task"] not in other], refusals


def _checked(path: Path, rows: list[Row]) -> list[Row]:
    for number, row in enumerate(rows, start=1):
        if row.get("format") != FORMAT:
            raise RecordError(
                f"{path}, row {number}: format {row.get('format')!r}, but this version reads {FORMAT}; use the "
                "version of nas-gym that wrote it."
            )
    return rows


# --- packed records --------------------------------------------------------------------------------


def pack(rows: Sequence[Row], path: Path) -> int:
    """Write rows into one Parquet file and return its size in bytes.

    Plain fields are columns; lists and objects are columns of JSON text, named in the metadata. Rows are ordered by
    task, method and seed, so that equal records make equal files.

    Raises:
        InvalidArgument: no row, or they are too many for a file that comes with the package.
        WriteFailed: the file cannot be written.
    """
    import pyarrow
    import pyarrow.parquet

    if not rows:
        raise InvalidArgument("there is no finished run to pack.")
    ordered = sorted(rows, key=lambda row: (row["task"], row["method"], row["seed"]))
    names = list(dict.fromkeys(name for row in ordered for name in row))
    nested = [name for name in names if any(isinstance(row.get(name), (list, dict)) for row in ordered)]
    columns = {name: [_text(row.get(name)) if name in nested else row.get(name) for row in ordered] for name in names}
    metadata = {_METADATA: json.dumps({"format": FORMAT, "json": nested}).encode()}
    table = pyarrow.table(columns).replace_schema_metadata(metadata)
    buffer = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, buffer, compression="zstd", compression_level=19)
    content = buffer.getvalue().to_pybytes()
    if len(content) > MOST_BYTES:
        raise InvalidArgument(
            f"{len(rows)} runs make {len(content):,} bytes, more than the {MOST_BYTES:,} that a packaged record may "
            "have; pack fewer seeds or tasks."
        )
    try:
        write_whole(path, content)
    except OSError as error:
        raise WriteFailed(f"{path}: cannot be written: {error.strerror or error}.") from error
    return len(content)


def unpack(path: Path) -> list[Row]:
    """Return the rows of a packed record.

    Raises:
        RecordError: the file is damaged, or no packed record.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        about = json.loads(table.schema.metadata[_METADATA])
        columns = {
            name: [None if text is None else json.loads(text) for text in column] if name in about["json"] else column
            for name, column in table.to_pydict().items()
        }
    except (OSError, pyarrow.ArrowException, KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{path}: no packed record, or a damaged one ({type(error).__name__}: {error}).") from error
    count = table.num_rows
    return _checked(path, [{name: column[index] for name, column in columns.items()} for index in range(count)])


def _text(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
    return None if value is None else json.dumps(value, separators=(",", ":"))
