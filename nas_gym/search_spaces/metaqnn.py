"""The chains of MetaQNN: convolutions, poolings, fully connected layers, global average pooling, softmax.

Source: Baker, Gupta, Naik, Raskar: "Designing Neural Network Architectures using Reinforcement Learning", ICLR 2017,
arXiv 1611.02167, section 4.1, table 1 and the code released with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidArgument, InvalidEncoding
from nas_gym.search_spaces.core import Decision, Encoding, Lengths, Prefixes
from nas_gym.search_spaces.finite_state import FiniteStateSpace

KERNEL_RULES = ("paper", "released")
SIZE_BINS = (8, 4, 1)
"""Smallest representation size of each bin: at least 8, 4 to 7, up to 3."""


@dataclass(frozen=True)
class Convolution:
    """A square convolution that keeps the representation size, with ReLU.

    Attributes:
        filters: output channels.
        kernel: side of the kernel.
        stride: always 1 in the paper.
    """

    filters: int
    kernel: int
    stride: int = 1

    def __str__(self) -> str:
        """Return the published notation."""
        return f"C({self.filters},{self.kernel},{self.stride})"


@dataclass(frozen=True)
class Pooling:
    """Max pooling without padding.

    Attributes:
        kernel: side of the window.
        stride: distance between windows.
    """

    kernel: int
    stride: int

    def __str__(self) -> str:
        """Return the published notation."""
        return f"P({self.kernel},{self.stride})"

    def output_size(self, size: int) -> int:
        """Return ceil((size - kernel + 1) / stride), the representation size behind it.

        >>> Pooling(5, 3).output_size(28), Pooling(3, 2).output_size(32)
        (8, 15)
        """
        return -(-(size - self.kernel + 1) // self.stride)


@dataclass(frozen=True)
class FullyConnected:
    """A fully connected layer with ReLU.

    Attributes:
        neurons: its width.
    """

    neurons: int

    def __str__(self) -> str:
        """Return the published notation."""
        return f"FC({self.neurons})"


@dataclass(frozen=True)
class GlobalAveragePooling:
    """A 1x1 convolution to one channel per class with ReLU, averaged over the image."""

    def __str__(self) -> str:
        """Return the published notation, without the number of classes."""
        return "GAP"


@dataclass(frozen=True)
class Softmax:
    """The classifier: one logit per class."""

    def __str__(self) -> str:
        """Return the published notation, without the number of classes."""
        return "SM"


WIDTHS: Mapping[str, Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {
        "published": {"filters": (64, 128, 256, 512), "neurons": (512, 256, 128)},
        "small": {"filters": (8, 16, 32, 64), "neurons": (64, 32, 16)},
        "tiny": {"filters": (4, 8, 16, 32), "neurons": (32, 16, 8)},
    }
)
"""Widths of convolutions and fully connected layers by name; all but the published ones are ours."""

REDUCED: Mapping[str, Any] = MappingProxyType(
    {"max_depth": 5, "image_size": 8, "filters": (8, 16), "kernels": (1, 3), "neurons": (64, 16)}
)
"""Settings of the space of the packaged table `metaqnn-digits`, which are ours: 6,734 chains."""

Layer: TypeAlias = Convolution | Pooling | FullyConnected | GlobalAveragePooling | Softmax


@dataclass(frozen=True)
class LayerChain:
    """A complete architecture.

    Attributes:
        layers: from the image to the softmax.
    """

    layers: tuple[Layer, ...]

    def graph(self) -> tuple[tuple[str, ...], tuple[tuple[int, int, str], ...]]:
        """Return node labels and the edges (source, target, label): a chain."""
        labels = ("input", *map(str, self.layers))
        return labels, tuple((node, node + 1, "") for node in range(len(labels) - 1))


class ChainState(NamedTuple):
    """What the legality of the next layer depends on.

    Attributes:
        depth: layers so far.
        size: representation size, the side of the image.
        last: kind of the last layer, None at the start.
        fully_connected: consecutive fully connected layers so far.
        neurons: width of the last fully connected layer, 0 where there is none.
    """

    depth: int
    size: int
    last: type[Layer] | None = None
    fully_connected: int = 0
    neurons: int = 0


def size_bin(size: int) -> int:
    """Return the index in `SIZE_BINS` of a representation size.

    >>> [size_bin(size) for size in (28, 8, 7, 4, 3, 1)]
    [0, 0, 1, 1, 2, 2]
    """
    return next(index for index, smallest in enumerate(SIZE_BINS) if size >= smallest or smallest == 1)


@dataclass(frozen=True)
class MetaQNNSpace(FiniteStateSpace):
    """Chains of up to `max_depth` layers before the softmax.

    A decision is a whole layer. The rules of the paper, of which `refusal` names the one that a layer breaks:

    - the softmax ends the chain and may come at any time; at the maximal depth it must;
    - after global average pooling, which counts as a layer, only the softmax may come;
    - pooling may not come first nor follow pooling, and its window must fit into the image;
    - fully connected layers need a representation size below 8; after one, only another that is not wider, at most
      `max_fully_connected` in a row, or the softmax may come;
    - a kernel may not exceed the representation size, whose bin (at least 8, 4 to 7, up to 3) counts by its smallest
      member.

    Attributes:
        max_depth: layers before the softmax: 12 for SVHN and MNIST, 18 for CIFAR-10.
        image_size: side of the input image.
        filters: widths of convolutions.
        kernels: sides of convolution kernels.
        pools: (kernel, stride) of poolings.
        neurons: widths of fully connected layers.
        max_fully_connected: fully connected layers in a row.
        pool_first: whether pooling may come first; the released code forbids it.
        kernel_rule: "paper", kernels up to the representation size; "released", the code's kernels below it, which
            leaves no convolution up to size 3.
    """

    max_depth: int = 12
    image_size: int = 28
    filters: tuple[int, ...] = (64, 128, 256, 512)
    kernels: tuple[int, ...] = (1, 3, 5)
    pools: tuple[tuple[int, int], ...] = ((5, 3), (3, 2), (2, 2))
    neurons: tuple[int, ...] = (512, 256, 128)
    max_fully_connected: int = 2
    pool_first: bool = False
    kernel_rule: str = "paper"

    name: ClassVar[str] = "metaqnn"

    def __post_init__(self) -> None:
        """Check the settings and make tuples of lists.

        Raises:
            InvalidArgument: a setting outside its range.
        """
        for name, least in (("max_depth", 1), ("image_size", 1), ("max_fully_connected", 0)):
            _check_count(name, getattr(self, name), least)
        for name in ("filters", "kernels", "neurons"):
            object.__setattr__(self, name, _checked_sizes(name, getattr(self, name)))
        pools = tuple(_checked_sizes("pools", pair) for pair in _sequence("pools", self.pools))
        if any(len(pair) != 2 for pair in pools) or len(set(pools)) < len(pools):
            raise InvalidArgument(f"pools must be distinct pairs (kernel, stride), got {self.pools!r}.")
        object.__setattr__(self, "pools", pools)
        if not self.filters and not self.neurons:
            raise InvalidArgument("filters and neurons are both empty: only the softmax would be left.")
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise InvalidArgument(f"kernels must be odd, got {self.kernels!r}.")
        if not isinstance(self.pool_first, bool):
            raise InvalidArgument(f"pool_first must be true or false, got {self.pool_first!r}.")
        if self.kernel_rule not in KERNEL_RULES:
            raise InvalidArgument(f"kernel_rule must be one of {', '.join(KERNEL_RULES)}, got {self.kernel_rule!r}.")

    # --- the grammar -------------------------------------------------------------------------------

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layer that each choice stands for."""
        return (
            *(Convolution(filters, kernel) for kernel in self.kernels for filters in self.filters),
            *(Pooling(kernel, stride) for kernel, stride in self.pools),
            *(FullyConnected(neurons) for neurons in self.neurons),
            GlobalAveragePooling(),
            Softmax(),
        )

    @cached_property
    def max_choices(self) -> int:  # type: ignore[override]
        """Number of layers to choose from."""
        return len(self.layers)

    @property
    def max_length(self) -> int:  # type: ignore[override]
        """Decisions of the longest chain, the softmax included."""
        return self.max_depth + 1

    @cached_property
    def _labels(self) -> tuple[str, ...]:
        return tuple(map(str, self.layers))

    @property
    def start(self) -> ChainState:
        """No layer yet."""
        return ChainState(0, self.image_size)

    def refusal(self, state: ChainState, layer: Layer) -> str:
        """Return which rule forbids a layer in an unfinished chain, empty if none does."""
        if isinstance(layer, Softmax):
            return ""
        if state.depth >= self.max_depth:
            return f"there are {self.max_depth} layers already (max_depth), so only SM may follow"
        if state.last is GlobalAveragePooling:
            return "after global average pooling only SM may follow"
        if isinstance(layer, FullyConnected):
            return self._refused_fully_connected(state, layer)
        if state.last is FullyConnected:
            return "after a fully connected layer only another one or SM may follow"
        if isinstance(layer, Pooling):
            return self._refused_pooling(state, layer)
        if isinstance(layer, Convolution):
            smallest = SIZE_BINS[size_bin(state.size)]
            if self.kernel_rule == "paper" and layer.kernel > smallest:
                return f"its kernel exceeds the representation size {state.size}, which counts as {smallest}"
            if self.kernel_rule == "released" and layer.kernel >= smallest:
                return f"its kernel is not below the representation size {state.size}, which counts as {smallest}"
        return ""

    def _refused_fully_connected(self, state: ChainState, layer: FullyConnected) -> str:
        if state.last is FullyConnected:
            if state.fully_connected >= self.max_fully_connected:
                return f"at most {self.max_fully_connected} fully connected layers may follow each other"
            if layer.neurons > state.neurons:
                return f"a fully connected layer may not be wider than the one before it ({state.neurons})"
            return ""
        if self.max_fully_connected == 0:
            return "fully connected layers are not allowed (max_fully_connected)"
        if state.size >= SIZE_BINS[0]:
            return f"a fully connected layer needs a representation size below {SIZE_BINS[0]}, not {state.size}"
        return ""

    def _refused_pooling(self, state: ChainState, layer: Pooling) -> str:
        if state.last is None and not self.pool_first:
            return "pooling may not come first"
        if state.last is Pooling:
            return "pooling may not follow pooling"
        if layer.kernel > state.size:
            return f"its window does not fit into the representation size {state.size}"
        return ""

    def decision_at(self, state: ChainState) -> Decision | None:
        """Return the choice of the next layer, None behind the softmax."""
        if state.last is Softmax:
            return None
        mask = tuple(not self.refusal(state, layer) for layer in self.layers)
        return Decision(kind=0, labels=self._labels, ordered=False, mask=mask)

    def follow(self, state: ChainState, choice: int) -> ChainState:
        """Return the state behind a layer."""
        layer = self.layers[choice]
        if isinstance(layer, FullyConnected):
            return ChainState(state.depth + 1, 1, FullyConnected, state.fully_connected + 1, layer.neurons)
        size = layer.output_size(state.size) if isinstance(layer, Pooling) else state.size
        return ChainState(state.depth + 1, size, type(layer))

    def decode(self, encoding: Encoding) -> LayerChain:
        """Return the chain.

        Raises:
            InvalidEncoding: `encoding` is not a complete legal sequence of decisions.
        """
        return LayerChain(tuple(self.layers[choice] for choice in self.validate(encoding)))

    # --- what the published agent sees -------------------------------------------------------------

    @property
    def states_nvec(self) -> npt.NDArray[np.int64]:
        """Sizes of the features: last layer (0 = none), depth, bin of the representation size, FC layers in a row."""
        return np.array(
            [self.max_choices + 1, self.max_length + 1, len(SIZE_BINS), self.max_fully_connected + 1], np.int64
        )

    @cached_property
    def _features(self) -> npt.NDArray[np.int64]:
        """Depth, size bin and fully connected layers of every state of the automaton, shape [S, 3]."""
        states = (state for state in self.automaton.states if isinstance(state, ChainState))
        return np.array([(s.depth, size_bin(s.size), s.fully_connected) for s in states], np.int64)

    def states(self, prefixes: Prefixes, lengths: Lengths) -> npt.NDArray[np.int64]:
        """Return the state of the published agent, shape [N, 4]; see `states_nvec`."""
        prefixes, lengths = np.asarray(prefixes), np.asarray(lengths)
        rows = np.arange(len(lengths))
        last = np.where(lengths > 0, prefixes[rows, np.maximum(lengths - 1, 0)] + 1, 0)
        return np.column_stack([last, self._features[self.state_numbers(prefixes, lengths)]])

    # --- notation ----------------------------------------------------------------------------------

    def from_string(self, text: str) -> Encoding:
        """Return the encoding of a published notation, e.g. ``C(64,3,1) P(2,2) FC(128) SM``.

        Commas between layers, square brackets around them and class numbers, as in ``SM(10)``, are accepted.

        Raises:
            InvalidEncoding: naming the token, and the transition rule that it breaks.
        """
        state = self.start
        encoding: list[int] = []
        for position, token in enumerate(_tokens(text)):
            where = f"{text!r}: layer {position + 1} is {token!r}"
            if state.last is Softmax:
                raise InvalidEncoding(f"{where}, but the chain ends with SM.")
            if token not in self._labels:
                raise InvalidEncoding(f"{where}, which this space does not have; it has {', '.join(self._labels)}.")
            choice = self._labels.index(token)
            if reason := self.refusal(state, self.layers[choice]):
                raise InvalidEncoding(f"{where}, which is not allowed here: {reason}.")
            encoding.append(choice)
            state = self.follow(state, choice)
        if state.last is not Softmax:
            raise InvalidEncoding(f"{text!r}: the chain must end with SM.")
        return tuple(encoding)


def _tokens(text: str) -> list[str]:
    """Return the layers of a notation without spaces inside and without the number of classes.

    >>> _tokens("[C(64, 3, 1), GAP(10), SM(10)]")
    ['C(64,3,1)', 'GAP', 'SM']
    """
    inside = text.strip().removeprefix("[").removesuffix("]")
    # A token ends at a space or comma outside parentheses; whatever else stands there is part of it, and then unknown.
    tokens = re.findall(r"(?:\([^()]*\)|[^\s,])+", inside)
    return [re.sub(r"^(SM|GAP)\(\d+\)$", r"\1", re.sub(r"\s", "", token)) for token in tokens]


def _check_count(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidArgument(f"{name} must be an integer of at least {least}, got {value!r}.")


def _sequence(name: str, value: object) -> Sequence[object]:
    if not isinstance(value, (list, tuple)):
        raise InvalidArgument(f"{name} must be a list, got {value!r}.")
    return value


def _checked_sizes(name: str, value: object) -> tuple[int, ...]:
    """Return distinct positive integers as a tuple.

    Raises:
        InvalidArgument: it is something else.
    """
    sizes: list[int] = []
    for one in _sequence(name, value):
        if isinstance(one, bool) or not isinstance(one, int) or one < 1:
            raise InvalidArgument(f"{name} must be positive integers, got {value!r}.")
        sizes.append(one)
    if name != "pools" and len(set(sizes)) < len(sizes):
        raise InvalidArgument(f"{name} must be distinct, got {value!r}.")
    return tuple(sizes)
