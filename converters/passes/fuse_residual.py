"""The add that closes a residual block into the convolution before it."""

from __future__ import annotations

from pyedge.converters.ir import Graph, Node
from pyedge.converters.shapes import Shape, sample_shapes

from .edit import is_linear

RESIDUAL = 5


def fuse_residual(graph: Graph) -> Graph:
    """Fuses the add of two activations of one shape into a conv or fully_connected node.

    The node must have nothing fused behind its bias and the add as its only reader. It moves to
    the place of the add, where the other operand exists; of two candidates the later one is
    taken. Bounds of the add become bounds of the node.
    Post: no add of two activations of one shape reads such a node.
    """
    graph = graph.copy()
    samples = sample_shapes(graph)
    order = {id(node): place for place, node in enumerate(graph.nodes)}
    for add in [node for node in graph.nodes if node.op == "add"]:
        a, b = add.inputs
        assert a is not None
        assert b is not None
        if a == b or not _fits(graph, a, b, samples):
            continue
        candidates = [node for name in (a, b) if (node := _candidate(graph, name)) is not None]
        if not candidates:
            continue
        node = max(candidates, key=lambda n: order[id(n)])
        node.set_input(RESIDUAL, b if node.outputs[0] == a else a)
        node.attrs |= {"act_min": add.attrs["act_min"], "act_max": add.attrs["act_max"]}
        node.outputs = list(add.outputs)
        graph.nodes.remove(node)
        graph.nodes[graph.nodes.index(add)] = node
        order[id(node)] = order[id(add)]
    graph.drop_unused()
    return graph


def _fits(graph: Graph, a: str, b: str, samples: tuple[dict[str, Shape], dict[str, Shape]]) -> bool:
    activations = not graph.tensors[a].constant and not graph.tensors[b].constant
    return activations and all(shapes[a] == shapes[b] for shapes in samples)


def _candidate(graph: Graph, name: str) -> Node | None:
    node = graph.producer(name)
    if node is None or node.op not in ("conv", "fully_connected") or not is_linear(node):
        return None
    readers = graph.consumers(name)
    return node if len(readers) == 1 and name not in graph.outputs else None
