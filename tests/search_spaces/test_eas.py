"""EAS's grammars: what may grow, what results, and which episodes lead to the same network."""

from __future__ import annotations

from collections import defaultdict
from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_gym.errors import InvalidArgument
from nas_gym.search_spaces import Encoding, make_space
from nas_gym.search_spaces.eas import PAPER, SMALL, EASDenseSpace, EASSpace
from nas_gym.search_spaces.growing import BLOCK, KERNEL, POSITION, WIDER, Deepen, TransformSpace, Widen

TINY: dict[str, Any] = {
    "blocks": ((8, 8),),
    "units": (),
    "wider": 1,
    "deeper": 2,
    "filter_levels": (8, 16),
    "kernels": (1, 3),
    "max_layers": 4,
}
"""A block of two convolutions, in which layers that were put in look like those that were there."""

tiny = EASSpace(**TINY)
demo = EASSpace()
small = EASSpace(**SMALL)
dense = EASDenseSpace()
every_space = pytest.mark.parametrize("space", [demo, small, EASSpace(**PAPER), dense, tiny], ids=lambda s: s.name)
seeds = st.integers(0, 2**32 - 1)


def draw(space: TransformSpace, seed: int) -> Encoding:
    """Return an episode of uniform decisions."""
    return space.sample(np.random.default_rng(seed))


def kinds(space: TransformSpace, encoding: Encoding) -> list[int]:
    """Return the kinds of an episode's decisions."""
    return [space.junction(encoding[:length]).kind for length in range(len(encoding))]


def tokens(space: TransformSpace, prefix: Encoding) -> list[int]:
    """Return what is observed."""
    return space.observe(*space.pack([prefix]))[0].tolist()


# --- the episode -----------------------------------------------------------------------------------


def test_the_released_code_takes_four_wider_and_five_deeper_steps() -> None:
    """Five layers are asked in each wider step; an insertion takes two or three decisions."""
    found = kinds(demo, draw(demo, 0))
    assert found[:20] == [WIDER] * 20
    assert (found.count(WIDER), found.count(BLOCK), found.count(POSITION)) == (20, 5, 5)


@given(seed=seeds)
def test_only_convolutions_have_a_kernel_to_choose(seed: int) -> None:
    """One decision about a kernel for every layer that is put in outside the last block."""
    encoding = draw(demo, seed)
    transforms = demo.decode(encoding).transforms
    inserted = [one for one in transforms if isinstance(one, Deepen) and one.block < 4]
    assert kinds(demo, encoding).count(KERNEL) == len(inserted)


def test_a_dense_layer_has_no_kernel_to_choose() -> None:
    """Ten wider steps over three layers, then five times block and position."""
    assert kinds(dense, draw(dense, 0)) == [WIDER] * 30 + [BLOCK, POSITION] * 5


def test_wider_takes_the_next_level() -> None:
    """16 becomes 32, 256 becomes 384."""
    paper = EASSpace(**{**PAPER, "wider": 1, "deeper": 1})
    assert str(paper.decode((1, 0, 0, 0, 1, 0, 0, 2))) == "C32x3 C32x5 P C32x3 P C64x3 P C128x3 A F384"


def test_an_inserted_layer_is_as_wide_as_the_one_before() -> None:
    """Also where that one was put in itself."""
    assert str(small.decode((1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 2, 0))) == "C16x3 C16x3 C16x1 P C16x3 A F16 F16"


def test_transforms_are_in_order_with_their_steps() -> None:
    """What is played is what the weights go through."""
    found = small.decode((0, 1, 0, 0, 1, 0, 2, 0, 0, 0, 2, 2, 0)).transforms
    assert found[:2] == (Widen(0, 1, 0, 24), Widen(1, 1, 0, 32))
    assert found[2:] == (Deepen(2, 2, 0, 0), Deepen(3, 0, 0, 5), Deepen(4, 2, 0, 0))


# --- masks -----------------------------------------------------------------------------------------


def test_a_layer_of_the_largest_width_stays() -> None:
    """The second wider step may not widen what the first brought to the top."""
    space = EASSpace(**{**TINY, "wider": 2})
    assert [space.junction((1, 0)[:n]).legal[:2] for n in range(2)] == [[True, True], [True, True]]
    assert space.junction((1, 0)).legal[:2] == [True, False]


def test_a_full_block_takes_no_more() -> None:
    """Two blocks of at most two layers: the second insertion goes elsewhere."""
    space = EASSpace(blocks=((8,), (8,)), units=(), wider=0, deeper=2, filter_levels=(8,), max_layers=2)
    assert space.junction(()).legal == [True, True, False]
    assert space.junction((0, 0, 1)).legal == [False, True, False]


@pytest.mark.parametrize(("prefix", "legal"), [((0, 0, 0), 2), ((0, 0, 0, 1, 0, 0), 3)])
def test_positions_are_those_of_the_layers_there(prefix: Encoding, legal: int) -> None:
    """Behind every layer of the block, the inserted ones included."""
    space = EASSpace(**{**TINY, "deeper": 2})
    assert sum(space.junction(prefix[:3] if legal == 2 else (0, 0, 0, 1, 0, 0)).legal) == legal


# --- what is seen ----------------------------------------------------------------------------------


def test_the_start_network_is_seen_before_the_first_decision() -> None:
    """Step 0, asked about the first layer; five layers and four poolings, the rest is padding."""
    paper = EASSpace(**PAPER)
    found = tokens(paper, ())
    assert found[:4] == [0, 1, 0, 0]
    levels = [paper.filter_levels.index(width) for width in (16, 32, 64, 128)]
    convolutions = [2 + 3 * level + 1 for level in levels]
    units = 2 + 3 * len(paper.filter_levels) + paper.unit_levels.index(256)
    first, second, third, fourth = convolutions
    assert found[4:] == [first, 1, second, 1, third, 1, fourth, 1, units, 0, 0, 0, 0, 0]


def test_decisions_are_seen_in_the_network_at_once() -> None:
    """The first layer is wider as soon as it was decided, and the second is asked about."""
    before, after = tokens(small, (0,)), tokens(small, (1,))
    assert [index for index, (one, two) in enumerate(zip(before, after, strict=True)) if one != two] == [4]
    assert after[1] == 3


@every_space
@given(seed=seeds)
def test_the_focus_is_the_layer_that_grows_or_is_followed(space: TransformSpace, seed: int) -> None:
    """Widening changes the token in focus and no other; a kernel is asked behind it."""
    encoding = draw(space, seed)
    for length, kind in enumerate(kinds(space, encoding)):
        prefix = encoding[:length]
        focus = space.focus(prefix)
        assert (focus is None) == (kind in (BLOCK, POSITION))
        if focus is not None:
            assert tokens(space, prefix)[1] == focus - 4 + 1
            assert tokens(space, prefix)[focus] > 1
        if kind == WIDER and space.junction(prefix).legal[1]:
            changed = np.flatnonzero(np.array(tokens(space, prefix)) != tokens(space, (*prefix, 1)))
            assert [index for index in changed if index >= 4] == [focus]


def test_a_finished_network_has_no_focus() -> None:
    """Nothing is asked."""
    assert demo.focus(draw(demo, 0)) is None


# --- identity --------------------------------------------------------------------------------------


def test_the_size_by_hand() -> None:
    """Each of two layers grows or not; 2 x 2, then 3 x 2 ways to put a convolution into one block."""
    assert tiny.size() == 2 * 2 * (2 * 2) * (3 * 2) == len(list(tiny.enumerate()))


def test_the_size_with_a_ceiling_by_hand() -> None:
    """With three steps and two levels up, a layer grows at most twice."""
    space = EASSpace(blocks=((8,),), units=(), wider=3, deeper=0, filter_levels=(8, 16, 24))
    assert space.size() == comb(3, 0) + comb(3, 1) + comb(3, 2) == len(list(space.enumerate()))


def test_equal_networks_have_one_representative_and_others_have_others() -> None:
    """All 96 episodes of the block of two; widths and order of insertion do not matter, the layers do."""
    found = defaultdict(set)
    for encoding in tiny.enumerate():
        found[tiny.decode(encoding).blocks].add(tiny.canonical(encoding))
    assert {len(one) for one in found.values()} == {1}
    assert len({one for many in found.values() for one in many}) == len(found)


@every_space
@given(seed=seeds)
def test_the_representative_leads_to_the_same_layers(space: TransformSpace, seed: int) -> None:
    """And represents itself."""
    encoding = draw(space, seed)
    canonical = space.canonical(encoding)
    assert space.decode(canonical).blocks == space.decode(encoding).blocks
    assert space.canonical(canonical) == canonical


def test_widening_early_or_late_is_the_same_network() -> None:
    """In the first step or in the second."""
    late, early = (0, 0, 0, 1, 0, 0), (1, 0, 0, 0, 0, 0)
    rest = (0, 0, 0, 0, 1, 0, 2, 0)
    assert small.canonical((*late, *rest)) == small.canonical((*early, *rest)) == (*early, *rest)


# --- settings --------------------------------------------------------------------------------------


@every_space
def test_settings_make_an_equal_space(space: TransformSpace) -> None:
    """As JSON, as run directories record them."""
    assert make_space(space.name, space.settings) == space


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"wider": 0, "deeper": 0}, "must not both be 0"),
        ({"wider": -1}, "wider must be an integer of at least 0, got -1"),
        ({"deeper": True}, "deeper must be an integer"),
        ({"blocks": ((5,),)}, "width of conv1 is 5, allowed are the levels 4, 8"),
        ({"units": (9,)}, "width of fc is 9"),
        ({"kernel": 7}, "kernel of conv1 is 7"),
        ({"kernels": (2, 3)}, "kernels must be odd"),
        ({"filter_levels": (8, 4)}, "filter_levels must ascend"),
        ({"filter_levels": "4"}, "filter_levels must be a sequence"),
        ({"blocks": ()}, "blocks must be a non-empty sequence"),
        ({"max_layers": 1}, "deeper = 5 layers do not fit"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    """Naming the field, the value and what is allowed."""
    with pytest.raises(InvalidArgument, match=message):
        EASSpace(**settings)


@pytest.mark.parametrize(
    ("settings", "message"), [({"growth": 5}, "allowed are the levels 4, 6"), ({"layers": 0}, "layers")]
)
def test_settings_of_the_dense_space_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    """Likewise."""
    with pytest.raises(InvalidArgument, match=message):
        EASDenseSpace(**settings)
