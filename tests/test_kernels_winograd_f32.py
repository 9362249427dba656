"""Winograd kernels for f32: near the exact sum, whatever the threads and the batch.

The tolerance is that of csrc/kernels/conv/f32/winograd.h.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_kernels_conv_f32 import ALL_KERNELS, LAYERS, Layer, arguments, require, square
from test_kernels_conv_i8 import activated

from pyedge import _core

NAMES = [row[0] for row in ALL_KERNELS if "winograd" in row[0]]
SAME = [
    *(Layer(c, 40, slope=True, size=(s, s)) for c in (1, 17, 127) for s in (1, 2, 7, 13)),
    *(Layer(33, c, batch=3, residual=True, size=(6, 17)) for c in (1, 5, 13, 32, 70)),
    Layer(20, 24, pads=(0, 0, 0, 0), size=(3, 9)),
    Layer(20, 24, pads=(2, 0, 5, 3), bias=False, bounds=(-0.5, 6.0)),
    Layer(256, 64, size=(14, 14), batch=2, slope=True, residual=True),
    Layer(2048, 8, size=(8, 8)),
    Layer(24, 24, size=(70, 50)),
    *(Layer(24, 40, activation=activation, size=(9, 7)) for activation in range(1, 5)),
]


def outputs_of(name: str) -> int:
    """Rows and columns of a tile, m."""
    return int(name.split("winograd")[1][0])


def padded(x: np.ndarray, layer: Layer, more: int = 0) -> np.ndarray:
    top, left, bottom, right = (p + more for p in layer.pads)
    return np.pad(x.astype(np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)))


def exact(layer: Layer, inputs: list) -> np.ndarray:
    x, w, bias, _, slope, residual = inputs
    height, width = layer.out_size
    x = padded(x, layer)
    y = sum(
        x[:, i : i + height, j : j + width] @ w[:, i, j].T.astype(np.float64)
        for i in range(3)
        for j in range(3)
    )
    for term in (bias, residual):
        y = y if term is None else y + term
    if slope is not None:
        y = np.where(y < 0, y * slope, y)
    return np.clip(activated(y, layer.activation), *layer.bounds)


def tolerance(name: str, layer: Layer, inputs: list) -> np.ndarray:
    """2^-24 (8 or 24 + 2 sqrt(C)) sum over channels of max |x| near the output x sum |w|."""
    x, w, bias, _, slope, residual = inputs
    m = outputs_of(name)
    size = 2 * (m + 1) + 1
    height, width = layer.out_size
    near = np.abs(padded(x, layer, m + 1))
    near = np.max([near[:, i : i + height] for i in range(size)], axis=0)
    near = np.max([near[:, :, j : j + width] for j in range(size)], axis=0)
    sums = near @ np.abs(w).sum((1, 2), dtype=np.float64).T
    bound = ({2: 8, 4: 24}[m] + 2 * np.sqrt(layer.in_c)) * sums
    for term in (bias, residual):
        bound = bound if term is None else bound + 2 * np.abs(term)
    if layer.activation:  # whose derivative is at most 1.5
        return 2.0**-24 * (1.5 * bound + 32)
    return 2.0**-24 * bound * (1 if slope is None else np.maximum(1, np.abs(slope)))


def check(name: str, layer: Layer, args: tuple) -> None:
    got = _core.run_op(*args, kernel=name)
    assert (np.abs(got - exact(layer, args[3])) <= tolerance(name, layer, args[3])).all()
    for threads in (2, 16):
        assert _core.run_op(*args, kernel=name, threads=threads).tobytes() == got.tobytes()
    for image in range(layer.batch if layer.batch > 1 else 0):
        alone = [args[3][0][image : image + 1], *args[3][1:5]]
        if layer.residual:
            alone.append(args[3][5][image : image + 1])
        one = _core.run_op(*args[:3], alone, *args[4:], kernel=name)
        assert one.tobytes() == got[image : image + 1].tobytes()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layer", SAME, ids=str)
def test_near_the_exact_sum(name, layer):
    require(name)
    check(name, layer, arguments(layer))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("values", ["range", "peaks", "same_sign", "constant"])
def test_near_the_exact_sum_for_hard_values(name, values):
    """Magnitudes over six decades, single large ones, sums without cancellation."""
    require(name)
    layer = Layer(100, 40, batch=2, size=(14, 11))
    rng = np.random.default_rng(3)
    args = arguments(layer)
    x, w, *rest = args[3]
    if values == "range":
        x = x * np.power(10, 6 * rng.random(x.shape)).astype(np.float32)
    elif values == "peaks":
        x = np.where(rng.random(x.shape) < 0.01, np.float32(1e6) * x, x)
    else:
        x, w = np.abs(x), np.abs(w)
    if values == "constant":
        x = 1 + np.float32(1e-3) * x
    check(name, layer, (*args[:3], [x, w, *rest], *args[4:]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_takes_dense_3x3_layers_of_stride_1_only(name, layer):
    require(name)
    fits = (layer.kernel, layer.stride, layer.dilation, layer.groups) == ((3, 3), (1, 1), (1, 1), 1)
    assert (_core.run_op(*arguments(layer), kernel=name) is not None) == fits


@pytest.mark.parametrize(
    "layer",
    [
        Layer(64, 64, size=(56, 56)),
        Layer(256, 256, size=(14, 14), slope=True),
        Layer(512, 512, size=(7, 7)),
        Layer(3, 64, size=(28, 28)),
        Layer(128, 128, **square(1, size=(14, 14))),
    ],
    ids=str,
)
def test_the_batch_does_not_change_the_choice(layer):
    """As the choice of the kernel changes the result."""
    layer = replace(layer, batch=4)
    args = arguments(layer)
    whole = _core.run_op(*args)
    for image in (0, 3):
        alone = [args[3][0][image : image + 1], *args[3][1:]]
        one = _core.run_op(*args[:3], alone, *args[4:])
        assert one.tobytes() == whole[image : image + 1].tobytes()
