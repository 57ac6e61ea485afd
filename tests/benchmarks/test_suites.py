"""Suites: frozen definitions, their hashes, and the tables they need."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import nas_agents
from nas_benchmarks.suites import (
    ALL_TASKS,
    REFERENCES,
    SUITES,
    Method,
    Protocol,
    changes,
    listed,
    missing_tables,
    run_seed,
    suite_named,
)
from nas_benchmarks.tasks import Task
from nas_gym.errors import UnknownName
from nas_gym.tables.format import TABLES

SMOKE = SUITES["smoke"]


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_has_the_references_that_others_are_compared_with(name: str) -> None:
    """Random search, local search and evolution with their default settings."""
    assert set(REFERENCES) <= {method.name for method in suite_named(name).methods}


@pytest.mark.parametrize("name", SUITES)
def test_every_agent_of_a_suite_exists_and_takes_its_settings(name: str) -> None:
    """Names and settings are checked against the registry."""
    pytest.importorskip("stable_baselines3")
    for method in SUITES[name].methods:
        if method.kind == "agent":
            nas_agents.make_config(nas_agents.AGENTS[method.agent], **method.settings)


@pytest.mark.parametrize("name", ["smoke", "main"])
def test_the_suites_on_packaged_tables_need_no_other(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They run without any data of the user."""
    monkeypatch.delenv("NAS_GYM_DATA", raising=False)
    assert missing_tables(SUITES[name].tasks) == {}


def test_what_a_user_installs_changes_no_suite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A suite is made of the release alone."""
    before = {name: suite.hash for name, suite in SUITES.items()}
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "nats-cifar10.parquet").touch()
    monkeypatch.setenv("NAS_GYM_DATA", str(tmp_path))
    assert "nats-cifar10" in TABLES
    assert {name: suite.hash for name, suite in SUITES.items()} == before


def test_a_missing_table_is_named_with_its_file_and_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough to get it without reading any documentation."""
    monkeypatch.delenv("NAS_GYM_DATA", raising=False)
    text = listed(missing_tables(SUITES["nats"].tasks))
    for part in ("'nats-cifar100'", "NATS-tss-v1_0-3ffb9-simple", "nas-gym tables import", "--name nats"):
        assert part in text


def test_a_table_of_unknown_origin_is_named_all_the_same() -> None:
    """Without a command that would be wrong."""
    missing = missing_tables([Task("x", "NAS-Cell-v0", {"table": "nowhere"})])
    assert missing == {"x": "the table 'nowhere' is not installed."}


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda suite: suite.with_budget(50), "protocol.budget: 100 recorded, 50 now"),
        (lambda suite: replace(suite, tasks=suite.tasks[:1]), "tasks.metaqnn-digits: only recorded"),
        (lambda suite: replace(suite, methods=(*suite.methods, Method("x"))), "methods.x: only now"),
        (
            lambda suite: replace(suite, tasks=tuple(task.with_arguments(noise="sample") for task in suite.tasks)),
            "tasks.cell-digits.arguments.noise: only now",
        ),
    ],
)
def test_another_definition_has_another_hash_and_is_named(change: Any, part: str) -> None:
    """By the path of what differs."""
    changed = change(SMOKE)
    assert changed.hash != SMOKE.hash
    assert part in list(changes(SMOKE.definition(), changed.definition()))


def test_more_seeds_are_no_other_definition() -> None:
    """A record may grow."""
    assert replace(SMOKE, seeds=500).hash == SMOKE.hash


def test_a_definition_is_json() -> None:
    """It survives the way to a file and back."""
    for suite in SUITES.values():
        assert (
            list(changes(json.loads(json.dumps(suite.definition())), json.loads(json.dumps(suite.definition())))) == []
        )
        assert json.loads(json.dumps(suite.definition()))["name"] == suite.name


def test_checkpoints_beyond_the_budget_are_no_part_of_a_protocol() -> None:
    """They judge nothing."""
    assert Protocol(100, checkpoints=(25, 500)).hash == Protocol(100, checkpoints=(25,)).hash
    assert Protocol(100, checkpoints=(25,)).hash != Protocol(100, checkpoints=(50,)).hash


def test_seeds_are_paired_across_methods_and_differ_across_tasks() -> None:
    """Tasks with one space would otherwise see the same draws."""
    seeds = {run_seed(seed, task) for seed in range(50) for task in ALL_TASKS}
    assert len(seeds) == 50 * len(ALL_TASKS)
    assert max(seeds) < 2**31


def test_a_method_is_named_by_what_is_not_default() -> None:
    """So that two settings of one agent are two methods."""
    assert Method("evolution", {"preset": "nats_bench", "sample_size": 3}).name == (
        "evolution preset=nats_bench sample_size=3"
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], [method.name for method in SMOKE.methods]),
        (["uct", "uct"], ["uct"]),
        (["my_module:MyAgent"], ["my_module:MyAgent"]),
    ],
)
def test_methods_are_chosen_by_name_and_newcomers_join(names: list[str], expected: list[str]) -> None:
    """Without names, all of the suite's."""
    assert [method.name for method in SMOKE.chosen_methods(names)] == expected


def test_an_agent_stands_for_all_its_methods() -> None:
    """A method's own name for this one alone."""
    main = SUITES["main"]
    named = [method.name for method in main.chosen_methods(["evolution preset=nats_bench"])]
    assert named == ["evolution preset=nats_bench"]
    found = [method.name for method in main.chosen_methods(["q_learning"])]
    assert found == ["q_learning tuned", "q_learning preset=metaqnn"]


def test_an_unknown_suite_or_task_names_the_nearest() -> None:
    """And all others."""
    with pytest.raises(UnknownName, match="Did you mean 'smoke'"):
        suite_named("smoky")
    with pytest.raises(UnknownName, match="Did you mean 'cell-digits'"):
        SMOKE.chosen_tasks(["cell-digit"])
