"""`manifest.json` of a checkpoint: everything about it but the tensors' values.

    {
      "format": "pyedge-checkpoint", "version": 2,
      "step": 120,                                  training steps done
      "classes_of_rank": [[0, 500], [500, 1000]],   first class and the one behind the last
      "dim": 128,                                   length of a class centre
      "shard_tensors": {"centers": {"dtype": "F32", "row": [128]}, …},
      "network": {"name": "mobilefacenet", "features": 128, "size": 112, "width": 64},
      "preprocessing": {"color": "rgb", …},         as pyedge.metadata has it
      "config": {…},                                of the run, for people and for resuming
      "training": {…},                              what the loop keeps: epoch, learning rate
      "label_names": true,                          whether there is names.json
      "digests": {"backbone.safetensors": "…", …},  SHA-256 of every other file, hexadecimal
      "digest": "…"                                 and of this one, see `sealed`
    }

The world size is the length of `classes_of_rank`. Files have the names that follow from it: the
manifest leads nowhere outside its folder.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyedge.errors import CheckpointError, InvalidArgumentError
from pyedge.metadata import Metadata
from pyedge.trainer import strict_json
from pyedge.trainer.backbones import WIDTH
from pyedge.trainer.partition import Partition
from pyedge.trainer.tensor_file import ITEM_BYTES, Format

MANIFEST = "manifest.json"
BACKBONE = "backbone.safetensors"
NAMES = "names.json"
CENTERS = "centers"

MAX_RANKS = 1 << 16
_FORMAT, _VERSION = "pyedge-checkpoint", 2
_LIMIT = 16 << 20  # bytes of the file
_MOST_STEPS = 10**15 - 1  # fit the names of checkpoints
_MOST_CLASSES, _LONGEST = 1 << 40, 1 << 20
_SHARD_TENSORS = 64


def shard_file(rank: int, world_size: int) -> str:
    """The name of the file of one rank."""
    return f"shard-{rank:05}-of-{world_size:05}.safetensors"


@dataclass(frozen=True)
class Network:
    """What `backbones.backbone` builds again."""

    name: str
    features: int
    size: int
    width: int = WIDTH


@dataclass(frozen=True)
class Manifest:
    """See the module.

    Attributes:
        partition: the classes of each rank; `classes_of_rank` in the file.
        shard_tensors: the format of one row (one class) of each tensor in the shards.
    """

    step: int
    partition: Partition
    dim: int
    network: Network
    preprocessing: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    shard_tensors: Mapping[str, Format] = field(default_factory=dict)
    label_names: bool = False
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def world_size(self) -> int:
        return self.partition.ranks

    @property
    def classes(self) -> int:
        return self.partition.classes

    @property
    def files(self) -> tuple[str, ...]:
        """The names of all files beside the manifest."""
        shards = (shard_file(rank, self.world_size) for rank in range(self.world_size))
        return (BACKBONE, *shards, *([NAMES] if self.label_names else []))

    def shard_formats(self, rank: int) -> dict[str, Format]:
        """The tensors of the shard of that rank."""
        rows = self.partition.sizes[rank]
        return {
            name: Format(row.dtype, (rows, *row.shape)) for name, row in self.shard_tensors.items()
        }

    def to_bytes(self) -> bytes:
        """The file.

        Raises:
            InvalidArgumentError: `config` or `training` hold what JSON does not.
        """
        ranges = (self.partition.range(rank) for rank in range(self.world_size))
        values = {
            "format": _FORMAT,
            "version": _VERSION,
            "step": self.step,
            "classes_of_rank": [[classes.start, classes.stop] for classes in ranges],
            "dim": self.dim,
            "shard_tensors": {
                name: {"dtype": row.dtype, "row": list(row.shape)}
                for name, row in self.shard_tensors.items()
            },
            "network": vars(self.network),
            "preprocessing": dict(self.preprocessing),
            "config": dict(self.config),
            "training": dict(self.training),
            "label_names": self.label_names,
            "digests": dict(self.digests),
        }
        try:
            return sealed(values)
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(f"the manifest cannot be written as JSON: {error}") from None

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Reads the file at `path`.

        Raises:
            CheckpointError: no such file, or one that is no manifest of this version.
        """
        values = strict_json.read(path, _LIMIT)
        if not isinstance(values, dict) or values.get("format") != _FORMAT:
            raise CheckpointError(f"{path}: is no manifest; expected format {_FORMAT!r}")
        if values.get("version") != _VERSION:
            raise CheckpointError(
                f"{path}: version is {values.get('version')!r:.40}; this pyedge reads {_VERSION}"
            )
        digest = values.pop("digest", None)
        found = _digest(values)
        if digest != found:
            raise CheckpointError(
                f"{path}: is damaged, or was changed by hand: its values have SHA-256 {found}; its "
                f"digest says {digest!r:.80}"
            )
        fields = _Fields(path, values)
        manifest = cls(
            step=fields.whole("step", 0, _MOST_STEPS),
            partition=fields.partition(),
            dim=fields.whole("dim", 1, _LONGEST),
            shard_tensors=fields.shard_tensors(),
            network=fields.network(),
            preprocessing=fields.preprocessing(),
            config=fields.mapping("config"),
            training=fields.mapping("training"),
            label_names=fields.boolean("label_names"),
            digests=fields.mapping("digests"),
        )
        fields.finish()
        centers = manifest.shard_tensors.get(CENTERS)
        if centers is None or centers.shape != (manifest.dim,):
            raise CheckpointError(
                f"{path}: shard_tensors: {CENTERS} has rows of {centers}; expected [{manifest.dim}]"
            )
        for name in manifest.files:
            value = manifest.digests.get(name)
            if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
                raise CheckpointError(
                    f"{path}: digests: {name}, a file of {manifest.world_size} ranks, has no "
                    "SHA-256 in hexadecimal"
                )
        extra = sorted(set(manifest.digests) - set(manifest.files))
        if extra:
            raise CheckpointError(
                f"{path}: digests: {extra[0]!r:.80} is no file of {manifest.world_size} ranks"
            )
        return manifest


def sealed(values: Mapping[str, Any]) -> bytes:
    """The file of these values, with the SHA-256 of their JSON without spaces, in their order.

    Raises:
        TypeError, ValueError: values that JSON does not have.
    """
    return strict_json.dump({**values, "digest": _digest(values)})


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(strict_json.dump_compact(values)).hexdigest()


class _Fields:
    """Takes the values of a manifest one by one, of the kind each must have."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self._path = path
        self._values = {k: v for k, v in values.items() if k not in ("format", "version")}

    def whole(self, name: str, least: int, most: int) -> int:
        return self._whole(name, self._take(name), least, most)

    def boolean(self, name: str) -> bool:
        value = self._take(name)
        if not isinstance(value, bool):
            raise self._error(name, value, "true or false")
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        value = self._take(name)
        if not isinstance(value, dict):
            raise self._error(name, value, "an object")
        return value

    def partition(self) -> Partition:
        name = "classes_of_rank"
        value = self._take(name)
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_RANKS:
            raise self._error(name, value, f"the classes of 1 to {MAX_RANKS} ranks")
        end, sizes = 0, []
        for rank, pair in enumerate(value):
            if not isinstance(pair, list) or len(pair) != 2:
                raise self._error(f"{name}: rank {rank}", pair, "[first, behind the last]")
            start = self._whole(f"{name}: rank {rank}", pair[0], 0, _MOST_CLASSES)
            stop = self._whole(f"{name}: rank {rank}", pair[1], 0, _MOST_CLASSES)
            if start != end or stop < start:
                what = "overlap with those of the rank before" if start < end else "leave a gap"
                what = what if start != end else "end before they begin"
                raise CheckpointError(
                    f"{self._path}: {name}: the classes of rank {rank}, {pair}, {what}; expected "
                    f"them to begin at {end}"
                )
            end = stop
            sizes.append(stop - start)
        if not end:
            raise self._error(name, value, "at least one class")
        return Partition(tuple(sizes))

    def shard_tensors(self) -> dict[str, Format]:
        value = self.mapping("shard_tensors")
        if len(value) > _SHARD_TENSORS:
            raise self._error("shard_tensors", value, f"at most {_SHARD_TENSORS} tensors")
        result = {}
        for name, row in value.items():
            what = f"shard_tensors: {name[:80]}"
            if not isinstance(row, dict) or set(row) != {"dtype", "row"}:
                raise self._error(what, row, "dtype and row")
            if not isinstance(row["dtype"], str) or row["dtype"] not in ITEM_BYTES:
                raise self._error(f"{what}: dtype", row["dtype"], ", ".join(ITEM_BYTES))
            if not isinstance(row["row"], list) or len(row["row"]) > 4:
                raise self._error(f"{what}: row", row["row"], "up to four sizes")
            sizes = (self._whole(f"{what}: row", size, 1, _LONGEST) for size in row["row"])
            result[name] = Format(row["dtype"], tuple(sizes))
        return result

    def network(self) -> Network:
        value = self.mapping("network")
        if set(value) != {"name", "features", "size", "width"} or not isinstance(
            value["name"], str
        ):
            raise self._error("network", value, "name, features, size and width")
        features = self._whole("network: features", value["features"], 1, _LONGEST)
        size = self._whole("network: size", value["size"], 1, 1 << 15)
        width = self._whole("network: width", value["width"], 1, _LONGEST)
        return Network(value["name"], features, size, width)

    def preprocessing(self) -> dict[str, Any]:
        value = self.mapping("preprocessing")
        try:
            Metadata.from_dict(value)
        except InvalidArgumentError as error:
            raise CheckpointError(f"{self._path}: preprocessing: {error}") from error
        return value

    def finish(self) -> None:
        if self._values:
            raise CheckpointError(f"{self._path}: unknown field {min(self._values)!r:.80}")

    def _take(self, name: str) -> Any:
        if name not in self._values:
            raise CheckpointError(f"{self._path}: the field {name} is missing")
        return self._values.pop(name)

    def _whole(self, name: str, value: Any, least: int, most: int) -> int:
        if type(value) is not int or not least <= value <= most:
            raise self._error(name, value, f"a whole number from {least} to {most}")
        return value

    def _error(self, name: str, value: Any, expected: str) -> CheckpointError:
        return CheckpointError(f"{self._path}: {name} is {value!r:.80}; expected {expected}")
