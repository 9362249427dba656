"""Checkpoints of made-up trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pyedge.trainer.checkpoint import Checkpoint, save
from pyedge.trainer.distributed import Group
from pyedge.trainer.manifest import Manifest, Network
from pyedge.trainer.partition import Partition
from pyedge.trainer.shards import reshard

CLASSES, DIM = 23, 6
NAMES = [f"Ōta {index}" for index in range(CLASSES)]


def manifest(partition: Partition, step: int = 120, dim: int = DIM, **others: Any) -> Manifest:
    given: dict[str, Any] = {
        "network": Network("mobilefacenet", dim, 32),
        "preprocessing": {"color": "rgb", "input_size": [32, 32], "mean": 127.5, "std": 127.5},
        "config": {"lr": 0.1, "loss": "arcface"},
        "training": {"epoch": 3, "ramp": 0.25},
    }
    return Manifest(step, partition, dim, **(given | others))


def tensors(classes: range, seed: int = 0) -> dict[str, torch.Tensor]:
    """What a shard with these classes holds: the same rows whoever has them."""
    generator = torch.Generator().manual_seed(seed)
    whole = {
        name: torch.randn(CLASSES, DIM, generator=generator) for name in ("centers", "momentum")
    }
    whole["seen"] = torch.arange(CLASSES)
    return {name: tensor[classes.start : classes.stop] for name, tensor in whole.items()}


def backbone() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(4, 3, generator=generator)
    return {
        "network/weight": weight,
        "network/turned": weight.t(),  # not contiguous
        "network/half": weight.bfloat16(),
        "network/batches": torch.tensor(7),
        "optimizer/weight/momentum": weight.double(),
        "margin/empty": torch.zeros(0, 2),
    }


def save_alone(run: Path, step: int = 120, **options: Any) -> Path:
    partition = Partition((CLASSES,))
    shard = tensors(range(CLASSES))
    return save(run, Group(), manifest(partition, step), backbone(), shard, **options)


def checkpoint_of(folder: Path, sizes: tuple[int, ...]) -> Path:
    """A checkpoint with names and shards of these sizes."""
    whole = save_alone(folder / "run", label_names=NAMES)
    target = folder / "checkpoint"
    reshard(Checkpoint(whole), target, Partition(sizes))
    return target
