"""The evaluation as one HTML page: tables, and the ROC curves as a vector picture in it."""

from __future__ import annotations

import math
from html import escape

from pyedge.evaluation import Comparison, EvaluationReport, far_name
from pyedge.verification import Interval

_COLORS = ("#1f5fbf", "#c8501e", "#2e8b57", "#7a3fa0", "#8a6d00")
_DASHES = ("none", "7 4", "2 3", "9 3 2 3", "1 4")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem;
  color: #1b1f24; background: #fff }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { border-bottom: 1px solid #d5d9de; padding: .3rem .8rem; text-align: right }
td { white-space: nowrap }
th:first-child, td:first-child { text-align: left }
svg { max-width: 100%; height: auto }
"""
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 720, 440, 72, 16, 16, 48


def evaluation_html(report: EvaluationReport, title: str = "Evaluation") -> str:
    """The whole page, without scripts or links to elsewhere."""
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{_data(report)}.</p>",
        *(f"<p><strong>{escape(note)}</strong></p>" for note in report.notes),
        _models_table(report),
    ]
    if report.comparisons:
        parts += [
            "<h2>Differences</h2>",
            "<p>Points of a hundred, each model at its own threshold, with the 95 % bootstrap "
            "interval: TAR over people, accuracy over pairs.</p>",
            _comparison_table(report),
        ]
    if any(result.curve for result in report.models.values()):
        parts += ["<h2>ROC over all pairs</h2>", roc_svg(report)]
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def roc_svg(report: EvaluationReport) -> str:
    """True over false accept rate, the latter logarithmic, as an SVG element."""
    curves = {name: result.curve for name, result in report.models.items() if result.curve}
    first_decade = -int(math.log10(max(report.impostor_pairs, 10)))
    curves = {
        name: [(false, true) for false, true in curve if false >= 10.0**first_decade]
        for name, curve in curves.items()
    }
    low = min((true for curve in curves.values() for _, true in curve), default=0.0)
    low = max(0.0, math.floor(low * 20) / 20 - 0.05)

    def x(far: float) -> float:
        share = 1 - math.log10(far) / first_decade
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(tar: float) -> float:
        return _TOP + (1 - (tar - low) / (1 - low)) * (_HEIGHT - _TOP - _BOTTOM)

    lines = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" '
        'aria-label="ROC curves" font-family="system-ui, sans-serif" font-size="13">'
    ]
    for decade in range(first_decade, 1):
        at = x(10.0**decade)
        lines += [
            f'<path d="M{at:.1f} {_TOP}V{_HEIGHT - _BOTTOM}" stroke="#e2e5e9"/>',
            f'<text x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">'
            f"{far_name(10.0**decade) if decade else 1}</text>",
        ]
    for step in range(6):
        tar = low + (1 - low) * step / 5
        lines += [
            f'<path d="M{_LEFT} {y(tar):.1f}H{_WIDTH - _RIGHT}" stroke="#e2e5e9"/>',
            f'<text x="{_LEFT - 8}" y="{y(tar) + 4:.1f}" text-anchor="end">{tar:.3f}</text>',
        ]
    lines.append(
        f'<text x="{(_WIDTH + _LEFT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">'
        "false accept rate</text>"
        f'<text x="14" y="{_HEIGHT / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {_HEIGHT / 2})">true accept rate</text>'
    )
    for i, (name, curve) in enumerate(curves.items()):
        look = (
            f'fill="none" stroke="{_COLORS[i % len(_COLORS)]}" stroke-width="2" '
            f'stroke-dasharray="{_DASHES[i % len(_DASHES)]}"'
        )
        points = " ".join(f"{x(false):.1f},{y(true):.1f}" for false, true in curve)
        row = _HEIGHT - _BOTTOM - 20 - 20 * (len(curves) - 1 - i)
        lines += [
            f'<polyline points="{points}" {look}/>',
            f'<path d="M{_WIDTH - 220} {row - 4}h36" {look}/>',
            f'<text x="{_WIDTH - 176}" y="{row}">{escape(name)}</text>',
        ]
    return "\n".join([*lines, "</svg>"])


def _data(report: EvaluationReport) -> str:
    """What the figures are of, in a sentence."""
    parts = [f"{report.images:,} images of {report.identities:,} people"]
    if report.pairs:
        parts.append(f"{report.pairs:,} pairs in {report.folds} folds")
    if report.impostor_pairs:
        parts.append(
            f"over all pairs of the folder {report.genuine_pairs:,} genuine and "
            f"{report.impostor_pairs:,} impostor"
        )
    return "; ".join(parts)


def _tar_label(far: float) -> str:
    """Column head; its hyphen does not break."""
    return "TAR at FAR " + far_name(far).replace("-", "\N{NON-BREAKING HYPHEN}")


def _models_table(report: EvaluationReport) -> str:
    fars = _fars(report)
    rows = [["model", "accuracy", *(f"{_tar_label(far)} (threshold)" for far in fars)]]
    for name, result in report.models.items():
        accuracy = (
            "–"
            if result.accuracy is None
            else f"{result.accuracy:.2%} ± {result.accuracy_std or 0:.2%}"
        )
        rates = []
        for far in fars:
            tar, threshold = result.tar.get(far), result.thresholds.get(far)
            known = tar is not None and threshold is not None
            rates.append(f"{tar:.2%} ({threshold:.4f})" if known else "–")
        rows.append([name, accuracy, *rates])
    return _table(rows)


def _comparison_table(report: EvaluationReport) -> str:
    fars = _fars(report)
    rows = [
        [
            "model − reference",
            "cosine mean / 1st percentile / min",
            "accuracy",
            *(_tar_label(far) for far in fars),
        ]
    ]
    for name, comparison in report.comparisons.items():
        tars = [_points(comparison.tar.get(far)) for far in fars]
        label = f"{name} − {comparison.reference}"
        rows.append([label, _cosines(comparison), _points(comparison.accuracy), *tars])
    return _table(rows)


def _fars(report: EvaluationReport) -> list[float]:
    return sorted({far for r in report.models.values() for far in r.tar}, reverse=True)


def _cosines(comparison: Comparison) -> str:
    values = (comparison.cosine_mean, comparison.cosine_p1, comparison.cosine_min)
    return " / ".join("–" if value is None else f"{value:.4f}" for value in values)


def _points(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    difference, low, high = (100 * v for v in (interval.difference, interval.low, interval.high))
    bounds = f" [{low:+.3f}, {high:+.3f}]" if math.isfinite(low) else ""
    return f"{difference:+.3f}{bounds}"


def _table(rows: list[list[str]]) -> str:
    cells = [
        "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>"
        for row, tag in zip(rows, ["th", *["td"] * (len(rows) - 1)], strict=True)
    ]
    return "<table>\n" + "\n".join(cells) + "\n</table>"
