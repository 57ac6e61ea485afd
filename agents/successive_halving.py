"""Successive halving over the fidelity: many architectures for few epochs, the best of them for more.

Sources: Jamieson, Talwalkar: Non-stochastic Best Arm Identification and Hyperparameter Optimization, AISTATS 2016,
arXiv 1502.07943 (synchronous); Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht, Talwalkar: A System for
Massively Parallel Hyperparameter Tuning, MLSys 2020, arXiv 1810.05934 (ASHA, algorithm 2); Li, Jamieson, DeSalvo,
Rostamizadeh, Talwalkar: Hyperband, JMLR 2018 (the rungs of a bracket).
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nas_gym.errors import InvalidArgument
from nas_gym.search_spaces.core import Encoding

from .core.base import Envs, EpisodeBatch, Proposer, require, require_count

VARIANTS = ("synchronous", "asynchronous")
_REJECTIONS = 10_000


@dataclass(frozen=True)
class SuccessiveHalvingConfig:
    """Settings of `SuccessiveHalving`.

    Attributes:
        variant: "synchronous" promotes when a rung is complete, "asynchronous" (ASHA) as soon as an architecture is
            among the best of those that have arrived.
        eta: a rung passes on the best 1 / eta of its architectures, to eta times as many epochs.
        min_fidelity: at least so many epochs in the lowest rung; null = the lowest of the environment.
        max_fidelity: epochs of the highest rung; null = those of the environment.
        initial: architectures in the lowest rung of a synchronous bracket; null = as many as bring one to the top.
        batch_size: episodes at once.
    """

    variant: str = "synchronous"
    eta: int = 3
    min_fidelity: int | None = None
    max_fidelity: int | None = None
    initial: int | None = None
    batch_size: int = 1

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidArgument: a value outside its range.
        """
        require(self.variant in VARIANTS, "variant", self.variant, f"one of {', '.join(VARIANTS)}")
        require_count("eta", self.eta, 2)
        for name in ("min_fidelity", "max_fidelity", "initial"):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name))
        require_count("batch_size", self.batch_size)
        if self.initial is not None and self.variant != "synchronous":
            raise InvalidArgument(f"initial is of synchronous brackets; leave it out with variant={self.variant!r}.")


def rungs(lowest: int, highest: int, eta: int) -> tuple[int, ...]:
    """Return the fidelities of the rungs: `highest`, and from it down by factors of `eta` to no less than `lowest`.

    >>> rungs(1, 12, 3)
    (1, 4, 12)
    """
    count = 1
    while lowest * eta**count <= highest:
        count += 1
    return tuple(highest // eta**level for level in reversed(range(count)))


class Rung:
    """Architectures at one fidelity.

    Attributes:
        issued: those that were begun here.
        results: their returns in the order of arrival, None for a failure.
    """

    def __init__(self) -> None:
        """Start without architectures."""
        self.issued: set[Encoding] = set()
        self.results: dict[Encoding, float | None] = {}
        self._ranked: list[tuple[float, int, Encoding]] = []
        self._staying: list[tuple[float, int, Encoding]] = []

    def add(self, encoding: Encoding, value: float | None) -> None:
        """Add a result; of equal ones the first to arrive ranks higher, and failures are never promoted."""
        self.issued.add(encoding)
        if encoding in self.results:
            return
        ranked = (math.inf if value is None else -value, len(self.results), encoding)
        self.results[encoding] = value
        if value is not None:
            insort(self._ranked, ranked)
            insort(self._staying, ranked)

    def quota(self, eta: int) -> int:
        """Return how many of the results that have arrived are to be promoted in all."""
        return min(len(self.results) // eta, len(self._ranked))

    def promotable(self, eta: int) -> Encoding | None:
        """Return the best architecture that is among the best 1 / eta and was not promoted, None if there is none."""
        if self._staying and bisect_left(self._ranked, self._staying[0]) < self.quota(eta):
            return self._staying[0][2]
        return None

    def promote(self, encoding: Encoding) -> None:
        """Note that an architecture was promoted."""
        if self._staying and self._staying[0][2] == encoding:
            del self._staying[0]
        else:
            self._staying = [one for one in self._staying if one[2] != encoding]


class Bracket:
    """The rungs that one group of architectures climbs."""

    def __init__(self, levels: int, eta: int, size: int | None) -> None:
        """Start empty.

        Args:
            levels: number of rungs.
            eta: see `SuccessiveHalvingConfig`.
            size: architectures in the lowest rung before any is promoted; None = no such barrier, ever.
        """
        self.eta = eta
        self.size = size
        self.rungs = [Rung() for _ in range(levels)]

    def complete(self, level: int) -> bool:
        """Tell whether a rung has all the results that it will ever have."""
        if self.size is None:
            return False
        wanted = self.size
        for rung in self.rungs[: level + 1]:
            if len(rung.results) < wanted:
                return False
            wanted = rung.quota(self.eta)
        return True

    def promotion(self) -> tuple[Encoding, int] | None:
        """Return the next architecture to promote and the rung that it is promoted to, the highest rungs first."""
        for level in reversed(range(len(self.rungs) - 1)):
            if self.size is None or self.complete(level):
                encoding = self.rungs[level].promotable(self.eta)
                if encoding is not None:
                    return encoding, level + 1
        return None

    def begin(self, encoding: Encoding, level: int) -> None:
        """Note that an architecture is begun in a rung."""
        self.rungs[level].issued.add(encoding)
        if level:
            self.rungs[level - 1].promote(encoding)

    @property
    def has_room(self) -> bool:
        """Whether the lowest rung takes another architecture."""
        return self.size is None or len(self.rungs[0].issued) < self.size


class SuccessiveHalving(Proposer):
    """Draws architectures at random for few epochs and promotes the best 1 / eta of every rung to eta times as many.

    Every evaluation is a query, whatever its fidelity, and one at a higher fidelity is charged in full: it trains from
    scratch. What it saves is training time, not queries. An architecture is drawn once; the search ends when 10,000
    draws bring nothing new and nothing is left to promote.

    Where more episodes are asked for than a synchronous bracket has left, because the results that it waits for are
    still in flight, the next bracket begins.

    Presets: ``jamieson2016`` (synchronous, eta 2), ``asha2020`` (asynchronous, eta 4); default: Hyperband's eta 3.
    """

    Config: ClassVar[type[SuccessiveHalvingConfig]] = SuccessiveHalvingConfig
    presets: ClassVar[Mapping[str, SuccessiveHalvingConfig]] = MappingProxyType(
        {
            "jamieson2016": SuccessiveHalvingConfig("synchronous", eta=2),
            "asha2020": SuccessiveHalvingConfig("asynchronous", eta=4),
        }
    )

    def __init__(self, envs: Envs, seed: int, config: SuccessiveHalvingConfig) -> None:
        """Build the rungs.

        Raises:
            InvalidArgument: the environment has no fidelities, or not enough of them for two rungs.
        """
        super().__init__(envs, seed, config)
        self.rungs = _checked_rungs(envs.fidelities, config)
        reaching_the_top = config.eta ** (len(self.rungs) - 1)
        self._size = None if config.variant == "asynchronous" else config.initial or reaching_the_top
        if self._size is not None and self._size < reaching_the_top:
            raise InvalidArgument(
                f"initial must be at least eta ** {len(self.rungs) - 1} = {reaching_the_top}, or none of them reaches "
                f"the highest of the rungs {self.rungs}; got {config.initial}."
            )
        self.brackets: list[Bracket] = []
        self._drawn: set[Encoding] = set()
        self._levels: list[int] = []
        self._in_flight: dict[tuple[Encoding, int], Bracket] = {}

    # --- proposing ---------------------------------------------------------------------------------

    def propose(self, count: int) -> list[Encoding]:
        """Return architectures to promote, then new ones; the oldest bracket first."""
        proposals: list[Encoding] = []
        self._levels = []
        while len(proposals) < count and (job := self._next()) is not None:
            bracket, encoding, level = job
            bracket.begin(encoding, level)
            self._in_flight[encoding, level] = bracket
            proposals.append(encoding)
            self._levels.append(level)
        return proposals

    def fidelities(self) -> Sequence[int]:
        """Return the epochs of the architectures just proposed."""
        return [self.rungs[level] for level in self._levels]

    def _next(self) -> tuple[Bracket, Encoding, int] | None:
        """Return what to evaluate next and where, None when there is nothing."""
        for bracket in self.brackets:
            if (promotion := bracket.promotion()) is not None:
                return bracket, *promotion
            if bracket.has_room and (encoding := self._draw()) is not None:
                return bracket, encoding, 0
            if bracket.has_room and bracket.size is not None:
                bracket.size = len(bracket.rungs[0].issued)  # The space has no more; promote among what there is.
                return self._next()
        if self.brackets and self._size is None:
            return None
        encoding = self._draw()
        return None if encoding is None else (self._new_bracket(), encoding, 0)

    def _new_bracket(self) -> Bracket:
        self.brackets.append(Bracket(len(self.rungs), self.config.eta, self._size))
        return self.brackets[-1]

    def _draw(self) -> Encoding | None:
        """Return a random architecture that was not drawn before, None if none was found."""
        for _ in range(_REJECTIONS):
            encoding = self.space.sample(self.rng)
            if encoding not in self._drawn:
                self._drawn.add(encoding)
                return encoding
        return None

    # --- learning ----------------------------------------------------------------------------------

    def learn(self, batch: EpisodeBatch) -> dict[str, float]:
        """Note the results at their rungs; those of the environment's own fidelity belong to the highest."""
        count = len(batch)
        fidelities = [self.rungs[-1]] * count if batch.fidelities is None else batch.fidelities.tolist()
        for encoding, status, value, fidelity in zip(
            batch.encodings, batch.status, batch.returns.tolist(), fidelities, strict=True
        ):
            if status != "invalid_action" and fidelity in self.rungs:
                failed = status != "ok" or not math.isfinite(value)
                self._note(encoding, self.rungs.index(fidelity), None if failed else value)
        top = len(self.rungs) - 1
        self.brackets = [bracket for bracket in self.brackets if not bracket.complete(top)]
        return {"promoted": float((np.array(fidelities) > self.rungs[0]).mean())}

    def tell(self, encodings: Sequence[Encoding], returns: npt.NDArray[np.float64]) -> dict[str, float]:
        """Note results at the highest rung, none of them a failure."""
        for encoding, value in zip(encodings, returns.tolist(), strict=True):
            self._note(encoding, len(self.rungs) - 1, value)
        return {}

    def _note(self, encoding: Encoding, level: int, value: float | None) -> None:
        self._drawn.add(encoding)
        bracket = self._in_flight.pop((encoding, level), None) or self._bracket_of(encoding, level)
        bracket.begin(encoding, level)
        bracket.rungs[level].add(encoding, value)

    def _bracket_of(self, encoding: Encoding, level: int) -> Bracket:
        """Return the bracket for a result that was not asked for, as a search that is resumed is told of."""
        for bracket in self.brackets:
            below = bracket.has_room if level == 0 else encoding in bracket.rungs[level - 1].results
            if below or bracket.size is None:
                return bracket
        return self._new_bracket()

    # --- state -------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the generator, the draws and the results; what is in flight will be asked again."""
        in_flight = {encoding for encoding, level in self._in_flight if level == 0}
        brackets = [
            {"size": one.size, "rungs": [list(rung.results.items()) for rung in one.rungs]} for one in self.brackets
        ]
        return {**super().state_dict(), "drawn": sorted(self._drawn - in_flight), "brackets": brackets}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a value of `state_dict`."""
        super().load_state_dict(state)
        self._drawn = {tuple(encoding) for encoding in state["drawn"]}
        self._in_flight, self._levels, self.brackets = {}, [], []
        for saved in state["brackets"]:
            bracket = self._new_bracket()
            bracket.size = saved["size"]
            for level, results in enumerate(saved["rungs"]):
                for encoding, value in results:
                    bracket.begin(tuple(encoding), level)
                    bracket.rungs[level].add(tuple(encoding), value)


def _checked_rungs(fidelities: tuple[int, int] | None, config: SuccessiveHalvingConfig) -> tuple[int, ...]:
    """Return the rungs in an environment with these fidelities.

    Raises:
        InvalidArgument: it has none, the configured ones lie outside, or there is but one rung.
    """
    if fidelities is None:
        raise InvalidArgument(
            "successive halving chooses for how many epochs to train, but the evaluator of this environment has no "
            "fidelities; use one that trains or a table with curves."
        )
    lowest, highest = config.min_fidelity or fidelities[0], config.max_fidelity or fidelities[1]
    for name, value in (("min_fidelity", lowest), ("max_fidelity", highest)):
        require(fidelities[0] <= value <= fidelities[1], name, value, f"from {fidelities[0]} to {fidelities[1]} epochs")
    found = rungs(lowest, highest, config.eta)
    if len(found) == 1:
        raise InvalidArgument(
            f"with eta={config.eta} there is no rung between {lowest} and {highest} epochs; choose a smaller eta or "
            "min_fidelity, or train for more epochs."
        )
    return found
