"""Wider networks compute the same, whatever reads the units that are repeated."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_graphs import (
    IMAGE,
    assert_child,
    assert_same_function,
    outputs,
    producers,
    random_graph,
    random_images,
    random_state,
)

from nas_gym.networks.morph import (
    INPUT,
    Activation,
    Add,
    BatchNorm,
    Concat,
    Convolution,
    DepthwiseConvolution,
    Flatten,
    GlobalAveragePooling,
    Graph,
    GraphNetwork,
    Linear,
    MaxPooling,
    Morphed,
    MorphError,
    Node,
    Segment,
    State,
    UnitMap,
    replicate_units,
    widen,
    widened_together,
)
from nas_gym.networks.morph.widen import unit_maps

pytestmark = pytest.mark.usefixtures("one_thread")
"""Compute with one thread, as workers do."""

seeds = st.integers(0, 2**32 - 1)


def graph_of(*nodes: tuple[str, object, str | tuple[str, ...]]) -> Graph:
    """Return a graph of images 3x8x8 that ends in pooling and two logits."""
    made = [Node(name, layer, (sources,) if isinstance(sources, str) else sources) for name, layer, sources in nodes]  # type: ignore[arg-type]
    made.append(Node("mean", GlobalAveragePooling(), (made[-1].name,)))
    return Graph(IMAGE, (*made, Node("logits", Linear(2), ("mean",))))


def widened(rng: np.random.Generator, graph: Graph, state: State, **options: float) -> tuple[str, Morphed]:
    """Widen a random layer by a random number of units; skip what cannot be widened."""
    layer = str(rng.choice(producers(graph)))
    added = int(rng.integers(1, 7))
    try:
        return layer, widen(graph, state, layer, graph.shapes[layer][0] + added, rng, **options)
    except MorphError:
        assume(False)
        raise


# --- the function ----------------------------------------------------------------------------------


@given(seeds)
@settings(max_examples=120)
def test_a_wider_network_computes_the_same(seed: int) -> None:
    """On random graphs and weights, in float64, to 1e-10; its gradients follow from the parent's too."""
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    state = random_state(graph, rng)
    layer, morphed = widened(rng, graph, state)
    assert morphed.graph.shapes[layer][0] > graph.shapes[layer][0]
    assert morphed.caveats == ()
    assert_child((graph, state), morphed, random_images(rng))


@given(seeds)
@settings(max_examples=40)
def test_a_wider_network_computes_the_same_in_float32(seed: int) -> None:
    """To 1e-4."""
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    state = random_state(graph, rng, torch.float32)
    _, morphed = widened(rng, graph, state)
    assert {tensor.dtype for tensor in morphed.state.values()} <= {torch.float32, torch.int64}
    images = random_images(rng, dtype=torch.float32)
    assert_same_function((graph, state), (morphed.graph, morphed.state), images)


@given(seeds)
@settings(max_examples=40)
def test_every_layer_repeats_what_its_map_says(seed: int) -> None:
    """Not only the logits: unit j of every layer of the child is unit source[j] of the parent's, offsets included."""
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, grouped=False)
    state = random_state(graph, rng)
    layer = str(rng.choice(producers(graph)))
    units = graph.shapes[layer][0]
    chosen = UnitMap((*range(units), *map(int, rng.integers(units, size=3))), units)
    try:
        maps = unit_maps(graph, {layer: chosen})
    except MorphError:
        assume(False)
        raise
    morphed = replicate_units(graph, state, layer, chosen)
    images = random_images(rng)
    names = [node.name for node in graph.nodes]
    with torch.no_grad():
        before = GraphNetwork(graph, state).eval().values(images, names)
        after = GraphNetwork(morphed.graph, morphed.state).eval().values(images, names)
    for name in names:
        torch.testing.assert_close(after[name], before[name][:, list(maps[name].source)], rtol=0, atol=1e-10)


@given(seeds)
@settings(max_examples=30)
def test_training_mode_preserves_the_function_too(seed: int) -> None:
    """Repeated channels have the statistics of the ones that they repeat; dropout is left out."""
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    assume(all(node.layer.kind != "dropout" for node in graph.nodes))
    state = random_state(graph, rng)
    _, morphed = widened(rng, graph, state)
    images = random_images(rng, 4)
    before, after = GraphNetwork(graph, state), GraphNetwork(morphed.graph, morphed.state)
    torch.testing.assert_close(after(images), before(images), rtol=0, atol=1e-8)


def test_the_published_rule_by_hand() -> None:
    """Two units, the first one repeated: columns copied, rows of both copies halved (Net2Net, section 2.2)."""
    nodes = (
        Node("flat", Flatten(), (INPUT,)),
        Node("hidden", Linear(2), ("flat",)),
        Node("out", Linear(1), ("hidden",)),
    )
    graph = Graph((1, 1, 2), nodes)
    state = {
        "hidden.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        "hidden.bias": torch.tensor([5.0, 6.0]),
        "out.weight": torch.tensor([[8.0, 9.0]]),
        "out.bias": torch.tensor([7.0]),
    }
    child = replicate_units(graph, state, "hidden", UnitMap((0, 1, 0), 2)).state
    assert child["hidden.weight"].tolist() == [[1, 2], [3, 4], [1, 2]]
    assert child["hidden.bias"].tolist() == [5, 6, 5]
    assert child["out.weight"].tolist() == [[4, 9, 4]]
    assert child["out.bias"].tolist() == [7]


def test_normalisations_are_gathered_and_not_divided() -> None:
    """Scale, shift, mean and variance of a repeated channel are those of its source."""
    graph = graph_of(("conv", Convolution(2), INPUT), ("norm", BatchNorm(), "conv"))
    state = random_state(graph, np.random.default_rng(0))
    child = replicate_units(graph, state, "conv", UnitMap((0, 1, 1), 2)).state
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(child[f"norm.{name}"], state[f"norm.{name}"][[0, 1, 1]])
    assert torch.equal(child["norm.num_batches_tracked"], state["norm.num_batches_tracked"])


def test_the_parent_is_left_alone() -> None:
    """A transform is a pure function; the child shares no memory with the parent."""
    graph = graph_of(("conv", Convolution(2), INPUT))
    state = random_state(graph, np.random.default_rng(0))
    before = {name: tensor.clone() for name, tensor in state.items()}
    child = widen(graph, state, "conv", 4, np.random.default_rng(0)).state
    for tensor in child.values():
        tensor.zero_()
    assert all(torch.equal(state[name], before[name]) for name in state)


def test_the_generator_decides_which_units_are_repeated() -> None:
    """The same seed gives the same child."""
    graph = graph_of(("conv", Convolution(4), INPUT))
    state = random_state(graph, np.random.default_rng(0))
    first, again, other = (widen(graph, state, "conv", 9, np.random.default_rng(seed)).state for seed in (0, 0, 1))
    assert torch.equal(first["conv.weight"], again["conv.weight"])
    assert not torch.equal(first["conv.weight"], other["conv.weight"])


# --- who is widened together -----------------------------------------------------------------------


def smallest_consistent_widening(graph: Graph, layer: str) -> tuple[str, ...] | None:
    """Return the fewest producers, `layer` among them, that can become wider by one without a clash of shapes.

    By brute force: every set is tried, and the graph itself tells whether its shapes fit.
    """
    others = [name for name in producers(graph) if name != layer]
    for chosen in chain.from_iterable(combinations(others, size) for size in range(len(others) + 1)):
        wider = {layer, *chosen}
        nodes = [
            Node(node.name, node.layer.with_units(graph.shapes[node.name][0] + 1), node.inputs)
            if node.name in wider
            else node
            for node in graph.nodes
        ]
        try:
            Graph(graph.input_shape, tuple(nodes))
        except MorphError:
            continue
        return tuple(node.name for node in graph.nodes if node.name in wider)
    return None


@given(seeds)
@settings(max_examples=60)
def test_layers_joined_by_additions_are_widened_together(seed: int) -> None:
    """As brute force over all sets of layers finds, and refused exactly where it finds none."""
    graph = random_graph(np.random.default_rng(seed), grouped=False, joined=False)
    assume(len(producers(graph)) <= 8)
    for layer in producers(graph):
        expected = smallest_consistent_widening(graph, layer)
        if expected is None:
            with pytest.raises(MorphError, match="must share one map"):
                widened_together(graph, layer)
        else:
            assert widened_together(graph, layer) == expected


def test_a_residual_stream_is_widened_as_a_whole() -> None:
    """Stem and last convolutions of both blocks, not the ones inside."""
    graph = graph_of(
        ("stem", Convolution(4), INPUT),
        ("in1", Convolution(3), "stem"),
        ("out1", Convolution(4), "in1"),
        ("sum1", Add(), ("stem", "out1")),
        ("in2", Convolution(3), "sum1"),
        ("out2", Convolution(4), "in2"),
        ("sum2", Add(), ("sum1", "out2")),
    )
    for layer in ("stem", "out1", "out2"):
        assert widened_together(graph, layer) == ("stem", "out1", "out2")
    assert widened_together(graph, "in2") == ("in2",)


def test_what_a_concatenation_adds_to_follows_it() -> None:
    """Widening one half widens the convolution that the whole is added to."""
    graph = graph_of(
        ("left", Convolution(2), INPUT),
        ("right", Convolution(3), INPUT),
        ("both", Concat(), ("left", "right")),
        ("other", Convolution(5), INPUT),
        ("sum", Add(), ("both", "other")),
    )
    assert widened_together(graph, "right") == ("right", "other")
    state = random_state(graph, np.random.default_rng(0))
    morphed = widen(graph, state, "right", 5, np.random.default_rng(0))
    assert_child((graph, state), morphed, random_images(np.random.default_rng(1)))


# --- groups and segments ---------------------------------------------------------------------------


@given(seeds, st.sampled_from([2, 3]), st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=20)
def test_groups_grow_evenly(seed: int, groups: int, size: int, added: int) -> None:
    """Both the layer that a grouped convolution reads, and the grouped convolution itself."""
    graph = graph_of(
        ("conv", Convolution(groups * size), INPUT),
        ("grouped", Convolution(2 * groups, groups=groups), "conv"),
        ("relu", Activation("relu"), "grouped"),
        ("again", Convolution(groups, groups=groups), "relu"),
    )
    rng = np.random.default_rng(seed)
    state = random_state(graph, rng)
    for layer in ("conv", "grouped"):
        width = graph.shapes[layer][0] + groups * added
        morphed = widen(graph, state, layer, width, rng)
        assert_child((graph, state), morphed, random_images(rng))


@given(seeds)
@settings(max_examples=10)
def test_units_read_by_two_groupings_respect_both(seed: int) -> None:
    """In halves and in thirds: sixths do not mix."""
    graph = graph_of(
        ("conv", Convolution(6), INPUT),
        ("halves", Convolution(4, groups=2), "conv"),
        ("thirds", Convolution(3, groups=3), "conv"),
        ("both", Concat(), ("halves", "thirds")),
    )
    rng = np.random.default_rng(seed)
    state = random_state(graph, rng)
    assert_child((graph, state), widen(graph, state, "conv", 12, rng), random_images(rng))


def test_a_segment_of_repeated_units_moves() -> None:
    """Units in front of a segment that are repeated among themselves shift it."""
    graph = graph_of(
        ("left", Convolution(2), INPUT),
        ("right", Convolution(3), INPUT),
        ("both", Concat(), ("left", "right")),
        ("head", Segment(0, 2), "both"),
        ("tail", Segment(2, 5), "both"),
        ("back", Concat(), ("tail", "head")),
    )
    state = random_state(graph, np.random.default_rng(0))
    morphed = widen(graph, state, "left", 5, np.random.default_rng(0))
    assert morphed.graph.node("tail").layer == Segment(5, 8)
    assert_child((graph, state), morphed, random_images(np.random.default_rng(1)))


# --- noise -----------------------------------------------------------------------------------------


def noisy_and_plain(noise: float) -> tuple[Graph, Morphed, Morphed]:
    """Return a graph with one convolution, and its wider children with and without noise."""
    graph = graph_of(("conv", Convolution(40, bias=True), INPUT), ("norm", BatchNorm(), "conv"))
    state = random_state(graph, np.random.default_rng(0))
    first, second = (widen(graph, state, "conv", 80, np.random.default_rng(1), ratio) for ratio in (noise, 0.0))
    return graph, first, second


def test_noise_is_on_the_incoming_weights_of_added_units_alone() -> None:
    """Old units, normalisations and outgoing weights stay (EAS's code)."""
    _, noisy, plain = noisy_and_plain(0.01)
    differing = [name for name in plain.state if not torch.equal(noisy.state[name], plain.state[name])]
    assert differing == ["conv.weight", "conv.bias"]
    assert torch.equal(noisy.state["conv.weight"][:40], plain.state["conv.weight"][:40])
    assert bool((noisy.state["conv.weight"][40:] != plain.state["conv.weight"][40:]).all())


def test_noise_has_the_size_that_it_is_asked_for() -> None:
    """A hundredth of the standard deviation of the added kernels; 1,080 draws."""
    _, noisy, plain = noisy_and_plain(0.01)
    added = plain.state["conv.weight"][40:]
    difference = noisy.state["conv.weight"][40:] - added
    assert float(difference.std() / added.std()) == pytest.approx(0.01, rel=0.1)


def test_noise_changes_the_function_and_says_so() -> None:
    """A little, and the child carries a caveat."""
    graph, noisy, plain = noisy_and_plain(0.01)
    images = random_images(np.random.default_rng(2))
    change = float((outputs(noisy.graph, noisy.state, images) - outputs(plain.graph, plain.state, images)).abs().max())
    assert 1e-6 < change < 1e-1
    assert noisy.caveats == ("noise of 0.01 standard deviations on the added units",)
    assert noisy.origins == plain.origins
    assert graph != noisy.graph


# --- what is refused -------------------------------------------------------------------------------

PLAIN = graph_of(
    ("conv", Convolution(4), INPUT), ("relu", Activation("relu"), "conv"), ("next", Convolution(4), "relu")
)
REFUSED: dict[str, tuple[Graph, str, int, str]] = {
    "narrower": (PLAIN, "conv", 3, r"conv \(Convolution.*4 units cannot be widened to 3: the width must be at least 4"),
    "not an integer": (PLAIN, "conv", 4.5, "width must be an integer, got 4.5"),  # type: ignore[dict-item]
    "no units of its own": (PLAIN, "relu", 8, r"relu \(Activation.*has no units of its own"),
    "output": (PLAIN, "logits", 3, "logits.* is the output of the network"),
    "unknown": (PLAIN, "conv7", 8, "the graph has no layer 'conv7'"),
    "added to the images": (
        graph_of(("conv", Convolution(3), INPUT), ("sum", Add(), ("conv", INPUT))),
        "conv",
        5,
        r"sum \(Add.*joins what is widened with the images, which cannot repeat the same units",
    ),
    "added to a concatenation": (
        graph_of(
            ("left", Convolution(2), INPUT),
            ("right", Convolution(2), INPUT),
            ("both", Concat(), ("left", "right")),
            ("other", Convolution(4), INPUT),
            ("sum", Add(), ("both", "other")),
        ),
        "other",
        9,
        r"both \(Concat.*on left \(2, 8, 8\), right \(2, 8, 8\): the map repeats units across the segments of 2, 2",
    ),
    "two orders": (
        graph_of(
            ("left", Convolution(2), INPUT),
            ("right", Convolution(2), INPUT),
            ("one", Concat(), ("left", "right")),
            ("two", Concat(), ("right", "left")),
            ("sum", Add(), ("one", "two")),
        ),
        "left",
        4,
        "inputs of an addition repeat different units; they must share one map",
    ),
    "groups": (
        graph_of(("conv", Convolution(4), INPUT), ("grouped", Convolution(4, groups=2), "conv")),
        "conv",
        7,
        "4 units with 2 groups cannot be widened to 7: both numbers must be divisible by 2",
    ),
    "groups across a concatenation": (
        graph_of(
            ("left", Convolution(2), INPUT),
            ("right", Convolution(4), INPUT),
            ("both", Concat(), ("left", "right")),
            ("grouped", Convolution(4, groups=2), "both"),
        ),
        "left",
        4,
        r"grouped \(Convolution.*on both \(6, 8, 8\): ",
    ),
    "cut into segments": (
        graph_of(
            ("conv", Convolution(4), INPUT),
            ("head", Segment(0, 2), "conv"),
            ("tail", Segment(2, 4), "conv"),
            ("sum", Add(), ("head", "tail")),
        ),
        "conv",
        9,
        r"head \(Segment.*the map repeats units across the segments of 0, 2, 2 units",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_widened_is_named(name: str) -> None:
    """Layer, shapes and rule."""
    graph, layer, width, message = REFUSED[name]
    state = random_state(graph, np.random.default_rng(0))
    with pytest.raises(MorphError, match=message):
        widen(graph, state, layer, width, np.random.default_rng(0))


def test_a_map_of_another_layer_is_refused() -> None:
    """Both numbers of units are in the message."""
    state = random_state(PLAIN, np.random.default_rng(0))
    with pytest.raises(MorphError, match="has 4 units, the map is of 3"):
        replicate_units(PLAIN, state, "conv", UnitMap((0, 1, 2, 0), 3))


def test_weights_of_another_network_are_refused() -> None:
    """Before anything is computed."""
    other = graph_of(
        ("conv", Convolution(5), INPUT), ("relu", Activation("relu"), "conv"), ("next", Convolution(4), "relu")
    )
    state = random_state(other, np.random.default_rng(0))
    with pytest.raises(
        MorphError, match=r"conv.weight has the shape \(5, 3, 3, 3\), where the layer needs \(4, 3, 3, 3\)"
    ):
        widen(PLAIN, state, "conv", 8, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("noise", "rng", "message"),
    [
        pytest.param(0.1, None, "noise = 0.1 needs a generator", id="no generator"),
        pytest.param(-0.1, np.random.default_rng(0), "noise must be a ratio of at least 0, got -0.1", id="negative"),
    ],
)
def test_noise_that_cannot_be_drawn(noise: float, rng: np.random.Generator | None, message: str) -> None:
    """A ratio below 0, or nothing to draw from."""
    state = random_state(PLAIN, np.random.default_rng(0))
    with pytest.raises(MorphError, match=message):
        replicate_units(PLAIN, state, "conv", UnitMap((0, 1, 2, 3, 0), 4), rng, noise)


def test_all_that_passes_channels_on_is_covered() -> None:
    """A chain of everything between two weighted layers, widened by hand-picked repetitions."""
    nodes = (
        Node("conv", Convolution(2), (INPUT,)),
        Node("depthwise", DepthwiseConvolution(3), ("conv",)),
        Node("norm", BatchNorm(), ("depthwise",)),
        Node("pool", MaxPooling(2, 2), ("norm",)),
        Node("flat", Flatten(), ("pool",)),
        Node("logits", Linear(2), ("flat",)),
    )
    graph = Graph(IMAGE, nodes)
    state = random_state(graph, np.random.default_rng(0))
    morphed = replicate_units(graph, state, "conv", UnitMap((1, 0, 1, 1), 2))
    assert morphed.graph.shapes["flat"] == (64,)
    assert_child((graph, state), morphed, random_images(np.random.default_rng(1)))
