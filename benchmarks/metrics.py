"""What one search is judged by: pure functions of what it queried, all values higher = better.

A minimised metric is negated before it comes here. The incumbent is chosen by the signal that the search saw
(validation) and judged by its held-out value (test), so every curve is that of the incumbent, which may also get worse.

Dimension letters: N queries of a run, R runs, A architectures of a space, K checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidArgument

from .statistics import REPETITIONS, Interval, mean_interval

Floats = npt.NDArray[np.float64]

CHECKPOINTS = (25, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
"""Queries after which a search is judged, as far as its budget goes."""

_ROUNDING = 1e-9
"""Differences below are those of summation, not of architectures."""


@dataclass(frozen=True, eq=False)
class Trace:
    """What one run queried, in order.

    Attributes:
        signal: by which the incumbent is chosen; NaN where the query failed, shape [N].
        held_out: what is reported of it; may be NaN where the query was never the incumbent, shape [N].
        codes: of the canonical architectures, integers of any size; negative where none was built, shape [N].
        fidelities: where the agent chose them; a higher one surpasses any signal at a lower one, shape [N].
        exhausted: whether the agent had nothing left to try, so that its last incumbent stands for all later queries.
    """

    signal: Floats
    held_out: Floats
    codes: npt.NDArray[np.int64] | npt.NDArray[np.object_]
    fidelities: npt.NDArray[np.int64] | None = None
    exhausted: bool = False

    def __post_init__(self) -> None:
        """Check the columns.

        Raises:
            InvalidArgument: no query, columns of unequal length, an infinite signal, or an incumbent without held-out
                value.
        """
        columns = [self.signal, self.held_out, self.codes, *([] if self.fidelities is None else [self.fidelities])]
        shapes = [column.shape for column in columns]
        if len(set(shapes)) > 1 or len(shapes[0]) != 1 or not shapes[0][0]:
            raise InvalidArgument(f"a run needs a query at least and columns of equal length, got the shapes {shapes}.")
        if np.isinf(self.signal).any():
            query = int(np.argmax(np.isinf(self.signal)))
            raise InvalidArgument(
                f"the signal of query {query + 1} is {self.signal[query]}; that of a failed query must be NaN."
            )
        standing = np.unique(self.incumbents())
        missing = [index for index in standing[standing >= 0].tolist() if not math.isfinite(self.held_out[index])]
        if missing:
            raise InvalidArgument(f"query {missing[0] + 1} was the incumbent, but its held-out value is missing.")

    def incumbents(self) -> npt.NDArray[np.int64]:
        """Return the index of the incumbent after each query, -1 before the first success, shape [N]."""
        return incumbents(self.signal, self.fidelities)

    def curve(self, worst: float, budget: int | None = None) -> Floats:
        """Return the held-out value of the incumbent after each query, shape [budget].

        Args:
            worst: counted before the first success; the worst value of the space.
            budget: queries that are judged, all of the run by default.

        Raises:
            InvalidArgument: the run ended earlier, without having been exhausted.
        """
        standing = self.incumbents()
        values = np.where(standing >= 0, self.held_out[standing], worst)
        lacking = 0 if budget is None else budget - len(values)
        if lacking > 0 and not self.exhausted:
            raise InvalidArgument(
                f"the run has {len(values)} queries, so it cannot be judged after {budget}; finish it, or judge all "
                "runs by fewer."
            )
        return np.concatenate([values, np.full(lacking, values[-1])]) if lacking > 0 else values[:budget]


@dataclass(frozen=True)
class Yardstick:
    """What held-out values of a task are measured with; known where the whole space is.

    Attributes:
        best: highest value.
        mean: mean over all architectures.
        worst: lowest value.
        floor: regret that a regret of 0 counts as under the logarithm: half that of the second best value.
        targets: values to reach, by name.
    """

    best: float
    mean: float
    worst: float
    floor: float
    targets: Mapping[str, float]

    @classmethod
    def of(cls, values: Floats, codes: npt.NDArray[np.int64] | None = None) -> Yardstick:
        """Measure a whole space.

        The targets are ``within_1_percent`` (at most a hundredth of the best value below it), ``top_10`` (the tenth
        best architecture, the last one in smaller spaces) and ``optimum``.

        Args:
            values: held-out values of all architectures, shape [A].
            codes: of their canonical architectures, of which each is one of the ten, shape [A]; all are by default.

        Raises:
            InvalidArgument: values that are missing, infinite or all the same.
        """
        values = np.asarray(values, np.float64)
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
            raise InvalidArgument("the values of a space must be a list of finite numbers, one an architecture.")
        best = float(values.max())
        others = values[values < best - _ROUNDING * max(1.0, abs(best))]
        if not len(others):
            raise InvalidArgument(f"all architectures have the value {best}, so there is nothing to search for.")
        classes = values
        if codes is not None:
            _, group = np.unique(codes, return_inverse=True)
            classes = np.full(group.max() + 1, -np.inf)
            np.maximum.at(classes, group, values)
        tenth = float(np.sort(classes)[::-1][: min(10, len(classes))][-1])
        targets = {"within_1_percent": best - 0.01 * abs(best), "top_10": tenth, "optimum": best}
        return cls(best, float(values.mean()), float(values.min()), (best - float(others.max())) / 2, targets)


@dataclass(frozen=True)
class Scores:
    """How one run is judged.

    Attributes:
        regret: simple regret by number of queries.
        normalised: normalised score by number of queries.
        log_regret_area: mean over all queries of log10 of the simple regret; lower is better.
        queries_to: queries until the incumbent first reached each target, infinity where it did not.
        diversity: of all queries.
    """

    regret: Mapping[int, float]
    normalised: Mapping[int, float]
    log_regret_area: float
    queries_to: Mapping[str, float]
    diversity: Diversity


@dataclass(frozen=True)
class Diversity:
    """How much of a run was new.

    Attributes:
        queries: that built an architecture.
        unique: canonical architectures among them.
        entropy: of their frequencies in nats, from 0 (always the same) to log(queries) (never twice).
    """

    queries: int
    unique: int
    entropy: float


@dataclass(frozen=True)
class Learning:
    """What the final policy is worth against uniform decisions.

    Attributes:
        gain: mean of the final policy's samples minus that of uniform ones, over runs.
        learns: whether the whole interval is above 0; never with a single run.
    """

    gain: Interval
    learns: bool


def score(trace: Trace, yardstick: Yardstick, budget: int, checkpoints: Sequence[int] = CHECKPOINTS) -> Scores:
    """Judge one run by its first `budget` queries.

    Args:
        trace: what it queried.
        yardstick: of the task.
        budget: queries that are judged; also the last checkpoint.
        checkpoints: numbers of queries; those beyond the budget are left out.

    Raises:
        InvalidArgument: a budget below 1, a run that ended before it, or one that beats the best of the space.
    """
    if budget < 1 or any(queries < 1 for queries in checkpoints):
        raise InvalidArgument(f"budget and checkpoints must be at least 1, got {budget} and {list(checkpoints)}.")
    curve = trace.curve(yardstick.worst, budget)
    regret = simple_regret(curve, yardstick.best)
    normalised = normalised_score(curve, yardstick)
    judged = sorted({queries for queries in checkpoints if queries < budget} | {budget})
    return Scores(
        regret={queries: float(regret[queries - 1]) for queries in judged},
        normalised={queries: float(normalised[queries - 1]) for queries in judged},
        log_regret_area=log_regret_area(regret, yardstick.floor),
        queries_to={name: queries_to(curve, target) for name, target in yardstick.targets.items()},
        diversity=diversity(trace.codes[:budget]),
    )


# --- the incumbent ---------------------------------------------------------------------------------


def best_so_far(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the highest value up to each query, shape [N]; NaN, a query without a value, changes nothing.

    >>> best_so_far(np.array([0.2, 0.5, 0.3])).tolist()
    [0.2, 0.5, 0.5]
    """
    return np.fmax.accumulate(values)


def incumbents(signal: Floats, fidelities: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.int64]:
    """Return the index of the first of the best queries up to each, -1 before the first success, shape [..., N].

    Args:
        signal: NaN where a query failed, shape [..., N].
        fidelities: a higher one surpasses any signal at a lower one, shape [..., N].

    >>> incumbents(np.array([np.nan, 0.2, 0.5, 0.5, 0.3])).tolist()
    [-1, 1, 2, 2, 2]
    """
    known = ~np.isnan(signal)
    value = np.where(known, signal, -np.inf)
    if fidelities is not None:
        _, rank = np.unique(np.stack([fidelities[known], signal[known]]), axis=1, return_inverse=True)
        value[known] = rank.ravel()
    before = np.full_like(value, -np.inf)
    before[..., 1:] = np.maximum.accumulate(value, axis=-1)[..., :-1]
    return np.maximum.accumulate(np.where(value > before, np.arange(value.shape[-1]), -1), axis=-1)


# --- along a run -----------------------------------------------------------------------------------


def simple_regret(values: Floats, best: float) -> Floats:
    """Return how far the incumbent is from the best of the space, at least 0, shape [..., N].

    Raises:
        InvalidArgument: a value above the best, which is then no best.
    """
    regret = best - values
    if (regret < -_ROUNDING * max(1.0, abs(best))).any():
        raise InvalidArgument(
            f"a run reports {float(np.max(values))}, but the best of the space is {best}; both must be the same metric "
            "at the same fidelity."
        )
    return np.maximum(regret, 0.0)


def normalised_score(values: Floats, yardstick: Yardstick) -> Floats:
    """Return values scaled to 0 for the mean of the space and 1 for its best (Yang et al. 2020), shape [..., N]."""
    return (values - yardstick.mean) / (yardstick.best - yardstick.mean)


def log_regret_area(regret: Floats, floor: float) -> float:
    """Return the area under log10 of the regret, divided by the number of queries; lower is better.

    The regret is a step function of the queries, each one wide.

    Args:
        regret: after each query, shape [N].
        floor: counted for anything less, since the logarithm of 0 is infinite.

    Raises:
        InvalidArgument: a floor that is not positive.
    """
    if not floor > 0:
        raise InvalidArgument(f"the floor of the regret must be positive, got {floor}.")
    return float(np.log10(np.maximum(regret, floor)).mean())


# --- targets ---------------------------------------------------------------------------------------


def queries_to(values: Floats, target: float) -> float:
    """Return the number of queries until the incumbent's value first is at least the target, else infinity.

    Args:
        values: of the incumbent after each query, shape [N].
        target: to reach.
    """
    reached = np.flatnonzero(values >= target - _ROUNDING * max(1.0, abs(target)))
    return float(reached[0] + 1) if len(reached) else math.inf


def fraction_reached(hits: Floats, queries: npt.NDArray[np.int64]) -> Floats:
    """Return the share of runs that reached their target within each number of queries (ECDF), shape [K].

    Args:
        hits: of `queries_to`, infinity where a run did not reach it, shape [R].
        queries: shape [K].
    """
    return (np.asarray(hits)[:, None] <= np.asarray(queries)).mean(axis=0)


def expected_running_time(hits: Floats, budget: int) -> float:
    """Return the expected queries to a target if runs were restarted after the budget; infinity if none reached it.

    All queries until the target or the end, divided by the number of runs that reached it (Hansen et al. 2016, COCO).

    Args:
        hits: of `queries_to`, shape [R].
        budget: of every run; reaching the target later counts as not reaching it.
    """
    hits = np.asarray(hits, np.float64)
    successes = int((hits <= budget).sum())
    return float(np.minimum(hits, budget).sum() / successes) if successes else math.inf


# --- variety and learning --------------------------------------------------------------------------


def diversity(codes: npt.NDArray[np.int64] | npt.NDArray[np.object_]) -> Diversity:
    """Return how many of the queried architectures differ, and the entropy of their frequencies.

    Args:
        codes: of the canonical architectures; negative where none was built, shape [N].
    """
    built = codes[np.asarray(codes >= 0, np.bool_)]
    if not len(built):
        return Diversity(0, 0, 0.0)
    _, counts = np.unique(built, return_counts=True)
    shares = counts / counts.sum()
    return Diversity(len(built), len(counts), float(-(shares * np.log(shares)).sum()) + 0.0)


def does_it_learn(
    final: Floats,
    uniform: Floats | float,
    rng: np.random.Generator,
    repetitions: int = REPETITIONS,
    level: float = 0.95,
) -> Learning:
    """Compare what the final policies of runs sample with uniform decisions.

    The best architecture found says nothing of it: a policy that learns nothing finds good ones, too.

    Args:
        final: mean reward of the final policy's samples of each run, shape [R].
        uniform: exact expectation under uniform decisions, or the mean of samples drawn beside each run, shape [R].
        rng: of the bootstrap.
        repetitions: of the bootstrap.
        level: of confidence.

    Raises:
        InvalidArgument: unequal numbers of runs, or values that are not finite.
    """
    final, uniform = np.asarray(final, np.float64), np.asarray(uniform, np.float64)
    if uniform.ndim and uniform.shape != final.shape:
        raise InvalidArgument(f"one uniform mean a run, or one for all, got {uniform.shape} for {final.shape}.")
    gain = mean_interval(final - uniform, rng, repetitions, level)
    return Learning(gain, bool(gain.low > 0))
