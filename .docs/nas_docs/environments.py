"""One page an environment: what its docstring says and what its objects say."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import gymnasium
import numpy as np

from nas_docs import docstrings
from nas_docs.markdown import Page, code, details, fence, join, sentence, table, toctree
from nas_docs.pictures import Picture, example
from nas_docs.tables import tables_of
from nas_gym.envs.core.observations import OBSERVATIONS
from nas_gym.errors import TableError, UnknownName
from nas_gym.evaluators import EVALUATORS
from nas_gym.objectives import OBJECTIVES
from nas_gym.registration import ENVIRONMENTS, Registration
from nas_gym.registry import resolve
from nas_gym.search_spaces.core import SearchSpace

FOLDER = "environments"
_EPISODES = 100
_LONG_LIST = 24


def pages() -> Iterator[Page]:
    """Return the overview and one page per registered id."""
    yield Page(f"{FOLDER}/index", _overview())
    for name, row in ENVIRONMENTS.items():
        yield _page(name, row)


def _overview() -> str:
    rows = [(f"[`{name}`]({name}.md)", row.system, sentence(row.summary)) for name, row in ENVIRONMENTS.items()]
    listing = table(["Id", "System", "What it is"], rows)
    return join("# Environments", listing, toctree((f"{FOLDER}/{name}" for name in ENVIRONMENTS), hidden=True))


def _page(name: str, row: Registration) -> Page:
    lead, _, sections = (inspect.getdoc(resolve(row.entry_point)) or "").partition("\n## ")
    env: Any = gymnasium.make(name, render_mode="rgb_array", **shown_with(name)).unwrapped
    decides = resolve(row.vector_entry_point).actions_are_decisions
    try:
        files, shown = _construction(name, env.space) if decides else _episode(name, env)
        text = join(
            f"# {name}",
            f"*{row.system}.* {sentence(row.summary)}",
            lead,
            shown,
            "## Quick start",
            fence("python", quick_start(name)),
            "Many episodes at once:",
            fence("python", quick_start_vector(name)),
            "## At a glance",
            _facts(name, row, env),
            _choices(env.space) if decides else "",
            details("Types and defaults of all arguments", _signature(row)),
            "## Metrics",
            _metrics(env.evaluator),
            f"## {sections}",
        )
    finally:
        env.close()
    return Page(f"{FOLDER}/{name}", text, files)


# --- code ----------------------------------------------------------------------------------------------


def quick_start(name: str) -> str:
    """Return a script that plays one random episode."""
    given = ", ".join([f'"{name}"', *(f"{key}={docstrings.shown(value)}" for key, value in shown_with(name).items())])
    return f"""
import gymnasium as gym
import nas_gym

env = gym.make({given})
observation, info = env.reset(seed=0)
env.action_space.seed(0)
terminated = truncated = False
while not (terminated or truncated):
    action = env.action_space.sample(info["action_mask"])
    observation, reward, terminated, truncated, info = env.step(action)
print(env.unwrapped.space.to_string(info["encoding"]), info["status"], reward)
env.close()
"""


def quick_start_vector(name: str) -> str:
    """Return a script that plays many random episodes at once, on a landscape that needs neither data nor training."""
    return f"""
import gymnasium as gym
import nas_gym

envs = gym.make_vec("{name}", num_envs=64, evaluator="synthetic")
observations, infos = envs.reset(seed=0)
envs.action_space.seed(0)
for _ in range(20):
    actions = envs.action_space.sample(tuple(infos["action_mask"]))
    observations, rewards, terminated, truncated, infos = envs.step(actions)
print(envs.unwrapped.counter.usage())
"""


@lru_cache
def shown_with(name: str) -> dict[str, Any]:
    """Return the arguments with which an environment runs here, in one process and without files to import."""
    parameters = inspect.signature(resolve(ENVIRONMENTS[name].entry_point)).parameters
    # Worker processes would need a script with a guarded main module.
    own: dict[str, Any] = {"workers": 0} if "workers" in parameters else {}
    try:
        gymnasium.make(name, **own).close()
    except TableError:
        return {"evaluator": "synthetic"}
    return own


# --- facts ---------------------------------------------------------------------------------------------


def _construction(name: str, space: SearchSpace) -> tuple[dict[str, bytes], str]:
    """Return pictures of an architecture, half built and finished."""
    encoding = example(space)
    growing = encoding[: len(encoding) // 2]
    unfinished, finished = Picture.of(space, growing), Picture.of(space, encoding)
    captions = (
        f"After {len(growing)} of {len(encoding)} decisions",
        f"Finished: {code(space.to_string(encoding))}",
    )
    return _two(name, (unfinished, finished), captions)


def _episode(name: str, env: Any) -> tuple[dict[str, bytes], str]:  # noqa: ANN401 - any environment of nas-gym
    """Return pictures of what a random episode of complete architectures begins and ends with."""
    _, info = env.reset(seed=0)
    env.action_space.seed(0)
    begun, steps, over = Picture.from_pixels(env.render()), 0, False
    while not over:
        _, _, terminated, truncated, info = env.step(env.action_space.sample(info["action_mask"]))
        steps, over = steps + 1, terminated or truncated
    notation = code(env.space.to_string(info["encoding"]))
    ended = Picture.from_pixels(env.render())
    return _two(name, (begun, ended), ("An episode begins", f"After {steps} steps: {notation}"))


def _two(name: str, pictures: tuple[Picture, Picture], captions: tuple[str, str]) -> tuple[dict[str, bytes], str]:
    paths = f"pictures/{name}-growing.png", f"pictures/{name}.png"
    words = "an architecture in the middle of an episode", "an architecture at the end of an episode"
    shown = zip(pictures, paths, captions, words, strict=True)
    files = {path: one.content for one, path in zip(pictures, paths, strict=True)}
    return files, join(*(one.figure(path, caption, alternative) for one, path, caption, alternative in shown))


def _facts(name: str, row: Registration, env: Any) -> str:  # noqa: ANN401 - any environment of nas-gym
    space, size = env.space, env.space.size()
    rows = [
        ("Registered id", f"{code(name)}; in spawned workers {code('nas_gym:' + name)}"),
        ("Registered arguments", ", ".join(code(f"{key}={value!r}") for key, value in row.kwargs.items()) or "none"),
        ("Action space", code(env.action_space)),
        *((f"Observation space, {code(kind)}", code(_shape(shape))) for kind, shape in _observations(name)),
        ("Longest architecture", f"{space.max_length} decisions"),
        ("Architectures", "not countable" if size is None else f"{size:,}"),
        ("Legal actions", _legal(name)),
        ("Evaluator", _evaluator(name, env.evaluator)),
        ("Objective", _objective(name, env.objective)),
        ("Packaged tables", ", ".join(f"[`{table.name}`](/tables.md#{table.name})" for table in tables_of(space))),
        ("Render modes", ", ".join(map(code, env.metadata["render_modes"]))),
    ]
    return table(["Property", "Value"], [(title, value or "none") for title, value in rows])


def _observations(name: str) -> Iterator[tuple[str, gymnasium.Space[Any]]]:
    """Return the observation spaces by the argument `observation`: the default, then the others it takes."""
    for kind in dict.fromkeys((_default(name, "observation"), *OBSERVATIONS)):
        with contextlib.suppress(UnknownName):
            yield kind, gymnasium.make(name, evaluator="synthetic", observation=kind).observation_space


def _shape(space: gymnasium.Space[Any]) -> str:
    """Return a space; of bounds that differ from entry to entry only the outermost."""
    if isinstance(space, gymnasium.spaces.Box):
        return f"Box({space.low.min():g}, {space.high.max():g}, {space.shape}, {space.dtype})"
    return str(space)


def _legal(name: str) -> str:
    """Say how many actions are legal, over the steps of random episodes."""
    env: Any = gymnasium.make(name, evaluator="synthetic").unwrapped
    env.action_space.seed(0)
    counts = []
    for _ in range(_EPISODES):
        _, info = env.reset()
        over = False
        while not over:
            counts.append(int(info["action_mask"].sum()))
            _, _, terminated, truncated, info = env.step(env.action_space.sample(info["action_mask"]))
            over = terminated or truncated
    if min(counts) == env.action_space.n:
        return f"all {env.action_space.n}, always"
    return (
        f"{min(counts)} to {max(counts)} of {env.action_space.n}, {np.mean(counts):.1f} on average "
        f"({_EPISODES} random episodes); {counts[0]} at the first step"
    )


def _evaluator(name: str, evaluator: Any) -> str:  # noqa: ANN401 - any evaluator
    default = _default(name, "evaluator")
    shown = f"[`{default}`](/evaluators.md#{default})" if default in EVALUATORS else code(default)
    fidelities = "none" if evaluator.fidelities is None else "{} to {} epochs".format(*evaluator.fidelities)
    return f"{shown}, fidelities: {fidelities}"


def _objective(name: str, objective: Any) -> str:  # noqa: ANN401 - any objective
    default = _default(name, "objective")
    shown = f"[`{default}`](/objectives.md#{default})" if default in OBJECTIVES else code(default)
    reads = ", ".join(map(code, objective.requires))
    summary = sentence(docstrings.parse(type(objective).__doc__).summary)
    return f"{shown}: {summary} It reads {reads}; a failure gives {objective.failure_reward:g}"


def _default(name: str, argument: str) -> Any:  # noqa: ANN401 - any default
    return inspect.signature(resolve(ENVIRONMENTS[name].entry_point)).parameters[argument].default


def _choices(space: SearchSpace) -> str:
    decision = space.decision(())
    if decision is None:
        return ""
    rows = [
        (number, code(label), "yes" if legal else "no")
        for number, (label, legal) in enumerate(zip(decision.labels, decision.mask, strict=False))
    ]
    shown = table(["Action", "Choice", "Legal at first"], rows)
    title = f"The {len(rows)} choices of the first decision"
    return details(title, shown) if len(rows) > _LONG_LIST else join(f"{title}:", shown)


def _metrics(evaluator: Any) -> str:  # noqa: ANN401 - any evaluator
    """Return what the default evaluator measures, with the values over the whole space where they are known."""
    header = ["Metric", "Direction", "Unit", "Seen by the agent", "Best", "Mean", "Worst"]
    rows = [
        (
            code(name),
            metric.direction,
            metric.unit,
            "no, held out" if metric.held_out else "yes",
            *_values(evaluator.reference(name)),
        )
        for name, metric in evaluator.metrics.items()
    ]
    if any(row[-1] for row in rows):
        return join(
            "Reference values over the whole space, from the table that the default evaluator reads:",
            table(header, rows),
        )
    return join(
        "The whole space is not known, so there are no reference values.", table(header[:4], (row[:4] for row in rows))
    )


def _values(reference: Any) -> tuple[str, str, str]:  # noqa: ANN401 - Reference or None
    if reference is None:
        return "", "", ""
    values = (reference.best, reference.mean, reference.worst)
    best, mean, worst = (f"{value:,.4f}".rstrip("0").rstrip(".") for value in values)
    return best, mean, worst


def _signature(row: Registration) -> str:
    single = docstrings.arguments(resolve(row.entry_point))
    names = {one.name for one in single}
    vector = [one for one in docstrings.arguments(resolve(row.vector_entry_point)) if one.name not in names]
    more = ", ".join(code(f"{one.name}={one.default}") for one in vector)
    return join(docstrings.argument_table(single), f"The vector form also takes {more}.")
