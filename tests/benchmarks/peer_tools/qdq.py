"""An INT8 graph of ours as ONNX that other runtimes read: float operations between
QuantizeLinear and DequantizeLinear, with the same weights, scales and zero points."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pyedge.converters.ir import Graph, Node, Tensor

_NCHW_TO_NHWC = [0, 2, 3, 1]


def to_qdq(graph: Graph, batch: int, opset: int = 13) -> onnx.ModelProto:
    """The graph with its NHWC activations as ONNX's NCHW.

    Activations are uint8, which every x86 runtime multiplies fastest: 128 more than ours, the
    zero point too. Biases are int32, as runtimes want them.

    Args:
        graph: quantized: convolutions, fully connected layers and what flattens an image.

    Raises:
        ValueError: another operation.
    """
    return _Export(graph, batch, opset).model()


class _Export:
    def __init__(self, graph: Graph, batch: int, opset: int) -> None:
        self.graph, self.batch, self.opset = graph, batch, opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.names: dict[str, str] = {}  # a float32 value -> its name in ONNX
        self.channels: dict[str, int] = {}  # of an activation
        self.flattened: dict[str, int] = {}  # channels before an image became a vector

    def model(self) -> onnx.ModelProto:
        for node in self.graph.nodes:
            getattr(self, f"_{node.op}", self._unknown)(node)
        (source,), (result,) = self.graph.inputs, self.graph.outputs
        shape = [self.batch, *(self.graph.tensors[source].shape or ())[1:]]
        for made in self.nodes:  # the last value is the output
            made.output[:] = [result if name == self._f32(result) else name for name in made.output]
        graph = helper.make_graph(
            self.nodes,
            "quantized",
            [helper.make_tensor_value_info(source, TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        model.ir_version = 8
        return onnx.shape_inference.infer_shapes(model)

    def _unknown(self, node: Node) -> None:
        raise ValueError(f"{node.name}: {node.op} cannot be written as ONNX here")

    def _transpose(self, node: Node) -> None:
        if node.attrs["perm"] != _NCHW_TO_NHWC:
            self._unknown(node)
        self._alias(node)

    def _quantize(self, node: Node) -> None:
        self._add_quantize(self._f32(node.inputs[0]), self._tensor(node.outputs[0]))

    def _reshape(self, node: Node) -> None:
        (source,), (result,) = node.inputs, node.outputs
        assert source is not None
        dims = node.attrs["dims"]
        if not isinstance(dims, list) or len(dims) != 2:
            self._unknown(node)
        self.flattened[result] = self.channels[source]
        self.names[result] = self._add("Flatten", [self._f32(source)], result, axis=1)

    def _conv(self, node: Node) -> None:
        a = node.attrs
        attributes = {
            "kernel_shape": list(self._weight(node).shape[1:3]),
            "strides": [a["stride_h"], a["stride_w"]],
            "dilations": [a["dilation_h"], a["dilation_w"]],
            "pads": [a[f"pad_{side}"] for side in ("top", "left", "bottom", "right")],
            "group": a["groups"],
        }
        weight = self._weight(node).transpose(0, 3, 1, 2)
        inputs = [self._f32(node.inputs[0]), *self._multiplied(node, weight)]
        self._finish(node, self._add("Conv", inputs, f"{node.outputs[0]}.sum", **attributes), 4)

    def _fully_connected(self, node: Node) -> None:
        weight = self._weight(node)
        # Columns follow a flattened image: NHWC here, NCHW there.
        channels = self.flattened[node.inputs[0] or ""]
        weight = weight.reshape(len(weight), -1, channels).swapaxes(1, 2).reshape(weight.shape)
        inputs = [self._f32(node.inputs[0]), *self._multiplied(node, weight)]
        self._finish(node, self._add("Gemm", inputs, f"{node.outputs[0]}.sum", transB=1), 2)

    def _multiplied(self, node: Node, weight: np.ndarray) -> list[str]:
        """The dequantized weight and bias."""
        scale = self.graph.constant(node.inputs[3])
        bias = self.graph.constant(node.input(2))
        x = self._tensor(node.inputs[0])
        assert scale is not None
        name = node.outputs[0]
        result = [self._constant_dequantized(f"{name}.weight", weight, scale)]
        if bias is not None:
            steps = scale.astype(np.float64) * x.scale
            rounded = np.clip(np.rint(bias / steps), -(2**31), 2**31 - 1).astype(np.int32)
            result.append(
                self._constant_dequantized(f"{name}.bias", rounded, steps.astype(np.float32))
            )
        return result

    def _finish(self, node: Node, value: str, rank: int) -> None:
        """Residual, PReLU, bounds, and the quantization of the result."""
        name = node.outputs[0]
        if (residual := node.input(5)) is not None:
            value = self._add("Add", [value, self._f32(residual)], f"{name}.added")
        slope = self.graph.constant(node.input(4))
        if slope is not None:
            shape = (-1, 1, 1) if rank == 4 else (-1,)
            constant = self._constant(f"{name}.slope", slope.reshape(shape))
            value = self._add("PRelu", [value, constant], f"{name}.activated")
        if node.activation != "none":
            value = self._activated(node, value)
        bounds = np.array([node.attrs["act_min"], node.attrs["act_max"]], np.float32)
        if np.isfinite(bounds).any():
            limits = [
                self._constant(f"{name}.{word}", bound) if np.isfinite(bound) else ""
                for word, bound in zip(("min", "max"), bounds, strict=True)
            ]
            value = self._add("Clip", [value, *limits], f"{name}.clipped")
        self.channels[name] = len(self._weight(node))
        if self._tensor(name).dtype == "i8":
            self._add_quantize(value, self._tensor(name))
        else:
            self.names[name] = value

    def _activated(self, node: Node, value: str) -> str:
        name, hard = node.outputs[0], node.activation.startswith("hard")
        attributes = {"alpha": 1 / 6, "beta": 0.5} if hard else {}
        kind = "HardSigmoid" if hard else "Sigmoid"
        gate = self._add(kind, [value], f"{name}.gate", **attributes)
        if not node.activation.endswith("swish"):
            return gate
        return self._add("Mul", [value, gate], f"{name}.activated")

    def _tensor(self, name: str | None) -> Tensor:
        assert name is not None
        return self.graph.tensors[name]

    def _weight(self, node: Node) -> np.ndarray:
        weight = self.graph.constant(node.inputs[1])
        if weight is None or weight.dtype != np.int8:
            raise ValueError(f"{node.name}: the weight is not INT8")
        return weight

    def _f32(self, name: str | None) -> str:
        return self.names.get(name or "", name or "")

    def _alias(self, node: Node) -> None:
        self.names[node.outputs[0]] = self._f32(node.inputs[0])

    def _add(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], output, **attributes))
        return output

    def _constant(self, name: str, data: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(data), name))
        return name

    def _constant_dequantized(self, name: str, data: np.ndarray, scale: np.ndarray) -> str:
        zeros = np.zeros(len(scale), data.dtype)
        parameters = [
            self._constant(f"{name}.{word}", array)
            for word, array in (("q", data), ("scale", scale), ("zero", zeros))
        ]
        return self._add("DequantizeLinear", parameters, name, axis=0)

    def _add_quantize(self, value: str, tensor: Tensor) -> None:
        """The value becomes uint8 and float again, under the name of the tensor."""
        parameters = [
            self._constant(f"{tensor.name}.scale", np.array(tensor.scale, np.float32)),
            self._constant(f"{tensor.name}.zero", np.array(tensor.zero_point + 128, np.uint8)),
        ]
        steps = self._add("QuantizeLinear", [value, *parameters], f"{tensor.name}.steps")
        self.names[tensor.name] = self._add(
            "DequantizeLinear", [steps, *parameters], f"{tensor.name}.real"
        )
