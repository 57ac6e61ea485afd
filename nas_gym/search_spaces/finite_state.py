"""Grammars whose next decision depends on a state that takes finitely many values, as the published chains do.

Knowing all states makes masks array look-ups and the number of architectures, their ranks and uniform draws exact.

Dimension letters: N rows of a batch, L = `max_length`, C = `max_choices`, S states.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import index
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidEncoding
from nas_gym.search_spaces.core import Batch, Decision, Encoding, Junction, Lengths, Prefixes, SearchSpace

_LARGEST_RANK = 2**63 - 1
_LARGEST_DENSE = 1 << 22


@dataclass(frozen=True, eq=False)
class Automaton:
    """All reachable states of a grammar, numbered from the start, which is 0.

    Attributes:
        states: the states themselves.
        decisions: what is due in each, None in a final one.
        masks: bool [S, C], legal choices; all True in final states.
        following: int64 [S, C], number of the next state; the state itself for illegal choices.
        final: bool [S].
        sizes: number of complete encodings behind each state.
    """

    states: tuple[Hashable, ...]
    decisions: tuple[Decision | None, ...]
    masks: npt.NDArray[np.bool_]
    following: npt.NDArray[np.int64]
    final: npt.NDArray[np.bool_]
    sizes: tuple[int, ...]


class FiniteStateSpace(SearchSpace):
    """A search space whose grammar is a finite automaton without cycles.

    A subclass defines `name`, `max_length`, `max_choices`, `start`, `decision_at` and `follow`, and `decode`. Codes
    are ranks in the order of `enumerate` where they fit into 63 bits, else hashes.
    """

    @property
    @abstractmethod
    def start(self) -> Hashable:
        """The state before the first decision."""

    @abstractmethod
    def decision_at(self, state: Any) -> Decision | None:  # noqa: ANN401 - each space has its own states
        """Return what is due in a state, None when the architecture is complete."""

    @abstractmethod
    def follow(self, state: Any, choice: int) -> Hashable:  # noqa: ANN401 - each space has its own states
        """Return the state behind a legal choice."""

    # --- the automaton -----------------------------------------------------------------------------

    @cached_property
    def automaton(self) -> Automaton:
        """All reachable states; found once, when first needed."""
        numbers: dict[Hashable, int] = {self.start: 0}
        states: list[Hashable] = [self.start]
        decisions: list[Decision | None] = []
        edges: list[dict[int, int]] = []
        for state in states:  # The list grows while it is read.
            decision = self.decision_at(state)
            targets: dict[int, int] = {}
            for choice, legal in enumerate(decision.mask) if decision is not None else ():
                if legal:
                    target = self.follow(state, choice)
                    if target not in numbers:
                        numbers[target] = len(states)
                        states.append(target)
                    targets[choice] = numbers[target]
            decisions.append(decision)
            edges.append(targets)
        count = len(states)
        masks = np.ones((count, self.max_choices), np.bool_)
        following = np.repeat(np.arange(count)[:, None], self.max_choices, axis=1)
        for row, (decision, targets) in enumerate(zip(decisions, edges, strict=True)):
            if decision is not None:
                masks[row] = decision.mask
            for choice, target in targets.items():
                following[row, choice] = target
        final = np.array([decision is None for decision in decisions], np.bool_)
        return Automaton(tuple(states), tuple(decisions), masks, following, final, _sizes(edges))

    @cached_property
    def _next(self) -> list[list[int]]:
        return self.automaton.following.tolist()

    def state(self, prefix: Encoding) -> int:
        """Return the number of the state behind a legal prefix."""
        number = 0
        for choice in prefix:
            number = self._next[number][choice]
        return number

    def state_numbers(self, prefixes: Prefixes, lengths: Lengths) -> npt.NDArray[np.int64]:
        """Return the number of the state behind every legal prefix, shape [N]."""
        numbers = np.zeros(len(lengths), np.int64)
        flat = self.automaton.following.reshape(-1)
        for position in range(int(np.max(lengths, initial=0))):
            moved = flat.take(numbers * self.max_choices + prefixes[:, position])
            numbers = np.where(position < lengths, moved, numbers)
        return numbers

    # --- the grammar -------------------------------------------------------------------------------

    def decision(self, prefix: Encoding) -> Decision | None:
        """Return the next decision after a legal prefix."""
        return self.automaton.decisions[self.state(prefix)]

    @cached_property
    def _state_junctions(self) -> dict[int, Junction]:
        return {}

    def junction(self, prefix: Encoding) -> Junction:
        """Return what comes after `prefix`; it depends on the state alone."""
        number = self.state(prefix)
        found = self._state_junctions.get(number)
        if found is None:
            decision = self.automaton.decisions[number]
            found = self._state_junctions[number] = Junction.of(decision, self.max_choices)
        return found

    def masks(self, prefixes: Prefixes, lengths: Lengths) -> npt.NDArray[np.bool_]:
        """Return the legal choices of every row, shape [N, C]; all True in complete rows."""
        return self.automaton.masks.take(self.state_numbers(prefixes, lengths), axis=0)

    def complete(self, prefixes: Prefixes, lengths: Lengths) -> npt.NDArray[np.bool_]:
        """Return which rows are complete, shape [N]."""
        return self.automaton.final.take(self.state_numbers(prefixes, lengths))

    def validate(self, encoding: Sequence[int]) -> Encoding:
        """Return `encoding` as a tuple of Python ints after checking it against the grammar.

        Raises:
            InvalidEncoding: naming the first decision that is wrong.
        """
        try:
            values = tuple(map(index, encoding))
        except TypeError:
            return super().validate(encoding)  # It says what is wrong.
        number = 0
        for choice in values:
            if not 0 <= choice < self.max_choices or not self._legal[number][choice]:
                return super().validate(values)
            number = self._next[number][choice]
        return values if self._final[number] else super().validate(values)

    @cached_property
    def _legal(self) -> list[list[bool]]:
        """Legal choices of every state; none where the architecture is complete."""
        return (self.automaton.masks & ~self.automaton.final[:, None]).tolist()

    @cached_property
    def _final(self) -> list[bool]:
        return self.automaton.final.tolist()

    # --- counting ----------------------------------------------------------------------------------

    def size(self) -> int:
        """Return the exact number of encodings, which may exceed 64 bits."""
        return self.automaton.sizes[0]

    @property
    def dense(self) -> bool:
        """Whether there are at most four million encodings."""
        return self.size() <= _LARGEST_DENSE

    @cached_property
    def _code_is_exact(self) -> bool:
        return self.size() <= _LARGEST_RANK

    @cached_property
    def _before(self) -> npt.NDArray[np.int64]:
        """Number of encodings that branch off a state before each choice, shape [S, C]."""
        sizes = np.array(self.automaton.sizes, np.int64)
        behind = np.where(self.automaton.masks & ~self.automaton.final[:, None], sizes[self.automaton.following], 0)
        return np.cumsum(behind, axis=1) - behind

    @cached_property
    def _before_lists(self) -> list[list[int]]:
        return self._before.tolist()

    def code(self, encoding: Encoding) -> int:
        """Return the position of the encoding in `enumerate` where that fits into 63 bits, else a 128-bit hash."""
        if not self._code_is_exact:
            return self.hashed_code(encoding)
        number, rank = 0, 0
        for choice in encoding:
            rank += self._before_lists[number][choice]
            number = self._next[number][choice]
        if not self.automaton.final[number]:
            raise InvalidEncoding(f"{encoding} is no encoding of {self.name}: it is not complete.")
        return rank

    def codes(self, prefixes: Prefixes, lengths: Lengths) -> npt.NDArray[Any]:
        """Return the codes of complete rows, shape [N]."""
        if not self._code_is_exact:
            return super().codes(prefixes, lengths)
        numbers = np.zeros(len(lengths), np.int64)
        ranks = np.zeros(len(lengths), np.int64)
        before, following = self._before.reshape(-1), self.automaton.following.reshape(-1)
        for position in range(int(np.max(lengths, initial=0))):
            taken = numbers * self.max_choices + prefixes[:, position]
            active = position < lengths
            ranks += np.where(active, before.take(taken), 0)
            numbers = np.where(active, following.take(taken), numbers)
        return ranks

    def canonical_codes(self, batch: Batch) -> npt.NDArray[Any]:
        """Return the code of every complete row's canonical encoding, shape [N]."""
        if type(self).canonical is SearchSpace.canonical:
            return batch.codes
        return super().canonical_codes(batch)

    def encoding_at(self, rank: int) -> Encoding:
        """Return the encoding at a position of `enumerate`, the inverse of an exact `code`.

        Raises:
            InvalidEncoding: there is no such position, or the space is too large for exact codes.
        """
        if not self._code_is_exact:
            raise InvalidEncoding(f"{self.name} has {self.size()} encodings, too many for positions in 63 bits.")
        if not 0 <= rank < self.size():
            raise InvalidEncoding(f"{self.name} has the positions 0 to {self.size() - 1}, got {rank}.")
        prefix: Encoding = ()
        number = 0
        while not self.automaton.final[number]:
            # The last choice whose first encoding comes not after the rank; illegal ones have none.
            starts, legal = self._before[number], self.automaton.masks[number]
            choice = int(np.flatnonzero(legal & (starts <= rank))[-1])
            rank -= int(starts[choice])
            prefix = (*prefix, choice)
            number = self._next[number][choice]
        return prefix


def _sizes(edges: list[dict[int, int]]) -> tuple[int, ...]:
    """Return the number of paths from every state to a final one."""
    sizes: dict[int, int] = {}
    stack = [0]
    while stack:
        number = stack[-1]
        missing = {target for target in edges[number].values() if target not in sizes}
        if missing:
            stack.extend(missing)
            continue
        sizes[number] = sum(sizes[target] for target in edges[number].values()) if edges[number] else 1
        stack.pop()
    return tuple(sizes[number] for number in range(len(edges)))
