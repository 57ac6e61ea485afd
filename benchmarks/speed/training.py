"""What the training evaluator costs beside a bare PyTorch loop, and what a second worker saves.

Dimension letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from nas_gym.datasets import Split, digits
from nas_gym.evaluators.core import Queries, Status
from nas_gym.evaluators.local_processes import LocalProcesses
from nas_gym.evaluators.training import TrainingEvaluator
from nas_gym.evaluators.workers import Slot, Workers, deal_slots
from nas_gym.networks import build
from nas_gym.networks.recipe import Recipe
from nas_gym.search_spaces.core import Encoding
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

from .timing import Row

_CELL: Encoding = (3, 3, 3, 2, 3, 3)
_RECIPE = Recipe(epochs=25, precision="float32")
_SIZES = {"skeleton": {"channels": 16, "cells_per_stage": 1, "stages": 3}}
_REPEATS = 5
_ALLOWED_OVERHEAD = 0.05
_CHILDREN = 32
_CHILD_RECIPE = Recipe(epochs=2)
_CHILD_SIZES = {"skeleton": {"channels": 8, "cells_per_stage": 1, "stages": 3}}
_ALLOWED_SHARE = 0.55


class _Cost(NamedTuple):
    """Seconds of one training by the clock and, on the CPU, of the processor."""

    wall: float
    processor: float


def overhead(device: str = "cpu") -> Row:
    """Compare one child on one warm worker with the same training in a bare loop, in a process of the same kind."""
    space = NASBench201Space()
    evaluator = TrainingEvaluator(space, recipe=_RECIPE, sizes=_SIZES, device=device)
    with closing(evaluator), LocalProcesses(_make_bare, deal_slots(1, device, 1)) as bare:
        bare.warm_up()
        evaluator.workers.warm_up()
        _ours(evaluator, fidelity=1)
        _bare(bare, epochs=1)
        pairs = [(_ours(evaluator), _bare(bare)) for _ in range(_REPEATS)]
    ours, other = (_Cost(*map(min, zip(*costs, strict=True))) for costs in zip(*pairs, strict=True))
    ratio = ours.wall / other.wall
    return Row(
        f"one child of {_RECIPE.epochs} epochs on {device}, from the query to the stored answer",
        f"{ours.wall:.2f} s (processor {ours.processor:.2f} s)",
        f"bare PyTorch: {other.wall:.2f} s (processor {other.processor:.2f} s)",
        f"{100 * (ratio - 1):+.1f} %",
        f"under {100 * _ALLOWED_OVERHEAD:g} % more",
        ratio < 1 + _ALLOWED_OVERHEAD,
    )


def two_workers(device: str = "cpu") -> Row:
    """Compare the time for a batch of children on two warm workers with that on one."""
    one, two = (_batch_seconds(workers, device) for workers in (1, 2))
    return Row(
        f"{_CHILDREN} children on 2 workers",
        f"{two:.2f} s",
        f"1 worker: {one:.2f} s",
        f"{two / one:.2f}x the time",
        f"{_ALLOWED_SHARE:g}x the time",
        two / one <= _ALLOWED_SHARE,
    )


def _batch_seconds(workers: int, device: str) -> float:
    """Return the wall seconds in which so many workers train all children."""
    space = NASBench201Space()
    rng = np.random.default_rng(0)
    encodings = [space.sample(rng) for _ in range(_CHILDREN)]
    evaluator = TrainingEvaluator(
        space, recipe=_CHILD_RECIPE, sizes=_CHILD_SIZES, workers=workers, device=device, children_per_gpu=2
    )
    with closing(evaluator):
        evaluator.workers.warm_up()
        evaluator.evaluate(Queries.of(space, [_CELL] * workers))
        started = time.perf_counter()
        answers = evaluator.evaluate(Queries.of(space, encodings))
        seconds = time.perf_counter() - started
    _check(bool((answers.status == Status.OK).all()), str(dict(answers.messages)))
    return seconds


def _ours(evaluator: TrainingEvaluator, fidelity: int | None = None) -> _Cost:
    """Train once with a new seed."""
    started = time.perf_counter()
    answer = evaluator.evaluate_one(_CELL, fidelity)
    cost = _Cost(time.perf_counter() - started, answer.cost_seconds)
    _check(answer.status is Status.OK, answer.message)
    return cost


def _bare(workers: Workers[int, _Cost], epochs: int = _RECIPE.epochs) -> _Cost:
    """Train once in the bare loop."""
    workers.submit(epochs)
    (completion,) = workers.collect()
    if completion.answer is None:
        raise RuntimeError(f"the bare loop failed: {completion.failure}")
    return completion.answer


def _check(fine: bool, message: str) -> None:
    if not fine:
        raise RuntimeError(f"a child failed: {message}")


# --- the bare loop ---------------------------------------------------------------------------------


def _make_bare(slot: Slot) -> Callable[[int], _Cost]:
    """Load the data; return what trains for a number of epochs."""
    data = digits()
    device = torch.device(slot.device)
    mean, deviation = (
        torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (data.mean, data.deviation)
    )

    def place(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
        """Return standardised images [N, C, H, W] and labels [N] on the device."""
        images = (torch.as_tensor(np.asarray(split.images)).permute(0, 3, 1, 2).float() - mean) / deviation
        images = images.contiguous(memory_format=torch.channels_last).to(device)
        return images, torch.as_tensor(np.asarray(split.labels)).to(device)

    train, valid = place(data.train), place(data.valid)

    def work(epochs: int) -> _Cost:
        started, processor = time.perf_counter(), time.process_time()
        model = build(NASBench201Space(), _CELL, data.input_shape, data.classes, **_SIZES)
        _train(model.to(device).to(memory_format=torch.channels_last), train, valid, epochs)
        return _Cost(time.perf_counter() - started, time.process_time() - processor)

    return work


def _train(
    model: nn.Module, train: tuple[torch.Tensor, torch.Tensor], valid: tuple[torch.Tensor, torch.Tensor], epochs: int
) -> list[float]:
    """Train as `_RECIPE` says, in the shortest way, and return the accuracy after every epoch."""
    images, labels = train
    size = _RECIPE.batch_size
    updates = _RECIPE.epochs * math.ceil(len(images) / size)
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=_RECIPE.learning_rate,
        momentum=_RECIPE.momentum,
        weight_decay=_RECIPE.weight_decay,
        nesterov=True,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, updates)
    accuracies = []
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(images)).to(images.device).split(size):
            loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        model.eval()
        with torch.inference_mode():
            accuracies.append(float((model(valid[0]).argmax(1) == valid[1]).float().mean()))
    return accuracies
