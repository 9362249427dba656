"""What several passes need to change a graph."""

from __future__ import annotations

from pyedge.converters.ir import Graph, Node

INF = float("inf")


def redirect(graph: Graph, old: str, new: str) -> None:
    """Makes every reader of `old` read `new`."""
    for node in graph.nodes:
        node.inputs = [new if name == old else name for name in node.inputs]


def bypass(graph: Graph, node: Node) -> bool:
    """Removes a node whose output equals its first input; False where it gives a graph output
    its name and the input has to keep its own."""
    source, output = node.inputs[0], node.outputs[0]
    assert source is not None
    if output not in graph.outputs:
        redirect(graph, output, source)
        graph.nodes.remove(node)
        return True
    if source in graph.inputs or source in graph.outputs or graph.tensors[source].constant:
        return False
    producer = graph.producer(source)
    assert producer is not None
    producer.outputs = [output if name == source else name for name in producer.outputs]
    graph.nodes.remove(node)
    redirect(graph, source, output)
    return True


def unique_node_name(graph: Graph, wanted: str) -> str:
    """That node name, or a numbered one where it is taken."""
    taken, name, count = {node.name for node in graph.nodes}, wanted, 0
    while name in taken:
        count += 1
        name = f"{wanted}.{count}"
    return name


def only_reader(graph: Graph, name: str) -> Node | None:
    """The node that alone reads a value, once; None where there are others."""
    readers = [n for n in graph.nodes for slot in n.inputs if slot == name]
    return readers[0] if len(readers) == 1 and name not in graph.outputs else None


def is_unbounded(node: Node) -> bool:
    """Whether no activation is fused into a node that may have one."""
    bounds = node.attrs["act_min"], node.attrs["act_max"]
    return bounds == (-INF, INF) and node.activation == "none"


def is_linear(node: Node) -> bool:
    """Whether a convolution or fully connected node has nothing fused behind its bias."""
    return is_unbounded(node) and node.input(4) is None and node.input(5) is None
