"""Building a table with worker processes: nothing is lost, nothing is done twice, whoever is killed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from toys import FEW_CELLS, FewCells, ToySpace, die

from nas_gym import networks
from nas_gym.datasets import Source
from nas_gym.datasets.catalogue import FACTS
from nas_gym.errors import BuildInterrupted, DatasetError, InvalidArgument, TableError
from nas_gym.evaluators.child import ChildResult, ChildTask, TrainingJob, make_child_worker
from nas_gym.evaluators.core import Status
from nas_gym.evaluators.store import EvaluationStore
from nas_gym.evaluators.workers import InProcess, Slot
from nas_gym.networks.nas_bench_201 import Skeleton
from nas_gym.networks.operations import complexity
from nas_gym.networks.recipe import Recipe
from nas_gym.search_spaces import Encoding, SearchSpace
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space
from nas_gym.tables import build
from nas_gym.tables.assemble import assemble
from nas_gym.tables.build import (
    BuildSpec,
    Progress,
    ShardRow,
    Trainer,
    complexities,
    evaluation_key,
    read_rows,
    representatives,
    store_path,
    train_shards,
    training_seed,
)
from nas_gym.tables.format import Table, read_table
from nas_gym.tables.verify import retrain_rows

pytestmark = pytest.mark.usefixtures("one_thread")
"""Compute with one thread, as workers do."""

space = FewCells()

SPEC = BuildSpec(
    space="toys:FewCells",
    recipe=Recipe(epochs=1),
    sizes={"skeleton": Skeleton(channels=2, cells_per_stage=1, stages=2, reduction="pooling").to_json()},
)
VALID_IMAGES, TEST_IMAGES = 650, 647
DIVERGING = dataclasses.replace(SPEC, recipe=Recipe(epochs=1, learning_rate=1e12))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Progress]]:
    """Return the working directory of a finished build of two seeds by two workers, and its progress reports."""
    work = tmp_path_factory.mktemp("finished")
    reports: list[Progress] = []
    train_shards(SPEC, work, seeds=[0, 1], workers=2, on_progress=reports.append)
    return work, reports


@pytest.fixture
def work(finished: tuple[Path, list[Progress]], tmp_path: Path) -> Path:
    """Return a copy of the finished working directory, to be damaged."""
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


@contextlib.contextmanager
def training_here() -> Iterator[None]:
    """Train in this process, which saves the start of workers."""

    def pool(make_work: Callable[[Slot], Callable[[TrainingJob], ChildResult]], slots: Sequence[Slot]) -> InProcess:
        return InProcess(make_work, slots[0])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "LocalProcesses", pool)
        yield


@pytest.fixture
def in_process() -> Iterator[None]:
    """Train in this process during a test."""
    with training_here():
        yield


def forget(work: Path, seed: int, kept: int) -> None:
    """Leave only the first finished networks of a seed, as a kill would have done."""
    with contextlib.closing(sqlite3.connect(store_path(work))) as database, database:
        seeds = [training_seed(seed, cell) for cell in FEW_CELLS]
        marks = ",".join("?" * len(seeds))
        rows = database.execute(f"SELECT rowid FROM evaluations WHERE seed IN ({marks}) ORDER BY rowid", seeds)
        dropped = [row for (row,) in rows][kept:]
        database.executemany("DELETE FROM evaluations WHERE rowid = ?", [(row,) for row in dropped])


def untimed(row: ShardRow) -> ShardRow:
    """Return a row without what depends on the speed of the machine."""
    return dataclasses.replace(row, cpu_seconds=0.0)


def table(work: Path, out: Path) -> Table:
    """Return the table of the first seed of a finished build."""
    assemble(SPEC, work, out, seeds=1)
    return read_table(out)


def codes() -> set[int]:
    """Return the codes of the four cells."""
    return {space.code(cell) for cell in FEW_CELLS}


# --- a whole build ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_every_class_is_trained_once_per_seed(finished: tuple[Path, list[Progress]], seed: int) -> None:
    """The store has one row a cell and seed."""
    with EvaluationStore.existing(store_path(finished[0])) as store:
        assert len(store) == 2 * len(FEW_CELLS)
    assert set(read_rows(SPEC, finished[0], seed)) == codes()


def test_rows_hold_the_curve_the_test_result_and_the_time(finished: tuple[Path, list[Progress]]) -> None:
    """One count of correct validation images an epoch, one of test images, and processor seconds."""
    for row in read_rows(SPEC, finished[0], 0).values():
        assert row.status == "ok"
        assert len(row.valid_correct) == SPEC.recipe.epochs
        assert all(0 < correct <= VALID_IMAGES for correct in row.valid_correct)
        assert 0 < row.test_correct <= TEST_IMAGES
        assert row.cpu_seconds > 0


def test_seeds_differ(finished: tuple[Path, list[Progress]]) -> None:
    """Every seed has its own weights and order of images."""
    shards = [read_rows(SPEC, finished[0], seed) for seed in (0, 1)]
    one, other = ({code: row.valid_correct for code, row in shard.items()} for shard in shards)
    assert one != other


def test_progress_counts_up_to_the_whole(finished: tuple[Path, list[Progress]]) -> None:
    """One report at the start and one after every network."""
    reports = finished[1]
    assert [report.done for report in reports] == list(range(9))
    assert [report.done_here for report in reports] == list(range(9))
    assert {report.total for report in reports} == {8}


def test_the_time_left_falls_to_zero(finished: tuple[Path, list[Progress]]) -> None:
    """Unknown at the start, nothing at the end."""
    reports = finished[1]
    assert reports[0].seconds_left == float("inf")
    assert reports[-1].seconds_left == 0


def test_a_row_trained_again_has_the_same_numbers(finished: tuple[Path, list[Progress]]) -> None:
    """Anyone can train a row from the recipe, in another process, and compare."""
    trainer = Trainer(SPEC)
    rows = read_rows(SPEC, finished[0], 1)
    again = {space.code(cell): trainer.train(cell, seed=1) for cell in FEW_CELLS}
    assert {code: untimed(row) for code, row in again.items()} == {code: untimed(row) for code, row in rows.items()}


def test_a_finished_build_starts_no_worker(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command again does nothing but report."""
    monkeypatch.setattr(build, "make_child_worker", None)
    before = [read_rows(SPEC, work, seed) for seed in (0, 1)]
    reports: list[Progress] = []
    train_shards(SPEC, work, [0, 1], workers=2, on_progress=reports.append)
    assert [(report.done, report.total) for report in reports] == [(8, 8)]
    assert [read_rows(SPEC, work, seed) for seed in (0, 1)] == before


# --- resumption ------------------------------------------------------------------------------------


def test_a_missing_network_is_trained_and_the_others_are_kept(work: Path) -> None:
    """It gets the numbers that it had."""
    before = read_rows(SPEC, work, 0)
    forget(work, 0, kept=3)
    kept = read_rows(SPEC, work, 0)
    reports: list[Progress] = []
    train_shards(SPEC, work, [0], workers=1, on_progress=reports.append)
    after = read_rows(SPEC, work, 0)
    assert [report.done for report in reports] == [3, 4]
    assert {code: after[code] for code in kept} == kept
    assert {code: untimed(row) for code, row in after.items()} == {code: untimed(row) for code, row in before.items()}


KILLED_BUILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from nas_gym.networks.recipe import Recipe
from nas_gym.networks.nas_bench_201 import Skeleton
from nas_gym.tables.build import BuildSpec, train_shards

def stop_after_two(progress):
    if progress.done == 2:
        print("two are done", flush=True)
        time.sleep(600)

if __name__ == "__main__":
    skeleton = Skeleton(2, 1, 2, "pooling").to_json()
    spec = BuildSpec("toys:FewCells", "digits", Recipe(epochs=1), {{"skeleton": skeleton}})
    train_shards(spec, Path({work!r}), [0], workers=2, on_progress=stop_after_two)
"""


class KilledBuild(NamedTuple):
    """A build that was killed after two of four networks and continued.

    Attributes:
        work: the working directory.
        workers_ended: whether the workers ended after their parent.
        safe: rows after the kill.
        reports: progress of the continuation.
        after: rows at the end.
    """

    work: Path
    workers_ended: bool
    safe: dict[int, ShardRow]
    reports: list[Progress]
    after: dict[int, ShardRow]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> KilledBuild:
    """Return a build whose parent was ended by kill -9, and continued."""
    folder = tmp_path_factory.mktemp("killed")
    script, work = folder / "killed_build.py", folder / "work"
    script.write_text(KILLED_BUILD.format(tests=str(Path(__file__).parents[1]), work=str(work)))
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "two are done\n"
        os.kill(parent.pid, signal.SIGKILL)
        # Workers inherit the pipe, so that its end is read only when the last of them is gone.
        try:
            parent.communicate(timeout=30)
            workers_ended = True
        except subprocess.TimeoutExpired:
            workers_ended = False
    safe = read_rows(SPEC, work, 0)
    reports: list[Progress] = []
    with training_here():
        train_shards(SPEC, work, [0], workers=1, on_progress=reports.append)
    return KilledBuild(work, workers_ended, safe, reports, read_rows(SPEC, work, 0))


def test_a_killed_build_leaves_no_worker(killed: KilledBuild) -> None:
    """After kill -9 of the parent its workers end by themselves."""
    assert killed.workers_ended


def test_a_killed_build_keeps_what_was_reported(killed: KilledBuild) -> None:
    """Two networks were done, and their rows never change."""
    assert len(killed.safe) == 2
    assert {code: killed.after[code] for code in killed.safe} == killed.safe


def test_a_killed_build_trains_exactly_the_rest(killed: KilledBuild) -> None:
    """The continuation reports the two that are left."""
    assert [report.done for report in killed.reports] == [2, 3, 4]


def test_a_killed_build_becomes_the_same_table(
    killed: KilledBuild, finished: tuple[Path, list[Progress]], tmp_path: Path
) -> None:
    """But for the seconds, nothing in the table tells that it was interrupted."""
    resumed, whole = (table(path, tmp_path / f"{path.name}.parquet") for path in (killed.work, finished[0]))
    for name in whole.columns:
        if name != "train_seconds":
            np.testing.assert_array_equal(resumed.columns[name], whole.columns[name], err_msg=name)


@pytest.mark.parametrize("kept", [1, 2, 3], ids=["after one", "after two", "after three"])
def test_a_torn_log_loses_only_the_rows_behind_the_tear(
    finished: tuple[Path, list[Progress]], tmp_path: Path, kept: int
) -> None:
    """Where the machine died while the store wrote its log, the rows before are read as they were."""
    before, torn = store_path(tmp_path / "before"), store_path(tmp_path / "torn")
    log = before.with_name(before.name + "-wal")
    whole = read_rows(SPEC, finished[0], 0)
    ends = [0]
    with EvaluationStore.existing(store_path(finished[0])) as source, EvaluationStore(before) as store:
        for key, stored in source.rows():
            if key.seed == training_seed(0, key.encoding):
                store.put(key, stored)
                ends.append(log.stat().st_size)
        torn.parent.mkdir()
        shutil.copy(before, torn)
        (torn.parent / log.name).write_bytes(log.read_bytes()[: (ends[kept] + ends[kept + 1]) // 2])
    rows = read_rows(SPEC, torn.parent, 0)
    assert (len(rows), rows.items() <= whole.items()) == (kept, True)


@pytest.mark.parametrize("content", [b"", b'{"space": "toys', b"\x00\x00"], ids=["empty", "cut", "zeros"])
def test_a_torn_manifest_is_written_again(work: Path, content: bytes) -> None:
    """The build continues, since the keys of the store say what they belong to."""
    manifest = work / "manifest.json"
    whole = manifest.read_bytes()
    manifest.write_bytes(content)
    train_shards(SPEC, work, [0], workers=1)
    assert manifest.read_bytes() == whole


def test_a_build_whose_workers_die_says_what_is_safe(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three starts in a row without a worker are enough."""
    forget(work, 0, kept=1)
    monkeypatch.setattr(build, "make_child_worker", die)
    with pytest.raises(BuildInterrupted, match=r"1 of 4 are safe in .*the same command continues"):
        train_shards(SPEC, work, [0], workers=1)


# --- failures --------------------------------------------------------------------------------------


def killed_worker(cell: Encoding, times: float) -> Callable[[ChildTask, Slot], Callable[[TrainingJob], ChildResult]]:
    """Return a maker of workers that lose one cell so many times."""

    def make(task: ChildTask, slot: Slot) -> Callable[[TrainingJob], ChildResult]:
        train = make_child_worker(task, slot)
        attempts = 0

        def work(job: TrainingJob) -> ChildResult:
            nonlocal attempts
            attempts += job.encoding == cell
            lost = job.encoding == cell and attempts <= times
            return ChildResult(Status.KILLED, message="the worker was ended by signal 9") if lost else train(job)

        return work

    return make


@pytest.mark.usefixtures("in_process")
def test_a_failure_that_may_pass_is_tried_again(
    finished: tuple[Path, list[Progress]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network whose worker was killed twice gets the numbers that it would have had."""
    monkeypatch.setattr(build, "make_child_worker", killed_worker(FEW_CELLS[1], 2))
    train_shards(SPEC, tmp_path, [0], workers=1)
    rows, whole = read_rows(SPEC, tmp_path, 0), read_rows(SPEC, finished[0], 0)
    assert {code: untimed(row) for code, row in rows.items()} == {code: untimed(row) for code, row in whole.items()}


@pytest.mark.usefixtures("in_process")
def test_a_network_that_always_fails_does_not_keep_the_others_from_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the first in order, and when the build gives up all others are safe."""
    monkeypatch.setattr(build, "make_child_worker", killed_worker(representatives(space)[0], float("inf")))
    with pytest.raises(BuildInterrupted, match=r"3 trainings in a row failed .*killed: .* 3 of 4 are safe"):
        train_shards(SPEC, tmp_path, [0], workers=1)


@pytest.mark.usefixtures("in_process")
def test_a_network_that_always_fails_waits_for_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs one attempt before all others are done, and three in a row after them."""
    first = representatives(space)[0]
    monkeypatch.setattr(build, "make_child_worker", killed_worker(first, float("inf")))
    with pytest.raises(BuildInterrupted):
        train_shards(SPEC, tmp_path, [0], workers=1)
    fingerprint = Source(SPEC.dataset).load().fingerprint
    with EvaluationStore.existing(store_path(tmp_path)) as store:
        assert len(store.failures(evaluation_key(SPEC, fingerprint, first, 0))) == 1 + 3


@pytest.fixture(scope="module")
def diverged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the working directory of a build with a learning rate at which networks diverge."""
    work = tmp_path_factory.mktemp("diverged")
    with training_here():
        train_shards(DIVERGING, work, [0], workers=1)
    return work


def test_a_failure_for_good_is_stored(diverged: Path) -> None:
    """A diverged network is a row with its reason."""
    assert read_rows(DIVERGING, diverged, 0)[space.code(FEW_CELLS[3])].status == "diverged"


def test_a_failure_for_good_is_not_trained_again(diverged: Path) -> None:
    """The same command again finds all four done."""
    reports: list[Progress] = []
    train_shards(DIVERGING, diverged, [0], workers=1, on_progress=reports.append)
    assert [(report.done, report.done_here) for report in reports] == [(4, 0)]


def test_a_table_with_a_failed_training_is_refused(diverged: Path, tmp_path: Path) -> None:
    """The message counts the failures and names the first."""
    with pytest.raises(TableError, match=r"seed 0: the training of \d networks failed, the first is code \d+"):
        assemble(DIVERGING, diverged, tmp_path / "table.parquet", seeds=1)


def test_an_incomplete_table_is_refused(work: Path, tmp_path: Path) -> None:
    """The message says how many networks are missing."""
    forget(work, 0, kept=3)
    with pytest.raises(TableError, match="seed 0: 1 of 4 networks are missing; finish the build first"):
        assemble(SPEC, work, tmp_path / "table.parquet", seeds=1)


# --- what a directory belongs to -------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(dataclasses.replace(SPEC, recipe=Recipe(epochs=2)), id="another recipe"),
        pytest.param(
            dataclasses.replace(SPEC, sizes={"skeleton": Skeleton(4, 1, 2, "pooling").to_json()}), id="another skeleton"
        ),
        pytest.param(dataclasses.replace(SPEC, space="nas_bench_201"), id="another space"),
    ],
)
def test_a_directory_of_another_table_is_refused(work: Path, other: BuildSpec) -> None:
    """Trainings of two recipes are never mixed."""
    with pytest.raises(InvalidArgument, match="holds an unfinished build of another table"):
        train_shards(other, work, [0], workers=1)


def test_a_second_build_in_the_same_directory_is_refused(work: Path) -> None:
    """While one is running, another one does not write into its store."""
    refusals: list[str] = []

    def second(progress: Progress) -> None:
        with pytest.raises(InvalidArgument) as caught:
            train_shards(SPEC, work, [0], workers=1)
        refusals.append(str(caught.value))

    train_shards(SPEC, work, [0], workers=1, on_progress=second)
    assert len(refusals) == 1
    assert refusals[0].startswith("another process is building in")


def test_a_directory_is_free_again_after_a_build(work: Path) -> None:
    """The lock goes with its holder."""
    train_shards(SPEC, work, [0], workers=1)
    train_shards(SPEC, work, [0], workers=1)


@pytest.mark.parametrize("workers", [0, -1])
def test_a_build_without_workers_is_refused(tmp_path: Path, workers: int) -> None:
    """At least one."""
    with pytest.raises(InvalidArgument, match=f"workers must be at least 1, got {workers}"):
        train_shards(SPEC, tmp_path, [0], workers=workers)


# --- rows ------------------------------------------------------------------------------------------


def test_a_seed_that_was_not_begun_is_empty(tmp_path: Path) -> None:
    """No store, no rows."""
    assert read_rows(SPEC, tmp_path, 0) == {}


def test_a_spec_survives_the_way_through_json() -> None:
    """The metadata of a table is enough to train its rows again."""
    assert BuildSpec.from_json(json.loads(json.dumps(SPEC.to_json()))) == SPEC


@pytest.mark.parametrize("spec", build.PACKAGED.values(), ids=build.PACKAGED.keys())
def test_packaged_specs_can_be_built(spec: BuildSpec) -> None:
    """Every packaged table comes from a spec that JSON keeps whole and whose smallest parts fit together."""
    assert BuildSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    spec.source.check()
    facts = FACTS[spec.dataset]
    side = spec.source.image_size or facts.side
    encoding = next(iter(spec.search_space.enumerate()))
    model = networks.build(spec.search_space, encoding, (facts.channels, side, side), facts.classes, **spec.sizes)
    assert sum(parameter.numel() for parameter in model.parameters()) > 0


# --- images of another place -----------------------------------------------------------------------


PLACED = dataclasses.replace(
    SPEC, dataset="cifar10", dataset_settings={"image_size": 8, "resampling": "area", "train_images": 50}
)
"""A table of a data set that is not on this machine."""


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> tuple[BuildSpec, Table]:
    """Return a spec that reads its images from a file, and the table of it."""
    folder = tmp_path_factory.mktemp("placed")
    rng = np.random.default_rng(0)
    arrays = {}
    for name, count in (("train", 80), ("test", 20)):
        arrays[f"x_{name}"] = rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
        arrays[f"y_{name}"] = np.arange(count) % 10
    np.savez(folder / "images.npz", **arrays)
    spec = dataclasses.replace(PLACED, data=str(folder / "images.npz"))
    with training_here():
        train_shards(spec, folder / "work", [0], workers=1)
    assemble(spec, folder / "work", folder / "table.parquet", 1, provenance="noise")
    return spec, read_table(folder / "table.parquet")


def test_a_table_does_not_record_where_its_images_lay(placed: tuple[BuildSpec, Table]) -> None:
    """It names the data set, its settings and what was special about the images."""
    spec, found = placed
    assert str(spec.data) not in json.dumps(dict(found.metadata))
    assert (found.metadata["dataset"], found.metadata["dataset_settings"]) == ("cifar10", PLACED.dataset_settings)
    assert found.metadata["data"]["fingerprint"] == spec.source.load().fingerprint
    assert found.metadata["data"]["provenance"] == "noise"


def test_sizes_of_parts_are_those_of_the_table(placed: tuple[BuildSpec, Table]) -> None:
    """Accuracies are counts of these images."""
    assert placed[1].metadata["splits"] == {"train": 50, "valid": 8, "test": 20}
    assert placed[1].measurement("valid_accuracy").denominator == 8


def test_rows_are_trained_again_from_images_of_another_place(placed: tuple[BuildSpec, Table]) -> None:
    """The images are recognised as those of the table."""
    (row,) = retrain_rows(placed[1], 1, np.random.default_rng(0), placed[0].data)
    assert (row.same, row.same_images) == (True, True)


def test_other_images_are_told_from_those_of_the_table(placed: tuple[BuildSpec, Table], tmp_path: Path) -> None:
    """One pixel is enough."""
    with np.load(str(placed[0].data)) as arrays:
        changed = dict(arrays)
    changed["x_test"][0, 0, 0, 0] ^= 128
    np.savez(tmp_path / "changed.npz", **changed)
    (row,) = retrain_rows(placed[1], 1, np.random.default_rng(0), str(tmp_path / "changed.npz"))
    assert row.same_images is False


def test_missing_images_are_asked_for(
    placed: tuple[BuildSpec, Table], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says how to get them."""
    monkeypatch.setenv("NAS_GYM_DATA", str(tmp_path))
    with pytest.raises(DatasetError, match=r"'cifar10' is missing: .*nas-gym datasets download cifar10"):
        list(retrain_rows(placed[1], 1, np.random.default_rng(0)))


# --- classes and costs -----------------------------------------------------------------------------


def test_representatives_are_one_per_class() -> None:
    """6,466 of the official space."""
    official = NASBench201Space()
    found = representatives(official)
    assert len(found) == len(set(found)) == 6466
    assert all(official.canonical(encoding) == encoding for encoding in found)


def test_representatives_come_in_a_fixed_order_that_is_not_sorted() -> None:
    """Cheap and expensive cells are mixed, the same way every time."""
    found = representatives(ToySpace())
    assert found == representatives(ToySpace())
    assert found != sorted(found)


class Huge(ToySpace):
    """A space that claims to have ten million architectures."""

    def size(self) -> int:
        """Return ten million."""
        return 10**7


class Uncountable(ToySpace):
    """A space that cannot be counted."""

    def size(self) -> None:  # type: ignore[override]
        """Return nothing."""


@pytest.mark.parametrize(
    ("too_large", "size"), [(Huge(), "10000000"), (Uncountable(), "uncountably many")], ids=["huge", "uncountable"]
)
def test_a_space_that_is_too_large_for_a_table_is_refused(too_large: SearchSpace, size: str) -> None:
    """The message has its size."""
    with pytest.raises(InvalidArgument, match=f"toy has {size} architectures; a table needs an enumerable one"):
        representatives(too_large)


def test_complexities_are_those_of_real_networks() -> None:
    """Parameters and multiply-adds, in the order of the encodings."""
    parameters, multiply_adds = complexities(SPEC, FEW_CELLS)
    real = [complexity(networks.build(space, cell, (1, 8, 8), 10, **SPEC.sizes), (1, 8, 8)) for cell in FEW_CELLS]
    assert parameters == [cost.parameters for cost in real]
    assert multiply_adds == [cost.multiply_adds for cost in real]


def test_a_diverging_network_is_a_row_with_its_reason() -> None:
    """One failure does not stop who trains rows again."""
    row = Trainer(DIVERGING).train(FEW_CELLS[3], seed=0)
    assert (row.status, row.valid_correct, row.test_correct) == ("diverged", (), 0)


def test_training_seeds_tell_seeds_and_cells_apart() -> None:
    """No two networks of a table share their random numbers."""
    seeds = {training_seed(seed, cell) for seed in range(5) for cell in FEW_CELLS}
    assert len(seeds) == 5 * len(FEW_CELLS)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_time_left_is_estimated_from_the_rate_of_this_process() -> None:
    """Two networks in ten seconds, six left."""
    assert Progress(done=14, total=20, done_here=2, seconds=10.0).seconds_left == 30.0
