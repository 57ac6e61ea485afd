"""Parents of EAS's children: which layers a network has, and how it grows into a given one.

A network that grew in an earlier search has layers of other names than one that was built at once. Both are the same
network, and the former can be where a second search begins.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from nas_gym.networks.eas import layered_dense_graph, layered_plain_graph
from nas_gym.networks.morph import (
    INPUT,
    Concat,
    Convolution,
    Graph,
    Linear,
    MaxPooling,
    Morphed,
    MorphError,
    Node,
    State,
    dense_chain,
    unchanged,
)
from nas_gym.search_spaces.growing import Deepen, Transformed, Widen
from nas_gym.search_spaces.starts import GrownDense, GrownPlain, Layer, Start


def start_graph(start: Start, input_shape: tuple[int, int, int], classes: int, dropout: float = 0.0) -> Graph:
    """Return the network at the beginning of an episode.

    Args:
        start: which one.
        input_shape: (C, H, W) of an image.
        classes: number of classes K.
        dropout: probability behind every convolution but the first.

    Raises:
        InvalidArgument: the images are too small.
    """
    grown = start.grown()
    if isinstance(grown, GrownPlain):
        convolutions = [[(layer.width, layer.kernel) for layer in layers] for layers in grown.convolutions]
        units = [layer.width for layer in grown.units]
        return layered_plain_graph(input_shape, classes, convolutions, units, dropout)
    growths = [[layer.width for layer in layers] for layers in grown.blocks]
    return layered_dense_graph(input_shape, classes, growths, grown.widths, dropout=dropout)


def layers_of(graph: Graph) -> GrownPlain | GrownDense:
    """Return the layers of a plain CNN or a DenseNet, whatever they are called.

    Raises:
        MorphError: it is neither, or has other layers than these networks have.
    """
    kinds = {type(node.layer) for node in graph.nodes}
    found = _dense_layers_of(graph) if Concat in kinds else _plain_layers_of(graph)
    probabilities = {getattr(node.layer, "probability", 0.0) for node in graph.nodes}
    classes = graph.shapes[graph.output][0]
    if found is not None:
        expected = start_graph(found, graph.input_shape, classes, max(probabilities))
        if renaming(graph, expected) is not None:
            return found
    raise MorphError(
        f"the network of {', '.join(map(str, graph.nodes[:3]))}, ... ({len(graph.nodes)} layers) is neither a plain "
        "CNN nor a DenseNet as EAS grows them: convolutions with normalisation and ReLU, pooled between blocks, or "
        "dense layers with a bottleneck."
    )


def _plain_layers_of(graph: Graph) -> GrownPlain | None:
    blocks: list[list[Layer]] = [[]]
    units: list[Layer] = []
    for node in graph.nodes[:-1]:
        if isinstance(node.layer, Convolution):
            blocks[-1].append(Layer(graph.shapes[node.name][0], node.layer.kernel))
        elif isinstance(node.layer, MaxPooling):
            blocks.append([])
        elif isinstance(node.layer, Linear):
            units.append(Layer(graph.shapes[node.name][0]))
    return GrownPlain(tuple(map(tuple, blocks)), tuple(units)) if all(blocks) else None


def _dense_layers_of(graph: Graph) -> GrownDense | None:
    chains = {node.name: dense_chain(graph, node.name) for node in graph.nodes if isinstance(node.layer, Concat)}
    inside = {link.name for chain in chains.values() for link in chain}
    blocks: list[list[Layer]] = []
    widths: list[int] = []
    for node in graph.nodes:
        if node.name in chains and blocks:
            blocks[-1].append(Layer(graph.shapes[chains[node.name][-1].name][0]))
        elif isinstance(node.layer, Convolution) and node.name not in inside:
            widths.append(graph.shapes[node.name][0])
            blocks.append([])
    return GrownDense(tuple(map(tuple, blocks)), tuple(widths)) if blocks and all(blocks) else None


def renaming(graph: Graph, expected: Graph) -> dict[str, str] | None:
    """Return what the layers of a graph are called in another one that computes the same, None if it does not."""
    if graph.input_shape != expected.input_shape or len(graph.nodes) != len(expected.nodes):
        return None
    names = {INPUT: INPUT}
    for node, other in zip(graph.nodes, expected.nodes, strict=True):
        if node.layer != other.layer or tuple(names[name] for name in node.inputs) != other.inputs:
            return None
        names[node.name] = other.name
    return names


def renamed(graph: Graph, state: State, names: Mapping[str, str]) -> Morphed:
    """Return a network with other names of its layers as its own child."""
    nodes = tuple(
        Node(names[node.name], node.layer, tuple(names[name] for name in node.inputs)) for node in graph.nodes
    )
    same = unchanged(graph, state)
    tensors = {name: f"{names[name.split('.', 1)[0]]}.{name.split('.', 1)[1]}" for name in same.state}
    child = {tensors[name]: tensor for name, tensor in same.state.items()}
    return Morphed(Graph(graph.input_shape, nodes), child, {tensors[name]: one for name, one in same.origins.items()})


def growth(parent: GrownPlain | GrownDense, child: Transformed) -> tuple[Deepen | Widen, ...]:
    """Return transforms that make a child of any network that it can grow from, such as its grandparent.

    First all layers that the parent lacks are put in, each as wide as the one before it, then every layer takes its
    width, so that whatever a series of episodes may have led to is reached.

    Args:
        parent: its layers.
        child: the result of an episode.

    Raises:
        MorphError: naming both networks and the rule.
    """
    targets = child.blocks
    places = [_places(old, new) for old, new in zip(parent.blocks, targets, strict=False)]
    same = len(parent.blocks) == len(targets) and parent.dense == child.start.grown().dense
    if not same or not all(places):
        raise MorphError(
            f"the parent {parent} cannot grow into {child}: layers only become wider and only come behind others. "
            "Every layer of the parent must be in the same block of the child, in the same order and with the same "
            "kernel, the first one in the first place, and no layer up to the next of them may be narrower."
        )
    inserted = (
        Deepen(0, number, position - 1, layer.kernel)
        for number, (kept, layers) in enumerate(zip(places, targets, strict=True))
        for position, layer in enumerate(layers)
        if position not in kept
    )
    widened = (
        Widen(0, number, position, layer.width)
        for number, layers in enumerate(targets)
        for position, layer in enumerate(layers)
    )
    return (*inserted, *widened)


def _places(parent: Sequence[Layer], child: Sequence[Layer]) -> tuple[int, ...]:
    """Return where the layers of a block are in the grown block: the first way that fits, empty if none does."""
    for rest in itertools.combinations(range(1, len(child)), len(parent) - 1):
        places = (0, *rest)
        if all(_is_grown(old, run) for old, run in zip(parent, _runs(places, child), strict=True)):
            return places
    return ()


def _runs(places: Sequence[int], layers: Sequence[Layer]) -> Iterator[Sequence[Layer]]:
    """Iterate over the layers from each place to the next."""
    return (layers[place:end] for place, end in zip(places, (*places[1:], len(layers)), strict=True))


def _is_grown(layer: Layer, run: Sequence[Layer]) -> bool:
    """Tell whether the first of some layers grew from one, and the others from layers put in behind it."""
    return run[0].kernel == layer.kernel and all(one.width >= layer.width for one in run)
