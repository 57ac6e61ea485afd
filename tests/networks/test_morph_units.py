"""Which units repeat which: maps, their joints and their draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_gym.networks.morph import MorphError, UnitMap, replication_map


def drawn(units: int, width: int, seed: int = 0, groups: int = 1) -> UnitMap:
    """Return a random map."""
    return replication_map(units, width, np.random.default_rng(seed), groups)


widths = st.tuples(st.integers(1, 8), st.integers(0, 8), st.integers(0, 99))
maps = widths.map(lambda drawn_: drawn(drawn_[0], drawn_[0] + drawn_[1], drawn_[2]))


@given(widths)
def test_the_first_units_are_the_parents(numbers: tuple[int, int, int]) -> None:
    """g(j) = j for the old units, any old unit for the new ones (Net2Net, section 2.2)."""
    units, added, seed = numbers
    source = drawn(units, units + added, seed).source
    assert source[:units] == tuple(range(units))
    assert len(source) == units + added
    assert set(source[units:]) <= set(range(units))


def test_repeated_units_are_drawn_uniformly_with_replacement() -> None:
    """Of 40,000 draws among 4 units each gets a quarter, within five standard deviations."""
    counts = np.bincount(drawn(4, 40_004).source[4:], minlength=4)
    assert np.abs(counts - 10_000).max() < 5 * np.sqrt(40_000 * 0.25 * 0.75)


def test_the_generator_decides_the_draw() -> None:
    """The same seed gives the same map, another one another."""
    assert drawn(5, 20) == drawn(5, 20)
    assert drawn(5, 20) != drawn(5, 20, seed=1)


@given(maps)
def test_counts_are_the_repetitions(units: UnitMap) -> None:
    """Checked one by one."""
    assert units.counts == tuple(units.source.count(unit) for unit in units.source)


@given(maps)
def test_dividing_by_the_counts_shares_every_unit_out(units: UnitMap) -> None:
    """The shares of the units that repeat the same one sum to 1."""
    shares = np.zeros(units.parents)
    np.add.at(shares, list(units.source), 1 / np.array(units.counts))
    np.testing.assert_allclose(shares, 1)


@given(maps)
def test_added_units_are_those_that_repeat_an_earlier_one(units: UnitMap) -> None:
    """Checked one by one."""
    assert units.added == tuple(j for j, unit in enumerate(units.source) if unit in units.source[:j])


@given(st.lists(maps, min_size=1, max_size=4))
def test_splitting_undoes_joining(parts: list[UnitMap]) -> None:
    """Segments come back as they went in."""
    assert UnitMap.join(parts).split([one.parents for one in parts]) == tuple(parts)


@given(maps, st.integers(1, 5))
def test_gathering_undoes_spreading(units: UnitMap, size: int) -> None:
    """Pixels of a channel stay together."""
    assert units.spread(size).gather(size) == units


def test_a_map_that_separates_the_pixels_of_a_channel_cannot_be_gathered() -> None:
    """Feature 0 alone is half a channel."""
    with pytest.raises(MorphError, match="does not keep the 2 positions of a flattened channel together"):
        UnitMap((0, 1, 2, 3, 0, 3), 4).gather(2)


def test_a_map_across_segments_cannot_be_split() -> None:
    """Unit 0 of the first segment is repeated behind the second."""
    with pytest.raises(MorphError, match="repeats units across the segments of 1, 2 units"):
        UnitMap((0, 1, 2, 0), 3).split([1, 2])


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 4), st.integers(0, 99))
def test_groups_do_not_mix(groups: int, size: int, added: int, seed: int) -> None:
    """Every group keeps its own units and they stay equally many."""
    units = drawn(groups * size, groups * (size + added), seed, groups)
    parts = units.split([size] * groups)
    assert [one.width for one in parts] == [size + added] * groups


@pytest.mark.parametrize(
    ("source", "parents", "message"),
    [
        pytest.param((0, 2), 3, "from 3 units to 2: unit 1 is repeated by none", id="lost"),
        pytest.param((0, 1, 2), 2, "from 2 units to 3: unit 2 does not exist", id="foreign"),
        pytest.param((0, -1), 1, "from 1 units to 2: unit -1 does not exist", id="negative"),
    ],
)
def test_no_unit_is_lost_or_invented(source: tuple[int, ...], parents: int, message: str) -> None:
    """Either would change the function."""
    with pytest.raises(MorphError, match=message):
        UnitMap(source, parents)


@pytest.mark.parametrize(
    ("units", "width", "groups", "message"),
    [
        pytest.param(4, 3, 1, "of 4 units cannot be widened to 3: the width must be at least 4", id="narrower"),
        pytest.param(4, 7, 2, "of 4 units with 2 groups cannot be widened to 7: both numbers", id="uneven child"),
        pytest.param(5, 8, 2, "of 5 units with 2 groups cannot be widened to 8: both numbers", id="uneven parent"),
    ],
)
def test_widths_that_do_not_fit(units: int, width: int, groups: int, message: str) -> None:
    """The message names both widths and the rule."""
    with pytest.raises(MorphError, match=message):
        drawn(units, width, groups=groups)
