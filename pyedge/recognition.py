"""From a photo to face features: detect, align, embed; and the picture with what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pyedge.align import align, crops_for_model
from pyedge.detector import Face, FaceDetector
from pyedge.errors import InvalidArgumentError
from pyedge.images import check_image
from pyedge.metadata import Metadata

_PALETTE = ((255, 196, 0), (0, 220, 255), (110, 255, 110), (255, 110, 200), (255, 140, 60))


class EmbeddingSession(Protocol):
    """What the pipeline needs of `pyedge.Session`."""

    @property
    def metadata(self) -> Metadata: ...
    def embed(self, crops: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class EmbeddedFace(Face):
    """A face with its feature.

    Attributes:
        crop: uint8 RGB [112, 112, 3] in ArcFace's alignment.
        embedding: float32 [D], L2-normalized. It identifies a person, and a likeness can be
            reconstructed from it: keep it as carefully as the photo.
    """

    crop: np.ndarray
    embedding: np.ndarray


class FacePipeline:
    """Detects, aligns and embeds the faces of an image.

    Embeddings (and crops) are biometric personal data: in many places the law asks for consent
    before they are made and limits how long they are kept. The pipeline stores nothing.

    Like its sessions, it is used by one thread at a time.
    """

    def __init__(self, detector: FaceDetector, embedder: EmbeddingSession) -> None:
        self.detector = detector
        self.embedder = embedder

    def faces(self, image: np.ndarray) -> list[EmbeddedFace]:
        """The faces of a uint8 RGB image [H, W, 3], best score first.

        Raises:
            InvalidArgumentError: another shape or dtype.
        """
        found, crops, embeddings = self.detector.detect(image), [], np.zeros((0, 0), np.float32)
        if found:
            crops = [align(image, face.landmarks) for face in found]
            embeddings = self.embedder.embed(
                crops_for_model(np.stack(crops), self.embedder.metadata)
            )
        return [
            EmbeddedFace(face.box, face.landmarks, face.score, crop, embedding)
            for face, crop, embedding in zip(found, crops, embeddings, strict=True)
        ]


def annotate(
    image: np.ndarray, faces: Sequence[Face], labels: Sequence[str] | None = None
) -> np.ndarray:
    """A copy of the image with boxes, landmarks and labels, their lines in keeping with its size.

    Args:
        image: uint8 RGB [H, W, 3].
        labels: one for each face; numbers from 1 where None.

    Raises:
        InvalidArgumentError: another shape or dtype, or another number of labels than faces.
    """
    check_image(image)
    labels = [str(i + 1) for i in range(len(faces))] if labels is None else labels
    if len(labels) != len(faces):
        raise InvalidArgumentError(f"{len(labels)} labels for {len(faces)} faces")
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    line = max(1, round(max(image.shape[:2]) / 300))
    font = ImageFont.load_default(size=max(10, 7 * line))
    for i, (face, label) in enumerate(zip(faces, labels, strict=True)):
        color = _PALETTE[i % len(_PALETTE)]
        left, top, right, bottom = (round(float(edge)) for edge in face.box)
        right, bottom = max(left, right), max(top, bottom)
        draw.rectangle((left - line, top - line, right + line, bottom + line), None, (0, 0, 0))
        draw.rectangle((left, top, right, bottom), None, color, width=line)
        for x, y in face.landmarks:
            draw.circle((float(x), float(y)), 1.3 * line + 0.5, color, (0, 0, 0))
        _draw_label(draw, label, (left, top), font, color, picture.size)
    return np.array(picture)


def _draw_label(draw, text, corner, font, color, size) -> None:  # type: ignore[no-untyped-def]
    """A filled tag above the corner, moved so that it lies within the picture."""
    box = draw.textbbox((0, 0), text, font)
    pad = max(2, round(font.size / 6))
    width, height = box[2] - box[0] + 2 * pad, box[3] - box[1] + 2 * pad
    x = min(max(corner[0], 0), max(size[0] - width, 0))
    y = min(max(corner[1] - height, 0), max(size[1] - height, 0))
    draw.rectangle((x, y, x + width, y + height), fill=color)
    draw.text((x + pad - box[0], y + pad - box[1]), text, (0, 0, 0), font)
