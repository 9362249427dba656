"""Every kernel but convolutions, one operation at a time.

The reference is held against NumPy or ONNX Runtime, every other kernel against the reference:
the same bytes, with any number of threads.
"""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from pyedge import _core

INF = float("inf")
Quant = tuple[float, int]
SYMMETRIC: Quant = (0.043, 0)
NON_NEGATIVE: Quant = (0.021, -128)
SHIFTED: Quant = (0.07, 17)
QUANTS = [SYMMETRIC, NON_NEGATIVE, SHIFTED]
ALL_I8 = np.arange(-128, 128, dtype=np.int8)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def run_all(op, ints, floats, inputs, quants=(), out_dtype="f32", out_quant=(0.0, 0)):
    """What the reference computes, after every other kernel has given the same bytes."""
    arguments = (op, list(ints), list(floats), list(inputs), list(quants), out_dtype, out_quant)
    names = [name for name, _, runs in _core.kernel_names(op) if runs]
    results = {name: _core.run_op(*arguments, kernel=name) for name in names}
    results = {name: result for name, result in results.items() if result is not None}
    assert len([name for name in results if name.endswith("_reference")]) == 1
    reference = next(result for name, result in results.items() if name.endswith("_reference"))
    for name, result in results.items():
        assert result.dtype == reference.dtype
        assert result.tobytes() == reference.tobytes(), name
        threaded = _core.run_op(*arguments, kernel=name, threads=3)
        assert threaded.tobytes() == reference.tobytes(), f"{name} with threads"
    return reference


def floats_with_extremes(rng, shape):
    x = rng.normal(size=shape).astype(np.float32) * 3
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 3e38, -3e38], np.float32)
    flat = x.reshape(-1)
    flat[rng.choice(flat.size, min(flat.size // 2, special.size), replace=False)] = special[
        : min(flat.size // 2, special.size)
    ]
    return x


def random_i8(rng, shape):
    return rng.integers(-128, 128, shape).astype(np.int8)


def clamp(x, lo, hi):
    """NaN becomes lo."""
    x = np.where(x > lo, x, np.float32(lo))
    return np.where(x < hi, x, np.float32(hi)).astype(np.float32)


def requantize(steps, quant: Quant, act_min=-INF, act_max=INF):
    scale, zero_point = np.float64(np.float32(quant[0])), quant[1]
    lo = np.float32(np.clip(np.float32(act_min) / scale, -128 - zero_point, 127 - zero_point))
    hi = np.float32(np.clip(np.float32(act_max) / scale, -128 - zero_point, 127 - zero_point))
    clamped = clamp(np.asarray(steps, np.float32), lo, hi)
    return (np.rint(clamped).astype(np.int32) + zero_point).astype(np.int8)


def ratio(s_x, s_y, divisor=1):
    """s_x / (s_y * divisor) in double, rounded to float."""
    return np.float32(np.float64(np.float32(s_x)) / (np.float64(np.float32(s_y)) * divisor))


def dequantize(q, quant: Quant):
    return (q.astype(np.float32) - np.float32(quant[1])) * np.float32(quant[0])


def quantize(x, quant: Quant):
    reciprocal = np.float32(1.0 / np.float64(np.float32(quant[0])))
    with np.errstate(all="ignore"):
        return requantize(x.astype(np.float32) * reciprocal, quant)


def rescale(q, x_quant: Quant, y_quant: Quant):
    steps = (q.astype(np.float32) - np.float32(x_quant[1])) * ratio(x_quant[0], y_quant[0])
    return requantize(steps, y_quant)


def ort(op_type, inputs, opset=19, **attributes):
    """One ONNX node in ONNX Runtime, with the first input as the graph's and constants after."""
    x, *constants = inputs
    names = ["x"] + [f"c{i}" if c is not None else "" for i, c in enumerate(constants)]
    initializers = [
        onnx.numpy_helper.from_array(c, f"c{i}") for i, c in enumerate(constants) if c is not None
    ]
    graph = helper.make_graph(
        [helper.make_node(op_type, names, ["y"], **attributes)],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})[0]


def nchw(x):
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def nhwc(x):
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


# ---- unary

UNARY = {
    "clip": ([-1.5, 4.0], lambda x: clamp(x, -1.5, 4.0)),
    "sigmoid": ([], lambda x: 1 / (1 + np.exp(-x))),
    "hard_sigmoid": ([0.2, 0.5], lambda x: np.clip(x * 0.2 + 0.5, 0, 1)),
    "hard_swish": ([], lambda x: x * np.clip(x + 3, 0, 6) / 6),
    "tanh": ([], np.tanh),
}


@pytest.mark.parametrize("op", UNARY)
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 127), (2, 5, 7, 13), (1, 80, 80, 33)])
def test_unary_f32(op, shape, rng):
    floats, function = UNARY[op]
    x = (rng.normal(size=shape) * 4).astype(np.float32)
    expected = function(x.astype(np.float64))
    np.testing.assert_allclose(run_all(op, [], floats, [x]), expected, rtol=3e-7, atol=3e-7)


@pytest.mark.parametrize("op", UNARY)
def test_unary_f32_extremes(op, rng):
    x = floats_with_extremes(rng, (5, 41))
    x[0, :4] = [88.0, -88.0, 800.0, -800.0]
    y = run_all(op, [], UNARY[op][0], [x])
    finite = np.isfinite(x)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = UNARY[op][1](x.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(y[finite], expected[finite], rtol=3e-7, atol=3e-7)


@pytest.mark.parametrize("op", UNARY)
@pytest.mark.parametrize(("x_quant", "y_quant"), list(itertools.product(QUANTS, QUANTS)))
def test_unary_i8(op, x_quant, y_quant):
    floats, _ = UNARY[op]
    # The f32 kernel is tested above; the table must hold its values, quantized.
    real = _core.run_op(op, [], floats, [dequantize(ALL_I8, x_quant)], [], "f32", (0.0, 0))
    y = run_all(op, [], floats, [ALL_I8], [x_quant], "i8", y_quant)
    np.testing.assert_array_equal(y, quantize(real, y_quant))


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 5, 7, 13), (1, 56, 56, 64), (3, 9, 300)])
def test_prelu_f32(shape, rng):
    x = floats_with_extremes(rng, shape)
    slope = rng.normal(size=shape[-1]).astype(np.float32)
    with np.errstate(all="ignore"):
        expected = np.where(x < 0, x * slope, x)
    np.testing.assert_array_equal(run_all("prelu", [], [], [x, slope]), expected)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 5, 7, 13), (1, 56, 56, 64), (3, 9, 300)])
@pytest.mark.parametrize(("x_quant", "y_quant"), [(SYMMETRIC, SHIFTED), (SHIFTED, NON_NEGATIVE)])
def test_prelu_i8(shape, x_quant, y_quant, rng):
    x = random_i8(rng, shape)
    slope = rng.normal(size=shape[-1]).astype(np.float32)
    steps = (x.astype(np.float32) - np.float32(x_quant[1])) * ratio(x_quant[0], y_quant[0])
    expected = requantize(np.where(steps < 0, steps * slope, steps), y_quant)
    y = run_all("prelu", [], [], [x, slope], [x_quant], "i8", y_quant)
    np.testing.assert_array_equal(y, expected)


# ---- binary

BINARY = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}
BROADCASTS = [
    ((3,), (3,)),
    ((2, 7, 5, 19), (2, 7, 5, 19)),
    ((1, 60, 60, 33), (1, 60, 60, 33)),
    ((2, 7, 5, 19), (19,)),
    ((19,), (2, 7, 5, 19)),
    ((3, 28, 28, 64), (64,)),
    ((2, 60, 70, 3), (3,)),
    ((1, 40, 41, 17), (1, 1, 1, 17)),
    ((3, 7, 5, 70), (3, 1, 1, 70)),
    ((3, 7, 5, 19), (3, 7, 5, 1)),
    ((3, 70, 75, 19), ()),
    ((), ()),
    ((5, 1), (1, 4)),
    ((1, 3, 1, 7), (5, 1, 6, 1)),
    ((2, 1, 3, 1, 5, 1), (1, 4, 1, 2, 1, 3)),
    ((2, 3, 4, 5, 6, 7), (3, 1, 5, 1, 7)),
    ((1, 1, 1, 1), (2, 2)),
]


def binary_i8(op, a, b, quants, act_min, act_max):
    """The documented formula of the i8 operations."""
    (s_a, z_a), (s_b, z_b), (s_y, z_y) = quants
    p, q = a.astype(np.int32) - z_a, b.astype(np.int32) - z_b
    wide_p, wide_q = p.astype(np.longdouble), q.astype(np.float32)
    if op in ("add", "sub"):
        second = wide_q * ratio(s_b, s_y)  # rounded to float before the fused multiply-add
        sign = 1 if op == "add" else -1
        steps = (wide_p * ratio(s_a, s_y) + sign * second.astype(np.longdouble)).astype(np.float32)
    elif op == "mul":
        scale = np.float64(np.float32(s_a)) * np.float64(np.float32(s_b))
        steps = (p * q).astype(np.float32) * np.float32(scale / np.float64(np.float32(s_y)))
    else:
        scale = np.float64(np.float32(s_a)) / np.float64(np.float32(s_b))
        scale = scale / np.float64(np.float32(s_y))
        with np.errstate(all="ignore"):
            quotient = p.astype(np.float32) / q.astype(np.float32) * np.float32(scale)
        steps = np.where(q == 0, np.sign(p) * np.float32(1e30), quotient)
    return requantize(steps, (s_y, z_y), act_min, act_max)


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize(("a_shape", "b_shape"), BROADCASTS)
def test_binary_f32(op, a_shape, b_shape, rng):
    a, b = (rng.normal(size=shape).astype(np.float32) for shape in (a_shape, b_shape))
    for lo, hi in [(-INF, INF), (0.0, INF), (-0.5, 1.0)]:
        expected = clamp(BINARY[op](a, b), lo, hi)
        np.testing.assert_array_equal(run_all(op, [], [lo, hi], [a, b]), expected)


@pytest.mark.parametrize("op", BINARY)
def test_binary_f32_extremes(op, rng):
    a, b = floats_with_extremes(rng, (13, 37)), floats_with_extremes(rng, (13, 37))
    with np.errstate(all="ignore"):
        expected = clamp(BINARY[op](a, b), -INF, INF)
    np.testing.assert_array_equal(run_all(op, [], [-INF, INF], [a, b]), expected)


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize(("a_shape", "b_shape"), BROADCASTS)
def test_binary_i8(op, a_shape, b_shape, rng):
    a, b = random_i8(rng, a_shape), random_i8(rng, b_shape)
    quants = [SYMMETRIC, SHIFTED, NON_NEGATIVE]
    y = run_all(op, [], [-INF, INF], [a, b], quants[:2], "i8", quants[2])
    np.testing.assert_array_equal(y, binary_i8(op, a, b, quants, -INF, INF))


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("quants", list(itertools.product(QUANTS, QUANTS, QUANTS)))
def test_binary_i8_every_pair(op, quants):
    a, b = np.repeat(ALL_I8, 256), np.tile(ALL_I8, 256)
    for lo, hi in [(-INF, INF), (0.0, 1.3), (-500.0, -400.0)]:
        y = run_all(op, [], [lo, hi], [a, b], quants[:2], "i8", quants[2])
        np.testing.assert_array_equal(y, binary_i8(op, a, b, quants, lo, hi))


MIXED = [t for t in itertools.product(("f32", "i8"), repeat=3) if len(set(t)) == 2]


@pytest.mark.parametrize("op", ["add", "sub", "mul"])
@pytest.mark.parametrize("dtypes", MIXED, ids="-".join)
@pytest.mark.parametrize(("a_shape", "b_shape"), BROADCASTS)
def test_mixed_types_give_the_bytes_of_separate_conversions(op, dtypes, a_shape, b_shape, rng):
    quants = [SYMMETRIC, SHIFTED, NON_NEGATIVE]
    given, plain = [], []
    for dtype, shape, quant in zip(dtypes, (a_shape, b_shape), quants, strict=False):
        x = random_i8(rng, shape) if dtype == "i8" else floats_with_extremes(rng, shape)
        given.append(x)
        plain.append(x if dtype == "f32" else run_all("dequantize", [], [], [x], [quant]))
    for bounds in [(-INF, INF), (0.0, 1.3)]:
        want = run_all(op, [], bounds, plain)
        if dtypes[2] == "i8":
            want = run_all("quantize", [], [], [want], [], "i8", quants[2])
        got = run_all(op, [], bounds, given, quants[:2], dtypes[2], quants[2])
        np.testing.assert_array_equal(got, want)


def test_div_takes_no_mixed_types():
    f32, i8 = np.ones(3, np.float32), np.ones(3, np.int8)
    for name, *_ in _core.kernel_names("div"):
        for inputs, out_dtype in [([f32, i8], "f32"), ([i8, i8], "f32"), ([f32, f32], "i8")]:
            quants, out_quant = [SYMMETRIC] * 2, SYMMETRIC
            arguments = ("div", [], [-INF, INF], inputs, quants, out_dtype, out_quant)
            assert _core.run_op(*arguments, kernel=name) is None


# ---- pools

POOLS = [  # kernel, stride, pads (top left bottom right), size
    ((2, 2), (2, 2), (0, 0, 0, 0), (8, 12)),
    ((3, 3), (2, 2), (1, 1, 1, 1), (7, 9)),
    ((3, 2), (1, 3), (0, 1, 2, 0), (11, 10)),
    ((3, 3), (2, 2), (0, 0, 1, 1), (6, 8)),
    ((1, 1), (2, 2), (0, 0, 0, 0), (5, 5)),
    ((5, 7), (5, 7), (0, 0, 0, 0), (5, 7)),
]


def pool_ints(case, ceil_mode, *rest):
    kernel, stride, pads, _ = case
    return [0, *kernel, *stride, *pads, int(ceil_mode), *rest]


def windows(case, out_shape, include_pad=False):
    """(output pixel, slices of the taps inside, count) of every window."""
    kernel, stride, pads, size = case
    for out in np.ndindex(*out_shape):
        start = [out[i] * stride[i] - pads[i] for i in range(2)]
        stop = [start[i] + kernel[i] for i in range(2)]
        inside = [slice(max(start[i], 0), min(stop[i], size[i])) for i in range(2)]
        ends = [min(stop[i], size[i] + pads[i + 2]) for i in range(2)]
        padded = (ends[0] - start[0]) * (ends[1] - start[1])
        taps = np.prod([s.stop - s.start for s in inside])
        yield out, inside, padded if include_pad else taps


@pytest.mark.parametrize("case", POOLS)
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(("batch", "channels"), [(1, 3), (3, 64), (1, 130)])
def test_max_pool_f32(case, ceil_mode, batch, channels, rng):
    x = rng.normal(size=(batch, *case[3], channels)).astype(np.float32)
    kernel, stride, pads, _ = case
    expected = ort(
        "MaxPool", [nchw(x)], kernel_shape=kernel, strides=stride, pads=pads, ceil_mode=ceil_mode
    )
    y = run_all("max_pool", pool_ints(case, ceil_mode), [], [x])
    np.testing.assert_array_equal(y, nhwc(expected))


@pytest.mark.parametrize("case", POOLS)
@pytest.mark.parametrize("y_quant", [SYMMETRIC, SHIFTED])
def test_max_pool_i8(case, y_quant, rng):
    x = random_i8(rng, (2, *case[3], 37))
    y = run_all("max_pool", pool_ints(case, True), [], [x], [SYMMETRIC], "i8", y_quant)
    expected = np.zeros_like(y)
    for (row, column), (ys, xs), _ in windows(case, y.shape[1:3]):
        expected[:, row, column] = x[:, ys, xs].max((1, 2))
    if y_quant != SYMMETRIC:
        expected = rescale(expected, SYMMETRIC, y_quant)
    np.testing.assert_array_equal(y, expected)


def test_max_pool_ignores_nan(rng):
    x = floats_with_extremes(rng, (1, 6, 6, 5))
    case = ((3, 3), (1, 1), (1, 1, 1, 1), (6, 6))
    y = run_all("max_pool", pool_ints(case, False), [], [x])
    for (row, column), (ys, xs), _ in windows(case, (6, 6)):
        taps = np.where(np.isnan(x[:, ys, xs]), -np.inf, x[:, ys, xs])
        np.testing.assert_array_equal(y[:, row, column], taps.max((1, 2)))


@pytest.mark.parametrize("case", POOLS)
@pytest.mark.parametrize("include_pad", [False, True])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_average_pool_f32(case, include_pad, ceil_mode, rng):
    x = rng.normal(size=(2, *case[3], 35)).astype(np.float32)
    kernel, stride, pads, _ = case
    expected = ort(
        "AveragePool",
        [nchw(x)],
        kernel_shape=kernel,
        strides=stride,
        pads=pads,
        ceil_mode=ceil_mode,
        count_include_pad=include_pad,
    )
    y = run_all("average_pool", pool_ints(case, ceil_mode, int(include_pad)), [], [x])
    np.testing.assert_allclose(y, nhwc(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", POOLS)
@pytest.mark.parametrize("include_pad", [False, True])
@pytest.mark.parametrize(("x_quant", "y_quant"), [(SYMMETRIC, SYMMETRIC), (NON_NEGATIVE, SHIFTED)])
def test_average_pool_i8(case, include_pad, x_quant, y_quant, rng):
    x = random_i8(rng, (2, *case[3], 37))
    ints = pool_ints(case, True, int(include_pad))
    y = run_all("average_pool", ints, [], [x], [x_quant], "i8", y_quant)
    expected = np.zeros_like(y)
    for (row, column), (ys, xs), count in windows(case, y.shape[1:3], include_pad):
        total = (x[:, ys, xs].astype(np.int64) - x_quant[1]).sum((1, 2))
        steps = total.astype(np.float32) * ratio(x_quant[0], y_quant[0], count)
        expected[:, row, column] = requantize(steps, y_quant)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 7, 7, 129), (1, 20, 20, 1280), (2, 9, 3, 5)])
def test_global_pools(shape, rng):
    x = rng.normal(size=shape).astype(np.float32)
    no_window = [1] + [0] * 9
    y = run_all("average_pool", [*no_window, 0], [], [x])
    expected = x.astype(np.float64).mean((1, 2), keepdims=True)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(
        run_all("max_pool", no_window, [], [x]), x.max((1, 2), keepdims=True)
    )
    q = random_i8(rng, shape)
    y = run_all("average_pool", [*no_window, 0], [], [q], [SYMMETRIC], "i8", SHIFTED)
    total = q.astype(np.int64).sum((1, 2), keepdims=True).astype(np.float32)
    steps = total * ratio(SYMMETRIC[0], SHIFTED[0], shape[1] * shape[2])
    np.testing.assert_array_equal(y, requantize(steps, SHIFTED))


# ---- movement

CONCATS = [
    ([(2, 3, 4, 5), (2, 3, 4, 1), (2, 3, 4, 7)], 3),
    ([(2, 3, 4, 5), (2, 1, 4, 5)], 1),
    ([(3,), (4,)], 0),
    ([(1, 40, 40, 64), (1, 40, 40, 33)], 3),
    ([(1, 6400, 2), (1, 1600, 2), (1, 400, 2)], 1),
    ([(2, 2, 1, 2, 1, 3)], 4),
    ([(1, 2)] * 64, 1),
]


@pytest.mark.parametrize(("shapes", "axis"), CONCATS)
def test_concat(shapes, axis, rng):
    xs = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    np.testing.assert_array_equal(run_all("concat", [axis], [], xs), np.concatenate(xs, axis))
    qs = [random_i8(rng, shape) for shape in shapes]
    quants = [QUANTS[i % 3] for i in range(len(qs))]
    y = run_all("concat", [axis], [], qs, quants, "i8", SHIFTED)
    parts = [
        q if quant == SHIFTED else rescale(q, quant, SHIFTED)
        for q, quant in zip(qs, quants, strict=True)
    ]
    np.testing.assert_array_equal(y, np.concatenate(parts, axis))


@pytest.mark.parametrize(
    ("shape", "axis", "start", "stop", "step"),
    [
        ((10,), 0, 2, 9, 3),
        ((2, 7, 5, 8), 3, 4, 8, 1),
        ((2, 7, 5, 8), 1, -3, 100, 2),
        ((2, 7, 5, 8), 2, 4, -100, -1),
        ((2, 7, 5, 8), 3, 100, 1, -3),
        ((3, 4), 0, 1, -1, 1),
    ],
)
def test_slice(shape, axis, start, stop, step, rng):
    index = (slice(None),) * axis + (slice(start, stop, step),)
    x = rng.normal(size=shape).astype(np.float32)
    ints = [axis, start, stop, step]
    np.testing.assert_array_equal(run_all("slice", ints, [], [x]), x[index])
    q = random_i8(rng, shape)
    y = run_all("slice", ints, [], [q], [SHIFTED], "i8", SHIFTED)
    np.testing.assert_array_equal(y, q[index])


PADS = [
    ((5,), [(2, 3)]),
    ((2, 5, 6, 3), [(0, 0), (1, 2), (3, 0), (0, 0)]),
    ((2, 5, 6, 3), [(0, 0), (1, 1), (1, 1), (1, 2)]),
    ((2, 3, 4, 2, 3, 2), [(1, 0), (0, 1), (2, 2), (0, 0), (1, 1), (1, 1)]),
]


@pytest.mark.parametrize(("shape", "amounts"), PADS)
@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize("y_quant", [SYMMETRIC, SHIFTED])
def test_pad(shape, amounts, mode, y_quant, rng):
    value = 0.77
    ints = [["constant", "reflect", "edge"].index(mode), *itertools.chain(*amounts)]
    options = {"constant_values": np.float32(value)} if mode == "constant" else {}
    x = rng.normal(size=shape).astype(np.float32)
    expected = np.pad(x, amounts, mode, **options)
    np.testing.assert_array_equal(run_all("pad", ints, [value], [x]), expected)
    q = random_i8(rng, shape)
    moved = q if y_quant == SYMMETRIC else rescale(q, SYMMETRIC, y_quant)
    if mode == "constant":
        options = {"constant_values": quantize(np.float32(value), y_quant)}
    y = run_all("pad", ints, [value], [q], [SYMMETRIC], "i8", y_quant)
    np.testing.assert_array_equal(y, np.pad(moved, amounts, mode, **options))


TRANSPOSES = [
    ((7,), (0,)),
    ((5, 9), (1, 0)),
    ((1, 3, 112, 112), (0, 2, 3, 1)),
    ((3, 3, 17, 19), (0, 2, 3, 1)),
    ((2, 17, 19, 3), (0, 3, 1, 2)),
    ((1, 7, 9, 64), (0, 3, 1, 2)),
    ((2, 130, 9, 5), (0, 2, 3, 1)),
    ((2, 4, 33, 31), (0, 2, 3, 1)),
    ((2, 31, 33, 2), (0, 3, 1, 2)),
    ((3, 1, 8, 8), (0, 2, 3, 1)),
    ((2, 3, 4, 5), (3, 2, 1, 0)),
    ((6, 35, 67), (1, 0, 2)),
    ((2, 3, 4, 5, 6, 7), (0, 3, 5, 1, 4, 2)),
    ((2, 3, 4, 5, 6, 7), (5, 4, 3, 2, 1, 0)),
]


@pytest.mark.parametrize(("shape", "perm"), TRANSPOSES)
def test_transpose(shape, perm, rng):
    x = rng.normal(size=shape).astype(np.float32)
    np.testing.assert_array_equal(run_all("transpose", perm, [], [x]), x.transpose(perm))
    q = random_i8(rng, shape)
    y = run_all("transpose", perm, [], [q], [SHIFTED], "i8", SHIFTED)
    np.testing.assert_array_equal(y, q.transpose(perm))


# ---- resize

COORDINATES = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
ROUNDINGS = ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]
TARGETS = [(2.0, 2.0), (0.5, 0.5), (1.5, 2.7), (0.3, 1.0), (14, 10), (5, 3), (1, 1), (7, 18)]


def resize_both(x, mode, coordinates, rounding, target):
    """ONNX Runtime's result, and the attributes that ask for the same."""
    by_size = isinstance(target[0], int)
    scales = None if by_size else np.array([1, 1, *target], np.float32)
    sizes = np.array([x.shape[0], x.shape[3], *target], np.int64) if by_size else None
    inputs = [nchw(x), None, scales] + ([sizes] if by_size else [])
    expected = ort(
        "Resize",
        inputs,
        mode=mode,
        coordinate_transformation_mode=coordinates,
        nearest_mode=rounding,
    )
    ints = [["nearest", "linear"].index(mode), COORDINATES.index(coordinates)]
    ints += [ROUNDINGS.index(rounding), *(target if by_size else (0, 0))]
    return nhwc(expected), ints, [1.0, 1.0] if by_size else list(target)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("target", TARGETS)
def test_resize_nearest(coordinates, rounding, target, rng):
    x = rng.normal(size=(2, 7, 9, 5)).astype(np.float32)
    expected, ints, floats = resize_both(x, "nearest", coordinates, rounding, target)
    np.testing.assert_array_equal(run_all("resize", ints, floats, [x]), expected)
    q = random_i8(rng, x.shape)
    same = run_all("resize", ints, floats, [q], [SHIFTED], "i8", SHIFTED)
    as_float = run_all("resize", ints, floats, [q.astype(np.float32)])
    np.testing.assert_array_equal(same, as_float.astype(np.int8))
    other = run_all("resize", ints, floats, [q], [SHIFTED], "i8", SYMMETRIC)
    np.testing.assert_array_equal(other, rescale(same, SHIFTED, SYMMETRIC))


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("target", TARGETS)
def test_resize_linear(coordinates, target, rng):
    x = rng.normal(size=(2, 7, 9, 37)).astype(np.float32)
    expected, ints, floats = resize_both(x, "linear", coordinates, "floor", target)
    y = run_all("resize", ints, floats, [x])
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    # i8 interpolates q - z_x as f32 does any other value.
    q = random_i8(rng, x.shape)
    steps = run_all("resize", ints, floats, [q.astype(np.float32) - np.float32(SHIFTED[1])])
    y = run_all("resize", ints, floats, [q], [SHIFTED], "i8", SYMMETRIC)
    scaled = steps * ratio(SHIFTED[0], SYMMETRIC[0])
    np.testing.assert_array_equal(y, requantize(scaled, SYMMETRIC))


# ---- reductions and normalization

REDUCTIONS = [
    ((2, 5, 7, 19), (1, 2)),
    ((2, 5, 7, 19), (3,)),
    ((2, 5, 7, 19), (0, 1, 2, 3)),
    ((9,), (0,)),
    ((2, 3, 4, 5, 6, 2), (0, 2, 5)),
    ((1, 14, 14, 256), (1, 2)),
]


@pytest.mark.parametrize(("shape", "axes"), REDUCTIONS)
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reduce(shape, axes, keepdims, rng):
    x = rng.normal(size=shape).astype(np.float32)
    wide, keep = x.astype(np.float64), bool(keepdims)
    ints = [keepdims, *axes]
    expected = {
        "reduce_mean": wide.mean(axes, keepdims=keep),
        "reduce_sum": wide.sum(axes, keepdims=keep),
        "reduce_l2": np.sqrt((wide**2).sum(axes, keepdims=keep)),
    }
    for op, value in expected.items():
        np.testing.assert_allclose(run_all(op, ints, [], [x]), value, rtol=1e-6, atol=1e-8)
    q = random_i8(rng, shape)
    total = (q.astype(np.int64) - SHIFTED[1]).sum(axes, keepdims=keep).astype(np.float32)
    count = x.size // total.size
    for op, divisor in (("reduce_mean", count), ("reduce_sum", 1)):
        y_quant = (SYMMETRIC[0] * (1 if op == "reduce_mean" else count**0.5), -5)
        steps = total * ratio(SHIFTED[0], y_quant[0], divisor)
        y = run_all(op, ints, [], [q], [SHIFTED], "i8", y_quant)
        np.testing.assert_array_equal(y, requantize(steps, y_quant))


LINES = [((7,), 0), ((3, 10), 1), ((2, 3, 4, 5), 3), ((2, 3, 4, 5), 1), ((1, 300, 2), 2)]


@pytest.mark.parametrize(("shape", "axis"), LINES)
def test_softmax(shape, axis, rng):
    x = (rng.normal(size=shape) * 20).astype(np.float32)
    powers = np.exp(x.astype(np.float64) - x.max(axis, keepdims=True))
    expected = powers / powers.sum(axis, keepdims=True)
    y = run_all("softmax", [axis], [], [x])
    np.testing.assert_allclose(y, expected, rtol=2e-7, atol=1e-40)


@pytest.mark.parametrize(("shape", "axis"), LINES)
def test_l2_normalize(shape, axis, rng):
    x = rng.normal(size=shape).astype(np.float32)
    norm = np.sqrt((x.astype(np.float64) ** 2).sum(axis, keepdims=True))
    y = run_all("l2_normalize", [axis], [1e-12], [x])
    np.testing.assert_allclose(y, x / norm, rtol=2e-7)
    zeros = run_all("l2_normalize", [axis], [1e-12], [np.zeros(shape, np.float32)])
    np.testing.assert_array_equal(zeros, 0)


# ---- quantize, dequantize


@pytest.mark.parametrize("quant", QUANTS)
@pytest.mark.parametrize("shape", [(1,), (3, 127), (1, 80, 80, 33)])
def test_quantize(quant, shape, rng):
    x = (rng.normal(size=shape) * 3).astype(np.float32)
    if x.size > 20:
        x = floats_with_extremes(rng, shape)
    y = run_all("quantize", [], [], [x], [], "i8", quant)
    np.testing.assert_array_equal(y, quantize(x, quant))


def test_quantize_rounds_half_to_even():
    x = np.arange(-130, 131, dtype=np.float32) + np.float32(0.5)
    y = run_all("quantize", [], [], [x], [], "i8", (1.0, 0))
    np.testing.assert_array_equal(y, np.clip(np.rint(x), -128, 127).astype(np.int8))


@pytest.mark.parametrize("quant", QUANTS)
def test_dequantize(quant, rng):
    for q in (ALL_I8, random_i8(rng, (1, 80, 80, 33))):
        y = run_all("dequantize", [], [], [q], [quant], "f32")
        np.testing.assert_array_equal(y, dequantize(q, quant))
