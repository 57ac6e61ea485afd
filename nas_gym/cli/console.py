"""Where the commands write, and how they read ``key=value`` arguments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from nas_gym.errors import InvalidArgument

output = Console()
errors = Console(stderr=True)


def key_values(option: str, pairs: Sequence[str]) -> dict[str, Any]:
    """Return ``key=value`` strings as a dictionary; values are JSON, else strings.

    Raises:
        InvalidArgument: a string without "=", or a key given twice.

    >>> key_values("--env-arg", ["fidelity=3", "noise=sample"])
    {'fidelity': 3, 'noise': 'sample'}
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator or not key:
            raise InvalidArgument(f"{option} takes key=value, got {pair!r}.")
        if key in found:
            raise InvalidArgument(f"{option} got {key!r} twice.")
        try:
            found[key] = json.loads(text)
        except json.JSONDecodeError:
            found[key] = text
    return found
