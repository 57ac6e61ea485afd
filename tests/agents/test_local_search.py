"""Local search: what it proposes, when it moves, when it starts again."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paired import best_reward, sign_test
from toys import CONV, POOL, STOP, ToySpace

import nas_agents
import nas_gym  # noqa: F401 - registers the environments
from nas_agents.local_search import LocalSearch
from nas_gym.envs.core.construction import ConstructionVectorEnv
from nas_gym.errors import InvalidArgument
from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.objectives import Accuracy
from nas_gym.search_spaces import Encoding, SearchSpace
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

CELLS, CHAINS = NASBench201Space(), ToySpace()
SPACES = [pytest.param(CELLS, id="nas_bench_201"), pytest.param(CHAINS, id="toy")]


def make_envs(space: SearchSpace = CELLS, num_envs: int = 1, landscape: int = 0) -> ConstructionVectorEnv:
    """Return environments on a synthetic landscape."""
    evaluator = SyntheticEvaluator(space, evaluation_seed=landscape)
    return ConstructionVectorEnv(space, evaluator, Accuracy(), num_envs=num_envs, autoreset_mode="Disabled")


def make_agent(space: SearchSpace = CELLS, seed: int = 0, **config: Any) -> LocalSearch:
    """Return a local search over a space."""
    agent = nas_agents.make("local_search", make_envs(space), seed, **config)
    assert isinstance(agent, LocalSearch)
    return agent


def tell(agent: LocalSearch, *results: tuple[Encoding, float]) -> None:
    """Tell an agent returns."""
    agent.tell([encoding for encoding, _ in results], np.array([value for _, value in results]))


def climbing(value: float = 0.5, **config: Any) -> tuple[LocalSearch, Encoding]:
    """Return an agent and the architecture that it climbs from, of the given return."""
    agent = make_agent(**config)
    (start,) = agent.propose(1)
    tell(agent, (start, value))
    return agent, start


@given(
    seed=st.integers(0, 2**16),
    improvement=st.sampled_from(["first", "best"]),
    initial=st.integers(1, 3),
    batch=st.integers(1, 9),
    levels=st.integers(1, 6),
    chains=st.booleans(),
)
def test_only_neighbours_are_proposed_unless_it_starts_again(
    seed: int, improvement: str, initial: int, batch: int, levels: int, chains: bool
) -> None:
    """Proposals are new neighbours of the incumbent, which moves up only and is given up at local optima only."""
    space = CHAINS if chains else CELLS
    agent = make_agent(space, seed, improvement=improvement, initial=initial)
    rng = np.random.default_rng(seed)
    values: dict[Encoding, float] = {}
    moves: list[tuple[Encoding | None, Encoding]] = []
    move = agent._move

    def watched(encoding: Encoding) -> None:
        moves.append((agent.incumbent, encoding))
        move(encoding)

    agent._move = watched  # type: ignore[method-assign]
    for _ in range(40):
        proposals = agent.propose(batch)
        if agent.incumbent is None:
            assert all(values[one] <= values[left] for _, left in moves[-1:] for one in space.neighbours(left))
        else:
            assert set(proposals) <= set(space.neighbours(agent.incumbent))
        assert not set(proposals) & set(values)
        results = [(encoding, float(rng.integers(levels))) for encoding in proposals]
        values.update(results)
        tell(agent, *results)
    upwards = [values[to] > values[start] and to in space.neighbours(start) for start, to in moves if start is not None]
    assert all(upwards)


def test_first_improvement_moves_at_once() -> None:
    """The first better neighbour becomes the incumbent."""
    agent, start = climbing(improvement="first")
    (neighbour,) = agent.propose(1)
    tell(agent, (neighbour, 0.6))
    assert (agent.incumbent, neighbour in CELLS.neighbours(start)) == (neighbour, True)


def test_first_improvement_in_a_batch_moves_to_its_best() -> None:
    """Of several better neighbours that were evaluated together the best one is taken."""
    agent, _ = climbing(improvement="first")
    one, two, three = agent.propose(3)
    tell(agent, (one, 0.6), (two, 0.9), (three, 0.7))
    assert agent.incumbent == two


def test_best_improvement_evaluates_all_neighbours_first() -> None:
    """The incumbent stays until the last of its neighbours is known, then the best one follows."""
    agent, start = climbing(improvement="best")
    neighbours: list[Encoding] = []
    for value in np.linspace(0.9, 0.6, 24):
        neighbours += agent.propose(1)
        assert agent.incumbent == start
        tell(agent, (neighbours[-1], float(value)))
    agent.propose(1)
    assert (agent.incumbent, sorted(neighbours)) == (neighbours[0], sorted(CELLS.neighbours(start)))


def test_equal_neighbours_are_no_improvement() -> None:
    """On a plateau it does not walk on."""
    agent, start = climbing(value=0.5)
    for encoding in agent.propose(24):
        tell(agent, (encoding, 0.5))
    assert agent.incumbent == start


def test_known_neighbours_are_moved_to_without_a_query() -> None:
    """A neighbour whose return is known already, and better, needs no second evaluation."""
    agent, _ = climbing(value=0.1)
    (second,) = agent.propose(1)
    better = next(one for one in CELLS.neighbours(second) if one not in agent.known)
    agent.known[better] = 0.9
    tell(agent, (second, 0.2))
    agent.propose(1)
    assert agent.incumbent == better


def test_it_starts_from_the_best_of_the_initial_ones() -> None:
    """With several architectures per start the best is climbed from."""
    agent = make_agent(initial=3)
    one, two, three = agent.propose(8)
    tell(agent, (one, 0.2), (two, 0.5), (three, 0.3))
    assert set(agent.propose(8)) <= set(CELLS.neighbours(two))


def test_neighbours_come_in_random_order() -> None:
    """Two seeds try the neighbours of one architecture in different orders, both all of them."""
    orders = []
    for seed in (0, 1):
        agent = make_agent(seed=seed)
        tell(agent, ((0, 0, 0, 0, 0, 0), 0.5))
        orders.append(agent.propose(24))
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(CELLS.neighbours((0, 0, 0, 0, 0, 0)))


@pytest.mark.parametrize("improvement", ["first", "best"])
def test_while_neighbours_are_awaited_it_draws_a_later_start(improvement: str) -> None:
    """With nothing left to try around the incumbent, a free slot evaluates what the next climb starts from."""
    agent, start = climbing(improvement=improvement)
    neighbours = agent.propose(24)
    (drawn,) = agent.propose(1)
    tell(agent, (drawn, 0.9))
    incumbent_before = agent.incumbent
    tell(agent, *((neighbour, 0.1) for neighbour in neighbours))
    following = agent.propose(1)
    assert (incumbent_before, set(following) <= set(CELLS.neighbours(drawn))) == (start, True)


def test_late_neighbours_of_an_earlier_incumbent_still_count() -> None:
    """A result that arrives after the move, and is better, is moved to."""
    agent, _ = climbing()
    early, late = agent.propose(2)
    tell(agent, (early, 0.6))
    agent.propose(1)
    tell(agent, (late, 0.8))
    assert agent.incumbent == late


def test_what_is_in_flight_is_asked_again_after_a_restart_of_the_process() -> None:
    """A state that is saved while neighbours are awaited has them among those to try."""
    agent, start = climbing()
    agent.propose(24)
    restored = make_agent(seed=9)
    restored.load_state_dict(agent.state_dict())
    assert sorted(restored.propose(24)) == sorted(CELLS.neighbours(start))


def test_a_resumed_search_climbs_from_the_best_that_it_is_told_of() -> None:
    """Results of an earlier process, which this one did not propose, are known, and the best becomes the incumbent."""
    agent = make_agent()
    told = [((0, 0, 0, 0, 0, number), 0.1 * number) for number in range(5)]
    tell(agent, *told[::-1])
    assert (agent.incumbent, len(agent.known)) == (told[-1][0], 5)


def test_illegal_episodes_are_no_architectures() -> None:
    """An episode that an illegal action ended is not climbed from."""
    agent = make_agent(CHAINS)
    masks = np.ones((2, 2, 4), np.bool_)
    batch = nas_agents.EpisodeBatch(
        observations=np.zeros((2, 2, 6)),
        actions=np.zeros((2, 2), np.int64),
        masks=masks,
        rewards=np.array([[0.0, 0.5], [-1.0, 0.0]]),
        lengths=np.array([2, 1]),
        encodings=((POOL, STOP), (CONV,)),
        status=("ok", "invalid_action"),
        first_seen=np.ones(2, np.bool_),
    )
    agent.learn(batch)
    assert agent.known == {(POOL, STOP): 0.5}


def test_it_ends_when_everything_is_known() -> None:
    """A budget above the size of the space ends with the last architecture, each evaluated once."""
    envs = make_envs(CHAINS, num_envs=4)
    result = nas_agents.run(nas_agents.make("local_search", envs, 0, batch_size=4), envs, 10_000, 0)
    assert (result.reason, result.usage.queries) == ("exhausted", CHAINS.size())


@pytest.mark.parametrize("preset", ["white2021", "naszilla"])
@pytest.mark.parametrize("space", SPACES)
def test_finds_the_optimum(space: SearchSpace, preset: str) -> None:
    """On every one of ten landscapes the best architecture is found within 500 queries."""
    missing = []
    for landscape in range(10):
        evaluator = SyntheticEvaluator(space, evaluation_seed=landscape)
        best = evaluator.evaluate_one(evaluator.optimum).metrics["valid_accuracy"]
        found = best_reward(
            lambda size, seed: make_envs(space, size, seed), "local_search", 500, landscape, preset=preset
        )
        missing.append(best - found)
    assert max(missing) == 0


def digits(num_envs: int, _seed: int) -> Any:
    """Return the cells with the packaged table."""
    return gymnasium.make_vec("NAS-Cell-v0", num_envs=num_envs, table="digits", autoreset_mode="Disabled").unwrapped


@pytest.mark.parametrize("task", ["synthetic", "digits"])
def test_beats_random_search(task: str) -> None:
    """After 200 queries its best reward is higher, over 20 paired seeds."""
    make = digits if task == "digits" else lambda size, seed: make_envs(CELLS, size, seed)
    ours, theirs = (
        [best_reward(make, name, 200, seed) for seed in range(20)] for name in ("local_search", "random_search")
    )
    assert sign_test(ours, theirs) < 0.01


def test_presets_are_the_published_ones() -> None:
    """The paper evaluates all neighbours of one start; its authors' code takes the first better, from ten."""
    presets = {name: (one.improvement, one.initial) for name, one in LocalSearch.presets.items()}
    assert presets == {"white2021": ("best", 1), "naszilla": ("first", 10)}


@pytest.mark.parametrize(
    "settings", [{"improvement": "any"}, {"initial": 0}, {"initial": True}, {"batch_size": 0}, {"batch_size": 1.5}]
)
def test_bad_settings_are_refused(settings: dict[str, Any]) -> None:
    """A setting outside its range is an error that names it."""
    with pytest.raises(InvalidArgument, match=next(iter(settings))):
        make_agent(**settings)
