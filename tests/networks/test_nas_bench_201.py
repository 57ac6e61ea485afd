"""The network of a NAS-Bench-201 cell: the published costs, and what a cell computes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import ToySpace

from nas_gym import networks
from nas_gym.errors import InvalidArgument, InvalidEncoding, UnknownName
from nas_gym.networks.nas_bench_201 import CellModule, Skeleton, build, stem
from nas_gym.networks.operations import Complexity, Dropout, complexity
from nas_gym.search_spaces.nas_bench_201 import Cell, NASBench201Space

space = NASBench201Space()

CIFAR10 = ((3, 32, 32), 10)
DIGITS = ((1, 8, 8), 10)
SMALL = Skeleton(channels=2, cells_per_stage=1, stages=2, reduction="pooling")

PUBLISHED_COSTS = {
    "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|": (
        Complexity(parameters=129_306, multiply_adds=15_647_370)
    ),
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|none~0|nor_conv_3x3~1|avg_pool_3x3~2|": (
        Complexity(parameters=802_426, multiply_adds=113_951_370)
    ),
    "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|none~0|nor_conv_1x1~1|none~2|": (
        Complexity(parameters=101_306, multiply_adds=11_715_210)
    ),
}
"""Rows 0, 11 and 284 of the benchmark on CIFAR-10; what it prints, in millions, as FLOPs are multiply-adds."""


def cell(**operations: str) -> Cell:
    """Return the cell with these operations on edges named like ``e01``, and `none` on the others."""
    names = ("e01", "e02", "e12", "e03", "e13", "e23")
    return Cell(tuple(operations.get(name, "none") for name in names))


def images(channels: int, size: int = 8, count: int = 3) -> torch.Tensor:
    """Return random images [N, C, H, W]."""
    return torch.randn((count, channels, size, size), generator=torch.Generator().manual_seed(0))


# --- cost ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "published"), PUBLISHED_COSTS.items(), ids=["official row 0", "official row 11", "official row 284"]
)
def test_the_official_network_costs_exactly_what_the_benchmark_says(text: str, published: Complexity) -> None:
    """Parameters and multiply-adds on CIFAR-10 are the published ones, to the last digit."""
    input_shape, classes = CIFAR10
    model = networks.build(space, space.from_string(text), input_shape, classes)
    found = complexity(model, input_shape)
    assert (found.parameters, found.multiply_adds) == (published.parameters, published.multiply_adds)


@pytest.mark.parametrize("reduction", ["residual", "pooling"])
def test_the_cost_is_the_same_without_computing_anything(reduction: str) -> None:
    """Networks on torch's meta device have the parameters and multiply-adds of real ones."""
    encoding = (4, 2, 1, 3, 0, 3)
    sizes = Skeleton(4, 1, 3, reduction)
    real = networks.build(space, encoding, *DIGITS, skeleton=sizes)
    with torch.device("meta"):
        imagined = networks.build(space, encoding, *DIGITS, skeleton=sizes)
    assert complexity(imagined, DIGITS[0]) == complexity(real, DIGITS[0])


# --- the whole network -----------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["residual", "pooling"])
@pytest.mark.parametrize("stages", [1, 2, 3])
def test_the_network_maps_images_to_logits(stages: int, reduction: str) -> None:
    """[N, C, H, W] becomes [N, classes], for any number of stages and either reduction."""
    model = networks.build(space, (4, 2, 1, 3, 0, 3), (1, 8, 8), 7, skeleton=Skeleton(2, 2, stages, reduction))
    assert model(images(channels=1)).shape == (3, 7)


def test_the_smallest_image_may_shrink_to_one_pixel() -> None:
    """Three stages halve 4x4 twice."""
    model = networks.build(space, (4, 2, 1, 3, 0, 3), (1, 4, 4), 10, skeleton=Skeleton(2, 1, 3, "pooling"))
    assert model(images(channels=1, size=4)).shape == (3, 10)


def test_channels_double_at_every_reduction() -> None:
    """The classifier of three stages from 4 channels reads 16."""
    model = networks.build(space, (1,) * 6, *DIGITS, skeleton=Skeleton(4, 1, 3, "residual"))
    assert [layer.in_features for layer in model.modules() if isinstance(layer, nn.Linear)] == [16]


def test_the_skeleton_says_how_many_cells_there_are() -> None:
    """Cells per stage times stages."""
    model = networks.build(space, (1,) * 6, *DIGITS, skeleton=Skeleton(2, 3, 2, "pooling"))
    assert sum(isinstance(layer, CellModule) for layer in model.modules()) == 3 * 2


def test_the_default_skeleton_is_the_official_one() -> None:
    """16 channels, three stages of five cells, residual reductions."""
    assert Skeleton() == Skeleton(channels=16, cells_per_stage=5, stages=3, reduction="residual")


@pytest.mark.parametrize("shape", [(1, 3, 8), (1, 8, 3), (3, 2, 2)])
def test_images_too_small_for_the_stages_are_refused(shape: tuple[int, int, int]) -> None:
    """Three stages need 4x4, and the message says so."""
    with pytest.raises(InvalidArgument, match=r"too small for 3 stages: at least 4x4"):
        networks.build(space, (1,) * 6, shape, 10, skeleton=Skeleton(stages=3))


@pytest.mark.parametrize(
    ("size", "stages", "message"),
    [
        pytest.param((6, 6), 3, "images of 6x6 .* cannot be halved 2 times .* multiples of 4", id="6x6"),
        pytest.param((8, 7), 2, "images of 8x7 .* cannot be halved 1 times .* multiples of 2", id="one odd side"),
        pytest.param((65, 65), 2, r"images of 33x33 \(behind the stem\) cannot be halved", id="odd behind the stem"),
        pytest.param((28, 28), 4, "Use reduction='pooling', fewer stages, or resize with image_size", id="advice"),
    ],
)
def test_the_residual_reduction_refuses_what_it_cannot_halve(size: tuple[int, int], stages: int, message: str) -> None:
    """The message says which sizes are possible and what else to do."""
    with pytest.raises(InvalidArgument, match=message):
        networks.build(space, (1,) * 6, (1, *size), 10, skeleton=Skeleton(2, 1, stages, "residual"))


@pytest.mark.parametrize("size", [6, 7, 65], ids=lambda size: f"{size}x{size}")
def test_the_pooling_reduction_takes_any_size(size: int) -> None:
    """It rounds down."""
    model = networks.build(space, (4, 2, 1, 3, 0, 3), (1, size, size), 10, skeleton=Skeleton(2, 1, 3, "pooling"))
    assert model(images(channels=1, size=size)).shape == (3, 10)


def test_an_unknown_reduction_is_refused() -> None:
    """The known ones are listed."""
    with pytest.raises(InvalidArgument, match="one of residual, pooling, got 'strided'"):
        Skeleton(reduction="strided")


@pytest.mark.parametrize("value", [0, -1, 2.0, "8", True, None], ids=repr)
@pytest.mark.parametrize("field", ["channels", "cells_per_stage", "stages"])
def test_sizes_of_a_skeleton_are_counts(field: str, value: object) -> None:
    """Every size is an integer of at least 1, and the message shows what came."""
    with pytest.raises(InvalidArgument, match=f"{field} must be an integer of at least 1, got {value!r}"):
        Skeleton(**{field: value})  # pyright: ignore[reportArgumentType]


def test_a_skeleton_survives_the_way_through_json() -> None:
    """Its fields are its constructor's arguments."""
    skeleton = Skeleton(8, 1, 2, "pooling")
    assert Skeleton(**skeleton.to_json()) == skeleton


def test_an_encoding_of_another_space_is_refused() -> None:
    """Nothing is built from an illegal encoding."""
    with pytest.raises(InvalidEncoding):
        networks.build(space, (9,) * 6, *DIGITS)


def test_a_space_without_a_builder_is_named() -> None:
    """The message lists the spaces that have one."""
    with pytest.raises(UnknownName, match=r"unknown network builder 'toy'.*nas_bench_201"):
        networks.build(ToySpace(), (2, 0), *DIGITS)


# --- the cell --------------------------------------------------------------------------------------


def test_a_cell_without_operations_is_zero() -> None:
    """A node that nothing flows into is zero."""
    x = images(channels=2)
    assert torch.equal(CellModule(cell(), 2)(x), torch.zeros_like(x))


def test_a_network_of_empty_cells_ignores_the_image() -> None:
    """With `none` everywhere the logits are the bias of the classifier."""
    model = networks.build(space, (0,) * 6, *DIGITS, skeleton=SMALL).eval()
    assert torch.equal(model(images(channels=1)), model(torch.zeros(3, 1, 8, 8)))


def test_a_node_is_the_sum_of_its_incoming_edges() -> None:
    """With skips everywhere the nodes are x, x, 2x and 4x."""
    x = images(channels=2)
    module = CellModule(Cell(("skip_connect",) * 6), 2)
    torch.testing.assert_close(module(x), 4 * x)


def test_the_output_is_the_sum_over_the_paths_worked_out_by_hand() -> None:
    """Node 1 = pool(x), node 2 = x + node 1, output = conv(x) + node 2."""
    x = images(channels=2)
    module = CellModule(
        cell(e01="avg_pool_3x3", e02="skip_connect", e12="skip_connect", e03="nor_conv_3x3", e23="skip_connect"), 2
    ).eval()
    convolution = module.edges["0-3"][1].weight
    pooled = nn.functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    # A fresh normalisation in evaluation mode divides by the root of its variance 1 plus its epsilon.
    convolved = nn.functional.conv2d(x.relu(), convolution, padding=1) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(module(x), convolved + x + pooled)


def test_pooling_does_not_darken_the_border() -> None:
    """The padding is left out of the average, so a constant image stays constant."""
    x = torch.ones(1, 2, 4, 4)
    torch.testing.assert_close(CellModule(cell(e03="avg_pool_3x3"), 2)(x), x)


def test_an_edge_into_a_node_that_nothing_reads_keeps_its_parameters() -> None:
    """The benchmark counts convolutions that cannot reach the output."""
    module = CellModule(cell(e01="nor_conv_1x1", e03="skip_connect"), 2)
    assert sum(parameter.numel() for parameter in module.parameters()) == 2 * 2 + 2 * 2


def test_build_takes_the_decoded_cell() -> None:
    """`networks.build` is `decode` followed by the builder of the space."""
    built = build(space.decode((1, 2, 3, 4, 0, 1)), *DIGITS, skeleton=SMALL)
    dispatched = networks.build(space, (1, 2, 3, 4, 0, 1), *DIGITS, skeleton=SMALL)
    assert str(built) == str(dispatched)


# --- large images ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "halvings"), [(64, 0), (65, 1), (128, 1), (129, 2), (224, 2), (260, 3)])
def test_the_stem_halves_what_is_above_64_pixels(size: int, halvings: int) -> None:
    """By convolutions with stride 2 before the official one."""
    layers, _ = stem(3, 4, (size, size))
    strides = [layer.stride[0] for layer in layers if isinstance(layer, nn.Conv2d)]
    assert strides == [2] * halvings + [1]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        pytest.param((64, 64), (64, 64), id="64 stays"),
        pytest.param((65, 65), (33, 33), id="odd sizes are rounded up"),
        pytest.param((224, 224), (56, 56), id="ImageNet"),
        pytest.param((64, 65), (32, 33), id="the larger side decides"),
        pytest.param((8, 200), (2, 50), id="narrow"),
    ],
)
def test_the_stem_says_how_large_its_output_is(size: tuple[int, int], expected: tuple[int, int]) -> None:
    """What it announces is what it puts out."""
    layers, announced = stem(3, 4, size)
    assert announced == expected
    assert layers(torch.zeros(1, 3, *size)).shape == (1, 4, *expected)


def test_the_stem_of_small_images_is_the_official_one() -> None:
    """A 3x3 convolution without bias and a normalisation."""
    layers, _ = stem(3, 16, (32, 32))
    official = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
    assert str(layers) == str(official)


def test_a_network_of_imagenet_images_gives_logits() -> None:
    """224 pixels become 56 behind the stem and 14 in the last stage."""
    model = networks.build(space, (1,) * 6, (3, 224, 224), 7, skeleton=Skeleton(2, 1, 3, "residual"))
    assert model(images(channels=3, size=224, count=2)).shape == (2, 7)


def test_the_cost_of_a_stem_is_worked_out_by_hand() -> None:
    """At 128 pixels: a strided convolution of 3 to 4 channels at 64x64, then the official one of 4 to 4."""
    layers, _ = stem(3, 4, (128, 128))
    expected = Complexity(4 * 9 * (3 + 4) + 2 * 8, 64 * 64 * 4 * 9 * (3 + 4), 5 * 64 * 64 * 4)
    assert complexity(layers, (3, 128, 128)) == expected


# --- dropout ---------------------------------------------------------------------------------------


def test_dropout_comes_right_before_the_classifier() -> None:
    """With the probability that was asked for."""
    *_, layer, classifier = networks.build(space, (1,) * 6, *DIGITS, skeleton=SMALL, dropout=0.2)
    assert (type(layer), layer.probability, type(classifier)) == (Dropout, 0.2, nn.Linear)


def test_the_official_network_has_no_dropout() -> None:
    """Nothing is dropped unless it is asked for."""
    model = networks.build(space, (1,) * 6, *DIGITS, skeleton=SMALL)
    assert not any(isinstance(layer, Dropout) for layer in model.modules())


def test_dropout_costs_neither_parameters_nor_multiply_adds() -> None:
    """Its output counts as activations of the last features."""
    plain, dropping = (
        complexity(networks.build(space, (1,) * 6, *DIGITS, skeleton=SMALL, dropout=dropout), DIGITS[0])
        for dropout in (0.0, 0.5)
    )
    assert dropping == Complexity(plain.parameters, plain.multiply_adds, plain.activations + 2 * SMALL.channels)


def test_fields_that_are_left_out_of_a_skeleton_are_the_official_ones() -> None:
    """A mapping may hold some of the sizes."""
    by_fields = networks.build(space, (1,) * 6, *DIGITS, skeleton={"channels": 2})
    assert str(by_fields) == str(networks.build(space, (1,) * 6, *DIGITS, skeleton=Skeleton(channels=2)))


def test_a_skeleton_may_be_given_by_its_fields() -> None:
    """As an environment does."""
    fields = {"channels": 8, "cells_per_stage": 1, "stages": 2, "reduction": "pooling"}
    by_fields = networks.build(space, (3,) * 6, (1, 8, 8), 10, skeleton=fields)
    by_object = networks.build(space, (3,) * 6, (1, 8, 8), 10, skeleton=Skeleton(**fields))
    assert str(by_fields) == str(by_object)
