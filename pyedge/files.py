"""Writing files whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pyedge.errors import InvalidArgumentError, PyEdgeError


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes `data` to `path`; see `writing_atomically`."""
    with writing_atomically(path) as file:
        file.write(data)


@contextmanager
def writing_atomically(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write: after the block it is at `path` whole, or what was there before still is.

    The bytes go to a temporary file in the same folder, to the disk, and only then under the
    name asked for. A symbolic link keeps pointing to its file, which is replaced.

    Raises:
        InvalidArgumentError: `path` is a folder or a device.
        PyEdgeError: the system refused (no such folder, no permission, disk full).
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise InvalidArgumentError(f"{path}: cannot be written: not a regular file")
    temporary = target.with_name(f".{target.name[:80]}.{secrets.token_hex(8)}.tmp")
    try:
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise PyEdgeError(f"{path}: cannot be written: {reason}; nothing was kept") from error
    _sync_directory(target.parent)


def _sync_directory(directory: Path) -> None:
    """Makes the rename last through a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
