"""``nas-gym datasets``: what the commands print and refuse."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from nas_gym.cli import app as whole
from nas_gym.cli import datasets
from nas_gym.cli.datasets import app
from nas_gym.datasets import DATASETS, Source
from nas_gym.errors import DatasetError, InvalidArgument, UnknownName


@pytest.fixture(autouse=True)
def data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Look for data sets in the test's own folder."""
    monkeypatch.setenv("NAS_GYM_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def run(run_app: Any) -> Any:
    """Return a function that runs a command and returns what it printed, or raises what it raised."""
    return run_app(app)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Return a file of 40 training and 8 test images of cats and [dogs]."""
    path = tmp_path / "pets.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 6, 4), dtype=np.uint8)
    labels = np.array(["[dog]", "cat"])[np.arange(40) % 2]
    np.savez(path, x_train=pixels, y_train=labels, x_test=pixels[:8], y_test=labels[:8])
    return path


def row(text: str, first: str) -> list[str]:
    """Return the words of the line that begins with a word."""
    return next(line.split() for line in text.splitlines() if line.split()[:1] == [first])


@pytest.mark.parametrize("command", ["list", "info", "download"])
def test_every_command_has_an_example(command: str) -> None:
    """One that works as it stands."""
    assert f"Example: nas-gym datasets {command}" in CliRunner().invoke(app, [command, "--help"]).output


def test_the_commands_are_part_of_the_command_line() -> None:
    """Under the name of what they are about."""
    assert CliRunner().invoke(whole, ["datasets", "list"]).exit_code == 0


# --- list ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATASETS)
def test_list_has_every_data_set(run: Any, name: str) -> None:
    """One line each, with its summary."""
    assert DATASETS.entries[name].summary in " ".join(row(run("list"), name))


def test_list_tells_what_is_here(run: Any, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And how to get the rest."""
    monkeypatch.setattr(datasets, "find_spec", lambda name: object())
    (data_root / "train_32x32.mat").touch()
    listing = run("list")
    assert row(listing, "svhn")[-1] == "yes"
    assert " ".join(row(listing, "mnist")).endswith("no: nas-gym datasets download mnist")


def test_list_tells_which_extra_is_missing(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the pip command."""
    monkeypatch.setattr(datasets, "find_spec", lambda name: None)
    assert " ".join(row(run("list"), "digits")).endswith('no: pip install "nas-gym[train]"')


# --- info ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "numbers"),
    [("[dog]", ["18", "2", "4"]), ("cat", ["18", "2", "4"]), ("all", ["36", "4", "8"])],
    ids=["brackets", "plain", "sum"],
)
def test_info_counts_the_images_of_every_class(run: Any, pets: Path, first: str, numbers: list[str]) -> None:
    """Per part; names are printed as they are."""
    assert row(run("info", pets), first)[1:] == numbers


@pytest.mark.parametrize(
    "expected",
    [
        pytest.param("pets.npz: 4x6 pixels, 1 channel(s), 0.0 MB", id="shape and size"),
        pytest.param("The validation part is 10% of the training images, drawn by split_seed 0.", id="note"),
    ],
)
def test_info_describes_the_images(run: Any, pets: Path, expected: str) -> None:
    """In words that need no manual."""
    assert expected in run("info", pets)


def test_info_prints_statistics_and_fingerprint(run: Any, pets: Path) -> None:
    """The same that training uses."""
    data = Source(str(pets)).load()
    expected = f"Mean {data.mean[0]:.1f}; deviation {data.deviation[0]:.1f}; fingerprint {data.fingerprint}"
    assert expected in run("info", pets)


def test_info_takes_the_options_of_a_source(run: Any, pets: Path) -> None:
    """Size, subset and seed."""
    pytest.importorskip("PIL")
    printed = run("info", pets, "--image-size", 5, "--subset", 20, "--split-seed", 3)
    assert Source(str(pets), image_size=5, subset=20, split_seed=3).load().fingerprint in printed


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        pytest.param(("digit",), UnknownName, "Did you mean 'digits'", id="typo"),
        pytest.param(("none.npz",), InvalidArgument, "there is no file or folder", id="no file"),
        pytest.param(("digits", "--image-size", 0), InvalidArgument, "image_size must be", id="size"),
    ],
)
def test_info_refuses_what_is_no_data_set(
    run: Any, arguments: tuple[object, ...], kind: type[Exception], message: str
) -> None:
    """The message says what to do."""
    with pytest.raises(kind, match=message):
        run("info", *arguments)


def test_info_of_a_missing_data_set_tells_how_to_get_it(run: Any) -> None:
    """It downloads nothing itself."""
    pytest.importorskip("torchvision")
    with pytest.raises(DatasetError, match="nas-gym datasets download mnist"):
        run("info", "mnist")


# --- download --------------------------------------------------------------------------------------


def test_download_says_where_the_data_set_is(run: Any, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it was fetched by its name."""
    fetched: list[str] = []
    monkeypatch.setattr(datasets, "fetch", fetched.append)
    assert run("download", "mnist") == f"mnist is in {data_root}.\n"
    assert fetched == ["mnist"]


def test_download_refuses_what_is_not_public(run: Any) -> None:
    """The digits come with scikit-learn."""
    with pytest.raises(InvalidArgument, match="nothing to download for 'digits'"):
        run("download", "digits")


def test_the_command_line_needs_no_torch(run: Any, monkeypatch: pytest.MonkeyPatch, pets: Path) -> None:
    """A file of arrays is described by the base installation."""
    for name in ("torch", "torchvision", "PIL", "sklearn"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "fingerprint" in run("info", pets)
