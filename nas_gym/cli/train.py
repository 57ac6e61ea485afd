"""``nas-gym train``: from the best architectures of a search to a model file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from nas_benchmarks.published import published_training
from nas_benchmarks.records import RunDirectory, finite
from nas_gym.cli.console import key_values, output
from nas_gym.cli.estimate import innermost
from nas_gym.cli.search import Settings
from nas_gym.errors import InvalidArgument, MissingExtra
from nas_gym.evaluators.core import Evaluator
from nas_gym.search_spaces.core import SearchSpace

if TYPE_CHECKING:
    from nas_benchmarks.final_training import Candidate
    from nas_gym.evaluators.training import TrainingEvaluator


def train(
    run: Annotated[Path, typer.Argument(help="Run directory of a search.")],
    top: Annotated[int | None, typer.Option(help="Train so many of the best architectures; 3 by default.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs; those of the search by default.")] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each.")] = 1,
    reference: Annotated[
        str | None, typer.Option(help="Your own network, module:function(input_shape, classes).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write; RUN/models by default.")] = None,
    workers: Annotated[int, typer.Option(help="Networks in training at once.")] = 1,
    metric: Annotated[str, typer.Option(help="Validation metric that ranks.")] = "valid_accuracy",
    ensemble: Annotated[
        int | None, typer.Option(help="Also score the mean of so many of the best; none by default.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="'published': the paper's final training of the search's environment.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="Data or recipe, key=value, in place of the search's.")
    ] = None,
) -> None:
    """Train the best architectures of a search from scratch, re-rank them, and write the winner as a model.

    The test set is scored once, for the winner, and once more for an ensemble if one is wanted. An interrupted
    command continues where it stopped.

    Example: nas-gym train runs/photos --top 3 --epochs 30 --seeds 2 --set augmentation=crop,flip

    As MetaQNN did: nas-gym train runs/cifar --preset published
    """
    try:
        from nas_benchmarks.final_training import (
            STORE,
            best_rows,
            check_reference,
            check_target,
            deploy,
            import_reference,
            score_ensemble,
            train_candidates,
            train_reference,
        )
        from nas_gym.networks.scores import SCORES
    except ImportError as error:
        raise MissingExtra("nas-gym train", "train", error) from error
    directory = RunDirectory.existing(run)
    proposed = {} if preset is None else published_training(directory, preset)
    usual = proposed.pop("top", 3)
    count = usual if top is None else top
    usual = min(proposed.pop("ensemble", 0), count)
    members = usual if ensemble is None else ensemble
    for name, value in (("--top", count), ("--seeds", seeds)):
        if value < 1:
            raise InvalidArgument(f"{name} must be at least 1, got {value}.")
    if not 0 <= members <= count:
        raise InvalidArgument(f"--ensemble must be between 0 and --top = {count}, got {members}.")
    if metric not in (known := [f"valid_{name}" for name in SCORES]):
        raise InvalidArgument(f"--metric must be one of {', '.join(known)}, got {metric!r}.")
    target = out or run / "models"
    check_target(target)
    problem = _problem(directory)
    given = key_values("--set", setting or []) | ({} if epochs is None else {"epochs": epochs})
    settings = {**problem.settings, **proposed, **given, "workers": workers, "store": str(target / STORE)}
    if reference is not None:
        import_reference(reference)
    chosen = best_rows(directory.rows(), problem.space, count)
    evaluator = _evaluator(problem, settings)
    own = None if reference is None else _evaluator(problem, {**settings, "reference": reference})
    try:
        if own is not None and reference is not None:
            check_reference(reference, own)
        output.print(f"Training {len(chosen)} architectures, {seeds} time(s) each ...", highlight=False)
        ranked = train_candidates(evaluator, chosen, seeds, metric)
        references = []
        if own is not None:
            output.print("Training the reference ...")
            references = [train_reference(own, seeds, metric)]
        results: dict[str, Any] = {
            "ranking": [one.to_json() for one in ranked],
            "reference": references[0].to_json() if references else None,
            "models": {},
        }
        for name, trained, candidate in _deployed(evaluator, own, ranked, references):
            test, failed = deploy(trained, candidate, target / name)
            results["models"][name] = {**candidate.to_json(), "test": test}
            for one in failed:
                output.print(f"{name}: {one.file} was not written: {one.reason}", markup=False, soft_wrap=True)
        joined = [one for one in ranked if one.values][:members]
        if joined:
            results["ensemble"] = {"members": len(joined), **score_ensemble(evaluator, joined)}
    finally:
        evaluator.close()
        if own is not None:
            own.close()
    RunDirectory(target).write_json("ranking.json", finite(results))
    _print(ranked, references, results["models"])
    if "ensemble" in results:
        found = results["ensemble"]
        output.print(
            f"Ensemble of the best {found['members']}: validation {found[metric]:.4f}, "
            f"test {found[metric.replace('valid', 'test')]:.4f}",
            highlight=False,
        )
    output.print(f"Models: {target}", highlight=False, markup=False, soft_wrap=True)


@dataclass(frozen=True)
class Problem:
    """What a search was about.

    Attributes:
        space: what could be built.
        sizes: keyword arguments of the network builder.
        settings: data and recipe, as `training_evaluator` takes them.
    """

    space: SearchSpace
    sizes: Mapping[str, Any]
    settings: Mapping[str, Any]


def _problem(directory: RunDirectory) -> Problem:
    """Return the search space of a run, and its data, recipe and network sizes.

    Limits are the search's own: a final training is longer, and the user's network may be larger.

    Raises:
        ResumeError: the configuration does not describe a search.
    """
    settings = Settings.of_run(directory)
    envs, _ = settings.make(directory.path)
    try:
        return _problem_of(innermost(envs.evaluator), envs.space)
    finally:
        envs.close()


def _problem_of(evaluator: Evaluator, space: SearchSpace) -> Problem:
    """Return the problem that an evaluator poses: its own trainings, those of its table, or the default ones."""
    from nas_gym.evaluators.training import TrainingEvaluator
    from nas_gym.tables.build import DIGITS, BuildSpec

    if isinstance(evaluator, TrainingEvaluator):
        task = evaluator.task
        source = {"dataset" if name == "name" else name: value for name, value in task.source.to_json().items()}
        own = {"builder": task.builder, "device": evaluator.device, "evaluation_seed": evaluator.evaluation_seed}
        return Problem(space, task.sizes, {**source, **evaluator.recipe.to_json(), **own})
    table = getattr(evaluator, "table", None)
    if table is not None and "recipe" in table.metadata:
        spec = BuildSpec.from_json(table.metadata)
        return Problem(space, spec.sizes, {"dataset": spec.dataset, **spec.dataset_settings, **spec.recipe.to_json()})
    return Problem(space, DIGITS.sizes if space.name == DIGITS.space else {}, {})


def _evaluator(problem: Problem, settings: Mapping[str, Any]) -> TrainingEvaluator:
    from nas_gym.evaluators.training import training_evaluator

    return training_evaluator(problem.space, problem.sizes, **settings)


def _deployed(
    evaluator: TrainingEvaluator,
    own: TrainingEvaluator | None,
    ranked: list[Candidate],
    references: list[Candidate],
) -> list[tuple[str, TrainingEvaluator, Candidate]]:
    """Return what is written: the winner, and beside it the reference if its training succeeded."""
    found = [("1-best", evaluator, ranked[0])]
    if own is not None and references[0].values:
        found.append(("reference", own, references[0]))
    return found


def _print(ranked: list[Candidate], references: list[Candidate], models: Mapping[str, Any]) -> None:
    table = Table("", "Architecture", "Parameters", "Validation", "In the search", "Test", box=None, pad_edge=False)
    tests = {"1": models["1-best"]["test"], **({"ref": models["reference"]["test"]} if "reference" in models else {})}
    numbered = [*((str(rank), one) for rank, one in enumerate(ranked, 1)), *(("ref", one) for one in references)]
    for label, one in numbered:
        if not one.values:
            failed = one.trainings[0]
            # As text, since messages of exceptions may look like markup.
            table.add_row(label, one.name, "", Text(f"{failed.status.label}: {failed.message}"), "", "")
            continue
        spread = f" ± {one.deviation:.4f}" if len(one.values) > 1 else ""
        reward = "" if label == "ref" else f"{one.search_reward:.4f}"
        test = tests[label][one.metric.replace("valid", "test")] if label in tests else None
        parameters = f"{one.best[1].metrics['parameters']:,.0f}"
        shown = "" if test is None else f"{test:.4f}"
        table.add_row(label, one.name, parameters, f"{one.mean:.4f}{spread}", reward, shown)
    output.print(table)
