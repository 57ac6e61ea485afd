"""The page of a table: how it was made and how far it can be trusted, computed from the file.

``python -m nas_benchmarks.table_page digits --update README.md``
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nas_gym.networks.recipe import Recipe
from nas_gym.search_spaces import make_space
from nas_gym.tables.format import TABLES, Table, read_table
from nas_gym.tables.quality import quality

from .markdown import replace_between


def page(table: Table) -> str:
    """Return the page as Markdown."""
    found = quality(table)
    facts, recipe = table.metadata, Recipe(**table.metadata["recipe"])
    splits, seeds = facts["splits"], len(facts["seeds"])
    seconds = table.mean("train_seconds")
    best, mean = table.mean("test_accuracy").max(), table.mean("test_accuracy").mean()
    classes = facts["classes_trained"]
    trained = "each" if classes == len(table) else f"each of the {classes:,} isomorphism classes"
    lines = [
        f"All {len(table):,} architectures of `{facts['space']}`{_settings(facts)}: {trained} was trained {seeds} "
        f"times from scratch on {facts['dataset']} ({splits['train']} training, {splits['valid']} validation, "
        f"{splits['test']} test images), with the accuracy recorded after every epoch.",
        "",
        *_NETWORKS[facts["space"]](facts),
        f"- **Training**: {recipe.epochs} epochs, batch {recipe.batch_size}, {_optimiser(recipe)}, learning rate "
        f"{recipe.learning_rate} falling along a cosine, weight decay {recipe.weight_decay}{_restarts(recipe)}.",
        f"- **Values**: test accuracy {best:.4f} at best, {mean:.4f} on average; a simulated training costs "
        f"{seconds.mean():.2f} processor seconds on average, {seconds.min():.2f} to {seconds.max():.2f}.",
        f"- **File**: {table.path.stat().st_size / 1e6:.2f} MB, SHA-256 `{table.sha256[:16]}...`.",
        "",
        "| Spearman rank correlation, one row a class | all | best 20 % | best 5 % |",
        "|---|---|---|---|",
        _row("validation and test accuracy (best by test)", found.valid_test),
    ]
    if found.split_half is not None:
        lines.append(_row("validation accuracies of one seed and another (best by a third)", found.split_half))
    for column, shares in facts.get("rank_correlation", {}).items():
        lines.append(_row(f"validation accuracy and NATS-Bench `{column}` (best by NATS-Bench)", shares))
    lines += [
        "",
        f"Among the 100 best encodings there are {found.distinct_in_top_100} distinct validation accuracies. "
        f"{found.tied_encodings} encodings ({found.tied_classes} classes) lie within one standard error "
        f"({100 * found.standard_error:.2f} percentage points, pooled over the best 5 %) of the best test accuracy: a "
        "regret below that is reported as tied.",
    ]
    return "\n".join(lines)


def _settings(facts: Mapping[str, Any]) -> str:
    """Return how the search space differs from its default."""
    given = facts.get("space_settings", {})
    usual = make_space(facts["space"]).settings
    changed = {name: value for name, value in given.items() if value != usual[name]}
    return " with " + ", ".join(f"`{name}={json.dumps(value)}`" for name, value in changed.items()) if changed else ""


def _optimiser(recipe: Recipe) -> str:
    return {"sgd": f"SGD with Nesterov momentum {recipe.momentum}", "adam": "Adam", "rmsprop": "RMSprop"}[
        recipe.optimiser
    ]


def _restarts(recipe: Recipe) -> str:
    if not recipe.restarts:
        return ""
    return (
        f", at most {recipe.restarts} restarts, each with {recipe.restart_factor} of the learning rate, where the "
        "first epoch is no better than chance"
    )


def _cells(facts: Mapping[str, Any]) -> list[str]:
    """Return what to know of tables of cells."""
    skeleton = facts["skeleton"] if "skeleton" in facts else facts["sizes"]["skeleton"]
    return [
        f"- **Network**: {skeleton['channels']} channels, {skeleton['stages']} stages of {skeleton['cells_per_stage']} "
        f"cell, {skeleton['reduction']} reductions (ReLU, 2x2 average pooling, 1x1 convolution, batch normalisation) "
        "between them.",
        "- **Classes**: the network trained is that of the class's cell with the fewest parameters, then the smallest "
        "encoding. The official classes are not exactly equivalent networks: 578 of them mix different numbers of "
        "convolutions. Parameters and multiply-adds are those of every single cell.",
    ]


def _chains(facts: Mapping[str, Any]) -> list[str]:
    """Return what to know of tables of chains."""
    return [
        f"- **Network**: the chain as it is, with the published dropout, without batch normalisation, weights drawn by "
        f"Glorot's rule ({facts['recipe']['initialisation']}).",
    ]


_NETWORKS: Mapping[str, Callable[[Mapping[str, Any]], list[str]]] = {"nas_bench_201": _cells, "metaqnn": _chains}
"""What to know of the networks of a table, by search space."""


def _row(label: str, shares: Mapping[float, float] | Mapping[str, float]) -> str:
    return f"| {label} | {' | '.join(f'{value:.2f}' for value in shares.values())} |"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m nas_benchmarks.table_page", description=__doc__)
    parser.add_argument("table", nargs="?", default="digits", help="name or path of a table (default: digits)")
    parser.add_argument("--update", type=Path, help="file whose page of the table is replaced")
    arguments = parser.parse_args()
    text = page(read_table(TABLES[arguments.table]))
    sys.stdout.write(text + "\n")
    if arguments.update is not None:
        replace_between(arguments.update, f"table {arguments.table}", text)


if __name__ == "__main__":
    main()
