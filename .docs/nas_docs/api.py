"""The reference of every public module, from its docstrings."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import itertools
import pkgutil
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from nas_docs import docstrings
from nas_docs.markdown import Page, code, join, table
from nas_gym.registration import ENVIRONMENTS
from nas_gym.registry import Registry, resolve

FOLDER = "api"
PACKAGES = ("nas_gym", "nas_agents", "nas_benchmarks")
_LEFT_OUT = ("nas_gym.cli",)
"""The command line has a page of its own."""


def pages() -> Iterator[Page]:
    """Return the overview and one page a module.

    The modules stand on the overview, not in the navigation: Sphinx writes the whole navigation on every page, which
    would take longer than everything else.
    """
    modules = {name: importlib.import_module(name) for package in PACKAGES for name in module_names(package)}
    sections = (_overview(package, modules) for package in PACKAGES)
    yield Page(f"{FOLDER}/index", join("# Python reference", *sections))
    for name, module in modules.items():
        yield Page(f"{FOLDER}/{name}", join("---\norphan: true\n---", _parents(name), _module(name, module)))


def _overview(package: str, modules: Mapping[str, ModuleType]) -> str:
    """Return the modules of a package in a table."""
    rows = [
        (f"[`{name}`]({name}.md)", docstrings.parse(module.__doc__).summary)
        for name, module in modules.items()
        if name.split(".")[0] == package
    ]
    return join(f"## {package}", table(["Module", "What it holds"], rows))


def _parents(name: str) -> str:
    """Return links to the overview and the packages that a module is in."""
    parts = name.split(".")
    packages = [".".join(parts[:end]) for end in range(1, len(parts))]
    return " / ".join(["[Python reference](index.md)", *(f"[{one}]({one}.md)" for one in packages)])


def module_names(package: str) -> list[str]:
    """Return the names of a package and its public modules, sorted."""
    found = importlib.import_module(package)
    inner = (one.name for one in pkgutil.walk_packages(found.__path__, f"{package}."))
    names = [package, *inner]
    return sorted(name for name in names if is_public(name))


def is_public(module: str) -> bool:
    """Tell whether a module has a page."""
    return not any(part.startswith("_") for part in module.split(".")) and not module.startswith(_LEFT_OUT)


def _module(name: str, module: ModuleType) -> str:
    return join(
        f"# {name}",
        f":::{{py:module}} {name}\n:::",
        docstrings.to_markdown(docstrings.parse(module.__doc__)),
        _exports(module),
        *(_data(label, text) for label, text in _documented_names(module)),
        *(_described(label, one) for label, one in _members(module)),
    )


def _exports(module: ModuleType) -> str:
    """Return the names that a package offers from its modules."""
    rows = []
    for name in getattr(module, "__all__", ()):
        origin = getattr(getattr(module, name), "__module__", None)
        if origin not in (None, module.__name__) and str(origin).startswith(PACKAGES):
            described = f"[`{origin}`](/{FOLDER}/{origin}.md)" if is_public(origin) else code(origin)
            rows.append((code(name), described))
    return table(["Public name", "Described in"], rows) if rows else ""


def _members(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Iterate over the public classes and functions that a module defines, in its order."""
    for name, one in vars(module).items():
        if name.startswith("_") or isinstance(one, Registry) or getattr(one, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(one) or inspect.isroutine(inspect.unwrap(one)):
            yield name, one


def _documented_names(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Iterate over the public names with a docstring below their assignment."""
    # `inspect.getsource` refuses an empty file.
    body = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")).body
    for statement, following in itertools.pairwise(body):
        text = _text(following)
        if text is None or not isinstance(statement, ast.Assign | ast.AnnAssign):
            continue
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        yield from ((name, text) for name in names if not name.startswith("_"))


def _text(statement: ast.stmt) -> str | None:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return statement.value.value if isinstance(statement.value.value, str) else None
    return None


# --- directives ----------------------------------------------------------------------------------------


def _directive(kind: str, head: str, body: str, *options: str, outer: bool = False) -> str:
    colons = ":" * (8 if outer else 6)
    return "\n".join([f"{colons}{{py:{kind}}} {head}", *options, "", body.strip(), colons])


def _data(name: str, text: str) -> str:
    return _directive("data", name, docstrings.to_markdown(docstrings.parse(text)))


def _described(name: str, one: Any) -> str:  # noqa: ANN401 - a class or a function
    if not inspect.isclass(one):
        return _directive("function", f"{name}{signature(one)}", _body(one))
    members = (_method(label, member) for label, member in vars(one).items() if not label.startswith("_"))
    own = join(_body(one), *members)
    kind = "exception" if issubclass(one, BaseException) else "class"
    return join(f"## {name}", _directive(kind, f"{name}{signature(one)}", own, outer=True))


def _body(one: Any) -> str:  # noqa: ANN401 - a class or a function
    """Return the docstring; of an environment its beginning and a link to its page."""
    if one in _environments():
        return join(
            docstrings.parse(one.__doc__).summary,
            f"See [{_environments()[one]}](/environments/{_environments()[one]}.md).",
        )
    found = docstrings.to_markdown(docstrings.parse(one.__doc__))
    if not inspect.isclass(one) or "__init__" not in vars(one):
        return found
    made = docstrings.parse(one.__init__.__doc__)
    return join(found, docstrings.to_markdown(docstrings.Docstring("", made.sections, {})))


@functools.lru_cache(maxsize=1)
def _environments() -> dict[Any, str]:
    return {
        resolve(entry_point): name
        for name, row in ENVIRONMENTS.items()
        for entry_point in (row.entry_point, row.vector_entry_point)
    }


def _method(name: str, member: object) -> str:
    """Return a method or property of a class; nothing for what needs no description of its own."""
    found = _unwrapped(member)
    if found is None or not found[1].__doc__:
        return ""
    kind, function, options = found
    head = name if kind == "property" else f"{name}{signature(function, bound='staticmethod' not in options)}"
    body = docstrings.to_markdown(docstrings.parse(function.__doc__))
    return _directive(kind, head, body, *(f":{option}:" for option in options))


def _unwrapped(member: object) -> tuple[str, Any, tuple[str, ...]] | None:
    """Return the kind of a member, its function and the options of its directive; None for data."""
    if isinstance(member, functools.cached_property):
        return "property", member.func, ()
    if isinstance(member, property):
        return "property", member.fget, ()
    if isinstance(member, classmethod):
        return "method", member.__func__, ("classmethod",)
    if isinstance(member, staticmethod):
        return "method", member.__func__, ("staticmethod",)
    return ("method", member, ()) if inspect.isfunction(inspect.unwrap(member)) else None  # type: ignore[arg-type]


class _Raw:
    """Something that `inspect` prints as it is."""

    def __init__(self, text: str) -> None:
        """Keep the text."""
        self.text = text

    def __repr__(self) -> str:
        """Return the text."""
        return self.text


def signature(function: Any, bound: bool = False) -> str:  # noqa: ANN401 - a class or a function
    """Return parameters and result as they are written, without quotes around annotations.

    Args:
        function: what is called.
        bound: whether the first parameter is the object or class itself, and left out.
    """
    try:
        found = inspect.signature(function)
    except (TypeError, ValueError):
        return ""
    names = getattr(function, "__globals__", None) or vars(inspect.getmodule(function))
    parameters = [
        one.replace(
            annotation=one.annotation if one.annotation is one.empty else _annotation(one.annotation, names),
            default=one.default if one.default is one.empty else _Raw(docstrings.shown(one.default)),
        )
        for one in list(found.parameters.values())[1 if bound else 0 :]
    ]
    result = found.return_annotation
    if result is inspect.Signature.empty or inspect.isclass(function):
        return str(inspect.Signature(parameters))
    return str(inspect.Signature(parameters, return_annotation=_annotation(result, names)))


def _annotation(annotation: Any, names: Mapping[str, Any]) -> _Raw:  # noqa: ANN401 - any annotation
    """Return an annotation in which our own classes have their full names, so that they are linked; ``~`` hides it."""

    def full(match: re.Match[str]) -> str:
        one = names.get(match[0])
        if inspect.isclass(one) and one.__module__.startswith(PACKAGES) and is_public(one.__module__):
            return f"~{one.__module__}.{one.__qualname__}"
        return match[0]

    return _Raw(re.sub(r"(?<![\w.\"'])[A-Z]\w*(?![\w.\"'])", full, docstrings.written(annotation)))
