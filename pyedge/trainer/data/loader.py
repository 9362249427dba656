"""Batches for one rank: decoded, augmented and normalized, the same with any number of workers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from pyedge.align import crops_for_model
from pyedge.errors import InvalidArgumentError, PyEdgeError
from pyedge.metadata import ARCFACE_LANDMARKS, ARCFACE_SIZE, Metadata
from pyedge.trainer.data.augment import Augmentation
from pyedge.trainer.data.folder import FaceFolder
from pyedge.trainer.data.sampler import BatchSampler, Position, rank_batch
from pyedge.trainer.data.stream import LaneSampler
from pyedge.trainer.data.workers import answers

Batch = tuple[Tensor, Tensor]  # float32 [b, 3, H, W], int64 [b]

_CACHE_BYTES = 1 << 30


def trained_metadata(side: int = ARCFACE_SIZE[0]) -> Metadata:
    """What a network that is trained here takes: (pixel − 127.5) / 127.5, RGB.

    Args:
        side: of the input in pixels; other than 112, it is ArcFace's crop in another resolution.
    """
    scale = side / ARCFACE_SIZE[0]
    # The centre of the first pixel is at 0, so the corner of the crop is half a pixel outside.
    landmarks = tuple(
        ((x + 0.5) * scale - 0.5, (y + 0.5) * scale - 0.5) for x, y in ARCFACE_LANDMARKS
    )
    return Metadata("rgb", (side, side), (127.5,) * 3, (1 / 127.5,) * 3, landmarks=landmarks)


class Batches(Protocol):
    """What a training loop needs of its data."""

    @property
    def steps_per_epoch(self) -> int:
        """The same on every rank."""

    def epoch(self, position: Position) -> Iterator[Batch]:
        """The rank's batches of an epoch, from a position in it to its end.

        Raises:
            InvalidImageError: an image that is not whole or of another size.
            TrainingError: a damaged shard, or a worker that died.
        """


@dataclass(frozen=True)
class Pixels:
    """From uint8 crops to the network's input.

    Attributes:
        seed: of the augmentation.
    """

    augmentation: Augmentation = field(default_factory=Augmentation)
    metadata: Metadata = field(default_factory=trained_metadata)
    seed: int = 0

    def fit(self, crop: np.ndarray) -> np.ndarray:
        """A crop of 112×112 at the network's size, as evaluation and calibration make it."""
        return crops_for_model(crop[None], self.metadata)[0]

    def __call__(self, images: list[np.ndarray], indices: list[int], epoch: int) -> Tensor:
        """float32 [b, 3, H, W] of uint8 RGB images [H, W, 3]; samples are told by their index."""
        changed = [
            self.augmentation(image, self.seed, epoch, index)
            for image, index in zip(images, indices, strict=True)
        ]
        return torch.from_numpy(self.metadata.apply(np.stack(changed)))


class FolderBatches:
    """Batches of a folder of identities.

    Args:
        workers: processes that decode and augment; 0 does it in this one.
        cache_bytes: sets that are no larger than this decoded are kept decoded, in the memory of
            each rank; they are read whole, and so checked, at the beginning.
    """

    def __init__(
        self,
        faces: FaceFolder,
        sampler: BatchSampler,
        pixels: Pixels | None = None,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        cache_bytes: int = _CACHE_BYTES,
    ) -> None:
        if sampler.samples != len(faces.paths):
            raise InvalidArgumentError(
                f"the sampler is for {sampler.samples} samples; the folder has {len(faces.paths)}"
            )
        _check_rank(rank, world_size, workers)
        rank_batch(sampler.batch, world_size)
        self._sampler, self._ranks, self._workers = sampler, (rank, world_size), workers
        pixels = pixels or Pixels()
        width, height = pixels.metadata.input_size
        small = len(faces.paths) * width * height * 3 <= cache_bytes
        cache = None
        if small:
            cache = np.stack(
                [pixels.fit(faces.load(i, ARCFACE_SIZE)) for i in range(len(faces.paths))]
            )
        self._images = _FolderImages(faces, pixels, cache)

    @property
    def steps_per_epoch(self) -> int:
        return self._sampler.steps_per_epoch

    def epoch(self, position: Position) -> Iterator[Batch]:
        steps = range(position.step, self.steps_per_epoch)
        positions = (Position(position.epoch, step) for step in steps)
        asked = ((p.epoch, self._sampler.indices(p, *self._ranks)) for p in positions)
        yield from answers(self._images, self._workers, sampler=asked)


class StreamBatches:
    """Batches of a sharded set; see `pyedge.trainer.data.stream`.

    Args:
        workers: processes that read, decode and augment; 0 does it in this one. As many are
            started as share the rank's lanes evenly.
    """

    def __init__(
        self,
        sampler: LaneSampler,
        pixels: Pixels | None = None,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
    ) -> None:
        _check_rank(rank, world_size, workers)
        self._sampler, self._pixels = sampler, pixels or Pixels()
        self._lanes = sampler.lanes_of(rank, world_size)
        count = len(self._lanes)
        self._workers = max(n for n in range(min(workers, count) + 1) if n == 0 or count % n == 0)

    @property
    def steps_per_epoch(self) -> int:
        return self._sampler.steps_per_epoch

    def epoch(self, position: Position) -> Iterator[Batch]:
        stream = _LaneImages(self._sampler, self._pixels, self._lanes, position)
        parts = answers(stream, self._workers)
        # Workers answer in turn, and each has every so-manyth lane: parts come by lane.
        for _ in range(position.step, self.steps_per_epoch):
            images, labels = zip(*(next(parts) for _ in self._lanes), strict=True)
            yield torch.cat(images), torch.cat(labels)


class _FolderImages(Dataset):
    """Answers (epoch, samples) with a batch, or with the error that it met."""

    def __init__(self, faces: FaceFolder, pixels: Pixels, cache: np.ndarray | None) -> None:
        self._faces, self._pixels, self._cache = faces, pixels, cache

    def __getitem__(self, asked: tuple[int, np.ndarray]) -> Batch | PyEdgeError:
        epoch, samples = asked
        indices = [int(index) for index in samples]
        try:
            if self._cache is not None:
                images = [self._cache[index] for index in indices]
            else:
                crops = (self._faces.load(index, ARCFACE_SIZE) for index in indices)
                images = [self._pixels.fit(crop) for crop in crops]
            labels = torch.from_numpy(self._faces.labels[samples])
            return self._pixels(images, indices, epoch), labels
        except PyEdgeError as error:
            return error


class _LaneImages(IterableDataset):
    """The parts of a rank's batches by step and lane; a worker has its share of the lanes."""

    def __init__(
        self, sampler: LaneSampler, pixels: Pixels, lanes: range, position: Position
    ) -> None:
        self._sampler, self._pixels = sampler, pixels
        self._lanes, self._position = lanes, position

    def __iter__(self) -> Iterator[Batch | PyEdgeError]:
        info = get_worker_info()
        mine = self._lanes if info is None else self._lanes[info.id :: info.num_workers]
        epoch, start = self._position.epoch, self._position.step
        lanes = [self._sampler.batches(lane, epoch, start) for lane in mine]
        try:
            for parts in zip(*lanes, strict=True):
                for samples in parts:
                    images = [self._pixels.fit(sample.image(ARCFACE_SIZE)) for sample in samples]
                    indices = [sample.index for sample in samples]
                    labels = torch.tensor([sample.label for sample in samples])
                    yield self._pixels(images, indices, epoch), labels
        except PyEdgeError as error:
            yield error


def _check_rank(rank: int, world_size: int, workers: int) -> None:
    if not 0 <= rank < world_size or workers < 0:
        raise InvalidArgumentError(
            f"rank {rank} of {world_size} with {workers} workers; expected 0 ≤ rank < world size "
            "and workers from 0 on"
        )
