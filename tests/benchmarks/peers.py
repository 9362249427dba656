"""Ours against ONNX Runtime, OpenVINO, ncnn and MNN, in every precision that they offer.

cd tests && python benchmarks/peers.py --peers-python VENV/bin/python [--isa avx2] [--json FILE]

The peers live in an environment of their own, because their protobuf is not ours:
python -m venv VENV && VENV/bin/pip install -r benchmarks/peers-requirements.txt &&
VENV/bin/pip install --no-deps pnnx==20261020

Every engine and precision is a process that sleeps until it is told to run; they take turns on
the same core, round by round. An engine that can do INT8 in several ways (our scales as a
quantize-dequantize graph, or its own quantizer) runs in the fastest whose output is right. With
--isa ours and OpenVINO are held to an instruction set; the others know no such limit, and are
left out of the ratios where this CPU has more.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from peer_tools.networks import BUILDERS, LARGEST_BATCH, prepare
from peer_tools.rounds import Row, Worker, measure
from peer_tools.table import print_table, ratios

import pyedge

PEERS = ("onnxruntime", "openvino", "ncnn", "mnn")
ONEDNN_ISA = {"avx512vnni": "AVX512_CORE_VNNI", "avxvnni": "AVX2_VNNI", "avx2": "AVX2"}
ISAS = list(pyedge.features()["isa"])


def rows(folder: Path, threads: int = 1) -> list[Row]:
    """What runs one image at a time."""

    def row(engine: str, precision: str, **candidates: dict[str, Any]) -> Row:
        for options in candidates.values():
            options["path"], options["threads"] = str(folder / options["path"]), threads
        return Row(engine, precision, candidates)

    def openvino(precision: str) -> dict[str, dict[str, Any]]:
        files = {"our scales": "qdq.onnx", "NNCF mixed": "nncf-mixed.xml"}
        files["NNCF performance"] = "nncf-performance.xml"
        return {
            f"{name}, {precision}": {"path": path, "precision": precision}
            for name, path in files.items()
        }

    return [
        row("pyedge", "int8", native={"path": "int8.pye"}),
        row("pyedge", "fp32", native={"path": "fp32.pye"}),
        row("onnxruntime", "fp32", onnx={"path": "fp32.onnx"}),
        row(
            "onnxruntime",
            "int8",
            **{
                "our scales": {"path": "qdq.onnx"},
                "static, u8": {"path": "ort-u8.onnx"},
                "static, s8": {"path": "ort-s8.onnx"},
            },
        ),
        row("openvino", "fp32", onnx={"path": "fp32.onnx"}),
        row("openvino", "bf16", onnx={"path": "fp32.onnx", "precision": "bf16"}),
        row("openvino", "int8", **openvino("f32"), **openvino("bf16")),
        row("ncnn", "fp32", pnnx={"path": "ncnn"}),
        row("ncnn", "fp16", pnnx={"path": "ncnn", "storage": "fp16"}),
        row("ncnn", "bf16", pnnx={"path": "ncnn", "storage": "bf16"}),
        row(
            "ncnn",
            "int8",
            **{
                f"int8, {storage}": {"path": "ncnn-int8", "storage": storage}
                for storage in ("fp32", "fp16", "bf16")
            },
        ),
        row("mnn", "fp32", onnx={"path": "mnn.mnn"}),
        row("mnn", "low", onnx={"path": "mnn.mnn", "precision": "low"}),
        row(
            "mnn",
            "int8",
            **{
                "static, EMA": {"path": "mnn-EMA.mnn"},
                "static, EMA, Winograd": {"path": "mnn-EMA-winograd.mnn"},
                "dynamic": {"path": "mnn-weights.mnn", "memory": "low"},
                "dynamic, low": {"path": "mnn-weights.mnn", "memory": "low", "precision": "low"},
            },
        ),
    ]


def throughput_rows(folder: Path, threads: int) -> list[Row]:
    """What runs a batch on several cores: ours, and OpenVINO with streams as it likes them."""
    ours, streams = {"path": str(folder / "int8.pye")}, {}
    for name in ("qdq.onnx", "nncf-mixed.xml", "nncf-performance.xml"):
        for piece in (1, LARGEST_BATCH // threads):
            streams[f"{name} by {piece}"] = {
                "path": str(folder / name),
                "threads": threads,
                "throughput": True,
                "piece": piece,
            }
    return [
        Row("pyedge", "int8", {"one session": {**ours, "threads": threads}}),
        Row("pyedge", "int8, sessions", {"sessions": {**ours, "sessions": threads}}),
        Row("openvino", "int8", streams),
    ]


def environment(isa: str | None) -> dict[str, str]:
    """One thread for what asks the environment, and the limit of the instruction set."""
    result = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    result.pop("PYEDGE_ISA", None)
    result.pop("ONEDNN_MAX_CPU_ISA", None)
    if isa is not None:
        result["PYEDGE_ISA"] = isa
    if isa in ONEDNN_ISA:
        result["ONEDNN_MAX_CPU_ISA"] = ONEDNN_ISA[isa]
    return result


def comparable(row: Row, isa: str | None) -> bool:
    """Whether the limit holds for the engine, or is no limit on this CPU."""
    sets = pyedge.features()["isa"]
    best = max((ISAS.index(name) for name in ISAS if not sets[name]["missing_features"]), default=0)
    unlimited = isa is None or ISAS.index(isa) >= best
    return unlimited or row.engine == "pyedge" or (row.engine == "openvino" and isa in ONEDNN_ISA)


def compare(args: argparse.Namespace, folder: Path, task: list[Row], batch: int) -> dict[str, Any]:
    """Starts the rows' processes, lets them take turns, and ends them."""
    workers = []
    cores = args.cores if batch > 1 else args.cores[-1:]
    try:
        for row in task:
            python = sys.executable if row.engine == "pyedge" else args.peers_python
            workers.append(Worker(row, python, environment(args.isa), folder, cores, batch))
            print(workers[-1].summary(), file=sys.stderr)
        results = measure([w for w in workers if w.usable], args.rounds, args.seconds, args.lock)
    finally:
        for worker in workers:
            worker.close()
    for result in results:
        result["comparable"] = comparable(result.pop("row"), args.isa)
    failed = [w.failure() for w in workers if not w.usable]
    return {"rows": results, "failed": failed, "ratios": ratios(results)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers-python", required=True, help="Python of the peers' environment")
    parser.add_argument("--models", type=Path, help="where to keep the models between runs")
    parser.add_argument("--isa", choices=ISAS, help="hold ours and OpenVINO to this")
    parser.add_argument("--networks", nargs="+", default=list(BUILDERS), choices=list(BUILDERS))
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS)
    parser.add_argument("--throughput", action="store_true", help="a batch of 16 on all --cores")
    parser.add_argument("--cores", nargs="+", type=int, default=sorted(os.sched_getaffinity(0))[:2])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.25, help="of each engine in a round")
    parser.add_argument("--lock", type=Path, help="a file to lock while a round runs")
    parser.add_argument("--json", type=Path, help="where to write the result")
    args = parser.parse_args()
    cpu = pyedge.features()["cpu"]
    report: dict[str, Any] = {"cpu": cpu, "isa": args.isa, "networks": {}}
    with tempfile.TemporaryDirectory() as temporary:
        for name in args.networks:
            folder = (args.models or Path(temporary)).resolve() / name
            prepare(name, folder, args.peers_python, args.peers)
            task, batch = rows(folder), 1
            if args.throughput:
                task, batch = throughput_rows(folder, len(args.cores)), LARGEST_BATCH
            wanted = [row for row in task if row.engine in ("pyedge", *args.peers)]
            report["networks"][name] = compare(args, folder, wanted, batch)
            print_table(name, batch, args.isa, cpu, report["networks"][name])
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
