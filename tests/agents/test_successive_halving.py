"""Successive halving: rungs, who is promoted and when, brackets, both loops, what cannot be searched."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from curves import Curves
from hypothesis import given
from hypothesis import strategies as st
from paired import best_reward, sign_test
from toys import POOL, STOP, ToySpace

import nas_agents
from nas_agents import EpisodeBatch, Evaluated, Sink, Taught
from nas_agents.successive_halving import SuccessiveHalving, rungs
from nas_gym.envs.core.construction import ConstructionVectorEnv
from nas_gym.errors import InvalidArgument
from nas_gym.evaluators.decorators import SimulatedWorkers
from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.objectives import Accuracy
from nas_gym.search_spaces import Encoding, SearchSpace
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

CELLS, CHAINS = NASBench201Space(), ToySpace()
VARIANTS = ("synchronous", "asynchronous")


def make_envs(
    space: SearchSpace = CELLS, num_envs: int = 1, landscape: int = 0, fidelity: int | None = None
) -> ConstructionVectorEnv:
    """Return environments on a synthetic landscape with learning curves of 9 epochs."""
    evaluator = Curves(space, evaluation_seed=landscape)
    return ConstructionVectorEnv(
        space, evaluator, Accuracy(), num_envs=num_envs, autoreset_mode="Disabled", fidelity=fidelity
    )


def make_agent(space: SearchSpace = CELLS, seed: int = 0, **config: Any) -> SuccessiveHalving:
    """Return a successive halving over 9 epochs."""
    agent = nas_agents.make("successive_halving", make_envs(space), seed, **config)
    assert isinstance(agent, SuccessiveHalving)
    return agent


def ask(agent: SuccessiveHalving, count: int) -> list[tuple[Encoding, int]]:
    """Return what an agent begins, with the fidelities."""
    return list(zip(agent.propose(count), agent.fidelities(), strict=True))


def tell(agent: SuccessiveHalving, jobs: list[tuple[Encoding, int]], values: list[float | None]) -> None:
    """Tell an agent returns, None for a failure."""
    count = len(jobs)
    batch = EpisodeBatch(
        observations=np.zeros((count, 1, 6)),
        actions=np.zeros((count, 1), np.int64),
        masks=np.ones((count, 1, 5), np.bool_),
        rewards=np.array([[-1.0 if value is None else value] for value in values]),
        lengths=np.ones(count, np.int64),
        encodings=tuple(encoding for encoding, _ in jobs),
        status=tuple("diverged" if value is None else "ok" for value in values),
        first_seen=np.ones(count, np.bool_),
        fidelities=np.array([fidelity for _, fidelity in jobs], np.int64),
    )
    agent.learn(batch)


class Log(Sink):
    """Keeps what was evaluated: architecture, fidelity, reward."""

    def __init__(self) -> None:
        self.episodes: list[tuple[Encoding, int, float]] = []

    def on_episodes(self, evaluated: Evaluated) -> None:
        batch = evaluated.batch
        assert batch.fidelities is not None
        self.episodes += zip(batch.encodings, batch.fidelities.tolist(), batch.returns.tolist(), strict=True)


class TestRungs:
    """Which fidelities there are."""

    @pytest.mark.parametrize(
        ("lowest", "highest", "eta", "expected"),
        [
            (1, 9, 3, (1, 3, 9)),
            (1, 6, 3, (2, 6)),
            (1, 6, 2, (1, 3, 6)),
            (1, 81, 3, (1, 3, 9, 27, 81)),
            (4, 200, 4, (12, 50, 200)),
            (1, 256, 4, (1, 4, 16, 64, 256)),
            (5, 9, 3, (9,)),
        ],
    )
    def test_go_down_from_the_highest_by_eta(self, lowest: int, highest: int, eta: int, expected: Any) -> None:
        """The highest is always a rung; the others divide it by powers of eta, not below the lowest."""
        assert rungs(lowest, highest, eta) == expected

    def test_come_from_the_environment(self) -> None:
        """By default they reach from its lowest fidelity to its own."""
        agent = nas_agents.make("successive_halving", make_envs(fidelity=3), 0)
        assert isinstance(agent, SuccessiveHalving)
        assert agent.rungs == (1, 3)

    def test_may_be_narrowed(self) -> None:
        """The settings narrow the range of the environment."""
        assert make_agent(min_fidelity=2, max_fidelity=8, eta=2).rungs == (2, 4, 8)


class TestSynchronous:
    """A rung is complete before any of it is promoted."""

    @given(seed=st.integers(0, 2**16), eta=st.integers(2, 3), extra=st.integers(0, 9), batch=st.integers(1, 6))
    def test_promotes_exactly_the_best_of_every_rung(self, seed: int, eta: int, extra: int, batch: int) -> None:
        """Of the n architectures of a rung the best floor(n / eta), and nobody else, are begun at the next."""
        agent = make_agent(seed=seed, eta=eta, initial=eta ** (2 if eta == 3 else 3) + extra)
        rng = np.random.default_rng(seed)
        bracket = None
        for _ in range(200):
            jobs = ask(agent, batch)
            bracket = bracket or agent.brackets[0]
            tell(agent, jobs, rng.random(len(jobs)).tolist())
            if bracket not in agent.brackets:
                break
        assert bracket is not None
        expected = eta ** (2 if eta == 3 else 3) + extra
        chosen: set[Encoding] | None = None
        for rung in bracket.rungs:
            assert len(rung.results) == expected
            assert chosen is None or set(rung.results) == chosen
            expected //= eta
            ranked = sorted(((value, encoding) for encoding, value in rung.results.items() if value is not None))
            chosen = {encoding for _, encoding in ranked[::-1][:expected]}

    def test_nobody_is_promoted_before_the_rung_is_complete(self) -> None:
        """Nine architectures for one epoch, three of them for three, the best of those for nine."""
        agent = make_agent(initial=9)
        epochs = []
        for number in range(13):
            jobs = ask(agent, 1)
            epochs.append(jobs[0][1])
            tell(agent, jobs, [float(number)])
        assert epochs == [1] * 9 + [3] * 3 + [9]

    def test_by_default_one_reaches_the_top(self) -> None:
        """The lowest rung holds eta to the power of the rungs above it."""
        assert make_agent()._size == 9

    def test_next_bracket_is_fresh(self) -> None:
        """After a bracket has ended, the next one begins with new architectures at the lowest rung."""
        agent = make_agent()
        first: list[tuple[Encoding, int]] = []
        for number in range(13):
            jobs = ask(agent, 1)
            first += jobs
            tell(agent, jobs, [float(number)])
        ((encoding, epochs),) = ask(agent, 1)
        assert (epochs, encoding in dict(first)) == (1, False)

    def test_of_equal_ones_the_first_is_promoted(self) -> None:
        """Ties are settled by the order of arrival."""
        agent = make_agent()
        jobs = ask(agent, 9)
        tell(agent, jobs, [0.5] * 9)
        assert [encoding for encoding, _ in ask(agent, 3)] == [encoding for encoding, _ in jobs[:3]]

    def test_failures_are_not_promoted(self) -> None:
        """Where most of a rung failed, only what did not goes on."""
        agent = make_agent()
        jobs = ask(agent, 9)
        tell(agent, jobs, [None] * 7 + [0.1, None])
        following = ask(agent, 3)
        assert [(encoding, epochs) for encoding, epochs in following if epochs > 1] == [(jobs[7][0], 3)]

    def test_a_bracket_without_survivors_ends(self) -> None:
        """Where everything failed, the next bracket begins."""
        agent = make_agent()
        tell(agent, ask(agent, 9), [None] * 9)
        assert [epochs for _, epochs in ask(agent, 9)] == [1] * 9

    def test_free_slots_begin_the_next_bracket(self) -> None:
        """While the last results of a rung are awaited, other workers do not idle."""
        agent = make_agent()
        first = ask(agent, 9)
        assert [epochs for _, epochs in ask(agent, 2)] == [1, 1]
        tell(agent, first, [float(number) for number in range(9)])
        assert ask(agent, 1) == [(first[8][0], 3)]


class TestAsynchronous:
    """ASHA."""

    def test_promotes_as_soon_as_it_can(self) -> None:
        """The third result makes the best of three promotable, without waiting for more."""
        agent = make_agent(variant="asynchronous")
        jobs: list[tuple[Encoding, int]] = []
        for value in (0.2, 0.9, 0.1):
            jobs += ask(agent, 1)
            tell(agent, jobs[-1:], [value])
        assert [epochs for _, epochs in jobs] == [1, 1, 1]
        assert ask(agent, 1) == [(jobs[1][0], 3)]

    def test_higher_rungs_come_first(self) -> None:
        """Where several can be promoted, the one in the highest rung is."""
        agent = make_agent(variant="asynchronous")
        tell(agent, ask(agent, 9), [float(number) for number in range(9)])
        threes = ask(agent, 3)
        tell(agent, threes, [1.0, 2.0, 3.0])
        assert ask(agent, 1) == [(threes[2][0], 9)]

    def test_grows_the_lowest_rung_where_nothing_can_be_promoted(self) -> None:
        """Results in flight are no results: a free slot begins a new architecture."""
        agent = make_agent(variant="asynchronous")
        assert [epochs for _, epochs in ask(agent, 20)] == [1] * 20

    @given(seed=st.integers(0, 2**16), eta=st.integers(2, 4), batch=st.integers(1, 7))
    def test_promotes_only_the_best_of_what_has_arrived(self, seed: int, eta: int, batch: int) -> None:
        """Whoever is begun at a rung is among the best floor(n / eta) below, and in the end those all are promoted."""
        agent = make_agent(seed=seed, variant="asynchronous", eta=eta)
        rng = np.random.default_rng(seed)
        flying: list[tuple[Encoding, int]] = []
        arrived: dict[int, dict[Encoding, float]] = {epochs: {} for epochs in agent.rungs}

        def best(level: int) -> list[Encoding]:
            results = arrived[agent.rungs[level]]
            return sorted(results, key=lambda encoding: -results[encoding])[: len(results) // eta]

        for _ in range(40):
            for encoding, epochs in ask(agent, batch):
                level = agent.rungs.index(epochs)
                assert level == 0 or encoding in best(level - 1)
                flying.append((encoding, epochs))
            rng.shuffle(flying)
            landed, flying = flying[: len(flying) // 2 + 1], flying[len(flying) // 2 + 1 :]
            values = rng.random(len(landed)).tolist()
            for (encoding, epochs), value in zip(landed, values, strict=True):
                arrived[epochs][encoding] = value
            tell(agent, landed, list(values))
        while (jobs := ask(agent, 1))[0][1] > agent.rungs[0]:
            flying += jobs
        begun = {(encoding, epochs) for encoding, epochs in flying}
        for level, epochs in enumerate(agent.rungs[1:], start=1):
            promoted = set(arrived[epochs]) | {encoding for encoding, at in begun if at == epochs}
            assert set(best(level - 1)) <= promoted

    def test_no_worker_waits(self) -> None:
        """Without a barrier all simulated workers are busy until the budget is used up."""
        envs = make_envs(num_envs=8)
        workers: list[SimulatedWorkers] = []

        def simulated(inner: Any) -> SimulatedWorkers:
            workers.append(SimulatedWorkers(inner, workers=8))
            return workers[0]

        envs.wrap_evaluator(simulated)
        agent = nas_agents.make("successive_halving", envs, 0, variant="asynchronous")
        nas_agents.run_without_barrier(agent, envs, 400, 0)
        assert workers[0].utilisation > 0.9


class TestSearches:
    """Whole searches."""

    def test_shares_of_the_rungs(self) -> None:
        """Of 520 queries 9 in 13 are in the lowest rung, 3 in the next, 1 in the highest."""
        envs, log = make_envs(), Log()
        nas_agents.run(nas_agents.make("successive_halving", envs, 0), envs, 520, 0, [log])
        assert [sum(epochs == rung for _, epochs, _ in log.episodes) for rung in (1, 3, 9)] == [360, 120, 40]

    def test_asynchronous_shares_are_larger(self) -> None:
        """It promotes a third of every rung at least, and some more that later results surpass."""
        envs, log = make_envs(), Log()
        nas_agents.run(nas_agents.make("successive_halving", envs, 0, variant="asynchronous"), envs, 520, 0, [log])
        low, middle, high = (sum(epochs == rung for _, epochs, _ in log.episodes) for rung in (1, 3, 9))
        assert low // 3 <= middle <= low // 2
        assert middle // 3 <= high <= middle // 2

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_ends_when_the_space_is_exhausted(self, variant: str) -> None:
        """Every architecture is drawn once; after the last one only promotions are left, and then it ends."""
        envs, log = make_envs(CHAINS), Log()
        agent = nas_agents.make("successive_halving", envs, 0, variant=variant)
        result = nas_agents.run(agent, envs, 10_000, 0, [log])
        lowest = [encoding for encoding, epochs, _ in log.episodes if epochs == 1]
        assert (result.reason, sorted(lowest)) == ("exhausted", sorted(CHAINS.enumerate()))

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_a_resumed_search_goes_on_promoting(self, variant: str) -> None:
        """Without a barrier, results of an earlier process are at their rungs again and are not asked for twice."""
        envs, log = make_envs(num_envs=4), Log()
        envs.wrap_evaluator(partial(SimulatedWorkers, workers=4))
        nas_agents.run_without_barrier(
            nas_agents.make("successive_halving", envs, 0, variant=variant), envs, 60, 0, [log]
        )
        taught = [Taught(encoding, False, epochs) for encoding, epochs, _ in log.episodes]
        again, resumed = make_envs(num_envs=4), Log()
        agent = nas_agents.make("successive_halving", again, 99, variant=variant)
        nas_agents.run_without_barrier(agent, again, 200, 0, [resumed], taught=taught)
        asked = [(encoding, epochs) for encoding, epochs, _ in resumed.episodes]
        low, middle, high = (sum(epochs == rung for _, epochs in asked) for rung in (1, 3, 9))
        assert (resumed.episodes[:60], len(set(asked))) == (log.episodes, 200)
        assert 0.9 * low / 3 <= middle <= low / 2
        assert 0.9 * middle / 3 <= high <= middle

    def test_finds_the_optimum(self) -> None:
        """Of the 145 chains it finds the best, seen at the full fidelity, on eight of ten landscapes at least."""
        hits = 0
        for landscape in range(10):
            evaluator = Curves(CHAINS, evaluation_seed=landscape)
            best = evaluator.evaluate_one(evaluator.optimum).metrics["valid_accuracy"]
            found = best_reward(lambda size, seed: make_envs(CHAINS, size, seed), "successive_halving", 300, landscape)
            hits += found == best
        assert hits >= 8

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_beats_random_search_in_training_time(self, variant: str) -> None:
        """With the epochs of 200 full trainings its best reward at full fidelity is higher, over 20 paired seeds."""

        def make(size: int, seed: int) -> ConstructionVectorEnv:
            return make_envs(CELLS, size, seed)

        # Of 13 queries 9 are of one epoch, 3 of three and 1 of nine: 27 epochs, as 3 full trainings.
        settings = {"variant": variant, "batch_size": 13}
        ours = [best_reward(make, "successive_halving", 200 * 13 // 3, seed, **settings) for seed in range(20)]
        theirs = [best_reward(make, "random_search", 200, seed) for seed in range(20)]
        assert sign_test(ours, theirs) < 0.05


class TestState:
    """Saving and loading."""

    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize("cut", [4, 9, 11, 12, 30])
    def test_continues_exactly(self, variant: str, cut: int) -> None:
        """Restored in the middle of a bracket, it begins what the uninterrupted one begins."""
        agent = make_agent(variant=variant)
        rng = np.random.default_rng(0)
        for _ in range(cut):
            jobs = ask(agent, 1)
            tell(agent, jobs, [float(rng.random())])
        restored = make_agent(seed=5, variant=variant)
        restored.load_state_dict(agent.state_dict())
        for _ in range(30):
            expected = ask(agent, 1)
            assert ask(restored, 1) == expected
            value = float(rng.random())
            tell(agent, expected, [value])
            tell(restored, expected, [value])

    def test_promotions_in_flight_are_asked_again(self) -> None:
        """A state that is saved while a promotion is awaited has it among what can be promoted."""
        agent = make_agent()
        tell(agent, ask(agent, 9), [float(number) for number in range(9)])
        promoted = ask(agent, 3)
        restored = make_agent(seed=5)
        restored.load_state_dict(agent.state_dict())
        assert ask(restored, 3) == promoted


class TestRefusals:
    """What cannot be searched."""

    def test_environments_without_fidelities(self) -> None:
        """An evaluator without epochs leaves nothing to halve."""
        envs = ConstructionVectorEnv(CELLS, SyntheticEvaluator(CELLS), Accuracy(), autoreset_mode="Disabled")
        with pytest.raises(InvalidArgument, match="no fidelities"):
            nas_agents.make("successive_halving", envs, 0)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"min_fidelity": 4}, "no rung between 4 and 9"),
            ({"max_fidelity": 10}, "max_fidelity must be from 1 to 9"),
            ({"initial": 8}, "at least eta"),
            ({"variant": "parallel"}, "variant"),
            ({"eta": 1}, "eta"),
            ({"min_fidelity": 0}, "min_fidelity"),
            ({"batch_size": 0}, "batch_size"),
            ({"variant": "asynchronous", "initial": 9}, "initial is of synchronous brackets"),
        ],
    )
    def test_bad_settings(self, settings: dict[str, Any], message: str) -> None:
        """A setting that leaves no rungs, or is outside its range, is an error that says why."""
        with pytest.raises(InvalidArgument, match=message):
            make_agent(**settings)

    def test_results_at_other_fidelities_are_ignored(self) -> None:
        """A taught episode at a fidelity that is no rung teaches nothing."""
        agent = make_agent()
        tell(agent, [((0, 0, 0, 0, 0, 0), 5)], [0.9])
        assert agent.brackets == []

    def test_illegal_episodes_are_ignored(self) -> None:
        """An episode that an illegal action ended is no architecture."""
        envs = make_envs(CHAINS, num_envs=2)
        agent = nas_agents.make("successive_halving", envs, 0)
        assert isinstance(agent, SuccessiveHalving)
        taught = [Taught((POOL,), True, 1), Taught((POOL, STOP), False, 1)]
        nas_agents.run_without_barrier(agent, envs, 2, 0, taught=taught)
        assert [list(rung.results) for rung in agent.brackets[0].rungs] == [[(POOL, STOP)], [], []]


def test_presets_are_the_published_ones() -> None:
    """Halving in two, and ASHA's fourfold reduction."""
    presets = {name: (one.variant, one.eta) for name, one in SuccessiveHalving.presets.items()}
    assert presets == {"jamieson2016": ("synchronous", 2), "asha2020": ("asynchronous", 4)}
