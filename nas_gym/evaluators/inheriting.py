"""The reward of a network by training it a little more: it inherits the weights of a trained parent.

The start network of the search space is trained once and kept in the store as a file that is named by its content. A
child takes its weights through the transforms that its encoding stands for, and is then trained for a few epochs.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import shutil
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from nas_gym.errors import InvalidArgument, UnknownName
from nas_gym.evaluators.child import ChildResult, Inspection, TrainingJob
from nas_gym.evaluators.core import Evaluation, Evaluations, Queries, Status, stream_key
from nas_gym.evaluators.inheriting_child import START, InheritingJob, InheritingTask, make_inheriting_worker
from nas_gym.evaluators.local_processes import LocalProcesses
from nas_gym.evaluators.parents import artifact_file, find_parent
from nas_gym.evaluators.stored import SCRATCH, EvaluationKey, StoredEvaluation
from nas_gym.evaluators.training import SETTINGS, TrainingEvaluator, result_of, to_stored, training_arguments
from nas_gym.evaluators.weight_cache import WeightCache
from nas_gym.evaluators.workers import Completion, InProcess, Workers
from nas_gym.networks import MORPHISMS
from nas_gym.networks.morph import MorphError, load_parent
from nas_gym.networks.recipe import content_hash
from nas_gym.search_spaces.core import Encoding, SearchSpace

VERSION = 1
"""Part of every key in a store; a change of what an evaluation computes bumps it."""

EVALUATOR = "inheriting"
START_EVALUATOR = "start network"
"""What keys of children and of start networks have in the field `evaluator`."""

OPTIMISER_STATES = ("reset", "mapped")
"""What the children's optimisers begin with: nothing, or what their parent's remembers."""

START_EPOCHS = 20
"""Epochs of a start network that inherits no weights."""

_OWN_SETTINGS = (
    "parent",
    "start_epochs",
    "start_learning_rate",
    "wider_noise",
    "deeper_noise",
    "optimiser_state",
    "cache_mb",
)


class InheritingEvaluator(TrainingEvaluator):
    """Trains every architecture a few epochs after it inherited the weights of a trained parent.

    The parent is the start network of the search space, which is trained once, when it is first needed, or what a
    query names: the `artifact` of an earlier answer of this store. Any network from which the architecture can grow is
    a parent: the start network, a child, a child's child, at whatever fidelity it was trained. The start network itself
    may inherit, as in a second search that begins at the best network of a first one. All of `TrainingEvaluator`
    holds: fidelities, seeds, statuses, limits, and that what the store holds is not trained again. A key names the
    parent's content, so that a child of other weights, or of none, is another evaluation. Restarts of the recipe
    inherit anew.

    Optimisers begin without a memory of the parent's gradients (``optimiser_state="reset"``), or with the parent's,
    mapped by the transforms as the weights are (``"mapped"``); weights are then kept together with that memory.

    The weights of finished children are kept up to a limit, the oldest going first; those that were or are a parent
    stay, and so does the most accurate child of every space and data set. A parent that is gone all the same fails its
    children with the status ``build_error``.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        parent: str | None = None,
        start_epochs: int | None = None,
        start_learning_rate: float = 0.1,
        wider_noise: float = 0.01,
        deeper_noise: float = 0.001,
        optimiser_state: str = "reset",
        cache_mb: float = 1000.0,
        **settings: Any,  # noqa: ANN401 - those of TrainingEvaluator
    ) -> None:
        """Configure the evaluator; nothing is loaded, started or trained before the first query.

        Args:
            space: a search space whose networks grow from a start network, a name in `MORPHISMS`.
            parent: weights that the start network inherits, which must be of its layers: a content hash of the store,
                a file or the directory of a search, see `find_parent`; None = it is trained from scratch.
            start_epochs: epochs of the start network's training; the rest of its recipe is that of the children. By
                default `START_EPOCHS`, with a parent 0: its weights stay as they are.
            start_learning_rate: largest of that training.
            wider_noise: on units that are repeated, in standard deviations; 0 keeps the function exactly.
            deeper_noise: on layers that are inserted.
            optimiser_state: one of `OPTIMISER_STATES`.
            cache_mb: megabytes of the children's weights that are kept.
            **settings: see `TrainingEvaluator`; without ``builder`` and ``reference``.

        Raises:
            UnknownName: no such data set or state of the optimiser, or a space that has no start network.
            InvalidArgument: a value outside its range.
        """
        if space.name not in MORPHISMS:
            raise UnknownName("space with inherited weights", space.name, MORPHISMS)
        for name in ("builder", "reference"):
            if settings.get(name) is not None:
                raise InvalidArgument(
                    f"{name} = {settings[name]!r}: networks that inherit weights are built by their transforms; "
                    "leave it out, or use evaluator='training'."
                )
        for name, value in (("wider_noise", wider_noise), ("deeper_noise", deeper_noise), ("cache_mb", cache_mb)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise InvalidArgument(f"{name} must be a number of at least 0, got {value!r}.")
        if optimiser_state not in OPTIMISER_STATES:
            raise UnknownName("state of the optimiser", optimiser_state, OPTIMISER_STATES)
        super().__init__(space, **settings)
        self.parent = parent
        # No training has no epochs; its recipe is not used.
        self._start_epochs = (0 if parent else START_EPOCHS) if start_epochs is None else start_epochs
        unused = parent is not None and self._start_epochs == 0
        start_recipe = dataclasses.replace(
            self.recipe, epochs=1 if unused else self._start_epochs, learning_rate=start_learning_rate
        )
        fields = {f.name: getattr(self.task, f.name) for f in dataclasses.fields(self.task)}
        noise = {"wider": float(wider_noise), "deeper": float(deeper_noise)}
        keeps_memory = optimiser_state == "mapped"
        self.task = InheritingTask(**fields, start_recipe=start_recipe, noise=noise, keeps_memory=keeps_memory)
        self.cache_bytes = 1e6 * cache_mb
        self._start: str | None = None
        self._adopted: str | None = None
        self._start_failure = ""

    @cached_property
    def workers(self) -> Workers[Inspection | TrainingJob, ChildResult]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The workers, started when first needed."""
        make_work = functools.partial(make_inheriting_worker, self.task)
        return InProcess(make_work, self._slots[0]) if self._in_process else LocalProcesses(make_work, self._slots)

    # --- asking ------------------------------------------------------------------------------------

    def evaluate(self, queries: Queries) -> Evaluations:
        """Train every architecture of the batch on all workers, and wait for the last one."""
        fidelities: Iterable[int | None] = [None] * len(queries)
        if queries.fidelities is not None:
            fidelities = queries.fidelities.tolist()
        # All are checked before anything is trained.
        epochs = [self._epochs(fidelity) for fidelity in fidelities]
        parents = queries.parents or [None] * len(queries)
        tickets = list(map(self._ask, queries.rows, epochs, parents))
        return Evaluations.of([self._wait(ticket) for ticket in tickets], self.search_metrics)

    def evaluate_one(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> Evaluation:
        """Train one architecture.

        Args:
            encoding: the architecture.
            fidelity: epochs.
            parent: content hash of the weights that it inherits; None = those of the start network.

        Raises:
            FidelityError: `fidelity` is not between 1 and the recipe's epochs.
        """
        return self._wait(self._ask(encoding, self._epochs(fidelity), parent))

    def submit(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> int:
        """Ask for one training without waiting, but for that of the start network."""
        return self._ask(encoding, self._epochs(fidelity), parent)

    def _ask(self, encoding: Encoding, epochs: int, parent: str | None = None) -> int:
        canonical = self.space.canonical(encoding)
        repeat = self._repeats.get((canonical, epochs), 0)
        self._repeats[canonical, epochs] = repeat + 1
        key = self.key(canonical, epochs, stream_key(self.evaluation_seed, canonical, repeat))
        return self._enqueue(key if parent is None else dataclasses.replace(key, parent=parent))

    def key(self, canonical: Encoding, epochs: int, seed: int) -> EvaluationKey:
        """Return what a training of a child of the start network is called in the store; trains that network first."""
        key = super().key(canonical, epochs, seed)
        return dataclasses.replace(key, evaluator=EVALUATOR, version=VERSION, parent=self.start_weights or SCRATCH)

    @cached_property
    def _recipe_hash(self) -> str:
        return content_hash([super()._recipe_hash, dict(self.task.noise), *self._memory_mark])

    @property
    def _memory_mark(self) -> list[str]:
        """What tells keys of trainings that hand on what optimisers remember from the others."""
        return ["mapped"] if self.task.keeps_memory else []

    def _enqueue(self, key: EvaluationKey, score_test: bool = False, keep_weights: bool = False) -> int:
        if key.parent == SCRATCH or (
            self._stored(key, score_test) is None and self.store.artifact_path(key.parent) is None
        ):
            ticket = next(self._tickets)
            self._answers[ticket] = self._orphaned(key)
            return ticket
        return super()._enqueue(key, score_test, keep_weights or self.cache_bytes > 0)

    def _orphaned(self, key: EvaluationKey) -> Evaluation:
        """Return the answer where the parent's weights are missing; it is not stored, they may come back."""
        if key.parent == SCRATCH:
            message = f"the start network could not be trained: {self._start_failure}"
        else:
            file = artifact_file(self.store.path, key.parent)
            message = (
                f"the parent's weights are gone: there is no file {file}. Put it back, or begin with another store."
            )
        failed = dict.fromkeys(self.search_metrics, math.nan)
        return Evaluation(Status.BUILD_ERROR, failed, 0.0, message)

    # --- the start network -------------------------------------------------------------------------

    @property
    def start_key(self) -> EvaluationKey:
        """What the training of the start network is called in the store."""
        start, recipe = self.task.start, self.task.start_recipe
        name = f"{self.space.name}: {start}"
        seed = stream_key(self.evaluation_seed, name)
        recipe_hash = content_hash([recipe.to_json(), dict(self.task.sizes), *self._memory_mark])
        return EvaluationKey(
            name,
            START,
            START_EVALUATOR,
            VERSION,
            self.dataset.fingerprint,
            recipe_hash,
            seed,
            self._start_epochs,
            SCRATCH if self.parent is None else self._parent_artifact(self.parent),
        )

    def _parent_artifact(self, parent: str) -> str:
        """Return the content hash of the start network's parent, whose file is in the store from now on.

        Raises:
            InvalidArgument: it is gone.
            StoreError: it cannot be stored.
        """
        if self._adopted is None:
            file = find_parent(parent, self.store.path)
            if file == artifact_file(self.store.path, file.name):
                self._adopted = file.name
                return file.name
            copy = self.store.temporary_file()
            try:
                shutil.copyfile(file, copy)
                self._adopted = self.store.put_artifact(copy)
            except OSError as error:
                raise InvalidArgument(
                    f"the parent's weights {file} cannot be read: {error.strerror or error}."
                ) from None
            finally:
                copy.unlink(missing_ok=True)
        return self._adopted

    @property
    def start_weights(self) -> str | None:
        """Content hash of the trained start network, which is trained now if it never was; None if that failed."""
        if self._start is None:
            try:
                self._start = self._trained_start()
            except InvalidArgument as error:
                self._start_failure = str(error)
        return self._start

    def _trained_start(self) -> str | None:
        key = self.start_key
        stored = self.store.get(key)
        if stored is None:
            self._train_start(key)
            # Another process may have been faster; the first answer counts.
            stored = self.store.get(key)
        if stored is None:
            return None
        self._start_failure = "" if stored.status is Status.OK else f"{stored.status.label}: {stored.message}"
        return stored.artifact

    def _train_start(self, key: EvaluationKey) -> None:
        """Train the start network and commit the answer; one that may be better another time is filed as a failure."""
        if key.fidelity == 0:
            # As it is; the row says that its file is needed.
            self.store.put(key, StoredEvaluation(Status.OK, {}, {}, {}, 0.0, artifact=key.parent))
            return
        for _ in range(self.retries + 1):
            file = self.store.temporary_file()
            parent = None if key.parent == SCRATCH else artifact_file(self.store.path, key.parent)
            job = InheritingJob(START, key.fidelity, key.seed, pause_to=file, parent=parent)
            result = result_of(self._completed(self.workers.submit(job)))
            last = {name: values[-1] for name, values in result.curve.items() if values and name != "train_loss"}
            stored = to_stored(dataclasses.replace(result, metrics={**result.metrics, **last}))
            if result.status is Status.BUILD_ERROR and parent is not None:
                self._start_failure = f"{result.status.label}: {result.message}"
                return  # The parent's weights are to blame, which may be mended.
            if result.paused:
                stored = dataclasses.replace(stored, artifact=self.store.put_artifact(file))
            file.unlink(missing_ok=True)
            self.store.put(key, stored)
            self.trained_epochs += len(stored.curve.get("train_seconds", ()))
            self._start_failure = f"{result.status.label}: {result.message}"
            if not result.status.retryable:
                return

    def _completed(self, ticket: int) -> Completion[ChildResult]:
        """Wait for one job; what else is completed meanwhile is kept for later."""
        while True:
            found = None
            for completion in self.workers.collect(None):
                if completion.ticket == ticket:
                    found = completion
                else:
                    self._completions.append(completion)
            if found is not None:
                return found

    # --- children ----------------------------------------------------------------------------------

    def _training_job(self, child: Any) -> TrainingJob:  # noqa: ANN401 - private to the base
        job = super()._training_job(child)
        parent = artifact_file(self.store.path, child.key.parent)
        fields = {one.name: getattr(job, one.name) for one in dataclasses.fields(job)}
        return InheritingJob(**fields, parent=parent)

    def _finish(self, child: Any, result: ChildResult) -> None:  # noqa: ANN401 - private to the base
        """Commit an answer, then give it; one that the parent's weights are to blame for is given only."""
        if result.status is Status.BUILD_ERROR and not self._usable(child.key.parent):
            self._to_store(child, result)
            del self._children[child.key.digest]
            failed = dict.fromkeys(self.search_metrics, math.nan)
            answer = Evaluation(result.status, failed, result.seconds, result.message)
            self._answers.update(dict.fromkeys(child.tickets, answer))
            return
        super()._finish(child, result)
        self._cache.add(child.key, [one.key.parent for one in self._children.values()])

    def _usable(self, parent: str) -> bool:
        """Tell whether the weights of a parent are there and intact."""
        path = self.store.artifact_path(parent)
        try:
            return path is not None and bool(load_parent(path).state)
        except MorphError:
            return False

    # --- weights -----------------------------------------------------------------------------------

    @cached_property
    def _cache(self) -> WeightCache:
        return WeightCache(self.store, EVALUATOR, self.cache_bytes)

    def artifact(self, encoding: Encoding) -> str | None:
        """Return the content hash of the weights of an architecture's first training, None where there are none.

        Those of the longest one are meant that began at the start network of this evaluator.
        """
        canonical = self.space.canonical(encoding)
        key = self.key(canonical, self.recipe.epochs, stream_key(self.evaluation_seed, canonical, 0))
        found = (stored.artifact for _, stored in sorted(self.store.fidelities(key).items(), reverse=True))
        return next((one for one in found if one and self.store.artifact_path(one)), None)

    # --- lifecycle ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop the workers, killing children in flight, and close the store."""
        super().close()
        if "_cache" in self.__dict__:
            del self._cache

    def __getstate__(self) -> dict[str, Any]:
        """Leave what belongs to this process behind when copied to another."""
        return {name: value for name, value in super().__getstate__().items() if name != "_cache"}


def inheriting_evaluator(
    space: SearchSpace,
    sizes: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    **settings: Any,  # noqa: ANN401 - checked against the fields below
) -> InheritingEvaluator:
    """Create an `InheritingEvaluator` from JSON scalars, as environments take them.

    Args:
        space: a search space whose networks grow from a start network.
        sizes: keyword arguments of the network builder.
        recipe: fields of the children's recipe, and own settings, that hold where `settings` do not say otherwise.
        **settings: ``parent``, ``start_epochs``, ``start_learning_rate``, ``wider_noise``, ``deeper_noise``,
            ``optimiser_state``, ``cache_mb`` (see `InheritingEvaluator`), and what `training_evaluator` takes. What is
            None is left at its default.

    Raises:
        UnknownName: a setting that does not exist.
        InvalidArgument: a value outside its range.
    """
    proposed = dict(recipe or {})
    own = {name: proposed.pop(name) for name in _OWN_SETTINGS if name in proposed}
    given = {name: value for name, value in settings.items() if value is not None}
    for name in given:
        if name not in INHERITING_SETTINGS:
            raise UnknownName("setting of the training", name, INHERITING_SETTINGS)
    own |= {name: given.pop(name) for name in _OWN_SETTINGS if name in given}
    return InheritingEvaluator(space, **own, **training_arguments(sizes, proposed, given))


INHERITING_SETTINGS: tuple[str, ...] = (*_OWN_SETTINGS, *SETTINGS)
"""What `inheriting_evaluator` takes besides space and sizes."""
