"""What every search space promises, whoever wrote it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import ToySpace

from nas_gym.errors import InvalidEncoding
from nas_gym.search_spaces import SEARCH_SPACES, Batch, Encoding, SearchSpace, make_space
from nas_gym.search_spaces.eas import EASSpace
from nas_gym.search_spaces.metaqnn import REDUCED, MetaQNNSpace

# Some promises are checked choice by choice, of which the published size of this one has 1,101.
SMALLER = {"blockqnn": {"max_index": 5}}
SPACES: list[SearchSpace] = [
    ToySpace(),
    *(make_space(name, SMALLER.get(name)) for name in SEARCH_SPACES),
    MetaQNNSpace(**REDUCED),
    EASSpace(blocks=((8, 8),), units=(), wider=1, deeper=2, filter_levels=(8, 16), kernels=(1, 3), max_layers=4),
    EASSpace(network="C8x3 C16x1 P C8x3 A", wider=1, deeper=1, filter_levels=(8, 16), kernels=(1, 3), max_layers=3),
]
SMALL_ENOUGH = 100_000

every_space = pytest.mark.parametrize("space", SPACES, ids=[space.signature for space in SPACES])
every_countable_space = pytest.mark.parametrize(
    "space",
    [space for space in SPACES if (space.size() or SMALL_ENOUGH) < SMALL_ENOUGH],
    ids=lambda space: space.signature,
)
toy = ToySpace()


def legal_choices(space: SearchSpace, prefix: Encoding) -> list[int]:
    """Return the legal next choices; none after a complete prefix."""
    decision = space.decision(prefix)
    return [] if decision is None else [choice for choice, allowed in enumerate(decision.mask) if allowed]


def walk(space: SearchSpace) -> Iterator[Encoding]:
    """Iterate over all reachable prefixes, finished and unfinished."""
    queue: deque[Encoding] = deque([()])
    while queue:
        prefix = queue.popleft()
        yield prefix
        queue.extend((*prefix, choice) for choice in legal_choices(space, prefix))


def draw_prefix(space: SearchSpace, data: st.DataObject, length: int | None = None) -> Encoding:
    """Draw a legal prefix of a drawn length, or a complete encoding if it ends before."""
    prefix: Encoding = ()
    target = data.draw(st.integers(0, space.max_length), "length") if length is None else length
    while len(prefix) < target and (legal := legal_choices(space, prefix)):
        prefix = (*prefix, data.draw(st.sampled_from(legal), "choice"))
    return prefix


def draw_encoding(space: SearchSpace, data: st.DataObject) -> Encoding:
    """Draw a complete encoding."""
    return draw_prefix(space, data, length=space.max_length)


def draw_prefixes(space: SearchSpace, data: st.DataObject) -> list[Encoding]:
    """Draw a batch of prefixes."""
    return [draw_prefix(space, data) for _ in range(data.draw(st.integers(0, 5), "rows"))]


# --- the grammar -----------------------------------------------------------------------------------


@every_countable_space
def test_enumerate_yields_distinct_encodings(space: SearchSpace) -> None:
    """No encoding comes twice."""
    encodings = list(space.enumerate())
    assert len(set(encodings)) == len(encodings)


@every_countable_space
def test_enumerate_yields_as_many_encodings_as_size_says(space: SearchSpace) -> None:
    """`size` is exact."""
    assert sum(1 for _ in space.enumerate()) == space.size()


@every_countable_space
def test_enumerate_yields_exactly_the_complete_prefixes_of_the_grammar(space: SearchSpace) -> None:
    """Walking the grammar by hand reaches the same encodings."""
    assert set(space.enumerate()) == {prefix for prefix in walk(space) if space.decision(prefix) is None}


@every_countable_space
def test_enumerate_is_lexicographic(space: SearchSpace) -> None:
    """The order is that of the decisions."""
    encodings = list(space.enumerate())
    assert encodings == sorted(encodings)


@every_countable_space
def test_every_unfinished_prefix_has_a_legal_choice(space: SearchSpace) -> None:
    """Nobody can walk into a dead end."""
    stuck = [prefix for prefix in walk(space) if space.decision(prefix) and not legal_choices(space, prefix)]
    assert stuck == []


@every_countable_space
def test_no_architecture_takes_more_decisions_than_max_length(space: SearchSpace) -> None:
    """`max_length` is reached and never exceeded."""
    assert max(len(encoding) for encoding in space.enumerate()) == space.max_length


@every_space
@given(data=st.data())
def test_decisions_describe_themselves_consistently(space: SearchSpace, data: st.DataObject) -> None:
    """A decision has distinct labels, a mask of C entries that allows only labelled choices, and a known kind."""
    decision = space.decision(draw_prefix(space, data))
    if decision is not None:
        assert len(set(decision.labels)) == len(decision.labels) <= space.max_choices
        assert len(decision.mask) == space.max_choices
        assert not any(decision.mask[len(decision.labels) :])
        assert 0 <= decision.kind < space.kinds


@every_space
@given(data=st.data())
def test_a_complete_encoding_has_no_next_decision_and_says_so(space: SearchSpace, data: st.DataObject) -> None:
    """`is_complete` agrees with `decision`."""
    prefix = draw_prefix(space, data)
    assert space.is_complete(prefix) == (space.decision(prefix) is None)


# --- the grammar in arrays -------------------------------------------------------------------------


@every_space
@given(data=st.data())
def test_masks_equal_the_decisions(space: SearchSpace, data: st.DataObject) -> None:
    """Row n of `masks` is the mask of the n-th decision, all True where none is due."""
    prefixes = draw_prefixes(space, data)
    decisions = [space.decision(prefix) for prefix in prefixes]
    expected = [[True] * space.max_choices if decision is None else list(decision.mask) for decision in decisions]
    masks = space.masks(*space.pack(prefixes))
    assert masks.dtype == np.bool_
    assert masks.shape == (len(prefixes), space.max_choices)
    assert masks.tolist() == expected


@every_space
@given(data=st.data())
def test_complete_equals_the_decisions(space: SearchSpace, data: st.DataObject) -> None:
    """Row n of `complete` tells whether the n-th prefix has no decision left."""
    prefixes = draw_prefixes(space, data)
    complete = space.complete(*space.pack(prefixes))
    assert complete.dtype == np.bool_
    assert complete.tolist() == [space.decision(prefix) is None for prefix in prefixes]


@every_space
@given(data=st.data())
def test_junction_equals_the_decision(space: SearchSpace, data: st.DataObject) -> None:
    """All forms of a mask that a step needs say the same as the decision."""
    prefix = draw_prefix(space, data)
    decision, junction = space.decision(prefix), space.junction(prefix)
    expected = [True] * space.max_choices if decision is None else list(decision.mask)
    assert junction.complete == (decision is None)
    assert junction.mask.tolist() == junction.mask_int8.astype(bool).tolist() == junction.legal == expected


@every_space
@given(data=st.data())
def test_the_cached_mask_cannot_be_written_to(space: SearchSpace, data: st.DataObject) -> None:
    """A caller who writes into a shared mask gets an error, not a changed grammar."""
    with pytest.raises(ValueError, match="read-only"):
        space.junction(draw_prefix(space, data)).mask[0] = False


@every_space
@given(data=st.data())
def test_entries_beyond_the_length_are_ignored(space: SearchSpace, data: st.DataObject) -> None:
    """Garbage behind a prefix changes neither masks nor completeness nor observation."""
    prefixes, lengths = space.pack(draw_prefixes(space, data))
    garbage = np.full_like(prefixes, data.draw(st.integers(0, space.max_choices - 1), "garbage"))
    dirty = np.where(np.arange(space.max_length) < lengths[:, None], prefixes, garbage)
    for view in (space.masks, space.complete, space.observe, space.states):
        np.testing.assert_array_equal(view(dirty, lengths), view(prefixes, lengths))


@every_space
@given(data=st.data())
def test_rows_is_the_inverse_of_pack(space: SearchSpace, data: st.DataObject) -> None:
    """Prefixes survive the way into arrays and back."""
    prefixes = draw_prefixes(space, data)
    assert space.rows(*space.pack(prefixes)) == prefixes


@every_space
@given(data=st.data())
def test_encodings_gives_the_rows_of_a_batch_as_tuples(space: SearchSpace, data: st.DataObject) -> None:
    """The object array of a batch, complete or not, holds its rows."""
    prefixes = draw_prefixes(space, data)
    assert list(space.encodings(Batch.of(space, prefixes))) == prefixes


# --- what a learner sees ---------------------------------------------------------------------------


@every_space
@given(data=st.data())
def test_observations_lie_within_observation_nvec(space: SearchSpace, data: st.DataObject) -> None:
    """Every observed feature is an integer from 0 to its number of values minus one."""
    prefixes = draw_prefixes(space, data)
    observations = space.observe(*space.pack(prefixes))
    assert observations.shape == (len(prefixes), len(space.observation_nvec))
    assert np.all((observations >= 0) & (observations < space.observation_nvec))


@every_space
@given(data=st.data())
def test_states_lie_within_states_nvec(space: SearchSpace, data: st.DataObject) -> None:
    """Every feature of the published state is an integer from 0 to its number of values minus one."""
    prefixes = draw_prefixes(space, data)
    states = space.states(*space.pack(prefixes))
    assert states.shape == (len(prefixes), len(space.states_nvec))
    assert np.all((states >= 0) & (states < space.states_nvec))


@every_space
@given(data=st.data())
def test_observing_does_not_change_the_prefixes(space: SearchSpace, data: st.DataObject) -> None:
    """`observe` leaves its arguments alone."""
    prefixes, lengths = space.pack(draw_prefixes(space, data))
    before = prefixes.copy()
    space.observe(prefixes, lengths)
    np.testing.assert_array_equal(prefixes, before)


def test_the_default_observation_is_the_prefix_plus_one_and_zero_where_undecided() -> None:
    """`conv 3x3` of the toy space is seen as 2, 2 and four zeros."""
    assert toy.observe(*toy.pack([(1, 1)])).tolist() == [[2, 2, 0, 0, 0, 0]]


@every_space
@given(data=st.data())
def test_every_prefix_can_be_drawn(space: SearchSpace, data: st.DataObject) -> None:
    """The sketch of a finished or unfinished architecture is a graph in topological order."""
    sketch = space.sketch(draw_prefix(space, data))
    assert len(sketch.nodes) >= 2
    assert all(sketch.nodes)
    assert sketch.edges
    assert all(0 <= source < target < len(sketch.nodes) for source, target, _ in sketch.edges)


# --- validation ------------------------------------------------------------------------------------


@every_space
@given(data=st.data())
def test_validate_accepts_every_architecture(space: SearchSpace, data: st.DataObject) -> None:
    """A complete legal sequence comes back unchanged."""
    encoding = draw_encoding(space, data)
    assert space.validate(encoding) == encoding


@every_space
@pytest.mark.parametrize("convert", [list, np.array, np.uint8], ids=["list", "int64 array", "uint8 array"])
def test_validate_returns_a_tuple_of_python_integers(space: SearchSpace, convert: type) -> None:
    """Sequences of any integer type are accepted and normalised."""
    encoding = space.sample(np.random.default_rng(0))
    values = space.validate(convert(encoding))
    assert values == encoding
    assert [type(value) for value in values] == [int] * len(encoding)


@every_space
@pytest.mark.parametrize(
    "convert",
    [
        pytest.param(lambda encoding: None, id="None"),
        pytest.param(lambda encoding: 0, id="a number"),
        pytest.param(lambda encoding: "".join(map(str, encoding)), id="a string of digits"),
        pytest.param(lambda encoding: [float(choice) for choice in encoding], id="floats"),
        pytest.param(lambda encoding: np.array(encoding) + 0.5, id="a float array"),
        pytest.param(lambda encoding: [*encoding[:-1], None], id="a None inside"),
    ],
)
def test_validate_rejects_other_types(space: SearchSpace, convert: object) -> None:
    """What is not a sequence of integers is not rounded or parsed into one."""
    assert callable(convert)
    with pytest.raises(InvalidEncoding, match="expected a sequence of integers"):
        space.validate(convert(space.sample(np.random.default_rng(0))))


@every_space
@given(data=st.data())
def test_validate_rejects_a_surplus_decision(space: SearchSpace, data: st.DataObject) -> None:
    """A complete encoding cannot be continued."""
    with pytest.raises(InvalidEncoding, match="complete after"):
        space.validate((*draw_encoding(space, data), 0))


@every_space
@given(data=st.data())
def test_validate_rejects_an_unfinished_architecture(space: SearchSpace, data: st.DataObject) -> None:
    """A complete encoding without its last decisions is none."""
    encoding = draw_encoding(space, data)
    with pytest.raises(InvalidEncoding, match="more are due"):
        space.validate(encoding[: data.draw(st.integers(0, len(encoding) - 1), "length")])


@every_space
@given(data=st.data())
def test_validate_rejects_a_choice_out_of_range(space: SearchSpace, data: st.DataObject) -> None:
    """Choices below 0 or beyond the labels are refused, and the position is named."""
    encoding = list(draw_encoding(space, data))
    position = data.draw(st.integers(0, len(encoding) - 1), "position")
    encoding[position] = data.draw(st.integers(max_value=-1) | st.integers(min_value=space.max_choices), "choice")
    with pytest.raises(InvalidEncoding, match=rf"decision {position} is {encoding[position]}, allowed are \["):
        space.validate(encoding)


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        pytest.param((0,), r"decision 0 is 0, allowed are \[1, 2\]", id="stop at the start"),
        pytest.param((2, 2, 0), r"decision 1 is 2, allowed are \[0, 1\]", id="pool after pool"),
        pytest.param((3, 0), r"decision 0 is 3, allowed are \[1, 2\]", id="choice without a label"),
    ],
)
def test_validate_rejects_a_masked_choice(encoding: Encoding, message: str) -> None:
    """A choice that the context forbids is refused, and the legal ones are named."""
    with pytest.raises(InvalidEncoding, match=message):
        toy.validate(encoding)


@every_space
@pytest.mark.parametrize("method", ["decode", "to_string", "canonical", "neighbours"])
def test_every_view_of_an_architecture_refuses_an_unfinished_one(space: SearchSpace, method: str) -> None:
    """Methods that take an architecture check it."""
    with pytest.raises(InvalidEncoding):
        getattr(space, method)(())


# --- notation and identity -------------------------------------------------------------------------


@every_space
@given(data=st.data())
def test_from_string_is_the_inverse_of_to_string(space: SearchSpace, data: st.DataObject) -> None:
    """The notation says everything about an encoding."""
    encoding = draw_encoding(space, data)
    assert space.from_string(space.to_string(encoding)) == encoding


@every_space
@pytest.mark.parametrize("text", ["", "rubbish", "conv 3x3 rubbish", "|none~0|"])
def test_from_string_rejects_other_notations(space: SearchSpace, text: str) -> None:
    """Text in another notation is refused."""
    with pytest.raises(InvalidEncoding):
        space.from_string(text)


@every_space
@given(data=st.data())
def test_decode_offers_a_graph_in_topological_order(space: SearchSpace, data: st.DataObject) -> None:
    """The decoded architecture names its nodes and its edges, sources before targets."""
    labels, edges = space.decode(draw_encoding(space, data)).graph()
    assert all(0 <= source < target < len(labels) for source, target, _ in edges)


@every_countable_space
def test_decode_is_injective(space: SearchSpace) -> None:
    """Two encodings are two architectures."""
    assert len({space.decode(encoding) for encoding in space.enumerate()}) == space.size()


@every_countable_space
def test_code_is_injective(space: SearchSpace) -> None:
    """No two encodings share a code."""
    assert len({space.code(encoding) for encoding in space.enumerate()}) == space.size()


@every_countable_space
def test_codes_fit_63_bits_where_they_are_exact(space: SearchSpace) -> None:
    """Codes are not negative and can be stored as int64."""
    assert all(0 <= space.code(encoding) < 2**63 for encoding in space.enumerate())


@every_countable_space
def test_the_codes_of_a_dense_space_count_from_zero(space: SearchSpace) -> None:
    """Where a space calls itself dense, its codes index an array of its size."""
    if space.dense:
        assert [space.code(encoding) for encoding in space.enumerate()] == list(range(space.size() or 0))


@every_space
@given(data=st.data())
def test_codes_of_a_batch_equal_those_of_its_rows(space: SearchSpace, data: st.DataObject) -> None:
    """`codes` is `code` in arrays."""
    encodings = [draw_encoding(space, data) for _ in range(3)]
    expected = [space.code(encoding) for encoding in encodings]
    assert space.codes(*space.pack(encodings)).tolist() == expected
    assert Batch.of(space, encodings).codes.tolist() == expected


@every_space
@given(data=st.data())
def test_canonical_is_idempotent(space: SearchSpace, data: st.DataObject) -> None:
    """The representative of a representative is itself."""
    canonical = space.canonical(draw_encoding(space, data))
    assert space.canonical(canonical) == canonical


@every_space
@given(data=st.data())
def test_canonical_codes_are_the_codes_of_the_canonical_encodings(space: SearchSpace, data: st.DataObject) -> None:
    """`canonical_codes` is `code` after `canonical` in arrays."""
    encodings = [draw_encoding(space, data) for _ in range(3)]
    expected = [space.code(space.canonical(encoding)) for encoding in encodings]
    assert space.canonical_codes(Batch.of(space, encodings)).tolist() == expected


# --- moving around ---------------------------------------------------------------------------------


@every_space
@given(data=st.data())
def test_neighbours_are_architectures(space: SearchSpace, data: st.DataObject) -> None:
    """Every neighbour is complete and legal."""
    neighbours = space.neighbours(draw_encoding(space, data))
    assert [space.validate(neighbour) for neighbour in neighbours] == neighbours


@every_space
@given(data=st.data())
def test_neighbours_are_distinct_and_others(space: SearchSpace, data: st.DataObject) -> None:
    """An encoding is not its own neighbour, and none comes twice."""
    encoding = draw_encoding(space, data)
    neighbours = space.neighbours(encoding)
    assert neighbours
    assert len({encoding, *neighbours}) == len(neighbours) + 1


@every_space
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_mutate_returns_a_neighbour(space: SearchSpace, data: st.DataObject, seed: int) -> None:
    """A mutation is a step to a neighbour."""
    encoding = draw_encoding(space, data)
    assert space.mutate(encoding, np.random.default_rng(seed)) in space.neighbours(encoding)


@every_space
def test_mutate_reaches_every_neighbour(space: SearchSpace) -> None:
    """No neighbour is out of reach of mutations."""
    rng = np.random.default_rng(0)
    encoding = space.sample(rng)
    neighbours = set(space.neighbours(encoding))
    assert {space.mutate(encoding, rng) for _ in range(100 * len(neighbours))} == neighbours


@every_space
@given(seed=st.integers(0, 2**32))
def test_samples_are_architectures(space: SearchSpace, seed: int) -> None:
    """Every sample is complete and legal."""
    sample = space.sample(np.random.default_rng(seed))
    assert space.validate(sample) == sample


@every_space
@given(seed=st.integers(0, 2**32))
def test_sampling_depends_on_the_generator_alone(space: SearchSpace, seed: int) -> None:
    """The same seed gives the same sample."""
    assert space.sample(np.random.default_rng(seed)) == space.sample(np.random.default_rng(seed))


@every_space
def test_sampling_covers_every_first_and_second_choice(space: SearchSpace) -> None:
    """Among enough samples every legal beginning of two decisions, or of one that is all, occurs."""
    rng = np.random.default_rng(0)
    expected = {
        (first, *second)
        for first in legal_choices(space, ())
        for second in ([(choice,) for choice in legal_choices(space, (first,))] or [()])
    }
    assert {space.sample(rng)[:2] for _ in range(20 * len(expected))} == expected


def test_sampling_covers_the_whole_toy_space() -> None:
    """No architecture is left out, the rarest having a probability of 1 in 1,152."""
    rng = np.random.default_rng(0)
    assert {toy.sample(rng) for _ in range(15_000)} == set(toy.enumerate())


def test_mutations_connect_the_whole_toy_space() -> None:
    """From any architecture a walk over neighbours reaches any other one."""
    neighbours = {encoding: toy.neighbours(encoding) for encoding in toy.enumerate()}
    reversed_steps: dict[Encoding, list[Encoding]] = {encoding: [] for encoding in neighbours}
    for encoding, targets in neighbours.items():
        for target in targets:
            reversed_steps[target].append(encoding)
    start = next(iter(neighbours))
    assert reachable(neighbours, start) == reachable(reversed_steps, start) == set(neighbours)


def reachable(steps: dict[Encoding, list[Encoding]], start: Encoding) -> set[Encoding]:
    """Return every encoding that a walk from `start` can reach."""
    seen, queue = {start}, deque([start])
    while queue:
        for target in steps[queue.popleft()]:
            if target not in seen:
                seen.add(target)
                queue.append(target)
    return seen


# --- values ----------------------------------------------------------------------------------------


@every_space
def test_spaces_of_one_class_are_equal_and_hash_alike(space: SearchSpace) -> None:
    """A space is a value: caches and tables are keyed by it."""
    other = type(space)(**space.settings)
    assert (other, hash(other)) == (space, hash(space))


def test_different_spaces_are_not_equal() -> None:
    """No two spaces of the suite are taken for one."""
    assert len(set(SPACES)) == len(SPACES)


@every_space
def test_spaces_are_frozen(space: SearchSpace) -> None:
    """Nobody renames a space."""
    with pytest.raises(FrozenInstanceError):
        space.name = "other"


@pytest.mark.parametrize("name", SEARCH_SPACES)
def test_registered_spaces_are_called_what_the_registry_calls_them(name: str) -> None:
    """The name of a space is its row in the registry."""
    assert SEARCH_SPACES[name]().name == name


# --- the toy space itself --------------------------------------------------------------------------


def test_the_toy_space_has_as_many_chains_as_its_rules_allow() -> None:
    """5 chains of one layer, 24 of two and 116 of three, counted by the recurrence of pools and convolutions."""
    assert toy.size() == 5 + 24 + 116


def test_the_toy_space_reads_its_own_notation() -> None:
    """Labels in order are the notation, a full chain needs no stop."""
    assert toy.decode(toy.from_string("conv 3x3 pool conv 7x7")).layers == ("conv 3x3", "pool", "conv 7x7")
