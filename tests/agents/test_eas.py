"""EAS's meta-controller: what it reads, its baseline, and that it learns to grow networks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import nas_agents  # noqa: E402
from nas_agents import EpisodeBatch, Evaluated, Sink  # noqa: E402
from nas_agents.core.encoders import EncoderConfig, TokenEncoder  # noqa: E402
from nas_agents.eas import EAS, EASConfig  # noqa: E402
from nas_gym.envs.core.construction import ConstructionVectorEnv  # noqa: E402
from nas_gym.errors import InvalidArgument  # noqa: E402
from nas_gym.evaluators.synthetic import SyntheticEvaluator  # noqa: E402
from nas_gym.objectives import Accuracy  # noqa: E402
from nas_gym.search_spaces.eas import SMALL, EASSpace  # noqa: E402

space = EASSpace(**SMALL)


def make_envs(num_envs: int = 10) -> ConstructionVectorEnv:
    """Return environments on a synthetic landscape."""
    return ConstructionVectorEnv(
        space, SyntheticEvaluator(space), Accuracy(), num_envs=num_envs, autoreset_mode="Disabled"
    )


def make_agent(**config: Any) -> EAS:
    """Return an agent that grows small networks."""
    agent = nas_agents.make("eas", make_envs(), 0, **config)
    assert isinstance(agent, EAS)
    return agent


def episodes(returns: list[float], seed: int = 0) -> EpisodeBatch:
    """Return random episodes with given returns."""
    rng = np.random.default_rng(seed)
    encodings = [space.sample(rng) for _ in returns]
    actions, lengths = space.pack(encodings)
    masks = np.ones((*actions.shape, space.max_choices), np.bool_)
    for row, encoding in enumerate(encodings):
        for step in range(len(encoding)):
            masks[row, step] = space.junction(encoding[:step]).mask
    rewards = np.zeros(actions.shape)
    rewards[np.arange(len(returns)), lengths - 1] = returns
    ok = ("ok",) * len(returns)
    seen = np.ones(len(returns), np.bool_)
    return EpisodeBatch(np.zeros((*actions.shape, 1)), actions, masks, rewards, lengths, tuple(encodings), ok, seen)


# --- the encoder -----------------------------------------------------------------------------------


def encoder(values: tuple[int, ...] = (3, 5, 5, 5)) -> TokenEncoder:
    """Return an encoder of four features."""
    return TokenEncoder(values, EncoderConfig(), torch.Generator().manual_seed(0))


def test_encodings_have_both_directions() -> None:
    """100 numbers for every feature and for the whole."""
    encodings, whole = encoder()(torch.tensor([[1, 2, 3, 4], [0, 1, 1, 0]]))
    assert (encodings.shape, whole.shape) == ((2, 4, 100), (2, 100))


def test_embeddings_have_unit_variance() -> None:
    """Uniform between plus and minus the root of 3."""
    weights = encoder((2000,)).embedding.weight.detach()
    assert float(weights.abs().max()) <= math.sqrt(3)
    assert float(weights.var()) == pytest.approx(1, abs=0.02)


def test_zeros_at_the_end_are_not_read() -> None:
    """A network is encoded alike, however many layers might follow."""
    short, long = encoder((5, 5, 5)), encoder((5, 5, 5, 5, 5))
    long.load_state_dict(short.state_dict())
    (first, whole), (second, same) = short(torch.tensor([[1, 2, 0]])), long(torch.tensor([[1, 2, 0, 0, 0]]))
    torch.testing.assert_close(whole, same)
    torch.testing.assert_close(first[:, :2], second[:, :2])
    assert bool((second[:, 2:] == 0).all())


def test_zeros_before_a_token_are_read() -> None:
    """They say that something is undecided."""
    one = encoder()
    assert not torch.equal(one(torch.tensor([[0, 2, 1, 1]]))[1], one(torch.tensor([[1, 2, 1, 1]]))[1])


def test_features_with_equally_many_values_share_their_embeddings() -> None:
    """Three values of the first, five of the others."""
    one = encoder()
    assert one.embedding.weight.shape[0] == 3 + 5
    assert one.offsets.tolist() == [0, 3, 3, 3]


def test_every_token_is_read_in_both_directions() -> None:
    """The encoding of the first depends on the last and the other way round."""
    one = encoder()
    base, ahead, behind = (one(torch.tensor([row]))[0] for row in ([1, 2, 3, 4], [1, 2, 3, 1], [2, 2, 3, 4]))
    assert not torch.allclose(base[:, 0], ahead[:, 0])
    assert not torch.allclose(base[:, 3], behind[:, 3])


@pytest.mark.parametrize("fields", [{"embedding": 0}, {"hidden": -1}])
def test_sizes_out_of_range_are_refused(fields: dict[str, int]) -> None:
    """At least 1."""
    with pytest.raises(InvalidArgument, match="must be an integer of at least 1"):
        EncoderConfig(**fields)


# --- the agent -------------------------------------------------------------------------------------


def test_the_policy_of_a_layer_depends_on_the_layer_in_focus() -> None:
    """Two decisions about equal questions of different layers have different policies."""
    agent = make_agent()
    mask = torch.ones((2, space.max_choices), dtype=torch.bool)
    found = agent._log_policies([(), (0,)], mask)
    assert not torch.allclose(found[0], found[1])


def test_the_baseline_moves_before_it_is_subtracted() -> None:
    """From 0 to 0.95 of the first mean, then 0.95 of the way to the second."""
    agent = make_agent()
    agent.learn(episodes([2.0, 4.0]))
    assert agent.baseline == pytest.approx(0.95 * 3)
    agent.learn(episodes([1.0, 1.0]))
    assert agent.baseline == pytest.approx(0.95 * 3 + 0.95 * (1 - 0.95 * 3))


def test_a_step_makes_good_episodes_more_likely() -> None:
    """And bad ones less."""
    agent = make_agent(entropy_weight=0)
    batch = episodes([1.0, 0.0])
    before = log_likelihoods(agent, batch)
    agent.learn(batch)
    after = log_likelihoods(agent, batch)
    assert after[0] - before[0] > 0 > after[1] - before[1]


def log_likelihoods(agent: EAS, batch: EpisodeBatch) -> list[float]:
    """Return the logarithm of the probability of every episode."""
    found = []
    for row, encoding in enumerate(batch.encodings):
        prefixes = [encoding[:step] for step in range(len(encoding))]
        with torch.no_grad():
            policies = agent._log_policies(prefixes, torch.from_numpy(batch.masks[row, : len(encoding)]))
        found.append(float(policies[torch.arange(len(encoding)), torch.tensor(encoding)].sum()))
    return found


def test_the_preset_is_that_of_the_released_code() -> None:
    """Ten networks, Adam with 0.002, 50 units a direction, 16 numbers a token."""
    preset = EAS.presets["eas2018"]
    assert (preset.batch_size, preset.learning_rate, preset.baseline_step) == (10, 2e-3, 0.95)
    assert (preset.entropy_weight, preset.normalise) == (1e-5, False)
    assert (preset.encoder.embedding, preset.encoder.hidden) == (16, 50)


def test_it_learns_to_grow_networks() -> None:
    """The last 100 of 400 networks are better than uniform ones."""

    class Returns(Sink):
        def __init__(self) -> None:
            self.found: list[float] = []

        def on_episodes(self, evaluated: Evaluated) -> None:
            self.found += evaluated.batch.returns.tolist()

    log, uniform = Returns(), Returns()
    for name, sink in (("eas", log), ("random_search", uniform)):
        envs = make_envs()
        nas_agents.run(nas_agents.make(name, envs, 1), envs, 400, 1, [sink])
    assert np.mean(log.found[-100:]) > np.mean(uniform.found) + 0.1


@pytest.mark.parametrize(
    "fields",
    [{"batch_size": 0}, {"learning_rate": 0}, {"baseline_step": 0}, {"entropy_weight": -1}, {"gradient_clip": 0}],
)
def test_settings_out_of_range_are_refused(fields: dict[str, Any]) -> None:
    """Naming the field."""
    with pytest.raises(InvalidArgument, match=next(iter(fields))):
        EASConfig(**fields)
