"""`NAS-MetaQNN-v0`: building a chain of layers one after the other, and training it."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode

from nas_gym.datasets.catalogue import FACTS
from nas_gym.envs.core.construction import ConstructionEnv, ConstructionVectorEnv
from nas_gym.errors import InvalidArgument, UnknownName
from nas_gym.evaluators import Evaluator, make_evaluator
from nas_gym.objectives import OBJECTIVES, Objective
from nas_gym.search_spaces.metaqnn import WIDTHS, MetaQNNSpace

RECIPE = {
    "epochs": 6,
    "batch_size": 50,
    "optimiser": "adam",
    "learning_rate": 5e-3,
    "weight_decay": 0.0,
    "initialisation": "xavier",
    "restarts": 5,
}
"""The recipe for small widths on small data, which is ours; `nas-gym search --preset published` sets the paper's."""

_OF_THE_SPACE = ("dataset", "image_size")


def image_size_of(dataset: str | None, image_size: int | None) -> int:
    """Return the side of the images, without reading the data.

    Args:
        dataset: name or path, None = digits.
        image_size: what images are resized to, None = they are not.

    Raises:
        InvalidArgument: it cannot be known without being told.
    """
    if image_size is not None:
        return image_size
    name = dataset or "digits"
    if name not in FACTS:
        raise InvalidArgument(
            f"the search space depends on the size of the images of {name!r}: give image_size, to which they are "
            f"resized. It is known for {', '.join(FACTS)}."
        )
    return FACTS[name].side


def _parts(
    evaluator: str,
    objective: str,
    metric: str | None,
    space: dict[str, Any],
    sizes: dict[str, Any],
    settings: dict[str, Any],
) -> tuple[MetaQNNSpace, Evaluator, Objective]:
    widths = space.pop("widths")
    if widths not in WIDTHS:
        raise UnknownName("preset of widths", widths, WIDTHS)
    side = image_size_of(settings["dataset"], settings["image_size"])
    grammar = MetaQNNSpace(image_size=side, **WIDTHS[widths], **space)
    # The seed 0 is every evaluator's default; some take none.
    settings["evaluation_seed"] = settings["evaluation_seed"] or None
    fields = {} if metric is None else {"metric": metric}
    built = make_evaluator(evaluator, grammar, _OF_THE_SPACE, sizes=sizes, recipe=RECIPE, **settings)
    return grammar, built, OBJECTIVES[objective](**fields)


class MetaQNNEnv(ConstructionEnv):
    """Build a convolutional network layer by layer; the reward comes from training it now.

    ## Description

    The decision process of MetaQNN: an agent appends one layer after the other to a chain, each a whole choice of kind
    and size, until it appends the softmax. The finished chain is trained from scratch on a data set by name or path,
    in a worker process; failures end the episode with the failure reward and a status, never the search.

    | Layer | Notation | Choices |
    |---|---|---|
    | convolution, same padding, stride 1, ReLU | `C(filters,kernel,1)` | 4 widths x kernels 1, 3, 5 |
    | max pooling | `P(kernel,stride)` | (5,3), (3,2), (2,2) |
    | fully connected, ReLU | `FC(neurons)` | 3 widths |
    | global average pooling: 1x1 convolution to the classes, ReLU, average | `GAP` | |
    | softmax, the end | `SM` | |

    What is legal: `SM` always; at `max_depth` layers, and behind `GAP`, nothing else; pooling not first, not behind
    pooling, and only where its window fits; fully connected layers at representation sizes below 8, behind one only
    others that are not wider, at most two in a row; kernels up to the representation size, binned as at least 8, 4 to
    7 and up to 3. Pooling leads from size s to ceil((s - kernel + 1) / stride). Dropout lies behind every second layer
    and behind fully connected ones, with probabilities that rise to one half.

    Deviations from the paper: widths, depth, data set and recipe of the default are ours, made for minutes on two
    cores; `--preset published` of `nas-gym search` sets the paper's. The window of a pooling layer must fit into the
    true representation size, where the published agent knows its bin only. A network that never learns has the
    accuracy that it has; the released code gives 1 / classes. One that diverges gets the failure reward. With 32-pixel
    images the published networks have 11.31, 2.22 and 2.54 million parameters; their published 11.26, 2.22 and 1.62
    million are those of 28-pixel images. `kernel_rule="released"` follows the code, which leaves no convolution up to
    size 3.

    ## Action Space

    `Discrete(20)`: the next layer. Actions 0 to 11 are the convolutions (kernel 1, 3, 5; within a kernel the widths
    ascending), 12 to 14 the poolings, 15 to 17 the fully connected layers (widest first), 18 `GAP`, 19 `SM`.

    ## Observation Space

    `MultiDiscrete([21] * (max_depth + 1))`: for every layer 0 while it is undecided, else its action plus one. With
    `observation="states"` the published agent's state `MultiDiscrete([21, max_depth + 2, 3, 3])`: last layer (0 =
    none), depth, bin of the representation size, fully connected layers in a row. `observation="one_hot"` is the
    default as a flat float32 `Box`.

    ## Rewards

    0 before the softmax; with it the objective's value, by default the validation accuracy in [0, 1] after the last
    epoch. `metric="best_valid_accuracy"`, the best of all epochs, is what the released code uses. A failed child gives
    the objective's failure reward (-1 by default).

    ## Starting State

    No layer.

    ## Episode End

    Terminates with `SM`, at the latest after `max_depth + 1` steps; never truncates.

    ## Information

    `action_mask` (int8, shape (20,)) at every reset and step; at the end also `encoding`, `status` (`"ok"` or why it
    failed), `metrics`, `cost_seconds` and, after a failure, `message`, as in `NAS-Cell-Train-v0`.
    `env.unwrapped.space.to_string(info["encoding"])` is the published notation.

    ## Arguments

    | Argument | Default | Meaning |
    |---|---|---|
    | `dataset` | `None` = `"digits"` | a name (`nas-gym datasets list`), a `.npz` file or a folder of images |
    | `image_size` | `None` | side to which every image is resized; needed for paths |
    | `subset`, `split_seed`, `valid_share` | | as in `NAS-Cell-Train-v0` |
    | `metric` | `None` = `"valid_accuracy"` | also `"best_valid_accuracy"`, `"valid_balanced_accuracy"`, ... |
    | `max_depth` | `12` | layers before the softmax; the paper has 12 for MNIST and SVHN, 18 for CIFAR-10 |
    | `widths` | `"small"` | filters 8 to 64, neurons 64 to 16; also `"tiny"` (4 to 32), `"published"` (64 to 512) |
    | `max_fully_connected` | `2` | fully connected layers in a row |
    | `pool_first` | `False` | whether pooling may come first |
    | `kernel_rule` | `"paper"` | also `"released"` |
    | `layer_dropout` | `True` | whether the networks have the published dropout layers |
    | `batch_norm` | `False` | whether batch normalisation follows every convolution |
    | `epochs`, `batch_size`, `learning_rate`, ... | 6, 50, 0.005 with Adam, ... | fields of `Recipe` |
    | `max_parameters`, `max_train_seconds`, `latency`, ... | `None` | limits, as in `NAS-Cell-Train-v0` |
    | `workers` | `None` = `1` | worker processes; 0 = train in this process |
    | `store` | `None` = temporary | path of the evaluation store |
    | `device`, `children_per_gpu`, `retries` | | as in `NAS-Cell-Train-v0` |
    | `fidelity` | `None` = all | epochs of the recipe; per episode `reset(options={"fidelity": 3})` |
    | `evaluator` | `"training"` | also `"synthetic"` or `module:Class` |
    | `objective` | `"accuracy"` | a name in `nas_gym.OBJECTIVES` or `module:Class` |
    | `observation` | `"prefix"` | also `"states"`, `"one_hot"` |
    | `evaluation_seed` | `0` | seed of all trainings |
    | `repeat_query` | `"cache+charge"` | also `"resample+charge"`, `"cache+free"`: what a repetition gives and costs |
    | `render_mode` | `None` | `"ansi"`, `"rgb_array"` or `"human"` |

    ```python
    >>> import gymnasium as gym, nas_gym
    >>> env = gym.make("NAS-MetaQNN-v0", evaluator="synthetic")
    >>> observation, info = env.reset(seed=0)
    >>> for action in (7, 14, 16, 19):
    ...     observation, reward, terminated, truncated, info = env.step(action)
    >>> env.unwrapped.space.to_string(info["encoding"])
    'C(64,3,1) P(2,2) FC(32) SM'

    ```

    Call `close()` when done: it stops the worker processes.

    ## Registered Environments

    `NAS-MetaQNN-v0`; in spawned workers `nas_gym:NAS-MetaQNN-v0`.

    ## References

    - B. Baker, O. Gupta, N. Naik, R. Raskar: Designing Neural Network Architectures using Reinforcement Learning.
      ICLR 2017, arXiv 1611.02167.

    ## Version History

    - v0: first version.
    """

    def __init__(
        self,
        dataset: str | None = None,
        metric: str | None = None,
        fidelity: int | None = None,
        *,
        max_depth: int = 12,
        widths: str = "small",
        max_fully_connected: int = 2,
        pool_first: bool = False,
        kernel_rule: str = "paper",
        layer_dropout: bool = True,
        batch_norm: bool = False,
        image_size: int | None = None,
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
        space = {
            "widths": widths,
            "max_depth": max_depth,
            "max_fully_connected": max_fully_connected,
            "pool_first": pool_first,
            "kernel_rule": kernel_rule,
        }
        sizes = {"layer_dropout": layer_dropout, "batch_norm": batch_norm}
        settings = {"dataset": dataset, "image_size": image_size, "workers": workers, "store": store}
        settings["evaluation_seed"] = evaluation_seed
        super().__init__(
            *_parts(evaluator, objective, metric, space, sizes, {**settings, **training}),
            observation=observation,
            fidelity=fidelity,
            repeat_query=repeat_query,
            render_mode=render_mode,
        )


class MetaQNNVectorEnv(ConstructionVectorEnv):
    """`MetaQNNEnv` for many episodes at once; a step trains all finished chains on all workers.

    See there for everything but `num_envs` and `autoreset_mode`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        dataset: str | None = None,
        metric: str | None = None,
        fidelity: int | None = None,
        *,
        max_depth: int = 12,
        widths: str = "small",
        max_fully_connected: int = 2,
        pool_first: bool = False,
        kernel_rule: str = "paper",
        layer_dropout: bool = True,
        batch_norm: bool = False,
        image_size: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
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
        """Create the environments."""
        space = {
            "widths": widths,
            "max_depth": max_depth,
            "max_fully_connected": max_fully_connected,
            "pool_first": pool_first,
            "kernel_rule": kernel_rule,
        }
        sizes = {"layer_dropout": layer_dropout, "batch_norm": batch_norm}
        settings = {"dataset": dataset, "image_size": image_size, "workers": workers, "store": store}
        settings["evaluation_seed"] = evaluation_seed
        super().__init__(
            *_parts(evaluator, objective, metric, space, sizes, {**settings, **training}),
            num_envs=num_envs,
            autoreset_mode=autoreset_mode,
            observation=observation,
            fidelity=fidelity,
            repeat_query=repeat_query,
            render_mode=render_mode,
        )
