"""The blocks of BlockQNN: the published codes, their rules, and isomorphism of their graphs."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_gym.errors import InvalidArgument, InvalidEncoding
from nas_gym.search_spaces import Encoding, make_space
from nas_gym.search_spaces.blockqnn import Block, BlockQNNSpace, LayerCode, LayerType
from nas_gym.testing import check_search_space

published = BlockQNNSpace()
small = BlockQNNSpace(max_index=7)

EXAMPLE = "(1,1,3,0,0) (2,2,3,0,0) (3,5,0,1,2) (4,6,0,3,0) (5,4,0,1,0) (6,7,0,0,0)"
"""Two branches, their sum, that concatenated with the input, and a second leaf."""

CONVOLUTION = (1, 3)
ADD = (5, 0)
FEW_LABELS = (CONVOLUTION, ADD, (6, 0))
"""Types and kernels that blocks are drawn from where equal ones should be frequent."""


def legal(space: BlockQNNSpace, layers: int) -> set[str]:
    """Return the labels that may follow a chain of so many layers."""
    decision = space.decision(chain(space, layers))
    assert decision is not None
    return {label for label, allowed in zip(decision.labels, decision.mask, strict=True) if allowed}


def chain(space: BlockQNNSpace, layers: int) -> Encoding:
    """Return the prefix of so many 3x3 convolutions, one behind the other."""
    return tuple(space.contents.index((1, 3, source, 0)) for source in range(layers))


def encoding_of(contents: Iterable[Sequence[int]], space: BlockQNNSpace = published) -> Encoding:
    """Return the complete encoding of layers (type, kernel, predecessor 1, predecessor 2)."""
    numbers = {content: choice for choice, content in enumerate(space.contents)}
    return space.validate([numbers[tuple(content)] for content in (*contents, (7, 0, 0, 0))])


def relabelled(space: BlockQNNSpace, encoding: Encoding, rng: np.random.Generator) -> Encoding:
    """Return the same block with its layers in a random legal order and inputs swapped at random."""
    remaining = list(space.decode(encoding).layers)
    numbers = {0: 0}
    contents: list[tuple[int, int, int, int]] = []
    while remaining:
        ready = [layer for layer in remaining if all(source in numbers for source in layer.inputs)]
        layer = ready[int(rng.integers(len(ready)))]
        inputs = [numbers[source] for source in layer.inputs]
        if rng.integers(2):
            inputs.reverse()
        numbers[layer.index] = len(numbers)
        contents.append((int(layer.type), layer.kernel, inputs[0], inputs[1] if len(inputs) == 2 else 0))
        remaining.remove(layer)
    return encoding_of(contents, space)


def draw_encoding(
    space: BlockQNNSpace, data: st.DataObject, labels: Iterable[tuple[int, int]] | None = None
) -> Encoding:
    """Draw a block of any number of layers, with any or some (type, kernel) in it."""
    prefix: Encoding = ()
    for _ in range(data.draw(st.integers(1, space.max_index - 1), "layers")):
        decision = space.decision(prefix)
        assert decision is not None
        choices = [
            choice
            for choice in np.flatnonzero(decision.mask).tolist()
            if choice != 0 and (labels is None or space.contents[choice][:2] in labels)
        ]
        prefix = (*prefix, data.draw(st.sampled_from(choices), "layer"))
    return (*prefix, 0)


# --- what is legal ---------------------------------------------------------------------------------


def test_the_first_layer_reads_the_input_alone() -> None:
    """No terminal yet, and nothing that needs two predecessors."""
    assert legal(published, 0) == {
        *("conv1(0)", "conv3(0)", "conv5(0)", "max1(0)", "max3(0)", "avg1(0)", "avg3(0)", "identity(0)"),
    }


def test_the_second_layer_may_end_or_combine_the_first_with_the_input() -> None:
    """2 x 4 + 6 x 2 + 1 = 21 choices."""
    assert legal(published, 1) == {
        "end",
        *("conv1(0)", "conv3(0)", "conv5(0)", "max1(0)", "max3(0)", "avg1(0)", "avg3(0)", "identity(0)"),
        *("conv1(1)", "conv3(1)", "conv5(1)", "max1(1)", "max3(1)", "avg1(1)", "avg3(1)", "identity(1)"),
        *("add(0,1)", "add(1,0)", "concat(0,1)", "concat(1,0)"),
    }


def test_the_third_layer_adds_what_reads_the_second() -> None:
    """Eight of one input, and the new pairs in both orders."""
    assert legal(published, 2) - legal(published, 1) == {
        *("conv1(2)", "conv3(2)", "conv5(2)", "max1(2)", "max3(2)", "avg1(2)", "avg3(2)", "identity(2)"),
        *("add(0,2)", "add(2,0)", "add(1,2)", "add(2,1)"),
        *("concat(0,2)", "concat(2,0)", "concat(1,2)", "concat(2,1)"),
    }


@pytest.mark.parametrize("max_index", [3, 7, 23])
def test_at_the_maximal_index_only_the_terminal_is_left(max_index: int) -> None:
    """A block has at most one layer fewer."""
    assert legal(BlockQNNSpace(max_index), max_index - 1) == {"end"}


def test_behind_the_terminal_nothing_is_due() -> None:
    """One layer and the terminal are a block."""
    assert published.decision((*chain(published, 1), 0)) is None


@pytest.mark.parametrize("predecessors", range(2, 23))
def test_the_number_of_choices_is_the_published_one(predecessors: int) -> None:
    """2t^2 + 6t + 1 with t predecessors, the terminal included."""
    assert len(legal(published, predecessors - 1)) == 2 * predecessors**2 + 6 * predecessors + 1


@pytest.mark.parametrize("predecessors", range(2, 7))
def test_equal_predecessors_add_two_choices_per_predecessor(predecessors: int) -> None:
    """An addition and a concatenation with itself."""
    expected = 2 * predecessors**2 + 8 * predecessors + 1
    assert len(legal(BlockQNNSpace(max_index=7, equal_predecessors=True), predecessors - 1)) == expected


def test_with_equal_predecessors_the_first_layer_may_combine_the_input_with_itself() -> None:
    """The one pair that there is."""
    first = legal(BlockQNNSpace(max_index=7, equal_predecessors=True), 0)
    assert first - legal(small, 0) == {"add(0,0)", "concat(0,0)"}


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        pytest.param(BlockQNNSpace(), 1101, id="published"),
        pytest.param(BlockQNNSpace(max_index=7), 109, id="7"),
        pytest.param(BlockQNNSpace(max_index=7, equal_predecessors=True), 121, id="7, equal predecessors"),
    ],
)
def test_there_are_as_many_choices_as_at_the_largest_index(space: BlockQNNSpace, expected: int) -> None:
    """2P^2 + 6P + 1 with P = max_index - 1, and 2P more with equal predecessors."""
    assert space.max_choices == expected


def test_a_choice_means_the_same_whatever_the_maximal_index() -> None:
    """The choices of a small space are the first ones of a larger one."""
    assert published.contents[: small.max_choices] == small.contents


def test_the_smallest_space_has_the_size_counted_by_hand() -> None:
    """Eight first layers, then the terminal, or 20 second ones with the terminal behind."""
    assert BlockQNNSpace(max_index=3).size() == 8 * (1 + 20)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"max_index": 2}, "max_index must be an integer of at least 3, got 2", id="too small"),
        pytest.param({"max_index": 7.0}, r"max_index must be an integer of at least 3, got 7\.0", id="no integer"),
        pytest.param({"max_index": True}, "max_index must be an integer of at least 3, got True", id="a truth value"),
        pytest.param({"equal_predecessors": 1}, "equal_predecessors must be true or false, got 1", id="a number"),
    ],
)
def test_a_setting_outside_its_range_is_refused(settings: dict[str, Any], message: str) -> None:
    """The message names setting, value and what is allowed."""
    with pytest.raises(InvalidArgument, match=message):
        BlockQNNSpace(**settings)


@pytest.mark.parametrize("space", [published, BlockQNNSpace(7, True)], ids=["defaults", "others"])
def test_a_space_is_made_again_from_its_settings(space: BlockQNNSpace) -> None:
    """As run directories record them, through JSON."""
    assert make_space(space.name, json.loads(json.dumps(space.settings))) == space


@pytest.mark.parametrize("equal_predecessors", [False, True], ids=["distinct", "equal"])
@pytest.mark.parametrize(("max_index", "samples"), [(4, 16), (7, 8), (23, 1)], ids=["4", "7", "23"])
def test_the_space_keeps_the_contract(max_index: int, samples: int, equal_predecessors: bool) -> None:
    """All rules of `check_search_space`; few samples where 1,101 choices at 23 places are tried."""
    check_search_space(BlockQNNSpace(max_index, equal_predecessors), samples=samples)


# --- the block -------------------------------------------------------------------------------------


def test_a_block_holds_the_codes_without_the_terminal() -> None:
    """In the order of their indices."""
    assert published.decode(published.from_string("(1,1,5,0,0) (2,6,0,1,0) (3,7,0,0,0)")) == Block(
        (LayerCode(1, LayerType.CONVOLUTION, 5, 0, 0), LayerCode(2, LayerType.CONCAT, 0, 1, 0))
    )


def test_inputs_are_the_predecessors_that_a_type_has() -> None:
    """One, or two for an addition and a concatenation; the second of the others means nothing."""
    block = published.decode(published.from_string(EXAMPLE))
    assert [block.inputs(layer) for layer in block.layers] == [(0,), (0,), (1, 2), (3, 0), (1,)]


def test_leaves_are_the_layers_that_no_other_reads() -> None:
    """Layers 4 and 5 of the example."""
    assert published.decode(published.from_string(EXAMPLE)).leaves == (4, 5)


def test_the_graph_leads_from_the_input_through_the_layers_to_the_output() -> None:
    """An edge for every predecessor, and one from every leaf to the output."""
    assert published.decode(published.from_string(EXAMPLE)).graph() == (
        ("input", "1:conv3", "2:max3", "3:add", "4:concat", "5:identity", "output"),
        (
            *((0, 1, ""), (0, 2, ""), (1, 3, ""), (2, 3, ""), (3, 4, ""), (0, 4, ""), (1, 5, "")),
            *((4, 6, ""), (5, 6, "")),
        ),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("(1,1,3,0,0) (2,7,0,0,0)", (1, 1), id="one layer"),
        pytest.param("(1,1,3,0,0) (2,2,3,1,0) (3,4,0,2,0) (4,7,0,0,0)", (3, 3), id="chain"),
        pytest.param(EXAMPLE, (5, 7), id="example"),
    ],
)
def test_graph_size_counts_layers_and_the_links_into_them(text: str, expected: tuple[int, int]) -> None:
    """Neither the terminal nor the output counts; a chain has density 1."""
    assert published.graph_size(published.from_string(text)) == expected


def test_an_unfinished_block_is_drawn_with_what_could_be_read_next() -> None:
    """The leaves so far lead to a question mark."""
    sketch = published.sketch(published.from_string(EXAMPLE)[:2])
    assert sketch.nodes == ("input", "1:conv3", "2:max3", "?")
    assert sketch.edges == ((0, 1, ""), (0, 2, ""), (1, 3, ""), (2, 3, ""))


def test_an_empty_block_is_drawn_as_its_input() -> None:
    """Nothing is decided yet."""
    sketch = published.sketch(())
    assert (sketch.nodes, sketch.edges) == (("input", "?"), ((0, 1, ""),))


def test_a_finished_block_is_drawn_as_its_graph() -> None:
    """With the output in place of the question mark."""
    encoding = published.from_string(EXAMPLE)
    sketch = published.sketch(encoding)
    assert (sketch.nodes, sketch.edges) == published.decode(encoding).graph()


# --- what the published agent sees -----------------------------------------------------------------


def test_the_state_is_the_last_code() -> None:
    """All zero before the first layer; the terminal has its index too."""
    encoding = published.from_string(EXAMPLE)
    prefixes = [encoding[:length] for length in range(len(encoding) + 1)]
    assert published.states(*published.pack(prefixes)).tolist() == [
        [0, 0, 0, 0, 0],
        [1, 1, 3, 0, 0],
        [2, 2, 3, 0, 0],
        [3, 5, 0, 1, 2],
        [4, 6, 0, 3, 0],
        [5, 4, 0, 1, 0],
        [6, 7, 0, 0, 0],
    ]


def test_the_sizes_of_the_state_reach_the_largest_code_and_no_further() -> None:
    """Index 7, type 7, kernel 5, predecessors up to 5, and the zeros."""
    assert small.states_nvec.tolist() == [8, 8, 6, 6, 6]


# --- notation --------------------------------------------------------------------------------------


@given(data=st.data())
def test_strings_round_trip(data: st.DataObject) -> None:
    """`from_string` inverts `to_string` for blocks of all lengths."""
    encoding = draw_encoding(published, data)
    assert published.from_string(published.to_string(encoding)) == encoding


def test_the_notation_is_the_published_list_of_codes() -> None:
    """A convolution, its sum with the input, the terminal."""
    encoding = encoding_of([(1, 3, 0, 0), (5, 0, 0, 1)])
    assert published.to_string(encoding) == "(1,1,3,0,0) (2,5,0,0,1) (3,7,0,0,0)"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("(1,1,3,0,0), (2,5,0,0,1), (3,7,0,0,0)", id="commas"),
        pytest.param("[(1,1,3,0,0), (2,5,0,0,1), (3,7,0,0,0)]", id="list of tuples"),
        pytest.param("[[1,1,3,0,0],[2,5,0,0,1],[3,7,0,0,0]]", id="list of lists"),
        pytest.param("[1,1,3,0,0] [2,5,0,0,1] [3,7,0,0,0]", id="square brackets"),
        pytest.param("(1,1,3,0,0)(2,5,0,0,1)(3,7,0,0,0)", id="no spaces"),
        pytest.param(" ( 1, 1, 3, 0, 0 )\n(2, 5, 0, 0, 1)\n(3, 7, 0, 0, 0)\n", id="white space"),
    ],
)
def test_other_brackets_and_separators_are_accepted(text: str) -> None:
    """Lists are printed in many ways."""
    assert published.from_string(text) == encoding_of([(1, 3, 0, 0), (5, 0, 0, 1)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", r"must end with the terminal", id="empty"),
        pytest.param("(1,1,3,0,0)", r"must end with the terminal", id="no terminal"),
        pytest.param("conv", r"code 1 is 'conv', expected five integers", id="no code"),
        pytest.param("(1,1,3,0) (2,7,0,0,0)", r"code 1 is '\(1,1,3,0\)', expected five integers", id="four"),
        pytest.param("(1,1,3,0,0,0) (2,7,0,0,0)", r"code 1 .*expected five integers", id="six"),
        pytest.param("(1,1,3,0,0] (2,7,0,0,0)", r"code 1 .*expected five integers", id="unequal brackets"),
        pytest.param("(1,1,3,0,0) (2,7,0,0,0", r"code 2 .*expected five integers", id="open bracket"),
        pytest.param(f"(1,1,3,0,{'0' * 5000})", r"code 1 .*expected five integers", id="endless number"),
        pytest.param("(2,1,3,0,0)", r"code 1 is '\(2,1,3,0,0\)', but its index must be 1", id="index"),
        pytest.param("(1,8,3,0,0)", r"code 1 is .*but its type must be 1 to 7", id="type above"),
        pytest.param("(1,0,3,0,0)", r"code 1 is .*but its type must be 1 to 7", id="type below"),
        pytest.param("(1,1,7,0,0)", r"the kernel of type 1 \(conv\) must be 1 or 3 or 5", id="convolution kernel"),
        pytest.param("(1,2,5,0,0)", r"the kernel of type 2 \(max\) must be 1 or 3", id="pooling kernel"),
        pytest.param("(1,4,1,0,0)", r"the kernel of type 4 \(identity\) must be 0", id="identity kernel"),
        pytest.param("(1,1,3,1,0)", r"predecessors must lie between 0 and 0", id="itself"),
        pytest.param("(1,1,3,0,0) (2,1,3,-1,0)", r"code 2 .*must lie between 0 and 1", id="negative"),
        pytest.param("(1,1,3,0,0) (2,5,0,0,2)", r"code 2 .*must lie between 0 and 1", id="second is itself"),
        pytest.param("(1,1,3,0,0) (2,1,3,0,1)", r"type 1 has no second predecessor", id="surplus predecessor"),
        pytest.param("(1,5,0,0,0)", r"the predecessors of type 5 must differ", id="add first"),
        pytest.param("(1,1,3,0,0) (2,6,0,1,1)", r"the predecessors of type 6 must differ", id="equal predecessors"),
        pytest.param("(1,7,0,0,0)", r"code 1 .*the terminal may not come first", id="terminal first"),
        pytest.param("(1,1,3,0,0) (2,7,0,1,0)", r"type 7 has no predecessors", id="terminal with a predecessor"),
        pytest.param("(1,1,3,0,0) (2,7,0,0,0) (3,7,0,0,0)", r"code 3 .*but the terminal ends the block", id="behind"),
        pytest.param("(1,1,3,0,0) (2,7,0,0,0)?", r"code 3 is '\?', but the terminal ends the block", id="rest"),
    ],
)
def test_an_illegal_string_is_refused_and_the_broken_rule_is_named(text: str, message: str) -> None:
    """Whoever mistypes a block learns where, and why it is none."""
    with pytest.raises(InvalidEncoding, match=message):
        published.from_string(text)


def test_a_layer_at_the_maximal_index_is_refused() -> None:
    """Only the terminal may stand there."""
    text = "(1,1,3,0,0) (2,1,3,1,0) (3,1,3,2,0) (4,7,0,0,0)"
    with pytest.raises(InvalidEncoding, match=r"code 3 .*only the terminal may have the index 3 \(max_index\)"):
        BlockQNNSpace(max_index=3).from_string(text)


# --- isomorphism -----------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [small, BlockQNNSpace(7, True), published], ids=["7", "7, equal", "23"])
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_relabelled_blocks_share_their_representative(space: BlockQNNSpace, data: st.DataObject, seed: int) -> None:
    """Neither the order of layers nor that of inputs changes it."""
    encoding = draw_encoding(space, data, data.draw(st.sampled_from([None, FEW_LABELS])))
    assert space.canonical(relabelled(space, encoding, np.random.default_rng(seed))) == space.canonical(encoding)


@pytest.mark.parametrize("space", [small, BlockQNNSpace(7, True)], ids=["distinct", "equal"])
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_blocks_share_their_representative_exactly_if_they_are_isomorphic(
    space: BlockQNNSpace, data: st.DataObject, seed: int
) -> None:
    """Compared with networkx, for blocks of up to six layers: independent ones, and neighbours of relabelled ones."""
    networkx = pytest.importorskip("networkx")

    def graph(encoding: Encoding) -> Any:
        found = networkx.MultiDiGraph()
        found.add_node(0, label="input")
        for layer in space.decode(encoding).layers:
            found.add_node(layer.index, label=(int(layer.type), layer.kernel))
            found.add_edges_from((source, layer.index) for source in layer.inputs)
        return found

    one = draw_encoding(space, data, FEW_LABELS)
    if data.draw(st.booleans(), "independent"):
        other = draw_encoding(space, data, FEW_LABELS)
    else:
        rng = np.random.default_rng(seed)
        other = relabelled(space, space.mutate(relabelled(space, one, rng), rng), rng)
    isomorphic = networkx.is_isomorphic(
        graph(one), graph(other), node_match=lambda mine, yours: mine["label"] == yours["label"]
    )
    assert (space.canonical(one) == space.canonical(other)) == isomorphic


def smallest_relabelling(block: Block) -> tuple[Any, ...]:
    """Return the smallest list of labels and sorted inputs under all orders of the layers, tried one by one."""
    found: list[tuple[Any, ...]] = []
    for order in itertools.permutations(block.layers):
        numbers = {0: 0, **{layer.index: number for number, layer in enumerate(order, start=1)}}
        codes = tuple((layer.type, layer.kernel, sorted(numbers[source] for source in layer.inputs)) for layer in order)
        found.append(codes)
    return min(found)


@pytest.mark.parametrize("equal_predecessors", [False, True], ids=["distinct", "equal"])
def test_the_classes_of_all_small_blocks_are_those_of_trying_all_orders(equal_predecessors: bool) -> None:
    """All blocks of up to three layers, by brute force."""
    space = BlockQNNSpace(max_index=4, equal_predecessors=equal_predecessors)
    classes: dict[str, set[Encoding]] = defaultdict(set)
    for encoding in space.enumerate():
        classes[repr(smallest_relabelling(space.decode(encoding)))].add(space.canonical(encoding))
    assert {len(representatives) for representatives in classes.values()} == {1}
    assert len(set.union(*classes.values())) == len(classes)


@given(data=st.data())
def test_a_representative_represents_itself(data: st.DataObject) -> None:
    """And is an architecture of the space."""
    representative = published.canonical(draw_encoding(published, data))
    assert published.canonical(published.validate(representative)) == representative


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(
            [(1, 3, 0, 0), (2, 3, 1, 0), (3, 3, 1, 0)],
            [(1, 3, 0, 0), (1, 3, 0, 0), (2, 3, 1, 0), (3, 3, 2, 0)],
            id="a shared layer and two equal ones",
        ),
        pytest.param(
            [(1, 3, 0, 0), (1, 3, 0, 0), (5, 0, 0, 1), (5, 0, 0, 1)],
            [(1, 3, 0, 0), (1, 3, 0, 0), (5, 0, 0, 1), (5, 0, 0, 2)],
            id="two readers of one and one reader of each",
        ),
        pytest.param([(1, 3, 0, 0), (4, 0, 1, 0)], [(1, 3, 0, 0)], id="an identity is a layer"),
        pytest.param([(2, 1, 0, 0)], [(3, 1, 0, 0)], id="windows of one pixel"),
        pytest.param([(5, 0, 0, 0)], [(6, 0, 0, 0)], id="sum and concatenation"),
        pytest.param(
            [(1, 3, 0, 0), (1, 3, 1, 0), (5, 0, 0, 2)],
            [(1, 3, 0, 0), (1, 3, 1, 0), (5, 0, 1, 2)],
            id="the input is no layer like others",
        ),
    ],
)
def test_blocks_that_are_built_differently_differ_in_class(
    one: list[tuple[int, ...]], other: list[tuple[int, ...]]
) -> None:
    """Nothing is simplified or merged."""
    space = BlockQNNSpace(max_index=7, equal_predecessors=True)
    assert space.canonical(encoding_of(one, space)) != space.canonical(encoding_of(other, space))


def test_the_representative_of_a_block_worked_out_by_hand() -> None:
    """Convolutions come before poolings, and the inputs of the sum ascend."""
    encoding = published.from_string("(1,2,3,0,0) (2,1,3,0,0) (3,5,0,2,1) (4,7,0,0,0)")
    found = published.to_string(published.canonical(encoding))
    assert found == "(1,1,3,0,0) (2,2,3,0,0) (3,5,0,1,2) (4,7,0,0,0)"


def parallel(chains: int, length: int) -> list[tuple[int, ...]]:
    """Return equal chains of convolutions side by side, level by level."""
    return [
        (*CONVOLUTION, 0 if level == 0 else (level - 1) * chains + one + 1, 0)
        for level in range(length)
        for one in range(chains)
    ]


def sums(nodes: int, pairs: Iterable[tuple[int, int]]) -> list[tuple[int, ...]]:
    """Return so many convolutions of the input, and the sums of some pairs of them: any graph becomes a block."""
    return [*((*CONVOLUTION, 0, 0) for _ in range(nodes)), *((*ADD, one + 1, other + 1) for one, other in pairs)]


def cycles(*lengths: int) -> list[tuple[int, int]]:
    """Return the edges of rings side by side, whose nodes all look alike from nearby."""
    starts = itertools.accumulate(lengths, initial=0)
    return [
        (start + one, start + (one + 1) % length)
        for start, length in zip(starts, lengths, strict=False)
        for one in range(length)
    ]


CUBE = [(one, one ^ bit) for one in range(8) for bit in (1, 2, 4) if one < one ^ bit]
MOEBIUS_LADDER = [*cycles(8), *((one, one + 4) for one in range(4))]

SYMMETRIC = [
    pytest.param(parallel(22, 1), id="22 convolutions"),
    pytest.param(parallel(20, 1), id="20 convolutions"),
    pytest.param(parallel(10, 2), id="10 chains of 2"),
    pytest.param(parallel(7, 3), id="7 chains of 3"),
    pytest.param(parallel(2, 11), id="2 chains of 11"),
    pytest.param(sums(11, cycles(11)), id="ring of 11"),
    pytest.param(sums(11, cycles(5, 6)), id="rings of 5 and 6"),
    pytest.param(sums(11, cycles(3, 4, 4)), id="rings of 3, 4 and 4"),
    pytest.param(sums(8, CUBE), id="cube"),
    pytest.param(sums(8, MOEBIUS_LADDER), id="Moebius ladder"),
]


@pytest.mark.parametrize("contents", SYMMETRIC)
def test_large_symmetric_blocks_have_one_representative(contents: list[tuple[int, ...]]) -> None:
    """Where most layers look alike, all orders cannot be tried; it finishes, and no relabelling changes it."""
    encoding = encoding_of(contents)
    rng = np.random.default_rng(0)
    assert {published.canonical(relabelled(published, encoding, rng)) for _ in range(5)} == {
        published.canonical(encoding)
    }


def test_large_blocks_that_look_alike_from_nearby_differ_in_class() -> None:
    """Three ways to close eleven sums into rings: colours alone cannot tell them apart."""
    blocks = [encoding_of(sums(11, cycles(*lengths))) for lengths in ((11,), (5, 6), (4, 7), (3, 8), (3, 4, 4))]
    blocks += [encoding_of(sums(8, CUBE)), encoding_of(sums(8, MOEBIUS_LADDER))]
    assert len({published.canonical(block) for block in blocks}) == len(blocks)
