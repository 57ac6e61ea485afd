"""The environment ids: one row each, and the loop that registers them with Gymnasium."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import gymnasium


@dataclass(frozen=True)
class Registration:
    """One environment id.

    Attributes:
        entry_point: ``"module:Class"`` of the single environment.
        vector_entry_point: ``"module:Class"`` of the vector environment.
        summary: one line for listings.
        system: the published system it rebuilds.
        kwargs: keyword arguments, JSON scalars only.
    """

    entry_point: str
    vector_entry_point: str
    summary: str
    system: str
    kwargs: MappingProxyType[str, Any] = field(default_factory=lambda: MappingProxyType({}))


ENVIRONMENTS = {
    "NAS-Cell-v0": Registration(
        "nas_gym.envs.cell:CellEnv",
        "nas_gym.envs.cell:CellVectorEnv",
        "a cell of 6 edges, 5 operations each; looked up in a table of trained networks",
        "NAS-Bench-201 / NATS-Bench topology space",
    ),
    "NAS-Cell-Train-v0": Registration(
        "nas_gym.envs.cell_train:CellTrainEnv",
        "nas_gym.envs.cell_train:CellTrainVectorEnv",
        "the same cell; its network is trained now, on digits or on your own images",
        "NAS-Bench-201 / NATS-Bench topology space",
    ),
    "NAS-Size-v0": Registration(
        "nas_gym.envs.size:SizeEnv",
        "nas_gym.envs.size:SizeVectorEnv",
        "the widths of five layers, 8 choices each; looked up in a table that you import",
        "NATS-Bench size space",
    ),
    "NAS-Macro-v0": Registration(
        "nas_gym.envs.macro:MacroEnv",
        "nas_gym.envs.macro:MacroVectorEnv",
        "the blocks of eight layers, 3 choices each; looked up in a table that you import",
        "NAS-Bench-Macro (Su et al. 2021)",
    ),
    "NAS-Cell-Improve-v0": Registration(
        "nas_gym.envs.cell_improve:CellImproveEnv",
        "nas_gym.envs.cell_improve:CellImproveVectorEnv",
        "a complete cell, one edge changed a step; the agent is the search algorithm",
        "NAS-Bench-201 cells; incremental improvement (Cassimon et al. 2024)",
    ),
    "NAS-MetaQNN-v0": Registration(
        "nas_gym.envs.metaqnn:MetaQNNEnv",
        "nas_gym.envs.metaqnn:MetaQNNVectorEnv",
        "a chain of layers, one a step; its network is trained now",
        "MetaQNN (Baker et al. 2017)",
    ),
    "NAS-MetaQNN-Table-v0": Registration(
        "nas_gym.envs.metaqnn_table:MetaQNNTableEnv",
        "nas_gym.envs.metaqnn_table:MetaQNNTableVectorEnv",
        "a short chain of layers, one a step; looked up in a table of trained networks",
        "MetaQNN (Baker et al. 2017), reduced",
    ),
    "NAS-BlockQNN-v0": Registration(
        "nas_gym.envs.blockqnn:BlockQNNEnv",
        "nas_gym.envs.blockqnn:BlockQNNVectorEnv",
        "a block of layers with arbitrary connections, one layer a step; a stack of it is trained now",
        "BlockQNN (Zhong et al. 2018)",
    ),
    "NAS-EAS-v0": Registration(
        "nas_gym.envs.eas:EASEnv",
        "nas_gym.envs.eas:EASVectorEnv",
        "a trained network grows wider and deeper; its child inherits the weights and is trained a little more",
        "EAS (Cai et al. 2018)",
    ),
}
"""Environments by id."""


def register_all() -> None:
    """Register every id that Gymnasium does not know yet; safe to call again."""
    for name, row in ENVIRONMENTS.items():
        if name not in gymnasium.registry:
            gymnasium.register(
                name,
                entry_point=row.entry_point,
                vector_entry_point=row.vector_entry_point,
                kwargs=dict(row.kwargs),
            )
