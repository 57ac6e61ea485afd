"""The single construction environment, step by step, over a grammar of varying length with masks."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import CONV, POOL, STOP, ToySpace

from nas_gym.envs.cell import CellEnv
from nas_gym.envs.core.construction import ConstructionEnv
from nas_gym.errors import BudgetExhausted, EpisodeOver, FidelityError, InvalidAction, InvalidArgument, UnknownName
from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.objectives import Accuracy
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space
from nas_gym.testing import difference

SPACE = ToySpace()


def make(
    **kwargs: Any,
) -> ConstructionEnv:
    """Return an environment over the toy space."""
    return ConstructionEnv(SPACE, SyntheticEvaluator(SPACE), Accuracy(), **kwargs)


def play(env: ConstructionEnv, *actions: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
    """Reset, take the actions and return the last step."""
    env.reset()
    *first, last = actions
    for action in first:
        env.step(action)
    return env.step(last)


class TestDynamics:
    """What a step does."""

    def test_the_observation_is_the_padded_prefix(self) -> None:
        """Decisions plus one, then zeros."""
        observation, *_ = play(make(), POOL, CONV)
        assert observation.tolist() == [POOL + 1, CONV + 1, 0, 0, 0, 0]

    def test_the_mask_follows_the_grammar(self) -> None:
        """After a pool one may stop or convolve, but not pool."""
        *_, info = play(make(), POOL)
        assert info["action_mask"].tolist() == [1, 1, 0, 0]

    def test_the_last_step_gives_the_objective(self) -> None:
        """A finished chain is rewarded with its accuracy."""
        env = make()
        _, reward, terminated, truncated, info = play(env, POOL, STOP)
        assert (terminated, truncated) == (True, False)
        assert reward == env.evaluator.evaluate_one((POOL, STOP)).metrics["valid_accuracy"]
        assert info["encoding"] == (POOL, STOP)

    def test_a_masked_action_ends_the_episode(self) -> None:
        """The failure reward, the status, the prefix, NaN metrics and the mean cost."""
        env = make()
        observation, reward, terminated, _, info = play(env, POOL, POOL)
        assert (reward, terminated, info["status"]) == (-1.0, True, "invalid_action")
        assert info["encoding"] == (POOL,)
        assert observation.tolist() == [POOL + 1, 0, 0, 0, 0, 0]
        assert all(math.isnan(value) for value in info["metrics"].values())
        assert info["cost_seconds"] == env.evaluator.mean_cost()

    @pytest.mark.parametrize("integer", [int, np.int64, np.int8, np.array], ids=["int", "int64", "int8", "0-d array"])
    def test_any_integer_is_an_action(self, integer: Any) -> None:
        """Python and NumPy integers mean the same."""
        assert play(make(), integer(POOL), integer(STOP))[4]["encoding"] == (POOL, STOP)

    @pytest.mark.parametrize("action", [-1, 4, 1.0, "1", None, [1]], ids=repr)
    def test_an_action_outside_the_space_raises(self, action: object) -> None:
        """Nothing is stepped or counted."""
        env = make()
        env.reset()
        with pytest.raises(InvalidAction, match="0 to 3"):
            env.step(action)
        assert (env.get_state().prefix, env.counter.environment_steps) == ((), 0)

    def test_a_step_after_the_end_raises(self) -> None:
        """A reset must come first."""
        env = make()
        play(env, POOL, STOP)
        with pytest.raises(EpisodeOver, match="reset"):
            env.step(CONV)


class TestReset:
    """What `reset` takes."""

    def test_a_fidelity_holds_for_one_episode(self, small_table: Path) -> None:
        """The episode that asks for it is read at that epoch, the next one at the default."""
        env = CellEnv(table=str(small_table))
        rewards = []
        for options in ({"fidelity": 1}, None):
            env.reset(options=options)
            rewards.append([env.step(2)[1] for _ in range(6)][-1])
        answers = [env.evaluator.evaluate_one((2,) * 6, fidelity).metrics["valid_accuracy"] for fidelity in (1, 4)]
        assert rewards == answers

    @pytest.mark.parametrize("fidelity", [0, 5, 1.5, True, "2", None], ids=repr)
    def test_a_wrong_fidelity_raises(self, fidelity: object, small_table: Path) -> None:
        """The message names the range."""
        with pytest.raises(FidelityError, match="1 to 4"):
            CellEnv(table=str(small_table)).reset(options={"fidelity": fidelity})

    def test_a_wrong_option_leaves_the_episode_alone(self) -> None:
        """An unknown option raises, and the episode goes on."""
        env = make()
        play(env, POOL)
        with pytest.raises(InvalidArgument, match="'fidelty'"):
            env.reset(seed=0, options={"fidelty": 1})
        assert env.step(STOP)[2]

    def test_a_seed_restarts_the_noise(self, small_table: Path) -> None:
        """With resampled repeats, the same seed replays the same rewards."""
        env = CellEnv(table=str(small_table), noise="sample", repeat_query="resample+charge")

        def rewards() -> list[float]:
            found = []
            for episode in range(6):
                env.reset(seed=5 if episode == 0 else None)
                found.append([env.step(2)[1] for _ in range(6)][-1])
            return found

        first = rewards()
        assert (rewards(), len(set(first)) > 1) == (first, True)


class TestStates:
    """States, copies and pickles."""

    def test_a_state_is_a_value(self) -> None:
        """Two states of the same moment are equal and hash alike."""
        env = make()
        play(env, POOL)
        assert len({env.get_state(), env.get_state()}) == 1

    def test_a_state_in_the_middle_is_restored(self) -> None:
        """What follows equals what followed first."""
        env = make()
        play(env, POOL)
        state = env.get_state()
        first = [env.step(CONV), env.step(0), env.step(STOP)]
        env.set_state(state)
        assert difference([env.step(CONV), env.step(0), env.step(STOP)], first) is None

    def test_a_finished_state_is_restored_as_finished(self) -> None:
        """A step from it raises, and its mask is free."""
        env = make()
        play(env, POOL, POOL)
        state = env.get_state()
        env.reset()
        env.set_state(state)
        assert env.action_masks().all()
        with pytest.raises(EpisodeOver):
            env.step(CONV)

    @pytest.mark.parametrize("observation", ["prefix", "states", "one_hot"])
    def test_a_copy_goes_its_own_way(self, observation: str) -> None:
        """Steps of a deep copy change neither the original's episode nor its counter."""
        env = make(observation=observation)
        play(env, POOL)
        twin = copy.deepcopy(env)
        twin.step(STOP)
        assert (env.get_state().prefix, env.counter.queries, twin.counter.queries) == ((POOL,), 0, 1)
        assert difference(env.step(CONV)[0], play(make(observation=observation), POOL, CONV)[0]) is None


class TestBudget:
    """The counter guards a budget."""

    def test_the_query_after_the_budget_raises(self) -> None:
        """A reset is possible afterwards, another finished episode is not."""
        env = make()
        env.counter.budget = 1
        play(env, POOL, STOP)
        for _ in range(2):
            with pytest.raises(BudgetExhausted, match="budget of 1"):
                play(env, POOL, STOP)
        assert env.counter.queries == 1

    def test_a_masked_action_after_the_budget_raises(self) -> None:
        """An invalid episode is a query as well."""
        env = make()
        env.counter.budget = 1
        play(env, POOL, STOP)
        with pytest.raises(BudgetExhausted):
            play(env, STOP)


class TestParts:
    """What the constructor checks."""

    def test_the_evaluator_must_know_the_space(self) -> None:
        """An evaluator of another space is refused, both named."""
        with pytest.raises(InvalidArgument, match=r"nas_bench_201.*toy"):
            ConstructionEnv(SPACE, SyntheticEvaluator(NASBench201Space()), Accuracy())

    def test_unknown_observations_get_the_nearest_name(self) -> None:
        """A typing error is answered by the right name."""
        with pytest.raises(UnknownName, match="'one_hot'"):
            make(observation="onehot")

    def test_unknown_repeat_modes_are_listed(self) -> None:
        """An unknown mode raises with the known ones."""
        with pytest.raises(InvalidArgument, match=r"resample\+charge"):
            make(repeat_query="resample")

    def test_one_hot_holds_the_prefix(self) -> None:
        """The position of every one is the feature's value."""
        actions = (POOL, CONV, 2, CONV, 0)
        plain, hot = (play(make(observation=name), *actions)[0] for name in ("prefix", "one_hot"))
        assert hot.dtype == np.float32
        assert hot.reshape(SPACE.max_length, SPACE.max_choices + 1).argmax(axis=1).tolist() == plain.tolist()
