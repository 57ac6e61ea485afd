"""The start networks of EAS as graphs, and its transforms of dense blocks.

Source: Cai, Chen, Zhang, Yu & Wang, Efficient Architecture Search by Network Transformation, AAAI 2018, arXiv
1707.04873, and the code released with it. Dimension letters: C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas_gym.errors import InvalidArgument
from nas_gym.networks.morph import (
    INPUT,
    Activation,
    AveragePooling,
    BatchNorm,
    Concat,
    Convolution,
    Dropout,
    GlobalAveragePooling,
    Graph,
    Layer,
    Linear,
    MaxPooling,
    Morphed,
    MorphError,
    Node,
    State,
    dense_chain,
    unchanged,
    widen,
)

WIDER_NOISE = 0.01
"""Noise of the released code on what is widened, and on copied dense layers."""

DEEPER_NOISE = 0.001
"""Noise of the released code on what is inserted."""

BOTTLENECK = 4
"""Width of a dense layer's 1x1 convolution in growth rates."""


class _Chain:
    """Nodes, each reading the one before."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.last = INPUT

    def put(self, name: str, layer: Layer, *sources: str) -> str:
        """Add a layer that reads `sources`, or the last one."""
        self.nodes.append(Node(name, layer, sources or (self.last,)))
        self.last = name
        return name

    def normalised(self, name: str, layer: Layer, dropout: float = 0.0) -> None:
        """Add a layer, normalisation and ReLU."""
        self.put(name, layer)
        self.put(f"{name}_norm", BatchNorm())
        self.put(f"{name}_relu", Activation("relu"))
        if dropout:
            self.put(f"{name}_dropout", Dropout(dropout))

    def preactivated(self, name: str, layer: Layer, number: str = "") -> None:
        """Add normalisation, ReLU and a layer."""
        self.put(f"{name}_norm{number}", BatchNorm())
        self.put(f"{name}_relu{number}", Activation("relu"))
        self.put(f"{name}_conv{number}", layer)


def plain_graph(
    input_shape: tuple[int, int, int],
    classes: int,
    blocks: Sequence[Sequence[int]] = ((16,), (32,), (64,), (128,)),
    units: Sequence[int] = (256,),
    kernel: int = 3,
    dropout: float = 0.0,
) -> Graph:
    """Return a plain CNN: blocks of convolutions with 2x2 max pooling between, average, fully connected layers.

    Every hidden layer is followed by normalisation and ReLU: ``conv1``, ``conv1_norm``, ``conv1_relu``, ``fc1``, ...;
    the output is called ``logits``. The defaults are the start network of the paper's first experiment, whose last
    pooling window covers the 4x4 pixels that are left of 32x32; that it averages is the released code's choice.

    Args:
        input_shape: (C, H, W) of an image.
        classes: number of classes.
        blocks: widths of the convolutions of every block.
        units: widths of the hidden fully connected layers.
        kernel: of all convolutions, odd.
        dropout: probability behind every convolution but the first.

    Raises:
        InvalidArgument: no convolution, or an image too small for the poolings.
    """
    if not blocks or not all(blocks):
        raise InvalidArgument(f"blocks must be a sequence of non-empty sequences of widths, got {blocks!r}.")
    convolutions = [[(width, kernel) for width in widths] for widths in blocks]
    return layered_plain_graph(input_shape, classes, convolutions, units, dropout)


def layered_plain_graph(
    input_shape: tuple[int, int, int],
    classes: int,
    blocks: Sequence[Sequence[tuple[int, int]]],
    units: Sequence[int],
    dropout: float = 0.0,
) -> Graph:
    """Return a plain CNN as `plain_graph` does, layer by layer.

    Args:
        input_shape: (C, H, W) of an image.
        classes: number of classes.
        blocks: width and kernel of the convolutions of every block.
        units: widths of the hidden fully connected layers.
        dropout: probability behind every convolution but the first.

    Raises:
        InvalidArgument: an image too small for the poolings.
    """
    _check_halvings(input_shape, len(blocks))
    chain = _Chain()
    number = 0
    for block, layers in enumerate(blocks):
        if block:
            chain.put(f"pool{block}", MaxPooling(2, 2))
        for width, kernel in layers:
            number += 1
            chain.normalised(f"conv{number}", Convolution(width, kernel), dropout if number > 1 else 0.0)
    chain.put("average", GlobalAveragePooling())
    for position, width in enumerate(units, start=1):
        chain.normalised(f"fc{position}", Linear(width, bias=False))
    chain.put("logits", Linear(classes))
    return Graph(input_shape, tuple(chain.nodes))


def dense_graph(
    input_shape: tuple[int, int, int],
    classes: int,
    depth: int = 10,
    growth: int = 4,
    blocks: int = 3,
    bottleneck: int = BOTTLENECK,
    reduction: float = 0.5,
    dropout: float = 0.0,
) -> Graph:
    """Return a DenseNet-BC: a stem of twice the growth, dense blocks, transitions that halve channels and image.

    A dense layer is normalisation, ReLU, 1x1 convolution, normalisation, ReLU, 3x3 convolution; ``block1_layer1``
    concatenates its input and its output. The transitions are called ``transition1_conv`` and so on, the first
    convolution ``stem``, the output ``logits``. The defaults are the start network of the released code.

    Args:
        input_shape: (C, H, W) of an image.
        classes: number of classes.
        depth: number of convolutions and of the classifier together, ``blocks * (2 n + 1) + 1`` for n layers a block.
        growth: outputs of every dense layer.
        blocks: number of dense blocks.
        bottleneck: width of the 1x1 convolutions in growth rates.
        reduction: share of the channels that a transition leaves, rounded down.
        dropout: probability behind every convolution but the first.

    Raises:
        InvalidArgument: a depth that does not fit, or an image too small for the transitions.
    """
    layers, rest = divmod(depth - blocks - 1, 2 * blocks)
    if layers < 1 or rest:
        least = blocks * 3 + 1
        raise InvalidArgument(
            f"depth must be {least} or more by multiples of {2 * blocks} for {blocks} blocks, got {depth!r}."
        )
    growths = ((growth,) * layers,) * blocks
    return layered_dense_graph(input_shape, classes, growths, (None,) * blocks, bottleneck, reduction, dropout)


def layered_dense_graph(
    input_shape: tuple[int, int, int],
    classes: int,
    growths: Sequence[Sequence[int]],
    widths: Sequence[int | None],
    bottleneck: int = BOTTLENECK,
    reduction: float = 0.5,
    dropout: float = 0.0,
) -> Graph:
    """Return a DenseNet-BC as `dense_graph` does, layer by layer.

    Args:
        input_shape: (C, H, W) of an image.
        classes: number of classes.
        growths: outputs of the dense layers of every block.
        widths: of the stem and of the transitions behind all blocks but the last; None = twice the mean growth rate
            for the stem, the share `reduction` of its inputs for a transition.
        bottleneck: width of the 1x1 convolutions in growth rates.
        reduction: share of the channels that a transition leaves, rounded down.
        dropout: probability behind every convolution but the first.

    Raises:
        InvalidArgument: an image too small for the transitions.
    """
    blocks = len(growths)
    _check_halvings(input_shape, blocks)
    every = [growth for block in growths for growth in block]
    width = widths[0] or int(2 * sum(every) / len(every))
    chain = _Chain()
    chain.put("stem", Convolution(width, 3))
    for block, layers in enumerate(growths, start=1):
        for layer, growth in enumerate(layers, start=1):
            _put_dense_layer(chain, f"block{block}_layer{layer}", growth, bottleneck, dropout)
            width += growth
        if block < blocks:
            width = widths[block] or int(reduction * width)
            chain.preactivated(f"transition{block}", Convolution(width, 1))
            if dropout:
                chain.put(f"transition{block}_dropout", Dropout(dropout))
            chain.put(f"transition{block}", AveragePooling(2, 2))
    chain.put("last_norm", BatchNorm())
    chain.put("last_relu", Activation("relu"))
    chain.put("average", GlobalAveragePooling())
    chain.put("logits", Linear(classes))
    return Graph(input_shape, tuple(chain.nodes))


def _check_halvings(input_shape: tuple[int, int, int], blocks: int) -> None:
    """Raise InvalidArgument where images cannot be halved between so many blocks."""
    smallest = 2 ** (blocks - 1)
    if min(input_shape[1:]) < smallest:
        raise InvalidArgument(
            f"images of {input_shape[1]}x{input_shape[2]} are too small for {blocks} blocks: at least "
            f"{smallest}x{smallest} is needed, or fewer blocks."
        )


def _put_dense_layer(chain: _Chain, name: str, growth: int, bottleneck: int, dropout: float) -> None:
    source = chain.last
    chain.preactivated(name, Convolution(bottleneck * growth, 1), "1")
    if dropout:
        chain.put(f"{name}_dropout1", Dropout(dropout))
    chain.preactivated(name, Convolution(growth, 3), "2")
    if dropout:
        chain.put(f"{name}_dropout2", Dropout(dropout))
    chain.put(name, Concat(), source, chain.last)


def dense_layers(graph: Graph) -> tuple[str, ...]:
    """Return the concatenations in which dense layers end, in their order."""
    found = []
    for node in graph.nodes:
        try:
            dense_chain(graph, node.name)
        except MorphError:
            continue
        found.append(node.name)
    return tuple(found)


def growth_of(graph: Graph, layer: str) -> int:
    """Return the growth rate of a dense layer, given by its concatenation."""
    return graph.shapes[dense_chain(graph, layer)[-1].name][0]


def widen_dense_layer(
    graph: Graph,
    state: State,
    layer: str,
    growth: int,
    rng: np.random.Generator,
    noise: float = 0.0,
    bottleneck: int = BOTTLENECK,
) -> Morphed:
    """Return the network in which a dense layer grows faster: first its 1x1 convolution is widened, then its 3x3.

    Args:
        graph: of the parent.
        state: weights of the parent.
        layer: concatenation in which the dense layer ends.
        growth: new growth rate, at least the old one.
        rng: see `widen`.
        noise: see `widen`.
        bottleneck: width of the 1x1 convolution in growth rates; one that is wider already stays.

    Raises:
        MorphError: naming layer, shapes and rule.
    """
    mixing = [node.name for node in dense_chain(graph, layer) if node.layer.produces]
    if len(mixing) < 2:
        raise MorphError(f"{layer}: the dense layer has no bottleneck, only {', '.join(mixing)}.")
    narrow, last = mixing[0], mixing[-1]
    width = max(bottleneck * growth, graph.shapes[narrow][0])
    first = widen(graph, state, narrow, width, rng, noise)
    return first.then(lambda child, weights: widen(child, weights, last, growth, rng, noise))


def widen_transitions(
    graph: Graph, state: State, rng: np.random.Generator, noise: float = 0.0, reduction: float = 0.5
) -> Morphed:
    """Return the network whose stem and transitions have caught up with the growth of its dense layers.

    The stem is widened to twice the mean growth rate, every transition to a share of its inputs, where that is wider;
    EAS does so at the end of an episode.

    Args:
        graph: made from `dense_graph`.
        state: weights.
        rng: see `widen`.
        noise: see `widen`.
        reduction: share of the inputs, rounded down.

    Raises:
        MorphError: the graph has no stem or no dense layers.
    """
    layers = dense_layers(graph)
    if not layers:
        raise MorphError("the graph has no dense layers, whose growth its transitions could follow.")
    growth = sum(growth_of(graph, layer) for layer in layers) / len(layers)
    morphed = unchanged(graph, state)
    names = [node.name for node in graph.nodes if node.name.startswith("transition") and node.layer.produces]
    for name in (graph.node("stem").name, *names):
        inputs = morphed.graph.input_shapes(morphed.graph.node(name))[0][0]
        width = int(2 * growth) if name == "stem" else int(reduction * inputs)
        if width > morphed.graph.shapes[name][0]:
            # The defaults bind the values of this round.
            morphed = morphed.then(
                lambda child, weights, name=name, width=width: widen(child, weights, name, width, rng, noise)
            )
    return morphed
