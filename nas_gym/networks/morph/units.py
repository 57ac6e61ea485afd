"""Which unit of the parent every unit of the child repeats.

A unit is an output channel of a convolution or a neuron of a linear layer.
Source: Chen, Goodfellow & Shlens, Net2Net, ICLR 2016, arXiv 1511.05641, section 2.2 (the random mapping g).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np

from nas_gym.networks.morph.errors import MorphError


@dataclass(frozen=True)
class UnitMap:
    """Unit j of the child repeats unit ``source[j]`` of the parent.

    Attributes:
        source: parent unit of every child unit; every parent unit occurs at least once.
        parents: number of units of the parent.
    """

    source: tuple[int, ...]
    parents: int

    def __post_init__(self) -> None:
        """Check that no unit of the parent is lost.

        Raises:
            MorphError: a unit that the parent does not have, or one that nothing repeats.
        """
        found = set(self.source)
        missing = sorted(set(range(self.parents)) - found)
        foreign = sorted(found - set(range(self.parents)))
        if missing or foreign:
            problem = f"unit {foreign[0]} does not exist" if foreign else f"unit {missing[0]} is repeated by none"
            raise MorphError(
                f"a map from {self.parents} units to {len(self.source)}: {problem}. "
                f"Every unit of 0..{self.parents - 1} must occur at least once and no other may."
            )

    @classmethod
    def identity(cls, units: int) -> UnitMap:
        """Return the map that changes nothing."""
        return cls(tuple(range(units)), units)

    @classmethod
    def join(cls, maps: Sequence[UnitMap]) -> UnitMap:
        """Return the map of concatenated units.

        >>> UnitMap.join([UnitMap((0, 1, 0), 2), UnitMap.identity(2)])
        UnitMap(source=(0, 1, 0, 2, 3), parents=4)
        """
        offsets = accumulate((one.parents for one in maps), initial=0)
        source = tuple(unit + offset for one, offset in zip(maps, offsets, strict=False) for unit in one.source)
        return cls(source, sum(one.parents for one in maps))

    @property
    def width(self) -> int:
        """Number of units of the child."""
        return len(self.source)

    @cached_property
    def is_identity(self) -> bool:
        """Whether nothing changes."""
        return self.source == tuple(range(self.parents))

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """How many units of the child repeat the same one as unit j does, j included.

        >>> UnitMap((0, 1, 0), 2).counts
        (2, 1, 2)
        """
        occurrences = Counter(self.source)
        return tuple(occurrences[unit] for unit in self.source)

    @cached_property
    def added(self) -> tuple[int, ...]:
        """Units of the child that are not the first to repeat theirs.

        >>> UnitMap((0, 0, 1, 0), 2).added
        (1, 3)
        """
        first: dict[int, int] = {}
        for unit, source in enumerate(self.source):
            first.setdefault(source, unit)
        return tuple(unit for unit, source in enumerate(self.source) if first[source] != unit)

    def spread(self, size: int) -> UnitMap:
        """Return the map after every unit became `size` consecutive ones, as flattening an image does.

        >>> UnitMap((0, 1, 0), 2).spread(2).source
        (0, 1, 2, 3, 0, 1)
        """
        source = tuple(unit * size + position for unit in self.source for position in range(size))
        return UnitMap(source, self.parents * size)

    def gather(self, size: int) -> UnitMap:
        """Return the map whose `spread` this is.

        Raises:
            MorphError: there is none.
        """
        units = tuple(unit // size for unit in self.source[::size])
        if self.parents % size or self.width % size or UnitMap(units, self.parents // size).spread(size) != self:
            raise MorphError(f"the map does not keep the {size} positions of a flattened channel together.")
        return UnitMap(units, self.parents // size)

    def split(self, widths: Sequence[int]) -> tuple[UnitMap, ...]:
        """Return the maps of consecutive segments of the parent's units, the inverse of `join`.

        Args:
            widths: units of the segments in the parent, `parents` in total.

        Raises:
            MorphError: a unit of one segment is repeated inside another.

        >>> [one.source for one in UnitMap((0, 1, 0, 2, 3), 4).split([2, 2])]
        [(0, 1, 0), (0, 1)]
        """
        bounds = list(accumulate(widths, initial=0))
        segments = np.searchsorted(bounds, self.source, side="right") - 1
        if np.any(np.diff(segments) < 0):
            raise MorphError(
                f"the map repeats units across the segments of {', '.join(map(str, widths))} units, "
                "where every segment must keep its own."
            )
        return tuple(
            UnitMap(tuple(unit - start for unit in self.source if start <= unit < stop), stop - start)
            for start, stop in pairwise(bounds)
        )


def replication_map(units: int, width: int, rng: np.random.Generator, groups: int = 1) -> UnitMap:
    """Draw which units are repeated: all of them once in their order, then some uniformly with replacement.

    Args:
        units: of the parent.
        width: units of the child.
        rng: drawn from once per group, `(width - units) / groups` integers each.
        groups: consecutive, equally large groups of units that may not mix, as grouped convolutions demand.

    Raises:
        MorphError: fewer units than before, or numbers that `groups` does not divide.
    """
    if width < units:
        raise MorphError(f"a layer of {units} units cannot be widened to {width}: the width must be at least {units}.")
    if units % groups or width % groups:
        raise MorphError(
            f"a layer of {units} units with {groups} groups cannot be widened to {width}: "
            f"both numbers must be divisible by {groups}, the number of groups."
        )
    size, added = units // groups, (width - units) // groups
    if groups == 1:
        return UnitMap((*range(units), *map(int, rng.integers(units, size=added))), units)
    return UnitMap.join([replication_map(size, size + added, rng) for _ in range(groups)])
