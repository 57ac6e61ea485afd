"""The layers that a graph is made of: frozen descriptions without weights.

A layer knows its shapes, its module, and how repeated units pass through it, so that a transform asks the layer and
never what class it is. Shapes are (C, H, W) for images and (F,) for features, without the batch; a layer's units are
C or F. Dimension letters: C channels, H height, W width, F features, O outputs, I inputs of a kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from nas_gym.networks.morph.errors import MorphError, NotPreserving
from nas_gym.networks.morph.origins import Gather
from nas_gym.networks.morph.units import UnitMap
from nas_gym.networks.operations import Dropout as DropoutModule

if TYPE_CHECKING:
    from nas_gym.networks.morph.statistics import Statistics

Shape = tuple[int, ...]
"""(C, H, W) or (F,)."""


@dataclass(frozen=True)
class Layer:
    """Base of all layers; by itself the identity.

    Attributes:
        kind: name in files.
        produces: whether its units are its own, rather than those of its inputs.
        unit_wise: whether output unit j depends on input unit j alone.
        adds: whether its inputs must agree unit by unit.
        most_inputs: how many inputs it takes at most; None = any number.
    """

    kind: ClassVar[str] = "identity"
    produces: ClassVar[bool] = False
    unit_wise: ClassVar[bool] = True
    adds: ClassVar[bool] = False
    most_inputs: ClassVar[int | None] = 1

    @property
    def channel_groups(self) -> int:
        """Into how many equal groups its channels fall that may not mix."""
        return 1

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the shape that comes out.

        Raises:
            MorphError: the layer does not fit these inputs.
        """
        return inputs[0]

    def module(self, inputs: Sequence[Shape]) -> nn.Module:
        """Return a new module for inputs of these shapes."""
        return nn.Identity()

    def tensor_shapes(self, inputs: Sequence[Shape]) -> dict[str, Shape]:
        """Return the shapes of the module's tensors by their names, in its order, without making it."""
        return {}

    def nonnegative(self, inputs: Sequence[bool]) -> bool:
        """Tell whether no output can be negative, given which inputs cannot."""
        return all(inputs)

    def output_map(self, inputs: Sequence[UnitMap], shapes: Sequence[Shape]) -> UnitMap:
        """Return how the outputs repeat the parent's, given how the inputs do.

        Raises:
            MorphError: the inputs' maps cannot pass.
        """
        return inputs[0]

    def input_maps(self, wanted: UnitMap, shapes: Sequence[Shape]) -> tuple[UnitMap, ...]:
        """Return the maps that the inputs must have for the outputs to have a wanted one; the inverse of `output_map`.

        Raises:
            MorphError: there are none.
        """
        return tuple(wanted for _ in shapes)

    def resized(self, inputs: Sequence[UnitMap], output: UnitMap) -> Layer:
        """Return the layer of the child."""
        return self

    def gathers(self, inputs: Sequence[UnitMap], output: UnitMap) -> dict[str, tuple[Gather, ...]]:
        """Return how the tensors change that do, by their name inside the layer.

        Raises:
            MorphError: the maps do not fit the weights.
        """
        return {}

    def with_units(self, units: int) -> Layer:
        """Return the layer with another number of outputs, where it has one of its own."""
        return self

    def divided(self, parts: int) -> Layer:
        """Return the layer that treats one of equal parts of the inputs.

        Raises:
            MorphError: it mixes the parts.
        """
        return self

    def as_identity(self, shape: Shape, nonnegative: bool, statistics: Statistics | None) -> dict[str, Tensor]:
        """Return float64 tensors with which the layer changes nothing, by their name inside the layer.

        Args:
            shape: of the input.
            nonnegative: whether no input can be negative.
            statistics: of the input, for normalisations.

        Raises:
            NotPreserving: there are none.
            MorphError: the layer does not fit the input.
        """
        return {}

    def __str__(self) -> str:
        """Return the description as messages show it."""
        return repr(self)


def as_image(shape: Shape, what: str) -> tuple[int, int, int]:
    """Return (C, H, W).

    Raises:
        MorphError: it is no image.
    """
    if len(shape) != 3:
        raise MorphError(f"{what} takes images (channels, height, width), got the shape {shape}.")
    return shape[0], shape[1], shape[2]


def check_counts(layer: Layer, **values: int) -> None:
    """Raise MorphError for a value that is no integer of at least 1."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise MorphError(f"{layer}: {name} must be an integer of at least 1, got {value!r}.")


def strided(size: int, kernel: int, stride: int, padding: int) -> int:
    """Return the size of an image behind a window that slides over it."""
    return (size + 2 * padding - kernel) // stride + 1


@dataclass(frozen=True)
class Identity(Layer):
    """What comes in goes out; the edge of a cell that nothing was chosen for yet."""

    kind: ClassVar[str] = "identity"


_ACTIVATIONS: dict[str, tuple[type[nn.Module], bool]] = {
    "relu": (nn.ReLU, True),
    "sigmoid": (nn.Sigmoid, True),
    "tanh": (nn.Tanh, False),
}
"""Module, and whether its outputs are never negative."""


@dataclass(frozen=True)
class Activation(Layer):
    """An element-wise nonlinearity.

    Attributes:
        function: "relu", "sigmoid" or "tanh".
    """

    function: str = "relu"
    kind: ClassVar[str] = "activation"

    def __post_init__(self) -> None:
        """Check the name."""
        if self.function not in _ACTIVATIONS:
            raise MorphError(f"function must be one of {', '.join(_ACTIVATIONS)}, got {self.function!r}.")

    def module(self, inputs: Sequence[Shape]) -> nn.Module:
        """Return the nonlinearity."""
        return _ACTIVATIONS[self.function][0]()

    def nonnegative(self, inputs: Sequence[bool]) -> bool:
        """Tell it by the function."""
        return _ACTIVATIONS[self.function][1]

    def as_identity(self, shape: Shape, nonnegative: bool, statistics: Statistics | None) -> dict[str, Tensor]:
        """Nothing to set: a rectification changes nothing that is never negative."""
        if self.function != "relu":
            raise NotPreserving(f"{self.function} of its own output is another value; only relu is idempotent.")
        if not nonnegative:
            raise NotPreserving(
                "a rectification of values that may be negative changes them. Insert behind a ReLU, use "
                "`deepen_preactivated`, or `substitute` and repair with `mimic`."
            )
        return {}


@dataclass(frozen=True)
class Dropout(Layer):
    """Drops units at random in training mode.

    Attributes:
        probability: of dropping.
    """

    probability: float
    kind: ClassVar[str] = "dropout"

    def __post_init__(self) -> None:
        """Check the probability."""
        if not 0 <= self.probability < 1:
            raise MorphError(f"probability must be at least 0 and below 1, got {self.probability!r}.")

    def module(self, inputs: Sequence[Shape]) -> nn.Module:
        """Return the layer."""
        return DropoutModule(self.probability)


@dataclass(frozen=True)
class _Pooling(Layer):
    kernel: int
    stride: int
    padding: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_counts(self, kernel=self.kernel, stride=self.stride, padding=self.padding + 1)
        if 2 * self.padding > self.kernel:
            raise MorphError(f"{self}: the padding must be at most half of the kernel.")

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (C, H', W')."""
        channels, height, width = as_image(inputs[0], "a pooling")
        sizes = [strided(size, self.kernel, self.stride, self.padding) for size in (height, width)]
        if min(sizes) < 1:
            raise MorphError(f"a window of {self.kernel}x{self.kernel} does not fit an image of {height}x{width}.")
        return (channels, *sizes)

    def as_identity(self, shape: Shape, nonnegative: bool, statistics: Statistics | None) -> dict[str, Tensor]:
        """No pooling of more than one pixel changes nothing."""
        if self.kernel == self.stride == 1:
            return {}
        raise NotPreserving(
            f"{self} in place of the identity changes the function. "
            "Use `substitute`, which says so, and repair the child with `mimic`."
        )


@dataclass(frozen=True)
class MaxPooling(_Pooling):
    """The largest value of every window.

    Attributes:
        kernel: height and width of the window.
        stride: of both directions.
        padding: pixels at every border, which count as minus infinity.
    """

    kind: ClassVar[str] = "max_pooling"

    def module(self, inputs: Sequence[Shape]) -> nn.Module:
        """Return the pooling."""
        return nn.MaxPool2d(self.kernel, self.stride, self.padding)


@dataclass(frozen=True)
class AveragePooling(_Pooling):
    """The mean of every window.

    Attributes:
        kernel: height and width of the window.
        stride: of both directions.
        padding: pixels at every border, which do not count.
    """

    kind: ClassVar[str] = "average_pooling"

    def module(self, inputs: Sequence[Shape]) -> nn.Module:
        """Return the pooling."""
        return nn.AvgPool2d(self.kernel, self.stride, self.padding, count_include_pad=False)
