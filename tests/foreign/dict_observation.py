"""Deep Q-learning with the mask inside the observation, in the manner of AgileRL and RLlib.

    python dict_observation.py --env-id NAS-MetaQNN-Table-v0 --total-timesteps 20000

The learner knows observations ``{"observations": float32 [F], "action_mask": int8 [C]}`` and looks into no info.

Dimension letters: N sub-environments, F features, C actions, B transitions of a batch.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nas_gym.errors import BudgetExhausted
from nas_gym.wrappers import VectorDictObservation, VectorFlatOneHot

Observations = dict[str, npt.NDArray[Any]]


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
        learning_rate: step size of Adam.
        gamma: discount.
        batch_size: B.
        learning_starts: transitions in the memory before the first gradient step.
        exploration: share of the run in which the share of random actions falls.
        last_epsilon: share of random actions after that.
        target_every: gradient steps between two copies of the network into the target.
    """

    env_id: str = "NAS-Cell-v0"
    evaluator: str = ""
    budget: int = 0
    seed: int = 1
    total_timesteps: int = 20_000
    num_envs: int = 8
    learning_rate: float = 1e-3
    gamma: float = 0.9
    batch_size: int = 64
    learning_starts: int = 200
    exploration: float = 0.5
    last_epsilon: float = 0.05
    target_every: int = 50


def make_envs(args: Args) -> Any:
    """Make the environments, natively vectorised, in the mode "NextStep"."""
    settings: dict[str, Any] = {"evaluator": args.evaluator} if args.evaluator else {}
    envs: Any = gymnasium.make_vec(args.env_id, args.num_envs, vectorization_mode="vector_entry_point", **settings)
    if args.budget:
        envs.unwrapped.counter.budget = args.budget
    return envs


class QNetwork(nn.Module):
    """Values of all actions; those of masked ones are minus infinity."""

    def __init__(self, space: gymnasium.spaces.Dict, generator: torch.Generator) -> None:
        super().__init__()
        features, actions = (np.zeros(space[key].shape or ()).size for key in ("observations", "action_mask"))
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((features, 128, 128, actions)):
            layer: Any = nn.utils.skip_init(nn.Linear, inputs, outputs)
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
            layers += [layer, nn.ReLU()]
        self.body = nn.Sequential(*layers[:-1])

    def forward(self, seen: Observations) -> torch.Tensor:
        """Return the values, shape [B, C]."""
        values = self.body(torch.as_tensor(seen["observations"]))
        return values.masked_fill(torch.as_tensor(seen["action_mask"] == 0), -torch.inf)


class Memory:
    """All transitions of a run, in arrays."""

    def __init__(self, space: gymnasium.spaces.Dict, capacity: int) -> None:
        self.size = 0
        self.now = {key: np.zeros((capacity, *part.shape), part.dtype) for key, part in space.items()}  # type: ignore[misc]
        self.following = copy.deepcopy(self.now)
        self.actions = np.zeros(capacity, np.int64)
        self.rewards = np.zeros(capacity, np.float32)
        self.terminated = np.zeros(capacity, np.bool_)

    def add(
        self,
        rows: npt.NDArray[np.bool_],
        now: Observations,
        actions: npt.NDArray[np.int64],
        rewards: npt.NDArray[np.float64],
        terminated: npt.NDArray[np.bool_],
        following: Observations,
    ) -> None:
        """Append the transitions of some rows, bool [N]."""
        places = slice(self.size, self.size + int(rows.sum()))
        for key in now:
            self.now[key][places] = now[key][rows]
            self.following[key][places] = following[key][rows]
        self.actions[places], self.rewards[places] = actions[rows], rewards[rows]
        self.terminated[places] = terminated[rows]
        self.size = places.stop


def random_legal(masks: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return a uniformly drawn legal action for every row, shape [B]."""
    return (rng.random(masks.shape) * masks).argmax(1)


def learn(
    network: QNetwork,
    target: QNetwork,
    optimiser: torch.optim.Optimizer,
    memory: Memory,
    picks: npt.NDArray[Any],
    gamma: float,
) -> None:
    """Take one gradient step of double Q-learning on the transitions at `picks`, shape [B]."""
    now = {key: part[picks] for key, part in memory.now.items()}
    following = {key: part[picks] for key, part in memory.following.items()}
    with torch.no_grad():
        best = network(following).argmax(1, keepdim=True)
        future = target(following).gather(1, best).squeeze(1)
        goals = torch.as_tensor(memory.rewards[picks]) + gamma * future * torch.as_tensor(~memory.terminated[picks])
    values = network(now).gather(1, torch.as_tensor(memory.actions[picks])[:, None]).squeeze(1)
    optimiser.zero_grad()
    nn.functional.smooth_l1_loss(values, goals).backward()
    optimiser.step()


def train(args: Args, envs: Any) -> list[float]:
    """Train a network; return the returns of the finished episodes in their order."""
    flat = isinstance(envs.single_observation_space, gymnasium.spaces.Box)
    envs = envs if flat else VectorFlatOneHot(envs)
    envs = VectorDictObservation(envs, observation_key="observations", mask_key="action_mask")
    generator = torch.Generator().manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    network = QNetwork(envs.single_observation_space, generator)  # type: ignore[arg-type]
    target = copy.deepcopy(network)
    optimiser = torch.optim.Adam(network.parameters(), lr=args.learning_rate)
    steps = args.total_timesteps // args.num_envs
    memory = Memory(envs.single_observation_space, steps * args.num_envs)  # type: ignore[arg-type]

    finished: list[float] = []
    sums = np.zeros(args.num_envs)
    over = np.zeros(args.num_envs, np.bool_)
    updates = 0
    now, _ = envs.reset(seed=args.seed)
    for step in range(steps):
        epsilon = max(args.last_epsilon, 1 - step / (args.exploration * steps))
        with torch.no_grad():
            actions = network(now).argmax(1).numpy()
        actions = np.where(rng.random(args.num_envs) < epsilon, random_legal(now["action_mask"], rng), actions)
        try:
            following, rewards, terminated, truncated, _ = envs.step(actions)
        except BudgetExhausted as end:  # Some of the episodes that ended now may have been paid for.
            return finished + list(end.rewards)
        # The step of a row whose episode was over only began the next one.
        memory.add(~over, now, actions, rewards, terminated, following)
        sums = np.where(over, 0.0, sums + rewards)
        over = terminated | truncated
        finished += sums[over].tolist()
        now = following
        if memory.size >= args.learning_starts:
            learn(network, target, optimiser, memory, rng.integers(memory.size, size=args.batch_size), args.gamma)
            updates += 1
            if updates % args.target_every == 0:
                target.load_state_dict(network.state_dict())
    return finished


def main(args: Args) -> list[float]:
    """Make the environments, train on them and return the returns of the episodes."""
    envs = make_envs(args)
    try:
        return train(args, envs)
    finally:
        envs.close()


def parse(arguments: Sequence[str] | None = None) -> Args:
    """Read the settings from a command line."""
    parser = argparse.ArgumentParser(description="Masked Q-learning on an environment of NAS-Gym.")
    for entry in fields(Args):
        name = "--" + entry.name.replace("_", "-")
        parser.add_argument(name, type=type(entry.default), default=entry.default)
    return Args(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    main(parse())
