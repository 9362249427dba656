"""After every pass a graph computes the same function; and each pass does what it is for."""

from __future__ import annotations

from collections import Counter

import models
import numpy as np
import onnx
import pytest
import torch
from parity import assert_close, model, node, noise, reference, run
from torch import nn

import pyedge
from pyedge.converters import ir, native
from pyedge.converters.onnx_import import import_onnx
from pyedge.converters.passes import (
    PASSES,
    fold_batch_norm,
    fold_transpose,
    fuse_activation,
    fuse_residual,
    globalize_pooling,
    optimize,
    remove_dead,
    remove_identities,
)
from pyedge.converters.shapes import infer_shapes
from pyedge.trainer import backbones


def ops(graph: ir.Graph) -> Counter[str]:
    return Counter(n.op for n in graph.nodes)


def imported(nodes, shape, constants=None, **options) -> tuple[onnx.ModelProto, ir.Graph]:
    made = model(nodes, shape, constants, **options)
    return made, import_onnx(made)


def check(made: onnx.ModelProto, graph: ir.Graph, shape: tuple[int, ...]) -> None:
    x = noise(shape)
    assert_close(run(graph, x), reference(made, x))


def batch_norm(x: str, y: str, prefix: str = "") -> onnx.NodeProto:
    names = " ".join(f"{prefix}{n}" for n in ("gamma", "beta", "mean", "variance"))
    return node("BatchNormalization", f"{x} {names}", y)


def statistics(channels: int, prefix: str = "") -> dict[str, np.ndarray]:
    return {
        f"{prefix}gamma": noise((channels,), 1),
        f"{prefix}beta": noise((channels,), 2),
        f"{prefix}mean": noise((channels,), 3),
        f"{prefix}variance": np.abs(noise((channels,), 4)) + 0.3,
    }


class SmallNet(nn.Module):
    """A bit of everything that the passes look for."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = backbones.ConvBlock(3, 16, 3, 2, 1)
        self.blocks = nn.Sequential(
            backbones.Bottleneck(16, 32, 16, 1),
            backbones.IResNetBlock(16, 24, 2),
            backbones.IResNetBlock(24, 24, 1),
        )
        self.up = nn.ConvTranspose2d(24, 16, 2, 2)
        self.norm = nn.BatchNorm2d(16)
        self.gate = nn.Sequential(nn.AvgPool2d(8), nn.Conv2d(16, 16, 1), nn.Hardswish())
        self.last = nn.BatchNorm2d(16)
        self.fc = nn.Linear(16 * 64, 10)
        self.features = nn.BatchNorm1d(10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.relu(self.norm(self.up(self.blocks(x))) + x)
        x = self.last(torch.clamp(x, 0, 6) * self.gate(x))
        return nn.functional.normalize(self.features(self.fc(x.flatten(1))))


@pytest.fixture(scope="module")
def small_net() -> onnx.ModelProto:
    return models.export(models.randomize(SmallNet()), (1, 3, 16, 16))


def test_every_pass_keeps_the_function(small_net: onnx.ModelProto) -> None:
    graph = import_onnx(small_net)
    x = noise((1, 3, 16, 16))
    expected = reference(small_net, x)
    assert_close(run(graph, x), expected)
    for run_pass in PASSES:
        before = graph.copy()
        graph = run_pass(graph)
        assert_close(run(graph, x), expected)
        assert_close(run(before, x), expected)  # the argument is as it was
        assert set(graph.outputs) == set(before.outputs)
    twice = [run(graph, np.concatenate([x, -x]))[0][i : i + 1] for i in range(2)]
    assert_close(twice, [expected[0], run(graph, -x)[0]])


@pytest.mark.parametrize("run_pass", [*dict.fromkeys(PASSES), optimize], ids=lambda f: f.__name__)
def test_passes_alone_and_twice(small_net: onnx.ModelProto, run_pass) -> None:
    graph = import_onnx(small_net)
    x = noise((1, 3, 16, 16))
    once = run_pass(graph)
    assert_close(run(once, x), reference(small_net, x))
    assert ops(run_pass(once)) == ops(once)


def test_what_is_left_of_a_small_network(small_net: onnx.ModelProto) -> None:
    graph = optimize(import_onnx(small_net))
    found = ops(graph)
    # Only the two BatchNorms in front of padded convolutions stay; that behind the gate goes into
    # the fully connected layer, through its flatten.
    affine = [
        n
        for n in graph.nodes
        if n.op == "conv" and (graph.constant(n.input(1)).shape[1:] == (1, 1, 1))
    ]
    assert len(affine) == 2
    assert found["prelu"] == 0
    assert found["clip"] == 1  # its input is read by the gate too
    assert found["l2_normalize"] == 1
    assert [n.activation for n in graph.nodes if n.activation != "none"] == ["hard_swish"]
    assert found["transpose"] == 1
    assert sum(n.input(5) is not None for n in graph.nodes) == 3
    assert all(n.attrs["global"] for n in graph.nodes if n.op == "average_pool")


def test_shapes_are_those_of_the_core(small_net: onnx.ModelProto) -> None:
    graph = import_onnx(small_net)
    shapes = infer_shapes(graph, {"input": (2, 3, 16, 16)})
    taps = pyedge.Session(native.write(graph)).run_taps(noise((2, 3, 16, 16)))
    assert {name: tap.shape for name, tap in taps.items()}.items() <= shapes.items()


# BatchNorm.


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 3, 6])
def test_batch_norm_folds_into_the_convolution_before(kind: str, bias: bool, groups: int) -> None:
    weight = noise((6, 6 // groups, 3, 3))
    constants = {"w": weight, "b": noise((6,), 9), **statistics(6)}
    nodes = [
        node(kind, f"x w{' b' if bias else ''}", "c", group=groups, strides=[2, 2]),
        batch_norm("c", "y"),
    ]
    made, graph = imported(nodes, ("n", 6, 7, 9), constants)
    folded = fold_batch_norm(graph)
    assert len(folded.nodes) == len(graph.nodes) - 1
    check(made, folded, (2, 6, 7, 9))


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize(
    ("shift", "padding", "folds"),
    [(True, 0, True), (True, 1, False), (False, 1, True)],
    ids=["unpadded", "padded", "scale-padded"],
)
def test_batch_norm_folds_into_the_convolution_behind(
    groups: int, shift: bool, padding: int, folds: bool
) -> None:
    constants = {"w": noise((6, 6 // groups, 3, 3)), **statistics(6)}
    if not shift:
        constants["beta"] = constants["mean"] = np.zeros(6, np.float32)
    nodes = [
        batch_norm("x", "n"),
        node("Conv", "n w", group=groups, pads=[padding] * 4),
    ]
    made, graph = imported(nodes, ("n", 6, 7, 9), constants)
    folded = fold_batch_norm(graph)
    assert ops(folded)["conv"] == (1 if folds else 2)
    check(made, folded, (2, 6, 7, 9))


def test_batch_norm_with_two_readers_folds_into_both_or_stays() -> None:
    constants = {"w": noise((5, 4, 1, 1)), "v": noise((3, 4, 3, 3)), **statistics(4)}
    for pads, left in ((0, 2), (1, 3)):
        nodes = [
            batch_norm("x", "n"),
            node("Conv", "n w", "a"),
            node("Conv", "n v", "b", pads=[pads] * 4),
        ]
        made, graph = imported(nodes, ("n", 4, 7, 9), constants, outputs="a b")
        folded = fold_batch_norm(graph)
        assert ops(folded)["conv"] == left
        check(made, folded, (2, 4, 7, 9))


def test_convolution_with_another_reader_keeps_its_weight() -> None:
    constants = {"w": noise((4, 4, 1, 1)), **statistics(4)}
    nodes = [node("Conv", "x w", "c"), batch_norm("c", "n"), node("Add", "c n")]
    made, graph = imported(nodes, ("n", 4, 5, 5), constants)
    folded = fold_batch_norm(graph)
    assert ops(folded)["conv"] == 2
    check(made, folded, (2, 4, 5, 5))


def test_batch_norm_folds_through_flatten_and_behind_fully_connected() -> None:
    """The head of IResNet: BN, flatten, fully connected, BN."""
    constants = {"w": noise((7, 4 * 3 * 5)), **statistics(4), **statistics(7, "f_")}
    nodes = [
        node("Relu", "x", "r"),
        batch_norm("r", "n"),
        node("Flatten", "n", "f"),
        node("Gemm", "f w", "g", transB=1),
        batch_norm("g", "y", "f_"),
    ]
    made, graph = imported(nodes, ("n", 4, 3, 5), constants)
    graph = optimize(graph)
    assert ops(graph) == {"transpose": 1, "clip": 1, "reshape": 1, "fully_connected": 1}
    check(made, graph, (3, 4, 3, 5))


def test_preprocessing_folds_into_one_affine_and_an_unpadded_convolution() -> None:
    constants = {
        "m": np.float32(127.5),
        "s": np.array([0.01, 0.02, 0.03], np.float32).reshape(3, 1, 1),
        "w": noise((4, 3, 3, 3)),
    }
    for pads, left in ((0, 1), (1, 2)):
        nodes = [
            node("Sub", "x m", "a"),
            node("Mul", "a s", "b"),
            node("Conv", "b w", pads=[pads] * 4),
        ]
        made, graph = imported(nodes, ("n", 3, 8, 8), constants)
        graph = fold_batch_norm(graph)
        assert ops(graph)["conv"] == left
        check(made, graph, (2, 3, 8, 8))


# Activations.


def test_clip_and_prelu_fuse_in_their_order() -> None:
    constants = {"w": noise((4, 3, 3, 3)), "s": noise((4, 1, 1)), "six": np.float32(0.6)}
    first = [node("Conv", "x w", "c"), node("PRelu", "c s", "p"), node("Clip", "p - six")]
    made, graph = imported(first, ("n", 3, 8, 8), constants)
    fused = fuse_activation(graph)
    assert ops(fused) == {"transpose": 2, "conv": 1}
    check(made, fused, (2, 3, 8, 8))
    second = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("PRelu", "r s")]
    made, graph = imported(second, ("n", 3, 8, 8), constants)
    fused = fuse_activation(graph)
    assert ops(fused) == {"transpose": 2, "conv": 1, "prelu": 1}
    check(made, fused, (2, 3, 8, 8))


HARD_SWISH = {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)}
HARD_SIGMOID = {"alpha": 1 / 6, "beta": 0.5}


@pytest.mark.parametrize("kind", ["Conv", "Gemm"])
@pytest.mark.parametrize(
    ("activation", "nodes"),
    [
        ("sigmoid", [node("Sigmoid", "c")]),
        ("hard_sigmoid", [node("HardSigmoid", "c", **HARD_SIGMOID)]),
        ("hard_swish", [node("HardSwish", "c")]),
        ("hard_swish", [node("HardSigmoid", "c", "g", **HARD_SIGMOID), node("Mul", "c g")]),
        (
            "hard_swish",
            [
                node("Add", "c three", "a"),
                node("Clip", "a zero six", "k"),
                node("Mul", "c k", "m"),
                node("Div", "m six"),
            ],
        ),
        ("swish", [node("Sigmoid", "c", "s"), node("Mul", "c s")]),
        ("swish", [node("Sigmoid", "c", "s"), node("Mul", "s c")]),
    ],
)
def test_sigmoids_and_swishes_fuse(kind: str, activation: str, nodes: list) -> None:
    shape = (5, 7, 9) if kind == "Conv" else (5,)
    constants = {"w": noise((4, 5, 3, 3)) if kind == "Conv" else noise((5, 4)), **HARD_SWISH}
    first = node(kind, "x w", "c")
    made, graph = imported([first, *nodes], ("n", *shape), constants, opset=14)
    fused = fuse_activation(graph)
    layers = [n for n in fused.nodes if n.op != "transpose"]
    assert [n.activation for n in layers] == [activation]
    check(made, fused, (2, *shape))
    # A clip behind it fuses too; before it, or behind a residual, the activation stays.
    last = nodes[-1]
    inner = node(last.op_type, " ".join(last.input), "t")
    inner.attribute.extend(last.attribute)
    clip = node("Clip", "t zero six")
    made, graph = imported([first, *nodes[:-1], inner, clip], ("n", *shape), constants, opset=14)
    fused = fuse_activation(graph)
    assert len([n for n in fused.nodes if n.op != "transpose"]) == 1
    check(made, fused, (2, *shape))
    before = [node(kind, "x w", "r"), node("Relu", "r", "c")]
    made, graph = imported([*before, *nodes], ("n", *shape), constants, opset=14)
    fused = optimize(graph)
    assert all(n.activation == "none" for n in fused.nodes)
    check(made, fused, (2, *shape))


def test_activations_that_do_not_fuse() -> None:
    weight = {"w": noise((4, 4, 3, 3))}
    conv = node("Conv", "x w", "c", pads=[1, 1, 1, 1])
    for nodes, outputs in (
        ([conv, node("HardSigmoid", "c")], "y"),  # that of alpha 0.2
        ([conv, node("Add", "c x", "a"), node("HardSwish", "a")], "y"),
        ([conv, node("HardSwish", "c")], "y c"),
        ([conv, node("Sigmoid", "c", "s"), node("Mul", "c s")], "y s"),
        ([conv, node("Sigmoid", "c", "s"), node("Mul", "c s", "m"), node("Add", "m c")], "y"),
    ):
        made, graph = imported(nodes, ("n", 4, 7, 9), weight, opset=14, outputs=outputs)
        fused = optimize(graph)
        assert all(n.activation == "none" for n in fused.nodes)
        check(made, fused, (2, 4, 7, 9))


@pytest.mark.parametrize("slot", [4, 5])
def test_an_activation_beside_a_slope_or_a_residual_is_not_a_model(slot: int) -> None:
    graph = ir.Graph(inputs=["x"], outputs=["y"])
    graph.tensors["x"] = ir.Tensor("x", "f32", (-1, 4))
    graph.add_value("y")
    inputs = ["x", graph.add_constant("w", np.eye(4))]
    attrs = {"act_min": -np.inf, "act_max": np.inf, "activation": 3}
    layer = ir.Node("fully_connected", "layer", inputs, ["y"], attrs)
    graph.nodes = [layer]
    x = np.float32([[-4, -1, 1, 4]])
    np.testing.assert_allclose(run(graph, x)[0], x * np.clip(x / 6 + 0.5, 0, 1), rtol=1e-6)
    layer.set_input(slot, graph.add_constant("s", np.ones(4)) if slot == 4 else "x")
    with pytest.raises(pyedge.InvalidModelError, match=r"layer.*activation"):
        run(graph, x)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Clip"])
def test_clips_fuse_where_their_bounds_overlap(op: str) -> None:
    constants = {"a": np.float32(-0.5), "b": np.float32(0.5), "c": np.float32(2)}
    start = node("Clip", "x a c", "m") if op == "Clip" else node(op, "x s", "m")
    chain = [node("Clip", "m a b", "k"), node("Clip", "k b c")]
    made, graph = imported([node("Sigmoid", "x", "s"), start, *chain], ("n", 3, 8, 8), constants)
    fused = fuse_activation(graph)
    assert ops(fused)["clip"] == (1 if op == "Clip" else 0)
    check(made, fused, (2, 3, 8, 8))
    # [-0.5, 0.5] and [2, 2] do not overlap: a clip of a clip to one number stays.
    chain = [node("Clip", "m a b", "k"), node("Clip", "k c -")]
    made, graph = imported([node("Sigmoid", "x", "s"), start, *chain], ("n", 3, 8, 8), constants)
    check(made, fuse_activation(graph), (2, 3, 8, 8))


def test_output_of_the_graph_is_not_fused_away() -> None:
    nodes = [node("Gemm", "x w", "g"), node("Relu", "g")]
    made, graph = imported(nodes, ("n", 8), {"w": noise((8, 4))}, outputs="g y")
    fused = fuse_activation(graph)
    assert ops(fused) == {"fully_connected": 1, "clip": 1}
    check(made, fused, (3, 8))


# Residuals.


def residual(graph: ir.Graph) -> list[str | None]:
    return [n.input(5) for n in graph.nodes if n.input(5) is not None]


def test_residual_of_an_earlier_and_of_a_later_value() -> None:
    """In the second graph the other operand is computed behind the convolution."""
    constants = {"w": noise((4, 4, 3, 3)), "s": noise((4, 1, 1))}
    conv = node("Conv", "x w", "c", pads=[1, 1, 1, 1])
    tail = [node("Relu", "a", "r"), node("PRelu", "r s")]
    for nodes in (
        [node("Sigmoid", "x", "t"), conv, node("Add", "t c", "a"), *tail],
        [conv, node("Sigmoid", "x", "t"), node("Add", "c t", "a"), *tail],
    ):
        made, graph = imported(nodes, ("n", 4, 8, 8), constants)
        fused = fuse_activation(fuse_residual(fuse_activation(graph)))
        assert ops(fused)["add"] == 0
        assert len(residual(fused)) == 1
        check(made, fused, (2, 4, 8, 8))


def test_residual_of_two_convolutions_goes_into_the_later() -> None:
    constants = {"w": noise((4, 4, 1, 1)), "v": noise((4, 4, 1, 1), 5)}
    nodes = [node("Conv", "x w", "a"), node("Conv", "x v", "b"), node("Add", "a b")]
    made, graph = imported(nodes, ("n", 4, 8, 8), constants)
    fused = fuse_residual(graph)
    assert residual(fused) == ["a"]
    check(made, fused, (2, 4, 8, 8))


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Conv", "x w", "c"), node("GlobalAveragePool", "x", "g"), node("Add", "c g")],
        [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Add", "r x")],
        [node("Conv", "x w", "c"), node("Add", "c c")],
        [node("Conv", "x w", "c"), node("Add", "c x", "a"), node("Mul", "a c")],
    ],
    ids=["broadcast", "activation-between", "same-twice", "two-readers"],
)
def test_residual_that_must_not_fuse(nodes: list[onnx.NodeProto]) -> None:
    made, graph = imported(nodes, ("n", 4, 8, 8), {"w": noise((4, 4, 1, 1))})
    fused = fuse_residual(fuse_activation(graph))
    assert residual(fused) == []
    check(made, fused, (2, 4, 8, 8))


def test_residual_chain_of_fully_connected() -> None:
    nodes = [
        node("Gemm", "x w", "a"),
        node("Add", "a x", "b"),
        node("Gemm", "b w", "c"),
        node("Add", "b c"),
    ]
    made, graph = imported(nodes, ("n", 8), {"w": noise((8, 8)) / 3})
    fused = fuse_residual(graph)
    assert ops(fused) == {"fully_connected": 2}
    check(made, fused, (3, 8))


# Movements.


def test_transposes_cancel_and_reshapes_merge() -> None:
    nodes = [
        node("Relu", "x", "r"),
        node("Transpose", "r", "a", perm=[0, 2, 3, 1]),
        node("Transpose", "a", "b", perm=[0, 3, 1, 2]),
        node("GlobalAveragePool", "b", "g"),
        node("Flatten", "g", "f"),
        node("Reshape", "f s"),
    ]
    made, graph = imported(nodes, ("n", 6, 5, 4), {"s": np.array([0, 2, 3])})
    cleaned = remove_identities(graph)
    assert ops(cleaned)["reshape"] == 1
    assert ops(cleaned)["transpose"] <= 1
    check(made, cleaned, (2, 6, 5, 4))


def test_outputs_keep_their_names_where_everything_else_cancels() -> None:
    nodes = [node("Identity", "x", "a"), node("Dropout", "x", "b"), node("Relu", "x", "c")]
    made, graph = imported(nodes, ("n", 3, 4, 5), outputs="a b c")
    cleaned = optimize(graph)
    assert cleaned.outputs == ["a", "b", "c"]
    check(made, cleaned, (2, 3, 4, 5))


def test_flattened_image_reaches_the_fully_connected_layer_untransposed() -> None:
    nodes = [node("Relu", "x", "r"), node("MaxPool", "r", "p", kernel_shape=[2, 2])]
    nodes += [node("Flatten", "p", "f"), node("Gemm", "f w")]
    made, graph = imported(nodes, ("n", 5, 4, 6), {"w": noise((5 * 3 * 5, 7))})
    folded = fold_transpose(remove_identities(graph))
    assert ops(folded)["transpose"] == 1  # that of the input
    check(made, folded, (2, 5, 4, 6))


def test_pool_over_the_plane_becomes_global_only_where_the_size_is_fixed() -> None:
    nodes = [node("AveragePool", "x", "p", kernel_shape=[8, 8])]
    _, free = imported([*nodes, node("Relu", "p")], ("n", 4, 8, 8))
    assert not [n for n in globalize_pooling(free).nodes if n.attrs.get("global")]
    nodes += [node("Flatten", "p", "f"), node("Gemm", "f w")]
    made, graph = imported(nodes, ("n", 4, 8, 8), {"w": noise((4, 3))})
    pooled = globalize_pooling(graph)
    assert [n.attrs["global"] for n in pooled.nodes if n.op == "average_pool"] == [1]
    check(made, pooled, (2, 4, 8, 8))


def test_dead_nodes_and_constants_go() -> None:
    _, graph = imported(
        [node("Gemm", "x w", "g"), node("Relu", "x")], ("n", 8), {"w": noise((8, 4))}
    )
    output = graph.add_value("dead")
    weight = graph.add_constant("unread", noise((4, 8)))
    attrs = {"act_min": -np.inf, "act_max": np.inf}
    graph.nodes.append(ir.Node("fully_connected", "dead", ["x", weight], [output], attrs))
    clean = remove_dead(graph)
    assert ops(clean) == {"clip": 1}
    assert set(clean.tensors) == {"x", "y"}
