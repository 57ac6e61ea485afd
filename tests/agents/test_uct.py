"""UCT: the tree, its counts, the order in which it is explored, bisection, batches, and what it finds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paired import best_reward, sign_test
from toys import ToySpace

import nas_agents
import nas_gym  # noqa: F401 - registers the environments
from nas_agents import EpisodeBatch
from nas_agents.uct import UCT, Grammar, Statistics
from nas_gym.envs.core.construction import ConstructionVectorEnv
from nas_gym.errors import InvalidArgument
from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.objectives import Accuracy
from nas_gym.search_spaces import Decision, Encoding, SearchSpace
from nas_gym.search_spaces.core import FixedSlotSpace
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

CELLS, CHAINS = NASBench201Space(), ToySpace()


@dataclass(frozen=True)
class Widths(FixedSlotSpace):
    """Two ordered choices among many widths, of which neighbouring ones are similar."""

    name: ClassVar[str] = "widths"
    values: int = 32

    @property
    def slots(self) -> tuple[Decision, ...]:
        labels = tuple(str(8 * (value + 1)) for value in range(self.values))
        return (Decision(0, labels, ordered=True, mask=(True,) * self.values),) * 2

    def decode(self, encoding: Encoding) -> Any:
        return self.validate(encoding)


def make_envs(space: SearchSpace = CELLS, num_envs: int = 1, landscape: int = 0) -> ConstructionVectorEnv:
    """Return environments on a synthetic landscape."""
    evaluator = SyntheticEvaluator(space, evaluation_seed=landscape)
    return ConstructionVectorEnv(space, evaluator, Accuracy(), num_envs=num_envs, autoreset_mode="Disabled")


def make_agent(space: SearchSpace = CELLS, seed: int = 0, **config: Any) -> UCT:
    """Return a tree search over a space."""
    agent = nas_agents.make("uct", make_envs(space), seed, **config)
    assert isinstance(agent, UCT)
    return agent


def tell(agent: UCT, encodings: Sequence[Encoding], values: Sequence[float]) -> None:
    """Tell an agent returns."""
    agent.tell(encodings, np.array(values, np.float64))


def episodes(encodings: Sequence[Encoding], values: Sequence[float], status: Sequence[str]) -> EpisodeBatch:
    """Return a batch as the loop makes it."""
    count = len(encodings)
    return EpisodeBatch(
        observations=np.zeros((count, 1, 6)),
        actions=np.zeros((count, 1), np.int64),
        masks=np.ones((count, 1, 5), np.bool_),
        rewards=np.array(values, np.float64)[:, None],
        lengths=np.ones(count, np.int64),
        encodings=tuple(encodings),
        status=tuple(status),
        first_seen=np.ones(count, np.bool_),
    )


class TestCounts:
    """What the statistics of the tree add up to."""

    @given(
        seed=st.integers(0, 2**16),
        batch=st.integers(1, 8),
        space=st.sampled_from([CELLS, CHAINS, Widths(5)]),
        repeats=st.booleans(),
        bisection=st.booleans(),
        rollout=st.sampled_from(["uniform", "mast"]),
    )
    def test_visits_are_those_of_the_children_and_one(
        self, seed: int, batch: int, space: SearchSpace, repeats: bool, bisection: bool, rollout: str
    ) -> None:
        """A node's first visit ends at it, and every later one goes on to a child; nothing is left in flight."""
        agent = make_agent(space, seed, repeats=repeats, bisection=bisection, rollout=rollout)
        rng = np.random.default_rng(seed)
        told = 0
        for _ in range(20):
            proposals = agent.propose(batch)
            tell(agent, proposals, rng.random(len(proposals)).tolist())
            told += len(proposals)
        root = agent.grammar.root
        for key, node in agent.nodes.items():
            children = [agent.nodes[child] for child in agent.grammar.children(key) if child in agent.nodes]
            own = 0 if key == root else 1
            if children or key == root:
                assert node.visits == own + sum(child.visits for child in children)
                total = sum(child.total for child in children)
                assert node.total == pytest.approx(total) or own
            assert node.pending == 0
        assert agent.nodes[root].visits == told

    @given(seed=st.integers(0, 2**16), space=st.sampled_from([CHAINS, Widths(5)]))
    def test_statistics_are_sums_over_what_passed(self, seed: int, space: SearchSpace) -> None:
        """A node of complete choices has at least the episodes of its descendants and no episode from outside."""
        agent = make_agent(space, seed)
        rng = np.random.default_rng(seed)
        for _ in range(60):
            proposals = agent.propose(1)
            tell(agent, proposals, rng.random(len(proposals)).tolist())
        for key, node in agent.nodes.items():
            below = [value for encoding, value in agent.evaluated if agent.grammar.contains(key, encoding)]
            assert node.visits <= len(below)

    def test_results_may_come_in_another_order(self) -> None:
        """Without a barrier the last proposal may be told first; the tree ends the same."""
        totals = []
        for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
            agent = make_agent(seed=1)
            proposals = agent.propose(4)
            for index in order:
                tell(agent, [proposals[index]], [0.1 * index])
            totals.append({key: (node.visits, round(node.total, 9)) for key, node in agent.nodes.items()})
        assert totals[0] == totals[1]

    def test_strangers_grow_the_tree_by_one_node_each(self) -> None:
        """Results of an earlier process are walked along the tree as far as it goes, and one node further."""
        agent = make_agent()
        tell(agent, [(0, 1, 2, 3, 4, 0), (0, 1, 0, 0, 0, 0), (0, 1, 2, 0, 0, 0)], [0.1, 0.2, 0.3])
        prefixes = sorted(prefix for prefix, _, _ in agent.nodes)
        assert prefixes == [(), (0,), (0, 1), (0, 1, 2)]

    def test_failures_count_as_the_lowest_return(self) -> None:
        """A failed architecture adds a visit and nothing to the sum."""
        agent = make_agent()
        agent.learn(episodes([(0, 0, 0, 0, 0, 0), (0, 1, 0, 0, 0, 0)], [0.8, -1.0], ["ok", "diverged"]))
        node = agent.nodes[(0,), 0, 5]
        assert (node.visits, node.successes, node.total) == (2, 1, 0.8)

    def test_illegal_episodes_leave_no_trace(self) -> None:
        """An episode that an illegal action ended is no architecture."""
        agent = make_agent(CHAINS)
        agent.learn(episodes([(1,)], [-1.0], ["invalid_action"]))
        assert (agent.evaluated, agent.nodes[agent.grammar.root].visits) == ([], 0)


class TestSelection:
    """Where it descends."""

    def test_every_child_is_visited_before_any_twice(self) -> None:
        """The first five episodes begin with five different choices."""
        agent = make_agent()
        firsts = []
        for _ in range(5):
            (proposal,) = agent.propose(1)
            firsts.append(proposal[0])
            tell(agent, [proposal], [float(proposal[0])])
        assert sorted(firsts) == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize(("exploration", "expected"), [(0.0, 4), (10.0, 0)], ids=["greedy", "exploring"])
    def test_upper_confidence_bound_decides(self, exploration: float, expected: int) -> None:
        """Without exploration the best mean is taken, with much of it the child that was visited least."""
        agent = make_agent(exploration=exploration)
        told = [(first, second, 0, 0, 0, 0) for first in range(5) for second in range(5)]
        told = [encoding for encoding in told if encoding[0] or encoding[1] == 0]  # The first choice 0: once.
        tell(agent, told, [float(encoding[0]) for encoding in told])
        assert agent.propose(1)[0][0] == expected

    def test_the_bound_is_the_published_one(self) -> None:
        """The mean scaled to [0, 1], plus c times the square root of 2 ln n / n_child."""
        agent = make_agent(exploration=0.5, reward_range=(0.0, 2.0))
        parent, child = Statistics(10, 10, 8.0), Statistics(4, 3, 5.0)
        assert agent._bound(parent)(child) == pytest.approx(5 / 2 / 4 + 0.5 * math.sqrt(2 * math.log(10) / 4))

    def test_returns_are_scaled_by_the_range_so_far(self) -> None:
        """The lowest and highest return seen are 0 and 1, for old episodes, too."""
        agent = make_agent()
        tell(agent, [(0, 0, 0, 0, 0, 0), (1, 0, 0, 0, 0, 0), (2, 0, 0, 0, 0, 0)], [-3.0, 5.0, 1.0])
        means = [agent._sum(agent.nodes[(first,), 0, 5]) for first in range(3)]
        assert means == [0.0, 1.0, 0.5]

    def test_returns_outside_a_given_range_are_cut(self) -> None:
        """With a known range, a return beyond it is its end."""
        agent = make_agent(reward_range=[0.0, 1.0])
        tell(agent, [(0, 0, 0, 0, 0, 0), (1, 0, 0, 0, 0, 0)], [-3.0, 5.0])
        assert [agent._sum(agent.nodes[(first,), 0, 5]) for first in range(2)] == [0.0, 1.0]

    def test_episodes_in_flight_are_losses(self) -> None:
        """A batch does not descend the same path only: what is in flight makes its path less attractive."""
        agent = make_agent(exploration=0.3)
        first = agent.propose(5)
        tell(agent, first, [1.0 if proposal[0] == 2 else 0.5 for proposal in first])
        firsts = [proposal[0] for proposal in agent.propose(8)]
        assert firsts[0] == 2
        assert len(set(firsts)) > 1

    def test_mast_prefers_choices_that_did_well(self) -> None:
        """Rollouts take what good architectures have in common at the same position."""
        agent = make_agent(rollout="mast", temperature=0.05)
        every = [(first, 0, 0, 0, 0, last) for first in range(5) for last in range(5)]
        tell(agent, every, [float(encoding[-1] == 3) for encoding in every])
        lasts = [proposal[-1] for proposal in agent.propose(40)]
        assert lasts.count(3) > 30


class TestExhaustion:
    """What happens where nothing new is left."""

    @pytest.mark.parametrize("rollout", ["uniform", "mast"])
    @pytest.mark.parametrize("space", [CHAINS, Widths(5)], ids=["chains", "widths"])
    def test_every_architecture_comes_once(self, space: SearchSpace, rollout: str) -> None:
        """It ends with the last architecture of the space, having evaluated each exactly once."""
        agent = make_agent(space, rollout=rollout)
        found: list[Encoding] = []
        while proposals := agent.propose(3):
            tell(agent, proposals, [sum(proposal) / 10 for proposal in proposals])
            found += proposals
        assert sorted(found) == sorted(space.enumerate())

    def test_with_repeats_it_goes_on(self) -> None:
        """Where answers are noisy, the best leaf may be evaluated again, and its statistics are of all its answers."""
        space = Widths(2)
        agent = make_agent(space, repeats=True, exploration=0.1)
        for _ in range(50):
            proposals = agent.propose(1)
            tell(agent, proposals, [float(proposals[0] == (1, 1))])
        assert agent.nodes[(1, 1), 0, 0].visits > 25


class TestBisection:
    """Ordered choices as binary trees."""

    def test_halves_until_one_value_is_left(self) -> None:
        """A node over a range has two children, split at floor((l + r) / 2)."""
        grammar = Grammar(Widths(5), bisection=True)
        assert grammar.children(((), 0, 5)) == [((), 0, 2), ((), 2, 5)]
        assert grammar.children(((), 2, 5)) == [((2,), 0, 5), ((), 3, 5)]

    def test_only_ordered_choices_are_halved(self) -> None:
        """Operations have no order: each is a child."""
        assert len(Grammar(CELLS, bisection=True).children(((), 0, 5))) == 5

    def test_without_it_ordered_choices_are_children(self) -> None:
        """The plain tree has one child a value."""
        assert len(Grammar(Widths(5), bisection=False).children(((), 0, 5))) == 5

    @pytest.mark.parametrize("bisection", [True, False])
    @pytest.mark.parametrize("space", [CHAINS, Widths(5)], ids=["chains", "widths"])
    def test_leaves_are_the_architectures(self, space: SearchSpace, bisection: bool) -> None:
        """Whatever the shape of the tree, its leaves are the encodings of the space."""
        grammar = Grammar(space, bisection)
        stack, leaves = [grammar.root], []
        while stack:
            key = stack.pop()
            children = grammar.children(key)
            stack += children
            if not children:
                leaves.append(key[0])
        assert sorted(leaves) == sorted(space.enumerate())

    def test_neighbouring_values_share_statistics(self) -> None:
        """On a smooth landscape of 1,024 architectures, bisection comes closer than the plain tree, over 20 seeds."""
        space = Widths(32)
        gaps: dict[bool, list[float]] = {True: [], False: []}
        for bisection, found in gaps.items():
            for seed in range(20):
                peak = np.random.default_rng(seed).integers(32, size=2)
                agent = make_agent(space, seed, preset="deeparchitect", bisection=bisection)
                distances = []
                for _ in range(100):
                    proposals = agent.propose(1)
                    distances.append(float(np.abs(np.array(proposals[0]) - peak).sum()))
                    tell(agent, proposals, [-distances[-1]])
                found.append(-float(np.mean(distances)))
        assert sign_test(gaps[True], gaps[False]) < 0.01


class TestGreedy:
    """What `nas-gym explain` shows."""

    def test_before_anything_was_evaluated_there_is_none(self) -> None:
        """An empty tree has no opinion."""
        assert make_agent().greedy() is None

    def test_is_the_most_visited_path(self) -> None:
        """The architecture lies below the most visited children, and the shares of visits add up to one."""
        agent = make_agent(exploration=0.1)
        for _ in range(300):
            proposals = agent.propose(1)
            tell(agent, proposals, [sum(choice == 3 for choice in proposals[0]) / 6])
        greedy = agent.greedy()
        assert greedy is not None
        assert greedy.encoding[:2] == (3, 3)
        assert [sum(decided.values.values()) for decided in greedy.decisions] == pytest.approx([1.0] * 6)
        assert greedy.decisions[0].values[greedy.decisions[0].choice] == max(greedy.decisions[0].values.values())


class TestState:
    """Saving and loading."""

    def test_what_is_in_flight_may_come_again(self) -> None:
        """A state that is saved while an architecture is awaited does not rule it out."""
        agent = make_agent(Widths(2))
        agent.propose(4)
        restored = make_agent(Widths(2), seed=7)
        restored.load_state_dict(agent.state_dict())
        assert len(restored.propose(9)) == 4


def digits(num_envs: int, _seed: int) -> Any:
    """Return the cells with the packaged table."""
    return gymnasium.make_vec("NAS-Cell-v0", num_envs=num_envs, table="digits", autoreset_mode="Disabled").unwrapped


@pytest.mark.parametrize("space", [CELLS, CHAINS], ids=["nas_bench_201", "toy"])
def test_finds_the_optimum(space: SearchSpace) -> None:
    """On seven of eight landscapes at least the best architecture is found within 600 queries."""
    found = []
    for landscape in range(8):
        evaluator = SyntheticEvaluator(space, evaluation_seed=landscape)
        best = evaluator.evaluate_one(evaluator.optimum).metrics["valid_accuracy"]
        found.append(best_reward(lambda size, seed: make_envs(space, size, seed), "uct", 600, landscape) == best)
    assert sum(found) >= 7


@pytest.mark.parametrize("task", ["synthetic", "digits"])
def test_beats_random_search(task: str) -> None:
    """After 200 queries its best reward is higher, over 20 paired seeds."""
    make = digits if task == "digits" else lambda size, seed: make_envs(CELLS, size, seed)
    ours, theirs = ([best_reward(make, name, 200, seed) for seed in range(20)] for name in ("uct", "random_search"))
    assert sign_test(ours, theirs) < 0.05


@pytest.mark.parametrize(
    "settings",
    [
        {"exploration": -1.0},
        {"exploration": math.inf},
        {"rollout": "clever"},
        {"temperature": 0.0},
        {"bisection": "yes"},
        {"repeats": 1},
        {"reward_range": [1.0, 0.0]},
        {"reward_range": [0.0]},
        {"virtual_loss": 0},
        {"batch_size": 0},
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any]) -> None:
    """A setting outside its range is an error that names it."""
    with pytest.raises(InvalidArgument, match=next(iter(settings))):
        make_agent(**settings)
