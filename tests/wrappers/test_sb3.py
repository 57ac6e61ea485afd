"""Vector environments inside Stable-Baselines3."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("sb3_contrib")

import torch
from gymnasium.wrappers.vector import RecordEpisodeStatistics, TransformObservation
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnv,
    VecMonitor,
    VecNormalize,
)

from nas_gym.errors import BudgetExhausted, EpisodeOver, InvalidAction, InvalidArgument, MissingExtra
from nas_gym.wrappers.sb3 import SB3VecEnv

NUM_ENVS = 5
STEPS = 60
MODES = ("NextStep", "SameStep", "Disabled")
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "cell": ("NAS-Cell-v0", {"evaluator": "synthetic"}),
    "metaqnn": ("NAS-MetaQNN-v0", {"evaluator": "synthetic"}),
    "metaqnn states": ("NAS-MetaQNN-v0", {"evaluator": "synthetic", "observation": "states"}),
    "blockqnn one-hot": ("NAS-BlockQNN-v0", {"evaluator": "synthetic", "observation": "one_hot"}),
}

pytestmark = pytest.mark.usefixtures("one_thread")


def make_envs(id_: str = "NAS-Cell-v0", num_envs: int = NUM_ENVS, mode: str = "NextStep", **kwargs: Any) -> Any:
    """Return a vector environment, without data unless asked otherwise."""
    if "table" not in kwargs:
        kwargs.setdefault("evaluator", "synthetic")
    return gymnasium.make_vec(
        id_, num_envs=num_envs, vectorization_mode="vector_entry_point", autoreset_mode=mode, **kwargs
    )


def make(*args: Any, **kwargs: Any) -> SB3VecEnv:
    """Return an adapted environment, without data unless asked otherwise."""
    return SB3VecEnv(make_envs(*args, **kwargs))


@dataclass
class Trace:
    """What an environment returned, step by step; `masks` are those before the step."""

    masks: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    observations: list[Any] = field(default_factory=list)
    rewards: list[npt.NDArray[np.float32]] = field(default_factory=list)
    dones: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    infos: list[list[dict[str, Any]]] = field(default_factory=list)

    def finals(self) -> list[dict[str, Any]]:
        """Return the infos of all episodes that ended, in order."""
        return [info for step in self.infos for info in step if "terminal_observation" in info]


def play(env: VecEnv, actions: Callable[[npt.NDArray[np.bool_], int], npt.NDArray[np.int64]]) -> Trace:
    """Play from a reset; `actions` are asked for with the masks and the number of the step."""
    trace = Trace()
    trace.observations.append(env.reset())
    for step in range(STEPS):
        masks = get_action_masks(env)
        observations, rewards, dones, infos = env.step(actions(masks, step))
        trace.masks.append(masks)
        trace.observations.append(observations)
        trace.rewards.append(rewards)
        trace.dones.append(dones)
        trace.infos.append(infos)
    return trace


def finish_cells(env: VecEnv) -> tuple[Any, npt.NDArray[np.bool_], list[dict[str, Any]]]:
    """Take the first legal action until the 6 decisions of a cell are taken; return observations, dones and infos."""
    for _ in range(5):
        env.step(get_action_masks(env).argmax(axis=1))
    observations, _, dones, infos = env.step(get_action_masks(env).argmax(axis=1))
    return observations, dones, infos


def stream(illegal: float) -> Callable[[npt.NDArray[np.bool_], int], npt.NDArray[np.int64]]:
    """Return a player: uniform over legal actions, with a probability over all of them instead."""
    rng = np.random.default_rng(0)

    def act(masks: npt.NDArray[np.bool_], _: int) -> npt.NDArray[np.int64]:
        free = rng.random((len(masks), 1)) < illegal
        return np.where(masks | free, rng.random(masks.shape), -1).argmax(axis=1)

    return act


@cache
def traces(case: str, mode: str, illegal: float) -> tuple[Trace, Trace]:
    """Return what `SB3VecEnv` and `DummyVecEnv` with SB3's `Monitor` return for the same actions."""
    id_, kwargs = CASES[case]
    taken: list[npt.NDArray[np.int64]] = []
    player = stream(illegal)

    def act(masks: npt.NDArray[np.bool_], _: int) -> npt.NDArray[np.int64]:
        taken.append(player(masks, 0))
        return taken[-1]

    ours = play(make(id_, mode=mode, **kwargs), act)
    singles = DummyVecEnv([lambda: Monitor(gymnasium.make(id_, **kwargs)) for _ in range(NUM_ENVS)])
    return ours, play(singles, lambda _, step: taken[step])


every_case = pytest.mark.parametrize("case", CASES)
every_mode = pytest.mark.parametrize("mode", MODES)
legal_and_illegal = pytest.mark.parametrize("illegal", [0.0, 0.3])


# --- it equals DummyVecEnv -------------------------------------------------------------------------


@every_case
@every_mode
@legal_and_illegal
@pytest.mark.parametrize("what", ["observations", "rewards", "dones", "masks"])
def test_arrays_are_those_of_single_environments(case: str, mode: str, illegal: float, what: str) -> None:
    """In every step of a random stream of actions, whatever the autoreset mode."""
    ours, singles = traces(case, mode, illegal)
    np.testing.assert_array_equal(np.array(getattr(ours, what)), np.array(getattr(singles, what)))


@every_case
@pytest.mark.parametrize("what", ["observations", "rewards", "dones", "masks"])
def test_types_are_those_of_single_environments(case: str, what: str) -> None:
    """SB3 allocates its buffers by them."""
    ours, singles = traces(case, "SameStep", 0.0)
    assert getattr(ours, what)[-1].dtype == getattr(singles, what)[-1].dtype


@every_case
@every_mode
@legal_and_illegal
def test_final_infos_are_those_of_single_environments(case: str, mode: str, illegal: float) -> None:
    """Terminal observation, encoding, status, metrics, cost, mask; the statistics apart from the time."""
    ours, singles = traces(case, mode, illegal)
    found, expected = (
        [info | {"episode": {name: info["episode"][name] for name in "rl"}} for info in trace.finals()]
        for trace in (ours, singles)
    )
    np.testing.assert_equal(found, expected)


@every_case
def test_the_streams_end_episodes(case: str) -> None:
    """The comparisons above see ends by completion and by illegal actions."""
    assert {info["status"] for info in traces(case, "SameStep", 0.3)[0].finals()} >= (
        {"ok"} if case == "cell" else {"ok", "invalid_action"}
    )


@every_mode
def test_numbers_of_final_infos_are_plain(mode: str) -> None:
    """As in the infos of single environments, they can be written as JSON."""
    final = traces("metaqnn", mode, 0.0)[0].finals()[0]
    numbers = [final["cost_seconds"], *final["metrics"].values(), *final["episode"].values()]
    assert {type(number) for number in numbers} == {float, int}


@every_mode
def test_infos_before_the_end_say_nothing(mode: str) -> None:
    """Masks are asked for; only SB3's flag is there."""
    ours, _ = traces("metaqnn", mode, 0.0)
    going_on = [info for step in ours.infos for info in step if "terminal_observation" not in info]
    assert all(info == {"TimeLimit.truncated": False} for info in going_on)


def test_infos_share_nothing_mutable() -> None:
    """Each sub-environment and each step has an info of its own."""
    ours, _ = traces("metaqnn", "SameStep", 0.0)
    assert len({id(info) for step in ours.infos for info in step}) == STEPS * NUM_ENVS


@every_mode
def test_terminal_observations_share_no_memory(mode: str) -> None:
    """Who normalises one in place spoils no other, and not what the step returned."""
    env = make(mode=mode)
    env.reset()
    observations, _, infos = finish_cells(env)
    last = [info["terminal_observation"] for info in infos]
    others = [observations, *last[1:]]
    assert not any(np.shares_memory(last[0], other) for other in others)


def test_messages_of_failures_reach_their_rows() -> None:
    """A column that only some rows have is given to those."""
    env = make(num_envs=2)
    env.reset()
    columns = {"message": np.array(["broken", None], object), "_message": np.array([True, False])}
    terminated = np.array([True, True])
    outcome = (env.reset(), np.zeros(2), terminated, ~terminated, columns)
    env.envs.step = lambda actions: outcome  # type: ignore[method-assign]
    infos = env.step(np.zeros(2, np.int64))[3]
    assert [info.get("message", "none") for info in infos] == ["broken", "none"]


def test_a_cut_episode_is_told_from_one_that_ended() -> None:
    """SB3 bootstraps where ``TimeLimit.truncated`` is true."""
    env = make(num_envs=3)
    env.reset()
    terminated, truncated = np.array([True, False, True]), np.array([False, True, True])
    outcome = (env.reset(), np.zeros(3), terminated, truncated, {})
    env.envs.step = lambda actions: outcome  # type: ignore[method-assign]
    infos = env.step(np.zeros(3, np.int64))[3]
    assert [info["TimeLimit.truncated"] for info in infos] == [False, True, False]


# --- reset -----------------------------------------------------------------------------------------


def test_a_reset_begins_new_statistics() -> None:
    """The steps of an episode that was abandoned do not count."""
    env = make(num_envs=1)
    env.reset()
    env.step(np.zeros(1, np.int64))
    env.reset()
    assert finish_cells(env)[2][0]["episode"]["l"] == 6


def play_noisy(env: SB3VecEnv, seed: int | None) -> list[npt.NDArray[np.float32]]:
    """Play the same architectures, after `seed` if it is given."""
    if seed is not None:
        env.seed(seed)
    return play(env, lambda masks, step: np.full(NUM_ENVS, step % 5)).rewards


def test_a_seed_restarts_noisy_evaluations(small_table: Path) -> None:
    """The same architectures are then worth the same again."""
    env = make(table=str(small_table), noise="sample", repeat_query="resample+charge")
    np.testing.assert_array_equal(play_noisy(env, 3), play_noisy(env, 3))


def test_a_seed_is_used_once(small_table: Path) -> None:
    """A reset without one goes on with new repeats."""
    env = make(table=str(small_table), noise="sample", repeat_query="resample+charge")
    assert not np.array_equal(play_noisy(env, 3), play_noisy(env, None))


def test_each_sub_environment_gets_a_seed_of_its_own() -> None:
    """SB3 counts up from the one it was given."""
    assert make(num_envs=3).seed(7) == [7, 8, 9]


def test_options_hold_for_one_reset(small_table: Path) -> None:
    """The fidelity is that of the episodes that begin with this reset, not of those that follow."""
    env = make(num_envs=1, table=str(small_table))
    env.set_options({"fidelity": 1})
    rewards = play(env, lambda *_: np.zeros(1, np.int64)).rewards
    evaluator = env.get_attr("evaluator")[0]
    expected = [evaluator.evaluate_one((0,) * 6, fidelity) for fidelity in (1, 4)]
    np.testing.assert_allclose([rewards[5], rewards[11]], [[one.metrics["valid_accuracy"]] for one in expected])


def test_options_of_single_sub_environments_are_refused() -> None:
    """One batched reset has one set of options."""
    env = make(num_envs=2)
    env.set_options([{"fidelity": 1}, {"fidelity": 2}])
    with pytest.raises(InvalidArgument, match="the same for all"):
        env.reset()


# --- masks and attributes --------------------------------------------------------------------------


def test_masking_is_supported() -> None:
    """As sb3-contrib asks."""
    assert is_masking_supported(make())


def test_masks_of_some_sub_environments() -> None:
    """In the order of the indices."""
    env = make("NAS-MetaQNN-v0", num_envs=3)
    env.reset()
    env.step(np.array([0, 0, 0]))
    env.step(np.array([0, 12, 1]))
    np.testing.assert_array_equal(env.env_method("action_masks", indices=[1, 0]), env.action_masks()[[1, 0]])


def test_a_mask_may_be_changed_by_who_asked() -> None:
    """It is a copy."""
    env = make()
    env.reset()
    env.env_method("action_masks")[0][:] = False
    assert env.action_masks().all()


def test_a_method_as_an_attribute_belongs_to_its_sub_environment() -> None:
    """``get_attr("action_masks")`` returns what can be called, as with single environments."""
    env = make("NAS-MetaQNN-v0", num_envs=2)
    env.reset()
    env.step(np.array([0, 19]))
    first, second = (method() for method in env.get_attr("action_masks"))
    np.testing.assert_array_equal([first, second], env.action_masks())


@pytest.mark.parametrize("name", ["render_mode", "spec", "space", "evaluator", "objective", "counter"])
def test_attributes_are_those_of_the_vector_environment(name: str) -> None:
    """Once per sub-environment."""
    env = make(num_envs=2)
    assert env.get_attr(name) == [getattr(env.envs.unwrapped, name)] * 2


@pytest.mark.parametrize("name", ["action_space", "observation_space"])
def test_spaces_are_those_of_one_sub_environment(name: str) -> None:
    """SB3 batches by itself."""
    env = make(num_envs=2)
    assert env.get_attr(name, indices=0) == [getattr(env.envs, f"single_{name}")]


@pytest.mark.parametrize("name", ["no_such_thing", "get_state", "step"])
def test_what_no_sub_environment_has_is_no_attribute(name: str) -> None:
    """Neither unknown names nor methods that act on all sub-environments at once."""
    assert not make().has_attr(name)


def test_a_method_of_all_sub_environments_is_not_called_for_one() -> None:
    """The message says where it can be called."""
    with pytest.raises(AttributeError, match="call it on `envs`"):
        make().env_method("get_state")


def test_setting_an_attribute_reaches_the_environment() -> None:
    """The next evaluations use it."""
    env = make(num_envs=2)
    env.set_attr("objective", "other")
    assert env.envs.unwrapped.objective == "other"  # type: ignore[attr-defined]


def test_a_space_that_was_set_is_found_again() -> None:
    """Both names mean the space of one sub-environment."""
    env = make(num_envs=2)
    env.set_attr("action_space", gymnasium.spaces.Discrete(3))
    assert env.get_attr("action_space") == [gymnasium.spaces.Discrete(3)] * 2


def test_an_attribute_is_not_set_for_some() -> None:
    """They share it."""
    with pytest.raises(InvalidArgument, match="share their attributes"):
        make(num_envs=2).set_attr("objective", "other", indices=[0])


def test_it_counts_as_monitored() -> None:
    """The infos have the statistics of SB3's `Monitor`."""
    assert make(num_envs=2).env_is_wrapped(Monitor) == [True, True]


def test_it_is_wrapped_in_nothing_else() -> None:
    """There are no single environments that could be."""
    assert make(num_envs=2).env_is_wrapped(gymnasium.wrappers.TimeLimit) == [False, False]


def test_vector_wrappers_count_as_wrappers() -> None:
    """Asked for by their class."""
    env = SB3VecEnv(RecordEpisodeStatistics(make_envs(num_envs=1)))
    assert env.env_is_wrapped(RecordEpisodeStatistics) == [True]  # type: ignore[arg-type]


def test_text_is_rendered_for_each_sub_environment() -> None:
    """Through `env_method`, as SB3 does it."""
    env = make(num_envs=2, render_mode="ansi")
    env.reset()
    env.step(np.array([0, 1]))
    assert env.env_method("render", indices=[1]) == [env.envs.render()[1]]  # type: ignore[index]


def test_pictures_are_tiled() -> None:
    """Four sub-environments give a picture of two by two."""
    pytest.importorskip("pygame")
    env = make(num_envs=4, render_mode="rgb_array")
    env.reset()
    height, width, _ = env.get_images()[0].shape  # type: ignore[union-attr]
    assert env.render().shape == (2 * height, 2 * width, 3)  # type: ignore[union-attr]


def test_without_a_render_mode_there_are_no_pictures() -> None:
    """A warning says which mode has them."""
    with pytest.warns(UserWarning, match="rgb_array"):
        assert make(num_envs=2).get_images() == [None, None]


def test_closing_closes_the_environment() -> None:
    """What the evaluator holds is released."""
    env = make()
    env.close()
    assert env.envs.closed


# --- vector wrappers in between --------------------------------------------------------------------


def test_terminal_observations_pass_observation_wrappers() -> None:
    """They are transformed like all others."""
    envs = make_envs(num_envs=2, observation="one_hot")
    env = SB3VecEnv(TransformObservation(envs, lambda observations: observations * 2))
    env.reset()
    assert finish_cells(env)[2][0]["terminal_observation"].max() == 2


def test_dictionaries_are_observations() -> None:
    """A terminal observation is one of a single sub-environment."""
    envs = make_envs(num_envs=2)
    single = gymnasium.spaces.Dict({"prefix": envs.single_observation_space})
    env = SB3VecEnv(TransformObservation(envs, lambda observations: {"prefix": observations}, None, single))
    env.reset()
    np.testing.assert_equal(finish_cells(env)[2][0]["terminal_observation"], {"prefix": [1] * 6})


def test_returns_are_those_that_the_agent_sees() -> None:
    """The statistics of a wrapper in between, which the infos would have, are replaced."""
    env = SB3VecEnv(RecordEpisodeStatistics(make_envs(num_envs=2, mode="Disabled")))
    trace = play(env, lambda masks, _: np.zeros(len(masks), np.int64))
    assert trace.finals()[0]["episode"]["l"] == 6


# --- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        partial(gymnasium.make, "NAS-Cell-v0", evaluator="synthetic"),
        partial(gymnasium.make_vec, "NAS-Cell-v0", 2, vectorization_mode="sync", evaluator="synthetic"),
        partial(gymnasium.make_vec, "CartPole-v1", 2, vectorization_mode="vector_entry_point"),
        lambda: make(num_envs=1),
    ],
    ids=["single", "sync", "foreign", "adapted"],
)
def test_other_environments_are_refused(build: Callable[[], Any]) -> None:
    """The message shows how to make one that fits."""
    with pytest.raises(InvalidArgument, match="vector_entry_point"):
        SB3VecEnv(build())


def test_a_step_before_the_first_reset_is_refused() -> None:
    """As the environment does."""
    with pytest.raises(EpisodeOver):
        make().step(np.zeros(NUM_ENVS, np.int64))


def test_waiting_for_a_step_that_was_not_taken_is_refused() -> None:
    """There are no actions."""
    env = make()
    env.reset()
    with pytest.raises(InvalidAction):
        env.step_wait()


@every_mode
def test_an_exhausted_budget_reaches_the_caller(mode: str) -> None:
    """Nothing beyond it is evaluated."""
    env = make(num_envs=2, mode=mode)
    env.get_attr("counter")[0].budget = 3
    with pytest.raises(BudgetExhausted):
        play(env, lambda masks, _: np.zeros(2, np.int64))


def test_without_sb3_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the pip command."""
    monkeypatch.setitem(sys.modules, "stable_baselines3.common.monitor", None)
    monkeypatch.delitem(sys.modules, "nas_gym.wrappers.sb3")
    with pytest.raises(MissingExtra, match=r"nas-gym\[agents\]"):
        importlib.import_module("nas_gym.wrappers.sb3")


# --- SB3 and sb3-contrib on top --------------------------------------------------------------------

ON_POLICY: dict[str, Any] = {"n_steps": 8, "device": "cpu", "seed": 0}
ALGORITHMS: dict[str, Callable[[VecEnv], Any]] = {
    "MaskablePPO": lambda env: MaskablePPO("MlpPolicy", env, batch_size=16, **ON_POLICY),
    "PPO": lambda env: PPO("MlpPolicy", env, batch_size=16, **ON_POLICY),
    "A2C": lambda env: A2C("MlpPolicy", env, **ON_POLICY),
    "DQN": lambda env: DQN("MlpPolicy", env, learning_starts=10, target_update_interval=20, device="cpu", seed=0),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_algorithms_learn_on_it(name: str) -> None:
    """A few updates; the statistics of episodes arrive."""
    model = ALGORITHMS[name](make("NAS-MetaQNN-v0", num_envs=4)).learn(100)
    assert model.ep_info_buffer[-1]["l"] >= 1


def test_masked_ppo_takes_legal_actions_only() -> None:
    """The masks belong to the observations."""
    statuses: set[str] = set()

    def see(found: dict[str, Any], _: dict[str, Any]) -> bool:
        statuses.update(info["status"] for info in found["infos"] if "status" in info)
        return True

    ALGORITHMS["MaskablePPO"](make("NAS-MetaQNN-v0", num_envs=4)).learn(200, callback=see)
    assert statuses == {"ok"}


def weights(model: Any) -> npt.NDArray[np.float32]:
    """Return all weights of a policy in a row."""
    return torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach().numpy()


def test_the_same_seed_learns_the_same_as_on_single_environments() -> None:
    """Weights after some updates do not depend on how the environments are stepped."""
    singles = DummyVecEnv([partial(gymnasium.make, "NAS-MetaQNN-v0", evaluator="synthetic")] * 4)
    ours, others = (ALGORITHMS["MaskablePPO"](env).learn(200) for env in (make("NAS-MetaQNN-v0", num_envs=4), singles))
    np.testing.assert_array_equal(weights(ours), weights(others))


def test_vec_normalize_works_on_one_hot_observations() -> None:
    """Observations and terminal observations are normalised, and MaskablePPO learns."""
    env = VecNormalize(make(num_envs=4, observation="one_hot"))
    assert np.isfinite(weights(ALGORITHMS["MaskablePPO"](env).learn(100))).all()


def test_evaluation_under_vec_normalize_reports_the_true_rewards() -> None:
    """Without a further monitor, since the infos have the statistics."""
    env = VecNormalize(make(num_envs=2, observation="one_hot"), training=False)
    env.ret_rms.var = np.array(100.0)
    returns, lengths = evaluate_policy(ALGORITHMS["MaskablePPO"](env), env, 4, return_episode_rewards=True)
    assert min(returns) > 0.1 and set(lengths) == {6}  # type: ignore[arg-type]


def test_vec_monitor_finds_the_same_statistics() -> None:
    """It warns that it replaces them."""
    with pytest.warns(UserWarning, match="already wrapped"):
        env = VecMonitor(make(num_envs=2))
    ours, monitored = (
        [(info["episode"]["l"], round(float(info["episode"]["r"]), 4)) for info in play(one, stream(0.0)).finals()]
        for one in (make(num_envs=2), env)
    )
    assert ours == monitored


def test_vec_monitor_names_the_environment(tmp_path: Path) -> None:
    """In the head of its file."""
    with pytest.warns(UserWarning, match="already wrapped"):
        env = VecMonitor(make(num_envs=1), str(tmp_path / "log"))
    env.close()
    assert '"env_id": "NAS-Cell-v0"' in (tmp_path / "log.monitor.csv").read_text()


# --- single environments in processes --------------------------------------------------------------

MAKE_CELL = partial(gymnasium.make, "nas_gym:NAS-Cell-v0", evaluator="synthetic")


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_single_environments_work_in_subproc_vec_env(method: str) -> None:
    """An episode of 6 steps ends everywhere, its masks come through `env_method`."""
    env = SubprocVecEnv([MAKE_CELL] * 2, start_method=method)
    try:
        env.reset()
        assert finish_cells(env)[1].all()
    finally:
        env.close()


@pytest.mark.parametrize("context", ["forkserver", "spawn"])
def test_single_environments_work_in_async_vector_env(context: str) -> None:
    """An episode of 6 steps ends everywhere."""
    envs = gymnasium.make_vec(
        "nas_gym:NAS-Cell-v0",
        num_envs=2,
        vectorization_mode="async",
        vector_kwargs={"context": context},
        evaluator="synthetic",
    )
    try:
        _, infos = envs.reset()
        for _ in range(5):
            _, _, _, _, infos = envs.step(infos["action_mask"].argmax(axis=1))
        assert envs.step(infos["action_mask"].argmax(axis=1))[2].all()
    finally:
        envs.close()
