"""Checkpoints of a sharded training: a folder, whole or not at all, for any number of group.

    RUN/step-00000120/
      manifest.json                       what all this is, and a digest of each file (manifest.py)
      backbone.safetensors                "network/…": the backbone's state; "optimizer/…": of its
                                          optimizer; and whatever else all ranks have alike
      shard-00000-of-00002.safetensors    rows of this rank's classes: "centers" [rows, dim], the
      shard-00001-of-00002.safetensors    optimizer's state of them: "momentum"; "exp_avg", …
      names.json                          the name of each class, where there are names

Ranks write into `RUN/.step-00000120.tmp`, every file to the disk; then the folder gets its name.
What a save that was killed left under such a name is nobody's, and the next save removes it. One
training at a time writes into a run folder (`lock.py`), which all its ranks see.

A row belongs to a class, so a run continues at another world size: a rank reads the rows of its
classes from whichever files hold them, and only those.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from pyedge.errors import CheckpointError, InvalidArgumentError
from pyedge.trainer import strict_json, tensor_file
from pyedge.trainer.distributed import Group
from pyedge.trainer.manifest import (
    BACKBONE,
    CENTERS,
    MANIFEST,
    NAMES,
    Manifest,
    shard_file,
)
from pyedge.trainer.tensor_file import CHUNK, Format, Meter, Progress
from pyedge.trainer.together import together

NETWORK, OPTIMIZER = "network/", "optimizer/"  # prefixes in the backbone's file

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_TORCH_DTYPES = {name: dtype for dtype, name in _DTYPES.items()}
_STEP = re.compile(r"step-(\d{8,15})")
_LEFTOVER = re.compile(r"\.step-\d{8,15}\.tmp")
_NAME_BYTES = 1024  # of the name of a class, in JSON


def save(
    run: Path,
    group: Group,
    manifest: Manifest,
    backbone: Mapping[str, torch.Tensor],
    shard: Mapping[str, torch.Tensor],
    label_names: Sequence[str] | None = None,
    keep: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Writes the checkpoint of a step; every rank calls it.

    Args:
        run: the folder that holds the checkpoints of a run.
        group: the ranks; see `Group.patient`.
        manifest: the same on every rank; what follows from the other arguments (`shard_tensors`,
            `label_names`, `digests`) is filled in here.
        backbone: what rank 0 writes to the file that all share, by the prefixes of this module.
        shard: this rank's tensors, [rows, …] each; of the same names and formats on every rank.
        label_names: the name of each class; rank 0 writes them.
        keep: how many checkpoints up to this one stay in `run`; None keeps all.
        progress: called with what is going on, bytes done, of how many.

    Returns:
        The folder of the checkpoint.

    Raises:
        InvalidArgumentError: tensors that do not fit the manifest.
        CheckpointError: there is a checkpoint of this step already, or this rank could not write
            its part (disk full).
        LostRankError: another rank could not, or is gone.

    If one rank raises, all do, at once; the new checkpoint is then there whole or not at all, and
    the earlier ones are as they were.
    """
    folder = NewFolder(folder_of(run, manifest.step))
    failed = f"{folder.target}: not saved"
    digests: dict[str, str] = {}
    names = b""
    try:
        with together(group, failed):
            _check(manifest, group, shard)
            if label_names is not None:
                names = names_file(label_names, manifest.classes)
            if group.rank == 0:
                with _system(run, "cannot be made"):
                    run.mkdir(parents=True, exist_ok=True)
                _remove_leftovers(run)
                folder.begin()
        with together(group, failed, progress) as advance:
            if group.rank == 0:
                digests[BACKBONE] = write_state(folder.temporary / BACKBONE, backbone, advance)
                if label_names is not None:
                    digests[NAMES] = tensor_file.write_bytes(folder.temporary / NAMES, names)
            name = shard_file(group.rank, group.world_size)
            own = write_state(folder.temporary / name, shard, advance)
        of_shards = group.all_gather(torch.tensor([list(bytes.fromhex(own))], dtype=torch.uint8))
        for rank, value in enumerate(of_shards.tolist()):
            digests[shard_file(rank, group.world_size)] = bytes(value).hex()
        with together(group, failed):
            if group.rank == 0:
                folder.finish(
                    replace(
                        manifest,
                        shard_tensors={name: _format(shard[name]).row for name in shard},
                        label_names=label_names is not None,
                        digests=digests,
                    )
                )
                if keep is not None:
                    _prune(run, keep, manifest.step)
    except BaseException:
        folder.remove()  # every rank: whoever ends last has written last
        raise
    return folder.target


def _check(
    manifest: Manifest,
    group: Group,
    shard: Mapping[str, torch.Tensor],
) -> None:
    if manifest.world_size != group.world_size:
        raise InvalidArgumentError(
            f"the partition has {manifest.world_size} ranks; expected {group.world_size}"
        )
    rows = manifest.partition.sizes[group.rank]
    for name, tensor in shard.items():
        if tensor.ndim < 1 or tensor.shape[0] != rows:
            raise InvalidArgumentError(
                f"{name} of rank {group.rank} is {list(tensor.shape)}; expected {rows} rows"
            )
    if CENTERS not in shard or shard[CENTERS].shape != (rows, manifest.dim):
        raise InvalidArgumentError(
            f"the shard of rank {group.rank} has no {CENTERS} of [{rows}, {manifest.dim}]"
        )


def names_file(label_names: Sequence[str], classes: int) -> bytes:
    """The file of names.

    Raises:
        InvalidArgumentError: a number of names that is not `classes`, one that is too long or that
            UTF-8 does not have (of a folder whose name is no text).
    """
    if len(label_names) != classes:
        raise InvalidArgumentError(f"label_names has {len(label_names)} names; expected {classes}")
    try:
        data = strict_json.dump(list(label_names))
    except UnicodeEncodeError as error:
        name = next(name for name in label_names if re.search("[\ud800-\udfff]", name))
        raise InvalidArgumentError(f"label_names: {name!r:.80} is no text in UTF-8") from error
    if len(data) > _NAME_BYTES * (classes + 1):
        longest = max(label_names, key=len)
        raise InvalidArgumentError(
            f"label_names: {longest!r:.80} is too long; expected {_NAME_BYTES} bytes at most"
        )
    return data


def write_state(
    path: Path, tensors: Mapping[str, torch.Tensor], progress: Progress | None = None
) -> str:
    """Writes a safetensors file from wherever the tensors are; returns its digest."""
    formats = {name: _format(tensor) for name, tensor in tensors.items()}
    meter = Meter(progress, f"saving {path.name}", sum(f.nbytes for f in formats.values()))

    def chunks(name: str) -> Iterator[memoryview]:
        flat = tensors[name].detach().reshape(-1)
        for part in flat.split(CHUNK // flat.element_size()):
            if part.numel():
                yield memoryview(part.cpu().contiguous().view(torch.uint8).numpy())

    return tensor_file.write_tensors(path, formats, chunks, meter=meter)


def _format(tensor: torch.Tensor) -> Format:
    if tensor.dtype not in _DTYPES:
        known = ", ".join(str(dtype) for dtype in _DTYPES)
        raise InvalidArgumentError(f"a tensor is {tensor.dtype}; a checkpoint holds {known}")
    return Format(_DTYPES[tensor.dtype], tuple(tensor.shape))


class NewFolder:
    """A folder of a checkpoint under a temporary name in the same parent."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.temporary = target.with_name(f".{target.name}.tmp")

    def begin(self) -> None:
        """Makes the temporary folder, empty.

        Raises:
            CheckpointError: the target exists, or the system refused.
        """
        if self.target.exists() or self.target.is_symlink():
            raise CheckpointError(f"{self.target}: exists already; expected a new folder")
        with _system(self.temporary, "cannot be made"):
            if self.temporary.exists():
                shutil.rmtree(self.temporary)
            self.temporary.mkdir()

    def finish(self, manifest: Manifest) -> None:
        """Adds the manifest, and gives the folder its name.

        Raises:
            CheckpointError: the system refused.
        """
        tensor_file.write_bytes(self.temporary / MANIFEST, manifest.to_bytes())
        with _system(self.target, "cannot be written"):
            tensor_file.sync_folder(self.temporary)
            self.temporary.rename(self.target)
            tensor_file.sync_folder(self.target.parent)

    def remove(self) -> None:
        """Removes the temporary folder, if it is there."""
        shutil.rmtree(self.temporary, ignore_errors=True)


@contextmanager
def new_folder(target: Path) -> Iterator[NewFolder]:
    """A `NewFolder` that is begun, and gone again where the block fails."""
    folder = NewFolder(target)
    folder.begin()
    try:
        yield folder
    except BaseException:
        folder.remove()
        raise


@contextmanager
def _system(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path}: {what}: {error.strerror or error}") from error


def folder_of(run: Path, step: int) -> Path:
    """The folder of the checkpoint of a step."""
    return run / f"step-{step:08}"


def steps(run: Path) -> dict[int, Path]:
    """The checkpoints in a run folder by their step, in order; none where there is no folder."""
    found = {}
    with _system(run, "cannot be read"):
        for path in run.iterdir() if run.is_dir() else ():
            match = _STEP.fullmatch(path.name)
            if match and (path / MANIFEST).is_file():
                found[int(match[1])] = path
    return dict(sorted(found.items()))


def latest(run: Path) -> Path | None:
    """The checkpoint of the last step in a run folder, None where there is none."""
    return next(reversed(steps(run).values()), None)


def find(path: Path) -> Path:
    """`path` itself where it is a checkpoint, or the latest one in it.

    Raises:
        CheckpointError: neither.
    """
    if (path / MANIFEST).is_file():
        return path
    found = latest(path)
    if found is None:
        raise CheckpointError(f"{path}: is no checkpoint: expected {MANIFEST} or step-… in it")
    return found


def _remove_leftovers(run: Path) -> None:
    with _system(run, "what a killed save left cannot be removed"):
        for path in run.iterdir():
            if _LEFTOVER.fullmatch(path.name):
                shutil.rmtree(path)


def _prune(run: Path, keep: int, step: int) -> None:
    """Removes all but the last `keep` checkpoints up to `step`."""
    past = [path for number, path in steps(run).items() if number <= step]
    for path in past[: -max(keep, 1)]:
        with _system(path, "cannot be removed"):
            away = path.with_name(f".{path.name}.tmp")  # what is half removed is no checkpoint
            path.rename(away)
            shutil.rmtree(away)


class Checkpoint:
    """A checkpoint to read. Every file is compared with its digest before it is first used.

    Attributes:
        path: the folder.
        manifest: see `Manifest`.
        headers: what each safetensors file holds, by its name.
    """

    def __init__(self, path: Path, verify: bool = True) -> None:
        """Reads the manifest and the headers of all files, no tensor.

        Raises:
            CheckpointError: a file is missing, or holds other tensors than the manifest says.
        """
        self.path = path
        self.manifest = Manifest.read(path / MANIFEST)
        self._unverified = set(self.manifest.files) if verify else set()
        world_size = self.manifest.world_size
        self._shards = [shard_file(rank, world_size) for rank in range(world_size)]
        self._check_folder()
        self.headers = {
            name: tensor_file.read_header(path / name) for name in (BACKBONE, *self._shards)
        }
        for rank, name in enumerate(self._shards):
            self._check_shard(rank, name)

    def _check_folder(self) -> None:
        """Names the usual mistakes: a shard left behind, shards of another world size."""
        world_size = self.manifest.world_size
        missing = [name for name in self.manifest.files if not (self.path / name).is_file()]
        if not missing:
            return
        others = sorted(
            path.name
            for path in self.path.glob("shard-*-of-*.safetensors")
            if path.name not in self._shards
        )
        hint = f"; {others[0]} is of another world size" if others else ""
        raise CheckpointError(
            f"{self.path / missing[0]}: is missing; {MANIFEST} is of {world_size} ranks{hint}"
        )

    def _check_shard(self, rank: int, name: str) -> None:
        found = self.headers[name].tensors
        expected = self.manifest.shard_formats(rank)
        for tensor in sorted(expected.keys() | found.keys()):
            has = found[tensor].format if tensor in found else "not there"
            if has != expected.get(tensor):
                raise CheckpointError(
                    f"{self.path / name}: {tensor!r:.80} is {has}; {MANIFEST} says "
                    f"{expected.get(tensor, 'that there is none')}"
                )

    def verify(self, files: Iterable[str] | None = None, progress: Progress | None = None) -> None:
        """Compares files (all, without an argument) with their digests; each once.

        Raises:
            CheckpointError: a file has another digest.
        """
        names = sorted(
            self._unverified.intersection(self.manifest.files if files is None else files)
        )
        sizes = {name: (self.path / name).stat().st_size for name in names}
        meter = Meter(progress, f"verifying {self.path.name}", sum(sizes.values()))
        for name in names:
            found = tensor_file.digest(self.path / name, meter)
            if found != self.manifest.digests[name]:
                raise CheckpointError(
                    f"{self.path / name}: has SHA-256 {found}; {MANIFEST} says "
                    f"{self.manifest.digests[name]}: the file is damaged or of another checkpoint"
                )
            self._unverified.discard(name)

    def pieces(self, classes: range) -> Iterator[tuple[str, range, int]]:
        """Where the rows of `classes` are: file, rows in it, the first of these classes."""
        for rank, name in enumerate(self._shards):
            held = self.manifest.partition.range(rank)
            start, stop = max(held.start, classes.start), min(held.stop, classes.stop)
            if start < stop:
                yield name, range(start - held.start, stop - held.start), start

    def rows(
        self,
        classes: range,
        names: Iterable[str] | None = None,
        progress: Progress | None = None,
    ) -> dict[str, torch.Tensor]:
        """The class centres and their optimizer's state, [rows, …] each, of consecutive classes.

        Args:
            classes: a range of them.
            names: which tensors; None takes all.
            progress: of the comparison with digests.

        Raises:
            InvalidArgumentError: classes that the checkpoint does not have.
            CheckpointError: a file has another digest.
        """
        self._check_classes(classes)
        pieces = list(self.pieces(classes))
        self.verify({name for name, _, _ in pieces}, progress)
        formats = self.manifest.shard_tensors
        asked = {name: formats[name] for name in (formats if names is None else names)}
        result = {
            name: torch.empty((len(classes), *row.shape), dtype=_TORCH_DTYPES[row.dtype])
            for name, row in asked.items()
        }
        for file, held, first in pieces:
            begin = first - classes.start
            with self._library(file) as tensors:
                for name, out in result.items():
                    part = tensors.get_slice(name)[held.start : held.stop]
                    out[begin : begin + len(held)] = part
        return result

    def backbone(self, prefix: str = "") -> dict[str, torch.Tensor]:
        """The tensors of the backbone's file whose names begin with `prefix`, without it.

        Raises:
            CheckpointError: the file has another digest.
        """
        self.verify([BACKBONE])
        with self._library(BACKBONE) as tensors:
            names = [name for name in self.headers[BACKBONE].tensors if name.startswith(prefix)]
            return {name.removeprefix(prefix): tensors.get_tensor(name) for name in names}

    def label_names(self) -> list[str] | None:
        """The name of each class, None where the checkpoint has no names.

        Raises:
            CheckpointError: the file has another digest, or not a name for each class.
        """
        if not self.manifest.label_names:
            return None
        self.verify([NAMES])
        path, classes = self.path / NAMES, self.manifest.classes
        names = strict_json.read(path, _NAME_BYTES * (classes + 1))
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise CheckpointError(f"{path}: is no array of names")
        if len(names) != classes:
            raise CheckpointError(f"{path}: has {len(names)} names; expected {classes}")
        return names

    def _check_classes(self, classes: range) -> None:
        if classes.step != 1 or not 0 <= classes.start <= classes.stop <= self.manifest.classes:
            raise InvalidArgumentError(
                f"classes is {classes}; expected a range within {self.manifest.classes}"
            )

    @contextmanager
    def _library(self, name: str) -> Iterator[Any]:
        try:
            with safe_open(self.path / name, "pt") as tensors:
                yield tensors
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.path / name}: cannot be read: {error}") from error
