"""ONNX models that cannot be imported: each gives an error that says what would be right."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from parity import model, node, noise

from pyedge.converters.onnx_import import import_onnx
from pyedge.errors import InvalidArgumentError, InvalidModelError, PyEdgeError, UnsupportedError

WEIGHT = {"w": noise((5, 3, 3, 3))}
CONV = [node("Conv", "x w")]


@pytest.fixture
def valid() -> onnx.ModelProto:
    return model(CONV, ("n", 3, 8, 8), WEIGHT)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match=r"none\.onnx: cannot be read"):
        import_onnx(tmp_path / "none.onnx")


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x89PNG\r\n\x1a\n", bytes(1000)])
def test_file_that_is_not_onnx(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "picture.onnx"
    path.write_bytes(data)
    with pytest.raises(InvalidModelError, match=r"picture\.onnx: not an ONNX model"):
        import_onnx(path)


def test_every_truncation_is_an_error(tmp_path: Path, valid: onnx.ModelProto) -> None:
    data = valid.SerializeToString()
    path = tmp_path / "short.onnx"
    for length in range(0, len(data) - 1, 7):
        path.write_bytes(data[:length])
        with pytest.raises(PyEdgeError, match=r"short\.onnx"):
            import_onnx(path)


def test_altered_bytes_never_crash(tmp_path: Path, valid: onnx.ModelProto) -> None:
    data = bytearray(valid.SerializeToString())
    rng = np.random.default_rng(0)
    path = tmp_path / "altered.onnx"
    for _ in range(200):
        altered = bytearray(data)
        # The structure, not the weights.
        place = int(rng.choice([*range(60), *range(len(data) - 80, len(data))]))
        altered[place] = int(rng.integers(256))
        path.write_bytes(altered)
        with contextlib.suppress(PyEdgeError):
            import_onnx(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(value: float) -> None:
    weight = noise((5, 3, 3, 3))
    weight[1, 2, 0, 1] = value
    with pytest.raises(InvalidModelError, match=r"initializer 'w'.*NaN or infinite"):
        import_onnx(model(CONV, (1, 3, 8, 8), {"w": weight}))


def test_constant_node_that_is_not_finite() -> None:
    value = onnx.numpy_helper.from_array(np.array([1.0, np.nan], np.float32))
    nodes = [node("Constant", "", "c", value=value), node("Add", "x c")]
    with pytest.raises(InvalidModelError, match=r"'c'.*NaN"):
        import_onnx(model(nodes, (1, 2)))


def test_weights_shorter_than_their_shape(valid: onnx.ModelProto) -> None:
    valid.graph.initializer[0].raw_data = valid.graph.initializer[0].raw_data[:-4]
    with pytest.raises(InvalidModelError, match="w"):
        import_onnx(valid)


@pytest.mark.parametrize("opset", [9, 10, 22])
def test_opset_out_of_range(valid: onnx.ModelProto, opset: int) -> None:
    valid.opset_import[0].version = opset
    with pytest.raises(
        UnsupportedError, match=f"opset {opset}; export with an opset from 11 to 21"
    ):
        import_onnx(valid)


@pytest.mark.parametrize("shape", [("n", 3, "h", "w"), (1, 3, None, 8), (1, "c", 8, 8), ()])
def test_dynamic_or_missing_shape(shape: tuple[int | str | None, ...]) -> None:
    made = model(CONV, shape, WEIGHT)
    if not shape:
        made.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(InvalidModelError, match=r"input 'x' has .*shape.*pass input_shape="):
        import_onnx(made)
    graph = import_onnx(made, input_shape=(1, 3, 8, 8))
    assert graph.tensors["x"].shape == (-1, 3, -1, -1)
    assert import_onnx(made, input_shape={"x": (1, 3, 8, 8)}).inputs == ["x"]


@pytest.mark.parametrize(
    "shape", [(1, 3, 9, 8), (1, 3, 8), {"y": (1, 3, 8, 8)}, (1, 4, 8, 8)], ids=str
)
def test_input_shape_that_contradicts_the_model(valid: onnx.ModelProto, shape) -> None:
    with pytest.raises(InvalidArgumentError, match="input"):
        import_onnx(valid, input_shape=shape)


UNSUPPORTED = {
    "operation": ([node("Erf", "x")], {}, "node 'Erf_y': Erf"),
    "sqrt": ([node("Sqrt", "x")], {}, "L2 normalization"),
    "quantized": (
        [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z")],
        {"s": np.float32(0.1), "z": np.int8(0)},
        "import the float model",
    ),
    "computed-weight": ([node("Sigmoid", "x", "s"), node("Conv", "x s")], {}, "constant weight"),
    "cubic": (
        [node("Resize", "x - s", mode="cubic")],
        {"s": np.array([1, 1, 2, 2], np.float32)},
        "nearest or linear",
    ),
    "pool-indices": ([node("MaxPool", "x", "y i", kernel_shape=[2, 2])], {}, "return_indices"),
    "batch-transpose": ([node("Transpose", "x", perm=[1, 0, 2, 3])], {}, "batch"),
    "batch-reshape": ([node("Reshape", "x s")], {"s": np.array([3, 64])}, "batch"),
    "batch-softmax": ([node("Softmax", "x", axis=0)], {}, "batch"),
    "batch-mean": ([node("ReduceMean", "x", axes=[0, 1])], {}, "batch"),
    "batch-concat": ([node("Concat", "x x", axis=0)], {}, "batch"),
    "batch-pad": ([node("Pad", "x p")], {"p": np.array([1, 0, 0, 0, 0, 0, 0, 0])}, "batch"),
    "batch-unsqueeze": ([node("Unsqueeze", "x a")], {"a": np.array([0])}, "batch"),
    "dropout-mask": ([node("Dropout", "x", "d m"), node("Cast", "m", to=1)], {}, "activation"),
    "batch-constant": ([node("Add", "x c")], {"c": noise((4, 3, 8, 8))}, "batch"),
    "rank-5-constant": ([node("Add", "x c")], {"c": noise((1, 1, 3, 8, 8))}, "constant"),
    "constant-output": ([node("Relu", "x"), node("Sin", "c", "k")], {"c": noise((3,))}, "'k'"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_names_the_node_and_what_helps(name: str) -> None:
    nodes, constants, message = UNSUPPORTED[name]
    outputs = "y k" if name == "constant-output" else "y"
    with pytest.raises(UnsupportedError, match=message):
        import_onnx(model(nodes, ("n", 3, 8, 8), constants, outputs=outputs))


def test_one_dimensional_kernels() -> None:
    with pytest.raises(UnsupportedError, match="kernels 1-D"):
        import_onnx(model(CONV, (1, 3, 8), {"w": noise((5, 3, 3))}))


def test_custom_domain(valid: onnx.ModelProto) -> None:
    valid.graph.node[0].domain = "com.microsoft"
    valid.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(UnsupportedError, match=r"com\.microsoft.*standard ONNX"):
        import_onnx(valid)


def test_integer_input(valid: onnx.ModelProto) -> None:
    valid.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    with pytest.raises(PyEdgeError, match="input 'x' has the type UINT8"):
        import_onnx(valid)


# External data.


@pytest.fixture
def external(tmp_path: Path, valid: onnx.ModelProto) -> Path:
    """A model whose weight lies in `weights.bin`, behind 16 other bytes."""
    tensor = valid.graph.initializer[0]
    (tmp_path / "weights.bin").write_bytes(bytes(16) + tensor.raw_data)
    set_external(valid, tmp_path, location="weights.bin", offset="16")
    return tmp_path / "model.onnx"


def set_external(made: onnx.ModelProto, folder: Path, **entries: str) -> None:
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.ClearField("external_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    (folder / "model.onnx").write_bytes(made.SerializeToString())


def test_external_data_is_refused_unless_asked_for(external: Path) -> None:
    with pytest.raises(InvalidModelError, match=r"initializer 'w'.*allow_external_data=True"):
        import_onnx(external)
    graph = import_onnx(external, allow_external_data=True)
    (conv,) = [n for n in graph.nodes if n.op == "conv"]
    expected = WEIGHT["w"].transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(graph.constant(conv.input(1)), expected)


@pytest.mark.parametrize(
    "entries",
    [
        {"location": "../weights.bin"},
        {"location": "/etc/passwd"},
        {"location": "folder/weights.bin"},
        {"location": "..\\weights.bin"},
        {"location": ".."},
        {"location": "."},
        {"location": ""},
        {"location": "none.bin"},
        {"location": "weights.bin", "offset": "-1"},
        {"location": "weights.bin", "offset": "17"},
        {"location": "weights.bin", "length": "100000"},
        {"location": "weights.bin", "offset": "nine"},
        {"location": "symbolic.bin"},
        {"location": "hard.bin"},
        {"location": "pipe.bin"},
        {"location": "folder"},
    ],
    ids=str,
)
def test_external_data_stays_in_the_folder(
    external: Path, valid: onnx.ModelProto, entries: dict[str, str]
) -> None:
    folder = external.parent
    (folder / "folder").mkdir()
    (folder / "symbolic.bin").symlink_to(folder / "weights.bin")
    (folder / "original.bin").write_bytes((folder / "weights.bin").read_bytes())
    os.link(folder / "original.bin", folder / "hard.bin")
    os.mkfifo(folder / "pipe.bin")
    set_external(valid, folder, **entries)
    with pytest.raises(InvalidModelError, match=r"initializer 'w'|tensor name: w"):
        import_onnx(external, allow_external_data=True)


def test_external_data_needs_a_path(external: Path) -> None:
    made = onnx.load(external, load_external_data=False)
    with pytest.raises(InvalidModelError, match="given as a path"):
        import_onnx(made, allow_external_data=True)


@pytest.mark.parametrize("axis", [0, -4, 2])
def test_flatten_keeps_the_batch(axis: int) -> None:
    flatten = node("Flatten", "x", axis=axis)
    with pytest.raises(UnsupportedError, match="Flatten over the batch axis"):
        import_onnx(model([flatten], (1, 3, 4, 4)))


def test_kernel_shape_that_is_not_the_weights() -> None:
    conv = node("Conv", "x w", kernel_shape=[1, 1])
    with pytest.raises(InvalidModelError, match="kernel"):
        import_onnx(model([conv], (1, 3, 8, 8), WEIGHT))
