"""One child in a worker that inherits its parent's weights, and the start network, which may inherit some, too."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nas_gym.evaluators.child import (
    BuildFailed,
    ChildResult,
    ChildTask,
    ChildTraining,
    ChildWorker,
    Curve,
    Inspection,
    Shaped,
    TrainingJob,
)
from nas_gym.evaluators.limits import Limits
from nas_gym.evaluators.workers import Slot
from nas_gym.networks import MORPHISMS
from nas_gym.networks.fit import Fitting, make_optimiser
from nas_gym.networks.morph import (
    GraphNetwork,
    Morphed,
    MorphError,
    Parent,
    initial_state,
    load_parent,
    save_parent,
    transfer_optimiser,
)
from nas_gym.networks.morph.parents import GRAPH
from nas_gym.networks.recipe import Recipe
from nas_gym.search_spaces.core import Encoding

_STATISTICS_IMAGES = 64
START: Encoding = ()
"""What the start network is called: no decision was taken."""


@dataclass(frozen=True)
class InheritingTask(ChildTask):
    """What all children share.

    Attributes:
        start_recipe: how the start network is trained.
        noise: fields of the morphism's noise.
        keeps_memory: whether networks leave what their optimiser remembers, and children begin with their parent's.
    """

    start_recipe: Recipe = field(default_factory=Recipe)
    noise: Mapping[str, float] = field(default_factory=dict)
    keeps_memory: bool = False

    def build(self, encoding: Encoding, dataset: Shaped) -> nn.Module:
        """Return the untrained network of an encoding, the start network for none."""
        if encoding != START:
            return super().build(encoding, dataset)
        graph = self.morphism.start(self.start, dataset.input_shape, dataset.classes, self.recipe.dropout)
        state = initial_state(graph, torch.Generator().manual_seed(0))
        device = torch.get_default_device()
        return GraphNetwork(graph, {name: tensor.to(device) for name, tensor in state.items()})

    @property
    def morphism(self) -> Any:  # noqa: ANN401 - offers `start`, `begin`, `morph` and `noise`
        """How a child inherits."""
        return MORPHISMS[self.space.name]

    @property
    def start(self) -> Any:  # noqa: ANN401 - each space has its own start networks
        """The start network of the space."""
        return self.space.start  # type: ignore[attr-defined]

    def for_start(self) -> InheritingTask:
        """Return the task of training the start network, to which no limit applies."""
        return dataclasses.replace(self, recipe=self.start_recipe, limits=Limits())


@dataclass(frozen=True)
class InheritingJob(TrainingJob):
    """Ask for a training of the start network, or of a child.

    Attributes:
        parent: file of the weights that are inherited; None trains from scratch.
    """

    parent: Path | None = None


class InheritingWorker(ChildWorker):
    """Answers jobs of one `InheritingTask` on one device."""

    task: InheritingTask

    def __call__(self, job: Inspection | TrainingJob) -> ChildResult:
        """Answer a job; every exception becomes a status."""
        return self._for_start(job) if job.encoding == START else super().__call__(job)

    def _for_start(self, job: Inspection | TrainingJob) -> ChildResult:
        """Answer with the recipe of the start network; the data are shared."""
        task, self.task = self.task, self.task.for_start()
        try:
            return super().__call__(job)
        finally:
            self.task = task

    def _training(self, job: TrainingJob, deadline: float, curve: Curve) -> ChildTraining:
        parent = job.parent if isinstance(job, InheritingJob) else None
        return InheritedTraining(self, job.encoding, job.seed, deadline, curve, parent)


class InheritedTraining(ChildTraining):
    """The training of a network that begins with its parent's weights; without a parent, from scratch."""

    worker: InheritingWorker

    def __init__(
        self,
        worker: InheritingWorker,
        encoding: Encoding,
        seed: int,
        deadline: float,
        curve: Curve,
        parent: Path | None,
    ) -> None:
        """Build the network.

        Raises:
            BuildFailed: the parent's weights are gone or damaged, which names the file, or of a network that cannot
                grow into this one, which names both and the rule.
        """
        self.parent = parent
        super().__init__(worker, encoding, seed, deadline, curve)

    def _begin(self) -> Fitting:
        """Return a training of the network with newly inherited weights; every restart repeats other units."""
        if self.parent is None:
            return super()._begin()
        recipe = self.worker.task.recipe
        seed = (self.seed + self.restarts) % 2**63
        generator = torch.Generator().manual_seed(seed)
        try:
            parent = load_parent(self.parent)
            grown = self._grown(parent, seed, generator)
            model = GraphNetwork(grown.graph, grown.state).to(memory_format=torch.channels_last)
            fitting = Fitting(model, self.worker.data.train, recipe, generator, recipe.restart_factor**self.restarts)
            if self.worker.task.keeps_memory:
                self._remind(parent, grown, model, fitting)
        except MorphError as error:
            raise BuildFailed(f"the parent's weights cannot be inherited: {error}") from error
        return fitting

    def _grown(self, parent: Parent, seed: int, generator: torch.Generator) -> Morphed:
        """Return the network with its parent's weights; the start network is the parent itself."""
        task = self.worker.task
        state = {name: tensor.to(self.worker.device) for name, tensor in parent.state.items()}
        if self.encoding == START:
            return task.morphism.begin(task.start, parent.graph, state, task.recipe.dropout)
        return task.morphism.morph(
            task.space.decode(self.encoding),
            parent.graph,
            state,
            np.random.default_rng(seed),
            self._images(generator),
            task.morphism.noise(**task.noise),
            task.recipe.dropout,
        )

    def _remind(self, parent: Parent, grown: Morphed, model: GraphNetwork, fitting: Fitting) -> None:
        """Give the child's optimiser what its parent's remembers of the gradients, mapped like the weights.

        Raises:
            MorphError: the parent's file does not say, or speaks of another sort of optimiser.
        """
        if not parent.memory:
            raise MorphError(
                f"{self.parent} holds no memory of an optimiser: train the parent with optimiser_state='mapped', too, "
                "or begin the children's with optimiser_state='reset'."
            )
        network = parent.network(self.worker.device)
        optimiser = make_optimiser(list(network.parameters()), self.worker.task.recipe)
        parent.remind(network, optimiser)
        transfer_optimiser(grown, network, optimiser, model, fitting.optimiser)

    def _images(self, generator: torch.Generator) -> torch.Tensor:
        """Return the training images on which inserted normalisations are set."""
        train = self.worker.data.train
        return train.images(torch.randperm(len(train), generator=generator)[:_STATISTICS_IMAGES])

    def pause(self, path: Path) -> None:
        """Leave the network with its graph after the last epoch, before that a checkpoint that says the graph."""
        model = self.fitting.model
        if not isinstance(model, GraphNetwork):
            super().pause(path)
        elif self.fitting.epoch < self.worker.task.recipe.epochs:
            progress = {"curve": self.curve, "restarts": self.restarts, GRAPH: model.graph.to_json()}
            self.fitting.pause(path, progress)
        else:
            save_parent(path, model, self.fitting.optimiser if self.worker.task.keeps_memory else None)


def make_inheriting_worker(task: InheritingTask, slot: Slot) -> InheritingWorker:
    """Load the data and return what answers jobs; for `Workers`.

    Raises:
        NASGymError: the data set cannot be loaded.
    """
    worker = InheritingWorker(task, slot.device)
    worker.warm_up()
    return worker
