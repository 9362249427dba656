"""The reference trainer: a data-parallel backbone, and class centres split over the ranks.

Needs the extra `train`. Nothing that runs on a device imports it.
"""

from pyedge.trainer.center_loss import CenterLoss
from pyedge.trainer.distributed import Group
from pyedge.trainer.head import ShardedHead
from pyedge.trainer.margins import (
    AdaCos,
    ArcFace,
    ASoftmax,
    CombinedMargin,
    CosFace,
    LSoftmax,
    Margin,
    NormFace,
    Softmax,
)
from pyedge.trainer.metric_losses import contrastive_loss, triplet_loss
from pyedge.trainer.partition import Partition
from pyedge.trainer.row_optimizer import RowAdamW, RowOptimizer, RowSGD

__all__ = [
    "ASoftmax",
    "AdaCos",
    "ArcFace",
    "CenterLoss",
    "CombinedMargin",
    "CosFace",
    "Group",
    "LSoftmax",
    "Margin",
    "NormFace",
    "Partition",
    "RowAdamW",
    "RowOptimizer",
    "RowSGD",
    "ShardedHead",
    "Softmax",
    "contrastive_loss",
    "triplet_loss",
]
