"""The official archives: numbers equal those of the benchmark's own package, and what is torn is refused."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nats_archives
import numpy as np
import pytest

from nas_gym.errors import InvalidArgument, TableError, UnknownName
from nas_gym.tables.format import TABLES, Table, read_table
from nas_gym.tables.importers import ImportedTable, Options, Source, install, recognise
from nas_gym.tables.importers.nats_bench import as_counts

INDICES = (0, 11, 284)
SPACES = {"topology": "nas_bench_201", "size": "nats_size"}


def tables_of(path: Path, **options: Any) -> list[ImportedTable]:
    """Return what an archive says, its format recognised."""
    source = Source(path)
    return recognise(source).read(source, Options(**options))


def installed(path: Path, name: str = "n") -> dict[str, Table]:
    """Return the tables of an archive, by data set, after a round trip through their files."""
    done = install(name, tables_of(path), allow_missing=True, force=True)
    return {str(read_table(one.path).metadata["dataset"]): read_table(one.path) for one in done}


@pytest.fixture(scope="module", params=SPACES)
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an archive of each space with three architectures."""
    return nats_archives.write(tmp_path_factory.mktemp("archives") / "a", SPACES[request.param], INDICES)


@pytest.fixture(scope="module")
def topology(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a topology archive with three architectures; tests only read it."""
    return nats_archives.write(tmp_path_factory.mktemp("topology") / "a", "nas_bench_201", INDICES)


def assert_agrees(table: Table, api: Any, index: int, length: str) -> None:
    """Check one architecture of a table against the benchmark's own package."""
    from nas_gym.search_spaces import make_space

    official = {"cifar10": "cifar10", "cifar100": "cifar100", "imagenet16-120": "ImageNet16-120"}
    reported = official[table.metadata["dataset"]]
    searched = "cifar10-valid" if reported == "cifar10" else reported
    space = make_space(table.metadata["space"])
    row = int(np.searchsorted(table.codes, space.code(space.from_string(api.arch(index)))))
    for epoch in (1, 6, 12):
        expected = api.get_more_info(index, searched, iepoch=epoch - 1, hp="12", is_random=False)
        assert table.mean("valid_accuracy", epoch)[row] == pytest.approx(expected["valid-accuracy"] / 100, abs=1e-7)
        cost = expected["train-all-time"] + expected["valid-per-time"]
        assert table.mean("train_seconds", epoch)[row] == pytest.approx(cost, rel=1e-6)
    expected = api.get_more_info(index, reported, hp=length, is_random=False)
    assert table.mean("test_accuracy")[row] == pytest.approx(expected["test-accuracy"] / 100, abs=1e-7)
    final = api.get_more_info(index, searched, hp=length, is_random=False)
    assert table.mean(f"valid_accuracy_{length}ep")[row] == pytest.approx(final["valid-accuracy"] / 100, abs=1e-7)
    costs = api.get_cost_info(index, reported, hp=length)
    assert table.mean("parameters")[row] == pytest.approx(1e6 * costs["params"])
    assert table.mean("multiply_adds")[row] == pytest.approx(1e6 * costs["flops"])
    assert table.mean("latency_seconds")[row] == pytest.approx(costs["latency"])


def official(path: Path, kind: str) -> Any:
    """Return the benchmark's own reader of an archive."""
    nats_bench = pytest.importorskip("nats_bench")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nats_bench.create(str(path), kind, fast_mode=True, verbose=False)


def test_numbers_are_those_of_the_benchmarks_package(archive: Path, data_root: Path) -> None:
    """Signal by epoch, cost by epoch, reports and sizes of every architecture and data set."""
    tables = installed(archive)
    kind = "tss" if tables["cifar10"].metadata["space"] == "nas_bench_201" else "sss"
    api = official(archive, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for table in tables.values():
            for index in INDICES:
                assert_agrees(table, api, index, "200" if kind == "tss" else "90")


@pytest.mark.slow
@pytest.mark.skipif("NAS_GYM_TEST_DATA" not in os.environ, reason="NAS_GYM_TEST_DATA names no folder of data sets")
@pytest.mark.parametrize(
    ("folder", "kind", "length"),
    [("NATS-tss-v1_0-3ffb9-simple", "tss", "200"), ("NATS-sss-v1_0-50262-simple", "sss", "90")],
)
def test_real_archives_agree_with_the_benchmarks_package(folder: str, kind: str, length: str, data_root: Path) -> None:
    """Rows 0, 11 and 284 of the real files."""
    path = Path(os.environ["NAS_GYM_TEST_DATA"]) / "nats_official_sample" / folder
    if not path.exists():
        pytest.skip("no sample of the official archives")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        api = official(path, kind)
        for table in installed(path).values():
            assert len(table) == 3
            for index in INDICES:
                assert_agrees(table, api, index, length)


def test_accuracies_are_numbers_of_images(topology: Path) -> None:
    """Percentages in single precision become the integers that they were, so that means are exact."""
    (table,) = tables_of(topology, dataset="cifar10")
    assert table.columns["valid_accuracy"].dtype == np.uint16
    assert [table.measurements[name].denominator for name in ("valid_accuracy", "test_accuracy")] == [25_000, 10_000]
    trainings = nats_archives.architecture("nas_bench_201", 11, nats_archives.names("nas_bench_201")[11])
    curve = trainings["12"]["all_results"]["cifar10-valid", 111]["eval_acc1es"]
    recorded = [round(curve[f"x-valid@{epoch}"] * 250) for epoch in range(12)]
    assert table.columns["valid_accuracy"][1, 0].tolist() == recorded


def test_accuracies_that_are_no_numbers_of_images_stay_percentages() -> None:
    """Nothing is rounded away."""
    values, denominator = as_counts(np.array([12.3456, 50.0]), 100)
    assert (values.tolist(), denominator) == ([12.3456, 50.0], 100)


def test_cifar10_is_searched_on_half_of_the_training_images(topology: Path) -> None:
    """The signal comes from other trainings than the report, and the table says from which."""
    (table,) = tables_of(topology, dataset="cifar10")
    assert (table.metadata["signal"], table.metadata["report"]) == ("valid_accuracy", "test_accuracy")
    assert "cifar10-valid" in table.measurements["valid_accuracy"].description
    assert "trained on cifar10," in table.measurements["test_accuracy"].description
    assert [name for name, one in table.measurements.items() if one.held_out] == [
        "test_accuracy",
        "valid_accuracy_200ep",
        "test_accuracy_12ep",
    ]


def test_seeds_are_recorded(topology: Path) -> None:
    """Which seeds a mean is over is part of the table."""
    (table,) = tables_of(topology, dataset="cifar10")
    assert table.metadata["seeds"] == {
        "valid_accuracy": [111, 777],
        "test_accuracy": [777, 888, 999],
        "valid_accuracy_200ep": [777, 888, 999],
        "test_accuracy_12ep": [111],
    }


def with_seeds(index: int, seeds: tuple[int, ...]) -> Callable[[str, int, str], Mapping[str, Any]]:
    """Return a maker of architectures of which one has only some of the long trainings."""

    def make(space: str, number: int, text: str) -> Mapping[str, Any]:
        chosen = dict.fromkeys(nats_archives.EVALUATED, seeds)
        long = chosen if number == index else nats_archives.LONG_SEEDS
        return nats_archives.architecture(space, number, text, long_seeds=long)

    return make


def test_a_missing_seed_is_no_number_and_not_in_the_mean(tmp_path: Path, data_root: Path) -> None:
    """An architecture trained twice has the mean of two, exactly."""
    path = nats_archives.write(tmp_path / "a", "nas_bench_201", INDICES, with_seeds(11, (777, 999)))
    table = installed(path)["cifar10"]
    stored = nats_archives.architecture(
        "nas_bench_201", 11, "x", long_seeds=dict.fromkeys(nats_archives.EVALUATED, (777, 999))
    )
    results = stored["200"]["all_results"]
    correct = [round(results["cifar10", seed]["eval_acc1es"]["ori-test@199"] * 100) for seed in (777, 999)]
    lacking = np.isnan(table.per_seed("test_accuracy"))
    (row,) = np.flatnonzero(lacking.any(axis=1))
    assert lacking[row].tolist() == [False, True, False]
    assert table.mean("test_accuracy")[row] == sum(correct) / 20_000


def test_an_architecture_without_reported_trainings_counts_as_missing(tmp_path: Path) -> None:
    """It is left out and counted."""
    path = nats_archives.write(tmp_path / "a", "nas_bench_201", INDICES, with_seeds(284, ()))
    table = tables_of(path)[0]
    assert (len(table.encodings), table.incomplete) == (2, 1)


def test_an_incomplete_archive_says_how_much_is_missing(topology: Path, data_root: Path) -> None:
    """Refused, unless asked otherwise."""
    with pytest.raises(TableError, match="15,622 of the 15,625 architectures of nas_bench_201 are missing"):
        install("n", tables_of(topology))
    assert list((data_root).rglob("*.parquet")) == []


def test_a_tar_is_read_like_its_folder(topology: Path, tmp_path: Path, data_root: Path) -> None:
    """Nothing is unpacked; numbers are the same."""
    packed = nats_archives.pack(topology, tmp_path / "a.tar")
    folder, tar = installed(topology, "folder"), installed(packed, "tar")
    for dataset, table in folder.items():
        assert tar[dataset].metadata["source"]["sha256"] == table.metadata["source"]["sha256"]
        for name, values in table.columns.items():
            np.testing.assert_array_equal(tar[dataset].columns[name], values)


def test_one_data_set_can_be_asked_for(topology: Path) -> None:
    """Only its table is made; another name is refused with the ones there are."""
    assert [one.dataset for one in tables_of(topology, dataset="imagenet16-120")] == ["imagenet16-120"]
    with pytest.raises(UnknownName, match="cifar100"):
        tables_of(topology, dataset="cifar-100")


def test_columns_mean_what_the_benchmark_says(topology: Path) -> None:
    """Options for anybody's columns are refused."""
    with pytest.raises(InvalidArgument, match="takes no unit"):
        tables_of(topology, unit="percent")


# --- damage ----------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(topology: Path, tmp_path: Path) -> Path:
    """Return a copy of the archive that a test may damage."""
    folder = tmp_path / "damaged"
    folder.mkdir()
    for path in topology.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def rewritten(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Write architecture 11 again after a change."""
    content = nats_archives.architecture("nas_bench_201", 11, nats_archives.names("nas_bench_201")[11])
    change(content)
    nats_archives.dump(folder / "000011.pickle.pbz2", content)
    return folder


def test_a_torn_file_is_named(damaged: Path) -> None:
    """The architecture that must be fetched again is in the message."""
    path = damaged / "000284.pickle.pbz2"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(TableError, match=r"000284\.pickle\.pbz2: cannot be decompressed: the file is torn"):
        tables_of(damaged)


def test_a_file_of_another_architecture_is_refused(damaged: Path) -> None:
    """A renamed file would give an architecture the numbers of another one."""
    (damaged / "000011.pickle.pbz2").rename(damaged / "000012.pickle.pbz2")
    with pytest.raises(TableError, match="about another architecture than its name says"):
        tables_of(damaged)


def test_a_notation_that_contradicts_the_list_is_refused(damaged: Path) -> None:
    """The list of architectures is the benchmark's order."""
    other = nats_archives.names("nas_bench_201")[12]
    with pytest.raises(TableError, match=r"000011 is .* not what meta\.pickle\.pbz2 says"):
        tables_of(rewritten(damaged, lambda content: [one.update(arch_str=other) for one in content.values()]))


@pytest.mark.parametrize("name", ["12", "200"])
def test_without_one_of_the_trainings_it_is_no_official_file(damaged: Path, name: str) -> None:
    """Both lengths are needed."""
    with pytest.raises(TableError, match="not the content of an official file"):
        tables_of(rewritten(damaged, lambda content: content.pop(name)))


@pytest.mark.parametrize("value", ["high", None, float("nan"), float("inf"), -1.0, 100.5, [1.0]])
def test_an_accuracy_that_is_none_is_refused(damaged: Path, value: object) -> None:
    """Numbers are checked one by one."""

    def change(content: dict[str, Any]) -> None:
        content["200"]["all_results"]["cifar10", 888]["eval_acc1es"]["ori-test@199"] = value

    with pytest.raises(TableError, match="not the content of an official file"):
        tables_of(rewritten(damaged, change))


def test_other_data_is_no_official_file(damaged: Path) -> None:
    """Plain data of another form is refused, not misread."""
    nats_archives.dump(damaged / "000011.pickle.pbz2", [1, 2, 3])
    with pytest.raises(TableError, match=r"000011\.pickle\.pbz2"):
        tables_of(damaged)


def test_a_malicious_architecture_is_refused(damaged: Path, tmp_path: Path) -> None:
    """The whole import fails, and nothing runs."""
    marker = tmp_path / "ran"

    class Touch:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {marker}",)

    nats_archives.dump(damaged / "000011.pickle.pbz2", {"12": Touch()})
    with pytest.raises(TableError, match=r"it names posix\.system"):
        tables_of(damaged)
    assert not marker.exists()


def test_without_the_list_it_is_no_whole_archive(damaged: Path) -> None:
    """A folder without its description was not fetched to the end."""
    (damaged / "meta.pickle.pbz2").unlink()
    with pytest.raises(TableError, match="0 meta"):
        tables_of(damaged)


def test_a_torn_tar_is_refused(topology: Path, tmp_path: Path) -> None:
    """A download that stopped in the middle of a file, whose header is still there."""
    packed = nats_archives.pack(topology, tmp_path / "a.tar")
    packed.write_bytes(packed.read_bytes()[: packed.stat().st_size // 2])
    with pytest.raises(TableError, match=r"a\.tar"):
        tables_of(packed)


def test_an_architecture_twice_in_a_tar_is_refused(topology: Path, tmp_path: Path) -> None:
    """Which one is meant cannot be known."""
    packed = nats_archives.pack(topology, tmp_path / "a.tar")
    nats_archives.pack(topology, packed, "a")
    with pytest.raises(TableError, match="and 2 meta"):
        tables_of(packed)


def test_a_compressed_tar_must_be_decompressed(topology: Path, tmp_path: Path) -> None:
    """It cannot be read file by file; the message says what to do."""
    packed = nats_archives.pack(topology, tmp_path / "a.tar.gz", "w:gz")
    with pytest.raises(TableError, match=r"a gzipped \.tar; decompress it first"):
        tables_of(packed)


# --- many files ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an archive with more files than are read without worker processes, all alike."""
    texts = nats_archives.names("nats_size")
    short = dict.fromkeys(nats_archives.EVALUATED, (777,))
    first = nats_archives.architecture("nats_size", 0, texts[0], short, short)

    def make(_space: str, index: int, text: str) -> Mapping[str, Any]:
        content = {key: dict(value) for key, value in first.items()}
        for value in content.values():
            value.update(arch_index=index, arch_str=text)
        return copy.copy(content)

    return nats_archives.write(tmp_path_factory.mktemp("many") / "a", "nats_size", range(150), make)


def test_worker_processes_change_nothing(many: Path) -> None:
    """In this process or in two others, the tables are the same and progress ends at the number of files."""
    seen: list[tuple[int, int]] = []
    one = tables_of(many, workers=1, dataset="cifar100")[0]
    two = tables_of(many, workers=2, dataset="cifar100", progress=lambda *state: seen.append(state))[0]
    assert one.encodings == two.encodings
    assert one.metadata == two.metadata
    for name, values in one.columns.items():
        np.testing.assert_array_equal(values, two.columns[name])
    assert (seen[0], seen[-1]) == ((0, 150), (150, 150))


def test_an_interrupt_ends_the_workers(many: Path) -> None:
    """Ctrl-C while files are read leaves no process behind."""
    import multiprocessing

    def interrupt(done: int, _total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tables_of(many, workers=2, progress=interrupt)
    assert multiprocessing.active_children() == []


def test_installed_tables_are_found_by_name(topology: Path, data_root: Path) -> None:
    """One table a data set, in lower case."""
    installed(topology, "mine")
    assert {"mine-cifar10", "mine-cifar100", "mine-imagenet16-120"} <= set(TABLES)
