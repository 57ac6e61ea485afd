"""The settings that agents were tuned to, and the logs that they come from."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

import nas_agents
from nas_benchmarks.recorded import BASELINES
from nas_benchmarks.records import read_rows
from nas_benchmarks.suites import SUITES, Method
from nas_benchmarks.tuned import QUERIES, TRIALS, TUNED, log_name
from nas_benchmarks.tuning import SPACES, Study


def log(agent: str) -> list[dict[str, Any]]:
    """Return the trials of an agent."""
    return read_rows(BASELINES / log_name(agent))


@pytest.mark.parametrize("agent", TUNED)
def test_the_settings_are_those_of_the_best_trial(agent: str) -> None:
    """By the score of the log, the first of equal ones."""
    best = min(sorted(log(agent), key=lambda trial: trial["trial"]), key=lambda trial: trial["score"])
    assert best["trial"] == TUNED[agent].trial
    assert best["settings"] == json.loads(json.dumps(dict(TUNED[agent].settings)))


@pytest.mark.parametrize("agent", TUNED)
def test_every_agent_had_the_same_number_of_queries(agent: str) -> None:
    """Whatever number of settings it has."""
    trials = log(agent)
    assert Counter(trial["trial"] for trial in trials) == Counter(range(TRIALS))
    assert sum(trial["queries"] for trial in trials) == QUERIES


@pytest.mark.parametrize("agent", TUNED)
def test_the_log_is_that_of_the_declared_settings(agent: str) -> None:
    """The same command with this version would continue it."""
    if agent.startswith("sb3:"):
        pytest.importorskip("stable_baselines3")
    study = Study.of(agent, TRIALS, 0)
    assert {trial["study"] for trial in log(agent)} == {study.hash}
    assert json.loads(json.dumps(study.settings(TUNED[agent].trial))) == json.loads(
        json.dumps(dict(TUNED[agent].settings))
    )


def test_all_agents_of_the_main_suite_were_tuned() -> None:
    """Those that have settings at all."""
    assert {method.agent for method in SUITES["main"].methods} == set(TUNED)
    assert set(TUNED) <= set(SPACES)


def test_the_controller_and_the_logits_differ_in_nothing_else() -> None:
    """Otherwise their comparison would say nothing of the memory of decisions."""
    methods = {method.name: method for method in SUITES["main"].methods}
    first, second = methods["reinforce tuned"], methods["reinforce tuned, independent logits"]
    configs = [nas_agents.make_config(nas_agents.AGENTS["reinforce"], **one.settings) for one in (first, second)]
    differing = [name for name in vars(configs[0]) if vars(configs[0])[name] != vars(configs[1])[name]]
    assert differing == ["policy"]


def test_a_label_stands_for_settings_in_the_name_only() -> None:
    """Two methods of one label with other settings are two definitions."""
    first, second = (Method("evolution", {"sample_size": size}, label="tuned") for size in (2, 3))
    assert first.name == second.name == "evolution tuned"
    assert first.to_json() != second.to_json()
