"""The contract of evaluators.

Dimension letters: N queries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nas_gym.errors import FidelityError
from nas_gym.evaluators.core import Evaluation, Evaluations, Evaluator, Metric, Queries, Status
from nas_gym.search_spaces.core import Batch, Encoding, SearchSpace
from nas_gym.testing.rules import check_rules, demand, demand_equal, demand_raises, new_seed


@dataclass(frozen=True)
class _EvaluatorProbe:
    """An evaluator with architectures of its space, no two of them isomorphic."""

    evaluator: Evaluator
    seed: int
    samples: int
    measured: frozenset[str]

    @cached_property
    def encodings(self) -> list[Encoding]:
        """Canonically distinct encodings."""
        space, rng = self.evaluator.space, np.random.default_rng(self.seed)
        drawn = [space.sample(rng) for _ in range(self.samples)]
        return list({space.canonical(encoding): encoding for encoding in drawn}.values())

    def fresh(self, encodings: Sequence[Encoding], fidelity: int | None = None) -> Evaluations:
        """Evaluate a batch with all repeat counters at zero."""
        self.evaluator.reset_repeats()
        return self.evaluator.evaluate(Queries.of(self.evaluator.space, encodings, fidelity))

    def comparable(self, evaluation: Evaluation) -> tuple[object, ...]:
        """Return what repeats exactly: an evaluation without what is measured by a clock."""
        metrics = {name: value for name, value in evaluation.metrics.items() if name not in self.measured}
        cost = None if "cost_seconds" in self.measured else evaluation.cost_seconds
        return evaluation.status, metrics, cost, evaluation.message

    def rows(self, evaluations: Evaluations) -> list[tuple[object, ...]]:
        """Return the comparable part of every row."""
        return [self.comparable(evaluations.row(index)) for index in range(len(evaluations))]

    @property
    def fidelities(self) -> list[int | None]:
        """No fidelity, then the lowest and the highest, where there are any."""
        return [None, *(self.evaluator.fidelities or ())]


def _evaluator_is_described(probe: _EvaluatorProbe) -> None:
    """An evaluator names its space, its fidelities and its metrics, of which one at least is not held out."""
    evaluator = probe.evaluator
    demand(isinstance(evaluator.space, SearchSpace), "a SearchSpace", evaluator.space)
    for name, metric in evaluator.metrics.items():
        demand(isinstance(metric, Metric), "a Metric", metric, metric=name)
        demand(metric.direction in ("maximize", "minimize"), "maximize or minimize", metric.direction, metric=name)
    search = tuple(name for name, metric in evaluator.metrics.items() if not metric.held_out)
    demand(bool(search) and evaluator.search_metrics == search, f"search metrics {search}", evaluator.search_metrics)
    if evaluator.fidelities is not None:
        lowest, highest = evaluator.fidelities
        demand(1 <= lowest <= highest, "1 <= lowest <= highest", evaluator.fidelities)


def _answers_are_columns(probe: _EvaluatorProbe) -> None:
    """`evaluate` answers N queries in columns of N: int8 status, float64 search metrics, finite costs >= 0."""
    names, count = probe.evaluator.search_metrics, len(probe.encodings)
    answer = probe.fresh(probe.encodings)
    demand(answer.status.dtype == np.int8, "int8 status", answer.status.dtype)
    demand(set(answer.metrics) == set(names), f"the metrics {names}", tuple(answer.metrics))
    for name, column in (*answer.metrics.items(), ("cost_seconds", answer.cost_seconds)):
        demand(column.dtype == np.float64, "float64", column.dtype, column=name)
        demand(column.shape == (count,), f"shape ({count},)", column.shape, column=name)
    demand(answer.status.shape == (count,), f"shape ({count},)", answer.status.shape, column="status")
    costly = np.isfinite(answer.cost_seconds) & (answer.cost_seconds >= 0)
    demand(costly.all(), "finite costs of at least 0", answer.cost_seconds, encodings=probe.encodings)


def _failures_are_data(probe: _EvaluatorProbe) -> None:
    """Every row has a known status; metrics are finite where it is ok and NaN where it is not."""
    answer = probe.fresh(probe.encodings)
    for index, encoding in enumerate(probe.encodings):
        status = int(answer.status[index])
        demand(status in set(Status), "a value of Status", status, encoding=encoding)
        values = np.array([column[index] for column in answer.metrics.values()])
        ok = status == Status.OK
        right = np.isfinite(values).all() if ok else np.isnan(values).all()
        demand(right, "finite metrics" if ok else "NaN metrics", values, encoding=encoding)
    for rows in (answer.messages, answer.artifacts):
        demand(set(rows) <= set(range(len(answer))), "row numbers as keys", tuple(rows))


def _one_equals_a_batch(probe: _EvaluatorProbe) -> None:
    """`evaluate_one` gives the answer of a batch, at every fidelity."""
    for fidelity in probe.fidelities:
        rows = probe.rows(probe.fresh(probe.encodings, fidelity))
        probe.evaluator.reset_repeats()
        for encoding, row in zip(probe.encodings, rows, strict=True):
            one = probe.comparable(probe.evaluator.evaluate_one(encoding, fidelity))
            demand_equal(one, row, "the answer of the batch", encoding=encoding, fidelity=fidelity)


def _order_does_not_matter(probe: _EvaluatorProbe) -> None:
    """The answer to a query depends neither on the order of a batch nor on how queries are batched."""
    rows = probe.rows(probe.fresh(probe.encodings))
    reverse = probe.rows(probe.fresh(probe.encodings[::-1]))[::-1]
    demand_equal(reverse, rows, "the same answers in another order", encodings=probe.encodings)
    half = len(probe.encodings) // 2
    parts = probe.rows(probe.fresh(probe.encodings[:half])) if half else []
    queries = Queries.of(probe.evaluator.space, probe.encodings[half:])
    parts += probe.rows(probe.evaluator.evaluate(queries))
    demand_equal(parts, rows, "the same answers from two batches", encodings=probe.encodings)


def _repeats_follow_the_declaration(probe: _EvaluatorProbe) -> None:
    """Answers repeat after `reset_repeats`, and without it where the evaluator calls itself deterministic."""
    rows = probe.rows(probe.fresh(probe.encodings))
    if probe.evaluator.deterministic:
        queries = Queries.of(probe.evaluator.space, probe.encodings)
        again = probe.rows(probe.evaluator.evaluate(queries))
        demand_equal(again, rows, "the first answers", encodings=probe.encodings)
    demand_equal(probe.rows(probe.fresh(probe.encodings)), rows, "the first answers", encodings=probe.encodings)


def _fidelities_are_checked(probe: _EvaluatorProbe) -> None:
    """A fidelity outside `fidelities` raises FidelityError; mixed ones answer as apart; none means the highest."""
    evaluator, encoding = probe.evaluator, probe.encodings[0]
    outside = [1] if evaluator.fidelities is None else [evaluator.fidelities[0] - 1, evaluator.fidelities[1] + 1]
    for fidelity in outside:
        queries = Queries.of(evaluator.space, [encoding], fidelity)
        demand_raises(FidelityError, lambda q=queries: evaluator.evaluate(q), fidelity=fidelity)
        demand_raises(FidelityError, lambda f=fidelity: evaluator.evaluate_one(encoding, f), fidelity=fidelity)
    if evaluator.fidelities is None:
        return
    lowest, highest = (probe.rows(probe.fresh(probe.encodings, fidelity)) for fidelity in evaluator.fidelities)
    demand_equal(probe.rows(probe.fresh(probe.encodings)), highest, "the answers at the highest fidelity")
    fidelities = np.resize(evaluator.fidelities, len(probe.encodings)).astype(np.int64)
    evaluator.reset_repeats()
    mixed = evaluator.evaluate(Queries(Batch.of(evaluator.space, probe.encodings), fidelities))
    apart = [(lowest, highest)[index % 2][index] for index in range(len(probe.encodings))]
    demand_equal(probe.rows(mixed), apart, "the answers at single fidelities", fidelities=fidelities.tolist())


def _identity_is_a_projection(probe: _EvaluatorProbe) -> None:
    """`identity` returns a legal encoding that is its own identity."""
    for encoding in probe.encodings:
        identity = probe.evaluator.identity(encoding)
        demand_equal(probe.evaluator.space.validate(identity), identity, "a legal encoding", encoding=encoding)
        demand_equal(probe.evaluator.identity(identity), identity, "itself as identity", encoding=encoding)


def _reports_hold_everything(probe: _EvaluatorProbe) -> None:
    """`report` returns floats under the names of metrics, the held-out ones included."""
    metrics = probe.evaluator.metrics
    held_out = {name for name, metric in metrics.items() if metric.held_out}
    for encoding in probe.encodings[:4]:
        report = probe.evaluator.report(encoding)
        complete = held_out <= set(report) <= set(metrics)
        demand(complete, f"metrics with {sorted(held_out)}", tuple(report), encoding=encoding)
        demand(all(isinstance(value, float) for value in report.values()), "floats", report, encoding=encoding)


def _references_are_ordered(probe: _EvaluatorProbe) -> None:
    """`reference` is None or orders best, mean and worst as the metric's direction says."""
    for name, metric in probe.evaluator.metrics.items():
        found = probe.evaluator.reference(name)
        if found is None:
            continue
        sign = 1 if metric.direction == "maximize" else -1
        ordered = sign * found.best >= sign * found.mean >= sign * found.worst
        demand(ordered, f"an order for {metric.direction}", found, metric=name)


def _failed_queries_have_a_cost(probe: _EvaluatorProbe) -> None:
    """`mean_cost` is a finite number of seconds of at least 0 at every fidelity."""
    for fidelity in probe.fidelities:
        cost = probe.evaluator.mean_cost(fidelity)
        demand(isinstance(cost, float) and math.isfinite(cost) and cost >= 0, "a cost", cost, fidelity=fidelity)


EVALUATOR_RULES: tuple[Callable[[_EvaluatorProbe], None], ...] = (
    _evaluator_is_described,
    _answers_are_columns,
    _failures_are_data,
    _one_equals_a_batch,
    _order_does_not_matter,
    _repeats_follow_the_declaration,
    _fidelities_are_checked,
    _identity_is_a_projection,
    _reports_hold_everything,
    _references_are_ordered,
    _failed_queries_have_a_cost,
)
"""Rules of `check_evaluator`, in order."""


def check_evaluator(
    evaluator: Evaluator,
    rng: np.random.Generator | None = None,
    samples: int = 16,
    measured: Collection[str] = (),
) -> None:
    """Check an evaluator against the contract of `Evaluator`.

    Rules: space, metrics and fidelities described; columnar answers of the right types; failures as data; single
    and batched answers equal; independence of order and batching; determinism as declared; fidelities checked, mixed
    and defaulted; idempotent identity; reports with held-out metrics; ordered references; a cost of failed queries.

    Args:
        evaluator: the evaluator to check; its repeat counters are reset.
        rng: draws the architectures; a fixed seed by default.
        samples: number of architectures, each of which is evaluated about twenty times.
        measured: metrics, or ``"cost_seconds"``, that a clock measures and that therefore never repeat exactly.

    Raises:
        ContractViolation: naming the broken rule and its witness.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    check_rules(EVALUATOR_RULES, _EvaluatorProbe(evaluator, new_seed(rng), samples, frozenset(measured)))
