"""The vector environment: equal to Gymnasium's vector of single environments, and defined where that one is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import CONV, POOL, STOP, ToySpace

from nas_gym.envs.cell import CellEnv, CellVectorEnv
from nas_gym.envs.core.construction import ConstructionEnv, ConstructionVectorEnv
from nas_gym.envs.core.counter import REPEAT_QUERIES
from nas_gym.envs.core.observations import OBSERVATIONS
from nas_gym.errors import BudgetExhausted, EpisodeOver, FidelityError, InvalidAction, InvalidArgument, NASGymError
from nas_gym.evaluators.core import Evaluation, Evaluations, Queries, Status
from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.objectives import OBJECTIVES, Accuracy, Objective
from nas_gym.search_spaces import Encoding
from nas_gym.testing import difference

SPACE = ToySpace()
MODES = list(AutoresetMode)
FIDELITIES = (1, 2, 4)

every_mode = pytest.mark.parametrize("mode", MODES, ids=[mode.value for mode in MODES])
properties = settings(max_examples=30)


class HalfFailing(SyntheticEvaluator):
    """Fails for every architecture whose decisions add up to an odd number, and says why."""

    def evaluate(self, queries: Queries) -> Evaluations:
        """Evaluate a batch."""
        return Evaluations.of([self.evaluate_one(row) for row in queries.rows], self.search_metrics)

    def evaluate_one(self, encoding: Encoding, fidelity: int | None = None, parent: str | None = None) -> Evaluation:
        """Evaluate one architecture."""
        if sum(encoding) % 2 == 0:
            return super().evaluate_one(encoding, fidelity, parent)
        metrics = dict.fromkeys(self.search_metrics, float("nan"))
        return Evaluation(Status.DIVERGED, metrics, 2.5, f"the decisions of {encoding} add up to an odd number")


@dataclass(frozen=True)
class Plan:
    """What to do with two vector environments in lockstep.

    Attributes:
        num_envs: number of sub-environments N.
        mode: auto-reset mode.
        numbers: for every step N numbers; below 16 they select a legal action, else they are 16 + any action.
        resets: for every step the sub-environments to reset afterwards, as bits.
        fidelities: for every step the fidelity that such a reset asks for, or None.
    """

    num_envs: int
    mode: AutoresetMode
    numbers: list[list[int]]
    resets: list[int]
    fidelities: list[int | None]


@st.composite
def plans(draw: st.DrawFn, choices: int = SPACE.max_choices, largest: int = 4, repetitive: bool = False) -> Plan:
    """Draw a plan; a repetitive one often builds the same architecture again."""
    count = draw(st.integers(1, largest))
    steps = draw(st.integers(1, 25))
    number = st.integers(0, 15 + choices)
    if repetitive:
        number = st.sampled_from((1,) * 40 + (0, 2))
    numbers = draw(st.lists(st.lists(number, min_size=count, max_size=count), min_size=steps, max_size=steps))
    some = st.one_of(st.just(0), st.just(0), st.integers(0, 2**count - 1))
    resets = draw(st.lists(some, min_size=steps, max_size=steps))
    fidelities = draw(st.lists(st.sampled_from((None, *FIDELITIES)), min_size=steps, max_size=steps))
    return Plan(count, draw(st.sampled_from(MODES)), numbers, resets, fidelities)


def play(
    plan: Plan, vector: ConstructionVectorEnv, reference: SyncVectorEnv, with_fidelities: bool = False
) -> Iterator[tuple[Any, Any]]:
    """Carry out a plan in both environments; iterate over pairs of results."""
    yield vector.reset(seed=3), reference.reset(seed=3)
    for numbers, bits, fidelity in zip(plan.numbers, plan.resets, plan.fidelities, strict=True):
        masks = vector.action_masks()
        actions = np.array([choose(number, mask) for number, mask in zip(numbers, masks, strict=True)])
        result = vector.step(actions)
        yield result, reference.step(actions)
        chosen = np.array([bool(bits >> row & 1) for row in range(plan.num_envs)])
        if plan.mode is AutoresetMode.DISABLED:
            chosen |= result[2]
        if chosen.any():
            options = {"reset_mask": chosen}
            if with_fidelities and fidelity is not None:
                options["fidelity"] = fidelity
            yield vector.reset(options=dict(options)), reference.reset(options=dict(options))


def choose(number: int, mask: npt.NDArray[np.bool_]) -> int:
    """Return the action that a number of a plan stands for."""
    legal = np.flatnonzero(mask)
    return int(legal[number % len(legal)]) if number < 16 else number - 16


def assert_equal(
    plan: Plan, vector: ConstructionVectorEnv, make_single: Callable[[], ConstructionEnv], with_fidelities: bool = False
) -> None:
    """Assert that a vector environment equals Gymnasium's vector of single ones in every value of every result."""
    reference = SyncVectorEnv([make_single] * plan.num_envs, autoreset_mode=plan.mode)
    for mine, theirs in play(plan, vector, reference, with_fidelities):
        assert difference(mine, theirs) is None


def toy_vector(
    num_envs: int = 2,
    mode: str | AutoresetMode = "NextStep",
    **kwargs: Any,
) -> ConstructionVectorEnv:
    """Return a vector environment over the toy space."""
    evaluator = kwargs.pop("evaluator", SyntheticEvaluator(SPACE))
    objective = kwargs.pop("objective", Accuracy())
    return ConstructionVectorEnv(SPACE, evaluator, objective, num_envs=num_envs, autoreset_mode=mode, **kwargs)


def toy_single(
    **kwargs: Any,
) -> ConstructionEnv:
    """Return a single environment over the toy space."""
    evaluator = kwargs.pop("evaluator", SyntheticEvaluator(SPACE))
    return ConstructionEnv(SPACE, evaluator, kwargs.pop("objective", Accuracy()), **kwargs)


class TestEqualsSingle:
    """Equality with single environments over random streams, masked actions and partial resets included."""

    @properties
    @given(plan=plans(), observation=st.sampled_from(list(OBSERVATIONS)), repeat_query=st.sampled_from(REPEAT_QUERIES))
    def test_on_episodes_of_unequal_length(self, plan: Plan, observation: str, repeat_query: str) -> None:
        """A grammar of varying length with masks gives equal streams."""
        kwargs = {"observation": observation, "repeat_query": repeat_query}
        assert_equal(plan, toy_vector(plan.num_envs, plan.mode, **kwargs), lambda: toy_single(**kwargs))

    @properties
    @given(
        plan=plans(choices=5), fidelity=st.sampled_from((None, *FIDELITIES)), noise=st.sampled_from(("mean", "sample"))
    )
    def test_on_a_table_with_fidelities(self, plan: Plan, fidelity: int | None, noise: str, small_table: Path) -> None:
        """Fidelities per episode and a default one give equal streams, also where seeds of the table are drawn."""
        kwargs: dict[str, Any] = {"table": str(small_table), "fidelity": fidelity, "noise": noise}
        vector = CellVectorEnv(plan.num_envs, autoreset_mode=plan.mode, **kwargs)
        assert_equal(plan, vector, lambda: CellEnv(**kwargs), with_fidelities=True)

    @properties
    @given(plan=plans(choices=5, largest=1, repetitive=True))
    def test_with_a_new_answer_to_every_repeat(self, plan: Plan, small_table: Path) -> None:
        """One sub-environment draws the same noise for repeated queries as a single environment."""
        kwargs: dict[str, Any] = {"table": str(small_table), "noise": "sample", "repeat_query": "resample+charge"}
        vector = CellVectorEnv(1, autoreset_mode=plan.mode, **kwargs)
        assert_equal(plan, vector, lambda: CellEnv(**kwargs), with_fidelities=True)

    def test_the_default_fidelity_among_others_is_the_same_query(self, small_table: Path) -> None:
        """A cached answer does not depend on the fidelities of the other rows of its batch."""
        envs = CellVectorEnv(2, table=str(small_table), noise="sample", autoreset_mode="Disabled")
        rewards: list[list[float]] = []
        for options in ({"fidelity": 2, "reset_mask": np.array([False, True])}, None):
            rewards.append([])
            for operation in range(5):
                envs.reset()
                envs.reset(options=options)
                rewards[-1] += [envs.step([operation, 0])[1][0].item() for _ in range(6)][-1:]
        assert rewards[0] == rewards[1]

    @properties
    @given(plan=plans())
    def test_with_failed_evaluations(self, plan: Plan) -> None:
        """Failures with messages give equal streams."""
        vector = toy_vector(plan.num_envs, plan.mode, evaluator=HalfFailing(SPACE))
        assert_equal(plan, vector, lambda: toy_single(evaluator=HalfFailing(SPACE)))

    @pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name != "perplexity"])
    @settings(properties, max_examples=8)
    @given(plan=plans())
    def test_under_every_objective(self, plan: Plan, objective: str) -> None:
        """Every objective rewards a batch exactly as it rewards single evaluations."""
        chosen: Objective = OBJECTIVES[objective]()
        vector = toy_vector(plan.num_envs, plan.mode, objective=chosen)
        assert_equal(plan, vector, lambda: toy_single(objective=chosen))

    @properties
    @given(plan=plans())
    def test_in_what_it_counts(self, plan: Plan) -> None:
        """The counter holds the sums of the single environments' steps, queries and simulated seconds."""
        vector = toy_vector(plan.num_envs, plan.mode)
        reference = SyncVectorEnv([toy_single] * plan.num_envs, autoreset_mode=plan.mode)
        for _ in play(plan, vector, reference):
            pass
        mine, theirs = vector.counter.usage(), [env.unwrapped.counter.usage() for env in reference.envs]
        assert (mine.environment_steps, mine.queries, mine.simulated_seconds) == (
            sum(usage.environment_steps for usage in theirs),
            sum(usage.queries for usage in theirs),
            pytest.approx(sum(usage.simulated_seconds for usage in theirs)),
        )


class TestAutoreset:
    """What the three modes do with episodes that ended, beyond what a comparison shows."""

    def test_next_step_ignores_the_action_after_an_end(self) -> None:
        """In the mode "NextStep" the step after an end begins a new episode, whatever the action."""
        envs = toy_vector(1, "NextStep")
        first, _ = envs.reset()
        envs.step([POOL])
        assert envs.step([STOP])[2].tolist() == [True]
        observations, rewards, terminated, _, info = envs.step([3])
        assert (observations.tolist(), rewards.tolist(), terminated.tolist()) == (first.tolist(), [0.0], [False])
        assert set(info) == {"action_mask", "_action_mask"}

    def test_same_step_keeps_the_last_observation(self) -> None:
        """In the mode "SameStep" the finished architecture is in `final_obs` and the new one is empty."""
        envs = toy_vector(1, "SameStep")
        envs.reset()
        envs.step([POOL])
        observations, _, terminated, _, info = envs.step([STOP])
        assert terminated.tolist() == [True]
        assert observations.tolist() == [[0] * 6]
        assert info["final_obs"][0].tolist() == [POOL + 1, STOP + 1, 0, 0, 0, 0]

    def test_disabled_waits_for_a_reset(self) -> None:
        """In the mode "Disabled" a finished row stays terminated with reward 0, uncounted, until it is reset."""
        envs = toy_vector(2, "Disabled")
        envs.reset()
        envs.step([POOL, CONV])
        finished, *_ = envs.step([STOP, 0])
        steps, queries = envs.counter.environment_steps, envs.counter.queries
        observations, rewards, terminated, _, info = envs.step([3, CONV])
        assert (rewards[0], terminated.tolist()) == (0.0, [True, False])
        assert observations[0].tolist() == finished[0].tolist()
        assert info["action_mask"][0].all()
        assert (envs.counter.environment_steps, envs.counter.queries) == (steps + 1, queries)

    def test_disabled_resets_some_and_continues_the_others(self) -> None:
        """`reset_mask` begins the chosen rows only and reports the masks of these alone."""
        envs = toy_vector(2, "Disabled")
        envs.reset()
        before, *_ = envs.step([POOL, CONV])
        observations, info = envs.reset(options={"reset_mask": np.array([True, False])})
        assert observations.tolist() == [[0] * 6, before[1].tolist()]
        assert info["_action_mask"].tolist() == [True, False]

    @pytest.mark.parametrize("given_mode", ["NextStep", "SameStep", "Disabled", *MODES], ids=str)
    def test_modes_are_published(self, given_mode: str | AutoresetMode) -> None:
        """The metadata hold the mode as Gymnasium's enumeration."""
        assert toy_vector(1, given_mode).metadata["autoreset_mode"] is AutoresetMode(given_mode)


class TestResults:
    """What a caller may do with returned data."""

    def test_changing_rewards_leaves_the_infos_alone(self) -> None:
        """Rewards that are a metric share no memory with that metric in the info."""
        envs = toy_vector(2)
        envs.reset()
        envs.step([POOL, POOL])
        _, rewards, _, _, info = envs.step([STOP, STOP])
        kept = rewards.copy()
        rewards *= 0
        assert info["metrics"]["valid_accuracy"].tolist() == kept.tolist()

    def test_changing_masks_leaves_the_environment_alone(self) -> None:
        """Writing into the returned masks does not change what is legal."""
        envs = toy_vector(1)
        _, info = envs.reset()
        legal = envs.action_masks()
        info["action_mask"][:] = 0
        envs.action_masks()[:] = False
        assert envs.action_masks().tolist() == legal.tolist()

    def test_rendering_gives_a_picture_of_every_row(self) -> None:
        """`render` returns one text a sub-environment."""
        envs = toy_vector(2, render_mode="ansi")
        envs.reset()
        envs.step([POOL, CONV])
        first, second = envs.render()
        assert "pool" in first and "conv" in second


class TestStates:
    """`get_state` and `set_state`."""

    @every_mode
    def test_a_state_in_the_middle_is_restored(self, mode: AutoresetMode) -> None:
        """What follows a restored state equals what followed it first, in a fresh environment too."""
        envs = toy_vector(2, mode)
        envs.reset()
        envs.step([POOL, CONV])
        state = envs.get_state()
        first = [envs.step([CONV, 0]), envs.step([2, STOP])]
        for player in (envs, toy_vector(2, mode)):
            player.set_state(state)
            assert difference([player.step([CONV, 0]), player.step([2, STOP])], first) is None

    def test_a_state_keeps_what_is_over_and_its_fidelity(self, small_table: Path) -> None:
        """Finished rows and fidelities per row belong to the state."""
        envs = CellVectorEnv(2, table=str(small_table), autoreset_mode="Disabled")
        envs.reset(options={"fidelity": 1})
        for _ in range(5):
            envs.step([3, 3])
        envs.reset(options={"fidelity": 2, "reset_mask": np.array([False, True])})
        state = envs.get_state()
        rewards = envs.step([3, 3])[1]
        envs.set_state(state)
        assert state.fidelities.tolist() == [1, 2]
        assert envs.step([3, 3])[1].tolist() == rewards.tolist()

    def test_a_state_cannot_be_written(self) -> None:
        """The arrays of a state are read-only."""
        state = toy_vector(2).get_state()
        with pytest.raises(ValueError, match="read-only"):
            state.prefixes[0, 0] = 1

    def test_a_state_of_another_size_is_refused(self) -> None:
        """A state of another number of sub-environments raises instead of corrupting the environment."""
        with pytest.raises(InvalidArgument, match="3 sub-environments"):
            toy_vector(2).set_state(toy_vector(3).get_state())


class TestBudget:
    """A batch that crosses the budget is cut in row order."""

    def test_the_first_rows_are_recorded(self) -> None:
        """Of three episodes that end at once, a budget of two admits the first two and then raises."""
        envs = toy_vector(3)
        envs.counter.budget = 2
        envs.reset()
        envs.step([POOL, CONV, POOL])
        envs.step([CONV, 0, CONV])
        envs.step([0, STOP, 1])
        with pytest.raises(BudgetExhausted, match="budget of 2"):
            envs.step([STOP, STOP, STOP])
        seen = envs.counter.first_seen([(CONV, 0, STOP), (POOL, CONV, 0, STOP), (POOL, CONV, 1, STOP)])
        assert (envs.counter.queries, seen.tolist()) == (2, [False, False, True])

    def test_rows_that_end_with_a_masked_action_are_admitted_in_order_too(self) -> None:
        """A masked action in the first row takes the last query of the budget."""
        envs = toy_vector(2)
        envs.counter.budget = 1
        envs.reset()
        envs.step([POOL, POOL])
        with pytest.raises(BudgetExhausted):
            envs.step([POOL, STOP])
        assert (envs.counter.queries, envs.counter.unique_architectures) == (1, 0)

    @every_mode
    def test_a_reset_afterwards_begins_anew(self, mode: AutoresetMode) -> None:
        """After the exception, a reset and a larger budget continue as if nothing had happened."""
        envs = toy_vector(2, mode)
        envs.counter.budget = 1
        envs.reset()
        envs.step([POOL, POOL])
        with pytest.raises(BudgetExhausted):
            envs.step([STOP, STOP])
        envs.counter.budget = 10
        again = toy_vector(2, mode)
        assert difference(envs.reset(), again.reset()) is None
        assert difference(envs.step([POOL, CONV]), again.step([POOL, CONV])) is None
        assert difference(envs.step([STOP, 0]), again.step([STOP, 0])) is None

    @pytest.mark.parametrize("mode", ["NextStep", "Disabled"])
    def test_masks_afterwards_belong_to_the_steps_taken(self, mode: str) -> None:
        """Rows that go on after the exception have the mask of their new prefix."""
        envs = toy_vector(2, mode)
        envs.counter.budget = 1
        envs.reset()
        envs.step([POOL, CONV])
        envs.step([STOP, 0])
        envs.reset(options={"reset_mask": np.array([True, False])})
        envs.step([POOL, POOL])
        with pytest.raises(BudgetExhausted):
            envs.step([STOP, CONV])
        assert envs.action_masks().tolist() == [[True] * 4, [True] * 4]

    def test_same_step_refuses_to_go_on_without_a_reset(self) -> None:
        """In the mode "SameStep", where nothing else would reset them, unfinished business raises."""
        envs = toy_vector(2, "SameStep")
        envs.counter.budget = 1
        envs.reset()
        envs.step([POOL, POOL])
        with pytest.raises(BudgetExhausted):
            envs.step([STOP, STOP])
        with pytest.raises(EpisodeOver, match="reset"):
            envs.step([POOL, POOL])


class TestBadInput:
    """What is refused, and what stays as it was."""

    @pytest.mark.parametrize(
        "actions",
        [[0], [0, 0, 0], [[0, 0]], [0.0, 1.0], ["0", "1"], [True, False], [0, -1], [0, 4], 1],
        ids=["too few", "too many", "matrix", "floats", "strings", "booleans", "negative", "beyond", "scalar"],
    )
    def test_actions_outside_the_space_raise(self, actions: object) -> None:
        """Malformed actions raise InvalidAction before anything is stepped."""
        envs = toy_vector(2)
        envs.reset()
        with pytest.raises(InvalidAction, match="integers"):
            envs.step(actions)
        assert (envs.counter.environment_steps, envs.get_state().lengths.tolist()) == (0, [0, 0])

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"reset_mask": [True, False]}, InvalidArgument),
            ({"reset_mask": np.array([1, 0])}, InvalidArgument),
            ({"reset_mask": np.array([True])}, InvalidArgument),
            ({"reset_mask": np.zeros(2, np.bool_)}, InvalidArgument),
            ({"fidelitee": 1}, InvalidArgument),
            ({"fidelity": 1}, FidelityError),
        ],
        ids=["list", "integers", "too short", "none chosen", "unknown option", "fidelity without fidelities"],
    )
    def test_reset_options_are_checked(self, options: dict[str, Any], error: type[NASGymError]) -> None:
        """A wrong option raises and leaves the episodes as they were."""
        envs = toy_vector(2)
        envs.reset()
        envs.step([POOL, POOL])
        with pytest.raises(error):
            envs.reset(options=options)
        assert envs.get_state().lengths.tolist() == [1, 1]

    def test_what_the_first_reset_leaves_out_rests(self) -> None:
        """Its actions are ignored and nothing is charged until it is begun."""
        envs = gymnasium.make_vec("NAS-Cell-v0", num_envs=2, autoreset_mode="Disabled", evaluator="synthetic").unwrapped
        envs.reset(seed=0, options={"reset_mask": np.array([True, False])})
        for _ in range(6):
            _, _, terminated, _, info = envs.step(np.zeros(2, np.int64))
        assert (terminated.tolist(), info["_encoding"].tolist()) == ([True, True], [True, False])
        assert (envs.counter.queries, envs.counter.environment_steps) == (1, 6)

    def test_seeds_come_one_a_row(self) -> None:
        """A list of seeds of another length is refused."""
        with pytest.raises(InvalidArgument, match="one per sub-environment"):
            toy_vector(2).reset(seed=[1])

    def test_seeds_of_none_restart_no_noise(self, small_table: Path) -> None:
        """A list of None is no seed: the noise of repeated queries goes on."""
        kwargs: dict[str, Any] = {"table": str(small_table), "noise": "sample", "repeat_query": "resample+charge"}
        plain, listed = CellVectorEnv(1, **kwargs), CellVectorEnv(1, **kwargs)

        def rewards(envs: CellVectorEnv, seed: list[int | None] | None) -> list[float]:
            found = []
            for _ in range(8):
                envs.reset(seed=seed)
                found += [envs.step([2])[1].item() for _ in range(6)][-1:]
            return found

        assert rewards(listed, [None]) == rewards(plain, None)

    def test_a_step_before_the_first_reset_raises(self) -> None:
        """Episodes must be begun."""
        with pytest.raises(EpisodeOver, match="reset"):
            toy_vector(2).step([0, 0])

    @pytest.mark.parametrize("num_envs", [0, -1])
    def test_at_least_one_row(self, num_envs: int) -> None:
        """No sub-environment is refused."""
        with pytest.raises(InvalidArgument, match="at least 1"):
            toy_vector(num_envs)

    def test_unknown_modes_are_listed(self) -> None:
        """An unknown auto-reset mode raises with the known ones."""
        with pytest.raises(InvalidArgument, match=r"NextStep.*SameStep.*Disabled.*'Next'"):
            toy_vector(1, "Next")


def test_one_row_is_a_batch_of_one() -> None:
    """`make_vec` makes one sub-environment by default, with arrays of length one."""
    envs = gymnasium.make_vec("NAS-Cell-v0", vectorization_mode="vector_entry_point", evaluator="synthetic")
    observations, info = envs.reset()
    assert (observations.shape, info["action_mask"].shape) == ((1, 6), (1, 5))
