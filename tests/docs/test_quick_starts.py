"""The quick start of every environment and every agent runs as its page shows it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("sphinx")
import nas_agents
from nas_docs import agents, environments
from nas_gym import ENVIRONMENTS
from nas_gym.evaluators.core import LABELS


@pytest.fixture(autouse=True)
def no_data_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imported tables are there on some machines only."""
    monkeypatch.delenv("NAS_GYM_DATA", raising=False)


def run(script: str) -> tuple[dict[str, Any], str]:
    """Run a script; return its names and what it printed."""
    namespace: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(script, namespace)
    return namespace, printed.getvalue()


@pytest.mark.parametrize("name", list(ENVIRONMENTS))
def test_an_episode_is_played_to_its_end(name: str) -> None:
    """Its last line prints the architecture, the status and the reward."""
    names, printed = run(environments.quick_start(name))
    notation = names["env"].unwrapped.space.to_string(names["info"]["encoding"])
    assert names["info"]["status"] == LABELS[0]
    assert printed == f"{notation} {LABELS[0]} {names['reward']}\n"


@pytest.mark.parametrize("name", list(ENVIRONMENTS))
def test_many_episodes_are_played_at_once(name: str) -> None:
    """The counter counts the architectures of all of them."""
    names, printed = run(environments.quick_start_vector(name))
    usage = names["envs"].unwrapped.counter.usage()
    assert printed.startswith(f"Usage(environment_steps={usage.environment_steps}, queries={usage.queries}, ")
    assert usage.queries >= names["envs"].num_envs


@pytest.mark.parametrize("name", list(nas_agents.AGENTS))
def test_an_agent_uses_the_budget_of_its_page(name: str) -> None:
    """Exactly, unless it has nothing left to try."""
    names, _ = run(agents.quick_start(name))
    assert (names["result"].reason, names["result"].usage.queries) == ("budget", agents.BUDGET)


@pytest.mark.parametrize("made", [environments.quick_start, environments.quick_start_vector])
def test_scripts_fit_the_page(made: Callable[[str], str]) -> None:
    """No line is longer than the project's."""
    lines = [line for name in ENVIRONMENTS for line in made(name).splitlines()]
    assert [line for line in lines if len(line) > 120] == []
