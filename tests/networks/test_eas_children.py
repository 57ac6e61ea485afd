"""The networks at the end of an EAS episode: they compute what the start network computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_gym import networks
from nas_gym.errors import InvalidArgument
from nas_gym.networks.eas_children import Noise, build, morph, start_graph
from nas_gym.networks.morph import Convolution, Dropout, Graph, GraphNetwork, Linear, MorphError, initial_state
from nas_gym.search_spaces.eas import SMALL, EASDenseSpace, EASSpace
from nas_gym.search_spaces.growing import Layer, TransformSpace

pytestmark = pytest.mark.usefixtures("one_thread")
"""Compute with one thread, as workers do."""

IMAGE = (1, 8, 8)
CLASSES = 3
SILENT = Noise(0.0, 0.0)
small = EASSpace(**SMALL)
dense = EASDenseSpace(wider=2, deeper=2)
every_space = pytest.mark.parametrize("space", [small, dense], ids=["plain", "dense"])
seeds = st.integers(0, 2**32 - 1)


def images(count: int = 16) -> torch.Tensor:
    """Return random images."""
    return torch.randn(count, *IMAGE, generator=torch.Generator().manual_seed(1))


def parent(space: TransformSpace, dropout: float = 0.0) -> tuple[Graph, dict[str, torch.Tensor]]:
    """Return a start network whose normalisations have seen images."""
    graph = start_graph(space.start, IMAGE, CLASSES, dropout)
    network = GraphNetwork(graph, initial_state(graph, torch.Generator().manual_seed(0))).train()
    for _ in range(20):
        network(images(64))
    return graph, network.state()


@every_space
@settings(max_examples=8)
@given(seed=seeds)
def test_a_child_without_noise_computes_what_its_parent_computes(space: TransformSpace, seed: int) -> None:
    """Whatever the episode."""
    rng = np.random.default_rng(seed)
    graph, state = parent(space)
    child = morph(space.decode(space.sample(rng)), graph, state, rng, images(), SILENT)
    with torch.no_grad():
        expected = GraphNetwork(graph, state).eval()(images(5))
        found = GraphNetwork(child.graph, child.state).eval()(images(5))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=15)
@given(seed=seeds)
def test_a_plain_child_has_the_layers_of_its_architecture(seed: int) -> None:
    """In their order: widths and kernels of convolutions, widths of fully connected layers."""
    architecture = small.decode(small.sample(np.random.default_rng(seed)))
    graph = build(architecture, IMAGE, CLASSES).graph
    found = [
        Layer(graph.shapes[node.name][0], node.layer.kernel if isinstance(node.layer, Convolution) else 0)
        for node in graph.nodes
        if isinstance(node.layer, (Convolution, Linear))
    ]
    assert found == [layer for block in architecture.blocks for layer in block] + [Layer(CLASSES)]


@every_space
def test_the_untrained_network_is_that_of_the_child(space: TransformSpace) -> None:
    """The same graph, so that sizes and limits hold for both."""
    rng = np.random.default_rng(0)
    architecture = space.decode(space.sample(rng))
    child = morph(architecture, *parent(space), rng, images(), SILENT)
    assert networks.build(space, space.sample(np.random.default_rng(0)), IMAGE, CLASSES).graph == child.graph


@every_space
def test_a_network_can_be_built_without_memory(space: TransformSpace) -> None:
    """On the device ``meta``, where sizes are counted."""
    with torch.device("meta"):
        model = build(space.decode(space.sample(np.random.default_rng(0))), IMAGE, CLASSES)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


@every_space
def test_noise_changes_the_function_a_little(space: TransformSpace) -> None:
    """That of the released code moves the logits by less than a tenth of their spread."""
    rng = np.random.default_rng(0)
    graph, state = parent(space)
    child = morph(space.decode(space.sample(rng)), graph, state, rng, images())
    with torch.no_grad():
        expected = GraphNetwork(graph, state).eval()(images())
        found = GraphNetwork(child.graph, child.state).eval()(images())
    assert 0 < float((found - expected).abs().max()) < 0.1 * float(expected.std())


@every_space
def test_the_parent_is_left_alone(space: TransformSpace) -> None:
    """Its weights serve the next child."""
    rng = np.random.default_rng(0)
    graph, state = parent(space)
    before = {name: tensor.clone() for name, tensor in state.items()}
    morph(space.decode(space.sample(rng)), graph, state, rng, images())
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())


def test_the_same_generator_makes_the_same_child() -> None:
    """Repeated units and noise are drawn from it alone."""
    architecture = small.decode(small.sample(np.random.default_rng(0)))
    first, second = (morph(architecture, *parent(small), np.random.default_rng(5), images()) for _ in range(2))
    assert all(torch.equal(first.state[name], tensor) for name, tensor in second.state.items())


def test_stem_and_transitions_of_a_dense_child_follow_its_growth() -> None:
    """The stem has twice the growth, a transition half of its inputs."""
    wide = EASDenseSpace(wider=1, deeper=0)
    graph = build(wide.decode((1, 1, 1)), IMAGE, CLASSES).graph
    assert graph.shapes["stem"][0] == 12
    assert graph.shapes["transition1_conv"][0] == (12 + 6) // 2


def test_inserted_convolutions_have_dropout_behind_them() -> None:
    """As those that were there."""
    architecture = small.decode((0,) * 6 + (0, 0, 1, 1, 0, 1, 2, 0))
    graph = build(architecture, IMAGE, CLASSES, dropout=0.2).graph
    start = start_graph(small.start, IMAGE, CLASSES, 0.2)
    assert [sum(isinstance(node.layer, Dropout) for node in one.nodes) for one in (start, graph)] == [1, 3]


def test_weights_of_another_network_are_refused() -> None:
    """The transforms begin at a network that the child can grow from; layers do not vanish."""
    other = EASSpace(**{**SMALL, "blocks": ((8, 8, 8), (16,))})
    with pytest.raises(MorphError, match="the parent C8x3 C8x3 C8x3 P C16x3 A F16 cannot grow into"):
        morph(small.decode(small.sample(np.random.default_rng(0))), *parent(other), np.random.default_rng(0), images())


def test_images_that_are_too_small_are_refused() -> None:
    """Four blocks need 8x8 pixels."""
    with pytest.raises(InvalidArgument, match="too small for 4 blocks"):
        start_graph(EASSpace().start, (1, 4, 4), CLASSES)
