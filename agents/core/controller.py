"""The recurrent controller of NAS with reinforcement learning; published ones are configurations of it.

Dimension letters: B episodes, T decisions, C choices, D kinds of decisions, H hidden units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from .base import require, require_count

State: TypeAlias = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class ControllerConfig:
    """Sizes of a controller; the defaults are Zoph & Le 2017.

    Attributes:
        layers: stacked LSTM layers.
        hidden: units H of each.
        init_range: all weights start uniform within plus or minus this.
        temperature: logits are divided by it.
        tanh_constant: if given, logits become this times their tanh, which keeps the policy from closing early.
        critic: whether a value is learned beside the policy.
    """

    layers: int = 2
    hidden: int = 35
    init_range: float = 0.08
    temperature: float = 1.0
    tanh_constant: float | None = None
    critic: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidArgument: a value outside its range.
        """
        require_count("layers", self.layers)
        require_count("hidden", self.hidden)
        require(self.init_range > 0, "init_range", self.init_range, "positive")
        require(self.temperature > 0, "temperature", self.temperature, "positive")
        fits = self.tanh_constant is None or self.tanh_constant > 0
        require(fits, "tanh_constant", self.tanh_constant, "positive or None")


class Controller(nn.Module):
    """An LSTM that is fed its own last decision and has one softmax head per kind of decision."""

    def __init__(self, choices: int, kinds: int, config: ControllerConfig, generator: torch.Generator) -> None:
        """Create the network.

        Args:
            choices: C.
            kinds: D.
            config: sizes.
            generator: of the initial weights.
        """
        super().__init__()
        self.choices = choices
        self.config = config
        self.embedding = nn.Embedding(kinds * choices + 1, config.hidden)
        self.lstm = nn.LSTM(config.hidden, config.hidden, config.layers, batch_first=True)
        self.heads = nn.Parameter(torch.empty(kinds, config.hidden, choices))
        self.biases = nn.Parameter(torch.empty(kinds, choices))
        self.critic = nn.Linear(config.hidden, 1) if config.critic else None
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-config.init_range, config.init_range, generator=generator)

    def tokens(self, actions: Tensor, kinds: Tensor) -> Tensor:
        """Return the input that follows each decision, int64 of the same shape; 0 is the start."""
        return kinds * self.choices + actions + 1

    def step(
        self, tokens: Tensor, kinds: Tensor, masks: Tensor, state: State | None
    ) -> tuple[Tensor, Tensor | None, State]:
        """Decide once.

        Args:
            tokens: what was decided last, int64 [B].
            kinds: kind of the decision that is due, int64 [B].
            masks: legal choices, bool [B, C].
            state: of the LSTM, None at the start.

        Returns:
            Logits with illegal choices at minus infinity [B, C], values [B] or None, and the next state.
        """
        hidden, following = self.lstm(self.embedding(tokens)[:, None], state)
        logits, values = self._outputs(hidden, kinds[:, None], masks[:, None])
        return logits[:, 0], None if values is None else values[:, 0], following

    def evaluate(
        self, actions: Tensor, kinds: Tensor, masks: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Score given decisions, teacher-forced.

        Args:
            actions: int64 [B, T].
            kinds: int64 [B, T].
            masks: legal choices, bool [B, T, C].
            lengths: decisions of each episode, int64 [B]; everything beyond is 0 in the result.

        Returns:
            Log-probabilities, entropies and values (or None), each [B, T].
        """
        previous = self.tokens(actions, kinds)[:, :-1]
        start = torch.zeros_like(actions[:, :1])
        hidden, _ = self.lstm(self.embedding(torch.cat([start, previous], dim=1)))
        logits, values = self._outputs(hidden, kinds, masks)
        log_policy = logits.log_softmax(-1)
        chosen = log_policy.gather(-1, actions[..., None])[..., 0]
        entropies = -(log_policy.exp() * log_policy.masked_fill(~masks, 0.0)).sum(-1)
        inside = torch.arange(actions.shape[1]) < lengths[:, None]
        outside = ~inside
        log_probs = chosen.masked_fill(outside, 0.0)
        return (
            log_probs,
            entropies.masked_fill(outside, 0.0),
            None if values is None else values.masked_fill(outside, 0),
        )

    def _outputs(self, hidden: Tensor, kinds: Tensor, masks: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return masked logits [B, T, C] and values [B, T] of hidden states [B, T, H]."""
        logits = torch.einsum("bth,bthc->btc", hidden, self.heads[kinds]) + self.biases[kinds]
        logits = logits / self.config.temperature
        if self.config.tanh_constant is not None:
            logits = self.config.tanh_constant * torch.tanh(logits)
        values = None if self.critic is None else self.critic(hidden)[..., 0]
        return logits.masked_fill(~masks, -torch.inf), values
