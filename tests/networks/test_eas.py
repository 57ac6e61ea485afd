"""The start networks of EAS, and the transforms of its dense blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import IMAGE, assert_child, outputs, random_images, random_state

from nas_gym.errors import InvalidArgument
from nas_gym.networks import eas
from nas_gym.networks.morph import (
    Add,
    Concat,
    Convolution,
    GlobalAveragePooling,
    Graph,
    Linear,
    MaxPooling,
    Morphed,
    MorphError,
    Node,
    dense_chain,
    insert_dense_layer,
    unchanged,
    widen,
)
from nas_gym.search_spaces import eas as grammar

pytestmark = pytest.mark.usefixtures("one_thread")
"""Compute with one thread, as workers do."""

seeds = st.integers(0, 2**32 - 1)


def parameters(graph: Graph) -> int:
    """Return the number of trainable parameters."""
    untrained = ("running_mean", "running_var", "num_batches_tracked")
    return sum(int(np.prod(shape)) for name, shape in graph.tensor_shapes.items() if not name.endswith(untrained))


# --- start networks --------------------------------------------------------------------------------


def test_the_start_network_of_the_paper() -> None:
    """C16 P2 C32 P2 C64 P2 C128 P4 FC256, with kernels of 3."""
    graph = eas.plain_graph((3, 32, 32), 10)
    convolutions = [node.layer for node in graph.nodes if isinstance(node.layer, Convolution)]
    assert convolutions == [Convolution(width, 3) for width in (16, 32, 64, 128)]
    assert [node.layer for node in graph.nodes if isinstance(node.layer, MaxPooling)] == [MaxPooling(2, 2)] * 3
    assert graph.shapes["conv4_relu"] == (128, 4, 4)
    assert graph.shapes["average"] == (128,)
    assert [node.layer for node in graph.nodes if isinstance(node.layer, Linear)] == [Linear(256, False), Linear(10)]


def test_parameters_of_the_start_network_by_hand() -> None:
    """Kernels, scales and shifts, and the two matrices."""
    kernels = 9 * (3 * 16 + 16 * 32 + 32 * 64 + 64 * 128)
    normalisations = 2 * (16 + 32 + 64 + 128 + 256)
    assert parameters(eas.plain_graph((3, 32, 32), 10)) == kernels + normalisations + 128 * 256 + 256 * 10 + 10


def test_the_start_network_of_the_released_code() -> None:
    """Four convolutions of 4 channels, pooling between, average of 4x4 pixels, 8 units, 10 classes."""
    graph = eas.plain_graph((3, 32, 32), 10, grammar.DEMO_BLOCKS, (8,))
    assert [shape for name, shape in graph.shapes.items() if name.startswith("conv") and "_" not in name] == [
        (4, 32, 32),
        (4, 16, 16),
        (4, 8, 8),
        (4, 4, 4),
    ]
    assert graph.shapes["fc1"] == (8,)


def test_dropout_comes_behind_every_convolution_but_the_first() -> None:
    """EAS never drops before the first convolution has another behind it."""
    names = [node.name for node in eas.plain_graph((3, 32, 32), 10, dropout=0.2).nodes if "dropout" in node.name]
    assert names == ["conv2_dropout", "conv3_dropout", "conv4_dropout"]


@pytest.mark.parametrize(("depth", "layers"), [(10, 3), (16, 6), (40, 18)])
def test_depth_counts_convolutions_and_the_classifier(depth: int, layers: int) -> None:
    """Two per dense layer, the stem, two transitions, the classifier."""
    graph = eas.dense_graph((3, 32, 32), 10, depth)
    assert sum(isinstance(node.layer, (Convolution, Linear)) for node in graph.nodes) == depth
    assert len(eas.dense_layers(graph)) == layers


def test_channels_of_the_released_dense_start_network_by_hand() -> None:
    """Growth 4: 8, +4 = 12, halved 6, +4 = 10, halved 5, +4 = 9."""
    shapes = eas.dense_graph((3, 32, 32), 10).shapes
    names = ("stem", "block1_layer1", "transition1", "block2_layer1", "transition2", "block3_layer1", "average")
    assert [shapes[name][0] for name in names] == [8, 12, 6, 10, 5, 9, 9]
    assert shapes["block1_layer1_conv1"] == (16, 32, 32)
    assert shapes["transition2"] == (5, 8, 8)


def test_levels_are_increasing() -> None:
    """A level is the next wider one."""
    for levels in (
        grammar.FILTER_LEVELS,
        grammar.UNIT_LEVELS,
        grammar.GROWTH_LEVELS,
        grammar.DEMO_FILTER_LEVELS,
        grammar.DEMO_UNIT_LEVELS,
    ):
        assert list(levels) == sorted(set(levels))
    assert (grammar.GROWTH_LEVELS[0], grammar.GROWTH_LEVELS[-1]) == (4, 48)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(
            lambda: eas.plain_graph((3, 4, 4), 10), "4x4 are too small for 4 blocks: at least 8x8", id="plain"
        ),
        pytest.param(lambda: eas.plain_graph(IMAGE, 10, ()), "blocks must be a sequence of non-empty", id="no blocks"),
        pytest.param(lambda: eas.plain_graph(IMAGE, 10, ((4,), ())), "non-empty sequences of widths", id="empty block"),
        pytest.param(
            lambda: eas.dense_graph((3, 2, 2), 10), "2x2 are too small for 3 blocks: at least 4x4", id="dense"
        ),
        pytest.param(
            lambda: eas.dense_graph(IMAGE, 10, 11), "10 or more by multiples of 6 for 3 blocks, got 11", id="11"
        ),
        pytest.param(lambda: eas.dense_graph(IMAGE, 10, 4), "10 or more by multiples of 6 for 3 blocks, got 4", id="4"),
    ],
)
def test_sizes_that_do_not_fit(make: object, message: str) -> None:
    """The message says what is needed."""
    with pytest.raises(InvalidArgument, match=message):
        make()  # type: ignore[operator]


# --- dense layers ----------------------------------------------------------------------------------


def dense(seed: int, growth: int = 3, **options: float) -> tuple[Graph, dict[str, torch.Tensor], np.random.Generator]:
    """Return a DenseNet with two layers per block, and random weights."""
    rng = np.random.default_rng(seed)
    graph = eas.dense_graph(IMAGE, 3, 16, growth, **options)  # type: ignore[arg-type]
    return graph, random_state(graph, rng), rng


@given(seeds, st.integers(1, 4), st.integers(0, 5), st.booleans())
@settings(max_examples=24)
def test_an_inserted_dense_layer_preserves(seed: int, growth: int, place: int, dropped: bool) -> None:
    """At every place of a random DenseNet; later layers of the block and the transition follow."""
    graph, state, rng = dense(seed, growth, dropout=0.2 if dropped else 0.0)
    layer = eas.dense_layers(graph)[place]
    morphed = insert_dense_layer(graph, state, layer, rng)
    assert len(eas.dense_layers(morphed.graph)) == 7
    assert morphed.caveats == ()
    assert_child((graph, state), morphed, random_images(rng))


def test_an_inserted_dense_layer_reads_the_one_before_with_zeros() -> None:
    """Its bottleneck is a copy, extended by zeros; its normalisation by ones and zeros; its outputs repeat."""
    graph, state, rng = dense(0)
    morphed = insert_dense_layer(graph, state, "block1_layer1", rng)
    copies = morphed.branches[0]
    original = [node.name for node in dense_chain(graph, "block1_layer1")]
    child = morphed.state
    before, extended = state[f"{original[2]}.weight"], child[f"{copies[2]}.weight"]
    assert torch.equal(extended[:, :6], before)
    assert extended.shape == (12, 9, 1, 1)
    assert float(extended[:, 6:].abs().max()) == 0
    padding = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}
    for name, value in padding.items():
        assert child[f"{copies[0]}.{name}"][6:].tolist() == [value] * 3
    rows, sources = child[f"{copies[5]}.weight"], state[f"{original[5]}.weight"]
    assert all(any(torch.equal(row, source) for source in sources) for row in rows)
    assert morphed.graph.node("block1_layer2_norm1").inputs == morphed.branches[1]


@given(seeds)
@settings(max_examples=6)
def test_a_dense_layer_without_bottleneck_is_inserted_too(seed: int) -> None:
    """One convolution is extended and repeated at once."""
    rng = np.random.default_rng(seed)
    bare = [node for node in eas.dense_graph(IMAGE, 3, 16, 3).nodes if not node.name.endswith(("norm2", "relu2"))]
    bare = [node for node in bare if not (node.name.startswith("block") and node.name.endswith("conv1"))]
    rewired = {node.name: f"{node.name[:-5]}relu1" for node in bare if node.name.endswith("conv2")}
    nodes = [Node(node.name, node.layer, (rewired[node.name],)) if node.name in rewired else node for node in bare]
    graph = Graph(IMAGE, tuple(nodes))
    state = random_state(graph, rng)
    layer = str(rng.choice(eas.dense_layers(graph)))
    assert_child((graph, state), insert_dense_layer(graph, state, layer, rng), random_images(rng))


@given(seeds)
@settings(max_examples=10)
def test_an_episode_of_a_dense_network_preserves(seed: int) -> None:
    """Wider, deeper, then the transitions, as EAS orders them; origins lead back to the start network."""
    graph, state, rng = dense(seed, 2)

    def wider(child: Graph, weights: object) -> Morphed:
        layer = str(rng.choice(eas.dense_layers(child)))
        return eas.widen_dense_layer(child, weights, layer, eas.growth_of(child, layer) + 2, rng)  # type: ignore[arg-type]

    def deeper(child: Graph, weights: object) -> Morphed:
        return insert_dense_layer(child, weights, str(rng.choice(eas.dense_layers(child))), rng)  # type: ignore[arg-type]

    morphed = unchanged(graph, state)
    for transform in (wider, wider, deeper, wider, deeper):
        morphed = morphed.then(transform)
    morphed = morphed.then(lambda child, weights: eas.widen_transitions(child, weights, rng))
    assert_child((graph, state), morphed, random_images(rng))


def test_a_wider_dense_layer_keeps_its_bottleneck_ratio() -> None:
    """Growth 3 becomes 5: the 1x1 convolution has 4 x 5 outputs."""
    graph, state, rng = dense(0)
    child = eas.widen_dense_layer(graph, state, "block2_layer1", 5, rng).graph
    chain = [node.name for node in dense_chain(child, "block2_layer1") if node.layer.produces]
    assert [child.shapes[name][0] for name in chain] == [20, 5]
    assert eas.growth_of(child, "block2_layer1") == 5
    assert child.shapes["block2_layer2"][0] == graph.shapes["block2_layer2"][0] + 2


def test_transitions_catch_up_with_growth() -> None:
    """One layer of six grew from 3 to 15: mean 5, stem 10; each transition half of its inputs."""
    graph, state, rng = dense(0)
    wider = eas.widen_dense_layer(graph, state, "block1_layer2", 15, rng)
    child = eas.widen_transitions(wider.graph, wider.state, rng).graph
    assert child.shapes["stem"][0] == 10
    assert child.shapes["block1_layer2"][0] == 10 + 3 + 15
    assert child.shapes["transition1_conv"][0] == 14
    assert child.shapes["transition2_conv"][0] == (14 + 3 + 3) // 2


def test_transitions_that_are_wide_enough_stay() -> None:
    """The start network is as the rule wants it."""
    graph, state, rng = dense(0)
    assert eas.widen_transitions(graph, state, rng).graph == graph


def test_noise_of_a_copied_dense_layer_is_small_and_said() -> None:
    """Zeros stay zeros; the kernels of the copy move by about a hundredth."""
    graph, state, _ = dense(0)
    plain, noisy = (
        insert_dense_layer(graph, state, "block1_layer1", np.random.default_rng(3), ratio) for ratio in (0.0, 0.01)
    )
    copies = plain.branches[0]
    differing = [name for name in plain.state if not torch.equal(plain.state[name], noisy.state[name])]
    assert differing == [f"{copies[2]}.weight", f"{copies[5]}.weight"]
    assert float(noisy.state[f"{copies[2]}.weight"][:, 6:].abs().max()) == 0
    for name in differing:
        difference = noisy.state[name] - plain.state[name]
        assert float(difference.std() / plain.state[name].std()) == pytest.approx(0.01, rel=0.4)
    assert noisy.caveats == ("noise of 0.01 standard deviations on the copied kernels",)
    images = random_images(np.random.default_rng(4))
    assert float((outputs(noisy.graph, noisy.state, images) - outputs(graph, state, images)).abs().max()) < 0.1


RULE = "a dense layer ends in a concatenation of its input and, last, its output"


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        pytest.param("stem", rf"stem \(Convolution.*on input \(3, 8, 8\): {RULE}", id="no concatenation"),
        pytest.param("nothing", "no layer 'nothing'", id="unknown"),
    ],
)
def test_what_ends_no_dense_layer_is_named(layer: str, message: str) -> None:
    """Layer, shapes and rule."""
    graph, state, rng = dense(0)
    with pytest.raises(MorphError, match=message):
        insert_dense_layer(graph, state, layer, rng)


def test_a_concatenation_of_two_branches_is_no_dense_layer() -> None:
    """Neither input leads to the other."""
    nodes = (
        Node("left", Convolution(2), ("input",)),
        Node("right", Convolution(2), ("input",)),
        Node("both", Concat(), ("left", "right")),
    )
    graph = Graph(IMAGE, nodes)
    rng = np.random.default_rng(0)
    with pytest.raises(MorphError, match="going back from right, input ends the chain"):
        insert_dense_layer(graph, random_state(graph, rng), "both", rng)


def test_a_grouped_bottleneck_cannot_be_extended() -> None:
    """Its groups would become unequal."""
    graph, _, rng = dense(0)
    nodes = tuple(
        Node(node.name, Convolution(12, 1, groups=2), node.inputs) if node.name == "block1_layer1_conv1" else node
        for node in graph.nodes
    )
    grouped = Graph(IMAGE, nodes)
    with pytest.raises(MorphError, match="of which the first has no groups"):
        insert_dense_layer(grouped, random_state(grouped, rng), "block1_layer1", rng)


def added_to(*others: Node) -> Graph:
    """Return a dense layer of 3 + 3 channels, whose whole is added to the last of some other layers."""
    return Graph(
        IMAGE,
        (
            Node("stem", Convolution(3), ("input",)),
            Node("grown", Convolution(3), ("stem",)),
            *others,
            Node("layer", Concat(), ("stem", "grown")),
            Node("sum", Add(), ("layer", others[-1].name)),
            Node("mean", GlobalAveragePooling(), ("sum",)),
            Node("logits", Linear(3), ("mean",)),
        ),
    )


def test_what_a_dense_block_is_added_to_follows_it() -> None:
    """A convolution that stands before the block's end is widened with it."""
    graph = added_to(Node("aside", Convolution(6), ("input",)))
    rng = np.random.default_rng(0)
    state = random_state(graph, rng)
    morphed = insert_dense_layer(graph, state, "layer", rng)
    assert morphed.graph.shapes["aside"][0] == 9
    assert_child((graph, state), morphed, random_images(rng))


def test_a_dense_layer_added_to_a_part_of_itself_is_refused() -> None:
    """What the new layer is a copy of would have to become wider with it."""
    aside = Node("aside", Convolution(3), ("input",))
    graph = added_to(aside, Node("both", Concat(), ("aside", "grown")))
    rng = np.random.default_rng(0)
    with pytest.raises(
        MorphError, match="grown is added to something behind layer: a dense block has no such addition"
    ):
        insert_dense_layer(graph, random_state(graph, rng), "layer", rng)


def test_a_network_without_dense_layers_has_no_growth() -> None:
    """The plain network."""
    graph = eas.plain_graph(IMAGE, 3)
    rng = np.random.default_rng(0)
    with pytest.raises(MorphError, match="the graph has no dense layers"):
        eas.widen_transitions(graph, random_state(graph, rng), rng)


@pytest.mark.parametrize("levels", [grammar.FILTER_LEVELS[:4], grammar.DEMO_FILTER_LEVELS[3:8]])
def test_the_plain_network_climbs_the_levels(levels: tuple[int, ...]) -> None:
    """From one level to the next, the function stays."""
    rng = np.random.default_rng(0)
    graph = eas.plain_graph(IMAGE, 3, ((levels[0],), (16,)), (8,))
    state = random_state(graph, rng)
    morphed = unchanged(graph, state)
    for width in levels[1:]:
        morphed = morphed.then(lambda child, weights, width=width: widen(child, weights, "conv1", width, rng))
    assert morphed.graph.shapes["conv1"][0] == levels[-1]
    assert_child((graph, state), morphed, random_images(rng))
