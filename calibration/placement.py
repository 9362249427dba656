"""Which nodes run in INT8, which tensors are i8, and which of them share their parameters."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from pyedge.converters.ir import Graph, Node

X, WEIGHT, BIAS, WEIGHT_SCALE, SLOPE, RESIDUAL = range(6)

# Multiply-accumulate nodes: where INT8 pays. The others run in INT8 only between such nodes.
MAC_OPS = frozenset({"conv", "conv_transpose", "fully_connected"})
# The output keeps the values of the input, so it keeps scale and zero point too.
SHARING_OPS = frozenset({"reshape", "transpose", "slice", "max_pool", "resize", "pad"})
BINARY_OPS = frozenset({"add", "sub", "mul"})
UNARY_OPS = frozenset({"clip", "prelu", "sigmoid", "hard_sigmoid", "hard_swish", "tanh"})
LIGHT_OPS = SHARING_OPS | BINARY_OPS | UNARY_OPS | {"average_pool", "concat"}

# |sum of (q_x - zero_point) * q_w| <= 65,536 * 255 * 127 < 2^31.
MAX_ACCUMULATED = 65_536


@dataclass(frozen=True)
class Placement:
    """The result of `place`.

    `int8` holds the first output of each node that runs in INT8; `i8_tensors` the values that
    exist as i8, produced so or quantized for a consumer; `produced_i8` those of them whose
    producer writes i8; `roots` maps each to the tensor whose statistics and parameters it shares.
    """

    int8: frozenset[str]
    i8_tensors: frozenset[str]
    produced_i8: frozenset[str]
    roots: dict[str, str]

    def observed(self) -> list[str]:
        """The tensors that need statistics, sorted."""
        return sorted({self.roots[name] for name in self.i8_tensors})


def place(graph: Graph, fp32_layers: Collection[str] = (), int8_sums: bool = False) -> Placement:
    """Decides what runs in INT8.

    Convolutions and fully connected layers with constant weights do, except those named in
    `fp32_layers` (by first output) and those whose accumulator could overflow. Other nodes do
    where they stand between: every activation they read comes from an INT8 node and someone in
    INT8 reads what they write. So values change type only where they must, and whatever follows
    the last INT8 layer gets float32 straight from it.

    Sums and products that no convolution absorbs stay in float32 unless `int8_sums`: they are
    cheap next to the convolutions, and rounding them is what networks with gates suffer from.
    """
    mac = {
        node.outputs[0]
        for node in graph.nodes
        if node.op in MAC_OPS
        and node.outputs[0] not in fp32_layers
        and _fits_accumulator(graph, node)
    }
    spared = {node.outputs[0] for node in graph.nodes if node.op in BINARY_OPS and not int8_sums}
    light = _light_nodes(graph, mac, spared.union(fp32_layers))
    int8 = mac | light
    produced = _produced_i8(graph, mac, light)
    i8_tensors = set(produced)
    for node in graph.nodes:
        i8_tensors.update(i8_inputs(graph, node, int8, produced))
    roots = _roots(graph)
    return Placement(frozenset(int8), frozenset(i8_tensors), frozenset(produced), roots)


def activation_inputs(graph: Graph, node: Node) -> list[str]:
    return [name for name in node.inputs if name is not None and not graph.tensors[name].constant]


def i8_inputs(
    graph: Graph, node: Node, int8: Collection[str], produced_i8: Collection[str]
) -> list[str]:
    """The activations a node reads as i8. The residual has the type of the output."""
    if node.outputs[0] not in int8:
        return []
    inputs = activation_inputs(graph, node)
    residual = node.input(RESIDUAL) if node.op in MAC_OPS else None
    if residual is not None and node.outputs[0] not in produced_i8:
        return [name for name in inputs if name == node.inputs[X]]
    return inputs


def _fits_accumulator(graph: Graph, node: Node) -> bool:
    weight = graph.constant(node.inputs[WEIGHT])
    return weight is not None and weight[0].size <= MAX_ACCUMULATED


def _light_nodes(graph: Graph, mac: set[str], fp32_layers: Collection[str]) -> set[str]:
    """The nodes other than MACs that have INT8 nodes on every side."""
    light = {
        node.outputs[0]
        for node in graph.nodes
        if node.op in LIGHT_OPS and node.outputs[0] not in fp32_layers and len(node.outputs) == 1
    }
    while True:
        kept: set[str] = set()
        for node in graph.nodes:  # from the front: fed by INT8
            inputs = activation_inputs(graph, node)
            if node.outputs[0] in light and inputs and all(i in mac or i in kept for i in inputs):
                kept.add(node.outputs[0])
        wanted: set[str] = set()  # from the back: read by INT8
        for node in reversed(graph.nodes):
            name = node.outputs[0]
            if name in kept and name not in wanted:
                kept.discard(name)
            if name in mac or name in kept:
                wanted.update(activation_inputs(graph, node))
        if kept == light:
            return light
        light = kept


def _produced_i8(graph: Graph, mac: set[str], light: set[str]) -> set[str]:
    """MAC outputs that an INT8 node reads as i8, and every output of a light INT8 node."""
    int8 = mac | light
    produced: set[str] = set(light)
    wanted: set[str] = set()
    for node in reversed(graph.nodes):
        name = node.outputs[0]
        if name in mac and name in wanted and name not in graph.outputs:
            produced.add(name)
        wanted.update(i8_inputs(graph, node, int8, produced))
    return produced


def _roots(graph: Graph) -> dict[str, str]:
    roots = {name: name for name in graph.tensors}
    for node in graph.nodes:
        if node.op in SHARING_OPS:
            roots[node.outputs[0]] = roots[activation_inputs(graph, node)[0]]
    return roots


def never_negative(graph: Graph) -> set[str]:
    """Activations that cannot be negative whatever the input, by the operations alone."""
    known: set[str] = set()

    def non_negative(name: str | None) -> bool:
        if name is None:
            return True
        data = graph.constant(name)
        return name in known if data is None else bool(np.all(data >= 0))

    for node in graph.nodes:
        if _non_negative_output(graph, node, [non_negative(name) for name in node.inputs]):
            known.update(node.outputs)
    return known


def _non_negative_output(graph: Graph, node: Node, inputs: list[bool]) -> bool:
    attrs = node.attrs
    if {node.op, node.activation} & {"sigmoid", "hard_sigmoid", "softmax", "reduce_l2"}:
        return True
    if node.op == "clip":
        return _attribute(node, "min") >= 0 or inputs[0]
    if "act_min" in attrs and _attribute(node, "act_min") >= 0:
        return True
    if node.op in MAC_OPS or node.op == "prelu":
        # y < 0 ? y * slope : y is never negative where no slope is positive.
        slope = graph.constant(node.input(SLOPE if node.op in MAC_OPS else 1))
        return slope is not None and bool(np.all(slope <= 0))
    if node.op == "pad":
        return inputs[0] and _attribute(node, "value") >= 0
    if node.op in ("add", "mul", "concat", "average_pool", "reduce_mean", "reduce_sum"):
        return all(inputs)
    return node.op in SHARING_OPS and inputs[0]


def _attribute(node: Node, name: str) -> float:
    value = node.attrs.get(name, 0.0)
    assert not isinstance(value, list)
    return float(value)
