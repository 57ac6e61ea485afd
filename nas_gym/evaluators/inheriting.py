"""The reward of a network by training it a little more: it inherits the weights of a trained parent.

The start network of the search space is trained once and kept in the store as a file that is named by its content. A
child takes its weights through the transforms that its encoding stands for, and is then trained for a few epochs.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from nas_gym.errors import InvalidArgument, UnknownName
from nas_gym.evaluators.child import ChildResult, Inspection, TrainingJob
from nas_gym.evaluators.core import Evaluation, Evaluations, Queries, Status, stream_key
from nas_gym.evaluators.inheriting_child import START, InheritingJob, InheritingTask, make_inheriting_worker
from nas_gym.evaluators.local_processes import LocalProcesses
from nas_gym.evaluators.stored import SCRATCH, EvaluationKey
from nas_gym.evaluators.training import SETTINGS, TrainingEvaluator, result_of, to_stored, training_arguments
from nas_gym.evaluators.workers import Completion, InProcess, Workers
from nas_gym.networks import MORPHISMS
from nas_gym.networks.morph import MorphError, load_network
from nas_gym.networks.recipe import content_hash
from nas_gym.search_spaces.core import Encoding, SearchSpace

VERSION = 1
"""Part of every key in a store; a change of what an evaluation computes bumps it."""

EVALUATOR = "inheriting"
START_EVALUATOR = "start network"
"""What keys of children and of start networks have in the field `evaluator`."""

_OWN_SETTINGS = ("start_epochs", "start_learning_rate", "wider_noise", "deeper_noise", "cache_mb")


class InheritingEvaluator(TrainingEvaluator):
    """Trains every architecture a few epochs after it inherited the weights of a trained parent.

    The parent is the start network of the search space, which is trained once, when it is first needed, or what a
    query names: the `artifact` of an earlier answer of this store. All of `TrainingEvaluator` holds: fidelities,
    seeds, statuses, limits, and that what the store holds is not trained again. A key names the parent's content, so
    that a child of other weights, or of none, is another evaluation. Restarts of the recipe inherit anew.

    The weights of finished children are kept up to a limit, the oldest going first; those that were or are a parent
    stay. A parent that is gone all the same fails its children with the status ``build_error``.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        start_epochs: int = 20,
        start_learning_rate: float = 0.1,
        wider_noise: float = 0.01,
        deeper_noise: float = 0.001,
        cache_mb: float = 1000.0,
        **settings: Any,  # noqa: ANN401 - those of TrainingEvaluator
    ) -> None:
        """Configure the evaluator; nothing is loaded, started or trained before the first query.

        Args:
            space: a search space whose networks grow from a start network, a name in `MORPHISMS`.
            start_epochs: epochs of the start network's training; the rest of its recipe is that of the children.
            start_learning_rate: largest of that training.
            wider_noise: on units that are repeated, in standard deviations; 0 keeps the function exactly.
            deeper_noise: on layers that are inserted.
            cache_mb: megabytes of the children's weights that are kept.
            **settings: see `TrainingEvaluator`; without ``builder`` and ``reference``.

        Raises:
            UnknownName: no such data set, or a space that has no start network.
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
        super().__init__(space, **settings)
        start_recipe = dataclasses.replace(self.recipe, epochs=start_epochs, learning_rate=start_learning_rate)
        fields = {f.name: getattr(self.task, f.name) for f in dataclasses.fields(self.task)}
        noise = {"wider": float(wider_noise), "deeper": float(deeper_noise)}
        self.task = InheritingTask(**fields, start_recipe=start_recipe, noise=noise)
        self.cache_bytes = 1e6 * cache_mb
        self._start: str | None = None
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
        return content_hash([super()._recipe_hash, dict(self.task.noise)])

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
            file = self.store.artifacts / key.parent[:2] / key.parent
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
        recipe_hash = content_hash([recipe.to_json(), dict(self.task.sizes)])
        return EvaluationKey(
            name, START, START_EVALUATOR, VERSION, self.dataset.fingerprint, recipe_hash, seed, recipe.epochs
        )

    @property
    def start_weights(self) -> str | None:
        """Content hash of the trained start network, which is trained now if it never was; None if that failed."""
        if self._start is None:
            self._start = self._trained_start()
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
        for _ in range(self.retries + 1):
            file = self.store.temporary_file()
            job = InheritingJob(START, key.fidelity, key.seed, pause_to=file)
            result = result_of(self._completed(self.workers.submit(job)))
            last = {name: values[-1] for name, values in result.curve.items() if values and name != "train_loss"}
            stored = to_stored(dataclasses.replace(result, metrics={**result.metrics, **last}))
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
        parent = self.store.artifacts / child.key.parent[:2] / child.key.parent
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
        self._keep(child.key)

    def _usable(self, parent: str) -> bool:
        """Tell whether the weights of a parent are there and intact."""
        path = self.store.artifact_path(parent)
        try:
            return path is not None and bool(load_network(path))
        except MorphError:
            return False

    # --- the cache of weights ----------------------------------------------------------------------

    @cached_property
    def _kept(self) -> dict[str, int]:
        """Bytes of every kept file of a finished child, the oldest first."""
        found: dict[str, int] = {}
        for key, stored in self.store.rows():
            if key.evaluator == EVALUATOR and stored.artifact is not None:
                path = self.store.artifact_path(stored.artifact)
                if path is not None:
                    found[stored.artifact] = path.stat().st_size
        return found

    def _keep(self, key: EvaluationKey) -> None:
        """Count the weights of a finished child, and remove the oldest ones that are too much."""
        stored = self.store.get(key)
        path = None if stored is None or stored.artifact is None else self.store.artifact_path(stored.artifact)
        if path is not None and stored is not None and stored.artifact is not None:
            self._kept[stored.artifact] = path.stat().st_size
        if sum(self._kept.values()) <= self.cache_bytes:
            return
        needed = self._needed()
        for artifact in [one for one in self._kept if one not in needed]:
            if sum(self._kept.values()) <= self.cache_bytes:
                return
            self.store.remove_artifact(artifact)
            del self._kept[artifact]

    def _needed(self) -> set[str]:
        """Return the weights that were ever a parent, in this process or another, or are one now."""
        parents = {key.parent for key, _ in self.store.rows()}
        return parents | {child.key.parent for child in self._children.values()}

    # --- lifecycle ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop the workers, killing children in flight, and close the store."""
        super().close()
        if "_kept" in self.__dict__:
            del self._kept

    def __getstate__(self) -> dict[str, Any]:
        """Leave what belongs to this process behind when copied to another."""
        return {name: value for name, value in super().__getstate__().items() if name != "_kept"}


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
        **settings: ``start_epochs``, ``start_learning_rate``, ``wider_noise``, ``deeper_noise``, ``cache_mb`` (see
            `InheritingEvaluator`), and what `training_evaluator` takes. What is None is left at its default.

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
