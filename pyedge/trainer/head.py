"""Softmax over class centres that are split over the ranks.

Each rank computes its own features; the features and labels of all ranks are gathered; each rank
multiplies them with the centres of its own classes. Of the logits only the row maximum and the row
sum of exponentials are exchanged. The gradient of the features is summed over the ranks and given
back to the rank each came from; the gradient of the centres never leaves its rank. Nothing that is
exchanged grows with the number of classes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

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
        dtype: of the centres and their gradient.
        logits_dtype: of products, logits and the loss, by default the same. Under autocast the
            products alone are in its type.
        reduction: "mean" over the global batch, or "sum".
        keep_logits: whether the backward pass finds the logits [global batch, classes of this rank]
            that the forward pass has made. Otherwise it makes them again, a block of classes at a
            time: that is one matrix product more (four instead of three), and no logits in memory.

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
        keep_logits: bool = True,
        logits_dtype: torch.dtype | None = None,
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
        self.keep_logits, self.logits_dtype = keep_logits, logits_dtype or dtype
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
        features = features.to(self.logits_dtype)
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
    """The loss and both gradients, a block of classes at a time.

    With m_i the maximum of the logits of row i and S_i = Σ_j exp(z_ij − m_i) over all ranks, the
    loss of row i is ln S_i + m_i − z_iy, and ∂/∂z_ij = exp(z_ij − m_i)/S_i − [j = y]. A block has
    its exponentials below t_i, the maximum of the blocks so far: exp(t_i − m_i) of each row
    corrects what is made of them. That and all else that a block needs stays in the cache, and is
    never there for all classes; exponentials are only if they are kept for the backward pass.
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
        x = group.all_gather(features.detach(), "features")
        unit = x / _norms(x)[:, None] if margin.normalize_features else x
        classes = centers.shape[0]
        labels = _labels_of_blocks(mine, columns, classes)
        logits = _Logits(margin.normalize_centers, centers.device.type)
        if isinstance(margin, AdaCos):
            _adapt(margin, logits, unit, centers.detach(), labels, mine, group)
        scaled = unit * margin.scale
        with torch.enable_grad():  # the few values that the margin is about
            x_y = x[mine].requires_grad_()
            w_y = centers.detach()[columns].to(x.dtype).requires_grad_()
            target = _target(margin, x_y, w_y)

        kept = x.new_empty(x.shape[0], classes) if head.keep_logits else None
        plain = torch.empty_like(target)
        tops = [x.new_full(x.shape[:1], -torch.inf)]
        sums = x.new_zeros(x.shape[0], dtype=torch.float64)  # of exponentials below the last top
        for part, (index, place) in zip(blocks(classes), labels, strict=True):
            z = logits(scaled, centers[part].detach(), None if kept is None else kept[:, part])
            plain[index] = z[place]
            z[place] = target.detach()[index]
            tops.append(torch.maximum(tops[-1], z.amax(1)))
            sums *= _correction(tops[-2], tops[-1])
            sums += z.sub_(tops[-1][:, None]).exp_().sum(1)
        maximum = group.all_max(tops[-1].clone(), "row maximum")
        sums *= _correction(tops[-1], maximum)  # 0 on a rank without classes
        sums = group.all_sum(sums.to(x.dtype), "row sum")

        losses = sums[mine].log() + maximum[mine] - target.detach()
        right = (plain >= maximum[mine]).sum()
        totals = group.all_sum(torch.stack([losses.sum(), right.to(losses.dtype)]), "loss")
        head.accuracy = float(totals[1]) / x.shape[0]
        ctx.save_for_backward(centers, kept, maximum, sums, scaled, x, mine, columns)
        ctx.target, ctx.leaves = target, (x_y, w_y)
        ctx.head, ctx.share = head, 1.0 / x.shape[0] if head.reduction == "mean" else 1.0
        ctx.scale, ctx.logits, ctx.labels, ctx.tops = margin.scale, logits, labels, tops[1:]
        return totals[0] * ctx.share

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        centers, kept, maximum, sums, scaled, x, mine, columns = ctx.saved_tensors
        margin, logits, factor = ctx.head.margin, ctx.logits, gradient * ctx.share
        # Probabilities are e·r with r of each row: r goes to the smaller matrices instead.
        r = (factor / sums)[:, None]
        scaled_r = scaled * r

        dw = ctx.head._room(centers)
        # float64 from block to block, or float32's error would grow with the classes.
        total = x.new_zeros(x.shape, dtype=torch.float64)
        of_block = torch.empty_like(x)
        parts = zip(blocks(centers.shape[0]), ctx.labels, ctx.tops, strict=True)
        for part, (_, place), top in parts:
            rows, dw_part = centers[part].to(x.dtype), dw[part]
            again = kept is None
            e = logits(scaled, rows).sub_(top[:, None]).exp_() if again else kept[:, part]
            e[place] = 0.0
            if margin.normalize_centers:
                inverse = _norms(rows).reciprocal_()
                e *= inverse
            correction = _correction(top, maximum)[:, None]
            total += logits.product(e, rows, of_block) * correction
            logits.product(e.t(), scaled_r * correction.to(x.dtype), dw_part)
            if margin.normalize_centers:
                along = (rows * dw_part).sum(1) * inverse.square()
                dw_part.addcmul_(rows, along[:, None], value=-1.0)
        dx = total.to(x.dtype) * r * ctx.scale
        if margin.normalize_features:
            norms = _norms(x)[:, None]
            unit = x / norms
            dx = (dx - unit * (unit * dx).sum(1, keepdim=True)) / norms
        if mine.numel():
            of_target = (ctx.target.detach() - maximum[mine]).exp() * r[mine, 0] - factor
            of_x, of_w = torch.autograd.grad(ctx.target, ctx.leaves, of_target)
            dx.index_add_(0, mine, of_x)
            dw.index_add_(0, columns, of_w.to(dw.dtype))
        return ctx.head.group.reduce_scatter(dx, "feature gradient"), dw, None, None, None


class _Labels(NamedTuple):
    """Labels that are classes of one block.

    Attributes:
        index: which of this rank's they are.
        place: rows and columns, where they are in the logits of the block.
    """

    index: Tensor
    place: tuple[Tensor, Tensor]


class _Logits:
    """Of a block of classes; made under autocast, products are of factors rounded to its type."""

    def __init__(self, normalize_centers: bool, device_type: str) -> None:
        self._normalize = normalize_centers
        on = torch.is_autocast_enabled(device_type)
        self._rounded = torch.get_autocast_dtype(device_type) if on else None

    def __call__(self, scaled: Tensor, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """[B, n] of features [B, dim], times the scale, and centres [n, dim]."""
        rows = rows.to(scaled.dtype)
        out = scaled.new_empty(scaled.shape[0], rows.shape[0]) if out is None else out
        self.product(scaled, rows.t(), out)
        if self._normalize:
            out *= _norms(rows).reciprocal_()
        return out

    def product(self, a: Tensor, b: Tensor, out: Tensor) -> Tensor:
        """out ← a·b."""
        if self._rounded is not None:
            a, b = a.to(self._rounded), b.to(self._rounded)
        return torch.mm(a, b, out=out) if a.dtype == out.dtype else out.copy_(a @ b)


def _norms(rows: Tensor) -> Tensor:
    return rows.norm(dim=1).clamp_min(_TINY)


def _correction(below: Tensor, to: Tensor) -> Tensor:
    """exp(below − to), float64 [B]: turns exponentials below one maximum into those below `to`."""
    return (below - to).double().exp_()


def _labels_of_blocks(mine: Tensor, columns: Tensor, classes: int) -> list[_Labels]:
    """Of each block. They are sorted out at once: a GPU would have to be waited for each time."""
    order = columns.argsort()
    starts = [part.start for part in blocks(classes)]
    edges = torch.tensor([*starts, classes], device=columns.device)
    bounds = torch.searchsorted(columns[order], edges).tolist()
    indices = [order[first:end] for first, end in pairwise(bounds)]
    return [
        _Labels(index, (mine[index], columns[index] - start))
        for index, start in zip(indices, starts, strict=True)
    ]


def _target(margin: Margin, x: Tensor, w: Tensor) -> Tensor:
    """The label's logits [n] of features [n, dim] and their centres [n, dim]."""
    x_norm, w_norm = _norms(x), _norms(w)
    return margin.target((x * w).sum(1) / (x_norm * w_norm), x_norm, w_norm)


def _adapt(
    margin: AdaCos,
    logits: _Logits,
    unit: Tensor,
    centers: Tensor,
    labels: list[_Labels],
    mine: Tensor,
    group: Group,
) -> None:
    """Gives AdaCos two more scalars of each row."""
    others, of_label = unit.new_zeros(2, unit.shape[0])
    scaled = unit * margin.scale
    for part, (index, place) in zip(blocks(centers.shape[0]), labels, strict=True):
        z = logits(scaled, centers[part])
        of_label[mine[index]] = z[place] / margin.scale
        z[place] = -torch.inf
        others += z.exp_().sum(1)
    margin.adapt(group.all_sum(others, "AdaCos sum"), group.all_sum(of_label, "AdaCos cosine"))
