"""A bench, or two side by side: as tables with bars, as an HTML page, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from rich.console import Console
from rich.text import Text

from pyedge.cli.output import table
from pyedge.cli.page import facts, html_page, short, svg_file

_BAR_LETTERS = 24
NEAR_ROOFLINE = 0.4  # a layer's share that counts as near to what the CPU could do
_ROW, _LEFT, _WIDTH, _RIGHT = 18, 300, 940, 130


def print_bench(out: Console, result: dict[str, Any]) -> None:
    """Every layer, then the whole network."""
    layers = result["layers"]
    total = sum(layer["seconds"] for layer in layers) or 1.0
    longest = max((layer["seconds"] for layer in layers), default=0.0)
    rows = [
        [
            layer["name"],
            layer["kernel"] or "(no work)",
            Text(_bar(layer["seconds"], longest), style=_color(layer)),
            f"{1e3 * layer['seconds']:.3f}",
            f"{100 * layer['seconds'] / total:.1f} %",
            f"{layer['gops']:.1f}" if layer["gop"] else "",
            f"{100 * layer['share_of_peak']:.0f} %" if layer["gop"] else "",
            f"{100 * layer['share_of_roofline']:.0f} %" if layer["kernel"] else "",
            layer["bound"] if layer["kernel"] else "",
        ]
        for layer in layers
    ]
    columns = ["layer", "kernel", "", "ms", "of the time", "GOPS", "of the peak", "of the roofline"]
    out.print(table("Layers", [*columns, "bound by"], rows, left=3))
    out.print(_title(result), style="bold")
    out.print(_summary(result))


def print_comparison(out: Console, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Every layer of either, with the time in both as bars, then both networks."""
    pairs = pair_layers(before["layers"], after["layers"])
    longest = max((layer["seconds"] for pair in pairs for layer in pair if layer), default=0.0)
    rows: list[list[str | Text]] = []
    for pair in pairs:
        name = next(layer["name"] for layer in pair if layer)
        bars = Text("\n").join(
            Text(_bar(layer["seconds"], longest), style=_color(layer)) if layer else Text()
            for layer in pair
        )
        rows.append(
            [
                name,
                "\n".join((layer["kernel"] or "(no work)") if layer else "–" for layer in pair),
                bars,
                "\n".join(f"{1e3 * layer['seconds']:.3f}" if layer else "" for layer in pair),
                "\n".join(
                    f"{100 * layer['share_of_roofline']:.0f} %" if layer else "" for layer in pair
                ),
                _faster(*pair),
            ]
        )
    columns = ["layer", "kernel", "", "ms", "of the roofline", "faster"]
    out.print(table("Layers, the earlier bench above", columns, rows, left=3))
    for result in (before, after):
        out.print(_title(result), style="bold")
        out.print(_summary(result))
    ratio = before["median_seconds"] / after["median_seconds"]
    out.print(f"{ratio:.2f} times as fast as the earlier", style="bold")


def pair_layers(
    before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]
) -> list[tuple[dict[str, Any] | None, dict[str, Any] | None]]:
    """Layers of the same name and operation, in the order of `after`; the others alone.

    A layer that only `before` has stands behind the one that it follows there.
    """
    later = {(layer["name"], layer["op"]): layer for layer in after}
    earlier = {(layer["name"], layer["op"]): layer for layer in before}
    pairs: list[tuple[dict[str, Any] | None, dict[str, Any] | None]] = []
    pairs += [(earlier.get(key), layer) for key, layer in later.items()]
    place = 0
    for key, layer in earlier.items():
        if key in later:
            place = next(i for i, (first, _) in enumerate(pairs) if first is layer) + 1
        else:
            pairs.insert(place, (layer, None))
            place += 1
    return pairs


def bench_html(result: dict[str, Any], earlier: dict[str, Any] | None = None) -> str:
    """The whole page; with `earlier` the layers of both, the earlier above."""
    values: list[tuple[str, object]] = [
        ("median", f"{1e3 * result['median_seconds']:.2f} ms"),
        ("floor: peak or bandwidth", f"{1e3 * result['floor_seconds']:.2f} ms"),
        ("GOPS", f"{result['gops']:.0f}"),
        ("time in layers near the roofline", f"{result['share_of_time_near_roofline']:.0%}"),
        ("instruction set", result["isa"]),
        ("threads", result["threads"]),
    ]
    note = (
        "Time of each layer in the order of execution. The dark part is the least that this CPU "
        "needs: multiply-adds at its peak, or bytes at its bandwidth, whichever takes longer. "
        "Layers under 40 % of that are marked."
    )
    if earlier is not None:
        ratio = earlier["median_seconds"] / result["median_seconds"]
        values.insert(1, ("earlier", f"{1e3 * earlier['median_seconds']:.2f} ms"))
        values.insert(2, ("times as fast", f"{ratio:.2f}"))
        note += f" Above each: {escape(_title(earlier))}."
    parts = [
        f"<h1>{short(result['model'])}</h1>",
        f'<p class="note">{short(str(result["cpu"]))}</p>',
        facts(values),
        "<h2>Layers</h2>",
        f'<p class="note">{note}</p>',
        _layers_svg(result["layers"], None if earlier is None else earlier["layers"]),
    ]
    return html_page(f"{result['model']}: speed", parts)


def bench_svg(
    layers: Sequence[dict[str, Any]], earlier: Sequence[dict[str, Any]] | None = None
) -> str:
    """The picture of the page as a file of its own."""
    return svg_file(_layers_svg(layers, earlier))


def _layers_svg(layers: Sequence[dict[str, Any]], earlier: Sequence[dict[str, Any]] | None) -> str:
    """A horizontal bar for each layer, or two; the floor within each."""
    pairs = pair_layers(earlier, layers) if earlier is not None else [(a,) for a in layers]
    shown = [[layer for layer in pair if layer is not None] for pair in pairs]
    shown = [pair for pair in shown if any(layer["kernel"] for layer in pair)]
    longest = max((layer["seconds"] for pair in shown for layer in pair), default=0.0) or 1.0
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    thickness = _ROW - 5 if earlier is None else _ROW - 9
    lines, y = [], 2.0
    for pair in shown:
        lines.append(
            f'<text x="{_LEFT - 8}" y="{y + 11:.1f}" text-anchor="end">'
            f"{short(pair[0]['name'])}</text>"
        )
        for layer in pair:
            lines.append(_layer_bar(layer, y, thickness, scale))
            y += thickness + 1
        y += 4
    return (
        f'<svg viewBox="0 0 {_WIDTH} {y + 4:.0f}" role="img" aria-label="Time of each layer">'
        + "".join(lines)
        + "</svg>"
    )


def _layer_bar(layer: dict[str, Any], y: float, thickness: int, scale: float) -> str:
    length = layer["seconds"] * scale
    floor = min(layer["floor_seconds"], layer["seconds"]) * scale
    kind = "bar" if layer["share_of_roofline"] >= NEAR_ROOFLINE else "weak"
    text = f"{1e3 * layer['seconds']:.3f} ms, {layer['share_of_roofline']:.0%}"
    return (
        f'<rect class="rest" x="{_LEFT}" y="{y:.1f}" width="{length:.1f}" height="{thickness}"/>'
        f'<rect class="{kind}" x="{_LEFT}" y="{y:.1f}" width="{floor:.1f}" height="{thickness}"/>'
        f'<text class="soft" x="{_LEFT + length + 6:.1f}" y="{y + thickness / 2 + 4:.1f}">'
        f"{text}</text>"
    )


def _bar(seconds: float, longest: float) -> str:
    eighths = round(8 * _BAR_LETTERS * seconds / longest) if longest > 0 else 0
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _color(layer: dict[str, Any]) -> str:
    return "blue" if layer["share_of_roofline"] >= NEAR_ROOFLINE else "red"


def _faster(before: dict[str, Any] | None, after: dict[str, Any] | None) -> str:
    if not before or not after or not before["seconds"] or not after["seconds"]:
        return ""
    return f"{before['seconds'] / after['seconds']:.2f}×"


def _title(result: dict[str, Any]) -> str:
    shapes = ", ".join("×".join(map(str, shape)) for shape in result["input_shapes"])
    plural = "" if result["threads"] == 1 else "s"
    return f"{result['model']}, input {shapes}, {result['threads']} thread{plural}, {result['isa']}"


def _summary(result: dict[str, Any]) -> str:
    peak = result["peak_gops"]
    return (
        f"median {1e3 * result['median_seconds']:.2f} ms, "
        f"fastest {1e3 * result['min_seconds']:.2f} ms, of {result['repeats']} runs\n"
        f"{result['gops']:.1f} GOPS: {100 * result['share_of_peak']:.0f} % of what this CPU "
        f"reaches on registers (f32 {peak['f32']:.0f} GFLOPS, i8 {peak['i8']:.0f} GOPS)\n"
        f"floor {1e3 * result['floor_seconds']:.2f} ms by peak and bandwidth; "
        f"{100 * result['share_of_time_near_roofline']:.0f} % of the time in layers at or above "
        f"{100 * NEAR_ROOFLINE:.0f} % of the roofline"
    )
