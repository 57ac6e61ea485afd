"""How a network is trained, as one frozen value."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from nas_gym.errors import InvalidArgument

OPTIMISERS = ("sgd", "adam", "rmsprop")
SCHEDULES = ("cosine", "step", "constant", "phases")
INITIALISATIONS = ("default", "xavier", "he")
AUGMENTATIONS = ("crop", "flip", "cutout")
CLASS_WEIGHTS = ("none", "balanced")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")

_CHOICES = {
    "optimiser": OPTIMISERS,
    "schedule": SCHEDULES,
    "class_weights": CLASS_WEIGHTS,
    "precision": PRECISIONS,
    "initialisation": INITIALISATIONS,
}
_COUNTS = {"epochs": 1, "batch_size": 2, "step_epochs": 1, "warm_up_epochs": 0, "restarts": 0}
_NUMBERS = {
    "learning_rate": ("positive", lambda value: 0 < value < math.inf),
    "step_factor": ("positive and at most 1", lambda value: 0 < value <= 1),
    "momentum": ("at least 0 and below 1", lambda value: 0 <= value < 1),
    "weight_decay": ("at least 0", lambda value: 0 <= value < math.inf),
    "label_smoothing": ("at least 0 and below 1", lambda value: 0 <= value < 1),
    "dropout": ("at least 0 and below 1", lambda value: 0 <= value < 1),
    "restart_factor": ("positive and below 1", lambda value: 0 < value < 1),
}


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; the defaults are the recipe of the packaged table `digits`.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per update; the last, smaller batch of an epoch is used too.
        optimiser: "sgd" (with Nesterov momentum), "adam" or "rmsprop".
        learning_rate: largest learning rate.
        schedule: "cosine", half a cosine down to 0; "step", times `step_factor` every `step_epochs`;
            "constant"; "phases", what `phases` says, in place of `learning_rate`.
        phases: learning rates and for how many epochs, e.g. ``0.025x40,0.0125x40``; the last one stays.
        step_epochs: epochs between two steps of the schedule "step".
        step_factor: what a step multiplies the learning rate by.
        warm_up_epochs: epochs in which the learning rate rises linearly from 0; the schedule follows.
        momentum: of SGD and RMSprop; Adam's first beta.
        weight_decay: L2 penalty on all parameters.
        label_smoothing: weight of the uniform distribution in the targets.
        dropout: probability of dropping a feature before the classifier, where the network has such a layer.
        augmentation: comma-separated, of "crop" (pad by an eighth, crop at random), "flip" (left-right), "cutout" (a
            square of half the side); "none" = none.
        class_weights: "none", or "balanced": a class weighs inversely to its frequency.
        restarts: how often a training that is no better than chance after its first epoch begins anew (MetaQNN's
            rule: at most 5 times).
        restart_factor: what a restart multiplies the learning rate by (MetaQNN: 0.4).
        initialisation: of weights: "default", PyTorch's; "xavier", Glorot's uniform; "he", He's normal. Biases are 0 in
            the latter two.
        precision: "float32", "bfloat16", "float16" (with loss scaling) or "auto": float32 on the CPU, mixed on CUDA.
    """

    epochs: int = 6
    batch_size: int = 50
    optimiser: str = "sgd"
    learning_rate: float = 0.1
    schedule: str = "cosine"
    step_epochs: int = 5
    step_factor: float = 0.2
    phases: str = ""
    warm_up_epochs: int = 0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    dropout: float = 0.0
    augmentation: str = "none"
    class_weights: str = "none"
    restarts: int = 0
    restart_factor: float = 0.4
    initialisation: str = "default"
    precision: str = "auto"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidArgument: a value outside its range.
        """
        for name, least in _COUNTS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidArgument(f"{name} must be an integer of at least {least}, got {value!r}.")
        for name, (allowed, fits) in _NUMBERS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not fits(value):
                raise InvalidArgument(f"{name} must be {allowed}, got {value!r}.")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InvalidArgument(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}.")
        if (self.schedule == "phases") != bool(self.learning_rate_phases):
            raise InvalidArgument(
                f"schedule = 'phases' and phases belong together, got {self.schedule!r} and {self.phases!r}."
            )
        if self.warm_up_epochs >= self.epochs:
            raise InvalidArgument(
                f"warm_up_epochs must be below epochs = {self.epochs}, got {self.warm_up_epochs}: "
                "nothing would be left of the schedule."
            )
        for name in self.augmentations:
            if name not in AUGMENTATIONS:
                raise InvalidArgument(
                    f"augmentation must be 'none' or a comma-separated list of {', '.join(AUGMENTATIONS)}, "
                    f"got {self.augmentation!r}."
                )

    @property
    def augmentations(self) -> tuple[str, ...]:
        """The names in `augmentation`, in their order."""
        if not isinstance(self.augmentation, str):
            raise InvalidArgument(f"augmentation must be text, got {self.augmentation!r}.")
        return () if self.augmentation in ("none", "") else tuple(part.strip() for part in self.augmentation.split(","))

    @property
    def learning_rate_phases(self) -> tuple[tuple[float, int], ...]:
        """The pairs (learning rate, epochs) in `phases`.

        >>> Recipe(schedule="phases", phases="0.1x3, 1e-4x2").learning_rate_phases
        ((0.1, 3), (0.0001, 2))
        """
        if not isinstance(self.phases, str):
            raise InvalidArgument(f"phases must be text, got {self.phases!r}.")
        found = []
        for part in self.phases.split(",") if self.phases else ():
            rate, _, epochs = part.strip().partition("x")
            try:
                pair = float(rate), int(epochs)
            except ValueError:
                pair = (0.0, 0)
            if not (0 < pair[0] < math.inf and pair[1] >= 1):
                raise InvalidArgument(
                    f"phases must be pairs of a learning rate and epochs, e.g. '0.1x150,0.01x75', got {self.phases!r}."
                )
            found.append(pair)
        return tuple(found)

    def _phase_at(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0 after the warm-up."""
        for rate, epochs in self.learning_rate_phases:
            if epoch < epochs:
                return rate
            epoch -= epochs
        return self.learning_rate_phases[-1][0]

    def learning_rate_at(self, update: int, updates_per_epoch: int) -> float:
        """Return the learning rate of update number `update`, counted from 0.

        >>> [round(Recipe(epochs=2, learning_rate=1.0).learning_rate_at(u, 2), 3) for u in range(4)]
        [1.0, 0.854, 0.5, 0.146]
        """
        warm_up = self.warm_up_epochs * updates_per_epoch
        if update < warm_up:
            first = self._phase_at(0) if self.schedule == "phases" else self.learning_rate
            return first * (update + 1) / warm_up
        if self.schedule == "phases":
            return self._phase_at((update - warm_up) // updates_per_epoch)
        if self.schedule == "cosine":
            done = (update - warm_up) / (self.epochs * updates_per_epoch - warm_up)
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
        if self.schedule == "step":
            return self.learning_rate * self.step_factor ** (
                (update - warm_up) // (self.step_epochs * updates_per_epoch)
            )
        return self.learning_rate

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def content_hash(content: Any) -> str:  # noqa: ANN401 - any JSON value
    """Return 32 hexadecimal digits that depend on a JSON value alone."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()
