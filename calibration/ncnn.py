"""ncnn's `.table` for a fused graph: one scale for the input of each layer, none for its method.

ncnn knows layers where pyedge knows tensors. A tensor that no INT8 layer multiplies with weights
(one that is only added, say) stands in a line of its own, `tensor.NAME`, which ncnn passes over.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from pyedge.calibration.placement import MAC_OPS, WEIGHT, Placement, X, never_negative, place
from pyedge.calibration.quantizer import params_for
from pyedge.calibration.table import (
    CalibrationTable,
    TensorCalibration,
    format_ncnn,
    ncnn_weight_scales,
    parse_ncnn,
)
from pyedge.converters.ir import Graph, Node
from pyedge.errors import CalibrationError, InvalidArgumentError
from pyedge.files import write_atomically

SUFFIX = ".table"
_LEVELS = 127


def save_ncnn(path: str | os.PathLike[str], graph: Graph, table: CalibrationTable) -> None:
    """Writes the thresholds of a table that was made without equalization.

    Raises:
        InvalidArgumentError: the table is of an equalized graph, whose layers ncnn does not have.
    """
    if table.options.get("equalize"):
        raise InvalidArgumentError(
            f"{path}: ncnn has no equalization: calibrate with equalize=False (--no-equalize)"
        )
    placement = place(graph, int8_sums=bool(table.options.get("int8_sums")))
    weights: dict[str, np.ndarray] = {}
    activations: dict[str, float] = {}
    lines = _lines(graph, placement)
    for node in graph.nodes:
        if node.outputs[0] in placement.int8 and node.op in MAC_OPS:
            weights[_safe(node.name)] = _weight_scales(graph, node)
    for line, root in lines.items():
        threshold = table.tensors[root].threshold if root in table.tensors else 0.0
        activations[line] = _LEVELS / threshold if threshold > 0 else 1.0
    write_atomically(path, format_ncnn(weights, activations).encode())


def load_ncnn(path: str | os.PathLike[str], graph: Graph, model_sha256: str) -> CalibrationTable:
    """A table with the thresholds of the activations; weights are quantized anew.

    Where several layers read a tensor, the widest of their thresholds counts.

    Raises:
        CalibrationError: not a table, or one without some of the graph's layers, or with scales
            that are not positive.
    """
    try:
        _, scales = parse_ncnn(Path(path).read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise CalibrationError(f"{path}: not UTF-8") from error
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be read: {error.strerror}") from error
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from error
    lines = _lines(graph, place(graph))
    missing = [line for line in lines if line not in scales]
    if missing:
        more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
        raise CalibrationError(f"{path}: lacks {', '.join(missing[:8])}{more}")
    never = never_negative(graph)
    thresholds: dict[str, float] = {}
    for line, root in lines.items():
        if not 1e-30 < scales[line] < 1e30:
            raise CalibrationError(f"{path}: {line}: the scale is {scales[line]}; expected above 0")
        thresholds[root] = max(thresholds.get(root, 0.0), _LEVELS / scales[line])
    tensors = {}
    for root, threshold in thresholds.items():
        params = params_for(threshold, root in never)
        low = 0.0 if root in never else -threshold
        tensors[root] = TensorCalibration(
            low, threshold, threshold, params.scale, params.zero_point, "ncnn"
        )
    options = {"method": "ncnn", "equalize": False, "bias_correction": False, "int8_sums": False}
    return CalibrationTable(model_sha256, 0, options, tensors)


def _lines(graph: Graph, placement: Placement) -> dict[str, str]:
    """The tensor behind each line of the table's second half."""
    lines: dict[str, str] = {}
    for node in graph.nodes:
        if node.outputs[0] in placement.int8 and node.op in MAC_OPS:
            name = _safe(node.name)
            if name in lines:
                raise CalibrationError(f"ncnn table: two layers are named {name}")
            lines[name] = placement.roots[node.inputs[X] or ""]
    layered = set(lines.values())
    lines |= {f"tensor.{_safe(r)}": r for r in placement.observed() if r not in layered}
    return lines


def _weight_scales(graph: Graph, node: Node) -> np.ndarray:
    weight = graph.constant(node.inputs[WEIGHT])
    assert weight is not None
    attrs = node.attrs
    square = node.op == "conv" and weight.shape[1:3] == (3, 3)
    steps = {attrs.get(f"{what}_{axis}", 1) for what in ("stride", "dilation") for axis in "hw"}
    kernel = 3 if square and steps == {1} else 1
    groups = attrs.get("groups", 1)
    assert isinstance(groups, int)
    return ncnn_weight_scales(weight, kernel, 1, 1, groups)


def _safe(name: str) -> str:
    """A name without spaces, which end it in the table."""
    return re.sub(r"\s", "_", name)
