"""Input shapes for commands that need one where the model leaves sizes open."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import typer

from pyedge.errors import InvalidArgumentError

MAX_BATCH = 65_536
SizeOption = Annotated[
    str | None,
    typer.Option(
        metavar="WxH", help="Width and height of the input, where the model takes any size."
    ),
]


def parse_size(size: str) -> tuple[int, int]:
    """Width and height from "WxH".

    Raises:
        InvalidArgumentError: anything else.
    """
    width, _, height = size.lower().partition("x")
    if not all(side.isascii() and side.isdigit() and len(side) <= 6 for side in (width, height)):
        raise InvalidArgumentError(f"size {size!r}; expected width x height, as in 112x112")
    if not int(width) or not int(height):
        raise InvalidArgumentError(f"size {size!r}; expected sides of at least one pixel")
    return int(width), int(height)


def input_shapes(session: Any, batch: int, size: str | None) -> list[tuple[int, ...]]:
    """A shape for each input: open sizes filled from `batch`, `size`, then the metadata.

    Raises:
        InvalidArgumentError: a size stays open, or a given one is not what the model takes.
    """
    width, height = parse_size(size) if size else session.metadata.input_size
    shapes = []
    for info in session.inputs:
        wanted = [batch, *info.shape[1:]]
        if len(wanted) == 4:
            wanted[2:] = (height or info.shape[2], width or info.shape[3])
        if -1 in wanted:
            raise InvalidArgumentError(
                f"input {info.name} takes any size {_text(info.shape)}: say which with --size"
            )
        if any(own not in (-1, given) for own, given in zip(info.shape, wanted, strict=True)):
            raise InvalidArgumentError(
                f"input {info.name} takes {_text(info.shape)}, not {_text(wanted)}"
            )
        shapes.append(tuple(wanted))
    return shapes


def random_inputs(shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Standard normal float32 arrays, the same at every call."""
    random = np.random.default_rng(0)
    return [random.standard_normal(shape, dtype=np.float32) for shape in shapes]


def _text(shape: Any) -> str:
    return "[" + ", ".join("any" if dim == -1 else str(dim) for dim in shape) + "]"
