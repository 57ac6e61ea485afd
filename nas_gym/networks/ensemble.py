"""Several trained classifiers as one.

Dimension letters: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """The mean of the members' class probabilities: images [N, ...] -> probabilities [N, K]."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        """Adopt trained networks that put out logits."""
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean probabilities."""
        return torch.stack([member(images).softmax(1) for member in self.members]).mean(0)
