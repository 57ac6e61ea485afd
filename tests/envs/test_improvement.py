"""The improvement environment: edits, rewards, budgets, tasks; its contract is checked with that of all other ids."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import ToySpace

from nas_gym.envs.cell_improve import CellImproveEnv, CellImproveVectorEnv
from nas_gym.envs.core.edits import STOP, Edits, compressed
from nas_gym.envs.core.improvement import ImprovementEnv
from nas_gym.errors import BudgetExhausted, EpisodeOver, FidelityError, InvalidArgument, TableError, UnknownName
from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.objectives import Accuracy
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space

SPACE = NASBench201Space()
EDITS = Edits(SPACE)
cells = st.tuples(*[st.integers(0, 4)] * 6)


def make(**kwargs: Any) -> CellImproveEnv:
    """Return the environment without data."""
    return CellImproveEnv(**{"evaluator": "synthetic", "horizon": 4, **kwargs})


def put(edge: int, operation: int) -> int:
    """Return the action that puts an operation on an edge."""
    return 1 + 5 * edge + operation


def legal_edit(env: CellImproveEnv, rng: np.random.Generator) -> int:
    """Return a random edit, not the stop."""
    return int(rng.choice(np.flatnonzero(env.action_masks()[1:]) + 1))


class TestEdits:
    """Numbers, masks and effects of edits."""

    def test_the_actions_are_numbered_slot_by_slot_after_the_stop(self) -> None:
        """As the documentation page says."""
        assert EDITS.labels[0] == "stop"
        assert EDITS.labels[put(3, 2)] == "slot 3: nor_conv_1x1"
        assert len(EDITS.labels) == 31

    @given(cells)
    def test_what_changes_nothing_is_masked_and_nothing_else(self, cell: tuple[int, ...]) -> None:
        """An edit is legal if and only if its result differs."""
        edited = EDITS.apply(np.array([cell] * EDITS.count), np.arange(1, EDITS.count + 1))
        changed = [True, *(tuple(row) != cell for row in edited.tolist())]
        assert EDITS.mask(cell).tolist() == changed

    @given(st.lists(cells, min_size=1, max_size=5))
    def test_masks_of_a_batch_are_those_of_its_rows(self, batch: list[tuple[int, ...]]) -> None:
        """The two forms agree."""
        assert EDITS.masks(np.array(batch)).tolist() == [EDITS.mask(cell).tolist() for cell in batch]

    @given(cells)
    def test_edits_lead_to_exactly_the_neighbours(self, cell: tuple[int, ...]) -> None:
        """One edge away, 24 of them, each once."""
        actions = np.flatnonzero(EDITS.mask(cell)[1:]) + 1
        edited = EDITS.apply(np.array([cell] * len(actions)), actions)
        assert sorted(map(tuple, edited.tolist())) == sorted(SPACE.neighbours(cell))


class TestRewards:
    """What a step is worth."""

    @given(st.integers(0, 1000))
    def test_rewards_sum_up_to_the_gain_over_the_start(self, seed: int) -> None:
        """Whatever is edited."""
        env, rng = make(), np.random.default_rng(seed)
        start = best = env.reset(seed=seed)[1]["value"]
        total, over = 0.0, False
        while not over:
            _, reward, terminated, truncated, info = env.step(legal_edit(env, rng))
            total, best, over = total + reward, max(best, info["value"]), terminated or truncated
        assert total == pytest.approx(best - start, abs=1e-12)

    def test_a_worse_cell_costs_nothing_but_is_moved_to(self) -> None:
        """The reward is 0, the episode goes on from the worse cell, the incumbent stays."""
        env = make(horizon=50)
        _, info = env.reset(seed=0)
        values = {info["encoding"]: info["value"]}
        rng = np.random.default_rng(0)
        seen = False
        for _ in range(50):
            best = max(values, key=values.__getitem__)
            _, reward, _, _, info = env.step(legal_edit(env, rng))
            if info["value"] < values[best]:
                assert (reward, info["incumbent"]) == (0.0, best)
                assert env.get_state().current == info["encoding"] != best
                seen = True
            values[info["encoding"]] = info["value"]
        assert seen

    def test_a_masked_edit_ends_the_episode_with_the_failure_reward(self) -> None:
        """And costs one query."""
        env = make()
        _, info = env.reset(seed=0)
        before = env.counter.queries
        _, reward, terminated, truncated, last = env.step(put(0, info["encoding"][0]))
        assert (reward, terminated, truncated, last["status"]) == (-1.0, True, False, "invalid_action")
        assert env.counter.queries == before + 1

    def test_a_failed_cell_improves_nothing(self) -> None:
        """Its value is the failure reward."""

        class Failing(SyntheticEvaluator):
            def evaluate_one(self, encoding: Any, fidelity: Any = None, parent: Any = None) -> Any:
                answer = super().evaluate_one(encoding, fidelity, parent)
                return answer if encoding[0] else type(answer)(6, dict.fromkeys(answer.metrics, np.nan), 1.0, "slow")

        env = ImprovementEnv({"a": Failing(SPACE)}, Accuracy(), horizon=3)
        seed = next(seed for seed in range(99) if env.reset(seed=seed)[1]["encoding"][0])
        start = env.reset(seed=seed)[1]
        _, reward, _, _, info = env.step(put(0, 0))
        assert (reward, info["value"], info["status"], info["message"]) == (0.0, -1.0, "timeout", "slow")
        assert info["incumbent"] == start["encoding"]


class TestEpisodes:
    """Beginnings, ends and what they cost."""

    def test_the_horizon_truncates(self) -> None:
        """After exactly so many edits, and not before."""
        env, rng = make(horizon=3), np.random.default_rng(0)
        env.reset(seed=0)
        ends = [env.step(legal_edit(env, rng))[2:4] for _ in range(3)]
        assert ends == [(False, False), (False, False), (False, True)]

    def test_an_episode_costs_its_start_and_its_edits(self) -> None:
        """A stop is a step, not a query."""
        env, rng = make(), np.random.default_rng(0)
        env.reset(seed=0)
        for _ in range(2):
            env.step(legal_edit(env, rng))
        _, reward, terminated, truncated, info = env.step(STOP)
        assert (reward, terminated, truncated, "value" in info, info["cost_seconds"]) == (0.0, True, False, False, 0.0)
        assert (env.counter.queries, env.counter.environment_steps) == (3, 3)

    def test_starts_are_uniform_over_all_cells(self) -> None:
        """Every operation starts every edge about equally often."""
        envs = CellImproveVectorEnv(2000, evaluator="synthetic")
        starts = np.array([list(cell) for cell in envs.reset(seed=0)[1]["encoding"]])
        shares = np.stack([(starts == operation).mean(axis=0) for operation in range(5)])
        assert np.abs(shares - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / 2000)

    def test_a_budget_ends_at_a_reset_too(self) -> None:
        """The start is charged like everything else."""
        env = make()
        env.counter.budget = 1
        env.reset(seed=0)
        with pytest.raises(BudgetExhausted):
            env.reset()

    def test_the_first_rows_of_a_batch_that_crosses_the_budget_are_paid(self) -> None:
        """Five starts of four admitted, in row order."""
        envs = CellImproveVectorEnv(5, evaluator="synthetic")
        answered: list[Any] = []
        envs.problem.listeners.append(answered.append)
        envs.counter.budget = 4
        with pytest.raises(BudgetExhausted) as exhausted:
            envs.reset(seed=0)
        assert (envs.counter.queries, len(exhausted.value.rewards), len(answered[0].encodings)) == (4, 4, 4)

    def test_a_step_after_the_budget_leaves_the_cells_as_they_were(self) -> None:
        """What was not evaluated was not moved to."""
        envs = CellImproveVectorEnv(3, evaluator="synthetic")
        envs.reset(seed=0)
        envs.counter.budget = envs.counter.queries
        before = envs.get_state().current
        with pytest.raises(BudgetExhausted):
            envs.step(envs.action_masks()[:, 1:].argmax(axis=1) + 1)
        assert np.array_equal(envs.get_state().current, before)

    def test_steps_need_an_episode(self) -> None:
        """Before the first reset nothing can be edited, seen or drawn."""
        env = make()
        for call in (lambda: env.step(1), env.get_state, env.render):
            with pytest.raises(EpisodeOver):
                call()


class TestTasks:
    """Several tables or landscapes."""

    def test_all_landscapes_are_drawn(self) -> None:
        """Uniformly, by their names."""
        envs = CellImproveVectorEnv(300, evaluator="synthetic", landscapes=3, evaluation_seed=7)
        tasks = envs.reset(seed=0)[1]["task"].tolist()
        assert {name: tasks.count(name) > 70 for name in set(tasks)} == dict.fromkeys(
            ("synthetic-7", "synthetic-8", "synthetic-9"), True
        )

    def test_each_row_is_answered_by_its_own_task(self) -> None:
        """Values are those of the landscape of that seed."""
        envs = CellImproveVectorEnv(40, evaluator="synthetic", landscapes=3)
        _, info = envs.reset(seed=0)
        landscapes = [SyntheticEvaluator(SPACE, evaluation_seed=seed) for seed in range(3)]
        expected = [
            landscapes[int(task[-1])].evaluate_one(cell).metrics["valid_accuracy"]
            for task, cell in zip(info["task"], info["encoding"], strict=True)
        ]
        assert info["value"].tolist() == expected

    def test_tasks_are_those_of_the_single_form(self) -> None:
        """The same seeds draw the same tasks and starts."""
        single = [make(landscapes=9).reset(seed=5 + row)[1] for row in range(6)]
        _, info = CellImproveVectorEnv(6, evaluator="synthetic", landscapes=9).reset(seed=5)
        drawn = [(one["task"], one["encoding"], one["value"]) for one in single]
        assert list(zip(info["task"], info["encoding"], info["value"], strict=True)) == drawn

    def test_the_task_of_the_packaged_table_has_its_name(self) -> None:
        """The default task is called digits."""
        assert CellImproveEnv().reset(seed=0)[1]["task"] == "digits"


class TestObservations:
    """What is seen."""

    def test_feedback_says_how_the_search_stands(self) -> None:
        """Edits left, distance to the best, gain of the best."""
        env, rng = make(horizon=4), np.random.default_rng(0)
        _, info = env.reset(seed=0)
        start = best = info["value"]
        for edits in range(1, 5):
            seen, _, _, _, info = env.step(legal_edit(env, rng))
            best = max(best, info["value"])
            behind, gained = compressed(np.array([info["value"] - best, best - start]))
            assert seen[-3:] == pytest.approx([1 - edits / 4, behind, gained], abs=1e-6)

    def test_one_hot_has_the_content_of_prefix(self) -> None:
        """Position by position."""
        one, other = make(observation="prefix"), make(observation="one_hot")
        (seen, _), (flat, _) = one.reset(seed=3), other.reset(seed=3)
        sizes = [5] * 12 + [5]
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        assert [int(part.argmax()) for part in parts] == seen.tolist()

    def test_states_are_the_current_cell(self) -> None:
        """And nothing else."""
        env = make(observation="states")
        seen, info = env.reset(seed=0)
        assert tuple(seen.tolist()) == info["encoding"]


class TestBadInput:
    """What is refused, and how."""

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"horizon": 0}, InvalidArgument, "horizon must be an integer of at least 1 edit, got 0"),
            ({"horizon": 2.5}, InvalidArgument, "got 2.5"),
            ({"landscapes": 0}, InvalidArgument, "landscapes must be an integer of at least 1, got 0"),
            ({"landscapes": 2, "table": "digits"}, InvalidArgument, "either tables or landscapes"),
            ({"table": "digits,digits", "evaluator": "tabular"}, InvalidArgument, "repeats one"),
            ({"table": "digits,metaqnn-digits", "evaluator": "tabular"}, TableError, "metaqnn"),
            ({"table": "nowhere", "evaluator": "tabular"}, UnknownName, "nowhere"),
            ({"observation": "feedbak"}, UnknownName, "feedback"),
            ({"evaluator": "tabular", "fidelity": 10_000}, FidelityError, "10000"),
        ],
    )
    def test_arguments_outside_their_range(
        self, arguments: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        """The message has the value received."""
        with pytest.raises(error, match=message):
            make(**arguments)

    def test_a_space_without_fixed_slots(self) -> None:
        """Where architectures answer different decisions, one decision cannot be replaced alone."""
        with pytest.raises(InvalidArgument, match="answer the same decisions"):
            ImprovementEnv({"toy": SyntheticEvaluator(ToySpace())}, Accuracy())

    def test_no_task(self) -> None:
        """Somebody must answer."""
        with pytest.raises(InvalidArgument, match="at least one task"):
            ImprovementEnv({}, Accuracy())

    def test_an_agent_that_proposes_whole_architectures(self) -> None:
        """The loop of our own agents says who can search here."""
        nas_agents = pytest.importorskip("nas_agents")
        envs: Any = gymnasium.make_vec(
            "NAS-Cell-Improve-v0", 2, evaluator="synthetic", autoreset_mode="Disabled"
        ).unwrapped
        with pytest.raises(InvalidArgument, match="proposes whole architectures"):
            nas_agents.run(nas_agents.make("random_search", envs, 0), envs, 10, 0)
