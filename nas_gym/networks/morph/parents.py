"""A trained network as its children need it: graph, weights, and what its optimiser remembers, from one file.

Two kinds of files hold one: a network (`save_parent`), and the checkpoint of a training that has not ended, if it says
its graph (`GRAPH` among what the caller of the training keeps).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from nas_gym.networks.checkpoint import FORMAT as CHECKPOINT
from nas_gym.networks.checkpoint import CheckpointError, read_checkpoint
from nas_gym.networks.morph.errors import MorphError
from nas_gym.networks.morph.graph import Graph
from nas_gym.networks.morph.network import OTHERS, GraphNetwork, check_state, load_network, save_network

GRAPH = "graph"
"""Where the progress of a checkpoint has the graph, as JSON."""

Memory = Mapping[str, Mapping[str, Tensor]]
"""What an optimiser keeps, by ``<layer>.<tensor>`` of the parameter and by its own name."""


@dataclass(frozen=True)
class Parent:
    """A trained network.

    Attributes:
        graph: what it computes.
        state: its weights.
        memory: what the optimiser of its training remembers; empty where the file does not say.
    """

    graph: Graph
    state: dict[str, Tensor]
    memory: Memory = field(default_factory=dict)

    def network(self, device: str) -> GraphNetwork:
        """Return the module."""
        return GraphNetwork(self.graph, {name: tensor.to(device) for name, tensor in self.state.items()})

    def remind(self, network: GraphNetwork, optimiser: torch.optim.Optimizer) -> None:
        """Give an optimiser over a network of this graph what the parent's remembers."""
        for name, parameter in _parameters(network).items():
            if name in self.memory:
                kept = {key: tensor.to(parameter.device) for key, tensor in self.memory[name].items()}
                optimiser.state[parameter] = kept


def _parameters(network: GraphNetwork) -> dict[str, torch.nn.Parameter]:
    return {name.removeprefix("layers."): parameter for name, parameter in network.named_parameters()}


def save_parent(path: Path, network: GraphNetwork, optimiser: torch.optim.Optimizer | None = None) -> None:
    """Write a network, and what an optimiser remembers if there is one.

    Args:
        path: of the file.
        network: trained.
        optimiser: over its parameters; keeps tensors only.

    Raises:
        MorphError: the file cannot be written.
    """
    more = {}
    if optimiser is not None:
        for name, parameter in _parameters(network).items():
            kept = optimiser.state.get(parameter, {})
            more |= {f"{name}/{key}": value for key, value in kept.items() if isinstance(value, Tensor)}
    save_network(path, network.graph, network.state(), more)


def load_parent(path: Path) -> Parent:
    """Return what a file of either kind holds, on the CPU.

    Raises:
        MorphError: naming the file: it cannot be read, is damaged, or holds no network with its graph.
    """
    if _is_checkpoint(path):
        return _of_checkpoint(path)
    graph, state = load_network(path)
    memory: dict[str, dict[str, Tensor]] = {}
    with safetensors.safe_open(path, framework="pt") as file:
        for name in file.keys():
            if name.startswith(OTHERS):
                parameter, key = name.removeprefix(OTHERS).split("/")
                memory.setdefault(parameter, {})[key] = file.get_tensor(name)
    return Parent(graph, state, memory)


def _is_checkpoint(path: Path) -> bool:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == CHECKPOINT
    except (OSError, safetensors.SafetensorError):
        return False  # What is wrong with it is said where it is read.


def _of_checkpoint(path: Path) -> Parent:
    try:
        tensors, texts = read_checkpoint(path)
    except CheckpointError as error:
        raise MorphError(str(error)) from None
    described = json.loads(texts["progress"]).get("caller", {}).get(GRAPH)
    if described is None:
        raise MorphError(
            f"{path}: the checkpoint does not say the graph of its network, so that nothing can grow from it."
        )
    graph = Graph.from_json(described)
    prefix = "model.layers."
    state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    check_state(graph, state)
    names = list(_parameters(GraphNetwork(graph, state)))
    memory: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, number, key = name.split(".", 2)
            memory.setdefault(names[int(number)], {})[key] = tensor
    return Parent(graph, {name: state[name] for name in graph.tensor_shapes}, memory)
