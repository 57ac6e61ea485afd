"""What is cited, and that the facts are those of the documentation."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import re
from pathlib import Path

import pytest

import nas_agents
from nas_benchmarks import statistics
from nas_benchmarks.report.bibliography import (
    AGENTS,
    ENTRIES,
    ENVIRONMENTS,
    OURS,
    STATISTICS,
    TABLES,
    Citations,
    bibtex,
)
from nas_benchmarks.report.content import Facts
from nas_benchmarks.suites import SUITES
from nas_gym.registration import ENVIRONMENTS as REGISTERED
from nas_gym.tables.format import TABLES as INSTALLED

USED = (
    [(REGISTERED[name].entry_point, key) for name, keys in ENVIRONMENTS.items() for key in keys]
    + [
        (nas_agents.AGENTS.entries[name].target, key)
        for name, keys in AGENTS.items()
        if name in nas_agents.AGENTS.entries
        for key in keys
    ]
    + [("nas_benchmarks.statistics:all", "agarwal2021precipice"), ("nas_benchmarks.statistics:all", "holm1979simple")]
)


def documentation(target: str) -> str:
    """Return the docstrings of the module of ``module:Class`` in one line, without importing what it needs."""
    spec = importlib.util.find_spec(target.split(":")[0])
    assert spec is not None
    assert spec.origin is not None
    nodes = ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    return " ".join(" ".join(ast.get_docstring(node) or "" for node in nodes if isinstance(node, documented)).split())


def plain(name: str) -> str:
    r"""Return a name of BibTeX in plain letters.

    >>> plain(r"Bj{\"o}rnsson")
    'Bjornsson'
    """
    return re.sub(r"{\\.(\w)}", r"\1", name)


def facts(**changed: object) -> Facts:
    """Return facts of a record that was never made."""
    task = {"env": "NAS-Cell-v0", "table": "digits", "table_sha256": "a"}
    found = Facts(
        "suite", "x", {"uct": "uct"}, {"t": task}, 1, (1, 1), 9, "cache+charge", (), {}, ("a", "a"), {"budget": 1}, 0
    )
    return dataclasses.replace(found, **changed)


def test_every_environment_has_an_entry() -> None:
    """Every registered one, and no other."""
    assert set(ENVIRONMENTS) == set(REGISTERED)


def test_every_agent_has_an_entry() -> None:
    """Every registered one, and what suites run besides."""
    others = {method.agent for suite in SUITES.values() for method in suite.methods}
    assert set(AGENTS) == set(nas_agents.AGENTS) | others


def test_every_table_has_an_entry() -> None:
    """The packaged ones and those of the suites; ours are cited as this project."""
    asked = {str(task.arguments["table"]) for suite in SUITES.values() for task in suite.tasks}
    packaged = {path.stem for path in INSTALLED.packaged.glob("*.parquet")}
    assert set(TABLES) >= asked | packaged
    assert all(TABLES[name] == (OURS,) for name in packaged)


def test_every_key_is_known_and_every_entry_is_used() -> None:
    """No reference is broken, none is dead."""
    keys = {key for names in (ENVIRONMENTS, AGENTS, TABLES) for group in names.values() for key in group}
    assert keys | {OURS, *STATISTICS} == set(ENTRIES)


@pytest.mark.parametrize(("target", "key"), USED)
def test_the_facts_stand_in_the_documentation_of_what_is_cited(target: str, key: str) -> None:
    """First author, year and number of the preprint."""
    entry, text = ENTRIES[key], documentation(target)
    assert plain(entry.authors.split(",")[0]) in text
    assert str(entry.year) in text
    assert entry.arxiv in text


@pytest.mark.parametrize(
    ("target", "key"), [(REGISTERED[name].entry_point, key) for name, keys in ENVIRONMENTS.items() for key in keys]
)
def test_environments_document_titles_and_all_authors(target: str, key: str) -> None:
    """The part of the title before a colon at least, the venue, and every author."""
    entry, text = ENTRIES[key], documentation(target)
    assert entry.title.split(":")[0] in text
    assert entry.venue in text
    assert [name for name in entry.authors.split(" and ") if plain(name.split(",")[0]) not in text] == []


def test_the_statistics_name_their_source() -> None:
    """Where they are computed."""
    assert "2108.13264" in (statistics.__doc__ or "")


def test_an_entry_is_bibtex() -> None:
    """Braces match, and the title keeps its capitals."""
    assert ENTRIES["holm1979simple"].bibtex("holm") == (
        "@article{holm,\n  author = {Holm, S.},\n"
        "  title = {{A Simple Sequentially Rejective Multiple Test Procedure}},\n  year = {1979},\n"
        "  journal = {Scandinavian Journal of Statistics}\n}\n"
    )
    for key, entry in ENTRIES.items():
        text = entry.bibtex(key)
        assert text.count("{") == text.count("}")


def test_a_record_cites_what_it_used_and_no_more() -> None:
    """Environment, table, agent, statistics and this project."""
    keys = Citations.of(facts()).keys(statistics=True)
    assert set(keys) == {OURS, *ENVIRONMENTS["NAS-Cell-v0"], *AGENTS["uct"], *STATISTICS}


def test_what_is_unknown_is_named_and_not_invented() -> None:
    """Somebody's own agent, table and environment stand in comments."""
    task = {"env": "Mine-v0", "table": "mine", "table_sha256": None}
    citations = Citations.of(facts(methods={"my:Agent x=1": "my:Agent"}, tasks={"t": task}))
    assert citations.unknown == ("environment Mine-v0", "agent my:Agent", "table mine")
    text = bibtex(citations.keys(statistics=False), citations.unknown)
    assert "% no entry is known for the agent my:Agent: add its own\n" in text
    assert text.count("@") == 1


def test_words_are_for_readers() -> None:
    """Accents as letters, no braces."""
    words = [entry.words() for entry in ENTRIES.values()]
    assert any("Szepesvári" in one for one in words)
    assert [one for one in words if re.search(r"[{}\\]|\.\.", one)] == []
