"""Children of grown networks: they compute what their parent computes, whichever ancestor that is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_gym.networks.eas_children import Noise, begin, build, morph, start_graph
from nas_gym.networks.eas_parents import layers_of, renaming
from nas_gym.networks.morph import (
    Activation,
    Convolution,
    GlobalAveragePooling,
    Graph,
    GraphNetwork,
    Linear,
    Morphed,
    MorphError,
    Node,
    initial_state,
)
from nas_gym.search_spaces.eas import SMALL, EASDenseSpace, EASSpace
from nas_gym.search_spaces.growing import TransformSpace
from nas_gym.search_spaces.starts import GrownPlain

pytestmark = pytest.mark.usefixtures("one_thread")
"""Compute with one thread, as workers do."""

IMAGE = (1, 8, 8)
CLASSES = 3
SILENT = Noise(0.0, 0.0)
PLAIN: dict[str, Any] = {**SMALL, "max_layers": 8}
DENSE: dict[str, Any] = {"wider": 2, "deeper": 2}
every_space = pytest.mark.parametrize(
    ("space", "fields"), [(EASSpace(**SMALL), PLAIN), (EASDenseSpace(**DENSE), DENSE)], ids=["plain", "dense"]
)
seeds = st.integers(0, 2**32 - 1)


def images(count: int = 16) -> torch.Tensor:
    """Return random images."""
    return torch.randn(count, *IMAGE, generator=torch.Generator().manual_seed(1))


def trained(space: TransformSpace, dropout: float = 0.0) -> Morphed:
    """Return a start network whose normalisations have seen images, as a network without origins."""
    graph = start_graph(space.start, IMAGE, CLASSES, dropout)
    network = GraphNetwork(graph, initial_state(graph, torch.Generator().manual_seed(0))).train()
    for _ in range(3):
        network(images(64))
    return Morphed(graph, network.state(), {})


def child(space: TransformSpace, parent: Morphed, rng: np.random.Generator, dropout: float = 0.0) -> Morphed:
    """Return a random child."""
    return morph(space.decode(space.sample(rng)), parent.graph, parent.state, rng, images(), SILENT, dropout)


def outputs(network: Morphed) -> torch.Tensor:
    """Return what a network computes."""
    with torch.no_grad():
        return GraphNetwork(network.graph, network.state).eval()(images(5))


def second(space: TransformSpace, fields: dict[str, Any], parent: Morphed) -> TransformSpace:
    """Return the space of a second search, which begins at the layers of a network."""
    return type(space)(**{**fields, "network": str(layers_of(parent.graph))})


@every_space
@pytest.mark.parametrize("dropout", [0.0, 0.2])
@settings(max_examples=6)
@given(seed=seeds)
def test_a_childs_child_computes_what_both_compute(
    space: TransformSpace, fields: dict[str, Any], dropout: float, seed: int
) -> None:
    """And has the layers and shapes of its architecture."""
    rng = np.random.default_rng(seed)
    start = trained(space, dropout)
    parent = child(space, start, rng, dropout)
    grown = second(space, fields, parent)
    architecture = grown.decode(grown.sample(rng))
    found = morph(architecture, parent.graph, parent.state, rng, images(), SILENT, dropout)
    torch.testing.assert_close(outputs(found), outputs(start), rtol=1e-4, atol=1e-5)
    assert renaming(found.graph, build(architecture, IMAGE, CLASSES, dropout).graph) is not None


@every_space
@settings(max_examples=6)
@given(seed=seeds)
def test_a_grandparent_is_a_parent(space: TransformSpace, fields: dict[str, Any], seed: int) -> None:
    """The child of both is the same network, whose weights compute what the grandparent computes."""
    rng = np.random.default_rng(seed)
    start = trained(space)
    grown = second(space, fields, child(space, start, rng))
    architecture = grown.decode(grown.sample(rng))
    found = morph(architecture, start.graph, start.state, rng, images(), SILENT)
    torch.testing.assert_close(outputs(found), outputs(start), rtol=1e-4, atol=1e-5)
    assert renaming(found.graph, build(architecture, IMAGE, CLASSES).graph) is not None


def test_stem_and_transitions_of_a_grandchild_are_as_wide_as_those_of_a_child() -> None:
    """They followed a growth that the mean has fallen below since, which only the parent has been through."""
    space = EASDenseSpace(wider=1, deeper=2, network="S37 D4 T20 D48 T34 D4 A")
    start = trained(EASDenseSpace(**DENSE))
    architecture = space.decode((0, 0, 0, 0, 0, 0, 1))
    assert str(architecture) == "S D4 D4 D4 T D48 T D4 A"
    found = morph(architecture, start.graph, start.state, np.random.default_rng(0), images(), SILENT)
    assert str(layers_of(found.graph)) == "S37 D4 D4 D4 T24 D48 T36 D4 A"
    torch.testing.assert_close(outputs(found), outputs(start), rtol=1e-4, atol=1e-5)


@every_space
def test_origins_lead_to_the_tensors_of_the_parent(space: TransformSpace, fields: dict[str, Any]) -> None:
    """By the names that they have there, so that an optimiser's memory can follow."""
    rng = np.random.default_rng(0)
    parent = child(space, trained(space), rng)
    found = child(second(space, fields, parent), parent, rng)
    assert found.origins
    assert {origin.source for origin in found.origins.values()} <= parent.state.keys()


@every_space
def test_the_layers_of_a_grown_network_are_those_of_its_architecture(
    space: TransformSpace, fields: dict[str, Any]
) -> None:
    """Whatever they are called."""
    architecture = space.decode(space.sample(np.random.default_rng(3)))
    assert layers_of(build(architecture, IMAGE, CLASSES).graph).blocks == architecture.blocks


@every_space
def test_a_grown_network_is_a_start_network(space: TransformSpace, fields: dict[str, Any]) -> None:
    """With the same function and the names that the start network of the second search has."""
    parent = child(space, trained(space), np.random.default_rng(0))
    start = second(space, fields, parent).start
    found = begin(start, parent.graph, parent.state)
    assert found.graph == start_graph(start, IMAGE, CLASSES)
    torch.testing.assert_close(outputs(found), outputs(parent))


# --- what does not fit -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parent",
    ["C16x3 C16x3 C16x3 A F16", "C48x3 A F16", "C8x5 A F16", "C8x3 P C8x3 A F16", "C8x3 A F16 F64"],
    ids=["deeper", "wider", "other kernel", "other block", "wider insertion"],
)
def test_a_parent_that_cannot_grow_into_its_child_is_refused(parent: str) -> None:
    """Naming both and the rule."""
    space = EASSpace(**{**SMALL, "network": "C8x3 C8x3 A F16", "wider": 1, "deeper": 1})
    architecture = space.decode((0, 0, 0, 1, 0))
    graph = start_graph(GrownPlain.parse(parent), IMAGE, CLASSES)
    state = initial_state(graph, torch.Generator())
    message = rf"the parent {parent} cannot grow into C8x3 C8x3 A F16 F16: layers only become wider"
    with pytest.raises(MorphError, match=message):
        morph(architecture, graph, state, np.random.default_rng(0))


def test_a_parent_with_another_dropout_is_refused() -> None:
    """Its child would not be the network that the recipe asks for."""
    space = EASSpace(**SMALL)
    parent = trained(space, 0.2)
    with pytest.raises(MorphError, match=r"the parent has dropout 0\.2, its children 0: choose the same one"):
        child(space, parent, np.random.default_rng(0))


def test_a_network_of_another_kind_is_refused() -> None:
    """Naming its layers."""
    nodes = (
        Node("conv", Convolution(4, 3), ("input",)),
        Node("relu", Activation("relu"), ("conv",)),
        Node("average", GlobalAveragePooling(), ("relu",)),
        Node("logits", Linear(CLASSES), ("average",)),
    )
    graph = Graph(IMAGE, nodes)
    with pytest.raises(MorphError, match=r"conv .* is neither a plain CNN nor a DenseNet"):
        morph(EASSpace(**SMALL).decode((0,) * 6 + (2, 0) * 3), graph, initial_state(graph, torch.Generator()), None)  # type: ignore[arg-type]


def test_a_start_of_other_layers_is_refused() -> None:
    """Naming both."""
    parent = trained(EASSpace(**SMALL))
    with pytest.raises(MorphError, match="the parent is C8x3 P C16x3 A F16, where the episodes of this space begin at"):
        begin(GrownPlain.parse("C8x3 A F16"), parent.graph, parent.state)
