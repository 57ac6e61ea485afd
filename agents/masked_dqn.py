"""DQN of Stable-Baselines3 that takes and believes in legal actions only.

Source: Mnih et al.: Human-level control through deep reinforcement learning, Nature 518, 2015, as implemented by
Stable-Baselines3. Leaving illegal actions out of policy and maximum: Huang & Ontanon: A Closer Look at Invalid Action
Masking in Policy Gradient Algorithms, FLAIRS 2022, arXiv 2006.14171, which does so for policy gradients.

Dimension letters: B transitions of a minibatch, N sub-environments, C choices.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from nas_gym.errors import InvalidArgument, MissingExtra

try:
    import torch
    from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
    from stable_baselines3 import DQN
    from stable_baselines3.common.buffers import ReplayBuffer
    from stable_baselines3.common.noise import ActionNoise
    from stable_baselines3.common.type_aliases import GymEnv
    from stable_baselines3.common.vec_env import VecNormalize
except ImportError as error:
    raise MissingExtra("MaskedDQN", "agents", error) from error


class MaskedSamples(NamedTuple):
    """A minibatch.

    Attributes:
        observations: shape [B, ...].
        actions: int64 [B, 1].
        next_observations: shape [B, ...].
        dones: float32 [B, 1], 1 where the episode terminated.
        rewards: float32 [B, 1].
        next_masks: bool [B, C], actions that are legal in the next observations.
    """

    observations: torch.Tensor
    actions: torch.Tensor
    next_observations: torch.Tensor
    dones: torch.Tensor
    rewards: torch.Tensor
    next_masks: torch.Tensor


class MaskedReplayBuffer(ReplayBuffer):
    """SB3's buffer, which also stores what is legal in the next observation.

    Attributes:
        next_masks: bool [slots, N, C]; all True where nothing was stored.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
    ) -> None:
        """Create an empty buffer; the arguments are those of `ReplayBuffer`.

        Raises:
            InvalidArgument: `optimize_memory_usage`, which stores no next observations.
        """
        if optimize_memory_usage:
            raise InvalidArgument("MaskedDQN stores next observations: optimize_memory_usage must be False, got True.")
        super().__init__(
            buffer_size,
            observation_space,
            action_space,
            device,
            n_envs,
            handle_timeout_termination=handle_timeout_termination,
        )
        self.next_masks = np.ones((self.buffer_size, self.n_envs, int(action_space.n)), np.bool_)

    def put_next_masks(self, masks: npt.NDArray[np.bool_]) -> None:
        """Store the masks, bool [N, C], that belong to the transitions that the next call of `add` stores."""
        self.next_masks[self.pos] = masks

    def draw(self, batch_size: int, rng: np.random.Generator, env: VecNormalize | None = None) -> MaskedSamples:
        """Return a minibatch of transitions, each as likely as any other.

        Args:
            batch_size: B.
            rng: generator that draws.
            env: normalises observations and rewards, None = they stay as they are.
        """
        slots = rng.integers(self.size(), size=batch_size)
        columns = rng.integers(self.n_envs, size=batch_size)
        terminated = self.dones[slots, columns] * (1 - self.timeouts[slots, columns])
        arrays = (
            self._normalize_obs(self.observations[slots, columns], env),
            self.actions[slots, columns],
            self._normalize_obs(self.next_observations[slots, columns], env),
            terminated[:, None],
            self._normalize_reward(self.rewards[slots, columns, None], env),
            self.next_masks[slots, columns],
        )
        return MaskedSamples(*(torch.as_tensor(array, device=self.device) for array in arrays))


class MaskedDQN(DQN):
    """DQN for environments that offer ``action_masks``, as those of nas-gym do, alone, in `DummyVecEnv` or `SB3VecEnv`.

    It takes the arguments of SB3's `DQN`, and differs from it as follows. While it learns, actions are legal:
    those before ``learning_starts`` and those of exploration are drawn uniformly from the legal ones, the others are
    the best legal ones. The target is r + gamma max Q(s', a') over the actions a' that are legal in s', which the
    replay buffer remembers. Exploration and minibatches are drawn by an own generator, which starts from the
    algorithm's seed. ``predict(action_masks=...)`` keeps to a mask and, like that of `MaskablePPO`, to none without
    one; evaluate with ``sb3_contrib.common.maskable.evaluation.evaluate_policy``. Rewards, observations, network,
    loss, schedules, logs, saving and loading are SB3's.

    Not supported: ``n_steps`` above 1, ``optimize_memory_usage``, `Dict` observations.

    Attributes:
        rng: draws exploration and minibatches; starts anew when a model is loaded, as SB3's generators do.
    """

    rng: np.random.Generator

    def _setup_model(self) -> None:
        """Create networks and buffer.

        Raises:
            InvalidArgument: the environment offers no masks, or something that is not supported.
        """
        if self.n_steps != 1:
            raise InvalidArgument(f"MaskedDQN learns from single steps: n_steps must be 1, got {self.n_steps!r}.")
        if isinstance(self.observation_space, spaces.Dict):
            raise InvalidArgument(f"MaskedDQN takes no Dict observations, got {self.observation_space!r}.")
        if self.replay_buffer_class is None:
            self.replay_buffer_class = MaskedReplayBuffer
        if not issubclass(self.replay_buffer_class, MaskedReplayBuffer):
            raise InvalidArgument(
                f"replay_buffer_class must be None or a MaskedReplayBuffer, got {self.replay_buffer_class.__name__}."
            )
        if self.env is not None:
            self._check_masks(self.env)
        super()._setup_model()

    @staticmethod
    def _check_masks(env: GymEnv) -> None:
        if not is_masking_supported(env):
            raise InvalidArgument(
                f"MaskedDQN needs an environment with a method action_masks, which {env!r} has not; "
                "use DQN of Stable-Baselines3 where every action is legal."
            )

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Continue in another environment.

        Raises:
            InvalidArgument: the environment offers no masks.
        """
        self._check_masks(env)
        super().set_env(env, force_reset)

    def set_random_seed(self, seed: int | None = None) -> None:
        """Start all generators anew."""
        super().set_random_seed(seed)
        self.rng = np.random.default_rng(seed)

    # --- acting ------------------------------------------------------------------------------------

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return legal actions, twice: to take and to store."""
        masks = self._current_masks()
        if self.num_timesteps < learning_starts:
            actions = self._random_legal(self._checked(masks, n_envs))
        else:
            actions, _ = self.predict(self._last_obs, action_masks=masks)  # type: ignore[arg-type]
        return actions, actions

    def _current_masks(self) -> npt.NDArray[np.bool_]:
        return np.asarray(get_action_masks(self.env), np.bool_)  # type: ignore[arg-type]

    def _random_legal(self, masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Draw one legal action per row, uniformly."""
        return np.where(masks, self.rng.random(masks.shape), -1.0).argmax(axis=1)

    def _checked(self, masks: npt.ArrayLike | None, count: int) -> npt.NDArray[np.bool_]:
        """Return masks as bool [count, C].

        Raises:
            InvalidArgument: another shape, or nothing is legal.
        """
        choices = int(self.action_space.n)  # type: ignore[attr-defined]
        if masks is None:
            return np.ones((count, choices), np.bool_)
        found = np.asarray(masks, np.bool_)
        if found.shape not in ((count, choices), (choices,)) or (found.ndim == 1 and count != 1):
            raise InvalidArgument(f"action_masks must have the shape {(count, choices)}, got {found.shape}.")
        found = found.reshape(count, choices)
        if not found.any(axis=1).all():
            raise InvalidArgument("action_masks must leave at least one action legal in every row.")
        return found

    def predict(
        self,
        observation: npt.NDArray[Any] | dict[str, npt.NDArray[Any]],
        state: tuple[npt.NDArray[Any], ...] | None = None,
        episode_start: npt.NDArray[Any] | None = None,
        deterministic: bool = False,
        action_masks: npt.ArrayLike | None = None,
    ) -> tuple[npt.NDArray[Any], tuple[npt.NDArray[Any], ...] | None]:
        """Return legal actions: the best, or with the probability of exploration random ones for the whole batch.

        Args:
            observation: one observation or a batch.
            state: returned as it is.
            episode_start: ignored.
            deterministic: whether not to explore.
            action_masks: which actions are legal, shape [C] or [N, C]; None = all.

        Raises:
            InvalidArgument: masks of another shape, or in which nothing is legal.
        """
        self.policy.set_training_mode(False)
        tensor, is_batch = self.policy.obs_to_tensor(observation)
        masks = self._checked(action_masks, len(tensor))
        if not deterministic and self.rng.random() < self.exploration_rate:
            actions = self._random_legal(masks)
        else:
            with torch.no_grad():
                actions = _legal_only(self.q_net(tensor), masks).argmax(dim=1).cpu().numpy()
        return (actions if is_batch else actions.squeeze(axis=0)), state

    # --- learning ----------------------------------------------------------------------------------

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: npt.NDArray[Any],
        new_obs: npt.NDArray[Any] | dict[str, npt.NDArray[Any]],
        reward: npt.NDArray[Any],
        dones: npt.NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        """Store a transition with what is legal afterwards.

        Where an episode ended, the environment offers the masks of the next one already. What was legal at its end
        is ``info["action_mask"]``, if there is one; it matters only for episodes that were cut.
        """
        masks = self._current_masks().copy()
        for row in np.flatnonzero(dones).tolist():
            masks[row] = infos[row].get("action_mask", True)
            masks[row] |= not masks[row].any()  # The maximum over nothing would be infinite.
        self._masked_buffer(replay_buffer).put_next_masks(masks)
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)

    @staticmethod
    def _masked_buffer(buffer: ReplayBuffer | None) -> MaskedReplayBuffer:
        if not isinstance(buffer, MaskedReplayBuffer):
            raise InvalidArgument(f"the replay buffer must be a MaskedReplayBuffer, got {type(buffer).__name__}.")
        return buffer

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Take gradient steps on minibatches: as in DQN, but for the maximum over legal actions."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        buffer = self._masked_buffer(self.replay_buffer)
        losses = []
        for _ in range(gradient_steps):
            samples = buffer.draw(batch_size, self.rng, self._vec_normalize_env)
            values = self.q_net(samples.observations).gather(1, samples.actions.long())
            loss = torch.nn.functional.smooth_l1_loss(values, self._targets(samples))
            losses.append(loss.item())
            self.policy.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
            self.policy.optimizer.step()
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/loss", np.mean(losses))

    @torch.no_grad()
    def _targets(self, samples: MaskedSamples) -> torch.Tensor:
        """Return r + gamma max Q(s', a') over the legal a', shape [B, 1]; r where the episode terminated."""
        best = _legal_only(self.q_net_target(samples.next_observations), samples.next_masks).amax(dim=1, keepdim=True)
        return samples.rewards + (1 - samples.dones) * self.gamma * best

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "rng"]


def _legal_only(values: torch.Tensor, masks: torch.Tensor | npt.NDArray[np.bool_]) -> torch.Tensor:
    """Return Q-values with minus infinity for the illegal actions."""
    return values.masked_fill(~torch.as_tensor(masks, device=values.device), -torch.inf)
