"""The network of a MetaQNN chain: the published costs, the dropout rule, and what a chain computes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from nas_gym import networks
from nas_gym.errors import InvalidArgument
from nas_gym.networks.metaqnn import build, dropout_probabilities
from nas_gym.networks.operations import Dropout, complexity
from nas_gym.search_spaces.metaqnn import (
    WIDTHS,
    Convolution,
    FullyConnected,
    GlobalAveragePooling,
    LayerChain,
    MetaQNNSpace,
    Pooling,
    Softmax,
)

PUBLISHED = {
    "C(512,5,1) C(256,3,1) C(256,5,1) C(256,3,1) P(5,3) C(512,3,1) C(512,5,1) P(2,2) SM": {28: 11.26, 32: 11.31},
    "C(128,1,1) C(512,3,1) C(64,1,1) C(128,3,1) P(2,2) C(256,3,1) P(2,2) C(512,3,1) P(3,2) SM": {28: 2.22, 32: 2.22},
    "C(64,3,1) C(128,3,1) P(5,3) C(256,3,1) P(3,2) FC(512) FC(128) SM": {28: 1.62, 32: 2.54},
}
"""Millions of parameters by image size; those at 28 pixels are table A2 of the paper's review version."""

tiny = MetaQNNSpace(image_size=4, filters=(2, 3), kernels=(1, 3), neurons=(5, 4))


def chain(text: str, space: MetaQNNSpace = tiny) -> LayerChain:
    """Return the chain of a notation."""
    return space.decode(space.from_string(text))


def small_space(size: int) -> MetaQNNSpace:
    """Return the space of our small widths for an image size."""
    return MetaQNNSpace(image_size=size, **WIDTHS["small"])


def images(size: int = 4, channels: int = 3, count: int = 2) -> torch.Tensor:
    """Return random images [N, C, H, W]."""
    return torch.randn((count, channels, size, size), generator=torch.Generator().manual_seed(0))


def kinds(model: nn.Module) -> list[str]:
    """Return the class names of the layers, in order."""
    return [type(layer).__name__ for layer in model.children()]


def expected_parameters(architecture: LayerChain, channels: int, size: int, classes: int) -> int:
    """Count weights and biases layer by layer; the representation is [width, side, side]."""
    total, width, side = 0, channels, size
    for layer in architecture.layers:
        if isinstance(layer, Convolution):
            total += layer.filters * (width * layer.kernel**2 + 1)
            width = layer.filters
        elif isinstance(layer, Pooling):
            side = 1 + (side - layer.kernel) // layer.stride
        elif isinstance(layer, FullyConnected):
            total += layer.neurons * (width * side**2 + 1)
            width, side = layer.neurons, 1
        elif isinstance(layer, GlobalAveragePooling):
            return total + classes * (width + 1)
        else:
            total += classes * (width * side**2 + 1)
    return total


@dataclass(frozen=True)
class Sampled:
    """A sampled architecture and its network on torch's meta device."""

    architecture: LayerChain
    model: nn.Module
    channels: int
    size: int
    classes: int


@pytest.fixture(scope="module")
def sampled() -> list[Sampled]:
    """Return 1,000 sampled networks of small widths, of images of 8x8 and 28x28 in turns."""
    rng = np.random.default_rng(0)
    tasks = ((small_space(8), 1, 8, 10), (small_space(28), 3, 28, 7))
    found: list[Sampled] = []
    with torch.device("meta"):
        for number in range(1000):
            space, channels, size, classes = tasks[number % 2]
            # Draws by decisions favour short chains, draws of positions long ones.
            encoding = space.sample(rng) if number % 4 < 2 else space.encoding_at(int(rng.integers(space.size())))
            model = networks.build(space, encoding, (channels, size, size), classes)
            found.append(Sampled(space.decode(encoding), model, channels, size, classes))
    return found


# --- cost ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [28, 32])
@pytest.mark.parametrize("text", PUBLISHED, ids=["6.92 %", "8.78 %", "9.48 %"])
def test_the_published_networks_have_the_published_parameters(text: str, size: int) -> None:
    """In millions, to the two decimals that are published."""
    space = MetaQNNSpace(max_depth=18, image_size=size)
    with torch.device("meta"):
        model = networks.build(space, space.from_string(text), (3, size, size), 10)
    assert round(complexity(model, (3, size, size)).parameters / 1e6, 2) == PUBLISHED[text][size]


def test_the_cost_is_the_same_without_computing_anything() -> None:
    """Networks on torch's meta device have the cost of real ones."""
    architecture = chain("C(2,3,1) C(3,1,1) P(2,2) FC(4) SM")
    with torch.device("meta"):
        imagined = build(architecture, (3, 4, 4), 10)
    assert complexity(imagined, (3, 4, 4)) == complexity(build(architecture, (3, 4, 4), 10), (3, 4, 4))


def test_sampled_networks_have_the_parameters_of_their_layers(sampled: list[Sampled]) -> None:
    """Counted from the decoded chain alone, for 1,000 architectures."""
    found = [sum(parameter.numel() for parameter in one.model.parameters()) for one in sampled]
    assert found == [expected_parameters(one.architecture, one.channels, one.size, one.classes) for one in sampled]


# --- the whole network -----------------------------------------------------------------------------


def test_sampled_networks_map_images_to_logits(sampled: list[Sampled]) -> None:
    """[2, C, H, W] becomes [2, classes], for 1,000 architectures."""
    shapes = [
        tuple(one.model.eval()(torch.empty(2, one.channels, one.size, one.size, device="meta")).shape)
        for one in sampled
    ]
    assert shapes == [(2, one.classes) for one in sampled]


def test_the_samples_hold_chains_of_every_length(sampled: list[Sampled]) -> None:
    """From the bare softmax to twelve layers before it."""
    assert {len(one.architecture.layers) for one in sampled} == set(range(1, 14))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("SM", ["Flatten", "Linear"], id="softmax alone"),
        pytest.param("C(2,3,1) SM", ["Conv2d", "ReLU", "Flatten", "Linear"], id="convolution"),
        pytest.param("FC(5) FC(4) SM", ["Flatten", *["Linear", "ReLU"] * 2, "Linear"], id="fully connected"),
        pytest.param(
            "C(2,3,1) P(2,2) FC(4) SM",
            ["Conv2d", "ReLU", "MaxPool2d", "Flatten", "Linear", "ReLU", "Linear"],
            id="all",
        ),
        pytest.param("GAP SM", ["Conv2d", "ReLU", "AdaptiveAvgPool2d", "Flatten"], id="global average pooling first"),
        pytest.param(
            "C(2,3,1) P(2,2) GAP SM",
            ["Conv2d", "ReLU", "MaxPool2d", "Conv2d", "ReLU", "AdaptiveAvgPool2d", "Flatten"],
            id="global average pooling",
        ),
    ],
)
def test_a_chain_becomes_these_layers(text: str, expected: list[str]) -> None:
    """Without dropout, in this order; nothing linear follows global average pooling."""
    assert kinds(build(chain(text), (3, 4, 4), 10, layer_dropout=False)) == expected


def test_a_convolution_keeps_the_size_of_the_image() -> None:
    """Whatever its kernel."""
    architecture = LayerChain((Convolution(2, 1), Convolution(2, 3), Convolution(2, 5), Softmax()))
    model = build(architecture, (3, 8, 8), 10, layer_dropout=False)
    sizes = [
        layer(images(8, layer.in_channels)).shape[2:] for layer in model.children() if isinstance(layer, nn.Conv2d)
    ]
    assert sizes == [(8, 8)] * 3


@pytest.mark.parametrize("pool", [Pooling(5, 3), Pooling(3, 2), Pooling(2, 2), Pooling(1, 3)], ids=str)
def test_pooling_shrinks_the_image_as_the_space_says(pool: Pooling) -> None:
    """For every image that the window fits into, up to 40 pixels."""
    module = next(iter(build(LayerChain((pool, Softmax())), (1, 40, 40), 10).children()))
    sizes = range(pool.kernel, 41)
    found = [module(torch.empty(1, 1, size, size, device="meta")).shape[2] for size in sizes]
    assert found == [pool.output_size(size) for size in sizes]


def test_a_chain_computes_what_it_says() -> None:
    """Convolution, ReLU, maximum, linear, ReLU, linear, worked out with plain functions."""
    model = build(chain("C(2,3,1) P(2,2) FC(4) SM"), (3, 4, 4), 10).eval()
    convolution, hidden, classifier = (layer for layer in model.children() if isinstance(layer, (nn.Conv2d, nn.Linear)))
    x = images()
    features = nn.functional.conv2d(x, convolution.weight, convolution.bias, padding=1).relu()
    features = nn.functional.max_pool2d(features, 2).flatten(1)
    logits = (features @ hidden.weight.T + hidden.bias).relu() @ classifier.weight.T + classifier.bias
    torch.testing.assert_close(model(x), logits)


def test_logits_of_global_average_pooling_are_means_of_one_channel_per_class() -> None:
    """A 1x1 convolution, ReLU and the mean over the image; the softmax adds nothing."""
    model = build(chain("GAP SM"), (3, 4, 4), 10)
    convolution = next(layer for layer in model.children() if isinstance(layer, nn.Conv2d))
    x = images()
    channels = torch.einsum("nchw,kc->nkhw", x, convolution.weight[:, :, 0, 0]) + convolution.bias[:, None, None]
    torch.testing.assert_close(model(x), channels.relu().mean((2, 3)))


@pytest.mark.parametrize("text", ["C(2,3,1) P(2,2) SM", "C(2,3,1) P(2,2) FC(4) SM", "C(2,3,1) P(2,2) GAP SM"])
def test_images_need_not_be_square(text: str) -> None:
    """Height and width shrink independently."""
    model = build(chain(text), (3, 4, 6), 7)
    assert model(torch.zeros(2, 3, 4, 6)).shape == (2, 7)


@pytest.mark.parametrize(
    ("layers", "shape", "message"),
    [
        pytest.param((Pooling(5, 3),), (3, 4, 4), r"P\(5,3\) does not fit into a representation of 4x4", id="image"),
        pytest.param((Pooling(3, 2),), (3, 8, 2), r"P\(3,2\) does not fit into a representation of 8x2", id="one side"),
        pytest.param(
            (Pooling(5, 3), Convolution(2, 1), Pooling(3, 2)),
            (3, 8, 8),
            r"P\(3,2\) does not fit into a representation of 2x2",
            id="pooled image",
        ),
    ],
)
def test_an_image_too_small_for_a_pooling_is_refused(
    layers: tuple[Pooling | Convolution, ...], shape: tuple[int, int, int], message: str
) -> None:
    """The message names the layer and what it would get."""
    with pytest.raises(InvalidArgument, match=message):
        build(LayerChain((*layers, Softmax())), shape, 10)


def test_images_smaller_than_the_space_s_are_refused_where_a_window_does_not_fit() -> None:
    """A chain for 28 pixels is not legal on 8."""
    space = MetaQNNSpace(image_size=28, **WIDTHS["tiny"])
    encoding = space.from_string("C(4,1,1) P(5,3) C(4,1,1) P(5,3) SM")
    with pytest.raises(InvalidArgument, match=r"P\(5,3\) does not fit into a representation of 2x2"):
        networks.build(space, encoding, (1, 8, 8), 10)


def test_a_chain_without_softmax_is_refused() -> None:
    """Nothing is guessed."""
    with pytest.raises(InvalidArgument, match=r"a chain must end with SM, got C\(2,1,1\) GAP\."):
        build(LayerChain((Convolution(2, 1), GlobalAveragePooling())), (3, 4, 4), 10)


# --- dropout ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("SM", (0,), id="softmax alone"),
        pytest.param("C(2,1,1) SM", (0, 0), id="one layer"),
        # n = 3 // 2 = 1
        pytest.param("C(2,1,1) C(2,1,1) SM", (0, 1 / 2, 0), id="every second layer"),
        # n = 4 // 2 = 2, but the fourth layer is the softmax
        pytest.param("C(2,1,1) C(2,1,1) C(2,1,1) SM", (0, 1 / 4, 0, 0), id="the softmax counts but has none"),
        # n = 5 // 2 = 2
        pytest.param("C(2,1,1) P(2,2) C(2,1,1) C(2,1,1) SM", (0, 1 / 4, 0, 2 / 4, 0), id="pooling counts too"),
        # n = (2 - 1) // 2 + 1 = 1
        pytest.param("FC(5) SM", (1 / 2, 0), id="fully connected alone"),
        # n = (3 - 1) // 2 + 1 = 2
        pytest.param("C(2,1,1) FC(5) SM", (0, 1 / 4, 0), id="fully connected second, once"),
        # n = (4 - 1) // 2 + 1 = 2
        pytest.param("C(2,1,1) P(2,2) FC(5) SM", (0, 1 / 4, 2 / 4, 0), id="fully connected third"),
        # n = (5 - 2) // 2 + 2 = 3
        pytest.param("C(2,1,1) C(2,1,1) FC(5) FC(4) SM", (0, 1 / 6, 2 / 6, 3 / 6, 0), id="two fully connected"),
        # n = (5 - 1) // 2 + 1 = 3, of which the fourth layer is only the second
        pytest.param("C(2,1,1) C(2,1,1) C(2,1,1) FC(5) SM", (0, 1 / 6, 0, 2 / 6, 0), id="the last below one half"),
        # n = (2 - 1) // 2 = 0
        pytest.param("GAP SM", (0, 0), id="global average pooling alone"),
        # n = (3 - 1) // 2 = 1
        pytest.param("C(2,1,1) GAP SM", (0, 0, 0), id="global average pooling second"),
        # n = (4 - 1) // 2 = 1
        pytest.param("C(2,1,1) C(2,1,1) GAP SM", (0, 1 / 2, 0, 0), id="global average pooling third"),
    ],
)
def test_dropout_probabilities_are_those_worked_out_by_hand(text: str, expected: tuple[float, ...]) -> None:
    """The i-th of n with i / 2n, n = (L - GAPs - FCs) // 2 + FCs."""
    assert dropout_probabilities(chain(text)) == pytest.approx(expected)


def test_dropout_rises_from_layer_to_layer_up_to_one_half(sampled: list[Sampled]) -> None:
    """In 1,000 architectures the probabilities of dropout layers are 1/2n, 2/2n, ... and never above 1/2."""
    for one in sampled:
        probabilities = [p for p in dropout_probabilities(one.architecture) if p]
        steps = np.diff([0.0, *probabilities])
        np.testing.assert_allclose(steps, steps[:1].repeat(len(steps)))
        assert max(probabilities, default=0.0) <= 0.5


def test_dropout_layers_come_where_the_rule_puts_them() -> None:
    """Behind the activation of a layer, with its probability."""
    model = build(chain("C(2,3,1) C(2,1,1) P(2,2) FC(4) SM"), (3, 4, 4), 10)
    assert kinds(model) == [
        *("Conv2d", "ReLU", "Conv2d", "ReLU", "Dropout", "MaxPool2d"),
        *("Flatten", "Linear", "ReLU", "Dropout", "Linear"),
    ]
    assert [layer.probability for layer in model.children() if isinstance(layer, Dropout)] == [1 / 6, 2 / 6]


def test_networks_without_layer_dropout_drop_nothing() -> None:
    """The published layers can be switched off."""
    model = build(chain("C(2,3,1) C(2,1,1) P(2,2) FC(4) SM"), (3, 4, 4), 10, layer_dropout=False)
    assert not [layer for layer in model.modules() if isinstance(layer, Dropout)]


def test_dropout_of_the_recipe_comes_right_before_the_classifier() -> None:
    """With the probability that was asked for, besides the published ones."""
    *_, last, classifier = build(chain("C(2,3,1) C(2,1,1) SM"), (3, 4, 4), 10, dropout=0.3).children()
    assert (type(last), last.probability, type(classifier)) == (Dropout, 0.3, nn.Linear)


def test_there_is_no_classifier_to_drop_features_of_behind_global_average_pooling() -> None:
    """Logits are never dropped."""
    model = build(chain("GAP SM"), (3, 4, 4), 10, dropout=0.3)
    assert not [layer for layer in model.modules() if isinstance(layer, Dropout)]


# --- batch normalisation ---------------------------------------------------------------------------


def test_batch_normalisation_comes_between_convolution_and_activation() -> None:
    """Once behind every convolution of the chain, as wide as it."""
    model = build(chain("C(2,3,1) C(3,1,1) P(2,2) FC(4) SM"), (3, 4, 4), 10, layer_dropout=False, batch_norm=True)
    assert kinds(model) == [
        *(["Conv2d", "BatchNorm2d", "ReLU"] * 2),
        *("MaxPool2d", "Flatten", "Linear", "ReLU", "Linear"),
    ]
    assert [layer.num_features for layer in model.children() if isinstance(layer, nn.BatchNorm2d)] == [2, 3]


def test_the_published_networks_have_no_batch_normalisation() -> None:
    """It is off unless asked for."""
    model = build(chain("C(2,3,1) C(3,1,1) P(2,2) FC(4) SM"), (3, 4, 4), 10)
    assert not [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
