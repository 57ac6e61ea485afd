"""Grammars of episodes that turn a small trained network into a larger one: steps that widen, then steps that deepen.

Source: Cai, Chen, Zhang, Yu & Wang, Efficient Architecture Search by Network Transformation, AAAI 2018, arXiv
1707.04873, and the code released with it. What the start networks are is in `nas_gym.search_spaces.eas`.

Dimension letters: N rows of a batch, K features, C = `max_choices`, T layer tokens.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidArgument
from nas_gym.search_spaces.core import Decision, Encoding, Lengths, Prefixes, SearchSpace
from nas_gym.search_spaces.starts import Layer, Start

WIDER, BLOCK, POSITION, KERNEL = range(4)
"""Kinds of decisions."""

_QUESTIONS = 4
"""Features before the layer tokens."""

_WIDER_LABELS = ("keep", "wider")
_CACHE_LIMIT = 200_000


@dataclass(frozen=True)
class Block:
    """A run of layers of one sort, the first network's.

    Attributes:
        name: of the block.
        sort: what its layers are called: "C", "F" or "D".
        layers: at the start.
        levels: widths in ascending order.
        kernels: of inserted layers; none = no choice.
        code: token of a layer of the first level and the first kernel.
    """

    name: str
    sort: str
    layers: tuple[Layer, ...]
    levels: tuple[int, ...]
    kernels: tuple[int, ...]
    code: int

    def token(self, layer: Layer) -> int:
        """Return the token of a layer."""
        kernel = self.kernels.index(layer.kernel) if self.kernels else 0
        return self.code + self.levels.index(layer.width) * max(len(self.kernels), 1) + kernel

    def wider(self, width: int, steps: int = 1) -> int | None:
        """Return the width so many levels up, None beyond the last."""
        level = self.levels.index(width) + steps
        return self.levels[level] if level < len(self.levels) else None


@dataclass(frozen=True)
class Widen:
    """A layer takes its next larger width; layers are counted inside their block at that moment.

    Attributes:
        step: of the episode.
        block: index of the block.
        position: of the layer in the block.
        width: the new width.
    """

    step: int
    block: int
    position: int
    width: int


@dataclass(frozen=True)
class Deepen:
    """A layer is put in behind another, as wide as that.

    Attributes:
        step: of the episode.
        block: index of the block.
        position: of the layer behind which it comes.
        kernel: of the new convolution; 0 where there is no choice.
    """

    step: int
    block: int
    position: int
    kernel: int


@dataclass(frozen=True)
class Transformed:
    """The network at the end of an episode.

    Attributes:
        start: the network at its beginning.
        blocks: the resulting layers, by block.
        transforms: how they came about, in order.
        labels: of all layers, separators included, in order.
    """

    start: Start
    blocks: tuple[tuple[Layer, ...], ...]
    transforms: tuple[Widen | Deepen, ...]
    labels: tuple[str, ...]

    def graph(self) -> tuple[tuple[str, ...], tuple[tuple[int, int, str], ...]]:
        """Return node labels and the edges (source, target, "") between them, a chain."""
        nodes = ("input", *self.labels, "output")
        return nodes, tuple((node, node + 1, "") for node in range(len(nodes) - 1))

    def __str__(self) -> str:
        """Return the resulting layers, e.g. ``C16x3 P C32x3 P F256``."""
        return " ".join(self.labels)


@dataclass(frozen=True, slots=True)
class _Progress:
    """How far an episode is.

    Attributes:
        blocks: layers now.
        step: steps finished.
        layer: of a wider step: which layer is asked about, counted over all blocks.
        block: of a deeper step: chosen block.
        position: of a deeper step: chosen layer.
        transforms: so far.
    """

    blocks: tuple[tuple[Layer, ...], ...]
    step: int = 0
    layer: int = 0
    block: int | None = None
    position: int | None = None
    transforms: tuple[Widen | Deepen, ...] = ()


class TransformSpace(SearchSpace):
    """What both variants share: steps that widen, then steps that deepen.

    A wider step asks about every layer in turn whether it takes its next larger width, a deeper step about block,
    position and, where there is a choice, kernel of a new layer. A subclass says how the start network is divided.
    """

    wider: int
    deeper: int
    max_layers: int
    network: str | None
    kinds: ClassVar[int] = 4

    @property
    @abstractmethod
    def start(self) -> Start:
        """The network at the beginning of every episode."""

    @property
    @abstractmethod
    def start_blocks(self) -> tuple[Block, ...]:
        """Its blocks."""

    @property
    @abstractmethod
    def separators(self) -> tuple[tuple[str, ...], ...]:
        """Labels of what comes before each block and behind the last one, one tuple more than there are blocks."""

    def _begin_at(self, network: str, *unused: str) -> None:
        """Note where episodes begin.

        Args:
            network: notation of the start network.
            unused: fields that would describe it otherwise; they take their defaults, so that equal spaces are equal.
        """
        object.__setattr__(self, "network", network)
        for one in dataclasses.fields(self):  # type: ignore[arg-type]
            if one.name in unused:
                object.__setattr__(self, one.name, one.default)

    @property
    def settings(self) -> dict[str, Any]:
        """What the space was made with; a start network only where it grew before, so that older keys stay valid."""
        return {name: value for name, value in super().settings.items() if (name, value) != ("network", None)}

    def _check(self) -> None:
        """Check counts, levels and room.

        Raises:
            InvalidArgument: naming the field.
        """
        for name, least in (("wider", 0), ("deeper", 0), ("max_layers", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidArgument(f"{name} must be an integer of at least {least}, got {value!r}.")
        if self.wider + self.deeper == 0:
            raise InvalidArgument("wider and deeper must not both be 0: an episode needs a transform to decide on.")
        for block in self.start_blocks:
            for layer in block.layers:
                _check_member(f"width of {block.name}", layer.width, block.levels)
                if block.kernels:
                    _check_member(f"kernel of {block.name}", layer.kernel, block.kernels)
        room = sum(max(self.max_layers - len(block.layers), 0) for block in self.start_blocks)
        if room < self.deeper:
            raise InvalidArgument(
                f"deeper = {self.deeper} layers do not fit: with max_layers = {self.max_layers} a block, there is room "
                f"for {room} more. Allow more layers or fewer steps."
            )

    # --- sizes -------------------------------------------------------------------------------------

    @cached_property
    def _start_layers(self) -> tuple[tuple[int, int], ...]:
        """Block and position of every layer of the start network."""
        return tuple(
            (number, position)
            for number, block in enumerate(self.start_blocks)
            for position in range(len(block.layers))
        )

    @cached_property
    def max_length(self) -> int:  # type: ignore[override]
        """Number of decisions of the longest episode."""
        with_kernel = sum(max(self.max_layers - len(b.layers), 0) for b in self.start_blocks if b.kernels)
        return self.wider * len(self._start_layers) + 2 * self.deeper + min(self.deeper, with_kernel)

    @cached_property
    def max_choices(self) -> int:  # type: ignore[override]
        """Largest number of choices of any decision."""
        wider = [len(_WIDER_LABELS)] if self.wider else []
        blocks = self.start_blocks
        deeper = [len(blocks), self.max_layers, *(len(b.kernels) for b in blocks)] if self.deeper else []
        return max(*wider, *deeper, 1)

    @cached_property
    def tokens(self) -> int:
        """Largest number T of layer tokens."""
        return sum(map(len, self.separators)) + len(self._start_layers) + self.deeper

    def size(self) -> int:
        """Return the exact number of encodings."""
        widened = 1
        for number, position in self._start_layers:
            block = self.start_blocks[number]
            levels = len(block.levels) - 1 - block.levels.index(block.layers[position].width)
            widened *= sum(math.comb(self.wider, steps) for steps in range(min(self.wider, levels) + 1))
        factors = tuple(max(len(block.kernels), 1) for block in self.start_blocks)
        return widened * _insertions(
            self.deeper, tuple(len(b.layers) for b in self.start_blocks), factors, self.max_layers
        )

    # --- the grammar -------------------------------------------------------------------------------

    @cached_property
    def _known(self) -> dict[Encoding, _Progress]:
        return {}

    def _progress(self, prefix: Encoding) -> _Progress:
        """Return how far a legal prefix is, from a bounded cache."""
        known = self._known
        behind = len(prefix)
        while behind and prefix[:behind] not in known:
            behind -= 1
        found = known.get(prefix[:behind])
        if found is None:
            found = _Progress(tuple(block.layers for block in self.start_blocks))
            known[()] = found
        for length in range(behind, len(prefix)):
            if len(known) >= _CACHE_LIMIT:
                known.clear()
            found = known[prefix[: length + 1]] = self._follow(found, prefix[length])
        return found

    def _due(self, progress: _Progress) -> Decision | None:
        """Return the next decision."""
        if progress.step < self.wider:
            number, position = self._start_layers[progress.layer]
            wider = self.start_blocks[number].wider(progress.blocks[number][position].width) is not None
            return self._decision(WIDER, _WIDER_LABELS, (True, wider))
        if progress.step >= self.wider + self.deeper:
            return None
        if progress.block is None:
            room = (len(layers) < self.max_layers for layers in progress.blocks)
            return self._decision(BLOCK, tuple(block.name for block in self.start_blocks), tuple(room))
        if progress.position is None:
            there = len(progress.blocks[progress.block])
            labels = tuple(f"after{position + 1}" for position in range(self.max_layers))
            return self._decision(POSITION, labels, tuple(position < there for position in range(self.max_layers)))
        kernels = self.start_blocks[progress.block].kernels
        return self._decision(KERNEL, tuple(f"{kernel}x{kernel}" for kernel in kernels), (True,) * len(kernels))

    def _decision(self, kind: int, labels: tuple[str, ...], legal: tuple[bool, ...]) -> Decision:
        mask = (*legal, *((False,) * (self.max_choices - len(legal))))
        return Decision(kind, labels, kind in (POSITION, KERNEL), mask)

    def _follow(self, progress: _Progress, choice: int) -> _Progress:
        """Return how far the episode is behind a choice; an illegal one changes nothing."""
        due = self._due(progress)
        if due is None or not due.mask[choice]:
            return progress
        if due.kind == WIDER:
            return self._decided_width(progress, bool(choice))
        if due.kind == BLOCK:
            return replace(progress, block=choice)
        if due.kind == POSITION:
            chosen = replace(progress, position=choice)
            return chosen if self.start_blocks[progress.block or 0].kernels else self._inserted(chosen, 0)
        return self._inserted(progress, self.start_blocks[progress.block or 0].kernels[choice])

    def _decided_width(self, progress: _Progress, wider: bool) -> _Progress:
        number, position = self._start_layers[progress.layer]
        last = progress.layer + 1 == len(self._start_layers)
        step, layer = (progress.step + 1, 0) if last else (progress.step, progress.layer + 1)
        blocks, transforms = progress.blocks, progress.transforms
        if wider:
            old = blocks[number][position]
            width = self.start_blocks[number].wider(old.width) or old.width
            layers = (*blocks[number][:position], replace(old, width=width), *blocks[number][position + 1 :])
            blocks = (*blocks[:number], layers, *blocks[number + 1 :])
            transforms = (*transforms, Widen(progress.step, number, position, width))
        return _Progress(blocks, step, layer, transforms=transforms)

    def _inserted(self, progress: _Progress, kernel: int) -> _Progress:
        number, position = progress.block or 0, progress.position or 0
        layers = progress.blocks[number]
        layers = (*layers[: position + 1], Layer(layers[position].width, kernel), *layers[position + 1 :])
        blocks = (*progress.blocks[:number], layers, *progress.blocks[number + 1 :])
        transforms = (*progress.transforms, Deepen(progress.step, number, position, kernel))
        return _Progress(blocks, progress.step + 1, transforms=transforms)

    def decision(self, prefix: Encoding) -> Decision | None:
        """Return whether the next layer grows, or the block, position or kernel of a new one."""
        return self._due(self._progress(tuple(prefix)))

    def decode(self, encoding: Encoding) -> Transformed:
        """Return the resulting layers and the transforms that lead to them.

        Raises:
            InvalidEncoding: `encoding` is not a complete legal sequence of decisions.
        """
        progress = self._progress(self.validate(encoding))
        return Transformed(self.start, progress.blocks, progress.transforms, self._labels(progress.blocks))

    def _labels(self, blocks: Sequence[Sequence[Layer]]) -> tuple[str, ...]:
        """Return the labels of all layers in order."""
        return tuple(
            self._interleaved([[f"{b.sort}{x}" for x in xs] for b, xs in zip(self.start_blocks, blocks, strict=True)])
        )

    def _interleaved(self, blocks: Sequence[Sequence[str]]) -> Iterator[str]:
        for before, layers in itertools.zip_longest(self.separators, blocks, fillvalue=()):
            yield from before
            yield from layers

    # --- what a learner sees -----------------------------------------------------------------------

    @property
    def observation_nvec(self) -> npt.NDArray[np.int64]:
        """Number of values of each feature, shape [K]: step, layer asked about, block, position, T layer tokens."""
        steps, blocks = self.wider + self.deeper + 1, len(self.start_blocks) + 1
        return np.array([steps, self.tokens + 1, blocks, self.max_layers + 1, *([self._codes] * self.tokens)], np.int64)

    @cached_property
    def _codes(self) -> int:
        """Number of layer tokens that exist; 0 is padding and 1 a separator."""
        return max(b.code + len(b.levels) * max(len(b.kernels), 1) for b in self.start_blocks)

    def observe(self, prefixes: Prefixes, lengths: Lengths) -> npt.NDArray[np.int64]:
        """Return the network as it is now, shape [N, K].

        The features are: steps finished; token of the layer that the decision is about plus one, 0 where it is about
        none; in a deeper step the chosen block plus one and the chosen position plus one; then a token per layer, 0
        beyond the last.
        """
        rows = [self._seen(self._progress(row)) for row in self.rows(prefixes, lengths)]
        return np.array(rows, np.int64).reshape(len(rows), _QUESTIONS + self.tokens)

    def _seen(self, progress: _Progress) -> list[int]:
        tokens: list[int] = []
        for before, block, layers in itertools.zip_longest(self.separators, self.start_blocks, progress.blocks):
            tokens += [1] * len(before)
            tokens += [block.token(layer) for layer in layers or ()]
        asked = self._asked(progress)
        question = [
            progress.step,
            0 if asked is None else asked + 1,
            0 if progress.block is None else progress.block + 1,
            0 if progress.position is None else progress.position + 1,
        ]
        return question + tokens + [0] * (self.tokens - len(tokens))

    def _asked(self, progress: _Progress) -> int | None:
        """Return the index of the token of the layer that the next decision is about."""
        if progress.step < self.wider:
            number, position = self._start_layers[progress.layer]
        elif progress.block is not None and progress.position is not None:
            number, position = progress.block, progress.position
        else:
            return None
        before = sum(map(len, self.separators[: number + 1])) + sum(map(len, progress.blocks[:number]))
        return before + position

    def focus(self, prefix: Encoding) -> int | None:
        """Return which observed feature the next decision is about: a layer's token, None = the whole network."""
        asked = self._asked(self._progress(tuple(prefix)))
        return None if asked is None else _QUESTIONS + asked

    # --- identity ----------------------------------------------------------------------------------

    def canonical(self, encoding: Encoding) -> Encoding:
        """Return the first of all encodings that lead to the same layers, with their widening as early as possible."""
        progress = self._progress(self.validate(encoding))
        levels: dict[tuple[int, int], int] = {}
        insertions: list[int] = []
        for number, (block, layers) in enumerate(zip(self.start_blocks, progress.blocks, strict=True)):
            places = self._places(block, layers)
            for position, place in enumerate(places):
                start = block.layers[position].width
                levels[number, position] = block.levels.index(layers[place].width) - block.levels.index(start)
            for place, layer in enumerate(layers):
                if place not in places:
                    kernel = [block.kernels.index(layer.kernel)] if block.kernels else []
                    insertions += [number, place - 1, *kernel]
        bits = (int(step < levels[where]) for step in range(self.wider) for where in self._start_layers)
        return (*bits, *insertions)

    def _places(self, block: Block, layers: Sequence[Layer]) -> tuple[int, ...]:
        """Return where the layers of the start may be among the resulting ones: the first way that fits."""
        behind = itertools.combinations(range(1, len(layers)), len(block.layers) - 1)
        return next(places for rest in behind if self._fits(block, layers, places := (0, *rest)))

    def _fits(self, block: Block, layers: Sequence[Layer], places: Sequence[int]) -> bool:
        """Tell whether widening the start and putting in all others gives these layers."""
        for place, end, start in zip(places, (*places[1:], len(layers)), block.layers, strict=True):
            layer = layers[place]
            grown = block.levels.index(layer.width) - block.levels.index(start.width)
            if layer.kernel != start.kernel or not 0 <= grown <= self.wider:
                return False
            if any(other.width != layer.width for other in layers[place:end]):
                return False
        return True


@functools.lru_cache(maxsize=4096)
def _insertions(steps: int, counts: tuple[int, ...], factors: tuple[int, ...], most: int) -> int:
    """Return in how many ways layers can be put into blocks of so many."""
    if steps == 0:
        return 1
    return sum(
        count * factor * _insertions(steps - 1, (*counts[:b], count + 1, *counts[b + 1 :]), factors, most)
        for b, (count, factor) in enumerate(zip(counts, factors, strict=True))
        if count < most
    )


def _check_member(what: str, value: int, allowed: Sequence[int]) -> None:
    if value not in allowed:
        raise InvalidArgument(f"the {what} is {value}, allowed are the levels {', '.join(map(str, allowed))}.")
