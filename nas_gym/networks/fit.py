"""One training loop: control comes back after every epoch, and a training can be paused and continued exactly.

Dimension letters: N images, B images of a batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nas_gym.networks.augmentation import AUGMENTATIONS
from nas_gym.networks.checkpoint import load_checkpoint, save_checkpoint
from nas_gym.networks.images import DeviceSplit
from nas_gym.networks.operations import Dropout
from nas_gym.networks.recipe import Recipe
from nas_gym.networks.scores import Confusion

_SCORED_BATCH = 1024
"""Most images that are scored at once."""
_CACHED_PIXELS = 2**16
"""Pixels of a batch whose activations stay in the cache of a processor: 1.7 times as fast as 1024 images of 16x16."""


class OutOfTime(RuntimeError):
    """A training reached its deadline."""


def initialise(model: nn.Module, generator: torch.Generator, initialisation: str = "default") -> None:
    """Draw all weights of convolutions and linear layers anew, with an explicit generator on the CPU.

    Args:
        model: changed in place.
        generator: on the CPU.
        initialisation: "default", PyTorch's own: uniform within 1 / sqrt(fan-in), biases included; "xavier": uniform
            within sqrt(6 / (fan-in + fan-out)) (Glorot & Bengio 2010); "he": normal with variance 2 / fan-in (He et
            al. 2015). Biases are 0 in the latter two.
    """
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                draw = _DRAWS[initialisation]
                for parameter in layer.parameters(recurse=False):
                    drawn = torch.empty_like(parameter, device="cpu")
                    draw(drawn, layer.weight, generator)
                    parameter.copy_(drawn)


def _draw_default(drawn: Tensor, weight: Tensor, generator: torch.Generator) -> None:
    bound = 1 / math.sqrt(weight[0].numel())
    drawn.uniform_(-bound, bound, generator=generator)


def _draw_xavier(drawn: Tensor, weight: Tensor, generator: torch.Generator) -> None:
    if drawn.dim() == 1:
        drawn.zero_()
        return
    bound = math.sqrt(6 / (weight[0].numel() + weight[:, 0].numel()))
    drawn.uniform_(-bound, bound, generator=generator)


def _draw_he(drawn: Tensor, weight: Tensor, generator: torch.Generator) -> None:
    if drawn.dim() == 1:
        drawn.zero_()
        return
    drawn.normal_(0.0, math.sqrt(2 / weight[0].numel()), generator=generator)


_DRAWS: dict[str, Callable[[Tensor, Tensor, torch.Generator], None]] = {
    "default": _draw_default,
    "xavier": _draw_xavier,
    "he": _draw_he,
}


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the type in which layers compute; "auto" is float32 on the CPU, else bfloat16 where the GPU has it."""
    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def make_optimiser(parameters: list[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """Return the optimiser of a recipe."""
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimiser == "adam":
        betas = (recipe.momentum, 0.999)
        return torch.optim.Adam(parameters, lr=rate, betas=betas, weight_decay=decay, fused=True)
    if recipe.optimiser == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=rate, momentum=recipe.momentum, weight_decay=decay)
    momentum = recipe.momentum
    return torch.optim.SGD(
        parameters, lr=rate, momentum=momentum, weight_decay=decay, nesterov=momentum > 0, fused=True
    )


class Fitting:
    """A training in progress.

    Attributes:
        model: the network, trained in place.
        epoch: epochs finished.
    """

    def __init__(
        self,
        model: nn.Module,
        data: DeviceSplit,
        recipe: Recipe,
        generator: torch.Generator,
        learning_rate_factor: float = 1.0,
    ) -> None:
        """Prepare a training; nothing is computed yet.

        Args:
            model: network from images [B, C, H, W] to logits [B, K], on the device of the data.
            data: training images.
            recipe: the schedule, always that of all `recipe.epochs`.
            generator: of the order of the images, on the CPU; it seeds augmentation and dropout too.
            learning_rate_factor: multiplies every learning rate; for restarts.
        """
        self.model = model
        self.data = data
        self.recipe = recipe
        self.epoch = 0
        self._generator = generator
        self._factor = learning_rate_factor
        self._optimiser = make_optimiser(list(model.parameters()), recipe)
        self._updates_per_epoch = math.ceil(len(data) / recipe.batch_size)
        self._augmentations = [AUGMENTATIONS[name] for name in recipe.augmentations]
        self._noise = self._noise_generator()
        self._dtype = resolve_precision(recipe.precision, data.device)
        self._scaler = torch.amp.GradScaler(data.device.type, enabled=self._dtype == torch.float16)
        self._class_weights: Tensor | None = None

    def _noise_generator(self) -> torch.Generator | None:
        """Return a generator on the device for augmentation and dropout, None where nothing draws from it.

        The order of images must not depend on whether there is noise, and trainings without noise not on its seed.
        """
        layers = [layer for layer in self.model.modules() if isinstance(layer, Dropout) and layer.probability > 0]
        if not layers and not self._augmentations:
            return None
        seed = int(torch.randint(2**62, (), generator=self._generator.clone_state()))
        noise = torch.Generator(self.data.device).manual_seed(seed)
        for layer in layers:
            layer.generator = noise
        return noise

    @property
    def optimiser(self) -> torch.optim.Optimizer:
        """What updates the weights."""
        return self._optimiser

    def run_epoch(self, deadline: float = math.inf) -> float:
        """Train one epoch and return the mean loss; NaN or infinite once the training has diverged.

        Args:
            deadline: `time.monotonic` moment after which no further batch begins.

        Raises:
            OutOfTime: the deadline came first.
        """
        self.model.train()
        count = len(self.data)
        order = torch.randperm(count, generator=self._generator)
        total = torch.zeros((), device=self.data.device)
        update = self.epoch * self._updates_per_epoch
        for indices in order.split(self.recipe.batch_size):
            if time.monotonic() >= deadline:
                raise OutOfTime(f"the time was up in epoch {self.epoch + 1}")
            self._set_learning_rate(update)
            total += self._update(indices) * len(indices)
            update += 1
        self.epoch += 1
        return float(total) / count

    def _set_learning_rate(self, update: int) -> None:
        rate = self.recipe.learning_rate_at(update, self._updates_per_epoch) * self._factor
        for group in self._optimiser.param_groups:
            group["lr"] = rate

    def _update(self, indices: Tensor) -> Tensor:
        """Take one step and return the loss, detached."""
        images = self.data.images(indices)
        if self._noise is not None:
            for augment in self._augmentations:
                images = augment(images, self._noise)
        labels = self.data.labels[indices.to(self.data.device, non_blocking=True)]
        with self._autocast():
            logits = self.model(images)
        if self._class_weights is None and self.recipe.class_weights == "balanced":
            # Only the network knows how many classes there are: the last ones may have no training image.
            self._class_weights = class_weights(self.data.labels, logits.shape[1])
        loss = nn.functional.cross_entropy(
            logits.float(), labels, self._class_weights, label_smoothing=self.recipe.label_smoothing
        )
        self._optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimiser)
        self._scaler.update()
        return loss.detach()

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self._dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.data.device.type, dtype=self._dtype)

    def pause(self, path: Path, progress: dict[str, Any]) -> None:
        """Write everything that `resume` needs into a file; `progress` holds JSON values of the caller."""
        state = {"epoch": self.epoch, "scaler": self._scaler.state_dict(), "caller": progress}
        save_checkpoint(path, self.model, self._optimiser, self._generators(), state)

    def resume(self, path: Path) -> dict[str, Any]:
        """Continue from a file of `pause`, bit by bit as if it had not been paused, and return its `progress`.

        Raises:
            CheckpointError: the file is damaged or belongs to another network.
        """
        state = load_checkpoint(path, self.model, self._optimiser, self._generators())
        self.epoch = state["epoch"]
        if state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])
        return state["caller"]

    def _generators(self) -> dict[str, torch.Generator]:
        return {"order": self._generator} | ({} if self._noise is None else {"noise": self._noise})


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Return float32 [K]: the weight of a class is inverse to its frequency, 1 on average over the images.

    Classes without images weigh 0.
    """
    counts = torch.bincount(labels, minlength=classes).float()
    occurs = counts > 0
    return torch.where(occurs, counts.sum() / (occurs.sum() * counts), 0.0)


@torch.inference_mode()
def confusion(
    model: nn.Module,
    data: DeviceSplit,
    classes: int,
    batch_size: int | None = None,
    check: Callable[[], None] = lambda: None,
) -> Confusion:
    """Return the confusion matrix of `model` in evaluation mode, int64 [K, K].

    Args:
        model: network from images to logits.
        data: images to classify.
        classes: number of classes K.
        batch_size: images at once; of no influence on the result. By default 1024, on the CPU less where images are
            large.
        check: called before every batch; may raise.
    """
    model.eval()
    if batch_size is None:
        pixels = data.images(torch.zeros(1, dtype=torch.int64)).shape[2:].numel() if data.device.type == "cpu" else 1
        batch_size = min(_SCORED_BATCH, max(_CACHED_PIXELS // pixels, 1))
    found = torch.zeros(classes * classes, dtype=torch.int64, device=data.device)
    for indices in torch.arange(len(data)).split(batch_size):
        check()
        answers = model(data.images(indices)).argmax(1)
        labels = data.labels[indices.to(data.device)]
        found += torch.bincount(labels * classes + answers, minlength=classes * classes)
    return np.asarray(found.cpu()).reshape(classes, classes)
