"""Layers of face networks for every operation that has kernels, at the sizes they have there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from pyedge import _core

INF = float("inf")
_QUANT = (0.05, -11)


@dataclass(frozen=True)
class Values:
    """A tensor to be made: random, or `fill` everywhere."""

    dtype: str
    shape: tuple[int, ...]
    fill: float | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def array(self) -> np.ndarray:
        if self.fill is not None:
            return np.full(self.shape, self.fill, np.float32)
        rng = np.random.default_rng(self.size)
        if self.dtype == "i8":
            return rng.integers(-127, 128, self.shape).astype(np.int8)
        return rng.standard_normal(self.shape, np.float32)


Input = Values | None


@dataclass(frozen=True)
class Case:
    """Arguments of _core.OpCase; `work` are multiply-adds, or elements of the output."""

    name: str
    op: str
    inputs: tuple[Input, ...]
    ints: tuple[int, ...] = ()
    floats: tuple[float, ...] = ()
    out_dtype: str = "f32"
    work: int = 0

    def __str__(self) -> str:
        first = self.inputs[0]
        return f"{self.op} {self.name} {first.dtype if first else ''} to {self.out_dtype}"

    def build(self) -> _core.OpCase:
        arrays = [None if values is None else values.array() for values in self.inputs]
        quants = [_QUANT if values and values.dtype == "i8" else (0.0, 0) for values in self.inputs]
        out_quant = _QUANT if self.out_dtype == "i8" else (0.0, 0)
        return _core.OpCase(
            self.op, self.ints, self.floats, arrays, quants, self.out_dtype, out_quant
        )


def _values(dtype: str, *shape: int) -> Values:
    return Values(dtype, shape)


@dataclass(frozen=True)
class Conv:
    """Square, padded to keep the size but for the stride; depthwise is a group for each channel."""

    name: str
    size: int
    channels: tuple[int, int]
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    slope: bool = True
    residual: bool = False
    padded: bool = True

    def case(self, dtype: str) -> Case:
        inputs, outputs = self.channels
        pad = self.kernel // 2 if self.padded else 0
        out = (self.size + 2 * pad - self.kernel) // self.stride + 1
        weight = _values(dtype, outputs, self.kernel, self.kernel, inputs // self.groups)
        scale = Values("f32", (outputs,), 0.01 / math.sqrt(weight.size // outputs))
        tensors = (
            _values(dtype, 1, self.size, self.size, inputs),
            weight,
            _values("f32", outputs),
            scale if dtype == "i8" else None,
            Values("f32", (outputs,), 0.25) if self.slope else None,
            _values(dtype, 1, out, out, outputs) if self.residual else None,
        )
        ints = (self.stride,) * 2 + (1, 1) + (pad,) * 4 + (self.groups,)
        work = out * out * weight.size
        return Case(self.name, "conv", tensors, ints, (-INF, INF), dtype, work)


CONVOLUTIONS = (
    Conv("first", 112, (3, 64), stride=2),
    Conv("1x1 early", 56, (64, 128), 1),
    Conv("1x1 late", 14, (128, 256), 1),
    Conv("1x1 projection", 14, (256, 128), 1, slope=False, residual=True),
    Conv("1x1 last", 7, (128, 512), 1),
    Conv("3x3 wide", 112, (64, 64)),
    Conv("3x3 early", 56, (64, 64), slope=False, residual=True),
    Conv("3x3 halving", 56, (128, 128), stride=2),
    Conv("3x3 middle", 14, (256, 256)),
    Conv("3x3 late", 7, (512, 512), slope=False, residual=True),
    Conv("depthwise 3x3", 28, (128, 128), groups=128),
    Conv("depthwise 3x3 halving", 56, (128, 128), stride=2, groups=128),
    Conv("depthwise 7x7 global", 7, (512, 512), 7, groups=512, slope=False, padded=False),
    Conv("depthwise 1x1", 28, (128, 128), 1, groups=128, slope=False),
    Conv("groups of 2", 56, (128, 128), groups=64),
    Conv("groups of 16", 28, (128, 128), groups=8),
)


@cache
def cases(op: str) -> tuple[Case, ...]:
    """Every case of an operation, in both types."""
    return tuple(case for dtype in ("f32", "i8") for case in _cases(op, dtype))


def _cases(op: str, dtype: str) -> Iterator[Case]:
    x = _values(dtype, 1, 28, 28, 128)
    flat = _values("f32", 1, 512)
    bounds = (-INF, INF)

    def case(*more: Input, ints: tuple = (), floats: tuple = (), out: str = dtype) -> Case:
        return Case("28x28x128", op, (x, *more), ints, floats, out, x.size)

    if op == "conv":
        yield from (conv.case(dtype) for conv in CONVOLUTIONS)
    elif op == "fully_connected":
        weight = _values(dtype, 512, 25088)
        scale = Values("f32", (512,), 1e-4) if dtype == "i8" else None
        tensors = (_values(dtype, 1, 25088), weight, _values("f32", 512), scale)
        yield Case("25088 to 512", op, tensors, (), bounds, "f32", weight.size)
    elif op == "conv_transpose":
        weight = _values(dtype, 64, 2, 2, 128)
        scale = Values("f32", (64,), 1e-3) if dtype == "i8" else None
        ints = (2, 2, 1, 1, *(0,) * 6, 1)
        tensors = (x, weight, _values("f32", 64), scale)
        yield Case("doubling", op, tensors, ints, bounds, dtype, 28 * 28 * weight.size)
    elif op in ("add", "sub", "mul", "div"):
        yield case(_values(dtype, 1, 28, 28, 128), floats=bounds)
        if dtype == "i8" and op != "div":  # a gate, or a float branch
            gate = (x, _values("f32", 1, 1, 1, 128))
            yield Case("28x28x128 by channel", op, gate, (), bounds, "i8", x.size)
    elif op == "prelu":
        yield case(_values("f32", 128))
    elif op in ("max_pool", "average_pool"):
        more = (0,) if op == "max_pool" else (0, 0)
        yield case(ints=(0, 2, 2, 2, 2, 0, 0, 0, 0, *more))
    elif op == "concat":
        yield case(_values(dtype, 1, 28, 28, 128), ints=(3,))
    elif op == "slice":
        yield case(ints=(3, 0, 64, 1))
    elif op == "resize":
        yield case(ints=(0, 1, 0, 56, 56), floats=(2.0, 2.0))
    elif op == "pad":
        yield case(ints=(0, 0, 0, 1, 1, 1, 1, 0, 0), floats=(0.0,))
    elif op == "transpose":
        yield case(ints=(0, 3, 1, 2))
    elif op in ("reduce_mean", "reduce_sum", "reduce_l2"):
        yield case(ints=(1, 1, 2), out="f32")
        if dtype == "i8":
            yield case(ints=(1, 1, 2))
    elif op == "quantize" and dtype == "f32":
        yield case(out="i8")
    elif op == "dequantize" and dtype == "i8":
        yield case(out="f32")
    elif op == "softmax" and dtype == "f32":
        yield Case("512", op, (flat,), (1,), (), "f32", flat.size)
    elif op == "l2_normalize" and dtype == "f32":
        yield Case("512", op, (flat,), (1,), (1e-12,), "f32", flat.size)
    elif op in ("clip", "hard_sigmoid"):
        yield case(floats={"clip": (0.0, 6.0), "hard_sigmoid": (0.2, 0.5)}[op])
    elif op in ("sigmoid", "hard_swish", "tanh"):
        yield case()
