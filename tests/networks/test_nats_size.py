"""The network of NATS-Bench's size space: the published costs, and what it computes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nas_gym import networks
from nas_gym.errors import InvalidArgument, InvalidEncoding
from nas_gym.evaluators.training import TrainingEvaluator
from nas_gym.networks.nas_bench_201 import CellModule
from nas_gym.networks.nats_size import FixedCell
from nas_gym.networks.operations import Complexity, Dropout, PoolingReduction, ResidualReduction, complexity
from nas_gym.networks.recipe import Recipe
from nas_gym.search_spaces.nas_bench_201 import NASBench201Space
from nas_gym.search_spaces.nats_size import NATSSizeSpace

space = NATSSizeSpace()

CIFAR10, CIFAR100, IMAGENET16 = ((3, 32, 32), 10), ((3, 32, 32), 100), ((3, 16, 16), 120)
DIGITS = ((1, 8, 8), 10)
SMALLEST = (0,) * 5
UNEVEN = (0, 1, 2, 0, 3)

PUBLISHED_COSTS = {
    ("8:8:8:8:8", CIFAR10): (11_714, 4_481_114),
    ("8:8:8:8:8", CIFAR100): (12_524, 4_481_924),
    ("8:8:8:8:8", IMAGENET16): (12_704, 1_121_336),
    ("8:8:8:16:32", CIFAR10): (49_202, 6_840_650),
    ("8:8:8:16:32", CIFAR100): (52_172, 6_843_620),
    ("8:8:8:16:32", IMAGENET16): (52_832, 1_714_040),
    ("8:8:40:32:40", CIFAR10): (144_834, 21_827_994),
    ("8:8:40:32:40", CIFAR100): (148_524, 21_831_684),
    ("8:8:40:32:40", IMAGENET16): (149_344, 5_461_816),
}
"""Rows 0, 11 and 284 of the benchmark on its three data sets; what it prints as FLOPs are multiply-adds."""

FIXED = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
"""The cell of all networks, as the official files name it."""


def images(channels: int, size: int = 8, count: int = 3) -> torch.Tensor:
    """Return random images [N, C, H, W]."""
    return torch.randn((count, channels, size, size), generator=torch.Generator().manual_seed(0))


# --- cost ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "data", "published"),
    [(text, data, costs) for (text, data), costs in PUBLISHED_COSTS.items()],
    ids=[f"{text} with {data[1]} classes" for text, data in PUBLISHED_COSTS],
)
def test_the_official_network_costs_exactly_what_the_benchmark_says(
    text: str, data: tuple[tuple[int, int, int], int], published: tuple[int, int]
) -> None:
    """Parameters and multiply-adds are the published ones, to the last digit."""
    found = complexity(networks.build(space, space.from_string(text), *data), data[0])
    assert (found.parameters, found.multiply_adds) == published


def test_another_official_number_of_parameters() -> None:
    """Row 12 of the benchmark, of which only this is known here."""
    model = networks.build(space, space.from_string("8:8:8:16:40"), *CIFAR10)
    assert complexity(model, CIFAR10[0]).parameters == 67_378


@pytest.mark.parametrize("reduction", ["residual", "pooling"])
def test_the_cost_is_the_same_without_computing_anything(reduction: str) -> None:
    """Networks on torch's meta device have the parameters and multiply-adds of real ones."""
    real = networks.build(space, UNEVEN, *DIGITS, reduction=reduction)
    with torch.device("meta"):
        imagined = networks.build(space, UNEVEN, *DIGITS, reduction=reduction)
    assert complexity(imagined, DIGITS[0]) == complexity(real, DIGITS[0])


# --- the whole network -----------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["residual", "pooling"])
@pytest.mark.parametrize("encoding", [SMALLEST, UNEVEN, (3, 2, 1, 0, 0)], ids=["equal", "uneven", "narrowing"])
def test_the_network_maps_images_to_logits(encoding: tuple[int, ...], reduction: str) -> None:
    """[N, C, H, W] becomes [N, classes], whatever the widths."""
    model = networks.build(space, encoding, (1, 8, 8), 7, reduction=reduction)
    assert model(images(channels=1)).shape == (3, 7)


def test_every_layer_has_the_width_that_was_chosen() -> None:
    """The first width is also that of the stem, the last one is read by the classifier."""
    model = networks.build(space, UNEVEN, *DIGITS)
    widths: list[int] = []
    x = images(channels=1)
    for layer in model:
        x = layer(x)
        if isinstance(layer, (nn.Sequential, FixedCell, ResidualReduction)):
            widths.append(x.shape[1])
    assert widths == [8, 8, 16, 24, 8, 32]


def test_the_image_is_halved_twice() -> None:
    """By the reductions and by nothing else."""
    *layers, _, _, _, _, _ = networks.build(space, SMALLEST, *DIGITS)
    assert nn.Sequential(*layers)(images(channels=1)).shape == (3, 8, 2, 2)


@pytest.mark.parametrize(
    ("reduction", "kind"), [("residual", ResidualReduction), ("pooling", PoolingReduction)], ids=["residual", "pooling"]
)
def test_the_reduction_is_the_one_that_was_asked_for(reduction: str, kind: type[nn.Module]) -> None:
    """Twice."""
    model = networks.build(space, SMALLEST, *DIGITS, reduction=reduction)
    assert sum(isinstance(layer, kind) for layer in model) == 2


def test_the_default_reduction_is_the_official_one() -> None:
    """Residual."""
    assert str(networks.build(space, UNEVEN, *DIGITS)) == str(
        networks.build(space, UNEVEN, *DIGITS, reduction="residual")
    )


def test_an_unknown_reduction_is_refused() -> None:
    """The known ones are listed."""
    with pytest.raises(InvalidArgument, match="one of residual, pooling, got 'strided'"):
        networks.build(space, SMALLEST, *DIGITS, reduction="strided")


@pytest.mark.parametrize("shape", [(1, 3, 8), (1, 8, 3), (3, 2, 2)])
def test_images_too_small_for_the_reductions_are_refused(shape: tuple[int, int, int]) -> None:
    """Two reductions need 4x4, and the message says so."""
    with pytest.raises(InvalidArgument, match=r"too small for 2 reductions: at least 4x4"):
        networks.build(space, SMALLEST, shape, 10)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        pytest.param((6, 6), "images of 6x6 .* cannot be halved 2 times .* multiples of 4", id="6x6"),
        pytest.param((8, 7), "images of 8x7", id="one odd side"),
        pytest.param((65, 65), r"images of 33x33 \(behind the stem\)", id="odd behind the stem"),
        pytest.param((28, 30), "Use reduction='pooling', or resize with image_size", id="advice"),
    ],
)
def test_the_residual_reduction_refuses_what_it_cannot_halve(size: tuple[int, int], message: str) -> None:
    """The message says which sizes are possible and what else to do."""
    with pytest.raises(InvalidArgument, match=message):
        networks.build(space, SMALLEST, (1, *size), 10)


@pytest.mark.parametrize("size", [6, 7, 65], ids=lambda size: f"{size}x{size}")
def test_the_pooling_reduction_takes_any_size(size: int) -> None:
    """It rounds down."""
    model = networks.build(space, SMALLEST, (1, size, size), 10, reduction="pooling")
    assert model(images(channels=1, size=size)).shape == (3, 10)


def test_an_encoding_of_another_space_is_refused() -> None:
    """Nothing is built from an illegal encoding."""
    with pytest.raises(InvalidEncoding):
        networks.build(space, (1,) * 6, *DIGITS)


def test_dropout_comes_right_before_the_classifier() -> None:
    """With the probability that was asked for; the official network has none."""
    *_, layer, classifier = networks.build(space, SMALLEST, *DIGITS, dropout=0.2)
    assert (type(layer), layer.probability, type(classifier)) == (Dropout, 0.2, nn.Linear)
    assert not any(isinstance(layer, Dropout) for layer in networks.build(space, SMALLEST, *DIGITS))


# --- the cell --------------------------------------------------------------------------------------


def test_the_cell_of_equal_widths_is_the_official_one() -> None:
    """With the same weights it computes what the cell of NAS-Bench-201 with the official operations does."""
    topology = NASBench201Space()
    expected = CellModule(topology.decode(topology.from_string(FIXED)), 4)
    found = FixedCell(4, 4)
    pairs = {
        "0-1": found.from_input[0],
        "0-2": found.from_input[1],
        "1-2": found.first_to_second,
        "1-3": found.first_to_output,
        "2-3": found.second_to_output,
    }
    for edge, module in pairs.items():
        module.load_state_dict(expected.edges[edge].state_dict())
    x = images(channels=4)
    torch.testing.assert_close(found(x), expected(x))


def test_the_skip_of_unequal_widths_is_a_normalised_convolution() -> None:
    """With all other edges silent, the output is the batch-normalised 1x1 convolution of the input, without ReLU."""
    cell = FixedCell(2, 3).eval()
    with torch.no_grad():
        for edge in (*cell.from_input, cell.first_to_second, cell.first_to_output, cell.second_to_output):
            edge[1].weight.zero_()
    x = images(channels=2)
    weight = cell.skip[0].weight
    # A fresh normalisation in evaluation mode divides by the root of its variance 1 plus its epsilon.
    torch.testing.assert_close(cell(x), nn.functional.conv2d(x, weight) / (1 + 1e-5) ** 0.5)


def test_the_cost_of_a_widening_cell_is_worked_out_by_hand() -> None:
    """From 2 to 3 channels: two convolutions read the input, three read nodes, and the skip is 1x1."""
    convolutions = 2 * 9 * 2 * 3 + 3 * 9 * 3 * 3 + 2 * 3
    found = complexity(FixedCell(2, 3), (2, 4, 4))
    assert (found.parameters, found.multiply_adds) == (convolutions + 6 * 2 * 3, 16 * convolutions)


# --- large images ----------------------------------------------------------------------------------


def test_a_network_of_imagenet_images_gives_logits() -> None:
    """The stem halves 224 pixels to 56, as for every other system."""
    model = networks.build(space, SMALLEST, (3, 224, 224), 7)
    assert model(images(channels=3, size=224, count=2)).shape == (2, 7)


def test_the_stem_of_large_images_costs_what_its_convolutions_do() -> None:
    """At 128 pixels one more convolution and normalisation than at 64."""
    small, large = (
        complexity(networks.build(space, SMALLEST, (3, size, size), 10), (3, size, size)) for size in (64, 128)
    )
    more = Complexity(large.parameters - small.parameters, large.multiply_adds - small.multiply_adds)
    # The strided convolution from 3 channels replaces the official one, which then reads 8 channels.
    assert (more.parameters, more.multiply_adds) == (9 * 8 * 8 + 2 * 8, 64 * 64 * 9 * 8 * 8)


# --- training --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_thread")
def test_an_official_network_learns() -> None:
    """Two epochs on digits are far better than chance, which is 0.1."""
    evaluator = TrainingEvaluator(space, recipe=Recipe(epochs=2), workers=0)
    assert evaluator.evaluate_one((1,) * 5).metrics["valid_accuracy"] > 0.3
