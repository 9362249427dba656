"""ONNX models made by hand, and the comparison of a graph with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import pyedge
from pyedge.converters import ir, native

TOLERANCE = 1e-4


def node(op: str, inputs: str, outputs: str = "y", **attrs: object) -> onnx.NodeProto:
    """Inputs and outputs are separated by spaces; `-` stands for one left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), name=f"{op}_{outputs.split()[0]}", **attrs)


def model(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str | None],
    constants: Mapping[str, np.ndarray] | None = None,
    opset: int = 13,
    outputs: str = "y",
) -> onnx.ModelProto:
    """A model with one input `x`."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs.split()],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 8 if opset < 21 else 10
    return made


def reference(made: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    """What ONNX Runtime computes, without rewrites such as quantizing behind a dequantization."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        made.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: x})


def run(graph: ir.Graph, x: np.ndarray) -> list[np.ndarray]:
    """What the native core computes."""
    return pyedge.Session(native.write(graph)).run(x)


def assert_close(got: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    """Relative to the largest expected value of each output."""
    assert [a.shape for a in got] == [b.shape for b in expected]
    for a, b in zip(got, expected, strict=True):
        assert np.isfinite(a).all()
        scale = float(np.abs(b).max())
        assert float(np.abs(a - b).max()) <= TOLERANCE * max(scale, 1e-30)


def noise(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=tuple(shape)).astype(np.float32)
