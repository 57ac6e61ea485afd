"""Small NATS-Bench archives in the official layout, made of chosen numbers; the trainings are not real."""

from __future__ import annotations

import bz2
import pickle  # noqa: TID251 - what official archives are made of
import tarfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas_gym.search_spaces import make_space

IMAGES = {"cifar10-valid": 25_000, "cifar10": 10_000, "cifar100": 5_000, "ImageNet16-120": 3_000}
"""Images behind an accuracy of each data set's trainings."""

EVALUATED = {
    "cifar10-valid": ("x-valid", "ori-test"),
    "cifar10": ("ori-test",),
    "cifar100": ("x-valid", "x-test", "ori-test"),
    "ImageNet16-120": ("x-valid", "x-test", "ori-test"),
}

SHORT_SEEDS = {"cifar10-valid": (777, 111), "cifar10": (111,), "cifar100": (111,), "ImageNet16-120": (111,)}
LONG_SEEDS = dict.fromkeys(EVALUATED, (777, 888, 999))
LONG = {"nas_bench_201": 200, "nats_size": 90}

Seeds = Mapping[str, Sequence[int]]


def names(space: str) -> list[str]:
    """Return the notations of all architectures of a space, in an order that is not that of their codes."""
    made = make_space(space)
    texts = [made.to_string(encoding) for encoding in made.enumerate()]
    return [texts[index] for index in np.random.default_rng(1).permutation(len(texts)).tolist()]


def training(rng: np.random.Generator, data: str, seed: int, epochs: int, text: str) -> dict[str, Any]:
    """Return one training as the archives record it, with random accuracies that are numbers of images."""
    sets = EVALUATED[data]
    # The long trainings of the topology archive keep some accuracies at their end only.
    kept = [epochs - 1] if epochs > 12 else range(epochs)
    correct = {f"{name}@{epoch}": int(rng.integers(IMAGES[data])) for epoch in kept for name in sets}
    # The benchmark's clock gives every epoch of a training the same time.
    train_seconds, eval_seconds = rng.uniform(5, 6), {name: float(rng.uniform()) for name in sets}
    return {
        "name": data,
        "train_acc1es": {epoch: float(rng.uniform(10, 90)) for epoch in range(epochs)},
        "train_acc5es": None,
        "train_losses": {epoch: float(rng.uniform()) for epoch in range(epochs)},
        "train_times": OrderedDict((epoch, float(train_seconds)) for epoch in range(epochs)),
        "arch_config": {"channel": 16, "num_cells": 5, "arch_str": text, "class_num": 10},
        "params": np.float64(0.129306),
        "flop": 15.64737,
        "seed": f"{seed:04}",
        "epochs": epochs,
        "latency": [np.float64(0.01 + 0.001 * index) for index in range(2)],
        "eval_names": list(sets),
        # Official percentages carry the rounding of single precision.
        "eval_acc1es": {key: float(np.float32(100 * value / IMAGES[data])) for key, value in correct.items()},
        "eval_times": {f"{name}@{epoch}": eval_seconds[name] for epoch in range(epochs) for name in sets},
        "eval_losses": {key: float(rng.uniform()) for key in correct},
        "net_state_dict": None,
    }


def architecture(
    space: str, index: int, text: str, short_seeds: Seeds = SHORT_SEEDS, long_seeds: Seeds = LONG_SEEDS
) -> dict[str, Any]:
    """Return the object of one architecture's file."""
    rng = np.random.default_rng(index)
    found = {}
    for epochs, seeds in ((12, short_seeds), (LONG[space], long_seeds)):
        results = {
            (data, seed): training(rng, data, seed, epochs, text) for data, drawn in seeds.items() for seed in drawn
        }
        found[str(epochs)] = {
            "arch_index": index,
            "arch_str": text,
            "all_results": results,
            "dataset_seed": {data: list(drawn) for data, drawn in seeds.items()},
            "clear_net_done": True,
        }
    return found


def dump(path: Path, content: object) -> None:
    """Write a compressed pickle as the archives have it."""
    path.write_bytes(bz2.compress(pickle.dumps(content, protocol=4)))


def write(
    folder: Path,
    space: str,
    indices: Sequence[int],
    make: Callable[[str, int, str], Mapping[str, Any]] = architecture,
) -> Path:
    """Write the folder of an archive with some of its architectures."""
    folder.mkdir()
    texts = names(space)
    meta = {"meta_archs": texts, "total_archs": len(texts), "arch2infos": None, "evaluated_indexes": set()}
    dump(folder / "meta.pickle.pbz2", meta)
    for index in indices:
        dump(folder / f"{index:06}.pickle.pbz2", make(space, index, texts[index]))
    return folder


def pack(folder: Path, out: Path, mode: str = "w") -> Path:
    """Write a .tar of an archive's folder."""
    with tarfile.open(out, mode) as tar:  # pyright: ignore[reportArgumentType, reportCallIssue] - "w" or "w:gz"
        tar.add(folder, arcname=folder.name)
    return out
