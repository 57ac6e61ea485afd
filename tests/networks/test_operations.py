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


def test_the_memory_of_training_is_worked_out_by_hand() -> None:
    """Weights, gradients and one moment a parameter, and the activations of two images, in single precision."""
    assert Complexity(10, 0, 7).training_bytes(batch_size=2, optimiser_slots=1) == 4 * (10 * 3 + 7 * 2)


def test_dropout_keeps_the_mean_of_what_it_drops() -> None:
    """A third is dropped, the rest is scaled up; the generator decides which."""
    layer = Dropout(1 / 3)
    layer.generator = torch.Generator().manual_seed(0)
    dropped = layer(torch.ones(300, 100))
    assert float(dropped.mean()) == pytest.approx(1, abs=0.02)
    assert float((dropped == 0).float().mean()) == pytest.approx(1 / 3, abs=0.02)


def test_dropout_rests_in_evaluation_mode() -> None:
    """What comes in goes out."""
    assert torch.equal(Dropout(0.5).eval()(torch.ones(3)), torch.ones(3))
