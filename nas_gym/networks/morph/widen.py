"""Wider layers that compute the same: units are repeated, and what reads them is divided by how often.

Source: Chen, Goodfellow & Shlens, Net2Net, ICLR 2016, arXiv 1511.05641, section 2.2; through concatenations as in Cai
et al., Efficient Architecture Search by Network Transformation, AAAI 2018, arXiv 1707.04873.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from nas_gym.networks.morph.errors import MorphError
from nas_gym.networks.morph.graph import INPUT, Graph, Node
from nas_gym.networks.morph.morphed import Morphed, assemble, tensors_of
from nas_gym.networks.morph.network import State, check_state
from nas_gym.networks.morph.origins import Origin, perturbed
from nas_gym.networks.morph.units import UnitMap, replication_map


def widen(graph: Graph, state: State, layer: str, width: int, rng: np.random.Generator, noise: float = 0.0) -> Morphed:
    """Return the network with a wider convolution or linear layer, and the same function.

    All that reads the units follows: normalisations, depthwise convolutions, concatenations at their offsets, flattened
    features; layers that an addition joins are widened together and repeat the same units (see `widened_together`).

    Args:
        graph: of the parent.
        state: weights of the parent.
        layer: a convolution or a linear layer that is not the output.
        width: new number of outputs, at least the old one.
        rng: draws which units are repeated.
        noise: standard deviation of the normal noise on the added units' incoming weights and biases, as a share of
            theirs, to break the symmetry; 0 preserves the function exactly. Net2Net names no size, EAS's code takes
            0.01, and neither adds any where dropout breaks the symmetry.

    Raises:
        MorphError: naming layer, shapes and rule.
    """
    check_state(graph, state)
    node = _producer(graph, layer)
    units = graph.shapes[layer][0]
    if isinstance(width, bool) or not isinstance(width, int):
        raise MorphError(f"{node}: width must be an integer, got {width!r}.")
    try:
        chosen = replication_map(units, width, rng, _shared_groups(graph, layer))
    except MorphError as error:
        raise MorphError(f"{node}: {error}") from None
    return replicate_units(graph, state, layer, chosen, rng, noise)


def replicate_units(
    graph: Graph, state: State, layer: str, units: UnitMap, rng: np.random.Generator | None = None, noise: float = 0.0
) -> Morphed:
    """Return the network whose layer repeats units as a given map says; `widen` with a map of one's own.

    Args:
        graph: of the parent.
        state: weights of the parent.
        layer: a convolution or a linear layer that is not the output.
        units: from the layer's units.
        rng: draws the noise; needed only for it.
        noise: see `widen`.

    Raises:
        MorphError: naming layer, shapes and rule.
    """
    check_state(graph, state)
    node = _producer(graph, layer)
    if units.parents != graph.shapes[layer][0]:
        raise MorphError(f"{node} has {graph.shapes[layer][0]} units, the map is of {units.parents}.")
    maps = unit_maps(graph, {layer: units})
    child = Graph(graph.input_shape, tuple(resized(graph, one, maps) for one in graph.nodes))
    morphed = assemble(child, state, mapped_tensors(graph, state, maps))
    return _with_noise(morphed, graph, maps, rng, noise)


def widened_together(graph: Graph, layer: str) -> tuple[str, ...]:
    """Return the convolutions and linear layers that widening a layer widens, itself included, in their order.

    Raises:
        MorphError: the layer cannot be widened.
    """
    units = graph.shapes[_producer(graph, layer).name][0]
    maps = unit_maps(graph, {layer: UnitMap((*range(units), 0), units)})
    return tuple(node.name for node in graph.nodes if node.layer.produces and not maps[node.name].is_identity)


def unit_maps(graph: Graph, fixed: Mapping[str, UnitMap]) -> dict[str, UnitMap]:
    """Return how the units of every layer, and of the images, repeat the parent's.

    Args:
        graph: of the parent.
        fixed: maps of the layers from which the change starts.

    Raises:
        MorphError: no assignment of maps to the other producers makes all additions agree, or the output changes.
    """
    fixed = dict(fixed)
    while True:
        maps = _passed_on(graph, fixed)
        demanded = _demanded(graph, maps, fixed)
        if not demanded:
            break
        fixed |= demanded
    if not maps[graph.output].is_identity:
        raise MorphError(
            f"{graph.node(graph.output)} is the output of the network; the change would reach it, and the number of "
            "outputs must stay."
        )
    return maps


def _passed_on(graph: Graph, fixed: Mapping[str, UnitMap]) -> dict[str, UnitMap]:
    """Return all maps, given those of the producers that change."""
    maps = {INPUT: UnitMap.identity(graph.shapes[INPUT][0])}
    for node in graph.nodes:
        if node.name in fixed:
            maps[node.name] = fixed[node.name]
        elif node.layer.produces:
            maps[node.name] = UnitMap.identity(graph.shapes[node.name][0])
        else:
            try:
                inputs = [maps[name] for name in node.inputs]
                maps[node.name] = node.layer.output_map(inputs, graph.input_shapes(node))
            except MorphError as error:
                raise _unfit(graph, node, error) from None
    return maps


def _demanded(graph: Graph, maps: Mapping[str, UnitMap], fixed: Mapping[str, UnitMap]) -> dict[str, UnitMap]:
    """Return the maps that further producers must take on so that the inputs of every addition agree."""
    demanded: dict[str, UnitMap] = {}

    def demand(name: str, wanted: UnitMap, junction: Node) -> None:
        known = fixed.get(name) or demanded.get(name)
        if name == INPUT or (known is not None and known != wanted):
            what = "the images" if name == INPUT else str(graph.node(name))
            raise MorphError(
                f"{junction} joins what is widened with {what}, which cannot repeat the same units: all inputs of an "
                "addition must share one map. Choose another layer, or put a convolution in between."
            )
        if known is not None:
            return
        node = graph.node(name)
        if node.layer.produces:
            demanded[name] = wanted
            return
        try:
            inputs = node.layer.input_maps(wanted, graph.input_shapes(node))
        except MorphError as error:
            raise _unfit(graph, node, error) from None
        for source, one in zip(node.inputs, inputs, strict=True):
            if maps[source] != one:
                demand(source, one, junction)

    for node in graph.nodes:
        if node.layer.adds:
            for name in node.inputs:
                if maps[name] != maps[node.name]:
                    demand(name, maps[node.name], node)
    return demanded


def resized(graph: Graph, node: Node, maps: Mapping[str, UnitMap]) -> Node:
    """Return a node of the child."""
    try:
        layer = node.layer.resized([maps[name] for name in node.inputs], maps[node.name])
    except MorphError as error:
        raise _unfit(graph, node, error) from None
    return dataclasses.replace(node, layer=layer)


def mapped_tensors(graph: Graph, state: State, maps: Mapping[str, UnitMap]) -> dict[str, Origin]:
    """Return the origins of all tensors of a child whose units repeat the parent's.

    Raises:
        MorphError: the maps do not fit the weights of a layer, e.g. they mix the groups of a convolution.
    """
    origins = {}
    for node in graph.nodes:
        try:
            gathers = node.layer.gathers([maps[name] for name in node.inputs], maps[node.name])
        except MorphError as error:
            raise _unfit(graph, node, error) from None
        for tensor in tensors_of(state, node.name):
            name = f"{node.name}.{tensor}"
            origins[name] = Origin(name, gathers.get(tensor, ()))
    return origins


def _producer(graph: Graph, layer: str) -> Node:
    node = graph.node(layer)
    if not node.layer.produces:
        raise MorphError(f"{node} has no units of its own: only a convolution or a linear layer can be widened.")
    return node


def _shared_groups(graph: Graph, layer: str) -> int:
    """Return into how many blocks the units of a layer fall for the sake of the grouped convolutions that see them."""
    units = graph.shapes[layer][0]
    maps = unit_maps(graph, {layer: UnitMap((*range(units), 0), units)})
    touched = [
        node.layer.channel_groups
        for node in graph.nodes
        if not all(maps[name].is_identity for name in (node.name, *node.inputs))
    ]
    return math.lcm(*touched)


def _with_noise(
    morphed: Morphed, parent: Graph, maps: Mapping[str, UnitMap], rng: np.random.Generator | None, noise: float
) -> Morphed:
    """Return the child with noise on the incoming weights and biases of its added units."""
    if noise == 0:
        return morphed
    if rng is None:
        raise MorphError(f"noise = {noise} needs a generator to draw from: pass rng.")
    state = dict(morphed.state)
    for node in parent.nodes:
        if node.layer.produces and maps[node.name].added:
            for tensor in tensors_of(state, node.name):
                name = f"{node.name}.{tensor}"
                state[name] = perturbed(state[name], noise, rng, maps[node.name].added)
    caveat = f"noise of {noise} standard deviations on the added units"
    return dataclasses.replace(morphed, state=state, caveats=(*morphed.caveats, caveat))


def _unfit(graph: Graph, node: Node, error: MorphError) -> MorphError:
    """Return an error that names layer, shapes and rule."""
    shapes = ", ".join(f"{name} {graph.shapes[name]}" for name in node.inputs)
    return MorphError(f"{node} on {shapes}: {error}")
