"""`pyedge bench`: how fast a model runs here, layer by layer, and how near to the CPU's best."""

from __future__ import annotations

import time
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from pyedge.cli.output import (
    AffinityOption,
    CacheOption,
    IsaOption,
    JsonOption,
    ModelArgument,
    ThreadsOption,
    console,
    print_json,
    progress,
    quantity,
    table,
)
from pyedge.cli.shapes import MAX_BATCH, SizeOption, input_shapes, random_inputs

_WARM_UP = 3
_MEMORY = (
    "arena_bytes",
    "scratch_bytes",
    "packed_bytes",
    "mapped_bytes",
    "model_bytes",
    "cache_problem",
)


def bench(
    model: ModelArgument,
    threads: ThreadsOption = 1,
    isa: IsaOption = None,
    affinity: AffinityOption = "all",
    cache: CacheOption = None,
    repeats: Annotated[int, typer.Option("--repeats", "-r", min=1, help="Runs measured.")] = 30,
    batch: Annotated[
        int, typer.Option("--batch", "-b", min=1, max=MAX_BATCH, help="Images in a batch.")
    ] = 1,
    size: SizeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model: whole network and each layer, speed and share of this CPU's peak.

    The peak is measured here, too: multiply-adds on registers only, on as many threads. A
    multiply-add counts as two operations. Layers are timed in runs of their own, so that the
    clock does not slow the whole network down.
    """
    import pyedge

    start = time.perf_counter()
    session = pyedge.Session(str(model), threads, isa, affinity=affinity, cache=cache)
    session.prepare(input_shapes(session, batch, size))
    load_seconds = time.perf_counter() - start
    report = measure(session, batch=batch, size=size, repeats=repeats)
    if as_json:
        print_json({"model": str(model), "load_seconds": load_seconds, **report})
    else:
        _render(console(), str(model), report)
        _render_start(console(), load_seconds, report["memory"])


def measure(session: Any, *, batch: int, size: str | None, repeats: int) -> dict[str, Any]:
    """Everything `pyedge bench` shows, as plain data; seconds are per batch."""
    from pyedge import _core

    shapes = input_shapes(session, batch, size)
    inputs = random_inputs(shapes)
    description = session.describe(shapes)
    layers = description["layers"]
    seconds = []
    with progress() as advance:
        for _ in range(_WARM_UP):
            session.run(inputs)
        for count in range(1, repeats + 1):
            start = time.perf_counter()
            session.run(inputs)
            seconds.append(time.perf_counter() - start)
            advance("measuring", count, repeats)
    layer_seconds = np.median(session.profile(inputs, repeats), axis=0)
    one_thread = _core.measure_peak(session.isa)
    peak = {
        "f32": one_thread["f32_gflops"] * session.threads,
        "i8": one_thread["i8_gops"] * session.threads,
    }
    rows = [_layer(layer, float(s), peak) for layer, s in zip(layers, layer_seconds, strict=True)]
    median = float(np.median(seconds))
    # The least time the multiply-adds could take, each at the peak of its type.
    floor = sum(row["gop"] / peak[row["dtype"]] for row in rows)
    return {
        "isa": session.isa,
        "threads": session.threads,
        "input_shapes": shapes,
        "repeats": repeats,
        "median_seconds": median,
        "min_seconds": min(seconds),
        "gops": sum(row["gop"] for row in rows) / median,
        "peak_gops": peak,
        "share_of_peak": floor / median,
        "memory": {name: description[name] for name in _MEMORY},
        "layers": rows,
    }


def _layer(layer: dict[str, Any], seconds: float, peak: dict[str, float]) -> dict[str, Any]:
    gop = 2e-9 * layer["macs"]
    dtype = layer["inputs"][0]["dtype"]
    speed = gop / seconds if seconds > 0 else 0.0
    return {
        "name": layer["name"],
        "op": layer["op"],
        "kernel": layer["kernel"],
        "dtype": dtype,
        "seconds": seconds,
        "gop": gop,
        "gops": speed,
        "share_of_peak": speed / peak[dtype],
    }


def _render(out: Console, model: str, report: dict[str, Any]) -> None:
    total = sum(layer["seconds"] for layer in report["layers"]) or 1.0
    rows = [
        [
            layer["name"],
            layer["kernel"] or "(no work)",
            f"{1e3 * layer['seconds']:.3f}",
            f"{100 * layer['seconds'] / total:.1f} %",
            f"{layer['gops']:.1f}" if layer["gop"] else "",
            f"{100 * layer['share_of_peak']:.0f} %" if layer["gop"] else "",
        ]
        for layer in report["layers"]
    ]
    columns = ["layer", "kernel", "ms", "of the time", "GOPS", "of the peak"]
    out.print(table("Layers", columns, rows, left=2))
    shapes = ", ".join("×".join(map(str, shape)) for shape in report["input_shapes"])
    peak = report["peak_gops"]
    plural = "" if report["threads"] == 1 else "s"
    out.print(
        f"{model}, input {shapes}, {report['threads']} thread{plural}, {report['isa']}",
        style="bold",
    )
    out.print(
        f"median {1e3 * report['median_seconds']:.2f} ms, "
        f"fastest {1e3 * report['min_seconds']:.2f} ms, of {report['repeats']} runs\n"
        f"{report['gops']:.1f} GOPS: {100 * report['share_of_peak']:.0f} % of what this CPU "
        f"reaches on registers (f32 {peak['f32']:.0f} GFLOPS, i8 {peak['i8']:.0f} GOPS)"
    )


def _render_start(out: Console, load_seconds: float, memory: dict[str, Any]) -> None:
    sizes = {name.removesuffix("_bytes"): memory[name] for name in _MEMORY[:-1]}
    packed = "of the packed ones from the cache" if sizes["mapped"] else "none from a cache"
    out.print(
        f"loaded and packed in {1e3 * load_seconds:.2f} ms; memory: activations "
        f"{quantity(sizes['arena'], 'B')}, packed weights {quantity(sizes['packed'], 'B')} "
        f"({quantity(sizes['mapped'], 'B')} {packed}), rest of the model "
        f"{quantity(sizes['model'], 'B')}, scratch {quantity(sizes['scratch'], 'B')}"
    )
    if memory["cache_problem"]:
        out.print(f"the cache could not be written: {memory['cache_problem']}")
