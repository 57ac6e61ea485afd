"""Proximal policy optimisation with action masks in one file, in the manner of CleanRL.

    python cleanrl_ppo.py --env-id NAS-MetaQNN-Table-v0 --total-timesteps 20000

Read it from top to bottom. Of NAS-Gym it uses the ids, ``info["action_mask"]`` and the end of the budget; everything
else is Gymnasium and PyTorch.

Dimension letters: T steps of a rollout, N sub-environments, F features, C actions, B valid transitions.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from torch import nn

from nas_gym.errors import BudgetExhausted  # Importing anything of the package registers the ids.


@dataclass(frozen=True)
class Args:
    """Settings of a run, each of them also an option of the command line.

    Attributes:
        env_id: id of the environment.
        evaluator: evaluator of the environment, empty = its own.
        budget: largest number of queries, 0 = unlimited.
        seed: seed of the run.
        total_timesteps: steps over all sub-environments.
        num_envs: N.
        num_steps: T.
        learning_rate: step size of Adam at the start; it falls to zero.
        gamma: discount.
        gae_lambda: decay of the advantage estimate.
        update_epochs: passes over a rollout.
        num_minibatches: gradient steps of a pass.
        clip: how far the ratio of probabilities may move away from 1.
        entropy_weight: weight of the entropy.
        value_weight: weight of the value loss.
        max_grad_norm: bound of the gradient's norm.
    """

    env_id: str = "NAS-Cell-v0"
    evaluator: str = ""
    budget: int = 0
    seed: int = 1
    total_timesteps: int = 20_000
    num_envs: int = 8
    num_steps: int = 32
    learning_rate: float = 2.5e-3
    gamma: float = 1.0
    gae_lambda: float = 0.95
    update_epochs: int = 4
    num_minibatches: int = 4
    clip: float = 0.2
    entropy_weight: float = 0.05
    value_weight: float = 0.5
    max_grad_norm: float = 0.5


def make_envs(args: Args) -> Any:
    """Make the environments, natively vectorised, whose finished episodes are reset by the step that follows."""
    settings: dict[str, Any] = {"evaluator": args.evaluator} if args.evaluator else {}
    envs: Any = gymnasium.make_vec(
        args.env_id, args.num_envs, vectorization_mode="vector_entry_point", observation="one_hot", **settings
    )
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    if args.budget:
        envs.unwrapped.counter.budget = args.budget
    return envs


def linear(inputs: int, outputs: int, gain: float, generator: torch.Generator) -> nn.Linear:
    """Make a layer with orthogonal weights."""
    layer: Any = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain, generator)
    nn.init.zeros_(layer.bias)
    return layer


def network(inputs: int, outputs: int, gain: float, generator: torch.Generator) -> nn.Sequential:
    """Make a network with two hidden layers."""
    first, second = linear(inputs, 64, 2**0.5, generator), linear(64, 64, 2**0.5, generator)
    return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), linear(64, outputs, gain, generator))


class Agent(nn.Module):
    """A policy that gives masked actions no probability, and a value function."""

    def __init__(self, features: int, actions: int, generator: torch.Generator) -> None:
        super().__init__()
        self.actor = network(features, actions, 0.01, generator)
        self.critic = network(features, 1, 1.0, generator)

    def log_probabilities(self, observations: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Return those of all actions, shape [..., C]."""
        return self.actor(observations).masked_fill(~masks, -1e8).log_softmax(-1)

    def values(self, observations: torch.Tensor) -> torch.Tensor:
        """Return the expected return of every row, shape [...]."""
        return self.critic(observations).squeeze(-1)


def train(args: Args, envs: Any) -> list[float]:
    """Train a policy; return the returns of the finished episodes in their order."""
    generator = torch.Generator().manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    envs = RecordEpisodeStatistics(envs)
    features, actions = envs.single_observation_space.shape[0], int(envs.single_action_space.n)
    agent = Agent(features, actions, generator)
    optimiser = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)

    shape = (args.num_steps, args.num_envs)
    observations = torch.zeros((*shape, features))
    masks = torch.zeros((*shape, actions), dtype=torch.bool)
    chosen = torch.zeros(shape, dtype=torch.int64)
    old_log_probs, values, rewards = torch.zeros(shape), torch.zeros(shape), torch.zeros(shape)
    valid, terminated, ended = (torch.zeros(shape, dtype=torch.bool) for _ in range(3))

    returns: list[float] = []
    observation, info = envs.reset(seed=args.seed)
    done = np.zeros(args.num_envs, np.bool_)  # Whose episode is over: their next action is ignored.
    updates = args.total_timesteps // (args.num_steps * args.num_envs)
    for update in range(updates):
        optimiser.param_groups[0]["lr"] = args.learning_rate * (1 - update / updates)

        # Play. After an episode's end a row holds a step that belongs to no episode; it is marked as not valid.
        for step in range(args.num_steps):
            observations[step] = torch.as_tensor(observation)
            masks[step] = torch.as_tensor(info["action_mask"] == 1)
            valid[step] = torch.as_tensor(~done)
            with torch.no_grad():
                log_probs = agent.log_probabilities(observations[step], masks[step])
                values[step] = agent.values(observations[step])
            action = torch.multinomial(log_probs.exp(), 1, generator=generator)
            chosen[step] = action.squeeze(1)
            old_log_probs[step] = log_probs.gather(1, action).squeeze(1)
            try:
                observation, reward, termination, truncation, info = envs.step(chosen[step].numpy())
            except BudgetExhausted as end:  # Some of the episodes that ended now may have been paid for.
                return returns + list(end.rewards)
            done = termination | truncation
            rewards[step] = torch.as_tensor(reward)
            terminated[step], ended[step] = torch.as_tensor(termination), torch.as_tensor(done)
            if "episode" in info:
                returns += info["episode"]["r"][info["_episode"]].tolist()

        # Estimate advantages backwards. The observation after an episode's last step is still its own, so that a
        # truncated episode is continued by the value of the next row, and a terminated one by nothing.
        with torch.no_grad():
            following = agent.values(torch.as_tensor(observation))
        advantages = torch.zeros(shape)
        advantage = torch.zeros(args.num_envs)
        for step in reversed(range(args.num_steps)):
            error = rewards[step] + args.gamma * following * ~terminated[step] - values[step]
            advantage = error + args.gamma * args.gae_lambda * advantage * ~ended[step]
            advantages[step], following = advantage, values[step]
        targets = advantages + values

        # Improve the policy, on valid transitions only.
        rows = np.flatnonzero(valid.reshape(-1).numpy())
        flat_observations, flat_masks = observations.reshape(-1, features), masks.reshape(-1, actions)
        for _ in range(args.update_epochs):
            for part in np.array_split(rng.permutation(rows), args.num_minibatches):
                batch = torch.as_tensor(part)
                log_probs = agent.log_probabilities(flat_observations[batch], flat_masks[batch])
                log_prob = log_probs.gather(1, chosen.reshape(-1)[batch, None]).squeeze(1)
                ratio = (log_prob - old_log_probs.reshape(-1)[batch]).exp()
                gain = advantages.reshape(-1)[batch]
                gain = (gain - gain.mean()) / (gain.std(correction=0) + 1e-8)
                policy_loss = -torch.min(ratio * gain, ratio.clamp(1 - args.clip, 1 + args.clip) * gain).mean()
                entropy = -(log_probs.exp() * log_probs).sum(1).mean()
                value_loss = (agent.values(flat_observations[batch]) - targets.reshape(-1)[batch]).square().mean() / 2
                loss = policy_loss - args.entropy_weight * entropy + args.value_weight * value_loss
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), args.max_grad_norm)
                optimiser.step()
    return returns


def main(args: Args) -> list[float]:
    """Make the environments, train on them and return the returns of the episodes."""
    envs = make_envs(args)
    try:
        return train(args, envs)
    finally:
        envs.close()


def parse(arguments: Sequence[str] | None = None) -> Args:
    """Read the settings from a command line."""
    parser = argparse.ArgumentParser(description="Masked PPO on an environment of NAS-Gym.")
    for entry in fields(Args):
        name = "--" + entry.name.replace("_", "-")
        parser.add_argument(name, type=type(entry.default), default=entry.default)
    return Args(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    main(parse())
