"""``nas-gym train``: from the best architectures of a search to a model file."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import gymnasium
import typer
from rich.table import Table
from rich.text import Text

from nas_benchmarks.records import RunDirectory, finite
from nas_gym.cli.console import key_values, output
from nas_gym.errors import InvalidArgument, MissingExtra, ResumeError
from nas_gym.networks import NETWORKS
from nas_gym.search_spaces.core import SearchSpace

if TYPE_CHECKING:
    from nas_benchmarks.final_training import Candidate
    from nas_gym.evaluators.training import TrainingEvaluator

_SKELETON = {"channels": 8, "cells_per_stage": 1, "stages": 3, "reduction": "pooling"}


def train(
    run: Annotated[Path, typer.Argument(help="Run directory of a search.")],
    top: Annotated[int, typer.Option(help="Train so many of the best architectures.")] = 3,
    epochs: Annotated[int | None, typer.Option(help="Epochs; those of the search by default.")] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each.")] = 1,
    reference: Annotated[
        str | None, typer.Option(help="Your own network, module:function(input_shape, classes).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write; RUN/models by default.")] = None,
    workers: Annotated[int, typer.Option(help="Networks in training at once.")] = 1,
    metric: Annotated[str, typer.Option(help="Validation metric that ranks.")] = "valid_accuracy",
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="Data or recipe, key=value, in place of the search's.")
    ] = None,
) -> None:
    """Train the best architectures of a search from scratch, re-rank them, and write the winner as a model.

    The test set is scored once, for the winner. An interrupted command continues where it stopped.

    Example: nas-gym train runs/photos --top 3 --epochs 30 --seeds 2 --set augmentation=crop,flip
    """
    try:
        from nas_benchmarks.final_training import (
            STORE,
            best_rows,
            check_reference,
            check_target,
            deploy,
            import_reference,
            train_candidates,
            train_reference,
        )
        from nas_gym.networks.scores import SCORES
    except ImportError as error:
        raise MissingExtra("nas-gym train", "train", error) from error
    for name, value in (("--top", top), ("--seeds", seeds)):
        if value < 1:
            raise InvalidArgument(f"{name} must be at least 1, got {value}.")
    if metric not in (known := [f"valid_{name}" for name in SCORES]):
        raise InvalidArgument(f"--metric must be one of {', '.join(known)}, got {metric!r}.")
    directory = RunDirectory.existing(run)
    target = out or run / "models"
    check_target(target)
    config = directory.read_json("config.json") or {}
    space, settings = _problem(config)
    given = key_values("--set", setting or []) | ({} if epochs is None else {"epochs": epochs})
    settings |= {**given, "workers": workers, "store": str(target / STORE)}
    if reference is not None:
        import_reference(reference)
    chosen = best_rows(directory.rows(), space, top)
    evaluator = _evaluator(space, settings)
    own = None if reference is None else _evaluator(space, {**settings, "reference": reference})
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
    finally:
        evaluator.close()
        if own is not None:
            own.close()
    RunDirectory(target).write_json("ranking.json", finite(results))
    _print(ranked, references, results["models"])
    output.print(f"Models: {target}", highlight=False, markup=False, soft_wrap=True)


def _problem(config: Mapping[str, Any]) -> tuple[SearchSpace, dict[str, Any]]:
    """Return the search space of a run, and its data, recipe and skeleton.

    Limits are the search's own: a final training is longer, and the user's network may be larger.

    Raises:
        ResumeError: the configuration does not describe a search.
    """
    from nas_gym.evaluators.limits import Limits
    from nas_gym.evaluators.training import SETTINGS

    left = {"store", "workers", "reference", "latency", "latency_batch", *(field.name for field in fields(Limits))}
    try:
        env = gymnasium.make(config["env"], evaluator="synthetic").unwrapped
        arguments = dict(config["env_args"])
    except (KeyError, TypeError, gymnasium.error.Error) as error:
        raise ResumeError(f"config.json does not describe a search: {error}.") from error
    space: SearchSpace = env.get_wrapper_attr("space")
    settings = {name: arguments[name] for name in SETTINGS if name in arguments and name not in left}
    return space, settings | {name: arguments[name] for name in _SKELETON if name in arguments}


def _evaluator(space: SearchSpace, settings: Mapping[str, Any]) -> TrainingEvaluator:
    from nas_gym.evaluators.training import training_evaluator

    sizes: dict[str, Any] = {}
    if "skeleton" in inspect.signature(NETWORKS[space.name]).parameters:
        sizes["skeleton"] = {name: settings.get(name, default) for name, default in _SKELETON.items()}
    return training_evaluator(space, sizes, **{k: v for k, v in settings.items() if k not in _SKELETON})


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
