"""Decorators, and asking without waiting: answers, tickets, memory, resumption, simulated workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import CONV, POOL, STOP, ToySpace

from nas_gym.errors import FidelityError, InvalidArgument, ResumeError
from nas_gym.evaluators.core import Evaluation, Evaluations, Evaluator, Queries, Status
from nas_gym.evaluators.decorators import Cached, Decorator, Recorded, Replayed, SimulatedWorkers
from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.evaluators.tabular import TabularEvaluator
from nas_gym.search_spaces import Encoding
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

SPACE = ToySpace()
CELLS = NASBench201Space()
FIRST, SECOND, THIRD, FOURTH = (POOL, STOP), (CONV, 0, STOP), (CONV, 1, STOP), (CONV, 2, STOP)
# The first three cells are isomorphic: they share their noise, not their answer.
FEW = ((1, 0, 0, 1, 2, 2), (1, 0, 0, 2, 1, 2), (2, 0, 0, 1, 1, 2), (3, 3, 3, 3, 3, 3))


class Later(SyntheticEvaluator):
    """Answers submitted queries when collected, last one first, and writes down what it is asked and recalls."""

    def __init__(self, status: Status = Status.OK) -> None:
        super().__init__(SPACE)
        self.status = status
        self.asked: list[Encoding] = []
        self.recalled: list[Encoding] = []
        self.given: list[tuple[int, Encoding]] = []
        self.closed = False

    @property
    def slots(self) -> int:
        return 4

    def evaluate(self, queries: Queries) -> Evaluations:
        return Evaluations.of([self.evaluate_one(row) for row in queries.rows], self.search_metrics)

    def evaluate_one(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> Evaluation:
        self.asked.append(encoding)
        return super().evaluate_one(encoding)._replace(status=self.status)

    def submit(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> int:
        self.given.append((next(self._tickets), encoding))
        return self.given[-1][0]

    def collect(self, timeout: float | None = None) -> list[tuple[int, Evaluation]]:
        answers = [(ticket, self.evaluate_one(encoding)) for ticket, encoding in reversed(self.given)]
        self.given.clear()
        return answers

    def recall(self, encoding: Encoding, fidelity: int | None, evaluation: Evaluation) -> None:
        self.recalled.append(encoding)

    def close(self) -> None:
        self.closed = True


class Costed(SyntheticEvaluator):
    """Costs what it is told."""

    def __init__(self, costs: Mapping[Encoding, float]) -> None:
        super().__init__(SPACE)
        self.costs = costs

    def evaluate_one(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> Evaluation:
        return super().evaluate_one(encoding)._replace(cost_seconds=self.costs[encoding])


def noisy(table: Path, cached: bool) -> Evaluator:
    """Return an evaluator whose answers depend on the number of the repeat."""
    evaluator = TabularEvaluator(CELLS, str(table), noise="sample")
    return Cached(evaluator) if cached else evaluator


def columns(answers: Evaluations) -> list[Evaluation]:
    """Return the rows of a batch."""
    return [answers.row(index) for index in range(len(answers))]


class TestDefaults:
    """`submit` and `collect` of an evaluator that answers at once."""

    @pytest.mark.parametrize(
        "make",
        [
            pytest.param(lambda table: SyntheticEvaluator(CELLS), id="synthetic"),
            pytest.param(lambda table: TabularEvaluator(CELLS, str(table)), id="mean"),
            pytest.param(lambda table: TabularEvaluator(CELLS, str(table), noise="sample"), id="sample"),
            pytest.param(lambda table: Decorator(SyntheticEvaluator(CELLS)), id="decorator"),
        ],
    )
    def test_a_submitted_query_gets_the_answer_of_one(
        self, make: Callable[[Path], Evaluator], small_table: Path
    ) -> None:
        """Submitting and collecting gives what `evaluate_one` gives, in the order of submission, without waiting."""
        asynchronous, direct = make(small_table), make(small_table)
        tickets = [asynchronous.submit(cell) for cell in FEW]
        assert asynchronous.collect(0.0) == list(zip(tickets, map(direct.evaluate_one, FEW), strict=True))

    def test_an_answer_is_collected_once(self) -> None:
        """What was collected does not come again."""
        evaluator = SyntheticEvaluator(SPACE)
        evaluator.submit(FIRST)
        evaluator.collect()
        assert evaluator.collect() == []

    def test_fidelities_are_checked_at_once(self, small_table: Path) -> None:
        """A fidelity that cannot be answered raises at submission and leaves nothing to collect."""
        evaluator = TabularEvaluator(CELLS, str(small_table))
        with pytest.raises(FidelityError, match="fidelity must be"):
            evaluator.submit(FEW[0], 99)
        assert evaluator.collect() == []

    def test_one_slot(self) -> None:
        """An evaluator works on one query at a time unless it says otherwise."""
        assert SyntheticEvaluator(SPACE).slots == 1

    def test_closing_twice_is_harmless(self) -> None:
        """There is nothing to release, however often."""
        evaluator = SyntheticEvaluator(SPACE)
        evaluator.close()
        evaluator.close()


every_decorator = pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(Decorator, id="decorator"),
        pytest.param(Cached, id="cached"),
        pytest.param(lambda inner: Replayed(inner, []), id="replayed"),
        pytest.param(lambda inner: SimulatedWorkers(inner, 4), id="simulated workers"),
    ],
)


class TestEveryDecorator:
    """What is passed on."""

    @every_decorator
    def test_answers_are_those_of_the_evaluator_inside(self, wrap: Callable[[Evaluator], Evaluator]) -> None:
        """A decorated batch gives the same rows."""
        queries = Queries.of(SPACE, [FIRST, SECOND, FIRST, THIRD])
        assert columns(wrap(Later()).evaluate(queries)) == columns(Later().evaluate(queries))

    @every_decorator
    def test_closing_closes_the_evaluator_inside(self, wrap: Callable[[Evaluator], Evaluator]) -> None:
        """Workers and files of the evaluator inside are released."""
        inner = Later()
        wrap(inner).close()
        assert inner.closed

    @every_decorator
    def test_slots(self, wrap: Callable[[Evaluator], Evaluator]) -> None:
        """There are as many slots as inside."""
        assert wrap(Later()).slots == 4

    @every_decorator
    def test_recall_reaches_the_evaluator_inside(self, wrap: Callable[[Evaluator], Evaluator]) -> None:
        """An answer of an earlier process is known inside too."""
        inner = Later()
        wrap(inner).recall(FIRST, None, inner.evaluate_one(FIRST))
        assert inner.recalled == [FIRST]

    @every_decorator
    def test_reports_pass_through(self, wrap: Callable[[Evaluator], Evaluator]) -> None:
        """Held-out metrics, mean costs and identities are those inside."""
        wrapped, inner = wrap(Later()), Later()
        assert (wrapped.report(SECOND), wrapped.mean_cost(), wrapped.identity(SECOND)) == (
            inner.report(SECOND),
            inner.mean_cost(),
            inner.identity(SECOND),
        )


class TestCached:
    """Memory for queries without waiting."""

    def test_identical_queries_in_flight_are_asked_once(self) -> None:
        """Three tickets for two architectures reach the evaluator as two queries."""
        inner = Later()
        cached = Cached(inner)
        for encoding in (FIRST, SECOND, FIRST):
            cached.submit(encoding)
        cached.collect()
        assert inner.asked == [SECOND, FIRST]

    def test_every_ticket_in_flight_is_answered(self) -> None:
        """Queries asked once are answered under each of their tickets."""
        cached = Cached(Later())
        tickets = [cached.submit(encoding) for encoding in (FIRST, SECOND, FIRST)]
        answers = dict(cached.collect())
        assert [answers[ticket] for ticket in tickets] == [Later().evaluate_one(e) for e in (FIRST, SECOND, FIRST)]

    def test_answers_are_remembered(self) -> None:
        """A query answered before comes from memory, whichever way it was asked."""
        inner = Later()
        cached = Cached(inner)
        cached.submit(FIRST)
        cached.collect()
        cached.evaluate_one(FIRST)
        cached.submit(FIRST)
        cached.collect()
        assert inner.asked == [FIRST]

    def test_remembered_answers_wait_for_nothing(self) -> None:
        """A known answer is collected before one that is still worked on."""
        inner = Later()
        cached = Cached(inner)
        cached.evaluate_one(FIRST)
        cached.submit(SECOND)
        known = cached.submit(FIRST)
        assert [ticket for ticket, _ in cached.collect()] == [known]

    @pytest.mark.parametrize("status", list(Status), ids=lambda status: status.label)
    def test_transient_failures_are_not_remembered(self, status: Status) -> None:
        """A query is asked again exactly if its failure may not happen again."""
        inner = Later(status)
        cached = Cached(inner)
        for _ in range(2):
            cached.submit(FIRST)
            cached.collect()
        assert len(inner.asked) == (2 if status.transient else 1)

    @pytest.mark.parametrize("status", [Status.DIVERGED, Status.KILLED], ids=lambda status: status.label)
    def test_recalled_answers_count_as_given(self, status: Status) -> None:
        """A recalled answer is remembered unless it is transient."""
        inner = Later()
        cached = Cached(inner)
        cached.recall(FIRST, None, inner.evaluate_one(FIRST)._replace(status=status))
        inner.asked.clear()
        assert (cached.evaluate_one(FIRST).status, inner.asked) == (
            (Status.OK, [FIRST]) if status.transient else (status, [])
        )

    def test_what_was_not_asked_inside_is_not_recalled_there(self) -> None:
        """Of an architecture that came twice, the evaluator inside was asked once, and recalls it once."""
        inner = Later()
        cached = Cached(inner)
        for _ in range(2):
            cached.recall(FIRST, None, inner.evaluate_one(FIRST))
        assert inner.recalled == [FIRST]

    def test_the_highest_fidelity_is_the_default_one(self, small_table: Path) -> None:
        """Without a fidelity and at the highest one, a submitted query is the same."""
        cached = noisy(small_table, cached=True)
        for fidelity in (None, 4):
            cached.submit(FEW[0], fidelity)
        first, second = cached.collect()
        assert first[1] == second[1]

    def test_resetting_forgets(self) -> None:
        """After `reset_repeats` everything is asked anew."""
        inner = Later()
        cached = Cached(inner)
        cached.evaluate_one(FIRST)
        cached.reset_repeats()
        cached.evaluate_one(FIRST)
        assert inner.asked == [FIRST, FIRST]


def record(encodings: Sequence[Encoding], status: Status = Status.DIVERGED) -> list[Recorded]:
    """Return a record whose answers are told from fresh ones by their status."""
    return [Recorded(encoding, Evaluation(status, {"valid_accuracy": 0.5}, 7.0, "recorded")) for encoding in encodings]


class TestReplayed:
    """Going on with the queries of an earlier process."""

    def test_recorded_queries_are_not_asked(self) -> None:
        """The first answers come from the record, submitted or not."""
        inner = Later()
        replayed = Replayed(inner, record([FIRST, SECOND]))
        ticket = replayed.submit(FIRST)
        ((collected, first),) = replayed.collect()
        second = replayed.evaluate_one(SECOND)
        assert (collected, first.message, second.message, inner.asked) == (ticket, "recorded", "recorded", [])

    def test_a_batch_may_be_half_recorded(self) -> None:
        """The first rows of a batch come from the record, the others from the evaluator inside, in one batch."""
        inner = Later()
        found = Replayed(inner, record([FIRST, SECOND])).evaluate(Queries.of(SPACE, [FIRST, SECOND, THIRD, FOURTH]))
        assert (found.status.tolist(), inner.asked) == ([4, 4, 0, 0], [THIRD, FOURTH])

    def test_messages_stay_with_their_rows(self) -> None:
        """The messages of recorded rows are in the batch."""
        found = Replayed(Later(), record([FIRST])).evaluate(Queries.of(SPACE, [FIRST, SECOND]))
        assert dict(found.messages) == {0: "recorded"}

    def test_later_submissions_keep_their_tickets(self) -> None:
        """Behind the record, answers of the evaluator inside come under the tickets given out."""
        replayed = Replayed(Later(), record([FIRST]))
        tickets = [replayed.submit(encoding) for encoding in (FIRST, SECOND, THIRD)]
        answers = dict(replayed.collect() + replayed.collect())
        assert [answers[ticket].metrics for ticket in tickets[1:]] == [
            Later().evaluate_one(encoding).metrics for encoding in (SECOND, THIRD)
        ]

    @pytest.mark.parametrize("way", ["submit", "evaluate_one"])
    def test_another_query_than_the_recorded_one_is_an_error(self, way: str) -> None:
        """A search that takes another course than its record is refused."""
        replayed = Replayed(Later(), record([FIRST]))
        with pytest.raises(ResumeError, match=r"\[1, 0, 0\] where the record has \[2, 0\]"):
            getattr(replayed, way)(SECOND)

    def test_the_evaluator_inside_recalls_every_answer(self) -> None:
        """All recorded queries are made known inside, in order."""
        inner = Later()
        Replayed(inner, record([FIRST, SECOND, FIRST])).evaluate(Queries.of(SPACE, [FIRST, SECOND, FIRST]))
        assert inner.recalled == [FIRST, SECOND, FIRST]

    @pytest.mark.parametrize("cached", [False, True], ids=["resampled", "cached"])
    @settings(max_examples=60)
    @given(data=st.data())
    def test_later_answers_equal_those_of_one_process(
        self, data: st.DataObject, cached: bool, small_table: Path
    ) -> None:
        """Wherever a stream of noisy queries is cut, its rest is answered as if it had not been cut."""
        query = st.tuples(st.sampled_from(FEW), st.sampled_from((2, 4)))
        queries = data.draw(st.lists(query, min_size=1, max_size=16))
        cut = data.draw(st.integers(0, len(queries)))
        size = data.draw(st.integers(1, 5))
        ways = data.draw(st.lists(st.booleans(), min_size=16, max_size=16))

        def ask(evaluator: Evaluator) -> list[Evaluation]:
            found: list[Evaluation] = []
            for number, start in enumerate(range(0, len(queries), size)):
                part = queries[start : start + size]
                if ways[number]:
                    tickets = [evaluator.submit(*one) for one in part]
                    answers: dict[int, Evaluation] = {}
                    while len(answers) < len(tickets):
                        answers |= dict(evaluator.collect())
                    found += [answers[ticket] for ticket in tickets]
                else:
                    encodings, fidelities = zip(*part, strict=True)
                    batch = Queries.of(CELLS, encodings).batch
                    found += columns(evaluator.evaluate(Queries(batch, np.array(fidelities, np.int64))))
            return found

        expected = ask(noisy(small_table, cached))
        before = [Recorded(encoding, answer) for (encoding, _), answer in zip(queries, expected, strict=True)][:cut]
        assert ask(Replayed(noisy(small_table, cached), before)) == expected


class TestSimulatedWorkers:
    """Schedules worked out by hand."""

    COSTS: Mapping[Encoding, float] = {FIRST: 3.0, SECOND: 1.0, THIRD: 1.5, FOURTH: 2.0}

    def submit(self, workers: int) -> tuple[SimulatedWorkers, dict[int, Encoding]]:
        """Submit all four architectures at time 0."""
        simulated = SimulatedWorkers(Costed(self.COSTS), workers)
        return simulated, {simulated.submit(encoding): encoding for encoding in self.COSTS}

    @pytest.mark.parametrize(
        ("workers", "schedule"),
        [
            (1, [(3.0, FIRST), (4.0, SECOND), (5.5, THIRD), (7.5, FOURTH)]),
            (2, [(1.0, SECOND), (2.5, THIRD), (3.0, FIRST), (4.5, FOURTH)]),
            (3, [(1.0, SECOND), (1.5, THIRD), (3.0, FIRST), (3.0, FOURTH)]),
            (4, [(1.0, SECOND), (1.5, THIRD), (2.0, FOURTH), (3.0, FIRST)]),
        ],
        ids=["one", "two", "three", "four"],
    )
    def test_answers_come_when_workers_finish(self, workers: int, schedule: list[tuple[float, Encoding]]) -> None:
        """Each query starts at the worker that is free first; ties are in the order of submission."""
        simulated, encodings = self.submit(workers)
        found = []
        while answers := simulated.collect():
            found += [(simulated.clock, encodings[ticket]) for ticket, _ in answers]
        assert found == schedule

    def test_a_worker_that_waited_starts_now(self) -> None:
        """A query submitted at time 1 to an idle worker ends its cost later, not at its cost."""
        simulated = SimulatedWorkers(Costed(self.COSTS), 2)
        simulated.submit(SECOND)
        simulated.collect()
        simulated.submit(THIRD)
        simulated.collect()
        assert simulated.clock == 2.5

    @pytest.mark.parametrize(("collected", "expected"), [(0, 0.0), (1, 1.0), (2, 1.0), (3, 1.0), (4, 7.5 / 9)])
    def test_utilisation_counts_what_was_worked_so_far(self, collected: int, expected: float) -> None:
        """Work that lies ahead of the clock is not counted yet."""
        simulated, _ = self.submit(2)
        for _ in range(collected):
            simulated.collect()
        assert simulated.utilisation == pytest.approx(expected)

    def test_a_batch_waits_for_its_slowest(self) -> None:
        """Synchronous batches of two on two workers leave one idle after the shorter query."""
        simulated = SimulatedWorkers(Costed(self.COSTS), 2)
        for batch in ([FIRST, SECOND], [THIRD, FOURTH]):
            simulated.evaluate(Queries.of(SPACE, batch))
        assert (simulated.clock, simulated.utilisation) == (5.0, 0.75)

    def test_a_batch_keeps_the_order_of_its_rows(self) -> None:
        """Answers are in the order of the queries, not of their completion."""
        found = SimulatedWorkers(Costed(self.COSTS), 4).evaluate(Queries.of(SPACE, list(self.COSTS)))
        assert found.cost_seconds.tolist() == list(self.COSTS.values())

    def test_parents_are_passed_on(self) -> None:
        """The weights that a child starts from reach the evaluator inside."""

        class Parents(SyntheticEvaluator):
            def evaluate_one(
                self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None
            ) -> Evaluation:
                return super().evaluate_one(encoding)._replace(message=str(parent))

        queries = Queries(Queries.of(SPACE, [FIRST, SECOND]).batch, None, ["abc", None])
        found = SimulatedWorkers(Parents(SPACE), 2).evaluate(queries)
        assert dict(found.messages) == {0: "abc", 1: "None"}

    def test_nothing_in_flight_is_nothing_to_collect(self) -> None:
        """Collecting without a query returns at once."""
        assert SimulatedWorkers(Costed(self.COSTS), 2).collect() == []

    @pytest.mark.parametrize("workers", [0, -1])
    def test_at_least_one_worker(self, workers: int) -> None:
        """No worker is refused."""
        with pytest.raises(InvalidArgument, match="workers must be at least 1"):
            SimulatedWorkers(Costed(self.COSTS), workers)
