"""Name -> factory, resolved on first use, with did-you-mean; accepts ``module:Class`` everywhere."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nas_gym.errors import InvalidArgument, MissingExtra, UnknownName


@dataclass(frozen=True)
class Entry:
    """One row of a registry.

    Attributes:
        target: ``"module:attribute"``, imported when the entry is first used.
        summary: one line for listings.
        extra: the extra of this distribution that the target needs, None for the base install.
    """

    target: str
    summary: str
    extra: str | None = None


class Registry(Mapping[str, Any]):
    """An immutable mapping from name to factory; nothing is imported before it is looked up.

    >>> from nas_gym import SEARCH_SPACES
    >>> SEARCH_SPACES["nas_bench_201"]().size()
    15625
    """

    def __init__(self, kind: str, entries: Mapping[str, Entry]) -> None:
        """Create the registry.

        Args:
            kind: what it holds, in the singular, for messages ("agent").
            entries: the rows.
        """
        self.kind = kind
        self.entries = dict(entries)

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - a registry holds any kind of factory
        """Return the factory called `name`, or the one that a ``module:attribute`` string names.

        Raises:
            UnknownName: no such entry.
            MissingExtra: the entry needs an extra that is not installed.
        """
        if name in self.entries:
            entry = self.entries[name]
            try:
                return resolve(entry.target)
            except ImportError as error:
                if entry.extra is None or isinstance(error, MissingExtra):
                    raise
                raise MissingExtra(f"the {self.kind} {name!r}", entry.extra, error) from error
        if ":" in str(name):
            return resolve(name)
        raise UnknownName(self.kind, name, self.entries)

    def __contains__(self, name: object) -> bool:
        """Tell whether a row of this name exists, without importing its target."""
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in the order of registration."""
        return iter(self.entries)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.entries)


def resolve(target: str) -> Any:  # noqa: ANN401 - any object can be named
    """Import ``"module:attribute"``.

    Raises:
        InvalidArgument: the string has another form, or the module lacks the attribute.
        ImportError: the module cannot be imported.
    """
    module_name, separator, attribute = target.partition(":")
    if not separator or not module_name or not attribute:
        raise InvalidArgument(f"{target!r} is not of the form 'module:Class', e.g. 'my_package.my_module:MyClass'.")
    value: Any = importlib.import_module(module_name)
    for part in attribute.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            raise InvalidArgument(f"module {module_name!r} has no attribute {attribute!r} (from {target!r}).") from None
    return value
