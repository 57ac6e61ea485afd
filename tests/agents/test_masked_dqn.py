"""DQN that takes and believes in legal actions only."""

from __future__ import annotations

import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("sb3_contrib")

import torch
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from toys import ToySpace

from nas_agents.masked_dqn import MaskedDQN, MaskedReplayBuffer, MaskedSamples
from nas_gym.envs.core.construction import ConstructionEnv, ConstructionVectorEnv
from nas_gym.errors import InvalidArgument, MissingExtra
from nas_gym.evaluators.synthetic import SyntheticEvaluator
from nas_gym.objectives import Accuracy
from nas_gym.wrappers.sb3 import SB3VecEnv

pytestmark = pytest.mark.usefixtures("one_thread")

SPACE = ToySpace()
CHOICES = SPACE.max_choices


def toy_env(num_envs: int = 4) -> SB3VecEnv:
    """Return environments over the toy space, whose observation is the prefix plus one."""
    return SB3VecEnv(ConstructionVectorEnv(SPACE, SyntheticEvaluator(SPACE), Accuracy(), num_envs=num_envs))


def toy_singles(num_envs: int = 2, limit: int | None = None) -> DummyVecEnv:
    """Return the same as single environments, perhaps cut after `limit` steps."""

    def build() -> gymnasium.Env[Any, Any]:
        env = ConstructionEnv(SPACE, SyntheticEvaluator(SPACE), Accuracy())
        return env if limit is None else TimeLimit(env, limit)

    return DummyVecEnv([build] * num_envs)


def metaqnn(num_envs: int = 4) -> SB3VecEnv:
    """Return environments in which most actions are illegal at times."""
    return SB3VecEnv(gymnasium.make_vec("NAS-MetaQNN-v0", num_envs=num_envs, evaluator="synthetic"))


def make(env: Any, **kwargs: Any) -> MaskedDQN:
    """Return an agent with short schedules."""
    settings = {
        "learning_starts": 20,
        "buffer_size": 2_000,
        "target_update_interval": 40,
        "learning_rate": 1e-3,
        "seed": 0,
        "device": "cpu",
    }
    return MaskedDQN("MlpPolicy", env, **(settings | kwargs))


def legal(observations: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return the masks that belong to observations of the toy space; all True where it is complete."""
    found = np.ones((len(observations), CHOICES), np.bool_)
    for row, observation in enumerate(observations.astype(int)):
        decision = SPACE.decision(tuple((observation[observation > 0] - 1).tolist()))
        if decision is not None:
            found[row] = decision.mask
    return found


def poison(model: MaskedDQN) -> None:
    """Raise the Q-values of all illegal actions of both networks far above the others."""

    def raise_illegal(_: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        return output + 1e6 * torch.from_numpy(~legal(inputs[0].numpy()))

    for network in (model.q_net, model.q_net_target):
        network.register_forward_hook(raise_illegal)


class Statuses:
    """Callback of `learn` that collects how episodes ended."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, found: dict[str, Any], _: dict[str, Any]) -> bool:
        """Take note of a step and go on."""
        self.seen += [info["status"] for info in found["infos"] if "status" in info]
        return True


def learned(env: VecEnv, steps: int = 200, **kwargs: Any) -> MaskedDQN:
    """Return an agent after some steps."""
    return make(env, **kwargs).learn(steps)


def weights(model: MaskedDQN) -> npt.NDArray[np.float32]:
    """Return all weights of the policy in a row."""
    return torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach().numpy()


def buffer_of(model: MaskedDQN) -> MaskedReplayBuffer:
    """Return the agent's replay buffer."""
    assert isinstance(model.replay_buffer, MaskedReplayBuffer)
    return model.replay_buffer


def minibatch(model: MaskedDQN, size: int = 200) -> MaskedSamples:
    """Draw a minibatch."""
    return buffer_of(model).draw(size, np.random.default_rng(0))


# --- legal actions only ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "phase",
    [
        {"learning_starts": 1_000},
        {"exploration_initial_eps": 1.0, "exploration_final_eps": 1.0},
        {"exploration_initial_eps": 0.0, "exploration_final_eps": 0.0},
        {},
    ],
    ids=["before learning starts", "exploring", "greedy", "default"],
)
def test_no_action_is_illegal(phase: dict[str, Any]) -> None:
    """In 500 steps of MetaQNN, in every phase."""
    statuses = Statuses()
    make(metaqnn(), **phase).learn(500, callback=statuses)
    assert set(statuses.seen) == {"ok"}


def test_no_action_is_illegal_in_single_environments() -> None:
    """They are offered through `DummyVecEnv` too."""
    statuses = Statuses()
    singles = DummyVecEnv([partial(gymnasium.make, "NAS-MetaQNN-v0", evaluator="synthetic")] * 2)
    make(singles).learn(500, callback=statuses)
    assert set(statuses.seen) == {"ok"}


def test_illegal_actions_that_seem_best_are_not_taken() -> None:
    """However large their Q-values are."""
    statuses = Statuses()
    model = make(toy_env(), learning_starts=0, exploration_initial_eps=0.0, exploration_final_eps=0.0)
    poison(model)
    model.learn(200, callback=statuses)
    assert set(statuses.seen) == {"ok"}


def test_illegal_actions_that_seem_best_do_not_move_targets() -> None:
    """The maximum is over legal actions."""
    model = learned(toy_env())
    samples = minibatch(model)
    before = model._targets(samples)
    poison(model)
    torch.testing.assert_close(model._targets(samples), before)


def test_illegal_actions_that_seem_best_do_not_change_what_is_learned() -> None:
    """Training with spoiled Q-values gives the same weights."""
    clean, spoiled = make(toy_env()), make(toy_env())
    poison(spoiled)
    np.testing.assert_array_equal(weights(clean.learn(200)), weights(spoiled.learn(200)))


def test_targets_are_those_of_dqn_over_legal_actions() -> None:
    """The reward plus gamma max Q(s', a'), and the reward alone at the end of an episode."""
    model = learned(toy_env(), gamma=0.9)
    samples = minibatch(model)
    with torch.no_grad():
        values = model.q_net_target(samples.next_observations).numpy()
    best = np.where(legal(samples.next_observations.numpy()), values, -np.inf).max(axis=1)
    expected = samples.rewards[:, 0].numpy() + 0.9 * best * (samples.dones[:, 0].numpy() == 0)
    np.testing.assert_allclose(model._targets(samples)[:, 0].numpy(), expected, rtol=1e-6)


# --- predict ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 1.0], ids=["greedy", "exploring"])
@pytest.mark.parametrize("choice", range(CHOICES))
def test_predict_keeps_to_the_mask(rate: float, choice: int) -> None:
    """The only legal action is returned, whatever the network thinks."""
    model = make(toy_env())
    model.exploration_rate = rate
    masks = np.zeros((3, CHOICES), np.bool_)
    masks[:, choice] = True
    actions, _ = model.predict(np.zeros((3, SPACE.max_length), np.int64), action_masks=masks)
    assert actions.tolist() == [choice] * 3


def test_exploration_is_uniform_over_legal_actions() -> None:
    """Each is drawn as often as any other."""
    model = make(toy_env())
    model.exploration_rate = 1.0
    masks = np.tile([True, False, True, True], (6_000, 1))
    actions, _ = model.predict(np.zeros((6_000, SPACE.max_length), np.int64), action_masks=masks)
    np.testing.assert_allclose(np.bincount(actions, minlength=CHOICES) / 2_000, [1, 0, 1, 1], atol=0.06)


def test_predict_without_masks_is_that_of_dqn() -> None:
    """Every action counts as legal."""
    model = learned(toy_env())
    observations = np.random.default_rng(0).integers(0, 3, (20, SPACE.max_length))
    expected, _ = model.policy.predict(observations, deterministic=True)
    np.testing.assert_array_equal(model.predict(observations, deterministic=True)[0], expected)


def test_predict_takes_a_single_observation() -> None:
    """With a mask of shape [C] it returns one action."""
    mask = np.array([False, False, True, False])
    action, _ = make(toy_env()).predict(np.zeros(SPACE.max_length, np.int64), action_masks=mask)
    assert (action.shape, int(action)) == ((), 2)


@pytest.mark.parametrize("shape", [(CHOICES,), (2, CHOICES), (3, CHOICES + 1)])
def test_masks_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    """One mask of one observation is not meant for three."""
    with pytest.raises(InvalidArgument, match=r"shape \(3, 4\)"):
        make(toy_env()).predict(np.zeros((3, SPACE.max_length), np.int64), action_masks=np.ones(shape, np.bool_))


def test_a_mask_without_legal_actions_is_refused() -> None:
    """There is nothing to return."""
    with pytest.raises(InvalidArgument, match="at least one"):
        make(toy_env()).predict(np.zeros(SPACE.max_length, np.int64), action_masks=np.zeros(CHOICES, np.bool_))


# --- what the buffer remembers ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "build", [toy_env, toy_singles, partial(toy_singles, limit=2)], ids=["vector", "single", "cut"]
)
def test_the_buffer_has_the_masks_of_next_observations(build: Any) -> None:
    """Across episode ends, where the environment offers those of the next episode already."""
    buffer = buffer_of(learned(build()))
    stored = slice(0, buffer.size())
    observations = buffer.next_observations[stored].reshape(-1, SPACE.max_length)
    np.testing.assert_array_equal(buffer.next_masks[stored].reshape(-1, CHOICES), legal(observations))


def test_the_buffer_sees_ends_and_cuts() -> None:
    """The comparison above has episodes of both sorts."""
    buffer = buffer_of(learned(toy_singles(limit=2)))
    assert {0.0, 1.0} <= set(buffer.timeouts[buffer.dones > 0].tolist())


def test_a_full_buffer_overwrites_masks_with_transitions() -> None:
    """The slots wrap around together."""
    buffer = buffer_of(learned(toy_env(), buffer_size=40))
    observations = buffer.next_observations.reshape(-1, SPACE.max_length)
    np.testing.assert_array_equal(buffer.next_masks.reshape(-1, CHOICES), legal(observations))


def test_nothing_legal_at_the_end_is_no_infinite_target() -> None:
    """An environment may say so of an episode that is over."""
    model = make(toy_env(1))
    model.learn(1)
    info = {"terminal_observation": np.ones(SPACE.max_length, np.int64), "action_mask": np.zeros(CHOICES, np.int8)}
    one = np.ones(1)
    model._store_transition(buffer_of(model), one, np.zeros((1, SPACE.max_length)), one, one > 0, [info])
    assert torch.isfinite(model._targets(minibatch(model))).all()


def test_minibatches_hold_what_belongs_together() -> None:
    """Observations, actions and next observations of the same transition."""
    samples = minibatch(learned(toy_env()))
    ongoing = samples.dones[:, 0] == 0
    taken = (samples.next_observations[ongoing] - samples.observations[ongoing]).sum(dim=1)
    torch.testing.assert_close(taken, samples.actions[ongoing, 0] + 1)


def test_minibatches_are_drawn_from_everything_stored() -> None:
    """Every slot of every sub-environment."""
    model = learned(toy_env(), 80)
    buffer = buffer_of(model)
    buffer.rewards[:20] = np.arange(80).reshape(20, 4)
    assert set(minibatch(model, 2_000).rewards[:, 0].tolist()) == set(range(80))


# --- it stays an algorithm of SB3 ------------------------------------------------------------------


def test_the_same_seed_learns_the_same() -> None:
    """Weights after some updates."""
    np.testing.assert_array_equal(weights(learned(metaqnn())), weights(learned(metaqnn())))


def test_another_seed_learns_something_else() -> None:
    """The seed matters."""
    assert not np.array_equal(weights(learned(metaqnn())), weights(learned(metaqnn(), seed=1)))


def test_what_others_draw_from_numpy_changes_nothing() -> None:
    """Exploration and minibatches have a generator of their own."""
    disturbed = make(metaqnn())

    def disturb(*_: Any) -> bool:
        np.random.rand()  # noqa: NPY002 - the global generator is the point
        return True

    np.testing.assert_array_equal(weights(learned(metaqnn())), weights(disturbed.learn(200, callback=disturb)))


def test_updates_change_the_weights() -> None:
    """Something is learned at all."""
    model = make(toy_env())
    before = weights(model).copy()
    assert not np.array_equal(weights(model.learn(200)), before)


def test_saving_and_loading_predicts_the_same(tmp_path: Path) -> None:
    """Without an environment, with masks."""
    model = learned(metaqnn())
    model.save(tmp_path / "model")
    rng = np.random.default_rng(0)
    observations, masks = rng.integers(0, 20, (30, 13)), rng.random((30, 20)) < 0.5
    found, expected = (
        one.predict(observations, deterministic=True, action_masks=masks)[0]
        for one in (MaskedDQN.load(tmp_path / "model", device="cpu"), model)
    )
    np.testing.assert_array_equal(found, expected)


def test_a_loaded_model_learns_on(tmp_path: Path) -> None:
    """In a new environment, legally."""
    learned(metaqnn()).save(tmp_path / "model")
    statuses = Statuses()
    MaskedDQN.load(tmp_path / "model", env=metaqnn(2), device="cpu").learn(100, callback=statuses)
    assert set(statuses.seen) == {"ok"}


def test_a_saved_buffer_keeps_its_masks(tmp_path: Path) -> None:
    """They belong to the transitions."""
    model, other = learned(toy_env()), make(toy_env())
    model.save_replay_buffer(tmp_path / "buffer")
    other.load_replay_buffer(tmp_path / "buffer")
    np.testing.assert_array_equal(buffer_of(other).next_masks, buffer_of(model).next_masks)


def test_it_learns_under_vec_normalize() -> None:
    """Observations and rewards of minibatches are normalised."""
    envs = gymnasium.make_vec("NAS-Cell-v0", num_envs=4, evaluator="synthetic", observation="one_hot")
    assert np.isfinite(weights(learned(VecNormalize(SB3VecEnv(envs))))).all()


def test_it_becomes_better_than_uniform() -> None:
    """On a synthetic landscape, after 1,500 steps."""
    model = make(metaqnn(), train_freq=1, gamma=1.0, exploration_fraction=0.5).learn(1_500)
    uniform = make(metaqnn(), learning_starts=1_500)
    uniform.learn(1_500)
    average = np.mean([episode["r"] for episode in uniform.ep_info_buffer or ()])
    assert evaluate_policy(model, metaqnn(1), 1)[0] > 2 * average  # type: ignore[arg-type]


# --- errors ----------------------------------------------------------------------------------------


def test_environments_without_masks_are_refused() -> None:
    """The message says what is missing."""
    with pytest.raises(InvalidArgument, match="action_masks"):
        make(gymnasium.make("CartPole-v1"))


def test_later_environments_without_masks_are_refused() -> None:
    """Those given to `set_env` too."""
    model = make(toy_env(1))

    class Maskless(gymnasium.Env[Any, Any]):
        observation_space = model.observation_space
        action_space = model.action_space
        render_mode = None

    with pytest.raises(InvalidArgument, match="action_masks"):
        model.set_env(Maskless())


@pytest.mark.parametrize(
    "kwargs",
    [
        {"n_steps": 3},
        {"replay_buffer_class": ReplayBuffer},
        {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}},
    ],
    ids=lambda kwargs: next(iter(kwargs)),
)
def test_what_is_not_supported_is_refused(kwargs: dict[str, Any]) -> None:
    """Rather than learning without masks."""
    with pytest.raises(InvalidArgument, match=next(iter(kwargs))):
        make(toy_env(), **kwargs)


def test_dictionaries_are_refused() -> None:
    """Their buffer would be another."""
    env = toy_env()
    env.observation_space = spaces.Dict({"prefix": env.observation_space})
    with pytest.raises(InvalidArgument, match="Dict"):
        MaskedDQN("MultiInputPolicy", env, device="cpu")


def test_a_foreign_buffer_is_refused(tmp_path: Path) -> None:
    """One that was loaded has no masks to learn from."""
    model = learned(toy_env())
    model.replay_buffer = ReplayBuffer(10, model.observation_space, model.action_space, device="cpu", n_envs=4)
    with pytest.raises(InvalidArgument, match="MaskedReplayBuffer"):
        model.learn(100)


def test_without_sb3_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the pip command."""
    monkeypatch.setitem(sys.modules, "sb3_contrib.common.maskable.utils", None)
    monkeypatch.delitem(sys.modules, "nas_agents.masked_dqn")
    with pytest.raises(MissingExtra, match=r"nas-gym\[agents\]"):
        importlib.import_module("nas_agents.masked_dqn")
