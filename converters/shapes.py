"""Shapes of all values of a graph, by the rules of `csrc/graph/shapes.cc`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from pyedge.converters.ir import Graph, Node
from pyedge.errors import InvalidModelError

Shape = tuple[int, ...]


def infer_shapes(graph: Graph, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shape of every tensor, given those of the graph inputs.

    Raises:
        InvalidModelError: a node cannot take the shapes that reach it.
    """
    shapes = {t.name: tuple(t.data.shape) for t in graph.tensors.values() if t.data is not None}
    shapes.update(inputs)
    for node in graph.nodes:
        try:
            shape = _RULES.get(node.op, _same)(node, [shapes[n] if n else () for n in node.inputs])
        except ValueError as error:
            raise InvalidModelError(f"node {node.name} ({node.op}): {error}") from error
        if any(d < 1 for d in shape):
            raise InvalidModelError(f"node {node.name} ({node.op}): gives the shape {shape}")
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


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _int(node: Node, name: str) -> int:
    value = node.attrs[name]
    assert isinstance(value, int)
    return value


def _list(node: Node, name: str) -> list[int]:
    value = node.attrs[name]
    assert isinstance(value, list)
    return value


def _same(node: Node, shapes: list[Shape]) -> Shape:
    return shapes[0]


def _convolution(node: Node, shapes: list[Shape]) -> Shape:
    x, weight = shapes[0], shapes[1]
    _expect(len(x) == 4, f"needs an input of rank 4, got {x}")
    channels = weight[3] * _int(node, "groups")
    _expect(channels == x[3], f"the input {x} has not the {channels} channels of the weight")
    sizes = []
    for axis, (side, before, after) in enumerate((("h", "top", "bottom"), ("w", "left", "right"))):
        stride = _int(node, f"stride_{side}")
        pads = _int(node, f"pad_{before}") + _int(node, f"pad_{after}")
        window = _int(node, f"dilation_{side}") * (weight[1 + axis] - 1) + 1
        if node.op == "conv":
            sizes.append((x[1 + axis] + pads - window) // stride + 1)
        else:
            extra = _int(node, f"output_pad_{side}")
            sizes.append((x[1 + axis] - 1) * stride - pads + window + extra)
    shape = (x[0], *sizes, weight[0])
    if node.op == "conv" and node.input(5) is not None:
        _expect(shapes[5] == shape, f"the residual {shapes[5]} does not fit the output {shape}")
    return shape


def _fully_connected(node: Node, shapes: list[Shape]) -> Shape:
    x, weight = shapes[0], shapes[1]
    _expect(len(x) >= 2 and x[-1] == weight[1], f"{x} against a weight of {weight[1]} features")
    return (*x[:-1], weight[0])


def _prelu(node: Node, shapes: list[Shape]) -> Shape:
    _expect(shapes[0][-1] == shapes[1][0], f"the slope {shapes[1]} does not fit {shapes[0]}")
    return shapes[0]


def _binary(node: Node, shapes: list[Shape]) -> Shape:
    a, b = shapes
    rank = max(len(a), len(b))
    pairs = zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True)
    dims = []
    for p, q in pairs:
        _expect(p == q or p == 1 or q == 1, f"{a} and {b} do not broadcast")
        dims.append(max(p, q))
    return tuple(dims)


def _pool(node: Node, shapes: list[Shape]) -> Shape:
    x = shapes[0]
    _expect(len(x) == 4, f"needs an input of rank 4, got {x}")
    if node.attrs["global"]:
        return (x[0], 1, 1, x[3])
    sizes = []
    for size, side, before, after in ((x[1], "h", "top", "bottom"), (x[2], "w", "left", "right")):
        stride, pad = _int(node, f"stride_{side}"), _int(node, f"pad_{before}")
        room = size + pad + _int(node, f"pad_{after}") - _int(node, f"kernel_{side}")
        out = room // stride + 1
        # A last window that begins in the padding behind does not count.
        more = node.attrs["ceil_mode"] and room % stride and out * stride < size + pad
        sizes.append(out + 1 if room >= 0 and more else out)
    return (x[0], *sizes, x[3])


def _concat(node: Node, shapes: list[Shape]) -> Shape:
    axis = _int(node, "axis")
    first = shapes[0]
    for other in shapes[1:]:
        fits = len(other) == len(first) and all(
            p == q for k, (p, q) in enumerate(zip(first, other, strict=True)) if k != axis
        )
        _expect(fits, f"{first} and {other} cannot be joined")
    return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])


def _slice(node: Node, shapes: list[Shape]) -> Shape:
    axis, x = _int(node, "axis"), shapes[0]
    cut = slice(_int(node, "start"), _int(node, "stop"), _int(node, "step"))
    return (*x[:axis], len(range(*cut.indices(x[axis]))), *x[axis + 1 :])


def _resize(node: Node, shapes: list[Shape]) -> Shape:
    x = shapes[0]
    sizes = [
        _int(node, f"out_{side}") or math.floor(size * float(node.attrs[f"scale_{side}"]))  # type: ignore[arg-type]
        for size, side in ((x[1], "h"), (x[2], "w"))
    ]
    return (x[0], *sizes, x[3])


def _pad(node: Node, shapes: list[Shape]) -> Shape:
    amounts = _list(node, "amounts")
    pairs = list(zip(amounts[::2], amounts[1::2], strict=True))
    _expect(len(pairs) == len(shapes[0]), f"the amounts do not fit {shapes[0]}")
    if node.attrs["mode"] == 1:
        fits = all(max(pair) < d for pair, d in zip(pairs, shapes[0], strict=True))
        _expect(fits, f"reflection needs more elements than {shapes[0]} has")
    return tuple(d + sum(pair) for d, pair in zip(shapes[0], pairs, strict=True))


def _reshape(node: Node, shapes: list[Shape]) -> Shape:
    x, dims = shapes[0], list(_list(node, "dims"))
    dims = [x[i] if d == 0 and i < len(x) else d for i, d in enumerate(dims)]
    if -1 in dims:
        known = math.prod(d for d in dims if d != -1)
        dims[dims.index(-1)] = math.prod(x) // known
    _expect(math.prod(dims) == math.prod(x), f"{x} has another number of elements than {dims}")
    return tuple(dims)


def _transpose(node: Node, shapes: list[Shape]) -> Shape:
    perm = _list(node, "perm")
    _expect(sorted(perm) == list(range(len(shapes[0]))), f"perm {perm} does not fit {shapes[0]}")
    return tuple(shapes[0][axis] for axis in perm)


def _reduce(node: Node, shapes: list[Shape]) -> Shape:
    axes, keep = _list(node, "axes"), bool(node.attrs["keepdims"])
    kept = ((1 if i in axes else d) for i, d in enumerate(shapes[0]) if keep or i not in axes)
    return tuple(kept)


_RULES: dict[str, Callable[[Node, list[Shape]], Shape]] = {
    "conv": _convolution,
    "conv_transpose": _convolution,
    "fully_connected": _fully_connected,
    "prelu": _prelu,
    "add": _binary,
    "sub": _binary,
    "mul": _binary,
    "div": _binary,
    "max_pool": _pool,
    "average_pool": _pool,
    "concat": _concat,
    "slice": _slice,
    "resize": _resize,
    "pad": _pad,
    "reshape": _reshape,
    "transpose": _transpose,
    "reduce_mean": _reduce,
    "reduce_sum": _reduce,
    "reduce_l2": _reduce,
}
