"""Pictures of searches (needs the extra `plots`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from nas_gym.errors import MissingExtra

from .expectations import expected_best_of
from .metrics import best_so_far

_SEARCH = "#1f5fa8"
_RANDOM = "#777777"
_OPTIMUM = "#2b8a3e"


def draw_search(
    path: Path,
    rewards: npt.NDArray[np.float64],
    title: str,
    label: str,
    all_rewards: npt.NDArray[np.float64] | None,
    probabilities: npt.NDArray[np.float64] | None = None,
) -> None:
    """Draw the best reward so far, with the exact expectation of random search where the whole space is known.

    Args:
        path: PNG file to write.
        rewards: of the queries in order, NaN where one cannot be compared with the others, shape [N].
        title: title of the figure.
        label: name of the searcher.
        all_rewards: of every architecture of the space, or None.
        probabilities: of drawing each at random, uniform by default.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("the figure of a search", "plots", error) from error
    figure = Figure(figsize=(7.2, 4.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    queries = np.arange(1, len(rewards) + 1)
    best = best_so_far(rewards)
    axes.step(queries, best, where="post", color=_SEARCH, linewidth=2, label=label)
    known = best[np.isfinite(best)] if np.isfinite(best).any() else np.zeros(1)
    shown = [known[min(2, len(known) - 1)], known[-1]]
    if all_rewards is not None:
        counts = np.unique(np.geomspace(1, len(rewards), 400).round().astype(np.int64))
        expected = expected_best_of(all_rewards, counts, probabilities)
        axes.plot(counts, expected, color=_RANDOM, linestyle="--", label="random search, exact expectation")
        axes.axhline(all_rewards.max(), color=_OPTIMUM, linewidth=1, label="best of the space")
        shown += [expected[min(2, len(expected) - 1)], all_rewards.max()]
    low, high = min(shown), max(shown)
    margin = 0.06 * max(high - low, 1e-6)
    axes.set_ylim(low - margin, high + margin)
    axes.set_xscale("log")
    axes.set_xlim(1, max(len(rewards), 2))
    axes.set_xlabel("queries")
    axes.set_ylabel("best reward so far")
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.25, which="both")
    axes.legend(frameon=False, loc="lower right")
    FigureCanvasAgg(figure).print_png(path)
