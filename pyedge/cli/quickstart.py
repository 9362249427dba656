"""`pyedge quickstart`: the whole path on the default models and a photo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pyedge.cli.output import (
    JsonOption,
    ThreadsOption,
    console,
    print_json,
    progress,
    quantity,
    table,
)

if TYPE_CHECKING:
    from pyedge.quickstart import QuickstartReport

_SHOWN_FACES = 16  # a wider table helps nobody


def quickstart(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the models and the pictures.")
    ] = Path("pyedge-quickstart"),
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Your photos; default: one that comes with a package."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Photos with faces to calibrate on; default: thresholds that come with pyedge.",
        ),
    ] = None,
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Quantize the default face models, find and compare faces, show what INT8 costs.

    Takes the detector YuNet and the embedder SFace from the extra `models`, converts both to
    FP32 and INT8, and runs both precisions on the photos.
    """
    from pyedge.quickstart import quickstart as run

    with progress() as advance:
        report = run(out, images, calibration, threads, advance)
    if as_json:
        print_json(report.to_dict())
    else:
        _render(console(), report)


def _render(out: Console, report: QuickstartReport) -> None:
    faces = report.faces[:_SHOWN_FACES]
    for note in report.notes:
        out.print(note, style="bold")
    if len(faces) > 1:
        rows = [
            [f"{face.label} {face.picture}", *(f"{c:.3f}" for c in cosines[: len(faces)])]
            for face, cosines in zip(faces, report.similarity, strict=False)
        ]
        title = "How alike the faces are: cosine of their INT8 features"
        out.print(table(title, ["", *(face.label for face in faces)], rows))
    if len(report.faces) > len(faces):
        out.print(f"{len(report.faces)} faces, the first {len(faces)} shown; all with --json")
    rows = [
        [
            model.name,
            quantity(model.fp32_bytes, "B"),
            quantity(model.int8_bytes, "B"),
            f"{model.fp32_bytes / model.int8_bytes:.1f}x",
            f"{model.fp32_ms:.2f}",
            f"{model.int8_ms:.2f}",
            f"{model.fp32_ms / model.int8_ms:.1f}x",
        ]
        for model in report.models
    ]
    columns = ["", "FP32", "INT8", "smaller", "FP32 ms", "INT8 ms", "faster"]
    plural = "" if report.threads == 1 else "s"
    title = f"What INT8 gains, on {report.threads} thread{plural}, {report.isa}"
    out.print(table(title, columns, rows))
    out.print(table("What INT8 costs, against FP32", ["", ""], _loss(report)))
    out.print(f"calibrated on: {report.calibration}")
    for path in report.annotated:
        out.print(f"picture: {path}", style="bold", soft_wrap=True)


def _loss(report: QuickstartReport) -> list[list[str]]:
    loss = report.loss
    rows = [
        ["faces that FP32 found", str(loss.faces)],
        ["missed by INT8, found besides", f"{loss.missed}, {loss.added}"],
    ]
    for what, mean, least in (
        ("overlap of the boxes", loss.box_iou_mean, loss.box_iou_min),
        ("cosine of the features, same crop", loss.cosine_mean, loss.cosine_min),
        ("cosine of the features, whole path", loss.path_cosine_mean, loss.path_cosine_min),
    ):
        if mean is not None:
            rows.append([what, f"mean {mean:.4f}, least {least:.4f}"])
    return rows
