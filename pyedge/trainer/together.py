"""Work that takes a rank as long as it takes, and fails on all ranks as soon as it does on one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pyedge.errors import LostRankError
from pyedge.trainer.distributed import Group
from pyedge.trainer.tensor_file import Progress

_BEAT = 1.0  # seconds between two words from a rank that is at work
_WORKING, _DONE, _FAILED = range(3)


@contextmanager
def together(group: Group, failed: str, progress: Progress | None = None) -> Iterator[Progress]:
    """The block ends on each rank when all have done it, and fails on each once it does on one.

    A rank that is at work says so every second, from a thread. So one that is gone, or has stopped,
    is missed within the group's time limit, though the work may take hours.

    Args:
        group: of `Group.patient`; for nothing else within the block.
        failed: how the message to the other ranks begins.
        progress: called with what is going on.

    Yields:
        What the block calls as it goes on, in place of `progress`. It raises LostRankError once
        another rank has failed.

    Raises:
        LostRankError: another rank has failed, has ended or does not answer.
    """
    if group.world_size == 1:
        yield progress or _nobody
        return
    watch = _Watch(group, failed)

    def advance(what: str, done: int, total: int) -> None:
        watch.check()
        if progress is not None:
            progress(what, done, total)

    try:
        yield advance
        watch.finish(_DONE)
    except BaseException:  # whatever it is, the others are to know
        watch.finish(_FAILED)
        raise
    watch.check()


def _nobody(what: str, done: int, total: int) -> None:
    """Progress that nobody asked for."""


class _Watch:
    """Tells the other ranks how far this one is, and hears how far they are."""

    def __init__(self, group: Group, failed: str) -> None:
        self._group, self._failed = group, failed
        self._state, self._lost = _WORKING, ""
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def finish(self, state: int) -> None:
        """Says how it ended; returns when all others have, or one has failed."""
        self._state = state
        self._finished.set()
        self._thread.join()

    def check(self) -> None:
        if self._lost:
            raise LostRankError(self._lost)

    def _listen(self) -> None:
        states = [_WORKING]
        try:
            while _WORKING in states and _FAILED not in states:
                self._finished.wait(_BEAT)
                mine = torch.tensor([self._state], dtype=torch.uint8)
                states = self._group.all_gather(mine, "together").tolist()
        except LostRankError as error:
            self._lost = f"{self._failed}: {error}"
        others = [str(r) for r, s in enumerate(states) if s == _FAILED and r != self._group.rank]
        if others:
            self._lost = f"{self._failed}: rank {', '.join(others)} failed, and says why itself"
