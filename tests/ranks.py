"""Runs functions on several ranks: processes of one thread each, joined by gloo.

The processes stay for the next call, because each takes seconds to import torch.
"""

from __future__ import annotations

import atexit
import functools
import os
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

TIMEOUT = timedelta(seconds=60)
_SPAWN = mp.get_context("spawn")


def run_ranks(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(*arguments)` returns on each of `count` ranks; it must be importable."""
    inboxes, results = _ranks(count)
    for inbox in inboxes:
        inbox.put((function, arguments))
    answers = dict(results.get(timeout=300) for _ in range(count))
    for answer in answers.values():
        if isinstance(answer, _Failure):
            _ranks.cache_clear()  # the others may wait for this one
            raise AssertionError(f"a rank failed:\n{answer.trace}")
    return [answers[rank] for rank in range(count)]


class _Failure:
    def __init__(self, trace: str) -> None:
        self.trace = trace


@functools.cache
def _ranks(count: int) -> tuple[list[Any], Any]:
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    results = _SPAWN.Queue()
    inboxes = [_SPAWN.SimpleQueue() for _ in range(count)]
    for rank, inbox in enumerate(inboxes):
        arguments = rank, count, f"{folder.name}/meeting", inbox, results
        _SPAWN.Process(target=_serve, args=arguments, daemon=True).start()
    return inboxes, results


def _serve(rank: int, count: int, meeting: str, inbox: Any, results: Any) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", f"file://{meeting}", TIMEOUT, rank=rank, world_size=count)
    while True:
        function, arguments = inbox.get()
        try:
            answer = function(*arguments)
        except Exception:
            answer = _Failure(traceback.format_exc())
        results.put((rank, answer))
