"""ncnn's INT8 form of a network, of which no package carries the tools (ncnn2int8).

A `.param` is text, a line for each layer; the `.bin` holds their weights one after the other: a
tag, the weight, then bias and scales as plain float32.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TAG_FP32, TAG_INT8 = 0, 0x000D4B38
WEIGHTED = ("Convolution", "ConvolutionDepthWise", "InnerProduct")
WITHOUT_WEIGHTS = (
    *("Input", "Split", "BinaryOp", "Flatten", "Reshape", "ReLU", "Clip", "Pooling", "Dropout"),
    *("Concat", "Sigmoid", "HardSwish", "HardSigmoid", "Softmax", "Squeeze", "Permute", "Noop"),
)


@dataclass
class Layer:
    """One line of the `.param`."""

    type: str
    name: str
    bottoms: list[str]
    tops: list[str]
    params: dict[int, str]

    def get(self, key: int, default: int = 0) -> int:
        return int(self.params.get(key, default))

    @property
    def groups(self) -> int:
        return self.get(7, 1) if self.type == "ConvolutionDepthWise" else 1

    @property
    def has_bias(self) -> bool:
        return bool(self.get(1 if self.type == "InnerProduct" else 5))

    @property
    def weights(self) -> int:
        return self.get(2 if self.type == "InnerProduct" else 6)

    @property
    def winograd(self) -> bool:
        """Whether ncnn may run it as INT8 Winograd, which leaves its weights 31 levels."""
        square = self.get(1) == self.get(11, self.get(1)) == 3
        steps = {self.get(key, self.get(first, 1)) for first, key in ((2, 12), (3, 13))}
        return self.type == "Convolution" and square and steps | {self.get(2, 1)} == {1}

    def line(self) -> str:
        counts = f"{len(self.bottoms)} {len(self.tops)}"
        words = [f"{self.type:24} {self.name:24} {counts}", *self.bottoms, *self.tops]
        return " ".join([*words, *(f"{k}={v}" for k, v in self.params.items())])


def parse(text: str) -> list[Layer]:
    """The layers of a `.param`."""
    layers = []
    for line in text.splitlines()[2:]:
        kind, name, bottoms, tops, *rest = line.split()
        ends = int(bottoms), int(bottoms) + int(tops)
        pairs = (word.split("=", 1) for word in rest[ends[1] :])
        layers.append(
            Layer(
                kind, name, rest[: ends[0]], rest[ends[0] : ends[1]], {int(k): v for k, v in pairs}
            )
        )
    return layers


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def floats(self, count: int) -> np.ndarray:
        values = np.frombuffer(self.data, "<f4", count, self.at)
        self.at += 4 * count
        return values

    def weight(self, count: int) -> np.ndarray:
        (tag,) = struct.unpack_from("<I", self.data, self.at)
        if tag != TAG_FP32:
            raise ValueError(f"weight at byte {self.at}: tag {tag:#x}; expected float32 (fp16=0)")
        self.at += 4
        return self.floats(count)


def _round(x: np.ndarray) -> np.ndarray:
    """Half away from zero, clamped to -127…127."""
    return np.clip(np.copysign(np.floor(np.abs(x) + 0.5), x), -127, 127).astype(np.int8)


def _quantized(layer: Layer, weight: np.ndarray) -> tuple[bytes, np.ndarray]:
    """The weight with its tag and padding, and its scales: by output channel or by group."""
    rows = weight.reshape(layer.groups if layer.groups > 1 else layer.get(0), -1)
    absmax = np.abs(rows).max(axis=1)
    levels = np.float32(31 if layer.winograd else 127)
    scales = np.divide(levels, absmax, out=np.ones_like(absmax), where=absmax > 0)
    values = _round(rows * scales[:, None]).tobytes()
    return struct.pack("<I", TAG_INT8) + values + bytes(-len(values) % 4), scales


def observed(layers: list[Layer]) -> list[str]:
    """The blobs whose absolute maximum `quantize` needs."""
    return [layer.bottoms[0] for layer in layers if layer.type in WEIGHTED]


def quantize(param: Path, absmax: Mapping[str, float], target: Path) -> None:
    """Writes `target` and its `.bin` for the network of `param` and its `.bin`.

    Args:
        param: of a float32 network, as pnnx writes it with fp16=0.
        absmax: of the input blob of each convolution and fully connected layer.
        target: the `.param` to write.
    """
    layers = parse(param.read_text())
    reader, out = _Reader(param.with_suffix(".bin").read_bytes()), bytearray()
    readers: dict[str, list[Layer]] = {}
    for layer in layers:
        for blob in layer.bottoms:
            readers.setdefault(blob, []).append(layer)
    for layer in layers:
        if layer.type == "PReLU":
            out += reader.floats(layer.get(0)).tobytes()
        elif layer.type == "BatchNorm":
            out += reader.floats(4 * layer.get(0)).tobytes()
        elif layer.type in WEIGHTED:
            weight, scales = _quantized(layer, reader.weight(layer.weights))
            out += weight
            if layer.has_bias:
                out += reader.floats(layer.get(0)).tobytes()
            out += scales.tobytes() + np.float32(127 / absmax[layer.bottoms[0]]).tobytes()
            layer.params[8] = "1" if layer.type == "ConvolutionDepthWise" else "2"
            following = readers.get(layer.tops[0], [])
            if (
                len(following) == 1
                and following[0].type in WEIGHTED[:2]
                and layer.type in WEIGHTED[:2]
            ):
                # It hands INT8 to the convolution behind it.
                layer.params[8] = str(100 + int(layer.params[8]))
                out += np.float32(127 / absmax[layer.tops[0]]).tobytes()
        elif layer.type not in WITHOUT_WEIGHTS:
            raise ValueError(f"{layer.name}: {layer.type} is not known here")
    if reader.at != len(reader.data):
        raise ValueError(
            f"{param.with_suffix('.bin')}: {reader.at} of {len(reader.data)} bytes read"
        )
    head = param.read_text().splitlines()[:2]
    target.write_text("\n".join([*head, *(layer.line() for layer in layers)]) + "\n")
    target.with_suffix(".bin").write_bytes(bytes(out))
