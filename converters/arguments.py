"""What can be wrong with a conversion before any work is done."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyedge.errors import InvalidArgumentError
from pyedge.session import MAX_THREADS

PathLike = str | os.PathLike[str]
MAX_DIMENSION = 2**31 - 1


def check_paths(reads: Mapping[str, Any], writes: Mapping[str, Any]) -> None:
    """Nothing that is written may be what is read, or be written twice.

    Args:
        reads, writes: paths by what they are called in a message; whatever is no path (an
            option left out, arrays) is passed over.

    Raises:
        InvalidArgumentError: two names for one file, a folder that does not exist.
    """
    taken = {what: path for what, path in reads.items() if isinstance(path, str | os.PathLike)}
    for what, path in writes.items():
        if path is None:
            continue
        if not isinstance(path, str | os.PathLike):
            raise InvalidArgumentError(f"{what} is {path!r}; expected a path")
        for other, used in taken.items():
            if _same_file(path, used):
                raise InvalidArgumentError(
                    f"{path}: {what} is the same file as {other}; write to another"
                )
        if Path(path).is_dir():
            raise InvalidArgumentError(f"{path}: {what} is a folder; expected a file")
        if not Path(path).absolute().parent.is_dir():
            raise InvalidArgumentError(f"{path}: the folder for {what} does not exist")
        taken[what] = path


def _same_file(first: PathLike, second: PathLike) -> bool:
    try:
        if Path(first).samefile(second):
            return True
    except OSError:  # one does not exist yet
        pass
    return os.path.realpath(first) == os.path.realpath(second)


def check_float_options(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raises InvalidArgumentError for an option of INT8 that was given for a float model."""
    for name, value in options.items():
        if value is not None and (name not in defaults or value != defaults[name]):
            flag = name.replace("_", "-").removesuffix("s" if name == "fp32_layers" else "")
            raise InvalidArgumentError(
                f"{name} (--{flag}): needs precision int8, with images or a table in calibration"
            )


def default_threads() -> int:
    return min(os.cpu_count() or 1, MAX_THREADS)


def check_input_shape(given: Any) -> None:
    """Raises InvalidArgumentError for anything but None, a shape, or shapes by name."""
    shapes = list(given.values()) if isinstance(given, Mapping) else [given]
    if given is None:
        return
    for shape in shapes:
        try:
            good = not isinstance(shape, str | bytes) and all(
                not isinstance(dim, bool | float) and int(dim) == dim and dim <= MAX_DIMENSION
                for dim in shape
            )
        except (TypeError, ValueError):
            good = False
        if not good:
            raise InvalidArgumentError(
                f"input_shape is {given!r}; expected whole numbers such as (1, 3, 112, 112), or "
                "such a shape for each input by name"
            )
