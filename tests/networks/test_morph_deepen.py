"""Deeper networks compute the same, or the transform says that they would not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_graphs import (
    CLASSES,
    IMAGE,
    assert_child,
    assert_same_function,
    outputs,
    random_graph,
    random_images,
    random_state,
)
from torch import Tensor

from nas_gym.networks.morph import (
    INPUT,
    Activation,
    AveragePooling,
    BatchNorm,
    Convolution,
    DepthwiseConvolution,
    Dropout,
    GlobalAveragePooling,
    Graph,
    GraphNetwork,
    Identity,
    Layer,
    Linear,
    MaxPooling,
    MorphError,
    Node,
    NotPreserving,
    State,
    Statistics,
    deepen,
    deepen_preactivated,
    insert,
    measure,
    mimic,
    replace_identity,
    substitute,
)

pytestmark = pytest.mark.usefixtures("one_thread")
"""Compute with one thread, as workers do."""

seeds = st.integers(0, 2**32 - 1)


def statistics_of(graph: Graph, state: State, name: str, images: Tensor) -> Statistics:
    """Return the statistics of one layer."""
    return measure(GraphNetwork(graph, state), images, [name])[name]


def edge_graph(*layers: Layer) -> Graph:
    """Return stem, ReLU, the layers, pooling and logits."""
    nodes = [Node("stem", Convolution(4, 3), (INPUT,)), Node("relu", Activation("relu"), ("stem",))]
    for position, layer in enumerate(layers):
        nodes.append(Node(f"edge{position}", layer, (nodes[-1].name,)))
    nodes.append(Node("mean", GlobalAveragePooling(), (nodes[-1].name,)))
    return Graph(IMAGE, (*nodes, Node("logits", Linear(CLASSES), ("mean",))))


def network(seed: int = 0, *layers: Layer) -> tuple[Graph, dict[str, Tensor], Tensor]:
    """Return a small graph, random weights and images."""
    rng = np.random.default_rng(seed)
    graph = edge_graph(*layers)
    return graph, random_state(graph, rng), random_images(rng, 20)


# --- statistics ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, 20, 64])
def test_statistics_do_not_depend_on_the_batches(batch_size: int) -> None:
    """They are those of all pixels of all images at once."""
    graph, state, images = network()
    model = GraphNetwork(graph, state)
    found = measure(model, images, ["stem"], batch_size)["stem"]
    with torch.no_grad():
        values = model.eval().values(images, ["stem"])["stem"].transpose(0, 1).flatten(1)
    torch.testing.assert_close(found.mean, values.mean(1))
    torch.testing.assert_close(found.variance, values.var(1, correction=0))
    assert torch.equal(found.minimum, values.amin(1))


def test_measuring_leaves_the_network_alone() -> None:
    """Mode and running statistics are as before."""
    graph, state, images = network(0, BatchNorm())
    model = GraphNetwork(graph, state).train()
    measure(model, images, ["edge0", INPUT])
    assert all(module.training for module in model.modules())
    assert all(torch.equal(model.state()[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("count", "name", "message"),
    [
        pytest.param(0, "stem", "at least one image, got none", id="no images"),
        pytest.param(1, "nothing", "no layer 'nothing'", id="unknown layer"),
    ],
)
def test_what_cannot_be_measured(count: int, name: str, message: str) -> None:
    """No images, or no such layer."""
    graph, state, images = network()
    with pytest.raises(MorphError, match=message):
        measure(GraphNetwork(graph, state), images[:count], [name])


# --- deepen ----------------------------------------------------------------------------------------


@given(seeds, st.sampled_from([1, 3, 5]), st.booleans())
@settings(max_examples=60)
def test_a_deeper_network_computes_the_same(seed: int, kernel: int, normalised: bool) -> None:
    """Behind any layer of a random graph that puts out nothing negative, on images that were not measured."""
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    state = random_state(graph, rng)
    places = [name for name, never in graph.nonnegative.items() if never]
    assume(places)
    after = str(rng.choice(places))
    measured = statistics_of(graph, state, after, random_images(rng, 4)) if normalised else None
    morphed = deepen(graph, state, after, measured, kernel)
    assert len(morphed.graph.nodes) == len(graph.nodes) + 2 + normalised
    assert morphed.caveats == ()
    assert_child((graph, state), morphed, random_images(rng))


@given(seeds)
@settings(max_examples=20)
def test_a_rectification_of_signed_values_is_refused(seed: int) -> None:
    """Wherever a layer may put out something negative."""
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    state = random_state(graph, rng)
    places = [node.name for node in graph.nodes if not graph.nonnegative[node.name]]
    with pytest.raises(NotPreserving, match="a rectification of values that may be negative changes them"):
        deepen(graph, state, str(rng.choice(places)), None)


def test_a_deeper_network_computes_the_same_in_float32() -> None:
    """Means and variances far from 0 and 1 included, to 1e-4."""
    rng = np.random.default_rng(0)
    graph = edge_graph()
    state = random_state(graph, rng, torch.float32)
    images = random_images(rng, 20, torch.float32) * 3 + 1
    morphed = deepen(graph, state, "relu", statistics_of(graph, state, "relu", images))
    assert_same_function((graph, state), (morphed.graph, morphed.state), images)


def test_a_new_layer_is_convolution_normalisation_relu() -> None:
    """A centre tap per channel; scale and shift undo the measured statistics; what followed reads the ReLU."""
    graph, state, images = network()
    measured = statistics_of(graph, state, "relu", images)
    morphed = deepen(graph, state, "relu", measured, kernel=5, more=(Dropout(0.2),))
    names = morphed.branches[0]
    assert [morphed.graph.node(name).layer for name in names] == [
        Convolution(4, 5),
        BatchNorm(),
        Activation("relu"),
        Dropout(0.2),
    ]
    assert morphed.graph.node("mean").inputs == names[-1:]
    kernel = morphed.state[f"{names[0]}.weight"]
    assert torch.equal(kernel[:, :, 2, 2], torch.eye(4, dtype=torch.float64))
    assert float(kernel.abs().sum()) == 4
    tensors = {name: morphed.state[f"{names[1]}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")}
    torch.testing.assert_close(tensors["running_mean"], measured.mean)
    torch.testing.assert_close(tensors["running_var"], measured.variance)
    torch.testing.assert_close(tensors["bias"], measured.mean)
    torch.testing.assert_close(tensors["weight"], torch.sqrt(measured.variance + 1e-5))


def test_training_mode_is_close_on_the_measured_images() -> None:
    """The batch has the measured statistics, so that its normalisation is the identity there too."""
    graph, state, images = network()
    morphed = deepen(graph, state, "relu", statistics_of(graph, state, "relu", images))
    before, after = GraphNetwork(graph, state), GraphNetwork(morphed.graph, morphed.state)
    torch.testing.assert_close(after(images), before(images), rtol=0, atol=1e-10)


def test_a_dead_channel_stays_dead() -> None:
    """A channel without variance is handed through as well."""
    graph, state, images = network()
    state["stem.weight"][0] = 0
    morphed = deepen(graph, state, "relu", statistics_of(graph, state, "relu", images))
    assert_child((graph, state), morphed, images)


INSERTED = {
    "1x1 convolution": (Convolution(4, 1),),
    "separable convolution": (DepthwiseConvolution(5), Convolution(4, 1), BatchNorm()),
    "grouped convolution": (Convolution(4, 3, groups=2), BatchNorm()),
    "identity": (Identity(),),
    "pooling of one pixel": (MaxPooling(1, 1),),
}


@pytest.mark.parametrize("name", INSERTED)
@pytest.mark.parametrize("after", ["stem", "relu"])
def test_chains_without_rectification_fit_everywhere(name: str, after: str) -> None:
    """Linear layers are the identity on signed values too."""
    graph, state, images = network()
    morphed = insert(graph, state, after, INSERTED[name], statistics_of(graph, state, after, images))
    assert_child((graph, state), morphed, random_images(np.random.default_rng(1)))


def test_preactivated_chains_fit_behind_a_relu() -> None:
    """Normalisation, ReLU, separable convolution, where nothing is negative."""
    graph, state, images = network()
    layers = (BatchNorm(), Activation("relu"), DepthwiseConvolution(3), Convolution(4, 1))
    morphed = insert(graph, state, "relu", layers, statistics_of(graph, state, "relu", images))
    assert_child((graph, state), morphed, random_images(np.random.default_rng(1)))


def test_a_fully_connected_layer_goes_behind_features() -> None:
    """An identity matrix, normalisation, ReLU."""
    rng = np.random.default_rng(0)
    nodes = edge_graph().nodes
    hidden = (Node("fc", Linear(5), ("mean",)), Node("fc_relu", Activation("relu"), ("fc",)))
    graph = Graph(IMAGE, (*nodes[:-1], *hidden, Node("logits", Linear(CLASSES), ("fc_relu",))))
    state, images = random_state(graph, rng), random_images(rng, 20)
    morphed = deepen(graph, state, "fc_relu", statistics_of(graph, state, "fc_relu", images))
    assert morphed.graph.node(morphed.branches[0][0]).layer == Linear(5, bias=False)
    assert_child((graph, state), morphed, random_images(rng))


@pytest.mark.parametrize("ratio", [0.001, 0.1])
def test_noise_is_on_new_kernels_alone(ratio: float) -> None:
    """A share of the standard deviation of the identity kernel; 144 draws."""
    graph, state, images = network()
    measured = statistics_of(graph, state, "relu", images)
    plain = deepen(graph, state, "relu", measured)
    noisy = deepen(graph, state, "relu", measured, rng=np.random.default_rng(0), noise=ratio)
    kernel = f"{plain.branches[0][0]}.weight"
    assert [name for name in plain.state if not torch.equal(plain.state[name], noisy.state[name])] == [kernel]
    difference = noisy.state[kernel] - plain.state[kernel]
    assert float(difference.std() / plain.state[kernel].std()) == pytest.approx(ratio, rel=0.2)
    assert noisy.caveats == (f"noise of {ratio} standard deviations on the new weights",)


# --- signed values: the shift ----------------------------------------------------------------------


def signed_network() -> tuple[Graph, dict[str, Tensor], Tensor]:
    """Return a network whose convolution ``edge0`` is averaged and classified without a ReLU in between."""
    return network(0, Convolution(4, 1))


def test_plain_rectification_of_signed_values_would_be_wrong() -> None:
    """The error that the refusal prevents is as large as the logits."""
    graph, state, images = signed_network()
    rectified = edge_graph(Convolution(4, 1), Activation("relu"))
    assert float((outputs(rectified, state, images) - outputs(graph, state, images)).abs().max()) > 0.1


@pytest.mark.parametrize("kernel", [1, 3])
def test_the_shift_preserves_signed_values(kernel: int) -> None:
    """Normalisation, ReLU, convolution behind a convolution, on the measured images."""
    graph, state, images = signed_network()
    morphed = deepen_preactivated(graph, state, "edge0", statistics_of(graph, state, "edge0", images), kernel)
    assert [morphed.graph.node(name).layer.kind for name in morphed.branches[0]] == [
        "batch_norm",
        "activation",
        "convolution",
    ]
    assert_same_function((graph, state), (morphed.graph, morphed.state), images)


def test_the_shift_ends_at_the_measured_minimum_and_says_so() -> None:
    """Images of ten times the contrast fall below it."""
    graph, state, images = signed_network()
    morphed = deepen_preactivated(graph, state, "edge0", statistics_of(graph, state, "edge0", images))
    assert "only where no unit of edge0 falls below its measured minimum" in morphed.caveats[0]
    strong = images * 10
    difference = outputs(morphed.graph, morphed.state, strong) - outputs(graph, state, strong)
    assert float(difference.abs().max()) > 1e-3


def test_the_shift_of_nonnegative_values_is_none() -> None:
    """min(0, minimum) is 0 also where the smallest measured value is positive, so that smaller ones pass."""
    graph, state, images = network(0, Activation("sigmoid"))
    measured = statistics_of(graph, state, "edge0", images)
    assert float(measured.minimum.min()) > 0
    morphed = deepen_preactivated(graph, state, "edge0", measured)
    assert float(morphed.state[f"{morphed.branches[0][-1]}.bias"].abs().max()) == 0
    assert_child((graph, state), morphed, random_images(np.random.default_rng(1)))


# --- an identity becomes something else ------------------------------------------------------------


@pytest.mark.parametrize("name", INSERTED)
def test_an_identity_becomes_a_chain(name: str) -> None:
    """The identity is gone and the function is not."""
    graph, state, images = network(0, Identity())
    morphed = replace_identity(graph, state, "edge0", INSERTED[name], statistics_of(graph, state, "edge0", images))
    assert "edge0" not in morphed.graph.by_name
    assert_child((graph, state), morphed, random_images(np.random.default_rng(1)))


@pytest.mark.parametrize("pooling", [MaxPooling(3, 1, 1), AveragePooling(3, 1, 1)], ids=["max", "average"])
def test_pooling_in_place_of_an_identity_is_refused(pooling: Layer) -> None:
    """The message names the repair."""
    graph, state, _ = network(0, Identity())
    with pytest.raises(NotPreserving, match=r"in place of the identity changes the function.*repair the child with"):
        replace_identity(graph, state, "edge0", (pooling,))


def test_mimicry_repairs_what_a_substitution_broke() -> None:
    """Pooling in place of an identity changes the logits; 30 epochs on them bring most of it back."""
    rng = np.random.default_rng(0)
    graph = edge_graph(Identity(), Convolution(4, 3), BatchNorm(), Activation("relu"))
    state = random_state(graph, rng, torch.float32)
    images = random_images(rng, 200, torch.float32)
    morphed = substitute(graph, state, "edge0", (MaxPooling(3, 1, 1),), torch.Generator().manual_seed(0))
    assert "not preserved before a repair by `mimic`" in morphed.caveats[0]
    parent, child = GraphNetwork(graph, state), GraphNetwork(morphed.graph, morphed.state)
    wanted = outputs(graph, state, images)
    broken = float((outputs(morphed.graph, morphed.state, images) - wanted).square().mean())
    losses = mimic(child, parent, images, torch.Generator().manual_seed(0), learning_rate=0.1)
    repaired = float((outputs(morphed.graph, child.state(), images) - wanted).square().mean())
    assert len(losses) == 30
    assert repaired < broken / 4
    assert losses[-1] < losses[0]
    seen = [int(weights["edge2.num_batches_tracked"]) for weights in (state, child.state())]
    assert seen[1] == seen[0] + 30 * 2, "the child's normalisations follow its batches of 100"
    assert all(torch.equal(parent.state()[name], state[name]) for name in state)


def test_mimicry_of_an_equal_child_has_nothing_to_do() -> None:
    """Without normalisation the loss is 0 from the start and no weight moves."""
    graph, state, images = network()
    parent, child = GraphNetwork(graph, state), GraphNetwork(graph, state)
    assert mimic(child, parent, images, torch.Generator(), epochs=2) == [0, 0]
    assert all(torch.equal(child.state()[name], state[name]) for name in state)


def test_mimicry_needs_images() -> None:
    """One image has no statistics."""
    graph, state, images = network()
    with pytest.raises(MorphError, match="at least two images, got 1"):
        mimic(GraphNetwork(graph, state), GraphNetwork(graph, state), images[:1], torch.Generator())


# --- what is refused -------------------------------------------------------------------------------

REFUSED: dict[str, tuple[str, tuple[Layer, ...], type[MorphError], str]] = {
    "wrong width": (
        "relu",
        (Convolution(5, 3),),
        MorphError,
        r"deeper1 .*behind relu.*\(4, 8, 8\): .*got 4 inputs, 5 outputs and stride 1",
    ),
    "stride": ("relu", (Convolution(4, 3, 2),), MorphError, "4 outputs and stride 2"),
    "depthwise stride": ("relu", (DepthwiseConvolution(3, 2),), MorphError, "has stride 1, got stride 2"),
    "linear on an image": ("relu", (Linear(4),), MorphError, r"takes features, got the shape \(4, 8, 8\)"),
    "convolution of features": ("mean", (Convolution(4),), MorphError, r"takes images .* got the shape \(4,\)"),
    "linear of another width": ("mean", (Linear(5),), MorphError, "got 4 inputs and 5 outputs"),
    "no statistics": ("relu", (BatchNorm(),), MorphError, "set from the statistics of its input: measure them"),
    "no layers": ("relu", (), MorphError, "there is no layer to put behind it"),
    "tanh": ("relu", (Activation("tanh"),), NotPreserving, "only relu is idempotent"),
    "sigmoid": ("relu", (Activation("sigmoid"),), NotPreserving, "only relu is idempotent"),
    "pooling": ("relu", (AveragePooling(2, 2),), NotPreserving, "in place of the identity changes the function"),
    "global pooling": ("relu", (GlobalAveragePooling(),), NotPreserving, "cannot take the place of the identity"),
    "unknown": ("nothing", (Identity(),), MorphError, "no layer 'nothing'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_inserted_is_named(name: str) -> None:
    """Layer, shapes and rule."""
    after, layers, error, message = REFUSED[name]
    graph, state, _ = network()
    with pytest.raises(error, match=message):
        insert(graph, state, after, layers)


def test_statistics_of_another_layer_are_refused() -> None:
    """Three channels measured, four to normalise."""
    graph, state, images = network()
    measured = statistics_of(graph, state, INPUT, images)
    with pytest.raises(MorphError, match="statistics of 3 units do not fit a layer of 4 units"):
        deepen(graph, state, "relu", measured)


def test_only_an_identity_is_replaced() -> None:
    """Anything else would be lost."""
    graph, state, _ = network()
    with pytest.raises(MorphError, match=r"stem .* is no identity: only an identity can be replaced"):
        replace_identity(graph, state, "stem", (Convolution(4, 1),))


def test_a_substitute_keeps_the_shape() -> None:
    """Both shapes are in the message."""
    graph, state, _ = network(0, Identity())
    with pytest.raises(MorphError, match=r"puts out \(4, 4, 4\), where edge0 .* puts out \(4, 8, 8\)"):
        substitute(graph, state, "edge0", (MaxPooling(2, 2),), torch.Generator())


def test_noise_needs_a_generator() -> None:
    """Nothing is drawn from a global one."""
    graph, state, _ = network()
    with pytest.raises(MorphError, match=r"noise = 0.1 needs a generator"):
        deepen(graph, state, "relu", None, noise=0.1)
