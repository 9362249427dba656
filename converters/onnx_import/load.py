"""From bytes to a checked ONNX model with known shapes, small enough to lower node by node."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import onnx.inliner
import onnxsim
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from pyedge.errors import InvalidArgumentError, InvalidModelError, UnsupportedError

MIN_OPSET, MAX_OPSET = 11, 21
InputShape = Sequence[int] | Mapping[str, Sequence[int]]
T = TypeVar("T")

FLOAT_TYPES = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
    onnx.TensorProto.DOUBLE,
}


@dataclass
class PreparedModel:
    """A simplified model at batch 1.

    `shapes` knows every value. `literals` holds, by output name, the target of those Reshape and
    Resize nodes that stood as a constant in the original, unlike one computed from other shapes.
    """

    label: str
    opset: int
    nodes: list[onnx.NodeProto]
    inputs: list[str]
    outputs: list[str]
    constants: dict[str, np.ndarray] = field(repr=False)
    shapes: dict[str, tuple[int, ...]] = field(repr=False)
    literals: dict[str, list[int]] = field(repr=False)


def prepare_model(
    source: str | os.PathLike[str] | onnx.ModelProto,
    *,
    allow_external_data: bool,
    input_shape: InputShape | None,
    input_size: tuple[int, int] = (0, 0),
) -> PreparedModel:
    """Reads, checks and simplifies; raises InvalidModelError or UnsupportedError."""
    model, label = _load(source, allow_external_data)
    opset = _check(model, label)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    _check_nodes(model, label)
    _fold_dequantize(model, label)
    _check_finite(model, label)
    _drop_extra_inputs(model)
    if input_shape is None:
        _fill_size(model, input_size)
    _fix_input_shapes(model, label, input_shape)
    literals = _literal_targets(model, label)
    model = _simplify(model, label)
    constants = dict(_constants(model, label))
    return PreparedModel(
        label,
        opset,
        [node for node in model.graph.node if node.op_type != "Constant"],
        [value.name for value in model.graph.input if value.name not in constants],
        [value.name for value in model.graph.output],
        constants,
        _value_shapes(model),
        literals,
    )


def _load(
    source: str | os.PathLike[str] | onnx.ModelProto, allow_external_data: bool
) -> tuple[onnx.ModelProto, str]:
    model = onnx.ModelProto()
    if isinstance(source, onnx.ModelProto):
        model.CopyFrom(source)
        folder, label = None, model.graph.name or "model"
    else:
        path = Path(source)
        folder, label = path.parent, str(path)
        try:
            model.ParseFromString(path.read_bytes())
        except OSError as error:
            raise InvalidModelError(f"{path}: cannot be read: {error.strerror}") from error
        except DecodeError as error:
            raise InvalidModelError(f"{path}: not an ONNX model, or truncated ({error})") from error
    external = [t for t in _tensors(model.graph) if t.data_location == onnx.TensorProto.EXTERNAL]
    if external and not allow_external_data:
        raise InvalidModelError(
            f"{label}: initializer '{external[0].name}' lies in an external data file; pass "
            "allow_external_data=True (--external-data) if the folder of the model is trusted"
        )
    for tensor in external:
        if folder is None:
            raise InvalidModelError(
                f"{label}: initializer '{tensor.name}' has external data, which needs a model "
                "given as a path"
            )
        _read_external(tensor, folder, label)
    return model, label


def _read_external(tensor: onnx.TensorProto, folder: Path, label: str) -> None:
    """Moves external data into the tensor. Only plain files right beside the model are opened."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location, what = entries.get("location", ""), f"{label}: initializer '{tensor.name}'"
    if location in ("", ".", "..") or any(mark in location for mark in "/\\:\0"):
        raise InvalidModelError(
            f"{what}: external data location {location!r} must be a file name in the folder of "
            "the model"
        )
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
        file = os.open(folder / location, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise InvalidModelError(f"{what}: external data {location!r}: {error}") from error
    try:
        info = os.fstat(file)
        if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
            raise InvalidModelError(f"{what}: external data {location!r} must be a file, no link")
        length = info.st_size - offset if length < 0 else length
        if offset < 0 or offset + length > info.st_size or length < 0:
            raise InvalidModelError(
                f"{what}: external data {location!r} has {info.st_size} bytes, "
                f"[{offset}, {offset + length}) is wanted"
            )
        with os.fdopen(file, "rb", closefd=False) as stream:
            stream.seek(offset)
            tensor.raw_data = stream.read(length)
    finally:
        os.close(file)
    tensor.ClearField("external_data")
    tensor.data_location = onnx.TensorProto.DEFAULT


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors
            for subgraph in (attribute.g, *attribute.graphs):
                yield from _tensors(subgraph)


def _check(model: onnx.ModelProto, label: str) -> int:
    """The opset, once the model is known to be well-formed."""
    if not model.graph.node or not model.opset_import:
        raise InvalidModelError(f"{label}: not an ONNX model: it has no nodes or no opset")
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise UnsupportedError(
            f"{label}: opset {opset}; export with an opset from {MIN_OPSET} to {MAX_OPSET}"
        )
    graph = model.graph
    names = [value.name for value in (*graph.input, *graph.output, *graph.initializer)]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
    if any(isinstance(name, bytes) for name in names):  # what protobuf cannot decode
        raise InvalidModelError(f"{label}: not an ONNX model: a name is not UTF-8")
    # The checker insists on shapes; one without dimensions passes for one that is missing.
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.SetInParent()
    _guard(lambda: onnx.checker.check_model(model), f"{label}: not a valid ONNX model")
    return opset


def _guard(action: Callable[[], T], message: str) -> T:
    """onnx and onnxsim raise many types; each becomes an InvalidModelError."""
    try:
        return action()
    except Exception as error:
        reason = " ".join(str(error).split())[:500]
        raise InvalidModelError(f"{message}: {reason}") from error


# Of these no exporter makes shape arithmetic, so what they read is an activation.
REDUCING = {"Softmax", "LpNormalization", "ReduceMean", "ReduceL2", "ReduceMax"}


def _check_nodes(model: onnx.ModelProto, label: str) -> None:
    """What simplification at batch 1 would hide, and domains that nobody knows."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        place = f"{label}: node '{node.name or node.output[0]}'"
        if node.domain not in ("", "ai.onnx"):
            raise UnsupportedError(
                f"{place} uses {node.op_type} of the domain '{node.domain}'; export with standard "
                "ONNX operations"
            )
        if node.op_type not in REDUCING:
            continue
        attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        axes = [attrs.get("axis", -1), *attrs.get("axes", ())]
        if len(node.input) > 1 and node.input[1] in constants:
            axes = _to_array(constants[node.input[1]], label).ravel().tolist()
        if 0 in axes:
            raise UnsupportedError(
                f"{place}: {node.op_type} over the batch axis is not supported; export so that "
                "axis 0 is the batch in every activation"
            )


def _to_array(tensor: onnx.TensorProto, label: str) -> np.ndarray:
    return _guard(
        lambda: np.asarray(numpy_helper.to_array(tensor)),
        f"{label}: initializer '{tensor.name}' does not hold what its shape says",
    )


def _constants(model: onnx.ModelProto, label: str) -> Iterator[tuple[str, np.ndarray]]:
    for tensor in model.graph.initializer:
        yield tensor.name, _to_array(tensor, label)
    for node in model.graph.node:
        if node.op_type == "Constant":
            attribute = node.attribute[0]
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield node.output[0], _to_array(attribute.t, label)
            elif attribute.name.startswith("value_"):
                yield node.output[0], np.asarray(onnx.helper.get_attribute_value(attribute))


def _fold_dequantize(model: onnx.ModelProto, label: str) -> None:
    """Weights stored as integers become f32 initializers."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].type == onnx.AttributeProto.TENSOR:
            tensors[node.output[0]] = node.attribute[0].t
    kept = []
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or not all(n in tensors for n in node.input if n):
            kept.append(node)
            continue
        attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        arrays = [_to_array(tensors[name], label) for name in node.input if name]
        x, scale = arrays[0].astype(np.float32), arrays[1].astype(np.float32)
        zero_point = arrays[2].astype(np.float32) if len(arrays) > 2 else np.zeros_like(scale)
        if zero_point.shape != scale.shape:
            raise InvalidModelError(
                f"{label}: node '{node.name or node.output[0]}': zero point of shape "
                f"{zero_point.shape} beside a scale of shape {scale.shape}"
            )
        place = f"{label}: node '{node.name or node.output[0]}'"
        axis, block = attrs.get("axis", 1), attrs.get("block_size", 0)
        data = (x - _spread(zero_point, x.shape, axis, block, place)) * _spread(
            scale, x.shape, axis, block, place
        )
        model.graph.initializer.append(numpy_helper.from_array(data, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    used = {name for node in kept for name in node.input} | {o.name for o in model.graph.output}
    for tensor in [t for t in model.graph.initializer if t.name not in used]:
        model.graph.initializer.remove(tensor)


def _spread(
    values: np.ndarray, shape: tuple[int, ...], axis: int, block: int, place: str
) -> np.ndarray:
    """Quantization parameters (per tensor, per axis or per block) in a shape that broadcasts."""
    if values.size == 1:
        return values.reshape(())
    if not -len(shape) <= axis < len(shape):
        raise InvalidModelError(f"{place}: axis {axis} of a tensor of shape {shape}")
    if values.ndim == 1 and not block and values.size == shape[axis]:
        return values.reshape([-1 if a == axis % len(shape) else 1 for a in range(len(shape))])
    if block > 0 and values.ndim == len(shape):
        axis %= len(shape)
        expected = list(shape)
        expected[axis] = -(-shape[axis] // block)
        if list(values.shape) == expected:
            return np.repeat(values, block, axis).take(range(shape[axis]), axis)
    raise InvalidModelError(
        f"{place}: a scale of shape {values.shape} does not fit a tensor of shape {shape} "
        f"(axis {axis}, block_size {block})"
    )


def _check_finite(model: onnx.ModelProto, label: str) -> None:
    for name, array in _constants(model, label):
        if array.dtype.kind not in "fV":  # V: bfloat16
            continue
        # A single infinite number may be a bound of a Clip.
        bad = np.isnan if array.size == 1 else lambda a: ~np.isfinite(a)
        if bad(array.astype(np.float32, copy=False)).any():
            raise InvalidModelError(
                f"{label}: initializer '{name}' of shape {list(array.shape)} holds NaN or "
                "infinite values; repair the checkpoint"
            )


def _drop_extra_inputs(model: onnx.ModelProto) -> None:
    """Initializers listed as inputs too (as IR version 3 asked for), and inputs nobody reads."""
    used = {name for node in model.graph.node for name in node.input}
    used -= {tensor.name for tensor in model.graph.initializer}
    for value in [v for v in model.graph.input if v.name not in used]:
        model.graph.input.remove(value)


def _fill_size(model: onnx.ModelProto, input_size: tuple[int, int]) -> None:
    """Closes the open height and width of a single input that takes images."""
    if len(model.graph.input) != 1 or 0 in input_size:
        return
    dims = model.graph.input[0].type.tensor_type.shape.dim
    if len(dims) == 4:
        for dim, side in zip(dims[2:], reversed(input_size), strict=True):
            if dim.dim_value <= 0:
                dim.dim_value = side


def _fix_input_shapes(model: onnx.ModelProto, label: str, given: InputShape | None) -> None:
    """Batch 1, everything else as the model or the caller says."""
    inputs = list(model.graph.input)
    shapes: dict[str, Sequence[int]] = {}
    if isinstance(given, Mapping):
        shapes = dict(given)
    elif given is not None:
        if len(inputs) != 1:
            names = ", ".join(value.name for value in inputs)
            raise InvalidArgumentError(
                f"{label}: input_shape must be a dict for a model with the inputs {names}"
            )
        shapes = {inputs[0].name: given}
    unknown = set(shapes) - {value.name for value in inputs}
    if unknown:
        raise InvalidArgumentError(f"{label}: input_shape names no input: {sorted(unknown)}")
    for value in inputs:
        _fix_shape(value, label, shapes.get(value.name))
    # Stale facts about the old batch or size would contradict inference.
    del model.graph.value_info[:]
    for value in model.graph.output:
        if not value.type.tensor_type.shape.dim:
            value.type.tensor_type.ClearField("shape")
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()


def _fix_shape(value: onnx.ValueInfoProto, label: str, given: Sequence[int] | None) -> None:
    tensor_type, place = value.type.tensor_type, f"{label}: input '{value.name}'"
    if tensor_type.elem_type not in FLOAT_TYPES:
        names = dict(map(reversed, onnx.TensorProto.DataType.items()))
        kind = names.get(tensor_type.elem_type, tensor_type.elem_type)
        raise UnsupportedError(f"{place} has the type {kind}; export with float32 inputs")
    known = [d.dim_value if d.dim_value > 0 else -1 for d in tensor_type.shape.dim]
    has_shape = bool(known)
    if given is not None:
        asked = [int(d) for d in given]
        if has_shape and (
            len(asked) != len(known)
            or any(k > 0 and k != a for k, a in zip(known[1:], asked[1:], strict=True))
        ):
            raise InvalidArgumentError(f"{place} has the shape {known}, input_shape says {asked}")
        known, has_shape = asked, True
    if not has_shape or any(d <= 0 for d in known[1:]):
        shown = [d.dim_param or d.dim_value or "?" for d in tensor_type.shape.dim]
        raise InvalidModelError(
            f"{place} has {'the shape ' + str(shown) if has_shape else 'no shape'}; pass "
            "input_shape= (--input-shape 1,3,112,112) with every dimension behind the batch"
        )
    tensor_type.ClearField("shape")
    for size in [1, *known[1:]]:
        tensor_type.shape.dim.add().dim_value = size


def _literal_targets(model: onnx.ModelProto, label: str) -> dict[str, list[int]]:
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].type == onnx.AttributeProto.TENSOR:
            constants[node.output[0]] = node.attribute[0].t
    slots = {"Reshape": 1, "Resize": 3}
    literals = {}
    for node in model.graph.node:
        slot = slots.get(node.op_type, 0)
        if slot and slot < len(node.input) and node.input[slot] in constants:
            target = _to_array(constants[node.input[slot]], label)
            literals[node.output[0]] = [int(d) for d in target.ravel()]
    return literals


def _simplify(model: onnx.ModelProto, label: str) -> onnx.ModelProto:
    if not all(value.type.tensor_type.HasField("shape") for value in model.graph.output):
        model = _infer(model, label, strict=False)
    # BatchNormalization stays: the passes fold it, and know where padding forbids it.
    try:
        model, _ = _guard(
            lambda: onnxsim.simplify(model, check_n=0, skip_fuse_bn=True),
            f"{label}: onnxsim cannot simplify it",
        )
    except InvalidModelError:
        _infer(model, label, strict=True)  # which says better what is wrong with shapes
        raise
    return _infer(model, label, strict=True)


def _infer(model: onnx.ModelProto, label: str, *, strict: bool) -> onnx.ModelProto:
    return _guard(
        lambda: onnx.shape_inference.infer_shapes(model, strict_mode=strict, data_prop=True),
        f"{label}: shapes cannot be inferred at batch 1",
    )


def _value_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of all values that inference knows in full."""
    shapes = {}
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            if all(d.HasField("dim_value") for d in dims):
                shapes[value.name] = tuple(d.dim_value for d in dims)
    return shapes
