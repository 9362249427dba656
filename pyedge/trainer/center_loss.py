"""Centre loss: features of a person are drawn to their mean (Wen et al., ECCV 2016)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pyedge.errors import InvalidArgumentError
from pyedge.trainer.distributed import Group
from pyedge.trainer.partition import Partition


class CenterLoss(nn.Module):
    """λ/2·Σ_i ‖x_i − c_{y_i}‖² (eq. 2), as a mean over the global batch; goes beside a softmax.

    The centres are split over the ranks like those of the softmax, and follow the features by
    their own rule instead of a gradient: c_j ← c_j − α·Σ_{y_i = j}(c_j − x_i) / (1 + n_j) (eq. 4).

    Args:
        classes, dim: of all centres; they begin at 0.
        weight: λ.
        rate: α.

    Attributes:
        centers: buffer, [classes of this rank, dim].
    """

    def __init__(
        self,
        classes: int,
        dim: int,
        weight: float = 0.003,
        rate: float = 0.5,
        group: Group | None = None,
        partition: Partition | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if not (weight >= 0 and 0 <= rate <= 1):
            raise InvalidArgumentError(f"weight {weight}, rate {rate}; expected ≥ 0 and in [0, 1]")
        self.group = group or Group()
        self.partition = partition or Partition.even(classes, self.group.world_size)
        self.weight, self.rate = weight, rate
        self.own = self.partition.range(self.group.rank)
        self.register_buffer("centers", torch.zeros(len(self.own), dim, dtype=dtype))
        self.centers: Tensor
        self._last: tuple[Tensor, Tensor] | None = None

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss over the batches of all ranks, the same number on each.

        Args:
            features: [b, dim] of this rank; b is the same on all ranks.
            labels: int64 [b].
        """
        labels = self.group.all_gather(labels, "centre labels")
        mine = ((labels >= self.own.start) & (labels < self.own.stop)).nonzero().squeeze(1)
        loss: Tensor = _CenterLoss.apply(
            features.to(self.centers.dtype), mine, labels[mine] - self.own.start, self
        )
        return loss

    @torch.no_grad()
    def update(self) -> None:
        """Moves the centres of the last batch's people, once a step."""
        if self._last is None:
            raise InvalidArgumentError("no batch yet: call the loss before update()")
        columns, differences = self._last
        sums = torch.zeros_like(self.centers).index_add_(0, columns, differences)
        counts = torch.bincount(columns, minlength=len(self.own)).to(sums.dtype)
        self.centers += self.rate * sums / (1 + counts[:, None])
        self._last = None


class _CenterLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, mine: Tensor, columns: Tensor, loss: CenterLoss
    ) -> Tensor:
        x = loss.group.all_gather(features.detach(), "centre features")
        differences = x[mine] - loss.centers[columns]
        loss._last = columns, differences
        ctx.share, ctx.group = loss.weight / x.shape[0], loss.group
        ctx.rows = x.shape[0]
        ctx.save_for_backward(mine, differences)
        return loss.group.all_sum(differences.square().sum() / 2, "centre loss") * ctx.share

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        mine, differences = ctx.saved_tensors
        dx = differences.new_zeros(ctx.rows, differences.shape[1])
        dx[mine] = differences * (gradient * ctx.share)
        return ctx.group.reduce_scatter(dx, "centre feature gradient"), None, None, None
