"""The whole path on the default models: convert, quantize, find the faces, and what it cost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pyedge.align import crops_for_model
from pyedge.detector import Face, FaceDetector, intersection_over_union
from pyedge.errors import InvalidArgumentError, PyEdgeError, UnsupportedError
from pyedge.images import list_images, load_image, save_image
from pyedge.models import SFACE, YUNET, DefaultModel, default_photo
from pyedge.recognition import EmbeddedFace, EmbeddingSession, FacePipeline, annotate
from pyedge.session import Session, check_threads
from pyedge.verification import cosines, normalized

Progress = Callable[[str, int, int], None]  # what is going on, done, of how many

_STEPS = 5
# Faces of two precisions are the same one from this intersection over union.
_SAME_FACE = 0.5
_FEW_FACES, _ADVISED_FACES = 20, 100  # to calibrate on


@dataclass
class ModelFigures:
    """One model in both precisions; milliseconds are medians of interleaved runs of one image."""

    name: str
    fp32_path: str
    int8_path: str
    fp32_bytes: int
    int8_bytes: int
    fp32_ms: float
    int8_ms: float


@dataclass
class FoundFace:
    """A face that the INT8 models found; `label` is what the picture says."""

    label: str
    picture: str
    score: float
    box: list[float]


@dataclass
class QuantizationLoss:
    """INT8 against FP32 on the faces found.

    Attributes:
        faces: that FP32 found.
        missed, added: faces that INT8 did not find, or found besides.
        box_iou_mean, box_iou_min: of the boxes of a face in both.
        cosine_mean, cosine_min: of the embeddings of the same crops.
        path_cosine_mean, path_cosine_min: of the embeddings when each precision detects,
            aligns and embeds by itself.
    """

    faces: int = 0
    missed: int = 0
    added: int = 0
    box_iou_mean: float | None = None
    box_iou_min: float | None = None
    cosine_mean: float | None = None
    cosine_min: float | None = None
    path_cosine_mean: float | None = None
    path_cosine_min: float | None = None


@dataclass
class QuickstartReport:
    """What `quickstart` did and found; plain data.

    Attributes:
        annotated: the pictures written, in the order of the images.
        similarity: cosine of each two of `faces`, INT8.
        calibration: what the INT8 thresholds come from.
        notes: what to know before trusting the figures, such as that no face was found.
    """

    threads: int
    isa: str
    calibration: str
    models: list[ModelFigures] = field(default_factory=list)
    annotated: list[str] = field(default_factory=list)
    faces: list[FoundFace] = field(default_factory=list)
    similarity: list[list[float]] = field(default_factory=list)
    loss: QuantizationLoss = field(default_factory=QuantizationLoss)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def quickstart(
    out_dir: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    calibration: str | os.PathLike[str] | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> QuickstartReport:
    """Converts the default models to FP32 and INT8, runs both on photos, and compares.

    Args:
        out_dir: gets the four model files and the annotated pictures; made where missing.
        images: folder of photos; by default scikit-image's astronaut, also mirrored and at half
            its size, so that there is something to compare.
        calibration: folder of photos with faces to calibrate on; by default thresholds computed
            beforehand from real faces.
        threads: of each session.
        progress: called with what is going on, how much is done, of how much.

    Raises:
        UnsupportedError: the extras `models` or `convert` are not installed.
        InvalidImageError, InvalidArgumentError: a folder without usable photos, or a number of
            threads that a session refuses. Nothing is written for a bad argument.
    """
    check_threads(threads)
    photos = _astronaut() if images is None else _decoded(list_images(images))
    calibration_photos = None if calibration is None else list_images(calibration)
    out = Path(out_dir)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PyEdgeError(f"{out}: cannot be made: {error.strerror}") from error

    def step(done: int, what: str) -> None:
        if progress is not None:
            progress(what, done, _STEPS)

    step(0, "converting to FP32")
    fp32 = [_convert(model, out, "fp32", None) for model in (YUNET, SFACE)]
    sessions_fp32 = [Session(path, threads) for path in fp32]
    pipeline_fp32 = _pipeline(sessions_fp32)
    step(1, "calibrating")
    tables: Sequence[Any] = [shipped_table(model) for model in (YUNET, SFACE)]
    if calibration_photos is not None:
        tables = _batches(calibration_photos, pipeline_fp32)
    step(2, "converting to INT8")
    int8 = [
        _convert(model, out, "int8", table)
        for model, table in zip((YUNET, SFACE), tables, strict=True)
    ]
    sessions_int8 = [Session(path, threads) for path in int8]
    pipeline_int8 = _pipeline(sessions_int8)
    step(3, "finding the faces")
    report = QuickstartReport(
        threads,
        sessions_int8[0].isa,
        "thresholds that come with pyedge" if calibration is None else str(calibration),
    )
    found = []
    for name, photo in photos:
        faces = pipeline_fp32.faces(photo), pipeline_int8.faces(photo)
        found.append(faces)
        labels = _describe_faces(report, name, faces[1])
        path = out / f"{name}-faces.jpg"
        save_image(path, annotate(photo, faces[1], labels))
        report.annotated.append(str(path))
    report.similarity = _similarity([face for _, faces in found for face in faces])
    report.loss = _loss(found, pipeline_fp32.embedder, pipeline_int8.embedder)
    if calibration_photos is not None and len(tables[1]) < _FEW_FACES:
        report.notes.append(
            f"Calibrated on {_count(len(tables[1]), 'face')} in "
            f"{_count(len(calibration_photos), 'photo')}: {_ADVISED_FACES} faces or more are "
            "advisable."
        )
    if not report.faces:
        report.notes.append(_no_faces(report))
    step(4, "measuring the speed")
    inputs = _timing_inputs(photo, pipeline_fp32)
    for i, model in enumerate((YUNET, SFACE)):
        report.models.append(
            ModelFigures(
                model.name,
                str(fp32[i]),
                str(int8[i]),
                fp32[i].stat().st_size,
                int8[i].stat().st_size,
                *interleaved_ms((sessions_fp32[i], sessions_int8[i]), inputs[i]),
            )
        )
    step(_STEPS, "done")
    return report


def interleaved_ms(sessions: Sequence[Session], x: np.ndarray, runs: int = 20) -> list[float]:
    """Median milliseconds of `run(x)` for each session, taking turns so that a busy moment of
    the machine meets them all."""
    seconds: list[list[float]] = [[] for _ in sessions]
    for turn in range(runs + 1):
        for session, times in zip(sessions, seconds, strict=True):
            start = time.perf_counter()
            session.run(x)
            if turn:  # the first makes the plan
                times.append(time.perf_counter() - start)
    return [1e3 * float(np.median(times)) for times in seconds]


def match_faces(
    first: Sequence[Face], second: Sequence[Face], threshold: float = _SAME_FACE
) -> list[tuple[int, int, float]]:
    """Pairs of the same face in two lists, greedily by intersection over union: (i, j, IoU)."""
    if not first or not second:
        return []
    boxes = np.stack([face.box for face in second]).astype(np.float64)
    overlap = np.stack([intersection_over_union(face.box, boxes) for face in first])
    matches: list[tuple[int, int, float]] = []
    for flat in np.argsort(-overlap, axis=None, kind="stable"):
        i, j = divmod(int(flat), len(second))
        taken = any(i == a or j == b for a, b, _ in matches)
        if overlap[i, j] >= threshold and not taken:
            matches.append((i, j, float(overlap[i, j])))
    return matches


def _astronaut() -> Iterator[tuple[str, np.ndarray]]:
    """The default photo, mirrored, and with each 2×2 pixels averaged."""
    photo = load_image(default_photo())
    yield "astronaut", photo
    yield "astronaut-mirrored", np.ascontiguousarray(photo[:, ::-1])
    rows, columns = photo.shape[0] // 2, photo.shape[1] // 2
    blocks = photo[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2, 3)
    yield "astronaut-half", np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)


def _decoded(paths: Sequence[Path]) -> Iterator[tuple[str, np.ndarray]]:
    """Name and pixels, one at a time: a folder of photos can be larger than the memory."""
    stems = [path.stem for path in paths]
    for path in paths:
        yield path.name if stems.count(path.stem) > 1 else path.stem, load_image(path)


def shipped_table(model: DefaultModel) -> Path:
    """The calibration table of a default model that comes with pyedge; how it was made is in
    `pyedge.calibration.default_tables`."""
    return Path(__file__).parent / "data" / model.table


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _no_faces(report: QuickstartReport) -> str:
    photos = _count(len(report.annotated), "photo")
    if report.loss.faces:
        missed = _count(report.loss.faces, "face")
        return f"INT8 found no face in {photos}; FP32 found {missed}."
    return f"No face was found in {photos}: nothing shows what INT8 costs."


def _batches(paths: Sequence[Path], pipeline: FacePipeline) -> list[list[np.ndarray]]:
    """What each model is calibrated on: the photos, and the faces found in them."""
    tensors, crops = [], []
    for path in paths:
        photo = load_image(path)
        tensors.append(pipeline.detector.tensor(photo)[0])
        crops += [face.crop for face in pipeline.faces(photo)]
    if not crops:
        folder = paths[0].parent
        raise InvalidArgumentError(f"{folder}: no faces in these photos to calibrate on")
    metadata = pipeline.embedder.metadata
    return [tensors, [metadata.apply(crops_for_model(crop[None], metadata)) for crop in crops]]


def _convert(model: DefaultModel, out: Path, precision: str, calibration: Any) -> Path:
    try:
        from pyedge.converters import convert
    except ImportError as error:
        raise UnsupportedError(
            f'{error.name} is not installed: pip install "pyedge[convert,models]"'
        ) from error

    path = out / f"{model.name.lower()}-{precision}.pye"
    convert(
        model.path(),
        path,
        precision=precision,
        calibration=calibration,
        method=model.method,
        preprocessing=model.metadata,
    )
    return path


def _pipeline(sessions: Sequence[Session]) -> FacePipeline:
    detector, embedder = sessions
    return FacePipeline(FaceDetector(detector), embedder)


def _describe_faces(
    report: QuickstartReport, picture: str, faces: Sequence[EmbeddedFace]
) -> list[str]:
    """Adds the faces to the report and returns their labels, counted over all pictures."""
    labels = [str(len(report.faces) + 1 + i) for i in range(len(faces))]
    for label, face in zip(labels, faces, strict=True):
        box = [round(float(edge), 1) for edge in face.box]
        report.faces.append(FoundFace(label, picture, round(face.score, 4), box))
    return labels


def _similarity(faces: Sequence[EmbeddedFace]) -> list[list[float]]:
    if not faces:
        return []
    embeddings = np.stack([face.embedding for face in faces])
    return [[round(float(cosine), 4) for cosine in row] for row in embeddings @ embeddings.T]


def _loss(
    found: Sequence[tuple[Sequence[EmbeddedFace], Sequence[EmbeddedFace]]],
    fp32: EmbeddingSession,
    int8: EmbeddingSession,
) -> QuantizationLoss:
    loss, overlaps, same_crop, whole_path = QuantizationLoss(), [], [], []
    for fp32_faces, int8_faces in found:
        matches = match_faces(fp32_faces, int8_faces)
        loss.faces += len(fp32_faces)
        loss.missed += len(fp32_faces) - len(matches)
        loss.added += len(int8_faces) - len(matches)
        overlaps += [overlap for _, _, overlap in matches]
        for i, j, _ in matches:
            whole_path.append(float(fp32_faces[i].embedding @ int8_faces[j].embedding))
        if fp32_faces:
            crops = crops_for_model(np.stack([f.crop for f in fp32_faces]), int8.metadata)
            embeddings = [normalized(session.embed(crops)) for session in (fp32, int8)]
            same_crop += cosines(*embeddings).tolist()
    for name, values in (
        ("box_iou", overlaps),
        ("cosine", same_crop),
        ("path_cosine", whole_path),
    ):
        if values:
            setattr(loss, f"{name}_mean", float(np.mean(values)))
            setattr(loss, f"{name}_min", float(np.min(values)))
    return loss


def _timing_inputs(photo: np.ndarray, pipeline: FacePipeline) -> list[np.ndarray]:
    """A photo for the detector, and a crop for the embedder; its pixels do not matter."""
    metadata = pipeline.embedder.metadata
    width, height = metadata.input_size
    noise = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    return [pipeline.detector.tensor(photo)[0], metadata.apply(noise)]
