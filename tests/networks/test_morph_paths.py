"""One path becomes several and the function stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_graphs import CLASSES, IMAGE, assert_child, outputs, random_graph, random_images, random_state
from torch import Tensor

from nas_gym.networks.morph import (
    INPUT,
    Activation,
    Add,
    AveragePooling,
    BatchNorm,
    Concat,
    Convolution,
    DepthwiseConvolution,
    GlobalAveragePooling,
    Graph,
    Identity,
    Layer,
    Linear,
    MaxPooling,
    Morphed,
    MorphError,
    Node,
    Segment,
    replicate_add,
    replicate_concat,
    split_concat,
)
from nas_gym.networks.morph.paths import segment_bounds

pytestmark = pytest.mark.usefixtures("one_thread")
"""Compute with one thread, as workers do."""

seeds = st.integers(0, 2**32 - 1)


def edge_graph(*layers: Layer, channels: int = 6) -> tuple[Graph, tuple[str, ...]]:
    """Return stem, the layers of an edge, a residual connection around nothing, pooling and logits; and the edge."""
    nodes = [Node("stem", Convolution(channels, 3), (INPUT,))]
    for position, layer in enumerate(layers):
        nodes.append(Node(f"edge{position}", layer, (nodes[-1].name,)))
    edge = tuple(node.name for node in nodes[1:])
    nodes.append(Node("relu", Activation("relu"), (nodes[-1].name,)))
    nodes.append(Node("both", Concat(), (nodes[-2].name, "relu")))
    nodes.append(Node("mean", GlobalAveragePooling(), ("both",)))
    return Graph(IMAGE, (*nodes, Node("logits", Linear(CLASSES), ("mean",)))), edge


def layers_of(morphed: Morphed, branch: int) -> list[Layer]:
    """Return the layers of a branch; -1 is the merge."""
    return [morphed.graph.node(name).layer for name in morphed.branches[branch]]


def prepared(
    edge: tuple[Layer, ...], seed: int = 0, channels: int = 6
) -> tuple[Graph, tuple[str, ...], dict[str, Tensor], Tensor]:
    """Return graph, edge, random weights and images."""
    rng = np.random.default_rng(seed)
    graph, names = edge_graph(*edge, channels=channels)
    return graph, names, random_state(graph, rng), random_images(rng)


ORDINARY: dict[str, tuple[Layer, ...]] = {
    "convolution": (Convolution(7, 3, bias=True),),
    "convolution, normalisation, ReLU": (Convolution(7, 3), BatchNorm(), Activation("relu")),
    "normalisation, ReLU, convolution": (BatchNorm(), Activation("relu"), Convolution(7, 3)),
    "separable convolution": (DepthwiseConvolution(5), Convolution(7, 1)),
    "normalised separable convolution": (
        BatchNorm(),
        Activation("relu"),
        DepthwiseConvolution(3),
        Convolution(7, 1),
        BatchNorm(),
    ),
    "grouped, then pointwise": (Convolution(6, 3, groups=3), Convolution(7, 1)),
    "convolution, pooling": (Convolution(7, 1), AveragePooling(3, 1, 1)),
}
"""What replication-concat divides."""

CHANNELWISE: dict[str, tuple[Layer, ...]] = {
    "identity": (Identity(),),
    "max pooling": (MaxPooling(3, 1, 1),),
    "average pooling": (AveragePooling(3, 1, 1),),
    "depthwise convolution": (DepthwiseConvolution(3),),
    "normalisation": (BatchNorm(), Activation("relu")),
}
"""What split-concat divides into any number of segments."""

GROUPED: dict[str, tuple[Layer, ...]] = {
    "grouped convolution": (Convolution(12, 3, groups=6),),
    "one channel per group": (Convolution(6, 3, groups=6, bias=True),),
    "normalisation, ReLU, grouped convolution": (BatchNorm(), Activation("relu"), Convolution(12, 3, groups=6)),
    "grouped convolution, normalisation": (Convolution(12, 1, groups=6), BatchNorm(), Activation("relu")),
}
"""What split-concat divides into equal segments."""

EVERYTHING = ORDINARY | CHANNELWISE | GROUPED


# --- the function ----------------------------------------------------------------------------------


@pytest.mark.parametrize("branches", [2, 3])
@pytest.mark.parametrize("name", EVERYTHING)
def test_replication_add_preserves_any_edge(name: str, branches: int) -> None:
    """Every branch is a full copy; the merge averages."""
    graph, edge, state, images = prepared(EVERYTHING[name])
    morphed = replicate_add(graph, state, edge, branches)
    assert [layers_of(morphed, branch) for branch in range(branches)] == [list(EVERYTHING[name])] * branches
    assert layers_of(morphed, -1) == [Add(average=True)]
    assert_child((graph, state), morphed, images)


@pytest.mark.parametrize("branches", [2, 3])
@pytest.mark.parametrize("name", ORDINARY)
def test_replication_concat_divides_outputs(name: str, branches: int) -> None:
    """The slices are contiguous and the first ones wider: 7 = 4 + 3 = 3 + 2 + 2."""
    graph, edge, state, images = prepared(ORDINARY[name])
    morphed = replicate_concat(graph, state, edge, branches)
    widths = [morphed.graph.shapes[branch[-1]][0] for branch in morphed.branches[:-1]]
    assert widths == {2: [4, 3], 3: [3, 2, 2]}[branches]
    assert layers_of(morphed, -1) == [Concat()]
    assert_child((graph, state), morphed, images)


@pytest.mark.parametrize("branches", [2, 3, 4])
@pytest.mark.parametrize("name", CHANNELWISE)
def test_split_concat_divides_inputs(name: str, branches: int) -> None:
    """The segments are contiguous and the first ones wider: 7 = 4 + 3 = 3 + 2 + 2 = 2 + 2 + 2 + 1."""
    graph, edge, state, images = prepared(CHANNELWISE[name], channels=7)
    morphed = split_concat(graph, state, edge, branches)
    cuts = [layers_of(morphed, branch)[0] for branch in range(branches)]
    assert cuts == [Segment(*bounds) for bounds in segment_bounds(7, branches)]
    assert [layers_of(morphed, branch)[1:] for branch in range(branches)] == [list(CHANNELWISE[name])] * branches
    assert_child((graph, state), morphed, images)


@pytest.mark.parametrize("branches", [2, 3, 6])
@pytest.mark.parametrize("name", GROUPED)
def test_split_concat_divides_groups(name: str, branches: int) -> None:
    """Every branch gets its share of the groups."""
    graph, edge, state, images = prepared(GROUPED[name])
    morphed = split_concat(graph, state, edge, branches)
    groups = [node.layer.channel_groups for node in morphed.graph.nodes if node.layer.produces][1:-1]
    assert groups == [6 // branches] * branches
    assert_child((graph, state), morphed, images)


TRANSFORMS = {
    "replication-add": lambda graph, state, edge, branches: replicate_add(graph, state, edge, branches),
    "replication-concat": lambda graph, state, edge, branches: replicate_concat(graph, state, edge, branches),
    "split-concat": lambda graph, state, edge, branches: split_concat(graph, state, edge, branches),
}


@given(seeds, st.sampled_from(sorted(TRANSFORMS)), st.sampled_from([2, 3]))
@settings(max_examples=100)
def test_any_layer_of_a_random_network_becomes_several(seed: int, transform: str, branches: int) -> None:
    """Wherever the transform applies, the child computes the same."""
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    state = random_state(graph, rng)
    edges = [node.name for node in graph.nodes if len(node.inputs) == 1]
    for edge in rng.permutation(edges):
        try:
            morphed = TRANSFORMS[transform](graph, state, str(edge), branches)
        except MorphError:
            continue
        assert_child((graph, state), morphed, random_images(rng))
        return
    assume(False)


@pytest.mark.parametrize("name", ORDINARY)
def test_replication_also_preserves_in_training_mode(name: str) -> None:
    """Copies and slices of a normalisation see the same batch."""
    from nas_gym.networks.morph import GraphNetwork

    graph, edge, state, images = prepared(ORDINARY[name])
    for morphed in (replicate_add(graph, state, edge, 3), replicate_concat(graph, state, edge, 2)):
        before, after = GraphNetwork(graph, state), GraphNetwork(morphed.graph, morphed.state)
        torch.testing.assert_close(after(images), before(images), rtol=0, atol=1e-10)


def test_a_tree_of_paths_preserves() -> None:
    """A grouped edge is replicated, its copies continue by identities, which are split, whose parts are replicated."""
    graph, edge, state, images = prepared((Convolution(6, 3, groups=2), Identity()))
    morphed = replicate_add(graph, state, edge, 2)
    second = morphed.branches[1]
    morphed = morphed.then(lambda g, s: split_concat(g, s, second[1], 2))
    part = morphed.branches[0]
    morphed = morphed.then(lambda g, s: replicate_add(g, s, part[1:], 3))
    morphed = morphed.then(lambda g, s: split_concat(g, s, second[0], 2))
    assert_child((graph, state), morphed, images)


def test_segments_by_hand() -> None:
    """The floor, and one more for the first C mod N."""
    assert segment_bounds(10, 4) == [(0, 3), (3, 6), (6, 8), (8, 10)]


# --- noise -----------------------------------------------------------------------------------------


def changed(noisy: Morphed, plain: Morphed) -> list[str]:
    """Return the tensors that differ."""
    return [name for name in plain.state if not torch.equal(noisy.state[name], plain.state[name])]


def test_noise_spares_the_first_copy_and_normalisations() -> None:
    """Replication-add: kernels of the other branches."""
    graph, edge, state, images = prepared(ORDINARY["normalised separable convolution"])
    plain = replicate_add(graph, state, edge, 3)
    noisy = replicate_add(graph, state, edge, 3, np.random.default_rng(0), 0.006)
    expected = [f"{branch[index]}.weight" for branch in plain.branches[1:3] for index in (2, 3)]
    assert changed(noisy, plain) == expected
    difference = outputs(noisy.graph, noisy.state, images) - outputs(graph, state, images)
    assert 0 < float(difference.abs().max()) < 0.05
    assert noisy.caveats == ("noise of 0.006 standard deviations on the copied kernels",)


def test_noise_on_slices_is_on_depthwise_copies_alone() -> None:
    """Replication-concat: what is sliced has no copy."""
    graph, edge, state, _ = prepared(ORDINARY["separable convolution"])
    plain = replicate_concat(graph, state, edge, 2)
    noisy = replicate_concat(graph, state, edge, 2, np.random.default_rng(0), 0.006)
    assert changed(noisy, plain) == [f"{plain.branches[1][0]}.weight"]


# --- what is refused -------------------------------------------------------------------------------

REFUSED = {
    "replication-concat of an identity": (replicate_concat, (Identity(),), 2, "there is none. Identity, pooling and"),
    "replication-concat of groups": (replicate_concat, (Convolution(6, groups=2),), 2, "is divided by split-concat"),
    "too many slices": (replicate_concat, (Convolution(2),), 3, "2 units cannot be divided among 3 branches"),
    "split-concat of a convolution": (
        split_concat,
        (Convolution(6),),
        2,
        r"edge0 \(Convolution.*on stem \(6, 8, 8\): .*an ordinary convolution takes replication-concat",
    ),
    "indivisible groups": (split_concat, (Convolution(6, groups=3),), 2, "the groups must be divisible by 2"),
    "too many segments": (split_concat, (Identity(),), 7, "6 units cannot be divided among 7 branches"),
    "one branch": (replicate_add, (Identity(),), 1, "branches must be an integer of at least 2, got 1"),
    "half a branch": (replicate_add, (Identity(),), 2.5, "branches must be an integer of at least 2, got 2.5"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_divided_is_named(name: str) -> None:
    """Layer, shapes and rule."""
    transform, layers, branches, message = REFUSED[name]
    graph, edge, state, _ = prepared(layers)
    with pytest.raises(MorphError, match=message):
        transform(graph, state, edge, branches)  # type: ignore[arg-type]


BROKEN_EDGES = {
    "empty": ((), "needs at least one layer"),
    "gap": (("stem", "relu"), r"stem .* is read by edge0: .*relu alone would read it"),
    "read elsewhere": (("edge0", "relu"), "edge0 .* is read by relu, both"),
    "two inputs": (("both",), "both .* reads edge0, relu: a layer of an edge has one input"),
    "unknown": (("edge9",), "no layer 'edge9'"),
}


@pytest.mark.parametrize("name", BROKEN_EDGES)
def test_an_edge_is_a_chain(name: str) -> None:
    """What is inside is read by the next layer alone."""
    edge, message = BROKEN_EDGES[name]
    graph, _, state, _ = prepared((Identity(),))
    with pytest.raises(MorphError, match=message):
        replicate_add(graph, state, edge, 2)


def test_noise_needs_a_generator() -> None:
    """Nothing is drawn from a global one."""
    graph, edge, state, _ = prepared((Convolution(6),))
    with pytest.raises(MorphError, match=r"noise = 0.1 needs a generator"):
        replicate_add(graph, state, edge, 2, noise=0.1)
