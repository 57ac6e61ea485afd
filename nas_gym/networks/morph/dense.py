"""A further layer in a dense block, and the same function.

Source: Cai et al., Efficient Architecture Search by Network Transformation, AAAI 2018, arXiv 1707.04873, and the code
released with it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nas_gym.networks.morph.errors import MorphError
from nas_gym.networks.morph.graph import Graph, Node
from nas_gym.networks.morph.morphed import Morphed, assemble, tensors_of
from nas_gym.networks.morph.network import State, check_state
from nas_gym.networks.morph.origins import Gather, Origin, perturbed
from nas_gym.networks.morph.units import UnitMap
from nas_gym.networks.morph.widen import mapped_tensors, resized, unit_maps

_ONES = frozenset({"weight", "running_var"})
"""Vectors of a normalisation that are 1 for the units which only the copy reads; the others are 0."""


def insert_dense_layer(
    graph: Graph, state: State, concat: str, rng: np.random.Generator, noise: float = 0.0
) -> Morphed:
    """Return the network with a further dense layer behind one, and the same function.

    The new layer is a copy of the one before. It also reads that one's outputs, with kernels of zero, and its own
    outputs repeat random ones of that one, so that all later layers see repeated units and divide by their number.

    Args:
        graph: of the parent.
        state: weights of the parent.
        concat: the concatenation of a dense layer's input and, last, its output. From one to the other leads a chain
            such as normalisation, ReLU, 1x1 convolution, normalisation, ReLU, 3x3 convolution.
        rng: draws which outputs are repeated, and the noise.
        noise: standard deviation of the normal noise on the copied kernels, as a share of theirs; 0 preserves the
            function exactly. EAS's code takes 0.01.

    Raises:
        MorphError: naming layer, shapes and rule.
    """
    check_state(graph, state)
    chain = dense_chain(graph, concat)
    whole, growth = graph.shapes[concat][0], graph.shapes[chain[-1].name][0]
    drawn = tuple(int(unit) for unit in rng.integers(growth, size=growth))
    maps = unit_maps(graph, {concat: UnitMap((*range(whole), *(whole - growth + unit for unit in drawn)), whole)})
    for name in (*graph.node(concat).inputs, *(node.name for node in chain)):
        if not maps[name].is_identity:
            raise MorphError(f"{name} is added to something behind {concat}: a dense block has no such addition.")
    copies = _copied_chain(graph, chain, concat)
    stand_in = Node(f"{copies[0].name}_concat", graph.node(concat).layer, (concat, copies[-1].name))
    position = graph.nodes.index(graph.node(concat)) + 1
    nodes = [resized(graph, node, maps) for node in graph.nodes]
    behind = [node.reading({concat: stand_in.name}) for node in nodes[position:]]
    child = Graph(graph.input_shape, (*nodes[:position], *copies, stand_in, *behind))
    origins = mapped_tensors(graph, state, maps) | _shared_gradients(state, chain, drawn)
    repeated, new = _copied_tensors(state, chain, copies, drawn, rng, noise)
    branches = (tuple(node.name for node in copies), (stand_in.name,))
    morphed = assemble(child, state, origins | repeated, new, branches)
    if not noise:
        return morphed
    noisy = {name: perturbed(morphed.state[name], noise, rng) for name in repeated if morphed.state[name].dim() > 1}
    caveat = f"noise of {noise} standard deviations on the copied kernels"
    return dataclasses.replace(morphed, state=morphed.state | noisy, caveats=(caveat,))


def dense_chain(graph: Graph, concat: str) -> tuple[Node, ...]:
    """Return the layers of the dense layer whose input and output a concatenation joins, in order.

    Raises:
        MorphError: it does not join those two, or they are connected otherwise than by a chain.
    """
    node = graph.node(concat)
    shapes = ", ".join(f"{name} {graph.shapes[name]}" for name in node.inputs)
    rule = "a dense layer ends in a concatenation of its input and, last, its output, which a chain of layers connects"
    if node.layer.kind != "concat" or len(node.inputs) != 2:
        raise MorphError(f"{node} on {shapes}: {rule}.")
    source, name = node.inputs
    chain: list[Node] = []
    while name != source:
        link = graph.by_name.get(name)
        if link is None or len(link.inputs) != 1:
            raise MorphError(f"{node} on {shapes}: {rule}; going back from {node.inputs[1]}, {name} ends the chain.")
        chain.insert(0, link)
        name = link.inputs[0]
    mixing = [link for link in chain if link.layer.produces]
    if (
        not mixing
        or mixing[0].layer.channel_groups > 1
        or not all(link.layer.unit_wise or link.layer.produces for link in chain)
    ):
        raise MorphError(
            f"{node} on {shapes}: the chain {', '.join(map(str, chain))} must consist of convolutions, of which the "
            "first has no groups, and of layers that treat every channel on its own."
        )
    return tuple(chain)


def _copied_chain(graph: Graph, chain: tuple[Node, ...], concat: str) -> tuple[Node, ...]:
    """Return the copies, the first of which reads the concatenation."""
    stem = graph.fresh("dense")
    copies: list[Node] = []
    for position, node in enumerate(chain):
        name = stem if position == 0 else f"{stem}_{node.layer.kind}{position}"
        copies.append(Node(name, node.layer, (copies[-1].name if copies else concat,)))
    return tuple(copies)


def _bounds(chain: tuple[Node, ...]) -> tuple[int, int]:
    """Return the positions of the first and of the last layer that mixes units."""
    mixing = [position for position, node in enumerate(chain) if node.layer.produces]
    return mixing[0], mixing[-1]


def _shared_gradients(state: State, chain: tuple[Node, ...], drawn: tuple[int, ...]) -> dict[str, Origin]:
    """Return the origins of the original layer: its values stay, its gradients are shared with the copy."""
    _, last = _bounds(chain)
    occurrences = Counter(drawn)
    everything = tuple(range(len(drawn)))
    kept = Gather.choice(everything, tuple(1 + occurrences[unit] for unit in everything))
    origins = {}
    for position, node in enumerate(chain):
        for tensor, value in tensors_of(state, node.name).items():
            name = f"{node.name}.{tensor}"
            known = position >= last and value.dim() > 0
            origins[name] = Origin(name, (kept,)) if known else Origin(name, (), None)
    return origins


def _copied_tensors(
    state: State,
    chain: tuple[Node, ...],
    copies: tuple[Node, ...],
    drawn: tuple[int, ...],
    rng: np.random.Generator,
    noise: float,
) -> tuple[dict[str, Origin], dict[str, Tensor]]:
    """Return the origins of the copy's tensors that repeat units, and the values of its others."""
    first, last = _bounds(chain)
    growth = len(drawn)
    occurrences = Counter(drawn)
    repeat = Gather.choice(drawn, tuple(1 + occurrences[unit] for unit in drawn))
    origins: dict[str, Origin] = {}
    new: dict[str, Tensor] = {}
    for position, (node, copy) in enumerate(zip(chain, copies, strict=True)):
        for tensor, value in tensors_of(state, node.name).items():
            name, source = f"{copy.name}.{tensor}", f"{node.name}.{tensor}"
            if value.dim() == 0:
                new[name] = value.clone()
            elif position >= last > first or position > last:
                origins[name] = Origin(source, (repeat,))
            else:
                copied = repeat.apply(value, "values") if position == last else value
                copied = perturbed(copied, noise, rng) if copied.dim() > 1 else copied
                new[name] = _extended(copied, growth, position < first, position == first, float(tensor in _ONES))
    return origins, new


def _extended(tensor: Tensor, units: int, rows: bool, columns: bool, padding: float) -> Tensor:
    """Return a tensor for `units` further inputs: vectors and depthwise kernels by rows, mixing kernels by columns."""
    if rows:
        fill = padding if tensor.dim() == 1 else 0.0
        return torch.cat([tensor, tensor.new_full((units, *tensor.shape[1:]), fill)])
    if columns and tensor.dim() > 1:
        return functional.pad(tensor, (0, 0) * (tensor.dim() - 2) + (0, units))
    return tensor.clone()
