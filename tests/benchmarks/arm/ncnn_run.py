"""ncnn on one input, with one thread: what the emulated Python runs.

ncnn_run.py run PARAM MODE RUNS INPUT OUTPUT    the network, RUNS times; the files are float32
ncnn_run.py absmax PARAM INPUT OUTPUT BLOB...   JSON: the greatest magnitude in each blob
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import ncnn
import numpy as np

SHAPE = (3, 112, 112)
# The options that each mode turns on; ncnn falls back where the CPU has no such arithmetic.
MODES: dict[str, tuple[str, ...]] = {
    "fp32": (),
    "fp16 storage": ("use_fp16_packed", "use_fp16_storage"),
    "fp16": ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"),
    "bf16": ("use_bf16_packed", "use_bf16_storage"),
    "int8": (),
    "int8 + fp16": ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"),
    "int8 + bf16": ("use_bf16_packed", "use_bf16_storage"),
}


def load(param: str, mode: str) -> ncnn.Net:
    net = ncnn.Net()
    net.opt.num_threads = 1
    for option in {option for options in MODES.values() for option in options}:
        setattr(net.opt, option, option in MODES[mode])
    if net.load_param(param) or net.load_model(str(Path(param).with_suffix(".bin"))):
        raise SystemExit(f"{param}: ncnn cannot load it")
    return net


def extract(net: ncnn.Net, x: np.ndarray, blobs: list[str]) -> list[np.ndarray]:
    extractor = net.create_extractor()
    extractor.set_light_mode(len(blobs) == 1)  # keeps no blob that is not asked for
    extractor.input("in0", ncnn.Mat(x).clone())
    results = [extractor.extract(blob) for blob in blobs]
    if any(code for code, _ in results):
        raise SystemExit("ncnn: extract failed")
    return [np.array(value) for _, value in results]


def main() -> None:
    job, param, *rest = sys.argv[1:]
    if job == "run":
        mode, runs, source, target = rest
        net, x = load(param, mode), np.fromfile(source, np.float32).reshape(SHAPE)
        for _ in range(int(runs)):
            (y,) = extract(net, x, ["out0"])
            os.getppid()  # marks the end of a run for the plugin that counts
        y.astype(np.float32).tofile(target)
    else:
        source, target, *blobs = rest
        net, images = load(param, "fp32"), np.fromfile(source, np.float32).reshape(-1, *SHAPE)
        seen = np.zeros(len(blobs))
        for x in images:
            np.maximum(seen, [np.abs(y).max() for y in extract(net, x, blobs)], out=seen)
        Path(target).write_text(json.dumps(dict(zip(blobs, seen.tolist(), strict=True))))


if __name__ == "__main__":
    main()
