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
from nas_agents.core.logits import IndependentLogits  # noqa: E402
from nas_agents.core.returns import returns_to_go  # noqa: E402
from nas_gym.envs.core.construction import ConstructionVectorEnv  # noqa: E402
from nas_gym.errors import InvalidArgument  # noqa: E402
from nas_gym.evaluators.synthetic import SyntheticEvaluator  # noqa: E402
from nas_gym.objectives import Accuracy  # noqa: E402
from nas_gym.search_spaces.core import SearchSpace  # noqa: E402
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space  # noqa: E402


def make_envs(space: SearchSpace, num_envs: int = 8) -> ConstructionVectorEnv:
    """Return environments of `space` on a synthetic landscape."""
    evaluator = SyntheticEvaluator(space)
    return ConstructionVectorEnv(space, evaluator, Accuracy(), num_envs=num_envs, autoreset_mode="Disabled")


def make_agent(space: SearchSpace, num_envs: int = 8, **config: Any) -> Any:
    """Return a REINFORCE agent over `space`."""
    return nas_agents.make("reinforce", make_envs(space, num_envs), 0, **config)


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


@pytest.mark.parametrize("policy", ["controller", "logits"])
def test_rewarded_actions_become_more_likely(policy: str) -> None:
    """One update raises the probability of the better episode and lowers that of the worse."""
    agent = make_agent(NASBench201Space(), num_envs=2, entropy_weight=0.0, policy=policy)
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


# --- independent logits ----------------------------------------------------------------------------


def random_logits() -> IndependentLogits:
    """Return a policy with large random logits."""
    return IndependentLogits(6, 4, 2.0, torch.Generator().manual_seed(0))


def test_scoring_logits_equals_stepping() -> None:
    """Scored log-probabilities are those of deciding step by step, and 0 beyond the end."""
    policy, given, lengths = random_logits(), random_decisions(np.random.default_rng(0)), torch.tensor([6, 6, 4, 1, 3])
    scored, entropies, _ = policy.evaluate(**given, lengths=lengths)
    state = None
    for step in range(6):
        kinds, masks, actions = (given[name][:, step] for name in ("kinds", "masks", "actions"))
        logits, _, state = policy.step(policy.tokens(actions, kinds), kinds, masks, state)
        distribution = torch.distributions.Categorical(logits=logits)
        there = lengths > step
        torch.testing.assert_close(scored[:, step], torch.where(there, distribution.log_prob(actions), 0.0))
        torch.testing.assert_close(entropies[:, step], torch.where(there, distribution.entropy(), 0.0))


def test_a_decision_does_not_depend_on_the_others() -> None:
    """What was decided before changes no probability of what comes."""
    policy, given = random_logits(), random_decisions(np.random.default_rng(0))
    given["masks"] = torch.ones_like(given["masks"])
    other = {**given, "actions": given["actions"].clone()}
    other["actions"][:, :5] = 0
    lengths = torch.full((5,), 6)
    assert torch.equal(
        policy.evaluate(**given, lengths=lengths)[0][:, 5], policy.evaluate(**other, lengths=lengths)[0][:, 5]
    )


def official_logits(start: Any, episodes: list[tuple[list[int], float]]) -> Any:
    """Return the logits that NATS-Bench's script would have after some episodes, in double precision.

    Adam (0.9, 0.999, 1e-8) with learning rate 0.01 on minus the sum of the log-probabilities times the advantage; the
    baseline is the bias-corrected moving average (0.9) of returns in percent, the newest included.

    Args:
        start: logits before the first, [T, C].
        episodes: actions and return, a fraction.
    """
    logits = start.astype(np.float64)
    first, second = np.zeros_like(logits), np.zeros_like(logits)
    numerator = denominator = 0.0
    for step, (actions, fraction) in enumerate(episodes, start=1):
        reward = 100 * fraction
        numerator, denominator = 0.9 * numerator + 0.1 * reward, 0.9 * denominator + 0.1
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        gradient = (probabilities - np.eye(logits.shape[1])[actions]) * (reward - numerator / denominator)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        logits -= 0.01 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return logits


def test_the_preset_of_nats_bench_learns_as_the_official_script() -> None:
    """From the same actions and rewards follow the same logits, whatever the unit of the reward."""
    space = NASBench201Space()
    envs = make_envs(space, 1)
    agent: Any = nas_agents.make("reinforce", envs, 0, preset="nats_bench")
    start = agent.controller.logits.detach().numpy().copy()
    episodes: list[tuple[list[int], float]] = []

    class Log(nas_agents.Sink):
        def on_episodes(self, evaluated: nas_agents.Evaluated) -> None:
            batch = evaluated.batch
            episodes.extend(zip(batch.actions.tolist(), batch.returns.tolist(), strict=True))

    nas_agents.run(agent, envs, 200, 0, [Log()])
    found = agent.controller.logits.detach().numpy()
    np.testing.assert_allclose(found, official_logits(start, episodes), atol=1e-5)
    assert np.abs(found - start).max() > 0.1


def test_the_preset_of_nats_bench_begins_almost_uniformly() -> None:
    """Logits start as 0.001 x N(0, 1): six decisions of five choices."""
    space = NASBench201Space()
    logits = make_agent(space, preset="nats_bench").controller.logits.detach()
    assert logits.shape == (6, 5)
    assert 5e-4 < float(logits.std()) < 2e-3


def test_the_first_query_teaches_nothing_where_the_baseline_includes_it() -> None:
    """It is compared with itself."""
    agent = make_agent(NASBench201Space(), num_envs=1, preset="nats_bench")
    before = agent.controller.logits.detach().clone()
    nas_agents.run(agent, make_envs(NASBench201Space(), 1), 1, 0)
    assert torch.equal(before, agent.controller.logits.detach())


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
        {"policy": "table"},
        {"logits_deviation": -1.0},
        {"baseline_includes_batch": 1},
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
