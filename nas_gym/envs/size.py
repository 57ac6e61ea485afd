"""`NAS-Size-v0`: choosing the widths of a network's five layers, one after the other."""

from __future__ import annotations

from gymnasium.vector import AutoresetMode

from nas_gym.envs.core.construction import ConstructionEnv, ConstructionVectorEnv
from nas_gym.envs.core.imported import BenchmarkTables
from nas_gym.evaluators import Evaluator, make_evaluator
from nas_gym.objectives import OBJECTIVES, Objective
from nas_gym.search_spaces.nats_size import NATSSizeSpace

BENCHMARK = BenchmarkTables("nats-size", "cifar10", "NATS-sss-v1_0-50262-simple")


def _parts(
    evaluator: str,
    objective: str,
    metric: str | None,
    table: str | None,
    noise: str | None,
    dataset: str | None,
    evaluation_seed: int,
) -> tuple[NATSSizeSpace, Evaluator, Objective]:
    space = NATSSizeSpace()
    # What is left at its default is not passed on, so that evaluators and objectives without it can be used too.
    settings = {
        "table": BENCHMARK.choose(evaluator, table),
        "noise": noise,
        "dataset": dataset,
        "evaluation_seed": evaluation_seed or None,
    }
    fields = {} if metric is None else {"metric": metric}
    return space, make_evaluator(evaluator, space, **settings), OBJECTIVES[objective](**fields)


class SizeEnv(ConstructionEnv):
    """Choose the number of channels of one layer of a fixed network after the other.

    ## Description

    The size space of NATS-Bench: a stem, three equal cells of 3x3 convolutions and two residual reductions between
    them. Their operations are fixed, their widths are not: each of the five layers puts out 8, 16, ... or 64 channels,
    which gives 32,768 different networks. Neighbouring choices are similar, and every channel costs parameters and
    multiply-adds, so that the space suits objectives that weigh accuracy against them.

    The finished network is looked up in a table of the benchmark. None is packaged; import the official files once:

    ```
    nas-gym tables import NATS-sss-v1_0-50262-simple --name nats-size
    ```

    The imported table answers with validation accuracies of the trainings of 12 epochs, which the benchmark's own
    searches read, and holds out the test accuracy after 90.

    Without a table, `evaluator="synthetic"` answers from an analytic landscape, and `evaluator="training"` builds the
    official network and trains it now.

    Deviations from the benchmark: the benchmark defines no decision process; the order of the layers, which is that of
    the official string, and the reward at the end are ours.

    ## Action Space

    `Discrete(8)`: the channels of the current layer, 8 x (action + 1).

    | Action | Channels |
    |---|---|
    | 0, 1, 2, 3 | 8, 16, 24, 32 |
    | 4, 5, 6, 7 | 40, 48, 56, 64 |

    Every action is always legal. The layers come in the order: first cell (and the stem before it), first reduction,
    second cell, second reduction, third cell.

    ## Observation Space

    `MultiDiscrete([9, 9, 9, 9, 9])`: for every layer 0 while it is undecided, else its action plus one. With
    `observation="one_hot"` the same content as `Box(0, 1, (45,), float32)`; `observation="states"` equals the default,
    since no state is published.

    ## Rewards

    0 for the first four steps; at the fifth the objective's value, by default the validation accuracy in [0, 1].
    A failed evaluation gives the objective's failure reward (-1 by default).

    ## Starting State

    No layer is decided.

    ## Episode End

    Terminates after five steps; never truncates.

    ## Information

    `action_mask` (int8, shape (8,)) at every reset and step; at the end also `encoding` (five integers), `status`
    (`"ok"` or why it failed), `metrics` (search-time metrics by name), `cost_seconds` (simulated or measured) and,
    after a failure, `message`. `env.unwrapped.space.to_string(info["encoding"])` is the official notation.

    ## Arguments

    | Argument | Default | Meaning |
    |---|---|---|
    | `table` | `None` = `"nats-size-cifar10"` | name of an imported table or path of a `.parquet` file |
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
    >>> env = gym.make("NAS-Size-v0", evaluator="synthetic")
    >>> observation, info = env.reset(seed=0)
    >>> for action in (0, 0, 4, 3, 4):
    ...     observation, reward, terminated, truncated, info = env.step(action)
    >>> env.unwrapped.space.to_string(info["encoding"])
    '8:8:40:32:40'

    ```

    ## Registered Environments

    `NAS-Size-v0`; in spawned workers `nas_gym:NAS-Size-v0`.

    ## References

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


class SizeVectorEnv(ConstructionVectorEnv):
    """`SizeEnv` for many episodes at once; see there for everything but `num_envs` and `autoreset_mode`."""

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
