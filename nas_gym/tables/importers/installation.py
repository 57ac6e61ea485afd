"""From imported values to named tables: checked first, then installed together or not at all."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from nas_gym.errors import InvalidArgument, TableError
from nas_gym.search_spaces.core import Batch
from nas_gym.tables.format import TABLES, read_table, write_table
from nas_gym.tables.importers.core import ImportedTable

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_STAGING = ".import-"


@dataclass(frozen=True)
class Installed:
    """A table that can now be used by name.

    Attributes:
        name: name in `TABLES`.
        path: its file.
        rows: number of architectures.
        missing: architectures of the space that it lacks, None where the space cannot be counted.
    """

    name: str
    path: Path
    rows: int
    missing: int | None


def tables_folder() -> Path:
    """Return where installed tables lie.

    Raises:
        InvalidArgument: the environment variable that names the folder is not set.
    """
    root = os.environ.get("NAS_GYM_DATA")
    if not root:
        raise InvalidArgument(
            "imported tables are kept in $NAS_GYM_DATA/tables, and the environment variable NAS_GYM_DATA is not set. "
            "Set it to a folder of yours, here and wherever the tables are used."
        )
    return Path(root) / "tables"


def check_name(name: str) -> str:
    """Return the first half of the names of tables.

    Raises:
        InvalidArgument: it cannot be part of a file name.
    """
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f"a table's name is made of letters, digits, '.', '_' and '-', got {name!r}.")
    return name


def install(
    name: str, tables: Sequence[ImportedTable], *, allow_missing: bool = False, force: bool = False
) -> list[Installed]:
    """Write tables ``NAME-DATASET`` under ``$NAS_GYM_DATA/tables``, all of them or none.

    Args:
        name: first half of their names.
        tables: what was imported.
        allow_missing: whether tables that lack architectures of their space are installed too.
        force: whether installed tables of the same names are replaced.

    Raises:
        InvalidArgument: the name cannot be used, or a table of this name exists.
        TableError: architectures are missing or come twice, or the disk is full; nothing was installed.
    """
    check_name(name)
    folder = tables_folder()
    targets = [folder / f"{name}-{check_name(table.dataset)}.parquet" for table in tables]
    for target in targets:
        _check_free(target, force)
    ordered = [_Ordered.of(table, allow_missing) for table in tables]
    try:
        with _staging(folder) as staging:
            for target, one in zip(targets, ordered, strict=True):
                one.write(staging / target.name)
                # What cannot be read back must not replace what could.
                read_table(staging / target.name)
            _move(staging, targets)
    except OSError as error:
        raise TableError(
            f"{folder}: the tables cannot be written: {error.strerror or error}. Nothing was installed; make room, or "
            "set NAS_GYM_DATA to a folder on another disk."
        ) from None
    return [
        Installed(target.stem, target, len(one.table.encodings), one.missing)
        for target, one in zip(targets, ordered, strict=True)
    ]


def _check_free(target: Path, force: bool) -> None:
    name = target.stem
    if name in TABLES and TABLES[name] != target:
        raise InvalidArgument(f"a table {name!r} is packaged with nas-gym and cannot be replaced; choose another name.")
    if target.exists() and not force:
        raise InvalidArgument(f"a table {name!r} is installed already ({target}); choose another name, or use --force.")


@dataclass(frozen=True)
class _Ordered:
    """A checked table in the order of its codes."""

    table: ImportedTable
    codes: np.ndarray
    order: np.ndarray
    missing: int | None

    @classmethod
    def of(cls, table: ImportedTable, allow_missing: bool) -> _Ordered:
        """Check a table.

        Raises:
            TableError: architectures are missing or come twice.
            InvalidArgument: the codes of the space do not fit into a table.
        """
        space = table.space
        size = space.size()
        if not table.encodings:
            raise TableError(f"{table.dataset}: no architecture is measured in full, so there is nothing to import.")
        codes = Batch.of(space, list(table.encodings)).codes
        if codes.dtype == object:
            raise InvalidArgument(f"architectures of {space.name} have no integer codes in 63 bits, as tables need.")
        order = np.argsort(codes, kind="stable")
        twice = np.flatnonzero(np.diff(codes[order]) == 0)
        if len(twice):
            first = table.encodings[int(order[twice[0]])]
            raise TableError(
                f"{table.dataset}: {len(twice)} architectures come twice, the first is {space.to_string(first)}."
            )
        missing = None if size is None else size - len(codes)
        if missing and not allow_missing:
            cut = f", {table.incomplete} of them present without all values" if table.incomplete else ""
            raise TableError(
                f"{table.dataset}: {missing:,} of the {size:,} architectures of {space.name} are missing{cut}. Get the "
                "whole file, or import what is there with --allow-missing: the optimum is then not known, and a search "
                "that asks for another architecture gets a failure."
            )
        return cls(table, codes[order], order, missing)

    def write(self, path: Path) -> None:
        """Write the table."""
        table = self.table
        metadata = {
            "space": table.space.name,
            "space_settings": table.space.settings,
            "dataset": table.dataset,
            **table.metadata,
            "missing": self.missing,
            "imported_with": f"nas-gym {version('nas-gym')}",
        }
        names = [table.space.to_string(table.encodings[index]) for index in self.order]
        columns = {name: values[self.order] for name, values in table.columns.items()}
        write_table(path, self.codes, table.measurements, columns, metadata, {"architecture": names})


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """Make a folder on the same disk that is gone afterwards, whatever happens."""
    folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=folder))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _move(staging: Path, targets: Sequence[Path]) -> None:
    """Move finished files to their places; where one fails, those that were not there before go away again."""
    new = [target for target in targets if not target.exists()]
    try:
        for target in targets:
            os.replace(staging / target.name, target)
    except BaseException:
        for target in new:
            target.unlink(missing_ok=True)
        raise
