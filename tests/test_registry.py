"""Name -> factory: looked up lazily, missed helpfully."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import nas_gym
from nas_gym.datasets import DATASETS
from nas_gym.errors import InvalidArgument, MissingExtra, UnknownName
from nas_gym.registry import Entry, Registry, resolve
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

REGISTRIES = [nas_gym.SEARCH_SPACES, nas_gym.EVALUATORS, nas_gym.OBJECTIVES, nas_gym.NETWORKS, DATASETS]

every_entry = pytest.mark.parametrize(
    ("registry", "name"),
    [pytest.param(registry, name, id=f"{registry.kind} {name}") for registry in REGISTRIES for name in registry],
)


@pytest.fixture
def registry() -> Registry:
    """Return a registry of fruits."""
    return Registry(
        "fruit",
        {
            "pear": Entry("collections:OrderedDict", "a mapping"),
            "apple": Entry("collections:abc.Mapping", "an attribute of an attribute"),
            "unripe": Entry("nas_gym_module_that_does_not_exist:Fruit", "needs an extra", extra="train"),
            "rotten": Entry("nas_gym_module_that_does_not_exist:Fruit", "is broken"),
        },
    )


@every_entry
def test_every_registered_entry_can_be_called(registry: Registry, name: str) -> None:
    """Its target exists."""
    if registry.entries[name].extra:
        pytest.importorskip("torch")
    assert callable(registry[name])


@every_entry
def test_every_registered_entry_has_a_summary(registry: Registry, name: str) -> None:
    """One line for listings, without a full stop."""
    summary = registry.entries[name].summary
    assert summary
    assert "\n" not in summary
    assert not summary.endswith(".")


def test_a_name_gives_its_factory(registry: Registry) -> None:
    """The object that the target names."""
    from collections import OrderedDict

    assert registry["pear"] is OrderedDict


def test_a_target_may_be_an_attribute_of_an_attribute(registry: Registry) -> None:
    """Dots are followed."""
    assert registry["apple"] is Mapping


def test_a_registry_is_a_mapping_in_the_order_of_registration(registry: Registry) -> None:
    """Names, length and membership, without importing a target."""
    assert list(registry) == ["pear", "apple", "unripe", "rotten"]
    assert len(registry) == 4
    assert "rotten" in registry
    assert "plum" not in registry


def test_nothing_is_imported_before_it_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry costs nothing until it is used."""
    (tmp_path / "lazily_imported_fruit.py").write_text("Fruit = dict\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry("fruit", {"fig": Entry("lazily_imported_fruit:Fruit", "a file of the test")})
    before = "lazily_imported_fruit" in sys.modules
    assert registry["fig"] is dict
    assert (before, "lazily_imported_fruit" in sys.modules) == (False, True)


def test_a_miss_names_the_nearest_match_and_lists_the_rest(registry: Registry) -> None:
    """Kind, name, suggestion and all names."""
    with pytest.raises(UnknownName, match=r"unknown fruit 'peer'\. Did you mean 'pear'\? Known: apple, pear, rotten"):
        registry["peer"]


def test_a_miss_without_a_near_match_lists_all(registry: Registry) -> None:
    """A suggestion is made only where it is one."""
    with pytest.raises(UnknownName) as caught:
        registry["xyz"]
    assert str(caught.value) == "unknown fruit 'xyz'. Known: apple, pear, rotten, unripe."


def test_get_returns_the_default_on_a_miss(registry: Registry) -> None:
    """As every mapping does."""
    assert registry.get("plum", "default") == "default"


def test_a_module_and_class_of_somebody_else_are_accepted() -> None:
    """Third parties need no fork."""
    name = "nas_gym.search_spaces.nas_bench_201:NASBench201Space"
    assert nas_gym.SEARCH_SPACES[name] is NASBench201Space


def test_a_missing_extra_is_named_with_the_pip_command(registry: Registry) -> None:
    """Whoever has the base install learns what to type."""
    with pytest.raises(
        MissingExtra,
        match=r"the fruit 'unripe' needs .*no module named 'nas_gym_module_that.*pip install \"nas-gym\[train\]\"",
    ):
        registry["unripe"]


def test_a_broken_entry_of_the_base_install_is_not_blamed_on_an_extra(registry: Registry) -> None:
    """The original error comes through."""
    with pytest.raises(ModuleNotFoundError, match="nas_gym_module_that_does_not_exist"):
        registry["rotten"]


@pytest.mark.parametrize("target", ["", ":", "collections", "collections:", ":OrderedDict"])
def test_a_target_of_another_form_is_refused(target: str) -> None:
    """The message shows the form."""
    with pytest.raises(InvalidArgument, match="not of the form 'module:Class'"):
        resolve(target)


@pytest.mark.parametrize("target", ["collections:Missing", "collections:OrderedDict.missing"])
def test_an_attribute_that_a_module_lacks_is_named(target: str) -> None:
    """Module and attribute are in the message."""
    with pytest.raises(InvalidArgument, match="module 'collections' has no attribute"):
        resolve(target)
