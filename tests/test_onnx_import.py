"""Every ONNX operation against ONNX Runtime, through the importer, all passes and the core."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx
import pytest
from parity import assert_close, model, node, noise, reference, run

import pyedge
from pyedge.converters import native
from pyedge.converters.onnx_import import import_onnx
from pyedge.converters.passes import optimize

SHAPE = (7, 13, 9)  # of the input, without the batch


class Case(NamedTuple):
    name: str
    nodes: list[onnx.NodeProto]
    constants: dict[str, np.ndarray] = {}  # noqa: RUF012 - never written
    shape: tuple[int, ...] = SHAPE
    opset: int = 13
    outputs: str = "y"


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def conv_case(name: str, channels: tuple[int, int], kernel: int, size=(13, 9), **attrs) -> Case:
    inputs, outputs = channels
    weight = noise((outputs, inputs // attrs.get("group", 1), kernel, kernel), 1) / kernel
    constants = {"w": weight, "b": noise((outputs,), 2)}
    return Case(f"conv-{name}", [node("Conv", "x w b", **attrs)], constants, (inputs, *size))


def transposed_case(name: str, channels: tuple[int, int], kernel: int, **attrs) -> Case:
    inputs, outputs = channels
    weight = noise((inputs, outputs // attrs.get("group", 1), kernel, kernel), 1) / kernel
    constants = {"w": weight, "b": noise((outputs,), 2)}
    nodes = [node("ConvTranspose", "x w b", **attrs)]
    return Case(f"conv_transpose-{name}", nodes, constants, (inputs, 7, 5))


CONVOLUTIONS = [
    conv_case("1x1", (17, 127), 1),
    conv_case("one-channel", (1, 3), 3, pads=[1, 1, 1, 1]),
    conv_case("stride", (3, 5), 3, strides=[2, 2], pads=[1, 1, 1, 1]),
    conv_case("dilation", (5, 7), 3, dilations=[2, 3], pads=[2, 3, 2, 3]),
    conv_case("asymmetric", (7, 13), 3, pads=[0, 1, 2, 0], strides=[1, 2]),
    conv_case("depthwise", (17, 17), 3, group=17, pads=[1, 1, 1, 1]),
    conv_case("depthwise-stride", (127, 127), 5, group=127, strides=[2, 2], pads=[2, 2, 2, 2]),
    conv_case("multiplier", (5, 15), 3, group=5),
    conv_case("grouped", (12, 18), 3, group=3, pads=[1, 1, 1, 1]),
    conv_case("even-kernel", (3, 7), 4, strides=[3, 3]),
    conv_case("same-upper", (3, 5), 3, auto_pad="SAME_UPPER", strides=[2, 2]),
    conv_case("same-lower", (3, 5), 4, auto_pad="SAME_LOWER", strides=[2, 2]),
    conv_case("valid", (3, 5), 3, auto_pad="VALID"),
    transposed_case("plain", (3, 5), 3),
    transposed_case("stride", (5, 7), 4, strides=[2, 2], pads=[1, 1, 1, 1]),
    transposed_case("output-padding", (3, 5), 3, strides=[2, 3], output_padding=[1, 2]),
    transposed_case("asymmetric", (3, 5), 3, strides=[2, 2], pads=[0, 1, 2, 1]),
    transposed_case("grouped", (6, 9), 3, group=3, strides=[2, 2]),
    transposed_case("depthwise", (5, 5), 2, group=5, strides=[2, 2]),
    transposed_case("dilation", (3, 2), 3, dilations=[2, 1]),
    transposed_case("output-shape", (3, 5), 3, strides=[2, 2], output_shape=[14, 10]),
    transposed_case("same-upper", (3, 5), 3, strides=[2, 2], auto_pad="SAME_UPPER"),
]

MATRICES = [
    Case(
        "gemm",
        [node("Gemm", "x w b", transB=1, alpha=0.5, beta=2.0)],
        {"w": noise((5, 17)), "b": noise((5,))},
        (17,),
    ),
    Case("gemm-no-bias", [node("Gemm", "x w")], {"w": noise((17, 5))}, (17,)),
    Case("gemm-row-bias", [node("Gemm", "x w b")], {"w": noise((7, 5)), "b": noise((1, 5))}, (7,)),
    Case(
        "gemm-scalar-bias",
        [node("Gemm", "x w b")],
        {"w": noise((7, 5)), "b": noise((1,))},
        (7,),
    ),
    Case(
        "gemm-computed-bias",
        [node("Sigmoid", "x", "s"), node("Gemm", "x w s")],
        {"w": noise((7, 7))},
        (7,),
    ),
    Case("matmul", [node("MatMul", "x w")], {"w": noise((17, 5))}, (17,)),
    Case("matmul-rank-3", [node("MatMul", "x w")], {"w": noise((9, 5))}, (4, 9)),
    Case("matmul-rank-4", [node("MatMul", "x w")], {"w": noise((9, 5))}),
    Case(
        "matmul-bias",
        [node("MatMul", "x w", "m"), node("Add", "m b")],
        {"w": noise((17, 5)), "b": noise((5,))},
        (17,),
    ),
]


def statistics(channels: int) -> dict[str, np.ndarray]:
    return {
        "gamma": noise((channels,), 1),
        "beta": noise((channels,), 2),
        "mean": noise((channels,), 3),
        "variance": np.abs(noise((channels,), 4)) + 0.3,
    }


BATCH_NORM = node("BatchNormalization", "x gamma beta mean variance", epsilon=1e-3)
AFFINE = [
    Case("batch-norm-4", [BATCH_NORM], statistics(7)),
    Case("batch-norm-3", [BATCH_NORM], statistics(7), (7, 5)),
    Case("batch-norm-2", [BATCH_NORM], statistics(17), (17,)),
    *(
        Case(f"{op.lower()}-{what}-{side}", [node(op, "x c" if side == "right" else "c x")], c)
        for op in ("Add", "Sub", "Mul", "Div")
        for side in ("right", "left")
        for what, c in {
            "channel": {"c": noise((7, 1, 1)) + 3},
            "scalar": {"c": np.float32(1.7)},
            "plane": {"c": noise((13, 9)) + 3},
            "row": {"c": noise((1, 7, 1, 9)) + 3},
        }.items()
        if not (op == "Div" and side == "left")
    ),
    Case(
        "div-by-activation",
        [node("Sigmoid", "x", "s"), node("Div", "c s")],
        {"c": noise((7, 1, 1))},
    ),
    Case("mul-rank-2", [node("Mul", "x c")], {"c": noise((1, 17))}, (17,)),
    Case("neg", [node("Neg", "x")]),
    Case("square", [node("Pow", "x two")], {"two": np.float32(2)}),
]

ACTIVATIONS = [
    Case("relu", [node("Relu", "x")]),
    Case("clip", [node("Clip", "x lo hi")], {"lo": np.float32(-0.5), "hi": np.float32(0.7)}),
    Case("clip-max-only", [node("Clip", "x - hi")], {"hi": np.float32(0.7)}),
    Case("min", [node("Min", "x c")], {"c": np.float32(0.3)}),
    Case("max", [node("Max", "c x")], {"c": np.float32(0.3)}),
    Case("leaky-relu", [node("LeakyRelu", "x", alpha=0.2)]),
    Case("leaky-relu-2", [node("LeakyRelu", "x")], {}, (17,)),
    Case("prelu", [node("PRelu", "x s")], {"s": noise((7, 1, 1))}),
    Case("prelu-4", [node("PRelu", "x s")], {"s": noise((1, 7, 1, 1))}),
    Case("prelu-scalar", [node("PRelu", "x s")], {"s": noise((1,))}),
    Case("prelu-one", [node("PRelu", "x s")], {"s": noise((1, 1, 1))}),
    Case("prelu-2", [node("PRelu", "x s")], {"s": noise((17,))}, (17,)),
    Case("prelu-3", [node("PRelu", "x s")], {"s": noise((7, 1))}, (7, 5)),
    Case("prelu-plane", [node("PRelu", "x s")], {"s": noise((7, 13, 9))}),
    Case("sigmoid", [node("Sigmoid", "x")]),
    Case("hard-sigmoid", [node("HardSigmoid", "x", alpha=0.3, beta=0.4)]),
    Case("hard-sigmoid-default", [node("HardSigmoid", "x")]),
    Case("hard-swish", [node("HardSwish", "x")], opset=14),
    Case(
        "hard-swish-gate",
        [node("HardSigmoid", "x", "g", alpha=1 / 6, beta=0.5), node("Mul", "x g")],
    ),
    Case(
        "hard-swish-late-div",
        [
            node("Add", "x three", "a"),
            node("Clip", "a lo hi", "c"),
            node("Mul", "x c", "m"),
            node("Div", "m hi"),
        ],
        {"three": np.float32(3), "lo": np.float32(0), "hi": np.float32(6)},
    ),
    Case(
        "hard-swish-early-div",
        [
            node("Add", "three x", "a"),
            node("Clip", "a lo hi", "c"),
            node("Div", "c hi", "g"),
            node("Mul", "g x"),
        ],
        {"three": np.float32(3), "lo": np.float32(0), "hi": np.float32(6)},
    ),
    Case("swish", [node("Sigmoid", "x", "s"), node("Mul", "x s")]),
    Case("tanh", [node("Tanh", "x")]),
    Case("softmax", [node("Softmax", "x", axis=1)]),
    Case("softmax-last", [node("Softmax", "x", axis=-1)]),
    Case("softmax-11", [node("Softmax", "x", axis=1)], opset=11),
    Case("softmax-11-axis-2", [node("Softmax", "x", axis=2)], opset=11),
    Case("softmax-11-rank-2", [node("Softmax", "x")], {}, (17,), 11),
    Case("identity", [node("Identity", "x", "i"), node("Relu", "i")]),
    Case("only-identity", [node("Identity", "x")]),
    Case("dropout", [node("Dropout", "x", "d"), node("Tanh", "d")]),
    Case("cast", [node("Cast", "x", "c", to=1), node("Tanh", "c")]),
]

ARITHMETIC = [
    *(
        Case(op.lower(), [node("Sigmoid", "x", "s"), node(op, "x s")])
        for op in ("Add", "Sub", "Mul", "Div")
    ),
    Case("mul-gate", [node("GlobalAveragePool", "x", "g"), node("Mul", "x g")]),
    Case("mul-gate-left", [node("GlobalMaxPool", "x", "g"), node("Mul", "g x")]),
    Case(
        "add-row",
        [node("ReduceMean", "x", "m", axes=[2]), node("Add", "x m")],
    ),
    Case("sum", [node("Sigmoid", "x", "s"), node("Tanh", "x", "t"), node("Sum", "x s t")]),
]

POOLS = [
    *(
        Case(f"{op.lower()}-{name}", [node(op, "x", **attrs)])
        for op in ("MaxPool", "AveragePool")
        for name, attrs in {
            "2x2": {"kernel_shape": [2, 2], "strides": [2, 2]},
            "3x3": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
            "ceil": {"kernel_shape": [2, 4], "strides": [2, 3], "ceil_mode": 1},
            "ceil-pads": {
                "kernel_shape": [3, 3],
                "strides": [2, 2],
                "pads": [0, 1, 1, 1],
                "ceil_mode": 1,
            },
            "asymmetric": {"kernel_shape": [3, 3], "pads": [0, 1, 2, 0]},
            "same": {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
            "whole": {"kernel_shape": [13, 9]},
        }.items()
    ),
    Case(
        "averagepool-include-pad",
        [node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 0, 1, 2], count_include_pad=1)],
    ),
    Case(
        "averagepool-include-pad-ceil",
        [
            node(
                "AveragePool",
                "x",
                kernel_shape=[3, 3],
                strides=[2, 2],
                pads=[1, 1, 1, 1],
                count_include_pad=1,
                ceil_mode=1,
            )
        ],
        shape=(5, 12, 8),
    ),
    Case("global-average", [node("GlobalAveragePool", "x")]),
    Case("global-max", [node("GlobalMaxPool", "x")]),
]

REDUCTIONS = [
    *(
        Case(f"{op.lower()}-{axes}-{keep}", [node(op, "x", axes=list(axes), keepdims=keep)])
        for op in ("ReduceMean", "ReduceL2")
        for axes in ((1,), (2, 3), (-1,), (1, 2, 3), (2,))
        for keep in (0, 1)
    ),
    Case("reducesum", [node("ReduceSum", "x a", keepdims=0)], {"a": ints(2, 3)}),
    Case("reducemean-18", [node("ReduceMean", "x a")], {"a": ints(2)}, opset=18),
    Case("reducemax", [node("ReduceMax", "x", axes=[2, 3])]),
    Case(
        "reduce-after-conv",
        [node("Conv", "x w", "c"), node("ReduceMean", "c", axes=[2], keepdims=0)],
        {"w": noise((5, 7, 1, 1))},
    ),
    Case("lp-normalization", [node("LpNormalization", "x", axis=1, p=2)]),
    Case("lp-normalization-2", [node("LpNormalization", "x")], {}, (17,)),
    Case(
        "l2-div",
        [node("ReduceL2", "x", "n", axes=[1], keepdims=1), node("Div", "x n")],
        {},
        (17,),
    ),
    Case(
        "l2-clip-expand",
        [
            node("ReduceL2", "x", "n", axes=[1], keepdims=1),
            node("Clip", "n e", "c"),
            node("Shape", "x", "s"),
            node("Expand", "c s", "d"),
            node("Div", "x d"),
        ],
        {"e": np.float32(1e-12)},
        (17,),
    ),
    Case(
        "l2-max",
        [
            node("ReduceL2", "x", "n", axes=[1], keepdims=1),
            node("Max", "n e", "c"),
            node("Div", "x c"),
        ],
        {"e": np.float32(30.0)},
    ),
    Case(
        "l2-sqrt",
        [
            node("Mul", "x x", "q"),
            node("ReduceSum", "q a", "s", keepdims=1),
            node("Sqrt", "s", "n"),
            node("Div", "x n"),
        ],
        {"a": ints(1)},
        (17,),
    ),
    Case(
        "l2-pow-epsilon",
        [
            node("Pow", "x two", "q"),
            node("ReduceSum", "q a", "s", keepdims=1),
            node("Add", "s e", "t"),
            node("Sqrt", "t", "n"),
            node("Div", "x n"),
        ],
        {"a": ints(1), "two": np.float32(2), "e": np.float32(1e-10)},
    ),
]

MOVEMENTS = [
    Case("concat", [node("Sigmoid", "x", "s"), node("Concat", "x s", axis=1)]),
    Case("concat-last", [node("Sigmoid", "x", "s"), node("Concat", "x s x", axis=-1)]),
    Case(
        "concat-nhwc",
        [node("MaxPool", "x", "p", kernel_shape=[1, 1]), node("Concat", "p x", axis=1)],
    ),
    Case(
        "split",
        [node("Split", "x s", "a b", axis=1), node("Sigmoid", "b", "c")],
        {"s": ints(3, 4)},
        outputs="a c",
    ),
    Case("split-equal", [node("Split", "x", "a b c", axis=3)], outputs="b c a"),
    Case("split-18", [node("Split", "x", "a b", axis=1, num_outputs=2)], opset=18, outputs="a b"),
    *(
        Case(f"slice-{name}", [node("Slice", "x b e a s")], dict(zip("beas", values, strict=True)))
        for name, values in {
            "channels": (ints(1), ints(5), ints(1), ints(1)),
            "negative": (ints(-4), ints(-1), ints(2), ints(1)),
            "step": (ints(1), ints(100), ints(-1), ints(3)),
            "reverse": (ints(-1), ints(-100), ints(1), ints(-1)),
            "reverse-step": (ints(10), ints(1), ints(2), ints(-2)),
            "several": (ints(0, 1, 2), ints(7, 12, 8), ints(1, 2, 3), ints(2, 1, 3)),
        }.items()
    ),
    Case(
        "slice-focus",
        [node("Slice", "x b e a s")],
        {
            "b": ints(0, 1),
            "e": ints(2**63 - 1, 2**63 - 1),
            "a": ints(2, 3),
            "s": ints(2, 2),
        },
    ),
    *(
        Case(f"pad-{mode}", [node("Pad", "x p", mode=mode)], {"p": ints(0, 0, 1, 2, 0, 0, 3, 0)})
        for mode in ("constant", "reflect", "edge")
    ),
    Case(
        "pad-value",
        [node("Pad", "x p v")],
        {"p": ints(0, 1, 0, 0, 0, 2, 0, 0), "v": np.float32(1.5)},
    ),
    Case("pad-axes", [node("Pad", "x p - a")], {"p": ints(1, 2), "a": ints(-1)}, opset=18),
    Case(
        "pad-conv",
        [node("Pad", "x p", "q"), node("Conv", "q w")],
        {"p": ints(0, 0, 0, 0, 0, 0, 1, 1), "w": noise((3, 7, 3, 3))},
    ),
    Case("reshape", [node("Reshape", "x s")], {"s": ints(0, -1)}),
    Case("reshape-batch", [node("Reshape", "x s")], {"s": ints(-1, 7 * 13 * 9)}),
    Case("reshape-split", [node("Reshape", "x s")], {"s": ints(0, 7, 3, 3, 13)}),
    Case("flatten", [node("Flatten", "x")]),
    Case(
        "squeeze", [node("GlobalAveragePool", "x", "g"), node("Squeeze", "g a")], {"a": ints(2, 3)}
    ),
    Case("unsqueeze", [node("Unsqueeze", "x a")], {"a": ints(2, 3)}, (17,)),
    Case("transpose", [node("Transpose", "x", perm=[0, 3, 1, 2])]),
    Case(
        "transpose-conv",
        [
            node("Transpose", "x", "t", perm=[0, 3, 2, 1]),
            node("Conv", "t w", "c"),
            node("Transpose", "c", perm=[0, 2, 3, 1]),
        ],
        {"w": noise((5, 9, 1, 1))},
    ),
    Case(
        "channel-shuffle",
        [
            node("Reshape", "x s", "a"),
            node("Transpose", "a", "b", perm=[0, 2, 1, 3, 4]),
            node("Reshape", "b r"),
        ],
        {"s": ints(0, 2, 3, 5, 7), "r": ints(0, -1, 5, 7)},
        (6, 5, 7),
    ),
    Case("depth-to-space", [node("DepthToSpace", "x", blocksize=2)], {}, (12, 5, 3)),
    Case(
        "depth-to-space-crd", [node("DepthToSpace", "x", blocksize=2, mode="CRD")], {}, (12, 5, 3)
    ),
    *(
        Case(
            f"resize-{mode}-{coordinates}-{rounding}-{scale}",
            [
                node(
                    "Resize",
                    "x - s",
                    mode=mode,
                    coordinate_transformation_mode=coordinates,
                    **({"nearest_mode": rounding} if rounding else {}),
                )
            ],
            {"s": np.array([1, 1, *scale], np.float32)},
        )
        for mode, coordinates, rounding, scale in [
            ("nearest", "asymmetric", "floor", (2, 2)),
            ("nearest", "asymmetric", "ceil", (1.5, 2)),
            ("nearest", "half_pixel", None, (2, 3)),
            ("nearest", "half_pixel", "round_prefer_ceil", (0.6, 1.7)),
            ("nearest", "align_corners", "floor", (2, 2)),
            ("nearest", "pytorch_half_pixel", "ceil", (2, 0.5)),
            ("linear", "half_pixel", None, (2, 2)),
            ("linear", "asymmetric", None, (1.5, 2.25)),
            ("linear", "align_corners", None, (2, 3)),
            ("linear", "pytorch_half_pixel", None, (0.5, 0.3)),
        ]
    ),
    Case(
        "resize-sizes",
        [node("Resize", "x - - s", mode="linear")],
        {"s": ints(1, 7, 20, 11)},
    ),
    Case(
        "resize-18-axes",
        [node("Resize", "x - s", mode="nearest", axes=[2, 3])],
        {"s": np.array([2, 2], np.float32)},
        opset=18,
    ),
]

CASES = [
    *CONVOLUTIONS,
    *MATRICES,
    *AFFINE,
    *ACTIVATIONS,
    *ARITHMETIC,
    *POOLS,
    *REDUCTIONS,
    *MOVEMENTS,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_operation_equals_onnx_runtime(case: Case) -> None:
    fixed_batch = case.name in ("resize-sizes",)  # ONNX wants the batch in the sizes
    made = model(
        case.nodes,
        (1 if fixed_batch else "n", *case.shape),
        case.constants,
        case.opset,
        case.outputs,
    )
    graph = import_onnx(made)
    for batch in (1,) if fixed_batch else (1, 3):
        x = noise((batch, *case.shape), batch)
        expected = reference(made, x)
        assert_close(run(graph, x), expected)
        assert_close(run(optimize(graph), x), expected)


# What the graph looks like.


def test_batch_is_free_and_names_and_layout_stay() -> None:
    nodes = [node("Conv", "x w", "image", pads=[1, 1, 1, 1]), node("Flatten", "image", "flat")]
    graph = import_onnx(
        model(nodes, (1, 3, 5, 7), {"w": noise((4, 3, 3, 3))}, outputs="flat image")
    )
    assert graph.inputs == ["x"]
    assert graph.outputs == ["flat", "image"]
    assert graph.tensors["x"].shape == (-1, 3, 5, 7)  # the flattened size depends on the image's
    assert graph.metadata.input_size == (7, 5)
    flat, image = run(optimize(graph), noise((2, 3, 5, 7)))
    assert flat.shape == (2, 4 * 5 * 7)
    assert image.shape == (2, 4, 5, 7)


def test_fully_convolutional_network_takes_any_size() -> None:
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Transpose", "c", "t", perm=[0, 2, 3, 1]),
        node("Reshape", "t s", "r"),
        node("Sigmoid", "r"),
    ]
    made = model(nodes, ("n", 3, "h", "w"), {"w": noise((5, 3, 3, 3)), "s": ints(1, -1, 5)})
    graph = import_onnx(made, input_shape=(1, 3, 16, 16))
    assert graph.tensors["x"].shape == (-1, 3, -1, -1)
    x = noise((1, 3, 31, 17))
    assert_close(run(optimize(graph), x), reference(made, x))
    assert run(graph, noise((4, 3, 8, 8)))[0].shape == (4, 16, 5)


@pytest.mark.parametrize(
    ("tail", "constants"),
    [
        ([node("Conv", "x w", kernel_shape=[7, 7])], {"w": noise((5, 3, 7, 7))}),
        ([node("GlobalAveragePool", "x")], {}),
    ],
    ids=["window", "pool"],
)
def test_network_that_keeps_its_channels_at_other_sizes_is_size_free(tail, constants) -> None:
    graph = import_onnx(model(tail, (1, 3, 7, 7), constants))
    assert graph.tensors["x"].shape == (-1, 3, -1, -1)


@pytest.mark.parametrize(
    ("tail", "constants"),
    [
        (
            [node("Conv", "x w", "c"), node("Reshape", "c s")],
            {"w": noise((5, 3, 7, 7)), "s": ints(1, 5)},
        ),
        ([node("Flatten", "x", "f"), node("Gemm", "f w")], {"w": noise((147, 5))}),
        ([node("Add", "x c")], {"c": noise((7, 7))}),
        ([node("AveragePool", "x", "p", kernel_shape=[7, 7]), node("Mul", "x p")], {}),
        ([node("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER")], {}),
    ],
    ids=["embedding", "flatten", "plane", "window-gate", "auto-pad"],
)
def test_network_bound_to_its_size_keeps_it(tail, constants) -> None:
    graph = import_onnx(model(tail, (1, 3, 7, 7), constants))
    assert graph.tensors["x"].shape == (-1, 3, 7, 7)


def test_shape_computations_fold_and_stay_size_free() -> None:
    """Upsampling to the size of another branch, as exporters write it."""
    nodes = [
        node("MaxPool", "x", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Shape", "x", "s"),
        node("Slice", "s two four", "hw"),
        node("Shape", "p", "ps"),
        node("Slice", "ps zero two", "nc"),
        node("Concat", "nc hw", "size", axis=0),
        node("Resize", "p - - size", "u", mode="nearest", nearest_mode="floor"),
        node("Add", "x u"),
    ]
    constants = {"zero": ints(0), "two": ints(2), "four": ints(4)}
    made = model(nodes, ("n", 3, "h", "w"), constants)
    graph = import_onnx(made, input_shape=(1, 3, 8, 8))
    assert graph.tensors["x"].shape == (-1, 3, -1, -1)
    x = noise((3, 3, 12, 20))
    assert_close(run(optimize(graph), x), reference(made, x))


def test_blockwise_quantized_weights_fold_to_float() -> None:
    """Blocks of 4 along the input channels, listed as graph inputs too."""
    rng = np.random.default_rng(0)
    q = rng.integers(-128, 128, (5, 6)).astype(np.int8)
    scale = rng.uniform(0.01, 0.1, (5, 2)).astype(np.float32)
    zero = rng.integers(-8, 8, (5, 2)).astype(np.int8)
    nodes = [
        node("DequantizeLinear", "q scale zero", "flat", axis=1, block_size=4),
        node("Reshape", "flat shape", "w"),
        node("Conv", "x w"),
    ]
    constants = {"q": q, "scale": scale, "zero": zero, "shape": ints(5, 6, 1, 1)}
    made = model(nodes, ("n", 6, 5, 5), constants, opset=21)
    for name in ("q", "scale"):
        made.graph.input.append(
            onnx.helper.make_tensor_value_info(name, 3 if name == "q" else 1, None)
        )
    weight = np.empty((5, 6), np.float32)
    for row, column in np.ndindex(5, 6):
        block = column // 4
        weight[row, column] = (int(q[row, column]) - int(zero[row, block])) * scale[row, block]
    graph = import_onnx(made)
    (conv,) = [n for n in graph.nodes if n.op == "conv"]
    np.testing.assert_array_equal(graph.constant(conv.input(1)), weight.reshape(5, 1, 1, 6))


@pytest.mark.parametrize("axis", [0, 1, -2])
def test_per_axis_quantized_weights_fold_to_float(axis: int) -> None:
    q = np.arange(-6, 6, dtype=np.int8).reshape(4, 3)
    scale = np.linspace(0.1, 0.4, q.shape[axis], dtype=np.float32)
    nodes = [node("DequantizeLinear", "q scale", "w", axis=axis), node("MatMul", "x w")]
    made = model(nodes, ("n", 4), {"q": q, "scale": scale})
    x = noise((3, 4))
    assert_close(run(import_onnx(made), x), reference(made, x))


def test_half_precision_weights_compute_in_float() -> None:
    nodes = [node("Cast", "w", "wide", to=1), node("MatMul", "x wide")]
    made = model(nodes, ("n", 4), {"w": noise((4, 3)).astype(np.float16)})
    x = noise((2, 4))
    assert_close(run(import_onnx(made), x), reference(made, x))


def test_several_inputs() -> None:
    made = model([node("Add", "x z")], ("n", 3, 4, 5), {})
    made.graph.input.append(onnx.helper.make_tensor_value_info("z", 1, ["n", 3, 1, 1]))
    graph = optimize(import_onnx(made))
    assert graph.inputs == ["x", "z"]
    x, z = noise((2, 3, 4, 5)), noise((2, 3, 1, 1), 1)
    (y,) = pyedge.Session(native.write(graph)).run([x, z])
    np.testing.assert_array_equal(y, x + z)
