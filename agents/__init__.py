"""Search agents for nas-gym: one algorithm a file, one loop for all."""

from __future__ import annotations

from typing import Any

from nas_gym.registry import Entry, Registry

from .core.asynchronous import Taught, run_without_barrier
from .core.base import Agent, Decided, Envs, EpisodeBatch, Greedy, Proposer, episodes_at_once, make_config
from .core.runner import Evaluated, RunResult, Sink, run

AGENTS = Registry(
    "agent",
    {
        "random_search": Entry("nas_agents.random_search:RandomSearch", "uniform draws, with or without replacement"),
        "evolution": Entry("nas_agents.evolution:Evolution", "regularised (aging) evolution (Real et al. 2019)"),
        "local_search": Entry("nas_agents.local_search:LocalSearch", "hill climbing with restarts (White et al. 2021)"),
        "uct": Entry("nas_agents.uct:UCT", "tree search over the grammar (DeepArchitect 2017)"),
        "successive_halving": Entry(
            "nas_agents.successive_halving:SuccessiveHalving", "more epochs for the best: synchronous, or ASHA"
        ),
        "q_learning": Entry(
            "nas_agents.q_learning:QLearning", "tabular Q-learning with replay (MetaQNN 2017, BlockQNN 2018)"
        ),
        "reinforce": Entry(
            "nas_agents.reinforce:Reinforce", "policy gradient with an LSTM controller (Zoph & Le 2017)", "agents"
        ),
        "eas": Entry("nas_agents.eas:EAS", "policy gradient on an encoding of the network so far (EAS 2018)", "agents"),
        "sb3:ppo": Entry("nas_agents.stable_baselines:PPO", "PPO of Stable-Baselines3", "agents"),
        "sb3:a2c": Entry("nas_agents.stable_baselines:A2C", "A2C of Stable-Baselines3", "agents"),
        "sb3:dqn": Entry("nas_agents.stable_baselines:DQN", "DQN of Stable-Baselines3", "agents"),
        "sb3:maskable_ppo": Entry("nas_agents.stable_baselines:MaskablePPO", "MaskablePPO of sb3-contrib", "agents"),
        "sb3:masked_dqn": Entry(
            "nas_agents.stable_baselines:MaskedDQN", "DQN of Stable-Baselines3 with masks, ours", "agents"
        ),
    },
)
"""Agents by name; an entry is a subclass of `Agent`."""


def make(
    name: str,
    envs: Envs,
    seed: int,
    preset: str | None = None,
    **config: Any,  # noqa: ANN401 - each agent documents its configuration
) -> Agent:
    """Create an agent.

    Args:
        name: name in `AGENTS`, or ``module:Class``.
        envs: the vector environment it will act in.
        seed: of the agent's generator.
        preset: a published configuration to start from, see the agent's class.
        **config: fields of the agent's configuration.

    Raises:
        UnknownName: no such agent, preset or field.
        InvalidArgument: a value outside its range.
        MissingExtra: the agent needs an extra that is not installed.
    """
    agent = AGENTS[name]
    created: Agent = agent(envs, seed, make_config(agent, preset, **config))
    return created


__all__ = [
    "AGENTS",
    "Agent",
    "Decided",
    "Envs",
    "EpisodeBatch",
    "Evaluated",
    "Greedy",
    "Proposer",
    "RunResult",
    "Sink",
    "Taught",
    "episodes_at_once",
    "make",
    "make_config",
    "run",
    "run_without_barrier",
]
