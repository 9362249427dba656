"""Activations and arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .lower import INF, NHWC, Lowering
from .ops_conv import ACT, affine


def identity(ctx: Lowering) -> None:
    ctx.alias(ctx.op.inputs[0])


def cast(ctx: Lowering) -> None:
    """Between float types: everything is computed in f32."""
    if int(ctx.op.attrs["to"]) not in (1, 10, 11, 16):
        ctx.unsupported("to an integer type", "only casts between float types are supported")
    ctx.alias(ctx.op.inputs[0])


def expand(ctx: Lowering) -> None:
    """Left out: arithmetic broadcasts, where its other operand is as large as this result."""
    x, y = ctx.shape(ctx.op.inputs[0]), ctx.shape(ctx.op.outputs[0])
    readers = [n for n in ctx.model.nodes if ctx.op.outputs[0] in n.input]
    arithmetic = all(
        node.op_type in BINARY
        and ctx.model.shapes.get(node.output[0]) == y
        and any(other != ctx.op.outputs[0] and ctx.shape(other) == y for other in node.input)
        for node in readers
    )
    if x != y and (not arithmetic or len(x) != len(y) or ctx.op.outputs[0] in ctx.model.outputs):
        ctx.unsupported(
            f"from {list(x)} to {list(y)}", "only before arithmetic that would broadcast is it"
        )
    ctx.alias(ctx.op.inputs[0])


def unary(op: str) -> Callable[[Lowering], None]:
    """An operation that acts on each element."""

    def lower(ctx: Lowering) -> None:
        x = ctx.op.inputs[0]
        attrs: dict[str, float] = {}
        if op == "hard_sigmoid":
            attrs = {
                "alpha": float(ctx.op.attrs.get("alpha", 0.2)),
                "beta": float(ctx.op.attrs.get("beta", 0.5)),
            }
        nhwc = ctx.prefers_nhwc(x)
        ctx.emit(op, [ctx.get(x, nhwc)], ctx.define(nhwc), **attrs)

    return lower


def relu(ctx: Lowering) -> None:
    _clip(ctx, 0.0, INF)


def clip(ctx: Lowering) -> None:
    bounds = []
    for slot, what, default in ((1, "min", -INF), (2, "max", INF)):
        data = ctx.floats(ctx.op.input(slot), what)
        bounds.append(
            float(ctx.op.attrs.get(what, default)) if data is None else float(data.item())
        )
    if bounds[0] > bounds[1]:
        ctx.unsupported("with min above max", "give min <= max")
    _clip(ctx, *bounds)


def extremum(ctx: Lowering) -> None:
    """Min and Max against one number."""
    constants = [name for name in ctx.op.inputs if ctx.is_constant(name)]
    if (
        len(ctx.op.inputs) != 2
        or len(constants) != 1
        or np.size(ctx.model.constants[constants[0]]) != 1
    ):
        ctx.unsupported("of two activations", "only against one constant number is it supported")
    bound = float(ctx.model.constants[constants[0]].item())
    ctx.op.inputs.sort(key=ctx.is_constant)
    _clip(ctx, *((bound, INF) if ctx.op.type == "Max" else (-INF, bound)))


def _clip(ctx: Lowering, low: float, high: float) -> None:
    x = ctx.op.inputs[0]
    nhwc = ctx.prefers_nhwc(x)
    ctx.emit("clip", [ctx.get(x, nhwc)], ctx.define(nhwc), min=low, max=high)


def leaky_relu(ctx: Lowering) -> None:
    _prelu(ctx, np.array(ctx.op.attrs.get("alpha", 0.01), np.float32))


def prelu(ctx: Lowering) -> None:
    slope = ctx.floats(ctx.op.inputs[1], "slope")
    assert slope is not None
    _prelu(ctx, slope)


def _prelu(ctx: Lowering, slope: np.ndarray) -> None:
    x = ctx.op.inputs[0]
    shape = ctx.shape(x)
    nhwc = len(shape) == 4
    aligned = slope.reshape([1] * (len(shape) - slope.ndim) + list(slope.shape))
    if nhwc:
        aligned = aligned.transpose(NHWC)
    if aligned.size in (1, aligned.shape[-1]):
        channels = shape[1] if nhwc else shape[-1]
        data = np.broadcast_to(aligned.ravel(), (channels,))
        ctx.emit("prelu", [ctx.get(x, nhwc), ctx.weight(data, "slope")], ctx.define(nhwc))
        return
    # A slope for each position: max(x, 0) + slope * min(x, 0).
    value = ctx.get(x, nhwc)
    positive, negative, scaled = (ctx.temporary(s) for s in ("positive", "negative", "scaled"))
    ctx.emit("clip", [value], positive, min=0.0, max=INF)
    ctx.emit("clip", [value], negative, min=-INF, max=0.0)
    ctx.emit("mul", [negative, ctx.weight(aligned, "slope")], scaled, **ACT)
    ctx.emit("add", [positive, scaled], ctx.define(nhwc), **ACT)


BINARY = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div"}


def binary(ctx: Lowering) -> None:
    """NumPy broadcasting; a constant for each channel becomes an affine convolution."""
    kind, names = BINARY[ctx.op.type], ctx.op.inputs
    constants = [ctx.is_constant(name) for name in names]
    if all(constants):
        ctx.unsupported("of two constants", "fold it into one constant")
    if any(constants):
        _with_constant(ctx, kind, constants.index(True))
        return
    if ctx.rank(names[0]) != ctx.rank(names[1]):
        ctx.unsupported(
            f"of the shapes {list(ctx.shape(names[0]))} and {list(ctx.shape(names[1]))}",
            "reshape them to the same rank, with the batch first",
        )
    nhwc = ctx.prefers_nhwc(*names)
    ctx.emit(kind, [ctx.get(name, nhwc) for name in names], ctx.define(nhwc), **ACT)


def _with_constant(ctx: Lowering, kind: str, slot: int) -> None:
    """`slot` says which operand is the constant."""
    x = ctx.op.inputs[1 - slot]
    data = ctx.model.constants[ctx.op.inputs[slot]].astype(np.float32)
    shape = ctx.shape(x)
    if data.ndim > len(shape):
        ctx.unsupported(
            f"of the shape {list(shape)} and a constant of shape {list(data.shape)}",
            "give the constant no more dimensions than the activation has",
        )
    if kind == "div" and slot == 1 and not data.all():
        ctx.unsupported("by a constant that holds zeros", "repair the checkpoint")
    data = data.reshape([1] * (len(shape) - data.ndim) + list(data.shape))
    inverse = kind == "div" and slot == 0
    if len(shape) == 4 and data.size == data.shape[1] and data.size in (1, shape[1]):
        wanted = data.size > 1 or ctx.prefers_nhwc(x) or x in ctx.model.inputs
        if wanted and not inverse:
            scale, shift = _affine_terms(kind, slot, data.astype(np.float64).ravel())
            channels = (shape[1],)
            affine(ctx, x, np.broadcast_to(scale, channels), np.broadcast_to(shift, channels))
            return
    nhwc = ctx.prefers_nhwc(x)
    if data.size == 1:
        data = data.reshape(1)
    elif nhwc:
        data = data.transpose(NHWC)
    value, constant = ctx.get(x, nhwc), ctx.weight(data, "constant")
    if kind == "sub" and slot == 0:
        # A constant stands only on the right in the IR: c - x = -1 * x + c.
        negative = ctx.temporary("negative")
        minus = ctx.weight(np.array([-1.0], np.float32), "minus")
        ctx.emit("mul", [value, minus], negative, **ACT)
        value, kind = negative, "add"
    elif inverse:  # c / x = (1 * c) / x
        ones, numerator = ctx.temporary("ones"), ctx.temporary("numerator")
        ctx.emit("clip", [value], ones, min=1.0, max=1.0)
        ctx.emit("mul", [ones, constant], numerator, **ACT)
        ctx.emit("div", [numerator, value], ctx.define(nhwc), **ACT)
        return
    ctx.emit(kind, [value, constant], ctx.define(nhwc), **ACT)


def _affine_terms(kind: str, slot: int, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """scale and shift of x + c, x - c, c - x, x * c, x / c."""
    one, zero = np.ones_like(c), np.zeros_like(c)
    if kind == "add":
        return one, c
    if kind == "sub":
        return (one, -c) if slot == 1 else (-one, c)
    return (c if kind == "mul" else one / c), zero


def negate(ctx: Lowering) -> None:
    x = ctx.op.inputs[0]
    nhwc = ctx.prefers_nhwc(x)
    constant = ctx.weight(np.array([-1.0], np.float32), "constant")
    ctx.emit("mul", [ctx.get(x, nhwc), constant], ctx.define(nhwc), **ACT)


def power(ctx: Lowering) -> None:
    exponent = ctx.floats(ctx.op.inputs[1], "exponent")
    if exponent is None or exponent.size != 1 or exponent.item() != 2.0:
        ctx.unsupported("with an exponent other than 2", "write it as products")
    x = ctx.op.inputs[0]
    nhwc = ctx.prefers_nhwc(x)
    ctx.emit("mul", [ctx.get(x, nhwc)] * 2, ctx.define(nhwc), **ACT)


def total(ctx: Lowering) -> None:
    """Sum of any number of activations of one rank."""
    names = ctx.op.inputs
    if any(ctx.is_constant(n) or ctx.rank(n) != ctx.rank(names[0]) for n in names):
        ctx.unsupported("with a constant or mixed ranks", "export it as Add")
    nhwc = ctx.prefers_nhwc(*names)
    if len(names) == 1:
        ctx.alias(names[0])
        return
    value = ctx.get(names[0], nhwc)
    for count, name in enumerate(names[1:], 1):
        last = count == len(names) - 1
        output = ctx.define(nhwc) if last else ctx.temporary(f"sum{count}")
        ctx.emit("add", [value, ctx.get(name, nhwc)], output, **ACT)
        value = output
