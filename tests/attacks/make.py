"""Model files that lie: one for each thing the loader must check.

`attacks(valid)` takes a valid file apart at the offsets of csrc/format/format.h, tells one lie and
seals it with a right digest, so that the check meant is the one that speaks. Run as a program, it
writes them all into a folder, as seeds for the fuzzer:

    python tests/attacks/make.py FOLDER
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyedge.converters import native
from pyedge.converters.ir import Graph, Metadata, Node, Tensor

METADATA, TENSOR, NODE = 128, 64, 48

HEADER, DIGEST_AT = native.HEADER_BYTES, native.DIGEST_AT

# Offsets inside the records.
VERSION, FLAGS, FILE_BYTES, COUNTS, WEIGHTS_OFFSET, WEIGHTS_BYTES = 8, 12, 16, 24, 56, 64
COUNT_NAMES = ("tensor", "node", "input", "output", "integer", "float")
DTYPE, RANK, CONSTANT, DIMS, SCALE, ZERO_POINT, DATA_OFFSET, DATA_BYTES = (
    8, 9, 10, 12, 36, 40, 44, 52,
)  # fmt: skip
RUNS = {"inputs": 12, "outputs": 20, "ints": 28, "floats": 36}


@dataclass(frozen=True)
class Attack:
    """A file, and words that the message must hold: the field that lies."""

    name: str
    data: bytes
    field: str


def tiny_graph() -> Graph:
    """Every kind of record in a few hundred weights: f32, f16 and i8, residual, pool, embedding."""
    rng = np.random.default_rng(7)
    graph = Graph(
        metadata=Metadata("rgb", (8, 8), (127.5,) * 3, (1 / 128,) * 3, 4, None, "tiny", "tiny-1")
    )

    def f32(name: str, *shape: int) -> str:
        return graph.add_constant(name, rng.normal(0, 0.3, shape).astype(np.float32))

    def f16(name: str, *shape: int) -> str:
        data = rng.normal(0, 0.3, shape).astype(np.float16)
        graph.tensors[name] = Tensor(name, "f16", shape, data)
        return name

    def i8(name: str, *shape: int) -> str:
        return graph.add_constant(name, rng.integers(-127, 128, shape).astype(np.int8))

    def scales(name: str, size: int) -> str:
        return graph.add_constant(name, rng.uniform(0.001, 0.01, size).astype(np.float32))

    def node(op: str, inputs: list[str | None], output: str, **attrs: object) -> str:
        if output not in graph.tensors:
            graph.tensors[output] = Tensor(output)
        graph.nodes.append(Node(op, output + "_node", inputs, [output], attrs))  # type: ignore[arg-type]
        return output

    def quantized(name: str, scale: float, zero_point: int) -> str:
        graph.tensors[name] = Tensor(name, "i8", scale=scale, zero_point=zero_point)
        return name

    window = {"stride_h": 1, "stride_w": 1, "dilation_h": 1, "dilation_w": 1}
    same = {"pad_top": 1, "pad_left": 1, "pad_bottom": 1, "pad_right": 1, "groups": 1}
    linear = {"act_min": float("-inf"), "act_max": float("inf")}
    graph.tensors["image"] = Tensor("image", "f32", (-1, 3, -1, -1))
    graph.inputs = ["image"]
    x = node("transpose", ["image"], "image_nhwc", perm=[0, 2, 3, 1])
    x = node(
        "conv",
        [x, f32("w1", 8, 3, 3, 3), f32("b1", 8), None, f32("slope1", 8)],
        "stem",
        **window, **same, **linear,
    )  # fmt: skip
    skip = node("quantize", [x], quantized("stem_i8", 0.02, 0))
    x = node(
        "conv",
        [skip, i8("w2", 8, 3, 3, 8), f32("b2", 8), scales("s2", 8), None, skip],
        quantized("block_i8", 0.05, -128),
        **window, **same, act_min=0.0, act_max=float("inf"),
    )  # fmt: skip
    x = node("dequantize", [x], "block")
    pool = dict.fromkeys(
        ("kernel_h", "kernel_w", "stride_h", "stride_w", *list(same)[:4], "ceil_mode"), 0
    )
    x = node("average_pool", [x], "pooled", **{"global": 1}, **pool, count_include_pad=0)
    x = node("reshape", [x], "flat", dims=[0, -1])
    x = node(
        "fully_connected", [x, f16("w3", 4, 8), f32("b3", 4)], "features", **linear, activation=2
    )
    graph.outputs = [node("l2_normalize", [x], "embedding", axis=1, epsilon=1e-12)]
    return graph


def tiny_model() -> bytes:
    """A valid file."""
    return native.write(tiny_graph())


class Layout:
    """Where the records of a valid file lie."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        counts = struct.unpack_from("<7I", data, COUNTS)
        self.tensors, self.nodes = counts[0], counts[1]
        self.tensors_at = HEADER + METADATA
        self.nodes_at = self.tensors_at + self.tensors * TENSOR
        self.inputs_at = self.nodes_at + self.nodes * NODE
        self.outputs_at = self.inputs_at + 4 * counts[2]
        self.integers_at = self.outputs_at + 4 * counts[3]
        self.floats_at = self.integers_at + 4 * counts[4]
        self.strings_at = self.floats_at + 4 * counts[5]
        self.strings_end = self.strings_at + counts[6]
        self.weights_at = struct.unpack_from("<Q", data, WEIGHTS_OFFSET)[0]

    def u32(self, at: int) -> int:
        return int(struct.unpack_from("<I", self.data, at)[0])

    def string(self, at: int) -> str:
        offset, length = struct.unpack_from("<2I", self.data, at)
        begin = self.strings_at + offset
        return self.data[begin : begin + length].decode()

    def tensor(self, name: str) -> int:
        """Offset of the record of that tensor."""
        records = (self.tensors_at + i * TENSOR for i in range(self.tensors))
        return next(at for at in records if self.string(at) == name)

    def tensor_index(self, name: str) -> int:
        return (self.tensor(name) - self.tensors_at) // TENSOR

    def node(self, output: str) -> int:
        """Offset of the record of the node with that output."""
        records = (self.nodes_at + i * NODE for i in range(self.nodes))
        return next(at for at in records if self.string(at + 4) == output + "_node")

    def run(self, output: str, kind: str, index: int = 0) -> int:
        """Offset, in its pool, of one of a node's inputs, outputs, ints or floats."""
        pool = self.floats_at if kind == "floats" else self.integers_at
        return pool + 4 * (self.u32(self.node(output) + RUNS[kind]) + index)

    def with_field(self, at: int, fmt: str, *values: int | float) -> bytes:
        """The file with other values at that place, sealed."""
        data = bytearray(self.data)
        struct.pack_into("<" + fmt, data, at, *values)
        return native.seal(bytes(data))


def attacks(valid: bytes) -> Iterator[Attack]:
    """All lies about the file that `tiny_model` gives."""
    layout = Layout(valid)
    yield from _frame(valid, layout)
    yield from _metadata(layout)
    yield from _tensors(layout)
    yield from _nodes(layout)
    yield from _attributes(layout)


def _frame(valid: bytes, layout: Layout) -> Iterator[Attack]:
    lie = layout.with_field
    yield Attack("empty", b"", "file")
    yield Attack("magic", lie(0, "B", 0x50), "magic")
    yield Attack("magic_as_text", b"\x89PYE\n\n\x1a\n" + valid[8:], "magic")
    yield Attack("version_0", lie(VERSION, "I", 0), "version")
    yield Attack("version_2", lie(VERSION, "I", 2), "version")
    yield Attack("flags", lie(FLAGS, "I", 1), "reserved")
    yield Attack("reserved", lie(80, "B", 1), "reserved")
    yield Attack("file_size_small", lie(FILE_BYTES, "Q", len(valid) - 1), "file_size")
    yield Attack("file_size_huge", lie(FILE_BYTES, "Q", 2**64 - 1), "file_size")
    for index, name in enumerate(COUNT_NAMES):
        field = f"{name}_count"
        count = layout.u32(COUNTS + 4 * index)
        yield Attack(f"{field}_limit", lie(COUNTS + 4 * index, "I", 2**32 - 1), field)
        # One more shifts every later section, so any of several fields may speak first.
        yield Attack(f"{field}_plus_1", lie(COUNTS + 4 * index, "I", count + 1), "")
    yield Attack("string_bytes_limit", lie(COUNTS + 24, "I", 2**31), "string_bytes")
    yield Attack("weights_offset_0", lie(WEIGHTS_OFFSET, "Q", 0), "weights_offset")
    yield Attack("weights_offset_far", lie(WEIGHTS_OFFSET, "Q", 2**63), "weights_offset")
    yield Attack("weights_bytes_huge", lie(WEIGHTS_BYTES, "Q", 2**64 - 64), "weights_bytes")
    if layout.weights_at > layout.strings_end:
        yield Attack("padding", lie(layout.strings_end, "B", 1), "padding")
    yield Attack("digest", valid[:DIGEST_AT] + bytes(32) + valid[HEADER:], "digest")
    yield Attack("weight_altered", valid[:-1] + bytes([valid[-1] ^ 1]), "digest")
    yield Attack("trailing_byte", native.seal(valid + b"\0"), "file_size")
    for size in range(0, len(valid), 16):
        yield Attack(f"truncated_{size}", valid[:size], "file")
        if size >= HEADER:
            data = bytearray(valid[:size])
            struct.pack_into("<Q", data, FILE_BYTES, size)
            yield Attack(f"truncated_{size}_sealed", native.seal(bytes(data)), "")


def _metadata(layout: Layout) -> Iterator[Attack]:
    lie = layout.with_field
    yield Attack("color", lie(HEADER, "I", 3), "metadata.color")
    yield Attack("input_width", lie(HEADER + 4, "i", -1), "metadata")
    yield Attack("mean_nan", lie(HEADER + 12, "f", float("nan")), "metadata")
    yield Attack("pixel_scale_inf", lie(HEADER + 24, "f", float("inf")), "metadata")
    yield Attack("embedding_size", lie(HEADER + 36, "i", -4), "metadata")
    yield Attack("has_landmarks", lie(HEADER + 40, "I", 2), "metadata")
    yield Attack("model_name_far", lie(HEADER + 84, "I", 2**32 - 1), "metadata.model_name")
    yield Attack("model_name_long", lie(HEADER + 88, "I", 2**32 - 1), "metadata.model_name")


def _tensors(layout: Layout) -> Iterator[Attack]:
    lie = layout.with_field
    weight, value = layout.tensor("w1"), layout.tensor("stem_i8")
    name_at = layout.strings_at + layout.u32(weight)
    yield Attack("name_far", lie(weight, "I", 2**32 - 1), ".name")
    yield Attack("name_long", lie(weight + 4, "I", 2**31), ".name")
    for name, text in (("stray", b"\x80"), ("overlong", b"\xc0\xaf"), ("cut", b"w\xc3")):
        yield Attack(f"name_utf8_{name}", lie(name_at, f"{len(text)}B", *text), ".name")
    yield Attack("name_nul", lie(name_at, "B", 0), ".name")
    yield Attack("dtype", lie(weight + DTYPE, "B", 7), ".dtype")
    yield Attack("dtype_other", lie(weight + DTYPE, "B", 1), ".data_bytes")
    yield Attack("dtype_half", lie(weight + DTYPE, "B", 2), ".data_bytes")
    yield Attack("dtype_half_of_value", lie(value + DTYPE, "B", 2), ".dtype")
    yield Attack("dtype_next", lie(weight + DTYPE, "B", 3), ".dtype")
    yield Attack("rank", lie(weight + RANK, "B", 255), ".rank")
    yield Attack("rank_less", lie(weight + RANK, "B", 3), ".dims")
    yield Attack("constant", lie(weight + CONSTANT, "B", 2), ".constant")
    yield Attack("constant_denied", lie(weight + CONSTANT, "B", 0), ".data")
    yield Attack("constant_claimed", lie(value + CONSTANT, "B", 1), "")
    yield Attack("dim_0", lie(weight + DIMS, "i", 0), "shape")
    yield Attack("dim_negative", lie(weight + DIMS, "i", -8), "shape")
    yield Attack("dim_any", lie(weight + DIMS, "i", -1), "shape")
    yield Attack("dims_huge", lie(weight + DIMS, "4i", *(2**31 - 1,) * 4), "shape")
    # 2^64 elements: the product is 0 where it is allowed to wrap around.
    yield Attack("dims_wrap", lie(weight + DIMS, "4i", *(2**16,) * 4), "shape")
    yield Attack("dims_many", lie(weight + DIMS, "4i", 2**24, 2**24, 1, 1), "shape")
    yield Attack("dims_other", lie(weight + DIMS, "i", 9), ".data_bytes")
    for name, number in (("nan", float("nan")), ("inf", float("inf")), ("0", 0.0), ("neg", -1.0)):
        yield Attack(f"scale_{name}", lie(value + SCALE, "f", number), ".scale")
    yield Attack("zero_point", lie(value + ZERO_POINT, "i", 128), ".zero_point")
    yield Attack("zero_point_min", lie(value + ZERO_POINT, "i", -(2**31)), ".zero_point")
    yield Attack("data_unaligned", lie(weight + DATA_OFFSET, "Q", 4), ".data_offset")
    yield Attack("data_far", lie(weight + DATA_OFFSET, "Q", 2**64 - 64), ".data_offset")
    yield Attack("data_end", lie(weight + DATA_OFFSET, "Q", 2**20), ".data_offset")
    yield Attack("data_bytes", lie(weight + DATA_BYTES, "Q", 2**64 - 1), ".data_bytes")
    yield Attack("data_of_value", lie(value + DATA_BYTES, "Q", 64), ".data")
    data_at = layout.weights_at + struct.unpack_from("<Q", layout.data, weight + DATA_OFFSET)[0]
    yield Attack("weight_nan", lie(data_at, "f", float("nan")), ".data")
    half = layout.tensor("w3")
    data_at = layout.weights_at + layout.u32(half + DATA_OFFSET)
    for name, bits in (("inf", 0xFC00), ("nan", 0x7C01)):
        yield Attack(f"half_{name}", lie(data_at, "H", bits), ".data")
    quantized = layout.tensor("w2")
    quantized_at = (
        layout.weights_at + struct.unpack_from("<Q", layout.data, quantized + DATA_OFFSET)[0]
    )
    yield Attack("weight_min", lie(quantized_at + 5, "b", -128), "weight")
    image = layout.tensor("image")
    yield Attack("input_dim_negative", lie(image + DIMS, "i", -2), "input")
    yield Attack("input_dim_huge", lie(image + DIMS, "i", 2**31 - 1), "input")
    yield Attack("input_dtype", lie(image + DTYPE, "B", 1), "")


def _nodes(layout: Layout) -> Iterator[Attack]:
    lie = layout.with_field
    stem = layout.node("stem")
    yield Attack("op_0", lie(stem, "I", 0), ".op")
    yield Attack("op_unknown", lie(stem, "I", 2**32 - 1), ".op")
    yield Attack("op_other", lie(stem, "I", 28), "")
    yield Attack("node_name", lie(stem + 4, "I", 2**32 - 1), ".name")
    for kind, at in RUNS.items():
        yield Attack(f"{kind}_far", lie(stem + at, "I", 2**32 - 1), f".{kind}")
        yield Attack(f"{kind}_many", lie(stem + at + 4, "I", 2**32 - 1), f".{kind}")
    yield Attack("no_inputs", lie(stem + RUNS["inputs"] + 4, "I", 0), "inputs")
    yield Attack("one_input", lie(stem + RUNS["inputs"] + 4, "I", 1), "inputs")
    yield Attack("no_outputs", lie(stem + RUNS["outputs"] + 4, "I", 0), "outputs")
    for kind in ("ints", "floats"):
        count = layout.u32(stem + RUNS[kind] + 4)
        yield Attack(f"{kind}_fewer", lie(stem + RUNS[kind] + 4, "I", count - 1), "attributes")
    x, y = layout.run("stem", "inputs"), layout.run("stem", "outputs")
    for name, index in (("far", 2**31 - 1), ("negative", -2), ("absent", -1)):
        yield Attack(f"input_{name}", lie(x, "i", index), "input 0")
        yield Attack(f"output_{name}", lie(y, "i", index), "output")
    yield Attack("cycle", lie(x, "i", layout.tensor_index("stem")), "input 0")
    yield Attack("used_too_early", lie(x, "i", layout.tensor_index("block")), "input 0")
    yield Attack("input_constant", lie(x, "i", layout.tensor_index("w1")), "input 0")
    yield Attack("weight_computed", lie(x + 4, "i", layout.tensor_index("image_nhwc")), "weight")
    yield Attack("bias_length", lie(x + 8, "i", layout.tensor_index("b3")), "bias")
    yield Attack("two_producers", lie(y, "i", layout.tensor_index("image_nhwc")), "output")
    yield Attack("produces_input", lie(y, "i", layout.tensor_index("image")), "output")
    yield Attack("produces_constant", lie(y, "i", layout.tensor_index("w2")), "output")
    block = layout.run("block_i8", "inputs")
    yield Attack("weight_scale_absent", lie(block + 12, "i", -1), "weight_scale")
    yield Attack("residual_dtype", lie(block + 20, "i", layout.tensor_index("stem")), "residual")
    features = layout.run("features", "inputs")
    half = layout.tensor_index("w3")
    yield Attack("bias_half", lie(features + 8, "i", half), "input 2: f16")
    yield Attack("weight_half_for_i8", lie(block + 4, "i", half), "weight")
    yield Attack("residual_half", lie(block + 20, "i", half), "input 5: f16")
    yield Attack("weight_rank", lie(features + 4, "i", layout.tensor_index("w1")), "weight")
    yield Attack("graph_input_far", lie(layout.inputs_at, "I", 2**32 - 1), "inputs")
    constant = layout.tensor_index("w1")
    yield Attack("graph_input_constant", lie(layout.inputs_at, "I", constant), "inputs")
    yield Attack("graph_output_far", lie(layout.outputs_at, "I", 2**31), "outputs")
    yield Attack("graph_output_constant", lie(layout.outputs_at, "I", constant), "outputs")


def _attributes(layout: Layout) -> Iterator[Attack]:
    lie = layout.with_field
    ints, floats = layout.run("stem", "ints"), layout.run("stem", "floats")
    for index, name in enumerate(("stride_h", "stride_w", "dilation_h", "dilation_w")):
        yield Attack(f"{name}_0", lie(ints + 4 * index, "i", 0), "strides")
    for value in (-1, 2**31 - 1):
        yield Attack(f"pad_{value}", lie(ints + 16, "i", value), "pads")
    for value in (0, -1, 3, 2**31 - 1):
        yield Attack(f"groups_{value}", lie(ints + 32, "i", value), "groups")
    yield Attack("act_nan", lie(floats, "f", float("nan")), "attributes")
    yield Attack("act_crossed", lie(floats, "2f", 1.0, 0.0), "bounds")
    for value in (-1, 5, 2**31 - 1):
        activation = layout.run("features", "ints")
        yield Attack(f"activation_{value}", lie(activation, "i", value), "activation")
    pool = layout.run("pooled", "ints")
    yield Attack("pool_flag", lie(pool, "i", 2), "flags")
    yield Attack("pool_window", lie(pool, "9i", 0, 0, 0, 0, 0, 0, 0, 0, 0), "window")
    yield Attack("pool_pads", lie(pool, "9i", 0, 2, 2, 1, 1, 2, 0, 0, 0), "pads")
    epsilon = layout.run("embedding", "floats")
    yield Attack("epsilon", lie(epsilon, "f", -1.0), "epsilon")


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    valid = tiny_model()
    (folder / "valid.pye").write_bytes(valid)
    for attack in attacks(valid):
        (folder / f"{attack.name}.pye").write_bytes(attack.data)


if __name__ == "__main__":
    main()
