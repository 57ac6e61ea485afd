"""Network transforms that keep the function: a child starts where its parent ended (needs the extra `train`).

A network is a `Graph` of named layers and a state, a dictionary of tensors. A transform is a pure function of both and
returns a `Morphed`: the child's graph and state, and where every tensor comes from, from which `transfer_optimiser`
also maps what an optimiser remembers. `GraphNetwork` is the module; `save_network` writes both into one file.

| transform | by | preserved exactly, normalisations in evaluation mode |
|---|---|---|
| `widen` | Net2Net, EAS | yes |
| `deepen`, `insert`, `replace_identity` | Net2Net, TreeCell | yes, or `NotPreserving` is raised |
| `deepen_preactivated` | TreeCell | where no value falls below its measured minimum |
| `insert_dense_layer` | EAS | yes |
| `replicate_add`, `replicate_concat`, `split_concat` | TreeCell | yes |
| `substitute` | TreeCell | no: repair the child with `mimic` |

Noise that breaks the symmetry of repeated units is 0 unless asked for.
"""

from nas_gym.networks.morph.deepen import deepen, deepen_preactivated, insert, replace_identity, substitute
from nas_gym.networks.morph.dense import dense_chain, insert_dense_layer
from nas_gym.networks.morph.errors import MorphError, NotPreserving
from nas_gym.networks.morph.graph import INPUT, LAYERS, Graph, Node
from nas_gym.networks.morph.junctions import Add, Concat, Flatten, GlobalAveragePooling, Segment
from nas_gym.networks.morph.layers import Activation, AveragePooling, Dropout, Identity, Layer, MaxPooling
from nas_gym.networks.morph.morphed import Morphed, unchanged
from nas_gym.networks.morph.network import (
    GraphNetwork,
    State,
    check_state,
    initial_state,
    load_network,
    save_network,
)
from nas_gym.networks.morph.optimiser import Transfer, transfer_optimiser
from nas_gym.networks.morph.parents import Parent, load_parent, save_parent
from nas_gym.networks.morph.paths import replicate_add, replicate_concat, split_concat
from nas_gym.networks.morph.repair import mimic
from nas_gym.networks.morph.statistics import Statistics, measure
from nas_gym.networks.morph.units import UnitMap, replication_map
from nas_gym.networks.morph.weighted import BatchNorm, Convolution, DepthwiseConvolution, Linear
from nas_gym.networks.morph.widen import replicate_units, widen, widened_together

__all__ = [
    "INPUT",
    "LAYERS",
    "Activation",
    "Add",
    "AveragePooling",
    "BatchNorm",
    "Concat",
    "Convolution",
    "DepthwiseConvolution",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling",
    "Graph",
    "GraphNetwork",
    "Identity",
    "Layer",
    "Linear",
    "MaxPooling",
    "MorphError",
    "Morphed",
    "Node",
    "NotPreserving",
    "Parent",
    "Segment",
    "State",
    "Statistics",
    "Transfer",
    "UnitMap",
    "check_state",
    "deepen",
    "deepen_preactivated",
    "dense_chain",
    "initial_state",
    "insert",
    "insert_dense_layer",
    "load_network",
    "load_parent",
    "measure",
    "mimic",
    "replace_identity",
    "replicate_add",
    "replicate_concat",
    "replicate_units",
    "replication_map",
    "save_network",
    "save_parent",
    "split_concat",
    "substitute",
    "transfer_optimiser",
    "unchanged",
    "widen",
    "widened_together",
]
