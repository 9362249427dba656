"""Nodes and tensors that no output needs."""

from __future__ import annotations

from pyedge.converters.ir import Graph


def remove_dead(graph: Graph) -> Graph:
    """Drops nodes that no output depends on, and tensors that nothing refers to.

    Post: every node lies on a path to an output. Graph inputs stay, read or not.
    """
    graph = graph.copy()
    needed, kept = set(graph.outputs), []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            needed.update(name for name in node.inputs if name is not None)
            kept.append(node)
    graph.nodes = kept[::-1]
    graph.drop_unused()
    return graph
