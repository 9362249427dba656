"""What a process does with the memory that it frees."""

from __future__ import annotations

import ctypes

# Parameters of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Has this process keep what it frees, for what it allocates next. Only glibc is told.

    Every step of a training frees its large buffers and asks for the same again. By default they
    come from the kernel each time, page by page and cleared, which took half the time of a step
    of a large head (`benchmarks/trainer_head.py`).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
