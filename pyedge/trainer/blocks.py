"""The matrix of class centres a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

BLOCK = 8192  # classes: few enough to stay in a CPU's cache, and enough to keep a GPU busy


def blocks(classes: int) -> Iterator[slice]:
    """Slices of `BLOCK` that together are all of so many classes."""
    for start in range(0, classes, BLOCK):
        yield slice(start, min(start + BLOCK, classes))
