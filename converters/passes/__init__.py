"""Passes: functions Graph -> Graph that leave their argument as it is and keep its function.

Each takes a valid f32 graph and returns a valid f32 graph with the same inputs and outputs, equal
up to rounding of the arithmetic that it moves into constants.
"""

from __future__ import annotations

from pyedge.converters.ir import Graph

from .fold_batch_norm import fold_batch_norm
from .fold_transpose import fold_transpose
from .fuse_activation import fuse_activation
from .fuse_residual import fuse_residual
from .globalize_pooling import globalize_pooling
from .remove_dead import remove_dead
from .remove_identities import remove_identities

# Folding comes before fusing: an activation in a convolution would stand in the way.
# fuse_activation runs again for activations behind a fused residual.
PASSES = (
    remove_dead,
    remove_identities,
    globalize_pooling,
    fold_transpose,
    fold_batch_norm,
    fuse_activation,
    fuse_residual,
    fuse_activation,
    remove_identities,
    remove_dead,
)


def optimize(graph: Graph) -> Graph:
    """All passes, in order."""
    for run in PASSES:
        graph = run(graph)
    return graph


__all__ = [
    "PASSES",
    "fold_batch_norm",
    "fold_transpose",
    "fuse_activation",
    "fuse_residual",
    "globalize_pooling",
    "optimize",
    "remove_dead",
    "remove_identities",
]
