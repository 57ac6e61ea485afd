"""The module of a graph, its weights as a dictionary, and both in one file.

A state maps ``<layer>.<tensor>`` to a tensor, e.g. ``conv1.weight``; it is a value that nothing changes in place.
Dimension letters: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from nas_gym.files import write_whole
from nas_gym.networks.fit import initialise
from nas_gym.networks.morph.errors import MorphError
from nas_gym.networks.morph.graph import INPUT, Graph

State = Mapping[str, Tensor]
"""Tensors by ``<layer>.<tensor>``."""

FORMAT = "nas-gym graph network 1"
"""What a file says it is, in its metadata."""

METADATA_KEY = "nas_gym"

OTHERS = "more/"
"""Begins the names of tensors that are no weights; no layer can be called so."""


class GraphNetwork(nn.Module):
    """The module of a graph: images [N, C, H, W] -> what its last layer puts out, e.g. logits [N, K].

    Attributes:
        graph: what it computes.
        layers: the modules by the names of the nodes.
    """

    def __init__(self, graph: Graph, state: State) -> None:
        """Create the module with copies of the weights, on their device and in their type.

        Raises:
            MorphError: weights of another graph.
        """
        super().__init__()
        check_state(graph, state)
        self.graph = graph
        self.layers = _modules(graph)
        self.layers.load_state_dict({name: tensor.clone() for name, tensor in state.items()}, assign=True)

    def forward(self, images: Tensor) -> Tensor:
        """Return what the last layer puts out."""
        return self.values(images, [self.graph.output])[self.graph.output]

    def values(self, images: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """Return what some layers put out, `INPUT` included; others are forgotten as soon as nothing reads them."""
        kept = set(names)
        last = {name: node.name for node in self.graph.nodes for name in node.inputs}
        values = {INPUT: images}
        for node in self.graph.nodes:
            values[node.name] = self.layers[node.name](*(values[name] for name in node.inputs))
            for name in set(node.inputs):
                if last[name] == node.name and name not in kept:
                    del values[name]
        return {name: values[name] for name in kept}

    def state(self) -> dict[str, Tensor]:
        """Return copies of the weights; a later training does not change them."""
        return {name: tensor.detach().clone() for name, tensor in self.layers.state_dict().items()}


def _modules(graph: Graph) -> nn.ModuleDict:
    """Return the modules without weights."""
    with torch.device("meta"):
        return nn.ModuleDict({node.name: node.layer.module(graph.input_shapes(node)) for node in graph.nodes})


def check_state(graph: Graph, state: State) -> None:
    """Check that weights belong to a graph.

    Raises:
        MorphError: naming the tensor that is missing, too much, or of another shape.
    """
    expected = graph.tensor_shapes
    for problem, names in (
        ("lack", expected.keys() - state.keys()),
        ("have an unknown", state.keys() - expected.keys()),
    ):
        if names:
            raise MorphError(f"the weights {problem} tensor {min(names)} ({len(names)} in total): not of this graph.")
    for name, shape in expected.items():
        if tuple(state[name].shape) != shape:
            node = graph.node(name.split(".")[0])
            raise MorphError(
                f"{node} on {', '.join(map(str, graph.input_shapes(node)))}: its tensor {name} has the shape "
                f"{tuple(state[name].shape)}, where the layer needs {shape}."
            )


def initial_state(graph: Graph, generator: torch.Generator, initialisation: str = "default") -> dict[str, Tensor]:
    """Return random weights and the statistics of untrained normalisations, in float32 on the CPU.

    Args:
        graph: the network.
        generator: on the CPU.
        initialisation: see `nas_gym.networks.fit.initialise`.
    """
    layers = _modules(graph).to_empty(device="cpu")
    for layer in layers.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.reset_parameters()
    initialise(layers, generator, initialisation)
    return {name: tensor.detach() for name, tensor in layers.state_dict().items()}


def save_network(path: Path, graph: Graph, state: State, more: Mapping[str, Tensor] | None = None) -> None:
    """Write graph and weights into one safetensors file; an older one is replaced at the end.

    Args:
        path: of the file.
        graph: of the network.
        state: its weights.
        more: other tensors, such as what an optimiser remembers; `load_network` leaves them out.

    Raises:
        MorphError: the weights are not of this graph, or the file cannot be written.
    """
    path = Path(path)
    check_state(graph, state)
    every = {**state, **{f"{OTHERS}{name}": tensor for name, tensor in (more or {}).items()}}
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in every.items()}
    # One entry: several are written in any order, and equal networks must be equal files.
    described = {"format": FORMAT, "graph": graph.to_json()}
    texts = {METADATA_KEY: json.dumps(described, separators=(",", ":"))}
    try:
        write_whole(path, safetensors.torch.save(tensors, texts))
    except OSError as error:
        raise MorphError(f"{path}: the network cannot be written: {error.strerror or error}.") from error


def _described(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def load_network(path: Path) -> tuple[Graph, dict[str, Tensor]]:
    """Return graph and weights that `save_network` wrote, on the CPU.

    Raises:
        MorphError: naming the file: it cannot be read, is damaged, or holds no network.
    """
    path = Path(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys() if not name.startswith(OTHERS)}
    except OSError as error:
        raise MorphError(f"{path}: the network cannot be read: {error.strerror or error}.") from None
    except safetensors.SafetensorError as error:
        raise MorphError(f"{path}: the network is damaged: {error}.") from None
    described = _described(texts.get(METADATA_KEY, "null"))
    if described.get("format") != FORMAT:
        raise MorphError(f"{path}: not a network with its graph ({FORMAT!r}).")
    try:
        graph = Graph.from_json(described.get("graph") or {})
        check_state(graph, state)
    except (json.JSONDecodeError, MorphError) as error:
        raise MorphError(f"{path}: the network is damaged: {error}") from None
    return graph, {name: state[name] for name in graph.tensor_shapes}
