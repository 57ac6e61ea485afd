"""Wall time of a whole search, without start-up."""

from __future__ import annotations

import time

import gymnasium

import nas_agents
import nas_gym  # noqa: F401 - registers the environments

from .timing import Row, below


def reinforce(table: str) -> Row:
    """Measure REINFORCE with 1,000 queries, the best of three runs."""
    seconds = []
    for seed in range(3):
        envs = gymnasium.make_vec("NAS-Cell-v0", num_envs=8, table=table, autoreset_mode="Disabled").unwrapped
        agent = nas_agents.make("reinforce", envs, seed)  # type: ignore[arg-type]
        started = time.perf_counter()
        nas_agents.run(agent, envs, budget=1_000, seed=seed)  # type: ignore[arg-type]
        seconds.append(time.perf_counter() - started)
    return below("REINFORCE, 1,000 queries", min(seconds), 10, "s")
