"""What an agent proposes once it no longer learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import nas_agents

from .traces import Returns


def sample_policy(agent: nas_agents.Agent, envs: Any, samples: int) -> float:  # noqa: ANN401 - envs of nas-gym
    """Return the mean reward of what an agent proposes without learning any more.

    Args:
        agent: after its search; it decides step by step or proposes, but does not drive itself.
        envs: fresh environments of the same task, with ``autoreset_mode="Disabled"``.
        samples: episodes.
    """
    returns = Returns()

    class Frozen(nas_agents.Agent):
        """Acts as the agent does and learns nothing."""

        Config = type(agent.config)

        def begin(self, num_envs: int) -> int:
            """Let the agent begin."""
            return agent.begin(num_envs)

        def act(self, observations: Any, masks: Any, alive: Any) -> npt.NDArray[np.int64]:  # noqa: ANN401
            """Let the agent act."""
            return agent.act(observations, masks, alive)

        def learn(self, batch: nas_agents.EpisodeBatch) -> dict[str, float]:
            """Learn nothing."""
            return {}

    nas_agents.run(Frozen(envs, 0, agent.config), envs, samples, 0, [returns])
    return float(np.mean(returns.values))
