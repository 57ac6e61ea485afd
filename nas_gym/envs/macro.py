"""`NAS-Macro-v0`: choosing the blocks of a mobile network's eight layers, one after the other."""

from __future__ import annotations

from gymnasium.vector import AutoresetMode

from nas_gym.envs.core.construction import ConstructionEnv, ConstructionVectorEnv
from nas_gym.envs.core.imported import BenchmarkTables
from nas_gym.evaluators import Evaluator, make_evaluator
from nas_gym.objectives import OBJECTIVES, Objective
from nas_gym.search_spaces.nas_bench_macro import NASBenchMacroSpace

BENCHMARK = BenchmarkTables("macro", "cifar10", "nas-bench-macro_cifar10.json")


def _parts(
    evaluator: str,
    objective: str,
    metric: str | None,
    table: str | None,
    noise: str | None,
    dataset: str | None,
    evaluation_seed: int,
) -> tuple[NASBenchMacroSpace, Evaluator, Objective]:
    space = NASBenchMacroSpace()
    # What is left at its default is not passed on, so that evaluators and objectives without it can be used too.
    settings = {
        "table": BENCHMARK.choose(evaluator, table),
        "noise": noise,
        "dataset": dataset,
        "evaluation_seed": evaluation_seed or None,
    }
    fields = {} if metric is None else {"metric": metric}
    return space, make_evaluator(evaluator, space, **settings), OBJECTIVES[objective](**fields)


class MacroEnv(ConstructionEnv):
    """Choose the block of one layer of a mobile network after the other.

    ## Description

    The space of NAS-Bench-Macro: a stem, three stages of 2, 3 and 3 layers, a head. Each layer is an identity or an
    inverted bottleneck as in MobileNetV2, narrow or wide, which gives 6,561 encodings. The first layer of a stage
    halves the image and doubles the channels, where an identity becomes a strided 1x1 convolution; other identities may
    stand anywhere in their stage without changing the network, so that there are 3,969 different ones.
    `env.unwrapped.space.canonical(encoding)` names them as the benchmark does, identities last.

    The finished network is looked up in a table of the benchmark, for which each of the different networks was trained
    three times. None is packaged; import the official file once:

    ```
    nas-gym tables import nas-bench-macro_cifar10.json --name macro
    ```

    Without it, `evaluator="synthetic"` answers from an analytic landscape, and `evaluator="training"` builds the
    official network and trains it now.

    Deviations from the benchmark: the benchmark defines no decision process; the order of the layers, which is that of
    the official string, and the reward at the end are ours. It publishes test accuracies only, of three trainings: the
    imported table takes the first as the search signal, under the name `valid_accuracy`, and holds out the published
    mean of all three, `test_accuracy`. It has no training times, so that queries cost 0 simulated seconds.

    ## Action Space

    `Discrete(3)`: the block of the current layer, the digit of the official string.

    | Action | Block |
    |---|---|
    | 0 | `Identity` |
    | 1 | `MB3_K3`, expansion 3, depthwise 3x3 convolution |
    | 2 | `MB6_K5`, expansion 6, depthwise 5x5 convolution |

    Every action is always legal.

    ## Observation Space

    `MultiDiscrete([4, 4, 4, 4, 4, 4, 4, 4])`: for every layer 0 while it is undecided, else its action plus one. With
    `observation="one_hot"` the same content as `Box(0, 1, (32,), float32)`; `observation="states"` equals the default,
    since no state is published.

    ## Rewards

    0 for the first seven steps; at the eighth the objective's value, by default the accuracy in [0, 1].
    A failed evaluation gives the objective's failure reward (-1 by default).

    ## Starting State

    No layer is decided.

    ## Episode End

    Terminates after eight steps; never truncates.

    ## Information

    `action_mask` (int8, shape (3,)) at every reset and step; at the end also `encoding` (eight integers), `status`
    (`"ok"` or why it failed), `metrics` (search-time metrics by name), `cost_seconds` (simulated or measured) and,
    after a failure, `message`. `env.unwrapped.space.to_string(info["encoding"])` is the official notation.

    ## Arguments

    | Argument | Default | Meaning |
    |---|---|---|
    | `table` | `None` = `"macro-cifar10"` | name of an imported table or path of a `.parquet` file |
    | `metric` | `None` = `"valid_accuracy"` | accuracy that the objective reads; held-out metrics are refused |
    | `fidelity` | `None` = all | epochs before the accuracy is read; the imported table has those of 50 only |
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
    >>> env = gym.make("NAS-Macro-v0", evaluator="synthetic")
    >>> observation, info = env.reset(seed=0)
    >>> for action in (2, 2, 2, 1, 2, 2, 0, 2):
    ...     observation, reward, terminated, truncated, info = env.step(action)
    >>> env.unwrapped.space.to_string(info["encoding"])
    '22212202'

    ```

    ## Registered Environments

    `NAS-Macro-v0`; in spawned workers `nas_gym:NAS-Macro-v0`.

    ## References

    - X. Su, T. Huang, Y. Li, S. You, F. Wang, C. Qian, C. Zhang, C. Xu: Prioritized Architecture Sampling with
      Monto-Carlo Tree Search. CVPR 2021, arXiv 2103.11922.

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


class MacroVectorEnv(ConstructionVectorEnv):
    """`MacroEnv` for many episodes at once; see there for everything but `num_envs` and `autoreset_mode`."""

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
