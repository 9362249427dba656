"""Half precision for the weights that quantization leaves in float32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pyedge.converters.ir import NUMPY_DTYPES, Graph

_OPS = ("conv", "fully_connected")
_WEIGHT = 1  # its input slot


def halve_weights(graph: Graph) -> Graph:
    """A copy whose f32 convolution and fully connected weights are f16, rounded to nearest.

    A weight beyond the range of f16 (65504), or one that is also used as something else, stays.
    The kernels expand to f32 when they pack: only the file becomes smaller.
    """
    graph = graph.copy()
    uses = [
        (name, node.op in _OPS and slot == _WEIGHT)
        for node in graph.nodes
        for slot, name in enumerate(node.inputs)
        if name is not None
    ]
    others = {name for name, is_weight in uses if not is_weight}
    for name in {name for name, is_weight in uses if is_weight} - others:
        tensor = graph.tensors[name]
        if tensor.dtype != "f32" or tensor.data is None:
            continue
        with np.errstate(over="ignore"):
            half = tensor.data.astype(NUMPY_DTYPES["f16"])
        if np.isfinite(half).all():
            graph.tensors[name] = replace(tensor, dtype="f16", data=half)
    return graph
