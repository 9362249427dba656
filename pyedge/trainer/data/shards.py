"""A large set as tar files in the form of WebDataset: `KEY.jpg` and `KEY.cls` for each image.

A folder of shards has an index, `shards.json`: how many samples and bytes each shard has, and how
many classes there are. With it an epoch has a known length, and a shard cut short is noticed. The
index is written last, so a folder without one is unfinished (see `pyedge.trainer.data.pack`).

Nothing here unpickles, fetches or starts programs, as WebDataset's own reader does on a name's
word: shards are local files, members are an image, a class as text (`cls`) or `{"label": …}`
(`json`), and any other member is passed over unread.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from pyedge.errors import InvalidArgumentError, InvalidImageError, TrainingError, UnsupportedError
from pyedge.files import write_atomically
from pyedge.images import SUFFIXES, load_image
from pyedge.trainer.data.folder import check_size

INDEX, NAMES = "shards.json", "names.json"
UNFINISHED = "unfinished.json"  # what a set is to become, until it has its index
_FORMAT = "pyedge-shards-1"
_IMAGES = frozenset(suffix[1:] for suffix in SUFFIXES)
_LABELS = frozenset({"cls", "json"})
MOST_CLASSES = 1 << 31  # a label above is no label: a number of another kind, or damage
_MOST_BYTES = 1 << 26  # of a member


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
        return decoded(self.data, self.where, size)


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
    _stops: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_stops", tuple(accumulate(self.samples)))

    @property
    def total(self) -> int:
        """Samples of all shards."""
        return self._stops[-1]

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Shards:
        """Reads the index.

        Raises:
            InvalidArgumentError: no index, or one that this version cannot read.
        """
        if not (Path(folder) / INDEX).is_file():
            hint = "`pyedge pack index` writes it"
            if (Path(folder) / UNFINISHED).is_file():
                hint = "this is an unfinished set, and the command that began it goes on"
            raise InvalidArgumentError(f"{Path(folder) / INDEX}: no such file; {hint}")
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
            if not 1 <= shards.classes <= MOST_CLASSES:
                raise ValueError(f"{shards.classes} classes; expected 1 to {MOST_CLASSES}")
        except (KeyError, TypeError, ValueError) as error:
            reason = f"no field {error}" if isinstance(error, KeyError) else error
            raise InvalidArgumentError(f"{Path(folder) / INDEX}: not an index: {reason}") from error
        return shards

    def names(self) -> tuple[str, ...]:
        """The names of the classes, by label; the numbers where the folder does not tell.

        Raises:
            InvalidArgumentError: a file of names that does not fit the classes.
        """
        names = stored_names(self.folder)
        if names is None:
            return tuple(str(label) for label in range(self.classes))
        if len(names) != self.classes:
            raise InvalidArgumentError(
                f"{self.folder / NAMES}: {len(names)} names; expected {self.classes}"
            )
        return names

    def read(self, shard: int, start: int = 0, stop: int | None = None) -> Iterator[Sample]:
        """The samples from `start` to before `stop` of a shard, as they stand in it.

        Raises:
            TrainingError: a shard that is missing, damaged or another than the index says; or a
                sample without an image or a proper label.
        """
        path = self.folder / self.files[shard]
        stop = self.samples[shard] if stop is None else stop
        first = self._stops[shard] - self.samples[shard]
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


def is_sharded(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a sharded set, or one that is not finished."""
    return any((Path(folder) / name).is_file() for name in (INDEX, UNFINISHED))


def samples_of(path: Path, classes: int | None = None) -> Iterator[Sample]:
    """The samples of one tar file, numbered from 0; it need not be in an index.

    Raises:
        TrainingError: it is damaged, or a sample is without an image or a proper label.
    """
    for index, (key, members) in enumerate(_grouped(path)):
        yield _sample(f"{path}: {key}", index, members, classes)


def write_index(
    folder: Path, classes: int, paths: Sequence[Path], samples: Sequence[int]
) -> Shards:
    """Writes the index of the shards at `paths`, which have so many samples each."""
    entries = [
        {"file": path.name, "samples": count, "bytes": path.stat().st_size}
        for path, count in zip(paths, samples, strict=True)
    ]
    index = {"format": _FORMAT, "classes": classes, "shards": entries}
    write_atomically(folder / INDEX, json.dumps(index, indent=1).encode())
    return Shards.open(folder)


def stored_names(folder: Path) -> tuple[str, ...] | None:
    """The names of the classes, by label; None where the folder does not tell.

    Raises:
        InvalidArgumentError: the file is no list of names.
    """
    path = folder / NAMES
    if not path.exists():
        return None
    names = _read_json(path)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidArgumentError(f"{path}: expected a list of names")
    return tuple(names)


def decoded(data: bytes, where: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """An image, uint8 RGB [H, W, 3], of that width and height.

    Args:
        where: it is from, for messages.

    Raises:
        InvalidImageError: no whole image, or another size.
    """
    try:
        return check_size(load_image(data), where, size)
    except InvalidImageError as error:
        message = str(error).removeprefix(f"{where}: ").removeprefix("image bytes: ")
        raise InvalidImageError(f"{where}: {message}") from error


def _grouped(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and members of the samples of one shard."""
    try:
        for sample in webdataset().tariterators.group_by_keys(_members(path)):
            yield sample["__key__"], sample
    except ValueError as error:  # two members of one name
        raise TrainingError(f"{path}: {error.args[0]}") from error


def _members(path: Path) -> Iterator[dict[str, Any]]:
    """The members of a tar file that samples are made of, in the form WebDataset groups.

    One whose kind is not the whole of what follows the first dot (`7.mask.png`) belongs to its
    sample, but is not read.
    """
    member = None
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r:") as tar:
            while (member := _next(tar, size)) is not None:
                kind = webdataset().tariterators.base_plus_ext(member.name)[1] or ""
                if kind.rpartition(".")[2].lower() not in _IMAGES | _LABELS:
                    continue
                data = b""
                if kind.lower() in _IMAGES | _LABELS:
                    data = _content(tar, member, path, size)
                yield {"fname": member.name, "data": data, "__url__": str(path)}
    except (TrainingError, GeneratorExit):
        raise
    except Exception as error:  # tarfile raises whatever a damaged header leads it to
        after = f" after {member.name}" if member else ""
        raise TrainingError(f"{path}: not a whole tar file{after}: {error}") from error
    yield {}  # the end of the shard: no sample goes on into another


def _next(tar: tarfile.TarFile, size: int) -> tarfile.TarInfo | None:
    """The next member of a file of `size` bytes, None at its end.

    tarfile takes a damaged header for the end, and goes back on a size below 0, for ever.
    """
    member = tar.next()
    vars(tar)["members"] = []  # or it would keep them all
    if member is None:
        tar.fileobj.seek(tar.offset)
        if tar.offset >= size or tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"no header and no end at byte {tar.offset}")
    elif member.size < 0:
        raise tarfile.ReadError(f"{member.name} has a size of {member.size}")
    return member


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, size: int) -> bytes:
    """The bytes of a member; a sparse one, or one that is not there whole, may ask for any memory.

    Raises:
        TrainingError: it is such a member, or a link, or of more bytes than an image has.
    """
    end = member.offset_data + member.size
    if not member.isreg() or member.issparse() or end > size or member.size > _MOST_BYTES:
        raise TrainingError(
            f"{path}: {member.name}: not a plain, whole member of at most {_MOST_BYTES} bytes"
        )
    file = tar.extractfile(member)
    return file.read() if file else b""


def _sample(where: str, index: int, members: dict[str, bytes], classes: int | None) -> Sample:
    images = sorted(_IMAGES & members.keys())
    labels = sorted(_LABELS & members.keys())
    if len(images) != 1 or not labels:
        found = ", ".join(sorted(name for name in members if name[0] != "_")) or "nothing"
        raise TrainingError(f"{where}: has {found}; expected one image and cls or json")
    label = _label(f"{where}.{labels[0]}", labels[0], members[labels[0]])
    bound = MOST_CLASSES if classes is None else classes
    if not 0 <= label < bound:
        raise TrainingError(f"{where}.{labels[0]}: label {label}; expected 0 to {bound - 1}")
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
