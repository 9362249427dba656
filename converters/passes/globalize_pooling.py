"""Pooling over the whole plane."""

from __future__ import annotations

from pyedge.converters.ir import Graph
from pyedge.converters.shapes import sample_shapes


def globalize_pooling(graph: Graph) -> Graph:
    """Makes a pool global whose only window is its whole, unpadded input, at every size.

    Post: such pools have `global` = 1 and neutral windows.
    """
    graph = graph.copy()
    samples = sample_shapes(graph)
    for node in graph.nodes:
        if node.op not in ("max_pool", "average_pool") or node.attrs["global"]:
            continue
        planes = {sample[node.inputs[0] or ""][1:3] for sample in samples}
        pads = [node.attrs[f"pad_{side}"] for side in ("top", "left", "bottom", "right")]
        if planes == {(node.attrs["kernel_h"], node.attrs["kernel_w"])} and not any(pads):
            node.attrs |= {"global": 1, "kernel_h": 1, "kernel_w": 1}
            node.attrs |= {"stride_h": 1, "stride_w": 1, "ceil_mode": 0}
    return graph
