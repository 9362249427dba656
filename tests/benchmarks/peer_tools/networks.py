"""The networks as files for every engine: made once for a folder, found there later."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from models import export, iresnet, mbf, mobilefacenet
from torch import nn

from pyedge.calibration import CalibrationOptions, calibrate, quantize
from pyedge.converters import native
from pyedge.converters.onnx_import import import_onnx
from pyedge.converters.passes import optimize

from .convert import MEAN, SCALE
from .qdq import to_qdq

SHAPE = (3, 112, 112)
BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "MobileFaceNet": mobilefacenet,
    "mbf": mbf,
    "IResNet-50": lambda: iresnet(50),
}
LARGEST_BATCH = 16
_CALIBRATION_IMAGES = 8
_CONVERTER = Path(__file__).with_name("convert.py")


def prepare(name: str, folder: Path, peers_python: str, peers: Sequence[str]) -> None:
    """Makes what is not there yet; what a peer's tools cannot make stays missing and is told."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "data.npz").exists():
        _ours(BUILDERS[name](), folder)
    for peer in peers:
        stamp = folder / f"{peer}.done"
        if stamp.exists():
            continue
        command = ["nice", peers_python, str(_CONVERTER), peer, str(folder)]
        with (folder / f"{peer}.log").open("w") as log:
            failed = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
        if failed:
            print(f"{name}: {peer}'s tools failed, see {log.name}")
        else:
            stamp.touch()


def _ours(model: nn.Module, folder: Path) -> None:
    """FP32 as ONNX, ours in both precisions, ours as a quantize-dequantize graph, the inputs."""
    fp32 = folder / "fp32.onnx"
    onnx.save(_with_output_name(export(model, (1, *SHAPE))), fp32)
    rng = np.random.default_rng(0)
    calibration = rng.integers(0, 256, (_CALIBRATION_IMAGES, *SHAPE), np.uint8)
    np.save(folder / "calibration.npy", calibration)
    graph = optimize(import_onnx(fp32))
    (folder / "fp32.pye").write_bytes(native.write(graph))
    batches = [_normalized(image[None]) for image in calibration]
    options = CalibrationOptions("minmax")
    quantized = quantize(graph, calibrate(graph, batches, "", options, os.cpu_count() or 1))
    (folder / "int8.pye").write_bytes(native.write(quantized))
    onnx.save(to_qdq(quantized, 1), folder / "qdq.onnx")
    x = _normalized(rng.integers(0, 256, (LARGEST_BATCH, *SHAPE), np.uint8))
    session = onnxruntime.InferenceSession(fp32, providers=["CPUExecutionProvider"])
    expected = np.concatenate([session.run(None, {"input": image[None]})[0] for image in x])
    np.savez(folder / "data.npz", x=x, expected=expected)


def _normalized(images: np.ndarray) -> np.ndarray:
    return ((images.astype(np.float32) - MEAN) * SCALE).astype(np.float32)


def _with_output_name(model: onnx.ModelProto) -> onnx.ModelProto:
    """The exporter numbers the output; some engines are asked for it by name."""
    (output,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = ["output" if name == output.name else name for name in node.output]
    output.name = "output"
    return model
