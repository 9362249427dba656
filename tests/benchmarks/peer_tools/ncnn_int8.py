"""ncnn's INT8 format, which no wheel can write: from an FP32 param and bin to their INT8 form.

A layer's weights are a tag and the values, padded to four bytes; then come the bias as float32,
the scale of each output channel (of each group where the layer is grouped), the scale of the
input and, where the next layer takes the INT8 result directly, the scale of the output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

_FP32_TAG, _INT8_TAG = b"\0\0\0\0", (0x000D4B38).to_bytes(4, "little")
_LEVELS, _WINOGRAD_LEVELS = 127, 31
_REQUANTIZES = 100  # added to the kind of quantization

# Attribute numbers of convolutions and fully connected layers.
_OUTPUTS, _SIZE, _GROUPS, _INT8 = 0, 6, 7, 8
_KINDS = {"Convolution": 2, "ConvolutionDepthWise": 1, "InnerProduct": 2}
# What else has constants: how many float32, from the attributes.
_RAW: dict[str, Callable[[dict[int, str]], int]] = {
    "PReLU": lambda a: int(a[0]),
    "BatchNorm": lambda a: 4 * int(a[0]),
}
_WITHOUT = {
    "Input",
    "Split",
    "BinaryOp",
    "Flatten",
    "Reshape",
    "Pooling",
    "Dropout",
    "ReLU",
    "Clip",
}


@dataclass
class Layer:
    """A line of the param file and the bytes of its constants."""

    kind: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[int, str]
    weight: np.ndarray | None = None  # [outputs, …]
    bias: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    raw: bytes = b""


def read(param: Path, weights: Path) -> list[Layer]:
    """The layers of an FP32 network as pnnx writes it.

    Raises:
        ValueError: a layer of another kind, weights that are not float32, bytes left over.
    """
    data, position = weights.read_bytes(), 0

    def take(count: int) -> np.ndarray:
        nonlocal position
        position += 4 * count
        return np.frombuffer(data, np.float32, count, position - 4 * count)

    layers = []
    for line in param.read_text().splitlines()[2:]:
        kind, name, inputs, outputs, *rest = line.split()
        blobs, attrs = rest[: int(inputs) + int(outputs)], rest[int(inputs) + int(outputs) :]
        layer = Layer(kind, name, blobs[: int(inputs)], blobs[int(inputs) :], _attributes(attrs))
        if kind in _KINDS:
            if take(1).tobytes() != _FP32_TAG:
                raise ValueError(f"{name}: weights are not float32 (pnnx needs fp16=0)")
            inner = kind == "InnerProduct"
            count = int(layer.attrs[2 if inner else _SIZE])
            layer.weight = take(count).reshape(int(layer.attrs[_OUTPUTS]), -1)
            if layer.attrs.get(1 if inner else 5) == "1":
                layer.bias = take(int(layer.attrs[_OUTPUTS]))
        elif kind in _RAW:
            layer.raw = take(_RAW[kind](layer.attrs)).tobytes()
        elif kind not in _WITHOUT:
            raise ValueError(f"{name}: a layer {kind} is not known here")
        layers.append(layer)
    if position != len(data):
        raise ValueError(f"{weights}: {len(data) - position} bytes left over")
    return layers


def quantized_inputs(layers: list[Layer]) -> dict[str, str]:
    """The blob that each layer to be quantized reads, by the layer's name."""
    return {layer.name: layer.inputs[0] for layer in layers if layer.kind in _KINDS}


def write(layers: list[Layer], thresholds: Mapping[str, float], target: Path) -> None:
    """Writes `target`.param and `target`.bin.

    Args:
        thresholds: of the input of each convolution and fully connected layer, by its name: the
            magnitude that becomes 127.
    """
    lines, chunks = [], []
    scales = {name: np.float32(_LEVELS / value) for name, value in thresholds.items()}
    for layer in layers:
        attrs = dict(layer.attrs)
        if layer.weight is None:
            chunks.append(layer.raw)
        else:
            reader = _only_reader(layers, layer.outputs[0])
            following = scales.get(reader.name) if reader is not None else None
            attrs[_INT8] = str(_KINDS[layer.kind] + (0 if following is None else _REQUANTIZES))
            top = [] if following is None else [following]
            chunks.append(_quantized(layer, [scales[layer.name], *top]))
        fields = [layer.kind, layer.name, str(len(layer.inputs)), str(len(layer.outputs))]
        fields += [*layer.inputs, *layer.outputs]
        lines.append(" ".join(fields + [f"{key}={attrs[key]}" for key in sorted(attrs)]))
    blobs = sum(len(layer.outputs) for layer in layers)
    text = "\n".join(["7767517", f"{len(layers)} {blobs}", *lines])
    target.with_suffix(".param").write_text(text + "\n")
    target.with_suffix(".bin").write_bytes(b"".join(chunks))


def _attributes(fields: list[str]) -> dict[int, str]:
    return {int(key): value for key, value in (field.split("=") for field in fields)}


def _only_reader(layers: list[Layer], blob: str) -> Layer | None:
    """The convolution that alone reads the blob."""
    readers = [layer for layer in layers if blob in layer.inputs]
    convolution = len(readers) == 1 and readers[0].kind.startswith("Convolution")
    return readers[0] if convolution else None


def _quantized(layer: Layer, activation_scales: list[np.float32]) -> bytes:
    assert layer.weight is not None
    groups = int(layer.attrs.get(_GROUPS, "1")) if layer.kind == "ConvolutionDepthWise" else 0
    rows = layer.weight.reshape(groups or len(layer.weight), -1)
    absmax = np.abs(rows).max(axis=1)
    levels = _WINOGRAD_LEVELS if _is_winograd(layer) else _LEVELS
    scale = np.where(absmax > 0, np.float32(levels) / np.maximum(absmax, 1e-30), 1.0)
    scale = scale.astype(np.float32)
    x = rows * scale[:, None]
    rounded = np.copysign(np.floor(np.abs(x) + 0.5), x)  # half away from zero
    q = np.clip(rounded, -_LEVELS, _LEVELS).astype(np.int8).tobytes()
    parts = [_INT8_TAG, q, bytes(-len(q) % 4), layer.bias.tobytes(), scale.tobytes()]
    return b"".join([*parts, *(s.tobytes() for s in activation_scales)])


def _is_winograd(layer: Layer) -> bool:
    """Dense 3x3 of stride and dilation 1: sums of nine products need room."""
    a = layer.attrs
    square = layer.kind == "Convolution" and a.get(1) == "3" and a.get(11, "3") == "3"
    return square and all(a.get(key, "1") == "1" for key in (2, 12, 3, 13))
