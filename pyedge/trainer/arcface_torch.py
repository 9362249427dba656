"""Checkpoints of InsightFace's arcface_torch, read without running their pickles.

Each rank of `train_v2.py` with `save_all_states` writes `checkpoint_gpu_RANK.pt`: a dictionary of
`epoch`, `global_step`, `state_dict_backbone` (alike on all ranks), `state_dict_softmax_fc` with
this rank's `weight` [classes, dim], and the states of optimizer and schedule. Taken over are
backbone, class centres and step; the optimizer's state is not. A checkpoint does not say how many
ranks there were: that the last ones are missing can be seen only where shards differ in size.

The backbone is an IResNet (`backbones/iresnet.py` there), layer for layer the one here. Pixels are
normalised as `dataset.py` there does: RGB, 0…255 to −1…1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pyedge.errors import CheckpointError, UnsupportedError
from pyedge.trainer.backbones import IRESNET_REPEATS, backbone
from pyedge.trainer.checkpoint import NETWORK, new_folder
from pyedge.trainer.manifest import BACKBONE, CENTERS, MAX_RANKS, Manifest, Network, shard_file
from pyedge.trainer.partition import Partition
from pyedge.trainer.tensor_file import Format, Meter, Progress, write_tensors
from pyedge.trainer.torch_file import StoredTensor, TorchFile

SIZE = 112  # pixels; the only size that its IResNet takes
PREPROCESSING = {
    "color": "rgb",
    "input_size": [SIZE, SIZE],
    "mean": 127.5,
    "std": 127.5,
    "landmarks": "arcface",
}
_FILE = re.compile(r"checkpoint_gpu_(\d{1,6})\.pt")
_BLOCK = re.compile(r"layer([1-4])\.(\d{1,3})\.bn1\.weight")
_MOST_STEPS = 1 << 53
# Parts of a block there, and where they are in `IResNetBlock`.
_PARTS = {
    "bn1": "layers.0",
    "conv1": "layers.1",
    "bn2": "layers.2",
    "prelu": "layers.3",
    "conv2": "layers.4",
    "bn3": "layers.5",
    "downsample.0": "shortcut.0",
    "downsample.1": "shortcut.1",
}


def import_checkpoint(source: Path, out: Path, progress: Progress | None = None) -> None:
    """Writes what the files in the folder `source` hold as a checkpoint.

    Args:
        source: with checkpoint_gpu_0.pt, checkpoint_gpu_1.pt, …
        out: the folder to write; afterwards it is there whole or not at all.
        progress: called with what is going on, bytes done, of how many.

    Raises:
        CheckpointError: a file is missing or damaged, files are of different steps or runs, `out`
            exists or cannot be written.
        UnsupportedError: another backbone than IResNet-18/34/50/100, or what cannot be read
            without running the file.
    """
    ranks = [_Rank(path) for path in _files(source)]
    first = ranks[0]
    for rank in ranks:
        for name in ("step", "epoch", "dim"):
            if getattr(rank, name) != getattr(first, name):
                raise CheckpointError(
                    f"{rank.file.path}: {name} is {getattr(rank, name)}; expected "
                    f"{getattr(first, name)}, as in {first.file.path.name}"
                )
    partition = _partition(ranks)
    network, tensors = _backbone(first)
    manifest = Manifest(
        first.step,
        partition,
        first.dim,
        network,
        PREPROCESSING | {"model_name": network.name},
        config={"origin": "arcface_torch"},
        training={"epoch": first.epoch},
        shard_tensors={CENTERS: first.centers.row},
    )
    total = sum(t.nbytes for t in (*tensors.values(), *(rank.centers for rank in ranks)))
    meter = Meter(progress, f"writing {out.name}", total)
    with new_folder(out) as folder:
        digests = {BACKBONE: _write(folder.temporary / BACKBONE, first.file, tensors, meter)}
        for index, rank in enumerate(ranks):
            name = shard_file(index, len(ranks))
            centers = {CENTERS: rank.centers}
            digests[name] = _write(folder.temporary / name, rank.file, centers, meter)
        folder.finish(replace(manifest, digests=digests))


def _files(source: Path) -> list[Path]:
    """The files of all ranks, in their order."""
    if not source.is_dir():
        raise CheckpointError(f"{source}: is no folder with checkpoint_gpu_0.pt, …")
    found = {}
    for path in source.iterdir():
        match = _FILE.fullmatch(path.name)
        if match:
            found[int(match[1])] = path
    for rank in range(max(found, default=0) + 1):
        if rank not in found:
            raise CheckpointError(f"{source / f'checkpoint_gpu_{rank}.pt'}: is missing")
        if rank >= MAX_RANKS:
            raise CheckpointError(f"{found[rank]}: expected at most {MAX_RANKS} ranks")
    return [found[rank] for rank in sorted(found)]


class _Rank:
    """The file of one rank: what is taken over from it."""

    def __init__(self, path: Path) -> None:
        self.file = TorchFile(path)
        self._root = self.file.mapping(self.file.root, "the checkpoint")
        head = self.file.mapping(self._take("state_dict_softmax_fc"), "state_dict_softmax_fc")
        if "weight" not in head:
            raise CheckpointError(f"{path}: state_dict_softmax_fc has no weight")
        self.centers = self.file.tensor(head["weight"], "state_dict_softmax_fc: weight")
        if self.centers.dtype != "F32" or len(self.centers.shape) != 2 or not self.centers.nbytes:
            raise UnsupportedError(
                f"{path}: state_dict_softmax_fc: weight is {self.centers}; expected "
                "F32 [classes, dim]"
            )
        self.dim = self.centers.shape[1]
        self.step, self.epoch = self._whole("global_step"), self._whole("epoch")

    def backbone(self) -> dict[str, Any]:
        return self.file.mapping(self._take("state_dict_backbone"), "state_dict_backbone")

    def _take(self, name: str) -> Any:
        if name not in self._root:
            raise CheckpointError(
                f"{self.file.path}: {name} is missing; expected a checkpoint that arcface_torch "
                "wrote with save_all_states"
            )
        return self._root[name]

    def _whole(self, name: str) -> int:
        value = self._take(name)
        if type(value) is not int or not 0 <= value < _MOST_STEPS:
            raise CheckpointError(f"{self.file.path}: {name} is no count")
        return value


def _partition(ranks: list[_Rank]) -> Partition:
    """Shards are even there, the first ranks with one class more."""
    partition = Partition(tuple(rank.centers.shape[0] for rank in ranks))
    even = Partition.even(partition.classes, partition.ranks)
    for rank, has, expected in zip(ranks, partition.sizes, even.sizes, strict=True):
        if has != expected:
            raise CheckpointError(
                f"{rank.file.path}: has {has} classes; expected {expected}, if the files are of "
                f"one run of {len(ranks)} ranks"
            )
    return partition


def _backbone(rank: _Rank) -> tuple[Network, dict[str, StoredTensor]]:
    """The network, and its tensors by the names that they have here."""
    path, state = rank.file.path, rank.backbone()
    blocks = [0, 0, 0, 0]
    for match in filter(None, map(_BLOCK.fullmatch, state)):
        blocks[int(match[1]) - 1] += 1
    depth = next((d for d, repeats in IRESNET_REPEATS.items() if [*repeats] == blocks), None)
    if depth is None or "fc.weight" not in state:
        raise UnsupportedError(
            f"{path}: state_dict_backbone is no IResNet of depth "
            f"{', '.join(map(str, IRESNET_REPEATS))}: it has {blocks} blocks of that kind"
        )
    shape = rank.file.tensor(state["fc.weight"], "state_dict_backbone: fc.weight").shape
    if len(shape) != 2 or not 1 <= shape[0] <= 1 << 20:
        raise CheckpointError(f"{path}: state_dict_backbone: fc.weight is {list(shape)}")
    network = Network(f"iresnet{depth}", shape[0], SIZE)
    with torch.device("meta"):
        expected = backbone(network.name, network.features, SIZE).state_dict()
    names = dict(_names(IRESNET_REPEATS[depth], expected))
    for theirs in sorted(names.keys() ^ state.keys()):
        has = "is missing" if theirs in names else "is not known"
        raise UnsupportedError(f"{path}: state_dict_backbone: {theirs:.80} {has} in {network.name}")
    result = {}
    for theirs, ours in names.items():
        what = f"state_dict_backbone: {theirs}"
        tensor = rank.file.tensor(state[theirs], what)
        if tensor.shape != expected[ours].shape:
            raise CheckpointError(
                f"{path}: {what} is {tensor}; {network.name} has {list(expected[ours].shape)}"
            )
        result[NETWORK + ours] = tensor
    return network, result


def _names(repeats: tuple[int, ...], ours: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Their name and ours of each tensor."""
    prefixes = {"layers.0.0": "conv1", "layers.0.1": "bn1", "layers.0.2": "prelu"}
    index = 1
    for stage, count in enumerate(repeats, 1):
        for block in range(count):
            for theirs, part in _PARTS.items():
                prefixes[f"layers.{index}.{part}"] = f"layer{stage}.{block}.{theirs}"
            index += 1
    prefixes |= {f"layers.{index}": "bn2", "fc": "fc", "features": "features"}
    for name in ours:
        prefix, _, last = name.rpartition(".")
        yield f"{prefixes[prefix]}.{last}", name


def _write(path: Path, source: TorchFile, tensors: Mapping[str, StoredTensor], meter: Meter) -> str:
    formats = {name: Format(tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    return write_tensors(path, formats, lambda name: source.chunks(tensors[name]), meter=meter)
