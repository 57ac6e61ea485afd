"""Files of parents: network, weights and what the optimiser remembers, of finished and of paused trainings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from nas_gym.networks.checkpoint import save_checkpoint
from nas_gym.networks.eas import plain_graph
from nas_gym.networks.morph import (
    GraphNetwork,
    MorphError,
    deepen,
    initial_state,
    load_network,
    load_parent,
    save_parent,
    transfer_optimiser,
    unchanged,
)
from nas_gym.networks.morph.parents import GRAPH

pytestmark = pytest.mark.usefixtures("one_thread")
"""Compute with one thread, as workers do."""

graph = plain_graph((1, 8, 8), 3, ((4,), (8,)), (6,))


def network() -> GraphNetwork:
    """Return a network in the memory format of trainings."""
    return GraphNetwork(graph, initial_state(graph, torch.Generator().manual_seed(0))).to(
        memory_format=torch.channels_last
    )


def optimiser(model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of trainings."""
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, fused=True)


def step(model: nn.Module, updates: torch.optim.Optimizer, seed: int = 0) -> None:
    """Take one step on random images."""
    images = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    updates.zero_grad()
    nn.functional.cross_entropy(model(images), torch.arange(16) % 3).backward()
    updates.step()


def remembered(model: GraphNetwork, updates: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the momenta by the names of their parameters."""
    return {
        name.removeprefix("layers."): updates.state[parameter]["momentum_buffer"]
        for name, parameter in model.named_parameters()
    }


def test_a_finished_training_leaves_what_its_optimiser_remembers(tmp_path: Path) -> None:
    """Beside graph and weights, by the names of the parameters."""
    model = network()
    updates = optimiser(model)
    step(model, updates)
    save_parent(tmp_path / "file", model, updates)
    parent = load_parent(tmp_path / "file")
    assert parent.graph == graph
    found = {name: memory["momentum_buffer"] for name, memory in parent.memory.items()}
    torch.testing.assert_close(found, remembered(model, updates))


def test_a_network_with_a_memory_is_a_network(tmp_path: Path) -> None:
    """Who does not ask for the memory does not see it."""
    model = network()
    updates = optimiser(model)
    step(model, updates)
    save_parent(tmp_path / "file", model, updates)
    assert load_network(tmp_path / "file")[1].keys() == model.state().keys()


def test_a_network_without_a_memory_has_none(tmp_path: Path) -> None:
    """As weights are kept where optimisers begin anew."""
    save_parent(tmp_path / "file", network())
    assert load_parent(tmp_path / "file").memory == {}


def test_a_paused_training_is_a_parent(tmp_path: Path) -> None:
    """If its checkpoint says the graph: the same network, weights and memory."""
    model = network()
    updates = optimiser(model)
    step(model, updates)
    progress = {"epoch": 1, "caller": {GRAPH: graph.to_json()}}
    save_checkpoint(tmp_path / "file", model, updates, {}, progress)
    parent = load_parent(tmp_path / "file")
    assert parent.graph == graph
    torch.testing.assert_close(parent.state, model.state())
    found = {name: memory["momentum_buffer"] for name, memory in parent.memory.items()}
    torch.testing.assert_close(found, remembered(model, updates))


def test_a_checkpoint_without_a_graph_is_no_parent(tmp_path: Path) -> None:
    """Nobody knows what its tensors are; the message names the file."""
    model = network()
    save_checkpoint(tmp_path / "file", model, optimiser(model), {}, {"epoch": 0, "caller": {}})
    with pytest.raises(MorphError, match=r"file: the checkpoint does not say the graph"):
        load_parent(tmp_path / "file")


@pytest.mark.parametrize("content", [None, b"", b"no tensors"], ids=["missing", "empty", "damaged"])
def test_what_cannot_be_read_names_the_file(tmp_path: Path, content: bytes | None) -> None:
    """Missing or damaged."""
    if content is not None:
        (tmp_path / "file").write_bytes(content)
    with pytest.raises(MorphError, match=r"/file: the network"):
        load_parent(tmp_path / "file")


def test_a_damaged_checkpoint_names_the_file(tmp_path: Path) -> None:
    """Its checksum tells."""
    model = network()
    progress = {"epoch": 0, "caller": {GRAPH: graph.to_json()}}
    save_checkpoint(tmp_path / "file", model, optimiser(model), {}, progress)
    content = bytearray((tmp_path / "file").read_bytes())
    content[-1] ^= 1
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(MorphError, match=r"/file: the checkpoint is damaged"):
        load_parent(tmp_path / "file")


def test_new_layers_begin_without_a_momentum(tmp_path: Path) -> None:
    """Fused optimisers take momenta for all parameters or for none; a momentum of 0 changes nothing."""
    model = network()
    updates = optimiser(model)
    step(model, updates)
    grown = deepen(graph, model.state(), "conv1_relu", None)
    children = []
    for fused in (True, False):
        child = GraphNetwork(grown.graph, grown.state).to(memory_format=torch.channels_last)
        continued = torch.optim.SGD(child.parameters(), lr=0.1, momentum=0.9, nesterov=True, fused=fused)
        report = transfer_optimiser(grown, model, updates, child, continued)
        assert report.reset == ("deeper1.weight", "deeper1.bias")
        step(child, continued, 1)
        children.append(child.state())
    torch.testing.assert_close(children[0], children[1])


def test_a_reminded_optimiser_takes_the_step_that_the_parents_would_take(tmp_path: Path) -> None:
    """Bit by bit, in the memory format of trainings, in which fused optimisers walk over raw memory."""
    model = network()
    updates = optimiser(model)
    step(model, updates)
    save_parent(tmp_path / "file", model, updates)
    parent = load_parent(tmp_path / "file")
    before = parent.network("cpu")
    remembering = optimiser(before)
    parent.remind(before, remembering)
    child = GraphNetwork(graph, parent.state).to(memory_format=torch.channels_last)
    continued = optimiser(child)
    transfer_optimiser(unchanged(graph, parent.state), before, remembering, child, continued)
    step(model, updates, 1)
    step(child, continued, 1)
    torch.testing.assert_close(child.state(), model.state(), rtol=0, atol=0)
