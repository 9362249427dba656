"""The sharded head against one process with the whole matrix, and against plain autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ranks import run_ranks
from torch import Tensor
from torch.nn import functional

from pyedge.errors import InvalidArgumentError
from pyedge.trainer import (
    AdaCos,
    ArcFace,
    ASoftmax,
    CombinedMargin,
    CosFace,
    Group,
    LSoftmax,
    Margin,
    NormFace,
    Partition,
    RowAdamW,
    RowSGD,
    ShardedHead,
    Softmax,
)
from pyedge.trainer.blocks import BLOCK
from pyedge.trainer.head import initial_centers

CLASSES, DIM, BATCH = 23, 12, 8
MARGINS: dict[str, Callable[[], Margin]] = {
    "softmax": Softmax,
    "normface": lambda: NormFace(16.0),
    "cosface": lambda: CosFace(16.0, 0.35),
    "arcface": lambda: ArcFace(16.0, 0.5),
    "combined": lambda: CombinedMargin(16.0, 0.9, 0.4, 0.15),
    "monotone": lambda: CombinedMargin(16.0, 1.3, 1.0, 0.1, monotone=True),
    "l_softmax": lambda: LSoftmax(3, base=5.0),
    "a_softmax": lambda: ASoftmax(4, base=5.0),
    "adacos": lambda: AdaCos(CLASSES),
}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}


def batch(dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(BATCH, DIM, generator=generator, dtype=torch.float64)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)
    labels[:3] = torch.tensor([0, CLASSES - 1, 0])  # both ends, and a class twice
    return features.to(dtype), labels


def head_of(name: str, dtype: torch.dtype, **options: Any) -> ShardedHead:
    head = ShardedHead(CLASSES, DIM, MARGINS[name](), seed=3, dtype=dtype, **options)
    with torch.no_grad():
        head.centers.mul_(60)  # logits that differ
    return head


def step(
    name: str, dtype: torch.dtype, sizes: tuple[int, ...] | None = None, keep_logits: bool = True
) -> dict[str, Any]:
    """Loss and gradients of this rank's share of one batch."""
    head = head_of(name, dtype, partition=sizes and Partition(sizes), keep_logits=keep_logits)
    group = head.group
    share = slice(
        BATCH // group.world_size * group.rank, BATCH // group.world_size * (group.rank + 1)
    )
    features, labels = batch(dtype)
    own = features[share].clone().requires_grad_()
    loss = head(own, labels[share])
    loss.backward()
    return {
        "loss": loss.detach(),
        "features": own.grad,
        "centers": head.centers.grad,
        "accuracy": head.accuracy,
        "traffic": group.traffic,
    }


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("sizes", [(12, 11), (3, 0, 19, 1)], ids=str)
def test_ranks_agree_with_one(sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    results = run_ranks(len(sizes), steps, dtype, sizes)
    for name in MARGINS:
        alone = step(name, dtype)
        ranks = [result[name] for result in results]
        bound = TOLERANCE[dtype]
        for rank in ranks:
            assert relative(rank["loss"], alone["loss"]) <= bound, name
            assert rank["accuracy"] == alone["accuracy"]
        for key in ("features", "centers"):
            assert relative(torch.cat([rank[key] for rank in ranks]), alone[key]) <= bound, name


def steps(dtype: torch.dtype, sizes: tuple[int, ...]) -> dict[str, Any]:
    return {name: step(name, dtype, sizes) for name in MARGINS}


def plain_loss(
    name: str, margin: Margin, features: Tensor, centers: Tensor, labels: Tensor
) -> Tensor:
    """The papers' formulas, written out with autograd over a whole matrix of logits."""
    x_norm, w_norm = features.norm(dim=1, keepdim=True), centers.norm(dim=1)
    cosine = functional.normalize(features) @ functional.normalize(centers).t()
    one_hot = functional.one_hot(labels, CLASSES).bool()
    theta = torch.acos(cosine)
    if name == "softmax":
        logits = features @ centers.t()
    elif name == "normface":
        logits = 16 * cosine
    elif name == "cosface":
        logits = 16 * torch.where(one_hot, cosine - 0.35, cosine)
    elif name == "arcface":
        logits = 16 * torch.where(one_hot, torch.cos(theta + 0.5), cosine)
    elif name == "combined":
        logits = 16 * torch.where(one_hot, torch.cos(0.9 * theta + 0.4) - 0.15, cosine)
    elif name == "monotone":
        phi = 1.3 * theta + 1.0
        k = (phi / torch.pi).floor()
        logits = 16 * torch.where(one_hot, (-1) ** k * torch.cos(phi) - 2 * k - 0.1, cosine)
    elif name in ("l_softmax", "a_softmax"):
        m = 3 if name == "l_softmax" else 4
        k = (m * theta / torch.pi).floor()
        psi = (-1) ** k * torch.cos(m * theta) - 2 * k
        length = x_norm * w_norm if name == "l_softmax" else x_norm
        logits = length * torch.where(one_hot, (5 * cosine + psi) / 6, cosine)
    else:
        with torch.no_grad():
            start = 2**0.5 * torch.log(torch.tensor(CLASSES - 1.0, dtype=cosine.dtype))
            others = torch.where(one_hot, 0.0, torch.exp(start * cosine)).sum(1).mean()
            median = torch.acos(cosine[one_hot]).median()
            scale = torch.log(others) / torch.cos(median.clamp(max=torch.pi / 4))
        logits = scale * cosine
    return functional.cross_entropy(logits, labels)


@pytest.fixture(params=[1, 5, BLOCK])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Classes at a time: one, a part of them, all."""
    monkeypatch.setattr("pyedge.trainer.blocks.BLOCK", request.param)
    return int(request.param)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("keep_logits", [True, False])
@pytest.mark.parametrize("name", MARGINS)
def test_formula(name: str, keep_logits: bool) -> None:
    features, labels = batch(torch.float64)
    head = head_of(name, torch.float64)
    features.requires_grad_()
    centers = head.centers.detach().clone().requires_grad_()
    expected = plain_loss(name, head.margin, features, centers, labels)
    want = torch.autograd.grad(expected, (features, centers))
    got = step(name, torch.float64, keep_logits=keep_logits)
    assert relative(got["loss"], expected.detach()) < 1e-13
    assert relative(got["features"], want[0]) < 1e-12
    assert relative(got["centers"], want[1]) < 1e-12


@pytest.mark.parametrize("name", MARGINS)
def test_state_is_all_that_a_margin_keeps(name: str) -> None:
    """Ramps and scales go on from a checkpoint where they were."""
    features, labels = batch(torch.float64)
    before, after = head_of(name, torch.float64), head_of(name, torch.float64)
    for _ in range(3):
        before(features, labels)
        before.margin.advance()
    after.margin.load_state_dict(before.margin.state_dict())
    assert after(features, labels).equal(before(features, labels))


@pytest.mark.parametrize("name", [name for name in MARGINS if name != "adacos"])
def test_gradient_against_differences(name: str) -> None:
    """In float64; AdaCos's scale counts as a constant, so its differences are others."""
    features, labels = batch(torch.float64)
    head = head_of(name, torch.float64)

    def loss(features: Tensor, centers: Tensor) -> Tensor:
        head.centers.data = centers
        return head(features, labels)

    centers = head.centers.detach().clone()
    got = step(name, torch.float64)
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        dx = torch.randn(features.shape, generator=generator, dtype=torch.float64)
        dw = torch.randn(centers.shape, generator=generator, dtype=torch.float64)
        h = 1e-6
        ahead = loss(features + h * dx, centers + h * dw).detach()
        behind = loss(features - h * dx, centers - h * dw).detach()
        slope = (got["features"] * dx).sum() + (got["centers"] * dw).sum()
        assert abs(float((ahead - behind) / (2 * h) - slope)) < 1e-7


def test_extreme_logits_and_features() -> None:
    """A feature of length 0, cosines of 1 and −1, and products far beyond what exp can take."""
    for name in MARGINS:
        head = head_of(name, torch.float32)
        features, labels = batch(torch.float32)
        features[0] = 0
        features[1] = 1e4 * head.centers.detach()[labels[1]]
        features[2] = -1e4 * head.centers.detach()[labels[2]]
        features.requires_grad_()
        loss = head(features, labels)
        loss.backward()
        assert torch.isfinite(loss), name
        assert torch.isfinite(features.grad).all(), name
        assert torch.isfinite(head.centers.grad).all(), name


def test_traffic_does_not_grow_with_the_classes() -> None:
    traffic = [run_ranks(2, one_traffic, classes) for classes in (10, 1000)]
    assert traffic[0] == traffic[1]
    half = BATCH // 2 * 4  # bytes of one float32 a row of a rank's batch
    assert traffic[0][0] == {
        "features": half * DIM,
        "labels": half * 2,
        "row maximum": 2 * half,
        "row sum": 2 * half,
        "loss": 8,
        "feature gradient": half * DIM,
    }


def one_traffic(classes: int) -> dict[str, int]:
    head = ShardedHead(classes, DIM, CosFace())
    features = torch.randn(BATCH // 2, DIM, requires_grad=True)
    head(features, torch.randint(classes, (BATCH // 2,))).backward()
    return dict(head.group.traffic)


@pytest.mark.usefixtures("block")
def test_sampling() -> None:
    features, labels = batch(torch.float64)
    exact, sampled = (
        head_of("cosface", torch.float64),
        head_of("cosface", torch.float64, sample_rate=0.5),
    )
    loss = sampled(features, labels)
    index, rows = sampled.rows()
    assert index is not None
    assert len(index) == CLASSES // 2
    assert set(labels.tolist()) <= set(index.tolist())
    assert index.equal(index.sort().values)
    loss.backward()
    # The same as a head that has those classes alone.
    small = ShardedHead(len(index), DIM, CosFace(16.0, 0.35), dtype=torch.float64)
    with torch.no_grad():
        small.centers.copy_(exact.centers[index])
    expected = small(features, torch.searchsorted(index, labels))
    expected.backward()
    assert relative(loss.detach(), expected.detach()) < 1e-14
    assert relative(rows.grad, small.centers.grad) < 1e-14
    # Other lots in the next step; all classes of a batch are kept where the rate is too low.
    sampled.step = 1
    sampled(features, labels)
    assert not sampled.rows()[0].equal(index)
    few = head_of("cosface", torch.float64, sample_rate=0.01)
    few(features, labels)
    assert few.rows()[0].equal(labels.unique())


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("kind", ["sgd", "momentum", "adamw"])
def test_row_optimizers_are_torchs(kind: str) -> None:
    head, other = head_of("arcface", torch.float64), head_of("arcface", torch.float64)
    if kind == "adamw":
        ours, theirs = RowAdamW(head, 0.01), torch.optim.AdamW([other.centers], 0.01)
    else:
        momentum = 0.9 if kind == "momentum" else 0.0
        ours = RowSGD(head, 0.1, momentum, 1e-3)
        theirs = torch.optim.SGD([other.centers], 0.1, momentum, weight_decay=1e-3)
    for seed in range(4):
        features, labels = batch(torch.float64, seed)
        head(features, labels).backward()
        ours.step()
        theirs.zero_grad()
        other(features, labels).backward()
        theirs.step()
        assert relative(head.centers.detach(), other.centers.detach()) < 1e-14


@pytest.mark.usefixtures("block")
def test_row_optimizer_leaves_other_rows() -> None:
    features, labels = batch(torch.float64)
    head = head_of("cosface", torch.float64, sample_rate=0.5)
    before = head.centers.detach().clone()
    optimizer = RowSGD(head, 0.1)
    with pytest.raises(InvalidArgumentError, match="backward"):
        optimizer.step()
    head(features, labels).backward()
    optimizer.step()
    moved = (head.centers.detach() != before).any(1).nonzero().squeeze(1)
    assert moved.equal(head.rows()[0])
    assert (optimizer.state["momentum"] != 0).any(1).nonzero().squeeze(1).equal(moved)


@pytest.mark.usefixtures("block")
def test_autocast_is_near() -> None:
    """Forward and backward, although only the forward pass is run under it, as training does."""
    exact, rounded = (head_of("softmax", torch.float32) for _ in range(2))
    features, labels = batch(torch.float32)
    features, same = features.clone().requires_grad_(), features.clone().requires_grad_()
    loss = exact(features, labels)
    with torch.autocast("cpu", torch.bfloat16):
        near = rounded(same, labels)
    assert 0 < relative(near.detach(), loss.detach()) < 0.02
    for value in (loss, near):
        value.backward()
    assert rounded.centers.grad.dtype == torch.float32
    assert 0 < relative(rounded.centers.grad, exact.centers.grad) < 0.05
    assert 0 < relative(same.grad, features.grad) < 0.05
    # Features and probabilities are rounded in the product that is the centres' gradient.
    labels_only = torch.ones(CLASSES, dtype=torch.bool)
    labels_only[labels] = False
    products = rounded.centers.grad[labels_only]
    assert products.equal(products.bfloat16().float())


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("name", MARGINS)
def test_logits_may_be_of_a_wider_type(name: str) -> None:
    """Nothing is rounded but the centres and their gradient."""
    features, labels = batch(torch.float64)
    mixed = head_of(name, torch.float32, logits_dtype=torch.float64)
    wide = head_of(name, torch.float64)
    with torch.no_grad():
        wide.centers.copy_(mixed.centers)
    features, same = features.clone().requires_grad_(), features.clone().requires_grad_()
    loss, expected = mixed(features, labels), wide(same, labels)
    assert relative(loss.detach(), expected.detach()) < 1e-14
    loss.backward()
    expected.backward()
    assert relative(features.grad, same.grad) < 1e-13
    assert mixed.centers.grad.dtype == torch.float32
    assert relative(mixed.centers.grad, wide.centers.grad) < 4e-7


def test_the_memory_of_a_gradient_is_the_next_ones() -> None:
    features, labels = batch(torch.float64)
    head, fresh = head_of("arcface", torch.float64), head_of("arcface", torch.float64)
    optimizer = RowSGD(head, 0.0)
    head(features, labels).backward()
    place = head.centers.grad.data_ptr()
    optimizer.step()
    head(features.flip(0), labels).backward()
    assert head.centers.grad.data_ptr() == place
    fresh(features.flip(0), labels).backward()
    assert head.centers.grad.equal(fresh.centers.grad)
    # Nobody has given this one back: a second pass adds to it.
    head(features.flip(0), labels).backward()
    assert relative(head.centers.grad, 2 * fresh.centers.grad) < 1e-14


def test_centers_begin_alike_on_any_rank() -> None:
    whole = initial_centers(range(10_000), 4, 7, torch.float32)
    assert whole[4000:9000].equal(initial_centers(range(4000, 9000), 4, 7, torch.float32))
    assert not whole.equal(initial_centers(range(10_000), 4, 8, torch.float32))


def test_partition() -> None:
    partition = Partition.even(10, 4)
    assert partition.sizes == (3, 3, 2, 2)
    assert [list(partition.range(rank)) for rank in range(4)] == [
        [0, 1, 2],
        [3, 4, 5],
        [6, 7],
        [8, 9],
    ]
    uneven = Partition((0, 3, 0, 1))
    assert [uneven.owner(label) for label in range(4)] == [1, 1, 1, 3]
    for bad in ((), (0, 0), (3, -1)):
        with pytest.raises(InvalidArgumentError, match="sizes"):
            Partition(bad)
    with pytest.raises(InvalidArgumentError, match="label 4"):
        uneven.owner(4)


def test_bad_input() -> None:
    features, labels = batch(torch.float32)
    head = head_of("cosface", torch.float32)
    for f, y, message in (
        (features[:, 1:], labels, r"expected \[batch, 12\]"),
        (features, labels[1:], "expected int64"),
        (features, labels.float(), "expected int64"),
        (features, labels + CLASSES, "expected 0 to 22"),
        (features, labels - 1, "labels go from -1"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            head(f, y)
    with pytest.raises(InvalidArgumentError, match="2 ranks; expected 23 on 1"):
        ShardedHead(CLASSES, DIM, Softmax(), Group(), Partition.even(CLASSES, 2))
    for options in ({"sample_rate": 0.0}, {"reduction": "none"}):
        with pytest.raises(InvalidArgumentError, match=next(iter(options))):
            ShardedHead(CLASSES, DIM, Softmax(), **options)
