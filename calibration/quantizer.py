"""From a fused float32 graph and a calibration table to an INT8 graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pyedge.calibration.bias_correction import corrected_bias
from pyedge.calibration.observers import SYMMETRIC_LEVELS, UNSIGNED_LEVELS
from pyedge.calibration.placement import (
    BIAS,
    MAC_OPS,
    RESIDUAL,
    WEIGHT,
    WEIGHT_SCALE,
    Placement,
    X,
    i8_inputs,
)
from pyedge.converters.ir import Graph, Node, Tensor
from pyedge.errors import CalibrationError

WEIGHT_LEVELS = 127


@dataclass(frozen=True)
class QuantParams:
    """real = scale * (q - zero_point)."""

    scale: float
    zero_point: int = 0


def quantize_weight(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric INT8 per output channel (the first axis): q in -127…127 and float32 scales.

    A channel of zeros gets scale 1.
    """
    absmax = np.abs(weight).reshape(weight.shape[0], -1).max(axis=1).astype(np.float64)
    scale = (absmax / WEIGHT_LEVELS).astype(np.float32)
    scale[scale < np.finfo(np.float32).tiny] = 1.0
    shape = (-1,) + (1,) * (weight.ndim - 1)
    q = np.rint(weight / scale.astype(np.float64).reshape(shape))
    return np.clip(q, -WEIGHT_LEVELS, WEIGHT_LEVELS).astype(np.int8), scale


def build_int8(
    graph: Graph,
    placement: Placement,
    params: Mapping[str, QuantParams],
    input_means: Mapping[str, np.ndarray] | None = None,
) -> Graph:
    """The INT8 graph.

    Args:
        graph: fused float32.
        params: of the roots of the placement.
        input_means: of i8 tensors, per channel float64 [C]; with them, biases are corrected.
    """
    return _Quantizer(graph, placement, params, input_means or {}).build()


class _Quantizer:
    def __init__(
        self,
        graph: Graph,
        placement: Placement,
        params: Mapping[str, QuantParams],
        input_means: Mapping[str, np.ndarray],
    ) -> None:
        self.source = graph
        self.input_means = input_means
        self.placement = placement
        self.params = params
        self.graph = graph.copy()
        self.graph.nodes = []
        self.as_i8: dict[str, str] = {}  # float32 value -> its quantized form
        self.as_f32: dict[str, str] = {}

    def build(self) -> Graph:
        for node in self.source.nodes:
            self._add(node)
        self.graph.drop_unused()
        return self.graph

    def _add(self, node: Node) -> None:
        new = Node(node.op, node.name, list(node.inputs), list(node.outputs), dict(node.attrs))
        int8 = node.outputs[0] in self.placement.int8
        placement = self.placement
        wanted = i8_inputs(self.source, node, placement.int8, placement.produced_i8)
        for slot, name in enumerate(node.inputs):
            if name is None or self.source.tensors[name].constant:
                continue
            # The residual has the type of the output, even where it is the input too.
            follows = slot == RESIDUAL and node.op in MAC_OPS
            as_i8 = name in wanted and not (
                follows and node.outputs[0] not in placement.produced_i8
            )
            new.inputs[slot] = self._i8(name) if as_i8 else self._f32(name)
        if int8 and node.op in MAC_OPS:
            self._quantize_weight(node, new)
        elif int8:
            self._quantize_constants(node, new)
        self.graph.nodes.append(new)
        if node.outputs[0] in self.placement.produced_i8:
            self._mark_i8(new)

    def _mark_i8(self, node: Node) -> None:
        """Makes the output i8; a graph output is dequantized under its own name."""
        name = node.outputs[0]
        params = self._params(name)
        if name in self.source.outputs:
            node.outputs[0] = self.graph.add_value(f"{name}.i8")
            self.as_i8[name] = node.outputs[0]
            self.graph.nodes.append(Node("dequantize", name, [node.outputs[0]], [name]))
        tensor = self.graph.tensors[node.outputs[0]]
        tensor.dtype, tensor.scale, tensor.zero_point = "i8", params.scale, params.zero_point

    def _params(self, name: str) -> QuantParams:
        root = self.placement.roots[name]
        if root not in self.params:
            raise CalibrationError(f"tensor {root}: is not in the calibration table")
        return self.params[root]

    def _i8(self, name: str) -> str:
        if self.graph.tensors[name].dtype == "i8":
            return name
        if name not in self.as_i8:
            params = self._params(name)
            # A transposition moves bytes rather than floats: the elements are the same. One of
            # floats that nobody reads any more is dead.
            moved = self.source.producer(name)
            source = moved.inputs[0] if moved and moved.op == "transpose" else None
            if moved and source:
                node = Node("transpose", "", [self._i8(source)], [], dict(moved.attrs))
            else:
                node = Node("quantize", "", [name], [])
            value = self.graph.add_value(f"{name}.i8")
            self.graph.tensors[value] = Tensor(
                value, "i8", scale=params.scale, zero_point=params.zero_point
            )
            node.name, node.outputs = value, [value]
            self.graph.nodes.append(node)
            self.as_i8[name] = value
        return self.as_i8[name]

    def _f32(self, name: str) -> str:
        if self.graph.tensors[name].dtype == "f32":
            return name
        if name not in self.as_f32:
            value = self.graph.add_value(f"{name}.f32")
            self.graph.nodes.append(Node("dequantize", value, [name], [value]))
            self.as_f32[name] = value
        return self.as_f32[name]

    def _quantize_weight(self, node: Node, new: Node) -> None:
        weight = self.source.constant(node.inputs[WEIGHT])
        assert weight is not None
        q, scale = quantize_weight(weight)
        new.set_input(WEIGHT, self.graph.add_constant(f"{node.inputs[WEIGHT]}.i8", q))
        new.set_input(WEIGHT_SCALE, self.graph.add_constant(f"{node.outputs[0]}.scale", scale))
        means = self.input_means.get(node.inputs[X] or "")
        groups = node.attrs.get("groups", 1)
        assert isinstance(groups, int)
        if means is None or means.size != weight.shape[-1] * groups:
            return
        bias = self.source.constant(node.input(BIAS))
        corrected = corrected_bias(weight, q, scale, bias, means, groups)
        new.set_input(BIAS, self.graph.add_constant(f"{node.outputs[0]}.bias", corrected))

    def _quantize_constants(self, node: Node, new: Node) -> None:
        """Constant operands of add, sub, mul: i8 with their own parameters."""
        if node.op not in ("add", "sub", "mul", "concat"):
            return
        for slot, name in enumerate(node.inputs):
            data = self.source.constant(name)
            if data is None:
                continue
            absmax = float(np.abs(data).max(initial=0.0))
            unsigned = bool(np.all(data >= 0))
            params = params_for(absmax, unsigned)
            q = np.rint(data / np.float64(params.scale)) + params.zero_point
            constant = self.graph.add_constant(f"{name}.i8", np.clip(q, -128, 127).astype(np.int8))
            tensor = self.graph.tensors[constant]
            tensor.scale, tensor.zero_point = params.scale, params.zero_point
            new.inputs[slot] = constant


def levels(unsigned: bool) -> int:
    """Steps from zero to the threshold."""
    return UNSIGNED_LEVELS if unsigned else SYMMETRIC_LEVELS


def params_for(threshold: float, unsigned: bool) -> QuantParams:
    """Symmetric, or the full range for what is never negative. A threshold of 0 gets scale 1."""
    scale = float(np.float32(threshold / levels(unsigned)))
    if scale < np.finfo(np.float32).tiny:
        scale = 1.0
    return QuantParams(scale, -128 if unsigned else 0)


def asymmetric_params(threshold: float, minimum: float, maximum: float) -> QuantParams:
    """All 256 steps over what was seen, cut at +-threshold; zero stays a step.

    A threshold beyond the largest magnitude widens the other side alike.
    """
    absmax = max(-minimum, maximum)
    room = max(1.0, threshold / absmax) if absmax > 0 else 1.0
    low = min(0.0, max(minimum * room, -threshold))
    high = max(0.0, min(maximum * room, threshold))
    scale = float(np.float32((high - low) / UNSIGNED_LEVELS))
    if scale < np.finfo(np.float32).tiny:
        return QuantParams(1.0)
    return QuantParams(scale, int(np.clip(np.rint(-128 - low / scale), -128, 127)))
