"""Loops of somebody's own: counted, recorded, scored, and kept from what is held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nas_agents
import nas_benchmarks
from nas_benchmarks.foreign import BenchmarkTask, HeldOut
from nas_benchmarks.recorded import SuiteRecord
from nas_benchmarks.suites import run_seed
from nas_benchmarks.summary import summary
from nas_benchmarks.tasks import Task
from nas_gym.errors import BudgetExhausted, InvalidArgument, RunExists, UnknownName


@pytest.fixture
def begin(small_table: Path, tmp_path: Path) -> Any:
    """Return a function that begins a run on a small table."""
    task = Task("small", "NAS-Cell-v0", {"table": str(small_table)})

    def begun(method: str = "mine", seed: int = 0, budget: int = 20, **others: Any) -> BenchmarkTask:
        return nas_benchmarks.task(task, seed=seed, method=method, out=tmp_path / "out", budget=budget, **others)

    return begun


def episodes(env: Any, count: int | None = None, seed: int = 0) -> None:
    """Play random episodes, for ever where no number is given."""
    rng = np.random.default_rng(seed)
    while count is None or count > 0:
        env.reset()
        for action in env.unwrapped.space.sample(rng):
            env.step(action)
        count = None if count is None else count - 1


# --- how a block ends ------------------------------------------------------------------------------


def test_the_query_over_the_budget_ends_the_block(begin: Any) -> None:
    """Cleanly: the row is written, and what stands behind the block runs."""
    with begin() as t:
        episodes(t.env)
    assert (t.row["queries"], t.row["ended"], t.row["method"]) == (20, "budget", "mine")


def test_the_query_over_the_budget_raises_inside(begin: Any) -> None:
    """A loop may catch it and go on without searching."""
    with begin() as t:
        episodes(t.env, 20)
        with pytest.raises(BudgetExhausted):
            episodes(t.env, 1)
    assert t.row["queries"] == 20


def test_a_loop_that_stops_early_keeps_its_incumbent(begin: Any) -> None:
    """It is judged by it to the end of the budget."""
    with begin() as t:
        episodes(t.env, 5)
    assert (t.row["queries"], t.row["ended"]) == (5, "stopped")
    assert list(t.row["regret"]) == ["20"]


def test_any_other_error_goes_on_and_leaves_no_row(begin: Any, tmp_path: Path) -> None:
    """Only finished runs are recorded."""
    with pytest.raises(ZeroDivisionError), begin() as t:
        episodes(t.env, 5)
        raise ZeroDivisionError
    assert (t.row, SuiteRecord(tmp_path / "out").rows()) == (None, [])


def test_a_block_without_a_query_is_an_error(begin: Any) -> None:
    """Somebody searched other environments."""
    with pytest.raises(InvalidArgument, match="nothing was queried"), begin():
        pass


# --- what is counted and recorded ------------------------------------------------------------------


def test_a_foreign_loop_is_scored_as_an_agent_is(begin: Any) -> None:
    """The same architectures in the same order give the same scores and costs, whoever proposed them."""
    with begin() as t:
        envs = t.vec_env(4, autoreset_mode="Disabled").unwrapped
        agent = nas_agents.make("random_search", envs, 7, batch_size=4)
        nas_agents.run(agent, envs, 20, 0)
    with begin("single") as single:
        episodes(single.env, seed=7)
    same = ("regret", "normalised", "log_regret_area", "incumbents", "best", "simulated_seconds", "entropy", "run_seed")
    assert {name: t.row[name] for name in same} == {name: single.row[name] for name in same}


def test_all_environments_share_the_budget(begin: Any) -> None:
    """A single one and several together."""
    with begin() as t:
        episodes(t.env, 8)
        envs = t.vec_env(5)
        envs.reset(seed=0)
        while True:
            envs.step(np.zeros(5, np.int64))
    assert t.row["queries"] == 20
    assert len(t.row["incumbents"]) >= 1


def test_seeds_are_those_of_all_methods(begin: Any) -> None:
    """So that runs are paired."""
    assert begin(seed=4).seed == run_seed(4, "small")


def test_runs_are_never_overwritten(begin: Any, tmp_path: Path) -> None:
    """What is missing can be asked for."""
    with begin() as t:
        episodes(t.env)
    with pytest.raises(RunExists, match="missing_seeds"):
        begin()
    missing = nas_benchmarks.missing_seeds("small", method="mine", out=tmp_path / "out", seeds=range(3))
    assert missing == [1, 2]


def test_another_budget_is_another_record(begin: Any) -> None:
    """Its runs could not be compared."""
    with begin() as t:
        episodes(t.env)
    with pytest.raises(InvalidArgument, match="another protocol"):
        begin(seed=1, budget=21)


def test_the_record_can_be_shown(begin: Any, tmp_path: Path) -> None:
    """As that of a suite."""
    for method in ("random_search", "mine"):
        with begin(method, settings={"depth": 2}) as t:
            episodes(t.env)
    found = SuiteRecord(tmp_path / "out").rows()
    assert [row["settings"] for row in found] == [{"depth": 2}] * 2
    assert {line[0] for line in summary(found, repetitions=20)[0].rows} == {"mine", "random_search"}


# --- what is held out ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "what"), [("report", (0,) * 6), ("standing", (0,) * 6), ("reference", "test_accuracy")]
)
@pytest.mark.parametrize("make", [lambda t: t.env, lambda t: t.vec_env(2)], ids=["single", "vector"])
def test_held_out_values_are_out_of_sight(begin: Any, make: Any, ask: str, what: Any) -> None:
    """The evaluator that the environments carry refuses them, and carries no table."""
    with begin() as t:
        evaluator = make(t).unwrapped.evaluator
        with pytest.raises(HeldOut):
            getattr(evaluator, ask)(what)
        assert not hasattr(evaluator, "table")
        episodes(t.env, 1)


def test_infos_tell_search_metrics_only(begin: Any) -> None:
    """No accuracy on the test set, whatever it is called."""
    with begin() as t:
        t.env.reset()
        for _ in range(6):
            *_, info = t.env.step(0)
    assert "test_accuracy" not in info["metrics"]
    assert set(info) == {"action_mask", "encoding", "status", "metrics", "cost_seconds"}


# --- bad use ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"seed": -1}, "seed must be"), ({"method": ""}, "must name your method"), ({"budget": 0}, "budget must be")],
)
def test_arguments_are_checked(begin: Any, arguments: dict[str, Any], message: str) -> None:
    """Before anything is searched."""
    with pytest.raises(InvalidArgument, match=message):
        begin(**arguments)


def test_an_unknown_task_names_the_nearest(tmp_path: Path) -> None:
    """And all others."""
    with pytest.raises(UnknownName, match="Did you mean 'cell-digits'"):
        nas_benchmarks.task("cell-digit", seed=0, method="x", out=tmp_path)


def test_a_missing_table_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that brings it."""
    monkeypatch.delenv("NAS_GYM_DATA", raising=False)
    with pytest.raises(InvalidArgument, match="nas-gym tables import"):
        nas_benchmarks.task("nats-cifar10", seed=0, method="x", out=tmp_path)


def test_the_task_cannot_be_changed(begin: Any) -> None:
    """Another table or fidelity would be another task."""
    with pytest.raises(InvalidArgument, match="got fidelity"), begin() as t:
        t.make_env(fidelity=1)


def test_environments_exist_inside_the_block_only(begin: Any) -> None:
    """Elsewhere nobody counts."""
    with pytest.raises(InvalidArgument, match="inside its `with` block"):
        _ = begin().env


# --- other libraries -------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("make", [lambda t: t.sb3_env(4), lambda t: t.env], ids=["several", "single"])
def test_learn_of_stable_baselines3_returns_at_the_budget(begin: Any, make: Any) -> None:
    """That of a subclass of somebody's own, whether the episodes that end at once divide the budget or not."""
    library = pytest.importorskip("stable_baselines3")

    class Mine(library.PPO):
        """My PPO."""

    returned = False
    with begin(budget=50) as t:
        model = Mine("MlpPolicy", make(t), n_steps=12, batch_size=12, n_epochs=1, seed=t.seed)
        model.learn(10_000, callback=t.sb3_callback())
        returned = True
    assert (t.row["queries"], t.row["ended"], returned) == (50, "budget", True)


@pytest.mark.usefixtures("one_thread")
def test_without_a_callback_the_budget_ends_the_block(begin: Any) -> None:
    """It is used to its last query all the same."""
    library = pytest.importorskip("stable_baselines3")
    from nas_gym.wrappers import SB3VecEnv

    with begin(budget=50) as t:
        model = library.PPO("MlpPolicy", SB3VecEnv(t.vec_env(4)), n_steps=12, batch_size=24, n_epochs=1)
        model.learn(10_000)
        pytest.fail("learn returned")
    assert (t.row["queries"], t.row["ended"]) == (50, "budget")


def test_the_step_after_the_last_raises(begin: Any) -> None:
    """A loop that ignores the callback does not go on for nothing."""
    pytest.importorskip("stable_baselines3")
    with begin(budget=5) as t:
        envs = t.sb3_env(2)
        envs.reset()
        for _ in range(3 * 6):
            *_, dones, _ = envs.step(np.zeros(2, np.int64))
        assert not dones.any()
        with pytest.raises(BudgetExhausted, match="sb3_callback"):
            envs.step(np.zeros(2, np.int64))
    assert t.row["queries"] == 5


@pytest.mark.usefixtures("one_thread")
def test_a_loop_in_the_manner_of_cleanrl(begin: Any) -> None:
    """Two lines around the file as it is."""
    pytest.importorskip("torch")
    from foreign import cleanrl_ppo

    with begin(budget=50) as t:
        cleanrl_ppo.train(cleanrl_ppo.Args(seed=t.seed), t.vec_env(8, observation="one_hot"))
    assert (t.row["queries"], t.row["ended"]) == (50, "budget")
