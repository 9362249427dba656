"""What a user waits for: import, loading, conversion, calibration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import export, mobilefacenet

import pyedge
from pyedge.calibration.observers import kl_threshold
from pyedge.converters import convert

SHAPE = (1, 3, 112, 112)


@pytest.mark.parametrize("module", ["numpy", "pyedge", "pyedge.cli.app"])
def test_import(benchmark, module: str) -> None:
    """A new interpreter each time; what NumPy alone takes is the measure for the others."""
    benchmark.group = "import"
    command = [sys.executable, "-P", "-c", f"import {module}"]
    benchmark.pedantic(subprocess.run, args=(command,), kwargs={"check": True}, rounds=10)


@pytest.fixture(scope="module", params=["fp32", "int8"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MobileFaceNet as .pye."""
    folder = tmp_path_factory.mktemp("start")
    onnx.save(export(mobilefacenet(), SHAPE), folder / "model.onnx")
    batches = [np.random.default_rng(i).normal(size=SHAPE).astype(np.float32) for i in range(2)]
    path = folder / f"{request.param}.pye"
    calibration = batches if request.param == "int8" else None
    convert(folder / "model.onnx", path, request.param, calibration, method="minmax")
    return path


@pytest.mark.parametrize("start", ["load", "load and pack", "load and map the cache"])
def test_start(benchmark, model: Path, tmp_path: Path, start: str) -> None:
    """From a file in the system's cache to a session that can run."""
    benchmark.group = f"start, MobileFaceNet {model.stem}"
    cache = tmp_path if "cache" in start else None
    pyedge.Session(model, cache=cache).prepare([SHAPE])

    def begin() -> pyedge.Session:
        session = pyedge.Session(model, cache=cache)
        if start != "load":
            session.prepare([SHAPE])
        return session

    benchmark.pedantic(begin, rounds=30, warmup_rounds=3)
    memory = begin().describe([SHAPE])
    assert (memory["mapped_bytes"] == memory["packed_bytes"]) == (cache is not None)


@pytest.mark.parametrize("levels", [127, 255])
def test_kl_threshold(benchmark, levels: int) -> None:
    benchmark.group = "threshold of one tensor"
    histogram = np.random.default_rng(0).integers(0, 10_000, 2048)
    benchmark(kl_threshold, histogram, 1.0, levels)


@pytest.mark.parametrize("method", ["minmax", "kl"])
def test_convert(benchmark, tmp_path: Path, method: str) -> None:
    """MobileFaceNet with 100 images of calibration."""
    benchmark.group = "convert and calibrate on 100 images"
    source = tmp_path / "model.onnx"
    onnx.save(export(mobilefacenet(), SHAPE), source)
    random = np.random.default_rng(0)
    batches = [random.normal(size=SHAPE).astype(np.float32) for _ in range(100)]
    arguments = {"precision": "int8", "calibration": batches, "method": method}
    benchmark.pedantic(convert, args=(source, tmp_path / "model.pye"), kwargs=arguments, rounds=1)
