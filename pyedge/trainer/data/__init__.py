"""Training data: identities and images, global batches, augmentation, sharded sets."""

from pyedge.trainer.data.augment import NO_AUGMENTATION, Augmentation
from pyedge.trainer.data.folder import FaceFolder, held_out
from pyedge.trainer.data.loader import (
    Batches,
    FolderBatches,
    Pixels,
    StreamBatches,
    trained_metadata,
)
from pyedge.trainer.data.pack import Packed, index_shards, write_shards
from pyedge.trainer.data.sampler import BatchSampler, Position
from pyedge.trainer.data.shards import Shards, is_sharded
from pyedge.trainer.data.stream import LaneSampler

__all__ = [
    "NO_AUGMENTATION",
    "Augmentation",
    "BatchSampler",
    "Batches",
    "FaceFolder",
    "FolderBatches",
    "LaneSampler",
    "Packed",
    "Pixels",
    "Position",
    "Shards",
    "StreamBatches",
    "held_out",
    "index_shards",
    "is_sharded",
    "trained_metadata",
    "write_shards",
]
