"""One path becomes several, and the function stays: replication-add, replication-concat, split-concat.

An edge is a layer, or a chain of layers of which each reads the one before, e.g. depthwise and pointwise convolution.
Source: Cai et al., Path-Level Network Transformation for Efficient Architecture Search, ICML 2018, arXiv 1806.02639,
section 3.1, and the code released with it. Dimension letters: C channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

import numpy as np

from nas_gym.networks.morph.errors import MorphError
from nas_gym.networks.morph.graph import Graph, Node
from nas_gym.networks.morph.junctions import Add, Concat, Segment
from nas_gym.networks.morph.layers import Layer
from nas_gym.networks.morph.morphed import Morphed, assemble, same_tensors, tensors_of
from nas_gym.networks.morph.network import State, check_state
from nas_gym.networks.morph.origins import Gather, Origin, perturbed

Edge = str | Sequence[str]
"""Name of a layer, or names of a chain of layers in order."""


def replicate_add(
    graph: Graph, state: State, edge: Edge, branches: int, rng: np.random.Generator | None = None, noise: float = 0.0
) -> Morphed:
    """Return the network in which copies of an edge take its place; their outputs are averaged.

    Args:
        graph: of the parent.
        state: weights of the parent.
        edge: any layers.
        branches: number of copies, the original included, at least 2; TreeCell takes 2 or 3.
        rng: draws the noise; needed only for it.
        noise: standard deviation of the normal noise on the kernels of all branches but the first, as a share of
            theirs; 0 preserves the function exactly. TreeCell's code takes 0.006.

    Raises:
        MorphError: naming layer, shapes and rule.
    """
    chain = _edge(graph, state, edge, branches)
    paths = _paths(graph, chain, [[node.layer for node in chain]] * branches)
    origins = {
        f"{copy.name}.{tensor}": Origin(f"{node.name}.{tensor}", (), 1 / branches)
        for path in paths
        for node, copy in zip(chain, path, strict=True)
        for tensor in tensors_of(state, node.name)
    }
    morphed = _branched(graph, state, chain, paths, Add(average=True), origins)
    return _with_noise(morphed, [copy for path in paths[1:] for copy in path], rng, noise)


def replicate_concat(
    graph: Graph,
    state: State,
    edge: Edge,
    branches: int,
    rng: np.random.Generator | None = None,
    noise: float = 0.0,
) -> Morphed:
    """Return the network in which every branch computes a slice of an edge's outputs; they are concatenated.

    The last convolution (or linear layer) of the edge is divided by its outputs, and so is everything behind it;
    everything before it, such as a normalisation or a depthwise convolution, is copied whole.

    Args:
        graph: of the parent.
        state: weights of the parent.
        edge: layers that include an ordinary convolution, e.g. depthwise and pointwise.
        branches: number of slices, at least 2; the first (C mod branches) are one unit wider.
        rng: draws the noise; needed only for it.
        noise: standard deviation of the normal noise on the kernels copied whole to all branches but the first, as a
            share of theirs; 0 preserves the function exactly. TreeCell's code takes 0.006.

    Raises:
        MorphError: naming layer, shapes and rule.
    """
    chain = _edge(graph, state, edge, branches)
    mixing = [position for position, node in enumerate(chain) if node.layer.produces]
    if not mixing:
        raise MorphError(
            f"{_listed(graph, chain)}: replication-concat divides a convolution by its outputs, and there is none. "
            "Identity, pooling and grouped convolutions take split-concat."
        )
    last = mixing[-1]
    bounds = _checked(graph, chain, branches, [node.layer.unit_wise for node in chain[last + 1 :]])
    layers: list[list[Layer]] = []
    for start, stop in bounds:
        try:
            sliced = [node.layer.with_units(stop - start) for node in chain[last:]]
        except MorphError as error:
            raise MorphError(f"{_listed(graph, chain)}: {error}") from None
        layers.append([*(node.layer for node in chain[:last]), *sliced])
    paths = _paths(graph, chain, layers)
    origins: dict[str, Origin] = {}
    for path, (start, stop) in zip(paths, bounds, strict=True):
        for position, (node, copy) in enumerate(zip(chain, path, strict=True)):
            for tensor, value in tensors_of(state, node.name).items():
                source, part = f"{node.name}.{tensor}", Gather.part(start, stop)
                whole = Origin(source, (), None)
                divided = Origin(source, (part,) if value.dim() else ())
                origins[f"{copy.name}.{tensor}"] = whole if position < last else divided
    morphed = _branched(graph, state, chain, paths, Concat(), origins)
    return _with_noise(morphed, [copy for path in paths[1:] for copy in path[:last]], rng, noise)


def split_concat(graph: Graph, state: State, edge: Edge, branches: int) -> Morphed:
    """Return the network in which every branch treats a segment of an edge's input; the outputs are concatenated.

    Args:
        graph: of the parent.
        state: weights of the parent.
        edge: layers that treat every channel on its own (identity, pooling, normalisation, depthwise convolution), or
            convolutions whose groups are divisible by `branches`; these need equal segments.
        branches: number of segments, at least 2; the first (C mod branches) are one unit wider.

    Raises:
        MorphError: naming layer, shapes and rule.
    """
    chain = _edge(graph, state, edge, branches)
    grouped = any(node.layer.produces for node in chain)
    _checked(graph, chain, branches, [node.layer.unit_wise or node.layer.produces for node in chain])
    try:
        divided = [node.layer.divided(branches) for node in chain]
    except MorphError as error:
        raise MorphError(f"{_listed(graph, chain)}: {error}") from None
    source = chain[0].inputs[0]
    widths = [graph.shapes[name][0] for name in (source, *(node.name for node in chain))]
    if grouped and any(width % branches for width in widths):
        raise MorphError(
            f"{_listed(graph, chain)}: a grouped convolution needs equal segments, and {branches} do not divide "
            f"{', '.join(map(str, widths))} channels."
        )
    segments = [segment_bounds(width, branches) for width in widths]
    paths = _paths(graph, chain, [divided] * branches)
    stem = graph.fresh(f"{chain[0].name}_segment")
    cuts = [Node(f"{stem}_{number}", Segment(*bounds), (source,)) for number, bounds in enumerate(segments[0], start=1)]
    paths = [(cut, path[0].reading({source: cut.name}), *path[1:]) for cut, path in zip(cuts, paths, strict=True)]
    origins: dict[str, Origin] = {}
    for number, path in enumerate(paths):
        for position, (node, copy) in enumerate(zip(chain, path[1:], strict=True), start=1):
            for tensor, value in tensors_of(state, node.name).items():
                part = (Gather.part(*segments[position][number]),) if value.dim() else ()
                origins[f"{copy.name}.{tensor}"] = Origin(f"{node.name}.{tensor}", part)
    return _branched(graph, state, chain, paths, Concat(), origins)


def segment_bounds(units: int, parts: int) -> list[tuple[int, int]]:
    """Return the first unit of every segment and the one behind its last; the first (units mod parts) are wider.

    >>> segment_bounds(7, 3)
    [(0, 3), (3, 5), (5, 7)]
    """
    widths = [units // parts + (part < units % parts) for part in range(parts)]
    return list(pairwise(accumulate(widths, initial=0)))


def _edge(graph: Graph, state: State, edge: Edge, branches: int) -> tuple[Node, ...]:
    """Return the layers of an edge.

    Raises:
        MorphError: they are no chain, or something else reads what is inside; fewer than two branches.
    """
    check_state(graph, state)
    names = (edge,) if isinstance(edge, str) else tuple(edge)
    chain = tuple(graph.node(name) for name in names)
    if not chain:
        raise MorphError("an edge needs at least one layer.")
    if isinstance(branches, bool) or not isinstance(branches, int) or branches < 2:
        raise MorphError(f"{_listed(graph, chain)}: branches must be an integer of at least 2, got {branches!r}.")
    for node in chain:
        if len(node.inputs) != 1:
            raise MorphError(f"{node} reads {', '.join(node.inputs)}: a layer of an edge has one input.")
    for before, behind in pairwise(chain):
        readers = [reader.name for reader in graph.consumers(before.name)]
        if readers != [behind.name]:
            raise MorphError(
                f"{before} is read by {', '.join(readers) or 'nothing'}: the layers of an edge form a chain, in which "
                f"{behind.name} alone would read it."
            )
    return chain


def _checked(graph: Graph, chain: tuple[Node, ...], branches: int, divisible: Sequence[bool]) -> list[tuple[int, int]]:
    """Return the segments of an edge's output.

    Raises:
        MorphError: a layer cannot be divided, or there are fewer units than branches.
    """
    narrowest = min(graph.shapes[name][0] for name in (chain[0].inputs[0], *(node.name for node in chain)))
    if narrowest < branches:
        raise MorphError(f"{_listed(graph, chain)}: {narrowest} units cannot be divided among {branches} branches.")
    if not all(divisible):
        raise MorphError(f"{_listed(graph, chain)}: a layer of it does not treat every unit on its own.")
    return segment_bounds(graph.shapes[chain[-1].name][0], branches)


def _paths(graph: Graph, chain: tuple[Node, ...], layers: Sequence[Sequence[Layer]]) -> list[tuple[Node, ...]]:
    """Return one chain of nodes per branch; the first keeps the names."""
    taken: set[str] = set()
    paths: list[tuple[Node, ...]] = []
    for branch, chosen in enumerate(layers):
        names = {node.name: node.name for node in chain}
        if branch:
            for node in chain:
                names[node.name] = graph.fresh(f"{node.name}_branch", taken)
                taken.add(names[node.name])
        paths.append(
            tuple(
                dataclasses.replace(node.reading(names), name=names[node.name], layer=layer)
                for node, layer in zip(chain, chosen, strict=True)
            )
        )
    return paths


def _branched(
    graph: Graph,
    state: State,
    chain: tuple[Node, ...],
    paths: Sequence[tuple[Node, ...]],
    merge: Layer,
    origins: dict[str, Origin],
) -> Morphed:
    """Return the child in which branches and a merging layer take the place of an edge."""
    old = {node.name for node in chain}
    end = chain[-1].name
    joint = Node(graph.fresh(f"{end}_{merge.kind}"), merge, tuple(path[-1].name for path in paths))
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.name == end:
            nodes += [*_flattened(paths), joint]
        elif node.name not in old:
            nodes.append(node.reading({end: joint.name}))
    child = Graph(graph.input_shape, tuple(nodes))
    kept = {name: origin for name, origin in same_tensors(state).items() if name.split(".", 1)[0] not in old}
    names = tuple(tuple(node.name for node in path) for path in paths)
    return assemble(child, state, kept | origins, branches=(*names, (joint.name,)))


def _flattened(paths: Iterable[tuple[Node, ...]]) -> list[Node]:
    return [node for path in paths for node in path]


def _with_noise(morphed: Morphed, nodes: Sequence[Node], rng: np.random.Generator | None, noise: float) -> Morphed:
    """Return the child with noise on the kernels of some nodes."""
    if noise == 0:
        return morphed
    if rng is None:
        raise MorphError(f"noise = {noise} needs a generator to draw from: pass rng.")
    state = dict(morphed.state)
    for node in nodes:
        for tensor, value in tensors_of(state, node.name).items():
            if value.dim() > 1:
                state[f"{node.name}.{tensor}"] = perturbed(value, noise, rng)
    return dataclasses.replace(
        morphed, state=state, caveats=(f"noise of {noise} standard deviations on the copied kernels",)
    )


def _listed(graph: Graph, chain: tuple[Node, ...]) -> str:
    return f"{', '.join(map(str, chain))} on {chain[0].inputs[0]} {graph.shapes[chain[0].inputs[0]]}"
