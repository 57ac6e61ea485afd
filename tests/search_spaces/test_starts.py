"""Start networks in the notation of their layers: read, written, refused, and grown from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_gym.errors import InvalidArgument
from nas_gym.search_spaces.eas import SMALL, EASDenseSpace, EASSpace
from nas_gym.search_spaces.starts import DenseStart, GrownDense, GrownPlain, Layer, PlainStart

PLAIN = "C8x3 C8x5 P C16x3 A F16"
DENSE = "S8 D4 D6 T D4 A"


def test_a_plain_network_is_read_layer_by_layer() -> None:
    """Blocks between poolings, fully connected layers behind the average."""
    found = GrownPlain.parse(PLAIN)
    assert found == GrownPlain(((Layer(8, 3), Layer(8, 5)), (Layer(16, 3),)), (Layer(16),))
    assert str(found) == PLAIN


def test_a_dense_network_is_read_layer_by_layer() -> None:
    """Growth rates, and widths of stem and transitions where they are given."""
    found = GrownDense.parse(DENSE)
    assert found == GrownDense(((Layer(4), Layer(6)), (Layer(4),)), (8, None))
    assert str(found) == DENSE
    assert found.short == "S D4 D6 T D4 A"


@given(
    convolutions=st.lists(st.lists(st.builds(Layer, st.integers(1, 99), st.integers(1, 9)), min_size=1), min_size=1),
    units=st.lists(st.builds(Layer, st.integers(1, 99))),
)
def test_what_is_written_is_read_again(convolutions: list[list[Layer]], units: list[Layer]) -> None:
    """Whatever the layers are."""
    start = GrownPlain(tuple(map(tuple, convolutions)), tuple(units))
    assert GrownPlain.parse(str(start)) == start


def test_published_starts_have_a_notation() -> None:
    """As the results of their episodes have."""
    assert str(PlainStart(((8,), (16, 16)), (16,), 3).grown()) == "C8x3 P C16x3 C16x3 A F16"
    assert str(DenseStart(2, 2, 4).grown()) == "S D4 D4 T D4 D4 A"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("C8x3", "it ends too early; allowed are tokens like C16x3, P, A"),
        ("C8x3 P A", "token 2 is 'A'; allowed are tokens like C16x3"),
        ("P C8x3 A", "token 0 is 'P'"),
        ("C8x3 A C8x3", "token 2 is 'C8x3'; allowed are tokens like F64"),
        ("C8x3 A A", "token 2 is 'A'"),
        ("C8 A", "token 0 is 'C8'"),
        ("C0x3 A", "token 0 is 'C0x3'"),
        ("F8 A", "token 0 is 'F8'"),
        (" ", "must be the layers of a network"),
        (3, "must be the layers of a network"),
    ],
)
def test_what_is_no_plain_network_is_refused(text: object, message: str) -> None:
    """Naming the first token that is wrong, and what may stand there."""
    with pytest.raises(InvalidArgument, match=message):
        GrownPlain.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("D4 A", "token 0 is 'D4'; allowed are tokens like S8"),
        ("S D4", "it ends too early; allowed are tokens like D4, T6, A"),
        ("S T D4 A", "token 1 is 'T'; allowed are tokens like D4"),
        ("S D4 A D4", "token 3 is 'D4'; nothing may follow"),
        ("S D4 S D4 A", "token 2 is 'S'"),
        ("S D4x3 A", "token 1 is 'D4x3'"),
    ],
)
def test_what_is_no_dense_network_is_refused(text: str, message: str) -> None:
    """Likewise."""
    with pytest.raises(InvalidArgument, match=message):
        GrownDense.parse(text)


# --- spaces that begin there -----------------------------------------------------------------------


def test_a_second_search_begins_where_the_first_one_ended() -> None:
    """Every layer may grow again, layers that were put in too."""
    first = EASSpace(**SMALL)
    best = first.decode(first.sample(np.random.default_rng(0)))
    second = EASSpace(**{**SMALL, "network": str(best), "max_layers": 8})
    assert tuple(block.layers for block in second.start_blocks) == best.blocks
    grown = second.decode(second.sample(np.random.default_rng(1)))
    assert sum(map(len, grown.blocks)) == sum(map(len, best.blocks)) + second.deeper


def test_a_dense_search_begins_where_an_earlier_one_ended() -> None:
    """With the growth rates of every layer."""
    space = EASDenseSpace(wider=1, deeper=1, network=DENSE)
    assert [[layer.width for layer in block.layers] for block in space.start_blocks] == [[4, 6], [4]]
    assert str(space.decode((1, 0, 0, 1, 0))) == "S D6 D6 T D4 D4 A"


def test_fields_that_are_not_used_do_not_tell_spaces_apart() -> None:
    """Two ways to say the same."""
    one, other = EASSpace(blocks=((8,),), network=PLAIN, deeper=1), EASSpace(kernel=5, network=PLAIN + " ", deeper=1)
    assert one == other
    assert one.signature == other.signature


def test_a_space_that_begins_at_a_published_network_is_called_as_before() -> None:
    """So that stores of earlier searches answer."""
    assert "network" not in EASSpace().settings
    assert EASSpace(network=PLAIN, deeper=1).settings["network"] == PLAIN


def test_layers_that_are_no_level_are_refused() -> None:
    """The levels are those of the space."""
    with pytest.raises(InvalidArgument, match="width of conv1 is 7, allowed are the levels"):
        EASSpace(network="C7x3 A")
    with pytest.raises(InvalidArgument, match="kernel of conv1 is 7"):
        EASSpace(network="C8x7 A")


def test_a_full_network_is_refused() -> None:
    """With the room that is left."""
    with pytest.raises(InvalidArgument, match="there is room for 2 more"):
        EASSpace(network="C8x3 C8x3 A", max_layers=4, deeper=3)
