"""The intermediate representation: the native graph as plain Python data.

One set of operations serves from import to file: a graph fresh from ONNX, a fused one and a
quantized one differ only in which operations and types occur, and each can be written and run.
`csrc/graph/ops.def` lists the operations, their input slots and their attributes. Activations of
rank 4 are NHWC; graph inputs and outputs keep the layout of the ONNX model (a `transpose` node
stands between).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from pyedge.metadata import Metadata

DType = Literal["f32", "f16", "i8"]
# Values of the attribute `activation` of conv and fully_connected, which may be missing.
ACTIVATIONS = ("none", "hard_sigmoid", "sigmoid", "hard_swish", "swish")
Attribute = int | float | list[int]

NUMPY_DTYPES: dict[DType, np.dtype] = {
    "f32": np.dtype("<f4"),
    "f16": np.dtype("<f2"),  # weights of conv and fully_connected, from `halve_weights`
    "i8": np.dtype("i1"),
}


@dataclass
class Tensor:
    """A value of the graph.

    `data` is set for constants. `shape` is set for constants and graph inputs (-1: any size);
    the shapes of other values are inferred when the model runs. `scale` and `zero_point` belong
    to i8 activations: real = scale * (q - zero_point).
    """

    name: str
    dtype: DType = "f32"
    shape: tuple[int, ...] | None = None
    data: np.ndarray | None = None
    scale: float = 0.0
    zero_point: int = 0

    @property
    def constant(self) -> bool:
        return self.data is not None


@dataclass
class Node:
    """One operation; `inputs` holds tensor names by slot, None for an absent optional one."""

    op: str
    name: str
    inputs: list[str | None]
    outputs: list[str]
    attrs: dict[str, Attribute] = field(default_factory=dict)

    def input(self, slot: int) -> str | None:
        """The tensor in that slot, None where the slot is empty or beyond the last."""
        return self.inputs[slot] if slot < len(self.inputs) else None

    @property
    def activation(self) -> str:
        """One of ACTIVATIONS."""
        index = self.attrs.get("activation", 0)
        assert isinstance(index, int)
        return ACTIVATIONS[index]

    def set_input(self, slot: int, name: str | None) -> None:
        self.inputs += [None] * (slot + 1 - len(self.inputs))
        self.inputs[slot] = name


@dataclass
class Graph:
    """Nodes stand in an order in which they can run; each tensor has one producer."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    metadata: Metadata = field(default_factory=Metadata)

    def add_constant(self, name: str, data: np.ndarray) -> str:
        """Adds a constant under that name, or a numbered one where it is taken."""
        name = self.unique_name(name)
        dtype: DType = "i8" if data.dtype == np.int8 else "f32"
        data = np.ascontiguousarray(data, NUMPY_DTYPES[dtype])
        self.tensors[name] = Tensor(name, dtype, data.shape, data)
        return name

    def add_value(self, name: str) -> str:
        """Adds an activation under that name, or a numbered one where it is taken."""
        name = self.unique_name(name)
        self.tensors[name] = Tensor(name)
        return name

    def unique_name(self, name: str) -> str:
        unique, count = name, 0
        while unique in self.tensors:
            count += 1
            unique = f"{name}.{count}"
        return unique

    def constant(self, name: str | None) -> np.ndarray | None:
        """The data of a constant; None for an activation or an empty slot."""
        return None if name is None else self.tensors[name].data

    def producer(self, name: str) -> Node | None:
        return next((node for node in self.nodes if name in node.outputs), None)

    def consumers(self, name: str) -> list[Node]:
        return [node for node in self.nodes if name in node.inputs]

    def activations(self) -> Iterator[str]:
        """Names of graph inputs and node outputs, in execution order."""
        yield from self.inputs
        for node in self.nodes:
            yield from node.outputs

    def drop_unused(self) -> None:
        """Removes tensors that nothing refers to."""
        used = {*self.inputs, *self.outputs}
        for node in self.nodes:
            used.update(name for name in (*node.inputs, *node.outputs) if name is not None)
        self.tensors = {name: tensor for name, tensor in self.tensors.items() if name in used}

    def copy(self) -> Graph:
        """A copy that shares the arrays: passes replace arrays, they never write into them."""
        tensors = {name: copy.copy(tensor) for name, tensor in self.tensors.items()}
        nodes = [
            Node(n.op, n.name, list(n.inputs), list(n.outputs), dict(n.attrs)) for n in self.nodes
        ]
        return Graph(
            tensors, nodes, list(self.inputs), list(self.outputs), copy.copy(self.metadata)
        )
