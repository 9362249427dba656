"""ONNX to the intermediate representation."""

from __future__ import annotations

import os
from collections.abc import Callable

import onnx

from pyedge.converters import ir
from pyedge.converters.passes.remove_dead import remove_dead
from pyedge.converters.shapes import infer_shapes
from pyedge.errors import InvalidModelError, UnsupportedError

from . import ops_conv, ops_elementwise, ops_reduce, ops_shape
from .load import InputShape, PreparedModel, prepare_model
from .lower import NCHW, Layouts, Lowering, Op, decode
from .patterns import merge_patterns

LOWERINGS: dict[str, Callable[[Lowering], None]] = {
    "Add": ops_elementwise.binary,
    "AveragePool": ops_reduce.pool("average_pool"),
    "BatchNormalization": ops_conv.batch_normalization,
    "Cast": ops_elementwise.cast,
    "Clip": ops_elementwise.clip,
    "Concat": ops_shape.concat,
    "Conv": ops_conv.conv,
    "ConvTranspose": ops_conv.conv_transpose,
    "DepthToSpace": ops_shape.depth_to_space,
    "Div": ops_elementwise.binary,
    "Dropout": ops_elementwise.identity,
    "Expand": ops_elementwise.expand,
    "Flatten": ops_shape.reshape,
    "Gemm": ops_conv.gemm,
    "GlobalAveragePool": ops_reduce.global_pool("average_pool"),
    "GlobalMaxPool": ops_reduce.global_pool("max_pool"),
    "HardSigmoid": ops_elementwise.unary("hard_sigmoid"),
    "HardSwish": ops_elementwise.unary("hard_swish"),
    "Identity": ops_elementwise.identity,
    "LeakyRelu": ops_elementwise.leaky_relu,
    "LpNormalization": ops_reduce.lp_normalization,
    "MatMul": ops_conv.matmul,
    "Max": ops_elementwise.extremum,
    "MaxPool": ops_reduce.pool("max_pool"),
    "Min": ops_elementwise.extremum,
    "Mul": ops_elementwise.binary,
    "Neg": ops_elementwise.negate,
    "PRelu": ops_elementwise.prelu,
    "Pad": ops_shape.pad,
    "Pow": ops_elementwise.power,
    "ReduceL2": ops_reduce.reduce("reduce_l2"),
    "ReduceMax": ops_reduce.reduce("reduce_max"),
    "ReduceMean": ops_reduce.reduce("reduce_mean"),
    "ReduceSum": ops_reduce.reduce("reduce_sum"),
    "Relu": ops_elementwise.relu,
    "Reshape": ops_shape.reshape,
    "Resize": ops_shape.resize,
    "Sigmoid": ops_elementwise.unary("sigmoid"),
    "Slice": ops_shape.slice_,
    "Softmax": ops_reduce.softmax,
    "Split": ops_shape.split,
    "Squeeze": ops_shape.reshape,
    "Sub": ops_elementwise.binary,
    "Sum": ops_elementwise.total,
    "Tanh": ops_elementwise.unary("tanh"),
    "Transpose": ops_shape.transpose,
    "Unsqueeze": ops_shape.reshape,
    "Upsample": ops_shape.resize,
}

HINTS = {
    "QuantizeLinear": "import the float model: pyedge quantizes it itself",
    "DequantizeLinear": "only of constants it is; import the float model",
    "QLinearConv": "import the float model: pyedge quantizes it itself",
    "Sqrt": "only as part of an L2 normalization it is",
    "If": "export a model without control flow",
    "Loop": "export a model without control flow",
    "Shape": "export with static height and width, or pass input_shape= (--input-shape)",
}


def import_onnx(
    source: str | os.PathLike[str] | onnx.ModelProto,
    *,
    allow_external_data: bool = False,
    input_shape: InputShape | None = None,
    input_size: tuple[int, int] = (0, 0),
) -> ir.Graph:
    """Reads an ONNX model (opset 11 to 21) as an f32 graph of the same function.

    Inputs and outputs keep names and layout. Their batch is free; height and width of a single
    rank-4 input are free too where the network computes an output of the same channels at other
    sizes. `metadata.input_size` is the size the model was made for.

    Args:
        source: path of the model, or the model.
        allow_external_data: whether weights may be read from files beside the model.
        input_shape: for inputs of unknown height or width: the shape of the input with the batch
            first, or one for each input by name.
        input_size: without it: the width and height of a single rank-4 input where the model
            leaves them open.

    Raises:
        InvalidModelError: not an ONNX model, truncated, NaN weights, shapes unknown.
        UnsupportedError: an operation, attribute or opset that is not supported.
        InvalidArgumentError: an input_shape that contradicts the model.
    """
    model = prepare_model(
        source,
        allow_external_data=allow_external_data,
        input_shape=input_shape,
        input_size=input_size,
    )
    model.nodes = merge_patterns(model.nodes, model.constants, model.outputs)
    ctx = Lowering(model)
    for name in model.inputs:
        shape = (-1, *ctx.shape(name)[1:])
        ctx.graph.tensors[name] = ir.Tensor(name, shape=shape)
        ctx.graph.inputs.append(name)
        ctx.values[name] = Layouts(plain=name)
    for node in model.nodes:
        _lower_node(ctx, node)
    for name in model.outputs:
        _bind_output(ctx, name)
    ctx.graph = graph = remove_dead(ctx.graph)
    _check_batch(graph, model)
    if len(graph.inputs) == 1 and len(graph.tensors[graph.inputs[0]].shape or ()) == 4:
        _free_size(ctx)
    return graph


def _lower_node(ctx: Lowering, node: onnx.NodeProto) -> None:
    ctx.op = decode(node)
    lower = LOWERINGS.get(node.op_type)
    if lower is None:
        ctx.unsupported("(an operation)", HINTS.get(node.op_type, "replace it before the export"))
    for name in ctx.op.outputs:
        if name in ctx.model.shapes and ctx.model.shapes[name][:1] != (1,):
            ctx.mixes_batch()
    lower(ctx)


def _bind_output(ctx: Lowering, name: str) -> None:
    """Gives the graph an output of exactly that name, in the layout of the ONNX model."""
    graph = ctx.graph
    if name in ctx.model.constants or name not in ctx.values:
        raise UnsupportedError(
            f"{ctx.model.label}: output '{name}' does not depend on the input; remove it"
        )
    layouts = ctx.values[name]
    graph.outputs.append(name)
    ctx.op = Op("Identity", name, [name], [name], {})
    if layouts.plain is None:
        assert layouts.nhwc is not None
        graph.tensors.setdefault(name, ir.Tensor(name))
        layouts.plain = name
        ctx.emit("transpose", [layouts.nhwc], name, perm=NCHW)
    elif layouts.plain != name:
        graph.tensors.setdefault(name, ir.Tensor(name))
        ctx.emit("reshape", [layouts.plain], name, dims=[0] * ctx.rank(name))


def _input_shapes(graph: ir.Graph, batch: int) -> dict[str, tuple[int, ...]]:
    return {name: (batch, *(graph.tensors[name].shape or ())[1:]) for name in graph.inputs}


def _check_batch(graph: ir.Graph, model: PreparedModel) -> None:
    """Every value must have the batch as its first dimension."""
    shapes = infer_shapes(graph, _input_shapes(graph, 3))
    for node in graph.nodes:
        for name in node.outputs:
            if shapes[name][0] != 3:
                raise InvalidModelError(
                    f"{model.label}: node '{node.name}' gives {list(shapes[name])} for a batch "
                    "of 3; export so that axis 0 is the batch in every activation"
                )


def _free_size(ctx: Lowering) -> None:
    """Frees height and width of the input where the network does not depend on them."""
    graph = ctx.graph
    name = graph.inputs[0]
    _, channels, height, width = ctx.shape(name)
    graph.metadata.input_size = (width, height)
    if ctx.size_bound:
        return
    try:
        # Multiples keep whatever alignment the strides need.
        shapes = infer_shapes(graph, {name: (1, channels, 2 * height, 3 * width)})
    except InvalidModelError:
        return
    for output in graph.outputs:
        old, new = ctx.shape(output), shapes[output]
        axis = 1 if len(old) == 4 else len(old) - 1
        if len(old) != len(new) or old[axis] != new[axis]:
            return
    graph.tensors[name].shape = (-1, channels, -1, -1)
