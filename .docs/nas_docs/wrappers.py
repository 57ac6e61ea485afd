"""The page of the wrappers."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import nas_gym.wrappers
from nas_docs import docstrings
from nas_docs.markdown import Page, code, join, table

_VECTOR = "Vector"


def pages() -> list[Page]:
    """Return the page: the package's docstring, an overview, a section a wrapper."""
    singles = [name for name in nas_gym.wrappers.__all__ if not _is_vector_form(name)]
    modules: dict[str, list[str]] = {}
    for name in sorted(singles, key=lambda one: getattr(nas_gym.wrappers, one).__module__):
        modules.setdefault(getattr(nas_gym.wrappers, name).__module__, []).append(name)
    rows = [
        (
            f"[{code(name)}](#{name.lower()})",
            code(_VECTOR + name) if _VECTOR + name in nas_gym.wrappers.__all__ else "",
            _parsed(name).summary,
        )
        for names in modules.values()
        for name in names
    ]
    sections = (part for module, names in modules.items() for part in _module(module, names))
    introduction = docstrings.parse(nas_gym.wrappers.__doc__).text
    overview = table(["Wrapper", "Vector form", "What it does"], rows)
    return [Page("wrappers", join("# Wrappers", introduction, overview, *sections))]


def _is_vector_form(name: str) -> bool:
    return name.startswith(_VECTOR) and name.removeprefix(_VECTOR) in nas_gym.wrappers.__all__


def _parsed(name: str) -> docstrings.Docstring:
    return docstrings.parse(getattr(nas_gym.wrappers, name).__doc__)


def _module(module: str, names: list[str]) -> Iterator[str]:
    """Return the sections of the wrappers of one module, under its title."""
    title = module.rpartition(".")[2]
    yield f"## {_TITLES.get(title, title.capitalize())}"
    yield docstrings.parse(importlib.import_module(module).__doc__).text
    for name in names:
        yield f"### {name}"
        yield _wrapper(name)
        if _VECTOR + name in nas_gym.wrappers.__all__:
            yield f"**{_VECTOR}{name}**: {_wrapper(_VECTOR + name)}"


_TITLES = {"sb3": "Stable-Baselines3"}


def _wrapper(name: str) -> str:
    wrapper = getattr(nas_gym.wrappers, name)
    return join(
        docstrings.to_markdown(_parsed(name)), docstrings.argument_table(docstrings.arguments(wrapper)[1:])
    ).strip()
