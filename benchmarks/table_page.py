"""The page of a table: how it was made and how far it can be trusted, computed from the file.

``python -m nas_benchmarks.table_page digits --update README.md``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from nas_gym.tables.format import TABLES, Table, read_table
from nas_gym.tables.quality import quality

from .markdown import replace_between


def page(table: Table) -> str:
    """Return the page as Markdown."""
    found = quality(table)
    facts, recipe, skeleton = table.metadata, table.metadata["recipe"], table.metadata["skeleton"]
    splits, seeds = facts["splits"], len(facts["seeds"])
    seconds = table.mean("train_seconds")
    best, mean = table.mean("test_accuracy").max(), table.mean("test_accuracy").mean()
    lines = [
        f"All {len(table):,} cells of `{facts['space']}`: each of the {facts['classes_trained']:,} isomorphism classes "
        f"was trained {seeds} times from scratch on {facts['dataset']} ({splits['train']} training, "
        f"{splits['valid']} validation, {splits['test']} test images), with the accuracy recorded after every epoch.",
        "",
        f"- **Network**: {skeleton['channels']} channels, {skeleton['stages']} stages of {skeleton['cells_per_stage']} "
        f"cell, {skeleton['reduction']} reductions (ReLU, 2x2 average pooling, 1x1 convolution, batch normalisation) "
        "between them.",
        f"- **Training**: {recipe['epochs']} epochs, batch {recipe['batch_size']}, SGD with Nesterov momentum "
        f"{recipe['momentum']}, learning rate {recipe['learning_rate']} falling along a cosine, weight decay "
        f"{recipe['weight_decay']}.",
        "- **Classes**: the network trained is that of the class's cell with the fewest parameters, then the smallest "
        "encoding. The official classes are not exactly equivalent networks: 578 of them mix different numbers of "
        "convolutions. Parameters and multiply-adds are those of every single cell.",
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
        replace_between(arguments.update, "table", text)


if __name__ == "__main__":
    main()
