"""Training steps of the class centres: ranks of one thread each against one process of one thread.

cd tests && python benchmarks/trainer_head.py [--classes 500000] [--dim 256] [--batch 128] [--json]

Each rank has a CPU of its own. They take turns, and ratios compare neighbours in time. The bytes
are those that a rank hands to the exchanges.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import torch
from ranks import run_ranks

from pyedge.trainer import CosFace, RowSGD, ShardedHead
from pyedge.trainer.memory import keep_freed_memory

RANKS = 2
_heads: dict[tuple[int, int], tuple[ShardedHead, RowSGD]] = {}  # of this process


def steps(classes: int, dim: int, batch: int, count: int) -> dict[str, float]:
    """Seconds of a step on this rank: forward, backward, update of the rows; of a global batch."""
    if (classes, dim) not in _heads:
        keep_freed_memory()  # as every rank of a training does
        head = ShardedHead(classes, dim, CosFace(16.0, 0.2))
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cpus[head.group.rank % len(cpus)]})
        _heads[classes, dim] = head, RowSGD(head, 0.1)
    head, optimizer = _heads[classes, dim]
    share = batch // head.group.world_size
    generator = torch.Generator().manual_seed(head.group.rank)
    features = torch.randn(share, dim, generator=generator, requires_grad=True)
    labels = torch.randint(classes, (share,), generator=generator)
    head.group.traffic.clear()
    head.group.barrier()
    start = time.perf_counter()
    for _ in range(count):
        head(features, labels).backward()
        optimizer.step()
    head.group.barrier()
    seconds = (time.perf_counter() - start) / count
    return {"seconds": seconds, "bytes": sum(head.group.traffic.values()) / count}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=500_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    job = args.classes, args.dim, args.batch
    for ranks in (1, RANKS):
        run_ranks(ranks, steps, *job, 1)
    one, many = [], []
    for _ in range(args.rounds):
        one.append(run_ranks(1, steps, *job, args.steps)[0]["seconds"])
        results = run_ranks(RANKS, steps, *job, args.steps)
        many.append(results[0]["seconds"])
    found = {
        "one_ms": statistics.median(one) * 1e3,
        "ranks_ms": statistics.median(many) * 1e3,
        "ratio": statistics.median(a / b for a, b in zip(one, many, strict=True)),
        "bytes_sent_by_a_rank": results[0]["bytes"],
    }
    if args.json:
        print(json.dumps(found, indent=1))
        return
    print(f"{args.classes:,} classes of {args.dim}, {args.batch} images a step")
    print(f"one process, one thread      {found['one_ms']:9.1f} ms")
    print(f"{RANKS} ranks, one thread each      {found['ranks_ms']:9.1f} ms")
    print(f"ratio                        {found['ratio']:9.2f}")
    print(f"sent by a rank in a step     {found['bytes_sent_by_a_rank']:9.0f} bytes")


if __name__ == "__main__":
    main()
