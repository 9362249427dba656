"""Nodes that only rename, and movements that cancel."""

from __future__ import annotations

from pyedge.converters.ir import Graph, Node
from pyedge.converters.shapes import Shape, sample_shapes

from .edit import INF, bypass
from .remove_dead import remove_dead


def remove_identities(graph: Graph) -> Graph:
    """Removes identities; merges transposes and reshapes that follow each other.

    A transpose that moves only dimensions of size 1 becomes a reshape. Post: no reshape,
    transpose, slice, clip or concat is an identity, but one that ties a graph output to an input
    or to another output.
    """
    graph = graph.copy()
    changed = True
    while changed:
        graph = remove_dead(graph)
        samples = sample_shapes(graph)
        changed = False
        for node in list(graph.nodes):
            if _is_identity(node, samples):
                changed |= bypass(graph, node)
            else:
                changed |= (
                    _merge_transposes(graph, node)
                    or _merge_reshapes(graph, node, samples)
                    or _transpose_as_reshape(node, samples)
                )
            if changed:
                break  # shapes and readers are new
    return graph


Samples = tuple[dict[str, Shape], dict[str, Shape]]


def _is_identity(node: Node, samples: Samples) -> bool:
    source, output = node.inputs[0], node.outputs[0]
    assert source is not None
    if node.op == "transpose":
        return node.attrs["perm"] == sorted(node.attrs["perm"])  # type: ignore[arg-type]
    if node.op == "concat":
        return len(node.inputs) == 1
    if node.op == "clip":
        return node.attrs["min"] == -INF and node.attrs["max"] == INF
    if node.op == "reshape" or (node.op == "slice" and node.attrs["step"] == 1):
        return all(shapes[source] == shapes[output] for shapes in samples)
    return False


def _merge_transposes(graph: Graph, node: Node) -> bool:
    if node.op != "transpose":
        return False
    first = graph.producer(node.inputs[0] or "")
    if first is None or first.op != "transpose":
        return False
    inner, outer = first.attrs["perm"], node.attrs["perm"]
    assert isinstance(inner, list)
    assert isinstance(outer, list)
    node.attrs["perm"] = [inner[axis] for axis in outer]
    node.inputs[0] = first.inputs[0]
    return True


def _dims(before: tuple[Shape, Shape], after: tuple[Shape, Shape]) -> list[int] | None:
    """Dimensions for a reshape that hold at both samples; None where there are none."""
    dims, free = [], 0
    for axis, (one, two) in enumerate(zip(*after, strict=True)):
        if axis < len(before[0]) and before[0][axis] == one and before[1][axis] == two:
            dims.append(0)
        elif one == two:
            dims.append(one)
        else:
            dims.append(-1)
            free += 1
    return dims if free <= 1 else None


def _merge_reshapes(graph: Graph, node: Node, samples: Samples) -> bool:
    if node.op != "reshape":
        return False
    first = graph.producer(node.inputs[0] or "")
    if first is None or first.op != "reshape":
        return False
    source, output = first.inputs[0], node.outputs[0]
    assert source is not None
    dims = _dims((samples[0][source], samples[1][source]), (samples[0][output], samples[1][output]))
    if dims is None:
        return False
    node.attrs["dims"] = list(dims)
    node.inputs[0] = source
    return True


def _transpose_as_reshape(node: Node, samples: Samples) -> bool:
    if node.op != "transpose":
        return False
    source, output = node.inputs[0], node.outputs[0]
    assert source is not None
    shapes = [sample[source] for sample in samples]
    perm = node.attrs["perm"]
    assert isinstance(perm, list)
    large = [axis for axis in perm if any(shape[axis] != 1 for shape in shapes)]
    dims = _dims((shapes[0], shapes[1]), (samples[0][output], samples[1][output]))
    if large != sorted(large) or dims is None:
        return False
    node.op, node.attrs = "reshape", {"dims": list(dims)}
    return True
