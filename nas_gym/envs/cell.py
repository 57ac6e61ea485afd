"""`NAS-Cell-v0`: building a NAS-Bench-201 cell edge by edge."""

from __future__ import annotations

from gymnasium.vector import AutoresetMode

from nas_gym.envs.core.construction import ConstructionEnv, ConstructionVectorEnv
from nas_gym.evaluators import Evaluator, make_evaluator
from nas_gym.objectives import OBJECTIVES, Objective
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space


def _parts(
    evaluator: str,
    objective: str,
    metric: str | None,
    table: str | None,
    noise: str | None,
    dataset: str | None,
    evaluation_seed: int,
) -> tuple[NASBench201Space, Evaluator, Objective]:
    space = NASBench201Space()
    # What is left at its default is not passed on, so that evaluators and objectives without it can be used too.
    settings = {"table": table, "noise": noise, "dataset": dataset, "evaluation_seed": evaluation_seed or None}
    fields = {} if metric is None else {"metric": metric}
    return space, make_evaluator(evaluator, space, **settings), OBJECTIVES[objective](**fields)


class CellEnv(ConstructionEnv):
    """Build a NAS-Bench-201 cell by choosing an operation for one edge after the other.

    ## Description

    The smallest NAS problem that is still real: a cell has four nodes, and each of its six edges carries one of five
    operations, which gives 15,625 cells in 6,466 isomorphism classes. The agent decides the edges in the order of
    the official notation, 0->1, 0->2, 1->2, 0->3, 1->3, 2->3. The finished cell is looked up in a table in which every
    class of cells was really trained, or trained now.

    Deviations from the benchmark: the benchmark defines no decision process; the order of the edges and the reward
    at the end are ours. In the packaged table `digits` the networks are much smaller than the official ones and are
    trained on 8x8 digits; its metadata states the recipe.

    ## Action Space

    `Discrete(5)`: the operation of the current edge.

    | Action | Operation |
    |---|---|
    | 0 | `none` |
    | 1 | `skip_connect` |
    | 2 | `nor_conv_1x1` |
    | 3 | `nor_conv_3x3` |
    | 4 | `avg_pool_3x3` |

    Every action is always legal.

    ## Observation Space

    `MultiDiscrete([6, 6, 6, 6, 6, 6])`: for every edge 0 while it is undecided, else its operation plus one.
    With `observation="one_hot"` the same content as `Box(0, 1, (36,), float32)`; `observation="states"` equals the
    default, since no state is published.

    ## Rewards

    0 for the first five steps; at the sixth the objective's value, by default the validation accuracy in [0, 1].
    A failed evaluation gives the objective's failure reward (-1 by default).

    ## Starting State

    No edge is decided.

    ## Episode End

    Terminates after six steps; never truncates.

    ## Information

    `action_mask` (int8, shape (5,)) at every reset and step; at the end also `encoding` (six integers), `status`
    (`"ok"` or why it failed), `metrics` (search-time metrics by name), `cost_seconds` (simulated or measured) and,
    after a failure, `message`. `env.unwrapped.space.to_string(info["encoding"])` is the official notation.

    ## Arguments

    | Argument | Default | Meaning |
    |---|---|---|
    | `table` | `None` = `"digits"` | name of a table or path of a `.parquet` file, for `evaluator="tabular"` |
    | `metric` | `None` = `"valid_accuracy"` | accuracy that the objective reads; held-out metrics are refused |
    | `fidelity` | `None` = all | epochs before the accuracy is read; per episode `reset(options={"fidelity": 3})` |
    | `noise` | `None` = `"mean"` | `"mean"` of the table's seeds or `"sample"`, one of them |
    | `evaluator` | `"tabular"` | also `"synthetic"`, `"training"` or `module:Class` |
    | `dataset` | `None` = `"digits"` | data set, for `evaluator="training"` |
    | `objective` | `"accuracy"` | a name in `nas_gym.OBJECTIVES` or `module:Class` |
    | `observation` | `"prefix"` | also `"states"`, `"one_hot"` |
    | `evaluation_seed` | `0` | seed of the evaluator's noise, landscape or trainings |
    | `repeat_query` | `"cache+charge"` | also `"resample+charge"`, `"cache+free"`: what a repetition gives and costs |
    | `render_mode` | `None` | `"ansi"`, `"rgb_array"` or `"human"` |

    ```python
    >>> import gymnasium as gym, nas_gym
    >>> env = gym.make("NAS-Cell-v0", evaluator="synthetic")
    >>> observation, info = env.reset(seed=0)
    >>> for action in (3, 3, 3, 1, 3, 3):
    ...     observation, reward, terminated, truncated, info = env.step(action)
    >>> env.unwrapped.space.to_string(info["encoding"])
    '|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|'

    ```

    ## Registered Environments

    `NAS-Cell-v0`; in spawned workers `nas_gym:NAS-Cell-v0`.

    ## References

    - X. Dong, Y. Yang: NAS-Bench-201. ICLR 2020, arXiv 2001.00326.
    - X. Dong, L. Liu, K. Musial, B. Gabrys: NATS-Bench. TPAMI 2021, arXiv 2009.00437.

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
        dataset: str | None = None,
        objective: str = "accuracy",
        observation: str = "prefix",
        evaluation_seed: int = 0,
        repeat_query: str = "cache+charge",
        render_mode: str | None = None,
    ) -> None:
        """Create the environment; the class documents the arguments."""
        super().__init__(
            *_parts(evaluator, objective, metric, table, noise, dataset, evaluation_seed),
            observation=observation,
            fidelity=fidelity,
            repeat_query=repeat_query,
            render_mode=render_mode,
        )


class CellVectorEnv(ConstructionVectorEnv):
    """`CellEnv` for many episodes at once; see there for everything but `num_envs` and `autoreset_mode`."""

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
        dataset: str | None = None,
        objective: str = "accuracy",
        observation: str = "prefix",
        evaluation_seed: int = 0,
        repeat_query: str = "cache+charge",
        render_mode: str | None = None,
    ) -> None:
        """Create the environments."""
        super().__init__(
            *_parts(evaluator, objective, metric, table, noise, dataset, evaluation_seed),
            num_envs=num_envs,
            autoreset_mode=autoreset_mode,
            observation=observation,
            fidelity=fidelity,
            repeat_query=repeat_query,
            render_mode=render_mode,
        )
