"""REINFORCE, its controller, its baseline."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from toys import ToySpace  # noqa: E402

import nas_agents  # noqa: E402
from nas_agents import EpisodeBatch  # noqa: E402
from nas_agents.core.baselines import MovingAverage  # noqa: E402
from nas_agents.core.controller import Controller, ControllerConfig  # noqa: E402
from nas_agents.core.returns import returns_to_go  # noqa: E402
from nas_gym.envs.core.construction import ConstructionVectorEnv  # noqa: E402
from nas_gym.errors import InvalidArgument  # noqa: E402
from nas_gym.evaluators.synthetic import SyntheticEvaluator  # noqa: E402
from nas_gym.objectives import Accuracy  # noqa: E402
from nas_gym.search_spaces.core import SearchSpace  # noqa: E402
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space  # noqa: E402


def make_agent(space: SearchSpace, num_envs: int = 8, **config: Any) -> Any:
    """Return a REINFORCE agent over `space`."""
    envs = ConstructionVectorEnv(
        space, SyntheticEvaluator(space), Accuracy(), num_envs=num_envs, autoreset_mode="Disabled"
    )
    return nas_agents.make("reinforce", envs, 0, **config)


def random_controller(choices: int = 4, kinds: int = 2, **config: Any) -> Controller:
    """Return a controller with large random weights."""
    return Controller(choices, kinds, ControllerConfig(init_range=0.5, **config), torch.Generator().manual_seed(0))


def random_decisions(rng: np.random.Generator) -> dict[str, Any]:
    """Return legal actions, kinds and masks of five episodes of six decisions."""
    masks = rng.random((5, 6, 4)) < 0.6
    masks[..., 1] = True
    actions = np.where(masks[..., 2], 2, 1)
    kinds = rng.integers(0, 2, (5, 6))
    return {"actions": torch.from_numpy(actions), "kinds": torch.from_numpy(kinds), "masks": torch.from_numpy(masks)}


@pytest.mark.parametrize("config", [{}, {"tanh_constant": 2.5, "temperature": 5.0}, {"layers": 1, "critic": True}])
def test_scoring_equals_stepping(config: dict[str, Any]) -> None:
    """Teacher-forced log-probabilities are those of deciding step by step."""
    controller = random_controller(**config)
    given = random_decisions(np.random.default_rng(0))
    scored, _, values = controller.evaluate(**given, lengths=torch.full((5,), 6))
    tokens, state = torch.zeros(5, dtype=torch.int64), None
    for step in range(6):
        kinds, masks, actions = (given[name][:, step] for name in ("kinds", "masks", "actions"))
        logits, value, state = controller.step(tokens, kinds, masks, state)
        expected = logits.log_softmax(-1).gather(1, actions[:, None])[:, 0]
        torch.testing.assert_close(scored[:, step], expected)
        if values is not None and value is not None:
            torch.testing.assert_close(values[:, step], value)
        tokens = controller.tokens(actions, kinds)


def test_illegal_choices_have_probability_zero() -> None:
    """Whatever the weights, a masked choice is never taken."""
    controller = random_controller()
    masks = torch.tensor([[False, True, False, True]])
    logits, _, _ = controller.step(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), masks, None)
    assert logits.softmax(-1)[0, [0, 2]].tolist() == [0.0, 0.0]


def test_entropy_of_forced_decisions_is_zero() -> None:
    """With one legal choice there is nothing uncertain, and the gradient stays finite."""
    controller = random_controller()
    masks = torch.zeros(1, 2, 4, dtype=torch.bool)
    masks[..., 3] = True
    actions = torch.full((1, 2), 3)
    log_probs, entropies, _ = controller.evaluate(actions, torch.zeros_like(actions), masks, torch.tensor([2]))
    (log_probs.sum() + entropies.sum()).backward()
    assert float(entropies.detach().abs().max()) < 1e-6
    assert all(torch.isfinite(p.grad).all() for p in controller.parameters() if p.grad is not None)


def test_nothing_counts_beyond_the_end_of_an_episode() -> None:
    """Log-probabilities and entropies past the length are exactly 0."""
    controller = random_controller()
    given = random_decisions(np.random.default_rng(1))
    log_probs, entropies, _ = controller.evaluate(**given, lengths=torch.full((5,), 4))
    assert not log_probs[:, 4:].any()
    assert not entropies[:, 4:].any()


def test_tanh_constant_bounds_the_logits() -> None:
    """Logits stay within plus or minus the constant."""
    controller = random_controller(tanh_constant=2.5)
    masks = torch.ones(1, 4, dtype=torch.bool)
    logits, _, _ = controller.step(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), masks, None)
    assert float(logits.detach().abs().max()) <= 2.5


def test_published_controller_is_the_paper_s() -> None:
    """Zoph & Le: two layers of 35 units, weights within 0.08, Adam at 6e-4, eight children, no entropy bonus."""
    config = nas_agents.AGENTS["reinforce"].presets["zoph2017"]
    agent = make_agent(NASBench201Space(), preset="zoph2017")
    assert (agent.controller.lstm.num_layers, agent.controller.lstm.hidden_size) == (2, 35)
    assert max(float(p.detach().abs().max()) for p in agent.controller.parameters()) <= 0.08
    assert (config.learning_rate, config.batch_size, config.entropy_weight) == (6e-4, 8, 0.0)


def test_rewarded_actions_become_more_likely() -> None:
    """One update raises the probability of the better episode and lowers that of the worse."""
    agent = make_agent(NASBench201Space(), num_envs=2, entropy_weight=0.0)
    agent.begin(2)
    actions = np.array([[3] * 6, [0] * 6])
    for _ in range(6):
        agent.act(np.zeros((2, 6)), np.ones((2, 5), np.bool_), np.ones(2, np.bool_))
    rewards = np.zeros((2, 6))
    rewards[:, -1] = (0.9, 0.1)
    batch = EpisodeBatch(
        observations=np.zeros((2, 6, 6)),
        actions=actions,
        masks=np.ones((2, 6, 5), np.bool_),
        rewards=rewards,
        lengths=np.array([6, 6]),
        encodings=((3,) * 6, (0,) * 6),
        status=("ok", "ok"),
        first_seen=np.ones(2, np.bool_),
    )

    def likelihood() -> Any:
        given = torch.from_numpy(actions)
        masks = torch.ones(2, 6, 5, dtype=torch.bool)
        return agent.controller.evaluate(given, torch.zeros_like(given), masks, torch.tensor([6, 6]))[0].sum(1)

    before = likelihood()
    agent.learn(batch)
    after = likelihood()
    assert after[0] > before[0]
    assert after[1] < before[1]


def test_learning_leaves_the_number_of_threads_alone() -> None:
    """A small controller computes on one thread without changing the setting of the process."""
    before = torch.get_num_threads()
    agent = make_agent(ToySpace())
    agent.begin(8)
    agent.act(np.zeros((8, 6)), np.ones((8, 4), np.bool_), np.ones(8, np.bool_))
    assert torch.get_num_threads() == before


def test_moving_average_is_bias_corrected() -> None:
    """After one batch the average is that batch's mean; later ones follow the closed form."""
    average = MovingAverage(0.9)
    average.update(np.array([1.0, 3.0]))
    assert average.mean(np.array([9.0])) == pytest.approx(2.0)
    average.update(np.array([4.0]))
    assert average.mean(np.array([9.0])) == pytest.approx((0.09 * 2 + 0.1 * 4) / 0.19)


def test_moving_average_without_a_past_is_the_batch() -> None:
    """The first batch is compared with its own mean, so that it already tells good from bad."""
    assert MovingAverage(0.9).mean(np.array([0.2, 0.4])) == pytest.approx(0.3)


def test_returns_to_go_discount() -> None:
    """Each step's return is its reward plus the discounted rest."""
    found = returns_to_go(np.array([[1.0, 2.0, 4.0], [0.0, 8.0, 0.0]]), discount=0.5)
    np.testing.assert_allclose(found, [[3.0, 4.0, 4.0], [4.0, 8.0, 0.0]])


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": 0.0},
        {"batch_size": 0},
        {"baseline_decay": 1.0},
        {"entropy_weight": -1.0},
        {"gradient_clip": 0.0},
        {"controller": {"layers": 0}},
        {"controller": {"temperature": 0.0}},
        {"controller": {"sise": 3}},
        {"learning_rate": "fast"},
    ],
    ids=lambda settings: "-".join(f"{name}={value}" for name, value in settings.items()),
)
def test_bad_settings_are_refused(settings: dict[str, Any]) -> None:
    """A setting outside its range is an error of this project, never a traceback from torch."""
    with pytest.raises(InvalidArgument):
        make_agent(ToySpace(), **settings)
