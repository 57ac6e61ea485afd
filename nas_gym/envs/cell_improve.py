"""`NAS-Cell-Improve-v0`: improving a complete NAS-Bench-201 cell edit by edit."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode

from nas_gym.envs.core.improvement import ImprovementEnv
from nas_gym.envs.core.improvement_vector import ImprovementVectorEnv
from nas_gym.errors import InvalidArgument
from nas_gym.evaluators import Evaluator, make_evaluator
from nas_gym.objectives import OBJECTIVES, Objective
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space


def _parts(
    evaluator: str,
    objective: str,
    metric: str | None,
    table: str | None,
    landscapes: int,
    noise: str | None,
    dataset: str | None,
    evaluation_seed: int,
) -> tuple[dict[str, Evaluator], Objective]:
    if isinstance(landscapes, bool) or not isinstance(landscapes, int) or landscapes < 1:
        raise InvalidArgument(f"landscapes must be an integer of at least 1, got {landscapes!r}.")
    if landscapes > 1 and table is not None:
        raise InvalidArgument(
            f"tasks are either tables or landscapes, got table={table!r} and landscapes={landscapes}; leave one out."
        )
    space = NASBench201Space()
    settings: dict[str, Any] = {"noise": noise, "dataset": dataset}
    fields = {} if metric is None else {"metric": metric}
    tasks: dict[str, Evaluator] = {}
    names = [None] if table is None else [name.strip() for name in table.split(",")]
    for name in names:
        for seed in range(evaluation_seed, evaluation_seed + landscapes):
            made = make_evaluator(evaluator, space, table=name, evaluation_seed=seed or None, **settings)
            looked_up = getattr(made, "table", None)
            tasks[name or (f"{evaluator}-{seed}" if looked_up is None else looked_up.name)] = made
    if len(tasks) < len(names):
        raise InvalidArgument(f"every table is a task of its own, got table={table!r}, which repeats one.")
    return tasks, OBJECTIVES[objective](**fields)


class CellImproveEnv(ImprovementEnv):
    """Improve a random NAS-Bench-201 cell by replacing the operation of one edge after the other.

    ## Description

    Here the agent is the search algorithm: an episode is one search, from a random complete cell through its
    neighbours. Every step replaces the operation on one of the six edges, evaluates the new cell and goes on from it,
    better or not. An agent that was trained on some tasks (tables, or synthetic landscapes) can be deployed on others,
    where it then needs only the queries of its episodes: training queries and deployment queries are two budgets.

    The task of an episode is drawn at its reset, uniformly, if there are several: tables, separated by commas, or
    `landscapes` synthetic landscapes of successive seeds.

    Deviations from the paper: its system walks over NAS-Bench-101 and NAS-Bench-301 with a transformer over the graph
    of the cell; this environment has the cells of NAS-Bench-201, whose neighbours differ in one edge, and leaves the
    network to the agent. Its reward and its episode length are not known to us exactly; the reward as defined below
    and a horizon of 20 edits are ours.

    ## Action Space

    `Discrete(31)`: action 0 stops; action `1 + 5 e + o` puts operation `o` on edge `e` (edges in the order 0->1, 0->2,
    1->2, 0->3, 1->3, 2->3; operations `none`, `skip_connect`, `nor_conv_1x1`, `nor_conv_3x3`, `avg_pool_3x3`).

    An edit that changes nothing is masked: six of the 31 actions in every state. Stopping is always legal.
    `env.unwrapped.problem.edits.labels` names the actions.

    ## Observation Space

    `Box`, float32, shape (63,): current cell (30 zeros and ones), best cell so far (30), share of edits left, reward
    of the current cell minus that of the best (at most 0), reward of the best minus that of the start (at least 0).
    The last two are on a logarithmic scale, log(1 + |x| / 0.001) / log(1 + 1,000,000) with the sign of x, and mean
    the same in every task; the task itself is not observed.

    | `observation` | Content |
    |---|---|
    | `"feedback"` | the above |
    | `"prefix"` | `MultiDiscrete`: current cell (6), best cell (6), edits left (0 to `horizon`) |
    | `"one_hot"` | the same content as `Box(0, 1, (60 + horizon + 1,), float32)` |
    | `"states"` | `MultiDiscrete`: current cell alone (6) |

    ## Rewards

    By how much the new cell improves the objective's best value in this episode, 0 where it does not: the rewards of
    an episode sum up to the gain over its start. A stop gives 0, a masked action the objective's failure reward. A
    cell that fails to train counts as the failure reward and improves nothing.

    ## Starting State

    A cell drawn uniformly from all 15,625, evaluated at the reset. The evaluation costs a query, as every edit does,
    so that an episode of `horizon` edits costs `horizon + 1`.

    ## Episode End

    Terminates after a stop or a masked action; truncates after `horizon` edits.

    ## Information

    At every reset and step: `action_mask` (int8, shape (31,)), `encoding` (the current cell, six integers), `status`,
    `metrics` (search-time metrics of the current cell by name), `cost_seconds` (of this step's query, 0 for a stop),
    `incumbent` (best cell so far), `task` (its name), `value` (objective's value of this step's query; absent where
    there was none) and, after a failure, `message`.

    ## Arguments

    | Argument | Default | Meaning |
    |---|---|---|
    | `table` | `None` = `"digits"` | tables by name or path, separated by commas, for `evaluator="tabular"` |
    | `landscapes` | `1` | number of tasks with successive seeds from `evaluation_seed`, for `evaluator="synthetic"` |
    | `horizon` | `20` | edits until truncation |
    | `metric` | `None` = `"valid_accuracy"` | accuracy that the objective reads; held-out metrics are refused |
    | `fidelity` | `None` = all | epochs before the accuracy is read; per episode `reset(options={"fidelity": 3})` |
    | `noise` | `None` = `"mean"` | `"mean"` of the table's seeds or `"sample"`, one of them |
    | `evaluator` | `"tabular"` | also `"synthetic"`, `"training"` or `module:Class` |
    | `dataset` | `None` = `"digits"` | data set, for `evaluator="training"` |
    | `objective` | `"accuracy"` | a name in `nas_gym.OBJECTIVES` or `module:Class` |
    | `observation` | `"feedback"` | also `"prefix"`, `"one_hot"`, `"states"` |
    | `evaluation_seed` | `0` | seed of the evaluator's noise, landscape or trainings |
    | `repeat_query` | `"cache+charge"` | also `"resample+charge"`, `"cache+free"`: what a repetition gives and costs |
    | `render_mode` | `None` | `"ansi"`, `"rgb_array"` or `"human"` |

    ```python
    >>> import gymnasium as gym, nas_gym
    >>> env = gym.make("NAS-Cell-Improve-v0", evaluator="synthetic", landscapes=100, horizon=5)
    >>> observation, info = env.reset(seed=0)
    >>> info["task"], info["encoding"]
    ('synthetic-85', (3, 2, 1, 1, 0, 0))
    >>> observation, reward, terminated, truncated, info = env.step(1 + 5 * 3 + 3)
    >>> info["encoding"], terminated, truncated
    ((3, 2, 1, 3, 0, 0), False, False)

    ```

    ## Registered Environments

    `NAS-Cell-Improve-v0`; in spawned workers `nas_gym:NAS-Cell-Improve-v0`.

    ## References

    - A. Cassimon, S. Mercelis, K. Mets: Scalable reinforcement learning-based neural architecture search. Neural
      Computing and Applications 2024, arXiv 2410.01431.
    - X. Dong, Y. Yang: NAS-Bench-201. ICLR 2020, arXiv 2001.00326.

    ## Version History

    - v0: first version.
    """

    def __init__(
        self,
        table: str | None = None,
        landscapes: int = 1,
        horizon: int = 20,
        metric: str | None = None,
        fidelity: int | None = None,
        noise: str | None = None,
        *,
        evaluator: str = "tabular",
        dataset: str | None = None,
        objective: str = "accuracy",
        observation: str = "feedback",
        evaluation_seed: int = 0,
        repeat_query: str = "cache+charge",
        render_mode: str | None = None,
    ) -> None:
        """Create the environment; the class documents the arguments."""
        super().__init__(
            *_parts(evaluator, objective, metric, table, landscapes, noise, dataset, evaluation_seed),
            horizon=horizon,
            observation=observation,
            fidelity=fidelity,
            repeat_query=repeat_query,
            render_mode=render_mode,
        )


class CellImproveVectorEnv(ImprovementVectorEnv):
    """`CellImproveEnv` for many episodes at once; see there for everything but `num_envs` and `autoreset_mode`."""

    def __init__(
        self,
        num_envs: int = 1,
        table: str | None = None,
        landscapes: int = 1,
        horizon: int = 20,
        metric: str | None = None,
        fidelity: int | None = None,
        noise: str | None = None,
        *,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        evaluator: str = "tabular",
        dataset: str | None = None,
        objective: str = "accuracy",
        observation: str = "feedback",
        evaluation_seed: int = 0,
        repeat_query: str = "cache+charge",
        render_mode: str | None = None,
    ) -> None:
        """Create the environments."""
        super().__init__(
            *_parts(evaluator, objective, metric, table, landscapes, noise, dataset, evaluation_seed),
            num_envs=num_envs,
            autoreset_mode=autoreset_mode,
            horizon=horizon,
            observation=observation,
            fidelity=fidelity,
            repeat_query=repeat_query,
            render_mode=render_mode,
        )
