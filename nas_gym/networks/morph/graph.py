"""A network as a directed acyclic graph of named layers, without weights.

Dimension letters: C channels, H height, W width.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from nas_gym.networks.morph.errors import MorphError
from nas_gym.networks.morph.junctions import Add, Concat, Flatten, GlobalAveragePooling, Segment
from nas_gym.networks.morph.layers import (
    Activation,
    AveragePooling,
    Dropout,
    Identity,
    Layer,
    MaxPooling,
    Shape,
)
from nas_gym.networks.morph.weighted import BatchNorm, Convolution, DepthwiseConvolution, Linear

INPUT = "input"
"""Name of the images."""

LAYERS: dict[str, type[Layer]] = {
    layer.kind: layer
    for layer in (
        Identity,
        Convolution,
        DepthwiseConvolution,
        Linear,
        BatchNorm,
        Activation,
        Dropout,
        MaxPooling,
        AveragePooling,
        Add,
        Concat,
        Segment,
        GlobalAveragePooling,
        Flatten,
    )
}
"""Every layer by its name in files."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Node:
    """A layer at its place in a graph.

    Attributes:
        name: unique in the graph; letters, digits and underscores. Its tensors are called ``<name>.weight`` and so on.
        layer: what it computes.
        inputs: names of what it reads, in order.
    """

    name: str
    layer: Layer
    inputs: tuple[str, ...]

    def reading(self, sources: Mapping[str, str]) -> Node:
        """Return the node with some of its inputs exchanged."""
        return dataclasses.replace(self, inputs=tuple(sources.get(name, name) for name in self.inputs))

    def __str__(self) -> str:
        """Return it as messages show it."""
        return f"{self.name} ({self.layer})"


@dataclass(frozen=True)
class Graph:
    """Named layers in an order in which they can be computed; the last one is the output.

    Attributes:
        input_shape: (C, H, W) of an image.
        nodes: the layers, each behind everything it reads.
    """

    input_shape: tuple[int, int, int]
    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        """Check names, order and shapes.

        Raises:
            MorphError: naming the layer, the shapes and the rule.
        """
        if not self.nodes:
            raise MorphError("a graph needs at least one layer.")
        seen = {INPUT}
        for node in self.nodes:
            _check_node(node, seen)
            seen.add(node.name)
        unread = seen - {name for node in self.nodes for name in node.inputs} - {self.output}
        if unread:
            raise MorphError(
                f"{', '.join(sorted(unread))}: nothing reads it, and it is not the output (the last layer)."
            )
        _ = self.shapes

    @property
    def output(self) -> str:
        """Name of the last layer."""
        return self.nodes[-1].name

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """What every layer puts out, the images included, without the batch."""
        shapes: dict[str, Shape] = {INPUT: tuple(self.input_shape)}
        for node in self.nodes:
            inputs = [shapes[name] for name in node.inputs]
            try:
                shapes[node.name] = node.layer.output_shape(inputs)
            except MorphError as error:
                raise MorphError(f"{node} on {_list_inputs(node, shapes)}: {error}") from None
        return shapes

    @cached_property
    def tensor_shapes(self) -> dict[str, Shape]:
        """The shapes of all tensors of the network, by ``<layer>.<tensor>``, in the order of the layers."""
        return {
            f"{node.name}.{tensor}": shape
            for node in self.nodes
            for tensor, shape in node.layer.tensor_shapes(self.input_shapes(node)).items()
        }

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """The nodes by their names."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def nonnegative(self) -> dict[str, bool]:
        """Whether what a layer puts out is never negative, whatever the weights and the images are."""
        known = {INPUT: False}
        for node in self.nodes:
            known[node.name] = node.layer.nonnegative([known[name] for name in node.inputs])
        return known

    def node(self, name: str) -> Node:
        """Return the node of a name.

        Raises:
            MorphError: there is none.
        """
        if name not in self.by_name:
            raise MorphError(f"the graph has no layer {name!r}. It has {', '.join(self.by_name)}.")
        return self.by_name[name]

    def input_shapes(self, node: Node) -> list[Shape]:
        """Return the shapes that a node reads."""
        return [self.shapes[name] for name in node.inputs]

    def consumers(self, name: str) -> tuple[Node, ...]:
        """Return the nodes that read a layer, each once."""
        return tuple(node for node in self.nodes if name in node.inputs)

    def fresh(self, stem: str, taken: Iterable[str] = ()) -> str:
        """Return `stem` with the first number, counted from 1, that makes it a new name."""
        used = {*self.by_name, *taken}
        number = 1
        while f"{stem}{number}" in used:
            number += 1
        return f"{stem}{number}"

    def inserted(self, after: str, new: Iterable[Node], rewired: Mapping[str, str]) -> Graph:
        """Return the graph with nodes behind another one.

        Args:
            after: node, or `INPUT`, behind which they are put.
            new: nodes, in order; they keep their inputs.
            rewired: what all older nodes behind `after` read instead.
        """
        position = 0 if after == INPUT else self.nodes.index(self.node(after)) + 1
        behind = [node.reading(rewired) for node in self.nodes[position:]]
        return Graph(self.input_shape, (*self.nodes[:position], *new, *behind))

    def to_json(self) -> dict[str, Any]:
        """Return the graph as JSON values."""
        return {
            "input_shape": list(self.input_shape),
            "nodes": [
                {
                    "name": node.name,
                    "inputs": list(node.inputs),
                    "kind": node.layer.kind,
                    **dataclasses.asdict(node.layer),
                }
                for node in self.nodes
            ],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Graph:
        """Return the graph that `to_json` described.

        Raises:
            MorphError: it describes none.
        """
        try:
            height, width = content["input_shape"][1:]
            nodes = tuple(_node_from_json(dict(entry)) for entry in content["nodes"])
            return cls((content["input_shape"][0], height, width), nodes)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, MorphError):
                raise
            raise MorphError(f"the content describes no graph: {type(error).__name__}: {error}.") from None


def _node_from_json(entry: dict[str, Any]) -> Node:
    name, inputs, kind = entry.pop("name"), tuple(entry.pop("inputs")), entry.pop("kind")
    if kind not in LAYERS:
        raise MorphError(f"{name}: unknown kind of layer {kind!r}. Known: {', '.join(LAYERS)}.")
    return Node(name, LAYERS[kind](**entry), inputs)


def _check_node(node: Node, seen: set[str]) -> None:
    """Raise MorphError for a bad name or an input that is not there yet."""
    if not _NAME.fullmatch(node.name) or hasattr(nn.ModuleDict, node.name):
        raise MorphError(
            f"a layer cannot be called {node.name!r}: a name consists of letters, digits and underscores, begins with "
            "a letter and is no attribute of torch.nn.ModuleDict."
        )
    if node.name in seen:
        raise MorphError(f"{node}: the name is taken. Names are unique, and {INPUT!r} are the images.")
    for name in node.inputs:
        if name not in seen:
            raise MorphError(f"{node} reads {name!r}, which does not stand before it.")
    most = node.layer.most_inputs
    if not node.inputs or (most is not None and len(node.inputs) > most):
        allowed = "at least one input" if most is None else "exactly one input"
        raise MorphError(f"{node} has {len(node.inputs)} inputs, where it takes {allowed}.")


def _list_inputs(node: Node, shapes: Mapping[str, Shape]) -> str:
    return ", ".join(f"{name} {shapes[name]}" for name in node.inputs)
