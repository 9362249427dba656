"""Losses on distances between the features of a batch, over the batches of all ranks.

Each rank scores the pairs or triplets of its own images against those of all ranks. The values are
the same on each rank; the gradient of the features is that of the whole loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pyedge.trainer.distributed import Group


def contrastive_loss(
    features: Tensor, labels: Tensor, margin: float = 1.0, group: Group | None = None
) -> Tensor:
    """½‖x_i − x_j‖² for two images of a person, ½·max(0, m − ‖x_i − x_j‖)² for two people.

    The verification signal of DeepID2 (Sun et al., NIPS 2014, eq. 2), as a mean over all pairs.

    Args:
        features: [b, dim] of this rank; b is the same on all ranks.
        labels: int64 [b].
        margin: m.
    """
    group = group or Group()
    everyone, everyones_labels = _gathered(features, labels, group)
    squared = _squared_distances(features, everyone)
    same = labels[:, None] == everyones_labels
    self_pairs = _own_places(features, everyone, group)
    # The square root has no derivative at 0.
    distance = squared.clamp_min(torch.finfo(squared.dtype).tiny).sqrt()
    losses = torch.where(same, squared, (margin - distance).clamp_min(0).square()) / 2
    count = everyone.shape[0] * (everyone.shape[0] - 1)
    return _total(losses.masked_fill(self_pairs, 0.0).sum(), group) / max(1, count)


def triplet_loss(
    features: Tensor, labels: Tensor, margin: float = 0.2, group: Group | None = None
) -> Tensor:
    """max(0, ‖a − p‖² − ‖a − n‖² + α) with semi-hard negatives (Schroff et al., FaceNet, 2015).

    On features of length 1 (section 3.1). For each pair of a person's images the negative is the
    nearest of those farther than the positive (section 3.2, eq. 4); where there is none, the
    farthest of all. The mean over all such pairs; 0 where no person has two images or all images
    are of one.

    Args:
        features: [b, dim] of this rank, normalized here; b is the same on all ranks.
        labels: int64 [b].
        margin: α.
    """
    group = group or Group()
    features = functional.normalize(features)
    everyone, everyones_labels = _gathered(features, labels, group)
    squared = _squared_distances(features, everyone)
    same = labels[:, None] == everyones_labels
    positive = same & ~_own_places(features, everyone, group)
    positive &= ~same.all(1, keepdim=True)  # an anchor needs somebody else
    to_others = squared.detach().masked_fill(same, torch.inf)
    # [anchor, positive, negative]: how far each negative is, those nearer than the positive last.
    behind = to_others[:, None, :] <= squared.detach()[:, :, None]
    nearest_behind = to_others[:, None, :].masked_fill(behind, torch.inf).min(2)
    farthest = squared.detach().masked_fill(same, -torch.inf).argmax(1)[:, None]
    chosen = torch.where(nearest_behind.values.isinf(), farthest, nearest_behind.indices)
    losses = (squared - squared.gather(1, chosen) + margin).clamp_min(0)
    count = group.all_sum(positive.sum(), "pairs")
    return _total(losses.masked_fill(~positive, 0.0).sum(), group) / count.clamp_min(1)


def _gathered(features: Tensor, labels: Tensor, group: Group) -> tuple[Tensor, Tensor]:
    return _Gather.apply(features, group), group.all_gather(labels, "labels")


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """[len(a), len(b)], from differences: exact where two features are nearly alike."""
    return (a[:, None] - b[None]).square().sum(2)


def _own_places(features: Tensor, everyone: Tensor, group: Group) -> Tensor:
    """[b, B]: where an image meets itself."""
    rows = torch.arange(features.shape[0], device=features.device)
    places = torch.arange(everyone.shape[0], device=features.device)
    return (rows + group.rank * features.shape[0])[:, None] == places


def _total(share: Tensor, group: Group) -> Tensor:
    total: Tensor = _Total.apply(share, group)
    return total


class _Gather(torch.autograd.Function):
    """The features of all ranks; backward, what all ranks make of this one's."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return group.all_gather(features, "features")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.group.reduce_scatter(gradient, "feature gradient"), None


class _Total(torch.autograd.Function):
    """The sum over the ranks; each goes on with the gradient of its own share."""

    @staticmethod
    def forward(ctx: Any, share: Tensor, group: Group) -> Tensor:
        return group.all_sum(share.clone(), "loss")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
