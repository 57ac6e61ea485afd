"""The counter: what is charged, what is unique, where a budget ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import POOL, STOP, ToySpace

from nas_gym.envs.cell import CellEnv, CellVectorEnv
from nas_gym.envs.core.construction import ConstructionEnv, ConstructionVectorEnv
from nas_gym.envs.core.counter import REPEAT_QUERIES, Counter
from nas_gym.errors import BudgetExhausted, InvalidArgument
from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.objectives import Accuracy
from nas_gym.search_spaces import Batch, Encoding, SearchSpace
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

SPACES: list[SearchSpace] = [ToySpace(), NASBench201Space()]
every_space = pytest.mark.parametrize("space", SPACES, ids=[space.name for space in SPACES])
every_mode = pytest.mark.parametrize("repeat_query", REPEAT_QUERIES)

ISOMORPHIC: tuple[Encoding, Encoding] = ((1, 2, 0, 0, 0, 1), (0, 2, 0, 0, 0, 1))


def first_encodings(space: SearchSpace, count: int) -> list[Encoding]:
    """Return encodings of pairwise different classes."""
    rng = np.random.default_rng(1)
    found: dict[Encoding, None] = {}
    while len(found) < count:
        found[space.canonical(space.sample(rng))] = None
    return list(found)


def none_invalid(count: int) -> npt.NDArray[np.bool_]:
    """Return that no row ended with a masked action."""
    return np.zeros(count, np.bool_)


def record(counter: Counter, encodings: list[Encoding], seconds: float = 1.0) -> None:
    """Record a batch of valid queries of equal cost."""
    batch = Batch.of(counter.space, encodings)
    counter.record(batch, none_invalid(len(batch)), np.full(len(batch), seconds))


class TestCharging:
    """Steps, queries, classes, seconds."""

    @every_space
    @every_mode
    def test_new_architectures_are_charged(self, space: SearchSpace, repeat_query: str) -> None:
        """Every mode charges what was not seen before."""
        counter = Counter(space, repeat_query=repeat_query)
        record(counter, first_encodings(space, 5), 2.0)
        assert (counter.queries, counter.unique_architectures, counter.simulated_seconds) == (5, 5, 10.0)

    @every_space
    @pytest.mark.parametrize(("repeat_query", "charged"), list(zip(REPEAT_QUERIES, (4, 4, 2), strict=True)))
    def test_repeats_cost_what_the_mode_says(self, space: SearchSpace, repeat_query: str, charged: int) -> None:
        """Repeats inside one batch and of an earlier batch are free only in the mode "cache+free"."""
        counter = Counter(space, repeat_query=repeat_query)
        one, other = first_encodings(space, 2)
        record(counter, [one, one])
        record(counter, [one, other])
        assert (counter.queries, counter.unique_architectures) == (charged, 2)

    @pytest.mark.parametrize(("repeat_query", "charged"), list(zip(REPEAT_QUERIES, (2, 2, 1), strict=True)))
    def test_isomorphic_architectures_are_one(self, repeat_query: str, charged: int) -> None:
        """Two cells of a class count as one unique architecture, and as a repeat."""
        counter = Counter(NASBench201Space(), repeat_query=repeat_query)
        record(counter, list(ISOMORPHIC))
        assert (counter.queries, counter.unique_architectures) == (charged, 1)

    @every_space
    @every_mode
    def test_one_by_one_counts_like_a_batch(self, space: SearchSpace, repeat_query: str) -> None:
        """Recording single queries gives the counts of recording them together."""
        rng = np.random.default_rng(2)
        encodings = [space.sample(rng) for _ in range(60)]
        single, batched = Counter(space, repeat_query=repeat_query), Counter(space, repeat_query=repeat_query)
        record(batched, encodings)
        for encoding in encodings:
            single.record_one(encoding, 1.0)
        assert (single.queries, single.unique_architectures, single.simulated_seconds) == (
            batched.queries,
            batched.unique_architectures,
            batched.simulated_seconds,
        )

    @every_space
    @every_mode
    def test_invalid_episodes_cost_a_query_and_are_no_architecture(self, space: SearchSpace, repeat_query: str) -> None:
        """A masked action is charged in every mode, each time."""
        counter = Counter(space, repeat_query=repeat_query)
        for _ in range(2):
            counter.record_one((1,), 3.0, invalid=True)
        assert (counter.queries, counter.unique_architectures, counter.simulated_seconds) == (2, 0, 6.0)

    @every_space
    def test_first_seen_knows_what_is_new(self, space: SearchSpace) -> None:
        """A class is new once, in the batch that is asked about and against what was recorded."""
        counter = Counter(space)
        known, fresh = first_encodings(space, 2)
        counter.record_one(known, 1.0)
        assert counter.first_seen([known, fresh, fresh]).tolist() == [False, True, False]

    def test_more_than_a_thousand_single_queries_are_kept(self) -> None:
        """Noting single queries in bulk loses none."""
        space = NASBench201Space()
        counter = Counter(space)
        encodings = first_encodings(space, 2100)
        for encoding in encodings:
            counter.record_one(encoding, 0.0)
        assert counter.unique_architectures == 2100

    def test_a_reset_keeps_the_budget(self) -> None:
        """All counts are zero afterwards."""
        counter = Counter(ToySpace(), budget=7)
        record(counter, first_encodings(counter.space, 2))
        counter.environment_steps = 9
        counter.reset()
        usage = counter.usage()
        assert (usage.environment_steps, usage.queries, usage.unique_architectures, counter.budget) == (0, 0, 0, 7)


class TestBudget:
    """Which rows of a batch are admitted."""

    @every_mode
    @settings(max_examples=60)
    @given(seed=st.integers(0, 2**31), budget=st.integers(1, 12), sizes=st.lists(st.integers(1, 6), max_size=5))
    def test_admitted_rows_fill_the_budget_exactly(
        self, repeat_query: str, seed: int, budget: int, sizes: list[int]
    ) -> None:
        """Rows are admitted in order, as long as charging them stays within the budget, and not a row less."""
        space = ToySpace()
        counter, rng = Counter(space, budget, repeat_query), np.random.default_rng(seed)
        for size in sizes:
            encodings = [space.sample(rng) for _ in range(size)]
            batch, invalid = Batch.of(space, encodings), rng.random(size) < 0.2
            try:
                admitted = counter.admit(batch, invalid)
            except BudgetExhausted:
                admitted = 0
            rows = slice(admitted)
            counter.record(batch.select(rows), invalid[rows], np.ones(admitted))
            assert counter.queries <= budget
            if admitted < size:
                assert counter.queries == budget
                assert invalid[admitted] or repeat_query != "cache+free" or counter.first_seen([encodings[admitted]])[0]

    @every_mode
    def test_a_budget_below_what_was_used_admits_nothing(self, repeat_query: str) -> None:
        """Lowering the budget below the queries so far refuses the next one, alone and in a batch."""
        counter = Counter(ToySpace(), repeat_query=repeat_query)
        *used, fresh = first_encodings(counter.space, 5)
        record(counter, used)
        counter.budget = 2
        with pytest.raises(BudgetExhausted):
            counter.admit_one(fresh)
        with pytest.raises(BudgetExhausted):
            counter.admit(Batch.of(counter.space, [fresh] * 3), none_invalid(3))

    @every_space
    def test_a_repeat_at_another_fidelity_is_not_free(self, space: SearchSpace) -> None:
        """A longer training is another query of the same architecture; the highest fidelity is the default."""
        counter = Counter(space, repeat_query="cache+free", highest_fidelity=6)
        batch = Batch.of(space, first_encodings(space, 3))
        for fidelity in (2, 4, 2, 6, None):
            fidelities = None if fidelity is None else np.full(3, fidelity)
            counter.record(batch, none_invalid(3), np.ones(3), fidelities)
        assert (counter.queries, counter.unique_architectures) == (9, 3)

    def test_free_repeats_pass_an_exhausted_budget(self) -> None:
        """In the mode "cache+free" known architectures go on, a new one does not."""
        counter = Counter(ToySpace(), budget=1, repeat_query="cache+free")
        known, fresh = first_encodings(counter.space, 2)
        record(counter, [known])
        counter.admit_one(known)
        with pytest.raises(BudgetExhausted):
            counter.admit_one(fresh)

    @pytest.mark.parametrize(("budget", "remaining"), [(None, None), (5, 3), (2, 0), (1, 0)])
    def test_remaining_never_falls_below_zero(self, budget: int | None, remaining: int | None) -> None:
        """Queries left, None without a budget."""
        counter = Counter(ToySpace())
        record(counter, first_encodings(counter.space, 2))
        counter.budget = budget
        assert counter.remaining == remaining

    @pytest.mark.parametrize("budget", [0, -3])
    def test_a_budget_below_one_is_refused(self, budget: int) -> None:
        """At construction and later."""
        with pytest.raises(InvalidArgument, match="at least 1"):
            Counter(ToySpace(), budget=budget)

    def test_unknown_modes_are_listed(self) -> None:
        """The message holds the known modes."""
        with pytest.raises(InvalidArgument, match=r"cache\+charge, resample\+charge, cache\+free"):
            Counter(ToySpace(), repeat_query="free")


class TestInsideAnEnvironment:
    """Modes of repeated queries, seen from an environment."""

    @staticmethod
    def rewards(repeat_query: str, table: Path, episodes: int = 12) -> tuple[list[float], CellEnv]:
        """Return the rewards of building one cell again and again on a noisy table."""
        env = CellEnv(table=str(table), noise="sample", repeat_query=repeat_query)
        found = []
        for _ in range(episodes):
            env.reset()
            found.append([env.step(3)[1] for _ in range(6)][-1])
        return found, env

    @pytest.mark.parametrize(
        ("repeat_query", "same", "queries"),
        [("cache+charge", True, 12), ("resample+charge", False, 12), ("cache+free", True, 1)],
        ids=REPEAT_QUERIES,
    )
    def test_repeats_answer_and_cost_as_the_mode_says(
        self, repeat_query: str, same: bool, queries: int, small_table: Path
    ) -> None:
        """A cached repeat gives the first answer, a resampled one draws again; only "cache+free" is free."""
        found, env = self.rewards(repeat_query, small_table)
        assert ((len(set(found)) == 1), env.counter.queries) == (same, queries)

    def test_the_two_spellings_of_the_full_fidelity_are_one_query(self, small_table: Path) -> None:
        """A cached answer to no fidelity is the answer to the highest one."""
        env = CellEnv(table=str(small_table), noise="sample")
        rewards: set[float] = set()
        for options in (None, {"fidelity": 4}) * 4:
            env.reset(options=options)
            rewards.add([env.step(3)[1] for _ in range(6)][-1])
        assert len(rewards) == 1

    @every_mode
    def test_an_invalid_episode_is_charged_the_mean_cost(self, repeat_query: str) -> None:
        """A masked first action costs the evaluator's mean."""
        space = ToySpace()
        env = ConstructionEnv(space, SyntheticEvaluator(space), Accuracy(), repeat_query=repeat_query)
        env.reset()
        env.step(STOP)
        assert env.counter.simulated_seconds == env.evaluator.mean_cost() > 0

    @every_mode
    def test_invalid_rows_are_charged_the_mean_cost_among_valid_ones(self, repeat_query: str) -> None:
        """In a batch of a masked action and a finished chain, each costs its own."""
        space = ToySpace()
        evaluator = SyntheticEvaluator(space)
        envs = ConstructionVectorEnv(space, evaluator, Accuracy(), num_envs=2, repeat_query=repeat_query)
        envs.reset()
        envs.step([POOL, POOL])
        envs.step([POOL, STOP])
        costs = evaluator.mean_cost() + evaluator.evaluate_one((POOL, STOP)).cost_seconds
        assert envs.counter.simulated_seconds == pytest.approx(costs)

    def test_simulated_seconds_add_up(self, small_table: Path) -> None:
        """The counter holds the sum of the costs in the infos."""
        envs = CellVectorEnv(3, table=str(small_table))
        envs.reset()
        for action in (1, 2, 3, 4, 0, 1):
            *_, info = envs.step([action, 2, 3])
        assert envs.counter.simulated_seconds == pytest.approx(info["cost_seconds"].sum())
