"""What may be said of methods after several runs on several tasks: pure functions of scores, higher = better.

Aggregates, profiles and probability of improvement follow Agarwal et al., NeurIPS 2021 (arXiv 2108.13264). Their
intervals are percentile intervals of the stratified bootstrap: runs are drawn again within each task, tasks stay. They
take the runs for independent, those on different tasks, too: where tasks share a space, a seed must not give the same
draws in all of them.

Dimension letters: R runs of a method on a task, T tasks, B repetitions, K thresholds, M tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidArgument, UnknownName

Floats = npt.NDArray[np.float64]

Statistic = Callable[[Floats], Floats]
"""Maps scores [..., R, T] to numbers [...]."""

REPETITIONS = 2_000
"""Repetitions of the bootstrap by default; take 50,000 for a paper."""

PERMUTATIONS = 100_000
"""Most assignments of signs that a paired test tries."""

_CHUNK = 1 << 22


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval.

    Attributes:
        value: the estimate.
        low: lower bound; NaN where there is a single run, which tells nothing of its spread.
        high: upper bound, likewise.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Profile:
    """Fractions of runs above thresholds, with a pointwise band.

    Attributes:
        thresholds: shape [K].
        fraction: of runs whose score is above each, averaged over tasks, shape [K].
        low: lower edge of the band; NaN where there is a single run, shape [K].
        high: upper edge, likewise, shape [K].
    """

    thresholds: Floats
    fraction: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class PairedTest:
    """Outcome of a paired permutation test.

    Attributes:
        difference: mean score of the first method minus that of the second.
        p_value: two-sided, in (0, 1].
        exact: whether all assignments of signs were tried.
    """

    difference: float
    p_value: float
    exact: bool


@dataclass(frozen=True)
class Comparison:
    """One method against another.

    Attributes:
        method: name of the first.
        against: name of the second.
        improvement: probability that a run of the first surpasses one of the second.
        test: paired over seeds.
        adjusted: p-value of the test after Holm's correction for all comparisons made together.
    """

    method: str
    against: str
    improvement: Interval
    test: PairedTest
    adjusted: float


def shown(interval: Interval, digits: int) -> str:
    """Return an interval as ``value [low, high]``, the value alone where there is a single run."""
    value = f"{interval.value:.{digits}f}"
    if np.isnan(interval.low):
        return value
    return f"{value} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


# --- aggregates ------------------------------------------------------------------------------------


def mean(scores: Floats) -> Floats:
    """Return the mean over runs and tasks; scores [..., R, T], result [...]."""
    return scores.mean(axis=(-2, -1))


def iqm(scores: Floats) -> Floats:
    """Return the interquartile mean over runs and tasks together; scores [..., R, T], result [...].

    A quarter of the scores, rounded down, is left out at either end.

    >>> float(iqm(np.array([[0.0], [0.4], [0.6], [99.0]])))
    0.5
    """
    together = scores.reshape(*scores.shape[:-2], -1)
    count = together.shape[-1]
    cut = count // 4
    # Sorting no more than the two quartiles makes 50,000 repetitions a matter of seconds.
    return np.partition(together, (cut, count - cut - 1), axis=-1)[..., cut : count - cut].mean(axis=-1)


def optimality_gap(scores: Floats, target: float = 1.0) -> Floats:
    """Return by how much runs fail a target on average; scores [..., R, T], result [...]; lower is better.

    Scores above the target count as the target, so that no task makes up for another.
    """
    return target - np.minimum(scores, target).mean(axis=(-2, -1))


# --- intervals -------------------------------------------------------------------------------------


def stratified_bootstrap(
    statistic: Statistic,
    scores: Floats,
    rng: np.random.Generator,
    repetitions: int = REPETITIONS,
    level: float = 0.95,
) -> Interval:
    """Return a statistic of the runs with its percentile interval.

    Args:
        statistic: maps scores [..., R, T] to numbers [...]; `iqm`, `mean`, `optimality_gap` or another.
        scores: of the runs on every task, shape [R, T].
        rng: draws the runs.
        repetitions: how often runs are drawn, B.
        level: of confidence, between 0 and 1.

    Raises:
        InvalidArgument: scores of another shape, without a run or not finite; repetitions below 1; another level.
    """
    scores = _checked(scores)
    value = float(statistic(scores))
    _check_interval(repetitions, level)
    runs, tasks = scores.shape
    if runs == 1:
        return Interval(value, np.nan, np.nan)
    found = np.empty(repetitions)
    for part in _chunks(repetitions, scores.size):
        rows = rng.integers(runs, size=(part.stop - part.start, runs, tasks))
        found[part] = statistic(scores[rows, np.arange(tasks)])
    low, high = _percentiles(found, level)
    return Interval(value, float(low), float(high))


def mean_interval(values: Floats, rng: np.random.Generator, repetitions: int = 20_000, level: float = 0.95) -> Interval:
    """Return the mean of runs on one task, shape [R], with its percentile interval.

    Raises:
        InvalidArgument: as `stratified_bootstrap`.
    """
    return stratified_bootstrap(mean, np.asarray(values)[:, None], rng, repetitions, level)


def difference_interval(
    first: Floats, second: Floats, rng: np.random.Generator, repetitions: int = 20_000, level: float = 0.95
) -> Interval:
    """Return the mean of some runs minus that of others on one task, shapes [R] and [R'], with its interval.

    The runs of either are drawn independently, so nothing is paired and their numbers may differ.

    Raises:
        InvalidArgument: as `stratified_bootstrap`.
    """
    columns = [_checked(np.asarray(values)[:, None])[:, 0] for values in (first, second)]
    _check_interval(repetitions, level)
    value = float(columns[0].mean() - columns[1].mean())
    if min(map(len, columns)) == 1:
        return Interval(value, np.nan, np.nan)
    found = np.empty(repetitions)
    for part in _chunks(repetitions, max(map(len, columns))):
        one, other = (_resampled(rng, part, len(values)) @ values / len(values) for values in columns)
        found[part] = one - other
    low, high = _percentiles(found, level)
    return Interval(value, float(low), float(high))


def probability_of_improvement(
    first: Floats,
    second: Floats,
    rng: np.random.Generator,
    repetitions: int = REPETITIONS,
    level: float = 0.95,
) -> Interval:
    """Return how probable it is that a run of one method surpasses a run of another on the same task.

    The Mann-Whitney statistic over all pairs of runs, equal scores counting one half, averaged over tasks. Runs of
    either method are drawn independently, so the numbers of runs may differ; where seeds are paired, that is cautious.

    Args:
        first: scores of the one method, shape [R, T].
        second: scores of the other on the same tasks, shape [R', T].
        rng: draws the runs.
        repetitions: how often runs are drawn, B.
        level: of confidence, between 0 and 1.

    Raises:
        InvalidArgument: as `stratified_bootstrap`, or other numbers of tasks.
    """
    first, second = _checked(first), _checked(second)
    if first.shape[1] != second.shape[1]:
        raise InvalidArgument(
            f"methods are compared on the same tasks, got {first.shape[1]} and {second.shape[1]} of them."
        )
    _check_interval(repetitions, level)
    wins = [
        (one[:, None] > other) + 0.5 * (one[:, None] == other) for one, other in zip(first.T, second.T, strict=True)
    ]
    # Whole and half wins add up exactly; a division at the end keeps certain ones certain.
    pairs = len(wins) * len(first) * len(second)
    value = float(sum(win.sum() for win in wins) / pairs)
    if min(len(first), len(second)) == 1:
        return Interval(value, np.nan, np.nan)
    found = np.zeros(repetitions)
    for part in _chunks(repetitions, max(len(first), len(second))):
        for win in wins:
            chosen = _resampled(rng, part, len(first)) @ win
            found[part] += (chosen * _resampled(rng, part, len(second))).sum(axis=1)
    low, high = _percentiles(found / pairs, level)
    return Interval(value, float(low), float(high))


def performance_profile(
    scores: Floats,
    thresholds: Floats,
    rng: np.random.Generator,
    repetitions: int = REPETITIONS,
    level: float = 0.95,
) -> Profile:
    """Return the fraction of runs whose score is above each threshold, averaged over tasks, with a pointwise band.

    Args:
        scores: of the runs on every task, shape [R, T].
        thresholds: shape [K].
        rng: draws the runs.
        repetitions: how often runs are drawn, B.
        level: of confidence, between 0 and 1.

    Raises:
        InvalidArgument: as `stratified_bootstrap`.
    """
    scores, thresholds = _checked(scores), np.asarray(thresholds, np.float64)
    _check_interval(repetitions, level)
    above = [(task[:, None] > thresholds).astype(np.float64) for task in scores.T]
    fraction = np.sum(above, axis=(0, 1)) / scores.size
    if len(scores) == 1:
        unknown = np.full(len(thresholds), np.nan)
        return Profile(thresholds, fraction, unknown, unknown.copy())
    found = np.zeros((repetitions, len(thresholds)))
    for part in _chunks(repetitions, len(scores)):
        for task in above:
            found[part] += _resampled(rng, part, len(scores)) @ task
    low, high = _percentiles(found / scores.size, level)
    return Profile(thresholds, fraction, low, high)


# --- tests -----------------------------------------------------------------------------------------


def paired_test(
    first: Floats, second: Floats, rng: np.random.Generator, permutations: int = PERMUTATIONS
) -> PairedTest:
    """Test whether two methods have the same mean score, by a permutation test over paired seeds.

    If they had, a seed's difference could as well have the other sign. The p-value is the share of the assignments of
    signs to seeds under which the mean difference is at least as far from 0 as it is. Against Wilcoxon's signed-rank
    test: it tests the mean that is reported, and stays exact where differences are equal or 0, which searches of a
    table often are. A seed is flipped on all tasks at once, so tasks on which its runs resemble one another do not
    count as independent. Five seeds cannot give less than 1/16.

    Args:
        first: scores of the one method, row s by seed s, shape [R, T].
        second: scores of the other with the same seeds on the same tasks, shape [R, T].
        rng: draws the signs, where there are more assignments than `permutations`.
        permutations: most assignments tried. Among drawn ones the observed counts, too (Phipson & Smyth 2010).

    Raises:
        InvalidArgument: scores of other shapes, without a run or not finite; permutations below 1.
    """
    first, second = _checked(first), _checked(second)
    if first.shape != second.shape:
        raise InvalidArgument(
            f"a paired test needs the same seeds and tasks of both methods, got scores of shape {first.shape} and "
            f"{second.shape}; cut both to the seeds they share."
        )
    if permutations < 1:
        raise InvalidArgument(f"permutations must be at least 1, got {permutations}.")
    differences = (first - second).mean(axis=1)
    runs = len(differences)
    # Another order of summation must not make an equal sum a smaller one.
    observed = abs(differences.sum()) - 1e-12 * np.abs(differences).sum()
    # Turning all signs changes nothing, so the first one stays.
    assignments = 2 ** (runs - 1)
    exact = assignments <= permutations
    count = assignments if exact else permutations
    hits = 0
    for part in _chunks(count, runs):
        if exact:
            bits = np.arange(part.start, part.stop)[:, None] >> np.arange(runs - 1) & 1
        else:
            bits = rng.integers(2, size=(part.stop - part.start, runs - 1), dtype=np.int8)
        sums = differences[0] + (1.0 - 2.0 * bits) @ differences[1:]
        hits += int((np.abs(sums) >= observed).sum())
    p_value = hits / count if exact else (1 + hits) / (1 + count)
    return PairedTest(float(differences.mean()), p_value, exact)


def holm(p_values: Sequence[float] | Floats) -> Floats:
    """Return p-values adjusted for being made together, by Holm's step-down procedure (1979), shape [M].

    Rejecting those at most alpha keeps the probability of any false rejection at most alpha, however they depend.

    Raises:
        InvalidArgument: a value is no probability.

    >>> holm([0.01, 0.04, 0.03, 0.005]).round(3).tolist()
    [0.03, 0.06, 0.06, 0.02]
    """
    values = np.asarray(p_values, np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise InvalidArgument(f"p-values must be a list of numbers from 0 to 1, got {p_values}.")
    order = np.argsort(values, kind="stable")
    adjusted = np.empty(len(values))
    adjusted[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return np.minimum(adjusted, 1.0)


def compare(
    scores: Mapping[str, Floats],
    against: Sequence[str],
    rng: np.random.Generator,
    repetitions: int = REPETITIONS,
    level: float = 0.95,
) -> list[Comparison]:
    """Compare every method with some of them, corrected for all comparisons together.

    Args:
        scores: by method, row s by seed s, shape [R, T].
        against: names of the methods that the others are compared with; a pair of these is compared once.
        rng: draws runs and signs.
        repetitions: of the bootstrap, B.
        level: of confidence, between 0 and 1.

    Raises:
        UnknownName: `against` names a method without scores.
        InvalidArgument: as `paired_test`.
    """
    pairs: list[tuple[str, str]] = []
    for other in against:
        if other not in scores:
            raise UnknownName("method", other, scores)
        pairs += [(name, other) for name in scores if name != other and (other, name) not in pairs]
    tests = [paired_test(scores[name], scores[other], rng) for name, other in pairs]
    adjusted = holm([test.p_value for test in tests])
    return [
        Comparison(
            name,
            other,
            probability_of_improvement(scores[name], scores[other], rng, repetitions, level),
            test,
            float(corrected),
        )
        for (name, other), test, corrected in zip(pairs, tests, adjusted, strict=True)
    ]


# --- drawing ---------------------------------------------------------------------------------------


def _chunks(count: int, size: int) -> list[slice]:
    """Return consecutive parts of `count` rows of `size` numbers each, none too large for the memory."""
    step = max(1, _CHUNK // size)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def _resampled(rng: np.random.Generator, part: slice, runs: int) -> Floats:
    """Return how often each run comes up in `runs` draws with replacement, shape [rows of the part, runs]."""
    count = part.stop - part.start
    drawn = rng.integers(runs, size=(count, runs)) + runs * np.arange(count)[:, None]
    return np.bincount(drawn.ravel(), minlength=count * runs).reshape(count, runs).astype(np.float64)


def _percentiles(found: Floats, level: float) -> tuple[Floats, Floats]:
    """Return the bounds that leave out the same share of the repetitions [B, ...] on either side, shape [...]."""
    low, high = np.quantile(found, ((1 - level) / 2, (1 + level) / 2), axis=0)
    return low, high


def _check_interval(repetitions: int, level: float) -> None:
    if repetitions < 1:
        raise InvalidArgument(f"repetitions must be at least 1, got {repetitions}.")
    if not 0 < level < 1:
        raise InvalidArgument(f"level must lie between 0 and 1, 0.95 for 95 %, got {level}.")


def _checked(scores: Floats) -> Floats:
    """Return scores [R, T] as floats.

    Raises:
        InvalidArgument: another shape, nothing in it, or a score that is not finite.
    """
    found = np.asarray(scores, np.float64)
    if found.ndim != 2 or not found.size:
        raise InvalidArgument(f"scores must have the shape [runs, tasks], at least one of each, got {found.shape}.")
    if not np.isfinite(found).all():
        run, task = np.argwhere(~np.isfinite(found))[0]
        raise InvalidArgument(
            f"the score of run {run} on task {task} is {found[run, task]}; a run that failed needs a score as well."
        )
    return found
