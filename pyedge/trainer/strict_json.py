"""JSON from files that others wrote: bounded, without what JSON parsers quietly let through."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pyedge.errors import CheckpointError

_DEEPEST = 64  # levels of objects and arrays in each other


def parse(data: bytes, path: Path) -> Any:
    """The value that `data`, of the file `path`, holds.

    Raises:
        CheckpointError: no JSON in UTF-8, a key twice, a number that is none (NaN), is infinite
            or has thousands of digits, half a surrogate pair, objects nested too deeply.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise CheckpointError(f"{path}: the key {key[:80]!r} is there twice; expected once")
            result[key] = value
        return result

    def finite(text: str) -> float:
        number = float(text)
        if not math.isfinite(number):
            raise CheckpointError(f"{path}: {text[:40]} is no number that JSON can hold")
        return number

    try:
        text = data.decode()
        value = json.loads(
            text, object_pairs_hook=unique, parse_float=finite, parse_constant=finite
        )
        if "\\ud" in text.lower():  # an escaped surrogate: halves of a pair cannot be encoded
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise CheckpointError(f"{path}: JSON is nested too deeply") from None
    except ValueError as error:  # of the decoder, of int(), of UTF-8
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: not JSON in UTF-8: {reason}") from error
    level = _containers([value])
    for _ in range(_DEEPEST):
        level = _containers(
            child for item in level for child in (item.values() if isinstance(item, dict) else item)
        )
    if level:
        raise CheckpointError(f"{path}: JSON is nested more than {_DEEPEST} levels deep")
    return value


def _containers(values: Iterable[Any]) -> list[dict[str, Any] | list[Any]]:
    return [value for value in values if isinstance(value, dict | list)]


def read(path: Path, limit: int) -> Any:
    """The value in the file at `path`, of at most `limit` bytes.

    Raises:
        CheckpointError: see `parse`; or there is no such file, or it is larger.
    """
    try:
        if not path.is_file():
            raise CheckpointError(f"{path}: is missing; expected a file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise CheckpointError(
                    f"{path}: is too large: {size} bytes of JSON; expected at most {limit}"
                )
            data = file.read(size)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    return parse(data, path)


def dump(value: Any) -> bytes:
    """`value` as JSON in UTF-8, the same bytes for the same value."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def dump_compact(value: Any) -> bytes:
    """As `dump`, without spaces."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()
