"""The peers' own ways from an FP32 ONNX model to their formats and to INT8.

Runs in the peers' environment: python convert.py STEP FOLDER, where FOLDER holds fp32.onnx and
calibration.npy, uint8 [N, 3, H, W] whose float32 form is (v - 127.5) / 64.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

MEAN, SCALE = 127.5, 1 / 64


def images(folder: Path) -> Iterator[np.ndarray]:
    """float32 [1, 3, H, W], one after another."""
    for image in np.load(folder / "calibration.npy"):
        yield ((image[None].astype(np.float32) - MEAN) * SCALE).astype(np.float32)


def onnxruntime_static(folder: Path) -> None:
    """Quantized activations and weights by channel, with the thresholds of the extremes seen."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.images = images(folder)

        def get_next(self) -> dict | None:
            image = next(self.images, None)
            return None if image is None else {"input": image}

    prepared = folder / "ort-prepared.onnx"
    quant_pre_process(folder / "fp32.onnx", prepared, skip_symbolic_shape=True)
    for name, kind in (("s8", QuantType.QInt8), ("u8", QuantType.QUInt8)):
        quantize_static(
            prepared,
            folder / f"ort-{name}.onnx",
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=kind,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )


def openvino_nncf(folder: Path) -> None:
    import nncf
    import openvino

    core = openvino.Core()
    for preset in (nncf.QuantizationPreset.MIXED, nncf.QuantizationPreset.PERFORMANCE):
        quantized = nncf.quantize(
            core.read_model(folder / "fp32.onnx"),
            nncf.Dataset(list(images(folder))),
            preset=preset,
            subset_size=len(np.load(folder / "calibration.npy")),
        )
        openvino.save_model(quantized, folder / f"nncf-{preset.value}.xml", compress_to_fp16=False)


def ncnn_models(folder: Path) -> None:
    """FP32 by pnnx, INT8 with the largest magnitude of each input as its threshold."""
    import ncnn

    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import ncnn_int8

    # Imported, pnnx wants torch, of which the program has no need.
    spec = importlib.util.find_spec("pnnx")
    assert spec is not None, "pnnx is not installed"
    program = Path(spec.origin or "").parent / "pnnx"
    shape = str(list(next(images(folder)).shape)).replace(" ", "")
    command = [str(program), "fp32.onnx", f"inputshape={shape}", "fp16=0"]
    command += ["ncnnparam=ncnn.param", "ncnnbin=ncnn.bin"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    layers = ncnn_int8.read(folder / "ncnn.param", folder / "ncnn.bin")
    net = ncnn.Net()
    net.opt.num_threads, net.opt.lightmode = 1, False
    net.load_param(str(folder / "ncnn.param"))
    net.load_model(str(folder / "ncnn.bin"))
    blobs = ncnn_int8.quantized_inputs(layers)
    absmax = dict.fromkeys(blobs, 0.0)
    for image in images(folder):
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(image[0]))
        for name, blob in blobs.items():
            status, value = extractor.extract(blob)
            assert status == 0, f"ncnn: no blob {blob}"
            absmax[name] = max(absmax[name], float(np.abs(np.array(value)).max()))
    ncnn_int8.write(layers, absmax, folder / "ncnn-int8")


def mnn_models(folder: Path) -> None:
    """FP32, weights alone in INT8 (for MNN's dynamic quantization), and static INT8.

    Calls the tools inside the package: the commands around them send statistics of their use.
    """
    import _tools
    from PIL import Image

    def to_mnn(target: str, *options: str) -> None:
        arguments = ["--modelFile", str(folder / "fp32.onnx"), "--MNNModel", str(folder / target)]
        _tools.mnnconvert(["mnnconvert", "-f", "ONNX", *arguments, "--bizCode", "x", *options])

    to_mnn("mnn.mnn")
    to_mnn("mnn-weights.mnn", "--weightQuantBits", "8")
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    data = np.load(folder / "calibration.npy")
    for index, image in enumerate(data):
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(
            pictures / f"{index}.png"
        )
    config = {
        "format": "RGB",
        "mean": [MEAN] * 3,
        "normal": [SCALE] * 3,
        "width": data.shape[3],
        "height": data.shape[2],
        "path": f"{pictures}/",
        "used_image_num": len(data),
        "weight_quantize_method": "MAX_ABS",
    }
    methods: dict[str, dict[str, object]] = {
        "EMA": {"feature_quantize_method": "EMA"},
        "EMA-winograd": {"feature_quantize_method": "EMA", "winogradOpt": True},
    }
    for name, options in methods.items():
        path = folder / f"mnn-{name}.json"
        path.write_text(json.dumps({**config, **options}))
        models = [str(folder / "mnn.mnn"), str(folder / f"mnn-{name}.mnn")]
        # A process for each: the tool does not survive a second call.
        program = "import _tools, sys; _tools.mnnquant(sys.argv)"
        subprocess.run([sys.executable, "-c", program, *models, str(path)], check=True)


STEPS: dict[str, Callable[[Path], None]] = {
    "onnxruntime": onnxruntime_static,
    "openvino": openvino_nncf,
    "ncnn": ncnn_models,
    "mnn": mnn_models,
}


def main() -> None:
    step, folder = sys.argv[1], Path(sys.argv[2])
    STEPS[step](folder)
    sys.stdout.flush()
    os._exit(0)  # some tools' threads outlive the interpreter and crash it


if __name__ == "__main__":
    main()
