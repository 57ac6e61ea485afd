"""Imports point down: read from the source of every module in the tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"nas_gym": "nas_gym", "agents": "nas_agents", "benchmarks": "nas_benchmarks"}
"""Import name of every package folder."""

LAYERS: tuple[tuple[str, ...], ...] = (
    ("nas_gym.errors", "nas_gym.files", "nas_gym.registry"),
    ("nas_gym.search_spaces",),
    (
        "nas_gym.evaluators.core",
        "nas_gym.evaluators.decorators",
        "nas_gym.tables.format",
        "nas_gym.tables.quality",
        "nas_gym.datasets",
    ),
    ("nas_gym.objectives", "nas_gym.rendering"),
    ("nas_gym.networks",),
    ("nas_gym.evaluators",),
    ("nas_gym.tables",),
    ("nas_gym.envs.core",),
    ("nas_gym.envs",),
    ("nas_gym.wrappers",),
    ("nas_gym.registration", "nas_gym.testing"),
    ("nas_gym",),
    ("nas_agents",),
    ("nas_benchmarks",),
    ("nas_gym.cli",),
)
"""Modules and packages from the bottom up; the longest matching name decides."""


@dataclass(frozen=True)
class Import:
    """One import statement.

    Attributes:
        importer: dotted name of the module that contains it.
        imported: dotted name of the module that is imported.
        line: where it stands.
    """

    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        """Return it as a test failure should show it."""
        return f"{self.importer}:{self.line} imports {self.imported}"


def source_files() -> dict[str, Path]:
    """Return every module of the project by its dotted name."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = [package, *path.relative_to(ROOT / folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = source_files()


def imports(module: str) -> Iterator[Import]:
    """Iterate over a module's imports of this project, those inside functions included."""
    is_package = MODULES[module].name == "__init__.py"
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = origin(module, is_package, node)
            # `from package import module` imports the module.
            names = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names]
        else:
            continue
        yield from (Import(module, name, node.lineno) for name in names if name.split(".")[0] in FOLDERS.values())


def origin(module: str, is_package: bool, node: ast.ImportFrom) -> str:
    """Return the absolute name of what a `from` statement imports from."""
    if node.level == 0:
        return node.module or ""
    parts = module.split(".")
    parents = parts[: len(parts) - node.level + (1 if is_package else 0)]
    return ".".join([*parents, *([node.module] if node.module else [])])


ALL_IMPORTS = [found for module in MODULES for found in imports(module)]


def inside(module: str, package: str) -> bool:
    """Tell whether a module is a package or inside it."""
    return module == package or module.startswith(f"{package}.")


def layer(module: str) -> int:
    """Return the number of a module's layer."""
    matches = [(len(name), level) for level, names in enumerate(LAYERS) for name in names if inside(module, name)]
    return max(matches)[1]


def is_algorithm(module: str) -> bool:
    """Tell whether a module is one algorithm, not the core that all share."""
    return inside(module, "nas_agents") and module != "nas_agents" and not inside(module, "nas_agents.core")


def offences(importers: str, *packages: str) -> list[str]:
    """Return the imports of any of `packages` inside `importers`."""
    return [
        str(found)
        for found in ALL_IMPORTS
        if inside(found.importer, importers) and any(inside(found.imported, package) for package in packages)
    ]


def test_the_reader_sees_the_project() -> None:
    """Known imports, one absolute, one relative and one of a submodule, are among those found."""
    known = {(found.importer, found.imported) for found in ALL_IMPORTS}
    assert known >= {
        ("nas_gym.envs.cell", "nas_gym.envs.core.construction"),
        ("nas_agents.random_search", "nas_agents.core.base"),
        ("nas_gym.evaluators.child", "nas_gym.networks"),
    }


@pytest.mark.parametrize("module", list(MODULES))
def test_imports_point_down(module: str) -> None:
    """A module imports from its own layer and those below."""
    found = [one for one in ALL_IMPORTS if one.importer == module]
    assert [str(one) for one in found if layer(one.imported) > layer(module)] == []


def test_the_library_knows_neither_agents_nor_benchmarks() -> None:
    """Within `nas_gym`, the command line alone imports them."""
    found = offences("nas_gym", "nas_agents", "nas_benchmarks")
    assert [offence for offence in found if not offence.startswith("nas_gym.cli")] == []


def test_agents_know_neither_evaluators_nor_objectives() -> None:
    """An agent sees arrays and masks."""
    assert offences("nas_agents", "nas_gym.evaluators", "nas_gym.objectives") == []


def test_agents_know_no_concrete_space() -> None:
    """An agent sees the protocol of `search_spaces.core` only."""
    abstract = {"nas_gym.search_spaces", "nas_gym.search_spaces.core"}
    concrete = {name for name in MODULES if inside(name, "nas_gym.search_spaces")} - abstract
    assert offences("nas_agents", *concrete) == []


def test_algorithms_do_not_import_each_other() -> None:
    """What two algorithms share is in the core."""
    pairs = [found for found in ALL_IMPORTS if is_algorithm(found.importer) and is_algorithm(found.imported)]
    assert [str(found) for found in pairs if found.importer != found.imported] == []


def test_benchmarks_do_not_import_the_command_line() -> None:
    """The command line is the top of the stack."""
    assert offences("nas_benchmarks", "nas_gym.cli") == []
