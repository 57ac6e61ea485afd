"""Columns of cells out of CSV and Parquet files, each cell checked where it is read.

Dimension letters: R rows.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_gym.errors import TableError
from nas_gym.tables.format import METADATA_KEY
from nas_gym.tables.importers.core import Source

PARQUET = b"PAR1"
_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Frame:
    """A file as columns.

    Attributes:
        path: the file.
        cells: column name -> R cells: text from a CSV file, Python values from a Parquet file, None where empty.
        first_line: number that the first row has in messages: 2 below the header of a CSV file.
    """

    path: Path
    cells: Mapping[str, Sequence[Any]]
    first_line: int

    def where(self, row: int) -> str:
        """Describe the place of a row, for messages."""
        return f"{self.path}, row {row + self.first_line}"

    def texts(self, column: str) -> list[str]:
        """Return a column of texts.

        Raises:
            TableError: a cell is empty or no text.
        """
        found: list[str] = []
        for row, cell in enumerate(self.cells[column]):
            if not isinstance(cell, str) or not cell.strip():
                raise TableError(f"{self.where(row)}: {column} must be a text, got {cell!r}.")
            found.append(cell.strip())
        return found

    def numbers(self, column: str, *, gaps: bool = False) -> npt.NDArray[np.float64]:
        """Return a column of finite numbers, float64 [R].

        Args:
            column: its name.
            gaps: whether cells may be empty; they become NaN.

        Raises:
            TableError: a cell is no finite number, or empty where it may not be.
        """
        values = np.empty(len(self.cells[column]))
        for row, cell in enumerate(self.cells[column]):
            value = _number(cell)
            if value is None and not gaps:
                raise TableError(f"{self.where(row)}: {column} is empty; every architecture needs a number there.")
            if value is not None and not math.isfinite(value):
                raise TableError(f"{self.where(row)}: {column} must be a finite number, got {cell!r}.")
            values[row] = math.nan if value is None else value
        return values

    def counts(self, column: str) -> npt.NDArray[np.int64]:
        """Return a column of integers from 0 on, int64 [R].

        Raises:
            TableError: a cell is something else.
        """
        values = self.numbers(column)
        wrong = np.flatnonzero((values < 0) | (values != np.floor(values)) | (values >= 2**53))
        if len(wrong):
            row = int(wrong[0])
            raise TableError(f"{self.where(row)}: {column} must be an integer of at least 0, got {values[row]!r}.")
        return values.astype(np.int64)


def _number(cell: object) -> float | None:
    """Return the number of a cell, None where it is empty, infinity where it is no number."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    if isinstance(cell, bool) or (isinstance(cell, str) and ("_" in cell or not cell.isascii())):
        return math.inf
    try:
        value = float(cell)  # pyright: ignore[reportArgumentType] - whatever it is, it may be a number
    except (TypeError, ValueError):
        return math.inf
    # A written NaN is how other programs store an empty cell.
    return None if math.isnan(value) else value


def read_frame(source: Source) -> Frame:
    """Return the columns of a CSV or Parquet file.

    Raises:
        TableError: the file is torn or malformed, or has no rows.
    """
    frame = _read_parquet(source) if source.head.startswith(PARQUET) else _read_csv(source)
    if not frame.cells or not len(next(iter(frame.cells.values()))):
        raise TableError(f"{source.path}: has no rows.")
    return frame


def looks_like_csv(head: bytes) -> bool:
    """Tell whether a file that begins like this is text whose first line has several cells."""
    try:
        # The head may end inside a character.
        text = head.decode("utf-8-sig", errors="strict" if len(head) < 4 else "ignore")
    except UnicodeDecodeError:
        return False
    first = text.splitlines()[0] if text else ""
    is_text = len(text.encode()) >= len(head) - 6 and "\0" not in text
    return is_text and not first.lstrip().startswith(("{", "[")) and any(mark in first for mark in _DELIMITERS)


def _read_csv(source: Source) -> Frame:
    try:
        text = source.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(f"{source.path}: not text in UTF-8 ({error}).") from None
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    try:
        header, *rows = [
            row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if row
        ]
    except csv.Error as error:
        raise TableError(f"{source.path}: malformed CSV ({error}).") from None
    except ValueError:
        raise TableError(f"{source.path}: empty.") from None
    names = [name.strip() for name in header]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TableError(f"{source.path}: several columns are called {', '.join(map(repr, twice))}.")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(names):
            raise TableError(
                f"{source.path}, row {number}: {len(row)} cells, the header has {len(names)}; the file is torn or "
                "malformed."
            )
    return Frame(source.path, {name: [row[index] for row in rows] for index, name in enumerate(names)}, 2)


def _read_parquet(source: Source) -> Frame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        arrow = pq.read_table(source.path, use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TableError(f"{source.path}: not a complete Parquet file ({reason}). Fetch it again.") from None
    if METADATA_KEY in (arrow.schema.metadata or {}):
        raise TableError(
            f"{source.path}: a nas-gym table already; use it by its path, table={str(source.path)!r}, or copy it into "
            "$NAS_GYM_DATA/tables."
        )
    return Frame(source.path, {name: arrow.column(name).to_pylist() for name in arrow.column_names}, 1)
