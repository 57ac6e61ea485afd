"""The paragraph that says how a record was made, for a page and for a paper alike, of nothing but the record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .bibliography import OURS, Citations
from .content import Facts


class Markup(Protocol):
    """How words become marked-up text."""

    def text(self, words: str) -> str:
        """Return plain words."""
        ...

    def code(self, name: str) -> str:
        """Return a name as it is typed."""
        ...

    def cite(self, keys: Sequence[str]) -> str:
        """Return a reference behind a word, empty where there is nothing to cite."""
        ...


def paragraph(facts: Facts, citations: Citations, to: Markup) -> str:
    """Return the paragraph."""
    sentences = _SENTENCES[facts.kind](facts, citations, to)
    return " ".join(sentence for sentence in sentences if sentence)


def _suite(facts: Facts, citations: Citations, to: Markup) -> list[str]:
    methods = (to.code(name) + to.cite(citations.agents[name]) for name in facts.methods)
    return [
        _what_ran(facts, to),
        to.text("Tasks: ") + "; ".join(_task(name, facts, citations, to) for name in facts.tasks) + ".",
        to.text("Methods: ") + ", ".join(methods) + ".",
        to.text(f"Every run had a budget of {facts.budget:,} charged queries; ") + _repeats(facts.repeat_query, to),
        *_judgement(facts, to),
        _statistics(facts, to),
        _training(facts, to),
        _tuning(facts, to),
        _outcome(facts, to),
        _provenance(facts, to),
    ]


def _what_ran(facts: Facts, to: Markup) -> str:
    least, most = facts.seeds
    seeds = _count(most, "seed") if least == most else f"{least} to {most} seeds"
    words = f": {_count(len(facts.methods), 'method')} on {_count(len(facts.tasks), 'task')} with {seeds} each, "
    begin = to.text("We ran the suite ") + to.code(facts.name) + to.text(" of nas-gym") + to.cite((OURS,))
    return begin + to.text(f"{words}{_count(facts.runs, 'run')} in all.")


def _judgement(facts: Facts, to: Markup) -> list[str]:
    judged = ", ".join(f"{queries:,}" for queries in (*facts.checkpoints, facts.budget))
    return [
        to.text(
            "A method sees the search-time signal only. A run is judged by its incumbent, the first architecture with "
            "the best signal so far, in the held-out metric of the task: by its simple regret, the distance from the "
            "best architecture of the space, and by a score that is 1 for the best architecture of the space and 0 for "
            "the mean one"
        )
        + to.cite(("yang2020frustratingly",))
        + to.text(f", after {judged} queries."),
        to.text(
            "The seed of a run follows from its number and the task, not from the method, so runs of the same number "
            "are paired."
        ),
    ]


def _statistics(facts: Facts, to: Markup) -> str:
    if facts.seeds[1] == 1:
        return to.text("With a single seed there are no intervals, and nothing follows about the methods.")
    return (
        to.text(
            "We report interquartile means over runs and tasks with 95 % stratified bootstrap intervals and "
            "performance profiles"
        )
        + to.cite(("agarwal2021precipice",))
        + to.text(", and paired permutation tests over seeds, corrected by Holm's procedure")
        + to.cite(("holm1979simple",))
        + to.text(".")
    )


def _training(facts: Facts, to: Markup) -> str:
    if not facts.training:
        return ""
    return to.text(
        f"Policies were trained by {facts.training:,} queries before, which are no part of the budget of a run."
    )


def _tuning(facts: Facts, to: Markup) -> str:
    """Return what the settings were chosen by, the same for all methods that were tuned together."""
    together: dict[tuple[int, int], list[str]] = {}
    for method, tuning in facts.tuning.items():
        together.setdefault((tuning["trials"], tuning["queries"]), []).append(method)
    sentences = []
    for (trials, queries), methods in together.items():
        logs = dict.fromkeys(facts.tuning[method]["log"] for method in methods)
        sentences.append(
            to.text("The settings of ") + ", ".join(map(to.code, methods))
            + to.text(
                f" are each the best of {_count(trials, 'trial')} of a random search, the default settings among them, "
                f"on synthetic landscapes that no suite scores, {queries:,} queries an agent; logs: "
            )
            + ", ".join(map(to.code, logs)) + "."
        )  # fmt: skip
    return " ".join(sentences)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _search(facts: Facts, citations: Citations, to: Markup) -> list[str]:
    (method,) = facts.methods
    (task,) = facts.tasks
    return [
        to.text("We searched ") + _task(task, facts, citations, to) + to.text(" of nas-gym") + to.cite((OURS,))
        + to.text(" once with the agent ") + to.code(method) + to.cite(citations.agents[method])
        + to.text(f", with a budget of {facts.budget:,} charged queries; ") + _repeats(facts.repeat_query, to),
        _end(facts, to),
        _provenance(facts, to),
    ]  # fmt: skip


_SENTENCES = {"suite": _suite, "search": _search}


def _task(name: str, facts: Facts, citations: Citations, to: Markup) -> str:
    task = facts.tasks[name]
    found = to.code(name)
    if not name.startswith(task["env"]):
        found += to.text(", the environment ") + to.code(task["env"])
    found += to.cite(citations.environments[task["env"]])
    if task["table"] is not None:
        found += (
            to.text(" with the table ") + to.code(str(task["table"])) + to.cite(citations.tables[str(task["table"])])
        )
    if task["table_sha256"] is not None:
        found += to.text(" (" if task["table"] is not None else " (its table has ") + to.text("SHA-256 ")
        found += to.code(task["table_sha256"][:12]) + to.text(")")
    return found


_REPEATS = {
    "cache+charge": "a query of an architecture seen before gives the same answer and is charged again.",
    "resample+charge": "a query of an architecture seen before draws a new answer and is charged again.",
    "cache+free": "a query of an architecture seen before gives the same answer and is free.",
}


def _repeats(repeat_query: str, to: Markup) -> str:
    words = _REPEATS.get(repeat_query)
    return to.text(words) if words else to.text("repeated queries count as ") + to.code(repeat_query) + to.text(".")


_ENDED = {
    "budget": "used the whole budget",
    "exhausted": "had nothing left to try",
    "stopped": "stopped of their own accord",
    "stalled": "queried nothing new any more",
    "time": "were ended by the time limit",
    "interrupted": "were interrupted",
    "unfinished": "have not ended yet",
}


def _outcome(facts: Facts, to: Markup) -> str:
    parts = [f"{count:,} {_ENDED.get(reason, reason)}" for reason, count in facts.ended.items()]
    words = f"Of {_count(facts.runs, 'run')}, {' and '.join(parts)}; "
    return to.text(words) + _failures(facts, to)


def _failures(facts: Facts, to: Markup) -> str:
    failed = f"{facts.failed_queries:,}" if facts.failed_queries else "no"
    return to.text(f"{failed} quer{'y' if facts.failed_queries == 1 else 'ies'} failed.")


_SEARCH_ENDED = {
    "budget": "The whole budget was used",
    "exhausted": "The agent had nothing left to try",
    "stalled": "The agent only repeated itself in the end",
    "time": "The time limit ended it",
    "interrupted": "It was interrupted",
    "unfinished": "It has not ended yet",
}


def _end(facts: Facts, to: Markup) -> str:
    (reason,) = facts.ended
    return to.text(f"{_SEARCH_ENDED.get(reason, f'It ended by {reason!r}')}; ") + _failures(facts, to)


def _provenance(facts: Facts, to: Markup) -> str:
    first, last = facts.finished
    when = f"on {first}" if first == last else f"from {first} to {last}"
    libraries = ", ".join(f"{name} {' and '.join(found)}" for name, found in facts.versions.items())
    return to.text(f"Run {when} with {libraries}.")
