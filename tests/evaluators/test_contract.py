"""What every evaluator promises, and what tables and caches add to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import ToySpace

from nas_gym.errors import FidelityError, InvalidArgument, TableError, UnknownName
from nas_gym.evaluators import (
    EVALUATORS,
    Evaluation,
    Evaluations,
    Evaluator,
    Metric,
    Queries,
    Status,
    example_space,
    make_evaluator,
    trains_networks,
)
from nas_gym.evaluators.core import check_metric, stream_key
from nas_gym.evaluators.decorators import Cached
from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.search_spaces import SEARCH_SPACES, Batch, Encoding, SearchSpace
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space
from nas_gym.tables.format import Measurement, Table, read_table, write_table

cells = NASBench201Space()
toy = ToySpace()

EPOCHS = 4
"""Of the small table."""

Factory = Callable[[], Evaluator]


def cost_evaluator(input_shape: tuple[int, int, int]) -> Evaluator:
    """Return an evaluator of the size of small networks around NAS-Bench-201 cells, where torch is installed."""
    pytest.importorskip("torch")
    from nas_gym.networks.nas_bench_201 import Skeleton

    evaluator = EVALUATORS["cost"](cells, input_shape, skeleton=Skeleton(4, 1, 3, "pooling"))
    assert isinstance(evaluator, Evaluator)
    return evaluator


FACTORIES: dict[str, Callable[[str], Evaluator]] = {
    "tabular": lambda table: TabularEvaluator(cells, table),
    "tabular, sampled": lambda table: TabularEvaluator(cells, table, noise="sample"),
    "synthetic": lambda table: SyntheticEvaluator(cells),
    "synthetic, toy": lambda table: SyntheticEvaluator(toy),
    "cost": lambda table: cost_evaluator((1, 8, 8)),
    "cached tabular": lambda table: Cached(TabularEvaluator(cells, table)),
    "cached tabular, sampled": lambda table: Cached(TabularEvaluator(cells, table, noise="sample")),
    "cached synthetic, toy": lambda table: Cached(SyntheticEvaluator(toy)),
}
"""Ways to make an evaluator from the path of the small table."""

with_fidelities = pytest.mark.parametrize(
    "make", [name for name in FACTORIES if "tabular" in name], indirect=True, ids=str
)
without_fidelities = pytest.mark.parametrize(
    "make", [name for name in FACTORIES if "tabular" not in name], indirect=True, ids=str
)


@pytest.fixture(params=FACTORIES)
def make(request: pytest.FixtureRequest, small_table: Path) -> Factory:
    """Return a function that makes the evaluator under test, new at every call."""
    return lambda: FACTORIES[request.param](str(small_table))


@pytest.fixture
def table(small_table: Path) -> Table:
    """Return the small table."""
    return read_table(small_table)


@pytest.fixture
def mean(small_table: Path) -> TabularEvaluator:
    """Return an evaluator of means."""
    return TabularEvaluator(cells, str(small_table))


@pytest.fixture
def sample(small_table: Path) -> TabularEvaluator:
    """Return an evaluator of single seeds."""
    return TabularEvaluator(cells, str(small_table), noise="sample")


def distinct_classes(space: SearchSpace, count: int = 12) -> list[Encoding]:
    """Return architectures of different isomorphism classes."""
    rng = np.random.default_rng(0)
    found: dict[Encoding, Encoding] = {}
    while len(found) < count:
        encoding = space.sample(rng)
        found.setdefault(space.canonical(encoding), encoding)
    return list(found.values())


def with_repeats(space: SearchSpace) -> list[Encoding]:
    """Return architectures of which some come several times."""
    encodings = distinct_classes(space)
    return encodings + encodings[:4] + encodings[:2]


def rows(evaluations: Evaluations) -> list[Evaluation]:
    """Return the answers row by row."""
    return [evaluations.row(index) for index in range(len(evaluations))]


# --- shape of an answer ----------------------------------------------------------------------------


def test_answers_are_columns_as_long_as_the_batch(make: Factory) -> None:
    """Status is int8, metrics and cost are float64, one row a query."""
    evaluator = make()
    encodings = with_repeats(evaluator.space)
    answer = evaluator.evaluate(Queries.of(evaluator.space, encodings))
    columns = [answer.status, answer.cost_seconds, *answer.metrics.values()]
    assert {len(column) for column in columns} == {len(answer)} == {len(encodings)}
    assert [column.dtype for column in columns] == [np.int8, *[np.float64] * (len(columns) - 1)]


def test_an_empty_batch_has_an_empty_answer(make: Factory) -> None:
    """Nothing asked, nothing answered, all columns there."""
    evaluator = make()
    answer = evaluator.evaluate(Queries.of(evaluator.space, []))
    assert len(answer) == 0
    assert {name: len(column) for name, column in answer.metrics.items()} == dict.fromkeys(evaluator.search_metrics, 0)


def test_every_architecture_is_evaluated_successfully(make: Factory) -> None:
    """Legal encodings have the status `ok`, finite metrics, a cost of at least 0, and no message."""
    evaluator = make()
    answer = evaluator.evaluate(Queries.of(evaluator.space, distinct_classes(evaluator.space)))
    assert set(answer.status.tolist()) == {Status.OK}
    assert all(np.isfinite(column).all() for column in answer.metrics.values())
    assert (answer.cost_seconds >= 0).all()
    assert not answer.messages


def test_metrics_of_a_search_are_those_not_held_out(make: Factory) -> None:
    """Held-out metrics never come back from `evaluate`."""
    evaluator = make()
    answer = evaluator.evaluate(Queries.of(evaluator.space, distinct_classes(evaluator.space)))
    assert set(answer.metrics) == {name for name, metric in evaluator.metrics.items() if not metric.held_out}


def test_metrics_of_one_answer_are_those_not_held_out(make: Factory) -> None:
    """Held-out metrics never come back from `evaluate_one` either."""
    evaluator = make()
    answer = evaluator.evaluate_one(distinct_classes(evaluator.space)[0])
    assert set(answer.metrics) == {name for name, metric in evaluator.metrics.items() if not metric.held_out}


def test_a_report_has_every_metric(make: Factory) -> None:
    """Held-out metrics are in the report."""
    evaluator = make()
    report = evaluator.report(distinct_classes(evaluator.space)[0])
    assert set(report) == set(evaluator.metrics)
    assert all(math.isfinite(value) for value in report.values())


def test_metrics_say_where_better_is(make: Factory) -> None:
    """Every metric has one of two directions, and accuracies are fractions to maximize."""
    evaluator = make()
    assert {metric.direction for metric in evaluator.metrics.values()} <= {"maximize", "minimize"}
    accuracies = [metric for name, metric in evaluator.metrics.items() if name.endswith("accuracy")]
    assert all((metric.direction, metric.unit) == ("maximize", "fraction") for metric in accuracies)


def test_the_final_judgement_is_by_a_held_out_metric_where_there_is_one(make: Factory) -> None:
    """`reported_metric` is held out, unless nothing is."""
    evaluator = make()
    some_held_out = any(metric.held_out for metric in evaluator.metrics.values())
    assert evaluator.metrics[evaluator.reported_metric].held_out == some_held_out


# --- consistency -----------------------------------------------------------------------------------


def test_a_batch_equals_its_rows_one_by_one(make: Factory) -> None:
    """`evaluate_one`, in order, gives the rows of `evaluate`, repeated queries included."""
    batched, single = make(), make()
    encodings = with_repeats(batched.space)
    answer = batched.evaluate(Queries.of(batched.space, encodings))
    assert rows(answer) == [single.evaluate_one(encoding) for encoding in encodings]


@with_fidelities
@pytest.mark.parametrize("fidelity", [1, 2, EPOCHS])
def test_a_batch_at_a_fidelity_equals_its_rows_one_by_one(make: Factory, fidelity: int) -> None:
    """The same at every fidelity."""
    batched, single = make(), make()
    encodings = with_repeats(batched.space)
    answer = batched.evaluate(Queries.of(batched.space, encodings, fidelity))
    assert rows(answer) == [single.evaluate_one(encoding, fidelity) for encoding in encodings]


@with_fidelities
def test_a_batch_of_mixed_fidelities_equals_its_rows_one_by_one(make: Factory) -> None:
    """Every row may ask for its own number of epochs."""
    batched, single = make(), make()
    encodings = with_repeats(batched.space)
    fidelities = np.arange(len(encodings)) % EPOCHS + 1
    answer = batched.evaluate(Queries(Batch.of(batched.space, encodings), fidelities))
    expected = [single.evaluate_one(*query) for query in zip(encodings, fidelities.tolist(), strict=True)]
    assert rows(answer) == expected


@with_fidelities
def test_without_a_fidelity_the_highest_one_is_meant(make: Factory) -> None:
    """The default is the full training."""
    default, highest = make(), make()
    encoding = distinct_classes(default.space)[0]
    assert default.fidelities == (1, EPOCHS)
    assert default.evaluate_one(encoding) == highest.evaluate_one(encoding, EPOCHS)


def test_an_answer_does_not_depend_on_the_order(make: Factory) -> None:
    """Architectures of different classes are answered alike wherever they stand in the batch."""
    forwards, backwards = make(), make()
    encodings = distinct_classes(forwards.space)
    answer = forwards.evaluate(Queries.of(forwards.space, encodings))
    reverse = backwards.evaluate(Queries.of(backwards.space, encodings[::-1]))
    assert rows(answer) == rows(reverse)[::-1]


@pytest.mark.parametrize("size", [1, 3, 7, 18])
def test_an_answer_does_not_depend_on_batching(make: Factory, size: int) -> None:
    """Small batches give the rows of the large one, repeated queries included."""
    whole, parts = make(), make()
    encodings = with_repeats(whole.space)
    answer = whole.evaluate(Queries.of(whole.space, encodings))
    batches = [encodings[start : start + size] for start in range(0, len(encodings), size)]
    in_parts = [row for batch in batches for row in rows(parts.evaluate(Queries.of(parts.space, batch)))]
    assert rows(answer) == in_parts


def repeated_answers(evaluator: Evaluator) -> list[list[Evaluation]]:
    """Ask for every architecture five times."""
    return [[evaluator.evaluate_one(encoding) for _ in range(5)] for encoding in distinct_classes(evaluator.space)]


def test_the_deterministic_flag_is_truthful(make: Factory) -> None:
    """Repeating a query changes the answer exactly where the evaluator says so."""
    evaluator = make()
    changed = any(answer != answers[0] for answers in repeated_answers(evaluator) for answer in answers)
    assert changed == (not evaluator.deterministic)


def test_forgetting_the_repeats_replays_the_noise(make: Factory) -> None:
    """After `reset_repeats` the same queries give the same answers."""
    evaluator = make()
    before = repeated_answers(evaluator)
    evaluator.reset_repeats()
    assert repeated_answers(evaluator) == before


def test_two_evaluators_of_one_seed_agree(make: Factory) -> None:
    """No answer depends on global state."""
    assert repeated_answers(make()) == repeated_answers(make())


def test_a_report_is_the_same_every_time(make: Factory) -> None:
    """Reports are not drawn."""
    evaluator = make()
    encoding = distinct_classes(evaluator.space)[0]
    assert evaluator.report(encoding) == evaluator.report(encoding)


def test_a_report_does_not_count_as_a_repeat(make: Factory) -> None:
    """Looking at a report changes no later answer."""
    plain, reported = make(), make()
    encoding = distinct_classes(plain.space)[0]
    reported.report(encoding)
    assert [plain.evaluate_one(encoding) for _ in range(5)] == [reported.evaluate_one(encoding) for _ in range(5)]


def test_identity_joins_only_what_is_isomorphic(make: Factory) -> None:
    """Two queries may share an answer only within a class."""
    evaluator = make()
    for encoding in distinct_classes(evaluator.space):
        assert evaluator.space.canonical(evaluator.identity(encoding)) == evaluator.space.canonical(encoding)


def test_a_failed_query_costs_a_finite_time(make: Factory) -> None:
    """What is charged for a failure is a number of seconds."""
    assert 0 <= make().mean_cost() < math.inf


# --- fidelities ------------------------------------------------------------------------------------


@with_fidelities
@pytest.mark.parametrize("fidelity", [-1, 0, EPOCHS + 1, 200])
def test_a_fidelity_out_of_range_is_refused_in_a_batch(make: Factory, fidelity: int) -> None:
    """The message has the range."""
    evaluator = make()
    with pytest.raises(FidelityError, match=f"from 1 to {EPOCHS} epochs, got {fidelity}"):
        evaluator.evaluate(Queries.of(evaluator.space, distinct_classes(evaluator.space), fidelity))


@with_fidelities
def test_one_fidelity_out_of_range_among_others_is_refused(make: Factory) -> None:
    """A mixed batch is checked row by row."""
    evaluator = make()
    batch = Batch.of(evaluator.space, distinct_classes(evaluator.space, 3))
    with pytest.raises(FidelityError, match="got 9"):
        evaluator.evaluate(Queries(batch, np.array([1, 9, 2])))


@with_fidelities
@pytest.mark.parametrize("fidelity", [-1, 0, EPOCHS + 1, True, 2.0, "2"], ids=repr)
def test_a_fidelity_that_cannot_be_answered_is_refused_for_one(make: Factory, fidelity: object) -> None:
    """Only integers within the range are epochs."""
    evaluator = make()
    with pytest.raises(FidelityError, match=f"from 1 to {EPOCHS} epochs"):
        evaluator.evaluate_one(distinct_classes(evaluator.space)[0], fidelity)  # type: ignore[arg-type]


@without_fidelities
def test_a_fidelity_where_there_is_none_is_refused_in_a_batch(make: Factory) -> None:
    """An evaluator without fidelities says so instead of ignoring one."""
    evaluator = make()
    with pytest.raises(FidelityError, match="has no fidelities, got 1"):
        evaluator.evaluate(Queries.of(evaluator.space, distinct_classes(evaluator.space), 1))


@without_fidelities
def test_a_fidelity_where_there_is_none_is_refused_for_one(make: Factory) -> None:
    """The same for a single query."""
    evaluator = make()
    with pytest.raises(FidelityError, match="has no fidelities, got 1"):
        evaluator.evaluate_one(distinct_classes(evaluator.space)[0], 1)


# --- tables ----------------------------------------------------------------------------------------


def test_the_mean_is_that_of_the_table(mean: TabularEvaluator, table: Table) -> None:
    """An answer is the mean over the seeds at the fidelity asked for."""
    encodings = distinct_classes(cells)
    codes = [cells.code(encoding) for encoding in encodings]
    answer = mean.evaluate(Queries.of(cells, encodings, 2))
    expected = table.columns["valid_accuracy"][codes, :, 1].sum(axis=1, dtype=np.int64) / (3 * 1000)
    np.testing.assert_array_equal(answer.metrics["valid_accuracy"], expected)


def test_a_sample_is_one_seed_of_the_table(sample: TabularEvaluator, table: Table) -> None:
    """An answer is a value of one seed, and all metrics of a row come from the same seed."""
    for encoding in distinct_classes(cells):
        row = cells.code(encoding)
        answer = sample.evaluate_one(encoding)
        seeds = zip(table.per_seed("valid_accuracy")[row], table.per_seed("train_seconds")[row], strict=True)
        assert (answer.metrics["valid_accuracy"], answer.metrics["train_seconds"]) in list(seeds)


def test_samples_draw_every_seed_alike(sample: TabularEvaluator, table: Table) -> None:
    """Of 600 repeated queries a third shows each seed, within five standard errors."""
    encoding = (3, 1, 2, 0, 4, 1)
    drawn = [sample.evaluate_one(encoding).metrics["valid_accuracy"] for _ in range(600)]
    values = table.per_seed("valid_accuracy")[cells.code(encoding)]
    shares = np.array([np.mean(np.array(drawn) == value) for value in values])
    assert len(set(values)) == 3
    assert np.abs(shares - 1 / 3).max() < 5 * math.sqrt(2 / 9 / 600)


def test_another_evaluation_seed_draws_other_samples(small_table: Path) -> None:
    """The noise is keyed by the seed."""
    evaluators = [TabularEvaluator(cells, str(small_table), noise="sample", evaluation_seed=seed) for seed in (0, 1)]
    encodings = distinct_classes(cells, 40)
    one, other = (rows(evaluator.evaluate(Queries.of(cells, encodings))) for evaluator in evaluators)
    assert one != other


@pytest.mark.parametrize("fidelity", [1, 2, EPOCHS])
def test_the_cost_is_the_share_of_the_training_time(mean: TabularEvaluator, table: Table, fidelity: int) -> None:
    """A look-up at half of the epochs costs half of the seconds."""
    encoding = (3, 1, 2, 0, 4, 1)
    seconds = table.mean("train_seconds")[cells.code(encoding)]
    assert mean.evaluate_one(encoding, fidelity).cost_seconds == pytest.approx(seconds * fidelity / EPOCHS)


@pytest.mark.parametrize("fidelity", [None, 1, EPOCHS])
def test_a_failed_query_costs_the_mean_over_the_table(
    mean: TabularEvaluator, table: Table, fidelity: int | None
) -> None:
    """At the fidelity asked for."""
    expected = float(table.mean("train_seconds").mean()) * (fidelity or EPOCHS) / EPOCHS
    assert mean.mean_cost(fidelity) == pytest.approx(expected)


@pytest.mark.parametrize("noise", ["mean", "sample"])
def test_a_table_report_is_the_mean_at_full_fidelity(small_table: Path, table: Table, noise: str) -> None:
    """Whatever the search sees, the report is free of drawn noise."""
    evaluator = TabularEvaluator(cells, str(small_table), noise=noise)
    encoding = (3, 1, 2, 0, 4, 1)
    row = cells.code(encoding)
    assert evaluator.report(encoding) == {name: table.mean(name)[row] for name in table.measurements}


@pytest.mark.parametrize(
    ("metric", "better"), [("valid_accuracy", max), ("test_accuracy", max), ("parameters", min), ("train_seconds", min)]
)
def test_the_reference_equals_a_scan_of_the_whole_space(
    mean: TabularEvaluator, metric: str, better: Callable[[Sequence[float]], float]
) -> None:
    """Best, mean and worst are those of all 15,625 reports."""
    values = [mean.report(encoding)[metric] for encoding in cells.enumerate()]
    reference = mean.reference(metric)
    assert reference is not None
    assert reference.best == better(values)
    assert reference.worst == (max(values) if better is min else min(values))
    assert reference.mean == pytest.approx(sum(values) / len(values), rel=1e-12)


def test_the_standing_equals_a_scan_of_the_whole_space(mean: TabularEvaluator) -> None:
    """The rank counts the encodings that are strictly better by the held-out accuracy."""
    values = [mean.report(encoding)["test_accuracy"] for encoding in cells.enumerate()]
    encoding = (3, 1, 2, 0, 4, 1)
    own = mean.report(encoding)["test_accuracy"]
    standing = mean.standing(encoding)
    assert standing is not None
    assert (standing.metric, standing.value, standing.size) == ("test_accuracy", own, len(values))
    assert standing.rank == 1 + sum(value > own for value in values)
    assert standing.regret == pytest.approx(max(values) - own)


def test_an_unknown_metric_of_a_reference_is_named(mean: TabularEvaluator) -> None:
    """A typo is recognised."""
    with pytest.raises(UnknownName, match=r"unknown metric 'test_acuracy'\. Did you mean 'test_accuracy'"):
        mean.reference("test_acuracy")


def test_an_unknown_table_is_named() -> None:
    """A miss lists what is installed."""
    with pytest.raises(UnknownName, match="unknown table 'no such table'"):
        TabularEvaluator(cells, "no such table")


def test_a_missing_table_file_is_named(tmp_path: Path) -> None:
    """A path is not looked up, but its absence is reported."""
    with pytest.raises(TableError, match=r"absent\.parquet: cannot be read"):
        TabularEvaluator(cells, str(tmp_path / "absent.parquet"))


def test_a_table_of_another_space_is_refused(small_table: Path) -> None:
    """Codes of one space mean nothing in another."""
    with pytest.raises(TableError, match=r"small\.parquet: a table of the space 'nas_bench_201', but 'toy'"):
        TabularEvaluator(toy, str(small_table))


def test_unknown_noise_is_refused(small_table: Path) -> None:
    """The message has what is allowed."""
    with pytest.raises(InvalidArgument, match="noise must be one of mean, sample, got 'gaussian'"):
        TabularEvaluator(cells, str(small_table), noise="gaussian")


# --- incomplete tables -----------------------------------------------------------------------------

KNOWN: tuple[Encoding, ...] = ((2, 0), (1, 3, 0), (1, 1, 2, 1, 2))
UNKNOWN: Encoding = (1, 0, 0)


@pytest.fixture
def sparse_table(tmp_path: Path) -> str:
    """Return a table of three of the toy space's chains, with two seeds."""
    path = tmp_path / "sparse.parquet"
    codes = {toy.code(encoding): index for index, encoding in enumerate(KNOWN)}
    order = [codes[code] for code in sorted(codes)]
    values = np.array([[10, 11], [20, 21], [30, 31]], np.uint16)[order].reshape(3, 2, 1)
    seconds = np.array([[1, 1], [2, 2], [3, 3]], np.float32)[order].reshape(3, 2, 1)
    measurements = {
        "valid_accuracy": Measurement("maximize", "fraction", denominator=100, seeds=2),
        "train_seconds": Measurement("minimize", "seconds", seeds=2),
    }
    columns = {"valid_accuracy": values, "train_seconds": seconds}
    write_table(path, np.array(sorted(codes)), measurements, columns, {"space": "toy"})
    return str(path)


@pytest.fixture(params=["mean", "sample"])
def sparse(request: pytest.FixtureRequest, sparse_table: str) -> TabularEvaluator:
    """Return an evaluator of an incomplete table."""
    return TabularEvaluator(toy, sparse_table, noise=request.param)


def test_rows_of_an_incomplete_table_are_found_by_their_code(sparse_table: str) -> None:
    """The key column is searched."""
    answer = TabularEvaluator(toy, sparse_table).evaluate(Queries.of(toy, KNOWN))
    assert answer.metrics["valid_accuracy"].tolist() == [0.105, 0.205, 0.305]


def test_an_architecture_that_the_table_lacks_is_a_build_error(sparse: TabularEvaluator) -> None:
    """It has no numbers, costs the mean, and the message names the table."""
    answer = sparse.evaluate_one(UNKNOWN)
    assert (answer.status, answer.cost_seconds) == (Status.BUILD_ERROR, 2.0)
    assert answer.message == "not in the table sparse"
    assert all(math.isnan(value) for value in answer.metrics.values())


def test_the_others_of_a_batch_are_answered(sparse: TabularEvaluator) -> None:
    """A missing row disturbs no other."""
    answer = sparse.evaluate(Queries.of(toy, [KNOWN[0], UNKNOWN, KNOWN[1]]))
    assert answer.status.tolist() == [Status.OK, Status.BUILD_ERROR, Status.OK]
    assert np.isnan(answer.metrics["valid_accuracy"]).tolist() == [False, True, False]
    assert set(answer.messages) == {1}


def test_a_report_of_a_missing_architecture_is_an_error(sparse: TabularEvaluator) -> None:
    """There is nothing to report."""
    with pytest.raises(TableError, match=r"sparse\.parquet: has no architecture \(1, 0, 0\)"):
        sparse.report(UNKNOWN)


def test_an_incomplete_table_has_no_reference(sparse: TabularEvaluator) -> None:
    """The best of the table need not be the best of the space."""
    assert sparse.reference("valid_accuracy") is None
    assert sparse.standing(KNOWN[0]) is None


# --- cost ------------------------------------------------------------------------------------------


def test_flops_are_twice_the_multiply_adds() -> None:
    """A multiplication and an addition."""
    metrics = cost_evaluator((1, 8, 8)).evaluate_one((3, 1, 2, 0, 4, 1)).metrics
    assert metrics["flops"] == 2 * metrics["multiply_adds"]


def test_a_network_that_cannot_be_built_is_a_build_error() -> None:
    """The reason is in the message, and nothing is raised."""
    answer = cost_evaluator((1, 2, 2)).evaluate_one((3, 1, 2, 0, 4, 1))
    assert answer.status is Status.BUILD_ERROR
    assert "too small for 3 stages" in answer.message
    assert all(math.isnan(value) for value in answer.metrics.values())


# --- caches ----------------------------------------------------------------------------------------


@dataclass
class Script:
    """What a fake evaluator answers, and what it was asked."""

    statuses: list[Status]
    asked: list[list[Encoding]]


class Fake(Evaluator):
    """Counts up in its metric, and fails as its script says."""

    metrics: Mapping[str, Metric] = {"valid_accuracy": Metric("maximize", "fraction")}
    deterministic = False
    fidelities = (1, 9)

    def __init__(self, *statuses: Status) -> None:
        """Answer with these statuses, then with `ok`."""
        self.space = cells
        self.script = Script(list(statuses), [])
        self.count = 0

    def evaluate(self, queries: Queries) -> Evaluations:
        """Answer the next rows of the script."""
        self.script.asked.append(queries.rows)
        return Evaluations.of([self.next_answer() for _ in queries.rows], self.search_metrics)

    def next_answer(self) -> Evaluation:
        """Return the next answer."""
        self.count += 1
        status = self.script.statuses.pop(0) if self.script.statuses else Status.OK
        value = float(self.count) if status is Status.OK else math.nan
        return Evaluation(
            status, {"valid_accuracy": value}, 1.0, "" if status is Status.OK else f"failure {self.count}"
        )

    def report(self, encoding: Encoding) -> dict[str, float]:
        """Report a constant."""
        return {"valid_accuracy": 0.5}


def values(evaluations: Evaluations) -> list[float]:
    """Return the metric of the fake."""
    return evaluations.metrics["valid_accuracy"].tolist()


A, B, C = (1,) * 6, (2,) * 6, (3,) * 6


def test_a_cache_gives_the_first_answer_again() -> None:
    """A repeated query is not evaluated again."""
    cached = Cached(Fake())
    assert [cached.evaluate_one(A) for _ in range(3)] == [cached.evaluate_one(A)] * 3


def test_a_cache_asks_only_for_what_is_new() -> None:
    """The rest of a batch is answered from memory, each architecture once, in the order of the queries."""
    fake = Fake()
    cached = Cached(fake)
    cached.evaluate(Queries.of(cells, [B]))
    answer = cached.evaluate(Queries.of(cells, [A, B, A, C, B]))
    assert fake.script.asked == [[B], [A, C]]
    assert values(answer) == [2.0, 1.0, 2.0, 3.0, 1.0]


def test_a_cache_asks_nothing_when_everything_is_known() -> None:
    """The inner evaluator sees no empty batch."""
    fake = Fake()
    cached = Cached(fake)
    cached.evaluate_one(A)
    cached.evaluate_one(A)
    assert fake.script.asked == [[A]]


def test_a_cache_joins_what_the_inner_evaluator_identifies() -> None:
    """Isomorphic architectures share an answer, where the inner evaluator sees no difference."""
    isomorphic = (3, 4, 0, 0, 1, 0), (3, 2, 0, 0, 1, 0)
    cached = Cached(Fake())
    assert cells.canonical(isomorphic[0]) == cells.canonical(isomorphic[1])
    assert values(cached.evaluate(Queries.of(cells, isomorphic))) == [1.0, 1.0]


def test_a_cache_tells_isomorphic_networks_of_different_size_apart(mean: TabularEvaluator) -> None:
    """A table has parameters for every encoding, so its evaluator identifies nothing."""
    isomorphic = (3, 4, 0, 0, 1, 0), (3, 2, 0, 0, 1, 0)
    answer = Cached(mean).evaluate(Queries.of(cells, isomorphic))
    assert rows(answer) == [mean.evaluate_one(encoding) for encoding in isomorphic]


def test_a_cache_tells_fidelities_apart() -> None:
    """Another number of epochs is another query."""
    cached = Cached(Fake())
    assert [cached.evaluate_one(A, epochs).metrics["valid_accuracy"] for epochs in (1, 2, 1)] == [1.0, 2.0, 1.0]


def test_a_cache_tells_parents_apart() -> None:
    """Inherited weights are another query."""
    cached = Cached(Fake())
    answers = [cached.evaluate_one(A, parent=parent).metrics["valid_accuracy"] for parent in (None, "x", None, "x")]
    assert answers == [1.0, 2.0, 1.0, 2.0]


def test_a_cache_without_a_fidelity_finds_the_highest_one() -> None:
    """Both mean the full training."""
    cached = Cached(Fake())
    assert cached.evaluate_one(A) == cached.evaluate_one(A, 9)


@pytest.mark.parametrize("status", [status for status in Status if status.transient], ids=lambda status: status.label)
def test_a_failure_that_may_not_happen_again_is_not_kept(status: Status) -> None:
    """The next query tries once more."""
    cached = Cached(Fake(status))
    assert [cached.evaluate_one(A).status for _ in range(3)] == [status, Status.OK, Status.OK]


@pytest.mark.parametrize(
    "status",
    [status for status in Status if not status.transient and status is not Status.OK],
    ids=lambda status: status.label,
)
def test_a_failure_that_is_a_property_of_the_architecture_is_kept(status: Status) -> None:
    """With its message."""
    cached = Cached(Fake(status))
    answers = [cached.evaluate_one(A) for _ in range(2)]
    assert [(answer.status, answer.message) for answer in answers] == [(status, "failure 1")] * 2


def test_a_failure_in_a_batch_stays_in_its_row() -> None:
    """Statuses and messages keep their places, repeated rows included."""
    answer = Cached(Fake(Status.OK, Status.CRASHED)).evaluate(Queries.of(cells, [A, B, A, B]))
    assert answer.status.tolist() == [Status.OK, Status.CRASHED, Status.OK, Status.CRASHED]
    assert answer.messages == {1: "failure 2", 3: "failure 2"}


def test_out_of_memory_timeouts_and_crashes_are_transient() -> None:
    """And nothing else is."""
    transient = {status for status in Status if status.transient}
    assert transient == {Status.OUT_OF_MEMORY, Status.TIMEOUT, Status.CRASHED, Status.KILLED}


# --- making ----------------------------------------------------------------------------------------


def test_an_evaluator_is_made_by_name() -> None:
    """With the arguments of its class."""
    evaluator = make_evaluator("synthetic", toy, evaluation_seed=3)
    assert isinstance(evaluator, SyntheticEvaluator)
    assert evaluator.evaluation_seed == 3


def test_arguments_that_are_none_are_left_to_the_default() -> None:
    """An environment passes on whatever it was given."""
    make_evaluator("synthetic", toy, table=None, evaluation_seed=None)


def test_an_argument_that_an_evaluator_does_not_take_is_refused() -> None:
    """The message has those it takes."""
    with pytest.raises(InvalidArgument, match=r"'synthetic' takes no argument 'table'.*it takes: evaluation_seed"):
        make_evaluator("synthetic", toy, table="digits")


def test_an_unknown_evaluator_is_answered_with_the_nearest_match() -> None:
    """A typo is recognised."""
    with pytest.raises(UnknownName, match=r"unknown evaluator 'tabuler'\. Did you mean 'tabular'"):
        make_evaluator("tabuler", cells)


def test_a_class_of_somebody_else_is_made_by_its_path() -> None:
    """No fork is needed."""
    path = "nas_gym.evaluators.synthetic:SyntheticEvaluator"
    assert isinstance(make_evaluator(path, toy), SyntheticEvaluator)


@pytest.mark.parametrize("name", EVALUATORS)
def test_registered_evaluators_are_evaluators(name: str) -> None:
    """Every row of the registry makes an object of the contract from a search space."""
    if EVALUATORS.entries[name].extra:
        pytest.importorskip("torch")
    assert isinstance(EVALUATORS[name](SEARCH_SPACES[example_space(name)]()), Evaluator)


def test_an_unknown_evaluator_has_no_example() -> None:
    """The message names the nearest."""
    with pytest.raises(UnknownName, match="Did you mean 'training'"):
        example_space("trainin")


@pytest.mark.parametrize("name", EVALUATORS)
def test_what_trains_takes_a_store(name: str) -> None:
    """The row of the registry says so truly: only those that train networks keep a store."""
    if EVALUATORS.entries[name].extra:
        pytest.importorskip("torch")
    evaluator = EVALUATORS[name](SEARCH_SPACES[example_space(name)]())
    assert trains_networks(name) == hasattr(type(evaluator), "store")


def test_a_known_metric_is_returned() -> None:
    """What is measured can be asked for."""
    assert check_metric(SyntheticEvaluator(toy), "parameters") == Metric("minimize", "count")


def test_a_held_out_metric_is_refused_and_the_others_are_listed() -> None:
    """Nobody optimises what is for reports only."""
    with pytest.raises(InvalidArgument, match=r"'test_accuracy' is held out.*Allowed: valid_accuracy, parameters"):
        check_metric(SyntheticEvaluator(toy), "test_accuracy")


def test_an_unknown_metric_does_not_suggest_a_held_out_one() -> None:
    """The list of known metrics has those of the search."""
    with pytest.raises(UnknownName) as caught:
        check_metric(SyntheticEvaluator(toy), "test_acc")
    assert "test_accuracy" not in str(caught.value)


# --- rows and streams ------------------------------------------------------------------------------


def test_columns_and_rows_are_two_views_of_one_answer() -> None:
    """Gathering rows and taking them out again changes nothing."""
    answers = [
        Evaluation(Status.OK, {"a": 1.0, "b": 2.0}, 3.0, artifact="hash"),
        Evaluation(Status.TIMEOUT, {"a": 0.0, "b": 0.0}, 5.0, "too slow"),
    ]
    assert rows(Evaluations.of(answers, ["a", "b"])) == answers


def test_a_metric_that_a_row_lacks_is_not_a_number() -> None:
    """A failure without metrics fills its row with NaN."""
    column = Evaluations.of([Evaluation(Status.CRASHED, {}, 0.0)], ["a"]).metrics["a"]
    assert np.isnan(column).tolist() == [True]


def test_selected_queries_keep_their_fidelity_and_parent() -> None:
    """Rows stay whole."""
    queries = Queries(Batch.of(cells, [A, B, C]), np.array([1, 2, 3]), ["a", None, "c"]).select(np.array([2, 0]))
    assert queries.fidelities is not None
    assert (queries.rows, queries.fidelities.tolist(), queries.parents) == ([C, A], [3, 1], ["c", "a"])


@given(parts=st.lists(st.none() | st.integers() | st.text() | st.lists(st.integers()).map(tuple)))
def test_a_stream_key_is_a_function_of_its_parts(parts: list[int | str | Encoding | None]) -> None:
    """63 bits, always the same."""
    key = stream_key(*parts)
    assert 0 <= key < 2**63
    assert key == stream_key(*parts)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, 23), (12, 3)),
        (("1",), (1,)),
        (((1,), 2), ((1, 2),)),
        ((None,), ("None",)),
        ((0, (1, 2), 3), (0, (1, 2), 4)),
    ],
    ids=repr,
)
def test_different_parts_have_different_streams(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    """Parts are not run together."""
    assert stream_key(*one) != stream_key(*other)
