"""Makes sharded sets: from folders of identities, or from tar files of another origin.

A set is planned before its first shard: which images go into which shard follows from the folder
and the seed. The plan's digest stays beside the shards, in `unfinished.json`, until they have their
index. Every shard is written whole or not at all, so whoever asks for the same set once more goes
on with the shards that are missing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset, IterableDataset, get_worker_info

from pyedge.errors import InvalidArgumentError, InvalidImageError, PyEdgeError, TrainingError
from pyedge.files import write_atomically, writing_atomically
from pyedge.metadata import ARCFACE_SIZE
from pyedge.trainer.data.folder import FaceFolder
from pyedge.trainer.data.sampler import Purpose, generator
from pyedge.trainer.data.shards import (
    MOST_CLASSES,
    NAMES,
    UNFINISHED,
    Shards,
    decoded,
    samples_of,
    stored_names,
    webdataset,
    write_index,
)
from pyedge.trainer.data.workers import answers
from pyedge.trainer.tensor_file import Meter, Progress

_Answer = dict[str, Any] | InvalidImageError  # a sample for WebDataset, or why there is none

_BATCH = 64  # images that a worker is asked for at once
_TIME = 0  # of every member; as a float it would cost a header of its own
_TELL_BYTES = 1 << 25  # that a worker reads before it tells so


@dataclass(frozen=True)
class Packed:
    """What `write_shards` did.

    Attributes:
        shards: the whole set.
        written: images of this call; the others were there, of a call that ended early.
        broken: for each image that this call left out, why.
    """

    shards: Shards
    written: int
    broken: tuple[str, ...]


def write_shards(
    faces: FaceFolder,
    folder: str | os.PathLike[str],
    images_per_shard: int = 10_000,
    seed: int = 0,
    skip_broken: bool = False,
    workers: int = 0,
    progress: Progress | None = None,
) -> Packed:
    """Writes the images of a folder of identities, as they are encoded, to shards.

    Their order is a permutation by `seed`: a reader that shuffles within a window then sees people
    mixed well. The same input gives the same bytes. Where it ends early, it leaves whole shards and
    no index, and the same call goes on.

    Args:
        folder: made if it is not there; empty, or left by the same call.
        skip_broken: leave out the images that training could not take, instead of raising.
        workers: processes that read and decode; 0 does it in this one.
        progress: called with what is going on, images or bytes done, of how many.

    Raises:
        InvalidArgumentError: the folder holds something else; or a name is no UTF-8.
        InvalidImageError: an image that training could not take: not whole, or not 112×112.
        TrainingError: a shard that was there is damaged; or a worker died.
        PyEdgeError: the system refused (no permission, disk full).
    """
    if images_per_shard < 1 or seed < 0:
        raise InvalidArgumentError(
            f"images_per_shard is {images_per_shard} and seed {seed}; expected at least 1 and 0"
        )
    target, classes = Path(folder), len(faces.names)
    plan = _Plan(faces, images_per_shard, seed)
    _begin(target, plan)
    paths = [target / f"shard-{number:06d}.tar" for number in range(len(plan.shards))]
    there = [path for path in paths if path.exists()]
    with _told("a damaged shard that is deleted is written anew"):
        samples = {path: count for path, count, _ in _read(there, classes, workers, progress)}
    parts = zip(paths, plan.shards, strict=True)
    missing = {path: part for path, part in parts if path not in samples}
    meter = Meter(progress, "packing", sum(map(len, missing.values())))
    broken: list[str] | None = [] if skip_broken else None
    with (
        _told(f"{folder} is unfinished, and the same command goes on"),
        closing(plan.samples(missing.values(), workers)) as images,
    ):
        for path, part in missing.items():
            samples[path] = _write(path, len(part), images, broken, meter)
        shards = write_index(target, classes, paths, [samples[path] for path in paths])
    (target / UNFINISHED).unlink()
    return Packed(shards, sum(samples[path] for path in missing), tuple(broken or ()))


def index_shards(
    folder: str | os.PathLike[str],
    classes: int | None = None,
    names: Sequence[str] | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> Shards:
    """Reads all `.tar` files of a folder through, in order of their names, and writes the index.

    Args:
        classes: how many there are; by default as many as names, or one more than the largest
            label found.
        names: of the classes, by label; by default those that the folder has, if it has any.
        workers: processes that read; 0 does it in this one.
        progress: called with what is going on, bytes done, of how many.

    Raises:
        InvalidArgumentError: no shards there, or an unfinished set of `write_shards`; or names
            that do not fit.
        TrainingError: a damaged shard, or a sample without an image or a proper label.
        PyEdgeError: the system refused (no permission, disk full).
    """
    target = Path(folder)
    if (target / UNFINISHED).exists():
        Shards.open(target)  # tells what to do
    paths = sorted(target.glob("*.tar"))
    if not paths:
        raise InvalidArgumentError(f"{folder}: no shards (*.tar) in this folder")
    encoded = None if names is None else _encoded(names)
    known = stored_names(target) if names is None else names
    if known is not None and classes not in (None, len(known)):
        raise InvalidArgumentError(f"{len(known)} names for {classes} classes; expected as many")
    if classes is not None and not 1 <= classes <= MOST_CLASSES:
        raise InvalidArgumentError(f"classes is {classes}; expected 1 to {MOST_CLASSES}")
    bound = classes if known is None else len(known)
    found = _read(paths, bound, workers, progress)
    for path, count, _ in found:
        if not count:
            raise TrainingError(f"{path}: no samples")
    if encoded is not None:
        write_atomically(target / NAMES, encoded)
    largest = max(label for _, _, label in found)
    return write_index(target, bound or largest + 1, paths, [count for _, count, _ in found])


class _Plan(Dataset):
    """Which images go into which shard; answers a range of places with their samples.

    Attributes:
        shards: for each its places in the order, which are the keys of its samples.
    """

    def __init__(self, faces: FaceFolder, images_per_shard: int, seed: int) -> None:
        count = len(faces.paths)
        self.names = _encoded(faces.names)
        self.shards = [
            range(start, min(start + images_per_shard, count))
            for start in range(0, count, images_per_shard)
        ]
        self._faces = faces
        self._order = generator(Purpose.SHARDS, seed).permutation(count)

    def digest(self) -> str:
        """SHA-256 of all that the set follows from, but for what is in the images."""
        hashed = hashlib.sha256(self.names)
        hashed.update(json.dumps([len(part) for part in self.shards]).encode())
        hashed.update(self._order.data)
        hashed.update(self._faces.labels.data)
        for path in self._faces.paths:
            hashed.update(os.fsencode(path.absolute()) + b"\0")
        return hashed.hexdigest()

    def samples(self, shards: Iterable[range], workers: int) -> Generator[_Answer, None, None]:
        """The samples of these shards, one after the other; or for one that is broken, why."""
        parts = (part[i : i + _BATCH] for part in shards for i in range(0, len(part), _BATCH))
        with closing(answers(self, workers, parts)) as lists:
            yield from chain.from_iterable(lists)

    def __getitem__(self, places: range) -> list[_Answer]:
        return [self._sample(place) for place in places]

    def _sample(self, place: int) -> _Answer:
        index = self._order[place]
        path = self._faces.paths[index]
        try:
            data = path.read_bytes()
            decoded(data, str(path), ARCFACE_SIZE)  # refused here, and not in training
        except InvalidImageError as error:
            return error
        except OSError as error:
            return InvalidImageError(f"{path}: cannot be read: {error.strerror}")
        label = str(self._faces.labels[index]).encode()
        return {"__key__": f"{place:012d}", path.suffix[1:].lower(): data, "cls": label}


class _Reading(IterableDataset):
    """Reads shards through. Gives of each, in parts: its number, samples, largest label, bytes."""

    def __init__(self, paths: Sequence[Path], classes: int | None) -> None:
        self._paths, self._classes = paths, classes

    def __iter__(self) -> Iterator[tuple[int, int, int, int] | PyEdgeError]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        try:
            for number in range(first, len(self._paths), step):
                yield from self._parts(number)
        except PyEdgeError as error:
            yield error

    def _parts(self, number: int) -> Iterator[tuple[int, int, int, int]]:
        path = self._paths[number]
        count, largest, size = 0, -1, 0
        left = path.stat().st_size
        for sample in samples_of(path, self._classes):
            count, largest, size = count + 1, max(largest, sample.label), size + len(sample.data)
            if size >= _TELL_BYTES:
                yield number, count, largest, size
                count, left, size = 0, left - size, 0
        yield number, count, largest, left


def _read(
    paths: Sequence[Path], classes: int | None, workers: int, progress: Progress | None
) -> list[tuple[Path, int, int]]:
    """Of each shard the number of its samples and the largest label, −1 without any.

    Raises:
        TrainingError: a shard that is no whole file, or a sample without an image or proper label.
    """
    for path in paths:
        if not path.is_file():  # to open a pipe would wait
            raise TrainingError(f"{path}: not a file")
    meter = Meter(progress, "reading shards", sum(path.stat().st_size for path in paths))
    counts, largest = [0] * len(paths), [-1] * len(paths)
    with closing(answers(_Reading(paths, classes), min(workers, len(paths)))) as parts:
        for number, count, label, size in parts:
            counts[number] += count
            largest[number] = max(largest[number], label)
            meter.add(size)
    return list(zip(paths, counts, largest, strict=True))


def _write(
    path: Path,
    count: int,
    samples: Iterator[_Answer],
    broken: list[str] | None,
    meter: Meter,
) -> int:
    """Writes the next `count` samples to a shard; returns how many of them are no errors.

    Args:
        broken: takes the errors; None raises them.
    """
    written = 0
    with (
        writing_atomically(path) as file,
        webdataset().TarWriter(file, encoder=False, mtime=_TIME) as writer,
    ):
        for sample in islice(samples, count):
            if not isinstance(sample, InvalidImageError):
                writer.write(sample)
                written += 1
            elif broken is None:
                raise sample
            else:
                broken.append(str(sample))
            meter.add(1)
    return written


def _begin(folder: Path, plan: _Plan) -> None:
    """Makes a folder ready for a set, or finds it to hold a part of the same one.

    Raises:
        InvalidArgumentError: it holds anything else.
    """
    mark = json.dumps({"plan": plan.digest()}).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = {path.name for path in folder.iterdir()}
        if not found:
            write_atomically(folder / UNFINISHED, mark)
        elif UNFINISHED not in found:
            raise InvalidArgumentError(f"{folder}: not empty; expected a new folder for the shards")
        elif (folder / UNFINISHED).read_bytes() != mark:
            raise InvalidArgumentError(
                f"{folder}: an unfinished set of other images or options; go on with the same, or "
                "delete it"
            )
        for leftover in folder.glob(".*.tmp"):  # of a process that was killed
            leftover.unlink()
    except OSError as error:
        raise InvalidArgumentError(f"{folder}: cannot be made: {error.strerror}") from error
    write_atomically(folder / NAMES, plan.names)


def _encoded(names: Sequence[str]) -> bytes:
    """The file of names.

    Raises:
        InvalidArgumentError: a name that is there twice, or is no UTF-8.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidArgumentError(f"names: {name!r} is there twice; expected one for a class")
        seen.add(name)
        try:
            name.encode()
        except UnicodeEncodeError as error:  # of a folder, which may have any bytes
            raise InvalidArgumentError(f"names: {name!r} is no text in UTF-8") from error
    return json.dumps(list(names), ensure_ascii=False).encode()


@contextmanager
def _told(what: str) -> Iterator[None]:
    """An error also says what to do."""
    try:
        yield
    except PyEdgeError as error:
        raise type(error)(f"{error}; {what}") from error
