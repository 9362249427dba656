"""What a run takes on each rank, from formulas: memory, bytes on the wire, and FLOPs.

The letters: C classes, d the length of a feature, W ranks, b images of a rank in a step and
B = W·b of all; c = ⌈C/W⌉ classes of the largest shard, of which a step takes r = ⌊rate·c⌋ (all
where the rate is 1); P parameters of the backbone; s tensors of optimizer state for each parameter:
one for SGD with momentum, two for AdamW. Centres, features, logits and gradients are float32, 4
bytes, also under bf16 autocast, which changes the backbone's activations alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pyedge.errors import InvalidArgumentError
from pyedge.trainer.blocks import BLOCK
from pyedge.trainer.distributed import Group
from pyedge.trainer.sync_batch_norm import synchronize_batch_norm

if TYPE_CHECKING:
    from rich.table import Table

OPTIMIZER_STATES = {"sgd": 1, "adamw": 2}
PRECISIONS = ("fp32", "bf16")
_FLOAT, _LABEL = 4, 8

LEFT_OUT = (
    "what a class or a row has one number of (norms, lots, row maxima); the work space of "
    "convolutions and of the allocator; the images, decoded ahead"
)


@dataclass(frozen=True)
class BackboneCost:
    """What one backbone takes, counted on a network without data; see `backbone_cost`.

    Attributes:
        parameters: how many numbers.
        buffer_bytes: of running statistics.
        forward_flops: of one image.
        activation_base, activation_bytes: what autograd keeps for the backward pass, in bytes:
            once, and for each image.
        norms: channels of each BatchNorm whose statistics the ranks share.
    """

    parameters: int
    buffer_bytes: int
    forward_flops: int
    activation_base: int
    activation_bytes: int
    norms: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """The answer, for the rank with the largest shard. Sizes in bytes.

    Attributes:
        options: what was asked.
        kept: memory from step to step, by what it is for.
        step: memory while a step is under way, by what it is for.
        peak: the most at one time: `kept` and the largest phase of a step.
        wire: sent by a rank in a step, by the exchange; the payload of ring algorithms.
        flops: of a rank in a step.
        left_out: what is not counted.
    """

    options: dict[str, Any]
    kept: dict[str, int]
    step: dict[str, int]
    peak: int
    wire: dict[str, int]
    flops: dict[str, int]
    left_out: str = LEFT_OUT

    def to_dict(self) -> dict[str, Any]:
        """Made of JSON's types."""
        totals = {"wire_total": sum(self.wire.values()), "flops_total": sum(self.flops.values())}
        return {**asdict(self), "kept_total": sum(self.kept.values()), **totals}


def plan(
    classes: int,
    dim: int,
    ranks: int = 1,
    batch_per_rank: int = 64,
    backbone: str | None = "mobilefacenet",
    optimizer: str = "sgd",
    sample_rate: float = 1.0,
    precision: str = "fp32",
    sync_batch_norm: bool = True,
    keep_logits: bool = True,
) -> Plan:
    """Plans a run.

    Args:
        backbone: a name that `pyedge.trainer.backbones` knows, or None for the head alone.
        optimizer: of centres and backbone, "sgd" (with momentum) or "adamw".
        sample_rate: share of its classes that a rank takes in a step.
        precision: "fp32", or "bf16" autocast.
        sync_batch_norm: whether more than one rank share the statistics of BatchNorm.
        keep_logits: whether the logits stay for the backward pass; see `ShardedHead`.

    Raises:
        InvalidArgumentError: a number out of range, or an unknown name.
    """
    _check(classes, dim, ranks, batch_per_rank, optimizer, sample_rate, precision)
    cost = BackboneCost(0, 0, 0, 0, 0, ())
    if backbone is not None:
        synchronized = sync_batch_norm and ranks > 1
        cost = backbone_cost(backbone, dim, precision, synchronized=synchronized)
    states = OPTIMIZER_STATES[optimizer]
    shard = -(-classes // ranks)
    taken = shard if sample_rate == 1.0 else max(int(sample_rate * shard), 1)
    kept = _kept(shard, taken, dim, states, cost)
    step = _step(shard, taken, dim, ranks, batch_per_rank, cost, keep_logits)
    peak = _peak(step, taken < shard, states)
    return Plan(
        options={
            "classes": classes,
            "dim": dim,
            "ranks": ranks,
            "batch_per_rank": batch_per_rank,
            "backbone": backbone,
            "optimizer": optimizer,
            "sample_rate": sample_rate,
            "precision": precision,
            "sync_batch_norm": sync_batch_norm,
            "keep_logits": keep_logits,
        },
        kept=kept,
        step=step,
        peak=sum(kept.values()) + peak,
        wire=wire_bytes(dim, ranks, batch_per_rank, cost),
        flops={
            "head": head_flops(taken, dim, ranks * batch_per_rank, keep_logits),
            "backbone": 3 * cost.forward_flops * batch_per_rank,
        },
    )


def head_flops(taken: int, dim: int, batch: int, keep_logits: bool = True) -> int:
    """The logits x·wᵀ, once or twice, and the gradients p·w and pᵀ·x, at 2·B·r·d each."""
    return (6 if keep_logits else 8) * batch * taken * dim


def wire_bytes(dim: int, ranks: int, batch_per_rank: int, cost: BackboneCost) -> dict[str, int]:
    """What a rank sends in a step, by the names that `Group.traffic` has.

    In a ring, gathering x bytes from each rank sends (W − 1)·x; scattering the sum of x bytes sends
    x·(W − 1)/W; and an all-reduce of x bytes is one after the other, 2·x·(W − 1)/W. So

    - features are 4·b·d·(W − 1), and their gradient, 4·B·d to scatter, is as much;
    - labels are 8·b·(W − 1);
    - row maximum and row sum are each 2·4·B·(W − 1)/W;
    - the loss and the count of right answers are 2·8·(W − 1)/W;
    - the gradient of the backbone is 2·4·P·(W − 1)/W;
    - a BatchNorm of n channels sums mean and variance, 2·2·4·n·(W − 1)/W, and as much backward.

    None of it grows with the classes.
    """
    batch = ranks * batch_per_rank

    def all_reduce(size: int) -> int:
        return 2 * size * (ranks - 1) // ranks

    sent = {
        "features": _FLOAT * batch_per_rank * dim * (ranks - 1),
        "labels": _LABEL * batch_per_rank * (ranks - 1),
        "row maximum": all_reduce(_FLOAT * batch),
        "row sum": all_reduce(_FLOAT * batch),
        "loss": all_reduce(_FLOAT * 2),
        "feature gradient": _FLOAT * batch * dim * (ranks - 1) // ranks,
        "backbone gradient": all_reduce(_FLOAT * cost.parameters),
    }
    if cost.norms:
        pairs = [2 * _FLOAT * channels for channels in cost.norms]
        sent["batch norm"] = sum(pairs) * (ranks - 1)
        sent["batch norm gradient"] = sum(map(all_reduce, pairs))
    return sent


def backbone_cost(
    name: str, dim: int, precision: str = "fp32", size: int = 112, synchronized: bool = False
) -> BackboneCost:
    """Counts what a backbone takes, on tensors that have shapes but no data.

    FLOPs are those of convolutions and linear layers, 2·(numbers out)·(weights for each of them);
    the backward pass computes two products of that size for each, one for the weights and one for
    the input, so a training step takes 3 times this. Activations are the tensors that autograd
    keeps, the parameters themselves left out; they are counted for two and for three images.

    Args:
        synchronized: with statistics of BatchNorm over all ranks, which keeps more in IResNet.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    from pyedge.trainer.backbones import backbone

    with FakeTensorMode():
        network = backbone(name, dim, size).train()
        if synchronized:
            synchronize_batch_norm(network, _Silent())
        two, flops = _forward(network, 2, size, precision)
        three, _ = _forward(network, 3, size, precision)
        parameters = sum(p.numel() for p in network.parameters())
        buffers = sum(b.nbytes for b in network.buffers())
    each = three - two
    layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    norms = tuple(layer.num_features for layer in layers) if synchronized else ()
    return BackboneCost(parameters, buffers, flops // 2, two - 2 * each, each, norms)


def plan_table(plan: Plan) -> Table:
    """The plan as a table of rich."""
    from rich.table import Table

    table = Table(title=_title(plan.options), title_justify="left", header_style="bold", width=80)
    table.add_column("of each rank", ratio=1)
    table.add_column("", justify="right")

    def section(title: str, values: dict[str, int], unit: str, total: str) -> None:
        table.add_section()
        table.add_row(title, "", style="bold")
        for name, value in values.items():
            table.add_row(f"  {name}", quantity(value, unit))
        table.add_row(f"  {total}", quantity(sum(values.values()), unit))

    section("memory kept", plan.kept, "B", "all of it")
    table.add_section()
    table.add_row("memory during a step", "", style="bold")
    for name, value in plan.step.items():
        table.add_row(f"  {name}", quantity(value, "B"))
    table.add_row("  peak, with what is kept", quantity(plan.peak, "B"))
    section("sent in a step", plan.wire, "B", "all of it")
    section("computed in a step", plan.flops, "FLOP", "all of it")
    table.caption = f"Not counted: {plan.left_out}."
    table.caption_justify = "left"
    return table


def quantity(value: float, unit: str) -> str:
    """Three digits or more, with the prefix of a power of 1000."""
    prefixes = ["", "k", "M", "G", "T", "P"]
    while value >= 1000 and len(prefixes) > 1:
        value /= 1000
        prefixes.pop(0)
    return f"{value:.4g} {prefixes[0]}{unit}"


def _title(options: dict[str, Any]) -> str:
    network = options["backbone"] or "no backbone"
    rate = options["sample_rate"]
    taken = "all classes" if rate == 1 else f"{rate:.4g} of the classes"
    logits = "kept" if options["keep_logits"] else "computed twice"
    return (
        f"{options['classes']:,} classes × {options['dim']} on {options['ranks']} ranks, "
        f"{options['batch_per_rank']} images on each, {network}, {options['optimizer']}, "
        f"{options['precision']}, {taken} in a step, logits {logits}"
    )


def _kept(shard: int, taken: int, dim: int, states: int, cost: BackboneCost) -> dict[str, int]:
    """4·c·d for the centres and s times that for their optimizer; 4·P and s times that.

    The gradient of the centres, 4·r·d, takes the memory of the one before it.
    """
    centers, parameters = _FLOAT * shard * dim, _FLOAT * cost.parameters
    return {
        "class centres": centers,
        "their gradient": _FLOAT * taken * dim,
        "their optimizer": states * centers,
        "backbone": parameters + cost.buffer_bytes,
        "its gradients": parameters,
        "its optimizer": states * parameters,
    }


def _step(
    shard: int,
    taken: int,
    dim: int,
    ranks: int,
    batch: int,
    cost: BackboneCost,
    keep_logits: bool,
) -> dict[str, int]:
    """What a step needs beside that.

    - Logits are 4·B·r, where they are kept, and 4·B·k, of a block of k classes, elsewhere.
    - Features are 4·d·(6·B + b): a rank's own; those of all, as they are, scaled, and scaled by the
      factor of each row; the gradient of a block of classes, and its sum in float64.
    - Where only a part of the classes is taken, their centres are copied, 4·r·d.
    - The gradients of the backbone are laid in one row, 4·P, to be summed.
    """
    block = min(taken, BLOCK)
    return {
        "activations": cost.activation_base + cost.activation_bytes * batch,
        "logits": _FLOAT * ranks * batch * (taken if keep_logits else block),
        "features": _FLOAT * dim * (6 * ranks * batch + batch),
        "centres taken": _FLOAT * taken * dim * (taken < shard),
        "a block of centres": _FLOAT * block * dim,
        "backbone gradients in a row": _FLOAT * cost.parameters * (ranks > 1),
    }


def _peak(step: dict[str, int], sampled: bool, states: int) -> int:
    """The most of it at one time: in the head's backward pass, in the update, or between the two.

    Both work on blocks of centres: the update on their state where they were sampled, and on
    AdamW's denominators.
    """
    block = step["a block of centres"]
    backward = step["activations"] + step["features"] + step["logits"] + block
    update = block * (states * sampled + (states == 2))
    return step["centres taken"] + max(backward, update, step["backbone gradients in a row"])


class _Silent(Group):
    """Two ranks, as far as a network can tell, which exchange nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.world_size = 2

    def all_gather(self, x: torch.Tensor, name: str = "other") -> torch.Tensor:
        return torch.cat([x, x])

    def all_sum(self, x: torch.Tensor, name: str = "other") -> torch.Tensor:
        return x


def _forward(network: nn.Module, images: int, size: int, precision: str) -> tuple[int, int]:
    """Bytes that autograd keeps, and FLOPs, of a forward pass."""
    own = {t.untyped_storage()._cdata for t in (*network.parameters(), *network.buffers())}
    kept: dict[int, Any] = {}
    flops = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    def count(layer: nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal flops
        flops += 2 * output.numel() * layer.weight[0].numel()

    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        network(torch.zeros(images, 3, size, size))
    for hook in hooks:
        hook.remove()
    return sum(storage.nbytes() for storage in kept.values()), flops


def _check(
    classes: int,
    dim: int,
    ranks: int,
    batch: int,
    optimizer: str,
    sample_rate: float,
    precision: str,
) -> None:
    counts = {"classes": classes, "dim": dim, "ranks": ranks, "batch_per_rank": batch}
    for name, value in counts.items():
        if value < 1:
            raise InvalidArgumentError(f"{name} is {value}; expected 1 or more")
    if optimizer not in OPTIMIZER_STATES:
        expected = " or ".join(OPTIMIZER_STATES)
        raise InvalidArgumentError(f"optimizer is {optimizer!r}; expected {expected}")
    if precision not in PRECISIONS:
        raise InvalidArgumentError(f"precision is {precision!r}; expected fp32 or bf16")
    if not 0.0 < sample_rate <= 1.0:
        raise InvalidArgumentError(f"sample_rate is {sample_rate}; expected in (0, 1]")
