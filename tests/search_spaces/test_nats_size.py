"""The size space of NATS-Bench: its counts, its official strings and their order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_gym.errors import InvalidEncoding
from nas_gym.search_spaces import Encoding
from nas_gym.search_spaces.nats_size import LAYERS, WIDTHS, NATSSizeSpace

space = NATSSizeSpace()

OFFICIAL = {
    "8:8:8:8:8": (0, (0, 0, 0, 0, 0)),
    "8:8:8:16:32": (11, (0, 0, 0, 1, 3)),
    "8:8:40:32:40": (284, (0, 0, 4, 3, 4)),
    "64:64:64:64:64": (32_767, (7, 7, 7, 7, 7)),
}
"""Architectures with their positions in the official list."""

official = pytest.mark.parametrize(
    ("text", "row", "encoding"),
    [(text, row, encoding) for text, (row, encoding) in OFFICIAL.items()],
    ids=[f"official row {row}" for row, _ in OFFICIAL.values()],
)
encodings = st.tuples(*[st.integers(0, 7)] * 5)


# --- counts ----------------------------------------------------------------------------------------


def test_widths_are_the_multiples_of_8_up_to_64() -> None:
    """A decision is an index into the benchmark's own list."""
    assert WIDTHS == (8, 16, 24, 32, 40, 48, 56, 64)


def test_the_space_has_exactly_the_published_number_of_networks() -> None:
    """Eight widths for five layers."""
    assert space.size() == len(set(space.enumerate())) == 32_768


def test_no_two_networks_are_the_same() -> None:
    """Every encoding represents itself."""
    assert all(space.canonical(encoding) == encoding for encoding in space.enumerate())


def test_every_network_has_35_neighbours() -> None:
    """Five layers, seven other widths each."""
    assert {len(space.neighbours(space.sample(np.random.default_rng(seed)))) for seed in range(50)} == {35}


def test_neighbouring_choices_are_similar() -> None:
    """An agent may treat a width as a number."""
    assert [slot.ordered for slot in space.slots] == [True] * 5


def test_sampling_is_uniform_over_widths() -> None:
    """In 5,000 samples every layer has every width an eighth of the time, within five standard errors."""
    rng = np.random.default_rng(0)
    samples = np.array([space.sample(rng) for _ in range(5000)])
    shares = np.stack([(samples == width).mean(axis=0) for width in range(8)])
    assert np.abs(shares - 1 / 8).max() < 5 * np.sqrt(1 / 8 * 7 / 8 / 5000)


# --- official strings ------------------------------------------------------------------------------


@official
def test_the_official_string_is_read(text: str, row: int, encoding: Encoding) -> None:
    """Widths are found in the order of the layers."""
    assert space.from_string(text) == encoding


@official
def test_the_official_string_is_written(text: str, row: int, encoding: Encoding) -> None:
    """The notation is the benchmark's, character by character."""
    assert space.to_string(encoding) == text


@official
def test_the_code_is_the_official_index(text: str, row: int, encoding: Encoding) -> None:
    """The benchmark lists its architectures in lexicographic order."""
    assert space.code(encoding) == row


@given(encodings)
def test_the_code_is_the_number_in_base_eight(encoding: Encoding) -> None:
    """The last width counts fastest."""
    assert space.code(encoding) == int("".join(map(str, encoding)), 8)


def test_surrounding_white_space_is_ignored() -> None:
    """A line of a file is a string as well."""
    assert space.from_string("  8:8:40:32:40\n") == (0, 0, 4, 3, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "expected 5 numbers of channels joined by ':'.* got 1", id="empty"),
        pytest.param("8:8:8:8", "as in '64:64:64:64:64', got 4", id="width missing"),
        pytest.param("8:8:8:8:8:8", "got 6", id="width too many"),
        pytest.param("8,8,8,8,8", "joined by ':'", id="commas"),
        pytest.param("8:8:8:8:12", "number 5 \\(cell 3\\) is '12', allowed are 8, 16, .*64", id="no multiple of 8"),
        pytest.param("8:72:8:8:8", "number 2 \\(reduction 1\\) is '72'", id="too wide"),
        pytest.param("0:8:8:8:8", "number 1 \\(cell 1\\) is '0'", id="no channels"),
        pytest.param("8:8:08:8:8", "number 3 \\(cell 2\\) is '08'", id="leading zero"),
        pytest.param("8:8:8:8:", "number 5 \\(cell 3\\) is ''", id="nothing behind the colon"),
        pytest.param("8: 8:8:8:8", "number 2 \\(reduction 1\\) is ' 8'", id="space inside"),
    ],
)
def test_a_malformed_string_is_refused_and_the_wrong_part_is_named(text: str, message: str) -> None:
    """Whoever mistypes a width learns where, and what is allowed."""
    with pytest.raises(InvalidEncoding, match=message):
        space.from_string(text)


# --- the network as a graph ------------------------------------------------------------------------


def test_decoding_gives_the_channels() -> None:
    """Not the indices."""
    assert space.decode((0, 0, 4, 3, 4)).channels == (8, 8, 40, 32, 40)


@pytest.mark.parametrize("encoding", [(0, 0, 0, 0), (0, 0, 0, 0, 0, 0), (8, 0, 0, 0, 0), (0, 0, -1, 0, 0)])
def test_what_is_no_encoding_is_refused(encoding: Encoding) -> None:
    """Five integers from 0 to 7."""
    with pytest.raises(InvalidEncoding):
        space.decode(encoding)


def test_the_graph_is_the_chain_of_layers() -> None:
    """What leads out of a layer is labelled with the channels that it puts out."""
    labels, edges = space.decode((0, 1, 2, 3, 7)).graph()
    assert labels == ("input", *LAYERS, "output")
    assert edges == ((0, 1, ""), (1, 2, "8"), (2, 3, "16"), (3, 4, "24"), (4, 5, "32"), (5, 6, "64"))


def test_undecided_widths_are_question_marks() -> None:
    """An unfinished network shows what is known."""
    assert [label for _, _, label in space.sketch((7, 0)).edges] == ["", "64", "8", "?", "?", "?"]
