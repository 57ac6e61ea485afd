"""Where the weights of a parent are: in a store, in a file, or in what an earlier search left."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from nas_gym.errors import InvalidArgument

_ARTIFACT = re.compile(r"[0-9a-f]{32}")


def find_parent(parent: str, store: Path | None = None) -> Path:
    """Return the file of a parent's weights.

    Args:
        parent: content hash of weights in `store`, the ``artifact`` of an answer; or the path of a file of weights; or
            the directory of a finished search, whose best network is meant.
        store: the evaluation store, a ``.sqlite`` file.

    Raises:
        InvalidArgument: there is no such file, or the search kept no weights; names what was looked for.
    """
    if not isinstance(parent, str) or not parent:
        raise InvalidArgument(
            f"parent must be the content hash of weights in the store, the path of a file of weights or of the "
            f"directory of a finished search, got {parent!r}."
        )
    if _ARTIFACT.fullmatch(parent):
        return _in_store(parent, store)
    path = Path(parent)
    path = _best_of(path) if path.is_dir() else path
    if not path.is_file():
        raise InvalidArgument(f"the parent's weights are gone: there is no file {path}. Check parent = {parent!r}.")
    return path


def artifact_file(store: Path, artifact: str) -> Path:
    """Return where the weights of a content hash are, whether they are there or not."""
    return store.with_suffix(".artifacts") / artifact[:2] / artifact


def _in_store(artifact: str, store: Path | None) -> Path:
    if store is None:
        raise InvalidArgument(
            f"parent = {artifact!r} is a content hash, which needs the store that has it; name it with store=PATH, or "
            "give the path of the file."
        )
    path = artifact_file(store, artifact)
    if not path.is_file():
        raise InvalidArgument(f"the parent's weights are gone: there is no file {path}. Check parent and store.")
    return path


def _best_of(run: Path) -> Path:
    """Return the file of the best network of a finished search."""
    best = (_content(run / "summary.json").get("best") or {}).get("artifact")
    if not isinstance(best, str) or not _ARTIFACT.fullmatch(best):
        raise InvalidArgument(
            f"{run / 'summary.json'} names no weights of the best network: the search kept none (cache_mb=0), trains "
            "no networks that inherit weights, or is not finished. Name a file of weights, or begin at its layers "
            "untrained with network=..."
        )
    store = (_content(run / "config.json").get("env_args") or {}).get("store")
    return artifact_file(Path(store) if store else run / "store.sqlite", best)


def _content(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{path} cannot be read: {error}. parent must name a finished search.") from None
    return found if isinstance(found, dict) else {}
