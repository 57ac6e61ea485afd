"""What an optimiser remembers of the parent's gradients, handed on to the child.

A momentum is linear in the gradients and is divided as they are; Adam's second moment is quadratic and is divided by
the square. Where the parent's gradient does not determine the child's, the memory is empty, and is reported as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nas_gym.networks.morph.errors import MorphError
from nas_gym.networks.morph.morphed import Morphed
from nas_gym.networks.morph.network import GraphNetwork

_POWERS = {
    "momentum_buffer": 1,
    "exp_avg": 1,
    "grad_avg": 1,
    "exp_avg_sq": 2,
    "max_exp_avg_sq": 2,
    "square_avg": 2,
    "sum": 2,
}
"""How what torch's SGD, Adam, AdamW, RMSprop and Adagrad keep depends on the gradient."""


@dataclass(frozen=True)
class Transfer:
    """What became of an optimiser's memory.

    Attributes:
        mapped: names of the child's parameters whose memory comes from the parent.
        reset: those that begin without: new ones, and those that share a parent's gradient in unknown parts.
    """

    mapped: tuple[str, ...]
    reset: tuple[str, ...]


def transfer_optimiser(
    morphed: Morphed,
    parent: GraphNetwork,
    parent_optimiser: torch.optim.Optimizer,
    child: GraphNetwork,
    child_optimiser: torch.optim.Optimizer,
) -> Transfer:
    """Fill the memory of the child's optimiser from the parent's.

    What is mapped is what the child's optimiser would remember had the same gradients been taken in the child.

    Args:
        morphed: how the child was made, by one transform or a chain of `Morphed.then`.
        parent: network of the parent's graph.
        parent_optimiser: over the parent's parameters.
        child: network of the child's graph.
        child_optimiser: of the same class, over the child's parameters; its memory is replaced. Its options (learning
            rate, ...) are its own.

    Raises:
        MorphError: optimisers of two classes, parameters of other networks, or a memory of unknown meaning.
    """
    if type(parent_optimiser) is not type(child_optimiser):
        raise MorphError(
            f"the memory of {type(parent_optimiser).__name__} means nothing to {type(child_optimiser).__name__}: "
            "use one class for both."
        )
    before = {name.removeprefix("layers."): parameter for name, parameter in parent.named_parameters()}
    after = {name.removeprefix("layers."): parameter for name, parameter in child.named_parameters()}
    _check_owner("parent", before, parent_optimiser)
    _check_owner("child", after, child_optimiser)
    if child.graph != morphed.graph:
        raise MorphError("the child network is not of the graph that the transform returned.")
    memories: dict[str, dict[str, object]] = {}
    for name in after:
        origin = morphed.origins.get(name)
        if origin is None or origin.gradient_factor is None:
            continue
        if origin.source not in before:
            raise MorphError(f"{name} comes from {origin.source}, which the parent network does not have.")
        source = before[origin.source]
        memory = parent_optimiser.state.get(source, {})
        # What RMSprop calls its momentum sums steps, which are gradients over their own size: nothing to divide.
        powers = _POWERS | ({"momentum_buffer": 0} if "square_avg" in memory else {})
        memories[name] = {key: _mapped(key, value, source, powers, morphed, name) for key, value in memory.items()}
    child_optimiser.state.clear()
    for name, memory in memories.items():
        if memory:
            child_optimiser.state[after[name]] = {key: _laid_out(value, after[name]) for key, value in memory.items()}
    mapped = tuple(name for name in after if memories.get(name))
    if mapped:
        _begin_momenta(child_optimiser)
    return Transfer(mapped, tuple(name for name in after if not memories.get(name)))


def _begin_momenta(optimiser: torch.optim.Optimizer) -> None:
    """Give parameters without a memory a momentum of 0 where the optimiser is fused and keeps nothing else.

    The first step is the same, but torch's fused SGD takes momenta for all parameters or for none.
    """
    for group in optimiser.param_groups:
        kept = {key for parameter in group["params"] for key in optimiser.state.get(parameter, {})}
        if group.get("fused") and kept == {"momentum_buffer"}:
            for parameter in group["params"]:
                optimiser.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))


def _laid_out(value: object, parameter: Tensor) -> object:
    """Return an entry in the memory format of its parameter: fused optimisers walk over the raw memory of both."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def _mapped(
    key: str, value: object, parameter: Tensor, powers: Mapping[str, int], morphed: Morphed, name: str
) -> object:
    """Return one entry of the memory of a parent's parameter for the child's parameter `name`."""
    if not isinstance(value, Tensor):
        return value
    if value.shape != parameter.shape or key == "step":
        return value.clone()
    if key not in powers:
        raise MorphError(
            f"{name}: the optimiser keeps {key!r}, of which it is not known how it depends on the gradient. "
            f"Known: {', '.join(powers)}. Start the child with a new optimiser."
        )
    return morphed.origins[name].gradients(value, powers[key])


def _check_owner(role: str, parameters: dict[str, torch.nn.Parameter], optimiser: torch.optim.Optimizer) -> None:
    known = {id(parameter) for parameter in parameters.values()}
    held = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    if any(id(parameter) not in known for parameter in held):
        raise MorphError(f"the {role}'s optimiser holds parameters of another network than the {role}'s.")
