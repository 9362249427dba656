"""Centre, contrastive and triplet loss and batch norm over ranks: formulas, gradients, ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ranks import run_ranks
from torch import Tensor, nn

from pyedge.errors import InvalidArgumentError
from pyedge.trainer import CenterLoss, Group, Partition, contrastive_loss, triplet_loss
from pyedge.trainer.sync_batch_norm import synchronize_batch_norm

CLASSES, DIM, BATCH = 5, 7, 12


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(BATCH, DIM, generator=generator, dtype=torch.float64) * 0.5
    return features, torch.randint(CLASSES, (BATCH,), generator=generator)


def share_of(group: Group) -> slice:
    size = BATCH // group.world_size
    return slice(size * group.rank, size * (group.rank + 1))


def center_loss(features: Tensor, labels: Tensor, sizes: tuple[int, ...] | None = None) -> Any:
    loss = CenterLoss(
        CLASSES, DIM, 0.3, 0.5, partition=sizes and Partition(sizes), dtype=torch.float64
    )
    for _ in range(2):  # the second time around centres that have moved
        value = loss(features, labels)
        loss.update()
    return value, loss.centers


def step(sizes: tuple[int, ...] | None = None) -> dict[str, tuple[Tensor, ...]]:
    """Values and gradients of this rank's share of the batch, and the centres."""
    group = Group()
    features, labels = batch()
    labels = labels[share_of(group)]
    found = {}
    for name, function in (("contrastive", contrastive_loss), ("triplet", triplet_loss)):
        x = features[share_of(group)].clone().requires_grad_()
        value = function(x, labels)
        found[name] = value.detach(), *torch.autograd.grad(value, x)
    x = features[share_of(group)].clone().requires_grad_()
    value, centers = center_loss(x, labels, sizes)
    found["center"] = value.detach(), *torch.autograd.grad(value, x), centers
    x = features[share_of(group)].clone().requires_grad_()
    norm = synchronize_batch_norm(nn.BatchNorm1d(DIM).double(), group)
    weights = torch.linspace(-1, 1, BATCH * DIM, dtype=torch.float64).view(BATCH, DIM)
    y = norm(x)
    (y.sin() * weights[share_of(group)]).sum().backward()
    gradients = [group.all_sum(p.grad, "test") for p in norm.parameters()]
    own = torch.cat([y.detach(), x.grad], 1)
    found["batch norm"] = torch.stack([*gradients, norm.running_mean, norm.running_var]), own
    return found


@pytest.mark.parametrize("sizes", [(3, 2), (2, 0, 1, 2)], ids=str)
def test_ranks_agree_with_one(sizes: tuple[int, ...]) -> None:
    alone, ranks = step(), run_ranks(len(sizes), step, sizes)
    for name, (value, *shared_out) in alone.items():
        for rank in ranks:
            torch.testing.assert_close(rank[name][0], value, rtol=1e-12, atol=1e-14)
        for index, whole in enumerate(shared_out, 1):
            parts = torch.cat([rank[name][index] for rank in ranks])
            torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-14)


def test_gradients_against_differences() -> None:
    features, labels = batch()
    features.requires_grad_()
    for function in (contrastive_loss, triplet_loss):
        assert torch.autograd.gradcheck(lambda x, f=function: f(x, labels), features)
    loss = CenterLoss(CLASSES, DIM, 0.3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), features)


def test_contrastive_formula() -> None:
    features, labels = batch()
    total = 0.0
    for i in range(BATCH):
        for j in range(i):
            d = float((features[i] - features[j]).norm())
            total += 0.5 * (d**2 if labels[i] == labels[j] else max(0.0, 1.5 - d) ** 2)
    value = contrastive_loss(features, labels, margin=1.5)
    assert float(value) == pytest.approx(total / (BATCH * (BATCH - 1) / 2), rel=1e-12)


def test_triplet_formula() -> None:
    features, labels = batch()
    x = features / features.norm(dim=1, keepdim=True)
    d = (x[:, None] - x[None]).square().sum(2)
    losses = []
    for a in range(BATCH):
        others = [float(d[a, n]) for n in range(BATCH) if labels[n] != labels[a]]
        for p in range(BATCH):
            if p != a and labels[p] == labels[a]:
                behind = [value for value in others if value > d[a, p]]
                negative = min(behind) if behind else max(others)
                losses.append(max(0.0, float(d[a, p]) - negative + 0.2))
    assert float(triplet_loss(features, labels)) == pytest.approx(
        sum(losses) / len(losses), rel=1e-12
    )


def test_batches_without_pairs() -> None:
    features, _ = batch()
    features.requires_grad_()
    for labels in (torch.arange(BATCH), torch.zeros(BATCH, dtype=torch.int64)):
        value = triplet_loss(features, labels)
        assert float(value.detach()) == 0.0
        assert torch.autograd.grad(value, features)[0].abs().max() == 0.0
    twins = torch.ones(4, DIM, dtype=torch.float64, requires_grad=True)
    value = contrastive_loss(twins, torch.arange(4))
    assert torch.isfinite(torch.autograd.grad(value, twins)[0]).all()


def test_center_loss_formula() -> None:
    features, labels = batch()
    loss = CenterLoss(CLASSES, DIM, 0.3, 0.5, dtype=torch.float64)
    value = loss(features, labels)
    assert float(value) == pytest.approx(
        0.3 / 2 * float(features.square().sum()) / BATCH, rel=1e-12
    )
    loss.update()
    for j in range(CLASSES):
        own = features[labels == j]
        torch.testing.assert_close(loss.centers[j], 0.5 * own.sum(0) / (1 + len(own)))
    with pytest.raises(InvalidArgumentError, match="update"):
        loss.update()


def test_batch_norm_is_torchs() -> None:
    """With two ranks; what one process makes of the same batch by torch's own module."""
    features, _ = batch()
    x = features.clone().requires_grad_()
    norm = nn.BatchNorm1d(DIM).double()
    y = norm(x)
    weights = torch.linspace(-1, 1, BATCH * DIM, dtype=torch.float64).view(BATCH, DIM)
    (y.sin() * weights).sum().backward()
    ranks = run_ranks(2, step, (3, 2))
    torch.testing.assert_close(
        torch.cat([rank["batch norm"][1] for rank in ranks]), torch.cat([y.detach(), x.grad], 1)
    )
    expected = [p.grad for p in norm.parameters()] + [norm.running_mean, norm.running_var]
    torch.testing.assert_close(ranks[0]["batch norm"][0], torch.stack(expected))
