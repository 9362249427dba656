"""The loop of one rank: batches in, checkpoints out."""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pyedge.errors import CheckpointError, InvalidArgumentError, PyEdgeError, TrainingError
from pyedge.files import write_atomically
from pyedge.trainer import checkpoint, strict_json
from pyedge.trainer.backbones import backbone
from pyedge.trainer.blocks import blocks
from pyedge.trainer.center_loss import CenterLoss
from pyedge.trainer.config import TrainConfig
from pyedge.trainer.curve import LogEntry, read_log
from pyedge.trainer.data import (
    Batches,
    BatchSampler,
    FaceFolder,
    FolderBatches,
    LaneSampler,
    Pixels,
    Position,
    Shards,
    StreamBatches,
    is_sharded,
    trained_metadata,
)
from pyedge.trainer.distributed import Group
from pyedge.trainer.export import load_backbone
from pyedge.trainer.head import ShardedHead
from pyedge.trainer.lock import locked
from pyedge.trainer.manifest import CENTERS, MANIFEST, Manifest, Network
from pyedge.trainer.metric_losses import contrastive_loss, triplet_loss
from pyedge.trainer.processes import interrupts
from pyedge.trainer.row_optimizer import RowAdamW, RowSGD
from pyedge.trainer.sync_batch_norm import synchronize_batch_norm
from pyedge.trainer.tensor_file import Progress
from pyedge.trainer.together import together

LOG = "log.jsonl"
_LOG_SECONDS = 1.0  # at least this long between two lines of the log
_REMEDY = "a lower learning rate, a longer warmup or a smaller scale may help"
_MARGIN, _CENTER_LOSS = "margin/", "center_loss"
# What may differ between a checkpoint and the run that goes on from it.
_FREE = {
    *("epochs", "steps", "lr", "schedule", "warmup"),
    *("checkpoint_every", "keep", "workers", "keep_logits"),
}


@dataclass(frozen=True)
class TrainResult:
    """What a run came to.

    Attributes:
        checkpoint: the last one.
        steps: done, of all runs into this folder together.
        loss, accuracy: means over the last epoch or what there was of it; NaN without a step.
        finished: False where it was interrupted.
        centers_taken: class centres that the run began with; None where it began with no
            checkpoint's weights (`init`), or went on from its own.
    """

    checkpoint: Path
    steps: int
    total_steps: int
    classes: int
    loss: float
    accuracy: float
    images_per_second: float
    seconds: float
    finished: bool
    centers_taken: int | None


class Trainer:
    """Network, class centres and their optimizers on one rank.

    Args:
        names: of the classes.
        total_steps: of the whole run, which the learning rate follows.
        dtype: of weights, gradients and losses.
    """

    def __init__(
        self,
        config: TrainConfig,
        names: tuple[str, ...],
        total_steps: int,
        group: Group,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config, self.names, self.group = config, names, group
        self.patient = group.patient()
        self.total_steps, self.step = total_steps, 0
        self._loaded: Path | None = None  # the checkpoint that the next step is the first after
        self._network = Network(config.backbone, config.features, config.size, config.width)
        cuda = torch.cuda.is_available()
        self.device = (
            torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
        )
        torch.manual_seed(config.seed)  # the same weights on every rank
        network = backbone(
            config.backbone, config.features, config.size, config.dropout, config.width
        )
        # Channels last is what convolutions run fastest on, CPU and GPU alike.
        self.backbone = network.to(self.device, dtype, memory_format=torch.channels_last)
        if config.sync_batch_norm:
            synchronize_batch_norm(self.backbone, group)
        margin, dim = config.margin(len(names)), config.features
        self.head = ShardedHead(
            len(names),
            dim,
            margin,
            group,
            sample_rate=config.sample_rate,
            seed=config.seed,
            dtype=dtype,
            keep_logits=config.keep_logits,
        ).to(self.device)
        self.center_loss = None
        if config.center_weight:
            self.center_loss = CenterLoss(
                len(names), dim, config.center_weight, group=group, dtype=dtype
            )
            self.center_loss.to(self.device)
        self.optimizer = _optimizer(config, self.backbone)
        decay = config.weight_decay
        self.rows = (
            RowSGD(self.head, config.lr, config.momentum, decay)
            if config.optimizer == "sgd"
            else RowAdamW(self.head, config.lr, weight_decay=decay)
        )

    def train_step(self, images: Tensor, labels: Tensor) -> float:
        """One step on this rank's share of the global batch; the loss over all of it.

        Args:
            images: float32 [b, 3, H, W].
            labels: int64 [b].

        Raises:
            TrainingError: the loss is no number, or another rank is gone.
        """
        config = self.config
        kind = self.head.centers.dtype
        images = images.to(self.device, kind, memory_format=torch.channels_last)
        labels = labels.to(self.device)
        lr = learning_rate(config, self.step, self.total_steps)
        self.backbone.train()
        self.head.step = self.step
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            features = self.backbone(images).to(kind)
            loss = self.head(features, labels)
        total = loss
        if self.center_loss is not None:
            total = total + self.center_loss(features, labels)
        if config.triplet_weight:
            total = total + config.triplet_weight * triplet_loss(features, labels, group=self.group)
        if config.contrastive_weight:
            pairs = contrastive_loss(features, labels, group=self.group)
            total = total + config.contrastive_weight * pairs
        value = float(total.detach())
        if not math.isfinite(value):
            spoilt = f"; or {self._loaded} is spoilt: remove it, to go on from an earlier one"
            raise TrainingError(
                f"the loss of step {self.step} is {value} at a learning rate of {lr:g}; {_REMEDY}"
                f"{spoilt if self._loaded is not None else ''}"
            )
        self._loaded = None
        self.optimizer.zero_grad()
        total.backward()
        self._sum_gradients()
        if config.clip:
            torch.nn.utils.clip_grad_norm_(self.backbone.parameters(), config.clip)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = lr
        self.rows.lr = lr
        self.optimizer.step()
        self.rows.step()
        if self.center_loss is not None:
            self.center_loss.update()
        self.head.margin.advance()
        self.step += 1
        return value

    def save(self, run: Path, progress: Progress | None = None) -> Path:
        """Writes a checkpoint into `run`; every rank calls it. See `checkpoint.save`.

        Raises:
            TrainingError: the weights are no numbers; then none is written.
        """
        config = self.config
        self._check_weights()
        manifest = Manifest(
            step=self.step,
            partition=self.head.partition,
            dim=config.features,
            network=self._network,
            preprocessing=asdict(trained_metadata(config.size)),
            config=config.to_dict(),
            training={"total_steps": self.total_steps, "row_steps": self.rows.steps},
        )
        shared = {f"{checkpoint.NETWORK}{k}": v for k, v in self.backbone.state_dict().items()}
        for name, state in self._optimizer_state():
            shared |= {f"{checkpoint.OPTIMIZER}{name}/{k}": v for k, v in state.items()}
        shared |= {f"{_MARGIN}{k}": v for k, v in self.head.margin.state_dict().items()}
        shard = {CENTERS: self.head.centers.detach(), **self.rows.state}
        if self.center_loss is not None:
            shard[_CENTER_LOSS] = self.center_loss.centers
        return checkpoint.save(
            run, self.patient, manifest, shared, shard, self.names, config.keep, progress
        )

    def load(self, path: Path, progress: Progress | None = None) -> None:
        """Goes on from a checkpoint, of any number of ranks.

        Raises:
            CheckpointError: it is damaged, or of another run: the field is named.
        """
        source = checkpoint.Checkpoint(path)
        self._check_same_run(source, path)
        rows = source.rows(self.head.own, progress=progress)
        shared = source.backbone()

        def of(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in shared.items() if k.startswith(prefix)}

        try:
            self.backbone.load_state_dict(of(checkpoint.NETWORK))
            self.head.margin.load_state_dict(of(_MARGIN))
            optimizer = of(checkpoint.OPTIMIZER)
            for name, parameter in self.backbone.named_parameters():
                values = {k: v for k, v in optimizer.items() if k.rpartition("/")[0] == name}
                state = {k.rpartition("/")[2]: v.to(self.device) for k, v in values.items()}
                if state:
                    self.optimizer.state[parameter] = state
            with torch.no_grad():
                self.head.centers.copy_(rows[CENTERS])
                for name, tensor in self.rows.state.items():
                    tensor.copy_(rows[name])
                if self.center_loss is not None:
                    self.center_loss.centers.copy_(rows[_CENTER_LOSS])
        except (RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{path}: does not fit this run: {reason}") from error
        self.step, self._loaded = source.manifest.step, path
        self.rows.steps = _row_steps(source)

    def begin_from(self, path: Path, progress: Progress | None = None) -> int:
        """Takes over weights of another run's checkpoint: the backbone's, and class centres.

        A class takes the centre that has its name there. Where the checkpoint has no names (an
        import) but as many classes as this run, they are taken to be the same. All other centres
        begin anew, and so do steps and optimizers. Every rank calls it.

        Returns:
            How many classes of all ranks took their centre.

        Raises:
            CheckpointError: it is damaged, or of another network.
        """
        source = checkpoint.Checkpoint(path)
        theirs, ours = source.manifest.network, self._network
        if theirs != ours or source.manifest.dim != self.head.dim:
            raise CheckpointError(
                f"{path}: has {theirs.name} of width {theirs.width}, {theirs.size} pixels to "
                f"{theirs.features} features, centres of {source.manifest.dim}; expected "
                f"{ours.name} of width {ours.width}, {ours.size} pixels to {ours.features}"
            )
        self.backbone.load_state_dict(load_backbone(source).state_dict())
        places = self._places_in(source)
        for part in blocks(source.manifest.classes):
            rows = ((places >= part.start) & (places < part.stop)).nonzero().squeeze(1)
            if rows.numel():
                there = source.rows(range(part.start, part.stop), [CENTERS], progress)[CENTERS]
                taken = there[places[rows] - part.start].to(self.head.centers)
                self.head.centers.data[rows.to(self.device)] = taken
        count = (places >= 0).sum().to(self.device)
        return int(self.group.all_sum(count, "centres taken"))

    def _places_in(self, source: checkpoint.Checkpoint) -> Tensor:
        """Which class of the checkpoint each of this rank's is, int64; −1 where none."""
        own = self.head.own
        names = source.label_names()
        if names is None:
            same = source.manifest.classes == len(self.names)
            return torch.arange(own.start, own.stop) if same else torch.full((len(own),), -1)
        label_of = {name: label for label, name in enumerate(names)}
        return torch.tensor([label_of.get(self.names[label], -1) for label in own])

    def _check_same_run(self, source: checkpoint.Checkpoint, path: Path) -> None:
        ours = json.loads(json.dumps(self.config.to_dict()))
        theirs = source.manifest.config
        for name in sorted(set(ours) - _FREE):
            if theirs.get(name) != ours[name]:
                raise CheckpointError(
                    f"{path}: {name} is {theirs.get(name)!r} there and {ours[name]!r} here; go on "
                    "with the same, or train into another folder"
                )
        names = source.label_names()
        if names is None or tuple(names) != self.names:
            raise CheckpointError(
                f"{path}: has {source.manifest.classes} classes of other names than the "
                f"{len(self.names)} of the data here"
            )

    def _check_weights(self) -> None:
        """Keeps what nothing can go on from from pushing out the checkpoints before."""
        weights = [t for t in self.backbone.state_dict().values() if t.is_floating_point()]
        sums = [float(tensor.sum()) for tensor in (*weights, self.head.centers.detach())]
        wrong = torch.tensor([float(not all(map(math.isfinite, sums)))], device=self.device)
        if self.group.all_max(wrong, "weights"):
            raise TrainingError(f"the weights of step {self.step} are no numbers; {_REMEDY}")

    def _sum_gradients(self) -> None:
        """Each rank has the gradient of the whole loss through its own images."""
        if self.group.world_size == 1:
            return
        gradients = [p.grad for p in self.backbone.parameters() if p.grad is not None]
        flat = self.group.all_sum(torch.cat([g.flatten() for g in gradients]), "backbone gradient")
        for gradient, part in zip(
            gradients, flat.split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(part.view_as(gradient))

    def _optimizer_state(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        for name, parameter in self.backbone.named_parameters():
            state = self.optimizer.state.get(parameter, {})
            yield name, {k: v for k, v in state.items() if isinstance(v, Tensor)}


def train(
    config: TrainConfig,
    run: Path,
    group: Group | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Trains on this rank, from the last checkpoint in `run` if there is one; all ranks call it.

    Without one it begins with the weights of `config.init`, if that is given.

    Writes checkpoints and `log.jsonl` into `run`. An interrupt (SIGINT, SIGTERM) on any rank ends
    all of them after the step, with a checkpoint.

    Raises:
        InvalidArgumentError, InvalidImageError: of the data or the description.
        CheckpointError: the last checkpoint is damaged or of another run, or cannot be written; or
            another training writes into `run`.
        TrainingError: the loss is no number, or another rank is gone.
    """
    group = group or Group()
    with together(group.patient(), "the data is not loaded"):
        batches, names = load_data(config, group)
        _check_place(config, run)
        people = checkpoint.names_file(names, len(names))
        total = config.steps or max(1, round(config.epochs * batches.steps_per_epoch))
        trainer = Trainer(config, names, total, group)
    _check_alike(trainer, batches.steps_per_epoch, people)
    with locked(run, trainer.patient):
        return _run(trainer, batches, run, progress)


def _check_place(config: TrainConfig, run: Path) -> None:
    """That a run can go on there.

    In a folder of its data it would be taken for a person: it has a picture. safetensors reads no
    file whose path UTF-8 does not have.
    """
    try:
        os.path.realpath(run).encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"{run}: is no path in UTF-8") from error
    for folder in config.data:
        if Path(os.path.realpath(run)).is_relative_to(os.path.realpath(folder)):
            raise InvalidArgumentError(f"{run}: lies in {folder}, where the data is")


def _check_alike(trainer: Trainer, per_epoch: int, people: bytes) -> None:
    """That each rank has been told the same: under torchrun each has its own command and disks."""
    values = [trainer.config.to_dict(), trainer.total_steps, per_epoch]
    digest = hashlib.sha256(strict_json.dump(values) + people).digest()
    mine = torch.tensor([list(digest)], dtype=torch.uint8)
    everyone = trainer.patient.all_gather(mine, "description")
    for rank in range(1, trainer.group.world_size):
        if not everyone[rank].equal(everyone[0]):
            raise InvalidArgumentError(
                f"rank {rank} has another description of the run, or other people or another "
                "number of images in its data, than rank 0"
            )


def _run(trainer: Trainer, batches: Batches, run: Path, progress: Progress | None) -> TrainResult:
    config, group, total = trainer.config, trainer.group, trainer.total_steps
    per_epoch = batches.steps_per_epoch
    last = _last_checkpoint(run, trainer.patient)
    taken = None
    with together(trainer.patient, f"{run}: not begun", progress) as advance:
        if last is not None:
            trainer.load(last, advance)
            if last.name != checkpoint.folder_of(run, trainer.step).name:
                raise CheckpointError(f"{last}: is of step {trainer.step}; expected it to say so")
        elif config.init:
            taken = trainer.begin_from(checkpoint.find(Path(config.init)), advance)
        log = _Log(run / LOG, trainer.step, group.rank == 0, per_epoch)
    started, first = time.monotonic(), trainer.step
    saved = last
    interrupted = threading.Event()
    with interrupts(interrupted.set):
        stop = torch.zeros(1, device=trainer.device)
        while trainer.step < total and not stop:
            position = Position(*divmod(trainer.step, per_epoch))
            for images, labels in batches.epoch(position):
                loss = trainer.train_step(images, labels)
                stop.fill_(interrupted.is_set())
                group.all_max(stop, "interrupt")
                ends = bool(stop) or trainer.step == total
                lr = learning_rate(config, trainer.step - 1, total)
                log.add(trainer, position.epoch, loss, lr, ends)
                if progress is not None:
                    progress(log.line, trainer.step, total)
                if ends or (
                    config.checkpoint_every and trainer.step % config.checkpoint_every == 0
                ):
                    saved = trainer.save(run)
                if ends:
                    break
    seconds = time.monotonic() - started
    if saved is None:
        raise InvalidArgumentError(f"{run}: nothing to do in a run of {total} steps")
    return TrainResult(
        saved,
        trainer.step,
        total,
        len(trainer.names),
        log.mean("loss"),
        log.mean("accuracy"),
        (trainer.step - first) * config.batch / max(seconds, 1e-9),
        seconds,
        trainer.step >= total,
        taken,
    )


def _last_checkpoint(run: Path, group: Group) -> Path | None:
    """That which rank 0 sees: on a network file system another rank may see an earlier one."""
    with together(group, f"{run}: not begun"):
        found = max(checkpoint.steps(run), default=-1)
    step = int(group.broadcast(torch.tensor([found]), "last checkpoint"))
    return checkpoint.folder_of(run, step) if step >= 0 else None


def load_data(config: TrainConfig, group: Group) -> tuple[Batches, tuple[str, ...]]:
    """The batches of this rank, and the names of the classes."""
    pixels = Pixels(config.augmentation, trained_metadata(config.size), config.seed)
    place = {"rank": group.rank, "world_size": group.world_size, "workers": config.workers}
    if any(map(is_sharded, config.data)):
        if len(config.data) > 1:
            raise InvalidArgumentError(
                f"data is {len(config.data)} folders, of which one holds shards; expected it alone"
            )
        if config.min_images > 1 or config.hold_out:
            raise InvalidArgumentError(
                f"{config.data[0]}: min_images and hold_out are for folders of images; shards are "
                "written without the identities that are not to be trained on"
            )
        shards = Shards.open(config.data[0])
        lanes = LaneSampler(shards, config.batch, config.lanes, config.shuffle_buffer, config.seed)
        return StreamBatches(lanes, pixels, **place), shards.names()
    faces = FaceFolder.scan(config.data).at_least(config.min_images)
    faces, _ = faces.hold_out(config.hold_out)
    sampler = BatchSampler(len(faces.paths), config.batch, config.seed)
    return FolderBatches(faces, sampler, pixels, **place), faces.names


def _row_steps(source: checkpoint.Checkpoint) -> int:
    """Steps of the optimizer of the class centres."""
    value = source.manifest.training.get("row_steps")
    if type(value) is not int or not 0 <= value <= source.manifest.step:
        raise CheckpointError(
            f"{source.path / MANIFEST}: training: row_steps is {value!r:.80}; expected a whole "
            f"number up to {source.manifest.step}"
        )
    return value


def learning_rate(config: TrainConfig, step: int, total: int) -> float:
    """Of a step: a linear rise over the warmup, then a cosine to 0 or constant."""
    warmup = config.warmup * total
    if step < warmup:
        return config.lr * (step + 1) / (warmup + 1)
    if config.schedule == "constant":
        return config.lr
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))


def _optimizer(config: TrainConfig, network: nn.Module) -> torch.optim.Optimizer:
    """Weights decay; what has one number a channel (bias, norm, slope) does not."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, config.lr, config.momentum)
    return torch.optim.AdamW(groups, config.lr)


class _Log:
    """The lines of `log.jsonl`, which rank 0 writes as they come; and means of the last steps."""

    def __init__(self, path: Path, step: int, writes: bool, per_epoch: int) -> None:
        self._path, self._writes = path, writes
        self._since: list[tuple[float, float]] = []
        self._losses: deque[tuple[float, float]] = deque(maxlen=per_epoch)
        self._start, self._before, self.line = time.monotonic(), 0.0, "training"
        if writes:
            entries = read_log(path) if path.is_file() else []
            kept = [entry for entry in entries if entry.step <= step]
            self._before = kept[-1].seconds if kept else 0.0
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, "".join(map(_log_line, kept)).encode())

    def add(self, trainer: Trainer, epoch: int, loss: float, lr: float, last: bool) -> None:
        self._losses.append((loss, trainer.head.accuracy))
        self._since.append((loss, trainer.head.accuracy))
        seconds = time.monotonic() - self._start
        if seconds < _LOG_SECONDS and not last:
            return
        loss, accuracy = (sum(values) / len(values) for values in zip(*self._since, strict=True))
        rate = len(self._since) * trainer.config.batch / max(seconds, 1e-9)
        self._before += seconds
        self._start, self._since = time.monotonic(), []
        self.line = f"loss {loss:.3f}, accuracy {accuracy:.1%}, {rate:.0f} images/s"
        if self._writes:
            entry = LogEntry(trainer.step, epoch, loss, accuracy, lr, rate, self._before)
            try:
                with self._path.open("a") as file:
                    file.write(_log_line(entry))
            except OSError as error:
                raise PyEdgeError(f"{self._path}: cannot be written: {error.strerror}") from error

    def mean(self, name: str) -> float:
        """Over the last epoch, or what there was of it."""
        values = [pair[name == "accuracy"] for pair in self._losses]
        return sum(values) / len(values) if values else math.nan


def _log_line(entry: LogEntry) -> str:
    return json.dumps(asdict(entry)) + "\n"
