"""The planner's formulas against what small runs hold, send and compute; the log and its curve."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranks import run_ranks
from rich.console import Console
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from pyedge.errors import InvalidArgumentError
from pyedge.images import load_image
from pyedge.trainer import ArcFace, Group, RowAdamW, RowSGD, ShardedHead
from pyedge.trainer.backbones import backbone
from pyedge.trainer.blocks import BLOCK
from pyedge.trainer.curve import LogEntry, draw_curve, read_log
from pyedge.trainer.plan import (
    BackboneCost,
    Plan,
    backbone_cost,
    head_flops,
    plan,
    plan_table,
    quantity,
    wire_bytes,
)
from pyedge.trainer.sync_batch_norm import synchronize_batch_norm

CLASSES, DIM, BATCH = 3 * BLOCK + 1, 64, 8  # of each rank
HEAD = {"features", "labels", "row maximum", "row sum", "loss", "feature gradient"}
COST = BackboneCost(1234, 0, 0, 0, 0, (16, 7))


class Live(TorchDispatchMode):
    """Follows which storages live.

    Attributes:
        peak: the most bytes that lived after an operation.
        most: for each size in bytes, the most storages of it that lived at one time.
    """

    def __init__(self, *tensors: torch.Tensor) -> None:
        super().__init__()
        self.sizes: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak, self.most = 0, Counter[int]()
        self.note(tensors)

    def note(self, values: Any) -> None:
        for tensor in tree_leaves(values):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.sizes[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.sizes = {key: one for key, one in self.sizes.items() if not one[0].expired()}
        live = Counter(size for _, size in self.sizes.values())
        self.peak = max(self.peak, sum(live.elements()))
        self.most |= live

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.note(result)
        return result


def head_step(optimizer: str, sample_rate: float, keep_logits: bool) -> dict[str, Any]:
    """One step of the head on this rank: what it held, sent and computed."""
    head = ShardedHead(CLASSES, DIM, ArcFace(), sample_rate=sample_rate, keep_logits=keep_logits)
    rows = {"sgd": RowSGD, "adamw": RowAdamW}[optimizer](head, 0.1)
    generator = torch.Generator().manual_seed(head.group.rank)
    features = torch.randn(BATCH, DIM, generator=generator, requires_grad=True)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)
    with Live(head.centers, *rows.state.values()) as live, FlopCounterMode(display=False) as flops:
        loss = head(features, labels)
        loss.backward()
        _, leaf = head.rows()
        gradient = leaf.grad.nbytes
        del loss
        rows.step()
    return {
        "class centres": head.centers.nbytes,
        "their optimizer": sum(state.nbytes for state in rows.state.values()),
        "their gradient": gradient,
        "peak": live.peak,
        "most": live.most,
        "flops": flops.get_total_flops(),
        "traffic": dict(head.group.traffic),
    }


@pytest.mark.parametrize("keep_logits", [True, False])
@pytest.mark.parametrize("sample_rate", [1.0, 0.75])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_head_matches_its_formulas(optimizer: str, sample_rate: float, keep_logits: bool) -> None:
    planned = plan(CLASSES, DIM, 2, BATCH, None, optimizer, sample_rate, keep_logits=keep_logits)
    measured = run_ranks(2, head_step, optimizer, sample_rate, keep_logits)[0]  # the larger shard
    for name in ("class centres", "their gradient", "their optimizer"):
        assert measured[name] == planned.kept[name]
    logits = plan(CLASSES, DIM, 2, BATCH, None, optimizer, sample_rate).step["logits"]
    assert measured["most"][logits] == keep_logits, "logits exist once, or never"
    print(f"peak {measured['peak']} bytes, planned {planned.peak}")
    # The rest is numbers of which a class or a row has one.
    assert planned.peak <= measured["peak"] <= 1.03 * planned.peak
    assert measured["flops"] == planned.flops["head"]
    assert measured["traffic"] == {k: v for k, v in planned.wire.items() if k in HEAD}


def exchange_gradients() -> int:
    group = Group()
    group.all_sum(torch.zeros(1234), "backbone gradient")
    return group.traffic["backbone gradient"]


def keeping(network: nn.Module, images: torch.Tensor) -> tuple[int, torch.Tensor]:
    """Bytes that autograd keeps of a forward pass, and its result."""
    kept: dict[int, torch.UntypedStorage] = {}
    own = {tensor.untyped_storage().data_ptr() for tensor in network.state_dict().values()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        features = network(images)
    return sum(storage.nbytes() for storage in kept.values()), features


def network_step() -> dict[str, Any]:
    """One step of a backbone with statistics of all ranks: what it kept for backward, and sent."""
    group = Group()
    network = synchronize_batch_norm(backbone("mobilefacenet", 32, 32).train(), group)
    kept, features = keeping(network, torch.zeros(3, 3, 32, 32))
    features.sum().backward()
    return {"kept": kept, "traffic": dict(group.traffic)}


def test_synchronized_backbone_matches_its_formulas() -> None:
    cost = backbone_cost("mobilefacenet", 32, size=32, synchronized=True)
    measured = run_ranks(2, network_step)[0]
    assert measured["kept"] == cost.activation_base + 3 * cost.activation_bytes
    wire = wire_bytes(32, 2, 3, cost)
    assert measured["traffic"] == {k: v for k, v in wire.items() if k.startswith("batch norm")}


def test_wire() -> None:
    assert run_ranks(2, exchange_gradients) == [wire_bytes(8, 2, 2, COST)["backbone gradient"]] * 2
    assert not any(wire_bytes(8, 1, 2, COST).values()), "one rank sends nothing"
    few, many = plan(1000, 128, 4, backbone=None), plan(100_000_000, 128, 4, backbone=None)
    assert few.wire == many.wire, "nothing grows with the classes"


@pytest.mark.parametrize("name", ["mobilefacenet", "mbf", "iresnet18"])
def test_backbone_matches_a_run(name: str) -> None:
    cost, images, size = backbone_cost(name, 32, size=48), 5, 48
    network = backbone(name, 32, size).train()
    with FlopCounterMode(display=False) as flops:
        held, _ = keeping(network, torch.zeros(images, 3, size, size))
    assert held == pytest.approx(cost.activation_base + images * cost.activation_bytes, rel=1e-6)
    assert cost.parameters == sum(p.numel() for p in network.parameters())
    assert flops.get_total_flops() == images * cost.forward_flops


def test_a_whole_step_matches() -> None:
    images, classes, dim = 2, 5000, 128
    planned = plan(classes, dim, 1, images, "iresnet18", "sgd")
    network, head = backbone("iresnet18", dim).train(), ShardedHead(classes, dim, ArcFace())
    rows = RowSGD(head, 0.1)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # its state is there from the first step on
    kept = [
        *(head.centers, *rows.state.values(), *network.state_dict().values()),
        *(parameter.grad for parameter in network.parameters()),
        *(state["momentum_buffer"] for state in optimizer.state.values()),
    ]
    held = sum(planned.kept.values()) - planned.kept["their gradient"]  # after the first step
    assert sum(tensor.nbytes for tensor in kept) == held
    batch, labels = torch.randn(images, 3, 112, 112), torch.arange(images)
    with Live(*kept) as live, FlopCounterMode(display=False) as flops:
        loss = head(network(batch), labels)
        loss.backward()
        rows.step()
        optimizer.step()
    print(f"peak {live.peak} bytes, planned {planned.peak}")
    assert planned.peak == pytest.approx(live.peak, rel=0.05)
    assert sum(planned.flops.values()) == pytest.approx(flops.get_total_flops(), rel=0.01)


def test_precision_changes_activations_alone() -> None:
    full, half = (plan(1000, 64, 2, 8, "iresnet18", precision=p) for p in ("fp32", "bf16"))
    assert half.step["activations"] < full.step["activations"]
    assert {**half.step, "activations": 0} == {**full.step, "activations": 0}
    assert (half.kept, half.wire, half.flops) == (full.kept, full.wire, full.flops)


def test_plan_of_the_size_that_nobody_has() -> None:
    planned = plan(100_000_000, 128, 100, backbone=None)
    assert planned.kept["class centres"] == 10**6 * 128 * 4
    assert planned.step["logits"] == 6400 * 10**6 * 4
    assert planned.flops["head"] == head_flops(10**6, 128, 6400) == 6 * 6400 * 10**6 * 128
    lean = plan(100_000_000, 128, 100, backbone=None, keep_logits=False)
    assert lean.step["logits"] == 6400 * BLOCK * 4
    assert planned.peak - lean.peak == planned.step["logits"] - lean.step["logits"]
    assert lean.flops["head"] == planned.flops["head"] * 4 // 3
    document = json.loads(json.dumps(planned.to_dict()))
    assert document["options"]["classes"] == 100_000_000
    assert document["wire_total"] == sum(planned.wire.values())


def test_table() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    planned: Plan = plan(100_000_000, 128, 100)
    console.print(plan_table(planned))
    text = console.export_text()
    for number in ("512 MB", "25.6 GB", "4.915 TFLOP", "100,000,000 classes × 128 on 100 ranks"):
        assert number in text
    assert quantity(999, "B") == "999 B"
    assert quantity(2.5e18, "B") == "2500 PB"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 0}, "classes is 0"),
        ({"dim": 0}, "dim is 0"),
        ({"ranks": -1}, "ranks is -1"),
        ({"optimizer": "lion"}, "expected sgd or adamw"),
        ({"precision": "int8"}, "expected fp32 or bf16"),
        ({"sample_rate": 0.0}, r"expected in \(0, 1\]"),
        ({"backbone": "vgg"}, "backbone is 'vgg'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        plan(**{"classes": 10, "dim": 4, **options})


def entry(step: int, loss: float = 1.0) -> LogEntry:
    return LogEntry(step, step // 10, loss, 0.5, 0.1, 100.0, float(step))


def line(of: LogEntry) -> str:
    return json.dumps(asdict(of)) + "\n"


def test_log_is_read_back(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    entries = [entry(step, 5 / step) for step in range(1, 30)]
    log.write_text("".join(line(e) for e in entries))
    assert read_log(log) == entries
    with log.open("a") as file:  # resumed from step 20, then killed within a line
        file.write(line(entry(21, 7.0)) + line(entry(22, 8.0)) + line(entry(23))[:20])
    assert read_log(log) == [*entries[:20], entry(21, 7.0), entry(22, 8.0)]
    log.write_text(line(entry(1, math.nan)))
    assert math.isnan(read_log(log)[0].loss)


@pytest.mark.parametrize("bad", ["", "{", "[1]", '{"step": 1}', line(entry(1))[:-2] + "x}"])
def test_log_names_a_bad_line(tmp_path: Path, bad: str) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(line(entry(1)) + bad + "\n")
    with pytest.raises(InvalidArgumentError, match=r"log\.jsonl: line 2"):
        read_log(log)


def test_log_with_a_text_for_a_number(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(line(entry(1)).replace("1.0", '"1.0"', 1))
    with pytest.raises(InvalidArgumentError, match=r"loss is '1\.0'; expected"):
        read_log(log)


def test_curve(tmp_path: Path) -> None:
    picture = tmp_path / "curve.png"
    draw_curve([entry(1)], picture)
    first = load_image(picture)
    draw_curve([entry(step, math.nan if step == 5 else 3 / step) for step in range(1, 40)], picture)
    second = load_image(picture)
    assert first.shape == second.shape == (800, 800, 3)
    assert not np.array_equal(first, second)
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]
    with pytest.raises(InvalidArgumentError, match="no steps to draw"):
        draw_curve([], picture)
