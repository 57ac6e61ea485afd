"""`NAS-BlockQNN-v0`: building a block layer by layer, stacking it into a network, and training that."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode

from nas_gym.envs.core.construction import ConstructionEnv, ConstructionVectorEnv
from nas_gym.evaluators import Evaluator, make_evaluator
from nas_gym.objectives import OBJECTIVES, Objective
from nas_gym.search_spaces.blockqnn import BlockQNNSpace

RECIPE = {
    "epochs": 6,
    "batch_size": 50,
    "optimiser": "adam",
    "learning_rate": 5e-3,
    "weight_decay": 0.0,
    "initialisation": "he",
    "restarts": 3,
}
"""The recipe for small networks on small data, which is ours; `nas-gym search --preset published` sets the paper's."""


def _parts(
    evaluator: str,
    objective: str,
    metric: str | None,
    space: dict[str, Any],
    sizes: dict[str, Any],
    settings: dict[str, Any],
) -> tuple[BlockQNNSpace, Evaluator, Objective]:
    grammar = BlockQNNSpace(**space)
    # The seed 0 is every evaluator's default; some take none.
    settings["evaluation_seed"] = settings["evaluation_seed"] or None
    fields = {} if metric is None else {"metric": metric}
    built = make_evaluator(evaluator, grammar, sizes=sizes, recipe=RECIPE, **settings)
    return grammar, built, OBJECTIVES[objective](**fields)


class BlockQNNEnv(ConstructionEnv):
    """Build a block of layers with arbitrary connections; the reward comes from training a stack of it now.

    ## Description

    The decision process of BlockQNN: an agent appends one network structure code (index, type, kernel, predecessor 1,
    predecessor 2) after the other to a block, until it appends the terminal. Predecessors are earlier layers or the
    block's input 0; what no layer consumes is concatenated into the block's output. The network is a 3x3 convolution,
    stages of equal blocks with pooling and doubled channels between them, and global average pooling with a linear
    classifier. It is trained from scratch on a data set by name or path, in a worker process; failures end the episode
    with the failure reward and a status, never the search.

    | Layer | Type | Kernels | Predecessors |
    |---|---|---|---|
    | convolution (ReLU, convolution, batch normalisation) | 1 | 1, 3, 5 | 1 |
    | max pooling | 2 | 1, 3 | 1 |
    | average pooling | 3 | 1, 3 | 1 |
    | identity | 4 | 0 | 1 |
    | elemental add | 5 | 0 | 2 |
    | concatenation | 6 | 0 | 2 |
    | terminal | 7 | 0 | 0 |

    What is legal: predecessors below the own index, two different ones; the terminal not first; at index `max_index`
    the terminal alone.

    Deviations from the paper, whose full text could not be read: the sizes, data set and recipe of the default are
    ours, made for minutes on two cores; `--preset published` of `nas-gym search` sets what is known of the paper's. The
    channel rule is that of a port: every convolution has the channels of its stage; operands of an addition that have
    others, every concatenation, and a block output of other channels pass a 1x1 convolution. Whether the paper forbids
    equal predecessors is not known. The accuracy is in percent and the logarithms are natural, both from memory; FLOPs
    are two per multiply-add of the whole network. Blocks are trained as the canonical representative of their
    isomorphism class.

    ## Action Space

    `Discrete(2 P^2 + 6 P + 1)` with P = `max_index - 1`: the next layer code, 109 with the default `max_index=7`, 1,101
    with the published 23. `env.unwrapped.space.decision(())` lists the labels.

    ## Observation Space

    `MultiDiscrete([C + 1] * max_index)` with C actions: for every layer 0 while it is undecided, else its action plus
    one. With `observation="states"` the published agent's state, the last layer's code,
    `MultiDiscrete([max_index + 1, 8, 6, P, P])`. `observation="one_hot"` is the default as a flat float32 `Box`.

    ## Rewards

    0 before the terminal; with it the objective's value, by default 100 x accuracy - ln FLOPs - 8 ln (edges / nodes),
    with the validation accuracy after the last epoch. A failed child gives the objective's failure reward (-1000). The
    paper credits decisions before the last with r / T; that is the agent's business (`q_learning` with
    `intermediate_reward=length`), since the environment knows r at the end only.

    ## Starting State

    No layer.

    ## Episode End

    Terminates with the terminal code, after two to `max_index` steps; never truncates.

    ## Information

    `action_mask` (int8, shape (C,)) at every reset and step; at the end also `encoding`, `status` (`"ok"` or why it
    failed), `metrics` (with `nodes` and `edges` of the block), `cost_seconds` and, after a failure, `message`, as in
    `NAS-Cell-Train-v0`. `env.unwrapped.space.to_string(info["encoding"])` is the published list of codes.

    ## Arguments

    | Argument | Default | Meaning |
    |---|---|---|
    | `dataset` | `None` = `"digits"` | a name (`nas-gym datasets list`), a `.npz` file or a folder of images |
    | `image_size`, `subset`, `split_seed`, `valid_share` | | as in `NAS-Cell-Train-v0` |
    | `metric` | `None` = `"valid_accuracy"` | accuracy that the objective reads |
    | `max_index` | `7` | index at which the terminal must come; the paper has 23 (from memory) |
    | `equal_predecessors` | `False` | whether an addition or concatenation may take one input twice |
    | `channels` | `8` | channels of the first stage; the paper has 32 |
    | `blocks_per_stage` | `1` | equal blocks in a stage; the paper has 4 |
    | `stages` | `2` | stages; the paper has 3 |
    | `epochs`, `batch_size`, `learning_rate`, ... | 6, 50, 0.005 with Adam, ... | fields of `Recipe` |
    | `max_parameters`, `max_train_seconds`, `latency`, ... | `None` | limits, as in `NAS-Cell-Train-v0` |
    | `workers` | `None` = `1` | worker processes; 0 = train in this process |
    | `store` | `None` = temporary | path of the evaluation store |
    | `device`, `children_per_gpu`, `retries` | | as in `NAS-Cell-Train-v0` |
    | `fidelity` | `None` = all | epochs of the recipe; per episode `reset(options={"fidelity": 3})` |
    | `evaluator` | `"training"` | also `"synthetic"` or `module:Class` |
    | `objective` | `"blockqnn"` | a name in `nas_gym.OBJECTIVES` or `module:Class` |
    | `observation` | `"prefix"` | also `"states"`, `"one_hot"` |
    | `evaluation_seed` | `0` | seed of all trainings |
    | `repeat_query` | `"cache+charge"` | also `"resample+charge"`, `"cache+free"`: what a repetition gives and costs |
    | `render_mode` | `None` | `"ansi"`, `"rgb_array"` or `"human"` |

    Call `close()` when done: it stops the worker processes.

    ## Registered Environments

    `NAS-BlockQNN-v0`; in spawned workers `nas_gym:NAS-BlockQNN-v0`.

    ## References

    - Z. Zhong, J. Yan, W. Wu, J. Shao, C.-L. Liu: Practical Block-wise Neural Network Architecture Generation. CVPR
      2018, arXiv 1708.05552.

    ## Version History

    - v0: first version.
    """

    def __init__(
        self,
        dataset: str | None = None,
        metric: str | None = None,
        fidelity: int | None = None,
        *,
        max_index: int = 7,
        equal_predecessors: bool = False,
        channels: int = 8,
        blocks_per_stage: int = 1,
        stages: int = 2,
        workers: int | None = None,
        store: str | None = None,
        evaluator: str = "training",
        objective: str = "blockqnn",
        observation: str = "prefix",
        evaluation_seed: int = 0,
        repeat_query: str = "cache+charge",
        render_mode: str | None = None,
        **training: Any,  # noqa: ANN401 - JSON scalars: fields of the recipe, the limits and the data
    ) -> None:
        """Create the environment; the class documents the arguments."""
        space = {"max_index": max_index, "equal_predecessors": equal_predecessors}
        sizes = {"channels": channels, "blocks_per_stage": blocks_per_stage, "stages": stages}
        settings = {"dataset": dataset, "workers": workers, "store": store, "evaluation_seed": evaluation_seed}
        super().__init__(
            *_parts(evaluator, objective, metric, space, sizes, {**settings, **training}),
            observation=observation,
            fidelity=fidelity,
            repeat_query=repeat_query,
            render_mode=render_mode,
        )


class BlockQNNVectorEnv(ConstructionVectorEnv):
    """`BlockQNNEnv` for many episodes at once; a step trains all finished blocks on all workers.

    See there for everything but `num_envs` and `autoreset_mode`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        dataset: str | None = None,
        metric: str | None = None,
        fidelity: int | None = None,
        *,
        max_index: int = 7,
        equal_predecessors: bool = False,
        channels: int = 8,
        blocks_per_stage: int = 1,
        stages: int = 2,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        workers: int | None = None,
        store: str | None = None,
        evaluator: str = "training",
        objective: str = "blockqnn",
        observation: str = "prefix",
        evaluation_seed: int = 0,
        repeat_query: str = "cache+charge",
        render_mode: str | None = None,
        **training: Any,  # noqa: ANN401 - JSON scalars: fields of the recipe, the limits and the data
    ) -> None:
        """Create the environments."""
        space = {"max_index": max_index, "equal_predecessors": equal_predecessors}
        sizes = {"channels": channels, "blocks_per_stage": blocks_per_stage, "stages": stages}
        settings = {"dataset": dataset, "workers": workers, "store": store, "evaluation_seed": evaluation_seed}
        super().__init__(
            *_parts(evaluator, objective, metric, space, sizes, {**settings, **training}),
            num_envs=num_envs,
            autoreset_mode=autoreset_mode,
            observation=observation,
            fidelity=fidelity,
            repeat_query=repeat_query,
            render_mode=render_mode,
        )
