"""Models side by side on faces: accuracy, TAR at FAR, and what a precision costs."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pyedge.align import crops_for_model
from pyedge.errors import InvalidArgumentError
from pyedge.images import list_images, load_image
from pyedge.metadata import ARCFACE_SIZE
from pyedge.recognition import EmbeddingSession
from pyedge.verification import (
    FARS,
    AllPairs,
    Interval,
    LfwAccuracy,
    accuracy_difference,
    all_pairs,
    cosines,
    lfw_accuracy,
    normalized,
    operating_point,
    tar_difference,
)

Progress = Callable[[str, int, int], None]  # what is going on, done, of how many

_COLUMNS = ["fold", "first", "second", "same"]


@dataclass(frozen=True)
class Pair:
    """A row of a pairs file: two image names of a fold, of the same person or not."""

    fold: str
    first: str
    second: str
    same: bool


@dataclass
class ModelResult:
    """How one model does.

    Attributes:
        accuracy, accuracy_std, accuracy_thresholds: LFW protocol, 0…1; None without pairs.
        thresholds, tar: by false accept rate, over all pairs of the folder; None where there
            are too few impostors for the rate.
        curve: false and true accept rates, in rising order.
    """

    accuracy: float | None = None
    accuracy_std: float | None = None
    accuracy_thresholds: list[float] = field(default_factory=list)
    thresholds: dict[float, float | None] = field(default_factory=dict)
    tar: dict[float, float | None] = field(default_factory=dict)
    curve: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class Comparison:
    """A model minus the reference, each at its own threshold, with 95 % bootstrap intervals.

    Attributes:
        cosine_mean, cosine_p1, cosine_min: between the two embeddings of an image; None where
            the models' feature spaces or embedding sizes differ, as they are not comparable.
    """

    reference: str
    cosine_mean: float | None = None
    cosine_p1: float | None = None
    cosine_min: float | None = None
    accuracy: Interval | None = None
    tar: dict[float, Interval | None] = field(default_factory=dict)


@dataclass
class EvaluationReport:
    """What `evaluate` found; plain data, `to_dict` for JSON."""

    images: int
    identities: int
    pairs: int = 0
    folds: int = 0
    genuine_pairs: int = 0
    impostor_pairs: int = 0
    models: dict[str, ModelResult] = field(default_factory=dict)
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; false accept rates become keys such as "1e-4", no number NaN."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"


def read_pairs(path: str | os.PathLike[str]) -> list[Pair]:
    """Reads a CSV file with the columns fold, first, second, same (0 or 1).

    Raises:
        InvalidArgumentError: unreadable, or a line that is not of this form; it is named.
    """
    pairs = []
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = [(name or "").strip() for name in reader.fieldnames or []]
            if header != _COLUMNS:
                raise InvalidArgumentError(
                    f"{path}, line 1: columns are {','.join(header)!r}; expected "
                    f"{','.join(_COLUMNS)!r}"
                )
            reader.fieldnames = header
            for row in reader:
                pairs.append(_pair(row, f"{path}, line {reader.line_num}"))
    except OSError as error:
        raise InvalidArgumentError(f"{path}: cannot be read: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"{path}: not a CSV file in UTF-8: {error}") from error
    if not pairs:
        raise InvalidArgumentError(f"{path}: no pairs after the header")
    return pairs


def identity_of(name: str) -> str:
    """Who an image shows: its file name without suffix and number, as LFW names its images."""
    stem = Path(name).stem
    return re.sub(r"[-_ ]?\d+$", "", stem) or stem


def embed_folder(
    sessions: Mapping[str, EmbeddingSession],
    paths: Sequence[Path],
    batch: int = 32,
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """Embeddings of aligned crops by every session: float32 [N, D] at length 1.

    Raises:
        InvalidImageError: a file that is no whole image.
        InvalidArgumentError: a model that gives no embedding, a crop that is not 112×112, or an
            embedding that is not finite.
    """
    for name, session in sessions.items():  # before any image is read
        _embed(name, session, np.zeros((0, *ARCFACE_SIZE, 3), np.uint8))
    embeddings: dict[str, list[np.ndarray]] = {name: [] for name in sessions}
    for start in range(0, len(paths), batch):
        chosen = paths[start : start + batch]
        crops = np.stack([_crop(path) for path in chosen])
        for name, session in sessions.items():
            found = _embed(name, session, crops)
            try:
                embeddings[name].append(normalized(found, [path.name for path in chosen]))
            except InvalidArgumentError as error:
                raise InvalidArgumentError(f"model {name!r}: {error}") from error
        if progress is not None:
            progress("embedding", min(start + batch, len(paths)), len(paths))
    return {name: np.concatenate(parts) for name, parts in embeddings.items()}


def evaluate(
    sessions: Mapping[str, EmbeddingSession],
    crops: str | os.PathLike[str],
    pairs: Sequence[Pair] | None = None,
    *,
    every_pair: bool = True,
    fars: Sequence[float] = FARS,
    resamples: int = 1000,
    seed: int = 0,
    batch: int = 32,
    progress: Progress | None = None,
) -> EvaluationReport:
    """Evaluates models on the same aligned crops and compares each with the first.

    Args:
        sessions: by name; the first is the reference (FP32).
        crops: folder of 112×112 images in ArcFace's alignment, named person_number.
        pairs: for accuracy by the LFW protocol (`read_pairs`).
        every_pair: also compare every two images of the folder, for TAR at FAR.
        fars: false accept rates.
        resamples, seed: of the bootstrap.

    Raises:
        InvalidImageError: a crop that is no whole image.
        InvalidArgumentError: nothing to evaluate, a model that gives no embedding, a pair whose
            image is missing, crops of another size, embeddings that are not finite, or no
            impostors.
    """
    if not sessions:
        raise InvalidArgumentError("no sessions to evaluate")
    if not pairs and not every_pair:
        raise InvalidArgumentError("neither pairs nor every pair of the folder asked for")
    paths = list_images(crops)
    index = _paired(paths, pairs or [], crops)
    if not every_pair:
        used = sorted({i for both in index for i in both})
        paths = [paths[i] for i in used]
        index = _paired(paths, pairs or [], crops)
    names = [identity_of(path.name) for path in paths]
    embeddings = embed_folder(sessions, paths, batch, progress)
    report = EvaluationReport(len(paths), len(set(names)), len(index))
    reference = next(iter(sessions))
    for name in sessions:
        report.models[name] = ModelResult()
        if name != reference:
            report.comparisons[name] = Comparison(reference)
            if _comparable(sessions[reference], sessions[name], embeddings, reference, name):
                similar = cosines(embeddings[reference], embeddings[name])
                comparison = report.comparisons[name]
                comparison.cosine_mean = float(similar.mean())
                comparison.cosine_p1 = float(np.percentile(similar, 1))
                comparison.cosine_min = float(similar.min())
            _note_networks(report, sessions, embeddings, reference, name)
    if pairs:
        _judge_pairs(report, embeddings, pairs, index, resamples, seed)
    if every_pair:
        _judge_folder(report, embeddings, names, fars, resamples, seed, progress)
    return report


def _judge_pairs(
    report: EvaluationReport,
    embeddings: dict[str, np.ndarray],
    pairs: Sequence[Pair],
    index: list[tuple[int, int]],
    resamples: int,
    seed: int,
) -> None:
    first, second = np.array(index).T
    same = np.array([pair.same for pair in pairs])
    folds = np.array([pair.fold for pair in pairs])
    found: dict[str, LfwAccuracy] = {}
    for name, vectors in embeddings.items():
        found[name] = lfw_accuracy(cosines(vectors[first], vectors[second]), same, folds)
        result = report.models[name]
        result.accuracy, result.accuracy_std = found[name].mean, found[name].std
        result.accuracy_thresholds = found[name].thresholds
        report.folds = found[name].folds
    for name, comparison in report.comparisons.items():
        comparison.accuracy = accuracy_difference(
            found[comparison.reference], found[name], resamples, seed
        )
    if report.folds == 1:
        report.notes.append(
            "All pairs are of one fold: the accuracy threshold was chosen on the pairs it is "
            "judged on, so the accuracy is optimistic."
        )


def _judge_folder(
    report: EvaluationReport,
    embeddings: dict[str, np.ndarray],
    names: list[str],
    fars: Sequence[float],
    resamples: int,
    seed: int,
    progress: Progress | None,
) -> None:
    found: dict[str, AllPairs] = {}
    for done, (name, vectors) in enumerate(embeddings.items(), 1):
        found[name] = all_pairs(vectors, np.array(names), fars)
        result = report.models[name]
        for far in fars:
            point = operating_point(found[name], far)
            result.thresholds[far], result.tar[far] = point.threshold, point.tar
        result.curve = _thinned(found[name].curve)
        report.genuine_pairs = len(found[name].genuine)
        report.impostor_pairs = found[name].impostor_count
        if progress is not None:
            progress("comparing every pair", done, len(embeddings))
    for name, comparison in report.comparisons.items():
        for far in fars:
            comparison.tar[far] = tar_difference(
                found[comparison.reference], found[name], far, resamples, seed
            )
    too_few = [far_name(far) for far in fars if far * report.impostor_pairs < 1]
    if too_few:
        report.notes.append(
            f"{report.impostor_pairs} impostor pairs are too few to measure FAR "
            f"{', '.join(too_few)}."
        )


def far_name(far: float) -> str:
    """1e-4 for 0.0001."""
    mantissa, exponent = f"{far:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _pair(row: dict[str, Any], place: str) -> Pair:
    if None in row or None in row.values() or not all(row[c].strip() for c in _COLUMNS):
        raise InvalidArgumentError(f"{place}: expected four values, {','.join(_COLUMNS)}")
    fold, first, second, same = (row[column].strip() for column in _COLUMNS)
    if same not in ("0", "1"):
        raise InvalidArgumentError(f"{place}: same is {same!r}; expected 0 or 1")
    return Pair(fold, first, second, same == "1")


def _paired(
    paths: Sequence[Path], pairs: Sequence[Pair], crops: str | os.PathLike[str]
) -> list[tuple[int, int]]:
    """For each pair, where its images stand in `paths`."""
    place = {path.name: i for i, path in enumerate(paths)}
    for number, pair in enumerate(pairs, 1):
        for name in (pair.first, pair.second):
            if name not in place:
                raise InvalidArgumentError(f"pair {number}: {name} is not in {crops}")
    return [(place[pair.first], place[pair.second]) for pair in pairs]


def _crop(path: Path) -> np.ndarray:
    crop = load_image(path)
    if crop.shape[1::-1] != ARCFACE_SIZE:
        raise InvalidArgumentError(
            f"{path}: {crop.shape[1]}x{crop.shape[0]} pixels; expected 112x112 aligned crops"
        )
    return crop


def _embed(name: str, session: EmbeddingSession, crops: np.ndarray) -> np.ndarray:
    """Embeddings [N, D] of crops in ArcFace's alignment; an error names the model."""
    try:
        found = session.embed(crops_for_model(crops, session.metadata))
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"model {name!r}: {error}") from error
    if found.ndim != 2 or found.shape[1] == 0:
        raise InvalidArgumentError(
            f"model {name!r}: embeddings of shape {list(found.shape)}; expected [N, D]"
        )
    return found


def _note_networks(
    report: EvaluationReport,
    sessions: Mapping[str, EmbeddingSession],
    embeddings: Mapping[str, np.ndarray],
    first: str,
    second: str,
) -> None:
    """Notes where two models cannot be one network in two precisions."""
    spaces = [sessions[name].metadata.feature_space for name in (first, second)]
    sizes = [embeddings[name].shape[1] for name in (first, second)]
    if all(spaces) and spaces[0] != spaces[1]:
        how = f"feature spaces {', '.join(spaces)}"
    elif sizes[0] != sizes[1]:
        how = f"embeddings of {sizes[0]} and {sizes[1]} values"
    else:
        return
    report.notes.append(
        f"{first} and {second} are different networks ({how}): the difference is not what a "
        "precision costs."
    )


def _comparable(
    first: EmbeddingSession,
    second: EmbeddingSession,
    embeddings: dict[str, np.ndarray],
    first_name: str,
    second_name: str,
) -> bool:
    same_size = embeddings[first_name].shape == embeddings[second_name].shape
    return same_size and first.metadata.feature_space == second.metadata.feature_space


def _thinned(curve: np.ndarray, points: int = 400) -> list[tuple[float, float]]:
    """At most that many points, evenly over the logarithm of the false accept rate."""
    with np.errstate(divide="ignore"):
        position = np.log10(curve[:, 0])
    wanted = np.linspace(max(position[0], -9), 0, points)
    index = np.unique(np.searchsorted(position, wanted).clip(0, len(curve) - 1))
    return [(float(false), float(true)) for false, true in curve[index]]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            far_name(key) if isinstance(key, float) else key: _plain(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
