"""The network of NAS-Bench-Macro: the published costs, and what it computes."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nas_gym import networks
from nas_gym.errors import InvalidArgument, InvalidEncoding
from nas_gym.evaluators.training import TrainingEvaluator
from nas_gym.networks.nas_bench_macro import ConvBN, InvertedBottleneck
from nas_gym.networks.operations import Dropout, complexity
from nas_gym.networks.recipe import Recipe
from nas_gym.search_spaces import Encoding
from nas_gym.search_spaces.nas_bench_macro import NASBenchMacroSpace

space = NASBenchMacroSpace()

CIFAR10 = ((3, 32, 32), 10)
DIGITS = ((1, 8, 8), 10)
SMALL = {"channels": 2, "head_channels": 5}

encodings = st.tuples(*[st.integers(0, 2)] * 8)


def images(channels: int, size: int = 8, count: int = 3) -> torch.Tensor:
    """Return random images [N, C, H, W]."""
    return torch.randn((count, channels, size, size), generator=torch.Generator().manual_seed(0))


@functools.cache
def cost(encoding: Encoding) -> tuple[int, int]:
    """Return parameters and multiply-adds of the official network on CIFAR-10."""
    with torch.device("meta"):
        found = complexity(networks.build(space, encoding, *CIFAR10), CIFAR10[0])
    return found.parameters, found.multiply_adds


# --- cost ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parameters", "millions"),
    [
        pytest.param("00000000", 387_882, 7.71, id="the smallest network"),
        pytest.param("22222222", 2_932_586, 105.66, id="the largest network"),
    ],
)
def test_the_extremes_cost_exactly_what_the_benchmark_says(text: str, parameters: int, millions: float) -> None:
    """Its numbers of parameters run between these, its FLOPs, in millions, are multiply-adds and rounded here."""
    found = cost(space.from_string(text))
    assert (found[0], round(found[1] / 1e6, 2)) == (parameters, millions)


@given(encodings)
@settings(max_examples=10)
def test_no_network_costs_less_or_more_than_the_extremes(encoding: Encoding) -> None:
    """All identities and all wide blocks are the ends of the range."""
    smallest, largest = cost((0,) * 8), cost((2,) * 8)
    assert smallest[0] <= cost(encoding)[0] <= largest[0]
    assert smallest[1] <= cost(encoding)[1] <= largest[1]


@given(encodings)
@settings(max_examples=10)
def test_a_network_costs_what_its_representative_does(encoding: Encoding) -> None:
    """Moving identities within a stage changes nothing."""
    assert cost(encoding) == cost(space.canonical(encoding))


def test_the_cost_of_the_narrow_block_is_worked_out_by_hand() -> None:
    """From 4 channels, three times as many inside: 1x1, depthwise 3x3, 1x1, each with a normalisation."""
    found = complexity(InvertedBottleneck(4, 4, 1, expansion=3, kernel=3), (4, 6, 6))
    weights = 4 * 12 + 9 * 12 + 12 * 4
    assert (found.parameters, found.multiply_adds) == (weights + 2 * (12 + 12 + 4), 36 * weights)


def test_a_strided_block_widens_before_it_halves() -> None:
    """The first convolution sees the whole image, the others a quarter of it."""
    found = complexity(InvertedBottleneck(4, 8, 2, expansion=6, kernel=5), (4, 6, 6))
    assert found.multiply_adds == 36 * 4 * 24 + 9 * (25 * 24 + 24 * 8)


# --- the whole network -----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["00000000", "22222222", "01201201"])
@pytest.mark.parametrize("size", [1, 7, 8], ids=lambda size: f"{size}x{size}")
def test_the_network_maps_images_to_logits(text: str, size: int) -> None:
    """[N, C, H, W] becomes [N, classes], whatever the size of the image."""
    model = networks.build(space, space.from_string(text), (1, size, size), 7, **SMALL)
    assert model(images(channels=1, size=size)).shape == (3, 7)


def test_the_first_layer_of_a_stage_halves_and_doubles() -> None:
    """Shapes behind the stem and behind every layer, identities included."""
    model = networks.build(space, space.from_string("01020210"), (1, 16, 16), 10, **SMALL)
    x, shapes = images(channels=1, size=16), []
    for layer in list(model)[:-4]:
        x = layer(x)
        shapes.append(tuple(x.shape[1:]))
    stem, stages = shapes[:2], shapes[2:]
    assert stem == [(2, 16, 16)] * 2
    assert stages == [(4, 8, 8)] * 2 + [(8, 4, 4)] * 3 + [(16, 2, 2)] * 3


def test_the_same_network_in_another_order_computes_the_same() -> None:
    """With the weights of the blocks in their order, an identity in between changes nothing."""
    apart, together = (
        networks.build(space, space.from_string(text), *DIGITS, **SMALL).eval() for text in ("11101101", "11110110")
    )
    together.load_state_dict(dict(zip(together.state_dict(), apart.state_dict().values(), strict=True)))
    x = images(channels=1)
    torch.testing.assert_close(together(x), apart(x))


def test_the_stem_and_the_head_end_with_relu() -> None:
    """Nothing negative comes out of them."""
    model = networks.build(space, (0,) * 8, *DIGITS, **SMALL)
    stem, head = nn.Sequential(*model[:2]), nn.Sequential(*model[:-3])
    assert min(stem(images(channels=1)).min(), head(images(channels=1)).min()) >= 0


def test_the_default_sizes_are_the_official_ones() -> None:
    """32 channels in the stem, 1,280 in the head."""
    assert str(networks.build(space, (1,) * 8, *DIGITS)) == str(
        networks.build(space, (1,) * 8, *DIGITS, channels=32, head_channels=1280)
    )


@pytest.mark.parametrize("value", [0, -1, 2.0, "8", True, None], ids=repr)
@pytest.mark.parametrize("field", ["channels", "head_channels"])
def test_sizes_are_counts(field: str, value: object) -> None:
    """Every size is an integer of at least 1, and the message shows what came."""
    with pytest.raises(InvalidArgument, match=f"{field} must be an integer of at least 1, got {value!r}"):
        networks.build(space, (0,) * 8, *DIGITS, **{field: value})


def test_an_encoding_of_another_space_is_refused() -> None:
    """Nothing is built from an illegal encoding."""
    with pytest.raises(InvalidEncoding):
        networks.build(space, (3,) * 8, *DIGITS)


def test_dropout_comes_right_before_the_classifier() -> None:
    """With the probability that was asked for; the official network has none."""
    *_, layer, classifier = networks.build(space, (0,) * 8, *DIGITS, dropout=0.2)
    assert (type(layer), layer.probability, type(classifier)) == (Dropout, 0.2, nn.Linear)
    assert not any(isinstance(layer, Dropout) for layer in networks.build(space, (0,) * 8, *DIGITS))


def test_a_network_of_imagenet_images_gives_logits() -> None:
    """The stem halves 224 pixels to 56, as for every other system."""
    model = networks.build(space, (1,) * 8, (3, 224, 224), 7, **SMALL)
    assert model(images(channels=3, size=224, count=2)).shape == (2, 7)


# --- the blocks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels_out", "stride", "added"),
    [
        pytest.param(4, 1, True, id="same shape"),
        pytest.param(8, 1, False, id="wider"),
        pytest.param(4, 2, False, id="halved"),
    ],
)
def test_the_input_is_added_where_it_has_the_shape_of_the_output(channels_out: int, stride: int, added: bool) -> None:
    """With a silent last convolution, the block gives back its input, or nothing."""
    block = InvertedBottleneck(4, channels_out, stride, expansion=3, kernel=3)
    with torch.no_grad():
        block.body[-1][0].weight.zero_()
    x = images(channels=4)
    torch.testing.assert_close(block(x), x if added else torch.zeros_like(block(x)))


def test_the_last_convolution_of_a_block_has_no_activation() -> None:
    """The two before it do."""
    block = InvertedBottleneck(4, 4, 1, expansion=3, kernel=3)
    assert [any(isinstance(layer, nn.ReLU) for layer in part) for part in block.body] == [True, True, False]


def test_an_identity_that_changes_the_shape_is_a_strided_convolution() -> None:
    """It reads every second pixel of every second row, and has no activation."""
    model = networks.build(space, (0,) * 8, *DIGITS, **SMALL)
    layer = model[2]
    assert isinstance(layer, ConvBN)
    layer.eval()
    x = images(channels=2)
    expected = nn.functional.conv2d(x[:, :, ::2, ::2], layer[0].weight) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(layer(x), expected)


def test_an_identity_that_changes_nothing_is_nothing() -> None:
    """It has neither parameters nor effect."""
    model = networks.build(space, (0,) * 8, *DIGITS, **SMALL)
    assert [isinstance(layer, nn.Identity) for layer in list(model)[2:10]] == [
        False,
        True,
        False,
        True,
        True,
        False,
        True,
        True,
    ]


# --- training --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_thread")
def test_an_official_network_learns() -> None:
    """Two epochs on digits are far better than chance, which is 0.1."""
    evaluator = TrainingEvaluator(space, recipe=Recipe(epochs=2), workers=0)
    assert evaluator.evaluate_one((1, 0) * 4).metrics["valid_accuracy"] > 0.3
