"""The chains of MetaQNN: the published transitions, notation and states."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_gym.errors import InvalidArgument, InvalidEncoding
from nas_gym.search_spaces import Encoding, make_space
from nas_gym.search_spaces.metaqnn import (
    REDUCED,
    Convolution,
    FullyConnected,
    GlobalAveragePooling,
    MetaQNNSpace,
    Pooling,
    Softmax,
    size_bin,
)
from nas_gym.testing import check_search_space

reduced = MetaQNNSpace(**REDUCED)
largest = MetaQNNSpace(max_depth=18, image_size=32)

PUBLISHED = (
    "C(512,5,1) C(256,3,1) C(256,5,1) C(256,3,1) P(5,3) C(512,3,1) C(512,5,1) P(2,2) SM",
    "C(128,1,1) C(512,3,1) C(64,1,1) C(128,3,1) P(2,2) C(256,3,1) P(2,2) C(512,3,1) P(3,2) SM",
    "C(64,3,1) C(128,3,1) P(5,3) C(256,3,1) P(3,2) FC(512) FC(128) SM",
)
"""The best chains on CIFAR-10 (table A2 of the paper's review version)."""

published = pytest.mark.parametrize("text", PUBLISHED, ids=["6.92 %", "8.78 %", "9.48 %"])

SETTINGS: list[dict[str, Any]] = [
    {},
    dict(REDUCED),
    {"max_depth": 18, "image_size": 32},
    {"kernel_rule": "released", "image_size": 7},
    {"pool_first": True, "max_depth": 3},
    {"max_fully_connected": 0, "image_size": 4},
    {"max_fully_connected": 4, "neurons": (8, 32, 16), "image_size": 6},
    {"filters": (), "pools": (), "image_size": 1},
    {"kernels": (1, 9), "pools": ((1, 3), (4, 1)), "neurons": (), "max_depth": 4},
    {"max_depth": 1},
]

every_setting = pytest.mark.parametrize(
    "settings", SETTINGS, ids=[str(settings) if settings else "defaults" for settings in SETTINGS]
)


def small(image_size: int = 28, **settings: Any) -> MetaQNNSpace:
    """Return a space of five layers with one width of convolutions: short tables."""
    defaults = {"max_depth": 5, "filters": (8,), "neurons": (32, 16, 8)}
    return MetaQNNSpace(image_size=image_size, **{**defaults, **settings})


def prefix_of(space: MetaQNNSpace, layers: str) -> Encoding:
    """Return an unfinished chain, every layer of which is checked to be legal."""
    prefix: Encoding = ()
    for layer in layers.split():
        assert layer in legal(space, prefix), f"{layer} is not legal after {prefix}"
        prefix = (*prefix, [str(one) for one in space.layers].index(layer))
    return prefix


def legal(space: MetaQNNSpace, prefix: Encoding) -> list[str]:
    """Return the layers that may come next, in the order of the choices."""
    decision = space.decision(prefix)
    assert decision is not None
    return [label for label, allowed in zip(decision.labels, decision.mask, strict=True) if allowed]


def draw_encoding(space: MetaQNNSpace, data: st.DataObject) -> Encoding:
    """Draw an architecture, layer by layer."""
    prefix: Encoding = ()
    while (decision := space.decision(prefix)) is not None:
        choices = [choice for choice, allowed in enumerate(decision.mask) if allowed]
        prefix = (*prefix, data.draw(st.sampled_from(choices), "layer"))
    return prefix


# --- layers ----------------------------------------------------------------------------------------


def test_the_choices_are_the_published_layers() -> None:
    """Four widths by three kernels, three poolings, three fully connected widths, and the two ends."""
    filters = (64, 128, 256, 512)
    assert MetaQNNSpace().layers == (
        *(Convolution(width, 1) for width in filters),
        *(Convolution(width, 3) for width in filters),
        *(Convolution(width, 5) for width in filters),
        *(Pooling(5, 3), Pooling(3, 2), Pooling(2, 2)),
        *(FullyConnected(512), FullyConnected(256), FullyConnected(128)),
        GlobalAveragePooling(),
        Softmax(),
    )


def test_the_default_depth_is_that_of_svhn_and_mnist() -> None:
    """Twelve layers before the softmax on 28 pixels, so 13 decisions."""
    space = MetaQNNSpace()
    assert (space.max_depth, space.max_length, space.image_size) == (12, 13, 28)


@pytest.mark.parametrize(
    ("pool", "size", "expected"),
    [
        pytest.param(Pooling(5, 3), 28, 8, id="24/3"),
        pytest.param(Pooling(5, 3), 32, 10, id="28/3 up"),
        pytest.param(Pooling(5, 3), 8, 2, id="4/3 up"),
        pytest.param(Pooling(5, 3), 5, 1, id="5 fits once"),
        pytest.param(Pooling(3, 2), 28, 13, id="26/2"),
        pytest.param(Pooling(3, 2), 32, 15, id="30/2, Caffe has 16"),
        pytest.param(Pooling(3, 2), 4, 1, id="2/2"),
        pytest.param(Pooling(2, 2), 28, 14, id="27/2 up"),
        pytest.param(Pooling(2, 2), 7, 3, id="6/2"),
        pytest.param(Pooling(2, 2), 2, 1, id="1/2 up"),
    ],
)
def test_pooling_shrinks_by_the_published_formula(pool: Pooling, size: int, expected: int) -> None:
    """Ceiling of (size - kernel + 1) / stride."""
    assert pool.output_size(size) == expected


@pytest.mark.parametrize(
    ("size", "expected"), [(32, 0), (8, 0), (7, 1), (4, 1), (3, 2), (2, 2), (1, 2)], ids=lambda value: str(value)
)
def test_sizes_fall_into_the_published_bins(size: int, expected: int) -> None:
    """At least 8, 4 to 7, up to 3."""
    assert size_bin(size) == expected


def test_the_graph_of_a_chain_is_a_chain() -> None:
    """From the image through every layer to the softmax."""
    chain = reduced.decode(reduced.from_string("C(8,3,1) GAP SM"))
    assert chain.graph() == (("input", "C(8,3,1)", "GAP", "SM"), ((0, 1, ""), (1, 2, ""), (2, 3, "")))


# --- legal transitions -----------------------------------------------------------------------------

C1, C3, C5, P5, P3, P2 = "C(8,1,1)", "C(8,3,1)", "C(8,5,1)", "P(5,3)", "P(3,2)", "P(2,2)"
FC32, FC16, FC8, GAP, SM = "FC(32)", "FC(16)", "FC(8)", "GAP", "SM"


@pytest.mark.parametrize(
    ("size", "layers", "expected"),
    [
        pytest.param(28, "", [C1, C3, C5, GAP, SM], id="start, large image"),
        pytest.param(8, "", [C1, C3, C5, GAP, SM], id="start, 8 pixels"),
        pytest.param(7, "", [C1, C3, FC32, FC16, FC8, GAP, SM], id="start, 7 pixels"),
        pytest.param(4, "", [C1, C3, FC32, FC16, FC8, GAP, SM], id="start, 4 pixels"),
        pytest.param(3, "", [C1, FC32, FC16, FC8, GAP, SM], id="start, 3 pixels"),
        pytest.param(1, "", [C1, FC32, FC16, FC8, GAP, SM], id="start, 1 pixel"),
        pytest.param(28, C5, [C1, C3, C5, P5, P3, P2, GAP, SM], id="after convolution, large image"),
        pytest.param(8, C5, [C1, C3, C5, P5, P3, P2, GAP, SM], id="after convolution, 8 pixels"),
        pytest.param(7, C3, [C1, C3, P5, P3, P2, FC32, FC16, FC8, GAP, SM], id="after convolution, 7 pixels"),
        pytest.param(4, C3, [C1, C3, P3, P2, FC32, FC16, FC8, GAP, SM], id="after convolution, 4 pixels"),
        pytest.param(3, C1, [C1, P3, P2, FC32, FC16, FC8, GAP, SM], id="after convolution, 3 pixels"),
        pytest.param(2, C1, [C1, P2, FC32, FC16, FC8, GAP, SM], id="after convolution, 2 pixels"),
        pytest.param(1, C1, [C1, FC32, FC16, FC8, GAP, SM], id="after convolution, 1 pixel"),
        pytest.param(28, f"{C1} {P2}", [C1, C3, C5, GAP, SM], id="after pooling to 14"),
        pytest.param(28, f"{C1} {P5}", [C1, C3, C5, GAP, SM], id="after pooling to 8"),
        pytest.param(8, f"{C1} {P2}", [C1, C3, FC32, FC16, FC8, GAP, SM], id="after pooling to 4"),
        pytest.param(8, f"{C1} {P3}", [C1, FC32, FC16, FC8, GAP, SM], id="after pooling to 3"),
        pytest.param(8, f"{C1} {P2} {C1}", [C1, C3, P3, P2, FC32, FC16, FC8, GAP, SM], id="8x8 pooled: no P(5,3)"),
        pytest.param(8, f"{C1} {P5} {C1}", [C1, P2, FC32, FC16, FC8, GAP, SM], id="8x8 pooled to 2: only P(2,2)"),
        pytest.param(7, FC32, [FC32, FC16, FC8, SM], id="after the widest fully connected layer"),
        pytest.param(7, FC16, [FC16, FC8, SM], id="after the middle fully connected layer"),
        pytest.param(7, FC8, [FC8, SM], id="after the narrowest fully connected layer"),
        pytest.param(7, f"{FC32} {FC32}", [SM], id="after the second fully connected layer"),
        pytest.param(7, f"{FC32} {FC8}", [SM], id="after a narrower second fully connected layer"),
        pytest.param(28, GAP, [SM], id="after global average pooling first"),
        pytest.param(4, f"{C1} {P2} {GAP}", [SM], id="after global average pooling"),
        pytest.param(28, f"{C1} {C3} {C1} {C3}", [C1, C3, C5, P5, P3, P2, GAP, SM], id="one below the maximal depth"),
        pytest.param(28, " ".join([C1] * 5), [SM], id="convolutions at the maximal depth"),
        pytest.param(28, f"{C1} {P2} {C1} {C1} {P2}", [SM], id="pooling at the maximal depth"),
        pytest.param(4, f"{C1} {C1} {C1} {C1} {FC32}", [SM], id="fully connected at the maximal depth"),
    ],
)
def test_the_published_rule_allows_exactly(size: int, layers: str, expected: list[str]) -> None:
    """Tables written out by hand from the paper."""
    space = small(size)
    assert legal(space, prefix_of(space, layers)) == expected


@pytest.mark.parametrize(
    ("size", "layers", "expected"),
    [
        pytest.param(28, "", [C1, C3, C5, GAP, SM], id="large image"),
        pytest.param(8, C5, [C1, C3, C5, P5, P3, P2, GAP, SM], id="8 pixels"),
        pytest.param(7, "", [C1, C3, FC32, FC16, FC8, GAP, SM], id="7 pixels"),
        pytest.param(4, C3, [C1, C3, P3, P2, FC32, FC16, FC8, GAP, SM], id="4 pixels"),
        pytest.param(3, "", [FC32, FC16, FC8, GAP, SM], id="3 pixels"),
        pytest.param(1, "", [FC32, FC16, FC8, GAP, SM], id="1 pixel"),
        pytest.param(8, f"{C1} {P3}", [FC32, FC16, FC8, GAP, SM], id="pooled to 3"),
    ],
)
def test_the_released_rule_allows_exactly(size: int, layers: str, expected: list[str]) -> None:
    """Kernels below the bin: no convolution at all up to 3 pixels."""
    space = small(size, kernel_rule="released")
    assert legal(space, prefix_of(space, layers)) == expected


@pytest.mark.parametrize("rule", ["paper", "released"])
def test_a_kernel_is_held_against_the_bin_not_the_image(rule: str) -> None:
    """A window of 9 would fit into 28 pixels, which count as 8."""
    space = MetaQNNSpace(filters=(8,), kernels=(7, 9), kernel_rule=rule)
    assert legal(space, ()) == ["C(8,7,1)", "GAP", "SM"]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        pytest.param("", [C1, C3, C5, P5, P3, P2, GAP, SM], id="start"),
        pytest.param(P2, [C1, C3, C5, GAP, SM], id="never twice"),
    ],
)
def test_pooling_first_can_be_allowed(layers: str, expected: list[str]) -> None:
    """The paper's text does not forbid it, the released code does."""
    space = small(pool_first=True)
    assert legal(space, prefix_of(space, layers)) == expected


@pytest.mark.parametrize(
    ("allowed", "layers", "expected"),
    [
        pytest.param(0, "", [C1, C3, GAP, SM], id="0 of 0"),
        pytest.param(1, "", [C1, C3, FC32, FC16, FC8, GAP, SM], id="0 of 1"),
        pytest.param(1, FC32, [SM], id="1 of 1"),
        pytest.param(3, f"{FC32} {FC16}", [FC16, FC8, SM], id="2 of 3"),
        pytest.param(3, f"{FC32} {FC16} {FC16}", [SM], id="3 of 3"),
    ],
)
def test_so_many_fully_connected_layers_may_follow_each_other(allowed: int, layers: str, expected: list[str]) -> None:
    """As many as the setting says."""
    space = small(4, max_fully_connected=allowed)
    assert legal(space, prefix_of(space, layers)) == expected


def test_a_wider_layer_may_not_follow_whatever_the_order_of_the_widths() -> None:
    """The widths count, not their positions."""
    space = small(4, neurons=(8, 32, 16))
    assert legal(space, prefix_of(space, "FC(16)")) == ["FC(8)", "FC(16)", "SM"]


def test_the_smallest_space_is_the_one_listed_by_hand() -> None:
    """Two layers of one convolution, one pooling and one fully connected width on 4 pixels, in order."""
    space = MetaQNNSpace(max_depth=2, image_size=4, filters=(8,), kernels=(1,), pools=((2, 2),), neurons=(16,))
    assert [space.to_string(encoding) for encoding in space.enumerate()] == [
        "C(8,1,1) C(8,1,1) SM",
        "C(8,1,1) P(2,2) SM",
        "C(8,1,1) FC(16) SM",
        "C(8,1,1) GAP SM",
        "C(8,1,1) SM",
        "FC(16) FC(16) SM",
        "FC(16) SM",
        "GAP SM",
        "SM",
    ]


def test_the_reduced_space_has_6734_chains() -> None:
    """As many as the packaged table has rows."""
    assert reduced.size() == sum(1 for _ in reduced.enumerate()) == 6734


# --- no dead ends ----------------------------------------------------------------------------------


def test_every_unfinished_state_of_the_reduced_space_has_a_legal_layer() -> None:
    """All reachable states are looked at."""
    automaton = reduced.automaton
    assert automaton.masks[~automaton.final].any(axis=1).all()


def test_every_state_of_the_reduced_space_may_end() -> None:
    """The softmax is legal everywhere."""
    automaton = reduced.automaton
    assert automaton.masks[~automaton.final, reduced.layers.index(Softmax())].all()


def test_random_chains_of_the_largest_space_end_in_time() -> None:
    """2,000 random walks that avoid the softmax while they can end with it, after at most 18 layers."""
    rng = np.random.default_rng(0)
    softmax = largest.layers.index(Softmax())
    lengths = set()
    for _ in range(2000):
        prefix: Encoding = ()
        while (decision := largest.decision(prefix)) is not None:
            choices = [choice for choice, allowed in enumerate(decision.mask) if allowed]
            others = [choice for choice in choices if choice != softmax]
            prefix = (*prefix, int(rng.choice(others or choices)))
        assert prefix.index(softmax) == len(prefix) - 1
        lengths.add(len(prefix))
    assert max(lengths) == 19


def test_no_layer_makes_the_image_vanish() -> None:
    """Every reachable representation has at least one pixel."""
    sizes = [state.size for state in largest.automaton.states]  # pyright: ignore[reportAttributeAccessIssue]
    assert min(sizes) == 1


# --- notation --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [28, 32])
@published
def test_the_published_chains_are_legal(text: str, size: int) -> None:
    """At both image sizes that CIFAR-10 was given, and written as they were read."""
    space = MetaQNNSpace(max_depth=18, image_size=size)
    assert space.to_string(space.from_string(text)) == text


def test_a_published_chain_has_the_choices_looked_up_by_hand() -> None:
    """The third of table A2."""
    assert MetaQNNSpace().from_string(PUBLISHED[2]) == (4, 5, 12, 6, 13, 15, 17, 19)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("C(8,3,1) P(2,2) FC(16) SM", id="blanks"),
        pytest.param("  C(8,3,1)\tP(2,2)\n FC(16)   SM\n", id="other white space"),
        pytest.param("C(8,3,1), P(2,2), FC(16), SM", id="commas"),
        pytest.param("C(8,3,1),P(2,2),FC(16),SM", id="commas without blanks"),
        pytest.param("[C(8,3,1), P(2,2), FC(16), SM(10)]", id="the released notation"),
        pytest.param("[ C(8, 3, 1) P(2, 2) FC( 16 ) SM( 10 ) ]", id="blanks inside"),
        pytest.param("C(8,3,1) P(2,2) FC(16) SM(10)", id="number of classes"),
    ],
)
def test_variants_of_the_notation_are_read(text: str) -> None:
    """Commas, brackets and class numbers are no matter."""
    assert reduced.to_string(reduced.from_string(text)) == "C(8,3,1) P(2,2) FC(16) SM"


def test_the_number_of_classes_behind_global_average_pooling_is_no_matter() -> None:
    """As the released code writes it."""
    assert reduced.from_string("[C(8,3,1), GAP(10), SM(10)]") == reduced.from_string("C(8,3,1) GAP SM")


@pytest.mark.parametrize("space", [reduced, MetaQNNSpace(), largest], ids=["reduced", "default", "largest"])
@given(data=st.data())
def test_the_notation_says_everything(space: MetaQNNSpace, data: st.DataObject) -> None:
    """What is written is read as the same architecture."""
    encoding = draw_encoding(space, data)
    assert space.canonical(space.from_string(space.to_string(encoding))) == space.canonical(encoding)


ILLEGAL = [
    pytest.param(
        "C(8,1,1) C(8,1,1) C(8,1,1) C(8,1,1) C(8,1,1) C(8,1,1) SM",
        "layer 6 is 'C(8,1,1)', which is not allowed here: "
        "there are 5 layers already (max_depth), so only SM may follow",
        id="too deep",
    ),
    pytest.param(
        "GAP C(8,1,1) SM",
        "layer 2 is 'C(8,1,1)', which is not allowed here: after global average pooling only SM may follow",
        id="behind global average pooling",
    ),
    pytest.param(
        "C(8,1,1) P(2,2) FC(64) C(8,1,1) SM",
        "layer 4 is 'C(8,1,1)', which is not allowed here: "
        "after a fully connected layer only another one or SM may follow",
        id="convolution behind a fully connected layer",
    ),
    pytest.param(
        "C(8,1,1) P(2,2) FC(64) P(2,2) SM",
        "layer 4 is 'P(2,2)', which is not allowed here: "
        "after a fully connected layer only another one or SM may follow",
        id="pooling behind a fully connected layer",
    ),
    pytest.param(
        "C(8,1,1) P(2,2) FC(64) GAP SM",
        "layer 4 is 'GAP', which is not allowed here: after a fully connected layer only another one or SM may follow",
        id="global average pooling behind a fully connected layer",
    ),
    pytest.param(
        "C(8,1,1) P(2,2) FC(64) FC(16) FC(16) SM",
        "layer 5 is 'FC(16)', which is not allowed here: at most 2 fully connected layers may follow each other",
        id="third fully connected layer",
    ),
    pytest.param(
        "C(8,1,1) P(2,2) FC(16) FC(64) SM",
        "layer 4 is 'FC(64)', which is not allowed here: "
        "a fully connected layer may not be wider than the one before it (16)",
        id="wider fully connected layer",
    ),
    pytest.param(
        "FC(64) SM",
        "layer 1 is 'FC(64)', which is not allowed here: "
        "a fully connected layer needs a representation size below 8, not 8",
        id="fully connected layer on a large image",
    ),
    pytest.param(
        "P(2,2) SM", "layer 1 is 'P(2,2)', which is not allowed here: pooling may not come first", id="pooling first"
    ),
    pytest.param(
        "C(8,1,1) P(2,2) P(2,2) SM",
        "layer 3 is 'P(2,2)', which is not allowed here: pooling may not follow pooling",
        id="pooling twice",
    ),
    pytest.param(
        "C(8,1,1) P(2,2) C(8,1,1) P(5,3) SM",
        "layer 4 is 'P(5,3)', which is not allowed here: its window does not fit into the representation size 4",
        id="window too large",
    ),
    pytest.param(
        "C(8,1,1) P(3,2) C(8,3,1) SM",
        "layer 3 is 'C(8,3,1)', which is not allowed here: "
        "its kernel exceeds the representation size 3, which counts as 1",
        id="kernel too large",
    ),
    pytest.param("C(8,1,1) SM C(8,1,1)", "layer 3 is 'C(8,1,1)', but the chain ends with SM", id="behind the softmax"),
    pytest.param("SM SM", "layer 2 is 'SM', but the chain ends with SM", id="two softmaxes"),
    pytest.param("C(8,1,1) GAP", "the chain must end with SM", id="no softmax"),
    pytest.param("", "the chain must end with SM", id="nothing"),
    pytest.param("[]", "the chain must end with SM", id="empty brackets"),
    pytest.param(
        "C(8,1,1) D(1,2) SM", "layer 2 is 'D(1,2)', which this space does not have; it has C(8,1,1), ", id="D"
    ),
    pytest.param("C(9,1,1) SM", "layer 1 is 'C(9,1,1)', which this space does not have", id="unknown width"),
    pytest.param("C(8,1,2) SM", "layer 1 is 'C(8,1,2)', which this space does not have", id="unknown stride"),
    pytest.param("C(8,1) SM", "layer 1 is 'C(8,1)', which this space does not have", id="no stride"),
    pytest.param("c(8,1,1) SM", "layer 1 is 'c(8,1,1)', which this space does not have", id="lower case"),
    pytest.param("C(8,1,1)SM", "layer 1 is 'C(8,1,1)SM', which this space does not have", id="no blank"),
    pytest.param("C(8,1,1 SM", "layer 1 is 'C(8', which this space does not have", id="parenthesis open"),
    pytest.param("C(8,1,1) SM(ten)", "layer 2 is 'SM(ten)', which this space does not have", id="classes in words"),
]


@pytest.mark.parametrize(("text", "message"), ILLEGAL)
def test_an_illegal_chain_names_the_layer_and_the_rule(text: str, message: str) -> None:
    """Whoever writes a chain learns which rule it breaks, and where."""
    with pytest.raises(InvalidEncoding) as caught:
        reduced.from_string(text)
    assert f"{text!r}: {message}" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "text", "message"),
    [
        pytest.param(
            {"max_fully_connected": 0, "image_size": 4},
            "FC(512) SM",
            "fully connected layers are not allowed (max_fully_connected)",
            id="no fully connected layers",
        ),
        pytest.param(
            {"kernel_rule": "released", "image_size": 3},
            "C(64,1,1) SM",
            "its kernel is not below the representation size 3, which counts as 1",
            id="released kernels",
        ),
    ],
)
def test_a_rule_of_the_settings_is_named_too(settings: dict[str, Any], text: str, message: str) -> None:
    """Rules that only some spaces have."""
    with pytest.raises(InvalidEncoding) as caught:
        MetaQNNSpace(**settings).from_string(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        pytest.param((4, 10), r"decision 0 is 4, allowed are \[0, 1, 2, 3, 9, 10\]", id="pooling first"),
        pytest.param((9, 0), r"decision 1 is 0, allowed are \[10\]", id="behind global average pooling"),
    ],
)
def test_an_illegal_encoding_is_refused(encoding: Encoding, message: str) -> None:
    """Numbers obey the same rules."""
    with pytest.raises(InvalidEncoding, match=message):
        reduced.decode(encoding)


# --- what the published agent sees -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        pytest.param(0, [0, 0, 0, 0], id="nothing yet, 28 pixels"),
        pytest.param(1, [5, 1, 0, 0], id="C(64,3,1)"),
        pytest.param(2, [13, 2, 0, 0], id="P(5,3) to 8"),
        pytest.param(3, [6, 3, 0, 0], id="C(128,3,1)"),
        pytest.param(4, [15, 4, 1, 0], id="P(2,2) to 4"),
        pytest.param(5, [16, 5, 2, 1], id="FC(512)"),
        pytest.param(6, [18, 6, 2, 2], id="FC(128)"),
        pytest.param(7, [20, 7, 2, 0], id="SM"),
    ],
)
def test_states_along_a_chain_are_those_worked_out_by_hand(layers: int, expected: list[int]) -> None:
    """Last layer plus one, depth, size bin, fully connected layers in a row."""
    space = MetaQNNSpace()
    encoding = space.from_string("C(64,3,1) P(5,3) C(128,3,1) P(2,2) FC(512) FC(128) SM")
    assert space.states(*space.pack([encoding[:layers]])).tolist() == [expected]


def test_the_sizes_of_the_state_are_those_worked_out_by_hand() -> None:
    """20 layers or none; 0 to 13 decisions; three bins; 0 to 2 fully connected layers."""
    assert MetaQNNSpace().states_nvec.tolist() == [21, 14, 3, 3]


def test_states_forget_what_came_before_the_last_layer() -> None:
    """That is what lets a table of values generalise."""
    prefixes = [reduced.from_string(text)[:3] for text in ("C(8,1,1) C(8,1,1) GAP SM", "C(16,3,1) C(8,3,1) GAP SM")]
    one, other = reduced.states(*reduced.pack(prefixes)).tolist()
    assert one == other


def test_a_batch_of_no_rows_has_no_states() -> None:
    """The array form takes any number of rows."""
    assert reduced.states(*reduced.pack([])).shape == (0, 4)


# --- settings --------------------------------------------------------------------------------------


@every_setting
def test_the_contract_of_search_spaces_holds(settings: dict[str, Any]) -> None:
    """Every rule that third parties are held to."""
    check_search_space(MetaQNNSpace(**settings), samples=12)


@every_setting
def test_settings_survive_the_way_through_json(settings: dict[str, Any]) -> None:
    """What a table records makes an equal space."""
    space = MetaQNNSpace(**settings)
    again = make_space("metaqnn", json.loads(json.dumps(space.settings)))
    assert (again, hash(again), again.signature) == (space, hash(space), space.signature)


def test_no_two_settings_share_a_signature() -> None:
    """An encoding means something else under another signature."""
    assert len({MetaQNNSpace(**settings).signature for settings in SETTINGS}) == len(SETTINGS)


def test_the_signature_is_readable() -> None:
    """Name and settings as text."""
    space = MetaQNNSpace(max_depth=3, filters=(8,), pools=((2, 2),), neurons=())
    assert space.signature == (
        "metaqnn(max_depth=3,image_size=28,filters=[8],kernels=[1,3,5],pools=[[2,2]],neurons=[],"
        'max_fully_connected=2,pool_first=false,kernel_rule="paper")'
    )


def test_different_settings_are_different_spaces() -> None:
    """Values, pairwise."""
    spaces = [MetaQNNSpace(**settings) for settings in SETTINGS]
    assert all(one != other for one, other in itertools.combinations(spaces, 2))


REFUSED = [
    ("max_depth", 0, "max_depth must be an integer of at least 1, got 0."),
    ("max_depth", 2.0, "max_depth must be an integer of at least 1, got 2.0."),
    ("max_depth", True, "max_depth must be an integer of at least 1, got True."),
    ("image_size", 0, "image_size must be an integer of at least 1, got 0."),
    ("image_size", "28", "image_size must be an integer of at least 1, got '28'."),
    ("max_fully_connected", -1, "max_fully_connected must be an integer of at least 0, got -1."),
    ("filters", 8, "filters must be a list, got 8."),
    ("filters", "8", "filters must be a list, got '8'."),
    ("filters", [8, 0], "filters must be positive integers, got [8, 0]."),
    ("filters", [8, 8], "filters must be distinct, got [8, 8]."),
    ("kernels", [1, True], "kernels must be positive integers, got [1, True]."),
    ("kernels", [3, 3], "kernels must be distinct, got [3, 3]."),
    ("kernels", [1, 2], "kernels must be odd, got (1, 2)."),
    ("neurons", [1.5], "neurons must be positive integers, got [1.5]."),
    ("neurons", None, "neurons must be a list, got None."),
    ("pools", 2, "pools must be a list, got 2."),
    ("pools", [2], "pools must be a list, got 2."),
    ("pools", [[2, 0]], "pools must be positive integers, got [2, 0]."),
    ("pools", [[2, 2, 2]], "pools must be distinct pairs (kernel, stride), got [[2, 2, 2]]."),
    ("pools", [[2, 2], [2, 2]], "pools must be distinct pairs (kernel, stride), got [[2, 2], [2, 2]]."),
    ("pool_first", 1, "pool_first must be true or false, got 1."),
    ("kernel_rule", "code", "kernel_rule must be one of paper, released, got 'code'."),
]


@pytest.mark.parametrize(
    ("field", "value", "message"), REFUSED, ids=[f"{field}={value!r}" for field, value, _ in REFUSED]
)
def test_an_impossible_setting_is_refused(field: str, value: object, message: str) -> None:
    """The message names the setting, what is allowed and what came."""
    with pytest.raises(InvalidArgument) as caught:
        make_space("metaqnn", {field: value})
    assert str(caught.value) == message


def test_a_space_of_nothing_but_the_softmax_is_refused() -> None:
    """Without filters and neurons there is nothing to search."""
    with pytest.raises(InvalidArgument, match="filters and neurons are both empty"):
        MetaQNNSpace(filters=(), neurons=())


def test_an_unknown_setting_is_refused() -> None:
    """The message names the space and the setting."""
    with pytest.raises(InvalidArgument, match=r"the search space 'metaqnn' refuses the settings .*'depth'"):
        make_space("metaqnn", {"depth": 3})
