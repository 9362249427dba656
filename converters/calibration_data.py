"""What a network is calibrated on: arrays from the caller, or the files of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pyedge.align import crops_for_model
from pyedge.converters.ir import Graph
from pyedge.errors import CalibrationError, InvalidArgumentError
from pyedge.images import SUFFIXES, load_image
from pyedge.metadata import ARCFACE_LANDMARKS, ARCFACE_SIZE, Metadata

BATCH = 8
# An image is resized only where that leaves what it shows recognizable: by its aspect ratio
# against the input's, and by its width against the input's.
MAX_STRETCH, MIN_SIZE = 1.02, 0.5


def calibration_batches(
    source: str | os.PathLike[str] | Iterable[np.ndarray], graph: Graph, metadata: Metadata
) -> Sequence[np.ndarray]:
    """Float32 batches as the network takes them, which can be read more than once.

    Args:
        source: batches; or a folder, either of images, which are prepared by `metadata`, or of
            `.npy` files with an image or a batch each.

    Raises:
        CalibrationError: an empty folder, no arrays, or values that are not finite.
        InvalidArgumentError: arrays of another shape or dtype; a folder of images without
            preprocessing.
        InvalidImageError: a file that cannot be decoded whole; it is named.
    """
    if not isinstance(source, str | os.PathLike):
        return _checked(_iterate(source), graph)
    folder = Path(source)
    if not folder.is_dir():
        raise CalibrationError(f"{folder}: not a folder of images, nor a table (.json)")
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise CalibrationError(f"{folder}: cannot be read: {error.strerror}") from error
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    arrays = [path for path in files if path.suffix.lower() == ".npy"]
    if not images and not arrays:
        raise CalibrationError(f"{folder}: holds no images and no .npy arrays to calibrate on")
    if images and arrays:
        raise CalibrationError(
            f"{folder}: holds images ({images[0].name}) and arrays ({arrays[0].name}); give "
            "one kind"
        )
    if arrays:
        return _checked((_load_array(path, graph) for path in arrays), graph, arrays)
    if metadata.color == "none":
        raise InvalidArgumentError(
            "preprocessing: is missing; images cannot become the network's input without it"
        )
    return _Images(images, metadata)


class _Images(Sequence[np.ndarray]):
    """Batches made from image files when they are asked for; the pixels are kept as uint8."""

    def __init__(self, paths: list[Path], metadata: Metadata) -> None:
        crops = [_crop(path, metadata) for path in paths]
        alike: dict[tuple[int, ...], list[np.ndarray]] = {}
        for crop in crops:
            alike.setdefault(crop.shape, []).append(crop)
        self.metadata = metadata
        self.batches = [
            np.stack(group[i : i + BATCH])
            for group in alike.values()
            for i in range(0, len(group), BATCH)
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        return self.metadata.apply(self.batches[index])


def _crop(path: Path, metadata: Metadata) -> np.ndarray:
    """An image as the network wants it.

    An ArcFace crop is aligned; a face of another size is resized if it has the proportions of the
    input; for a network that takes no aligned faces a photo is fitted in, with black to its right
    or below it.
    """
    image = load_image(path)
    width, height = metadata.input_size
    aligned = metadata.landmarks in (None, ARCFACE_LANDMARKS)
    if image.shape[:2] == ARCFACE_SIZE[::-1] and not (aligned and width == height == 112):
        return crops_for_model(image[None], metadata)[0] if width and height else image
    if (width, height) == (0, 0) or image.shape[:2] == (height, width):
        return image
    if metadata.landmarks is None and not metadata.embedding_size:
        return _fitted(image, width, height)
    stretch = image.shape[1] * height / (image.shape[0] * width)
    if max(stretch, 1 / stretch) > MAX_STRETCH or image.shape[1] < MIN_SIZE * width:
        raise CalibrationError(
            f"{path}: is {image.shape[1]}x{image.shape[0]}, the model takes {width}x{height}; "
            "give images of its proportions, of at least half its size"
        )
    return _fitted(image, width, height)


def _fitted(image: np.ndarray, width: int, height: int) -> np.ndarray:
    from PIL import Image

    ratio = min(width / image.shape[1], height / image.shape[0])
    size = (
        min(width, max(1, round(image.shape[1] * ratio))),
        min(height, max(1, round(image.shape[0] * ratio))),
    )
    fitted = np.zeros((height, width, 3), np.uint8)
    resized = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
    fitted[: size[1], : size[0]] = np.asarray(resized)
    return fitted


def _iterate(source: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    if isinstance(source, np.ndarray):
        yield source
        return
    try:
        yield from source
    except TypeError as error:
        raise InvalidArgumentError(
            f"calibration: is {type(source).__name__}; expected batches, a folder or a table"
        ) from error


def _load_array(path: Path, graph: Graph) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, MemoryError) as error:
        raise CalibrationError(f"{path}: cannot be read as an array: {error}") from error
    rank = len(graph.tensors[graph.inputs[0]].shape or ())
    return array[None] if isinstance(array, np.ndarray) and array.ndim == rank - 1 else array


def _checked(
    batches: Iterable[np.ndarray], graph: Graph, files: Sequence[Path] = ()
) -> list[np.ndarray]:
    expected = graph.tensors[graph.inputs[0]].shape or ()
    wanted = "x".join("?" if dim == -1 else str(dim) for dim in expected)
    result = []
    for index, batch in enumerate(batches):
        where = str(files[index]) if files else f"calibration batch {index}"
        if not isinstance(batch, np.ndarray) or batch.dtype != np.float32:
            kind = batch.dtype if isinstance(batch, np.ndarray) else type(batch).__name__
            raise InvalidArgumentError(f"{where}: is {kind}; expected float32 arrays")
        fits = batch.ndim == len(expected) and all(
            dim in (-1, size) for dim, size in zip(expected, batch.shape, strict=True)
        )
        if not fits or batch.size == 0:
            raise InvalidArgumentError(
                f"{where}: has shape {batch.shape}; expected {wanted}, batch first"
            )
        if not np.isfinite(batch).all():
            raise CalibrationError(f"{where}: holds NaN or infinity")
        result.append(batch)
    if not result:
        raise CalibrationError("calibration: there are no batches")
    return result
