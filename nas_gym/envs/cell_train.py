"""`NAS-Cell-Train-v0`: building a NAS-Bench-201 cell edge by edge, and training it on one's own data."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode

from nas_gym.envs.core.construction import ConstructionEnv, ConstructionVectorEnv
from nas_gym.evaluators import Evaluator, make_evaluator
from nas_gym.objectives import OBJECTIVES, Objective
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space


def _parts(
    evaluator: str,
    objective: str,
    metric: str | None,
    skeleton: dict[str, Any],
    settings: dict[str, Any],
) -> tuple[NASBench201Space, Evaluator, Objective]:
    space = NASBench201Space()
    # The seed 0 is every evaluator's default; some take none.
    settings["evaluation_seed"] = settings["evaluation_seed"] or None
    fields = {} if metric is None else {"metric": metric}
    sizes = {"skeleton": skeleton}
    return space, make_evaluator(evaluator, space, sizes=sizes, **settings), OBJECTIVES[objective](**fields)


class CellTrainEnv(ConstructionEnv):
    """Build a NAS-Bench-201 cell; the reward comes from training its network now.

    ## Description

    The decisions are those of `NAS-Cell-v0`: six edges, five operations each. The finished cell is put into a network
    of stages with reductions between them, and that network is trained from scratch on a data set by name or path, in
    a worker process. A child that fails in any way (out of memory, diverged, killed, too slow, over a limit, a bug in
    a network) ends the episode with the objective's failure reward and a status; it never ends the search.

    Every answer is committed to a store first; what the store holds is not trained again, and a training that was
    asked for fewer epochs is continued when more are wanted.

    Deviations from the benchmark: the benchmark defines no decision process; the order of the edges and the reward
    at the end are ours. The default network (8 channels, 1 cell a stage, pooling reductions) and recipe (6 epochs) are
    those of the packaged table `digits`; the official ones are `channels=16, cells_per_stage=5, reduction="residual"`
    and 12 or 200 epochs. Above 64 pixels the stem halves the image first. Cells are trained as the canonical
    representative of their isomorphism class.

    ## Action Space

    `Discrete(5)`: the operation of the current edge, as in `NAS-Cell-v0`.

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
    A failed child gives the objective's failure reward (-1 by default).

    ## Starting State

    No edge is decided.

    ## Episode End

    Terminates after six steps; never truncates.

    ## Information

    `action_mask` (int8, shape (5,)) at every reset and step; at the end also `encoding` (six integers), `status`
    (`"ok"` or why it failed), `metrics` (`valid_accuracy`, `valid_balanced_accuracy`, `valid_macro_f1`, `parameters`,
    `multiply_adds`, `train_seconds`, `training_memory_bytes` estimated before, `peak_memory_bytes` measured, and
    `latency_seconds` if asked for), `cost_seconds` and, after a failure, `message`.

    ## Arguments

    | Argument | Default | Meaning |
    |---|---|---|
    | `dataset` | `None` = `"digits"` | a name (`nas-gym datasets list`), a `.npz` file or a folder of images |
    | `image_size` | `None` | side to which every image is resized |
    | `subset` | `None` | use so many training and validation images |
    | `split_seed`, `valid_share` | `0`, `0.1` | how validation images are drawn where the data names none |
    | `metric` | `None` = `"valid_accuracy"` | also `"valid_balanced_accuracy"`, `"valid_macro_f1"` |
    | `channels` | `8` | channels of the first stage; they double at every reduction |
    | `cells_per_stage` | `1` | equal cells in a stage |
    | `stages` | `3` | stages, with a reduction between neighbours |
    | `reduction` | `"pooling"` | also `"residual"`, the official one |
    | `epochs`, `batch_size`, `learning_rate`, ... | as `digits` | every field of `nas_gym.networks.recipe.Recipe` |
    | `max_train_seconds`, `max_parameters`, `max_multiply_adds`, `max_memory_mb`, `max_latency_ms` | `None` | limits |
    | `latency`, `latency_batch` | `None`, `1` | `"local"`, `"module:function"` or a command with `{onnx}` |
    | `workers` | `None` = `1` | worker processes; 0 = train in this process |
    | `device`, `children_per_gpu` | `"auto"`, `1` | where to train |
    | `store` | `None` = temporary | path of the evaluation store |
    | `retries` | `2` | further attempts after a child was killed or out of memory |
    | `builder` | `None` | `module:function` that builds the networks instead |
    | `fidelity` | `None` = all | epochs of the recipe; per episode `reset(options={"fidelity": 3})` |
    | `evaluator` | `"training"` | also `"synthetic"` or `module:Class` |
    | `objective` | `"accuracy"` | a name in `nas_gym.OBJECTIVES` or `module:Class` |
    | `observation` | `"prefix"` | also `"states"`, `"one_hot"` |
    | `evaluation_seed` | `0` | seed of all trainings |
    | `repeat_query` | `"cache+charge"` | also `"resample+charge"`, `"cache+free"`: what a repetition gives and costs |
    | `render_mode` | `None` | `"ansi"`, `"rgb_array"` or `"human"` |

    Call `close()` when done: it stops the worker processes.

    ## Registered Environments

    `NAS-Cell-Train-v0`; in spawned workers `nas_gym:NAS-Cell-Train-v0`.

    ## References

    - X. Dong, Y. Yang: NAS-Bench-201. ICLR 2020, arXiv 2001.00326.
    - B. Baker, O. Gupta, N. Naik, R. Raskar: Designing Neural Network Architectures using Reinforcement Learning.
      ICLR 2017, arXiv 1611.02167 (the restart rule).

    ## Version History

    - v0: first version.
    """

    def __init__(
        self,
        dataset: str | None = None,
        metric: str | None = None,
        fidelity: int | None = None,
        *,
        channels: int = 8,
        cells_per_stage: int = 1,
        stages: int = 3,
        reduction: str = "pooling",
        workers: int | None = None,
        store: str | None = None,
        evaluator: str = "training",
        objective: str = "accuracy",
        observation: str = "prefix",
        evaluation_seed: int = 0,
        repeat_query: str = "cache+charge",
        render_mode: str | None = None,
        **training: Any,  # noqa: ANN401 - JSON scalars: fields of the recipe, the limits and the data
    ) -> None:
        """Create the environment; the class documents the arguments."""
        skeleton = {"channels": channels, "cells_per_stage": cells_per_stage, "stages": stages, "reduction": reduction}
        settings = {"dataset": dataset, "workers": workers, "store": store, "evaluation_seed": evaluation_seed}
        super().__init__(
            *_parts(evaluator, objective, metric, skeleton, {**settings, **training}),
            observation=observation,
            fidelity=fidelity,
            repeat_query=repeat_query,
            render_mode=render_mode,
        )


class CellTrainVectorEnv(ConstructionVectorEnv):
    """`CellTrainEnv` for many episodes at once; a step trains all finished cells on all workers.

    See there for everything but `num_envs` and `autoreset_mode`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        dataset: str | None = None,
        metric: str | None = None,
        fidelity: int | None = None,
        *,
        channels: int = 8,
        cells_per_stage: int = 1,
        stages: int = 3,
        reduction: str = "pooling",
        workers: int | None = None,
        store: str | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        evaluator: str = "training",
        objective: str = "accuracy",
        observation: str = "prefix",
        evaluation_seed: int = 0,
        repeat_query: str = "cache+charge",
        render_mode: str | None = None,
        **training: Any,  # noqa: ANN401 - JSON scalars: fields of the recipe, the limits and the data
    ) -> None:
        """Create the environments."""
        skeleton = {"channels": channels, "cells_per_stage": cells_per_stage, "stages": stages, "reduction": reduction}
        settings = {"dataset": dataset, "workers": workers, "store": store, "evaluation_seed": evaluation_seed}
        super().__init__(
            *_parts(evaluator, objective, metric, skeleton, {**settings, **training}),
            num_envs=num_envs,
            autoreset_mode=autoreset_mode,
            observation=observation,
            fidelity=fidelity,
            repeat_query=repeat_query,
            render_mode=render_mode,
        )
