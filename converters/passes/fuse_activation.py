"""clip, prelu, sigmoids and swishes into the node before them."""

from __future__ import annotations

from pyedge.converters.ir import ACTIVATIONS, Graph, Node

from .edit import is_linear, is_unbounded, only_reader

CONVOLUTIONS = ("conv", "conv_transpose", "fully_connected")
WITH_ACTIVATION = ("conv", "fully_connected")
ARITHMETIC = ("add", "sub", "mul", "div")


def fuse_activation(graph: Graph) -> Graph:
    """Fuses an activation that alone reads the output of a node into that node.

    y = clamp(prelu(conv + bias + residual)): a prelu fits only where no clamp is fused yet, any
    other activation than clip only where nothing is.
    Post: no convolution or fully connected node feeds such a prelu or clip alone, no arithmetic
    node and no clip feeds such a clip alone, but where the bounds do not overlap; none with
    nothing behind its bias feeds a sigmoid, hard_swish, or x * sigmoid(x) alone.
    """
    graph = graph.copy()
    fused: set[str] = set()
    for node in list(graph.nodes):
        if node.name not in fused:
            fused.update(_fuse_swish(graph, node))
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
    if reader.op in ACTIVATIONS:
        if node.op not in WITH_ACTIVATION or not is_linear(node) or not _is_exact(reader):
            return False
        node.attrs["activation"] = ACTIVATIONS.index(reader.op)
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


def _is_exact(node: Node) -> bool:
    """Whether a hard_sigmoid is the one that can be fused: that of hard_swish."""
    attrs = node.attrs
    return node.op != "hard_sigmoid" or (
        attrs["beta"] == 0.5 and abs(6.0 * float(attrs["alpha"]) - 1.0) < 1e-6  # type: ignore[arg-type]
    )


def _fuse_swish(graph: Graph, node: Node) -> tuple[str, ...]:
    """Fuses x * sigmoid(x), x being the node's output; returns the names of the two nodes."""
    name = node.outputs[0]
    readers = graph.consumers(name)
    if node.op not in WITH_ACTIVATION or not is_linear(node) or name in graph.outputs:
        return ()
    if [reader.op for reader in readers] != ["sigmoid", "mul"]:
        return ()
    gate, product = readers
    if only_reader(graph, gate.outputs[0]) is not product:
        return ()
    node.attrs |= {"activation": ACTIVATIONS.index("swish"), **product.attrs}
    node.outputs = list(product.outputs)
    graph.nodes = [other for other in graph.nodes if other not in (gate, product)]
    return gate.name, product.name
