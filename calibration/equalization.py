"""Equalization of channel ranges ahead of quantization.

A tensor has one scale, so a channel of small values next to one of large values gets few of the
256 levels. Multiplying the rows of the layers that produce a channel by 1/s and the columns of
the layers that consume it by s leaves the network's function as it was (ReLU, PReLU, residual
adds, pooling and gating by a sigmoid commute with a positive factor per channel; Nagel et al.,
"Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019) and evens
out the ranges. The factor is not free: it shifts the difficulty from the activations into the
weights of dense consumers. As in SmoothQuant (Xiao et al., ICML 2023, eq. 4) it is
range(activation)^a / range(weight)^(1-a); of several exponents the one with the least expected
quantization noise is taken, for each group of tensors that must share their factors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from pyedge.calibration.placement import (
    BIAS,
    MAC_OPS,
    RESIDUAL,
    SLOPE,
    WEIGHT,
    X,
    activation_inputs,
)
from pyedge.calibration.statistics import ChannelRange
from pyedge.converters.ir import Graph, Node

EXPONENTS = (0.0, 0.15, 0.3, 0.45, 0.6, 0.8, 1.0)
# Factors stay within this ratio of the group's largest, so that a channel that was nearly
# silent on the calibration images keeps room to speak up.
MAX_RATIO = 32.0
# How far above the largest value seen a channel of a ReLU6 is cut; see `equalize`.
CLIP_MARGIN = 1.5

_GATES = {"sigmoid", "hard_sigmoid"}
_COMMUTING = ("max_pool", "average_pool", "resize")


@dataclass
class _Group:
    """Tensors that share one factor per channel, and the layers around them."""

    tensors: list[str] = field(default_factory=list)
    producers: list[Node] = field(default_factory=list)
    consumers: list[Node] = field(default_factory=list)


def equalize(
    graph: Graph, ranges: dict[str, ChannelRange]
) -> tuple[Graph, dict[str, ChannelRange]]:
    """The same network with centred and evened-out channel ranges, and these ranges.

    `ranges` holds what each channel of each tensor that will be quantized spans on the
    calibration images. One thing changes: where a ReLU6 feeds depthwise layers alone, a channel
    is cut at `CLIP_MARGIN` times the largest value seen instead of at 6, which is where its
    quantization would saturate anyway.
    """
    result = graph.copy()
    ranges = _center(result, ranges)
    for group in _groups(result):
        measured = {name: ranges[name] for name in group.tensors if name in ranges}
        if not measured or not group.consumers:
            continue
        bound = min(float(node.attrs.get("act_max", math.inf)) for node in group.producers)  # type: ignore[arg-type]
        if bound != math.inf:
            factors = _bounded_factors(result, group, measured, bound)
        else:
            factors = _factors(result, group, measured)
        if factors is not None:
            _apply(result, group, factors)
            ranges |= {name: measured[name].scaled(factors) for name in measured}
    result.drop_unused()
    return result, ranges


def _center(graph: Graph, ranges: dict[str, ChannelRange]) -> dict[str, ChannelRange]:
    """Moves each channel's range to lie around zero, where biases can take the offset.

    That is so for the outputs of layers without activation that are read by layers without
    padding (W (x - c) + (b + W c) = W x + b) or added to such an output. Returns the new ranges.
    """
    users: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in activation_inputs(graph, node):
            users.setdefault(name, []).append(node)
    movable = {
        node.outputs[0]
        for node in graph.nodes
        if node.op in ("conv", "fully_connected")
        and _linear(node)
        and node.outputs[0] in ranges
        and node.outputs[0] not in graph.outputs
    }
    movable = {
        name for name in movable if all(_absorbs(name, reader) for reader in users.get(name, ()))
    }
    result = dict(ranges)
    for node in graph.nodes:
        for name in [n for n in (_scalable_input(node)) if n in movable]:
            weight = _weight(graph, node).astype(np.float64)
            columns = _input_factors(weight, _conv_groups(node), ranges[name].centre)
            _add_bias(graph, node, (weight * columns).reshape(len(weight), -1).sum(axis=1))
        name, residual = node.outputs[0], node.input(RESIDUAL) if node.op in MAC_OPS else None
        if residual in movable and residual is not None:
            _add_bias(graph, node, ranges[residual].centre)
        if name in movable:
            _add_bias(graph, node, -ranges[name].centre)
            result[name] = ranges[name].shifted(ranges[name].centre)
    return result


def _linear(node: Node) -> bool:
    return (
        node.input(SLOPE) is None
        and node.activation == "none"
        and node.attrs.get("act_min", -math.inf) == -math.inf
        and node.attrs.get("act_max", math.inf) == math.inf
    )


def _absorbs(name: str, node: Node) -> bool:
    """Whether an offset of `name` can be undone in a bias of this reader."""
    if node.op not in ("conv", "fully_connected"):
        return False
    if name != node.inputs[X]:
        return True  # as the residual
    return all(node.attrs.get(f"pad_{side}", 0) == 0 for side in ("top", "left", "bottom", "right"))


def _add_bias(graph: Graph, node: Node, offset: np.ndarray) -> None:
    bias = graph.constant(node.input(BIAS))
    name = node.input(BIAS) or f"{node.outputs[0]}.bias"
    total = offset if bias is None else bias.astype(np.float64) + offset
    node.set_input(BIAS, graph.add_constant(name, total.astype(np.float32)))


def _bounded_factors(
    graph: Graph, group: _Group, measured: dict[str, ChannelRange], bound: float
) -> np.ndarray | None:
    """ReLU6 before depthwise layers: every channel gets its own bound, the same after scaling.

    Depthwise weights have a scale per channel, so these factors cost nothing.
    """
    if len(group.tensors) != 1 or not all(_depthwise(graph, node) for node in group.consumers):
        return None
    absmax = next(iter(measured.values())).absmax
    limit = np.minimum(CLIP_MARGIN * absmax, bound)
    factors: np.ndarray = np.maximum(limit, bound / MAX_RATIO) / bound
    return factors


def _depthwise(graph: Graph, node: Node) -> bool:
    return _weight(graph, node).shape[-1] == 1 and _conv_groups(node) > 1


def _groups(graph: Graph) -> list[_Group]:
    parent = {name: name for name in graph.tensors}
    blocked = {*graph.inputs, *graph.outputs}

    def find(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    producer = {name: node for node in graph.nodes for name in node.outputs}
    for node in graph.nodes:
        tied = _tied(graph, node, producer)
        for name in tied[1:]:
            parent[find(name)] = find(tied[0])
        free = {*tied, *_scalable_input(node)}
        blocked.update(n for n in (*activation_inputs(graph, node), *node.outputs) if n not in free)

    groups: dict[str, _Group] = {}
    stopped = {find(name) for name in blocked}
    for node in graph.nodes:
        root = find(node.outputs[0])
        if root not in stopped:
            group = groups.setdefault(root, _Group())
            group.tensors.append(node.outputs[0])
            if node.op in MAC_OPS:
                group.producers.append(node)
        for name in _scalable_input(node):
            if find(name) not in stopped:
                groups.setdefault(find(name), _Group()).consumers.append(node)
    return [group for group in groups.values() if _same_width(graph, group)]


def _tied(graph: Graph, node: Node, producer: dict[str, Node]) -> list[str]:
    """The values around a node that must have the same factors, its output first."""
    output = node.outputs[0]
    if not _homogeneous(node):
        return []
    if node.op in MAC_OPS:
        residual = node.input(RESIDUAL)
        return [output, residual] if residual is not None else [output]
    inputs = activation_inputs(graph, node)
    if node.op in _COMMUTING or node.op in ("prelu", "clip"):
        return [output, *inputs]
    if node.op in ("add", "sub") and len(inputs) == 2:
        return [output, *inputs]
    if node.op == "mul" and len(inputs) == 2:
        makers = [(name, producer[name]) for name in inputs if name in producer]
        gates = [name for name, maker in makers if {maker.op, maker.activation} & _GATES]
        if len(gates) == 1:
            return [output, *(name for name in inputs if name not in gates)]
    return []


def _scalable_input(node: Node) -> list[str]:
    """The input of a layer whose factors its weights can absorb."""
    weighted = node.op in MAC_OPS and node.inputs[X] is not None
    return [node.inputs[X]] if weighted else []  # type: ignore[list-item]


def _homogeneous(node: Node) -> bool:
    """Whether f(s * y) = s * f(y) for s > 0, for everything after the multiplication."""
    if node.activation != "none":
        return False
    low, high = ("min", "max") if node.op == "clip" else ("act_min", "act_max")
    bounded = node.attrs.get(high, math.inf) != math.inf
    if bounded and (node.op not in MAC_OPS or node.input(RESIDUAL) is not None):
        return False
    return node.attrs.get(low, -math.inf) in (-math.inf, 0.0)


def _same_width(graph: Graph, group: _Group) -> bool:
    if not all(_has_constant_weight(graph, n) for n in (*group.producers, *group.consumers)):
        return False
    widths = {_weight(graph, node).shape[0] for node in group.producers}
    return len(widths) == 1


def _has_constant_weight(graph: Graph, node: Node) -> bool:
    return graph.constant(node.inputs[WEIGHT]) is not None


def _weight(graph: Graph, node: Node) -> np.ndarray:
    weight = graph.constant(node.inputs[WEIGHT])
    assert weight is not None
    return weight


def _input_factors(weight: np.ndarray, groups: int, factors: np.ndarray) -> np.ndarray:
    """Factors per input channel, shaped to multiply a weight [O, ..., I/groups]."""
    rows = np.repeat(factors.reshape(groups, -1), weight.shape[0] // groups, axis=0)
    return rows.reshape(weight.shape[0], *(1,) * (weight.ndim - 2), -1)


def _conv_groups(node: Node) -> int:
    groups = node.attrs.get("groups", 1)
    assert isinstance(groups, int)
    return groups


def _factors(graph: Graph, group: _Group, measured: dict[str, ChannelRange]) -> np.ndarray | None:
    """The best factors of the group, None where leaving it alone is best."""
    absmax = np.stack([r.absmax for r in measured.values()])
    total = absmax.max(axis=1, keepdims=True)
    activation = (absmax / np.where(total > 0, total, 1)).mean(axis=0)
    column = np.max([_column_shares(graph, node) for node in group.consumers], axis=0)
    alive = (activation > 0) & (column > 0)
    if not alive.any():
        return None
    best, least = None, math.inf
    for exponent in EXPONENTS:
        factors = np.ones_like(activation)
        if exponent > 0:
            a = activation[alive]
            factors[alive] = a**exponent / column[alive] ** (1 - exponent)
            factors[alive] = np.maximum(factors[alive], factors[alive].max() / MAX_RATIO)
            factors[alive] /= np.exp(np.log(factors[alive]).mean())
        noise = _noise(graph, group, factors, measured)
        if noise < least * (1 - 1e-3):
            best, least = (factors if exponent > 0 else None), noise
    return best


def _column_shares(graph: Graph, node: Node) -> np.ndarray:
    """Per input channel, the largest |weight| as a share of its output channel's largest."""
    weight = np.abs(_weight(graph, node))
    taps = weight.reshape(weight.shape[0], -1, weight.shape[-1]).max(axis=1)  # [O, I/groups]
    share = taps / np.maximum(taps.max(axis=1, keepdims=True), 1e-30)
    shares: np.ndarray = share.reshape(_conv_groups(node), -1, share.shape[1]).max(axis=1)
    return shares.reshape(-1)


def _noise(
    graph: Graph, group: _Group, factors: np.ndarray, measured: dict[str, ChannelRange]
) -> float:
    """Expected squared error that quantizing the group adds, relative to its layers' signal.

    For each consumer: rounding of its input (one step for all channels) through its weights,
    plus rounding of its weights (one step per output channel) times the power of its input.
    """
    noise = 0.0
    for node in group.consumers:
        source = measured.get(node.inputs[X] or "")
        if source is None:
            continue
        weight = _weight(graph, node).astype(np.float64)
        groups = _conv_groups(node)
        shape = (weight.shape[0], -1, weight.shape[-1])
        scaled = (weight * _input_factors(weight, groups, factors)).reshape(shape)
        power = _input_factors(weight, groups, source.mean_square / factors**2)
        power = power.reshape(weight.shape[0], 1, -1)
        signal = (scaled**2 * power).sum(axis=(1, 2)) + 1e-30
        step = (source.absmax / factors).max() / 127
        from_input = (scaled**2).sum(axis=(1, 2)) * step**2
        steps = np.abs(scaled).max(axis=(1, 2)) / 127
        from_weight = steps**2 * power.sum(axis=(1, 2)) * scaled.shape[1]
        noise += float((from_input + from_weight).sum() / signal.sum())
    return noise


def _apply(graph: Graph, group: _Group, factors: np.ndarray) -> None:
    for node in group.producers:
        weight = _weight(graph, node)
        rows = factors.reshape(-1, *(1,) * (weight.ndim - 1))
        node.inputs[WEIGHT] = graph.add_constant(
            node.inputs[WEIGHT] or "", (weight / rows).astype(np.float32)
        )
        bias = graph.constant(node.input(BIAS))
        if bias is not None:
            node.set_input(
                BIAS, graph.add_constant(node.inputs[BIAS] or "", (bias / factors).astype("f4"))
            )
    for node in group.consumers:
        weight = _weight(graph, node)
        columns = _input_factors(weight, _conv_groups(node), factors)
        node.inputs[WEIGHT] = graph.add_constant(
            node.inputs[WEIGHT] or "", (weight * columns).astype(np.float32)
        )
