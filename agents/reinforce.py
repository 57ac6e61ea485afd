"""REINFORCE with a recurrent controller: NAS with reinforcement learning.

Source: Zoph & Le: Neural Architecture Search with Reinforcement Learning, ICLR 2017, arXiv 1611.01578, sections 3.2
and 4.1.

Dimension letters: B episodes, T decisions, C choices.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from nas_gym.search_spaces.core import Encoding

from .core.base import Agent, Envs, EpisodeBatch, require, require_count
from .core.baselines import MovingAverage
from .core.controller import Controller, ControllerConfig, State
from .core.returns import returns_to_go
from .core.threads import one_thread


@dataclass(frozen=True)
class ReinforceConfig:
    """Settings of `Reinforce`; the defaults are for budgets of about 1,000 queries.

    Learning rate and entropy weight are the best of {0.003, 0.01, 0.03} x {0.01, 0.05, 0.1} (tied with 0.01, 0.05) by
    the mean of the last 200 of 1,000 rewards on three synthetic landscapes of `NAS-Cell-v0` (evaluation seeds 100 to
    102). The other fields were not tuned.

    Attributes:
        controller: sizes of the policy.
        batch_size: episodes per update.
        learning_rate: of Adam.
        baseline_decay: weight of the past in the moving average of returns.
        entropy_weight: bonus for the entropy of the policy, per decision.
        normalise: whether advantages are divided by the moving deviation of the returns.
        gradient_clip: largest norm of the gradient, None = unlimited.
    """

    controller: ControllerConfig = field(default_factory=lambda: ControllerConfig(layers=1, hidden=64))
    batch_size: int = 8
    learning_rate: float = 0.01
    baseline_decay: float = 0.9
    entropy_weight: float = 0.01
    normalise: bool = True
    gradient_clip: float | None = 1.0

    def __post_init__(self) -> None:
        """Check the values; a mapping given for `controller` becomes a `ControllerConfig`.

        Raises:
            InvalidArgument: a value outside its range.
        """
        if isinstance(self.controller, Mapping):
            object.__setattr__(self, "controller", ControllerConfig(**self.controller))
        require_count("batch_size", self.batch_size)
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "positive")
        require(0 <= self.baseline_decay < 1, "baseline_decay", self.baseline_decay, "at least 0 and below 1")
        require(self.entropy_weight >= 0, "entropy_weight", self.entropy_weight, "at least 0")
        fits = self.gradient_clip is None or self.gradient_clip > 0
        require(fits, "gradient_clip", self.gradient_clip, "positive or None")


class Reinforce(Agent):
    """Policy gradient on whole episodes: the gradient of sum_t log P(a_t) (R - b), averaged over a batch.

    Preset ``zoph2017``: controller, initialisation, learning rate and batch of the paper's CIFAR-10 search, no
    entropy bonus, no clipping. Its moving average's decay (0.95) is not stated in the paper, and it averages eight
    children in one process instead of 100 asynchronous replicas.
    """

    Config: ClassVar[type[ReinforceConfig]] = ReinforceConfig
    presets: ClassVar[Mapping[str, ReinforceConfig]] = MappingProxyType(
        {
            "zoph2017": ReinforceConfig(
                controller=ControllerConfig(),
                batch_size=8,
                learning_rate=6e-4,
                baseline_decay=0.95,
                entropy_weight=0.0,
                normalise=False,
                gradient_clip=None,
            )
        }
    )

    def __init__(self, envs: Envs, seed: int, config: ReinforceConfig) -> None:
        """Create the controller."""
        super().__init__(envs, seed, config)
        self.generator = torch.Generator().manual_seed(seed)
        self.controller = Controller(self.space.max_choices, self.space.kinds, config.controller, self.generator)
        self.optimiser = torch.optim.Adam(self.controller.parameters(), lr=config.learning_rate)
        self.baseline = MovingAverage(config.baseline_decay)
        self._prefixes: list[Encoding] = []
        self._tokens = torch.zeros(0, dtype=torch.int64)
        self._state: State | None = None

    def begin(self, num_envs: int) -> int:
        """Start a batch of episodes with an empty memory."""
        self._prefixes = [()] * num_envs
        self._tokens = torch.zeros(num_envs, dtype=torch.int64)
        self._state = None
        return num_envs

    @torch.no_grad()
    @one_thread()
    def act(
        self, observations: npt.NDArray[Any], masks: npt.NDArray[np.bool_], alive: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int64]:
        """Sample one action per row from the controller."""
        kinds = torch.tensor([self.space.junction(prefix).kind for prefix in self._prefixes])
        logits, _, self._state = self.controller.step(self._tokens, kinds, torch.from_numpy(masks), self._state)
        actions = torch.multinomial(logits.softmax(-1), 1, generator=self.generator)[:, 0]
        self._tokens = self.controller.tokens(actions, kinds)
        for row in np.flatnonzero(alive).tolist():
            self._prefixes[row] = (*self._prefixes[row], int(actions[row]))
        return actions.numpy()

    @one_thread()
    def learn(self, batch: EpisodeBatch) -> dict[str, float]:
        """Take one step along the policy gradient."""
        returns = batch.returns
        advantages = returns_to_go(batch.rewards) - self.baseline.mean(returns)
        if self.config.normalise:
            advantages = advantages / (self.baseline.deviation(returns) + 1e-8)
        self.baseline.update(returns)
        log_probs, entropies, _ = self.controller.evaluate(
            torch.from_numpy(batch.actions),
            torch.tensor(self._kinds(batch)),
            torch.from_numpy(batch.masks),
            torch.from_numpy(batch.lengths),
        )
        gain = (log_probs * torch.from_numpy(advantages).float()).sum(1).mean()
        entropy = entropies.sum() / float(batch.lengths.sum())
        loss = -gain - self.config.entropy_weight * entropy
        self.optimiser.zero_grad()
        loss.backward()
        if self.config.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.controller.parameters(), self.config.gradient_clip)
        self.optimiser.step()
        return {"loss": float(loss.detach()), "entropy": float(entropy.detach()), "return_mean": float(returns.mean())}

    def _kinds(self, batch: EpisodeBatch) -> list[list[int]]:
        """Return the kind of every decision, [B, T]; 0 beyond the end."""
        longest = batch.actions.shape[1]
        kinds = []
        for actions, length in zip(batch.actions.tolist(), batch.lengths.tolist(), strict=True):
            own = [self.space.junction(tuple(actions[:position])).kind for position in range(length)]
            kinds.append(own + [0] * (longest - length))
        return kinds

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of weights, optimiser, baseline and generators."""
        return {
            **super().state_dict(),
            "controller": copy.deepcopy(self.controller.state_dict()),
            "optimiser": copy.deepcopy(self.optimiser.state_dict()),
            "baseline": self.baseline.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a value of `state_dict`."""
        super().load_state_dict(state)
        self.controller.load_state_dict(state["controller"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.baseline.load_state_dict(state["baseline"])
        self.generator.set_state(state["generator"])
