"""Ranks: processes on this machine, or those that torchrun has started; and what ends them."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from pyedge.errors import InvalidArgumentError, LostRankError, PyEdgeError, TrainingError
from pyedge.trainer import checkpoint
from pyedge.trainer.config import TrainConfig
from pyedge.trainer.distributed import Group, reason
from pyedge.trainer.memory import keep_freed_memory
from pyedge.trainer.processes import end_with_parent, interrupts, interrupts_held
from pyedge.trainer.tensor_file import Progress
from pyedge.trainer.train import TrainResult, train

TIMEOUT = timedelta(seconds=40)  # for an answer from another rank during a step
_GRACE = 5.0  # seconds that ranks have to end by themselves, after another has


def launch(
    config: TrainConfig,
    run: Path,
    ranks: int = 1,
    progress: Progress | None = None,
    timeout: timedelta = TIMEOUT,
) -> TrainResult | None:
    """Trains on `ranks` processes of this machine, or as one rank of torchrun's.

    Args:
        ranks: processes, each with its share of the CPU's threads, or a GPU each. Under torchrun
            (RANK and WORLD_SIZE in the environment) it must be 1 or torchrun's.
        progress: called on one rank, or in this process for all.
        timeout: how long a rank waits for another's answer within a step.

    Returns:
        The result; None on ranks other than the first under torchrun.

    Raises:
        TrainingError: a rank ended; which, and what the last checkpoint is. The other ranks have
            ended too, within a minute.
        PyEdgeError: what a rank met, see `train`.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return _torchrun(config, run, ranks, progress, timeout)
    if ranks < 1:
        raise InvalidArgumentError(f"ranks is {ranks}; expected at least 1")
    if ranks == 1:
        with _explained(run):
            return train(config, run, Group(), progress)
    return _Ranks(config, run, ranks, timeout).result(progress)


def _torchrun(
    config: TrainConfig, run: Path, ranks: int, progress: Progress | None, timeout: timedelta
) -> TrainResult | None:
    world_size = os.environ["WORLD_SIZE"]
    if ranks != 1 and str(ranks) != world_size:
        raise InvalidArgumentError(f"{ranks} ranks, but torchrun has started {world_size}")
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun itself is the parent, and no shell
        end_with_parent()
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    with _explained(run), _joined(cuda, timeout):
        group = Group()
        result = train(config, run, group, progress if group.rank == 0 else None)
    return result if group.rank == 0 else None


class _Ranks:
    """Processes of this machine. Each reports over a pipe in JSON; whoever ends is seen at once."""

    def __init__(self, config: TrainConfig, run: Path, ranks: int, timeout: timedelta) -> None:
        self._config, self._run, self._ranks, self._timeout = config, run, ranks, timeout
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []
        self._told: dict[int, dict[str, Any]] = {}  # how each rank ended, the first one first
        self._asked_to_end = False

    def result(self, progress: Progress | None) -> TrainResult:
        """Waits for all ranks; hands on to them that they are to end (SIGINT, SIGTERM).

        Raises:
            KeyboardInterrupt: they were asked twice, or before there was anything to save.
            PyEdgeError: see `launch`.
        """
        with tempfile.TemporaryDirectory() as folder:
            try:
                with interrupts_held():
                    for rank in range(self._ranks):
                        self._start(rank, folder)
                with interrupts(self._ask_to_end):
                    self._listen(progress)
            finally:
                silent = self._end()
        return self._judge(silent)

    def _start(self, rank: int, folder: str) -> None:
        context = mp.get_context("spawn")
        threads = max(1, len(os.sched_getaffinity(0)) // self._ranks)
        place = rank, self._ranks, threads, folder, self._timeout, self._config, self._run
        try:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(
                target=_rank, args=(*place, theirs), name=f"rank {rank}", daemon=True
            )
            process.start()
        except OSError as error:
            raise TrainingError(f"rank {rank} cannot be started: {error.strerror}") from error
        theirs.close()
        self._processes.append(process)
        self._pipes.append(ours)

    def _ask_to_end(self) -> None:
        self._asked_to_end = True
        for process in self._processes:
            process.terminate()

    def _listen(self, progress: Progress | None) -> None:
        """Until all ranks have ended, or those that are left had their time after another has."""
        open_pipes = dict(zip(self._pipes, range(len(self._pipes)), strict=True))
        deadline = None
        while open_pipes:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = wait(list(open_pipes), timeout=left)
            if not ready:
                return
            for pipe in ready:
                assert isinstance(pipe, Connection)
                rank = open_pipes[pipe]
                try:
                    message = json.loads(pipe.recv_bytes())
                except (EOFError, OSError):
                    del open_pipes[pipe]
                    done = "result" in self._told.get(rank, {})
                    grace = self._timeout.total_seconds() if done else _GRACE
                    deadline = min(deadline or math.inf, time.monotonic() + grace)
                    continue
                if "progress" not in message:
                    self._told[rank] = message
                elif progress is not None:
                    progress(*message["progress"])

    def _end(self) -> set[int]:
        """Ends all processes; returns the ranks that did not end by themselves."""
        deadline = time.monotonic() + 0.5
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
        silent = {rank for rank, process in enumerate(self._processes) if process.is_alive()}
        for rank in silent:
            self._processes[rank].kill()
        for process in self._processes:
            process.join()
        return silent

    def _judge(self, silent: set[int]) -> TrainResult:
        """The result, or the error of the rank that failed: not one of those that missed it then.

        Raises:
            KeyboardInterrupt, PyEdgeError: see `result`.
        """
        count = len(self._processes)
        gone = [rank for rank in range(count) if rank not in self._told]
        died = [rank for rank in gone if rank not in silent]
        errors = [message for message in self._told.values() if "error" in message]
        causes = [message for message in errors if message["kind"] != LostRankError.__name__]
        if self._asked_to_end and gone and not causes:
            raise KeyboardInterrupt
        if died:
            how = _ending(self._processes[died[0]].exitcode)
            raise TrainingError(f"rank {died[0]} of {count} {how}; {_last(self._run)}")
        if gone and not causes:
            raise TrainingError(f"rank {gone[0]} of {count} does not answer; {_last(self._run)}")
        if errors:
            first = (causes or errors)[0]
            kinds = {kind.__name__: kind for kind in _all_kinds(PyEdgeError)}
            raise kinds.get(first["kind"], TrainingError)(first["error"])
        values = self._told[0]["result"]
        return TrainResult(**{**values, "checkpoint": Path(values["checkpoint"])})


def _rank(
    rank: int,
    ranks: int,
    threads: int,
    folder: str,
    timeout: timedelta,
    config: TrainConfig,
    run: Path,
    pipe: Connection,
) -> None:
    """What one process does."""

    def tell(**message: Any) -> None:
        with contextlib.suppress(OSError):  # the parent is gone, and this process with it
            pipe.send_bytes(json.dumps(message).encode())

    def progress(what: str, done: int, total: int) -> None:
        tell(progress=[what, done, total])

    end_with_parent()
    keep_freed_memory()
    torch.set_num_threads(threads)
    cuda = torch.cuda.device_count() >= ranks
    if cuda:
        torch.cuda.set_device(rank)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    place = {"init_method": f"file://{folder}/meeting", "rank": rank, "world_size": ranks}
    try:
        with _explained(run, f"rank {rank}: "), _joined(cuda, timeout, **place):
            result = train(config, run, Group(), progress if rank == 0 else None)
        tell(result={**asdict(result), "checkpoint": str(result.checkpoint)})
        return
    except PyEdgeError as error:
        tell(error=str(error), kind=type(error).__name__)
    except KeyboardInterrupt:
        tell(error=f"rank {rank}: interrupted; {_last(run)}", kind=TrainingError.__name__)
    except Exception as error:
        tell(error=f"rank {rank}: {type(error).__name__}: {error}", kind=TrainingError.__name__)
    os._exit(1)  # torch's own end, when an exchange has broken off, is an abort now and then


@contextmanager
def _joined(cuda: bool, timeout: timedelta, **place: Any) -> Iterator[None]:
    """The process group of all ranks, within the block."""
    try:
        dist.init_process_group("nccl" if cuda else "gloo", timeout=timeout, **place)
    except (RuntimeError, ValueError) as error:  # torch's own, and of a missing MASTER_ADDR
        raise LostRankError(f"the ranks do not find each other: {reason(error)}") from error
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def _explained(run: Path, rank: str = "") -> Iterator[None]:
    """A training that cannot go on says why, and what is left of it."""
    try:
        yield
    except TrainingError as error:
        raise type(error)(f"{error}; {_last(run)}") from error
    except (RuntimeError, MemoryError) as error:  # of torch: no memory, a device that failed
        raise TrainingError(f"{rank}{type(error).__name__}: {error}; {_last(run)}") from error


def _last(run: Path) -> str:
    last = checkpoint.latest(run)
    return f"the last checkpoint is {last}" if last is not None else "there is no checkpoint yet"


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"was killed by {name}" + (": out of memory?" if name == "SIGKILL" else "")
    return f"ended with exit code {code}"


def _all_kinds(kind: type[PyEdgeError]) -> Iterator[type[PyEdgeError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _all_kinds(below)
