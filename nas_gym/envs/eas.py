"""`NAS-EAS-v0`: a trained network grows wider and deeper, and its child inherits the weights."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gymnasium.vector import AutoresetMode

from nas_gym.envs.core.construction import ConstructionEnv, ConstructionVectorEnv
from nas_gym.errors import InvalidArgument, InvalidEncoding, MissingExtra, UnknownName
from nas_gym.evaluators import Evaluator, make_evaluator
from nas_gym.evaluators.parents import find_parent
from nas_gym.objectives import OBJECTIVES, Objective
from nas_gym.search_spaces.eas import PAPER, SMALL, EASDenseSpace, EASSpace

STARTS: Mapping[str, Any] = MappingProxyType(
    {
        "small": lambda **counts: EASSpace(**{**SMALL, **counts}),
        "demo": EASSpace,
        "paper": lambda **counts: EASSpace(**{**PAPER, **counts}),
        "densenet": EASDenseSpace,
    }
)
"""Start networks with their levels, by the name that the argument `start` takes."""

RECIPE: Mapping[str, Any] = MappingProxyType(
    {"epochs": 3, "batch_size": 50, "learning_rate": 0.02, "weight_decay": 1e-4}
)
"""How children are trained: small networks on small data, which is ours."""

PUBLISHED: Mapping[str, Any] = MappingProxyType(
    {"epochs": 20, "batch_size": 64, "augmentation": "crop,flip", "start_epochs": 300}
)
"""What the released code does otherwise on CIFAR-10, as arguments of the environment."""


def _parts(
    evaluator: str,
    objective: str,
    metric: str | None,
    start: str,
    shape: dict[str, Any],
    settings: dict[str, Any],
) -> tuple[EASSpace | EASDenseSpace, Evaluator, Objective]:
    if start not in STARTS:
        raise UnknownName("start network", start, STARTS)
    space = _space(start, shape, settings["parent"], settings["store"])
    # The seed 0 is every evaluator's default; some take none.
    settings["evaluation_seed"] = settings["evaluation_seed"] or None
    fields = {} if metric is None else {"metric": metric}
    built = make_evaluator(evaluator, space, shared=("parent",), recipe=dict(RECIPE), **settings)
    return space, built, OBJECTIVES[objective](**fields)


def _space(start: str, shape: dict[str, Any], parent: str | None, store: str | None) -> EASSpace | EASDenseSpace:
    """Return the space whose episodes begin at a published start network or at one that grew before."""
    given = {name: value for name, value in shape.items() if value is not None}
    network = given.pop("network", None)
    if isinstance(network, str):
        # What a search prints are its decisions; they stand for the layers that they lead to.
        earlier = STARTS[start](**given)
        with suppress(InvalidEncoding):
            network = str(earlier.decode(earlier.from_string(network)))
    if parent is not None:
        network = _layers_of(parent, store, network)
    return STARTS[start](**given, **({} if network is None else {"network": network}))


def _layers_of(parent: str, store: str | None, network: str | None) -> str:
    """Return the layers of a trained network, as the argument `network` names them.

    Raises:
        InvalidArgument: its weights are gone, or `network` names other layers.
        MissingExtra: torch is not installed.
        MorphError: the file is no network, or none of EAS's.
    """
    try:
        from nas_gym.networks.eas_parents import layers_of
        from nas_gym.networks.morph import load_parent
    except ImportError as error:
        raise MissingExtra("parent", "train", error) from error
    found = layers_of(load_parent(find_parent(parent, None if store is None else Path(store))).graph)
    if network is not None and network not in (str(found), found.short):
        raise InvalidArgument(f"network = {network!r}, but the parent {parent} is {found}: leave network out.")
    return str(found)


class EASEnv(ConstructionEnv):
    """Widen and deepen a trained network; the reward comes from training the child that inherits its weights.

    ## Description

    The decision process of EAS (Efficient Architecture Search): every episode begins with the same trained network.
    First come wider steps, in which every hidden layer may take its next larger width (Net2Wider), then deeper steps,
    each of which puts in one layer behind another (Net2Deeper). The child computes what its parent computed, up to a
    little noise, and is then trained for a few epochs, in a worker process; failures end the episode with the failure
    reward and a status, never the search. The start network is trained once, before the first child, and kept in the
    store. Equal networks are trained once, as the representative whose layers grow as early as possible.

    | `start` | Network | Wider, deeper steps |
    |---|---|---|
    | `"small"` | C8 P C16 A F16, widths to 48 and 64; for images of 8x8 pixels, ours | 2, 3 |
    | `"demo"` | C4 P C4 P C4 P C4 A F8, widths to 40 and 80; the released code's | 4, 5 |
    | `"paper"` | C16 P C32 P C64 P C128 A F256, widths to 512 and 1024 | 4, 5 |
    | `"densenet"` | DenseNet-BC with 3 blocks of one layer, growth 4, growth rates to 48; the released code's | 10, 5 |

    Convolutions have kernels of 3 at the start and of 1, 3 or 5 where they are put in. New layers are as wide as the
    one before them. In the DenseNet, stem and transitions follow the growth at the end of the episode.

    What is legal: a layer of the largest width stays; a block of `max_layers` takes no more (10, small: 4, DenseNet:
    20); a position that exists.

    Deviations from the paper and its code: in a wider step all layers are decided at once there, here one after the
    other, each with the earlier decisions of the step in view. A full block is masked. What is observed also tells the
    step and what the decision is about. The learning rate falls after every update, not after every epoch. The default
    sizes and recipe are ours, made for minutes on two cores; `nas_gym.envs.eas.PUBLISHED` has the arguments of the
    code's. The training of the start network is not charged to `cost_seconds`.

    **Two stages.** In the paper, the best network of a first search is trained on and becomes the start of a second
    one. `parent` names it: the directory of the first search, a file of weights, or the `artifact` of an answer in the
    `store`. Episodes then begin at its layers, which may grow to the levels of `start`, and children inherit its
    weights as they are, or after `start_epochs` of further training. A second search on digits, in minutes:

    ```text
    nas-gym search --env NAS-EAS-v0 --agent eas --budget 60 --out runs/stage1
    nas-gym search --env NAS-EAS-v0 --agent eas --budget 30 --out runs/stage2 --env-arg parent=runs/stage1 \
        --env-arg start_epochs=10 --env-arg max_layers=6
    ```

    `network` without `parent` begins at layers that are trained from scratch: `"C8x3 C8x5 P C16x3 A F16"`; a DenseNet
    `"S D4 D4 T D4 A"`, or with the widths of stem and transitions `"S8 D4 D4 T8 D4 A"`; or an architecture as a search
    from the same `start` with the same counts prints it.

    **Resumption.** A search that was killed goes on with the same architectures, weights and rewards, since all
    trainings are seeded by what is trained, and all agents by the search; wherever the record ends, in a batch or
    between two. Not so with `--workers N` (no barrier): there the agent learns from children in the order in which
    their trainings end, which two runs of one seed do not share either.

    ## Action Space

    `Discrete(C)`, C = 4 with `start="small"`, 10 (20) with the plain CNNs (DenseNet) of the code.

    | Decision | Action |
    |---|---|
    | wider, of every layer in turn | 0 keep, 1 next larger width |
    | block of a new layer | its index; the fully connected layers are the last block |
    | position in the block | index of the layer behind which it comes |
    | kernel, of convolutions only | 0, 1, 2: kernels of 1, 3, 5 |

    ## Observation Space

    `MultiDiscrete` of 4 + T features, T the largest number of layers: steps finished; token of the layer that the
    decision is about plus one, 0 = none; chosen block plus one; chosen position plus one; then one token per layer of
    the network as it is now: 0 beyond the last, 1 for pooling or a transition, else its sort, width and kernel.
    `observation="states"` equals the default; `observation="one_hot"` is it as a flat float32 `Box`.

    ## Rewards

    0 before the last decision; with it the objective's value, by default tan(accuracy x pi / 2) of the validation
    accuracy after the last epoch. A failed child gives the objective's failure reward.

    ## Starting State

    The start network, no step finished.

    ## Episode End

    Terminates after the last deeper step, which takes wider x layers + 2 to 3 x deeper decisions; never truncates.

    ## Information

    `action_mask` (int8, shape (C,)) at every reset and step; at the end also `encoding`, `status` (`"ok"` or why it
    failed), `metrics`, `cost_seconds` (of the child alone) and, after a failure, `message`.
    `str(env.unwrapped.space.decode(info["encoding"]))` names the resulting layers.

    ## Arguments

    | Argument | Default | Meaning |
    |---|---|---|
    | `dataset` | `None` = `"digits"` | a name (`nas-gym datasets list`), a `.npz` file or a folder of images |
    | `image_size`, `subset`, `split_seed`, `valid_share` | | as in `NAS-Cell-Train-v0` |
    | `metric` | `None` = `"valid_accuracy"` | accuracy that the objective reads |
    | `start` | `"small"` | also `"demo"`, `"paper"`, `"densenet"`: the start network and its levels |
    | `network` | `None` = of `start` | other layers to begin at, see Two stages |
    | `parent` | `None` | trained network to begin at, see Two stages |
    | `wider` | `None` = as in the table | wider steps |
    | `deeper` | `None` = as in the table | deeper steps |
    | `max_layers` | `None` = as in the text | largest number of layers in a block |
    | `epochs`, `batch_size`, `learning_rate`, ... | 3, 50, 0.02, ... | fields of the children's `Recipe` |
    | `start_epochs`, `start_learning_rate` | 20 (0 with `parent`), 0.1 | of the start network; else as the children |
    | `wider_noise`, `deeper_noise` | 0.01, 0.001 | on repeated and on inserted weights, in standard deviations |
    | `optimiser_state` | `"reset"` | or `"mapped"`: children's optimisers remember their parent's gradients |
    | `cache_mb` | 1000 | megabytes of children's weights that the store keeps |
    | `max_parameters`, `max_train_seconds`, `latency`, ... | `None` | limits, as in `NAS-Cell-Train-v0` |
    | `workers` | `None` = `1` | worker processes; 0 = train in this process |
    | `store` | `None` = temporary | path of the evaluation store |
    | `device`, `children_per_gpu`, `retries` | | as in `NAS-Cell-Train-v0` |
    | `fidelity` | `None` = all | epochs of the children; per episode `reset(options={"fidelity": 3})` |
    | `evaluator` | `"inheriting"` | also `"training"` (from scratch), `"synthetic"` or `module:Class` |
    | `objective` | `"tangent_accuracy"` | a name in `nas_gym.OBJECTIVES` or `module:Class` |
    | `observation` | `"prefix"` | also `"states"`, `"one_hot"` |
    | `evaluation_seed` | `0` | seed of all trainings |
    | `repeat_query` | `"cache+charge"` | also `"resample+charge"`, `"cache+free"`: what a repetition gives and costs |
    | `render_mode` | `None` | `"ansi"`, `"rgb_array"` or `"human"` |

    ```python
    >>> import gymnasium as gym, nas_gym
    >>> env = gym.make("NAS-EAS-v0", evaluator="synthetic", wider=1, deeper=1)
    >>> observation, info = env.reset(seed=0)
    >>> for action in (1, 0, 1, 0, 0, 2):
    ...     observation, reward, terminated, truncated, info = env.step(action)
    >>> str(env.unwrapped.space.decode(info["encoding"]))
    'C16x3 C16x5 P C16x3 A F32'

    ```

    Call `close()` when done: it stops the worker processes.

    ## Registered Environments

    `NAS-EAS-v0`; in spawned workers `nas_gym:NAS-EAS-v0`.

    ## References

    - H. Cai, T. Chen, W. Zhang, Y. Yu, J. Wang: Efficient Architecture Search by Network Transformation. AAAI 2018,
      arXiv 1707.04873.
    - T. Chen, I. Goodfellow, J. Shlens: Net2Net: Accelerating Learning via Knowledge Transfer. ICLR 2016, arXiv
      1511.05641.

    ## Version History

    - v0: first version.
    """

    def __init__(
        self,
        dataset: str | None = None,
        metric: str | None = None,
        fidelity: int | None = None,
        *,
        start: str = "small",
        network: str | None = None,
        parent: str | None = None,
        wider: int | None = None,
        deeper: int | None = None,
        max_layers: int | None = None,
        workers: int | None = None,
        store: str | None = None,
        evaluator: str = "inheriting",
        objective: str = "tangent_accuracy",
        observation: str = "prefix",
        evaluation_seed: int = 0,
        repeat_query: str = "cache+charge",
        render_mode: str | None = None,
        **training: Any,  # noqa: ANN401 - JSON scalars: fields of the recipe, the limits and the data
    ) -> None:
        """Create the environment; the class documents the arguments."""
        shape = {"network": network, "wider": wider, "deeper": deeper, "max_layers": max_layers}
        settings = {"dataset": dataset, "workers": workers, "store": store, "evaluation_seed": evaluation_seed}
        super().__init__(
            *_parts(evaluator, objective, metric, start, shape, {**settings, "parent": parent, **training}),
            observation=observation,
            fidelity=fidelity,
            repeat_query=repeat_query,
            render_mode=render_mode,
        )


class EASVectorEnv(ConstructionVectorEnv):
    """`EASEnv` for many episodes at once; a step trains all finished children on all workers.

    See there for everything but `num_envs` and `autoreset_mode`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        dataset: str | None = None,
        metric: str | None = None,
        fidelity: int | None = None,
        *,
        start: str = "small",
        network: str | None = None,
        parent: str | None = None,
        wider: int | None = None,
        deeper: int | None = None,
        max_layers: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        workers: int | None = None,
        store: str | None = None,
        evaluator: str = "inheriting",
        objective: str = "tangent_accuracy",
        observation: str = "prefix",
        evaluation_seed: int = 0,
        repeat_query: str = "cache+charge",
        render_mode: str | None = None,
        **training: Any,  # noqa: ANN401 - JSON scalars: fields of the recipe, the limits and the data
    ) -> None:
        """Create the environments."""
        shape = {"network": network, "wider": wider, "deeper": deeper, "max_layers": max_layers}
        settings = {"dataset": dataset, "workers": workers, "store": store, "evaluation_seed": evaluation_seed}
        super().__init__(
            *_parts(evaluator, objective, metric, start, shape, {**settings, "parent": parent, **training}),
            num_envs=num_envs,
            autoreset_mode=autoreset_mode,
            observation=observation,
            fidelity=fidelity,
            repeat_query=repeat_query,
            render_mode=render_mode,
        )
