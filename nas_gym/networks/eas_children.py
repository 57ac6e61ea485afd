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
    dense_graph,
    dense_layers,
    plain_graph,
    widen_dense_layer,
    widen_transitions,
)
from nas_gym.networks.morph import (
    Dropout,
    Graph,
    GraphNetwork,
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
from nas_gym.search_spaces.growing import Deepen, DenseStart, PlainStart, Transformed, Widen

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


def start_graph(
    start: PlainStart | DenseStart, input_shape: tuple[int, int, int], classes: int, dropout: float = 0.0
) -> Graph:
    """Return the network at the beginning of an episode.

    Args:
        start: which one.
        input_shape: (C, H, W) of an image.
        classes: number of classes K.
        dropout: probability behind every convolution but the first.

    Raises:
        InvalidArgument: the images are too small.
    """
    if isinstance(start, PlainStart):
        return plain_graph(input_shape, classes, start.blocks, start.units, start.kernel, dropout)
    depth = 2 * start.blocks * start.layers + start.blocks + 1
    return dense_graph(input_shape, classes, depth, start.growth, start.blocks, dropout=dropout)


def morph(
    architecture: Transformed,
    graph: Graph,
    state: State,
    rng: np.random.Generator,
    images: Tensor | None = None,
    noise: Noise | None = None,
    dropout: float = 0.0,
) -> Morphed:
    """Return the child that an episode makes of its start network, with the start network's function up to noise.

    Args:
        architecture: the episode.
        graph: of the start network, see `start_graph`.
        state: weights of the start network.
        rng: draws repeated units and noise.
        images: [N, C, H, W] on the device of the weights, for the statistics of inserted normalisations; None where
            the weights do not matter.
        noise: that of the released code by default.
        dropout: probability behind inserted convolutions.

    Raises:
        MorphError: the graph is not that of the start network.
    """
    expected = start_graph(architecture.start, graph.input_shape, graph.shapes[graph.output][0], dropout)
    if graph != expected:
        raise MorphError(
            f"the parent is not the start network {architecture.start} with dropout {dropout:g}: the transforms of "
            "this space begin there."
        )
    dense = isinstance(architecture.start, DenseStart)
    places = _dense_places(graph, architecture.start) if dense else _plain_places(graph, architecture.start)
    growing = _Growing(unchanged(graph, state), places, rng, noise or Noise(), images, dropout)
    for transform in architecture.transforms:
        _STEPS[dense, type(transform)](growing, transform)
    if dense:
        follow = functools.partial(widen_transitions, rng=rng, noise=growing.noise.wider)
        return growing.morphed.then(follow)
    return growing.morphed


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
    morph = staticmethod(morph)
    noise = Noise


# --- plain chains ----------------------------------------------------------------------------------


def _plain_places(graph: Graph, start: PlainStart | DenseStart) -> list[list[tuple[str, str]]]:
    """Return the layers of every block, each with the last layer that belongs to it."""
    blocks: list[tuple[int, ...]] = list(start.blocks) if isinstance(start, PlainStart) else []
    names = iter(f"conv{number}" for number in range(1, sum(map(len, blocks)) + 1))
    places = [[_end(graph, next(names)) for _ in widths] for widths in blocks]
    units = start.units if isinstance(start, PlainStart) else ()
    return [*places, [_end(graph, f"fc{position}") for position in range(1, len(units) + 1)]]


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


def _dense_places(graph: Graph, start: PlainStart | DenseStart) -> list[list[tuple[str, str]]]:
    """Return the concatenations of every block."""
    names = dense_layers(graph)
    layers = start.layers if isinstance(start, DenseStart) else len(names)
    pairs = [(name, name) for name in names]
    return [pairs[first : first + layers] for first in range(0, len(pairs), layers)]


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
