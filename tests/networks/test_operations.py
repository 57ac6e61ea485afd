"""Building blocks, and how their cost is counted."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nas_gym.networks.operations import REDUCTIONS, Complexity, Dropout, ReLUConvBN, complexity


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_convolutions_keep_the_image_size(kernel: int) -> None:
    """At stride 1 the padding makes up for the kernel."""
    assert ReLUConvBN(2, 3, kernel)(torch.zeros(4, 2, 8, 8)).shape == (4, 3, 8, 8)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_strided_convolutions_halve_the_image(kernel: int) -> None:
    """At stride 2 half of the rows and columns are left."""
    assert ReLUConvBN(2, 3, kernel, stride=2)(torch.zeros(4, 2, 8, 8)).shape == (4, 3, 4, 4)


def test_convolutions_see_no_negative_values() -> None:
    """The rectification comes first."""
    block = ReLUConvBN(2, 3, 3).eval()
    assert torch.equal(block(-torch.ones(1, 2, 4, 4)), block(torch.zeros(1, 2, 4, 4)))


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_halve_the_image_and_change_the_channels(name: str) -> None:
    """[N, C_in, H, W] becomes [N, C_out, H / 2, W / 2]."""
    assert REDUCTIONS[name](2, 6)(torch.zeros(4, 2, 8, 8)).shape == (4, 6, 4, 4)


def test_the_light_reduction_rounds_an_odd_size_down() -> None:
    """An image of 5x5 becomes 2x2; the official block halves even sizes only."""
    assert REDUCTIONS["pooling"](2, 6)(torch.zeros(4, 2, 5, 5)).shape == (4, 6, 2, 2)


IMAGE = (3, 8, 8)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        pytest.param(
            nn.Conv2d(3, 5, 3, padding=1, bias=False),
            Complexity(3 * 5 * 9, 8 * 8 * 5 * 3 * 9, 8 * 8 * 5),
            id="convolution",
        ),
        pytest.param(
            nn.Conv2d(3, 5, 3, padding=1),
            Complexity(3 * 5 * 9 + 5, 8 * 8 * 5 * (3 * 9 + 1), 8 * 8 * 5),
            id="convolution with bias",
        ),
        pytest.param(
            nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False),
            Complexity(3 * 6 * 9, 4 * 4 * 6 * 3 * 9, 4 * 4 * 6),
            id="strided convolution",
        ),
        pytest.param(
            nn.Conv2d(3, 6, (1, 3), padding=(0, 1), groups=3, bias=False),
            Complexity(6 * 3, 8 * 8 * 6 * 3, 8 * 8 * 6),
            id="grouped convolution of 1x3",
        ),
        pytest.param(
            nn.Sequential(nn.Flatten(), nn.Linear(192, 7)),
            Complexity(192 * 7 + 7, 192 * 7 + 7, 192 + 7),
            id="linear layer",
        ),
        pytest.param(nn.BatchNorm2d(3), Complexity(6, 0, 8 * 8 * 3), id="normalisation costs parameters only"),
        pytest.param(nn.AvgPool2d(3), Complexity(0, 0, 2 * 2 * 3), id="pooling costs nothing"),
    ],
)
def test_complexity_of_layers_worked_out_by_hand(module: nn.Module, expected: Complexity) -> None:
    """Parameters of everything, multiply-adds of convolutions and linear layers, outputs of all layers."""
    assert complexity(module, IMAGE) == expected


def test_a_layer_applied_twice_is_computed_twice() -> None:
    """Shared weights are stored once and cost at every use."""
    layer = nn.Conv2d(3, 3, 1, bias=False)
    assert complexity(nn.Sequential(layer, layer), IMAGE) == Complexity(9, 2 * 8 * 8 * 9, 2 * 8 * 8 * 3)


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_the_mode_of_the_module_alone(training: bool) -> None:
    """A module in training mode is still in it afterwards."""
    module = ReLUConvBN(3, 3, 3).train(training)
    complexity(module, IMAGE)
    assert [layer.training for layer in module.modules()] == [training] * 4


def test_measuring_leaves_the_statistics_of_normalisations_alone() -> None:
    """The zero image does not count as data."""
    module = ReLUConvBN(3, 3, 3).train()
    complexity(module, IMAGE)
    assert int(module[2].num_batches_tracked) == 0


def test_measuring_leaves_no_hooks() -> None:
    """Nothing is counted twice when measured twice."""
    module = ReLUConvBN(3, 3, 3)
    assert complexity(module, IMAGE) == complexity(module, IMAGE)
    assert not module[1]._forward_hooks


def test_the_activations_of_a_block_are_those_of_its_layers() -> None:
    """Rectified input, convolution and normalisation; the block itself puts out nothing of its own."""
    assert complexity(ReLUConvBN(3, 5, 3), IMAGE).activations == 8 * 8 * (3 + 5 + 5)


@pytest.mark.parametrize(
    ("cost", "batch_size", "slots", "numbers"),
    [
        pytest.param(Complexity(10, 0, 7), 2, 1, 10 * 3 + 7 * 2, id="one moment"),
        pytest.param(Complexity(10, 0, 7), 2, 2, 10 * 4 + 7 * 2, id="two moments"),
        pytest.param(Complexity(10, 0, 7), 100, 0, 10 * 2 + 7 * 100, id="no moments, large batch"),
        pytest.param(Complexity(10, 10**9, 0), 2, 0, 10 * 2, id="multiply-adds need no memory"),
    ],
)
def test_the_memory_of_training_is_worked_out_by_hand(
    cost: Complexity, batch_size: int, slots: int, numbers: int
) -> None:
    """Weights, gradients and moments of all parameters, activations of all images, four bytes each."""
    assert cost.training_bytes(batch_size, slots) == 4 * numbers


# --- dropout ---------------------------------------------------------------------------------------


def dropout(probability: float, seed: int = 0) -> Dropout:
    """Return a layer with a seeded generator."""
    layer = Dropout(probability)
    layer.generator = torch.Generator().manual_seed(seed)
    return layer


def test_dropout_keeps_the_mean_of_what_it_drops() -> None:
    """What is left is scaled up."""
    assert float(dropout(1 / 3)(torch.ones(300, 100)).mean()) == pytest.approx(1, abs=0.02)


def test_dropout_drops_the_share_it_is_asked_for() -> None:
    """A third of many features."""
    dropped = dropout(1 / 3)(torch.ones(300, 100)) == 0
    assert float(dropped.float().mean()) == pytest.approx(1 / 3, abs=0.02)


def test_dropout_leaves_either_nothing_or_the_scaled_feature() -> None:
    """At a quarter the others are multiplied by four thirds."""
    dropped = dropout(0.25)(torch.ones(300))
    torch.testing.assert_close(dropped.unique(), torch.tensor([0, 4 / 3]))


def test_dropout_drops_every_feature_on_its_own() -> None:
    """Two images lose different features."""
    first, second = dropout(0.5)(torch.ones(2, 100))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("seed", "same"), [pytest.param(0, True, id="same"), pytest.param(1, False, id="another")])
def test_dropout_depends_on_its_generator(seed: int, same: bool) -> None:
    """The seed decides what is dropped."""
    assert torch.equal(dropout(0.5)(torch.ones(100)), dropout(0.5, seed)(torch.ones(100))) is same


def test_dropout_leaves_the_global_generator_alone() -> None:
    """It draws from its own."""
    before = torch.get_rng_state()
    dropout(0.5)(torch.ones(100))
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_without_probability_changes_nothing() -> None:
    """Not even in training mode."""
    assert torch.equal(dropout(0.0)(torch.ones(100)), torch.ones(100))


def test_dropout_rests_in_evaluation_mode() -> None:
    """What comes in goes out."""
    assert torch.equal(Dropout(0.5).eval()(torch.ones(3)), torch.ones(3))
