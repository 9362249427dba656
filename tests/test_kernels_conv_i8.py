"""INT8 convolution and fully connected layers.

The reference is held against integer arithmetic in NumPy, every other kernel against the
reference: the same bytes, with any number of threads. Kernels this CPU cannot run are skipped by
name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from pyedge import _core

INF = float("inf")
REFERENCE = "conv_i8_reference"
KERNELS = [row for row in _core.kernel_names("conv") if "_i8_" in row[0] and row[0] != REFERENCE]
# Kernels for some layers only; the others take every layer.
SPECIAL = ("depthwise", "affine", "strip", "winograd")
DENSE = [row[0] for row in KERNELS if not any(word in row[0] for word in SPECIAL)]
WINOGRAD = [row[0] for row in KERNELS if "winograd" in row[0]]


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
    size: tuple[int, int] = (7, 9)
    batch: int = 1
    bias: bool = True
    slope: bool = False
    residual: bool = False
    activation: int = 0
    out_dtype: str = "i8"
    zero_points: tuple[int, int, int] = (0, 0, 0)  # of x, y and the residual
    bounds: tuple[float, float] = (-INF, INF)
    values: str = "random"

    @property
    def spans(self) -> tuple[int, int]:
        """The extent of the dilated kernel."""
        height, width = ((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))
        return height, width

    @property
    def out_size(self) -> tuple[int, int]:
        padded = (
            self.size[0] + self.pads[0] + self.pads[2],
            self.size[1] + self.pads[1] + self.pads[3],
        )
        height, width = ((padded[i] - self.spans[i]) // self.stride[i] + 1 for i in range(2))
        return height, width


def integers(rng: np.random.Generator, values: str, sign: int, shape: tuple) -> np.ndarray:
    """int8 values: for `sign` 1 down to -128, as activations, for -1 not, as weights."""
    lowest = -128 if sign == 1 else -127
    if values == "random":
        return rng.integers(lowest, 128, shape).astype(np.int8)
    if values == "corners":
        return rng.choice(np.array([lowest, 127], np.int8), shape)
    # Every product as far from zero as it gets, all of one sign.
    low_times = {"lowest": (lowest, 127), "highest": (lowest, -127)}[values]
    return np.full(shape, low_times[0] if sign == 1 else low_times[1], np.int8)


def arguments(layer: Layer, seed: int = 7) -> tuple:
    """Of run_op, up to the kernel."""
    rng = np.random.default_rng(seed)
    w_shape = (layer.out_c, *layer.kernel, layer.in_c // layer.groups)
    y_shape = (layer.batch, *layer.out_size, layer.out_c)
    x_scale, y_scale, residual_scale = 0.05, 0.03, 0.04
    # Most outputs land inside the range of i8, some outside.
    w_scale = 0.01 / np.sqrt(np.prod(w_shape[1:]))
    residual = None
    if layer.residual and layer.out_dtype == "i8":
        residual = rng.integers(-128, 128, y_shape).astype(np.int8)
    elif layer.residual:
        residual = rng.normal(size=y_shape).astype(np.float32)
    inputs = [
        integers(rng, layer.values, 1, (layer.batch, *layer.size, layer.in_c)),
        integers(rng, layer.values, -1, w_shape),
        rng.normal(size=layer.out_c).astype(np.float32) if layer.bias else None,
        (w_scale * rng.uniform(0.5, 2, layer.out_c)).astype(np.float32),
        rng.uniform(-0.5, 1.5, layer.out_c).astype(np.float32) if layer.slope else None,
        residual,
    ]
    x_zero, y_zero, residual_zero = layer.zero_points
    quant = [(x_scale, x_zero)] + [(0.0, 0)] * 4 + [(residual_scale, residual_zero)]
    ints = [*layer.stride, *layer.dilation, *layer.pads, layer.groups]
    ints += [layer.activation] if layer.activation else []  # it may be missing
    return "conv", ints, list(layer.bounds), inputs, quant, layer.out_dtype, (y_scale, y_zero)


def require(name: str) -> None:
    isa, runs = next((row[1], row[2]) for row in KERNELS if row[0] == name)
    if not runs:
        pytest.skip(f"NOT TESTED: {name}, because this CPU has no {isa}")


def assert_same(name: str, args: tuple, threads: tuple[int, ...] = (1, 3)) -> None:
    """Of f32 outputs the sign of a zero is not promised: -0.0 is turned into 0.0."""
    want = _core.run_op(*args, kernel=REFERENCE)
    for count in threads:
        got = _core.run_op(*args, kernel=name, threads=count)
        if got is None:
            assert name not in DENSE
            assert name not in WINOGRAD or not winograd_takes(args)
            return
        assert (got + got.dtype.type(0)).tobytes() == (want + want.dtype.type(0)).tobytes(), (
            f"{np.count_nonzero(got != want)} of {got.size} differ with {count} threads"
        )


def winograd_takes(args: tuple) -> bool:
    """3x3 with stride 1, no accumulator of 2^25 in magnitude whatever the image."""
    op, ints, _, inputs, quant = args[:5]
    if op != "conv" or inputs[1].shape[1:3] != (3, 3) or ints[:4] != [1] * 4 or ints[8] != 1:
        return False
    w = inputs[1].reshape(len(inputs[1]), -1).astype(np.int64)
    lowest, highest = -128 - quant[0][1], 127 - quant[0][1]
    most = np.where(w > 0, w * highest, w * lowest).sum(1).max()
    least = np.where(w > 0, w * lowest, w * highest).sum(1).min()
    return max(most, -least) < 2**25


def square(k: int, **changes) -> dict:
    return {"kernel": (k, k), "pads": (k // 2,) * 4, **changes}


LAYERS = [
    *(Layer(i, o, **square(1)) for i in (1, 3, 17, 64) for o in (1, 5, 13, 32, 127)),
    *(Layer(i, o) for i in (1, 3, 4, 5, 13, 16) for o in (1, 7, 17, 33, 64, 65)),
    *(Layer(13, 24, **square(k, batch=3, slope=True)) for k in (1, 3, 5, 7)),
    *(Layer(3, 20, **square(k, stride=(2, 2), zero_points=(-128, 0, 0))) for k in (1, 3, 5, 7)),
    Layer(7, 9, stride=(2, 1), size=(7, 7), zero_points=(-128, -128, 0)),
    Layer(7, 9, dilation=(2, 2), size=(7, 8), zero_points=(5, -3, 0)),
    Layer(3, 9, dilation=(1, 2), pads=(0, 2, 1, 0), zero_points=(127, 127, 0)),
    Layer(3, 9, kernel=(5, 3), pads=(2, 0, 0, 3), stride=(1, 2), zero_points=(-128, 9, 0)),
    Layer(2, 3, kernel=(7, 7), pads=(6, 6, 6, 6), size=(1, 2), zero_points=(-77, 0, 0)),
    Layer(127, 127, size=(5, 5), residual=True, slope=True, zero_points=(0, -128, 20)),
    Layer(64, 96, size=(13, 13), batch=3, residual=True, bounds=(0.0, 6.0)),
    Layer(32, 64, residual=True, bounds=(0.0, INF), zero_points=(-128, -128, -128)),
    *(Layer(c, c, **square(1, groups=c, slope=c != 3)) for c in (3, 17, 64, 127)),
    Layer(5, 5, **square(1, groups=5, batch=3, size=(90, 90), zero_points=(-128, 7, 0))),
    Layer(12, 18, groups=3, bias=False, bounds=(-0.5, 0.5)),
    Layer(10, 70, groups=2, slope=True, residual=True, zero_points=(-128, 0, -128)),
    Layer(6, 12, groups=6, zero_points=(-128, 0, 0)),
    Layer(8, 8, groups=8, size=(1, 1)),
    *(
        Layer(c * m, c * m, groups=c, stride=(s, s), slope=s == 1, batch=3, size=(7, 35))
        for m in (2, 3, 4, 8)
        for c in (3, 17, 32)
        for s in (1, 2)
    ),
    Layer(34, 34, groups=17, dilation=(2, 1), pads=(2, 0, 1, 3), zero_points=(127, -128, 0)),
    Layer(52, 52, groups=13, kernel=(5, 3), stride=(3, 1), residual=True, zero_points=(-128, 3, 9)),
    Layer(16, 16, **square(1, groups=8, batch=3)),
    Layer(128, 128, groups=32, size=(30, 3), zero_points=(-77, 0, 0)),
    Layer(14, 21, groups=7, slope=True, zero_points=(-128, 0, 0)),
    Layer(254, 127, groups=127, stride=(2, 2)),
    Layer(80, 80, groups=16, size=(12, 5), bounds=(0.0, 6.0)),
    *(
        Layer(c, c, groups=c, stride=(s, s), slope=True, batch=3, zero_points=(z, 0, 0))
        for c in (3, 5, 17, 64, 127)
        for s in (1, 2)
        for z in (0, -128)
    ),
    *(
        Layer(
            24, 24, groups=24, **square(k, size=(8, 37), residual=True, zero_points=(-9, 3, -128))
        )
        for k in (1, 3, 5, 7)
    ),
    Layer(70, 70, groups=70, stride=(3, 2), dilation=(2, 2), pads=(2, 4, 1, 0), size=(12, 15)),
    Layer(17, 17, groups=17, kernel=(5, 5), pads=(4, 4, 4, 4), stride=(2, 2), size=(2, 3)),
    Layer(
        64, 64, groups=64, kernel=(7, 7), pads=(0, 0, 0, 0), size=(7, 7), zero_points=(-128, 0, 0)
    ),
    *(
        Layer(*channels, activation=activation, zero_points=(-128, -117, 0), **changes)
        for activation in range(1, 5)
        for channels, changes in (
            ((13, 70), {}),
            ((64, 33), square(1, size=(13, 13))),
            ((17, 17), {"groups": 17, "bounds": (0.1, 1.5)}),
            ((5, 5), square(1, groups=5)),
            ((127, 127), square(5, groups=127, stride=(2, 2), batch=3)),
        )
    ),
]


def activated(y: np.ndarray, activation: int) -> np.ndarray:
    """Of a real number, in float64."""
    hard, soft = np.clip(y / 6 + 0.5, 0, 1), 1 / (1 + np.exp(-np.maximum(y, -700)))
    return [y, hard, soft, y * hard, y * soft][activation]


def name_of(layer: Layer) -> str:
    """What differs from the defaults, short enough for the name of a test."""
    default = Layer(0, 0)
    changed = [
        f"{key}={value}".replace(" ", "")
        for key, value in vars(layer).items()
        if value != getattr(default, key) and key not in ("in_c", "out_c")
    ]
    return "-".join([f"{layer.in_c}>{layer.out_c}", *changed])


def accumulators(layer: Layer, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """sum (x - zero_point) * w in int64, [batch, out_h, out_w, out_c]."""
    top, left, bottom, right = layer.pads
    centred = x.astype(np.int64) - layer.zero_points[0]
    padded = np.pad(centred, ((0, 0), (top, bottom), (left, right), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, layer.spans, axis=(1, 2))
    windows = windows[:, :: layer.stride[0], :: layer.stride[1]]
    windows = windows[..., :: layer.dilation[0], :: layer.dilation[1]]
    groups = zip(
        np.split(windows, layer.groups, 3), np.split(w.astype(np.int64), layer.groups), strict=True
    )
    return np.concatenate([np.einsum("nhwcij,oijc->nhwo", *group) for group in groups], -1)


@pytest.mark.parametrize("layer", LAYERS, ids=name_of)
def test_reference_computes_what_numpy_computes(layer):
    args = arguments(layer)
    x, w, bias, w_scale, slope, residual = args[3]
    y = accumulators(layer, x, w) * (0.05 * w_scale.astype(np.float64))
    if bias is not None:
        y = y + bias
    if residual is not None:
        y = y + 0.04 * (residual.astype(np.float64) - layer.zero_points[2])
    if slope is not None:
        y = np.where(y < 0, y * slope, y)
    y = activated(y, layer.activation)
    steps = np.clip(y, *layer.bounds) / 0.03 + layer.zero_points[1]
    got = _core.run_op(*args, kernel=REFERENCE)
    # In float64 a value may fall on the other side of a half.
    assert np.abs(got - np.clip(steps, -128, 127)).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("name", [row[0] for row in KERNELS])
@pytest.mark.parametrize("out_dtype", ["i8", "f32"])
@pytest.mark.parametrize("layer", LAYERS, ids=name_of)
def test_same_bytes_as_the_reference(name, layer, out_dtype):
    require(name)
    assert_same(name, arguments(replace(layer, out_dtype=out_dtype)))


@pytest.mark.parametrize("name", [row[0] for row in KERNELS])
@pytest.mark.parametrize("values", ["lowest", "highest", "corners"])
@pytest.mark.parametrize("zero_point", [0, -128, 127])
@pytest.mark.parametrize("groups", [1, 8, 24, 96, 192])
def test_same_bytes_for_extreme_values(name, values, zero_point, groups):
    require(name)
    zero_points = (zero_point, zero_point, 0)
    layer = Layer(192, 192, groups=groups, values=values, zero_points=zero_points, slope=True)
    assert_same(name, arguments(layer))
    assert_same(name, arguments(replace(layer, out_dtype="f32")))
    assert_same(name, arguments(replace(layer, slope=False, activation=3 if groups == 1 else 4)))


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("values", ["lowest", "highest", "corners"])
@pytest.mark.parametrize("zero_point", [0, -128, 127])
def test_the_longest_sum_is_exact(name, values, zero_point):
    """65,536 products, as many as a model may have."""
    require(name)
    rng = np.random.default_rng(1)
    x, w = integers(rng, values, 1, (2, 65536)), integers(rng, values, -1, (33, 65536))
    inputs = [x, w, None, np.full(33, 1e-3, np.float32)]
    args = "fully_connected", [], [-INF, INF], inputs, [(1.0, zero_point)], "f32", (0.0, 0)
    want = (x.astype(np.int64) - zero_point) @ w.astype(np.int64).T
    assert np.abs(want).max() < 2**31
    got = _core.run_op(*args, kernel=REFERENCE)
    np.testing.assert_array_equal(got, want.astype(np.float32) * np.float32(1e-3))
    assert_same(name, args)


@pytest.mark.parametrize("name", [row[0] for row in KERNELS])
@pytest.mark.parametrize("scale", [1e-30, 1e4, 1e30, INF, float("nan")])
@pytest.mark.parametrize("groups", [1, 8, 20, 40])
@pytest.mark.parametrize("activation", range(5))
def test_same_bytes_where_outputs_leave_the_range_of_int32(name, scale, groups, activation):
    require(name)
    plain = activation == 0
    layer = Layer(40, 40, groups=groups, slope=plain, residual=plain, activation=activation)
    args = arguments(layer)
    args[3][3][::2] = scale
    args[3][2][::3] = -scale
    assert_same(name, args)


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("batch", [1, 3, 8, 19])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (5, 13), (127, 7), (512, 128), (1000, 33)])
def test_fully_connected_gives_the_same_bytes(name, batch, inputs, outputs):
    require(name)
    rng = np.random.default_rng(batch)
    values = [
        integers(rng, "random", 1, (batch, inputs)),
        integers(rng, "random", -1, (outputs, inputs)),
        rng.normal(size=outputs).astype(np.float32),
        np.full(outputs, 2e-3, np.float32),
        rng.normal(size=outputs).astype(np.float32),
    ]
    for out_dtype in ("i8", "f32"):
        args = "fully_connected", [], [-INF, INF], values, [(0.05, -128)], out_dtype, (0.03, 4)
        assert_same(name, args)
        assert_same(name, (args[0], [1 + batch % 4], args[2], values[:4], *args[4:]))


WINOGRAD_LAYERS = [
    *(
        Layer(i, o, size=(n, m), batch=1 + 2 * (n % 2), slope=n % 3 == 0, residual=i % 3 == 1)
        for n, m in [(n, n) for n in range(1, 10)] + [(2, 9), (9, 3), (5, 12)]
        for i, o in ((1, 1), (3, 7), (5, 33), (13, 17), (127, 5))
    ),
    Layer(17, 70, size=(30, 37), batch=2, slope=True, residual=True, zero_points=(-128, 5, 9)),
    Layer(200, 40, size=(14, 14), slope=True, zero_points=(11, 0, 0)),
    Layer(7, 9, pads=(0, 2, 1, 0), size=(8, 9), zero_points=(127, 0, 0)),
    Layer(3, 3, pads=(5, 6, 7, 8), size=(2, 2), zero_points=(-77, 0, 0)),
]


@pytest.mark.parametrize("name", WINOGRAD)
@pytest.mark.parametrize("values", ["random", "corners", "lowest", "highest"])
@pytest.mark.parametrize("layer", WINOGRAD_LAYERS, ids=name_of)
def test_winograd_gives_the_same_bytes(name, layer, values):
    require(name)
    for out_dtype in ("i8", "f32"):
        assert_same(name, arguments(replace(layer, out_dtype=out_dtype, values=values)), (1, 2, 5))


@pytest.mark.parametrize("name", WINOGRAD)
@pytest.mark.parametrize("zero_point", [0, -128, 127])
@pytest.mark.parametrize("size", [4, 2, (4, 2), (2, 4)])
def test_winograd_is_exact_where_its_transforms_reach_furthest(name, zero_point, size):
    """Tiles and weights with the signs of each pair of rows of B^T and of G."""
    require(name)
    height, width = size if isinstance(size, tuple) else (size, size)
    input_rows = {
        4: [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ],
        2: [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
    }
    weight_rows = [[1, 0, 0], [1, 1, 1], [1, -1, 1], [1, 2, 4], [1, -2, 4], [0, 0, 1]]
    tiles = np.array([np.outer(a, b) for a in input_rows[height] for b in input_rows[width]])
    weights = np.array([np.outer(a, b) for a in weight_rows for b in weight_rows])
    tiles, weights = np.concatenate([tiles, -tiles]), np.concatenate([weights, -weights])
    x = np.where(tiles > 0, 127, np.where(tiles < 0, -128, zero_point)).astype(np.int8)
    w = (np.sign(weights) * 127).astype(np.int8)
    in_c = 5
    inputs = [
        np.repeat(x[..., None], in_c, -1),
        np.repeat(w[..., None], in_c, -1),
        None,
        np.ones(len(w), np.float32),
    ]
    ints = [1, 1, 1, 1, 0, 0, 0, 0, 1]
    args = "conv", ints, [-INF, INF], inputs, [(1.0, zero_point)], "f32", (0.0, 0)
    assert _core.run_op(*args, kernel=name) is not None
    assert_same(name, args)


@pytest.mark.parametrize("name", WINOGRAD)
@pytest.mark.parametrize(("zero_point", "sign"), [(-128, 1), (-128, -1), (127, 1), (127, -1)])
def test_winograd_takes_accumulators_below_2_to_the_25(name, zero_point, sign):
    """131586 * 255 = 2^25 - 2; one more step of a weight and it must refuse."""
    require(name)
    in_c = 116
    w = np.zeros((3, 9 * in_c), np.int8)
    w[1, :1036], w[1, 1036] = sign * 127, sign * 14
    assert abs(int(w.astype(np.int64).sum())) == 131586
    x = np.full((1, 5, 6, in_c), 127 if zero_point < 0 else -128, np.int8)
    ints = [1, 1, 1, 1, 1, 1, 1, 1, 1]
    inputs = [x, w.reshape(3, 3, 3, in_c), None, np.ones(3, np.float32)]
    args = "conv", ints, [-INF, INF], inputs, [(1.0, zero_point)], "f32", (0.0, 0)
    got = _core.run_op(*args, kernel=name)
    assert got is not None
    assert np.abs(got).max() == 2**25 - 2
    assert_same(name, args)
    w[1, 1036] += sign
    assert _core.run_op(*args, kernel=name) is None


@pytest.mark.parametrize("name", WINOGRAD)
def test_winograd_refuses_other_layers(name):
    require(name)
    layer = Layer(8, 8)
    assert _core.run_op(*arguments(layer), kernel=name) is not None
    for other in (
        replace(layer, kernel=(3, 1)),
        replace(layer, kernel=(5, 5)),
        replace(layer, stride=(1, 2)),
        replace(layer, dilation=(2, 1), pads=(2, 2, 2, 2)),
        replace(layer, groups=2),
        replace(layer, groups=8),
    ):
        assert _core.run_op(*arguments(other), kernel=name) is None


def random_layer(rng: np.random.Generator) -> Layer:
    def pick(*values):
        return values[rng.integers(len(values))]

    channels = [1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 31, 33, 48, 64, 65, 96, 127, 130]
    groups, in_c, out_c = 1, int(rng.choice(channels)), int(rng.choice(channels))
    if (kind := rng.random()) < 0.3:
        groups = in_c = out_c
    elif kind < 0.5:
        groups = int(rng.integers(2, 5))
        in_c, out_c = groups * int(rng.choice(channels[:9])), groups * int(rng.choice(channels[:9]))
    layer = Layer(
        in_c,
        out_c,
        kernel=pick((1, 1), (3, 3), (3, 3), (5, 5), (7, 7), (2, 3), (1, 5)),
        stride=pick((1, 1), (2, 2), (1, 2), (3, 1)),
        dilation=pick((1, 1), (1, 1), (2, 2), (1, 3)),
        pads=tuple(int(n) for n in rng.integers(0, 4, 4)),
        groups=groups,
        size=(int(rng.integers(1, 12)), int(rng.integers(1, 41))),
        batch=pick(1, 1, 3),
        bias=bool(rng.integers(4)),
        slope=bool(rng.integers(2)),
        residual=bool(rng.integers(2)),
        out_dtype=pick("i8", "i8", "f32"),
        zero_points=tuple(pick(0, -128, 127, 11, -77) for _ in range(3)),
        bounds=pick((-INF, INF), (0.0, INF), (0.0, 1.5), (-1.2, 1.3)),
        values=pick("random", "random", "corners", "lowest", "highest"),
    )
    if rng.random() < 0.3:
        layer = replace(layer, slope=False, residual=False, activation=int(rng.integers(1, 5)))
    return layer if min(layer.out_size) > 0 else replace(layer, pads=(9, 9, 9, 9))


@pytest.mark.parametrize("name", [row[0] for row in KERNELS])
@pytest.mark.parametrize("seed", range(8))
def test_same_bytes_for_random_layers(name, seed):
    require(name)
    rng = np.random.default_rng(seed)
    for i in range(40):
        layer = random_layer(rng)
        try:
            assert_same(name, arguments(layer, i), threads=(1 + i % 4,))
        except AssertionError as error:
            raise AssertionError(f"{name_of(layer)}: {error}") from error


@pytest.mark.parametrize("layer", LAYERS, ids=name_of)
def test_special_layers_have_their_kernels(layer):
    accepted = [
        name
        for name, _, runs in KERNELS
        if runs and _core.run_op(*arguments(layer), kernel=name) is not None
    ]
    if not accepted:
        pytest.skip("NOT TESTED: this CPU runs nothing but the reference")
    planes = layer.in_c // layer.groups if layer.groups > 1 and layer.in_c == layer.out_c else 0
    depthwise = planes == 1
    rotated = planes in (2, 4, 8) and planes * layer.stride[1] <= 8
    pointwise = layer.kernel == layer.stride == (1, 1) and layer.pads == (0, 0, 0, 0)
    assert any("depthwise" in name for name in accepted) == (depthwise or rotated)
    assert any("affine" in name for name in accepted) == (
        depthwise and pointwise and not layer.residual and not layer.activation
    )
