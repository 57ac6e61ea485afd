"""From an architecture to a trainable PyTorch module (needs the extra `train`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nas_gym.registry import Entry, Registry

if TYPE_CHECKING:
    from torch import nn

    from nas_gym.search_spaces import Encoding, SearchSpace

NETWORKS = Registry(
    "network builder",
    {
        "nas_bench_201": Entry("nas_gym.networks.nas_bench_201:build", "macro network of NATS-Bench", "train"),
        "nats_size": Entry("nas_gym.networks.nats_size:build", "network of NATS-Bench's size space", "train"),
        "nas_bench_macro": Entry("nas_gym.networks.nas_bench_macro:build", "network of NAS-Bench-Macro", "train"),
        "metaqnn": Entry("nas_gym.networks.metaqnn:build", "chain of MetaQNN", "train"),
        "blockqnn": Entry("nas_gym.networks.blockqnn:build", "stack of BlockQNN's blocks", "train"),
        "eas": Entry("nas_gym.networks.eas_children:build", "plain CNN that grew by EAS's transforms", "train"),
        "eas_dense": Entry("nas_gym.networks.eas_children:build", "DenseNet that grew by EAS's transforms", "train"),
    },
)
"""Builders by the name of the search space: ``build(architecture, input_shape, classes, **sizes)``."""

MORPHISMS = Registry(
    "way to inherit weights",
    {
        "eas": Entry("nas_gym.networks.eas_children:EASMorphism", "wider and deeper layers of a plain CNN", "train"),
        "eas_dense": Entry("nas_gym.networks.eas_children:EASMorphism", "wider and deeper dense blocks", "train"),
    },
)
"""By the name of the search space: ``start`` builds the graph of the start network, ``begin`` makes one of a
network that grew before, ``morph`` a child of any ancestor."""


def build(
    space: SearchSpace,
    encoding: Encoding,
    input_shape: tuple[int, int, int],
    classes: int,
    **sizes: Any,  # noqa: ANN401 - each builder documents its own sizes
) -> nn.Module:
    """Return the module of an architecture: images [N, *input_shape] -> logits [N, classes].

    Args:
        space: the search space, whose name selects the builder.
        encoding: a complete encoding.
        input_shape: (channels, height, width).
        classes: number of classes.
        **sizes: keyword arguments of the builder, e.g. ``skeleton``.

    Raises:
        InvalidEncoding: `encoding` is not an architecture of `space`.
        UnknownName: no builder for this space.
        MissingExtra: torch is not installed.
    """
    return NETWORKS[space.name](space.decode(encoding), input_shape, classes, **sizes)


__all__ = ["MORPHISMS", "NETWORKS", "build"]
