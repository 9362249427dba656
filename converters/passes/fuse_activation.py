"""clip and prelu into the node before them."""

from __future__ import annotations

from pyedge.converters.ir import Graph, Node

from .edit import is_unbounded, only_reader

CONVOLUTIONS = ("conv", "conv_transpose", "fully_connected")
ARITHMETIC = ("add", "sub", "mul", "div")


def fuse_activation(graph: Graph) -> Graph:
    """Fuses a clip or prelu that alone reads the output of a node into that node.

    y = clamp(prelu(conv + bias + residual)): a prelu fits only where no clamp is fused yet.
    Post: no convolution or fully connected node feeds such a prelu or clip alone, no arithmetic
    node and no clip feeds such a clip alone, but where the bounds do not overlap.
    """
    graph = graph.copy()
    fused: set[str] = set()
    for node in list(graph.nodes):
        reader = only_reader(graph, node.outputs[0])
        while node.name not in fused and reader is not None and _fuse(graph, node, reader):
            node.outputs = list(reader.outputs)
            graph.nodes.remove(reader)
            fused.add(reader.name)
            reader = only_reader(graph, node.outputs[0])
    graph.drop_unused()
    return graph


def _fuse(graph: Graph, node: Node, reader: Node) -> bool:
    if reader.op == "prelu":
        slope = reader.input(1)
        if node.op not in CONVOLUTIONS or node.input(4) is not None or not is_unbounded(node):
            return False
        if reader.inputs[0] != node.outputs[0] or graph.constant(slope) is None:
            return False
        node.set_input(4, slope)
        return True
    if reader.op != "clip":
        return False
    low, high = ("min", "max") if node.op == "clip" else ("act_min", "act_max")
    if node.op not in (*CONVOLUTIONS, *ARITHMETIC, "clip"):
        return False
    bounds = (
        max(float(node.attrs[low]), float(reader.attrs["min"])),  # type: ignore[arg-type]
        min(float(node.attrs[high]), float(reader.attrs["max"])),  # type: ignore[arg-type]
    )
    if bounds[0] > bounds[1]:
        return False
    node.attrs[low], node.attrs[high] = bounds
    return True
