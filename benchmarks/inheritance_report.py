"""What came out of trainings with inherited weights beside those from scratch: a table, the ratio, a figure.

Dimension letters: A architectures, E lengths of schedules, B repetitions of the bootstrap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidArgument, MissingExtra

from .statistics import Interval, mean_interval

Floats = npt.NDArray[np.float64]

SCRATCH = "from scratch"
INHERITED = "inherited"
START = "start network"
"""What rows are of, in their field `how`."""

REPETITIONS = 20_000

_GROUP = ("dataset", "start", "settings")
_COLOURS = {SCRATCH: "#777777", INHERITED: "#1f5fa8", START: "#2b8a3e"}


@dataclass(frozen=True, eq=False)
class Curve:
    """Trainings with schedules of different lengths.

    Attributes:
        how: `SCRATCH` or `INHERITED`.
        start_epochs: of the start network.
        learning_rate: largest of the schedule.
        epochs: lengths of the schedules, ascending, [E].
        accuracies: validation accuracy of every architecture, averaged over its seeds, [E, A].
        seconds: processor seconds of its trainings, likewise, [E, A].
    """

    how: str
    start_epochs: int
    learning_rate: float
    epochs: npt.NDArray[np.int64]
    accuracies: Floats
    seconds: Floats


@dataclass(frozen=True, eq=False)
class Comparison:
    """All that a record says of one data set, start network and recipe.

    Attributes:
        dataset: the data.
        start: name of the start network.
        settings: of recipe and data.
        scratch: trainings from scratch.
        inherited: trainings with inherited weights, one curve for every start and learning rate.
        starts: by epochs of the start network: learning rate, accuracy and processor seconds, averaged over seeds.
        seeds: trainings of every architecture.
        left_out: architectures of which a training is missing or failed.
    """

    dataset: str
    start: str
    settings: str
    scratch: Curve
    inherited: tuple[Curve, ...]
    starts: Mapping[int, tuple[float, float, float]]
    seeds: int
    left_out: int


@dataclass(frozen=True)
class Reached:
    """How much training with inherited weights is as good as all training from scratch.

    Attributes:
        epochs: the shortest schedule with which inherited weights are, on average, as accurate; infinite = none was.
        ratio: of these epochs to those from scratch, with a 95 % interval over architectures; bounds may be infinite.
        seconds: the same ratio of processor seconds.
    """

    epochs: float
    ratio: Interval
    seconds: Interval


# --- from rows to curves ---------------------------------------------------------------------------


def comparisons(rows: Sequence[Mapping[str, Any]]) -> list[Comparison]:
    """Return one comparison for every data set, start network and settings that were trained both ways."""
    names = dict.fromkeys(tuple(row[name] for name in _GROUP) for row in rows)
    found = (_comparison(name, [row for row in rows if tuple(row[key] for key in _GROUP) == name]) for name in names)
    return [one for one in found if one is not None]


def _comparison(name: tuple[str, str, str], rows: Sequence[Mapping[str, Any]]) -> Comparison | None:
    children = [row for row in rows if row["how"] != START]
    jobs = sorted({_way(row) for row in children})
    seeds = sorted({row["seed"] for row in children})
    measured = {
        (_way(row), row["architecture"], row["seed"]): (row["valid_accuracy"], row["train_seconds"])
        for row in children
        if row["status"] == "ok"
    }
    every = list(dict.fromkeys(row["architecture"] for row in children))
    # All curves are of the same architectures, so that they can be compared.
    complete = [one for one in every if all((job, one, seed) in measured for job in jobs for seed in seeds)]
    if not complete:
        return None
    curves: dict[tuple[str, int, float], list[int]] = {}
    for *key, epochs in jobs:
        curves.setdefault(tuple(key), []).append(epochs)  # type: ignore[arg-type]
    drawn = []
    for key, lengths in curves.items():
        values = np.array(
            [[[measured[(*key, e), one, seed] for seed in seeds] for one in complete] for e in lengths], np.float64
        ).mean(axis=2)
        drawn.append(Curve(*key, np.array(lengths), values[..., 0], values[..., 1]))
    scratch = [curve for curve in drawn if curve.how == SCRATCH]
    inherited = tuple(curve for curve in drawn if curve.how == INHERITED)
    if len(scratch) != 1 or not inherited:
        return None
    starts = {
        epochs: _mean_of(row for row in rows if (row["how"], row["epochs"]) == (START, epochs))
        for epochs in {row["epochs"] for row in rows if row["how"] == START and row["status"] == "ok"}
    }
    return Comparison(*name, scratch[0], inherited, starts, len(seeds), len(every) - len(complete))


def _way(row: Mapping[str, Any]) -> tuple[str, int, float, int]:
    return row["how"], row["start_epochs"], row["learning_rate"], row["epochs"]


def _mean_of(rows: Iterable[Mapping[str, Any]]) -> tuple[float, float, float]:
    names = ("learning_rate", "valid_accuracy", "train_seconds")
    rate, accuracy, seconds = np.mean([[row[name] for name in names] for row in rows if row["status"] == "ok"], axis=0)
    return float(rate), float(accuracy), float(seconds)


# --- the ratio -------------------------------------------------------------------------------------


def reached(scratch: Curve, inherited: Curve, rng: np.random.Generator, repetitions: int = REPETITIONS) -> Reached:
    """Return with how little training inherited weights are as accurate as the longest training from scratch.

    Only lengths that were trained count; nothing is interpolated. A repetition of the bootstrap draws architectures,
    and both ways are judged on the same ones.

    Args:
        scratch: trainings from scratch.
        inherited: trainings of the same architectures with inherited weights.
        rng: draws architectures.
        repetitions: B.

    Raises:
        InvalidArgument: curves of different architectures.
    """
    count = scratch.accuracies.shape[1]
    if inherited.accuracies.shape[1] != count:
        raise InvalidArgument(
            "curves are compared architecture by architecture, "
            f"got {count} and {inherited.accuracies.shape[1]} of them; cut both to those they share."
        )
    drawn = rng.integers(count, size=(repetitions, count))
    weights = np.stack([np.bincount(row, minlength=count) for row in drawn]) / count
    whole = np.full((1, count), 1 / count)
    (epochs,), (ratio,), (seconds,) = _ratios(scratch, inherited, whole)
    _, ratios, all_seconds = _ratios(scratch, inherited, weights)
    return Reached(float(epochs), _interval(ratio, ratios), _interval(seconds, all_seconds))


def _ratios(scratch: Curve, inherited: Curve, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the epochs until as accurate, their ratio and that of the seconds, [B], for weights [B, A]."""
    reference = weights @ scratch.accuracies[-1]
    # A sum in another order must not make equal accuracies different ones.
    enough = weights @ inherited.accuracies.T >= reference[:, None] - 1e-12
    first = enough.argmax(axis=1)
    never = ~enough.any(axis=1)
    epochs = np.where(never, np.inf, inherited.epochs[first])
    own = np.take_along_axis(weights @ inherited.seconds.T, first[:, None], axis=1)[:, 0]
    seconds = np.where(never, np.inf, own / (weights @ scratch.seconds[-1]))
    return epochs, epochs / scratch.epochs[-1], seconds


def _interval(value: float, found: Floats) -> Interval:
    # Between a number and infinity nothing can be interpolated, so the bounds are values that occurred.
    low = np.quantile(found, 0.025, method="lower")
    high = np.quantile(found, 0.975, method="higher")
    return Interval(float(value), float(low), float(high))


def paid_back(comparison: Comparison, inherited: Curve, epochs: float) -> float | None:
    """Return after how many children the training of the start network has paid for itself; None = unknown or never."""
    if not np.isfinite(epochs) or inherited.start_epochs not in comparison.starts:
        return None
    own = inherited.seconds[inherited.epochs.tolist().index(int(epochs))].mean()
    saved = float(comparison.scratch.seconds[-1].mean() - own)
    return comparison.starts[inherited.start_epochs][2] / saved if saved > 0 else None


# --- the table -------------------------------------------------------------------------------------


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of all schedules, and one of the epochs that inherited weights need.

    Intervals are over architectures, each averaged over its seeds; differences are paired.
    """
    found = comparisons(rows)
    if not found:
        return "Nothing was trained both ways yet."
    lines = [
        "| Data | Weights | Rate | Epochs | Accuracy | More than from scratch [95 %] | As accurate | CPU s |",
        "|---|---|---|---|---|---|---|---|",
        *(line for one in found for line in _schedules(one)),
        "",
        "| Data | As accurate as from scratch after | Epochs with inherited weights | Ratio [95 %] | CPU time [95 %] "
        "| Start network paid back after |",
        "|---|---|---|---|---|---|",
        *(line for one in found for line in _ratio_lines(one)),
        "",
        *(_description(one) for one in found),
    ]
    return "\n".join(lines)


def _schedules(one: Comparison) -> Iterable[str]:
    for epochs, (rate, accuracy, seconds) in sorted(one.starts.items()):
        cells = ("the start network itself", f"{rate:g}", str(epochs), f"{accuracy:.4f}", "", "")
        yield f"| `{one.dataset}` | {' | '.join(cells)} | {seconds:.2f} |"
    for curve in (one.scratch, *one.inherited):
        weights = curve.how if curve.how == SCRATCH else f"{curve.how} after {curve.start_epochs} epochs"
        for epochs, accuracies, seconds in zip(curve.epochs, curve.accuracies, curve.seconds, strict=True):
            is_reference = curve is one.scratch and epochs == curve.epochs[-1]
            gap, share = ("", "") if is_reference else _gap(accuracies - one.scratch.accuracies[-1])
            cells = (weights, f"{curve.learning_rate:g}", str(epochs), f"{accuracies.mean():.4f}", gap, share)
            yield f"| `{one.dataset}` | {' | '.join(cells)} | {seconds.mean():.2f} |"


def _gap(differences: Floats) -> tuple[str, str]:
    """Return the mean difference [A] with its interval, and how many are none or in favour."""
    interval = mean_interval(differences, np.random.default_rng(0))
    as_good = int((differences >= -1e-12).sum())
    return f"{interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]", f"{as_good} of {len(differences)}"


def _ratio_lines(one: Comparison) -> Iterable[str]:
    for curve in one.inherited:
        result = reached(one.scratch, curve, np.random.default_rng(0))
        longest = int(curve.epochs[-1])
        epochs = f"{int(result.epochs)}" if np.isfinite(result.epochs) else f"not within {longest}"
        children = paid_back(one, curve, result.epochs)
        paid = "" if children is None else f"{children:.0f} children"
        unreached = f"above {longest / one.scratch.epochs[-1]:.2f}"
        ratio, seconds = _shown(result.ratio, unreached), _shown(result.seconds, "not reached")
        yield f"| `{one.dataset}` | {one.scratch.epochs[-1]} epochs | {epochs} | {ratio} | {seconds} | {paid} |"


def _shown(interval: Interval, unreached: str) -> str:
    """Return a ratio and its bounds, infinite ones in words."""
    value, low, high = (
        f"{number:.2f}" if np.isfinite(number) else unreached
        for number in (interval.value, interval.low, interval.high)
    )
    return value if value == low == high == unreached else f"{value} [{low}, {high}]"


def _description(one: Comparison) -> str:
    count = one.scratch.accuracies.shape[1]
    left = f" {one.left_out} more are left out: a training is missing or failed." if one.left_out else ""
    settings = one.settings or "the recipe of the environment"
    return (
        f"`{one.dataset}`, start network `{one.start}`: {count} architectures x {one.seeds} seeds, validation "
        f"accuracy; {settings}.{left}"
    )


# --- the figure ------------------------------------------------------------------------------------


def draw(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw accuracy against epochs, one panel a comparison, with 95 % bands over architectures.

    Args:
        path: PNG file to write.
        rows: of a record.

    Raises:
        MissingExtra: matplotlib is not installed.
        InvalidArgument: nothing was trained both ways.
    """
    found = comparisons(rows)
    if not found:
        raise InvalidArgument("nothing was trained both ways yet, so there is nothing to draw; train first.")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("the figure of inherited weights", "plots", error) from error
    figure = Figure(figsize=(5.2 * len(found), 4.2), dpi=120, layout="constrained")
    for column, one in enumerate(found, start=1):
        _draw_panel(figure.add_subplot(1, len(found), column), one)
    FigureCanvasAgg(figure).print_png(path)


def _draw_panel(axes: Any, one: Comparison) -> None:  # noqa: ANN401 - matplotlib is optional
    longest = one.scratch.epochs[-1]
    for curve in (one.scratch, *one.inherited):
        label = "from scratch" if curve.how == SCRATCH else f"inherited, start trained {curve.start_epochs} epochs"
        bands = [mean_interval(values, np.random.default_rng(0)) for values in curve.accuracies]
        colour = _COLOURS[curve.how]
        axes.plot(curve.epochs, [band.value for band in bands], "o-", color=colour, linewidth=2, label=label)
        axes.fill_between(
            curve.epochs,
            [band.low for band in bands],
            [band.high for band in bands],
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
    for _, accuracy, _ in one.starts.values():
        axes.axhline(accuracy, color=_COLOURS[START], linewidth=1, linestyle=":", label="the start network itself")
    axes.axhline(one.scratch.accuracies[-1].mean(), color=_COLOURS[SCRATCH], linewidth=1, linestyle="--")
    axes.axvline(longest / 3, color="black", linewidth=1, alpha=0.4)
    axes.annotate("a third", (longest / 3, 1.0), (4, -12), ("data", "axes fraction"), "offset points", fontsize=8)
    axes.set_ylim(*_limits(one))
    axes.set_xscale("log")
    ticks = sorted({int(epochs) for curve in (one.scratch, *one.inherited) for epochs in curve.epochs})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("epochs of the child's training")
    axes.set_ylabel("validation accuracy")
    axes.set_title("\n".join([one.dataset, *(_heading(one.scratch, curve) for curve in one.inherited)]), fontsize=10)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower right", fontsize=9)


def _limits(one: Comparison) -> tuple[float, float]:
    """Return the accuracies between which a panel reaches.

    What is hardly trained may lie so far below that nothing else could be told apart; it is left outside then.
    """
    first, *rest = one.scratch.accuracies.mean(axis=1)
    others = [*rest, *(mean for curve in one.inherited for mean in curve.accuracies.mean(axis=1))]
    others += [accuracy for _, accuracy, _ in one.starts.values()]
    span = max(others) - min(others)
    lowest = max(min(first, *others), min(others) - span)
    margin = 0.12 * (max(others) - lowest) or 0.01
    return lowest - margin, max(others) + margin


def _heading(scratch: Curve, inherited: Curve) -> str:
    result = reached(scratch, inherited, np.random.default_rng(0))
    longest = scratch.epochs[-1]
    if not np.isfinite(result.epochs):
        return f"not as accurate within {inherited.epochs[-1]} of {longest} epochs"
    ratio = _shown(result.ratio, f"above {inherited.epochs[-1] / longest:.2f}")
    return f"as accurate after {int(result.epochs)} of {longest} epochs, ratio {ratio}"
