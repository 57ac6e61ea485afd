"""NAS-Bench-Macro: its counts, its official strings and which of them are the same network."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_gym.errors import InvalidEncoding
from nas_gym.search_spaces import Batch, Encoding
from nas_gym.search_spaces.nas_bench_macro import BLOCKS, STAGES, NASBenchMacroSpace

space = NASBenchMacroSpace()

ENCODINGS = 6_561
NETWORKS = 3_969

encodings = st.tuples(*[st.integers(0, 2)] * 8)


def classes() -> dict[Encoding, list[Encoding]]:
    """Return the encodings of every representative."""
    members: dict[Encoding, list[Encoding]] = defaultdict(list)
    for encoding in space.enumerate():
        members[space.canonical(encoding)].append(encoding)
    return members


# --- counts ----------------------------------------------------------------------------------------


def test_blocks_come_in_the_official_order() -> None:
    """A decision is the digit of the official string."""
    assert BLOCKS == ("Identity", "MB3_K3", "MB6_K5")


def test_the_space_has_exactly_the_published_number_of_encodings() -> None:
    """Three blocks for eight layers."""
    assert space.size() == len(set(space.enumerate())) == ENCODINGS


def test_the_space_has_exactly_the_published_number_of_networks() -> None:
    """So many were trained."""
    assert len(classes()) == NETWORKS


def test_every_encoding_has_16_neighbours() -> None:
    """Eight layers, two other blocks each."""
    assert {len(space.neighbours(space.sample(np.random.default_rng(seed)))) for seed in range(50)} == {16}


def test_blocks_are_not_ordered() -> None:
    """They are different operations."""
    assert not any(slot.ordered for slot in space.slots)


def test_sampling_is_uniform_over_blocks() -> None:
    """In 5,000 samples every layer has every block a third of the time, within five standard errors."""
    rng = np.random.default_rng(0)
    samples = np.array([space.sample(rng) for _ in range(5000)])
    shares = np.stack([(samples == block).mean(axis=0) for block in range(3)])
    assert np.abs(shares - 1 / 3).max() < 5 * np.sqrt(1 / 3 * 2 / 3 / 5000)


# --- official strings ------------------------------------------------------------------------------


@given(encodings)
def test_a_string_has_one_digit_a_layer(encoding: Encoding) -> None:
    """Reading inverts writing, and the code is the number in base three."""
    text = space.to_string(encoding)
    assert (len(text), space.from_string(text), space.code(encoding)) == (8, encoding, int(text, 3))


def test_the_best_networks_have_their_official_strings() -> None:
    """They tie at 93.13 % on CIFAR-10."""
    assert [space.from_string(text) for text in ("22212202", "22212220")] == [
        (2, 2, 2, 1, 2, 2, 0, 2),
        (2, 2, 2, 1, 2, 2, 2, 0),
    ]


def test_surrounding_white_space_is_ignored() -> None:
    """A line of a file is a string as well."""
    assert space.from_string(" 01201201\n") == (0, 1, 2, 0, 1, 2, 0, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "expected 8 digits, one a layer, out of 0 \\(Identity\\), .*got 0 characters", id="empty"),
        pytest.param("0120120", "got 7 characters", id="digit missing"),
        pytest.param("012012012", "got 9 characters", id="digit too many"),
        pytest.param("01201231", "layer 2 of stage 3 is '3', allowed are 0 \\(Identity\\), 1 \\(MB3_K3\\)", id="3"),
        pytest.param("x1201201", "layer 1 of stage 1 is 'x'", id="letter"),
        pytest.param("012 1201", "layer 2 of stage 2 is ' '", id="space inside"),
        pytest.param("0120120²", "layer 3 of stage 3 is '²'", id="digit of another kind"),
    ],
)
def test_a_malformed_string_is_refused_and_the_wrong_part_is_named(text: str, message: str) -> None:
    """Whoever mistypes a digit learns which layer it stands for, and what is allowed."""
    with pytest.raises(InvalidEncoding, match=message):
        space.from_string(text)


# --- the network as a graph ------------------------------------------------------------------------


def test_decoding_gives_the_blocks_of_each_stage() -> None:
    """Two, three and three layers."""
    assert space.decode((0, 1, 2, 0, 1, 2, 0, 0)).stages() == (
        ("Identity", "MB3_K3"),
        ("MB6_K5", "Identity", "MB3_K3"),
        ("MB6_K5", "Identity", "Identity"),
    )


@pytest.mark.parametrize("encoding", [(0,) * 7, (0,) * 9, (3, *(0,) * 7), (-1, *(0,) * 7)])
def test_what_is_no_encoding_is_refused(encoding: Encoding) -> None:
    """Eight integers from 0 to 2."""
    with pytest.raises(InvalidEncoding):
        space.decode(encoding)


def test_the_graph_is_the_chain_of_layers() -> None:
    """Nodes are the outputs of layers, edges their blocks."""
    labels, edges = space.decode((0, 1, 2, 0, 1, 2, 0, 1)).graph()
    assert labels == ("input", "1.1", "1.2", "2.1", "2.2", "2.3", "3.1", "3.2", "3.3", "output")
    assert [(source, target) for source, target, _ in edges] == [(node, node + 1) for node in range(9)]
    assert [label for _, _, label in edges] == [*(BLOCKS[block] for block in (0, 1, 2, 0, 1, 2, 0, 1)), ""]


def test_undecided_layers_are_question_marks() -> None:
    """An unfinished network shows what is known."""
    assert [label for _, _, label in space.sketch((2, 0)).edges] == ["MB6_K5", "Identity", *["?"] * 6, ""]


# --- isomorphism -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "representative"),
    [
        pytest.param("00000000", "00000000", id="nothing to move"),
        pytest.param("22222222", "22222222", id="no identity"),
        pytest.param("01001001", "01010010", id="behind the first layer"),
        pytest.param("10201202", "10210220", id="one place"),
        pytest.param("22212202", "22212220", id="the best network"),
        pytest.param("01012012", "01012012", id="the first layer of a stage stays"),
    ],
)
def test_identities_move_to_the_end_of_their_stage(text: str, representative: str) -> None:
    """As the benchmark does before it trains; its first layer changes the shape, so it stays."""
    assert space.to_string(space.canonical(space.from_string(text))) == representative


@given(encodings)
def test_the_other_blocks_keep_their_order(encoding: Encoding) -> None:
    """In every stage, what is left without identities is what was there."""
    start = 0
    representative = space.canonical(encoding)
    for layers in STAGES:
        before, after = (one[start : start + layers] for one in (encoding, representative))
        assert after[0] == before[0]
        assert [block for block in after[1:] if block] == [block for block in before[1:] if block]
        start += layers


def test_a_representative_belongs_to_its_class() -> None:
    """It represents itself."""
    assert all(representative in members for representative, members in classes().items())


def test_classes_have_the_sizes_of_the_places_of_identities() -> None:
    """Two free layers have one order of 0 or 2 identities and two of one; a stage of two layers has one order."""
    sizes = sorted(len(members) for members in classes().values())
    assert [sizes.count(size) for size in (1, 2, 4)] == [9 * 15 * 15, 9 * 2 * 15 * 6, 9 * 6 * 6]
    assert sum(sizes) == ENCODINGS


def test_all_representatives_are_found_at_once() -> None:
    """The arrays agree with the single encodings over the whole space."""
    every = list(space.enumerate())
    assert space.canonical_codes(Batch.of(space, every)).tolist() == [space.code(space.canonical(one)) for one in every]
