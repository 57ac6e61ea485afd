"""What can be built: grammars over integer decisions."""

from nas_gym.registry import Entry, Registry
from nas_gym.search_spaces.core import Batch, Decision, Encoding, FixedSlotSpace, SearchSpace

SEARCH_SPACES = Registry(
    "search space",
    {
        "nas_bench_201": Entry(
            "nas_gym.search_spaces.nas_bench_201:NASBench201Space",
            "cell of NAS-Bench-201 / NATS-Bench topology: 6 edges, 5 operations, 15,625 cells",
        ),
        "metaqnn": Entry(
            "nas_gym.search_spaces.metaqnn:MetaQNNSpace",
            "chains of MetaQNN: convolutions, poolings, fully connected layers, global average pooling, softmax",
        ),
    },
)
"""Search spaces by name."""

__all__ = ["SEARCH_SPACES", "Batch", "Decision", "Encoding", "FixedSlotSpace", "SearchSpace"]
