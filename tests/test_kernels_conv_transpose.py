"""Transposed convolution: f32 against ONNX Runtime, i8 against exact integers in NumPy."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from pyedge import _core

INF = float("inf")
NO_QUANT = (0.0, 0)

# in_c, out_c, kernel, stride, dilation, pads (top, left, bottom, right), output_pad, groups
LAYERS = [
    (1, 1, (2, 2), (2, 2), (1, 1), (0, 0, 0, 0), (0, 0), 1),
    (5, 7, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), (0, 0), 1),
    (4, 6, (3, 3), (2, 2), (1, 1), (1, 1, 1, 1), (1, 1), 2),
    (3, 5, (4, 2), (2, 1), (1, 2), (2, 0, 1, 1), (0, 0), 1),
    (13, 13, (4, 4), (2, 2), (1, 1), (1, 1, 1, 1), (0, 0), 13),
    (2, 3, (3, 5), (3, 4), (2, 1), (0, 3, 2, 0), (2, 1), 1),
]
SIZE = (5, 4)


def attributes(layer):
    _, _, _, stride, dilation, pads, output_pad, groups = layer
    return [*stride, *dilation, *pads, *output_pad, groups]


def onnx_conv_transpose(x, w, layer):
    """x NHWC, w [O, KH, KW, I/groups] → NHWC, float32."""
    in_c, out_c, kernel, stride, dilation, pads, output_pad, groups = layer
    # ONNX takes [I, O/groups, KH, KW].
    grouped = w.reshape(groups, out_c // groups, *kernel, in_c // groups)
    onnx_w = grouped.transpose(0, 4, 1, 2, 3).reshape(in_c, out_c // groups, *kernel)
    node = helper.make_node(
        "ConvTranspose",
        ["x", "w"],
        ["y"],
        strides=stride,
        dilations=dilation,
        pads=pads,
        output_padding=output_pad,
        group=groups,
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [helper.make_tensor("w", TensorProto.FLOAT, onnx_w.shape, onnx_w.ravel())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": x.transpose(0, 3, 1, 2)})[0].transpose(0, 2, 3, 1)


def weight_shape(layer):
    return (layer[1], *layer[2], layer[0] // layer[-1])


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_f32_computes_what_onnx_runtime_computes(layer, batch):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(batch, *SIZE, layer[0])).astype(np.float32)
    w = rng.normal(size=weight_shape(layer)).astype(np.float32)
    bias, slope = rng.normal(size=(2, layer[1])).astype(np.float32)
    inputs = [x, w, bias, None, slope]
    args = "conv_transpose", attributes(layer), [-2.0, 3.0], inputs, [], "f32", NO_QUANT
    got = _core.run_op(*args)
    y = onnx_conv_transpose(x, w, layer) + bias
    want = np.clip(np.where(y < 0, y * slope, y), -2, 3)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert _core.run_op(*args, threads=3).tobytes() == got.tobytes()


def test_denormal_weights_count_as_zero():
    layer = LAYERS[2]
    rng = np.random.default_rng(4)
    x = np.float32(1e37) * rng.normal(size=(1, *SIZE, layer[0])).astype(np.float32)
    denormal = np.float32(1e-37) * rng.normal(size=weight_shape(layer)).astype(np.float32)
    flushed = np.where(np.abs(denormal) < np.finfo(np.float32).tiny, np.float32(0), denormal)
    assert (flushed != denormal).any()
    got, want = (
        _core.run_op("conv_transpose", attributes(layer), [-INF, INF], [x, w], [], "f32", NO_QUANT)
        for w in (denormal, flushed)
    )
    assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("zero_point", [0, -128])
@pytest.mark.parametrize("out_dtype", ["i8", "f32"])
def test_i8_is_exact(layer, zero_point, out_dtype):
    rng = np.random.default_rng(5)
    x = rng.integers(-128, 128, (2, *SIZE, layer[0])).astype(np.int8)
    w = rng.integers(-127, 128, weight_shape(layer)).astype(np.int8)
    bias, slope = rng.normal(size=(2, layer[1])).astype(np.float32)
    weight_scale = rng.uniform(0.001, 0.01, layer[1]).astype(np.float32)
    x_scale, y_scale = np.float32(0.031), np.float32(0.047 if out_dtype == "i8" else 1.0)
    quants = [(float(x_scale), zero_point)] + [NO_QUANT] * 4
    got = _core.run_op(
        "conv_transpose",
        attributes(layer),
        [-4.0, INF],
        [x, w, bias, weight_scale, slope],
        quants,
        out_dtype,
        (float(y_scale), 11) if out_dtype == "i8" else NO_QUANT,
    )

    # Sums of integers below 2^24 are exact in float32.
    acc = onnx_conv_transpose(
        x.astype(np.float32) - zero_point, w.astype(np.float32), layer
    ).astype(np.float64)
    scale = (np.float64(x_scale) * weight_scale / y_scale).astype(np.float32)
    shift = (np.float64(bias) / y_scale).astype(np.float32)
    y = (acc * scale + shift).astype(np.float32)
    y = np.where(y < 0, y * slope, y)
    if out_dtype == "i8":
        lowest = max(np.float32(-4.0 / np.float64(y_scale)), -128 - 11)
        want = (np.rint(np.clip(y, lowest, 127 - 11)) + 11).astype(np.int8)
    else:
        want = np.maximum(y, np.float32(-4.0))
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)
