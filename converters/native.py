"""Writes the native file. `csrc/format/format.h` describes it; the native core alone reads it."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

import numpy as np

from pyedge import _core
from pyedge.converters.ir import NUMPY_DTYPES, Graph, Node, Tensor
from pyedge.errors import InvalidArgumentError
from pyedge.metadata import Metadata

MAGIC = b"\x89PYE\r\n\x1a\n"
VERSION = 1
HEADER_BYTES, DIGEST_AT, MAX_RANK = 128, 96, 6
_DTYPES = {"f32": 0, "i8": 1, "f16": 2}
_COLORS = {"none": 0, "rgb": 1, "bgr": 2}
_ABSENT = -1
_OPS = _core.op_table()


class _Pool:
    """Values that records refer to by offset and count."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def add(self, values: Sequence[float]) -> tuple[int, int]:
        offset = len(self.values)
        self.values.extend(values)
        return offset, len(values)


class _Strings:
    """UTF-8 text, each distinct string once."""

    def __init__(self) -> None:
        self.bytes = bytearray()
        self._places: dict[bytes, int] = {}

    def add(self, text: str) -> tuple[int, int]:
        encoded = text.encode()
        offset = self._places.setdefault(encoded, len(self.bytes))
        if offset == len(self.bytes):
            self.bytes += encoded
        return offset, len(encoded)


class _Weights:
    """Constants, each at a multiple of 64 bytes."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.size = 0

    def add(self, tensor: Tensor) -> tuple[int, int]:
        assert tensor.data is not None
        data = np.ascontiguousarray(tensor.data, NUMPY_DTYPES[tensor.dtype]).tobytes()
        offset = self.size
        padded = data + bytes(-len(data) % 64)
        self.chunks.append(padded)
        self.size += len(padded)
        return offset, len(data)


def attribute_values(node: Node) -> tuple[list[int], list[float]]:
    """The integer and float attributes of a node in the order of the operation's row.

    Raises:
        InvalidArgumentError: the operation is unknown, or its attributes are not those it has.
    """
    row = _OPS.get(node.op)
    if row is None:
        raise InvalidArgumentError(f"node {node.name}: there is no operation {node.op}")
    unused = dict(node.attrs)

    def take(names: list[str]) -> list[float]:
        values: list[float] = []
        for name in names:
            if name.endswith("?"):  # stands last, and its 0 is left out
                value = unused.pop(name[:-1], 0)
                values.extend([value] if value else [])  # type: ignore[list-item]
                continue
            repeats = name.endswith("...")
            try:
                value = unused.pop(name.removesuffix("..."))
            except KeyError:
                raise InvalidArgumentError(
                    f"node {node.name} ({node.op}): the attribute {name} is missing"
                ) from None
            values.extend(value if repeats else [value])  # type: ignore[arg-type, list-item]
        return values

    ints, floats = take(row["ints"]), take(row["floats"])
    if unused:
        raise InvalidArgumentError(
            f"node {node.name} ({node.op}): it has no attributes {sorted(unused)}"
        )
    return [int(value) for value in ints], [float(value) for value in floats]


def _metadata_record(metadata: Metadata, strings: _Strings) -> bytes:
    landmarks = metadata.landmarks
    points = [c for point in landmarks for c in point] if landmarks is not None else [0.0] * 10
    record = struct.pack("<Iii", _COLORS[metadata.color], *metadata.input_size)
    record += struct.pack("<3f3f", *metadata.mean, *metadata.scale)
    record += struct.pack("<iI10f", metadata.embedding_size, landmarks is not None, *points)
    for text in (metadata.model_name, metadata.feature_space, metadata.producer):
        record += struct.pack("<II", *strings.add(text))
    return record.ljust(128, b"\0")


def _tensor_record(tensor: Tensor, strings: _Strings, weights: _Weights) -> bytes:
    shape = tensor.shape or ()
    dims = (*shape, *[0] * (MAX_RANK - len(shape)))
    record = struct.pack(
        "<IIBBBB6ifi",
        *strings.add(tensor.name),
        _DTYPES[tensor.dtype],
        len(shape),
        tensor.constant,
        0,
        *dims,
        tensor.scale,
        tensor.zero_point,
    )
    place = weights.add(tensor) if tensor.constant else (0, 0)
    return record + struct.pack("<QQI", *place, 0)


def write(graph: Graph) -> bytes:
    """The bytes of the native file of a graph.

    Raises:
        InvalidArgumentError: a node the native core does not know. Everything else that a graph
            can be wrong in is the reader's to find: it trusts nobody.
    """
    strings, weights, ints, floats = _Strings(), _Weights(), _Pool(), _Pool()
    metadata = _metadata_record(graph.metadata, strings)
    index = {name: i for i, name in enumerate(graph.tensors)}
    tensors = [_tensor_record(tensor, strings, weights) for tensor in graph.tensors.values()]
    nodes = []
    for node in graph.nodes:
        node_ints, node_floats = attribute_values(node)
        inputs = [_ABSENT if name is None else index[name] for name in node.inputs]
        nodes.append(
            struct.pack(
                "<12I",
                _OPS[node.op]["code"],
                *strings.add(node.name),
                *ints.add(inputs),
                *ints.add([index[name] for name in node.outputs]),
                *ints.add(node_ints),
                *floats.add(node_floats),
                0,
            )
        )
    sections = b"".join(
        [
            metadata,
            *tensors,
            *nodes,
            np.array([index[name] for name in graph.inputs], "<u4").tobytes(),
            np.array([index[name] for name in graph.outputs], "<u4").tobytes(),
            np.array(ints.values, "<i4").tobytes(),
            np.array(floats.values, "<f4").tobytes(),
            bytes(strings.bytes),
        ]
    )
    weights_offset = -(-(HEADER_BYTES + len(sections)) // 64) * 64
    header = MAGIC + struct.pack(
        "<IIQ8IQQ",
        VERSION,
        0,
        weights_offset + weights.size,
        len(tensors),
        len(nodes),
        len(graph.inputs),
        len(graph.outputs),
        len(ints.values),
        len(floats.values),
        len(strings.bytes),
        0,
        weights_offset,
        weights.size,
    )
    body = [sections.ljust(weights_offset - HEADER_BYTES, b"\0"), *weights.chunks]
    return seal(b"".join([header.ljust(HEADER_BYTES, b"\0"), *body]))


def seal(image: bytes) -> bytes:
    """A file image with its digest filled in."""
    zeroed = image[:DIGEST_AT] + bytes(32) + image[HEADER_BYTES:]
    return image[:DIGEST_AT] + hashlib.sha256(zeroed).digest() + image[HEADER_BYTES:]
