"""How many epochs a network needs that inherits weights, beside the same network trained from scratch.

``python -m nas_benchmarks.inheritance --study digits`` trains what the record lacks, ``--show`` prints what it holds,
``--figure FILE`` draws it. Random children of a trained start network are trained from scratch and with inherited
weights, with schedules of different lengths and otherwise the same recipe, which the start network had, too. Its
training is given beside, since all children share it. One training is one line of the record, so an interrupted command
continues where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from nas_gym.envs.eas import STARTS
from nas_gym.errors import InvalidArgument, UnknownName
from nas_gym.evaluators import Evaluator, Status, make_evaluator
from nas_gym.search_spaces import Encoding, SearchSpace

from .inheritance_report import INHERITED, SCRATCH, START, draw, markdown
from .markdown import replace_between
from .records import append_row, read_rows

RECORD = Path(__file__).parent / "baselines" / "inheritance.jsonl"
EPOCHS = 20
SHARES: Mapping[str, Sequence[float]] = MappingProxyType(
    {SCRATCH: (0.1, 0.3, 1.0), INHERITED: (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)}
)
"""Lengths of the schedules, in parts of `EPOCHS`: without the shorter ones from scratch nobody could tell whether the
epochs are saved by the weights or were never needed."""

RECIPE: Mapping[str, Any] = MappingProxyType({"batch_size": 50, "weight_decay": 1e-4})
"""Of all trainings, where a study does not say otherwise."""

_OWN = ("wider_noise", "deeper_noise", "start_learning_rate")
"""Settings of children that inherit and of their start network; a training from scratch has no such thing."""

_JOB = ("dataset", "start", "settings", "architecture", "seed", "how", "start_epochs", "learning_rate", "epochs")
"""Fields that say what a row is of."""


@dataclass(frozen=True)
class Study:
    """What is compared.

    Attributes:
        dataset: by which the record calls the data.
        path: name or path of the data, that of `dataset` by default; of no influence on the record.
        start: name in `nas_gym.envs.eas.STARTS`.
        start_epochs: of the start network.
        epochs: of the longest training from scratch.
        scratch_rate: largest learning rate of trainings from scratch, and of the start network unless the settings
            have its ``start_learning_rate``.
        inherited_rate: largest learning rate of trainings with inherited weights.
        settings: fields of the recipe of all trainings and of the data, beside `RECIPE`.
    """

    dataset: str = "digits"
    path: str | None = None
    start: str = "small"
    start_epochs: int = EPOCHS
    epochs: int = EPOCHS
    scratch_rate: float = 0.1
    inherited_rate: float = 0.02
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Check the start network.

        Raises:
            UnknownName: there is none of that name.
            InvalidArgument: a setting that has a field of its own.
        """
        if self.start not in STARTS:
            raise UnknownName("start network", self.start, STARTS)
        taken = {"epochs": "epochs", "learning_rate": "scratch_rate and inherited_rate"}
        for name, instead in taken.items():
            if name in self.settings:
                raise InvalidArgument(f"{name} = {self.settings[name]!r} is no setting of a study; give {instead}.")

    @property
    def space(self) -> SearchSpace:
        """The space of the children."""
        return STARTS[self.start]()

    @property
    def shown_settings(self) -> str:
        """The settings as the record has them.

        >>> Study(settings={"augmentation": "crop", "train_images": 9}).shown_settings
        'augmentation=crop train_images=9'
        """
        return " ".join(f"{name}={value}" for name, value in sorted(self.settings.items()))

    @property
    def start_rate(self) -> float:
        """The largest learning rate of the start network."""
        return self.settings.get("start_learning_rate", self.scratch_rate)

    def ways(self) -> list[tuple[str, int, float, int]]:
        """Return how every child is trained: how, epochs of the start network, learning rate, epochs."""
        return [
            (how, 0, self.scratch_rate, epochs)
            if how == SCRATCH
            else (how, self.start_epochs, self.inherited_rate, epochs)
            for how, shares in SHARES.items()
            for epochs in sorted({max(round(share * self.epochs), 1) for share in shares})
        ]

    def job(self, way: tuple[str, int, float, int], architecture: str, seed: int) -> tuple[Any, ...]:
        """Return the values of `_JOB`."""
        return (self.dataset, self.start, self.shown_settings, architecture, seed, *way)

    def evaluator(self, how: str, rate: float, epochs: int, **more: Any) -> Evaluator:  # noqa: ANN401 - its settings
        """Return what trains children one way."""
        settings = {name: value for name, value in self.settings.items() if how == INHERITED or name not in _OWN}
        recipe = {**RECIPE, "learning_rate": rate, "epochs": epochs}
        common = {"dataset": self.path or self.dataset, **settings, **more}
        if how == SCRATCH:
            return make_evaluator("training", self.space, recipe=recipe, **common)
        start = {"start_epochs": self.start_epochs, "start_learning_rate": self.start_rate, "cache_mb": 0}
        return make_evaluator("inheriting", self.space, recipe=recipe, **{**common, **start})


STUDIES: Mapping[str, Study] = MappingProxyType(
    {
        "digits": Study(
            start_epochs=100,
            scratch_rate=0.05,
            inherited_rate=0.05,
            settings={"label_smoothing": 0.1, "start_learning_rate": 0.1},
        ),
        "cifar10": Study(
            dataset="cifar10",
            start_epochs=100,
            inherited_rate=0.05,
            settings={
                "augmentation": "crop,flip",
                "image_size": 16,
                "train_images": 2000,
                "valid_images": 1000,
                "test_images": 1000,
            },
        ),
    }
)
"""By name. Learning rates, smoothing and epochs of the start network were chosen on other architectures and seeds, but
on the same validation images; the rates from scratch among 0.05, 0.1 and 0.2."""


def architectures(space: SearchSpace, count: int) -> list[Encoding]:
    """Return so many different canonical architectures, drawn by uniform decisions; the first ones stay as they are.

    Raises:
        InvalidArgument: there are not so many, or hardly.
    """
    rng = np.random.default_rng(0)
    found: dict[Encoding, None] = {}
    for _ in range(100 * count):
        found[space.canonical(space.sample(rng))] = None
        if len(found) == count:
            return list(found)
    raise InvalidArgument(f"{count} different architectures of {space.signature} were not found; ask for fewer.")


def record(path: Path, study: Study, count: int, seeds: int, **settings: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    """Train what the record lacks, and iterate over the new rows.

    Args:
        path: the record.
        study: what is compared.
        count: architectures.
        seeds: trainings of each, with a start network of each seed.
        **settings: of both evaluators, such as workers; of no influence on the results.
    """
    known = {tuple(row[name] for name in _JOB) for row in read_rows(path)}
    chosen = architectures(study.space, count)
    for seed in range(seeds):
        for way in study.ways():
            jobs = [study.job(way, study.space.to_string(one), seed) for one in chosen]
            if known.issuperset(jobs):
                continue
            how, _, rate, epochs = way
            evaluator: Any = study.evaluator(how, rate, epochs, evaluation_seed=seed, **settings)
            try:
                begun = study.job((START, 0, study.start_rate, study.start_epochs), "", seed)
                if how == INHERITED and begun not in known:
                    yield _kept(path, begun, _of_start(evaluator))
                    known.add(begun)
                for encoding, job in zip(chosen, jobs, strict=True):
                    if job not in known:
                        yield _kept(path, job, _of_child(evaluator, encoding))
            finally:
                evaluator.close()


def _kept(path: Path, job: tuple[Any, ...], measured: Mapping[str, Any]) -> dict[str, Any]:
    """Append a row and return it."""
    row = {**dict(zip(_JOB, job, strict=True)), **measured}
    append_row(path, row)
    return row


def _of_start(evaluator: Any) -> dict[str, Any]:  # noqa: ANN401 - one that inherits
    """Return what is recorded of the start network; it is trained now if it never was."""
    trained = evaluator.start_weights is not None
    stored = evaluator.store.get(evaluator.start_key)
    return _measured(Status.OK if trained else stored.status, stored.metrics, stored.message)


def _of_child(evaluator: Evaluator, encoding: Encoding) -> dict[str, Any]:
    answer = evaluator.evaluate_one(encoding)
    return _measured(answer.status, answer.metrics, answer.message)


def _measured(status: Status, metrics: Mapping[str, Any], message: str) -> dict[str, Any]:
    found = {name: float(metrics.get(name, math.nan)) for name in ("valid_accuracy", "train_seconds", "parameters")}
    values = {name: value if status is Status.OK and math.isfinite(value) else None for name, value in found.items()}
    return {"status": status.label, **values, "message": message}


# --- the command -----------------------------------------------------------------------------------


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nas_benchmarks.inheritance", description=__doc__)
    parser.add_argument("--study", default="digits", choices=list(STUDIES), help="what is compared (default: digits)")
    parser.add_argument("--data", help="name or path of the study's data, where they are not found by its name")
    parser.add_argument("--start", choices=list(STARTS), help="another start network")
    parser.add_argument("--start-epochs", type=int, help="other epochs of the start network")
    parser.add_argument("--epochs", type=int, help="other epochs from scratch")
    parser.add_argument("--scratch-rate", type=float, help="another learning rate from scratch")
    parser.add_argument("--inherited-rate", type=float, help="another learning rate with inherited weights")
    parser.add_argument(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another field of recipe or data",
    )
    parser.add_argument("--architectures", type=int, default=20, help="children (default: 20)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each (default: 3)")
    parser.add_argument("--workers", type=int, default=1, help="trainings at once; 0 = in this process (default: 1)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: auto)")
    parser.add_argument("--record", type=Path, default=RECORD, help="file that finished trainings are appended to")
    parser.add_argument("--store", help="evaluation store that keeps the start networks (default: a temporary one)")
    parser.add_argument("--show", action="store_true", help="train nothing, print what the record holds")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="train nothing, draw what the record holds")
    parser.add_argument("--update", type=Path, metavar="FILE", help="train nothing, replace the table in a file")
    return parser


def _study(arguments: argparse.Namespace) -> Study:
    chosen = STUDIES[arguments.study]
    names = ("start", "start_epochs", "epochs", "scratch_rate", "inherited_rate")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    settings = {**chosen.settings, **dict(arguments.set)}
    return dataclasses.replace(chosen, path=arguments.data, settings=settings, **given)


def _train(arguments: argparse.Namespace, store: str) -> None:
    """Train what the record lacks, and tell of every training."""
    settings = {"store": store, "workers": arguments.workers, "device": arguments.device}
    count, seeds = arguments.architectures, arguments.seeds
    for row in record(arguments.record, _study(arguments), count, seeds, **settings):
        accuracy = row["valid_accuracy"]
        sys.stderr.write(f"{row['how']} {row['epochs']} seed {row['seed']}: {accuracy} {row['message']}\n")


def main(command: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    arguments = _parser().parse_args(command)
    if not (arguments.show or arguments.figure or arguments.update):
        with tempfile.TemporaryDirectory(prefix="nas-gym-inheritance-") as folder:
            _train(arguments, arguments.store or str(Path(folder) / "evaluations.sqlite"))
    rows = read_rows(arguments.record)
    text = markdown(rows)
    sys.stdout.write(text + "\n")
    if arguments.figure is not None:
        draw(arguments.figure, rows)
    if arguments.update is not None:
        replace_between(arguments.update, "inheritance", text)


if __name__ == "__main__":
    main()
