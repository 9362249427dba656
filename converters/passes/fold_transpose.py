"""A fully connected layer behind a flattened image reads it in the order it lies in memory."""

from __future__ import annotations

import numpy as np

from pyedge.converters.ir import Graph, Node
from pyedge.converters.shapes import Shape, sample_shapes

from .edit import unique_node_name
from .remove_dead import remove_dead


def fold_transpose(graph: Graph) -> Graph:
    """Permutes the weight of fully_connected(reshape(transpose(x))) instead of the activation.

    Where the reshape flattens everything behind the batch, and the sizes are fixed.
    Post: no such chain is left.
    """
    graph = graph.copy()
    samples = sample_shapes(graph)
    for node in [n for n in graph.nodes if n.op == "fully_connected"]:
        _fold(graph, node, samples)
    return remove_dead(graph)


def _fold(graph: Graph, node: Node, samples: tuple[dict[str, Shape], dict[str, Shape]]) -> None:
    flatten = graph.producer(node.inputs[0] or "")
    if flatten is None or flatten.op != "reshape":
        return
    transpose = graph.producer(flatten.inputs[0] or "")
    if transpose is None or transpose.op != "transpose":
        return
    perm, source = transpose.attrs["perm"], transpose.inputs[0]
    assert isinstance(perm, list)
    moved = [sample[transpose.outputs[0]] for sample in samples]
    flat = [sample[flatten.outputs[0]] for sample in samples]
    weight = graph.constant(node.input(1))
    assert weight is not None
    if perm[0] != 0 or moved[0][1:] != moved[1][1:] or any(len(shape) != 2 for shape in flat):
        return
    inverse = np.argsort(perm)  # of all axes; the batch, in front, stands for the output channel
    permuted = weight.reshape(-1, *moved[0][1:]).transpose(inverse).reshape(weight.shape)
    node.set_input(1, graph.add_constant(f"{node.name}.weight", permuted))
    output = graph.add_value(f"{node.name}.flat")
    new = Node("reshape", unique_node_name(graph, output), [source], [output], {"dims": [0, -1]})
    graph.nodes.insert(graph.nodes.index(node), new)
    node.inputs[0] = output
