"""The sharded run on processes of this machine."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import nullcontext
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from pyedge.cli import output
from pyedge.trainer.distributed import Group
from pyedge.trainer.memory import keep_freed_memory
from pyedge.trainer.puzzle.compare import Comparison, compare
from pyedge.trainer.puzzle.problem import Puzzle
from pyedge.trainer.puzzle.sharded import sharded, share_of_batch

_TIMEOUT = timedelta(minutes=10)  # for what one rank may be slower than another


def compare_on_ranks(
    puzzle: Puzzle,
    ranks: int,
    steps: int,
    dtype: torch.dtype = torch.float64,
    progress: bool = False,
) -> Comparison:
    """The first steps on `ranks` processes of this machine, held against the collapsed run.

    Args:
        progress: draw it on standard error.
    """
    share_of_batch(ranks)
    threads = max(1, (os.cpu_count() or 1) // ranks)
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_rank, (folder, ranks, threads, puzzle, steps, dtype, progress), nprocs=ranks)
        return Comparison(**json.loads((Path(folder) / "comparison.json").read_text()))


def _rank(
    rank: int,
    folder: str,
    ranks: int,
    threads: int,
    puzzle: Puzzle,
    steps: int,
    dtype: torch.dtype,
    progress: bool,
) -> None:
    keep_freed_memory()
    torch.set_num_threads(threads)
    dist.init_process_group(
        "gloo", f"file://{folder}/meeting", _TIMEOUT, rank=rank, world_size=ranks
    )
    show = output.progress() if progress and rank == 0 else nullcontext()
    with show as advance:
        comparison = compare(sharded(puzzle, Group(), dtype), puzzle, steps, advance)
    if rank == 0:
        (Path(folder) / "comparison.json").write_text(json.dumps(asdict(comparison)))
    dist.destroy_process_group()
