"""Softmax over class centres that are split over the ranks.

Each rank computes its own features; the features and labels of all ranks are gathered; each rank
multiplies them with the centres of its own classes. Of the logits only the row maximum and the row
sum of exponentials are exchanged. The gradient of the features is summed over the ranks and given
back to the rank each came from; the gradient of the centres never leaves its rank. Nothing that is
exchanged grows with the number of classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pyedge.errors import InvalidArgumentError
from pyedge.trainer.blocks import blocks
from pyedge.trainer.distributed import Group
from pyedge.trainer.margins import AdaCos, Margin
from pyedge.trainer.partition import Partition

_TINY = 1e-12  # shorter vectors count as this long
_SEED_BLOCK = 4096  # classes whose centres begin from one seed


class ShardedHead(nn.Module):
    """The class centres of this rank, and the loss over those of all ranks.

    Args:
        classes, dim: of the whole matrix.
        margin: which loss; see `pyedge.trainer.margins`.
        group: the ranks; by default all there are.
        partition: classes of each rank; by default even.
        sample_rate: share of its classes that a rank takes in a step: those of the batch and
            others by lot (An et al., Partial FC, CVPR 2022). 1 takes all and is exact.
        seed: of the initial centres and of the lots. The centres do not depend on the ranks.
        dtype: of the centres, and of the logits and the loss. Under autocast the products alone
            are in its type.
        reduction: "mean" over the global batch, or "sum".

    Attributes:
        centers: parameter, [classes of this rank, dim].
        accuracy: of the last batch over all ranks: how many labels have the highest cosine (or
            product) of the classes taken, before any margin.
        step: training steps done; the lots of a step follow from the seed, it and the rank.
    """

    def __init__(
        self,
        classes: int,
        dim: int,
        margin: Margin,
        group: Group | None = None,
        partition: Partition | None = None,
        sample_rate: float = 1.0,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.group = group or Group()
        self.partition = partition or Partition.even(classes, self.group.world_size)
        if self.partition.ranks != self.group.world_size or self.partition.classes != classes:
            raise InvalidArgumentError(
                f"the partition has {self.partition.classes} classes on {self.partition.ranks} "
                f"ranks; expected {classes} on {self.group.world_size}"
            )
        if not 0.0 < sample_rate <= 1.0:
            raise InvalidArgumentError(f"sample_rate is {sample_rate}; expected in (0, 1]")
        if reduction not in ("mean", "sum"):
            raise InvalidArgumentError(f"reduction is {reduction!r}; expected mean or sum")
        self.classes, self.dim, self.margin = classes, dim, margin
        self.sample_rate, self.seed, self.reduction = sample_rate, seed, reduction
        self.own = self.partition.range(self.group.rank)
        self.centers = nn.Parameter(initial_centers(self.own, dim, seed, dtype))
        self.accuracy = 0.0
        self._rows: tuple[Tensor | None, Tensor] = (None, self.centers)
        self._spare: Tensor | None = None
        self.step = 0

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss over the batches of all ranks, the same number on each.

        Args:
            features: [b, dim] of this rank; b is the same on all ranks.
            labels: int64 [b], 0 to classes − 1.

        Raises:
            InvalidArgumentError: shapes or labels that do not fit, on the rank that has them.
        """
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise InvalidArgumentError(
                f"features are {list(features.shape)}; expected [batch, {self.dim}]"
            )
        if labels.shape != features.shape[:1] or labels.dtype != torch.int64:
            raise InvalidArgumentError(
                f"labels are {labels.dtype} {list(labels.shape)}; expected int64 "
                f"[{features.shape[0]}]"
            )
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise InvalidArgumentError(
                f"labels go from {int(labels.min())} to {int(labels.max())}; expected 0 to "
                f"{self.classes - 1}"
            )
        labels = self.group.all_gather(labels, "labels")
        mine = ((labels >= self.own.start) & (labels < self.own.stop)).nonzero().squeeze(1)
        columns = labels[mine] - self.own.start
        self._rows = (None, self.centers)
        if self.sample_rate < 1.0:
            index = self._lot(columns)
            self._rows = (index, self.centers.detach()[index].requires_grad_())
            columns = torch.searchsorted(index, columns)
        features = features.to(self.centers.dtype)
        loss: Tensor = _ShardedSoftmax.apply(features, self._rows[1], mine, columns, self)
        return loss

    def rows(self) -> tuple[Tensor | None, Tensor]:
        """Which rows of `centers` the last loss took, and a tensor whose `grad` is theirs.

        The index is int64, in rising order; None means all, and the tensor is `centers` itself.
        """
        return self._rows

    def give_back(self, gradient: Tensor) -> None:
        """Takes a gradient of rows that nobody needs any more, as the memory of the next one."""
        self._spare = gradient

    def _room(self, rows: Tensor) -> Tensor:
        """Memory for the gradient of `rows`, of any values."""
        spare, self._spare = self._spare, None
        return torch.empty_like(rows) if spare is None or spare.shape != rows.shape else spare

    def _lot(self, positives: Tensor) -> Tensor:
        """The rows of the labels, and others by lot up to the sample rate; in rising order."""
        rows = self.centers.shape[0]
        lots = torch.rand(rows, generator=_generator(self.seed, 1, self.step, self.group.rank))
        lots[positives.cpu()] = 2.0
        count = max(int(self.sample_rate * rows), int((lots == 2.0).sum()))
        return lots.topk(count).indices.sort().values.to(self.centers.device)


def initial_centers(classes: range, dim: int, seed: int, dtype: torch.dtype) -> Tensor:
    """Normal with deviation 0.01, [len(classes), dim]: the same for a class on whichever rank."""
    centers = torch.empty(len(classes), dim, dtype=dtype)
    first = classes.start // _SEED_BLOCK * _SEED_BLOCK
    for block in range(first, classes.stop, _SEED_BLOCK):
        values = torch.randn(_SEED_BLOCK, dim, generator=_generator(seed, 0, block)) * 0.01
        start, stop = max(block, classes.start), min(block + _SEED_BLOCK, classes.stop)
        centers[start - classes.start : stop - classes.start] = values[start - block : stop - block]
    return centers


def _generator(*seeds: int) -> torch.Generator:
    """Of all the numbers: torch's takes no more than 32 bits to heart."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))


class _ShardedSoftmax(torch.autograd.Function):
    """The loss and both gradients around one buffer of logits [B, classes of this rank].

    With e_ij = exp(z_ij − m_i) and S_i = Σ_j e_ij over all ranks, the loss of row i is
    ln S_i + m_i − z_iy, and ∂/∂z_ij = e_ij/S_i − [j = y]. The buffer holds z, then e. It is gone
    through a block of classes at a time: what is made of a block's centres and logits on the way
    stays in the cache, and is never there for all classes.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        centers: Tensor,
        mine: Tensor,
        columns: Tensor,
        head: ShardedHead,
    ) -> Tensor:
        group, margin = head.group, head.margin
        product = _Product(centers.device.type)
        x = group.all_gather(features.detach(), "features")
        unit = x / x.norm(dim=1, keepdim=True).clamp_min(_TINY) if margin.normalize_features else x
        scaled = unit if margin.adaptive else unit * margin.scale
        z = x.new_empty(x.shape[0], centers.shape[0])
        inverse_norms = centers.new_empty(centers.shape[:1]) if margin.normalize_centers else None
        for part in blocks(centers.shape[0]):
            rows, logits = centers[part].detach(), z[:, part]
            product(scaled, rows.t(), logits)
            if inverse_norms is not None:
                inverse_norms[part] = rows.norm(dim=1).clamp_min_(_TINY).reciprocal_()
                logits *= inverse_norms[part]
        if isinstance(margin, AdaCos):
            _adapt(margin, z, mine, columns, group)
            scaled = unit * margin.scale
            z *= margin.scale

        with torch.enable_grad():  # the few values that the margin is about
            x_y = x[mine].requires_grad_()
            w_y = centers.detach()[columns].requires_grad_()
            target = _target(margin, x_y, w_y)
        plain = z[mine, columns]
        z[mine, columns] = target.detach()

        # A rank may be without classes.
        maximum = z.amax(1) if z.shape[1] else z.new_full(z.shape[:1], -torch.inf)
        maximum = group.all_max(maximum, "row maximum")
        sums = z.new_zeros(z.shape[0], dtype=torch.float64)
        for part in blocks(centers.shape[0]):
            sums += z[:, part].sub_(maximum[:, None]).exp_().sum(1)
        sums = group.all_sum(sums.to(z.dtype), "row sum")

        losses = sums[mine].log() + maximum[mine] - target.detach()
        right = (plain >= maximum[mine]).sum()
        totals = group.all_sum(torch.stack([losses.sum(), right.to(losses.dtype)]), "loss")
        head.accuracy = float(totals[1]) / x.shape[0]
        ctx.save_for_backward(centers, z, sums, scaled, x, mine, columns)
        ctx.inverse_norms, ctx.target, ctx.leaves = inverse_norms, target, (x_y, w_y)
        ctx.head, ctx.share = head, 1.0 / x.shape[0] if head.reduction == "mean" else 1.0
        ctx.scale, ctx.product = margin.scale, product
        return totals[0] * ctx.share

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        centers, e, sums, scaled, x, mine, columns = ctx.saved_tensors
        margin, factor, inverse_norms = ctx.head.margin, gradient * ctx.share, ctx.inverse_norms
        # Probabilities are e·r with r of each row: r goes to the smaller matrices instead.
        r = (factor / sums)[:, None]
        of_target = e[mine, columns] * r[mine, 0] - factor
        e[mine, columns] = 0.0
        scaled_r = scaled * r

        dw = ctx.head._room(centers)
        # float64 from block to block, or float32's error would grow with the classes.
        total = x.new_zeros(x.shape, dtype=torch.float64)
        of_block = torch.empty_like(x)
        for part in blocks(centers.shape[0]):
            rows, e_part, dw_part = centers[part], e[:, part], dw[part]
            if inverse_norms is not None:
                e_part *= inverse_norms[part]
            total += ctx.product(e_part, rows, of_block)
            ctx.product(e_part.t(), scaled_r, dw_part)
            if inverse_norms is not None:
                along = (rows * dw_part).sum(1, keepdim=True) * inverse_norms[part, None] ** 2
                dw_part.addcmul_(rows, along, value=-1.0)
        dx = total.to(x.dtype) * r * ctx.scale
        if margin.normalize_features:
            norms = x.norm(dim=1, keepdim=True).clamp_min(_TINY)
            unit = x / norms
            dx = (dx - unit * (unit * dx).sum(1, keepdim=True)) / norms
        if mine.numel():
            of_x, of_w = torch.autograd.grad(ctx.target, ctx.leaves, of_target)
            dx.index_add_(0, mine, of_x)
            dw.index_add_(0, columns, of_w)
        return ctx.head.group.reduce_scatter(dx, "feature gradient"), dw, None, None, None


class _Product:
    """out ← a·b in their own type; made under autocast, of factors rounded to its type."""

    def __init__(self, device_type: str) -> None:
        on = torch.is_autocast_enabled(device_type)
        self._rounded = torch.get_autocast_dtype(device_type) if on else None

    def __call__(self, a: Tensor, b: Tensor, out: Tensor) -> Tensor:
        if self._rounded is None:
            return torch.mm(a, b, out=out)
        return out.copy_(a.to(self._rounded) @ b.to(self._rounded))


def _target(margin: Margin, x: Tensor, w: Tensor) -> Tensor:
    """The label's logits [n] of features [n, dim] and their centres [n, dim]."""
    x_norm = x.norm(dim=1).clamp_min(_TINY)
    w_norm = w.norm(dim=1).clamp_min(_TINY)
    return margin.target((x * w).sum(1) / (x_norm * w_norm), x_norm, w_norm)


def _adapt(margin: AdaCos, cosines: Tensor, mine: Tensor, columns: Tensor, group: Group) -> None:
    """Gives AdaCos two more scalars of each row."""
    others = cosines.new_zeros(cosines.shape[0])
    for part in blocks(cosines.shape[1]):
        others += (cosines[:, part] * margin.scale).exp_().sum(1)
    of_label = torch.zeros_like(others)
    of_label[mine] = cosines[mine, columns]
    others[mine] -= (of_label[mine] * margin.scale).exp()
    margin.adapt(group.all_sum(others, "AdaCos sum"), group.all_sum(of_label, "AdaCos cosine"))
