"""Memory: what the resident set of a process grows by, and what the library says it is for.

cd tests && pytest benchmarks/test_memory.py --benchmark-only

The figures are in `extra_info`, in bytes; the time is that of a whole process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import export, iresnet, mobilefacenet

from pyedge.converters import convert

SHAPE = (1, 3, 112, 112)
NETWORKS = {"mobilefacenet": mobilefacenet, "iresnet50": lambda: iresnet(50)}
CHILD = """
import json, sys
import numpy, pyedge

def status(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024

path, cache = sys.argv[1], sys.argv[2] or None
x = numpy.zeros((1, 3, 112, 112), numpy.float32)
before = status("VmRSS")
session = pyedge.Session(path, cache=cache)
session.run(x)
memory = session.describe([x.shape])
result = {name: memory[name] for name in memory if name.endswith("_bytes")}
result["resident_bytes"] = status("VmRSS") - before
result["peak_bytes"] = status("VmHWM") - before
print(json.dumps(result))
"""


@pytest.fixture(scope="module", params=NETWORKS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    onnx.save(export(NETWORKS[request.param](), SHAPE), folder / "model.onnx")
    batches = [np.random.default_rng(i).normal(size=SHAPE).astype(np.float32) for i in range(2)]
    path = folder / f"{request.param}-int8.pye"
    convert(folder / "model.onnx", path, "int8", batches, method="minmax")
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("cached", [False, True], ids=["packed", "mapped"])
def test_memory(benchmark, model: Path, tmp_path: Path, cached: bool) -> None:
    benchmark.group = f"memory, {model.stem}"
    command = [sys.executable, "-P", "-c", CHILD, str(model), str(tmp_path) if cached else ""]

    def child() -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    child()
    benchmark.extra_info |= json.loads(benchmark.pedantic(child, rounds=3))
