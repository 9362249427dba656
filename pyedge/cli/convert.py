"""`pyedge convert`: an ONNX model, or a training checkpoint, to a native file."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console

from pyedge.cli.output import (
    JsonOption,
    Progress,
    console,
    print_json,
    progress,
    quantity,
    table,
    to_json,
)
from pyedge.cli.shapes import parse_size
from pyedge.errors import InvalidArgumentError

if TYPE_CHECKING:
    from pyedge.metadata import Metadata
    from pyedge.trainer.checkpoint import Checkpoint

_WORST = 5  # layers that the terminal shows; the report has them all


class Precision(StrEnum):
    """Of weights and activations."""

    FP32 = "fp32"
    INT8 = "int8"


class Method(StrEnum):
    """How a threshold is chosen for each activation."""

    KL = "kl"
    MINMAX = "minmax"
    PERCENTILE = "percentile"
    MSE = "mse"
    AUTO = "auto"


class Color(StrEnum):
    """Channel order that the network takes."""

    RGB = "rgb"
    BGR = "bgr"


def convert(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL.onnx|CHECKPOINT",
            help="The trained network, or the folder of a checkpoint or run of `pyedge train`.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT.pye", help="The file to write.")],
    precision: Annotated[
        Precision | None,
        typer.Option(help="Default: int8 where there is --calibration.", show_default=False),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|TABLE",
            help="What INT8 is calibrated on: a folder of images of the input's proportions "
            "(faces of 112x112 are aligned for the model, others resized), a folder of .npy "
            "arrays in the input's layout, or a table that --save-table wrote, which brings "
            "its own method, equalization and the like.",
        ),
    ] = None,
    method: Annotated[Method, typer.Option(help="How thresholds are chosen.")] = Method.KL,
    preprocessing: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="How the network wants its pixels; default: MODEL.toml beside the model.",
        ),
    ] = None,
    color: Annotated[Color | None, typer.Option(help="Channel order of the network.")] = None,
    mean: Annotated[
        str | None,
        typer.Option(metavar="M[,M,M]", help="Subtracted from pixels 0...255, by channel."),
    ] = None,
    std: Annotated[
        str | None, typer.Option(metavar="S[,S,S]", help="What is left is divided by this.")
    ] = None,
    scale: Annotated[
        str | None, typer.Option(metavar="S[,S,S]", help="Or multiplied by this.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Width and height of the input.")
    ] = None,
    landmarks: Annotated[
        str | None,
        typer.Option(
            metavar="arcface|X,Y,...",
            help="How faces are aligned: five points in input pixels, ten numbers.",
        ),
    ] = None,
    save_table: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE",
            help="Also write the calibration table: .json, or ncnn's .table with --no-equalize.",
        ),
    ] = None,
    target_cosine: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Leave the worst layers in FP32 until the outputs are this alike.",
        ),
    ] = None,
    equalize: Annotated[
        bool, typer.Option(help="Centre and even out channel ranges across layers first.")
    ] = True,
    bias_correction: Annotated[
        bool, typer.Option(help="Keep the mean of every channel, through the bias.")
    ] = True,
    int8_sums: Annotated[
        bool,
        typer.Option(
            "--int8-sums",
            help="Also run sums and products in INT8 that no convolution absorbs; "
            "networks with gates lose by it.",
        ),
    ] = False,
    percentile: Annotated[
        float, typer.Option(help="Of the magnitudes, for the method of that name.")
    ] = 99.99,
    fp32_layer: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Leave this layer in FP32; may be given repeatedly."),
    ] = None,
    sensitivity: Annotated[
        bool,
        typer.Option("--sensitivity", help="Also measure what each layer alone costs; slow."),
    ] = False,
    fp16_weights: Annotated[
        bool,
        typer.Option(
            "--fp16-weights",
            help="Store the weights of FP32 layers in half precision; they compute in FP32.",
        ),
    ] = False,
    input_shape: Annotated[
        str | None,
        typer.Option(
            metavar="N,C,H,W",
            help="Shape of the input where the model leaves it open: 1,3,112,112.",
        ),
    ] = None,
    external_data: Annotated[
        bool,
        typer.Option("--external-data", help="Read weights that lie in files beside the model."),
    ] = False,
    gallery: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write the class centres of a checkpoint: its people, for recognition.",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", "-t", min=1, help="Threads to calibrate on; default: all cores."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a report: .html, or .json."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Convert a trained network to a native file, in FP32 or quantized to INT8.

    How the network wants its pixels comes from a TOML file (color, input_size, mean, std or
    scale, landmarks), from the options, or both: an option wins over the file. A checkpoint knows
    it by itself.
    """
    from pyedge.converters import convert as convert_model
    from pyedge.converters.arguments import check_float_options, check_paths

    if report is not None and report.suffix not in (".html", ".json"):
        raise InvalidArgumentError(f"{report}: a report is .html or .json")
    if gallery is not None and not model.is_dir():
        raise InvalidArgumentError(f"--gallery: needs a checkpoint; {model} is no folder")
    precision = precision or (Precision.INT8 if calibration else Precision.FP32)
    if precision is Precision.FP32:
        check_float_options({"method": method.value}, {"method": Method.KL.value})
    check_paths(
        {
            "the model": model,
            "--calibration": calibration,
            "the preprocessing": preprocessing or _beside(model),
        },
        {"--out": out, "--save-table": save_table, "--report": report, "--gallery": gallery},
    )
    flags = _flags(color, mean, std, scale, size, landmarks)
    with progress() as advance, _trained(model) as (network, own, checkpoint):
        result = convert_model(
            network,
            out,
            precision=precision.value,
            calibration=calibration,
            method=method.value,
            preprocessing=_preprocessing(model, preprocessing, own, flags),
            equalize=equalize,
            bias_correction=bias_correction,
            int8_sums=int8_sums,
            target_cosine=target_cosine,
            percentile=percentile,
            fp32_layers=fp32_layer or (),
            input_shape=_shape(input_shape),
            sensitivity=sensitivity,
            fp16_weights=fp16_weights,
            allow_external_data=external_data,
            threads=threads,
            save_table=save_table,
            progress=advance,
        )
        if gallery is not None:
            _write_gallery(checkpoint, gallery, out, advance)
    data = result.to_dict()
    if report is not None:
        _write_report(report, data, model.name)
    if as_json:
        print_json(data)
    else:
        _render(console(), data, report, gallery)


@contextmanager
def _trained(model: Path) -> Iterator[tuple[Path, Metadata | None, Checkpoint | None]]:
    """The ONNX file; of a checkpoint also what it says of its pixels, and itself."""
    if not model.is_dir():
        yield model, None, None
        return
    from pyedge.trainer.checkpoint import Checkpoint, find
    from pyedge.trainer.export import export_onnx, load_backbone, metadata

    checkpoint = Checkpoint(find(model))
    network = checkpoint.manifest.network
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{network.name}.onnx"
        own = metadata(checkpoint)
        file.write_bytes(export_onnx(load_backbone(checkpoint), network.size))
        yield file, own, checkpoint


def _write_gallery(
    checkpoint: Checkpoint | None, path: Path, model: Path, advance: Progress
) -> None:
    from pyedge.session import Session
    from pyedge.trainer.gallery import write_gallery

    assert checkpoint is not None
    write_gallery(checkpoint, path, Session(model).metadata.feature_space, advance)


def _flags(
    color: Color | None,
    mean: str | None,
    std: str | None,
    scale: str | None,
    size: str | None,
    landmarks: str | None,
) -> dict[str, Any]:
    """The preprocessing options that were given, by the keys of the TOML file."""
    flags: dict[str, Any] = {} if color is None else {"color": color.value}
    if size is not None:
        flags["input_size"] = parse_size(size)
    for name, text in (("mean", mean), ("std", std), ("scale", scale)):
        if text is not None:
            values = _numbers(name, text)
            flags[name] = values[0] if len(values) == 1 else values
    if landmarks is not None:
        if landmarks == "arcface":
            flags["landmarks"] = landmarks
        else:
            points = np.array(_numbers("landmarks", landmarks))
            if points.size != 10:
                raise InvalidArgumentError("--landmarks takes arcface or ten numbers X,Y,...")
            flags["landmarks"] = points.reshape(5, 2).tolist()
    return flags


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    numbers = _numbers("input-shape", text)
    if not all(number >= 1 and number.is_integer() for number in numbers):
        raise InvalidArgumentError(f"--input-shape is {text!r}; expected whole numbers from 1")
    return tuple(int(number) for number in numbers)


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidArgumentError(
            f"--{name} is {text!r}; expected numbers with commas between them"
        ) from None


def _beside(model: Path) -> Path | None:
    file = model.with_suffix(".toml")
    return file if model.is_file() and file.is_file() else None


def _preprocessing(
    model: Path, file: Path | None, own: Metadata | None, flags: dict[str, Any]
) -> Metadata | None:
    """From the file (or the one beside the model, or the checkpoint's own) and the options."""
    from pyedge.metadata import Metadata

    file = file or _beside(model)
    if file is None and own is None:
        return Metadata.from_dict(flags) if flags else None
    found = own if file is None else Metadata.from_toml(file)
    assert found is not None
    if not flags:
        return found
    given = Metadata.from_dict({"input_size": found.input_size, **flags})
    if "std" in flags:
        flags["scale"] = flags.pop("std")
    return replace(found, **{name: getattr(given, name) for name in flags})


def _write_report(path: Path, data: dict[str, Any], title: str) -> None:
    from pyedge.cli.conversion_report import conversion_html
    from pyedge.files import write_atomically

    if path.suffix == ".html":
        text = conversion_html(data, title)
    else:
        text = json.dumps(to_json(data), indent=1) + "\n"
    write_atomically(path, text.encode())


def _render(out: Console, data: dict[str, Any], report: Path | None, gallery: Path | None) -> None:
    layers = [layer for layer in data["layers"] if layer["snr_db"] is not None]
    if layers:
        worst = sorted(layers, key=lambda layer: layer["snr_db"])[:_WORST]
        rows = [
            [layer["name"], layer["op"], f"{layer['cosine']:.5f}", f"{layer['snr_db']:.1f}"]
            for layer in worst
        ]
        columns = ["layer", "operation", "cosine with FP32", "SNR dB"]
        out.print(table("The layers that INT8 changes most", columns, rows, left=2))
    if data["sensitivity"]:
        worst_alone = sorted(data["sensitivity"].items(), key=lambda item: item[1])[:_WORST]
        rows = [[name, f"{cosine:.6f}"] for name, cosine in worst_alone]
        out.print(table("The layers that cost most alone", ["layer", "cosine"], rows))
    out.print(f"{data['path']}: {quantity(data['file_bytes'], 'B')}, {data['seconds']:.1f} s")
    if data["cosine"] is not None:
        out.print(f"cosine of the output with FP32: {data['cosine']:.5f}", style="bold")
    if report is not None:
        out.print(f"report: {report}")
    if gallery is not None:
        out.print(f"gallery: {gallery}")
