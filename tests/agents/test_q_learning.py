"""Tabular Q-learning, checked against the published algorithm and against updates worked out by hand."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from toys import CONV, POOL, STOP, ToySpace

import nas_agents
from nas_agents import EpisodeBatch, Evaluated, Sink
from nas_gym.envs.core.construction import ConstructionVectorEnv
from nas_gym.errors import InvalidArgument
from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.objectives import Accuracy
from nas_gym.search_spaces import Encoding, SearchSpace
from nas_gym.search_spaces.metaqnn import REDUCED, MetaQNNSpace
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

toy = ToySpace()
cells = NASBench201Space()

EXPLOIT = ((0.0, 1),)
EXPLORE = ((1.0, 1),)

CHAIN: Encoding = (CONV, 2, STOP)
"""A chain of one 5x5 convolution; its states are those of the prefixes."""

S0, S1, S2 = (0,) * 6, (2, 0, 0, 0, 0, 0), (2, 3, 0, 0, 0, 0)
"""States along CHAIN: the decisions so far, plus one."""


class Log(Sink):
    """Keeps what a run publishes."""

    def __init__(self) -> None:
        self.encodings: list[Encoding] = []
        self.returns: list[float] = []
        self.status: list[str] = []

    def on_episodes(self, evaluated: Evaluated) -> None:
        self.encodings += evaluated.batch.encodings
        self.returns += evaluated.batch.returns.tolist()
        self.status += evaluated.batch.status


def make_envs(space: SearchSpace = toy, num_envs: int = 8, landscape: int = 0) -> ConstructionVectorEnv:
    """Return environments on a synthetic landscape."""
    evaluator = SyntheticEvaluator(space, evaluation_seed=landscape)
    return ConstructionVectorEnv(space, evaluator, Accuracy(), num_envs=num_envs, autoreset_mode="Disabled")


def make_agent(space: SearchSpace = toy, seed: int = 0, preset: str | None = None, **config: Any) -> Any:
    """Return a Q-learning agent that repeats itself, with whole prefixes as states, as one writes them down by hand."""
    return nas_agents.make("q_learning", make_envs(space), seed, preset, **{"history": None, "redraws": 0, **config})


@pytest.mark.parametrize(
    ("history", "states"),
    [(1, [(0, 0), (1, 3), (2, 5), (3, 1)]), (2, [(0, 0, 0), (1, 0, 3), (2, 3, 5), (3, 5, 1)])],
)
def test_where_no_state_is_published_it_is_the_position_and_the_last_decisions(
    history: int, states: list[tuple[int, ...]]
) -> None:
    """Decisions plus one, 0 where there were fewer; earlier ones are forgotten."""
    agent = make_agent(cells, history=history)
    agent.learn(episodes([(2, 4, 0, 1, 3, 0)], [1.0], cells))
    assert list(agent.table)[:4] == states


def test_a_published_state_is_not_shortened() -> None:
    """The history is for spaces without one."""
    space = MetaQNNSpace()
    encoding = space.sample(np.random.default_rng(0))
    agents = [make_agent(space, history=history) for history in (1, None)]
    for agent in agents:
        agent.learn(episodes([encoding], [1.0], space))
    assert list(agents[0].table) == list(agents[1].table)


def episodes(
    encodings: Sequence[Encoding],
    returns: Sequence[float],
    space: SearchSpace = toy,
    first_seen: Sequence[bool] | None = None,
) -> EpisodeBatch:
    """Return finished episodes that are rewarded at their ends."""
    lengths = np.array([len(encoding) for encoding in encodings])
    count, longest = len(encodings), int(lengths.max())
    actions = space.pack(encodings)[0][:, :longest]
    masks = np.ones((count, longest, space.max_choices), np.bool_)
    observations = np.zeros((count, longest, len(space.observation_nvec)), np.int64)
    for row, encoding in enumerate(encodings):
        prefixes = space.pack([encoding[:position] for position in range(len(encoding))])
        masks[row, : len(encoding)] = space.masks(*prefixes)
        observations[row, : len(encoding)] = space.observe(*prefixes)
    rewards = np.zeros((count, longest))
    rewards[np.arange(count), lengths - 1] = returns
    new = np.ones(count, np.bool_) if first_seen is None else np.array(first_seen)
    return EpisodeBatch(observations, actions, masks, rewards, lengths, tuple(encodings), ("ok",) * count, new)


def with_values(agent: Any, values: dict[tuple[int, ...], Sequence[float]]) -> Any:
    """Return the agent after its table was replaced."""
    state = agent.state_dict()
    state["states"] = np.array(list(values), np.int64)
    state["values"] = np.array(list(values.values()), np.float64)
    state["memory"] = []
    agent.load_state_dict(state)
    return agent


def first_actions(agent: Any, count: int) -> list[int]:
    """Return what the agent decides first in `count` episodes."""
    agent.begin(count)
    masks = toy.masks(np.zeros((count, toy.max_length), np.int64), np.zeros(count, np.int64))
    return agent.act(np.zeros((count, toy.max_length)), masks, np.ones(count, np.bool_)).tolist()


def value_along(agent: Any, encoding: Encoding, space: SearchSpace = toy) -> list[float]:
    """Return the value of every decision of an architecture."""
    table = agent.table
    prefixes = [encoding[:position] for position in range(len(encoding))]
    states = map(tuple, space.states(*space.pack(prefixes)).tolist())
    return [float(table[state][choice]) for state, choice in zip(states, encoding, strict=True)]


def search(budget: int = 100, seed: int = 3, landscape: int = 0, **config: Any) -> tuple[Any, Log]:
    """Run one search and return the agent and what was published."""
    envs = make_envs(landscape=landscape)
    agent = nas_agents.make("q_learning", envs, seed, **config)
    log = Log()
    nas_agents.run(agent, envs, budget, seed, [log])
    return agent, log


# --- epsilon ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, 1.0), (1499, 1.0), (1500, 0.9), (1599, 0.9), (1600, 0.8), (2549, 0.2), (2550, 0.1), (2699, 0.1), (9999, 0.1)],
)
def test_epsilon_follows_its_schedule_and_stays_at_the_end(count: int, expected: float) -> None:
    """MetaQNN's: 1,500 architectures at random, then a tenth less in every phase."""
    assert nas_agents.AGENTS["q_learning"].presets["metaqnn"].epsilon(count) == expected


@pytest.mark.parametrize(
    ("counted", "expected"),
    [
        pytest.param("episodes", [1.0, 0.5, 0.0], id="every episode"),
        pytest.param("architectures", [1.0, 1.0, 0.5], id="only new architectures"),
    ],
)
def test_epsilon_counts_what_it_is_told_to(counted: str, expected: list[float]) -> None:
    """Two batches of three episodes, of which two and then one are new architectures."""
    agent = make_agent(epsilon_schedule=((1.0, 3), (0.5, 2), (0.0, 1)), counted=counted)
    found = [agent.epsilon]
    for first_seen in ([True, True, False], [False, True, False]):
        agent.learn(episodes([CHAIN] * 3, [0.5] * 3, first_seen=first_seen))
        found.append(agent.epsilon)
    assert found == expected


def test_learning_reports_the_epsilon_of_what_comes_next() -> None:
    """And the mean return and the number of known states."""
    agent = make_agent(epsilon_schedule=((1.0, 2), (0.5, 1)))
    found = agent.learn(episodes([CHAIN, (POOL, STOP)], [0.5, 0.7]))
    assert found == pytest.approx({"epsilon": 0.5, "return_mean": 0.6, "states": 4.0})


def test_random_decisions_are_as_frequent_as_epsilon_says() -> None:
    """With epsilon 0.3 and two legal choices, 15 % of 4,000 decisions are not the best, within five errors."""
    agent = with_values(make_agent(epsilon_schedule=((0.3, 1),)), {S0: [0.0, 1.0, 0.0, 0.0]})
    share = np.mean(np.array(first_actions(agent, 4000)) == POOL)
    assert share == pytest.approx(0.15, abs=5 * np.sqrt(0.15 * 0.85 / 4000))


def test_with_epsilon_1_the_values_do_not_matter() -> None:
    """Half of 4,000 decisions are the worse one of two, within five standard errors."""
    agent = with_values(make_agent(epsilon_schedule=EXPLORE), {S0: [0.0, 1.0, 0.0, 0.0]})
    share = np.mean(np.array(first_actions(agent, 4000)) == POOL)
    assert share == pytest.approx(0.5, abs=5 * np.sqrt(0.25 / 4000))


# --- acting ----------------------------------------------------------------------------------------


def test_with_epsilon_0_the_best_choice_is_taken_always() -> None:
    """500 times."""
    agent = with_values(make_agent(epsilon_schedule=EXPLOIT), {S0: [0.0, 0.4, 0.6, 0.0]})
    assert set(first_actions(agent, 500)) == {POOL}


def test_an_illegal_choice_is_not_taken_whatever_its_value() -> None:
    """Stop and the choice without a label are illegal at the start, and worth most."""
    agent = with_values(make_agent(epsilon_schedule=EXPLOIT), {S0: [9.0, 0.4, 0.6, 9.0]})
    assert set(first_actions(agent, 500)) == {POOL}


def test_ties_are_broken_at_random() -> None:
    """Of 4,000 decisions each of two equal ones gets half, within five standard errors."""
    agent = with_values(make_agent(epsilon_schedule=EXPLOIT), {S0: [0.0, 0.7, 0.7, 0.0]})
    counts = Counter(first_actions(agent, 4000))
    assert set(counts) == {CONV, POOL}
    assert counts[CONV] / 4000 == pytest.approx(0.5, abs=5 * np.sqrt(0.25 / 4000))


def test_in_a_state_never_seen_every_legal_choice_is_as_good() -> None:
    """An empty table decides at random, also without exploration."""
    assert set(first_actions(make_agent(epsilon_schedule=EXPLOIT), 100)) == {CONV, POOL}


def test_the_state_of_an_episode_follows_its_own_decisions() -> None:
    """The second decision is the best one behind the first."""
    agent = make_agent(epsilon_schedule=EXPLOIT)
    with_values(agent, {S0: [0.0, 1.0, 0.0, 0.0], S1: [0.0, 0.0, 0.0, 1.0]})
    first_actions(agent, 3)
    masks, alive = np.ones((3, 4), np.bool_), np.ones(3, np.bool_)
    assert agent.act(np.zeros((3, 6)), masks, alive).tolist() == [3, 3, 3]


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0])
def test_no_action_is_illegal(epsilon: float) -> None:
    """All of 300 episodes end with an architecture of the space."""
    _, log = search(300, epsilon_schedule=((epsilon, 1),))
    assert log.status == ["ok"] * 300


# --- learning --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # Q(s2) = 0.5 + 0.1 (0.9 - 0.5); Q(s1) = 0.5 + 0.1 (0.54 - 0.5); Q(s0) = 0.5 + 0.1 (0.504 - 0.5)
        pytest.param({"learning_rate": 0.1, "discount": 1.0}, [0.5004, 0.504, 0.54], id="the paper's discount"),
        # Q(s2) = 0.5 + 0.5 (0.9 - 0.5); Q(s1) = 0.5 + 0.5 (0.35 - 0.5); Q(s0) = 0.5 + 0.5 (0.25 - 0.5):
        # the other kernels keep 0.5, more than the 0.425 of this one
        pytest.param(
            {"learning_rate": 0.5, "discount": 0.5}, [0.375, 0.425, 0.7], id="the best next choice is another"
        ),
        # Q(s2) = 0.45; Q(s1) = 0.5 * 0.5 * 0.45; Q(s0) = 0.5 * 0.5 * 0.1125
        pytest.param(
            {"learning_rate": 0.5, "discount": 0.5, "initial_value": 0.0}, [0.028125, 0.1125, 0.45], id="from zero"
        ),
        pytest.param({"learning_rate": 1.0, "discount": 1.0}, [0.9, 0.9, 0.9], id="the reward runs back at once"),
        pytest.param({"learning_rate": 1.0, "discount": 0.0}, [0.0, 0.0, 0.9], id="shortsighted"),
    ],
)
def test_one_update_is_the_one_worked_out_by_hand(config: dict[str, float], expected: list[float]) -> None:
    """A reward of 0.9, from the end backwards: Q moves by alpha towards r + gamma max Q'."""
    agent = make_agent(replay_draws=0, **config)
    agent.learn(episodes([CHAIN], [0.9]))
    assert value_along(agent, CHAIN) == pytest.approx(expected)


def test_only_the_decisions_of_the_episode_move() -> None:
    """All other values of the visited states stay at the initial value."""
    agent = make_agent(replay_draws=0, initial_value=0.5)
    agent.learn(episodes([CHAIN], [0.9]))
    table = agent.table
    assert set(table) == {S0, S1, S2}
    others = [np.delete(table[state], choice).tolist() for state, choice in zip((S0, S1, S2), CHAIN, strict=True)]
    assert others == [[0.5] * 3] * 3


@pytest.mark.parametrize(
    ("first", "poisoned"),
    [
        # Behind a pool, another pool and the choice without a label are illegal.
        pytest.param((POOL, STOP), {(3, 0, 0, 0, 0, 0): [0.0, 0.0, 99.0, 99.0]}, id="pool after pool"),
        # Behind a convolution, only the choice without a label is.
        pytest.param((CONV, 2, STOP), {S1: [0.0, 0.0, 0.0, 0.0], S2: [0.0, 0.0, 0.0, 99.0]}, id="no label"),
    ],
)
def test_the_maximum_is_over_legal_choices_only(
    first: Encoding, poisoned: dict[tuple[int, ...], Sequence[float]]
) -> None:
    """A large value of an illegal choice never spreads."""
    agent = make_agent(replay_draws=0, learning_rate=1.0, initial_value=0.0)
    with_values(agent, poisoned)
    agent.learn(episodes([first], [0.6]))
    assert value_along(agent, first) == [0.6] * len(first)


def test_the_maximum_includes_legal_choices_never_tried() -> None:
    """A better alternative behind a decision makes the decision better."""
    agent = make_agent(replay_draws=0, learning_rate=1.0, initial_value=0.0)
    with_values(agent, {(3, 0, 0, 0, 0, 0): [0.0, 0.8, 0.0, 0.0]})
    agent.learn(episodes([(POOL, STOP)], [0.6]))
    assert value_along(agent, (POOL, STOP)) == [0.8, 0.6]


def test_episodes_of_a_batch_are_learnt_in_their_order() -> None:
    """With alpha 1 the later of two returns of one architecture stays."""
    agent = make_agent(replay_draws=0, learning_rate=1.0)
    agent.learn(episodes([CHAIN, CHAIN], [0.3, 0.8]))
    assert value_along(agent, CHAIN)[-1] == 0.8


def test_values_are_shared_between_prefixes_of_one_published_state() -> None:
    """MetaQNN's state forgets what came before global average pooling, so two chains move one value."""
    space = MetaQNNSpace(**REDUCED)
    one, other = (space.from_string(text) for text in ("C(8,1,1) GAP SM", "C(16,3,1) GAP SM"))
    agent = make_agent(space, replay_draws=0, learning_rate=0.5, initial_value=0.0)
    agent.learn(episodes([one, other], [0.4, 0.8], space))
    assert value_along(agent, one, space)[-1] == pytest.approx(0.5 * (0.5 * 0.4) + 0.5 * 0.8)


def test_the_table_grows_with_the_states() -> None:
    """Every unfinished prefix of the toy space is a state, and all keep their values."""
    everything = list(toy.enumerate())
    agent = make_agent(replay_draws=0, learning_rate=1.0)
    for start in range(0, len(everything), 7):
        batch = everything[start : start + 7]
        agent.learn(episodes(batch, [number / 1000 for number in range(start, start + len(batch))]))
    assert len(agent.table) == len({e[:position] for e in everything for position in range(len(e))})
    last = [value_along(agent, encoding)[-1] for encoding in everything]
    assert last == pytest.approx([number / 1000 for number in range(len(everything))])


# --- replay ----------------------------------------------------------------------------------------


def updates(value: float, reward: float, config: Any) -> float:
    """Return how often a last decision of value `initial_value` was moved towards `reward`."""
    return float(np.log((reward - value) / (reward - config.initial_value)) / np.log(1 - config.learning_rate))


@pytest.mark.parametrize(
    ("played", "draws", "expected"),
    [
        pytest.param(1, 0, 1, id="no replay"),
        pytest.param(1, 7, 8, id="one episode"),
        pytest.param(3, 7, 24, id="per episode played"),
    ],
)
def test_replay_adds_exactly_so_many_updates(played: int, draws: int, expected: int) -> None:
    """With one architecture in the memory the last value is r + (q0 - r) (1 - alpha) ** n."""
    agent = make_agent(replay_draws=draws, learning_rate=0.1, initial_value=0.5)
    agent.learn(episodes([CHAIN] * played, [0.9] * played))
    assert value_along(agent, CHAIN)[-1] == pytest.approx(0.9 - 0.4 * 0.9**expected)


def test_replay_draws_from_the_whole_memory() -> None:
    """The 60 draws after the second episode are shared between both, and none is lost."""
    agent = make_agent(replay_draws=60, learning_rate=0.05)
    agent.learn(episodes([CHAIN], [0.9]))
    agent.learn(episodes([(POOL, STOP)], [0.9]))
    old, new = (updates(value_along(agent, e)[-1], 0.9, agent.config) for e in (CHAIN, (POOL, STOP)))
    assert old + new == pytest.approx(2 + 2 * 60)
    # Of 60 fair draws, 30 with a standard deviation of 3.9 are old.
    assert 61 + 10 < old < 61 + 50


def test_a_repeated_architecture_is_in_the_memory_again() -> None:
    """Three of four remembered episodes get three quarters of 4,000 draws, within five standard errors."""
    agent = make_agent(replay_draws=1000, learning_rate=0.005, initial_value=0.0)
    agent.learn(episodes([CHAIN] * 3 + [(POOL, STOP)], [0.9] * 4))
    drawn = updates(value_along(agent, CHAIN)[-1], 0.9, agent.config) - 3
    assert drawn / 4000 == pytest.approx(0.75, abs=5 * np.sqrt(0.75 * 0.25 / 4000))


# --- intermediate rewards --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "encoding", "expected"),
    [
        pytest.param("none", CHAIN, [0.0, 0.0, 0.9], id="none"),
        pytest.param("length", CHAIN, [0.3, 0.3, 0.9], id="length 3"),
        pytest.param("length", (POOL, STOP), [0.45, 0.9], id="length 2"),
        pytest.param("max_length", CHAIN, [0.15, 0.15, 0.9], id="max_length 6"),
        pytest.param("max_length", (POOL, STOP), [0.15, 0.9], id="max_length 6, shorter"),
    ],
)
def test_intermediate_rewards_are_those_worked_out_by_hand(
    kind: str, encoding: Encoding, expected: list[float]
) -> None:
    """With alpha 1 and gamma 0 the values are the rewards themselves, here of a return of 0.9."""
    agent = make_agent(replay_draws=0, learning_rate=1.0, discount=0.0, intermediate_reward=kind)
    agent.learn(episodes([encoding], [0.9]))
    assert value_along(agent, encoding) == pytest.approx(expected)


def test_intermediate_rewards_add_up_along_an_episode() -> None:
    """BlockQNN's update with gamma 1: 0.9, then 0.3 more at every decision before."""
    agent = make_agent(replay_draws=0, learning_rate=1.0, initial_value=0.0, intermediate_reward="length")
    agent.learn(episodes([CHAIN], [0.9]))
    assert value_along(agent, CHAIN) == pytest.approx([1.5, 1.2, 0.9])


def test_replay_learns_intermediate_rewards_too() -> None:
    """The memory holds them: eight updates towards 0.3 with gamma 0."""
    agent = make_agent(replay_draws=7, learning_rate=0.1, discount=0.0, initial_value=0.0, intermediate_reward="length")
    agent.learn(episodes([CHAIN], [0.9]))
    assert value_along(agent, CHAIN) == pytest.approx([r * (1 - 0.9**8) for r in (0.3, 0.3, 0.9)])


def test_learning_leaves_the_batch_as_it_is() -> None:
    """Intermediate rewards are the agent's own; others read the batch after it."""
    batch = episodes([CHAIN], [0.9])
    make_agent(intermediate_reward="length").learn(batch)
    assert batch.rewards.tolist() == [[0.0, 0.0, 0.9]]


# --- what was learnt -------------------------------------------------------------------------------


def test_greedy_follows_the_largest_values() -> None:
    """Pool first, then a convolution, then its largest kernel; afterwards nothing is known."""
    agent = with_values(
        make_agent(initial_value=0.5),
        {S0: [0.0, 0.2, 0.3, 0.0], (3, 0, 0, 0, 0, 0): [0.1, 0.4, 0.0, 0.0], (3, 2, 0, 0, 0, 0): [0.1, 0.2, 0.3, 0.4]},
    )
    assert agent.greedy().encoding == (POOL, CONV, 3, STOP)


def test_greedy_shows_the_values_of_the_legal_choices() -> None:
    """By their labels, the initial value where nothing is known."""
    agent = with_values(make_agent(initial_value=0.5), {S0: [9.0, 0.2, 0.3, 9.0]})
    found = [(decided.choice, dict(decided.values)) for decided in agent.greedy().decisions]
    assert found == [("pool", {"conv": 0.2, "pool": 0.3}), ("stop", {"stop": 0.5, "conv": 0.5})]


def test_greedy_calls_its_values_q_values() -> None:
    """Whoever shows them needs their name."""
    assert make_agent().greedy().meaning == "Q-value"


def test_greedy_ignores_illegal_choices() -> None:
    """Whatever they are worth."""
    agent = with_values(make_agent(), {S0: [9.0, 0.4, 0.6, 9.0], (3, 0, 0, 0, 0, 0): [0.9, 0.1, 9.0, 9.0]})
    assert agent.greedy().encoding == (POOL, STOP)


@pytest.mark.parametrize(
    "space", [toy, MetaQNNSpace(**REDUCED), MetaQNNSpace()], ids=["toy", "metaqnn reduced", "metaqnn"]
)
def test_greedy_is_an_architecture_of_the_space(space: SearchSpace) -> None:
    """Also where most states are unknown."""
    rng = np.random.default_rng(0)
    agent = make_agent(space, learning_rate=1.0)
    encodings = [space.sample(rng) for _ in range(20)]
    agent.learn(episodes(encodings, rng.random(20).tolist(), space))
    found = agent.greedy()
    assert space.validate(found.encoding) == found.encoding


def test_greedy_draws_no_random_numbers() -> None:
    """Looking does not change a search."""
    agent = make_agent()
    before = agent.state_dict()["rng"]
    agent.greedy()
    assert agent.state_dict()["rng"] == before


def test_the_table_is_a_copy() -> None:
    """Writing into it changes nothing."""
    agent = make_agent(replay_draws=0)
    agent.learn(episodes([CHAIN], [0.9]))
    agent.table[S0][:] = 9.0
    assert agent.table[S0].max() < 1.0


# --- repeatability ---------------------------------------------------------------------------------


def assert_same_table(one: Any, other: Any) -> None:
    """Compare two agents' tables, bit by bit and in the order in which states were met."""
    assert list(one.table) == list(other.table)
    np.testing.assert_array_equal(list(one.table.values()), list(other.table.values()))


def test_the_same_seed_gives_the_same_table() -> None:
    """States, values and their order."""
    assert_same_table(search()[0], search()[0])


def test_another_seed_gives_another_table() -> None:
    """The seed decides."""
    assert list(search(seed=3)[0].table) != list(search(seed=4)[0].table)


def as_json(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state after the way through JSON, which knows no arrays."""

    def listed(value: npt.NDArray[Any]) -> list[Any]:
        return value.tolist()

    return json.loads(json.dumps(state, default=listed))


@pytest.mark.parametrize("convert", [dict, as_json], ids=["arrays", "through JSON"])
@pytest.mark.parametrize("played", [0, 8, 120], ids=lambda played: f"after {played}")
@pytest.mark.parametrize("config", [{}, {"counted": "architectures", "intermediate_reward": "length"}], ids=str)
def test_a_restored_agent_continues_exactly(config: dict[str, Any], played: int, convert: Any) -> None:
    """It proposes the same architectures and ends with the same table as one that was never interrupted."""
    schedule = ((1.0, 60), (0.3, 40), (0.1, 1))
    envs = make_envs()
    agent = nas_agents.make("q_learning", envs, 5, epsilon_schedule=schedule, **config)
    if played:
        nas_agents.run(agent, envs, played, 5)
    state = convert(agent.state_dict())
    restored = nas_agents.make("q_learning", envs, 77, epsilon_schedule=schedule, **config)
    restored.load_state_dict(state)
    logs = []
    for one in (agent, restored):
        logs.append(Log())
        nas_agents.run(one, envs, 100, 6, [logs[-1]])
    assert logs[0].encodings == logs[1].encodings
    assert_same_table(agent, restored)


def test_a_state_is_not_changed_by_going_on() -> None:
    """What was saved stays what it was."""
    envs = make_envs()
    agent = nas_agents.make("q_learning", envs, 5)
    nas_agents.run(agent, envs, 24, 5)
    state = agent.state_dict()
    before = json.dumps(as_json(state))
    nas_agents.run(agent, envs, 24, 6)
    assert json.dumps(as_json(state)) == before


# --- configurations --------------------------------------------------------------------------------

PRESETS = nas_agents.AGENTS["q_learning"].presets


def test_metaqnn_s_schedule_is_the_published_one() -> None:
    """Table 2: different architectures per epsilon."""
    assert PRESETS["metaqnn"].epsilon_schedule == (
        *((1.0, 1500), (0.9, 100), (0.8, 100), (0.7, 100), (0.6, 150)),
        *((0.5, 150), (0.4, 150), (0.3, 150), (0.2, 150), (0.1, 150)),
    )


def test_blockqnn_s_schedule_is_the_published_one() -> None:
    """Iterations of 64 episodes per epsilon."""
    assert PRESETS["blockqnn"].epsilon_schedule == (
        *((1.0, 95 * 64), (0.9, 7 * 64), (0.8, 7 * 64), (0.7, 7 * 64), (0.6, 10 * 64)),
        *((0.5, 10 * 64), (0.4, 10 * 64), (0.3, 10 * 64), (0.2, 10 * 64), (0.1, 12 * 64)),
    )


@pytest.mark.parametrize(
    ("preset", "total"),
    [pytest.param("metaqnn", 2700, id="metaqnn"), pytest.param("blockqnn", 178 * 64, id="blockqnn")],
)
def test_schedules_are_as_long_as_the_published_searches(preset: str, total: int) -> None:
    """2,700 architectures; 11,392 blocks."""
    assert sum(count for _, count in PRESETS[preset].epsilon_schedule) == total


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        pytest.param(
            "metaqnn",
            {
                "counted": "architectures",
                "learning_rate": 0.01,
                "discount": 1.0,
                "initial_value": 0.5,
                "batch_size": 1,
                "replay_draws": 100,
                "intermediate_reward": "none",
            },
            id="metaqnn",
        ),
        pytest.param(
            "blockqnn",
            {
                "counted": "episodes",
                "learning_rate": 0.01,
                "discount": 1.0,
                "initial_value": 0.5,
                "batch_size": 64,
                "replay_draws": 1,
                "intermediate_reward": "length",
            },
            id="blockqnn",
        ),
    ],
)
def test_presets_are_the_published_ones(preset: str, expected: dict[str, object]) -> None:
    """Everything but the schedule; 64 draws for 64 episodes are one per episode."""
    config = PRESETS[preset]
    assert {field: getattr(config, field) for field in expected} == expected


def test_a_schedule_may_come_as_lists() -> None:
    """As JSON and TOML have it."""
    assert make_agent(epsilon_schedule=[[1, 20], [0.1, 5]]).config.epsilon_schedule == ((1.0, 20), (0.1, 5))


SCHEDULES = [
    *((), "1.0x20", None, 1.0, [1.0, 20], [[1.0]], [[1.0, 20, 3]], [[1.1, 20]], [[-0.1, 20]], [[float("nan"), 20]]),
    *([[1.0, 0]], [[1.0, 2.5]], [[1.0, True]], [["1", 20]], [[1.0, 20], [0.5, 0]]),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_an_impossible_schedule_is_refused(schedule: object) -> None:
    """The message says what a schedule is and what came."""
    with pytest.raises(InvalidArgument) as caught:
        make_agent(epsilon_schedule=schedule)
    allowed = "a list of pairs (epsilon in [0, 1], count of at least 1)"
    assert str(caught.value) == f"epsilon_schedule must be {allowed}, got {schedule!r}."


REFUSED = [
    ("counted", "steps", "counted must be one of architectures, episodes, got 'steps'."),
    ("learning_rate", 0.0, "learning_rate must be above 0 and at most 1, got 0.0."),
    ("learning_rate", 1.1, "learning_rate must be above 0 and at most 1, got 1.1."),
    ("learning_rate", float("nan"), "learning_rate must be above 0 and at most 1, got nan."),
    ("discount", -0.1, "discount must be between 0 and 1, got -0.1."),
    ("discount", 1.1, "discount must be between 0 and 1, got 1.1."),
    ("initial_value", float("inf"), "initial_value must be a finite number, got inf."),
    ("batch_size", 0, "batch_size must be an integer of at least 1, got 0."),
    ("batch_size", 2.0, "batch_size must be an integer of at least 1, got 2.0."),
    ("replay_draws", -1, "replay_draws must be an integer of at least 0, got -1."),
    ("replay_draws", True, "replay_draws must be an integer of at least 0, got True."),
    ("intermediate_reward", "shared", "intermediate_reward must be one of none, length, max_length, got 'shared'."),
]


@pytest.mark.parametrize(
    ("field", "value", "message"), REFUSED, ids=[f"{field}={value!r}" for field, value, _ in REFUSED]
)
def test_an_impossible_setting_is_refused(field: str, value: object, message: str) -> None:
    """The message names the field, what is allowed and what came."""
    with pytest.raises(InvalidArgument) as caught:
        make_agent(**{field: value})
    assert str(caught.value) == message


@pytest.mark.parametrize("field", ["learning_rate", "discount", "initial_value"])
def test_a_setting_of_another_type_is_refused(field: str) -> None:
    """Text is no number."""
    with pytest.raises(InvalidArgument, match=f"{field}.* have a wrong type"):
        make_agent(**{field: "0.5"})


# --- no query for what is known --------------------------------------------------------------------


def canonicals(agent: Any, batches: int, space: SearchSpace) -> list[Encoding]:
    """Return the canonical architectures of so many batches of eight, each of which is learnt."""
    found: list[Encoding] = []
    envs = make_envs(space)
    log = Log()
    nas_agents.run(agent, envs, 8 * batches, 0, [log])
    found += map(space.canonical, log.encodings)
    return found


@pytest.mark.parametrize("epsilon", [1.0, 0.3])
def test_with_redraws_no_architecture_is_played_twice(epsilon: float) -> None:
    """Neither in one batch nor later, and an isomorphic one counts as the same: 400 of 6,466."""
    agent = make_agent(cells, epsilon_schedule=((epsilon, 1),), redraws=100)
    found = canonicals(agent, 50, cells)
    assert len(set(found)) == len(found) == 400


def test_what_has_not_come_back_yet_is_not_begun_again() -> None:
    """As where results come late: forty episodes one by one, none of them learnt from."""
    agent = make_agent(cells, epsilon_schedule=((0.1, 1),), redraws=100)
    agent.learn(episodes([(2, 4, 0, 1, 3, 0)], [1.0], cells))
    begun = []
    for _ in range(40):
        agent.begin(1)
        seen = [agent.act(np.zeros((1, 6)), np.ones((1, 5), np.bool_), np.ones(1, np.bool_))[0] for _ in range(6)]
        begun.append(cells.canonical(tuple(map(int, seen))))
    assert len(set(begun)) == 40


def test_without_redraws_architectures_are_played_again() -> None:
    """With epsilon 0.1, most of 400 episodes."""
    found = canonicals(make_agent(cells, epsilon_schedule=((0.1, 1),)), 50, cells)
    assert len(set(found)) < 200


def test_where_all_is_known_episodes_are_played_all_the_same() -> None:
    """The toy space has fewer architectures than are asked for."""
    found = canonicals(make_agent(redraws=10, epsilon_schedule=EXPLORE), 50, toy)
    assert len(found) == 400 > len(set(found))


def test_what_was_played_is_known_after_a_resume() -> None:
    """No architecture of before is drawn again."""
    agent = make_agent(cells, epsilon_schedule=((0.3, 1),), redraws=100)
    before = canonicals(agent, 20, cells)
    again = make_agent(cells, epsilon_schedule=((0.3, 1),), redraws=100)
    again.load_state_dict(agent.state_dict())
    assert set(before).isdisjoint(canonicals(again, 20, cells))


def test_its_policy_plays_every_episode_by_the_same_values() -> None:
    """What it has learnt, and not what it has left to try; its own generator is not drawn from."""
    agent = with_values(make_agent(epsilon_schedule=EXPLOIT, redraws=10), {S0: [0.0, 0.4, 0.6, 0.0]})
    before = agent.state_dict()["rng"]
    policy = agent.policy()
    assert (policy.config.redraws, set(first_actions(policy, 100))) == (0, {POOL})
    assert agent.state_dict()["rng"] == before


@pytest.mark.parametrize("preset", ["metaqnn", "blockqnn"])
def test_the_published_searches_play_every_episode(preset: str) -> None:
    """Repeats included: they are in the papers' memories too."""
    assert nas_agents.AGENTS["q_learning"].presets[preset].redraws == 0


# --- does it learn ---------------------------------------------------------------------------------


@pytest.mark.parametrize("landscape", range(3))
def test_it_learns_a_landscape(landscape: int) -> None:
    """The last 50 of 600 returns are far better than uniform sampling on average."""
    evaluator = SyntheticEvaluator(toy, evaluation_seed=landscape)
    rng = np.random.default_rng(0)
    uniform = [evaluator.evaluate_one(toy.sample(rng)).metrics["valid_accuracy"] for _ in range(1000)]
    schedule = ((1.0, 200), (0.5, 150), (0.2, 150), (0.05, 1))
    _, log = search(600, seed=landscape, landscape=landscape, epsilon_schedule=schedule, redraws=0)
    assert np.mean(log.returns[-50:]) > np.mean(uniform) + 0.3


def test_what_it_learnt_is_better_than_most_architectures() -> None:
    """The greedy architecture is among the best tenth of the toy space."""
    agent, _ = search(600, epsilon_schedule=((1.0, 300), (0.3, 150), (0.1, 1)), redraws=0)
    evaluator = SyntheticEvaluator(toy)
    accuracies = {e: evaluator.evaluate_one(e).metrics["valid_accuracy"] for e in toy.enumerate()}
    assert accuracies[agent.greedy().encoding] >= np.quantile(list(accuracies.values()), 0.9)
