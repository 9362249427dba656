"""Class centres as a gallery: who the training's people are, for closed-set recognition.

A safetensors file: `embeddings`, float32 [classes, dim], each of length 1, so that its product
with a normalised feature is their cosine; `names`, uint8, a JSON array of texts, where the
checkpoint has names; and in the metadata the feature space, as the converted model has it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyedge.errors import CheckpointError
from pyedge.trainer import strict_json, tensor_file
from pyedge.trainer.checkpoint import Checkpoint
from pyedge.trainer.manifest import CENTERS
from pyedge.trainer.tensor_file import CHUNK, Format, Meter, Progress

_FORMAT = "pyedge-gallery"
_EMBEDDINGS, _NAMES = "embeddings", "names"


@dataclass(frozen=True)
class Gallery:
    """What a gallery file holds.

    Attributes:
        embeddings: float32 [classes, dim], rows of length 1; mapped from the file.
        names: the name of each row, None where the file has none.
        feature_space: features of other spaces are not comparable with these.
    """

    embeddings: np.ndarray
    names: list[str] | None
    feature_space: str


def write_gallery(
    checkpoint: Checkpoint,
    path: Path,
    feature_space: str = "",
    progress: Progress | None = None,
) -> None:
    """Writes the centres of all classes, without ever having them all in memory.

    Args:
        path: the file to write; afterwards it is there whole, or as it was before.
        feature_space: of the converted model.
        progress: called with what is going on, bytes done, of how many.

    Raises:
        CheckpointError: the checkpoint is damaged, a centre has no direction or another length
            than features, or the system refused.
    """
    manifest = checkpoint.manifest
    if manifest.network.features != manifest.dim:
        raise CheckpointError(
            f"{checkpoint.path}: class centres are of {manifest.dim} numbers, features of "
            f"{manifest.network.features}; expected as many"
        )
    checkpoint.verify(progress=progress)
    names = checkpoint.label_names()
    text = b"" if names is None else strict_json.dump_compact(names)
    formats = {_EMBEDDINGS: Format("F32", (manifest.classes, manifest.dim))}
    if names is not None:
        formats[_NAMES] = Format("U8", (len(text),))
    meter = Meter(progress, f"writing {path.name}", sum(f.nbytes for f in formats.values()))
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        tensor_file.write_tensors(
            temporary,
            formats,
            lambda name: [text] if name == _NAMES else _normalized(checkpoint),
            {"format": _FORMAT, "feature_space": feature_space},
            meter,
        )
        temporary.replace(path)
        tensor_file.sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from error


def _normalized(checkpoint: Checkpoint) -> Iterator[bytes]:
    manifest = checkpoint.manifest
    step = max(1, CHUNK // (8 * manifest.dim))
    for first in range(0, manifest.classes, step):
        classes = range(first, min(first + step, manifest.classes))
        centers = checkpoint.rows(classes, names=[CENTERS])[CENTERS].double()
        lengths = centers.norm(dim=1, keepdim=True)
        bad = ~(lengths.isfinite() & (lengths > 0)).squeeze(1)
        if bad.any():
            label = first + int(bad.nonzero()[0])
            raise CheckpointError(
                f"{checkpoint.path}: the centre of class {label} has length "
                f"{lengths[label - first].item():g}; expected a finite one above 0"
            )
        yield (centers / lengths).float().numpy().tobytes()


def read_gallery(path: str | os.PathLike[str]) -> Gallery:
    """Reads a gallery that `write_gallery` wrote.

    Raises:
        CheckpointError: the file is missing, or no such gallery.
    """
    path = Path(path)
    header = tensor_file.read_header(path)
    embeddings, names = header.tensors.get(_EMBEDDINGS), header.tensors.get(_NAMES)
    if header.metadata.get("format") != _FORMAT or embeddings is None:
        raise CheckpointError(f"{path}: is no gallery; expected format {_FORMAT!r}")
    if embeddings.dtype != "F32" or len(embeddings.shape) != 2 or 0 in embeddings.shape:
        raise CheckpointError(f"{path}: embeddings are {embeddings}; expected F32 [rows, dim]")
    found = None
    if names is not None:
        with tensor_file.reading(path) as file:
            file.seek(names.start)
            found = strict_json.parse(file.read(names.nbytes), path)
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise CheckpointError(f"{path}: names is no array of texts")
        if len(found) != embeddings.shape[0]:
            raise CheckpointError(f"{path}: has {len(found)} names; expected {embeddings.shape[0]}")
    rows = np.memmap(path, np.dtype("<f4"), "r", embeddings.start, embeddings.shape)
    return Gallery(rows, found, header.metadata.get("feature_space", ""))
