"""Published means: what they are, and when runs of ours are said to agree with them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import nas_agents
from nas_benchmarks.published_results import (
    CONSISTENT,
    DIFFERS,
    METHODS,
    RANDOM_SEARCH,
    REPORTED,
    REPRODUCED,
    TOO_FEW,
    Reported,
    judge,
    reported,
)

PUBLISHED = Reported("cifar10", RANDOM_SEARCH.name, "RANDOM", 93.86, 0.23, 500, 20_000.0, "a table", "the paper")
"""As if it had been looked up."""

RECALLED = replace(PUBLISHED, source="recalled")


def runs(mean: float, count: int = 500, deviation: float = 0.25) -> Any:
    """Return runs with exactly this mean and population standard deviation, shape [R]."""
    values = np.random.default_rng(0).normal(size=count)
    return mean + deviation * (values - values.mean()) / values.std()


@pytest.mark.parametrize(
    ("published", "ours", "by_the_clock", "label"),
    [
        pytest.param(PUBLISHED, runs(93.86), True, REPRODUCED, id="sourced, same rule, as many runs"),
        pytest.param(PUBLISHED, runs(93.86, 501), True, REPRODUCED, id="more runs"),
        pytest.param(RECALLED, runs(93.86), True, CONSISTENT, id="recalled"),
        pytest.param(PUBLISHED, runs(93.86), False, CONSISTENT, id="number of queries instead of the clock"),
        pytest.param(PUBLISHED, runs(93.86, 499), True, CONSISTENT, id="fewer runs"),
        pytest.param(PUBLISHED, runs(93.88), True, REPRODUCED, id="a little better"),
        pytest.param(PUBLISHED, runs(93.90), True, DIFFERS, id="better"),
        pytest.param(PUBLISHED, runs(93.82), True, DIFFERS, id="worse"),
        pytest.param(RECALLED, runs(90.0), False, DIFFERS, id="recalled and far away"),
        pytest.param(PUBLISHED, np.array([93.86]), True, TOO_FEW, id="a single run"),
    ],
)
def test_the_verdict(published: Reported, ours: Any, by_the_clock: bool, label: str) -> None:
    """Reproduced is only what has a source, the published rule and as many runs."""
    assert judge(published, ours, by_the_clock).label == label


def test_the_margin_is_that_of_two_means() -> None:
    """1.96 standard errors of the difference of two means, and half a unit of the last published digit."""
    verdict = judge(PUBLISHED, runs(93.9, 101, 0.3), True)
    assert verdict.margin == pytest.approx(1.96 * math.sqrt(0.3**2 / 100 + 0.23**2 / 500) + 0.005)
    assert verdict.difference == pytest.approx(0.04)


def test_equal_methods_are_seldom_said_to_differ() -> None:
    """About one in twenty, as a 95 % interval promises; rounding makes it a little less."""
    rng = np.random.default_rng(0)
    spread, differs = 0.9, 0
    for _ in range(1_000):
        theirs, ours = rng.normal(71.55, spread, (2, 500))
        published = replace(PUBLISHED, mean=round(float(theirs.mean()), 2), deviation=round(float(theirs.std()), 2))
        differs += judge(published, ours, True).label == DIFFERS
    assert 20 <= differs <= 70


@pytest.mark.parametrize("one", REPORTED, ids=lambda one: f"{one.label} {one.dataset}")
def test_what_is_only_recalled_is_never_reproduced(one: Reported) -> None:
    """Not even by runs that hit the number and follow every rule."""
    label = judge(one, runs(one.mean), True).label
    assert label == (REPRODUCED if one.sourced else CONSISTENT)


def test_every_method_is_compared_on_every_data_set_once() -> None:
    """Three methods, three data sets."""
    assert len(REPORTED) == len({(one.dataset, one.method) for one in REPORTED}) == 9
    assert {one.method for one in REPORTED} == {method.name for method in METHODS}


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "imagenet16-120"])
def test_the_published_order(dataset: str) -> None:
    """Evolution before REINFORCE before random search, on every data set."""
    found = [reported(dataset, method.name) for method in METHODS]
    assert all(one is not None for one in found)
    random, evolution, reinforce = (one.mean for one in found if one is not None)
    assert random < reinforce < evolution


@pytest.mark.parametrize(("dataset", "method"), [("digits", RANDOM_SEARCH.name), ("cifar10", "uct"), (None, "uct")])
def test_nothing_was_published_of_others(dataset: str | None, method: str) -> None:
    """Other tables and methods are compared with nothing."""
    assert reported(dataset, method) is None


def test_the_methods_have_the_official_settings() -> None:
    """Random search may draw the same again; evolution has population 10 and tournament 3, and one child at a time."""
    random, evolution = (
        nas_agents.make_config(nas_agents.AGENTS[method.agent], **method.settings) for method in METHODS[:2]
    )
    assert random.replacement
    assert (evolution.population_size, evolution.sample_size, evolution.batch_size) == (10, 3, 1)
