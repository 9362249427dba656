"""Face detection with YuNet: five landmarks for every face, at any image size.

W. Wu, H. Peng, S. Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence
Research 20, 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pyedge.errors import InvalidArgumentError
from pyedge.images import check_image
from pyedge.metadata import Metadata, Preprocessing

STRIDES = (8, 16, 32)
# YuNet's points come in the order of ARCFACE_LANDMARKS: the person's right eye first.
OUTPUTS = tuple(f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in STRIDES)


class ImageSession(Protocol):
    """What the detector needs of `pyedge.Session`."""

    @property
    def inputs(self) -> list[Any]: ...
    @property
    def outputs(self) -> list[Any]: ...
    @property
    def metadata(self) -> Metadata: ...
    def run(self, x: np.ndarray) -> list[np.ndarray]: ...


@dataclass(frozen=True, eq=False)
class Face:
    """A face in an image, in its pixels.

    Attributes:
        box: float32 [4], left, top, right, bottom; may reach over the border.
        landmarks: float32 [5, 2], the person's right eye, left eye, nose tip, right and left
            corner of the mouth.
        score: 0…1.
    """

    box: np.ndarray
    landmarks: np.ndarray
    score: float


class FaceDetector:
    """YuNet behind a session.

    Like the session, it is used by one thread at a time.

    Args:
        session: of a YuNet model; its outputs are `cls_8` to `kps_32`.
        score_threshold: faces below are dropped.
        nms_threshold: of two boxes whose intersection over union is above, the weaker is dropped.
        max_side: larger images are shrunk to it first, keeping their shape; smaller ones are
            never enlarged. A model of fixed input size bounds it too.

    Raises:
        InvalidArgumentError: the model's outputs are not YuNet's, or an option is out of range.
    """

    def __init__(
        self,
        session: ImageSession,
        score_threshold: float = 0.6,
        nms_threshold: float = 0.3,
        max_side: int = 640,
    ) -> None:
        if not 0 < score_threshold <= 1 or not 0 < nms_threshold <= 1:
            raise InvalidArgumentError(
                f"score_threshold is {score_threshold}, nms_threshold {nms_threshold}; "
                "expected above 0 and at most 1"
            )
        if max_side < 32:
            raise InvalidArgumentError(f"max_side is {max_side}; expected at least 32 pixels")
        names = [output.name for output in session.outputs]
        missing = [name for name in OUTPUTS if name not in names]
        if missing:
            raise InvalidArgumentError(
                f"no YuNet detector: outputs {', '.join(missing)} are missing"
            )
        self.session = session
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        self.max_side = max_side
        self._names = names
        metadata = session.metadata
        # Without its size: padded images come in many.
        self._preprocessing = Preprocessing(
            metadata.color, mean=metadata.mean, scale=metadata.scale
        )
        height, width = session.inputs[0].shape[2:]
        self._fixed_size = (width, height) if width > 0 and height > 0 else None

    def detect(self, image: np.ndarray) -> list[Face]:
        """The faces in a uint8 RGB image [H, W, 3], best score first.

        Raises:
            InvalidArgumentError: another shape or dtype.
        """
        tensor, scale = self.tensor(image)
        outputs = dict(zip(self._names, self.session.run(tensor), strict=True))
        boxes, landmarks, scores = decode(outputs, tensor.shape[2:], self.score_threshold)
        faces = []
        for i in non_maximum_suppression(boxes, scores, self.nms_threshold):
            box, points = boxes[i] / np.tile(scale, 2), landmarks[i] / scale
            faces.append(Face(box.astype(np.float32), points.astype(np.float32), float(scores[i])))
        return faces

    def tensor(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The network's input for an image, and the factors [2] from image to input pixels.

        The image is shrunk to the limits where it is larger, and padded with black on the right
        and below.

        Args:
            image: uint8 RGB [H, W, 3].

        Returns:
            float32 [1, 3, H', W'], and float64 (x, y).
        """
        check_image(image)
        height, width = image.shape[:2]
        limits = self._fixed_size or (self.max_side, self.max_side)
        ratio = min(1.0, self.max_side / max(width, height), *np.divide(limits, (width, height)))
        size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
        if size != (width, height):
            from PIL import Image

            resized = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
            image = np.asarray(resized)
        padded = self._fixed_size or tuple(-(-side // 32) * 32 for side in size)
        canvas = np.zeros((padded[1], padded[0], 3), np.uint8)
        canvas[: size[1], : size[0]] = image
        return self._preprocessing.apply(canvas[None]), np.divide(size, (width, height))


def decode(
    outputs: dict[str, np.ndarray], size: tuple[int, ...], score_threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes [K, 4] (left, top, right, bottom), landmarks [K, 5, 2] and scores [K] of one image.

    A cell (column, row) of stride s predicts the score sqrt(cls · obj), the box's centre
    s · (cell + offset) and size s · exp(value), and the landmarks s · (cell + offset), as YuNet's
    paper and OpenCV's FaceDetectorYN define them. Cells that are not finite are dropped.

    Args:
        outputs: `cls_8` to `kps_32`, [1, cells, …].
        size: height and width of the network's input.
    """
    boxes, landmarks, scores = [], [], []
    for stride in STRIDES:
        rows, columns = size[0] // stride, size[1] // stride
        cls, obj, bbox, kps = (
            outputs[f"{kind}_{stride}"].reshape(rows * columns, -1).astype(np.float64)
            for kind in ("cls", "obj", "bbox", "kps")
        )
        score = np.sqrt(np.clip(cls, 0, 1) * np.clip(obj, 0, 1))[:, 0]
        kept = np.flatnonzero(score >= score_threshold)
        cell = np.column_stack([kept % columns, kept // columns])
        centre = (cell + bbox[kept, :2]) * stride
        with np.errstate(over="ignore"):
            half = np.exp(bbox[kept, 2:]) * stride / 2
        points = (cell[:, None] + kps[kept].reshape(-1, 5, 2)) * stride
        box = np.concatenate([centre - half, centre + half], axis=1)
        finite = np.isfinite(box).all(axis=1) & np.isfinite(points).all(axis=(1, 2))
        boxes.append(box[finite])
        landmarks.append(points[finite])
        scores.append(score[kept][finite])
    return np.concatenate(boxes), np.concatenate(landmarks), np.concatenate(scores)


def intersection_over_union(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Of one box [4] with each of boxes [K, 4] (left, top, right, bottom): [K], 0…1."""
    overlap = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    intersection = overlap.clip(0).prod(axis=1)
    union = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) - intersection
    share: np.ndarray = intersection / np.maximum(union, np.finfo(np.float64).tiny)
    return share


def non_maximum_suppression(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """Indices of the boxes kept, best score first.

    Greedy: a box goes when its intersection over union with a better one is above `threshold`.
    """
    order = np.argsort(-scores, kind="stable")
    kept = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        order = rest[intersection_over_union(boxes[best], boxes[rest]) <= threshold]
    return kept
