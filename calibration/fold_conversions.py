"""Quantize and dequantize nodes into the sums and products beside them."""

from __future__ import annotations

from pyedge.calibration.placement import BINARY_OPS
from pyedge.converters.ir import Graph, Node
from pyedge.converters.passes import remove_dead


def fold_conversions(graph: Graph) -> Graph:
    """Lets add, sub and mul read i8 and write i8 where a conversion stands before or behind them.

    The kernels for mixed types compute what the separate nodes would, so no byte changes: a gate
    scales an INT8 tensor without a float32 copy of it. A node whose operands and result would all
    be i8 keeps one conversion: then other arithmetic holds.
    """
    graph = graph.copy()
    for node in [node for node in graph.nodes if node.op in BINARY_OPS]:
        readers = graph.consumers(node.outputs[0])
        if (
            len(readers) == 1
            and readers[0].op == "quantize"
            and node.outputs[0] not in graph.outputs
            and any(graph.tensors[name].dtype == "f32" for name in _operands(node))
        ):
            node.outputs = list(readers[0].outputs)
            graph.nodes.remove(readers[0])
        for slot, name in enumerate(_operands(node)):
            producer = graph.producer(name)
            if producer is None or producer.op != "dequantize":
                continue
            others = [*node.outputs, *_operands(node)[:slot], *_operands(node)[slot + 1 :]]
            if any(graph.tensors[other].dtype == "f32" for other in others):
                node.inputs[slot] = producer.inputs[0]
    return remove_dead(graph)


def _operands(node: Node) -> list[str]:
    return [name for name in node.inputs if name is not None]
