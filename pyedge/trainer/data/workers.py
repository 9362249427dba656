"""Processes that read and decode: what a data set gives, in its order, however many work."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from pyedge.errors import PyEdgeError, TrainingError
from pyedge.trainer.processes import end_with_parent


def answers(data: Dataset, workers: int, sampler: Any = None) -> Generator[Any, None, None]:
    """What a data set gives, through so many workers; an error that it gives is raised here.

    Closing the iterator ends the workers.

    Args:
        workers: processes; 0 does it in this one.
        sampler: what a data set that is no iterable is asked for, in turn.

    Raises:
        TrainingError: a worker died.
    """
    loader = DataLoader(
        data,
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        # Not torch's own, whose state belongs to the training.
        generator=torch.Generator(),
        # A worker shares with its parent what is in memory, and uses neither its threads nor its
        # device.
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=_depend_on_parent,
    )
    with _child_signals_kept():
        items = iter(loader)
    try:
        while (item := next(items, None)) is not None:
            if isinstance(item, PyEdgeError):
                raise item
            yield item
    except RuntimeError as error:
        if not workers:
            raise
        # This is how torch reports a worker that is gone.
        raise TrainingError(f"a worker that loads data ended: {error}") from error
    finally:
        del items  # ends the workers, also while a traceback keeps this frame


@contextmanager
def _child_signals_kept() -> Iterator[None]:
    """Takes back the handler by which torch raises a worker's death wherever the program stands.

    Without it, it is found within seconds by whoever waits for that worker's next item.
    """
    before = signal.getsignal(signal.SIGCHLD)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


def _depend_on_parent(worker: int) -> None:
    """An interrupt is for the parent, which ends its workers; if it is killed, they go with it.

    torch's watch over the parent does not see to that: a worker with a full pipe waits for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
