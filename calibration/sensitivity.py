"""How much each layer's quantization turns the embedding, and which layers to spare."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from pyedge import Session
from pyedge.calibration.calibrate import quantize
from pyedge.calibration.placement import MAC_OPS, place
from pyedge.calibration.table import CalibrationTable
from pyedge.converters import native
from pyedge.converters.ir import Graph
from pyedge.errors import CalibrationError


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of each pair of rows: float64 [N]. Two zero rows have cosine 1, one alone 0."""
    a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (a, b))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_zero = (np.abs(a).max(axis=1) == 0) & (np.abs(b).max(axis=1) == 0)
    product = np.einsum("nd,nd->n", a, b)
    return np.where(both_zero, 1.0, product / np.where(norms > 0, norms, 1.0))


def outputs(graph: Graph, batches: Iterable[np.ndarray], threads: int = 1) -> list[np.ndarray]:
    """Of each batch, all outputs of each image joined: float32 [N, D], D as the image's size."""
    session = Session(native.write(graph), threads=threads)
    rows = []
    for batch in batches:
        values = session.run(np.ascontiguousarray(batch))
        rows.append(np.concatenate([y.reshape(len(batch), -1) for y in values], axis=1))
    return rows


def output_cosines(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> np.ndarray:
    """Per image, from two results of `outputs`."""
    return np.concatenate([cosines(x, y) for x, y in zip(a, b, strict=True)])


def mac_layers(graph: Graph) -> list[str]:
    """First outputs of the layers that would run in INT8."""
    int8 = place(graph).int8
    return [n.outputs[0] for n in graph.nodes if n.op in MAC_OPS and n.outputs[0] in int8]


def layer_sensitivity(
    graph: Graph,
    table: CalibrationTable,
    batches: Sequence[np.ndarray],
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Mean cosine of the embedding to float32's when only that layer is quantized, by layer."""
    reference = outputs(graph, batches, threads)
    layers = mac_layers(graph)
    result = {}
    for index, layer in enumerate(layers):
        rest = [other for other in layers if other != layer]
        one = quantize(graph, table, fp32_layers=rest)
        result[layer] = float(output_cosines(outputs(one, batches, threads), reference).mean())
        if progress is not None:
            progress(index + 1, len(layers))
    return result


def mixed_precision(
    graph: Graph,
    table: CalibrationTable,
    batches: Sequence[np.ndarray],
    target_cosine: float,
    threads: int = 1,
) -> list[str]:
    """The fewest most sensitive layers whose float32 execution brings the mean cosine up to the
    target: empty where INT8 alone does. Found by bisection over the ranking.

    Raises:
        CalibrationError: no number of layers reaches the target.
    """
    reference = outputs(graph, batches, threads)

    def reaches(spared: list[str]) -> bool:
        mixed = outputs(quantize(graph, table, fp32_layers=spared), batches, threads)
        return float(output_cosines(mixed, reference).mean()) >= target_cosine

    if reaches([]):
        return []
    scores = layer_sensitivity(graph, table, batches, threads)
    ranking = sorted(scores, key=lambda layer: (scores[layer], layer))
    low, high = 0, len(ranking)
    if not reaches(ranking):
        raise CalibrationError(
            f"target_cosine: {target_cosine} is not reached even with every layer in float32"
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(ranking[:middle]) else (middle, high)
    return ranking[:high]
