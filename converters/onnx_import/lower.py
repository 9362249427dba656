"""The state of a lowering: which IR tensor stands for which ONNX tensor, and in which layout.

A rank-4 value exists as NHWC, as plain (the order of the ONNX model), or both; a transpose is
inserted once, where an operation needs the layout that does not exist yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import onnx

from pyedge.converters import ir
from pyedge.errors import InvalidModelError, UnsupportedError

from .load import PreparedModel

NHWC = [0, 2, 3, 1]  # the ONNX axis at each place of an NHWC tensor
NCHW = [0, 3, 1, 2]
INF = float("inf")


@dataclass
class Layouts:
    """The IR tensors that hold one ONNX tensor."""

    plain: str | None = None
    nhwc: str | None = None


@dataclass
class Op:
    """An ONNX node with its attributes decoded."""

    type: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, Any]

    def input(self, slot: int) -> str | None:
        """The tensor in that slot; None where it is left out."""
        return self.inputs[slot] or None if slot < len(self.inputs) else None


def decode(node: onnx.NodeProto) -> Op:
    attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    attrs = {k: v.decode(errors="replace") if isinstance(v, bytes) else v for k, v in attrs.items()}
    name = node.name or next((o for o in node.output if o), node.op_type)
    return Op(node.op_type, name, list(node.input), list(node.output), attrs)


@dataclass
class Lowering:
    """Builds `graph` from `model`; the functions of the ops modules call its methods."""

    model: PreparedModel
    graph: ir.Graph = field(default_factory=ir.Graph)
    values: dict[str, Layouts] = field(default_factory=dict)
    size_bound: bool = False  # an attribute was computed from the height or width
    op: Op = field(default_factory=lambda: Op("", "", [], [], {}))  # the one being lowered
    _names: set[str] = field(default_factory=set)

    # Facts about the ONNX model.

    def shape(self, name: str) -> tuple[int, ...]:
        if name in self.model.constants:
            return tuple(self.model.constants[name].shape)
        if name not in self.model.shapes:
            raise InvalidModelError(
                f"{self.model.label}: the shape of '{name}' (node '{self.op.name}', "
                f"{self.op.type}) cannot be inferred; pass input_shape= (--input-shape) or "
                "export with static shapes"
            )
        return self.model.shapes[name]

    def rank(self, name: str) -> int:
        return len(self.shape(name))

    def is_constant(self, name: str | None) -> bool:
        return name is not None and name in self.model.constants

    def constant(self, name: str | None, what: str) -> np.ndarray | None:
        """The data of an input that has to be constant; None where it is left out."""
        if not name:
            return None
        if name not in self.model.constants:
            self.unsupported(f"with a computed {what}", f"export with a constant {what}")
        return self.model.constants[name]

    def floats(self, name: str | None, what: str) -> np.ndarray | None:
        data = self.constant(name, what)
        return None if data is None else data.astype(np.float32)

    def integers(self, name: str | None, what: str) -> list[int] | None:
        data = self.constant(name, what)
        return None if data is None else [int(v) for v in data.ravel()]

    def unsupported(self, reason: str, hint: str) -> NoReturn:
        raise UnsupportedError(
            f"{self.model.label}: node '{self.op.name}': {self.op.type} {reason} is not "
            f"supported; {hint}"
        )

    def mixes_batch(self) -> NoReturn:
        self.unsupported(
            "over the batch axis", "export so that axis 0 is the batch in every activation"
        )

    # IR tensors.

    def layouts(self, name: str) -> Layouts:
        if name not in self.values:
            self.unsupported(
                f"of '{name or 'an input left out'}', which is no activation,",
                "fold it into constants before the export",
            )
        return self.values[name]

    def plain(self, name: str) -> str:
        """The IR tensor with the axes in the order of the ONNX model."""
        layouts = self.layouts(name)
        if layouts.plain is None:
            assert layouts.nhwc is not None
            layouts.plain = self.graph.add_value(f"{name}.nchw")
            self.emit("transpose", [layouts.nhwc], layouts.plain, perm=NCHW)
        return layouts.plain

    def nhwc(self, name: str) -> str:
        """The IR tensor with the axes (batch, height, width, channel)."""
        if self.rank(name) != 4:
            self.unsupported(
                f"on the shape {list(self.shape(name))}",
                "only images of rank 4 are: insert a dimension of 1 (kernels 1-D as 1xK)",
            )
        layouts = self.layouts(name)
        if layouts.nhwc is None:
            assert layouts.plain is not None
            layouts.nhwc = self.graph.add_value(f"{name}.nhwc")
            self.emit("transpose", [layouts.plain], layouts.nhwc, perm=NHWC)
        return layouts.nhwc

    def prefers_nhwc(self, *names: str) -> bool:
        """Whether one of the values exists as NHWC already."""
        return any(name in self.values and self.values[name].nhwc is not None for name in names)

    def get(self, name: str, nhwc: bool) -> str:
        return self.nhwc(name) if nhwc else self.plain(name)

    def define(self, nhwc: bool, slot: int = 0) -> str:
        """A new IR tensor for an output of the current node."""
        name = self.op.outputs[slot]
        plain_name = name in self.model.outputs and nhwc
        value = self.graph.add_value(f"{name}.nhwc" if plain_name else name)
        self.values[name] = Layouts(nhwc=value) if nhwc else Layouts(plain=value)
        return value

    def temporary(self, suffix: str) -> str:
        return self.graph.add_value(f"{self.op.outputs[0]}.{suffix}")

    def alias(self, name: str) -> None:
        """The output of the current node is that value."""
        self.values[self.op.outputs[0]] = self.layouts(name)

    def weight(self, data: np.ndarray, suffix: str) -> str:
        return self.graph.add_constant(f"{self.op.name}.{suffix}", data)

    def emit(
        self, op: str, inputs: Sequence[str | None], output: str, **attrs: ir.Attribute
    ) -> ir.Node:
        # The first node of an ONNX node takes its name; a transpose may serve several.
        wanted = output if op == "transpose" else self.op.name
        name, count = wanted, 0
        while name in self._names:
            count += 1
            name = f"{wanted}.{count}"
        self._names.add(name)
        node = ir.Node(op, name, list(inputs), [output], dict(attrs))
        self.graph.nodes.append(node)
        return node
