"""Whole networks: FP32 and INT8 on every instruction set that this CPU has.

cd tests && pytest benchmarks --benchmark-only
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from models import export, iresnet, mobilefacenet

import pyedge
from pyedge.converters import convert

NETWORKS: dict[str, Callable] = {
    "mobilefacenet": mobilefacenet,
    "iresnet50": lambda: iresnet(50),
}
AVAILABLE = [name for name, isa in pyedge.features()["isa"].items() if isa["available"]]
# The reference takes minutes on a large network.
ISAS = [name for name in AVAILABLE if name != "reference"] or AVAILABLE
SHAPE = (1, 3, 112, 112)


@pytest.fixture(scope="module", params=NETWORKS)
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The network as .pye by precision."""
    folder = tmp_path_factory.mktemp(request.param)
    source = folder / "model.onnx"
    onnx.save(export(NETWORKS[request.param](), SHAPE), source)
    batches = [np.random.default_rng(i).normal(size=SHAPE).astype(np.float32) for i in range(8)]
    result = {"name": request.param}
    for precision in ("fp32", "int8"):
        result[precision] = folder / f"{precision}.pye"
        calibration = batches if precision == "int8" else None
        convert(source, result[precision], precision, calibration, method="minmax")
    return result


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_network(benchmark, files: dict, precision: str, isa: str, threads: int) -> None:
    session = pyedge.Session(files[precision], threads=threads, isa=isa)
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    macs = session.describe([SHAPE])["macs"]
    benchmark.group = f"{files['name']}, threads: {threads}"
    benchmark.pedantic(session.run, args=(x,), rounds=20, warmup_rounds=3)
    benchmark.extra_info["gops"] = 2e-9 * macs / benchmark.stats["median"]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_load(benchmark, files: dict, precision: str) -> None:
    benchmark.group = f"{files['name']}, load and plan"
    benchmark(lambda: pyedge.Session(files[precision]).describe([SHAPE]))
