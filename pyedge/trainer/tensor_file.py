"""Safetensors files, so large that they are never in memory whole.

The header is read strictly (https://github.com/huggingface/safetensors#format): eight bytes with
its length, little-endian; JSON with dtype, shape and the range of bytes of each tensor; then
those bytes, without gaps. Files are written as a stream that is hashed on its way to the disk.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pyedge.errors import CheckpointError
from pyedge.trainer import strict_json

Progress = Callable[[str, int, int], None]  # what is going on, bytes done, of how many

ITEM_BYTES = {
    **{"F64": 8, "F32": 4, "F16": 2, "BF16": 2},
    **{"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1},
}
CHUNK = 8 << 20  # bytes that are in memory at a time
_HEADER_LIMIT = 16 << 20
_ALIGNMENT = 8  # of the first tensor in the file
_MOST = 2**62  # no count of bytes is larger


class Meter:
    """Counts up to `total`, bytes as a rule, and tells `progress`."""

    def __init__(self, progress: Progress | None, what: str, total: int) -> None:
        self._progress, self._what, self._total, self._done = progress, what, total, 0
        self.add(0)

    def add(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._what, self._done, self._total)


@dataclass(frozen=True)
class Format:
    """What a tensor is, without its values."""

    dtype: str  # a key of ITEM_BYTES
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return ITEM_BYTES[self.dtype] * math.prod(self.shape)

    @property
    def row(self) -> Format:
        """Of one row, where it has rows."""
        return Format(self.dtype, self.shape[1:])

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


@dataclass(frozen=True)
class Entry(Format):
    """A tensor in a file; `start` is the place of its first byte."""

    start: int

    @property
    def format(self) -> Format:
        return Format(self.dtype, self.shape)


@dataclass(frozen=True)
class Header:
    """What a file holds."""

    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]
    file_bytes: int


def read_header(path: Path) -> Header:
    """Reads and checks everything but the tensors' values.

    Raises:
        CheckpointError: no such file, or one that is not what its header says.
    """
    with reading(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise CheckpointError(
                f"{path}: is cut off: {size} bytes, which do not hold a header of {length}"
            )
        if length > _HEADER_LIMIT:
            raise CheckpointError(
                f"{path}: has a header of {length} bytes; expected at most {_HEADER_LIMIT}"
            )
        values = strict_json.parse(file.read(length), path)
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: has a header that is no object of tensors")
    metadata = values.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f"{path}: __metadata__ is not texts by name")
    tensors = {name: _entry(path, name, value, 8 + length) for name, value in values.items()}
    end = 8 + length
    for name, entry in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if entry.start != end:
            raise CheckpointError(
                f"{path}: the bytes of {name!r} begin at {entry.start}; expected {end}, where "
                "those before it end"
            )
        end += entry.nbytes
    if end != size:
        raise CheckpointError(f"{path}: has {size} bytes; its header describes {end}")
    return Header(tensors, metadata, size)


def _entry(path: Path, name: str, value: Any, origin: int) -> Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{path}: {name!r} is not dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        known = ", ".join(ITEM_BYTES)
        raise CheckpointError(f"{path}: {name!r} has dtype {dtype!r:.40}; expected {known}")
    for what, numbers in (("shape", shape), ("data_offsets", offsets)):
        whole = isinstance(numbers, list) and len(numbers) <= 16
        if not whole or not all(type(n) is int and 0 <= n < _MOST for n in numbers):
            raise CheckpointError(f"{path}: {name!r} has {what} {numbers!r:.80}; expected sizes")
    entry = Entry(dtype, tuple(shape), origin + (offsets[0] if offsets else 0))
    if len(offsets) != 2 or offsets[1] - offsets[0] != entry.nbytes:
        raise CheckpointError(
            f"{path}: {name!r} has data_offsets {offsets!r:.80}; {entry} takes {entry.nbytes} bytes"
        )
    return entry


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """The file at `path`, open; what the system says against it becomes a CheckpointError."""
    try:
        if not path.is_file():
            raise CheckpointError(f"{path}: is missing; expected a file")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_chunks(file: BinaryIO, path: Path, start: int, count: int) -> Iterator[memoryview]:
    """`count` bytes from `start` on, piece by piece; each piece is valid until the next.

    Raises:
        CheckpointError: the file ends before.
    """
    buffer = memoryview(bytearray(min(CHUNK, count)))
    file.seek(start)
    while count:
        got = file.readinto(buffer[: min(len(buffer), count)])  # type: ignore[attr-defined]
        if not got:
            raise CheckpointError(f"{path}: is cut off: {count} bytes are missing at its end")
        count -= got
        yield buffer[:got]


def digest(path: Path, meter: Meter | None = None) -> str:
    """SHA-256 of the file, in hexadecimal."""
    result = hashlib.sha256()
    with reading(path) as file:
        for chunk in read_chunks(file, path, 0, os.fstat(file.fileno()).st_size):
            result.update(chunk)
            if meter is not None:
                meter.add(len(chunk))
    return result.hexdigest()


class Output:
    """A new file: what is written to it is hashed, and on the disk when it closes."""

    def __init__(self, file: BinaryIO, meter: Meter | None) -> None:
        self._file, self._meter, self._hash = file, meter, hashlib.sha256()

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._hash.update(data)
        if self._meter is not None:
            self._meter.add(len(data))

    def digest(self) -> str:
        return self._hash.hexdigest()


@contextmanager
def writing(path: Path, meter: Meter | None = None) -> Iterator[Output]:
    """A new file at `path`.

    Raises:
        CheckpointError: there is one already, or the system refused (disk full): then no file.
    """
    try:
        with path.open("xb") as file:
            try:
                yield Output(file, meter)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                path.unlink(missing_ok=True)
                raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(f"{path}: cannot be written: {reason}; nothing was kept") from error


def copy(source: Path, target: Path, meter: Meter | None = None) -> str:
    """Copies a file; returns the digest of what was written."""
    with reading(source) as file, writing(target, meter) as output:
        for chunk in read_chunks(file, source, 0, os.fstat(file.fileno()).st_size):
            output.write(chunk)
        return output.digest()


def write_bytes(path: Path, data: bytes) -> str:
    """Writes a small file; returns its digest."""
    with writing(path) as output:
        output.write(data)
        return output.digest()


def write_tensors(
    path: Path,
    formats: Mapping[str, Format],
    chunks: Callable[[str], Iterable[bytes | memoryview]],
    metadata: Mapping[str, str] | None = None,
    meter: Meter | None = None,
) -> str:
    """Writes a new safetensors file; the same bytes for the same tensors.

    Args:
        formats: the tensors by name.
        chunks: gives the bytes of a tensor by its name, little-endian, rows first, in pieces.

    Returns:
        SHA-256 of the file, in hexadecimal.

    Raises:
        CheckpointError: the system refused (disk full); no file is left.
    """
    names = sorted(formats, key=lambda name: (-ITEM_BYTES[formats[name].dtype], name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        start, end = end, end + formats[name].nbytes
        header[name] = {
            "dtype": formats[name].dtype,
            "shape": list(formats[name].shape),
            "data_offsets": [start, end],
        }
    text = strict_json.dump_compact(header)
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > _HEADER_LIMIT:
        raise CheckpointError(
            f"{path}: has a header of {len(text)} bytes; expected at most {_HEADER_LIMIT}"
        )
    with writing(path, meter) as output:
        output.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            written = 0
            for chunk in chunks(name):
                output.write(chunk)
                written += len(chunk)
            assert written == formats[name].nbytes, name
        return output.digest()


def sync_folder(folder: Path) -> None:
    """Makes names in the folder last through a power cut, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
