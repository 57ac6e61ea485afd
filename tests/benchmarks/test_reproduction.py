"""The published protocol on small and on packaged tables: runs, clock, record, command, and what is said beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nas_agents
from nas_benchmarks import reproduction
from nas_benchmarks.expectations import expected_incumbent
from nas_benchmarks.ledger import Ledger
from nas_benchmarks.published_results import EVOLUTION, METHODS, RANDOM_SEARCH, REINFORCE, reported
from nas_benchmarks.recorded import SuiteRecord, pack, rows_at, unpack
from nas_benchmarks.records import Row, TornRow
from nas_benchmarks.reproduction import Replay, exact, main, make_runs, replay
from nas_benchmarks.reproduction_page import EXACT, Group, after, chosen, deviation_from_exact, markdown
from nas_benchmarks.simulated_clock import at_clock
from nas_benchmarks.suites import FORMAT, run_seed
from nas_gym.errors import InvalidArgument
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space
from nas_gym.tables.format import Measurement, read_table, write_table

SIZE = 15_625
QUERIES = 12


def write(
    path: Path, dataset: str = "cifar10", seconds: float | None = None, seeds: int = 0, missing: int = 0, seed: int = 0
) -> Path:
    """Write a table in which later operations are better; a training takes 0.5 to 1.5 times `seconds`."""
    rng = np.random.default_rng(seed)
    rows = SIZE - missing
    chosen = np.arange(rows)[:, None] // 5 ** np.arange(6) % 5
    # Rounding makes ties, so that it matters which of them is the incumbent.
    valid = np.round(chosen.mean(axis=1)[:, None, None] / 5 + 0.2 * rng.random((rows, max(seeds, 1), 1)), 2)
    measurements = {
        "valid_accuracy": Measurement("maximize", "fraction", seeds=seeds, trained_epochs=12),
        "test_accuracy": Measurement("maximize", "fraction", held_out=True, trained_epochs=200),
    }
    columns = {"valid_accuracy": valid, "test_accuracy": 0.8 * valid[:, :1] + 0.2 * rng.random((rows, 1, 1))}
    if seconds is not None:
        measurements["train_seconds"] = Measurement("minimize", "seconds")
        columns["train_seconds"] = seconds * rng.uniform(0.5, 1.5, (rows, 1, 1))
    metadata = {"space": "nas_bench_201", "dataset": dataset, "report": "test_accuracy", "missing": missing}
    write_table(path, np.arange(rows), measurements, columns, metadata)
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a table like that of the CSV file: one value an architecture, no seconds."""
    return write(tmp_path_factory.mktemp("tables") / "plain.parquet")


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a table like that of the official archive: seeds and simulated seconds, about ten trainings a run."""
    return write(tmp_path_factory.mktemp("tables") / "timed.parquet", seconds=2_000.0, seeds=2)


def run_row(seed: int, since: list[int], test: list[float], **changed: Any) -> Row:
    """Return the row of a run that was never made."""
    return {
        "format": FORMAT,
        "task": "nats-cifar10",
        "dataset": "cifar10",
        "table_sha256": "t",
        "noise": "mean",
        "method": RANDOM_SEARCH.name,
        "budget": 300,
        "seed": seed,
        "incumbent_since": since,
        "test": test,
        "clock": None,
        **changed,
    }


# --- one run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_smaller_numbers_of_queries_are_read_off_the_same_run(plain: Path, method: Any) -> None:
    """A run of 40 queries begins as one of 20 does."""
    pytest.importorskip("torch")
    where = Replay.of(str(plain))
    short, long = (replay(where, method, 3, queries) for queries in (20, 40))
    assert after(long, range(1, 21)) == after(short, range(1, 21))
    assert long["incumbent_since"][0] == 1


def test_what_is_reported_is_the_test_accuracy_of_the_best_by_validation(plain: Path) -> None:
    """Looked up in the table, query by query; among equals the first stays."""
    where, table, space = Replay.of(str(plain)), read_table(plain), NASBench201Space()
    row = replay(where, EVOLUTION, 5, 60)
    ledger = Ledger()
    envs: Any = where.task.make_envs(1)
    seed = run_seed(5, where.task.name)
    nas_agents.run(nas_agents.make("evolution", envs, seed, preset="nats_bench"), envs, 60, seed, [ledger])
    codes = [space.code(ledger.encoding(query)) for query in range(60)]
    valid, test = (table.mean(name)[codes] for name in ("valid_accuracy", "test_accuracy"))
    expected = [100 * test[int(np.argmax(valid[:end]))] for end in range(1, 61)]
    assert after(row, range(1, 61)) == pytest.approx(expected, abs=1e-5)
    assert (row["agent"], row["settings"], row["noise"], row["clock"]) == (
        "evolution",
        {"preset": "nats_bench"},
        "mean",
        None,
    )


def test_a_run_ends_by_the_published_clock_where_there_are_seconds(timed: Path) -> None:
    """20,000 simulated seconds of about 2,000 each: the first query that passes them is the last that counts."""
    where = Replay.of(str(timed))
    assert where.seconds == 20_000
    row = replay(where, RANDOM_SEARCH, 0, 1)
    ledger = Ledger()
    envs: Any = where.task.with_arguments(evaluation_seed=row["run_seed"]).make_envs(1)
    nas_agents.run(nas_agents.make("random_search", envs, row["run_seed"]), envs, 40, row["run_seed"], [ledger])
    times = np.cumsum(ledger.costs(ledger.trace(envs)))
    assert row["clock"]["queries"] == int(np.argmax(times >= 20_000)) + 1
    assert 7 <= row["clock"]["queries"] <= 14
    _, value = at_clock(np.diff(times, prepend=0.0), np.array(after(row, range(1, 41))), 20_000)
    assert row["clock"]["test"] == pytest.approx(value, abs=1e-5)


def test_a_run_by_the_clock_still_makes_the_queries_that_are_shown(timed: Path) -> None:
    """After the clock has passed it goes on to the largest number."""
    row = replay(Replay.of(str(timed)), EVOLUTION, 0, 60)
    assert max(row["incumbent_since"]) > row["clock"]["queries"]


def test_queries_draw_one_of_the_seeds_where_there_are_several(timed: Path) -> None:
    """As the official API does: the signals of incumbents are those of single trainings, other ones in other runs."""
    where = Replay.of(str(timed))
    assert dict(where.task.arguments) == {
        "table": str(timed),
        "noise": "sample",
        "repeat_query": "resample+charge",
    }
    first, again, second = (replay(where, RANDOM_SEARCH, seed, 5) for seed in (0, 0, 1))
    assert first["valid"] == again["valid"] != second["valid"]
    # Single trainings have whole percentages, means of two have halves.
    assert all(value == round(value) for value in first["valid"])


def test_the_clock_is_that_of_the_published_data_sets(tmp_path: Path) -> None:
    """On others, runs count queries."""
    assert Replay.of(str(write(tmp_path / "svhn.parquet", "svhn", seconds=2_000.0))).seconds is None


@pytest.mark.parametrize("table", ["digits", "metaqnn-digits"])
def test_other_trainings_are_refused(table: str) -> None:
    """Six epochs are another protocol, whatever the data set is called."""
    with pytest.raises(InvalidArgument, match="with 6 and 6 epochs"):
        Replay.of(table)


# --- random search in closed form -------------------------------------------------------------------


def test_the_exact_row_is_the_closed_form(plain: Path) -> None:
    """Mean and deviation of what random search reports, against 4,000 simulated runs."""
    table = read_table(plain)
    row = exact(Replay.of(str(plain)), QUERIES)
    valid, test = table.mean("valid_accuracy"), 100 * table.mean("test_accuracy")
    assert row["test"] == pytest.approx(expected_incumbent(valid, test, np.arange(1, QUERIES + 1)), abs=1e-5)
    drawn = np.random.default_rng(0).integers(SIZE, size=(4_000, QUERIES))
    found = test[drawn[np.arange(4_000), valid[drawn].argmax(axis=1)]]
    assert found.std() == pytest.approx(row["deviation"][-1], rel=0.05)
    assert abs(found.mean() - row["test"][-1]) < 4 * row["deviation"][-1] / np.sqrt(4_000)


def test_the_self_test_notices_a_search_that_is_no_random_search(plain: Path) -> None:
    """Random search through environments and counter agrees with the closed form; evolution does not."""
    where, queries = Replay.of(str(plain)), (1, 10, 60)
    closed = exact(where, 60)

    def off(method: Any) -> float:
        group = Group.of([replay(where, method, seed, 60) for seed in range(60)], queries)
        return deviation_from_exact(group, closed, queries)

    assert off(RANDOM_SEARCH) < 4
    assert off(EVOLUTION) > 4


# --- the record ------------------------------------------------------------------------------------


def without_time(rows: list[Row]) -> list[Row]:
    """Return rows without the time at which they were finished."""
    return [{name: value for name, value in row.items() if name != "finished"} for row in rows]


@pytest.fixture
def record(tmp_path: Path, plain: Path) -> Callable[..., list[Row]]:
    """Return a function that makes runs in one record and returns its rows."""
    pytest.importorskip("torch")

    def make(runs: int, queries: int = QUERIES, table: Path = plain, name: str = "record") -> list[Row]:
        into = SuiteRecord(tmp_path / name)
        list(make_runs([Replay.of(str(table))], runs, queries, into))
        return into.rows()

    return make


def test_a_record_is_continued_where_it_stopped(record: Callable[..., list[Row]]) -> None:
    """More runs are appended, none is made twice, and they are those of a record made at once."""
    before = record(1)
    assert [(row["method"], row["seed"]) for row in before] == [(EXACT, 0), *((method.name, 0) for method in METHODS)]
    after_all = record(3)
    assert after_all[: len(before)] == before
    assert without_time(after_all) == without_time(record(3, name="at once"))


def test_a_run_that_a_kill_cut_off_is_made_again(record: Callable[..., list[Row]], tmp_path: Path) -> None:
    """Half a line is no run; it is dropped, loudly."""
    rows = record(2)
    path = tmp_path / "record" / "runs.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.warns(TornRow):
        assert len(SuiteRecord(path.parent).rows()) == len(rows) - 1
    with pytest.warns(TornRow):
        continued = record(2)
    assert without_time(continued) == without_time(rows)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        pytest.param({"queries": QUERIES + 1}, f"budget {QUERIES}, now it is {QUERIES + 1}", id="other queries"),
        pytest.param({"seed": 1}, "table_sha256 .*now it is", id="another table of this name"),
        pytest.param({"seeds": 2}, "table_sha256|noise mean, now it is sample", id="other noise"),
    ],
)
def test_other_runs_are_not_mixed_in(
    record: Callable[..., list[Row]], tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    """They are no sample of either; nothing is appended."""
    rows = record(1)
    queries = changed.pop("queries", QUERIES)
    folder = tmp_path / "other"
    folder.mkdir()
    table = write(folder / "plain.parquet", **changed)
    with pytest.raises(InvalidArgument, match=message):
        record(1, queries, table)
    assert SuiteRecord(tmp_path / "record").rows() == rows


def test_runs_by_other_settings_are_not_mixed_in(record: Callable[..., list[Row]], tmp_path: Path) -> None:
    """A preset that changed is another method."""
    record(1)
    path = tmp_path / "record" / "runs.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[-1]["config_hash"] = "another"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InvalidArgument, match="'reinforce preset=nats_bench' with other settings"):
        record(2)


def test_a_packed_record_shows_the_same_table(record: Callable[..., list[Row]], tmp_path: Path) -> None:
    """One file, the same figures."""
    rows = record(2)
    pack(rows, tmp_path / "packed.parquet")
    assert markdown(unpack(tmp_path / "packed.parquet"), (5, QUERIES)) == markdown(rows, (5, QUERIES))


# --- what is said ----------------------------------------------------------------------------------


def test_an_incumbent_stands_until_the_next() -> None:
    """Also long after it was found."""
    assert after({"incumbent_since": [1, 3], "test": [10.0, 5.0]}, [1, 2, 3, 300]) == [10.0, 10.0, 5.0, 5.0]


def group(method: str, values: list[list[float]], dataset: str = "cifar10", clock: Any = None) -> Group:
    """Return runs of a method, values [R, K]."""
    array = np.array(values)
    return Group("nats-" + dataset, dataset, method, array, clock, clock, "mean")


def test_the_number_of_queries_is_chosen_for_all_rows_together() -> None:
    """The one with the least sum of squared differences in standard errors, not the best of any row."""
    # Random search (published 93.86) would choose 50, evolution (94.02) 100; random search misses 100 by far more.
    random = group(RANDOM_SEARCH.name, [[93.76, 95.0], [93.96, 95.2]])
    evolution = group(EVOLUTION.name, [[93.82, 93.92], [94.02, 94.12]])
    assert chosen([random, evolution], (50, 100)) == 50
    assert chosen([evolution], (50, 100)) == 100


def test_no_number_is_chosen_where_nothing_can_be_compared() -> None:
    """Other data sets, single runs, runs that ended by the clock."""
    assert chosen([group(RANDOM_SEARCH.name, [[1.0], [2.0]], "digits")], (50,)) is None
    assert chosen([group(RANDOM_SEARCH.name, [[1.0]])], (50,)) is None
    assert chosen([group(RANDOM_SEARCH.name, [[1.0], [2.0]], clock=np.array([1.0, 2.0]))], (50,)) is None


def test_the_table_says_mean_deviation_difference_and_verdict() -> None:
    """The population standard deviation, as published; the difference at the chosen number of queries."""
    rows = [run_row(seed, [1, 60], [90.0, test]) for seed, test in enumerate((93.76, 93.96))]
    line = next(line for line in markdown(rows, (50, 100)).splitlines() if "`random_search`" in line)
    # The standard error of 93.76 and 93.96 is 0.1, that of the published mean 0.23 / sqrt(500).
    assert line == (
        "| `nats-cifar10` | `random_search` | 93.86 ± 0.23 (recalled) | 90.00 ± 0.00 | 93.86 ± 0.10 "
        "| +0.00 ± 0.20 | consistent with |"
    )


def test_the_text_says_that_the_number_was_chosen_afterwards_and_what_is_recalled() -> None:
    """Whoever reads the table must know both."""
    text = markdown([run_row(seed, [1], [93.8 + seed / 10]) for seed in (0, 1)], (50, 100))
    assert "**50, chosen afterwards**" in text
    assert "source: recalled" in text
    assert "draws one of the recorded trainings at every query" in text


def test_runs_by_the_clock_are_judged_there() -> None:
    """No number of queries is chosen, and the column says so."""
    clocks = [{"seconds": 20_000.0, "queries": 9 + seed, "test": 93.76 + seed / 5} for seed in (0, 1)]
    text = markdown([run_row(seed, [1], [50.0], clock=clock) for seed, clock in enumerate(clocks)], (50,))
    assert "| by the clock | Difference | Verdict |" in text
    assert "| 50.00 ± 0.00 | 93.86 ± 0.10 | +0.00 ± 0.20 | consistent with |" in text
    assert "after 10 queries on average (9 to 10)" in text or "after 9 queries on average (9 to 10)" in text
    assert "chosen afterwards" not in text


def test_more_queries_than_were_made_cannot_be_shown() -> None:
    """The message says how many there are."""
    with pytest.raises(InvalidArgument, match="have 300 queries, so there is nothing to show after 301"):
        markdown([run_row(0, [1], [50.0])], (50, 301))


# --- the command -----------------------------------------------------------------------------------


def test_the_command_runs_shows_and_packs(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two runs on a table in a file; --show prints the same without running."""
    pytest.importorskip("torch")
    packed = tmp_path / "packed.parquet"
    main(
        [
            "--table",
            str(plain),
            "--runs",
            "2",
            "--queries",
            "12,5",
            "--out",
            str(tmp_path / "out"),
            "--pack",
            str(packed),
        ]
    )
    ran = capsys.readouterr()
    assert "7 of 7 runs" in ran.err
    main(["--show", str(packed), "--queries", "5,12"])
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == (ran.out, "")
    assert "| @5 | @12 |" in shown.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--table", "nats-cifar10"], "tables import NATS-tss-v1_0-3ffb9-simple --name nats", id="missing"),
        pytest.param([], "the table 'nats-cifar10' is not installed", id="none of the usual"),
        pytest.param(["--table", __file__], f"tables import {__file__} --name nats", id="a file to import"),
        pytest.param(["--table", "digits", "--runs", "0"], "--runs must be at least 1, got 0", id="no run"),
        pytest.param(["--queries", "50,zero"], "integers of at least 1, got '50,zero'", id="no number"),
        pytest.param(["--queries", "0"], "integers of at least 1, got '0'", id="no query"),
        pytest.param(["--show", "nowhere.parquet"], "nowhere.parquet is no record", id="no record"),
    ],
)
def test_bad_arguments_end_with_a_message(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2, no traceback, nothing written."""
    monkeypatch.delenv("NAS_GYM_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_lacks_architectures_is_refused(tmp_path: Path) -> None:
    """The protocol is for whole spaces."""
    with pytest.raises(InvalidArgument, match="lacks 3 architectures"):
        Replay.of(str(write(tmp_path / "part.parquet", missing=3)))


# --- the packaged record ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packaged() -> list[Row]:
    """Return the recorded runs that come with the package."""
    return rows_at(reproduction.PACKAGED)


def test_the_packaged_record_has_500_runs_a_row(packaged: list[Row]) -> None:
    """Of three methods on both data sets, each seed once."""
    for task in ("nats-cifar10", "nats-cifar100"):
        for method in METHODS:
            seeds = [row["seed"] for row in packaged if (row["task"], row["method"]) == (task, method.name)]
            assert sorted(seeds) == list(range(500))


@pytest.mark.parametrize(
    ("dataset", "queries", "mean", "deviation"),
    [
        ("cifar10", 175, 93.854, 0.262),
        ("cifar10", 185, 93.870, 0.260),
        ("cifar100", 175, 71.516, 0.921),
        ("cifar100", 185, 71.571, 0.925),
    ],
)
def test_the_packaged_closed_form_is_that_of_an_independent_simulation(
    packaged: list[Row], dataset: str, queries: int, mean: float, deviation: float
) -> None:
    """5,000 runs of random search outside of this project."""
    row = next(row for row in packaged if (row["dataset"], row["method"]) == (dataset, EXACT))
    assert abs(row["test"][queries - 1] - mean) < 4 * deviation / np.sqrt(5_000)
    assert row["deviation"][queries - 1] == pytest.approx(deviation, rel=0.05)


def test_the_packaged_table_calls_nothing_reproduced(packaged: list[Row]) -> None:
    """Its numbers are recalled and its runs count queries; random search passes the self-test."""
    text = markdown(packaged, reproduction.QUERIES)
    lines = [line for line in text.splitlines() if line.startswith("| `nats") and "exactly" not in line]
    verdicts = [line.rstrip(" |").rpartition("| ")[2] for line in lines]
    assert len(verdicts) == 6
    assert set(verdicts) <= {"consistent with", "differs"}
    assert "chosen afterwards" in text
    closed = {row["task"]: row for row in packaged if row["method"] == EXACT}
    for task, row in closed.items():
        mine = [one for one in packaged if (one["task"], one["method"]) == (task, RANDOM_SEARCH.name)]
        group = Group.of(mine, reproduction.QUERIES)
        assert deviation_from_exact(group, row, reproduction.QUERIES) < 4


def test_the_packaged_methods_are_ordered_as_published(packaged: list[Row]) -> None:
    """Evolution before REINFORCE before random search, at the number of queries nearest to the published means."""
    for task, dataset in (("nats-cifar10", "cifar10"), ("nats-cifar100", "cifar100")):
        means = {
            method.name: float(
                np.mean(
                    [after(row, [150])[0] for row in packaged if (row["task"], row["method"]) == (task, method.name)]
                )
            )
            for method in METHODS
        }
        assert means[RANDOM_SEARCH.name] < means[REINFORCE.name] < means[EVOLUTION.name]
        assert all(reported(dataset, name) is not None for name in means)
