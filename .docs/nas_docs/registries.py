"""Pages of what else has a name: search spaces, evaluators, objectives, data sets; one section an entry."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from nas_docs import docstrings
from nas_docs.markdown import Page, code, details, join, sentence, table
from nas_docs.pictures import Picture, example
from nas_docs.tables import tables_of
from nas_gym.datasets import DATASETS
from nas_gym.evaluators import EVALUATORS, Evaluator
from nas_gym.networks import NETWORKS
from nas_gym.objectives import OBJECTIVES
from nas_gym.registry import Registry
from nas_gym.search_spaces import SEARCH_SPACES
from nas_gym.search_spaces.core import SearchSpace


def pages() -> Iterator[Page]:
    """Return one page a registry."""
    yield _search_spaces()
    for name, title, registry in (
        ("evaluators", "Evaluators", EVALUATORS),
        ("objectives", "Objectives", OBJECTIVES),
        ("datasets", "Data sets", DATASETS),
    ):
        sections = (_section(key, registry[key], _result(registry[key])) for key in registry)
        yield Page(name, join(f"# {title}", _introduction(registry), _overview(registry), *sections))


def _introduction(registry: Registry) -> str:
    """Return the first sentence of the package that holds the registry's entries."""
    module = inspect.getmodule(registry[next(iter(registry))])
    package = module.__package__ if module is not None and module.__package__ != "nas_gym" else None
    source = inspect.importlib.import_module(package) if package else module  # type: ignore[attr-defined]
    return docstrings.parse(source.__doc__).text


def _overview(registry: Registry) -> str:
    rows = [
        (f"[{code(name)}](#{name})", sentence(entry.summary), code(f"nas-gym[{entry.extra}]") if entry.extra else "")
        for name, entry in registry.entries.items()
    ]
    header = ["Name", "What it is", "Needs"]
    if not any(row[2] for row in rows):
        header, rows = header[:2], [row[:2] for row in rows]
    return table(header, rows)


def _result(factory: Any) -> str:  # noqa: ANN401 - a class or a function
    """Return what the docstring of the class says that a factory of evaluators makes; nothing where it says it all."""
    made = vars(inspect.getmodule(factory)).get(str(inspect.signature(factory).return_annotation))
    return docstrings.parse(made.__doc__).text if inspect.isclass(made) and issubclass(made, Evaluator) else ""


def _section(name: str, factory: Any, *more: str) -> str:  # noqa: ANN401 - a class or a function
    """Return what the docstring and the signature of an entry say."""
    found = docstrings.parse(factory.__doc__)
    return join(
        f"## {name}",
        found.text,
        *more,
        docstrings.argument_table(docstrings.arguments(factory)),
        f"Module [`{factory.__module__}`](/api/{factory.__module__}.md).",
    )


# --- search spaces -------------------------------------------------------------------------------------


def _search_spaces() -> Page:
    files = {}
    sections = []
    for name in SEARCH_SPACES:
        space = SEARCH_SPACES[name]()
        encoding = example(space)
        path = f"pictures/space-{name}.png"
        drawn = Picture.of(space, encoding)
        files[path] = drawn.content
        caption = f"{code(space.to_string(encoding))}, the encoding {code(encoding)}"
        shown = drawn.figure(path, caption, "an architecture of the space")
        sections.append(_section(name, SEARCH_SPACES[name], shown, _facts(space), _builder(name)))
    text = join("# Search spaces", _introduction(SEARCH_SPACES), _overview(SEARCH_SPACES), *sections)
    return Page("search-spaces", text, files)


def _facts(space: SearchSpace) -> str:
    """Return the sizes of a space with its default settings."""
    size = space.size()
    tables = ", ".join(f"[`{one.name}`](/tables.md#{one.name})" for one in tables_of(space))
    rows = [
        ("Architectures", "not countable" if size is None else f"{size:,}"),
        ("Decisions, at most", space.max_length),
        ("Choices, at most", space.max_choices),
        ("Kinds of decisions", space.kinds),
        ("Published state", "as the observation" if type(space).states is SearchSpace.states else _state(space)),
        ("Packaged tables", tables or "none of the default settings"),
    ]
    return table(["Property", "Value"], rows)


def _state(space: SearchSpace) -> str:
    return code(f"MultiDiscrete({space.states_nvec.tolist()})")


def _builder(name: str) -> str:
    """Return the arguments of the network builder of a space."""
    if name not in NETWORKS:
        return ""
    builder = NETWORKS[name]
    shown = join(docstrings.parse(builder.__doc__).text, docstrings.argument_table(docstrings.arguments(builder)[3:]))
    return details(f"Its network builder, <code>nas_gym.networks.build</code>, {NETWORKS.entries[name].summary}", shown)
