"""The command line: what it shows, and that every mistake is one line and exit code 2."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from attacks.make import tiny_model
from typer.testing import CliRunner, Result

import pyedge
from pyedge.cli.app import app
from pyedge.cli.bench_report import pair_layers
from pyedge.cli.output import quantity, to_json
from pyedge.cli.roofline import Roofline
from pyedge.images import save_image

COMMANDS = ("quickstart", "convert", "inspect", "run", "bench", "evaluate", "doctor")


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def cli_json(*arguments: object) -> dict:
    result = cli(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def assert_refused(result: Result, words: str) -> None:
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr
    assert not result.stdout


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.pye"
    path.write_bytes(tiny_model())
    return path


@pytest.fixture
def onnx_model(tmp_path: Path) -> Path:
    """Two convolutions, pool and linear on 112x112 pixels; 6 features."""
    random = np.random.default_rng(0)
    sizes = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (6, 8)}
    weights = [
        onnx.numpy_helper.from_array(random.normal(0, 0.2, size).astype(np.float32), name)
        for name, size in sizes.items()
    ]
    node = onnx.helper.make_node
    nodes = [
        node("Conv", ["x", "w1"], ["a"], "stem", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w2"], ["c"], "body", pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["c"], ["d"]),
        node("Flatten", ["d"], ["e"]),
        node("Gemm", ["e", "w3"], ["y"], "features", transB=1),
    ]
    value = onnx.helper.make_tensor_value_info
    x = value("x", onnx.TensorProto.FLOAT, ["N", 3, 112, 112])
    y = value("y", onnx.TensorProto.FLOAT, ["N", 6])
    graph = onnx.helper.make_graph(nodes, "small", [x], [y], weights)
    path = tmp_path / "small.onnx"
    opset = onnx.helper.make_opsetid("", 13)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


TOML = """color = "rgb"
input_size = [112, 112]
mean = 127.5
std = 128.0
embedding_size = 6
"""


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Three crops each of three people, who differ in colour."""
    random = np.random.default_rng(1)
    folder = tmp_path / "faces"
    folder.mkdir()
    for person, color in (("Ada", 40), ("Bo", 120), ("Cy", 210)):
        for number in range(1, 4):
            noise = random.integers(-30, 30, (112, 112, 3))
            image = np.clip(noise + np.array([color, 255 - color, 128]), 0, 255).astype(np.uint8)
            save_image(folder / f"{person}_{number:04}.png", image)
    return folder


def test_help_of_every_command() -> None:
    listing = cli("--help").output
    for command in COMMANDS:
        assert command in listing
        result = cli(command, "--help")
        assert result.exit_code == 0
        assert "--json" in result.output


def test_version() -> None:
    assert cli("--version").output == f"pyedge {pyedge.__version__}\n"


def test_convert_fp32_takes_the_toml_beside_the_model(onnx_model: Path, tmp_path: Path) -> None:
    onnx_model.with_suffix(".toml").write_text(TOML)
    out = tmp_path / "out.pye"
    report = cli_json("convert", onnx_model, "-o", out)
    assert report["precision"] == "fp32"
    assert report["file_bytes"] == out.stat().st_size
    metadata = pyedge.Session(out).metadata
    assert metadata.color == "rgb"
    assert metadata.scale == (1 / 128,) * 3
    cli_json("convert", onnx_model, "-o", out, "--precision", "fp32", "--color", "bgr", "--std", 64)
    changed = pyedge.Session(out).metadata
    assert (changed.color, changed.scale, changed.mean) == ("bgr", (1 / 64,) * 3, metadata.mean)


def test_convert_int8(onnx_model: Path, faces: Path, tmp_path: Path) -> None:
    onnx_model.with_suffix(".toml").write_text(TOML)
    out, page, table = (tmp_path / name for name in ("out.pye", "out.html", "table.json"))
    arguments = ("convert", onnx_model, "-o", out, "--calibration")
    shown = cli(*arguments, faces, "--report", page, "--save-table", table)
    assert shown.exit_code == 0, shown.output
    assert "cosine of the output with FP32" in shown.output
    assert "<svg" in page.read_text()
    assert "stem" in page.read_text()
    from_images = out.read_bytes()
    report = cli_json(*arguments, table, "--report", tmp_path / "out.json")
    assert out.read_bytes() == from_images
    assert json.loads((tmp_path / "out.json").read_text())["images"] == report["images"] == 9
    assert cli_json("run", out, *faces.iterdir())["embeddings"]


def test_convert_with_half_precision_weights(onnx_model: Path, faces: Path, tmp_path: Path) -> None:
    """Of all layers, or of those that INT8 leaves in FP32."""
    onnx_model.with_suffix(".toml").write_text(TOML)
    out = tmp_path / "out.pye"
    whole, half = (
        cli_json("convert", onnx_model, "-o", out, *option) for option in ((), ("--fp16-weights",))
    )
    assert half["file_bytes"] < 0.7 * whole["file_bytes"]
    int8 = ("--calibration", faces, "--fp32-layer", "stem")
    whole, half = (
        cli_json("convert", onnx_model, "-o", out, *int8, *option)
        for option in ((), ("--fp16-weights",))
    )
    assert half["file_bytes"] < whole["file_bytes"]
    assert cli_json("inspect", out)["layers"]


def test_convert_leaves_nothing_where_it_fails(
    onnx_model: Path, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "out.pye"
    for words, *arguments in (
        ("calibration", "--precision", "int8"),
        ("no images", "--precision", "int8", "--calibration", empty),
        ("preprocessing", "--calibration", faces),
        ("'a,b'", "--precision", "fp32", "--mean", "a,b"),
        ("std and scale", "--precision", "fp32", "--std", "1", "--scale", "1"),
        ("ten numbers", "--precision", "fp32", "--landmarks", "1,2,3"),
        ("report is", "--precision", "fp32", "--report", "out.pdf"),
        ("cannot be read", "--precision", "fp32", "--preprocessing", tmp_path / "no.toml"),
    ):
        assert_refused(cli("convert", onnx_model, "-o", out, *arguments), words)
    assert_refused(cli("convert", empty / "no.onnx", "-o", out, "--precision", "fp32"), "no.onnx")
    before = sorted(tmp_path.iterdir())

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    result = cli("convert", onnx_model, "-o", out, "--precision", "fp32")
    assert result.exit_code == 130
    assert sorted(tmp_path.iterdir()) == before


def test_doctor() -> None:
    report = cli_json("doctor")
    assert report["isa"]["reference"]["available"]
    assert report["packages"]["numpy"] == np.__version__
    shown = cli("doctor").output
    assert report["default_isa"] in shown
    assert "Instruction sets" in shown


def test_inspect(model: Path) -> None:
    report = cli_json("inspect", model)
    layers = {layer["name"]: layer for layer in report["layers"]}
    # 3x3 windows of 3 channels to 8, on 8x8 pixels with a border.
    assert layers["stem_node"]["macs"] == 9 * 3 * 8 * 8 * 8
    assert report["macs"] == sum(layer["macs"] for layer in report["layers"])
    assert report["metadata"]["feature_space"] == "tiny-1"
    doubled = cli_json("inspect", model, "--size", "16x8")
    assert doubled["layers"][1]["macs"] == 2 * layers["stem_node"]["macs"]
    assert "block_i8_node" in cli("inspect", model, "--isa", "reference").output


def test_run_on_arrays(model: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    report = cli_json("run", model, tmp_path / "x.npy", "--out", tmp_path / "y.npy")
    expected = pyedge.Session(model).run(x)[0]
    assert np.array_equal(np.load(tmp_path / "y.npy"), expected)
    assert np.allclose(report["outputs"][0]["values"], expected)
    assert "embedding" in cli("run", model, tmp_path / "x.npy").output


def test_run_on_images(model: Path, faces: Path) -> None:
    paths = sorted(faces.iterdir())[:3]
    report = cli_json("run", model, *paths)
    embeddings = np.array(report["embeddings"])
    assert embeddings.shape == (3, 4)
    assert np.allclose(np.diag(report["cosines"]), 1, atol=1e-5)
    assert "Cosine similarity" in cli("run", model, *paths).output


def test_quickstart_shows_gain_and_loss(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The path itself has tests of its own: here is what is shown of it."""
    from pyedge import quickstart

    report = quickstart.QuickstartReport(
        1,
        "reference",
        "photos",
        [quickstart.ModelFigures("[Net]", "a", "b", 4_000_000, 1_000_000, 8.0, 2.0)],
        [str(tmp_path / "photo-faces.png")],
        [quickstart.FoundFace(str(i), "photo", 0.9, [0, 0, 9, 9]) for i in (1, 2)],
        [[1.0, 0.25], [0.25, 1.0]],
        quickstart.QuantizationLoss(faces=2, cosine_mean=0.998, cosine_min=0.996),
    )
    monkeypatch.setattr(quickstart, "quickstart", lambda *_: report)
    shown = cli("quickstart").output
    for words in ("[Net]", "4.00 MB", "1.00 MB", "4.0x", "0.250", "0.9980", "photo-faces.png"):
        assert words in shown
    assert cli_json("quickstart")["loss"]["cosine_min"] == 0.996


def test_bench(model: Path) -> None:
    report = cli_json("bench", model, "--repeats", 3, "--threads", 2, "--isa", "reference")
    assert report["threads"] == 2
    assert report["isa"] == "reference"
    assert 0 < report["min_seconds"] <= report["median_seconds"]
    assert len(report["layers"]) == 9
    assert report["peak_gops"]["i8"] > 0
    assert 0 < report["share_of_peak"] < 1
    assert 0 <= report["share_of_time_near_roofline"] <= 1
    worked = [layer for layer in report["layers"] if layer["kernel"]]
    assert all(layer["floor_seconds"] > 0 and layer["bytes"] > 0 for layer in worked)
    assert {layer["bound"] for layer in worked} <= {"compute", "memory"}
    shown = cli("bench", model, "--repeats", 2).output
    assert "median" in shown
    assert "40 % of the roofline" in shown


def test_benches_side_by_side(model: Path, tmp_path: Path) -> None:
    earlier, page, picture = (tmp_path / f"a{kind}" for kind in (".json", ".html", ".svg"))
    arguments = ("bench", model, "--repeats", 1, "--report")
    cli_json(*arguments, earlier, "--isa", "reference")
    both = cli_json(*arguments, page, "--compare", earlier)
    assert both["compared_with"] == json.loads(earlier.read_text())
    shown = cli("bench", earlier, "--compare", earlier, "--report", picture).output
    assert "1.00 times as fast" in shown
    assert page.read_text().startswith("<!doctype html>")
    svg = ElementTree.fromstring(picture.read_text())
    texts = [element.text or "" for element in svg.iter("{http://www.w3.org/2000/svg}text")]
    layers = [layer for layer in both["compared_with"]["layers"] if layer["kernel"]]
    assert sum("ms, " in text for text in texts) == 2 * len(layers)
    assert_refused(cli("bench", model, "--report", "r.pdf"), "report is")
    page.write_text("[1]")
    assert_refused(cli("bench", model, "--compare", page), "not written by")
    assert_refused(cli("bench", model, "--compare", tmp_path / "none.json"), "none.json")


def test_layers_of_two_benches_are_paired_by_name() -> None:
    def layers(*names: str) -> list[dict]:
        return [{"name": name, "op": "conv"} for name in names]

    pairs = pair_layers(layers("a", "b", "c", "d"), layers("a", "c", "e", "d"))
    assert [tuple(layer and layer["name"] for layer in pair) for pair in pairs] == [
        ("a", "a"),
        ("b", None),
        ("c", "c"),
        (None, "e"),
        ("d", "d"),
    ]


def test_roofline() -> None:
    roofline = Roofline({"i8": 1000.0, "f32": 100.0}, {1000: 100.0, 4000: 10.0}, 3000)
    tensor = {"dtype": "i8", "shape": (1, 10, 10, 4)}
    layer = {"kernel": "k", "inputs": [tensor], "outputs": [tensor], "weight_bytes": 500}
    light = roofline.floor({**layer, "macs": 1000})
    # Activations of 800 bytes at 100 GB/s, weights of a model of 3000 bytes at 10 GB/s.
    assert light.seconds == pytest.approx(800 / 100e9 + 500 / 10e9)
    assert (light.bound, light.bytes) == ("memory", 1300)
    heavy = roofline.floor({**layer, "macs": 10**6})
    assert heavy.seconds == pytest.approx(2e6 / 1000e9)
    assert heavy.bound == "compute"
    assert roofline.floor({**layer, "kernel": None, "macs": 0}).seconds == 0
    measured = Roofline.measure("reference", 2, 100_000)
    rates = list(measured.bandwidth_gbs.values())
    assert max(measured.bandwidth_gbs) >= 100_000
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] > 0


def test_bench_shows_start_and_memory(model: Path, tmp_path: Path) -> None:
    options = ("--repeats", 1, "--cache", tmp_path, "--affinity", "big")
    first = cli_json("bench", model, *options)
    second = cli_json("bench", model, *options)
    assert second["load_seconds"] > 0
    assert first["memory"]["mapped_bytes"] == 0
    assert second["memory"]["mapped_bytes"] == second["memory"]["packed_bytes"]
    assert second["memory"]["arena_bytes"] > 0
    shown = cli("bench", model, *options).output
    assert "loaded and packed in" in shown
    assert len(list(tmp_path.glob("*.pyepack"))) == 1


def test_evaluate(model: Path, faces: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    rows = ["fold,first,second,same"]
    for fold in (1, 2):
        rows += [f"{fold},Ada_0001.png,Ada_000{fold + 1}.png,1"]
        rows += [f"{fold},Ada_000{fold}.png,Bo_000{fold}.png,0"]
    pairs.write_text("\n".join(rows) + "\n")
    arguments = ("evaluate", "--crops", faces, "--fp32", model, "--int8", model, "--pairs", pairs)
    page = tmp_path / "report.html"
    report = cli_json(*arguments, "--resamples", 20, "--report", page)
    assert report["images"] == 9
    assert report["comparisons"]["int8"]["accuracy"]["difference"] == 0
    assert page.read_text().startswith("<!doctype html>")
    shown = cli(*arguments, "--resamples", 20).output
    assert "accuracy, LFW protocol" in shown
    assert "TAR at FAR" in shown


def test_mistakes_are_one_line(model: Path, faces: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("no image")
    broken = tmp_path / "broken.pye"
    broken.write_bytes(model.read_bytes()[:-1])
    not_npy = tmp_path / "not.npy"
    not_npy.write_bytes(b"no array")
    image = sorted(faces.iterdir())[0]
    for words, *arguments in (
        ("nothere.pye", "inspect", tmp_path / "nothere.pye"),
        ("file_size", "inspect", broken),
        ("size '8'", "inspect", model, "--size", "8"),
        ("z80", "run", model, image, "--isa", "z80"),
        ("threads", "bench", model, "--threads", 100000),
        ("all, big or little", "bench", model, "--affinity", "medium"),
        ("not a file of packed weights", "bench", model, "--cache", model),
        ("one kind", "run", model, image, not_npy),
        (".npy", "run", model, not_npy),
        ("not an image", "run", model, text),
        ("no model", "evaluate", "--crops", faces),
        ("report is", "evaluate", "--crops", faces, "--fp32", model, "--report", "r.pdf"),
        ("no images", "evaluate", "--crops", tmp_path / "faces" / "..", "--fp32", broken),
    ):
        if words == "no images":
            text.unlink()
            arguments[-1] = model
        assert_refused(cli(*arguments), words)


def test_usage_errors_are_one_line(model: Path) -> None:
    for words, *arguments in (
        ("No such option", "inspect", model, "--colour"),
        ("inspect --help", "inspect"),
        ("inspect", "inspct"),
        ("int4", "convert", model, "-o", "x.pye", "--precision", "int4"),
        ("--batch", "inspect", model, "--batch", 10**9),
        ("expected width x height", "inspect", model, "--size", "²x²"),
    ):
        assert_refused(cli(*arguments), words)


def test_convert_refuses_before_any_work(onnx_model: Path, tmp_path: Path) -> None:
    before = onnx_model.read_bytes()
    out = tmp_path / "out.pye"
    for words, *arguments in (
        ("same file as the model", "-o", onnx_model),
        ("same file as the model", "-o", out, "--report", tmp_path / "small.json"),
        ("same file as --out", "-o", tmp_path / "a.json", "--report", tmp_path / "a.json"),
        ("--report does not exist", "-o", out, "--report", tmp_path / "no" / "a.json"),
        ("needs precision int8", "-o", out, "--target-cosine", 0.9),
        ("needs precision int8", "-o", out, "--method", "mse"),
    ):
        if arguments[-1] == tmp_path / "small.json":
            (tmp_path / "small.json").symlink_to(onnx_model)
        assert_refused(cli("convert", onnx_model, *arguments), words)
    assert onnx_model.read_bytes() == before
    assert not out.exists()


def test_control_characters_stay_out_of_errors(tmp_path: Path) -> None:
    assert "\x1b" not in cli("inspect", tmp_path / "a\x1b[31m.pye").stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(("redirection", "code"), [("> /dev/full", 2), (">&-", 0)])
@pytest.mark.parametrize("json_flag", ["", "--json"])
def test_standard_output_that_takes_nothing(redirection: str, code: int, json_flag: str) -> None:
    run = "from pyedge.cli import main; main()"
    command = f"{shlex.quote(sys.executable)} -P -c '{run}' doctor {json_flag} {redirection}"
    result = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == code
    assert result.stderr.count("\n") == (code == 2)
    assert "Traceback" not in result.stderr


def test_several_outputs_go_to_npz(tmp_path: Path) -> None:
    node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    names = ("file", "b")
    graph = onnx.helper.make_graph(
        [node("Relu", ["x"], ["file"]), node("Sigmoid", ["x"], ["b"])],
        "two",
        [value("x", onnx.TensorProto.FLOAT, ["N", 3])],
        [value(name, onnx.TensorProto.FLOAT, ["N", 3]) for name in names],
    )
    opset = onnx.helper.make_opsetid("", 13)
    source, model, x = (tmp_path / name for name in ("two.onnx", "two.pye", "x.npy"))
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), source)
    cli_json("convert", source, "-o", model)
    np.save(x, np.ones((2, 3), np.float32))
    assert_refused(cli("run", model, x, "-o", tmp_path / "y.npy"), ".npz")
    cli_json("run", model, x, "-o", tmp_path / "y.npz")
    with np.load(tmp_path / "y.npz") as arrays:
        assert sorted(arrays) == sorted(names)
        assert np.array_equal(arrays["file"], np.ones((2, 3)))


def test_converters_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyedge import converters

    for name in [name for name in sys.modules if name.startswith("pyedge.converters.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(converters, "conversion", raising=False)
    monkeypatch.setitem(sys.modules, "onnxsim", None)
    with pytest.raises(pyedge.UnsupportedError, match=r"pip install \"pyedge\[convert\]\""):
        converters.__getattr__("convert")


def test_interrupt_leaves_quietly(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pyedge.Session, "run", interrupted)
    result = cli("bench", model)
    assert result.exit_code == 130
    assert "Traceback" not in result.output


def test_quantities() -> None:
    assert [quantity(v, "B") for v in (0, 999, 1000, 1234567)] == [
        "0 B",
        "999 B",
        "1.00 kB",
        "1.23 MB",
    ]


def test_json_has_no_nan() -> None:
    values = {1: float("nan"), "a": np.float32(2), "b": np.array([1, 2]), "c": Path("x"), "d": None}
    assert to_json(values) == {"1": None, "a": 2.0, "b": [1, 2], "c": "x", "d": None}
