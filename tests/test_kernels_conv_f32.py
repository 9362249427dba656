"""f32 convolution and fully connected layers.

The reference is held against ONNX Runtime, every other kernel against the reference: the same
bits, with any number of threads. Winograd kernels, which sum differently, are in
test_kernels_winograd_f32.py. Kernels this CPU cannot run are skipped by name.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cache

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from test_kernels_conv_i8 import activated

from pyedge import _core

INF = float("inf")
NO_QUANT = (0.0, 0)
ALL_KERNELS = [row for row in _core.kernel_names("conv") if "_f32_" in row[0]]
KERNELS = [row for row in ALL_KERNELS if "winograd" not in row[0]]


@dataclass(frozen=True)
class Layer:
    """in_c and out_c over all groups; pads are top, left, bottom, right."""

    in_c: int
    out_c: int
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)
    groups: int = 1
    size: tuple[int, int] = (9, 11)
    batch: int = 1
    bias: bool = True
    slope: bool = False
    residual: bool = False
    activation: int = 0
    bounds: tuple[float, float] = (-INF, INF)

    def __str__(self) -> str:
        """What differs from the defaults, short enough for the name of a test."""
        changed = [
            f"{field.name}={getattr(self, field.name)}".replace(" ", "")
            for field in fields(self)[2:]
            if getattr(self, field.name) != field.default
        ]
        return "-".join([f"{self.in_c}>{self.out_c}", *changed])

    @property
    def out_size(self) -> tuple[int, int]:
        spans = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        pads = (self.pads[0] + self.pads[2], self.pads[1] + self.pads[3])
        return tuple((self.size[i] + pads[i] - spans[i]) // self.stride[i] + 1 for i in range(2))


def square(k: int, **changes) -> dict:
    return {"kernel": (k, k), "pads": (k // 2,) * 4, **changes}


LANES = {"depthwise_neon": 4, "depthwise_avx2": 8, "depthwise_avx512vnni": 16}
# Input and output channels of a group: the lanes of the depthwise kernels that find theirs within a
# vector of the image.
GROUPS = {
    (1, 1): {4, 8, 16},
    (1, 2): {4, 8, 16},
    (2, 2): {4, 8, 16},
    (2, 3): {4, 8, 16},
    (3, 3): {4, 16},
    (4, 4): {8, 16},
    (5, 5): {16},
    (7, 7): {8},
    (8, 8): {16},
    (5, 1): set(),
    (16, 16): set(),
}

LAYERS = [
    *(Layer(i, o, **square(1)) for i in (1, 3, 17) for o in (1, 5, 13, 127)),
    *(Layer(i, o) for i in (1, 3, 4, 5, 16) for o in (1, 7, 16, 17, 33, 64)),
    *(Layer(13, 24, **square(k, batch=3, slope=True)) for k in (1, 3, 5, 7)),
    *(Layer(3, 20, **square(k, stride=(2, 2))) for k in (1, 3, 5, 7)),
    Layer(7, 9, stride=(2, 1), size=(7, 7)),
    Layer(7, 9, dilation=(2, 2), size=(7, 8)),
    Layer(3, 9, dilation=(1, 2), pads=(0, 2, 1, 0)),
    Layer(3, 9, kernel=(5, 3), pads=(2, 0, 0, 3), stride=(1, 2)),
    Layer(2, 3, kernel=(7, 7), pads=(6, 6, 6, 6), size=(1, 2)),
    Layer(300, 40, size=(7, 7), residual=True, slope=True),
    Layer(64, 96, size=(14, 14), batch=3, residual=True, bounds=(0.0, 6.0)),
    Layer(12, 18, groups=3, bias=False, bounds=(-0.5, 0.5)),
    Layer(10, 70, groups=2, slope=True, residual=True),
    Layer(6, 12, groups=6),
    Layer(8, 8, groups=8, size=(1, 1)),
    *(
        Layer(c, c, groups=c, stride=(s, s), slope=True, batch=3, size=(13, 23))
        for c in (3, 5, 16, 17, 127)
        for s in (1, 2)
    ),
    *(Layer(24, 24, groups=24, **square(k, size=(8, 29), residual=True)) for k in (1, 5, 7)),
    *(
        Layer(g * i, g * o, groups=g, stride=(s, s), slope=s == 1, batch=2, size=(13, 23))
        for i, o in GROUPS
        for g in (3, 17)
        for s in (1, 2)
    ),
    Layer(254, 254, groups=127),
    Layer(34, 34, groups=17, dilation=(2, 1), pads=(2, 0, 1, 3)),
    Layer(52, 52, groups=13, kernel=(5, 3), stride=(3, 1), residual=True),
    Layer(16, 16, **square(1, groups=8, batch=3)),
    Layer(34, 51, **square(5, groups=17, stride=(2, 2), bias=False, bounds=(0.0, 6.0))),
    Layer(6, 6, groups=3, kernel=(7, 7), pads=(6, 6, 6, 6), size=(1, 2)),
    Layer(12, 12, groups=6, activation=3),
    Layer(70, 70, groups=70, stride=(3, 2), dilation=(2, 2), pads=(2, 4, 1, 0), size=(12, 15)),
    Layer(17, 17, groups=17, kernel=(5, 5), pads=(4, 4, 4, 4), stride=(2, 2), size=(2, 3)),
    Layer(64, 64, groups=64, kernel=(7, 7), pads=(0, 0, 0, 0), size=(7, 7)),
    *(Layer(13, 70, activation=a, **square(1 + a % 2 * 2)) for a in range(1, 5)),
    *(Layer(33, 33, groups=33, activation=a, stride=(a % 2 + 1,) * 2) for a in range(1, 5)),
]


@cache
def arguments(layer: Layer, extreme: bool = False) -> tuple:
    """Of run_op, up to the kernel."""
    rng = np.random.default_rng(7)

    def floats(*shape):
        return rng.normal(size=shape).astype(np.float32)

    x = floats(layer.batch, *layer.size, layer.in_c)
    w = floats(layer.out_c, *layer.kernel, layer.in_c // layer.groups)
    if extreme:
        values = np.array([0.0, -0.0, INF, -INF, np.nan, 1e-40, -1e-45, 3e38, -3e38], np.float32)
        spots = rng.random(x.shape) < 0.02
        x[spots] = rng.choice(values, spots.sum())
        spots = rng.random(w.shape) < 0.1
        w[spots] = rng.choice(values[np.isfinite(values)], spots.sum())
    inputs = [
        x,
        w,
        floats(layer.out_c) if layer.bias else None,
        None,
        floats(layer.out_c) if layer.slope else None,
        floats(layer.batch, *layer.out_size, layer.out_c) if layer.residual else None,
    ]
    ints = [*layer.stride, *layer.dilation, *layer.pads, layer.groups, layer.activation]
    return "conv", ints, list(layer.bounds), inputs, [], "f32", NO_QUANT


@cache
def reference(layer: Layer, extreme: bool = False) -> np.ndarray:
    return _core.run_op(*arguments(layer, extreme), kernel="conv_f32_reference")


def require(name: str) -> None:
    isa, runs = next((row[1], row[2]) for row in ALL_KERNELS if row[0] == name)
    if not runs:
        pytest.skip(f"NOT TESTED: {name}, because this CPU has no {isa}")


def assert_same(name: str, want: np.ndarray, args: tuple) -> None:
    for threads in (1, 3):
        got = _core.run_op(*args, kernel=name, threads=threads)
        if got is None:
            assert "depthwise" in name
            return
        # + 0 makes no difference but for the sign of zero, which is not promised.
        assert (got + 0.0).tobytes() == (want + 0.0).tobytes(), f"{threads} threads"


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_reference_computes_what_onnx_runtime_computes(layer):
    x, w, bias, _, slope, residual = arguments(layer)[3]
    node = helper.make_node(
        "Conv",
        ["x", "w"] + (["b"] if bias is not None else []),
        ["y"],
        strides=layer.stride,
        dilations=layer.dilation,
        pads=layer.pads,
        group=layer.groups,
    )
    constants = {"w": w.transpose(0, 3, 1, 2)} | ({"b": bias} if bias is not None else {})
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            helper.make_tensor(name, TensorProto.FLOAT, value.shape, value.ravel())
            for name, value in constants.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    y = session.run(None, {"x": x.transpose(0, 3, 1, 2)})[0].transpose(0, 2, 3, 1)
    if residual is not None:
        y = y + residual
    if slope is not None:
        y = np.where(y < 0, y * slope, y)
    y = np.clip(activated(y, layer.activation), *layer.bounds)
    np.testing.assert_allclose(reference(layer), y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [row[0] for row in KERNELS])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_same_bits_as_the_reference(name, layer):
    require(name)
    assert_same(name, reference(layer), arguments(layer))


@pytest.mark.parametrize("name", [row[0] for row in KERNELS])
@pytest.mark.parametrize(
    "layer", [layer for layer in LAYERS if layer.size in ((9, 11), (13, 23))], ids=str
)
def test_same_bits_for_extreme_values(name, layer):
    require(name)
    plain = layer.activation == 0
    layer = replace(layer, bounds=(-INF, INF), residual=plain, slope=plain)
    assert_same(name, reference(layer, True), arguments(layer, True))


@pytest.mark.parametrize("name", [row[0] for row in KERNELS if "depthwise" not in row[0]])
@pytest.mark.parametrize("batch", [1, 3, 8, 19])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (5, 13), (127, 7), (512, 128), (1000, 33)])
def test_fully_connected_gives_the_same_bits(name, batch, inputs, outputs):
    require(name)
    rng = np.random.default_rng(batch)
    x = rng.normal(size=(batch, inputs)).astype(np.float32)
    w = rng.normal(size=(outputs, inputs)).astype(np.float32)
    bias, slope = rng.normal(size=(2, outputs)).astype(np.float32)
    values = [x, w, bias, None, slope]
    args = "fully_connected", [], [-INF, INF], values, [], "f32", NO_QUANT
    want = _core.run_op(*args, kernel="conv_f32_reference")
    y = x @ w.T + bias
    np.testing.assert_allclose(want, np.where(y < 0, y * slope, y), rtol=1e-4, atol=1e-4)
    assert_same(name, want, args)


@pytest.mark.parametrize("name", [row[0] for row in KERNELS if "depthwise" in row[0]])
@pytest.mark.parametrize("group", GROUPS, ids=str)
def test_groups_within_a_vector_go_to_depthwise_kernels(name, group):
    require(name)
    layer = Layer(16 * group[0], 16 * group[1], groups=16)
    taken = _core.run_op(*arguments(layer), kernel=name) is not None
    assert taken == (LANES[name.removeprefix("conv_f32_")] in GROUPS[group])


@pytest.mark.parametrize("layer", [Layer(2, 2), Layer(1, 3, **square(1))], ids=str)
def test_one_group_is_dense(layer):
    for name, _, runs in KERNELS:
        if runs and "depthwise" in name:
            assert _core.run_op(*arguments(layer), kernel=name) is None


def with_weight(args: tuple, weight: np.ndarray) -> tuple:
    inputs = [*args[3]]
    inputs[1] = weight
    return (*args[:3], inputs, *args[4:])


STORED = [
    Layer(17, 33, batch=2, slope=True),
    Layer(13, 13, groups=13),
    Layer(26, 39, groups=13),
    Layer(40, 24, **square(1)),
]


@pytest.mark.parametrize("name", [row[0] for row in ALL_KERNELS])
@pytest.mark.parametrize("layer", STORED, ids=str)
def test_weights_in_half_precision_are_expanded_exactly(name, layer):
    require(name)
    args = arguments(layer)
    half = args[3][1].astype(np.float16)
    half.flat[::5] = np.float16(6e-8)  # denormal as f16, not as f32
    got = _core.run_op(*with_weight(args, half), kernel=name)
    want = _core.run_op(*with_weight(args, half.astype(np.float32)), kernel=name)
    assert (got is None) == (want is None)
    assert got is None or got.tobytes() == want.tobytes()


def test_every_half_is_expanded_exactly():
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)].reshape(-1, 1)
    args = "fully_connected", [], [-INF, INF], [np.ones((1, 1), np.float32), halves], [], "f32"
    np.testing.assert_array_equal(_core.run_op(*args, NO_QUANT)[0], halves[:, 0].astype(np.float32))


@pytest.mark.parametrize("name", [row[0] for row in ALL_KERNELS])
@pytest.mark.parametrize("layer", STORED, ids=str)
def test_denormal_weights_count_as_zero(name, layer):
    """On large activations, so that a tenth of the weights, the denormal ones, can be seen."""
    require(name)
    args = arguments(layer)
    args = (*args[:3], [np.float32(1e37) * args[3][0], *args[3][1:]], *args[4:])
    denormal = args[3][1] * np.float32(1e-37)
    flushed = np.where(np.abs(denormal) < np.finfo(np.float32).tiny, np.float32(0), denormal)
    assert (flushed != denormal).any()
    got = _core.run_op(*with_weight(args, denormal), kernel=name)
    want = _core.run_op(*with_weight(args, flushed), kernel=name)
    assert (got is None) == (want is None)
    assert got is None or got.tobytes() == want.tobytes()
