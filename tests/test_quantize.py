"""From a fused graph and a table to an INT8 graph."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import models
import numpy as np
import onnx
import parity
import pytest
from torch import nn

from pyedge import CalibrationError, Session
from pyedge.calibration import (
    CalibrationOptions,
    CalibrationTable,
    calibrate,
    layer_sensitivity,
    mixed_precision,
    prepare,
    quantize,
)
from pyedge.calibration.bias_correction import corrected_bias
from pyedge.calibration.fold_conversions import fold_conversions
from pyedge.calibration.placement import MAX_ACCUMULATED, never_negative, place
from pyedge.calibration.quantizer import (
    QuantParams,
    asymmetric_params,
    build_int8,
    quantize_weight,
)
from pyedge.calibration.sensitivity import cosines, output_cosines, outputs
from pyedge.converters import native
from pyedge.converters.ir import Graph
from pyedge.converters.onnx_import import import_onnx
from pyedge.converters.passes import optimize

SHA = "0" * 64
RNG = np.random.default_rng


def fused(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], side: int = 8) -> Graph:
    made = parity.model(nodes, [1, 3, side, side], constants)
    return optimize(import_onnx(made))


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    fan_in = max(1, int(np.prod(shape[1:])))
    return (RNG(seed).normal(size=shape) / np.sqrt(fan_in)).astype(np.float32)


def images(count: int = 16, side: int = 8) -> np.ndarray:
    return RNG(9).normal(size=(count, 3, side, side)).astype(np.float32)


def residual_network() -> Graph:
    """Convolution, depthwise, residual add, gate, pooling, resize, concat, and a vector."""
    constants = {
        "w1": normal(8, 3, 3, 3, seed=1),
        "b1": normal(8, seed=2),
        "s1": RNG(3).uniform(-0.5, 1.5, (8, 1, 1)).astype(np.float32),
        "w2": normal(8, 1, 3, 3, seed=4),
        "w3": normal(8, 8, 1, 1, seed=5),
        "wg1": normal(4, 8, 1, 1, seed=6),
        "wg2": normal(8, 4, 1, 1, seed=7),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "w4": normal(6, 16, 3, 3, seed=8),
        "w5": normal(5, 6, 1, 1, seed=9),
    }
    node = parity.node
    nodes = [
        node("Conv", "x w1 b1", "c1", pads=[1, 1, 1, 1]),
        node("PRelu", "c1 s1", "p1"),
        node("Conv", "p1 w2", "c2", pads=[1, 1, 1, 1], group=8),
        node("Relu", "c2", "r2"),
        node("Conv", "r2 w3", "c3"),
        node("Add", "c3 p1", "sum"),
        node("GlobalAveragePool", "sum", "pool"),
        node("Conv", "pool wg1", "g1"),
        node("Relu", "g1", "g1r"),
        node("Conv", "g1r wg2", "g2"),
        node("Sigmoid", "g2", "gate"),
        node("Mul", "sum gate", "gated"),
        node("MaxPool", "gated", "small", kernel_shape=[2, 2], strides=[2, 2]),
        node("Resize", "small - scales", "large", mode="nearest"),
        node("Concat", "large gated", "joined", axis=1),
        node("Conv", "joined w4", "c4", pads=[1, 1, 1, 1]),
        node("Relu", "c4", "r4"),
        node("Conv", "r4 w5", "y"),
    ]
    return fused(nodes, constants)


def quantized(graph: Graph, **options: object) -> tuple[Graph, CalibrationTable]:
    table = calibrate(graph, [images()], SHA, CalibrationOptions(**options))  # type: ignore[arg-type]
    return quantize(graph, table), table


def assert_valid(graph: Graph) -> None:
    """What the runtime asks of an INT8 graph, and that no conversion undoes another."""
    Session(native.write(graph))
    producers = {name: node for node in graph.nodes for name in node.outputs}
    for node in graph.nodes:
        if node.op not in ("quantize", "dequantize"):
            continue
        source = producers.get(node.inputs[0] or "")
        assert source is None or source.op not in ("quantize", "dequantize")
        assert graph.consumers(node.outputs[0]) or node.outputs[0] in graph.outputs


def test_conversions_beside_sums_and_products_are_folded_without_changing_a_byte() -> None:
    prepared = residual_network()
    _, table = quantized(prepared)
    placement = place(prepared, int8_sums=False)
    params = {name: QuantParams(t.scale, t.zero_point) for name, t in table.tensors.items()}
    separate = build_int8(prepare(prepared, table).graph, placement, params)
    folded = fold_conversions(separate)
    assert_valid(folded)
    conversions = [
        sum(node.op in ("quantize", "dequantize") for node in g.nodes) for g in (separate, folded)
    ]
    assert conversions[1] < conversions[0]
    assert any(
        len({folded.tensors[name].dtype for name in (*node.inputs, *node.outputs) if name}) == 2
        for node in folded.nodes
        if node.op == "mul"
    )
    x = images(3)
    for want, got in zip(
        Session(native.write(separate)).run(x), Session(native.write(folded)).run(x), strict=True
    ):
        assert want.tobytes() == got.tobytes()


@pytest.mark.parametrize(
    ("activation", "swish", "gate"),
    [(nn.Hardswish(), "hard_swish", "hard_sigmoid"), (nn.SiLU(), "swish", "sigmoid")],
)
def test_a_network_of_gates_has_no_steps_for_its_activations(
    activation: nn.Module, swish: str, gate: str
) -> None:
    net = models.randomize(models.MobileNetV3(activation, ((16, 2), (24, 2)), size=32))
    graph = optimize(import_onnx(models.export(net, (1, 3, 32, 32), opset=14)))
    x = np.concatenate([RNG(seed).normal(size=(4, 3, 32, 32)) for seed in (1, 2)]).astype("f4")
    table = calibrate(graph, [x], SHA)
    int8 = quantize(graph, CalibrationTable.from_json(table.to_json()))
    assert_valid(int8)
    steps = ("transpose", "quantize", "conv", "average_pool", "mul", "reshape")
    assert {n.op for n in int8.nodes} == {*steps}
    activations = Counter(n.activation for n in int8.nodes)
    assert activations == {swish: 10, gate: 4, "none": len(int8.nodes) - 14}
    assert output_cosines(outputs(graph, [x]), outputs(int8, [x])).min() > 0.99
    session = {isa: Session(native.write(int8), isa=isa) for isa in ("reference", None)}
    assert session["reference"].run(x)[0].tobytes() == session[None].run(x)[0].tobytes()


class TestWeights:
    def test_each_channel_has_its_own_scale(self) -> None:
        weight = normal(4, 3, 3, 2) * np.array([1, 1e-3, 1e3, 1], np.float32).reshape(4, 1, 1, 1)
        q, scale = quantize_weight(weight)
        assert (np.abs(q).reshape(4, -1).max(axis=1) == 127).all()
        error = np.abs(q * scale.reshape(4, 1, 1, 1) - weight).reshape(4, -1).max(axis=1)
        assert (error <= scale / 2 * 1.0001).all()

    def test_channels_of_zeros(self) -> None:
        weight = normal(3, 1, 1, 2)
        weight[1] = 0
        q, scale = quantize_weight(weight)
        assert not q[1].any()
        assert scale[1] == 1.0
        assert np.isfinite(scale).all()

    def test_denormal_channels(self) -> None:
        q, scale = quantize_weight(np.full((1, 1, 1, 1), 1e-44, np.float32))
        assert q.ravel().tolist() == [0]
        assert scale.tolist() == [1.0]

    @pytest.mark.parametrize("groups", [1, 2, 6])
    def test_bias_correction_keeps_the_mean(self, groups: int) -> None:
        weight = normal(6, 3, 3, 6 // groups)
        q, scale = quantize_weight(weight)
        mean = RNG(0).normal(size=6) + 3
        corrected = corrected_bias(weight, q, scale, None, mean, groups)

        def output(weights: np.ndarray) -> np.ndarray:
            taps = weights.astype(np.float64).reshape(groups, 6 // groups, 9, 6 // groups)
            return np.einsum("goti,gi->go", taps, mean.reshape(groups, -1)).ravel()

        restored = q * scale.astype(np.float64).reshape(6, 1, 1, 1)
        np.testing.assert_allclose(output(restored) + corrected, output(weight), atol=1e-6)


class TestPlacement:
    def test_everything_between_the_first_and_last_layer_runs_in_int8(self) -> None:
        graph = residual_network()
        int8, _ = quantized(graph, int8_sums=True)
        assert_valid(int8)
        ops = [node.op for node in int8.nodes]
        assert ops.count("quantize") == 1
        assert ops.count("dequantize") == 0
        inner = [n for n in int8.nodes if n.op not in ("transpose", "quantize")]
        last = inner[-1]
        assert all(int8.tensors[n.outputs[0]].dtype == "i8" for n in inner[:-1])
        assert last.op == "conv"
        assert int8.tensors[last.outputs[0]].dtype == "f32"

    def test_the_input_is_quantized_before_it_is_transposed(self) -> None:
        graph = residual_network()
        int8, _ = quantized(graph)
        first, second = int8.nodes[:2]
        assert (first.op, second.op) == ("quantize", "transpose")
        before, after = int8.tensors[first.outputs[0]], int8.tensors[second.outputs[0]]
        assert (after.dtype, after.scale, after.zero_point) == (
            "i8",
            before.scale,
            before.zero_point,
        )

    def test_sums_and_products_that_no_layer_absorbs_stay_in_float32(self) -> None:
        int8, _ = quantized(residual_network())
        assert_valid(int8)
        types = {(n.op, int8.tensors[n.outputs[0]].dtype) for n in int8.nodes}
        assert ("mul", "f32") in types
        assert ("mul", "i8") not in types
        convolutions = [n for n in int8.nodes if n.op == "conv"]
        assert all(int8.tensors[n.inputs[0] or ""].dtype == "i8" for n in convolutions)

    @pytest.mark.parametrize("int8_sums", [False, True])
    def test_it_computes_the_same_function(self, int8_sums: bool) -> None:
        graph = residual_network()
        int8, _ = quantized(graph, int8_sums=int8_sums)
        found = output_cosines(outputs(graph, [images()]), outputs(int8, [images()]))
        assert found.min() > 0.995

    def test_movement_shares_parameters(self) -> None:
        int8, _ = quantized(residual_network())
        for node in int8.nodes:
            if node.op in ("max_pool", "resize"):
                x, y = (int8.tensors[name or ""] for name in (node.inputs[0], node.outputs[0]))
                assert (x.scale, x.zero_point) == (y.scale, y.zero_point)

    def test_never_negative_values_use_the_full_range(self) -> None:
        int8, table = quantized(residual_network(), int8_sums=True)
        unsigned = {name for name, tensor in table.tensors.items() if tensor.zero_point == -128}
        assert unsigned <= never_negative(residual_network())
        gates = [n.outputs[0] for n in int8.nodes if n.op == "sigmoid"]
        assert set(gates) <= unsigned
        assert any(n.op == "conv" and n.outputs[0] in unsigned for n in int8.nodes)

    def test_a_slope_that_is_never_positive_gives_no_negative_value(self) -> None:
        constants = {
            "w": normal(4, 3, 1, 1),
            "s": np.array([0, -0.5, -1, -2], np.float32).reshape(4, 1, 1),
            "v": normal(2, 4, 1, 1),
        }
        nodes = [
            parity.node("Conv", "x w", "a"),
            parity.node("PRelu", "a s", "b"),
            parity.node("Conv", "b v", "y"),
        ]
        graph = fused(nodes, constants)
        int8, table = quantized(graph)
        assert [t.zero_point for name, t in table.tensors.items() if name not in graph.inputs] == [
            -128
        ]
        assert_valid(int8)

    def test_layers_left_in_float32(self) -> None:
        graph = residual_network()
        _, table = quantized(graph)
        layers = [n.outputs[0] for n in graph.nodes if n.op == "conv"]
        for layer in layers:
            mixed = quantize(graph, table, fp32_layers=[layer])
            assert_valid(mixed)
            (weight,) = [n.inputs[1] for n in mixed.nodes if layer in n.outputs]
            assert mixed.tensors[weight or ""].dtype == "f32"
        everything = quantize(graph, table, fp32_layers=layers)
        assert not [n for n in everything.nodes if n.op in ("quantize", "dequantize")]

    def test_sums_too_long_for_32_bits_stay_in_float32(self) -> None:
        channels = MAX_ACCUMULATED // 9 + 1
        constants = {"w": np.ones((2, channels, 3, 3), np.float32)}
        made = parity.model([parity.node("Conv", "x w", "y")], [1, channels, 3, 3], constants)
        assert not place(optimize(import_onnx(made))).int8

    def test_an_output_that_is_read_on(self) -> None:
        nodes = [
            parity.node("Conv", "x w", "a"),
            parity.node("Relu", "a", "b"),
            parity.node("MaxPool", "b", "c", kernel_shape=[2, 2], strides=[2, 2]),
            parity.node("Conv", "c v", "y"),
        ]
        constants = {"w": normal(4, 3, 1, 1), "v": normal(2, 4, 1, 1)}
        graph = optimize(import_onnx(parity.model(nodes, [1, 3, 8, 8], constants, outputs="y b c")))
        int8, _ = quantized(graph)
        assert_valid(int8)
        assert int8.outputs == graph.outputs
        for true, rounded in zip(
            parity.run(graph, images()), parity.run(int8, images()), strict=True
        ):
            assert cosines(true, rounded).min() > 0.99

    def test_a_last_layer_that_adds_its_own_input(self) -> None:
        nodes = [
            parity.node("Conv", "x w", "a"),
            parity.node("Conv", "a v", "b"),
            parity.node("Add", "b a", "y"),
        ]
        graph = fused(nodes, {"w": normal(4, 3, 1, 1), "v": normal(4, 4, 1, 1)})
        int8, _ = quantized(graph)
        assert_valid(int8)
        found = output_cosines(outputs(graph, [images()]), outputs(int8, [images()]))
        assert found.min() > 0.99

    def test_constants_of_sums_and_products(self) -> None:
        constants = {
            "w": normal(4, 3, 1, 1),
            "k": RNG(1).normal(size=(1, 4, 8, 8)).astype(np.float32),
            "v": normal(2, 4, 1, 1),
        }
        for op in ("Add", "Sub", "Mul"):
            nodes = [
                parity.node("Conv", "x w", "a"),
                parity.node("Relu", "a", "b"),
                parity.node(op, "b k", "c"),
                parity.node("Conv", "c v", "y"),
            ]
            graph = fused(nodes, constants)
            int8, _ = quantized(graph, int8_sums=True)
            assert_valid(int8)
            (binary,) = [n for n in int8.nodes if n.op == op.lower()]
            assert all(int8.tensors[name or ""].dtype == "i8" for name in binary.inputs)
            found = output_cosines(outputs(graph, [images()]), outputs(int8, [images()]))
            assert found.min() > 0.99


class TestAsymmetric:
    @pytest.mark.parametrize(
        ("threshold", "minimum", "maximum", "low", "high"),
        [
            (4.0, -1.0, 4.0, -1.0, 4.0),
            (3.0, -1.0, 4.0, -1.0, 3.0),
            (0.5, -1.0, 4.0, -0.5, 0.5),
            (8.0, -1.0, 4.0, -2.0, 8.0),
            (4.0, 1.0, 4.0, 0.0, 4.0),
            (4.0, -4.0, -1.0, -4.0, 0.0),
        ],
    )
    def test_covers_what_was_seen(
        self, threshold: float, minimum: float, maximum: float, low: float, high: float
    ) -> None:
        params = asymmetric_params(threshold, minimum, maximum)
        assert params.scale == pytest.approx((high - low) / 255, rel=1e-6)
        least = params.scale * (-128 - params.zero_point)
        greatest = params.scale * (127 - params.zero_point)
        assert least == pytest.approx(low, abs=params.scale / 2 * 1.001)
        assert greatest == pytest.approx(high, abs=params.scale / 2 * 1.001)

    def test_of_zeros(self) -> None:
        assert asymmetric_params(0.0, 0.0, 0.0).scale == 1.0


class TestEqualization:
    def network(self) -> Graph:
        """A residual chain, a gate, and a ReLU6 before a depthwise layer; uneven channels."""
        uneven = np.geomspace(1e-2, 10, 8).astype(np.float32).reshape(8, 1, 1, 1)
        node = parity.node
        constants = {
            "w1": normal(8, 3, 3, 3, seed=1) * uneven,
            "b1": np.full(8, 0.3, np.float32),
            "lo": np.float32(0),
            "hi": np.float32(6),
            "w2": normal(8, 1, 3, 3, seed=2),
            "w3": normal(8, 8, 1, 1, seed=3) * uneven,
            "b3": normal(8, seed=4),
            "w4": normal(8, 8, 1, 1, seed=5) * uneven[::-1],
            "wg": normal(8, 8, 1, 1, seed=6),
            "w5": normal(4, 8, 1, 1, seed=7),
        }
        nodes = [
            node("Conv", "x w1 b1", "c1", pads=[1, 1, 1, 1]),
            node("Clip", "c1 lo hi", "r1"),
            node("Conv", "r1 w2", "c2", pads=[1, 1, 1, 1], group=8),
            node("Relu", "c2", "r2"),
            node("Conv", "r2 w3 b3", "c3"),
            node("Conv", "c3 w4", "c4"),
            node("Add", "c4 c3", "sum"),
            node("GlobalAveragePool", "sum", "pool"),
            node("Conv", "pool wg", "g"),
            node("Sigmoid", "g", "gate"),
            node("Mul", "sum gate", "gated"),
            node("Conv", "gated w5", "y"),
        ]
        return fused(nodes, constants)

    def test_it_leaves_the_function_as_it_was(self) -> None:
        graph = self.network()
        table = calibrate(graph, [images()], SHA)
        equalized = prepare(graph, table).graph
        changed = [
            not np.array_equal(graph.constant(a.inputs[1]), equalized.constant(b.inputs[1]))
            for a, b in zip(graph.nodes, equalized.nodes, strict=True)
            if a.op == "conv"
        ]
        assert sum(changed) >= 4
        for expected, got in zip(
            parity.run(graph, images()), parity.run(equalized, images()), strict=True
        ):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)

    def test_it_predicts_the_new_ranges(self) -> None:
        graph = self.network()
        prepared = prepare(graph, calibrate(graph, [images()], SHA))
        taps = Session(native.write(prepared.graph)).run_taps(images())
        for name, ranges in prepared.ranges.items():
            if name in graph.inputs:
                continue
            rows = taps[name].reshape(-1, taps[name].shape[-1])
            np.testing.assert_allclose(ranges.minimum, rows.min(axis=0), rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(ranges.maximum, rows.max(axis=0), rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(ranges.mean, rows.mean(axis=0), rtol=1e-3, atol=1e-3)

    def test_it_pays(self) -> None:
        graph, data = self.network(), [images()]
        true = outputs(graph, data)
        losses = []
        for equalize in (False, True):
            int8, _ = quantized(graph, equalize=equalize)
            losses.append(1 - output_cosines(outputs(int8, data), true).mean())
        assert losses[1] < 0.5 * losses[0]


class TestMixedPrecision:
    def test_sensitivity_names_the_layer_that_suffers(self) -> None:
        graph = residual_network()
        _, table = quantized(graph)
        name = sorted(set(table.tensors) - set(graph.inputs))[0]
        spoiled = dict(table.tensors)
        spoiled[name] = replace(spoiled[name], scale=spoiled[name].scale / 50)
        bad = replace(table, tensors=spoiled)
        scores = layer_sensitivity(graph, bad, [images(4)])
        readers = {n.outputs[0] for n in graph.consumers(name)}
        worst = min(scores, key=scores.__getitem__)
        assert worst in readers or worst == name

    def test_mixed_precision_reaches_the_target(self) -> None:
        graph, data = residual_network(), [images(8)]
        _, table = quantized(graph)
        true = outputs(graph, data)
        plain = output_cosines(outputs(quantize(graph, table), data), true).mean()
        assert mixed_precision(graph, table, data, plain - 1e-6) == []
        target = 1 - (1 - plain) / 2
        spared = mixed_precision(graph, table, data, target)
        assert spared
        mixed = quantize(graph, table, spared)
        assert output_cosines(outputs(mixed, data), true).mean() >= target


def test_a_table_without_a_tensor() -> None:
    graph = residual_network()
    _, table = quantized(graph)
    tensors = dict(list(table.tensors.items())[1:])
    with pytest.raises(CalibrationError, match="is not in the calibration table"):
        quantize(graph, replace(table, tensors=tensors))


def test_same_bytes_on_every_instruction_set_and_thread_count() -> None:
    int8, _ = quantized(residual_network())
    data = native.write(int8)
    expected = Session(data, isa="reference").run(images(4))[0].tobytes()
    for threads in (1, 3):
        assert Session(data, threads=threads).run(images(4))[0].tobytes() == expected
