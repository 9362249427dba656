"""A large set as tar files in the form of WebDataset: `KEY.jpg` and `KEY.cls` for each image.

A folder of shards has an index, `shards.json`: how many samples and bytes each shard has, and how
many classes there are. With it an epoch has a known length, and a shard cut short is noticed. The
index is written last, so a folder without one is unfinished. Shards of another origin get theirs
from `index_shards`.

Nothing here unpickles, fetches or starts programs, as WebDataset's own reader does on a name's
word: shards are local files, members are an image, a class as text (`cls`) or `{"label": …}`
(`json`), and any other member is passed over unread.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyedge.errors import InvalidArgumentError, InvalidImageError, TrainingError, UnsupportedError
from pyedge.files import write_atomically
from pyedge.images import SUFFIXES, load_image
from pyedge.trainer.data.folder import FaceFolder, check_size
from pyedge.trainer.data.sampler import Purpose, generator

INDEX, NAMES = "shards.json", "names.json"
_FORMAT = "pyedge-shards-1"
_IMAGES = frozenset(suffix[1:] for suffix in SUFFIXES)
_LABELS = frozenset({"cls", "json"})


@dataclass(frozen=True)
class Sample:
    """One image of a shard, still encoded.

    Attributes:
        where: shard and key, for messages.
        index: its place among all samples, in the order of the index.
    """

    where: str
    index: int
    data: bytes
    label: int

    def image(self, size: tuple[int, int] | None = None) -> np.ndarray:
        """Decoded: uint8 RGB [H, W, 3], of that width and height.

        Raises:
            InvalidImageError: no whole image, or another size.
        """
        try:
            return check_size(load_image(self.data), self.where, size)
        except InvalidImageError as error:
            message = str(error).removeprefix(f"{self.where}: ").removeprefix("image bytes: ")
            raise InvalidImageError(f"{self.where}: {message}") from error


@dataclass(frozen=True)
class Shards:
    """The shards of a folder.

    Attributes:
        classes: labels are 0 to classes − 1.
        files: their names in the folder.
        samples, sizes: of each shard, the number of its samples and of its bytes.
    """

    folder: Path
    classes: int
    files: tuple[str, ...]
    samples: tuple[int, ...]
    sizes: tuple[int, ...]

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Shards:
        """Reads the index.

        Raises:
            InvalidArgumentError: no index, or one that this version cannot read.
        """
        index = _read_json(Path(folder) / INDEX)
        try:
            if index["format"] != _FORMAT:
                raise ValueError(f"format {index['format']!r}; expected {_FORMAT!r}")
            shards = cls(
                Path(folder),
                _count(index["classes"]),
                tuple(_name(entry["file"]) for entry in index["shards"]),
                tuple(_count(entry["samples"]) for entry in index["shards"]),
                tuple(_count(entry["bytes"]) for entry in index["shards"]),
            )
            if not shards.files or len(set(shards.files)) != len(shards.files):
                raise ValueError("no shards, or one of them twice")
        except (KeyError, TypeError, ValueError) as error:
            reason = f"no field {error}" if isinstance(error, KeyError) else error
            raise InvalidArgumentError(f"{Path(folder) / INDEX}: not an index: {reason}") from error
        return shards

    def names(self) -> tuple[str, ...]:
        """The names of the classes, by label; the numbers where the folder does not tell.

        Raises:
            InvalidArgumentError: a file of names that does not fit the classes.
        """
        path = self.folder / NAMES
        if not path.exists():
            return tuple(str(label) for label in range(self.classes))
        names = _read_json(path)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InvalidArgumentError(f"{path}: expected a list of names")
        if len(names) != self.classes:
            raise InvalidArgumentError(f"{path}: {len(names)} names; expected {self.classes}")
        return tuple(names)

    def read(self, shard: int, start: int = 0, stop: int | None = None) -> Iterator[Sample]:
        """The samples from `start` to before `stop` of a shard, as they stand in it.

        Raises:
            TrainingError: a shard that is missing, damaged or another than the index says; or a
                sample without an image or a proper label.
        """
        path = self.folder / self.files[shard]
        stop = self.samples[shard] if stop is None else stop
        first = sum(self.samples[:shard])
        size = path.stat().st_size if path.is_file() else -1
        if size != self.sizes[shard]:
            found = "no such file" if size < 0 else f"{size} bytes"
            raise TrainingError(f"{path}: {found}; the index says {self.sizes[shard]} bytes")
        count = 0
        for count, (key, members) in enumerate(_grouped(path), 1):
            if start < count <= stop:
                yield _sample(f"{path}: {key}", first + count - 1, members, self.classes)
            if count == stop:
                return
        if count < stop:
            raise TrainingError(
                f"{path}: ends after {count} samples; the index says {self.samples[shard]}"
            )


def write_shards(
    faces: FaceFolder,
    folder: str | os.PathLike[str],
    images_per_shard: int = 10_000,
    seed: int = 0,
) -> Shards:
    """Writes the images of a folder of identities, as they are encoded, to shards.

    Their order is a permutation by `seed`: a reader that shuffles within a window then sees people
    mixed well. The same input gives the same bytes.

    Args:
        folder: made if it is not there; must be empty.
        images_per_shard: a shard is put together in memory.

    Raises:
        InvalidArgumentError: the folder is not empty.
        InvalidImageError: a file that is no whole image.
        PyEdgeError: the system refused (no permission, disk full).
    """
    target = Path(folder)
    if images_per_shard < 1:
        raise InvalidArgumentError(f"images_per_shard is {images_per_shard}; expected 1 or more")
    try:
        target.mkdir(parents=True, exist_ok=True)
        if next(target.iterdir(), None) is not None:
            raise InvalidArgumentError(f"{folder}: not empty; expected a new folder for the shards")
    except OSError as error:
        raise InvalidArgumentError(f"{folder}: cannot be made: {error.strerror}") from error
    order = generator(Purpose.SHARDS, seed).permutation(len(faces.paths))
    entries: list[dict[str, Any]] = []
    for start in range(0, len(order), images_per_shard):
        chosen = order[start : start + images_per_shard]
        data = _shard(faces, chosen, start)
        name = f"shard-{len(entries):06d}.tar"
        write_atomically(target / name, data)
        entries.append({"file": name, "samples": len(chosen), "bytes": len(data)})
    write_atomically(target / NAMES, json.dumps(faces.names, ensure_ascii=False).encode())
    return _write_index(target, len(faces.names), entries)


def index_shards(folder: str | os.PathLike[str], classes: int | None = None) -> Shards:
    """Reads all `.tar` files of a folder through, in order of their names, and writes the index.

    Args:
        classes: how many there are; by default one more than the largest label found.

    Raises:
        InvalidArgumentError: no shards there.
        TrainingError: a damaged shard, or a sample without an image or a proper label.
    """
    target = Path(folder)
    paths = sorted(target.glob("*.tar"))
    if not paths:
        raise InvalidArgumentError(f"{folder}: no shards (*.tar) in this folder")
    entries, largest = [], -1
    for path in paths:
        samples = 0
        for key, members in _grouped(path):
            sample = _sample(f"{path}: {key}", samples, members, classes)
            samples, largest = samples + 1, max(largest, sample.label)
        if not samples:
            raise TrainingError(f"{path}: no samples")
        entries.append({"file": path.name, "samples": samples, "bytes": path.stat().st_size})
    return _write_index(target, classes or largest + 1, entries)


def _shard(faces: FaceFolder, chosen: np.ndarray, first: int) -> bytes:
    """One tar file; keys count through all shards."""
    buffer = io.BytesIO()
    with webdataset().TarWriter(buffer, encoder=False, mtime=0.0) as writer:
        for offset, index in enumerate(chosen):
            path = faces.paths[index]
            load_image(path)  # what cannot be decoded whole is refused here, not in training
            writer.write(
                {
                    "__key__": f"{first + offset:012d}",
                    path.suffix[1:].lower(): path.read_bytes(),
                    "cls": str(faces.labels[index]).encode(),
                }
            )
    return buffer.getvalue()


def _write_index(folder: Path, classes: int, entries: list[dict[str, Any]]) -> Shards:
    index = {"format": _FORMAT, "classes": classes, "shards": entries}
    write_atomically(folder / INDEX, json.dumps(index, indent=1).encode())
    return Shards.open(folder)


def _grouped(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and members of the samples of one shard."""
    try:
        for sample in webdataset().tariterators.group_by_keys(_members(path)):
            yield sample["__key__"], sample
    except ValueError as error:  # two members of one name
        raise TrainingError(f"{path}: {error.args[0]}") from error


def _members(path: Path) -> Iterator[dict[str, Any]]:
    """The members of a tar file that samples are made of, in the form WebDataset groups."""
    member = None
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                vars(tar)["members"] = []  # or it would keep them all
                if member.name.rpartition(".")[2].lower() not in _IMAGES | _LABELS:
                    continue
                # A sparse member, or a size behind the file's end, could ask for any memory.
                if (
                    not member.isreg()
                    or member.issparse()
                    or member.offset_data + member.size > size
                ):
                    raise TrainingError(f"{path}: {member.name}: not a plain, whole member")
                file = tar.extractfile(member)
                data = file.read() if file else b""
                yield {"fname": member.name, "data": data, "__url__": str(path)}
    except (TrainingError, GeneratorExit):
        raise
    except Exception as error:  # tarfile raises whatever a damaged header leads it to
        after = f" after {member.name}" if member else ""
        raise TrainingError(f"{path}: not a whole tar file{after}: {error}") from error
    yield {}  # the end of the shard: no sample goes on into another


def _sample(where: str, index: int, members: dict[str, bytes], classes: int | None) -> Sample:
    images = sorted(_IMAGES & members.keys())
    labels = sorted(_LABELS & members.keys())
    if len(images) != 1 or not labels:
        found = ", ".join(sorted(name for name in members if name[0] != "_")) or "nothing"
        raise TrainingError(f"{where}: has {found}; expected one image and cls or json")
    label = _label(f"{where}.{labels[0]}", labels[0], members[labels[0]])
    if label < 0 or (classes is not None and label >= classes):
        bound = "from 0 on" if classes is None else f"0 to {classes - 1}"
        raise TrainingError(f"{where}.{labels[0]}: label {label}; expected {bound}")
    return Sample(f"{where}.{images[0]}", index, members[images[0]], label)


def _label(where: str, kind: str, data: bytes) -> int:
    try:
        if kind == "cls":
            return int(data.decode("ascii"))
        return _count(json.loads(data)["label"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        expected = "a whole number" if kind == "cls" else '{"label": NUMBER}'
        raise TrainingError(f"{where}: {data[:40]!r}; expected {expected}") from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidArgumentError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"{path}: not JSON: {error}") from error


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _name(value: Any) -> str:
    """A file in the folder itself: an index names no files elsewhere."""
    if not isinstance(value, str) or Path(value).name != value:
        raise ValueError(f"{value!r} is no file name")
    return value


def webdataset() -> Any:
    """The library, which the extra `train` brings."""
    try:
        import webdataset as library
    except ImportError as error:
        raise UnsupportedError("shards need webdataset: pip install 'pyedge[train]'") from error
    return library
