"""Contract checks for search spaces, evaluators and environments, also those of third parties.

Each check draws random witnesses and raises `ContractViolation` at the first broken rule; the message holds the
rule, what was expected and received, and the witness that reproduces it. Neither pytest nor torch is needed.

>>> from nas_gym.search_spaces.nas_bench_201 import NASBench201Space
>>> check_search_space(NASBench201Space(), samples=4)

A rule is a function whose docstring is the sentence that a violation quotes; `SEARCH_SPACE_RULES`,
`EVALUATOR_RULES`, `ENVIRONMENT_RULES` and `VECTOR_RULES` list them in the order in which they are checked.
"""

from __future__ import annotations

import numpy as np

from nas_gym.testing.environment import ENVIRONMENT_RULES, EnvProbe, MakeEnv
from nas_gym.testing.evaluator import EVALUATOR_RULES, check_evaluator
from nas_gym.testing.rules import ContractViolation, check_rules, difference, new_seed
from nas_gym.testing.search_space import SEARCH_SPACE_RULES, check_search_space
from nas_gym.testing.vector import VECTOR_RULES, MakeVectorEnv, VectorProbe


def check_nas_env(
    make_env: MakeEnv,
    make_vec_env: MakeVectorEnv | None = None,
    rng: np.random.Generator | None = None,
    episodes: int = 4,
    steps: int = 60,
) -> None:
    """Check an environment, and its vector form, against the contract of `NASEnv` and `NASVectorEnv`.

    Rules: spaces and dtypes; a fresh int8 mask at every call, with a legal action until the end and all ones then;
    reward 0 before the end; final info, held-out metrics absent; determinism from a seed; returned data never
    reused; masked actions end the episode as defined; actions outside the space and steps without an episode raise;
    states restore episodes; options checked; exact counter and budget; specification round trip. With
    `make_vec_env`, in every auto-reset mode: description, every returned value, masks, freshness and counter equal
    to Gymnasium's `SyncVectorEnv` of single environments, masked actions and partial resets included.

    >>> import nas_gym
    >>> import gymnasium
    >>> check_nas_env(lambda: gymnasium.make("NAS-Cell-v0", evaluator="synthetic"), episodes=1)

    Args:
        make_env: makes a single environment, wrapped or not; called several times.
        make_vec_env: makes the vector environment of a number of sub-environments and an auto-reset mode.
        rng: draws the action streams; a fixed seed by default.
        episodes: number of random episodes and of random streams in every mode.
        steps: length of a stream in the vector environment.

    Raises:
        ContractViolation: naming the broken rule and its witness.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    seeds = tuple(new_seed(rng) for _ in range(episodes))
    check_rules(ENVIRONMENT_RULES, EnvProbe(make_env, seeds))
    if make_vec_env is not None:
        check_rules(VECTOR_RULES, VectorProbe(make_env, make_vec_env, seeds[:2], steps))


__all__ = [
    "ENVIRONMENT_RULES",
    "EVALUATOR_RULES",
    "SEARCH_SPACE_RULES",
    "VECTOR_RULES",
    "ContractViolation",
    "check_evaluator",
    "check_nas_env",
    "check_search_space",
    "difference",
]
