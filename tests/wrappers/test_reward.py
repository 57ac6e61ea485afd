"""What the reward wrappers make of rewards, in single and in vector environments."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from hypothesis import given
from hypothesis import strategies as st
from wrappers.lockstep import (
    Plan,
    WrapEnv,
    WrapVectorEnv,
    assert_equals_singles,
    assert_spec_rebuilds,
    check_quietly,
    check_vector,
    choose,
    decided,
    every_id,
    make,
    make_vec,
    plans,
    properties,
    small_single,
    small_vector,
)

from nas_gym.errors import InvalidArgument
from nas_gym.search_spaces import Encoding, SearchSpace
from nas_gym.wrappers import (
    DeltaReward,
    NormaliseReward,
    PenaliseMasked,
    PotentialShaping,
    VectorDeltaReward,
    VectorNormaliseReward,
    VectorPenaliseMasked,
    VectorPotentialShaping,
)

POTENTIAL = "wrappers.lockstep:decided"

PAIRS: dict[str, tuple[WrapVectorEnv, WrapEnv]] = {
    "shaping": (
        lambda envs: VectorPotentialShaping(envs, decided, 0.9),
        lambda env: PotentialShaping(env, decided, 0.9),
    ),
    "improvement": (VectorDeltaReward, DeltaReward),
    "difference": (lambda envs: VectorDeltaReward(envs, "previous"), lambda env: DeltaReward(env, "previous")),
    "normalised": (VectorNormaliseReward, NormaliseReward),
}
every_pair = pytest.mark.parametrize(("wrap_vector", "wrap_single"), list(PAIRS.values()), ids=list(PAIRS))
STACKS: dict[str, WrapEnv] = {
    "shaping": lambda env: PotentialShaping(env, POTENTIAL),
    "improvement": DeltaReward,
    "normalised": NormaliseReward,
}
every_stack = pytest.mark.parametrize("wrap", list(STACKS.values()), ids=list(STACKS))

returns = st.lists(st.floats(-10, 10), min_size=1, max_size=12)


class Scripted(gymnasium.Env[Any, Any]):
    """Pays given returns, one an episode, half of each in its first and half in its second step."""

    observation_space = spaces.Discrete(1)
    action_space = spaces.Discrete(1)

    def __init__(self, script: list[float]) -> None:
        self.script = script
        self.episode = -1
        self.taken = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode, self.taken = self.episode + 1, 0
        return np.int64(0), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.taken += 1
        return np.int64(0), self.script[self.episode % len(self.script)] / 2, self.taken == 2, False, {}


def play(wrapped: Any, episodes: int) -> list[float]:
    """Return the returns of some episodes of two steps."""
    found = []
    for _ in range(episodes):
        wrapped.reset()
        found.append(wrapped.step(0)[1] + wrapped.step(0)[1])
    return found


def play_vector(wrapped: Any, episodes: int) -> list[list[float]]:
    """Return the returns of some episodes of two steps in every row; the mode is "NextStep"."""
    found = []
    wrapped.reset()
    for _ in range(episodes):
        found.append((wrapped.step(np.zeros(wrapped.num_envs, int))[1] * 1.0).tolist())
        last = wrapped.step(np.zeros(wrapped.num_envs, int))[1].tolist()
        found[-1] = [one + other for one, other in zip(found[-1], last, strict=True)]
        wrapped.step(np.zeros(wrapped.num_envs, int))
    return found


def scripted_vector(script: list[list[float]]) -> SyncVectorEnv:
    """Return a vector environment with a script a row."""
    return SyncVectorEnv([lambda row=row: Scripted(row) for row in script])


def infinite(space: SearchSpace, prefix: Encoding) -> float:
    """Return a potential that is no number for long prefixes."""
    return float("inf") if prefix else 0.0


class TestEqualsSingles:
    """A vector form equals Gymnasium's vector of single forms over random streams, masked actions included."""

    @every_pair
    @properties
    @given(plan=plans())
    def test_in_every_reward(self, plan: Plan, wrap_vector: WrapVectorEnv, wrap_single: WrapEnv) -> None:
        """Seeds and partial resets are included."""
        assert_equals_singles(plan, wrap_vector, wrap_single)

    @every_pair
    @properties
    @given(plan=plans())
    def test_around_masked_actions_that_are_ignored(
        self, plan: Plan, wrap_vector: WrapVectorEnv, wrap_single: WrapEnv
    ) -> None:
        """Penalties and truncations are rewards and ends as any other."""
        assert_equals_singles(
            plan,
            lambda envs: wrap_vector(VectorPenaliseMasked(envs, limit=2)),
            lambda env: wrap_single(PenaliseMasked(env, limit=2)),
        )


class TestShaping:
    """`PotentialShaping` and its vector form."""

    def test_a_step_adds_the_difference_of_the_potentials(self) -> None:
        """With a discount, that of the next state counts less."""
        env = PotentialShaping(make("NAS-Cell-v0"), decided, discount=0.5)
        env.reset()
        assert env.step(4)[1] == pytest.approx(0.5 * (0.25 + 1 / 6 + 0.04) - 0.25)

    @properties
    @given(plan=plans(largest=1))
    def test_the_differences_of_an_episode_cancel(self, plan: Plan) -> None:
        """Without a discount, shaping lowers the return by the potential of the start, whatever is done."""
        shaped, plain = PotentialShaping(small_single(), decided), small_single()
        totals = [0.0, 0.0]
        for env in (shaped, plain):
            env.reset()
        over, numbers = False, iter([numbers[0] for numbers in plan.numbers] + [19] * 9)
        while not over:
            action = choose(next(numbers), plain.action_masks())
            outcomes = [env.step(action) for env in (shaped, plain)]
            totals = [total + outcome[1] for total, outcome in zip(totals, outcomes, strict=True)]
            over = outcomes[1][2]
        assert totals[0] == pytest.approx(totals[1] - 0.25, abs=1e-12)

    def test_a_potential_can_be_named(self) -> None:
        """The name of a function is resolved when the wrapper is made."""
        shaped, named = (PotentialShaping(make(), potential) for potential in (decided, POTENTIAL))
        for env in (shaped, named):
            env.reset()
        assert shaped.step(3)[1] == named.step(3)[1] != 0

    @pytest.mark.parametrize(
        ("wrap", "build"), [(PotentialShaping, make), (VectorPotentialShaping, make_vec)], ids=["single", "vector"]
    )
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"potential": "decided"}, "'module:Class'"),
            ({"potential": "wrappers.lockstep:missing"}, "no attribute 'missing'"),
            ({"potential": "wrappers.lockstep:MODES"}, "must be a function"),
            ({"potential": 3}, "must be a function"),
            ({"potential": lambda space, prefix: float("nan")}, "potential of"),
            ({"potential": decided, "discount": 0.0}, "discount"),
            ({"potential": decided, "discount": 1.1}, "discount"),
            ({"potential": decided, "discount": "1"}, "discount"),
        ],
    )
    def test_arguments_are_checked(
        self, wrap: Callable[..., Any], build: Callable[[], Any], arguments: dict[str, Any], message: str
    ) -> None:
        """The message names what is wrong."""
        with pytest.raises(InvalidArgument, match=message):
            wrap(build(), **arguments)

    @pytest.mark.parametrize(
        ("wrap", "env"),
        [(PotentialShaping, Scripted([1.0])), (VectorPotentialShaping, scripted_vector([[1.0]]))],
        ids=["single", "vector"],
    )
    def test_environments_of_other_projects_are_refused(self, wrap: Callable[..., Any], env: Any) -> None:
        """They have no prefix that a potential could judge."""
        with pytest.raises(InvalidArgument, match="environment of nas-gym"):
            wrap(env, decided)

    def test_a_potential_that_is_not_finite_raises(self) -> None:
        """It would spoil every reward after it."""
        env = PotentialShaping(make(), infinite)
        env.reset()
        with pytest.raises(InvalidArgument, match=r"potential of \(0,\)"):
            env.step(0)


class TestDelta:
    """`DeltaReward` and its vector form."""

    @given(script=returns)
    def test_an_improvement_is_measured_against_the_best(self, script: list[float]) -> None:
        """The first episode is compared with `initial`, even if that is better than all."""
        best = [-2.0, *np.maximum.accumulate(script)[:-1]]
        found = play(DeltaReward(Scripted(script), initial=-2.0), len(script))
        assert found == pytest.approx([value - before for value, before in zip(script, best, strict=True)])

    @given(script=returns)
    def test_a_difference_is_measured_against_the_episode_before(self, script: list[float]) -> None:
        """The first episode is compared with `initial`."""
        found = play(DeltaReward(Scripted(script), "previous"), len(script))
        assert found == pytest.approx(np.diff(script, prepend=0.0).tolist())

    @given(script=st.lists(st.lists(st.floats(-10, 10), min_size=3, max_size=3), min_size=1, max_size=4))
    @pytest.mark.parametrize("reference", ["best", "previous"])
    def test_rows_may_share_what_they_are_compared_with(self, reference: str, script: list[list[float]]) -> None:
        """Shared, a vector is one sequence of episodes: step by step, the rows of a step in order."""
        episodes = len(script[0])
        found = play_vector(VectorDeltaReward(scripted_vector(script), reference, shared=True), episodes)
        sequence = np.array(script).T.reshape(-1).tolist()
        expected = play(DeltaReward(Scripted(sequence), reference), len(sequence))
        assert np.array(found).reshape(-1).tolist() == pytest.approx(expected)

    def test_a_seed_makes_it_forget(self) -> None:
        """What follows a seed depends on nothing before it."""
        env = DeltaReward(Scripted([3.0]))
        play(env, 2)
        env.reset(seed=0)
        env.step(0)
        assert (env.step(0)[1], env.compared_with) == (1.5, 3.0)

    def test_one_seed_makes_rows_that_share_forget(self) -> None:
        """What is shared is forgotten by all."""
        envs = VectorDeltaReward(scripted_vector([[3.0], [4.0]]), shared=True)
        play_vector(envs, 1)
        envs.reset(seed=[None, 1])
        assert envs.compared_with.tolist() == [0.0]

    @pytest.mark.parametrize(
        ("wrap", "build"), [(DeltaReward, make), (VectorDeltaReward, make_vec)], ids=["single", "vector"]
    )
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"reference": "worst"}, "'best', 'previous', got 'worst'"),
            ({"reference": None}, "reference"),
            ({"initial": float("nan")}, "initial"),
        ],
    )
    def test_arguments_are_checked(
        self, wrap: Callable[..., Any], build: Callable[[], Any], arguments: dict[str, Any], message: str
    ) -> None:
        """The message names what is wrong and what is allowed."""
        with pytest.raises(InvalidArgument, match=message):
            wrap(build(), **arguments)


class TestNormalise:
    """`NormaliseReward` and its vector form."""

    @given(script=returns)
    def test_statistics_are_those_of_all_returns(self, script: list[float]) -> None:
        """Mean and standard deviation agree with NumPy's."""
        env = NormaliseReward(Scripted(script))
        play(env, len(script))
        assert (env.count, env.mean) == (len(script), pytest.approx(np.mean(script), abs=1e-9))
        if np.ptp(script) > 1e-3:
            assert env.std == pytest.approx(np.std(script))

    def test_a_return_is_normalised_with_its_own_included(self) -> None:
        """After 1, a return of 3 is one standard deviation above the mean."""
        assert play(NormaliseReward(Scripted([1.0, 3.0])), 2) == pytest.approx([0.0, 1.0])

    def test_equal_returns_are_zero(self) -> None:
        """Where nothing differs, nothing is divided by zero."""
        assert play(NormaliseReward(Scripted([0.1])), 5) == pytest.approx([0.0] * 5)

    def test_before_any_return_a_frozen_one_changes_nothing(self) -> None:
        """The mean is 0 and the standard deviation 1."""
        assert play(NormaliseReward(Scripted([2.0, 3.0]), frozen=True), 2) == [2.0, 3.0]

    def test_frozen_statistics_stay(self) -> None:
        """Returns are normalised, and not taken into account."""
        env = NormaliseReward(Scripted([1.0, 3.0, 5.0]))
        play(env, 2)
        env.frozen = True
        assert (play(env, 1), env.count) == ([pytest.approx(3.0)], 2)

    def test_a_seed_leaves_the_statistics(self) -> None:
        """They are knowledge about the rewards, not a part of the dynamics."""
        env = NormaliseReward(Scripted([1.0, 3.0]))
        play(env, 2)
        env.reset(seed=0)
        assert env.count == 2

    def test_statistics_survive_json(self) -> None:
        """`state_dict` and `load_state_dict` continue elsewhere."""
        first, second = NormaliseReward(Scripted([1.0, 3.0])), NormaliseReward(Scripted([5.0]), frozen=True)
        play(first, 2)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert (second.count, second.mean, second.std, play(second, 1)) == (2, 2.0, 1.0, [pytest.approx(3.0)])

    @pytest.mark.parametrize(
        "state",
        [
            {},
            {"count": [1], "mean": [0.0]},
            {"count": [1, 1], "mean": [0.0, 0.0], "squares": [0.0, 0.0]},
            {"count": [-1], "mean": [0.0], "squares": [0.0]},
            {"count": [1.5], "mean": [0.0], "squares": [0.0]},
            {"count": [1], "mean": [float("nan")], "squares": [0.0]},
            {"count": [1], "mean": [0.0], "squares": [-1.0]},
        ],
    )
    def test_another_state_is_refused(self, state: dict[str, list[Any]]) -> None:
        """Missing entries, other lengths and impossible values raise and change nothing."""
        env = NormaliseReward(Scripted([1.0]))
        with pytest.raises(InvalidArgument):
            env.load_state_dict(state)
        assert env.state_dict() == {"count": [0], "mean": [0.0], "squares": [0.0]}

    @given(script=st.lists(st.lists(st.floats(-10, 10), min_size=3, max_size=3), min_size=1, max_size=4))
    def test_rows_may_share_their_statistics(self, script: list[list[float]]) -> None:
        """Shared, a vector is one sequence of episodes: step by step, the rows of a step in order."""
        envs = VectorNormaliseReward(scripted_vector(script), shared=True)
        found = play_vector(envs, len(script[0]))
        sequence = np.array(script).T.reshape(-1).tolist()
        env = NormaliseReward(Scripted(sequence))
        assert np.array(found).reshape(-1).tolist() == pytest.approx(play(env, len(sequence)), abs=1e-6)
        assert (envs.count.tolist(), envs.mean.tolist()) == ([env.count], [env.mean])

    @pytest.mark.parametrize(
        ("wrap", "build"), [(NormaliseReward, make), (VectorNormaliseReward, make_vec)], ids=["single", "vector"]
    )
    @pytest.mark.parametrize("arguments", [{"frozen": 1}, {"epsilon": 0.0}, {"epsilon": -1.0}, {"epsilon": "1"}])
    def test_arguments_are_checked(
        self, wrap: Callable[..., Any], build: Callable[[], Any], arguments: dict[str, Any]
    ) -> None:
        """The message names the argument."""
        with pytest.raises(InvalidArgument, match=next(iter(arguments))):
            wrap(build(), **arguments)


class TestRest:
    """What holds for all of them."""

    @every_pair
    def test_vector_forms_keep_the_contract(self, wrap_vector: WrapVectorEnv, wrap_single: WrapEnv) -> None:
        """They describe themselves as vectors of single forms do, and no two results share memory."""
        check_vector(wrap_vector, wrap_single)

    @every_id
    @every_stack
    def test_the_specification_rebuilds_the_stack(self, wrap: WrapEnv, name: str) -> None:
        """`gymnasium.make(env.spec)` makes the same wrappers, also from JSON."""
        assert_spec_rebuilds(wrap(make(name)))

    def test_a_specification_with_a_function_rebuilds_too(self) -> None:
        """It is not JSON, and otherwise as good as a name."""
        env = PotentialShaping(make(), decided)
        assert str(gymnasium.make(env.spec or "")) == str(env)

    @every_id
    @every_stack
    def test_gymnasium_finds_nothing(self, wrap: WrapEnv, name: str) -> None:
        """Gymnasium's checker is content."""
        check_quietly(wrap(make(name)))

    @every_pair
    def test_rewards_below_stay_as_they_were(self, wrap_vector: WrapVectorEnv, wrap_single: WrapEnv) -> None:
        """A wrapper returns new rewards and changes none of the metrics in the info."""
        envs, plain = wrap_vector(small_vector(2, "Disabled")), small_vector(2, "Disabled")
        infos = []
        for player in (envs, plain):
            player.reset(seed=0)
            infos.append(player.step(np.array([19, 19]))[-1]["metrics"]["valid_accuracy"].tolist())
        assert infos[0] == infos[1]
