"""Networks as graphs: shapes, order, module, files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import IMAGE, outputs, random_graph, random_images, random_state
from torch import nn
from torch.nn import functional

from nas_gym.networks.morph import (
    INPUT,
    LAYERS,
    Activation,
    Add,
    AveragePooling,
    BatchNorm,
    Concat,
    Convolution,
    DepthwiseConvolution,
    Dropout,
    Flatten,
    GlobalAveragePooling,
    Graph,
    GraphNetwork,
    Identity,
    Layer,
    Linear,
    MaxPooling,
    MorphError,
    Node,
    Segment,
    check_state,
    initial_state,
    load_network,
    save_network,
)
from nas_gym.networks.operations import complexity

pytestmark = pytest.mark.usefixtures("one_thread")
"""Compute with one thread, as workers do."""

seeds = st.integers(0, 2**32 - 1)


def graph_of(*nodes: tuple[str, Layer, str] | tuple[str, Layer, tuple[str, ...]]) -> Graph:
    """Return a graph of images 3x8x8."""
    made = [Node(name, layer, (sources,) if isinstance(sources, str) else sources) for name, layer, sources in nodes]
    return Graph(IMAGE, tuple(made))


def generator(seed: int = 0) -> torch.Generator:
    """Return a seeded generator."""
    return torch.Generator().manual_seed(seed)


# --- the module ------------------------------------------------------------------------------------

ONE_LAYER: dict[str, tuple[Layer, nn.Module]] = {
    "identity": (Identity(), nn.Identity()),
    "convolution": (Convolution(4, 3), nn.Conv2d(3, 4, 3, padding=1, bias=False)),
    "strided convolution": (Convolution(4, 5, 2, bias=True), nn.Conv2d(3, 4, 5, 2, padding=2)),
    "grouped convolution": (Convolution(6, 1, groups=3), nn.Conv2d(3, 6, 1, groups=3, bias=False)),
    "depthwise": (DepthwiseConvolution(3, 2), nn.Conv2d(3, 3, 3, 2, padding=1, groups=3, bias=False)),
    "batch norm": (BatchNorm(1e-3), nn.BatchNorm2d(3, eps=1e-3)),
    "relu": (Activation("relu"), nn.ReLU()),
    "tanh": (Activation("tanh"), nn.Tanh()),
    "sigmoid": (Activation("sigmoid"), nn.Sigmoid()),
    "dropout": (Dropout(0.5), nn.Identity()),
    "max pooling": (MaxPooling(2, 2), nn.MaxPool2d(2)),
    "padded average": (AveragePooling(3, 1, 1), nn.AvgPool2d(3, 1, 1, count_include_pad=False)),
    "global average": (GlobalAveragePooling(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())),
    "flatten": (Flatten(), nn.Flatten()),
}


@pytest.mark.parametrize("name", ONE_LAYER)
def test_a_layer_computes_what_pytorch_does(name: str) -> None:
    """With the same weights, evaluated, the same numbers and the shape that was announced."""
    layer, module = ONE_LAYER[name]
    graph = graph_of(("only", layer, INPUT))
    rng = np.random.default_rng(0)
    state, images = random_state(graph, rng), random_images(rng)
    module = module.double().eval()
    module.load_state_dict({key.removeprefix("only."): tensor for key, tensor in state.items()})
    found = outputs(graph, state, images)
    torch.testing.assert_close(found, module(images))
    assert tuple(found.shape[1:]) == graph.shapes["only"]


JOINED = {
    "sum": (Add(), lambda a, b: a + b),
    "mean": (Add(average=True), lambda a, b: (a + b) / 2),
    "concat": (Concat(), lambda a, b: torch.cat([a, b], 1)),
}


@pytest.mark.parametrize("name", JOINED)
def test_junctions_join(name: str) -> None:
    """The images and their ReLU, in the order of the inputs."""
    layer, expected = JOINED[name]
    graph = graph_of(("relu", Activation("relu"), INPUT), ("joint", layer, (INPUT, "relu")))
    images = random_images(np.random.default_rng(0))
    torch.testing.assert_close(outputs(graph, {}, images), expected(images, images.relu()))


def test_a_segment_cuts_channels() -> None:
    """From the first to the one before the last bound."""
    images = random_images(np.random.default_rng(0))
    assert torch.equal(outputs(graph_of(("cut", Segment(1, 3), INPUT)), {}, images), images[:, 1:3])


def test_a_residual_network_computes_what_it_looks_like() -> None:
    """Written out by functions of PyTorch."""
    graph = graph_of(
        ("conv1", Convolution(4, 3), INPUT),
        ("relu1", Activation("relu"), "conv1"),
        ("conv2", Convolution(4, 1, bias=True), "relu1"),
        ("sum", Add(), ("conv2", "relu1")),
        ("flat", Flatten(), "sum"),
        ("logits", Linear(2), "flat"),
    )
    rng = np.random.default_rng(0)
    state, images = random_state(graph, rng), random_images(rng)
    hidden = functional.conv2d(images, state["conv1.weight"], padding=1).relu()
    summed = functional.conv2d(hidden, state["conv2.weight"], state["conv2.bias"]) + hidden
    expected = functional.linear(summed.flatten(1), state["logits.weight"], state["logits.bias"])
    torch.testing.assert_close(outputs(graph, state, images), expected)


@given(seeds)
@settings(max_examples=25)
def test_shapes_and_tensors_are_those_of_the_module(seed: int) -> None:
    """What the description says without computing, against what comes out."""
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    network = GraphNetwork(graph, random_state(graph, rng)).eval()
    with torch.no_grad():
        values = network.values(random_images(rng), graph.shapes)
    assert {name: tuple(value.shape[1:]) for name, value in values.items()} == graph.shapes
    assert {name: tuple(tensor.shape) for name, tensor in network.state().items()} == graph.tensor_shapes


@given(seeds)
@settings(max_examples=25)
def test_what_is_called_nonnegative_is(seed: int) -> None:
    """On random weights and images nothing marked so falls below 0."""
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    marked = [name for name, never in graph.nonnegative.items() if never]
    with torch.no_grad():
        values = GraphNetwork(graph, random_state(graph, rng)).eval().values(random_images(rng), marked)
    assert [name for name, value in values.items() if float(value.min()) < 0] == []


def test_training_a_network_leaves_its_state_alone() -> None:
    """A state is a value."""
    graph = graph_of(("flat", Flatten(), INPUT), ("logits", Linear(2), "flat"))
    state = initial_state(graph, generator())
    network = GraphNetwork(graph, state)
    before, handed_out = state["logits.weight"].clone(), network.state()
    with torch.no_grad():
        network.get_parameter("layers.logits.weight").add_(1)
    assert torch.equal(state["logits.weight"], before)
    assert torch.equal(handed_out["logits.weight"], before)


def test_the_cost_of_a_network_is_counted_like_any_other() -> None:
    """A 3x3 convolution of 3 into 4 channels on 64 pixels, and 4 x 2 + 2 for the linear layer."""
    graph = graph_of(
        ("conv", Convolution(4, 3), INPUT), ("mean", GlobalAveragePooling(), "conv"), ("logits", Linear(2), "mean")
    )
    cost = complexity(GraphNetwork(graph, initial_state(graph, generator())), IMAGE)
    assert (cost.parameters, cost.multiply_adds) == (3 * 4 * 9 + 10, 3 * 4 * 9 * 64 + 10)


def test_initial_weights_come_from_the_generator_alone() -> None:
    """The global generator does not move, and the seed decides."""
    graph = graph_of(("conv", Convolution(4, 3), INPUT), ("norm", BatchNorm(), "conv"))
    before = torch.get_rng_state()
    first, again, other = (initial_state(graph, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv.weight"], other["conv.weight"])


def test_initial_normalisations_change_nothing_but_epsilon() -> None:
    """Scale and variance 1, shift and mean 0, no batch seen."""
    state = initial_state(graph_of(("norm", BatchNorm(), INPUT)), generator())
    assert [state[f"norm.{name}"].unique().tolist() for name in ("weight", "running_var")] == [[1], [1]]
    assert [state[f"norm.{name}"].unique().tolist() for name in ("bias", "running_mean")] == [[0], [0]]
    assert int(state["norm.num_batches_tracked"]) == 0


# --- files -----------------------------------------------------------------------------------------


@given(seeds)
@settings(max_examples=30)
def test_a_graph_survives_json(seed: int) -> None:
    """Through text and back."""
    graph = random_graph(np.random.default_rng(seed))
    assert Graph.from_json(json.loads(json.dumps(graph.to_json()))) == graph


def test_every_kind_of_layer_can_be_written() -> None:
    """The listing of kinds is complete: every class that describes a layer is in it."""
    found: set[type[Layer]] = set()
    waiting = [Layer]
    while waiting:
        kind = waiting.pop()
        found.add(kind)
        waiting += kind.__subclasses__()
    public = {kind for kind in found if not kind.__name__.startswith("_") and kind is not Layer}
    assert public == set(LAYERS.values())


def saved(path: Path, seed: int = 0) -> tuple[Graph, dict[str, torch.Tensor]]:
    """Write a random network."""
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    state = random_state(graph, rng)
    save_network(path, graph, state)
    return graph, state


@pytest.mark.parametrize("seed", range(3))
def test_a_network_survives_its_file(tmp_path: Path, seed: int) -> None:
    """Graph and every bit of the weights, in their order and type."""
    graph, state = saved(tmp_path / "network.safetensors", seed)
    loaded, weights = load_network(tmp_path / "network.safetensors")
    assert loaded == graph
    assert list(weights) == list(state)
    assert all(torch.equal(weights[name], state[name]) for name in state)
    assert {tensor.dtype for tensor in weights.values()} == {tensor.dtype for tensor in state.values()}


def test_equal_networks_are_equal_files(tmp_path: Path) -> None:
    """Byte for byte, so that a hash of the file names the network."""
    paths = [tmp_path / f"{number}.safetensors" for number in range(8)]
    for path in paths:
        saved(path)
    assert len({path.read_bytes() for path in paths}) == 1


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    """Half a file is no network."""
    path = tmp_path / "network.safetensors"
    saved(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(MorphError, match=r"network\.safetensors: the network is damaged"):
        load_network(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The message says which."""
    with pytest.raises(MorphError, match=r"none\.safetensors: the network cannot be read: No such file"):
        load_network(tmp_path / "none.safetensors")


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    """A safetensors file without a graph."""
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(MorphError, match=r"other\.safetensors: not a network with its graph"):
        load_network(tmp_path / "other.safetensors")


def test_weights_of_another_graph_are_not_written(tmp_path: Path) -> None:
    """Nothing is left behind."""
    graph, state = saved(tmp_path / "network.safetensors")
    with pytest.raises(MorphError, match="have an unknown tensor extra"):
        save_network(tmp_path / "bad.safetensors", graph, state | {"extra.weight": torch.zeros(1)})
    assert not (tmp_path / "bad.safetensors").exists()


# --- what is refused -------------------------------------------------------------------------------

BAD_GRAPHS = {
    "empty": (lambda: graph_of(), "needs at least one layer"),
    "missing input": (lambda: graph_of(("a", Identity(), "b")), r"a \(Identity\(\)\) reads 'b', which does not stand"),
    "taken name": (lambda: graph_of(("a", Identity(), INPUT), ("a", Identity(), "a")), "the name is taken"),
    "name of the images": (lambda: graph_of((INPUT, Identity(), INPUT)), "the name is taken"),
    "name with a point": (lambda: graph_of(("a.b", Identity(), INPUT)), "cannot be called 'a.b'"),
    "name of an attribute": (lambda: graph_of(("pop", Identity(), INPUT)), "cannot be called 'pop'"),
    "two inputs": (lambda: graph_of(("a", Identity(), (INPUT, INPUT))), "has 2 inputs, where it takes exactly one"),
    "no inputs": (lambda: graph_of(("a", Add(), ())), "has 0 inputs, where it takes at least one"),
    "unread": (lambda: graph_of(("a", Identity(), INPUT), ("b", Identity(), INPUT)), "a: nothing reads it"),
    "different sums": (
        lambda: graph_of(("a", Convolution(4), INPUT), ("b", Add(), ("a", INPUT))),
        r"b \(Add\(average=False\)\) on a \(4, 8, 8\), input \(3, 8, 8\): the inputs of an addition must have one",
    ),
    "different sizes": (
        lambda: graph_of(("a", MaxPooling(2, 2), INPUT), ("b", Concat(), ("a", INPUT))),
        r"a concatenation may differ in channels only, got \(3, 4, 4\), \(3, 8, 8\)",
    ),
    "groups": (lambda: graph_of(("a", Convolution(4, groups=2), INPUT)), "3 input channels are not divisible by the 2"),
    "linear on images": (lambda: graph_of(("a", Linear(2), INPUT)), r"takes features, got the shape \(3, 8, 8\)"),
    "pooling features": (
        lambda: graph_of(("a", Flatten(), INPUT), ("b", MaxPooling(2, 2), "a")),
        r"a pooling takes images .* got the shape \(192,\)",
    ),
    "window too large": (lambda: graph_of(("a", MaxPooling(9, 1), INPUT)), "9x9 does not fit an image of 8x8"),
    "segment outside": (lambda: graph_of(("a", Segment(1, 4), INPUT)), "units 1 to 4 are no part of 3 units"),
    "even kernel": (lambda: Convolution(4, 2), "the kernel must be odd"),
    "even depthwise kernel": (lambda: DepthwiseConvolution(4), "the kernel must be odd"),
    "no channels": (lambda: Convolution(0), "channels must be an integer of at least 1, got 0"),
    "channels and groups": (lambda: Convolution(5, groups=2), "channels must be divisible by groups"),
    "activation": (lambda: Activation("swish"), "must be one of relu, sigmoid, tanh, got 'swish'"),
    "probability": (lambda: Dropout(1.0), "at least 0 and below 1, got 1.0"),
    "padding": (lambda: MaxPooling(2, 1, 2), "the padding must be at most half of the kernel"),
}


@pytest.mark.parametrize("name", BAD_GRAPHS)
def test_what_fits_no_graph_is_named(name: str) -> None:
    """Layer, shapes and rule."""
    make, message = BAD_GRAPHS[name]
    with pytest.raises(MorphError, match=message):
        make()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param({}, "describes no graph: KeyError", id="empty"),
        pytest.param({"input_shape": [3, 8], "nodes": []}, "describes no graph: ValueError", id="shape"),
        pytest.param(
            {"input_shape": [3, 8, 8], "nodes": [{"name": "a", "inputs": ["input"], "kind": "conv"}]},
            "a: unknown kind of layer 'conv'",
            id="kind",
        ),
        pytest.param(
            {"input_shape": [3, 8, 8], "nodes": [{"name": "a", "inputs": ["input"], "kind": "identity", "x": 1}]},
            "describes no graph: TypeError",
            id="field",
        ),
    ],
)
def test_content_that_is_no_graph(content: dict[str, object], message: str) -> None:
    """A file of another version, or damaged."""
    with pytest.raises(MorphError, match=message):
        Graph.from_json(content)


def test_an_unknown_layer_is_listed() -> None:
    """The message lists those that there are."""
    with pytest.raises(MorphError, match=r"no layer 'conv9'\. It has conv1, conv2"):
        graph_of(("conv1", Convolution(2), INPUT), ("conv2", Convolution(2), "conv1")).node("conv9")


def test_weights_of_another_shape_are_named() -> None:
    """The layer, what it has and what it needs."""
    graph = graph_of(("conv", Convolution(4, 3), INPUT))
    wrong = {"conv.weight": torch.zeros(4, 2, 3, 3)}
    with pytest.raises(MorphError, match=r"conv \(Convolution.*\(4, 2, 3, 3\), where the layer needs \(4, 3, 3, 3\)"):
        check_state(graph, wrong)


def test_missing_weights_are_named() -> None:
    """The first of them."""
    with pytest.raises(MorphError, match=r"the weights lack tensor conv.weight \(1 in total\)"):
        check_state(graph_of(("conv", Convolution(4, 3), INPUT)), {})


def test_a_graph_cannot_be_changed() -> None:
    """It is a value."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph_of(("a", Identity(), INPUT)).nodes = ()  # type: ignore[misc]
