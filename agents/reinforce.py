"""REINFORCE with a recurrent controller, or with independent logits: NAS with reinforcement learning.

Sources: Zoph & Le: Neural Architecture Search with Reinforcement Learning, ICLR 2017, arXiv 1611.01578, sections 3.2
and 4.1; Dong et al.: NATS-Bench, TPAMI 2021, arXiv 2009.00437, and its official search script ``reinforce.py``.

Dimension letters: B episodes, T decisions, C choices.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nas_gym.search_spaces.core import Encoding, SearchSpace

from .core.base import Agent, Envs, EpisodeBatch, require, require_count
from .core.baselines import MovingAverage
from .core.controller import Controller, ControllerConfig
from .core.logits import IndependentLogits
from .core.returns import returns_to_go
from .core.threads import one_thread


@dataclass(frozen=True)
class ReinforceConfig:
    """Settings of `Reinforce`; the defaults are for budgets of about 1,000 queries.

    Learning rate and entropy weight are the best of {0.003, 0.01, 0.03} x {0.01, 0.05, 0.1} (tied with 0.01, 0.05) by
    the mean of the last 200 of 1,000 rewards on three synthetic landscapes of `NAS-Cell-v0` (evaluation seeds 100 to
    102). The other fields were not tuned.

    Attributes:
        policy: "controller", an LSTM that remembers what it decided, or "logits", independent of one another.
        controller: sizes of the LSTM.
        logits_deviation: standard deviation of the logits at the start, where the policy is "logits".
        batch_size: episodes per update.
        learning_rate: of Adam.
        baseline_decay: weight of the past in the moving average of returns.
        baseline_includes_batch: whether a batch is compared with an average that it is part of already.
        entropy_weight: bonus for the entropy of the policy, per decision.
        normalise: whether advantages are divided by the moving deviation of the returns.
        gradient_clip: largest norm of the gradient, None = unlimited.
    """

    policy: str = "controller"
    controller: ControllerConfig = field(default_factory=lambda: ControllerConfig(layers=1, hidden=64))
    logits_deviation: float = 1e-3
    batch_size: int = 8
    learning_rate: float = 0.01
    baseline_decay: float = 0.9
    baseline_includes_batch: bool = False
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
        require(self.policy in POLICIES, "policy", self.policy, f"one of {', '.join(POLICIES)}")
        require(self.logits_deviation >= 0, "logits_deviation", self.logits_deviation, "at least 0")
        require_count("batch_size", self.batch_size)
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "positive")
        require(0 <= self.baseline_decay < 1, "baseline_decay", self.baseline_decay, "at least 0 and below 1")
        includes = self.baseline_includes_batch
        require(isinstance(includes, bool), "baseline_includes_batch", includes, "true or false")
        require(self.entropy_weight >= 0, "entropy_weight", self.entropy_weight, "at least 0")
        fits = self.gradient_clip is None or self.gradient_clip > 0
        require(fits, "gradient_clip", self.gradient_clip, "positive or None")


class Policy(Protocol):
    """What decides, as `Reinforce` uses it; see `Controller` for what each method does."""

    def tokens(self, actions: Tensor, kinds: Tensor) -> Tensor:
        """Return the input that follows each decision."""
        ...

    def step(self, tokens: Tensor, kinds: Tensor, masks: Tensor, state: Any) -> tuple[Tensor, Tensor | None, Any]:  # noqa: ANN401
        """Decide once; return logits, values and the next state, which is the policy's own affair."""
        ...

    def evaluate(
        self, actions: Tensor, kinds: Tensor, masks: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return log-probabilities, entropies and values of given decisions."""
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Iterate over what is learned."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what is learned."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:  # noqa: ANN401 - torch returns what did not fit
        """Continue from a value of `state_dict`."""
        ...


def _controller(space: SearchSpace, config: ReinforceConfig, generator: torch.Generator) -> Policy:
    return Controller(space.max_choices, space.kinds, config.controller, generator)


def _logits(space: SearchSpace, config: ReinforceConfig, generator: torch.Generator) -> Policy:
    return IndependentLogits(space.max_length, space.max_choices, config.logits_deviation, generator)


POLICIES: Mapping[str, Callable[[SearchSpace, ReinforceConfig, torch.Generator], Policy]] = MappingProxyType(
    {"controller": _controller, "logits": _logits}
)
"""What makes the policy, by the name in `ReinforceConfig.policy`."""


class Reinforce(Agent):
    """Policy gradient on whole episodes: the gradient of sum_t log P(a_t) (R - b), averaged over a batch.

    Preset ``zoph2017``: controller, initialisation, learning rate and batch of the paper's CIFAR-10 search, no
    entropy bonus, no clipping. Its moving average's decay (0.95) is not stated in the paper, and it averages eight
    children in one process instead of 100 asynchronous replicas.

    Preset ``nats_bench``: the REINFORCE of NATS-Bench's official script, one update a query, with logits that start
    at 0.001 x N(0, 1) and a moving average that includes the newest return. The script's reward is in percent; Adam's
    steps do not depend on that.
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
            ),
            "nats_bench": ReinforceConfig(
                policy="logits",
                logits_deviation=1e-3,
                batch_size=1,
                learning_rate=0.01,
                baseline_decay=0.9,
                baseline_includes_batch=True,
                entropy_weight=0.0,
                normalise=False,
                gradient_clip=None,
            ),
        }
    )

    def __init__(self, envs: Envs, seed: int, config: ReinforceConfig) -> None:
        """Create the policy."""
        super().__init__(envs, seed, config)
        self.generator = torch.Generator().manual_seed(seed)
        self.controller: Policy = POLICIES[config.policy](self.space, config, self.generator)
        self.optimiser = torch.optim.Adam(self.controller.parameters(), lr=config.learning_rate)
        self.baseline = MovingAverage(config.baseline_decay)
        self._prefixes: list[Encoding] = []
        self._tokens = torch.zeros(0, dtype=torch.int64)
        self._state: Any = None

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
        """Sample one action per row from the policy."""
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
        if self.config.baseline_includes_batch:
            self.baseline.update(returns)
        advantages = returns_to_go(batch.rewards) - self.baseline.mean(returns)
        if self.config.normalise:
            advantages = advantages / (self.baseline.deviation(returns) + 1e-8)
        if not self.config.baseline_includes_batch:
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
