"""The contract of search spaces.

Dimension letters: N rows, L = `space.max_length`, C = `space.max_choices`.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nas_gym.errors import InvalidEncoding
from nas_gym.search_spaces.core import Batch, Encoding, SearchSpace
from nas_gym.testing.rules import check_rules, demand, demand_equal, demand_raises, new_seed

ENUMERATION_LIMIT = 20_000
"""Spaces up to this size are enumerated completely, larger ones up to here."""


@dataclass(frozen=True)
class _SpaceProbe:
    """A search space with witnesses drawn from it."""

    space: SearchSpace
    seed: int
    samples: int

    @cached_property
    def encodings(self) -> list[Encoding]:
        """Complete encodings found by random walks over the grammar."""
        rng = np.random.default_rng(self.seed)
        return [_walk(self.space, rng) for _ in range(self.samples)]

    @cached_property
    def prefixes(self) -> list[Encoding]:
        """All distinct prefixes of the encodings, unfinished and complete."""
        cuts = (encoding[:length] for encoding in self.encodings for length in range(len(encoding) + 1))
        return list(dict.fromkeys(cuts))

    @cached_property
    def enumerated(self) -> list[Encoding]:
        """The first encodings that `enumerate` gives."""
        return list(itertools.islice(self.space.enumerate(), ENUMERATION_LIMIT))


def _walk(space: SearchSpace, rng: np.random.Generator) -> Encoding:
    prefix: Encoding = ()
    while (decision := space.decision(prefix)) is not None:
        demand(len(prefix) < space.max_length, f"an end within {space.max_length} decisions", decision, prefix=prefix)
        labels, mask = decision.labels, decision.mask
        demand(len(mask) == space.max_choices, f"a mask of length {space.max_choices}", mask, prefix=prefix)
        demand(len(labels) <= space.max_choices, f"at most {space.max_choices} labels", labels, prefix=prefix)
        demand(not any(mask[len(labels) :]), "choices without a label to be masked", mask, prefix=prefix)
        demand(any(mask), "at least one legal choice", mask, prefix=prefix)
        prefix = (*prefix, int(rng.choice(np.flatnonzero(mask))))
    return prefix


def _space_is_a_value(probe: _SpaceProbe) -> None:
    """A search space is a hashable value that equals its copy and has a name and positive sizes."""
    space = probe.space
    twin = copy.deepcopy(space)
    demand(twin == space and hash(twin) == hash(space), "a copy with equal value and hash", twin)
    demand(isinstance(space.name, str) and bool(space.name), "a name", space.name)
    demand(
        space.max_length >= 1 and space.max_choices >= 1, "sizes of at least 1", (space.max_length, space.max_choices)
    )


def _grammar_is_well_formed(probe: _SpaceProbe) -> None:
    """Every reachable prefix is complete or has a decision with a legal choice, and ends within max_length."""
    for prefix in probe.prefixes:
        decision = probe.space.decision(prefix)
        demand_equal(probe.space.decision(prefix), decision, "the same decision twice", prefix=prefix)


def _junctions_equal_the_grammar(probe: _SpaceProbe) -> None:
    """`junction` and `is_complete` say of every prefix what `decision` says."""
    for prefix in probe.prefixes:
        decision, junction = probe.space.decision(prefix), probe.space.junction(prefix)
        mask = [True] * probe.space.max_choices if decision is None else list(decision.mask)
        forms = (junction.mask.tolist(), junction.mask_int8.tolist(), list(junction.legal))
        demand(forms == (mask, mask, mask), f"all forms of the mask {mask}", forms, prefix=prefix)
        told = (junction.complete, probe.space.is_complete(prefix))
        demand(told == (decision is None,) * 2, f"complete = {decision is None}", told, prefix=prefix)


def _arrays_equal_the_grammar(probe: _SpaceProbe) -> None:
    """`masks` and `complete` say of every batch of prefixes, an empty one too, what `decision` says."""
    space = probe.space
    for prefixes in (probe.prefixes, probe.prefixes[::-1], probe.prefixes[:1], []):
        decisions = [space.decision(prefix) for prefix in prefixes]
        masks = np.ones((len(prefixes), space.max_choices), np.bool_)
        for row, decision in zip(masks, decisions, strict=True):
            row[:] = True if decision is None else decision.mask
        complete = np.array([decision is None for decision in decisions], np.bool_)
        packed = space.pack(prefixes)
        demand_equal(space.masks(*packed), masks, "the masks of the grammar", prefixes=prefixes)
        demand_equal(np.asarray(space.complete(*packed)), complete, "the ends of the grammar", prefixes=prefixes)


def _packing_is_invertible(probe: _SpaceProbe) -> None:
    """`rows` inverts `pack`, and `encodings` gives the rows as tuples of Python integers."""
    space = probe.space
    prefixes, lengths = space.pack(probe.prefixes)
    demand(prefixes.shape == (len(lengths), space.max_length), f"shape [N, {space.max_length}]", prefixes.shape)
    demand_equal(space.rows(prefixes, lengths), probe.prefixes, "the rows that were packed")
    rows = space.encodings(Batch.of(space, probe.encodings)).tolist()
    demand_equal(rows, probe.encodings, "the encodings of the batch", encodings=probe.encodings)


def _observations_lie_inside(probe: _SpaceProbe) -> None:
    """`observe` and `states` return a fresh integer array within their `nvec` for every prefix."""
    space = probe.space
    packed = space.pack(probe.prefixes)
    for view, nvec in ((space.observe, space.observation_nvec), (space.states, space.states_nvec)):
        seen = view(*packed)
        shape = (len(probe.prefixes), len(nvec))
        demand(seen.shape == shape and seen.dtype == np.int64, f"int64 of shape {shape}", (seen.dtype, seen.shape))
        outside = np.flatnonzero(((seen < 0) | (seen >= nvec)).any(axis=1))
        demand(not len(outside), f"0 <= features < {nvec.tolist()}", seen[outside], prefixes=outside.tolist())
        demand(not np.shares_memory(seen, packed[0]), "a fresh array", "a view of the prefixes")


def _samples_are_legal(probe: _SpaceProbe) -> None:
    """`sample` draws legal encodings of Python integers and repeats itself from a seed."""
    for offset in range(probe.samples):
        seed = probe.seed + offset
        drawn = probe.space.sample(np.random.default_rng(seed))
        demand_equal(probe.space.validate(drawn), drawn, "a legal encoding", seed=seed)
        again = probe.space.sample(np.random.default_rng(seed))
        demand_equal(again, drawn, "the same encoding from the same seed", seed=seed)


def _illegal_encodings_are_refused(probe: _SpaceProbe) -> None:
    """`validate`, `decode` and `to_string` raise InvalidEncoding for what is no complete legal encoding."""
    space = probe.space
    for encoding in probe.encodings:
        wrong = [encoding[:-1], (*encoding, 0), (*encoding[:-1], space.max_choices), (*encoding[:-1], -1)]
        for position in range(len(encoding)):
            decision = space.decision(encoding[:position])
            masked = [] if decision is None else np.flatnonzero(~np.array(decision.mask)).tolist()
            wrong += [(*encoding[:position], choice, *encoding[position + 1 :]) for choice in masked]
        for candidate, method in itertools.product(wrong, (space.validate, space.decode, space.to_string)):
            demand_raises(
                InvalidEncoding, lambda m=method, c=candidate: m(c), encoding=candidate, method=method.__name__
            )


def _enumeration_is_exact(probe: _SpaceProbe) -> None:
    """`enumerate` gives every encoding once, ascending, and `size` is their number (None: not countable)."""
    space, found = probe.space, probe.enumerated
    for encoding, following in itertools.pairwise(found):
        demand(encoding < following, "ascending order without repeats", following, encoding=encoding)
    for encoding in found[:: max(1, len(found) // 1000)]:
        demand_equal(space.validate(encoding), encoding, "a legal encoding", encoding=encoding)
    size = space.size()
    if len(found) == ENUMERATION_LIMIT:
        demand(size is None or size >= len(found), f"at least {len(found)} or None", size)
        return
    demand(size == len(found), f"size {len(found)}", size)
    known = set(found)
    for encoding in probe.encodings:
        demand(encoding in known, "every encoding of the grammar", "an enumeration without it", encoding=encoding)


def _codes_identify(probe: _SpaceProbe) -> None:
    """`code` is a non-negative integer that differs between encodings; `codes` equals it in arrays."""
    space = probe.space
    owner: dict[int, Encoding] = {}
    for encoding in (*probe.encodings, *probe.enumerated):
        code = space.code(encoding)
        demand(isinstance(code, int) and code >= 0, "a non-negative integer", code, encoding=encoding)
        other = owner.setdefault(code, encoding)
        demand(other == encoding, "distinct codes", code, encoding=encoding, other=other)
        demand(not space.dense or code < (space.size() or 0), "a code below the size", code, encoding=encoding)
    codes = [space.code(encoding) for encoding in probe.encodings]
    arrays = space.codes(*space.pack(probe.encodings)).tolist()
    demand_equal(arrays, codes, "the single codes", encodings=probe.encodings)


def _canonical_is_a_projection(probe: _SpaceProbe) -> None:
    """`canonical` returns a legal representative that represents itself; `canonical_codes` equals it in arrays."""
    space = probe.space
    for encoding in probe.encodings:
        representative = space.canonical(encoding)
        demand_equal(space.validate(representative), representative, "a legal encoding", encoding=encoding)
        demand_equal(space.canonical(representative), representative, "itself as representative", encoding=encoding)
    codes = [space.code(space.canonical(encoding)) for encoding in probe.encodings]
    arrays = space.canonical_codes(Batch.of(space, probe.encodings)).tolist()
    demand_equal(arrays, codes, "the single codes", encodings=probe.encodings)


def _notation_round_trips(probe: _SpaceProbe) -> None:
    """`from_string` inverts `to_string` and raises InvalidEncoding for other text."""
    space = probe.space
    for encoding in probe.encodings:
        text = space.to_string(encoding)
        demand_equal(space.from_string(text), encoding, "the encoding itself", encoding=encoding, text=text)
    for text in ("", "no such architecture", space.to_string(probe.encodings[0]) + "?"):
        demand_raises(InvalidEncoding, lambda t=text: space.from_string(t), text=text)


def _decoding_gives_values(probe: _SpaceProbe) -> None:
    """`decode` returns equal, hashable values for one encoding, which offer `graph()`."""
    for encoding in probe.encodings:
        decoded, again = probe.space.decode(encoding), probe.space.decode(encoding)
        equal = decoded == again and hash(decoded) == hash(again)
        demand(equal, "equal values with equal hashes", (decoded, again), encoding=encoding)
        demand(callable(getattr(decoded, "graph", None)), "a method graph()", decoded, encoding=encoding)
        decoded.graph()


def _sketches_are_graphs(probe: _SpaceProbe) -> None:
    """`sketch` gives every prefix labelled nodes and edges that lead forwards."""
    for prefix in probe.prefixes:
        sketch = probe.space.sketch(prefix)
        forwards = all(0 <= source < target < len(sketch.nodes) for source, target, _ in sketch.edges)
        demand(bool(sketch.nodes) and forwards, "edges from earlier to later nodes", sketch, prefix=prefix)


def _neighbours_are_near(probe: _SpaceProbe) -> None:
    """`neighbours` are legal, distinct and other than the encoding; `mutate` draws one, repeatably from a seed."""
    space = probe.space
    for encoding in probe.encodings:
        near = space.neighbours(encoding)
        demand(len(set(near)) == len(near) and encoding not in near, "distinct others", near, encoding=encoding)
        for other in near:
            demand_equal(space.validate(other), other, "a legal encoding", encoding=encoding)
        if not near:
            continue
        mutant, again = (space.mutate(encoding, np.random.default_rng(probe.seed)) for _ in range(2))
        demand(mutant in near, "one of the neighbours", mutant, encoding=encoding, seed=probe.seed)
        demand_equal(again, mutant, "the same mutant from the same seed", encoding=encoding, seed=probe.seed)


SEARCH_SPACE_RULES: tuple[Callable[[_SpaceProbe], None], ...] = (
    _space_is_a_value,
    _grammar_is_well_formed,
    _junctions_equal_the_grammar,
    _arrays_equal_the_grammar,
    _packing_is_invertible,
    _observations_lie_inside,
    _samples_are_legal,
    _illegal_encodings_are_refused,
    _enumeration_is_exact,
    _codes_identify,
    _canonical_is_a_projection,
    _notation_round_trips,
    _decoding_gives_values,
    _sketches_are_graphs,
    _neighbours_are_near,
)
"""Rules of `check_search_space`, in order."""


def check_search_space(space: SearchSpace, rng: np.random.Generator | None = None, samples: int = 32) -> None:
    """Check a search space against the contract of `SearchSpace`.

    Rules: a hashable value; a well-formed grammar that ends in time; array forms, junctions, packing equal to the
    grammar; observations and states inside their sizes; legal, repeatable samples; illegal encodings refused; exact
    enumeration and size; injective codes; idempotent canonical form; notation round trip; decoded values; sketches;
    neighbours and mutations.

    Args:
        space: the space to check.
        rng: draws the witnesses; a fixed seed by default.
        samples: number of random encodings.

    Raises:
        ContractViolation: naming the broken rule and its witness.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    check_rules(SEARCH_SPACE_RULES, _SpaceProbe(space, new_seed(rng), samples))
