"""Convolutions, matrix products and per-channel affine operations."""

from __future__ import annotations

import numpy as np

from pyedge.errors import InvalidModelError

from .lower import INF, Lowering

ACT: dict[str, float] = {"act_min": -INF, "act_max": INF}


def spatial(ctx: Lowering, what: str, default: int, count: int = 2) -> list[int]:
    """An attribute with a number for height and width (or before and after of both)."""
    values = [int(v) for v in ctx.op.attrs.get(what, [default] * count)]
    if len(values) != count:
        ctx.unsupported(
            f"with {len(values)} {what}",
            "only images are: give kernels 1-D a dimension of 1, kernels 3-D are not",
        )
    return values


def padding(
    ctx: Lowering, kernel: list[int], strides: list[int], dilations: list[int]
) -> list[int]:
    """pads [top, left, bottom, right] of a convolution or pooling, with auto_pad resolved."""
    mode = ctx.op.attrs.get("auto_pad", "NOTSET")
    if mode == "NOTSET":
        return spatial(ctx, "pads", 0, 4)
    if mode == "VALID":
        return [0, 0, 0, 0]
    _check_same(ctx, mode)
    size = ctx.shape(ctx.op.inputs[0])[2:]
    before, after = [], []
    for s, k, stride, dilation in zip(size, kernel, strides, dilations, strict=True):
        total = max((-(-s // stride) - 1) * stride + (k - 1) * dilation + 1 - s, 0)
        ctx.size_bound |= stride > 1
        small, large = total // 2, total - total // 2
        before.append(large if mode == "SAME_LOWER" else small)
        after.append(small if mode == "SAME_LOWER" else large)
    return before + after


def _check_same(ctx: Lowering, mode: str) -> None:
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        ctx.unsupported(f"with auto_pad '{mode}'", "use explicit pads")


def conv(ctx: Lowering) -> None:
    x, weight = ctx.op.inputs[0], ctx.floats(ctx.op.inputs[1], "weight")
    bias, groups = ctx.floats(ctx.op.input(2), "bias"), int(ctx.op.attrs.get("group", 1))
    value = ctx.nhwc(x)
    assert weight is not None
    if weight.ndim != 4 or weight.shape[1] * groups != ctx.shape(x)[1]:
        ctx.unsupported(
            f"with a weight of shape {list(weight.shape)}, {groups} groups and input "
            f"{list(ctx.shape(x))}",
            "the weight must be [O, I/groups, KH, KW]",
        )
    check_kernel_shape(ctx, weight)
    strides, dilations = spatial(ctx, "strides", 1), spatial(ctx, "dilations", 1)
    pads = padding(ctx, list(weight.shape[2:]), strides, dilations)
    emit_conv(ctx, value, weight.transpose(0, 2, 3, 1), bias, strides, dilations, pads, groups)


def check_kernel_shape(ctx: Lowering, weight: np.ndarray) -> None:
    said, kernel = ctx.op.attrs.get("kernel_shape"), list(weight.shape[2:])
    if said is not None and list(said) != kernel:
        raise InvalidModelError(
            f"{ctx.model.label}: node '{ctx.op.name}': kernel_shape is {list(said)}, the weight "
            f"has {kernel}"
        )


def emit_conv(
    ctx: Lowering,
    value: str,
    weight: np.ndarray,
    bias: np.ndarray | None,
    strides: list[int],
    dilations: list[int],
    pads: list[int],
    groups: int,
) -> None:
    inputs = [value, ctx.weight(weight, "weight")]
    if bias is not None:
        inputs.append(ctx.weight(bias, "bias"))
    ctx.emit(
        "conv",
        inputs,
        ctx.define(nhwc=True),
        stride_h=strides[0],
        stride_w=strides[1],
        dilation_h=dilations[0],
        dilation_w=dilations[1],
        pad_top=pads[0],
        pad_left=pads[1],
        pad_bottom=pads[2],
        pad_right=pads[3],
        groups=groups,
        **ACT,
    )


def affine(ctx: Lowering, x: str, scale: np.ndarray, shift: np.ndarray) -> None:
    """y = scale[c] * x + shift[c] on rank 4: a depthwise 1x1 convolution."""
    weight = scale.astype(np.float32).reshape(-1, 1, 1, 1)
    bias = shift.astype(np.float32) if np.any(shift) else None
    emit_conv(ctx, ctx.nhwc(x), weight, bias, [1, 1], [1, 1], [0] * 4, len(scale))


def batch_normalization(ctx: Lowering) -> None:
    if ctx.op.attrs.get("training_mode", 0) or len([o for o in ctx.op.outputs if o]) > 1:
        ctx.unsupported("in training mode", "export the model in evaluation mode")
    x, arrays = ctx.op.inputs[0], []
    for slot, what in enumerate(("scale", "bias", "mean", "variance"), 1):
        data = ctx.floats(ctx.op.inputs[slot], what)
        assert data is not None
        arrays.append(data.astype(np.float64))
    gamma, beta, mean, variance = arrays
    scale = gamma / np.sqrt(variance + ctx.op.attrs.get("epsilon", 1e-5))
    shift = beta - mean * scale
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        ctx.unsupported("with a negative or vanishing variance", "repair the checkpoint")
    rank = ctx.rank(x)
    if rank == 4:
        affine(ctx, x, scale, shift)
        return
    channel = [-1] + [1] * (rank - 2)  # against [N, C, ...]
    scaled = ctx.temporary("scaled")
    ctx.emit("mul", [ctx.plain(x), ctx.weight(scale.reshape(channel), "scale")], scaled, **ACT)
    shift_name = ctx.weight(shift.reshape(channel), "shift")
    ctx.emit("add", [scaled, shift_name], ctx.define(nhwc=False), **ACT)


def conv_transpose(ctx: Lowering) -> None:
    x, weight = ctx.op.inputs[0], ctx.floats(ctx.op.inputs[1], "weight")
    bias, groups = ctx.floats(ctx.op.input(2), "bias"), int(ctx.op.attrs.get("group", 1))
    value = ctx.nhwc(x)
    assert weight is not None
    if weight.ndim != 4 or weight.shape[0] != ctx.shape(x)[1] or weight.shape[0] % groups:
        ctx.unsupported(
            f"with a weight of shape {list(weight.shape)} and {groups} groups",
            "the weight must be [I, O/groups, KH, KW]",
        )
    inputs, outputs, *kernel = weight.shape
    strides, dilations = spatial(ctx, "strides", 1), spatial(ctx, "dilations", 1)
    output_pads = spatial(ctx, "output_padding", 0)
    pads = _transposed_padding(ctx, kernel, strides, dilations, output_pads)
    # [g, I/g, O/g, KH, KW] to [g, O/g, KH, KW, I/g]
    grouped = weight.reshape(groups, inputs // groups, outputs, *kernel).transpose(0, 2, 3, 4, 1)
    constants = [ctx.weight(grouped.reshape(groups * outputs, *kernel, inputs // groups), "weight")]
    if bias is not None:
        constants.append(ctx.weight(bias, "bias"))
    ctx.emit(
        "conv_transpose",
        [value, *constants],
        ctx.define(nhwc=True),
        stride_h=strides[0],
        stride_w=strides[1],
        dilation_h=dilations[0],
        dilation_w=dilations[1],
        pad_top=pads[0],
        pad_left=pads[1],
        pad_bottom=pads[2],
        pad_right=pads[3],
        output_pad_h=output_pads[0],
        output_pad_w=output_pads[1],
        groups=groups,
        **ACT,
    )


def _transposed_padding(
    ctx: Lowering,
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    output_pads: list[int],
) -> list[int]:
    """pads [top, left, bottom, right]; output_shape and auto_pad as the ONNX text has them."""
    mode = ctx.op.attrs.get("auto_pad", "NOTSET")
    target = ctx.op.attrs.get("output_shape")
    if target is None and mode == "NOTSET":
        return spatial(ctx, "pads", 0, 4)
    if target is None and mode == "VALID":
        return [0, 0, 0, 0]
    size = ctx.shape(ctx.op.inputs[0])[2:]
    if target is None:
        _check_same(ctx, mode)
        target = [s * stride for s, stride in zip(size, strides, strict=True)]
    else:
        target = [int(d) for d in target][-2:]
        ctx.size_bound = True
    before, after = [], []
    for axis in range(2):
        extent = (kernel[axis] - 1) * dilations[axis] + 1
        full = strides[axis] * (size[axis] - 1) + output_pads[axis] + extent
        total = max(full - target[axis], 0)
        output_pads[axis] += max(target[axis] - full, 0)
        small, large = total // 2, total - total // 2
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    return before + after


def gemm(ctx: Lowering) -> None:
    attrs = ctx.op.attrs
    if ctx.is_constant(ctx.op.inputs[0]) or attrs.get("transA", 0):
        ctx.mixes_batch()
    weight = ctx.floats(ctx.op.inputs[1], "second matrix")
    assert weight is not None
    weight = weight * np.float32(attrs.get("alpha", 1.0))
    weight = weight if attrs.get("transB", 0) else weight.T
    addend, beta = ctx.op.input(2), float(attrs.get("beta", 1.0))
    inputs: list[str | None] = [ctx.plain(ctx.op.inputs[0]), ctx.weight(weight, "weight")]
    if addend is None or beta == 0.0:
        ctx.emit("fully_connected", inputs, ctx.define(nhwc=False), **ACT)
        return
    if ctx.is_constant(addend):
        bias = ctx.model.constants[addend].astype(np.float32) * np.float32(beta)
        if bias.ndim == 2 and bias.shape[0] != 1:
            ctx.mixes_batch()
        bias = np.broadcast_to(bias.ravel(), (weight.shape[0],))
        inputs.append(ctx.weight(bias, "bias"))
        ctx.emit("fully_connected", inputs, ctx.define(nhwc=False), **ACT)
        return
    if beta != 1.0:
        ctx.unsupported("with a computed C and beta", "export with beta = 1")
    product = ctx.temporary("product")
    ctx.emit("fully_connected", inputs, product, **ACT)
    ctx.emit("add", [product, ctx.plain(addend)], ctx.define(nhwc=False), **ACT)


def matmul(ctx: Lowering) -> None:
    x = ctx.op.inputs[0]
    if ctx.is_constant(x) or not ctx.is_constant(ctx.op.inputs[1]):
        ctx.unsupported(
            "without a constant second matrix", "attention-like products of activations are not"
        )
    weight = ctx.floats(ctx.op.inputs[1], "second matrix")
    assert weight is not None
    if weight.size != np.prod(weight.shape[-2:]) or weight.ndim < 2 or ctx.rank(x) < weight.ndim:
        ctx.unsupported(
            f"with a matrix of shape {list(weight.shape)}", "use one matrix for the whole batch"
        )
    matrix = weight.reshape(weight.shape[-2:]).T
    inputs = [ctx.plain(x), ctx.weight(matrix, "weight")]
    ctx.emit("fully_connected", inputs, ctx.define(nhwc=False), **ACT)
