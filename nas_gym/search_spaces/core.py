"""What a search space is: a grammar over integer decisions, written once, and all that follows from it.

Dimension letters: N rows of a batch, L = `max_length`, C = `max_choices`, K features of an observation.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import index, mul
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidEncoding

Encoding: TypeAlias = tuple[int, ...]
"""The decisions taken, in order. It identifies an architecture inside its search space."""

Prefixes: TypeAlias = npt.NDArray[np.int64]
"""Decisions taken so far, one row each, shape [N, L]; entries at and beyond the row's length are 0."""

Lengths: TypeAlias = npt.NDArray[np.int64]
"""Number of decisions taken, shape [N]."""


@dataclass(frozen=True)
class Decision:
    """One point of the grammar where a choice is due.

    Attributes:
        kind: which sort of decision it is; a controller keeps one output head per kind.
        labels: names of the choices, at most C of them.
        ordered: whether neighbouring choices are similar (a kernel size is, an operation is not).
        mask: which choices are legal here, shape [C]; at least one is.
    """

    kind: int
    labels: tuple[str, ...]
    ordered: bool
    mask: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Junction:
    """What follows a prefix, in the forms that a step needs.

    Attributes:
        mask: bool [C], which choices are legal; all of them when the architecture is complete.
        mask_int8: the same as int8, as `info` has it.
        legal: the same as Python booleans.
        complete: whether no decision is left.
        kind: kind of the decision that is due, 0 where none is.
        following: the junction behind every choice, where it is the same for all; else None.
    """

    mask: npt.NDArray[np.bool_]
    mask_int8: npt.NDArray[np.int8]
    legal: list[bool]
    complete: bool
    kind: int
    following: Junction | None = None

    @classmethod
    def of(cls, decision: Decision | None, choices: int, following: Junction | None = None) -> Junction:
        """Build all forms of a decision's mask, read-only.

        Args:
            decision: the next decision, None after the last.
            choices: C.
            following: the junction behind every choice, if there is one for all.
        """
        array = np.ones(choices, np.bool_)
        if decision is not None:
            array[:] = decision.mask
        array.flags.writeable = False
        kind = decision.kind if decision else 0
        return cls(array, array.view(np.int8), array.tolist(), decision is None, kind, following)


_CACHE_LIMIT = 200_000


@dataclass(frozen=True)
class Sketch:
    """A drawable graph.

    What is not decided yet is labelled ``"?"``, and a node keeps its index while decisions are added: what a decision
    drew is found by comparing the sketches before and behind it.

    Attributes:
        nodes: labels of the nodes, in topological order.
        edges: (source, target, label) with indices into `nodes`.
    """

    nodes: tuple[str, ...]
    edges: tuple[tuple[int, int, str], ...]


class SearchSpace(ABC):
    """A set of architectures, given by a grammar. Frozen; knows neither torch nor data nor metrics.

    A subclass defines `name`, `max_length`, `max_choices`, `decision` and `decode`; everything else is
    derived and may be overridden for speed or for the published notation. Instances must be hashable
    values (a frozen dataclass), since encodings, tables and caches are keyed by them.
    """

    name: ClassVar[str]
    max_length: int
    max_choices: int
    kinds: ClassVar[int] = 1
    """Number of kinds of decisions; `Decision.kind` runs from 0 to kinds - 1."""

    @property
    def settings(self) -> dict[str, Any]:
        """What the space was made with, as JSON values; ``SEARCH_SPACES[name](**settings)`` makes an equal one."""
        if not dataclasses.is_dataclass(self):
            return {}
        return json.loads(json.dumps({field.name: getattr(self, field.name) for field in dataclasses.fields(self)}))

    @property
    def signature(self) -> str:
        """Name and settings as text: the same encoding means another architecture under another signature."""
        settings = ",".join(
            f"{name}={json.dumps(value, separators=(',', ':'))}" for name, value in self.settings.items()
        )
        return f"{self.name}({settings})" if settings else self.name

    # --- the grammar -------------------------------------------------------------------------------

    @abstractmethod
    def decision(self, prefix: Encoding) -> Decision | None:
        """Return the next decision after `prefix`, or None when the architecture is complete."""

    @abstractmethod
    def decode(self, encoding: Encoding) -> Any:  # noqa: ANN401 - each space has its own dataclass
        """Return the space's own frozen dataclass for a complete encoding; it offers ``graph()``.

        Raises:
            InvalidEncoding: `encoding` is not a complete legal sequence of decisions.
        """

    def graph_size(self, encoding: Encoding) -> tuple[int, int]:
        """Return the numbers of nodes and edges of an architecture's graph, as its paper counts them.

        Raises:
            InvalidEncoding: `encoding` is not an architecture of this space.
        """
        nodes, edges = self.decode(encoding).graph()
        return len(nodes), len(edges)

    def is_complete(self, prefix: Encoding) -> bool:
        """Tell whether no decision is left after `prefix`."""
        return self.decision(prefix) is None

    def sketch(self, prefix: Encoding) -> Sketch:
        """Return what to draw of a finished or unfinished architecture: by default its decisions as a chain."""
        decisions = (self.decision(prefix[:position]) for position in range(len(prefix)))
        labels = tuple(
            decision.labels[value] for decision, value in zip(decisions, prefix, strict=True) if decision is not None
        )
        chain = tuple((node, node + 1, "") for node in range(len(labels) + 1))
        return Sketch(("input", *labels, "output" if self.is_complete(prefix) else "?"), chain)

    def validate(self, encoding: Sequence[int]) -> Encoding:
        """Return `encoding` as a tuple of Python ints after checking it against the grammar.

        Raises:
            InvalidEncoding: naming the first decision that is wrong.
        """
        try:
            values = tuple(map(index, encoding))
        except TypeError:
            raise InvalidEncoding(
                f"{encoding!r} is not an encoding of {self.name}: expected a sequence of integers."
            ) from None
        for position, value in enumerate(values):
            decision = self.decision(values[:position])
            if decision is None:
                raise InvalidEncoding(
                    f"{values} is not an encoding of {self.name}: it is complete after {position} decisions, "
                    f"but {len(values)} were given."
                )
            if not 0 <= value < len(decision.labels) or not decision.mask[value]:
                legal = [choice for choice, allowed in enumerate(decision.mask) if allowed]
                raise InvalidEncoding(
                    f"{values} is not an encoding of {self.name}: decision {position} is {value}, allowed are {legal}."
                )
        if self.decision(values) is not None:
            raise InvalidEncoding(
                f"{values} is not an encoding of {self.name}: it ends after {len(values)} decisions, more are due."
            )
        return values

    # --- the grammar in arrays ---------------------------------------------------------------------

    @cached_property
    def _junctions(self) -> dict[Encoding, Junction]:
        return {}

    def junction(self, prefix: Encoding) -> Junction:
        """Return what comes after `prefix`, from a bounded cache; its arrays are shared and read-only."""
        cache = self._junctions
        found = cache.get(prefix)
        if found is None:
            if len(cache) >= _CACHE_LIMIT:
                cache.clear()
            found = cache[prefix] = Junction.of(self.decision(prefix), self.max_choices)
        return found

    def masks(self, prefixes: Prefixes, lengths: Lengths) -> npt.NDArray[np.bool_]:
        """Return the legal choices of every row, shape [N, C]; all True in complete rows."""
        rows = [self.junction(prefix).mask for prefix in self.rows(prefixes, lengths)]
        return np.stack(rows) if rows else np.ones((0, self.max_choices), np.bool_)

    def complete(self, prefixes: Prefixes, lengths: Lengths) -> npt.NDArray[np.bool_]:
        """Return which rows are complete, shape [N]."""
        return np.array([self.junction(row).complete for row in self.rows(prefixes, lengths)], np.bool_)

    def rows(self, prefixes: Prefixes, lengths: Lengths) -> list[Encoding]:
        """Return the rows of a batch as tuples of Python ints."""
        return [
            tuple(row[:length])
            for row, length in zip(np.asarray(prefixes).tolist(), np.asarray(lengths).tolist(), strict=True)
        ]

    def pack(self, encodings: Sequence[Encoding]) -> tuple[Prefixes, Lengths]:
        """Return tuples of decisions as padded arrays, the inverse of `rows`."""
        prefixes = np.zeros((len(encodings), self.max_length), np.int64)
        lengths = np.fromiter((len(encoding) for encoding in encodings), np.int64, len(encodings))
        for row, encoding in zip(prefixes, encodings, strict=True):
            row[: len(encoding)] = encoding
        return prefixes, lengths

    # --- what a learner sees -----------------------------------------------------------------------

    @property
    def observation_nvec(self) -> npt.NDArray[np.int64]:
        """Number of values of each observed feature, shape [K]."""
        return np.full(self.max_length, self.max_choices + 1, np.int64)

    def observe(self, prefixes: Prefixes, lengths: Lengths) -> npt.NDArray[np.int64]:
        """Return what a learner sees, shape [N, K]: the padded prefix plus one, 0 = not decided yet."""
        observations = np.asarray(prefixes) + 1
        observations *= self._decided.take(lengths, axis=0)
        return observations

    @cached_property
    def _decided(self) -> npt.NDArray[np.int64]:
        """1 where a prefix of the row's length has a decision, shape [L + 1, L]."""
        return np.tri(self.max_length + 1, self.max_length, -1, dtype=np.int64)

    @cached_property
    def observes_prefix(self) -> bool:
        """Whether `observe` is the plain padded prefix, which an environment can keep up step by step."""
        return type(self).observe is SearchSpace.observe

    @property
    def states_nvec(self) -> npt.NDArray[np.int64]:
        """Number of values of each feature of `states`, shape [S]."""
        return self.observation_nvec

    @property
    def publishes_states(self) -> bool:
        """Whether `states` is more than the observation: what a published agent sees."""
        return type(self).states is not SearchSpace.states

    def states(self, prefixes: Prefixes, lengths: Lengths) -> npt.NDArray[np.int64]:
        """Return the published agent's own state, shape [N, S]; the observation where none is published."""
        return self.observe(prefixes, lengths)

    def focus(self, prefix: Encoding) -> int | None:
        """Return which observed feature the next decision is about, None = no single one."""
        return None

    # --- notation and identity ---------------------------------------------------------------------

    def to_string(self, encoding: Encoding) -> str:
        """Return the published notation of an architecture.

        Raises:
            InvalidEncoding: `encoding` is not an architecture of this space.
        """
        encoding = self.validate(encoding)
        decisions = (self.decision(encoding[:position]) for position in range(len(encoding)))
        return " ".join(
            decision.labels[value] for decision, value in zip(decisions, encoding, strict=True) if decision is not None
        )

    def from_string(self, text: str) -> Encoding:
        """Return the encoding of a notation, the inverse of `to_string`.

        Raises:
            InvalidEncoding: naming the first token that is wrong.
        """
        prefix: Encoding = ()
        for token in text.split():
            decision = self.decision(prefix)
            if decision is None or token not in decision.labels:
                allowed = "nothing, the architecture is complete" if decision is None else ", ".join(decision.labels)
                raise InvalidEncoding(f"{text!r}: token {len(prefix)} is {token!r}, allowed: {allowed}.")
            prefix = (*prefix, decision.labels.index(token))
        return self.validate(prefix)

    def canonical(self, encoding: Encoding) -> Encoding:
        """Return the representative of the architecture's isomorphism class."""
        return self.validate(encoding)

    @cached_property
    def _code_is_exact(self) -> bool:
        return self.max_length * math.log2(self.max_choices + 1) < 63

    def code(self, encoding: Encoding) -> int:
        """Return an integer that identifies the encoding: exact in 63 bits, else a 128-bit hash."""
        if self._code_is_exact:
            value = 0
            for choice in encoding:
                value = value * (self.max_choices + 1) + choice + 1
            return value
        return self.hashed_code(encoding)

    def hashed_code(self, encoding: Encoding) -> int:
        """Return a 128-bit hash of an encoding, for spaces too large for exact codes."""
        digest = hashlib.blake2b(repr(tuple(encoding)).encode(), digest_size=16, person=b"nas-gym code")
        return int.from_bytes(digest.digest(), "big")

    def codes(self, prefixes: Prefixes, lengths: Lengths) -> npt.NDArray[Any]:
        """Return the codes of complete rows, shape [N]: int64 where they fit, else Python integers."""
        codes = [self.code(row) for row in self.rows(prefixes, lengths)]
        return np.array(codes, np.int64 if self._code_is_exact else object)

    def size(self) -> int | None:
        """Return the exact number of encodings, or None where they cannot be counted."""
        return sum(1 for _ in self.enumerate())

    # --- moving around -----------------------------------------------------------------------------

    def sample(self, rng: np.random.Generator) -> Encoding:
        """Return an architecture drawn by a uniform choice at every decision.

        Uniform over the encodings where all have the same choices; elsewhere it favours short ones.
        """
        prefix: Encoding = ()
        while (decision := self.decision(prefix)) is not None:
            legal = [choice for choice, allowed in enumerate(decision.mask) if allowed]
            prefix = (*prefix, legal[int(rng.integers(len(legal)))])
        return prefix

    def draw_probabilities(self, batch: Batch) -> npt.NDArray[np.float64]:
        """Return how probable each complete row is under `sample`, shape [N]."""
        return np.array(
            [
                math.prod(1 / sum(self.junction(row[:position]).legal) for position in range(len(row)))
                for row in self.rows(batch.prefixes, batch.lengths)
            ],
            np.float64,
        )

    def enumerate(self) -> Iterator[Encoding]:
        """Iterate over all encodings in lexicographic order of the decisions."""
        stack: list[Encoding] = [()]
        while stack:
            prefix = stack.pop()
            decision = self.decision(prefix)
            if decision is None:
                yield prefix
            else:
                legal = [choice for choice, allowed in enumerate(decision.mask) if allowed]
                stack.extend((*prefix, choice) for choice in reversed(legal))

    def neighbours(self, encoding: Encoding) -> list[Encoding]:
        """Return the architectures one changed decision away, without duplicates, in a fixed order.

        Later decisions are kept while they are legal; where one is not, the first legal choice takes its
        place, and decisions that become due at the end take their first legal choice.
        """
        encoding = self.validate(encoding)
        changed = (self._replace(encoding, position, choice) for position, choice in self._substitutions(encoding))
        return list(dict.fromkeys(changed))

    def mutate(self, encoding: Encoding, rng: np.random.Generator) -> Encoding:
        """Return one of the `neighbours`: a uniform changeable position, then a uniform other choice."""
        encoding = self.validate(encoding)
        choices: dict[int, list[int]] = {}
        for position, choice in self._substitutions(encoding):
            choices.setdefault(position, []).append(choice)
        if not choices:
            raise InvalidEncoding(
                f"{encoding} has no neighbours in {self.name}: no decision has a second legal choice."
            )
        positions = sorted(choices)
        position = positions[int(rng.integers(len(positions)))]
        options = choices[position]
        return self._replace(encoding, position, options[int(rng.integers(len(options)))])

    def _substitutions(self, encoding: Encoding) -> Iterator[tuple[int, int]]:
        for position, current in enumerate(encoding):
            decision = self.decision(encoding[:position])
            if decision is None:
                return
            for choice, allowed in enumerate(decision.mask):
                if allowed and choice != current:
                    yield position, choice

    def _replace(self, encoding: Encoding, position: int, choice: int) -> Encoding:
        prefix = (*encoding[:position], choice)
        while (decision := self.decision(prefix)) is not None:
            kept = encoding[len(prefix)] if len(prefix) < len(encoding) else None
            if kept is None or kept >= len(decision.mask) or not decision.mask[kept]:
                kept = decision.mask.index(True)
            prefix = (*prefix, kept)
        return prefix

    # --- whole batches -----------------------------------------------------------------------------

    @property
    def dense(self) -> bool:
        """Whether codes run from 0 to ``size() - 1``, few enough and cheap enough to index arrays by them."""
        return False

    def canonical_codes(self, batch: Batch) -> npt.NDArray[Any]:
        """Return the code of every complete row's canonical encoding, shape [N]."""
        codes = [self.code(self.canonical(row)) for row in self.rows(batch.prefixes, batch.lengths)]
        return np.array(codes, np.int64 if self._code_is_exact else object)

    def encodings(self, batch: Batch) -> npt.NDArray[np.object_]:
        """Return the rows as an object array of tuples, shape [N]."""
        prefixes, lengths = batch.prefixes, batch.lengths
        result = np.empty(len(lengths), dtype=object)
        result[:] = self.rows(prefixes, lengths)
        return result


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of decisions with their codes, which are computed once, when first asked for.

    Attributes:
        space: the search space.
        prefixes: int64 [N, L].
        lengths: int64 [N].
    """

    space: SearchSpace
    prefixes: Prefixes
    lengths: Lengths

    @classmethod
    def of(cls, space: SearchSpace, encodings: Sequence[Encoding]) -> Batch:
        """Build a batch from tuples."""
        return cls(space, *space.pack(encodings))

    def __len__(self) -> int:
        """Return N."""
        return len(self.lengths)

    @cached_property
    def codes(self) -> npt.NDArray[Any]:
        """Codes of the rows, which must be complete, shape [N]."""
        return self.space.codes(self.prefixes, self.lengths)

    def select(self, rows: slice | npt.NDArray[Any]) -> Batch:
        """Return some of the rows."""
        return Batch(self.space, self.prefixes[rows], self.lengths[rows])


class FixedSlotSpace(SearchSpace):
    """A search space whose every architecture answers the same decisions, all choices always legal.

    A subclass defines `name` and `slots`. Codes are the mixed-radix number of the decisions, so they
    run from 0 to ``size() - 1`` in the order of `enumerate`.
    """

    @property
    @abstractmethod
    def slots(self) -> tuple[Decision, ...]:
        """The decisions, in order; their masks allow exactly their labels."""

    @cached_property
    def max_length(self) -> int:  # type: ignore[override]
        """Number of decisions."""
        return len(self.slots)

    @cached_property
    def max_choices(self) -> int:  # type: ignore[override]
        """Largest number of choices of any decision."""
        return max(len(slot.labels) for slot in self.slots)

    @cached_property
    def arities(self) -> tuple[int, ...]:
        """Number of choices of every decision."""
        return tuple(len(slot.labels) for slot in self.slots)

    @cached_property
    def _radices(self) -> npt.NDArray[np.int64]:
        return np.array([math.prod(self.arities[position + 1 :]) for position in range(self.max_length)], np.int64)

    @cached_property
    def _mask_rows(self) -> npt.NDArray[np.bool_]:
        rows = np.ones((self.max_length + 1, self.max_choices), np.bool_)
        for row, slot in zip(rows, self.slots, strict=False):
            row[:] = slot.mask
        rows.flags.writeable = False
        return rows

    def decision(self, prefix: Encoding) -> Decision | None:
        """Return the next slot."""
        return self.slots[len(prefix)] if len(prefix) < self.max_length else None

    def masks(self, prefixes: Prefixes, lengths: Lengths) -> npt.NDArray[np.bool_]:
        """Return the legal choices of every row, shape [N, C]."""
        if self._always_legal:
            return np.ones((len(lengths), self.max_choices), np.bool_)
        return self._mask_rows.take(lengths, axis=0)

    @cached_property
    def _always_legal(self) -> bool:
        return bool(self._mask_rows.all())

    @cached_property
    def _slot_junctions(self) -> list[Junction]:
        junctions = [Junction.of(None, self.max_choices)]
        for slot in reversed(self.slots):
            junctions.insert(0, Junction.of(slot, self.max_choices, following=junctions[0]))
        return junctions

    def junction(self, prefix: Encoding) -> Junction:
        """Return what comes after `prefix`; it depends on the length alone."""
        return self._slot_junctions[len(prefix)]

    def complete(self, prefixes: Prefixes, lengths: Lengths) -> npt.NDArray[np.bool_]:
        """Return which rows are complete, shape [N]."""
        return np.asarray(lengths) >= self.max_length

    def is_complete(self, prefix: Encoding) -> bool:
        """Tell whether all slots are decided."""
        return len(prefix) >= self.max_length

    @property
    def observation_nvec(self) -> npt.NDArray[np.int64]:
        """Number of values of each slot, plus one for "not decided yet", shape [L]."""
        return np.array(self.arities, np.int64) + 1

    def code(self, encoding: Encoding) -> int:
        """Return the position of the encoding in `enumerate`."""
        if len(encoding) != self.max_length:
            raise InvalidEncoding(f"{encoding} is no encoding of {self.name}: expected {self.max_length} decisions.")
        return sum(map(mul, encoding, self._place_values))

    @cached_property
    def _place_values(self) -> list[int]:
        return self._radices.tolist()

    def codes(self, prefixes: Prefixes, lengths: Lengths) -> npt.NDArray[np.int64]:
        """Return the codes of complete rows, shape [N]."""
        if self.dense:
            # NumPy multiplies integers without BLAS; float32 is exact below 2 ** 24, which dense codes are.
            return (np.asarray(prefixes, np.float32) @ self._radices.astype(np.float32)).astype(np.int64)
        return np.asarray(prefixes) @ self._radices

    def size(self) -> int:
        """Return the exact number of encodings."""
        return math.prod(self.arities)

    def enumerate(self) -> Iterator[Encoding]:
        """Iterate over all encodings in the order of their codes."""
        return itertools.product(*(range(arity) for arity in self.arities))

    @property
    def dense(self) -> bool:
        """Whether there are at most four million encodings."""
        return self.size() <= 1 << 22

    @cached_property
    def all_encodings(self) -> npt.NDArray[np.object_]:
        """Every encoding as a tuple, at the index of its code; only sensible in dense spaces."""
        result = np.empty(self.size(), dtype=object)
        result[:] = list(self.enumerate())
        return result

    def encodings(self, batch: Batch) -> npt.NDArray[np.object_]:
        """Return the rows as an object array of tuples, shape [N]."""
        if self.dense and len(batch) and int(np.min(batch.lengths)) == self.max_length:
            return self.all_encodings.take(batch.codes)
        return super().encodings(batch)
