"""The meta-controller of EAS: an encoder of the network as it is, and one actor per kind of decision on top of it.

Source: Cai, Chen, Zhang, Yu & Wang, Efficient Architecture Search by Network Transformation, AAAI 2018, arXiv
1707.04873, and the code released with it.

Dimension letters: B episodes, T decisions, M decisions of all episodes, K features, C choices, D kinds, W width of an
encoding.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nas_gym.search_spaces.core import Encoding

from .core.base import Agent, Envs, EpisodeBatch, require, require_count
from .core.encoders import EncoderConfig, TokenEncoder
from .core.threads import one_thread


@dataclass(frozen=True)
class EASConfig:
    """Settings of `EAS`; the defaults are for budgets of hundreds of queries.

    Learning rate, entropy weight, scaling and clipping are near those of `Reinforce` and were not tuned; all others are
    those of the released code.

    Attributes:
        encoder: sizes of the encoder.
        batch_size: episodes per update.
        learning_rate: of Adam.
        baseline_step: weight of the newest batch in the baseline, which it enters before it is subtracted.
        entropy_weight: bonus for the entropy of the policy, per decision.
        normalise: whether advantages are divided by the deviation of the batch's returns.
        gradient_clip: largest norm of the gradient, None = unlimited.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    batch_size: int = 10
    learning_rate: float = 0.01
    baseline_step: float = 0.95
    entropy_weight: float = 0.01
    normalise: bool = True
    gradient_clip: float | None = 1.0

    def __post_init__(self) -> None:
        """Check the values; a mapping given for `encoder` becomes an `EncoderConfig`.

        Raises:
            InvalidArgument: a value outside its range.
        """
        if isinstance(self.encoder, Mapping):
            object.__setattr__(self, "encoder", EncoderConfig(**self.encoder))
        require_count("batch_size", self.batch_size)
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "positive")
        require(0 < self.baseline_step <= 1, "baseline_step", self.baseline_step, "above 0 and at most 1")
        require(self.entropy_weight >= 0, "entropy_weight", self.entropy_weight, "at least 0")
        fits = self.gradient_clip is None or self.gradient_clip > 0
        require(fits, "gradient_clip", self.gradient_clip, "positive or None")


class Actors(nn.Module):
    """An encoder of the observation that all actors share, and a linear layer per kind of decision."""

    def __init__(
        self, values: Sequence[int], choices: int, kinds: int, config: EncoderConfig, generator: torch.Generator
    ) -> None:
        """Create the network.

        Args:
            values: number of values of each of the K features.
            choices: C.
            kinds: D.
            config: sizes of the encoder.
            generator: of the initial weights.
        """
        super().__init__()
        self.encoder = TokenEncoder(values, config, generator)
        self.heads = nn.Parameter(torch.empty(kinds, config.width, choices))
        self.biases = nn.Parameter(torch.zeros(kinds, choices))
        bound = 1 / math.sqrt(config.width)
        with torch.no_grad():
            self.heads.uniform_(-bound, bound, generator=generator)

    def forward(self, observations: Tensor, focus: Tensor, kinds: Tensor, masks: Tensor) -> Tensor:
        """Return the logarithms of the policies.

        Args:
            observations: int64 [M, K].
            focus: feature that a decision is about, -1 = all of them, int64 [M].
            kinds: kind of the decision, int64 [M].
            masks: legal choices, bool [M, C].

        Returns:
            float32 [M, C], minus infinity where a choice is illegal.
        """
        encodings, whole = self.encoder(observations)
        about = encodings[torch.arange(len(focus)), focus.clamp(min=0)]
        seen = torch.where(focus[:, None] >= 0, about, whole)
        logits = torch.einsum("mw,mwc->mc", seen, self.heads[kinds]) + self.biases[kinds]
        return logits.masked_fill(~masks, -torch.inf).log_softmax(-1)


class EAS(Agent):
    """REINFORCE on what the network looks like before every decision.

    Every decision is read from the search space's `observe`, in which each feature is a token, whatever the
    environment shows. A decision about one of them (`focus` of the space: the layer that may grow) is taken on the
    encoding of that token, every other one on the encoding of the whole. Spaces without `focus` have decisions of the
    latter sort only, so that the agent works on any space.

    The objective is the sum over decisions of log P(a_t) (R - b), averaged over the batch, plus the entropy. The
    baseline begins with 0 and moves almost all the way to the mean of the newest batch before it is subtracted, as in
    the released code; the usual moving average would do the opposite.

    Preset ``eas2018``: learning rate, entropy weight and unscaled rewards of the released code. Deviations: there, an
    LSTM decodes block, position and kernel one after the other from the last state of the encoder; here the encoder
    reads the decisions taken so far with the network. Bits of a wider step are decided one after the other.
    """

    Config: ClassVar[type[EASConfig]] = EASConfig
    presets: ClassVar[Mapping[str, EASConfig]] = MappingProxyType(
        {"eas2018": EASConfig(learning_rate=2e-3, entropy_weight=1e-5, normalise=False, gradient_clip=None)}
    )

    def __init__(self, envs: Envs, seed: int, config: EASConfig) -> None:
        """Create the actors."""
        super().__init__(envs, seed, config)
        self.generator = torch.Generator().manual_seed(seed)
        values = self.space.observation_nvec.tolist()
        self.actors = Actors(values, self.space.max_choices, self.space.kinds, config.encoder, self.generator)
        self.optimiser = torch.optim.Adam(self.actors.parameters(), lr=config.learning_rate)
        self.baseline = 0.0
        self._prefixes: list[Encoding] = []

    def begin(self, num_envs: int) -> int:
        """Start a batch of episodes."""
        self._prefixes = [()] * num_envs
        return num_envs

    @torch.no_grad()
    @one_thread()
    def act(
        self, observations: npt.NDArray[Any], masks: npt.NDArray[np.bool_], alive: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int64]:
        """Sample one action per row."""
        policies = self._log_policies(self._prefixes, torch.from_numpy(masks))
        actions = torch.multinomial(policies.exp(), 1, generator=self.generator)[:, 0].numpy()
        for row in np.flatnonzero(alive).tolist():
            self._prefixes[row] = (*self._prefixes[row], int(actions[row]))
        return actions

    @one_thread()
    def learn(self, batch: EpisodeBatch) -> dict[str, float]:
        """Take one step along the policy gradient."""
        returns = batch.returns
        self.baseline += self.config.baseline_step * (float(returns.mean()) - self.baseline)
        advantages = returns - self.baseline
        if self.config.normalise:
            advantages = advantages / (returns.std() + 1e-8)
        rows, steps = np.nonzero(np.arange(batch.actions.shape[1]) < batch.lengths[:, None])
        actions = batch.actions.tolist()
        prefixes = [tuple(actions[row][:step]) for row, step in zip(rows.tolist(), steps.tolist(), strict=True)]
        masks = torch.from_numpy(batch.masks[rows, steps])
        policies = self._log_policies(prefixes, masks)
        chosen = policies.gather(1, torch.from_numpy(batch.actions[rows, steps])[:, None])[:, 0]
        gain = (chosen * torch.from_numpy(advantages[rows]).float()).sum() / len(batch)
        entropy = -(policies.exp() * policies.masked_fill(~masks, 0.0)).sum(1).mean()
        loss = -gain - self.config.entropy_weight * entropy
        self.optimiser.zero_grad()
        loss.backward()
        if self.config.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.actors.parameters(), self.config.gradient_clip)
        self.optimiser.step()
        return {"loss": float(loss.detach()), "entropy": float(entropy.detach()), "return_mean": float(returns.mean())}

    def _log_policies(self, prefixes: Sequence[Encoding], masks: Tensor) -> Tensor:
        """Return the logarithms of the policies behind prefixes, [M, C]."""
        observations = torch.from_numpy(self.space.observe(*self.space.pack(prefixes)))
        kinds = torch.tensor([self.space.junction(prefix).kind for prefix in prefixes])
        focus = [self.space.focus(prefix) for prefix in prefixes]
        return self.actors(observations, torch.tensor([-1 if one is None else one for one in focus]), kinds, masks)

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of weights, optimiser, baseline and generators."""
        return {
            **super().state_dict(),
            "actors": copy.deepcopy(self.actors.state_dict()),
            "optimiser": copy.deepcopy(self.optimiser.state_dict()),
            "baseline": self.baseline,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a value of `state_dict`."""
        super().load_state_dict(state)
        self.actors.load_state_dict(state["actors"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.baseline = state["baseline"]
        self.generator.set_state(state["generator"])
