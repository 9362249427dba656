"""Checkpoints for another number of ranks: rows move between files, no matrix is in memory.

The rows of consecutive classes are consecutive bytes of a safetensors file, so a new shard is a
copy of byte ranges of old ones. Bytes of rows never change: merging, splitting and merging again
gives the same files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pyedge.errors import CheckpointError, InvalidArgumentError
from pyedge.trainer import tensor_file
from pyedge.trainer.checkpoint import Checkpoint, new_folder
from pyedge.trainer.manifest import BACKBONE, MAX_RANKS, NAMES, shard_file
from pyedge.trainer.partition import Partition
from pyedge.trainer.tensor_file import Meter, Progress


def info(path: Path, verify: bool = False, progress: Progress | None = None) -> dict[str, Any]:
    """What a checkpoint holds, as plain values.

    Args:
        verify: also compare every file with its digest.

    Raises:
        CheckpointError: it cannot be read whole.
    """
    checkpoint = Checkpoint(path)
    if verify:
        checkpoint.verify(progress=progress)
    manifest = checkpoint.manifest
    shards = []
    for rank in range(manifest.world_size):
        classes, file = manifest.partition.range(rank), shard_file(rank, manifest.world_size)
        size = checkpoint.headers[file].file_bytes
        shards.append({"file": file, "classes": [classes.start, classes.stop], "bytes": size})
    return {
        "path": str(path),
        "step": manifest.step,
        "world_size": manifest.world_size,
        "classes": manifest.classes,
        "dim": manifest.dim,
        "network": vars(manifest.network),
        "tensors": {
            name: {"dtype": row.dtype, "shape": [manifest.classes, *row.shape]}
            for name, row in manifest.shard_tensors.items()
        },
        "label_names": manifest.label_names,
        "backbone_bytes": checkpoint.headers[BACKBONE].file_bytes,
        "shards": shards,
        "bytes": sum(header.file_bytes for header in checkpoint.headers.values()),
        "verified": verify,
    }


def merge(source: Path, out: Path, progress: Progress | None = None) -> None:
    """Writes a checkpoint with one shard that has all classes; see `reshard`."""
    checkpoint = Checkpoint(source)
    reshard(checkpoint, out, Partition.even(checkpoint.manifest.classes, 1), progress)


def reshard(
    checkpoint: Checkpoint, out: Path, partition: Partition, progress: Progress | None = None
) -> None:
    """Writes a checkpoint with other shards.

    Args:
        checkpoint: all its files are compared with their digests.
        out: the folder to write; afterwards it is there whole or not at all.
        partition: the classes of each rank.
        progress: called with what is going on, bytes done, of how many.

    Raises:
        InvalidArgumentError: a partition of another number of classes, or too many ranks.
        CheckpointError: the checkpoint is damaged, `out` exists or cannot be written.
    """
    old = checkpoint.manifest
    if partition.classes != old.classes:
        raise InvalidArgumentError(
            f"the shards have {partition.classes} classes together; expected {old.classes}"
        )
    if partition.ranks > MAX_RANKS:
        raise InvalidArgumentError(f"{partition.ranks} shards; expected at most {MAX_RANKS}")
    new = replace(old, partition=partition, digests={})
    with new_folder(out) as folder:
        checkpoint.verify(progress=progress)
        shared = [name for name in (BACKBONE, NAMES) if name in old.files]
        total = sum(header.file_bytes for header in checkpoint.headers.values())
        meter = Meter(progress, f"writing {out.name}", total)
        digests = {
            name: tensor_file.copy(checkpoint.path / name, folder.temporary / name, meter)
            for name in shared
        }
        for name in shared:
            if digests[name] != old.digests[name]:
                raise CheckpointError(f"{checkpoint.path / name}: changed while it was copied")
        for rank in range(new.world_size):
            name = shard_file(rank, new.world_size)
            digests[name] = tensor_file.write_tensors(
                folder.temporary / name,
                new.shard_formats(rank),
                partial(_rows, checkpoint, classes=partition.range(rank)),
                meter=meter,
            )
        folder.finish(replace(new, digests=digests))


def _rows(checkpoint: Checkpoint, tensor: str, classes: range) -> Iterator[memoryview]:
    """The bytes of the rows of `classes`, from file to file."""
    row_bytes = checkpoint.manifest.shard_tensors[tensor].nbytes
    for name, held, _ in checkpoint.pieces(classes):
        path, entry = checkpoint.path / name, checkpoint.headers[name].tensors[tensor]
        start = entry.start + held.start * row_bytes
        with tensor_file.reading(path) as file:
            yield from tensor_file.read_chunks(file, path, start, len(held) * row_bytes)
