"""The official NATS-Bench archives: topology space and size space, in their "-simple" form.

An archive is a folder, or a .tar of one, with ``meta.pickle.pbz2`` and one ``NNNNNN.pickle.pbz2`` an architecture. It
holds trainings of 12 epochs, which searches read, and trainings of 200 (topology) or 90 epochs (size), by which papers
judge. CIFAR-10 is special: the search signal comes from trainings on half of the training images, validated on the
other half, and the reported accuracy from trainings on all of them.

Source: Dong et al., "NATS-Bench", TPAMI 2021, sections 2 to 4, and the official search scripts.

Dimension letters: R rows, S seeds, E epochs.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import itertools
import multiprocessing
import re
import signal
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nas_gym.errors import TableError, UnknownName
from nas_gym.tables.format import Measurement
from nas_gym.tables.importers.core import (
    ImportedTable,
    Importer,
    Options,
    Source,
    constant,
    described_source,
    encode,
    find_space,
)
from nas_gym.tables.importers.restricted_pickle import load_compressed

SEARCH_EPOCHS = 12
"""Epochs of the trainings that searches read, in both spaces."""

_META = "meta.pickle.pbz2"
_MEMBER = re.compile(r"(\d{6})\.pickle\.pbz2")
_TAR_MAGIC = slice(257, 262)
_CHUNK = 64
_FEW = 128
"""Up to so many files are read here, without worker processes."""

_MILLION = 1_000_000
_ROUNDING = 0.01
"""How far an accuracy times the number of images may be from an integer; official values are within 0.0001."""


@dataclass(frozen=True)
class _DataSet:
    """Where the archives keep what belongs to one data set.

    Attributes:
        name: name of the table's data set.
        searched: data set of the trainings that searches read.
        reported: data set of the trainings that results are judged by.
        test: evaluation set of the reported accuracy.
        valid_images: images behind a validation accuracy.
        test_images: images behind a test accuracy.
    """

    name: str
    searched: str
    reported: str
    test: str
    valid_images: int
    test_images: int


VALID = "x-valid"
DATA_SETS = (
    _DataSet("cifar10", "cifar10-valid", "cifar10", "ori-test", 25_000, 10_000),
    _DataSet("cifar100", "cifar100", "cifar100", "x-test", 5_000, 5_000),
    _DataSet("imagenet16-120", "ImageNet16-120", "ImageNet16-120", "x-test", 3_000, 3_000),
)
"""The data sets of both archives; CIFAR-100 and ImageNet16-120 split their test images into validation and test."""


@dataclass(frozen=True)
class _Member:
    """One file of an archive: where its bytes are.

    Attributes:
        index: number of the architecture.
        path: the file, or the .tar that holds it.
        offset: first byte.
        size: number of bytes, -1 = to the end.
    """

    index: int
    path: Path
    offset: int = 0
    size: int = -1

    @property
    def where(self) -> str:
        """Describe it, for messages."""
        return str(self.path) if self.size < 0 else f"{self.path}, architecture {self.index:06}"

    def read(self) -> bytes:
        """Return the bytes.

        Raises:
            TableError: they cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                return file.read(self.size)
        except OSError as error:
            raise TableError(f"{self.where}: cannot be read: {error.strerror or error}.") from None


@dataclass(frozen=True)
class _Measured:
    """What one architecture's file says about one data set; seeds are keys.

    Attributes:
        valid: validation accuracy after every epoch of a short training, percent [12].
        seconds: simulated seconds of the short training up to every epoch and one validation, [12].
        test: test accuracy after a long training, percent.
        final_valid: validation accuracy after a long training, percent.
        early_test: test accuracy after a short training, percent.
        parameters, multiply_adds: of the reported network.
        latency: seconds, None where it was not measured.
    """

    valid: Mapping[int, npt.NDArray[np.float64]]
    seconds: Mapping[int, npt.NDArray[np.float64]]
    test: Mapping[int, float]
    final_valid: Mapping[int, float]
    early_test: Mapping[int, float]
    parameters: int
    multiply_adds: int
    latency: float | None


@dataclass(frozen=True)
class _Architecture:
    """One file: what it is about, the epochs of its long trainings, its data sets by name, None where incomplete."""

    index: int
    text: str
    epochs: int
    sha256: str
    data_sets: tuple[_Measured | None, ...]


class NATSBenchImporter(Importer):
    """The official archives; see the top of this file."""

    name: ClassVar[str] = "nats_bench"

    def recognises(self, source: Source) -> bool:
        """Tell whether it is a folder with an archive's files, or a .tar file."""
        if source.path.is_dir():
            return any(_MEMBER.fullmatch(path.name) or path.name == _META for path in source.path.iterdir())
        return source.head[_TAR_MAGIC] == b"ustar"

    def read(self, source: Source, options: Options) -> list[ImportedTable]:
        """Return one table a data set; see `Importer.read`.

        Trees of more than 128 files are read by worker processes, which are spawned: a script that imports a whole
        archive must do so under ``if __name__ == "__main__"``.
        """
        options.refuse(self.name, "columns", "unit")
        wanted = [one for one in DATA_SETS if options.dataset in (None, one.name)]
        if not wanted:
            raise UnknownName("data set of NATS-Bench", options.dataset, [one.name for one in DATA_SETS])
        meta, members = _list_members(source)
        names = _read_meta(meta)
        space = find_space(names, options.space)
        rows = sorted(_read_all(members, options), key=lambda row: row.index)
        for row in rows:
            if row.index >= len(names) or names[row.index] != row.text:
                raise TableError(f"{source.path}: architecture {row.index:06} is {row.text!r}, not what {_META} says.")
        lengths = {row.epochs for row in rows}
        if len(lengths) != 1:
            raise TableError(f"{source.path}: architectures were trained for different numbers of epochs: {lengths}.")
        encodings = encode(space, [row.text for row in rows], lambda index: members[index].where)
        digest = hashlib.sha256("".join(row.sha256 for row in rows).encode()).hexdigest()
        described = described_source(source, self.name, digest)
        tables = []
        for data_set in wanted:
            measured = [row.data_sets[DATA_SETS.index(data_set)] for row in rows]
            complete = [index for index, one in enumerate(measured) if one is not None]
            measurements, columns, seeds = _columns(
                data_set, [one for one in measured if one is not None], lengths.copy().pop()
            )
            metadata = {
                "signal": "valid_accuracy",
                "report": "test_accuracy",
                "source": described,
                "benchmark": "NATS-Bench (Dong, Liu, Musial, Gabrys, TPAMI 2021)",
                "seeds": seeds,
                "train_seconds_are": "simulated by the benchmark: epochs so far and one validation, "
                f"trained on {data_set.searched}",
            }
            tables.append(
                ImportedTable(
                    data_set.name,
                    space,
                    [encodings[index] for index in complete],
                    measurements,
                    columns,
                    metadata,
                    len(measured) - len(complete),
                )
            )
        return tables


# --- the files of an archive -----------------------------------------------------------------------------


def _list_members(source: Source) -> tuple[_Member, list[_Member]]:
    """Return the description of an archive and its architectures, by number.

    Raises:
        TableError: it is torn, or no archive of this kind.
    """
    if source.gzipped:
        raise TableError(f"{source.path}: a gzipped .tar; decompress it first (gunzip), its files are read one by one.")
    found = list(_in_folder(source.path) if source.path.is_dir() else _in_tar(source.path))
    metas = [member for member in found if member.index < 0]
    members = sorted((member for member in found if member.index >= 0), key=lambda member: member.index)
    if not members or len(metas) != 1:
        raise TableError(
            f"{source.path}: {len(members)} files NNNNNN.pickle.pbz2 and {len(metas)} {_META}; an official "
            "'-simple' folder, or a .tar of one, has one of these and an architecture a file. Unpack or fetch it again."
        )
    for one, other in itertools.pairwise(members):
        if one.index == other.index:
            raise TableError(f"{source.path}: architecture {one.index:06} comes twice.")
    return metas[0], members


def _in_folder(folder: Path) -> Iterator[_Member]:
    for path in folder.iterdir():
        if (index := _index(path.name)) is not None and path.is_file():
            yield _Member(index, path)


def _in_tar(path: Path) -> Iterator[_Member]:
    try:
        with tarfile.open(path, "r:") as tar:
            for entry in tar:
                index = _index(Path(entry.name).name)
                if index is not None and entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                    yield _Member(index, path, entry.offset_data, entry.size)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise TableError(f"{path}: a torn or damaged .tar file ({error}). Fetch it again.") from None
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror or error}.") from None


def _index(name: str) -> int | None:
    """Return the number of an architecture's file, -1 for the description of the archive, None for anything else."""
    if name == _META:
        return -1
    match = _MEMBER.fullmatch(name)
    return int(match[1]) if match else None


def _read_meta(member: _Member) -> list[str]:
    """Return the notations of all architectures of the space in the official order."""
    meta = load_compressed(member.read(), f"{member.path}: {_META}" if member.size >= 0 else str(member.path))
    names = meta.get("meta_archs") if type(meta) is dict else None
    if type(names) is not list or not names or not all(type(name) is str for name in names):
        raise TableError(f"{member.path}: {_META} lists no architectures ('meta_archs').")
    return names


# --- reading architectures -------------------------------------------------------------------------------


def _read_all(members: Sequence[_Member], options: Options) -> list[_Architecture]:
    """Read all architectures, in worker processes where they are many."""
    options.progress(0, len(members))
    if options.workers == 1 or len(members) <= _FEW:
        return list(_counted(map(_read_member, members), len(members), options))
    chunks = [members[start : start + _CHUNK] for start in range(0, len(members), _CHUNK)]
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(options.workers, context, initializer=_leave_interrupts_to_parent)
    try:
        rows = itertools.chain.from_iterable(pool.map(_read_chunk, chunks))
        return list(_counted(rows, len(members), options))
    except concurrent.futures.process.BrokenProcessPool:
        raise TableError(
            "a worker process ended unexpectedly while reading the archive; free some memory, or use --workers 1."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _counted(rows: Iterator[_Architecture], total: int, options: Options) -> Iterator[_Architecture]:
    for done, row in enumerate(rows, start=1):
        if done % _CHUNK == 0 or done == total:
            options.progress(done, total)
        yield row


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _read_chunk(members: Sequence[_Member]) -> list[_Architecture]:
    return [_read_member(member) for member in members]


def _read_member(member: _Member) -> _Architecture:
    """Return what one file says.

    Raises:
        TableError: it is torn, harmful, or not of this format.
    """
    content = member.read()
    trainings = load_compressed(content, member.where)
    try:
        if type(trainings) is not dict or any(trainings[key]["arch_index"] != member.index for key in trainings):
            raise TableError(f"{member.where}: is about another architecture than its name says.")
        epochs = max(int(key) for key in trainings)
        if epochs <= SEARCH_EPOCHS:
            raise ValueError(f"no training is longer than {SEARCH_EPOCHS} epochs")
        short, long = trainings[f"{SEARCH_EPOCHS}"], trainings[f"{epochs}"]
        data_sets = tuple(_measured(one, short["all_results"], long["all_results"], epochs) for one in DATA_SETS)
        text = short["arch_str"]
        if type(text) is not str or long["arch_str"] != text:
            raise TypeError("the notation of the architecture is no text")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise TableError(
            f"{member.where}: not the content of an official file ({type(error).__name__}: {str(error)[:200]})."
        ) from None
    return _Architecture(member.index, text, epochs, hashlib.sha256(content).hexdigest(), data_sets)


def _measured(one: _DataSet, short: Mapping[Any, Any], long: Mapping[Any, Any], epochs: int) -> _Measured | None:
    """Return what two sets of trainings, keyed by data set and seed, say about a data set; None where one lacks it."""
    searched = {seed: short[name, seed] for name, seed in short if name == one.searched}
    final = {seed: long[name, seed] for name, seed in long if name == one.searched}
    reported = {seed: long[name, seed] for name, seed in long if name == one.reported}
    early = {seed: short[name, seed] for name, seed in short if name == one.reported}
    if not searched or not reported or not final or not early:
        return None
    network = next(iter(reported.values()))
    latencies = [value for seed in sorted(searched) for value in searched[seed]["latency"] or ()]
    return _Measured(
        {
            seed: _floats(result["eval_acc1es"][f"{VALID}@{epoch}"] for epoch in range(SEARCH_EPOCHS))
            for seed, result in searched.items()
        },
        {seed: _seconds(result) for seed, result in searched.items()},
        {seed: _percent(result["eval_acc1es"][f"{one.test}@{epochs - 1}"]) for seed, result in reported.items()},
        {seed: _percent(result["eval_acc1es"][f"{VALID}@{epochs - 1}"]) for seed, result in final.items()},
        {seed: _percent(result["eval_acc1es"][f"{one.test}@{SEARCH_EPOCHS - 1}"]) for seed, result in early.items()},
        round(float(network["params"]) * _MILLION),
        round(float(network["flop"]) * _MILLION),
        float(np.mean(_floats(latencies))) if latencies else None,
    )


def _seconds(result: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """Return the cost of a search query by its last epoch: the trainings up to it and one validation."""
    train = _floats(result["train_times"][epoch] for epoch in range(SEARCH_EPOCHS))
    return train.cumsum() + _floats(result["eval_times"][f"{VALID}@{epoch}"] for epoch in range(SEARCH_EPOCHS))


def _floats(values: Any) -> npt.NDArray[np.float64]:  # noqa: ANN401 - any iterable
    found = np.array([float(value) for value in values])
    if not np.isfinite(found).all() or (found < 0).any():
        raise ValueError("a number is negative, infinite or missing")
    return found


def _percent(value: Any) -> float:  # noqa: ANN401 - what a file says
    (found,) = _floats([value])
    if found > 100:
        raise ValueError(f"an accuracy of {found} percent")
    return float(found)


# --- columns ---------------------------------------------------------------------------------------------


def _columns(
    one: _DataSet, rows: Sequence[_Measured], epochs: int
) -> tuple[dict[str, Measurement], dict[str, npt.NDArray[Any]], dict[str, list[int]]]:
    """Return measurements, stored values and the seeds behind them."""
    measurements: dict[str, Measurement] = {}
    columns: dict[str, npt.NDArray[Any]] = {}
    seeds: dict[str, list[int]] = {}
    accuracies = (
        ("valid_accuracy", [row.valid for row in rows], one.valid_images, SEARCH_EPOCHS, one.searched, VALID),
        ("test_accuracy", [row.test for row in rows], one.test_images, epochs, one.reported, one.test),
        (
            f"valid_accuracy_{epochs}ep",
            [row.final_valid for row in rows],
            one.valid_images,
            epochs,
            one.searched,
            VALID,
        ),
        (
            f"test_accuracy_{SEARCH_EPOCHS}ep",
            [row.early_test for row in rows],
            one.test_images,
            SEARCH_EPOCHS,
            one.reported,
            one.test,
        ),
    )
    for name, by_seed, images, length, trained_on, evaluated_on in accuracies:
        seeds[name], percent = _by_seed(by_seed)
        columns[name], denominator = as_counts(percent, images)
        measurements[name] = Measurement(
            "maximize",
            "fraction",
            name != "valid_accuracy",
            denominator,
            len(seeds[name]),
            SEARCH_EPOCHS if name == "valid_accuracy" else 0,
            length,
            f"{evaluated_on} of networks trained on {trained_on}, seeds {', '.join(map(str, seeds[name]))}",
        )
    _, seconds = _by_seed([row.seconds for row in rows])
    columns["train_seconds"] = seconds.astype(np.float32)
    measurements["train_seconds"] = Measurement(
        "minimize",
        "seconds",
        seeds=seconds.shape[1],
        epochs=SEARCH_EPOCHS,
        trained_epochs=SEARCH_EPOCHS,
        description=f"training on {one.searched} and one validation, as the benchmark's clock counts them",
    )
    for name, values in (
        ("parameters", [row.parameters for row in rows]),
        ("multiply_adds", [row.multiply_adds for row in rows]),
    ):
        columns[name] = constant(values, np.int64)
        measurements[name] = Measurement("minimize", "count", description="as recorded by the benchmark")
    if rows and all(row.latency is not None for row in rows):
        columns["latency_seconds"] = constant([row.latency or 0.0 for row in rows], np.float64)
        measurements["latency_seconds"] = Measurement(
            "minimize", "seconds", description="one batch of 256 images on the benchmark's GPU"
        )
    return measurements, columns, seeds


def _by_seed(rows: Sequence[Mapping[int, Any]]) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Return the seeds that occur and the values [R, S, E], NaN where an architecture lacks one."""
    seeds = sorted({seed for row in rows for seed in row})
    width = max((np.size(value) for row in rows for value in row.values()), default=1)
    values = np.full((len(rows), len(seeds), width), np.nan)
    for index, row in enumerate(rows):
        for seed, value in row.items():
            values[index, seeds.index(seed)] = value
    return seeds, values


def as_counts(percent: npt.NDArray[np.float64], images: int) -> tuple[npt.NDArray[Any], int]:
    """Return accuracies as numbers of correct images and their denominator, so that means are exact.

    Args:
        percent: accuracies, NaN where there is none.
        images: how many images they were measured on.

    Returns:
        The stored values, float32 where some are NaN (exact up to 2^24), else uint16; or, where they are no numbers of
        images, the accuracies as they are with the denominator 100.
    """
    counts = percent * (images / 100)
    missing = np.isnan(counts)
    if (np.abs(counts - np.round(counts))[~missing] > _ROUNDING).any():
        return percent, 100
    return np.round(counts).astype(np.float32 if missing.any() else np.uint16), images
