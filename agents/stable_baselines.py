"""Algorithms of Stable-Baselines3 and sb3-contrib as agents: fitted to the budget, counted and recorded as ours are.

Sources: Raffin et al.: Stable-Baselines3, JMLR 2021; PPO: Schulman et al. 2017, arXiv 1707.06347; A2C: Mnih et al.,
2016, arXiv 1602.01783; DQN: Mnih et al. 2015; MaskablePPO: Huang & Ontanon 2022, arXiv 2006.14171.

Dimension letters: M finished episodes, T decisions, C choices.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from nas_gym.envs.core.base import Answered
from nas_gym.errors import BudgetExhausted, InvalidArgument, MissingExtra
from nas_gym.registry import resolve
from nas_gym.search_spaces.core import Encoding, SearchSpace

from .core.base import Agent, Envs, EpisodeBatch, require, require_count
from .core.runner import Evaluated, FirstSeen, RunResult, Sink
from .core.threads import one_thread

try:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.callbacks import BaseCallback

    from nas_gym.wrappers.sb3 import SB3VecEnv
except ImportError as error:
    raise MissingExtra("the agents of Stable-Baselines3", "agents", error) from error

_FREE_EPISODES = 10_000
_ROUNDS = {"ppo": 10, "a2c": 50, "dqn": 10}
"""Into how many parts the search is divided by default: rollouts between two updates; for DQN the first is random."""

_MINIBATCHES = 4
MASKED_ACTIONS = ("resample", "terminate")


@dataclass(frozen=True)
class StableBaselinesConfig:
    """Settings that all of them have; what is None is fitted to the budget or left to Stable-Baselines3.

    Attributes:
        num_envs: sub-environments.
        masked_actions: what a masked action does, for algorithms that know no masks: "resample" draws a legal one in
            its place, "terminate" ends the episode with the failure reward.
        learning_rate: of the optimiser.
        gamma: discount.
        net_arch: hidden layers.
        tensorboard: directory of logs for TensorBoard.
        device: "cpu", "cuda", "auto".
        settings: further arguments of the algorithm's constructor, by name.
    """

    num_envs: int = 8
    masked_actions: str = "resample"
    learning_rate: float | None = None
    gamma: float = 1.0
    net_arch: tuple[int, ...] = (64, 64)
    tensorboard: str | None = None
    device: str = "cpu"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidArgument: a value outside its range.
        """
        require_count("num_envs", self.num_envs)
        allowed = f"one of {', '.join(MASKED_ACTIONS)}"
        require(self.masked_actions in MASKED_ACTIONS, "masked_actions", self.masked_actions, allowed)
        require(self.learning_rate is None or self.learning_rate > 0, "learning_rate", self.learning_rate, "positive")
        require(0 <= self.gamma <= 1, "gamma", self.gamma, "between 0 and 1")
        layers = isinstance(self.net_arch, (list, tuple)) and all(isinstance(n, int) and n > 0 for n in self.net_arch)
        require(layers, "net_arch", self.net_arch, "a list of positive integers")
        require(isinstance(self.settings, Mapping), "settings", self.settings, "a mapping")


@dataclass(frozen=True)
class OnPolicyConfig(StableBaselinesConfig):
    """Settings of A2C.

    Attributes:
        n_steps: steps of every sub-environment between two updates; None = a fiftieth of the search, PPO a tenth.
        ent_coef: weight of the entropy bonus.
    """

    n_steps: int | None = None
    ent_coef: float = 0.01

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        require(self.n_steps is None or self.n_steps >= 1, "n_steps", self.n_steps, "at least 1 or None")
        require(self.ent_coef >= 0, "ent_coef", self.ent_coef, "at least 0")


@dataclass(frozen=True)
class PPOConfig(OnPolicyConfig):
    """Settings of PPO and MaskablePPO.

    Attributes:
        batch_size: steps of a minibatch; None = a quarter of those between two updates.
        n_epochs: passes over them.
    """

    learning_rate: float | None = 1e-3
    batch_size: int | None = None
    n_epochs: int = 10


@dataclass(frozen=True)
class DQNConfig(StableBaselinesConfig):
    """Settings of DQN and MaskedDQN.

    Attributes:
        learning_starts: steps before the first update; None = a tenth of the search.
        batch_size: transitions of an update.
        train_freq: steps of every sub-environment between two rounds of updates.
        gradient_steps: updates of a round.
        exploration_fraction: share of the search over which epsilon falls from 1.
        exploration_final_eps: epsilon after that.
        target_update_interval: steps between two copies to the target network; None = a fiftieth of the search.
    """

    learning_rate: float | None = 1e-3
    learning_starts: int | None = None
    batch_size: int = 64
    train_freq: int = 1
    gradient_steps: int = 4
    exploration_fraction: float = 0.5
    exploration_final_eps: float = 0.05
    target_update_interval: int | None = None


@dataclass(frozen=True)
class Plan:
    """How long a search will be.

    Attributes:
        steps: environment steps expected, over all sub-environments.
        num_envs: sub-environments.
    """

    steps: int
    num_envs: int

    @classmethod
    def of(cls, envs: Any, budget: int, rng: np.random.Generator) -> Plan:  # noqa: ANN401 - a vector environment
        """Expect as many steps as the environment does for so many queries."""
        return cls(max(round(envs.expected_steps(budget, rng)), 1), envs.num_envs)


def on_policy_settings(config: OnPolicyConfig, plan: Plan, rounds: int = _ROUNDS["a2c"]) -> dict[str, Any]:
    """Return arguments of A2C.

    Args:
        config: of the agent.
        plan: how long the search will be.
        rounds: updates that the search is to have by default.

    Raises:
        InvalidArgument: with these `n_steps` the search would end before the first update.
    """
    fitted = max(plan.steps // (rounds * plan.num_envs), 1)
    n_steps = fitted if config.n_steps is None else config.n_steps
    if n_steps * plan.num_envs > plan.steps:
        raise InvalidArgument(
            f"n_steps = {n_steps} with {plan.num_envs} environments means one update in {n_steps * plan.num_envs} "
            f"steps, but the whole budget is about {plan.steps}: nothing would be learnt. Choose n_steps of at most "
            f"{fitted}, fewer num_envs, or a larger budget."
        )
    return {"n_steps": n_steps, "ent_coef": config.ent_coef}


def ppo_settings(config: PPOConfig, plan: Plan) -> dict[str, Any]:
    """Return arguments of PPO and MaskablePPO; minibatches divide the steps between two updates."""
    settings = on_policy_settings(config, plan, _ROUNDS["ppo"])
    # PPO needs two steps at least, and SB3 warns where the last minibatch is smaller.
    settings["n_steps"] = max(settings["n_steps"], 1 if plan.num_envs > 1 else 2)
    steps = settings["n_steps"] * plan.num_envs
    divisors = [size for size in range(2, steps + 1) if steps % size == 0 and size * _MINIBATCHES >= steps]
    batch_size = config.batch_size or (divisors[0] if divisors else steps)
    return {**settings, "batch_size": batch_size, "n_epochs": config.n_epochs}


def dqn_settings(config: DQNConfig, plan: Plan) -> dict[str, Any]:
    """Return arguments of DQN and MaskedDQN.

    Raises:
        InvalidArgument: with these `learning_starts` the search would end before the first update.
    """
    starts = plan.steps // _ROUNDS["dqn"] if config.learning_starts is None else config.learning_starts
    if starts >= plan.steps:
        raise InvalidArgument(
            f"learning_starts = {starts}, but the whole budget is about {plan.steps} steps: nothing would be learnt. "
            "Choose a smaller learning_starts or a larger budget."
        )
    return {
        "learning_starts": starts,
        "batch_size": config.batch_size,
        "train_freq": config.train_freq,
        "gradient_steps": config.gradient_steps,
        "exploration_fraction": config.exploration_fraction,
        "exploration_final_eps": config.exploration_final_eps,
        # SB3 warns where it is below one step of all environments.
        "target_update_interval": config.target_update_interval or max(plan.steps // 50, plan.num_envs),
        "buffer_size": max(min(2 * plan.steps, 1_000_000), plan.num_envs),
    }


class StableBaselines(Agent):
    """What the algorithms share: the fitted model, the loop until the budget is used, what is told to sinks."""

    drives_itself = True
    knows_masks: ClassVar[bool] = False

    def __init__(self, envs: Envs, seed: int, config: Any) -> None:  # noqa: ANN401 - an instance of Config
        """Remember the parts; the model is made when the budget is known."""
        super().__init__(envs, seed, config)
        self.seed = seed
        self.model: BaseAlgorithm | None = None
        self._parameters: Mapping[str, Any] | None = None

    def make_model(self, vec_env: SB3VecEnv, common: dict[str, Any], plan: Plan) -> BaseAlgorithm:
        """Return the algorithm on an environment.

        Args:
            vec_env: the environment.
            common: arguments that all algorithms take.
            plan: how long the search will be.
        """
        raise NotImplementedError

    @one_thread()
    def drive(
        self,
        envs: Any,  # noqa: ANN401 - a vector environment of nas-gym
        budget: int,
        seed: int,
        sinks: Sequence[Sink],
        max_seconds: float | None,
    ) -> RunResult:
        """Learn until exactly `budget` queries are used.

        Raises:
            InvalidArgument: a setting that the algorithm refuses, or one that leaves it without an update.
        """
        envs.counter.budget = budget
        envs.counter.reset()
        vec_env = SB3VecEnv(self._wrapped(envs))
        plan = Plan.of(envs, budget, self.rng)
        model = self.model = self._fitted(vec_env, plan, seed)
        reporter = _Reporter(envs, sinks, max_seconds)
        # Told by the environment itself, the reporter misses no query, not even those before an error.
        envs.problem.listeners.append(reporter.on_queries)
        try:
            while reporter.reason is None:
                model.learn(plan.steps, callback=reporter, reset_num_timesteps=False)
        except BudgetExhausted:
            pass
        finally:
            envs.problem.listeners.remove(reporter.on_queries)
        updates = int(getattr(model, "_n_updates", 0))
        for sink in sinks:
            sink.on_learned({"updates": float(updates)})
        reason = reporter.reason or "budget"
        if updates == 0 and reason == "budget":
            raise InvalidArgument(
                f"the budget of {budget} queries was used before {type(self).__name__} made its first update: it "
                "learnt nothing. Choose smaller n_steps (PPO, A2C) or learning_starts (DQN), or a larger budget."
            )
        return RunResult(reason, envs.counter.usage(), updates)

    def _wrapped(self, envs: Any) -> Any:  # noqa: ANN401 - a vector environment
        """Return the environments with what masked actions are to do."""
        if self.knows_masks or self.config.masked_actions != "resample":
            return envs
        from nas_gym.wrappers.action import VectorResampleMasked

        return VectorResampleMasked(envs)

    def _fitted(self, vec_env: SB3VecEnv, plan: Plan, seed: int) -> BaseAlgorithm:
        config = self.config
        common: dict[str, Any] = {
            "gamma": config.gamma,
            "policy_kwargs": {"net_arch": list(config.net_arch)},
            "tensorboard_log": config.tensorboard,
            "device": config.device,
            "seed": (self.seed * 1_000_003 + seed) % 2**31,
        }
        if config.learning_rate is not None:
            common["learning_rate"] = config.learning_rate
        try:
            model = self.make_model(vec_env, {**common, **config.settings}, plan)
        except TypeError as error:
            raise InvalidArgument(
                f"{type(self).__name__} refuses the settings {dict(config.settings)}: {error}."
            ) from error
        if self._parameters is not None:
            model.set_parameters(dict(self._parameters), device=config.device)
        return model

    # --- what other agents do step by step ---------------------------------------------------------

    def begin(self, num_envs: int) -> int:
        """Refuse: the loop is the library's own."""
        raise NotImplementedError(f"{type(self).__name__} drives the environments itself; use nas_agents.run.")

    def act(self, observations: Any, masks: Any, alive: Any) -> Any:  # noqa: ANN401
        """Return actions of the policy as it is, sampled as while learning."""
        if self.model is None:
            raise InvalidArgument(f"{type(self).__name__} has no policy before it has searched.")
        masked = {"action_masks": masks} if self.knows_masks else {}
        actions, _ = self.model.predict(observations, deterministic=False, **masked)
        if not self.knows_masks:
            legal = masks[np.arange(len(actions)), actions]
            drawn = [int(self.rng.choice(np.flatnonzero(mask))) for mask in masks]
            actions = np.where(legal, actions, drawn)
        return actions

    def learn(self, batch: EpisodeBatch) -> dict[str, float]:
        """Refuse: the loop is the library's own."""
        raise NotImplementedError(f"{type(self).__name__} drives the environments itself; use nas_agents.run.")

    def state_dict(self) -> dict[str, Any]:
        """Return generator and parameters; the replay buffer and the state of the library's loop are not part of it."""
        parameters = self._parameters if self.model is None else self.model.get_parameters()
        return {**super().state_dict(), "parameters": parameters}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the parameters of a value of `state_dict`."""
        super().load_state_dict(state)
        self._parameters = state["parameters"]


class PPO(StableBaselines):
    """PPO of Stable-Baselines3, with `n_steps` and `batch_size` fitted to the budget."""

    Config: ClassVar[type[PPOConfig]] = PPOConfig

    def make_model(self, vec_env: SB3VecEnv, common: dict[str, Any], plan: Plan) -> BaseAlgorithm:
        """Return PPO."""
        return resolve("stable_baselines3:PPO")("MlpPolicy", vec_env, **{**ppo_settings(self.config, plan), **common})


class A2C(StableBaselines):
    """A2C of Stable-Baselines3, with `n_steps` fitted to the budget."""

    Config: ClassVar[type[OnPolicyConfig]] = OnPolicyConfig

    def make_model(self, vec_env: SB3VecEnv, common: dict[str, Any], plan: Plan) -> BaseAlgorithm:
        """Return A2C."""
        return resolve("stable_baselines3:A2C")(
            "MlpPolicy", vec_env, **{**on_policy_settings(self.config, plan), **common}
        )


class DQN(StableBaselines):
    """DQN of Stable-Baselines3, with buffer, exploration and target updates fitted to the budget."""

    Config: ClassVar[type[DQNConfig]] = DQNConfig

    def make_model(self, vec_env: SB3VecEnv, common: dict[str, Any], plan: Plan) -> BaseAlgorithm:
        """Return DQN."""
        return resolve("stable_baselines3:DQN")("MlpPolicy", vec_env, **{**dqn_settings(self.config, plan), **common})


class MaskablePPO(StableBaselines):
    """MaskablePPO of sb3-contrib, with `n_steps` and `batch_size` fitted to the budget."""

    Config: ClassVar[type[PPOConfig]] = PPOConfig
    knows_masks = True

    def make_model(self, vec_env: SB3VecEnv, common: dict[str, Any], plan: Plan) -> BaseAlgorithm:
        """Return MaskablePPO."""
        return resolve("sb3_contrib:MaskablePPO")("MlpPolicy", vec_env, **{**ppo_settings(self.config, plan), **common})


class MaskedDQN(StableBaselines):
    """DQN that neither takes nor believes in illegal actions, fitted as `DQN`."""

    Config: ClassVar[type[DQNConfig]] = DQNConfig
    knows_masks = True

    def make_model(self, vec_env: SB3VecEnv, common: dict[str, Any], plan: Plan) -> BaseAlgorithm:
        """Return MaskedDQN."""
        return resolve("nas_agents.masked_dqn:MaskedDQN")(
            "MlpPolicy", vec_env, **{**dqn_settings(self.config, plan), **common}
        )


class _Reporter(BaseCallback):
    """Tells the sinks about every query, and ends the learning."""

    def __init__(self, envs: Any, sinks: Sequence[Sink], max_seconds: float | None) -> None:  # noqa: ANN401
        super().__init__()
        self.envs = envs
        self.sinks = sinks
        self.max_seconds = max_seconds
        self.reason: str | None = None
        self.first_seen = FirstSeen(envs.space)
        self.free_episodes = 0
        self._queries = 0
        self._began = time.perf_counter()

    def _on_step(self) -> bool:
        counter = self.envs.counter
        ended = int(np.count_nonzero(self.locals["dones"]))
        self.free_episodes = 0 if counter.queries > self._queries else self.free_episodes + ended
        self._queries = counter.queries
        if counter.queries >= counter.budget:
            self.reason = "budget"
        elif any(sink.wants_stop for sink in self.sinks):
            self.reason = "interrupted"
        elif self.max_seconds is not None and time.perf_counter() - self._began >= self.max_seconds:
            self.reason = "time"
        elif self.free_episodes >= _FREE_EPISODES:
            self.reason = "stalled"
        return self.reason is None

    def on_queries(self, answered: Answered) -> None:
        """Tell the sinks about queries, at once, whatever happens to the learning."""
        encodings = [tuple(encoding) for encoding in answered.encodings]
        status = [str(label) for label in answered.status]
        seen = [self.first_seen(encoding, label) for encoding, label in zip(encodings, status, strict=True)]
        batch = episodes_of(self.envs.space, encodings, answered.rewards.tolist(), status, seen)
        messages = tuple(answered.messages.get(row, "") for row in range(len(encodings)))
        usage = self.envs.counter.usage()
        evaluated = Evaluated(batch, dict(answered.metrics), answered.cost_seconds, usage, messages)
        for sink in self.sinks:
            sink.on_episodes(evaluated)


def episodes_of(
    space: SearchSpace,
    encodings: Sequence[Encoding],
    returns: Sequence[float],
    status: Sequence[str],
    first_seen: Sequence[bool],
) -> EpisodeBatch:
    """Return finished episodes by what they built, M of them; observations are those of the space."""
    count, longest = len(encodings), max(len(encoding) for encoding in encodings) or 1
    actions = np.zeros((count, longest), np.int64)
    masks = np.ones((count, longest, space.max_choices), np.bool_)
    rewards = np.zeros((count, longest))
    observations = []
    for row, (encoding, value) in enumerate(zip(encodings, returns, strict=True)):
        actions[row, : len(encoding)] = encoding
        for position in range(len(encoding)):
            masks[row, position] = space.junction(encoding[:position]).mask
        rewards[row, max(len(encoding) - 1, 0)] = value
        prefixes = [encoding[: min(position, len(encoding))] for position in range(longest)]
        observations.append(space.observe(*space.pack(prefixes)))
    return EpisodeBatch(
        observations=np.stack(observations),
        actions=actions,
        masks=masks,
        rewards=rewards,
        lengths=np.array([len(encoding) for encoding in encodings], np.int64),
        encodings=tuple(encodings),
        status=tuple(status),
        first_seen=np.array(first_seen, np.bool_),
    )
