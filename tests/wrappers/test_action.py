"""What the three wrappers make of a masked action, in single and in vector environments."""

from __future__ import annotations

import copy
import pickle  # noqa: TID251 - what users' tools do to an environment
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given
from toys import CONV, POOL, STOP, ToySpace
from wrappers.lockstep import (
    Plan,
    WrapEnv,
    WrapVectorEnv,
    assert_equals_singles,
    assert_spec_rebuilds,
    check_quietly,
    check_vector,
    every_id,
    every_mode,
    make,
    make_vec,
    plans,
    play,
    properties,
    small_single,
    small_vector,
)

from nas_gym.envs.core.construction import ConstructionEnv, ConstructionVectorEnv
from nas_gym.envs.core.counter import Counter
from nas_gym.errors import BudgetExhausted, EpisodeOver, InvalidAction, InvalidArgument
from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.objectives import Accuracy
from nas_gym.search_spaces import Decision, Encoding, SearchSpace
from nas_gym.testing import difference
from nas_gym.wrappers import (
    FlatOneHot,
    PenaliseMasked,
    RaiseOnMasked,
    ResampleMasked,
    VectorFlatOneHot,
    VectorPenaliseMasked,
    VectorRaiseOnMasked,
    VectorResampleMasked,
)

TOYS = ToySpace()
SINGLES = [PenaliseMasked, RaiseOnMasked, ResampleMasked]
VECTORS = [VectorPenaliseMasked, VectorRaiseOnMasked, VectorResampleMasked]
every_single = pytest.mark.parametrize("wrap", SINGLES)
every_vector = pytest.mark.parametrize("wrap", VECTORS)


def toy() -> ConstructionEnv:
    """Return an environment over the toy space, where STOP is masked at the start."""
    return ConstructionEnv(TOYS, SyntheticEvaluator(TOYS), Accuracy())


def toys(num_envs: int = 2, mode: str | AutoresetMode = "NextStep") -> ConstructionVectorEnv:
    """Return a vector environment over the toy space."""
    return ConstructionVectorEnv(TOYS, SyntheticEvaluator(TOYS), Accuracy(), num_envs=num_envs, autoreset_mode=mode)


def counter_of(env: Any) -> Counter:
    """Return the counter of an environment below wrappers."""
    return env.unwrapped.counter


class Told(gymnasium.Env[Any, Any]):
    """Offers masks in its infos only, where even actions are legal; an observation is the last action."""

    observation_space = spaces.Discrete(5)
    action_space = spaces.Discrete(4)

    def __init__(self, tells: bool = True) -> None:
        self.info = {"action_mask": np.array([1, 0, 1, 0], np.int8)} if tells else {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.int64(4), dict(self.info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.int64(action), 1.0, False, False, dict(self.info)


class Epochs(SyntheticEvaluator):
    """Answers one to four epochs."""

    fidelities = (1, 4)


class OneDecision(SearchSpace):
    """Architectures of one decision, of which the last choice is masked."""

    name = "one"
    max_length = 1
    max_choices = 3

    def decision(self, prefix: Encoding) -> Decision | None:
        return None if prefix else Decision(0, ("a", "b", "c"), ordered=False, mask=(True, True, False))

    def decode(self, encoding: Encoding) -> Any:
        return encoding


class TestEqualsSingles:
    """A vector form equals Gymnasium's vector of single forms over random streams, masked actions included."""

    @properties
    @given(plan=plans())
    def test_when_it_resamples(self, plan: Plan) -> None:
        """The same seeds draw the same legal actions."""
        assert_equals_singles(plan, VectorResampleMasked, ResampleMasked)

    @pytest.mark.parametrize("limit", [1, 2, None])
    @properties
    @given(plan=plans())
    def test_when_it_penalises(self, plan: Plan, limit: int | None) -> None:
        """Rows stay where they are while others move, and are truncated alike."""
        assert_equals_singles(
            plan,
            lambda envs: VectorPenaliseMasked(envs, penalty=-0.5, limit=limit),
            lambda env: PenaliseMasked(env, penalty=-0.5, limit=limit),
        )

    @properties
    @given(plan=plans())
    def test_when_it_penalises_below_other_wrappers(self, plan: Plan) -> None:
        """What lies around sees nothing of the moves that are taken back."""
        assert_equals_singles(
            plan,
            lambda envs: VectorFlatOneHot(VectorPenaliseMasked(envs, limit=2)),
            lambda env: FlatOneHot(PenaliseMasked(env, limit=2)),
        )

    @properties
    @given(plan=plans())
    def test_when_it_raises(self, plan: Plan) -> None:
        """Legal streams pass through unchanged."""
        legal = [[number % 20 for number in numbers] for numbers in plan.numbers]
        legal_plan = Plan(plan.num_envs, plan.mode, plan.seed, legal, plan.resets, plan.seeds)
        assert_equals_singles(legal_plan, VectorRaiseOnMasked, RaiseOnMasked)

    @pytest.mark.parametrize(
        ("wrap", "wrap_single"), [(VectorResampleMasked, ResampleMasked), (VectorPenaliseMasked, PenaliseMasked)]
    )
    @properties
    @given(plan=plans())
    def test_in_what_is_counted(self, plan: Plan, wrap: WrapVectorEnv, wrap_single: WrapEnv) -> None:
        """Steps and queries are the sums of those of single environments."""
        vector = wrap(small_vector(plan.num_envs, plan.mode))
        reference = SyncVectorEnv([lambda: wrap_single(small_single())] * plan.num_envs, autoreset_mode=plan.mode)
        for _ in play(plan, vector, reference):
            pass
        counter = counter_of(vector)
        singles = [counter_of(env) for env in reference.envs]
        assert (counter.environment_steps, counter.queries) == (
            sum(one.environment_steps for one in singles),
            sum(one.queries for one in singles),
        )


class TestRaise:
    """`RaiseOnMasked` and its vector form."""

    def test_the_message_names_the_action_and_the_legal_ones(self) -> None:
        """Whoever reads it knows what went wrong."""
        env = RaiseOnMasked(toy())
        env.reset()
        with pytest.raises(InvalidAction, match=r"action 0 is masked; legal are \[1, 2\]"):
            env.step(STOP)

    def test_the_episode_goes_on(self) -> None:
        """Nothing was counted, and a legal action continues."""
        env = RaiseOnMasked(toy())
        env.reset()
        with pytest.raises(InvalidAction):
            env.step(STOP)
        env.step(POOL)
        assert counter_of(env).environment_steps == 1

    def test_the_message_of_a_vector_names_the_row(self) -> None:
        """The first row with a masked action is named."""
        envs = VectorRaiseOnMasked(toys(3))
        envs.reset()
        with pytest.raises(InvalidAction, match=r"action 3 of sub-environment 1 is masked; legal there are \[1, 2\]"):
            envs.step([POOL, 3, STOP])

    def test_no_row_of_a_vector_moves(self) -> None:
        """Rows with a legal action wait too."""
        envs = VectorRaiseOnMasked(toys())
        envs.reset()
        with pytest.raises(InvalidAction):
            envs.step([POOL, STOP])
        assert envs.unwrapped.get_state().lengths.tolist() == [0, 0]  # type: ignore[attr-defined]

    @every_mode
    def test_the_action_after_an_end_is_free(self, mode: AutoresetMode) -> None:
        """Where actions of finished rows are ignored, none of them is masked."""
        envs = VectorRaiseOnMasked(toys(1, mode))
        envs.reset()
        envs.step([POOL])
        envs.step([STOP])
        envs.step([POOL if mode is AutoresetMode.SAME_STEP else 3])


class TestResample:
    """`ResampleMasked` and its vector form."""

    def test_the_info_tells_what_was_taken(self) -> None:
        """The action that replaced the masked one is in the info, and in the state."""
        env = ResampleMasked(toy())
        env.reset(seed=0)
        info = env.step(STOP)[-1]
        assert env.unwrapped.get_state().prefix == (info["resampled_action"],)  # type: ignore[attr-defined]

    def test_a_legal_action_is_kept(self) -> None:
        """Nothing is drawn and nothing is told."""
        env = ResampleMasked(toy())
        env.reset(seed=0)
        assert "resampled_action" not in env.step(POOL)[-1]

    def test_draws_are_uniform_over_the_legal_actions(self) -> None:
        """Of 400 draws between two actions about half are each of them."""
        env = ResampleMasked(toy())
        env.reset(seed=0)
        taken = []
        for _ in range(400):
            env.reset()
            taken.append(env.step(STOP)[-1]["resampled_action"])
        assert set(taken) == {CONV, POOL}
        assert abs(taken.count(CONV) - 200) < 60

    def test_a_seed_repeats_the_draws(self) -> None:
        """Two resets with the same seed are followed by the same actions."""
        env = ResampleMasked(make())
        taken: list[list[int]] = []
        for _ in range(2):
            env.reset(seed=5)
            taken.append([])
            for _ in range(20):
                env.reset()
                taken[-1].append(env.step(12)[-1]["resampled_action"])
        assert taken[0] == taken[1]

    def test_rows_have_draws_of_their_own(self) -> None:
        """Rows that need a replacement at once do not all get the same one."""
        envs = VectorResampleMasked(toys(16))
        envs.reset(seed=0)
        info = envs.step([STOP] * 16)[-1]
        assert set(info["resampled_action"].tolist()) == {CONV, POOL}

    def test_a_seed_of_one_row_leaves_the_others(self) -> None:
        """A list of seeds restarts the draws of the rows that have one."""
        taken = []
        for seed in (7, 8):
            envs = VectorResampleMasked(toys(2, "Disabled"))
            envs.reset(seed=0)
            envs.reset(seed=[seed, None])
            taken.append([])
            for _ in range(12):
                envs.reset()
                taken[-1].append(envs.step([STOP, STOP])[-1]["resampled_action"])
        rows = np.array(taken).transpose(2, 0, 1)
        assert [np.array_equal(*row) for row in rows] == [False, True]


class TestPenalise:
    """`PenaliseMasked` and its vector form."""

    def test_the_state_stays(self) -> None:
        """The observation is that of before, the reward the penalty, and the info tells."""
        env = PenaliseMasked(toy(), penalty=-0.25)
        env.reset()
        before, *_ = env.step(POOL)
        observation, reward, terminated, truncated, info = env.step(POOL)
        assert (observation.tolist(), reward, terminated, truncated) == (before.tolist(), -0.25, False, False)
        assert info["masked_action"] is True

    def test_nothing_is_counted(self) -> None:
        """Neither a step nor a query is charged."""
        env = PenaliseMasked(toy())
        env.reset()
        env.step(STOP)
        usage = counter_of(env).usage()
        assert (usage.environment_steps, usage.queries) == (0, 0)

    def test_so_many_in_a_row_truncate(self) -> None:
        """The last one ends the episode without an encoding, with a mask of ones."""
        env = PenaliseMasked(toy(), limit=2)
        env.reset()
        assert env.step(STOP)[3] is False
        _, _, terminated, truncated, info = env.step(STOP)
        assert (terminated, truncated, sorted(info)) == (False, True, ["action_mask", "masked_action"])
        assert info["action_mask"].all() and env.action_masks().all()

    def test_a_legal_action_starts_the_count_anew(self) -> None:
        """Masked actions with a legal one between them are not in a row."""
        env = PenaliseMasked(toy(), limit=2)
        env.reset()
        assert [env.step(action)[3] for action in (STOP, POOL, POOL, CONV, 1, 3)] == [False] * 6

    def test_a_step_after_the_truncation_raises(self) -> None:
        """The episode is over as any other."""
        env = PenaliseMasked(toy(), limit=1)
        env.reset()
        env.step(STOP)
        with pytest.raises(EpisodeOver, match="1 masked actions"):
            env.step(POOL)

    def test_a_reset_begins_anew(self) -> None:
        """After a truncation the next episode has the whole limit again."""
        env = PenaliseMasked(toy(), limit=2)
        env.reset()
        env.step(STOP)
        env.step(STOP)
        env.reset()
        assert env.step(STOP)[3] is False

    def test_changing_what_was_returned_changes_nothing(self) -> None:
        """The observation that is repeated is a copy."""
        env = PenaliseMasked(toy())
        env.reset()
        seen = env.step(POOL)[0]
        kept = seen.tolist()
        seen[:] = 3
        env.step(POOL)[0][:] = 3
        assert env.step(POOL)[0].tolist() == kept

    def test_disabled_rows_stay_truncated(self) -> None:
        """In the mode "Disabled" a truncated row rests, truncated and not terminated, until it is reset."""
        envs = VectorPenaliseMasked(toys(2, "Disabled"), limit=1)
        envs.reset()
        outcomes = [envs.step([STOP, action])[1:4] for action in (POOL, CONV)]
        assert [[part[0].item() for part in outcome] for outcome in outcomes] == [
            [-0.1, False, True],
            [0.0, False, True],
        ]
        envs.reset(options={"reset_mask": np.array([True, False])})
        assert envs.step([POOL, 0])[3].tolist() == [False, False]

    def test_a_full_budget_leaves_waiting_rows_alone(self) -> None:
        """When the step of another row raises, the row with the masked action is where it was."""
        envs = VectorPenaliseMasked(toys(3, "Disabled"))
        base: Any = envs.unwrapped
        base.counter.budget = 1
        envs.reset()
        envs.step([POOL, POOL, POOL])
        steps = base.counter.environment_steps
        with pytest.raises(BudgetExhausted):
            envs.step([STOP, STOP, POOL])
        state = base.get_state()
        assert (state.prefixes[2, :2].tolist(), state.lengths[2], state.over[2]) == ([POOL, 0], 1, False)
        assert base.counter.environment_steps == steps + 2

    def test_waiting_keeps_the_fidelity(self) -> None:
        """A row that waits is evaluated at the fidelity that its episode began with."""
        envs = VectorPenaliseMasked(
            ConstructionVectorEnv(TOYS, Epochs(TOYS), Accuracy(), num_envs=2, autoreset_mode="Disabled")
        )
        envs.reset(options={"fidelity": 3})
        envs.step([STOP, POOL])
        base: Any = envs.unwrapped
        assert base.get_state().fidelities.tolist() == [3, 3]

    def test_the_next_episode_has_the_default_fidelity(self) -> None:
        """In the mode "SameStep" a truncated row begins as one that ended by itself."""
        envs = VectorPenaliseMasked(
            ConstructionVectorEnv(TOYS, Epochs(TOYS), Accuracy(), num_envs=2, autoreset_mode="SameStep"), limit=1
        )
        envs.reset(options={"fidelity": 3})
        envs.step([STOP, POOL])
        base: Any = envs.unwrapped
        assert base.get_state().fidelities.tolist() == [-1, 3]

    def test_a_step_before_the_first_reset_raises(self) -> None:
        """Episodes must be begun, also with a masked action."""
        with pytest.raises(EpisodeOver, match="reset"):
            VectorPenaliseMasked(toys()).step([STOP, STOP])

    @pytest.mark.parametrize("penalty", [0.1, float("nan"), float("-inf"), "much", True])
    @pytest.mark.parametrize(("wrap", "env"), [(PenaliseMasked, toy), (VectorPenaliseMasked, toys)])
    def test_a_penalty_is_a_reward_of_at_most_zero(
        self, wrap: Callable[..., Any], env: Callable[[], Any], penalty: Any
    ) -> None:
        """Positive, infinite and other values are refused."""
        with pytest.raises(InvalidArgument, match="penalty"):
            wrap(env(), penalty=penalty)

    @pytest.mark.parametrize("limit", [0, -1, 1.5, "2", True])
    @pytest.mark.parametrize(("wrap", "env"), [(PenaliseMasked, toy), (VectorPenaliseMasked, toys)])
    def test_a_limit_is_a_positive_integer(self, wrap: Callable[..., Any], env: Callable[[], Any], limit: Any) -> None:
        """Anything else but None is refused."""
        with pytest.raises(InvalidArgument, match="limit"):
            wrap(env(), limit=limit)

    def test_the_vector_form_goes_directly_around_the_environment(self) -> None:
        """Other wrappers below it, and other vector environments, are refused with the way out."""
        for envs in (VectorFlatOneHot(toys()), SyncVectorEnv([toy])):
            with pytest.raises(InvalidArgument, match="directly around a ConstructionVectorEnv"):
                VectorPenaliseMasked(envs)  # type: ignore[arg-type]

    def test_a_space_of_one_decision_is_refused(self) -> None:
        """Where every decision is evaluated, no row can wait."""
        space = OneDecision()
        envs = ConstructionVectorEnv(space, SyntheticEvaluator(space), Accuracy(), num_envs=2)
        with pytest.raises(InvalidArgument, match="complete after one decision"):
            VectorPenaliseMasked(envs)


class TestForeignEnvironments:
    """Environments of other projects, whose masks are in the infos."""

    def test_masks_are_read_from_the_info(self) -> None:
        """Without `action_masks()` the last info counts."""
        env = ResampleMasked(Told())
        env.reset(seed=0)
        assert {int(env.step(1)[0]) for _ in range(30)} == {0, 2}

    def test_a_no_op_repeats_any_observation(self) -> None:
        """Observations need not be arrays."""
        env = PenaliseMasked(Told())
        env.reset()
        assert [int(env.step(action)[0]) for action in (1, 2, 3)] == [4, 2, 2]

    @every_mode
    def test_vectors_of_single_environments_are_read_too(self, mode: AutoresetMode) -> None:
        """The infos of Gymnasium's own vector environments are enough."""
        envs = VectorRaiseOnMasked(SyncVectorEnv([Told] * 2, autoreset_mode=mode))
        envs.reset()
        envs.step(np.array([0, 2]))
        with pytest.raises(InvalidAction, match="sub-environment 1"):
            envs.step(np.array([0, 3]))

    def test_a_partial_reset_keeps_the_masks_of_the_others(self) -> None:
        """The infos of a partial reset have zeros where nothing was reset."""
        envs = VectorRaiseOnMasked(SyncVectorEnv([Told] * 2))
        envs.reset()
        envs.reset(options={"reset_mask": np.array([True, False])})
        envs.step(np.array([0, 2]))

    @every_single
    def test_without_masks_a_reset_raises(self, wrap: WrapEnv) -> None:
        """The message names both ways to offer masks."""
        with pytest.raises(InvalidArgument, match=r"action_masks\(\) nor info\['action_mask'\]"):
            wrap(Told(tells=False)).reset()

    @every_single
    def test_other_actions_than_integers_from_zero_are_refused(self, wrap: WrapEnv) -> None:
        """Masks say nothing about them."""
        env = Told()
        env.action_space = spaces.Discrete(4, start=1)
        with pytest.raises(InvalidArgument, match="start at 0"):
            wrap(env)


class TestRest:
    """What holds for all of them."""

    @pytest.mark.parametrize(
        ("wrap_vector", "wrap_single"),
        [(VectorResampleMasked, ResampleMasked), (VectorPenaliseMasked, PenaliseMasked)],
    )
    def test_vector_forms_keep_the_contract(self, wrap_vector: WrapVectorEnv, wrap_single: WrapEnv) -> None:
        """They describe themselves as vectors of single forms do, and no two results share memory."""
        check_vector(wrap_vector, wrap_single)

    @every_single
    @pytest.mark.parametrize("action", [-1, 4, 0.5, "0", None])
    def test_actions_outside_the_space_are_for_the_environment(self, wrap: WrapEnv, action: Any) -> None:
        """They raise as they would without a wrapper."""
        env = wrap(toy())
        env.reset()
        with pytest.raises(InvalidAction, match="integers from 0 to 3"):
            env.step(action)

    @every_vector
    @pytest.mark.parametrize("actions", [[0], [0, 4], [-1, 0], [0.0, 1.0], [[0, 1]]])
    def test_malformed_actions_are_for_the_environment(self, wrap: WrapVectorEnv, actions: Any) -> None:
        """A vector environment refuses them before any row moves."""
        envs = wrap(toys())
        envs.reset()
        with pytest.raises(InvalidAction, match="integers"):
            envs.step(actions)
        assert envs.unwrapped.get_state().lengths.tolist() == [0, 0]  # type: ignore[attr-defined]

    @every_single
    def test_masks_are_found_through_the_wrapper(self, wrap: WrapEnv) -> None:
        """`get_wrapper_attr("action_masks")`, which libraries call, still gives the masks."""
        env = wrap(toy())
        env.reset()
        assert env.get_wrapper_attr("action_masks")().tolist() == [False, True, True, False]

    @every_id
    @every_single
    def test_the_specification_rebuilds_the_stack(self, wrap: WrapEnv, name: str) -> None:
        """`gymnasium.make(env.spec)` makes the same wrappers, also from JSON."""
        assert_spec_rebuilds(wrap(make(name)))

    def test_the_specification_keeps_the_arguments(self) -> None:
        """Penalty and limit are part of it."""
        spec = PenaliseMasked(make(), penalty=-2.0, limit=7).spec
        assert spec is not None
        again: Any = gymnasium.make(spec)
        assert (again.penalty, again.limit) == (-2.0, 7)

    @every_id
    @pytest.mark.parametrize("wrap", [PenaliseMasked, ResampleMasked])
    def test_gymnasium_finds_nothing(self, wrap: WrapEnv, name: str) -> None:
        """Gymnasium's checker, which draws masked actions as well, is content where these do not raise."""
        check_quietly(wrap(make(name)))

    @pytest.mark.parametrize(
        "duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"]
    )
    @pytest.mark.parametrize("wrap", [PenaliseMasked, ResampleMasked])
    def test_a_duplicate_continues_alike(self, wrap: WrapEnv, duplicate: Callable[[Any], Any]) -> None:
        """A copy has the same counts and draws, and masks of its own environment."""
        env = wrap(make())
        env.reset(seed=0)
        env.step(12)
        twin = duplicate(env)
        for action in (0, 12, 3, 12):
            assert difference(env.step(action), twin.step(action)) is None

    @every_mode
    @pytest.mark.parametrize("wrap", [VectorPenaliseMasked, VectorResampleMasked])
    def test_registered_vectors_play_careless_streams(self, wrap: WrapVectorEnv, mode: AutoresetMode) -> None:
        """No illegal action reaches the environment, which would end the episode with a status of its own."""
        envs = wrap(make_vec(4, mode))
        rng = np.random.default_rng(0)
        envs.reset(seed=0)
        seen: set[object] = set()
        for _ in range(60):
            *_, terminated, truncated, info = envs.step(rng.integers(20, size=4))
            last = info.get("final_info", info)
            seen.update(last.get("status", [])[last.get("_status", [])] if "status" in last else [])
            if mode is AutoresetMode.DISABLED and (terminated | truncated).any():
                envs.reset(options={"reset_mask": terminated | truncated})
        assert seen == {"ok"}
