"""Local search: climb from neighbour to neighbour, begin anew where no neighbour is better.

Sources: White, Nolen, Savani: Exploring the Loss Landscape in Neural Architecture Search, UAI 2021, arXiv 2005.02960,
algorithm 1; Den Ottelander, Dushatskiy, Virgolin, Bosman: Local Search is a Remarkably Strong Baseline for Neural
Architecture Search, EMO 2021, arXiv 2004.08996.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nas_gym.search_spaces.core import Encoding

from .core.base import Envs, EpisodeBatch, Proposer, require, require_count

IMPROVEMENTS = ("first", "best")
_REJECTIONS = 10_000


@dataclass(frozen=True)
class LocalSearchConfig:
    """Settings of `LocalSearch`; the defaults did best of {first, best} x {1, 10 initial} on synthetic landscapes.

    Attributes:
        improvement: when to move on: at the "first" better neighbour, or to the "best" one after all were evaluated.
        initial: random architectures per start, of which the best one is climbed from.
        batch_size: neighbours evaluated at once; more than one may pass over the first better one for a better one.
    """

    improvement: str = "first"
    initial: int = 1
    batch_size: int = 1

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidArgument: a value outside its range.
        """
        require(self.improvement in IMPROVEMENTS, "improvement", self.improvement, f"one of {', '.join(IMPROVEMENTS)}")
        require_count("initial", self.initial)
        require_count("batch_size", self.batch_size)


class LocalSearch(Proposer):
    """Evaluates the neighbours of the incumbent in random order and moves to a better one.

    At a local optimum it starts again from random architectures that it has not seen. An architecture is evaluated
    once: of a neighbour that is known already, the known return decides, without a query. The search ends when 10,000
    random draws bring nothing new.

    Where results come late (no barrier), a free slot that has no neighbour left to try evaluates a random
    architecture, from which a later start may climb.

    Presets: ``white2021`` (the paper's algorithm: all neighbours, then the best), ``naszilla`` (its authors' code: the
    first better one, starting from the best of ten).
    """

    Config: ClassVar[type[LocalSearchConfig]] = LocalSearchConfig
    presets: ClassVar[Mapping[str, LocalSearchConfig]] = MappingProxyType(
        {"white2021": LocalSearchConfig("best"), "naszilla": LocalSearchConfig("first", initial=10)}
    )

    def __init__(self, envs: Envs, seed: int, config: LocalSearchConfig) -> None:
        """Start without an incumbent."""
        super().__init__(envs, seed, config)
        self.known: dict[Encoding, float] = {}
        self.incumbent: Encoding | None = None
        self.climbs = 0
        self._neighbours: list[Encoding] = []
        self._starts: list[Encoding] = []
        self._awaited: dict[Encoding, bool] = {}
        """In flight, and whether as a neighbour of the incumbent or of one before it."""

    # --- proposing ---------------------------------------------------------------------------------

    def propose(self, count: int) -> list[Encoding]:
        """Return neighbours of the incumbent that are not known, else random architectures to start from."""
        while True:
            if self.incumbent is None and not self._start():
                missing = self.config.initial - len(self._starts) - self._awaited_starts
                return self._draw(min(count, max(missing, 1)))
            self._climb()
            untried = [one for one in self._neighbours if one not in self.known and one not in self._awaited]
            if untried:
                self._awaited.update(dict.fromkeys(untried[:count], True))
                return untried[:count]
            if any(self._awaited.values()):
                return self._draw(1)
            self.incumbent = None  # A local optimum: all neighbours are known and none is better.

    @property
    def _awaited_starts(self) -> int:
        return len(self._awaited) - sum(self._awaited.values())

    def _start(self) -> bool:
        """Choose the incumbent among the random architectures; False while there are too few of them."""
        if len(self._starts) < self.config.initial:
            return False
        candidates, self._starts = self._starts[: self.config.initial], self._starts[self.config.initial :]
        self._move(max(candidates, key=self.known.__getitem__))
        self.climbs += 1
        return True

    def _climb(self) -> None:
        """Move as far as the known returns lead."""
        while self.incumbent is not None:
            known = [one for one in self._neighbours if one in self.known]
            if self.config.improvement == "best" and len(known) < len(self._neighbours):
                return
            best = max(known, key=self.known.__getitem__, default=self.incumbent)
            if not self.known[best] > self.known[self.incumbent]:
                return
            self._move(best)

    def _move(self, encoding: Encoding) -> None:
        self.incumbent = encoding
        neighbours = self.space.neighbours(encoding)
        self._neighbours = [neighbours[index] for index in self.rng.permutation(len(neighbours)).tolist()]

    def _draw(self, count: int) -> list[Encoding]:
        """Return up to `count` random architectures that are new."""
        drawn: list[Encoding] = []
        for _ in range(_REJECTIONS):
            encoding = self.space.sample(self.rng)
            if encoding not in self.known and encoding not in self._awaited:
                self._awaited[encoding] = False
                drawn.append(encoding)
                if len(drawn) == count:
                    break
        return drawn

    # --- learning ----------------------------------------------------------------------------------

    def learn(self, batch: EpisodeBatch) -> dict[str, float]:
        """Pass on what was evaluated; an episode that an illegal action ended is no architecture."""
        rows = [row for row, status in enumerate(batch.status) if status != "invalid_action"]
        return self.tell([batch.encodings[row] for row in rows], batch.returns[rows])

    def tell(self, encodings: Sequence[Encoding], returns: npt.NDArray[np.float64]) -> dict[str, float]:
        """Note the returns and, under "first", move to the best of the newcomers if it is better.

        What it did not propose itself, but was told of by a search that is resumed, may become the incumbent, too.
        """
        better = self.incumbent
        for encoding, value in zip(encodings, returns.tolist(), strict=True):
            self.known.setdefault(encoding, -math.inf if math.isnan(value) else value)
            as_neighbour = self._awaited.pop(encoding, True)
            if not as_neighbour:
                self._starts.append(encoding)
            elif better is None or self.known[encoding] > self.known[better]:
                better = encoding
        waits = self.config.improvement == "best" and self.incumbent is not None and better in self._neighbours
        if better is not None and better != self.incumbent and not waits:
            self._move(better)
        incumbent = math.nan if self.incumbent is None else self.known[self.incumbent]
        return {"incumbent": incumbent, "climbs": float(self.climbs)}

    # --- state -------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the generator, what is known and where the climb stands; what is in flight will be asked again."""
        return {
            **super().state_dict(),
            "known": list(self.known.items()),
            "incumbent": self.incumbent,
            "neighbours": list(self._neighbours),
            "starts": list(self._starts),
            "climbs": self.climbs,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a value of `state_dict`."""
        super().load_state_dict(state)
        self.known = {tuple(encoding): float(value) for encoding, value in state["known"]}
        self.incumbent = None if state["incumbent"] is None else tuple(state["incumbent"])
        self._neighbours = [tuple(encoding) for encoding in state["neighbours"]]
        self._starts = [tuple(encoding) for encoding in state["starts"]]
        self.climbs = int(state["climbs"])
        self._awaited = {}
