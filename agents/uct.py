"""UCT: a tree over the grammar's decisions, descended by upper confidence bounds and completed by rollouts.

Sources: Kocsis, Szepesvari: Bandit Based Monte-Carlo Planning, ECML 2006; Negrinho, Gordon: DeepArchitect, 2017, arXiv
1704.08792 (search over architectures, bisection); Finnsson, Bjornsson: Simulation-Based Approach to General Game
Playing, AAAI 2008 (the rollout policy "mast"); Chaslot, Winands, van den Herik: Parallel Monte-Carlo Tree Search, 2008
(virtual loss).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from nas_gym.search_spaces.core import Encoding, SearchSpace

from .core.base import Decided, Envs, EpisodeBatch, Greedy, Proposer, require, require_count

ROLLOUTS = ("uniform", "mast")

Key: TypeAlias = tuple[Encoding, int, int]
"""A node: the decisions taken, and the range [low, high) of legal choices open at the next; (e, 0, 0) is a leaf."""


@dataclass(frozen=True)
class UCTConfig:
    """Settings of `UCT`; the defaults are for budgets of some 100 queries.

    Exploration, rollout and temperature are those of {0.05, 0.1, 0.2, 0.5, 1} x {uniform, mast at 0.03, 0.1, 0.3} with
    the lowest mean of nine ratios, the simple regret to that of random search after 100, 200 and 300 queries on 8
    synthetic landscapes (evaluation seeds 100 to 107) of `NAS-Cell-v0`, `NAS-MetaQNN-v0` and `NAS-MetaQNN-Table-v0`.

    Attributes:
        exploration: c in mean + c sqrt(2 ln n_parent / n_child), with means in [0, 1]; 1 is Kocsis and Szepesvari's.
        rollout: how an architecture is completed beyond the tree: "uniform", or "mast", by a softmax over the mean
            return of each choice at each position in all episodes so far.
        temperature: of that softmax.
        bisection: whether a choice among ordered values becomes a binary tree of halves, so that neighbouring values
            share statistics.
        reward_range: returns that become 0 and 1; null = the lowest and the highest so far.
        repeats: whether an architecture may be evaluated again. If not, subtrees without a new one are left out and
            the search ends with the last.
        virtual_loss: how many episodes of return 0 an episode in flight stands for.
        batch_size: episodes in flight at once.
    """

    exploration: float = 0.2
    rollout: str = "mast"
    temperature: float = 0.1
    bisection: bool = True
    reward_range: tuple[float, float] | None = None
    repeats: bool = False
    virtual_loss: int = 1
    batch_size: int = 1

    def __post_init__(self) -> None:
        """Check the values; a list, as JSON has it, becomes a tuple.

        Raises:
            InvalidArgument: a value outside its range.
        """
        fits = math.isfinite(self.exploration) and self.exploration >= 0
        require(fits, "exploration", self.exploration, "a number of at least 0")
        require(self.rollout in ROLLOUTS, "rollout", self.rollout, f"one of {', '.join(ROLLOUTS)}")
        require(0 < self.temperature < math.inf, "temperature", self.temperature, "a positive number")
        for name in ("bisection", "repeats"):
            require(isinstance(getattr(self, name), bool), name, getattr(self, name), "true or false")
        bounds = self.reward_range
        if bounds is not None:
            pair = isinstance(bounds, (list, tuple)) and len(bounds) == 2
            pair = pair and math.isfinite(bounds[0]) and math.isfinite(bounds[1]) and bounds[0] < bounds[1]
            require(pair, "reward_range", bounds, "null or a pair (low, high) with low < high")
            object.__setattr__(self, "reward_range", (float(bounds[0]), float(bounds[1])))
        require_count("virtual_loss", self.virtual_loss)
        require_count("batch_size", self.batch_size)


class Statistics:
    """Returns of the episodes through one node, or with one choice.

    Attributes:
        visits: episodes.
        successes: those without a failure.
        total: sum of the returns of these.
        pending: episodes in flight.
    """

    __slots__ = ("pending", "successes", "total", "visits")

    def __init__(self, visits: int = 0, successes: int = 0, total: float = 0.0) -> None:
        """Start with what is known."""
        self.visits = visits
        self.successes = successes
        self.total = total
        self.pending = 0

    def add(self, value: float | None) -> None:
        """Add the return of an episode, None for a failure."""
        self.visits += 1
        if value is not None:
            self.successes += 1
            self.total += value


class Grammar:
    """The decisions of a space as a tree, without those that leave no choice."""

    def __init__(self, space: SearchSpace, bisection: bool) -> None:
        """Remember the parts."""
        self.space = space
        self.bisection = bisection
        self.root = self.settled(())

    def legal(self, prefix: Encoding) -> list[int]:
        """Return the legal choices after an unfinished prefix."""
        junction = self.space.junction(prefix)
        return [] if junction.complete else [choice for choice, allowed in enumerate(junction.legal) if allowed]

    def settled(self, prefix: Encoding) -> Key:
        """Return the node of a prefix, after all decisions that leave no choice."""
        while len(legal := self.legal(prefix)) == 1:
            prefix = (*prefix, legal[0])
        return prefix, 0, len(legal)

    def children(self, key: Key) -> list[Key]:
        """Return the nodes below one: a choice each, or halves of the range where the choices are ordered."""
        prefix, low, high = key
        decision = self.space.decision(prefix)
        if decision is None:
            return []
        legal = self.legal(prefix)
        if not (self.bisection and decision.ordered):
            return [self.settled((*prefix, choice)) for choice in legal]
        middle = (low + high) // 2
        halves = ((low, middle), (middle, high))
        return [
            self.settled((*prefix, legal[first])) if last - first == 1 else (prefix, first, last)
            for first, last in halves
        ]

    def contains(self, key: Key, encoding: Encoding) -> bool:
        """Tell whether an architecture lies below a node."""
        prefix, low, high = key
        if encoding[: len(prefix)] != prefix:
            return False
        return low == high or low <= self.legal(prefix).index(encoding[len(prefix)]) < high


class UCT(Proposer):
    """Descends a tree of decisions by UCB1, adds one node and completes the architecture by a rollout.

    Children that were never visited come first, ties are drawn. An episode updates the nodes that it passed, not the
    decisions of its rollout. Failures count as the lowest return. With ``repeats=false``, the default, no architecture
    is evaluated twice: neither selection nor rollout enters a subtree whose architectures were all evaluated, which
    leaves the statistics of the nodes above as they are.

    Presets: ``kocsis2006`` (c = 1, the plain tree), ``deeparchitect`` (c = 0.5 and bisection, the paper's experiments);
    both with uniform rollouts.
    """

    Config: ClassVar[type[UCTConfig]] = UCTConfig
    presets: ClassVar[Mapping[str, UCTConfig]] = MappingProxyType(
        {
            "kocsis2006": UCTConfig(exploration=1.0, rollout="uniform", bisection=False),
            "deeparchitect": UCTConfig(exploration=0.5, rollout="uniform", bisection=True),
        }
    )

    def __init__(self, envs: Envs, seed: int, config: UCTConfig) -> None:
        """Start with the root alone."""
        super().__init__(envs, seed, config)
        self.grammar = Grammar(self.space, config.bisection)
        self.nodes: dict[Key, Statistics] = {self.grammar.root: Statistics()}
        self.evaluated: list[tuple[Encoding, float | None]] = []
        self._choices: dict[tuple[int, int], Statistics] = {}
        self._closed: set[Encoding] = set()
        self._paths: dict[Encoding, list[list[Key]]] = {}
        self._low, self._high = config.reward_range or (math.inf, -math.inf)

    # --- proposing ---------------------------------------------------------------------------------

    def propose(self, count: int) -> list[Encoding]:
        """Return one architecture per descent; each sees the earlier ones of the batch as losses."""
        proposals: list[Encoding] = []
        while len(proposals) < count and not self._is_closed(self.grammar.root):
            path = self._descend()
            encoding = self._complete(path[-1])
            for key in path:
                self.nodes[key].pending += 1
            self._paths.setdefault(encoding, []).append(path)
            self._close(encoding)
            proposals.append(encoding)
        return proposals

    def _descend(self) -> list[Key]:
        """Return the nodes from the root to a leaf or to a new node."""
        path = [self.grammar.root]
        while children := [key for key in self.grammar.children(path[-1]) if not self._is_closed(key)]:
            fresh = [key for key in children if key not in self.nodes]
            if fresh:
                path.append(self._drawn(fresh))
                self.nodes[path[-1]] = Statistics()
                break
            bound = self._bound(self.nodes[path[-1]])
            bounds = [bound(self.nodes[key]) for key in children]
            highest = max(bounds)
            path.append(self._drawn([key for key, value in zip(children, bounds, strict=True) if value == highest]))
        return path

    def _bound(self, parent: Statistics) -> Callable[[Statistics], float]:
        """Return the upper confidence bound of a child of `parent`."""
        loss = self.config.virtual_loss
        twice_log = 2 * math.log(parent.visits + loss * parent.pending)

        def bound(child: Statistics) -> float:
            count = child.visits + loss * child.pending
            return self._sum(child) / count + self.config.exploration * math.sqrt(twice_log / count)

        return bound

    def _sum(self, statistics: Statistics) -> float:
        """Return the sum of the returns, each scaled to [0, 1] with failures at 0."""
        if not self._low < self._high:
            return float(statistics.successes)
        return (statistics.total - statistics.successes * self._low) / (self._high - self._low)

    def _complete(self, key: Key) -> Encoding:
        """Return an architecture below a node, by the rollout policy."""
        prefix, low, high = key
        while legal := self.grammar.legal(prefix)[low:high]:
            open_choices = [choice for choice in legal if (*prefix, choice) not in self._closed]
            prefix = (*prefix, self._rolled(len(prefix), open_choices))
            low, high = 0, self.space.max_choices
        return prefix

    def _rolled(self, position: int, choices: Sequence[int]) -> int:
        """Return one of the choices of a decision, by the rollout policy."""
        if self.config.rollout == "uniform" or len(choices) == 1:
            return self._drawn(choices)
        known = (self._choices.get((position, choice)) for choice in choices)
        # A choice that was never taken is worth as much as any can be.
        means = np.array([1.0 if one is None else self._sum(one) / one.visits for one in known])
        weights = np.exp((means - means.max()) / self.config.temperature)
        return choices[int(self.rng.choice(len(choices), p=weights / weights.sum()))]

    def _drawn(self, options: Sequence[Any]) -> Any:  # noqa: ANN401 - one of the options
        return options[int(self.rng.integers(len(options)))]

    # --- subtrees without anything new -------------------------------------------------------------

    def _is_closed(self, key: Key) -> bool:
        prefix, low, high = key
        if prefix in self._closed:
            return True
        partial = high - low < len(legal := self.grammar.legal(prefix))
        return partial and all((*prefix, choice) in self._closed for choice in legal[low:high])

    def _close(self, encoding: Encoding) -> None:
        """Note that an architecture, and with it perhaps the last one below some prefix, is not to come again."""
        if self.config.repeats:
            return
        self._closed.add(encoding)
        prefix = encoding
        while prefix:
            prefix = prefix[:-1]
            if any((*prefix, choice) not in self._closed for choice in self.grammar.legal(prefix)):
                return
            self._closed.add(prefix)

    # --- learning ----------------------------------------------------------------------------------

    def learn(self, batch: EpisodeBatch) -> dict[str, float]:
        """Pass on what was evaluated; an episode that an illegal action ended is no architecture."""
        for encoding, status, value in zip(batch.encodings, batch.status, batch.returns.tolist(), strict=True):
            if status != "invalid_action":
                self._note(encoding, value if status == "ok" and math.isfinite(value) else None)
        return {"nodes": float(len(self.nodes)), "lowest": self._low, "highest": self._high}

    def tell(self, encodings: Sequence[Encoding], returns: npt.NDArray[np.float64]) -> dict[str, float]:
        """Learn the returns of architectures, none of them a failure."""
        for encoding, value in zip(encodings, returns.tolist(), strict=True):
            self._note(encoding, value)
        return {}

    def _note(self, encoding: Encoding, value: float | None) -> None:
        """Add one return to the nodes that its episode passed, and to the choices that it took."""
        paths = self._paths.get(encoding)
        if paths:
            path = paths.pop()
            for key in path:
                self.nodes[key].pending -= 1
            if not paths:
                del self._paths[encoding]
        else:
            path = self._walk(encoding)
        value = self._remember(encoding, value)
        for key in path:
            self.nodes[key].add(value)

    def _remember(self, encoding: Encoding, value: float | None) -> float | None:
        """Note everything about a return but its nodes; return it, cut to the given range."""
        if value is not None and self.config.reward_range is not None:
            value = min(max(value, self._low), self._high)
        elif value is not None:
            self._low, self._high = min(self._low, value), max(self._high, value)
        for position, choice in enumerate(encoding):
            self._choices.setdefault((position, choice), Statistics()).add(value)
        self.evaluated.append((encoding, value))
        self._close(encoding)
        return value

    def _walk(self, encoding: Encoding) -> list[Key]:
        """Return the nodes that lead to an architecture which it did not propose, with one new node at most."""
        path = [self.grammar.root]
        while children := self.grammar.children(path[-1]):
            path.append(next(key for key in children if self.grammar.contains(key, encoding)))
            if path[-1] not in self.nodes:
                self.nodes[path[-1]] = Statistics()
                break
        return path

    # --- what it has learnt ------------------------------------------------------------------------

    def greedy(self) -> Greedy | None:
        """Return the most visited path, beyond the tree the best architecture below it, with the shares of visits."""
        key = self.grammar.root
        while children := [one for one in self.grammar.children(key) if one in self.nodes and self.nodes[one].visits]:
            key = max(children, key=lambda one: (self.nodes[one].visits, self._sum(self.nodes[one])))
        below = [(value, encoding) for encoding, value in self.evaluated if self.grammar.contains(key, encoding)]
        successful = [(value, encoding) for value, encoding in below if value is not None]
        if not successful:
            return None
        encoding = max(successful)[1]
        decisions = tuple(self._decided(encoding, position) for position in range(len(encoding)))
        return Greedy(encoding, decisions, "Share of visits")

    def _decided(self, encoding: Encoding, position: int) -> Decided:
        prefix = encoding[:position]
        decision = self.space.decision(prefix)
        labels = () if decision is None else decision.labels
        counts = dict.fromkeys(self.grammar.legal(prefix), 0)
        for evaluated, _ in self.evaluated:
            if evaluated[:position] == prefix:
                counts[evaluated[position]] += 1
        total = sum(counts.values())
        return Decided(labels[encoding[position]], {labels[choice]: count / total for choice, count in counts.items()})

    # --- state -------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the generator, the tree and what was evaluated; what is in flight is forgotten."""
        nodes = [
            (*key, one.visits, one.successes, one.total)
            for key, one in self.nodes.items()
            if one.visits or key == self.grammar.root
        ]
        return {**super().state_dict(), "nodes": nodes, "evaluated": list(self.evaluated)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a value of `state_dict`."""
        super().load_state_dict(state)
        self.nodes = {
            (tuple(prefix), int(low), int(high)): Statistics(int(visits), int(successes), float(total))
            for prefix, low, high, visits, successes, total in state["nodes"]
        }
        self.evaluated, self._choices, self._closed, self._paths = [], {}, set(), {}
        self._low, self._high = self.config.reward_range or (math.inf, -math.inf)
        for encoding, value in state["evaluated"]:
            self._remember(tuple(encoding), None if value is None else float(value))
