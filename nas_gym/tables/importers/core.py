"""What an importer is: the content of a foreign file in, one table a data set out.

Dimension letters: R rows, S seeds, E epochs.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidArgument, InvalidEncoding, TableError
from nas_gym.registry import Entry, Registry
from nas_gym.search_spaces import SEARCH_SPACES, Encoding, SearchSpace, make_space
from nas_gym.tables.format import Measurement

FORMATS = Registry(
    "table format",
    {
        "nats_bench": Entry(
            "nas_gym.tables.importers.nats_bench:NATSBenchImporter",
            "official NATS-Bench topology or size archive, the '-simple' folder or a .tar of it",
        ),
        "nas_bench_macro": Entry(
            "nas_gym.tables.importers.nas_bench_macro:NASBenchMacroImporter",
            "NAS-Bench-Macro's JSON file",
        ),
        "columns": Entry(
            "nas_gym.tables.importers.columns:ColumnsImporter",
            "CSV (gzipped or not) or Parquet with a column of architectures",
        ),
    },
)
"""Importers by the name of what they read."""

_HEAD = 4096
_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Source:
    """A file or folder to import.

    Attributes:
        path: where it lies.
    """

    path: Path

    def __post_init__(self) -> None:
        """Check that it is there.

        Raises:
            TableError: it is neither a file nor a folder, or cannot be read.
        """
        if not self.path.is_file() and not self.path.is_dir():
            raise TableError(f"{self.path}: no such file or folder.")

    @cached_property
    def _start(self) -> bytes:
        if self.path.is_dir():
            return b""
        try:
            with self.path.open("rb") as file:
                return file.read(_HEAD)
        except OSError as error:
            raise TableError(f"{self.path}: cannot be read: {error.strerror or error}.") from None

    @property
    def gzipped(self) -> bool:
        """Whether it is a gzipped file."""
        return self._start.startswith(_GZIP)

    @cached_property
    def head(self) -> bytes:
        """The first bytes, after decompression of a gzipped file; empty for a folder.

        Raises:
            TableError: the file cannot be read.
        """
        if not self.gzipped:
            return self._start
        try:
            return zlib.decompressobj(wbits=31).decompress(self._start, _HEAD)
        except zlib.error as error:
            raise TableError(f"{self.path}: a damaged gzip file ({error}). Fetch it again.") from None

    def read(self) -> bytes:
        """Return the content, decompressed where it is gzipped.

        Raises:
            TableError: the file cannot be read or is torn.
        """
        try:
            if not self.gzipped:
                return self.path.read_bytes()
            with gzip.open(self.path) as file:
                return file.read()
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise TableError(f"{self.path}: a torn or damaged gzip file ({error}). Fetch it again.") from None
        except OSError as error:
            raise TableError(f"{self.path}: cannot be read: {error.strerror or error}.") from None

    def sha256(self) -> str:
        """Return the SHA-256 of the file as it is.

        Raises:
            TableError: the file cannot be read.
        """
        digest = hashlib.sha256()
        try:
            with self.path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except OSError as error:
            raise TableError(f"{self.path}: cannot be read: {error.strerror or error}.") from None
        return digest.hexdigest()


def _no_progress(done: int, total: int) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Options:
    """How to read a source; what is left at its default is up to the importer.

    Attributes:
        dataset: the data set to import, None = all.
        space: name of the search space, None = recognised by the notation of the architectures.
        columns: role -> name of a column.
        unit: "percent" or "fraction", of all accuracies; None = recognised by their range.
        workers: worker processes, where the importer uses any.
        progress: called with the number of files done and of all.
    """

    dataset: str | None = None
    space: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    unit: str | None = None
    workers: int = 2
    progress: Callable[[int, int], None] = _no_progress

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidArgument: an unknown unit, or no worker.
        """
        if self.unit not in (None, "percent", "fraction"):
            raise InvalidArgument(f"unit must be percent or fraction, got {self.unit!r}.")
        if self.workers < 1:
            raise InvalidArgument(f"workers must be at least 1, got {self.workers}.")

    def refuse(self, importer: str, *names: str) -> None:
        """Refuse options that have no meaning for a format.

        Raises:
            InvalidArgument: one of them is given.
        """
        defaults = {
            one.name: one.default_factory() if callable(one.default_factory) else one.default for one in fields(self)
        }
        for name in names:
            if getattr(self, name) != defaults[name]:
                raise InvalidArgument(
                    f"the format {importer!r} fixes what every value means and takes no {name}, "
                    f"got {getattr(self, name)!r}; leave it out."
                )


@dataclass(frozen=True)
class ImportedTable:
    """What a source says about one data set, not yet on the disk.

    Attributes:
        dataset: name of the data set in lower case, the second half of the table's name.
        space: the search space.
        encodings: the architectures, R in any order.
        measurements: what is recorded.
        columns: stored values by measurement, shape [R, max(S, 1), max(E, 1)].
        metadata: JSON values: where everything came from and how it was read.
        incomplete: architectures that the source names but does not measure in full; counted as missing.
    """

    dataset: str
    space: SearchSpace
    encodings: Sequence[Encoding]
    measurements: Mapping[str, Measurement]
    columns: Mapping[str, npt.NDArray[Any]]
    metadata: Mapping[str, Any]
    incomplete: int = 0


class Importer(ABC):
    """Reads one format.

    Attributes:
        name: name in `FORMATS`.
    """

    name: ClassVar[str]

    @abstractmethod
    def recognises(self, source: Source) -> bool:
        """Tell from its content whether `source` is of this format."""

    @abstractmethod
    def read(self, source: Source, options: Options) -> list[ImportedTable]:
        """Return one table a data set.

        Raises:
            TableError: the source is torn, malformed, or of another format.
            InvalidArgument: an option does not fit it.
        """


def recognise(source: Source, name: str | None = None) -> Importer:
    """Return the importer of a source: the one called `name`, else the one that recognises its content.

    Raises:
        UnknownName: no such format.
        TableError: no format, or more than one, recognises the source.
    """
    if name is not None:
        return FORMATS[name]()
    found = [importer for importer in (FORMATS[one]() for one in FORMATS) if importer.recognises(source)]
    if len(found) != 1:
        known = "; ".join(f"{one} ({entry.summary})" for one, entry in FORMATS.entries.items())
        said = " and ".join(importer.name for importer in found) or "no known format"
        raise TableError(f"{source.path}: looks like {said}. Name one of these with --format: {known}.")
    return found[0]


def find_space(texts: Sequence[str], name: str | None = None) -> SearchSpace:
    """Return the search space that architectures are written in.

    Args:
        texts: notations, at least one.
        name: name of the space, None = recognised by the first notation.

    Raises:
        UnknownName: no such space.
        TableError: no space, or more than one, reads the first notation.
    """
    if name is not None:
        return make_space(name)
    found = [space for space in (make_space(one) for one in SEARCH_SPACES) if _reads(space, texts[0])]
    if len(found) != 1:
        said = " and ".join(space.name for space in found) or "no search space"
        raise TableError(
            f"the architecture {texts[0]!r} is written in the notation of {said}; name the search space with --space, "
            f"out of: {', '.join(SEARCH_SPACES)}."
        )
    return found[0]


def _reads(space: SearchSpace, text: str) -> bool:
    try:
        space.from_string(text)
    except InvalidEncoding:
        return False
    return True


def encode(space: SearchSpace, texts: Sequence[str], where: Callable[[int], str]) -> list[Encoding]:
    """Return the encodings of notations.

    Args:
        space: the search space.
        texts: notations.
        where: describes the place of an index in the source, for messages.

    Raises:
        TableError: one is not an architecture of `space`.
    """
    encodings: list[Encoding] = []
    for index, text in enumerate(texts):
        try:
            encodings.append(space.from_string(text))
        except InvalidEncoding as error:
            raise TableError(f"{where(index)}: not an architecture of {space.name}: {error}") from None
    return encodings


def described_source(source: Source, format_name: str, sha256: str) -> dict[str, Any]:
    """Return what the metadata of a table says about the file that it was imported from."""
    return {"name": source.path.resolve().name, "format": format_name, "sha256": sha256}


def constant(values: Sequence[float] | npt.NDArray[Any], kind: type[np.generic]) -> npt.NDArray[Any]:
    """Return one value an architecture in the shape of a column, [R, 1, 1]."""
    return np.asarray(values).astype(kind)[:, None, None]
