"""How much faster INT8 is than our own FP32: run in turn, one process, ratios pair by pair.

cd tests && python benchmarks/precision_ratio.py [--threads 1] [--isa avx2] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from models import export, iresnet, mbf, mobilefacenet

import pyedge
from pyedge.converters import convert

SHAPE = (1, 3, 112, 112)
NETWORKS = {
    "MobileFaceNet (PReLU)": mobilefacenet,
    "mbf (InsightFace)": mbf,
    "IResNet-50": lambda: iresnet(50),
}


def measure(
    build: Callable[[], nn.Module], threads: int, isa: str | None, runs: int
) -> dict[str, float]:
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "model.onnx"), Path(folder, "model.pye")
        onnx.save(export(build(), SHAPE), source)
        sessions = []
        for precision in ("fp32", "int8"):
            calibration = [x] if precision == "int8" else None
            convert(source, target, precision, calibration, method="minmax")
            sessions.append(pyedge.Session(target, threads, isa))
    seconds = np.empty((runs, 2))
    for session in sessions:
        session.run(x)
    for run in range(runs):
        for i, session in enumerate(sessions):
            start = time.perf_counter()
            session.run(x)
            seconds[run, i] = time.perf_counter() - start
    fp32, int8 = np.median(seconds, axis=0) * 1e3
    return {
        "fp32_ms": float(fp32),
        "int8_ms": float(int8),
        "ratio": float(np.median(seconds[:, 0] / seconds[:, 1])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--isa", help="instruction set; the best there is by default")
    parser.add_argument("--runs", type=int, default=31)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = {
        name: measure(build, args.threads, args.isa, args.runs) for name, build in NETWORKS.items()
    }
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'network':24}{'FP32 ms':>10}{'INT8 ms':>10}{'ratio':>8}")
    for name, row in rows.items():
        print(f"{name:24}{row['fp32_ms']:10.2f}{row['int8_ms']:10.2f}{row['ratio']:8.2f}")


if __name__ == "__main__":
    main()
