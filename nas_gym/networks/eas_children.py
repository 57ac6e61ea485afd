"""The networks at the end of an EAS episode: with weights inherited through the transforms, or untrained.

Source: Cai, Chen, Zhang, Yu & Wang, Efficient Architecture Search by Network Transformation, AAAI 2018, arXiv
1707.04873, and the code released with it.

Dimension letters: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nas_gym.networks.eas import (
    DEEPER_NOISE,
    WIDER_NOISE,
    dense_layers,
    widen_dense_layer,
    widen_transitions,
)
from nas_gym.networks.eas_parents import growth, layers_of, renamed, renaming, start_graph
from nas_gym.networks.morph import (
    AveragePooling,
    Convolution,
    Dropout,
    Graph,
    GraphNetwork,
    Linear,
    MaxPooling,
    Morphed,
    MorphError,
    State,
    Statistics,
    deepen,
    initial_state,
    insert_dense_layer,
    measure,
    unchanged,
    widen,
)
from nas_gym.search_spaces.growing import Deepen, Transformed, Widen
from nas_gym.search_spaces.starts import Start

STATISTICS_IMAGES = 64
"""Training images on which the released code measures the statistics of inserted normalisations."""


@dataclass(frozen=True)
class Noise:
    """What breaks the symmetry of repeated units, in standard deviations; 0 preserves the function exactly.

    Attributes:
        wider: on widened layers, and on copied dense layers.
        deeper: on inserted convolutions and fully connected layers.
    """

    wider: float = WIDER_NOISE
    deeper: float = DEEPER_NOISE


@dataclass
class _Growing:
    """A network while it is transformed.

    Attributes:
        morphed: the network now.
        places: layers of every block, as (name of the layer, name of what is behind it).
        rng: of repeated units and noise.
        noise: see `Noise`.
        images: for statistics, None = every normalisation is inserted as if its inputs were normalised.
        dropout: probability behind inserted convolutions.
    """

    morphed: Morphed
    places: list[list[tuple[str, str]]]
    rng: np.random.Generator
    noise: Noise
    images: Tensor | None
    dropout: float

    def statistics(self, name: str) -> Statistics:
        """Return the statistics of what a layer puts out."""
        graph, state = self.morphed.graph, self.morphed.state
        if self.images is None:
            units = graph.shapes[name][0]
            return Statistics(torch.zeros(units).double(), torch.ones(units).double(), torch.zeros(units).double())
        return measure(GraphNetwork(graph, state), self.images, [name])[name]


def morph(
    architecture: Transformed,
    graph: Graph,
    state: State,
    rng: np.random.Generator,
    images: Tensor | None = None,
    noise: Noise | None = None,
    dropout: float = 0.0,
) -> Morphed:
    """Return the network at the end of an episode, grown from its parent and with its parent's function up to noise.

    Args:
        architecture: the episode.
        graph: of the parent: the start network (see `start_graph`) or any other network from which the layers at the
            end of the episode can grow, whatever its layers are called.
        state: weights of the parent.
        rng: draws repeated units and noise.
        images: [N, C, H, W] on the device of the weights, for the statistics of inserted normalisations; None where
            the weights do not matter.
        noise: that of the released code by default.
        dropout: probability behind inserted convolutions.

    Raises:
        MorphError: the parent cannot grow into this network, or its dropout is another one; names both and the rule.
    """
    classes = graph.shapes[graph.output][0]
    names = renaming(graph, start_graph(architecture.start, graph.input_shape, classes, dropout))
    if names is not None:
        transforms = architecture.transforms
    else:
        parent = layers_of(graph)
        _check_dropout(graph, dropout)
        transforms = growth(parent, architecture)
    dense = architecture.start.grown().dense
    begun = unchanged(graph, state) if names is None else renamed(graph, state, names)
    places = _dense_places if dense else _plain_places
    growing = _Growing(begun, places(begun.graph), rng, noise or Noise(), images, dropout)
    for transform in transforms:
        _STEPS[dense, type(transform)](growing, transform)
    if not dense:
        return growing.morphed
    follow = functools.partial(widen_transitions, rng=rng, noise=growing.noise.wider)
    morphed = growing.morphed.then(follow)
    return morphed if names is not None else _as_wide(morphed, architecture, dropout, growing)


def _check_dropout(graph: Graph, dropout: float) -> None:
    """Raise MorphError for a parent with another dropout than its children have."""
    found = {node.layer.probability for node in graph.nodes if isinstance(node.layer, Dropout)} or {0.0}
    if found != {dropout}:
        raise MorphError(
            f"the parent has dropout {', '.join(f'{one:g}' for one in sorted(found))}, its children {dropout:g}: "
            "choose the same one."
        )


def _as_wide(morphed: Morphed, architecture: Transformed, dropout: float, growing: _Growing) -> Morphed:
    """Return a DenseNet with stem and transitions as wide as an episode from the start of its space makes them.

    Raises:
        MorphError: they are wider already.
    """
    graph = morphed.graph
    expected = build(architecture, graph.input_shape, graph.shapes[graph.output][0], dropout).graph
    for node, wanted in zip(graph.nodes, expected.nodes, strict=True):
        have, width = graph.shapes[node.name][0], expected.shapes[wanted.name][0]
        if not node.layer.produces or have == width:
            continue
        if have > width:
            raise MorphError(
                f"{node}: the parent has {have} units where its child {architecture} has {width}: layers only grow."
            )
        morphed = morphed.then(
            lambda child, weights, name=node.name, width=width: widen(
                child, weights, name, width, growing.rng, growing.noise.wider
            )
        )
    return morphed


def begin(start: Start, graph: Graph, state: State, dropout: float = 0.0) -> Morphed:
    """Return a network of an earlier search as the network at the beginning of an episode.

    Args:
        start: its layers.
        graph: of the network.
        state: its weights.
        dropout: probability behind every convolution but the first.

    Raises:
        MorphError: it has other layers or another dropout.
    """
    names = renaming(graph, start_graph(start, graph.input_shape, graph.shapes[graph.output][0], dropout))
    if names is None:
        found = layers_of(graph)
        _check_dropout(graph, dropout)
        raise MorphError(f"the parent is {found}, where the episodes of this space begin at {start.grown()}.")
    return renamed(graph, state, names)


def build(
    architecture: Transformed, input_shape: tuple[int, int, int], classes: int, dropout: float = 0.0
) -> GraphNetwork:
    """Return the same network untrained: images [N, C, H, W] -> logits [N, K].

    Args:
        architecture: the episode.
        input_shape: (C, H, W) of an image.
        classes: number of classes K.
        dropout: probability behind every convolution but the first.

    Raises:
        InvalidArgument: the images are too small.
    """
    device = torch.get_default_device()
    with torch.device("cpu"):
        graph = start_graph(architecture.start, input_shape, classes, dropout)
        state = initial_state(graph, torch.Generator().manual_seed(0))
        grown = morph(architecture, graph, state, np.random.default_rng(0), noise=Noise(0.0, 0.0), dropout=dropout)
        drawn = initial_state(grown.graph, torch.Generator().manual_seed(0))
    return GraphNetwork(grown.graph, {name: tensor.to(device) for name, tensor in drawn.items()})


class EASMorphism:
    """How children of EAS inherit weights; for `nas_gym.networks.MORPHISMS`."""

    start = staticmethod(start_graph)
    begin = staticmethod(begin)
    morph = staticmethod(morph)
    noise = Noise


# --- plain chains ----------------------------------------------------------------------------------


def _plain_places(graph: Graph) -> list[list[tuple[str, str]]]:
    """Return the layers of every block, each with the last layer that belongs to it."""
    places: list[list[tuple[str, str]]] = [[]]
    units: list[tuple[str, str]] = []
    for node in graph.nodes[:-1]:
        if isinstance(node.layer, Convolution):
            places[-1].append(_end(graph, node.name))
        elif isinstance(node.layer, MaxPooling):
            places.append([])
        elif isinstance(node.layer, Linear):
            units.append(_end(graph, node.name))
    return [*places, units] if units else places


def _end(graph: Graph, name: str) -> tuple[str, str]:
    dropout = f"{name}_dropout"
    return name, dropout if dropout in graph.by_name else f"{name}_relu"


def _widen_layer(growing: _Growing, transform: Widen) -> None:
    name, _ = growing.places[transform.block][transform.position]
    noise = growing.noise.wider
    growing.morphed = growing.morphed.then(
        lambda graph, state: widen(graph, state, name, transform.width, growing.rng, noise)
    )


def _insert_layer(growing: _Growing, transform: Deepen) -> None:
    layers = growing.places[transform.block]
    _, behind = layers[transform.position]
    statistics = growing.statistics(behind)
    more = [Dropout(growing.dropout)] if growing.dropout and transform.kernel else []
    kernel = transform.kernel or 1
    growing.morphed = growing.morphed.then(
        lambda graph, state: deepen(graph, state, behind, statistics, kernel, growing.rng, growing.noise.deeper, more)
    )
    chain = growing.morphed.branches[0]
    layers.insert(transform.position + 1, (chain[0], chain[-1]))


# --- dense blocks ----------------------------------------------------------------------------------


def _dense_places(graph: Graph) -> list[list[tuple[str, str]]]:
    """Return the concatenations of every block."""
    places: list[list[tuple[str, str]]] = [[]]
    layers = set(dense_layers(graph))
    for node in graph.nodes:
        if node.name in layers:
            places[-1].append((node.name, node.name))
        elif isinstance(node.layer, AveragePooling):
            places.append([])
    return places


def _widen_growth(growing: _Growing, transform: Widen) -> None:
    name, _ = growing.places[transform.block][transform.position]
    noise = growing.noise.wider
    growing.morphed = growing.morphed.then(
        lambda graph, state: widen_dense_layer(graph, state, name, transform.width, growing.rng, noise)
    )


def _insert_dense(growing: _Growing, transform: Deepen) -> None:
    layers = growing.places[transform.block]
    name, _ = layers[transform.position]
    growing.morphed = growing.morphed.then(
        lambda graph, state: insert_dense_layer(graph, state, name, growing.rng, growing.noise.wider)
    )
    concat = growing.morphed.branches[-1][-1]
    layers.insert(transform.position + 1, (concat, concat))


_STEPS = {
    (False, Widen): _widen_layer,
    (False, Deepen): _insert_layer,
    (True, Widen): _widen_growth,
    (True, Deepen): _insert_dense,
}
