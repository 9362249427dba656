"""`pyedge inspect`: what is in a model file, and what runs it here."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from pyedge.cli.output import (
    IsaOption,
    JsonOption,
    ModelArgument,
    console,
    print_json,
    quantity,
    table,
)
from pyedge.cli.shapes import MAX_BATCH, SizeOption, input_shapes


def inspect(
    model: ModelArgument,
    size: SizeOption = None,
    batch: Annotated[int, typer.Option(min=1, max=MAX_BATCH, help="Images in a batch.")] = 1,
    isa: IsaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is in a model: metadata, layers, types, shapes, bytes and multiply-adds.

    The kernels shown are those that this CPU would use.
    """
    import pyedge

    session = pyedge.Session(str(model), isa=isa)
    report = session.describe(input_shapes(session, batch, size))
    report["metadata"] = vars(session.metadata)
    if as_json:
        print_json(report)
    else:
        _render(console(), report)


def _tensor(info: dict[str, Any]) -> str:
    shape = "×".join(str(dim) for dim in info["shape"])
    return f"{info['dtype']} {shape}"


def _render(out: Console, report: dict[str, Any]) -> None:
    rows = [
        [
            layer["name"],
            layer["op"],
            layer["kernel"] or "(no work)",
            "\n".join(map(_tensor, layer["inputs"])),
            "\n".join(map(_tensor, layer["outputs"])),
            quantity(layer["weight_bytes"], "B") if layer["weight_bytes"] else "",
            quantity(layer["macs"]) if layer["macs"] else "",
        ]
        for layer in report["layers"]
    ]
    columns = ["layer", "operation", "kernel", "in", "out", "weights", "MACs"]
    out.print(table("Layers", columns, rows, left=5))
    out.print(table("Model", ["", ""], _facts(report), left=2))


def _facts(report: dict[str, Any]) -> list[list[str]]:
    metadata = report["metadata"]
    facts = [
        ["name", metadata["model_name"]],
        ["feature space", metadata["feature_space"]],
        ["made by", metadata["producer"]],
        ["SHA-256", report["sha256"]],
    ]
    for kind in ("inputs", "outputs"):
        for info in report[kind]:
            facts.append([kind.removesuffix("s"), f"{info['name']}: float32 {info['shape']}"])
    if metadata["color"] != "none":
        width, height = metadata["input_size"]
        facts.append(["pixels", f"{metadata['color'].upper()}, {width}x{height}"])
        facts.append(["mean", " ".join(f"{value:g}" for value in metadata["mean"])])
        facts.append(["scale", " ".join(f"{value:g}" for value in metadata["scale"])])
    if metadata["embedding_size"]:
        facts.append(["embedding", f"{metadata['embedding_size']} values"])
    layers = report["layers"]
    int8 = sum(any(i["dtype"] == "i8" for i in layer["inputs"]) for layer in layers)
    facts += [
        ["layers", f"{len(layers)}, {int8} of them INT8"],
        ["MACs", quantity(report["macs"])],
        ["file", quantity(report["file_bytes"], "B")],
        ["weights", quantity(sum(layer["weight_bytes"] for layer in layers), "B")],
        ["packed weights in memory", quantity(report["packed_bytes"], "B")],
        ["rest of the model in memory", quantity(report["model_bytes"], "B")],
        ["activations in memory", quantity(report["arena_bytes"], "B")],
        ["scratch in memory", quantity(report["scratch_bytes"], "B")],
        ["runs on", report["isa"]],
    ]
    return [fact for fact in facts if fact[1]]
