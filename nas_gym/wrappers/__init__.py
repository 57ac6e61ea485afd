"""Wrappers around the environments, by what they change: actions, observations, rewards, what is recorded.

Every wrapper exists for single and for vector environments (`X` and `VectorX`); a vector form returns what Gymnasium's
`SyncVectorEnv` of single forms returns, in every auto-reset mode. A single form is part of ``env.spec``, from which
``gymnasium.make`` builds the whole stack again; Gymnasium's vector specifications hold no wrappers. Calls of
``env.unwrapped`` (`set_state`, `advance`, `collect`) go past all wrappers.

>>> import gymnasium, nas_gym
>>> from nas_gym.wrappers import DictObservation, PenaliseMasked
>>> env = DictObservation(PenaliseMasked(gymnasium.make("NAS-MetaQNN-v0", evaluator="synthetic")))
>>> sorted(env.reset(seed=0)[0])
['action_mask', 'observation']

Importing this package imports none of its modules; a name is looked up when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas_gym.wrappers.action import (
        PenaliseMasked,
        RaiseOnMasked,
        ResampleMasked,
        VectorPenaliseMasked,
        VectorRaiseOnMasked,
        VectorResampleMasked,
    )
    from nas_gym.wrappers.observation import (
        BestSoFar,
        DictObservation,
        FlatOneHot,
        GraphObservation,
        VectorBestSoFar,
        VectorDictObservation,
        VectorFlatOneHot,
        VectorGraphObservation,
    )
    from nas_gym.wrappers.record import EpisodeRecorder, RunRecorder, VectorEpisodeRecorder, VectorRunRecorder
    from nas_gym.wrappers.reward import (
        DeltaReward,
        NormaliseReward,
        PotentialShaping,
        VectorDeltaReward,
        VectorNormaliseReward,
        VectorPotentialShaping,
    )
    from nas_gym.wrappers.sb3 import SB3VecEnv

_MODULES = {
    "PenaliseMasked": "nas_gym.wrappers.action",
    "RaiseOnMasked": "nas_gym.wrappers.action",
    "ResampleMasked": "nas_gym.wrappers.action",
    "VectorPenaliseMasked": "nas_gym.wrappers.action",
    "VectorRaiseOnMasked": "nas_gym.wrappers.action",
    "VectorResampleMasked": "nas_gym.wrappers.action",
    "BestSoFar": "nas_gym.wrappers.observation",
    "DictObservation": "nas_gym.wrappers.observation",
    "FlatOneHot": "nas_gym.wrappers.observation",
    "GraphObservation": "nas_gym.wrappers.observation",
    "VectorBestSoFar": "nas_gym.wrappers.observation",
    "VectorDictObservation": "nas_gym.wrappers.observation",
    "VectorFlatOneHot": "nas_gym.wrappers.observation",
    "VectorGraphObservation": "nas_gym.wrappers.observation",
    "EpisodeRecorder": "nas_gym.wrappers.record",
    "RunRecorder": "nas_gym.wrappers.record",
    "VectorEpisodeRecorder": "nas_gym.wrappers.record",
    "VectorRunRecorder": "nas_gym.wrappers.record",
    "DeltaReward": "nas_gym.wrappers.reward",
    "NormaliseReward": "nas_gym.wrappers.reward",
    "PotentialShaping": "nas_gym.wrappers.reward",
    "VectorDeltaReward": "nas_gym.wrappers.reward",
    "VectorNormaliseReward": "nas_gym.wrappers.reward",
    "VectorPotentialShaping": "nas_gym.wrappers.reward",
    "SB3VecEnv": "nas_gym.wrappers.sb3",
}
"""Module of every public name."""


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class
    """Import the module of a wrapper when its name is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(sorted(_MODULES))}.")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """List the public names, those not imported yet included."""
    return sorted({*globals(), *_MODULES})


__all__ = [
    "BestSoFar",
    "DeltaReward",
    "DictObservation",
    "EpisodeRecorder",
    "FlatOneHot",
    "GraphObservation",
    "NormaliseReward",
    "PenaliseMasked",
    "PotentialShaping",
    "RaiseOnMasked",
    "ResampleMasked",
    "RunRecorder",
    "SB3VecEnv",
    "VectorBestSoFar",
    "VectorDeltaReward",
    "VectorDictObservation",
    "VectorEpisodeRecorder",
    "VectorFlatOneHot",
    "VectorGraphObservation",
    "VectorNormaliseReward",
    "VectorPenaliseMasked",
    "VectorPotentialShaping",
    "VectorRaiseOnMasked",
    "VectorResampleMasked",
    "VectorRunRecorder",
]
