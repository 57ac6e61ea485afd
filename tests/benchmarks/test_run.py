"""Running a suite: rows, pairing, resumption, failures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from suites_kit import small_suite

from nas_benchmarks.metrics import log_regret_area, normalised_score, simple_regret
from nas_benchmarks.recorded import SuiteRecord
from nas_benchmarks.rows import yardstick
from nas_benchmarks.run import Job, Plan, perform, run_jobs
from nas_benchmarks.suites import Method, Suite
from nas_benchmarks.tasks import Task
from nas_gym.errors import InvalidArgument, UnknownName


@pytest.fixture(scope="module")
def suite(small_table: Path) -> Suite:
    """Return a suite of one task, two methods and 12 queries."""
    return small_suite(small_table)


def job(suite: Suite, agent: str, seed: int = 0, **settings: Any) -> Job:
    """Return one run of the suite."""
    return Job(suite, Method(agent, settings), suite.tasks, seed, ("nas-gym", "bench"))


def plan(suite: Suite, *methods: str, seeds: int = 2) -> Plan:
    """Return what is to be run."""
    return Plan(suite, suite.chosen_methods(methods), suite.tasks, seeds)


# --- one run ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def row(suite: Suite) -> dict[str, Any]:
    """Return the row of a run."""
    (found,) = perform(job(suite, "evolution", population_size=5, sample_size=2))
    return found


def test_the_curve_can_be_drawn_from_the_incumbents(row: dict[str, Any], suite: Suite) -> None:
    """Regret, score and area follow from them and the yardstick of the row."""
    measured = yardstick(suite.tasks[0])
    assert row["yardstick"]["best"] == measured.best
    curve = np.full(row["budget"], row["yardstick"]["worst"])
    for query, _, held_out in row["incumbents"]:
        curve[query - 1 :] = held_out
    regret = simple_regret(curve, measured.best)
    assert row["regret"] == {"12": pytest.approx(regret[-1])}
    assert row["normalised"]["12"] == pytest.approx(normalised_score(curve, measured)[-1])
    assert row["log_regret_area"] == pytest.approx(log_regret_area(regret, row["yardstick"]["floor"]))


def test_a_row_counts_everything(row: dict[str, Any]) -> None:
    """Queries, steps, unique architectures, seconds on one and on several simulated workers."""
    assert (row["queries"], row["environment_steps"], row["failed"], row["ended"]) == (12, 72, 0, "budget")
    assert 1 <= row["unique_architectures"] <= 12
    assert 0 < row["simulated_seconds_parallel"] < row["simulated_seconds"]


def test_a_row_says_where_it_comes_from(row: dict[str, Any], suite: Suite) -> None:
    """Hashes, resolved settings, versions, command and time."""
    assert (row["suite_hash"], row["protocol_hash"]) == (suite.hash, suite.protocol.hash)
    assert row["settings"] == {"population_size": 5, "sample_size": 2}
    assert row["config"] == {"population_size": 5, "sample_size": 2, "batch_size": 1}
    assert len(row["table_sha256"]) == 64
    assert row["versions"].keys() >= {"nas-gym", "python", "numpy", "gymnasium"}
    assert row["command"] == ["nas-gym", "bench"]


def test_the_best_architecture_is_the_last_incumbent(row: dict[str, Any], suite: Suite) -> None:
    """Its held-out value is that of the table."""
    envs = suite.tasks[0].make_envs(1)
    best = tuple(row["best"]["encoding"])
    assert envs.evaluator.report(best)["test_accuracy"] == row["incumbents"][-1][2]
    assert envs.space.from_string(row["best"]["architecture"]) == best


def test_a_run_is_repeated_exactly(row: dict[str, Any], suite: Suite) -> None:
    """From its seed; times differ."""
    (again,) = perform(job(suite, "evolution", population_size=5, sample_size=2))
    timed = ("wall_seconds", "finished")
    assert {key: again[key] for key in again if key not in timed} == {key: row[key] for key in row if key not in timed}


def test_methods_with_one_seed_begin_alike(suite: Suite) -> None:
    """Evolution fills its population by the draws of random search: the runs are paired."""
    first, second = (perform(job(suite, agent))[0] for agent in ("random_search", "evolution"))
    (other,) = perform(job(suite, "random_search", seed=1))
    assert first["incumbents"] == second["incumbents"]
    assert first["incumbents"] != other["incumbents"]


def test_a_policy_is_held_against_uniform_decisions(suite: Suite) -> None:
    """One that learns nothing gains nothing but noise; a search that walks on from what it saw has no policy."""
    (found,) = perform(job(suite, "q_learning"))
    final = found["final_policy"]
    assert final["gain"] == pytest.approx(final["reward"] - final["uniform"])
    assert abs(final["gain"]) < 0.1
    assert perform(job(suite, "local_search"))[0]["final_policy"] is None


def test_an_agent_with_a_loop_of_its_own_has_a_policy(small_table: Path) -> None:
    """And counts its updates."""
    pytest.importorskip("stable_baselines3")
    (found,) = perform(job(small_suite(small_table, budget=40), "sb3:maskable_ppo", num_envs=8, n_epochs=1))
    assert found["queries"] == 40
    assert found["updates"] > 0
    assert found["final_policy"]["gain"] == pytest.approx(
        found["final_policy"]["reward"] - found["final_policy"]["uniform"]
    )


def test_a_task_with_other_repeats_is_refused(suite: Suite) -> None:
    """Its queries would be counted otherwise than the protocol says."""
    task = suite.tasks[0].with_arguments(repeat_query="cache+free")
    with pytest.raises(InvalidArgument, match=r"repeat_query='cache\+charge'"):
        perform(replace(job(suite, "random_search"), tasks=(task,)))


def test_random_edits_are_deployed(suite: Suite) -> None:
    """With the budget of the suite, on the environment that edits."""
    method = Method("random edits", kind="edits")
    (found,) = perform(Job(suite, method, suite.tasks, 0))
    assert (found["method"], found["agent"], found["queries"], found["training"]) == ("random edits", None, 12, None)


def test_training_queries_are_recorded_apart(suite: Suite, small_table: Path) -> None:
    """A trained policy is deployed with the budget of the suite."""
    pytest.importorskip("sb3_contrib")
    training = {"table": str(small_table), "queries": 3_000, "settings": {}}
    method = Method("trained policy", kind="policy")
    (found,) = perform(Job(replace(suite, training=training), method, suite.tasks, 0))
    assert (found["queries"], found["training"]["queries"]) == (12, 3_000)


# --- all runs --------------------------------------------------------------------------------------


def test_a_record_is_filled_and_continued(suite: Suite, tmp_path: Path) -> None:
    """What is recorded is not run again, whatever was lost meanwhile."""
    record = SuiteRecord(tmp_path)
    wanted = plan(suite)
    done = list(run_jobs(wanted.jobs(()), record, workers=2))
    assert sorted((one.job.method.name, one.job.seed) for one in done) == [
        ("evolution", 0),
        ("evolution", 1),
        ("random_search", 0),
        ("random_search", 1),
    ]
    lines = record.runs.read_text().splitlines()
    assert len(lines) == 4
    assert wanted.jobs(record.rows()) == []
    record.runs.write_text("\n".join(lines[:3]) + "\n")
    (lost,) = wanted.jobs(record.rows())
    (again,) = run_jobs([lost], record, workers=1)
    assert again.rows[0]["regret"] == done[3].rows[0]["regret"]


def test_a_failing_method_ends_alone(suite: Suite, tmp_path: Path) -> None:
    """Its failure is recorded with a traceback, its other seeds are left out, the other methods go on."""
    record = SuiteRecord(tmp_path)
    found = list(run_jobs(plan(suite, "suites_kit:Broken", "random_search", seeds=3).jobs(()), record, workers=1))
    failures = [one for one in found if one.message]
    assert [one.message for one in failures] == ["crashed: ValueError: this agent is broken"]
    assert "raise ValueError" in failures[0].traceback
    assert record.failures.read_text().count("\n") == 1
    assert {row["method"] for row in record.rows()} == {"random_search"}
    assert len(record.rows()) == 3


def test_seeds_come_first(suite: Suite) -> None:
    """So that an interrupted record compares all methods."""
    assert [(one.seed, one.method.name) for one in plan(suite).jobs(())] == [
        (0, "random_search"),
        (0, "evolution"),
        (1, "random_search"),
        (1, "evolution"),
    ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"config_hash": "other", "config": {"population_size": 7, "sample_size": 10, "batch_size": 1}},
            "7 recorded, 50",
        ),
        ({"table_sha256": "other"}, "another table for 'small': SHA-256 other recorded"),
    ],
)
def test_runs_with_other_settings_or_tables_are_not_continued(
    suite: Suite, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    """And what differs is named."""
    (found,) = perform(job(suite, "evolution"))
    plan(suite).check(SuiteRecord(tmp_path), [found])
    with pytest.raises(InvalidArgument, match=message):
        plan(suite).check(SuiteRecord(tmp_path), [{**found, **changed}])


def test_a_newcomer_that_was_edited_is_not_continued(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the runs would be of another algorithm. Our own agents are told apart by the version."""
    source = "from nas_agents.random_search import RandomSearch\nclass Mine(RandomSearch):\n    'Mine.'\n"
    (tmp_path / "edited_agent.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    wanted, record = plan(suite, "edited_agent:Mine"), SuiteRecord(tmp_path / "record")
    found = perform(job(suite, "edited_agent:Mine"))
    wanted.check(record, found)
    (tmp_path / "edited_agent.py").write_text(source + "# better now\n")
    with pytest.raises(InvalidArgument, match="before you changed it"):
        wanted.check(record, found)


@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        ("evolutionn", UnknownName, "Did you mean 'evolution'"),
        ("suites_kit:small_suite", InvalidArgument, "no subclass of nas_agents.Agent"),
    ],
)
def test_agents_are_checked_before_anything_is_run(
    suite: Suite, tmp_path: Path, method: str, error: Any, message: str
) -> None:
    """Not after hours."""
    with pytest.raises(error, match=message):
        plan(suite, method).check(SuiteRecord(tmp_path), ())


def test_missing_tables_stop_a_suite(suite: Suite, tmp_path: Path) -> None:
    """Before anything is run."""
    lacking = replace(plan(suite), tasks=(Task("x", "NAS-Cell-v0", {"table": "nowhere"}),))
    with pytest.raises(InvalidArgument, match=r"x: the table 'nowhere' is not installed[\s\S]*--allow-missing"):
        lacking.check(SuiteRecord(tmp_path), ())
