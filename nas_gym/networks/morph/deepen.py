"""Deeper networks that compute the same: layers are put in that change nothing.

Source: Chen, Goodfellow & Shlens, Net2Net, ICLR 2016, arXiv 1511.05641, section 2.3; on an edge of a cell as in Cai et
al., Path-Level Network Transformation for Efficient Architecture Search, ICML 2018, arXiv 1806.02639.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nas_gym.networks.morph.errors import MorphError
from nas_gym.networks.morph.graph import INPUT, Graph, Node
from nas_gym.networks.morph.layers import Activation, Layer
from nas_gym.networks.morph.morphed import Morphed, assemble, same_tensors
from nas_gym.networks.morph.network import State, check_state, initial_state
from nas_gym.networks.morph.origins import perturbed
from nas_gym.networks.morph.statistics import Statistics
from nas_gym.networks.morph.weighted import BatchNorm, Convolution, Linear


def deepen(
    graph: Graph,
    state: State,
    after: str,
    statistics: Statistics | None,
    kernel: int = 3,
    rng: np.random.Generator | None = None,
    noise: float = 0.0,
    more: Sequence[Layer] = (),
) -> Morphed:
    """Return the network with a further hidden layer, and the same function.

    The layer is convolution, normalisation, ReLU behind an image and fully connected, normalisation, ReLU behind
    features, as wide as what it reads.

    Args:
        graph: of the parent.
        state: weights of the parent.
        after: layer behind which it is put; nothing that it puts out may be negative, as is so behind a ReLU and the
            pooling, dropout, additions and concatenations that follow.
        statistics: of what `after` puts out, see `measure`; None leaves the normalisation out.
        kernel: of the convolution, odd.
        rng: draws the noise; needed only for it.
        noise: standard deviation of the normal noise on the new weights, as a share of theirs; 0 preserves the function
            exactly. EAS's code takes 0.001.
        more: layers behind the ReLU, e.g. dropout.

    Raises:
        NotPreserving: what `after` puts out may be negative.
        MorphError: naming layer, shapes and rule.
    """
    graph.node(after)
    units = graph.shapes[after][0]
    normalised = statistics is not None
    image = len(graph.shapes[after]) == 3
    weighted = Convolution(units, kernel, bias=not normalised) if image else Linear(units, bias=not normalised)
    layers = (weighted, *([BatchNorm()] if normalised else []), Activation("relu"), *more)
    return insert(graph, state, after, layers, statistics, rng, noise)


def insert(
    graph: Graph,
    state: State,
    after: str,
    layers: Sequence[Layer],
    statistics: Statistics | None = None,
    rng: np.random.Generator | None = None,
    noise: float = 0.0,
) -> Morphed:
    """Return the network with a chain of layers that change nothing; everything behind reads the last of them.

    Convolutions get a 1 at the centre of the kernel, normalisations the statistics of their input.

    Args:
        graph: of the parent.
        state: weights of the parent.
        after: layer behind which the chain is put.
        layers: of the chain, e.g. ``(DepthwiseConvolution(5), Convolution(48, 1), BatchNorm())``.
        statistics: of what `after` puts out; needed for normalisations only.
        rng: draws the noise; needed only for it.
        noise: standard deviation of the normal noise on the new weights, as a share of theirs. TreeCell's code takes
            0.006, and none on normalisations.

    Raises:
        NotPreserving: a layer cannot be the identity, e.g. pooling, or a ReLU on values that may be negative.
        MorphError: naming layer, shapes and rule.
    """
    check_state(graph, state)
    place = graph.node(after)
    shape = graph.shapes[after]
    if not layers:
        raise MorphError(f"{place}: there is no layer to put behind it.")
    nodes = _chain(graph, after, layers)
    new: dict[str, Tensor] = {}
    for node in nodes:
        try:
            tensors = node.layer.as_identity(shape, graph.nonnegative[after], statistics)
        except MorphError as error:
            raise type(error)(f"{node} behind {place}, which puts out {shape}: {error}") from None
        new |= {f"{node.name}.{name}": tensor for name, tensor in tensors.items()}
    if noise:
        new = _noisy(new, rng, noise)
    child = graph.inserted(after, nodes, {after: nodes[-1].name})
    caveats = (f"noise of {noise} standard deviations on the new weights",) if noise else ()
    return assemble(child, state, same_tensors(state), new, (tuple(node.name for node in nodes),), caveats)


def deepen_preactivated(graph: Graph, state: State, after: str, statistics: Statistics, kernel: int = 3) -> Morphed:
    """Return the network with normalisation, ReLU, convolution behind a layer whose outputs may be negative.

    The plain identity would lose the negative values. The normalisation therefore shifts every unit by its smallest
    measured value, and the bias of the convolution shifts it back. The function is preserved where no unit falls below
    its measured minimum; the child's caveats say so.

    Args:
        graph: of the parent.
        state: weights of the parent.
        after: layer behind which it is put.
        statistics: of what `after` puts out.
        kernel: of the convolution, odd.

    Raises:
        MorphError: naming layer, shapes and rule.
    """
    check_state(graph, state)
    place = graph.node(after)
    shape = graph.shapes[after]
    lowest = statistics.minimum.double().clamp(max=0)
    layers = (BatchNorm(), Activation("relu"), Convolution(shape[0], kernel, bias=True))
    normalisation, rectification, convolution = nodes = _chain(graph, after, layers)
    try:
        first = normalisation.layer.as_identity(shape, False, statistics)
        last = convolution.layer.as_identity(shape, True, None)
    except MorphError as error:
        raise MorphError(f"{convolution} behind {place}, which puts out {shape}: {error}") from None
    first["bias"] = first["bias"] - lowest
    last["bias"] = lowest
    new = {f"{normalisation.name}.{name}": tensor for name, tensor in first.items()}
    new |= {f"{convolution.name}.{name}": tensor for name, tensor in last.items()}
    child = graph.inserted(after, nodes, {after: convolution.name})
    caveat = f"{rectification.name}: only where no unit of {after} falls below its measured minimum"
    return assemble(child, state, same_tensors(state), new, (tuple(node.name for node in nodes),), (caveat,))


def replace_identity(
    graph: Graph,
    state: State,
    edge: str,
    layers: Sequence[Layer],
    statistics: Statistics | None = None,
    rng: np.random.Generator | None = None,
    noise: float = 0.0,
) -> Morphed:
    """Return the network in which a chain of layers that change nothing takes the place of an identity.

    Args:
        graph: of the parent.
        state: weights of the parent.
        edge: an identity.
        layers: see `insert`.
        statistics: of what the identity puts out.
        rng: see `insert`.
        noise: see `insert`.

    Raises:
        NotPreserving: a layer cannot be the identity: use `substitute`.
        MorphError: naming layer, shapes and rule.
    """
    _check_identity(graph, edge)
    morphed = insert(graph, state, edge, layers, statistics, rng, noise)
    return dataclasses.replace(morphed, graph=_without(morphed.graph, edge))


def substitute(graph: Graph, state: State, edge: str, layers: Sequence[Layer], generator: torch.Generator) -> Morphed:
    """Return the network in which any chain of layers takes the place of an identity; the function changes.

    This is what TreeCell does where the identity becomes pooling. Repair the child with `mimic` before its training.

    Args:
        graph: of the parent.
        state: weights of the parent.
        edge: an identity between images.
        layers: chain that keeps the shape.
        generator: on the CPU; draws the weights of the chain, if it has any.

    Raises:
        MorphError: naming layer, shapes and rule.
    """
    check_state(graph, state)
    _check_identity(graph, edge)
    if not layers:
        raise MorphError(f"{graph.node(edge)}: there is no layer to take its place.")
    nodes = _chain(graph, edge, layers)
    child = graph.inserted(edge, nodes, {edge: nodes[-1].name})
    if child.shapes[nodes[-1].name] != child.shapes[edge]:
        raise MorphError(
            f"{nodes[-1]} puts out {child.shapes[nodes[-1].name]}, where {graph.node(edge)} puts out "
            f"{child.shapes[edge]}: what takes the place of an identity must keep the shape."
        )
    chain = Graph(_image_shape(graph, edge), (nodes[0].reading({edge: INPUT}), *nodes[1:]))
    drawn = initial_state(chain, generator)
    names = tuple(node.name for node in nodes)
    caveat = f"{', '.join(names)} in place of an identity: the function is not preserved before a repair by `mimic`"
    return assemble(_without(child, edge), state, same_tensors(state), drawn, (names,), (caveat,))


def _chain(graph: Graph, after: str, layers: Sequence[Layer]) -> tuple[Node, ...]:
    """Return new nodes, each reading the one before."""
    stem = graph.fresh("deeper")
    names = [stem if position == 0 else f"{stem}_{layer.kind}{position}" for position, layer in enumerate(layers)]
    return tuple(
        Node(name, layer, (source,)) for name, layer, source in zip(names, layers, [after, *names], strict=False)
    )


def _noisy(new: dict[str, Tensor], rng: np.random.Generator | None, noise: float) -> dict[str, Tensor]:
    """Return new tensors with noise on the kernels and matrices among them."""
    if rng is None:
        raise MorphError(f"noise = {noise} needs a generator to draw from: pass rng.")
    return {name: perturbed(tensor, noise, rng) if tensor.dim() > 1 else tensor for name, tensor in new.items()}


def _check_identity(graph: Graph, edge: str) -> None:
    node = graph.node(edge)
    if node.layer.kind != Layer.kind:
        raise MorphError(f"{node} is no identity: only an identity can be replaced. Put layers behind it by `insert`.")


def _without(graph: Graph, edge: str) -> Graph:
    """Return the graph without an identity."""
    (source,) = graph.node(edge).inputs
    nodes = tuple(node.reading({edge: source}) for node in graph.nodes if node.name != edge)
    return Graph(graph.input_shape, nodes)


def _image_shape(graph: Graph, name: str) -> tuple[int, int, int]:
    shape = graph.shapes[name]
    if len(shape) != 3:
        raise MorphError(f"{graph.node(name)} puts out {shape}: only an identity between images can be replaced.")
    return shape[0], shape[1], shape[2]
