"""The paragraph about the protocol: what it says of where settings come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from nas_benchmarks.report.bibliography import Citations
from nas_benchmarks.report.content import Facts
from nas_benchmarks.report.protocol import paragraph
from nas_benchmarks.suites import SUITES


class Plain:
    """Marks nothing up."""

    def text(self, words: str) -> str:
        return words

    def code(self, name: str) -> str:
        return name

    def cite(self, keys: Sequence[str]) -> str:
        return ""


FACTS = Facts(
    kind="suite",
    name="main",
    methods={"uct": "uct", "evolution tuned": "evolution"},
    tasks={"t": {"env": "NAS-Cell-v0", "table": "digits", "table_sha256": "a"}},
    runs=2,
    seeds=(1, 1),
    budget=9,
    repeat_query="cache+charge",
    checkpoints=(),
    versions={},
    finished=("a", "a"),
    ended={"budget": 2},
    failed_queries=0,
)


def written(**changed: Any) -> str:
    """Return the paragraph of a record that was never made."""
    facts = dataclasses.replace(FACTS, **changed)
    return paragraph(facts, Citations.of(facts), Plain())


def test_methods_that_were_tuned_together_are_named_with_their_logs() -> None:
    """One sentence for the same numbers of trials and queries."""
    tuning = {
        name: {"log": f"tuning/{agent}.jsonl", "trial": 1, "trials": 20, "queries": 24_000}
        for name, agent in FACTS.methods.items()
    }
    assert (
        "The settings of uct, evolution tuned are each the best of 20 trials of a random search, the default settings "
        "among them, on synthetic landscapes that no suite scores, 24,000 queries an agent; logs: tuning/uct.jsonl, "
        "tuning/evolution.jsonl."
    ) in written(tuning=tuning)


def test_nothing_is_said_of_tuning_where_there_was_none() -> None:
    """Defaults and published settings."""
    assert "trial" not in written()


def test_the_main_suite_tells_its_rows_where_settings_come_from() -> None:
    """The published ones come from their papers."""
    tuned = {method.name: method.tuning for method in SUITES["main"].methods}
    assert tuned["evolution tuned"] == {"log": "tuning/evolution.jsonl", "trial": 1, "trials": 20, "queries": 24_000}
    assert tuned["evolution preset=nats_bench"] is None
