"""Ranks: processes on this machine, or those that torchrun has started; and what ends them."""

from __future__ import annotations

import contextlib
import json
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

from pyedge.errors import InvalidArgumentError, PyEdgeError, TrainingError
from pyedge.trainer import checkpoint
from pyedge.trainer.config import TrainConfig
from pyedge.trainer.distributed import Group
from pyedge.trainer.memory import keep_freed_memory
from pyedge.trainer.train import Progress, TrainResult, train

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
        world_size = int(os.environ["WORLD_SIZE"])
        if ranks not in (1, world_size):
            raise InvalidArgumentError(f"{ranks} ranks, but torchrun has started {world_size}")
        return _torchrun(config, run, progress, timeout)
    if ranks < 1:
        raise InvalidArgumentError(f"ranks is {ranks}; expected at least 1")
    if ranks == 1:
        return train(config, run, Group(), progress)
    return _Ranks(config, run, ranks, timeout).result(progress)


def _torchrun(
    config: TrainConfig, run: Path, progress: Progress | None, timeout: timedelta
) -> TrainResult | None:
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timeout)
    try:
        group = Group()
        with _named(run):
            result = train(config, run, group, progress if group.rank == 0 else None)
        return result if group.rank == 0 else None
    finally:
        dist.destroy_process_group()


class _Ranks:
    """Processes of this machine. Each reports over a pipe in JSON; whoever ends is seen at once."""

    def __init__(self, config: TrainConfig, run: Path, ranks: int, timeout: timedelta) -> None:
        self._run, self._timeout = run, timeout
        self._folder = tempfile.TemporaryDirectory()
        context = mp.get_context("spawn")
        self._processes: list[BaseProcess] = []
        self._silent: set[int] = set()  # ranks that had to be ended
        self._pipes: list[Connection] = []
        threads = max(1, len(os.sched_getaffinity(0)) // ranks)
        for rank in range(ranks):
            ours, theirs = context.Pipe(duplex=False)
            arguments = rank, ranks, threads, self._folder.name, timeout, config, run, theirs
            process = context.Process(
                target=_rank, args=arguments, name=f"rank {rank}", daemon=True
            )
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)

    def result(self, progress: Progress | None) -> TrainResult:
        """Waits for all ranks.

        Raises:
            PyEdgeError: see `launch`.
        """
        told: dict[int, dict[str, Any]] = {}
        open_pipes = dict(zip(self._pipes, range(len(self._pipes)), strict=True))
        deadline = None
        try:
            while open_pipes:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                ready = wait(list(open_pipes), timeout=left)
                if not ready:
                    break  # those that are left wait for who is gone
                for pipe in ready:
                    assert isinstance(pipe, Connection)
                    rank = open_pipes[pipe]
                    try:
                        message = json.loads(pipe.recv_bytes())
                    except EOFError:
                        del open_pipes[pipe]
                        if "result" not in told.get(rank, {}) and deadline is None:
                            deadline = time.monotonic() + _GRACE
                        continue
                    if "progress" in message:
                        if progress is not None:
                            progress(*message["progress"])
                    else:
                        told[rank] = {**message, "order": len(told)}
        except KeyboardInterrupt:
            # The terminal has told the ranks too; they make a checkpoint and end.
            for process in self._processes:
                process.join(self._timeout.total_seconds())
            raise
        finally:
            self._end()
        return self._judge(told)

    def _judge(self, told: dict[int, dict[str, Any]]) -> TrainResult:
        for rank, process in enumerate(self._processes):
            if rank not in told:  # gone without a word: the cause, not what it caused
                how = "does not answer" if rank in self._silent else _ending(process.exitcode)
                raise TrainingError(
                    f"rank {rank} of {len(self._processes)} {how}; {_last(self._run)}"
                )
        errors = [message for message in told.values() if "error" in message]
        if errors:
            # Who lost contact with another rank speaks of what another has met before.
            first = min(errors, key=lambda m: (m["kind"] == "TrainingError", m["order"]))
            kinds = {kind.__name__: kind for kind in _all_kinds(PyEdgeError)}
            raise kinds.get(first["kind"], TrainingError)(first["error"])
        values = told[0]["result"]
        return TrainResult(**{**values, "checkpoint": Path(values["checkpoint"])})

    def _end(self) -> None:
        for rank, process in enumerate(self._processes):
            process.join(0.5)
            if process.is_alive():
                self._silent.add(rank)
                process.kill()
                process.join()
        self._folder.cleanup()


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
        with contextlib.suppress(OSError):  # the parent is gone, and ends us
            pipe.send_bytes(json.dumps(message).encode())

    def progress(what: str, done: int, total: int) -> None:
        tell(progress=[what, done, total])

    keep_freed_memory()
    torch.set_num_threads(threads)
    cuda = torch.cuda.device_count() >= ranks
    if cuda:
        torch.cuda.set_device(rank)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        meeting = f"file://{folder}/meeting"
        backend = "nccl" if cuda else "gloo"
        dist.init_process_group(backend, meeting, timeout, rank=rank, world_size=ranks)
        with _named(run):
            result = train(config, run, Group(), progress if rank == 0 else None)
        tell(result={**asdict(result), "checkpoint": str(result.checkpoint)})
    except PyEdgeError as error:
        tell(error=str(error), kind=type(error).__name__)
    except KeyboardInterrupt:
        tell(error=f"rank {rank}: interrupted; {_last(run)}", kind="TrainingError")
    except Exception as error:
        tell(error=f"rank {rank}: {type(error).__name__}: {error}", kind="TrainingError")
    # All is told. An orderly end would wait for threads of a group whose ranks may be gone, or find
    # them at work and print that it terminates.
    os._exit(0)


@contextmanager
def _named(run: Path) -> Iterator[None]:
    """A training that cannot go on says what is left of it."""
    try:
        yield
    except TrainingError as error:
        raise TrainingError(f"{error}; {_last(run)}") from error


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
