"""One training at a time writes into a run folder."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from pyedge.errors import CheckpointError
from pyedge.trainer.distributed import Group

_FILE = ".lock"  # says who holds it
_LONGEST = 200  # bytes of that


@contextmanager
def locked(run: Path, group: Group) -> Iterator[None]:
    """Keeps other trainings out of a run folder within the block; every rank enters it.

    The system drops the lock of a process that ends, however it ends. Where the file system has no
    locks, nothing is kept out.

    Args:
        group: the ranks; see `Group.patient`. The first one takes the lock.

    Raises:
        CheckpointError: another training has it, or the folder cannot be written to.
    """
    problem, descriptor = "", -1
    if group.rank == 0:
        try:
            run.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(run / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            if not _lock(descriptor):
                holder = os.pread(descriptor, _LONGEST, 0).decode(errors="replace").strip()
                problem = (
                    f"another training writes into it ({holder}); wait for its end, or train into "
                    "another folder"
                )
        except OSError as error:
            problem = f"cannot be written: {error.strerror or error}"
    told = problem.encode()[: 2 * _LONGEST].ljust(2 * _LONGEST)
    everyone = group.broadcast(torch.tensor(list(told), dtype=torch.uint8), "lock")
    try:
        problem = bytes(everyone.tolist()).decode(errors="replace").strip()
        if problem:
            raise CheckpointError(f"{run}: {problem}")
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Takes the lock and writes who has it; False where another process does."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # no locks on this file system
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} of {socket.gethostname()}\n".encode(), 0)
    return True
