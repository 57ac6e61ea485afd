"""Transforms that do not fit the module: every one names the layer, its shape or size, and the rule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from nas_gym.networks.eas import dense_graph, plain_graph, widen_dense_layer
from nas_gym.networks.morph import (
    Convolution,
    GraphNetwork,
    MaxPooling,
    Morphed,
    MorphError,
    Statistics,
    UnitMap,
    deepen,
    deepen_preactivated,
    initial_state,
    insert,
    insert_dense_layer,
    measure,
    replace_identity,
    replicate_add,
    replicate_concat,
    replicate_units,
    split_concat,
    substitute,
    widen,
)

plain = plain_graph((1, 8, 8), 3, ((4,), (8,)), (6,))
state = initial_state(plain, torch.Generator().manual_seed(0))
dense = dense_graph((1, 8, 8), 3)
dense_state = initial_state(dense, torch.Generator().manual_seed(0))
rng = np.random.default_rng(0)
pooling = MaxPooling(3, 1, 1)


def statistics(units: int) -> Statistics:
    """Return the statistics of so many units."""
    return Statistics(torch.zeros(units).double(), torch.ones(units).double(), torch.zeros(units).double())


MISFITS: dict[str, tuple[Callable[[], Morphed], str]] = {
    "widen, narrower": (
        lambda: widen(plain, state, "conv1", 2, rng),
        r"conv1 .*4 units cannot be widened to 2: the width must be at least 4",
    ),
    "widen, the classes": (
        lambda: widen(plain, state, "logits", 9, rng),
        r"logits .*is the output of the network.*the number of outputs must stay",
    ),
    "widen, no units": (
        lambda: widen(plain, state, "pool1", 9, rng),
        r"pool1 .*has no units of its own: only a convolution or a linear layer can be widened",
    ),
    "widen, no layer": (
        lambda: widen(plain, state, "conv9", 9, rng),
        r"the graph has no layer 'conv9'\. It has conv1, conv1_norm",
    ),
    "widen, other weights": (
        lambda: widen(plain, {**state, "conv1.weight": torch.zeros(5, 1, 3, 3)}, "conv1", 9, rng),
        r"conv1 .* on \(1, 8, 8\): its tensor conv1\.weight has the shape \(5, 1, 3, 3\), where the layer needs",
    ),
    "replicate units": (
        lambda: replicate_units(plain, state, "conv1", UnitMap((0, 1), 2)),
        r"conv1 .*has 4 units, the map is of 2",
    ),
    "deepen, signed values": (
        lambda: deepen(plain, state, "conv1", statistics(4)),
        r"behind conv1 .*, which puts out \(4, 8, 8\): a rectification of values that may be negative changes them",
    ),
    "deepen, other statistics": (
        lambda: deepen(plain, state, "conv1_relu", statistics(8)),
        r"behind conv1_relu .*\(4, 8, 8\): statistics of 8 units do not fit a layer of 4 units",
    ),
    "deepen, no centre": (
        lambda: deepen(plain, state, "conv1_relu", statistics(4), kernel=2),
        r"channels=4, kernel=2.*the kernel must be odd",
    ),
    "deepen preactivated": (
        lambda: deepen_preactivated(plain, state, "average", statistics(8)),
        r"behind average .*, which puts out \(8,\): a convolution takes images .*, got the shape \(8,\)",
    ),
    "insert, not preserving": (
        lambda: insert(plain, state, "conv1_relu", (pooling,)),
        r"behind conv1_relu .*\(4, 8, 8\): MaxPooling.* in place of the identity changes the function",
    ),
    "insert, another width": (
        lambda: insert(plain, state, "conv1_relu", (Convolution(9, 3),)),
        r"behind conv1_relu .*\(4, 8, 8\): .*as many outputs as inputs and stride 1, got 4 inputs, 9 outputs",
    ),
    "replace identity": (
        lambda: replace_identity(plain, state, "conv1", (Convolution(4, 3),)),
        r"conv1 .*is no identity: only an identity can be replaced",
    ),
    "substitute": (
        lambda: substitute(plain, state, "conv1", (pooling,), torch.Generator()),
        r"conv1 .*is no identity: only an identity can be replaced",
    ),
    "insert dense layer": (
        lambda: insert_dense_layer(dense, dense_state, "stem", rng),
        r"stem .*on input \(1, 8, 8\): a dense layer ends in a concatenation",
    ),
    "widen dense layer": (
        lambda: widen_dense_layer(dense, dense_state, "block1_layer1", 2, rng),
        r"block1_layer1_conv2 .*4 units cannot be widened to 2",
    ),
    "replicate add": (
        lambda: replicate_add(plain, state, "conv1", 1),
        r"conv1 .*on input \(1, 8, 8\): branches must be an integer of at least 2, got 1",
    ),
    "replicate concat, no outputs": (
        lambda: replicate_concat(plain, state, "pool1", 2),
        r"pool1 .*on conv1_relu \(4, 8, 8\): replication-concat divides a convolution by its outputs",
    ),
    "split concat, too many": (
        lambda: split_concat(plain, state, "pool1", 9),
        r"pool1 .*on conv1_relu \(4, 8, 8\): 4 units cannot be divided among 9 branches",
    ),
}


@pytest.mark.parametrize(("transform", "message"), MISFITS.values(), ids=MISFITS)
def test_a_transform_that_does_not_fit_says_why(transform: Callable[[], Morphed], message: str) -> None:
    """With the layer it is about."""
    with pytest.raises(MorphError, match=message):
        transform()


def test_statistics_of_other_images_say_which_are_wanted() -> None:
    """The shape that the network takes, and the one it got."""
    with pytest.raises(MorphError, match=r"conv1 .*takes images \(1, 8, 8\), got \(3, 8, 8\)"):
        measure(GraphNetwork(plain, state), torch.zeros(2, 3, 8, 8), ["conv1"])
