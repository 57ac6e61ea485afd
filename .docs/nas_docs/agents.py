"""One page an agent: its docstring, its configuration with presets, and what it found in a short search."""

from __future__ import annotations

import dataclasses
import inspect
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import nas_agents
from nas_agents import AGENTS, Evaluated, Sink
from nas_benchmarks.figures import draw_search
from nas_docs import docstrings
from nas_docs.markdown import Page, code, fence, figure, join, sentence, table, toctree
from nas_docs.pictures import Picture
from nas_gym.registry import Entry
from nas_gym.tables.format import TABLES, read_table

FOLDER = "agents"
ENVIRONMENT, TABLE, BUDGET = "NAS-Cell-v0", "digits", 200


def pages() -> Iterator[Page]:
    """Return the overview and one page per registered agent."""
    yield Page(f"{FOLDER}/index", _overview())
    for name, entry in AGENTS.entries.items():
        yield _page(name, entry)


def page_name(name: str) -> str:
    """Return the file of an agent's page; a colon in its name would be no file name everywhere."""
    return name.replace(":", "-")


def _overview() -> str:
    rows = [
        (f"[`{name}`]({page_name(name)}.md)", sentence(entry.summary), _needs(entry))
        for name, entry in AGENTS.entries.items()
    ]
    names = (f"{FOLDER}/{page_name(name)}" for name in AGENTS)
    return join("# Agents", table(["Name", "Algorithm", "Needs"], rows), toctree(names, hidden=True))


def _needs(entry: Entry) -> str:
    return code(f"nas-gym[{entry.extra}]") if entry.extra else "the base installation"


def _page(name: str, entry: Entry) -> Page:
    agent = AGENTS[name]
    config = agent.Config()
    found = Search.of(name)
    paths = f"pictures/{page_name(name)}-search.png", f"pictures/{page_name(name)}.png"
    text = join(
        f"# {name}",
        sentence(entry.summary),
        figure(paths[0], f"{BUDGET} queries of {code(ENVIRONMENT)}, seed 0.", "best reward so far over the queries"),
        docstrings.to_markdown(docstrings.parse(agent.__doc__)),
        f"It {_KINDS[_kind(agent)]}. It needs {_needs(entry)}.",
        "## Quick start",
        fence("python", quick_start(name)),
        fence("console", f"$ {command(name)}"),
        found.architecture.figure(
            paths[1], f"The best cell of this search: {code(found.notation)}", "the best architecture found"
        ),
        "## Configuration",
        docstrings.to_markdown(dataclasses.replace(docstrings.parse(agent.Config.__doc__), sections={})),
        _configuration(agent.Config),
        *_nested(config),
        *_presets(agent),
        "## Sources",
        docstrings.parse(inspect.getmodule(agent).__doc__).text,
        f"Module [`{agent.__module__}`](/api/{agent.__module__}.md).",
    )
    return Page(f"{FOLDER}/{page_name(name)}", text, {paths[0]: found.figure, paths[1]: found.architecture.content})


# --- code ----------------------------------------------------------------------------------------------


def quick_start(name: str) -> str:
    """Return a script that searches with an agent."""
    return f"""
import gymnasium as gym
import nas_agents
import nas_gym

envs = gym.make_vec("{ENVIRONMENT}", num_envs={_sub_environments(name)}, autoreset_mode="Disabled").unwrapped
agent = nas_agents.make("{name}", envs, seed=0)
result = nas_agents.run(agent, envs, budget={BUDGET}, seed=0)
print(result.usage)
"""


def _sub_environments(name: str) -> int:
    return nas_agents.episodes_at_once(AGENTS[name].Config())


def command(name: str) -> str:
    """Return the same search as a command."""
    return f"nas-gym search --env {ENVIRONMENT} --agent {name} --budget {BUDGET} --seed 0"


class _Recorder(Sink):
    """Keeps what was evaluated."""

    def __init__(self) -> None:
        """Start empty."""
        self.encodings: list[tuple[int, ...]] = []
        self.rewards: list[float] = []

    def on_episodes(self, evaluated: Evaluated) -> None:
        """Append episodes."""
        self.encodings += evaluated.batch.encodings
        self.rewards += evaluated.batch.returns.tolist()


@dataclasses.dataclass(frozen=True)
class Search:
    """What the quick start of an agent found.

    Attributes:
        notation: the best architecture in the published notation.
        architecture: picture of it.
        figure: best reward so far against random search, a PNG file.
    """

    notation: str
    architecture: Picture
    figure: bytes

    @classmethod
    def of(cls, name: str) -> Search:
        """Run the search of the quick start."""
        made = gymnasium.make_vec(ENVIRONMENT, num_envs=_sub_environments(name), autoreset_mode="Disabled")
        envs: Any = made.unwrapped
        recorder = _Recorder()
        nas_agents.run(nas_agents.make(name, envs, seed=0), envs, budget=BUDGET, seed=0, sinks=[recorder])
        best = recorder.encodings[int(np.argmax(recorder.rewards))]
        every = read_table(TABLES[TABLE]).mean("valid_accuracy")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "search.png"
            draw_search(path, np.array(recorder.rewards), ENVIRONMENT, name, every)
            drawn = path.read_bytes()
        return cls(envs.space.to_string(best), Picture.of(envs.space, best), drawn)


# --- configuration -------------------------------------------------------------------------------------

_KINDS = {
    "drives": "comes with a training loop of its own, which `nas_agents.run` starts, counts and ends",
    "proposes": "proposes whole architectures, which are replayed as actions",
    "decides": "decides step by step",
}


def _kind(agent: type[nas_agents.Agent]) -> str:
    if agent.drives_itself:
        return "drives"
    return "proposes" if issubclass(agent, nas_agents.Proposer) else "decides"


def _configuration(config: type[Any]) -> str:
    return docstrings.argument_table(docstrings.arguments(config))


def _nested(config: Any) -> Iterator[str]:  # noqa: ANN401 - any agent's configuration
    """Describe the fields that are configurations themselves."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield f"### `{field.name}`: {type(value).__name__}"
            yield docstrings.parse(type(value).__doc__).text
            rows = docstrings.arguments(type(value))
            own = {one.name: docstrings.shown(getattr(value, one.name)) for one in rows}
            yield docstrings.argument_table([dataclasses.replace(row, default=own[row.name]) for row in rows])


def _presets(agent: type[nas_agents.Agent]) -> Iterator[str]:
    """Compare the presets with the default."""
    if not agent.presets:
        return
    columns: Mapping[str, Any] = {"default": agent.Config(), **agent.presets}
    rows = [
        (code(field.name), *(code(_value(getattr(one, field.name))) for one in columns.values()))
        for field in dataclasses.fields(agent.Config)
    ]
    yield "### Presets"
    yield table(["Field", *map(code, columns)], rows)


def _value(value: object) -> str:
    """Return a value of a preset; of a nested configuration what differs from its own default."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return docstrings.shown(value)
    usual = type(value)()
    changed = [
        f"{field.name}={getattr(value, field.name)!r}"
        for field in dataclasses.fields(value)
        if getattr(value, field.name) != getattr(usual, field.name)
    ]
    return f"{type(value).__name__}({', '.join(changed)})"
