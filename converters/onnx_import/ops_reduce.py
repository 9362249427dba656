"""Pooling, reductions, softmax and normalization."""

from __future__ import annotations

from collections.abc import Callable

from pyedge.converters import ir

from .lower import NHWC, Lowering
from .ops_conv import padding, spatial


def pool(op: str) -> Callable[[Lowering], None]:
    def lower(ctx: Lowering) -> None:
        if len([o for o in ctx.op.outputs if o]) > 1:
            ctx.unsupported("with indices", "export without return_indices")
        value = ctx.nhwc(ctx.op.inputs[0])
        if spatial(ctx, "dilations", 1) != [1, 1]:
            ctx.unsupported("with dilation", "use dilation 1")
        kernel, strides = spatial(ctx, "kernel_shape", 1), spatial(ctx, "strides", 1)
        pads = padding(ctx, kernel, strides, [1, 1])
        _emit_pool(
            ctx,
            op,
            value,
            kernel,
            strides,
            pads,
            int(ctx.op.attrs.get("ceil_mode", 0)),
            int(ctx.op.attrs.get("count_include_pad", 0)),
        )

    return lower


def _emit_pool(
    ctx: Lowering,
    op: str,
    value: str,
    kernel: list[int],
    strides: list[int],
    pads: list[int],
    ceil_mode: int,
    include_pad: int,
) -> None:
    attrs: dict[str, ir.Attribute] = {
        "global": 0,
        "kernel_h": kernel[0],
        "kernel_w": kernel[1],
        "stride_h": strides[0],
        "stride_w": strides[1],
        "pad_top": pads[0],
        "pad_left": pads[1],
        "pad_bottom": pads[2],
        "pad_right": pads[3],
        "ceil_mode": ceil_mode,
    }
    if op == "average_pool":
        attrs["count_include_pad"] = include_pad
    ctx.emit(op, [value], ctx.define(nhwc=True), **attrs)


def global_pool(op: str) -> Callable[[Lowering], None]:
    def lower(ctx: Lowering) -> None:
        emit_global_pool(ctx, op, ctx.nhwc(ctx.op.inputs[0]), ctx.define(nhwc=True))

    return lower


def emit_global_pool(ctx: Lowering, op: str, value: str, output: str) -> None:
    attrs: dict[str, ir.Attribute] = {
        "global": 1,
        "kernel_h": 1,
        "kernel_w": 1,
        "stride_h": 1,
        "stride_w": 1,
        "pad_top": 0,
        "pad_left": 0,
        "pad_bottom": 0,
        "pad_right": 0,
        "ceil_mode": 0,
    }
    if op == "average_pool":
        attrs["count_include_pad"] = 0
    ctx.emit(op, [value], output, **attrs)


def reduce(op: str) -> Callable[[Lowering], None]:
    """ReduceMean, ReduceSum, ReduceL2; over a whole plane the mean is a global pool."""

    def lower(ctx: Lowering) -> None:
        x = ctx.op.inputs[0]
        rank, keep = ctx.rank(x), int(ctx.op.attrs.get("keepdims", 1))
        axes = ctx.op.attrs.get("axes") or ctx.integers(ctx.op.input(1), "axes")
        if not axes and ctx.op.attrs.get("noop_with_empty_axes", 0):
            ctx.alias(x)
            return
        axes = sorted({int(a) % rank for a in axes or range(rank)})
        if 0 in axes:
            ctx.mixes_batch()
        pooled = {"reduce_mean": "average_pool", "reduce_max": "max_pool"}.get(op)
        if pooled and rank == 4 and axes == [2, 3]:
            value = ctx.nhwc(x)
            output = ctx.define(nhwc=True) if keep else ctx.temporary("pooled")
            emit_global_pool(ctx, pooled, value, output)
            if not keep:
                ctx.emit("reshape", [output], ctx.define(nhwc=False), dims=[0, -1])
            return
        if op == "reduce_max":
            ctx.unsupported(f"over the axes {axes}", "only over height and width is it supported")
        rest = [axis for axis in NHWC if axis not in axes]
        nhwc = rank == 4 and ctx.prefers_nhwc(x) and (bool(keep) or rest == sorted(rest))
        value = ctx.get(x, nhwc)
        output = ctx.define(nhwc and bool(keep))
        places = sorted(NHWC.index(a) for a in axes) if nhwc else axes
        ctx.emit(op, [value], output, keepdims=keep, axes=places)

    return lower


def softmax(ctx: Lowering) -> None:
    x = ctx.op.inputs[0]
    shape = ctx.shape(x)
    modern = ctx.model.opset >= 13
    axis = int(ctx.op.attrs.get("axis", -1 if modern else 1)) % len(shape)
    if axis == 0:
        ctx.mixes_batch()
    if modern or all(d == 1 for d in shape[axis + 1 :]):
        nhwc = ctx.prefers_nhwc(x)
        place = NHWC.index(axis) if nhwc else axis
        ctx.emit("softmax", [ctx.get(x, nhwc)], ctx.define(nhwc), axis=place)
        return
    # Before opset 13 all axes from `axis` on are one.
    flat, result = ctx.temporary("flat"), ctx.temporary("softmax")
    ctx.emit("reshape", [ctx.plain(x)], flat, dims=[0] * axis + [-1])
    ctx.emit("softmax", [flat], result, axis=axis)
    dims = [0] * axis + list(shape[axis:])
    ctx.emit("reshape", [result], ctx.define(nhwc=False), dims=dims)


def lp_normalization(ctx: Lowering) -> None:
    if int(ctx.op.attrs.get("p", 2)) != 2:
        ctx.unsupported("with p = 1", "use p = 2")
    x = ctx.op.inputs[0]
    axis = int(ctx.op.attrs.get("axis", -1)) % ctx.rank(x)
    if axis == 0:
        ctx.mixes_batch()
    nhwc = ctx.prefers_nhwc(x)
    place = NHWC.index(axis) if nhwc else axis
    epsilon = float(ctx.op.attrs.get("epsilon", 0.0))
    ctx.emit("l2_normalize", [ctx.get(x, nhwc)], ctx.define(nhwc), axis=place, epsilon=epsilon)
