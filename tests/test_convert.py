"""ONNX to native file, in one call."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import onnx
import parity
import pytest
from PIL import Image

from pyedge import (
    CalibrationError,
    InvalidArgumentError,
    InvalidImageError,
    InvalidModelError,
    Preprocessing,
    PyEdgeError,
    Session,
)
from pyedge.calibration import CalibrationTable
from pyedge.converters import ConversionReport, convert
from pyedge.metadata import Metadata

RGB = Preprocessing("rgb", (16, 16), (127.5,) * 3, (1 / 127.5,) * 3)
MOBILEFACENET = Metadata(
    "rgb",
    (112, 112),
    (123.675, 116.28, 103.53),
    (1 / 58.395, 1 / 57.12, 1 / 57.375),
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small embedder: two convolutions and a fully connected layer, 16x16 to 6."""
    rng = np.random.default_rng(0)
    constants = {
        "w1": rng.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "w2": rng.normal(size=(8, 8, 3, 3)).astype(np.float32) / 8,
        "w3": rng.normal(size=(6, 8)).astype(np.float32),
    }
    nodes = [
        parity.node("Conv", "x w1", "a", pads=[1, 1, 1, 1], strides=[2, 2]),
        parity.node("Relu", "a", "b"),
        parity.node("Conv", "b w2", "c", pads=[1, 1, 1, 1]),
        parity.node("Relu", "c", "d"),
        parity.node("GlobalAveragePool", "d", "e"),
        parity.node("Flatten", "e", "f"),
        parity.node("Gemm", "f w3", "y", transB=1),
    ]
    path = tmp_path / "small.onnx"
    onnx.save(parity.model(nodes, ["n", 3, 16, 16], constants), path)
    return path


def batches(count: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.normal(size=(3, 3, 16, 16)).astype(np.float32) for _ in range(count)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images, two of them of another size than the model's."""
    found = tmp_path / "images"
    found.mkdir()
    rng = np.random.default_rng(2)
    for index in range(6):
        side = 16 if index < 4 else 40
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(found / f"{index}.png")
    return found


class TestFloat:
    def test_it_computes_the_onnx_model(self, model: Path, tmp_path: Path) -> None:
        report = convert(model, tmp_path / "out.pye", preprocessing=RGB)
        x = batches(1)[0]
        session = Session(tmp_path / "out.pye")
        parity.assert_close(session.run(x), parity.reference(onnx.load(model), x))
        assert report.precision == "fp32"
        assert report.file_bytes == (tmp_path / "out.pye").stat().st_size
        assert report.cosine is None

    def test_half_precision_weights(self, model: Path, tmp_path: Path) -> None:
        """As if the weights of the ONNX model had been rounded; one beyond the range stays."""
        made = onnx.load(model)
        for tensor in made.graph.initializer:
            weight = onnx.numpy_helper.to_array(tensor).copy()
            if tensor.name == "w3":
                weight[0, 0] = 7e4
            tensor.CopyFrom(onnx.numpy_helper.from_array(weight, tensor.name))
        onnx.save(made, model)
        whole = convert(model, tmp_path / "whole.pye", preprocessing=RGB)
        half = convert(model, tmp_path / "half.pye", preprocessing=RGB, fp16_weights=True)
        saved = whole.file_bytes - half.file_bytes
        assert 0 <= saved - 2 * 8 * 9 * (3 + 8) < 64  # w1 and w2, up to alignment
        for tensor in made.graph.initializer:
            weight = onnx.numpy_helper.to_array(tensor)
            if tensor.name != "w3":
                weight = weight.astype(np.float16).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(weight, tensor.name))
        x = batches(1)[0]
        got = Session(tmp_path / "half.pye").run(x)
        parity.assert_close(got, parity.reference(made, x))
        (exact,) = Session(tmp_path / "whole.pye").run(x)
        assert 0 < np.abs(got[0] - exact).max() < 1e-3 * np.abs(exact).max()

    def test_metadata(self, model: Path, tmp_path: Path) -> None:
        convert(model, tmp_path / "out.pye", preprocessing=RGB)
        metadata = Session(tmp_path / "out.pye").metadata
        assert metadata.color == "rgb"
        assert metadata.input_size == (16, 16)
        np.testing.assert_allclose(metadata.mean, RGB.mean)
        np.testing.assert_allclose(metadata.scale, RGB.scale)
        assert metadata.embedding_size == 6
        assert metadata.model_name == "small"
        assert metadata.feature_space.startswith("small-")
        assert metadata.producer.startswith("pyedge ")

    def test_both_precisions_have_one_feature_space(self, model: Path, tmp_path: Path) -> None:
        convert(model, tmp_path / "a.pye", preprocessing=RGB)
        convert(model, tmp_path / "b.pye", "int8", batches(), preprocessing=RGB)
        spaces = {Session(tmp_path / f"{n}.pye").metadata.feature_space for n in "ab"}
        assert len(spaces) == 1

    @pytest.mark.parametrize("kind", ["dict", "toml"])
    def test_preprocessing_as_plain_values(self, model: Path, tmp_path: Path, kind: str) -> None:
        toml = tmp_path / "pixels.toml"
        toml.write_text('color = "bgr"\nstd = 2\n')
        given = toml if kind == "toml" else {"color": "bgr", "std": 2}
        convert(model, tmp_path / "out.pye", preprocessing=given)
        metadata = Session(tmp_path / "out.pye").metadata
        assert metadata.color == "bgr"
        assert metadata.scale == (0.5, 0.5, 0.5)
        assert metadata.input_size == (16, 16)  # from the model


class TestInt8:
    @pytest.mark.parametrize("method", ["kl", "minmax", "percentile", "mse", "auto"])
    def test_it_stays_close(self, model: Path, tmp_path: Path, method: str) -> None:
        report = convert(model, tmp_path / "out.pye", "int8", batches(), method)
        assert report.cosine is not None
        assert report.cosine > 0.995
        x = batches(1)[0]
        (expected,) = parity.reference(onnx.load(model), x)
        (got,) = Session(tmp_path / "out.pye").run(x)
        cosine = (expected * got).sum(1)
        cosine /= np.linalg.norm(expected, axis=1) * np.linalg.norm(got, axis=1)
        assert cosine.min() > 0.99

    def test_report(self, model: Path, tmp_path: Path) -> None:
        report = convert(model, tmp_path / "out.pye", "int8", batches(), sensitivity=True)
        assert isinstance(report, ConversionReport)
        data = json.loads(report.to_json())
        assert data == json.loads(json.dumps(report.to_dict()))
        assert data["images"] == 12
        assert data["cosine_min"] <= data["cosine"] <= 1
        for tensor in data["tensors"]:
            assert tensor["threshold"] / 255 <= tensor["scale"] * (1 + 1e-6)
            assert tensor["scale"] <= tensor["threshold"] / 127 * (1 + 1e-6)
        for layer in data["layers"]:
            assert layer["cosine"] > 0.98
            assert layer["snr_db"] is None or layer["snr_db"] > 20
        assert len(data["sensitivity"]) == 3
        assert all(0.9 < cosine <= 1 for cosine in data["sensitivity"].values())
        assert len(data["model_sha256"]) == len(data["file_sha256"]) == 64
        assert data["seconds"] >= sum(data["timing"].values()) * 0.9

    def test_same_bytes_from_arrays_a_generator_and_a_table(
        self, model: Path, tmp_path: Path
    ) -> None:
        table = tmp_path / "table.json"
        convert(model, tmp_path / "a.pye", "int8", batches(), save_table=table)
        convert(model, tmp_path / "b.pye", "int8", iter(reversed(batches())), threads=1)
        convert(model, tmp_path / "c.pye", "int8", table)
        convert(model, tmp_path / "d.pye", "int8", CalibrationTable.load(table))
        expected = (tmp_path / "a.pye").read_bytes()
        assert all((tmp_path / f"{name}.pye").read_bytes() == expected for name in "bcd")

    def test_a_folder_of_images(self, model: Path, folder: Path, tmp_path: Path) -> None:
        (folder / "notes.txt").write_text("not an image")
        report = convert(model, tmp_path / "a.pye", "int8", folder, preprocessing=RGB)
        assert report.images == 6
        assert report.cosine is not None
        assert report.cosine > 0.99

    def test_a_folder_of_arrays(self, model: Path, tmp_path: Path) -> None:
        folder = tmp_path / "arrays"
        folder.mkdir()
        np.save(folder / "0.npy", batches()[0])
        for index, image in enumerate(batches()[1]):
            np.save(folder / f"1{index}.npy", image)
        convert(model, tmp_path / "a.pye", "int8", folder)
        convert(model, tmp_path / "b.pye", "int8", batches(2))
        assert (tmp_path / "a.pye").read_bytes() == (tmp_path / "b.pye").read_bytes()

    def test_layers_in_float32(self, model: Path, tmp_path: Path) -> None:
        report = convert(model, tmp_path / "a.pye", "int8", batches(), sensitivity=True)
        layers = list(report.sensitivity)
        mixed = convert(model, tmp_path / "b.pye", "int8", batches(), fp32_layers=layers)
        assert mixed.cosine == pytest.approx(1.0, abs=1e-6)
        assert mixed.fp32_layers == layers
        assert mixed.file_bytes > report.file_bytes

    def test_target_cosine(self, model: Path, tmp_path: Path) -> None:
        plain = convert(model, tmp_path / "a.pye", "int8", batches())
        assert plain.cosine is not None
        assert not plain.fp32_layers
        target = 1 - (1 - plain.cosine) / 4
        mixed = convert(model, tmp_path / "b.pye", "int8", batches(), target_cosine=target)
        assert mixed.fp32_layers
        assert mixed.cosine is not None
        assert mixed.cosine >= target - 1e-4

    def test_progress(self, model: Path, tmp_path: Path) -> None:
        calls: list[tuple[str, int, int]] = []
        convert(
            model,
            tmp_path / "a.pye",
            "int8",
            batches(),
            progress=lambda *call: calls.append(call),
        )
        assert {total for _, _, total in calls} == {12}
        for stage in {stage for stage, _, _ in calls}:
            done = [count for name, count, _ in calls if name == stage]
            assert done == sorted(done)
            assert done[-1] == 12


class TestBadInput:
    def test_options(self, model: Path, tmp_path: Path) -> None:
        out = tmp_path / "out.pye"
        with pytest.raises(InvalidArgumentError, match="precision"):
            convert(model, out, "int4")
        with pytest.raises(InvalidArgumentError, match="calibration"):
            convert(model, out, "int8")
        with pytest.raises(InvalidArgumentError, match="method"):
            convert(model, out, "int8", batches(), "magic")
        with pytest.raises(InvalidArgumentError, match="no layer named"):
            convert(model, out, "int8", batches(), fp32_layers=["nothing"])
        with pytest.raises(InvalidArgumentError, match="target_cosine"):
            convert(model, out, "int8", batches(), target_cosine=2)
        assert not out.exists()

    def test_a_missing_model(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidModelError, match=r"no\.onnx"):
            convert(tmp_path / "no.onnx", tmp_path / "out.pye")

    @pytest.mark.parametrize(
        "batch",
        [
            np.zeros((1, 3, 16, 16)),
            np.zeros((1, 3, 16, 16), np.uint8),
            np.zeros((3, 16, 16), np.float32),
            np.zeros((1, 1, 16, 16), np.float32),
            np.zeros((0, 3, 16, 16), np.float32),
            "not an array",
        ],
        ids=["float64", "uint8", "rank", "channels", "empty", "text"],
    )
    def test_wrong_batches(self, model: Path, tmp_path: Path, batch: object) -> None:
        with pytest.raises(InvalidArgumentError, match="calibration batch 1"):
            convert(model, tmp_path / "out.pye", "int8", [batches()[0], batch])  # type: ignore[list-item]

    def test_values_that_are_not_finite(self, model: Path, tmp_path: Path) -> None:
        bad = batches(1)[0]
        bad[1, 0, 0, 0] = np.nan
        with pytest.raises(CalibrationError, match="NaN"):
            convert(model, tmp_path / "out.pye", "int8", [bad])

    def test_no_images(self, model: Path, tmp_path: Path) -> None:
        empty = tmp_path / "empty"
        empty.mkdir()
        with pytest.raises(CalibrationError, match="empty"):
            convert(model, tmp_path / "out.pye", "int8", empty, preprocessing=RGB)
        with pytest.raises(CalibrationError, match="no batches"):
            convert(model, tmp_path / "out.pye", "int8", [])
        with pytest.raises(CalibrationError, match="not a folder"):
            convert(model, tmp_path / "out.pye", "int8", tmp_path / "nowhere")

    def test_images_without_preprocessing(self, model: Path, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(InvalidArgumentError, match="preprocessing"):
            convert(model, tmp_path / "out.pye", "int8", folder)

    def test_an_image_cut_short(self, model: Path, folder: Path, tmp_path: Path) -> None:
        whole = (folder / "5.png").read_bytes()
        (folder / "5.png").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InvalidImageError, match=r"5\.png"):
            convert(model, tmp_path / "out.pye", "int8", folder, preprocessing=RGB)
        assert not (tmp_path / "out.pye").exists()

    def test_a_table_of_another_model(self, model: Path, tmp_path: Path) -> None:
        table = tmp_path / "table.json"
        convert(model, tmp_path / "out.pye", "int8", batches(), save_table=table)
        other = onnx.load(model)
        other.doc_string = "another file"
        onnx.save(other, tmp_path / "other.onnx")
        with pytest.raises(CalibrationError, match="belongs to the model"):
            convert(tmp_path / "other.onnx", tmp_path / "x.pye", "int8", table)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
    def test_a_full_disk_leaves_the_old_file(
        self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "out.pye"
        out.write_bytes(b"before")

        def full(_descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(PyEdgeError, match="No space left"):
            convert(model, out)
        assert out.read_bytes() == b"before"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out.pye", "small.onnx"]


class TestMobileFaceNet:
    def test_size_speed_and_loss(self, assets: Path, tmp_path: Path) -> None:
        """On 16 calibration crops here; the whole protocol is `pyedge evaluate`'s."""
        crops = tmp_path / "crops"
        crops.mkdir()
        for path in sorted((assets / "lfw" / "calibration").iterdir())[::37][:16]:
            (crops / path.name).symlink_to(path)
        out = tmp_path / "int8.pye"
        source = assets / "models" / "mobilefacenet.onnx"
        start = time.perf_counter()
        report = convert(source, out, "int8", crops, preprocessing=MOBILEFACENET)
        print(f"MobileFaceNet: {time.perf_counter() - start:.1f} s, {report.file_bytes} bytes")
        assert report.file_bytes <= 1_150_000
        assert not report.fp32_layers
        assert report.cosine is not None
        assert report.cosine > 0.997
        assert all(layer.precision == "int8" for layer in report.layers if layer.op == "conv")


class TestPaths:
    def test_nothing_is_overwritten(self, model: Path, tmp_path: Path) -> None:
        before = model.read_bytes()
        link = tmp_path / "link.onnx"
        link.symlink_to(model)
        for out in (model, link):
            with pytest.raises(InvalidArgumentError, match="same file as the model"):
                convert(model, out)
        with pytest.raises(InvalidArgumentError, match="same file as out_path"):
            convert(model, tmp_path / "a", "int8", batches(), save_table=tmp_path / "a")
        with pytest.raises(InvalidArgumentError, match="does not exist"):
            convert(model, tmp_path / "no" / "a.pye")
        assert model.read_bytes() == before

    @pytest.mark.parametrize(
        "options",
        [
            {"target_cosine": 0.9},
            {"save_table": "t.json"},
            {"sensitivity": True},
            {"fp32_layers": ["a"]},
            {"equalize": False},
        ],
        ids=lambda options: next(iter(options)),
    )
    def test_options_of_int8(self, model: Path, tmp_path: Path, options: dict) -> None:
        with pytest.raises(InvalidArgumentError, match="needs precision int8"):
            convert(model, tmp_path / "a.pye", **options)

    @pytest.mark.parametrize(
        "options",
        [
            {"preprocessing": 5},
            {"input_shape": "a"},
            {"input_shape": 5},
            {"input_shape": {"x": [1, "b"]}},
            {"threads": "2"},
            {"threads": 1.5},
            {"threads": 2**31},
            {"threads": 0},
        ],
        ids=str,
    )
    def test_wrong_types(self, model: Path, tmp_path: Path, options: dict) -> None:
        with pytest.raises(InvalidArgumentError, match=next(iter(options))):
            convert(model, tmp_path / "a.pye", **options)


class TestNcnnTable:
    def test_there_and_back(self, model: Path, tmp_path: Path) -> None:
        table = tmp_path / "small.table"
        made = tmp_path / "a.pye"
        with pytest.raises(InvalidArgumentError, match="equalize=False"):
            convert(model, made, "int8", batches(), save_table=table)
        convert(model, made, "int8", batches(), equalize=False, save_table=table)
        assert len(table.read_text().splitlines()) == 7  # 3 weights, 3 inputs, the pool's input
        report = convert(model, tmp_path / "b.pye", "int8", table)
        assert report.method == "ncnn"
        x = batches(1)[0]
        (a,), (b,) = (Session(tmp_path / f"{n}.pye").run(x) for n in "ab")
        assert np.abs(a - b).max() < 0.05 * np.abs(a).max()
        lines = table.read_text().splitlines()
        table.write_text("\n".join(lines[:-1]))
        with pytest.raises(CalibrationError, match=f"lacks {lines[-1].split()[0]}"):
            convert(model, tmp_path / "b.pye", "int8", table)


class TestCalibrationFolder:
    def test_images_that_would_be_stretched(
        self, model: Path, folder: Path, tmp_path: Path
    ) -> None:
        for size in ((40, 16), (7, 7)):
            Image.new("RGB", size).save(folder / "odd.png")
            with pytest.raises(CalibrationError, match=r"odd\.png: is"):
                convert(model, tmp_path / "a.pye", "int8", folder, preprocessing=RGB)

    def test_images_and_arrays(self, model: Path, folder: Path, tmp_path: Path) -> None:
        np.save(folder / "x.npy", batches()[0])
        with pytest.raises(CalibrationError, match="one kind"):
            convert(model, tmp_path / "a.pye", "int8", folder, preprocessing=RGB)

    def test_errors_name_the_array(self, model: Path, tmp_path: Path) -> None:
        folder = tmp_path / "arrays"
        folder.mkdir()
        np.save(folder / "x.npy", np.zeros((1, 1, 16, 16), np.float32))
        with pytest.raises(InvalidArgumentError, match=r"x\.npy"):
            convert(model, tmp_path / "a.pye", "int8", folder)
        np.save(folder / "x.npy", batches()[0])
        header = (folder / "x.npy").read_bytes()[:128].replace(b"(3, 3, ", b"(9999999999, 3, ")
        (folder / "x.npy").write_bytes(header)
        with pytest.raises(CalibrationError, match=r"x\.npy"):
            convert(model, tmp_path / "a.pye", "int8", folder)


def test_a_table_with_too_few_channels(model: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.json"
    convert(model, tmp_path / "a.pye", "int8", batches(), save_table=table)
    document = json.loads(table.read_text())
    for arrays in document["channels"].values():
        arrays.update(dict.fromkeys(arrays, "AACAPw=="))
    table.write_text(json.dumps(document))
    with pytest.raises(CalibrationError, match="channels"):
        convert(model, tmp_path / "a.pye", "int8", table)


def test_open_size_comes_from_the_preprocessing(model: Path, tmp_path: Path) -> None:
    made = onnx.load(model)
    for axis in (2, 3):
        made.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "s"
    onnx.save(made, tmp_path / "open.onnx")
    convert(tmp_path / "open.onnx", tmp_path / "a.pye", preprocessing=RGB)
    assert Session(tmp_path / "a.pye").metadata.input_size == (16, 16)
    with pytest.raises(InvalidModelError, match=r"input_shape= \(--input-shape"):
        convert(tmp_path / "open.onnx", tmp_path / "a.pye")
