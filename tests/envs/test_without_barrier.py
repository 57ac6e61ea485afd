"""`advance` and `collect`: equal to `step` in every value, exact budgets with episodes in flight, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import CONV, POOL, STOP, ToySpace

from nas_gym.envs.core.construction import ConstructionVectorEnv
from nas_gym.envs.core.counter import REPEAT_QUERIES
from nas_gym.envs.core.observations import OBSERVATIONS
from nas_gym.errors import BudgetExhausted, EpisodeOver, InvalidAction, InvalidArgument
from nas_gym.evaluators.core import Evaluation, Evaluations, Evaluator, Queries, Status
from nas_gym.evaluators.decorators import Decorator
from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.objectives import Accuracy
from nas_gym.search_spaces import Encoding
from nas_gym.testing import difference

SPACE = ToySpace()

every_repeat_query = pytest.mark.parametrize("repeat_query", REPEAT_QUERIES)


class HalfFailing(SyntheticEvaluator):
    """Fails for every architecture whose decisions add up to an odd number, and says why."""

    def evaluate(self, queries: Queries) -> Evaluations:
        return Evaluations.of([self.evaluate_one(row) for row in queries.rows], self.search_metrics)

    def evaluate_one(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> Evaluation:
        if sum(encoding) % 2 == 0:
            return super().evaluate_one(encoding, fidelity, parent)
        metrics = dict.fromkeys(self.search_metrics, float("nan"))
        return Evaluation(Status.DIVERGED, metrics, 2.5, f"the decisions of {encoding} add up to an odd number")


class Held(HalfFailing):
    """Answers submitted queries when it is released, in a given order of their positions."""

    def __init__(self) -> None:
        super().__init__(SPACE)
        self.deterministic = False
        self.given: list[tuple[int, Encoding]] = []
        self.released: list[tuple[int, Evaluation]] = []
        self.timeouts: list[float | None] = []

    def submit(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> int:
        self.given.append((next(self._tickets), encoding))
        return self.given[-1][0]

    def release(self, *positions: int) -> None:
        """Finish some of the queries in flight."""
        chosen = [self.given[position] for position in positions]
        self.given = [query for query in self.given if query not in chosen]
        self.released += [(ticket, self.evaluate_one(encoding)) for ticket, encoding in chosen]

    def collect(self, timeout: float | None = None) -> list[tuple[int, Evaluation]]:
        self.timeouts.append(timeout)
        ready, self.released = self.released, []
        return ready


def make(num_envs: int = 1, evaluator: Evaluator | None = None, mode: str = "Disabled", **kwargs: Any) -> Any:
    """Return environments over the toy space."""
    evaluator = HalfFailing(SPACE) if evaluator is None else evaluator
    return ConstructionVectorEnv(SPACE, evaluator, Accuracy(), num_envs=num_envs, autoreset_mode=mode, **kwargs)


def choose(number: int, mask: npt.NDArray[np.bool_]) -> int:
    """Return a legal action for numbers below 16, else 16 + any action."""
    legal = np.flatnonzero(mask)
    return int(legal[number % len(legal)]) if number < 16 else number - 16


def build(envs: ConstructionVectorEnv, *encodings: Encoding) -> None:
    """Begin all sub-environments, and build one architecture in each, without collecting any."""
    envs.reset()
    for row, encoding in enumerate(encodings):
        go_on(envs, row, encoding)


def go_on(envs: ConstructionVectorEnv, row: int, encoding: Encoding) -> None:
    """Take decisions in one sub-environment."""
    selected = np.arange(envs.num_envs) == row
    for choice in encoding:
        envs.advance(np.full(envs.num_envs, choice), selected)


numbers = st.lists(st.integers(0, 15 + SPACE.max_choices), min_size=1, max_size=40)
FIRST, SECOND, THIRD = (POOL, STOP), (CONV, 0, STOP), (CONV, 1, STOP)


class TestEqualsStep:
    """Without a barrier the same happens as with one."""

    @settings(max_examples=60)
    @given(numbers=numbers, observation=st.sampled_from(list(OBSERVATIONS)), repeat=st.sampled_from(REPEAT_QUERIES))
    def test_one_episode_after_the_other(self, numbers: list[int], observation: str, repeat: str) -> None:
        """Observations, masks, rewards, ends and infos of single episodes equal those of `step`."""
        mine, theirs = (make(observation=observation, repeat_query=repeat) for _ in range(2))
        assert difference(mine.reset(seed=0), theirs.reset(seed=0)) is None
        for number in numbers:
            action = [choose(number, mine.action_masks()[0])]
            found, expected = mine.advance(action), theirs.step(action)
            if not expected[2][0]:
                assert difference(found, (expected[0], expected[4])) is None
                continue
            collected = mine.collect()
            assert collected[4].pop("completion_order") == [0]
            assert difference(collected, expected) is None
            mine.reset(), theirs.reset()

    @settings(max_examples=60)
    @given(numbers=numbers)
    def test_counts(self, numbers: list[int]) -> None:
        """The counter holds the same steps, queries, architectures and seconds."""
        mine, theirs = make(), make()
        mine.reset(), theirs.reset()
        for number in numbers:
            action = [choose(number, mine.action_masks()[0])]
            mine.advance(action)
            if theirs.step(action)[2][0]:
                mine.collect()
                mine.reset(), theirs.reset()
        fields = ("environment_steps", "queries", "unique_architectures", "simulated_seconds")
        left, right = mine.counter.usage(), theirs.counter.usage()
        assert [getattr(left, name) for name in fields] == [getattr(right, name) for name in fields]

    @settings(max_examples=60)
    @given(numbers=numbers, count=st.integers(1, 4), seed=st.integers(0, 2**32))
    def test_many_episodes_in_flight(self, numbers: list[int], count: int, seed: int) -> None:
        """Whichever rows go on and in whatever order evaluations complete, every row sees what it sees alone."""
        rng = np.random.default_rng(seed)
        held = Held()
        envs = make(count, held, repeat_query="resample+charge")
        alone = [make() for _ in range(count)]
        envs.reset()
        for env in alone:
            env.reset()
        for number in numbers:
            free = [row for row in range(count) if row not in envs.waiting]
            if free:
                row = int(rng.choice(free))
                action = choose(number, envs.action_masks()[row])
                observations, info = envs.advance(np.full(count, action), np.arange(count) == row)
                expected = alone[row].step([action])
                assert (
                    difference(
                        (observations[row], info["action_mask"][row]), (expected[0][0], expected[4]["action_mask"][0])
                    )
                    is None
                )
                alone[row].outcome = expected
            held.release(*rng.permutation(len(held.given))[: rng.integers(0, len(held.given) + 1)].tolist())
            observations, rewards, terminated, truncated, info = envs.collect()
            for row in info.get("completion_order", ()):
                expected = alone[row].outcome
                found = [part[[row]] for part in (observations, rewards, terminated, truncated)]
                assert difference([*found, only(info, row)], [*expected[:4], expected[4]]) is None
                alone[row].reset()
            if done := info.get("completion_order"):
                envs.reset(options={"reset_mask": np.isin(np.arange(count), done)})


def only(info: dict[str, Any], row: int) -> dict[str, Any]:
    """Return the info of one row as that of a single sub-environment; absent values are left out."""
    found: dict[str, Any] = {}
    for name, value in info.items():
        if name.startswith("_") or name == "completion_order" or not info[f"_{name}"][row]:
            continue
        found[name] = only(value, row) if isinstance(value, dict) else value[[row]]
        found[f"_{name}"] = info[f"_{name}"][[row]]
    return found


class TestWaiting:
    """Sub-environments whose outcome is awaited."""

    def test_complete_architectures_wait(self) -> None:
        """A row waits from its last decision until its outcome is collected."""
        held = Held()
        envs = make(3, held, repeat_query="resample+charge")
        build(envs, FIRST, SECOND, (CONV,))
        before = envs.waiting
        held.release(1)
        envs.collect()
        assert (before, envs.waiting) == ([0, 1], [0])

    def test_illegal_actions_wait_for_nothing(self) -> None:
        """An episode ended by an illegal action is collected while others are worked on."""
        envs = make(2, Held(), repeat_query="resample+charge")
        build(envs, FIRST, (POOL, POOL))
        info = envs.collect()[4]
        assert (info["completion_order"], info["status"][1]) == ([1], "invalid_action")

    def test_waiting_rows_are_not_terminated(self) -> None:
        """Only rows whose outcome was collected are terminated."""
        held = Held()
        envs = make(2, held, repeat_query="resample+charge")
        build(envs, FIRST, SECOND)
        held.release(1)
        assert envs.collect()[2].tolist() == [False, True]

    def test_outcomes_stay_with_their_rows(self) -> None:
        """When all complete at once, but in another order, the infos are those of their rows."""
        held = Held()
        envs = make(3, held, repeat_query="resample+charge")
        build(envs, FIRST, SECOND, THIRD)
        held.release(2, 0, 1)
        info = envs.collect()[4]
        assert (info["encoding"].tolist(), info["completion_order"]) == ([FIRST, SECOND, THIRD], [2, 0, 1])

    def test_nothing_ready_is_an_empty_outcome(self) -> None:
        """After a timeout there are masks, and nothing else."""
        envs = make(1, Held(), repeat_query="resample+charge")
        build(envs, FIRST)
        _, rewards, terminated, _, info = envs.collect(0.0)
        assert (rewards.tolist(), terminated.tolist(), set(info)) == ([0.0], [False], {"action_mask", "_action_mask"})

    def test_the_timeout_reaches_the_evaluator(self) -> None:
        """`collect` waits as long as it is told."""
        held = Held()
        envs = make(1, held, repeat_query="resample+charge")
        build(envs, FIRST)
        envs.collect(0.25)
        assert held.timeouts == [0.25]

    def test_advancing_leaves_waiting_rows_alone(self) -> None:
        """Actions for rows that wait are ignored and uncounted."""
        envs = make(2, Held(), repeat_query="resample+charge")
        build(envs, FIRST)
        steps = envs.counter.environment_steps
        envs.advance([CONV, CONV])
        assert (envs.counter.environment_steps, envs.get_state().lengths.tolist()) == (steps + 1, [2, 1])

    def test_unselected_rows_stay(self) -> None:
        """Rows that are not selected ignore their actions."""
        envs = make(2)
        envs.reset()
        envs.advance([CONV, CONV], np.array([False, True]))
        assert envs.get_state().lengths.tolist() == [0, 1]

    def test_a_waiting_row_refuses_its_reset(self) -> None:
        """An architecture in flight must not be overwritten."""
        envs = make(2, Held(), repeat_query="resample+charge")
        build(envs, FIRST)
        with pytest.raises(InvalidArgument, match=r"\[0\] wait"):
            envs.reset()

    def test_other_rows_are_reset_meanwhile(self) -> None:
        """A partial reset beside a waiting row works."""
        envs = make(2, Held(), repeat_query="resample+charge")
        build(envs, FIRST, (CONV,))
        envs.reset(options={"reset_mask": np.array([False, True])})
        assert envs.get_state().lengths.tolist() == [2, 0]

    def test_waiting_rows_refuse_a_step(self) -> None:
        """A step would need all outcomes."""
        envs = make(2, Held(), repeat_query="resample+charge")
        build(envs, FIRST)
        with pytest.raises(EpisodeOver, match=r"\[0\] wait"):
            envs.step([0, CONV])

    def test_waiting_rows_refuse_a_state(self) -> None:
        """A restored state would give an answer to another architecture."""
        envs = make(2, Held(), repeat_query="resample+charge")
        state = envs.get_state()
        build(envs, FIRST)
        with pytest.raises(EpisodeOver, match=r"\[0\] wait"):
            envs.set_state(state)

    def test_synchronous_evaluators_make_nobody_wait(self) -> None:
        """An evaluator that answers at once is collected with no time to wait."""
        envs = make(2)
        build(envs, FIRST, SECOND)
        assert envs.collect(0.0)[4]["completion_order"] == [0, 1]

    def test_a_wrapped_evaluator_answers(self) -> None:
        """A decorator put around the evaluator is asked from then on, with and without a barrier."""

        class Free(Decorator):
            def evaluate(self, queries: Queries) -> Evaluations:
                found = self.inner.evaluate(queries)
                return Evaluations(found.status, found.metrics, np.zeros(len(found)))

        envs = make()
        envs.wrap_evaluator(Free)
        build(envs, FIRST)
        without = envs.collect()[4]["cost_seconds"][0]
        envs.reset()
        envs.step([POOL])
        assert (without, envs.step([STOP])[4]["cost_seconds"][0]) == (0.0, 0.0)


class TestBudget:
    """Queries in flight are spoken for."""

    @every_repeat_query
    def test_no_more_is_submitted_than_is_left(self, repeat_query: str) -> None:
        """With a budget of two, a third architecture is refused while two are in flight."""
        envs = make(3, Held(), repeat_query=repeat_query)
        envs.counter.budget = 2
        with pytest.raises(BudgetExhausted, match="budget of 2"):
            build(envs, FIRST, SECOND, THIRD)
        assert envs.waiting == [0, 1]

    @every_repeat_query
    def test_illegal_actions_are_spoken_for_too(self, repeat_query: str) -> None:
        """An episode ended by an illegal action takes a query before it is collected."""
        envs = make(2, Held(), repeat_query=repeat_query)
        envs.counter.budget = 1
        with pytest.raises(BudgetExhausted):
            build(envs, (POOL, POOL), SECOND)
        assert envs.waiting == [0]

    @every_repeat_query
    @settings(max_examples=40)
    @given(seed=st.integers(0, 2**32), budget=st.integers(1, 12), count=st.integers(1, 4))
    def test_it_is_never_exceeded(self, repeat_query: str, seed: int, budget: int, count: int) -> None:
        """However submissions and outcomes interleave, charged queries and those in flight stay within the budget."""
        rng = np.random.default_rng(seed)
        held = Held()
        envs = make(count, held, repeat_query=repeat_query)
        envs.counter.budget = budget
        envs.reset()
        for _ in range(60):
            free = [row for row in range(count) if row not in envs.waiting]
            if free:
                row = int(rng.choice(free))
                if envs.get_state().over[row]:
                    envs.reset(options={"reset_mask": np.arange(count) == row} if count > 1 else None)
                try:
                    go_on(envs, row, (FIRST, SECOND, (POOL, POOL))[rng.integers(3)])
                except BudgetExhausted:
                    assert envs.counter.queries + len(envs.waiting) >= budget
            held.release(*rng.permutation(len(held.given))[: rng.integers(0, len(held.given) + 1)].tolist())
            envs.collect()
            assert envs.counter.queries + len(envs.waiting) <= budget

    def test_free_repeats_give_their_place_back(self) -> None:
        """Where repeats are free, a repeat that was in flight leaves its query to another."""
        envs = make(2, repeat_query="cache+free")
        envs.counter.budget = 2
        build(envs, FIRST, FIRST)
        envs.collect()
        build(envs, SECOND)
        envs.collect()
        assert envs.counter.queries == 2

    def test_steps_taken_keep_their_masks(self) -> None:
        """After the exception the other rows go on, with the masks of their prefixes."""
        envs = make(2, Held())
        envs.counter.budget = 1
        build(envs, FIRST)
        envs.advance([0, POOL])
        with pytest.raises(BudgetExhausted):
            envs.advance([0, STOP])
        envs.counter.budget = 2
        envs.reset(options={"reset_mask": np.array([False, True])})
        assert envs.action_masks()[1].tolist() == [False, True, True, False]


class TestBadInput:
    """What is refused."""

    @pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
    def test_other_modes_raise(self, mode: str) -> None:
        """Environments that reset themselves cannot wait for outcomes."""
        envs = make(mode=mode)
        envs.reset()
        with pytest.raises(InvalidArgument, match="Disabled"):
            envs.advance([CONV])

    def test_advancing_before_the_first_reset_raises(self) -> None:
        """Episodes must be begun."""
        with pytest.raises(EpisodeOver, match="reset"):
            make().advance([CONV])

    @pytest.mark.parametrize(
        "actions",
        [[0], [0, 0, 0], [0.0, 1.0], [True, False], [0, -1], [0, 4]],
        ids=["too few", "too many", "floats", "booleans", "negative", "beyond"],
    )
    def test_actions_outside_the_space_raise(self, actions: object) -> None:
        """Malformed actions raise before anything is stepped."""
        envs = make(2)
        envs.reset()
        with pytest.raises(InvalidAction, match="integers"):
            envs.advance(actions)
        assert envs.counter.environment_steps == 0

    @pytest.mark.parametrize(
        "rows",
        [[True, False], np.array([1, 0]), np.array([True])],
        ids=["list", "integers", "too short"],
    )
    def test_a_malformed_selection_raises(self, rows: object) -> None:
        """Rows are selected by a boolean array of the right shape."""
        envs = make(2)
        envs.reset()
        with pytest.raises(InvalidArgument, match="rows must be a boolean array"):
            envs.advance([CONV, CONV], rows)
