"""Operations that move elements: reshape, transpose, concat, slice, pad, resize."""

from __future__ import annotations

import numpy as np

from .lower import NHWC, Lowering
from .ops_elementwise import identity

INT32_MAX = 2**31 - 1  # beyond every dimension: means the end, as in ONNX


def batch_free_dims(
    before: tuple[int, ...], after: tuple[int, ...], literal: list[int] | None
) -> list[int]:
    """Dimensions for `reshape` that hold at any batch, and where it can be at any image size.

    `before` and `after` are the shapes at batch 1. A -1 of the model stays where it is behind
    the batch. In a target computed from other shapes, or a literal without -1, the first
    dimension that merges several of the input takes what the others leave.
    """
    dims = [0, *after[1:]]
    same = 1
    while same < min(len(before), len(after)) and before[same] == after[same]:
        dims[same] = 0
        same += 1
    if literal is not None and len(literal) == len(after):
        free = [i for i, d in enumerate(literal) if d == -1 and i > 0]
        if -1 in literal:
            return [-1 if i in free else d for i, d in enumerate(dims)]
    place = _first_merged(before, after, same)
    if place is not None:
        dims[place] = -1
    return dims


def _first_merged(before: tuple[int, ...], after: tuple[int, ...], start: int) -> int | None:
    i = start
    for place in range(start, len(after)):
        product, count = 1, 0
        while i < len(before) and product < after[place]:
            product, i, count = product * before[i], i + 1, count + 1
        if product != after[place]:
            return None  # splits a dimension: all of the target is fixed
        if count > 1 or (place == len(after) - 1 and i < len(before)):
            return place
    return None


def reshape(ctx: Lowering) -> None:
    """Reshape, Flatten, Squeeze and Unsqueeze: the target is the inferred shape."""
    x = ctx.op.inputs[0]
    before, after = ctx.shape(x), ctx.shape(ctx.op.outputs[0])
    if not after or after[0] != 1 or not before:
        ctx.mixes_batch()
    if ctx.op.type in ("Squeeze", "Unsqueeze"):
        axes = ctx.op.attrs.get("axes") or ctx.integers(ctx.op.input(1), "axes") or [0]
        if 0 in axes or -max(len(before), len(after)) in axes:
            ctx.mixes_batch()
    if ctx.op.type == "Flatten":
        # Everything ahead of the axis becomes the rows, so it may be the batch alone.
        axis = int(ctx.op.attrs.get("axis", 1))
        if (axis + len(before) if axis < 0 else axis) != 1:
            ctx.mixes_batch()
    if before == after:
        identity(ctx)
        return
    if len(after) > 6:
        ctx.unsupported(f"to rank {len(after)}", "use at most 6 dimensions")
    literal = ctx.model.literals.get(ctx.op.outputs[0])
    dims = batch_free_dims(before, after, literal)
    ctx.emit("reshape", [ctx.plain(x)], ctx.define(nhwc=False), dims=dims)


def transpose(ctx: Lowering) -> None:
    x = ctx.op.inputs[0]
    rank = ctx.rank(x)
    perm = [int(a) for a in ctx.op.attrs.get("perm", range(rank)[::-1])]
    if perm[0] != 0:
        ctx.mixes_batch()
    if ctx.prefers_nhwc(x):
        places = [NHWC.index(axis) for axis in perm]
        if places == [0, 1, 2, 3]:  # what the model wants is NHWC
            value = ctx.nhwc(x)
            ctx.values[ctx.op.outputs[0]] = type(ctx.values[x])(plain=value)
            return
        ctx.emit("transpose", [ctx.nhwc(x)], ctx.define(nhwc=False), perm=places)
        return
    ctx.emit("transpose", [ctx.plain(x)], ctx.define(nhwc=False), perm=perm)


def depth_to_space(ctx: Lowering) -> None:
    """[N, H, W, C] as [N, H, W, b, b, C/b²] (DCR) or [N, H, W, C/b², b, b] (CRD)."""
    block = int(ctx.op.attrs["blocksize"])
    value = ctx.nhwc(ctx.op.inputs[0])
    _, channels, height, width = ctx.shape(ctx.op.inputs[0])
    rest = channels // block**2
    mode = ctx.op.attrs.get("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        ctx.unsupported(f"in the mode '{mode}'", "use DCR or CRD")
    crd = mode == "CRD"
    split, moved = ctx.temporary("split"), ctx.temporary("moved")
    tail = [rest, block, block] if crd else [block, block, rest]
    ctx.emit("reshape", [value], split, dims=[0, 0, 0, *tail])
    perm = [0, 1, 4, 2, 5, 3] if crd else [0, 1, 3, 2, 4, 5]
    ctx.emit("transpose", [split], moved, perm=perm)
    dims = [0, height * block, width * block, rest]
    ctx.emit("reshape", [moved], ctx.define(nhwc=True), dims=dims)


def concat(ctx: Lowering) -> None:
    names = ctx.op.inputs
    rank = ctx.rank(names[0])
    axis = int(ctx.op.attrs["axis"]) % rank
    if axis == 0:
        ctx.mixes_batch()
    if any(ctx.is_constant(name) for name in names):
        ctx.unsupported("with a constant", "add it where it is used instead")
    if len(names) > 64:
        ctx.unsupported(f"of {len(names)} tensors", "concatenate at most 64 at once")
    nhwc = ctx.prefers_nhwc(*names)
    values = [ctx.get(name, nhwc) for name in names]
    place = NHWC.index(axis) if nhwc else axis
    ctx.emit("concat", values, ctx.define(nhwc), axis=place)


def split(ctx: Lowering) -> None:
    x = ctx.op.inputs[0]
    axis = int(ctx.op.attrs.get("axis", 0)) % ctx.rank(x)
    if axis == 0:
        ctx.mixes_batch()
    nhwc = ctx.prefers_nhwc(x)
    place, start = NHWC.index(axis) if nhwc else axis, 0
    value = ctx.get(x, nhwc)
    for slot, output in enumerate(ctx.op.outputs):
        if output:  # sizes from the inferred shapes, whichever form the node has
            stop = start + ctx.shape(output)[axis]
            attrs = {"axis": place, "start": start, "stop": stop, "step": 1}
            ctx.emit("slice", [value], ctx.define(nhwc, slot), **attrs)
            start = stop
        else:
            ctx.unsupported("with an output left out", "name all outputs")


def slice_(ctx: Lowering) -> None:
    """One `slice` for each axis that is cut."""
    x = ctx.op.inputs[0]
    shape = ctx.shape(x)
    starts = ctx.integers(ctx.op.inputs[1], "start") or []
    stops = ctx.integers(ctx.op.inputs[2], "end") or []
    axes = ctx.integers(ctx.op.input(3), "axes") or list(range(len(starts)))
    steps = ctx.integers(ctx.op.input(4), "step") or [1] * len(starts)
    cuts = []
    for start, stop, axis, step in zip(starts, stops, axes, steps, strict=True):
        axis %= len(shape)
        if slice(start, stop, step).indices(shape[axis]) == (0, shape[axis], 1):
            continue
        if axis == 0:
            ctx.mixes_batch()
        start, stop = (max(-INT32_MAX, min(v, INT32_MAX)) for v in (start, stop))
        cuts.append((axis, start, stop, step))
    if not cuts:
        identity(ctx)
        return
    nhwc = ctx.prefers_nhwc(x)
    value = ctx.get(x, nhwc)
    for count, (axis, start, stop, step) in enumerate(cuts, 1):
        output = ctx.define(nhwc) if count == len(cuts) else ctx.temporary(f"cut{count}")
        place = NHWC.index(axis) if nhwc else axis
        ctx.emit("slice", [value], output, axis=place, start=start, stop=stop, step=step)
        value = output


def pad(ctx: Lowering) -> None:
    """Negative amounts cut: they become slices behind the pad."""
    x = ctx.op.inputs[0]
    rank = ctx.rank(x)
    amounts = ctx.op.attrs.get("pads") or ctx.integers(ctx.op.input(1), "pads") or []
    axes = ctx.integers(ctx.op.input(3), "axes") or list(range(rank))
    modes = {"constant": 0, "reflect": 1, "edge": 2}
    mode = ctx.op.attrs.get("mode", "constant")
    if mode not in modes:
        ctx.unsupported(f"in the mode '{mode}'", f"use one of {', '.join(modes)}")
    fill = ctx.floats(ctx.op.input(2), "value")
    value = float(ctx.op.attrs.get("value", 0.0)) if fill is None else float(fill.item())
    full = np.zeros((rank, 2), np.int64)
    half = len(amounts) // 2
    for place, axis in enumerate(axes):
        full[axis % rank] = amounts[place], amounts[place + half]
    if full[0].any():
        ctx.mixes_batch()
    if not full.any():
        identity(ctx)
        return
    if (full < 0).any():
        ctx.unsupported("with negative amounts", "use Slice")
    nhwc = ctx.prefers_nhwc(x) or (rank == 4 and x in ctx.model.inputs)
    if nhwc:
        full = full[NHWC]
    ctx.emit(
        "pad",
        [ctx.get(x, nhwc)],
        ctx.define(nhwc),
        mode=modes[mode],
        amounts=[int(a) for a in full.ravel()],
        value=value,
    )


COORDINATES = {
    "half_pixel": 0,
    "asymmetric": 1,
    "align_corners": 2,
    "pytorch_half_pixel": 3,
}
ROUNDING = {"floor": 0, "ceil": 1, "round_prefer_floor": 2, "round_prefer_ceil": 3}


def resize(ctx: Lowering) -> None:
    x, attrs = ctx.op.inputs[0], ctx.op.attrs
    upsample = ctx.op.type == "Upsample"
    value = ctx.nhwc(x)
    mode = attrs.get("mode", "nearest")
    if mode not in ("nearest", "linear"):
        ctx.unsupported(f"in the mode '{mode}'", "use nearest or linear")
    default = "asymmetric" if upsample else "half_pixel"
    coordinates = attrs.get("coordinate_transformation_mode", default)
    if coordinates not in COORDINATES:
        ctx.unsupported(
            f"with the coordinates '{coordinates}'", f"use one of {', '.join(COORDINATES)}"
        )
    rounding = "floor" if upsample else attrs.get("nearest_mode", "round_prefer_floor")
    if rounding not in ROUNDING:
        ctx.unsupported(f"with the rounding '{rounding}'", f"use one of {', '.join(ROUNDING)}")
    if attrs.get("antialias", 0):
        ctx.unsupported("with antialias", "use antialias=0")
    if attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        ctx.unsupported("that keeps the aspect ratio", "give the sizes")
    before, after = ctx.shape(x), ctx.shape(ctx.op.outputs[0])
    if before[:2] != after[:2]:
        ctx.unsupported("of batch or channels", "resize height and width only")
    scales, sizes = _scales(ctx, upsample)
    ctx.emit(
        "resize",
        [value],
        ctx.define(nhwc=True),
        mode=int(mode == "linear"),
        coordinates=COORDINATES[coordinates],
        rounding=ROUNDING[rounding],
        out_h=sizes[0],
        out_w=sizes[1],
        scale_h=scales[0],
        scale_w=scales[1],
    )


def _scales(ctx: Lowering, upsample: bool) -> tuple[list[float], list[int]]:
    """Scales of height and width, and the sizes where these are what the model fixes."""
    before, after = ctx.shape(ctx.op.inputs[0]), ctx.shape(ctx.op.outputs[0])
    data = ctx.floats(ctx.op.input(1 if upsample else 2), "scales")
    if data is not None and data.size:
        return [float(s) for s in data[-2:]], [0, 0]
    scales = [after[axis] / before[axis] for axis in (2, 3)]
    literal = ctx.op.outputs[0] in ctx.model.literals
    if not literal and all(s == round(s) for s in scales):
        return scales, [0, 0]
    ctx.size_bound |= not literal
    return scales, list(after[2:])
