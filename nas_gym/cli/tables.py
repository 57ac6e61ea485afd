"""``nas-gym tables``: list, describe, verify and build tabular benchmarks."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column
from rich.table import Table as Listing

from nas_gym.cli.console import key_values, output
from nas_gym.cli.tables_import import import_table
from nas_gym.errors import InvalidArgument, MissingExtra, TableError, UnknownName
from nas_gym.search_spaces import SEARCH_SPACES, make_space
from nas_gym.tables.format import TABLES, Table, read_table
from nas_gym.tables.quality import Quality, quality

app = typer.Typer(help="Tabular benchmarks: list, info, verify, build.", no_args_is_help=True)
app.command("import")(import_table)

DataOption = Annotated[
    str | None, typer.Option(help="Read the images from this .npz file or folder, where they are not at their place.")
]
NameOrPath = Annotated[str, typer.Argument(help="Name of a table, or path of a .parquet file.")]


@app.command("list")
def list_tables() -> None:
    """List the installed tables.

    Example: nas-gym tables list
    """
    listing = Listing(
        "Table", "Space", "Architectures", "Seeds", "Epochs", box=None, pad_edge=False, header_style="bold"
    )
    for name, path in TABLES.items():
        try:
            table = read_table(path)
        except TableError as error:
            listing.add_row(name, f"damaged: {error}")
            continue
        seeds = max(measurement.seeds for measurement in table.measurements.values())
        space = str(table.metadata.get("space"))
        listing.add_row(name, space, f"{len(table):,}", str(seeds or "-"), str(table.epochs))
    output.print(listing)


@app.command()
def info(name: NameOrPath) -> None:
    """Show what a table records, how it was made and how far it can be trusted.

    Example: nas-gym tables info digits
    """
    table = read_table(TABLES[name])
    output.print(f"{table.name}: {len(table):,} architectures of {table.metadata.get('space')}", highlight=False)
    output.print(f"SHA-256 {table.sha256} (verified)", highlight=False, soft_wrap=True)
    if missing := table.metadata.get("missing"):
        output.print(f"Incomplete: {missing:,} architectures of the space are missing.", highlight=False)
    headings = ("Metric", "Best", "Mean", "Worst", "Unit", "Seeds", "Epochs", "")
    columns = (Column(heading, no_wrap=True) for heading in headings)
    listing = Listing(*columns, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    declared = {table.metadata.get("signal"): "signal", table.metadata.get("report"): "report"}
    for metric, measurement in table.measurements.items():
        values = np.sort(table.mean(metric))
        if measurement.direction == "maximize":
            values = values[::-1]
        numbers = (_short(number) for number in (values[0], values.mean(), values[-1]))
        use = declared.get(metric, "held out" if measurement.held_out else "")
        epochs = str(measurement.epochs or measurement.trained_epochs or "-")
        listing.add_row(metric, *numbers, measurement.unit, str(measurement.seeds or "-"), epochs, use)
    output.print()
    output.print(listing)
    if table.metadata.get("space") in SEARCH_SPACES and {"valid_accuracy", "test_accuracy"} <= set(table.measurements):
        output.print()
        output.print(_quality_listing(quality(table), table.metadata.get("rank_correlation", {})))
    if any(measurement.description for measurement in table.measurements.values()):
        output.print()
    for metric, measurement in table.measurements.items():
        if measurement.description:
            output.print(f"{metric}: {measurement.description}", markup=False, highlight=False, soft_wrap=True)
    output.print()
    described = {key: value for key, value in table.metadata.items() if key not in ("measurements", "sha256")}
    output.print_json(json.dumps(described))


def _short(number: float) -> str:
    """Return a number in at most eight characters, as far as it is below a billion."""
    if abs(number) >= 1e6:
        return f"{number / 1e6:,.2f} M"
    if abs(number) >= 1000:
        return f"{number:,.0f}"
    return (f"{number:.2f}" if abs(number) >= 10 else f"{number:.4f}").rstrip("0").rstrip(".")


def _quality_listing(found: Quality, other: dict[str, dict[str, float]]) -> Listing:
    """Return the reliability of a table; correlations are Spearman's, over one row per isomorphism class."""
    listing = Listing("Rank correlation", "all", "best 20%", "best 5%", box=None, pad_edge=False, header_style="bold")
    rows = {
        "validation and test accuracy": found.valid_test,
        "validation, half of the seeds and another half": found.split_half,
    }
    for label, shares in rows.items():
        if shares is not None:
            listing.add_row(label, *(f"{value:.3f}" for value in shares.values()))
    for column, shares in other.items():
        listing.add_row(f"validation accuracy and {column}", *(f"{value:.3f}" for value in shares.values()))
    listing.add_section()
    listing.add_row("isomorphism classes", f"{found.classes:,}")
    listing.add_row("distinct validation accuracies in the top 100", str(found.distinct_in_top_100))
    if not found.standard_error:
        listing.add_row("standard error of test accuracy near the best", "unknown, one value an architecture")
        return listing
    listing.add_row("standard error of test accuracy near the best", f"{found.standard_error:.5f}")
    tied = f"{found.tied_encodings:,} ({found.tied_classes:,} classes)"
    listing.add_row("architectures within one standard error of the best", tied)
    return listing


@app.command()
def verify(
    name: NameOrPath,
    retrain: Annotated[int, typer.Option(help="Train so many random rows again and compare.")] = 0,
    seed: Annotated[int, typer.Option(help="Which rows are drawn.")] = 0,
    data: DataOption = None,
) -> None:
    """Check the hash of a table and, if asked, train random rows again from the recipe in its metadata.

    Example: nas-gym tables verify digits --retrain 5
    """
    table = read_table(TABLES[name])
    output.print(f"{table.path}: {len(table):,} rows, SHA-256 matches.", highlight=False, soft_wrap=True)
    if retrain < 0:
        raise InvalidArgument(f"--retrain must not be negative, got {retrain}.")
    if retrain:
        _retrain(table, retrain, seed, data)


def _retrain(table: Table, count: int, seed: int, data: str | None) -> None:
    """Train rows again and compare; accuracies may differ in rounding between machines, but not by much.

    Raises:
        TableError: a row differs by more than its seeds differ among each other.
    """
    try:
        from nas_gym.tables.verify import retrain_rows
    except ImportError as error:
        raise MissingExtra("training rows again", "train", error) from error
    listing = Listing(
        "Architecture", "Seed", "Recorded", "Retrained", "", box=None, pad_edge=False, header_style="bold"
    )
    rows = list(retrain_rows(table, count, np.random.default_rng(seed), data))
    for row in rows:
        verdict = "same" if row.same else f"differs by {row.difference:.4f}"
        listing.add_row(row.architecture, str(row.seed), _curve(row.recorded), _curve(row.retrained), verdict)
    output.print(listing)
    same = sum(row.same for row in rows)
    output.print(f"{same} of {len(rows)} retrained rows equal the record exactly.")
    if rows and rows[0].same_images is False:
        recorded = table.metadata["data"]["provenance"] or "not described"
        output.print(
            f"The images here are other ones than those of the table ({recorded}), so that accuracies differ a little.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if beyond := [row for row in rows if not row.plausible]:
        raise TableError(
            f"{table.path}: {len(beyond)} of {len(rows)} retrained rows differ by more than the table's own seeds do; "
            f"the first is {beyond[0].architecture}."
        )


def _curve(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


@app.command()
def build(
    out: Annotated[Path, typer.Option(help="The .parquet file to write.")],
    like: Annotated[str, typer.Option(help="Packaged table whose specification to start from.")] = "digits",
    space: Annotated[str | None, typer.Option(help="Search space.")] = None,
    space_arg: Annotated[list[str] | None, typer.Option(help="Setting of the search space, key=value.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set.")] = None,
    dataset_arg: Annotated[
        list[str] | None, typer.Option(help="Setting of the data set, key=value, e.g. image_size=16.")
    ] = None,
    data: DataOption = None,
    provenance: Annotated[
        str, typer.Option(help="What distinguishes the images of --data from the data set's own; recorded.")
    ] = "",
    seeds: Annotated[int, typer.Option(help="Trainings of every class.")] = 3,
    workers: Annotated[int, typer.Option(help="Worker processes, one thread each.")] = 2,
    recipe: Annotated[list[str] | None, typer.Option(help="Field of the recipe, key=value, e.g. epochs=6.")] = None,
    size: Annotated[list[str] | None, typer.Option(help="Argument of the network builder, key=value.")] = None,
    skeleton: Annotated[
        list[str] | None, typer.Option(help="Size around the cell, key=value, e.g. channels=8.")
    ] = None,
    against: Annotated[
        list[str] | None, typer.Option(help="Compare with column=FILE.csv and record the rank correlation.")
    ] = None,
) -> None:
    """Train a whole search space into a table; interrupt it at any time, the same command goes on.

    Example: nas-gym tables build --like metaqnn-digits --out metaqnn-digits.parquet --seeds 3 --workers 2
    """
    try:
        from nas_gym.tables.assemble import assemble
        from nas_gym.tables.build import PACKAGED, BuildSpec, train_shards
    except ImportError as error:
        raise MissingExtra("building a table", "train", error) from error
    if seeds < 1:
        raise InvalidArgument(f"--seeds must be at least 1, got {seeds}.")
    if out.exists():
        raise InvalidArgument(f"{out} exists already; choose another --out or remove it.")
    if like not in PACKAGED:
        raise UnknownName("packaged table", like, PACKAGED)
    base = BuildSpec(space).to_json() if space is not None else PACKAGED[like].to_json()
    changes = {
        "recipe": key_values("--recipe", recipe or []),
        "sizes": key_values("--size", size or []),
        "skeleton": key_values("--skeleton", skeleton or []),
        "space_settings": key_values("--space-arg", space_arg or []),
        "dataset_settings": key_values("--dataset-arg", dataset_arg or []),
    }
    if provenance and data is None:
        raise InvalidArgument("--provenance describes the images of --data, which is missing.")
    spec = dataclasses.replace(BuildSpec.from_json(_spec_fields(base, dataset, changes)), data=data)
    spec.source.check()
    compared = {column: Path(path) for column, path in key_values("--against", against or []).items()}
    work = out.with_name(out.name + ".build")
    bar = Progress(
        TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"), console=output
    )
    with bar as progress:
        task = progress.add_task("training", total=None, left="")

        def show(state: Any) -> None:  # noqa: ANN401 - nas_gym.tables.build.Progress, imported late
            progress.update(task, total=state.total, completed=state.done, left=_time_left(state.seconds_left))

        train_shards(spec, work, range(seeds), workers, show)
    output.print("Counting parameters and multiply-adds ...")
    sha256 = assemble(spec, work, out, seeds, compared, provenance)
    output.print(f"Wrote {out} (SHA-256 {sha256}). {work} can be removed.", highlight=False, soft_wrap=True)


def _spec_fields(fields: dict[str, Any], dataset: str | None, changes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the fields of a build specification with the arguments on top.

    Args:
        fields: `BuildSpec.to_json`.
        dataset: another data set, None = that of the fields.
        changes: by part: ``recipe``, ``sizes``, ``space_settings``, ``dataset_settings`` and ``skeleton``, one of the
            sizes.

    Raises:
        UnknownName: the recipe, the space, the data set or the network builder has no such field, or no such space or
            data set.
    """
    from nas_gym.datasets import DATASETS, Source
    from nas_gym.networks import NETWORKS
    from nas_gym.tables.build import PACKAGED

    dataset = str(dataset or fields["dataset"])
    for registry, name in ((SEARCH_SPACES, str(fields["space"])), (DATASETS, dataset)):
        if name not in registry and ":" not in name:
            raise UnknownName(registry.kind, name, registry)
    space = make_space(fields["space"], {**fields["space_settings"], **changes["space_settings"]})
    sizes = {**fields["sizes"], **changes["sizes"]}
    taken = list(inspect.signature(NETWORKS[space.name]).parameters)[3:]
    for key in (*sizes, *(["skeleton"] if changes["skeleton"] else [])):
        if key not in taken:
            raise UnknownName(f"argument of the network builder {space.name!r}", key, taken)
    if changes["skeleton"]:
        default = dict(PACKAGED["digits"].sizes["skeleton"]) | sizes.get("skeleton", {})
        for key in changes["skeleton"]:
            if key not in default:
                raise UnknownName("field of the skeleton", key, default)
        sizes["skeleton"] = default | changes["skeleton"]
    for key in changes["recipe"]:
        if key not in fields["recipe"]:
            raise UnknownName("field of the recipe", key, fields["recipe"])
    recipe = {**fields["recipe"], **changes["recipe"]}
    known = [name for name in inspect.signature(Source).parameters if name != "name"]
    for key in changes["dataset_settings"]:
        if key not in known:
            raise UnknownName("setting of the data set", key, known)
    settings = {
        "space_settings": space.settings,
        "dataset_settings": {**fields["dataset_settings"], **changes["dataset_settings"]},
    }
    return {**fields, "dataset": dataset, "recipe": recipe, "sizes": sizes, **settings}


def _time_left(seconds: float) -> str:
    if seconds == float("inf"):
        return "estimating"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min left" if minutes >= 60 else f"{minutes} min left"
