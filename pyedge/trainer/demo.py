"""A run to the end on real faces: train in shards, merge, convert, quantize, judge.

    python -m pyedge.trainer.demo --faces lfw/train --faces lfw/aligned --out run

Trains `demo.toml` on the people with at least four images but a fifth of them, merges the shards,
converts the network to FP32 and to INT8 (calibrated on training images), and says for each how
well it tells apart the people that it never saw. That shows that the path holds; two and a half
thousand images make no face recognition.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from pyedge import Session
from pyedge.cli.output import JsonOption, Progress, console, print_json, progress, table
from pyedge.trainer.checkpoint import Checkpoint
from pyedge.trainer.config import TrainConfig
from pyedge.trainer.curve import draw_curve, read_log
from pyedge.trainer.data import FaceFolder, Pixels, trained_metadata
from pyedge.trainer.export import export_onnx, load_backbone, metadata
from pyedge.trainer.launch import launch
from pyedge.trainer.shards import merge
from pyedge.trainer.train import LOG
from pyedge.verification import auc, normalized

RECIPE = Path(__file__).with_name("demo.toml")
_CALIBRATION = 200  # images of the training set


def run(
    folders: list[str], out: Path, ranks: int = 2, show: Progress | None = None, **changes: Any
) -> dict[str, Any]:
    """Goes the whole path.

    Args:
        folders: of aligned crops, see `FaceFolder`.
        changes: keys of the recipe that are to be others.

    Returns:
        Plain values: people and images on both sides, seconds of training, and the AUC over all
        pairs of the people kept out, by the network in torch, native in FP32 and in INT8.
    """
    from pyedge.converters import convert

    recipe = TrainConfig.from_toml(RECIPE).to_dict()
    config = TrainConfig.from_dict({**recipe, "data": folders, **changes})
    faces = FaceFolder.scan(folders).at_least(config.min_images)
    seen, unseen = faces.hold_out(config.hold_out)
    result = launch(config, out / "run", ranks, show)
    assert result is not None
    draw_curve(read_log(out / "run" / LOG), out / "curve.png")

    merge(result.checkpoint, out / "merged", show)
    checkpoint = Checkpoint(out / "merged")
    network = load_backbone(checkpoint)
    pixels = Pixels(metadata=trained_metadata(config.size))

    def crops(faces: FaceFolder, indices: range) -> np.ndarray:
        return np.stack([pixels.fit(faces.load(index)) for index in indices])

    onnx = out / "network.onnx"
    onnx.write_bytes(export_onnx(network, config.size))
    every = max(1, len(seen.paths) // _CALIBRATION)
    chosen = crops(seen, range(0, len(seen.paths), every))
    calibration = [pixels.metadata.apply(part) for part in np.array_split(chosen, len(chosen) // 8)]
    described = metadata(checkpoint)
    convert(onnx, out / "fp32.pye", "fp32", preprocessing=described)
    convert(onnx, out / "int8.pye", "int8", calibration, preprocessing=described, progress=show)

    judged = crops(unseen, range(len(unseen.paths)))
    sessions = {name: Session(out / f"{name}.pye", threads=2) for name in ("fp32", "int8")}

    def in_torch(part: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            features: np.ndarray = network(torch.from_numpy(pixels.metadata.apply(part))).numpy()
            return features

    def area(embed: Callable[[np.ndarray], np.ndarray]) -> float:
        parts = [embed(judged[i : i + 32]) for i in range(0, len(judged), 32)]
        return auc(normalized(np.concatenate(parts)), unseen.labels)

    areas = {"torch FP32": area(in_torch), "native FP32": area(sessions["fp32"].embed)}
    areas["native INT8"] = area(sessions["int8"].embed)
    return {
        "trained_on": {"people": len(seen.names), "images": len(seen.paths)},
        "judged_on": {"people": len(unseen.names), "images": len(unseen.paths)},
        "ranks": ranks,
        "training_seconds": result.seconds,
        "images_per_second": result.images_per_second,
        "training_accuracy": result.accuracy,
        "auc": areas,
        "checkpoint": str(result.checkpoint),
    }


def main(
    faces: Annotated[list[Path], typer.Option(metavar="DIR", help="Folders of aligned crops.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="For all that is made.")],
    ranks: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    as_json: JsonOption = False,
) -> None:
    """Train on faces, merge, convert, quantize, and judge on people who were kept out."""
    started = time.monotonic()
    with progress() as advance:
        found = run([str(folder) for folder in faces], out, ranks, advance)
    found["seconds"] = time.monotonic() - started
    if as_json:
        print_json(found)
        return
    rows = [[name, f"{area:.4f}"] for name, area in found["auc"].items()]
    seen, unseen = found["trained_on"], found["judged_on"]
    screen = console()
    screen.print(table("Area under the ROC curve, people never seen", ["network", "AUC"], rows))
    screen.print(
        f"trained on {seen['images']} images of {seen['people']} people, {ranks} ranks; judged on "
        f"{unseen['images']} of {unseen['people']} others; {found['seconds']:.0f} s, of which "
        f"training {found['training_seconds']:.0f} s"
    )


if __name__ == "__main__":
    typer.run(main)
