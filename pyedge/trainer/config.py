"""What a run is made of: one typed description, from a TOML file or from options."""

from __future__ import annotations

import inspect
import math
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pyedge.errors import InvalidArgumentError
from pyedge.trainer import margins
from pyedge.trainer.backbones import NAMES, WIDTH
from pyedge.trainer.data import Augmentation

# What `loss` may be; its parameters are those of the class.
LOSSES: dict[str, Callable[..., margins.Margin]] = {
    "softmax": margins.Softmax,
    "normface": margins.NormFace,
    "l_softmax": margins.LSoftmax,
    "a_softmax": margins.ASoftmax,
    "cosface": margins.CosFace,
    "arcface": margins.ArcFace,
    "combined": margins.CombinedMargin,
    "adacos": margins.AdaCos,
}
_KINDS = {
    "optimizer": ("sgd", "adamw"),
    "precision": ("fp32", "bf16"),
    "schedule": ("cosine", "constant"),
    "loss": tuple(LOSSES),
    "backbone": NAMES,
}


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        data: folders of identities (see `FaceFolder`), or one folder of shards.
        init: a checkpoint (or run) whose weights this run begins with; see `Trainer.begin_from`.
        min_images: identities with fewer are left out.
        hold_out: share of the identities that are kept out of training, by their names.
        backbone, features, width, size, dropout: the network; see `backbones.backbone`.
        loss, loss_options: the margin and its parameters.
        sample_rate: share of the classes that a step takes (PartialFC); 1 is exact.
        keep_logits: logits stay in memory for the backward pass, or are computed twice; see
            `ShardedHead`.
        center_weight: of a centre loss beside it; 0 is none.
        triplet_weight, contrastive_weight: of losses on distances beside it.
        batch: images of a step, over all ranks.
        epochs: passes over the data.
        steps: of the run, instead of `epochs`, where not 0.
        optimizer, lr, momentum, weight_decay: of backbone and centres; momentum is SGD's.
            Biases, norms and PReLU slopes do not decay.
        schedule, warmup: the learning rate rises over the first share `warmup` of the run, then
            falls to 0 as a cosine or stays.
        clip: gradients of the backbone are scaled down to this norm; 0 is never.
        sync_batch_norm: statistics over the images of all ranks. Without, of each rank's own, and
            runs with other numbers of ranks differ.
        precision: "bf16" multiplies in bfloat16; weights, logits and losses stay float32.
        seed: of everything random.
        checkpoint_every: steps between checkpoints; 0 is one at the end.
        keep: how many checkpoints stay.
        workers: processes that load data, for each rank.
        lanes, shuffle_buffer: of shards, without effect on folders of images: parts in which an
            epoch is read, and the samples that each shuffles among; see `LaneSampler`. `batch` is
            a multiple of `lanes`, and `lanes` of every number of ranks that the run may have.
        augmentation: of the training images.
    """

    data: tuple[str, ...] = ()
    init: str = ""
    min_images: int = 1
    hold_out: float = 0.0
    backbone: str = "mobilefacenet"
    features: int = 128
    size: int = 112
    width: int = WIDTH
    dropout: float = 0.0
    loss: str = "arcface"
    loss_options: Mapping[str, float] = field(default_factory=dict)
    sample_rate: float = 1.0
    keep_logits: bool = True
    center_weight: float = 0.0
    triplet_weight: float = 0.0
    contrastive_weight: float = 0.0
    batch: int = 64
    epochs: float = 20.0
    steps: int = 0
    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    warmup: float = 0.05
    clip: float = 5.0
    sync_batch_norm: bool = True
    precision: str = "fp32"
    seed: int = 0
    checkpoint_every: int = 0
    keep: int = 2
    workers: int = 0
    lanes: int = 8
    shuffle_buffer: int = 1000
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name, kinds in _KINDS.items():
            if getattr(self, name) not in kinds:
                raise InvalidArgumentError(
                    f"{name} is {getattr(self, name)!r}; expected {', '.join(kinds)}"
                )
        at_least: dict[str, float] = {
            "min_images": 1,
            "features": 1,
            "size": 16,
            "batch": 1,
            "keep": 1,
            "lanes": 1,
            "shuffle_buffer": 1,
        }
        for spec in fields(self):
            value = getattr(self, spec.name)
            if isinstance(value, int | float) and not (
                math.isfinite(value) and value >= at_least.get(spec.name, 0)
            ):
                least = at_least.get(spec.name, 0)
                raise InvalidArgumentError(f"{spec.name} is {value}; expected {least} or more")
        if not 0 < self.sample_rate <= 1 or not self.warmup < 1 or not self.hold_out < 1:
            raise InvalidArgumentError(
                f"sample_rate {self.sample_rate}, warmup {self.warmup}, hold_out {self.hold_out}; "
                "expected in (0, 1], [0, 1) and [0, 1)"
            )
        if not self.steps and not self.epochs:
            raise InvalidArgumentError("steps and epochs are 0; expected one of them above")
        self.margin(10)

    def margin(self, classes: int) -> margins.Margin:
        """The loss with its parameters."""
        make = LOSSES[self.loss]
        options: dict[str, Any] = dict(self.loss_options)
        known = [name for name in inspect.signature(make).parameters if name != "classes"]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise InvalidArgumentError(
                f"loss_options: {self.loss} has no {', '.join(unknown)}; "
                f"it has {', '.join(known) or 'none'}"
            )
        if "m" in options:
            options["m"] = int(options["m"])
        if "monotone" in options:
            options["monotone"] = bool(options["monotone"])
        return make(classes, **options) if self.loss == "adacos" else make(**options)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Of plain values, as TOML and JSON have them; `augmentation` is a table of its own.

        Raises:
            InvalidArgumentError: an unknown key, or a value of another kind or range.
        """
        given = dict(values)
        augmentation = given.pop("augmentation", {})
        if isinstance(given.get("data"), str):
            given["data"] = [given["data"]]
        _check_kinds(cls, given)
        if not isinstance(augmentation, Mapping):
            raise InvalidArgumentError("augmentation: expected a table of its parameters")
        _check_kinds(Augmentation, augmentation)
        if "data" in given:
            given["data"] = tuple(given["data"])
        area = augmentation.get("cutout_area")
        changed = {**augmentation, **({"cutout_area": tuple(area)} if area else {})}
        return cls(**given, augmentation=Augmentation(**changed))

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> TrainConfig:
        """Of a TOML file; the folders `data` and `init` are relative to it.

        Raises:
            InvalidArgumentError: the file cannot be read, is no TOML, or `from_dict` refuses it.
        """
        try:
            with Path(path).open("rb") as file:
                values = tomllib.load(file)
        except OSError as error:
            raise InvalidArgumentError(f"{path}: cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidArgumentError(f"{path}: not TOML: {error}") from error
        try:
            config = cls.from_dict(values)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"{path}: {error}") from error
        parent = Path(path).parent
        return replace(
            config,
            data=tuple(str(parent / folder) for folder in config.data),
            init=config.init and str(parent / config.init),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without `data` and `init`: a checkpoint holds no paths."""
        values = asdict(self)
        del values["data"], values["init"]
        return values


def _check_kinds(cls: type, values: Mapping[str, Any]) -> None:
    """That every key is a field of the dataclass and every value of its kind."""
    specs = {spec.name: str(spec.type) for spec in fields(cls)}
    for name, value in values.items():
        if name not in specs:
            raise InvalidArgumentError(f"unknown key {name!r}; expected {', '.join(sorted(specs))}")
        kind = specs[name]
        fits = {
            "int": isinstance(value, int) and not isinstance(value, bool),
            "float": isinstance(value, int | float) and not isinstance(value, bool),
            "bool": isinstance(value, bool),
            "str": isinstance(value, str),
            "tuple[str, ...]": isinstance(value, list | tuple)
            and all(isinstance(item, str) for item in value),
            "tuple[float, float]": isinstance(value, list | tuple)
            and len(value) == 2
            and all(isinstance(item, int | float) for item in value),
            "Mapping[str, float]": isinstance(value, Mapping)
            and all(isinstance(item, int | float) for item in value.values()),
        }[kind]
        if not fits:
            raise InvalidArgumentError(f"{name} is {value!r}; expected {kind}")
