"""scale * x + shift for each channel, into the convolution before or behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pyedge.converters.ir import Graph, Node
from pyedge.converters.shapes import sample_shapes

from .edit import bypass, is_linear, is_unbounded, only_reader

WEIGHT, BIAS = 1, 2
ARITHMETIC = ("add", "sub", "mul", "div")
CONVOLUTIONS = ("conv", "conv_transpose", "fully_connected")


@dataclass
class Affine:
    """y = scale * x + shift along the last axis of `x`; arrays [C], or [1] for every channel."""

    x: str
    scale: np.ndarray
    shift: np.ndarray


def fold_batch_norm(graph: Graph) -> Graph:
    """Folds affine nodes (BatchNormalization as the importer leaves it, arithmetic with constants)
    into the convolution or fully connected node before them, else into all nodes behind them.

    Before: always exact; the node must have no residual or activation and no other reader.
    Behind: a shift is not constant where padding mixes in zeros, so a padded conv and a
    conv_transpose take a scale only. A reshape that flattens [N, ..., C] may stand between an
    affine node and a fully connected one. Products are computed in double precision.
    Post: no affine node is left that could be folded so.
    """
    graph = graph.copy()
    shapes, _ = sample_shapes(graph)
    for node in list(graph.nodes):
        affine = affine_of(graph, node)
        if affine is None or shapes[affine.x] != shapes[node.outputs[0]]:
            continue  # the second: the constant is larger than x
        if not _into_producer(graph, node, affine):
            _into_readers(graph, node, affine)
    graph.drop_unused()
    return graph


def affine_of(graph: Graph, node: Node) -> Affine | None:
    """What a node computes, if that is affine for each channel."""
    if node.op == "conv":
        return _affine_convolution(graph, node)
    if node.op not in ARITHMETIC or not is_unbounded(node):
        return None
    x, data = node.inputs[0], graph.constant(node.inputs[1])
    if x is None or data is None or data.size not in (1, data.shape[-1]):
        return None
    c = data.astype(np.float64).ravel()
    one, zero = np.ones_like(c), np.zeros_like(c)
    if node.op in ("add", "sub"):
        return Affine(x, one, c if node.op == "add" else -c)
    return Affine(x, c if node.op == "mul" else one / c, zero)


def _affine_convolution(graph: Graph, node: Node) -> Affine | None:
    weight = graph.constant(node.input(WEIGHT))
    assert weight is not None
    attrs = node.attrs
    plain = (
        weight.shape[1:] == (1, 1, 1)
        and attrs["groups"] == weight.shape[0]
        and attrs["stride_h"] == attrs["stride_w"] == 1
        and not _is_padded(node)
        and is_linear(node)
    )
    if not plain or node.inputs[0] is None:
        return None
    scale = weight.astype(np.float64).ravel()
    return Affine(node.inputs[0], scale, _bias(graph, node, len(scale)))


def _is_padded(node: Node) -> bool:
    return any(node.attrs[f"pad_{side}"] for side in ("top", "left", "bottom", "right"))


def _bias(graph: Graph, node: Node, channels: int) -> np.ndarray:
    bias = graph.constant(node.input(BIAS))
    return np.zeros(channels) if bias is None else bias.astype(np.float64)


def _in_range(weight: np.ndarray, bias: np.ndarray) -> bool:
    """Whether f32 can hold them."""
    limit = np.finfo(np.float32).max
    return all(-limit <= a.min() and a.max() <= limit for a in (weight, bias))


def _set_constants(graph: Graph, node: Node, weight: np.ndarray, bias: np.ndarray) -> None:
    weight, bias = weight.astype(np.float32), bias.astype(np.float32)
    node.set_input(WEIGHT, graph.add_constant(f"{node.name}.weight", weight))
    if node.input(BIAS) is not None or np.any(bias):
        node.set_input(BIAS, graph.add_constant(f"{node.name}.bias", bias))


def _into_producer(graph: Graph, node: Node, affine: Affine) -> bool:
    producer = graph.producer(affine.x)
    if producer is None or producer.op not in CONVOLUTIONS or not is_linear(producer):
        return False
    if only_reader(graph, affine.x) is not node:
        return False
    weight = graph.constant(producer.input(WEIGHT))
    assert weight is not None
    channels = weight.shape[0]
    if affine.scale.size not in (1, channels):
        return False
    rows = affine.scale.reshape(-1, *[1] * (weight.ndim - 1))
    bias = _bias(graph, producer, channels) * affine.scale + affine.shift
    if not _in_range(weight * rows, bias):
        return False
    _set_constants(graph, producer, weight * rows, bias)
    node.inputs = [affine.x]
    return bypass(graph, node)


def _into_readers(graph: Graph, node: Node, affine: Affine) -> bool:
    output = node.outputs[0]
    if output in graph.outputs:
        return False
    targets: list[tuple[Node, np.ndarray, np.ndarray]] = []
    for reader in graph.consumers(output):
        target = reader
        if reader.op == "reshape" and _flattens(reader):
            flat = only_reader(graph, reader.outputs[0])
            if flat is None or flat.op != "fully_connected":
                return False
            target = flat
        folded = _behind(graph, target, reader, output, affine)
        if folded is None:
            return False
        targets.append((target, *folded))
    if not all(_in_range(weight, bias) for _, weight, bias in targets):
        return False
    for target, weight, bias in targets:
        _set_constants(graph, target, weight, bias)
    node.inputs = [affine.x]
    return bypass(graph, node)


def _flattens(reshape: Node) -> bool:
    dims = reshape.attrs["dims"]
    return isinstance(dims, list) and len(dims) == 2 and dims[0] == 0


def _behind(
    graph: Graph, target: Node, reader: Node, name: str, affine: Affine
) -> tuple[np.ndarray, np.ndarray] | None:
    """Weight and bias of a node that takes the affine node's input instead of its output."""
    if target.op not in CONVOLUTIONS or reader.inputs.count(name) != 1 or reader.inputs[0] != name:
        return None
    shifted = bool(np.any(affine.shift))
    if target.op == "conv_transpose" and shifted:
        return None
    if target.op == "conv" and shifted and _is_padded(target):
        return None
    weight = graph.constant(target.input(WEIGHT))
    assert weight is not None
    outputs, columns = weight.shape[0], weight.shape[-1]
    groups = target.attrs.get("groups", 1)
    assert isinstance(groups, int)
    channels = columns * groups
    if affine.scale.size not in (1, channels) and (
        target is reader or channels % affine.scale.size
    ):
        return None
    # As [groups, outputs/groups, taps, columns] against the channels [groups, 1, 1, columns].
    grouped = weight.reshape(groups, outputs // groups, -1, columns)
    scale, shift = (
        np.resize(values, channels).reshape(groups, 1, 1, columns)
        for values in (affine.scale, affine.shift)
    )
    bias = _bias(graph, target, outputs)
    if shifted:
        taps = grouped.sum(axis=2, keepdims=True, dtype=np.float64)
        bias = bias + (taps * shift).sum(axis=(2, 3)).ravel()
    return (grouped * scale).reshape(weight.shape), bias
