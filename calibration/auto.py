"""The method of each tensor, by measured error: the layers that read it are the judges."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from pyedge import Session
from pyedge.calibration.placement import MAC_OPS, Placement
from pyedge.calibration.table import TensorCalibration
from pyedge.converters import native
from pyedge.converters.ir import Graph, Node, Tensor

AUTO_IMAGES = 8


def representative(batches: Iterable[np.ndarray], count: int) -> list[np.ndarray]:
    """The images with the least SHA-256, as batches of one: whatever their order."""
    chosen: list[tuple[bytes, np.ndarray]] = []
    for batch in batches:
        for image in batch:
            chosen.append((hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest(), image))
        chosen = sorted(chosen, key=lambda item: item[0])[:count]
    return [np.ascontiguousarray(image[None]) for _, image in chosen]


def best_methods(
    graph: Graph,
    placement: Placement,
    candidates: Mapping[str, Mapping[str, TensorCalibration]],
    batches: Sequence[np.ndarray],
    threads: int = 1,
) -> dict[str, str]:
    """For each tensor, the method whose rounding of it changes its readers' outputs least.

    A copy of the float32 network runs beside the original in which each reader of the tensor
    sees it quantized and restored; the mean squared error of the readers' outputs, relative to
    their power, over `AUTO_IMAGES` images decides. The first method wins a tie.
    """
    images = representative(batches, AUTO_IMAGES)
    methods = list(next(iter(candidates.values())))
    errors = {
        method: _errors(graph, placement, candidates, method, images, threads) for method in methods
    }
    return {
        name: min(methods, key=lambda method: errors[method].get(name, 0.0)) for name in candidates
    }


def _errors(
    graph: Graph,
    placement: Placement,
    candidates: Mapping[str, Mapping[str, TensorCalibration]],
    method: str,
    images: Sequence[np.ndarray],
    threads: int,
) -> dict[str, float]:
    """Per tensor, the relative error of its readers when it alone is quantized by `method`."""
    twin = graph.copy()
    pairs: dict[str, list[tuple[str, str]]] = {}
    restored: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes.append(node)
        if node.outputs[0] not in placement.int8 or node.op not in MAC_OPS:
            continue
        source = node.inputs[0] or ""
        root = placement.roots[source]
        if root not in candidates:
            continue
        if source not in restored:
            restored[source] = _restore(twin, nodes, source, candidates[root][method])
        output = twin.add_value(f"{node.outputs[0]}.judged")
        inputs = [restored[source] if name == source else name for name in node.inputs]
        nodes.append(Node(node.op, output, inputs, [output], dict(node.attrs)))
        pairs.setdefault(root, []).append((node.outputs[0], output))
    twin.nodes = nodes
    session = Session(native.write(twin), threads=threads)
    names = sorted({name for group in pairs.values() for pair in group for name in pair})
    totals: dict[str, float] = {}
    for image in images:
        taps = session.run_taps(image, names)
        for root, group in pairs.items():
            for true, judged in group:
                power = float(np.square(taps[true], dtype=np.float64).mean())
                error = float(np.square(taps[judged] - taps[true], dtype=np.float64).mean())
                totals[root] = totals.get(root, 0.0) + error / max(power, 1e-30)
    return totals


def _restore(graph: Graph, nodes: list[Node], source: str, chosen: TensorCalibration) -> str:
    rounded = graph.add_value(f"{source}.rounded")
    graph.tensors[rounded] = Tensor(rounded, "i8", scale=chosen.scale, zero_point=chosen.zero_point)
    restored = graph.add_value(f"{source}.restored")
    nodes.append(Node("quantize", rounded, [source], [rounded]))
    nodes.append(Node("dequantize", restored, [rounded], [restored]))
    return restored
