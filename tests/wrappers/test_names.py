"""The public names of the package, which are imported when they are first used."""

from __future__ import annotations

import subprocess
import sys

import gymnasium
import pytest
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorWrapper

from nas_gym import wrappers

OURS = [name for name in wrappers.__all__ if name != "SB3VecEnv"]
SINGLES = [name for name in OURS if not name.startswith("Vector")]


def loaded_after(code: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after some code."""
    command = [sys.executable, "-W", "error", "-c", f"{code}\nimport sys; print(*sys.modules)"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.split())


@pytest.mark.parametrize("code", ["import nas_gym.wrappers", f"from nas_gym.wrappers import {', '.join(OURS)}"])
def test_the_wrappers_need_the_base_install_only(code: str) -> None:
    """Neither torch nor Stable-Baselines3 is loaded."""
    assert loaded_after(code).isdisjoint({"torch", "stable_baselines3", "sklearn", "matplotlib", "pygame"})


def test_the_package_imports_none_of_its_modules() -> None:
    """A module is imported with the first of its names."""
    found = {name for name in loaded_after("import nas_gym.wrappers") if name.startswith("nas_gym.wrappers.")}
    assert found == set()


def test_names_are_listed() -> None:
    """`dir` shows what can be imported, before it was."""
    assert set(wrappers.__all__) <= set(dir(wrappers))


def test_an_unknown_name_lists_the_known_ones() -> None:
    """A misspelled wrapper is no riddle."""
    with pytest.raises(AttributeError, match=r"'FlatOnehot'.*FlatOneHot"):
        _ = wrappers.FlatOnehot  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", SINGLES)
def test_every_wrapper_has_both_forms(name: str) -> None:
    """`X` is for single environments, `VectorX` for vectors, and both record their arguments first."""
    single, vector = getattr(wrappers, name), getattr(wrappers, f"Vector{name}")
    assert issubclass(single, gymnasium.Wrapper) and issubclass(vector, VectorWrapper)
    assert all(issubclass(form, RecordConstructorArgs) for form in (single, vector))
