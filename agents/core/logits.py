"""The smallest policy: one vector of logits per decision, which knows nothing of the other decisions.

It is the policy of NAS-Bench-101's and NATS-Bench's REINFORCE.

Sources: Ying et al., NAS-Bench-101, ICML 2019, arXiv 1902.09635; Dong et al., NATS-Bench, TPAMI 2021, arXiv
2009.00437, and their official search script.

Dimension letters: B episodes, T decisions, C choices.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class IndependentLogits(nn.Module):
    """A table of logits [T, C], one row for the first decision, one for the second, and so on.

    It offers what `Controller` does, so that either can be the policy of an algorithm. What was decided before is
    ignored, in particular which kind of decision is due: in a space of varying length a row may serve several kinds.
    """

    def __init__(self, length: int, choices: int, deviation: float, generator: torch.Generator) -> None:
        """Draw the logits.

        Args:
            length: T, most decisions of an episode.
            choices: C.
            deviation: standard deviation of the normal distribution that they are drawn from.
            generator: of the draws.
        """
        super().__init__()
        self.logits = nn.Parameter(deviation * torch.randn(length, choices, generator=generator))

    def tokens(self, actions: Tensor, kinds: Tensor) -> Tensor:
        """Return the input that follows each decision, int64 of the same shape: always 0, for nothing is read."""
        return torch.zeros_like(actions)

    def step(self, tokens: Tensor, kinds: Tensor, masks: Tensor, state: int | None) -> tuple[Tensor, None, int]:
        """Decide once.

        Args:
            tokens: ignored, int64 [B].
            kinds: ignored, int64 [B].
            masks: legal choices, bool [B, C].
            state: which decision is due, None at the start.

        Returns:
            Logits with illegal choices at minus infinity [B, C], no values, and the next state.
        """
        position = state or 0
        return self.logits[position].expand(len(masks), -1).masked_fill(~masks, -torch.inf), None, position + 1

    def evaluate(self, actions: Tensor, kinds: Tensor, masks: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, None]:
        """Score given decisions.

        Args:
            actions: int64 [B, T'] with T' at most T.
            kinds: ignored, int64 [B, T'].
            masks: legal choices, bool [B, T', C].
            lengths: decisions of each episode, int64 [B]; everything beyond is 0 in the result.

        Returns:
            Log-probabilities and entropies, each [B, T'], and no values.
        """
        longest = actions.shape[1]
        log_policy = self.logits[:longest].masked_fill(~masks, -torch.inf).log_softmax(-1)
        chosen = log_policy.gather(-1, actions[..., None])[..., 0]
        entropies = -(log_policy.exp() * log_policy.masked_fill(~masks, 0.0)).sum(-1)
        outside = torch.arange(longest) >= lengths[:, None]
        return chosen.masked_fill(outside, 0.0), entropies.masked_fill(outside, 0.0), None
