"""What can be built: grammars over integer decisions."""

from collections.abc import Mapping
from typing import Any

from nas_gym.errors import InvalidArgument
from nas_gym.registry import Entry, Registry
from nas_gym.search_spaces.core import Batch, Decision, Encoding, FixedSlotSpace, SearchSpace

SEARCH_SPACES = Registry(
    "search space",
    {
        "nas_bench_201": Entry(
            "nas_gym.search_spaces.nas_bench_201:NASBench201Space",
            "cell of NAS-Bench-201 / NATS-Bench topology: 6 edges, 5 operations, 15,625 cells",
        ),
        "nats_size": Entry(
            "nas_gym.search_spaces.nats_size:NATSSizeSpace",
            "size space of NATS-Bench: the channels of 5 layers, 8 choices each, 32,768 networks",
        ),
        "nas_bench_macro": Entry(
            "nas_gym.search_spaces.nas_bench_macro:NASBenchMacroSpace",
            "NAS-Bench-Macro: the blocks of 8 layers, 3 choices each, 6,561 encodings of 3,969 networks",
        ),
        "metaqnn": Entry(
            "nas_gym.search_spaces.metaqnn:MetaQNNSpace",
            "chains of MetaQNN: convolutions, poolings, fully connected layers, global average pooling, softmax",
        ),
        "blockqnn": Entry(
            "nas_gym.search_spaces.blockqnn:BlockQNNSpace",
            "blocks of BlockQNN: convolutions, poolings, additions, concatenations with arbitrary connections",
        ),
        "eas": Entry(
            "nas_gym.search_spaces.eas:EASSpace", "a plain CNN that grows by wider and deeper transforms (EAS)"
        ),
        "eas_dense": Entry(
            "nas_gym.search_spaces.eas:EASDenseSpace", "a DenseNet that grows by wider and deeper transforms (EAS)"
        ),
    },
)
"""Search spaces by name."""


def make_space(name: str, settings: Mapping[str, Any] | None = None) -> SearchSpace:
    """Create a search space from its name and settings, as tables and run directories record them.

    Raises:
        UnknownName: no such search space.
        InvalidArgument: a setting that it does not take, or a value outside its range.
    """
    try:
        space: SearchSpace = SEARCH_SPACES[name](**(settings or {}))
    except TypeError as error:
        given = dict(settings or {})
        raise InvalidArgument(f"the search space {name!r} refuses the settings {given}: {error}.") from error
    return space


__all__ = ["SEARCH_SPACES", "Batch", "Decision", "Encoding", "FixedSlotSpace", "SearchSpace", "make_space"]
