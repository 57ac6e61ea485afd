"""The cell of NAS-Bench-201: its counts, its official strings and its isomorphism classes."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from nas_gym.errors import InvalidEncoding
from nas_gym.search_spaces import Encoding
from nas_gym.search_spaces.nas_bench_201 import EDGES, OPERATIONS, NASBench201Space

space = NASBench201Space()

ENCODINGS = 15_625
CLASSES = 6_466
CLASSES_OF_UNEQUAL_CONVOLUTIONS = 578

NONE, SKIP, CONV1, CONV3, POOL = range(5)

OFFICIAL = {
    "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|": (
        (POOL, CONV1, SKIP, CONV1, SKIP, SKIP)
    ),
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|none~0|nor_conv_3x3~1|avg_pool_3x3~2|": (
        (CONV3, CONV3, POOL, NONE, CONV3, POOL)
    ),
    "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|none~0|nor_conv_1x1~1|none~2|": (
        (SKIP, SKIP, SKIP, NONE, CONV1, NONE)
    ),
}
"""Rows 0, 11 and 284 of the official list of architectures."""

official = pytest.mark.parametrize(
    ("text", "encoding"), OFFICIAL.items(), ids=["official row 0", "official row 11", "official row 284"]
)


@pytest.fixture(scope="module")
def members() -> dict[str, list[Encoding]]:
    """Return the encodings of every official isomorphism string."""
    classes: dict[str, list[Encoding]] = defaultdict(list)
    for encoding in space.enumerate():
        classes[space.decode(encoding).unique_string()].append(encoding)
    return dict(classes)


def convolutions(encoding: Encoding) -> int:
    """Return the number of convolutions of a cell."""
    return encoding.count(CONV1) + encoding.count(CONV3)


def convolution_weights(encoding: Encoding, channels: int) -> int:
    """Return the parameters of a cell's convolutions, each with the scale and shift of its normalisation."""
    one = channels**2 + 2 * channels
    three = 9 * channels**2 + 2 * channels
    return encoding.count(CONV1) * one + encoding.count(CONV3) * three


# --- counts ----------------------------------------------------------------------------------------


def test_operations_come_in_the_official_order() -> None:
    """A decision is an index into the benchmark's own list."""
    assert OPERATIONS == ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


def test_the_space_has_exactly_the_published_number_of_encodings() -> None:
    """Five operations on six edges."""
    assert space.size() == len(set(space.enumerate())) == ENCODINGS


def test_the_space_has_exactly_the_published_number_of_classes() -> None:
    """`canonical` maps onto as many representatives as there are official unique strings."""
    assert len({space.canonical(encoding) for encoding in space.enumerate()}) == CLASSES


def test_some_classes_mix_different_numbers_of_convolutions(members: dict[str, list[Encoding]]) -> None:
    """The official classes are not exactly equivalent networks; this many are not."""
    mixed = [cells for cells in members.values() if len({convolutions(cell) for cell in cells}) > 1]
    assert len(mixed) == CLASSES_OF_UNEQUAL_CONVOLUTIONS


def test_every_cell_has_24_neighbours() -> None:
    """Six edges, four other operations each."""
    assert {len(space.neighbours(encoding)) for encoding in space.enumerate()} == {24}


def test_neighbours_differ_on_exactly_one_edge() -> None:
    """A neighbour is one operation away."""
    encoding = (POOL, CONV1, SKIP, CONV1, SKIP, NONE)
    distances = {
        sum(mine != other for mine, other in zip(encoding, neighbour, strict=True))
        for neighbour in space.neighbours(encoding)
    }
    assert distances == {1}


def test_sampling_is_uniform_over_operations() -> None:
    """In 5,000 samples every edge has every operation a fifth of the time, within five standard errors."""
    rng = np.random.default_rng(0)
    samples = np.array([space.sample(rng) for _ in range(5000)])
    shares = np.stack([(samples == operation).mean(axis=0) for operation in range(5)])
    assert np.abs(shares - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / 5000)


# --- official strings ------------------------------------------------------------------------------


@official
def test_the_official_string_is_read(text: str, encoding: Encoding) -> None:
    """Operations are found in the order of the edges."""
    assert space.from_string(text) == encoding


@official
def test_the_official_string_is_written(text: str, encoding: Encoding) -> None:
    """The notation is the benchmark's, character by character."""
    assert space.to_string(encoding) == text


def test_surrounding_white_space_is_ignored() -> None:
    """A line of a file is a string as well."""
    text, encoding = next(iter(OFFICIAL.items()))
    assert space.from_string(f"  {text}\n") == encoding


GOOD = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "expected 3 groups joined by '\\+', got 1", id="empty"),
        pytest.param("|none~0|+|none~0|none~1|", "expected 3 groups joined by '\\+', got 2", id="group missing"),
        pytest.param(f"{GOOD}+|none~0|", "expected 3 groups joined by '\\+', got 4", id="group too many"),
        pytest.param(GOOD.replace("|none~0|+", "none~0+", 1), "group 1 is 'none~0'", id="bars missing"),
        pytest.param(GOOD.replace("|none~0|none~1|+", "|none~0|+"), "group 2 is '\\|none~0\\|'", id="edge missing"),
        pytest.param(GOOD.replace("none~2", "none~2|none~3"), "group 3 is .*expected 3", id="edge too many"),
        pytest.param(GOOD.replace("none~2", "conv~2"), "'conv~2' in group 3", id="unknown operation"),
        pytest.param(GOOD.replace("none~2", "none~1"), "'none~1' in group 3 .*followed by '~2'", id="wrong source"),
        pytest.param(GOOD.replace("none~2", "none"), "'none' in group 3", id="source missing"),
        pytest.param(GOOD.replace("none~2", "none~02"), "'none~02' in group 3", id="source with a leading zero"),
        pytest.param(GOOD.replace("none~2", "NONE~2"), "'NONE~2' in group 3", id="upper case"),
        pytest.param(GOOD.replace("none~2", "~2"), "'~2' in group 3", id="operation missing"),
    ],
)
def test_a_malformed_string_is_refused_and_the_wrong_part_is_named(text: str, message: str) -> None:
    """Whoever mistypes a cell learns where."""
    with pytest.raises(InvalidEncoding, match=message):
        space.from_string(text)


# --- the cell --------------------------------------------------------------------------------------


def test_edges_lead_from_every_node_to_every_later_one() -> None:
    """Four nodes, in the order of the official string: by target, then by source."""
    assert EDGES == tuple((source, target) for target in range(1, 4) for source in range(target))


def test_incoming_names_the_edges_of_a_node() -> None:
    """Sources ascend."""
    cell = space.decode((POOL, CONV1, SKIP, CONV3, NONE, SKIP))
    assert cell.incoming(3) == ((0, "nor_conv_3x3"), (1, "none"), (2, "skip_connect"))


def test_the_graph_leaves_out_the_edges_that_carry_nothing() -> None:
    """`none` is no edge."""
    labels, edges = space.decode((POOL, NONE, SKIP, NONE, NONE, CONV1)).graph()
    assert labels == ("input", "1", "2", "output")
    assert edges == ((0, 1, "avg_pool_3x3"), (1, 2, "skip_connect"), (2, 3, "nor_conv_1x1"))


# --- isomorphism -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        # Node 1 = pool(0); node 2 = conv1(0) + node 1; output = conv1(0) + node 1 + node 2, sorted.
        pytest.param(
            (POOL, CONV1, SKIP, CONV1, SKIP, SKIP),
            "(0)@avg_pool_3x3+(0)@avg_pool_3x3+(0)@nor_conv_1x1+(0)@nor_conv_1x1",
            id="skips pass strings on",
        ),
        pytest.param((NONE,) * 6, "#+#+#", id="nothing at all"),
        pytest.param((SKIP, NONE, NONE, NONE, SKIP, NONE), "#+#+0", id="skip after skip is the input"),
        # Node 1 is zero, so a convolution of it is a zero.
        pytest.param((NONE, SKIP, CONV3, SKIP, CONV3, NONE), "#+#+0", id="a convolution of a zero is a zero"),
        # Node 2 = "#+#" is two zeros, which the official string does not call a zero.
        pytest.param((NONE, NONE, NONE, NONE, NONE, CONV1), "#+#+(#+#)@nor_conv_1x1", id="a sum of zeros is no zero"),
    ],
)
def test_unique_string_of_cells_worked_out_by_hand(encoding: Encoding, expected: str) -> None:
    """The official string simplifies exactly what it says, and nothing else."""
    assert space.decode(encoding).unique_string() == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(
            # Output = conv3(0) + pool(0), through node 1 or node 2 or an edge of its own.
            (CONV3, POOL, NONE, NONE, SKIP, NONE),
            (CONV3, CONV1, NONE, NONE, SKIP, NONE),
            id="an edge into a node that nothing reads",
        ),
        pytest.param(
            # Node 1 is zero: whatever is applied to it is a zero.
            (NONE, CONV3, POOL, SKIP, SKIP, CONV1),
            (NONE, CONV3, CONV1, SKIP, NONE, CONV1),
            id="operations on a zero",
        ),
        pytest.param(
            # Output = conv3(pool(0)) + zeros: by node 1 directly, or copied to node 1 from the input.
            (SKIP, NONE, NONE, CONV3, POOL, NONE),
            (SKIP, NONE, NONE, POOL, CONV3, NONE),
            id="summands in another order",
        ),
        pytest.param(
            # One 3x3 convolution read twice, or two of them: not the same weights, but the same official string.
            (CONV3, NONE, SKIP, NONE, SKIP, SKIP),
            (CONV3, CONV3, NONE, NONE, SKIP, SKIP),
            id="a shared node and two equal ones",
        ),
    ],
)
def test_cells_of_one_official_string_share_their_class(one: Encoding, other: Encoding) -> None:
    """What the official string simplifies does not change the representative."""
    assert space.canonical(one) == space.canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(
            (CONV3, NONE, NONE, CONV3, SKIP, NONE), (CONV3, NONE, NONE, NONE, SKIP, NONE), id="a sum of equal summands"
        ),
        pytest.param(
            (CONV3, NONE, NONE, NONE, CONV1, NONE), (CONV1, NONE, NONE, NONE, CONV3, NONE), id="operations in order"
        ),
    ],
)
def test_cells_that_compute_something_else_differ_in_class(one: Encoding, other: Encoding) -> None:
    """The representative tells apart what the official string does."""
    assert space.canonical(one) != space.canonical(other)


def test_classes_are_those_of_the_unique_string(members: dict[str, list[Encoding]]) -> None:
    """Cells share a representative exactly if they share the official string."""
    representatives = [{space.canonical(cell) for cell in cells} for cells in members.values()]
    assert {len(found) for found in representatives} == {1}
    assert len(set.union(*representatives)) == len(members)


def test_a_representative_belongs_to_its_class(members: dict[str, list[Encoding]]) -> None:
    """A class is represented by a member, not by a construction."""
    assert all(space.canonical(cells[0]) in cells for cells in members.values())


@pytest.mark.parametrize("channels", [4, 8, 16])
def test_a_representative_has_the_fewest_parameters_then_the_smallest_encoding(
    members: dict[str, list[Encoding]], channels: int
) -> None:
    """Of all members of a class the cheapest stands for it, whatever the width."""
    expected = [min(cells, key=lambda cell: (convolution_weights(cell, channels), cell)) for cells in members.values()]
    assert [space.canonical(cells[0]) for cells in members.values()] == expected
