"""How a parent is named: by its content, its file, or the search that found it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nas_gym.errors import InvalidArgument
from nas_gym.evaluators.parents import artifact_file, find_parent

HASH = "0123456789abcdef" * 2


def put(store: Path) -> Path:
    """Put a file of weights beside a store."""
    path = artifact_file(store, HASH)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    return path


def finish(run: Path, best: dict[str, Any] | None, **env_args: Any) -> None:
    """Write what a finished search leaves."""
    run.mkdir(exist_ok=True)
    (run / "summary.json").write_text(json.dumps({"best": best}))
    (run / "config.json").write_text(json.dumps({"env_args": env_args}))


def test_a_content_hash_is_a_file_of_the_store(tmp_path: Path) -> None:
    """Beside it."""
    store = tmp_path / "store.sqlite"
    assert put(store) == find_parent(HASH, store)


def test_a_path_is_itself(tmp_path: Path) -> None:
    """Whatever it is called."""
    (tmp_path / "file").touch()
    assert find_parent(str(tmp_path / "file")) == tmp_path / "file"


def test_a_search_stands_for_its_best_network(tmp_path: Path) -> None:
    """Whose weights its own store has."""
    finish(tmp_path, {"artifact": HASH})
    assert put(tmp_path / "store.sqlite") == find_parent(str(tmp_path))


def test_a_search_may_have_another_store(tmp_path: Path) -> None:
    """Named by its arguments."""
    finish(tmp_path, {"artifact": HASH}, store=str(tmp_path / "elsewhere.sqlite"))
    assert put(tmp_path / "elsewhere.sqlite") == find_parent(str(tmp_path))


@pytest.mark.parametrize("best", [None, {}, {"artifact": None}, {"artifact": "../../etc"}], ids=repr)
def test_a_search_without_weights_is_refused(tmp_path: Path, best: dict[str, Any] | None) -> None:
    """With the reasons there may be."""
    finish(tmp_path, best)
    with pytest.raises(InvalidArgument, match=r"summary\.json names no weights of the best network"):
        find_parent(str(tmp_path))


def test_a_search_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    """It has no best network yet."""
    with pytest.raises(InvalidArgument, match=r"summary\.json cannot be read.*must name a finished search"):
        find_parent(str(tmp_path))


def test_weights_that_are_gone_name_the_file(tmp_path: Path) -> None:
    """Of a hash, a path and a search."""
    finish(tmp_path / "run", {"artifact": HASH})
    store = tmp_path / "store.sqlite"
    expected = {
        HASH: artifact_file(store, HASH),
        str(tmp_path / "none"): tmp_path / "none",
        str(tmp_path / "run"): artifact_file(tmp_path / "run" / "store.sqlite", HASH),
    }
    for parent, file in expected.items():
        with pytest.raises(InvalidArgument) as caught:
            find_parent(parent, store)
        assert f"the parent's weights are gone: there is no file {file}" in str(caught.value)


def test_a_content_hash_needs_a_store() -> None:
    """The message says how to name it."""
    with pytest.raises(InvalidArgument, match="needs the store that has it; name it with store=PATH"):
        find_parent(HASH)


@pytest.mark.parametrize("parent", ["", 3], ids=repr)
def test_what_names_nothing_is_refused(parent: Any) -> None:
    """With what is allowed."""
    with pytest.raises(InvalidArgument, match="parent must be the content hash"):
        find_parent(parent)
