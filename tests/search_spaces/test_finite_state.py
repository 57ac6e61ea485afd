"""Grammars that are finite automata: exact counts, ranks and their inverses, and the array forms."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_gym.errors import InvalidEncoding
from nas_gym.search_spaces import Decision, Encoding
from nas_gym.search_spaces.finite_state import FiniteStateSpace
from nas_gym.search_spaces.metaqnn import REDUCED, MetaQNNSpace

STOP, LEFT, RIGHT = range(3)


@dataclass(frozen=True)
class Path:
    """A walk.

    Attributes:
        turns: "left" or "right".
    """

    turns: tuple[str, ...]

    def graph(self) -> tuple[tuple[str, ...], tuple[tuple[int, int, str], ...]]:
        """Return the turns as nodes of a chain."""
        return self.turns, tuple((node, node + 1, "") for node in range(len(self.turns) - 1))


@dataclass(frozen=True)
class Walks(FiniteStateSpace):
    """Up to `steps` turns; where one may stop before, there are 2 ** (steps + 1) - 1 walks, else 2 ** steps.

    Attributes:
        steps: after so many turns a walk ends by itself.
        may_stop: whether a walk may end before.
        may_repeat_right: whether a right turn may follow a right turn.
    """

    steps: int = 3
    may_stop: bool = True
    may_repeat_right: bool = True

    name: ClassVar[str] = "walks"
    max_choices: ClassVar[int] = 3

    @property
    def max_length(self) -> int:  # type: ignore[override]
        """Number of turns of the longest walk."""
        return self.steps

    @property
    def start(self) -> tuple[int, int]:
        """No turn yet."""
        return 0, LEFT

    def decision_at(self, state: tuple[int, int]) -> Decision | None:
        """Return the next turn, None after the last or a stop."""
        taken, last = state
        if last == STOP or taken == self.steps:
            return None
        may_turn_right = self.may_repeat_right or last != RIGHT
        return Decision(0, ("stop", "left", "right"), ordered=False, mask=(self.may_stop, True, may_turn_right))

    def follow(self, state: tuple[int, int], choice: int) -> tuple[int, int]:
        """Return the number of turns and the last one; without a rule about it, the last one is forgotten."""
        taken, _ = state
        return taken + 1, choice if choice == STOP or not self.may_repeat_right else LEFT

    def decode(self, encoding: Encoding) -> Path:
        """Return the walk."""
        return Path(tuple(("stop", "left", "right")[choice] for choice in self.validate(encoding)))


SMALL: list[FiniteStateSpace] = [
    Walks(),
    Walks(steps=6, may_stop=False),
    Walks(steps=5, may_repeat_right=False),
    MetaQNNSpace(max_depth=3, image_size=7, filters=(8,), kernels=(1, 3), neurons=(16, 8)),
    MetaQNNSpace(**REDUCED),
]
LARGE: list[FiniteStateSpace] = [
    Walks(steps=62),
    Walks(steps=63),
    MetaQNNSpace(),
    MetaQNNSpace(max_depth=18, image_size=32),
]


def named(space: FiniteStateSpace) -> str:
    """Return a short name of a space of these tests."""
    return f"{space.name}-{space.size():,}"


every_small_space = pytest.mark.parametrize("space", SMALL, ids=named)
every_space = pytest.mark.parametrize("space", [*SMALL, *LARGE], ids=named)
every_exact_space = pytest.mark.parametrize("space", [*SMALL, LARGE[0], LARGE[2]], ids=named)


def draw_prefix(space: FiniteStateSpace, data: st.DataObject, length: int) -> Encoding:
    """Draw a legal prefix of this length, or a complete encoding if it ends before."""
    prefix: Encoding = ()
    while len(prefix) < length and (decision := space.decision(prefix)) is not None:
        legal = [choice for choice, allowed in enumerate(decision.mask) if allowed]
        prefix = (*prefix, data.draw(st.sampled_from(legal), "choice"))
    return prefix


def draw_prefixes(space: FiniteStateSpace, data: st.DataObject) -> list[Encoding]:
    """Draw a batch of prefixes of different lengths."""
    lengths = data.draw(st.lists(st.integers(0, space.max_length), max_size=4), "lengths")
    return [draw_prefix(space, data, length) for length in lengths]


def follow_all(space: FiniteStateSpace, prefix: Encoding) -> object:
    """Return the state behind a prefix by following the grammar itself, without the automaton."""
    state = space.start
    for choice in prefix:
        state = space.follow(state, choice)
    return state


# --- counting --------------------------------------------------------------------------------------


@every_small_space
def test_size_is_the_number_of_encodings(space: FiniteStateSpace) -> None:
    """Counting paths of the automaton equals going all of them."""
    assert space.size() == sum(1 for _ in space.enumerate())


@pytest.mark.parametrize("steps", [1, 5, 62, 63, 100])
def test_size_is_exact_whatever_the_number_of_bits(steps: int) -> None:
    """A stop or two turns at each of n steps make 2 ** (n + 1) - 1 walks."""
    assert Walks(steps=steps).size() == 2 ** (steps + 1) - 1


def test_a_long_grammar_is_counted_without_recursion() -> None:
    """Thousands of decisions in a row are no deeper than Python allows."""
    assert Walks(steps=3000, may_stop=False).size() == 2**3000


def test_equal_states_are_found_once() -> None:
    """20 turns without memory have 21 states and the stops 20, not two million."""
    assert len(Walks(steps=20).automaton.states) == 21 + 20


@every_space
def test_every_state_has_an_encoding_behind_it(space: FiniteStateSpace) -> None:
    """The automaton has no dead end."""
    assert min(space.automaton.sizes) == 1


@every_space
def test_the_automaton_begins_at_the_start(space: FiniteStateSpace) -> None:
    """State 0 is the one before the first decision."""
    assert space.automaton.states[0] == space.start


def test_the_automaton_of_two_steps_is_the_one_drawn_by_hand() -> None:
    """Start, stopped, one turn, stopped after it, two turns: in the order in which they are reached."""
    found = Walks(steps=2).automaton
    assert found.states == ((0, LEFT), (1, STOP), (1, LEFT), (2, STOP), (2, LEFT))
    assert found.following.tolist() == [[1, 2, 2], [1, 1, 1], [3, 4, 4], [3, 3, 3], [4, 4, 4]]
    assert found.final.tolist() == [False, True, False, True, True]
    assert found.sizes == (7, 1, 3, 1, 1)


def test_an_illegal_choice_leads_nowhere() -> None:
    """Behind it the automaton stays where it is."""
    found = Walks(steps=2, may_repeat_right=False).automaton
    right = found.states.index((1, RIGHT))
    assert found.masks[right].tolist() == [True, True, False]
    assert found.following[right, RIGHT] == right


# --- ranks -----------------------------------------------------------------------------------------


@every_small_space
def test_a_code_is_the_position_in_enumerate(space: FiniteStateSpace) -> None:
    """Ranks count from 0 without gaps."""
    assert [space.code(encoding) for encoding in space.enumerate()] == list(range(space.size()))


@every_small_space
def test_the_codes_of_all_encodings_in_one_batch_are_the_positions(space: FiniteStateSpace) -> None:
    """The array form ranks like the single one."""
    codes = space.codes(*space.pack(list(space.enumerate())))
    np.testing.assert_array_equal(codes, np.arange(space.size()), strict=True)


@every_small_space
def test_encoding_at_lists_the_space(space: FiniteStateSpace) -> None:
    """Position by position it gives what `enumerate` gives."""
    assert [space.encoding_at(rank) for rank in range(space.size())] == list(space.enumerate())


@every_exact_space
@given(data=st.data())
def test_code_inverts_encoding_at(space: FiniteStateSpace, data: st.DataObject) -> None:
    """Any position comes back, also close to 2 ** 63."""
    rank = data.draw(st.integers(0, space.size() - 1), "rank")
    assert space.code(space.encoding_at(rank)) == rank


@every_exact_space
@given(data=st.data())
def test_encoding_at_inverts_code(space: FiniteStateSpace, data: st.DataObject) -> None:
    """Any architecture comes back."""
    encoding = draw_prefix(space, data, space.max_length)
    assert space.encoding_at(space.code(encoding)) == encoding


@every_exact_space
def test_the_first_position_is_the_first_of_enumerate(space: FiniteStateSpace) -> None:
    """Also where there are too many to list."""
    assert space.encoding_at(0) == next(iter(space.enumerate()))


@every_exact_space
def test_the_last_position_takes_the_last_legal_choice_everywhere(space: FiniteStateSpace) -> None:
    """Lexicographic order ends there."""
    prefix: Encoding = ()
    while (decision := space.decision(prefix)) is not None:
        prefix = (*prefix, max(choice for choice, legal in enumerate(decision.mask) if legal))
    assert space.encoding_at(space.size() - 1) == prefix


@pytest.mark.parametrize("rank", [-1, 15, 2**70])
def test_a_position_outside_the_space_is_refused(rank: int) -> None:
    """The message says which there are."""
    with pytest.raises(InvalidEncoding, match=rf"walks has the positions 0 to 14, got {rank}\."):
        Walks(steps=3).encoding_at(rank)


def test_a_space_without_exact_codes_has_no_positions() -> None:
    """Its codes are hashes, which nothing inverts; the message says how large it is."""
    with pytest.raises(InvalidEncoding, match=rf"walks has {2**63} encodings, too many for positions in 63 bits\."):
        Walks(steps=63, may_stop=False).encoding_at(0)


@pytest.mark.parametrize("prefix", [(), (LEFT,), (LEFT, RIGHT)], ids=str)
def test_an_unfinished_architecture_has_no_rank(prefix: Encoding) -> None:
    """What is not complete has no position."""
    with pytest.raises(InvalidEncoding, match="no encoding of walks: it is not complete"):
        Walks(steps=3).code(prefix)


# --- 63 bits ---------------------------------------------------------------------------------------


def test_the_largest_space_with_exact_codes_uses_63_bits_to_the_last() -> None:
    """2 ** 63 - 1 walks have the ranks 0 to 2 ** 63 - 2, in arrays too."""
    space = Walks(steps=62)
    last = (RIGHT,) * 62
    assert space.code(last) == space.codes(*space.pack([last])).item() == 2**63 - 2


def test_codes_of_an_exact_space_are_int64() -> None:
    """They can be searched and stored as numbers."""
    space = MetaQNNSpace()
    assert space.codes(*space.pack([space.encoding_at(12345)])).dtype == np.int64


hashed_space = pytest.mark.parametrize(
    "space", [Walks(steps=63, may_stop=False), Walks(steps=63), MetaQNNSpace(max_depth=18)], ids=named
)


@hashed_space
def test_a_space_of_2_to_the_63_and_more_has_hashed_codes(space: FiniteStateSpace) -> None:
    """A rank would not fit into an int64."""
    encoding = space.sample(np.random.default_rng(0))
    assert space.code(encoding) == space.hashed_code(encoding)


@hashed_space
def test_hashed_codes_of_a_batch_are_python_integers(space: FiniteStateSpace) -> None:
    """128 bits need an object array, and equal the single codes."""
    encodings = [space.sample(np.random.default_rng(seed)) for seed in range(4)]
    codes = space.codes(*space.pack(encodings))
    assert codes.dtype == object
    assert codes.tolist() == [space.code(encoding) for encoding in encodings]


def test_hashed_codes_differ() -> None:
    """No two of 2,000 architectures share a code."""
    space = MetaQNNSpace(max_depth=18)
    assert len({space.code(encoding) for encoding in itertools.islice(space.enumerate(), 2000)}) == 2000


@pytest.mark.parametrize(
    ("steps", "dense"), [pytest.param(21, True, id="2 ** 22 - 1"), pytest.param(22, False, id="2 ** 23 - 1")]
)
def test_up_to_four_million_encodings_are_dense(steps: int, dense: bool) -> None:
    """Arrays over all codes stay small."""
    assert Walks(steps=steps).dense == dense


def test_a_dense_space_may_have_exactly_2_to_the_22_encodings() -> None:
    """The bound belongs to the dense ones."""
    assert Walks(steps=22, may_stop=False).dense


# --- the grammar in arrays -------------------------------------------------------------------------


@every_space
@given(data=st.data())
def test_the_automaton_is_the_grammar(space: FiniteStateSpace, data: st.DataObject) -> None:
    """The state behind a prefix is the one that the grammar itself reaches."""
    prefix = draw_prefix(space, data, data.draw(st.integers(0, space.max_length), "length"))
    assert space.automaton.states[space.state(prefix)] == follow_all(space, prefix)


@every_space
@given(data=st.data())
def test_state_numbers_equal_the_single_form(space: FiniteStateSpace, data: st.DataObject) -> None:
    """Row n of `state_numbers` is `state` of the n-th prefix."""
    prefixes = draw_prefixes(space, data)
    expected = np.array([space.state(prefix) for prefix in prefixes], np.int64)
    np.testing.assert_array_equal(space.state_numbers(*space.pack(prefixes)), expected, strict=True)


@every_space
@given(data=st.data())
def test_masks_equal_the_single_form(space: FiniteStateSpace, data: st.DataObject) -> None:
    """Row n of `masks` is what the grammar allows after the n-th prefix, everything in complete rows."""
    prefixes = draw_prefixes(space, data)
    expected = np.ones((len(prefixes), space.max_choices), np.bool_)
    for row, prefix in zip(expected, prefixes, strict=True):
        decision = space.decision_at(follow_all(space, prefix))
        row[:] = True if decision is None else decision.mask
    np.testing.assert_array_equal(space.masks(*space.pack(prefixes)), expected, strict=True)


@every_space
@given(data=st.data())
def test_complete_equals_the_single_form(space: FiniteStateSpace, data: st.DataObject) -> None:
    """Row n of `complete` tells whether the grammar ends after the n-th prefix."""
    prefixes = draw_prefixes(space, data)
    expected = np.array([space.decision_at(follow_all(space, prefix)) is None for prefix in prefixes], np.bool_)
    np.testing.assert_array_equal(space.complete(*space.pack(prefixes)), expected, strict=True)


@every_space
@given(data=st.data())
def test_codes_equal_the_single_form(space: FiniteStateSpace, data: st.DataObject) -> None:
    """Row n of `codes` is `code` of the n-th encoding."""
    encodings = [draw_prefix(space, data, space.max_length) for _ in range(data.draw(st.integers(0, 3), "rows"))]
    assert space.codes(*space.pack(encodings)).tolist() == [space.code(encoding) for encoding in encodings]


@every_space
@given(data=st.data())
def test_codes_ignore_what_lies_beyond_the_length(space: FiniteStateSpace, data: st.DataObject) -> None:
    """Garbage behind a complete encoding does not change its code."""
    encodings = [draw_prefix(space, data, space.max_length) for _ in range(2)]
    prefixes, lengths = space.pack(encodings)
    garbage = data.draw(st.integers(0, space.max_choices - 1), "garbage")
    dirty = np.where(np.arange(space.max_length) < lengths[:, None], prefixes, garbage)
    assert space.codes(dirty, lengths).tolist() == space.codes(prefixes, lengths).tolist()


@every_space
@given(data=st.data())
def test_the_decision_is_that_of_the_state(space: FiniteStateSpace, data: st.DataObject) -> None:
    """`decision` follows the prefix and asks the grammar."""
    prefix = draw_prefix(space, data, data.draw(st.integers(0, space.max_length), "length"))
    assert space.decision(prefix) == space.decision_at(follow_all(space, prefix))


def test_prefixes_of_one_state_share_their_junction() -> None:
    """What comes next is kept once a state, not once a prefix."""
    space = Walks(steps=8)
    junctions = {id(space.junction(prefix)) for prefix in itertools.product((LEFT, RIGHT), repeat=5)}
    assert len(junctions) == 1


def test_spaces_stay_values_after_their_automaton_was_built() -> None:
    """What is computed once is no part of a space's value."""
    used, fresh = Walks(steps=4), Walks(steps=4)
    used.code(used.encoding_at(3))
    assert (used, hash(used)) == (fresh, hash(fresh))
