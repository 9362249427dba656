"""Groups of ONNX nodes that are one operation: hard swish and L2 normalization.

Matches become nodes of type HardSwish and LpNormalization (with an `epsilon` attribute, the
least norm that is divided by).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

# x / sqrt(sum(x²) + e) is taken as x / max(|x|, sqrt(e)): they differ by e / 2|x|² relative.
MAX_ADDED_EPSILON = 1e-6


@dataclass
class _Model:
    producers: dict[str, onnx.NodeProto]
    constants: dict[str, np.ndarray]

    def node(self, name: str, *types: str) -> onnx.NodeProto | None:
        node = self.producers.get(name)
        return node if node is not None and node.op_type in types else None

    def number(self, name: str) -> float | None:
        data = self.constants.get(name)
        return float(data.item()) if data is not None and data.size == 1 else None

    def with_number(self, node: onnx.NodeProto) -> tuple[str, float] | None:
        """The operands of a commutative node with one number."""
        for x, other in (node.input[:2], node.input[1::-1]):
            number = self.number(other)
            if number is not None:
                return x, number
        return None

    def bounds(self, node: onnx.NodeProto) -> tuple[float | None, float | None]:
        """min and max of a Clip; None where there is none."""
        found = {a.name: a.f for a in node.attribute}
        for slot, what in enumerate(("min", "max"), 1):
            if slot < len(node.input) and node.input[slot]:
                number = self.number(node.input[slot])
                if number is None:
                    return None, None
                found[what] = number
        return found.get("min"), found.get("max")


def merge_patterns(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], outputs: list[str]
) -> list[onnx.NodeProto]:
    """The nodes that are needed for the outputs, patterns replaced."""
    model = _Model({o: node for node in nodes for o in node.output if o}, constants)
    replaced = [_hard_swish(node, model) or _l2_normalize(node, model) or node for node in nodes]
    needed, kept = set(outputs), []
    for node in reversed(replaced):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]


def _hard_swish(node: onnx.NodeProto, model: _Model) -> onnx.NodeProto | None:
    """x * hard_sigmoid(x), x * (clip(x + 3, 0, 6) / 6) and (x * clip(x + 3, 0, 6)) / 6."""
    x = None
    if node.op_type == "Mul":
        for a, b in (node.input[:2], node.input[1::-1]):
            x = x or (a if _gate(b, model) == (a, 1.0 / 6.0) else None)
    scaled = _scaled(node, model)
    if x is None and scaled is not None and np.isclose(scaled[1], 1 / 6, rtol=1e-5):
        product = model.node(scaled[0], "Mul")
        for a, b in (product.input[:2], product.input[1::-1]) if product else ():
            x = x or (a if _gate(b, model) == (a, 1.0) else None)
    if x is None:
        return None
    return onnx.helper.make_node("HardSwish", [x], list(node.output), name=node.name)


def _scaled(node: onnx.NodeProto, model: _Model) -> tuple[str, float] | None:
    """(x, c) of x * c or x / (1/c)."""
    if node.op_type == "Mul":
        return model.with_number(node)
    if node.op_type == "Div":
        divisor = model.number(node.input[1])
        return (node.input[0], 1.0 / divisor) if divisor else None
    return None


def _gate(name: str, model: _Model) -> tuple[str, float] | None:
    """(x, c) of c * clip(x + 3, 0, 6), c being 1 or 1/6."""
    node = model.node(name, "HardSigmoid")
    if node is not None:
        attrs = {"alpha": 0.2, "beta": 0.5} | {a.name: a.f for a in node.attribute}
        exact = np.isclose(attrs["alpha"], 1 / 6, rtol=1e-5) and attrs["beta"] == 0.5
        return (node.input[0], 1.0 / 6.0) if exact else None
    factor = 1.0
    node = model.node(name, "Mul", "Div")
    if node is not None:
        scaled = _scaled(node, model)
        if scaled is None or not np.isclose(scaled[1], 1 / 6, rtol=1e-5):
            return None
        name, factor = scaled[0], 1.0 / 6.0
    clip = model.node(name, "Clip")
    if clip is None or model.bounds(clip) != (0.0, 6.0):
        return None
    add = model.node(clip.input[0], "Add")
    operands = model.with_number(add) if add is not None else None
    return (operands[0], factor) if operands is not None and operands[1] == 3.0 else None


def _l2_normalize(node: onnx.NodeProto, model: _Model) -> onnx.NodeProto | None:
    """x / norm, where norm may be bounded below and expanded."""
    if node.op_type != "Div":
        return None
    x, name = node.input
    epsilon = 0.0
    expand = model.node(name, "Expand")
    name = expand.input[0] if expand is not None else name
    bound = model.node(name, "Clip", "Max")
    if bound is not None:
        if bound.op_type == "Clip":
            low, high = model.bounds(bound)
            if low is None or high is not None:
                return None
            name, epsilon = bound.input[0], low
        else:
            operands = model.with_number(bound)
            if operands is None:
                return None
            name, epsilon = operands
    norm = _norm(name, x, model)
    if norm is None:
        return None
    axis, added = norm
    return onnx.helper.make_node(
        "LpNormalization",
        [x],
        list(node.output),
        name=node.name,
        axis=axis,
        epsilon=max(epsilon, float(np.sqrt(added))),
    )


def _norm(name: str, x: str, model: _Model) -> tuple[int, float] | None:
    """(axis, e) where the value is ReduceL2(x) (e = 0) or sqrt(sum(x²) + e)."""
    node = model.node(name, "ReduceL2")
    if node is not None:
        return (_axis(node, model), 0.0) if node.input[0] == x and _kept(node, model) else None
    root = model.node(name, "Sqrt", "Pow")
    if root is None or (root.op_type == "Pow" and model.number(root.input[1]) != 0.5):
        return None
    name, epsilon = root.input[0], 0.0
    add = model.node(name, "Add")
    if add is not None:
        operands = model.with_number(add)
        if operands is None or not 0 <= operands[1] <= MAX_ADDED_EPSILON:
            return None
        name, epsilon = operands
    node = model.node(name, "ReduceSumSquare")
    if node is not None:
        matches = node.input[0] == x
    else:
        node = model.node(name, "ReduceSum")
        if node is None:
            return None
        square = model.node(node.input[0], "Mul", "Pow")
        matches = square is not None and (
            list(square.input) == [x, x]
            if square.op_type == "Mul"
            else square.input[0] == x and model.number(square.input[1]) == 2.0
        )
    return (_axis(node, model), epsilon) if matches and _kept(node, model) else None


def _axes(node: onnx.NodeProto, model: _Model) -> list[int]:
    for attribute in node.attribute:
        if attribute.name == "axes":
            return list(attribute.ints)
    data = model.constants.get(node.input[1]) if len(node.input) > 1 else None
    return [] if data is None else [int(a) for a in data.ravel()]


def _axis(node: onnx.NodeProto, model: _Model) -> int:
    return _axes(node, model)[0]


def _kept(node: onnx.NodeProto, model: _Model) -> bool:
    """Whether it reduces one axis and keeps it."""
    keepdims = next((a.i for a in node.attribute if a.name == "keepdims"), 1)
    return keepdims == 1 and len(_axes(node, model)) == 1
