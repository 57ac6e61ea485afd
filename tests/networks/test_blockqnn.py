"""The network of a BlockQNN block: its layers, its channels, and what it computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nas_gym import networks
from nas_gym.errors import InvalidArgument, InvalidEncoding
from nas_gym.networks.blockqnn import BlockModule, build
from nas_gym.networks.operations import Dropout, ReLUConvBN
from nas_gym.search_spaces.blockqnn import Block, BlockQNNSpace

space = BlockQNNSpace()

EXAMPLE = "(1,1,3,0,0) (2,5,0,0,1) (3,6,0,1,2) (4,3,3,2,0) (5,7,0,0,0)"
"""A convolution, its sum with the input, both concatenated, and a pooling of the sum; two leaves."""

SMALL: dict[str, Any] = {"channels": 2, "blocks_per_stage": 1, "stages": 2}


def block(*codes: str) -> Block:
    """Return the block of these codes without indices, e.g. ``1,3,0,0``."""
    text = " ".join(f"({index},{code})" for index, code in enumerate((*codes, "7,0,0,0"), start=1))
    return space.decode(space.from_string(text))


def images(channels: int, size: int = 6, count: int = 2) -> torch.Tensor:
    """Return random images [N, C, H, W]."""
    return torch.randn((count, channels, size, size), generator=torch.Generator().manual_seed(0))


def kinds(model: nn.Module) -> list[str]:
    """Return the class names of the layers, in order."""
    return [type(layer).__name__ for layer in model.children()]


def parameters(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def convolutions(model: nn.Module) -> list[tuple[int, int, int]]:
    """Return input channels, output channels and kernel of every convolution, in order."""
    found = (layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    return [(layer.in_channels, layer.out_channels, layer.kernel_size[0]) for layer in found]


def normalised_convolution(channels_in: int, channels: int, kernel: int) -> int:
    """Return the parameters of a convolution without bias, and of scale and shift behind it."""
    return channels_in * channels * kernel**2 + 2 * channels


def expected_block(architecture: Block, channels_in: int, channels: int) -> int:
    """Count the parameters of a block by its codes."""
    total = 0
    widths = [channels_in]
    read: set[int] = set()
    for layer in architecture.layers:
        first, second = widths[layer.pred1], widths[layer.pred2]
        read.add(layer.pred1)
        width = channels
        if layer.type == 1:
            total += normalised_convolution(first, channels, layer.kernel)
        elif layer.type == 5:
            total += sum(normalised_convolution(one, channels, 1) for one in (first, second) if one != channels)
        elif layer.type == 6:
            total += normalised_convolution(first + second, channels, 1)
        else:
            width = first
        if layer.type in (5, 6):
            read.add(layer.pred2)
        widths.append(width)
    together = sum(width for index, width in enumerate(widths) if index not in read)
    return total if together == channels else total + normalised_convolution(together, channels, 1)


def expected_parameters(
    architecture: Block, channels_in: int, classes: int, channels: int, blocks_per_stage: int, stages: int
) -> int:
    """Count the parameters of the whole network by the codes of its block."""
    total = normalised_convolution(channels_in, channels, 3)
    width = channels
    for stage in range(stages):
        for _ in range(blocks_per_stage):
            total += expected_block(architecture, width, channels << stage)
            width = channels << stage
    return total + (width + 1) * classes


@dataclass(frozen=True)
class Sampled:
    """A sampled block, its network on torch's meta device, and the sizes of that."""

    architecture: Block
    model: nn.Module
    channels_in: int
    classes: int
    sizes: dict[str, int]


@pytest.fixture(scope="module")
def sampled() -> list[Sampled]:
    """Return 1,000 sampled networks of small widths, of blocks of up to 6 and up to 22 layers in turns."""
    rng = np.random.default_rng(0)
    spaces = (BlockQNNSpace(max_index=7), space, BlockQNNSpace(max_index=7, equal_predecessors=True))
    tasks = (
        (1, 10, {"channels": 4, "blocks_per_stage": 1, "stages": 3}),
        (3, 7, {"channels": 3, "blocks_per_stage": 2, "stages": 2}),
    )
    found: list[Sampled] = []
    with torch.device("meta"):
        for number in range(1_000):
            drawn = spaces[number % 3]
            channels_in, classes, sizes = tasks[number % 2]
            encoding = drawn.sample(rng)
            model = networks.build(drawn, encoding, (channels_in, 8, 8), classes, **sizes)
            found.append(Sampled(drawn.decode(encoding), model, channels_in, classes, sizes))
    return found


# --- cost ------------------------------------------------------------------------------------------


def test_a_small_network_has_the_parameters_counted_by_hand() -> None:
    """Stem 22; first block 40 + 12 + 12; second 80 + 16 + 40 + 40; classifier 50."""
    model = build(space.decode(space.from_string(EXAMPLE)), (1, 4, 4), 10, **SMALL)
    assert parameters(model) == 22 + 64 + 176 + 50


def test_sampled_networks_have_the_parameters_of_their_codes(sampled: list[Sampled]) -> None:
    """Counted from the decoded block alone, for 1,000 architectures."""
    found = [parameters(one.model) for one in sampled]
    assert found == [
        expected_parameters(one.architecture, one.channels_in, one.classes, **one.sizes) for one in sampled
    ]


# --- the whole network -----------------------------------------------------------------------------


def test_sampled_networks_map_images_to_logits(sampled: list[Sampled]) -> None:
    """[2, C, 8, 8] becomes [2, classes], for 1,000 architectures."""
    shapes = [tuple(one.model.eval()(torch.empty(2, one.channels_in, 8, 8, device="meta")).shape) for one in sampled]
    assert shapes == [(2, one.classes) for one in sampled]


def test_stages_of_equal_blocks_stand_between_stem_and_classifier() -> None:
    """Pooling between the stages alone."""
    model = build(block("1,3,0,0"), (3, 8, 8), 10, channels=2, blocks_per_stage=2, stages=2)
    assert kinds(model) == [
        *("Sequential", "BlockModule", "BlockModule", "MaxPool2d", "BlockModule", "BlockModule"),
        *("ReLU", "AdaptiveAvgPool2d", "Flatten", "Linear"),
    ]


def test_the_default_sizes_are_the_published_ones() -> None:
    """Three stages of four blocks with 32, 64 and 128 channels."""
    with torch.device("meta"):
        model = build(block("1,3,0,0"), (3, 32, 32), 10)
    blocks = [layer for layer in model.children() if isinstance(layer, BlockModule)]
    assert [convolutions(layer)[0][1] for layer in blocks] == [32] * 4 + [64] * 4 + [128] * 4


def test_the_first_block_of_a_stage_doubles_the_channels() -> None:
    """It gets those of the stage before, the next one its own."""
    model = build(block("1,3,0,0"), (1, 8, 8), 10, channels=2, blocks_per_stage=2, stages=2)
    assert convolutions(model) == [(1, 2, 3), (2, 2, 3), (2, 2, 3), (2, 4, 3), (4, 4, 3)]


@pytest.mark.parametrize("size", [64, 65, 128, 200])
def test_images_above_64_pixels_are_halved_by_the_stem(size: int) -> None:
    """What the first block gets is at most 64 pixels wide."""
    with torch.device("meta"):
        model = build(block("1,3,0,0"), (3, size, size), 10, **SMALL).eval()
        stem = next(iter(model.children()))
        shape = stem(torch.empty(1, 3, size, size)).shape
    assert tuple(shape[2:]) == ({64: 64, 65: 33, 128: 64, 200: 50}[size],) * 2


def test_images_need_not_be_square() -> None:
    """Height and width are halved independently, odd ones rounded down."""
    model = build(space.decode(space.from_string(EXAMPLE)), (3, 5, 9), 7, **SMALL)
    assert model(torch.zeros(2, 3, 5, 9)).shape == (2, 7)


def test_dropout_comes_right_before_the_classifier() -> None:
    """With the probability that was asked for."""
    *_, last, classifier = build(block("1,3,0,0"), (3, 8, 8), 10, **SMALL, dropout=0.3).children()
    assert isinstance(last, Dropout)
    assert (last.probability, type(classifier)) == (0.3, nn.Linear)


def test_without_dropout_there_is_no_such_layer() -> None:
    """Nothing is dropped unless asked for."""
    model = build(block("1,3,0,0"), (3, 8, 8), 10, **SMALL)
    assert not [layer for layer in model.modules() if isinstance(layer, Dropout)]


def test_networks_build_the_block_of_an_encoding() -> None:
    """By the name of the space."""
    model = networks.build(space, space.from_string(EXAMPLE), (1, 4, 4), 10, **SMALL)
    assert parameters(model) == parameters(build(space.decode(space.from_string(EXAMPLE)), (1, 4, 4), 10, **SMALL))


def test_networks_refuse_an_unfinished_block() -> None:
    """The terminal is missing."""
    with pytest.raises(InvalidEncoding, match="more are due"):
        networks.build(space, space.from_string(EXAMPLE)[:-1], (1, 4, 4), 10, **SMALL)


# --- the block: channels ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "channels_in", "expected"),
    [
        pytest.param(block("1,5,0,0"), 2, [(2, 4, 5)], id="convolution"),
        pytest.param(block("2,3,0,0"), 4, [], id="pooling of fitting channels"),
        pytest.param(block("2,3,0,0"), 2, [(2, 4, 1)], id="pooling keeps its channels, so the output is made to fit"),
        pytest.param(block("4,0,0,0", "3,3,0,0"), 2, [], id="leaves that fit together"),
        pytest.param(block("4,0,0,0", "3,3,0,0"), 4, [(8, 4, 1)], id="leaves that fit alone, but not together"),
        pytest.param(block("4,0,0,0", "5,0,0,1"), 4, [], id="sum of fitting channels"),
        pytest.param(block("4,0,0,0", "5,0,0,1"), 2, [(2, 4, 1), (2, 4, 1)], id="sum of others"),
        pytest.param(block("1,3,0,0", "5,0,1,0"), 2, [(2, 4, 3), (2, 4, 1)], id="sum of both"),
        pytest.param(block("1,3,0,0", "6,0,0,1"), 4, [(4, 4, 3), (8, 4, 1)], id="concatenation"),
        pytest.param(block("4,0,0,0", "6,0,0,1"), 2, [(4, 4, 1)], id="concatenation, even where it would fit"),
    ],
)
def test_channels_are_made_to_fit_by_these_convolutions(
    architecture: Block, channels_in: int, expected: list[tuple[int, int, int]]
) -> None:
    """In a stage of four channels."""
    assert convolutions(BlockModule(architecture, channels_in, 4)) == expected


@pytest.mark.parametrize("channels_in", [2, 4])
def test_a_block_puts_out_the_channels_of_its_stage_and_keeps_the_image_size(channels_in: int) -> None:
    """Whatever it gets."""
    module = BlockModule(space.decode(space.from_string(EXAMPLE)), channels_in, 4)
    assert module(images(channels_in, size=5)).shape == (2, 4, 5, 5)


# --- the block: what it computes -------------------------------------------------------------------


@pytest.mark.parametrize("code", ["2,1,0,0", "3,1,0,0", "4,0,0,0"], ids=["max pooling", "average pooling", "identity"])
def test_layers_without_a_window_change_nothing(code: str) -> None:
    """A window of one pixel is the identity."""
    x = images(3)
    torch.testing.assert_close(BlockModule(block(code), 3, 3)(x), x)


def test_max_pooling_looks_at_the_neighbours_inside_the_image() -> None:
    """The largest of up to nine pixels."""
    x = images(3)
    padded = nn.functional.pad(x, (1, 1, 1, 1), value=-torch.inf)
    expected = padded.unfold(2, 3, 1).unfold(3, 3, 1).amax((-1, -2))
    torch.testing.assert_close(BlockModule(block("2,3,0,0"), 3, 3)(x), expected)


def test_average_pooling_counts_the_pixels_inside_the_image() -> None:
    """The mean of four pixels in a corner."""
    x = images(3)
    found = BlockModule(block("3,3,0,0"), 3, 3)(x)
    torch.testing.assert_close(found[:, :, 0, 0], x[:, :, :2, :2].mean((2, 3)))


def test_an_addition_is_the_sum_of_its_inputs() -> None:
    """Of the input and its pooling."""
    x = images(3)
    expected = x + nn.functional.max_pool2d(x, 3, 1, 1)
    torch.testing.assert_close(BlockModule(block("2,3,0,0", "5,0,0,1"), 3, 3)(x), expected)


def test_leaves_are_concatenated_in_the_order_of_their_indices() -> None:
    """A pooling and the input, without any convolution."""
    x = images(3)
    expected = torch.cat([nn.functional.max_pool2d(x, 3, 1, 1), x], dim=1)
    torch.testing.assert_close(BlockModule(block("2,3,0,0", "4,0,0,0"), 3, 6)(x), expected)


def test_a_concatenation_keeps_the_order_of_its_predecessors() -> None:
    """The pooling first, then the input, mixed by its convolution."""
    module = BlockModule(block("2,3,0,0", "6,0,1,0"), 3, 3).eval()
    mix = next(layer for layer in module.modules() if isinstance(layer, ReLUConvBN))
    x = images(3)
    torch.testing.assert_close(module(x), mix(torch.cat([nn.functional.max_pool2d(x, 3, 1, 1), x], dim=1)))


def test_a_convolution_is_activated_before_and_normalised_behind() -> None:
    """ReLU, convolution, batch normalisation."""
    module = BlockModule(block("1,3,0,0"), 3, 3).eval()
    convolution, normalisation = (layer for layer in module.modules() if isinstance(layer, (nn.Conv2d, nn.BatchNorm2d)))
    x = images(3)
    expected = normalisation(nn.functional.conv2d(x.relu(), convolution.weight, padding=1))
    torch.testing.assert_close(module(x), expected)


def test_a_layer_reads_its_predecessor_and_not_the_layer_before() -> None:
    """Two poolings of the input are equal."""
    found = BlockModule(block("2,3,0,0", "2,3,0,0"), 3, 6)(images(3))
    torch.testing.assert_close(found[:, :3], found[:, 3:])


def test_every_layer_is_trained() -> None:
    """Each parameter of the example's network gets a gradient."""
    model = build(space.decode(space.from_string(EXAMPLE)), (1, 4, 4), 10, **SMALL)
    model(images(1, size=4)).logsumexp(1).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


# --- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "stages", "message"),
    [
        pytest.param((1, 3, 3), 3, r"images of 3x3 .*too small for 3 stages: at least 4x4 is needed", id="image"),
        pytest.param((1, 8, 1), 2, r"images of 8x1 .*too small for 2 stages: at least 2x2 is needed", id="one side"),
        pytest.param((3, 128, 2), 2, r"images of 64x1 \(behind the stem\) are too small", id="behind the stem"),
    ],
)
def test_an_image_too_small_for_the_stages_is_refused(shape: tuple[int, int, int], stages: int, message: str) -> None:
    """The message says what would do."""
    with pytest.raises(InvalidArgument, match=message):
        build(block("1,3,0,0"), shape, 10, stages=stages)


def test_the_smallest_image_for_the_stages_is_accepted() -> None:
    """4x4 becomes 1x1 in the third stage."""
    model = build(block("1,3,0,0"), (1, 4, 4), 10, channels=2, blocks_per_stage=1, stages=3)
    assert model(images(1, size=4)).shape == (2, 10)


@pytest.mark.parametrize("name", ["channels", "blocks_per_stage", "stages"])
@pytest.mark.parametrize("value", [0, -1, 2.0, True, "2", None], ids=str)
def test_a_size_that_is_no_positive_integer_is_refused(name: str, value: object) -> None:
    """The message names it."""
    sizes: dict[str, Any] = {**SMALL, name: value}
    with pytest.raises(InvalidArgument, match=f"{name} must be an integer of at least 1, got {value!r}"):
        build(block("1,3,0,0"), (1, 8, 8), 10, **sizes)
