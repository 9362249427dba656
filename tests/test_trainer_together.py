"""Work of all ranks: each takes its time, and no rank waits for one that has failed or is gone."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp
from ranks import run_ranks

from pyedge.errors import CheckpointError, LostRankError
from pyedge.trainer import distributed
from pyedge.trainer.distributed import Group
from pyedge.trainer.together import together

_LIMIT = 3.0  # seconds that a rank may be silent here


def _patient() -> Group:
    distributed._PATIENCE = timedelta(seconds=_LIMIT)
    return Group().patient()


def fail(kind: type[BaseException]) -> str:
    """Rank 1 fails at once; the others have work for a minute."""
    group, started = _patient(), time.monotonic()
    try:
        with together(group, "x: not done") as advance:
            if group.rank == 1:
                raise kind("of rank 1")
            while time.monotonic() < started + 60:
                advance("working", 0, 1)
    except (kind, LostRankError) as error:
        seconds = time.monotonic() - started
        with together(group, "x"):  # the ranks can go on
            pass
        return f"{type(error).__name__}: {error} {'at once' if seconds < 30 else seconds}"
    return "no error"


@pytest.mark.parametrize("kind", [CheckpointError, MemoryError, KeyboardInterrupt])
def test_all_fail_at_once(kind: type[BaseException]) -> None:
    lost = "LostRankError: x: not done: rank 1 failed, and says why itself at once"
    assert run_ranks(3, fail, kind) == [lost, f"{kind.__name__}: of rank 1 at once", lost]


def work() -> float:
    """Rank 1 needs longer than a rank may be silent."""
    group, started = _patient(), time.monotonic()
    with together(group, "x"):
        if group.rank == 1:
            threading.Event().wait(_LIMIT + 1)
    return time.monotonic() - started


def test_work_may_take_longer_than_an_answer() -> None:
    assert min(run_ranks(2, work)) > _LIMIT


def lose(rank: int, folder: str, number: signal.Signals, errors: Any) -> None:
    """Rank 1 gets the signal while both work, and have more to do."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    group, started = _patient(), time.monotonic()
    try:
        with together(group, "x: not done") as advance:
            if rank == 1:
                os.kill(os.getpid(), number)
            while time.monotonic() < started + 60:
                advance("working", 0, 1)
    except LostRankError as error:
        errors.put((str(error), time.monotonic() - started))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_rank_that_is_gone(number: signal.Signals) -> None:
    context = mp.get_context("spawn")
    errors = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            context.Process(target=lose, args=(rank, folder, number, errors)) for rank in range(2)
        ]
        for process in ranks:
            process.start()
        error, seconds = errors.get(timeout=60)
        ranks[1].kill()
        for process in ranks:
            process.join()
    assert "x: not done: rank 0 of 2: another rank has ended or does not answer" in error
    assert seconds < _LIMIT + 10
