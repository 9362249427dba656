"""Face detection: YuNet's outputs to faces, and the faces of real photos."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from pyedge.detector import (
    OUTPUTS,
    STRIDES,
    Face,
    FaceDetector,
    decode,
    intersection_over_union,
    non_maximum_suppression,
)
from pyedge.errors import InvalidArgumentError
from pyedge.images import load_image
from pyedge.metadata import ARCFACE_LANDMARKS, Metadata
from pyedge.recognition import EmbeddedFace, FacePipeline, annotate
from pyedge.session import Session, TensorInfo

CHANNELS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}


def empty_outputs(height: int, width: int) -> dict[str, np.ndarray]:
    return {
        name: np.zeros((1, (height // int(s)) * (width // int(s)), CHANNELS[kind]), np.float32)
        for name in OUTPUTS
        for kind, s in [name.split("_")]
    }


def put_face(
    outputs: dict[str, np.ndarray], width: int, stride: int, cell: tuple[int, int],
    box: tuple[float, float, float, float], points: np.ndarray, cls: float, obj: float,
) -> None:  # fmt: skip
    """Writes what YuNet would have to say to mean this face (centre x, y, width, height)."""
    index = cell[1] * (width // stride) + cell[0]
    centre = np.array(box[:2]) / stride - cell
    outputs[f"bbox_{stride}"][0, index] = [*centre, *np.log(np.array(box[2:]) / stride)]
    outputs[f"kps_{stride}"][0, index] = (points / stride - cell).ravel()
    outputs[f"cls_{stride}"][0, index] = cls
    outputs[f"obj_{stride}"][0, index] = obj


class ScriptedSession:
    """Says at every run that there is one face with the ArcFace template at (64, 32)."""

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self.inputs = [TensorInfo("input", shape)]
        self.outputs = [TensorInfo(name, (1, -1, -1)) for name in OUTPUTS]
        self.metadata = Metadata("bgr")
        self.seen = np.zeros(0, np.float32)

    def run(self, x: np.ndarray) -> list[np.ndarray]:
        self.seen = x
        height, width = x.shape[2:]
        outputs = empty_outputs(height, width)
        points = np.add(ARCFACE_LANDMARKS, (64, 32))
        put_face(outputs, width, 16, (7, 5), (120, 88, 80, 100), points, 0.9, 0.9)
        put_face(outputs, width, 8, (14, 11), (121, 89, 80, 100), points, 0.8, 0.8)
        return [outputs[name] for name in OUTPUTS]


@pytest.mark.parametrize("stride", STRIDES)
def test_decode_inverts_the_definition(stride: int) -> None:
    height, width = 96, 160
    outputs = empty_outputs(height, width)
    points = np.arange(10, dtype=float).reshape(5, 2) * 3 + 20
    put_face(outputs, width, stride, (2, 1), (70.5, 40.25, 30, 44), points, 0.9, 0.4)
    boxes, landmarks, scores = decode(outputs, (height, width), 0.5)
    np.testing.assert_allclose(boxes, [[55.5, 18.25, 85.5, 62.25]], atol=1e-3)
    np.testing.assert_allclose(landmarks, points[None], atol=1e-3)
    assert scores == pytest.approx([math.sqrt(0.9 * 0.4)])
    assert not len(decode(outputs, (height, width), 0.61)[0])


def test_decode_drops_what_is_not_finite() -> None:
    outputs = empty_outputs(64, 64)
    points = np.ones((5, 2))
    for cell, value in (((0, 0), np.nan), ((1, 0), np.inf), ((2, 0), 1e30)):
        put_face(outputs, 64, 8, cell, (8, 8, 8, 8), points, 1, 1)
        outputs["bbox_8"][0, cell[0], 2] = value
    outputs["cls_16"][0, 0] = np.nan
    outputs["obj_32"][:] = 1e9
    outputs["cls_32"][:] = -5
    boxes, _, scores = decode(outputs, (64, 64), 0.5)
    assert len(boxes) == len(scores) == 0


def test_suppression_against_brute_force() -> None:
    random = np.random.default_rng(0)
    corner = random.uniform(0, 60, (80, 2))
    boxes = np.column_stack([corner, corner + random.uniform(5, 30, (80, 2))])
    scores = random.uniform(size=80)

    def overlap(a: np.ndarray, b: np.ndarray) -> float:
        width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
        height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
        return width * height / (area - width * height)

    kept: list[int] = []
    for i in sorted(range(80), key=lambda i: -scores[i]):
        if all(overlap(boxes[i], boxes[j]) <= 0.3 for j in kept):
            kept.append(i)
    assert non_maximum_suppression(boxes, scores, 0.3) == kept
    found = intersection_over_union(boxes[0], boxes)
    np.testing.assert_allclose(found, [overlap(boxes[0], box) for box in boxes])
    assert non_maximum_suppression(boxes[:0], scores[:0], 0.3) == []


@pytest.mark.parametrize(
    ("model", "image", "tensor", "scale"),
    [
        ((1, 3, -1, -1), (300, 200), (320, 224), 1.0),  # padded
        ((1, 3, -1, -1), (1280, 640), (640, 320), 0.5),  # shrunk to max_side
        ((1, 3, 320, 320), (300, 200), (320, 320), 1.0),  # into the model's size
        ((1, 3, 320, 320), (320, 640), (320, 320), 0.5),
    ],
)
def test_faces_come_back_in_image_pixels(
    model: tuple[int, int, int, int],
    image: tuple[int, int],
    tensor: tuple[int, int],
    scale: float,
) -> None:
    session = ScriptedSession(model)
    pixels = np.full((*image, 3), (10, 20, 30), np.uint8)
    (face,) = FaceDetector(session).detect(pixels)
    assert session.seen.shape == (1, 3, *tensor)
    assert session.seen[0, :, 0, 0].tolist() == [30, 20, 10]
    used = round(image[0] * scale), round(image[1] * scale)
    assert not session.seen[0, :, used[0] :].any()
    assert not session.seen[0, :, :, used[1] :].any()
    np.testing.assert_allclose(face.box * scale, [80, 38, 160, 138], rtol=1e-5)
    expected = np.add(ARCFACE_LANDMARKS, (64, 32))
    np.testing.assert_allclose(face.landmarks * scale, expected, rtol=1e-4)
    assert face.score == pytest.approx(0.9)


def test_tiny_and_extreme_images() -> None:
    detector = FaceDetector(ScriptedSession((1, 3, -1, -1)))
    for shape in ((1, 1, 3), (1, 5000, 3), (5000, 1, 3)):
        detector.session.run = lambda x: list(empty_outputs(*x.shape[2:]).values())
        assert detector.detect(np.zeros(shape, np.uint8)) == []


def test_wrong_use_is_refused() -> None:
    session = ScriptedSession((1, 3, -1, -1))
    with pytest.raises(InvalidArgumentError, match="score_threshold"):
        FaceDetector(session, score_threshold=0)
    with pytest.raises(InvalidArgumentError, match="max_side"):
        FaceDetector(session, max_side=16)
    with pytest.raises(InvalidArgumentError, match="expected a uint8 array"):
        FaceDetector(session).detect(np.zeros((8, 8, 3)))
    session.outputs = session.outputs[1:]
    with pytest.raises(InvalidArgumentError, match="cls_8 are missing"):
        FaceDetector(session)


class MeanEmbedder:
    """A network that looks at the mean colour."""

    metadata = Metadata("rgb", (112, 112), landmarks=ARCFACE_LANDMARKS)

    def embed(self, crops: np.ndarray) -> np.ndarray:
        means = crops.reshape(len(crops), -1, 3).mean(axis=1) + 1e-3
        return np.float32(means / np.linalg.norm(means, axis=1, keepdims=True))


def test_pipeline() -> None:
    image = np.full((300, 200, 3), (200, 100, 50), np.uint8)
    image[:, ::2] //= 2
    pipeline = FacePipeline(FaceDetector(ScriptedSession((1, 3, -1, -1))), MeanEmbedder())
    (face,) = pipeline.faces(image)
    assert isinstance(face, EmbeddedFace)
    np.testing.assert_array_equal(face.crop, image[32:144, 64:176])
    assert np.linalg.norm(face.embedding) == pytest.approx(1)
    pipeline.detector.score_threshold = 0.95
    assert pipeline.faces(image) == []


@pytest.mark.parametrize("side", [40, 400, 3000])
def test_annotation_is_in_keeping_with_the_size(side: int) -> None:
    image = np.zeros((side, side, 3), np.uint8)
    box = np.float32([0.2, 0.0, 0.9, 1.2]) * side
    points = np.float32(ARCFACE_LANDMARKS) / 112 * side
    drawn = annotate(image, [Face(box, points, 0.9)], ["1"])
    assert not image.any()
    painted = (drawn.max(axis=2) > 0).mean()
    assert 0.002 < painted < 0.6
    assert drawn[: side // 2, side // 5].any()
    with pytest.raises(InvalidArgumentError, match="0 labels for 1 faces"):
        annotate(image, [Face(box, points, 0.9)], [])
    np.testing.assert_array_equal(annotate(image, []), image)


def test_every_marked_face_of_real_photos(assets: Path) -> None:
    """46 of 46 faces, found by their noses; at most 2 that are none; eyes on their sides."""
    from pyedge.converters import native
    from pyedge.converters.onnx_import import import_onnx
    from pyedge.converters.passes import optimize

    graph = optimize(import_onnx(assets / "models/yunet.onnx"))
    graph.metadata = Metadata("bgr")
    detector = FaceDetector(Session(native.write(graph)))
    noses: dict[str, list[tuple[float, float]]] = {}
    with (assets / "photos/noses.csv").open() as file:
        for row in csv.DictReader(file):
            marked = noses.setdefault(row["image"], [])
            if row["x"]:
                marked.append((float(row["x"]), float(row["y"])))
    found, others = 0, 0
    for name, marked in noses.items():
        faces = detector.detect(load_image(assets / "photos" / name))
        assert all(face.landmarks[0, 0] < face.landmarks[1, 0] for face in faces)
        hits = [
            any(
                np.hypot(*(face.landmarks[2] - nose)) < 0.25 * np.ptp(face.box[::2])
                for nose in marked
            )
            for face in faces
        ]
        found += sum(hits)
        others += len(faces) - sum(hits)
    assert found == sum(map(len, noses.values())) == 46
    assert others <= 2
