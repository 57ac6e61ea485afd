"""``nas-gym datasets``: what there is, what is in it, and the only place that downloads."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table

from nas_gym.cli.console import output
from nas_gym.datasets import DATASETS, Source
from nas_gym.datasets.cache import data_root
from nas_gym.datasets.vision import download as fetch
from nas_gym.datasets.vision import downloaded

app = typer.Typer(help="Data sets: list, describe, download.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """List the data sets that have a name, and whether they are on this machine.

    Example: nas-gym datasets list
    """
    table = Table("Name", "What", "Here", box=None, pad_edge=False, header_style="bold")
    for name, entry in DATASETS.entries.items():
        table.add_row(name, entry.summary, _here(name))
    output.print(table)
    output.print("A path works too: an .npz file, or a folder with one sub-folder of images per class.")


def _here(name: str) -> str:
    if find_spec("sklearn" if name == "digits" else "torchvision") is None:
        return escape('no: pip install "nas-gym[train]"')
    return "yes" if name == "digits" or downloaded(name) else f"no: nas-gym datasets download {name}"


@app.command()
def info(
    name: Annotated[str, typer.Argument(help="Name, .npz file or folder.")],
    image_size: Annotated[int | None, typer.Option(help="Side that every image is resized to.")] = None,
    subset: Annotated[int | None, typer.Option(help="Use so many training and validation images.")] = None,
    split_seed: Annotated[int, typer.Option(help="Seed of parts that the data set does not name.")] = 0,
) -> None:
    """Load a data set and describe it.

    Example: nas-gym datasets info photos/ --image-size 64
    """
    dataset = Source(name, image_size, subset, split_seed).load()
    channels, height, width = dataset.input_shape
    parts = {"train": dataset.train, "valid": dataset.valid, "test": dataset.test}
    megabytes = sum(part.nbytes for part in parts.values()) / 1e6
    title = f"{name}: {width}x{height} pixels, {channels} channel(s), {megabytes:,.1f} MB"
    output.print(title, markup=False, highlight=False, soft_wrap=True)
    table = Table("Class", *parts, box=None, pad_edge=False, header_style="bold")
    counts = [np.bincount(part.labels, minlength=dataset.classes) for part in parts.values()]
    for label, class_name in enumerate(dataset.class_names):
        table.add_row(escape(class_name), *(f"{count[label]:,}" for count in counts))
    table.add_row("all", *(f"{len(part):,}" for part in parts.values()), style="bold")
    output.print(table)
    mean = ", ".join(f"{value:.1f}" for value in dataset.mean)
    deviation = ", ".join(f"{value:.1f}" for value in dataset.deviation)
    numbers = f"Mean {mean}; deviation {deviation}; fingerprint {dataset.fingerprint}"
    output.print(numbers, highlight=False, soft_wrap=True)
    for note in dataset.notes:
        output.print(note, markup=False, highlight=False, soft_wrap=True)


@app.command()
def download(name: Annotated[str, typer.Argument(help="Name of a public data set.")]) -> None:
    """Download a public data set into NAS_GYM_DATA (default ~/.cache/nas-gym).

    Example: nas-gym datasets download cifar10
    """
    fetch(name)
    output.print(f"{name} is in {data_root()}.", markup=False, highlight=False, soft_wrap=True)
