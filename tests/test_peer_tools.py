"""What the comparison with other runtimes rests on: the models given to them, and its figures."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from benchmarks.baseline import merged
from benchmarks.peer_tools import ncnn_int8
from benchmarks.peer_tools.qdq import to_qdq
from benchmarks.peer_tools.rounds import Row, Worker, measure
from benchmarks.peer_tools.table import ratios
from benchmarks.peers import comparable
from models import Bottleneck, IResNet, export, randomize
from parity import reference
from torch import nn

import pyedge
from pyedge.calibration import CalibrationOptions, calibrate, quantize
from pyedge.converters import native
from pyedge.converters.ir import Graph
from pyedge.converters.onnx_import import import_onnx
from pyedge.converters.passes import optimize

SHAPE = (1, 3, 32, 32)


def small_network(kind: str) -> nn.Module:
    if kind == "iresnet":
        return randomize(IResNet((1, 1, 1, 1), features=16, width=8, size=32))
    first = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6()
    bottlenecks = Bottleneck(8, 16, 8, 1), Bottleneck(8, 16, 12, 2)
    return randomize(nn.Sequential(*first, *bottlenecks, nn.Conv2d(12, 6, 8), nn.Flatten()))


def quantized(tmp_path: Path, kind: str) -> tuple[Graph, np.ndarray, np.ndarray]:
    """Our INT8 graph of a network, an image, and what FP32 makes of the image."""
    path = tmp_path / "fp32.onnx"
    model = export(small_network(kind), SHAPE)
    onnx.save(model, path)
    graph = optimize(import_onnx(path))
    images = np.random.default_rng(0).standard_normal((4, *SHAPE), np.float32)
    table = calibrate(graph, list(images), "", CalibrationOptions("minmax"))
    return quantize(graph, table), images[0], reference(model, images[0])[0]


@pytest.mark.parametrize("kind", ["iresnet", "mobile"])
def test_quantize_dequantize_graph_computes_what_ours_does(tmp_path: Path, kind: str) -> None:
    graph, x, fp32 = quantized(tmp_path, kind)
    model = to_qdq(graph, 1)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    theirs = session.run(None, {session.get_inputs()[0].name: x})[0]
    ours = pyedge.Session(native.write(graph)).run(x)[0]
    # Biases become int32, so a value here and there falls on the other side of a half.
    lost = np.linalg.norm(ours - fp32)
    assert lost < 0.05 * np.linalg.norm(fp32)
    assert np.linalg.norm(theirs - fp32) < 1.3 * lost
    assert np.linalg.norm(theirs - ours) < 1.3 * lost
    kinds = {t.data_type for t in model.graph.initializer if t.name.endswith("weight.q")}
    assert kinds == {onnx.TensorProto.INT8}


def test_ncnn_int8_is_what_its_own_tool_writes(assets: Path, tmp_path: Path) -> None:
    folder = assets / "ncnn-int8"
    layers = ncnn_int8.read(folder / "small.ncnn.param", folder / "small.ncnn.bin")
    scales = dict(line.split(maxsplit=1) for line in (folder / "small.table").open())
    thresholds = {name: 127 / float(scales[name]) for name in ncnn_int8.quantized_inputs(layers)}
    ncnn_int8.write(layers, thresholds, tmp_path / "small")
    assert (tmp_path / "small.bin").read_bytes() == (folder / "small-int8.bin").read_bytes()
    quantizations = [
        {
            line.split()[1]: [word for word in line.split() if word.startswith("8=")]
            for line in path.read_text().splitlines()[2:]
        }
        for path in (tmp_path / "small.param", folder / "small-int8.param")
    ]
    assert quantizations[0] == quantizations[1]


def test_engines_take_turns_and_sleep_between(tmp_path: Path) -> None:
    graph, x, expected = quantized(tmp_path, "mobile")
    (tmp_path / "int8.pye").write_bytes(native.write(graph))
    np.savez(tmp_path / "data.npz", x=x, expected=expected)
    options = {"path": str(tmp_path / "int8.pye")}
    cores = sorted(os.sched_getaffinity(0))[:1]
    ways = {"one": options, "missing": {"path": "nothere.pye"}}
    rows = [Row("pyedge", "int8", ways), Row("pyedge", "fp32", {"wrong": options})]
    workers = [Worker(row, sys.executable, dict(os.environ), tmp_path, cores, 1) for row in rows]
    try:
        assert [worker.usable for worker in workers] == [True, False]
        assert "nothere.pye" in workers[0].outcomes[1]["error"]
        assert "output is wrong" in workers[1].outcomes[0]["error"]
        (result,) = measure(workers[:1], rounds=2, seconds=0.001, lock=tmp_path / "lock")
    finally:
        for worker in workers:
            worker.close()
    assert result["way"] == "one"
    assert len(result["round_seconds"]) == 2
    assert result["median_seconds"] > 0
    assert not result["spins"]


def test_ratios_leave_out_what_is_not_comparable() -> None:
    def row(engine: str, precision: str, *seconds: float, compared: bool = True) -> dict:
        times = {"round_seconds": list(seconds), "median_seconds": float(np.median(seconds))}
        return {"engine": engine, "precision": precision, "comparable": compared, **times}

    rows = [
        row("pyedge", "int8", 1.0, 2.0, 1.0),
        row("pyedge", "fp32", 4.0, 8.0, 4.0),
        row("ncnn", "fp32", 2.0, 4.0, 2.0),
        row("openvino", "int8", 3.0, 6.0, 3.0),
        row("mnn", "int8", 0.5, 0.5, 0.5, compared=False),
    ]
    found = ratios(rows)
    assert found["best_peer"] == "ncnn fp32"
    assert found["int8_to_best_peer"] == pytest.approx(2.0)
    assert found["fp32_to_ncnn_fp32"] == pytest.approx(0.5)
    assert not comparable(Row("ncnn", "fp32", {}), "reference")
    assert comparable(Row("pyedge", "int8", {}), "reference")


def test_baselines_merge_to_the_quickest(tmp_path: Path) -> None:
    def saved(name: str, **medians: float) -> Path:
        rows = [{"fullname": key, "stats": {"median": value}} for key, value in medians.items()]
        path = tmp_path / name
        path.write_text(json.dumps({"machine_info": {}, "benchmarks": rows}))
        return path

    result = json.loads(merged([saved("a", x=1.0, y=2.0), saved("b", x=0.5, z=3.0)]))
    medians = {row["fullname"]: row["stats"]["median"] for row in result["benchmarks"]}
    assert medians == {"x": 0.5, "y": 2.0, "z": 3.0}
