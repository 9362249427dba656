"""Shapes of all values of a graph, by the rules of the native core."""

from __future__ import annotations

from collections.abc import Mapping

from pyedge import _core
from pyedge.converters.ir import Graph
from pyedge.converters.native import attribute_values
from pyedge.errors import InvalidArgumentError, InvalidModelError

Shape = tuple[int, ...]


def infer_shapes(graph: Graph, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shape of every tensor, given those of the graph inputs.

    Raises:
        InvalidModelError: a node cannot take the shapes that reach it.
    """
    shapes = {t.name: tuple(t.data.shape) for t in graph.tensors.values() if t.data is not None}
    shapes.update(inputs)
    for node in graph.nodes:
        reaching = [None if name is None else shapes[name] for name in node.inputs]
        try:
            shape = _core.infer_shape(node.op, *attribute_values(node), reaching)
        except InvalidArgumentError as error:
            raise InvalidModelError(f"node {node.name}: {error}") from error
        shapes[node.outputs[0]] = shape
    return shapes


def sample_shapes(graph: Graph) -> tuple[dict[str, Shape], dict[str, Shape]]:
    """Shapes at two choices of everything that is free: what is equal in both is fixed.

    Height and width are multiples of `metadata.input_size`, or of 64 where it is not set.
    """
    width, height = (size or 64 for size in graph.metadata.input_size)
    samples = []
    for batch, free in ((2, (height, width)), (3, (2 * height, 3 * width))):
        shapes = {}
        for name in graph.inputs:
            dims = list(graph.tensors[name].shape or ())
            sizes = [batch, *([1] * (len(dims) - 3)), *free][: len(dims)]
            shapes[name] = tuple(s if d < 0 else d for d, s in zip(dims, sizes, strict=False))
        samples.append(infer_shapes(graph, shapes))
    return samples[0], samples[1]
