"""The searches of the papers, value by value, with how sure we are of each.

``nas-gym search --env NAS-MetaQNN-v0 --preset published`` and ``nas-gym train RUN --preset published`` read them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nas_gym.errors import InvalidArgument, UnknownName

from .records import RunDirectory

VERIFIED = "verified"
PORT = "from a port"
NOTES = "from notes"
MEMORY = "from memory"
OURS = "ours"

PRESETS = ("published",)


@dataclass(frozen=True)
class Value:
    """One value of a published search.

    Attributes:
        value: a JSON value.
        source: `VERIFIED` in the paper or its authors' code, `PORT` (in a third party's), `NOTES` (in what others write
            about the paper), `MEMORY` (in no source that could be opened) or `OURS` (where the paper says nothing, or
            we differ).
        note: what else to know.
    """

    value: Any
    source: str = VERIFIED
    note: str = ""


@dataclass(frozen=True)
class PublishedSearch:
    """A search as published.

    Attributes:
        agent: name of the agent.
        budget: queries.
        env_args: arguments of the environment.
        agent_args: settings of the agent.
        final: `top`, `ensemble`, and the data and recipe of the final training, where they differ from the search.
        published_cost: what the paper says of its cost.
        deviations: what this search does not do as the paper.
    """

    agent: str
    budget: Value
    env_args: Mapping[str, Value]
    agent_args: Mapping[str, Value]
    final: Mapping[str, Value]
    published_cost: str
    deviations: tuple[str, ...]

    def rows(self) -> Iterator[tuple[str, str, Value]]:
        """Iterate over (where, name, value)."""
        yield "search", "budget", self.budget
        for where, values in (("--env-arg", self.env_args), ("--agent-arg", self.agent_args), ("train", self.final)):
            for name, value in values.items():
                yield where, name, value


def _metaqnn(dataset: str) -> PublishedSearch:
    """Return the search of Baker et al. (ICLR 2017) on CIFAR-10, SVHN or MNIST."""
    images = {"cifar10": 50_000, "svhn": 73_257, "mnist": 60_000}
    if dataset not in images:
        raise InvalidArgument(
            f"MetaQNN was published for {', '.join(images)}, not for {dataset!r}; name one with --env-arg dataset=..., "
            "or leave --preset out."
        )
    schedules = {
        "cifar10": ("0.025x40,0.0125x40,0.0001x160,0.00001x60", 300),
        "svhn": ("0.025x5,0.0125x5,0.0001x20,0.00001x10", 40),
    }
    final: dict[str, Value] = {"top": Value(10), "ensemble": Value(5)}
    if dataset in schedules:
        phases, epochs = schedules[dataset]
        final |= {
            "epochs": Value(epochs),
            "optimiser": Value("sgd"),
            "schedule": Value("phases"),
            "phases": Value(phases),
            "momentum": Value(0.9, note="of the solver for SVHN"),
            "weight_decay": Value(5e-4, note="of the solver for SVHN"),
            "augmentation": Value(
                "crop,flip" if dataset == "cifar10" else "none",
                OURS,
                "the paper shifts by up to 5 pixels, ours by 4" if dataset == "cifar10" else "not stated",
            ),
        }
    else:
        final |= {"epochs": Value(40)}
    return PublishedSearch(
        agent="q_learning",
        budget=Value(2700, note="different networks; the sum of the schedule"),
        env_args={
            "dataset": Value(dataset),
            "valid_share": Value(5000 / images[dataset], note="5,000 images, stratified"),
            "max_depth": Value(18 if dataset == "cifar10" else 12),
            "widths": Value("published"),
            "kernel_rule": Value("paper", note="the released code has kernels strictly below the size"),
            "metric": Value("best_valid_accuracy", note="in the released code"),
            "repeat_query": Value("cache+free", note="repeats are not trained again and not counted"),
            "epochs": Value(20),
            "batch_size": Value(128),
            "optimiser": Value("adam"),
            "learning_rate": Value(1e-3),
            "schedule": Value("step"),
            "step_epochs": Value(5),
            "step_factor": Value(0.2),
            "weight_decay": Value(5e-4, note="in the released code"),
            "initialisation": Value("xavier"),
            "restarts": Value(5, note="the released code tries 5 times in all"),
            "restart_factor": Value(0.4),
            "augmentation": Value("flip" if dataset == "cifar10" else "none", note="in the released code"),
        },
        agent_args={"preset": Value("metaqnn", note="alpha 0.01, 100 draws, first value 0.5, the schedule of table 2")},
        final=final,
        published_cost="10 GPUs for 8 to 10 days per data set",
        deviations=(
            "images are standardised per channel, without global contrast normalisation",
            "a network that diverges gets the failure reward instead of 1 / classes",
        ),
    )


def _blockqnn(dataset: str) -> PublishedSearch:
    """Return the search of Zhong et al. (CVPR 2018) on CIFAR-100; on another data set the rest is the same."""
    return PublishedSearch(
        agent="q_learning",
        budget=Value(11_392, MEMORY, "178 iterations of 64"),
        env_args={
            "dataset": Value(dataset, VERIFIED if dataset == "cifar100" else OURS),
            "valid_share": Value(1 / 6, MEMORY, "5:1; of the training images, so that the test set stays untouched"),
            "max_index": Value(23, MEMORY),
            "channels": Value(32, PORT),
            "blocks_per_stage": Value(4, NOTES),
            "stages": Value(3, NOTES),
            "objective": Value(
                "blockqnn", NOTES, "accuracy in percent - 1 x ln FLOPs - 8 x ln density; mu, rho from a port"
            ),
            "repeat_query": Value("cache+charge", MEMORY),
            "epochs": Value(12, PORT),
            "batch_size": Value(256, MEMORY),
            "optimiser": Value("adam", PORT),
            "learning_rate": Value(1e-3, PORT),
            "schedule": Value("step", PORT),
            "step_epochs": Value(5, PORT),
            "step_factor": Value(0.2, PORT),
            "weight_decay": Value(0.0, OURS, "the sources that could be opened name none"),
            "initialisation": Value("he", PORT),
            "restarts": Value(3, MEMORY),
            "restart_factor": Value(0.4, MEMORY),
            "augmentation": Value("none", MEMORY),
        },
        agent_args={"preset": Value("blockqnn", PORT, "alpha 0.01, 64 draws an iteration, intermediate rewards r / T")},
        final={
            "top": Value(1, OURS),
            "epochs": Value(300, PORT),
            "batch_size": Value(128, PORT),
            "optimiser": Value("sgd", PORT),
            "schedule": Value("phases", PORT),
            "phases": Value("0.1x150,0.01x75,0.001x75", PORT),
            "momentum": Value(0.9, PORT),
            "weight_decay": Value(5e-4, PORT),
            "augmentation": Value("crop,flip", PORT),
        },
        published_cost="32 GPUs for 3 days",
        deviations=(
            "where channels differ, 1x1 convolutions follow a port; the paper's own rule was not seen",
            "the classifier is global average pooling and one linear layer; sources disagree about the paper's",
        ),
    )


def _eas(dataset: str) -> PublishedSearch:
    """Return the search of Cai et al. (AAAI 2018) for plain CNNs on CIFAR-10 or SVHN, its first stage."""
    images = {"cifar10": 50_000, "svhn": 73_257}
    if dataset not in images:
        raise InvalidArgument(
            f"EAS was published for {', '.join(images)}, not for {dataset!r}; name one with --env-arg dataset=..., or "
            "leave --preset out."
        )
    # The released code trains from scratch for so long.
    long = Value(300 if dataset == "cifar10" else 40)
    augmentation = Value("crop,flip") if dataset == "cifar10" else Value("none")
    return PublishedSearch(
        agent="eas",
        budget=Value(300, MEMORY, "networks of the first stage; the second one has 150, the released driver 15 x 10"),
        env_args={
            "dataset": Value(dataset),
            "valid_share": Value(5000 / images[dataset], note="5,000 images"),
            "start": Value("paper", MEMORY, "its layers and the levels of the first experiment"),
            "wider": Value(4, note="steps, each of which asks every layer"),
            "deeper": Value(5),
            "max_layers": Value(10, note="places in a block"),
            "objective": Value("tangent_accuracy"),
            "repeat_query": Value("cache+charge", note="repeats are looked up, and part of the batch"),
            "epochs": Value(20),
            "batch_size": Value(64),
            "optimiser": Value("sgd"),
            "momentum": Value(0.9),
            "learning_rate": Value(0.02),
            "schedule": Value("cosine", note="there once an epoch, here after every update"),
            "weight_decay": Value(1e-4),
            "augmentation": augmentation,
            "dropout": Value(0.0, OURS, "the released code has 0.2 behind convolutions where it is switched on"),
            "start_epochs": dataclasses.replace(long, note="of trainings from scratch; the start's own are not stated"),
            "start_learning_rate": Value(0.1, note="of trainings from scratch"),
            "wider_noise": Value(0.01, note="standard deviations"),
            "deeper_noise": Value(0.001),
            "optimiser_state": Value("reset", OURS, "not stated"),
        },
        agent_args={
            "preset": Value(
                "eas2018", note="batches of 10, Adam 0.002, entropy 1e-5, baseline 0.95, LSTM 50, embedding 16"
            )
        },
        final={
            "top": Value(1, OURS, "how many is not stated"),
            "epochs": long,
            "batch_size": Value(64),
            "optimiser": Value("sgd"),
            "momentum": Value(0.9),
            "learning_rate": Value(0.1),
            "schedule": Value("cosine"),
            "weight_decay": Value(1e-4),
            "augmentation": augmentation,
        },
        published_cost="5 GPUs for about 2 days, both stages (from memory)",
        deviations=(
            "the second stage is a search of its own: train the best network for 100 epochs more and let 150 networks "
            "grow from it, with --env-arg parent=RUN --env-arg start_epochs=100 --budget 150",
            "all layers of a wider step are decided at once in the paper, here one after the other",
            "images are standardised per channel, those of SVHN too",
            "the cost below is that of the children, without the start network's",
        ),
    )


PUBLISHED: Mapping[str, tuple[Callable[[str], PublishedSearch], str]] = {
    "NAS-MetaQNN-v0": (_metaqnn, "cifar10"),
    "NAS-BlockQNN-v0": (_blockqnn, "cifar100"),
    "NAS-EAS-v0": (_eas, "cifar10"),
}
"""By environment id: the search as a function of the data set, and the data set that it is for by default."""


def published_search(env: str, preset: str, dataset: str | None = None) -> PublishedSearch:
    """Return the search that was published for an environment.

    Raises:
        UnknownName: no such preset.
        InvalidArgument: none was published for this environment or data set.
    """
    if preset not in PRESETS:
        raise UnknownName("preset of a search", preset, PRESETS)
    if env not in PUBLISHED:
        raise InvalidArgument(f"no published search is recorded for {env}; there is one for {', '.join(PUBLISHED)}.")
    make, usual = PUBLISHED[env]
    return make(usual if dataset is None else dataset)


def published_training(directory: RunDirectory, preset: str) -> dict[str, Any]:
    """Return ``top``, ``ensemble`` and the settings of the final training that was published for a run's environment.

    Raises:
        UnknownName: no such preset.
        InvalidArgument: none was published for this environment or data set.
    """
    config = directory.read_json("config.json") or {}
    # The environments' own default; it was published for none of them.
    dataset = dict(config.get("env_args", {})).get("dataset") or "digits"
    return {name: one.value for name, one in published_search(str(config.get("env")), preset, dataset).final.items()}
