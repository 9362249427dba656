"""`pyedge bench`: how fast a model runs here, layer by layer, and how near to the CPU's best."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from pyedge.cli.bench_report import (
    NEAR_ROOFLINE,
    bench_html,
    bench_svg,
    print_bench,
    print_comparison,
)
from pyedge.cli.output import (
    AffinityOption,
    CacheOption,
    IsaOption,
    JsonOption,
    ThreadsOption,
    console,
    print_json,
    progress,
    quantity,
    to_json,
)
from pyedge.cli.roofline import Roofline
from pyedge.cli.shapes import MAX_BATCH, SizeOption, input_shapes, random_inputs
from pyedge.errors import InvalidArgumentError
from pyedge.files import write_atomically

_WARM_UP = 3
_MEMORY = (
    "arena_bytes",
    "scratch_bytes",
    "packed_bytes",
    "mapped_bytes",
    "model_bytes",
    "cache_problem",
)
_REPORTS = (".html", ".svg", ".json")


def bench(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.pye", help="A converted model; or the .json of an earlier bench."
        ),
    ],
    threads: ThreadsOption = 1,
    isa: IsaOption = None,
    affinity: AffinityOption = "all",
    cache: CacheOption = None,
    repeats: Annotated[int, typer.Option("--repeats", "-r", min=1, help="Runs measured.")] = 30,
    batch: Annotated[
        int, typer.Option("--batch", "-b", min=1, max=MAX_BATCH, help="Images in a batch.")
    ] = 1,
    size: SizeOption = None,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="An earlier bench to draw side by side."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write .html, .svg (the picture alone) or .json."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model: whole network and each layer, speed and share of this CPU's best.

    The CPU's best is measured here, too, on as many threads: multiply-adds on registers only
    (the peak; a multiply-add counts as two operations), and reading memory. The roofline of a
    layer is whichever of the two takes it longer. Layers are timed in runs of their own, so that
    the clock does not slow the whole network down.
    """
    if report is not None and report.suffix not in _REPORTS:
        raise InvalidArgumentError(f"{report}: a report is .html, .svg or .json")
    earlier = None if compare is None else load_bench(compare)
    if model.suffix == ".json":
        result = load_bench(model)
    else:
        import pyedge

        start = time.perf_counter()
        session = pyedge.Session(str(model), threads, isa, affinity=affinity, cache=cache)
        session.prepare(input_shapes(session, batch, size))
        load_seconds = time.perf_counter() - start
        result = {
            "model": str(model),
            "cpu": pyedge.features()["cpu"],
            "load_seconds": load_seconds,
            **measure(session, batch=batch, size=size, repeats=repeats),
        }
    if report is not None:
        _write(report, result, earlier)
    if as_json:
        print_json(result if earlier is None else {**result, "compared_with": earlier})
    elif earlier is None:
        print_bench(console(), result)
        _print_start(console(), result["load_seconds"], result["memory"])
    else:
        print_comparison(console(), earlier, result)


def load_bench(path: Path) -> dict[str, Any]:
    """What an earlier `pyedge bench` wrote.

    Raises:
        InvalidArgumentError: the file is something else.
        OSError: it cannot be read.
    """
    try:
        result = json.loads(path.read_bytes())
    except ValueError:
        result = None
    known = isinstance(result, dict) and "share_of_time_near_roofline" in result
    if not known or not all("share_of_roofline" in layer for layer in result["layers"]):
        raise InvalidArgumentError(
            f"{path}: not written by this version's `pyedge bench --json` or `--report`"
        )
    return result


def measure(session: Any, *, batch: int, size: str | None, repeats: int) -> dict[str, Any]:
    """Everything `pyedge bench` shows, as plain data; seconds are per batch."""
    shapes = input_shapes(session, batch, size)
    inputs = random_inputs(shapes)
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
    description = session.describe(shapes)
    model_bytes = description["packed_bytes"] + description["arena_bytes"]
    roofline = Roofline.measure(session.isa, session.threads, model_bytes)
    rows = [
        _layer(layer, float(s), roofline)
        for layer, s in zip(description["layers"], layer_seconds, strict=True)
    ]
    median = float(np.median(seconds))
    total = sum(row["seconds"] for row in rows)
    near = sum(row["seconds"] for row in rows if row["share_of_roofline"] >= NEAR_ROOFLINE)
    # The least time the multiply-adds could take, each at the peak of its type.
    compute = sum(row["gop"] / roofline.peak_gops[row["dtype"]] for row in rows)
    floor = sum(row["floor_seconds"] for row in rows)
    return {
        "isa": session.isa,
        "threads": session.threads,
        "input_shapes": shapes,
        "repeats": repeats,
        "median_seconds": median,
        "min_seconds": min(seconds),
        "gops": sum(row["gop"] for row in rows) / median,
        "peak_gops": roofline.peak_gops,
        "bandwidth_gbs": roofline.bandwidth_gbs,
        "share_of_peak": compute / median,
        "floor_seconds": floor,
        "share_of_roofline": floor / median,
        "share_of_time_near_roofline": near / total if total > 0 else 0.0,
        "memory": {name: description[name] for name in _MEMORY},
        "layers": rows,
    }


def _layer(layer: dict[str, Any], seconds: float, roofline: Roofline) -> dict[str, Any]:
    gop = 2e-9 * layer["macs"]
    dtype = layer["inputs"][0]["dtype"]
    speed = gop / seconds if seconds > 0 else 0.0
    floor = roofline.floor(layer)
    return {
        "name": layer["name"],
        "op": layer["op"],
        "kernel": layer["kernel"],
        "dtype": dtype,
        "seconds": seconds,
        "gop": gop,
        "gops": speed,
        "share_of_peak": speed / roofline.peak_gops[dtype],
        "bytes": floor.bytes,
        "floor_seconds": floor.seconds,
        "bound": floor.bound,
        "share_of_roofline": floor.seconds / seconds if seconds > 0 else 0.0,
    }


def _print_start(out: Console, load_seconds: float, memory: dict[str, Any]) -> None:
    sizes = {name.removesuffix("_bytes"): memory[name] for name in _MEMORY[:-1]}
    packed = quantity(sizes["packed"], "B")
    if sizes["mapped"]:
        packed += f" ({quantity(sizes['mapped'], 'B')} from the cache)"
    out.print(
        f"loaded and packed in {1e3 * load_seconds:.2f} ms; memory: activations "
        f"{quantity(sizes['arena'], 'B')}, packed weights {packed}, rest "
        f"of the model {quantity(sizes['model'], 'B')}, scratch "
        f"{quantity(sizes['scratch'], 'B')}"
    )
    if memory["cache_problem"]:
        out.print(f"the cache could not be written: {memory['cache_problem']}")


def _write(path: Path, result: dict[str, Any], earlier: dict[str, Any] | None) -> None:
    if path.suffix == ".html":
        text = bench_html(result, earlier)
    elif path.suffix == ".svg":
        text = bench_svg(result["layers"], None if earlier is None else earlier["layers"])
    else:
        text = json.dumps(to_json(result), indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode())
