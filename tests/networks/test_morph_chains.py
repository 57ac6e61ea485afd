"""Many transforms one after the other: the function, the training that follows, and the optimiser's memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import (
    CLASSES,
    assert_child,
    assert_same_function,
    outputs,
    producers,
    random_graph,
    random_images,
    random_state,
)
from torch import Tensor
from torch.nn import functional

from nas_gym.networks import eas
from nas_gym.networks.morph import (
    BatchNorm,
    Convolution,
    Graph,
    GraphNetwork,
    Morphed,
    MorphError,
    State,
    deepen,
    initial_state,
    insert,
    insert_dense_layer,
    load_network,
    measure,
    replicate_add,
    replicate_concat,
    save_network,
    split_concat,
    transfer_optimiser,
    unchanged,
    widen,
)

pytestmark = pytest.mark.usefixtures("one_thread")
"""Compute with one thread, as workers do."""

seeds = st.integers(0, 2**32 - 1)


def random_transform(graph: Graph, state: State, rng: np.random.Generator) -> Morphed:
    """Return the child by a random transform at a random place; try until one fits."""
    while True:
        names = [node.name for node in graph.nodes[:-1]]
        place = str(rng.choice(names))
        choice = int(rng.integers(5))
        try:
            if choice == 0:
                layer = str(rng.choice(producers(graph)))
                return widen(graph, state, layer, graph.shapes[layer][0] + int(rng.integers(1, 4)), rng)
            if choice == 1:
                measured = measure(GraphNetwork(graph, state), random_images(rng, 4), [place])[place]
                return deepen(graph, state, place, measured, int(rng.choice([1, 3])))
            if choice == 2:
                return replicate_add(graph, state, place, 2)
            if choice == 3:
                return replicate_concat(graph, state, place, 2)
            return split_concat(graph, state, place, 2)
        except MorphError:
            continue


@given(seeds)
@settings(max_examples=12)
def test_ten_transforms_in_a_row_preserve(seed: int) -> None:
    """The function after every one of them; the gradients by origins that lead back to the first parent."""
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, steps=4)
    state = random_state(graph, rng)
    images = random_images(rng)
    morphed = unchanged(graph, state)
    for _ in range(10):
        morphed = morphed.then(lambda child, weights: random_transform(child, weights, rng))
        assert_same_function((graph, state), (morphed.graph, morphed.state), images)
    assert morphed.caveats == ()
    assert_child((graph, state), morphed, images)


@pytest.mark.parametrize("seed", range(3))
def test_a_child_survives_its_file(tmp_path: Path, seed: int) -> None:
    """Also where its tensors are copies of each other."""
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    state = random_state(graph, rng)
    morphed = unchanged(graph, state)
    for _ in range(5):
        morphed = morphed.then(lambda child, weights: random_transform(child, weights, rng))
    save_network(tmp_path / "child.safetensors", morphed.graph, morphed.state)
    images = random_images(rng)
    assert torch.equal(
        outputs(*load_network(tmp_path / "child.safetensors"), images), outputs(morphed.graph, morphed.state, images)
    )


# --- training --------------------------------------------------------------------------------------


def data(count: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return images of three classes, told apart by the channel that is bright, float32."""
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(rng.integers(CLASSES, size=count))
    images = random_images(rng, count, torch.float32)
    images[torch.arange(count), labels] += 1
    return images, labels


def train(network: GraphNetwork, optimiser: torch.optim.Optimizer, steps: int) -> list[float]:
    """Train on all images at once and return the loss before every step."""
    images, labels = data()
    network.train()
    losses = []
    for _ in range(steps):
        loss = functional.cross_entropy(network(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


def evaluated_loss(graph: Graph, state: State) -> float:
    """Return the loss in evaluation mode."""
    images, labels = data()
    return float(functional.cross_entropy(outputs(graph, state, images), labels))


def sgd(network: GraphNetwork) -> torch.optim.Optimizer:
    """Return the optimiser of EAS with a small rate."""
    return torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9, nesterov=True)


START: dict[str, Callable[[], Graph]] = {
    "plain": lambda: eas.plain_graph((3, 8, 8), CLASSES, ((4,), (6,)), (8,)),
    "dense": lambda: eas.dense_graph((3, 8, 8), CLASSES, 10, 4),
}


def trained_parent(start: str = "plain", steps: int = 20) -> tuple[GraphNetwork, torch.optim.Optimizer, State]:
    """Return a parent that has learned something, its optimiser, and its weights."""
    graph = START[start]()
    network = GraphNetwork(graph, initial_state(graph, torch.Generator().manual_seed(0)))
    optimiser = sgd(network)
    train(network, optimiser, steps)
    return network, optimiser, network.state()


def deeper(network: GraphNetwork, state: State) -> Morphed:
    """Insert a layer behind the first ReLU."""
    return deepen(network.graph, state, "conv1_relu", measure(network, data()[0], ["conv1_relu"])["conv1_relu"])


def wider(network: GraphNetwork, state: State) -> Morphed:
    """Widen the first convolution, with the noise of the released code."""
    return widen(network.graph, state, "conv1", 8, np.random.default_rng(0), eas.WIDER_NOISE)


def branched(network: GraphNetwork, state: State) -> Morphed:
    """Replicate the second convolution."""
    return replicate_add(network.graph, state, "conv2", 3)


def dense_layer(network: GraphNetwork, state: State) -> Morphed:
    """Insert a dense layer."""
    return insert_dense_layer(network.graph, state, "block2_layer1", np.random.default_rng(0))


TRAINED: dict[str, tuple[str, Callable[[GraphNetwork, State], Morphed]]] = {
    "deeper": ("plain", deeper),
    "wider": ("plain", wider),
    "branched": ("plain", branched),
    "dense layer": ("dense", dense_layer),
}


@pytest.mark.parametrize("name", TRAINED)
def test_training_goes_on_where_the_parent_stood(name: str) -> None:
    """The child's loss begins at the parent's, far below that of new weights, and falls."""
    start, transform = TRAINED[name]
    network, _, state = trained_parent(start)
    morphed = transform(network, state)
    reached = evaluated_loss(network.graph, state)
    fresh = evaluated_loss(morphed.graph, initial_state(morphed.graph, torch.Generator().manual_seed(1)))
    assert evaluated_loss(morphed.graph, morphed.state) == pytest.approx(reached, abs=2e-3)
    assert reached < 0.8 * fresh
    child = GraphNetwork(morphed.graph, morphed.state)
    losses = train(child, sgd(child), 15)
    assert losses[-1] < losses[0]
    assert evaluated_loss(child.graph, child.state()) < reached


@pytest.mark.parametrize("name", TRAINED)
def test_gradients_reach_every_parameter(name: str) -> None:
    """After one step; until then a dense layer's normalisation is hidden behind the zeros of its kernel."""
    start, transform = TRAINED[name]
    network, _, state = trained_parent(start)
    morphed = transform(network, state)
    child = GraphNetwork(morphed.graph, morphed.state)
    train(child, sgd(child), 2)
    for parameter, tensor in child.named_parameters():
        assert tensor.grad is not None, parameter
        gradients = tensor.grad.flatten(1).abs().sum(1) if tensor.dim() > 1 else tensor.grad.abs()
        assert bool((gradients > 0).all()), parameter


def test_zero_kernels_of_a_new_dense_layer_learn_from_the_first_step() -> None:
    """Their inputs are not zero, so that their gradients are not either."""
    network, _, state = trained_parent("dense")
    morphed = dense_layer(network, state)
    child = GraphNetwork(morphed.graph, morphed.state)
    train(child, sgd(child), 1)
    gradient = child.get_parameter(f"layers.{morphed.branches[0][2]}.weight").grad
    assert gradient is not None
    assert bool((gradient[:, -4:].abs().amax((1, 2, 3)) > 0).any())


# --- the optimiser's memory ------------------------------------------------------------------------

OPTIMISERS: dict[str, Callable[[GraphNetwork], torch.optim.Optimizer]] = {
    "momentum": sgd,
    "adam": lambda network: torch.optim.Adam(network.parameters(), lr=0.01),
    "amsgrad": lambda network: torch.optim.Adam(network.parameters(), lr=0.01, amsgrad=True),
    "rmsprop": lambda network: torch.optim.RMSprop(
        network.parameters(), lr=0.01, momentum=0.9, centered=True, eps=1e-14
    ),
    "adagrad": lambda network: torch.optim.Adagrad(network.parameters(), lr=0.01),
}


def one_evaluated_step(
    network: GraphNetwork, optimiser: torch.optim.Optimizer, images: Tensor, targets: Tensor
) -> None:
    """Take one step without moving: gradients in evaluation mode, learning rate 0."""
    for group in optimiser.param_groups:
        group["lr"] = 0.0
    optimiser.zero_grad()
    functional.mse_loss(network.eval()(images), targets).backward()
    optimiser.step()


@pytest.mark.parametrize("name", OPTIMISERS)
@given(seed=seeds)
@settings(max_examples=6)
def test_the_memory_is_what_the_child_itself_would_remember(name: str, seed: int) -> None:
    """Two optimisers see the same batches, one in the parent, one in the child; what is mapped equals what was seen.

    Momentum is linear in the gradients and second moments are quadratic; both are divided accordingly. RMSprop sums
    steps of gradients over their size; its epsilon, which the size does not divide, is made small.
    """
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, steps=4)
    state = random_state(graph, rng)
    morphed = unchanged(graph, state)
    for _ in range(3):
        morphed = morphed.then(lambda child, weights: random_transform(child, weights, rng))
    parent, child = GraphNetwork(graph, state), GraphNetwork(morphed.graph, morphed.state)
    before, own, mapped = (OPTIMISERS[name](network) for network in (parent, child, child))
    for _ in range(3):
        images, targets = random_images(rng), torch.from_numpy(rng.normal(size=(2, CLASSES)))
        one_evaluated_step(parent, before, images, targets)
        one_evaluated_step(child, own, images, targets)
    report = transfer_optimiser(morphed, parent, before, child, mapped)
    parameters = {key.removeprefix("layers."): value for key, value in child.named_parameters()}
    assert sorted((*report.mapped, *report.reset)) == sorted(parameters)
    for tensor in report.mapped:
        found, expected = mapped.state[parameters[tensor]], own.state[parameters[tensor]]
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-12)
    for tensor in report.reset:
        assert not mapped.state[parameters[tensor]]


def test_new_layers_begin_without_memory_and_are_reported() -> None:
    """The three tensors of the inserted layer; everything else is mapped."""
    network, optimiser, state = trained_parent()
    morphed = deeper(network, state)
    child = GraphNetwork(morphed.graph, morphed.state)
    report = transfer_optimiser(morphed, network, optimiser, child, sgd(child))
    convolution, normalisation, _ = morphed.branches[0]
    assert report.reset == (f"{convolution}.weight", f"{normalisation}.weight", f"{normalisation}.bias")
    assert len(report.mapped) == len(list(network.parameters()))


def test_shared_gradients_are_not_guessed() -> None:
    """Of a dense layer and its copy only what makes the outputs is determined by the parent's gradient."""
    network, optimiser, state = trained_parent("dense")
    morphed = dense_layer(network, state)
    child = GraphNetwork(morphed.graph, morphed.state)
    report = transfer_optimiser(morphed, network, optimiser, child, sgd(child))
    copies = morphed.branches[0]
    assert {name for name in report.reset if name.startswith("block2_layer1")} == {
        "block2_layer1_norm1.weight",
        "block2_layer1_norm1.bias",
        "block2_layer1_conv1.weight",
        "block2_layer1_norm2.weight",
        "block2_layer1_norm2.bias",
    }
    assert {f"{copies[5]}.weight", "block2_layer1_conv2.weight"} <= set(report.mapped)


def test_training_goes_on_with_the_memory() -> None:
    """The child's optimiser accepts it, and the loss keeps falling."""
    network, optimiser, state = trained_parent()
    morphed = wider(network, state)
    child = GraphNetwork(morphed.graph, morphed.state)
    continued = sgd(child)
    transfer_optimiser(morphed, network, optimiser, child, continued)
    losses = train(child, continued, 15)
    assert losses[-1] < losses[0]


def test_an_untrained_optimiser_has_nothing_to_hand_on() -> None:
    """Everything is reported as reset."""
    network, _, state = trained_parent(steps=1)
    morphed = wider(network, state)
    child = GraphNetwork(morphed.graph, morphed.state)
    report = transfer_optimiser(morphed, network, sgd(network), child, sgd(child))
    assert report.mapped == ()
    assert len(report.reset) == len(list(child.parameters()))


class Peculiar(torch.optim.SGD):
    """An optimiser that remembers something of its own."""


def test_what_cannot_be_transferred_is_named() -> None:
    """Two classes, another network's parameters, another graph, a memory of unknown meaning."""
    network, optimiser, state = trained_parent()
    morphed = wider(network, state)
    child = GraphNetwork(morphed.graph, morphed.state)
    with pytest.raises(MorphError, match="the memory of SGD means nothing to Adam"):
        transfer_optimiser(morphed, network, optimiser, child, torch.optim.Adam(child.parameters()))
    with pytest.raises(MorphError, match="the child's optimiser holds parameters of another network"):
        transfer_optimiser(morphed, network, optimiser, child, sgd(network))
    with pytest.raises(MorphError, match="the child network is not of the graph that the transform returned"):
        transfer_optimiser(morphed, network, optimiser, network, sgd(network))
    strange = Peculiar(network.parameters(), lr=0.1)
    for parameter in network.parameters():
        strange.state[parameter]["fourth_moment"] = torch.zeros_like(parameter)
    with pytest.raises(MorphError, match="the optimiser keeps 'fourth_moment', of which it is not known"):
        transfer_optimiser(morphed, network, strange, child, Peculiar(child.parameters(), lr=0.1))


def test_a_chain_keeps_its_caveats() -> None:
    """Noise at the first link is still there at the last."""
    network, _, state = trained_parent()
    first = wider(network, state)
    second = first.then(lambda graph, weights: replicate_add(graph, weights, "conv2", 2))
    third = second.then(lambda graph, weights: insert(graph, weights, "conv1", (Convolution(8, 1),)))
    assert third.caveats == ("noise of 0.01 standard deviations on the added units",)


def test_a_new_layer_stays_new_through_later_transforms() -> None:
    """Widening an inserted layer gives its tensors no origin."""
    network, _, state = trained_parent()
    morphed = deeper(network, state)
    name = morphed.branches[0][0]
    later = morphed.then(lambda graph, weights: widen(graph, weights, name, 7, np.random.default_rng(0)))
    assert f"{name}.weight" not in later.origins
    assert f"{morphed.branches[0][1]}.weight" not in later.origins
    assert later.graph.node(morphed.branches[0][1]).layer == BatchNorm()
    assert_same_function((network.graph, state), (later.graph, later.state), data()[0])
