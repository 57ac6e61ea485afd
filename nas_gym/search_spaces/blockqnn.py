"""The blocks of BlockQNN: layers with arbitrary connections, written as a list of network structure codes.

Source: Zhong, Yan, Wu, Shao, Liu: "Practical Block-wise Neural Network Architecture Generation", CVPR 2018, arXiv
1708.05552, section 3.1. Its full text could not be read; the codes and rules are those of two works built on it.

Dimension letters: N rows of a batch, C = `max_choices`, P = `max_index` - 1 layers at most.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property, lru_cache
from typing import ClassVar, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidArgument, InvalidEncoding
from nas_gym.search_spaces.core import Decision, Encoding, Lengths, Prefixes, Sketch
from nas_gym.search_spaces.finite_state import FiniteStateSpace


class LayerType(IntEnum):
    """What a layer does, with the published numbers."""

    CONVOLUTION = 1
    MAX_POOLING = 2
    AVERAGE_POOLING = 3
    IDENTITY = 4
    ADD = 5
    CONCAT = 6
    TERMINAL = 7


KERNELS: dict[LayerType, tuple[int, ...]] = {
    LayerType.CONVOLUTION: (1, 3, 5),
    LayerType.MAX_POOLING: (1, 3),
    LayerType.AVERAGE_POOLING: (1, 3),
    LayerType.IDENTITY: (0,),
    LayerType.ADD: (0,),
    LayerType.CONCAT: (0,),
    LayerType.TERMINAL: (0,),
}
"""Sides of the kernels that a type may have; 0 stands for none."""

_INPUTS = {LayerType.ADD: 2, LayerType.CONCAT: 2, LayerType.TERMINAL: 0}
_NAMES = {
    LayerType.CONVOLUTION: "conv",
    LayerType.MAX_POOLING: "max",
    LayerType.AVERAGE_POOLING: "avg",
    LayerType.IDENTITY: "identity",
    LayerType.ADD: "add",
    LayerType.CONCAT: "concat",
    LayerType.TERMINAL: "end",
}

Content: TypeAlias = tuple[int, int, int, int]
"""A code without its index: type, kernel, predecessor 1, predecessor 2."""

TERMINAL: Content = (int(LayerType.TERMINAL), 0, 0, 0)


@dataclass(frozen=True)
class LayerCode:
    """A network structure code.

    Attributes:
        index: number of the layer in its block, from 1.
        type: what it does.
        kernel: side of the kernel, 0 where there is none.
        pred1: index of the layer whose output it takes; 0 is the input of the block.
        pred2: that of the second one of an addition or concatenation, 0 elsewhere.
    """

    index: int
    type: LayerType
    kernel: int
    pred1: int
    pred2: int

    @property
    def content(self) -> Content:
        """The code without its index."""
        return int(self.type), self.kernel, self.pred1, self.pred2

    @property
    def inputs(self) -> tuple[int, ...]:
        """Indices of the layers that it reads."""
        return (self.pred1, self.pred2)[: _INPUTS.get(self.type, 1)]

    @property
    def operation(self) -> str:
        """Name of the type with the kernel."""
        return f"{_NAMES[self.type]}{self.kernel or ''}"

    def __str__(self) -> str:
        """Return the published notation."""
        return f"({','.join(map(str, (self.index, *self.content)))})"


@dataclass(frozen=True)
class Block:
    """A complete architecture.

    Attributes:
        layers: in the order of their indices, without the terminal.
    """

    layers: tuple[LayerCode, ...]

    def inputs(self, layer: LayerCode) -> tuple[int, ...]:
        """Return the indices of what a layer reads, 0 for the input of the block."""
        return layer.inputs

    @property
    def leaves(self) -> tuple[int, ...]:
        """Indices of the layers that no other reads; their outputs together are the block's."""
        return _leaves(self.layers)

    def graph(self) -> tuple[tuple[str, ...], tuple[tuple[int, int, str], ...]]:
        """Return node labels and the edges (source, target, label); the leaves lead to the output."""
        return _graph(self.layers, "output")


def _leaves(layers: Sequence[LayerCode]) -> tuple[int, ...]:
    """Return what nobody reads; without any layer, the input of the block."""
    read = {source for layer in layers for source in layer.inputs}
    return tuple(index for index in range(len(layers) + 1) if index not in read)


def _graph(layers: Sequence[LayerCode], end: str) -> tuple[tuple[str, ...], tuple[tuple[int, int, str], ...]]:
    labels = ("input", *(f"{layer.index}:{layer.operation}" for layer in layers), end)
    inside = ((source, layer.index, "") for layer in layers for source in layer.inputs)
    return labels, (*inside, *((leaf, len(layers) + 1, "") for leaf in _leaves(layers)))


_COMPLETE = -1
"""State of a complete block; the others are the numbers of layers so far."""


@dataclass(frozen=True)
class BlockQNNSpace(FiniteStateSpace):
    """Blocks of up to `max_index` - 1 layers before the terminal.

    A decision is a whole layer code but for its index, which is its position. The rules, of which `refusal` names the
    one that a code breaks:

    - predecessors are 0, the block's input, or earlier layers;
    - an addition or concatenation has two, in either order, and not the same twice unless `equal_predecessors`; a
      port forbids it, whether the paper does is not known;
    - the terminal ends the block and may not come first;
    - only the terminal may have the index `max_index`, which is our reading of "maximal index".

    Choice 0 is the terminal. The others ascend by their later predecessor, so that those legal at one index are a
    beginning of those legal at the next, and a number means the same layer whatever `max_index` is.

    Attributes:
        max_index: index at which the terminal must come; 23 in the paper, from memory.
        equal_predecessors: whether an addition or concatenation may take one input twice.
    """

    max_index: int = 23
    equal_predecessors: bool = False

    name: ClassVar[str] = "blockqnn"

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            InvalidArgument: a setting outside its range.
        """
        if isinstance(self.max_index, bool) or not isinstance(self.max_index, int) or self.max_index < 3:
            raise InvalidArgument(f"max_index must be an integer of at least 3, got {self.max_index!r}.")
        if not isinstance(self.equal_predecessors, bool):
            raise InvalidArgument(f"equal_predecessors must be true or false, got {self.equal_predecessors!r}.")

    # --- the grammar -------------------------------------------------------------------------------

    @cached_property
    def contents(self) -> tuple[Content, ...]:
        """The layer that each choice stands for, without its index."""
        found = [TERMINAL]
        for latest in range(self.max_index - 1):
            pairs = sorted({pair for early in range(latest + 1) for pair in ((early, latest), (latest, early))})
            for kind, kernels in KERNELS.items():
                inputs = _INPUTS.get(kind, 1)
                if inputs == 1:
                    found += [(int(kind), kernel, latest, 0) for kernel in kernels]
                elif inputs == 2:
                    found += [(int(kind), 0, one, two) for one, two in pairs if one != two or self.equal_predecessors]
        return tuple(found)

    @cached_property
    def max_choices(self) -> int:  # type: ignore[override]
        """Number of layers to choose from: 2 P^2 + 6 P + 1, and 2 P more with equal predecessors."""
        return len(self.contents)

    @property
    def max_length(self) -> int:  # type: ignore[override]
        """Decisions of the longest block, the terminal included."""
        return self.max_index

    @cached_property
    def _labels(self) -> tuple[str, ...]:
        layers = [_layer(1, content) for content in self.contents]
        inputs = [f"({','.join(map(str, layer.inputs))})" if layer.inputs else "" for layer in layers]
        return tuple(f"{layer.operation}{behind}" for layer, behind in zip(layers, inputs, strict=True))

    @cached_property
    def _choices(self) -> dict[Content, int]:
        return {content: choice for choice, content in enumerate(self.contents)}

    @property
    def start(self) -> int:
        """No layer yet."""
        return 0

    def refusal(self, layer: LayerCode) -> str:
        """Return which rule a code breaks, empty if none."""
        if layer.type is LayerType.TERMINAL and layer.index == 1:
            return "the terminal may not come first"
        if layer.type is not LayerType.TERMINAL and layer.index >= self.max_index:
            return f"only the terminal may have the index {self.max_index} (max_index)"
        if layer.kernel not in KERNELS[layer.type]:
            allowed = " or ".join(map(str, KERNELS[layer.type]))
            return f"the kernel of type {int(layer.type)} ({_NAMES[layer.type]}) must be {allowed}"
        return self._refused_predecessors(layer)

    def _refused_predecessors(self, layer: LayerCode) -> str:
        inputs = layer.inputs
        if len(inputs) < 1 and layer.pred1 != 0:
            return f"type {int(layer.type)} has no predecessors, so they must be 0"
        if len(inputs) < 2 and layer.pred2 != 0:
            return f"type {int(layer.type)} has no second predecessor, so it must be 0"
        if any(not 0 <= source < layer.index for source in inputs):
            return f"predecessors must lie between 0 and {layer.index - 1}, below the own index"
        if len(inputs) == 2 and layer.pred1 == layer.pred2 and not self.equal_predecessors:
            return f"the predecessors of type {int(layer.type)} must differ (equal_predecessors)"
        return ""

    def decision_at(self, state: int) -> Decision | None:
        """Return the choice of the next layer, None behind the terminal."""
        if state == _COMPLETE:
            return None
        mask = tuple(not self.refusal(_layer(state + 1, content)) for content in self.contents)
        return Decision(kind=0, labels=self._labels, ordered=False, mask=mask)

    def follow(self, state: int, choice: int) -> int:
        """Return the state behind a layer."""
        return _COMPLETE if self.contents[choice] == TERMINAL else state + 1

    def _layers(self, prefix: Encoding) -> tuple[LayerCode, ...]:
        """Return the layers of a legal prefix, without the terminal."""
        contents = (self.contents[choice] for choice in prefix)
        return tuple(_layer(index, content) for index, content in enumerate(contents, start=1) if content != TERMINAL)

    def decode(self, encoding: Encoding) -> Block:
        """Return the block.

        Raises:
            InvalidEncoding: `encoding` is not a complete legal sequence of decisions.
        """
        return Block(self._layers(self.validate(encoding)))

    def graph_size(self, encoding: Encoding) -> tuple[int, int]:
        """Return the numbers of layers and of links into them: their quotient is the density, 1 for a chain.

        Raises:
            InvalidEncoding: `encoding` is not an architecture of this space.
        """
        layers = self.decode(encoding).layers
        return len(layers), sum(len(layer.inputs) for layer in layers)

    def sketch(self, prefix: Encoding) -> Sketch:
        """Return the graph of a finished or unfinished block, whose leaves lead to ``output`` or ``?``."""
        return Sketch(*_graph(self._layers(prefix), "output" if self.is_complete(prefix) else "?"))

    # --- what the published agent sees -------------------------------------------------------------

    @property
    def states_nvec(self) -> npt.NDArray[np.int64]:
        """Sizes of the features: index, type, kernel and predecessors of the last code, all 0 at the start."""
        largest = max(kernel for kernels in KERNELS.values() for kernel in kernels)
        predecessors = self.max_index - 1
        return np.array([self.max_index + 1, max(LayerType) + 1, largest + 1, predecessors, predecessors], np.int64)

    @cached_property
    def _content_rows(self) -> npt.NDArray[np.int64]:
        """The contents as integers, shape [C, 4]."""
        return np.array(self.contents, np.int64)

    def states(self, prefixes: Prefixes, lengths: Lengths) -> npt.NDArray[np.int64]:
        """Return the state of the published agent, the last code, shape [N, 5]; see `states_nvec`."""
        prefixes, lengths = np.asarray(prefixes), np.asarray(lengths)
        last = prefixes[np.arange(len(lengths)), np.maximum(lengths - 1, 0)]
        return np.column_stack([lengths, np.where(lengths[:, None] > 0, self._content_rows[last], 0)])

    # --- notation ----------------------------------------------------------------------------------

    def to_string(self, encoding: Encoding) -> str:
        """Return the published list of codes, e.g. ``(1,1,3,0,0) (2,5,0,0,1) (3,7,0,0,0)``.

        Raises:
            InvalidEncoding: `encoding` is not an architecture of this space.
        """
        contents = (self.contents[choice] for choice in self.validate(encoding))
        return " ".join(str(_layer(index, content)) for index, content in enumerate(contents, start=1))

    def from_string(self, text: str) -> Encoding:
        """Return the encoding of a list of codes, the inverse of `to_string`.

        Commas between codes and square brackets around codes or around the list are accepted.

        Raises:
            InvalidEncoding: naming the code, and the rule that it breaks.
        """
        encoding: list[int] = []
        for position, token in enumerate(_tokens(text), start=1):
            where = f"{text!r}: code {position} is {token!r}"
            if encoding and self.contents[encoding[-1]] == TERMINAL:
                raise InvalidEncoding(f"{where}, but the terminal ends the block.")
            numbers = _numbers(token)
            if numbers is None:
                raise InvalidEncoding(f"{where}, expected five integers (index,type,kernel,pred1,pred2).")
            if numbers[0] != position:
                raise InvalidEncoding(f"{where}, but its index must be {position}.")
            if numbers[1] not in KERNELS:
                raise InvalidEncoding(f"{where}, but its type must be 1 to {max(LayerType)}.")
            layer = LayerCode(numbers[0], LayerType(numbers[1]), *numbers[2:])
            if reason := self.refusal(layer):
                raise InvalidEncoding(f"{where}, which is not allowed here: {reason}.")
            encoding.append(self._choices[layer.content])
        if not encoding or self.contents[encoding[-1]] != TERMINAL:
            raise InvalidEncoding(f"{text!r}: the block must end with the terminal, (index,7,0,0,0).")
        return tuple(encoding)

    # --- identity ----------------------------------------------------------------------------------

    def canonical(self, encoding: Encoding) -> Encoding:
        """Return the representative of the block's isomorphism class.

        Blocks are isomorphic if renumbering layers and swapping the inputs of additions and concatenations turns one
        into the other. Nothing is simplified: an identity is a layer, and one layer read twice is not two equal ones.

        Raises:
            InvalidEncoding: `encoding` is not an architecture of this space.
        """
        *layers, end = (self.contents[choice] for choice in self.validate(encoding))
        return tuple(self._choices[content] for content in (*_canonical(tuple(layers)), end))


def _layer(index: int, content: Content) -> LayerCode:
    kind, *others = content
    return LayerCode(index, LayerType(kind), *others)


def _tokens(text: str) -> list[str]:
    """Return the codes of a notation, and whatever else stands between them.

    >>> _tokens("[(1, 1, 3, 0, 0), (2,7,0,0,0)]")
    ['(1,1,3,0,0)', '(2,7,0,0,0)']
    """
    inside = re.sub(r"^\s*\[(\s*[(\[].*)\]\s*$", r"\1", text, flags=re.DOTALL)
    tokens = re.findall(r"[(\[][^()\[\]]*[)\]]?|[^\s,()\[\]]+|[)\]]", inside)
    return [re.sub(r"\s", "", token) for token in tokens]


def _numbers(token: str) -> list[int] | None:
    """Return the five integers of a code, None if it has another form."""
    number = "-?[0-9]{1,9}"
    five = ",".join([number] * 5)
    return (
        [int(found) for found in re.findall(number, token)] if re.fullmatch(rf"\({five}\)|\[{five}\]", token) else None
    )


# --- isomorphism -----------------------------------------------------------------------------------

Colours: TypeAlias = list[int]
"""Number of every node's class: nodes of different classes can never be mapped onto each other."""


class _Graph(NamedTuple):
    """A block as a graph with labelled nodes, of which 0 is the input.

    Attributes:
        labels: type and kernel of every node.
        inputs: what every node reads, ascending: the order does not count.
        readers: what reads every node, as often as it does.
    """

    labels: tuple[tuple[int, int], ...]
    inputs: tuple[tuple[int, ...], ...]
    readers: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, contents: Sequence[Content]) -> _Graph:
        layers = [_layer(index, content) for index, content in enumerate(contents, start=1)]
        readers: list[list[int]] = [[] for _ in range(len(layers) + 1)]
        for layer in layers:
            for source in layer.inputs:
                readers[source].append(layer.index)
        labels = ((0, 0), *((int(layer.type), layer.kernel) for layer in layers))
        inputs = ((), *(tuple(sorted(layer.inputs)) for layer in layers))
        return cls(labels, inputs, tuple(map(tuple, readers)))


@lru_cache(maxsize=1 << 13)
def _canonical(contents: tuple[Content, ...]) -> tuple[Content, ...]:
    """Return the layers of a block's representative: equal for isomorphic blocks, and for no others.

    Layers are numbered one by one. Next comes, of those whose inputs have numbers, one with the smallest (type, kernel,
    numbers of the inputs), then with the smallest colour. Neither depends on the numbers given, and the result says
    everything about the graph, so that it identifies the class however ties are broken consistently: where layers that
    no automorphism exchanges are left, all of them are tried, and the smallest result counts.
    """
    graph = _Graph.of(contents)
    ranks = {label: rank for rank, label in enumerate(sorted(set(graph.labels)))}
    return tuple(_number(graph, {0: 0}, [], _refine(graph, [ranks[label] for label in graph.labels])))


def _number(graph: _Graph, numbers: dict[int, int], done: list[Content], colours: Colours) -> list[Content]:
    """Return the layers in the order described in `_canonical`.

    Args:
        graph: the block.
        numbers: numbers of the nodes that have one; each of them is alone in its colour.
        done: the layers numbered so far.
        colours: a stable colouring.
    """
    numbers, done = dict(numbers), list(done)
    while len(numbers) < len(graph.labels):
        ready = [
            ((*graph.labels[node], *sorted(numbers[source] for source in inputs)), colours[node], node)
            for node, inputs in enumerate(graph.inputs)
            if node not in numbers and all(source in numbers for source in inputs)
        ]
        code, colour, _ = min(ready)
        tied = [node for other, shade, node in ready if (other, shade) == (code, colour)]
        done.append(_padded(code))
        different = _inequivalent(graph, colours, tied)
        if len(different) > 1:
            branches = (
                _number(graph, {**numbers, node: len(numbers)}, done, _refine(graph, _single_out(colours, node)))
                for node in different
            )
            return min(branches)
        # A lone candidate is alone in its colour already: any other of this colour would have the same code.
        if len(tied) > 1:
            colours = _refine(graph, _single_out(colours, different[0]))
        numbers[different[0]] = len(numbers)
    return done


def _padded(code: tuple[int, ...]) -> Content:
    kind, kernel, pred1, *rest = code
    return kind, kernel, pred1, rest[0] if rest else 0


def _single_out(colours: Colours, node: int) -> Colours:
    """Return the colours with one node put before the others of its colour."""
    doubled = [2 * colour + 1 for colour in colours]
    doubled[node] -= 1
    return doubled


def _refine(graph: _Graph, colours: Colours) -> Colours:
    """Return the coarsest stable colouring below one: nodes of a colour see the same colours around them.

    Colours are ranks of what was seen, hence equal for isomorphic coloured graphs.
    """
    count = 0
    while True:
        seen = [
            (colour, sorted([colours[other] for other in inputs]), sorted([colours[other] for other in readers]))
            for colour, inputs, readers in zip(colours, graph.inputs, graph.readers, strict=True)
        ]
        order = sorted(range(len(seen)), key=seen.__getitem__)
        rank = 0
        fresh = [0] * len(seen)
        for before, node in itertools.pairwise(order):
            rank += seen[before] != seen[node]
            fresh[node] = rank
        colours = fresh
        if rank == count:
            return colours
        count = rank


def _inequivalent(graph: _Graph, colours: Colours, tied: Iterable[int]) -> list[int]:
    """Return one node of every set of tied ones that automorphisms are known to exchange."""
    different: list[int] = []
    for node in tied:
        if not any(_exchangeable(graph, colours, node, other) for other in different):
            different.append(node)
    return different


def _exchangeable(graph: _Graph, colours: Colours, one: int, other: int) -> bool:
    """Tell whether an automorphism that keeps the colours was found which maps one node to the other.

    A wrong False costs time only. The candidate leaves alone whatever can stay: both nodes are singled out, each in its
    own copy of the colouring, and what has one colour in both copies stays, until the rest has only one possibility.
    """
    swap = list(range(len(colours)))
    swap[one], swap[other] = other, one
    if _is_automorphism(graph, swap):
        return True
    left, right = colours, colours
    while True:
        left = _refine(graph, _single_out(left, one))
        right = _refine(graph, _single_out(right, other))
        moved: dict[int, tuple[list[int], list[int]]] = {}
        for node, (before, behind) in enumerate(zip(left, right, strict=True)):
            if before != behind:
                moved.setdefault(before, ([], []))[0].append(node)
                moved.setdefault(behind, ([], []))[1].append(node)
        if any(len(sources) != len(targets) for sources, targets in moved.values()):
            return False
        open_choices = [pair for pair in moved.values() if len(pair[0]) > 1]
        if not open_choices:
            break
        one, other = open_choices[0][0][0], open_choices[0][1][0]
    mapping = list(range(len(colours)))
    for (source,), (target,) in moved.values():
        mapping[source] = target
    return _is_automorphism(graph, mapping)


def _is_automorphism(graph: _Graph, mapping: Sequence[int]) -> bool:
    """Tell whether a permutation of the nodes keeps labels and edges."""
    labels, inputs = graph.labels, graph.inputs
    return all(
        labels[node] == labels[image] and tuple(sorted([mapping[source] for source in inputs[node]])) == inputs[image]
        for node, image in enumerate(mapping)
    )
