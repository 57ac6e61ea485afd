"""What a transform returns: the child, and where each of its tensors comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nas_gym.networks.morph.graph import Graph
from nas_gym.networks.morph.network import State, check_state
from nas_gym.networks.morph.origins import Origin


@dataclass(frozen=True)
class Morphed:
    """A child network.

    Attributes:
        graph: of the child.
        state: weights of the child; they share no memory with the parent's.
        origins: of those tensors that are made of the parent's; all others are new. Noise is not part of it.
        branches: names of the layers that the transform put in or divided, in order, one tuple per branch; the merging
            layer, if there is one, is a tuple of its own at the end.
        caveats: under which conditions the function is preserved beyond evaluation mode; empty = none.
    """

    graph: Graph
    state: dict[str, Tensor]
    origins: dict[str, Origin]
    branches: tuple[tuple[str, ...], ...] = ()
    caveats: tuple[str, ...] = ()

    def then(self, transform: Callable[[Graph, State], Morphed]) -> Morphed:
        """Return the child's child, its origins traced back to this child's parent."""
        second = transform(self.graph, self.state)
        origins = {
            name: origin.after(self.origins[origin.source])
            for name, origin in second.origins.items()
            if origin.source in self.origins
        }
        return Morphed(second.graph, second.state, origins, second.branches, (*self.caveats, *second.caveats))


def unchanged(graph: Graph, state: State) -> Morphed:
    """Return a network as its own child, the start of a chain of `Morphed.then`.

    Raises:
        MorphError: the weights are not of this graph.
    """
    check_state(graph, state)
    return Morphed(graph, {name: tensor.clone() for name, tensor in state.items()}, same_tensors(state))


def same_tensors(state: State) -> dict[str, Origin]:
    """Return the origins of tensors that stay as they are."""
    return {name: Origin(name) for name in state}


def tensors_of(state: State, layer: str) -> dict[str, Tensor]:
    """Return the tensors of a layer by their names inside it."""
    return {name.split(".", 1)[1]: tensor for name, tensor in state.items() if name.split(".", 1)[0] == layer}


def assemble(
    graph: Graph,
    parent: State,
    origins: Mapping[str, Origin],
    new: Mapping[str, Tensor] | None = None,
    branches: tuple[tuple[str, ...], ...] = (),
    caveats: tuple[str, ...] = (),
) -> Morphed:
    """Return the child made of the parent's tensors and of new ones.

    Args:
        graph: of the child.
        parent: weights of the parent.
        origins: of the child's tensors; those of layers that the child does not have are left out.
        new: other tensors of the child; floating-point ones take the parent's type and device.
        branches: see `Morphed`.
        caveats: see `Morphed`.

    Raises:
        MorphError: the tensors are not those of the graph.
    """
    like = next((tensor for tensor in parent.values() if tensor.is_floating_point()), torch.zeros(()))
    made = {
        name: tensor.to(like) if tensor.is_floating_point() else tensor.to(like.device)
        for name, tensor in (new or {}).items()
    }
    kept = {name: origin for name, origin in origins.items() if name.split(".", 1)[0] in graph.by_name}
    made |= {name: origin.values(parent) for name, origin in kept.items() if name not in made}
    check_state(graph, made)
    ordered = {name: made[name] for name in graph.tensor_shapes}
    # A new tensor is new even if an origin was handed over for its name.
    mapped = {name: origin for name, origin in kept.items() if name not in (new or {})}
    return Morphed(graph, ordered, mapped, branches, caveats)
