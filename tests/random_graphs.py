"""Random networks as graphs, and how far two networks agree."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nas_gym.networks.morph import (
    INPUT,
    Activation,
    Add,
    AveragePooling,
    BatchNorm,
    Concat,
    Convolution,
    DepthwiseConvolution,
    Dropout,
    Flatten,
    GlobalAveragePooling,
    Graph,
    GraphNetwork,
    Identity,
    Layer,
    Linear,
    MaxPooling,
    Morphed,
    Node,
    State,
)

IMAGE = (3, 8, 8)
CLASSES = 3


class Builder:
    """A graph under construction.

    Attributes:
        nodes: layers so far.
    """

    def __init__(self, rng: np.random.Generator, grouped: bool = True, joined: bool = True) -> None:
        """Begin with the images.

        Args:
            rng: of all choices.
            grouped: whether there are grouped convolutions.
            joined: whether concatenations may be added to something.
        """
        self.rng = rng
        self.grouped = grouped
        self.joined = joined
        self.nodes: list[Node] = []
        self.channels = {INPUT: IMAGE[0]}
        self.whole = {INPUT: False}

    def put(self, layer: Layer, *sources: str, channels: int | None = None) -> str:
        """Add a layer and return its name."""
        name = f"{layer.kind}{len(self.nodes)}"
        self.nodes.append(Node(name, layer, sources))
        self.channels[name] = self.channels[sources[0]] if channels is None else channels
        own = layer.produces
        self.whole[name] = not own and (layer.kind == "concat" or any(self.whole[source] for source in sources))
        return name

    def convolution(self, source: str, channels: int) -> str:
        """Add a convolution, sometimes with groups, and what usually follows."""
        rng = self.rng
        common = [g for g in (2, 3) if self.channels[source] % g == 0 and channels % g == 0]
        groups = int(rng.choice(common)) if self.grouped and common and rng.random() < 0.4 else 1
        kernel = int(rng.choice([1, 3]))
        layer = Convolution(channels, kernel, groups=groups, bias=bool(rng.random() < 0.5))
        name = self.put(layer, source, channels=channels)
        if rng.random() < 0.6:
            name = self.put(BatchNorm(), name)
        return self.put(Activation("relu"), name) if rng.random() < 0.6 else name

    def step(self, values: list[str]) -> None:
        """Add something that reads random earlier values of one image size."""
        rng = self.rng
        source = values[-1] if rng.random() < 0.5 else str(rng.choice(values))
        choice = rng.random()
        if choice < 0.45:
            values.append(self.convolution(source, int(rng.integers(2, 7))))
        elif choice < 0.65:
            simple = (
                BatchNorm(),
                Activation("relu"),
                Activation("tanh"),
                Identity(),
                Dropout(0.3),
                DepthwiseConvolution(3),
                MaxPooling(3, 1, 1),
                AveragePooling(3, 1, 1),
            )
            values.append(self.put(simple[rng.integers(len(simple))], source))
        elif choice < 0.8:
            chosen = [str(rng.choice(values)) for _ in range(rng.integers(2, 4))]
            values.append(self.put(Concat(), *chosen, channels=sum(self.channels[one] for one in chosen)))
        else:
            fits = [v for v in values if self.channels[v] == self.channels[source] and v != source]
            fits = [v for v in fits if self.joined or not self.whole[v]]
            if not self.joined and self.whole[source]:
                return
            other = str(rng.choice(fits)) if fits else self.convolution(source, self.channels[source])
            values.append(self.put(Add(average=bool(rng.random() < 0.3)), source, other))

    def closed(self, values: list[str]) -> str:
        """Join what nothing reads."""
        read = {name for node in self.nodes for name in node.inputs}
        loose = [name for name in values if name not in read and name != INPUT] or [values[-1]]
        if len(loose) == 1:
            return loose[0]
        return self.put(Concat(), *loose, channels=sum(self.channels[one] for one in loose))


def random_graph(rng: np.random.Generator, steps: int = 6, grouped: bool = True, joined: bool = True) -> Graph:
    """Return a random classifier of images 3x8x8 with 3 classes: two image sizes, then features."""
    build = Builder(rng, grouped, joined)
    first = build.convolution(INPUT, int(rng.integers(2, 7)))
    size = 8
    for stage in range(2):
        values = [first]
        for _ in range(int(rng.integers(1, steps))):
            build.step(values)
        first = build.closed(values)
        if stage == 0:
            first = build.put(MaxPooling(2, 2) if rng.random() < 0.5 else AveragePooling(2, 2), first)
            size = 4
    if rng.random() < 0.5:
        first = build.put(GlobalAveragePooling(), first)
    else:
        first = build.put(Flatten(), first, channels=build.channels[first] * size * size)
    if rng.random() < 0.6:
        first = build.put(Linear(int(rng.integers(2, 6)), bias=bool(rng.random() < 0.5)), first)
        first = build.put(BatchNorm(), first) if rng.random() < 0.5 else first
        first = build.put(Activation("relu"), first)
    build.put(Linear(CLASSES), first)
    return Graph(IMAGE, tuple(build.nodes))


def random_state(graph: Graph, rng: np.random.Generator, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Return weights and statistics no two of which are equal, of a size that keeps the outputs near 1."""
    state = {}
    for name, shape in graph.tensor_shapes.items():
        tensor = name.split(".")[1]
        if tensor == "num_batches_tracked":
            state[name] = torch.tensor(int(rng.integers(1, 9)))
            continue
        if tensor == "running_var" or (tensor == "weight" and len(shape) == 1):
            drawn = rng.uniform(0.5, 1.5, shape)
        else:
            drawn = rng.normal(0, 1 / np.sqrt(np.prod(shape[1:], dtype=int)) if len(shape) > 1 else 0.3, shape)
        state[name] = torch.from_numpy(np.asarray(drawn)).to(dtype)
    return state


def random_images(rng: np.random.Generator, count: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return images [count, 3, 8, 8]."""
    return torch.from_numpy(rng.normal(size=(count, *IMAGE))).to(dtype)


def outputs(graph: Graph, state: State, images: Tensor) -> Tensor:
    """Return what a network puts out in evaluation mode."""
    with torch.no_grad():
        return GraphNetwork(graph, state).eval()(images)


TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-10}
"""By how much two networks that compute the same may differ."""


def assert_same_function(parent: tuple[Graph, State], child: tuple[Graph, State], images: Tensor) -> None:
    """Check that two networks agree on images."""
    tolerance = TOLERANCES[images.dtype]
    torch.testing.assert_close(outputs(*child, images), outputs(*parent, images), rtol=0, atol=tolerance)


def producers(graph: Graph) -> list[str]:
    """Return the layers that have units of their own, the output excepted."""
    return [node.name for node in graph.nodes if node.layer.produces and node.name != graph.output]


def image_gradients(graph: Graph, state: State, images: Tensor) -> dict[str, Tensor]:
    """Return the gradients of a fixed weighted sum of the outputs, in evaluation mode, by the names of the state."""
    network = GraphNetwork(graph, state).eval()
    values = network(images)
    (values * torch.linspace(-1, 1, values.numel(), dtype=values.dtype).reshape(values.shape)).sum().backward()
    found = {}
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        found[name.removeprefix("layers.")] = parameter.grad
    return found


def assert_gradients_follow(parent: tuple[Graph, State], morphed: Morphed, images: Tensor) -> None:
    """Check that the child's gradients are those that its origins make of the parent's, wherever they say so."""
    before = image_gradients(*parent, images)
    after = image_gradients(morphed.graph, morphed.state, images)
    for name, gradient in after.items():
        origin = morphed.origins.get(name)
        expected = None if origin is None else origin.gradients(before[origin.source])
        if expected is not None:
            torch.testing.assert_close(
                gradient, expected, rtol=0, atol=1e-9, msg=lambda text, name=name: f"{name} {text}"
            )


def assert_child(parent: tuple[Graph, State], morphed: Morphed, images: Tensor) -> None:
    """Check that a child computes what its parent does and that its gradients follow from the parent's."""
    assert_same_function(parent, (morphed.graph, morphed.state), images)
    assert_gradients_follow(parent, morphed, images)
