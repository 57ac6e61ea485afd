"""The network of a MetaQNN chain.

Source: Baker et al., ICLR 2017, arXiv 1611.02167, section 4 and the code released with it.
Dimension letters: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from torch import nn

from nas_gym.errors import InvalidArgument
from nas_gym.networks.operations import Dropout
from nas_gym.search_spaces.metaqnn import (
    Convolution,
    FullyConnected,
    GlobalAveragePooling,
    LayerChain,
    Pooling,
    Softmax,
)


def dropout_probabilities(chain: LayerChain) -> tuple[float, ...]:
    """Return the dropout behind every layer of a chain, 0 where there is none.

    The paper puts a dropout layer behind every second layer, the i-th of n with probability i / 2n; the released code
    also puts one behind every fully connected layer and none behind global average pooling and the softmax, with
    n = (L - GAPs - FCs) // 2 + FCs, where L counts the softmax.

    >>> from nas_gym.search_spaces.metaqnn import MetaQNNSpace
    >>> space = MetaQNNSpace(image_size=8)
    >>> chain = space.decode(space.from_string("C(64,3,1) C(64,3,1) P(2,2) FC(128) SM"))
    >>> dropout_probabilities(chain)
    (0.0, 0.16666666666666666, 0.0, 0.3333333333333333, 0.0)
    """
    layers = chain.layers
    fully_connected = sum(isinstance(layer, FullyConnected) for layer in layers)
    averaged = sum(isinstance(layer, GlobalAveragePooling) for layer in layers)
    total = (len(layers) - averaged - fully_connected) // 2 + fully_connected
    probabilities = []
    done = 0
    for position, layer in enumerate(layers, start=1):
        spatial = isinstance(layer, (Convolution, Pooling))
        dropped = (spatial and position % 2 == 0) or isinstance(layer, FullyConnected)
        done += dropped
        probabilities.append(done / (2 * total) if dropped else 0.0)
    return tuple(probabilities)


def build(
    chain: LayerChain,
    input_shape: tuple[int, int, int],
    classes: int,
    layer_dropout: bool = True,
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> nn.Module:
    """Return the network of a chain: images [N, *input_shape] -> logits [N, K].

    Args:
        chain: the layers.
        input_shape: (C, H, W) of an image.
        classes: number of classes K.
        layer_dropout: whether the published dropout layers are there, see `dropout_probabilities`.
        batch_norm: whether batch normalisation follows every `C` layer; the paper has none.
        dropout: probability of dropping a feature before the softmax, besides the published ones.

    Raises:
        InvalidArgument: the image is too small for a pooling layer.
    """
    channels, height, width = input_shape
    layers: list[nn.Module] = []
    features = 0
    probabilities = dropout_probabilities(chain)
    for layer, probability in zip(chain.layers, probabilities, strict=True):
        if isinstance(layer, Convolution):
            convolution = nn.Conv2d(channels, layer.filters, layer.kernel, layer.stride, padding=layer.kernel // 2)
            layers += [convolution, *([nn.BatchNorm2d(layer.filters)] if batch_norm else []), nn.ReLU()]
            channels = layer.filters
        elif isinstance(layer, Pooling):
            if layer.kernel > min(height, width):
                raise InvalidArgument(f"{layer} does not fit into a representation of {height}x{width}.")
            layers.append(nn.MaxPool2d(layer.kernel, layer.stride))
            height, width = layer.output_size(height), layer.output_size(width)
        elif isinstance(layer, FullyConnected):
            if not features:
                layers.append(nn.Flatten())
                features = channels * height * width
            layers += [nn.Linear(features, layer.neurons), nn.ReLU()]
            features = layer.neurons
        elif isinstance(layer, GlobalAveragePooling):
            layers += [nn.Conv2d(channels, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        if probability and layer_dropout:
            layers.append(Dropout(probability))
    return nn.Sequential(
        *layers, *_classifier(chain, features or channels * height * width, bool(features), classes, dropout)
    )


def _classifier(chain: LayerChain, features: int, flat: bool, classes: int, dropout: float) -> list[nn.Module]:
    """Return the layers of the softmax; behind global average pooling the channels are the logits already."""
    if not isinstance(chain.layers[-1], Softmax):
        raise InvalidArgument(f"a chain must end with SM, got {' '.join(map(str, chain.layers))}.")
    if len(chain.layers) > 1 and isinstance(chain.layers[-2], GlobalAveragePooling):
        return []
    flattened: list[nn.Module] = [] if flat else [nn.Flatten()]
    return [*flattened, *([Dropout(dropout)] if dropout else []), nn.Linear(features, classes)]
