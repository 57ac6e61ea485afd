"""Where a tensor of the child comes from: one rule for its values and for what an optimiser remembers of its gradients.

If unit k is repeated c times and the weights that read the copies are divided by c, the gradients behave the other way
round: those of the reading weights are the parent's, those of the repeated weights are the parent's divided by c.
Both follow from the chain rule. Dimension letters: O outputs, I inputs of a kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from nas_gym.networks.morph.errors import MorphError
from nas_gym.networks.morph.units import UnitMap


@dataclass(frozen=True)
class Gather:
    """A selection along one axis, with a division of either the values or the gradients.

    Attributes:
        axis: of the tensor.
        index: positions to take, one tuple for every equal block of axis 0 (a grouped convolution has as many blocks
            as groups, everything else one).
        counts: how often each of them is taken, in the same layout; 1 where nothing is divided.
        divides: what the counts divide.
    """

    axis: int
    index: tuple[tuple[int, ...], ...]
    counts: tuple[tuple[int, ...], ...]
    divides: Literal["values", "gradients"] = "gradients"

    @classmethod
    def outputs(cls, units: UnitMap) -> Gather:
        """Return the selection of axis 0 that repeats units."""
        return cls(0, (units.source,), (units.counts,))

    @classmethod
    def inputs(cls, units: UnitMap, groups: int = 1) -> Gather:
        """Return the selection of axis 1 that reads repeated units.

        Raises:
            MorphError: the map mixes the groups.
        """
        blocks = group_maps(units, groups)
        return cls(1, tuple(one.source for one in blocks), tuple(one.counts for one in blocks), "values")

    @classmethod
    def part(cls, start: int, stop: int) -> Gather:
        """Return the selection of consecutive positions of axis 0."""
        return cls(0, (tuple(range(start, stop)),), ((1,) * (stop - start),))

    @classmethod
    def choice(cls, index: tuple[int, ...], counts: tuple[int, ...]) -> Gather:
        """Return a selection of axis 0 that need not be complete, with the divisors of the gradients."""
        return cls(0, (index,), (counts,))

    def apply(self, tensor: Tensor, of: Literal["values", "gradients"], power: int = 1) -> Tensor:
        """Select, and divide by the counts to the power if they concern what `tensor` is."""
        taken = []
        for block, index, counts in zip(tensor.chunk(len(self.index)), self.index, self.counts, strict=True):
            part = block.index_select(self.axis, torch.tensor(index, device=tensor.device))
            if of == self.divides and max(counts, default=1) > 1:
                shape = [-1 if axis == self.axis else 1 for axis in range(tensor.dim())]
                part = part / torch.tensor(counts, dtype=tensor.dtype, device=tensor.device).reshape(shape) ** power
            taken.append(part)
        return torch.cat(taken)


def group_maps(units: UnitMap, groups: int) -> tuple[UnitMap, ...]:
    """Return the map of every group of units.

    Raises:
        MorphError: the map mixes the groups or makes them unequal.
    """
    blocks = (units,) if groups == 1 else units.split([units.parents // groups] * groups)
    if len({one.width for one in blocks}) > 1:
        raise MorphError(f"the {groups} groups of a grouped convolution must stay equally wide.")
    return blocks


@dataclass(frozen=True)
class Origin:
    """How one tensor of the child is made from one of the parent.

    Attributes:
        source: name of the parent's tensor.
        gathers: selections, one after the other.
        gradient_factor: what the gradient is multiplied by besides; None where the parent's gradient does not
            determine the child's, because several tensors of the child share it in unknown parts.
    """

    source: str
    gathers: tuple[Gather, ...] = ()
    gradient_factor: float | None = 1.0

    def values(self, state: Mapping[str, Tensor]) -> Tensor:
        """Return the child's tensor; it shares no memory with the parent's."""
        tensor = state[self.source]
        for gather in self.gathers:
            tensor = gather.apply(tensor, "values")
        return tensor if self.gathers else tensor.clone()

    def gradients(self, gradient: Tensor, power: int = 1) -> Tensor | None:
        """Return the child's gradient, or None where it is not determined.

        Args:
            gradient: of the parent's tensor, or anything linear in it, such as a momentum.
            power: 2 for what is quadratic in the gradient, such as Adam's second moment.
        """
        if self.gradient_factor is None:
            return None
        for gather in self.gathers:
            gradient = gather.apply(gradient, "gradients", power)
        return gradient * self.gradient_factor**power

    def after(self, earlier: Origin) -> Origin:
        """Return the origin of this tensor in the grandparent, given that of its source."""
        known = self.gradient_factor is not None and earlier.gradient_factor is not None
        factor = (self.gradient_factor or 0.0) * (earlier.gradient_factor or 0.0) if known else None
        return Origin(earlier.source, (*earlier.gathers, *self.gathers), factor)


def perturbed(tensor: Tensor, ratio: float, rng: np.random.Generator, rows: tuple[int, ...] | None = None) -> Tensor:
    """Return a tensor with normal noise of `ratio` times the standard deviation of what is perturbed.

    Args:
        tensor: any floating-point tensor.
        ratio: 0 leaves it as it is and draws nothing.
        rng: drawn from once per perturbed number.
        rows: entries of axis 0 to perturb; None = all.

    Raises:
        MorphError: a negative ratio.
    """
    if not ratio >= 0:
        raise MorphError(f"noise must be a ratio of at least 0, got {ratio!r}; 0 preserves the function exactly.")
    chosen = torch.arange(len(tensor)) if rows is None else torch.tensor(rows, dtype=torch.long)
    if ratio == 0 or len(chosen) == 0:
        return tensor
    part = tensor[chosen]
    draws = torch.from_numpy(rng.standard_normal(tuple(part.shape))).to(tensor)
    result = tensor.clone()
    result[chosen] = part + ratio * part.std(correction=0) * draws
    return result
