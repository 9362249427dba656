"""Checkpoints of InsightFace's arcface_torch, read without running their pickles.

Each rank of `train_v2.py` with `save_all_states` writes `checkpoint_gpu_RANK.pt`: a dictionary of
`epoch`, `global_step`, `state_dict_backbone` (alike on all ranks), `state_dict_softmax_fc` with
this rank's `weight` [classes, dim], and the states of optimizer and schedule. Taken over are
backbone, class centres and step; the optimizer's state is not. A checkpoint does not say how many
ranks there were: that the last ones are missing can be seen only where shards differ in size.

The backbone is an IResNet or a MobileFaceNet (`backbones/iresnet.py`, `mobilefacenet.py` there),
layer for layer the one here. Pixels are normalised as `dataset.py` there does: RGB, 0…255 to −1…1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pyedge.errors import CheckpointError, UnsupportedError
from pyedge.trainer.backbones import IRESNET_REPEATS, MOBILEFACENETS, NAMES, WIDTH, backbone
from pyedge.trainer.checkpoint import NETWORK, new_folder
from pyedge.trainer.manifest import BACKBONE, CENTERS, MAX_RANKS, Manifest, Network, shard_file
from pyedge.trainer.partition import Partition
from pyedge.trainer.tensor_file import Format, Meter, Progress, write_tensors
from pyedge.trainer.torch_file import StoredTensor, TorchFile

SIZE = 112  # pixels; the only size that its networks take
PREPROCESSING = {
    "color": "rgb",
    "input_size": [SIZE, SIZE],
    "mean": 127.5,
    "std": 127.5,
    "landmarks": "arcface",
}
_FILE = re.compile(r"checkpoint_gpu_(\d{1,6})\.pt")
_BLOCK = re.compile(r"layer([1-4])\.(\d{1,3})\.bn1\.weight")
_BOTTLENECK = re.compile(r"layers\.([1357])\.layers\.(\d{1,3})\.layers\.0\.layers\.0\.weight")
# Weights: the last layer of an IResNet; the first and the last of a MobileFaceNet.
_FC, _STEM, _LINEAR = "fc.weight", "layers.0.layers.0.weight", "features.layers.2.weight"
_MOST_STEPS = 1 << 53
# Parts of a block there, and where they are in `IResNetBlock`, in `ConvBlock` and in `Bottleneck`.
_BLOCK_PARTS = {
    "bn1": "layers.0",
    "conv1": "layers.1",
    "bn2": "layers.2",
    "prelu": "layers.3",
    "conv2": "layers.4",
    "bn3": "layers.5",
    "downsample.0": "shortcut.0",
    "downsample.1": "shortcut.1",
}
_CONV_PARTS = {f"layers.{part}": f"{part}" for part in range(3)}
_BOTTLENECK_PARTS = {
    f"layers.{conv}.{theirs}": f"layers.{conv}.{ours}"
    for conv in range(3)
    for theirs, ours in _CONV_PARTS.items()
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
        UnsupportedError: another backbone than those of `backbones.NAMES`, or what cannot be read
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


@dataclass(frozen=True)
class _Theirs:
    """A network as it is there.

    Attributes:
        name: of the same network here.
        last: their name of the weight [features, inputs] of the last layer. A fully connected one,
            it may be a 1×1 convolution here: the same numbers, in the shape of that.
        layers: their name of each layer, by the one here.
    """

    name: str
    last: str
    layers: Mapping[str, str]

    def names(self, ours: Iterable[str]) -> dict[str, str]:
        """Our name of each tensor, by theirs."""
        result = {}
        for name in ours:
            layer, _, leaf = name.rpartition(".")
            result[f"{self.layers[layer]}.{leaf}"] = name
        return result


def _backbone(rank: _Rank) -> tuple[Network, dict[str, StoredTensor]]:
    """The network, and its tensors by the names that they have here."""
    path, state = rank.file.path, rank.backbone()

    def stored(name: str) -> StoredTensor:
        return rank.file.tensor(state[name], f"state_dict_backbone: {name}")

    theirs = _recognise(path, state.keys(), stored(_STEM).shape if _STEM in state else ())
    shape = stored(theirs.last).shape
    if len(shape) != 2 or not 1 <= shape[0] <= 1 << 20:
        raise CheckpointError(f"{path}: state_dict_backbone: {theirs.last} is {list(shape)}")
    network = Network(theirs.name, shape[0], SIZE)
    with torch.device("meta"):
        expected = backbone(network.name, network.features, SIZE).state_dict()
    names = theirs.names(expected)
    for name in sorted(names.keys() ^ state.keys()):
        has = "is missing" if name in names else "is not known"
        raise UnsupportedError(f"{path}: state_dict_backbone: {name:.80} {has} in {network.name}")
    result = {}
    for name, ours in names.items():
        tensor, ours_shape = stored(name), tuple(expected[ours].shape)
        shape = ours_shape[:2] if name == theirs.last else ours_shape
        if tensor.shape != shape:
            raise CheckpointError(
                f"{path}: state_dict_backbone: {name} is {tensor}; {network.name} has {list(shape)}"
            )
        result[NETWORK + ours] = replace(tensor, shape=ours_shape)
    return network, result


def _recognise(path: Path, names: Collection[str], stem: tuple[int, ...]) -> _Theirs:
    """The network that has tensors of these names, as far as known ones differ in them.

    Args:
        stem: the shape of the tensor `_STEM`, () without: names alone do not tell a scale.
    """
    repeats = _count(_BLOCK, "1234", names)
    for depth, known in IRESNET_REPEATS.items():
        if repeats == known and _FC in names:
            return _Theirs(f"iresnet{depth}", _FC, _iresnet_layers(repeats))
    first, *others = _count(_BOTTLENECK, "1357", names)
    blocks = (first or 1, *others)  # a single one is a convolution
    for name, (scale, known) in MOBILEFACENETS.items():
        if blocks == known and stem[:1] == (WIDTH * scale,) and _LINEAR in names:
            return _Theirs(name, _LINEAR, _mobilefacenet_layers(blocks))
    raise UnsupportedError(
        f"{path}: state_dict_backbone is none of {', '.join(NAMES)}: it has {list(repeats)} blocks "
        f"of an IResNet, {[first, *others]} of a MobileFaceNet whose first layer is {list(stem)}"
    )


def _count(pattern: re.Pattern[str], stages: str, names: Iterable[str]) -> tuple[int, ...]:
    """How many names of each stage, the first group of the pattern, it matches."""
    found = Counter(match[1] for match in map(pattern.fullmatch, names) if match)
    return tuple(found[stage] for stage in stages)


def _iresnet_layers(repeats: tuple[int, ...]) -> dict[str, str]:
    """Their name of each layer of an IResNet, by the one here."""
    layers = {"layers.0.0": "conv1", "layers.0.1": "bn1", "layers.0.2": "prelu"}
    index = 1
    for stage, count in enumerate(repeats, 1):
        for block in range(count):
            for theirs, ours in _BLOCK_PARTS.items():
                layers[f"layers.{index}.{ours}"] = f"layer{stage}.{block}.{theirs}"
            index += 1
    return layers | {f"layers.{index}": "bn2", "fc": "fc", "features": "features"}


def _mobilefacenet_layers(blocks: tuple[int, ...]) -> dict[str, str]:
    """Their name of each layer of a MobileFaceNet, by the one here."""

    def chain(index: int, count: int) -> list[tuple[str, dict[str, str]]]:
        return [(f"layers.{index}.layers.{i}", _BOTTLENECK_PARTS) for i in range(count)]

    first, *others = blocks
    modules = [("layers.0", _CONV_PARTS)]
    modules += [("layers.1", _CONV_PARTS)] if first == 1 else chain(1, first)
    for index, count in zip((2, 4, 6), others, strict=True):
        modules += [(f"layers.{index}", _BOTTLENECK_PARTS), *chain(index + 1, count)]
    modules += [("conv_sep", _CONV_PARTS), ("features.layers.0", _CONV_PARTS)]
    modules += [("features", {"layers.2": "0", "layers.3": "1"})]
    return {
        f"layers.{index}.{ours}": f"{module}.{theirs}"
        for index, (module, parts) in enumerate(modules)
        for theirs, ours in parts.items()
    }


def _write(path: Path, source: TorchFile, tensors: Mapping[str, StoredTensor], meter: Meter) -> str:
    formats = {name: Format(tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    return write_tensors(path, formats, lambda name: source.chunks(tensors[name]), meter=meter)
