"""Settings that the agents of the suites were tuned to: the best trial of the logs in ``baselines/tuning``.

Every log is that of ``nas-gym bench tune AGENT --trials 20``: 24,000 queries on synthetic landscapes, the default
settings being the first trial, so that an agent whose defaults were not surpassed keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

TRIALS = 20
QUERIES = 24_000
"""Of all trials of an agent together."""


@dataclass(frozen=True)
class Tuned:
    """The outcome of tuning an agent.

    Attributes:
        log: file name below ``baselines/``.
        trial: number of the best trial; 0 = the default settings.
        settings: its settings.
    """

    log: str
    trial: int
    settings: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return what rows of runs say of where their settings come from."""
        return {"log": self.log, "trial": self.trial, "trials": TRIALS, "queries": QUERIES}


def log_name(agent: str) -> str:
    """Return the file name of an agent's log below ``baselines/``.

    >>> log_name("sb3:ppo")
    'tuning/sb3_ppo.jsonl'
    """
    return f"tuning/{agent.replace(':', '_')}.jsonl"


def _tuned(agent: str, trial: int, **settings: Any) -> Tuned:  # noqa: ANN401 - any JSON value
    return Tuned(log_name(agent), trial, MappingProxyType(settings))


TUNED: Mapping[str, Tuned] = MappingProxyType(
    {
        "random_search": _tuned("random_search", 0),
        "local_search": _tuned("local_search", 0),
        "evolution": _tuned("evolution", 1, population_size=20, sample_size=10),
        "uct": _tuned("uct", 0),
        "q_learning": _tuned(
            "q_learning",
            5,
            learning_rate=0.0444,
            replay_draws=10,
            history=3,
            initial_value=0.5,
            epsilon_schedule=((1.0, 20), (0.2, 1)),
            redraws=100,
        ),
        "reinforce": _tuned(
            "reinforce", 14, learning_rate=0.00234, entropy_weight=0.173, batch_size=1, baseline_decay=0.95
        ),
        "sb3:ppo": _tuned("sb3:ppo", 2, learning_rate=0.00611, num_envs=1, ent_coef=0.000594, n_epochs=10),
        "sb3:maskable_ppo": _tuned(
            "sb3:maskable_ppo", 4, learning_rate=0.00307, num_envs=1, ent_coef=0.00519, n_epochs=10
        ),
        "sb3:masked_dqn": _tuned(
            "sb3:masked_dqn",
            3,
            learning_rate=0.000574,
            num_envs=1,
            batch_size=64,
            gradient_steps=1,
            exploration_fraction=0.5,
        ),
    }
)
"""By agent."""
