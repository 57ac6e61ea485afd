"""`NAS-MetaQNN-Table-v0`: building a short chain of layers that is looked up in a table."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode

from nas_gym.envs.core.construction import ConstructionEnv, ConstructionVectorEnv
from nas_gym.evaluators import Evaluator, make_evaluator
from nas_gym.objectives import OBJECTIVES, Objective
from nas_gym.search_spaces.metaqnn import REDUCED, MetaQNNSpace
from nas_gym.tables.format import TABLES, read_table


def _parts(
    evaluator: str,
    objective: str,
    metric: str | None,
    table: str | None,
    noise: str | None,
    evaluation_seed: int,
) -> tuple[MetaQNNSpace, Evaluator, Objective]:
    # Another table may be one of another reduced space; the packaged one is not read before somebody asks for it.
    recorded: dict[str, Any] = {} if table is None else read_table(TABLES[table]).metadata.get("space_settings", {})
    space = MetaQNNSpace(**(REDUCED if table is None else recorded))
    settings = {"table": table, "noise": noise, "evaluation_seed": evaluation_seed or None}
    fields = {} if metric is None else {"metric": metric}
    return space, make_evaluator(evaluator, space, ("table",), **settings), OBJECTIVES[objective](**fields)


class MetaQNNTableEnv(ConstructionEnv):
    """Build a short convolutional network layer by layer; the reward is looked up.

    ## Description

    The decision process of MetaQNN (`NAS-MetaQNN-v0`) over a space that is small enough to have been trained whole:
    chains of up to five layers on 8x8 digits, 6,734 of them. Episodes have different lengths, and what is legal depends
    on what was built, so that it tests how an agent deals with masks, without torch, data or waiting.

    Deviations from the paper: two widths of convolutions (8, 16) and of fully connected layers (64, 16), kernels 1 and
    3, five layers instead of 12 or 18, and our recipe; `nas-gym tables info metaqnn-digits` states it. All transition
    rules are those of `NAS-MetaQNN-v0`.

    ## Action Space

    `Discrete(11)`: the next layer.

    | Action | Layer |
    |---|---|
    | 0, 1 | `C(8,1,1)`, `C(16,1,1)` |
    | 2, 3 | `C(8,3,1)`, `C(16,3,1)` |
    | 4, 5, 6 | `P(5,3)`, `P(3,2)`, `P(2,2)` |
    | 7, 8 | `FC(64)`, `FC(16)` |
    | 9 | `GAP` |
    | 10 | `SM`, the end |

    ## Observation Space

    `MultiDiscrete([12] * 6)`: for every layer 0 while it is undecided, else its action plus one. With
    `observation="states"` the published agent's state `MultiDiscrete([12, 7, 3, 3])`: last layer (0 = none), depth, bin
    of the representation size, fully connected layers in a row. `observation="one_hot"` is the default as a flat
    float32 `Box`.

    ## Rewards

    0 before the softmax; with it the objective's value, by default the validation accuracy in [0, 1]. An illegal action
    gives the objective's failure reward (-1 by default).

    ## Starting State

    No layer.

    ## Episode End

    Terminates with `SM`, after one to six steps; never truncates.

    ## Information

    `action_mask` (int8, shape (11,)) at every reset and step; at the end also `encoding`, `status`, `metrics`
    (search-time metrics by name) and `cost_seconds` (simulated). `env.unwrapped.space.to_string(info["encoding"])` is
    the published notation.

    ## Arguments

    | Argument | Default | Meaning |
    |---|---|---|
    | `table` | `None` = `"metaqnn-digits"` | name of a table or path of a `.parquet` file of a MetaQNN space |
    | `metric` | `None` = `"valid_accuracy"` | accuracy that the objective reads; held-out metrics are refused |
    | `fidelity` | `None` = all | epochs before the accuracy is read; per episode `reset(options={"fidelity": 3})` |
    | `noise` | `None` = `"mean"` | `"mean"` of the table's seeds or `"sample"`, one of them |
    | `evaluator` | `"tabular"` | also `"synthetic"` or `module:Class` |
    | `objective` | `"accuracy"` | a name in `nas_gym.OBJECTIVES` or `module:Class` |
    | `observation` | `"prefix"` | also `"states"`, `"one_hot"` |
    | `evaluation_seed` | `0` | seed of the evaluator's noise or landscape |
    | `repeat_query` | `"cache+charge"` | also `"resample+charge"`, `"cache+free"`: what a repetition gives and costs |
    | `render_mode` | `None` | `"ansi"`, `"rgb_array"` or `"human"` |

    ```python
    >>> import gymnasium as gym, nas_gym
    >>> env = gym.make("NAS-MetaQNN-Table-v0")
    >>> observation, info = env.reset(seed=0)
    >>> info["action_mask"].tolist()
    [1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1]

    ```

    ## Registered Environments

    `NAS-MetaQNN-Table-v0`; in spawned workers `nas_gym:NAS-MetaQNN-Table-v0`.

    ## References

    - B. Baker, O. Gupta, N. Naik, R. Raskar: Designing Neural Network Architectures using Reinforcement Learning.
      ICLR 2017, arXiv 1611.02167.

    ## Version History

    - v0: first version.
    """

    def __init__(
        self,
        table: str | None = None,
        metric: str | None = None,
        fidelity: int | None = None,
        noise: str | None = None,
        *,
        evaluator: str = "tabular",
        objective: str = "accuracy",
        observation: str = "prefix",
        evaluation_seed: int = 0,
        repeat_query: str = "cache+charge",
        render_mode: str | None = None,
    ) -> None:
        """Create the environment; the class documents the arguments."""
        super().__init__(
            *_parts(evaluator, objective, metric, table, noise, evaluation_seed),
            observation=observation,
            fidelity=fidelity,
            repeat_query=repeat_query,
            render_mode=render_mode,
        )


class MetaQNNTableVectorEnv(ConstructionVectorEnv):
    """`MetaQNNTableEnv` for many episodes at once; see there for everything but `num_envs` and `autoreset_mode`."""

    def __init__(
        self,
        num_envs: int = 1,
        table: str | None = None,
        metric: str | None = None,
        fidelity: int | None = None,
        noise: str | None = None,
        *,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        evaluator: str = "tabular",
        objective: str = "accuracy",
        observation: str = "prefix",
        evaluation_seed: int = 0,
        repeat_query: str = "cache+charge",
        render_mode: str | None = None,
    ) -> None:
        """Create the environments."""
        super().__init__(
            *_parts(evaluator, objective, metric, table, noise, evaluation_seed),
            num_envs=num_envs,
            autoreset_mode=autoreset_mode,
            observation=observation,
            fidelity=fidelity,
            repeat_query=repeat_query,
            render_mode=render_mode,
        )
