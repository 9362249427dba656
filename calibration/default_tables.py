"""Makes the calibration tables that come with pyedge, from real faces.

    python -m pyedge.calibration.default_tables CROPS PHOTOS OUT

CROPS is a folder of faces in ArcFace's 112×112 alignment, for the embedder; PHOTOS one or more
folders of photos, separated by commas, for the detector. OUT gets `sface.calibration.json` and
`yunet.calibration.json`. The tables hold ranges and thresholds of activations, no pixels.

Those in `pyedge/data` were made from 600 LFW crops of people who are in none of LFW's pairs, and
from 18 photos of groups and single people together with 60 whole LFW images.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pyedge import Session
from pyedge.align import crops_for_model
from pyedge.converters import convert
from pyedge.detector import FaceDetector
from pyedge.images import list_images, load_image
from pyedge.models import SFACE, YUNET

PHOTOS_OF_A_FOLDER = 60
BATCH = 8


def make_tables(crops: Path, photos: Sequence[Path], out: Path) -> None:
    """Writes both tables to the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model.pye"
        convert(YUNET.path(), model, preprocessing=YUNET.metadata)
        detector = FaceDetector(Session(model))
        tensors = [
            detector.tensor(load_image(path))[0]
            for folder in photos
            for path in list_images(folder)[:PHOTOS_OF_A_FOLDER]
        ]
        images = [load_image(path) for path in list_images(crops)]
        faces = [
            SFACE.metadata.apply(crops_for_model(np.stack(images[i : i + BATCH]), SFACE.metadata))
            for i in range(0, len(images), BATCH)
        ]
        for default, batches in ((YUNET, tensors), (SFACE, faces)):
            convert(
                default.path(),
                model,
                "int8",
                batches,
                default.method,
                default.metadata,
                save_table=out / default.table,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("crops", type=Path)
    parser.add_argument("photos", help="folders, separated by commas")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    make_tables(given.crops, [Path(folder) for folder in given.photos.split(",")], given.out)


if __name__ == "__main__":
    main()
