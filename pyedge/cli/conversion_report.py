"""The report of a conversion as one HTML page: no scripts, no links, pictures as SVG in it."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from pyedge.cli.page import facts, html_page, short

_WEAK_DB = 20.0  # under this, a layer keeps less than 99 % of the signal's power


def conversion_html(report: dict[str, Any], title: str) -> str:
    """The whole page.

    Args:
        report: what `converters.convert` returned, as a dictionary.
        title: usually the name of the model.
    """
    parts = [f"<h1>{escape(title)}</h1>", _facts(report)]
    layers = [layer for layer in report["layers"] if layer["snr_db"] is not None]
    if layers:
        parts += [
            "<h2>Signal to noise of each layer</h2>",
            '<p class="note">INT8 against FP32 at the output of each layer, in the order of '
            "execution, with the noise of all layers before it. 20 dB: a hundredth of the power "
            "is noise.</p>",
            snr_svg(layers),
        ]
    if report["tensors"]:
        parts += [
            "<h2>Calibration</h2>",
            '<p class="note">How often each magnitude occurs (logarithmic) and the threshold: what '
            "lies beyond it saturates.</p>",
            '<div class="grid">',
            *(_tensor(tensor) for tensor in report["tensors"]),
            "</div>",
        ]
    return html_page(title, parts)


def snr_svg(layers: list[dict[str, Any]]) -> str:
    """A horizontal bar for each layer; weak ones in the colour of a warning."""
    row, left, width = 18, 300, 940
    top = max(max(layer["snr_db"] for layer in layers), 2 * _WEAK_DB)
    scale = (width - left - 70) / top
    height = row * len(layers) + 26
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="SNR of each layer">']
    for decibel in range(0, int(top) + 1, 10):
        x = left + decibel * scale
        parts.append(f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - 22}"/>')
        parts.append(
            f'<text class="soft" x="{x:.1f}" y="{height - 6}" text-anchor="middle">'
            f"{decibel} dB</text>"
        )
    for index, layer in enumerate(layers):
        y, value = row * index + 2, layer["snr_db"]
        kind = "weak" if value < _WEAK_DB else "bar"
        length = max(value, 0.0) * scale
        parts.append(
            f'<text x="{left - 8}" y="{y + 11}" text-anchor="end">{short(layer["name"])}</text>'
            f'<rect class="{kind}" x="{left}" y="{y}" width="{length:.1f}" '
            f'height="{row - 5}" rx="2"/>'
            f'<text class="soft" x="{left + length + 6:.1f}" y="{y + 11}">{value:.1f}</text>'
        )
    return "".join(parts) + "</svg>"


def histogram_svg(counts: Any, absmax: float, threshold: float) -> str:
    """Counts of magnitudes from 0 to `absmax`, with a line at the threshold."""
    heights = np.log1p(np.asarray(counts, np.float64))
    heights = 70 * heights / max(heights.max(), 1e-9)
    step = 240 / len(heights)
    path = "".join(
        f"M{step * i:.1f} 76v{-height:.1f}h{step * 0.85:.1f}v{height:.1f}z"
        for i, height in enumerate(heights)
        if height > 0
    )
    x = 240 * min(threshold / absmax, 1.0) if absmax > 0 else 240.0
    return (
        f'<svg viewBox="0 0 242 78" role="img" aria-label="histogram">'
        f'<path class="bar" d="{path}"/>'
        f'<line class="cut" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="77"/></svg>'
    )


def _facts(report: dict[str, Any]) -> str:
    values: list[tuple[str, object]] = [
        ("precision", report["precision"]),
        ("method", report.get("method")),
    ]
    cosine = report.get("cosine")
    values.append(("cosine with FP32", None if cosine is None else f"{cosine:.5f}"))
    values.append(("calibration images", report.get("images")))
    values.append(("size of the file", f"{report['file_bytes'] / 1e6:.2f} MB"))
    values.append(("time", f"{report['seconds']:.1f} s"))
    return facts(values)


def _tensor(tensor: dict[str, Any]) -> str:
    kept = tensor["threshold"] / tensor["absmax"] if tensor["absmax"] else 1.0
    kind = "never negative" if tensor["zero_point"] else "symmetric"
    picture = ""
    if tensor["histogram"]:
        picture = histogram_svg(tensor["histogram"], tensor["absmax"], tensor["threshold"])
    return (
        f"<figure>{picture}<figcaption><b>{escape(tensor['name'])}</b>"
        f"threshold {tensor['threshold']:.4g} ({100 * min(kept, 1.0):.0f} % of the range), "
        f"scale {tensor['scale']:.3g}, {kind}</figcaption></figure>"
    )
